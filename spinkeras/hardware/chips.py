"""Evaluate a trained network on many simulated chips: accuracy, yield, energy, sensitivity.

A chip holds all devices of a network; the devices of different chips differ at random.
"""

import dataclasses
import functools
import inspect
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from spinkeras import _keras, _tracing, checks, tables
from spinkeras._typing import PathLike
from spinkeras.energy.meter import PICO, refuse_unseen, traced_energies
from spinkeras.energy.pulse import EnergyAssumptions
from spinkeras.hardware.accuracy import accuracy, classes, fraction_right, loss_of
from spinkeras.hardware.results_file import append_results, fingerprint, identity, read_results
from spinkeras.intervals import clopper_pearson
from spinkeras.layer import core
from spinkeras.layer.members import spin_neurons, unique_names
from spinkeras.layer.observation import Observation, observing
from spinkeras.physics.chip_curve import CAUSES
from spinkeras.physics.spread import ChipSpread, DeviceFactors

_COMPILE = 2**17  # elements per call from which a compiled kernel is faster
_KEEP = 2**29  # most bytes kept of the outputs before the first spin layer


class _Study(Observation):
    """One network and its data, to be evaluated on groups of chips.

    The layers before the first spin layer give the same result on all chips, so they run only
    once. After them the batch holds all samples for the first chip, then for the second, and so on.
    """

    def __init__(self, model, x, batch_size, spread, cause, pulses):
        super().__init__(spin_neurons(model))
        self.spread, self.cause, self.pulses = spread, cause, pulses
        self.electric = bool(spread.resistance or spread.tmr or spread.devices)
        self.before, self.after = _cut(model)
        self.batches = [x[k : k + batch_size] for k in range(0, len(x), batch_size)]
        self.kept, self.room = {}, _KEEP
        self.kernels = {}
        self.generator = keras.random.SeedGenerator(0)
        self.scope = _tracing.scope()
        self.shared = (None, None)

    def measure(self, chips, layers, seed=0):
        """Outputs of shape `(chips, samples, ...)`, and pJ per chip summed over all samples.

        Args:
            chips: number of chips.
            layers: `{id(layer): DeviceFactors with a leading chip axis, NumPy}`; a layer that
                is missing has nominal devices. `None`: nominal devices and expected values in all
                layers, without a measurement of energy.
            seed: integer, seed of the drawn pulses.
        """
        self.chips, self.drawn, self.energy = chips, layers, np.zeros(chips)
        self.generator.state.assign(np.array([seed, 0]))
        outputs = []
        with observing(self):
            for number, batch in enumerate(self.batches):
                signal = self._signal(number, batch)
                tiled = ops.tile(signal, (chips,) + (1,) * (len(signal.shape) - 1))
                self.shared = (tiled, signal)
                answers = keras.tree.flatten(self.after(tiled, training=False))
                if len(answers) != 1:
                    raise ValueError(
                        f"evaluate_chips needs a model with one output; this one has "
                        f"{len(answers)}. Give keras.Model(model.inputs, one of model.outputs)."
                    )
                out = ops.convert_to_numpy(answers[0])
                outputs.append(out.reshape(chips, len(batch), *out.shape[1:]))
        return np.concatenate(outputs, axis=1), self.energy

    def _signal(self, number, batch):
        if number in self.kept:
            return self.kept[number]
        signal = ops.convert_to_tensor(batch)
        if self.before is not None:
            signal = self.before(signal, training=False)
        size = math.prod(signal.shape) * 4
        if size <= self.room:
            self.room -= size
            self.kept[number] = signal
        return signal

    def answer(self, layer, inputs, mask):
        """Output of a layer in which every chip computes its part of the batch."""
        refuse_unseen(self.scope, layer, inputs, mask)
        if self.drawn is None:
            return layer.to_output(layer.response(inputs))
        tiled, signal = self.shared
        one_for_all = inputs is tiled
        split = (1, *signal.shape) if one_for_all else (self.chips, -1, *inputs.shape[1:])
        shaped = ops.reshape(signal if one_for_all else inputs, split)
        factors = self._factors(layer, shaped)
        fixed, rising, probability = self._kernel(layer, shaped)(shaped, *factors)
        shape = (self.chips, *shaped.shape[1:])
        if mask is not None:
            trailing = (1,) * (len(inputs.shape) - len(mask.shape))
            fires = ops.reshape(
                ops.cast(mask, inputs.dtype), (self.chips, -1, *mask.shape[1:], *trailing)
            )
            fixed, rising = fixed * fires, rising * fires
        probability = ops.broadcast_to(probability, shape)
        spent = ops.sum(fixed, axis=tuple(range(1, len(shape)))) + _dot(rising, probability)
        self.energy += ops.convert_to_numpy(spent).astype("float64")
        if self.pulses is not None:
            probability = layer.draw(probability, self.pulses, self.generator)
        return ops.reshape(layer.to_output(probability), inputs.shape)

    def _factors(self, layer, shaped):
        if id(layer) not in self.drawn:
            return ()
        chip = self.drawn[id(layer)]
        spare = (1,) * (len(shaped.shape) - chip.current.ndim)
        return [
            ops.convert_to_tensor(f.reshape(len(f), *spare, *f.shape[1:]), shaped.dtype)
            for f in chip
        ]

    def _kernel(self, layer, shaped):
        if math.prod(shaped.shape[1:]) * self.chips < _COMPILE:
            return functools.partial(self._answer, layer)
        if id(layer) not in self.kernels:
            self.kernels[id(layer)] = core.compiled(functools.partial(self._answer, layer))
        return self.kernels[id(layer)]

    def _answer(self, layer, inputs, *factors):
        """pJ at probability 0, its increase up to probability 1, and the probability.

        All three have a leading chip axis.
        """
        chip = DeviceFactors(*factors) if factors else None
        probability = layer.response(inputs, chip, self.spread, self.cause)
        electric = (chip.resistance, chip.tmr) if chip and self.electric else ()
        ends = ops.reshape(
            ops.convert_to_tensor([0.0, 1.0], inputs.dtype), (2,) + (1,) * len(inputs.shape)
        )
        current, assumptions = layer.current(inputs), EnergyAssumptions()
        parts = traced_energies(layer, current, ends, None, assumptions, self.pulses, electric)
        total = sum(parts.values()) * PICO  # linear in the probability
        return total[0], total[1] - total[0], probability


