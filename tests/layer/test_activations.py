"""Which activations layers apply, what they hold, and where their channels are."""

import keras
import numpy as np
import pytest
from keras import layers

import spinkeras
from spinkeras.layer.conversion import to_spin
from tests.harness import some_slow
from tests.layer.networks import data, names, small

pytestmark = pytest.mark.backends


class Scale(layers.Layer):
    def call(self, x):
        return 2 * x


class Block(keras.Model):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = layers.Dense(3, activation="relu", name="inner")

    def call(self, x):
        return self.inner(x)


@keras.saving.register_keras_serializable(package="test_conversion")
class OwnCell(layers.SimpleRNNCell):
    pass


class OwnStep(keras.Operation):
    def call(self, x):
        return x

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, x.dtype)


RNN_GATES = [("r.activation", "tanh"), ("r.recurrent_activation", "sigmoid")]


HELD = {  # (layer named r, the reason, path and activation of what the report must list)
    "cell": (lambda: layers.RNN(layers.LSTMCell(4), name="r"), "a cell of its own", RNN_GATES),
    "cells": (
        lambda: layers.RNN(
            [layers.GRUCell(4, name="a"), layers.SimpleRNNCell(3, name="b")], name="r"
        ),
        "a cell of its own",
        [("r/a.activation", "tanh"), ("r/a.recurrent_activation", "sigmoid"), ("r/b", "tanh")],
    ),
    "own cell": (lambda: layers.RNN(OwnCell(4), name="r"), "a cell of its own", [("r", "tanh")]),
    "layer": (lambda: Scale(name="r"), "does not know the class Scale", [("r", "unknown")]),
    "model": (
        lambda: Block(name="r"),
        "Block is a subclassed model",
        [("r", "unknown"), ("r/inner", "relu")],
    ),
    "operation": (lambda: OwnStep(name="r"), "the class OwnStep", [("r", "unknown")]),
    "Lambda": (lambda: layers.Lambda(lambda x: 2 * x, name="r"), "Lambda", [("r", "unknown")]),
    "wrapper": (
        lambda: layers.SpectralNormalization(
            layers.Dense(3, activation="relu", name="d"), name="r"
        ),
        "SpectralNormalization",
        [("r/d", "relu")],
    ),
}


@pytest.mark.parametrize(
    "activation",
    ["relu", "tanh", "hard_tanh", "softsign", "hard_sigmoid", "gelu", "leaky_relu"],
)
def test_element_wise_functions(activation):
    spin = to_spin(small(activation))
    neurons = spinkeras.spin_neurons(spin)
    signed = activation in ("tanh", "hard_tanh", "softsign")
    assert [neuron.bipolar for neuron in neurons] == [signed, signed]
    assert spin.get_layer("first").activation is keras.activations.linear


@pytest.mark.parametrize(
    "layer",
    [
        layers.Activation("sigmoid", name="act"),
        layers.Activation(keras.activations.relu, name="act"),
        layers.ReLU(name="act"),
        layers.LeakyReLU(name="act"),
        layers.ELU(name="act"),
        layers.PReLU(name="act"),
    ],
)
def test_activation_layers(layer):
    old = keras.Sequential([keras.Input((4,)), layers.Dense(3), layer, layers.Dense(2)])
    spin = to_spin(old)
    assert isinstance(spin.get_layer("act"), spinkeras.SpinNeuron)
    assert len(spin.layers) == len(old.layers)
    np.testing.assert_array_equal(spin.layers[0].kernel, old.layers[0].kernel)
    note = spin.spin_conversion.converted[0][2]
    assert ("dropped" in note) == isinstance(layer, layers.PReLU)


def test_activation_given_as_a_layer():
    old = keras.Sequential(
        [keras.Input((4,)), layers.Dense(3, activation=layers.PReLU()), layers.Dense(2)]
    )
    old(data(1, 4))
    spin = to_spin(old)
    assert names(spin.spin_conversion.converted) == [old.layers[0].name]
    np.testing.assert_array_equal(spin.layers[0].kernel, old.layers[0].kernel)


