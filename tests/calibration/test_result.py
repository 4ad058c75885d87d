"""What a fit gives: predictions and a picture."""

import numpy as np
import pytest

from spinkeras import calibration
from tests.calibration.harness import MEASURED, REFERENCE, small_table, synthetic


def test_predict_refuses_settings_without_meaning():
    device = calibration.fit_device(small_table(), "stt_reference")
    curve = calibration.fit_empirical(small_table())
    for fit in (device, curve):
        for width in (0.0, -2e-9, np.nan):
            with pytest.raises(ValueError, match=r"pulse_width.* must be finite and > 0 s"):
                fit.predict(70e-6, [2e-9, width])
    for settings, message in (
        (
            (70e-6, 1e-4),
            r"pulse_width = 0\.0001 s is outside \[.*\] s, the domain of the macrospin",
        ),
        ((70e-6, 2e-9, 3.3), r"anisotropy = .* is outside \[.*\] J/m\^3, the domain of the macros"),
        ((70e-6, 2e-9, [0.0, 9.9]), r"anisotropy = -.* must be finite and > 0 J/m\^3"),
        ((np.nan, 2e-9), "current is NaN"),
        (("70 uA", 2e-9), "current = '70 uA' must be an array of numbers"),
        ((70e-6, None), "pulse_width = None must be an array of numbers"),
        ((70e-6, 2e-9, True), "gate_voltage = True must be an array of numbers"),
    ):
        with pytest.raises(ValueError, match=message):
            device.predict(*settings)
    assert device.predict([[60e-6], [70e-6]], [2e-9, 3e-9, 4e-9]).shape == (2, 3)


def test_plot(tmp_path):
    pyplot = pytest.importorskip("matplotlib.pyplot")
    pyplot.switch_backend("Agg")
    for fit in (
        calibration.fit_device(synthetic(), REFERENCE),
        calibration.fit_empirical(MEASURED, resistance=776.0),
    ):
        axes = fit.plot()
        assert len(axes) == len(axes[0].figure.axes) == 2
        axes[0].figure.savefig(tmp_path / "fit.png")
        pyplot.close(axes[0].figure)
