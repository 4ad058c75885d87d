"""From lab data to a device: maximum likelihood, its uncertainty and its goodness of fit.

The table of counts is described in `spinkeras.tables`. The switched count of a setting is binomial,

    ln L = sum over settings of  k ln P + (n - k) ln(1 - P),   P = P(I, t_p, V_gate; parameters)

and the deviance, `2 (ln L of the observed fractions - ln L)`, is about chi-squared with
`settings - parameters` degrees of freedom if the model holds. `posterior=True` adds draws of
`spinkeras.posterior`, from the same likelihood.
"""

import collections
import dataclasses
import math
import warnings
from typing import Any

import numpy as np
from scipy import optimize, special, stats

from spinkeras import empirical, switching
from spinkeras.devices import LIMITS, MTJDevice, as_number, get_device
from spinkeras.posterior import FLOOR, Posterior, sample_devices, sample_posterior
from spinkeras.tables import read_table

__all__ = [
    "FitResult",
    "Posterior",
    "fit_device",
    "fit_empirical",
    "read_table",
    "sample_devices",
]

# Powers with which a field enters Delta, Ic0 / Delta, t_D (damping also as 1 + alpha^2) and the
# relative change of the anisotropy per gate voltage, xi / (t_ox t_f K_eff).
_POWERS = {
    "diameter": (2, 0, 2, 0),
    "thickness": (1, 0, 1, -1),
    "saturation_magnetization": (0, 0, 1, 0),
    "damping": (0, 1, -1, 0),
    "spin_torque_efficiency": (0, -1, 0, 0),
    "anisotropy": (1, 0, 0, -1),
    "temperature": (-1, 1, -1, 0),
    "vcma_coefficient": (0, 0, 0, 1),
}
_SEARCH_ROWS = 2000
_STARTS = 256
_FEMTO = 1e-15
_KNOWN_VCMA = 10.0  # fJ/(V m): an error is judged against this where the coefficient is smaller


