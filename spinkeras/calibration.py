"""From lab data to a device: maximum likelihood, its uncertainty, a posterior, device spreads.

A table has one row per setting of the pulse generator, with the columns

    current_a      A, or
    voltage_v      V, divided by `resistance` to give the current
    pulse_width_s  s
    switched       how many pulses reversed the device
    trials         how many pulses were sent

as a CSV file (comma-separated, names in the first line; further columns are ignored, lines that
start with `#` too) or as a dictionary or data frame of columns. Every trial starts from the reset
state; positive current favours the reversal. The switched count of a setting is binomial,

    ln L = sum over settings of  k ln P + (n - k) ln(1 - P),       P = P(I, t_p; parameters)

and the deviance, `2 (ln L of the observed fractions - ln L)`, is about chi-squared with
`settings - parameters` degrees of freedom if the model holds.
"""

import collections
import csv
import dataclasses
import math
import os
import warnings
from typing import Any

import numpy as np
from scipy import optimize, special, stats

from spinkeras import empirical, switching
from spinkeras.devices import _LIMITS, MTJDevice, get_device

# Powers with which a field enters Delta, Ic0 / Delta and t_D; damping also as t_D (1 + alpha^2).
_POWERS = {
    "diameter": (2, 0, 2),
    "thickness": (1, 0, 1),
    "saturation_magnetization": (0, 0, 1),
    "damping": (0, 1, -1),
    "spin_torque_efficiency": (0, -1, 0),
    "anisotropy": (1, 0, 0),
    "temperature": (-1, 1, -1),
}
_FLOOR = 1e-12  # probabilities are kept this far from 0 and 1, so that one outlier stays finite
_SEARCH_ROWS = 2000
_STARTS = 256
_EDGE = 0.0075  # of the span of a prior: standard deviation of its shoulders


# --- tables --------------------------------------------------------------------------------------

_COLUMNS = ("pulse_width_s", "switched", "trials")
_DRIVES = ("current_a", "voltage_v")


def read_table(data, resistance=None) -> dict[str, np.ndarray]:
    """A checked table of switching counts, rows of the same setting added up.

    Args:
        data: path of a CSV file, or a dictionary or data frame of columns; see the module.
        resistance: ohm, > 0. Needed for a table of voltages.

    Returns:
        Dictionary of float64 columns `current_a`, `pulse_width_s`, `switched` and `trials`,
        sorted by pulse width and current.

    Raises:
        ValueError: naming the column and the row that cannot be used, and why.

    Example:

    >>> from spinkeras import calibration
    >>> table = calibration.read_table({
    ...     "current_a": [70e-6, 70e-6, 75e-6], "pulse_width_s": [2e-9] * 3,
    ...     "switched": [20, 22, 33], "trials": [50, 50, 50],
    ... })
    >>> table["trials"]
    array([100.,  50.])
    """
    if isinstance(data, (str, os.PathLike)):
        columns, rows, where = _read_csv(data)
    elif hasattr(data, "keys"):
        columns = {str(key): data[key] for key in data.keys()}  # noqa: SIM118 (data frames)
        rows, where = None, "the table"
    else:
        raise ValueError(
            "data must be the path of a CSV file or a dictionary of columns "
            f"{(*_DRIVES, *_COLUMNS)}; got {type(data).__name__}."
        )

    def row(index):
        return f"row {index} (counted from 0)" if rows is None else f"line {rows[index]}"

    drive = [name for name in _DRIVES if name in columns]
    missing = [name for name in _COLUMNS if name not in columns]
    if len(drive) != 1 or missing:
        problem = f"lacks the columns {missing}" if missing else "needs one column for the drive"
        raise ValueError(
            f"{where} {problem}: it must have either 'current_a' (A) or 'voltage_v' (V), and "
            f"{', '.join(_COLUMNS)}. Found: {list(columns)[:20]}."
        )
    names = (*drive, *_COLUMNS)
    table = {name: _as_numbers(name, columns[name], row, where) for name in names}
    lengths = {name: len(values) for name, values in table.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"The columns of {where} differ in length: {lengths}.")
    if lengths["trials"] == 0:
        raise ValueError(f"{where} has no rows; give one row per current and pulse width.")

    def refuse(bad, name, rule):
        if np.any(bad):
            index = int(np.flatnonzero(bad)[0])
            more = f" ({np.sum(bad)} such rows)" if np.sum(bad) > 1 else ""
            raise ValueError(
                f"{where}, {row(index)}: {name} = {table[name][index]:g} {rule}{more}."
            )

    for name, values in table.items():
        refuse(~np.isfinite(values), name, "is not a finite number")
    width, switched, trials = (table[name] for name in _COLUMNS)
    refuse(~((width >= 1e-11) & (width <= 1e-2)), "pulse_width_s", "is not 1e-11 to 1e-2 s")
    refuse(~((trials >= 1) & (trials == np.round(trials))), "trials", "is not a whole number >= 1")
    refuse(
        (switched < 0) | (switched != np.round(switched)),
        "switched",
        "is not a whole number >= 0; give counts, not fractions",
    )
    refuse(switched > trials, "switched", "exceeds the trials of its row")
    current = table[drive[0]]
    if drive[0] == "voltage_v":
        if resistance is None:
            raise ValueError(
                f"{where} gives voltages; give the `resistance` in ohm of the path that carries "
                "the write current (the junction, or the heavy-metal channel)."
            )
        if not (math.isfinite(resistance) and resistance > 0):
            raise ValueError(f"resistance = {resistance} ohm must be finite and > 0.")
        current = current / resistance
    return _pool(width, current, switched, trials)


