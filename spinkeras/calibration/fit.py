"""Fits devices and curves to measured counts: estimates, standard errors, goodness of fit.

`spinkeras.calibration.table` describes the table of counts. The switched count `k` of the `n`
pulses at a setting is binomial, so that the likelihood is

    ln(likelihood) = sum over settings of  k ln P + (n - k) ln(1 - P)

with `P = P(I, t_p, V_gate; parameters)`.

The deviance is twice the difference between `ln(likelihood)` of the observed fractions and of the
fit. If the law holds, the deviance approximately follows the chi-squared distribution with
`settings - parameters` degrees of freedom. `posterior=True` adds draws from the posterior of the
same likelihood (`spinkeras.calibration.posterior`).
"""

import dataclasses
import functools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import linalg, stats

from spinkeras import checks
from spinkeras.calibration import conditions
from spinkeras.calibration.curve_law import CurveLaw
from spinkeras.calibration.device_law import (
    CORRECTION,
    DeviceLaw,
    default_fields,
    scaled_fields,
)
from spinkeras.calibration.diagnosis import poor
from spinkeras.calibration.likelihood import condensed, listed, maximum_likelihood
from spinkeras.calibration.posterior import Posterior, merged, sample_devices, sample_posterior
from spinkeras.calibration.result import FitResult
from spinkeras.calibration.scales import SCALES, SIGNED, Scaled
from spinkeras.calibration.selection import covariance_of_choice, stepwise
from spinkeras.calibration.table import read_table
from spinkeras.notices import warn
from spinkeras.physics import empirical, switching
from spinkeras.physics.device import DeviceLike, MTJDevice, get_device
from spinkeras.physics.laws import SwitchingModel

__all__ = [
    "FitResult",
    "Posterior",
    "fit_device",
    "fit_empirical",
    "read_table",
    "sample_devices",
]

_MANY_PULSES = 1e4  # sum of P (1 - P) over the pulses from which the exact solver is used
_MOST_SOLUTIONS = 2000  # most calls of the exact solver unless exact=True


