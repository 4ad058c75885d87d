"""The curve of `cloglog` with its gradient for one compiled kernel: TensorFlow, float32.

In a kernel arithmetic is cheap, an exponential is not, and the only arrays worth keeping are the
input and the result. There are two forms of the probability:

* by polynomials, where every `ln C` of a layer is known to be 3.5 or more: `P = 2^(-p(t)^4)`, with
  `t` the input scaled to [-1, 1] and `p` a polynomial whose coefficients follow from `ln C`;
* by powers otherwise: the formula itself, with three powers of two and a logarithm.

Errors, as tests/test_kernels.py holds them: 1e-6 in the probability; relative to it, down to
1e-30, 3e-5 by polynomials and by powers 2e-5, or 2e-4 for the Gumbel shape (`ln C > 4`), where
the rounding of `y` alone does as much. Below, the probability stays at 5e-32 (polynomials) or
2e-35 (powers).
"""

import functools
import math

import keras
import numpy as np
from keras import ops
from numpy.polynomial import chebyshev, polynomial

from spinkeras.cloglog import LOWEST, gradients, plain, unfused
from spinkeras.fusion import sum_over_batch

_LN2 = math.log(2.0)
_LONGEST_ROW = 512  # so many elements' constants stay in the fastest cache


def fast(z, rate, scale, skew, probability=None, log_skews=None):
    """The curve as `cloglog.plain` gives it, for a kernel that XLA fuses.

    Args:
        z, rate, scale, skew: as `cloglog.plain`.
        probability: the result, where it is known and only the gradient is wanted.
        log_skews: least and greatest `ln C` that `skew` may hold. Default `None`: any.
    """
    if keras.backend.backend() != "tensorflow" or "float32" not in str(z.dtype):
        return unfused(log_skews)(z, rate, scale, skew)
    shape, inner = ops.shape(z), z.shape[1:]
    table = _polynomials(log_skews)
    by_polynomials = probability is None and table is not None
    row = row_length(inner, skew)
    constants = [along_row(c[None], inner, row)[0] for c in (rate, scale, skew)]
    z = ops.reshape(z, (-1, row))
    if probability is not None:
        probability = ops.reshape(probability, (-1, row))
    elif by_polynomials:
        coefficients = ops.stop_gradient(_coefficients(table, rate, skew))
        probability = _by_polynomials(z, along_row(coefficients, inner, row))

    @ops.custom_gradient
    def curve(z, rate, scale, skew):
        result = _by_powers(z, rate, scale, skew) if probability is None else probability

        def gradient(*args, upstream=None):
            upstream = args[0] if upstream is None else upstream
            # dP / d ln y = C P y / (exp(y) - 1). A quotient, because XLA would compute anything
            # cheaper anew for everything that uses it.
            _, y = _exponent(z, rate, scale)
            # The quotient is 1 for small y, where its parts would underflow.
            y = ops.maximum(y, 1e-6 if table is None else 0.01)
            growth = _power_of_two(y) - 1
            if table is None:  # otherwise such y do not matter
                growth = ops.where(y < 0.01, y * _horner(y, _GROWTH), growth)
            by_z = upstream * result * y / (growth * (1 / (_LN2 * skew * rate)))
            return gradients(upstream, by_z, z, result, rate, scale, skew, log=_log, add=_add_rows)

        return result, gradient

    return ops.reshape(curve(z, *constants), shape)


def elementwise(z, rate, scale, skew):
    """The curve for a compiled kernel without gradients; constants of any shape that broadcasts."""
    if keras.backend.backend() != "tensorflow" or "float32" not in str(z.dtype):
        return plain(z, rate, scale, skew)
    return _by_powers(z, rate, scale, skew)


# --- rows: long enough to be worked on as vectors, however few channels --------------------------


