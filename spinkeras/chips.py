"""Measure a trained network on many simulated chips: accuracy, yield, energy, sensitivity."""

import dataclasses
import hashlib
import json
import math
import pathlib

import keras
import numpy as np
from keras import ops
from scipy import stats

from spinkeras import energy
from spinkeras.neuron import spin_neurons
from spinkeras.variability import CAUSES, ChipLayer, ChipSpread


class _MountedChips:
    """Several chips in a layer at once: the batch holds the samples of each in turn."""

    def __init__(self, layers, spread, cause, pulses, generator):
        self.layers = layers  # {id(layer): ChipLayer of NumPy arrays with a leading chip axis}
        self.spread, self.cause = spread, cause
        self.pulses, self.generator = pulses, generator
        self.energy = 0.0

    def respond(self, layer, inputs):
        """What the devices of every chip answer to its part of the batch."""
        factors = self.layers[id(layer)]
        chips = len(factors.current)
        spare = len(inputs.shape) - (factors.current.ndim - 1)
        factors = ChipLayer(
            *(
                ops.convert_to_tensor(f.reshape(chips, *(1,) * spare, *f.shape[1:]), inputs.dtype)
                for f in factors
            )
        )
        shaped = ops.reshape(inputs, (chips, -1, *inputs.shape[1:]))
        bias, probability = layer.response(shaped, factors, self.spread, self.cause)
        self._add_energy(layer, bias + shaped * layer.current_scale, probability, factors)
        if self.pulses is not None:
            probability = layer.draw(probability, self.pulses, self.generator)
        return ops.reshape(probability, inputs.shape)

    def _add_energy(self, layer, current, probability, factors):
        """pJ of every chip; a resistance `f R` under `I` is that of `R` under `f I`, over f."""
        log_duration, stability = layer.setting(probability.dtype)
        device, f = layer.device, factors.resistance
        width = ops.exp(log_duration) * device.diffusion_time
        anisotropy = stability * (device.thermal_energy / device.volume)
        parts = energy.pulse_energies(
            current * f, width, anisotropy, probability, device, energy.EnergyAssumptions()
        )
        pulses = self.pulses or layer.pulses
        total = parts["gate"] + pulses * ((parts["write"] + parts["read"]) / f + parts["reset"] * f)
        sums = ops.sum(total * 1e12, axis=tuple(range(1, len(total.shape))))
        self.energy = self.energy + ops.convert_to_numpy(sums).astype("float64")


@dataclasses.dataclass(frozen=True)
class ChipReport:
    """Result of `evaluate_chips`.

    Attributes:
        accuracy: array of shape `(chips,)`, fraction of samples right (or the given metric).
        energy_pj: array of shape `(chips,)`, pJ per inference of the spin neurons.
        nominal: accuracy of the network with nominal devices and expected values.
        spread: the `ChipSpread`.
        pulses: pulses per inference that were drawn, or `None` for expected values.
    """

    accuracy: np.ndarray
    energy_pj: np.ndarray
    nominal: float
    spread: ChipSpread
    pulses: int | None

    def chip_yield(self, target, confidence=0.95):
        """Fraction of chips at or above a target, with its exact (Clopper-Pearson) interval."""
        good, count = int(np.sum(self.accuracy >= target)), len(self.accuracy)
        tail = (1 - confidence) / 2
        low = stats.beta.ppf(tail, good, count - good + 1) if good else 0.0
        high = stats.beta.isf(tail, good + 1, count - good) if good < count else 1.0
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
    model,
    x,
    y,
    spread,
    chips=100,
    pulses=None,
    seed=0,
    cause="both",
    layers=None,
    metric=accuracy,
    batch_size=1000,
    chips_at_once=10,
    results_file=None,
    progress=True,
):
    """Accuracy and energy of a trained network on simulated chips.

    Every chip draws its devices from `spread`, seeded by `(seed, chip)`, so that chip number 7 is
    the same whatever else is measured. Several chips go through the network in one batch.

    Args:
        model: Keras model with `SpinNeuron` layers and one output.
        x, y: data as for `model.evaluate`, NumPy arrays (one input).
        spread: `ChipSpread`.
        chips: number of chips, >= 1. Default 100.
        pulses: `None` (default) for expected values, or the pulses per neuron to draw.
        seed: integer.
        cause: `"both"`, or only the `"threshold"` or the `"slope"` of the devices.
        layers: names of the spin layers that are spread; the others stay nominal. Default all.
        metric: function `(y_true, y_pred) -> float`. Default: classification accuracy.
        batch_size: samples per step and chip.
        chips_at_once: chips per step.
        results_file: path of a JSON-lines file that receives every finished group of chips; a
            later call with the same arguments continues from it.
        progress: whether to show a progress bar.

    Returns:
        `ChipReport`.

    Raises:
        ValueError: for a model without spin layers, unknown layer names or a foreign results
            file.
    """
    neurons = spin_neurons(model)
    if not neurons:
        raise ValueError("evaluate_chips found no SpinNeuron in this model.")
    if not isinstance(spread, ChipSpread):
        raise ValueError(f"spread must be a ChipSpread; got {spread!r}.")
    if cause not in CAUSES:
        raise ValueError(f"Unknown cause {cause!r}; choose one of {CAUSES}.")
    if chips < 1 or chips_at_once < 1 or batch_size < 1 or (pulses is not None and pulses < 1):
        raise ValueError("chips, chips_at_once, batch_size and pulses must be at least 1.")
    if len(x) == 0 or len(x) != len(y):
        raise ValueError(f"x and y need one length > 0; got {len(x)} and {len(y)}.")
    names = [layer.name for layer in neurons]
    unknown = set(layers or ()) - set(names)
    if unknown:
        raise ValueError(f"No spin layer is called {sorted(unknown)}; they are {names}.")
    chosen = {id(n) for n in neurons if layers is None or n.name in layers}

    label = _fingerprint(
        model, x, y, spread, pulses, seed, cause, layers, batch_size, chips_at_once
    )
    done = _read_results(results_file, label)
    groups = [range(k, min(k + chips_at_once, chips)) for k in range(0, chips, chips_at_once)]
    bar = keras.utils.Progbar(chips, unit_name="chip", verbose=1 if progress else 0)
    for group in groups:
        if any(chip not in done for chip in group):
            values = _measure(
                model,
                x,
                y,
                neurons,
                chosen,
                spread,
                cause,
                pulses,
                seed,
                group,
                metric,
                batch_size,
            )
            done.update(values)
            if results_file is not None:
                with open(results_file, "a") as file:
                    for chip, pair in values.items():
                        file.write(
                            json.dumps({"label": label, "chip": chip, "values": pair}) + "\n"
                        )
        bar.add(len(group))
    pairs = np.array([done[chip] for chip in range(chips)])
    nominal = metric(y, _predict(model, x, batch_size * chips_at_once))
    return ChipReport(pairs[:, 0], pairs[:, 1], nominal, spread, pulses)


