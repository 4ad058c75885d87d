"""Maximum binomial likelihood of a law of `spinkeras.laws` on a table of switching counts."""

import collections
import dataclasses
import math
import warnings
from typing import Any

import numpy as np
from scipy import optimize, special, stats

from spinkeras.devices import MTJDevice
from spinkeras.empirical import SHAPE, EmpiricalCurve
from spinkeras.laws import SCALES
from spinkeras.posterior import FLOOR, Posterior

_SEARCH_ROWS = 2000
_STARTS = 256
_KNOWN_VCMA = 10.0  # fJ/(V m): an error is judged against this where the coefficient is smaller
# known less well, still useful
_WIDE = {
    name + ending
    for name in (*SHAPE, "floor", "ceiling")
    for ending in ("", "_rate", "_anisotropy_rate")
}


@dataclasses.dataclass(frozen=True)
class FitResult:
    """Outcome of `fit_device` and `fit_empirical`.

    Attributes:
        device: fitted `MTJDevice`; after `fit_empirical` the given device with the fitted curve
            as its `switching_curve`, or `None` if none was given.
        curve: fitted `EmpiricalCurve`, or `None` after `fit_device`.
        parameters: fitted values by name, SI units.
        standard_errors: their standard errors (from the expected information), SI units. Huge
            for what the data do not limit, where `max_relative_error` lets that pass.
        correlation: correlation matrix of the estimates, in the order of `parameters`.
        deviance: see `spinkeras.calibration`; small is good.
        degrees_of_freedom: settings minus parameters.
        p_value: probability of a deviance at least as large if the model holds. From chi-squared,
            which needs several trials, and both outcomes, at most settings.
        table: the pooled table that was fitted, see `read_table`.
        probability: fitted probability of every row of `table`.
        residuals: signed square roots of the deviance of every row; within +-2 mostly.
        posterior: `Posterior`, or `None`.
    """

    device: MTJDevice | None
    curve: EmpiricalCurve | None
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
        """Fitted switching probability at currents in A, pulse widths in s, gates in V (NumPy).

        Raises:
            ValueError: for settings at which the fitted law has no meaning, as
                `spinkeras.switching_probability`.
        """
        settings = (np.asarray(v, "float64") for v in (current, pulse_width, gate_voltage))
        return self._predict(*np.broadcast_arrays(*settings))

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


def maximum_likelihood(law, scaled, start, table, max_relative_error, search=True, steps=300):
    """Maximise the binomial likelihood of `law.probability(xp, values, rows) -> P, excess`.

    Args:
        law: of `spinkeras.laws`.
        scaled: the free parameters.
        start: values by name, SI units, at which to start; may be empty.
        table: pooled counts of `spinkeras.tables.read_table`.
        max_relative_error: as `fit_device`.
        search: look around for other starts as well.
        steps: at most so many from every start.
    """
    trials = table["trials"]
    if isinstance(max_relative_error, str) or not max_relative_error > 0:
        raise ValueError(f"max_relative_error = {max_relative_error!r} must be > 0; 50 % is 0.5.")
    _refuse_without_transition(table, scaled.names)

    def predict(theta, rows):
        probability, excess = law.probability(np, dict(zip(scaled.names, theta)), rows)
        return np.clip(probability, FLOOR, 1 - FLOOR), excess

    wall = max(1e3, math.sqrt(np.sum(trials)))  # steep beside any likelihood

    def residuals(theta, rows):
        probability, excess = predict(theta, rows)
        return np.append(_deviance_residuals(probability, rows), wall * excess)

    def climb(theta, rows):
        return optimize.least_squares(
            residuals,
            theta,
            "3-point",
            (scaled.low, scaled.high),
            x_scale="jac",
            max_nfev=steps,
            args=(rows,),
        )

    # Far from the transition the likelihood is flat, so look around before going uphill.
    rng = np.random.default_rng(0)
    some = rng.permutation(len(trials))[:_SEARCH_ROWS]
    sample = {name: column[some] for name, column in table.items()}
    near, far = scaled.near
    starts = near + rng.uniform(size=(_STARTS if search else 0, len(near))) * (far - near)
    if start:
        first = scaled.forward([start[n] for n in scaled.names])
        starts = np.vstack([np.clip(first, scaled.low, scaled.high), starts])
    order = np.argsort([np.sum(residuals(theta, sample) ** 2) for theta in starts], kind="stable")
    best = min((climb(starts[k], sample) for k in order[:4]), key=lambda run: run.cost)
    theta = best.x if len(trials) <= _SEARCH_ROWS else climb(best.x, table).x

    probability, excess = predict(theta, table)
    if excess > law.tolerance:
        raise ValueError(law.outside(listed(scaled.backward(theta))))
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
    covariance, weakest = _inverse(information, allowed)
    error = np.sqrt(np.diag(covariance))
    if not np.all(error <= allowed):
        _refuse_undetermined(error, allowed, weakest, scaled, theta, table)
    margin = np.minimum(theta - scaled.low, scaled.high - theta) / (scaled.high - scaled.low)
    bound = [name for name, value in zip(scaled.names, margin) if value < 1e-6]
    for names, what, cure in (
        ([n for n in bound if n in scaled.given], "its bound", "Widen the bounds"),
        ([n for n in bound if n not in scaled.given], "its limit", "Free fewer parameters"),
    ):
        if names:
            warnings.warn(
                f"The estimate of {names} lies on {what} ({listed(scaled.backward(theta))}); its "
                f"standard error is not valid. {cure} if the value is not a known limit.",
                stacklevel=3,
            )
    if excess > 1e-9 and not bound:
        warnings.warn(
            f"The estimate ({listed(scaled.backward(theta))}) is the best that the curve allows, "
            "which must rise with the current; its standard errors are not valid. Free fewer "
            "parameters, unless the fit is what you want.",
            stacklevel=3,
        )
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
    )


