"""What a pulse costs: the published figures and the formulas. Runs on every backend."""

import numpy as np
import pytest
from keras import ops

import spinkeras
from spinkeras import EnergyAssumptions, EnergyTracker, energy
from spinkeras.macrospin import fokker_planck
from tests.harness import gradients
from tools import finite_volume

pytestmark = pytest.mark.backends


def test_write_energy_at_the_midpoint_with_the_parallel_resistance(device):
    """247 / 139 / 86 / 70 / 60 / 58 / 61 / 80 / 147 / 254 fJ: flat from 3 to 12 ns."""
    table = {0.5: 247, 1: 139, 2: 86, 3: 70, 5: 60, 7: 58, 10: 61, 20: 80, 50: 147, 100: 254}
    for width, expected in table.items():
        current = spinkeras.midpoint_current(width * 1e-9, device)
        found = energy.write_energy(current, width * 1e-9, 0.5, device.replace(tmr=0.0))
        assert found * 1e15 == pytest.approx(expected, rel=0.012)


def test_a_reversed_device_costs_more(device):
    current = float(spinkeras.midpoint_current(5e-9, device))
    never, always = (float(energy.write_energy(current, 5e-9, p, device)) for p in (0.0, 1.0))
    ratio = float(energy.antiparallel_resistance(current, device)) / device.resistance_parallel
    assert always / never == pytest.approx(1 + 0.25 * (ratio - 1), rel=1e-12)
    assert float(energy.write_energy(-current, 5e-9, 0.0, device)) == pytest.approx(never)


def test_antiparallel_resistance_solves_its_equation(device):
    for tmr in (0.0, 1.0, 5.0):
        device = device.replace(tmr=tmr)
        current = np.geomspace(1e-9, 1e-2, 60)
        resistance = energy.antiparallel_resistance(current, device)
        voltage = current * resistance
        expected = device.resistance_parallel * (
            1 + tmr / (1 + (voltage / device.tmr_half_voltage) ** 2)
        )
        np.testing.assert_allclose(resistance, expected, rtol=1e-6)
        tensor = energy.antiparallel_resistance(ops.convert_to_tensor(current, "float32"), device)
        np.testing.assert_allclose(ops.convert_to_numpy(tensor), resistance, rtol=1e-5)


def test_reversal_fraction_is_that_of_the_exact_solution(device):
    """x = 1 - (1/t_p) integral of P(t) dt / P(t_p), at the midpoint of 2 to 20 ns."""
    nodes, weights = np.polynomial.legendre.leggauss(24)
    for width, expected in ((2e-9, 0.83), (5e-9, 0.80), (10e-9, 0.74), (20e-9, 0.67)):
        ratio = float(spinkeras.midpoint_current(width, device)) / device.critical_current
        tau = width / device.diffusion_time * device.thermal_stability
        during = fokker_planck.switching_curve(
            ratio, tau * (nodes + 1) / 2, device.thermal_stability
        )
        final = fokker_planck.switching_curve(ratio, [tau], device.thermal_stability)[0]
        assert 1 - weights @ during / 2 / final == pytest.approx(expected, abs=0.01)
        assert EnergyAssumptions().reversal_fraction == pytest.approx(expected, abs=0.09)


def test_reset_reaches_the_error_it_promises(device):
    for width, error, current in ((5e-9, 1e-3, 73e-6), (10e-9, 1e-3, 47e-6)):
        assumptions = EnergyAssumptions(reset_pulse_width=width, reset_error=error)
        found = energy.reset_current(device, assumptions)
        assert found == pytest.approx(current, rel=0.01)  # design notes: 73 uA at 5 ns
        left = 1 - finite_volume.switching_probability(found, width, device)
        assert left == pytest.approx(error, rel=1e-3)
    with pytest.raises(ValueError, match="No current up to"):
        energy.reset_current(
            device.replace(damping=1e-4), EnergyAssumptions(reset_pulse_width=1e-10)
        )


def test_read_and_gate_energy(device):
    assert energy.gate_energy(1.0, device) * 1e15 == pytest.approx(0.0771, rel=1e-3)
    low, high = (float(energy.read_energy(p, device)) for p in (0.0, 1.0))
    assert low == pytest.approx(0.1**2 * 2e-9 / device.resistance_parallel)
    assert low / high == pytest.approx(1 + 1 / 1.04)


@pytest.mark.parametrize(
    "bad",
    [
        {"read_voltage": -1},
        {"reset_error": 0.0},
        {"reversal_fraction": 2},
        {"read_time": float("nan")},
    ],
)
def test_bad_assumptions(bad):
    with pytest.raises(ValueError, match=f"{next(iter(bad))} = .* is outside"):
        EnergyAssumptions(**bad)
    with pytest.raises(ValueError, match="must be EnergyAssumptions"):
        EnergyTracker(assumptions=bad)


