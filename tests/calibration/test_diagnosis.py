"""What a fit says of its residuals: where they lie above or below it, and when it is poor."""

import numpy as np
import pytest

from spinkeras import calibration
from spinkeras.calibration.diagnosis import pattern
from tests.calibration.harness import CURVE, of_curve


def test_a_poor_fit_says_what_to_look_at():
    with pytest.warns(UserWarning, match="does not describe") as caught:
        fit = calibration.fit_empirical(of_curve(ceiling=0.7), ["threshold", "slope"])
    message = str(caught[0].message)
    for words in ("does not describe", "at the shoulder", "residuals of one sign", "scaled()"):
        assert words in message
    assert fit.pattern()
    good = calibration.fit_empirical(of_curve())
    assert good.pattern() == []
    assert good.overdispersion == pytest.approx(good.deviance / 23)
    errors = good.scaled().standard_errors
    factor = max(1.0, good.overdispersion) ** 0.5
    assert errors == pytest.approx({n: factor * e for n, e in good.standard_errors.items()})


@pytest.mark.parametrize(
    ("where", "words"),
    [
        (lambda t: t["pulse_width_s"] > 3e-9, "above the fit at 5 ns"),
        (lambda t: t["gate_voltage_v"] > 0, "above the fit at a gate voltage of +0.5 V"),
        (lambda t: t["probability"] < 0.2, "above the fit at the foot"),
        (lambda t: np.arange(40) == 17, "the worst row is"),
    ],
)
def test_patterns_are_named(where, words):
    table = {
        "current_a": np.tile(np.linspace(60e-6, 90e-6, 10), 4),
        "pulse_width_s": np.repeat([2e-9, 5e-9], 20),
        "gate_voltage_v": np.tile(np.repeat([0.0, 0.5], 10), 2),
        "probability": np.tile(np.linspace(0.05, 0.95, 10), 4),
        "switched": np.full(40, 10.0),
        "trials": np.full(40, 20.0),
    }
    residuals = np.tile([0.5, -0.5, -0.4, 0.4], 10)
    assert pattern(table, table["probability"], residuals) == []
    residuals[where(table)] += 5.0 if words.startswith("the worst") else 1.5
    found = pattern(table, table["probability"], residuals)
    assert any(words in text for text in found), found


def test_single_shots_are_no_poor_fit():
    """One pulse a setting: the deviance exceeds its degrees of freedom by itself."""
    rng = np.random.default_rng(2)
    current = rng.uniform(0.9e-3, 1.1e-3, 500)
    table = dict(
        current_a=current,
        pulse_width_s=np.full(500, 1e-9),
        switched=rng.binomial(1, CURVE.switching_probability(current, 1e-9)),
        trials=np.ones(500),
    )
    fit = calibration.fit_empirical(table, ["threshold", "slope"])  # does not warn
    assert fit.p_value < 0.01