# --- the result ----------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class FitResult:
    """Outcome of `fit_device` and `fit_empirical`.

    Attributes:
        device: fitted `MTJDevice`; after `fit_empirical` the given device with the fitted curve
            as its `switching_curve`, or `None` if none was given.
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
    posterior: Posterior | None = None
    _internal: Any = dataclasses.field(default=None, repr=False)
    _predict: Any = dataclasses.field(default=None, repr=False)

    def predict(self, current, pulse_width, gate_voltage=0.0):
        """Fitted switching probability at currents in A, pulse widths in s, gates in V (NumPy)."""
        settings = np.broadcast_arrays(
            *(np.asarray(v, "float64") for v in (current, pulse_width, gate_voltage))
        )
        return self._predict(_rows(*(v.ravel() for v in settings))).reshape(settings[0].shape)

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
        current = self.table["current_a"]
        settings = np.stack([self.table["pulse_width_s"], self.table["gate_voltage_v"]], axis=-1)
        switched, trials = self.table["switched"], self.table["trials"]
        fraction = switched / trials
        low = stats.beta.ppf(0.16, switched + 0.5, trials - switched + 0.5)
        high = stats.beta.ppf(0.84, switched + 0.5, trials - switched + 0.5)
        bars = np.maximum([fraction - low, high - fraction], 0)
        scale, unit = (1e6, "uA") if np.max(np.abs(current)) < 1e-3 else (1e3, "mA")
        groups = np.unique(settings, axis=0)
        gated = np.any(groups[:, 1])
        shown = groups[np.unique(np.linspace(0, len(groups) - 1, 10).astype(int))]
        for number, (width, gate) in enumerate(shown):
            rows = np.all(settings == (width, gate), axis=1)
            colour = f"C{number}"
            x = current[rows] * scale
            margin = 0.1 * np.ptp(current[rows]) or 0.1 * abs(current[rows][0])
            fine = np.linspace(current[rows].min() - margin, current[rows].max() + margin, 300)
            top.plot(fine * scale, self.predict(fine, width, gate), color=colour)
            label = f"{width * 1e9:.3g} ns" + (f", {gate:+.2g} V" if gated else "")
            top.errorbar(x, fraction[rows], bars[:, rows], fmt="o", color=colour, label=label)
            bottom.plot(x, self.residuals[rows], "o", color=colour)
        top.set_ylabel("switching probability")
        top.legend(title="pulse width" + (", gate" if gated else ""))
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

    At one gate voltage the switching law knows a device by three numbers, `Delta`, `Ic0 / Delta`
    and `t_D`. So at most three fields can be free, and data at one pulse width usually determine
    two. Several gate voltages add a fourth, `K_eff(V) / K_eff = 1 - xi V / (t_ox t_f K_eff)`.

    Args:
        data: table of counts, see the module: a CSV path, a dictionary or a data frame.
        device: `MTJDevice` or preset name; gives every field that is not free.
        free: names of the fields to fit, or a dictionary `{name: (lowest, highest)}` with bounds
            in SI units. Any of diameter, thickness, saturation_magnetization, damping,
            spin_torque_efficiency, anisotropy (at zero gate voltage), temperature and, with rows
            at several gate voltages, vcma_coefficient. Default: anisotropy and spin-torque
            efficiency.
        switching_model, barrier_exponent, attempt_time: the law, as in
            `spinkeras.switching_probability`.
        resistance: ohm, for a table of voltages. Default: the device's `write_path_resistance`.
        max_relative_error: largest relative standard error that counts as determined (of
            vcma_coefficient: relative to itself or to 10 fJ/(V m), whichever is larger). Default
            0.5. With `posterior` it may be `math.inf`: the bounds of `free` then limit what the
            data do not.
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
    table = read_table(data, device.write_path_resistance if resistance is None else resistance)
    scaled = _scaled_fields(free, device, table)
    start = {name: getattr(device, name) for name in scaled.names}
    fit = _maximum_likelihood(law, scaled, start, table, max_relative_error)
    try:
        fitted = device.replace(**fit.parameters)
    except ValueError as error:
        raise ValueError(
            f"The fit ended at {_listed(fit.parameters)}, which the other fields of the device do "
            f"not allow: {error}"
        ) from None
    return _with_posterior(dataclasses.replace(fit, device=fitted), law, posterior, seed)


def fit_empirical(
    data,
    free=None,
    *,
    fixed=None,
    device=None,
    resistance=None,
    max_relative_error=0.5,
    posterior=False,
    seed=0,
) -> FitResult:
    """Fit an `EmpiricalCurve` to measured switching counts, by maximum binomial likelihood.

    Args:
        data: table of counts, see the module: a CSV path, a dictionary or a data frame.
        free: names of the fields of `EmpiricalCurve` to fit, or `{name: (lowest, highest)}`.
            Default: threshold and slope, with their exponents if there are several pulse widths,
            and the anisotropy exponent if there are several gate voltages.
        fixed: values of other fields, for example `{"log_skew": 0.0}`. Default: those of
            `EmpiricalCurve`; `pulse_width` is the (geometric) middle of the data.
        device: `MTJDevice` or preset name. Needed for a table with gate voltages, which it turns
            into anisotropies; `.device` of the result is this one with the fitted curve.
        resistance: ohm, for a table of voltages. Default: the device's `write_path_resistance`.
        max_relative_error: largest standard error that counts as determined: relative for
            threshold and slope, absolute for the exponents; four times as much for `log_skew`,
            `logit(ceiling)` and their rates. Default 0.5.
        posterior, seed: as in `fit_device`; the prior is uniform in the logarithm of threshold
            and slope, in the logit of the ceiling and in the others themselves.

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
    if device is not None:
        device = get_device(device)
        resistance = device.write_path_resistance if resistance is None else resistance
    table = read_table(data, resistance)
    current, widths = table["current_a"], np.unique(table["pulse_width_s"])
    several_gates = len(np.unique(table["gate_voltage_v"])) > 1
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
        if several_gates:
            free += ["anisotropy_exponent"]
    # Where the search starts to look, if the caller does not say.
    span = max(np.ptp(current), 1e-3 * np.max(current))
    default = {name: limits[1:3] for name, limits in empirical.LIMITS.items()}
    default["threshold"] = (max(np.min(current), 1e-2 * np.max(current)), 1.5 * np.max(current))
    default["slope"] = (0.05 / span, 50 / span)
    default["ceiling"] = (0.01, 1 - 1e-6)
    for name in ("pulse_width", *([] if several_gates else ["anisotropy_exponent"]), *fixed):
        default.pop(name, None)
    scaled = _Scaled.of("EmpiricalCurve", free, default, empirical.LIMITS)
    base = empirical.EmpiricalCurve.from_config({"threshold": 1e-3, "slope": 1e3, **fixed})
    law = _CurveLaw(base, device)
    fit = _maximum_likelihood(law, scaled, {}, table, max_relative_error)
    curve = base.replace(**fit.parameters)
    if device is not None:
        device = device.replace(switching_curve=curve)
    return _with_posterior(
        dataclasses.replace(fit, curve=curve, device=device), law, posterior, seed
    )


