"""The figures of the presets that the documentation prints."""

import re

import numpy as np

import spinkeras
from tests.processes import ROOT
from tools import fit_spin_orbit


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
