"""How the devices of a chip differ from the nominal device.

A simulated *chip* consists of one temperature `T` and of random factors, drawn once: one for every
device and property. With the nominal temperature `T0` a device of the chip has

    Delta' = Delta f_stability T0 / T      Ic0'/Delta' = (Ic0/Delta) f_current T / T0
    t_D'   = t_D f_diffusion_time T0 / T   R_P' = R_P f_resistance      TMR' = TMR f_tmr
    h_z'   = h_z f_moment T0 / T

`h_z = Ms Vol B_z / (2 kB T)` is the drive at which a free-running junction in a stray field is in
balance. `physics.chip_curve` has the output of a neuron with such a device.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple, Self

import keras
import numpy as np
from keras import ops

from spinkeras import checks
from spinkeras.physics.device import DeviceLike, MTJDevice, get_device

FACTORS = ("stability", "current", "diffusion_time", "resistance", "tmr", "moment")
MOST_DEVICES = 2000
# field of a device in which given devices may not differ: what to do instead
_BEYOND_FACTORS = {
    "switching_curve": "give every device the curve of the nominal device",
    "offset_field": "give ChipSpread(offset_field=...), its sigma in T",
}

_SIGMA, _SHARE = "5 % is 0.05", "1 % is 0.01"
# field: (unit, lowest, highest, hint)
LIMITS = {
    "stability": ("(a relative sigma)", 0.0, 0.5, _SIGMA),
    "current": ("(a relative sigma)", 0.0, 0.5, _SIGMA),
    "resistance": ("(a relative sigma)", 0.0, 0.5, _SIGMA),
    "tmr": ("(a relative sigma)", 0.0, 0.5, _SIGMA),
    "offset_field": ("T", 0.0, 0.1, "1 mT is 1e-3"),
    "offset_current": ("A", 0.0, 1.0, "1 uA is 1e-6"),
    "temperature": ("K", 0.0, 50.0, "a sigma; a hot chip has device.at_temperature(358.0)"),
    "pulse_jitter": ("(a relative sigma)", 0.0, 0.2, _SIGMA),
    "read_error": ("(a probability)", 0.0, 0.5, _SHARE),
    "sense_noise": ("(of I_P - I_AP)", 0.0, 1.0, "0 reads every device without error"),
    "read_time": ("s", 0.0, 1e-3, "2 ns is 2e-9"),
    "read_voltage": ("V", 0.0, 2.0, "0.1 V is usual"),
    "ceiling": ("(a probability)", 0.5, 1.0, "1 without back-hopping"),
    "stuck_low": ("(a fraction)", 0.0, 0.5, _SHARE),
    "stuck_high": ("(a fraction)", 0.0, 0.5, _SHARE),
}


@keras.saving.register_keras_serializable(package="spinkeras")
@checks.by_name
@dataclasses.dataclass(frozen=True, kw_only=True)
class ChipSpread:
    """Device-to-device spread, errors and faults of a chip. All defaults mean no spread.

    Every device has its own factors. They are log-normal with median 1: `exp(sigma n)` with a
    standard normal `n`. They may also be the factors of given devices (see `from_devices` and
    `from_factors`), or the product of both. A convolution uses the same device of a channel at all
    positions.

    A device is read by its current at a fixed voltage. This current is compared with a reference
    `I_ref`, which is the same for the whole chip and lies halfway between the currents of the two
    nominal states, `I_P` (parallel) and `I_AP` (antiparallel). The read current has Gaussian noise
    of standard deviation `sigma = sense_noise (I_P - I_AP)`. A parallel device then reads as
    antiparallel with probability `Phi((I_ref - I_P') / sigma)`, and an antiparallel device as
    parallel with `Phi((I_AP' - I_ref) / sigma)`, where `Phi` is the normal distribution function.
    So devices with another resistance or a lower TMR are misread more often.

    Args:
        stability: relative sigma of the thermal stability, 0 to 0.5. The critical current changes
            by the same factor, because both are proportional to `K_eff Vol`. A measured curve
            changes according to its exponents of the anisotropy.
        current: relative sigma of `Ic0 / Delta` (damping, spin-torque efficiency), 0 to 0.5. For a
            measured curve: of its threshold.
        resistance: relative sigma of the parallel resistance, 0 to 0.5. It changes the energy,
            and the reading if `sense_noise > 0`, but not the switching, since the drive is a
            current.
        tmr: relative sigma of the tunnel magnetoresistance, 0 to 0.5; same effects as
            `resistance`.
        offset_field: sigma in T, 0 to 0.1, of the stray field along the axis around that of the
            device. Only for free-running junctions (`switching_model="equilibrium"`), whose
            midpoint it moves; pulsed devices have no model for it. Not for an `EquilibriumCurve`,
            since the effect of a field on its threshold is unknown.
        offset_current: sigma in A, 0 to 1, of a shift of every device's threshold. `current` is a
            factor, which cannot move a threshold of 0.
        temperature: sigma in K, 0 to 50, of the chip's temperature around that of the device.
            `evaluate_chips` draws one value for the whole chip; in training every layer draws its
            own. Not for layers with a measured curve, which is known at one temperature only.
        pulse_jitter: relative sigma of every pulse width, 0 to 0.2, independent for every pulse.
            The probability is averaged over the jitter, which is the exact probability of a bit.
        read_error: probability, 0 to 0.5, that a read returns the wrong bit, for every device.
        sense_noise: noise of the read current in units of the nominal `I_P - I_AP`, 0 to 1; the
            nominal device is misread with probability `Phi(-1 / (2 sense_noise))`. 0 (default):
            every device is read without error.
        read_time: length of a read in s, 0 to 1e-3. A read may reverse a device that has not
            switched (read disturb), and the device then reads as switched. The probability is that
            of `hardware.read_disturb` at the device's own stability. 0 (default): no disturb.
        read_voltage: voltage of this read in V, 0 to 2. Default 0.1.
        ceiling: largest switching probability (back-hopping), 0.5 to 1.
        stuck_low, stuck_high: fraction of devices that never or always read as switched, 0 to
            0.5 each.
        devices: rows of the six `FACTORS`, at most 2000. Every device of a chip gets one row,
            drawn with replacement. `from_devices` and `from_factors` set this.

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
    tmr: float = 0.0
    offset_field: float = 0.0
    offset_current: float = 0.0
    temperature: float = 0.0
    pulse_jitter: float = 0.0
    read_error: float = 0.0
    sense_noise: float = 0.0
    read_time: float = 0.0
    read_voltage: float = 0.1
    ceiling: float = 1.0
    stuck_low: float = 0.0
    stuck_high: float = 0.0
    devices: Any = dataclasses.field(default=(), repr=False)

    def __post_init__(self):
        for name, limits in LIMITS.items():
            object.__setattr__(self, name, checks.number(name, getattr(self, name), *limits))
        object.__setattr__(self, "devices", _device_table(self.devices))

    def __repr__(self):
        """One line with the values that differ from their default."""
        given = [
            f"{field.name}={getattr(self, field.name):g}"
            for field in dataclasses.fields(self)
            if field.name != "devices" and getattr(self, field.name) != field.default
        ]
        given += [f"{len(self.devices)} devices"] if self.devices else []
        return f"{type(self).__name__}({', '.join(given)})"

    @classmethod
    def from_devices(cls, devices: Sequence[MTJDevice], nominal: DeviceLike, **spread: Any) -> Self:
        """Spread of given devices, measured ones or the result of `sample_devices`.

        Every device of a chip is one of the given devices, drawn with replacement. This keeps the
        correlations between its properties. Only the six `FACTORS` are used; the bias dependence
        of the TMR, the gate, the reset and a `write_resistance` stay those of the layer's device,
        and every reset succeeds. Devices with a `switching_curve` switch by this curve, in amperes
        and seconds. Of their differences only those in resistance and TMR are used; `current` gives
        the spread of their threshold.

        Args:
            devices: sequence of `MTJDevice` (or preset names), 1 to 2000.
            nominal: `MTJDevice` for which the chip is designed, usually the layer's device.
            **spread: further arguments of `ChipSpread`. A sigma there multiplies the devices'
                factors by random ones.

        Raises:
            ValueError: for a device with a factor above 10 or below 1/10 of the nominal device, or
                with another `switching_curve`.

        Example:

        >>> import spinkeras
        >>> nominal = spinkeras.MTJDevice.preset("stt_reference")
        >>> measured = spinkeras.sample_devices(nominal, 200, spread={"diameter": 0.03})
        >>> spread = spinkeras.ChipSpread.from_devices(measured, nominal, stuck_low=0.005)
        >>> len(spread.devices)
        200
        >>> hot = spinkeras.ChipSpread.from_devices([nominal.replace(temperature=358.0)], nominal)
        """
        nominal = get_device(nominal)
        if nominal.tmr == 0:
            raise ValueError(
                "The nominal device has tmr = 0, so the TMR of other devices is no multiple of it. "
                "Give the nominal device its TMR (100 % is 1.0)."
            )
        if isinstance(devices, str) or not hasattr(devices, "__iter__"):
            raise ValueError(
                f"devices = {checks.shown(devices)} must be a sequence of MTJDevice or preset "
                "names."
            )
        devices = [get_device(device) for device in devices]
        for name, instead in _BEYOND_FACTORS.items():
            if any(getattr(device, name) != getattr(nominal, name) for device in devices):
                raise ValueError(
                    f"Factors on {FACTORS} cannot describe devices with another {name} than the "
                    f"nominal device; {instead}."
                )
        if any(device.initial_state != nominal.initial_state for device in devices):
            raise ValueError(
                f"The nominal device writes from the {nominal.initial_state} state, some of the "
                "others from the other one; turn them by device.starting(...)."
            )

        def ratio(name):
            return [getattr(device, name) / getattr(nominal, name) for device in devices]

        factors = {"resistance": ratio("resistance_parallel"), "tmr": ratio("tmr")}
        if nominal.switching_curve is None:  # these do not determine a measured curve
            factors |= {
                "stability": ratio("thermal_stability"),
                "current": ratio("critical_current_per_stability"),
                "diffusion_time": ratio("diffusion_time"),
                "moment": [_moment(device) / _moment(nominal) for device in devices],
            }
        return cls.from_factors(factors, **spread)

    @classmethod
    def from_factors(cls, factors: Any, count: int = 1000, seed: int = 0, **spread: Any) -> Self:
        """Spread from a joint table, or a joint distribution, of factors.

        Args:
            factors: `{name: array of shape (n,)}` with names from `FACTORS`, or a distribution
                of TensorFlow Probability whose draws are such a dictionary, for example
                `tfd.JointDistributionNamed({"stability": tfd.LogNormal(0.0, 0.1)})`. All other
                factors are 1.
            count: number of rows to draw from a distribution, 1 to 2000. Default 1000. They are
                drawn once, in this call, and stored in the spread.
            seed: integer, seed of these draws. Default 0.
            **spread: further arguments of `ChipSpread`. A sigma there multiplies these factors by
                random ones.

        Raises:
            ValueError: for unknown names, unequal lengths, or factors outside [0.1, 10].

        Example:

        >>> import numpy as np, spinkeras
        >>> size = np.exp(0.05 * np.random.default_rng(0).normal(size=500))
        >>> spread = spinkeras.ChipSpread.from_factors({"stability": size, "resistance": 1 / size})
        >>> len(spread.devices)
        500
        """
        count = checks.whole("count", count, 1, MOST_DEVICES)
        seed = checks.whole("seed", seed, 0, 2**31 - 1)
        if hasattr(factors, "sample"):
            factors = factors.sample(count, seed=np.array([0, seed], "int32"))
        if hasattr(factors, "_asdict"):
            factors = factors._asdict()
        if not isinstance(factors, dict) or not factors or set(factors) - set(FACTORS):
            found = list(factors) if isinstance(factors, dict) else type(factors).__name__
            raise ValueError(
                f"factors must be a dictionary with keys among {FACTORS}, or a distribution whose "
                f"draws are one (a JointDistributionNamed); got {found}."
            )
        columns = {name: checks.array(name, values) for name, values in factors.items()}
        shapes = {name: values.shape for name, values in columns.items()}
        if len(set(shapes.values())) > 1 or len(next(iter(shapes.values()))) != 1:
            raise ValueError(f"The factors need one common shape (n,); got {shapes}.")
        ones = np.ones(next(iter(shapes.values())))
        table = np.stack([columns.get(name, ones) for name in FACTORS], axis=1)
        if len(table) == 0:
            raise ValueError("The table of devices is empty.")
        return cls(devices=table, **spread)

    def get_config(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        # The first files lack these.
        newer = ("read_time", "read_voltage", "offset_field", "offset_current")
        checks.require_entries("ChipSpread", config, [name for name in LIMITS if name not in newer])
        return cls(**config)

    def draw(
        self,
        shape: tuple[int, ...],
        rng: np.random.Generator,
        temperature: float = 300.0,
        chip_temperature: float | None = None,
    ) -> "DeviceFactors":
        """Factors of the devices of one layer, NumPy.

        Args:
            shape: shape of the layer's knobs.
            rng: `numpy.random.Generator`.
            temperature: temperature of the nominal device in K. Default 300.
            chip_temperature: temperature of this chip in K. Default: drawn.

        Raises:
            ValueError: for another `rng`.

        Example:

        >>> import numpy as np, spinkeras
        >>> spread = spinkeras.ChipSpread(stability=0.05)
        >>> factors = spread.draw((1000,), np.random.default_rng(0))
        >>> round(float(np.std(np.log(factors.stability))), 2)
        0.05
        """
        if not isinstance(rng, np.random.Generator):
            raise ValueError(
                f"rng = {checks.shown(rng)} must be a numpy.random.Generator, such as "
                "numpy.random.default_rng(0)."
            )
        if chip_temperature is None:
            chip_temperature = self.draw_temperature(rng, temperature)
        normal, uniform = rng.normal(size=(3, *shape)), rng.random(shape)
        tmr, row = rng.normal(size=shape), rng.integers(max(len(self.devices), 1), size=shape)
        field = rng.normal(size=shape) if self.offset_field else 0.0
        shift = rng.normal(size=shape) if self.offset_current else 0.0
        warm = chip_temperature / temperature
        return self._factors(np, normal, uniform, tmr, row, warm, field, shift)

    def draw_temperature(self, rng: np.random.Generator, temperature: float = 300.0) -> float:
        """Drawn temperature in K of one chip, limited to 2/3 to 4/3 of the nominal temperature."""
        drawn = temperature + self.temperature * rng.normal()
        return float(np.clip(drawn, temperature * 2 / 3, temperature * 4 / 3))

    def draw_tensors(
        self, shape: tuple[int, ...], temperature: float, seed: Any, dtype: str
    ) -> "DeviceFactors":
        """Like `draw`, but tensors from a Keras seed generator; every call draws a new chip.

        The temperature is drawn here, too, so it belongs to one layer, not to a whole chip.
        """
        normal = keras.random.normal((3, *shape), dtype=dtype, seed=seed)
        uniform = keras.random.uniform(shape, dtype=dtype, seed=seed)
        tmr, row, warm = 0 * uniform, None, 1.0
        if self.temperature:
            offset = keras.random.normal((), dtype=dtype, seed=seed) * self.temperature
            warm = ops.clip(1 + offset / temperature, 2 / 3, 4 / 3)
        if self.tmr:
            tmr = keras.random.normal(shape, dtype=dtype, seed=seed)
        if self.devices:
            row = keras.random.randint(shape, 0, len(self.devices), seed=seed)
        field = shift = 0.0
        if self.offset_field:
            field = keras.random.normal(shape, dtype=dtype, seed=seed)
        if self.offset_current:
            shift = keras.random.normal(shape, dtype=dtype, seed=seed)
        return self._factors(ops, normal, uniform, tmr, row, warm, field, shift)

    def _factors(self, xp, normal, uniform, tmr, row, warm, field, shift):
        factors = dict.fromkeys(FACTORS, 1.0)
        none = 0 * uniform  # zeros with the dtype of the draws, not Keras's default dtype
        if self.devices:
            for name, column in zip(FACTORS, np.array(self.devices).T):
                if xp is ops:
                    column = ops.convert_to_tensor(column, normal.dtype)
                factors[name] = xp.take(column, row)
        return DeviceFactors(
            stability=factors["stability"] * xp.exp(self.stability * normal[0]) / warm,
            current=factors["current"] * xp.exp(self.current * normal[1]) * warm,
            diffusion_time=factors["diffusion_time"] / (warm + 0 * normal[0]),
            resistance=factors["resistance"] * xp.exp(self.resistance * normal[2]),
            tmr=factors["tmr"] * xp.exp(self.tmr * tmr),
            stuck_low=xp.where(uniform < self.stuck_low, none + 1, none),
            stuck_high=xp.where(uniform >= 1 - self.stuck_high, none + 1, none),
            offset_field=self.offset_field * field + none,
            moment=factors["moment"] / (warm + none),
            offset_current=self.offset_current * shift + none,
        )


def _moment(device):
    """`Ms Vol / (kB T)` in 1/T."""
    return device.saturation_magnetization * device.volume / device.thermal_energy


def _device_table(rows):
    """Checked rows of factors, as plain tuples."""
    try:
        if not isinstance(rows, (list, tuple, np.ndarray)):
            raise TypeError
        table = [[checks.real(value) for value in row] for row in rows]
        if any(value is None for row in table for value in row):
            raise TypeError
    except TypeError:
        raise ValueError(
            f"devices = {checks.shown(rows)} must have one row of six numbers for each device, "
            f"the factors {FACTORS}; see ChipSpread.from_devices."
        ) from None
    if len(table) > MOST_DEVICES:
        raise ValueError(
            f"{len(table)} devices are too many, because the layer saves this table. Use at most "
            f"{MOST_DEVICES}, for example a random subset."
        )
    # Earlier versions wrote rows without the moment.
    rows = tuple((*row, 1.0) if len(row) == len(FACTORS) - 1 else tuple(row) for row in table)
    for number, row in enumerate(rows):
        if len(row) != len(FACTORS) or not all(0.1 <= value <= 10 for value in row):
            found = ", ".join(f"{value:.3g}" for value in row[:8])
            raise ValueError(
                f"Device {number} has the factors ({found}). They must be the six factors "
                f"{FACTORS} relative to the nominal device, each in [0.1, 10]. Check that "
                "`nominal` is the device around which the others vary."
            )
    return rows


class DeviceFactors(NamedTuple):
    """How the devices of one layer differ; every array has the shape of the layer's knobs.

    Attributes:
        stability, current, diffusion_time, resistance, tmr: factors on `Delta`, `Ic0 / Delta`,
            `t_D`, `R_P` and TMR.
        stuck_low, stuck_high: 1 if the device is stuck, otherwise 0.
        offset_field: field in T that is added to the stray field.
        moment: factor on `Ms Vol / (kB T)`, by which a stray field moves a midpoint.
        offset_current: current in A that is added to the threshold.
    """

    stability: Any
    current: Any
    diffusion_time: Any
    resistance: Any
    tmr: Any
    stuck_low: Any
    stuck_high: Any
    offset_field: Any = 0.0
    moment: Any = 1.0
    offset_current: Any = 0.0
