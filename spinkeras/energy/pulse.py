"""Energy of an inference, from the current, the pulse width and the resistance of each device.

One pulse of one neuron costs, in joules,

    write   I^2 t_p [R_P (1 - P) + (f R_P + (1 - f) R_AP(V)) P]      starts parallel
    gate    C_gate V_gate^2                                          charging the gate once
    read    V_read^2 t_read [(1 - P) / R_P + P / R_AP(V_read)]
    reset   P I_reset^2 t_reset [f R_AP(V) + (1 - f) R_P]            only a switched device

with `R_AP(V) = R_P (1 + TMR / (1 + (V / V_half)^2))`. `V` is the bias that the current itself
produces, and `f` is the fraction of the pulse before the reversal. In a device whose
`initial_state` is antiparallel, `R_P` and `R_AP` change places. The reset current follows the law
of the device's `reversed()`, with the `reset_efficiency` or the `reset_curve` if there is one. In a
three-terminal device, write and reset cross the channel of the resistance `write_resistance`, in
either state.

A device with a `switching_curve` is reset by repeated pulses, until a read finds the device reset;
this takes `1 / P(I_reset)` pulses on average. A junction that runs freely is neither written nor
reset. Its `write` energy is the energy of the current that is held from read to read,
`I^2 t_p [R_P (1 - P) + R_AP(V) P]`, as for a pulse that reverses the device at once. The energies
do not include the control circuit, wires, leakage of the gate, and the synapses.
"""

import dataclasses
import functools
import math
from typing import Any

import numpy as np
from scipy import optimize

from spinkeras import checks
from spinkeras._typing import Array
from spinkeras.macrospin import fokker_planck
from spinkeras.notices import warn
from spinkeras.physics import equilibrium
from spinkeras.physics.device import STATES, DeviceLike, MTJDevice, get_device
from spinkeras.physics.resistance import antiparallel_by, namespace

_STRONG_READ = 0.1

COMPONENTS = ("write", "gate", "read", "reset")