def _pool(width, current, switched, trials):
    settings, index = np.unique(np.stack([width, current], axis=1), axis=0, return_inverse=True)
    index = index.ravel()
    return {
        "current_a": settings[:, 1],
        "pulse_width_s": settings[:, 0],
        "switched": np.bincount(index, switched),
        "trials": np.bincount(index, trials),
    }


def _read_csv(path):
    """Columns of text, the line number of every row, and the file's name."""
    where = os.path.basename(os.fspath(path))
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        try:
            header, records, lines = None, [], []
            for record in reader:
                if not any(cell.strip() for cell in record) or record[0].startswith("#"):
                    continue
                if header is None:
                    header = [cell.strip() for cell in record]
                    continue
                if len(record) != len(header):
                    raise ValueError(
                        f"{where}, line {reader.line_num}: {len(record)} values, but the first "
                        f"line names {len(header)} columns."
                    )
                records.append(record)
                lines.append(reader.line_num)
        except UnicodeDecodeError as error:
            raise ValueError(f"{where} is not text in UTF-8 ({error}); save it as CSV.") from None
        except csv.Error as error:
            raise ValueError(f"{where}, line {reader.line_num}: not CSV: {error}.") from None
    if header is None:
        raise ValueError(f"{where} is empty; its first line must name the columns.")
    if len(header) == 1 and any(mark in header[0] for mark in ";\t"):
        raise ValueError(f"{where} is not separated by commas; its first line is {header[0]!r}.")
    twice = [name for name, count in collections.Counter(header).items() if count > 1]
    if twice:
        raise ValueError(f"{where} names the columns {twice} more than once.")
    columns = {name: [r[k] for r in records] for k, name in enumerate(header)}
    return columns, lines, where


def _as_numbers(name, values, row, where):
    array = np.asarray(values)
    if array.dtype == bool or array.ndim != 1:
        raise ValueError(f"The column {name} of {where} must be a list of numbers.")
    try:
        return array.astype("float64")
    except (TypeError, ValueError):
        for index, value in enumerate(np.atleast_1d(np.asarray(values, dtype=object))):
            try:
                float(value)
            except (TypeError, ValueError):
                raise ValueError(
                    f"{where}, {row(index)}: {name} = {value!r} is not a number."
                ) from None
        raise


