"""Give an existing Keras model spin neurons in place of its activations."""

import contextlib
import dataclasses
from typing import Any

import keras

from spinkeras.layer.neuron import SpinNeuron, spin_neurons
from spinkeras.notices import warn
from spinkeras.physics.device import DeviceLike

# Classes whose activation is the last thing they compute, so that a layer behind them equals it.
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
_RECURRENT = {
    keras.layers.LSTM: ("recurrent_activation", "activation"),
    keras.layers.GRU: ("recurrent_activation", "activation"),
    keras.layers.SimpleRNN: ("activation",),
}
_ELEMENTWISE = frozenset(
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
# Layers behind which the channels are where they were.
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
_Schedule = keras.optimizers.schedules.LearningRateSchedule
_SIGMOID, _TANH = "sigmoid", "tanh"  # what an untrained spin neuron nearly is
SIGNED = ("tanh", "hard_tanh", "softsign")
"""Functions with values from -1 to 1, of slope 1 at 0, in whose place `2 P - 1` is put."""


@dataclasses.dataclass(frozen=True)
class ConversionReport:
    """What `to_spin` did; also the attribute `spin_conversion` of the new model.

    Attributes:
        converted: `(path, activation, note)` of every activation that became a spin neuron. The
            path names the layer of the old model, nested models in front: `"encoder/dense"`.
        left_alone: `(path, activation, reason)` of every activation that was kept.
    """

    converted: tuple[tuple[str, str, str], ...]
    left_alone: tuple[tuple[str, str, str], ...]

    def __str__(self):
        lines = []
        for title, rows in (("converted", self.converted), ("left alone", self.left_alone)):
            lines.append(f"{title}: {len(rows)}")
            lines += [f"  {path} ({activation}): {text}" for path, activation, text in rows]
        return "\n".join(lines)


def to_spin(
    model: keras.Model,
    device: DeviceLike = "stt_reference",
    where: Any = None,
    signed: Any = SIGNED,
    **neuron: Any,
) -> keras.Model:
    """A copy of a Keras model whose activations are spin neurons, with the same weights.

    In place of tanh, `hard_tanh` and softsign the output is signed: `f(x)` becomes
    `2 P(I_bias + current_scale * x) - 1`, with the switching probability `P` of
    `SpinNeuron(bipolar=True)`. In place of all others it is `P`. An untrained spin neuron has at
    `x = 0` the value 1/2 and the slope 1/4, like the logistic sigmoid, or, signed, the value 0 and
    the slope 1, like tanh. So a network of sigmoid and tanh keeps its function up to the
    difference of the curves (with the spin-transfer presets at most 0.059 from sigmoid and 0.118
    from tanh). In place of any other activation the function changes, and the new model has to be
    trained.

    Converted are functional and sequential models and models nested in them:

    - dense and convolution layers with an element-wise activation: the layer becomes linear and
      a `SpinNeuron` named `<layer>_spin` follows;
    - the layers `Activation`, `ReLU`, `LeakyReLU`, `ELU`, `PReLU` (its slopes are dropped), and
      element-wise `keras.ops` in a functional graph: a `SpinNeuron` of the same name. An
      activation layer without weights that is used at several places becomes one neuron for each
      use, of its own width and with its own knobs; so does a wrapper or a nested model without
      weights. What has weights stays one layer with one neuron for all its uses; the report tells
      both;
    - the sigmoid and the tanh of the cells of `LSTM`, `GRU` and `SimpleRNN`: a spin neuron inside
      the cell, one for all gates and a signed one for the state. The layer is unrolled, which
      needs a known number of steps: in a loop, energy cannot be measured;
    - what is inside `TimeDistributed` and `Bidirectional`.

    Left alone are softmax and other functions that are not element-wise, unknown functions and
    layer classes, outputs other than those of sigmoid, tanh, `hard_tanh` and softsign, because a
    spin neuron has another range, and other functions than sigmoid and tanh in a recurrent cell.

    Args:
        model: functional or sequential Keras model. It is not changed.
        device: `MTJDevice` or preset name. Default `"stt_reference"`.
        where: which layers to convert. `None` (default): all that can be. A function of the
            layer that returns true or false, or a list of layer names or paths as the report
            gives them; a layer named in a list is converted although it is an output or has an
            unknown function. What is in a nested model or a wrapper is named itself: the name of
            the model or the wrapper stands for nothing.
        signed: names of the functions in whose place the output is signed. Default `SIGNED`:
            tanh, `hard_tanh` and softsign. `("tanh", "relu")` puts signed neurons in place of ReLU
            too, with which deep networks train better than with `P`; `()` keeps all unsigned, and
            the tanh of recurrent cells and of outputs as it is.
        **neuron: further arguments of `SpinNeuron`, except `name`, `dtype` and `bipolar`, such as
            `train`. A `current_scale` holds for signed and unsigned neurons alike; it then sets
            the slopes, and those above do not apply.
            Where the channels come first, `shared_axes` is set to the positions: by the layer's
            `data_format`, or by that of the layer before it. The search goes back through
            activations, BatchNormalization, dropout and sums of the same (nested) model; behind
            anything else an activation has one knob per entry of the last axis.

    Returns:
        A new model, compiled like the old one with a fresh optimizer if that was compiled; a
        warning says so if an optimizer or a metric cannot be made anew. A quantized model keeps
        its quantized layers; the neurons compute in the type that it had before. Its attribute
        `spin_conversion` is a `ConversionReport`: what was converted, what was left alone, and
        why.

    Raises:
        ValueError: for a subclassed model, for a name in `where` that converts nothing, for a
            name in `signed` that is no element-wise function of Keras, and for arguments that
            `SpinNeuron` refuses.

    Example:

    >>> import keras, spinkeras
    >>> from spinkeras import to_spin
    >>> hidden = keras.layers.Dense(3, activation="sigmoid", name="hidden")
    >>> head = keras.layers.Dense(2, activation="softmax", name="head")
    >>> spin = to_spin(keras.Sequential([keras.Input((4,)), hidden, head]))
    >>> print(spin.spin_conversion)
    converted: 1
      hidden (sigmoid): hidden_spin follows the layer
    left alone: 1
      head (softmax): not element-wise: every output depends on all channels
    """
    clash = sorted({"name", "dtype"} & set(neuron))
    if clash:
        raise ValueError(f"to_spin sets {clash} of every SpinNeuron itself; leave them out.")
    if "bipolar" in neuron:
        raise ValueError(
            "to_spin decides by the old function which neurons are bipolar; name the functions in "
            "`signed`, for example signed=('tanh', 'relu')."
        )
    signed = (signed,) if isinstance(signed, str) else tuple(signed)
    unknown = sorted(set(signed) - _ELEMENTWISE)
    if unknown:
        raise ValueError(
            f"signed = {signed} names {unknown}, which are no element-wise functions of Keras; "
            f"choose among {sorted(_ELEMENTWISE)}."
        )
    if _SIGMOID in signed:
        raise ValueError(
            "The sigmoid is a probability, so its place is not signed; take it out of `signed`."
        )
    if not _has_graph(model):
        raise ValueError(
            f"to_spin needs a functional or sequential model; {type(model).__name__} is a "
            "subclassed model, whose graph Keras does not know. Put SpinNeuron into its code, or "
            "convert its functional parts one by one."
        )
    names = None
    if where is not None and not callable(where):
        names = [where] if isinstance(where, str) else list(where)
    chosen = None if names is not None else where
    conversion = _Conversion(dict(neuron, device=device), chosen, signed)
    conversion.names = names
    new = conversion.model(model, prefix="", is_output=True)
    conversion.check_names()
    conversion.copy_weights()
    if model.compiled:
        _compile_like(new, model)
    new.spin_conversion = conversion.report()
    return new


class _Conversion:
    """State of one `to_spin`: the layers already copied and the report."""

    def __init__(self, neuron, chosen, signed):
        self.neuron = neuron
        self.chosen = chosen
        self.signed = signed
        self.names = None
        self.copies = {}  # id of an old layer -> (old, new): shared layers stay shared
        self.behind = {}  # id of a new layer -> the spin neuron that follows it
        self.lifted = set()  # ids of new layers whose spin neuron has the axes of a wrapper
        # Id of a spin neuron in place of an activation layer -> (path, activation, that layer):
        # such a layer holds nothing that its uses could share.
        self.stateless = {}
        self.origins = {}  # id of a new layer -> (old layer, path, whether it is an output)
        self.uses = {}  # id of a new layer -> how often it is used
        # Ids of old activation layers that went and of spin neurons that came, of an activation
        # inside a layer with the id of that in front: another layer that holds it may keep it.
        self.replaced = set()
        self.used = set()  # names in `where` that stand for something converted
        self.converted = []
        self.left_alone = []

    # --- models -----------------------------------------------------------------------------

    def model(self, model, prefix, is_output, name=None):
        outputs = _output_names(model) if is_output else ()

        def clone(layer):
            return self.layer(layer, prefix, layer.name in outputs)

        if isinstance(model, keras.Sequential):
            layers = []
            for layer in model.layers:
                copy = self.one_use(clone(layer))
                spin = self.follower(copy)
                layers += [copy] if spin is None else [copy, spin]
            if model.built:
                (tensor,) = model.inputs
                layers.insert(
                    0, keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=tensor.name)
                )
            new = keras.Sequential(layers, name=name or model.name)
        else:

            def call(layer, *args, **kwargs):
                layer = self.one_use(layer, *args)
                result = layer(*args, **kwargs)
                spin = self.follower(layer)
                return result if spin is None else spin(result)

            with _uncompiled(model):
                new = keras.models.clone_model(model, clone_function=clone, call_function=call)
            new.name = name or model.name  # `clone_model` takes no name
        if not model.trainable:
            new.trainable = False
        return new

    def one_use(self, new, *inputs):
        """The new layer, or for a further use of what holds no weights another one.

        The channels of a neuron are where they are in `inputs`, if these are given.
        """
        self.uses[id(new)] = count = self.uses.get(id(new), 0) + 1
        if count == 1 or id(new) not in self.origins:
            return new
        old, path, is_output = self.origins[id(new)]
        name = f"{new.name}_use_{count}"
        if id(new) in self.stateless:
            path, activation, old = self.stateless[id(new)]
            spin = self.spin(old, activation, name, _positions_of(inputs))
            self.converted.append((path, activation, f"{spin.name} at use {count} of the layer"))
            return spin
        if not (_is_stateless(old) and spin_neurons(new)):
            return new
        if _has_graph(old):
            return self.model(old, f"{path}/", is_output, name)
        return self.time_distributed(old, path, is_output, name)

    def follower(self, new):
        """The spin neuron behind a new layer, or None."""
        spin = self.behind.get(id(new))
        if id(new) in self.lifted:
            raise _two_ranks(new, spin)
        return spin

    def layer(self, layer, prefix, is_output):
        if id(layer) not in self.copies:
            path = prefix + layer.name
            if _has_graph(layer):
                new = self.model(layer, f"{path}/", is_output)
            else:
                new = self.convert(layer, path, is_output)
            self.copies[id(layer)] = (layer, new)
            self.origins[id(new)] = layer, path, is_output
        return self.copies[id(layer)][1]

    def convert(self, layer, path, is_output):
        """The copy of one layer, converted where that is asked for and right."""
        if isinstance(layer, keras.layers.TimeDistributed):
            return self.time_distributed(layer, path, is_output)
        if isinstance(layer, keras.layers.Bidirectional):
            return self.bidirectional(layer, path)
        if type(layer) in _RECURRENT:
            return self.recurrent(layer, path, layer.units, _steps(layer))
        activation, kind = _activation(layer)
        if kind is not None and self.wanted(layer, path, activation, kind, is_output):
            return self.replace(layer, path, activation, kind)
        return _copy(layer)

    def wanted(self, layer, path, activation, kind, is_output):
        """Whether to convert; the reason is noted if not."""
        named = self.named(path, layer.name)
        reason = None
        if (self.names is not None and not named) or (
            self.chosen is not None and not self.chosen(layer)
        ):
            reason = "not chosen by `where`"
        elif kind == "other":
            reason = f"{type(layer).__name__} is not a class to_spin knows"
        elif activation in ("softmax", "log_softmax", "sparsemax", "glu"):
            reason = "not element-wise: every output depends on all channels"
        elif not named and activation not in _ELEMENTWISE:
            reason = "unknown function; if it is element-wise, name its layer in `where`"
        elif not named and is_output and not self.keeps_range(activation):
            reason = "an output with another range than a spin neuron; name it in `where` to insist"
        if reason is None:
            self.used |= named
            return True
        if named:
            raise ValueError(f"Layer {path!r} ({activation}) cannot be converted: {reason}.")
        self.left_alone.append((path, activation, reason))
        return False

    def keeps_range(self, activation):
        return activation == _SIGMOID or (activation in SIGNED and activation in self.signed)

    def named(self, *names):
        """The names of a layer that the argument `where` lists."""
        return {name for name in names if name in (self.names or ())}

    # --- layers -----------------------------------------------------------------------------

    def spin(self, layer, activation, name, positions=()):
        neuron = dict(self.neuron, bipolar=activation in self.signed)
        if positions:
            neuron.setdefault("shared_axes", positions)
        # An operation of keras.ops has no dtype policy; the neuron then takes the global one.
        spin = SpinNeuron(name=name, dtype=_policy(layer), **neuron)
        self.replaced.add(id(spin))
        return spin

    def replace(self, layer, path, activation, kind):
        if kind == "itself":
            dropped = " (its trained slopes are dropped)" if getattr(layer, "weights", ()) else ""
            self.converted.append((path, activation, f"replaced{dropped}"))
            self.replaced.add(id(layer))
            spin = self.spin(layer, activation, layer.name, _positions(layer))
            if not getattr(layer, "weights", ()):
                self.stateless[id(spin)] = path, activation, layer
            return spin
        new = _copy(layer, activation="linear")
        spin = self.spin(layer, activation, f"{layer.name}_spin", _positions(layer))
        self.behind[id(new)] = spin
        self.replaced.add((id(layer), id(layer.activation)))
        self.converted.append((path, activation, f"{spin.name} follows the layer"))
        return new

    def time_distributed(self, layer, path, is_output, name=None):
        inner = self.one_use(self.layer(layer.layer, f"{path}/", is_output))
        new = type(layer)(inner, **{**_rest(layer, "layer"), "name": name or layer.name})
        # Per channel, after the wrapper is the same as inside it, with one axis more to share.
        spin = self.behind.get(id(inner))
        if spin is not None:
            self.behind[id(new)] = spin
            if spin.shared_axes is not None and id(inner) not in self.lifted:
                if spin.built:
                    raise _two_ranks(inner, spin)
                self.lifted.add(id(inner))
                spin.shared_axes = (1, *(a + 1 if a > 0 else a for a in spin.shared_axes))
        return new

    def bidirectional(self, layer, path):
        steps = _steps(layer)
        halves = {}
        for side in ("forward_layer", "backward_layer"):
            half = getattr(layer, side)
            if type(half) not in _RECURRENT:
                self.left_alone.append(
                    (f"{path}/{half.name}", "-", f"{type(half).__name__} holds its own cell")
                )
                return _copy(layer)
            halves[side] = self.recurrent(half, f"{path}/{half.name}", half.units, steps)
        config = _rest(layer, "layer", "backward_layer")
        new = type(layer)(
            halves["forward_layer"], backward_layer=halves["backward_layer"], **config
        )
        for side, half in halves.items():  # Keras makes copies of its own
            for argument in _arguments(half):
                if id(getattr(half, argument)) in self.replaced:
                    self.replaced.remove(id(getattr(half, argument)))
                    self.replaced.add(id(getattr(getattr(new, side), argument)))
        return new

    def recurrent(self, layer, path, units, steps):
        """Spin neurons inside a cell, for its sigmoid and its tanh only."""
        changes = {}
        for argument in _arguments(layer):
            activation = _name(getattr(layer, argument))
            place = f"{path}.{argument}"
            if activation in ("linear", "SpinNeuron"):
                continue
            if activation not in (_SIGMOID, _TANH):
                reason = "inside a recurrent cell only sigmoid and tanh have a spin neuron's range"
            elif activation == _TANH and _TANH not in self.signed:
                reason = "inside a recurrent cell the range has to stay, and `signed` has no tanh"
            elif steps is None:
                reason = "unrolling, which measuring energy needs, needs a known number of steps"
            else:
                reason = None
            named = self.named(path, layer.name, place)
            if (self.names is not None and not named) or (
                self.chosen is not None and not self.chosen(layer)
            ):
                reason = "not chosen by `where`"
            if reason is not None:
                self.left_alone.append((place, activation, reason))
                continue
            state = "_state" if argument == "activation" and len(_arguments(layer)) > 1 else ""
            spin = self.spin(layer, activation, f"{layer.name}{state}_spin")
            spin.build((None, units))
            self.used |= named
            changes[argument] = spin
            self.replaced.add((id(layer.cell), id(getattr(layer, argument))))
            self.converted.append((place, activation, "spin neuron in the cell; layer unrolled"))
        if changes:
            changes["unroll"] = True
        return _copy(layer, **changes)

    # --- the rest ---------------------------------------------------------------------------

    def report(self):
        """The `ConversionReport`, with a word on every neuron that has several uses."""
        shared = {}
        for key, count in self.uses.items():
            old, path, _ = self.origins.get(key, (None, "", False))
            if count > 1 and getattr(old, "weights", ()):
                shared[path] = f"; one for all {count} uses of {old.name}, as its weights are"
        converted = []
        for place, activation, note in self.converted:
            inside = [p for p in shared if place == p or place.startswith((f"{p}/", f"{p}."))]
            note += "".join(shared[path] for path in inside)
            converted.append((place, activation, note))
        return ConversionReport(tuple(converted), tuple(self.left_alone))

    def check_names(self):
        unused = [name for name in self.names or () if name not in self.used]
        if unused:
            rows = [f"{path} ({kind}): {text}" for path, kind, text in self.left_alone]
            raise ValueError(
                f"The model has no layer {unused} whose activation to_spin can convert; for what "
                "is in a nested model or a wrapper, name the layer inside. Activations left: "
                f"{'; '.join(rows) or 'none'}."
            )

    def copy_weights(self):
        for old, new in self.copies.values():
            is_layer = isinstance(old, keras.layers.Layer) and not _has_graph(old)
            if not is_layer or id(new) in self.replaced:
                continue
            kept = _kept(old, self.replaced), _kept(new, self.replaced)
            for before, after in zip(*kept):
                # A dense layer in a graph is built without its activation.
                if before.built and not after.built and type(before) is type(after):
                    after.build_from_config(before.get_build_config())
                if before.quantization_mode is not None:  # its weights were added in another order
                    store = {}
                    before.save_own_variables(store)
                    after.load_own_variables(store)
            kept = [[one for one in side if one.quantization_mode is None] for side in kept]
            weights = [[w for layer in layers for w in _own_weights(layer)] for layers in kept]
            shapes = [[tuple(w.shape) for w in ws] for ws in weights]
            if shapes[0] != shapes[1]:
                raise ValueError(
                    f"The copy of layer {old.name!r} ({type(old).__name__}) has weights of "
                    f"shape {shapes[1]} in place of {shapes[0]}; its get_config does not "
                    "describe the layer fully."
                )
            for source, target in zip(*weights):
                target.assign(source)