@checks.by_name
@dataclasses.dataclass(frozen=True, kw_only=True)
class EnergyAssumptions:
    """Assumptions of an energy calculation beyond the device and its drive.

    Args:
        read_voltage: V, 0 to 2. Default 0.1; with 0 reads cost nothing.
        read_time: s, 0 to 1e-3. Default 2e-9.
        reset_pulse_width: s, 1e-10 to 1e-3. Default 10e-9.
        reset_error: allowed probability that a reset fails, 1e-6 to 0.5. Default 1e-3. The reset of
            a device with a `switching_curve` fails if all repeated pulses fail.
        reset: whether a switched device is reset after the read, before its next use. Default
            `True`.
        reversal_fraction: `f`, fraction of the pulse before the reversal, 0 to 1. Default 0.75.
            The exact value of `stt_reference` at the midpoint is 0.83 at 2 ns, 0.80 at 5 ns, 0.74
            at 10 ns and 0.67 at 20 ns.

    Raises:
        ValueError: for a value outside its range.

    Example:

    >>> import spinkeras
    >>> strict = spinkeras.EnergyAssumptions(reset_error=1e-6)
    >>> round(spinkeras.energy.reset_energy("stt_reference", strict) * 1e15)  # fJ; 236 with 1e-3
    405
    """

    read_voltage: float = 0.1
    read_time: float = 2e-9
    reset_pulse_width: float = 10e-9
    reset_error: float = 1e-3
    reset: bool = True
    reversal_fraction: float = 0.75

    def __post_init__(self):
        for name, *limits in (
            ("read_voltage", "V", 0.0, 2.0, "0.1 V is 0.1, and 0 leaves reading out"),
            ("read_time", "s", 0.0, 1e-3, "2 ns is 2e-9"),
            ("reset_pulse_width", "s", 1e-10, 1e-3, "10 ns is 10e-9"),
            ("reset_error", "(a probability)", 1e-6, 0.5, "0.1 % is 1e-3"),
            ("reversal_fraction", "(a fraction)", 0.0, 1.0, "75 % is 0.75"),
        ):
            object.__setattr__(self, name, checks.number(name, getattr(self, name), *limits))
        object.__setattr__(self, "reset", checks.flag("reset", self.reset))

    def lines(self, device: DeviceLike, telegraph: Any = None) -> list[str]:
        """The assumptions in words, for a report.

        Args:
            device: `MTJDevice` or preset name.
            telegraph: `telegraph` of a `SpinNeuron` that runs freely. Default `None`: pulses write
                the device.

        Raises:
            ValueError: for another `device`.

        Example:

        >>> import spinkeras
        >>> device = spinkeras.MTJDevice.preset("stt_reference")
        >>> print(spinkeras.EnergyAssumptions().lines(device)[0])
        device stt_reference: R_P 7958 ohm, TMR 100% halved at 0.5 V
        """
        device = get_device(device)
        if telegraph is not None:
            ends = device.stability_at(np.array(device.anisotropy_range))
            settled = np.max(telegraph.relaxation_time(ends))
            push = read_push(device, self, telegraph)
            said = "not known" if math.isnan(push) else f"{push:.2g}"
            return [
                self._resistances(device),
                "write is the current held from read to read; no reset; the time and energy to "
                f"settle before the first read (relaxation up to {settled * 1e9:.3g} ns) are not "
                "counted",
                f"read {self.read_voltage:g} V for {self.read_time * 1e9:g} ns, push of a read "
                f"{said} (a disturbance above {_STRONG_READ:g})",
                "not included: control circuit, wires, gate leakage, synapses",
            ]
        reset = "none"
        if self.reset and not tells_reset(device):
            reset = (
                "not counted (a curve with a threshold of "
                f"{_other_direction(device).switching_curve.threshold * 1e6:.3g} uA "
                "does not describe it)"
            )
        elif self.reset:
            pulses = reset_pulses(device, self)
            repeated = f", repeated up to {pulses} times" if pulses > 1 else ""
            reset = (
                f"{reset_energy(device, self) * 1e15:.0f} fJ per switched device "
                f"({self.reset_pulse_width * 1e9:g} ns, "
                f"{reset_current(device, self) * 1e6:.1f} uA{repeated}, error {self.reset_error:g})"
            )
        write = (
            f"write starts {device.initial_state}; {self.reversal_fraction:.0%} of the pulse "
            "before reversal"
        )
        if device.write_resistance is not None:
            write = f"write and reset through a channel of {device.write_resistance:.0f} ohm"
        return [
            self._resistances(device),
            write,
            f"read {self.read_voltage:g} V for {self.read_time * 1e9:g} ns; reset {reset}",
            "not included: control circuit, wires, gate leakage, synapses",
        ]

    @staticmethod
    def _resistances(device):
        return (
            f"device {device.name or 'unnamed'}: R_P {device.resistance_parallel:.0f} ohm, TMR "
            f"{device.tmr:.0%} halved at {device.tmr_half_voltage:g} V"
        )


def assumptions_of(layer, assumptions) -> EnergyAssumptions:
    """The assumptions that hold for a layer: without a reset if its device runs freely."""
    if layer.free_running:
        return dataclasses.replace(assumptions, reset=False, reversal_fraction=0.0)
    if not tells_reset(layer.device):
        return dataclasses.replace(assumptions, reset=False)
    return assumptions


def tells_reset(device) -> bool:
    """Whether a pulse can reset a device, by the law of its other direction.

    This law is the `reset_curve`, or the law of the write if there is no `reset_curve`. A curve
    with a threshold of 0 or below switches without a drive, so it cannot describe a reset pulse.
    """
    curve = _other_direction(device).switching_curve
    return curve is None or (curve.threshold > 0 and not curve.free_running)


