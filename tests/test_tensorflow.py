"""What spinkeras takes from TensorFlow's private parts is still there, and does what it did.

When one fails after an update of TensorFlow, look at `spinkeras/_tensorflow.py`.
"""

import numpy as np
import pytest

from spinkeras import SpinNeuron
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
