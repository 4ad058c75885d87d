"""All use of Keras's private API, in one place.

Tested with Keras 3.14 and 3.15; `tests/test_keras.py` has one test for each part used here. Every
function says what it finds; Keras has no public name for it.
"""

import sys

import keras
from keras import ops


def all_layers(layer):
    """A layer and every layer in it, however deep; Keras's public API misses activations."""
    return layer._flatten_layers()


def inner_layers(layer):
    """The layers directly inside a layer, activations included; of an operation, none."""
    return list(getattr(layer, "_layers", ()))


def operation_of(tensor):
    """The layer or operation of a graph that computes a tensor."""
    return tensor._keras_history.operation


def input_structure(model):
    """The inputs of a functional model as they were given, or `None` if it does not know them.

    Keras's public `inputs` has lost the names of a dictionary and the nesting.
    """
    return getattr(model, "_inputs_struct", None)


def output_shape_of(function):
    """The argument `output_shape` of a `Lambda` layer, which its configuration may not hold."""
    return function._output_shape


def compile_arguments(model):
    """The arguments of `compile` as the caller gave them, by name.

    Keras's public `get_compile_config` holds them in serialised form, in which functions and
    objects that are not registered are lost.
    """
    return model._compile_config.config


def has_mask(symbol) -> bool:
    """Whether a tensor of a graph has a mask."""
    return getattr(symbol, "_keras_mask", None) is not None


def begin_at(model, epoch):
    """Let a `fit` whose training begins start at another epoch; `None` takes that back.

    Keras's own `BackupAndRestore` sets the same attribute.
    """
    model._initial_epoch = epoch


def outermost(layer):
    """The layer or model that the user called, and whose call led to the call of this layer."""
    return getattr(layer._get_call_context(), "entry_layer", None)


def forward_pass(layer):
    """An object that identifies the current forward pass; every pass has another one."""
    if keras.backend.backend() == "jax":  # Keras calls the layers of a model one by one there
        from keras.src.backend import get_stateless_scope

        return get_stateless_scope() or layer._get_call_context()
    return layer._get_call_context()


def is_whole(forward, model) -> bool:
    """Whether a forward pass, as `forward_pass` returns it, runs the whole model."""
    mapping = getattr(forward, "state_mapping", None)
    if mapping is not None:  # JAX
        return len(mapping) >= len(model.trainable_variables) + len(model.non_trainable_variables)
    return getattr(forward, "entry_layer", None) is model


def enclosing_calls():
    """The calls of layers that are running, innermost first: `(layer, masks of its inputs)`.

    Keras keeps no record of these calls, so they are read from Python's call stack.
    """
    call, frame = _code_of_call(), sys._getframe(1)
    while frame is not None:
        if frame.f_code is call:
            here = frame.f_locals
            given = keras.tree.flatten((here["args"], here["kwargs"]))
            masks = [here["kwargs"].get("mask"), *map(_mask, given)]
            yield here["self"], [m for m in keras.tree.flatten(masks) if m is not None]
        frame = frame.f_back


def enclosing_functions():
    """Module and name of every Python function that is running, innermost first."""
    frame = sys._getframe(1)
    while frame is not None:
        yield frame.f_globals.get("__name__"), frame.f_code.co_name
        frame = frame.f_back


def enclosing_map():
    """Name of the running `keras.ops` function that calls a function per element, or `None`.

    On TensorFlow such an operation calls the function once more than there are elements.
    """
    maps = ("associative_scan", "map", "scan", "vectorized_map")
    names = (name for module, name in enclosing_functions() if module == "keras.src.ops.core")
    return next((name for name in names if name in maps), None)


def is_rematerialized() -> bool:
    """Whether the running code will run again for the gradient (`keras.remat`, `RematScope`)."""
    again = {
        ("tensorflow.python.ops.custom_gradient", "inner"),
        ("torch.utils.checkpoint", "checkpoint"),
    }
    return not again.isdisjoint(enclosing_functions())