def condensed(table):
    """A table of some 2000 rows or less, neighbouring settings pooled: to choose a model with."""
    trials = table["trials"]
    settings = [table[name] for name in ("current_a", "pulse_width_s", "gate_voltage_v")]
    if len(trials) <= _SEARCH_ROWS:
        return table
    keys = [np.unique(column, return_inverse=True)[1] for column in settings]
    fine = sum(key.max() > 40 for key in keys) or 1
    bins = int(_SEARCH_ROWS ** (1 / fine))
    keys = [stats.rankdata(k, "min") * bins // (k.size + 1) if k.max() > 40 else k for k in keys]
    cell = np.unique(np.stack(keys), axis=1, return_inverse=True)[1].ravel()
    weight = np.bincount(cell, trials)
    pooled = [np.bincount(cell, trials * column) / weight for column in settings]
    return dict(zip(table, [*pooled, np.bincount(cell, table["switched"]), weight]))


_Internal = collections.namedtuple("_Internal", "scaled theta information")


def _deviance_residuals(probability, rows):
    switched, trials = rows["switched"], rows["trials"]
    deviance = special.xlogy(switched, switched / (trials * probability))
    kept = trials - switched
    deviance += special.xlogy(kept, kept / (trials * (1 - probability)))
    sign = np.sign(switched / trials - probability)
    return sign * np.sqrt(2 * np.maximum(deviance, 0))


def listed(values):
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
    gates = np.unique(table["gate_voltage_v"])
    gaps = [_gap(table, gate) for gate in gates]
    if None not in gaps:
        gate, (width, failed, succeeded) = max(
            zip(gates, gaps), key=lambda pair: pair[1][1] - pair[1][2]
        )
        where = f"{width:g} s" + (f" and a gate voltage of {gate:g} V" if len(gates) > 1 else "")
        ends = [f"all fail up to {failed:g} A"] if np.isfinite(failed) else []
        ends += [f"all succeed from {succeeded:g} A on"] if np.isfinite(succeeded) else []
        raise ValueError(
            "At no setting do both outcomes occur, nor in an overlapping range of currents (at "
            f"{where} {' and '.join(ends)}), so the data do not determine {names}: any steeper "
            "transition fits as well. Add settings inside the transition, where both outcomes "
            "occur."
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


def _inverse(information, allowed):
    """Covariance, huge where the information is singular, and the least known direction."""
    unit = np.where(np.isfinite(allowed), allowed, 1.0)
    values, vectors = np.linalg.eigh(information * np.outer(unit, unit))
    values = np.maximum(values, max(1e-14 * values[-1], 1e-30))
    return (vectors / values) @ vectors.T * np.outer(unit, unit), vectors[:, 0]


def _refuse_undetermined(errors, allowed, weakest, scaled, theta, table):
    """Say which standard errors exceed what is allowed, and the weakest combination."""

    def in_words(name, error, limit):
        kind = SCALES.get(name, "linear")
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
    mixed = [name for name, share in zip(scaled.names, weakest) if abs(share) > 0.3]
    exchange = (
        f"A change of one of {mixed} is made up for by the others. " if len(mixed) > 1 else ""
    )
    where = "gate voltages" if "vcma_coefficient" in mixed else "pulse widths"
    inside = int(np.sum((table["switched"] > 0) & (table["switched"] < table["trials"])))
    raise ValueError(
        f"The data do not determine all of {scaled.names}: {'; '.join(problems)}. {exchange}"
        f"The table has {inside} settings with both outcomes, at "
        f"{np.unique(table['pulse_width_s']).size} pulse width(s); the best fit is "
        f"{listed(scaled.backward(theta))}. Leave one of {mixed} out of `free`, add settings "
        f"inside the transition or at other {where}, or raise max_relative_error."
    )