def _dot(rising, probability):
    """Product summed over all axes but the chip axis; all chips may share one `rising`."""
    chips = probability.shape[0]
    if rising.shape[0] == 1:
        return ops.matmul(ops.reshape(probability, (chips, -1)), ops.reshape(rising, (-1,)))
    return ops.sum(ops.reshape(rising * probability, (chips, -1)), axis=1)


def _cut(model):
    """The model up to its first spin layer and the rest of it, or `(None, model)`.

    A cut is possible if the rest depends on the input only through the input of that spin layer.
    """
    first = next((layer for layer in model.layers if spin_neurons(layer)), None)
    try:
        (source,), (result,) = model.inputs, model.outputs
        before = keras.Model(source, first.input)
        after = keras.Model(first.input, result)
    except (AttributeError, TypeError, ValueError):  # a subclassed model, a path around the cut
        return None, model
    if spin_neurons(before) or not isinstance(first.input, keras.KerasTensor):
        return None, model
    return (None, model) if _keras.has_mask(first.input) else (before, after)  # a cut loses masks


@dataclasses.dataclass(frozen=True)
class ChipReport(tables.Table):
    """Result of `evaluate_chips`. `to_dataframe()` and `to_csv(path)` give one row per chip.

    Attributes:
        accuracy: array of shape `(chips,)`, fraction of correct samples (or the given metric).
        energy_pj: array of shape `(chips,)`, pJ per inference of the spin neurons.
        nominal: accuracy (or metric) of the network with nominal devices and expected values.
        spread: the `ChipSpread`.
        pulses: number of drawn pulses per inference, or `None` for expected values.
        is_fraction: whether `accuracy` is a fraction, as with the default metric, or a value of
            another metric. Default `True`.

    Example:

    >>> import numpy as np, spinkeras
    >>> spread = spinkeras.ChipSpread(stability=0.1)
    >>> report = spinkeras.ChipReport(np.array([0.91, 0.88]), np.array([2.0, 2.1]), 0.92, spread, 1)
    >>> report
    ChipReport(2 chip(s), 1 pulse(s), mean 0.895, nominal 0.92, 2.05 pJ)
    """

    accuracy: np.ndarray
    energy_pj: np.ndarray
    nominal: float
    spread: ChipSpread
    pulses: int | None
    is_fraction: bool = True

    def columns(self) -> dict:
        """One row per chip: its number, its accuracy (or metric) and its energy in pJ.

        Example:

        >>> import numpy as np, spinkeras
        >>> values = np.array([0.91, 0.88]), np.array([2.0, 2.1])
        >>> report = spinkeras.ChipReport(*values, 0.92, spinkeras.ChipSpread(), None)
        >>> report.columns()["chip"], report.columns()["energy_pj"]
        ([0, 1], array([2. , 2.1]))
        """
        name = "accuracy" if self.is_fraction else "metric"
        numbers = range(len(self.accuracy))
        return {"chip": [*numbers], name: self.accuracy, "energy_pj": self.energy_pj}

    def __repr__(self):
        drawn = "expected values" if self.pulses is None else f"{self.pulses} pulse(s)"
        return (
            f"{type(self).__name__}({len(self.accuracy)} chip(s), {drawn}, mean "
            f"{np.mean(self.accuracy):.4g}, nominal {self.nominal:.4g}, "
            f"{np.mean(self.energy_pj):.4g} pJ)"
        )

    def _repr_html_(self):
        import spinkeras

        return spinkeras.cards.chips(self)

    def chip_yield(self, target: float, confidence: float = 0.95) -> tuple[float, float, float]:
        """Fraction of chips at or above a target, with its exact (Clopper-Pearson) interval.

        Args:
            target: accuracy that a good chip needs, a fraction from 0 to 1 (90 % is 0.9), or any
                number for another metric.
            confidence: confidence level of the interval, 0.5 to 0.999999. Default 0.95.

        Returns:
            `(fraction, low, high)`.

        Raises:
            ValueError: for a target or a confidence outside its range.

        Example:

        >>> import numpy as np, spinkeras
        >>> accuracy, energy_pj = np.linspace(0.8, 0.99, 20), np.full(20, 2.0)
        >>> report = spinkeras.ChipReport(accuracy, energy_pj, 0.95, spinkeras.ChipSpread(), None)
        >>> [round(value, 3) for value in report.chip_yield(0.895)]  # 10 of 20 chips
        [0.5, 0.272, 0.728]
        """
        if self.is_fraction:
            hint = "the accuracy is a fraction, 90 % is 0.9"
            target = checks.number("target", target, "(a fraction)", 0.0, 1.0, hint)
        else:
            target = checks.number("target", target, "(units of the metric)")
        confidence = checks.number(
            "confidence", confidence, "(a probability)", 0.5, 0.999999, "95 % is 0.95"
        )
        good, count = int(np.sum(self.accuracy >= target)), len(self.accuracy)
        low, high = clopper_pearson(good, count, confidence)
        return good / count, float(low), float(high)

    def __str__(self):
        a, e = self.accuracy, self.energy_pj
        drawn = "expected values" if self.pulses is None else f"{self.pulses} pulse(s) per neuron"
        values = (a.mean(), a.std(ddof=len(a) > 1), a.min(), a.max(), self.nominal)
        if self.is_fraction:
            mean, sd, low, _, nominal = (f"{100 * value:.2f}" for value in values)
            found = f"accuracy {mean} % (sd {sd}, worst {low}, nominal {nominal})"
        else:  # it is not known whether a high value is a good one
            mean, sd, low, high, nominal = (f"{value:.4g}" for value in values)
            found = f"metric {mean} (sd {sd}, {low} to {high}, nominal {nominal})"
        return (
            f"{len(a)} chips, {drawn}: {found}, energy {e.mean():.4g} pJ "
            f"({e.min():.4g} to {e.max():.4g})"
        )


