"""Reads and checks tables of measured switching counts.

A table has one row per setting of the pulse generator, with the columns

    current_a       A, or
    voltage_v       V, across `resistance`, or across a junction in the start state of the pulses
    pulse_width_s   s
    gate_voltage_v  V during the pulse, optional; 0 without this column
    temperature_k   K, optional
    direction       P->AP or AP->P, optional: start state of the pulse, and the state after a switch
    switched        number of pulses that reversed the device (of one pulse: true or false), or
    fraction        their share of all pulses, 0 to 1
    trials          number of pulses sent

A table is a text file, a workbook, a dictionary of columns or a data frame. The columns may have
the usual names of laboratories instead (`spinkeras.calibration.names`). Every trial starts from the
reset state. Positive current favours the reversal. If all currents of a `direction` are negative,
their sign is reversed.

Instead of pulses, a table may hold ramps, with the `switching_current_a` or `switching_voltage_v`
of each ramp (`spinkeras.calibration.ramps`).
"""

import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from spinkeras import checks
from spinkeras.calibration import conditions, counts, files, names, plausible, ramps
from spinkeras.calibration.cells import grouped, of_columns, selected
from spinkeras.calibration.likeness import warn_if_twice, warn_if_unlike
from spinkeras.calibration.pooling import in_settings, pool
from spinkeras.calibration.quantities import Quantities
from spinkeras.calibration.signs import refuse_wrong_sign, towards_reversal, warn_if_falling
from spinkeras.notices import warn
from spinkeras.physics.device import STATES, DeviceLike, get_device
from spinkeras.physics.resistance import current_of_voltage

_GATE, _KELVIN, _WAY = "gate_voltage_v", "temperature_k", "direction"
_DRIVES = ("current_a", "voltage_v", "switching_current_a", "switching_voltage_v")


