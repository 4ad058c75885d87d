"""The exponentiated complementary log-log curve, value and derivative, element by element.

    P(z) = (1 - exp(-y))^C,   y = E exp(b z),   E = -ln(1 - 2^(-1/C))

with `P(0) = 1/2`. `C = 1` is the thermally activated shape, large `C` the Gumbel shape of ballistic
switching. This is where the time of a `SpinNeuron` goes, so there are several forms: `plain` in few
operations, all of which ONNX carries; `skewed` in fewer, for large `C`; and `fast` for one compiled
kernel, where arithmetic is cheap and an exponential is not.

Limits: NumPy clips `b z` to [-80, 7], which moves the probability by less than 1e-34. In single
precision it is 1 where `y > 40`; below 1e-34 it stays there in `fast` and underflows in `plain`.
"""

import math

import keras
import numpy as np
from keras import ops

_LN2 = math.log(2.0)
_LOWEST, _HIGHEST = -80.0, 7.0
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
        kernel: `plain` (default), `skewed`, `fast` or `without_log_near_1`; tensors only.

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


def unfused(least_log_skew):
    """The cheapest kernel where operations run one by one, for all `ln C` from `least_log_skew`."""
    return skewed if least_log_skew >= LEAST_LOG_SKEW else plain


def _log_base(xp, half_y, base, u):
    """`ln(1 - u)`; `base` = 1 - u is precise relative to itself where y is small, u where large."""
    return xp.log(base) + ((1 - base) - u)


def _evaluate(xp, z, rate, scale, skew, log_base=_log_base):
    """`P`, and `dP / d ln y` as a function."""
    exponent = rate * z
    if xp is np:  # whose logarithm warns of 0; tensors need not pay for this
        exponent = np.clip(exponent, _LOWEST, _HIGHEST)
    half_y = (scale / 2) * xp.exp(exponent)  # every operation here is a pass through memory
    half = xp.tanh(half_y)
    base, u = half / (0.5 + 0.5 * half), xp.exp(-2 * half_y)
    probability = xp.exp(skew * log_base(xp, half_y, base, u))

    def by_log_y():
        return skew * probability * u * (xp.minimum(2 * half_y, 1e4) / xp.maximum(base, 1e-37))

    return probability, by_log_y


def _gradients(upstream, by_z, z, probability, rate, scale, skew):
    """Gradients of `(z, rate, scale, skew)` from that of `z`."""
    # An infinite z is saturated: its weight is 0, and 0 * inf must stay 0.
    reach = ops.clip(z, -1e9, 1e9)
    by_skew = probability * ops.log(ops.maximum(probability, 1e-37))
    both = rate * scale
    return (
        _sum_to(by_z, z),
        _sum_to(by_z * reach, rate) / rate,
        _sum_to(_sum_to(by_z, both) / both, scale),
        _sum_to(upstream * by_skew, skew) / skew,
    )


def _sum_to(value, like):
    """Sum a gradient over the axes along which `like` was broadcast."""
    lead = len(value.shape) - len(like.shape)
    ones = [
        lead + k for k, size in enumerate(like.shape) if size == 1 and value.shape[lead + k] != 1
    ]
    value = ops.sum(value, axis=tuple(ones), keepdims=True) if ones else value
    return ops.sum(value, axis=tuple(range(lead))) if lead else value


@ops.custom_gradient
def plain(z, rate, scale, skew):
    """The curve in few operations, in any precision."""
    probability, by_log_y = _evaluate(ops, z, rate, scale, skew)

    def gradient(*args, upstream=None):
        upstream = args[0] if upstream is None else upstream
        by_z = upstream * by_log_y() * rate
        return _gradients(upstream, by_z, z, probability, rate, scale, skew)

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
        return _gradients(upstream, upstream * by_log_y * rate, z, probability, rate, scale, skew)

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


# --- the form for compiled kernels, float32 ------------------------------------------------------


def _minimax(function, lowest, highest, degree):
    """Coefficients of a polynomial, near minimax in relative error."""
    x = (lowest + highest) / 2 + (highest - lowest) / 2 * np.cos(
        np.pi * (np.arange(200) + 0.5) / 200
    )
    domain, weight = [lowest, highest], 1 / np.abs(function(x))
    fit = np.polynomial.Chebyshev.fit(x, function(x), degree, domain=domain, w=weight)
    return fit.convert(kind=np.polynomial.Polynomial).coef.tolist()


