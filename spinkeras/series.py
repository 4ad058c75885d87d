"""Chebyshev series of NumPy arrays and Keras tensors: smooth functions of two numbers."""

import keras
import numpy as np
from keras import ops
from numpy.polynomial import chebyshev


def chebyshev_series(xp, x, y, tables):
    """Values of several two-dimensional Chebyshev series at the points `(x, y)`.

    Args:
        xp: `numpy` or `keras.ops`.
        x, y: scaled coordinates in [-1, 1], same shape.
        tables: coefficients, array `(tables, rows, columns)`: rows for `x`, columns for `y`.

    Returns:
        Array of shape `(tables, *points)`.
    """
    count, rows, columns = tables.shape
    shape = tuple(np.shape(x) if xp is np else ops.shape(x))
    in_x, in_y = (
        xp.reshape(xp.stack(_polynomials(xp, z, n)), (n, -1)) for z, n in ((x, rows), (y, columns))
    )
    sums = _product(xp, np.swapaxes(tables, 1, 2).reshape(-1, rows), in_x)
    values = xp.sum(xp.reshape(sums, (count, columns, -1)) * in_y, axis=1)
    return xp.reshape(values, (count, *shape))


def with_derivatives(tables):
    """Tables of series, padded to one size, and of their derivatives by `x` and by `y`.

    Args:
        tables: list of coefficient tables of any sizes.

    Returns:
        Array `(3 * tables, rows, columns)`: the series, then those by `x`, then those by `y`.
    """
    rows, columns = (max(table.shape[axis] for table in tables) for axis in (0, 1))
    padded = np.stack(
        [np.pad(t, ((0, rows - t.shape[0]), (0, columns - t.shape[1]))) for t in tables]
    )
    by = [chebyshev.chebder(padded, axis=axis) for axis in (1, 2)]
    by_x, by_y = np.pad(by[0], ((0, 0), (0, 1), (0, 0))), np.pad(by[1], ((0, 0), (0, 0), (0, 1)))
    return np.concatenate([padded, by_x, by_y])


def _product(xp, matrix, polynomials):
    """`matrix @ polynomials`, exact to the precision of the numbers on every device.

    Not a matrix product in single precision: on GPUs that rounds to three digits (TF32).
    """
    if xp is np:
        return matrix @ polynomials
    matrix = ops.convert_to_tensor(matrix, polynomials.dtype)
    if keras.backend.standardize_dtype(polynomials.dtype) == "float64":
        return ops.matmul(matrix, polynomials)
    return ops.sum(matrix[:, :, None] * polynomials, axis=1)


def _polynomials(xp, x, count):
    """List of `T_0(x)` to `T_(count - 1)(x)`."""
    values, twice = [xp.ones_like(x), x], 2 * x
    while len(values) < count:
        values.append(twice * values[-1] - values[-2])
    return values
