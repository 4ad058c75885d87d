"""What data determine, and what they do not."""

import numpy as np
import pytest

from spinkeras import EmpiricalCurve, calibration
from tests.calibration.harness import REFERENCE, TRUTH, small_table, synthetic


@pytest.mark.parametrize(
    ("table", "free", "message"),
    [
        (small_table(switched=[0] * 6), ["anisotropy"], r"No pulse .*Add settings with larger"),
        (small_table(switched=[1000] * 6), ["damping"], r"Every pulse .*with smaller current"),
        (
            small_table(),
            ["anisotropy", "damping", "spin_torque_efficiency"],
            r"do not determine all of .*'damping'.* at 1 pulse width\(s\).*Leave damping out of",
        ),
        (small_table(), ["anisotropy", "thickness", "diameter", "damping"], r"no data can tell"),
        (small_table(), ["damping", "spin_torque_efficiency", "temperature", "diameter"], "tell"),
        (
            small_table(switched=[0, 0, 0, 1000, 1000, 1000]),
            ["anisotropy", "damping"],
            r"at 2e-09 s all fail up to 7\.2e-05 A and all succeed from 7\.8e-05 A on.*Add",
        ),
        (
            small_table(current_a=[1e-6] * 6, switched=[5] * 6),
            ["damping", "anisotropy"],
            r"1 settings .* cannot determine 2 parameters",
        ),
    ],
)
def test_refuses_what_the_data_cannot_determine(table, free, message):
    with pytest.raises(ValueError, match=message):
        calibration.fit_device(table, "stt_reference", free)


def test_transition_is_looked_for_at_every_gate_voltage():
    # At each gate alone the outcomes do not overlap; together they would seem to.
    table = small_table(
        switched=[0, 1000, 1000, 0, 0, 1000],
        current_a=[60e-6, 66e-6, 72e-6, 60e-6, 66e-6, 72e-6],
        gate_voltage_v=[0.5, 0.5, 0.5, 0, 0, 0],
    )
    with pytest.raises(ValueError, match="At no setting do both outcomes occur"):
        calibration.fit_device(table, REFERENCE, ["anisotropy"])
    table["switched"] = [1000, 1000, 1000, 0, 0, 0]  # nowhere do all succeed "from inf A on"
    message = r"at 2e-09 s and a gate voltage of 0 V all fail up to 7\.2e-05 A\)\. So the data"
    with pytest.raises(ValueError, match=message):
        calibration.fit_device(table, REFERENCE, ["anisotropy"])


def test_what_the_data_do_not_limit_has_a_huge_error():
    free = ["threshold", "slope", "threshold_exponent"]  # at one pulse width
    fit = calibration.fit_empirical(small_table(), free, max_relative_error=np.inf)
    assert fit.standard_errors["threshold_exponent"] > 1e3
    assert fit.standard_errors["threshold"] < 0.01 * fit.parameters["threshold"]
    assert np.all(np.isfinite(fit.correlation))


@pytest.mark.parametrize("widths", [(1e-9, 4e-9), (2e-9, 2.05e-9)])
@pytest.mark.parametrize("currents", [np.full(6, 75e-6), np.linspace(60e-6, 90e-6, 6)])
def test_the_cure_is_what_the_table_lacks(widths, currents):
    """One current for each pulse width shows no slope, and nearly equal widths no exponent."""
    width = np.linspace(*widths, 6)
    curve = EmpiricalCurve(threshold=75e-6, slope=6e4, threshold_exponent=-0.3, pulse_width=2e-9)
    switched = np.round(1000 * curve.switching_probability(currents, width))
    table = small_table(current_a=currents, pulse_width_s=width, switched=switched)
    cure = r"State .* by fixed=, add .* at other currents of the same pulse width"
    with pytest.raises(ValueError, match=cure) as refusal:
        calibration.fit_empirical(table)
    near = widths[1] < 1.1 * widths[0]
    assert (
        "measurements of one width, state pulse_width= of read_table" in str(refusal.value)
    ) == near
    if not near:  # the cure works
        fit = calibration.fit_empirical(table, fixed={"slope": 6e4, "slope_exponent": 0.0})
        error = fit.standard_errors["threshold_exponent"]
        assert abs(fit.parameters["threshold_exponent"] + 0.3) < 5 * error


def test_exchangeable_parameters_are_named():
    # In the ballistic regime only eta / (Ms V) counts.
    table = synthetic(widths=(2e-9,), trials=100)
    with pytest.raises(ValueError, match=r"make up for a change of one of \['saturation"):
        calibration.fit_device(
            table,
            TRUTH,
            ["saturation_magnetization", "spin_torque_efficiency"],
            max_relative_error=0.1,
        )
