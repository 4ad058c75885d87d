"""Compare the signed output of spin neurons with ReLU, tanh and sigmoid in a convolutional network.

Two convolutions and a dense output layer classify scikit-learn's digits. Every activation is
trained with Adam at the usual learning rate of 1e-3 and at 1e-2, with several seeds. The signed
output of `SpinNeuron(bipolar=True)` is `2 P - 1`. Its untrained slope at zero is 1, like that of
tanh; here also 1/2 is tried. The table shows mean and range of the test accuracy over the seeds.

    python examples/signed_output.py            # three seeds, about three minutes on one core
    python examples/signed_output.py --quick    # one seed and one epoch, to see it run

A run that was stopped continues with the first missing activation.
"""

import argparse
import functools

import keras
import numpy as np
from keras import layers
from long_work import LongWork
from sklearn.datasets import load_digits

import spinkeras


def signed(slope):
    """A spin neuron with the output `2 P - 1` and this untrained slope at zero input."""
    unit_slope = spinkeras.SpinNeuron(bipolar=True, current_scale=1e-6)
    unit_slope.build((None, 1))
    scale = 1e-6 * slope / float(unit_slope.slope[0])
    return spinkeras.SpinNeuron(bipolar=True, current_scale=scale)


ACTIVATIONS = {
    "ReLU": layers.ReLU,
    "tanh": functools.partial(layers.Activation, "tanh"),
    "sigmoid": functools.partial(layers.Activation, "sigmoid"),
    "SpinNeuron()": spinkeras.SpinNeuron,
    "SpinNeuron(bipolar=True), slope 1": functools.partial(signed, 1.0),
    "SpinNeuron(bipolar=True), slope 1/2": functools.partial(signed, 0.5),
}


def load():
    """`(x, y)` for training and for testing: 1437 and 360 images of 8 x 8, pixels from 0 to 1."""
    digits = load_digits()
    order = np.random.default_rng(0).permutation(len(digits.target))
    x = digits.images[order, :, :, None].astype("float32") / 16
    y = digits.target[order]
    return (x[:1437], y[:1437]), (x[1437:], y[1437:])


def network(activation):
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            layers.Conv2D(16, 3, padding="same"),
            activation(),
            layers.Conv2D(32, 3, padding="same"),
            activation(),
            layers.MaxPooling2D(),
            layers.Flatten(),
            layers.Dense(10, activation="softmax"),
        ]
    )


def accuracies(activation, learning_rates, epochs, seeds, training, test, eager=False):
    """`{learning rate: test accuracies in percent, one per seed}`.

    The network is compiled once, or not at all with `eager`. Every training starts with new
    weights and a new optimizer.
    """
    found = {}
    model = network(activation)
    model.compile(
        "adam", "sparse_categorical_crossentropy", metrics=["accuracy"], run_eagerly=eager
    )
    model.optimizer.build(model.trainable_variables)
    for rate in learning_rates:
        found[f"{rate:g}"] = []
        for seed in range(seeds):
            keras.utils.set_random_seed(seed)
            model.set_weights(network(activation).get_weights())
            for variable in model.optimizer.variables:
                variable.assign(keras.ops.zeros_like(variable))
            model.optimizer.learning_rate = rate
            model.fit(*training, batch_size=32, epochs=epochs, verbose=0)
            right = model.evaluate(*test, batch_size=len(test[0]), verbose=0)[1]
            print(f"   learning rate {rate:g}, seed {seed}: {right:.1%}", flush=True)
            found[f"{rate:g}"].append(100 * right)
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--learning-rates", type=float, nargs="+", default=[1e-3, 1e-2])
    parser.add_argument("--output", default="results/signed_output_digits.json")
    parser.add_argument("--quick", action="store_true", help="1 epoch, 1 seed, 1 rate, 100 images")
    args = parser.parse_args()
    training, test = load()
    if args.quick:
        args.epochs, args.seeds, args.learning_rates = 1, 1, [1e-2]
        training = [part[:100] for part in training]

    setting = {"epochs": args.epochs, "seeds": args.seeds, "learning_rates": args.learning_rates}
    setting["images"] = len(training[0])
    work = LongWork(args.output, setting)
    options = (args.learning_rates, args.epochs, args.seeds, training, test, args.quick)
    results = work(
        {name: functools.partial(accuracies, made, *options) for name, made in ACTIVATIONS.items()}
    )
    print(f"\nTest accuracy in % after {args.epochs} epochs: mean (lowest to highest seed)")
    print(f"{'activation':36}" + "".join(f"{f'rate {r:g}':>24}" for r in args.learning_rates))
    for name, found in results.items():
        cells = (f"{np.mean(a):.1f} ({min(a):.1f} to {max(a):.1f})" for a in found.values())
        print(f"{name:36}" + "".join(f"{cell:>24}" for cell in cells))
    print(f"every run: {work.path}")


if __name__ == "__main__":
    main()
