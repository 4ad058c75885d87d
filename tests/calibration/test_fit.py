"""Fits of devices and of curves to switching counts: estimates, errors, choices, warnings."""

import itertools

import numpy as np
import pytest
from scipy import optimize, stats

import spinkeras
from spinkeras import calibration
from spinkeras.macrospin import fokker_planck
from spinkeras.physics.empirical import EmpiricalCurve
from tests.calibration.harness import (
    FIVE_SIGMA,
    GATED,
    HEADER,
    MEASURED,
    REFERENCE,
    TRUTH,
    counts,
    gated,
    settings,
    small_table,
    synthetic,
    write,
)

THERMAL = {"a": -0.85, "b": 0.56, "c": -1.32, "d": 0.63}  # the shape of thermal activation

# Perpendicular junction of 2530 ohm (parallel), 1 ns pulses at 300 K, 10 000 per voltage: arXiv
# 2310.18779, fig. 1b, numbers of the MIT-licensed repository JaredArz/Stochastic_MTJ_Model.
PERPENDICULAR = {
    "voltage_v": 0.4308447774 + 0.0195838534875 * np.arange(29),
    "pulse_width_s": np.full(29, 1e-9),
    "switched": [
        0, 2, 4, 4, 30, 70, 115, 275, 626, 1114, 1852, 2859, 4051, 5286, 6462, 7420, 8151, 8806,
        9192, 9436, 9676, 9761, 9821, 9866, 9904, 9934, 9958, 9962, 9975,
    ],
    "trials": np.full(29, 10_000),
}  # fmt: skip


def test_recovers_a_device_and_reports_it():
    fit = calibration.fit_device(synthetic(), REFERENCE)
    for name in ("anisotropy", "spin_torque_efficiency"):
        deviation = getattr(fit.device, name) - getattr(TRUTH, name)
        assert abs(deviation) < FIVE_SIGMA * fit.standard_errors[name]
        assert fit.standard_errors[name] < 0.03 * getattr(TRUTH, name)  # a sharp test
        assert fit.parameters[name] == getattr(fit.device, name)
    assert fit.device.replace(anisotropy=1e5, spin_torque_efficiency=0.5) == REFERENCE.replace(
        anisotropy=1e5, spin_torque_efficiency=0.5
    )
    assert fit.degrees_of_freedom == 27 - 2
    assert fit.deviance == pytest.approx(np.sum(fit.residuals**2))
    assert fit.deviance < stats.chi2.isf(1e-6, 25)
    assert fit.p_value == pytest.approx(stats.chi2.sf(fit.deviance, 25))
    expected = spinkeras.switching_probability(30e-6, 7e-9, fit.device)
    assert fit.predict(30e-6, 7e-9) == pytest.approx(expected, abs=1e-9)
    assert "deviance" in fit.summary()
    assert fit.posterior is None
    np.testing.assert_allclose(np.diag(fit.correlation), 1.0)


def test_recovers_three_fields_from_exact_fokker_planck_counts():
    current, width = settings(REFERENCE, (2e-9, 6e-9, 30e-9), points=7)
    exact = fokker_planck.switching_probability(current, width, REFERENCE)
    switched, trials = counts(exact, 300, seed=2)
    table = dict(current_a=current, pulse_width_s=width, switched=switched, trials=trials)
    start = REFERENCE.replace(
        damping=0.03, spin_torque_efficiency=0.9, anisotropy=140e3, vcma_coefficient=0.0
    )
    fit = calibration.fit_device(table, start, ["damping", "spin_torque_efficiency", "anisotropy"])
    for name, value in fit.parameters.items():
        assert abs(value - getattr(REFERENCE, name)) < FIVE_SIGMA * fit.standard_errors[name]
        assert fit.standard_errors[name] < 0.15 * value


def test_the_fit_is_a_maximum_of_the_likelihood():
    table = synthetic(trials=100)
    fit = calibration.fit_device(table, REFERENCE)
    names = list(fit.parameters)

    def minus_log_likelihood(values):
        device = TRUTH.replace(**dict(zip(names, values)))
        probability = spinkeras.switching_probability(
            table["current_a"], table["pulse_width_s"], device
        )
        return -np.sum(stats.binom.logpmf(table["switched"], table["trials"], probability))

    best = np.array(list(fit.parameters.values()))
    lowest = minus_log_likelihood(best)
    other = optimize.minimize(
        lambda s: minus_log_likelihood(best * s), [1, 1], method="Nelder-Mead"
    )
    assert other.fun > lowest - 1e-5
    # The deviance is twice the distance from the saturated likelihood.
    fraction = table["switched"] / table["trials"]
    saturated = np.sum(stats.binom.logpmf(table["switched"], table["trials"], fraction))
    assert fit.deviance == pytest.approx(2 * (saturated + lowest), rel=1e-9)


