"""Tables of measured switching counts, read and checked.

A table has one row per setting of the pulse generator, with the columns

    current_a       A, or
    voltage_v       V, divided by `resistance` to give the current
    pulse_width_s   s
    gate_voltage_v  V during the pulse, optional; 0 where there is no such column
    switched        how many pulses reversed the device
    trials          how many pulses were sent

as a CSV file (comma-separated, names in the first line; further columns are ignored, lines that
start with `#` too) or as a dictionary or data frame of columns. Every trial starts from the reset
state; positive current favours the reversal.
"""

import collections
import csv
import os
from typing import Any

import numpy as np

from spinkeras import checks

_COLUMNS = ("pulse_width_s", "switched", "trials")
_DRIVES = ("current_a", "voltage_v")
_GATE = "gate_voltage_v"


def read_table(data: Any, resistance: float | None = None) -> dict[str, np.ndarray]:
    """A checked table of switching counts, rows of the same setting added up.

    Args:
        data: path of a CSV file, or a dictionary or data frame of columns; see the module.
        resistance: ohm, > 0. Needed for a table of voltages.

    Returns:
        Dictionary of float64 columns `current_a`, `pulse_width_s`, `gate_voltage_v`, `switched`
        and `trials`, sorted by gate voltage, pulse width and current.

    Raises:
        ValueError: naming the column and the row that cannot be used, and why.

    Example:

    >>> from spinkeras import calibration
    >>> table = calibration.read_table({
    ...     "current_a": [70e-6, 70e-6, 75e-6], "pulse_width_s": [2e-9] * 3,
    ...     "switched": [20, 22, 33], "trials": [50, 50, 50],
    ... })
    >>> table["trials"]
    array([100.,  50.])
    """
    if isinstance(data, (str, os.PathLike)):
        columns, rows, where = _read_csv(data)
    elif hasattr(data, "keys"):
        columns = {str(key): data[key] for key in data.keys()}  # noqa: SIM118 (data frames)
        rows, where = None, "the table"
    else:
        raise ValueError(
            "data must be the path of a CSV file or a dictionary of columns "
            f"{(*_DRIVES, *_COLUMNS)}; got {type(data).__name__}."
        )

    def row(index):
        return f"row {index} (counted from 0)" if rows is None else f"line {rows[index]}"

    drive = [name for name in _DRIVES if name in columns]
    missing = [name for name in _COLUMNS if name not in columns]
    if len(drive) != 1 or missing:
        problem = f"lacks the columns {missing}" if missing else "needs one column for the drive"
        raise ValueError(
            f"{where} {problem}: it must have either 'current_a' (A) or 'voltage_v' (V), and "
            f"{', '.join(_COLUMNS)}. Found: {list(columns)[:20]}."
        )
    names = (*drive, *_COLUMNS, *([_GATE] if _GATE in columns else []))
    table = {name: _as_numbers(name, columns[name], row, where) for name in names}
    lengths = {name: len(values) for name, values in table.items()}
    if len(set(lengths.values())) != 1:
        raise ValueError(f"The columns of {where} differ in length: {lengths}.")
    if lengths["trials"] == 0:
        raise ValueError(f"{where} has no rows; give one row per current and pulse width.")

    def refuse(bad, name, rule):
        if np.any(bad):
            index = int(np.flatnonzero(bad)[0])
            more = f" ({np.sum(bad)} such rows)" if np.sum(bad) > 1 else ""
            raise ValueError(
                f"{where}, {row(index)}: {name} = {table[name][index]:g} {rule}{more}."
            )

    for name, values in table.items():
        refuse(~np.isfinite(values), name, "is not a finite number")
    width, switched, trials = (table[name] for name in _COLUMNS)
    refuse(~((width >= 1e-11) & (width <= 1e-2)), "pulse_width_s", "is not 1e-11 to 1e-2 s")
    refuse(~((trials >= 1) & (trials == np.round(trials))), "trials", "is not a whole number >= 1")
    refuse(
        (switched < 0) | (switched != np.round(switched)),
        "switched",
        "is not a whole number >= 0; give counts, not fractions",
    )
    refuse(switched > trials, "switched", "exceeds the trials of its row")
    gate = table.get(_GATE, np.zeros(len(trials)))
    refuse(np.abs(gate) > 10, _GATE, "is not -10 to 10 V")
    current = table[drive[0]]
    if drive[0] == "voltage_v":
        if resistance is None:
            raise ValueError(
                f"{where} gives voltages; give the `resistance` in ohm of the path that carries "
                "the write current (the junction, or the heavy-metal channel)."
            )
        resistance = checks.number("resistance", resistance, "ohm", 1e-3, 1e9, "of the write path")
        current = current / resistance
    return _pool({"current_a": current, "pulse_width_s": width, _GATE: gate}, switched, trials)


def _pool(settings, switched, trials):
    """The table with the counts of equal settings added up."""
    order = np.lexsort(list(settings.values()))
    sorted_ = {name: column[order] for name, column in settings.items()}
    new = np.any([np.diff(column) != 0 for column in sorted_.values()], axis=0)
    first = np.flatnonzero(np.concatenate([[True], new]))
    table = {name: column[first] for name, column in sorted_.items()}
    for name, counts in (("switched", switched), ("trials", trials)):
        table[name] = np.add.reduceat(counts[order], first)
    return table


def _read_csv(path):
    """Columns of text, the line number of every row, and the file's name."""
    where = os.path.basename(os.fspath(path))
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file)
        try:
            header, records, lines = None, [], []
            for record in reader:
                if not any(cell.strip() for cell in record) or record[0].startswith("#"):
                    continue
                if header is None:
                    header = [cell.strip() for cell in record]
                    continue
                if len(record) != len(header):
                    raise ValueError(
                        f"{where}, line {reader.line_num}: {len(record)} values, but the first "
                        f"line names {len(header)} columns."
                    )
                records.append(record)
                lines.append(reader.line_num)
        except UnicodeDecodeError as error:
            raise ValueError(f"{where} is not text in UTF-8 ({error}); save it as CSV.") from None
        except csv.Error as error:
            raise ValueError(f"{where}, line {reader.line_num}: not CSV: {error}.") from None
    if header is None:
        raise ValueError(f"{where} is empty; its first line must name the columns.")
    if len(header) == 1 and any(mark in header[0] for mark in ";\t"):
        raise ValueError(f"{where} is not separated by commas; its first line is {header[0]!r}.")
    twice = [name for name, count in collections.Counter(header).items() if count > 1]
    if twice:
        raise ValueError(f"{where} names the columns {twice} more than once.")
    columns = {name: [r[k] for r in records] for k, name in enumerate(header)}
    return columns, lines, where


def _as_numbers(name, values, row, where):
    array = np.asarray(values)
    if array.dtype.kind in "bcmM" or array.ndim != 1:
        raise ValueError(f"The column {name} of {where} must be a list of numbers.")
    try:
        return array.astype("float64")
    except (TypeError, ValueError):
        for index, value in enumerate(np.atleast_1d(np.asarray(values, dtype=object))):
            try:
                float(value)
            except (TypeError, ValueError):
                raise ValueError(
                    f"{where}, {row(index)}: {name} = {value!r} is not a number."
                ) from None
        raise