def read_push(device, assumptions, telegraph=None) -> float:
    """Push of a read on a free-running junction: a constant times `V_read t_read / R_P`.

    For a macrospin the constant is `1 / (I0 t_D)`, with `I0 = Ic0 / Delta`. A push of 0.1 then
    changes the probability of a bit in balance by up to 0.05 without a barrier, and by about 0.01
    at a thermal stability of 4. For an `EquilibriumCurve` the constant is
    `2 slope / relaxation_time`, and a push of 0.1 changes the probability by 0.05. The push is NaN
    if the constant is not known.
    """
    charge = assumptions.read_voltage * assumptions.read_time / device.resistance_parallel
    return charge * (telegraph or equilibrium.Telegraph(device)).push


def warn_of_strong_reads(layers, assumptions):
    """Warn if a read may change the bit of a free-running junction."""
    running = [(layer.device, layer.telegraph) for layer in layers if layer.free_running]
    for device, telegraph in dict.fromkeys(running):
        push = read_push(device, assumptions, telegraph)
        if push > _STRONG_READ:
            measured = not isinstance(telegraph, equilibrium.Telegraph)
            law = "2 slope / relaxation_time" if measured else "(Ic0 / Delta)^-1 / t_D"
            warn(
                f"A read of {assumptions.read_voltage:g} V for {assumptions.read_time:g} s may "
                "change the bit of a free-running junction: its push V_read t_read / R_P "
                f"times {law} = {push:.2g} is above {_STRONG_READ:g}. Give EnergyAssumptions a "
                "lower read_voltage or a shorter read_time."
            )


def checked_assumptions(assumptions) -> EnergyAssumptions:
    """The given assumptions, or the default assumptions for `None`."""
    if assumptions is None:
        return EnergyAssumptions()
    if not isinstance(assumptions, EnergyAssumptions):
        raise ValueError(
            f"assumptions = {checks.shown(assumptions)} must be EnergyAssumptions or None."
        )
    return assumptions


def _checked_factors(resistance, tmr):
    hint = "1 is the device's own value"
    resistance = checks.values("resistance", resistance, "(a factor)", 0, hint=hint, above=True)
    return resistance, checks.values("tmr", tmr, "(a factor)", 0, hint=hint)


def _checked_probability(probability):
    return checks.values("probability", probability, "(a probability)", 0, 1, "50 % is 0.5")


def antiparallel_resistance(
    current: Array, device: DeviceLike, resistance: Array = 1.0, tmr: Array = 1.0
) -> Array:
    """Resistance in ohm of the antiparallel state under the bias that a current produces.

    `R_AP = R_P (1 + TMR / (1 + (V / V_half)^2))` with `V = I R_AP`, solved by Halley steps.

    Args:
        current: A, of either sign, scalar, array or tensor.
        device: `MTJDevice` or preset name.
        resistance: factor on the device's `R_P`, above 0, broadcast against `current`. Default 1.
        tmr: factor on its TMR, at least 0, broadcast against `current`. Default 1.

    Raises:
        ValueError: for a value that is not a number, and a factor outside its range.

    Example:

    >>> import numpy as np, spinkeras
    >>> current = np.array([0.0, 50e-6])
    >>> spinkeras.energy.antiparallel_resistance(current, "stt_reference").round()
    array([15915., 11414.])
    """
    device = get_device(device)
    resistance, tmr = _checked_factors(resistance, tmr)
    xp, current = namespace(checks.values("current", current, "A"), resistance)
    parallel, tmr = device.resistance_parallel * resistance, device.tmr * tmr
    return antiparallel_by(xp, current, parallel, tmr, device.tmr_half_voltage)


def _starts_parallel(device):
    return device.initial_state == STATES[0]


