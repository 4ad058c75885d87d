"""From lab data to a device: maximum likelihood, its uncertainty and its goodness of fit.

The table of counts is described in `spinkeras.calibration.table`. The switched count of a setting
is binomial,

    ln(likelihood) = sum over settings of  k ln P + (n - k) ln(1 - P)

with `P = P(I, t_p, V_gate; parameters)`,

and the deviance, twice its distance from that of the observed fractions, is about chi-squared with
`settings - parameters` degrees of freedom if the model holds. `posterior=True` adds draws of
`spinkeras.calibration.posterior`, from the same likelihood.
"""

import dataclasses
import functools
import math
from typing import Any

import numpy as np
from scipy import linalg, stats

from spinkeras import checks
from spinkeras.calibration import conditions
from spinkeras.calibration.diagnosis import poor
from spinkeras.calibration.law import (
    CORRECTION,
    SCALES,
    SIGNED,
    CurveLaw,
    DeviceLaw,
    Scaled,
    default_fields,
    scaled_fields,
)
from spinkeras.calibration.likelihood import condensed, listed, maximum_likelihood
from spinkeras.calibration.posterior import Posterior, merged, sample_devices, sample_posterior
from spinkeras.calibration.result import FitResult
from spinkeras.calibration.selection import covariance_of_choice, stepwise
from spinkeras.calibration.table import read_table
from spinkeras.notices import warn
from spinkeras.physics import empirical, switching
from spinkeras.physics.device import DeviceLike, MTJDevice, get_device

__all__ = [
    "FitResult",
    "Posterior",
    "fit_device",
    "fit_empirical",
    "read_table",
    "sample_devices",
]

_MANY_PULSES = 1e4  # sum of P (1 - P) over the pulses
_MOST_SOLUTIONS = 2000  # of the exact solver, unasked


