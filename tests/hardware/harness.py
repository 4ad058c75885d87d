"""A model with knobs that differ, for the tests of tables and margins."""

import keras
import numpy as np

import spinkeras
from spinkeras import SpinNeuron


def make_model(seed=0, **kwargs):
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((4,)),
            SpinNeuron(name="first", **kwargs),
            keras.layers.Dense(3),
            SpinNeuron(name="second", recenter=False, **kwargs),
        ]
    )
    rng = np.random.default_rng(seed)
    for layer in spinkeras.spin_neurons(model):
        size = layer.pulse_width.size
        layer.pulse_width = np.exp(rng.uniform(np.log(2e-9), np.log(20e-9), size))
        layer.gate_voltage = rng.uniform(-1, 1, size)
    return model
