"""The runs of the study: a `Run` describes one network, a `Study` stores the results.

The result of every run is added to a file when it is known. A run in the file is never trained
again, so an interrupted study continues where it stopped.
"""

import dataclasses
import json
import math
import os
import pathlib
import sys
import time

import keras
import numpy as np
import tensorflow as tf
from population import Population, single

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from mnist import load_mnist

import spinkeras

BOTH = ("pulse_width", "anisotropy")
WIDTH = ("pulse_width",)
FIXED = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One network, described by all that determines its result.

    Attributes:
        dataset: `"mnist"` or `"digits"`.
        split: `"test"` trains on all training images and measures on the test images;
            `"validation"` leaves out training images and measures on those.
        divisor: pixels (0 to 255) are divided by it.
        batch_size: images per step; 0: all of them.
        steps: number of gradient steps.
        checkpoints: number of measurements, at equal distances, the last one at the end.
        hidden: neurons of the hidden layers.
        train, recenter, knob_scale: as in `SpinNeuron`.
        pulse_width: first or fixed value of the pulse width in s.
        gain: factor on the neuron's default `current_scale`.
        weight_bound: largest absolute weight of a synapse; `None`: no bound.
        batch_norm: a BatchNormalization before every spin neuron.
        output: `output` of the hidden `SpinNeuron`s; the last layer trains on probabilities.
        pulses: numbers of pulses per neuron for which the accuracy of bits is measured at the end.
        budget_pj: limit of an `EnergyBudget`, pJ per inference; `None`: no budget.
        learning_rate: learning rate of gradient descent.
        seed: seed of the weights and of the order of the images.
    """

    dataset: str = "mnist"
    split: str = "test"
    divisor: float = 255.0
    batch_size: int = 128
    steps: int = 4680
    checkpoints: int = 1
    hidden: tuple = (25,)
    train: tuple = FIXED
    recenter: bool = True
    knob_scale: float = 3.0
    pulse_width: float = 2e-9
    gain: float = 1.0
    weight_bound: float | None = None
    batch_norm: bool = False
    output: str = "probability"
    pulses: tuple = ()
    budget_pj: float | None = None
    learning_rate: float = 0.3
    seed: int = 0

    @property
    def key(self):
        return json.dumps(dataclasses.asdict(self), sort_keys=True)

    @property
    def population(self):
        """Runs with the same value train side by side."""
        own = {"learning_rate", "weight_bound", "pulse_width"}
        if not self.batch_size:
            own.add("seed")  # full batches have no order of images
        return tuple(getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in own)

    @property
    def work(self):
        """Cost of training, in arbitrary units: steps times images times neurons."""
        return self.steps * (self.batch_size or 60_000) * (sum(self.hidden) + 10)

    def but(self, **changes):
        return dataclasses.replace(self, **changes)

    def __str__(self):
        """The values that differ from their default."""
        fields = ((f.name, getattr(self, f.name), f.default) for f in dataclasses.fields(self)[1:])
        return ", ".join(f"{n} {value}" for n, value, default in fields if value != default)


def load(run, folder=None):
    """`(x, y), (x_test, y_test)` of a run: flat float32 pixels and integer labels."""
    if run.dataset == "mnist":
        (x, y), (x_test, y_test) = load_mnist(folder)
    else:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        x, y = load_digits(return_X_y=True)
        x = x * (255 / 16)
        x, x_test, y, y_test = train_test_split(x, y, test_size=0.25, random_state=0, stratify=y)
    if run.split == "validation":
        kept = len(x) * 11 // 12
        (x, x_test), (y, y_test) = ((a[:kept], a[kept:]) for a in (x, y))
    x, x_test = ((a.reshape(len(a), -1) / run.divisor).astype("float32") for a in (x, x_test))
    return (x, y.astype("int64")), (x_test, y_test.astype("int64"))


class Study:
    """Results of runs in a file with one JSON object per line; missing runs are trained.

    Args:
        path: the file.
        folder: folder with `mnist.npz`; `None` downloads it.
        dataset: replaces the dataset of every run.
        frozen: whether to refuse to train, for reports.
    """

    LARGEST = 4000  # hidden neurons trained at once

    def __init__(self, path, folder=None, dataset="mnist", frozen=False):
        self.path = pathlib.Path(path)
        self.folder = folder
        self.dataset = dataset
        self.frozen = frozen
        self.results = {}
        if self.path.exists():
            lines = self.path.read_bytes().split(b"\n")
            for line in lines[:-1]:
                record = json.loads(line)
                run = {k: tuple(v) if isinstance(v, list) else v for k, v in record["run"].items()}
                # An attribute that is newer than the file has its default.
                self.results[Run(**run).key] = record["result"]
            if lines[-1] and not frozen:  # a kill cut the last line: remove it
                self.path.write_bytes(b"".join(line + b"\n" for line in lines[:-1]))

    def __call__(self, runs):
        """Results of runs in the same order; missing runs are trained first, in groups."""
        runs = [run.but(dataset=self.dataset) for run in runs]
        if self.dataset == "digits":  # 45 times fewer images
            runs = [r.but(batch_size=32, steps=r.steps // 4) if r.batch_size else r for r in runs]
        groups = {}
        for run in dict.fromkeys(runs):
            if run.key not in self.results:
                groups.setdefault(run.population, []).append(run)
        if groups and self.frozen:
            missing = sum(map(len, groups.values()))
            raise LookupError(f"{missing} runs are not in {self.path}; run study.py first.")
        parts = []
        for group in groups.values():
            size = max(1, self.LARGEST // sum(group[0].hidden))
            size = size if group[0].budget_pj is None else 1  # a budget limits a single network
            parts += [group[start : start + size] for start in range(0, len(group), size)]
        work, begin = sum(len(part) * part[0].work for part in parts), time.monotonic()
        done = 0
        for k, part in enumerate(parts):
            left = (time.monotonic() - begin) * (work - done) / max(done, 1) / 60
            about = f"; about {left:.0f} min left" if k else ""
            print(
                f"{k + 1} of {len(parts)}: {len(part)} networks like {part[0]}{about}", flush=True
            )
            self._train(part)
            done += len(part) * part[0].work
        return [self.results[run.key] for run in runs]

    def tune(self, runs, rates=(0.1, 0.3, 1.0, 3.0), seeds=(100,)):
        """Runs with the learning rate that is best on the validation split, as mean over the seeds.

        If the lowest or the highest rate is the best so far, the next one is tried, too.
        """
        tuned = [None] * len(runs)
        tried = {run: list(rates) for run in runs}
        while None in tuned:
            trials = {
                run: [
                    run.but(split="validation", seed=seed, learning_rate=rate)
                    for rate in tried[run]
                    for seed in seeds
                ]
                for run in runs
            }
            self([trial for some in trials.values() for trial in some])
            for k, run in enumerate(runs):
                accuracy = [result["accuracy"] for result in self(trials[run])]
                accuracy = np.reshape(accuracy, (-1, len(seeds))).mean(1)
                best = tried[run][int(np.argmax(accuracy))]
                lowest, highest = min(tried[run]), max(tried[run])
                if best == lowest and lowest > 1e-3:
                    tried[run].insert(0, float(f"{lowest / 10**0.5:.1g}"))
                elif best == highest and highest < 100:
                    tried[run].append(float(f"{highest * 10**0.5:.1g}"))
                else:
                    tuned[k] = run.but(learning_rate=best)
        return tuned

    def best(self, runs):
        """The run with the highest validation accuracy among several tuned runs."""
        results = self([run.but(split="validation", seed=100) for run in runs])
        return runs[int(np.argmax([result["accuracy"] for result in results]))]

    def _train(self, runs):
        results = train(runs, *load(runs[0], self.folder))
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with self.path.open("a") as file:
            for run, result in zip(runs, results):
                self.results[run.key] = result
                record = {"run": dataclasses.asdict(run), "result": result}
                file.write(json.dumps(record) + "\n")
            file.flush()
            os.fsync(file.fileno())
        accuracy = ", ".join(f"{result['accuracy']:.2f}" for result in results[:8])
        print(f"   accuracy % {accuracy}{' ...' if len(results) > 8 else ''}", flush=True)


def train(runs, training, testing):
    """Train the runs of one population together; returns one dictionary of results per run."""
    first = runs[0]
    (x, y), (x_test, y_test) = training, testing
    sizes = (x.shape[1], *first.hidden, 10)
    neuron = {
        "train": first.train,
        "recenter": first.recenter,
        "knob_scale": first.knob_scale,
        "current_scale": first.gain * spinkeras.SpinNeuron().current_scale,
        "output": first.output,
    }
    keras.utils.clear_session()
    keras.utils.set_random_seed(first.seed)
    population = Population(
        sizes,
        len(runs),
        [run.learning_rate for run in runs],
        [math.inf if run.weight_bound is None else run.weight_bound for run in runs],
        first.batch_norm,
        **neuron,
    )
    for k, run in enumerate(runs):
        network = single(sizes, first.batch_norm, run.seed, **neuron)
        for layer in spinkeras.spin_neurons(network):
            layer.pulse_width = run.pulse_width
        population.load(k, network)
    # XLA's random numbers are slow on CPUs.
    population.compile(jit_compile="auto" if first.output == "probability" else False)

    one_hot = np.eye(10, dtype="float32")[y]
    if first.batch_size:
        data = tf.data.Dataset.from_tensor_slices((x, one_hot))
        data = data.shuffle(len(x), seed=first.seed).batch(first.batch_size, drop_remainder=True)
    else:
        data = tf.data.Dataset.from_tensors((x, one_hot))
    curves = [[] for _ in runs]

    class Curve(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            step = (epoch + 1) * (first.steps // first.checkpoints)
            for k, curve in enumerate(curves):
                values = measure(population.network(k), x_test, y_test)
                curve.append([step, values["accuracy"], values["energy_pj"]])

    callbacks = [Curve()] if first.checkpoints > 1 else []
    if first.budget_pj is not None:
        callbacks.append(
            spinkeras.EnergyBudget(first.budget_pj * 1e-12, monitor="categorical_accuracy")
        )
    population.model.fit(
        data.repeat(),
        epochs=first.checkpoints,
        steps_per_epoch=first.steps // first.checkpoints,
        callbacks=callbacks,
        shuffle=False,
        verbose=0,
    )
    results = []
    for k, curve in enumerate(curves):
        network = population.network(k)
        drawn = bits(network, first, neuron, x_test, y_test)
        results.append({**measure(network, x_test, y_test), "curve": curve, "bits": drawn})
    return results


def measure(network, x, y):
    """Accuracy, energy and settings of one network."""
    predicted = keras.ops.convert_to_numpy(network(x, training=False)).argmax(-1)
    report = spinkeras.energy_report(network, x, batch_size=len(x), print_fn=None)
    neurons = spinkeras.spin_neurons(network)
    values = {"accuracy": round(100 * float(np.mean(predicted == y)), 3)}
    values["energy_pj"] = round(report.total_pj, 4)
    for part in ("write_pj", "gate_pj", "read_pj", "reset_pj"):
        values[part] = round(sum(row[part] for row in report.layers), 4)
    values["latency_ns"] = round(report.latency_ns, 3)
    values["peak_voltage"] = round(max(row["peak_voltage"] for row in report.layers), 3)
    width = np.concatenate([n.pulse_width for n in neurons])
    low, high = neurons[0].device.pulse_width_range
    values["at_limit"] = round(float(np.mean((width > high * 0.999) | (width < low * 1.001))), 3)
    values["pulse_width_ns"] = np.round(np.quantile(width, [0, 0.5, 1]) * 1e9, 3).tolist()
    voltage = np.concatenate([n.gate_voltage for n in neurons])
    values["gate_voltage"] = np.round(np.quantile(voltage, [0, 0.5, 1]), 3).tolist()
    return values


def bits(network, run, neuron, x, y):
    """`{n: accuracy}` with `n` drawn pulses per neuron, as mean over 10 passes of the data."""
    result = {}
    for pulses in run.pulses:
        drawn = {**neuron, "output": "always_sampled", "pulses": pulses, "seed": 1}
        copy = single((x.shape[1], *run.hidden, 10), run.batch_norm, **drawn)
        copy.set_weights(network.get_weights())
        right = [
            np.mean(keras.ops.convert_to_numpy(copy(x, training=False)).argmax(-1) == y)
            for _ in range(10)
        ]
        result[str(pulses)] = round(100 * float(np.mean(right)), 3)
    return result
