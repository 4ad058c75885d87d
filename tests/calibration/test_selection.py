"""The shape of a curve: what not knowing it adds to the errors."""

import types

import numpy as np
import pytest

from spinkeras import calibration
from spinkeras.calibration.selection import covariance_of_choice
from tests.calibration.harness import THERMAL, drawn_curve


def estimate(deviance, **values):
    """An estimate with parameters `{name: (value, standard error)}`, not correlated."""
    theta, error = np.transpose(list(values.values()))
    scaled = types.SimpleNamespace(names=list(values))
    fields = dict(deviance=deviance, theta=theta, covariance=np.diag(error**2), scaled=scaled)
    return types.SimpleNamespace(**fields)


@pytest.mark.parametrize(
    ("deviance", "share"),
    [(8.0, 1 / 2), (8 - 2 * np.log(3), 3 / 4), (10.0, 1 / (1 + np.e)), (200.0, 0.0)],
)
def test_every_shape_counts_with_its_akaike_weight(deviance, share):
    chosen = estimate(10.0, threshold=(1.0, 0.1), slope=(2.0, 0.3))
    richer = estimate(deviance, slope=(3.0, 0.5), c=(0.7, 0.2), threshold=(1.0, 0.1))
    added = covariance_of_choice(chosen, [richer])
    expected = share * (0.5**2 - 0.3**2 + 1.0**2)
    np.testing.assert_allclose(added, np.diag([0.0, expected]), atol=1e-12)


def test_no_other_shape_and_one_that_seems_known_better_add_nothing():
    chosen = estimate(10.0, threshold=(1.0, 0.1), slope=(2.0, 0.3))
    better = estimate(8.0, threshold=(1.0, 0.05), slope=(2.0, 0.2), c=(0.1, 0.1))
    for richer in ([], [better]):
        np.testing.assert_allclose(covariance_of_choice(chosen, richer), 0.0, atol=1e-12)


@pytest.mark.parametrize("mirror", [1, pytest.param(-1, marks=pytest.mark.slow)])
def test_the_errors_of_a_fit_include_the_choice_of_its_shape(mirror):
    """Thermal activation, 1000 pulses a current; and its mirror image, the ballistic shape."""
    shape = THERMAL | {name: mirror * THERMAL[name] for name in ("a", "c")}
    table = drawn_curve(shape, 1000, seed=0)
    fit = calibration.fit_empirical(table)
    stated = calibration.fit_empirical(table, list(fit.parameters))
    assert fit.deviance == pytest.approx(stated.deviance, abs=1e-3)
    assert stated.standard_errors["slope"] < 0.05 * 5e3
    assert abs(stated.parameters["slope"] - 5e3) > 3 * stated.standard_errors["slope"]
    assert abs(fit.parameters["slope"] - 5e3) < 3 * fit.standard_errors["slope"]
    assert np.all(np.linalg.eigvalsh(fit.correlation) > 0)
    np.testing.assert_allclose(np.diag(fit.correlation), 1.0)