POOR = "The fit does not describe the table"


@pytest.mark.filterwarnings(f"ignore:{POOR}")  # one table in a hundred
def test_standard_errors_and_deviance_are_calibrated():
    repeats, chi_squared, deviances = 20, 0.0, []
    for seed in range(repeats):
        fit = calibration.fit_device(synthetic(widths=(2e-9, 20e-9), seed=100 + seed), REFERENCE)
        error = np.array(list(fit.standard_errors.values()))
        deviation = [v - getattr(TRUTH, n) for n, v in fit.parameters.items()] / error
        chi_squared += deviation @ np.linalg.solve(fit.correlation, deviation)
        deviances.append(fit.deviance)
    low, high = stats.chi2.ppf([1e-6, 1 - 1e-6], 2 * repeats)
    assert low < chi_squared < high
    low, high = stats.chi2.ppf([1e-6, 1 - 1e-6], fit.degrees_of_freedom * repeats)
    assert low < np.sum(deviances) < high


def test_neel_brown_fit():
    law = spinkeras.NeelBrown(barrier_exponent=1.0, attempt_time=1e-9)
    options = dict(switching_model=law)
    current = np.linspace(15e-6, 22e-6, 12)
    width = np.tile([1e-6, 1e-5], 6)
    probability = spinkeras.switching_probability(current, width, TRUTH, **options)
    switched, trials = counts(probability, 2000, seed=3)
    table = dict(current_a=current, pulse_width_s=width, switched=switched, trials=trials)
    fit = calibration.fit_device(table, REFERENCE, **options)
    for name, value in fit.parameters.items():
        assert abs(value - getattr(TRUTH, name)) < FIVE_SIGMA * fit.standard_errors[name]


def test_voltages_are_divided_by_a_resistance():
    table = synthetic(widths=(2e-9,))
    volts = dict(table, voltage_v=table["current_a"] * 1234.0)
    del volts["current_a"]
    by_current = calibration.fit_device(table, REFERENCE)
    by_voltage = calibration.fit_device(volts, REFERENCE, resistance=1234.0)
    assert by_voltage.parameters == pytest.approx(by_current.parameters, rel=1e-6)
    volts["voltage_v"] = table["current_a"] * REFERENCE.resistance_parallel
    with pytest.warns(UserWarning, match="that pulses start parallel, so V = I R with R_P = 7958"):
        by_default = calibration.fit_device(volts, REFERENCE)
    assert by_default.parameters == pytest.approx(by_current.parameters, rel=1e-6)
    own = np.array(small_table()["current_a"]) * REFERENCE.resistance_parallel
    volts = small_table(current_a=None, voltage_v=own)
    for free in ("diameter", {"diameter": (30e-9, 50e-9)}):  # which changes the default
        with pytest.raises(ValueError, match="gives voltages; give the `resistance` in ohm"):
            calibration.fit_device(volts, REFERENCE, free)
    by_current = calibration.fit_device(small_table(), REFERENCE, "diameter")
    options = {"resistance": REFERENCE.resistance_parallel}
    by_voltage = calibration.fit_device(volts, REFERENCE, "diameter", **options)
    assert by_voltage.parameters == pytest.approx(by_current.parameters, rel=1e-6)


def test_a_fitted_device_says_what_was_fitted_and_what_was_not():
    table = small_table()
    options = {"free": ["threshold", "slope"], "fixed": {"ceiling": 1.0}}
    channel = spinkeras.MTJDevice.preset("vgsot_zhang2020")
    for start in (REFERENCE, REFERENCE.replace(source="lab", assumed=""), channel):
        fit = calibration.fit_empirical(table, device=start, **options)
        measured = "threshold, slope fitted to 6000 measured pulses at 6 settings."
        assert fit.curve.source == measured
        found = [(fit.device, f"switching_curve: {measured}")]
        for free in (["anisotropy", "spin_torque_efficiency"], ["diameter"]):
            if start is not channel:
                device = calibration.fit_device(table, start, free, resistance=1e3).device
                found.append((device, measured.replace("threshold, slope", ", ".join(free))))
        for device, measured in found:
            assert device.source == f"{measured} The other fields: {start.source}"
            assert device.assumed == (start.assumed and f"The other fields: {start.assumed}")
        (drawn,) = calibration.sample_devices(fit.device, 1, spread={"tmr": 0.1, "slope": 0.1})
        assert drawn.source == f"{fit.device.source} Changed since: tmr, switching_curve."
        assert drawn.switching_curve.source == f"{fit.curve.source} Changed since: slope."


def test_an_estimate_on_its_bound_warns():
    with pytest.warns(UserWarning, match=r"'anisotropy'\] lies on its bound"):
        calibration.fit_device(
            synthetic(), TRUTH, {"anisotropy": (1e5 * 1.1, 2e5), "damping": (0.01, 0.02)}
        )


