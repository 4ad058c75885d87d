"""Finds the quantity and the unit of a column of a measured table from its name.

The library has one name for each quantity, such as `voltage_v`; this name is never a guess.
Laboratories use other names, with the unit in brackets, after a slash, after "in" or at the end:
`V`, `I_uA`, `t_p (ns)`, `I in mA`, `P_sw [%]`.
"""

import dataclasses
import re
import unicodedata

PREFIXES = {"": 1.0, "k": 1e3, "m": 1e-3, "u": 1e-6, "μ": 1e-6, "n": 1e-9, "p": 1e-12}
_COUNT, _WORD = "(a count)", "(P->AP or AP->P)"


def _scaled(unit, prefixes):
    return {prefix + unit: PREFIXES[prefix] for prefix in prefixes}


_AMPERES = _scaled("A", ("", "m", "u", "μ", "n"))
_VOLTS = _scaled("V", ("", "m", "u", "μ"))
_SECONDS = _scaled("s", ("", "m", "u", "μ", "n", "p"))
_KELVINS = {"K": 1.0, "degC": 1.0, "°C": 1.0, "C": 1.0, "celsius": 1.0}
_OFFSETS = {unit: 273.15 for unit in _KELVINS if unit != "K"}
_PERCENT = {"%": 1e-2, "percent": 1e-2, "pct": 1e-2}
_SHARES = {"1": 1.0, "-": 1.0} | _PERCENT
_COUNTS = {"1": 1.0, "-": 1.0, "#": 1.0, "count": 1.0, "counts": 1.0}
_UNITS = {**_AMPERES, **_VOLTS, **_SECONDS, **_KELVINS, **_SHARES, **_COUNTS}
_BY_CASE = {unit.lower(): unit for unit in reversed(_UNITS)}
_UNIT = re.compile(r"(.+?)\s*[(\[](.+)[)\]]")  # any text in brackets
_SUFFIX = r"(.+)[_ -](\S+)"

_DRIVE = ("drive", "amplitude", "pulseamplitude", "ampl")  # the unit shows the quantity


@dataclasses.dataclass(frozen=True)
class Quantity:
    """A physical quantity, count or word that a column can hold.

    Attributes:
        unit: SI unit.
        units: `{unit: its size in SI units}`.
        names: names that laboratories use, in lower case and without marks.
        if_unit: names that belong to this quantity only if the column states a unit.
    """

    unit: str
    units: dict
    names: tuple
    if_unit: tuple = ()


QUANTITIES = {
    "current_a": Quantity(
        "A",
        _AMPERES,
        ("i", "current", "ipulse", "iwrite", "iw", "pulsecurrent", "writecurrent", "ibias"),
        _DRIVE,
    ),
    "voltage_v": Quantity(
        "V",
        _VOLTS,
        ("v", "voltage", "vpulse", "vwrite", "vp", "vw", "pulsevoltage", "writevoltage", "vbias"),
        _DRIVE,
    ),
    "pulse_width_s": Quantity(
        "s",
        _SECONDS,
        ("tp", "tpulse", "tw", "pulsewidth", "width", "pw", "pulselength", "pulseduration"),
        ("t", "duration", "length", "pulse", "time"),
    ),
    "gate_voltage_v": Quantity("V", _VOLTS, ("vg", "vgate", "gatevoltage"), ("gate",)),
    "temperature_k": Quantity("K", _KELVINS, ("temperature", "temp"), ("t",)),
    "direction": Quantity(_WORD, {}, ("direction", "dir", "transition", "switchingdirection")),
    "switched": Quantity(
        _COUNT,
        _COUNTS,
        ("switched", "nsw", "nswitched", "switches", "switchcount", "switchevents", "successes"),
    ),
    "trials": Quantity(
        _COUNT,
        _COUNTS,
        (
            "trials", "n", "nreps", "reps", "ntrials", "repeats", "repetitions", "npulses",
            "shots", "nshots", "attempts", "ntotal",
        ),
    ),
    "fraction": Quantity(
        "1",
        _SHARES,
        (
            "p", "psw", "pswitch", "pswitching", "prob", "probability", "switchingprobability",
            "switchprobability", "fraction", "switchedfraction",
        ),
    ),
    "switching_current_a": Quantity("A", _AMPERES, ("ic", "isw", "iswitch", "switchingcurrent")),
    "switching_voltage_v": Quantity("V", _VOLTS, ("vc", "vsw", "vswitch", "switchingvoltage")),
}  # fmt: skip
_SHORT = {name: name[:-2] for name in QUANTITIES if name[-2:] in ("_a", "_v", "_s", "_k")}
_ALIASES = {short: name for name, short in _SHORT.items()}


