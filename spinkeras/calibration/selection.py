"""Which numbers the shape of a curve has, and what not knowing them adds to the errors."""

import math
import warnings

import numpy as np

_LEAST_GAIN = 10.8
"""Deviance that a number of the curve must save: chance does that once in 1000 tables."""


def stepwise(fit_with, names, start, fit, fixed):
    """The estimate with those numbers of the curve free, beyond `names`, that are worth it.

    Numbers are added or taken away one at a time as long as the deviance plus `_LEAST_GAIN` per
    number falls. What the data do not determine, or leave on a limit, does not count.

    Args:
        fit_with: function `(names, start) -> Estimate`.
        names: what is fitted in any case.
        start: values at which to start what is added.
        fit: the fit with `names` alone, perhaps of the same table before it was condensed.
        fixed: names that stay as they are.

    Returns:
        The `Estimate`, and a list of those with one number more.
    """

    def attempt(extra, nearby):
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", UserWarning)
                fit = fit_with([*names, *sorted(extra)], start | nearby.parameters)
        except (ValueError, UserWarning):
            return math.inf, None
        if not extra.isdisjoint(("floor", "ceiling")) and not _reaches(fit, fixed):
            return math.inf, None
        return fit.deviance + _LEAST_GAIN * len(extra), fit

    # `a` alone is much like `c` alone, `d` alone like `b` alone
    needs = {"c": set(), "a": {"c"}, "b": set(), "d": {"b"}, "ceiling": set(), "floor": set()}
    chosen = frozenset()
    known = {chosen: attempt(chosen, fit)}
    while math.isfinite(known[chosen][0]):
        fit = known[chosen][1]
        for extra in (chosen ^ {name} for name in needs if name not in fixed):
            allowed = all(needs[name] <= extra for name in extra)
            if allowed and extra not in known and len(names) + len(extra) < len(fit.residuals):
                known[extra] = attempt(extra, fit)
        best = min(known, key=lambda extra: known[extra][0])
        if best == chosen:
            break
        chosen = best
    richer = [found for extra, (_, found) in known.items() if found and extra > chosen]
    return fit, richer


def _reaches(fit, fixed):
    """Whether the table reaches the plateaus that were fitted, within a tenth of the curve.

    One that no row comes near is an extrapolation of the shape, and moves the threshold.
    """
    p = fit.probability
    floor, ceiling = ((fit.parameters | fixed).get(n, v) for n, v in (("floor", 0), ("ceiling", 1)))
    near = 0.1 * (ceiling - floor)
    return not ("ceiling" in fit.parameters and np.max(p) < ceiling - near) and not (
        "floor" in fit.parameters and np.min(p) > floor + near
    )


def covariance_of_choice(fit, richer):
    """What the covariance of an estimate lacks because another shape may be the right one.

    With the Akaike weights `w ~ exp(-(deviance + 2 numbers) / 2)` of the estimates `theta` of all
    shapes, `fit` among them, the covariance about `fit` is

        sum of  w (covariance + (theta - theta_fit) (theta - theta_fit)^T)

    Reference: S. T. Buckland, K. P. Burnham and N. H. Augustin, Biometrics 53, 603 (1997).

    Args:
        fit: `Estimate` of the chosen shape.
        richer: those of shapes with further numbers.
    """
    shapes = [fit, *richer]
    score = np.array([shape.deviance + 2 * len(shape.theta) for shape in shapes])
    weights = np.exp((np.min(score) - score) / 2)
    lack = np.zeros_like(fit.covariance)
    for weight, shape in zip(weights / np.sum(weights), shapes):
        own = [shape.scaled.names.index(name) for name in fit.scaled.names]
        off = shape.theta[own] - fit.theta
        more = shape.covariance[np.ix_(own, own)] - fit.covariance
        lack += weight * (more + np.outer(off, off))
    values, vectors = np.linalg.eigh(lack)  # a richer shape never makes more known
    return (vectors * np.maximum(values, 0)) @ vectors.T
