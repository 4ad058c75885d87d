"""Search over devices and networks with keras-tuner, for accuracy and energy at once.

Import it by name, `import spinkeras.tuning`: it needs keras-tuner, which `import spinkeras` does
not load. The pieces, each usable alone:

    spin_search_space   the choices of a spin neuron, inside a user's own build(hp)
    EnergyObjective     one score out of accuracy and energy, at a stated exchange rate
    SpinHyperModel      a keras-tuner hypermodel out of both
    dense_classifier    a network for it
    energy_front        the trials of a search that no other trial beats in both
"""

import copy
import math

import keras
import keras_tuner as kt

from spinkeras import checks
from spinkeras.conversion import to_spin
from spinkeras.devices import get_device, presets
from spinkeras.metering import EnergyTracker
from spinkeras.neuron import SpinNeuron, spin_neurons

_TRAIN = {
    "none": (),
    "pulse_width": ("pulse_width",),
    "anisotropy": ("anisotropy",),
    "both": ("pulse_width", "anisotropy"),
}
_SHARING = ("channel", "layer")


# --- the search space ----------------------------------------------------------------------------


def spin_search_space(
    hp,
    device=None,
    shortest_pulse=(2e-9, 10e-9),
    window=(1.5, 10.0),
    train=("none", "pulse_width", "both"),
    sharing=("channel", "layer"),
    gain=(0.3, 3.0),
    recenter=True,
    pulses=None,
    rank=2,
    prefix="spin",
):
    """Declare the choices of a spin neuron to keras-tuner; returns arguments of `SpinNeuron`.

    The pulse widths of a neuron may move in `[t, min(t * window, longest)]`, with `longest` the
    longest pulse of the device (s), and start at `t`. The current scale is `gain` times the one at
    which the untrained neuron has slope 1/4, so that it means the same for every device and pulse:

        current_scale = gain / (4 dP/dI)                                        [A per unit input]

    An argument with several values is searched; one value is fixed and does not take a dimension.
    Every hyperparameter is named `<prefix>_<argument>`; call this once for every group of layers
    that shall differ, with different prefixes.

    Args:
        hp: `keras_tuner.HyperParameters`.
        device: preset name, `MTJDevice`, or a sequence of preset names to choose from. Default
            `None`: all presets.
        shortest_pulse: s, `(lowest, highest)` for a logarithmic range, or one value. It has to
            lie inside the pulse range of every device. Default 2e-9 to 10e-9.
        window: ratio of the longest to the shortest pulse, > 1, `(lowest, highest)` for a
            logarithmic range, or one value. Default 1.5 to 10.
        train: which knobs to train, any of `"none"`, `"pulse_width"`, `"anisotropy"`, `"both"`.
        sharing: `"channel"` (a knob per channel) or `"layer"` (one for all neurons), or both.
        gain: slope of the untrained neuron in units of 1/4, > 0, `(lowest, highest)` for a
            logarithmic range, or one value. Default 0.3 to 3. A signed neuron (`bipolar`) is twice
            as steep: it has slope 1 at gain 2.
        recenter: `True`, `False` or both to choose from. Default `True`.
        pulses: pulses per inference, an integer or several to choose from. The neuron then always
            answers with drawn bits (`output="always_sampled"`), so that accuracy and energy both
            feel the choice. Default `None`: expected values, the energy of one pulse.
        rank: axes of the neuron's input, the batch included, for `sharing="layer"`: 2 behind a
            dense layer, 4 behind a two-dimensional convolution. Default 2. A network with neurons
            of several ranks needs one space (and prefix) for each, or `sharing="channel"`.
        prefix: start of the names. Default `"spin"`.

    Returns:
        Dictionary of arguments for `SpinNeuron` or `to_spin`.

    Raises:
        ValueError: for unknown choices and for ranges that a device cannot do.

    Example:

    >>> import keras_tuner, spinkeras
    >>> from spinkeras.tuning import spin_search_space
    >>> hp = keras_tuner.HyperParameters()
    >>> neuron = spinkeras.SpinNeuron(**spin_search_space(hp, device="stt_reference"))
    >>> sorted(hp.values)
    ['spin_gain', 'spin_sharing', 'spin_shortest_pulse_ns', 'spin_train', 'spin_window']
    """
    checks.text("prefix", prefix, "a text, the start of the names")
    rank = checks.whole("rank", rank, 2, 32, "the axes of the neuron's input, the batch included")
    names = presets() if device is None else device
    device = get_device(_choice(hp, f"{prefix}_device", names, None))
    low, high = _ends("shortest_pulse", shortest_pulse, "s", 1e-12, 1.0)
    for candidate in (
        map(get_device, names) if isinstance(names, (list, tuple)) else (get_device(names),)
    ):
        shortest, longest = candidate.pulse_width_range
        if not (shortest * (1 - 1e-9) <= low and high < longest):
            raise ValueError(
                f"shortest_pulse = ({low:g}, {high:g}) s does not lie inside the pulse range of "
                f"{candidate.name or 'the device'}, [{shortest:g}, {longest:g}) s. Narrow it, or "
                "give the device another range: device.replace(pulse_width_range=...)."
            )
    window = _ends("window", window, "(a ratio)", 1e-3, 1e9)
    if window[0] <= 1:
        raise ValueError(f"window = {window} has to be > 1: longest over shortest pulse.")
    pulse = 1e-9 * _range(hp, f"{prefix}_shortest_pulse_ns", (low * 1e9, high * 1e9))
    ratio = _range(hp, f"{prefix}_window", window)
    scale = _range(hp, f"{prefix}_gain", _ends("gain", gain, "(a ratio)", 1e-9, 1e6))
    knobs = _choice(hp, f"{prefix}_train", train, tuple(_TRAIN))
    shared = _choice(hp, f"{prefix}_sharing", sharing, _SHARING)
    recenter = _choice(hp, f"{prefix}_recenter", recenter, (True, False))

    longest = min(pulse * ratio, device.pulse_width_range[1])
    device = device.replace(pulse_width_range=(pulse, longest), nominal_pulse_width=pulse)
    settings = {
        "device": device,
        "train": _TRAIN[knobs],
        "shared_axes": None if shared == "channel" else tuple(range(1, rank)),
        "recenter": bool(recenter),
    }
    if pulses is not None:
        several = pulses if isinstance(pulses, (list, tuple)) else [pulses]
        several = [checks.whole("pulses", count, 1, 1_000_000) for count in several]
        settings["pulses"] = _choice(hp, f"{prefix}_pulses", several, several)
        settings["output"] = "always_sampled"
    settings["current_scale"] = scale * SpinNeuron(device=device, train=()).current_scale
    return settings


