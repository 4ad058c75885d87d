"""Switching curves that are measured, not derived: for devices no macrospin describes.

Domain-wall reversal by spin-orbit torque, back-hopping plateaux or a real device with a shape of
its own follow none of the laws in `spinkeras.switching`. `EmpiricalCurve` describes what was
measured; `spinkeras.calibration.fit_empirical` finds it from a table.
"""

import dataclasses
import math

import keras
import numpy as np

from spinkeras.devices import get_device
from spinkeras.switching import Curve, exponentiated_cloglog

MAX_LOG_SKEW = 17.0

# field: (unit, lowest, highest, hint)
LIMITS = {
    "threshold": ("A", 1e-9, 1.0, "73 uA is 73e-6"),
    "slope": ("1/A", 1e-2, 1e12, "0.03 per uA is 3e4"),
    "log_skew": ("dimensionless", 0.0, MAX_LOG_SKEW, "0 is the thermally activated shape"),
    "ceiling": ("a probability", 1e-3, 1.0, "1 without back-hopping"),
    "pulse_width": ("s", 1e-11, 1e-2, "2 ns is 2e-9"),
    "threshold_exponent": ("dimensionless", -3.0, 3.0, "0 if it does not depend on pulse width"),
    "slope_exponent": ("dimensionless", -3.0, 3.0, "0 if it does not depend on pulse width"),
    "log_skew_rate": ("per e-fold", -5.0, 5.0, "0 if it does not depend on pulse width"),
    "ceiling_rate": ("per e-fold", -5.0, 5.0, "0 if it does not depend on pulse width"),
    "anisotropy_exponent": ("dimensionless", -3.0, 3.0, "1 if the threshold follows K_eff"),
}


