"""What the tests of the calibration share: devices, counts drawn from them, and files."""

import warnings

import numpy as np

import spinkeras
from spinkeras import calibration
from spinkeras.macrospin import fokker_planck

REFERENCE = spinkeras.MTJDevice.preset("stt_reference")

TRUTH = REFERENCE.replace(
    anisotropy=100e3, spin_torque_efficiency=0.5, gate_voltage_range=(0.0, 0.0)
)

FIVE_SIGMA = 5.1  # two-sided 3.4e-7

# Three-terminal spin-orbit-torque junction of 80 nm, 0.75 ns pulses through a 776 ohm channel, 50
# pulses per voltage: values as printed in the raw file names of the MIT-licensed repository
# JinChengZ18/vgsot-sim.
MEASURED = {
    "voltage_v": np.arange(800, 1021, 20) / 1e3,
    "pulse_width_s": np.full(12, 0.75e-9),
    "switched": 50 * np.array([0, 0.02, 0.1, 0.18, 0.34, 0.5, 0.82, 0.84, 0.9, 0.98, 0.94, 1]),
    "trials": np.full(12, 50),
}


def settings(device, widths=(2e-9, 5e-9, 20e-9), points=9):
    width = np.repeat(widths, points)
    relative = np.tile(np.linspace(0.8, 1.25, points), len(widths))
    return relative * spinkeras.midpoint_current(width, device), width


def counts(probability, trials, seed):
    trials = np.full(np.shape(probability), trials)
    return np.random.default_rng(seed).binomial(trials, probability), trials


def synthetic(device=TRUTH, widths=(2e-9, 5e-9, 20e-9), trials=400, seed=1):
    current, width = settings(device, widths)
    probability = spinkeras.switching_probability(current, width, device)
    switched, trials = counts(probability, trials, seed)
    return dict(current_a=current, pulse_width_s=width, switched=switched, trials=trials)


def small_table(**columns):
    table = {
        "current_a": [60e-6, 66e-6, 72e-6, 78e-6, 84e-6, 90e-6],
        "pulse_width_s": [2e-9] * 6,
        "switched": [154, 298, 461, 614, 738, 830],
        "trials": [1000] * 6,
    }
    table.update(columns)
    return {name: values for name, values in table.items() if values is not None}


GATED = REFERENCE.replace(vcma_coefficient=38e-15, anisotropy=105e3)


def gated(device=GATED, gates=(-0.8, 0.0, 0.8), trials=400, seed=21, widths=(2e-9, 20e-9)):
    """Counts drawn from the exact solution, at currents set for zero gate voltage."""
    gate = np.repeat(gates, 9 * len(widths))
    current, width = (np.tile(v, len(gates)) for v in settings(device, widths))
    exact = fokker_planck.switching_probability(current, width, device, device.anisotropy_at(gate))
    switched, trials = counts(exact, trials, seed)
    return dict(
        current_a=current,
        pulse_width_s=width,
        gate_voltage_v=gate,
        switched=switched,
        trials=trials,
    )


WAY = ["P->AP"] * 3 + ["AP->P"] * 3


def read(table, **options):
    """The table and what the one line of guesses says, if any."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = calibration.read_table(table, **options)
    return found, " ".join(str(warning.message) for warning in caught)


HEADER = "current_a,pulse_width_s,switched,trials"


def write(tmp_path, text, encoding="utf-8"):
    path = tmp_path / "data.csv"
    path.write_bytes(text.encode(encoding))
    return path


def drawn(table, trials, seed):
    """Counts drawn at these currents, pulse widths and probabilities."""
    current, width, probability = table
    switched = np.random.default_rng([seed, trials]).binomial(trials, probability)
    return dict(
        current_a=current,
        pulse_width_s=width,
        switched=switched,
        trials=np.full(current.size, trials),
    )


CURVE = spinkeras.EmpiricalCurve(threshold=1e-3, slope=5e3, pulse_width=1e-9)
THERMAL = {"a": -0.85, "b": 0.56, "c": -1.32, "d": 0.63}  # its shape in thermal activation


def drawn_curve(shape, trials, seed):
    """A table of 15 currents, drawn from `CURVE` of another shape."""
    current = np.linspace(0.7e-3, 1.3e-3, 15)
    p = CURVE.replace(**shape).switching_probability(current, 1e-9)
    return drawn((current, np.full(15, 1e-9), p), trials, seed)


def of_curve(trials=1000, ceiling=1.0, points=25, seed=0):
    """Counts drawn from `CURVE`, perhaps with a plateau below 1."""
    rng = np.random.default_rng(seed)
    current = np.linspace(0.7e-3, 1.3e-3, points)
    p = CURVE.replace(ceiling=ceiling).switching_probability(current, 1e-9)
    return dict(
        current_a=current,
        pulse_width_s=np.full(points, 1e-9),
        switched=rng.binomial(trials, p),
        trials=np.full(points, trials),
    )