# --- the result ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class FitResult:
    """Outcome of `fit_device` and `fit_empirical`.

    Attributes:
        device: fitted `MTJDevice`, or `None` after `fit_empirical`.
        curve: fitted `EmpiricalCurve`, or `None` after `fit_device`.
        parameters: fitted values by name, SI units.
        standard_errors: their standard errors (from the expected information), SI units.
        correlation: correlation matrix of the estimates, in the order of `parameters`.
        deviance: see the module; small is good.
        degrees_of_freedom: settings minus parameters.
        p_value: probability of a deviance at least as large if the model holds. From chi-squared,
            which needs several trials, and both outcomes, at most settings.
        table: the pooled table that was fitted, see `read_table`.
        probability: fitted probability of every row of `table`.
        residuals: signed square roots of the deviance of every row; within +-2 mostly.
        posterior: `Posterior`, or `None`.
    """

    device: MTJDevice | None
    curve: empirical.EmpiricalCurve | None
    parameters: dict[str, float]
    standard_errors: dict[str, float]
    correlation: np.ndarray
    deviance: float
    degrees_of_freedom: int
    p_value: float
    table: dict[str, np.ndarray]
    probability: np.ndarray
    residuals: np.ndarray
    posterior: Any = None
    _internal: Any = dataclasses.field(default=None, repr=False)
    _predict: Any = dataclasses.field(default=None, repr=False)

    def predict(self, current, pulse_width):
        """Fitted switching probability at currents in A and pulse widths in s (NumPy)."""
        current, width = np.broadcast_arrays(
            np.asarray(current, "float64"), np.asarray(pulse_width, "float64")
        )
        return self._predict(current.ravel(), width.ravel()).reshape(current.shape)

    def summary(self) -> str:
        """The estimates and the goodness of fit as text."""
        lines = [
            f"{name:24} {value:12.5g} +- {self.standard_errors[name]:.2g}"
            for name, value in self.parameters.items()
        ]
        lines.append(
            f"deviance {self.deviance:.1f} on {self.degrees_of_freedom} degrees of freedom "
            f"(p = {self.p_value:.2g}), {len(self.residuals)} settings"
        )
        return "\n".join(lines)

    def plot(self):
        """Figure of data and fit above, residuals below (needs matplotlib).

        Returns:
            `matplotlib.figure.Figure`; `result.plot().savefig("fit.png")`.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise ImportError("plot() needs matplotlib: pip install matplotlib.") from error
        figure = Figure(figsize=(7, 6), layout="constrained")
        top, bottom = figure.subplots(2, 1, sharex=True, height_ratios=(2.5, 1))
        current, width = self.table["current_a"], self.table["pulse_width_s"]
        switched, trials = self.table["switched"], self.table["trials"]
        fraction = switched / trials
        low = stats.beta.ppf(0.16, switched + 0.5, trials - switched + 0.5)
        high = stats.beta.ppf(0.84, switched + 0.5, trials - switched + 0.5)
        bars = np.maximum([fraction - low, high - fraction], 0)
        scale, unit = (1e6, "uA") if np.max(np.abs(current)) < 1e-3 else (1e3, "mA")
        widths = np.unique(width)
        shown = widths[np.unique(np.linspace(0, len(widths) - 1, 8).astype(int))]
        for number, value in enumerate(shown):
            rows = width == value
            colour = f"C{number}"
            x = current[rows] * scale
            margin = 0.1 * np.ptp(current[rows]) or 0.1 * abs(current[rows][0])
            fine = np.linspace(current[rows].min() - margin, current[rows].max() + margin, 300)
            top.plot(fine * scale, self.predict(fine, value), color=colour)
            label = f"{value * 1e9:.3g} ns"
            top.errorbar(x, fraction[rows], bars[:, rows], fmt="o", color=colour, label=label)
            bottom.plot(x, self.residuals[rows], "o", color=colour)
        top.set_ylabel("switching probability")
        top.legend(title="pulse width")
        bottom.axhspan(-2, 2, color="0.92", zorder=0)
        bottom.axhline(0, color="0.5", linewidth=1)
        bottom.set_ylabel("deviance residual")
        bottom.set_xlabel(f"current ({unit})")
        top.set_title(
            f"deviance {self.deviance:.1f} on {self.degrees_of_freedom} degrees of freedom"
        )
        return figure


# --- fitting -------------------------------------------------------------------------------------


def fit_device(
    data,
    device,
    free=("anisotropy", "spin_torque_efficiency"),
    *,
    switching_model="macrospin",
    barrier_exponent=2.0,
    attempt_time=None,
    resistance=None,
    max_relative_error=0.5,
    posterior=False,
    seed=0,
) -> FitResult:
    """Fit fields of a device to measured switching counts, by maximum binomial likelihood.

    The switching law knows a device by three numbers, `Delta`, `Ic0 / Delta` and `t_D`. So at
    most three fields can be free, and data at one pulse width usually determine two.

    Args:
        data: table of counts, see the module: a CSV path, a dictionary or a data frame.
        device: `MTJDevice` or preset name; gives every field that is not free.
        free: names of the fields to fit, or a dictionary `{name: (lowest, highest)}` with bounds
            in SI units. Any of diameter, thickness, saturation_magnetization, damping,
            spin_torque_efficiency, anisotropy and temperature. Default: anisotropy and
            spin-torque efficiency.
        switching_model, barrier_exponent, attempt_time: the law, as in
            `spinkeras.switching_probability`.
        resistance: ohm, for a table of voltages. Default: the device's parallel resistance.
        max_relative_error: largest relative standard error that counts as determined. Default
            0.5. With `posterior` it may be `math.inf`: the bounds of `free` then limit what the
            data do not.
        posterior: `True` adds draws from the posterior (TensorFlow Probability, NUTS, some tens
            of seconds), the prior being uniform in the logarithm between the bounds of `free` but
            for a smooth shoulder over the outer 3 %. A dictionary sets the number of `chains`
            (4), `draws` per chain (1000) and `warmup` steps (500).
        seed: integer, of the posterior.

    Returns:
        `FitResult`, the new device in `.device`.

    Raises:
        ValueError: for a table that cannot be used (naming the row), for fields that the data
            cannot determine (naming them and what would help), or if the best fit leaves the
            domain of the switching law.

    Warns:
        UserWarning: if an estimate lies on its bound.

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
    device = get_device(device)
    law = _DeviceLaw(device, switching_model, barrier_exponent, attempt_time)
    scaled = _scaled_fields(free, device)
    table = read_table(data, device.resistance_parallel if resistance is None else resistance)

    def model(values, rows):
        logs = {name: math.log(value) for name, value in values.items()}
        return law.probability(np, logs, rows["current_a"], rows["pulse_width_s"])

    start = {name: getattr(device, name) for name in scaled.names}
    fit = _maximum_likelihood(model, scaled, start, table, max_relative_error)
    fit = dataclasses.replace(fit, device=device.replace(**fit.parameters))
    if posterior:
        options = posterior if isinstance(posterior, dict) else {}
        fit = dataclasses.replace(fit, posterior=_sample_posterior(fit, law, seed, **options))
    return fit