def read_table(
    data: Any,
    resistance: float | None = None,
    *,
    columns: Mapping[str, str] | Sequence[str] | None = None,
    units: Mapping[str, str] | None = None,
    pulse_width: float | None = None,
    trials: int | None = None,
    direction: str | None = None,
    device: DeviceLike | None = None,
    where: Mapping[str, Any] | None = None,
    by: str | Sequence[str] | None = None,
    ramp: Mapping[str, float] | None = None,
    sheet: str | None = None,
    signed: bool = False,
) -> dict:
    """Reads and checks a table of switching counts, and adds up rows of the same setting.

    Args:
        data: path of a text file or of a workbook, or a dictionary, data frame or structured array
            of columns; see the module. In a text file, tabs, `;`, `,` or spaces separate the cells,
            and lines that start with `#` or `%` are skipped. Decimal commas are allowed.
        resistance: ohm, > 0, for a table of voltages: the same resistance in both states.
        columns: `{quantity: name of its column}`, for example `{"voltage_v": "Vpp", "fraction":
            "y"}`, or the list of all names for a file without a line of names. Default: the name
            of a column shows its quantity.
        units: `{column: unit}`, for example `{"t": "ns", "P": "%"}`. Default: the unit in the name
            of the column, such as `t_p (ns)` or `I_uA`; without such a unit, SI.
        pulse_width: s, for all rows; replaces a column.
        trials: number of pulses in every row; replaces a column.
        direction: `"P->AP"` or `"AP->P"` for all rows; replaces a column.
        device: `MTJDevice` or preset name, for a table of voltages without `resistance`. Then
            `physics.current_of_voltage` gives the current in the start state of the pulse. The
            direction determines this state; without a direction it is the device's `initial_state`.
        where: `{column: value}` or `{column: [values]}`: only rows with these values are used.
        by: name of a column or list of names: the result has one table for each of their values.
        ramp: for ramps, `{"rate": A/s or V/s}`; for a staircase, `{"step": A or V, "dwell": s}`.
        sheet: name of the sheet, for a workbook.
        signed: whether the threshold may be 0 or negative, as in a free-running junction. Then the
            pulse width (the interval between reads) may be up to 1e3 s. Default `False`: a table
            without a positive current is refused.

    Returns:
        Dictionary of float64 columns `current_a`, `pulse_width_s`, `gate_voltage_v`, `switched`
        and `trials`, sorted by gate voltage, pulse width and current. The columns `temperature_k`
        and `direction` (text) are there if the data have them. With `by`, the result is
        `{value or tuple of values: table}`.

    Raises:
        ValueError: for a column or row that cannot be used; the message names both and the reason.
            Also for numbers that are impossible in their unit, temperatures that may be in degrees
            Celsius, currents of both signs that both reverse the device, or only negative currents.
            With `signed`: for a probability that falls with the current.

    Warns:
        UserWarning: if anything was guessed (one line lists all guesses), if rows of one setting
            differ by more than chance, or if the counts fall with the current.

    Example:

    >>> from spinkeras import calibration
    >>> table = calibration.read_table({
    ...     "current_a": [70e-6, 70e-6, 75e-6], "pulse_width_s": [2e-9] * 3,
    ...     "switched": [20, 22, 33], "trials": [50, 50, 50],
    ... })
    >>> table["trials"]
    array([100.,  50.])
    """
    checks.flag("signed", signed)
    cells, columns = _cells(data, columns, sheet)
    cells = selected(cells, where)
    given = {
        "pulse_width_s": _constant("pulse_width", pulse_width, "s", 1e-11, 1e3 if signed else 1e-2),
        "trials": _constant("trials", trials, "(a count)", 1, 1e12),
        _WAY: conditions.stated_direction(direction),
    }
    given = {quantity: value for quantity, value in given.items() if value is not None}
    found, guesses = names.identify(list(cells.columns), columns, units, given, cells.where)
    cells.notes += guesses
    _forget_other_directions(found, cells, columns)
    drive = _check_columns(found, given, cells, ramp)
    cells.notes += [f"that {name!r} does not matter" for name in _overlooked(cells, found, columns)]
    device = None if device is None else get_device(device)
    path = _constant("resistance", resistance, "ohm", 1e-3, 1e9, "of the write path") or device
    groups = {None: cells} if by is None else grouped(cells, by)
    notes, tables = list(cells.notes), {}
    for value, part in groups.items():
        part.notes = []
        tables[value] = _table(part, found, given, drive, path, ramp, signed)
        notes += [note for note in part.notes if note not in notes]
    if notes:
        warn(
            f"{cells.where}: guessed {'; '.join(notes)}.{_unused(cells, found, where, by)} "
            "State it by columns=, units=, trials=, direction=, where= or by= of read_table."
        )
    return tables[None] if by is None else tables


def _unused(cells, found, where, by):
    """A sentence on the unused columns, such as a temperature with an unknown name."""
    used = {column.name for column in found.values()} | set(where or ())
    used |= {by} if isinstance(by, str) else set(by or ())
    names_left = [name for name in cells.columns if name not in used]
    return f" Not used: {', '.join(map(repr, names_left[:20]))}." if names_left else ""


def _overlooked(cells, found, columns):
    """Unused columns that look like data: second ones of a name, or conditions of unknown unit."""
    said = set(columns.values()) if isinstance(columns, dict) else set()
    used = {column.name for column in found.values()}
    for name in [name for name in cells.columns if name not in used]:
        first = re.sub(r"\.\d+$", "", name)  # pandas numbers columns of the same name
        lost = {_GATE, _KELVIN} & names.of_unknown_unit(name) - set(found)
        if lost or (first != name and first in used - said):
            yield name


def _cells(data, columns, sheet):
    """The cells of the data, and the caller's `{quantity: column}` or `None`."""
    if isinstance(data, str) and "\n" in data:
        raise ValueError(
            f"data = {data[:20]!r}... is the text of a table, not a path; write it to a file."
        )
    if isinstance(data, (str, os.PathLike)):
        listed = isinstance(columns, (list, tuple))
        cells = files.read(data, list(columns) if listed else None, sheet)
        return cells, None if listed else columns
    return of_columns(data), columns


