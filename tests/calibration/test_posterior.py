"""Draws of what is not known or differs: the posterior, and devices from a spread."""

from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

import spinkeras
from spinkeras import calibration
from spinkeras.physics.empirical import EmpiricalCurve
from tests.calibration.harness import (
    FIVE_SIGMA,
    GATED,
    MEASURED,
    REFERENCE,
    TRUTH,
    counts,
    gated,
    small_table,
    synthetic,
)


@pytest.mark.slow
def test_posterior_agrees_with_integration_on_a_grid():
    table = synthetic(widths=(3e-9,), trials=200, seed=6)
    bounds = {"anisotropy": (60e3, 160e3), "spin_torque_efficiency": (0.35, 0.7)}
    fit = calibration.fit_device(
        table, TRUTH, bounds, posterior={"chains": 4, "draws": 400, "warmup": 300}, seed=7
    )
    posterior = fit.posterior
    axes = [np.linspace(*np.log(ends), 121) for ends in bounds.values()]
    anisotropy, efficiency = np.exp(np.meshgrid(*axes, indexing="ij"))
    log_likelihood = np.zeros(anisotropy.shape)
    for grid, ends in zip((anisotropy, efficiency), bounds.values()):  # shoulders of the prior
        span = np.ptp(np.log(ends))
        gap = np.minimum(np.log(grid / ends[0]), np.log(ends[1] / grid)) / span
        log_likelihood -= np.square(np.maximum(0.03 - gap, 0) / 0.0075) / 2
    columns = ("current_a", "pulse_width_s", "switched", "trials")
    for current, width, switched, trials in zip(*(fit.table[c] for c in columns)):
        # The efficiency only scales the current.
        probability = spinkeras.switching_probability(
            current * efficiency / TRUTH.spin_torque_efficiency, width, TRUTH, anisotropy
        )
        log_likelihood += stats.binom.logpmf(switched, trials, probability)
    weight = np.exp(log_likelihood - log_likelihood.max())
    weight /= weight.sum()
    for name, grid in (("anisotropy", anisotropy), ("spin_torque_efficiency", efficiency)):
        mean = np.sum(weight * grid)
        spread = np.sqrt(np.sum(weight * grid**2) - mean**2)
        draws, size = posterior.draws[name], posterior.effective_sample_size[name]
        assert draws.shape == (400, 4)
        assert size > 300
        assert abs(draws.mean() - mean) < FIVE_SIGMA * spread / np.sqrt(size)
        assert draws.std() == pytest.approx(spread, rel=0.2)
        assert np.all((draws > bounds[name][0]) & (draws < bounds[name][1]))
        assert posterior.r_hat[name] < 1.05
    assert posterior.acceptance > 0.6
    assert "R-hat" in posterior.summary()

    devices = calibration.sample_devices(fit, 50, seed=8)
    assert [d.anisotropy for d in devices] != sorted(d.anisotropy for d in devices)
    pairs = set(zip(*(posterior.draws[n].ravel() for n in bounds)))
    assert all((d.anisotropy, d.spin_torque_efficiency) in pairs for d in devices)
    assert len(calibration.sample_devices(fit, 2000)) == 2000  # more than there are draws


@pytest.mark.slow
def test_posterior_of_a_gate_coefficient():
    free = {
        "spin_torque_efficiency": (0.4, 0.9),
        "vcma_coefficient": (-20e-15, 80e-15),
    }
    fit = calibration.fit_device(
        gated(trials=100), GATED, free, posterior={"chains": 4, "draws": 300, "warmup": 300}
    )
    for name, draws in fit.posterior.draws.items():
        error = fit.standard_errors[name]
        # A regular likelihood with ample data: the posterior is normal about the estimate.
        assert draws.std() == pytest.approx(error, rel=0.25), name
        size = fit.posterior.effective_sample_size[name]
        assert abs(draws.mean() - fit.parameters[name]) < FIVE_SIGMA * error / np.sqrt(size)
        assert np.all((draws > free[name][0]) & (draws < free[name][1]))
    alone = calibration.fit_device(
        gated(trials=100), GATED, "spin_torque_efficiency", posterior={"draws": 100, "warmup": 100}
    )
    draws = alone.posterior.draws["spin_torque_efficiency"]
    assert draws.std() == pytest.approx(alone.standard_errors["spin_torque_efficiency"], rel=0.3)
    devices = calibration.sample_devices(fit, 20)
    assert len({d.vcma_coefficient for d in devices}) > 1


