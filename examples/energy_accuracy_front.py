"""Find the best accuracy of a small network of spin neurons for every energy.

The script runs several searches with keras-tuner on the same training set, each with another
exchange rate between accuracy and energy. A figure shows every trial and the front, which holds the
trials that no other trial beats in both. The networks on the front are then measured on test data
that no search has used.

    python examples/energy_accuracy_front.py            # scikit-learn digits, 48 trials
    python examples/energy_accuracy_front.py --dataset mnist --data FOLDER   # holds mnist.npz
    python examples/energy_accuracy_front.py --fast     # a few trials, to see it run

A run that was stopped or killed continues where it stopped if it is started again with the same
`--output`. The energy is that of the spin neurons only, without synapses.
"""

import argparse
import pathlib
import time

import keras
import keras_tuner as kt
import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from mnist import load_mnist

import spinkeras
from spinkeras.search.durability import durable
from spinkeras.search.hypermodel import SpinHyperModel, dense_classifier
from spinkeras.search.objective import EnergyObjective, energy_front


def load(dataset, folder, samples):
    """`(x, y)` of training, validation and test, pixels from 0 to 1."""
    if dataset == "digits":
        from sklearn.datasets import load_digits

        digits = load_digits()
        order = np.random.default_rng(0).permutation(len(digits.target))
        x, y = digits.data[order].astype("float32") / 16, digits.target[order]
        return (x[:1000], y[:1000]), (x[1000:1400], y[1000:1400]), (x[1400:], y[1400:])
    (x, y), test = load_mnist(folder)
    if samples > 50_000:
        raise SystemExit("--samples: at most 50000; the last 10000 validate.")

    def scaled(part):
        return part[0].reshape(len(part[0]), -1).astype("float32") / 255, part[1].astype("int32")

    return scaled((x[:samples], y[:samples])), scaled((x[-10_000:], y[-10_000:])), scaled(test)


class Say(keras.callbacks.Callback):
    """Prints which trial begins, of how many, and the estimated time that is left."""

    def __init__(self, oracle, trials):
        super().__init__()
        self.oracle = oracle
        self.trials = trials
        self.begin = time.monotonic()
        self.first = None

    def __deepcopy__(self, memo):  # keras-tuner copies callbacks for every trial
        return self

    def on_train_begin(self, logs=None):
        number = len(self.oracle.trials)
        self.first = self.first or number
        done = number - self.first
        left = (time.monotonic() - self.begin) / max(done, 1) * (self.trials - number + 1)
        about = f", about {left / 60:.0f} min left in this search" if done else ""
        print(f"   trial {number} of {self.trials}{about}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", choices=("digits", "mnist"), default="digits")
    parser.add_argument("--data", help="folder with mnist.npz; default: download by Keras")
    parser.add_argument("--samples", type=int, default=10_000, help="training images of MNIST")
    parser.add_argument("--device", nargs="*", default=["stt_reference"], help="preset names")
    parser.add_argument(
        "--deltas",
        type=float,
        nargs="+",
        default=[0.0, 0.01, 0.04],
        help="accuracy given up for half the energy, one search each",
    )
    parser.add_argument("--trials", type=int, default=16, help="trials of every search")
    parser.add_argument("--epochs", type=int, default=20)
    parser.add_argument("--output", default="results/energy_accuracy_front")
    parser.add_argument("--fast", action="store_true")
    args = parser.parse_args()
    if args.fast:
        args.trials, args.epochs, args.deltas, args.samples = 2, 2, [0.01], 500

    training, validation, test = load(args.dataset, args.data, args.samples)
    output = pathlib.Path(args.output)
    network = dense_classifier(training[0].shape[1:], 10, hidden=(2, 64), learning_rate=(3e-3, 0.1))
    rows, tuners = [], {}
    for k, delta in enumerate(args.deltas):
        print(f"search {k + 1} of {len(args.deltas)}, delta {delta:g}", flush=True)
        hypermodel = SpinHyperModel(
            network, EnergyObjective(delta=delta, rate=2.0), device=args.device
        )
        tuner = durable(kt.BayesianOptimization)(
            hypermodel,
            objective=hypermodel.objective.objective,
            max_trials=args.trials,
            num_initial_points=max(2, args.trials // 2),
            seed=1 + len(tuners),
            directory=output,
            project_name=f"{args.dataset}_delta_{delta:g}",
        )
        tuner.search(
            *training,
            validation_data=validation,
            epochs=args.epochs,
            batch_size=32,
            callbacks=[Say(tuner.oracle, args.trials)],
            verbose=0,
        )
        tuners[delta] = tuner
        rows += [{**row, "delta": delta} for row in energy_front(tuner)]

    # The front of all searches together.
    rows.sort(key=lambda row: (row["energy_pj"], -row["metric"]))
    best = -1.0
    for row in rows:
        row["on_front"] = row["metric"] > best
        best = max(best, row["metric"])
    front = [row for row in rows if row["on_front"]]

    print(f"{'energy pJ':>10} {'val %':>6} {'test %':>7} {'hidden':>6} {'delta':>6}  settings")
    for row in front:
        tuner = tuners[row["delta"]]
        model = tuner.load_model(tuner.oracle.get_trial(row["trial_id"]))
        report = spinkeras.energy_report(model, test[0][:1000], print_fn=None)
        row["test"] = model.evaluate(*test, verbose=0, batch_size=500)[1]
        row["test_pj"] = report.total_pj
        values = row["values"]
        print(
            f"{row['test_pj']:10.3f} {row['metric']:6.1%} {row['test']:7.1%} "
            f"{values['hidden']:6d} {row['delta']:6g}  {values['spin_shortest_pulse_ns']:.1f} ns, "
            f"gain {values['spin_gain']:.2f}, train {values['spin_train']}"
        )

    path = output / f"{args.dataset}_front.png"
    draw(rows, front, args, path)
    print(f"figure: {path}")


def draw(rows, front, args, path):
    figure, axes = plt.subplots(figsize=(6.4, 4.4), layout="constrained")
    pulses = [row["values"]["spin_shortest_pulse_ns"] for row in rows]
    points = axes.scatter(
        [row["energy_pj"] for row in rows],
        [100 * (1 - row["metric"]) for row in rows],
        c=pulses,
        norm=matplotlib.colors.LogNorm(2, 10),
        cmap="viridis",
        s=22,
        alpha=0.8,
        linewidths=0,
    )
    axes.step(
        [row["energy_pj"] for row in front],
        [100 * (1 - row["metric"]) for row in front],
        where="post",
        color="0.3",
        linewidth=1,
        label="front (validation data)",
    )
    axes.plot(
        [row["test_pj"] for row in front],
        [100 * (1 - row["test"]) for row in front],
        "x",
        color="crimson",
        markersize=6,
        label="the same networks on test data",
    )
    axes.set_xscale("log")
    axes.set_yscale("log")
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
        axis.set_minor_formatter(matplotlib.ticker.NullFormatter())
    axes.set_xlabel("energy of the spin neurons (pJ per inference)")
    axes.set_ylabel("error (%)")
    axes.set_title(f"{args.dataset}: {len(rows)} networks with one hidden layer")
    axes.legend(frameon=False)
    axes.grid(alpha=0.25, which="both", linewidth=0.5)
    bar = figure.colorbar(points, label="shortest pulse (ns)", ticks=[2, 3, 5, 10])
    bar.ax.set_yticklabels(["2", "3", "5", "10"])
    bar.ax.minorticks_off()
    figure.savefig(path, dpi=150)


if __name__ == "__main__":
    main()