def _constant(name, value, unit, low, high, hint=None):
    if value is None:
        return None
    hint = hint or ("2 ns is 2e-9" if unit == "s" else "pulses at every setting")
    value = checks.number(name, value, unit, low, high, hint)
    if name == "trials" and value != round(value):
        raise ValueError(f"trials = {value:g} must be a whole number.")
    return value


def _check_columns(found, given, cells, ramp):
    """The quantity of the drive; raises an error for a table that lacks a column."""
    drive = [name for name in _DRIVES if name in found]
    ramps_given = any(name.startswith("switching") for name in drive)
    needed = () if ramps_given else ("pulse_width_s", "switched", "trials")
    have = set(found) | set(given) | ({"switched"} if "fraction" in found else set())
    missing = [name for name in needed if name not in have]
    if missing or len(drive) != 1:
        problem = "needs one column for the drive"
        if missing:
            problem = f"lacks the columns {missing}{'' if drive else ' and the drive'}"
        if len(drive) > 1:
            problem += f", but {[found[name].name for name in drive]} may all be one"
        raise ValueError(
            f"{cells.where} {problem}: it must have either 'current_a' (A) or 'voltage_v' (V), and "
            "pulse_width_s, switched (or fraction), trials; columns={'current_a': 'its name'} "
            f"assigns one.{_advice(missing, drive, cells)} Found: {list(cells.columns)[:20]}."
        )
    if ramps_given and ramp is None:
        raise ValueError(
            f"{cells.where} has one switching current or voltage per ramp "
            f"({found[drive[0]].name}): read it by read_table(..., ramp={{'rate': A/s or V/s}}), "
            "or {'step': A or V, 'dwell': s} for a staircase. For pulses, use "
            "columns={'current_a': ...}."
        )
    if ramp is not None and not ramps_given:
        raise ValueError(
            f"{cells.where} has no switching current per ramp, but ramp is given; use "
            "columns={'switching_current_a': ...}, or leave ramp out."
        )
    return drive[0]


def _advice(missing, drive, cells):
    """Sentences on what to do about missing columns."""
    found = list(cells.columns)
    unknown = [name for name in found if names.of_unknown_unit(name)]
    advice = f" The brackets of {unknown[:5]} hold no known unit." if unknown else ""
    if cells.lines is not None:
        advice += files.names_below(found)
    if missing == ["trials"]:
        advice += " Fractions need the number of trials: trials=50, or a column."
    elif len(found) == 1:
        advice += " Tabs, ;, commas or spaces must separate the cells."
    elif "switched" in missing and drive:
        advice += (
            " Each row is one setting: put columns for several widths, directions or devices below "
            "each other, or read one of them."
        )
    return advice


def _forget_other_directions(found, cells, columns):
    """Ignore a column `direction` without P->AP or AP->P, unless the caller assigns it."""
    column = found.get(_WAY)
    said = isinstance(columns, dict) and _WAY in columns
    if column is None or said or any(map(conditions.direction_of, cells.columns[column.name])):
        return
    del found[_WAY]
    cells.notes = [note for note in cells.notes if not note.startswith(repr(column.name))]


