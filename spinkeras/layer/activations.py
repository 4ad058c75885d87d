"""Which activations a layer applies, and on which axis the channels are."""

import keras

from spinkeras import _keras
from spinkeras.layer.neuron import SpinNeuron

# Layers that apply their activation last, so an activation layer after them gives the same result.
_ACTIVATED_LAST = (
    keras.layers.Dense,
    keras.layers.EinsumDense,
    keras.layers.Conv1D,
    keras.layers.Conv2D,
    keras.layers.Conv3D,
    keras.layers.Conv1DTranspose,
    keras.layers.Conv2DTranspose,
    keras.layers.Conv3DTranspose,
    keras.layers.DepthwiseConv1D,
    keras.layers.DepthwiseConv2D,
    keras.layers.SeparableConv1D,
    keras.layers.SeparableConv2D,
)
_ACTIVATION_LAYERS = (
    keras.layers.Activation,
    keras.layers.ReLU,
    keras.layers.LeakyReLU,
    keras.layers.PReLU,
    keras.layers.ELU,
    keras.layers.Softmax,
)
# Recurrent layers, with the arguments that hold an activation.
RECURRENT = {
    keras.layers.LSTM: ("recurrent_activation", "activation"),
    keras.layers.GRU: ("recurrent_activation", "activation"),
    keras.layers.SimpleRNN: ("activation",),
}
ELEMENTWISE = frozenset(
    {
        "sigmoid",
        "hard_sigmoid",
        "tanh",
        "hard_tanh",
        "relu",
        "relu6",
        "leaky_relu",
        "prelu",
        "elu",
        "selu",
        "celu",
        "gelu",
        "silu",
        "hard_silu",
        "mish",
        "softplus",
        "softsign",
        "exponential",
        "log_sigmoid",
        "tanh_shrink",
        "hard_shrink",
        "soft_shrink",
        "squareplus",
        "sparse_plus",
        "sparse_sigmoid",
        "threshold",
    }
)
NOT_ELEMENTWISE = ("softmax", "log_softmax", "sparsemax", "glu")
# Layers that leave the channels on the same axis.
_KEEPS_AXES = (
    *_ACTIVATION_LAYERS,
    SpinNeuron,
    keras.layers.BatchNormalization,
    keras.layers.Dropout,
    keras.layers.SpatialDropout1D,
    keras.layers.SpatialDropout2D,
    keras.layers.SpatialDropout3D,
    keras.layers.GaussianDropout,
    keras.layers.GaussianNoise,
    keras.layers.Add,
    keras.layers.Subtract,
    keras.layers.Multiply,
    keras.layers.Average,
    keras.layers.Maximum,
    keras.layers.Minimum,
)


def of(layer):
    """`(name, kind)` of an activation.

    The kind is "last" (the layer applies it last), "itself" (the layer is an activation), or `None`
    (nothing to convert).
    """
    if isinstance(layer, SpinNeuron):
        return "SpinNeuron", None
    if not isinstance(layer, keras.layers.Layer):  # an operation such as keras.ops.relu
        name = _snake(type(layer).__name__)
        known = name in ELEMENTWISE or "softmax" in name
        return name, "itself" if known else None
    if isinstance(layer, _ACTIVATION_LAYERS):
        function = getattr(layer, "activation", None)
        name = name_of(function) if callable(function) else _snake(type(layer).__name__)
        return name, None if name in ("linear", "SpinNeuron") else "itself"
    if type(layer) not in _ACTIVATED_LAST:
        return "", None
    name = name_of(layer.activation)
    return name, None if name in ("linear", "SpinNeuron") else "last"


def held_by(layer, path, seen=()):
    """`(place, name)` of every activation that a layer and the layers inside it hold."""
    if isinstance(layer, SpinNeuron) or layer in seen:
        return []
    if isinstance(layer, _ACTIVATION_LAYERS):
        name, kind = of(layer)
        return [] if kind is None else [(path, name)]
    found = []
    arguments = sorted(key for key in vars(layer) if key.endswith("activation"))
    for argument in arguments:
        function = getattr(layer, argument)
        # A layer that serves as an activation is found among the layers inside.
        if not callable(function) or isinstance(function, keras.layers.Layer):
            continue
        if name_of(function) != "linear":
            place = path if arguments == ["activation"] else f"{path}.{argument}"
            found.append((place, name_of(function)))
    if not found and _has_own_code(layer):
        found = [(path, "unknown")]
    for inner in _keras.inner_layers(layer):
        is_cell = inner is getattr(layer, "cell", None)
        found += held_by(inner, path if is_cell else f"{path}/{inner.name}", (*seen, layer))
    return found


def _has_own_code(layer):
    """Whether the function of a layer is written neither in Keras nor here."""
    package = type(layer).__module__.split(".")[0]
    own = package not in ("keras", __name__.split(".")[0])
    return own or isinstance(layer, keras.layers.Lambda)


def why_kept(layer):
    """Why `to_spin` cannot convert the activations of a layer."""
    kind = type(layer).__name__
    if isinstance(layer, keras.Model):
        return f"{kind} is a subclassed model, whose graph Keras does not know"
    if _has_own_code(layer):
        return f"to_spin does not know the class {kind}; put SpinNeuron into its code"
    if isinstance(layer, keras.layers.RNN):
        return f"{kind} has a cell of its own; to_spin converts LSTM, GRU and SimpleRNN"
    return f"to_spin does not know the class {kind}"


def positions(operation):
    """The axes after the channels; `()` if the channels come last or the layout is unknown.

    An operation without a `data_format` that keeps the axes has the layout of the operation
    before it.
    """
    layout = getattr(operation, "data_format", None)
    if layout is not None:
        rank = len(getattr(operation, "kernel_size", ())) + 2
        return tuple(range(2, rank)) if layout == "channels_first" else ()
    if not (isinstance(operation, _KEEPS_AXES) or _snake(type(operation).__name__) in ELEMENTWISE):
        return ()
    try:
        return positions_of(operation.input)
    except (AttributeError, ValueError):  # part of no graph, or of several
        return ()


def positions_of(inputs):
    """Like `positions`, for an operation that keeps the axes of these tensors of a graph."""
    tensors = keras.tree.flatten(inputs)
    if not tensors:
        return ()
    producer = _keras.operation_of(tensors[0])
    layout = getattr(producer, "data_format", None)
    if layout is None:
        return positions(producer)
    return tuple(range(2, len(tensors[0].shape))) if layout == "channels_first" else ()


def name_of(function):
    """Name of an activation, which may be a function or a layer; `None` is linear."""
    if function is None:
        return "linear"
    if isinstance(function, keras.layers.Layer):
        if isinstance(function, SpinNeuron):
            return "SpinNeuron"
        inner = getattr(function, "activation", None)
        return name_of(inner) if callable(inner) else _snake(type(function).__name__)
    return getattr(function, "__name__", type(function).__name__)


def _snake(name):
    special = {"ReLU": "relu", "LeakyReLU": "leaky_relu", "PReLU": "prelu", "ELU": "elu"}
    if name in special:
        return special[name]
    return "".join(f"_{c.lower()}" if c.isupper() and k else c.lower() for k, c in enumerate(name))