def chip_sensitivity(model, x, y, spread, chips=20, **options):
    """Mean accuracy lost when only one layer varies, and only its threshold or its slope.

    Args:
        model, x, y, spread, chips, **options: as `evaluate_chips`.

    Returns:
        Dictionary from `(layer name, cause)` to the mean loss of accuracy against the nominal
        network, a fraction.
    """
    loss = {}
    for layer in spin_neurons(model):
        for cause in CAUSES:
            report = evaluate_chips(
                model, x, y, spread, chips, cause=cause, layers=[layer.name], **options
            )
            loss[layer.name, cause] = report.nominal - float(report.accuracy.mean())
    return loss


def _measure(model, x, y, neurons, chosen, spread, cause, pulses, seed, chips, metric, batch_size):
    """`{chip: (metric, pJ per inference)}` of a few chips, in one pass over the data."""
    drawn = []
    for chip in chips:
        rng = np.random.default_rng([seed, chip])
        warm = {layer.device.temperature: None for layer in neurons}
        for temperature in warm:
            warm[temperature] = spread.draw_temperature(rng, temperature)
        drawn.append([])
        for layer in neurons:
            temperature = layer.device.temperature
            factors = spread.draw(layer.pulse_width.shape, rng, temperature, warm[temperature])
            if id(layer) not in chosen:
                factors = ChipLayer(
                    *(1 + 0 * f for f in factors[:4]), *(0 * f for f in factors[4:])
                )
            drawn[-1].append(factors)
    stacked = {
        id(layer): ChipLayer(*(np.stack(parts) for parts in zip(*(d[k] for d in drawn))))
        for k, layer in enumerate(neurons)
    }
    generator = keras.random.SeedGenerator(hash((seed, chips[0])) % 2**31)
    mounted = _MountedChips(stacked, spread, cause, pulses, generator)
    outputs = []
    try:
        for layer in neurons:
            layer.chip = mounted
        for start in range(0, len(x), batch_size):
            part = x[start : start + batch_size]
            tiled = np.tile(part, (len(chips),) + (1,) * (part.ndim - 1))
            out = ops.convert_to_numpy(model(tiled, training=False))
            outputs.append(out.reshape(len(chips), len(part), *out.shape[1:]))
    finally:
        for layer in neurons:
            layer.chip = None
    outputs = np.concatenate(outputs, axis=1)
    picojoule = mounted.energy / len(x)
    return {chip: [metric(y, outputs[k]), float(picojoule[k])] for k, chip in enumerate(chips)}


def _predict(model, x, batch_size):
    parts = range(0, len(x), batch_size)
    return np.concatenate(
        [ops.convert_to_numpy(model(x[k : k + batch_size], training=False)) for k in parts]
    )


def _fingerprint(model, x, y, *arguments):
    """Short hash of everything that decides the results, so that a file is not mixed up."""
    digest = hashlib.sha256(repr(arguments).encode())
    for array in (*model.get_weights(), np.asarray(x), np.asarray(y)):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def _read_results(results_file, label):
    if results_file is None or not pathlib.Path(results_file).exists():
        return {}
    done = {}
    lines = pathlib.Path(results_file).read_text().splitlines()
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
            found, chip, values = row["label"], row["chip"], row["values"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            if number == len(lines):  # a killed run; its chips are measured again
                pathlib.Path(results_file).write_text("".join(f"{k}\n" for k in lines[:-1]))
                break
            raise ValueError(f"{results_file}, line {number}: not a result ({error}).") from error
        if found != label:
            raise ValueError(
                f"{results_file}, line {number} belongs to another model, data or setting; use a "
                "new results_file."
            )
        if not all(isinstance(v, (int, float)) and math.isfinite(v) for v in values):
            raise ValueError(f"{results_file}, line {number}: values {values} are not numbers.")
        done[chip] = values
    return done
