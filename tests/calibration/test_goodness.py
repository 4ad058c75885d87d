"""Honest statistics of every fit, across modules: coverage, many pulses, one side of a curve."""

import numpy as np
import pytest
from scipy import stats

import spinkeras
from spinkeras import calibration
from spinkeras.macrospin import fokker_planck
from tests.calibration.harness import CURVE, REFERENCE, THERMAL, drawn, drawn_curve, of_curve

FREE = ("anisotropy", "spin_torque_efficiency")


def exact_table(widths, points):
    """Settings and their exact probabilities."""
    width = np.repeat(widths, points)
    relative = np.tile(np.linspace(0.8, 1.25, points), len(widths))
    current = relative * spinkeras.midpoint_current(width, REFERENCE)
    return current, width, fokker_planck.switching_probability(current, width, REFERENCE)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The fit does not describe")  # one table in a hundred
@pytest.mark.parametrize("trials", [1000, 100_000])
def test_intervals_contain_the_truth_as_often_as_they_say(trials):
    """1000 tables at three pulse widths tell 95 % from 93 and 97 % (binomial: +-1.4 %)."""
    table, repeats = exact_table((2e-9, 5e-9, 20e-9), 7), 1000
    inside = dict.fromkeys(FREE, 0)
    for seed in range(repeats):
        fit = calibration.fit_device(drawn(table, trials, seed), REFERENCE, FREE)
        for name in FREE:
            reach = stats.norm.isf(0.025) * fit.standard_errors[name]
            inside[name] += abs(fit.parameters[name] - getattr(REFERENCE, name)) < reach
    for name, count in inside.items():
        assert 0.93 <= count / repeats <= 0.97, name


@pytest.mark.parametrize("trials", [100_000, 100_000_000])
def test_many_pulses_do_not_reject_the_own_device(trials):
    """Estimates and deviance of a few tables, however many pulses see the closed form's error."""
    table = exact_table((2e-9, 20e-9), 5)
    chi_squared = deviance = 0.0
    repeats = 2
    for seed in range(repeats):
        fit = calibration.fit_device(drawn(table, trials, seed), REFERENCE, FREE, exact=True)
        error = np.array([fit.standard_errors[name] for name in FREE])
        off = np.array([fit.parameters[name] - getattr(REFERENCE, name) for name in FREE]) / error
        chi_squared += off @ np.linalg.solve(fit.correlation, off)
        deviance += fit.deviance
    assert chi_squared < stats.chi2.isf(1e-3, 2 * repeats)
    assert deviance < stats.chi2.isf(1e-3, fit.degrees_of_freedom * repeats)
    assert set(fit.table) == {
        "current_a", "pulse_width_s", "gate_voltage_v", "switched", "trials",
    }  # fmt: skip
    if trials == 100_000_000:  # without it, the same table is rejected
        with pytest.warns(UserWarning, match="The fit does not describe the table"):
            closed = calibration.fit_device(drawn(table, trials, 0), REFERENCE, FREE, exact=False)
        assert closed.p_value < 1e-6
        by_itself = calibration.fit_device(drawn(table, trials, 0), REFERENCE, FREE)
        assert by_itself.p_value > 1e-3


def test_exact_is_checked(monkeypatch):
    table = drawn(exact_table((2e-9,), 5), 100_000, 1)
    with pytest.raises(ValueError, match="exact = 'yes' must be True, False or None"):
        calibration.fit_device(table, REFERENCE, exact="yes")
    options = {"switching_model": "neel_brown", "free": "anisotropy"}
    with pytest.raises(ValueError, match="exact=True needs switching_model="):
        calibration.fit_device(table, REFERENCE, exact=True, **options)
    monkeypatch.setattr(calibration.fit, "_MOST_SOLUTIONS", 3)
    with pytest.warns(UserWarning, match="5 different currents are many for the exact solver"):
        calibration.fit_device(table, REFERENCE)


def curve_coverage(shape, trials, repeats, **options):
    """How many tables of a curve have its threshold, its slope, in their 95 % intervals."""
    inside = {"threshold": 0, "slope": 0}
    for seed in range(repeats):
        fit = calibration.fit_empirical(drawn_curve(shape, trials, seed), **options)
        for name in inside:
            reach = stats.norm.isf(0.025) * fit.standard_errors[name]
            inside[name] += abs(fit.parameters[name] - getattr(CURVE, name)) < reach
    return inside


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The fit does not describe")  # one table in a hundred
@pytest.mark.filterwarnings("ignore:.*is the best among curves that rise")  # fewer
@pytest.mark.parametrize(
    ("shape", "trials", "options"),
    [
        ({}, 100, {}),  # of a logistic curve the fit chooses the shape by itself
        ({}, 10_000, {}),
        (THERMAL, 1000, {"free": ["threshold", "slope"], "fixed": THERMAL}),
        (THERMAL, 1000, {}),  # mostly `c` alone is chosen, with a slope that is 8 % too large
        (THERMAL, 100_000, {}),  # mostly the whole shape
    ],
)
def test_intervals_of_a_curve_contain_the_truth_as_often_as_they_say(shape, trials, options):
    """300 tables (+-2.5 %) of each, at the right shape or one that the fit chooses."""
    repeats = 300
    for name, count in curve_coverage(shape, trials, repeats, **options).items():
        least, most = stats.binom.ppf([1e-3, 1 - 1e-3], repeats, [0.93, 0.97])
        assert least <= count <= most, name


