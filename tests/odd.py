"""Odd input for the tests of what is checked where it enters: values, texts and damaged files.

Everything follows from a seed. `outcome` says what a call made of it: an error of ours is a plain
`ValueError`, raised on purpose in this package, whose one sentence names what is wrong.
"""

import decimal
import fractions
import json
import pathlib
import traceback

import numpy as np

import spinkeras

HOME = pathlib.Path(spinkeras.__file__).parent


class Strange:
    """An object that is nothing, and that cannot even be printed."""

    def __repr__(self):
        raise RuntimeError("no text")


def nested(depth):
    value = []
    for _ in range(depth):
        value = [value]
    return value


NEVER_A_NUMBER = [
    None,
    True,
    False,
    np.True_,
    "x",
    "1n",
    "0.1",
    "",
    b"1",
    [],
    [1.0],
    (0.1, 0.2),
    {},
    {"a": 1},
    {1},
    1j,
    object(),
    Strange(),
    float,
    len,
    np.array([0.1]),
    np.array([[1.0, 2.0]]),
    np.array(["a"]),
    np.datetime64("2020-01-01"),
    float("nan"),
    float("inf"),
    -float("inf"),
    10**400,
    -(10**5000),
    nested(3),
    nested(400),
]
"""Not a number for any argument."""

NUMBERS = [
    0,
    -1,
    1,
    2,
    0.5,
    -0.0,
    1e308,
    -1e308,
    5e-324,
    1e-30,
    1e30,
    3,
    2**31,
    2**63,
    1e6,
    np.float32(0.25),
    np.int64(4),
    np.float64("nan"),
    np.array(0.25),
    fractions.Fraction(1, 4),
    decimal.Decimal("0.25"),
]


def odd_value(rng):
    """One of the odd values, or a number of any size."""
    k = rng.integers(3)
    if k == 0:
        return NEVER_A_NUMBER[rng.integers(len(NEVER_A_NUMBER))]
    if k == 1:
        return NUMBERS[rng.integers(len(NUMBERS))]
    number = float(f"{rng.choice(['-', ''])}{rng.uniform(1, 10)}e{rng.integers(-320, 308)}")
    return int(number) if abs(number) < 1e300 and rng.integers(2) else number


JSON_VALUES = [
    "null",
    "true",
    "false",
    '"x"',
    '""',
    "[]",
    "{}",
    "[1, 2]",
    '{"a": 1}',
    "1e400",
    "-1e400",
    "1e308",
    "NaN",
    "Infinity",
    "-Infinity",
    "0",
    "-1",
    "1",
    "2.5",
    "9" * 400,
    "9" * 5000,
    "[" * 100_000 + "]" * 100_000,
    '{"class_name": "x"}',
    '{"class_name": 3, "config": 4}',
    '"\\ud800"',
]


def damaged(text, rng):
    """A file's content with a cut, a flipped, doubled, removed or inserted piece."""
    data = bytearray(text if isinstance(text, bytes) else text.encode())
    k, at = rng.integers(7), int(rng.integers(len(data) + 1))
    if k == 0:
        return bytes(data[:at])
    if k == 1 and at < len(data):
        data[at] ^= 1 << int(rng.integers(8))
    elif k == 2:
        data[at:at] = bytes(rng.integers(256, size=int(rng.integers(1, 9)), dtype=np.uint8))
    elif k == 3:
        del data[at : at + int(rng.integers(1, 30))]
    elif k == 4:
        lines = bytes(data).splitlines(keepends=True)
        lines.insert(rng.integers(len(lines) + 1), lines[rng.integers(len(lines))])
        return b"".join(lines)
    elif k == 5:
        data[at:at] = b"\xff\xfe"
    elif k == 6:
        return bytes(data).replace(b"\n", b"\r\n") if rng.integers(2) else bytes(data) + b"\0\0"
    return bytes(data)


def changed_json(value, rng):
    """JSON text of `value` with one leaf, at random, replaced by an odd one."""
    paths = []

    def walk(node, path):
        paths.append(path)
        if isinstance(node, dict | list):
            for key in node if isinstance(node, dict) else range(len(node)):
                walk(node[key], (*path, key))

    walk(value, ())
    path = paths[1 + rng.integers(len(paths) - 1)]
    mark = "@@@odd@@@"
    copy = json.loads(json.dumps(value))
    node = copy
    for key in path[:-1]:
        node = node[key]
    if isinstance(node, dict) and rng.integers(5) == 0:
        del node[path[-1]]
        return json.dumps(copy), path
    node[path[-1]] = mark
    text = json.dumps(copy)
    return text.replace(f'"{mark}"', JSON_VALUES[rng.integers(len(JSON_VALUES))]), path


def outcome(call, *names):
    """`("taken", result)`, `("refused", sentence)` or `("raw", traceback)`.

    Args:
        call: function of no arguments.
        names: words of which the sentence has to hold at least one.
    """
    try:
        return "taken", call()
    except Exception as error:
        where = pathlib.Path(traceback.extract_tb(error.__traceback__)[-1].filename)
        ours = type(error) is ValueError and where.is_relative_to(HOME)
        said = str(error)
        if (
            ours
            and 20 < len(said) < 1500
            and (not names or any(name.lower() in said.lower() for name in names))
        ):
            return "refused", said
        last = "".join(traceback.format_exception(error)[-2:])
        return "raw", " ".join(last.split())[-600:]
