"""What a model leaves behind, and what its first training step costs, against sigmoids.

    python benchmarks/many_models.py              # about eight minutes on one core
    python benchmarks/many_models.py --models 3   # quicker, rougher

Memory: networks 64-32-10, each built, compiled, fitted for one epoch and forgotten
(`keras.backend.clear_session()`), after three others, in a process of their own: how much its
resident memory grows and how much processor time it takes, per network.

First step: seconds of processor time that the first `train_on_batch` of a model takes, mostly
compilation, in a new process each, in turn; medians and ranges. Started again, a run that was
stopped goes on with the first part that is missing.
"""

import argparse
import functools
import os
import pathlib
import statistics
import subprocess
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
from examples.long_work import LongWork

ACTIVATIONS = {
    "sigmoid": 'keras.layers.Activation("sigmoid")',
    "BatchNormalization": "keras.layers.BatchNormalization()",
    "SpinNeuron, knobs fixed": "spinkeras.SpinNeuron(train=())",
    "SpinNeuron": "spinkeras.SpinNeuron()",
    "SpinNeuron and EnergyTracker": "spinkeras.SpinNeuron()",
    "the same, a new device each": "spinkeras.SpinNeuron(next(devices))",
}

START = """
import itertools, os, sys, time
import keras, numpy as np, psutil, spinkeras
sys.path.insert(0, {folder!r})
import networks
device = spinkeras.MTJDevice.preset("stt_reference")
devices = (device.replace(diameter=device.diameter * (1 + 1e-3 * k)) for k in itertools.count())
activation = lambda: {activation}
callbacks = [spinkeras.EnergyTracker()] if {tracker} else []
"""

MANY = """
x, y = np.zeros((64, 64), "float32"), np.zeros(64, int)

def train():
    keras.backend.clear_session()
    model = keras.Sequential([keras.Input((64,)), keras.layers.Dense(32), activation()])
    model.add(keras.layers.Dense(10, activation="softmax"))
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(x, y, batch_size=32, verbose=0, callbacks=callbacks)

for _ in range(3):
    train()
process, begin = psutil.Process(), time.process_time()
before = process.memory_info().rss
for _ in range({models}):
    train()
grown = process.memory_info().rss - before
print(grown / 1e6 / {models}, (time.process_time() - begin) / {models})
"""

FIRST = """
shape = {shape}
x, y = np.zeros((128, *shape), "float32"), np.zeros(128, int)
model = networks.{network}(activation)
model.compile("adam", "sparse_categorical_crossentropy")
begin = time.process_time()
model.train_on_batch(x, y)
print(time.process_time() - begin)
"""


def child(code, name, **values):
    """The numbers that code prints in a new process."""
    code = (START + code).format(
        folder=os.path.dirname(os.path.abspath(__file__)),
        activation=ACTIVATIONS[name],
        tracker="Tracker" in name or "device" in name,
        **values,
    )
    out = subprocess.run(
        [sys.executable, "-c", code], check=True, stdout=subprocess.PIPE, text=True
    )
    return [float(number) for number in out.stdout.split()[-2:]]


def memory(models):
    print("\nMB that a model leaves, processor seconds that it takes")
    for name in ACTIVATIONS:
        left, took = child(MANY, name, models=models)
        print(f"  {name:30s}{left:6.1f}{took:7.2f}")


def first_step(network, shape, repeats):
    print(f"\nfirst step, {network}: processor seconds, and seconds more than sigmoid's")
    names = [n for n in ACTIVATIONS if "Tracker" not in n and "device" not in n]
    took = {name: [] for name in names}
    for _ in range(repeats):
        for name in names:
            took[name].append(child(FIRST, name, network=network, shape=shape)[-1])
    for name, values in took.items():
        more = [a - b for a, b in zip(values, took["sigmoid"])]
        print(
            f"  {name:30s}{statistics.median(values):6.2f}{statistics.median(more):7.2f} "
            f"({min(more):.2f} to {max(more):.2f})"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", type=int, default=10, help="of every kind, default 10")
    parser.add_argument("--repeats", type=int, default=5, help="of every first step, default 5")
    args = parser.parse_args()
    work = LongWork("results/many_models.part.json", vars(args), keep=False)
    work.show(
        {
            "memory": functools.partial(memory, args.models),
            "first step of the MLP": functools.partial(
                first_step, "perceptron", (784,), args.repeats
            ),
            "first step of the CNN": functools.partial(
                first_step, "convolutional", (28, 28, 1), args.repeats
            ),
        }
    )


if __name__ == "__main__":
    main()
