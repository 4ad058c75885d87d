"""Chooses the parameters of a curve's shape, and adds the uncertainty of this choice."""

import math
import warnings

import numpy as np

_LEAST_GAIN = 10.8
"""A further parameter must reduce the deviance by this; chance does so in 1 of 1000 tables."""


def stepwise(fit_with, names, start, fit, fixed):
    """The estimate with `names` and further shape parameters that improve the fit enough.

    Parameters are added or removed one at a time as long as the sum of the deviance and
    `_LEAST_GAIN` per parameter falls. A set of parameters is left out if the data do not determine
    all of them or if an estimate lies on a limit.

    Args:
        fit_with: function `(names, start) -> Estimate`.
        names: parameters that are always fitted.
        start: start values of the further parameters.
        fit: the fit with only `names`, perhaps of the same table before it was condensed.
        fixed: names of parameters that are not fitted.

    Returns:
        The `Estimate`, and a list of estimates with one parameter more.
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

    # name: parameters that it needs. Alone, `a` does much the same as `c`, and `d` as `b`.
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
    """Whether the table comes within a tenth of the curve's height of every fitted plateau.

    A plateau far from all rows is an extrapolation of the shape, and it shifts the threshold.
    """
    p = fit.probability
    floor, ceiling = ((fit.parameters | fixed).get(n, v) for n, v in (("floor", 0), ("ceiling", 1)))
    near = 0.1 * (ceiling - floor)
    return not ("ceiling" in fit.parameters and np.max(p) < ceiling - near) and not (
        "floor" in fit.parameters and np.min(p) > floor + near
    )


def covariance_of_choice(fit, richer):
    """The covariance to add to an estimate because another shape may be the right one.

    Each shape has an estimate `theta` and an Akaike weight `w ~ exp(-(deviance + 2 numbers) / 2)`,
    where `numbers` is its number of parameters. With all shapes, including that of `fit`, the
    covariance about `fit` is

        sum of  w (covariance + (theta - theta_fit) (theta - theta_fit)^T)

    Reference: S. T. Buckland, K. P. Burnham and N. H. Augustin, Biometrics 53, 603 (1997).

    Args:
        fit: `Estimate` of the chosen shape.
        richer: estimates of the shapes with further parameters.
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
    values, vectors = np.linalg.eigh(lack)  # a richer shape never reduces the uncertainty
    return (vectors * np.maximum(values, 0)) @ vectors.T
