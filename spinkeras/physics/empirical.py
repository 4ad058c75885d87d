"""Switching curves that are measured, not derived: for devices no macrospin describes.

Domain-wall reversal by spin-orbit torque, back-hopping plateaux or a real device with a shape of
its own follow none of the laws in `spinkeras.physics.laws`. `EmpiricalCurve` describes what was
measured with pulses, `EquilibriumCurve` how often a junction that runs freely was found reversed;
`spinkeras.calibration.fit_empirical` finds both from a table.
"""

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, ClassVar, Self

import keras
import numpy as np

from spinkeras import checks
from spinkeras._typing import Array
from spinkeras.physics import provenance
from spinkeras.physics.curve import RationalLogit, steepest_fall
from spinkeras.physics.device import DeviceLike, MTJDevice, get_device
from spinkeras.physics.presets import CURVES

LEAST_REST = 1e-4
"""Least `d - c^2 / 4`: below, the logit nearly has a pole."""
_TAILS = 1e-2, 1e2  # slope of the logit far from the midpoint over that at the midpoint, b / d

_BY_WIDTH = "0 if it does not depend on pulse width"
_BY_ANISOTROPY = "0 if it does not depend on K_eff"
# field: (unit, lowest, highest, hint)
LIMITS = {
    "threshold": ("A", -1.0, 1.0, "73 uA is 73e-6"),
    "slope": ("1/A", 1e-2, 1e12, "0.03 per uA is 3e4"),
    "a": ("(dimensionless)", -10.0, 10.0, "0 with c = 0 and b = d is the logistic curve"),
    "b": ("(dimensionless)", 1e-3, 100.0, "0.25, as d, is the logistic curve"),
    "c": ("(dimensionless)", -10.0, 10.0, "0 with a = 0 and b = d is the logistic curve"),
    "d": ("(dimensionless)", 1e-3, 100.0, "0.25, as b, is the logistic curve"),
    "floor": ("(a probability)", 0.0, 0.999, "0 if weak pulses never reverse the device"),
    "ceiling": ("(a probability)", 1e-3, 1.0, "1 without back-hopping"),
    "pulse_width": ("s", 1e-11, 1e-2, "2 ns is 2e-9"),
    "threshold_exponent": ("(dimensionless)", -3.0, 3.0, _BY_WIDTH),
    "slope_exponent": ("(dimensionless)", -3.0, 3.0, _BY_WIDTH),
    "anisotropy_exponent": ("(dimensionless)", -3.0, 3.0, "1 if the threshold follows K_eff"),
    "slope_anisotropy_exponent": ("(dimensionless)", -3.0, 3.0, _BY_ANISOTROPY),
}
SHAPE = ("a", "b", "c", "d")
for _name, _most in (*((name, 10.0) for name in SHAPE), ("floor", 5.0), ("ceiling", 5.0)):
    LIMITS[f"{_name}_rate"] = ("(per e-fold)", -_most, _most, _BY_WIDTH)
    LIMITS[f"{_name}_anisotropy_rate"] = ("(per e-fold)", -_most, _most, _BY_ANISOTROPY)
OF_PULSES = {name for name, limits in LIMITS.items() if limits[3] == _BY_WIDTH} | {"pulse_width"}
FREE_LIMITS = {
    "relaxation_time": ("s", 1e-12, 1e3, "10 ns is 10e-9"),
    "relaxation_anisotropy_exponent": (
        "(dimensionless)",
        -50.0,
        50.0,
        "about the thermal stability; 0 if the time does not depend on K_eff",
    ),
}
"""Of the fields that an `EquilibriumCurve` has beside those of an `EmpiricalCurve`."""