def is_legacy_file() -> bool:
    """Whether Keras is writing or reading an `.h5` file of the old format.

    Such a file holds the bare weights of a layer in a row. Keras does not tell a layer about it;
    only the call stack shows it.
    """
    return any((m or "").endswith(".legacy_h5_format") for m, _ in enclosing_functions())


def is_fitting() -> bool:
    """Whether this is called from inside `fit`, as callbacks are."""
    return any(
        name == "fit" and (module or "").endswith(".trainer")
        for module, name in enclosing_functions()
    )


def _code_of_call():
    function = keras.layers.Layer.__call__
    return getattr(function, "__wrapped__", function).__code__


def _mask(value):
    from keras.src.backend import get_keras_mask

    return get_keras_mask(value) if ops.is_tensor(value) else None


def make_step(model, phase, around, args=()):
    """Keras's compiled step of a model, with a function around the step.

    Args:
        model: compiled model.
        phase: `"train"` or `"test"`.
        around: function `(step, *args)` that calls `step(*args)` and returns its result.
        args: arguments of the step that is about to run. Default `()`: no fit is running.
    """
    step = getattr(model, f"{phase}_step")

    def observed(self, *args):
        return around(step, *args)

    # Keras makes the step from `self`. A twin that shares everything with the model except its
    # step leaves the model unchanged.
    double = type(type(model).__name__, (type(model),), {f"{phase}_step": observed})
    twin = object.__new__(double)
    vars(twin).update(vars(model))
    # On JAX with a distribution, Keras asks every variable on which device its value is.
    lent = put_back(model, args)
    try:
        getattr(twin, f"make_{phase}_function")(force=True)
    finally:
        for variable in lent:
            variable._value = None
    return getattr(twin, f"{phase}_function")


def metric_direction(model, key):
    """Whether a metric is better when it goes `"up"` or `"down"`; `None` if it does not say.

    Args:
        model: model after its first step.
        key: key of the logs, without `val_`.
    """
    metrics = {getattr(metric, "name", None): metric for metric in model.metrics}
    compiled = getattr(model, "_compile_metrics", None)
    if compiled is not None and compiled.built:
        metrics |= zip(compiled.result(), compiled.metrics)  # the keys name the outputs, too
    return getattr(metrics.get(key), "_direction", None)


def result_with(model, result, updates):
    """The result of a step, after some variables that are not trained have been updated.

    Args:
        model: the model that the step belongs to.
        result: result of the step; on JAX the logs and the new state of the variables.
        updates: `(variable, function of its value)` pairs.
    """
    if keras.backend.backend() != "jax":
        for variable, update in updates:
            variable.assign(update(variable.value))
        return result
    logs, state = result
    return logs, _with_values(model, state, updates)


def arguments_with(model, args, values):
    """The arguments of a step, after some variables have been set to given values."""
    if keras.backend.backend() != "jax":
        for variable, value in values:
            variable.assign(value)
        return args
    state, *rest = args
    updates = [(v, lambda old, new=new: ops.convert_to_tensor(new, old.dtype)) for v, new in values]
    return _with_values(model, state, updates), *rest


def put_back(model, args):
    """Put the values back that a fit on JAX took out of a model; returns those variables."""
    if keras.backend.backend() != "jax" or not args:
        return []
    given = []
    own = [model.trainable_variables, model.non_trainable_variables]
    own += [model.optimizer.variables, model.metrics_variables][-(len(args[0]) - 2) :]
    for variables, values in zip(own, args[0]):
        for variable, value in zip(variables, values):
            if variable._value is None and not value.is_deleted():
                variable._value = value
                given.append(variable)
    return given


def _with_values(model, state, updates):
    """The state of a step on JAX with some values updated.

    The state is a tuple of lists; the second list holds the variables that are not trained.
    """
    places = {id(variable): k for k, variable in enumerate(model.non_trainable_variables)}
    values = list(state[1])
    for variable, update in updates:
        place = places[id(variable)]
        values[place] = update(values[place])
    return (state[0], values, *state[2:])
