"""A magnetic tunnel junction as one frozen dataclass in SI units.

A macrospin is a free layer whose magnetisation turns as one. The junction is perpendicular and
collinear. The class computes these quantities from its fields:

    volume       Vol    = pi diameter^2 / 4 * t_f                           [m^3]
    stability    Delta  = K_eff Vol / (kB T)                                [1]
    field        mu0Hk  = 2 K_eff / Ms                                      [T]
    current      Ic0    = (4 e alpha / (hbar eta)) K_eff Vol                [A]
    VCMA         K_eff(V_gate) = K_eff - xi V_gate / (t_ox t_f)             [J/m^3]

VCMA is voltage-controlled magnetic anisotropy. These symbols are fields of the device: the
thickness `t_f`, the saturation magnetization `Ms`, the damping `alpha`, the spin-torque efficiency
`eta`, the VCMA coefficient `xi` and the oxide thickness `t_ox`. docs/symbols.md lists all symbols.

A two-terminal junction carries the write current itself. In a three-terminal device, the write
current flows through a heavy-metal channel of the resistance `write_resistance`, and the read
current flows through the junction. A `switching_curve` describes how the channel current switches
the device.

A write pulse starts in the `initial_state`; a reset pulse leads back to this state. The reset may
follow another law than the write: a macrospin then has a `reset_efficiency`, and a device with a
measured curve has a `reset_curve`.

References: J. C. Slonczewski, J. Magn. Magn. Mater. 159, L1 (1996); W. H. Butler et al., IEEE
Trans. Magn. 48, 4684 (2012) for the critical current of the perpendicular macrospin.
"""

import dataclasses
import difflib
import json
import math
import os
import pathlib
from typing import Any, TypeAlias

import keras
import numpy as np
from scipy import constants, special

from spinkeras import checks, files
from spinkeras._typing import Array, PathLike
from spinkeras.physics import provenance
from spinkeras.physics.presets import DEVICES, FREE_RUNNING

GYROMAGNETIC_RATIO = 1.76085963e11  # rad/(s T), electron
_OXIDE_PERMITTIVITY = 9.7  # MgO, relative

MOST_CURRENT = 0.2  # A; no junction takes more
LONGEST_RETENTION = 1e300  # s; a float cannot hold much longer times

# field: (unit, lowest, highest, what to check)
LIMITS = {
    "diameter": ("m", 5e-9, 1e-6, "40 nm is 40e-9"),
    "thickness": ("m", 2e-10, 1e-8, "1.2 nm is 1.2e-9"),
    "saturation_magnetization": ("A/m", 1e4, 3e6, "1000 kA/m is 1e6"),
    "damping": ("(dimensionless)", 1e-4, 1.0, "Gilbert damping of the free layer, about 0.01"),
    "spin_torque_efficiency": ("(dimensionless)", 1e-3, 2.0, "eta, about 0.3 to 0.7"),
    "anisotropy": ("J/m^3", 1e2, 1e7, "K_eff including shape; 110 kJ/m^3 is 110e3"),
    "temperature": ("K", 1.0, 1000.0, "room temperature is 300"),
    "resistance_area_product": ("ohm m^2", 1e-14, 1e-6, "10 ohm um^2 is 10e-12"),
    "tmr": ("(dimensionless)", 0.0, 10.0, "a ratio: 100 % is 1.0"),
    "tmr_half_voltage": ("V", 0.01, 100.0, "bias at which the TMR has halved, about 0.5"),
    "vcma_coefficient": ("J/(V m)", -1e-11, 1e-11, "50 fJ/(V m) is 50e-15"),
    "oxide_thickness": ("m", 3e-10, 1e-8, "1.4 nm is 1.4e-9"),
    "pulse_width_range": ("s", 1e-11, 1e-2, "2 to 20 ns is (2e-9, 20e-9)"),
    "gate_voltage_range": ("V", -10.0, 10.0, "a pair such as (-1.0, 1.0)"),
    "nominal_pulse_width": ("s", 1e-11, 1e-2, "5 ns is 5e-9"),
    "write_resistance": ("ohm", 1.0, 1e6, "heavy-metal channel, about 1000; None if two-terminal"),
    "offset_field": ("T", -0.1, 0.1, "1 mT is 1e-3"),
    "relaxation_time": ("s", 1e-12, 1e3, "10 ns is 10e-9; None if it is not known"),
    "reset_efficiency": ("(dimensionless)", 1e-3, 2.0, "eta of the reset; None: as for the write"),
}
_LONGEST_INTERVAL = 1e3  # s, between the reads of a junction that runs freely
_OPTIONAL = ("write_resistance", "relaxation_time", "reset_efficiency")
STATES = ("parallel", "antiparallel")
_K_HINT = LIMITS["anisotropy"][3]
_PAIRS = ("pulse_width_range", "gate_voltage_range")


