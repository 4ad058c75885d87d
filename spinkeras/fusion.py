"""Compile a function and its gradient into one kernel each, where the backend does not do so."""

import functools
import math

import keras
from keras import ops

_BLOCKS = 8


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


def is_vectorized(value):
    """Whether a tensor is inside `tf.vectorized_map`, which drops gradients written by hand.

    Keras runs `TimeDistributed` over an unknown number of steps so; it traces into a name scope.
    """
    return "loop_body/" in getattr(value, "name", "")


def fused(function, trained):
    """`function(None, *inputs)`, compiled, and its gradient compiled, as one kernel each.

    Nothing but the inputs and the result is kept for the gradient.

    Args:
        function: function `(output, *inputs)` to one tensor. `output` is its value where that is
            known and only the gradient is wanted, else `None`.
        trained: for every input whether its gradient is wanted.
    """
    if keras.backend.backend() != "tensorflow":
        return functools.partial(function, None)
    import tensorflow as tf

    forward = compiled(functools.partial(function, None))

    @compiled
    def backward(upstream, output, *inputs):
        wanted = [value for value, train in zip(inputs, trained) if train]
        # Not by a tape: this may be traced while all recording is stopped (forward mode).
        return tf.gradients(function(output, *inputs), wanted, upstream)

    @tf.custom_gradient
    def link(output, *inputs):
        def gradient(upstream):
            # Linked again, so that the gradient has the right gradient.
            found = iter(backward(upstream, link(output, *inputs), *inputs))
            return [None, *(next(found) if train else None for train in trained)]

        return tf.identity(output), gradient

    def call(*inputs):
        # Without the stop, a tape outside a graph would build a second gradient, never used.
        return link(forward(*map(tf.stop_gradient, inputs)), *inputs)

    call.forward, call.backward = forward, backward  # for whoever looks at the compiled code
    return call


@ops.custom_gradient
def sum_over_batch(value):
    """Sum over the first axis, for compiled functions, in one pass with what is summed.

    XLA writes and reads again what it sums over the leading axis, but fuses a few slices; what
    they leave is small, and a matrix product sums it as vectors.
    """
    shape = ops.shape(value)

    def gradient(*args, upstream=None):
        upstream = args[0] if upstream is None else upstream
        return ops.broadcast_to(upstream, shape)

    if keras.backend.backend() != "tensorflow":
        return ops.sum(value, axis=0), gradient
    length = shape[0] // _BLOCKS
    block = sum(value[k * length : (k + 1) * length] for k in range(_BLOCKS))
    halves = ops.full((2, length), 0.5, dtype=value.dtype)  # a product with one row is no product
    flat = ops.reshape(block, (length, math.prod(shape[1:])))
    total = ops.reshape(ops.sum(ops.matmul(halves, flat), axis=0), shape[1:])
    return total + ops.sum(value[_BLOCKS * length :], axis=0), gradient