def _with_posterior(fit, law, posterior, seed):
    if not posterior:
        return fit
    options = posterior if isinstance(posterior, dict) else {}
    unknown = set(options) - {"chains", "draws", "warmup"}
    if unknown:
        raise ValueError(
            f"posterior has no option {sorted(unknown)}; it takes 'chains', 'draws' and 'warmup'."
        )
    draws = sample_posterior(law.probability, *fit._internal, fit.table, seed, **options)
    return dataclasses.replace(fit, posterior=draws)


# name: scale on which a parameter is fitted; others are linear
_SCALES = {name: "log" for name in (*_POWERS, "threshold", "slope")}
_SCALES |= {"ceiling": "logit", "vcma_coefficient": "femto"}
_FORWARD = {"log": np.log, "logit": special.logit, "femto": lambda v: v / _FEMTO}
_BACKWARD = {"log": np.exp, "logit": special.expit, "femto": lambda t: t * _FEMTO}
_DERIVATIVE = {"log": lambda v: v, "logit": lambda v: v * (1 - v), "femto": lambda v: _FEMTO}
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
        if not isinstance(free, (str, list, tuple, dict)):
            raise ValueError(f"free = {free!r} must be a list of field names of {owner}.")
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
            low, high = (as_number(f"free[{name!r}]", end, unit, hint) for end in pair)
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
        return np.array(
            [_FORWARD.get(_SCALES.get(n), float)(v) for n, v in zip(self.names, values)]
        )

    def backward(self, theta):
        """Values in SI units by name; parameters along the last axis of `theta`."""
        return {
            name: _BACKWARD.get(_SCALES.get(name), np.asarray)(theta[..., k])
            for k, name in enumerate(self.names)
        }

    def derivative(self, theta):
        """Of the values with respect to `theta`."""
        values = self.backward(theta)
        return np.array(
            [_DERIVATIVE.get(_SCALES.get(n), lambda v: 1.0)(v) for n, v in values.items()]
        )


def _scaled_fields(free, device, table):
    gates = np.unique(table["gate_voltage_v"])
    default = {name: LIMITS[name][1:3] for name in _POWERS}
    highest = np.max(np.abs(gates)) or 1.0  # the gate at most doubles the anisotropy, or removes it
    vcma = min(device.anisotropy * device.oxide_thickness * device.thickness / highest, 1e-11)
    default["vcma_coefficient"] = (-vcma, vcma)
    scaled = _Scaled.of("MTJDevice", free, default, LIMITS)
    if len(gates) == 1 and "vcma_coefficient" in scaled.names:
        raise ValueError(
            f"vcma_coefficient is free, but every row of the table has the gate voltage "
            f"{gates[0]:g} V, so the data do not determine it: how the curve moves with the gate "
            "shows it. Add rows at another gate voltage (column gate_voltage_v), or leave it out "
            "of `free`."
        )
    known = 4 if len(gates) > 1 else 3
    powers = np.array([_POWERS[name][:known] for name in scaled.names])
    if np.linalg.matrix_rank(powers) < len(scaled.names):
        raise ValueError(
            f"The fields {scaled.names} enter the switching probability only through Delta ~ "
            "anisotropy diameter^2 thickness / temperature, Ic0/Delta ~ damping temperature / "
            "spin_torque_efficiency, t_D ~ saturation_magnetization diameter^2 thickness / "
            "(damping temperature) and, with several gate voltages, vcma_coefficient / (thickness "
            "anisotropy), so no data can tell them apart. Free fewer of them."
        )
    return scaled


def _rows(current, pulse_width, gate_voltage):
    return {"current_a": current, "pulse_width_s": pulse_width, "gate_voltage_v": gate_voltage}