def fit_empirical(
    data,
    free=None,
    *,
    fixed=None,
    resistance=None,
    max_relative_error=0.5,
) -> FitResult:
    """Fit an `EmpiricalCurve` to measured switching counts, by maximum binomial likelihood.

    Args:
        data: table of counts, see the module: a CSV path, a dictionary or a data frame.
        free: names of the fields of `EmpiricalCurve` to fit, or `{name: (lowest, highest)}`.
            Default: threshold and slope, with their exponents if there are several pulse widths.
        fixed: values of other fields, for example `{"log_skew": 0.0}`. Default: those of
            `EmpiricalCurve`; `pulse_width` is the (geometric) middle of the data.
        resistance: ohm, for a table of voltages.
        max_relative_error: largest standard error that counts as determined: relative for
            threshold and slope, absolute for the exponents; four times as much for `log_skew`,
            `logit(ceiling)` and their rates. Default 0.5.

    Returns:
        `FitResult`, the new curve in `.curve`.

    Raises:
        ValueError: as `fit_device`.

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
    1.16
    """
    table = read_table(data, resistance)
    current, widths = table["current_a"], np.unique(table["pulse_width_s"])
    if np.max(current) <= 0:
        raise ValueError(
            "Every current of the table is <= 0; positive current favours reversal, so reverse "
            "the sign of the column."
        )
    fixed = dict(fixed or {})
    fixed.setdefault("pulse_width", float(np.sqrt(widths[0] * widths[-1])))
    if free is None:
        free = ["threshold", "slope"]
        if len(widths) > 1:
            free += ["threshold_exponent", "slope_exponent"]
    # Where the search starts to look, if the caller does not say.
    span = max(np.ptp(current), 1e-3 * np.max(current))
    default = {name: limits[1:3] for name, limits in empirical.LIMITS.items()}
    default["threshold"] = (max(np.min(current), 1e-2 * np.max(current)), 1.5 * np.max(current))
    default["slope"] = (0.05 / span, 50 / span)
    default["ceiling"] = (0.01, 1 - 1e-6)
    for name in ("pulse_width", "anisotropy_exponent", *fixed):
        default.pop(name, None)
    scaled = _Scaled.of("EmpiricalCurve", free, default, empirical.LIMITS)
    base = empirical.EmpiricalCurve(**{"threshold": 1e-3, "slope": 1e3, **fixed})

    def model(values, rows):
        curve = base.replace(**values)
        return curve.switching_probability(rows["current_a"], rows["pulse_width_s"]), 0.0

    fit = _maximum_likelihood(model, scaled, {}, table, max_relative_error)
    return dataclasses.replace(fit, curve=base.replace(**fit.parameters))


# name: scale on which a parameter is fitted; others are linear
_SCALES = {name: "log" for name in (*_POWERS, "threshold", "slope")} | {"ceiling": "logit"}
_WIDE = ("log_skew", "ceiling", "log_skew_rate", "ceiling_rate")  # known less well, still useful


@dataclasses.dataclass(frozen=True)
class _Scaled:
    """Free parameters on the scales on which they are fitted, with bounds there."""

    names: list[str]
    low: np.ndarray
    high: np.ndarray

    @classmethod
    def of(cls, owner, free, default, limits):
        """From the caller's `free`; `default` bounds by name, `limits` as in the dataclasses."""
        names = [free] if isinstance(free, str) else list(free)
        wrong = [name for name in names if name not in default]
        if wrong or not names or len(set(names)) < len(names):
            raise ValueError(
                f"free = {names} must name fields of {owner} that can be fitted, each once: "
                f"{sorted(default)}."
            )
        ends = []
        for name in names:
            unit, lowest, highest, hint = limits[name]
            pair = free[name] if isinstance(free, dict) else default[name]
            if not (isinstance(pair, (tuple, list)) and len(pair) == 2):
                raise ValueError(f"free[{name!r}] = {pair!r} must be a pair (lowest, highest).")
            low, high = pair
            if not lowest <= low < high <= highest:
                raise ValueError(
                    f"free[{name!r}] = ({low:g}, {high:g}) must be increasing bounds within "
                    f"[{lowest:g}, {highest:g}] ({unit}; {hint})."
                )
            if name == "ceiling":
                high = min(high, 1 - 1e-6)
            ends.append((low, high))
        low, high = np.array(ends, "float64").T
        bare = cls(names, low, high)
        return cls(names, bare.forward(low), bare.forward(high))

    def forward(self, values):
        scale = {"log": np.log, "logit": special.logit}
        return np.array([scale.get(_SCALES.get(n), float)(v) for n, v in zip(self.names, values)])

    def backward(self, theta):
        """Values in SI units by name."""
        scale = {"log": np.exp, "logit": special.expit}
        values = [scale.get(_SCALES.get(n), float)(t) for n, t in zip(self.names, theta)]
        return {name: float(value) for name, value in zip(self.names, values)}

    def derivative(self, theta):
        """Of the values with respect to `theta`."""
        derivative = {"log": lambda v: v, "logit": lambda v: v * (1 - v)}
        values = self.backward(theta)
        return np.array(
            [derivative.get(_SCALES.get(n), lambda v: 1.0)(v) for n, v in values.items()]
        )