@pytest.mark.parametrize("ends", [(0.6, 0.99), (0.83, 0.96), (0.01, 0.4), (0.001, 0.15)])
@pytest.mark.parametrize("shift", [0.0, 0.5e-3])
def test_tables_of_one_side_of_the_transition(ends, shift):
    """Write errors or read disturb: the threshold lies outside the currents of the table."""
    q = np.log(np.divide(ends, 1 - np.array(ends)))
    truth = CURVE.replace(threshold=1e-3 + shift)
    current = truth.threshold + np.linspace(*q, 7) / (4 * truth.slope)
    table = dict(
        current_a=current,
        pulse_width_s=np.full(7, 1e-9),
        switched=np.random.default_rng(4).binomial(
            10_000, truth.switching_probability(current, 1e-9)
        ),
        trials=np.full(7, 10_000),
    )
    fit = calibration.fit_empirical(table)
    assert list(fit.parameters) == ["threshold", "slope"]
    off = abs(fit.parameters["threshold"] - truth.threshold)
    assert off < 5 * fit.standard_errors["threshold"] < 0.3 * truth.threshold
    shown = np.ptp(fit.probability)
    assert ("the rest, which a network uses too, is an extrapolation" in fit.summary()) == (
        shown < 0.5
    )


@pytest.mark.parametrize("ends", [(0.02, 0.98), (0.1, 0.9), (0.3, 0.7), (0.2, 0.6)])
@pytest.mark.parametrize("free_running", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_a_floor_and_a_ceiling_are_found_together(ends, free_running):
    """At equal distances from 1/2, one of them alone improves nothing; expected counts."""
    truth = CURVE.replace(floor=ends[0], ceiling=ends[1])
    current = np.linspace(0.3e-3, 1.7e-3, 29)
    table = dict(
        current_a=current,
        pulse_width_s=np.full(29, 1e-5 if free_running else 1e-9),
        switched=np.round(2000 * truth.switching_probability(current, 1e-9)),
        trials=np.full(29, 2000),
    )
    options = {"relaxation_time": 1e-9} if free_running else {}
    fit = calibration.fit_empirical(table, **options)  # does not warn
    assert {*fit.parameters} == {"threshold", "slope", "floor", "ceiling"}
    for name, value in (("slope", 5e3), ("floor", ends[0]), ("ceiling", ends[1])):
        assert abs(fit.parameters[name] - value) < 0.5 * fit.standard_errors[name]


@pytest.mark.filterwarnings("ignore:The fit does not describe")
def test_no_plateau_where_no_row_reaches_one():
    """A foot up to P = 0.13 is no curve that ends at 0.18, whatever its shape is."""
    current = np.linspace(0.5, 0.8, 6) * spinkeras.midpoint_current(2e-9, REFERENCE)
    table = dict(
        current_a=current,
        pulse_width_s=np.full(6, 2e-9),
        switched=[2, 23, 63, 246, 661, 1268],
        trials=np.full(6, 10_000),
    )
    fit = calibration.fit_empirical(table)
    assert "ceiling" not in fit.parameters
    mirrored = table | {
        "current_a": 2e-4 - current[::-1],
        "switched": 10_000 - np.array(table["switched"])[::-1],
    }
    assert "floor" not in calibration.fit_empirical(mirrored).parameters


@pytest.mark.filterwarnings("ignore:The fit does not describe")
def test_scaled_errors_cover_extra_noise():
    """Counts with nine times their binomial variance: plain errors are too small."""
    off, repeats, points = [], 25, 15
    for seed in range(repeats):
        rng = np.random.default_rng(seed)
        table = of_curve(points=points)
        p = CURVE.switching_probability(table["current_a"], 1e-9)
        less = 999 / 8 - 1  # beta-binomial of 1 + (1000 - 1) / (less + 1) = 9
        table["switched"] = rng.binomial(1000, rng.beta(less * p, less * (1 - p)))
        fit = calibration.fit_empirical(table, ["threshold", "slope"])
        for errors in (fit.standard_errors, fit.scaled().standard_errors):
            off.append((fit.parameters["threshold"] - 1e-3) / errors["threshold"])
    plain, scaled = np.sqrt(np.mean(np.reshape(off, (repeats, 2)) ** 2, axis=0))
    low, high = np.sqrt(stats.chi2.ppf([1e-4, 1 - 1e-4], repeats) / repeats)
    assert plain > high
    assert low < scaled < high
