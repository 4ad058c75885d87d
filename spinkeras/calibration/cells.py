"""Cells of a table in columns, before their quantities and units are known; and their numbers."""

import dataclasses
import re

import numpy as np

from spinkeras.calibration.conditions import MINUS

_NUMBER = re.compile(r"[+-]?(\d+[.,]?\d*|[.,]\d+)([eE][+-]?\d+)?%?|[+-]?(nan|inf)", re.IGNORECASE)
_SHOT = {"true": "1", "false": "0"}  # whether a single pulse reversed the device, as text


@dataclasses.dataclass
class Cells:
    """Columns of the data, before their quantities and units are known.

    Attributes:
        columns: `{name of the column: list of its cells}`.
        lines: line number in the file of every row, or `None` if the data are not from a file.
        where: name of the data in error messages.
        kept: original number of every row after rows were left out, or `None`.
        commas: whether a comma in a cell may be a decimal comma.
        notes: texts about guesses, which one warning lists together.
    """

    columns: dict
    lines: list | None
    where: str
    kept: list | None = None
    commas: bool = False
    notes: list = dataclasses.field(default_factory=list)

    def row(self, index):
        """The place of a row, in words."""
        if self.lines is None:
            index = index if self.kept is None else self.kept[index]
            return f"row {index} (counted from 0)"
        return f"line {self.lines[index]}"

    def take(self, rows):
        """These columns with only some of the rows."""
        columns = {name: [cells[k] for k in rows] for name, cells in self.columns.items()}
        lines = None if self.lines is None else [self.lines[k] for k in rows]
        kept = [k if self.kept is None else self.kept[k] for k in rows]
        return dataclasses.replace(self, columns=columns, lines=lines, kept=kept)


def of_columns(data) -> Cells:
    """Cells of a dictionary, data frame or structured array."""
    held = [n for n in getattr(getattr(data, "index", None), "names", ()) if n is not None]
    if held and not {*held} & {*getattr(data, "columns", held)}:
        data = data.reset_index()  # the index of a data frame holds columns, as after groupby
    keys = data.keys() if hasattr(data, "keys") else getattr(data, "columns", None)
    if keys is None:  # a structured array
        keys = getattr(getattr(data, "dtype", None), "names", None)
    if keys is None:
        raise ValueError(
            "data must be the path of a CSV file or a dictionary of columns "
            f"('current_a' or 'voltage_v', 'pulse_width_s', 'switched', 'trials'); got "
            f"{type(data).__name__}."
        )
    if any(isinstance(key, tuple) for key in keys):
        raise ValueError(
            f"The table has column names of several levels, such as {next(iter(keys))}; give one "
            "level (data['A'] of a data frame), or one name to each column."
        )
    found = {str(key): data[key] for key in keys}
    for name, values in found.items():
        if np.ndim(values) == 2 and hasattr(values, "columns"):
            raise ValueError(f"The table names the column {name!r} more than once.")
        if np.ndim(values) != 1:
            raise ValueError(
                f"The column {name} of the table must be a list of numbers, one for each row."
            )
    lengths = {name: len(values) for name, values in found.items()}
    if len(set(lengths.values())) > 1:
        raise ValueError(f"The columns of the table differ in length: {lengths}.")
    return Cells(found, None, "the table", commas=True)


def selected(cells, where):
    """The rows whose cells have the values in `where`."""
    if where is None:
        return cells
    if not isinstance(where, dict):
        raise ValueError(f"where = {where!r} must be a dictionary {{column: value}}.")
    rows = np.arange(len(next(iter(cells.columns.values()), ())))
    for name, wanted in where.items():
        values = _column_of(cells, name, "where")
        wanted = wanted if isinstance(wanted, (list, tuple, set)) else [wanted]
        keys = {_key(value) for value in wanted}
        found = [_key(value, cells.commas) for value in values]
        kept = [k for k in rows if found[k] in keys]
        absent = keys - {*found}
        if absent or not kept:
            here = sorted({str(values[k]).strip() for k in rows})
            raise ValueError(
                f"{cells.where}: no row with {name} = {sorted(map(str, absent or keys))}"
                f"{'' if absent else ' is left'}; its values are {here[:10]}."
            )
        rows = kept
    return cells.take(rows)