def fit_device(
    data: Any,
    device: DeviceLike,
    free: Sequence[str] | Mapping[str, tuple[float, float]] | None = None,
    *,
    switching_model: SwitchingModel = "macrospin",
    resistance: float | None = None,
    temperature_law: dict[str, float] | None = None,
    max_relative_error: float = 0.5,
    exact: bool | None = None,
    posterior: bool | dict[str, int] = False,
    seed: int = 0,
) -> FitResult:
    """Fit fields of a device to measured switching counts, by maximum binomial likelihood.

    Rows of both directions (column `direction`) share all fields but the efficiency: pulses in the
    device's own direction have its `spin_torque_efficiency`, the others its `reset_efficiency`. For
    a table of one direction, pulses reverse the device in this direction, as after
    `device.starting(...)`. Rows of several temperatures (column `temperature_k`) follow
    `device.at_temperature(...)`; the fitted fields hold at the device's own `temperature`.

    At one gate voltage the switching law depends on three numbers of a device: `Delta`,
    `Ic0 / Delta` and `t_D`. So at most three fields can be free, and data at one pulse width
    usually determine two. Several gate voltages add a fourth number,
    `K_eff(V_gate) / K_eff = 1 - xi V_gate / (t_ox t_f K_eff)`.

    Args:
        data: table of counts, see `spinkeras.calibration.table`: a CSV path, a dictionary or a data
            frame.
        device: `MTJDevice` or preset name; provides every field that is not free.
        free: names of the fields to fit, or a dictionary `{name: (lowest, highest)}` with bounds
            in SI units. Possible names: diameter, thickness, saturation_magnetization, damping,
            spin_torque_efficiency, anisotropy (at zero gate voltage) and temperature (only for a
            table without a column of temperatures). Rows at several gate voltages allow
            vcma_coefficient, rows of both directions reset_efficiency. Default: anisotropy and the
            efficiencies.
        switching_model: the law, as in `spinkeras.switching_probability`, except for a measured
            curve. Default `"macrospin"`.
        resistance: ohm, for a table of voltages. Default: the resistance of the device in the start
            state of the pulses, see `read_table`. There is no default if this resistance changes
            with a free diameter; then give the measured resistance.
        temperature_law: options of `MTJDevice.at_temperature`, such as `{"curie_temperature":
            900.0}`, for a table with temperatures. Default: the defaults of `at_temperature`.
        max_relative_error: largest relative standard error of a field that the data determine. For
            vcma_coefficient it is relative to its value or to 10 fJ/(V m), whichever is larger.
            Default 0.5. With `posterior` it may be `math.inf`: then the bounds of `free` limit the
            fields that the data do not limit.
        exact: whether to fit the exact solver instead of the closed form, whose error is up to
            0.001 (`"macrospin"` only). `True`: always; `False`: never. Default `None`: if the error
            matters (from about 60 000 pulses in the transition on) and the table has at most 2000
            different currents. The solver takes about 10 ms per current, two or three times.
        posterior: `True` adds draws from the posterior by the sampler NUTS of TensorFlow
            Probability, which takes some tens of seconds. The prior is uniform between the bounds
            of `free`, in the value of vcma_coefficient and in the logarithm of the other fields.
            It has a smooth shoulder over the outer 3 %. A dictionary sets the number of `chains`
            (4), `draws` per chain (1000) and `warmup` steps (500). Default `False`.
        seed: integer, seed of the posterior. Default 0.

    Returns:
        `FitResult` with the fitted device in `.device`.

    Raises:
        ValueError: for a table that cannot be used (the message names the row) and for fields that
            the data cannot determine (the message names them and a cure). Also if the best fit
            leaves the domain of the switching law.

    Warns:
        UserWarning: if an estimate lies on its bound, or if the law does not describe the data.
            Also if the error of the closed form matters, but the table has too many different
            currents for the exact solver.

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

    Reference for deviance and expected information: P. McCullagh and J. A. Nelder, Generalized
    Linear Models, 2nd ed. (1989).
    """
    given = get_device(device)
    DeviceLaw(given, switching_model)  # refuses unsuitable input before the table is read
    # If the diameter is fitted, the resistance is unknown before the fit.
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
                f"The fit ended at {listed(fit.parameters)}, but the other fields of the device do "
                f"not allow these values: {error}"
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
    free: Sequence[str] | Mapping[str, tuple[float, float]] | None = None,
    *,
    fixed: Mapping[str, float] | None = None,
    device: DeviceLike | None = None,
    resistance: float | None = None,
    relaxation_time: float | None = None,
    max_relative_error: float = 0.5,
    posterior: bool | dict[str, int] = False,
    seed: int = 0,
) -> FitResult:
    """Fit an `EmpiricalCurve` to measured switching counts, by maximum binomial likelihood.

    If the table has both directions (column `direction`), each has its own curve. `.curve` is for
    the device's own direction (without a device: P->AP), `.reset_curve` for the other. The names of
    the parameters of `.reset_curve` start with `reset_`. A curve holds at one temperature.

    With `relaxation_time`, an `EquilibriumCurve` is fitted to the reads of a free-running junction.

    Args:
        data: table of counts, see `spinkeras.calibration.table`: a CSV path, a dictionary or a data
            frame.
        free: names of the fields of `EmpiricalCurve` to fit, or `{name: (lowest, highest)}`;
            threshold and slope must be in `free` or in `fixed`. Default: threshold and slope, with
            their exponents if there are several pulse widths, and the anisotropy exponent if there
            are several gate voltages. The fit then chooses
            further fields among `c`, `a`, `b`, `d`, `ceiling` and `floor`. It adds, removes or
            exchanges them one by one. A field must reduce the deviance by 10.8, which happens by
            chance in one of 1000 tables, and the data must determine all fields. `a` needs `c`, and
            `d` needs `b`, because alone each does much the same as its partner. `floor` and
            `ceiling` need a row within a tenth of the curve's height.
        fixed: values of other fields, for example `{"ceiling": 1.0}`; the default `free` leaves
            these fields out. Default: the values of `EmpiricalCurve`, with the geometric middle of
            the data as `pulse_width`.
        device: `MTJDevice` or preset name. A table with gate voltages needs it to convert them to
            anisotropies. `.device` of the result is this device with the fitted curve. It has the
            temperature of the table, if there is one, and the direction of a table of one
            direction.
        resistance: ohm, for a table of voltages. Default: as in `fit_device`.
        relaxation_time: s, of a free-running junction at balance (halfway from floor to ceiling).
            The table then holds reads at intervals of `pulse_width_s`: in `switched` of `trials`
            reads the junction was reversed. Successive reads are correlated, so `n` reads at
            intervals `t` count as `n tanh(t / (2 time))`, also in `.table` of the result. Here
            `time` is the correlation time of the fitted `EquilibriumCurve`. Default `None`: a
            table of pulses.
        max_relative_error: largest standard error of a field that the data determine. It is
            relative for slope and threshold (for threshold, relative to `1 / slope` if that is
            larger) and absolute for the exponents. It is four times as large for `a`, `ln b`, `c`,
            `ln d`, the logits of floor and ceiling and all rates. Default 0.5.
        posterior, seed: as in `fit_device`. The prior is uniform in the logarithm of threshold,
            slope, `b` and `d` and in the logits of floor and ceiling. It is uniform in the value
            of all other fields and of a threshold of either sign. It excludes falling curves.

    The threshold is positive unless the table has negative currents, bounds of `free` reach 0 or
    below, or the junction is free-running.

    If the fit chooses the shape, the standard errors and `correlation` include the uncertainty of
    this choice. Every shape with one more parameter that the data determine counts with its Akaike
    weight (S. T. Buckland et al., Biometrics 53, 603 (1997)). With `free`, the standard errors
    assume the stated shape. The draws of `posterior` always assume the stated or chosen shape.

    The curve rises everywhere in the range of the table: its logit is at least 0.02 times as
    steep as at the threshold. A warning appears if a curve that falls somewhere would fit better.

    Returns:
        `FitResult` with the fitted curve in `.curve`.

    Raises:
        ValueError: as in `fit_device`, and for a table of several temperatures.

    Warns:
        UserWarning: if an estimate lies on its bound, if the curve rises as little as is allowed,
            or if the curve does not describe the data.

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
    fixed = _fixed(fixed, free)
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
        table = estimates[""].table  # reads are now counted as independent reads
    elif relaxation_time is not None:
        raise ValueError(
            "relaxation_time is for a free-running junction, whose reads have no direction, but "
            "the table has both. Leave out the column direction, or relaxation_time."
        )
    else:
        estimates = {}
        for prefix, way in zip(("", "reset_"), ways):
            with checks.errors_about(way):
                part = conditions.select(table, table["direction"] == way)
                estimates[prefix] = fit_curve(part)
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


def _fixed(fixed, free):
    """The caller's values of fields that are not fitted, after a check of their names."""
    fixed = {} if fixed is None else fixed
    if not isinstance(fixed, dict):
        raise ValueError(f"fixed = {checks.shown(fixed)} must be a dictionary {{field: value}}.")
    unknown = [name for name in fixed if name not in empirical.LIMITS]
    if unknown:
        raise ValueError(
            f"fixed must name fields of EmpiricalCurve; unknown {unknown}. The fields are "
            f"{list(empirical.LIMITS)}."
        )
    names = [free] if isinstance(free, str) else free or ()
    both = [name for name in names if name in fixed]
    if both:
        raise ValueError(f"{both} are in `free` and in `fixed`; name each field in one of them.")
    return dict(fixed)


