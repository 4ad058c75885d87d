"""The knobs of a neuron, pulse width and anisotropy: their range and the settings of the driver.

The driver is the circuit that applies the settings. A grid holds the settings that it can make:
`grid(xp, ratio)` takes the ratio of a knob to its nominal value and returns the nearest possible
ratio; `xp` is `numpy` or `keras.ops`.
"""

import dataclasses
import math
from typing import Any, Self

import keras
import numpy as np
from keras import ops

from spinkeras import checks
from spinkeras._typing import Array
from spinkeras.physics.device import DeviceLike, MTJDevice, get_device

KNOBS = ("pulse_width", "anisotropy")
SCALES = 1e-3, 1e3, "3, the default of SpinNeuron, makes a step of 0.01 one of 3 %"


def knob_nominal(device: MTJDevice, knob: str) -> float:
    """Value of a knob at the untrained setting: s for the pulse width, J/m^3 for anisotropy."""
    return device.nominal_pulse_width if check_knob(knob) == "pulse_width" else device.anisotropy


def knob_range(device: MTJDevice, knob: str) -> tuple[float, float]:
    """`(lowest, highest)` value of a knob, in s or J/m^3."""
    if check_knob(knob) == "pulse_width":
        return device.pulse_width_range
    return device.anisotropy_range


def check_knob(knob: str) -> str:
    """`knob` itself, or a `ValueError` that lists the knobs."""
    if not isinstance(knob, str) or knob not in KNOBS:
        raise ValueError(
            f"Unknown knob {checks.shown(knob)}; a device has the knobs {list(KNOBS)}. A layer can "
            "train one or both of them."
        )
    return knob


@keras.saving.register_keras_serializable(package="spinkeras")
class DeviceRange(keras.constraints.Constraint):
    """Keeps the weight of a knob inside the device's range.

    The weight is the dimensionless logarithm `w = ln(value / nominal) / scale`. It is clipped to
    the device's range of pulse widths (s), or to the anisotropies (J/m^3) that its gate can reach.
    A NaN stays NaN, so that it shows that the training diverged.

    Args:
        device: `MTJDevice` or preset name.
        knob: `"pulse_width"` or `"anisotropy"`.
        scale: scale factor of the weight, 1e-3 to 1e3. Default 1.
        first: another Keras constraint, applied before the box. Default `None`.

    Raises:
        ValueError: for an unknown device, knob or constraint, and a scale outside its range.

    Example:

    >>> import numpy as np, spinkeras
    >>> box = spinkeras.DeviceRange("stt_reference", "pulse_width")
    >>> np.exp(np.asarray(box(np.array([-5.0, 5.0], "float32")))).round(2)  # nominal is 2 ns
    array([ 1., 10.], dtype=float32)
    """

    def __init__(
        self, device: DeviceLike, knob: str, scale: float = 1.0, first: Any = None
    ) -> None:
        self.device = get_device(device)
        self.knob = check_knob(knob)
        self.scale = checks.number("scale", scale, "(dimensionless)", *SCALES)
        self.first = keras.constraints.get(first)

    def __call__(self, w):
        if self.first is not None:
            w = self.first(w)
        return ops.clip(w, *self.bounds)

    @property
    def bounds(self) -> tuple[float, float]:
        """Lowest and highest value of the weight, dimensionless.

        Example:

        >>> import spinkeras
        >>> box = spinkeras.DeviceRange("stt_reference", "pulse_width")
        >>> [round(end, 3) for end in box.bounds]  # from 1 to 10 times the nominal 2 ns
        [0.0, 2.303]
        """
        low, high = (float(self.to_weight(value)) for value in knob_range(self.device, self.knob))
        return low, high

    def to_weight(self, value: Array) -> Array:
        """Weight `ln(value / nominal) / scale` of a knob value (NumPy float64).

        Args:
            value: s or J/m^3, above 0, number or array.

        Raises:
            ValueError: for a value that is not a number or is not above 0.

        Example:

        >>> import spinkeras
        >>> box = spinkeras.DeviceRange("stt_reference", "pulse_width")
        >>> round(float(box.to_weight(4e-9)), 3)  # ln 2, twice the nominal 2 ns
        0.693
        """
        unit = "s" if self.knob == "pulse_width" else "J/m^3"
        value = np.asarray(checks.values(self.knob, value, unit, 0, above=True), "float64")
        return np.log(value / knob_nominal(self.device, self.knob)) / self.scale

    def to_value(self, weight: Array) -> Array:
        """Knob value in s or J/m^3 of a weight (NumPy float64), clipped to the device's range.

        Args:
            weight: dimensionless, number or array.

        Raises:
            ValueError: for a weight that is not a number.

        Example:

        >>> import numpy as np, spinkeras
        >>> box = spinkeras.DeviceRange("stt_reference", "pulse_width")
        >>> box.to_value([np.log(2), 100.0])  # twice the nominal 2 ns, and the longest pulse
        array([4.e-09, 2.e-08])
        """
        weight = np.asarray(checks.values("weight", weight, "(dimensionless)"), "float64")
        value = knob_nominal(self.device, self.knob) * np.exp(self.scale * weight)
        return np.clip(value, *knob_range(self.device, self.knob))

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        checks.require_entries("DeviceRange", config, ("device", "knob", "scale"))
        return cls(**config)

    def get_config(self) -> dict[str, Any]:
        return {
            "device": keras.saving.serialize_keras_object(self.device),
            "knob": self.knob,
            "scale": self.scale,
            "first": keras.constraints.serialize(self.first) if self.first else None,
        }