# --- gate voltage --------------------------------------------------------------------------------


def test_vcma_coefficient_from_gate_voltages():
    free = ["anisotropy", "spin_torque_efficiency", "vcma_coefficient"]
    start = REFERENCE.replace(vcma_coefficient=0.0)  # the fit finds it from nothing
    fit = calibration.fit_device(gated(), start, free)
    assert fit.deviance < stats.chi2.isf(1e-6, fit.degrees_of_freedom)
    for name in free:
        error = fit.standard_errors[name]
        assert abs(getattr(fit.device, name) - getattr(GATED, name)) < FIVE_SIGMA * error, name
        assert error < 0.05 * getattr(GATED, name), name  # a sharp test
    assert "vcma_coefficient" in fit.summary()
    # The other sign of the coefficient is found as well, and none where there is none.
    for truth in (-38e-15, 0.0):
        table = gated(GATED.replace(vcma_coefficient=truth), seed=22)
        fit = calibration.fit_device(table, start, free)
        error = fit.standard_errors["vcma_coefficient"]
        assert abs(fit.device.vcma_coefficient - truth) < FIVE_SIGMA * error
        assert error < 2e-15


def test_a_known_vcma_coefficient_is_used():
    fit = calibration.fit_device(gated(), GATED)
    assert fit.deviance < stats.chi2.isf(1e-6, fit.degrees_of_freedom)
    for name, value in fit.parameters.items():
        assert abs(value - getattr(GATED, name)) < FIVE_SIGMA * fit.standard_errors[name]
    expected = spinkeras.switching_probability(
        60e-6, 2e-9, fit.device, fit.device.anisotropy_at(0.5)
    )
    assert fit.predict(60e-6, 2e-9, 0.5) == pytest.approx(expected, abs=1e-9)
    with pytest.warns(UserWarning, match=POOR + ".*at a gate voltage of .0.8 V"):
        wrong = calibration.fit_device(gated(), GATED.replace(vcma_coefficient=0.0))
    assert wrong.p_value < 1e-6


@pytest.mark.slow
def test_four_fields_with_gate_voltages():
    # With a known coefficient the gate separates anisotropy from volume.
    free = ["anisotropy", "diameter", "damping", "spin_torque_efficiency"]
    table = gated(trials=4000, widths=(2e-9, 6e-9, 30e-9))
    fit = calibration.fit_device(table, GATED, free)
    for name in free:
        error = fit.standard_errors[name]
        # 4000 trials see the 0.001 by which the closed form differs from the exact solution.
        assert abs(fit.parameters[name] - getattr(GATED, name)) < FIVE_SIGMA * error, name
    assert fit.deviance < stats.chi2.isf(1e-3, fit.degrees_of_freedom)
    ungated = {name: column for name, column in table.items() if name != "gate_voltage_v"}
    with (
        pytest.warns(UserWarning, match=r"rows of one setting are not alike .*: \d+ of 4000, "),
        pytest.raises(ValueError, match="no data can tell them apart"),
    ):
        calibration.fit_device(ungated, GATED, free)


@pytest.mark.parametrize(
    ("table", "free", "message"),
    [
        (small_table(), ["vcma_coefficient"], r"every row of the table has the gate voltage 0 V"),
        (
            small_table(gate_voltage_v=[0.3] * 6),
            ["anisotropy", "vcma_coefficient"],
            r"has the gate voltage 0\.3 V.*Add rows at another gate voltage",
        ),
        (
            small_table(gate_voltage_v=[0, 0, 0, 0, 0, 0.05]),
            ["anisotropy", "vcma_coefficient"],
            r"vcma_coefficient has a standard error of .* fJ/\(V m\) .*other gate voltages",
        ),
        (small_table(gate_voltage_v=[0, 0, 11, 0, 0, 0]), ["damping"], r"row 2 .* not -10 to 10 V"),
        (small_table(gate_voltage_v=[0, "x", 0, 0, 0, 0]), ["damping"], r"row 1 .*'x' is not a"),
        (
            small_table(gate_voltage_v=[0, 0, 0, np.nan, 0, 0]),
            ["damping"],
            r"row 3 .*gate_voltage_v = nan is not a finite number",
        ),
        (small_table(gate_voltage_v=[0.0]), ["damping"], r"differ in length"),
    ],
)
def test_gate_voltage_refusals(table, free, message):
    with pytest.raises(ValueError, match=message):
        calibration.fit_device(table, "stt_reference", free)