def _fit_curve(reads, device, free, fixed, signed, relaxation_time, max_relative_error):
    """The `Estimate` of `fit_empirical` for a table of one direction."""
    table, fixed = reads, dict(fixed)
    signed = signed or bool(np.min(table["current_a"]) < 0)
    widths = np.unique(table["pulse_width_s"])
    several_gates = len(np.unique(table["gate_voltage_v"])) > 1
    default = {name: limits[1:3] for name, limits in empirical.LIMITS.items()}
    start = {"threshold": 1e-3, "slope": 1e3}  # until they are fitted
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
        unknown = [name for name in ("threshold", "slope") if name not in {*scaled.names, *fixed}]
        if unknown:
            raise ValueError(
                f"{unknown} of the curve are neither in `free` nor in `fixed`, and have no "
                f"default. Name them in `free`, or give values: fixed={{{unknown[0]!r}: ...}}."
            )
        return maximum_likelihood(law, scaled, start, table, max_relative_error, **options)

    if free is None:
        names = ["threshold", "slope"]
        names += ["threshold_exponent", "slope_exponent"] if len(widths) > 1 else []
        names += ["anisotropy_exponent"] if several_gates else []
        names = [name for name in names if name not in fixed]
        if not names:
            raise ValueError(
                f"fixed = {checks.shown(fixed)} leaves nothing to fit; name the fields to fit in "
                "`free`, such as free=['c']."
            )
        fit = fit_with(names, start)
        short = functools.partial(fit_with, table=condensed(table), search=False, steps=60)
        chosen, richer = stepwise(short, names, start, fit, fixed)
        of_choice = covariance_of_choice(chosen, richer)
        if chosen.scaled.names != names:
            names = chosen.scaled.names
            fit = fit_with(names, chosen.parameters, search=False)
    else:
        names, of_choice = free, 0.0
        fit = fit_with(free, start)
    if isinstance(base, empirical.EquilibriumCurve):
        ratio = np.exp(law.log_ratio(reads["gate_voltage_v"]))
        for _ in range(2):  # the correlation of the reads depends on the fit
            times = base.replace(**fit.parameters).correlation_time(reads["current_a"], ratio)
            table = _independent(reads, times)
            fit = fit_with(names, fit.parameters, table=table, search=False)
    return dataclasses.replace(fit, covariance=fit.covariance + of_choice)


