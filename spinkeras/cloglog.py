"""The exponentiated complementary log-log curve, value and derivative, element by element.

    P(z) = (1 - exp(-y))^C,   y = E exp(b z),   E = -ln(1 - 2^(-1/C))

with `P(0) = 1/2`. `C = 1` is the thermally activated shape, large `C` the Gumbel shape of ballistic
switching. This is where the time of a `SpinNeuron` goes, so there are several forms: `plain` in few
operations, all of which ONNX carries; `skewed` in fewer, for large `C`; and those of
`spinkeras.kernels`.

Limits: NumPy clips `b z` to [-80, 7], which moves the probability by less than 1e-34. In single
precision it is 1 where `y > 40` and underflows below 1e-34.
"""

import math

import numpy as np
from keras import ops

_LN2 = math.log(2.0)
LOWEST, _HIGHEST = -80.0, 7.0
LEAST_LOG_SKEW = 3.0
"""From this `ln C` on `skewed` is as exact as `plain`."""


def exponentiated_cloglog(xp, z, slope, log_skew, gain=1.0, kernel=None):
    """`P = (1 - exp(-E exp(b gain z)))^C` with `P(0) = 1/2` and `dP/dz(0) = gain slope`.

    Args:
        xp: `numpy` or `keras.ops`.
        z: distance from the midpoint, any shape, infinite values allowed.
        slope: `dP/dz` at the midpoint for gain 1, > 0, broadcast against `z`.
        log_skew: `ln C`, broadcast against `z`.
        gain: factor on `z`, applied per neuron instead of per element.
        kernel: `plain` (default), another form of this module or `kernels.fast`; tensors only.

    Returns:
        The probability, in the precision of `z`.
    """
    skew = xp.exp(log_skew)
    t = xp.tanh(_LN2 / 2 / skew)
    rest = 2 * t / (1 + t)  # 1 - 2^(-1/C) without cancellation, and without expm1 (ONNX lacks it)
    scale = -xp.log(rest)
    rate = (2 * gain) * slope * (1 - rest) / (skew * scale * rest)
    if xp is np:
        return _evaluate(np, z, rate, scale, skew)[0]
    return (kernel or plain)(z, rate, scale, skew)


def unfused(log_skews=None):
    """The cheapest form where operations run one by one.

    Args:
        log_skews: least and greatest `ln C` of the curves. Default `None`: any.
    """
    return plain if log_skews is None or log_skews[0] < LEAST_LOG_SKEW else skewed


def _log_base(xp, half_y, base, u):
    """`ln(1 - u)`; `base` = 1 - u is precise relative to itself where y is small, u where large."""
    return xp.log(base) + ((1 - base) - u)


def _evaluate(xp, z, rate, scale, skew, log_base=_log_base):
    """`P`, and `dP / d ln y` as a function."""
    exponent = rate * z
    if xp is np:  # whose logarithm warns of 0; tensors need not pay for this
        exponent = np.clip(exponent, LOWEST, _HIGHEST)
    half_y = (scale / 2) * xp.exp(exponent)  # every operation here is a pass through memory
    half = xp.tanh(half_y)
    base, u = half / (0.5 + 0.5 * half), xp.exp(-2 * half_y)
    probability = xp.exp(skew * log_base(xp, half_y, base, u))

    def by_log_y():
        return skew * probability * u * (xp.minimum(2 * half_y, 1e4) / xp.maximum(base, 1e-37))

    return probability, by_log_y


def gradients(upstream, by_z, z, probability, rate, scale, skew, log=None, add=None):
    """Gradients of `(z, rate, scale, skew)` from that of `z`.

    Args:
        log: function, the logarithm of a probability. Default: also of 0.
        add: function `(value, like)`, as `sum_to`, which is the default.
    """
    log, add = log or (lambda p: ops.log(ops.maximum(p, 1e-37))), add or sum_to
    reach = 100 / rate  # beyond, the curve is flat, and infinity times 0 must stay 0
    both = rate * scale
    return (
        sum_to(by_z, z),
        add(by_z * ops.maximum(ops.minimum(z, reach), -reach), rate) / rate,
        sum_to(add(by_z, both) / both, scale),
        add(upstream * (probability * log(probability)), skew) / skew,
    )


def sum_to(value, like):
    """Sum a gradient over the axes along which `like` was broadcast."""
    lead = len(value.shape) - len(like.shape)
    ones = [
        lead + k for k, size in enumerate(like.shape) if size == 1 and value.shape[lead + k] != 1
    ]
    value = ops.sum(value, axis=tuple(ones), keepdims=True) if ones else value
    return ops.sum(value, axis=tuple(range(lead))) if lead else value


def linear(z, rate, scale, skew):
    """`plain` without a gradient written by hand: its tangent, whose gradient any map keeps."""
    reach = 100 / ops.stop_gradient(rate)
    inputs = ops.maximum(ops.minimum(z, reach), -reach), rate, scale, skew
    at = z, rate, scale, skew = [ops.stop_gradient(value) for value in inputs]
    probability, by_log_y = _evaluate(ops, *at)
    by_log_y, log = by_log_y(), ops.log(ops.maximum(probability, 1e-37))
    slopes = by_log_y * rate, by_log_y * z, by_log_y / scale, probability * log / skew
    return probability + sum(slope * (x - x0) for slope, x, x0 in zip(slopes, inputs, at))


@ops.custom_gradient
def plain(z, rate, scale, skew):
    """The curve in few operations, in any precision."""
    probability, by_log_y = _evaluate(ops, z, rate, scale, skew)

    def gradient(*args, upstream=None):
        upstream = args[0] if upstream is None else upstream
        by_z = upstream * by_log_y() * rate
        return gradients(upstream, by_z, z, probability, rate, scale, skew)

    return probability, gradient


@ops.custom_gradient
def skewed(z, rate, scale, skew):
    """`plain` for `ln C >= LEAST_LOG_SKEW`, a quarter cheaper.

    There `exp(-y)` is 1 only where the probability has long vanished, so that `1 - exp(-y)` needs
    no care. TensorFlow makes one pass of the three operations after the second product.
    """
    y = scale * ops.exp(rate * z)
    u = ops.exp(-y)
    probability = ops.exp(skew * ops.log1p(-u))

    def gradient(*args, upstream=None):
        upstream = args[0] if upstream is None else upstream
        by_log_y = skew * probability * u * (ops.minimum(y, 1e4) / ops.maximum(1 - u, 1e-37))
        return gradients(upstream, upstream * by_log_y * rate, z, probability, rate, scale, skew)

    return probability, gradient


def without_log_near_1(z, rate, scale, skew):
    """`plain` for LiteRT, whose logarithm is off by 1e-7 near 1; `skew` multiplies that error.

    There `ln(1 - u)` is a Pade form, to 2.5e-7 of itself. Float32, about a third slower in
    TensorFlow.
    """

    def log_base(xp, half_y, base, u):
        pade = u * (u - 2) / (u * (u / 3 - 2) + 2)
        return xp.where(half_y < 1.25, _log_base(xp, half_y, base, u), pade)

    return _evaluate(ops, z, rate, scale, skew, log_base)[0]