def test_channels_first_has_one_knob_per_channel():
    first = {"data_format": "channels_first"}
    flow = inputs = keras.Input((4, 6, 7))
    flow = layers.Conv2D(5, 1, activation="sigmoid", name="conv", **first)(flow)
    flow = layers.Conv2D(3, 1, **first)(flow)
    flow = layers.BatchNormalization(axis=1)(flow)
    flow = layers.Activation("sigmoid", name="bare")(flow)
    flow = layers.MaxPooling2D(1, **first)(flow)
    flow = layers.ReLU(name="pooled")(flow)
    flow = layers.Permute((3, 2, 1))(flow)
    flow = layers.Activation("sigmoid", name="permuted")(flow)
    flow = layers.Dense(2)(layers.Flatten(**first)(flow))
    flow = layers.Activation("sigmoid", name="flat")(flow)
    neurons = to_spin(keras.Model(inputs, flow)).get_layer
    assert neurons("conv_spin").pulse_width.shape == (5, 1, 1)
    assert neurons("bare").pulse_width.shape == (3, 1, 1)
    assert neurons("pooled").pulse_width.shape == (3, 1, 1)
    assert neurons("permuted").pulse_width.shape == (3,)
    assert neurons("flat").pulse_width.shape == (2,)


def test_layout_is_not_carried_past_layers_that_have_one_of_their_own():
    first = {"padding": "same", "data_format": "channels_first"}
    inputs = keras.Input((5, 7))
    flow = layers.Conv1D(5, 3, **first)(inputs)
    flow = keras.ops.relu(flow)
    flow = layers.Dense(7, activation="sigmoid", name="middle")(flow)
    flow = layers.ReLU(name="behind")(flow)
    flow = layers.Conv1D(5, 3, **first)(flow)
    flow = layers.LSTM(7, return_sequences=True, name="cell")(flow)
    spin = to_spin(keras.Model(inputs, layers.Dense(2)(layers.Flatten()(flow))))
    shapes = [neuron.pulse_width.shape for neuron in spinkeras.spin_neurons(spin)]
    assert shapes == [(5, 1), *4 * [(7,)]]


def test_channels_first_inside_time_distributed():
    conv = layers.Conv2D(5, 1, activation="sigmoid", data_format="channels_first", name="conv")
    old = keras.Sequential([keras.Input((6, 4, 7, 8)), layers.TimeDistributed(conv)])
    (neuron,) = spinkeras.spin_neurons(to_spin(old))
    assert neuron.pulse_width.shape == (1, 5, 1, 1)


class TestKept:
    @pytest.mark.parametrize("nested", some_slow([False, True], False))
    @pytest.mark.parametrize("kind", some_slow(HELD, "cell", "model", "layer"))
    def test_the_report_lists_what_a_layer_holds(self, kind, nested):
        make, reason, rows = HELD[kind]
        x = keras.Input((5, 4))
        old = keras.Model(x, make()(x), name="part")
        if nested:
            old = keras.Model(x, old(x))
            rows = [(f"part/{path}", activation) for path, activation in rows]
        kept = to_spin(old).spin_conversion.left_alone
        assert [row[:2] for row in kept] == rows
        assert all(reason in row[2] for row in kept)
        with pytest.raises(ValueError, match=f"r' cannot be converted: .*{reason}"):
            to_spin(old, where=["r"])

    def test_both_gates_of_a_convolution_and_the_softmax_of_attention(self):
        x, images = keras.Input((5, 4)), keras.Input((3, 5, 4))
        attention = layers.MultiHeadAttention(2, 4, name="m")(x, x)
        old = keras.Model([x, images], [attention, layers.ConvLSTM1D(4, 2, name="r")(images)])
        kept = [row[:2] for row in to_spin(old).spin_conversion.left_alone]
        assert sorted(kept)[1:] == RNN_GATES
        assert kept[0][1] == "softmax" or kept[-1][1] == "softmax"

    def test_half_a_bidirectional_layer_is_not_reported_as_converted(self):
        halves = layers.LSTM(3), layers.RNN(layers.LSTMCell(3), go_backwards=True)
        both = layers.Bidirectional(halves[0], backward_layer=halves[1])
        report = to_spin(keras.Sequential([keras.Input((5, 4)), both])).spin_conversion
        assert report.converted == ()
        assert [row[1] for row in report.left_alone] == 2 * ["tanh", "sigmoid"]
