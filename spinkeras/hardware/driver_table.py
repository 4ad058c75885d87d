"""The table of settings for a driver chip, with the reliability of every setting.

The table has one row per neuron. It holds pulse width, gate voltage, bias current and current per
unit of input, and the resulting thermal stability, retention, read disturb and reset error.
"""

import contextlib
import csv
import io
import json
import os
import pathlib
from typing import Any

import keras
import numpy as np
from keras import ops

from spinkeras import checks, files
from spinkeras._typing import PathLike
from spinkeras.energy import pulse
from spinkeras.energy.pulse import EnergyAssumptions
from spinkeras.hardware.margins import named_layers, read_disturb, reset_error

_KEYS = ("layer", "neuron")
_DRIVE = ("pulse_width_s", "gate_voltage_v", "bias_current_a", "current_scale_a")
_MARGINS = ("thermal_stability", "retention_s", "read_disturb", "reset_error")
COLUMNS = (*_KEYS, *_DRIVE, *_MARGINS)
_UNITS = dict(zip(("neuron", *_DRIVE), ("(a position)", "s", "V", "A", "A per unit input")))


def device_settings(
    model: keras.Model, path: PathLike | None = None, assumptions: EnergyAssumptions | None = None
) -> list[dict[str, Any]]:
    """Settings of every neuron of a model, as a list of rows and, if wanted, in a file.

    Columns:

    - `layer`; `neuron`, the position in the flattened knobs;
    - `pulse_width_s`; `gate_voltage_v`; `bias_current_a`, the current at zero input;
      `current_scale_a`, the current per unit of input;
    - `thermal_stability` at this gate voltage, and at the same gate voltage the next three;
    - `retention_s`, the mean time to a thermal reversal, at most 1e300 s; `read_disturb`, the
      probability that one read reverses the device; `reset_error`, the probability that a reset
      pulse fails (`None` without a reset).

    For a free-running junction `pulse_width_s` is the interval between reads. It keeps no bit and
    is not reset, so its last three columns are `None` (empty in a file).

    Args:
        model: built Keras model with `SpinNeuron` layers.
        path: `.csv` or `.json` file to write, as a whole or not at all. Default: no file.
        assumptions: `EnergyAssumptions` for read and reset. Default `None`: `EnergyAssumptions()`.

    Returns:
        List of dictionaries; the file holds every float exactly.

    Raises:
        ValueError: for a model without built spin layers, two spin layers with the same name, or
            another file type.

    Example:

    >>> import keras, spinkeras
    >>> from spinkeras import device_settings
    >>> model = keras.Sequential([keras.Input((2,)), spinkeras.SpinNeuron(name="spin")])
    >>> device_settings(model)[0]["pulse_width_s"]
    2e-09
    """
    assumptions = pulse.checked_assumptions(assumptions)
    if not (path is None or isinstance(path, (str, os.PathLike))):
        raise ValueError(f"path = {checks.shown(path)} must be the path of a .csv or .json file.")
    rows = []
    for name, layer in named_layers(model).items():
        device = layer.device
        anisotropy = layer.anisotropy.ravel()
        stability = device.stability_at(anisotropy)
        columns = {
            "pulse_width_s": layer.pulse_width.ravel(),
            "gate_voltage_v": layer.gate_voltage.ravel(),
            "bias_current_a": layer.bias_current.ravel(),
            "current_scale_a": np.full(anisotropy.shape, layer.current_scale),
            "thermal_stability": stability,
        }
        if not layer.free_running:
            columns |= {
                "retention_s": device.retention_at(stability),
                "read_disturb": read_disturb(device, stability, assumptions),
            }
            if pulse.assumptions_of(layer, assumptions).reset:
                columns["reset_error"] = reset_error(device, stability, assumptions)
        for k in range(len(anisotropy)):
            row = {"layer": name, "neuron": k, **dict.fromkeys(_MARGINS)}
            row.update((key, float(values[k])) for key, values in columns.items())
            row = {key: row[key] for key in COLUMNS}
            rows.append(row)
    if path is not None:
        _write(rows, pathlib.Path(path))
    return rows


def apply_device_settings(model: keras.Model, source: PathLike | list[dict[str, Any]]) -> None:
    """Set the knobs of a model from the table of `device_settings`.

    The function sets pulse width and gate voltage. The bias current and the current scale of the
    model must then agree with the table to 1e-6 relative; otherwise the table belongs to another
    device. After an error the model is unchanged.

    Args:
        model: built Keras model with the layers and sizes of the table.
        source: rows as `device_settings` returns them, or the path of its `.csv` or `.json` file.

    Raises:
        ValueError: for a value that is missing, is not a number or is outside the device's range,
            for a neuron with two rows, and for a table of another device. The error names the row
            and the column.
        FileNotFoundError: for a path without a file.

    Example:

    >>> import keras, spinkeras
    >>> model = keras.Sequential([keras.Input((2,)), spinkeras.SpinNeuron(name="spin")])
    >>> rows = spinkeras.device_settings(model)
    >>> model.layers[0].gate_voltage = [0.5, -0.5]
    >>> spinkeras.apply_device_settings(model, rows)  # the state of the table again
    >>> model.layers[0].gate_voltage
    array([0., 0.])
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
    layers = named_layers(model)
    wanted: dict[str, dict] = {name: {} for name in layers}
    for number, row in enumerate(rows, 1):
        where = f"row {number}"
        if not isinstance(row, dict):
            raise ValueError(f"{where}: must be a dictionary of values by column.")
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
            raise ValueError(f"{where}: neuron {neuron} of layer {name!r} has two rows.")
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


def _float(value, where, key):
    """A number from a row; a row of a CSV file holds it as text."""
    if isinstance(value, str) and value.isascii() and "_" not in value:
        with contextlib.suppress(ValueError):  # the check below then refuses the text
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
    if len(header) == 1 and ";" in header[0]:
        raise ValueError(
            f"{path.name} has ';' between its cells; save it with commas between them and points "
            "in the numbers, as device_settings writes it."
        )
    if len(set(header)) < len(header):
        raise ValueError(f"{path.name} names a column twice in its first line: {header[:20]}.")
    for number, record in enumerate(records, 1):
        if len(record) != len(header):
            raise ValueError(
                f"{path.name}, row {number}: {len(record)} values, but the first line names "
                f"{len(header)} columns."
            )
    return [dict(zip(header, record)) for record in records]
