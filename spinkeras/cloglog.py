"""The exponentiated complementary log-log curve, value and derivative, element by element.

    P(z) = (1 - exp(-y))^C,   y = E exp(b z),   E = -ln(1 - 2^(-1/C))

with `P(0) = 1/2`. `C = 1` is the thermally activated shape, large `C` the Gumbel shape of ballistic
switching. This is where the time of a `SpinNeuron` goes, so the tensor path takes three
exponentials per element, none in the backward pass, and stores what that pass needs.

Limits: `b z` is clipped to [-80, 7]. At 7 the probability is 1 to rounding; at -80 it stays at
`(E exp(-80))^C`, below 1e-34.
"""

import math

import numpy as np
from keras import ops

from spinkeras.fusion import compiled

_LN2 = math.log(2.0)
_LOWEST, _HIGHEST = -80.0, 7.0

# ln((1 - exp(-y)) / y) + y / 2 = sum over k of B_2k / (2 k (2 k)!) y^2k, to 1e-7 at y = 1
_SMALL = (1 / 24, -1 / 2880, 1 / 181440)


def _log1p_coefficients(largest, degree):
    """Polynomial for `-ln(1 - u) / u` on `[0, largest]`, near minimax in relative error."""
    u = largest * (1 - np.cos(np.pi * (np.arange(200) + 0.5) / 200)) / 2
    exact = -np.log1p(-u) / u
    fit = np.polynomial.Chebyshev.fit(u, exact, degree, domain=[0, largest], w=1 / exact)
    return fit.convert(kind=np.polynomial.Polynomial).coef.tolist()


# For y >= 1: relative error 6.4e-8, that of the rounding in single precision.
_LARGE = _log1p_coefficients(math.exp(-1.0), 6)


def exponentiated_cloglog(xp, z, slope, log_skew, gain=1.0, kernel=None):
    """`P = (1 - exp(-E exp(b gain z)))^C` with `P(0) = 1/2` and `dP/dz(0) = gain slope`.

    Args:
        xp: `numpy` or `keras.ops`.
        z: distance from the midpoint, any shape, infinite values allowed.
        slope: `dP/dz` at the midpoint for gain 1, > 0, broadcast against `z`.
        log_skew: `ln C`, broadcast against `z`.
        gain: factor on `z`, applied per neuron instead of per element.
        kernel: `plain` (default), `fused`, `fused_fixed` or `lean`; tensors only.

    Returns:
        The probability, in the precision of `z`.
    """
    skew = xp.exp(log_skew)
    t = xp.tanh(_LN2 / 2 / skew)
    rest = 2 * t / (1 + t)  # 1 - 2^(-1/C) without cancellation, and without expm1 (ONNX lacks it)
    scale = -xp.log(rest)
    rate = (2 * gain) * slope * (1 - rest) / (skew * scale * rest)
    if xp is np:
        return _evaluate(np, z, rate, scale, skew, "float64")[0]
    return (kernel or plain)(z, rate, scale, skew)


def _evaluate(xp, z, rate, scale, skew, dtype):
    """`P`, `ln(1 - exp(-y))` and `dP / d ln y`."""
    # Clipping z, not rate * z, keeps every product finite at z = +-infinity.
    exponent = rate * xp.clip(z, _LOWEST / rate, _HIGHEST / rate)
    y = scale * xp.exp(exponent)
    if dtype == "float64":
        odds = 1 / xp.expm1(xp.minimum(y, 700.0))  # u / (1 - u) with u = exp(-y)
        log_base = -xp.log1p(odds)
        probability = xp.exp(skew * log_base)
        return probability, log_base, skew * probability * y * odds
    u = xp.exp(-y)
    small = xp.minimum(y, 1.0)  # here a series keeps the relative precision of the tail
    square = small * small
    log_small = exponent + xp.log(scale) - small / 2 + square * _horner(square, _SMALL)
    u_large = xp.minimum(u, math.exp(-1.0))
    log_large = -u_large * _horner(u_large, _LARGE)
    log_base = xp.where(y < 1.0, log_small, log_large)
    probability = xp.exp(skew * log_base)
    # y u / (1 - u) tends to 1 as y vanishes, where 1 - u has lost its digits
    fall = xp.where(y < 1e-3, 1 - small / 2, y * u / xp.maximum(1 - u, 1e-7))
    return probability, log_base, skew * probability * fall


def _horner(x, coefficients):
    value = coefficients[-1] + 0 * x
    for coefficient in coefficients[-2::-1]:
        value = value * x + coefficient
    return value


def _forward(z, rate, scale, skew):
    """`P`, and what the backward pass needs: `dP / d ln y` and `dP / dC` at fixed `y`."""
    dtype = "float64" if "float64" in str(z.dtype) else "float32"
    probability, log_base, by_log_y = _evaluate(ops, z, rate, scale, skew, dtype)
    return probability, by_log_y, probability * log_base


def _backward(upstream, z, rate, scale, skew, by_log_y, by_skew):
    """Gradients of `(z, rate, scale, skew)`: no transcendental function."""
    weighted = upstream * by_log_y
    # An infinite z is saturated: its weight is 0, and 0 * inf must stay 0.
    reach = ops.clip(z, _LOWEST / rate, _HIGHEST / rate)
    return (
        weighted * rate,
        _sum_to(weighted * reach, rate),
        _sum_to(weighted, scale) / scale,
        _sum_to(upstream * by_skew, skew),
    )


def _differentiable(forward, backward):
    """The curve with its gradient written out, from functions that may be compiled."""

    @ops.custom_gradient
    def curve(z, rate, scale, skew):
        probability, *kept = forward(z, rate, scale, skew)

        def gradient(*args, upstream=None):
            if upstream is None:
                (upstream,) = args
            return backward(upstream, z, rate, scale, skew, *kept)

        return probability, gradient

    return curve


def _fixed(z, rate, scale, skew):
    return _forward(z, rate, scale, skew)[:2]


def _fixed_backward(upstream, z, rate, scale, skew, by_log_y):
    zeros = (ops.zeros_like(v) for v in (rate, scale, skew))
    return (upstream * by_log_y * rate, *zeros)


plain = _differentiable(_forward, _backward)
fused = _differentiable(compiled(_forward), compiled(_backward))
fused_fixed = _differentiable(compiled(_fixed), compiled(_fixed_backward))  # knobs not trained


def lean(z, rate, scale, skew):
    """The same curve in the fewest operations, for served graphs: its gradient is not usable.

    `ln(1 - exp(-y)) = -ln(1 + 1 / (exp(y) - 1))`, exact to rounding for every `y`; LiteRT and
    ONNX do not carry `expm1` and `log1p`.
    """
    odds = 1 / ops.expm1(scale * ops.exp(rate * z))
    return ops.exp(-skew * ops.log1p(odds))


def _sum_to(value, like):
    """Sum a gradient over the axes along which `like` was broadcast."""
    lead = len(value.shape) - len(like.shape)
    ones = [
        lead + k for k, size in enumerate(like.shape) if size == 1 and value.shape[lead + k] != 1
    ]
    value = ops.sum(value, axis=tuple(ones), keepdims=True) if ones else value
    return ops.sum(value, axis=tuple(range(lead))) if lead else value
