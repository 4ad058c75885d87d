"""How the devices of a chip differ from the nominal one, and what a neuron then answers.

A *chip* is one factor per device and property, drawn once:

    Delta' = Delta f_stability T0 / T      Ic0'/Delta' = (Ic0/Delta) f_current T / T0
    R_P'   = R_P f_resistance              t_D' = t_D T0 / T

The chip is driven with the settings of the nominal device: pulse width, gate voltage and bias
current do not know the factors, so a spread moves the threshold and the slope.
"""

import dataclasses
from typing import Any, NamedTuple

import keras
import numpy as np
from keras import ops

from spinkeras.switching import STABILITY_DOMAIN

CAUSES = ("both", "threshold", "slope")


@keras.saving.register_keras_serializable(package="spinkeras")
@dataclasses.dataclass(frozen=True, kw_only=True)
class ChipSpread:
    """Device-to-device spread, errors and faults of a chip.

    The factors are log-normal with median 1, `exp(sigma n)`, `n` standard normal, one per device
    (a convolution uses the device of a channel at every position).

    Args:
        stability: relative sigma of the thermal stability, 0 to 0.5. The critical current
            follows it, as both are proportional to `K_eff V`.
        current: relative sigma of `Ic0 / Delta` (damping, spin-torque efficiency), 0 to 0.5.
        resistance: relative sigma of the parallel resistance, 0 to 0.5; changes energy only, the
            drive being a current.
        temperature: K, sigma of the chip's temperature around the device's, 0 to 100; one value
            for the whole chip.
        pulse_jitter: relative sigma of every pulse width, 0 to 0.2, independent from pulse to
            pulse. A bit of a jittery pulse is exactly a bit with the mean probability.
        read_error: probability that a read returns the wrong bit, 0 to 0.5.
        ceiling: largest switching probability (back-hopping), 0.5 to 1.
        stuck_low, stuck_high: fraction of devices that never or always read as switched.

    Raises:
        ValueError: for a value outside its range.

    Example:

    >>> import spinkeras
    >>> spinkeras.ChipSpread(stability=0.1, stuck_low=0.005, stuck_high=0.005).stability
    0.1
    """

    stability: float = 0.0
    current: float = 0.0
    resistance: float = 0.0
    temperature: float = 0.0
    pulse_jitter: float = 0.0
    read_error: float = 0.0
    ceiling: float = 1.0
    stuck_low: float = 0.0
    stuck_high: float = 0.0

    def __post_init__(self):
        limits = {name: (0.0, 0.5) for name in ("stability", "current", "resistance", "read_error")}
        limits |= {"temperature": (0.0, 100.0), "pulse_jitter": (0.0, 0.2), "ceiling": (0.5, 1.0)}
        limits |= {"stuck_low": (0.0, 0.5), "stuck_high": (0.0, 0.5)}
        for name, (low, high) in limits.items():
            value = float(getattr(self, name))
            object.__setattr__(self, name, value)
            if not low <= value <= high:
                unit = " K" if name == "temperature" else ""
                raise ValueError(f"{name} = {value:g}{unit} is outside [{low:g}, {high:g}]{unit}.")

    def get_config(self):
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config):
        return cls(**config)

    def draw(self, shape, rng, temperature=300.0, chip_temperature=None):
        """Factors of the devices of one layer, NumPy.

        Args:
            shape: shape of the layer's knobs.
            rng: `numpy.random.Generator`.
            temperature: K, that of the nominal device.
            chip_temperature: K, that of this chip. Default: drawn.
        """
        if chip_temperature is None:
            chip_temperature = self.draw_temperature(rng, temperature)
        normal = rng.normal(size=(3, *shape))
        return self._factors(np, normal, rng.random(shape), chip_temperature / temperature)

    def draw_temperature(self, rng, temperature=300.0):
        """Temperature in K of one chip, kept within a third of the nominal one."""
        drawn = temperature + self.temperature * rng.normal()
        return float(np.clip(drawn, temperature * 2 / 3, temperature * 4 / 3))

    def draw_tensors(self, shape, temperature, seed, dtype):
        """As `draw`, as tensors from a Keras seed generator (a new chip at every call)."""
        normal = keras.random.normal((3, *shape), dtype=dtype, seed=seed)
        uniform = keras.random.uniform(shape, dtype=dtype, seed=seed)
        warm = 1.0
        if self.temperature:
            offset = keras.random.normal((), dtype=dtype, seed=seed) * self.temperature
            warm = ops.clip(1 + offset / temperature, 2 / 3, 4 / 3)
        return self._factors(ops, normal, uniform, warm)

    def _factors(self, xp, normal, uniform, warm):
        low = xp.where(uniform < self.stuck_low, 1.0, 0.0)
        high = xp.where(uniform >= 1 - self.stuck_high, 1.0, 0.0)
        return ChipLayer(
            stability=xp.exp(self.stability * normal[0]) / warm,
            current=xp.exp(self.current * normal[1]) * warm,
            resistance=xp.exp(self.resistance * normal[2]),
            warmth=warm + 0 * normal[0],
            stuck_low=low,
            stuck_high=high,
        )


class ChipLayer(NamedTuple):
    """Factors of one layer's devices: each of the shape of the layer's knobs.

    Attributes:
        stability, current, resistance: factors on `Delta`, `Ic0 / Delta` and `R_P`.
        warmth: `T / T0`.
        stuck_low, stuck_high: 1 where the device is stuck, else 0.
    """

    stability: Any
    current: Any
    resistance: Any
    warmth: Any
    stuck_low: Any
    stuck_high: Any


def chip_curve(xp, build, log_duration, stability, drive, chip, spread, cause="both"):
    """Probability that the devices of a chip read as switched.

    Args:
        xp: `numpy` or `keras.ops`.
        build: function `(xp, log_duration, stability) -> Curve`.
        log_duration, stability: nominal `ln u` and `Delta` of the knobs.
        drive: `h` of every element for the nominal device.
        chip: `ChipLayer`.
        spread: `ChipSpread`, for jitter, read error and ceiling.
        cause: `"both"`, or only the `"threshold"` or only the `"slope"` of the devices.
    """
    low, high = STABILITY_DOMAIN
    log_warm = xp.log(chip.warmth)
    actual_stability = xp.clip(stability * chip.stability, low, high)
    nominal = build(xp, log_duration, stability)

    def answer(stretch):
        curve = build(xp, log_duration + log_warm + stretch, actual_stability)
        if cause == "threshold":  # the chip's threshold, the nominal shape
            shape, middle = nominal, curve.midpoint * chip.current
            return shape.probability(drive - middle)
        if cause == "slope":
            return curve.probability((drive - nominal.midpoint) / chip.current)
        return curve.probability(drive / chip.current - curve.midpoint)

    probability = answer(0.0)
    if spread.pulse_jitter:  # mean over the jitter, by three-point Gauss-Hermite quadrature
        reach = 3**0.5 * spread.pulse_jitter
        probability = 2 / 3 * probability + (answer(reach) + answer(-reach)) / 6
    probability = probability * spread.ceiling
    probability = probability + spread.read_error * (1 - 2 * probability)
    free = 1 - chip.stuck_low - chip.stuck_high
    return probability * free + chip.stuck_high
