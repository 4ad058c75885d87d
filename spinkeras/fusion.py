"""Compile one function into one kernel where the backend does not do so by itself."""

import keras


def compiled(function):
    """`function` as one XLA kernel on TensorFlow; unchanged on backends that compile the step.

    Used in training only: an exported graph must not need XLA where it is served, and a compiled
    function is built again for every new input shape.
    """
    if keras.backend.backend() != "tensorflow":
        return function
    import tensorflow as tf

    return tf.function(function, jit_compile=True, autograph=False)