def write_energy(
    current: Array,
    pulse_width: Array,
    probability: Array,
    device: DeviceLike,
    reversal_fraction: float = 0.75,
    resistance: Array = 1.0,
    tmr: Array = 1.0,
) -> Array:
    """Mean energy in J of one write pulse that starts in the device's `initial_state`.

    `I^2 t_p [R_P (1 - P) + (f R_P + (1 - f) R_AP(V)) P]` from the parallel state; `R_P` and
    `R_AP` change places otherwise. In a three-terminal device it is `I^2 write_resistance t_p` at
    any probability.

    Args:
        current: A, of either sign, scalar, array or tensor.
        pulse_width: `t_p` in s, at least 0, broadcast against `current`.
        probability: switching probability `P`, 0 to 1, broadcast against `current`.
        device: `MTJDevice` or preset name.
        reversal_fraction: `f`, fraction of the pulse before the reversal, 0 to 1. Default 0.75.
        resistance: factor on the device's `R_P`, above 0, broadcast against `current`. Default 1.
        tmr: factor on its TMR, at least 0, broadcast against `current`. Default 1.

    Raises:
        ValueError: for a value that is not a number or is outside its range.

    Example:

    >>> import spinkeras
    >>> energy = spinkeras.energy.write_energy(73.5e-6, 2e-9, 0.5, "stt_reference")
    >>> round(float(energy) * 1e15)  # fJ
    89
    """
    resistance, tmr = _checked_factors(resistance, tmr)
    pulse_width = checks.values("pulse_width", pulse_width, "s", 0, hint="2 ns is 2e-9")
    probability, hint = _checked_probability(probability), "75 % is 0.75"
    fraction = checks.number("reversal_fraction", reversal_fraction, "(a fraction)", 0, 1, hint)
    xp, current = namespace(checks.values("current", current, "A"), resistance)
    numbers = write_numbers(get_device(device), fraction, resistance, tmr)
    return write_energy_by(xp, current, pulse_width, probability, *numbers)


def write_numbers(device, reversal_fraction, resistance=1.0, tmr=1.0):
    """The five numbers of a device for `write_energy_by`; a channel has only one resistance."""
    if device.write_resistance is not None:
        return device.write_resistance, 0.0, 0.0, device.tmr, device.tmr_half_voltage
    parallel, after = device.resistance_parallel * resistance, 1 - reversal_fraction
    shares = (0.0, after) if _starts_parallel(device) else (1.0, -after)
    return parallel, *shares, device.tmr * tmr, device.tmr_half_voltage


def write_energy_by(
    xp, current, pulse_width, probability, parallel, first, after, tmr, half_voltage
):
    """`write_energy` from five numbers of the device, for NumPy or tensors.

    Args:
        xp: `numpy` or `keras.ops`.
        current, pulse_width, probability: as for `write_energy`.
        parallel: ohm, resistance of the parallel state.
        first: share of the antiparallel state in a pulse that does not reverse the device, 0 or 1.
        after: increase of this share by a reversal; 0 if a reversal does not change the resistance.
        tmr, half_voltage: TMR as a ratio and `V_half` in V of the device.
    """
    rise = antiparallel_by(xp, current, parallel, tmr, half_voltage) - parallel
    resistance = parallel + first * rise + after * rise * probability
    return current * current * pulse_width * resistance


def gate_energy(gate_voltage: Array, device: DeviceLike) -> Array:
    """Energy in J to charge the gate once, `C_gate V_gate^2`.

    Args:
        gate_voltage: `V_gate` in V, of either sign, scalar, array or tensor.
        device: `MTJDevice` or preset name.

    Raises:
        ValueError: for a voltage that is not a number.

    Example:

    >>> import spinkeras
    >>> round(spinkeras.energy.gate_energy(1.0, "stt_reference") * 1e15, 3)  # fJ
    0.077
    """
    gate_voltage = checks.values("gate_voltage", gate_voltage, "V")
    return get_device(device).gate_capacitance * gate_voltage * gate_voltage


