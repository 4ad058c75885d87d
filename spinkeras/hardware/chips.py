"""Measure a trained network on many simulated chips: accuracy, yield, energy, sensitivity."""

import dataclasses
import functools
import hashlib
import inspect
import json
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops

from spinkeras import checks, files, tables
from spinkeras._typing import PathLike
from spinkeras.energy.meter import refuse_unseen, traced_energies
from spinkeras.energy.pulse import EnergyAssumptions
from spinkeras.intervals import clopper_pearson
from spinkeras.layer import core
from spinkeras.layer.neuron import spin_neurons
from spinkeras.layer.observation import Observation, observing
from spinkeras.layer.steps import Lease
from spinkeras.physics.spread import CAUSES, ChipLayer, ChipSpread

_COMPILE = 2**17  # elements per call from which a compiled kernel pays
_KEEP = 2**29  # bytes of what the layers before the first spin layer answer to the data


class _Study(Observation):
    """One network and its data, to be measured on groups of chips.

    What comes before the first spin layer is the same on all chips and is computed once. From
    there the batch holds the samples of each chip in turn.
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
        self.scope = core.tracing_scope()
        self.shared = (None, None)

    def measure(self, chips, layers, seed=0):
        """Outputs of shape `(chips, samples, ...)` and pJ per chip over all samples.

        Args:
            chips: how many.
            layers: `{id(layer): ChipLayer of NumPy arrays with a leading chip axis}`; a layer that
                is missing has nominal devices. `None`: nominal devices and expected values
                everywhere, energy not measured.
            seed: integer, of the pulses.
        """
        self.chips, self.drawn, self.energy = chips, layers, np.zeros(chips)
        self.generator.state.assign(np.array([seed, 0]))
        outputs = []
        with observing(self):
            for number, batch in enumerate(self.batches):
                signal = self._signal(number, batch)
                tiled = ops.tile(signal, (chips,) + (1,) * (len(signal.shape) - 1))
                self.shared = (tiled, signal)
                out = ops.convert_to_numpy(self.after(tiled, training=False))
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
        """What the devices of every chip answer to its part of the batch."""
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
        """pJ at probability 0, its rise to 1, and the probability, with a leading chip axis."""
        chip = ChipLayer(*factors) if factors else None
        probability = layer.response(inputs, chip, self.spread, self.cause)
        electric = (chip.resistance, chip.tmr) if chip and self.electric else ()
        ends = ops.reshape(
            ops.convert_to_tensor([0.0, 1.0], inputs.dtype), (2,) + (1,) * len(inputs.shape)
        )
        current, assumptions = layer.current(inputs), EnergyAssumptions()
        parts = traced_energies(layer, current, ends, None, assumptions, self.pulses, electric)
        total = sum(parts.values()) * 1e12  # linear in the probability
        return total[0], total[1] - total[0], probability


def _dot(rising, probability):
    """Sum over everything but the chip axis of the product; `rising` may be one for all chips."""
    chips = probability.shape[0]
    if rising.shape[0] == 1:
        return ops.matmul(ops.reshape(probability, (chips, -1)), ops.reshape(rising, (-1,)))
    return ops.sum(ops.reshape(rising * probability, (chips, -1)), axis=1)


def _cut(model):
    """The model up to its first spin layer and from there on, or `(None, model)`.

    Possible where all that the later part sees of the input passes through that one point.
    """
    first = next((layer for layer in model.layers if spin_neurons(layer)), None)
    try:
        (source,), (result,) = model.inputs, model.outputs
        before = keras.Model(source, first.input)
        after = keras.Model(first.input, result)
    except (AttributeError, TypeError, ValueError):  # a subclassed model, a way around that point
        return None, model
    masked = getattr(first.input, "_keras_mask", None) is not None  # a mask would be lost
    if masked or spin_neurons(before) or not isinstance(first.input, keras.KerasTensor):
        return None, model
    return before, after


@dataclasses.dataclass(frozen=True)
class ChipReport(tables.Table):
    """Result of `evaluate_chips`. `to_dataframe()` and `to_csv(path)` give one row per chip.

    Attributes:
        accuracy: array of shape `(chips,)`, fraction of samples right (or the given metric).
        energy_pj: array of shape `(chips,)`, pJ per inference of the spin neurons.
        nominal: accuracy of the network with nominal devices and expected values.
        spread: the `ChipSpread`.
        pulses: pulses per inference that were drawn, or `None` for expected values.
        is_fraction: whether `accuracy` is one, as the default metric's (default `True`), or may
            have any value, as a metric of one's own.
    """

    accuracy: np.ndarray
    energy_pj: np.ndarray
    nominal: float
    spread: ChipSpread
    pulses: int | None
    is_fraction: bool = True

    def columns(self) -> dict:
        """One row per chip: its number, its accuracy (or metric) and its energy in pJ."""
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
            target: least accuracy, a fraction from 0 to 1 (90 % is 0.9); of a metric of one's own
                any number.
            confidence: of the interval, 0.5 to 0.999999. Default 0.95.

        Returns:
            `(fraction, low, high)`.

        Raises:
            ValueError: for a target or a confidence outside its range.
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
        a, e = 100 * self.accuracy, self.energy_pj
        drawn = "expected values" if self.pulses is None else f"{self.pulses} pulse(s) per neuron"
        return (
            f"{len(a)} chips, {drawn}: accuracy {a.mean():.2f} % (sd {a.std(ddof=len(a) > 1):.2f}, "
            f"worst {a.min():.2f}, nominal {100 * self.nominal:.2f}), energy {e.mean():.4g} pJ "
            f"({e.min():.4g} to {e.max():.4g})"
        )


def accuracy(y_true, y_pred):
    """Fraction of samples whose class is right; labels as integers, 0/1 or one-hot rows."""
    y_true = np.asarray(y_true)
    if y_pred.shape[-1] == 1:
        return float(np.mean((y_pred.reshape(len(y_pred)) > 0.5) == y_true.reshape(len(y_true))))
    if y_true.ndim > 1 and y_true.shape[-1] == y_pred.shape[-1]:
        y_true = y_true.argmax(-1)
    return float(np.mean(y_pred.argmax(-1) == y_true.reshape(y_pred.shape[:-1])))


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

    Every chip draws its devices from `spread`, seeded by `(seed, chip)`, so that chip number 7 is
    the same whatever else is measured. Several chips go through the network in one batch.

    Args:
        model: Keras model with `SpinNeuron` layers and one output.
        x, y: data as for `model.evaluate`, NumPy arrays (one input).
        spread: `ChipSpread`.
        chips: number of chips, >= 1. Default 100.
        pulses: `None` (default) for expected values, or the pulses per neuron to draw, 1 to 1e6.
        seed: integer >= 0. Default 0.
        cause: `"all"`, or one alone: the `"threshold"` or the `"slope"` of the devices, or the
            `"faults"` of devices with the nominal curve (jitter, ceiling, reading, stuck devices).
        layers: names of the spin layers that are spread; the others stay nominal. Default all.
        metric: function `(y_true, y_pred) -> float`. Default: classification accuracy.
        batch_size: samples per step and chip.
        chips_at_once: chips per step.
        results_file: path of a JSON-lines file that receives every finished group of chips; a
            later call with the same arguments continues from it, also after a kill, which may have
            cut the last line. The metric must then have a name of its own, to be told from that of
            another file. A chip without a finite result is not written.
        progress: whether to show a progress bar.

    Returns:
        `ChipReport`.

    Raises:
        ValueError: for a model without spin layers, unknown layer names, arguments outside their
            range, a metric that gives no number, a results file that is foreign or damaged, or a
            metric without a name where there is such a file.
    """
    neurons = spin_neurons(model)
    if not neurons:
        raise ValueError("evaluate_chips found no SpinNeuron in this model.")
    x, y = _data("x", x), _data("y", y, "biufSU")
    if len(x) == 0 or len(x) != len(y):
        raise ValueError(f"x and y need one length > 0; got {len(x)} and {len(y)}.")
    if not isinstance(spread, ChipSpread):
        raise ValueError(f"spread must be a ChipSpread; got {checks.shown(spread)}.")
    if not isinstance(cause, str) or cause not in CAUSES:
        raise ValueError(f"Unknown cause {checks.shown(cause)}; choose one of {CAUSES}.")
    if not callable(metric):
        raise ValueError(
            f"metric = {checks.shown(metric)} must be a function (y_true, y_pred) to a number."
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
    names = [layer.name for layer in neurons]
    if layers is not None:
        named = isinstance(layers, (list, tuple, set)) and all(isinstance(k, str) for k in layers)
        unknown = [name for name in layers if name not in names] if named else [layers]
        if unknown:
            raise ValueError(
                f"No spin layer is called {checks.shown(unknown)}; layers is a list of any of "
                f"{names}."
            )
    chosen = [layers is None or name in layers for name in names]

    known = None if results_file is None else _identity(metric)
    study = _Study(model, x, batch_size, spread, cause, pulses)
    answer = study.measure(1, None)[0][0]
    nominal = _score(metric, y, answer)
    label, done = None, {}
    if results_file is not None:
        options = (pulses, seed, cause, chosen, batch_size, chips_at_once)
        label = _fingerprint(model, x, y, spread, known, answer, options)
        done = _read_results(results_file, label, metric is accuracy)
    bar = keras.utils.Progbar(chips, unit_name="chip", verbose=1 if progress else 0)
    for start in range(0, chips, chips_at_once):
        group = range(start, min(start + chips_at_once, chips))
        if any(chip not in done for chip in group):
            drawn = _draw(neurons, chosen, spread, seed, group)
            outputs, picojoule = study.measure(len(group), drawn, hash((seed, start)) % 2**31)
            values = {
                chip: [_score(metric, y, outputs[k]), float(picojoule[k] / len(x))]
                for k, chip in enumerate(group)
                if chip not in done
            }
            done.update(values)
            if results_file is not None:
                _append_results(results_file, label, values)
        bar.add(len(group))
    pairs = np.array([done[chip] for chip in range(chips)])
    return ChipReport(pairs[:, 0], pairs[:, 1], nominal, spread, pulses, metric is accuracy)


def chip_sensitivity(
    model: keras.Model, x: Any, y: Any, spread: ChipSpread, chips: int = 20, **options: Any
) -> dict[tuple[str, str], float]:
    """Mean accuracy lost when only one layer varies, and for one cause alone.

    Args:
        model, x, y, spread, chips, **options: as `evaluate_chips`. A `results_file` gives one
            file per layer and cause: `name.jsonl` becomes `name-layer-cause.jsonl`.

    Returns:
        Dictionary from `(layer name, cause)` to the mean loss of accuracy against the nominal
        network, a fraction.
    """
    path, loss = options.pop("results_file", None), {}
    for layer in spin_neurons(model):
        for cause in CAUSES:
            if path is not None:
                whole = pathlib.Path(path)
                name = f"{whole.stem}-{layer.name}-{cause}{whole.suffix}"
                options["results_file"] = whole.with_name(name)
            report = evaluate_chips(
                model, x, y, spread, chips, cause=cause, layers=[layer.name], **options
            )
            loss[layer.name, cause] = report.nominal - float(report.accuracy.mean())
    return loss


class NewChipEachEpoch(keras.callbacks.Callback):
    """Variation-aware training with one chip per epoch instead of one per step.

    Every spin layer with a `spread` keeps its devices for an epoch. The chip of an epoch depends
    on the layer's seed and the epoch's number alone, so that a run that goes on with
    `fit(initial_epoch=...)` meets the chips it would have met. The training step is not compiled
    again.

    Raises:
        ValueError: when training starts without a spin layer that has a `spread`.

    Example:

    >>> import numpy as np, keras, spinkeras
    >>> neuron = spinkeras.SpinNeuron(spread=spinkeras.ChipSpread(stability=0.1), seed=0)
    >>> model = keras.Sequential([keras.Input((4,)), neuron, keras.layers.Dense(1)])
    >>> model.compile("adam", "mse")
    >>> x, y = np.ones((8, 4)), np.ones((8, 1))
    >>> _ = model.fit(x, y, epochs=2, callbacks=[spinkeras.NewChipEachEpoch()], verbose=0)
    """

    def _layers(self):
        return [layer for layer in spin_neurons(self.model) if layer.spread is not None]

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if not self._layers():
            raise ValueError("NewChipEachEpoch found no SpinNeuron with a spread in this model.")

        held = [layer.held_chip.state for layer in self._layers()]
        self._lease = Lease(self.model, "train", forget=lambda: [(v, np.zeros(2)) for v in held])

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        for layer in self._layers():
            layer.hold_chip(epoch)

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._lease.renew()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._lease.end()


def _draw(neurons, chosen, spread, seed, chips):
    """Factors of the chosen layers, `{id(layer): ChipLayer}` with a leading chip axis."""
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
        id(layer): ChipLayer(*(np.stack(parts) for parts in zip(*layer_chips)))
        for layer, take, layer_chips in zip(neurons, chosen, zip(*drawn))
        if take
    }