def fit_device(
    data: Any,
    device: DeviceLike,
    free: Any = None,
    *,
    switching_model: Any = "macrospin",
    resistance: float | None = None,
    temperature_law: dict[str, float] | None = None,
    max_relative_error: float = 0.5,
    exact: bool | None = None,
    posterior: bool | dict[str, Any] = False,
    seed: int = 0,
) -> FitResult:
    """Fit fields of a device to measured switching counts, by maximum binomial likelihood.

    Rows of both directions (column `direction`) share all fields but the efficiency: pulses in the
    device's own direction have its `spin_torque_efficiency`, the others its `reset_efficiency`. A
    table of one direction is about a device that is written in it, `device.starting(...)`. Rows of
    several temperatures (column `temperature_k`) are those of `device.at_temperature(...)`; the
    fields that are found are those at the device's own `temperature`.

    At one gate voltage the switching law knows a device by three numbers, `Delta`, `Ic0 / Delta`
    and `t_D`. So at most three fields can be free, and data at one pulse width usually determine
    two. Several gate voltages add a fourth,
    `K_eff(V_gate) / K_eff = 1 - xi V_gate / (t_ox t_f K_eff)`.

    Args:
        data: table of counts, see `spinkeras.calibration.table`: a CSV path, a dictionary or a data
            frame.
        device: `MTJDevice` or preset name; gives every field that is not free.
        free: names of the fields to fit, or a dictionary `{name: (lowest, highest)}` with bounds
            in SI units. Any of diameter, thickness, saturation_magnetization, damping,
            spin_torque_efficiency, anisotropy (at zero gate voltage), temperature (not beside a
            column of it) and, with rows at several gate voltages, vcma_coefficient, with rows of
            both directions reset_efficiency. Default: anisotropy and the efficiencies.
        switching_model: the law, as in `spinkeras.switching_probability`, but for a measured
            curve. Default `"macrospin"`.
        resistance: ohm, for a table of voltages. Default: that of the device in the state in which
            the pulses start, see `read_table`; none where that would change with a free diameter:
            give the measured one.
        temperature_law: options of `MTJDevice.at_temperature`, such as `{"curie_temperature":
            900.0}`, for a table with temperatures. Default: its own.
        max_relative_error: largest relative standard error that counts as determined (of
            vcma_coefficient: relative to itself or to 10 fJ/(V m), whichever is larger). Default
            0.5. With `posterior` it may be `math.inf`: the bounds of `free` then limit what the
            data do not.
        exact: compare with the exact solver instead of the closed form, whose error of up to 0.001
            many pulses would see (`"macrospin"` only). Default `None`: where that matters, from
            some 60 000 pulses in the transition on, and the table has 2000 currents or fewer (about
            10 ms each, two or three times). `True`, `False`: always, never.
        posterior: `True` adds draws from the posterior (TensorFlow Probability, NUTS, some tens
            of seconds), the prior being uniform between the bounds of `free`, in the logarithm
            but for vcma_coefficient, with a smooth shoulder over the outer 3 %. A dictionary sets
            the number of `chains` (4), `draws` per chain (1000) and `warmup` steps (500).
        seed: integer, of the posterior.

    Returns:
        `FitResult`, the new device in `.device`.

    Raises:
        ValueError: for a table that cannot be used (naming the row), for fields that the data
            cannot determine (naming them and what would help), or if the best fit leaves the
            domain of the switching law.

    Warns:
        UserWarning: if an estimate lies on its bound; if the law does not describe the data; if
            the pulses are so many that they see the error of the closed form, and the settings too
            many for the exact solver.

    Example:

    >>> import spinkeras
    >>> from spinkeras import calibration
    >>> table = {
    ...     "current_a": [60e-6, 66e-6, 72e-6, 78e-6, 84e-6, 90e-6],
    ...     "pulse_width_s": [2e-9] * 6,
    ...     "switched": [154, 298, 461, 614, 738, 830],
    ...     "trials": [1000] * 6,
    ... }
    >>> fit = calibration.fit_device(table, "stt_reference")
    >>> bool(35 < fit.device.thermal_stability < 45)
    True

    Reference: P. McCullagh and J. A. Nelder, Generalized Linear Models, 2nd ed. (1989), for
    deviance and expected information.
    """
    given = get_device(device)
    DeviceLaw(given, switching_model)  # refuses what has no such law, before anything is read
    # The resistance of a junction whose size is fitted is not known before the fit.
    sized = given.write_resistance is None and "diameter" in str(free)
    table = read_table(data, resistance, device=None if sized else given)
    first = _turned(given, table)
    law = DeviceLaw(first, switching_model, temperature_law, table.get("temperature_k", ()))
    free = default_fields(table) if free is None else free
    scaled = scaled_fields(free, first, table)
    start = {name: getattr(first, name) for name in scaled.names}
    if start.get("reset_efficiency", 0.0) is None:
        start["reset_efficiency"] = first.spin_torque_efficiency

    def fit_to(table, start, **options):
        return maximum_likelihood(law, scaled, start, table, max_relative_error, **options)

    def fitted_device(fit):
        try:
            texts = _about(first, _measured(table, fit.parameters))
            return first.replace(**fit.parameters, **texts)
        except ValueError as error:
            raise ValueError(
                f"The fit ended at {listed(fit.parameters)}, which the other fields of the device "
                f"do not allow: {error}"
            ) from None

    fit = fit_to(table, start)
    fitted = fitted_device(fit)
    if _needs_exact_solver(exact, switching_model, fit):
        fit = _refined(law, fit, fit_to)
        fitted = fitted_device(fit)

    def predict(current, pulse_width, gate_voltage, direction, temperature):
        there = law.device_of(fitted, temperature, direction)
        return switching.switching_probability(
            current,
            pulse_width,
            there,
            there.anisotropy_at(gate_voltage),
            switching_model,
        )

    return _result(table, {"": fit}, posterior, seed, predict, device=fitted)


