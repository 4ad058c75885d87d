"""Probability that one current pulse reverses the free layer: pure functions, NumPy or Keras.

Every law depends only on three dimensionless inputs:

    h = I / (Ic0 / Delta)      drive,     depends on the current
    u = t_p / t_D              duration,  depends on the pulse width
    Delta = K_eff Vol / (kB T) stability, depends on the anisotropy

A law is a curve over `h` with a midpoint, a slope there and a shape. The fitted macrospin and
measured curves are a `RationalLogit`, the textbook laws a `Curve`. NumPy values give NumPy float64
results; Keras tensors give tensors, which are differentiable on every backend. Every formula is
written once, in a function that takes the namespace (`numpy` or `keras.ops`) as `xp`.
"""

import math

import keras
import numpy as np
from keras import ops

from spinkeras import checks
from spinkeras._typing import Array
from spinkeras.notices import warn
from spinkeras.physics import equilibrium
from spinkeras.physics.curve import RationalLogit, steepest_fall
from spinkeras.physics.device import DeviceLike, MTJDevice, get_device
from spinkeras.physics.laws import (
    DURATION_DOMAIN,
    STABILITY_DOMAIN,
    Curve,
    SwitchingModel,
    get_curve,
    own_model,
)


def switching_probability(
    current: Array,
    pulse_width: Array,
    device: DeviceLike,
    anisotropy: Array = None,
    switching_model: SwitchingModel | None = None,
) -> Array:
    """Probability that one pulse reverses the free layer.

    Models:

    * `"macrospin"`: `P = 1 / (1 + exp(-q))`, `q = 4 y (1 + a y + b y^2) / (1 + c y + d y^2)`,
      `y = s (I - I50)`. The six numbers `I50, s, a, b, c, d` are smooth functions of pulse width
      and anisotropy, fitted to the exact Fokker-Planck solution. The error is below 0.002 for
      thermal stabilities of 7 to 90 and `t_p / t_D` of 0.003 to 60 (0.2 ns to 4 us for
      `stt_reference`), from ballistic to thermally activated switching. This error is absolute:
      for small probabilities (`P < 1e-3`, write-error rates) use `macrospin.fokker_planck`.
    * `"neel_brown"`: `P = 1 - exp(-(t_p / tau0) exp(-Delta (1 - I/Ic0)^beta))`, the textbook law
      of thermal activation; `NeelBrown` has its options. With `beta = 2` and an `attempt_time`
      fitted to the device its error is up to 0.06 at 1 us and 0.08 at 100 ns (`stt_reference`). The
      default attempt time is that at zero current; it misplaces the threshold, with an error of
      0.50 at 1 us. For pulses of 1 to 10 ns the error is up to 0.95. Above `Ic0` the barrier is
      zero and the law stays at `1 - exp(-t_p / tau0)`.
    * `"ballistic"`: `P = exp(-X)`, `X = theta_c^2 Delta (i-1) / (i exp(2 (i-1) tau) - 1)` with
      `i = I/Ic0`, the limit of short pulses. The error is up to 0.015 if the midpoint lies at
      `i > 2`; otherwise a warning follows. Below `i = 2` the cut-off angle `theta_c` is constant.
    * `"equilibrium"`: the probability to find a free-running junction (one with a low barrier) in
      the reversed state under a constant current, at any time. The error is below 1.2e-4 for
      thermal stabilities of 0.1 to 20. The pulse width has no effect; see `physics.equilibrium`.

    Args:
        current: A, scalar or array. Positive current favours reversal.
        pulse_width: s, > 0, broadcast against `current`.
        device: `MTJDevice` or preset name.
        anisotropy: J/m^3, > 0, broadcast against `current`. Default: the anisotropy of the device.
        switching_model: `"macrospin"`, `"neel_brown"`, `"ballistic"`, `"equilibrium"`, a
            `NeelBrown`, an `EmpiricalCurve` or an `EquilibriumCurve`. Default `None`: the device's
            `switching_curve`, or `"macrospin"` if it has none.

    Returns:
        NumPy float64 array for NumPy input, otherwise a tensor. The values of tensors cannot be
        checked while a graph is traced, so outside the model's range the result is NaN.

    Raises:
        ValueError: for a pulse width or anisotropy that is not finite and positive or is outside
            the model's range, and for an unknown model.

    Example:

    >>> import numpy as np, spinkeras
    >>> current = np.array([60e-6, 73.5e-6, 90e-6])
    >>> spinkeras.switching_probability(current, 2e-9, "stt_reference").round(2)
    array([0.15, 0.5 , 0.83])

    References: W. F. Brown, Phys. Rev. 130, 1677 (1963); W. H. Butler et al., IEEE Trans. Magn.
    48, 4684 (2012); T. Taniguchi and H. Imamura, Phys. Rev. B 83, 054432 (2011).
    """
    if not _is_tensor(current):
        current = checks.array("current", current)
    current, described, curve = _prepare(current, pulse_width, device, anisotropy, switching_model)
    drive = current / described.critical_current_per_stability
    return curve.probability(drive - curve.midpoint)


