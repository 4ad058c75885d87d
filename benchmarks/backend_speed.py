"""Compare a training step with spin neurons to one with sigmoids, on the current backend.

    KERAS_BACKEND=torch OMP_NUM_THREADS=1 python benchmarks/backend_speed.py
    KERAS_BACKEND=jax OMP_NUM_THREADS=1 python benchmarks/backend_speed.py --repeats 15

Every row is the median, with quartiles, of the ratios of interleaved repeats. A step is one call of
`train_on_batch` on one thread, compiled as Keras does by default (JAX: compiled, PyTorch: not).
`activation_speed.py` has more about TensorFlow.
"""

import argparse
import functools
import importlib.metadata
import os
import pathlib
import sys
import time

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["XLA_FLAGS"] = (
    os.environ.get("XLA_FLAGS", "") + " --xla_cpu_multi_thread_eigen=false"
).strip()

import keras
import numpy as np
from networks import convolutional, perceptron

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import spinkeras
from examples.long_work import LongWork

BATCH = 128
NETWORKS = {"784-512-512-10": (perceptron, (784,)), "small CNN": (convolutional, (28, 28, 1))}
ACTIVATIONS = {
    "sigmoid": lambda: keras.layers.Activation("sigmoid"),
    "SpinNeuron": spinkeras.SpinNeuron,
    "SpinNeuron, fixed": lambda: spinkeras.SpinNeuron(train=()),
}


def step_of(model, x, y):
    """One training step of a model; `train_on_batch` waits for its loss."""
    model.compile("adam", "sparse_categorical_crossentropy")
    return lambda: model.train_on_batch(x, y)


def interleaved(functions, repeats, inner):
    """`{name: array of seconds}`: every repeat runs all functions, in turn."""
    seconds = {name: [] for name in functions}
    for repeat in range(-2, repeats):
        for name, function in functions.items():
            start = time.perf_counter()
            for _ in range(inner):
                function()
            if repeat >= 0:  # earlier repeats compile and warm up
                seconds[name].append((time.perf_counter() - start) / inner)
    return {name: np.array(values) for name, values in seconds.items()}


def compare(name, args):
    build, shape = NETWORKS[name]
    rng = np.random.default_rng(0)
    y = rng.integers(0, 10, BATCH)
    x = rng.random((BATCH, *shape)).astype("float32")
    steps = {kind: step_of(build(act), x, y) for kind, act in ACTIVATIONS.items()}
    seconds = interleaved(steps, args.repeats, args.inner)
    sigmoid = seconds["sigmoid"]
    print(f"\ntraining step, {name}, batch {BATCH}; sigmoid: {np.median(sigmoid) * 1e3:.3g} ms")
    for kind, values in seconds.items():
        low, middle, high = np.percentile(values / sigmoid, (25, 50, 75))
        extra = np.median(values - sigmoid) * 1e3
        print(f"  {kind:20s}{middle:6.2f} ({low:.2f} to {high:.2f}), {extra:+.2f} ms")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=25)
    parser.add_argument("--inner", type=int, default=10, help="steps in a row")
    args = parser.parse_args()
    backend = keras.backend.backend()
    version = importlib.metadata.version(backend)
    print(f"keras {keras.__version__}, {backend} {version}, one thread")
    work = LongWork(f"results/backend_speed_{backend}.part.json", vars(args), keep=False)
    work.show({name: functools.partial(compare, name, args) for name in NETWORKS})


if __name__ == "__main__":
    main()