def fit_empirical(
    data: Any,
    free: Any = None,
    *,
    fixed: Any = None,
    device: DeviceLike | None = None,
    resistance: float | None = None,
    relaxation_time: float | None = None,
    max_relative_error: float = 0.5,
    posterior: bool | dict[str, Any] = False,
    seed: int = 0,
) -> FitResult:
    """Fit an `EmpiricalCurve` to measured switching counts, by maximum binomial likelihood.

    Rows of both directions (column `direction`) have a curve each. One is that of the device's own
    direction (without a device: P->AP), `.curve`; the other, `.reset_curve`, has the
    parameters with `reset_` before their names. A curve holds at one temperature.

    With `relaxation_time`, an `EquilibriumCurve` to the reads of a junction that runs freely.

    Args:
        data: table of counts, see `spinkeras.calibration.table`: a CSV path, a dictionary or a data
            frame.
        free: names of the fields of `EmpiricalCurve` to fit, or `{name: (lowest, highest)}`.
            Default: threshold and slope, with their exponents if there are several pulse widths,
            and the anisotropy exponent if there are several gate voltages. Then those of `c`, `a`,
            `b`, `d`, `ceiling` and `floor` that are worth it: added, or taken away again, one by
            one as long as the deviance falls by 10.8 or more for each, which chance does in one
            table of a thousand, and all of them are determined (`a` only beside `c`, `d` beside
            `b`, because each pair does much the same alone; `floor` and `ceiling` only where a
            row comes within a tenth of the curve's height).
        fixed: values of other fields, for example `{"ceiling": 1.0}`; the default `free` leaves
            these out. Default: those of `EmpiricalCurve`; `pulse_width` is the (geometric) middle
            of the data.
        device: `MTJDevice` or preset name. Needed for a table with gate voltages, which it turns
            into anisotropies; `.device` of the result is this one with the fitted curve, at the
            temperature of the table if it has one, and written in the direction of the table if
            it has one only.
        resistance: ohm, for a table of voltages. Default: as `fit_device`.
        relaxation_time: s, of a free-running junction, at balance. The table then holds reads:
            `switched` of `trials` found it reversed, read `pulse_width_s` apart. Reads that follow
            soon are correlated: `n` of them a time `t` apart count as `n tanh(t / (2 time))`, with
            the `time` of the fitted `EquilibriumCurve`, also in `.table` of the result. Default
            `None`: a table of pulses.
        max_relative_error: largest standard error that counts as determined: relative for
            threshold (or relative to `1 / slope`, if that is more) and slope, absolute for the
            exponents; four times as much for `a`, `ln b`, `c`, `ln d`, the logits of floor and
            ceiling and all rates. Default 0.5.
        posterior, seed: as in `fit_device`; the prior is uniform in the logarithm of threshold
            (one of either sign: in itself), slope, `b` and `d`, in the logits of floor and ceiling
            and in the others themselves, and excludes curves that fall.

    The threshold is positive unless the table has negative currents, bounds of `free` reach 0 or
    below, or the junction runs freely.

    Where the fit chooses the shape, the standard errors (and `correlation`) include that another
    may be the right one: every shape with one number more that the data determine counts with its
    Akaike weight (S. T. Buckland et al., Biometrics 53, 603 (1997)). With `free` they are those of
    a curve of the stated shape, as the draws of `posterior` are of a curve of the chosen one.

    The curve rises everywhere in the range of the table: its logit is at least 0.02 times as
    steep as at the threshold. Where a curve that falls would fit better, a warning says so.

    Returns:
        `FitResult`, the new curve in `.curve`.

    Raises:
        ValueError: as `fit_device`; for a table of several temperatures.

    Warns:
        UserWarning: if an estimate lies on its bound, or where the curve can hardly rise less; if
            the curve does not describe the data.

    Example:

    >>> from spinkeras import calibration
    >>> table = {
    ...     "voltage_v": [0.80, 0.84, 0.88, 0.92, 0.96, 1.00],
    ...     "pulse_width_s": [0.75e-9] * 6,
    ...     "switched": [0, 5, 17, 41, 45, 47],
    ...     "trials": [50] * 6,
    ... }
    >>> fit = calibration.fit_empirical(table, resistance=776.0)
    >>> round(fit.curve.threshold * 1e3, 2)  # mA
    1.15
    """
    junction = None if device is None else get_device(device)
    fixed = dict(fixed or {})
    signed = relaxation_time is not None or _reaches_zero(free, fixed)
    table = read_table(data, resistance, device=junction, signed=signed)
    junction = _at_one_temperature(junction, table)
    junction = junction and _turned(junction, table)
    fit_curve = functools.partial(
        _fit_curve,
        device=junction,
        free=free,
        fixed=fixed,
        signed=signed,
        relaxation_time=relaxation_time,
        max_relative_error=max_relative_error,
    )
    own = conditions.direction_from(junction) if junction else next(iter(conditions.DIRECTIONS))
    ways = sorted(conditions.directions(table), key=lambda way: way != own)
    if len(ways) < 2:
        estimates = {"": fit_curve(table)}
        table = estimates[""].table  # of reads, what they are worth
    elif relaxation_time is not None:
        raise ValueError(
            "relaxation_time is of a junction that runs freely, whose reads have no direction; the "
            "table has both. Leave out its column, or relaxation_time."
        )
    else:
        parts = (conditions.select(table, table["direction"] == way) for way in ways)
        fits = (checks.named(way, fit_curve, part) for way, part in zip(ways, parts))
        estimates = dict(zip(("", "reset_"), fits))
    what = "pulses" if relaxation_time is None else "reads"
    curves = [
        fit.law.base.replace(**fit.parameters, source=_measured(fit.table, fit.parameters, what))
        for fit in estimates.values()
    ]
    if junction is not None:
        fields = dict(zip(("switching_curve", "reset_curve"), curves))
        texts = (f"{name}: {curve.source}" for name, curve in fields.items())
        junction = junction.replace(**fields, **_about(junction, " ".join(texts)))

    def predict(current, pulse_width, gate_voltage, direction, temperature):
        _refuse_other_conditions(table, direction, temperature)
        ratio = np.exp(estimates[""].law.log_ratio(gate_voltage))
        curve = dict(zip(ways, curves)).get(direction, curves[0])
        return curve.switching_probability(current, pulse_width, ratio)

    of_curves = dict(zip(("curve", "reset_curve"), curves))
    return _result(table, estimates, posterior, seed, predict, device=junction, **of_curves)


