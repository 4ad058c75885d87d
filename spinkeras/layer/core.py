"""The core: the response of many neurons and its gradient, one function for every device and law.

The curve of `spinkeras.physics.curve`, written in partial fractions, is at an input `x`

    P = low + span S(t + K + (B t + C) / (t^2 + w)),   t = scale x + shift

with the logistic function `S`. So eight numbers describe a neuron: `scale, shift, K, B, C, w, low,
span`. A curve from 0 to 1 needs only the first six, because `low` = 0 and `span` = 1. For every law
the gradient of a knob is one sum over the batch; if no knob is trained there is no sum.

TensorFlow runs operations one by one, unless its compiler XLA fuses them into one kernel. In
training one kernel computes the response, another one its gradient. A third kernel computes the
numbers of the neurons; all layers share it. See `use_kernels`.
"""

import functools
import math

import keras
import numpy as np
from keras import ops

from spinkeras import _tensorflow, _tracing
from spinkeras.physics.curve import FARTHEST

_BLOCKS = 8
_LONGEST_ROW = 512  # the numbers of this many elements fit into the fastest cache
_USE_KERNELS = True


def precise(dtype):
    """Dtype for the numbers of the neurons: float64 on TensorFlow, where it needs no setting.

    There are few such numbers, so double precision costs little and avoids rounding errors.
    """
    return "float64" if keras.backend.backend() == "tensorflow" else dtype


def use_kernels(enabled: bool):
    """Let TensorFlow run spin neurons in compiled kernels while it trains, or forbid it.

    These are XLA kernels inside the graph of a training step. They are used also if the model is
    compiled with `jit_compile="auto"`, which means `False` on a machine without a GPU. They are
    never used in inference, in exports, in eager execution (`run_eagerly=True`,
    `tf.config.run_functions_eagerly(True)`), under `tf.debugging.enable_check_numerics()`, inside
    `tf.vectorized_map`, or with `jit_compile=False` on a machine with a GPU. Other backends do not
    need them.

    Args:
        enabled: `True` at the start. `False` uses plain operations everywhere: about 1.2 to 3
            times as slow, with the same results to rounding. A change takes effect when a step is
            traced, so make it before the first `fit`.
    """
    global _USE_KERNELS
    _USE_KERNELS = bool(enabled)


def rows(curve, gain, shift):
    """The numbers `scale, shift, K, B, C, w, low, span` of neurons with `y = s (gain x + shift)`.

    The drive is the current in units of the critical current per unit of thermal stability.

    Args:
        curve: `RationalLogit`, the curve with steepness `s`.
        gain: drive per unit of input.
        shift: drive at zero input minus the midpoint.

    Returns:
        List of eight arrays, or of the first six for a curve from 0 to 1.
    """
    s = curve.steepness
    tail, n, offset, top, bottom, width = _fractions(curve)
    return [
        tail * s * gain,
        tail * (s * shift + n),
        offset - tail * n,
        tail * top,
        tail * tail * bottom,
        tail * tail * width,
        *(() if is_certain(curve) else (curve.floor + 0 * s, curve.ceiling - curve.floor + 0 * s)),
    ]


def _fractions(curve):
    """`tail, n, offset, top, bottom, width` of the logit in partial fractions.

    logit q = tail z + offset - tail n + (top z + bottom) / (z^2 + width),   z = y + n
    """
    a, b, c, d = curve.a, curve.b, curve.c, curve.d
    tail, n = 4 * b / d, c / (2 * d)
    offset = (4 * a - tail * c) / d
    rest = 4 - tail - offset * c
    return tail, n, offset, rest / d, -(offset + rest * n) / d, (1 - c * n / 2) / d


def is_certain(curve):
    """Whether the probability goes from 0 to 1 for all values of the knobs."""
    ends = curve.floor, curve.ceiling
    return all(isinstance(end, float) for end in ends) and ends == (0.0, 1.0)


def by_input(numbers):
    """Coefficients of `p(t)`, where `p(t) / (t^2 + w)^2` is the derivative of the logit by `x`.

    Returns:
        List of the coefficients of `1, t, t^2, t^4`.
    """
    scale, _, _, b, c, w, *_ = numbers
    return [*(scale * value for value in _by_t(b, c, w)), scale]


def _by_t(b, c, w):
    """Coefficients of `1, t, t^2` for the derivative by `t`; the coefficient of `t^4` is 1."""
    return w * (w + b), -2 * c, 2 * w - b


