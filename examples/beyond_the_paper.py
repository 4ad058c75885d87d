"""Train networks with only spin neurons on MNIST: a multilayer perceptron and a small CNN.

    python examples/beyond_the_paper.py --network mlp
    python examples/beyond_the_paper.py --network cnn --seeds 1
    python examples/beyond_the_paper.py --network mlp --data FOLDER     # with FOLDER/mnist.npz

Every activation, also of the outputs, is the switching probability of a junction. Pulse width and
anisotropy of every neuron are trained within the limits of the device. Training images are turned,
scaled, sheared and shifted at random. `--pulses` trains the hidden layers on drawn bits and reads
every class from 16 neurons, so that one pulse per neuron is enough at inference. The test images
are used only once, after the last epoch.

For every seed the script prints the test accuracy with expected values and with one pulse per
neuron, the energy and the latency, and adds them to a JSON file. A killed run continues with its
last epoch; a finished seed is not trained again.
"""

import argparse
import functools
import os
import pathlib
import statistics

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf
from long_work import LongWork
from mnist import load_mnist

import spinkeras

BATCH = 128


def load(folder):
    """`(x, y), (x_test, y_test)`: images (n, 28, 28, 1) in 0 to 1, integer labels."""
    (x, y), (x_test, y_test) = load_mnist(folder)
    x, x_test = ((a[..., None] / 255).astype("float32") for a in (x, x_test))
    return (x, y), (x_test, y_test)


def distort(images):
    """Images turned by up to 12 degrees, scaled and sheared by up to 12 %, and shifted by 2."""
    count, size = tf.shape(images)[0], float(images.shape[1])

    def random(limit):
        return tf.random.uniform((count,), -limit, limit)

    angle, shear = random(0.21), random(0.12)
    wide, high = tf.exp(random(0.12)), tf.exp(random(0.12))
    a, b = wide * tf.cos(angle), high * (shear * tf.cos(angle) - tf.sin(angle))
    c, d = wide * tf.sin(angle), high * (shear * tf.sin(angle) + tf.cos(angle))
    middle = (size - 1) / 2
    right = middle - (a + b) * middle + random(2.0)
    down = middle - (c + d) * middle + random(2.0)
    zero = tf.zeros((count,))
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=images,
        transforms=tf.stack([a, b, right, c, d, down, zero, zero], axis=1),
        output_shape=tf.shape(images)[1:3],
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )


def build(network, copies=1, hidden="probability", last="probability"):
    """The network with `copies` neurons per class; `output` of hidden and last spin neurons."""

    def spin(output=hidden):
        return spinkeras.SpinNeuron(output=output)

    layers = keras.layers
    model = keras.Sequential([keras.Input((28, 28, 1))])
    if network == "mlp":
        model.add(layers.Flatten())
        for width in (800, 800):
            model.add(layers.Dense(width, use_bias=False))
            model.add(layers.BatchNormalization())
            model.add(spin())
    else:
        for filters, size, stride in ((16, 5, 1), (32, 3, 2), (48, 3, 1), (64, 3, 2)):
            model.add(layers.Conv2D(filters, size, stride, use_bias=False))
            model.add(layers.BatchNormalization())
            model.add(spin())
        model.add(layers.Flatten())
        model.add(layers.Dropout(0.2))
    model.add(layers.Dense(10 * copies))
    model.add(spin(last))
    if copies > 1:
        model.add(layers.Reshape((copies, 10)))
        model.add(layers.GlobalAveragePooling1D())
    return model


def train(args, seed, data, folder):
    (x, y), _ = data
    keras.utils.set_random_seed(seed)
    # Cross-entropy has no gradient for a wrong bit, so the last layer trains on probabilities.
    model = build(args.network, args.copies, "sampled" if args.pulses else "probability")
    steps = len(x) // BATCH
    schedule = keras.optimizers.schedules.CosineDecay(2e-3, args.epochs * steps, alpha=1e-3)
    model.compile(
        keras.optimizers.Adam(schedule),
        lambda y_true, y_pred: 10 * keras.losses.binary_crossentropy(y_true, y_pred),
        metrics=["categorical_accuracy"],
        # On CPUs, XLA computes convolutions and random numbers slowly.
        jit_compile=args.network == "mlp" and not args.pulses,
    )
    batches = (
        tf.data.Dataset.from_tensor_slices((x, np.eye(10, dtype="float32")[y]))
        .shuffle(len(x))
        .batch(BATCH, drop_remainder=True)
        .map(lambda image, label: (distort(image), label), num_parallel_calls=2)
        .prefetch(2)
    )
    backup = keras.callbacks.BackupAndRestore(folder / f"backup_{args.network}_{seed}")
    model.fit(batches, epochs=args.epochs, shuffle=False, verbose=2, callbacks=[backup])
    return model


def measure(args, model, data):
    """Results of a trained network on the test images, as plain numbers."""
    _, (x, y) = data

    def accuracy(network):
        return 100 * float(np.mean(network.predict(x, verbose=0, batch_size=500).argmax(-1) == y))

    drawn = build(args.network, args.copies, "always_sampled", "always_sampled")
    drawn.set_weights(model.get_weights())
    bits = [accuracy(drawn) for _ in range(10)]
    report = spinkeras.energy_report(model, x, batch_size=500)
    return {
        "accuracy": round(accuracy(model), 3),
        "one_pulse": round(statistics.mean(bits), 3),
        "one_pulse_worst": round(min(bits), 3),
        "energy_pj": round(report.total_pj, 2),
        "latency_ns": round(report.latency_ns, 2),
        "neurons": round(sum(row["pulses"] for row in report.layers)),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--network", choices=("mlp", "cnn"), default="mlp")
    parser.add_argument("--pulses", action="store_true", help="for one pulse at inference")
    parser.add_argument("--epochs", type=int, default=40, help="default 40")
    parser.add_argument("--seeds", type=int, default=3, help="repetitions, default 3")
    parser.add_argument("--data", help="folder with mnist.npz (default: download by Keras)")
    parser.add_argument("--output", default="results", help="folder, default results")
    args = parser.parse_args()
    if args.seeds < 1 or args.epochs < 1:
        parser.error("--seeds and --epochs must be at least 1")
    args.copies = 16 if args.pulses else 1
    folder = pathlib.Path(args.output)
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{args.network}{'_pulses' if args.pulses else ''}_{args.epochs}"
    path = folder / f"beyond_the_paper_{name}.json"
    data = load(args.data)

    def run(seed):
        return measure(args, train(args, seed, data, folder), data)

    results = LongWork(path)({f"seed {k}": functools.partial(run, k) for k in range(args.seeds)})
    for key in next(iter(results.values())):
        values = [result[key] for result in results.values()]
        print(f"{key:16} {statistics.mean(values):10.3f}   {values}")


if __name__ == "__main__":
    main()