@keras.saving.register_keras_serializable(package="spinkeras")
@checks.by_name
@dataclasses.dataclass(frozen=True, kw_only=True)
class Driver(checks.Options):
    """The settings that the circuits around the neurons can make.

    These circuits are a pulse generator and a digital-to-analog converter at the gate. The forward
    pass uses the nearest setting that they can make inside the device's range. The backward pass
    ignores this rounding.

    Args:
        pulse_step: step of the pulse generator in s, 1e-15 to 100; pulse widths are multiples of
            this step. Default `None`: continuous.
        gate_levels: number of equidistant levels of the converter, 2 to 2^20, over the device's
            `gate_voltage_range`. Default `None`: continuous.

    Raises:
        ValueError: for a value outside its range.

    Example:

    >>> import spinkeras
    >>> driver = spinkeras.Driver(pulse_step=20e-12, gate_levels=256)
    >>> neuron = spinkeras.SpinNeuron(driver=driver)
    >>> neuron.driver.gate_levels
    256
    """

    pulse_step: float | None = None
    gate_levels: int | None = None

    def __post_init__(self):
        if self.pulse_step is not None:
            step = checks.number(
                "pulse_step", self.pulse_step, "s", 1e-15, 100.0, "20 ps is 20e-12"
            )
            object.__setattr__(self, "pulse_step", step)
        if self.gate_levels is not None:
            levels = checks.whole("gate_levels", self.gate_levels, 2, 2**20, "8 bits are 256")
            object.__setattr__(self, "gate_levels", levels)

    def grids(self, device: DeviceLike) -> dict:
        """The grid of every knob of a device by knob name; `None` for a continuous knob.

        Args:
            device: `MTJDevice` or preset name.

        Raises:
            ValueError: for a step without a multiple inside the device's range, or levels for a
                device without a gate.

        Example:

        >>> import spinkeras
        >>> grids = spinkeras.Driver(pulse_step=0.5e-9).grids("stt_arm")
        >>> sorted(grids), grids["anisotropy"]  # the gate has no levels
        (['anisotropy', 'pulse_width'], None)
        """
        device, step, levels = get_device(device), self.pulse_step, self.gate_levels
        return {
            "pulse_width": None if step is None else _PulseGrid(device, step),
            "anisotropy": None if levels is None else _GateGrid(device, levels),
        }


def _nearest(xp, steps):
    """Nearest whole number; a value halfway between two is rounded down.

    Without this rule the network in float32 and its read-outs in float64 could round such a value
    in different directions.
    """
    return xp.round(steps - 1e-3)


class _PulseGrid:
    """The multiples of a pulse generator's step that lie inside the device's range.

    Args:
        device: `MTJDevice`.
        step: s, > 0.

    Raises:
        ValueError: for a step without a multiple inside `pulse_width_range`.
    """

    def __init__(self, device, step):
        shortest, longest = device.pulse_width_range
        self.step = step / device.nominal_pulse_width
        self.fewest = max(1, math.ceil(shortest / step - 1e-9))
        self.most = math.floor(longest / step + 1e-9)
        if self.fewest > self.most:
            raise ValueError(
                f"pulse_step = {step:g} s has no multiple inside the device's pulse widths "
                f"[{shortest:g}, {longest:g}] s; use a finer step."
            )

    def __call__(self, xp, ratio):
        return xp.clip(_nearest(xp, ratio / self.step), self.fewest, self.most) * self.step


class _GateGrid:
    """The anisotropies at the equidistant levels of the converter at the gate.

    Args:
        device: `MTJDevice` with a gate.
        levels: number of levels over `gate_voltage_range`, >= 2.

    Raises:
        ValueError: for a device without a gate.
    """

    def __init__(self, device, levels):
        low, high = device.gate_voltage_range
        if device.vcma_coefficient == 0 or low == high:
            raise ValueError(
                "gate_levels needs a device with a vcma_coefficient and a gate_voltage_range."
            )
        self.highest = levels - 1
        self.lowest_voltage = low
        self.step = (high - low) / self.highest
        self.per_volt = device.anisotropy_at(1.0) / device.anisotropy - 1

    def __call__(self, xp, ratio):
        level = _nearest(xp, ((ratio - 1) / self.per_volt - self.lowest_voltage) / self.step)
        voltage = self.lowest_voltage + self.step * xp.clip(level, 0, self.highest)
        return 1 + self.per_volt * voltage
