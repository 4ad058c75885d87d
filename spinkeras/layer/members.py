"""The spin neurons of a model, their names and the weights of the network."""

import hashlib

import keras
import numpy as np
from keras import ops

from spinkeras import _keras, checks
from spinkeras.layer.neuron import SpinNeuron


def spin_neurons(model: keras.Model) -> list[SpinNeuron]:
    """Every `SpinNeuron` in a model, also in nested models, in wrappers and as `activation=`.

    Args:
        model: Keras model or layer.

    Raises:
        ValueError: for another object.

    Example:

    >>> import keras, spinkeras
    >>> model = keras.Sequential([keras.Input((4,)), spinkeras.SpinNeuron(name="spin")])
    >>> [layer.name for layer in spinkeras.spin_neurons(model)]
    ['spin']
    """
    if not isinstance(model, keras.layers.Layer):
        raise ValueError(
            f"model = {checks.shown(model)} must be a Keras model, such as keras.Sequential([...]) "
            "or keras.Model(inputs, outputs)."
        )
    return [layer for layer in _keras.all_layers(model) if isinstance(layer, SpinNeuron)]


def network_weights(layer):
    """The weights of a layer or model, knobs included, without those that only measure energy."""
    meters = {
        id(meter)
        for spin in spin_neurons(layer)
        for meter in (spin.meter_sums, spin.energy_weight, spin.energy_seen)
    }
    return [weight for weight in layer.weights if id(weight) not in meters]


def weights_hash(model) -> str:
    """Short hash of all weights of a network, by which a report knows the model it measured."""
    digest = hashlib.sha256()
    for weight in network_weights(model):
        digest.update(np.ascontiguousarray(ops.convert_to_numpy(weight)).tobytes())
    return digest.hexdigest()[:16]


def unique_names(layers):
    """Names of layers, numbered if several nested layers have the same name."""
    names = []
    for layer in layers:
        name, count = layer.name, 1
        while name in names:
            count += 1
            name = f"{layer.name}_{count}"
        names.append(name)
    return names