def evaluate_chips(
    model: keras.Model,
    x: Any,
    y: Any,
    spread: ChipSpread,
    chips: int = 100,
    pulses: int | None = None,
    seed: int = 0,
    cause: str = "all",
    layers: Sequence[str] | None = None,
    metric: Callable[[Any, Any], float] = accuracy,
    batch_size: int = 1000,
    chips_at_once: int = 10,
    results_file: PathLike | None = None,
    progress: bool = True,
) -> ChipReport:
    """Accuracy and energy of a trained network on simulated chips.

    Every chip draws its devices from `spread` with the seed `(seed, chip)`. So chip number 7 has
    the same devices in every call with this seed. Several chips are computed in one batch.

    Args:
        model: Keras model with `SpinNeuron` layers and one output.
        x, y: data as for `model.evaluate`, NumPy arrays (one input).
        spread: `ChipSpread`, how the devices differ.
        chips: number of chips, >= 1. Default 100.
        pulses: number of pulses per neuron to draw, 1 to 1e6. Default `None`: expected values.
        seed: integer >= 0. Default 0.
        cause: which differences count. Default `"all"`. Otherwise only one: the `"threshold"` of
            the devices, their `"slope"`, or the `"faults"` of devices with the nominal curve
            (jitter, ceiling, reading, stuck devices).
        layers: names of the spin layers whose devices differ, numbered as in `energy_report` if
            several have the same; the others stay nominal. Default: all spin layers.
        metric: function `(y_true, y_pred) -> float`, or a `keras.metrics.Metric`, which starts
            anew for every chip. Default: classification accuracy. It takes class numbers and
            one-hot rows, or for a single output labels of 0 and 1 or of -1 and 1. It divides a
            single output at 0.5, or at 0 for labels of -1 and 1, logits and hinge losses.
        batch_size: samples per step and chip. Default 1000.
        chips_at_once: chips per step. Default 10.
        results_file: path of a JSON-lines file to which every finished group of chips is added. A
            later call with the same arguments continues from this file, also after a kill that
            cut the last line. The metric must then be a function or class with a name, by which
            the file is recognised. A chip without a finite result is not written.
        progress: whether to show a progress bar. Default `True`.

    Returns:
        `ChipReport`.

    Raises:
        ValueError: for a model without spin layers, unknown layer names, arguments outside their
            range, a model with several inputs or outputs, labels for which the default metric is
            not known, a metric that does not return a number, a results file that is damaged or
            belongs to other arguments, or a metric without a name together with a results file.

    Example:

    >>> import numpy as np, keras, spinkeras
    >>> model = keras.Sequential([keras.Input((2,)), spinkeras.SpinNeuron(), keras.layers.Dense(2)])
    >>> x, spread = np.eye(2, dtype="float32"), spinkeras.ChipSpread(stability=0.1)
    >>> report = spinkeras.evaluate_chips(model, x, [0, 1], spread, chips=3, progress=False)
    >>> report.accuracy.shape
    (3,)
    """
    neurons = spin_neurons(model)
    if not neurons:
        raise ValueError("evaluate_chips found no SpinNeuron in this model.")
    if len(getattr(model, "inputs", None) or [model]) > 1:
        raise ValueError(
            f"evaluate_chips needs a model with one input; this one has {len(model.inputs)}. Join "
            "them into one array, which the model splits."
        )
    x, y = _data("x", x), _data("y", y, "biufSU")
    if len(x) == 0 or len(x) != len(y):
        raise ValueError(
            f"x and y need the same length > 0; got {len(x)} and {len(y)}. x is one array, not a "
            "list of inputs."
        )
    if not isinstance(spread, ChipSpread):
        raise ValueError(f"spread must be a ChipSpread; got {checks.shown(spread)}.")
    if not isinstance(cause, str) or cause not in CAUSES:
        raise ValueError(f"Unknown cause {checks.shown(cause)}; choose one of {CAUSES}.")
    kinds = (keras.metrics.Metric, keras.losses.Loss)
    if not callable(metric) or (inspect.isclass(metric) and issubclass(metric, kinds)):
        raise ValueError(
            f"metric = {checks.shown(metric)} must be a function (y_true, y_pred) that returns a "
            "number, or a metric of Keras as an object, such as keras.metrics.Accuracy()."
        )
    chips = checks.whole("chips", chips, 1, 10**7)
    chips_at_once = checks.whole("chips_at_once", chips_at_once, 1, 10**7)
    batch_size = checks.whole("batch_size", batch_size, 1, 10**9)
    pulses = None if pulses is None else checks.whole("pulses", pulses, 1, 1_000_000)
    for layer in neurons:
        if pulses is not None:
            layer.refuse_chain(pulses, "on chips")
    seed = checks.whole("seed", seed, 0, 2**63 - 1)
    progress = checks.flag("progress", progress)
    chosen = _chosen(neurons, layers)

    known = None if results_file is None else identity(metric)
    study = _Study(model, x, batch_size, spread, cause, pulses)
    answer = study.measure(1, None)[0][0]
    score, threshold = functools.partial(_score, metric, y), None
    if metric is accuracy:
        wanted, threshold = classes(y, answer, loss_of(model))
        score = functools.partial(fraction_right, wanted=wanted, threshold=threshold)
    nominal = score(answer)
    label, done = None, {}
    if results_file is not None:
        options = (pulses, seed, cause, chosen, batch_size, chips_at_once, threshold)
        label = fingerprint(model, x, y, spread, known, answer, options)
        done = read_results(results_file, label, metric is accuracy)
    bar = keras.utils.Progbar(chips, unit_name="chip", verbose=1 if progress else 0)
    for start in range(0, chips, chips_at_once):
        group = range(start, min(start + chips_at_once, chips))
        if any(chip not in done for chip in group):
            drawn = _draw(neurons, chosen, spread, seed, group)
            outputs, picojoule = study.measure(len(group), drawn, hash((seed, start)) % 2**31)
            values = {
                chip: [score(outputs[k]), float(picojoule[k] / len(x))]
                for k, chip in enumerate(group)
                if chip not in done
            }
            done.update(values)
            if results_file is not None:
                append_results(results_file, label, values)
        bar.add(len(group))
    pairs = np.array([done[chip] for chip in range(chips)])
    return ChipReport(pairs[:, 0], pairs[:, 1], nominal, spread, pulses, metric is accuracy)


