"""The table a driver chip needs, and the reliability of the settings in it.

One row per neuron: pulse width, gate voltage, bias current, current per unit input, and what the
setting means for the device: thermal stability, retention, read disturb, reset error.
"""

import contextlib
import csv
import functools
import io
import json
import os
import pathlib

import numpy as np
from keras import ops
from scipy import stats

from spinkeras import checks, energy, files, switching
from spinkeras.neuron import spin_neurons

TEN_YEARS = 10 * 365.25 * 24 * 3600.0  # s
_KEYS = ("layer", "neuron")
_DRIVE = ("pulse_width_s", "gate_voltage_v", "bias_current_a", "current_scale_a")
_MARGINS = ("thermal_stability", "retention_s", "read_disturb", "reset_error")
COLUMNS = (*_KEYS, *_DRIVE, *_MARGINS)
_UNITS = dict(zip(("neuron", *_DRIVE), ("(a position)", "s", "V", "A", "A per unit input")))


def device_settings(model, path=None, assumptions=None):
    """Settings of every neuron of a model, as a list of rows, and as a file.

    Columns: `layer`, `neuron` (position in the flattened knobs), `pulse_width_s`,
    `gate_voltage_v`, `bias_current_a` (at zero input), `current_scale_a` (per unit input),
    `thermal_stability`, `retention_s` (mean time to a thermal reversal with the gate at its
    setting, at most 1e300 s), `read_disturb` (probability that one read reverses the device, see
    `read_disturb`), `reset_error` (probability that the reset pulse fails with the gate at its
    setting).

    Args:
        model: built Keras model with `SpinNeuron` layers.
        path: `.csv` or `.json` file to write, as a whole or not at all. Default none.
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
    assumptions = energy.checked_assumptions(assumptions)
    rows = []
    for name, layer in _named_layers(model).items():
        device = layer.device
        anisotropy = layer.anisotropy.ravel()
        stability = device.stability_at(anisotropy)
        columns = {
            "pulse_width_s": layer.pulse_width.ravel(),
            "gate_voltage_v": layer.gate_voltage.ravel(),
            "bias_current_a": layer.bias_current.ravel(),
            "current_scale_a": np.full(anisotropy.shape, layer.current_scale),
            "thermal_stability": stability,
            "retention_s": device.retention_at(stability),
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
    if isinstance(source, (str, os.PathLike)):
        rows = _read(pathlib.Path(source))
    elif isinstance(source, list):
        rows = source
    else:
        raise ValueError(
            f"source = {checks.shown(source)} must be a list of rows or the path of a .csv or "
            ".json file."
        )
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
        if not isinstance(name, str) or name not in layers:
            raise ValueError(
                f"{where}: the model has no spin layer {checks.shown(name)}; it has {list(layers)}."
            )
        values = {key: _float(row[key], where, key) for key in ("neuron", *_DRIVE)}
        size = layers[name].pulse_width.size
        neuron = int(values["neuron"])
        if neuron != values["neuron"] or not 0 <= neuron < size:
            raise ValueError(
                f"{where}: neuron = {checks.shown(row['neuron'])} of layer {name!r} must be a "
                f"whole number from 0 to {size - 1}."
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
        spread_stability: relative sigma of the thermal stability over devices (log-normal), 0 to
            1. Default 0.
        writes: write cycles a junction endures, 1 to 1e30. Default 1e12.
        assumptions: `EnergyAssumptions` for the read.

    Returns:
        One dictionary per layer: `layer`; `retention_s` of the weakest neuron's nominal device;
        `retention_yield`, expected fraction of devices that keep their state for ten years;
        `inferences`, to the end of endurance, counting every pulse and a reset for every pulse
        (the worst case, `P = 1`); `read_disturb` of the worst neuron.

    Example: `reliability(model, spread_stability=0.08)[0]["retention_yield"]`.
    """
    assumptions = energy.checked_assumptions(assumptions)
    spread_stability = checks.number(
        "spread_stability", spread_stability, "(a relative sigma)", 0, 1, "5 % is 0.05"
    )
    writes = checks.number("writes", writes, "write cycles", 1, 1e30)
    table = []
    for name, layer in _named_layers(model).items():
        device = layer.device
        stability = device.stability_at(layer.anisotropy.ravel())
        needed = device.stability_for_retention(TEN_YEARS)
        if spread_stability:
            good = stats.norm.cdf(np.log(stability / needed) / spread_stability)
        else:
            good = stability >= needed
        per_inference = layer.pulses * (2 if assumptions.reset else 1)
        table.append(
            {
                "layer": name,
                "retention_s": float(device.retention_at(stability).min()),
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
    assumptions = energy.checked_assumptions(assumptions)
    stability = np.asarray(stability, "float64")
    current = assumptions.read_voltage / device.resistance_parallel
    ratio = current / (device.critical_current_per_stability * stability)
    return switching.reversal(np, stability, ratio, assumptions.read_time / device.diffusion_time)


def _reset_error(device, stability, assumptions):
    """Probability that the nominal reset pulse fails, between exact values of `_reset_table`."""
    nodes, log_error = _reset_table(device, assumptions)
    return np.exp(np.interp(stability, nodes, log_error))


@functools.lru_cache(maxsize=16)
def _reset_table(device, assumptions):
    """`ln` of the reset error at 33 thermal stabilities over the range of the gate."""
    low, high = map(device.stability_at, device.anisotropy_range)
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
    """A number from a row, which in a CSV file is text."""
    if isinstance(value, str) and value.isascii() and "_" not in value:
        with contextlib.suppress(ValueError):  # refused below, with its text
            value = float(value)
    return checks.number(f"{where}: {key}", value, _UNITS[key])


def _write(rows, path):
    if path.suffix == ".json":
        content = json.dumps(rows, indent=1, allow_nan=False) + "\n"
    elif path.suffix == ".csv":
        table = io.StringIO(newline="")
        writer = csv.DictWriter(table, COLUMNS)
        writer.writeheader()
        writer.writerows(rows)
        content = table.getvalue()
    else:
        raise ValueError(f"{path.name}: write device settings to a .csv or a .json file.")
    files.write(path, content)


def _read(path):
    if path.suffix == ".json":
        rows = checks.from_json(files.read_text(path), path.name)
        if not isinstance(rows, list):
            raise ValueError(f"{path.name}: expected a list of rows.")
        return rows
    if path.suffix != ".csv":
        raise ValueError(f"{path.name}: device settings are read from a .csv or a .json file.")
    reader = csv.reader(io.StringIO(files.read_text(path), newline=""), strict=True)
    try:
        header, *records = [record for record in reader if record] or [[]]
    except csv.Error as error:
        raise ValueError(f"{path.name}, line {reader.line_num}: not CSV ({error}).") from None
    if len(set(header)) < len(header):
        raise ValueError(f"{path.name} names a column twice in its first line: {header[:20]}.")
    for number, record in enumerate(records, 1):
        if len(record) != len(header):
            raise ValueError(
                f"{path.name}, row {number}: {len(record)} values, but the first line names "
                f"{len(header)} columns."
            )
    return [dict(zip(header, record)) for record in records]