def test_empirical_fit_of_gate_voltages():
    truth = EmpiricalCurve(
        threshold=75e-6, slope=4e4, ceiling=0.9, pulse_width=2e-9, anisotropy_exponent=1.2,
        slope_anisotropy_exponent=-0.5, ceiling_anisotropy_rate=1.0, c=0.3,
    )  # fmt: skip
    gate = np.repeat([-0.8, 0.0, 0.8], 15)
    current = np.tile(np.linspace(30e-6, 150e-6, 15), 3)
    ratio = GATED.anisotropy_at(gate) / GATED.anisotropy
    probability = truth.switching_probability(current, 2e-9, ratio)
    switched, trials = counts(probability, 2000, seed=23)
    table = dict(
        current_a=current, pulse_width_s=np.full(45, 2e-9), gate_voltage_v=gate, switched=switched,
        trials=trials,
    )  # fmt: skip
    free = [
        "threshold", "slope", "ceiling", "anisotropy_exponent", "slope_anisotropy_exponent",
        "ceiling_anisotropy_rate", "c",
    ]  # fmt: skip
    fit = calibration.fit_empirical(table, free, device=GATED)
    for name in free:
        deviation = getattr(fit.curve, name) - getattr(truth, name)
        assert abs(deviation) < FIVE_SIGMA * fit.standard_errors[name], name
    assert fit.device == GATED.replace(switching_curve=fit.curve)
    assert fit.predict(60e-6, 2e-9, 0.5) == pytest.approx(
        spinkeras.switching_probability(60e-6, 2e-9, fit.device, GATED.anisotropy_at(0.5))
    )
    with pytest.warns(UserWarning, match=POOR + ".*at a gate voltage of .0.8 V"):
        names = list(calibration.fit_empirical(table, device=GATED).parameters)
    assert names == ["threshold", "slope", "anisotropy_exponent", "c", "ceiling"]
    error = fit.standard_errors["ceiling_anisotropy_rate"]  # of a rate: four times as much
    wide = {"max_relative_error": 0.8 * error, "device": GATED}
    assert list(calibration.fit_empirical(table, free, **wide).parameters) == free
    with pytest.raises(ValueError, match="Gate voltages need a `device`"):
        calibration.fit_empirical(table, free)
    with pytest.raises(ValueError, match="vcma_coefficient = 0, so a gate voltage does not change"):
        calibration.fit_empirical(table, device=GATED.replace(vcma_coefficient=0.0))
    with pytest.raises(ValueError, match=r"At gate_voltage_v = 0\.8 V the anisotropy .* <= 0"):
        calibration.fit_empirical(
            table,
            free,
            device=GATED.replace(vcma_coefficient=300e-15, gate_voltage_range=(0.0, 0.1)),
        )
    with pytest.raises(ValueError, match=r"switches by its switching_curve.*fit_empirical"):
        calibration.fit_device(table, fit.device)


# --- empirical curves ----------------------------------------------------------------------------


def test_measured_junction_rejects_the_thermally_activated_shape():
    good = calibration.fit_empirical(MEASURED, resistance=776.0)
    assert good.degrees_of_freedom == 10
    assert good.deviance < 14
    assert good.p_value > 0.1
    assert good.curve.threshold * 776 == pytest.approx(0.90, abs=0.01)
    # A logistic, fitted independently, is as good.
    volts, fraction = MEASURED["voltage_v"], MEASURED["switched"] / 50

    def logistic_deviance(values):
        p = 1 / (1 + np.exp(-values[1] * (volts - values[0])))
        return 2 * np.sum(stats.binom.logpmf(MEASURED["switched"], 50, fraction)) - 2 * np.sum(
            stats.binom.logpmf(MEASURED["switched"], 50, p)
        )

    logistic = optimize.minimize(logistic_deviance, [0.9, 36.0], method="Nelder-Mead")
    assert logistic.fun == pytest.approx(11, abs=1)
    assert good.deviance == pytest.approx(logistic.fun, abs=3)
    assert list(good.parameters) == ["threshold", "slope"]
    free = ["threshold", "slope"]
    with pytest.warns(UserWarning, match=POOR):
        thermal = calibration.fit_empirical(MEASURED, free, fixed=THERMAL, resistance=776.0)
    assert thermal.p_value < 1e-3

    def thermal_deviance(values):  # the shape itself, of which THERMAL is within 0.002
        p = -np.expm1(-np.log(2) * np.exp(values[1] * (volts - values[0])))
        return 2 * np.sum(stats.binom.logpmf(MEASURED["switched"], 50, fraction)) - 2 * np.sum(
            stats.binom.logpmf(MEASURED["switched"], 50, np.clip(p, 1e-12, 1 - 1e-12))
        )

    exact = optimize.minimize(thermal_deviance, [0.9, 30.0], method="Nelder-Mead")
    assert exact.fun == pytest.approx(36, abs=1)
    assert thermal.deviance == pytest.approx(exact.fun, abs=3)
    known = calibration.fit_empirical(MEASURED, fixed={"slope": 7e3}, resistance=776.0)
    assert list(known.parameters) == ["threshold"]


