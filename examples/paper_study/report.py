"""Make the tables and figures of the study from its stored results.

    python examples/paper_study/report.py [--dataset digits] [--docs FOLDER]

The script writes `paper_study_<dataset>_*.png` into the folder. For MNIST it also writes the tables
into `results.md` there, between the marks `<!-- table NAME -->` and `<!-- end -->`. It skips
experiments with missing runs and prints their names.
"""

import argparse
import os
import pathlib
import re
import sys

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from experiments import BOUNDS, EXPERIMENTS
from runs import Study
from scipy import optimize, stats

import spinkeras


def column(results, key):
    return np.array([result[key] for result in results])


def spread(values):
    """`mean +- sd [95 % interval of the mean]` by Student's t, as text."""
    values = np.asarray(values, "float64")
    if len(values) < 2:
        return f"{values.mean():.2f}"
    sd = values.std(ddof=1)
    half = stats.t.ppf(0.975, len(values) - 1) * sd / len(values) ** 0.5
    mean = values.mean()
    return f"{mean:.2f} +- {sd:.2f} [{mean - half:.2f}, {mean + half:.2f}]"


def table(head, rows):
    """A Markdown table."""
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(str(cell) for cell in line) + " |" for line in lines)


def common(results, base):
    """Cells of every table: accuracy, paired difference, energy, its ratio, latency."""
    base = base[: len(results)]
    energy, reference = column(results, "energy_pj"), column(base, "energy_pj")
    difference = column(results, "accuracy") - column(base, "accuracy")
    return [
        spread(column(results, "accuracy")),
        spread(difference) if np.any(difference) else "",
        f"{energy.mean():.2f}",
        f"{np.mean(energy / reference):.3f}",
        f"{column(results, 'latency_ns').mean():.0f}",
        f"{column(results, 'at_limit').mean():.0%}" if _moved(results) else "-",
    ]


def _moved(results):
    """Whether the pulse widths differ from neuron to neuron."""
    widths = column(results, "pulse_width_ns")
    return np.any(widths[:, 0] != widths[:, -1])


COMMON = ("test accuracy %", "difference", "energy pJ", "/ fixed", "latency ns", "at a limit")


def arms(results):
    """Table that compares all arms with the first one."""
    base = next(iter(results.values()))
    return table(("arm", *COMMON), [[arm, *common(some, base)] for arm, some in results.items()])


def tuned_arms(results):
    """Like `arms`, with the chosen learning rates."""
    base = next(iter(results.values()))
    rows = [[arm, f"{some[0]['rate']:g}", *common(some, base)] for arm, some in results.items()]
    return table(("arm", "rate", *COMMON), rows)


def components(results):
    """Energy by component, at the end and when an arm first reaches the fixed arm's accuracy."""
    goal = np.mean(column(results["fixed"], "accuracy"))
    rows = []
    for arm, some in results.items():
        parts = [f"{column(some, f'{part}_pj').mean():.2f}" for part in PARTS]
        curve = np.array([result["curve"] for result in some]).mean(0)
        reached = np.flatnonzero(curve[:, 1] >= goal - 0.05)
        first = curve[reached[0]] if len(reached) else None
        at = ("-", "-") if first is None else (f"{first[0]:.0f}", f"{first[2]:.2f}")
        rows.append([arm, *parts, f"{column(some, 'energy_pj').mean():.2f}", *at])
    head = ("arm", *(f"{part} pJ" for part in PARTS), "total pJ")
    return table((*head, f"steps to {goal:.1f} %", "pJ there"), rows)


def ties(results):
    """Slope and threshold by pulse width, and the anisotropy that would restore the threshold."""
    layer = spinkeras.SpinNeuron()
    device, scale = layer.device, layer.current_scale
    nominal = spinkeras.midpoint_current(device.nominal_pulse_width, device)
    highest = device.anisotropy * 90 / device.thermal_stability  # end of the closed form

    def excess(anisotropy, width):
        return float(spinkeras.midpoint_current(width, device, anisotropy) - nominal) / scale

    rows = []
    for width in (2e-9, 2.3e-9, 3e-9, 4e-9, 8e-9, 20e-9):
        slope = 4 * scale * float(spinkeras.slope_at_midpoint(width, device))
        needed = f"> {highest / device.anisotropy:.2f}"
        if excess(highest * 0.999, width) > 0:
            found = optimize.brentq(excess, device.anisotropy * 0.9, highest * 0.999, args=(width,))
            needed = f"{found / device.anisotropy:.2f}"
        shift = excess(device.anisotropy, width)
        rows.append([f"{width * 1e9:g}", f"{slope:.2f}", f"{shift:+.2f}", needed])
    gate = device.anisotropy_at(device.gate_voltage_range[0]) / device.anisotropy
    head = ("pulse width ns", "slope", "threshold", f"anisotropy to undo it (gate: {gate:.2f})")
    return table(head, rows)