def _identity(metric):
    """What tells a metric from another one, in another process too."""
    named = inspect.isfunction(metric) or inspect.isclass(metric)
    if not named or "<" in metric.__qualname__:  # <lambda>, or in the <locals> of a function
        raise ValueError(
            f"metric = {metric!r} cannot be told from another one in a results_file. Give it a "
            "name: a function or class at the top level of a module (def, not lambda, partial or "
            "a method). Or leave results_file out."
        )
    code = getattr(metric, "__code__", None)
    if code is None:
        return metric.__qualname__
    constants = [repr(value) for value in code.co_consts if not inspect.iscode(value)]
    return metric.__qualname__, code.co_code.hex(), code.co_names, constants


def _fingerprint(model, x, y, spread, metric, answer, options):
    """Short hash of everything that decides the results, so that a file is not mixed up.

    The nominal answer of the network, to three digits, stands for its other layers.
    """
    size = [f"{value:.2e}" for value in (np.mean(answer), np.sqrt(np.mean(np.square(answer))))]
    text = [options, spread.get_config(), metric, size]
    tallies = []  # of the energy, which decide nothing here
    for layer in spin_neurons(model):
        config = layer.get_config()
        text.append({key: config[key] for key in sorted(config) if key != "name"})
        knobs = (layer.log_pulse_width, layer.log_anisotropy)
        tallies += [id(v) for v in layer.weights if all(v is not knob for knob in knobs)]
    digest = hashlib.sha256(json.dumps(text, default=repr).encode())
    weights = [ops.convert_to_numpy(v) for v in model.weights if id(v) not in tallies]
    for array in (*weights, x, y):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def _data(name, values, kinds="biuf"):
    """NumPy array with a first axis for the samples."""
    try:
        found = np.asarray(values)
    except Exception:  # ragged rows
        found = np.empty((), object)
    if found.dtype.kind not in kinds or found.ndim == 0:
        raise ValueError(
            f"{name} = {checks.shown(values)} must be an array, with the samples along its first "
            "axis."
        )
    return found


