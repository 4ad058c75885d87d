"""Tables and fits across modules: thresholds of either sign, floors, reads of free junctions."""

import numpy as np
import pytest

import spinkeras
from spinkeras import EmpiricalCurve, EquilibriumCurve, SpinNeuron, calibration
from tests.calibration.harness import FIVE_SIGMA, counts

# What a domain-wall neuron does: 5 % at no drive, saturation at 93 %.
TRUTH = EmpiricalCurve(threshold=40e-6, slope=4e4, floor=0.05, ceiling=0.93, pulse_width=2e-9)
BOUNDS = {"threshold": (-1e-3, 1e-3), "slope": (1e3, 1e7)}
PLATEAUS = {"floor": (0.0, 0.3), "ceiling": (0.7, 1.0)}


def table_of(curve, currents, trials=2000, seed=0, width=2e-9):
    switched, trials = counts(curve.switching_probability(currents, width), trials, seed)
    width = np.full(currents.shape, width)
    return dict(current_a=currents, pulse_width_s=width, switched=switched, trials=trials)


def assert_found(fit, truth, names):
    for name in names:
        error = fit.standard_errors[name]
        assert abs(fit.parameters[name] - getattr(truth, name)) < FIVE_SIGMA * error, name
    assert fit.p_value > 1e-6


def slow(*values):
    return pytest.param(*values, marks=pytest.mark.slow)


@pytest.mark.parametrize(
    ("lowest", "trials"),
    [(0.0, 1000), slow(0.0, 100_000), slow(-60e-6, 1000), slow(-60e-6, 100_000)],
)
def test_a_floor_at_no_drive_and_a_plateau_are_found_without_being_named(trials, lowest):
    table = table_of(TRUTH, np.linspace(lowest, 120e-6, 25), trials)
    fit = calibration.fit_empirical(table)
    assert set(fit.parameters) == {"threshold", "slope", "floor", "ceiling"}
    assert_found(fit, TRUTH, fit.parameters)
    named = calibration.fit_empirical(table, BOUNDS | PLATEAUS)
    assert named.parameters == pytest.approx(fit.parameters, rel=1e-3)
    for name in ("floor", "ceiling"):
        assert named.standard_errors[name] < 0.2 / trials**0.5
        assert fit.standard_errors[name] < 0.3 / trials**0.5  # whatever the shape is


@pytest.mark.parametrize("threshold", [slow(-30e-6), slow(-0.3e-6), 0.0, slow(0.3e-6), slow(30e-6)])
@pytest.mark.parametrize("width", [slow(0.2e-6), 20e-6])  # of the transition, 1 / slope
def test_thresholds_of_either_sign(threshold, width):
    truth = TRUTH.replace(threshold=threshold, slope=1 / width)
    currents = threshold + width * np.linspace(-2.5, 2.5, 21)
    table = table_of(truth, currents)
    fit = calibration.fit_empirical(table, BOUNDS | PLATEAUS)
    assert_found(fit, truth, fit.parameters)
    if np.min(currents) < 0 < np.max(currents):  # then nothing need be said about the sign
        fit = calibration.fit_empirical(table)
        assert_found(fit, truth, ["threshold", "slope"])
    device = spinkeras.MTJDevice.preset("vgsot_zhang2020").replace(switching_curve=fit.curve)
    layer = SpinNeuron(device, recenter=False)
    layer.build((None, 3))
    np.testing.assert_allclose(layer.bias_current, fit.curve.threshold, rtol=1e-9, atol=1e-15)
    assert fit.predict(fit.curve.threshold, 2e-9) == pytest.approx(
        (fit.curve.floor + fit.curve.ceiling) / 2
    )


def test_tables_of_positive_currents_have_positive_thresholds():
    """An extrapolation to below 0 must be asked for."""
    currents = np.linspace(90e-6, 110e-6, 5)
    truth = EmpiricalCurve(threshold=-90e-6, slope=3e3, pulse_width=2e-9)
    table = table_of(truth, currents, 100_000)
    with pytest.raises(ValueError, match="data do not limit threshold at all"):
        calibration.fit_empirical(table, ["threshold", "slope"])
    assert_found(calibration.fit_empirical(table, BOUNDS), truth, ["threshold", "slope"])


def test_the_error_of_a_threshold_near_zero_is_compared_with_the_width():
    """A relative one would refuse any threshold of about 0."""
    truth = TRUTH.replace(threshold=0.0, floor=0.0, ceiling=1.0)
    table = table_of(truth, np.linspace(-30e-6, 30e-6, 7), 20)
    error = calibration.fit_empirical(table, BOUNDS).standard_errors["threshold"]
    assert 0.05 / truth.slope < error < 0.2 / truth.slope
    with pytest.raises(ValueError, match=r"threshold has a standard error of .* uA \(at most"):
        calibration.fit_empirical(table, BOUNDS, max_relative_error=0.03)


FREE = EquilibriumCurve(threshold=-0.8e-6, slope=0.4e6, relaxation_time=1e-6)
READS = table_of(FREE, np.linspace(-4e-6, -0.1e-6, 15), 4000, width=5e-6)


