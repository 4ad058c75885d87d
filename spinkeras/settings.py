"""The table a driver chip needs, and the reliability of the settings in it.

One row per neuron: pulse width, gate voltage, bias current, current per unit input, and what the
setting means for the device: thermal stability, retention, read disturb, reset error.
"""

import csv
import functools
import json
import math
import os
import pathlib

import numpy as np
from keras import ops
from scipy import stats

from spinkeras import energy
from spinkeras.neuron import spin_neurons

TEN_YEARS = 10 * 365.25 * 24 * 3600.0  # s
_KEYS = ("layer", "neuron")
_DRIVE = ("pulse_width_s", "gate_voltage_v", "bias_current_a", "current_scale_a")
_MARGINS = ("thermal_stability", "retention_s", "read_disturb", "reset_error")
COLUMNS = (*_KEYS, *_DRIVE, *_MARGINS)


def device_settings(model, path=None, assumptions=None):
    """Settings of every neuron of a model, as a list of rows, and as a file.

    Columns: `layer`, `neuron` (position in the flattened knobs), `pulse_width_s`,
    `gate_voltage_v`, `bias_current_a` (at zero input), `current_scale_a` (per unit input),
    `thermal_stability`, `retention_s` (mean time to a thermal reversal with the gate at its
    setting), `read_disturb` (probability that one read reverses the device, see `read_disturb`),
    `reset_error` (probability that the reset pulse fails with the gate at its setting).

    Args:
        model: built Keras model with `SpinNeuron` layers.
        path: `.csv` or `.json` file to write, atomically. Default none.
        assumptions: `EnergyAssumptions` for read and reset.

    Returns:
        List of dictionaries; every float is kept exactly in the file.

    Raises:
        ValueError: for a model without spin layers, two spin layers of one name, or another file
            type.

    Example:

    >>> import keras, spinkeras
    >>> from spinkeras.settings import device_settings
    >>> model = keras.Sequential([keras.Input((2,)), spinkeras.SpinNeuron(name="spin")])
    >>> device_settings(model)[0]["pulse_width_s"]
    2e-09
    """
    assumptions = energy.EnergyAssumptions() if assumptions is None else assumptions
    rows = []
    for name, layer in _named_layers(model).items():
        device = layer.device
        anisotropy = layer.anisotropy.ravel()
        stability = anisotropy * device.volume / device.thermal_energy
        columns = {
            "pulse_width_s": layer.pulse_width.ravel(),
            "gate_voltage_v": layer.gate_voltage.ravel(),
            "bias_current_a": layer.bias_current.ravel(),
            "current_scale_a": np.full(anisotropy.shape, layer.current_scale),
            "thermal_stability": stability,
            "retention_s": _retention(device, stability),
            "read_disturb": read_disturb(device, stability, assumptions),
            "reset_error": _reset_error(device, stability, assumptions),
        }
        for k in range(len(anisotropy)):
            row = {"layer": name, "neuron": k}
            row.update((key, float(values[k])) for key, values in columns.items())
            rows.append(row)
    if path is not None:
        _write(rows, pathlib.Path(path))
    return rows


