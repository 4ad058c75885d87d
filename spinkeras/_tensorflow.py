"""All use of TensorFlow's private API, in one place.

Tested with TensorFlow 2.21, by `tests/test_tensorflow.py`.
"""

import contextlib
import functools
import itertools
import weakref
from typing import Any

_ids = itertools.count()
# Weak references: a gradient lives as long as its graph, which holds the strong reference.
_gradients: weakref.WeakValueDictionary[int, Any] = weakref.WeakValueDictionary()


def checks_numbers() -> bool:
    """Whether a callback sees every operation, as with `tf.debugging.enable_check_numerics()`."""
    from tensorflow.python.eager import context

    return any(not hasattr(c, "spinkeras") for c in context.context().op_callbacks)


def with_gradient(function, *inputs):
    """Like `tf.custom_gradient`, but the memory of a graph can be freed.

    `tf.custom_gradient` registers a gradient for every call in a graph and keeps it and the graph
    forever, so a search over many models fills the memory. It also lets a tape record the
    operations of `function`, so a compiled kernel in it would keep every intermediate value.

    Args:
        function: takes the inputs; returns its output and a function `gradient(upstream, output)`,
            which returns one gradient, or `None`, for every input.
        inputs: tensors.
    """
    import tensorflow as tf
    from tensorflow.python.eager import record

    if tf.executing_eagerly():
        return _eager_link(function)(*inputs)
    inputs = [tf.convert_to_tensor(value) for value in inputs]
    with record.stop_recording():
        bare, gradient = function(*inputs)
        graph = tf.compat.v1.get_default_graph()
        with graph.gradient_override_map({"IdentityN": _registered()}):
            output = tf.identity_n([bare, *inputs])[0]

    def backward(output):
        return lambda upstream, *_: [None, *gradient(upstream, output)]

    _attach(output.op, backward(bare))
    # The tape did not record `bare`, so a second gradient must start from `output`.
    record.record_operation("SpinNeuron", [output], [bare, *inputs], backward(output))
    return output


def _eager_link(function):
    import tensorflow as tf

    @tf.custom_gradient
    def link(*inputs):
        output, gradient = function(*inputs)
        return output, lambda upstream: gradient(upstream, output)

    return link


def _attach(op, backward):
    """Attach a gradient to an operation; it lives as long as the graph."""
    from tensorflow.core.framework import attr_value_pb2

    key = next(_ids)
    _gradients[key] = backward
    graph = op.graph
    graph.spinkeras_gradients = [*getattr(graph, "spinkeras_gradients", ()), backward]
    op._set_attr("_spinkeras_gradient", attr_value_pb2.AttrValue(i=key))


@functools.cache
def _registered():
    import tensorflow as tf

    name = "SpinkerasGradient"

    @tf.RegisterGradient(name)
    def gradient(op, *upstream):
        return _gradients[op.get_attr("_spinkeras_gradient")](*upstream)

    return name


@contextlib.contextmanager
def function_inputs(variables):
    """Find the variables that a `tf.function` reads when it is called but not traced.

    Args:
        variables: list of `tf.Variable`.

    Yields:
        A function without arguments. It returns the indices of the variables read since the
        context began. Call it in the same graph, or outside of any graph, as the context.
    """
    import tensorflow as tf
    from tensorflow.python.framework import op_callbacks

    handles = [[v.handle for v in getattr(value, "values", [value])] for value in variables]
    found = set()

    def note(calls):
        for number, own in enumerate(handles):
            if any(given is handle for given in calls for handle in own):
                found.add(number)

    if not tf.executing_eagerly():

        def read():
            graph = tf.compat.v1.get_default_graph()
            outside = {id(inner): outer for outer, inner in graph.captures}
            calls = (op for op in graph.get_operations() if op.type.endswith("PartitionedCall"))
            note([outside.get(id(given)) for op in calls for given in op.inputs])
            return found

        yield read
        return

    def see(kind, inputs, attributes, outputs, op_name=None, graph=None):
        if graph is None and kind.startswith(b"__" if isinstance(kind, bytes) else "__"):
            note(inputs)

    see.spinkeras = True
    op_callbacks.add_op_callback(see)
    try:
        yield lambda: found
    finally:
        op_callbacks.remove_op_callback(see)
