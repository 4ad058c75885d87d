"""SpinHyperModel: a keras-tuner hypermodel of networks with spin neurons."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import keras
import keras_tuner as kt

from spinkeras import checks
from spinkeras.energy.pulse import EnergyAssumptions, checked_assumptions
from spinkeras.energy.tracker import EnergyTracker
from spinkeras.layer.conversion import to_spin
from spinkeras.layer.members import spin_neurons
from spinkeras.layer.neuron import SpinNeuron
from spinkeras.search.objective import EnergyObjective
from spinkeras.search.space import pick, span, spin_search_space


class SpinHyperModel(kt.HyperModel):
    """keras-tuner hypermodel that searches for the best spin neurons of a network.

    It declares `spin_search_space` and builds the network with the chosen values. It trains with
    `EnergyTracker` and the objective, placed before the other callbacks.

    Args:
        network: a function `network(hp, spin)` that returns a compiled model. In it
            `spin(**changes)` makes one `SpinNeuron` with the settings of the trial. Or a compiled
            functional or sequential model, which `to_spin` converts in every trial, with its
            weights. For a plain classifier see `dense_classifier`.
        objective: `EnergyObjective`. Default `None`: `EnergyObjective()`.
        assumptions: `EnergyAssumptions` of the tracker. Default `None`: `EnergyAssumptions()`.
        **space: arguments of `spin_search_space`.

    Raises:
        ValueError: for a network, objective or assumptions of another kind; from `build` for a
            model that is not compiled or has no spin neuron, and for `sharing="layer"` if `rank`
            differs from that of a neuron's input.

    Example:

    >>> import keras_tuner, spinkeras
    >>> from spinkeras.search import SpinHyperModel, dense_classifier
    >>> hypermodel = SpinHyperModel(dense_classifier((64,), 10), device="stt_reference")
    >>> model = hypermodel.build(keras_tuner.HyperParameters())
    >>> len(spinkeras.spin_neurons(model))
    1

    A search is then `kt.RandomSearch(hypermodel, objective=hypermodel.objective.objective, ...)`.
    """

    def __init__(
        self,
        network: keras.Model | Callable[..., keras.Model],
        objective: EnergyObjective | None = None,
        assumptions: EnergyAssumptions | None = None,
        **space: Any,
    ) -> None:
        super().__init__()
        if not callable(network):
            raise ValueError(
                f"network must be a function (hp, spin) or a model; got {checks.shown(network)}."
            )
        self.network = network
        self.objective = EnergyObjective() if objective is None else objective
        if not isinstance(self.objective, EnergyObjective):
            raise ValueError(
                f"objective = {checks.shown(objective)} must be an EnergyObjective or None."
            )
        self.assumptions = checked_assumptions(assumptions)
        self.space = space

    def build(self, hp: kt.HyperParameters) -> keras.Model:
        settings = spin_search_space(hp, **self.space)
        if isinstance(self.network, keras.Model):
            model = to_spin(self.network, **settings)
        else:

            def spin(**changes):
                return SpinNeuron(**{**settings, **changes})

            model = self.network(hp, spin)
        if not getattr(model, "compiled", False):
            raise ValueError("SpinHyperModel needs a compiled model; call model.compile first.")
        neurons = spin_neurons(model)
        if not neurons:
            raise ValueError(
                "The network has no SpinNeuron; use spin() in place of an activation layer."
            )
        shared = settings["shared_axes"]
        split = [
            neuron.name
            for neuron in neurons
            if shared and neuron.shared_axes == shared and neuron.built
            if neuron.pulse_width.size > 1
        ]
        if split:
            raise kt.errors.FatalValueError(
                f'sharing="layer" does not give one knob to {split}, because their inputs have '
                f"more than rank = {len(shared) + 1} axes (with the batch). Set rank to the number "
                'of axes, or use sharing="channel" for a network with inputs of several ranks.'
            )
        return model

    def fit(
        self,
        hp: kt.HyperParameters,
        model: keras.Model,
        *args: Any,
        callbacks: Sequence[keras.callbacks.Callback] = (),
        **kwargs: Any,
    ) -> keras.callbacks.History:
        first = [EnergyTracker(self.assumptions), copy.copy(self.objective)]
        return model.fit(*args, callbacks=[*first, *callbacks], **kwargs)


def dense_classifier(
    input_shape: tuple[int, ...],
    classes: int,
    hidden: int | tuple[int, int] = (16, 64),
    hidden_layers: int | tuple[int, int] = 1,
    learning_rate: float | tuple[float, float] = (1e-3, 3e-2),
) -> Callable[..., keras.Model]:
    """Network function for `SpinHyperModel`: dense layers with spin neurons, softmax output.

    Args:
        input_shape: shape of one sample, such as `(784,)` or `(28, 28)`; it is flattened.
        classes: number of classes, 2 to 1e6.
        hidden: neurons in a hidden layer, 1 to 1e6, `(lowest, highest)` or one number. Default 16
            to 64.
        hidden_layers: number of hidden layers, 1 to 1e6, `(lowest, highest)` or one number.
            Default 1.
        learning_rate: learning rate of Adam, `(lowest, highest)` or one number. Default 1e-3 to
            3e-2.

    Returns:
        Function `network(hp, spin)`; the model takes integer labels and reports accuracy.

    Raises:
        ValueError: for a number outside its range, and a range whose lowest end is the higher one.

    Example:

    >>> import keras_tuner, spinkeras
    >>> from spinkeras.search import dense_classifier
    >>> network = dense_classifier((8, 8), 10, hidden=32)
    >>> model = network(keras_tuner.HyperParameters(), spinkeras.SpinNeuron)
    >>> len(spinkeras.spin_neurons(model)), model.output_shape
    (1, (None, 10))
    """

    checks.whole("classes", classes, 2, 10**6)
    hidden = span("hidden", hidden, "neurons", 1, 10**6, whole=True)
    hidden_layers = span("hidden_layers", hidden_layers, "layers", 1, 10**6, whole=True)
    learning_rate = span("learning_rate", learning_rate, "(a step)", 1e-12, 1e6)

    def whole(hp, name, ends, sampling):
        low, high = ends
        if low == high:
            return low
        return hp.Int(name, min_value=low, max_value=high, sampling=sampling)

    def network(hp, spin):
        model = keras.Sequential([keras.Input(input_shape), keras.layers.Flatten()])
        units = whole(hp, "hidden", hidden, "log")
        for _ in range(whole(hp, "hidden_layers", hidden_layers, "linear")):
            model.add(keras.layers.Dense(units))
            model.add(spin())
        model.add(keras.layers.Dense(classes, activation="softmax"))
        model.compile(
            keras.optimizers.Adam(pick(hp, "learning_rate", learning_rate)),
            "sparse_categorical_crossentropy",
            metrics=["accuracy"],
        )
        return model

    return network