def _needs_exact_solver(exact, switching_model, fit):
    """Whether the error of the closed form, up to 0.001, matters beside the noise of the counts."""
    if exact not in (None, True, False):
        raise ValueError(f"exact = {exact!r} must be True, False or None (the default).")
    if switching_model != "macrospin":
        if exact:
            raise ValueError(
                f'exact=True needs switching_model="macrospin"; {switching_model!r} does not '
                "approximate the exact solver."
            )
        return False
    if exact is not None:
        return bool(exact)
    # With fewer, an error of 0.002 P (1 - P) shifts no estimate by over 0.2 standard errors.
    if np.sum(fit.table["trials"] * fit.probability * (1 - fit.probability)) < _MANY_PULSES:
        return False
    columns = [fit.table[name] for name in ("current_a", "gate_voltage_v")]
    solutions = len(np.unique(np.stack(columns), axis=1).T)
    if solutions > _MOST_SOLUTIONS:
        warn(
            "With so many pulses the error of the closed form, up to 0.001 in P, matters. But "
            f"{solutions} different currents are many for the exact solver, so it was not used; "
            "the standard errors may be too small. exact=True uses it (10 ms per current), "
            "exact=False turns off this warning."
        )
    return solutions <= _MOST_SOLUTIONS


def _refined(law, fit, fit_to):
    """The fit of the exact solver: the closed form with corrected odds.

    The correction hardly changes within the standard errors, so two rounds are mostly enough.
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
    """Whether the caller's bounds or value allow a threshold of 0 or below."""
    given = free.get("threshold") if isinstance(free, dict) else fixed.get("threshold")
    ends = given if isinstance(given, (tuple, list)) else [given]
    return any(end <= 0 for end in map(checks.real, ends) if end is not None)


def _independent(reads, time):
    """The table with the equivalent number of independent reads, for a correlation time in s.

    If successive reads have the correlation `r`, the mean of `n` reads has the variance
    `p (1 - p) (1 + r) / (1 - r) / n`, where `p` is the mean of one read.
    """
    memory = np.maximum(time, 1e-3 * reads["pulse_width_s"])  # shorter times make no difference
    worth = np.tanh(reads["pulse_width_s"] / (2 * memory))
    return reads | {name: worth * reads[name] for name in ("switched", "trials")}


def _measured(table, names, what="pulses"):
    """A sentence on the origin of fitted values."""
    trials = int(np.sum(table["trials"]))
    return (
        f"{', '.join(names)} fitted to {trials} measured {what} at {len(table['trials'])} settings."
    )


