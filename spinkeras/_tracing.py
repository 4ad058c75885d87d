"""What the backend is tracing: vectorized maps, loops, conditions and functions inside a function.

No backend has a public way to ask this. All use of private parts for it is here: if a part changes,
the energy of a neuron in such a place may be counted wrongly, and a test fails. Tested with
TensorFlow 2.21, JAX 0.5.3 and 0.10 and PyTorch 2.13, by `tests/test_tracing.py`.
"""

import keras


def is_vectorized(value):
    """Whether a tensor is inside `tf.vectorized_map`, which ignores custom gradients.

    Keras uses it for `TimeDistributed` with an unknown number of steps. Its name scope shows it.
    """
    return keras.backend.backend() == "tensorflow" and "loop_body/" in getattr(value, "name", "")


def is_mapped(value):
    """Whether a tensor is inside a vectorized map, where it stands for many elements at once."""
    backend = keras.backend.backend()
    if backend == "torch":
        import torch

        return torch._C._functorch.is_batchedtensor(value)
    return is_vectorized(value) or type(value).__name__ == "BatchTracer"


def scope():
    """The graph that TensorFlow is tracing, or `None`. See `inner_scope`."""
    if keras.backend.backend() != "tensorflow":
        return None
    import tensorflow as tf

    return None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()


def inner_scope(outer, known):
    """What is being traced separately inside an outer scope, in words.

    Args:
        outer: result of `scope` in the outer scope.
        known: a tensor of the outer scope.

    Returns:
        `None` if nothing is traced separately. `"branch"` or `"loop"` for a condition or loop of
        TensorFlow, in which variables can be assigned. Otherwise a longer description.
    """
    if keras.backend.backend() == "jax":
        traces = [getattr(value, "_trace", None) for value in (known, known + 0)]
        return None if traces[0] is traces[1] else "a loop, a condition or a jit of its own"
    found, graph = None, scope()
    while graph is not outer:
        kind = type(graph).__name__  # the classes are private
        if kind.startswith("While"):
            found = "loop"
        elif kind.startswith("CondBranch"):
            found = found or "branch"
        else:
            return "a tf.function of its own"
        graph = graph.outer_graph
    return found
