"""The switching laws: how the probability depends on current, pulse and device; NumPy or tensors.

A law is a function of a namespace `xp` (`numpy` or `keras.ops`), of `ln u` with the duration
`u = t_p / t_D`, and of the stability `Delta`. It returns a curve over the drive `h`, the current
divided by `Ic0 / Delta`.
"""

import dataclasses
import itertools
import json
import math
from collections.abc import Callable
from importlib import resources
from typing import Any, NamedTuple, Protocol, TypeAlias

import keras
import numpy as np
from keras import ops

from spinkeras import checks
from spinkeras.physics.curve import RationalLogit
from spinkeras.physics.device import DeviceLike, MTJDevice, get_device
from spinkeras.physics.equilibrium import equilibrium_law
from spinkeras.physics.series import chebyshev_series

_LN2 = math.log(2.0)
MODELS = ("macrospin", "neel_brown", "ballistic", "equilibrium")
_FIT = json.loads(resources.files("spinkeras.physics").joinpath("macrospin_fit.json").read_text())
_NAMES = ("log_midpoint_ratio", "log_slope", "a", "b", "c", "log_gap")
_TABLES = [
    np.array(list(some))
    for _, some in itertools.groupby((_FIT["coefficients"][name] for name in _NAMES), np.shape)
]


DURATION_DOMAIN: tuple[float, float] = tuple(_FIT["domain"]["duration"])
STABILITY_DOMAIN: tuple[float, float] = tuple(_FIT["domain"]["stability"])


class Curve(NamedTuple):
    """A switching curve over the drive `h` that is not a `RationalLogit`, dimensionless.

    Attributes:
        midpoint: `h` at which the probability is 1/2.
        slope: `dP/dh` at the midpoint.
        probability: function of `z` that returns the switching probability at `h = midpoint + z`.
    """

    midpoint: Any
    slope: Any
    probability: Callable


class Law(Protocol):
    """An object that describes a law: `NeelBrown`, `EmpiricalCurve` or `EquilibriumCurve`."""

    def curve(self, device: MTJDevice, /) -> Callable[..., Any]:
        """The function that `get_curve` returns for this law."""


SwitchingModel: TypeAlias = str | Law  # one of `MODELS`, or a law with its own numbers


def own_model(device: MTJDevice):
    """The device's `switching_curve`, or `"macrospin"` if it has none."""
    return "macrospin" if device.switching_curve is None else device.switching_curve


@keras.saving.register_keras_serializable(package="spinkeras")
@checks.by_name
@dataclasses.dataclass(frozen=True, kw_only=True)
class NeelBrown(checks.Options):
    """The textbook law of thermal activation, a switching model with two options.

    `P = 1 - exp(-(t_p / tau0) exp(-Delta (1 - I / Ic0)^beta))`; see
    `spinkeras.switching_probability` for its limits. The name `"neel_brown"` means `NeelBrown()`.

    Args:
        barrier_exponent: `beta`, dimensionless, 1 to 3. Default 2, which is exact for a
            perpendicular macrospin; 1 is the usual empirical choice.
        attempt_time: `tau0` in s, 1e-15 to 1e-3. Default `None`: the Kramers value
            `t_D / (Delta sqrt(Delta / pi))`.

    Raises:
        ValueError: for a value outside its range.

    Example:

    >>> import spinkeras
    >>> law = spinkeras.NeelBrown(attempt_time=1e-9)
    >>> current = spinkeras.midpoint_current(1e-6, "stt_reference", switching_model=law)
    >>> round(float(current) * 1e6, 1)
    14.4

    Reference: W. F. Brown, Phys. Rev. 130, 1677 (1963).
    """

    barrier_exponent: float = 2.0
    attempt_time: float | None = None

    def __post_init__(self):
        b = checks.number(
            "barrier_exponent", self.barrier_exponent, "(dimensionless)", 1, 3, "2 is exact"
        )
        object.__setattr__(self, "barrier_exponent", b)
        if self.attempt_time is not None:
            tau0 = checks.number(
                "attempt_time", self.attempt_time, "s", 1e-15, 1e-3, "1 ns is 1e-9"
            )
            object.__setattr__(self, "attempt_time", tau0)

    def curve(self, device: DeviceLike) -> Callable[..., Curve]:
        """The function `(xp, log_duration, stability) -> Curve` of this law for a device.

        Args:
            device: `MTJDevice` or preset name.

        Raises:
            ValueError: for another `device`.

        Example:

        >>> import numpy as np, spinkeras
        >>> device = spinkeras.MTJDevice.preset("stt_reference")
        >>> curve = spinkeras.NeelBrown(attempt_time=1e-9).curve(device)
        >>> found = curve(np, np.log(1e-6 / device.diffusion_time), device.thermal_stability)
        >>> float(found.probability(0.0).round(3))  # at the midpoint
        0.5
        """
        device, log_attempt = get_device(device), None
        if self.attempt_time is not None:
            log_attempt = math.log(self.attempt_time / device.diffusion_time)

        def curve(xp, log_duration, stability):
            return neel_brown_curve(xp, log_duration, stability, self.barrier_exponent, log_attempt)

        curve.in_seconds = self.attempt_time is not None  # type: ignore[attr-defined]
        return curve