def _scaled_fields(free, device):
    scaled = _Scaled.of("MTJDevice", free, {n: _LIMITS[n][1:3] for n in _POWERS}, _LIMITS)
    powers = np.array([_POWERS[name] for name in scaled.names])
    if np.linalg.matrix_rank(powers) < len(scaled.names):
        raise ValueError(
            f"The fields {scaled.names} enter the switching probability only through Delta ~ "
            "anisotropy diameter^2 thickness / temperature, Ic0/Delta ~ damping temperature / "
            "spin_torque_efficiency and t_D ~ saturation_magnetization diameter^2 thickness / "
            "(damping temperature), so no data can tell them apart. Free fewer of them."
        )
    return scaled


class _DeviceLaw:
    """Switching probability as a function of the logarithms of a device's fields."""

    def __init__(self, device, switching_model, barrier_exponent, attempt_time):
        if not isinstance(switching_model, str):
            raise ValueError("fit_device needs a named law; measured curves: fit_empirical.")
        self.build = switching.get_curve(switching_model, barrier_exponent, attempt_time, device)
        self.model, self.exponent = switching_model, barrier_exponent
        self.attempt_time, self.device = attempt_time, device

    def probability(self, xp, logs, current, pulse_width):
        """Probability, and how far the logarithm of a setting is outside the law's domain.

        Outside its domain the law is evaluated at the nearest setting inside.

        Args:
            xp: `numpy` or `keras.ops`.
            logs: natural logarithms of the free fields in SI units.
            current, pulse_width: A and s, arrays of shape `(settings,)`.
        """
        device = self.device
        numbers = [
            math.log(value)
            for value in (
                device.thermal_stability,
                device.critical_current_per_stability,
                device.diffusion_time,
            )
        ]
        for name, log in logs.items():
            change = log - math.log(getattr(device, name))
            numbers = [number + power * change for number, power in zip(numbers, _POWERS[name])]
            if name == "damping":
                numbers[2] = numbers[2] + xp.log1p(xp.exp(2 * log)) - math.log1p(device.damping**2)
        log_stability, log_unit, log_time = numbers
        log_duration = np.log(pulse_width) - log_time
        log_stability = log_stability + 0 * log_duration
        excess = 0.0
        if self.model == "macrospin":
            log_duration, first = _clip(xp, log_duration, switching.DURATION_DOMAIN)
            log_stability, second = _clip(xp, log_stability, switching.STABILITY_DOMAIN)
            excess = xp.max(first, axis=-1) + xp.max(second, axis=-1)
        if self.attempt_time is None:
            curve = self.build(xp, log_duration, xp.exp(log_stability))
        else:
            log_attempt = math.log(self.attempt_time) - log_time
            curve = switching.neel_brown_curve(
                xp, log_duration, xp.exp(log_stability), self.exponent, log_attempt
            )
        drive = current * xp.exp(-log_unit)
        return curve.probability(drive - curve.midpoint), excess


def _clip(xp, log, domain):
    """A logarithm kept in a domain, and by how much it was outside."""
    inside = xp.clip(log, *(math.log(end) for end in domain))
    return inside, xp.abs(log - inside)


def _maximum_likelihood(model, scaled, start, table, max_relative_error):
    """Maximise the binomial likelihood of `model(values, rows) -> P, excess`."""
    trials = table["trials"]
    _refuse_without_transition(table, scaled.names)

    def predict(theta, rows):
        probability, excess = model(scaled.backward(theta), rows)
        return np.clip(probability, _FLOOR, 1 - _FLOOR), excess

    def residuals(theta, rows):
        probability, excess = predict(theta, rows)
        return np.append(_deviance_residuals(probability, rows), 1e3 * excess)

    # Far from the transition the likelihood is flat, so look around before going uphill.
    rng = np.random.default_rng(0)
    some = rng.permutation(len(trials))[:_SEARCH_ROWS]
    sample = {name: column[some] for name, column in table.items()}
    unit = rng.uniform(size=(_STARTS, len(scaled.names)))
    starts = scaled.low + unit * (scaled.high - scaled.low)
    if start:
        starts[0] = np.clip(
            scaled.forward([start[n] for n in scaled.names]), scaled.low, scaled.high
        )
    order = np.argsort([np.sum(residuals(theta, sample) ** 2) for theta in starts], kind="stable")

    def climb(theta, rows):
        return optimize.least_squares(
            residuals, theta, "3-point", (scaled.low, scaled.high), x_scale="jac", args=(rows,)
        )

    best = min((climb(starts[k], sample) for k in order[:4]), key=lambda run: run.cost)
    theta = climb(best.x, table).x

    probability, excess = predict(theta, table)
    if excess > 1e-9:
        raise ValueError(
            "The best fit lies outside the domain of the switching law (for 'macrospin': thermal "
            f"stability {switching.STABILITY_DOMAIN[0]:g} to {switching.STABILITY_DOMAIN[1]:g}, "
            f"t_p / t_D {switching.DURATION_DOMAIN[0]:g} to {switching.DURATION_DOMAIN[1]:g}); it "
            f"ended at {_listed(scaled.backward(theta))}. Either a pulse width of the table is far "
            "from those that suit the device, or the device is not a macrospin with the fixed "
            "fields given here: check them, free others, or use fit_empirical."
        )
    columns = []
    for direction in 1e-5 * np.eye(len(theta)):
        above = np.minimum(theta + direction, scaled.high)
        below = np.maximum(theta - direction, scaled.low)
        rise = predict(above, table)[0] - predict(below, table)[0]
        columns.append(rise / np.sum(above - below))
    jacobian = np.stack(columns, axis=-1)
    weight = trials / (probability * (1 - probability))
    information = (jacobian * weight[:, None]).T @ jacobian
    allowed = max_relative_error * np.array([4.0 if n in _WIDE else 1.0 for n in scaled.names])
    _refuse_undetermined(information, allowed, scaled, theta, table)
    margin = np.minimum(theta - scaled.low, scaled.high - theta) / (scaled.high - scaled.low)
    bound = [name for name, value in zip(scaled.names, margin) if value < 1e-6]
    if bound:
        warnings.warn(
            f"The estimate of {bound} lies on its bound ({_listed(scaled.backward(theta))}); its "
            "standard error is not valid. Widen the bounds if the value is not a known limit.",
            stacklevel=3,
        )
    covariance = np.linalg.pinv(information, hermitian=True)
    error = np.sqrt(np.diag(covariance))
    residual = _deviance_residuals(probability, table)
    deviance, freedom = float(np.sum(residual**2)), len(trials) - len(theta)
    values = scaled.backward(theta)
    return FitResult(
        device=None,
        curve=None,
        parameters=values,
        standard_errors=dict(zip(values, (error * scaled.derivative(theta)).tolist())),
        correlation=covariance / np.outer(error, error),
        deviance=deviance,
        degrees_of_freedom=freedom,
        p_value=float(stats.chi2.sf(deviance, freedom)) if freedom else math.nan,
        table=table,
        probability=probability,
        residuals=residual,
        _internal=_Internal(scaled, theta, information),
        _predict=lambda current, width: model(
            values, {"current_a": current, "pulse_width_s": width}
        )[0],
    )


