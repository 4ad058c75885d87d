"""Ramps of the current as trials of pulses."""

import numpy as np
import pytest

import spinkeras
from spinkeras import calibration
from tests.harness import some_slow


def ramped(rate, count, seed, step=None, dwell=None):
    """Switching currents of ramps of a device that reverses by thermal activation."""
    device = spinkeras.MTJDevice.preset("stt_reference")
    fine = np.linspace(1e-6, 24e-6, 4001) if step is None else np.arange(1e-6, 24e-6, step)
    width = (fine[1] - fine[0]) / rate if step is None else dwell
    p = spinkeras.switching_probability(fine, width, device, switching_model="neel_brown")
    survival = np.cumprod(1 - p)
    draws = np.random.default_rng(seed).uniform(size=count)
    return fine[np.minimum(np.searchsorted(-survival, -draws), fine.size - 1)]


@pytest.mark.parametrize(
    ("options", "ramp"),
    [
        ({"rate": 1e-3}, {"rate": 1e-3}),
        ({"rate": 10.0}, {"rate": 10.0}),
        ({"rate": None, "step": 0.2e-6, "dwell": 1e-4}, {"step": 0.2e-6, "dwell": 1e-4}),
    ],
)
def test_ramps_become_trials_of_pulses(options, ramp):
    free = ["anisotropy", "spin_torque_efficiency"]
    current = ramped(count=3000, seed=8, **options)
    table = calibration.read_table({"switching_current_a": current}, ramp=ramp)
    assert np.sum(table["switched"]) == 3000
    assert table["trials"][0] == 3000
    volts = {"V_sw (mV)": current * 2e3 * 1e3}
    per_volt = {name: value * (1 if name == "dwell" else 2e3) for name, value in ramp.items()}
    with pytest.warns(UserWarning, match="guessed 'V_sw .mV.' as switching_voltage in mV"):
        again = calibration.read_table(volts, 2e3, ramp=per_volt)
    np.testing.assert_allclose(again["trials"], table["trials"])
    np.testing.assert_allclose(again["current_a"], table["current_a"], rtol=1e-9)
    fit = calibration.fit_device(table, "stt_reference", free, switching_model="neel_brown")
    for name in free:
        truth = getattr(spinkeras.MTJDevice.preset("stt_reference"), name)
        assert abs(fit.parameters[name] - truth) < 5.1 * fit.standard_errors[name], name
        assert fit.standard_errors[name] < 0.1 * truth


@pytest.mark.parametrize("steps", some_slow([0, 0.05, 0.1, 0.13, 0.2, 0.3], 0, 0.1))
def test_the_resolution_of_the_record_does_not_matter(steps):
    """Currents rounded to steps of 0 to half a standard deviation; quantiles, without noise."""
    share = (np.arange(2000) + 0.5) / 2000
    current = 10.7 + 0.5 * np.log(-np.log1p(-share))  # uA, standard deviation 0.64
    current = np.round(current / steps) * steps if steps else current
    table = calibration.read_table({"switching_current_a": current * 1e-6}, ramp={"rate": 1e-3})
    fit = calibration.fit_empirical(table)
    assert fit.deviance < 0.6 * fit.degrees_of_freedom


def test_a_record_that_is_too_coarse_is_told():
    current = np.round(ramped(rate=1e-3, count=500, seed=1) / 5e-7) * 5e-7
    with pytest.warns(UserWarning, match="recorded in steps of 5e-07 A.*finer resolution"):
        calibration.read_table({"switching_current_a": current}, ramp={"rate": 1e-3})
