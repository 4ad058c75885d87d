"""Fit a device to measured switching counts and use it in a network.

    python examples/calibrate_device.py              # half a minute
    python examples/calibrate_device.py my_data.csv --device stt_reference --resistance 8000
    python examples/calibrate_device.py gated.csv --free anisotropy damping vcma_coefficient
    python examples/calibrate_device.py lab.xlsx --where device_id=A direction=up --trials 50

Without a file it fits two tables:

1. Measured counts of a three-terminal spin-orbit-torque junction (80 nm, 0.75 ns pulses, 50 pulses
   per voltage). The values are those in the raw file names of the MIT-licensed repository
   JinChengZ18/vgsot-sim. A macrospin cannot describe them, and the fit reports this; an empirical
   curve can.
2. Simulated counts of a spin-transfer-torque junction, drawn from the exact Fokker-Planck
   probability. The device has 8 % less anisotropy and 15 % less torque than its data sheet says.
   It is measured at three gate voltages, whose effect the sheet does not give. The fit finds all
   three numbers, with a posterior, and a network then uses the fitted device.

Your own file is fitted as a macrospin, or as an empirical curve if the preset has a measured
switching curve (`vgsot_zhang2020`). The script writes a CSV file of every table and a figure of
every fit.
"""

import argparse
import csv
import os
import pathlib
import warnings

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import spinkeras
from spinkeras import calibration
from spinkeras.macrospin import fokker_planck

THERMAL = {"a": -0.85, "b": 0.56, "c": -1.32, "d": 0.63}  # shape of thermal activation
CHANNEL = 776.0  # ohm, heavy-metal channel of the measured junction
MILLIVOLTS = (800, 820, 840, 860, 880, 900, 920, 940, 960, 980, 1000, 1020)
FRACTIONS = (0, 0.02, 0.10, 0.18, 0.34, 0.50, 0.82, 0.84, 0.90, 0.98, 0.94, 1.0)