class _DeviceLaw:
    """Switching probability as a function of a device's fields, on the scales of the fit."""

    def __init__(self, device, switching_model, barrier_exponent, attempt_time):
        if not isinstance(switching_model, str):
            raise ValueError("fit_device needs a named law; measured curves: fit_empirical.")
        if device.switching_curve is not None:
            raise ValueError(
                f"The device {device.name!r} switches by its switching_curve, not by the fields "
                "that fit_device finds. Fit the curve with fit_empirical, or give "
                "device.replace(switching_curve=None)."
            )
        self.build = switching.get_curve(switching_model, barrier_exponent, attempt_time, device)
        self.model, self.exponent = switching_model, barrier_exponent
        self.attempt_time, self.device = attempt_time, device

    def probability(self, xp, values, rows):
        """Probability, and how far the logarithm of a setting is outside the law's domain.

        Outside its domain the law is evaluated at the nearest setting inside.

        Args:
            xp: `numpy` or `keras.ops`.
            values: natural logarithms of the free fields in SI units; vcma_coefficient in
                fJ/(V m).
            rows: settings, arrays of shape `(settings,)`.
        """
        device = self.device
        logs = {name: value for name, value in values.items() if name != "vcma_coefficient"}
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
        log_duration = np.log(rows["pulse_width_s"]) - log_time
        zero = 0 * log_duration  # of the full shape and in double precision, also as a tensor
        log_stability, log_unit = log_stability + zero, log_unit + zero
        excess = 0.0
        if np.any(rows["gate_voltage_v"]):
            log_stiffness = sum(
                logs.get(name, math.log(getattr(device, name)))
                for name in ("anisotropy", "thickness")
            )
            vcma = values.get("vcma_coefficient", device.vcma_coefficient / _FEMTO)
            softening = vcma * _FEMTO / device.oxide_thickness * xp.exp(zero - log_stiffness)
            ratio = 1 - softening * rows["gate_voltage_v"]
            inside = xp.maximum(ratio, 1e-3)
            excess = xp.max(inside - ratio, axis=-1)
            log_stability = log_stability + xp.log(inside)
        if self.model == "macrospin":
            log_duration, first = _clip(xp, log_duration, switching.DURATION_DOMAIN)
            log_stability, second = _clip(xp, log_stability, switching.STABILITY_DOMAIN)
            excess = excess + xp.max(first, axis=-1) + xp.max(second, axis=-1)
        if self.attempt_time is None:
            curve = self.build(xp, log_duration, xp.exp(log_stability))
        else:
            log_attempt = math.log(self.attempt_time) - log_time
            curve = switching.neel_brown_curve(
                xp, log_duration, xp.exp(log_stability), self.exponent, log_attempt
            )
        drive = rows["current_a"] * xp.exp(-log_unit)
        return curve.probability(drive - curve.midpoint), excess


class _CurveLaw:
    """Switching probability as a function of an empirical curve's fields, as `_DeviceLaw`."""

    def __init__(self, base, device):
        self.base, self.device = base, device

    def probability(self, xp, values, rows):
        fields = dict(self.base.fields())
        for name, value in values.items():
            if name == "ceiling":
                fields["logit_ceiling"] = value
            else:
                fields[name] = xp.exp(value) if _SCALES.get(name) == "log" else value
        s = np.log(rows["pulse_width_s"] / self.base.pulse_width)
        curve = empirical.curve_at(xp, fields, s, self._log_ratio(rows["gate_voltage_v"]))
        # Of the full shape even where only the slope is free: its gradient expects that.
        z = rows["current_a"] - curve.midpoint + 0 * curve.slope
        return curve.probability(z), 0.0

    def _log_ratio(self, gate):
        """`ln K_eff(V) / K_eff` of every row."""
        if not np.any(gate):
            return np.zeros(gate.shape)
        if self.device is None:
            raise ValueError(
                "The table has gate voltages; give `device`, whose vcma_coefficient, thicknesses "
                "and anisotropy turn them into anisotropies (fit_device can fit the coefficient)."
            )
        ratio = self.device.anisotropy_at(gate) / self.device.anisotropy
        if np.min(ratio) <= 0:
            worst = float(gate[np.argmin(ratio)])
            raise ValueError(
                f"At gate_voltage_v = {worst:g} V the anisotropy of the device would be <= 0; "
                "check its vcma_coefficient, thicknesses and anisotropy."
            )
        return np.log(ratio)


def _clip(xp, log, domain):
    """A logarithm kept in a domain, and by how much it was outside."""
    inside = xp.clip(log, *(math.log(end) for end in domain))
    return inside, xp.abs(log - inside)