def read_energy(
    probability: Array,
    device: DeviceLike,
    assumptions: EnergyAssumptions | None = None,
    resistance: Array = 1.0,
    tmr: Array = 1.0,
) -> Array:
    """Mean energy in J to read a neuron that has switched with a given probability.

    `V_read^2 t_read [(1 - P) / R_P + P / R_AP(V_read)]` for a device written from the parallel
    state; `R_P` and `R_AP` change places otherwise.

    Args:
        probability: switching probability `P`, 0 to 1, scalar, array or tensor.
        device: `MTJDevice` or preset name.
        assumptions: `EnergyAssumptions` for the read. Default `None`: `EnergyAssumptions()`.
        resistance: factor on the device's `R_P`, above 0, broadcast like `tmr`. Default 1.
        tmr: factor on its TMR, at least 0, broadcast against `probability`. Default 1.

    Raises:
        ValueError: for a value that is not a number or is outside its range.

    Example:

    >>> import spinkeras
    >>> read = [spinkeras.energy.read_energy(p, "stt_reference") for p in (0.0, 1.0)]
    >>> [round(joule * 1e15, 2) for joule in read]  # fJ; the antiparallel state takes less current
    [2.51, 1.28]
    """
    device, assumptions = get_device(device), checked_assumptions(assumptions)
    resistance, tmr = _checked_factors(resistance, tmr)
    probability = _checked_probability(probability)
    fall = 1 + (assumptions.read_voltage / device.tmr_half_voltage) ** 2
    parallel = assumptions.read_voltage**2 * assumptions.read_time / device.resistance_parallel
    parallel = parallel / resistance
    antiparallel = parallel / (1 + device.tmr * tmr / fall)
    before, after = parallel, antiparallel
    if not _starts_parallel(device):
        before, after = after, before
    return before + (after - before) * probability


_other_direction = functools.lru_cache(maxsize=64)(MTJDevice.reversed)


def reset_current(device: DeviceLike, assumptions: EnergyAssumptions | None = None) -> float:
    """Current in A of the reset pulse.

    The current follows the law of the device's `reversed()`. In a macrospin, one pulse of this
    current fails with the probability `reset_error` (exact Fokker-Planck solution). A
    `switching_curve` is known to about a hundredth and may end in a plateau, so its tail gives no
    current for a small error. The reset pulse of such a device is repeated until a read finds the
    device reset. The current is then the one of least energy, at the minimum of `I^2 / P(I)`.

    Args:
        device: `MTJDevice` or preset name.
        assumptions: `EnergyAssumptions` for the reset. Default `None`: `EnergyAssumptions()`.

    Raises:
        ValueError: for a curve that switches without a drive, or that runs freely; if no current
            up to 400 `Ic0` reaches the `reset_error`.

    Example:

    >>> import spinkeras
    >>> round(spinkeras.energy.reset_current("stt_reference") * 1e6, 1)  # uA
    47.0
    """
    return _reset_current(get_device(device), checked_assumptions(assumptions))


@functools.lru_cache(maxsize=64)
def _reset_current(device, assumptions):
    back = _other_direction(device)
    if not tells_reset(device):
        raise ValueError(
            f"The curve of this device's reset (threshold {back.switching_curve.threshold:g} A) "
            "does not describe a reset pulse: the device leaves its state without a drive. "
            "Energies are computed without a reset."
        )
    if back.switching_curve is not None:
        return _cheapest_current(back.switching_curve, assumptions.reset_pulse_width)

    def excess(log_ratio):
        current = math.exp(log_ratio) * back.critical_current
        missed = _macrospin_misses(device, assumptions, current, device.thermal_stability)
        return math.log(missed) - math.log(assumptions.reset_error)

    highest = 1.0
    while excess(math.log(highest)) > 0:
        highest *= 2
        if highest > fokker_planck.MAX_CURRENT_RATIO:
            raise ValueError(
                f"No current up to {highest / 2:g} Ic0 resets this device to an error of "
                f"{assumptions.reset_error:g} in {assumptions.reset_pulse_width:g} s; allow a "
                "longer reset_pulse_width or a larger reset_error."
            )
    root = optimize.brentq(excess, math.log(0.01), math.log(highest), xtol=1e-6)
    return math.exp(root) * back.critical_current