@dataclasses.dataclass(frozen=True)
class Column:
    """A column of the file. Its values in SI units are `factor` times its numbers plus `offset`."""

    name: str
    factor: float = 1.0
    unit: str = ""
    stated: bool = False  # whether the name or the caller stated the unit
    offset: float = 0.0
    told: bool = False  # whether the caller stated the unit


def identify(found, columns, units, given, where):
    """The column of every quantity.

    Args:
        found: names of the columns.
        columns: `{quantity: name}` from the caller, or `None`.
        units: `{name or quantity: unit}` from the caller, or `None`.
        given: quantities that need no column.
        where: name of the data in error messages.

    Returns:
        `{quantity: Column}` and a list of guesses in words.
    """
    said = _said(columns, found, where)
    units = _units(units, found, said, where)
    taken = set(said.values())
    result, notes = {}, []
    for quantity, name in said.items():
        if quantity not in given:
            result[quantity] = _column(quantity, name, units, where)
    drives = ("current_a", "voltage_v", "switching_current_a", "switching_voltage_v")
    for quantity in QUANTITIES:
        if quantity in {*result, *given} or (quantity in drives and any(d in said for d in drives)):
            continue
        if {"switched": "fraction", "fraction": "switched"}.get(quantity) in said:
            continue  # both give the same information
        names = [n for n in found if n not in taken and _means(n, quantity, units)]
        own = [name for name in names if name == quantity]
        if quantity == "fraction" and "switched" in result:  # serves as a check of the counts
            if len(names) == 1:
                result[quantity] = _column(quantity, names[0], units, where)
            continue
        if len(names) > 1 and not own:
            raise ValueError(
                f"{where}: the columns {names} may all be {quantity}. Choose one: "
                f"columns={{{quantity!r}: {names[0]!r}}}."
            )
        if not names:
            continue
        column = result[quantity] = _column(quantity, (own or names)[0], units, where)
        if column.name != quantity:
            what = _SHORT.get(quantity, quantity)
            unit = "" if column.unit in (_WORD, _COUNT, *_COUNTS) else f" in {column.unit}"
            notes.append(f"{column.name!r} as {what}{unit}")
    return result, notes


def split(name):
    """A name in lower case without marks, and its unit or `None`: `"t_p (ns)"` gives `tp`, `ns`."""
    name = unicodedata.normalize("NFKC", name).strip()  # one kind of spaces, brackets and micro
    patterns = (r"(.+?)\s*[(\[]\s*(.+?)\s*[)\]]", r"(.+?)\s*/\s*(\S+)", r"(.+)\s+in\s+(\S+)")
    for pattern in (*patterns, _SUFFIX):
        match = re.fullmatch(pattern, name)
        unit = match and known_unit(match[2])
        # The end of `n_count` or `P_1` belongs to the name.
        if unit and not (pattern == _SUFFIX and unit in _COUNTS):
            return _plain(match[1]), unit
    return _plain(name), None


def known_unit(unit):
    """A unit in the spelling of the tables above, or `None` for an unknown unit."""
    unit = re.sub(r"\s", "", unicodedata.normalize("NFKC", unit))
    return unit if unit in _UNITS else _BY_CASE.get(unit.lower())


