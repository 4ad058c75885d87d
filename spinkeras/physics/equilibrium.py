"""A junction with a low barrier runs freely: how often it is reversed, and how fast it changes.

A superparamagnetic junction needs no reset. Its magnetisation reaches the stationary density
`exp(Delta (z - i)^2)` over `z = cos(theta)` and wanders within this density. Its bit, 1 for
`z < 0`, is a random telegraph signal. The probability `P` of the bit 1 depends only on the drive
`h = I / (Ic0 / Delta)` and on `Delta`, not on the time. With `i = h / Delta` and
`root = Delta^1/2`,

    P = [erfi(root (1 + i)) - erfi(root i)] / [erfi(root (1 + i)) + erfi(root (1 - i))]

The library approximates `P` by a `RationalLogit`. `<...>` is an average over `|z|` without a drive,
with the weight `exp(Delta z^2)` on [0, 1]:

    slope = <|z|>,  a = c = 0,  b = d / (2 slope)
    d = 4/3 <(|z| - slope)^3> / (slope^2 (1 - 2 slope))

This curve has the exact slope and the exact third derivative at `P = 1/2`. Far from there, it has
the exact slope of the logit, 2. It is within 1.2e-4 of `P` for every `Delta`, and no number in it
is fitted. A field `B_z` along the axis moves the curve by `h_z = Ms Vol B_z / (2 kB T)`.

The rates are Chebyshev series in `Delta` and `(h^2 + 0.49)^1/2`. They are fitted to the exact rates
(`tools.fit_equilibrium`): the slowest rate within 0.5 %, the correlation time within 0.7 %.

References: W. F. Brown, Phys. Rev. 130, 1677 (1963) for the equation; K. Y. Camsari, R. Faria,
B. M. Sutton, S. Datta, Phys. Rev. X 7, 031014 (2017) for such junctions as stochastic bits.
"""

import dataclasses
import json
import math
from importlib import resources

import numpy as np

from spinkeras import checks
from spinkeras._typing import Array
from spinkeras.physics.curve import RationalLogit
from spinkeras.physics.device import DeviceLike, MTJDevice, get_device
from spinkeras.physics.series import chebyshev_series

STABILITY_DOMAIN = (0.1, 20.0)
"""Range of thermal stabilities. A junction above it keeps its state too long to run freely."""

HIGHEST_DRIVE = 8.0
"""Greatest `|h|` of the rates, where `P (1 - P)` is below 1e-7; they stay constant beyond it."""

_FIT = json.loads(resources.files("spinkeras.physics").joinpath("equilibrium_fit.json").read_text())
_RATE, _TIME = (np.array(_FIT[name])[None] for name in ("log_rate", "log_correlation_time"))
_ROUNDING = 0.49  # makes the absolute value of the drive smooth at 0
_Z, _WEIGHTS = ((v + shift) / 2 for v, shift in zip(np.polynomial.legendre.leggauss(24), (1, 0)))


# --- the curve -----------------------------------------------------------------------------------


def equilibrium_curve(xp, log_duration, stability, offset=0.0) -> RationalLogit:
    """Probability to find the junction reversed, over the drive `h`.

    Args:
        xp: `numpy` or `keras.ops`.
        log_duration: `ln u`; has no effect.
        stability: `Delta`, same shape.
        offset: `h_z`, the drive at which the probability is 1/2.
    """
    slope, d, _, _ = _shape(xp, stability)
    return _curve(offset + 0 * slope, slope, d)


def _tangents(xp, log_duration, stability, offset):
    """The curve, and the derivatives of its numbers by `ln u` and by `ln Delta`, stacked."""
    slope, d, by_slope, by_d = _shape(xp, stability)
    by_b = (by_d - d * by_slope / slope) / (2 * slope)
    none = 0 * slope
    zero, *by = (xp.stack([none, value]) for value in (none, by_slope, by_b, by_d))
    return _curve(offset + none, slope, d), RationalLogit(zero, by[0], zero, by[1], zero, by[2])


def _curve(midpoint, slope, d):
    none = 0 * slope
    return RationalLogit(midpoint, slope, none, d / (2 * slope), none, d)