def reset_pulses(device: DeviceLike, assumptions: EnergyAssumptions | None = None) -> int:
    """Largest number of pulses of one reset: 1 for a macrospin, see `reset_current`.

    For a device with a `switching_curve` it is the least `n` with
    `(1 - P(I_reset))^n <= reset_error`. A further pulse follows only if a read finds the device not
    yet reset.

    Args:
        device: `MTJDevice` or preset name.
        assumptions: `EnergyAssumptions` for the reset. Default `None`: `EnergyAssumptions()`.

    Raises:
        ValueError: as `reset_current`, for a device with a `switching_curve`.

    Example:

    >>> import spinkeras
    >>> devices = ("stt_reference", "vgsot_zhang2020")
    >>> [spinkeras.energy.reset_pulses(device) for device in devices]
    [1, 6]
    """
    device, assumptions = get_device(device), checked_assumptions(assumptions)
    if device.switching_curve is None:
        return 1
    switched = _curve_resets(device, assumptions, device.thermal_stability)
    return math.ceil(math.log(assumptions.reset_error) / math.log1p(-min(switched, 1 - 1e-12)))


def reset_failure(
    device: DeviceLike, stability: float, assumptions: EnergyAssumptions | None = None
) -> float:
    """Probability that the nominal reset fails in a device with this thermal stability.

    The current is the `reset_current` of the device, and the pulses are its `reset_pulses`.

    Args:
        device: `MTJDevice` or preset name.
        stability: thermal stability `Delta` of the device that is reset, above 0. A macrospin
            needs 1 to 200.
        assumptions: `EnergyAssumptions` for the reset. Default `None`: `EnergyAssumptions()`.

    Returns:
        Probability, at least 1e-12 for each pulse.

    Raises:
        ValueError: as `reset_current`, and for a stability outside its range.

    Example:

    >>> import spinkeras
    >>> [round(spinkeras.energy.reset_failure("stt_reference", delta), 4) for delta in (40, 44)]
    [0.001, 0.0026]
    """
    device, assumptions = get_device(device), checked_assumptions(assumptions)
    hint = "K_eff Vol / (kB T), about 40"
    stability = checks.number("stability", stability, "(units of kB T)", 1e-9, 1e9, hint)
    if device.switching_curve is not None:
        missed = 1 - _curve_resets(device, assumptions, stability)
        return max(missed, 1e-12) ** reset_pulses(device, assumptions)
    current = reset_current(device, assumptions)
    return float(_macrospin_misses(device, assumptions, current, stability))


def _macrospin_misses(device, assumptions, current, stability):
    """Probability that one reset pulse fails, from the exact solution, at least 1e-12."""
    per_stability = _other_direction(device).critical_current_per_stability
    ratio = current / (per_stability * stability)
    tau = assumptions.reset_pulse_width / device.diffusion_time * stability
    return max(1 - fokker_planck.switching_curve(ratio, [tau], stability)[0], 1e-12)


def _curve_resets(device, assumptions, stability):
    """Probability that one reset pulse succeeds, by the device's curve of the reset direction."""
    current = reset_current(device, assumptions)
    ratio = stability / device.thermal_stability
    curve = _other_direction(device).switching_curve
    return float(curve.switching_probability(current, assumptions.reset_pulse_width, ratio))


def _cheapest_current(curve, width):
    """Current in A, at or above the threshold, at which `I^2 / P(I)` is smallest."""
    ratio = width / curve.pulse_width
    threshold = curve.threshold * ratio**curve.threshold_exponent
    reach = 10 / (curve.slope * ratio**curve.slope_exponent)
    currents = threshold + np.linspace(0, reach, 2001)
    return float(currents[np.argmin(currents**2 / curve.switching_probability(currents, width))])


