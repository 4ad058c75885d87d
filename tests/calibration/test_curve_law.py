"""The law of an empirical curve, as a function of the fitted fields."""

import numpy as np
import pytest
from keras import ops

from spinkeras import EmpiricalCurve
from spinkeras.calibration.curve_law import CurveLaw
from spinkeras.calibration.scales import SCALES, SIGNED, Scaled
from spinkeras.physics import empirical
from tests.calibration.harness import GATED

CURVE = EmpiricalCurve(
    threshold=75e-6, slope=4e4, pulse_width=2e-9, floor=0.1, ceiling=0.9, a=0.1, c=0.2,
    threshold_exponent=-0.3, anisotropy_exponent=1.2, ceiling_anisotropy_rate=0.5, c_rate=0.05,
)  # fmt: skip
GATE = np.repeat([-0.5, 0.0, 0.5], 10)
ROWS = {
    "current_a": np.tile(np.linspace(30e-6, 150e-6, 5), 6),
    "pulse_width_s": np.tile(np.repeat([1e-9, 5e-9], 5), 3),
    "gate_voltage_v": GATE,
}


@pytest.mark.parametrize("scales", [SCALES, SIGNED])
def test_rows_are_those_of_the_curve(scales):
    """On the scales of the fit; also as draws, which are columns of tensors."""
    ratio = GATED.anisotropy_at(GATE) / GATED.anisotropy
    expected = CURVE.switching_probability(ROWS["current_a"], ROWS["pulse_width_s"], ratio)
    base = EmpiricalCurve(threshold=1e-6, slope=1e6, pulse_width=2e-9)
    law = CurveLaw(base, GATED, ROWS, scales)
    values = {name: getattr(CURVE, name) for name in empirical.LIMITS if name != "pulse_width"}
    scaled = Scaled(list(values), None, None, None, scales=scales)
    theta = dict(zip(values, scaled.forward(values.values())))
    found, excess = law.probability(np, theta, ROWS)
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    assert excess == 0
    draws = {name: ops.convert_to_tensor(np.full((2, 1), value)) for name, value in theta.items()}
    drawn, _ = law.probability(ops, draws, ROWS)
    np.testing.assert_allclose(ops.convert_to_numpy(drawn), [expected] * 2, atol=1e-6)


@pytest.mark.parametrize(
    "values",
    [
        {"c": 1.2},  # a pole: c^2 / 4 > d
        {"a": -2.0},  # falls
        {"a": -1.0, "a_rate": -0.5},  # falls at long pulses only
        {"floor": 3.0},  # the logit of a floor above the ceiling
        {"b": np.log(30.0)},  # too steep far from the midpoint
    ],
)
def test_a_curve_that_does_not_rise_is_outside(values):
    law = CurveLaw(CURVE, GATED, ROWS)
    found, excess = law.probability(np, values, ROWS)
    assert np.sum(excess) > law.tolerance
    assert np.all(np.isfinite(found))
    assert "No curve that rises with the current" in law.outside(values, ROWS)