def _score(metric, y, answer):
    value = metric(y, answer)
    score = checks.real(value)
    if score is None:
        name = getattr(metric, "__name__", checks.shown(metric))
        raise ValueError(
            f"metric {name} gave {checks.shown(value)}; it must give one number per chip."
        )
    return score


def _append_results(results_file, label, values):
    rows = [
        {"label": label, "chip": chip, "values": pair}
        for chip, pair in values.items()
        if all(map(math.isfinite, pair))
    ]
    files.append(results_file, [json.dumps(row, allow_nan=False) for row in rows])


def _read_results(results_file, label, is_fraction):
    """`{chip: [metric, pJ]}` from the whole lines of a file; a line that a kill cut is removed."""
    path = pathlib.Path(results_file)
    if not path.exists():
        return {}
    content = path.read_bytes()
    whole, cut = content[: content.rfind(b"\n") + 1], content[content.rfind(b"\n") + 1 :]
    done = {}
    for number, line in enumerate(whole.split(b"\n")[:-1], 1):
        where = f"{path.name}, line {number}"
        if not line.strip():
            continue
        chip, values = _result(line, where, label, is_fraction)
        if not np.allclose(done.setdefault(chip, values), values, rtol=1e-4, atol=0):
            raise ValueError(
                f"{where}: chip {chip} has the values {values} and, further up, {done[chip]}; "
                "delete the wrong line."
            )
    if cut:
        files.write(path, whole)
    return done


def _result(line, where, label, is_fraction):
    """Chip and values of one line."""
    remedy = "delete the line, and its chip is measured again"
    try:
        row = checks.from_json(line, where)
    except ValueError as error:
        raise ValueError(f"{where}: not a result; {remedy}. {error}") from None
    if not isinstance(row, dict) or set(row) != {"label", "chip", "values"}:
        raise ValueError(f"{where}: not a result, which has label, chip and values; {remedy}.")
    if row["label"] != label:
        raise ValueError(
            f"{where} belongs to another model, data or setting; use a new results_file."
        )
    values = row["values"]
    if not isinstance(values, list) or len(values) != 2:
        raise ValueError(
            f"{where}: values = {checks.shown(values)} must be the metric and the energy; {remedy}."
        )
    chip = checks.whole(f"{where}: chip", row["chip"], 0, 10**7 - 1)
    limits = ("(a fraction)", 0.0, 1.0) if is_fraction else ("(units of the metric)",)
    score = checks.number(f"{where}: the metric", values[0], *limits)
    return chip, [score, checks.number(f"{where}: the energy", values[1], "pJ", 0.0)]
