"""Measure the cost of a SpinNeuron as ratios to other layers, all in the same run.

    python benchmarks/activation_speed.py            # all rows, about five minutes
    python benchmarks/activation_speed.py --quick    # fewer repeats
    python benchmarks/activation_speed.py --cpu      # CPU time on one thread: for busy machines

Every row is the median, with quartiles, of the ratios of interleaved repeats. "graph" is a
`tf.function` without XLA, "XLA" one with `jit_compile=True`. The row "copy" is the limit of the
memory bandwidth: one read and one write per element. A run that was stopped continues with the
first missing part when it is started again.
"""

import argparse
import os
import pathlib
import subprocess
import sys
import tempfile
import time
from functools import partial

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from keras import ops
from networks import convolutional, perceptron

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import spinkeras
from examples.long_work import LongWork

SHAPES = ((512, 4096), (4096, 512))
NETWORKS = {
    "784-512-512-10": (perceptron, (128, 784)),
    "small CNN": (convolutional, (128, 28, 28, 1)),
}
INSTANCES = 3  # of every network, since the times of two can differ by 9 % (place in memory)
clock = time.perf_counter


def interleaved(functions, repeats, inner=1):
    """`{name: array of seconds}`: every repeat runs all functions once, in turn."""
    for function in functions.values():
        for _ in range(3):
            function()
    seconds = {name: [] for name in functions}
    for _ in range(repeats):
        for name, function in functions.items():
            start = clock()
            for _ in range(inner):
                function()
            seconds[name].append((clock() - start) / inner)
    return {name: np.array(values) for name, values in seconds.items()}


def show(title, seconds, references):
    first = np.median(seconds[references[0]]) * 1e3
    print(f"\n{title}; {references[0]}: {first:.3g} ms")
    print("  {:34s}".format("row") + "".join(f"{'/ ' + r:>30s}" for r in references))
    for name, values in seconds.items():
        cells = ""
        for reference in references:
            ratios = values / seconds[reference]
            low, middle, high = np.percentile(ratios, (25, 50, 75))
            cells += f"{middle:10.2f} ({low:5.2f} to {high:5.2f}) "
        print(f"  {name:34s}{cells}")


def wait(result):
    """Block until the result exists."""
    for tensor in tf.nest.flatten(result):
        if tensor is not None:
            np.asarray(tensor)
            return


def elementwise(repeats, shape):
    rng = np.random.default_rng(0)
    x = tf.constant(rng.normal(size=shape).astype("float32") * 2)
    upstream = tf.constant(rng.normal(size=shape).astype("float32"))
    short = spinkeras.MTJDevice.preset("stt_reference").replace(pulse_width_range=(0.5e-9, 2e-9))
    long = short.replace(pulse_width_range=(1e-7, 1e-6), nominal_pulse_width=2e-7)
    layers = {
        "SpinNeuron, knobs trained": spinkeras.SpinNeuron(),
        "SpinNeuron, pulse width trained": spinkeras.SpinNeuron(train="pulse_width"),
        "SpinNeuron, anisotropy trained": spinkeras.SpinNeuron(train="anisotropy"),
        "SpinNeuron, knobs fixed": spinkeras.SpinNeuron(train=()),
        "SpinNeuron, recenter=False": spinkeras.SpinNeuron(recenter=False),
        "SpinNeuron, neel_brown": spinkeras.SpinNeuron(
            long, switching_model=spinkeras.NeelBrown(attempt_time=1e-9)
        ),
        "SpinNeuron, ballistic": spinkeras.SpinNeuron(short, switching_model="ballistic"),
        "SpinNeuron, sampled": spinkeras.SpinNeuron(output="sampled", seed=0),
        "PReLU": keras.layers.PReLU(shared_axes=None),
    }
    normalise = keras.layers.BatchNormalization()
    for layer in (*layers.values(), normalise):
        layer.build((None, shape[1]))
    calls = {
        "copy": (lambda v: v + 1.0, []),
        "sigmoid": (ops.sigmoid, []),
        "three exponentials": (lambda v: ops.exp(-ops.exp(-ops.exp(v))), []),
        "BatchNormalization + sigmoid": (
            lambda v: ops.sigmoid(normalise(v, training=True)),
            [w.value for w in normalise.trainable_variables],
        ),
    }
    for name, layer in layers.items():
        calls[name] = (
            (lambda v, layer=layer: layer(v, training=True)),
            [w.value for w in layer.trainable_variables],
        )

    def forward(function, jit):
        return tf.function(lambda: function(x), jit_compile=jit)

    def both(function, weights, jit):
        def step():
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = function(x)
            # Return the output, too, as the next layer reads it: XLA skips unused results.
            return y, tape.gradient(y, [x, *weights], output_gradients=upstream)

        return tf.function(step, jit_compile=jit)

    for jit in (False, True):
        kind = "XLA" if jit else "graph"
        compiled = {name: forward(f, jit) for name, (f, _) in calls.items()}
        run = {name: (lambda f=f: wait(f())) for name, f in compiled.items()}
        show(
            f"elementwise forward, {shape}, {kind}", interleaved(run, repeats), ["sigmoid", "copy"]
        )
        compiled = {name: both(f, w, jit) for name, (f, w) in calls.items()}
        run = {name: (lambda f=f: wait(f())) for name, f in compiled.items()}
        show(
            f"elementwise forward + backward, {shape}, {kind}",
            interleaved(run, repeats),
            ["sigmoid", "BatchNormalization + sigmoid"],
        )
    name = "SpinNeuron, knobs trained"
    inference = {n: f for n, (f, _) in list(calls.items())[:3]}
    inference[name] = lambda v: layers[name](v, training=False)
    for jit in (False, True):
        run = {n: forward(f, jit) for n, f in inference.items()}
        run = {n: (lambda f=f: wait(f())) for n, f in run.items()}
        kind = "XLA" if jit else "graph (not fused)"
        show(f"inference, {shape}, {kind}", interleaved(run, repeats), ["sigmoid"])