_Internal = collections.namedtuple("_Internal", "scaled theta information")


def _deviance_residuals(probability, rows):
    switched, trials = rows["switched"], rows["trials"]
    deviance = special.xlogy(switched, switched / (trials * probability))
    kept = trials - switched
    deviance += special.xlogy(kept, kept / (trials * (1 - probability)))
    sign = np.sign(switched / trials - probability)
    return sign * np.sqrt(2 * np.maximum(deviance, 0))


def _listed(values):
    return ", ".join(f"{name} = {value:.4g}" for name, value in values.items())


def _refuse_without_transition(table, names):
    switched, trials = table["switched"], table["trials"]
    for none, what, cure in (
        (np.all(switched == 0), "No pulse of the table reversed the device", "larger"),
        (np.all(switched == trials), "Every pulse of the table reversed the device", "smaller"),
    ):
        if none:
            raise ValueError(
                f"{what}, so the data do not determine {names}: they only bound the threshold. "
                f"Add settings with {cure} current until both outcomes occur."
            )
    # Per pulse width: the largest current that ever failed, the smallest that ever succeeded. A
    # failure at no less current and no shorter pulse than some success shows the transition.
    widths, group = np.unique(table["pulse_width_s"], return_inverse=True)
    failed, succeeded = np.full(widths.size, -np.inf), np.full(widths.size, np.inf)
    np.maximum.at(failed, group, np.where(switched < trials, table["current_a"], -np.inf))
    np.minimum.at(succeeded, group, np.where(switched > 0, table["current_a"], np.inf))
    failed_later = np.maximum.accumulate(failed[::-1])[::-1]
    if np.all(failed_later < succeeded):
        k = int(np.argmin(succeeded - failed_later))
        raise ValueError(
            "At no setting do both outcomes occur, nor in an overlapping range of currents (at "
            f"{widths[k]:g} s all fail up to {failed_later[k]:g} A and all succeed from "
            f"{succeeded[k]:g} A on), so the data do not determine {names}: any steeper transition "
            "fits as well. Add settings inside the transition, where both outcomes occur."
        )
    if len(trials) < len(names):
        raise ValueError(
            f"{len(trials)} settings (rows of the same current and pulse width are one) cannot "
            f"determine {len(names)} parameters {names}. Add settings or free fewer parameters."
        )


def _refuse_undetermined(information, allowed, scaled, theta, table):
    """Refuse if any standard error exceeds what is allowed, naming the weakest combination."""
    unit = np.where(np.isfinite(allowed), allowed, 1.0)
    values, vectors = np.linalg.eigh(information * np.outer(unit, unit))
    values = np.maximum(values, max(1e-14 * values[-1], 1e-30))  # a singular matrix included
    errors = unit * np.sqrt((vectors**2 / values).sum(axis=1))
    if np.all(errors <= allowed):
        return

    def in_words(name, error, limit):
        kind = _SCALES.get(name, "linear")
        if error > 1e3:
            return f"{name} is not limited by them at all"
        if kind == "log":
            return f"{name} has a standard error of {error:.0%} (at most {limit:.0%} is accepted)"
        of = f"logit({name})" if kind == "logit" else name
        return f"{of} has a standard error of {error:.2g} (at most {limit:.2g} is accepted)"

    problems = [
        in_words(name, error, limit)
        for name, error, limit in zip(scaled.names, errors, allowed)
        if error > limit
    ]
    mixed = [name for name, share in zip(scaled.names, vectors[:, 0]) if abs(share) > 0.3]
    exchange = (
        f"A change of one of {mixed} is made up for by the others. " if len(mixed) > 1 else ""
    )
    inside = int(np.sum((table["switched"] > 0) & (table["switched"] < table["trials"])))
    raise ValueError(
        f"The data do not determine all of {scaled.names}: {'; '.join(problems)}. {exchange}"
        f"The table has {inside} settings with both outcomes, at "
        f"{np.unique(table['pulse_width_s']).size} pulse width(s); the best fit is "
        f"{_listed(scaled.backward(theta))}. Leave one of {mixed} out of `free`, add settings "
        "inside the transition or at other pulse widths, or raise max_relative_error."
    )