def test_preset_curve_is_the_fit_of_its_data():
    preset = EmpiricalCurve.preset("sot_80nm")
    fit = calibration.fit_empirical(MEASURED, resistance=776.0)
    assert list(fit.parameters) == ["threshold", "slope"]
    for name, value in fit.parameters.items():
        assert getattr(preset, name) == pytest.approx(value, rel=2e-4)
    assert fit.curve == preset.replace(**fit.parameters)
    assert "vgsot-sim" in preset.source
    with pytest.raises(ValueError, match=r"Unknown curve 'sot'\. Available curves: \['sot_80nm'\]"):
        EmpiricalCurve.preset("sot")


def test_empirical_fit_recovers_every_parameter():
    truth = EmpiricalCurve(
        threshold=1.0e-3, slope=9e3, b=0.4, c=0.3, floor=0.05, ceiling=0.85,
        pulse_width=3e-9, threshold_exponent=-0.3, slope_exponent=0.4, ceiling_rate=0.5,
    )  # fmt: skip
    width = np.repeat([1e-9, 3e-9, 9e-9], 21)
    current = np.tile(np.linspace(0.5e-3, 1.9e-3, 21), 3)
    switched, trials = counts(truth.switching_probability(current, width), 30_000, seed=4)
    table = dict(current_a=current, pulse_width_s=width, switched=switched, trials=trials)
    free = [
        "threshold", "slope", "b", "c", "floor", "ceiling", "threshold_exponent",
        "slope_exponent", "ceiling_rate",
    ]  # fmt: skip
    fit = calibration.fit_empirical(table, free)
    assert fit.curve.pulse_width == pytest.approx(3e-9)
    assert fit.deviance < stats.chi2.isf(1e-6, fit.degrees_of_freedom)
    for name in free:
        deviation = getattr(fit.curve, name) - getattr(truth, name)
        assert abs(deviation) < FIVE_SIGMA * fit.standard_errors[name], name
        size = abs(getattr(truth, name)) if name in ("threshold", "slope") else 1.0
        assert fit.standard_errors[name] < 0.2 * size, name
    assert fit.device is None
    one_width = calibration.fit_empirical({k: v[:21] for k, v in table.items()})
    assert "threshold_exponent" not in one_width.parameters


@pytest.mark.parametrize(
    ("free", "fixed", "message"),
    [
        (["tmr"], None, "must name fields of EmpiricalCurve"),
        (["threshold"], {"shape": 1.0}, r"fields of EmpiricalCurve; unknown \['shape'\]"),
        (["threshold"], {"log_skew": 0.0}, r"fields of EmpiricalCurve; unknown \['log_skew'\]"),
        (["threshold"], {"threshold": 1e-3}, r"\['threshold'\] are in `free` and in `fixed`"),
        (None, {"threshold": 1e-3, "slope": 1e4}, "leaves nothing to fit"),
        (None, ["ceiling"], r"fixed = \['ceiling'\] must be a dictionary"),
        (["threshold", "slope", "slope_exponent"], None, "do not limit slope_exponent at all"),
        (["threshold", "slope_exponent"], None, r"\['slope'\] of the curve are neither in `free`"),
        ({"slope": (1e3, 1e7)}, {"c": 0.1}, r"\['threshold'\] .*, or give values: fixed=\{'thr"),
        ("a", None, r"\['threshold', 'slope'\] of the curve are neither"),
        (
            ["threshold", "slope", "b", "d"],
            None,
            r"b has a standard error of 4\d\d% \(at most 200%",
        ),
    ],
)
def test_empirical_refusals(free, fixed, message):
    with pytest.raises(ValueError, match=message):
        calibration.fit_empirical(MEASURED, free, fixed=fixed, resistance=776.0)


def test_shape_of_a_measured_junction():
    """29 amplitudes of 10 000 pulses see a thousandth of P: no logistic, but this family."""
    fit = calibration.fit_empirical(PERPENDICULAR, resistance=2530.0)
    assert list(fit.parameters) == ["threshold", "slope", "a", "c", "ceiling"]
    assert fit.deviance == pytest.approx(35.1, abs=0.1)
    assert np.max(np.abs(fit.residuals)) < 3.5
    # By name, without a plateau. These parameters could reach 46.1 with a dip near P = 1e-5.
    free = ["threshold", "slope", "a", "b", "c", "d"]
    with (
        pytest.warns(UserWarning, match=POOR),
        pytest.warns(UserWarning, match="best among curves that rise"),
    ):
        named = calibration.fit_empirical(PERPENDICULAR, free, resistance=2530.0)
    assert 46.1 < named.deviance < 50
    assert named.degrees_of_freedom == 23
    current = np.linspace(-5, 5, 10_001) / 2530
    for result in (fit, named):
        assert result.curve.threshold * 2530 == pytest.approx(0.681, abs=0.001)
        assert np.all(np.diff(result.predict(current, 1e-9)) >= 0)
    with pytest.warns(UserWarning, match=POOR + ".*the data lie below the fit at the foot"):
        logistic = calibration.fit_empirical(
            PERPENDICULAR, ["threshold", "slope"], resistance=2530.0
        )
    assert logistic.deviance > 1000


