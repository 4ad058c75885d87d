"""Give an existing Keras model spin neurons in place of its activations."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import keras

from spinkeras import _keras, checks
from spinkeras.layer import activations, copies
from spinkeras.layer.members import spin_neurons
from spinkeras.layer.neuron import SpinNeuron
from spinkeras.physics.device import DeviceLike

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
        left_alone: `(path, activation, reason)` of every activation that was kept. The activation
            is `"unknown"` for a layer, model or `Lambda` whose own code may apply one.

    Example:

    >>> import keras, spinkeras
    >>> model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, "sigmoid", name="head")])
    >>> spinkeras.to_spin(model).spin_conversion.converted
    (('head', 'sigmoid', 'head_spin follows the layer'),)
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
    where: Callable[[keras.layers.Layer], bool] | Sequence[str] | None = None,
    signed: Sequence[str] = SIGNED,
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
      a `SpinNeuron` named `<layer>_spin` follows it. Where the layer is an output of a functional
      model, the linear layer is called `<layer>_linear` and the neuron takes the old name, so that
      losses and metrics find the output. An activity regularizer moves to the neuron, and the
      neuron of a frozen layer is frozen.
    - The layers `Activation`, `ReLU`, `LeakyReLU`, `ELU` and `PReLU` (its slopes are dropped), and
      element-wise `keras.ops` in a functional graph. Each becomes a `SpinNeuron` of the same name.
      If a layer without weights is used at several places, every use gets its own neuron with its
      own width and knobs. The same holds for a wrapper or a nested model without weights. A layer
      with weights stays one layer, with one neuron for all its uses. The report names both cases.
    - The sigmoid and the tanh in the cells of `LSTM`, `GRU` and `SimpleRNN`. The cell gets one
      spin neuron for all gates and a signed one for the state. The layer is unrolled, because
      energy cannot be measured in a loop; therefore the number of steps must be known.
    - Layers inside `TimeDistributed` and `Bidirectional`. The neuron follows `TimeDistributed`; if
      this is an output of a functional model, a linear `Activation` with its name comes last.

    These activations are kept: functions that are not element-wise, such as softmax; unknown
    functions, layer classes and subclassed models inside the model; activations of the model's
    outputs, except sigmoid, tanh, `hard_tanh` and softsign, because a spin neuron has another
    range; and functions other than sigmoid and tanh in a recurrent cell.

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
            sets their slopes, in place of the slopes above. An `activity_regularizer` replaces
            those of the old activations.
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
        ValueError: for anything but a functional or sequential model, for a name in `where` that
            converts nothing, for a name in `signed` that is not an element-wise function of
            Keras, and for arguments that `SpinNeuron` refuses.

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
    given, signed = signed, _strings(signed)
    if signed is None:
        raise ValueError(
            "signed must be a list of names of functions, such as ('tanh', 'relu'), or () if every "
            f"neuron is to be unsigned; it is {checks.shown(given)}."
        )
    unknown = sorted(set(signed) - activations.ELEMENTWISE)
    if unknown:
        raise ValueError(
            f"signed = {signed} names {unknown}, which are not element-wise functions of Keras; "
            f"choose among {sorted(activations.ELEMENTWISE)}."
        )
    if _SIGMOID in signed:
        raise ValueError(
            "A sigmoid gives a probability, so a signed neuron cannot replace it; remove it from "
            "`signed`."
        )
    _check_model(model)
    chosen = names = None
    if callable(where) and not isinstance(where, keras.layers.Layer):
        chosen = where
    elif where is not None:
        names = _strings(where)
        if names is None:
            raise ValueError(
                "where must be None, a function that takes a layer, or a list of names of layers; "
                f"it is {checks.shown(where)}."
            )
    conversion = _Conversion(model, dict(neuron, device=device), chosen, names, signed)
    new = conversion.model(model, prefix="", is_output=True)
    conversion.check_names()
    copies.copy_weights(conversion.copies.values(), conversion.replaced)
    if model.compiled:
        copies.compile_like(new, model)
    new.spin_conversion = conversion.report()
    return new


def _check_model(model):
    if copies.has_graph(model):
        return
    need = "to_spin needs a functional or sequential model"
    if isinstance(model, keras.Model):
        raise ValueError(
            f"{need}; {type(model).__name__} is a subclassed model, whose graph Keras does not "
            "know. Put SpinNeuron into its code, or convert its functional parts one by one."
        )
    if isinstance(model, keras.layers.Layer):
        raise ValueError(
            f"{need}; {model.name!r} is a layer of class {type(model).__name__}. Put it into a "
            "model first, for example keras.Sequential([keras.Input(shape), layer])."
        )
    raise ValueError(f"{need}, not {checks.shown(model)}.")


def _strings(value):
    """A string or an iterable of strings as a tuple; `None` if it is anything else."""
    if isinstance(value, str):
        return (value,)
    if not isinstance(value, Iterable):
        return None
    value = tuple(value)
    return value if all(isinstance(one, str) for one in value) else None


class _Conversion:
    """State of one call of `to_spin`: the layers copied so far, and the report."""

    def __init__(self, model, neuron, chosen, names, signed):
        self.neuron = neuron
        self.chosen, self.names = chosen, names  # `where` as a function or as names; or `None`
        self.signed = signed
        self.copies = {}  # id of an old layer -> (old, new): shared layers stay shared
        self.behind = {}  # id of a new layer -> the layers that follow it: a spin neuron first
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
        inside = _keras.all_layers(model)
        wrappers = [one for one in inside if isinstance(one, keras.layers.TimeDistributed)]
        self.taken = {one.name for one in inside}  # names in the old model
        self.wrapped = {id(one.layer) for one in wrappers}  # ids of layers in a TimeDistributed
        # Ids of the old layers that end a functional model. Keras calls the outputs of the model
        # by their names, so the new model needs the same names.
        self.ends = set()
        self.converted = []  # (path, activation, spin neuron or None, what happened)
        self.left_alone = []

    # --- models -----------------------------------------------------------------------------

    def model(self, model, prefix, is_output, name=None):
        outputs = copies.output_names(model) if is_output else ()

        def clone(layer):
            return self.layer(layer, prefix, layer.name in outputs)

        if isinstance(model, keras.Sequential):
            layers = []
            for layer in model.layers:
                copy = self.one_use(clone(layer))
                layers += [copy, *self.followers(copy)]
            if model.built:
                (tensor,) = model.inputs
                layers.insert(
                    0, keras.Input(batch_shape=tensor.shape, dtype=tensor.dtype, name=tensor.name)
                )
            new = keras.Sequential(layers, name=name or model.name)
        else:
            self.ends |= {id(_keras.operation_of(tensor)) for tensor in model.outputs}

            def call(layer, *args, **kwargs):
                layer = self.one_use(layer, *args)
                result = layer(*args, **kwargs)
                for follower in self.followers(layer):
                    result = follower(result)
                return result

            with copies.uncompiled(model):
                new = keras.models.clone_model(model, clone_function=clone, call_function=call)
            new.name = name or model.name  # `clone_model` takes no name
            self.keep_output_names(new, model.output_names)
        if not model.trainable:
            # This freezes the layers inside, too, of which the old model may train some.
            inside = [(one, one.trainable) for one in _keras.all_layers(new)[1:]]
            new.trainable = False
            for layer, trainable in inside:
                layer.trainable = trainable
        return new

    def one_use(self, new, *inputs):
        """The new layer; for a further use of a layer without weights, another new layer.

        `inputs`, if given, say which axis of a neuron holds the channels.
        """
        self.uses[id(new)] = count = self.uses.get(id(new), 0) + 1
        if count == 1 or id(new) not in self.origins:
            return new
        old, path, is_output = self.origins[id(new)]
        name = self.new_name(new.name, f"use_{count}")
        if id(new) in self.stateless:
            path, activation, old = self.stateless[id(new)]
            spin = self.spin(old, activation, name, activations.positions_of(inputs))
            self.converted.append((path, activation, spin, f"at use {count} of the layer"))
            return spin
        if not (copies.is_stateless(old) and spin_neurons(new)):
            return new
        if copies.has_graph(old):
            return self.model(old, f"{path}/", is_output, name)
        return self.time_distributed(old, path, is_output, name)

    def followers(self, new):
        """The layers that follow a new layer: none, or a spin neuron and what it needs."""
        behind = self.behind.get(id(new), [])
        if id(new) in self.lifted:
            raise _two_ranks(new, behind[0])
        return behind

    def keep_output_names(self, new, names):
        """Give an output its old name if another use of its old layer got this name."""
        for tensor, name in zip(new.outputs, names):
            end = _keras.operation_of(tensor)
            if end.name == name or names.count(name) > 1:
                continue
            for other in [one for one in new.operations if one.name == name]:
                linear = self.new_name(name, "linear")
                other.name = linear if id(other) in self.behind else end.name
            end.name = name
        new.output_names = [_keras.operation_of(tensor).name for tensor in new.outputs]

    def new_name(self, name, suffix):
        """A name for a new layer; the old model may have used the first choice."""
        new = f"{name}_{suffix}"
        while new in self.taken:
            new += "_"
        return new

    def layer(self, layer, prefix, is_output):
        if id(layer) not in self.copies:
            path = prefix + layer.name
            if copies.has_graph(layer):
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
        if type(layer) in activations.RECURRENT:
            return self.recurrent(layer, path, layer.units, _steps(layer))
        activation, kind = activations.of(layer)
        if kind is None:
            self.keep(layer, path)
        elif self.wanted(layer, path, activation, is_output):
            return self.replace(layer, path, activation, kind)
        return copies.of(layer)

    def keep(self, layer, path):
        """Report the activations of a layer that `to_spin` cannot take apart."""
        reason = activations.why_kept(layer)
        rows = [
            (place, name, "not element-wise" if name in activations.NOT_ELEMENTWISE else reason)
            for place, name in activations.held_by(layer, path)
        ]
        if rows and self.named(path, layer.name, *(place for place, *_ in rows)):
            raise ValueError(f"Layer {path!r} cannot be converted: {reason}.")
        self.left_alone += rows

    def wanted(self, layer, path, activation, is_output):
        """Whether to convert an activation; if not, the report gets the reason."""
        named = self.named(path, layer.name)
        reason = None
        if not self.chooses(layer, named):
            reason = "not chosen by `where`"
        elif activation in activations.NOT_ELEMENTWISE:
            reason = "not element-wise: every output depends on all channels"
        elif not named and activation not in activations.ELEMENTWISE:
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

    def chooses(self, layer, named):
        """Whether `where` selects a layer; `named` are its names that `where` lists."""
        if self.chosen is not None:
            return self.chosen(layer)
        return self.names is None or named

    # --- layers -----------------------------------------------------------------------------

    def spin(self, layer, activation, name, positions=(), regularizer=None):
        neuron = dict(self.neuron, bipolar=activation in self.signed)
        if positions:
            neuron.setdefault("shared_axes", positions)
        if regularizer is not None:
            neuron.setdefault("activity_regularizer", regularizer)
        if not getattr(layer, "trainable", True):
            neuron["trainable"] = False
        # An operation of keras.ops has no dtype policy; its neuron uses the global one.
        spin = SpinNeuron(name=name, dtype=copies.policy_of(layer), **neuron)
        self.replaced.add(id(spin))
        return spin

    def replace(self, layer, path, activation, kind):
        if kind == "itself":
            dropped = " (its trained slopes are dropped)" if getattr(layer, "weights", ()) else ""
            self.converted.append((path, activation, None, f"replaced{dropped}"))
            self.replaced.add(id(layer))
            regularizer = getattr(layer, "activity_regularizer", None)
            spin = self.spin(
                layer, activation, layer.name, activations.positions(layer), regularizer
            )
            if not getattr(layer, "weights", ()):
                self.stateless[id(spin)] = path, activation, layer
            return spin
        name, linear = self.new_name(layer.name, "spin"), layer.name
        regularizer, end = layer.activity_regularizer, []
        if regularizer is not None and id(layer) in self.wrapped:
            # A neuron behind a TimeDistributed must not have it: Keras ignores it there.
            linear, end = self.end(layer)
            regularizer = None
        elif id(layer) in self.ends:
            name, linear = layer.name, self.new_name(layer.name, "linear")
        changes = {"activation": "linear", "activity_regularizer": None, "name": linear}
        new = copies.of(layer, **changes)
        spin = self.spin(layer, activation, name, activations.positions(layer), regularizer)
        self.behind[id(new)] = [spin, *end]
        self.replaced.add((id(layer), id(layer.activation)))
        named = "" if linear == layer.name else f", now named {linear}"
        self.converted.append((path, activation, spin, f"follows the layer{named}"))
        return new

    def end(self, layer):
        """Another name for a layer, and what comes after its neuron to end it with its own name.

        This is for a neuron that other layers use, too: it can have neither the name nor the
        activity regularizer of one of them.
        """
        end = keras.layers.Activation(
            "linear",
            activity_regularizer=layer.activity_regularizer,
            name=layer.name,
            dtype=copies.policy_of(layer),
        )
        return self.new_name(layer.name, "linear"), [end]

    def time_distributed(self, layer, path, is_output, name=None):
        inner = self.one_use(self.layer(layer.layer, f"{path}/", is_output))
        changes = {"activity_regularizer": layer.activity_regularizer, "name": name or layer.name}
        spin, *_ = self.behind.get(id(inner), [None])
        end = []
        if spin is not None and (id(layer) in self.ends or layer.activity_regularizer is not None):
            changes["name"], end = self.end(layer)
            changes["activity_regularizer"] = None
        new = type(layer)(inner, **copies.config_without(layer, "layer") | changes)
        # A neuron with one knob per channel may follow the wrapper; it shares one more axis there.
        if spin is not None:
            self.behind[id(new)] = [spin, *end]
            if spin.shared_axes is not None and id(inner) not in self.lifted:
                if spin.built:
                    raise _two_ranks(inner, spin)
                self.lifted.add(id(inner))
                spin.shared_axes = (1, *(a + 1 if a > 0 else a for a in spin.shared_axes))
        return new

    def bidirectional(self, layer, path):
        steps = _steps(layer)
        sides = {side: getattr(layer, side) for side in ("forward_layer", "backward_layer")}
        if any(type(half) not in activations.RECURRENT for half in sides.values()):
            for half in sides.values():
                self.keep(half, f"{path}/{half.name}")
            return copies.of(layer)
        halves = {
            side: self.recurrent(half, f"{path}/{half.name}", half.units, steps)
            for side, half in sides.items()
        }
        config = copies.config_without(layer, "layer", "backward_layer")
        new = type(layer)(
            halves["forward_layer"], backward_layer=halves["backward_layer"], **config
        )
        for side, half in halves.items():  # Bidirectional copies the layers it gets
            for argument in activations.RECURRENT[type(half)]:
                if id(getattr(half, argument)) in self.replaced:
                    self.replaced.remove(id(getattr(half, argument)))
                    self.replaced.add(id(getattr(getattr(new, side), argument)))
        return new

    def recurrent(self, layer, path, units, steps):
        """A recurrent layer with spin neurons for the sigmoid and the tanh of its cell."""
        arguments, changes = activations.RECURRENT[type(layer)], {}
        for argument in arguments:
            activation = activations.name_of(getattr(layer, argument))
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
            if not self.chooses(layer, named):
                reason = "not chosen by `where`"
            if reason is not None:
                self.left_alone.append((place, activation, reason))
                continue
            suffix = "state_spin" if argument == "activation" and len(arguments) > 1 else "spin"
            spin = self.spin(layer, activation, self.new_name(layer.name, suffix))
            spin.build((None, units))
            self.used |= named
            changes[argument] = spin
            self.replaced.add((id(layer.cell), id(getattr(layer, argument))))
            note = "spin neuron in the cell; layer unrolled"
            self.converted.append((place, activation, None, note))
        if changes:
            changes["unroll"] = True
        return copies.of(layer, **changes)

    # --- the rest ---------------------------------------------------------------------------

    def report(self):
        """The `ConversionReport`; it notes every neuron that has several uses."""
        shared = {}
        for key, count in self.uses.items():
            old, path, _ = self.origins.get(key, (None, "", False))
            if count > 1 and getattr(old, "weights", ()):
                shared[path] = f"; one neuron, like the weights, for all {count} uses of {old.name}"
        converted = []
        for place, activation, spin, note in self.converted:
            note = note if spin is None else f"{spin.name} {note}"
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


def _two_ranks(layer, spin):
    return ValueError(
        f"Layer {layer.name!r} is called both inside TimeDistributed and outside it. Its spin "
        f"neuron with shared_axes = {spin.shared_axes} takes inputs with one number of axes only. "
        "Use `where` to exclude this layer."
    )


def _steps(layer):
    """Number of time steps that a recurrent layer is built for, or `None` if it is unknown."""
    try:
        return layer.input.shape[1]
    except (AttributeError, ValueError):  # part of no graph, or of several
        return None