@keras.saving.register_keras_serializable(package="spinkeras")
@checks.by_name
@dataclasses.dataclass(frozen=True, kw_only=True)
class MTJDevice:
    """A perpendicular magnetic tunnel junction, in SI units.

    In a two-terminal device, the write current crosses the junction (spin-transfer torque). A
    device with a `write_resistance` has three terminals: the write current flows through a channel
    below the junction (spin-orbit torque). A write then costs `I^2 write_resistance t_p` in either
    state of the junction.

    Args:
        diameter: m, 5e-9 to 1e-6. Free-layer diameter.
        thickness: `t_f` in m, 2e-10 to 1e-8. Free-layer thickness.
        saturation_magnetization: `Ms` in A/m, 1e4 to 3e6.
        damping: `alpha`, Gilbert damping, 1e-4 to 1.
        spin_torque_efficiency: `eta`, 1e-3 to 2.
        anisotropy: J/m^3, 1e2 to 1e7. Effective anisotropy `K_eff` at zero gate voltage, without
            the demagnetising energy.
        temperature: `T` in K, 1 to 1000. Default 300.
        resistance_area_product: ohm m^2, 1e-14 to 1e-6. Parallel state.
        tmr: tunnel magnetoresistance at zero bias as a ratio, 0 to 10 (1.0 is 100 %).
        tmr_half_voltage: `V_half` in V. `TMR(V) = TMR / (1 + (V / V_half)^2)` at the bias `V`.
        vcma_coefficient: `xi` in J/(V m). With a positive value, a positive gate voltage lowers the
            anisotropy. Papers differ in this sign; a negative value gives the other convention.
        oxide_thickness: `t_ox` in m, 3e-10 to 1e-8.
        pulse_width_range: s, `(shortest, longest)` write pulse that the circuit can produce, 1e-11
            to 1e-2. If the device or its `switching_curve` has a `relaxation_time`, this is the
            interval between reads, up to 1e3.
        gate_voltage_range: V, `(lowest, highest)` gate voltage.
        nominal_pulse_width: s, inside `pulse_width_range`. Pulse width of an untrained neuron.
        write_resistance: ohm, 1 to 1e6, of the channel that carries the write current. Default
            `None`: two terminals.
        switching_curve: `EmpiricalCurve` that describes how pulses switch this device, or
            `EquilibriumCurve` of a junction that runs freely, without pulses. Default `None`: the
            law of the collinear macrospin, with the `damping` and the `spin_torque_efficiency` of
            the write current. A layer of perpendicular anisotropy under spin-orbit torque does not
            follow this law. With a curve, `damping` and `spin_torque_efficiency` describe only the
            junction, for thermal reversal and read disturb.
        offset_field: `B_z` in T, -0.1 to 0.1. Default 0. Stray field along the axis; a positive
            field favours the initial (parallel) state. The field moves the midpoint of a
            free-running junction (`switching_model="equilibrium"`) by `I0 Ms Vol B_z / (2 kB T)`,
            with `I0 = Ic0 / Delta`.
            The laws of pulsed junctions do not include the field.
        relaxation_time: s, 1e-12 to 1e3. Relaxation time of a free-running junction, measured at
            balance (the drive only cancels the stray field). All times of the junction scale with
            it. Real junctions may be faster than a macrospin by orders of magnitude. Default
            `None`: the relaxation time of the macrospin.
        reset_efficiency: `eta` of the reset current, 1e-3 to 2. Default `None`: equal to
            `spin_torque_efficiency`. Slonczewski's torque is stronger in the antiparallel state,
            so the critical currents of the two directions differ.
        reset_curve: `EmpiricalCurve` of the reset, for a device with a `switching_curve`. Default
            `None`: the `switching_curve`.
        initial_state: `"parallel"` (default) or `"antiparallel"`, the state in which a write starts
            and a reset ends. `reversed()` gives the device of the other direction.
        name: free text, not compared by `==`.
        source: citation of the values, not compared by `==`.
        assumed: the values that the source does not give, not compared by `==`. A copy with other
            values names them at the end of `source` and `assumed`, unless it has its own texts.
        origin: leave it out. The class keeps the values here that `source` and `assumed` describe
            (`physics.provenance`).

    Raises:
        ValueError: naming the field, its value, its unit, the allowed range and what to check.

    Example:

    >>> import spinkeras
    >>> device = spinkeras.MTJDevice.preset("stt_reference")
    >>> round(device.thermal_stability, 1), round(device.critical_current * 1e6, 2)
    (40.0, 25.17)
    >>> colder = device.replace(temperature=250.0)
    >>> round(colder.thermal_stability, 1)
    48.0
    """

    diameter: float
    thickness: float
    saturation_magnetization: float
    damping: float
    spin_torque_efficiency: float
    anisotropy: float
    temperature: float = 300.0
    resistance_area_product: float
    tmr: float
    tmr_half_voltage: float
    vcma_coefficient: float
    oxide_thickness: float
    pulse_width_range: tuple[float, float]
    gate_voltage_range: tuple[float, float]
    nominal_pulse_width: float
    write_resistance: float | None = None
    switching_curve: Any = None
    offset_field: float = 0.0
    relaxation_time: float | None = None
    reset_efficiency: float | None = None
    reset_curve: Any = None
    initial_state: str = STATES[0]
    name: str = dataclasses.field(default="", compare=False)
    source: str = dataclasses.field(default="", compare=False)
    assumed: str = dataclasses.field(default="", compare=False)
    origin: Any = dataclasses.field(default=None, repr=False, compare=False)

    def __post_init__(self):
        for field in ("switching_curve", "reset_curve"):
            object.__setattr__(self, field, _curve(field, getattr(self, field)))
        slow = self.has_free_running_curve or self.relaxation_time is not None
        for field, limits in LIMITS.items():
            value = getattr(self, field)
            if value is None and field in _OPTIONAL:
                continue
            if slow and field in ("pulse_width_range", "nominal_pulse_width"):
                limits = (*limits[:2], _LONGEST_INTERVAL, limits[3])
            check = _pair if field in _PAIRS else checks.number
            object.__setattr__(self, field, check(field, value, *limits))  # plain, also from JSON
        for field in ("name", "source", "assumed"):
            checks.text(field, getattr(self, field))
        self._check_curves()
        checked_state("initial_state", self.initial_state, ", the state in which a write starts")
        shortest, longest = self.pulse_width_range
        if not shortest <= self.nominal_pulse_width <= longest:
            raise ValueError(
                f"nominal_pulse_width = {self.nominal_pulse_width:g} s is outside "
                f"pulse_width_range [{shortest:g}, {longest:g}] s. Change one of the two."
            )
        if self.anisotropy_range[0] <= 0:
            raise ValueError(
                f"gate_voltage_range = {self.gate_voltage_range} V would, with vcma_coefficient = "
                f"{self.vcma_coefficient:g} J/(V m), bring the anisotropy to "
                f"{self.anisotropy_range[0]:g} J/m^3; it must stay > 0. Narrow the range to less "
                f"than {abs(self.anisotropy / self._anisotropy_per_volt):.3g} V."
            )
        provenance.keep(self)

    @property
    def has_free_running_curve(self) -> bool:
        """Whether its `switching_curve` is an `EquilibriumCurve`.

        Example:

        >>> import spinkeras
        >>> names = ("stt_reference", "smtj_schnitzspan2023")
        >>> [spinkeras.MTJDevice.preset(name).has_free_running_curve for name in names]
        [False, True]
        """
        return self.switching_curve is not None and self.switching_curve.free_running

    def _check_curves(self):
        """Refuse a reset curve without a switching curve, and fields that have no effect."""
        if self.reset_curve is not None and self.switching_curve is None:
            raise ValueError(
                "reset_curve needs a switching_curve: a device that is reset by a measured curve "
                "is written by one, too. Give both, or neither."
            )
        free = [
            name
            for name in ("switching_curve", "reset_curve")
            if getattr(self, name) is not None and getattr(self, name).free_running
        ]
        if free and self.reset_curve is not None:
            raise ValueError(
                f"{free[0]} describes a junction that runs freely. Such a junction is never "
                "written nor reset, so it has no reset_curve. Leave reset_curve out, or give an "
                "EmpiricalCurve of pulses."
            )
        for name in ("offset_field", "relaxation_time"):
            value = getattr(self, name)
            if value and self.has_free_running_curve:
                place = "threshold" if name == "offset_field" else name
                raise ValueError(
                    f"{name} = {value:g} {LIMITS[name][0]} has no effect beside a switching_curve "
                    f"of a free-running junction: the {place} of the curve describes it. Leave "
                    f"{name} out."
                )

    def __repr__(self):
        """One line: name, stability, critical current, resistance and the ranges of the knobs."""
        named = f"{checks.shown(self.name)}, " if self.name else ""
        shortest, longest = self.pulse_width_range
        lowest, highest = self.gate_voltage_range
        return (
            f"{type(self).__name__}({named}Delta {self.thermal_stability:.3g}, "
            f"Ic0 {self.critical_current * 1e6:.3g} uA, R_P {self.resistance_parallel:.3g} ohm, "
            f"pulses {shortest * 1e9:.3g} to {longest * 1e9:.3g} ns, "
            f"gate {lowest:g} to {highest:g} V)"
        )

    def _repr_html_(self):
        import spinkeras

        return spinkeras.cards.device(self)

    # --- geometry and magnetics -------------------------------------------------------------

    @property
    def area(self) -> float:
        """Junction area `pi diameter^2 / 4` in m^2.

        Example:

        >>> import spinkeras
        >>> device = spinkeras.MTJDevice.preset("stt_reference")
        >>> round(device.area * 1e18)  # nm^2
        1257
        """
        return math.pi * self.diameter**2 / 4

    @property
    def volume(self) -> float:
        """Free-layer volume `area t_f` in m^3.

        Example:

        >>> import spinkeras
        >>> device = spinkeras.MTJDevice.preset("stt_reference")
        >>> round(device.volume * 1e27)  # nm^3
        1508
        """
        return self.area * self.thickness

    @property
    def thermal_energy(self) -> float:
        """`kB T` in J.

        Example:

        >>> import spinkeras
        >>> device = spinkeras.MTJDevice.preset("stt_reference")
        >>> round(device.thermal_energy * 1e21, 2)  # zJ, at 300 K
        4.14
        """
        return constants.k * self.temperature

    @property
    def thermal_stability(self) -> float:
        """`Delta = K_eff Vol / (kB T)`, dimensionless.

        Example:

        >>> import spinkeras
        >>> device = spinkeras.MTJDevice.preset("stt_reference")
        >>> round(device.thermal_stability, 1)
        40.0
        """
        return self.stability_at(self.anisotropy)

    def stability_at(self, anisotropy: Array) -> Array:
        """`Delta = K_eff Vol / (kB T)` at another anisotropy in J/m^3, number or array.

        Args:
            anisotropy: `K_eff` in J/m^3, above 0, number, array or tensor.

        Raises:
            ValueError: for a value that is not a number or is not above 0.

        Example:

        >>> import spinkeras
        >>> device = spinkeras.MTJDevice.preset("stt_reference")
        >>> round(device.stability_at(device.anisotropy / 2), 1)
        20.0
        """
        anisotropy = checks.values("anisotropy", anisotropy, "J/m^3", 0, hint=_K_HINT, above=True)
        return anisotropy * self.volume / self.thermal_energy

    @property
    def anisotropy_field(self) -> float:
        """`mu0Hk = 2 K_eff / Ms` in T.

        Example:

        >>> import spinkeras
        >>> device = spinkeras.MTJDevice.preset("stt_reference")
        >>> round(device.anisotropy_field, 2)
        0.22
        """
        return 2 * self.anisotropy / self.saturation_magnetization

    @property
    def critical_current(self) -> float:
        """`Ic0 = (4 e alpha / (hbar eta)) K_eff Vol` in A, of the collinear macrospin.

        Example:

        >>> import spinkeras
        >>> device = spinkeras.MTJDevice.preset("stt_reference")
        >>> round(device.critical_current * 1e6, 2)  # uA
        25.17
        """
        return self.critical_current_per_stability * self.thermal_stability

    @property
    def critical_current_per_stability(self) -> float:
        """`Ic0 / Delta = 4 e alpha kB T / (hbar eta)` in A: independent of the anisotropy.

        Example:

        >>> import spinkeras
        >>> device = spinkeras.MTJDevice.preset("stt_reference")
        >>> round(device.critical_current_per_stability * 1e6, 2)  # uA
        0.63
        """
        charge = 4 * constants.e * self.damping * self.thermal_energy
        return charge / (constants.hbar * self.spin_torque_efficiency)

    @property
    def diffusion_time(self) -> float:
        """`t_D = Ms Vol (1 + alpha^2) / (2 alpha gamma kB T)` in s: independent of the anisotropy.

        The dimensionless pulse duration is `tau = Delta t_p / t_D`.

        Example:

        >>> import spinkeras
        >>> device = spinkeras.MTJDevice.preset("stt_reference")
        >>> round(device.diffusion_time * 1e9, 1)  # ns
        68.9
        """
        moment = self.saturation_magnetization * self.volume * (1 + self.damping**2)
        return moment / (2 * self.damping * GYROMAGNETIC_RATIO * self.thermal_energy)

    @property
    def attempt_time(self) -> float:
        """Zero-current Kramers attempt time `t_D / (Delta sqrt(Delta / pi))` in s (Brown 1963).

        Example:

        >>> import spinkeras
        >>> device = spinkeras.MTJDevice.preset("stt_reference")
        >>> round(device.attempt_time * 1e9, 2)  # ns
        0.48
        """
        delta = self.thermal_stability
        return self.diffusion_time / (delta * math.sqrt(delta / math.pi))

    @property
    def retention_time(self) -> float:
        """Mean time in s before a thermal reversal, `attempt_time exp(Delta)`; inf from 1e300 s.

        Example:

        >>> import spinkeras
        >>> device = spinkeras.MTJDevice.preset("stt_reference")
        >>> round(device.retention_time / 3.156e7, 1)  # years
        3.6
        """
        time = float(self.retention_at(self.thermal_stability))
        return time if time < LONGEST_RETENTION else math.inf

    def retention_at(self, stability: Array) -> Array:
        """Mean time in s before a thermal reversal at given stabilities, at most 1e300 s (NumPy).

        `t_D sqrt(pi / Delta) exp(Delta) / Delta` (Brown 1963).

        Args:
            stability: thermal stability `K_eff(V_gate) Vol / (kB T)`, above 0, number or array.

        Raises:
            ValueError: for a value that is not a number or is not above 0.

        Example:

        >>> import spinkeras
        >>> device = spinkeras.MTJDevice.preset("stt_reference")
        >>> (device.retention_at([30.0, 40.0]) / 3600).round(1)  # hours; 3.6 years are 31579
        array([2.20000e+00, 3.15791e+04])
        """
        stability = np.asarray(checked_stability(stability))
        attempt = self.diffusion_time / (stability * np.sqrt(stability / math.pi))
        seconds = np.exp(np.minimum(np.log(attempt) + stability, 700))  # exp overflows
        return np.minimum(seconds, LONGEST_RETENTION)

    # --- electrics --------------------------------------------------------------------------

    @property
    def resistance_parallel(self) -> float:
        """`R_P = RA / A` in ohm.

        Example:

        >>> import spinkeras
        >>> device = spinkeras.MTJDevice.preset("stt_reference")
        >>> round(device.resistance_parallel)
        7958
        """
        return self.resistance_area_product / self.area

    @property
    def resistance_antiparallel(self) -> float:
        """`R_AP = R_P (1 + TMR)` at zero bias, in ohm.

        Example:

        >>> import spinkeras
        >>> device = spinkeras.MTJDevice.preset("stt_reference")
        >>> round(device.resistance_antiparallel)
        15915
        """
        return self.resistance_parallel * (1 + self.tmr)

    @property
    def write_path_resistance(self) -> float:
        """Resistance in ohm that the write current meets: the channel, or the parallel junction.

        Example:

        >>> import spinkeras
        >>> device = spinkeras.MTJDevice.preset("stt_reference")
        >>> channel = spinkeras.MTJDevice.preset("vgsot_zhang2020")
        >>> round(device.write_path_resistance), round(channel.write_path_resistance)
        (7958, 1112)
        """
        return self.resistance_parallel if self.write_resistance is None else self.write_resistance

    @property
    def gate_capacitance(self) -> float:
        """`C_gate = eps0 eps_r area / t_ox` in F (MgO, eps_r = 9.7).

        Example:

        >>> import spinkeras
        >>> device = spinkeras.MTJDevice.preset("stt_reference")
        >>> round(device.gate_capacitance * 1e15, 3)  # fF
        0.077
        """
        return constants.epsilon_0 * _OXIDE_PERMITTIVITY * self.area / self.oxide_thickness

    @property
    def _anisotropy_per_volt(self) -> float:
        return self.vcma_coefficient / (self.oxide_thickness * self.thickness)

    @property
    def anisotropy_range(self) -> tuple[float, float]:
        """`(lowest, highest)` K_eff in J/m^3 over the gate-voltage range.

        Example:

        >>> import spinkeras
        >>> device = spinkeras.MTJDevice.preset("stt_reference")
        >>> [round(end / 1e3, 1) for end in device.anisotropy_range]  # kJ/m^3
        [80.1, 139.6]
        """
        ends = [self.anisotropy_at(voltage) for voltage in self.gate_voltage_range]
        return min(ends), max(ends)

    def anisotropy_at(self, gate_voltage: Array) -> Array:
        """K_eff in J/m^3 at a gate voltage in V (scalar or array, not range-checked).

        `K_eff(V_gate) = K_eff - xi V_gate / (t_ox t_f)`

        Args:
            gate_voltage: `V_gate` in V, of either sign, number, array or tensor.

        Raises:
            ValueError: for a value that is not a number.

        Example:

        >>> import spinkeras
        >>> device = spinkeras.MTJDevice.preset("stt_reference")
        >>> round(device.anisotropy_at(1.0) / 1e3, 1)  # kJ/m^3
        80.1
        """
        gate_voltage = checks.values("gate_voltage", gate_voltage, "V")
        return self.anisotropy - self._anisotropy_per_volt * gate_voltage

    def gate_voltage_for(self, anisotropy: Array) -> Array:
        """Gate voltage in V that gives a K_eff in J/m^3, the inverse of `anisotropy_at`.

        The voltage is 0 V for a device without voltage control (`vcma_coefficient = 0`). It may lie
        outside `gate_voltage_range`.

        Args:
            anisotropy: `K_eff` in J/m^3, above 0, number, array or tensor.

        Raises:
            ValueError: for a value that is not a number or is not above 0.

        Example:

        >>> import spinkeras
        >>> device = spinkeras.MTJDevice.preset("stt_reference")
        >>> round(device.gate_voltage_for(device.anisotropy_at(0.5)), 6)
        0.5
        """
        anisotropy = checks.values("anisotropy", anisotropy, "J/m^3", 0, hint=_K_HINT, above=True)
        if self.vcma_coefficient == 0:
            return 0.0 * anisotropy
        return (self.anisotropy - anisotropy) / self._anisotropy_per_volt

    # --- a least thermal stability --------------------------------------------------------------

    def with_least_stability(self, stability: float) -> "MTJDevice":
        """This device with a gate range that keeps the thermal stability at or above a limit.

        The method narrows `gate_voltage_range`. Everything that uses this range keeps the limit:
        the knobs of a layer in training, tables for the driver, exports.

        Args:
            stability: least thermal stability `K_eff(V_gate) Vol / (kB T)`, dimensionless, 1e-3 to
                1e4.

        Raises:
            ValueError: for a value outside its range, or if no gate voltage of the range gives
                this stability.

        Example:

        >>> import spinkeras
        >>> device = spinkeras.MTJDevice.preset("stt_reference").with_least_stability(35)
        >>> round(device.gate_voltage_range[1], 3)
        0.461
        """
        hint = "ten years of retention take about 40"
        stability = checks.number("stability", stability, "(units of kB T)", 1e-3, 1e4, hint)
        return self._with_floor(stability, f"a thermal stability of {stability:g}")

    def with_least_retention(self, seconds: float) -> "MTJDevice":
        """As `with_least_stability`, for the mean time before a thermal reversal.

        Args:
            seconds: s, 1e-12 to 1e300; a year is 3.2e7.

        Raises:
            ValueError: as `with_least_stability`.

        Example:

        >>> import spinkeras
        >>> device = spinkeras.MTJDevice.preset("stt_reference").with_least_retention(3.2e7)
        >>> round(device.gate_voltage_range[1], 3)
        0.122
        """
        stability = self.stability_for_retention(seconds)
        return self._with_floor(stability, f"{float(seconds):g} s")

    def stability_for_retention(self, seconds: float) -> float:
        """Thermal stability, at least 1.5, whose `retention_time` is the given number of seconds.

        It solves `seconds = t_D sqrt(pi) exp(Delta) / Delta^1.5`, which rises for `Delta > 1.5`.

        Args:
            seconds: s, 1e-12 to 1e300; a year is 3.2e7.

        Raises:
            ValueError: for a value outside its range.

        Example:

        >>> import spinkeras
        >>> device = spinkeras.MTJDevice.preset("stt_reference")
        >>> round(device.stability_for_retention(10 * 3.156e7), 1)  # ten years
        41.1
        """
        hint = "a year is 3.2e7"
        seconds = checks.number("seconds", seconds, "s", 1e-12, LONGEST_RETENTION, hint)
        ratio = seconds / (self.diffusion_time * math.sqrt(math.pi))
        argument = -(ratio ** (-1 / 1.5)) / 1.5
        if argument < -math.exp(-1):  # even a stability of 1.5 gives a longer time
            return 1.5
        return float(-1.5 * special.lambertw(argument, -1).real)

    def _with_floor(self, stability, described):
        def reached(voltage):
            return self.stability_at(self.anisotropy_at(voltage))

        ends = sorted(self.gate_voltage_range, key=reached)
        if reached(ends[1]) < stability:
            raise ValueError(
                f"No gate voltage of {self.gate_voltage_range} V gives {described}: the thermal "
                f"stability needed is {stability:.4g}, the range reaches {reached(ends[0]):.4g} to "
                f"{reached(ends[1]):.4g}. Ask for less, or use a device with a larger anisotropy."
            )
        if reached(ends[0]) < stability:
            anisotropy = stability * self.thermal_energy / self.volume
            voltage = float(self.gate_voltage_for(anisotropy))
            while reached(voltage) < stability:  # rounding can leave it slightly below
                voltage = math.nextafter(voltage, ends[1])
            ends[0] = voltage
        return self.replace(gate_voltage_range=tuple(sorted(ends)))

    # --- the other direction ------------------------------------------------------------------

    def reversed(self) -> "MTJDevice":
        """The same junction in the other direction: the former reset is now the write.

        The efficiencies and the curves of write and reset change places. The initial state is the
        other one, and `offset_field` changes its sign. Without a law for the reset, the law of the
        write stays. The curve of a free-running junction is its `EquilibriumCurve.reversed()`:
        `1 - P` over the opposite current.

        Example:

        >>> import spinkeras
        >>> device = spinkeras.MTJDevice.preset("stt_reference").replace(reset_efficiency=0.8)
        >>> back = device.reversed()
        >>> back.initial_state, back.spin_torque_efficiency, back.reversed() == device
        ('antiparallel', 0.8, True)
        """
        changes = {"initial_state": STATES[self.initial_state == STATES[0]]}
        pairs = (("spin_torque_efficiency", "reset_efficiency"), ("switching_curve", "reset_curve"))
        for write, reset in pairs:
            if getattr(self, reset) is not None:
                changes |= {write: getattr(self, reset), reset: getattr(self, write)}
        if self.has_free_running_curve:
            changes["switching_curve"] = self.switching_curve.reversed()
        return self.replace(offset_field=0.0 - self.offset_field, **changes)

    def starting(self, state: str) -> "MTJDevice":
        """This device if it has the given initial state, else its `reversed()`.

        Args:
            state: `"parallel"` or `"antiparallel"`.

        Raises:
            ValueError: for another state.

        Example:

        >>> import spinkeras
        >>> device = spinkeras.MTJDevice.preset("stt_reference")
        >>> device.starting("antiparallel").initial_state
        'antiparallel'
        """
        return self if self.initial_state == checked_state("state", state) else self.reversed()

    # --- copies and files -------------------------------------------------------------------

    def at_temperature(
        self,
        temperature: float,
        *,
        curie_temperature: float = 1120.0,
        anisotropy_exponent: float = 2.18,
        vcma_exponent: float = 2.83,
        demagnetizing_factor: float = 1.0,
    ) -> "MTJDevice":
        """The same junction at another temperature, with the material values of that temperature.

        `Ms(T) = Ms(0) (1 - (T / T_C)^(3/2))`, and with `ratio = Ms(T) / Ms` of this device

            interface anisotropy   K_eff + N_z mu0 Ms^2 / 2   ~ ratio^anisotropy_exponent
            VCMA coefficient       xi                         ~ ratio^vcma_exponent

        Resistance, TMR, damping and `eta` stay as they are, because their laws differ from stack
        to stack. `replace(temperature=...)` changes only the thermal energy.

        Args:
            temperature: K, 1 to 1000, below `curie_temperature`.
            curie_temperature: K, 100 to 2000. Default 1120, of CoFeB films (they vary by 300 K).
            anisotropy_exponent: 0 to 10. Default 2.18, measured at CoFeB/MgO interfaces. A bulk
                uniaxial anisotropy has 3.
            vcma_exponent: 0 to 10. Default 2.83.
            demagnetizing_factor: `N_z`, 0 to 1. Default 1, the value of a film. With 0, the
                effective anisotropy as a whole follows the power law.

        Raises:
            ValueError: for values outside these ranges; for a device with a `switching_curve` or a
                measured `relaxation_time`, which hold only at the temperature of the measurement;
                if no perpendicular anisotropy is left.

        Example:

        >>> import spinkeras
        >>> device = spinkeras.MTJDevice.preset("stt_reference")
        >>> round(device.at_temperature(310.0).thermal_stability, 2)
        37.71
        >>> round(device.replace(temperature=310.0).thermal_stability, 2)
        38.71

        References: F. Bloch, Z. Phys. 61, 206 (1930); J. G. Alzate et al., Appl. Phys. Lett. 104,
        112410 (2014) for the two exponents.
        """
        name = "switching_curve" if self.switching_curve is not None else "relaxation_time"
        if getattr(self, name) is not None:
            raise ValueError(
                f"The {name} of this device holds at the temperature of its measurement; fit "
                f"another {name} at the other temperature."
            )
        number = checks.number
        curie = number("curie_temperature", curie_temperature, "K", 100.0, 2000.0)
        highest = min(1000.0, 0.999 * curie)
        hint = "below the Curie temperature; 25 degrees Celsius are 298"
        wanted = number("temperature", temperature, "K", 1.0, highest, hint)
        number("temperature of the device", self.temperature, "K", 1.0, highest, hint)
        exponents = {"anisotropy": anisotropy_exponent, "vcma": vcma_exponent}
        for kind, exponent in exponents.items():
            number(f"{kind}_exponent", exponent, "(a power)", 0.0, 10.0)
        factor = number("demagnetizing_factor", demagnetizing_factor, "(a fraction)", 0.0, 1.0)

        magnetization = magnetization_ratio(wanted, self.temperature, curie)
        shape = factor * constants.mu_0 * self.saturation_magnetization**2 / 2
        anisotropy = anisotropy_at_magnetization(
            self.anisotropy, shape, magnetization, anisotropy_exponent
        )
        lowest = LIMITS["anisotropy"][1]
        if anisotropy < lowest:
            raise ValueError(
                f"At temperature = {wanted:g} K the effective anisotropy would be "
                f"{anisotropy:.4g} J/m^3, less than {lowest:g}: the layer is no longer "
                "perpendicular. Use a lower temperature, or other exponents."
            )
        return self.replace(
            temperature=wanted,
            saturation_magnetization=self.saturation_magnetization * magnetization,
            anisotropy=anisotropy,
            vcma_coefficient=self.vcma_coefficient * magnetization**vcma_exponent,
        )

    def replace(self, **changes: Any) -> "MTJDevice":
        """A copy with some fields changed, validated like a new device.

        The texts `source` and `assumed` then name the changed fields, unless they change, too.

        Args:
            **changes: fields of the device by name, in SI units.

        Raises:
            ValueError: as `MTJDevice`.

        Example:

        >>> import spinkeras
        >>> device = spinkeras.MTJDevice.preset("stt_reference")
        >>> half = device.replace(damping=device.damping / 2)
        >>> round(half.critical_current / device.critical_current, 3)
        0.5
        """
        return dataclasses.replace(self, **changes)

    def get_config(self) -> dict:
        """Fields as a plain dictionary (Keras serialisation).

        Example:

        >>> import spinkeras
        >>> config = spinkeras.MTJDevice.preset("stt_reference").get_config()
        >>> config["pulse_width_range"]
        [2e-09, 2e-08]
        """
        config = provenance.values(self)
        for field in ("switching_curve", "reset_curve"):
            if config[field] is not None:
                config[field] = config[field].get_config()
        return {key: list(v) if isinstance(v, tuple) else v for key, v in config.items()}

    @classmethod
    def from_config(cls, config: dict) -> "MTJDevice":
        """Inverse of `get_config`.

        Args:
            config: dictionary of fields, in SI units.

        Raises:
            ValueError: for anything but a dictionary, and as `MTJDevice`.

        Example:

        >>> import spinkeras
        >>> device = spinkeras.MTJDevice.preset("stt_reference")
        >>> spinkeras.MTJDevice.from_config(device.get_config()) == device
        True
        """
        if not isinstance(config, dict):
            raise ValueError(
                f"A device is described by a dictionary of fields; got {checks.shown(config)}."
            )
        return cls(**config)

    def to_json(self) -> str:
        """The device as JSON text in SI units; every float is kept exactly.

        Example:

        >>> import spinkeras
        >>> device = spinkeras.MTJDevice.preset("stt_reference")
        >>> print(device.to_json()[4:21])
        "diameter": 4e-08
        """
        return json.dumps(self.get_config(), indent=2)

    @classmethod
    def from_json(cls, text: str) -> "MTJDevice":
        """Device from the text of `to_json`; malformed text gives a `ValueError`.

        Args:
            text: JSON text, fields in SI units.

        Raises:
            ValueError: for text that is not JSON, and as `MTJDevice`.

        Example:

        >>> import spinkeras
        >>> device = spinkeras.MTJDevice.preset("stt_reference")
        >>> spinkeras.MTJDevice.from_json(device.to_json()) == device
        True
        """
        return cls.from_config(checks.from_json(text, "A device description"))

    def save(self, path: PathLike) -> None:
        """Write the device to a file for `MTJDevice.load`; a file of the same name is replaced.

        Every function that accepts a preset name also accepts the path of such a file.

        Args:
            path: must end in `.json`.

        Raises:
            ValueError: for a path of another ending.
            FileNotFoundError: for a folder that does not exist.

        Example:

        >>> import spinkeras
        >>> spinkeras.MTJDevice.preset("stt_reference").replace(damping=0.02).save("mine.json")
        >>> spinkeras.SpinNeuron(device="mine.json").device.damping
        0.02
        """
        if not _is_file(path):
            raise ValueError(
                f"path = {checks.shown(path)} must end in '.json', such as 'device.json'; a name "
                "without this ending is the name of a preset."
            )
        files.write(path, self.to_json() + "\n")

    @classmethod
    def load(cls, path: PathLike) -> "MTJDevice":
        """The device in a file that `save` wrote, or that holds the fields of a device as JSON.

        Args:
            path: path of a text file in UTF-8, with values in SI units.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if the file holds anything else, or a field outside its range.

        Example:

        >>> import spinkeras
        >>> spinkeras.MTJDevice.preset("stt_reference").save("device.json")
        >>> round(spinkeras.MTJDevice.load("device.json").critical_current * 1e6, 2)  # uA
        25.17
        """
        if not isinstance(path, (str, os.PathLike)):
            raise ValueError(
                f"path = {checks.shown(path)} must be the path of a file, such as 'device.json'."
            )
        path = pathlib.Path(path)
        if not path.is_file():
            raise FileNotFoundError(
                f"There is no file {checks.shown(str(path))} with a device. MTJDevice.save writes "
                f"one; presets, which need no file, are {[*DEVICES, *FREE_RUNNING]}."
            )
        with checks.errors_about(checks.shown(str(path))):
            return cls.from_json(files.read_text(path))

    @classmethod
    def preset(cls, name: str) -> "MTJDevice":
        """One of the devices listed by `spinkeras.presets()`.

        Args:
            name: name of a preset.

        Raises:
            ValueError: for an unknown name.

        Example:

        >>> import spinkeras
        >>> round(spinkeras.MTJDevice.preset("stt_reference").critical_current * 1e6, 2)  # uA
        25.17
        """
        known = DEVICES | FREE_RUNNING
        if not isinstance(name, str) or name not in known:
            close = difflib.get_close_matches(name, known, 1) if isinstance(name, str) else ()
            hint = f" Did you mean {close[0]!r}?" if close else ""
            hint = " MTJDevice.load reads a file." if _is_file(name) else hint
            raise ValueError(
                f"Unknown preset {checks.shown(name)} for a device.{hint} Available presets: "
                f"{list(known)}."
            )
        return cls(name=name, **known[name])


