"""Networks that the tests export, and how a SavedModel is read; with TensorFlow alone."""

import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf

import spinkeras
from spinkeras import SpinNeuron
from tests.processes import environment

if keras.backend.backend() != "tensorflow":
    pytest.skip("exports need the TensorFlow backend", allow_module_level=True)

ENVIRONMENT = environment()


def mlp(seed=1, device="stt_reference"):
    """Two spin layers with knobs that differ from neuron to neuron."""
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((16,), name="pixels"),
            keras.layers.Dense(12),
            SpinNeuron(name="spin_a"),
            keras.layers.Dense(8),
            SpinNeuron(device, name="spin_b"),
            keras.layers.Dense(10, activation="softmax", name="digit"),
        ]
    )
    for layer in spinkeras.spin_neurons(model):
        low, high = layer.device.pulse_width_range
        layer.pulse_width = np.geomspace(low, high, layer.pulse_width.size)
    return model


def neuron():
    model = keras.Sequential([keras.Input((3,), name="x"), SpinNeuron(name="spin")])
    model.layers[-1].pulse_width = [2e-9, 5e-9, 20e-9]
    return model


def samples(count, size=16, seed=0):
    scale = np.geomspace(0.01, 30, count)[:, None]
    return (np.random.default_rng(seed).standard_normal((count, size)) * scale).astype("float32")


def signature(path, name):
    """A signature of a SavedModel as a function from and to NumPy arrays."""
    loaded = tf.saved_model.load(str(path))

    def run(**inputs):
        inputs = {key: tf.constant(value) for key, value in inputs.items()}
        return {key: value.numpy() for key, value in loaded.signatures[name](**inputs).items()}

    return run


def operations(path, name):
    """Types of all operations of a signature, in its functions as well."""
    loaded = tf.saved_model.load(str(path))
    definition = loaded.signatures[name].graph.as_graph_def()
    nodes = [*definition.node, *(n for f in definition.library.function for n in f.node_def)]
    return {node.op for node in nodes}


def visible(path):
    return sorted(p.name for p in pathlib.Path(path).iterdir() if not p.name.startswith("."))


def export_saved_model(model, path):
    return spinkeras.export_for_serving(model, path, energy=False)


@keras.saving.register_keras_serializable(package="tests")
class Doing(keras.layers.Layer):
    """A layer that does what a test wants in its call."""

    def __init__(self, do, **kwargs):
        super().__init__(**kwargs)
        self.do = do
        self.mean = keras.metrics.Mean()
        self.drop = keras.layers.Dropout(0.5)

    def call(self, inputs):
        return self.do(self, inputs)


def counting(layer, x):
    layer.mean.update_state(x)
    return x


def model_with(do):
    return keras.Sequential([keras.Input((3,), name="x"), SpinNeuron(name="spin"), Doing(do)])