def _choice(hp, name, values, allowed):
    """One of several values as a hyperparameter, or the single value itself."""
    several = list(values) if isinstance(values, (list, tuple)) else [values]
    kinds = {type(value) for value in allowed or ()}
    unknown = [
        value for value in several if kinds and not (type(value) in kinds and value in allowed)
    ]
    if unknown or not several:
        found = checks.shown(unknown) if unknown else "nothing"
        raise ValueError(f"{name}: {found} to choose from; use any of {allowed or presets()}.")
    if allowed is None and len(several) > 1 and not all(isinstance(v, str) for v in several):
        raise ValueError(f"{name}: give preset names to choose from; keras-tuner stores text.")
    return several[0] if len(several) == 1 else hp.Choice(name, several)


def _ends(name, value, unit, low, high, whole=False):
    """The two ends of a range of positive numbers within bounds, the same for one number."""
    ends = value if isinstance(value, (list, tuple)) else (value, value)
    if len(ends) == 2:
        if whole:
            lower, upper = (checks.whole(name, end, low, high) for end in ends)
        else:
            lower, upper = (checks.number(name, end, unit, low, high) for end in ends)
        if lower <= upper:
            return lower, upper
    raise ValueError(
        f"{name} = {checks.shown(value)} {unit} has to be one number > 0 or a pair (lowest, "
        "highest)."
    )


def _range(hp, name, ends):
    low, high = ends
    if low == high:
        return low
    return hp.Float(name, min_value=low, max_value=high, sampling="log")


# --- the objective -------------------------------------------------------------------------------