def _maximum_likelihood(law, scaled, start, table, max_relative_error):
    """Maximise the binomial likelihood of `law.probability(xp, values, rows) -> P, excess`."""
    trials = table["trials"]
    if isinstance(max_relative_error, str) or not max_relative_error > 0:
        raise ValueError(f"max_relative_error = {max_relative_error!r} must be > 0; 50 % is 0.5.")
    _refuse_without_transition(table, scaled.names)

    def predict(theta, rows):
        probability, excess = law.probability(np, dict(zip(scaled.names, theta)), rows)
        return np.clip(probability, FLOOR, 1 - FLOOR), excess

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
    allowed = max_relative_error * np.array(
        [
            max(abs(t), _KNOWN_VCMA) if n == "vcma_coefficient" else 4.0 if n in _WIDE else 1.0
            for n, t in zip(scaled.names, theta)
        ]
    )
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
    values = {name: float(value) for name, value in scaled.backward(theta).items()}
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
        _predict=lambda rows: law.probability(np, dict(zip(scaled.names, theta)), rows)[0],
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
    gaps = [_gap(table, gate) for gate in np.unique(table["gate_voltage_v"])]
    if None not in gaps:
        width, failed, succeeded = max(gaps, key=lambda gap: gap[1] - gap[2])
        raise ValueError(
            "At no setting do both outcomes occur, nor in an overlapping range of currents (at "
            f"{width:g} s all fail up to {failed:g} A and all succeed from {succeeded:g} A on), so "
            f"the data do not determine {names}: any steeper transition fits as well. Add settings "
            "inside the transition, where both outcomes occur."
        )
    if len(trials) < len(names):
        raise ValueError(
            f"{len(trials)} settings (rows of the same current and pulse width are one) cannot "
            f"determine {len(names)} parameters {names}. Add settings or free fewer parameters."
        )


def _gap(table, gate):
    """Where failures and successes at a gate voltage do not overlap; `None` where they do.

    Per pulse width: the largest current that ever failed, the smallest that ever succeeded. A
    failure at no less current and no shorter pulse than some success shows the transition.
    """
    here = {n: column[table["gate_voltage_v"] == gate] for n, column in table.items()}
    current, switched, trials = (here[n] for n in ("current_a", "switched", "trials"))
    widths, group = np.unique(here["pulse_width_s"], return_inverse=True)
    failed, succeeded = np.full(widths.size, -np.inf), np.full(widths.size, np.inf)
    np.maximum.at(failed, group, np.where(switched < trials, current, -np.inf))
    np.minimum.at(succeeded, group, np.where(switched > 0, current, np.inf))
    failed_later = np.maximum.accumulate(failed[::-1])[::-1]
    if np.any(failed_later >= succeeded):
        return None
    k = int(np.argmin(succeeded - failed_later))
    return widths[k], failed_later[k], succeeded[k]


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
        if error > 1e3 * max(limit, 1.0):
            return f"{name} is not limited by them at all"
        if kind == "log":
            return f"{name} has a standard error of {error:.0%} (at most {limit:.0%} is accepted)"
        of = f"logit({name})" if kind == "logit" else name
        unit = " fJ/(V m)" if kind == "femto" else ""
        return f"{of} has a standard error of {error:.2g}{unit} (at most {limit:.2g} is accepted)"

    problems = [
        in_words(name, error, limit)
        for name, error, limit in zip(scaled.names, errors, allowed)
        if error > limit
    ]
    mixed = [name for name, share in zip(scaled.names, vectors[:, 0]) if abs(share) > 0.3]
    exchange = (
        f"A change of one of {mixed} is made up for by the others. " if len(mixed) > 1 else ""
    )
    where = "gate voltages" if "vcma_coefficient" in mixed else "pulse widths"
    inside = int(np.sum((table["switched"] > 0) & (table["switched"] < table["trials"])))
    raise ValueError(
        f"The data do not determine all of {scaled.names}: {'; '.join(problems)}. {exchange}"
        f"The table has {inside} settings with both outcomes, at "
        f"{np.unique(table['pulse_width_s']).size} pulse width(s); the best fit is "
        f"{_listed(scaled.backward(theta))}. Leave one of {mixed} out of `free`, add settings "
        f"inside the transition or at other {where}, or raise max_relative_error."
    )
