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
    "slope_anisotropy_exponent": ("dimensionless", -3.0, 3.0, "0 if it does not depend on K_eff"),
    "ceiling_anisotropy_rate": ("per e-fold", -5.0, 5.0, "0 if it does not depend on K_eff"),
}


@keras.saving.register_keras_serializable(package="spinkeras")
@dataclasses.dataclass(frozen=True, kw_only=True)
class EmpiricalCurve:
    """A measured switching curve and its dependence on pulse width and anisotropy.

    With `s = ln(t_p / pulse_width)` and `k = ln(K_eff / K_eff0)`, `K_eff0` that of the device at
    zero gate voltage, at the current `I` (A) and the pulse width `t_p` (s),

        P     = c * F(b (I - I50))
        F(z)  = (1 - exp(-E exp(z)))^C,  E such that F(0) = 1/2
        I50   = threshold * exp(threshold_exponent * s + anisotropy_exponent * k)          [A]
        dF/dI = slope * exp(slope_exponent * s + slope_anisotropy_exponent * k)   at I50   [1/A]
        ln C  = log_skew + log_skew_rate * s                                      in [0, 17]
        c     = 1 / (1 + exp(-(logit(ceiling) + ceiling_rate * s + ceiling_anisotropy_rate * k)))

    As the `switching_curve` of an `MTJDevice` it is that device's law. Given as a switching model,
    `SpinNeuron(device, switching_model=curve)`, it replaces the law of any device, which then
    gives the ranges of the knobs, the resistances and the energies.

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
        anisotropy_exponent, slope_anisotropy_exponent: power of `K_eff` over the device's own in
            threshold and slope, -3 to 3. Default 0: the anisotropy knob then has no effect.
        ceiling_anisotropy_rate: as `ceiling_rate`, per e-fold of `K_eff`. Default 0.
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
    slope_anisotropy_exponent: float = 0.0
    ceiling_anisotropy_rate: float = 0.0
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
        """Inverse of `get_config`; fields that are missing or unknown give a `ValueError`."""
        fields = dataclasses.fields(cls)
        unknown = sorted(set(config) - {f.name for f in fields})
        needed = [f.name for f in fields if f.default is dataclasses.MISSING]
        missing = [name for name in needed if name not in config]
        if unknown or missing:
            raise ValueError(
                f"A description of an EmpiricalCurve needs the fields {needed}; missing are "
                f"{missing}, unknown {unknown}."
            )
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
        bad = ~(np.isfinite(ratio) & (ratio > 0))
        if np.any(bad):
            raise ValueError(
                f"anisotropy_ratio = {ratio[bad].flat[0]:g} must be finite and > 0; it is K_eff "
                "over the device's own, so 1 at zero gate voltage."
            )
        s = np.log(pulse_width / self.pulse_width)
        curve = curve_at(np, self.fields(), s, np.log(ratio))
        return curve.probability(current - curve.midpoint)

    def curve(self, device):
        """The function `(xp, log_duration, stability) -> Curve` that a switching model provides.

        Args:
            device: `MTJDevice` or preset name; sets the dimensionless units.
        """
        device = get_device(device)
        offset = math.log(device.diffusion_time / self.pulse_width)
        unit = device.critical_current_per_stability
        fields = self.fields()

        def curve(xp, log_duration, stability):
            log_ratio = xp.log(stability / device.thermal_stability)
            return curve_at(xp, fields, log_duration + offset, log_ratio, unit)

        curve.in_seconds = curve.measured = True  # see switching.get_curve
        return curve

    def fields(self) -> dict:
        """The numbers of the curve by name, `logit_ceiling` for `ceiling`, as `curve_at` needs."""
        fields = {name: getattr(self, name) for name in LIMITS}
        c = fields.pop("ceiling")
        return fields | {"logit_ceiling": math.log(c / (1 - c)) if c < 1 else math.inf}


def curve_at(xp, fields, s, log_ratio, unit=1.0) -> Curve:
    """The curve at one pulse width and anisotropy, over the current in `unit` (A).

    Args:
        xp: `numpy` or `keras.ops`.
        fields: as `EmpiricalCurve.fields`, numbers or tensors.
        s: logarithm of the pulse width over the curve's, an array or tensor.
        log_ratio: logarithm of `K_eff` over the device's own, same shape.
        unit: A.
    """
    # Exponents of 0 stay in the sums: a knob without effect has the gradient 0, not none.
    shift = fields["threshold_exponent"] * s + fields["anisotropy_exponent"] * log_ratio
    midpoint = (fields["threshold"] / unit) * xp.exp(shift)
    tilt = fields["slope_exponent"] * s + fields["slope_anisotropy_exponent"] * log_ratio
    slope = (fields["slope"] * unit) * xp.exp(tilt)
    log_skew = xp.clip(fields["log_skew"] + fields["log_skew_rate"] * s, 0.0, MAX_LOG_SKEW)
    ceiling = xp.ones_like(s)
    logit = fields["logit_ceiling"]
    certain = isinstance(logit, float) and logit == math.inf
    if not certain:
        rise = fields["ceiling_rate"] * s + fields["ceiling_anisotropy_rate"] * log_ratio
        ceiling = 1 / (1 + xp.exp(-(logit + rise)))

    def probability(z, gain=1.0, kernel=None):
        # A kernel may have been told the result, but not what the ceiling leaves of it.
        kernel = kernel if certain else None
        return ceiling * exponentiated_cloglog(xp, z, slope, log_skew, gain, kernel)

    return Curve(midpoint, ceiling * slope, probability, log_skew)


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