# --- posterior -----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Posterior:
    """Draws of device parameters given the data.

    Attributes:
        draws: `{name: array of shape (draws, chains)}`, SI units.
        r_hat: potential scale reduction by name; below 1.01 the chains agree.
        effective_sample_size: of all chains together, by name.
        acceptance: mean acceptance probability; 0.8 is aimed at.
        divergences: number of divergent transitions. Should be 0 or a few in a thousand draws, or
            more if the posterior reaches the bounds of `free`: running into them counts.
    """

    draws: dict[str, np.ndarray]
    r_hat: dict[str, float]
    effective_sample_size: dict[str, float]
    acceptance: float
    divergences: int

    def summary(self) -> str:
        """Mean, standard deviation, 95 % interval and diagnostics as text."""
        lines = []
        for name, draws in self.draws.items():
            low, high = np.quantile(draws, (0.025, 0.975))
            lines.append(
                f"{name:24} {draws.mean():12.5g} +- {draws.std():.2g}  95 % [{low:.5g}, "
                f"{high:.5g}]  R-hat {self.r_hat[name]:.3f}  "
                f"ESS {self.effective_sample_size[name]:.0f}"
            )
        return "\n".join(lines)


def _sample_posterior(fit, law, seed, chains=4, draws=1000, warmup=500) -> Posterior:
    """NUTS over the logarithms of the fields, whitened by the information of the fit.

    The prior is uniform in the logarithm between the bounds, with a Gaussian shoulder over the
    outer 3 % on both sides (4 standard deviations), so that the density stays smooth; the domain
    of the switching law has a shoulder of 1 % outside. Linear whitening, first by the information
    of the fit, then by draws, keeps the ridge of parameters that nearly exchange for each other
    straight, which a map of the bounds to the whole line would bend.
    """
    import keras

    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            "posterior=True needs the TensorFlow backend of Keras; set KERAS_BACKEND=tensorflow "
            f"before the first import (now: {keras.backend.backend()})."
        )
    try:
        import tensorflow_probability as tfp
    except ImportError as error:
        raise ImportError(
            "posterior=True needs TensorFlow Probability: pip install tensorflow-probability[tf]."
        ) from error
    import tensorflow as tf
    from keras import ops

    for name, value, low in (("chains", chains, 2), ("draws", draws, 10), ("warmup", warmup, 10)):
        if int(value) != value or value < low:
            raise ValueError(f"posterior option {name} = {value!r} must be an integer >= {low}.")
    if int(seed) != seed or not 0 <= seed < 2**31:
        raise ValueError(f"seed = {seed!r} must be a whole number from 0 to 2147483647.")
    scaled, theta, information = fit._internal
    span = scaled.high - scaled.low
    edge = _EDGE * span
    low, high = scaled.low + 4 * edge, scaled.high - 4 * edge
    # A uniform prior has the variance span^2 / 12: where the data say nothing, it sets the scale.
    scale = np.linalg.cholesky(np.linalg.inv(information + np.diag(12 / span**2)))
    rng = np.random.default_rng(seed)
    start = theta + rng.standard_normal((chains, len(theta))) @ scale.T
    values = np.clip(start, low, high)
    table = {name: tf.constant(column, tf.float64) for name, column in fit.table.items()}
    low, high, edge = (tf.constant(v, tf.float64) for v in (low, high, edge))
    switched, kept = table["switched"], table["trials"] - table["switched"]
    current, width = fit.table["current_a"], fit.table["pulse_width_s"]

    def log_density(values):
        logs = {name: values[..., k, None] for k, name in enumerate(scaled.names)}
        probability, excess = law.probability(ops, logs, current, width)
        probability = tf.clip_by_value(probability, _FLOOR, 1 - _FLOOR)
        likelihood = tf.reduce_sum(
            switched * tf.math.log(probability) + kept * tf.math.log1p(-probability), axis=-1
        )
        outside = (values - tf.clip_by_value(values, low, high)) / edge
        shoulders = tf.reduce_sum(tf.square(outside), axis=-1) + tf.square(excess / 0.01)
        return likelihood - shoulders / 2

    @tf.function(jit_compile=True)
    def run(start, scale, seed):
        kernel = tfp.mcmc.DualAveragingStepSizeAdaptation(
            tfp.mcmc.NoUTurnSampler(
                lambda x: log_density(tf.linalg.matvec(scale, x)),
                step_size=tf.constant(0.5, tf.float64),
                max_tree_depth=8,
            ),
            num_adaptation_steps=int(0.8 * warmup),
            target_accept_prob=tf.constant(0.8, tf.float64),
        )
        return tfp.mcmc.sample_chain(
            draws,
            start,
            kernel=kernel,
            num_burnin_steps=warmup,
            seed=seed,
            trace_fn=lambda _, r: (
                r.inner_results.has_divergence,
                r.inner_results.log_accept_ratio,
            ),
        )

    for stage in (1, 2):  # the draws of the first stage whiten the second
        x, (diverged, log_accept) = run(
            tf.constant(np.linalg.solve(scale, values.T).T),
            tf.constant(scale),
            tf.constant([seed, stage], tf.int32),
        )
        logs = tf.linalg.matvec(tf.constant(scale), x)
        values = logs[-1].numpy()
        spread = np.cov(logs.numpy().reshape(-1, len(theta)), rowvar=False)
        scale = np.linalg.cholesky(np.atleast_2d(spread) + 1e-12 * np.eye(len(theta)))
    r_hat = tfp.mcmc.potential_scale_reduction(logs).numpy()
    logger = tf.get_logger()
    level = logger.level
    logger.setLevel("ERROR")  # TFP casts the complex result of a Fourier transform, with a warning
    size = tfp.mcmc.effective_sample_size(logs, cross_chain_dims=1).numpy()
    logger.setLevel(level)
    values = np.exp(np.clip(logs.numpy(), scaled.low, scaled.high))
    posterior = Posterior(
        draws={name: values[..., k] for k, name in enumerate(scaled.names)},
        r_hat=dict(zip(scaled.names, r_hat.tolist())),
        effective_sample_size=dict(zip(scaled.names, size.tolist())),
        acceptance=float(np.mean(np.minimum(1.0, np.exp(log_accept.numpy())))),
        divergences=int(np.sum(diverged.numpy())),
    )
    if not (np.all(r_hat < 1.05) and np.all(size > 100)):
        warnings.warn(
            "The chains have not converged (R-hat should be below 1.05 and the effective sample "
            f"size above 100):\n{posterior.summary()}\nUse more draws, e.g. "
            "posterior={'warmup': 2000, 'draws': 4000}, or narrower bounds in `free`.",
            stacklevel=3,
        )
    return posterior