class EnergyObjective(keras.callbacks.Callback):
    """One score out of a metric and the energy, at a stated exchange rate.

    The score gives up `delta` of the metric for every `rate`-fold saving of energy:

        score = metric - delta * ln(E / E_ref) / ln(rate)      direction "max", to be maximised
        score = metric + delta * ln(E / E_ref) / ln(rate)      direction "min", to be minimised

    with `E` the energy per inference in pJ. `E_ref` only shifts the score and cannot change which
    trial wins. (AutoQKeras' forgiving factor multiplies the accuracy instead, so that the same
    saving is worth less at a low accuracy, and the reference matters.) keras-tuner can only add
    logged values as they stand, which would weigh pJ against accuracy by their units.

    As a callback it writes the score into the logs of every epoch, from the logs that
    `EnergyTracker` wrote, so it has to stand behind the tracker; `objective` is what the tuner
    needs. The tuner then keeps the epoch with the best score, with metric and energy of that epoch.

    Args:
        delta: worth of a `rate`-fold saving in units of the metric, 0 to 1e12. Default 0.01: one
            percentage point of accuracy.
        rate: factor of energy that is worth `delta`, > 1, to 1e12. Default 2.
        metric: key of the metric in the logs. Default `"val_accuracy"`.
        energy: key of the energy in the logs. Default `"val_energy_pj"`; `"energy_pj"` without
            validation data.
        reference_pj: `E_ref` in pJ, 1e-12 to 1e12. Default 1.
        direction: `"max"` (default) for a metric that should be large, `"min"` for a loss.
        name: key of the score in the logs. Default `"energy_score"`.

    Raises:
        ValueError: for arguments outside their range, and in training for keys that are not in
            the logs and for an energy that is not > 0.

    Example:

    >>> from spinkeras.tuning import EnergyObjective
    >>> objective = EnergyObjective(delta=0.01, rate=2.0)  # 1 point of accuracy for half the energy
    >>> round(objective.score(0.95, 8.0), 4), round(objective.score(0.94, 4.0), 4)
    (0.92, 0.92)
    """

    def __init__(
        self,
        delta=0.01,
        rate=2.0,
        metric="val_accuracy",
        energy="val_energy_pj",
        reference_pj=1.0,
        direction="max",
        name="energy_score",
    ):
        super().__init__()
        of_metric, factor = "(units of the metric)", "(a factor of energy)"
        self.delta = checks.number("delta", delta, of_metric, 0.0, 1e12, "0.01 is one point of 100")
        self.rate = checks.number("rate", rate, factor, 1 + 1e-6, 1e12, "2 halves the energy")
        self.metric = checks.text("metric", metric, "a key of the logs")
        self.energy = checks.text("energy", energy, "a key of the logs")
        self.reference_pj = checks.number("reference_pj", reference_pj, "pJ", 1e-12, 1e12)
        self.direction = checks.choice("direction", direction, ("max", "min"))
        self.name = checks.text("name", name, "a key for the logs")

    @property
    def objective(self):
        """The `keras_tuner.Objective` to give to a tuner."""
        return kt.Objective(self.name, self.direction)

    def score(self, metric, energy_pj):
        """Score of a metric and an energy in pJ."""
        if not energy_pj > 0:
            raise ValueError(
                f"An energy of {energy_pj} pJ has no logarithm; was the model trained with an "
                "EnergyTracker in front of EnergyObjective?"
            )
        cost = self.delta * math.log(energy_pj / self.reference_pj) / math.log(self.rate)
        return float(metric - cost if self.direction == "max" else metric + cost)

    def on_epoch_end(self, epoch, logs=None):
        logs = {} if logs is None else logs
        missing = [key for key in (self.metric, self.energy) if key not in logs]
        if missing:
            raise kt.errors.FatalValueError(
                f"EnergyObjective found no {missing} in the logs, only {sorted(logs)}. Put "
                "EnergyTracker() before it in the list of callbacks, give fit validation data for "
                "val_ keys, and compile the model with the metric."
            )
        logs[self.name] = self.score(logs[self.metric], logs[self.energy])


def energy_front(tuner, metric="val_accuracy", energy="val_energy_pj", direction="max"):
    """The finished trials that no other finished trial beats in metric and in energy.

    Args:
        tuner: keras-tuner tuner after a search with `EnergyTracker`.
        metric: key of the metric in the logs. Default `"val_accuracy"`.
        energy: key of the energy in the logs. Default `"val_energy_pj"`.
        direction: `"max"` (default) or `"min"`: which metric is better.

    Returns:
        List of dictionaries in the order of energy: `trial_id`, `metric`, `energy_pj` (pJ per
        inference), `values` (hyperparameters), `on_front`. All finished trials are in it;
        `on_front` marks the front. Metric and energy are those of the best epoch by the score.

    Raises:
        ValueError: if no finished trial has both keys.
    """
    sign = 1.0 if checks.choice("direction", direction, ("max", "min")) == "max" else -1.0
    rows = []
    for trial in tuner.oracle.get_best_trials(10**6):
        if trial.status != "COMPLETED" or not all(map(trial.metrics.exists, (metric, energy))):
            continue
        rows.append(
            {
                "trial_id": trial.trial_id,
                "metric": float(trial.metrics.get_last_value(metric)),
                "energy_pj": float(trial.metrics.get_last_value(energy)),
                "values": dict(trial.hyperparameters.values),
            }
        )
    if not rows:
        raise ValueError(f"No finished trial of this tuner has both {metric!r} and {energy!r}.")
    rows.sort(key=lambda row: (row["energy_pj"], -sign * row["metric"]))
    best = -math.inf
    for row in rows:
        row["on_front"] = sign * row["metric"] > best
        best = max(best, sign * row["metric"])
    return rows