def midpoint_current(
    pulse_width: Array,
    device: DeviceLike,
    anisotropy: Array = None,
    switching_model: SwitchingModel | None = None,
) -> Array:
    """Current in A at which the switching probability is 1/2.

    Args:
        pulse_width: s, > 0, scalar, array or tensor.
        device: `MTJDevice` or preset name.
        anisotropy: J/m^3, > 0, broadcast against `pulse_width`. Default: that of the device.
        switching_model: as in `switching_probability`. Default `None`: the law of the device.

    Raises:
        ValueError: as `switching_probability`, and for a law that never reaches 1/2 at this width.

    Example:

    >>> import spinkeras
    >>> round(float(spinkeras.midpoint_current(10e-9, "stt_reference")) * 1e6, 1)
    27.6
    """
    _, described, curve = _prepare(None, pulse_width, device, anisotropy, switching_model)
    return curve.midpoint * described.critical_current_per_stability


def slope_at_midpoint(
    pulse_width: Array,
    device: DeviceLike,
    anisotropy: Array = None,
    switching_model: SwitchingModel | None = None,
) -> Array:
    """Slope `dP/dI` in 1/A at the midpoint, where the switching probability is 1/2.

    Args:
        pulse_width: s, > 0, scalar, array or tensor.
        device: `MTJDevice` or preset name.
        anisotropy: J/m^3, > 0, broadcast against `pulse_width`. Default: that of the device.
        switching_model: as in `switching_probability`. Default `None`: the law of the device.

    Raises:
        ValueError: as `switching_probability`, and for a law that never reaches 1/2 at this width.

    Example:

    >>> import spinkeras
    >>> round(float(spinkeras.slope_at_midpoint(10e-9, "stt_reference")) * 1e-6, 3)
    0.086
    """
    _, described, curve = _prepare(None, pulse_width, device, anisotropy, switching_model)
    return curve.slope / described.critical_current_per_stability


