"""The law of a device's fields that is fitted to a table of switching counts.

`DeviceLaw` takes fields on the scales of a fit (`calibration.scales`) and gives the probability of
every row of a table.
"""

import inspect
import math

import numpy as np
from scipy import constants, special

from spinkeras import checks
from spinkeras.calibration import conditions
from spinkeras.calibration.scales import FEMTO, Scaled
from spinkeras.macrospin import fokker_planck
from spinkeras.physics import laws
from spinkeras.physics.device import (
    LIMITS,
    anisotropy_at_magnetization,
    magnetization_ratio,
)

# Each field enters six quantities with these powers: Delta; Ic0 / Delta; t_D (where damping also
# enters as 1 + alpha^2); the relative change of the anisotropy per gate voltage,
# xi / (t_ox t_f K_eff); the share of the demagnetising energy in the anisotropy; and Ic0 / Delta of
# the other direction.
_POWERS = {
    "diameter": (2, 0, 2, 0, 0, 0),
    "thickness": (1, 0, 1, -1, 0, 0),
    "saturation_magnetization": (0, 0, 1, 0, 2, 0),
    "damping": (0, 1, -1, 0, 0, 1),
    "spin_torque_efficiency": (0, -1, 0, 0, 0, 0),
    "anisotropy": (1, 0, 0, -1, -1, 0),
    "temperature": (-1, 1, -1, 0, 0, 1),
    "vcma_coefficient": (0, 0, 0, 1, 0, 0),
    "reset_efficiency": (0, 0, 0, 0, 0, -1),
}
CORRECTION = "exact_odds"
"""Column of a table: the odds of the exact solver divided by the odds of the closed form."""
_RELIABLE = 1e-7  # probabilities of the exact solver have an absolute error of 3e-8


def default_fields(table):
    """The fields that are fitted if the caller names none."""
    both = len(conditions.directions(table)) > 1
    return ["anisotropy", "spin_torque_efficiency", *(["reset_efficiency"] if both else [])]


def scaled_fields(free, device, table):
    gates = np.unique(table["gate_voltage_v"])
    default = {name: LIMITS[name][1:3] for name in _POWERS}
    highest = np.max(np.abs(gates)) or 1.0  # the gate at most doubles the anisotropy, or removes it
    vcma = min(device.anisotropy * device.oxide_thickness * device.thickness / highest, 1e-11)
    default["vcma_coefficient"] = (-vcma, vcma)
    scaled = Scaled.of("MTJDevice", free, default, LIMITS)
    if len(gates) == 1 and "vcma_coefficient" in scaled.names:
        raise ValueError(
            f"vcma_coefficient is free, but every row of the table has the gate voltage "
            f"{gates[0]:g} V, so the data do not determine it: only a shift of the curve with the "
            "gate voltage would. Add rows at another gate voltage (column gate_voltage_v), or "
            "leave vcma_coefficient out of `free`."
        )
    both = len(conditions.directions(table)) > 1
    if "reset_efficiency" in scaled.names and not both:
        raise ValueError(
            "reset_efficiency is free, but the table does not hold both directions, so the data do "
            "not determine it. Give rows of both with a column `direction`, or leave "
            "reset_efficiency out of `free`."
        )
    temperatures = np.unique(table.get("temperature_k", []))
    if "temperature" in scaled.names and temperatures.size:
        raise ValueError(
            "temperature is free, but the table has a column of temperatures, which sets it. Leave "
            "temperature out of `free`."
        )
    shown = [True, True, True, len(gates) > 1, len(temperatures) > 1, both]
    powers = np.array([_POWERS[name] for name in scaled.names])[:, shown]
    if np.linalg.matrix_rank(powers) < len(scaled.names):
        raise ValueError(
            f"The fields {scaled.names} enter the switching probability only through products, so "
            "no data can tell them apart. Free fewer fields. The products are Delta ~ "
            "anisotropy diameter^2 thickness / temperature, Ic0/Delta ~ damping temperature / "
            "spin_torque_efficiency and t_D ~ saturation_magnetization diameter^2 thickness / "
            "(damping temperature). Several gate voltages add vcma_coefficient / (thickness "
            "anisotropy), several temperatures add saturation_magnetization^2 / anisotropy."
        )
    return scaled