# --- the hypermodel ------------------------------------------------------------------------------


class SpinHyperModel(kt.HyperModel):
    """keras-tuner hypermodel that searches spin neurons for a network.

    It declares `spin_search_space`, builds the network with it, and trains with `EnergyTracker`
    and the objective in front of the other callbacks.

    Args:
        network: a function `network(hp, spin)` that returns a compiled model; `spin(**changes)`
            makes one `SpinNeuron` with the settings of the trial. Or a compiled functional or
            sequential model, which `to_spin` converts in every trial, with its weights. For a
            plain classifier see `dense_classifier`.
        objective: `EnergyObjective`. Default `EnergyObjective()`.
        assumptions: `EnergyAssumptions` of the tracker.
        **space: arguments of `spin_search_space`.

    Raises:
        ValueError: from `build` for a model that is not compiled or has no spin neuron, and
            where `rank` is not that of a neuron's input and `sharing="layer"` is tried.

    Example:

    >>> import keras_tuner, spinkeras
    >>> from spinkeras.tuning import SpinHyperModel, dense_classifier
    >>> hypermodel = SpinHyperModel(dense_classifier((64,), 10), device="stt_reference")
    >>> model = hypermodel.build(keras_tuner.HyperParameters())
    >>> len(spinkeras.spin_neurons(model))
    1

    A search is then `kt.RandomSearch(hypermodel, objective=hypermodel.objective.objective, ...)`.
    """

    def __init__(self, network, objective=None, assumptions=None, **space):
        super().__init__()
        if not callable(network):
            raise ValueError(
                f"network has to be a function (hp, spin) or a model; got {checks.shown(network)}."
            )
        self.network = network
        self.objective = EnergyObjective() if objective is None else objective
        self.assumptions = assumptions
        self.space = space

    def build(self, hp):
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
            raise ValueError("The network has no SpinNeuron; put spin() where an activation goes.")
        shared = settings["shared_axes"]
        split = [
            neuron.name
            for neuron in neurons
            if shared and neuron.shared_axes == shared and neuron.built
            if neuron.pulse_width.size > 1
        ]
        if split:
            raise kt.errors.FatalValueError(
                f'sharing="layer" does not give one knob to {split}, whose inputs have more than '
                f"rank = {len(shared) + 1} axes (the batch included). Set rank to their number, or "
                'sharing="channel" for a network that mixes ranks.'
            )
        return model

    def fit(self, hp, model, *args, callbacks=(), **kwargs):
        first = [EnergyTracker(self.assumptions), copy.copy(self.objective)]
        return model.fit(*args, callbacks=[*first, *callbacks], **kwargs)


def dense_classifier(
    input_shape, classes, hidden=(16, 64), hidden_layers=1, learning_rate=(1e-3, 3e-2)
):
    """Network function for `SpinHyperModel`: dense layers with spin neurons, softmax output.

    Args:
        input_shape: shape of one sample, such as `(784,)` or `(28, 28)`; it is flattened.
        classes: number of classes, >= 2.
        hidden: neurons in a hidden layer, `(lowest, highest)` or one number. Default 16 to 64.
        hidden_layers: number of hidden layers, or a pair. Default 1.
        learning_rate: of Adam, `(lowest, highest)` or one number. Default 1e-3 to 3e-2.

    Returns:
        Function `network(hp, spin)`; the model takes integer labels and reports accuracy.
    """

    checks.whole("classes", classes, 2, 10**6)
    hidden = _ends("hidden", hidden, "neurons", 1, 10**6, whole=True)
    hidden_layers = _ends("hidden_layers", hidden_layers, "layers", 1, 10**6, whole=True)
    learning_rate = _ends("learning_rate", learning_rate, "(a step)", 1e-12, 1e6)

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
            keras.optimizers.Adam(_range(hp, "learning_rate", learning_rate)),
            "sparse_categorical_crossentropy",
            metrics=["accuracy"],
        )
        return model

    return network