def pulse_width_for_slope(
    slope: Array,
    device: DeviceLike,
    anisotropy: Array = None,
    switching_model: SwitchingModel | None = None,
) -> Array:
    """Pulse width in s at which `slope_at_midpoint` has a given value (NumPy only).

    Args:
        slope: wanted slope in 1/A, > 0, scalar or array.
        device, anisotropy, switching_model: as in `switching_probability`.

    Returns:
        NumPy float64 array: the shortest such pulse inside the device's `pulse_width_range`.

    Raises:
        ValueError: if the device cannot reach the slope inside its pulse-width range, for the law
            of a free-running junction, and as `switching_probability`.

    Example:

    >>> import spinkeras
    >>> width = spinkeras.pulse_width_for_slope(0.0863e6, "stt_reference")
    >>> round(float(width) * 1e9, 1)
    10.0
    """
    device = get_device(device)
    switching_model = own_model(device) if switching_model is None else switching_model
    if hasattr(get_curve(switching_model, device), "telegraph"):
        raise ValueError(
            f"With switching_model={switching_model!r}, for a free-running junction, the pulse "
            "width does not change the slope; the anisotropy sets it, see slope_at_midpoint."
        )
    anisotropy = device.anisotropy if anisotropy is None else anisotropy
    slope, anisotropy = np.broadcast_arrays(
        checks.array("slope", slope), checks.array("anisotropy", anisotropy)
    )

    def slope_at(log_width):
        return slope_at_midpoint(np.exp(log_width), device, anisotropy, switching_model)

    # The slope of a measured curve may fall with the width, or rise and fall.
    shortest, longest = np.log(device.pulse_width_range)
    steps = np.linspace(shortest, longest, 257)
    widths = np.broadcast_to(steps.reshape(-1, *(1,) * slope.ndim), (len(steps), *slope.shape))
    slopes = slope_at(widths)
    # The slope of an end of the range counts as reached despite rounding errors.
    for end in (slopes[0], slopes[-1]):
        slope = np.where(np.abs(slope - end) <= 1e-12 * end, end, slope)
    above = slopes >= slope
    crossed = (above[1:] != above[:-1]) | (slopes[1:] == slope)
    reached = np.any(crossed, axis=0) | (slopes[0] == slope)
    if not np.all(reached):
        lowest, highest = (end(slopes, axis=0)[~reached] for end in (np.min, np.max))
        raise ValueError(
            f"slope = {slope[~reached].flat[0]:g} 1/A cannot be reached: pulses of "
            f"{device.pulse_width_range[0]:g} to {device.pulse_width_range[1]:g} s give "
            f"{lowest.flat[0]:g} to {highest.flat[0]:g} 1/A with the model "
            f"{switching_model!r}. Change the slope, the anisotropy or pulse_width_range."
        )
    first = np.argmax(crossed, axis=0)
    low, high = steps[first], steps[first + 1]
    rises = ~np.take_along_axis(above, first[None], axis=0)[0]
    for _ in range(60):  # bisection in ln t_p, down to rounding errors
        middle = (low + high) / 2
        short = (slope_at(middle) >= slope) != rises
        low, high = np.where(short, middle, low), np.where(short, high, middle)
    found = np.where(slopes[0] == slope, steps[0], (low + high) / 2)
    return np.clip(np.exp(found), *device.pulse_width_range)


def check_domain(pulse_width, anisotropy, device: MTJDevice, switching_model="macrospin"):
    """Refuse settings outside the range of a switching model; the error gives this range.

    Args:
        pulse_width: s, NumPy.
        anisotropy: J/m^3, NumPy, same shape.
        device: `MTJDevice`.
        switching_model: model name.

    Raises:
        ValueError: non-finite or non-positive settings; outside the domain of `"macrospin"` or
            `"equilibrium"`; a device that `"equilibrium"` does not describe.
    """
    for name, value, unit in (
        ("pulse_width", pulse_width, "s"),
        ("anisotropy", anisotropy, "J/m^3"),
    ):
        bad = ~(np.isfinite(value) & (value > 0))
        if np.any(bad):
            raise ValueError(
                f"{name} = {value[bad].flat[0]} {unit} must be finite and > 0 {unit} (SI units)."
            )
    if switching_model == "equilibrium":
        equilibrium.check_device(device)
        equilibrium.check_stability(device.stability_at(anisotropy), device)
    if switching_model != "macrospin":
        return
    per_stability = device.thermal_energy / device.volume
    for name, value, unit, factor, (low, high) in (
        ("pulse_width", pulse_width, "s", device.diffusion_time, DURATION_DOMAIN),
        ("anisotropy", anisotropy, "J/m^3", per_stability, STABILITY_DOMAIN),
    ):
        low, high = low * factor, high * factor
        bad = ~((value >= low * (1 - 1e-9)) & (value <= high * (1 + 1e-9)))
        if np.any(bad):
            raise ValueError(
                f"{name} = {value[bad].flat[0]:g} {unit} is outside [{low:.3g}, {high:.3g}] "
                f"{unit}, the domain of the macrospin closed form for this device (thermal "
                f"stability {STABILITY_DOMAIN[0]:g} to {STABILITY_DOMAIN[1]:g}). Use another value "
                "or spinkeras.macrospin.fokker_planck. For a free-running junction (one with a low "
                "barrier) use switching_model='equilibrium'."
            )