# --- spreads -------------------------------------------------------------------------------------


def sample_devices(source, count, seed=0, spread=None) -> list[MTJDevice]:
    """Random devices: from a posterior, or around a nominal device with a stated spread.

    A posterior is the uncertainty about *one* device; a spread is how devices of a chip differ.

    Args:
        source: `FitResult` with a posterior, or an `MTJDevice` or preset name with `spread`.
        count: how many devices, >= 1.
        seed: integer >= 0; the same seed gives the same devices.
        spread: `{field: relative standard deviation}`, each 0 to 1, for example
            `{"diameter": 0.03, "anisotropy": 0.05}`. Independent and log-normal, the nominal
            value being the median.

    Returns:
        List of `MTJDevice`.

    Raises:
        ValueError: for an unknown field, a spread outside its range, or a source without draws.

    Example:

    >>> import numpy as np
    >>> from spinkeras import calibration
    >>> devices = calibration.sample_devices("stt_reference", 500, spread={"anisotropy": 0.05})
    >>> relative = np.array([d.anisotropy for d in devices]) / 109.87e3
    >>> bool(0.045 < relative.std() < 0.055)
    True
    """
    if isinstance(count, bool) or int(count) != count or count < 1:
        raise ValueError(f"count = {count!r} must be a whole number >= 1.")
    count = int(count)
    rng = np.random.default_rng(seed)
    if isinstance(source, FitResult):
        if source.posterior is None or spread is not None:
            raise ValueError(
                "A FitResult as source needs draws, and takes no `spread`: call fit_device with "
                "posterior=True, or give fit.device and a spread."
            )
        flat = {name: draws.ravel() for name, draws in source.posterior.draws.items()}
        size = len(next(iter(flat.values())))
        picked = rng.choice(size, count, replace=count > size)
        fields = {name: draws[picked] for name, draws in flat.items()}
        nominal = source.device
    else:
        nominal = get_device(source)
        numeric = [f for f, v in nominal.get_config().items() if isinstance(v, float)]
        bad = {
            name: value
            for name, value in (spread or {}).items()
            if name not in numeric or not 0 <= value <= 1
        }
        if bad or not spread:
            raise ValueError(
                f"spread = {spread} must give relative standard deviations from 0 to 1 (5 % is "
                f"0.05) for any of the fields {numeric}."
            )
        fields = {}
        for name, value in spread.items():
            sigma = math.sqrt(math.log1p(value**2))
            fields[name] = getattr(nominal, name) * np.exp(sigma * rng.standard_normal(count))
    return [
        nominal.replace(**{name: float(values[k]) for name, values in fields.items()})
        for k in range(count)
    ]
