"""The scales of a fit: what may be free, and values there and back."""

import numpy as np
import pytest

from spinkeras import calibration
from spinkeras.calibration.scales import SCALES, SIGNED, Scaled
from tests.calibration.harness import small_table


@pytest.mark.parametrize(
    ("free", "message"),
    [
        (["tmr"], r"must name fields of MTJDevice that can be fitted"),
        ([], r"must name fields of MTJDevice"),
        (3, r"free = 3 must be a list of field names"),
        ({"damping": ("low", 0.1)}, r"free\['damping'\] = 'low' is not a number"),
        ({"damping": 0.02}, r"free\['damping'\] = 0\.02 must be a pair"),
        ({"damping": (0.1, 0.01)}, r"must be increasing bounds within \[0\.0001, 1\]"),
    ],
)
def test_refuses_what_cannot_be_free(free, message):
    with pytest.raises(ValueError, match=message):
        calibration.fit_device(small_table(), "stt_reference", free)


@pytest.mark.parametrize("scales", [SCALES, SIGNED])
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("damping", 0.02),
        ("vcma_coefficient", -3e-14),
        ("threshold", 7e-5),
        ("floor", 0.1),
        ("a", -0.5),
    ],
)
def test_values_come_back_and_slopes_are_those_of_the_scale(name, value, scales):
    scaled = Scaled([name], None, None, None, scales=scales)
    theta = scaled.forward([value])
    assert scaled.backward(theta)[name] == pytest.approx(value, rel=1e-12)
    step = 1e-5 * max(1.0, abs(theta[0]))
    ends = [scaled.backward(theta + sign * step)[name] for sign in (1, -1)]
    np.testing.assert_allclose(
        scaled.derivative(theta), (ends[0] - ends[1]) / (2 * step), rtol=1e-6
    )
