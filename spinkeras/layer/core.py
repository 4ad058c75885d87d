"""The response of many neurons, and its gradient: one function for every device and law.

A neuron is a column of six numbers, or eight. With the curve of `spinkeras.physics.curve` in
partial fractions, at an input `x`,

    P = low + span S(t + K + (B t + C) / (t^2 + w)),   t = scale x + shift

where `low` = 0 and `span` = 1 are left out if the curve has no floor and no ceiling. A knob moves
the numbers of its neuron along one direction, so the gradient of a knob is one sum over the batch,
whatever the law: where no knob is trained there is no sum at all.

TensorFlow runs operations one by one, unless XLA fuses them. There the response in training is
one kernel, its gradient another, and the numbers of the neurons a third, shared by all layers; see
`use_kernels`.
"""

import functools
import math

import keras
import numpy as np
from keras import ops

from spinkeras import _tensorflow
from spinkeras.physics.curve import FARTHEST

_BLOCKS = 8
_LONGEST_ROW = 512  # so many elements' numbers stay in the fastest cache
_USE_KERNELS = True


def precise(dtype):
    """Type for what is computed once per neuron: double where the backend has it ready.

    Numbers per neuron are few: in double precision their rounding adds nothing.
    """
    return "float64" if keras.backend.backend() == "tensorflow" else dtype


def use_kernels(enabled: bool):
    """Whether TensorFlow may run spin neurons in compiled kernels while it trains.

    They are XLA kernels inside the graph of a training step, also where Keras compiles the model
    with `jit_compile="auto"`, which means `False` on a machine without a GPU. They are never used
    in inference or in exports, in eager execution (`run_eagerly=True`,
    `tf.config.run_functions_eagerly(True)`), under `tf.debugging.enable_check_numerics()`, inside
    `tf.vectorized_map`, or with `jit_compile=False` on a machine with a GPU. Other backends do not
    need them.

    Args:
        enabled: `False`: plain operations everywhere, about 1.2 to 3 times as slow, same results
            to rounding. Takes effect when a step is traced, so before the first `fit`.
    """
    global _USE_KERNELS
    _USE_KERNELS = bool(enabled)


def rows(curve, gain, shift):
    """The numbers of neurons with `y = s (gain x + shift)`: scale, shift, K, B, C, w, low, span.

    Args:
        curve: `RationalLogit`.
        gain: drive per input.
        shift: drive at zero input less the midpoint.

    Returns:
        List, without the last two for a curve from 0 to 1.
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
    """Of `q = tail z + offset - tail n + (top z + bottom) / (z^2 + width)` with `z = y + n`."""
    a, b, c, d = curve.a, curve.b, curve.c, curve.d
    tail, n = 4 * b / d, c / (2 * d)
    offset = (4 * a - tail * c) / d
    rest = 4 - tail - offset * c
    return tail, n, offset, rest / d, -(offset + rest * n) / d, (1 - c * n / 2) / d


def is_certain(curve):
    """Whether the probability goes from 0 to 1 whatever the knobs."""
    ends = curve.floor, curve.ceiling
    return all(isinstance(end, float) for end in ends) and ends == (0.0, 1.0)


def by_input(numbers):
    """The polynomial of the logit's derivative by the input, `p(t) / (t^2 + w)^2`.

    Returns:
        List of the coefficients of `1, t, t^2, t^4`.
    """
    scale, _, _, b, c, w, *_ = numbers
    return [*(scale * value for value in _by_t(b, c, w)), scale]


def _by_t(b, c, w):
    """Derivatives of the same by `t`; the coefficient of `t^4` is 1."""
    return w * (w + b), -2 * c, 2 * w - b


def by_knob(curve, by, numbers, shift, by_shift):
    """The polynomial of the logit's derivative by a knob, `p(t) / (t^2 + w)^2`.

    Args:
        curve, shift: as `rows`.
        by: `RationalLogit` of the derivatives of the curve's numbers by the knob, or by several
            along a first axis.
        numbers: of `rows`.
        by_shift: derivative of `shift`.

    Returns:
        List of the coefficients of `1` to `t^5`, then the derivatives of `low` and `span` unless
        the curve goes from 0 to 1.
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
    """`P` of every element.

    Args:
        x: input.
        numbers: of `rows`, stacked or as a list, each broadcast against `x`.
        logistic: `1 / (1 + exp(-q))`.
    """
    scale, shift, k, b, c, w, *ends = _unstacked(numbers)
    t = _bounded(scale * x + shift)
    probability = logistic(t + (b * t + c) / (t * t + w) + k)
    return ends[0] + ends[1] * probability if ends else probability


def logistic_by_parts(logit):
    """For runtimes whose own logistic function is only right to 1e-7, as that of ONNX Runtime."""
    return 1 / (1 + ops.exp(-logit))


def _bounded(t):
    """Kept where the curve is not yet flat: no inf / inf."""
    return ops.minimum(ops.maximum(t, -FARTHEST), FARTHEST)