def _shape(xp, stability):
    """`slope` and `d` of the curve, and their derivatives by `ln Delta`."""
    nodes = (len(_Z),) + (1,) * len(stability.shape)

    def at_nodes(values):
        values = np.reshape(values, nodes)
        return values if xp is np else xp.convert_to_tensor(values, stability.dtype)

    z, square = at_nodes(_Z), at_nodes(_Z**2)
    weight = at_nodes(_WEIGHTS) * xp.exp(stability * at_nodes(_Z**2 - 1))
    weight = weight / xp.sum(weight, axis=0)

    def mean(values):
        return xp.sum(weight * values, axis=0)

    slope, mean_square = mean(z), mean(square)
    off = z - slope
    third = mean(off * off * off)
    rest = 1 - 2 * slope
    d = 4 / 3 * third / (slope * slope * rest)
    # d<f>/dDelta is the covariance of f and z^2
    by_slope = mean(off * square)
    by_third = mean(off * off * off * (square - mean_square)) - 3 * mean(off * off) * by_slope
    by_d = d * (by_third / third - 2 * by_slope / slope + 2 * by_slope / rest)
    return slope, d, stability * by_slope, stability * by_d


def equilibrium_law(device):
    """The function `(xp, log_duration, stability) -> RationalLogit`, see `laws.get_curve`.

    Args:
        device: `MTJDevice`; its `offset_field` is the field along the axis.
    """
    offset = drive_of_field(device, device.offset_field)

    def curve(xp, log_duration, stability):
        return equilibrium_curve(xp, log_duration, stability, offset)

    curve.domain = (1e-30, 1e30), STABILITY_DOMAIN  # the law holds at any time
    curve.per_tesla = drive_of_field(device, 1.0)
    curve.telegraph = Telegraph(device)
    curve.law, curve.tangents, curve.parameters = equilibrium_curve, _tangents, (offset,)
    return curve


def drive_of_field(device, field):
    """`h_z = Ms Vol B_z / (2 kB T)`: the drive that cancels a field along the axis (P = 1/2)."""
    moment = device.saturation_magnetization * device.volume
    return moment * field / (2 * device.thermal_energy)


# --- the rates -----------------------------------------------------------------------------------


def relaxation_rate(xp, drive, stability):
    """Slowest rate of the junction, in units of `1 / t_D`.

    Args:
        xp: `numpy` or `keras.ops`.
        drive: `h - h_z`.
        stability: `Delta`, same shape.
    """
    return xp.exp(_series(xp, drive, stability, _RATE))


def bit_correlation_time(xp, drive, stability):
    """Integral correlation time of the bit in units of `t_D`.

    The arguments are the same as for `relaxation_rate`.
    """
    return xp.exp(_series(xp, drive, stability, _TIME))


def _series(xp, drive, stability, table):
    low, high = (math.sqrt(h * h + _ROUNDING) for h in (0.0, HIGHEST_DRIVE))
    drive = xp.clip(drive, -HIGHEST_DRIVE, HIGHEST_DRIVE)
    size = xp.sqrt(drive * drive + _ROUNDING)
    x = 2 * stability / STABILITY_DOMAIN[1] - 1
    return chebyshev_series(xp, x, (2 * size - low - high) / (high - low), [table])[0]


def relaxation_time(current: Array, device: DeviceLike, anisotropy: Array = None) -> Array:
    """Time in s in which a free-running junction loses the memory of its first state (NumPy).

    The relaxation time is the inverse of the slowest rate. A `device.relaxation_time`, measured at
    balance (the drive only cancels the stray field), scales all times.

    Args:
        current: A, scalar or array.
        device: `MTJDevice` or preset name.
        anisotropy: J/m^3, broadcast against `current`. Default: the device's own.

    Raises:
        ValueError: for values that are not finite, or a thermal stability outside 0.1 to 20.

    Example:

    >>> from spinkeras.physics import equilibrium
    >>> round(float(equilibrium.relaxation_time(0.0, "smtj_reference")) * 1e6, 2)  # us
    1.02
    """
    device, drive, stability = _prepared(current, device, anisotropy)
    return time_unit(device) / relaxation_rate(np, drive, stability)


def correlation_time(current: Array, device: DeviceLike, anisotropy: Array = None) -> Array:
    """Integral correlation time in s of the bit of a free-running junction (NumPy).

    Two reads a time `t` apart have the correlation `exp(-t / correlation_time)`. This is exact for
    a junction that hardly ever crosses `z = 0` without switching, and approximate for others
    (`Delta` below 4). Arguments and errors are the same as for `relaxation_time`.
    """
    device, drive, stability = _prepared(current, device, anisotropy)
    return time_unit(device) * bit_correlation_time(np, drive, stability)