def checked_state(name: str, state: Any, meaning: str = "") -> str:
    """`state` itself, or a `ValueError` that lists the two states."""
    if not isinstance(state, str) or state not in STATES:
        raise ValueError(f"{name} = {checks.shown(state)} must be one of {STATES}{meaning}.")
    return state


def checked_stability(stability: Array) -> Array:
    """The thermal stability, a number, an array or a tensor, above 0."""
    hint = "K_eff Vol / (kB T), 40 keeps a bit for years"
    return checks.values("stability", stability, "(units of kB T)", 0, hint=hint, above=True)


def magnetization_ratio(temperature: Array, reference: float, curie_temperature: float) -> Array:
    """`Ms(T) / Ms(reference)` by Bloch's law, with temperatures in K."""
    bloch = 1 - (temperature / curie_temperature) ** 1.5
    return bloch / (1 - (reference / curie_temperature) ** 1.5)


def anisotropy_at_magnetization(
    anisotropy: Array, shape: Array, magnetization: Array, exponent: float
) -> Array:
    """`K_eff` in J/m^3 after `Ms` is multiplied by `magnetization`.

    `shape` is the demagnetising energy in J/m^3 before that.
    """
    return (anisotropy + shape) * magnetization**exponent - shape * magnetization**2


DeviceLike: TypeAlias = MTJDevice | str | dict[str, Any]  # a device, a preset, a description


