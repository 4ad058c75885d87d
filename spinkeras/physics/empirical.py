"""Measured switching curves, for devices that no macrospin describes.

The laws in `spinkeras.physics.laws` do not cover domain-wall reversal by spin-orbit torque,
plateaus from back-hopping, or devices whose curve has another shape. An `EmpiricalCurve` describes
a measurement with pulses. An `EquilibriumCurve` describes how often a junction that runs freely is
found reversed. `spinkeras.calibration.fit_empirical` fits both to a table.
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
"""Least `d - c^2 / 4`. With a smaller value the logit nearly has a pole."""
_TAILS = 1e-2, 1e2  # range of b / d: slope of the logit far from the midpoint over the slope there

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
"""Limits of the fields that only an `EquilibriumCurve` has, not an `EmpiricalCurve`."""


@keras.saving.register_keras_serializable(package="spinkeras")
@checks.by_name
@dataclasses.dataclass(frozen=True, kw_only=True)
class EmpiricalCurve:
    """A measured switching curve and its dependence on pulse width and anisotropy.

    `K_eff0` is the anisotropy of the device at zero gate voltage. With
    `L_t = ln(t_p / pulse_width)` and `L_K = ln(K_eff / K_eff0)`, the switching probability at the
    current `I` (A) and the pulse width `t_p` (s) is

        P  = floor_here + (ceiling_here - floor_here) / (1 + exp(-q)),  y = slope_here (I - I50)
        q  = 4 y (1 + a_here y + b_here y^2) / (1 + c_here y + d_here y^2)

        I50        = threshold exp(threshold_exponent L_t + anisotropy_exponent L_K)       [A]
        slope_here = slope exp(slope_exponent L_t + slope_anisotropy_exponent L_K)         [1/A]

    The other fields change by `NAME_rate L_t + NAME_anisotropy_rate L_K`, where NAME is the field.
    This sum is added to `a`, `c`, `ln b`, `ln(d - c^2 / 4)`, and to `ln(p / (1 - p))` of the floor
    and of the ceiling `p`. Far from `I50` the logit `q` is a straight line, `b / d` times as steep
    as at `I50`. No rate can give the logit a pole (`d <= c^2 / 4`). The class checks only at
    `pulse_width` and `K_eff0` that the curve rises everywhere: use rates only in the range in which
    they were measured.

    | shape | a | b | c | d |
    |---|---|---|---|---|
    | logistic (default) | 0 | 0.25 | 0 | 0.25 |
    | thermal activation, long foot: `1 - exp(-ln2 exp(2 y / ln2))` | -0.85 | 0.56 | -1.32 | 0.63 |
    | ballistic, long shoulder: `exp(-ln2 exp(-2 y / ln2))` | 0.85 | 0.56 | 1.32 | 0.63 |

    The last two shapes agree with their formulas to within 0.002.

    As the `switching_curve` of an `MTJDevice`, the curve is the law of this device. As a switching
    model, `SpinNeuron(device, switching_model=curve)`, the curve replaces the law of any device.
    The device then only gives the ranges of the knobs, the resistances and the energies.

    Args:
        threshold: A, -1 to 1. Current at which the probability is halfway from floor to ceiling.
            The threshold of a device that switches without a drive is 0 or below. The curve of such
            a device does not describe a reset, and energies are computed without a reset.
        slope: 1/A, 1e-2 to 1e12. Slope of the curve at the threshold, divided by
            `ceiling - floor`.
        a, c: shape, -10 to 10. Default 0.
        b, d: shape, 1e-3 to 100, with `b / d` from 0.01 to 100 and `d > c^2 / 4`. Default 0.25.
        floor: 0 to 0.999 and below `ceiling`, probability far below the threshold. Default 0.
        ceiling: 1e-3 to 1, probability far above the threshold. Default 1; devices with
            back-hopping have less.
        pulse_width: s, 1e-11 to 1e-2. Pulse width at which the values above hold.
        threshold_exponent, slope_exponent: power of the pulse width, -3 to 3. Default 0.
        a_rate, b_rate, c_rate, d_rate: change of `a`, `ln b`, `c`, `ln(d - c^2 / 4)` per e-fold of
            pulse width, -10 to 10. Default 0.
        floor_rate, ceiling_rate: change of `logit(floor)`, `logit(ceiling)` per e-fold of pulse
            width, -5 to 5. Default 0. A floor of 0 stays 0, a ceiling of 1 stays 1.
        anisotropy_exponent, slope_anisotropy_exponent: power of `K_eff / K_eff0` in the threshold
            and the slope, -3 to 3. Default 0: the anisotropy knob then has no effect.
        a_anisotropy_rate, b_anisotropy_rate, c_anisotropy_rate, d_anisotropy_rate,
            floor_anisotropy_rate, ceiling_anisotropy_rate: as the rates above, per e-fold of
            `K_eff`. Default 0.
        name, source: free text, not compared by `==`. A copy with other values names them at the
            end of `source`, unless it has its own text.
        origin: leave it out. The class keeps the values here that `source` describes
            (`physics.provenance`).

    Raises:
        ValueError: for a value outside its range (the message names the field, its unit, the range
            and what to check), and for a curve that has a pole or falls with the current.

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
                f"b / d = {b:g} / {d:g} = {b / d:g} is outside [{_TAILS[0]:g}, {_TAILS[1]:g}]. "
                "This is the slope of the logit far from the threshold, divided by its slope at "
                "the threshold; it is 1 for the logistic curve. Describe a plateau by floor or "
                "ceiling."
            )
        fall = steepest_fall(a, b, c, d)
        if fall is not None:
            current = self.threshold + fall / self.slope
            raise ValueError(
                f"a = {a:g}, b = {b:g}, c = {c:g}, d = {d:g} make a curve that falls with the "
                f"current, at {current:.4g} A. For a curve that rises, bring a and c nearer to "
                "each other, or all four nearer to 0, 0.25, 0, 0.25 (the logistic curve)."
            )
        provenance.keep(self)

    def __repr__(self):
        """One line: name, threshold and slope at their pulse width, and the two plateaus."""
        return self._in_one_line(at=f" at {self.pulse_width:.3g} s")

    def _in_one_line(self, at="", more=""):
        named = f"{checks.shown(self.name)}, " if self.name else ""
        return (
            f"{type(self).__name__}({named}threshold {self.threshold:.4g} A, slope "
            f"{self.slope:.4g} 1/A{at}, from {self.floor:.3g} to {self.ceiling:.3g}{more})"
        )

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed, validated like a new curve.

        Args:
            **changes: fields by name, in SI units.

        Raises:
            ValueError: for an unknown field, and a value outside its range.

        Example:

        >>> from spinkeras import EmpiricalCurve
        >>> EmpiricalCurve.preset("sot_80nm").replace(ceiling=0.98).ceiling
        0.98
        """
        return dataclasses.replace(self, **changes)

    def get_config(self) -> dict:
        """Fields as a plain dictionary (Keras serialisation).

        Example:

        >>> from spinkeras import EmpiricalCurve
        >>> curve = EmpiricalCurve.preset("sot_80nm")
        >>> EmpiricalCurve.from_config(curve.get_config()) == curve
        True
        """
        return provenance.values(self)

    @classmethod
    def from_config(cls, config: dict) -> Self:
        """Inverse of `get_config`; fields that are missing or unknown give a `ValueError`.

        A curve saved by version 0.1.0 has a `log_skew`. It becomes the nearest shape of today,
        whose probabilities agree within 0.002.

        Args:
            config: dictionary of fields, as `get_config` returns it.

        Raises:
            ValueError: for a missing or unknown field, and a value outside its range.
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

        Args:
            name: name of the curve.

        Raises:
            ValueError: for another name; the error lists the known ones.

        Example:

        >>> from spinkeras import EmpiricalCurve
        >>> round(EmpiricalCurve.preset("sot_80nm").threshold * 1e3, 2)  # mA
        1.16
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
                Default 1.

        Raises:
            ValueError: for a value that is not a number, and a width or ratio that is not above 0.

        Example:

        >>> import numpy as np
        >>> from spinkeras import EmpiricalCurve
        >>> curve = EmpiricalCurve.preset("sot_80nm")
        >>> current = curve.threshold * np.array([0.95, 1.0, 1.05])
        >>> curve.switching_probability(current, 0.75e-9).round(2)
        array([0.14, 0.5 , 0.86])
        """
        curve, z, _ = self._at(current, pulse_width, anisotropy_ratio)
        return curve.probability(z)

    def _at(self, current, pulse_width, anisotropy_ratio):
        """The curve at these settings, the distance from its midpoint in A, and `ln(ratio)`."""
        given = (
            checks.values("current", current, "A"),
            checks.values("pulse_width", pulse_width, "s"),
            checks.values("anisotropy_ratio", anisotropy_ratio, "(K_eff over the device's own)"),
        )
        current, pulse_width, ratio = np.broadcast_arrays(
            *(np.asarray(v, "float64") for v in given)
        )
        if not np.all(np.isfinite(pulse_width) & (pulse_width > 0)):
            raise ValueError("pulse_width must be finite and > 0 s; 2 ns is 2e-9.")
        bad = ~(np.isfinite(ratio) & (ratio > 0))
        if np.any(bad):
            raise ValueError(
                f"anisotropy_ratio = {ratio[bad].flat[0]:g} must be finite and > 0; it is K_eff "
                "over the device's own, so 1 at zero gate voltage."
            )
        log_ratio = np.log(ratio)
        curve = curve_at(np, self.fields(), np.log(pulse_width / self.pulse_width), log_ratio)
        return curve, current - curve.midpoint, log_ratio

    def curve(self, device: DeviceLike) -> Callable[..., RationalLogit]:
        """The function `(xp, log_duration, stability) -> RationalLogit` of a switching model.

        Its attributes are those of `laws.get_curve`.

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
        """The numbers of the curve by name, as `curve_at` needs them.

        `floor` and `ceiling` become logits. The logit of a floor of 0 or a ceiling of 1 is an
        infinite float.
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

    A superparamagnetic junction (a p-bit) needs no pulse and no reset: the circuit holds a current
    and reads the state. `P`, the probability to find the junction reversed, is the formula of
    `EmpiricalCurve` without the pulse width. The bit is a random telegraph signal of two states.
    Two bits a time `t` apart have the correlation `r = exp(-t / time)`. For activated rates, with
    `S = (P - floor) / (ceiling - floor)` and `k = ln(K_eff / K_eff0)`,

        time = relaxation_time exp(relaxation_anisotropy_exponent k) 2 (S (1 - S))^(1/2)

    A layer runs freely, as with `"equilibrium"`, if this curve is the `switching_curve` of its
    `MTJDevice` or its `switching_model`. `pulses` are then reads. The pulse width is the interval
    between reads and changes no probability. Nothing is reset. A read of the charge `Q` changes the
    probability of a bit in balance by `slope Q / relaxation_time` (linear response); reports warn
    if this is above 0.05.

    Args:
        threshold: A, -1 to 1, of either sign or 0. Current at balance: the probability is halfway
            from floor to ceiling.
        slope: 1/A, as in `EmpiricalCurve`. The fields `a`, `b`, `c`, `d`, `floor`, `ceiling`, the
            exponents and rates of the anisotropy, `name`, `source` and `origin` are the same, too.
        relaxation_time: s, 1e-12 to 1e3. Correlation time of the bit at the threshold. With the
            mean dwell times `t_P` and `t_AP` there, it is `t_P t_AP / (t_P + t_AP)`.
        relaxation_anisotropy_exponent: power of `K_eff / K_eff0` in the correlation time, -50 to
            50. Default 0. For a macrospin it is about the thermal stability.
        pulse_width: leave it out, and all exponents and rates of the pulse width, too.

    Raises:
        ValueError: as for `EmpiricalCurve`, and for a dependence on the pulse width.

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
            if checks.real(value) != getattr(type(self), name):
                raise ValueError(
                    f"{name} = {checks.shown(value)}: the state of a junction that runs freely "
                    f"depends on no pulse width. Leave {name} out, or describe a device that is "
                    "written by pulses with EmpiricalCurve."
                )
        super().__post_init__()

    def __repr__(self):
        """One line: name, threshold, slope, the two plateaus and the relaxation time."""
        return self._in_one_line(more=f", relaxation {self.relaxation_time:.3g} s")

    def switching_probability(
        self, current: Array, pulse_width: Array = 1e-6, anisotropy_ratio: Array = 1.0
    ) -> Array:
        """Probability to find the junction reversed (NumPy).

        Args:
            current: A, scalar or array.
            pulse_width: has no effect.
            anisotropy_ratio: `K_eff` over the device's own, > 0, broadcast against `current`.
                Default 1.

        Raises:
            ValueError: as `EmpiricalCurve.switching_probability`.

        Example:

        >>> from spinkeras import EquilibriumCurve
        >>> curve = EquilibriumCurve(threshold=-0.8e-6, slope=0.4e6, relaxation_time=120e-9)
        >>> round(float(curve.switching_probability(0.0)), 2)
        0.78
        """
        return super().switching_probability(current, pulse_width, anisotropy_ratio)

    def reversed(self) -> Self:
        """The curve of the other state: `1 - P` over the current of the opposite sign.

        Example:

        >>> from spinkeras import EquilibriumCurve
        >>> curve = EquilibriumCurve(threshold=-0.8e-6, slope=0.4e6, relaxation_time=120e-9)
        >>> back = curve.reversed()
        >>> back.threshold, back.reversed() == curve
        (8e-07, True)
        """
        changes: dict[str, float] = {}
        for ending in ("", "_anisotropy_rate"):
            changes |= {f"{name}{ending}": 0.0 - getattr(self, f"{name}{ending}") for name in "ac"}
        for end, other in (("floor", "ceiling"), ("ceiling", "floor")):
            changes[end] = 1 - getattr(self, other)
            rate = getattr(self, f"{other}_anisotropy_rate")  # of the logit, which changes its sign
            changes[f"{end}_anisotropy_rate"] = 0.0 - rate
        return self.replace(threshold=0.0 - self.threshold, **changes)

    def correlation_time(self, current: Array, anisotropy_ratio: Array = 1.0) -> Array:
        """Correlation time of the bit in s, by the formula of the class (NumPy).

        Args:
            current: A, scalar or array.
            anisotropy_ratio: `K_eff` over the device's own, > 0, broadcast against `current`.
                Default 1.

        Raises:
            ValueError: for a value that is not a number, and a ratio that is not above 0.

        Example:

        >>> from spinkeras import EquilibriumCurve
        >>> curve = EquilibriumCurve(threshold=-0.8e-6, slope=0.4e6, relaxation_time=120e-9)
        >>> round(float(curve.correlation_time(-0.8e-6)) * 1e9)  # ns, longest at balance
        120
        """
        return _correlation_time(np, self, *self._at(current, self.pulse_width, anisotropy_ratio))

    def curve(self, device: DeviceLike) -> Callable[..., RationalLogit]:
        """As `EmpiricalCurve.curve`, with a `telegraph` that describes the bit over time."""
        curve = super().curve(device)
        curve.telegraph = _Telegraph(self, get_device(device))  # type: ignore[attr-defined]
        return curve


@dataclasses.dataclass(frozen=True)
class _Telegraph:
    """As `equilibrium.Telegraph`, but for a junction with a measured curve."""

    law: EquilibriumCurve
    device: MTJDevice

    def correlation_time(self, xp, curve, z, stability):
        """Correlation time in s."""
        return _correlation_time(xp, self.law, curve, z, self._log_ratio(xp, stability))

    def relaxation_time(self, stability):
        """Relaxation time at balance in s (NumPy)."""
        return _time_at_balance(np, self.law, self._log_ratio(np, stability))

    def _log_ratio(self, xp, stability):
        return xp.log(stability / self.device.thermal_stability)

    @property
    def push(self):
        """As `equilibrium.Telegraph.push`; NaN if the current of the curve flows in a channel."""
        if self.device.write_resistance is not None:
            return math.nan
        slope = self.law.slope * (self.law.ceiling - self.law.floor)
        return 2 * slope / self.law.relaxation_time


def _time_at_balance(xp, law, log_ratio):
    return law.relaxation_time * xp.exp(law.relaxation_anisotropy_exponent * log_ratio)


def _correlation_time(xp, law, curve, z, log_ratio):
    """Correlation time in s: the time at balance over `cosh` of half the logit.

    Two states with activated rates have this correlation time.
    """
    share = curve._replace(floor=0.0, ceiling=1.0).probability(z)
    return _time_at_balance(xp, law, log_ratio) * 2 * xp.sqrt(share * (1 - share))


# field of a RationalLogit: its rate with the pulse width, its rate with the anisotropy
_RATES = {
    "midpoint": ("threshold_exponent", "anisotropy_exponent"),
    "steepness": ("slope_exponent", "slope_anisotropy_exponent"),
} | {name: (f"{name}_rate", f"{name}_anisotropy_rate") for name in (*SHAPE, "floor", "ceiling")}


def curve_at(xp, fields, s, log_ratio, unit=1.0) -> RationalLogit:
    """The curve over the current at one pulse width and anisotropy.

    Args:
        xp: `numpy` or `keras.ops`.
        fields: as `EmpiricalCurve.fields`, numbers or tensors.
        s: logarithm of the pulse width over the curve's pulse width, an array or tensor.
        log_ratio: logarithm of `K_eff` over the device's own, same shape.
        unit: unit of the current, in A.
    """
    # The sums keep rates of 0, so that a knob without effect has a gradient of 0 instead of None.
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
    """`law` and `tangents` of `laws.get_curve`, cached: curves of one kind share one function."""

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


# Coefficients of the shape (a, ln b, c, ln(d - c^2/4)) that is nearest to the curve of version
# 0.1.0, (1 - exp(-E exp(z)))^C, in powers of ln(1 + ln C) / ln 18. They are fitted for ln C from 0
# to 17; P is off by at most 0.002.
_OF_SKEW = np.array(
    [
        [-0.85, 1.11, 2.09, -1.60],
        [-0.58, -2.68, 4.27, -1.75],
        [-1.32, 2.12, 2.52, -2.21],
        [-1.62, -5.48, 7.94, -2.95],
    ]
)


def _without_skew(config):
    """Translate a configuration of version 0.1.0 to the nearest shape of today."""
    config = dict(config)
    skew, rate = (
        checks.number(name, config.pop(name, default), "(version 0.1.0)", *limits)
        for name, default, limits in (("log_skew", 2.5, (0, 17)), ("log_skew_rate", 0.0, (-99, 99)))
    )
    clash = sorted(set(SHAPE) & set(config))
    if clash:
        raise ValueError(
            f"log_skew = {skew:g} is the shape of version 0.1.0 and cannot stand beside {clash}; "
            "leave out one of the two."
        )
    x = math.log1p(skew) / math.log(18)
    a, log_b, c, log_rest = _OF_SKEW @ x ** np.arange(4)
    config |= {"a": a, "b": math.exp(log_b), "c": c, "d": math.exp(log_rest) + c**2 / 4}
    speed = rate / ((1 + skew) * math.log(18))
    rates = _OF_SKEW[:, 1:] @ (np.arange(1, 4) * x ** np.arange(3)) * speed
    return config | {f"{name}_rate": float(v) for name, v in zip(SHAPE, rates)}