def _fit_curve(reads, device, free, fixed, signed, relaxation_time, max_relative_error):
    """The `Estimate` of `fit_empirical` for a table of one direction."""
    table, fixed = reads, dict(fixed)
    signed = signed or bool(np.min(table["current_a"]) < 0)
    widths = np.unique(table["pulse_width_s"])
    several_gates = len(np.unique(table["gate_voltage_v"])) > 1
    unknown = sorted(set(fixed) - set(empirical.LIMITS))
    if unknown:
        raise ValueError(
            f"fixed must name fields of EmpiricalCurve; unknown {unknown}. It has "
            f"{list(empirical.LIMITS)}."
        )
    default = {name: limits[1:3] for name, limits in empirical.LIMITS.items()}
    start = {"threshold": 1e-3, "slope": 1e3}
    base: empirical.EmpiricalCurve
    if relaxation_time is None:
        fixed.setdefault("pulse_width", float(np.sqrt(widths[0] * widths[-1])))
        base = empirical.EmpiricalCurve(**start | fixed)
    else:
        widths = widths[:1]  # one curve at all intervals
        default = {name: ends for name, ends in default.items() if name not in empirical.OF_PULSES}
        base = empirical.EquilibriumCurve(**start | fixed, relaxation_time=relaxation_time)
        table = _independent(reads, base.relaxation_time)
    if not signed:
        default["threshold"] = (1e-9, 1.0)
    for name in ("pulse_width", *([] if several_gates else ["anisotropy_exponent"]), *fixed):
        default.pop(name, None)
    scales = SIGNED if signed else SCALES
    law = CurveLaw(base, device, table, scales)
    near, start = _first_guess(table, base, signed)

    def fit_with(free, start, table=table, **options):
        scaled = Scaled.of(type(base).__name__, free, default, empirical.LIMITS, near, scales)
        return maximum_likelihood(law, scaled, start, table, max_relative_error, **options)

    if free is None:
        names = ["threshold", "slope"]
        names += ["threshold_exponent", "slope_exponent"] if len(widths) > 1 else []
        names += ["anisotropy_exponent"] if several_gates else []
        names = [name for name in names if name not in fixed]
        fit = fit_with(names, start)
        short = functools.partial(fit_with, table=condensed(table), search=False, steps=60)
        chosen, richer = stepwise(short, names, start, fit, fixed)
        unknown = covariance_of_choice(chosen, richer)
        if chosen.scaled.names != names:
            names = chosen.scaled.names
            fit = fit_with(names, chosen.parameters, search=False)
    else:
        names, unknown = free, 0.0
        fit = fit_with(free, start)
    if isinstance(base, empirical.EquilibriumCurve):
        ratio = np.exp(law.log_ratio(reads["gate_voltage_v"]))
        for _ in range(2):  # what reads remember follows from the fit
            times = base.replace(**fit.parameters).correlation_time(reads["current_a"], ratio)
            table = _independent(reads, times)
            fit = fit_with(names, fit.parameters, table=table, search=False)
    return dataclasses.replace(fit, covariance=fit.covariance + unknown)


