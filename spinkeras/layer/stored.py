"""What a file of weights holds for a `SpinNeuron`: knobs in SI units, and a weight of energy."""

import numpy as np

from spinkeras import _keras


def knob(store, name, shape, layer):
    """A knob in SI units from a file, checked.

    Args:
        store: the file's part of this layer, from Keras.
        name: name of the knob.
        shape: shape that the layer needs.
        layer: name of the layer, for error messages.
    """
    names = list(store.keys())
    if name not in names:
        raise ValueError(
            f"The file holds no {name!r} for layer {layer!r}, only {names}; no built "
            "SpinNeuron wrote it."
        )
    value = np.asarray(store[name], "float64")
    if value.shape != shape:
        raise ValueError(
            f"The file has a {name} of shape {value.shape} for layer {layer!r}, which "
            f"needs {shape}. Build the layer for the same number of channels."
        )
    if not np.all(np.isfinite(value) & (value > 0)):
        raise ValueError(
            f"The file has values of {name} for layer {layer!r} that are not finite and > 0."
        )
    return value


def energy_weight(store, layer):
    """The weight of energy in the loss, checked; `None` for the file of an earlier version."""
    if "energy_weight" not in list(store.keys()):
        return None
    weight = np.asarray(store["energy_weight"], "float32")
    if weight.shape or not (np.isfinite(weight) and weight >= 0):
        raise ValueError(
            f"The file has an energy_weight for layer {layer!r} that is not a single "
            "finite number >= 0."
        )
    return weight


def refuse_any(store, layer):
    """Refuse weights for a layer that is not built."""
    if list(store.keys()):
        raise ValueError(
            f"The file has weights for layer {layer!r}, but the layer is not built and "
            "has none yet. Call the model on data first, or load the whole model from a "
            "`.keras` file."
        )


def refuse_legacy_file(layer):
    """Raise an error if Keras is writing or reading an `.h5` file of the old format."""
    if _keras.is_legacy_file():
        raise ValueError(
            f"Layer {layer!r} cannot be saved in a legacy `.h5` file or loaded from one: the file "
            "holds the knobs without units, so another device or `knob_scale` would read other "
            "values. Save to `.keras` or `.weights.h5`, which hold seconds and J/m^3."
        )