@pytest.mark.slow
def test_posterior_of_an_empirical_curve_agrees_with_integration_on_a_grid():
    bounds = {"threshold": (1.05e-3, 1.3e-3), "slope": (4e3, 12e3)}
    options = {"chains": 4, "draws": 400, "warmup": 300}
    fit = calibration.fit_empirical(MEASURED, bounds, resistance=776.0, posterior=options, seed=3)
    axes = [np.linspace(*np.log(ends), 121) for ends in bounds.values()]
    threshold, slope = np.exp(np.meshgrid(*axes, indexing="ij"))
    log_likelihood = np.zeros(threshold.shape)
    for grid, ends in zip((threshold, slope), bounds.values()):  # shoulders of the prior
        gap = np.minimum(np.log(grid / ends[0]), np.log(ends[1] / grid)) / np.ptp(np.log(ends))
        log_likelihood -= np.square(np.maximum(0.03 - gap, 0) / 0.0075) / 2
    for current, switched in zip(MEASURED["voltage_v"] / 776, MEASURED["switched"]):
        p = 1 / (1 + np.exp(-4 * slope * (current - threshold)))
        log_likelihood += stats.binom.logpmf(np.round(switched), 50, p)
    weight = np.exp(log_likelihood - log_likelihood.max())
    weight /= weight.sum()
    for name, grid in (("threshold", threshold), ("slope", slope)):
        mean = np.sum(weight * grid)
        spread = np.sqrt(np.sum(weight * grid**2) - mean**2)
        draws, size = fit.posterior.draws[name], fit.posterior.effective_sample_size[name]
        assert size > 300
        assert fit.posterior.r_hat[name] < 1.05
        assert abs(draws.mean() - mean) < FIVE_SIGMA * spread / np.sqrt(size)
        assert draws.std() == pytest.approx(spread, rel=0.2)


@pytest.mark.slow
def test_posterior_of_a_curve_on_every_scale():
    truth = EmpiricalCurve(
        threshold=1.0e-3, slope=9e3, ceiling=0.8, pulse_width=2e-9, threshold_exponent=-0.2
    )
    width = np.repeat([1e-9, 4e-9], 15)
    current = np.tile(np.linspace(0.6e-3, 1.6e-3, 15), 2)
    switched, trials = counts(truth.switching_probability(current, width), 400, seed=24)
    table = dict(current_a=current, pulse_width_s=width, switched=switched, trials=trials)
    channel = REFERENCE.replace(write_resistance=776.0)
    fit = calibration.fit_empirical(
        table, ["threshold", "slope", "c", "ceiling", "threshold_exponent"], device=channel,
        posterior={"chains": 4, "draws": 300, "warmup": 300},
    )  # fmt: skip
    for name, draws in fit.posterior.draws.items():
        assert draws.std() == pytest.approx(fit.standard_errors[name], rel=0.3), name
        assert fit.posterior.r_hat[name] < 1.05
    devices = calibration.sample_devices(fit, 30, spread={"write_resistance": 0.1})
    assert all(isinstance(d, spinkeras.MTJDevice) for d in devices)
    curves = {d.switching_curve for d in devices}
    drawn = set(fit.posterior.draws["threshold"].ravel())
    assert len(curves) > 1
    assert {c.threshold for c in curves} <= drawn
    assert len({d.write_resistance for d in devices}) == 30
    plain = calibration.fit_empirical(MEASURED, resistance=776.0)
    with pytest.raises(ValueError, match="needs draws of a device"):
        calibration.sample_devices(plain, 3)