def by_knob(curve, by, numbers, shift, by_shift):
    """Coefficients of `p(t)`, where `p(t) / (t^2 + w)^2` is the derivative of the logit by a knob.

    Args:
        curve, shift: as in `rows`.
        by: `RationalLogit` that holds the derivatives of the curve's numbers by the knob, or by
            several knobs along a first axis.
        numbers: result of `rows`.
        by_shift: derivative of `shift` by the knob.

    Returns:
        List of the coefficients of `1` to `t^5`. Unless the curve goes from 0 to 1, the
        derivatives of `low` and `span` follow.
    """
    s, c, d = curve.steepness, curve.c, curve.d
    tail, n, offset, top, bottom, width = _fractions(curve)
    _, _, _, big_b, big_c, w, *_ = numbers
    dtail = (4 * by.b - tail * by.d) / d
    dn = (by.c / 2 - n * by.d) / d
    doffset = (4 * by.a - dtail * c - tail * by.c - offset * by.d) / d
    drest = -dtail - doffset * c - offset * by.c
    dtop = (drest - top * by.d) / d
    dbottom = -(doffset + drest * n + top * d * dn + bottom * by.d) / d
    dwidth = -((by.c * n + c * dn) / 2 + width * by.d) / d
    dk = doffset - dtail * n - tail * dn
    log_tail = dtail / tail
    db = log_tail * big_b + tail * dtop
    dc = 2 * log_tail * big_c + tail * tail * dbottom
    dw = 2 * log_tail * w + tail * tail * dwidth
    # dt = first t + second, at constant input
    log_s = by.steepness / s
    first = log_s + log_tail
    second = tail * (s * by_shift + dn - log_s * n)
    p0, p1, p2 = _by_t(big_b, big_c, w)
    return [
        second * p0 + (dk * w + dc) * w - dw * big_c,
        second * p1 + first * p0 + db * w - dw * big_b,
        second * p2 + first * p1 + 2 * w * dk + dc,
        first * p2 + db,
        second + dk,
        first,
        *(() if is_certain(curve) else (by.floor, by.ceiling - by.floor)),
    ]


# --- element by element --------------------------------------------------------------------------


def response(x, numbers, logistic=ops.sigmoid):
    """Probability `P` of every element.

    Args:
        x: input.
        numbers: result of `rows`, stacked or as a list; each number broadcasts against `x`.
        logistic: function `1 / (1 + exp(-q))` of the logit `q`.
    """
    scale, shift, k, b, c, w, *ends = _unstacked(numbers)
    t = _bounded(scale * x + shift)
    probability = logistic(t + (b * t + c) / (t * t + w) + k)
    return ends[0] + ends[1] * probability if ends else probability


def logistic_by_parts(logit):
    """Logistic function for runtimes whose own one has errors of 1e-7, such as ONNX Runtime."""
    return 1 / (1 + ops.exp(-logit))


def _bounded(t):
    """`t` limited to values at which the curve is flat, to avoid inf / inf beyond them."""
    return ops.minimum(ops.maximum(t, -FARTHEST), FARTHEST)


def slopes(upstream, x, output, numbers, by_input, by_knobs):
    """`dP/dx` and `dP/dknob` of every element, multiplied by `upstream`.

    Args:
        upstream: gradient by the output, an array like `x` or a number.
        output: result of `response`.
        numbers, by_input, by_knobs: results of `rows`, `by_input` and `by_knob` (one per knob),
            stacked or as lists.
    """
    scale, shift, _, _, _, w, *ends = _unstacked(numbers)
    low, span = ends or (0.0, 1.0)
    t = _bounded(scale * x + shift)
    high = output - low if ends else output
    upstream_by_logit = upstream * (high * (1 - high / span if ends else 1 - high))
    square = t * t
    # XLA computes cheap operations again for every use, but not a division.
    shared = upstream_by_logit / ((square + w) * (square + w))
    p0, p1, p2, p4 = _unstacked(by_input)
    by_x = shared * ((p4 * square + p2) * square + (p1 * t + p0))
    result = []
    for one in by_knobs:
        p0, p1, p2, p3, p4, p5, *by_ends = _unstacked(one)
        value = shared * (((((p5 * t + p4) * t + p3) * t + p2) * t + p1) * t + p0)
        if ends:
            value = value + upstream * (by_ends[0] + by_ends[1] * (high / span))
        result.append(value)
    return by_x, result


def _unstacked(numbers):
    return numbers if isinstance(numbers, (list, tuple)) else ops.unstack(numbers)


# --- linked to the knobs -------------------------------------------------------------------------


