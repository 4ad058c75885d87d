"""Models for tables, margins and chips, and what simulated chips make of them."""

import keras
import numpy as np
import pytest
from keras import ops

import spinkeras
from spinkeras import ChipSpread, SpinNeuron


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


def mean_output(y_true, y_pred):
    return float(y_pred.mean())


def head(*last, loss="mse", inputs=(4,)):
    """A network that ends with the given layers."""
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input(inputs), keras.layers.Dense(5), SpinNeuron(), *last])
    model.compile("sgd", loss)
    return model


def judged(model, y, shape=(4,), **options):
    """Nominal accuracy of a network on random inputs, and its outputs."""
    x = np.random.default_rng(0).normal(size=(len(y), *shape)).astype("float32")
    options = {"chips": 1, "progress": False} | options
    report = spinkeras.evaluate_chips(model, x, y, ChipSpread(), **options)
    assert report.accuracy[0] == pytest.approx(report.nominal, abs=2.5 / len(y))
    return report.nominal, ops.convert_to_numpy(model(x))