def _needs_exact_solver(exact, switching_model, fit):
    """Whether the error of the closed form, up to 0.001, would show beside that of the counts."""
    if exact not in (None, True, False):
        raise ValueError(f"exact = {exact!r} must be True, False or None (where it matters).")
    if switching_model != "macrospin":
        if exact:
            raise ValueError(
                f'exact=True needs switching_model="macrospin"; {switching_model!r} is no '
                "approximation of the exact solver."
            )
        return False
    if exact is not None:
        return bool(exact)
    # An error of 0.002 P (1 - P) shifts no estimate by more than 0.2 standard errors below this.
    if np.sum(fit.table["trials"] * fit.probability * (1 - fit.probability)) < _MANY_PULSES:
        return False
    columns = [fit.table[name] for name in ("current_a", "gate_voltage_v")]
    solutions = len(np.unique(np.stack(columns), axis=1).T)
    if solutions > _MOST_SOLUTIONS:
        warn(
            f"So many pulses see the error of the closed form, up to 0.001 in P, and {solutions} "
            "different currents are many for the exact solver: the standard errors may be too "
            "small. exact=True uses it all the same (10 ms each), exact=False says that you know."
        )
    return solutions <= _MOST_SOLUTIONS


def _refined(law, fit, fit_to):
    """The fit of the exact solver: of the closed form times what it lacks at the estimate.

    What it lacks hardly changes within the standard errors, so two rounds are enough mostly.
    """
    for _ in range(5):
        odds = law.correction(fit.parameters, fit.table)
        table = fit.table | {CORRECTION: odds}
        before, fit = fit, fit_to(table, fit.parameters, search=False)
        step = fit.theta - before.theta
        if step @ before.information @ step < 0.01:  # a tenth of a standard error
            break
    return fit


def _reaches_zero(free, fixed):
    """Whether the caller says that the threshold may be 0 or negative."""
    given = free.get("threshold") if isinstance(free, dict) else fixed.get("threshold")
    ends = given if isinstance(given, (tuple, list)) else [given]
    return any(end <= 0 for end in map(checks.real, ends) if end is not None)


def _independent(reads, time):
    """The table with as many reads as are worth those that remember each other for a time (s).

    The mean of `n` reads of a bit, each correlated with the next by `r`, has the variance
    `p (1 - p) (1 + r) / (1 - r) / n`.
    """
    memory = np.maximum(time, 1e-3 * reads["pulse_width_s"])  # less is none
    worth = np.tanh(reads["pulse_width_s"] / (2 * memory))
    return reads | {name: worth * reads[name] for name in ("switched", "trials")}


def _measured(table, names, what="pulses"):
    """Where fitted values come from."""
    trials = int(np.sum(table["trials"]))
    return (
        f"{', '.join(names)} fitted to {trials} measured {what} at {len(table['trials'])} settings."
    )


def _about(device, measured):
    """`source` and `assumed` of a device some fields of which are fitted to measurements."""
    texts = {"source": device.source, "assumed": device.assumed}
    rest = {key: f" The other fields: {text}" if text else "" for key, text in texts.items()}
    texts["source"] = measured + rest["source"]
    return texts | ({"assumed": rest["assumed"].strip()} if texts["assumed"] else {})


def _turned(device: MTJDevice, table: dict) -> MTJDevice:
    """The device as it is written in a table of one direction; of both, as it is."""
    ways = conditions.directions(table)
    return device if len(ways) != 1 else device.starting(conditions.DIRECTIONS[ways[0]])


def _at_one_temperature(device, table):
    """The device at the temperature of a table; refuses several, which no curve describes."""
    temperatures = np.unique(table.get("temperature_k", []))
    if len(temperatures) > 1:
        raise ValueError(
            f"The table has the temperatures {', '.join(f'{t:g}' for t in temperatures)} K, and a "
            "curve holds at one. Make a table of each by read_table(..., by=...) and fit each, or "
            "fit all of them by fit_device."
        )
    if device is None or not len(temperatures) or temperatures[0] == device.temperature:
        return device
    macrospin = device.replace(switching_curve=None, reset_curve=None)
    return macrospin.at_temperature(float(temperatures[0]))


