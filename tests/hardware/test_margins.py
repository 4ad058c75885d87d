"""How long bits last, how often pulses and reads fail. Runs on every backend."""

import numpy as np
import pytest

from spinkeras import energy
from spinkeras.hardware import driver_table, margins
from spinkeras.macrospin import fokker_planck
from tests.hardware.harness import make_model

pytestmark = pytest.mark.backends


def test_reset_error_is_that_of_the_exact_solution():
    model = make_model()
    assumptions = energy.EnergyAssumptions()
    current = energy.reset_current(model.layers[0].device, assumptions)
    for row, anisotropy in zip(driver_table.device_settings(model), model.layers[0].anisotropy):
        switched = fokker_planck.switching_probability(
            current, assumptions.reset_pulse_width, model.layers[0].device, anisotropy
        )
        assert row["reset_error"] == pytest.approx(1 - float(switched), rel=0.01)
        # a stiffer device than the nominal one is reset less surely
        assert (row["reset_error"] > 1e-3) == (row["gate_voltage_v"] < 0)


def test_read_disturb_is_an_upper_estimate(device):
    for voltage, time in ((0.05, 2e-9), (0.1, 2e-9), (0.1, 50e-9)):
        assumptions = energy.EnergyAssumptions(read_voltage=voltage, read_time=time)
        estimate = float(margins.read_disturb(device, device.thermal_stability, assumptions))
        exact = fokker_planck.switching_probability(
            voltage / device.resistance_parallel, time, device
        )
        assert exact <= estimate < 1e-2
    long = energy.EnergyAssumptions(read_time=2e-6)
    estimate = float(margins.read_disturb(device, device.thermal_stability, long))
    exact = fokker_planck.switching_probability(0.1 / device.resistance_parallel, 2e-6, device)
    assert estimate == pytest.approx(-np.log1p(-float(exact)), rel=0.25)
    full = energy.EnergyAssumptions(read_voltage=1.0)
    assert margins.read_disturb(device, device.thermal_stability, full) == 1


def test_reliability():
    model = make_model(pulses=4)
    table = margins.reliability(model, spread_stability=0.1)
    assert [row["layer"] for row in table] == ["first", "second"]
    first = model.layers[0]
    stability = first.anisotropy * first.device.volume / first.device.thermal_energy
    rng = np.random.default_rng(0)
    drawn = stability * np.exp(0.1 * rng.normal(size=(100_000, 4)))
    attempt = first.device.diffusion_time / (drawn * np.sqrt(drawn / np.pi))
    share = np.mean(attempt * np.exp(drawn) >= margins.TEN_YEARS)
    assert table[0]["retention_yield"] == pytest.approx(share, abs=0.005)
    assert table[0]["inferences"] == 1e12 / 8
    assert table[0]["read_disturb"] == margins.read_disturb(first.device, stability.min())
    none = margins.reliability(model)[0]["retention_yield"]
    assert none == np.mean(_retention(first) >= margins.TEN_YEARS)


def _retention(layer):
    return np.array(
        [layer.device.replace(anisotropy=float(k)).retention_time for k in layer.anisotropy]
    )