def test_posterior_options_are_checked(monkeypatch):
    with pytest.raises(
        ValueError, match=r"posterior option chains = 1 must be a whole number from 2"
    ):
        calibration.fit_device(small_table(), "stt_reference", posterior={"chains": 1})
    with pytest.raises(ValueError, match="posterior = 'yes' must be True, False or a dictionary"):
        calibration.fit_device(small_table(), "stt_reference", posterior="yes")
    with pytest.raises(ValueError, match=r"posterior has no option \['draw'\]"):
        calibration.fit_device(small_table(), "stt_reference", posterior={"draw": 100})
    with pytest.raises(ValueError, match=r"seed = -1 must be a whole number"):
        calibration.fit_device(small_table(), "stt_reference", posterior=True, seed=-1)
    monkeypatch.setattr(calibration.fit, "sample_posterior", lambda *a, **options: options)
    fit = calibration.fit_device(small_table(), "stt_reference", posterior={})
    assert fit.posterior == {}  # drawn, with the default options


def test_sample_devices_from_a_spread():
    spread = {"diameter": 0.03, "anisotropy": 0.08}
    devices = calibration.sample_devices(TRUTH, 2000, seed=9, spread=spread)
    assert devices == calibration.sample_devices(TRUTH, 2000, seed=9, spread=spread)
    assert devices != calibration.sample_devices(TRUTH, 2000, seed=10, spread=spread)
    for name, value in spread.items():
        ratio = np.log([getattr(d, name) / getattr(TRUTH, name) for d in devices])
        assert abs(np.mean(ratio)) < FIVE_SIGMA * value / np.sqrt(2000)
        # The standard deviation of n normal values has the relative error 1 / sqrt(2 n).
        assert abs(np.std(ratio) / value - 1) < FIVE_SIGMA / np.sqrt(4000) + 0.01
    assert all(d.damping == TRUTH.damping for d in devices)


def test_sample_devices_varies_what_is_asked():
    """Thermal stability, critical current, resistance and TMR, each by its own field."""
    count = 4000
    spread = {
        "anisotropy": 0.05,
        "spin_torque_efficiency": 0.08,
        "resistance_area_product": 0.07,
        "tmr": 0.04,
    }
    devices = calibration.sample_devices(REFERENCE, count, seed=5, spread=spread)
    expected = {
        "thermal_stability": 0.05,
        "critical_current": np.hypot(0.05, 0.08),  # follows the anisotropy too
        "resistance_parallel": 0.07,
        "tmr": 0.04,
    }
    for name, sigma in expected.items():
        ratio = np.log([getattr(d, name) / getattr(REFERENCE, name) for d in devices])
        assert abs(np.std(ratio) / sigma - 1) < FIVE_SIGMA / np.sqrt(2 * count) + 0.01, name
    curve_device = spinkeras.MTJDevice.preset("vgsot_zhang2020")
    spread = {"threshold": 0.05, "slope": 0.1, "write_resistance": 0.07}
    devices = calibration.sample_devices(curve_device, count, seed=6, spread=spread)
    middle = spinkeras.midpoint_current(2e-9, curve_device)
    ratio = np.log([spinkeras.midpoint_current(2e-9, d) / middle for d in devices[:1000]])
    assert abs(np.std(ratio) / 0.05 - 1) < FIVE_SIGMA / np.sqrt(2000) + 0.01
    for name in ("write_resistance", "write_path_resistance"):
        ratio = np.log([getattr(d, name) / 1112.0 for d in devices])
        assert abs(np.std(ratio) / 0.07 - 1) < FIVE_SIGMA / np.sqrt(2 * count) + 0.01
    with pytest.raises(ValueError, match=r"Device \d+ of 500 is impossible: gate_voltage_range"):
        calibration.sample_devices("vcma_uta2022", 500, spread={"anisotropy": 0.6})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(count=0, spread={"damping": 0.1}), r"count = 0 must be a whole number from 1"),
        (dict(count=3), r"spread = None must give relative standard deviations"),
        (dict(count=3, spread={"damping": 5}), r"5 % is 0\.05"),
        (dict(count=3, spread={"damping": "5 %"}), r"5 % is 0\.05"),
        (dict(count=3, spread=["damping"]), "as a dictionary"),
        (dict(count=3, seed="x", spread={"damping": 0.1}), "seed = 'x' must be a whole number"),
        (dict(count=3, spread={"name": 0.1}), r"for any of the fields"),
    ],
)
def test_sample_devices_refusals(options, message):
    with pytest.raises(ValueError, match=message):
        calibration.sample_devices("stt_reference", **options)