def is_known(name):
    """Whether a name shows a quantity."""
    return any(_means(name, quantity, {}) for quantity in QUANTITIES)


def of_unknown_unit(name):
    """Quantities that a name shows, but in a unit without meaning: `I (MA/cm2)`; may be empty."""
    match = _UNIT.fullmatch(name.strip())
    if not match or is_known(name):
        return set()
    return {quantity for quantity in QUANTITIES if _means(match[1], quantity, {})}


def _plain(name):
    return re.sub(r"[\W_]", "", name).lower()


def _means(name, quantity, units):
    if name == quantity:
        return True
    plain, unit = split(name)
    unit = units.get(name, unit)
    kind = QUANTITIES[quantity]
    if unit in _PERCENT and plain in QUANTITIES["switched"].names:
        return quantity == "fraction"  # "switched (%)" is no count
    if unit is not None and unit not in kind.units:
        # the "s" of "n_s" is no unit of a count
        plain, unit = _plain(name), None
    return plain in kind.names or (unit is not None and plain in kind.if_unit)


def _column(quantity, name, units, where):
    kind = QUANTITIES[quantity]
    if name == quantity:
        unit = units.get(name)
    else:
        unit = units.get(name, split(name)[1])
        unit = unit if unit in kind.units else None
    if unit is None:
        if kind.unit in ("A", "V", "s", "K") and _UNIT.fullmatch(name.strip()):
            density = " Multiply a current density by the area." if kind.unit == "A" else ""
            raise ValueError(
                f"{where}: the brackets of {name!r} hold no known unit of {quantity}; state it, "
                f"for example units={{{name!r}: {kind.unit!r}}}.{density}"
            )
        return Column(name, 1.0, kind.unit)
    offset = _OFFSETS.get(unit, 0.0)
    return Column(name, kind.units[unit], unit, True, offset, told=name in units)


def _said(columns, found, where):
    if columns is None:
        return {}
    if not isinstance(columns, dict):
        raise ValueError(
            f"columns = {columns!r} must be a dictionary {{quantity: name of the column}}, or a "
            "list of names for a file without names."
        )
    said = {}
    for quantity, name in columns.items():
        own = _ALIASES.get(quantity, quantity)
        if own not in QUANTITIES:
            turned = " columns maps quantities to columns, not columns to quantities."
            raise ValueError(
                f"columns has the unknown quantity {quantity!r}; the known ones are "
                f"{list(QUANTITIES)}."
                f"{turned if name in QUANTITIES or name in _ALIASES else ''}"
            )
        if name not in found and str(name) in found:
            name = str(name)
        if name not in found:
            raise ValueError(
                f"{where} has no column {name!r} (columns[{quantity!r}]); it has {found[:20]}."
            )
        said[own] = name
    return said


def _units(units, found, said, where):
    if units is None:
        return {}
    if not isinstance(units, dict):
        raise ValueError(f"units = {units!r} must be a dictionary {{column: unit}}.")
    result = {}
    for key, unit in units.items():
        quantity = _ALIASES.get(key, key)
        names = [key] if key in found else [said[quantity]] if quantity in said else None
        if names is None:
            names = [n for n in found if quantity in QUANTITIES and _means(n, quantity, {})]
        kinds = [kind.units for kind in QUANTITIES.values()]
        if not names:
            raise ValueError(f"{where} has no column {key!r} (units); it has {found[:20]}.")
        own = known_unit(unit) if isinstance(unit, str) else None
        if own is None:
            known = sorted({name for kind in kinds for name in kind if name.isascii()})
            raise ValueError(f"units[{key!r}] = {unit!r} is not one of {known}.")
        result |= {name: own for name in names}
    for quantity, name in said.items():
        unit = result.get(name)
        if unit is not None and unit not in QUANTITIES[quantity].units:
            raise ValueError(
                f"units[{name!r}] = {unit!r} is not a unit of {quantity}; "
                f"choose one of {list(QUANTITIES[quantity].units)}."
            )
    return result