def presets(free_running: bool = False) -> list[str]:
    """Names of the available device presets.

    Args:
        free_running: `False` (default) gives devices that are written by pulses. `True` gives
            devices of a low barrier: they have an `EquilibriumCurve` of their own or need
            `switching_model="equilibrium"`.

    Raises:
        ValueError: for another value.

    Example:

    >>> import spinkeras
    >>> "stt_reference" in spinkeras.presets()
    True
    """
    return list(FREE_RUNNING if checks.flag("free_running", free_running) else DEVICES)


def get_device(device: Any) -> MTJDevice:
    """An `MTJDevice` from a device, a preset name, the path of a file or a serialised device.

    A text that ends in `.json` is a path, and so is any `pathlib.Path`.

    Args:
        device: `MTJDevice`, name of a preset, path, or dictionary of fields in SI units.

    Raises:
        ValueError: for an unknown preset, a file without a device or anything else.
        FileNotFoundError: for a path without a file.

    Example:

    >>> from spinkeras.physics import get_device
    >>> round(get_device("stt_reference").thermal_stability, 1)
    40.0
    """
    if isinstance(device, MTJDevice):
        return device
    if _is_file(device) or isinstance(device, os.PathLike):
        return MTJDevice.load(device)
    if isinstance(device, str):
        return MTJDevice.preset(device)
    if isinstance(device, dict):
        if "class_name" in device:
            return checks.from_keras("device", device, MTJDevice)
        return MTJDevice.from_config(device)
    raise ValueError(
        f"device must be an MTJDevice or one of the presets {[*DEVICES, *FREE_RUNNING]}, or the "
        f"path of a file that MTJDevice.save wrote; got {checks.shown(device)}."
    )


