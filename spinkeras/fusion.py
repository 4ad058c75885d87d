"""Compile a function and its gradient into one kernel each, where the backend does not do so."""

import functools

import keras


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