def grouped(cells, by):
    """`{value or tuple of values: cells}` of every combination of values in the columns `by`."""
    several = not isinstance(by, str)
    columns = [_column_of(cells, name, "by") for name in (by if several else [by])]
    groups = {}
    for k, values in enumerate(zip(*columns)):
        groups.setdefault(tuple(_key(v, cells.commas) for v in values), []).append(k)
    if len(groups) > 1000:
        raise ValueError(f"by = {by!r} makes {len(groups)} tables; at most 1000 are allowed.")
    parts = {key if several else key[0]: cells.take(rows) for key, rows in groups.items()}
    for key, part in parts.items():
        part.where = f"{cells.where} ({by} = {key})"
    return parts


def _column_of(cells, name, option):
    if name not in cells.columns:
        raise ValueError(
            f"{cells.where} has no column {name!r} ({option}); it has {list(cells.columns)[:20]}."
        )
    return list(cells.columns[name])


def _key(value, commas=False):
    """A cell as a number if possible, else as text, so that cells can be compared."""
    text = str(value).translate(MINUS).strip()
    number = text.replace(",", ".", 1) if commas and is_number(text) else text
    try:
        return float(number)
    except ValueError:
        return text


def is_number(cell):
    """Whether a cell is a number or looks like one."""
    return not isinstance(cell, str) or _NUMBER.fullmatch(cell.translate(MINUS).strip()) is not None


def numbers(quantity, name, cells):
    """The column `name` as float64 numbers, in the unit of the table."""
    values, where = cells.columns[name], cells.where
    if np.ma.is_masked(values):
        values = values.astype("float64").filled(np.nan)
    array = np.asarray(values)
    if array.dtype.kind == "b" and quantity == "switched":  # one pulse per row
        return array.astype("float64")
    if array.dtype.kind in "bcmM" or array.ndim != 1:
        raise ValueError(f"The column {name} of {where} must be a list of numbers.")
    if array.dtype.kind in "OU" and any(isinstance(value, str) for value in values):
        values = _from_text(quantity, name, list(values), cells)
    try:
        return np.asarray(values).astype("float64")
    except (TypeError, ValueError):
        for index, value in enumerate(cells.columns[name]):
            try:
                float(values[index])
            except (TypeError, ValueError):
                raise ValueError(
                    f"{where}, {cells.row(index)}: {name} = {value!r} is not a number. Write one "
                    "number in each cell, with a decimal point, but no unit or mark for thousands; "
                    "leave out rows without a value."
                ) from None
        raise


def _from_text(quantity, name, values, cells):
    """Cells with decimal points; raises an error for a cell that may mean two numbers."""
    joined = "".join(value for value in values if isinstance(value, str))
    if not joined.isascii():
        values = [v.translate(MINUS) if isinstance(v, str) else v for v in values]
    if quantity == "switched" and is_boolean(values):
        values = [_SHOT.get(str(value).strip().lower(), value) for value in values]
    count = quantity in ("switched", "trials")
    # If other cells have decimal commas, a point marks thousands.
    pointed = "." in joined and cells.commas and _has_commas(cells)
    if not pointed and not any(mark in joined for mark in "_,%"):
        return values
    comma = "," in joined and cells.commas
    for index, value in enumerate(values):
        problem = None
        if not isinstance(value, str):
            continue
        text = value.strip()
        head, _, tail = text.replace(".", ",").partition(",")
        if "_" in text:
            problem = "is not a number"
        elif comma and "." in text:
            problem = "has a point, while other numbers of the column have decimal commas"
        elif (pointed or (count and "," in text)) and len(tail) == 3 and head.strip("+-0"):
            problem = "may have a mark for thousands; write it without"
        if problem:
            raise ValueError(f"{cells.where}, {cells.row(index)}: {name} = {value!r} {problem}.")
        if comma:
            text = text.replace(",", ".", 1)
        if quantity == "fraction" and text.endswith("%"):
            number = text[:-1].strip()
            text = repr(float(number) / 100) if is_number(number) else text
        values[index] = text
    if comma and "decimal commas" not in cells.notes:
        cells.notes.append("decimal commas")
    return values


def is_boolean(values):
    """Whether the values are true or false, for a single pulse in each row."""
    return str(next(iter(values), "")).strip().lower() in _SHOT


def _has_commas(cells):
    return any(
        isinstance(cell, str) and "," in cell and is_number(cell)
        for column in cells.columns.values()
        for cell in column
    )
