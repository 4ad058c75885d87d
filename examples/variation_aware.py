"""Compare ordinary and variation-aware training on simulated chips, whose devices differ.

    python examples/variation_aware.py                              # scikit-learn digits, 3 seeds
    python examples/variation_aware.py --dataset mnist [--data FOLDER]                   # 1 seed

Two networks (one hidden layer of spin neurons, softmax output) start from the same weights. The
ordinary network trains with nominal devices and expected values. The variation-aware network trains
with a new chip in every step (10 % spread of the thermal stability, 1 % stuck devices) and with
single random pulses. Both are then measured on the same 100 chips with 5 % and 10 % spread and 1 %
stuck devices, with expected values and with one pulse per neuron. Every seed has its own weights
and chips. Every trained network is added to the results file. A run that was stopped continues from
this file (delete it to start again).
"""

import argparse
import functools
import os
import pathlib
import statistics

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
from long_work import LongWork
from mnist import load_mnist

import spinkeras
from spinkeras.hardware.chips import evaluate_chips
from spinkeras.physics.spread import ChipSpread


def chip_spread(sigma):
    """Spread of the thermal stability with 1 % stuck devices, half of them at each value."""
    return ChipSpread(stability=sigma, stuck_low=0.005, stuck_high=0.005)


SIGMAS = (0.0, 0.05, 0.1)
TRAININGS = {
    "ordinary": {},
    "variation-aware": {"spread": chip_spread(0.1), "output": "sampled"},
}


def load(dataset, folder):
    """`(x, y), (x_test, y_test)`: flat pixels in [0, 1] and integer labels."""
    if dataset == "digits":
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        x, y = load_digits(return_X_y=True)
        x, x_test, y, y_test = train_test_split(x / 16, y, test_size=0.3, random_state=0)
    else:
        (x, y), (x_test, y_test) = load_mnist(folder)
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
    model.fit(x, y, epochs=epochs, batch_size=128, verbose=0)
    return model


def train_and_measure(training, test, name, seed, setting):
    """Rows of one network: for every spread, with expected values and with one pulse."""
    model = train(training, setting["hidden"], setting["epochs"], seed, **TRAININGS[name])
    rows = []
    for sigma in SIGMAS:
        spread = chip_spread(sigma) if sigma else ChipSpread()
        for pulses in (None, 1):
            report = evaluate_chips(
                model,
                *test,
                spread,
                chips=setting["chips"],
                pulses=pulses,
                seed=seed,
                progress=False,
            )
            print(f"   spread {sigma:4.0%}  {report}", flush=True)
            rows.append(
                {
                    "seed": seed,
                    "training": name,
                    "spread": sigma,
                    "pulses": pulses,
                    "nominal": report.nominal,
                    "mean": float(report.accuracy.mean()),
                    "worst": float(report.accuracy.min()),
                    "energy_pj": float(report.energy_pj.mean()),
                }
            )
    return rows


def mean_and_sd(values, digits=2):
    sd = f" +- {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{sd}"


def table(rows, seeds):
    """Markdown table of means and standard deviations over the seeds, and paired differences."""

    def column(name, sigma, pulses, key, factor=100):
        found = {
            row["seed"]: factor * row[key]
            for row in rows
            if (row["training"], row["spread"], row["pulses"]) == (name, sigma, pulses)
        }
        return [found[seed] for seed in seeds]

    lines = [
        "| training | spread | expected value: mean % | worst % | one pulse: mean % | worst % "
        "| energy pJ |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in TRAININGS:
        for sigma in SIGMAS:
            cells = [
                mean_and_sd(column(name, sigma, pulses, key))
                for pulses in (None, 1)
                for key in ("mean", "worst")
            ]
            energy = mean_and_sd(column(name, sigma, None, "energy_pj", 1), 1)
            lines.append(f"| {name} | {sigma:.0%} | {' | '.join(cells)} | {energy} |")
    lines.append("")
    for name in TRAININGS:
        nominal = column(name, 0.0, None, "nominal")
        chip = column(name, max(SIGMAS), 1, "mean")
        loss = mean_and_sd([a - b for a, b in zip(nominal, chip)])
        lines.append(f"{name}: {loss} points lost to 10 % spread, stuck devices and single pulses")
    ordinary, aware = (column(name, max(SIGMAS), 1, "mean") for name in TRAININGS)
    gain = mean_and_sd([b - a for a, b in zip(ordinary, aware)])
    lines.append(f"variation-aware minus ordinary, 10 % spread, one pulse: {gain} points (paired)")
    return "\n".join(lines)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", choices=("digits", "mnist"), default="digits")
    parser.add_argument("--data", help="folder with mnist.npz (default: download by Keras)")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--epochs", type=int, help="default 10 (mnist) or 60 (digits)")
    parser.add_argument("--chips", type=int, default=100)
    parser.add_argument("--seeds", type=int, help="how many; default 1 (mnist) or 3 (digits)")
    parser.add_argument("--output", default="results", help="folder for the numbers (JSON)")
    args = parser.parse_args()
    data = load(args.dataset, args.data)
    epochs = args.epochs or {"mnist": 10, "digits": 60}[args.dataset]
    seeds = range(args.seeds or {"mnist": 1, "digits": 3}[args.dataset])
    setting = {"hidden": args.hidden, "epochs": epochs, "chips": args.chips}
    path = pathlib.Path(args.output) / f"variation_aware_{args.dataset}.json"
    results = LongWork(path, setting)(
        {
            f"{name} training, seed {seed}": functools.partial(
                train_and_measure, *data, name, seed, setting
            )
            for seed in seeds
            for name in TRAININGS
        }
    )
    rows = [row for some in results.values() for row in some]
    print(f"\n{table(rows, seeds)}\nwrote {path}")


if __name__ == "__main__":
    main()