# Errors below are the largest, relative to the function, as tests/test_switching.py holds them.
# 2^r = 1 + r p(r) for |r| <= 1/2: 1e-7
_POWER = _minimax(lambda r: np.expm1(_LN2 * r) / r, -0.5, 0.5, 4)
# log2(1 - u) = u p(u) for u <= exp(-1): 7e-8
_LARGE = _minimax(lambda u: np.log1p(-u) / (_LN2 * u), 0.0, math.exp(-1.0), 6)
# log2((1 - exp(-y)) / y) = -x / 2 + x^2 p(x^2), x = y / ln 2, for y <= 1: 2e-7, absolute
_SMALL = [b * _LN2 ** (2 * k + 1) for k, b in enumerate((1 / 24, -1 / 2880, 1 / 181440))]

# (2^y - 1) / y, from the series
_GROWTH = [_LN2, _LN2**2 / 2, _LN2**3 / 6]


def _horner(x, coefficients):
    value = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        value = value * x + coefficient
    return value


@ops.custom_gradient
def _power_of_two(x):
    """`2^x` for `|x| < 126` (TensorFlow, float32)."""
    import tensorflow as tf

    part = x - ops.round(x)

    def gradient(*args, upstream=None):
        upstream = args[0] if upstream is None else upstream
        return upstream * _LN2 * _power_of_two(x)

    # This sum has round(x) in its last bits. A conversion would cost three comparisons.
    whole = tf.bitcast(x + 1.5 * 2**23, tf.int32)
    bits = tf.bitcast(1 + part * _horner(part, _POWER), tf.int32)
    return tf.bitcast(bits + tf.bitwise.left_shift(whole, 23), tf.float32), gradient


def _exponent(z, rate, scale):
    """`log2(y / E)` and `y / ln 2`, kept below 60: processors are slow at subnormal numbers."""
    highest = math.log2(60 * _LN2) - ops.log(scale) / _LN2
    exponent = ops.clip((rate / _LN2) * z, _LOWEST / _LN2, highest)
    return exponent, (scale / _LN2) * _power_of_two(exponent)


def _fast_probability(z, rate, scale, skew):
    exponent, y = _exponent(z, rate, scale)
    u = _power_of_two(-y)
    small = exponent + ops.log(scale) / _LN2 + y * (y * _horner(y * y, _SMALL) - 0.5)
    log_base = ops.where(y < 1 / _LN2, small, u * _horner(u, _LARGE))
    # A quotient, because XLA would compute anything cheaper anew for everything that uses it. The
    # last term keeps NaN.
    return 1 / (_power_of_two(ops.minimum(-skew * log_base, 115.0)) + 0 * exponent)


def fast(z, rate, scale, skew, probability=None):
    """The curve for a kernel that XLA fuses, TensorFlow and float32 (otherwise: `plain`).

    Args:
        z, rate, scale, skew: as `plain`.
        probability: the result, where it is known and only the gradient is wanted.
    """
    if keras.backend.backend() != "tensorflow" or "float32" not in str(z.dtype):
        return plain(z, rate, scale, skew)
    shape, inner = ops.shape(z), z.shape[1:]
    rows = (-1, math.prod(inner))  # long enough to be worked on as vectors, however few channels

    if probability is not None:
        probability = ops.reshape(probability, rows)

    @ops.custom_gradient
    def curve(z, rate, scale, skew):
        result = _fast_probability(z, rate, scale, skew) if probability is None else probability

        def gradient(*args, upstream=None):
            upstream = args[0] if upstream is None else upstream
            # dP / d ln y = C P y / (exp(y) - 1), as a quotient for the same reason
            _, y = _exponent(z, rate, scale)
            y = ops.maximum(y, 1e-6)  # the quotient is 1 below, and its parts would underflow
            growth = ops.where(y < 0.01, y * _horner(y, _GROWTH), _power_of_two(y) - 1)
            by_z = upstream * result * y / (growth * (1 / (_LN2 * skew * rate)))
            return _gradients(upstream, by_z, z, result, rate, scale, skew)

        return result, gradient

    constants = [_along_row(constant, inner) for constant in (rate, scale, skew)]
    return ops.reshape(curve(ops.reshape(z, rows), *constants), shape)


def _along_row(constant, inner):
    """One value for every element of a sample, flat."""
    size, channels = math.prod(inner), inner[-1]
    flat = ops.reshape(constant, (-1,))
    if flat.shape[0] in (1, size):
        return flat
    if constant.shape[-1] != channels or flat.shape[0] != channels:
        return ops.reshape(ops.broadcast_to(constant, inner), (size,))
    # As a product, because XLA would copy a plain broadcast into the loop, as a scattered read.
    halves = ops.full((size // channels, 2), 0.5, dtype=constant.dtype)
    return ops.reshape(ops.matmul(halves, ops.stack([flat, flat])), (size,))