def test_gradient_of_the_write_energy(device):
    """The energy is differentiable: d(write)/d(current) against central differences."""
    current = np.array([20e-6, 73e-6, 200e-6])

    def total(i):
        return ops.sum(energy.write_energy(i, 3e-9, 0.4, device)) * 1e12

    found = gradients(total, ops.convert_to_tensor(current, "float32"))[0]
    step = 1e-5 * current
    up, down = (1e12 * energy.write_energy(current + s, 3e-9, 0.4, device) for s in (step, -step))
    np.testing.assert_allclose(found, (up - down) / (2 * step), rtol=1e-4)


CURVE = spinkeras.EmpiricalCurve.preset("sot_80nm")


@pytest.mark.parametrize(
    ("own", "law", "channel"),
    [
        ({}, {"reset_efficiency": 0.9}, None),
        ({"switching_curve": CURVE}, {"reset_curve": CURVE.replace(threshold=0.9e-3)}, None),
        ({"switching_curve": CURVE}, {"reset_curve": CURVE.replace(threshold=1.5e-3)}, 776.0),
    ],
)
def test_the_reset_follows_the_law_of_the_other_direction(device, own, law, channel):
    """It is that of a device which has this law in both directions; without one, as ever."""
    device = device.replace(write_resistance=channel, **own)
    both = device.replace(**law)
    alike = both.reversed().replace(reset_efficiency=None, reset_curve=None)
    alike = alike.replace(initial_state="parallel")
    for figure in (energy.reset_current, energy.reset_pulses, energy.reset_energy):
        assert figure(both) == pytest.approx(figure(alike), rel=1e-12)
    assert energy.reset_current(both) != pytest.approx(energy.reset_current(device), rel=0.05)
    stability = 0.9 * device.thermal_stability
    assert energy.reset_failure(both, stability) == energy.reset_failure(alike, stability)
    assert energy.reset_energy(device.reversed().reversed()) == energy.reset_energy(device)


@pytest.mark.parametrize("shape", [(), (3,)])
@pytest.mark.parametrize(
    ("name", "bad"),
    [
        ("pulse_width", -1e-9),
        ("probability", -0.01),
        ("probability", 1.01),
        ("anisotropy", 0.0),
        ("resistance", 0.0),
        ("tmr", -0.1),
        ("pulses", 0),
    ],
)
def test_an_energy_of_a_value_outside_its_range_is_refused(device, name, bad, shape):
    good = dict(current=5e-5, pulse_width=2e-9, anisotropy=device.anisotropy, probability=0.5)
    assert np.all(np.isfinite(energy.pulse_energies(**good, device=device)["write"]))
    with pytest.raises(ValueError, match=rf"^{name} = "):
        energy.pulse_energies(**{**good, name: np.full(shape, bad)[()]}, device=device)


def test_figures_of_the_reset_take_a_preset_and_default_assumptions(device):
    for figure in (energy.reset_current, energy.reset_pulses, energy.reset_energy):
        assert figure("stt_reference", None) == figure(device, EnergyAssumptions()) > 0


@pytest.mark.parametrize("channel", [None, 776.0])
def test_pulses_of_the_other_direction_start_in_the_other_state(device, channel):
    device = device.replace(write_resistance=channel)
    back = device.reversed()
    current, width, p = 60e-6, 3e-9, np.array([0.0, 0.3, 1.0])
    high = float(energy.antiparallel_resistance(current, device))
    low, x = device.resistance_parallel, EnergyAssumptions().reversal_fraction
    path = high * (1 - p) + (x * high + (1 - x) * low) * p if channel is None else channel
    written = energy.write_energy(current, width, p, back)
    np.testing.assert_allclose(written, current**2 * width * path)
    tensor = ops.convert_to_numpy(
        energy.write_energy(ops.convert_to_tensor(current, "float32"), width, p, back)
    )
    np.testing.assert_allclose(tensor, written, rtol=1e-5)
    np.testing.assert_allclose(energy.read_energy(p, back), energy.read_energy(1 - p, device))
    # A reset of one direction is a write of the other that always succeeds.
    for one, other in ((device, back), (back, device)):
        current = energy.reset_current(one)
        expected = energy.write_energy(current, EnergyAssumptions().reset_pulse_width, 1.0, other)
        assert energy.reset_energy(one) == pytest.approx(float(expected))


def test_a_curve_of_its_own_tells_how_to_reset_what_switches_without_a_drive():
    leaky = spinkeras.EmpiricalCurve(threshold=-1e-5, slope=2e4, pulse_width=2e-9, floor=0.05)
    back = spinkeras.EmpiricalCurve(threshold=1e-4, slope=1e5, pulse_width=2e-9)
    device = spinkeras.MTJDevice.preset("stt_reference").replace(switching_curve=leaky)
    with pytest.raises(ValueError, match="does not describe a reset pulse"):
        energy.reset_current(device)
    both = device.replace(reset_curve=back)
    alone = device.replace(switching_curve=back)
    assert energy.reset_current(both) == energy.reset_current(alone)
    with pytest.raises(ValueError, match="does not describe a reset pulse"):
        energy.reset_current(both.reversed())
