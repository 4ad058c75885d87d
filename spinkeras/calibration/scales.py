"""The scales on which parameters are fitted, and the free parameters of a fit on them.

Positive parameters are fitted on a logarithmic scale, floor and ceiling on a logit scale, and a
threshold of either sign in uA.
"""

import dataclasses

import numpy as np
from scipy import special

from spinkeras import checks
from spinkeras.physics.device import LIMITS

FEMTO = 1e-15
MICRO = 1e-6
_EPSILON = 1e-6  # a fitted probability is at least this far from 0 and 1

# name: scale on which a parameter is fitted; all other parameters have a linear scale
SCALES = {name: "log" for name in (*LIMITS, "threshold", "slope", "b", "d")}
SCALES |= {"floor": "logit", "ceiling": "logit", "vcma_coefficient": "femto"}
SIGNED = SCALES | {"threshold": "micro"}
"""Like `SCALES`, but for thresholds of either sign."""
_FORWARD = {"log": np.log, "logit": special.logit}
_FORWARD |= {"femto": lambda v: v / FEMTO, "micro": lambda v: v / MICRO}
_BACKWARD = {"log": np.exp, "logit": special.expit}
_BACKWARD |= {"femto": lambda t: t * FEMTO, "micro": lambda t: t * MICRO}
_DERIVATIVE = {"log": lambda v: v, "logit": lambda v: v * (1 - v)}
_DERIVATIVE |= {"femto": lambda v: FEMTO, "micro": lambda v: MICRO}


@dataclasses.dataclass(frozen=True)
class Scaled:
    """Free parameters with their scales, and bounds `low` and `high` on these scales.

    `near` is the box in which a search starts. `given` has the names of parameters with bounds from
    the caller. `scales` is `SCALES` or `SIGNED`.
    """

    names: list[str]
    low: np.ndarray
    high: np.ndarray
    near: tuple[np.ndarray, np.ndarray]
    given: frozenset = frozenset()
    scales: dict = dataclasses.field(default_factory=lambda: SCALES)

    @classmethod
    def of(cls, owner, free, default, limits, near=None, scales=SCALES):
        """The free parameters from the caller's `free`.

        Args:
            owner: name of the class of the fields.
            free: names or `{name: (lowest, highest)}`.
            default: bounds by name of all fields that can be fitted.
            limits: limits of the fields, as in the dataclasses.
            near: box in which the search starts, by name, for fields with a box inside the bounds.
            scales: `SCALES` or `SIGNED`.
        """
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
            low, high = (checks.number(f"free[{name!r}]", end, unit, hint=hint) for end in pair)
            if not lowest <= low < high <= highest:
                raise ValueError(
                    f"free[{name!r}] = ({low:g}, {high:g}) must be increasing bounds within "
                    f"[{lowest:g}, {highest:g}] ({unit}; {hint})."
                )
            if scales.get(name) == "logit":
                low, high = max(low, _EPSILON), min(high, 1 - _EPSILON)
            start = np.clip((near or {}).get(name, (low, high)), low, high)
            ends.append((low, high, *start))
        bare = cls(names, None, None, None, scales=scales)
        low, high, *near = (bare.forward(column) for column in zip(*ends))
        given = frozenset(free if isinstance(free, dict) else ())
        return cls(names, low, high, tuple(near), given, scales)

    def forward(self, values):
        kinds = map(self.scales.get, self.names)
        return np.array([_FORWARD.get(kind, float)(v) for kind, v in zip(kinds, values)])

    def backward(self, theta):
        """Values in SI units by name; the last axis of `theta` holds the parameters."""
        return {
            name: _BACKWARD.get(self.scales.get(name), np.asarray)(theta[..., k])
            for k, name in enumerate(self.names)
        }

    def derivative(self, theta):
        """Derivatives of the values with respect to `theta`."""
        values = self.backward(theta)
        return np.array(
            [_DERIVATIVE.get(self.scales.get(n), lambda v: 1.0)(v) for n, v in values.items()]
        )
