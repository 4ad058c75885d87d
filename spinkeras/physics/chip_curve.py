"""The output of a neuron whose device differs from the nominal device, and is read with errors.

The chip is driven with the settings of the nominal device. Pulse width, gate voltage and bias
current do not follow the factors of a device (`physics.spread`), so a spread of devices changes
threshold and slope.
"""

import math

import numpy as np
from keras import ops
from scipy import special

from spinkeras.physics import laws
from spinkeras.physics.device import STATES
from spinkeras.physics.resistance import current_of_voltage

CAUSES = ("all", "threshold", "slope", "faults")


def chip_curve(
    xp,
    build,
    log_duration,
    stability,
    drive,
    chip,
    spread,
    cause="all",
    device=None,
):
    """Probability that the devices of a chip read as switched.

    Args:
        xp: `numpy` or `keras.ops`.
        build: function `(xp, log_duration, stability) -> Curve` of `laws.get_curve`. A device
            outside the range of the law is moved to the edge of this range.
        log_duration, stability: nominal `ln u` and `Delta` of the knobs.
        drive: `h` of every element for the nominal device.
        chip: `DeviceFactors`.
        spread: `ChipSpread`, for jitter, reading and ceiling.
        cause: which differences count. `"all"`, or only one: the `"threshold"` of the devices,
            their `"slope"`, or the `"faults"` of devices with the nominal curve (jitter, ceiling,
            reading, stuck devices).
        device: nominal `MTJDevice`; needed if `sense_noise`, `read_time` or `offset_current` is
            above 0.

    Raises:
        ValueError: for a spread of the temperature with a measured curve, a spread of the stray
            field of a pulsed device, and a read disturb or a ceiling of a free-running junction.
    """
    per_tesla = getattr(build, "per_tesla", None)
    running = hasattr(build, "telegraph")
    if spread.offset_field and per_tesla is None:
        what = "measured curve" if running else "pulsed device"
        raise ValueError(
            f"offset_field = {spread.offset_field:g} T has no defined effect on a {what}, only on "
            "a free-running junction with switching_model='equilibrium'. Use offset_field=0; "
            "`offset_current` or `current` gives the spread of the thresholds."
        )
    if running and (spread.read_time or spread.ceiling < 1):
        raise ValueError(
            f"read_time = {spread.read_time:g} s describes a read that reverses a stable device, "
            f"and ceiling = {spread.ceiling:g} back-hopping in a pulse. A free-running junction "
            "(switching_model='equilibrium', EquilibriumCurve) has neither. Use read_time=0 and "
            "ceiling=1."
        )
    if spread.temperature and getattr(build, "measured", False):
        raise ValueError(
            f"temperature = {spread.temperature:g} K has no defined effect on a measured switching "
            "curve, which is known only at the temperature of its measurement. Use temperature=0; "
            "`current` or `offset_current` gives the spread of the thresholds."
        )
    own_drive = drive
    if spread.offset_current:
        own_drive = drive - chip.offset_current / device.critical_current_per_stability
    times = 0.0 if getattr(build, "in_seconds", False) else 1.0
    actual_duration = log_duration - times * xp.log(chip.diffusion_time)
    actual_stability = stability * chip.stability

    def law(log_duration, stability):
        if hasattr(build, "domain"):
            durations, stabilities = build.domain
            log_duration = xp.clip(log_duration, *(math.log(end) for end in durations))
            stability = xp.clip(stability, *stabilities)
        return build(xp, log_duration, stability)

    def answer(stretch):
        if cause == "faults":
            curve = law(log_duration + stretch, stability)
            return curve.probability(drive - curve.midpoint)
        curve = law(actual_duration + stretch, actual_stability)
        midpoint = curve.midpoint
        if per_tesla is not None:  # field energy of the moment, divided by kB T
            midpoint = (midpoint + per_tesla * chip.offset_field) * chip.moment
        if cause == "all":
            return curve.probability(own_drive / chip.current - midpoint)
        nominal = law(log_duration, stability)
        if cause == "threshold":  # the chip's threshold with the nominal shape
            return nominal.probability(own_drive - midpoint * chip.current)
        return curve.probability((drive - nominal.midpoint) / chip.current)

    probability = answer(0.0)
    if cause in ("threshold", "slope"):
        return probability
    if spread.pulse_jitter:  # mean over the jitter, by three-point Gauss-Hermite quadrature
        reach = 3**0.5 * spread.pulse_jitter
        probability = 2 / 3 * probability + (answer(reach) + answer(-reach)) / 6
    probability = probability * spread.ceiling
    if spread.read_time:
        probability = probability + (1 - probability) * _disturbed(
            xp, chip, spread, device, stability if cause == "faults" else actual_stability, cause
        )
    if spread.sense_noise:
        wrong = misreadings(xp, chip, spread.sense_noise, device.tmr)
        false_high, missed = wrong if device.initial_state == STATES[0] else reversed(wrong)
        probability = false_high + probability * (1 - false_high - missed)
    probability = probability + spread.read_error * (1 - 2 * probability)
    free = 1 - chip.stuck_low - chip.stuck_high
    return probability * free + chip.stuck_high


def _disturbed(xp, chip, spread, device, stability, cause):
    """Probability that a read reverses each device at its own stability."""
    nominal = float(current_of_voltage(spread.read_voltage, device))
    ratio = nominal / (device.critical_current_per_stability * stability)
    duration = spread.read_time / device.diffusion_time
    if cause != "faults":
        ratio = ratio / (chip.resistance * chip.current)
        duration = duration / chip.diffusion_time
    return laws.reversal(xp, stability, ratio, duration)


def misreadings(xp, chip, sense_noise, nominal_tmr):
    """Probability that a parallel device reads as antiparallel, and the other way round."""
    if not nominal_tmr:
        raise ValueError(
            f"A device with tmr = {nominal_tmr} cannot be read; set sense_noise = 0 or give the "
            "device its TMR (100 % is 1.0)."
        )
    # All currents here are in units of the nominal parallel current.
    antiparallel = 1 / (1 + nominal_tmr)
    reference, noise = (1 + antiparallel) / 2, sense_noise * (1 - antiparallel)
    erf = special.erf if xp is np else ops.erf

    def exceeded(distance):
        return (1 - erf(distance / (noise * 2**0.5))) / 2

    actual_parallel = 1 / chip.resistance
    actual_antiparallel = actual_parallel / (1 + nominal_tmr * chip.tmr)
    return exceeded(actual_parallel - reference), exceeded(reference - actual_antiparallel)