def write_table(path, columns, rows):
    with open(path, "w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        writer.writerows(rows)
    return path


def measured_junction(output):
    rows = [(mv / 1e3, 0.75e-9, round(50 * f), 50) for mv, f in zip(MILLIVOLTS, FRACTIONS)]
    columns = ("voltage_v", "pulse_width_s", "switched", "trials")
    path = write_table(output / "sot_junction.csv", columns, rows)

    print("1. Measured spin-orbit-torque junction\n\nAs a macrospin:")
    try:
        calibration.fit_device(path, "stt_reference", resistance=CHANNEL)
    except ValueError as refusal:
        print(f"   {refusal}")
    print("\nAs an empirical curve:")
    fit = calibration.fit_empirical(path, resistance=CHANNEL)
    print(fit.summary())
    free = ("threshold", "slope")
    warnings.filterwarnings("ignore", "The fit does not describe")  # expected for the next fit
    thermal = calibration.fit_empirical(path, free, fixed=THERMAL, resistance=CHANNEL)
    print(
        f"With the shape of thermal activation the deviance is {thermal.deviance:.1f} "
        f"(p = {thermal.p_value:.1g}): rejected."
    )
    fit.plot()[0].figure.savefig(output / "sot_junction.png", dpi=130)


def simulated_junction(output, seed):
    sheet = spinkeras.MTJDevice.preset("stt_reference").replace(vcma_coefficient=0.0)
    truth = sheet.replace(
        anisotropy=0.92 * sheet.anisotropy,
        spin_torque_efficiency=0.85 * sheet.spin_torque_efficiency,
        vcma_coefficient=40e-15,
    )
    rng = np.random.default_rng(seed)
    rows = []
    for width in (2e-9, 5e-9, 20e-9):
        for gate in (-0.5, 0.0, 0.5):
            anisotropy = truth.anisotropy_at(gate)
            current = np.linspace(0.8, 1.25, 10) * spinkeras.midpoint_current(width, truth)
            probability = fokker_planck.switching_probability(current, width, truth, anisotropy)
            switched = rng.binomial(500, probability)
            rows += [(i, width, gate, k, 500) for i, k in zip(current, switched)]
    columns = ("current_a", "pulse_width_s", "gate_voltage_v", "switched", "trials")
    path = write_table(output / "stt_junction.csv", columns, rows)

    print("\n2. Simulated spin-transfer-torque junction\n")
    free = ("anisotropy", "spin_torque_efficiency", "vcma_coefficient")
    print("The fit, and 4000 draws from its posterior (about 20 s) ...\n", flush=True)
    fit = calibration.fit_device(path, sheet, free, posterior=True, seed=seed)
    print(fit.summary())
    print("true values: " + ", ".join(f"{name} {getattr(truth, name):.5g}" for name in free))
    print(f"\nPosterior:\n{fit.posterior.summary()}")
    fit.plot()[0].figure.savefig(output / "stt_junction.png", dpi=130)

    # The effect of the uncertainty on the activation ...
    drawn = calibration.sample_devices(fit, 200, seed=seed)
    midpoint = np.array([spinkeras.midpoint_current(2e-9, d) for d in drawn]) * 1e6
    print(
        f"\nmidpoint at 2 ns: {midpoint.mean():.2f} +- {midpoint.std():.2f} uA (not known better)"
    )
    # ... and, which is something else, the effect of the spread on a chip.
    chip = calibration.sample_devices(
        fit.device, 200, seed=seed, spread={"diameter": 0.03, "anisotropy": 0.05}
    )
    midpoint = np.array([spinkeras.midpoint_current(2e-9, d) for d in chip]) * 1e6
    print(
        f"on a chip (3 % diameter, 5 % anisotropy): {midpoint.mean():.2f} +- {midpoint.std():.2f}"
    )

    neuron = spinkeras.SpinNeuron(fit.device)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), neuron])
    print(
        f"In a network {model.count_params()} parameters, {neuron.current_scale * 1e6:.2f} uA per "
        f"unit of input, bias {neuron.bias_current[0] * 1e6:.2f} uA."
    )


def own_data(args, output):
    device = spinkeras.physics.get_device(args.device)
    table = calibration.read_table(
        args.data,
        args.resistance or device.write_path_resistance,
        pulse_width=args.pulse_width,
        trials=args.trials,
        where=dict(pair.split("=", 1) for pair in args.where) or None,
    )
    if device.switching_curve is None:
        free = args.free or ("anisotropy", "spin_torque_efficiency")
        fit = calibration.fit_device(table, device, free)
    else:
        fit = calibration.fit_empirical(table, args.free, device=device)
    print(fit.summary())
    fit.plot()[0].figure.savefig(output / "calibration.png", dpi=130)
    (output / "device.json").write_text(fit.device.to_json() + "\n")
    print(f"wrote {output / 'calibration.png'} and {output / 'device.json'}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("data", nargs="?", help="text file or workbook, see docs/calibration.md")
    parser.add_argument(
        "--device", default="stt_reference", help="preset, or a file of MTJDevice.save"
    )
    parser.add_argument("--free", nargs="+", help="fields to fit; default see the library")
    parser.add_argument("--resistance", type=float, help="ohm, for a table of voltages")
    parser.add_argument("--where", nargs="+", default=[], help="rows to use: column=value ...")
    parser.add_argument("--pulse-width", type=float, help="s, for a file without such a column")
    parser.add_argument("--trials", type=int, help="pulses at every row, instead of a column")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", default="results", help="folder for figures and tables")
    args = parser.parse_args()
    output = pathlib.Path(args.output)
    output.mkdir(parents=True, exist_ok=True)
    if args.data:
        own_data(args, output)
        return
    measured_junction(output)
    simulated_junction(output, args.seed)
    print(f"\nwrote tables and figures to {output}")


if __name__ == "__main__":
    main()