@keras.saving.register_keras_serializable(package="spinkeras")
@dataclasses.dataclass(frozen=True, kw_only=True)
class EmpiricalCurve:
    """A measured switching curve and its dependence on pulse width.

    With `s = ln(t_p / pulse_width)`, at the current `I` (A) and the pulse width `t_p` (s),

        P       = ceiling(t_p) * F(b (I - I50))
        F(z)    = (1 - exp(-E exp(z)))^C,  E such that F(0) = 1/2,  C = exp(log_skew(t_p))
        I50     = threshold * exp(threshold_exponent * s) * (K_eff / K_eff0)^anisotropy_exponent
        dF/dI   = slope * exp(slope_exponent * s)                         at I = I50   [1/A]
        log_skew(t_p) = log_skew + log_skew_rate * s                      kept in [0, 17]
        ceiling(t_p)  = 1 / (1 + exp(-(logit(ceiling) + ceiling_rate * s)))

    Used as a switching model, `SpinNeuron(device, switching_model=curve)`: the device then gives
    the ranges of the knobs, the resistances and the energies, the curve the activation.

    Args:
        threshold: A, 1e-9 to 1. Current at which half of the ceiling is reached.
        slope: 1/A, 1e-2 to 1e12. Slope there, relative to the ceiling.
        log_skew: 0 to 17. 0 is the shape of thermal activation (a long foot), 2.5 (default) is
            symmetric and within 0.02 of a logistic, 8 and more is the Gumbel shape of ballistic
            switching (a long shoulder).
        ceiling: 1e-3 to 1, probability far above the threshold. Default 1; less with
            back-hopping.
        pulse_width: s, 1e-11 to 1e-2, at which the values above hold.
        threshold_exponent, slope_exponent: power of the pulse width, -3 to 3. Default 0.
        log_skew_rate, ceiling_rate: change of `log_skew` and of `ln(ceiling / (1 - ceiling))` per
            e-fold of pulse width, -5 to 5. Default 0. A ceiling of 1 stays 1.
        anisotropy_exponent: power of `K_eff` over the device's own, -3 to 3. Default 0: the
            anisotropy knob then has no effect.
        name, source: free text, not compared by `==`.

    Raises:
        ValueError: naming the field, its value, its unit, the allowed range and what to check.

    Example:

    >>> import spinkeras
    >>> from spinkeras.empirical import EmpiricalCurve
    >>> curve = EmpiricalCurve(threshold=1.1e-3, slope=7e3, pulse_width=1e-9, ceiling=0.9)
    >>> curve.switching_probability([1.1e-3, 2e-3], 1e-9).round(2)
    array([0.45, 0.9 ])
    """

    threshold: float
    slope: float
    log_skew: float = 2.5
    ceiling: float = 1.0
    pulse_width: float
    threshold_exponent: float = 0.0
    slope_exponent: float = 0.0
    log_skew_rate: float = 0.0
    ceiling_rate: float = 0.0
    anisotropy_exponent: float = 0.0
    name: str = dataclasses.field(default="", compare=False)
    source: str = dataclasses.field(default="", compare=False)

    def __post_init__(self):
        for field, (unit, low, high, hint) in LIMITS.items():
            value = getattr(self, field)
            try:
                if isinstance(value, (bool, str)):
                    raise TypeError
                value = float(value)
            except (TypeError, ValueError):
                raise ValueError(f"{field} = {value!r} is not a number ({unit}; {hint}).") from None
            if not low <= value <= high:
                raise ValueError(
                    f"{field} = {value:g} ({unit}) is outside [{low:g}, {high:g}]; {hint}."
                )
            object.__setattr__(self, field, value)

    def replace(self, **changes) -> "EmpiricalCurve":
        """A copy with some fields changed, validated like a new curve."""
        return dataclasses.replace(self, **changes)

    def get_config(self) -> dict:
        """Fields as a plain dictionary (Keras serialisation)."""
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict) -> "EmpiricalCurve":
        """Inverse of `get_config`."""
        return cls(**config)

    @classmethod
    def preset(cls, name: str) -> "EmpiricalCurve":
        """A published curve: `"sot_80nm"`, a spin-orbit-torque junction at 0.75 ns.

        Example: `EmpiricalCurve.preset("sot_80nm").threshold`.
        """
        if name not in _PRESETS:
            raise ValueError(f"Unknown curve {name!r}. Available curves: {list(_PRESETS)}.")
        return cls(name=name, **_PRESETS[name])

    def switching_probability(self, current, pulse_width, anisotropy_ratio=1.0):
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
        curve = self._curve(np, np.log(pulse_width / self.pulse_width), np.log(ratio))
        return curve.probability(current - curve.midpoint)

    def curve(self, device):
        """The function `(xp, log_duration, stability) -> Curve` that a switching model provides.

        Args:
            device: `MTJDevice` or preset name; sets the dimensionless units.
        """
        device = get_device(device)
        offset = math.log(device.diffusion_time / self.pulse_width)
        unit = device.critical_current_per_stability

        def curve(xp, log_duration, stability):
            log_ratio = xp.log(stability / device.thermal_stability)
            return self._curve(xp, log_duration + offset, log_ratio, unit)

        return curve

    def _curve(self, xp, s, log_ratio, unit=1.0):
        """`Curve` over current in `unit` (A); `s` is the logarithm of the relative pulse width."""
        shift = self.threshold_exponent * s + self.anisotropy_exponent * log_ratio
        midpoint = (self.threshold / unit) * xp.exp(shift)
        # 0 * log_ratio: a knob without effect has the gradient 0, not none, which Keras warns of.
        slope = (self.slope * unit) * xp.exp(self.slope_exponent * s + 0 * log_ratio)
        log_skew = xp.clip(self.log_skew + self.log_skew_rate * s, 0.0, MAX_LOG_SKEW)
        ceiling = xp.ones_like(s)
        if self.ceiling < 1:
            logit = math.log(self.ceiling / (1 - self.ceiling))
            ceiling = 1 / (1 + xp.exp(-(logit + self.ceiling_rate * s)))

        def probability(z, gain=1.0, kernel=None):
            return ceiling * exponentiated_cloglog(xp, z, slope, log_skew, gain, kernel)

        return Curve(midpoint, ceiling * slope, probability)


# Estimates of `fit_empirical` from the published counts; tests/test_calibration.py repeats the fit.
_PRESETS = {
    "sot_80nm": dict(
        threshold=1.1578e-3,
        slope=7.015e3,
        pulse_width=0.75e-9,
        source="Three-terminal spin-orbit-torque junction, 80 nm, 776 ohm channel, 0.75 ns pulses, "
        "12 voltages from 0.80 to 1.02 V of 50 pulses: raw file names of the MIT-licensed "
        "repository JinChengZ18/vgsot-sim. Deviance 13.1 on 10 degrees of freedom. Nothing is "
        "known about other pulse widths and anisotropies.",
    ),
}