def check_model(switching_model):
    """The given switching model, or a `ValueError` that lists the known ones."""
    named = isinstance(switching_model, str)
    known = switching_model in MODELS if named else hasattr(switching_model, "curve")
    if not known or isinstance(switching_model, type):
        raise ValueError(
            f"Unknown switching_model {checks.shown(switching_model)}; choose one of "
            f"{list(MODELS)}, a NeelBrown ('neel_brown' with options), an EmpiricalCurve or an "
            "EquilibriumCurve."
        )
    return switching_model


def get_curve(switching_model, device: MTJDevice):
    """The function of a switching model that takes `(xp, log_duration, stability)` to its curve.

    The function may have these attributes, for a fast core:

    - `law`: the same function for all devices; it takes the numbers `parameters` of a device as
      further arguments.
    - `tangents`: takes the arguments of `law`; returns a `RationalLogit` and its derivatives by
      `log_duration` and by `ln stability`, along a first axis of length 2.

    And these, for a spread of devices:

    - `domain`: the bounds of `u` and of `Delta`.
    - `in_seconds`: true if the curve depends on the pulse width in seconds, not on `t_p / t_D`.
    - `measured`: true if the effect of the temperature is unknown.
    - `per_tesla`: shift of a free-running junction's midpoint by a field along the axis.

    And for a free-running junction `telegraph`, its `equilibrium.Telegraph`.

    Args:
        switching_model: `"macrospin"`, `"neel_brown"`, `"ballistic"`, `"equilibrium"`, or an object
            whose method `curve(device)` returns the function, such as `NeelBrown`,
            `EmpiricalCurve` and `EquilibriumCurve`.
        device: `MTJDevice`.

    Raises:
        ValueError: for an unknown model.
    """
    check_model(switching_model)
    if switching_model == "macrospin":
        return macrospin_curve
    if switching_model == "ballistic":
        return ballistic_curve
    if switching_model == "equilibrium":
        return equilibrium_law(device)
    if switching_model == "neel_brown":
        switching_model = NeelBrown()
    return switching_model.curve(device)


def macrospin_curve(xp, log_duration, stability) -> RationalLogit:
    """Closed form, fitted to the exact solution for a macrospin; see `tools.fit_closed_form`.

    `ln(midpoint / Delta)`, `ln(slope)`, `a`, `b`, `c` and `ln(d - c^2 / 4)` are Chebyshev series
    in `ln u` and `Delta^-1/2`.

    Args:
        xp: `numpy` or `keras.ops`.
        log_duration: `ln u`, any shape.
        stability: `Delta`, same shape.
    """
    x, y, _, _ = _fit_coordinates(log_duration, stability)
    return _from_series(xp, stability, chebyshev_series(xp, x, y, _TABLES))