def chip_sensitivity(
    model: keras.Model, x: Any, y: Any, spread: ChipSpread, chips: int = 20, **options: Any
) -> dict[tuple[str, str], float]:
    """Mean loss of accuracy if the devices of only one layer differ, and for only one cause.

    Args:
        model, x, y, spread, **options: as in `evaluate_chips`, but without `cause` and `layers`.
            A `results_file` gives one file per layer and cause: `name.jsonl` becomes
            `name-layer-cause.jsonl`.
        chips: number of chips, >= 1. Default 20.

    Returns:
        Dictionary from `(layer name, cause)` to the mean loss of accuracy compared with the
        nominal network, a fraction. Names are numbered as in `energy_report` if several layers
        have the same.

    Raises:
        ValueError: for `cause` or `layers` among the options, and as in `evaluate_chips`.

    Example:

    >>> import numpy as np, keras, spinkeras
    >>> model = keras.Sequential([keras.Input((1,)), spinkeras.SpinNeuron(name="spin")])
    >>> data, nominal = (np.array([[-1.0], [1.0]]), [0, 1]), spinkeras.ChipSpread()
    >>> loss = spinkeras.chip_sensitivity(model, *data, nominal, chips=1, progress=False)
    >>> loss["spin", "threshold"]  # without a spread, nothing is lost
    0.0
    """
    if given := sorted({"cause", "layers"} & options.keys()):
        raise ValueError(
            f"chip_sensitivity varies layer and cause itself; leave out {' and '.join(given)}, or "
            "use evaluate_chips."
        )
    names = unique_names(spin_neurons(model))
    if not names:
        raise ValueError("chip_sensitivity found no SpinNeuron in this model.")
    path, loss = options.pop("results_file", None), {}
    for layer in names:
        for cause in CAUSES:
            if path is not None:
                whole = pathlib.Path(path)
                name = f"{whole.stem}-{layer}-{cause}{whole.suffix}"
                options["results_file"] = whole.with_name(name)
            report = evaluate_chips(
                model, x, y, spread, chips, cause=cause, layers=[layer], **options
            )
            loss[layer, cause] = float(np.mean(report.nominal - report.accuracy))
    return loss