def _table(cells, found, given, drive, path, ramp, signed):
    """The pooled table of the cells; arguments as `read_table` has checked and identified them."""
    counted = ("pulse_width_s", "switched", "fraction", "trials", _GATE, _KELVIN)
    used = {quantity: found[quantity] for quantity in (drive, *counted) if quantity in found}
    share = used.pop("fraction", None) if "switched" in used else None
    table = Quantities(cells, used)
    plausible.refuse_drives(table, drive)
    for quantity, value in given.items():
        table.fill(quantity, value)
    held = _conditions(table, found.get(_WAY))
    way, drives = held.get(_WAY), table.values[drive]
    if way is not None and not signed:
        drives = table.values[drive] = towards_reversal(drives, way, cells)
    if ramp is not None:
        table.refuse(
            drives <= 0, drive, "is not > 0: ramp towards positive current, or reverse the sign"
        )
        return _of_ramps(drives, drive, held, path, ramp, cells)
    settings = {"current_a": _currents(drives, drive, path, way, cells)}
    plausible.refuse_widths(table, signed)
    settings |= {"pulse_width_s": table.values["pulse_width_s"], **held}
    switched, trials = counts.switched(table, share), table.values["trials"]
    for part, name in _by_direction(settings | dict(switched=switched, trials=trials), cells.where):
        refuse_wrong_sign(part, part["switched"], part["trials"], name, signed)
    read = {column.name for column in (*used.values(), found.get(_WAY)) if column}
    others = {name: values for name, values in cells.columns.items() if name not in read}
    pooled, setting = pool(settings, switched, trials), in_settings(settings)[1]
    warn_if_twice(setting, switched, trials, others, cells.where)
    cells.notes += warn_if_unlike(setting, settings, switched, trials, others, cells.where)
    if not signed:
        for part, name in _by_direction(pooled, cells.where):
            warn_if_falling(part, name)
    return pooled


def _conditions(table, way):
    """The conditions of every row (`calibration.conditions`); `way` is a `Column` or `None`."""
    table.values.setdefault(_GATE, np.zeros(table.rows))
    plausible.refuse_gates(table)
    if _KELVIN in table.values:
        plausible.refuse_temperatures(table)
    if way is not None and _WAY not in table.values:
        table.values[_WAY] = _directions(way.name, table.cells)
    return {name: table.values[name] for name in conditions.CONDITIONS if name in table.values}


def _by_direction(table, where):
    """The part of each direction, and its name in messages."""
    ways = conditions.directions(table)
    if not ways:
        return [(table, where)]
    return [(conditions.select(table, table[_WAY] == way), f"{where} ({way})") for way in ways]


def _of_ramps(drives, drive, held, path, ramp, cells):
    """The pooled table of pulses to which ramps are equivalent."""
    unit = drive[-1].upper()
    values, others, switched, trials = ramps.counts(drives, held, ramp, unit)
    current = _currents(values, drive, path, others.get(_WAY), cells)
    names_in_order = ("pulse_width_s", *held)
    settings = {"current_a": current} | {name: others[name] for name in names_in_order}
    return pool(settings, switched, trials)


def _directions(name, cells):
    """The column of directions; every cell becomes `P->AP` or `AP->P`."""
    result = []
    for index, cell in enumerate(cells.columns[name]):
        result.append(conditions.direction_of(cell))
        if result[-1] is None:
            raise ValueError(
                f"{cells.where}, {cells.row(index)}: {name} = {checks.shown(cell)} is neither "
                "P->AP nor AP->P."
            )
    return np.array(result)


def _currents(values, drive, path, way, cells):
    """Currents in A of drives in A or V.

    Args:
        values: drives.
        drive: quantity of the drives.
        path: resistance in ohm, or `MTJDevice`, or `None`.
        way: direction of every drive, or `None` if the directions are unknown.
        cells: `Cells`, for error messages and guesses.
    """
    where = cells.where
    if drive.endswith("_a"):
        return values
    if path is None:
        raise ValueError(
            f"{where} gives voltages; give the `resistance` in ohm of the path that carries "
            "the write current (the junction, or the heavy-metal channel), or the `device` (a fit "
            "of its diameter needs the `resistance`)."
        )
    if isinstance(path, float):
        current, told = values / path, f"{path:g}"
    else:
        current = np.array(current_of_voltage(values, path))
        for kind, state in conditions.DIRECTIONS.items() if way is not None else ():
            own = way == kind
            current[own] = current_of_voltage(values[own], path, state)
        told = f"{path.write_path_resistance:.4g}"
        if way is None and path.write_resistance is None:
            law = "R" if path.initial_state == STATES[0] else "R_AP(V)"
            cells.notes.append(
                f"that pulses start {path.initial_state}, so V = I {law} with R_P = {told} ohm"
            )
    plausible.refuse_currents(current, told, where)
    return current
