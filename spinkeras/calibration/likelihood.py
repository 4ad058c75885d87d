"""Fits a law to switching counts by maximum binomial likelihood."""

import dataclasses
import math
from typing import Any

import numpy as np
from scipy import optimize, special, stats

from spinkeras.calibration import conditions
from spinkeras.calibration.posterior import FLOOR
from spinkeras.calibration.scales import MICRO, Scaled
from spinkeras.physics.empirical import SHAPE

_SEARCH_ROWS = 2000
_STARTS = 256
_KNOWN_VCMA = 10.0  # fJ/(V m): the error of a smaller coefficient is compared with this value

# parameters that are useful even with a larger standard error
_WIDE = {
    name + ending
    for name in (*SHAPE, "floor", "ceiling")
    for ending in ("", "_rate", "_anisotropy_rate")
}


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Estimate of maximum likelihood; `theta` is on the scales of the fit."""

    law: Any
    scaled: Scaled
    theta: np.ndarray
    information: np.ndarray  # expected (Fisher) information about theta
    covariance: np.ndarray
    table: dict
    probability: np.ndarray
    residuals: np.ndarray
    doubts: list[str] = dataclasses.field(default_factory=list)  # why the errors are not valid

    @property
    def parameters(self):
        return {name: float(value) for name, value in self.scaled.backward(self.theta).items()}

    @property
    def standard_errors(self):
        error = np.sqrt(np.diag(self.covariance)) * self.scaled.derivative(self.theta)
        return dict(zip(self.scaled.names, error.tolist()))

    @property
    def correlation(self):
        error = np.sqrt(np.diag(self.covariance))
        return self.covariance / np.outer(error, error)

    @property
    def deviance(self):
        return float(np.sum(self.residuals**2))

    @property
    def degrees_of_freedom(self):
        return len(self.residuals) - len(self.theta)


def maximum_likelihood(law, scaled, start, table, max_relative_error, search=True, steps=300):
    """The `Estimate` of a law for binomial counts.

    Args:
        law: `DeviceLaw` or `CurveLaw`, with `probability(xp, values, rows) -> P, excess`.
        scaled: `Scaled`, the free parameters.
        start: start values by name in SI units; may be empty.
        table: pooled counts of `spinkeras.calibration.read_table`.
        max_relative_error: as in `fit_device`.
        search: whether to try random starts as well. Default `True`.
        steps: largest number of steps from each start. Default 300.
    """
    trials = table["trials"]
    if isinstance(max_relative_error, str) or not max_relative_error > 0:
        raise ValueError(f"max_relative_error = {max_relative_error!r} must be > 0; 50 % is 0.5.")
    _refuse_without_transition(table, scaled.names)

    def predict(theta, rows):
        probability, excess = law.probability(np, dict(zip(scaled.names, theta)), rows)
        return np.clip(probability, FLOOR, 1 - FLOOR), excess

    wall = max(1e3, math.sqrt(np.sum(trials)))  # steeper than any likelihood

    def residuals(theta, rows, wall=wall):
        probability, excess = predict(theta, rows)
        return np.append(_deviance_residuals(probability, rows), wall * excess)

    def climb(theta, rows):
        # At a steep wall the search gets stuck, so the wall rises step by step.
        for height in (1.0, 10.0, 100.0, wall):
            run = optimize.least_squares(
                residuals,
                theta,
                "3-point",
                (scaled.low, scaled.high),
                x_scale="jac",
                max_nfev=steps,
                args=(rows, height),
            )
            theta = run.x
            if run.fun[-1] == 0:  # a higher wall would change nothing
                break
        return run

    # Far from the transition the likelihood is flat, so the search first compares many starts.
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
        raise ValueError(law.outside(listed(scaled.backward(theta)), table))
    columns = []
    for direction in 1e-5 * np.eye(len(theta)):
        above = np.minimum(theta + direction, scaled.high)
        below = np.maximum(theta - direction, scaled.low)
        rise = predict(above, table)[0] - predict(below, table)[0]
        columns.append(rise / np.sum(above - below))
    jacobian = np.stack(columns, axis=-1)
    weight = trials / (probability * (1 - probability))
    information = (jacobian * weight[:, None]).T @ jacobian
    allowed = max_relative_error * _sizes(scaled, theta, law)
    covariance, weakest = _inverse(information, allowed)
    error = np.sqrt(np.diag(covariance))
    if not np.all(error <= allowed):
        _refuse_undetermined(error, allowed, weakest, scaled, theta, table, law)
    doubts = []
    margin = np.minimum(theta - scaled.low, scaled.high - theta) / (scaled.high - scaled.low)
    bound = [name for name, value in zip(scaled.names, margin) if value < 1e-6]
    for names, what, cure in (
        ([n for n in bound if n in scaled.given], "its bound", "Widen the bounds"),
        ([n for n in bound if n not in scaled.given], "its limit", "Free fewer parameters"),
    ):
        if names:
            doubts.append(
                f"The estimate of {names} lies on {what} ({listed(scaled.backward(theta))}); its "
                f"standard error is not valid. {cure} if the value is not a known limit."
            )
    if excess > 1e-9 and not bound:
        doubts.append(
            f"The estimate ({listed(scaled.backward(theta))}) is the best among curves that rise "
            "with the current, but a curve that falls somewhere would fit better; its standard "
            "errors are not valid. Free other parameters, or keep the fit if it is good enough."
        )
    residual = _deviance_residuals(probability, table)
    return Estimate(
        law, scaled, theta, information, covariance, table, probability, residual, doubts
    )


def condensed(table):
    """A table of at most about 2000 rows, with neighbouring settings pooled, to choose a model."""
    trials = table["trials"]
    if len(trials) <= _SEARCH_ROWS:
        return table
    settings = {name: table[name] for name in table if name not in ("switched", "trials")}
    keys = [np.unique(column, return_inverse=True)[1] for column in settings.values()]
    fine = sum(key.max() > 40 for key in keys) or 1
    bins = int(_SEARCH_ROWS ** (1 / fine))
    keys = [stats.rankdata(k, "min") * bins // (k.size + 1) if k.max() > 40 else k for k in keys]
    _, first, cell = np.unique(np.stack(keys), axis=1, return_index=True, return_inverse=True)
    cell = cell.ravel()
    weight = np.bincount(cell, trials)
    pooled = {
        name: np.bincount(cell, trials * column) / weight
        if column.dtype.kind == "f"
        else column[first]
        for name, column in settings.items()
    }
    return pooled | {"switched": np.bincount(cell, table["switched"]), "trials": weight}


def _sizes(scaled, theta, law):
    """Sizes with which the standard errors are compared, on the scales of the fit."""
    sizes = [4.0 if name in _WIDE else 1.0 for name in scaled.names]
    values = scaled.backward(theta)
    for k, name in enumerate(scaled.names):
        if name == "vcma_coefficient":
            sizes[k] = max(abs(theta[k]), _KNOWN_VCMA)
        if scaled.scales.get(name) == "micro":  # a threshold, or if near 0 the width
            width = 1 / values.get("slope", law.base.slope)
            sizes[k] = max(abs(values[name]), width) / MICRO
    return np.array(sizes)


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
                f"{what}, so the data only limit the threshold and do not determine {names}. "
                f"Add settings with {cure} current until both outcomes occur."
            )
    held, gaps = [], []
    for values, rows in conditions.groups(table):
        held.append(values)
        gaps.append(_gap(conditions.select(table, rows)))
    if None not in gaps:
        values, (width, failed, succeeded) = max(
            zip(held, gaps), key=lambda pair: pair[1][1] - pair[1][2]
        )
        more = conditions.in_words(values, table)
        where = f"{width:g} s" + (f" and {more}" if more else "")
        ends = [f"all fail up to {failed:g} A"] if np.isfinite(failed) else []
        ends += [f"all succeed from {succeeded:g} A on"] if np.isfinite(succeeded) else []
        raise ValueError(
            "At no setting do both outcomes occur, and their ranges of current do not overlap (at "
            f"{where} {' and '.join(ends)}). So the data do not determine {names}: any steeper "
            "transition fits as well. Add settings inside the transition, where both outcomes "
            "occur."
        )
    if len(trials) < len(names):
        raise ValueError(
            f"{len(trials)} settings (rows of the same current and pulse width are one) cannot "
            f"determine {len(names)} parameters {names}. Add settings or free fewer parameters."
        )


def _gap(here):
    """The gap between failures and successes of these rows; `None` if both overlap.

    They overlap if a pulse failed although another pulse, with a current and a width that were not
    larger, succeeded. The gap is a pulse width, the largest current that failed at this or a larger
    width, and the smallest current that succeeded.
    """
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
    """Covariance, huge if the information is singular, and the least determined direction."""
    unit = np.where(np.isfinite(allowed), allowed, 1.0)
    values, vectors = np.linalg.eigh(information * np.outer(unit, unit))
    values = np.maximum(values, max(1e-14 * values[-1], 1e-30))
    return (vectors / values) @ vectors.T * np.outer(unit, unit), vectors[:, 0]


def _refuse_undetermined(errors, allowed, weakest, scaled, theta, table, law):
    """Raises an error that lists too large standard errors and the weakest combination."""

    def in_words(name, error, limit):
        kind = scaled.scales.get(name, "linear")
        if error > 1e3 * max(limit, 1.0):
            return f"the data do not limit {name} at all"
        if kind == "log":
            return f"{name} has a standard error of {error:.0%} (at most {limit:.0%} is accepted)"
        of = f"logit({name})" if kind == "logit" else name
        unit = {"femto": " fJ/(V m)", "micro": " uA"}.get(kind, "")
        return f"{of} has a standard error of {error:.2g}{unit} (at most {limit:.2g} is accepted)"

    problems = [
        in_words(name, error, limit)
        for name, error, limit in zip(scaled.names, errors, allowed)
        if error > limit
    ]
    large = min(0.3, np.max(np.abs(weakest)))
    mixed = [name for name, share in zip(scaled.names, weakest) if abs(share) >= large]
    exchange = (
        f"Changes of the others make up for a change of one of {mixed}. " if len(mixed) > 1 else ""
    )
    fewer = f"one of {mixed}" if len(mixed) > 1 else mixed[0]
    widths = np.unique(table["pulse_width_s"])
    currents = len(np.unique([table["pulse_width_s"], table["current_a"]], axis=1).T)
    where = "gate voltages" if "vcma_coefficient" in mixed else "pulse widths"
    if currents == len(widths):
        where = "currents of the same pulse width"
    equal = ""
    if len(widths) > 1 and widths[-1] < 1.1 * widths[0]:
        equal = " If the widths are measurements of one width, state pulse_width= of read_table."
    inside = int(np.sum((table["switched"] > 0) & (table["switched"] < table["trials"])))
    raise ValueError(
        f"The data do not determine all of {scaled.names}: {'; '.join(problems)}. {exchange}"
        f"The table has {inside} settings with both outcomes, at "
        f"{len(widths)} pulse width(s); the best fit is {listed(scaled.backward(theta))}. "
        f"{law.cure.format(fewer)}, add settings inside the transition or at other {where}, or "
        f"raise max_relative_error.{equal}"
    )