def row_length(inner, constant):
    """Elements of a sample that share one row of constants."""
    size, channels = math.prod(inner), inner[-1]
    if not (math.prod(constant.shape) == 1 or _is_per_channel(constant, channels)):
        return size
    longest = max(1, _LONGEST_ROW // channels)
    positions = size // channels
    return channels * max(n for n in range(1, longest + 1) if positions % n == 0)


def _is_per_channel(constant, channels):
    return math.prod(constant.shape) == constant.shape[-1] == channels


def along_row(constants, inner, row):
    """Constants of neurons, `(count, ...)`, for every element of a row: `(count, row)`."""
    count, channels = constants.shape[0], inner[-1]
    flat = ops.reshape(constants, (count, -1))
    if flat.shape[1] in (1, row):
        return flat
    if not _is_per_channel(constants[0], channels):
        return ops.reshape(ops.broadcast_to(constants, (count, *inner)), (count, row))
    if keras.backend.backend() != "tensorflow":
        return ops.tile(flat, (1, row // channels))
    # As a product, because XLA would copy a plain broadcast into the loop, as a scattered read.
    halves = ops.full((row // channels, 2), 0.5, dtype=constants.dtype)
    twice = ops.reshape(ops.stack([flat, flat]), (2, -1))
    spread = ops.reshape(ops.matmul(halves, twice), (-1, count, channels))
    return ops.reshape(ops.transpose(spread, (1, 0, 2)), (count, row))


def _add_rows(values, like):
    """Sum over rows, and along them where one constant serves all of a row."""
    total = sum_over_batch(values)
    return total if like.shape == total.shape else ops.sum(total, keepdims=True)


# --- by powers -----------------------------------------------------------------------------------


def _minimax(function, lowest, highest, degree):
    """Coefficients of a polynomial, near minimax in relative error."""
    x = (lowest + highest) / 2 + (highest - lowest) / 2 * _nodes(200)
    domain, weight = [lowest, highest], 1 / np.abs(function(x))
    fit = chebyshev.Chebyshev.fit(x, function(x), degree, domain=domain, w=weight)
    return fit.convert(kind=polynomial.Polynomial).coef.tolist()


def _nodes(count):
    return np.cos(np.pi * (np.arange(count) + 0.5) / count)


# 2^r = 1 + r p(r) for |r| <= 1/2: 1e-7
_POWER = _minimax(lambda r: np.expm1(_LN2 * r) / r, -0.5, 0.5, 4)
# log2(1 - u) = u p(u) for u <= exp(-1): 7e-8
_LARGE = _minimax(lambda u: np.log1p(-u) / (_LN2 * u), 0.0, math.exp(-1.0), 6)
# log2((1 - exp(-y)) / y) = -x / 2 + x^2 p(x^2), x = y / ln 2, for y <= 1: 2e-7, absolute
_SMALL = [b * _LN2 ** (2 * k + 1) for k, b in enumerate((1 / 24, -1 / 2880, 1 / 181440))]
# log2(1 + r) = r p(r) for sqrt(1/2) <= 1 + r <= sqrt(2): 3e-8
_LOGARITHM = _minimax(lambda r: np.log1p(r) / (_LN2 * r), 0.5**0.5 - 1, 2**0.5 - 1, 8)
# (2^y - 1) / y, from the series
_GROWTH = [_LN2, _LN2**2 / 2, _LN2**3 / 6]
_ROOT_OF_HALF = int(np.float32(0.5**0.5).view("int32"))


def _horner(x, coefficients):
    value = coefficients[-1]
    for coefficient in coefficients[-2::-1]:
        value = value * x + coefficient
    return value


@ops.custom_gradient
def _power_of_two(x):
    """`2^x` for `|x| < 126`."""
    import tensorflow as tf

    part = x - ops.round(x)

    def gradient(*args, upstream=None):
        upstream = args[0] if upstream is None else upstream
        return upstream * _LN2 * _power_of_two(x)

    # This sum has round(x) in its last bits. A conversion would cost three comparisons.
    whole = tf.bitcast(x + 1.5 * 2**23, tf.int32)
    bits = tf.bitcast(1 + part * _horner(part, _POWER), tf.int32)
    return tf.bitcast(bits + tf.bitwise.left_shift(whole, 23), tf.float32), gradient


@ops.custom_gradient
def _log2(x):
    """`log2(x)` for normal numbers."""
    import tensorflow as tf

    def gradient(*args, upstream=None):
        upstream = args[0] if upstream is None else upstream
        return upstream / (_LN2 * x)

    bits = tf.bitcast(x, tf.int32)
    whole = tf.bitwise.right_shift(bits - _ROOT_OF_HALF, 23)
    part = tf.bitcast(bits - tf.bitwise.left_shift(whole, 23), tf.float32) - 1
    return tf.cast(whole, tf.float32) + part * _horner(part, _LOGARITHM), gradient


def _log(x):
    return _LN2 * _log2(x)


def _exponent(z, rate, scale):
    """`log2(y / E)` and `y / ln 2`, kept below 60: processors are slow at subnormal numbers."""
    highest = math.log2(60 * _LN2) - ops.log(scale) / _LN2
    exponent = ops.clip((rate / _LN2) * z, LOWEST / _LN2, highest)
    return exponent, (scale / _LN2) * _power_of_two(exponent)


def _by_powers(z, rate, scale, skew):
    exponent, y = _exponent(z, rate, scale)
    u = _power_of_two(-y)
    small = exponent + ops.log(scale) / _LN2 + y * (y * _horner(y * y, _SMALL) - 0.5)
    log_base = ops.where(y < 1 / _LN2, small, u * _horner(u, _LARGE))
    return _quotient(ops.minimum(-skew * log_base, 115.0), exponent)


def _quotient(bits, source):
    """`2^-bits`, NaN where the source is. XLA does not compute a quotient more than once."""
    return 1 / (_power_of_two(bits) + 0 * source)


# --- by polynomials ------------------------------------------------------------------------------

_ENDS = 104.0, 6e-8  # -log2 P where a polynomial begins and ends
_ROOT = 4  # of -log2 P; the higher, the smoother, but rounding errors grow with it
_TERMS = 14  # of the series for the coefficients, in (ln C)^(-1/2)


def _by_polynomials(z, coefficients):
    gain, shift, *powers = (coefficients[k] for k in range(coefficients.shape[0]))
    t = ops.clip(gain * z + shift, -1.0, 1.0)
    # Even and odd powers side by side: a processor need not wait for one to begin the other.
    root = _horner(t * t, powers[0::2]) + t * _horner(t * t, powers[1::2])
    return _quotient((root * root) * (root * root), t)


def _coefficients(table, rate, skew):
    """For every neuron `t = c[0] z + c[1]` and the powers of `t`, stacked: `(count, ...)`."""
    matrix, (least, greatest) = table
    log_skew = ops.clip(ops.log(ops.cast(skew, "float64")), least, greatest)  # per neuron: cheap
    x = ops.reshape(_scaled(log_skew, least, greatest), (1, -1))
    columns = ops.convert_to_tensor(matrix.T[:, :, None], "float64")
    rows = ops.reshape(_horner(x, [columns[k] for k in range(_TERMS)]), (-1, *skew.shape))
    gain = rows[:1] * ops.cast(rate, "float64")
    return ops.cast(ops.concatenate([gain, rows[1:]]), "float32")


def _scaled(log_skew, least, greatest):
    """`(ln C)^(-1/2)` in [-1, 1]."""
    low, high = greatest**-0.5, least**-0.5
    return (2 * log_skew**-0.5 - (low + high)) / (high - low)


@functools.lru_cache(maxsize=128)
def _polynomials(log_skews):
    """Series for the coefficients of all curves with these `ln C`, of the least degree that does.

    Returns:
        `(matrix, log_skews)`, or `None` where no polynomial pays.
    """
    if log_skews is None or log_skews[0] < 3.5:  # below, coefficients of many digits cancel
        return None
    log_skews = log_skews[0] - 0.05, log_skews[1] + 0.05  # never a single point, nor its rounding
    for degree in range(7, 20):
        matrix = _fit(degree, *log_skews)
        if _is_exact(matrix, *log_skews):
            return matrix, log_skews
    return None


def _fit(degree, least, greatest):
    low, high = greatest**-0.5, least**-0.5
    log_skews = ((low + high) / 2 + (high - low) / 2 * _nodes(_TERMS)) ** -2.0
    rows = []
    for log_skew in log_skews:
        bits, exponent_at = _bits(log_skew)
        first, last = (exponent_at(end) for end in _ENDS)
        gain = 2 / (last - first)
        shift = -gain * (last + first) / 2
        t = _nodes(400)
        wanted = bits((t - shift) / gain)
        # Errors of 1e-5 of a small probability and of 3e-7 of a large one weigh the same.
        weight = wanted ** (1 - 1 / _ROOT) * (1e5 + 2.0**-wanted / 3e-7)
        weight = np.maximum(weight, 1e-4 * weight.max()) / (1 - t * t) ** 0.25
        powers = chebyshev.cheb2poly(chebyshev.chebfit(t, wanted ** (1 / _ROOT), degree, w=weight))
        rows.append([gain, shift, *powers])
    series = chebyshev.chebfit(_nodes(_TERMS), np.array(rows), _TERMS - 1)
    return np.array([chebyshev.cheb2poly(column) for column in series.T])


def _is_exact(matrix, least, greatest):
    for log_skew in np.linspace(least, greatest, 41):
        gain, shift, *powers = polynomial.polyval(_scaled(log_skew, least, greatest), matrix.T)
        bits, exponent_at = _bits(log_skew)
        exponents = np.linspace(exponent_at(99.6), exponent_at(1e-8), 800)
        t = np.clip(gain * exponents + shift, -1, 1)
        found, wanted = 2.0 ** -(polynomial.polyval(t, powers) ** _ROOT), 2.0 ** -bits(exponents)
        if np.any(np.abs(found - wanted) > np.minimum(3e-7, 6e-6 * wanted)):
            return False
    return True


def _bits(log_skew):
    """`-log2 P` as a function of `b z`, and its inverse (NumPy)."""
    skew = np.exp(log_skew)
    scale = -np.log(-np.expm1(-_LN2 / skew))

    def bits(exponent):
        y = scale * np.exp(exponent)
        return -skew / _LN2 * np.log1p(-np.exp(-y))

    def exponent_at(bits):
        return np.log(-np.log(-np.expm1(-bits * _LN2 / skew)) / scale)

    return bits, exponent_at
