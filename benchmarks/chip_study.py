"""Measure the cost of 100 simulated chips, in evaluations of the same network on the same data.

    python benchmarks/chip_study.py               # both networks, about five minutes
    python benchmarks/chip_study.py --only small  # the small one

The script compares `evaluate_chips(model, x, y, spread, chips=100)`, which gives accuracy and
energy of every chip, with 100 calls of `model.evaluate(x, y)`, which give the accuracy of the
nominal network. Both run in turn in one process, on random data of the size of MNIST's test set.
The result is the ratio of the processor times of the process (`time.process_time`, all threads),
because other programs on the machine hardly change them; elapsed times are shown, too. The time
includes the compilation of kernels in every call of `evaluate_chips`. It does not include the
reset current, which is computed once per device and process (1.5 s).
"""

import argparse
import functools
import os
import pathlib
import sys
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import spinkeras
from examples.long_work import LongWork
from spinkeras import ChipSpread, evaluate_chips

CHIPS = 100
BATCHES = (32, 1000)  # the defaults of Keras and of evaluate_chips
NETWORKS = {"mnist": (784, 512), "small": (64, 25)}
SPREADS = {
    "stability 10 %, 1 % stuck": ChipSpread(stability=0.1, stuck_low=0.005, stuck_high=0.005),
    "the same and resistance 5 %, TMR 4 %": ChipSpread(
        stability=0.1, stuck_low=0.005, stuck_high=0.005, resistance=0.05, tmr=0.04
    ),
}


def network(inputs, hidden):
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((inputs,)),
            keras.layers.Dense(hidden),
            spinkeras.SpinNeuron(),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def seconds(function):
    """Processor and elapsed seconds of one call."""
    processor, elapsed = time.process_time(), time.perf_counter()
    function()
    return time.process_time() - processor, time.perf_counter() - elapsed


def cell(values):
    return f"{np.median(values):7.3g} ({np.min(values):.3g} to {np.max(values):.3g})"


def study(name, samples, repeats):
    inputs, hidden = NETWORKS[name]
    rng = np.random.default_rng(0)
    x = rng.random((samples, inputs), "float32")
    y = rng.integers(0, 10, samples)
    model = network(inputs, hidden)
    evaluate = functools.partial(model.evaluate, x, y, verbose=0)
    references = {
        f"evaluate, batch {b}": functools.partial(evaluate, batch_size=b) for b in BATCHES
    }
    studies = {
        f"{title}, {'one pulse' if pulses else 'expected values'}": functools.partial(
            evaluate_chips, model, x, y, spread, CHIPS, pulses, progress=False
        )
        for title, spread in SPREADS.items()
        for pulses in (None, 1)
    }
    for call in references.values():
        call()  # compile
    evaluate_chips(model, x[:1], y[:1], ChipSpread(), 1, progress=False)
    cost = {title: [] for title in (*references, *studies)}
    for _ in range(repeats):
        for title, call in references.items():
            cost[title].append(np.mean([seconds(call) for _ in range(5)], axis=0))
        for title, call in studies.items():
            cost[title].append(seconds(call))
    cost = {title: np.array(spent) for title, spent in cost.items()}
    print(f"\n{inputs}-{hidden}-10, {samples} samples, {repeats} repeats: median (range)")
    for title, spent in cost.items():
        chips = f"{CHIPS} chips, " if title in studies else ""
        print(f"  {chips}{title}: processor s {cell(spent[:, 0])}, elapsed s {cell(spent[:, 1])}")
        for other in references if title in studies else ():
            times = CHIPS * cost[other] / spent
            print(
                f"    {CHIPS} x {other} takes {cell(times[:, 0])} times the processor time, "
                f"{cell(times[:, 1])} times the elapsed time"
            )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", choices=list(NETWORKS))
    parser.add_argument("--samples", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=5)
    args = parser.parse_args()
    print(f"keras {keras.__version__} on {keras.backend.backend()}, {os.cpu_count()} cores")
    names = [args.only] if args.only else NETWORKS
    work = LongWork("results/chip_study.part.json", vars(args), keep=False)
    work.show({n: functools.partial(study, n, args.samples, args.repeats) for n in names})


if __name__ == "__main__":
    main()
