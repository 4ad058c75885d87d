"""Ordinary and variation-aware training side by side, measured on simulated chips.

    python examples/variation_aware.py                              # scikit-learn digits
    python examples/variation_aware.py --dataset mnist [--data FOLDER]

Two networks (one hidden layer of spin neurons, softmax read-out) start from the same weights. The
ordinary one trains with nominal devices and expected values. The other sees a new chip at every
step (10 % spread of the thermal stability, 1 % stuck devices) and single random pulses. Both are
then measured on the same 100 chips with 5 % and 10 % spread and 1 % stuck devices, by expected
value and with one pulse per neuron.
"""

import argparse
import json
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import spinkeras
from spinkeras.chips import evaluate_chips
from spinkeras.variability import ChipSpread


def chip_spread(sigma):
    """Spread of the thermal stability with 1 % stuck devices, half of them at each value."""
    return ChipSpread(stability=sigma, stuck_low=0.005, stuck_high=0.005)


def load(dataset, folder):
    """`(x, y), (x_test, y_test)`: flat pixels in [0, 1] and integer labels."""
    if dataset == "digits":
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        x, y = load_digits(return_X_y=True)
        x, x_test, y, y_test = train_test_split(x / 16, y, test_size=0.3, random_state=0)
    elif folder or os.environ.get("SPINKERAS_DATA"):
        with np.load(pathlib.Path(folder or os.environ["SPINKERAS_DATA"]) / "mnist.npz") as data:
            x, y, x_test, y_test = (data[k] for k in ("x_train", "y_train", "x_test", "y_test"))
        x, x_test = (a.reshape(len(a), -1) / 255 for a in (x, x_test))
    else:
        (x, y), (x_test, y_test) = keras.datasets.mnist.load_data()
        x, x_test = (a.reshape(len(a), -1) / 255 for a in (x, x_test))
    return (x.astype("float32"), y), (x_test.astype("float32"), y_test)


def train(data, hidden, epochs, seed, **neuron):
    x, y = data
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((x.shape[1],)),
            keras.layers.Dense(hidden),
            spinkeras.SpinNeuron(name="spin", seed=seed, **neuron),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    steps = epochs * -(-len(x) // 128)
    rate = keras.optimizers.schedules.CosineDecay(3e-3, steps)
    model.compile(keras.optimizers.Adam(rate), "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=epochs, batch_size=128, verbose=2)
    return model


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", choices=("digits", "mnist"), default="digits")
    parser.add_argument("--data", help="folder with mnist.npz (default: download by Keras)")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--epochs", type=int, help="default 10 (mnist) or 60 (digits)")
    parser.add_argument("--chips", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="results", help="folder for the numbers (JSON)")
    args = parser.parse_args()
    data, (x, y) = load(args.dataset, args.data)
    epochs = args.epochs or {"mnist": 10, "digits": 60}[args.dataset]
    aware = {"spread": chip_spread(0.1), "output": "sampled"}
    results = []
    for name, neuron in (("ordinary", {}), ("variation-aware", aware)):
        model = train(data, args.hidden, epochs, args.seed, **neuron)
        for sigma in (0.0, 0.05, 0.1):
            spread = chip_spread(sigma) if sigma else ChipSpread()
            for pulses in (None, 1):
                report = evaluate_chips(
                    model, x, y, spread, chips=args.chips, pulses=pulses, progress=False
                )
                line = f"{name:16s} spread {sigma:4.0%}  {report}"
                print(line, flush=True)
                results.append(
                    {
                        "training": name,
                        "spread": sigma,
                        "pulses": pulses,
                        "nominal": report.nominal,
                        "mean": float(report.accuracy.mean()),
                        "worst": float(report.accuracy.min()),
                        "energy_pj": float(report.energy_pj.mean()),
                    }
                )
    output = pathlib.Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    path = output / f"variation_aware_{args.dataset}.json"
    path.write_text(json.dumps(results, indent=1) + "\n")
    print(f"wrote {path}")


if __name__ == "__main__":
    main()
