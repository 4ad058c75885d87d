"""What is fitted: the laws of devices and curves."""

import numpy as np
import pytest
from keras import ops

from spinkeras import calibration
from spinkeras.calibration.law import DeviceLaw
from tests.calibration.harness import GATED, MEASURED, gated


def test_law_of_a_gate_coefficient_alone_takes_draws():
    """Draws come as a column, and nothing else then gives the pulse widths their shape."""
    law = DeviceLaw(GATED, "macrospin")
    table = calibration.read_table(gated())
    rows = {name: table[name] for name in ("current_a", "pulse_width_s", "gate_voltage_v")}
    draws = np.array([[10.0], [50.0]])
    found, _ = law.probability(ops, {"vcma_coefficient": ops.convert_to_tensor(draws)}, rows)
    for value, probability in zip(draws[:, 0], ops.convert_to_numpy(found)):
        exact, _ = law.probability(np, {"vcma_coefficient": value}, rows)
        np.testing.assert_allclose(probability, exact, atol=1e-9)


def test_says_when_the_device_is_no_macrospin():
    with pytest.raises(ValueError, match=r"outside the domain .* or use fit_empirical"):
        calibration.fit_device(MEASURED, "stt_reference", resistance=776.0)
