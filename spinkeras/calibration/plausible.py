"""Whether numbers are possible in the unit in which a table is read, and which unit is likely."""

import numpy as np

from spinkeras.calibration import names
from spinkeras.physics.device import MOST_CURRENT

_COLD = 150.0  # K: lower numbers without a stated unit may be in degrees Celsius
_MOST_GATE = 10.0  # V
# unit: limits of the largest absolute value in a table; no junction is outside of them
_OF_DRIVES = {"A": (1e-8, MOST_CURRENT), "V": (1e-3, 20.0)}


def refuse_drives(table, drive):
    """Refuse drives that are impossible in this unit, with a hint at the likely unit.

    Args:
        table: `Quantities`.
        drive: quantity of the drives; its last letter is the unit.
    """
    column, values, unit = table.columns[drive], table.values[drive], drive[-1].upper()
    least, most = _OF_DRIVES[unit]
    size, worth = float(np.max(np.abs(values))), names.PREFIXES
    if size > most:
        likely = next((p for p in ("m", "u", "n") if size * worth[p] <= most / 10), None)
    elif 0 < size < least:
        likely = next((p for p in ("", "m", "u") if least <= size / column.factor * worth[p]
                       <= most / 10), None)  # fmt: skip
        most = 0.0
    else:
        return
    hint = "" if likely is None else (
        f"; the numbers are likely {likely + unit}: units={{{column.name!r}: {likely + unit!r}}}"
    )  # fmt: skip
    kind = "current" if unit == "A" else "voltage"
    told = column.unit or unit
    table.refuse(np.abs(values) > most, drive, f"{told} is not a {kind} of a junction{hint}")


def refuse_currents(current, resistance, where):
    """Refuse currents of voltages that are impossible; `resistance` in ohm is a text."""
    largest = float(np.max(np.abs(current)))
    least, most = _OF_DRIVES["A"]
    if largest > most or 0 < largest < least:
        hint = "resistance is likely in kohm" if largest > most else "check resistance, in ohm"
        raise ValueError(
            f"{where}: its voltages over resistance = {resistance} ohm give {largest:.3g} A, "
            f"but the current of a junction is {least:g} to {most:g} A; {hint}."
        )


def refuse_gates(table):
    """Refuse gate voltages that no gate oxide bears."""
    bad = np.abs(table.values["gate_voltage_v"]) > _MOST_GATE
    likely = _likely(table, "gate_voltage_v", "mV")
    table.refuse(bad, "gate_voltage_v", f"is not -{_MOST_GATE:g} to {_MOST_GATE:g} V{likely}")


def refuse_temperatures(table):
    """Refuse temperatures that are impossible in K, and that may be in degrees Celsius."""
    values, column = table.values["temperature_k"], table.columns["temperature_k"]
    unstated = column.name != "temperature_k" and not column.stated
    if unstated and np.min(values) < _COLD:
        raise ValueError(
            f"{table.cells.where}: {column.name} = {np.min(values):g} to {np.max(values):g} may be "
            f"K or degC; state units={{{column.name!r}: 'degC'}}, or 'K'."
        )
    bad = ~((values >= 1) & (values <= 1000))
    likely = _likely(table, "temperature_k", "degC")
    table.refuse(bad, "temperature_k", f"is not 1 to 1000 K{likely}")


def refuse_widths(table, signed):
    """Refuse widths of pulses, or with `signed` intervals between reads, that are impossible."""
    width, longest = table.values["pulse_width_s"], "1e3" if signed else "1e-2"
    bad = ~((width >= 1e-11) & (width <= float(longest)))
    likely = _likely(table, "pulse_width_s", "ns")
    table.refuse(bad, "pulse_width_s", f"is not 1e-11 to {longest} s{likely}")


def _likely(table, quantity, unit):
    """A hint at the unit that a column may have."""
    column = table.columns.get(quantity)
    if column is None:
        return ""
    if column.stated and (column.factor != 1.0 or column.offset):
        return f", taken in {column.unit}: the numbers may be in SI units already"
    return f"; the numbers are likely {unit}: units={{{column.name!r}: {unit!r}}}"