@pytest.mark.parametrize("trials", [30, 1000, 30_000])
def test_default_fit_adds_no_more_than_is_there(trials):
    logistic = EmpiricalCurve(threshold=1e-3, slope=4e3, pulse_width=1e-9)
    current = np.linspace(0.4e-3, 1.8e-3, 15)
    for seed in range(8):
        p = logistic.switching_probability(current, 1e-9)
        switched, trial = counts(p, trials, seed=200 + seed)
        table = dict(
            current_a=current, pulse_width_s=np.full(15, 1e-9), switched=switched, trials=trial
        )
        assert list(calibration.fit_empirical(table).parameters) == ["threshold", "slope"]


@pytest.mark.parametrize(
    ("truth", "added"),
    [
        ({"c": 0.4}, {"c"}),
        ({"b": 0.6}, {"b"}),
        ({"ceiling": 0.8}, {"ceiling"}),
        ({"floor": 0.1}, {"floor"}),
        ({"c": -0.4, "floor": 0.05, "ceiling": 0.9}, {"c", "floor", "ceiling"}),
    ],
)
def test_default_fit_adds_what_is_there(truth, added):
    curve = EmpiricalCurve(threshold=1e-3, slope=5e3, pulse_width=1e-9, **truth)
    current = np.linspace(0.4e-3, 1.8e-3, 29)
    switched, trials = counts(curve.switching_probability(current, 1e-9), 10_000, seed=31)
    table = dict(
        current_a=current, pulse_width_s=np.full(29, 1e-9), switched=switched, trials=trials
    )
    fit = calibration.fit_empirical(table)
    assert set(fit.parameters) == {"threshold", "slope"} | added
    assert fit.deviance < stats.chi2.isf(1e-6, fit.degrees_of_freedom)
    for name, value in fit.parameters.items():
        assert abs(value - getattr(curve, name)) < FIVE_SIGMA * fit.standard_errors[name], name
    kept = calibration.fit_empirical(table, fixed={name: getattr(curve, name) for name in added})
    assert list(kept.parameters) == ["threshold", "slope"]


def test_default_fit_of_many_single_shots():
    """More settings than the choice of a model is made with."""
    curve = EmpiricalCurve(
        threshold=1e-3, slope=5e3, ceiling=0.8, pulse_width=2e-9, threshold_exponent=-0.3
    )
    rng = np.random.default_rng(32)
    width = np.exp(rng.uniform(np.log(1e-9), np.log(4e-9), 8000))
    current = rng.uniform(0.4e-3, 1.8e-3, width.size)
    switched, trials = counts(curve.switching_probability(current, width), 1, seed=33)
    table = dict(current_a=current, pulse_width_s=width, switched=switched, trials=trials)
    fit = calibration.fit_empirical(table, fixed={"pulse_width": 2e-9})
    names = ["threshold", "slope", "threshold_exponent", "slope_exponent", "ceiling"]
    assert list(fit.parameters) == names
    assert len(fit.residuals) == 8000
    for name, value in fit.parameters.items():
        assert abs(value - getattr(curve, name)) < FIVE_SIGMA * fit.standard_errors[name], name


def test_currents_that_all_lie_above_the_threshold():
    """Write errors: the threshold is below every current, and no bound is in the way."""
    table = {
        "current_a": [90e-6, 95e-6, 100e-6, 105e-6, 110e-6],
        "pulse_width_s": [2e-9] * 5,
        "switched": [8300, 8800, 9170, 9430, 9610],
        "trials": [10_000] * 5,
    }
    # That the shape is logistic down there, too, is an assumption if it is not stated.
    for free, most in ((["threshold", "slope"], 1.5e-6), (None, 4e-6)):
        fit = calibration.fit_empirical(table, free)
        assert list(fit.parameters) == ["threshold", "slope"]
        assert fit.deviance < 2
        assert fit.curve.threshold == pytest.approx(70.5e-6, abs=4e-6)
        assert fit.standard_errors["threshold"] < most
    # Where they tell no threshold at all, that is said, and no bound is blamed.
    flat = table | {"switched": [9000, 9050, 9100, 9150, 9200]}
    with pytest.raises(ValueError, match="data do not limit threshold at all") as refusal:
        calibration.fit_empirical(flat)
    assert "bound" not in str(refusal.value)