def _about(device, measured):
    """`source` and `assumed` of a device with some fields fitted to measurements."""
    texts = {"source": device.source, "assumed": device.assumed}
    rest = {key: f" The other fields: {text}" if text else "" for key, text in texts.items()}
    texts["source"] = measured + rest["source"]
    return texts | ({"assumed": rest["assumed"].strip()} if texts["assumed"] else {})


def _turned(device: MTJDevice, table: dict) -> MTJDevice:
    """The device in the direction of a table of one direction; otherwise unchanged."""
    ways = conditions.directions(table)
    return device if len(ways) != 1 else device.starting(conditions.DIRECTIONS[ways[0]])


def _at_one_temperature(device, table):
    """The device at the temperature of a table; several temperatures are an error."""
    temperatures = np.unique(table.get("temperature_k", []))
    if len(temperatures) > 1:
        raise ValueError(
            f"The table has the temperatures {', '.join(f'{t:g}' for t in temperatures)} K, but a "
            "curve holds at one temperature. Make one table per temperature by read_table(..., "
            "by=...) and fit each table, or fit all temperatures together by fit_device."
        )
    if device is None or not len(temperatures) or temperatures[0] == device.temperature:
        return device
    macrospin = device.replace(switching_curve=None, reset_curve=None)
    return macrospin.at_temperature(float(temperatures[0]))


def _refuse_other_conditions(table, direction, temperature):
    """Refuse a prediction for a direction or temperature that the data do not have."""
    for name, value in (("direction", direction), ("temperature_k", temperature)):
        here = np.unique(table.get(name, []))
        if value is not None and value not in here:
            known = f"the curve is for {here[0]}" if len(here) else "the table does not state it"
            raise ValueError(
                f"{name.removesuffix('_k')} = {value} does not belong to the fitted curve: {known}."
            )


def _result(table, estimates, posterior, seed, predict, device, curve=None, reset_curve=None):
    """The `FitResult` of one estimate, or of two estimates, one per direction.

    Args:
        table: all rows.
        estimates: `{prefix of the names of its parameters: Estimate}`. A single estimate of all
            rows has the prefix `""`; the second of two has the prefix `"reset_"`.
        posterior, seed: as in `fit_device`.
        predict: as `FitResult.predict`, but without defaults.
        device, curve, reset_curve: as in `FitResult`.
    """
    fits = list(estimates.values())
    probability, residuals = np.empty((2, len(table["trials"])))
    for fit in fits:
        way = fit.table["direction"][0] if len(estimates) > 1 else None
        rows = slice(None) if way is None else table["direction"] == way
        probability[rows], residuals[rows] = fit.probability, fit.residuals
        for reason in (*fit.doubts, *poor(fit)):
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
    if posterior in (False, None):  # an empty dictionary asks for draws with the default options
        return None
    options = posterior if isinstance(posterior, dict) else {}
    if posterior is not True and posterior is not options:
        raise ValueError(
            f"posterior = {checks.shown(posterior)} must be True, False or a dictionary of options."
        )
    unknown = set(options) - {"chains", "draws", "warmup"}
    if unknown:
        raise ValueError(
            f"posterior has no option {sorted(unknown)}; choose 'chains', 'draws' or 'warmup'."
        )
    law, at = fit.law.probability, (fit.scaled, fit.theta, fit.information)
    return sample_posterior(law, *at, fit.table, seed, **options)


def _first_guess(table, base, signed):
    """Start of the search for a curve: a box `{name: (low, high)}` and one point in it."""
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
    # Fit a line to the logits of the fractions by weighted least squares.
    weight, logit = trials * p * (1 - p), np.log(p / (1 - p))
    middle, level = (np.average(v, weights=weight) for v in (current, logit))
    away = weight * (current - middle)
    rise = np.sum(away * logit) / max(np.sum(away * current), 1e-30)
    if rise > 0 and (signed or middle > level / rise):
        return near, start | {"threshold": middle - level / rise, "slope": rise / 4}
    shown = current if signed else current[current > 0]
    return near, start | {"threshold": np.median(shown), "slope": 1 / span}
