"""What else happens when a spin layer is called: who watches, which devices answer, which bits.

An observation holds for the time of a `with`, in its own thread and for its own layers. The layers
ask for it; none of them is changed, so that what one caller watches is out of sight of all others.
"""

import contextlib
import contextvars

import keras
from keras import ops


class Observation:
    """Changes nothing: what a layer does by itself. Others override what they watch or replace.

    Args:
        layers: the spin layers that it is for.
    """

    logistic = staticmethod(ops.sigmoid)

    def __init__(self, layers=()):
        self.layers = list(layers)
        self.met = set()  # the ids of those that asked
        self._covered = {id(layer) for layer in self.layers}

    def covers(self, layer) -> bool:
        return id(layer) in self._covered

    def knobs(self, layer):
        """The two weights of the knobs; as NumPy arrays they become constants of the graph."""
        return layer.log_pulse_width, layer.log_anisotropy

    def answer(self, layer, inputs, mask):
        """The whole output of the layer, or `None`: the layer computes it itself."""

    def see(self, layer, inputs, setting, probability, training, mask):
        """Every call of a layer calls this with its input, its knobs and its probabilities."""

    def fraction(self, layer, probability, training, correlation=None):
        """Fraction of the pulses that switched, or its expected value.

        `correlation`: of the reads of a free-running junction, or `None`.
        """
        draws = ("always_sampled", "sampled") if training else ("always_sampled",)
        if layer.output_mode in draws:
            return layer.draw(probability, layer.pulses, layer.seed_generator, correlation)
        return probability


class Expected(Observation):
    """Nominal devices that give their probability, whatever output the layers are set to."""

    def fraction(self, layer, probability, training, correlation=None):
        return probability


_NOTHING = Observation()
_stack: contextvars.ContextVar[tuple["Observation", ...]] = contextvars.ContextVar(
    "spinkeras_observations", default=()
)


def of(layer) -> Observation:
    """The innermost observation of a layer."""
    for observation in reversed(_stack.get()):
        if observation.covers(layer):
            observation.met.add(id(layer))
            return observation
    return _NOTHING


@contextlib.contextmanager
def observing(observation):
    """Let an observation hold for the time of a `with`.

    Raises:
        ValueError: at the end, if a layer ran where no observation sees it.
    """
    token = _stack.set((*_stack.get(), observation))
    try:
        with _hidden(observation) as hidden:
            yield observation
            for layer in hidden():
                raise ValueError(
                    f"Layer {layer.name!r} runs in a tf.function that was traced before, where its "
                    "calls cannot be seen. Call it outside, or run functions eagerly "
                    "(tf.config.run_functions_eagerly(True))."
                )
    finally:
        _stack.reset(token)


@contextlib.contextmanager
def _hidden(observation):
    """Yields a function that gives the layers which have run without asking."""
    if keras.backend.backend() != "tensorflow":
        yield tuple
        return
    from spinkeras._tensorflow import function_inputs

    layers = [layer for layer in observation.layers if layer.built]
    with function_inputs([layer.log_pulse_width.value for layer in layers]) as read:

        def hidden():
            if all(id(layer) in observation.met for layer in layers):
                return []  # without a look at the graph
            return [layers[k] for k in read() if id(layers[k]) not in observation.met]

        yield hidden
