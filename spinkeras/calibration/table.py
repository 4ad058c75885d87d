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

import decimal
import math
import os
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from spinkeras import checks
from spinkeras.calibration import conditions, files, names, ramps
from spinkeras.calibration.cells import (
    grouped,
    is_boolean,
    is_number,
    numbers,
    of_columns,
    selected,
)
from spinkeras.calibration.likeness import warn_if_twice, warn_if_unlike
from spinkeras.calibration.pooling import in_settings, pool
from spinkeras.calibration.signs import refuse_wrong_sign, towards_reversal, warn_if_falling
from spinkeras.notices import warn
from spinkeras.physics.device import MOST_CURRENT, STATES, DeviceLike, get_device
from spinkeras.physics.resistance import current_of_voltage

_GATE, _KELVIN, _WAY = "gate_voltage_v", "temperature_k", "direction"
_DRIVES = ("current_a", "voltage_v", "switching_current_a", "switching_voltage_v")
_COLD = 150.0  # K: lower numbers without a stated unit may be in degrees Celsius
# quantity: limits of the largest absolute value in a table; no junction is outside of them
_PLAUSIBLE = {
    "current_a": (1e-8, MOST_CURRENT),
    "voltage_v": (1e-3, 20.0),
    "switching_current_a": (1e-8, MOST_CURRENT),
    "switching_voltage_v": (1e-3, 20.0),
}


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
    where = cells.where
    used = {drive: found[drive]}
    counted = ("pulse_width_s", "switched", "fraction", "trials", _GATE, _KELVIN)
    used |= {q: found[q] for q in counted
             if q in found and not (q == "fraction" and "switched" in found)}  # fmt: skip
    raw = {q: numbers(q, column.name, cells) for q, column in used.items()}
    table = {q: values * used[q].factor + used[q].offset for q, values in raw.items()}
    rows = len(table[drive])
    if rows == 0:
        raise ValueError(f"{where} has no rows; give one row per current and pulse width.")

    def refuse(bad, quantity, rule):
        if np.any(bad):
            index = int(np.flatnonzero(bad)[0])
            more = f" ({np.sum(bad)} such rows)" if np.sum(bad) > 1 else ""
            name = used[quantity].name if quantity in used else quantity
            shown = raw[quantity][index] if quantity in raw else table[quantity][index]
            raise ValueError(f"{where}, {cells.row(index)}: {name} = {shown:g} {rule}{more}.")

    for quantity, values in table.items():
        refuse(~np.isfinite(values), quantity, "is not a finite number; leave out such rows")
    refuse_units(drive, used[drive], table[drive], refuse)
    for quantity, value in given.items():
        table[quantity] = np.full(rows, value)
    held = {_GATE: table.get(_GATE, np.zeros(rows))}
    refuse(np.abs(held[_GATE]) > 10, _GATE, f"is not -10 to 10 V{_likely(used.get(_GATE), 'mV')}")
    if _KELVIN in table:
        held[_KELVIN] = _temperatures(table[_KELVIN], used[_KELVIN], refuse, where)
    if _WAY in found and _WAY not in given:
        table[_WAY] = _directions(found[_WAY].name, cells)
    if _WAY in table:
        held[_WAY] = table[_WAY]
        if not signed:
            table[drive] = towards_reversal(table[drive], held[_WAY], cells)
    if drive.startswith("switching"):
        refuse(
            table[drive] <= 0,
            drive,
            "is not > 0: ramp towards positive current, or reverse the sign",
        )
        unit = drive[-1].upper()
        values, others, switched, trials = ramps.counts(table[drive], held, ramp, unit)
        current = _currents(values, drive, path, others.get(_WAY), cells)
        names_in_order = ("pulse_width_s", *held)
        settings = {"current_a": current} | {name: others[name] for name in names_in_order}
        return pool(settings, switched, trials)
    current = _currents(table[drive], drive, path, held.get(_WAY), cells)
    width, trials = table["pulse_width_s"], table["trials"]
    column = used.get("pulse_width_s")
    longest = "1e3" if signed else "1e-2"  # interval between reads, or width of a pulse
    short = f"is not 1e-11 to {longest} s{_likely(column, 'ns')}"
    refuse(~((width >= 1e-11) & (width <= float(longest))), "pulse_width_s", short)
    refuse(~((trials >= 1) & (trials == np.round(trials))), "trials", "is not a whole number >= 1")
    if "switched" in table:
        switched = table["switched"]
        if is_boolean(cells.columns[used["switched"].name]):
            refuse(trials != 1, "trials", "must be 1, because its outcome is true or false")
        refuse(
            (switched < 0) | (switched != np.round(switched)),
            "switched",
            "is not a whole number >= 0; give counts, not fractions (a column `fraction`)",
        )
        refuse(switched > trials, "switched", "exceeds the trials of its row")
        if "fraction" in found:
            _compare_shares(found["fraction"], switched, trials, cells)
    else:
        switched = _counts(table["fraction"], trials, used, cells, refuse)
    settings = {"current_a": current, "pulse_width_s": width, **held}
    for way in conditions.directions(held) or [None]:
        own = np.full(rows, True) if way is None else held[_WAY] == way
        name = where if way is None else f"{where} ({way})"
        refuse_wrong_sign(
            conditions.select(settings, own), switched[own], trials[own], name, signed
        )
    others = {
        name: values
        for name, values in cells.columns.items()
        if name not in {column.name for column in (*used.values(), found.get(_WAY)) if column}
    }
    pooled = pool(settings, switched, trials)
    warn_if_twice(in_settings(settings)[1], switched, trials, others, where)
    cells.notes += warn_if_unlike(
        in_settings(settings)[1], settings, switched, trials, others, where
    )
    for way in [] if signed else conditions.directions(pooled) or [None]:
        own = slice(None) if way is None else pooled[_WAY] == way
        part = conditions.select(pooled, own)
        warn_if_falling(part, where if way is None else f"{where} ({way})")
    return pooled