def _refuse_other_conditions(table, direction, temperature):
    """Refuse a prediction of a curve elsewhere than where it was measured."""
    for name, value in (("direction", direction), ("temperature_k", temperature)):
        here = np.unique(table.get(name, []))
        if value is not None and value not in here:
            known = f"it is that of {here[0]}" if len(here) else "the table did not tell it"
            raise ValueError(
                f"{name.removesuffix('_k')} = {value} is not that of the fitted curve: {known}."
            )


def _result(table, estimates, posterior, seed, predict, device, curve=None, reset_curve=None):
    """The `FitResult` of an estimate, or of those of both directions.

    Args:
        table: all rows.
        estimates: `Estimate` by what goes before the names of its parameters: of all rows the one
            of `""`; with that of `"reset_"` each of its direction.
        posterior, seed: as in `fit_device`.
        predict: as `FitResult.predict`, without defaults.
        device, curve, reset_curve: as in `FitResult`.
    """
    fits = list(estimates.values())
    probability, residuals = np.empty((2, len(table["trials"])))
    for fit in fits:
        way = fit.table["direction"][0] if len(estimates) > 1 else None
        rows = slice(None) if way is None else table["direction"] == way
        probability[rows], residuals[rows] = fit.probability, fit.residuals
        reason = poor(fit)
        if reason:
            warn(f"{way}: {reason}" if way else reason)
    first, *back = (_draws(fit, posterior, seed) for fit in fits)
    deviance = sum(fit.deviance for fit in fits)
    freedom = sum(fit.degrees_of_freedom for fit in fits)
    return FitResult(
        device=device,
        curve=curve,
        reset_curve=reset_curve,
        parameters={p + n: v for p, fit in estimates.items() for n, v in fit.parameters.items()},
        standard_errors={
            p + n: v for p, fit in estimates.items() for n, v in fit.standard_errors.items()
        },
        correlation=linalg.block_diag(*(fit.correlation for fit in fits)),
        deviance=deviance,
        degrees_of_freedom=freedom,
        p_value=float(stats.chi2.sf(deviance, freedom)) if freedom else math.nan,
        table=table,
        probability=probability,
        residuals=residuals,
        posterior=merged(first, *back, "reset_") if back and first else first,
        _predict=predict,
    )


def _draws(fit, posterior, seed):
    if posterior in (False, None):  # {}: draws with the default options
        return None
    options = posterior if isinstance(posterior, dict) else {}
    unknown = set(options) - {"chains", "draws", "warmup"}
    if unknown:
        raise ValueError(
            f"posterior has no option {sorted(unknown)}; it takes 'chains', 'draws' and 'warmup'."
        )
    law, at = fit.law.probability, (fit.scaled, fit.theta, fit.information)
    return sample_posterior(law, *at, fit.table, seed, **options)


def _first_guess(table, base, signed):
    """Where the search for a curve starts: a box `{name: (low, high)}` and one point in it."""
    current, switched, trials = (table[n] for n in ("current_a", "switched", "trials"))
    least, most = np.min(current), np.max(current)
    span = max(np.ptp(current), 1e-3 * np.max(np.abs(current)))
    near = {name: (-1.0, 1.0) for name in empirical.LIMITS}  # exponents and rates
    near |= {"a": (-0.3, 0.3), "b": (0.15, 0.4), "c": (-0.3, 0.3), "d": (0.15, 0.4)}
    near |= {"floor": (1e-3, 0.3), "ceiling": (0.3, 0.999)}
    near["threshold"] = (max(0.3 * least, 1e-2 * most), 2 * most)
    if signed:
        near["threshold"] = (least - span, most + span)
    near["slope"] = (0.05 / span, 50 / span)
    start = {name: getattr(base, name) for name in near}
    p = (switched + 0.5) / (trials + 1)
    start |= {"floor": np.clip(np.min(p), *near["floor"])}
    start |= {"ceiling": np.clip(np.max(p), *near["ceiling"])}
    # The line through the logits of the fractions, by weighted least squares.
    weight, logit = trials * p * (1 - p), np.log(p / (1 - p))
    middle, level = (np.average(v, weights=weight) for v in (current, logit))
    away = weight * (current - middle)
    rise = np.sum(away * logit) / max(np.sum(away * current), 1e-30)
    if rise > 0 and (signed or middle > level / rise):
        return near, start | {"threshold": middle - level / rise, "slope": rise / 4}
    shown = current if signed else current[current > 0]
    return near, start | {"threshold": np.median(shown), "slope": 1 / span}