class DeviceLaw:
    """Switching probability as a function of a device's fields, on the scales of the fit."""

    tolerance = 1e-9  # largest excess that is accepted
    cure = "Leave {} out of `free`"  # for a field that the data do not determine

    def __init__(self, device, switching_model, temperature_law=None, temperatures=()):
        if not isinstance(switching_model, (str, laws.NeelBrown)):
            raise ValueError("fit_device needs a named law; for a curve use fit_empirical.")
        if device.switching_curve is not None:
            raise ValueError(
                f"The device {device.name!r} switches by its switching_curve, not by the fields "
                "that fit_device fits. Fit the curve with fit_empirical, or give "
                "device.replace(switching_curve=None)."
            )
        if switching_model == "equilibrium":
            raise ValueError(
                "fit_device fits tables of write pulses; the counts of a free-running junction "
                "(switching_model='equilibrium') depend on no pulse width and are not fitted. Set "
                "the fields of MTJDevice, including offset_field and a measured relaxation_time."
            )
        self.build = laws.get_curve(switching_model, device)
        self.model, self.device = switching_model, device
        self.temperature_law = _temperature_law(device, temperature_law, temperatures)

    def probability(self, xp, values, rows):
        """Probability, and the excess: the distance from the law's domain, as a logarithm.

        Outside its domain the law is evaluated at the nearest setting inside it.

        Args:
            xp: `numpy` or `keras.ops`.
            values: natural logarithms of the free fields in SI units; vcma_coefficient in
                fJ/(V m).
            rows: settings, arrays of shape `(settings,)`.
        """
        device = self.device
        logs = {name: value for name, value in values.items() if name != "vcma_coefficient"}
        numbers = [
            math.log(value)
            for value in (
                device.thermal_stability,
                device.critical_current_per_stability,
                device.diffusion_time,
            )
        ]
        for name, log in logs.items():
            if name == "reset_efficiency":  # enters only the rows of the other direction
                continue
            change = log - math.log(getattr(device, name))
            numbers = [number + power * change for number, power in zip(numbers, _POWERS[name])]
            if name == "damping":
                numbers[2] = numbers[2] + xp.log1p(xp.exp(2 * log)) - math.log1p(device.damping**2)
        log_stability, log_unit, log_time = numbers
        log_duration = np.log(rows["pulse_width_s"]) - log_time
        zero = 0 * log_duration  # gives terms full shape and double precision
        log_stability, log_unit = log_stability + zero, log_unit + zero
        log_attempt = zero - log_time  # ln(1 / t_D), to be added to ln(attempt time)
        excess = 0.0
        way = rows.get("direction")
        if way is not None:
            other = way != conditions.direction_from(device)
            log_unit = log_unit + self._log_asymmetry(logs) * other.astype("float64")
        log_vcma, log_softer = 0.0, 0.0
        if "temperature_k" in rows:
            change, excess = self._by_temperature(xp, logs, rows["temperature_k"], zero)
            log_softer, log_heat, log_moment, log_vcma = change
            log_stability = log_stability + log_softer - log_heat
            log_unit = log_unit + log_heat
            log_duration = log_duration - log_moment + log_heat
            log_attempt = log_attempt - log_moment + log_heat
        if np.any(rows["gate_voltage_v"]):
            log_stiffness = sum(
                logs.get(name, math.log(getattr(device, name)))
                for name in ("anisotropy", "thickness")
            )
            log_stiffness = log_stiffness + log_softer - log_vcma
            vcma = values.get("vcma_coefficient", device.vcma_coefficient / FEMTO)
            softening = vcma * FEMTO / device.oxide_thickness * xp.exp(zero - log_stiffness)
            ratio = 1 - softening * rows["gate_voltage_v"]
            inside = xp.maximum(ratio, 1e-3)
            excess = excess + xp.max(inside - ratio, axis=-1)
            log_stability = log_stability + xp.log(inside)
        log_duration = log_duration + 0 * log_stability
        if self.model == "macrospin":
            log_duration, first = _clip(xp, log_duration, laws.DURATION_DOMAIN)
            log_stability, second = _clip(xp, log_stability, laws.STABILITY_DOMAIN)
            excess = excess + xp.max(first, axis=-1) + xp.max(second, axis=-1)
        attempt_time = getattr(self.model, "attempt_time", None)
        if attempt_time is None:
            curve = self.build(xp, log_duration, xp.exp(log_stability))
        else:
            log_attempt = log_attempt + math.log(attempt_time)
            curve = laws.neel_brown_curve(
                xp, log_duration, xp.exp(log_stability), self.model.barrier_exponent, log_attempt
            )
        drive = rows["current_a"] * xp.exp(-log_unit)
        probability = curve.probability(drive - curve.midpoint)
        odds = rows.get(CORRECTION)
        if odds is not None:
            probability = probability * odds / (1 - probability + probability * odds)
        return probability, excess

    def _log_asymmetry(self, logs):
        """`ln` of `Ic0` of the other direction over `Ic0` of the device's own direction."""
        own = logs.get("spin_torque_efficiency", math.log(self.device.spin_torque_efficiency))
        other = self.device.reset_efficiency
        return own - logs.get("reset_efficiency", own if other is None else math.log(other))

    def _by_temperature(self, xp, logs, temperature, zero):
        """`MTJDevice.at_temperature` as logarithms of ratios to the device's own temperature.

        Returns:
            The logarithms for `K_eff`, the thermal energy, `Ms` and the VCMA coefficient; and the
            excess, which is 0 unless the anisotropy is near 0 or negative.
        """
        law, device = self.temperature_law, self.device
        moment = magnetization_ratio(temperature, device.temperature, law["curie_temperature"])
        anisotropy, magnetization = (
            xp.exp(zero + logs.get(name, math.log(getattr(device, name))))
            for name in ("anisotropy", "saturation_magnetization")
        )
        shape = law["demagnetizing_factor"] * constants.mu_0 * magnetization * magnetization / 2
        left = anisotropy_at_magnetization(anisotropy, shape, moment, law["anisotropy_exponent"])
        left = left / anisotropy
        inside = xp.maximum(left, 1e-3 + 0 * left)
        log_moment = np.log(moment)
        log_vcma = law["vcma_exponent"] * log_moment
        change = xp.log(inside), np.log(temperature / device.temperature), log_moment, log_vcma
        return change, xp.max(inside - left, axis=-1)

    def device_of(self, device, temperature=None, direction=None):
        """A fitted device at another temperature in K, or in another direction."""
        if temperature is not None and temperature != device.temperature:
            device = device.at_temperature(temperature, **self.temperature_law)
        return device if direction is None else device.starting(conditions.DIRECTIONS[direction])

    def correction(self, values, rows):
        """Odds of the exact solver divided by the odds of the closed form, for every row.

        Args:
            values: fitted fields in SI units, by name.
            rows: settings; a correction that they already contain is ignored.
        """
        device = self.device.replace(**values)
        bare = {name: column for name, column in rows.items() if name != CORRECTION}
        scale = {name: math.log(v) for name, v in values.items() if name != "vcma_coefficient"}
        if "vcma_coefficient" in values:
            scale["vcma_coefficient"] = values["vcma_coefficient"] / FEMTO
        exact = np.empty(len(rows["current_a"]))
        for held, own in conditions.groups(rows):
            here = self.device_of(device, held.get("temperature_k"), held.get("direction"))
            exact[own] = fokker_planck.switching_probability(
                rows["current_a"][own],
                rows["pulse_width_s"][own],
                here,
                here.anisotropy_at(held["gate_voltage_v"]),
            )
        closed, _ = self.probability(np, scale, bare)
        odds = [special.logit(np.clip(p, _RELIABLE, 1 - _RELIABLE)) for p in (exact, closed)]
        return np.exp(odds[0] - odds[1])

    def outside(self, values, rows):
        """Error message for a best fit outside the domain."""
        largest, longest = (float(np.max(rows[name])) for name in ("current_a", "pulse_width_s"))
        return (
            "The best fit lies outside the domain of the switching law (for 'macrospin': thermal "
            f"stability {laws.STABILITY_DOMAIN[0]:g} to {laws.STABILITY_DOMAIN[1]:g}, "
            f"t_p / t_D {laws.DURATION_DOMAIN[0]:g} to {laws.DURATION_DOMAIN[1]:g}); the "
            f"fit ended at {values}. Check the units of the table: it has currents up to "
            f"{largest:.3g} A and pulses up to {longest:.3g} s, and the device has "
            f"Ic0 = {self.device.critical_current:.3g} A and t_D = "
            f"{self.device.diffusion_time:.3g} s. If they are right, the device is not a macrospin "
            "with these fixed fields: check the fields, free others, or use fit_empirical."
        )


def _temperature_law(device, options, temperatures):
    """All keyword arguments of `at_temperature`, after a check."""
    known = {
        name: parameter.default
        for name, parameter in inspect.signature(device.at_temperature).parameters.items()
        if parameter.kind is parameter.KEYWORD_ONLY
    }
    options = {} if options is None else options
    if not isinstance(options, dict) or set(options) - set(known):
        raise ValueError(
            f"temperature_law = {checks.shown(options)} must be a dictionary of options of "
            f"MTJDevice.at_temperature: {list(known)}."
        )
    law = known | options
    if len(temperatures):
        device.at_temperature(device.temperature, **law)  # refuses unsuitable input
        highest, curie = np.max(temperatures), law["curie_temperature"]
        if highest > 0.999 * curie:
            raise ValueError(
                f"The table goes up to {highest:g} K, but with a curie_temperature of "
                f"{curie:g} K the magnetisation vanishes there; check both."
            )
    return law


def _clip(xp, log, domain):
    """A logarithm clipped to a domain, and its distance from the domain."""
    inside = xp.clip(log, *(math.log(end) for end in domain))
    return inside, xp.abs(log - inside)