def neuron_numbers(curve, setting, constants, trained, dtype, kernels=False):
    """The numbers of all neurons of a layer, and their derivatives, as `linked` takes them.

    Args:
        curve: curve function with `tangents`, see `laws.get_curve`.
        setting: `ln(t_p / t_D)` and `Delta` of every neuron, tensors.
        constants: four numbers: drive per unit of input; 1 if the midpoint moves with the knobs,
            otherwise 0; the nominal midpoint; the layer's `knob_scale`.
        trained: whether to return the result of `by_knob` for both knobs, too.
        dtype: dtype of the result.
        kernels: whether the compiled kernels of TensorFlow may be used here.

    Returns:
        List of arrays `(count, *neurons)`: the results of `rows`, of `by_input` and, if
        `trained`, of `by_knob` for the pulse width and for the anisotropy.
    """
    function = _numbers_by(curve.tangents if trained else curve.law, trained, dtype)
    constants = [*constants, *curve.parameters]
    found = per_neuron(function, setting, constants) if kernels else function(setting, constants)
    found = ops.unstack(found)
    count = (len(found) - 4) // (3 if trained else 1)
    own, slope, by = found[:count], found[count : count + 4], found[count + 4 :]
    return [ops.stack(group) for group in (own, slope, by[::2], by[1::2]) if group]


@functools.cache
def _numbers_by(law, trained, dtype):
    def numbers(setting, constants):
        gain, tied, nominal, scale, *parameters = _unstacked(constants)
        curve = law(ops, *_unstacked(setting), *parameters)
        if trained:
            curve, by = curve
        shift = tied * (nominal - curve.midpoint)
        own = rows(curve, gain, shift)
        found = ops.stack([*own, *by_input(own)])
        if trained:
            by = ops.stack(by_knob(curve, by, own, shift, -tied * by.midpoint))
            by = ops.reshape(scale * by, (-1, *found.shape[1:]))
            found = ops.concatenate([found, by])
        # XLA computes cheap operations again for every element, but not a division.
        return ops.cast(found / (own[5] / own[5]), dtype)

    return numbers


def midpoint(curve, setting, kernels=False):
    """Midpoint of the curve of every neuron, as drive; arguments as in `neuron_numbers`."""
    if kernels and hasattr(curve, "law"):
        return per_neuron(_midpoint_by(curve.law), setting, curve.parameters)
    return curve(ops, *setting).midpoint


@functools.cache
def _midpoint_by(law):
    def midpoint(setting, parameters):
        return law(ops, *_unstacked(setting), *_unstacked(parameters)).midpoint

    return midpoint


def linked(x, numbers, knobs, training=False, kernels=False):
    """`response` with a gradient that reaches `knobs`.

    Args:
        x: input.
        numbers: result of `neuron_numbers`, with the derivatives by these knobs.
        knobs: tensors of the trained knobs.
        training: whether a gradient will be needed.
        kernels: whether the compiled kernels of TensorFlow may be used here.
    """
    numbers, *by = numbers
    if keras.backend.backend() == "jax":
        plain, lean = _jax_links()
        return (lean if training else plain)(x, numbers, tuple(by), tuple(knobs))
    if _tracing.is_vectorized(x) or (in_graph() and not training):  # plain operations can be saved
        return response(x, numbers)
    if keras.backend.backend() == "tensorflow":
        return _tensorflow_link(kernels, x, numbers, *by, *knobs)

    @ops.custom_gradient
    def link(*inputs):
        def gradient(*inputs, upstream):
            # Compute the response here again, so that a second gradient includes it.
            return _link_gradients(_gradients, upstream, response(*inputs[:2]), *inputs)

        return response(*inputs[:2]), gradient

    return link(x, numbers, *by, *knobs)


def _tensorflow_link(kernels, *inputs):
    forward, backward = response, _gradients
    if kernels:
        forward, backward = _fused_response, _fused_gradients

    def link(*inputs):
        def gradient(upstream, output):
            return _link_gradients(backward, upstream, output, *inputs)

        return forward(*inputs[:2]), gradient

    return _tensorflow.with_gradient(link, *inputs)