def _is_file(name) -> bool:
    """Whether a name is the path of a device's file (by its ending), not the name of a preset."""
    is_name = isinstance(name, (str, os.PathLike))
    return is_name and os.fsdecode(os.fspath(name)).lower().endswith(".json")


def _curve(field, value):
    """A measured curve from a curve or its fields, or `None`.

    The registry of Keras gives the classes, because the module of the curves imports this one.
    """
    names = ("EmpiricalCurve", "EquilibriumCurve")
    pulsed, free = (keras.saving.get_registered_object(f"spinkeras>{name}") for name in names)
    if isinstance(value, dict):
        kind = free if "relaxation_time" in value else pulsed
        with checks.errors_about(field):
            value = kind.from_config(value)
    if not (value is None or isinstance(value, pulsed)):
        raise ValueError(f"{field} = {checks.shown(value)} must be an EmpiricalCurve or None.")
    return value


def _pair(field, value, unit, low, high, hint):
    one_axis = isinstance(value, (list, tuple)) or getattr(value, "ndim", 0) == 1
    if not one_axis or len(value) != 2:
        raise ValueError(
            f"{field} = {checks.shown(value)} is not a pair of values in {unit}. Hint: {hint}."
        )
    lower, upper = (checks.number(field, v, unit, low, high, hint) for v in value)
    if lower > upper:
        raise ValueError(
            f"{field} = ({lower:g}, {upper:g}) {unit}: the lower end exceeds the upper; swap them."
        )
    return lower, upper