def apply_device_settings(model, source):
    """Set the knobs of a model from the table of `device_settings`.

    Pulse width and gate voltage are applied; bias current and current scale follow from them and
    must agree with the table to 1e-6 relative, which tells a table of another device. Nothing is
    changed unless the whole table is good.

    Args:
        model: built Keras model with the layers and sizes that the table names.
        source: rows as `device_settings` returns them, or the path of its `.csv` or `.json` file.

    Raises:
        ValueError: naming the row and the column, for anything missing, doubled, not a number or
            outside the device's range, and for a table of another device.
    """
    rows = source if isinstance(source, list) else _read(pathlib.Path(source))
    layers = _named_layers(model)
    wanted = {name: {} for name in layers}
    for number, row in enumerate(rows, 1):
        where = f"row {number}"
        if not isinstance(row, dict):
            raise ValueError(f"{where}: not a row of named columns.")
        missing = [key for key in (*_KEYS, *_DRIVE) if row.get(key) in (None, "")]
        if missing:
            raise ValueError(f"{where}: no value for {missing}; needed are {[*_KEYS, *_DRIVE]}.")
        name = row["layer"]
        if name not in layers:
            raise ValueError(
                f"{where}: the model has no spin layer {name!r}; it has {list(layers)}."
            )
        values = {key: _float(row[key], where, key) for key in ("neuron", *_DRIVE)}
        size = layers[name].pulse_width.size
        neuron = int(values["neuron"])
        if neuron != values["neuron"] or not 0 <= neuron < size:
            raise ValueError(
                f"{where}: neuron = {row['neuron']} of layer {name!r} must be a whole number from "
                f"0 to {size - 1}."
            )
        if neuron in wanted[name]:
            raise ValueError(f"{where}: neuron {neuron} of layer {name!r} stands twice.")
        device = layers[name].device
        for key, (low, high), unit in (
            ("pulse_width_s", device.pulse_width_range, "s"),
            ("gate_voltage_v", device.gate_voltage_range, "V"),
        ):
            slack = 1e-9 * max(abs(low), abs(high))
            if not low - slack <= values[key] <= high + slack:
                raise ValueError(
                    f"{where}: {key} = {values[key]:g} {unit} is outside the device's range "
                    f"[{low:g}, {high:g}] {unit}."
                )
        wanted[name][neuron] = (number, values)
    for name, found in wanted.items():
        absent = sorted(set(range(layers[name].pulse_width.size)) - set(found))
        if absent:
            raise ValueError(f"The table has no row for neurons {absent[:5]} of layer {name!r}.")

    weights = [weight for layer in layers.values() for weight in layer.knob_weights()]
    before = [ops.convert_to_numpy(weight) for weight in weights]
    try:
        for name, layer in layers.items():
            table = [wanted[name][k][1] for k in range(len(wanted[name]))]
            shape = layer.pulse_width.shape
            layer.pulse_width = np.reshape([v["pulse_width_s"] for v in table], shape)
            layer.gate_voltage = np.reshape([v["gate_voltage_v"] for v in table], shape)
            drive = {
                "bias_current_a": layer.bias_current.ravel(),
                "current_scale_a": np.full(len(table), layer.current_scale),
            }
            for key, expected in drive.items():
                given = np.array([v[key] for v in table])
                bad = np.flatnonzero(np.abs(given - expected) > 1e-6 * np.abs(expected))
                if bad.size:
                    k = bad[0]
                    raise ValueError(
                        f"row {wanted[name][k][0]}: {key} = {given[k]:g} A, but this device needs "
                        f"{expected[k]:g} A; the table belongs to another device or model."
                    )
    except ValueError:
        for weight, value in zip(weights, before):
            weight.assign(value)
        raise


def reliability(model, spread_stability=0.0, writes=1e12, assumptions=None):
    """Retention, endurance and read disturb of every spin layer at its trained settings.

    Args:
        model: built Keras model with `SpinNeuron` layers.
        spread_stability: relative sigma of the thermal stability over devices (log-normal).
        writes: write cycles a junction endures. Default 1e12.
        assumptions: `EnergyAssumptions` for the read.

    Returns:
        One dictionary per layer: `layer`; `retention_s` of the weakest neuron's nominal device;
        `retention_yield`, expected fraction of devices that keep their state for ten years;
        `inferences`, to the end of endurance, counting every pulse and a reset for every pulse
        (the worst case, `P = 1`); `read_disturb` of the worst neuron.

    Example: `reliability(model, spread_stability=0.08)[0]["retention_yield"]`.
    """
    assumptions = energy.EnergyAssumptions() if assumptions is None else assumptions
    table = []
    for name, layer in _named_layers(model).items():
        device = layer.device
        stability = layer.anisotropy.ravel() * device.volume / device.thermal_energy
        needed = device.stability_for_retention(TEN_YEARS)
        if spread_stability:
            good = stats.norm.cdf(np.log(stability / needed) / spread_stability)
        else:
            good = stability >= needed
        per_inference = layer.pulses * (2 if assumptions.reset else 1)
        table.append(
            {
                "layer": name,
                "retention_s": float(_retention(device, stability).min()),
                "retention_yield": float(np.mean(good)),
                "inferences": writes / per_inference,
                "read_disturb": float(read_disturb(device, stability, assumptions).max()),
            }
        )
    return table