@contextlib.contextmanager
def _uncompiled(model):
    """While a copy is made that Keras shall not compile: it finds registered classes only."""
    compiled, model.compiled = model.compiled, False
    try:
        yield
    finally:
        model.compiled = compiled


def _compile_like(new, old):
    """Compile a model as another, with the same loss and an optimizer and metrics of its own."""
    try:
        if type(old).compile is not keras.Model.compile:
            new.compile_from_config(old.get_compile_config())
            return
        # Keras has no public access to the arguments as they were; this one is held by a test.
        arguments = old._compile_config.config | {"optimizer": old.optimizer}
        new.compile(**_anew(arguments))
    except Exception as error:
        warn(
            f"The new model is not compiled: Keras cannot make the optimizer and the metrics of "
            f"{old.name!r} anew ({type(error).__name__}: {error}). Call `compile` on it."
        )
        return
    if new.built and new.optimizer is not None:
        new.optimizer.build(new.trainable_variables)


def _anew(value):
    """Arguments of `compile` for another model: what has a state of its own is made anew."""
    if isinstance(value, dict):
        return {key: _anew(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_anew(one) for one in value]
    if not isinstance(value, (keras.optimizers.Optimizer, keras.metrics.Metric)):
        return value
    with keras.saving.custom_object_scope(_own_objects(value)):
        return type(value).from_config(value.get_config())


def _own_objects(value):
    """Classes and functions of an optimizer or a metric, by name, so that none is registered."""
    found = {}
    for one in vars(value).values():
        if isinstance(one, (keras.optimizers.Optimizer, _Schedule)):
            found |= {type(one).__name__: type(one)} | _own_objects(one)
        elif callable(one) and hasattr(one, "__name__"):
            found[one.__name__] = one
    return found


def _is_stateless(layer):
    """Whether a layer, with all inside it, has no weights and will not have any."""
    inside = layer._flatten_layers()
    return not layer.weights and all(one.built for one in inside if not one._layers)


def _policy(operation):
    """Type for a neuron in place of an activation: of a quantized layer, what it had before."""
    policy = getattr(operation, "dtype_policy", None)
    if getattr(operation, "quantization_mode", None) is None:
        return policy
    if isinstance(policy, keras.dtype_policies.DTypePolicyMap):
        policy = policy[operation.path]
    return policy.name.split("_from_")[-1]


def _two_ranks(layer, spin):
    return ValueError(
        f"Layer {layer.name!r} is called both inside TimeDistributed and outside it. Its spin "
        f"neuron, with shared_axes = {spin.shared_axes}, takes inputs of one number of axes only; "
        "leave the layer out by `where`."
    )


def _has_graph(layer):
    """Whether Keras knows the layers of a model: functional or sequential."""
    if isinstance(layer, keras.Sequential):
        return True
    return isinstance(layer, keras.Model) and hasattr(layer, "operations")


def _arguments(layer):
    """The arguments of a recurrent layer that hold an activation."""
    return _RECURRENT[type(layer)]


def _output_names(model):
    if isinstance(model, keras.Sequential):
        return {model.layers[-1].name} if model.layers else set()
    # Keras has no public way from an output tensor to its layer; this one is held by a test.
    return {t._keras_history.operation.name for t in keras.tree.flatten(model.outputs)}


def _activation(layer):
    """`(name, kind)`; kind: "last", "itself" (an activation layer), "other" or None (no matter)."""
    if isinstance(layer, SpinNeuron):
        return "SpinNeuron", None
    if not isinstance(layer, keras.layers.Layer):  # an operation such as keras.ops.relu
        name = _snake(type(layer).__name__)
        known = name in _ELEMENTWISE or "softmax" in name
        return name, "itself" if known else None
    if isinstance(layer, _ACTIVATION_LAYERS):
        function = getattr(layer, "activation", None)
        name = _name(function) if callable(function) else _snake(type(layer).__name__)
        return name, None if name in ("linear", "SpinNeuron") else "itself"
    function = getattr(layer, "activation", None)
    if not callable(function):
        return "", None
    name = _name(function)
    if name in ("linear", "SpinNeuron"):
        return name, None
    return name, "last" if type(layer) in _ACTIVATED_LAST else "other"


def _positions(operation):
    """Axes behind the channels; `()` where the channels come last or the layout is unknown.

    An operation without a `data_format` has that of the one before it, if it keeps the axes.
    """
    layout = getattr(operation, "data_format", None)
    if layout is not None:
        rank = len(getattr(operation, "kernel_size", ())) + 2
        return tuple(range(2, rank)) if layout == "channels_first" else ()
    if not (isinstance(operation, _KEEPS_AXES) or _snake(type(operation).__name__) in _ELEMENTWISE):
        return ()
    try:
        return _positions_of(operation.input)
    except (AttributeError, ValueError):  # of no graph, or of several
        return ()


def _positions_of(inputs):
    """As `_positions`, for what takes these tensors of a graph and keeps their axes."""
    tensors = keras.tree.flatten(inputs)
    if not tensors:
        return ()
    producer = tensors[0]._keras_history.operation
    layout = getattr(producer, "data_format", None)
    if layout is None:
        return _positions(producer)
    return tuple(range(2, len(tensors[0].shape))) if layout == "channels_first" else ()


def _name(function):
    if function is None:
        return "linear"
    if isinstance(function, keras.layers.Layer):
        if isinstance(function, SpinNeuron):
            return "SpinNeuron"
        inner = getattr(function, "activation", None)
        return _name(inner) if callable(inner) else _snake(type(function).__name__)
    return getattr(function, "__name__", type(function).__name__)


def _snake(name):
    special = {"ReLU": "relu", "LeakyReLU": "leaky_relu", "PReLU": "prelu", "ELU": "elu"}
    if name in special:
        return special[name]
    return "".join(f"_{c.lower()}" if c.isupper() and k else c.lower() for k, c in enumerate(name))


def _steps(layer):
    """Number of time steps a recurrent layer is built for, or None."""
    try:
        return layer.input.shape[1]
    except (AttributeError, ValueError):  # not part of a graph, or of several
        return None


def _rest(layer, *without):
    """Configuration of a wrapper, without the layers it wraps."""
    return {key: value for key, value in layer.get_config().items() if key not in without}


def _copy(layer, **changes):
    """A new layer of the same configuration but for some arguments, not yet built."""
    if type(layer) is keras.layers.Lambda:  # Keras stores its functions as code or by name
        return keras.layers.Lambda(
            layer.function,
            output_shape=layer._output_shape,
            mask=layer.mask,
            arguments=layer.arguments,
            name=layer.name,
            trainable=layer.trainable,
            dtype=layer.dtype_policy,
        )
    config = layer.get_config()
    for argument in config:
        if argument.endswith(("activation", "_initializer", "_regularizer", "_constraint")):
            function = getattr(layer, argument, None)
            if callable(function) and not isinstance(function, keras.layers.Layer):
                config[argument] = function  # unregistered functions have no other copy
    config.update(changes)
    return type(layer).from_config(config)


def _kept(layer, replaced):
    """A layer and all inside it, but for the activations that were replaced."""
    layers = [layer]
    for sub in layer._layers:
        if not replaced & {id(sub), (id(layer), id(sub))}:
            layers += _kept(sub, replaced)
    return layers


def _own_weights(layer):
    """Weights of a layer but for those of the layers inside it."""
    inner = {id(weight) for sub in layer._layers for weight in sub.weights}
    return [weight for weight in layer.weights if id(weight) not in inner]