def check_midpoint(curve: Curve, stability, switching_model):
    """Refuse NumPy curves without a midpoint; warn if the ballistic law is inaccurate.

    Args:
        curve: `Curve` of NumPy values.
        stability: `Delta` of the curve.
        switching_model: model name.
    """
    if np.any(np.isnan(curve.slope)):
        raise ValueError(
            f"With switching_model={switching_model!r} the probability never reaches 1/2 at this "
            "pulse width, because the pulse is shorter than ln 2 times the attempt time. Use a "
            "longer pulse, a shorter attempt_time (of NeelBrown), or switching_model='macrospin'."
        )
    if switching_model == "ballistic" and np.any(curve.midpoint < 2 * stability):
        warn(
            "The ballistic law is inaccurate here (midpoint below twice the critical current): "
            "use shorter pulses or switching_model='macrospin'."
        )


def check_rise(curve: RationalLogit, pulse_width, anisotropy):
    """Refuse a curve that has a pole, falls with the current or has its floor above its ceiling.

    Args:
        curve: `RationalLogit` of NumPy values.
        pulse_width, anisotropy: settings of the curve in s and J/m^3, NumPy.
    """
    rows = np.broadcast_arrays(*curve[2:], pulse_width, anisotropy)
    for a, b, c, d, floor, ceiling, width, stiffness in zip(*(row.ravel() for row in rows)):
        rises = d > c * c / 4 and floor < ceiling and steepest_fall(a, b, c, d) is None
        if not rises:
            raise ValueError(
                f"At a pulse width of {width:g} s and an anisotropy of {stiffness:g} J/m^3, inside "
                "this device's range, the switching curve does not rise with the current. Its "
                f"shape there is a = {a:g}, b = {b:g}, c = {c:g}, d = {d:g}, its floor {floor:g}, "
                f"its ceiling {ceiling:g}. Narrow pulse_width_range and gate_voltage_range to the "
                "range in which the curve was measured, or give the curve smaller rates."
            )


def _is_tensor(value):
    if isinstance(value, keras.KerasTensor):
        raise ValueError(
            "This function needs values, but a KerasTensor (of keras.Input or computed from it) "
            "has none. Call the function inside the `call` of a layer, or use SpinNeuron."
        )
    return ops.is_tensor(value) or isinstance(value, keras.Variable)


def _prepare(current, pulse_width, device, anisotropy, model):
    """Current, device and curve for a public function, with the inputs checked if possible.

    `current` is `None` if the function needs only the curve.
    """
    device = get_device(device)
    model = own_model(device) if model is None else model
    build = get_curve(model, device)
    anisotropy = device.anisotropy if anisotropy is None else anisotropy
    settings = (pulse_width, anisotropy)
    to_stability = device.volume / device.thermal_energy
    tensors = [v for v in (current, *settings) if _is_tensor(v)]
    if not tensors:
        pulse_width, anisotropy = np.broadcast_arrays(
            *map(checks.array, ("pulse_width", "anisotropy"), settings)
        )
        check_domain(pulse_width, anisotropy, device, model)
        stability = anisotropy * to_stability
        curve = build(np, np.log(pulse_width / device.diffusion_time), stability)
        if current is None or model == "ballistic":
            check_midpoint(curve, stability, model)
        if current is not None and np.any(np.isnan(current)):
            raise ValueError("current is NaN; give values in A.")
        return current, device, curve

    dtype = keras.backend.result_type(*(t.dtype for t in tensors), "float32")

    def tensor(value):
        return ops.cast(value, dtype) if _is_tensor(value) else ops.convert_to_tensor(value, dtype)

    duration = tensor(pulse_width) / device.diffusion_time
    stability = tensor(anisotropy) * to_stability
    if model == "macrospin":
        duration = _nan_outside(duration, DURATION_DOMAIN)
        stability = _nan_outside(stability, STABILITY_DOMAIN)
    if model == "equilibrium":
        equilibrium.check_device(device)
        stability = _nan_outside(stability, equilibrium.STABILITY_DOMAIN)
    shape = ops.zeros_like(duration * stability)
    curve = build(ops, ops.log(duration) + shape, stability + shape)
    return None if current is None else tensor(current), device, curve


def _nan_outside(value, domain):
    """The tensor with NaN where it is outside the range by more than rounding errors."""
    low, high = domain
    inside = ops.logical_and(value >= low * (1 - 1e-5), value <= high * (1 + 1e-5))
    return ops.where(inside, value, math.nan)