def _chosen(neurons, layers):
    """For every spin layer whether its devices differ, from the names that the caller gave."""
    names = unique_names(neurons)
    if layers is None:
        return [True] * len(names)
    if not isinstance(layers, (list, tuple, set)) or not all(isinstance(k, str) for k in layers):
        raise ValueError(
            f"layers must be a list of names from {names}; got {checks.shown(layers)}."
        )
    if unknown := [name for name in layers if name not in names]:
        raise ValueError(f"No spin layer is called {checks.shown(unknown)}; choose from {names}.")
    return [name in layers for name in names]


def _draw(neurons, chosen, spread, seed, chips):
    """`{id(layer): DeviceFactors}` of the chosen layers, with a leading chip axis."""
    drawn = []
    for chip in chips:
        rng = np.random.default_rng([seed, chip])
        warm = {layer.device.temperature: None for layer in neurons}
        for temperature in warm:
            warm[temperature] = spread.draw_temperature(rng, temperature)
        temperatures = [layer.device.temperature for layer in neurons]
        drawn.append(
            [
                spread.draw(layer.pulse_width.shape, rng, temperature, warm[temperature])
                for layer, temperature in zip(neurons, temperatures)
            ]
        )
    return {
        id(layer): DeviceFactors(*(np.stack(parts) for parts in zip(*layer_chips)))
        for layer, take, layer_chips in zip(neurons, chosen, zip(*drawn))
        if take
    }


def _data(name, values, kinds="biuf"):
    """NumPy array with a first axis for the samples."""
    try:
        found = np.asarray(values)
    except Exception:  # ragged rows
        found = np.empty((), object)
    if found.dtype.kind not in kinds or found.ndim == 0:
        raise ValueError(
            f"{name} = {checks.shown(values)} must be an array with the samples along its first "
            "axis."
        )
    return found


def _score(metric, y, answer):
    if isinstance(metric, keras.metrics.Metric):
        metric.reset_state()  # otherwise it would go on from the chip before
    value = metric(y, answer)
    score = checks.real(value)
    if score is None:
        name = getattr(metric, "__name__", checks.shown(metric))
        raise ValueError(
            f"metric {name} returned {checks.shown(value)}; it must return one number per chip."
        )
    return score
