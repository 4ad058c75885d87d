"""What the backend is tracing; each test says which private part changed if it fails."""

import pytest
from keras import ops

from spinkeras import _tracing
from tests.harness import BACKEND

pytestmark = pytest.mark.backends


def vectorized_map(function, values):
    if BACKEND == "torch":  # Keras itself fails there
        import torch

        return torch.vmap(function)(values)
    return ops.vectorized_map(function, values)


def seen_in(around, ask, x):
    """The answers to `ask(tensor)` inside of `around(function, x)`."""
    answers = []

    def function(value):
        answers.append(ask(value))
        return value * 1.0

    around(function, x)
    return answers


def test_a_vectorized_map_is_seen():
    """`is_batchedtensor` of PyTorch, `BatchTracer` of JAX, the name scope of TensorFlow."""
    x = ops.ones((3, 2))
    assert seen_in(vectorized_map, _tracing.is_mapped, x) == [True]
    assert seen_in(AROUND["nothing"], _tracing.is_mapped, x) == [False]
    assert seen_in(vectorized_map, _tracing.is_vectorized, x) == [BACKEND == "tensorflow"]


AROUND = {
    "nothing": lambda function, x: function(x),
    "branch": lambda function, x: ops.cond(ops.sum(x) > 0, lambda: function(x), lambda: x),
    "loop": lambda function, x: ops.while_loop(
        lambda k, v: k < 2, lambda k, v: (k + 1, function(v)), (ops.convert_to_tensor(0), x)
    ),
    "branch in a loop": lambda function, x: AROUND["loop"](
        lambda v: AROUND["branch"](function, v), x
    ),
}


@pytest.mark.parametrize("place", AROUND)
def test_loops_and_conditions_are_seen(place):
    """`CondBranchFuncGraph` and `WhileBodyFuncGraph` of TensorFlow, `_trace` of JAX."""
    answers = []

    def traced(x):
        outer = _tracing.scope()
        answers.extend(seen_in(AROUND[place], lambda _: _tracing.inner_scope(outer, x), x))
        return x

    if BACKEND == "tensorflow":
        import tensorflow as tf

        traced = tf.function(traced)
    elif BACKEND == "jax":
        import jax

        traced = jax.jit(traced)
    traced(ops.ones((3, 2)))
    expected = {
        "tensorflow": {"nothing": None, "branch": "branch"}.get(place, "loop"),
        "jax": None if place == "nothing" else "a loop, a condition or a jit of its own",
    }.get(BACKEND)
    assert set(answers) == {expected}


@pytest.mark.skipif(BACKEND != "tensorflow", reason="about tf.function")
def test_another_function_is_seen():
    import tensorflow as tf

    answers = []

    @tf.function
    def inner(x):
        answers.append(_tracing.inner_scope(outer[0], x))
        return x

    outer = [_tracing.scope()]
    assert outer == [None]
    inner(ops.ones(2))

    @tf.function
    def whole(x):
        outer[0] = _tracing.scope()
        return inner(x)

    whole(ops.ones(3))
    assert set(answers) == {"a tf.function of its own"}