def reset_energy(
    device: DeviceLike,
    assumptions: EnergyAssumptions | None = None,
    resistance: Array = 1.0,
    tmr: Array = 1.0,
) -> Array:
    """Energy in J to reset a switched device; the reset fails with probability `reset_error`.

    `I_reset^2 t_reset [f R_AP(V) + (1 - f) R_P]` for one pulse from the antiparallel state, `f` the
    `reversal_fraction`; `R_P` and `R_AP` change places otherwise. A three-terminal device has the
    `write_resistance` in place of the bracket. Repeated pulses each count with their read.

    Args:
        device: `MTJDevice` or preset name.
        assumptions: `EnergyAssumptions`. Default `None`: `EnergyAssumptions()`.
        resistance: factor on the device's `R_P`, above 0. The current stays nominal. Default 1.
        tmr: factor on its TMR, at least 0. Default 1.

    Raises:
        ValueError: as `reset_current`, and for a factor outside its range.

    Example:

    >>> import spinkeras
    >>> round(spinkeras.energy.reset_energy("stt_reference") * 1e15)  # fJ
    236
    """
    device, assumptions = get_device(device), checked_assumptions(assumptions)
    resistance, tmr = _checked_factors(resistance, tmr)
    current = reset_current(device, assumptions)
    path = device.write_resistance
    if path is None:
        high = antiparallel_resistance(current, device, resistance, tmr)
        if isinstance(high, np.float64):  # a Python float does not change the dtype of tensors
            high = float(high)
        x = assumptions.reversal_fraction
        x = x if _starts_parallel(device) else 1 - x
        path = x * high + (1 - x) * device.resistance_parallel * resistance
    pulse = current**2 * assumptions.reset_pulse_width * path
    if device.switching_curve is None:
        return pulse
    # A read follows every pulse, until a read finds the device reset.
    switched = _curve_resets(device, assumptions, device.thermal_stability)
    read = read_energy(1 - switched, device, assumptions, resistance, tmr)
    return (pulse + read) / switched


def pulse_energies(
    current: Array,
    pulse_width: Array,
    anisotropy: Array,
    probability: Array,
    device: DeviceLike,
    assumptions: EnergyAssumptions | None = None,
    pulses: int = 1,
    resistance: Array = 1.0,
    tmr: Array = 1.0,
) -> dict[str, Any]:
    """The four energies in J of one neuron's inference, as a dictionary over `COMPONENTS`.

    Write, read and reset are counted for every pulse, the charge of the gate once.

    Args:
        current: A, of either sign, scalar, array or tensor.
        pulse_width: s, at least 0, broadcast against `current`.
        anisotropy: `K_eff` in J/m^3, broadcast against `current`; it gives the gate voltage.
        probability: switching probability, 0 to 1, shape of `current`.
        device: `MTJDevice` or preset name.
        assumptions: `EnergyAssumptions`. Default `None`: `EnergyAssumptions()`.
        pulses: repeated pulses per inference, 1 to 1e6. Default 1.
        resistance: factor on the device's `R_P`, above 0, broadcast against `current`. Default 1.
        tmr: factor on its TMR, at least 0, broadcast against `current`. Default 1.

    Returns:
        `{"write": ..., "gate": ..., "read": ..., "reset": ...}`; the module gives the formulas.

    Raises:
        ValueError: for a value that is not a number or is outside its range, and as
            `reset_current`.

    Example:

    >>> import spinkeras
    >>> device = spinkeras.MTJDevice.preset("stt_reference")
    >>> parts = spinkeras.energy.pulse_energies(73.5e-6, 2e-9, device.anisotropy, 0.5, device)
    >>> {name: round(float(joule) * 1e15) for name, joule in parts.items()}  # fJ
    {'write': 89, 'gate': 0, 'read': 2, 'reset': 118}
    """
    device, assumptions = get_device(device), checked_assumptions(assumptions)
    hint = "repeated pulses of one neuron"
    pulses = checks.whole("pulses", pulses, 1, 1_000_000, hint)
    fraction = assumptions.reversal_fraction
    write = write_energy(current, pulse_width, probability, device, fraction, resistance, tmr)
    rest = (anisotropy, probability, device, assumptions, pulses, resistance, tmr)
    return {"write": pulses * write, **energies_beside_write(*rest)}


def energies_beside_write(
    anisotropy, probability, device, assumptions, pulses=1, resistance=1.0, tmr=1.0
):
    """`pulse_energies` without `"write"`: linear in the probability, independent of the current."""
    reset = reset_energy(device, assumptions, resistance, tmr) if assumptions.reset else 0.0
    return {
        "gate": gate_energy(device.gate_voltage_for(anisotropy), device) + 0 * probability,
        "read": pulses * read_energy(probability, device, assumptions, resistance, tmr),
        "reset": pulses * reset * probability,
    }
