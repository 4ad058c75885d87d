"""Two-dimensional Chebyshev series: values and derivatives, for arrays and tensors."""

import numpy as np
import pytest
from keras import ops
from numpy.polynomial import chebyshev

from spinkeras.physics.series import chebyshev_series
from tests.harness import FLOAT64

rng = np.random.default_rng(0)
# Two sizes of tables, of two and of one series; the corners of the domain are among the points.
TABLES = [rng.normal(size=(2, 5, 4)), rng.normal(size=(1, 3, 6))]
X, Y = np.meshgrid([-1.0, -0.3, 0.0, 0.8, 1.0], [-1.0, 0.1, 1.0])


def series(x, y):
    each = [coefficients for table in TABLES for coefficients in table]
    return np.stack([chebyshev.chebval2d(x, y, coefficients) for coefficients in each])


def test_values_are_those_of_numpy():
    np.testing.assert_allclose(chebyshev_series(np, X, Y, TABLES), series(X, Y), atol=1e-13)


def test_derivatives_are_the_differences_up_to_the_corners():
    found = chebyshev_series(np, X, Y, TABLES, derivatives=True)
    assert found.shape == (3, 3, *X.shape)
    step = 1e-5
    np.testing.assert_allclose(found[0], series(X, Y), atol=1e-13)
    by_x = (series(X + step, Y) - series(X - step, Y)) / (2 * step)
    by_y = (series(X, Y + step) - series(X, Y - step)) / (2 * step)
    np.testing.assert_allclose(found[1:], [by_x, by_y], rtol=1e-7, atol=1e-7)


def test_a_table_of_lines_and_a_single_point():
    """The least sizes: `1 + 2x + 3y + 4xy`, of which the derivatives are exact."""
    table = np.array([[[1.0, 3.0], [2.0, 4.0]]])
    found = chebyshev_series(np, np.float64(0.5), np.float64(-0.25), [table], derivatives=True)
    np.testing.assert_allclose(found, [[0.75], [1.0], [5.0]], rtol=1e-15)


@pytest.mark.backends
@pytest.mark.parametrize("dtype", ["float32", *(["float64"] if FLOAT64 else [])])
@pytest.mark.parametrize("derivatives", [False, True])
def test_tensors_give_the_same_to_the_precision_of_their_dtype(dtype, derivatives):
    x, y = (ops.convert_to_tensor(z, dtype) for z in (X, Y))
    found = ops.convert_to_numpy(chebyshev_series(ops, x, y, TABLES, derivatives))
    wanted = chebyshev_series(np, X, Y, TABLES, derivatives)
    assert found.dtype == dtype
    largest = np.max(np.abs(wanted))
    np.testing.assert_allclose(found, wanted, rtol=0, atol=30 * np.finfo(dtype).eps * largest)
