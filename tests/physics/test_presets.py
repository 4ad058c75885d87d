"""The figures of the presets that the documentation prints."""

import re

import numpy as np
import pytest
from scipy import constants

import spinkeras
from tests.processes import ROOT
from tools import fit_spin_orbit


@pytest.mark.parametrize("name", spinkeras.presets(free_running=True))
def test_free_running_presets_run_freely_and_say_what_is_assumed(name):
    device = spinkeras.MTJDevice.preset(name)
    model = None if device.switching_curve is not None else "equilibrium"
    layer = spinkeras.SpinNeuron(device, train=(), switching_model=model)
    assert layer.free_running
    assert device.source
    assert device.assumed
    assert spinkeras.MTJDevice.from_json(device.to_json()) == device


def test_the_published_free_running_preset_is_as_it_says():
    device = spinkeras.MTJDevice.preset("smtj_schnitzspan2023")
    curve = device.switching_curve
    assert (device.diameter, device.resistance_area_product) == (50e-9, 15e-12)
    assert curve.relaxation_time == 5e-9  # the source's
    # What is assumed: from 1/2 to 1 / (1 + 1/e) by 1 MA/cm^2.
    moved = curve.switching_probability(1e10 * device.area)
    assert moved == pytest.approx(1 / (1 + np.exp(-1)), abs=1e-3)
    assert "threshold and slope" in device.assumed
    assert "Changed since: switching_curve." in device.replace(switching_curve=None).source


WORDS = {
    "diameter": r"diameter|\d nm junction|of \d+ nm",
    "thickness": r"thickness|free layer [\d.]+ nm|film of [\d.]+ nm",
    "saturation_magnetization": r"\bMs\b|magnetisation",
    "damping": "damping",
    "spin_torque_efficiency": r"\beta\b|efficiency",
    "anisotropy": "anisotropy|K_eff is",
    "resistance_area_product": r"\bRA\b|R_P|resistance-area product",
    "tmr": "TMR",
    "tmr_half_voltage": "roll-off|halved",
    "vcma_coefficient": "VCMA|without effect",
    "oxide_thickness": "oxide|thicknesses",
    "pulse_width_range": "pulse (and gate )?ranges|intervals",
    "gate_voltage_range": "gate ranges|without effect",
}


@pytest.mark.parametrize("name", [*spinkeras.presets(), *spinkeras.presets(free_running=True)])
def test_every_value_of_a_preset_is_of_the_source_or_assumed(name):
    device = spinkeras.MTJDevice.preset(name)
    if "Every value" in device.assumed and name.endswith("_reference"):
        return
    text = f"{device.source} {device.assumed}"
    silent = [field for field, words in WORDS.items() if not re.search(words, text)]
    assert not silent


@pytest.mark.parametrize(
    ("name", "interface", "factor"),
    [
        ("stt_arm", 1.0e-3, 0.9568),
        ("vcma_uta2022", 1.0056e-3, 0.9682),
        ("vgsot_zhang2020", 0.32e-3, 0.9482),
    ],
)
def test_the_anisotropy_of_a_preset_is_what_it_says(name, interface, factor):
    device = spinkeras.MTJDevice.preset(name)
    shape = factor * constants.mu_0 * device.saturation_magnetization**2 / 2
    assert device.anisotropy == pytest.approx(interface / device.thickness - shape, rel=3e-3)
    said = f"{device.source} {device.assumed}"
    assert re.search(rf"K_i {interface * 1e3:g}|K_i 1.0 ", said)
    assert f"{factor:.3f}" in said


def test_presets_in_the_docs_are_computed():
    text = (ROOT / "docs" / "calibration.md").read_text()
    for name in spinkeras.presets():
        row = re.search(rf"\| `{name}` \|(.*)\|\n", text).group(1)
        printed = [float(number) for number in re.findall(r"[\d.]+", row)]
        device = spinkeras.MTJDevice.preset(name)
        critical = device.critical_current
        if name == "vgsot_zhang2020":
            critical = fit_spin_orbit.critical_current(device)
        width = np.array(device.pulse_width_range)
        midpoint = spinkeras.midpoint_current(width, device)
        slope = spinkeras.slope_at_midpoint(width, device) * 1e-6
        energy = spinkeras.energy.write_energy(midpoint, width, 0.5, device) * 1e15
        per_stability = device.volume / device.thermal_energy
        computed = [
            device.thermal_stability,
            *(value * per_stability for value in device.anisotropy_range),
            critical * 1e6,
            *(width * 1e9),
            *(midpoint * 1e6),
            *slope,
            slope[1] / slope[0],
            *energy,
        ]
        np.testing.assert_allclose(printed, computed, rtol=0.02, atol=0.51, err_msg=name)
        np.testing.assert_allclose(printed[8:11], computed[8:11], rtol=0.03)
