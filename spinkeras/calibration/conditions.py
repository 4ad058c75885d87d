"""Conditions of a measurement: gate voltage, temperature, direction.

A condition stays constant while the current and the pulse width vary.
"""

import re

import numpy as np

from spinkeras import checks
from spinkeras.physics.device import STATES

# dashes that stand for a minus sign: hyphens, en and em dash, the minus of Unicode
MINUS = dict.fromkeys([*range(0x2010, 0x2015), 0x2212, 0xFF0D], "-")
DIRECTIONS = {"P->AP": STATES[0], "AP->P": STATES[1]}  # name: state in which a pulse starts
_PATTERN = re.compile(r"(AP|P)(?:TO|2|[-=]*[>→/]?)(AP|P)")

# column of a table: function that describes one of its values in words
CONDITIONS = {
    "gate_voltage_v": lambda value: f"a gate voltage of {f'{value:+.3g}' if value else 0} V",
    "temperature_k": lambda value: f"{value:.4g} K",
    "direction": str,
}


def direction_of(cell):
    """`"P->AP"` or `"AP->P"` for a cell such as `P-AP`, `p to ap` or `APtoP`; else `None`."""
    text = re.sub(r"[\s_()]", "", str(cell).translate(MINUS).upper())
    text = text.replace("ANTIPARALLEL", "AP").replace("PARALLEL", "P")
    match = _PATTERN.fullmatch(text)
    return f"{match[1]}->{match[2]}" if match and match[1] != match[2] else None


def stated_direction(value):
    """The direction that the caller states, after a check; `None` for `None`."""
    if value is None:
        return None
    direction = direction_of(value) if isinstance(value, str) else None
    if direction is None:
        raise ValueError(f"direction = {checks.shown(value)} must be one of {list(DIRECTIONS)}.")
    return direction


def direction_from(device):
    """The direction in which pulses reverse a device."""
    return next(name for name, state in DIRECTIONS.items() if state == device.initial_state)


def directions(table):
    """The directions of a table's rows, each once; empty for a table without this column."""
    return list(dict.fromkeys(table.get("direction", np.array([])).tolist()))


def select(table, rows):
    """A table of only some of the rows."""
    return {name: column[rows] for name, column in table.items()}


def groups(table):
    """The rows of a table, grouped by their conditions.

    Returns:
        Pairs of the conditions, `{column: value}`, and of their rows, a boolean array.
    """
    held = [name for name in CONDITIONS if name in table]
    codes = [np.unique(table[name], return_inverse=True)[1] for name in held]
    for combination in np.unique(np.stack(codes), axis=1).T:
        rows = np.all(np.transpose(codes) == combination, axis=1)
        first = int(np.argmax(rows))
        yield {name: table[name][first] for name in held}, rows


def in_words(held, table):
    """The conditions that vary within a table, as text such as `250 K, AP->P`; may be empty."""
    varied = [name for name in held if len(np.unique(table[name])) > 1]
    return ", ".join(CONDITIONS[name](held[name]) for name in varied)