def test_sample_devices_needs_draws():
    fit = calibration.fit_device(small_table(), "stt_reference")
    with pytest.raises(ValueError, match="needs draws"):
        calibration.sample_devices(fit, 3, spread={"damping": 0.1})


def test_curves_of_both_directions_are_drawn_from_one_posterior():
    """Draws of the second have a prefix, and scatter the curve of the reset."""

    def posterior(threshold, seed):
        draws = threshold * (1 + 0.02 * np.random.default_rng(seed).normal(size=(50, 2)))
        return calibration.Posterior({"threshold": draws}, {"threshold": 1.0}, {"threshold": 9.0},
                                     0.8 + 0.01 * seed, seed)  # fmt: skip

    both = calibration.posterior.merged(posterior(1e-3, 1), posterior(0.8e-3, 2), "reset_")
    assert list(both.draws) == list(both.r_hat) == ["threshold", "reset_threshold"]
    assert (both.acceptance, both.divergences) == (0.81, 3)
    assert "reset_threshold" in both.summary()
    curve = EmpiricalCurve(threshold=1e-3, slope=5e3, pulse_width=1e-9)
    device = REFERENCE.replace(switching_curve=curve, reset_curve=curve.replace(threshold=0.8e-3))
    fit = SimpleNamespace(posterior=both, device=device)
    drawn = calibration.sample_devices(fit, 20, spread={"reset_slope": 0.1, "slope": 0.1})
    for name in ("switching_curve", "reset_curve"):
        for field in ("threshold", "slope"):
            values = [getattr(getattr(each, name), field) for each in drawn]
            assert len(set(values)) == 20
            assert np.mean(values) == pytest.approx(
                getattr(getattr(device, name), field), rel=5 * 0.1 / 20**0.5
            )


@pytest.mark.slow
@pytest.mark.parametrize("temperatures", [None, (250.0, 350.0)])
def test_posterior_of_both_directions_contains_the_truth(temperatures):
    truth = TRUTH.replace(spin_torque_efficiency=0.45, reset_efficiency=0.75)
    parts = []
    for seed, kelvin in enumerate(temperatures or (300.0,)):
        for way, state in (("P->AP", "parallel"), ("AP->P", "antiparallel")):
            here = truth.at_temperature(kelvin).starting(state)
            part = synthetic(here, (5e-9,), 400, seed) | {"direction": np.full(9, way)}
            parts.append(part | {"temperature_k": np.full(9, kelvin)})
    table = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    fit = calibration.fit_device(table, TRUTH, posterior={"draws": 400, "warmup": 300})
    for name, draws in fit.posterior.draws.items():
        assert abs(draws.mean() - getattr(truth, name)) < FIVE_SIGMA * draws.std()
        assert draws.std() == pytest.approx(fit.standard_errors[name], rel=0.3)
    if temperatures is None:
        fit = calibration.fit_empirical(
            table, ["threshold", "slope"], device=TRUTH, posterior={"draws": 400, "warmup": 300}
        )
        assert list(fit.posterior.draws) == list(fit.parameters)
        devices = calibration.sample_devices(fit, 10)
        assert len({device.reset_curve.slope for device in devices}) == 10