def _link_gradients(gradients, upstream, output, x, numbers, *rest):
    """One gradient for each of `x, numbers, by_input, by_knobs..., knobs...`.

    Only the input and the knobs have one; it is `None` for all others.
    """
    by = rest[: 1 + len(rest) // 2]
    by_x, sums = gradients(upstream, x, output, numbers, by)
    return (by_x, None, *([None] * len(by)), *sums)


def _gradients(upstream, x, output, numbers, by):
    by_x, by_knobs = slopes(upstream, x, output, numbers, by[0], by[1:])
    sums = [sum_to(value, one.shape[1:]) for value, one in zip(by_knobs, by[1:])]
    return sum_to(by_x, x.shape), sums


def sum_to(value, shape):
    """Sum a gradient over the axes along which an array of this shape was broadcast."""
    lead = len(value.shape) - len(shape)
    ones = [lead + k for k, n in enumerate(shape) if n == 1 and value.shape[lead + k] != 1]
    value = ops.sum(value, axis=tuple(ones), keepdims=True) if ones else value
    return ops.sum(value, axis=tuple(range(lead))) if lead else value


@functools.cache
def _jax_links():
    import jax

    @jax.custom_jvp
    def link(x, numbers, by, knobs):
        return response(x, numbers)

    @link.defjvp
    def tangent(inputs, changes):
        x, numbers, by, _ = inputs
        output = link(*inputs)
        by_x, by_knobs = slopes(1.0, x, output, numbers, by[0], by[1:])
        change = by_x * changes[0]
        return output, change + sum(by * d for by, d in zip(by_knobs, changes[3]))

    # `checkpoint` computes the response again for the gradient: faster than storing and reading it.
    return link, jax.checkpoint(link, prevent_cse=False)


# --- TensorFlow's kernels ------------------------------------------------------------------------


def kernels_serve(x, model=None) -> bool:
    """Whether training on this input may run in the compiled kernels.

    Args:
        x: input of a layer.
        model: the outermost layer of the call. Its `jit_compile=False` counts only on a machine
            with a GPU. Elsewhere it may not be the user's choice: Keras turns the default into it.
    """
    if not _USE_KERNELS or keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    if tf.executing_eagerly() or _tracing.is_vectorized(x) or None in x.shape[1:]:
        return False
    refused = isinstance(model, keras.Model) and not model.jit_compile
    if refused and tf.config.list_physical_devices("GPU"):
        return False
    return not _tensorflow.checks_numbers()  # XLA would drop the checks


def compiled(function):
    """`function` as one XLA kernel on TensorFlow and JAX; unchanged on PyTorch.

    Do not use it in exports: an exported graph must run without XLA. A compiled function is
    compiled again for every new input shape.
    """
    if keras.backend.backend() == "jax":
        import jax

        return jax.jit(function)
    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    return tf.function(function, jit_compile=True, autograph=False)


@functools.cache
def _kernel(function, signature):
    """A function of stacked arrays as one kernel for all inputs of these shapes and dtypes."""
    import tensorflow as tf

    specs = [tf.TensorSpec(shape, dtype) for shape, dtype in signature]
    return tf.function(function, input_signature=specs, jit_compile=True, autograph=False)


def in_kernel(function, *inputs):
    """Run a function of tensors in a kernel; an axis of unknown length (`None`) may vary."""
    import tensorflow as tf

    # `identity` brings values of another graph into this one. In the branch of a condition, a
    # kernel would otherwise capture them in a way that TensorFlow cannot match.
    graph = tf.compat.v1.get_default_graph()
    inputs = [
        v if tf.is_symbolic_tensor(v) and v.graph is graph else tf.identity(v) for v in inputs
    ]
    signature = tuple((tuple(value.shape), value.dtype.name) for value in inputs)
    return _kernel(function, signature)(*inputs)


def in_graph() -> bool:
    """Whether TensorFlow traces a graph."""
    if keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    return not tf.executing_eagerly()


def with_gradient_in_kernel(function, inputs, constants):
    """`function(*inputs, constants)` in one kernel and its gradient by the inputs in another."""

    def link(*inputs):
        def gradient(upstream, _):
            return in_kernel(_gradient_of(function), upstream, *inputs, constants)

        return in_kernel(function, *inputs, constants), gradient

    return _tensorflow.with_gradient(link, *inputs)


def per_neuron(function, setting, constants):
    """`function(setting, constants)` in a kernel; the function treats every neuron separately.

    Neurons are repeated up to the next multiple of 512, so that most layers share one kernel.

    Args:
        function: see `with_gradient_in_kernel`; returns an array `(..., neurons)`.
        setting: tensors of the same shape.
        constants: numbers.
    """
    import tensorflow as tf

    shape = tuple(setting[0].shape)
    count = math.prod(shape)
    setting = reshaped(tf.stack(setting), (len(setting), count))
    places = np.arange(_LONGEST_ROW * -(-count // _LONGEST_ROW)) % count
    constants = tf.constant(constants, setting.dtype)
    setting = tf.gather(setting, places, axis=1)
    found = with_gradient_in_kernel(function, [setting], constants)[..., :count]
    return reshaped(found, (*found.shape[:-1], *shape))


@functools.cache
def _gradient_of(function):
    import tensorflow as tf

    def gradient(upstream, *inputs):
        *wanted, _ = inputs
        # Not with a tape: recording may be stopped while this is traced (forward mode).
        return tf.gradients(function(*inputs), wanted, upstream)

    return gradient


def reshaped(value, shape):
    """`ops.reshape`, but without an operation if the value already has that shape."""
    known = value.shape
    if len(known) == len(shape) and all(n in (-1, m) for n, m in zip(shape, known)):
        return value
    return ops.reshape(value, shape)


def as_rows(value, row):
    """Elements as rows of this length; all rows share the numbers of their neurons."""
    return reshaped(value, (-1, row))


def row_length(inner, knob_shape):
    """Number of elements in a row: a divisor of a sample, long enough to compute on as vectors.

    Args:
        inner: shape of a sample.
        knob_shape: shape of the numbers, which broadcasts against `inner`.
    """
    size, channels = math.prod(inner), inner[-1]
    if math.prod(knob_shape[:-1]) != 1 or knob_shape[-1] != channels:
        return size
    positions, longest = size // channels, max(1, _LONGEST_ROW // channels)
    return channels * max(n for n in range(1, longest + 1) if positions % n == 0)


def along_row(numbers, inner, row):
    """Numbers of neurons, `(count, ...)`, repeated for every element of a row: `(count, row)`."""
    count, *knob_shape = numbers.shape
    size, channels = math.prod(knob_shape), inner[-1]
    flat = reshaped(numbers, (count, size))
    if size == row:
        return flat
    if size == channels == knob_shape[-1]:
        return ops.tile(flat, (1, row // channels))
    lead = (1,) * (len(inner) - len(knob_shape))
    spread = ops.broadcast_to(reshaped(numbers, (count, *lead, *knob_shape)), (count, *inner))
    return reshaped(spread, (count, row))


def from_row(sums, inner, knob_shape):
    """Sums over the batch per element of a row, added up to one sum per neuron."""
    size, channels = math.prod(knob_shape), inner[-1]
    if size == sums.shape[0]:
        return reshaped(sums, knob_shape)
    if size == channels == knob_shape[-1]:
        return reshaped(ops.sum(reshaped(sums, (-1, channels)), axis=0), knob_shape)
    return sum_to(reshaped(sums, inner), knob_shape)


def sum_over_batch(value):
    """Sum over the first axis inside a kernel, in the same pass that computes the summed values.

    XLA would store the values and read them again to sum over the first axis, but it fuses the
    sum of a few slices. A matrix product then sums the small remainder as vectors. On GPUs a plain
    sum is used, because there a matrix product is rounded to three digits (TF32).
    """
    import tensorflow as tf

    length = ops.shape(value)[0] // _BLOCKS
    blocks = ops.reshape(value[: _BLOCKS * length], (_BLOCKS, length, value.shape[1]))
    block = sum(ops.unstack(blocks))
    if tf.config.list_physical_devices("GPU"):
        total = ops.sum(block, axis=0)
    else:
        # Two rows, because a single row would not be computed as a matrix product.
        halves = ops.full((2, length), 0.5, dtype=value.dtype)
        total = ops.sum(ops.matmul(halves, block), axis=0)
    return total + ops.sum(value[_BLOCKS * length :], axis=0)


def _fused_response(x, numbers):
    inner = tuple(x.shape[1:])
    row = row_length(inner, numbers.shape[1:])
    output = in_kernel(response, as_rows(x, row), along_row(numbers, inner, row))
    return reshaped(output, (-1, *inner))


def _fused_gradients(upstream, x, output, numbers, by):
    inner, knob_shape = tuple(x.shape[1:]), numbers.shape[1:]
    row = row_length(inner, knob_shape)
    elements = [as_rows(value, row) for value in (upstream, x, output)]
    constants = [along_row(value, inner, row) for value in (numbers, *by)]
    by_x, *sums = in_kernel(_gradients_of_rows, *elements, *constants)
    return reshaped(by_x, (-1, *inner)), [from_row(s, inner, knob_shape) for s in sums]


def _gradients_of_rows(upstream, x, output, numbers, by_input, *by_knobs):
    by_x, by_knobs = slopes(upstream, x, output, numbers, by_input, by_knobs)
    return by_x, *map(sum_over_batch, by_knobs)
