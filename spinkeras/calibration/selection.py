"""Chooses the parameters of a curve's shape, and adds the uncertainty of this choice."""

import math

import numpy as np

_LEAST_GAIN = 10.8
"""A further parameter must reduce the deviance by this; chance does so in 1 of 1000 tables."""


def stepwise(fit_with, names, start, fit, fixed):
    """The estimate with `names` and further shape parameters that improve the fit enough.

    Parameters are added, removed or exchanged one at a time as long as the sum of the deviance and
    `_LEAST_GAIN` per parameter falls. An estimate that lies on a limit, or that rises as little as
    is allowed, counts as one parameter more. A set of parameters is left out if the data do not
    determine all of them.

    Args:
        fit_with: function `(names, start) -> Estimate`.
        names: parameters that are always fitted.
        start: start values of the further parameters.
        fit: the fit with only `names`, perhaps of the same table before it was condensed.
        fixed: names of parameters that are not fitted.

    Returns:
        The `Estimate`, and a list of estimates with further parameters.
    """
    # name: parameters that it needs. Alone, `a` does much the same as `c`, and `d` as `b`.
    needs = {"c": set(), "a": {"c"}, "b": set(), "d": {"b"}, "ceiling": set(), "floor": set()}
    able = [name for name in needs if name not in fixed]
    estimates, scores = {}, {}

    def attempt(extra, nearby):
        scores[extra] = math.inf
        try:
            found = fit_with([*names, *sorted(extra)], start | nearby.parameters)
        except ValueError:  # the data do not determine the parameters
            return
        if extra.isdisjoint(("floor", "ceiling")) or _reaches(found, fixed):
            estimates[extra] = found
            scores[extra] = found.deviance + _LEAST_GAIN * (len(extra) + bool(found.doubts))

    def improve(chosen):
        """A better set one parameter away or, if none is better, one exchange away."""
        # If a floor and a ceiling lie at equal distances from 1/2, one alone improves nothing.
        singles = [*({name} for name in able), {"floor", "ceiling"} & {*able}]
        swaps = [{name, other} for name in chosen for other in able if other not in chosen]
        for moves in (singles, swaps):
            for extra in (chosen ^ move for move in moves):
                allowed = all(needs[name] <= extra for name in extra)
                if allowed and extra not in scores and len(names) + len(extra) < len(fit.residuals):
                    attempt(extra, estimates[chosen])
            best = min(scores, key=scores.__getitem__)
            if best != chosen:
                break
        return best

    chosen = frozenset()
    attempt(chosen, fit)
    while chosen in estimates and (better := improve(chosen)) != chosen:
        chosen = better
    richer = [found for extra, found in estimates.items() if extra > chosen]
    return estimates.get(chosen, fit), richer


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