def slopes(upstream, x, output, numbers, by_input, by_knobs):
    """`dP/dx` and `dP/dknob` of every element, times `upstream`.

    Args:
        upstream: as `x`, or a number.
        output: `response`.
        numbers, by_input, by_knobs: of `rows`, `by_input` and `by_knob`, stacked or as lists.
    """
    scale, shift, _, _, _, w, *ends = _unstacked(numbers)
    low, span = ends or (0.0, 1.0)
    t = _bounded(scale * x + shift)
    high = output - low if ends else output
    upstream_by_logit = upstream * (high * (1 - high / span if ends else 1 - high))
    square = t * t
    # A quotient, because XLA would compute anything cheaper anew for everything that uses it.
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
    """What `linked` needs to know of every neuron, for all neurons of a layer.

    Args:
        curve: function of a switching model with `tangents`, see `switching.get_curve`.
        setting: `ln(t_p / t_D)` and `Delta` of every neuron, tensors.
        constants: drive per input; 1 if the midpoint moves with the knobs and else 0; the nominal
            midpoint; the layer's `knob_scale`. Numbers.
        trained: whether to give the knobs' polynomials.
        dtype: of the result.
        kernels: whether the compiled kernels of TensorFlow may be used here.

    Returns:
        List of arrays `(count, *neurons)`: `rows`, `by_input` and, where trained, `by_knob` of
        the pulse width and of the anisotropy.
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
        # A quotient, because XLA would compute anything cheaper anew for every element.
        return ops.cast(found / (own[5] / own[5]), dtype)

    return numbers


def midpoint(curve, setting, kernels=False):
    """Midpoint of the curve of every neuron; arguments as `neuron_numbers`."""
    if kernels and hasattr(curve, "law"):
        return per_neuron(_midpoint_by(curve.law), setting, curve.parameters)
    return curve(ops, *setting).midpoint


@functools.cache
def _midpoint_by(law):
    def midpoint(setting, parameters):
        return law(ops, *_unstacked(setting), *_unstacked(parameters)).midpoint

    return midpoint


def linked(x, numbers, knobs, training=False, kernels=False):
    """`response` whose gradient reaches `knobs`.

    Args:
        x: input.
        numbers: of `neuron_numbers`, with the polynomials of these knobs.
        knobs: tensors, those that are trained.
        training: whether a gradient will be wanted.
        kernels: whether the compiled kernels of TensorFlow may be used here.
    """
    numbers, *by = numbers
    if keras.backend.backend() == "jax":
        plain, lean = _jax_links()
        return (lean if training else plain)(x, numbers, tuple(by), tuple(knobs))
    if is_vectorized(x) or (in_graph() and not training):  # plain operations, can be saved
        return response(x, numbers)
    if keras.backend.backend() == "tensorflow":
        return _tensorflow_link(kernels, x, numbers, *by, *knobs)

    @ops.custom_gradient
    def link(*inputs):
        def gradient(*inputs, upstream):
            # What was computed outside is not part of a second gradient.
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
    """Gradients of `x, numbers, by_input, by_knobs..., knobs...`: of the input and the knobs."""
    by = rest[: 1 + len(rest) // 2]
    by_x, sums = gradients(upstream, x, output, numbers, by)
    return (by_x, None, *([None] * len(by)), *sums)


def _gradients(upstream, x, output, numbers, by):
    by_x, by_knobs = slopes(upstream, x, output, numbers, by[0], by[1:])
    sums = [sum_to(value, one.shape[1:]) for value, one in zip(by_knobs, by[1:])]
    return sum_to(by_x, x.shape), sums


def sum_to(value, shape):
    """Sum a gradient over the axes along which something of this shape was broadcast."""
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

    # Computed again for the gradient, instead of kept: less memory to write and to read.
    return link, jax.checkpoint(link, prevent_cse=False)


# --- TensorFlow's kernels ------------------------------------------------------------------------


def kernels_serve(x, model=None) -> bool:
    """Whether training on this input may run in the compiled kernels.

    Args:
        x: input of a layer.
        model: the outermost layer of the call. Its `jit_compile=False` is a wish only where there
            is a GPU: elsewhere it is what Keras makes of the default.
    """
    if not _USE_KERNELS or keras.backend.backend() != "tensorflow":
        return False
    import tensorflow as tf

    if tf.executing_eagerly() or is_vectorized(x) or None in x.shape[1:]:
        return False
    refused = isinstance(model, keras.Model) and not model.jit_compile
    if refused and tf.config.list_physical_devices("GPU"):
        return False
    return not _tensorflow.checks_numbers()  # XLA does not carry the checks


def is_vectorized(value):
    """Whether a tensor is inside `tf.vectorized_map`, which drops gradients written by hand.

    Keras runs `TimeDistributed` over an unknown number of steps so; it traces into a name scope.
    """
    return keras.backend.backend() == "tensorflow" and "loop_body/" in getattr(value, "name", "")


def is_mapped(value):
    """Whether a tensor is inside a vectorized map: one element stands for many."""
    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        return torch._C._functorch.is_batchedtensor(value)
    return is_vectorized(value) or type(value).__name__ == "BatchTracer"


def tracing_scope():
    """Where TensorFlow traces: the graph, or `None`. See `inner_scope`."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()