PARTS = ("write", "gate", "read", "reset")


def bounded(results):
    rows = []
    for (bound, arm), some in results.items():
        base = results[bound, "fixed, 2 ns"]
        width, gain, rate = some[0]["chosen"]
        chosen = {"best fixed pulse width": f" ({width * 1e9:g} ns)"}
        chosen["best fixed gain, 2 ns"] = f" ({gain:g} x)"
        rows.append([f"{bound:g}", arm + chosen.get(arm, ""), f"{rate:g}", *common(some, base)])
    return table(("abs(w) <=", "arm", "rate", *COMMON), rows)


def budgets(results):
    rows = []
    for (arm, budget), some in results.items():
        energy = column(some, "energy_pj")
        limit = "none" if budget is None else f"{budget:g}"
        rows.append(
            [
                arm,
                limit,
                spread(column(some, "accuracy")),
                f"{energy.mean():.2f}",
                f"{energy.max():.2f}",
                f"{column(some, 'latency_ns').mean():.0f}",
            ]
        )
    head = ("arm", "limit pJ", "test accuracy %", "energy pJ", "largest", "latency ns")
    return table(head, rows)


def pulses(results):
    counts = sorted(next(iter(results.values()))[0]["bits"], key=int)
    rows = []
    for (output, arm), some in results.items():
        trained = {"probability": "expected values", "sampled": "single pulses"}[output]
        bits = [np.mean([result["bits"][n] for result in some]) for n in counts]
        cells = [f"{value:.2f}" for value in bits]
        rows.append([trained, arm, *cells, spread(column(some, "accuracy"))])
    head = ("trained on", "arm", *(f"N = {n}" for n in counts), "expected value")
    return table(head, rows)


def widths(results):
    rows = []
    for (hidden, arm), some in results.items():
        base = results[hidden, "fixed"]
        curve = np.array([result["curve"] for result in some]).mean(0)
        early = [f"{curve[k, 1]:.2f}" for k in (0, 1, 4)]
        rows.append([hidden, arm, f"{some[0]['rate']:g}", *early, *common(some, base)])
    return table(("hidden", "arm", "rate", "10 % of the steps", "20 %", "50 %", *COMMON), rows)


TABLES = {
    "faithful": (("faithful", arms), ("components", components), ("ties", ties)),
    "faithful_tuned": (("faithful_tuned", tuned_arms),),
    "tuned": (("tuned", tuned_arms),),
    "bounded": (("bounded", bounded),),
    "budgets": (("budgets", budgets),),
    "pulses": (("pulses", pulses),),
    "widths": (("widths", widths),),
    "lengths": (("lengths", widths),),
}


# --- figures -------------------------------------------------------------------------------------


def draw_training(results, axes):
    """Accuracy and energy over the steps."""
    for k, (arm, some) in enumerate(results.items()):
        curve = np.array([result["curve"] for result in some])
        for ax, n in zip(axes, (1, 2)):
            ax.plot(curve[0, :, 0], curve[:, :, n].mean(0), color=f"C{k}", label=arm)
            low, high = curve[:, :, n].min(0), curve[:, :, n].max(0)
            ax.fill_between(curve[0, :, 0], low, high, color=f"C{k}", alpha=0.2, lw=0)
    axes[0].set(title="Test accuracy (%)", xlabel="gradient step")
    axes[1].set(title="Energy per inference (pJ)", xlabel="gradient step", yscale="log")
    axes[0].legend(fontsize=7)


def draw_ties(ax):
    """Slopes and thresholds that one device can have, which are tied to each other."""
    layer = spinkeras.SpinNeuron()
    device, scale = layer.device, layer.current_scale
    widths = np.geomspace(*device.pulse_width_range, 60)
    nominal = spinkeras.midpoint_current(device.nominal_pulse_width, device)
    for volt, style in ((-1.0, ":"), (0.0, "-"), (1.0, "--")):
        anisotropy = device.anisotropy_at(volt)
        middle = spinkeras.midpoint_current(widths, device, anisotropy)
        slope = 4 * scale * spinkeras.slope_at_midpoint(widths, device, anisotropy)
        ax.plot(slope, (middle - nominal) / scale, "C3" + style, label=f"gate {volt:+g} V")
    ax.axhspan(-0.35, 0.35, color="0.85", label="99 % of the hidden layer's inputs, untrained")
    ax.set(xlabel="slope (1: untrained)", ylabel="threshold (units of input)")
    ax.set_title("Threshold tied to the slope, 2 to 20 ns")
    ax.legend(fontsize=7)