def refuse_units(drive, column, values, refuse):
    """Refuse numbers that are impossible in this unit, with a hint at the likely unit."""
    least, most = _PLAUSIBLE[drive]
    unit = drive[-1].upper()
    size, worth = float(np.max(np.abs(values))), names.PREFIXES
    if size > most:
        likely = next((p for p in ("m", "u", "n") if size * worth[p] <= most / 10), None)
    elif 0 < size < least:
        likely = next((p for p in ("", "m", "u") if least <= size / column.factor * worth[p]
                       <= most / 10), None)  # fmt: skip
        least, most = 0.0, 0.0
    else:
        return
    hint = "" if likely is None else (
        f"; the numbers are likely {likely + unit}: units={{{column.name!r}: {likely + unit!r}}}"
    )  # fmt: skip
    told = column.unit or unit
    refuse(
        np.abs(values) > most,
        drive,
        f"{told} is not a {'current' if unit == 'A' else 'voltage'} of a junction{hint}",
    )


def _likely(column, unit):
    """A hint at the unit that a column may have."""
    if column is None:
        return ""
    if column.stated and (column.factor != 1.0 or column.offset):
        return f", taken in {column.unit}: the numbers may be in SI units already"
    return f"; the numbers are likely {unit}: units={{{column.name!r}: {unit!r}}}"


def _temperatures(values, column, refuse, where):
    """Temperatures in K, after a check."""
    unstated = column.name != _KELVIN and not column.stated
    if unstated and np.min(values) < _COLD:
        raise ValueError(
            f"{where}: {column.name} = {np.min(values):g} to {np.max(values):g} may be K or degC; "
            f"state units={{{column.name!r}: 'degC'}}, or 'K'."
        )
    likely = _likely(column, "degC")
    refuse(~((values >= 1) & (values <= 1000)), _KELVIN, f"is not 1 to 1000 K{likely}")
    return values


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
    largest = float(np.max(np.abs(current)))
    least, most = _PLAUSIBLE["current_a"]
    if largest > most or 0 < largest < least:
        hint = "resistance is likely in kohm" if largest > most else "check resistance, in ohm"
        raise ValueError(
            f"{where}: its voltages over resistance = {told} ohm give {largest:.3g} A, "
            f"but the current of a junction is {least:g} to {most:g} A; {hint}."
        )
    return current


def _counts(fraction, trials, used, cells, refuse):
    """Numbers of switched pulses, from fractions."""
    column = used["fraction"]
    percent = f"; the numbers are likely percent: units={{{column.name!r}: '%'}}"
    likely = percent if np.max(fraction) <= 100 and column.factor == 1.0 else ""
    refuse((fraction < 0) | (fraction > 1), "fraction", f"is not a probability, 0 to 1{likely}")
    if column.factor != 1.0 and not column.told and 0 < np.max(fraction) <= 0.01:
        raise ValueError(
            f"{cells.where}: no value of {column.name} exceeds 1, though its unit is percent. "
            f"State units={{{column.name!r}: '1'}} for fractions, or '%' for percent."
        )
    exact = fraction * trials
    switched = np.round(exact)
    digits = max(len(f"{v:.12g}".partition(".")[2]) for v in np.unique(fraction)[:1000])
    digits = min(digits, 12) if np.all(np.abs(fraction) < 1e12) else 12
    off = np.abs(exact - switched) > 1e-6 * trials + np.minimum(0.5 * 10.0**-digits, 1) * trials
    refuse(
        off,
        "fraction",
        f"times its trials is not a whole number of pulses (trials {trials[0]:g})",
    )
    common = int(np.gcd.reduce(np.append(switched, trials).astype(np.int64)))
    inside = int(np.sum((switched > 0) & (switched < trials)))
    if common > 1 and inside * math.log10(common) > 6:
        cells.notes.append(
            f"{trials[0]:g} trials a row, although every count is a multiple of {common} (is it "
            f"{trials[0] / common:g} trials, or rounded fractions?)"
        )
    return switched


def _compare_shares(column, switched, trials, cells):
    """Note fractions in a further column that differ from the counts by more than rounding."""
    texts = [
        str(cell).translate(conditions.MINUS).strip().replace(",", ".")
        for cell in cells.columns[column.name]
    ]
    if not all(map(is_number, texts)):
        return
    numbers = [decimal.Decimal(text.rstrip("%")) for text in texts]
    worth = [column.factor * (0.01 if text.endswith("%") else 1.0) for text in texts]
    share = np.array(numbers, float) * worth
    digit = np.array([10.0 ** number.as_tuple().exponent for number in numbers]) * worth
    off = np.abs(share - switched / trials) > digit + 1e-6
    if np.any(off):
        k = int(np.argmax(off))
        cells.notes.append(
            f"the share from the counts, although {column.name!r} differs ({cells.row(k)}: "
            f"{switched[k]:g} of {trials[k]:g}, but {texts[k]})"
        )
