"""The family of switching curves: a logistic function `S` of a logit `q`, which is rational.

    P(h) = floor + (ceiling - floor) S(q(y)),   S(q) = 1 / (1 + exp(-q)),   y = s (h - h50)
    q(y) = 4 y (1 + a y + b y^2) / (1 + c y + d y^2)

All numbers are dimensionless; `h` is the drive (the scaled current). `h50` is the midpoint of `S`,
and `s` is its slope `dS/dh` there, because `q'(0) = 4`. The numbers `a, b, c, d` set the shape;
`a = c = 0, b = d` gives the logistic curve. Far from the midpoint the logit is a straight line of
slope `4 b / d`. The denominator has no root if `d > c^2 / 4`.
"""

from typing import Any, NamedTuple

import numpy as np
from keras import ops

FARTHEST = 1e4
"""Limit of `|y|`; beyond it the curve is flat in every precision."""


class RationalLogit(NamedTuple):
    """One curve of the family, or many curves: every number may be an array or a tensor.

    Attributes:
        midpoint: `h50`.
        steepness: `s`.
        a, b, c, d: numbers of the shape.
        floor, ceiling: probability far below and far above the midpoint.
    """

    midpoint: Any
    steepness: Any
    a: Any
    b: Any
    c: Any
    d: Any
    floor: Any = 0.0
    ceiling: Any = 1.0

    @property
    def slope(self):
        """`dP/dh` at the midpoint."""
        return (self.ceiling - self.floor) * self.steepness

    def probability(self, distance):
        """`P` at `h = midpoint + distance`; `distance` may be infinite, and NaN stays NaN."""
        xp = ops if ops.is_tensor(distance) or ops.is_tensor(self.steepness) else np
        reach = FARTHEST / self.steepness
        if xp is ops:  # no gradient through the limit, where it would be infinity times 0
            reach = ops.stop_gradient(ops.convert_to_tensor(reach))
        y = self.steepness * xp.minimum(xp.maximum(distance, -reach), reach)
        logit = 4 * y * (1 + y * (self.a + y * self.b)) / (1 + y * (self.c + y * self.d))
        return self.floor + (self.ceiling - self.floor) * _logistic(xp, logit)


def _logistic(xp, logit):
    if xp is ops:
        return ops.sigmoid(logit)
    half = np.exp(-np.abs(logit))  # never overflows
    return np.where(logit < 0, half, 1.0) / (1 + half)


def steepest_fall(a, b, c, d):
    """`y` at which the curve falls most, or `None` if it rises everywhere; for plain numbers.

    `D^2 q' / 4 = 1 + 2 a y + (3 b + a c - d) y^2 + 2 b c y^3 + b d y^4` with the denominator `D`.
    This polynomial is positive everywhere if it is positive at its extrema. Needs `b, d > 0`.
    """
    powers = b * d, 2 * b * c, 3 * b + a * c - d, 2 * a, 1.0
    # The real part of a complex root is no extremum, but one more test point does no harm.
    turns = np.roots(np.polyder(powers)).real
    growth = np.polyval(powers, turns)
    return None if np.min(growth) > 0 else float(turns[np.argmin(growth)])
