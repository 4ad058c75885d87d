"""The core that all neurons share: rows of numbers, kernels, and when they are used.

Kernels change the speed alone, so these tests count them by private names.
"""

import keras
import numpy as np
import pytest
from keras import ops

import spinkeras
from spinkeras import SpinNeuron
from spinkeras.layer import core
from spinkeras.physics import curve
from tests.harness import some_slow
from tests.layer.harness import training_step

TENSORFLOW = keras.backend.backend() == "tensorflow"
tensorflow_only = pytest.mark.skipif(not TENSORFLOW, reason="the kernels are TensorFlow's")


@pytest.mark.parametrize(
    "shape", [(0.0, 0.25, 0.0, 0.25), (1.0, 0.48, 1.4, 0.6), (-0.5, 0.34, -0.8, 0.21)]
)
@pytest.mark.parametrize("ends", [(0.0, 1.0), (0.05, 0.9)])
def test_partial_fractions_are_the_curve(shape, ends):
    """Value, down to the tails, and the derivative by the input, in single precision."""
    one = curve.RationalLogit(30.0, 0.03, *shape, *ends)
    gain, shift = 4.0, -3.0
    x = np.linspace(-60, 60, 4001)
    exact = one.probability(gain * x + shift)
    step = 1e-4
    by_x = one.probability(gain * (x + step) + shift) - one.probability(gain * (x - step) + shift)
    by_x /= 2 * step
    numbers = core.rows(one, gain, shift)
    assert len(numbers) == (6 if ends == (0.0, 1.0) else 8)
    numbers, slope = (
        [ops.convert_to_tensor(n, "float32") for n in some]
        for some in (numbers, core.by_input(numbers))
    )
    x = ops.convert_to_tensor(x, "float32")
    value = core.response(x, numbers)
    found, _ = core.slopes(1.0, x, value, numbers, slope, [])
    value, found = ops.convert_to_numpy(value), ops.convert_to_numpy(found)
    np.testing.assert_allclose(value, exact, atol=1e-6)
    # Near its ends the probability itself is rounded, by 6e-8.
    np.testing.assert_allclose(found, by_x, atol=4e-6 * by_x.max())
    if ends == (0.0, 1.0):
        np.testing.assert_allclose(value, exact, rtol=5e-5)


@pytest.mark.parametrize(
    ("inner", "knobs"),
    [
        ((5,), (5,)),
        ((600,), (600,)),
        ((28, 28, 16), (16,)),
        ((31, 31, 32), (32,)),
        ((7, 1), (1,)),
        ((4, 3), (1, 3)),
        ((4, 3), (4, 1)),
        ((4, 3), (1, 1)),
        ((4, 3), (4, 3)),
        ((2, 4, 3), (4, 1)),
    ],
)
def test_rows_hold_the_numbers_of_their_elements(inner, knobs):
    """And sums along rows come back to the neurons that they belong to."""
    row = core.row_length(inner, knobs)
    assert np.prod(inner) % row == 0
    numbers = np.arange(2.0 * np.prod(knobs), dtype="float32").reshape(2, *knobs)
    rows = ops.convert_to_numpy(core.along_row(ops.convert_to_tensor(numbers), inner, row))
    for k in range(2):
        whole = np.broadcast_to(numbers[k], inner).ravel()
        np.testing.assert_array_equal(np.tile(rows[k], whole.size // row), whole)
    values = np.random.default_rng(0).normal(size=(3, *inner)).astype("float32")
    sums = ops.convert_to_tensor(values.reshape(-1, row).sum(0))
    found = ops.convert_to_numpy(core.from_row(sums, inner, knobs))
    spare = (1,) * (len(inner) - len(knobs))
    axes = tuple(k + 1 for k, n in enumerate((*spare, *knobs)) if n == 1 and inner[k] != 1)
    exact = values.sum(axis=(0, *axes)).reshape(knobs)
    np.testing.assert_allclose(found, exact, rtol=1e-4, atol=1e-4)


@tensorflow_only
@pytest.mark.parametrize("inner", [(3,), (500,)])
@pytest.mark.parametrize("batch", [0, 1, 7, 8, 29])
def test_sums_over_the_batch(batch, inner):
    """Also where the batch is no multiple of the blocks, or unknown while the graph is traced."""
    import tensorflow as tf

    values = np.random.default_rng(batch).normal(size=(batch, *inner)).astype("float32")
    total = tf.function(
        core.sum_over_batch, jit_compile=True, input_signature=[tf.TensorSpec((None, *inner))]
    )
    exact = np.sum(values.astype("float64"), 0)
    np.testing.assert_allclose(total(values), exact, rtol=1e-5, atol=1e-5)


# --- where kernels are used, and where not -------------------------------------------------------


KERNELS = 3  # the numbers of the neurons, the response and its gradient


def kernels_in(function):
    """How many compiled kernels a traced function calls, its gradient's included."""
    definition = function.get_concrete_function().graph.as_graph_def()
    functions = {f.signature.name: f for f in definition.library.function}

    def count(nodes):
        total = 0
        for node in nodes:
            for name in (a.func.name for a in node.attr.values() if a.HasField("func")):
                inner = functions.get(name)
                if inner is not None:
                    compiled = inner.attr["_XlaMustCompile"].b
                    total += compiled or count(inner.node_def)
        return total

    return count(definition.node)


@tensorflow_only
def test_kernels_serve_training_in_a_graph_only():
    import tensorflow as tf

    layer, x = SpinNeuron(), tf.constant(np.linspace(-3, 3, 12, dtype="float32").reshape(4, 3))
    layer.build(x.shape)
    plain = training_step(layer, x, training=False)
    step = training_step(layer, x, training=True)
    assert kernels_in(step) == KERNELS
    assert kernels_in(plain) == 0
    wanted = tf.nest.flatten(plain())
    for found, expected in zip(tf.nest.flatten(step()), wanted):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)

    core.use_kernels(False)
    try:
        assert kernels_in(training_step(layer, x, training=True)) == 0
    finally:
        core.use_kernels(True)
    tf.debugging.enable_check_numerics()
    try:
        checked = training_step(layer, x, training=True)
        assert kernels_in(checked) == 0
        np.testing.assert_allclose(checked()[0], wanted[0], atol=1e-6)
    finally:
        tf.debugging.disable_check_numerics()
    tf.config.run_functions_eagerly(True)
    try:
        np.testing.assert_allclose(
            training_step(layer, x, training=True)()[0], wanted[0], atol=1e-6
        )
    finally:
        tf.config.run_functions_eagerly(False)


@tensorflow_only
@pytest.mark.parametrize(("gpu", "jit", "kernels"), [(False, "auto", True), (True, False, False)])
def test_a_model_that_refuses_compilation_gets_none(monkeypatch, gpu, jit, kernels):
    """Keras makes `False` of its default on a machine without a GPU, so there it tells nothing."""
    import tensorflow as tf

    real = tf.config.list_physical_devices
    devices = ["GPU"] if gpu else []
    monkeypatch.setattr(
        tf.config,
        "list_physical_devices",
        lambda kind=None: devices if kind == "GPU" else real(kind),
    )
    model = keras.Sequential([keras.Input((3,)), SpinNeuron()])
    model.compile("sgd", "mse", jit_compile=jit)
    x = tf.constant([[-1.0, 0.3, 2.0]])
    assert bool(kernels_in(training_step(model, x, training=True))) == kernels


@tensorflow_only
@pytest.mark.parametrize("training", some_slow([False, True], True))
def test_neuron_inside_a_condition(training):
    import tensorflow as tf

    layer, x = SpinNeuron(), tf.constant([[-1.0, 0.3, 2.0]])
    layer.build(x.shape)

    @tf.function(autograph=False)
    def step(flag):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = ops.cond(flag, lambda: layer(x, training=training), lambda: 2 * x)
        return y, tape.gradient(y, [x, *(w.value for w in layer.trainable_variables)])

    wanted = training_step(layer, x, training=False)()
    for found, expected in zip(tf.nest.flatten(step(tf.constant(True))), tf.nest.flatten(wanted)):
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)
    _, (by_x, *_) = step(tf.constant(False))
    np.testing.assert_allclose(by_x, 2.0)


