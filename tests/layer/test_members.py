"""The spin neurons of a model, their names and the weights of the network."""

import keras
import numpy as np
import pytest

import spinkeras
from spinkeras import SpinNeuron
from spinkeras.layer.members import network_weights, unique_names


def test_spin_neurons_finds_nested_layers():
    inner = keras.Sequential([keras.layers.Dense(3), SpinNeuron(name="inner")], name="block")
    model = keras.Sequential(
        [
            keras.Input((5, 4)),
            keras.layers.TimeDistributed(inner),
            keras.layers.TimeDistributed(SpinNeuron(name="wrapped")),
            keras.layers.Dense(2, activation=SpinNeuron(name="activation")),
        ]
    )
    model(np.zeros((2, 5, 4), "float32"))
    names = sorted(layer.name for layer in spinkeras.spin_neurons(model))
    assert names == ["activation", "inner", "wrapped"]


def test_layers_of_one_name_are_numbered():
    layers = [SpinNeuron(name=name) for name in ("a", "b", "a", "a")]
    assert unique_names(layers) == ["a", "b", "a_2", "a_3"]


def test_the_meters_are_no_weights_of_the_network():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2), SpinNeuron(train=())])
    names = [weight.name for weight in network_weights(model)]
    assert sorted(names) == ["bias", "kernel", "log_anisotropy", "log_pulse_width"]


def test_only_a_model_or_layer_has_members():
    with pytest.raises(ValueError, match="must be a Keras model, such as"):
        spinkeras.spin_neurons("model")
