"""Give an existing Keras model spin neurons in place of its activations."""

import contextlib
import dataclasses
from typing import Any

import keras

from spinkeras.layer.neuron import SpinNeuron, spin_neurons
from spinkeras.notices import warn
from spinkeras.physics.device import DeviceLike

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
_Schedule = keras.optimizers.schedules.LearningRateSchedule
_SIGMOID, _TANH = "sigmoid", "tanh"  # an untrained spin neuron is close to these
SIGNED = ("tanh", "hard_tanh", "softsign")
"""Functions with values from -1 to 1 and slope 1 at 0; `2 P - 1` replaces them by default."""


@dataclasses.dataclass(frozen=True)
class ConversionReport:
    """The changes that `to_spin` made; the new model has it as attribute `spin_conversion`.

    Attributes:
        converted: `(path, activation, note)` of every activation that became a spin neuron. The
            path is the name of the layer in the old model after the names of the nested models
            around it: `"encoder/dense"`.
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

    A spin neuron with the switching probability `P` replaces an activation `f(x)` in one of two
    ways. A signed neuron, `SpinNeuron(bipolar=True)` with the output
    `2 P(I_bias + current_scale * x) - 1`, replaces tanh, `hard_tanh` and softsign. An unsigned
    neuron with the output `P` replaces every other function. At `x = 0` an untrained unsigned
    neuron has the value 1/2 and the slope 1/4, like the logistic sigmoid; a signed neuron has the
    value 0 and the slope 1, like tanh. So a network of sigmoid and tanh keeps its function up to
    the difference of the curves (with the spin-transfer presets at most 0.059 from sigmoid and
    0.118 from tanh). If any other activation is replaced, the function changes and the new model
    must be trained.

    These parts of functional, sequential and nested models are converted:

    - Dense and convolution layers with an element-wise activation. The layer becomes linear, and
      a `SpinNeuron` named `<layer>_spin` follows it.
    - The layers `Activation`, `ReLU`, `LeakyReLU`, `ELU` and `PReLU` (its slopes are dropped), and
      element-wise `keras.ops` in a functional graph. Each becomes a `SpinNeuron` of the same name.
      If a layer without weights is used at several places, every use gets its own neuron with its
      own width and knobs. The same holds for a wrapper or a nested model without weights. A layer
      with weights stays one layer, with one neuron for all its uses. The report names both cases.
    - The sigmoid and the tanh in the cells of `LSTM`, `GRU` and `SimpleRNN`. The cell gets one
      spin neuron for all gates and a signed one for the state. The layer is unrolled, because
      energy cannot be measured in a loop; therefore the number of steps must be known.
    - Layers inside `TimeDistributed` and `Bidirectional`.

    These activations are kept: functions that are not element-wise, such as softmax; unknown
    functions and layer classes; activations of the model's outputs, except sigmoid, tanh,
    `hard_tanh` and softsign, because a spin neuron has another range; and functions other than
    sigmoid and tanh in a recurrent cell.

    Args:
        model: functional or sequential Keras model. It is not changed.
        device: `MTJDevice` or preset name. Default `"stt_reference"`.
        where: which layers to convert. Default `None`: all layers that can be converted. Give a
            function that takes a layer and returns true or false, or a list of layer names or
            of paths as the report shows them. A listed layer is converted even if it is an
            output or has an unknown function. List the layers inside a nested model or a wrapper;
            the name of the nested model or the wrapper itself selects nothing.
        signed: names of the functions that signed neurons replace. Default `SIGNED`: tanh,
            `hard_tanh` and softsign. With `("tanh", "relu")` signed neurons also replace ReLU;
            deep networks train better with signed neurons than with `P`. With `()` all neurons
            are unsigned, and the tanh of recurrent cells and of outputs is kept.
        **neuron: further arguments of `SpinNeuron`, such as `train`, but not `name`, `dtype` or
            `bipolar`. A `current_scale` applies to signed and unsigned neurons alike and then
            sets their slopes, in place of the slopes above.
            If the channels come first, `shared_axes` is set so that all positions share one knob.
            This follows the `data_format` of the layer or of the layer before it. The search goes
            back through activations, BatchNormalization, dropout and sums of the same (nested)
            model. After any other layer the neuron has one knob per entry of the last axis.

    Returns:
        A new model with an attribute `spin_conversion`, a `ConversionReport`. If the old model
        was compiled, the new one is compiled in the same way, with a fresh optimizer; a warning
        says if an optimizer or a metric cannot be made again. A quantized model keeps its
        quantized layers; the neurons compute in the type that the layers had before.

    Raises:
        ValueError: for a subclassed model, for a name in `where` that converts nothing, for a
            name in `signed` that is not an element-wise function of Keras, and for arguments that
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
            "to_spin chooses from the old function which neurons are bipolar. List the functions "
            "in `signed` instead, for example signed=('tanh', 'relu')."
        )
    signed = (signed,) if isinstance(signed, str) else tuple(signed)
    unknown = sorted(set(signed) - _ELEMENTWISE)
    if unknown:
        raise ValueError(
            f"signed = {signed} names {unknown}, which are not element-wise functions of Keras; "
            f"choose among {sorted(_ELEMENTWISE)}."
        )
    if _SIGMOID in signed:
        raise ValueError(
            "A sigmoid gives a probability, so a signed neuron cannot replace it; remove it from "
            "`signed`."
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
    """State of one call of `to_spin`: the layers copied so far, and the report."""

    def __init__(self, neuron, chosen, signed):
        self.neuron = neuron
        self.chosen = chosen
        self.signed = signed
        self.names = None
        self.copies = {}  # id of an old layer -> (old, new): shared layers stay shared
        self.behind = {}  # id of a new layer -> the spin neuron that follows it
        self.lifted = set()  # ids of new layers whose spin neuron follows the wrapper around them
        # Id of a spin neuron -> (path, activation, old layer), if the old activation layer had no
        # weights: every further use of that layer gets its own neuron.
        self.stateless = {}
        self.origins = {}  # id of a new layer -> (old layer, path, whether it is an output)
        self.uses = {}  # id of a new layer -> how often it is used
        # Ids of the old activation layers that were replaced and of the new spin neurons. An
        # activation inside a layer has the key (id of the layer, id of the activation), because
        # another layer may hold the same activation and keep it.
        self.replaced = set()
        self.used = set()  # names in `where` for which something was converted
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
        """The new layer; for a further use of a layer without weights, another new layer.

        `inputs`, if given, say which axis of a neuron holds the channels.
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
        """The spin neuron that follows a new layer, or `None`."""
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
        """The copy of one layer, converted if `where` selects it and it can be converted."""
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
        """Whether to convert an activation; if not, the report gets the reason."""
        named = self.named(path, layer.name)
        reason = None
        if (self.names is not None and not named) or (
            self.chosen is not None and not self.chosen(layer)
        ):
            reason = "not chosen by `where`"
        elif kind == "other":
            reason = f"to_spin does not know the class {type(layer).__name__}"
        elif activation in ("softmax", "log_softmax", "sparsemax", "glu"):
            reason = "not element-wise: every output depends on all channels"
        elif not named and activation not in _ELEMENTWISE:
            reason = "unknown function; if it is element-wise, list its layer in `where`"
        elif not named and is_output and not self.keeps_range(activation):
            reason = (
                "an output with another range than a spin neuron; list it in `where` to convert"
            )
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
        """The given names that the argument `where` lists."""
        return {name for name in names if name in (self.names or ())}

    # --- layers -----------------------------------------------------------------------------

    def spin(self, layer, activation, name, positions=()):
        neuron = dict(self.neuron, bipolar=activation in self.signed)
        if positions:
            neuron.setdefault("shared_axes", positions)
        # An operation of keras.ops has no dtype policy; its neuron uses the global one.
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
        # A neuron with one knob per channel may follow the wrapper; it shares one more axis there.
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
                    (f"{path}/{half.name}", "-", f"{type(half).__name__} has a cell of its own")
                )
                return _copy(layer)
            halves[side] = self.recurrent(half, f"{path}/{half.name}", half.units, steps)
        config = _rest(layer, "layer", "backward_layer")
        new = type(layer)(
            halves["forward_layer"], backward_layer=halves["backward_layer"], **config
        )
        for side, half in halves.items():  # Bidirectional copies the layers it gets
            for argument in _arguments(half):
                if id(getattr(half, argument)) in self.replaced:
                    self.replaced.remove(id(getattr(half, argument)))
                    self.replaced.add(id(getattr(getattr(new, side), argument)))
        return new

    def recurrent(self, layer, path, units, steps):
        """A recurrent layer with spin neurons for the sigmoid and the tanh of its cell."""
        changes = {}
        for argument in _arguments(layer):
            activation = _name(getattr(layer, argument))
            place = f"{path}.{argument}"
            if activation in ("linear", "SpinNeuron"):
                continue
            if activation not in (_SIGMOID, _TANH):
                reason = "inside a recurrent cell only sigmoid and tanh have a spin neuron's range"
            elif activation == _TANH and _TANH not in self.signed:
                reason = "a recurrent cell needs the range of tanh, and `signed` does not list tanh"
            elif steps is None:
                reason = "measuring energy needs an unrolled layer, with a known number of steps"
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
        """The `ConversionReport`; it notes every neuron that has several uses."""
        shared = {}
        for key, count in self.uses.items():
            old, path, _ = self.origins.get(key, (None, "", False))
            if count > 1 and getattr(old, "weights", ()):
                shared[path] = f"; one neuron, like the weights, for all {count} uses of {old.name}"
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
                f"The model has no layer {unused} whose activation to_spin can convert. For a "
                "nested model or a wrapper, list the layers inside it. Activations kept: "
                f"{'; '.join(rows) or 'none'}."
            )

    def copy_weights(self):
        for old, new in self.copies.values():
            is_layer = isinstance(old, keras.layers.Layer) and not _has_graph(old)
            if not is_layer or id(new) in self.replaced:
                continue
            kept = _kept(old, self.replaced), _kept(new, self.replaced)
            for before, after in zip(*kept):
                # Keras builds a dense layer in a graph without building its activation.
                if before.built and not after.built and type(before) is type(after):
                    after.build_from_config(before.get_build_config())
                if before.quantization_mode is not None:  # the order of its weights differs
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
    """Keep Keras from compiling the copy of a model: it would find only registered classes."""
    compiled, model.compiled = model.compiled, False
    try:
        yield
    finally:
        model.compiled = compiled