@pytest.mark.parametrize("turned", [False, True])
def test_reads_of_a_free_running_junction(turned):
    """All currents may be negative; a junction mounted the other way round is told."""
    table = READS | ({"current_a": -READS["current_a"]} if turned else {})
    if turned:
        with pytest.raises(ValueError, match=r"falls with the current.*reverse the sign"):
            calibration.fit_empirical(table, relaxation_time=1e-6)
        return
    fit = calibration.fit_empirical(table, relaxation_time=1e-6, device="smtj_reference")
    assert isinstance(fit.curve, EquilibriumCurve)
    assert_found(fit, FREE, ["threshold", "slope"])
    assert fit.curve.relaxation_time == 1e-6
    assert "measured reads" in fit.curve.source
    assert SpinNeuron(fit.device).free_running
    assert fit.device.switching_curve == fit.curve
    table = calibration.read_table(READS, signed=True)
    assert calibration.fit_empirical(table, relaxation_time=1e-6).parameters == fit.parameters
    with pytest.raises(ValueError, match=r"Every current .* is <= 0.*signed=True"):
        calibration.read_table(READS)
    seldom = READS | {"pulse_width_s": [2.0] * 15}
    assert calibration.fit_empirical(seldom, relaxation_time=0.1).curve.relaxation_time == 0.1
    with pytest.raises(ValueError, match=r"pulse_width_s = 2 is not 1e-11 to 1e-2 s"):
        calibration.read_table(seldom)


def telegraph(curve, currents, interval, reads, rng):
    """Counts of one junction read over and over, two states with activated rates."""
    p = curve.switching_probability(currents)
    r = np.exp(-interval / (curve.relaxation_time * 2 * np.sqrt(p * (1 - p))))
    bit = (rng.uniform(size=p.shape) < p).astype(float)
    count = np.zeros(p.shape)
    for _ in range(reads):
        bit = (rng.uniform(size=p.shape) < p + r * (bit - p)).astype(float)
        count += bit
    return count


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The fit does not describe")  # of 100 tables one
@pytest.mark.parametrize("per_memory", [0.1, 0.5, 3.0])
def test_standard_errors_know_that_reads_remember(per_memory):
    """Over many tables the deviation of threshold and slope has the stated size."""
    truth = FREE.replace(threshold=0.3e-6, slope=0.5e6)
    currents, reads = np.linspace(-2e-6, 2.5e-6, 10), 3000
    rng = np.random.default_rng(3)
    interval = per_memory * truth.relaxation_time
    scores, deviances = [], []
    for _ in range(60):
        table = {
            "current_a": currents,
            "pulse_width_s": np.full(10, interval),
            "switched": telegraph(truth, currents, interval, reads, rng),
            "trials": np.full(10, reads),
        }
        fit = calibration.fit_empirical(
            table, ["threshold", "slope"], relaxation_time=truth.relaxation_time
        )
        deviances.append(fit.deviance)
        scores.append(
            [(v - getattr(truth, n)) / fit.standard_errors[n] for n, v in fit.parameters.items()]
        )
    assert np.mean(deviances) == pytest.approx(8, abs=4.5 * 4 / 60**0.5)  # chi-squared of 8
    spread = np.std(scores, axis=0)
    assert np.all((spread > 0.72) & (spread < 1.35)), spread  # 4 standard errors of 60 draws
    assert np.all(np.abs(np.mean(scores, axis=0)) < 4.5 / 60**0.5)


WRONG = {
    "time is no number": ({"relaxation_time": "1 us"}, r"relaxation_time = '1 us' is not a number"),
    "time of ages": ({"relaxation_time": 1e9}, r"relaxation_time = 1e\+09 s is outside"),
    "time below 0": ({"relaxation_time": -1e-6}, r"relaxation_time = -1e-06 s is outside"),
    "a law of pulses": (
        {"relaxation_time": 1e-6, "free": ["threshold", "slope", "slope_exponent"]},
        "must name fields of EquilibriumCurve that can be fitted",
    ),
    "a fixed rate of pulses": (
        {"relaxation_time": 1e-6, "fixed": {"a_rate": 0.1}},
        "a_rate = 0.1: the state of a junction that runs freely depends on no pulse width",
    ),
    "bounds apart": (
        {"relaxation_time": 1e-6, "free": {"threshold": (1e-3, -1e-3)}},
        "must be increasing bounds",
    ),
    "bounds of text": ({"free": {"threshold": ("a", "b")}}, "is not a number"),
    "floor above ceiling": (
        {"relaxation_time": 1e-6, "fixed": {"floor": 0.6, "ceiling": 0.5}},
        "floor = 0.6 must be below ceiling",
    ),
    "a threshold of kiloampere": (
        {"free": {"threshold": (-1e3, 1e3), "slope": (1e3, 1e6)}},
        r"within \[-1, 1\]",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_fitted_is_said_in_one_sentence(name):
    options, message = WRONG[name]
    options = {"free": None} | options
    with pytest.raises(ValueError, match=message):
        calibration.fit_empirical(table_of(FREE, np.linspace(-4e-6, 3e-6, 9)), **options)


@pytest.mark.parametrize("signed", [0, "yes", None])
def test_signed_is_true_or_false(signed):
    with pytest.raises(ValueError, match=r"signed = .* must be True or False"):
        calibration.read_table(READS, signed=signed)


@pytest.mark.parametrize("way", [None, "P->AP", "AP->P"])
def test_negative_currents_of_a_free_running_junction_keep_their_sign(way):
    truth = EquilibriumCurve(threshold=-10.8e-6, slope=0.4e6, relaxation_time=1e-6)
    table = table_of(truth, np.linspace(-14e-6, -7e-6, 15), width=5e-6)
    table |= {} if way is None else {"direction": [way] * 15}
    fit = calibration.fit_empirical(table, relaxation_time=1e-6)
    assert_found(fit, truth, ("threshold", "slope"))
