"""Copies of layers and models: their configuration, their weights and how they were compiled."""

import contextlib

import keras

from spinkeras import _keras
from spinkeras.notices import warn

_Schedule = keras.optimizers.schedules.LearningRateSchedule


def has_graph(layer):
    """Whether a layer is a functional or sequential model, whose graph Keras knows."""
    if isinstance(layer, keras.Sequential):
        return True
    return isinstance(layer, keras.Model) and hasattr(layer, "operations")


def output_names(model):
    """Names of the layers that compute the outputs of a model."""
    if isinstance(model, keras.Sequential):
        return {model.layers[-1].name} if model.layers else set()
    return {_keras.operation_of(tensor).name for tensor in keras.tree.flatten(model.outputs)}


def is_stateless(layer):
    """Whether a layer and the layers inside it have no weights and will not get any."""
    inside = _keras.all_layers(layer)
    return not layer.weights and all(one.built for one in inside if not _keras.inner_layers(one))


def policy_of(operation):
    """Dtype policy for a neuron that replaces an activation.

    For a quantized layer it is the policy that the layer had before it was quantized.
    """
    policy = getattr(operation, "dtype_policy", None)
    if getattr(operation, "quantization_mode", None) is None:
        return policy
    if isinstance(policy, keras.dtype_policies.DTypePolicyMap):
        policy = policy[operation.path]
    return policy.name.split("_from_")[-1]


def config_without(layer, *names):
    """Configuration of a layer without some entries."""
    return {key: value for key, value in layer.get_config().items() if key not in names}


def of(layer, **changes):
    """A new layer, not built, with the same configuration except for the given changes."""
    if type(layer) is keras.layers.Lambda:  # its configuration does not hold the function itself
        return keras.layers.Lambda(
            layer.function,
            output_shape=_keras.output_shape_of(layer),
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


def copy_weights(pairs, replaced):
    """Give new layers the weights of the old ones.

    Args:
        pairs: `(old layer, new layer)` pairs.
        replaced: ids of new layers, and keys of old activations, without a counterpart.
    """
    for old, new in pairs:
        is_layer = isinstance(old, keras.layers.Layer) and not has_graph(old)
        if not is_layer or id(new) in replaced:
            continue
        kept = _kept(old, replaced), _kept(new, replaced)
        for before, after in zip(*kept):
            if after.trainable != before.trainable:
                after.trainable = before.trainable
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


def _kept(layer, replaced):
    """A layer and the layers inside it, without the activations that were replaced."""
    layers = [layer]
    for sub in _keras.inner_layers(layer):
        if not replaced & {id(sub), (id(layer), id(sub))}:
            layers += _kept(sub, replaced)
    return layers


def _own_weights(layer):
    """Weights of a layer without the weights of the layers inside it."""
    inner = {id(weight) for sub in _keras.inner_layers(layer) for weight in sub.weights}
    return [weight for weight in layer.weights if id(weight) not in inner]


@contextlib.contextmanager
def uncompiled(model):
    """Keep Keras from compiling the copy of a model: it would find only registered classes."""
    compiled, model.compiled = model.compiled, False
    try:
        yield
    finally:
        model.compiled = compiled


def compile_like(new, old):
    """Compile a model like another one: the same loss, but a new optimizer and new metrics."""
    try:
        if type(old).compile is not keras.Model.compile:
            new.compile_from_config(old.get_compile_config())
            return
        arguments = _keras.compile_arguments(old) | {"optimizer": old.optimizer}
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