def _macrospin_tangents(xp, log_duration, stability):
    """The curve, and the derivatives of its numbers by `ln u` and by `ln Delta`, stacked."""
    x, y, dx, dy = _fit_coordinates(log_duration, stability)
    series = chebyshev_series(xp, x, y, _TABLES, derivatives=True)
    curve = _from_series(xp, stability, series[0])
    by = xp.moveaxis(series[1:] * xp.stack([dx + 0 * dy, dy])[:, None], 1, 0)
    log_ratio, log_slope, a, b, c, log_gap = unstack(xp, by)
    log_midpoint = xp.stack([log_ratio[0], log_ratio[1] + 1])  # ln(midpoint / Delta) + ln Delta
    return curve, RationalLogit(
        curve.midpoint * log_midpoint,
        curve.steepness * log_slope,
        a,
        b,
        c,
        log_gap * (curve.d - curve.c * curve.c / 4) + curve.c * c / 2,
    )


def _fit_coordinates(log_duration, stability):
    """Coordinates of the fit in [-1, 1], and their derivatives by `ln u` and `ln Delta`."""
    log_low, log_high = (math.log(value) for value in DURATION_DOMAIN)
    low, high = (value**-0.5 for value in reversed(STABILITY_DOMAIN))
    root = stability**-0.5
    x = (2 * log_duration - (log_low + log_high)) / (log_high - log_low)
    y = (2 * root - (low + high)) / (high - low)
    return x, y, 2 / (log_high - log_low), -root / (high - low)


def _from_series(xp, stability, values):
    log_ratio, log_slope, a, b, c, log_gap = unstack(xp, values)
    midpoint = stability * xp.exp(log_ratio)
    return RationalLogit(midpoint, xp.exp(log_slope), a, b, c, c * c / 4 + xp.exp(log_gap))


macrospin_curve.domain = DURATION_DOMAIN, STABILITY_DOMAIN  # type: ignore[attr-defined]


macrospin_curve.law, macrospin_curve.tangents = macrospin_curve, _macrospin_tangents  # type: ignore[attr-defined]


macrospin_curve.parameters = ()  # type: ignore[attr-defined]


def unstack(xp, values):
    """The parts of an array along its first axis."""
    return list(values) if xp is np else ops.unstack(values)


def stop_gradient(xp, value):
    """`keras.ops.stop_gradient` for tensors, the value itself for NumPy."""
    return value if xp is np else ops.stop_gradient(value)


def _bounded(xp, z, stability):
    """`z` limited to 100 critical currents; infinite inputs would give 0 * inf in gradients."""
    bound = 100 * stop_gradient(xp, stability)
    return xp.clip(z, -bound, bound)


def neel_brown_curve(xp, log_duration, stability, barrier_exponent, log_attempt=None) -> Curve:
    """Thermally activated law `P = 1 - exp(-(t_p/tau0) exp(-Delta (1 - i)^beta))`, `i = I / Ic0`.

    Args:
        xp: `numpy` or `keras.ops`.
        log_duration: `ln u`.
        stability: `Delta`.
        barrier_exponent: `b`.
        log_attempt: `ln(tau0 / t_D)`. Default: the Kramers value `-ln(Delta^1.5 / sqrt(pi))`.
    """
    b = float(barrier_exponent)
    if log_attempt is None:
        log_attempt = -1.5 * xp.log(stability) + 0.5 * math.log(math.pi)
    log_attempts = log_duration - log_attempt
    barrier = log_attempts - math.log(_LN2)  # in kB T, at the midpoint; if <= 0, P < 1/2 always
    safe = xp.maximum(barrier, 1e-30)
    ratio = 1 - (safe / stability) ** (1 / b)
    midpoint = stability * ratio
    slope = xp.where(barrier > 0, _LN2 / 2 * b * (safe / stability) ** ((b - 1) / b), math.nan)

    def probability(z):
        z = _bounded(xp, z, stability)
        gap = xp.maximum(1 - (midpoint + z) / stability, 1e-12)
        log_rate = log_attempts - stability * gap**b
        half = xp.tanh(xp.exp(xp.minimum(log_rate, 5.0)) / 2)
        return 2 * half / (1 + half)  # 1 - exp(-exp(log_rate)), exact in the tail

    return Curve(midpoint, slope, probability)