def dwell_times(
    current: Array, device: DeviceLike, anisotropy: Array = None
) -> tuple[Array, Array]:
    """Mean times in s in the parallel and in the antiparallel state, `1 / (rate P)` and
    `1 / (rate (1 - P))` (NumPy).

    Below a thermal stability of about 4 the junction crosses `z = 0` so often that dwell times mean
    little: use `correlation_time`. Arguments and errors are the same as for `relaxation_time`.
    """
    device, drive, stability = _prepared(current, device, anisotropy)
    probability = equilibrium_curve(np, 0.0, stability).probability(drive)
    time = time_unit(device) / relaxation_rate(np, drive, stability)
    with np.errstate(divide="ignore"):
        return time / probability, time / (1 - probability)


@dataclasses.dataclass(frozen=True)
class Telegraph:
    """The bit of a free-running junction over time: its memory, and the effect of a read."""

    device: MTJDevice

    def correlation_time(self, xp, curve, z, stability):
        """Integral correlation time of the bit in s.

        Args:
            xp: `numpy` or `keras.ops`.
            curve: `RationalLogit` of the law at this setting.
            z: `h` minus the curve's midpoint.
            stability: `Delta`, same shape.
        """
        return time_unit(self.device) * bit_correlation_time(xp, z, stability)

    def relaxation_time(self, stability):
        """Relaxation time at balance in s (NumPy)."""
        return time_unit(self.device) / relaxation_rate(np, 0 * stability, stability)

    @property
    def push(self):
        """Push of the bit per charge through the junction, in 1/C.

        A push of 0.1 changes the probability of a bit in balance by up to 0.05.
        """
        return 1 / (self.device.critical_current_per_stability * time_unit(self.device))


def balance_current(device) -> float:
    """Current in A at which spin torque cancels the stray field: the signed midpoint."""
    drive = drive_of_field(device, device.offset_field)
    return drive * device.critical_current_per_stability


def time_unit(device):
    """`t_D` in s, or the time that replaces it if `device.relaxation_time` was measured."""
    if device.relaxation_time is None:
        return device.diffusion_time
    stability = np.asarray(device.thermal_stability)
    check_stability(stability, device)
    return device.relaxation_time * float(relaxation_rate(np, 0 * stability, stability))


def check_stability(stability, device):
    """Refuse a thermal stability (NumPy) outside the domain of the law."""
    low, high = STABILITY_DOMAIN
    bad = ~((stability >= low * (1 - 1e-9)) & (stability <= high * (1 + 1e-9)))
    if np.any(bad):
        unit = device.thermal_energy / device.volume
        raise ValueError(
            f"The thermal stability {stability[bad].flat[0]:g} is outside [{low:g}, {high:g}], the "
            "domain of switching_model='equilibrium' (an anisotropy of "
            f"{low * unit:.3g} to {high * unit:.3g} J/m^3 for this device). A junction above the "
            "domain does not reach equilibrium: write it with pulses, switching_model='macrospin'."
        )


def check_device(device):
    """Refuse a free-running device that the law does not describe."""
    if device.has_free_running_curve:
        raise ValueError(
            f"The device {device.name or 'unnamed'!r} runs freely by its own switching_curve. This "
            "EquilibriumCurve already sets the times and the balance of the device. Leave "
            "switching_model='equilibrium' out, or give device.replace(switching_curve=None)."
        )
    if device.write_resistance is not None:
        raise ValueError(
            f"The device has write_resistance = {device.write_resistance:g} ohm, so its current "
            "flows beside the junction; switching_model='equilibrium' is the law of a two-terminal "
            "device. Leave write_resistance out, or use another switching_model."
        )


def _prepared(current, device, anisotropy):
    device = get_device(device)
    check_device(device)
    anisotropy = device.anisotropy if anisotropy is None else anisotropy
    current, anisotropy = np.broadcast_arrays(
        checks.array("current", current), checks.array("anisotropy", anisotropy)
    )
    if not np.all(np.isfinite(current)):
        raise ValueError(f"current = {current[~np.isfinite(current)].flat[0]} A must be finite.")
    stability = device.stability_at(anisotropy)
    check_stability(stability, device)
    drive = current / device.critical_current_per_stability
    return device, drive - drive_of_field(device, device.offset_field), stability