@tensorflow_only
def test_one_kernel_serves_all_devices_and_laws():
    """A further device, of the same shapes, adds no kernel; a further law one, of its numbers."""
    import tensorflow as tf

    measured = spinkeras.EmpiricalCurve(
        threshold=50e-6, slope=5e4, a=0.3, c=0.4, pulse_width=2e-9, slope_exponent=0.5
    )
    device = spinkeras.MTJDevice.preset("stt_reference")
    layers = [
        SpinNeuron(),
        SpinNeuron("stt_arm", recenter=False),
        SpinNeuron(device.replace(damping=0.02), knob_scale=2.0),
        SpinNeuron(switching_model=measured),
        SpinNeuron(switching_model=measured.replace(d=0.3, threshold=60e-6, c_rate=0.1)),
    ]
    x, counts = tf.constant([[-1.0, 0.3, 2.0]]), []
    core._kernel.cache_clear()
    for layer in layers:
        layer.build(x.shape)
        training_step(layer, x, training=True)()
        counts.append(core._kernel.cache_info().currsize)
    assert counts == [3, 3, 3, 4, 4]


@tensorflow_only
def test_layers_of_most_widths_share_the_kernel_of_their_numbers():
    core._kernel.cache_clear()
    for width in (1, 3, 512):
        layer = SpinNeuron()
        layer.build((None, width))
        setting = layer.setting("float64")
        found = core.neuron_numbers(layer._curve, setting, (1.0, 0.0, 70.0, 3.0), True, "float32")
        kernels = core.neuron_numbers(
            layer._curve, setting, (1.0, 0.0, 70.0, 3.0), True, "float32", kernels=True
        )
        for one, two in zip(found, kernels):
            assert one.shape == two.shape == (len(one), width)
            np.testing.assert_allclose(one, two, rtol=1e-6)
    assert core._kernel.cache_info().currsize == 1


@tensorflow_only
def test_subclasses_run_in_the_kernels_as_well():
    import tensorflow as tf

    class Doubled(SpinNeuron):
        def call(self, inputs, training=None, mask=None):
            return 2 * super().call(inputs, training=training, mask=mask)

    x = tf.constant([[-1.0, 0.3, 2.0]])
    found = []
    for layer in (SpinNeuron(), Doubled()):
        layer.build(x.shape)
        step = training_step(layer, x, training=True)
        assert kernels_in(step) == KERNELS
        found.append(tf.nest.flatten(step()))
    for one, two in zip(*found):
        np.testing.assert_allclose(2 * one, two, rtol=1e-6)