def draw_bounded(results, ax):
    names = list(dict.fromkeys(arm for _, arm in results))
    for k, arm in enumerate(names):
        values = [column(results[bound, arm], "accuracy") for bound in BOUNDS]
        place = np.arange(len(BOUNDS)) + (k - (len(names) - 1) / 2) * 0.16
        error = [v.std(ddof=1) for v in values]
        ax.bar(place, [v.mean() for v in values], 0.15, yerr=error, color=f"C{k}", label=arm)
    ax.set_xticks(range(len(BOUNDS)), [f"{bound:g}" for bound in BOUNDS])
    lowest = min(column(some, "accuracy").min() for some in results.values())
    ax.set(xlabel="largest absolute weight", title="Bounded synapses: test accuracy (%)")
    ax.set_ylim(np.floor(lowest - 1), 100)
    ax.legend(fontsize=7, loc="upper center", bbox_to_anchor=(0.5, -0.14), ncols=3)


def draw_budgets(results, ax):
    for k, arm in enumerate(dict.fromkeys(arm for arm, _ in results)):
        points = [(b, some) for (a, b), some in results.items() if a == arm]
        energy = [column(some, "energy_pj").mean() for _, some in points]
        accuracy = [column(some, "accuracy") for _, some in points]
        error = [a.std(ddof=1) for a in accuracy]
        mean = [a.mean() for a in accuracy]
        ax.errorbar(energy, mean, error, fmt="o-", ms=4, color=f"C{k}", label=arm, capsize=2)
    ax.set(xlabel="energy per inference (pJ)", title="Energy budgets: test accuracy (%)")
    ax.set_xscale("log")
    ticks = (0.7, 1, 1.5, 2, 3, 4, 5)
    ax.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    ax.minorticks_off()
    ax.legend(fontsize=8)


def figures(found, stem):
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    written = []
    if "faithful" in found:
        figure, axes = plt.subplots(1, 3, figsize=(13, 3.9), layout="constrained")
        draw_training(found["faithful"], axes)
        draw_ties(axes[2])
        written.append((figure, "training"))
    both = [(name, draw) for name, draw in DRAWN.items() if name in found]
    if both:
        figure, axes = plt.subplots(
            1, len(both), figsize=(5.5 * len(both), 4), layout="constrained", squeeze=False
        )
        for ax, (name, draw) in zip(axes[0], both):
            draw(found[name], ax)
        written.append((figure, "controls"))
    for figure, name in written:
        for ax in figure.axes:
            ax.grid(alpha=0.3)
        path = stem.with_name(f"{stem.name}_{name}.png")
        figure.savefig(path, dpi=110)
        print(f"wrote {path}")


DRAWN = {"bounded": draw_bounded, "budgets": draw_budgets}


def insert(text, name, body):
    """`text` with the table between its marks replaced."""
    pattern = re.compile(rf"(<!-- table {name} -->\n).*?(<!-- end -->)", re.S)
    if not pattern.search(text):
        raise ValueError(f"the document has no marks for the table {name!r}")
    return pattern.sub(lambda match: f"{match[1]}{body}\n{match[2]}", text)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--dataset", choices=("mnist", "digits"), default="mnist")
    parser.add_argument("--results", help="default docs/results/paper_study_<dataset>.jsonl")
    parser.add_argument("--docs", default="docs", help="folder of the figures, default docs")
    args = parser.parse_args()
    folder = pathlib.Path(args.docs)
    path = args.results or f"docs/results/paper_study_{args.dataset}.jsonl"
    study = Study(path, dataset=args.dataset, frozen=True)
    found = {}
    for name, experiment in EXPERIMENTS.items():
        try:
            found[name] = experiment(study)
        except LookupError as error:
            print(f"{name} left out: {error}", file=sys.stderr)
    page = folder / "results.md"
    text = page.read_text() if args.dataset == "mnist" and page.exists() else None
    for name, results in found.items():
        for key, make in TABLES[name]:
            body = make(results)
            print(f"\n{key}\n{body}")
            if text is not None:
                text = insert(text, key, body)
    if text is not None:
        page.write_text(text)
    folder.mkdir(parents=True, exist_ok=True)
    figures(found, folder / f"paper_study_{args.dataset}")


if __name__ == "__main__":
    main()