def sizes(repeats):
    """Cost over batch, width and pulses, for a single layer: forward + backward, graph."""

    def step(layer, x):
        def run():
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = layer(x, training=True)
            return y, tape.gradient(y, [x, *(w.value for w in layer.trainable_variables)])

        run = tf.function(run)
        return lambda: wait(run())

    for batch, width in ((32, 64), (32, 512), (128, 64), (128, 512), (128, 4096), (2048, 512)):
        x = tf.random.normal((batch, width))
        run = {}
        for name, layer in (
            ("sigmoid", keras.layers.Activation("sigmoid")),
            ("BatchNormalization + sigmoid", normalised_sigmoid()),
            ("SpinNeuron", spinkeras.SpinNeuron()),
        ):
            layer.build(x.shape)
            run[name] = step(layer, x)
        inner = max(1, 2**20 // (batch * width))
        show(f"batch {batch}, width {width}", interleaved(run, repeats, inner), ["sigmoid"])
    x = tf.random.normal((128, 512))
    plain = spinkeras.SpinNeuron()
    plain.build(x.shape)
    run = {"probability": step(plain, x)}
    for pulses in (1, 2, 4, 16, 17, 1000):
        layer = spinkeras.SpinNeuron(output="sampled", pulses=pulses, seed=0)
        layer.build(x.shape)
        run[f"{pulses} pulses"] = step(layer, x)
    show("pulses, batch 128, width 512", interleaved(run, repeats, 10), ["probability"])


class ScaledSigmoid(keras.layers.Layer):
    """`sigmoid(a x + b)`: the lowest possible cost of two trained weights per channel."""

    def build(self, input_shape):
        self.scale = self.add_weight(shape=input_shape[-1:], initializer="ones")
        self.shift = self.add_weight(shape=input_shape[-1:], initializer="zeros")

    def call(self, inputs):
        return ops.sigmoid(inputs * self.scale + self.shift)


def normalised_sigmoid():
    return keras.Sequential([keras.layers.BatchNormalization(), keras.layers.Activation("sigmoid")])


def step_of(model, batch, callbacks):
    """One training step of a compiled model, as `fit` runs it."""
    model.compile("adam", "sparse_categorical_crossentropy")
    model.fit(batch, steps_per_epoch=2, verbose=0, callbacks=callbacks, shuffle=False)
    iterator = iter(batch)
    running = keras.callbacks.CallbackList(callbacks, model=model)
    running.on_train_begin()
    running.on_epoch_begin(0)

    def step():
        running.on_train_batch_begin(0)  # without it a tracker does not measure the step
        wait(model.train_function(iterator))

    return step


def exported_of(model):
    """The `serve` endpoint of a model, exported and loaded again."""
    with tempfile.TemporaryDirectory() as folder:
        path = spinkeras.export_for_serving(model, folder, energy=False).path
        loaded = tf.saved_model.load(str(path))
    function = loaded.signatures["serve"]
    name = next(iter(function.structured_input_signature[1]))
    return lambda x, keep=loaded: function(**{name: x})


def training_steps(repeats, name):
    build, shape = NETWORKS[name]
    title = f"training step, {name}, batch 128"
    rng = np.random.default_rng(0)
    y = rng.integers(0, 10, 128)

    def sigmoid():
        return keras.layers.Activation("sigmoid")

    activations = {
        "sigmoid": sigmoid,
        "sigmoid of a x + b, trained": ScaledSigmoid,
        "BatchNormalization + sigmoid": normalised_sigmoid,
        "SpinNeuron": spinkeras.SpinNeuron,
        "SpinNeuron, fixed": lambda: spinkeras.SpinNeuron(train=()),
        "SpinNeuron, pulses=1": lambda: spinkeras.SpinNeuron(output="sampled", seed=0),
        "SpinNeuron, pulses=1000": lambda: spinkeras.SpinNeuron(
            output="sampled", pulses=1000, seed=0
        ),
    }
    x = rng.random(shape).astype("float32")
    batch = tf.data.Dataset.from_tensors((x, y)).repeat()
    run = {}
    for name, activation in (*activations.items(), ("SpinNeuron, EnergyTracker", None)):
        tracker = [] if activation else [spinkeras.EnergyTracker()]
        steps = [
            step_of(build(activation or spinkeras.SpinNeuron), batch, tracker)
            for _ in range(INSTANCES)
        ]
        run[name] = lambda steps=steps: [step() for step in steps for _ in range(10)]
    seconds = interleaved(run, repeats)
    seconds = {name: values / (10 * INSTANCES) for name, values in seconds.items()}
    show(title + ", graph", seconds, ["sigmoid", "SpinNeuron", "SpinNeuron, pulses=1"])
    predict = {}
    for name in ("sigmoid", "SpinNeuron"):
        model = build(activations[name])
        for jit in (False, True):
            step = tf.function(lambda v, m=model: m(v, training=False), jit_compile=jit)
            label = f"{name}, XLA" if jit else name
            predict[label] = lambda s=step, v=tf.constant(x): wait(s(v))  # noqa: B008
        exported = exported_of(model)
        predict[f"{name}, exported"] = lambda s=exported, v=tf.constant(x): wait(s(v))  # noqa: B008
    show(
        title.replace("training step", "inference"),
        interleaved(predict, repeats, 10),
        ["sigmoid", "sigmoid, XLA", "sigmoid, exported"],
    )


MEMORY = """
import resource, sys
sys.path.insert(0, {path!r})
import activation_speed as b, numpy as np, keras, spinkeras
make = spinkeras.SpinNeuron if {kind!r} == "spin" else lambda: keras.layers.Activation("sigmoid")
model = keras.Sequential([keras.Input((784,))])
for _ in range(6):
    model.add(keras.layers.Dense(1024)); model.add(make())
model.add(keras.layers.Dense(10, activation="softmax"))
model.compile("adam", "sparse_categorical_crossentropy", jit_compile=False)
x = np.zeros((4096, 784), "float32"); y = np.zeros(4096, int)
model.fit(x, y, batch_size=4096, epochs=4, verbose=0, shuffle=False)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""


def child(code):
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return float(out.stdout.split()[-1])


def processes(repeats):
    path = os.path.dirname(os.path.abspath(__file__))
    peak = {
        k: [child(MEMORY.format(path=path, kind=k)) for _ in range(3)] for k in ("sigmoid", "spin")
    }
    ratio = np.median(peak["spin"]) / np.median(peak["sigmoid"])
    print(f"\npeak memory of a process, 784-6x1024-10, batch 4096: {ratio:.3f} of sigmoid's")
    print("  MB:", {k: [round(v) for v in values] for k, values in peak.items()})
    timed = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"
    for title, code in (
        ("import keras", timed.format("keras")),
        ("import spinkeras after it", "import keras; " + timed.format("spinkeras")),
    ):
        values = [child(code) for _ in range(repeats)]
        print(
            f"  {title}: median {np.median(values):.2f} s, {min(values):.2f} to {max(values):.2f} s"
        )


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--cpu", action="store_true")
    parser.add_argument("--only", choices=("elementwise", "sizes", "steps", "processes"))
    args = parser.parse_args()
    if args.cpu:
        global clock
        clock = time.process_time
        tf.config.threading.set_intra_op_parallelism_threads(1)
        tf.config.threading.set_inter_op_parallelism_threads(1)
    repeats = 7 if args.quick else 25
    print(f"keras {keras.__version__}, tensorflow {tf.__version__}, {os.cpu_count()} cores")
    pieces = {f"elementwise, {shape}": partial(elementwise, repeats, shape) for shape in SHAPES}
    pieces["sizes"] = partial(sizes, repeats)
    pieces |= {f"steps of a {name}": partial(training_steps, repeats, name) for name in NETWORKS}
    pieces["processes"] = partial(processes, 5)
    pieces = {k: piece for k, piece in pieces.items() if k.startswith(args.only or "")}
    work = LongWork("results/activation_speed.part.json", vars(args), keep=False)
    work.show(pieces)


if __name__ == "__main__":
    main()
