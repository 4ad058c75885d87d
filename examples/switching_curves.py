"""Compute switching curves of a junction in three ways, and the slope over its two knobs.

    python examples/switching_curves.py                       # half a minute on one core
    python examples/switching_curves.py --trajectories 500    # quicker, larger error bars
    python examples/switching_curves.py --device vcma_uta2022
    python examples/switching_curves.py --device mine.json    # of MTJDevice.save

Figure 1 shows `P(I)` for several pulse widths: the exact Fokker-Planck solution (lines), the closed
form that `SpinNeuron` uses (dashed), and simulations of the stochastic LLG equation (points with
exact 95 % intervals). Figure 2 shows the slope at the midpoint over pulse width and anisotropy, for
the absolute current and for the current relative to the critical current. It shows which knob
changes the slope in which regime.

The script writes both figures and their numbers (JSON).
"""

import argparse
import json
import os
import pathlib

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

import spinkeras
from spinkeras.macrospin import fokker_planck, llg
from spinkeras.physics import laws

WIDTHS = (1e-9, 2e-9, 3e-9, 5e-9, 10e-9, 20e-9)
LEVELS = (0.02, 0.1, 0.3, 0.5, 0.7, 0.9, 0.98)


def curves(device, trajectories):
    """For every pulse width: exact and closed-form P on a fine grid, and simulated points."""
    rows = []
    for number, width in enumerate(WIDTHS):
        middle = float(spinkeras.midpoint_current(width, device))
        reach = 0.5 / float(spinkeras.slope_at_midpoint(width, device))
        fine = np.linspace(max(0.0, middle - 2.2 * reach), middle + 2.6 * reach, 60)
        exact = fokker_planck.switching_probability(fine, width, device)
        points = np.interp(LEVELS, exact, fine)
        result = llg.simulate_switching(
            device, points, width, trajectories=trajectories, seed=number
        )
        expected = fokker_planck.switching_probability(points, width, device)
        sigma = np.sqrt(expected * (1 - expected) / trajectories)
        rows.append(
            {
                "pulse_width_s": width,
                "current_a": fine.tolist(),
                "exact": exact.tolist(),
                "closed_form": spinkeras.switching_probability(fine, width, device).tolist(),
                "point_current_a": points.tolist(),
                "simulated": result.probability.tolist(),
                "low": result.low.tolist(),
                "high": result.high.tolist(),
                "sigmas": ((result.probability - expected) / sigma).tolist(),
            }
        )
        print(
            f"{width * 1e9:5.1f} ns: I50 {middle * 1e6:6.1f} uA; simulation within "
            f"{max(map(abs, rows[-1]['sigmas'])):.1f} sigma of the exact solution at "
            f"{len(points)} currents",
            flush=True,
        )
    return rows


def slope_map(device):
    """Slope in 1/A over pulse width (columns) and anisotropy (rows)."""
    low, high = laws.DURATION_DOMAIN
    width = np.geomspace(
        max(0.5e-9, 1.01 * low * device.diffusion_time),
        min(1e-6, 0.99 * high * device.diffusion_time),
        120,
    )
    low, high = laws.STABILITY_DOMAIN
    ends = np.array(device.anisotropy_range) * device.volume / device.thermal_energy
    stability = np.linspace(max(1.01 * low, 0.8 * ends[0]), min(0.99 * high, 1.2 * ends[1]), 80)
    anisotropy = stability * device.thermal_energy / device.volume
    slope = spinkeras.slope_at_midpoint(width, device, anisotropy[:, None])
    return width, anisotropy, slope


def plot_curves(rows, device, trajectories, path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 5), layout="constrained")
    axes = figure.subplots()
    for k, row in enumerate(rows):
        current = 1e6 * np.array(row["current_a"])
        axes.plot(current, row["exact"], f"C{k}", label=f"{row['pulse_width_s'] * 1e9:g} ns")
        axes.plot(current, row["closed_form"], "k--", linewidth=0.8)
        simulated = np.array(row["simulated"])
        bars = [simulated - row["low"], row["high"] - simulated]
        points = 1e6 * np.array(row["point_current_a"])
        axes.errorbar(points, simulated, bars, fmt="o", color=f"C{k}", markersize=4, capsize=2)
    axes.plot([], [], "k--", linewidth=0.8, label="closed form")
    axes.set(xlabel="current (uA)", ylabel="switching probability", xscale="log")
    ticks = [t for t in (10, 15, 20, 30, 50, 70, 100, 150, 200, 300) if axes.get_xlim()[0] < t]
    ticks = [t for t in ticks if t < axes.get_xlim()[1]]
    axes.set_xticks(ticks, [str(t) for t in ticks])
    axes.minorticks_off()
    axes.set_title(
        f"{shown(device)}: Fokker-Planck (lines) and {trajectories} LLG trajectories (points, "
        "95 %)",
        fontsize=10,
    )
    axes.grid(alpha=0.3)
    axes.legend(title="pulse width", fontsize=8)
    figure.savefig(path, dpi=130)