def ballistic_curve(xp, log_duration, stability) -> Curve:
    """Short-pulse law `P = exp(-X(i))`, `i = I / Ic0`: a thermal angle grows up to `theta_c(i)`.

    `X = theta_c^2 Delta / (exp(x) + 2 tau (exp(x) - 1) / x)` with `x = 2 (i - 1) tau` and
    `tau = u Delta`, which is regular at `i = 1`. `theta_c^2(i) = 2^(2i/(i+1))
    ((i-1)/i)^(2/(i+1))` reproduces the exact switching time at zero temperature; below `i = 2` it
    keeps its value at `i = 2`.
    """
    tau = xp.exp(log_duration) * stability

    def log_exponent(i):
        """`ln X` and its derivative with respect to `i`."""
        x = xp.clip(2 * (i - 1) * tau, -1e4, 80.0)
        tiny = xp.abs(x) < 1e-2
        safe = xp.where(tiny, 1.0, x)
        grown = xp.exp(x)
        mean = xp.where(tiny, 1 + x / 2 * (1 + x / 3 * (1 + x / 4)), (grown - 1) / safe)
        mean_slope = xp.where(tiny, 0.5 + x / 3 * (1 + x * 3 / 8), (grown - mean) / safe)
        variance = grown + 2 * tau * mean
        cut = xp.maximum(i, 2.0)
        log_cut = 2 * (cut * _LN2 + xp.log(1 - 1 / cut)) / (cut + 1)
        cut_slope = (2 * _LN2 + 2 / (cut * (cut - 1)) - log_cut) / (cut + 1)
        value = log_cut + xp.log(stability) - xp.log(variance)
        derivative = -2 * tau * (grown + 2 * tau * mean_slope) / variance
        return value, derivative + xp.where(i > 2.0, cut_slope, 0.0)

    # Newton iteration for ln X = ln ln 2, from above. A gradient through the last step alone is
    # exact, by the implicit function theorem.
    i = stop_gradient(xp, 1 + xp.log(6 * stability) / (2 * tau))
    for _ in range(30):
        value, derivative = log_exponent(i)
        step = xp.clip((value - math.log(_LN2)) / derivative, -0.5 * xp.abs(i), 0.5 * xp.abs(i))
        i = stop_gradient(xp, i - step)
    value, derivative = log_exponent(i)
    i = i - (value - math.log(_LN2)) / stop_gradient(xp, derivative)
    _, derivative = log_exponent(i)

    def probability(z):
        value, _ = log_exponent(i + _bounded(xp, z, stability) / stability)
        return xp.exp(-xp.exp(xp.clip(value, -80.0, 5.0)))

    return Curve(stability * i, -_LN2 / 2 * derivative / stability, probability)


def reversal(xp, stability, ratio, duration):
    """Probability that a current below `Ic0` reverses a device within a time (Kramers rate).

    `P = u Delta sqrt(Delta / pi) (1 - i)(1 - i^2) exp(-Delta (1 - i)^2)`, at most 1; `P` is 1 for
    `i >= 1`.

    Args:
        xp: `numpy` or `keras.ops`.
        stability: `Delta`.
        ratio: `i`, current over `Ic0`.
        duration: `u`, time over `t_D`.
    """
    i = xp.minimum(ratio, 1.0)
    rate = stability * xp.sqrt(stability / math.pi) * (1 - i) * (1 - i * i)
    disturb = xp.minimum(duration * rate * xp.exp(-stability * (1 - i) ** 2), 1.0)
    return xp.where(ratio >= 1, 0 * disturb + 1, disturb)
