"""What spinkeras takes from TensorFlow's private parts is still there, and does what it did.

When one fails after an update of TensorFlow, look at `spinkeras/_tensorflow.py`.
"""

import numpy as np
import pytest

from spinkeras import SpinNeuron, _tensorflow
from tests.harness import OTHER_BACKEND
from tests.layer.harness import training_step

pytestmark = pytest.mark.skipif(OTHER_BACKEND, reason="TensorFlow alone")


def test_a_graph_goes_when_nothing_uses_it():
    """`tf.custom_gradient` keeps every graph for good."""
    import gc
    import weakref

    import tensorflow as tf

    layer, x = SpinNeuron(), tf.constant([[-1.0, 0.3, 2.0]])
    layer.build(x.shape)
    step = training_step(layer, x, training=True)
    graph = weakref.ref(step.get_concrete_function().graph)
    assert graph() is not None
    del step
    gc.collect()
    assert graph() is None


@pytest.mark.parametrize("nested", [False, True])
def test_gradients_of_a_graph_are_those_of_a_tape(nested):
    """`tf.gradients` looks the gradient up in the operation; a nested function is traced apart."""
    import tensorflow as tf

    layer, x = SpinNeuron(), tf.constant([[-1.0, 0.3, 2.0]])
    layer.build(x.shape)

    def pass_(x):
        return layer(x, training=True)

    inner = tf.function(pass_, autograph=False) if nested else pass_

    @tf.function(autograph=False)
    def step(x):
        y = inner(x)
        weights = [w.value for w in layer.trainable_variables]
        by_x, *by_knobs = tf.gradients(y, [x, *weights])
        (twice,) = tf.gradients(by_x, x)
        return by_x, by_knobs, twice

    def double(x):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = layer(x, training=True)
            by_x, *by_knobs = tape.gradient(y, [x, *(w.value for w in layer.trainable_variables)])
        return by_x, by_knobs, outer.gradient(by_x, x)

    wanted = tf.nest.flatten(double(x))  # eager: no kernels
    in_graph = tf.function(double, autograph=False)
    for results in (step(x), in_graph(x)):
        for found, expected in zip(tf.nest.flatten(results), wanted):
            np.testing.assert_allclose(found, expected, rtol=2e-5, atol=2e-6)


def test_the_gradient_is_the_one_given_and_may_be_taken_twice():
    """In a graph as in eager execution: of `x^3 y`, where `y` has no gradient."""
    import tensorflow as tf

    def function(x, y):
        return x**3 * y, lambda upstream, output: (3 * upstream * x**2 * y, None)

    def step(x, y):
        with tf.GradientTape() as outer:
            outer.watch(x)
            with tf.GradientTape() as tape:
                tape.watch([x, y])
                z = _tensorflow.with_gradient(function, x, y)
            first, none = tape.gradient(z, [x, y])
        assert none is None
        return z, first, outer.gradient(first, x)

    x, y = tf.constant([1.0, -2.0]), tf.constant([1.0, 0.5])
    for run in (step, tf.function(step, autograph=False)):
        np.testing.assert_allclose(run(x, y), [x**3 * y, 3 * x**2 * y, 6 * x * y])


def test_checks_of_numbers_are_seen():
    import tensorflow as tf

    assert not _tensorflow.checks_numbers()
    with _tensorflow.function_inputs([tf.Variable(1.0)]):
        assert not _tensorflow.checks_numbers()  # its own callback is none
    tf.debugging.enable_check_numerics()
    try:
        assert _tensorflow.checks_numbers()
    finally:
        tf.debugging.disable_check_numerics()
    assert not _tensorflow.checks_numbers()


@pytest.mark.parametrize("graph", [False, True])
def test_the_variables_that_a_function_reads_are_found_without_tracing_it(graph):
    import tensorflow as tf

    variables = [tf.Variable(float(k)) for k in range(4)]
    traced = []

    @tf.function(autograph=False)
    def function(x):
        traced.append(x)
        return x * variables[1] + variables[3]

    x = tf.constant(2.0)
    function(x)

    def look():
        with _tensorflow.function_inputs(variables) as read:
            before = set(read())
            variables[0].read_value()  # is no call of a function
            function(x)
            return before, set(read())

    found = []
    run = tf.function(lambda: found.append(look()), autograph=False) if graph else look
    result = run()
    before, after = found[0] if graph else result
    assert (before, after) == (set(), {1, 3})
    assert len(traced) == 1
