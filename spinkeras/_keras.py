"""What Keras offers only privately, in one place.

Read in Keras 3.12 to 3.15; `tests/test_keras.py` says what broke when it breaks.
"""

import sys

import keras
from keras import ops


def all_layers(layer):
    """A layer and every layer in it, however deep. Public names reach no activation."""
    return layer._flatten_layers()


def outermost(layer):
    """The layer or model that the user called, of whose call this layer's is a part."""
    return getattr(layer._get_call_context(), "entry_layer", None)


def forward_pass(layer):
    """An object that stands for the forward pass at hand: another pass, another object."""
    if keras.backend.backend() == "jax":  # which calls the layers of a model one by one
        from keras.src.backend import get_stateless_scope

        return get_stateless_scope() or layer._get_call_context()
    return layer._get_call_context()


def is_whole(forward, model) -> bool:
    """Whether a forward pass, as `forward_pass` gives it, is one of the whole model."""
    mapping = getattr(forward, "state_mapping", None)
    if mapping is not None:  # JAX
        return len(mapping) >= len(model.trainable_variables) + len(model.non_trainable_variables)
    return getattr(forward, "entry_layer", None) is model


def enclosing_calls():
    """The calls of layers that are running, innermost first: `(layer, masks of its inputs)`.

    Keras keeps no record of them, but Python does.
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
    """The one of `keras.ops` that runs and gives its function one element at a time, or `None`.

    On TensorFlow these run the function once more than there are elements.
    """
    maps = ("associative_scan", "map", "scan", "vectorized_map")
    names = (name for module, name in enclosing_functions() if module == "keras.src.ops.core")
    return next((name for name in names if name in maps), None)


def is_rematerialized() -> bool:
    """Whether what runs is run once more for its gradient (`keras.remat`, `RematScope`)."""
    again = {
        ("tensorflow.python.ops.custom_gradient", "inner"),
        ("torch.utils.checkpoint", "checkpoint"),
    }
    return not again.isdisjoint(enclosing_functions())


def is_legacy_file() -> bool:
    """Whether Keras writes or reads an `.h5` file of the old format.

    Such a file holds the bare weights of a layer in a row. Keras gives a layer no say in it, and
    no other sign of it than who asks.
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
    """Keras's compiled step of a model for `phase`, with something around the step.

    Args:
        model: compiled model.
        phase: `"train"` or `"test"`.
        around: function `(step, *args)` that calls `step(*args)` and returns what it returns.
        args: of the step that is about to run. Default: a fit has not begun.
    """
    step = getattr(model, f"{phase}_step")

    def observed(self, *args):
        return around(step, *args)

    # Keras makes the step from `self`. One that shares everything with the model but its step
    # leaves the model alone.
    double = type(type(model).__name__, (type(model),), {f"{phase}_step": observed})
    twin = object.__new__(double)
    vars(twin).update(vars(model))
    # With a distribution, Keras asks every variable on JAX for the place of its value.
    lent = put_back(model, args)
    try:
        getattr(twin, f"make_{phase}_function")(force=True)
    finally:
        for variable in lent:
            variable._value = None
    return getattr(twin, f"{phase}_function")


def updated(model, result, updates):
    """What a step returns, after variables that are not trained got new values in it.

    Args:
        model: the model whose step it is.
        result: of the step: on JAX the logs and the new state of the variables.
        updates: `(variable, function of its value)` pairs.
    """
    if keras.backend.backend() != "jax":
        for variable, update in updates:
            variable.assign(update(variable.value))
        return result
    logs, state = result
    return logs, _with_values(model, state, updates)


def forgotten(model, args, values):
    """The arguments of a step, after variables got values from outside."""
    if keras.backend.backend() != "jax":
        for variable, value in values:
            variable.assign(value)
        return args
    state, *rest = args
    updates = [(v, lambda old, new=new: ops.convert_to_tensor(new, old.dtype)) for v, new in values]
    return _with_values(model, state, updates), *rest


def put_back(model, args):
    """Give a model its values again, which JAX takes out for a fit; the variables that got one."""
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
    """JAX keeps the variables of a step in a tuple of lists; the second: those not trained."""
    places = {id(variable): k for k, variable in enumerate(model.non_trainable_variables)}
    values = list(state[1])
    for variable, update in updates:
        place = places[id(variable)]
        values[place] = update(values[place])
    return (state[0], values, *state[2:])