@keras.saving.register_keras_serializable(package="spinkeras")
@checks.by_name
@dataclasses.dataclass(frozen=True, kw_only=True)
class EmpiricalCurve:
    """A measured switching curve and its dependence on pulse width and anisotropy.

    With `L_t = ln(t_p / pulse_width)` and `L_K = ln(K_eff / K_eff0)`, `K_eff0` that of the device
    at zero gate voltage, at the current `I` (A) and the pulse width `t_p` (s),

        P  = floor_here + (ceiling_here - floor_here) / (1 + exp(-q)),  y = slope_here (I - I50)
        q  = 4 y (1 + a_here y + b_here y^2) / (1 + c_here y + d_here y^2)

        I50        = threshold exp(threshold_exponent L_t + anisotropy_exponent L_K)       [A]
        slope_here = slope exp(slope_exponent L_t + slope_anisotropy_exponent L_K)         [1/A]

    and in the same way, from `NAME_rate L_t + NAME_anisotropy_rate L_K` for a field NAME,
    `a` and `c` by addition; `ln b` and `ln(d - c^2 / 4)`; `ln(p / (1 - p))` of floor and ceiling.
    Far from `I50` the logit `q` is a straight line, `b / d` times as steep as there. No rate can
    give it a pole (`d <= c^2 / 4`). That the curve rises everywhere is checked at `pulse_width` and
    `K_eff0` only: rates are meant for the range in which they were measured.

    | shape | a | b | c | d |
    |---|---|---|---|---|
    | logistic (default) | 0 | 0.25 | 0 | 0.25 |
    | thermal activation, long foot: `1 - exp(-ln2 exp(2 y / ln2))` | -0.85 | 0.56 | -1.32 | 0.63 |
    | ballistic, long shoulder: `exp(-ln2 exp(-2 y / ln2))` | 0.85 | 0.56 | 1.32 | 0.63 |

    The two last within 0.002.

    As the `switching_curve` of an `MTJDevice` it is that device's law. Given as a switching model,
    `SpinNeuron(device, switching_model=curve)`, it replaces the law of any device, which then
    gives the ranges of the knobs, the resistances and the energies.

    Args:
        threshold: A, -1 to 1. Current halfway from floor to ceiling; 0 or below where the device
            switches without a drive (then its curve does not tell how to reset it, and energies
            are counted without a reset).
        slope: 1/A, 1e-2 to 1e12. Slope there, relative to the distance from floor to ceiling.
        a, c: shape, -10 to 10. Default 0.
        b, d: shape, 1e-3 to 100, `b / d` 0.01 to 100, `d > c^2 / 4`. Default 0.25.
        floor: 0 to 0.999 and below `ceiling`, probability far below the threshold. Default 0.
        ceiling: 1e-3 to 1, probability far above the threshold. Default 1; less with
            back-hopping.
        pulse_width: s, 1e-11 to 1e-2, at which the values above hold.
        threshold_exponent, slope_exponent: power of the pulse width, -3 to 3. Default 0.
        a_rate, b_rate, c_rate, d_rate: change of `a`, `ln b`, `c`, `ln(d - c^2 / 4)` per e-fold of
            pulse width, -10 to 10. Default 0.
        floor_rate, ceiling_rate: change of `logit(floor)`, `logit(ceiling)` per e-fold of pulse
            width, -5 to 5. Default 0. A floor of 0 stays 0, a ceiling of 1 stays 1.
        anisotropy_exponent, slope_anisotropy_exponent: power of `K_eff` over the device's own in
            threshold and slope, -3 to 3. Default 0: the anisotropy knob then has no effect.
        a_anisotropy_rate, b_anisotropy_rate, c_anisotropy_rate, d_anisotropy_rate,
            floor_anisotropy_rate, ceiling_anisotropy_rate: as the rates above, per e-fold of
            `K_eff`. Default 0.
        name, source: free text, not compared by `==`. A copy with other values names them at the
            end of `source`, unless it brings its own.
        origin: leave it out; what `source` is about (`physics.provenance`).

    Raises:
        ValueError: naming the field, its value, its unit, the allowed range and what to check, or
            where a curve would have a pole or fall.

    Example:

    >>> import spinkeras
    >>> from spinkeras import EmpiricalCurve
    >>> curve = EmpiricalCurve(threshold=1.1e-3, slope=7e3, pulse_width=1e-9, ceiling=0.9)
    >>> curve.switching_probability([1.1e-3, 2e-3], 1e-9).round(2)
    array([0.45, 0.9 ])
    """

    free_running: ClassVar[bool] = False

    threshold: float
    slope: float
    a: float = 0.0
    b: float = 0.25
    c: float = 0.0
    d: float = 0.25
    floor: float = 0.0
    ceiling: float = 1.0
    pulse_width: float
    threshold_exponent: float = 0.0
    slope_exponent: float = 0.0
    a_rate: float = 0.0
    b_rate: float = 0.0
    c_rate: float = 0.0
    d_rate: float = 0.0
    floor_rate: float = 0.0
    ceiling_rate: float = 0.0
    anisotropy_exponent: float = 0.0
    slope_anisotropy_exponent: float = 0.0
    a_anisotropy_rate: float = 0.0
    b_anisotropy_rate: float = 0.0
    c_anisotropy_rate: float = 0.0
    d_anisotropy_rate: float = 0.0
    floor_anisotropy_rate: float = 0.0
    ceiling_anisotropy_rate: float = 0.0
    name: str = dataclasses.field(default="", compare=False)
    source: str = dataclasses.field(default="", compare=False)
    origin: Any = dataclasses.field(default=None, repr=False, compare=False)

    def __post_init__(self):
        for field, limits in LIMITS.items():
            object.__setattr__(self, field, checks.number(field, getattr(self, field), *limits))
        for field in ("name", "source"):
            checks.text(field, getattr(self, field))
        self._check_shape()

    def _check_shape(self):
        a, b, c, d = (getattr(self, name) for name in SHAPE)
        if not self.floor < self.ceiling:
            raise ValueError(
                f"floor = {self.floor:g} must be below ceiling = {self.ceiling:g} (probabilities); "
                "the probability rises with the current."
            )
        if d - c**2 / 4 < LEAST_REST:
            raise ValueError(
                f"d = {d:g} must exceed c^2 / 4 = {c**2 / 4:g} by {LEAST_REST:g} or more, or the "
                "curve has a pole; use a larger d or a c nearer to 0."
            )
        if not _TAILS[0] <= b / d <= _TAILS[1]:
            raise ValueError(
                f"b / d = {b:g} / {d:g} = {b / d:g} is outside [{_TAILS[0]:g}, {_TAILS[1]:g}]: "
                "the slope of the logit far from the threshold over that at it, 1 for the logistic "
                "curve. A plateau is described by floor or ceiling."
            )
        fall = steepest_fall(a, b, c, d)
        if fall is not None:
            current = self.threshold + fall / self.slope
            raise ValueError(
                f"a = {a:g}, b = {b:g}, c = {c:g}, d = {d:g} make a curve that falls with the "
                f"current, at {current:.4g} A; a and c nearer to each other, or all nearer to "
                "0, 0.25, 0, 0.25 (the logistic curve), make one that rises."
            )
        provenance.keep(self)

    def __repr__(self):
        """One line: name, threshold and slope at their pulse width, and the two plateaus."""
        named = f"{checks.shown(self.name)}, " if self.name else ""
        return (
            f"{type(self).__name__}({named}threshold {self.threshold:.4g} A, slope "
            f"{self.slope:.4g} 1/A at {self.pulse_width:.3g} s, from {self.floor:.3g} to "
            f"{self.ceiling:.3g})"
        )

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed, validated like a new curve."""
        return dataclasses.replace(self, **changes)

    def get_config(self) -> dict:
        """Fields as a plain dictionary (Keras serialisation)."""
        return provenance.values(self)

    @classmethod
    def from_config(cls, config: dict) -> Self:
        """Inverse of `get_config`; fields that are missing or unknown give a `ValueError`.

        The shape of a curve saved by version 0.1.0 (`log_skew`) becomes the nearest one, to 0.002.
        """
        if not isinstance(config, dict):
            raise ValueError(
                f"A curve is described by a dictionary of fields; got {checks.shown(config)}."
            )
        if not {"log_skew", "log_skew_rate"}.isdisjoint(config):
            config = _without_skew(config)
        return cls(**config)

    @classmethod
    def preset(cls, name: str) -> "EmpiricalCurve":
        """A published curve: `"sot_80nm"`, a spin-orbit-torque junction at 0.75 ns.

        Example: `EmpiricalCurve.preset("sot_80nm").threshold`.
        """
        if not isinstance(name, str) or name not in CURVES:
            raise ValueError(
                f"Unknown curve {checks.shown(name)}. Available curves: {list(CURVES)}."
            )
        return cls(name=name, **CURVES[name])

    def switching_probability(
        self, current: Array, pulse_width: Array, anisotropy_ratio: Array = 1.0
    ) -> Array:
        """Probability that one pulse reverses the device (NumPy).

        Args:
            current: A, scalar or array.
            pulse_width: s, > 0, broadcast against `current`.
            anisotropy_ratio: `K_eff` over the device's own, > 0, broadcast against `current`.
        """
        current, pulse_width, ratio = np.broadcast_arrays(
            *(np.asarray(v, "float64") for v in (current, pulse_width, anisotropy_ratio))
        )
        if not np.all(np.isfinite(pulse_width) & (pulse_width > 0)):
            raise ValueError("pulse_width must be finite and > 0 s; 2 ns is 2e-9.")
        bad = ~(np.isfinite(ratio) & (ratio > 0))
        if np.any(bad):
            raise ValueError(
                f"anisotropy_ratio = {ratio[bad].flat[0]:g} must be finite and > 0; it is K_eff "
                "over the device's own, so 1 at zero gate voltage."
            )
        s = np.log(pulse_width / self.pulse_width)
        curve = curve_at(np, self.fields(), s, np.log(ratio))
        return curve.probability(current - curve.midpoint)

    def curve(self, device: DeviceLike) -> Callable[..., RationalLogit]:
        """The function `(xp, log_duration, stability) -> RationalLogit` of a switching model.

        Its attributes are those of `switching.get_curve`.

        Args:
            device: `MTJDevice` or preset name; sets the dimensionless units.
        """
        device = get_device(device)
        fields = self.fields()
        law, tangents = _laws(self.floor == 0, self.ceiling == 1)
        offset = math.log(device.diffusion_time / self.pulse_width)
        unit = device.critical_current_per_stability
        parameters = (offset, device.thermal_stability, unit, *fields.values())

        def curve(xp, log_duration, stability):
            return law(xp, log_duration, stability, *parameters)

        # See laws.get_curve.
        curve.in_seconds = curve.measured = True  # type: ignore[attr-defined]
        curve.law, curve.tangents = law, tangents  # type: ignore[attr-defined]
        curve.parameters = parameters  # type: ignore[attr-defined]
        return curve

    def fields(self) -> dict:
        """The numbers of the curve by name, those of `floor` and `ceiling` on logit scales.

        As `curve_at` needs them; a logit is infinite where it is certain, a float.
        """
        fields = {name: getattr(self, name) for name in LIMITS}
        floor, ceiling = self.floor, self.ceiling
        fields["floor"] = math.log(floor / (1 - floor)) if floor > 0 else -math.inf
        fields["ceiling"] = math.log(ceiling / (1 - ceiling)) if ceiling < 1 else math.inf
        return fields


@keras.saving.register_keras_serializable(package="spinkeras")
@checks.by_name
@dataclasses.dataclass(frozen=True, kw_only=True)
class EquilibriumCurve(EmpiricalCurve):
    """A measured curve of a junction that runs freely: how often it is found reversed.

    A superparamagnetic junction (a p-bit) needs no pulse and no reset: a current is held, and the
    state is read. `P` is the formula of `EmpiricalCurve` without its pulse width. The bit is a
    random telegraph signal of two states: what it remembers after a time `t` is
    `r = exp(-t / time)`, with activated rates, `S = (P - floor) / (ceiling - floor)` and
    `k = ln(K_eff / K_eff0)`

        time = relaxation_time exp(relaxation_anisotropy_exponent k) 2 (S (1 - S))^(1/2)

    As the `switching_curve` of an `MTJDevice`, or as `switching_model` of a layer, it makes that
    layer free-running as `"equilibrium"` does: `pulses` are reads, the pulse width is the interval
    between them and changes no probability, nothing is reset. A read of the charge `Q` changes the
    probability of a bit in balance by `slope Q / relaxation_time` (linear response); reports warn
    above 0.05.

    Args:
        threshold: A, -1 to 1, of either sign or 0: the current at balance, halfway from floor to
            ceiling.
        slope: 1/A, as in `EmpiricalCurve`; so are `a`, `b`, `c`, `d`, `floor`, `ceiling`, the
            exponents and rates of the anisotropy, `name`, `source` and `origin`.
        relaxation_time: s, 1e-12 to 1e3. Correlation time of the bit at the threshold; of a bit
            with the mean dwell times `t_P` and `t_AP` it is `t_P t_AP / (t_P + t_AP)`.
        relaxation_anisotropy_exponent: power of `K_eff` over the device's own in that time, -50 to
            50. Default 0; about the thermal stability of a macrospin.
        pulse_width: leave it out, and so all exponents and rates of the pulse width.

    Raises:
        ValueError: as `EmpiricalCurve`; for a dependence on the pulse width.

    Example:

    >>> from spinkeras import EquilibriumCurve, SpinNeuron
    >>> curve = EquilibriumCurve(threshold=-0.8e-6, slope=0.4e6, relaxation_time=120e-9)
    >>> curve.switching_probability([-0.8e-6, 0.0]).round(2)
    array([0.5 , 0.78])
    >>> SpinNeuron("smtj_reference", switching_model=curve).free_running
    True

    Reference: K. Y. Camsari, R. Faria, B. M. Sutton, S. Datta, Phys. Rev. X 7, 031014 (2017).
    """

    free_running: ClassVar[bool] = True

    pulse_width: float = 1e-6
    relaxation_time: float
    relaxation_anisotropy_exponent: float = 0.0

    def __post_init__(self):
        for field, limits in FREE_LIMITS.items():
            object.__setattr__(self, field, checks.number(field, getattr(self, field), *limits))
        for name in sorted(OF_PULSES):
            value = getattr(self, name)
            if value != getattr(type(self), name):
                raise ValueError(
                    f"{name} = {checks.shown(value)}: what a junction that runs freely answers "
                    "depends on no pulse width; leave it out, or describe a device that is written "
                    "by pulses with EmpiricalCurve."
                )
        super().__post_init__()

    def __repr__(self):
        """One line: name, threshold, slope, the two plateaus and the relaxation time."""
        named = f"{checks.shown(self.name)}, " if self.name else ""
        return (
            f"{type(self).__name__}({named}threshold {self.threshold:.4g} A, slope "
            f"{self.slope:.4g} 1/A, from {self.floor:.3g} to {self.ceiling:.3g}, relaxation "
            f"{self.relaxation_time:.3g} s)"
        )

    def switching_probability(
        self, current: Array, pulse_width: Array = 1e-6, anisotropy_ratio: Array = 1.0
    ) -> Array:
        """Probability to find the junction reversed (NumPy).

        Args:
            current: A, scalar or array.
            pulse_width: changes nothing.
            anisotropy_ratio: `K_eff` over the device's own, > 0, broadcast against `current`.
        """
        return super().switching_probability(current, pulse_width, anisotropy_ratio)

    def correlation_time(self, current: Array, anisotropy_ratio: Array = 1.0) -> Array:
        """Time in s in which the bit forgets, see the class (NumPy).

        Args:
            current: A, scalar or array.
            anisotropy_ratio: `K_eff` over the device's own, > 0, broadcast against `current`.
        """
        plain = self.replace(floor=0.0, ceiling=1.0)
        share = plain.switching_probability(current, anisotropy_ratio=anisotropy_ratio)
        at_rest = np.power(anisotropy_ratio, self.relaxation_anisotropy_exponent)
        return self.relaxation_time * at_rest * 2 * np.sqrt(share * (1 - share))

    def curve(self, device: DeviceLike) -> Callable[..., RationalLogit]:
        """As `EmpiricalCurve.curve`, with the `telegraph` of a free-running junction."""
        curve = super().curve(device)
        curve.telegraph = _Telegraph(self, get_device(device))  # type: ignore[attr-defined]
        return curve


@dataclasses.dataclass(frozen=True)
class _Telegraph:
    """As `equilibrium.Telegraph`, of a measured junction."""

    law: EquilibriumCurve
    device: MTJDevice

    def correlation_time(self, xp, curve, z, stability):
        """Of two states with activated rates: `1 / cosh` of half the logit, times that at rest."""
        share = curve._replace(floor=0.0, ceiling=1.0).probability(z)
        return self._at_rest(xp, stability) * 2 * xp.sqrt(share * (1 - share))

    def relaxation_time(self, stability):
        """At balance, in s (NumPy)."""
        return self._at_rest(np, stability)

    def _at_rest(self, xp, stability):
        ratio = stability / self.device.thermal_stability
        power = self.law.relaxation_anisotropy_exponent
        return self.law.relaxation_time * xp.exp(power * xp.log(ratio))

    @property
    def push(self):
        """As `equilibrium.Telegraph.push`; not known of a current beside the junction."""
        if self.device.write_resistance is not None:
            return math.nan
        slope = self.law.slope * (self.law.ceiling - self.law.floor)
        return 2 * slope / self.law.relaxation_time


# field of a RationalLogit: what changes it with the pulse width and with the anisotropy
_RATES = {
    "midpoint": ("threshold_exponent", "anisotropy_exponent"),
    "steepness": ("slope_exponent", "slope_anisotropy_exponent"),
} | {name: (f"{name}_rate", f"{name}_anisotropy_rate") for name in (*SHAPE, "floor", "ceiling")}


def curve_at(xp, fields, s, log_ratio, unit=1.0) -> RationalLogit:
    """The curve at one pulse width and anisotropy, over the current in `unit` (A).

    Args:
        xp: `numpy` or `keras.ops`.
        fields: as `EmpiricalCurve.fields`, numbers or tensors.
        s: logarithm of the pulse width over the curve's, an array or tensor.
        log_ratio: logarithm of `K_eff` over the device's own, same shape.
        unit: A.
    """
    # Rates of 0 stay in the sums: a knob without effect has the gradient 0, not none.
    change = {
        name: fields[by_width] * s + fields[by_ratio] * log_ratio
        for name, (by_width, by_ratio) in _RATES.items()
    }

    def plateau(name):
        logit = fields[name]
        if isinstance(logit, float) and math.isinf(logit):
            return float(logit > 0)
        return 1 / (1 + xp.exp(-(logit + change[name])))

    c = fields["c"] + change["c"]
    return RationalLogit(
        midpoint=(fields["threshold"] / unit) * xp.exp(change["midpoint"]),
        steepness=(fields["slope"] * unit) * xp.exp(change["steepness"]),
        a=fields["a"] + change["a"],
        b=fields["b"] * xp.exp(change["b"]),
        c=c,
        d=c * c / 4 + (fields["d"] - fields["c"] * fields["c"] / 4) * xp.exp(change["d"]),
        floor=plateau("floor"),
        ceiling=plateau("ceiling"),
    )


@functools.cache
def _laws(no_floor, no_ceiling):
    """`law` and `tangents` of `switching.get_curve`, the same for all such measured curves."""

    def fields_of(values):
        fields = dict(zip(LIMITS, values))
        if no_floor:
            fields["floor"] = -math.inf
        if no_ceiling:
            fields["ceiling"] = math.inf
        return fields

    def law(xp, log_duration, stability, offset, own_stability, unit, *values):
        log_ratio = xp.log(stability / own_stability)
        return curve_at(xp, fields_of(values), log_duration + offset, log_ratio, unit)

    def tangents(xp, log_duration, stability, *parameters):
        here, fields = law(xp, log_duration, stability, *parameters), fields_of(parameters[3:])
        return here, _tangents(xp, here, fields)

    return law, tangents


def _tangents(xp, curve, fields) -> RationalLogit:
    """Derivatives of the numbers of `curve` by the logarithms of pulse width and anisotropy."""

    def times(factor, field):
        return xp.stack([factor * fields[name] for name in _RATES[field]])

    one, rest = 1 + 0 * curve.a, curve.d - curve.c * curve.c / 4
    return RationalLogit(
        midpoint=times(curve.midpoint, "midpoint"),
        steepness=times(curve.steepness, "steepness"),
        a=times(one, "a"),
        b=times(curve.b, "b"),
        c=times(one, "c"),
        d=times(rest, "d") + times(curve.c / 2, "c"),
        floor=times(curve.floor * (1 - curve.floor) * one, "floor"),
        ceiling=times(curve.ceiling * (1 - curve.ceiling) * one, "ceiling"),
    )


# The shape (a, ln b, c, ln(d - c^2/4)) that is nearest to (1 - exp(-E exp(z)))^C, the curve of
# version 0.1.0: powers of ln(1 + ln C) / ln 18, fitted to P over ln C of 0 to 17 (off by 0.002).
_OF_SKEW = np.array(
    [
        [-0.85, 1.11, 2.09, -1.60],
        [-0.58, -2.68, 4.27, -1.75],
        [-1.32, 2.12, 2.52, -2.21],
        [-1.62, -5.48, 7.94, -2.95],
    ]
)


def _without_skew(config):
    """A configuration of version 0.1.0 with the nearest shape of today."""
    config = dict(config)
    skew, rate = (
        checks.number(name, config.pop(name, default), "(version 0.1.0)", *limits)
        for name, default, limits in (("log_skew", 2.5, (0, 17)), ("log_skew_rate", 0.0, (-99, 99)))
    )
    clash = sorted(set(SHAPE) & set(config))
    if clash:
        raise ValueError(
            f"log_skew = {skew:g} is the shape of version 0.1.0 and must come without {clash}."
        )
    x = math.log1p(skew) / math.log(18)
    a, log_b, c, log_rest = _OF_SKEW @ x ** np.arange(4)
    config |= {"a": a, "b": math.exp(log_b), "c": c, "d": math.exp(log_rest) + c**2 / 4}
    speed = rate / ((1 + skew) * math.log(18))
    rates = _OF_SKEW[:, 1:] @ (np.arange(1, 4) * x ** np.arange(3)) * speed
    return config | {f"{name}_rate": float(v) for name, v in zip(SHAPE, rates)}
