"""The figures of the presets that the documentation prints."""

import re

import numpy as np
import pytest

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
