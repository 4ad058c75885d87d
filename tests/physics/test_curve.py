"""The family of curves: it rises, its tangents, and where its numbers come from."""

import json

import numpy as np
import pytest

from spinkeras.physics import laws
from spinkeras.physics.curve import RationalLogit, steepest_fall
from tools import fit_closed_form


def test_every_curve_rises_over_all_drives():
    """By the roots of the polynomial that has the sign of the slope, over the whole domain."""
    log_u = np.log(np.geomspace(*laws.DURATION_DOMAIN, 61))
    roots = np.linspace(*(d**-0.5 for d in laws.STABILITY_DOMAIN), 31)
    curve = laws.macrospin_curve(np, *np.meshgrid(log_u, roots**-2))
    shape = np.stack([v.ravel() for v in (curve.a, curve.b, curve.c, curve.d)], axis=-1)
    assert np.all(shape[:, [1, 3]] > 0)
    assert np.all(shape[:, 3] > 1.01 * shape[:, 2] ** 2 / 4)
    assert all(steepest_fall(*numbers) is None for numbers in shape)


@pytest.mark.parametrize(
    ("shape", "falls"),
    [((0, 0.25, 0, 0.25), False), ((0, 0.02, 0, 0.5), True), ((1.2, 0.3, 1.4, 1.2), True)],
)
def test_a_falling_curve_is_found(shape, falls):
    """The sign of the derivative over a fine grid of drives agrees."""
    y = np.sinh(np.linspace(-12, 12, 40001))
    curve = RationalLogit(0.0, 1.0, *(float(v) for v in shape))
    logit = 4 * y * (1 + y * (curve.a + y * curve.b)) / (1 + y * (curve.c + y * curve.d))
    assert (steepest_fall(*shape) is not None) == falls == bool(np.any(np.diff(logit) < 0))


def test_tangents_are_the_derivatives(device):
    """By `ln u` and by `ln Delta`, of all numbers of the curve, against central differences."""
    rng = np.random.default_rng(2)
    log_u = rng.uniform(*np.log(laws.DURATION_DOMAIN), 50)
    log_delta = rng.uniform(*np.log(laws.STABILITY_DOMAIN), 50)
    curve, found = laws.macrospin_curve.tangents(np, log_u, np.exp(log_delta))
    for k, (du, dd) in enumerate(((1e-5, 0.0), (0.0, 1e-5))):
        up, down = (
            laws.macrospin_curve(np, log_u + sign * du, np.exp(log_delta + sign * dd))
            for sign in (1, -1)
        )
        for name in ("midpoint", "steepness", "a", "b", "c", "d"):
            central = (getattr(up, name) - getattr(down, name)) / 2e-5
            size = np.abs(getattr(curve, name)).max()
            np.testing.assert_allclose(
                getattr(found, name)[k], central, rtol=1e-5, atol=1e-7 * size
            )


@pytest.mark.slow
def test_shipped_coefficients_are_those_of_the_fit_script():
    assert tuple(laws.DURATION_DOMAIN) == fit_closed_form.DURATIONS
    assert tuple(laws.STABILITY_DOMAIN) == fit_closed_form.STABILITIES
    report = fit_closed_form.report(settings=40)
    assert report["max"] <= 0.002
    assert report["median"] <= 0.0002


@pytest.mark.slow
def test_fit_script_reproduces_the_shipped_numbers(tmp_path, monkeypatch):
    """The whole fit, minutes on one core; on another processor only its last digits may differ."""
    monkeypatch.setattr(fit_closed_form, "TARGET", tmp_path / "fit.json")
    monkeypatch.setattr("sys.argv", ["fit_closed_form"])
    fit_closed_form.main()
    tables = json.loads((tmp_path / "fit.json").read_text())["coefficients"]
    for name, shipped in laws._FIT["coefficients"].items():
        np.testing.assert_allclose(tables[name], shipped, atol=1e-3)
    shape = fit_closed_form.check_shape()
    assert shape["rise"] > 0
    assert shape["gap"] > 0.1
