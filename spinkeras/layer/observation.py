"""Observations: objects that watch the calls of spin layers, or replace parts of their result.

An observation is active during a `with` block, in its own thread and for its own layers. Every
layer asks for its active observation when it is called. No layer is changed, so an observation of
one caller cannot affect another caller.
"""

import contextlib
import contextvars

import keras
from keras import ops


class Observation:
    """Base class, which changes nothing; a subclass overrides what it watches or replaces.

    Args:
        layers: the spin layers to observe.
    """

    logistic = staticmethod(ops.sigmoid)

    def __init__(self, layers=()):
        self.layers = list(layers)
        self.asked = set()  # ids of the layers that asked for this observation
        self._covered = {id(layer) for layer in self.layers}

    def covers(self, layer) -> bool:
        return id(layer) in self._covered

    def knobs(self, layer):
        """The weights of the two knobs; NumPy arrays here become constants of the graph."""
        return layer.log_pulse_width, layer.log_anisotropy

    def answer(self, layer, inputs, mask):
        """The output in place of the layer's own, or `None`: then the layer computes it."""

    def see(self, layer, inputs, setting, probability, training, mask):
        """Receives the input, the knobs and the probabilities of every call of a layer."""

    def fraction(self, layer, probability, training, correlation=None):
        """Fraction of the pulses that switched, or its expected value.

        `correlation` is that of successive reads of a free-running junction, otherwise `None`.
        """
        draws = ("always_sampled", "sampled") if training else ("always_sampled",)
        if layer.output_mode in draws:
            return layer.draw(probability, layer.pulses, layer.seed_generator, correlation)
        return probability


class Expected(Observation):
    """Observation under which layers return the probability, for every setting of `output`."""

    def fraction(self, layer, probability, training, correlation=None):
        return probability


_NOTHING = Observation()
_stack: contextvars.ContextVar[tuple["Observation", ...]] = contextvars.ContextVar(
    "spinkeras_observations", default=()
)


def of(layer) -> Observation:
    """The innermost active observation of a layer."""
    for observation in reversed(_stack.get()):
        if observation.covers(layer):
            observation.asked.add(id(layer))
            return observation
    return _NOTHING


@contextlib.contextmanager
def observing(observation):
    """Activate an observation during a `with` block.

    Raises:
        ValueError: at the end, if a layer ran in a graph that was traced before the block, because
            the observation could not see it there.
    """
    token = _stack.set((*_stack.get(), observation))
    try:
        with _hidden(observation) as hidden:
            yield observation
            for layer in hidden():
                raise ValueError(
                    f"Layer {layer.name!r} runs in a tf.function that was traced before, so its "
                    "calls cannot be observed. Call it outside that function, or run functions "
                    "eagerly (tf.config.run_functions_eagerly(True))."
                )
    finally:
        _stack.reset(token)


@contextlib.contextmanager
def _hidden(observation):
    """Yield a function that returns the layers that ran without asking for the observation."""
    if keras.backend.backend() != "tensorflow":
        yield tuple
        return
    from spinkeras._tensorflow import function_inputs

    layers = [layer for layer in observation.layers if layer.built]
    with function_inputs([layer.log_pulse_width.value for layer in layers]) as read:

        def hidden():
            if all(id(layer) in observation.asked for layer in layers):
                return []  # without a look at the graph
            return [layers[k] for k in read() if id(layers[k]) not in observation.asked]

        yield hidden