def inner_scope(scope, known):
    """What is traced on its own inside a scope, in words, or `None` if nothing is.

    Args:
        scope: of `tracing_scope`, the outer one.
        known: a tensor that is known there.

    Returns:
        `"branch"` and `"loop"` for those of TensorFlow, where state can be written.
    """
    if keras.backend.backend() == "jax":
        traces = [getattr(value, "_trace", None) for value in (known, known + 0)]
        return None if traces[0] is traces[1] else "a loop, a condition or a jit of its own"
    found, graph = None, tracing_scope()
    while graph is not scope:
        kind = type(graph).__name__  # private classes
        if kind.startswith("While"):
            found = "loop"
        elif kind.startswith("CondBranch"):
            found = found or "branch"
        else:
            return "a tf.function of its own"
        graph = graph.outer_graph
    return found


def compiled(function):
    """`function` as one XLA kernel on TensorFlow and JAX; unchanged elsewhere.

    Not for what is exported: a graph must not need XLA where it is served, and a compiled
    function is built again for every new input shape.
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
    """A function of stacked arrays as one kernel for all inputs of these shapes."""
    import tensorflow as tf

    specs = [tf.TensorSpec(shape, dtype) for shape, dtype in signature]
    return tf.function(function, input_signature=specs, jit_compile=True, autograph=False)


def in_kernel(function, *inputs):
    """Run a function of tensors in a kernel; the first axis of arrays `(None, row)` may vary."""
    import tensorflow as tf

    # Values of another graph come in here: a call of a kernel would take those of a branch of a
    # condition in a way that does not fit how the branch gives them.
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
    """`function(*inputs, constants)` in a kernel and its gradient, of the inputs, in another."""

    def link(*inputs):
        def gradient(upstream, _):
            return in_kernel(_gradient_of(function), upstream, *inputs, constants)

        return in_kernel(function, *inputs, constants), gradient

    return _tensorflow.with_gradient(link, *inputs)


def per_neuron(function, setting, constants):
    """`function(setting, constants)` in a kernel, where it works on every neuron alone.

    Neurons are repeated to the next multiple of 512, so that layers of most widths share one.

    Args:
        function: see `with_gradient_in_kernel`; gives an array `(..., neurons)`.
        setting: tensors of one shape.
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
        # Not by a tape: this may be traced while all recording is stopped (forward mode).
        return tf.gradients(function(*inputs), wanted, upstream)

    return gradient


def reshaped(value, shape):
    """`ops.reshape`, without an operation where the value is known to have that shape."""
    known = value.shape
    if len(known) == len(shape) and all(n in (-1, m) for n, m in zip(shape, known)):
        return value
    return ops.reshape(value, shape)


def as_rows(value, row):
    """Elements as rows that share their neurons' numbers, long enough to work on as vectors."""
    return reshaped(value, (-1, row))


def row_length(inner, knob_shape):
    """Elements of a sample that share one row of numbers.

    Args:
        inner: shape of a sample.
        knob_shape: shape of the numbers, which broadcasts against it.
    """
    size, channels = math.prod(inner), inner[-1]
    if math.prod(knob_shape[:-1]) != 1 or knob_shape[-1] != channels:
        return size
    positions, longest = size // channels, max(1, _LONGEST_ROW // channels)
    return channels * max(n for n in range(1, longest + 1) if positions % n == 0)


def along_row(numbers, inner, row):
    """Stacked numbers of neurons, `(count, ...)`, for every element of a row: `(count, row)`."""
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
    """Sums over samples for every element of a row, summed for every neuron."""
    size, channels = math.prod(knob_shape), inner[-1]
    if size == sums.shape[0]:
        return reshaped(sums, knob_shape)
    if size == channels == knob_shape[-1]:
        return reshaped(ops.sum(reshaped(sums, (-1, channels)), axis=0), knob_shape)
    return sum_to(reshaped(sums, inner), knob_shape)


def sum_over_batch(value):
    """Sum over the first axis inside a kernel, in one pass with what is summed.

    XLA writes and reads again what it sums over the leading axis, but fuses a few slices; what
    they leave is small, and a matrix product sums it as vectors. Not on GPUs, where such a product
    is rounded to three digits (TF32).
    """
    import tensorflow as tf

    length = ops.shape(value)[0] // _BLOCKS
    blocks = ops.reshape(value[: _BLOCKS * length], (_BLOCKS, length, value.shape[1]))
    block = sum(ops.unstack(blocks))
    if tf.config.list_physical_devices("GPU"):
        total = ops.sum(block, axis=0)
    else:
        halves = ops.full((2, length), 0.5, dtype=value.dtype)  # one row alone is no product
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
