"""Checks of values where they enter: numbers with their unit, integers, choices, JSON.

Every check returns the value as a plain Python value, or raises a `ValueError`. The error names
the argument, its value, the unit, the allowed range and what to do. `True`, a text and an array of
one element do not count as numbers.
"""

import contextlib
import dataclasses
import functools
import json
import math
import numbers
from typing import Any, Self

import keras
import numpy as np
from keras import ops

_LONGEST = 200  # characters of a value in an error


def number(name, value, unit, low=-math.inf, high=math.inf, hint="") -> float:
    """A finite float from `low` to `high`.

    Args:
        name: name of the argument.
        value: a real number, or an array or tensor without axes.
        unit: such as `"s"`; for a number without a unit a word in parentheses, such as
            `"(a fraction)"`.
        low, high: ends of the range, both allowed.
        hint: advice at the end of the error, such as `"5 ns is 5e-9"`.
    """
    found = real(value)
    hint = f" Hint: {hint}." if hint else ""
    if found is None:
        give = unit if unit.startswith("(") else f"in {unit}"
        raise ValueError(f"{name} = {shown(value)} is not a number; give one {give}.{hint}")
    if not math.isfinite(found) or not low <= found <= high:
        problem = [] if math.isfinite(found) else ["is not finite"]
        if math.isfinite(low) or math.isfinite(high):
            problem.append(f"is outside [{low:g}, {high:g}] {unit}")
        raise ValueError(f"{name} = {found:g} {unit} {' and '.join(problem)}.{hint}")
    return found


def whole(name, value, low, high, hint="") -> int:
    """An integer from `low` to `high`; a float such as 3.0 counts as an integer."""
    found = value if type(value) is int else real(value)
    if found is None or not low <= found <= high or found != int(found):
        hint = f" Hint: {hint}." if hint else ""
        raise ValueError(
            f"{name} = {shown(value)} must be a whole number from {low} to {high}.{hint}"
        )
    return int(value)


def array(name, value, what="an array of numbers") -> np.ndarray:
    """A float64 array of any shape; refuses truth values, complex numbers and text."""
    try:
        found = np.asarray(value)
        if found.dtype.kind not in "iuf" or found.ndim > 32:
            raise TypeError
    except Exception:  # ragged rows, a symbolic tensor, an object of another library
        raise ValueError(f"{name} = {shown(value)} must be {what}.") from None
    return found.astype("float64")


def values(name, value, unit, low=-math.inf, high=math.inf, hint="", above=False):
    """A number or an array of numbers from `low` to `high`, as float64; a tensor as it is.

    The values of a tensor cannot be checked while a graph is traced. NaN passes, because it shows
    that a training diverged; what is computed from it is NaN, too.

    Args:
        name, unit, low, high, hint: as for `number`.
        above: whether `low` itself is refused. Default `False`.
    """
    if ops.is_tensor(value) or isinstance(value, (keras.Variable, keras.KerasTensor)):
        return value
    found = value
    if not isinstance(value, float):
        give = unit if unit.startswith("(") else f"in {unit}"
        found = array(name, value, f"a number or an array of numbers {give}")
    rounding = 1e-6 * (high - low) if math.isfinite(high - low) else 0.0
    bad = (found < low - rounding) | (found > high + rounding) | (above and found == low)
    if np.any(bad):
        hint = f" Hint: {hint}." if hint else ""
        brackets = "(" if above else "[", "]" if math.isfinite(high) else ")"
        raise ValueError(
            f"{name} = {np.asarray(found)[bad].flat[0]:g} {unit} is outside "
            f"{brackets[0]}{low:g}, {high:g}{brackets[1]} {unit}.{hint}"
        )
    return found


def flag(name, value) -> bool:
    """`True` or `False`."""
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"{name} = {shown(value)} must be True or False.")
    return bool(value)


def text(name, value, what="a text") -> str:
    """A text."""
    if not isinstance(value, str):
        raise ValueError(f"{name} = {shown(value)} must be {what}.")
    return value


def choice(name, value, allowed) -> str:
    """One of a few names."""
    if not (isinstance(value, str) and value in allowed):
        raise ValueError(f"{name} = {shown(value)} must be one of {list(allowed)}.")
    return value


def shown(value) -> str:
    """A value as errors show it: on one line and shortened."""
    if isinstance(value, int) and abs(value) > 1e300:  # Python refuses to print huge integers
        return f"an integer of {value.bit_length()} bits"
    try:
        said = repr(value)
    except Exception:  # the `repr` of another library's class, or endless nesting
        said = f"a value of type {type(value).__name__}"
    return _short(said)


def shown_error(error) -> str:
    """The message of an error, as part of a sentence."""
    said = _short(str(error), 500).rstrip(".")
    return said if isinstance(error, ValueError) else f"{type(error).__name__} {said}"


def _short(said, longest=_LONGEST):
    said = " ".join(said.split())
    return said if len(said) <= longest else said[: longest - 3] + "..."