def read_disturb(device, stability, assumptions=None):
    """Probability that one read reverses a device in its parallel state (Kramers rate).

    `P = t_r k(i)`, `k(i) = (Delta / t_D) sqrt(Delta/pi) (1-i)(1-i^2) exp(-Delta (1-i)^2)` with
    `i = V_r / (R_P Ic0)`; an upper estimate, since the parallel state is read at the highest
    current and the rate needs a while to build up. 1 where the read current reaches `Ic0`.

    Args:
        device: `MTJDevice`.
        stability: thermal stability, array.
        assumptions: `EnergyAssumptions`.

    References: W. F. Brown, Phys. Rev. 130, 1677 (1963); T. Taniguchi and H. Imamura, Phys. Rev. B
    83, 054432 (2011).
    """
    assumptions = energy.EnergyAssumptions() if assumptions is None else assumptions
    stability = np.asarray(stability, "float64")
    current = assumptions.read_voltage / device.resistance_parallel
    ratio = current / (device.critical_current_per_stability * stability)
    i = np.minimum(ratio, 1.0)
    rate = stability / device.diffusion_time * np.sqrt(stability / np.pi)
    rate = rate * (1 - i) * (1 - i * i) * np.exp(-stability * (1 - i) ** 2)
    disturb = np.minimum(rate * assumptions.read_time, 1.0)
    return np.where(ratio >= 1, 1.0, disturb)


def _retention(device, stability):
    attempt = device.diffusion_time / (stability * np.sqrt(stability / math.pi))
    return attempt * np.exp(stability)


def _reset_error(device, stability, assumptions):
    """Probability that the nominal reset pulse fails, between exact values of `_reset_table`."""
    nodes, log_error = _reset_table(device, assumptions)
    return np.exp(np.interp(stability, nodes, log_error))


@functools.lru_cache(maxsize=16)
def _reset_table(device, assumptions):
    """`ln` of the reset error at 33 thermal stabilities over the range of the gate."""
    low, high = (k * device.volume / device.thermal_energy for k in device.anisotropy_range)
    nodes = np.unique(np.linspace(low, high, 33))
    errors = [energy.reset_failure(device, delta, assumptions) for delta in nodes]
    return nodes, np.log(errors)


def _named_layers(model):
    layers = spin_neurons(model)
    if not layers:
        raise ValueError("This model has no SpinNeuron, so there are no device settings.")
    named = {layer.name: layer for layer in layers}
    if len(named) < len(layers):
        raise ValueError(
            f"Two spin layers share a name among {[layer.name for layer in layers]}; a table "
            "needs distinct names. Pass name= to SpinNeuron."
        )
    return named


def _float(value, where, key):
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ValueError(f"{where}: {key} = {value!r} is not a number.") from None
    if not math.isfinite(number):
        raise ValueError(f"{where}: {key} = {number} is not finite.")
    return number


def _write(rows, path):
    temporary = path.with_name(f".{path.name}.part")
    if path.suffix == ".json":
        temporary.write_text(json.dumps(rows, indent=1) + "\n")
    elif path.suffix == ".csv":
        with open(temporary, "w", newline="") as file:
            writer = csv.DictWriter(file, COLUMNS)
            writer.writeheader()
            writer.writerows(rows)
    else:
        raise ValueError(f"{path.name}: write device settings to a .csv or a .json file.")
    os.replace(temporary, path)


def _read(path):
    if path.suffix == ".json":
        try:
            rows = json.loads(path.read_text())
        except json.JSONDecodeError as error:
            raise ValueError(f"{path.name}: not valid JSON ({error}).") from error
        if not isinstance(rows, list):
            raise ValueError(f"{path.name}: expected a list of rows.")
        return rows
    if path.suffix != ".csv":
        raise ValueError(f"{path.name}: device settings are read from a .csv or a .json file.")
    with open(path, newline="") as file:
        return list(csv.DictReader(file))