# --- many single shots ---------------------------------------------------------------------------


def test_single_shots_at_settings_that_never_repeat():
    rng = np.random.default_rng(11)
    width = np.exp(rng.uniform(np.log(2e-9), np.log(20e-9), 20_000))
    current = spinkeras.midpoint_current(width, TRUTH) * rng.uniform(0.7, 1.4, width.size)
    probability = spinkeras.switching_probability(current, width, TRUTH)
    switched, trials = counts(probability, 1, seed=12)
    table = dict(current_a=current, pulse_width_s=width, switched=switched, trials=trials)
    fit = calibration.fit_device(table, REFERENCE)
    assert fit.degrees_of_freedom == 20_000 - 2
    for name, value in fit.parameters.items():
        assert abs(value - getattr(TRUTH, name)) < FIVE_SIGMA * fit.standard_errors[name]


@pytest.mark.slow
def test_a_million_single_shots(tmp_path):
    current, width = settings(TRUTH, (2e-9, 20e-9), points=5)
    rng = np.random.default_rng(5)
    pick = rng.integers(0, current.size, 1_000_000)
    probability = fokker_planck.switching_probability(current, width, TRUTH)
    switched = rng.uniform(size=pick.size) < probability[pick]
    lines = [f"{a!r},{b!r}" for a, b in zip(current.tolist(), width.tolist())]
    text = "\n".join(f"{lines[k]},{int(s)},1" for k, s in zip(pick.tolist(), switched.tolist()))
    fit = calibration.fit_device(write(tmp_path, HEADER + "\n" + text), REFERENCE)
    assert len(fit.table["trials"]) == 10
    assert np.sum(fit.table["trials"]) == 1_000_000
    for name, value in fit.parameters.items():
        assert abs(value - getattr(TRUTH, name)) < FIVE_SIGMA * fit.standard_errors[name]


ASYMMETRIC = TRUTH.replace(spin_torque_efficiency=0.45, reset_efficiency=0.75)
STATES = {"P->AP": "parallel", "AP->P": "antiparallel"}


def both_directions(device=ASYMMETRIC, temperatures=(None,), trials=400, widths=(2e-9, 20e-9)):
    """Counts of both directions, drive of AP->P negative as laboratories have it."""
    parts = []
    for seed, (way, kelvin) in enumerate(itertools.product(STATES, temperatures)):
        here = device if kelvin is None else device.at_temperature(kelvin)
        table = synthetic(here.starting(STATES[way]), widths, trials, seed)
        table["current_a"] = table["current_a"] * (1 if way == "P->AP" else -1)
        extra = {"direction": way} | ({} if kelvin is None else {"temperature_k": kelvin})
        count = len(table["trials"])
        parts.append(table | {name: np.full(count, value) for name, value in extra.items()})
    return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}


SIGN = pytest.mark.filterwarnings("ignore:the table. guessed that negative drive favours AP->P")


@SIGN
@pytest.mark.parametrize("temperatures", [(None,), (250.0, 350.0)])
def test_both_directions_and_temperatures_are_fitted_together(temperatures):
    fit = calibration.fit_device(both_directions(temperatures=temperatures), REFERENCE)
    assert list(fit.parameters) == ["anisotropy", "spin_torque_efficiency", "reset_efficiency"]
    for name, value in fit.parameters.items():
        error = fit.standard_errors[name]
        assert abs(value - getattr(ASYMMETRIC, name)) < FIVE_SIGMA * error < 0.2 * value
        assert getattr(fit.device, name) == value
    assert fit.p_value > 1e-6
    for way, kelvin in itertools.product(STATES, temperatures):
        there = fit.device if kelvin is None else fit.device.at_temperature(kelvin)
        expected = spinkeras.switching_probability(40e-6, 5e-9, there.starting(STATES[way]))
        found = fit.predict(40e-6, 5e-9, direction=way, temperature=kelvin)
        assert found == pytest.approx(expected)
    back = spinkeras.SpinNeuron(fit.device.reversed())
    assert back.device.spin_torque_efficiency == fit.parameters["reset_efficiency"]
    frame = fit.to_dataframe()
    assert set(frame["direction"]) == set(STATES)


@SIGN
def test_a_table_of_one_direction_is_about_that_direction():
    table = both_directions(widths=(5e-9,))
    one = table["direction"] == "AP->P"
    part = {name: column[one] for name, column in table.items()}
    fit = calibration.fit_device(part, REFERENCE)
    assert fit.device.initial_state == "antiparallel"
    bare = {name: np.abs(column) for name, column in part.items() if name != "direction"}
    assert fit.parameters == pytest.approx(calibration.fit_device(bare, REFERENCE).parameters)
    curve = calibration.fit_empirical(part, ["threshold", "slope"], device=REFERENCE)
    assert curve.reset_curve is None
    assert curve.device.initial_state == "antiparallel"
    with pytest.raises(ValueError, match=r"reset_efficiency is free, but .* both directions"):
        calibration.fit_device(part, REFERENCE, ["reset_efficiency"])
    with pytest.raises(ValueError, match="direction = P->AP does not belong to the fitted curve"):
        curve.predict(1e-5, 2e-9, direction="P->AP")


