"""Train a network on digits in three ways: with fixed knobs, trained pulse width, both knobs.

    python examples/trainable_activation.py                          # scikit-learn digits
    python examples/trainable_activation.py --dataset mnist          # MNIST, published protocol
    python examples/trainable_activation.py --dataset mnist --data FOLDER   # with FOLDER/mnist.npz

The protocol is the one published with the trainable spintronic neuron (arXiv 2211.13391): two
dense layers with 25 hidden neurons, a spin neuron on both, summed binary cross-entropy, full-batch
gradient descent with learning rate 0.3, pixels divided by 1000. The small digits are scaled to the
same pixel range. With the same seed all three networks start from the same weights, and all at the
shortest pulse (2 ns).

The script prints a table and writes a figure and its numbers (JSON). A run that was stopped
continues with the first missing network (delete the JSON file to start again).
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

ARMS = {
    "fixed slope": (),
    "trained pulse width": ("pulse_width",),
    "trained pulse width + anisotropy": ("pulse_width", "anisotropy"),
}
STEPS_PER_EPOCH = 20


def load(dataset, folder, seed):
    """`(x_train, y_train), (x_test, y_test)`: flat float32 pixels and integer labels."""
    if dataset == "mnist":
        (x, y), (x_test, y_test) = load_mnist(folder)
        x, x_test = (a.reshape(len(a), -1) / 1000.0 for a in (x, x_test))
    else:
        from sklearn.datasets import load_digits
        from sklearn.model_selection import train_test_split

        x, y = load_digits(return_X_y=True)
        x = x / 16 * 0.255  # the pixel range of MNIST / 1000
        x, x_test, y, y_test = train_test_split(x, y, test_size=0.25, random_state=seed, stratify=y)
    return (x.astype("float32"), y), (x_test.astype("float32"), y_test)


def build(inputs, train, seed):
    """784-25-10 (or 64-25-10) with a spin neuron after both dense layers."""
    model = keras.Sequential([keras.Input((inputs,))])
    sizes = (inputs, 25, 10)
    for k in (0, 1):
        limit = (6 / (sizes[k] + sizes[k + 1])) ** 0.5
        start = [
            keras.initializers.RandomUniform(-limit, limit, seed=10 * seed + 2 * k + j)
            for j in (0, 1)
        ]
        model.add(
            keras.layers.Dense(sizes[k + 1], kernel_initializer=start[0], bias_initializer=start[1])
        )
        model.add(spinkeras.SpinNeuron(train=train, name=f"spin_{k + 1}"))
    model.compile(
        keras.optimizers.SGD(0.3),
        summed_cross_entropy,
        metrics=["categorical_accuracy"],
    )
    return model


def summed_cross_entropy(y_true, y_pred):
    """Binary cross-entropy summed over the ten outputs, one value per sample."""
    return 10 * keras.losses.binary_crossentropy(y_true, y_pred)


def run(arm, seed, args):
    """Train one network; returns plain numbers."""
    (x, y), (x_test, y_test) = load(args.dataset, args.data, seed)
    keras.utils.set_random_seed(seed)
    model = build(x.shape[1], ARMS[arm], seed)
    one_hot, one_hot_test = (keras.utils.to_categorical(labels, 10) for labels in (y, y_test))
    batch = tf.data.Dataset.from_tensors((x, one_hot)).repeat()
    history = model.fit(
        batch,
        steps_per_epoch=STEPS_PER_EPOCH,
        epochs=args.steps // STEPS_PER_EPOCH,
        validation_data=(x_test, one_hot_test),
        validation_batch_size=2000,
        callbacks=[spinkeras.EnergyTracker()],
        shuffle=False,
        verbose=0,
    ).history
    report = spinkeras.energy_report(model, x_test, batch_size=2000, print_fn=None)
    neurons = spinkeras.spin_neurons(model)
    disturbed = {}  # accuracy with one pulse per neuron, by the length of a disturbing read
    for read_time in (0.0, 2e-9):
        spread = spinkeras.ChipSpread(read_time=read_time)
        chips = spinkeras.evaluate_chips(
            model, x_test, y_test, spread, chips=5, pulses=1, progress=False
        )
        disturbed[f"{read_time:g}"] = 100 * float(chips.accuracy.mean())
    return {
        "arm": arm,
        "seed": seed,
        "accuracy": 100 * history["val_categorical_accuracy"][-1],
        "accuracy_by_epoch": [round(100 * a, 3) for a in history["val_categorical_accuracy"]],
        "energy_by_epoch": [round(e, 4) for e in history["val_energy_pj"]],
        "energy_pj": report.total_pj,
        "write_pj": sum(row["write_pj"] for row in report.layers),
        "gate_pj": sum(row["gate_pj"] for row in report.layers),
        "latency_ns": report.latency_ns,
        "pulse_width_ns": [np.round(n.pulse_width * 1e9, 4).tolist() for n in neurons],
        "gate_voltage": [np.round(n.gate_voltage, 4).tolist() for n in neurons],
        "at_limit": {
            end: sum(row["at_limit"][end] * n.slope.size for row, n in zip(report.layers, neurons))
            / sum(n.slope.size for n in neurons)
            for end in report.layers[0]["at_limit"]
        },
        "thermal_stability": min(row["thermal_stability"] for row in report.layers),
        "retention_s": min(row["retention_s"] for row in report.layers),
        "accuracy_of_bits": disturbed,
        "slope": [np.round(n.slope, 4).tolist() for n in neurons],
    }


def summarise(results):
    """The table, as text."""
    head = ("arm", "test accuracy %", "energy pJ", "/ fixed", "write pJ", "/ fixed", "latency ns")
    rows = [(*head, "pulse widths ns", "gate voltages V")]
    base = None
    for arm in ARMS:
        runs = [r for r in results if r["arm"] == arm]
        base = base or runs
        accuracy = [r["accuracy"] for r in runs]
        spread = statistics.stdev(accuracy) if len(runs) > 1 else 0.0
        row = [arm, f"{statistics.mean(accuracy):.2f} +- {spread:.2f}"]
        for key in ("energy_pj", "write_pj"):
            mean = statistics.mean(r[key] for r in runs)
            ratio = statistics.mean(r[key] / b[key] for r, b in zip(runs, base))
            row += [f"{mean:.2f}", f"{ratio:.3f}"]
        row.append(f"{statistics.mean(r['latency_ns'] for r in runs):.1f}")
        for key, form in (
            ("pulse_width_ns", "{:.1f}..{:.1f}"),
            ("gate_voltage", "{:+.2f}..{:+.2f}"),
        ):
            values = [v for r in runs for layer in r[key] for v in layer]
            row.append(form.format(min(values), max(values)))
        rows.append(row)
    widths = [max(len(str(row[k])) for row in rows) for k in range(len(rows[0]))]
    lines = ["  ".join(str(c).ljust(w) for c, w in zip(row, widths)).rstrip() for row in rows]
    ends = [f"{arm}: {where_it_ends([r for r in results if r['arm'] == arm])}" for arm in ARMS]
    return "\n".join([lines[0], "-" * len(lines[0]), *lines[1:], "", *ends])


def where_it_ends(runs):
    """Share of neurons at a limit of the device, and the lowest retention, in words."""
    shares = {end: statistics.mean(r["at_limit"][end] for r in runs) for end in runs[0]["at_limit"]}
    bits = [
        statistics.mean(values) for values in zip(*(r["accuracy_of_bits"].values() for r in runs))
    ]
    reached = [f"{share:.0%} at the {end}" for end, share in shares.items() if share]
    return (
        f"{', '.join(reached) or 'none at a limit'}; least thermal stability "
        f"{min(r['thermal_stability'] for r in runs):.1f}, retention "
        f"{min(r['retention_s'] for r in runs):.3g} s; one pulse per neuron {bits[0]:.1f} %, with "
        f"read disturb {bits[1]:.1f} %"
    )


def plot(results, path):
    """Switching curves before and after, accuracy by step, energy by step."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 3, figsize=(13, 3.9), layout="constrained")
    device = spinkeras.MTJDevice.preset("stt_reference")
    trained = next(r for r in results if r["arm"] == "trained pulse width + anisotropy")
    scale = 0.25 / float(spinkeras.slope_at_midpoint(device.nominal_pulse_width, device))
    x = np.linspace(-8, 8, 400)

    def curve(width, voltage):
        anisotropy = device.anisotropy_at(voltage)
        middle = spinkeras.midpoint_current(width, device, anisotropy)
        return spinkeras.switching_probability(middle + scale * x, width, device, anisotropy)

    knobs = zip(trained["pulse_width_ns"][0], trained["gate_voltage"][0])
    for k, (width, voltage) in enumerate(knobs):
        label = "after training, hidden neurons" if k == 0 else None
        axes[0].plot(x, curve(width * 1e-9, voltage), color="C2", lw=0.8, alpha=0.6, label=label)
    axes[0].plot(x, curve(device.nominal_pulse_width, 0.0), "k--", lw=2, label="before, 2 ns")
    axes[0].plot(x, 1 / (1 + np.exp(-x)), color="0.6", lw=1, ls=":", label="logistic sigmoid")
    axes[0].set(xlabel="input $x$ (drive current - midpoint, units of current_scale)")
    axes[0].set(ylabel="switching probability", title="Switching curves")
    axes[0].legend(loc="lower right", fontsize=8)
    for key, ax, title in (
        ("accuracy_by_epoch", axes[1], "Test accuracy (%)"),
        ("energy_by_epoch", axes[2], "Energy per inference (pJ), spin neurons"),
    ):
        for k, arm in enumerate(ARMS):
            runs = np.array([r[key] for r in results if r["arm"] == arm])
            steps = STEPS_PER_EPOCH * np.arange(1, runs.shape[1] + 1)
            ax.plot(steps, runs.mean(0), color=f"C{k}", label=arm)
            ax.fill_between(steps, runs.min(0), runs.max(0), color=f"C{k}", alpha=0.2, lw=0)
        ax.set(xlabel="gradient step", title=title)
        ax.grid(alpha=0.3)
    axes[1].set_ylim(bottom=max(0, axes[1].get_ylim()[0]))
    axes[1].legend(loc="lower right", fontsize=8)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", choices=("digits", "mnist"), default="digits")
    parser.add_argument("--data", help="folder with mnist.npz (default: download by Keras)")
    parser.add_argument("--seeds", type=int, default=3, help="repetitions, default 3")
    parser.add_argument("--steps", type=int, default=1000, help="gradient steps, default 1000")
    parser.add_argument("--output", default="results", help="folder for figure and JSON")
    args = parser.parse_args()
    if args.seeds < 1:
        parser.error("--seeds must be at least 1")
    if args.steps < STEPS_PER_EPOCH:
        parser.error(f"--steps must be at least {STEPS_PER_EPOCH}")
    seeds = range(args.seeds)
    output = pathlib.Path(args.output)
    stem = output / f"trainable_activation_{args.dataset}"
    work = LongWork(stem.with_suffix(".json"), {"dataset": args.dataset, "steps": args.steps})
    results = work(
        {
            f"{arm}, seed {seed}": functools.partial(run, arm, seed, args)
            for seed in seeds
            for arm in ARMS
        }
    )
    results = list(results.values())
    print(f"\n{summarise(results)}")
    plot(results, stem.with_suffix(".png"))
    print(f"\nwrote {stem.with_suffix('.png')} and {stem.with_suffix('.json')}")


if __name__ == "__main__":
    main()