def plot_slopes(width, anisotropy, slope, device, path):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.2), layout="constrained")
    stability = anisotropy * device.volume / device.thermal_energy
    critical = device.critical_current_per_stability * stability[:, None]
    box = device.pulse_width_range, device.anisotropy_range
    for axes, values, title in zip(
        figure.subplots(1, 2),
        (slope * 1e-6, slope * critical),
        ("slope dP/dI (1/uA)", "slope in units of the critical current, Ic0(K) dP/dI"),
    ):
        levels = np.geomspace(values.min(), values.max(), 22)
        filled = axes.contourf(width * 1e9, anisotropy * 1e-3, np.log10(values), np.log10(levels))
        lines = axes.contour(
            width * 1e9, anisotropy * 1e-3, values, levels[2::3], colors="white", linewidths=0.7
        )
        axes.clabel(lines, fmt="%.2g", fontsize=7)
        bar = figure.colorbar(filled, ax=axes)
        ticks = levels[::3]
        bar.set_ticks(np.log10(ticks), labels=[f"{t:.2g}" for t in ticks])
        (left, right), (bottom, top) = (np.array(box[0]) * 1e9, np.array(box[1]) * 1e-3)
        axes.plot(
            [left, right, right, left, left], [bottom, bottom, top, top, bottom], "r", linewidth=1.5
        )
        axes.set(xscale="log", xlabel="pulse width (ns)", ylabel="anisotropy K_eff (kJ/m^3)")
        axes.set_title(title, fontsize=10)
    figure.suptitle(f"{shown(device)}; red: the range of the device's knobs", fontsize=10)
    figure.savefig(path, dpi=130)


def load(name):
    """The device of a preset's name or of a file."""
    is_file = name.lower().endswith(".json")
    device = spinkeras.MTJDevice.load(name) if is_file else spinkeras.MTJDevice.preset(name)
    if device.switching_curve is not None:
        raise ValueError(
            f"{name} has a switching curve of its own; the Fokker-Planck equation here is that of "
            "a collinear macrospin. spinkeras.plot.device draws such a device."
        )
    spinkeras.slope_at_midpoint(np.array(WIDTHS), device)  # refuses what no law describes
    return device


def shown(device):
    """The name of a device, of which matplotlib makes no formula."""
    return device.name.replace("$", r"\$")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--device",
        default="stt_reference",
        help="preset name, or a file of MTJDevice.save that ends in .json; default stt_reference",
    )
    parser.add_argument("--trajectories", type=int, default=4000, help="per point, default 4000")
    parser.add_argument("--output", default="results", help="folder for figures and JSON")
    args = parser.parse_args()
    try:
        device = load(args.device)
    except (OSError, ValueError) as error:
        parser.error(str(error))
    name = pathlib.Path(args.device).stem
    output = pathlib.Path(args.output)
    output.mkdir(parents=True, exist_ok=True)

    rows = curves(device, args.trajectories)
    width, anisotropy, slope = slope_map(device)
    sigmas = np.abs([row["sigmas"] for row in rows])
    print(f"{np.sum(sigmas < 3)} of {sigmas.size} simulated points within 3 sigma")
    names = (
        f"switching_curves_{name}.json",
        f"switching_curves_{name}.png",
        f"slope_map_{name}.png",
    )
    numbers, figure, slopes = (output / each for each in names)
    data = {
        "device": device.get_config(),
        "trajectories": args.trajectories,
        "curves": rows,
        "slope_map": {
            "pulse_width_s": width.tolist(),
            "anisotropy_j_per_m3": anisotropy.tolist(),
            "slope_per_a": slope.tolist(),
        },
    }
    numbers.write_text(json.dumps(data) + "\n")
    plot_curves(rows, device, args.trajectories, figure)
    plot_slopes(width, anisotropy, slope, device, slopes)
    print(f"wrote {figure}, {slopes} and the numbers: {numbers}")


if __name__ == "__main__":
    main()