@SIGN
@pytest.mark.parametrize("device", [None, REFERENCE, REFERENCE.reversed()])
def test_a_curve_for_each_direction(device):
    """One result, each curve as from its rows alone, and a neuron for either direction."""
    table = both_directions(widths=(5e-9,))
    free = ["threshold", "slope"]
    fit = calibration.fit_empirical(table, free, device=device)
    own = "AP->P" if device is not None and device.initial_state == "antiparallel" else "P->AP"
    assert list(fit.parameters) == [*free, "reset_threshold", "reset_slope"]
    deviance = 0.0
    for way in STATES:
        part = {name: column[table["direction"] == way] for name, column in table.items()}
        alone = calibration.fit_empirical(part, free)
        curve, prefix = (fit.curve, "") if way == own else (fit.reset_curve, "reset_")
        assert curve == alone.curve
        for name, error in alone.standard_errors.items():
            assert fit.standard_errors[prefix + name] == error
        found = fit.predict(part["current_a"], 5e-9, direction=way)
        assert found == pytest.approx(alone.predict(part["current_a"], 5e-9))
        deviance += alone.deviance
    assert fit.deviance == pytest.approx(deviance)
    assert fit.deviance == pytest.approx(np.sum(fit.residuals**2))
    assert fit.degrees_of_freedom == len(fit.residuals) - 4
    assert fit.predict(4e-5, 5e-9) == fit.predict(4e-5, 5e-9, direction=own)
    assert fit.summary().count("threshold") == 2
    if device is None:
        assert fit.device is None
        return
    assert (fit.device.switching_curve, fit.device.reset_curve) == (fit.curve, fit.reset_curve)
    for neuron, curve in ((fit.device, fit.curve), (fit.device.reversed(), fit.reset_curve)):
        assert spinkeras.SpinNeuron(neuron).device.switching_curve == curve
    alike = fit.device.replace(switching_curve=fit.reset_curve, reset_curve=None)
    assert spinkeras.energy.reset_current(fit.device) == spinkeras.energy.reset_current(alike)


@SIGN
def test_a_fault_of_one_direction_names_it():
    table = both_directions(widths=(5e-9,))
    never = table | {"switched": np.where(table["direction"] == "AP->P", 0, table["switched"])}
    with pytest.raises(ValueError, match=r"^AP->P: No pulse of the table reversed the device"):
        calibration.fit_empirical(never, ["threshold", "slope"])
    wild = table | {"switched": np.where(table["direction"] == "AP->P", 200, table["switched"])}
    wild["switched"][-2:] = 10, 390
    with pytest.warns(UserWarning, match="^AP->P: The fit does not describe the table"):
        calibration.fit_empirical(wild, ["threshold", "slope"])


def test_a_curve_holds_at_one_temperature():
    several = small_table() | {"temperature_k": [250.0] * 3 + [300.0] * 3}
    with pytest.raises(ValueError, match=r"the temperatures 250, 300 K, but a curve holds at one"):
        calibration.fit_empirical(several)
    one = small_table() | {"temperature_k": [350.0] * 6}
    fit = calibration.fit_empirical(one, device=REFERENCE)
    warmer = REFERENCE.at_temperature(350.0)
    assert fit.device.replace(switching_curve=None) == warmer
    assert fit.curve == calibration.fit_empirical(small_table()).curve
    with pytest.raises(ValueError, match=r"temperature = 300.0 does not belong to the fitted"):
        fit.predict(7e-5, 2e-9, temperature=300.0)


@pytest.mark.parametrize(
    ("columns", "options", "message"),
    [
        ({}, {"free": "temperature"}, "temperature is free, but the table has a column of"),
        ({}, {"temperature_law": {"curie": 900}}, "temperature_law = .* must be a dictionary of"),
        ({}, {"temperature_law": {"curie_temperature": 50}}, "curie_temperature = 50 K is outside"),
        (
            {"temperature_k": [300.0] * 3 + [600.0] * 3},
            {"temperature_law": {"curie_temperature": 500.0}},
            "goes up to 600 K, but with a curie_temperature of 500 K the magnetisation",
        ),
    ],
)
def test_what_a_column_of_temperatures_does_not_allow(columns, options, message):
    table = small_table() | {"temperature_k": [300.0] * 6} | columns
    with pytest.raises(ValueError, match=message):
        calibration.fit_device(table, REFERENCE, **options)