def from_json(content, where, finite=True):
    """The value of a JSON text, read more strictly than Python reads it.

    It refuses `NaN` and `Infinity`, numbers too large for a float, an object that has the same
    name twice, and a text that is nested too deeply.

    Args:
        content: text, or bytes in UTF-8.
        where: name of the file or of the object described; the error begins with it.
        finite: `False` allows `NaN` and `Infinity`.
    """

    def parsed(digits):
        if not math.isfinite(float(digits)):
            raise ValueError(f"{_short(digits, 50)} is larger than any float")
        return float(digits)

    def integer(digits):
        parsed(digits)  # int() itself would accept integers that are too large for a float
        return int(digits)

    def constant(name):
        if finite:
            raise ValueError(f"{name} is not allowed")
        return float(name)

    def unique(pairs):
        names = [name for name, _ in pairs]
        twice = len(names) > len(set(names))
        if twice:
            name = next(name for k, name in enumerate(names) if name in names[:k])
            raise ValueError(f"the name {shown(name)} occurs twice")
        return dict(pairs)

    try:
        if isinstance(content, bytes):
            content = content.decode("utf-8")
        return json.loads(
            content,
            parse_float=parsed,
            parse_int=integer,
            parse_constant=constant,
            object_pairs_hook=unique,
        )
    except (TypeError, ValueError) as error:
        raise ValueError(f"{where}: not valid JSON ({_short(str(error))}).") from None
    except RecursionError:
        raise ValueError(f"{where}: not valid JSON (nested too deeply).") from None


def from_keras(name, config, *kinds):
    """An object of a class from its Keras description, or a `ValueError` that names the argument.

    Args:
        name: name of the argument.
        config: dictionary, as `keras.saving.serialize_keras_object` returns it.
        *kinds: the allowed classes.
    """
    problem = f"{name} = {shown(config)} describes no {' or '.join(k.__name__ for k in kinds)}"
    try:
        value = keras.saving.deserialize_keras_object(config)
    except Exception as error:  # Keras raises errors of many classes here
        raise ValueError(f"{problem}: {_short(str(error), 500)}") from None
    if not isinstance(value, kinds):
        raise ValueError(f"{problem}.")
    return value


@contextlib.contextmanager
def errors_about(name):
    """A `ValueError` in the `with` block begins with the name of the argument."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from None


def require_entries(owner, config, needed):
    """Refuse a configuration from a file that lacks an entry which every such file holds.

    Without this check, a default value would silently replace the lost one and describe another
    device.
    """
    if not isinstance(config, dict):
        raise ValueError(f"A {owner} is described by a dictionary; got {shown(config)}.")
    missing = [name for name in needed if name not in config]
    if missing:
        raise ValueError(
            f"The description of a {owner} lacks {missing}; the file is damaged or was not written "
            "by this package."
        )


def by_name(cls):
    """Class decorator for a dataclass: values are given by name, and none may be missing."""
    fields = {field.name: field for field in dataclasses.fields(cls)}
    needed = [name for name, field in fields.items() if field.default is dataclasses.MISSING]
    shown_fields = [name for name, field in fields.items() if field.repr]
    init = cls.__init__

    @functools.wraps(init)
    def checked(self, *values, **named):
        if values:
            raise ValueError(
                f"{cls.__name__} takes its values by name, any of {shown_fields}; "
                f"{shown(values[0])} was given without a name."
            )
        unknown = [name for name in named if name not in fields]
        missing = [name for name in needed if name not in named]
        if unknown or missing:
            problems = [f"lacks {missing}"] if missing else []
            problems += [f"has no field {_short(str(unknown))}"] if unknown else []
            raise ValueError(
                f"{cls.__name__} {' and '.join(problems)}. Fields (SI units): {shown_fields}."
            )
        init(self, **named)

    cls.__init__ = checked
    return cls


def real(value):
    """The value as a float, infinite if it is too large; `None` if it is not a number."""
    if isinstance(value, (bool, np.bool_, str, bytes)):
        return None
    if not isinstance(value, numbers.Real):
        # An array or a tensor without axes also counts as a number.
        kind = str(getattr(value, "dtype", ""))
        if getattr(value, "shape", None) != () or not ("float" in kind or "int" in kind):
            return None
    try:
        return float(value)
    except OverflowError:
        return math.inf if value > 0 else -math.inf
    except Exception:  # a symbolic tensor has no value
        return None


class Options:
    """Base class of frozen dataclasses of options that Keras can save, with all their fields."""

    def replace(self, **changes: Any) -> Self:
        """A copy with some fields changed, validated like a new one.

        Args:
            **changes: fields by name, in SI units.

        Raises:
            ValueError: for an unknown field, and a value outside its range.

        Example:

        >>> import spinkeras
        >>> spinkeras.Driver(pulse_step=20e-12).replace(gate_levels=256)
        Driver(pulse_step=2e-11, gate_levels=256)
        """
        return dataclasses.replace(self, **changes)  # type: ignore[type-var]

    def get_config(self) -> dict[str, Any]:
        """Fields as a plain dictionary (Keras serialisation).

        Example:

        >>> import spinkeras
        >>> spinkeras.Driver(gate_levels=256).get_config()
        {'pulse_step': None, 'gate_levels': 256}
        """
        return dataclasses.asdict(self)  # type: ignore[call-overload]

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Inverse of `get_config`; a missing or unknown field gives a `ValueError`.

        Args:
            config: dictionary of all fields, in SI units.

        Raises:
            ValueError: for a missing or unknown field, and a value outside its range.

        Example:

        >>> import spinkeras
        >>> driver = spinkeras.Driver(gate_levels=256)
        >>> spinkeras.Driver.from_config(driver.get_config()) == driver
        True
        """
        require_entries(cls.__name__, config, [field.name for field in dataclasses.fields(cls)])  # type: ignore[arg-type]
        return cls(**config)