def _compile_like(new, old):
    """Compile a model like another one: the same loss, but a new optimizer and new metrics."""
    try:
        if type(old).compile is not keras.Model.compile:
            new.compile_from_config(old.get_compile_config())
            return
        # Keras offers the original arguments only privately; a test checks this access.
        arguments = old._compile_config.config | {"optimizer": old.optimizer}
        new.compile(**_anew(arguments))
    except Exception as error:
        warn(
            f"The new model is not compiled: Keras cannot copy the optimizer and the metrics of "
            f"{old.name!r} ({type(error).__name__}: {error}). Call `compile` on the new model."
        )
        return
    if new.built and new.optimizer is not None:
        new.optimizer.build(new.trainable_variables)


def _anew(value):
    """Arguments of `compile` for another model, with new optimizers and metrics."""
    if isinstance(value, dict):
        return {key: _anew(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_anew(one) for one in value]
    if not isinstance(value, (keras.optimizers.Optimizer, keras.metrics.Metric)):
        return value
    with keras.saving.custom_object_scope(_own_objects(value)):
        return type(value).from_config(value.get_config())


def _own_objects(value):
    """Classes and functions of an optimizer or a metric by name; then none must be registered."""
    found = {}
    for one in vars(value).values():
        if isinstance(one, (keras.optimizers.Optimizer, _Schedule)):
            found |= {type(one).__name__: type(one)} | _own_objects(one)
        elif callable(one) and hasattr(one, "__name__"):
            found[one.__name__] = one
    return found


def _is_stateless(layer):
    """Whether a layer and the layers inside it have no weights and will not get any."""
    inside = layer._flatten_layers()
    return not layer.weights and all(one.built for one in inside if not one._layers)


def _policy(operation):
    """Dtype policy for a neuron that replaces an activation.

    For a quantized layer it is the policy that the layer had before it was quantized.
    """
    policy = getattr(operation, "dtype_policy", None)
    if getattr(operation, "quantization_mode", None) is None:
        return policy
    if isinstance(policy, keras.dtype_policies.DTypePolicyMap):
        policy = policy[operation.path]
    return policy.name.split("_from_")[-1]


def _two_ranks(layer, spin):
    return ValueError(
        f"Layer {layer.name!r} is called both inside TimeDistributed and outside it. Its spin "
        f"neuron with shared_axes = {spin.shared_axes} takes inputs with one number of axes only. "
        "Use `where` to exclude this layer."
    )


def _has_graph(layer):
    """Whether a layer is a functional or sequential model, whose graph Keras knows."""
    if isinstance(layer, keras.Sequential):
        return True
    return isinstance(layer, keras.Model) and hasattr(layer, "operations")


def _arguments(layer):
    """The arguments of a recurrent layer that hold an activation."""
    return _RECURRENT[type(layer)]


def _output_names(model):
    if isinstance(model, keras.Sequential):
        return {model.layers[-1].name} if model.layers else set()
    # Keras offers the layer of an output tensor only privately; a test checks this access.
    return {t._keras_history.operation.name for t in keras.tree.flatten(model.outputs)}


def _activation(layer):
    """`(name, kind)` of an activation.

    The kind is "last" (the layer applies it last), "itself" (the layer is an activation), "other"
    (a layer of an unknown class), or `None` (nothing to convert).
    """
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
    """The axes after the channels; `()` if the channels come last or the layout is unknown.

    An operation without a `data_format` that keeps the axes has the layout of the operation
    before it.
    """
    layout = getattr(operation, "data_format", None)
    if layout is not None:
        rank = len(getattr(operation, "kernel_size", ())) + 2
        return tuple(range(2, rank)) if layout == "channels_first" else ()
    if not (isinstance(operation, _KEEPS_AXES) or _snake(type(operation).__name__) in _ELEMENTWISE):
        return ()
    try:
        return _positions_of(operation.input)
    except (AttributeError, ValueError):  # part of no graph, or of several
        return ()


def _positions_of(inputs):
    """Like `_positions`, for an operation that keeps the axes of these tensors of a graph."""
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
    """Number of time steps that a recurrent layer is built for, or `None` if it is unknown."""
    try:
        return layer.input.shape[1]
    except (AttributeError, ValueError):  # part of no graph, or of several
        return None


def _rest(layer, *without):
    """Configuration of a wrapper, without the layers it wraps."""
    return {key: value for key, value in layer.get_config().items() if key not in without}


def _copy(layer, **changes):
    """A new layer, not built, with the same configuration except for the given changes."""
    if type(layer) is keras.layers.Lambda:  # its configuration does not hold the function itself
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
                config[argument] = function  # Keras cannot restore an unregistered function
    config.update(changes)
    return type(layer).from_config(config)


def _kept(layer, replaced):
    """A layer and the layers inside it, without the activations that were replaced."""
    layers = [layer]
    for sub in layer._layers:
        if not replaced & {id(sub), (id(layer), id(sub))}:
            layers += _kept(sub, replaced)
    return layers


def _own_weights(layer):
    """Weights of a layer without the weights of the layers inside it."""
    inner = {id(weight) for sub in layer._layers for weight in sub.weights}
    return [weight for weight in layer.weights if id(weight) not in inner]
