"""Checks of values where they enter: what they return, what they refuse, and in which words."""

import dataclasses
import math

import keras
import numpy as np
import pytest
from keras import ops

from spinkeras import ChipSpread, checks


@pytest.mark.backends
@pytest.mark.parametrize("kind", [int, float, np.float32, np.int8, np.array, ops.convert_to_tensor])
def test_numbers_become_plain_ones(kind):
    value = kind(2)
    assert checks.number("width", value, "s", 2, 2) == checks.whole("count", value, 2, 2) == 2
    assert type(checks.number("width", value, "s")) is float
    assert type(checks.whole("count", value, 0, 5)) is int


@pytest.mark.parametrize("value", [True, np.bool_(True), "2", b"2", None, [2.0], np.ones(1), 2j])
def test_what_is_no_number_is_refused_with_the_value_and_the_unit(value):
    with pytest.raises(
        ValueError, match=r"^width = .* is not a number; give one in s\. Hint: x\.$"
    ):
        checks.number("width", value, "s", hint="x")
    with pytest.raises(ValueError, match=r"is not a number; give one \(a share\)\.$"):
        checks.number("width", value, "(a share)")
    with pytest.raises(ValueError, match=r"^count = .* must be a whole number from 1 to 3\.$"):
        checks.whole("count", value, 1, 3)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 10**400, -1e-9, 2.1])
def test_numbers_outside_the_range_are_refused_with_the_range(value):
    with pytest.raises(ValueError, match=r"^width = .* s is .*outside \[0, 2\] s\.$"):
        checks.number("width", value, "s", 0, 2)
    if not -9 < value < 9:
        with pytest.raises(ValueError, match=r"^width = .* s is not finite\.$"):
            checks.number("width", value, "s")
    with pytest.raises(ValueError, match="must be a whole number from 0 to 2"):
        checks.whole("count", value, 0, 2)


@pytest.mark.backends
def test_values_are_arrays_inside_a_range_or_tensors_as_they_are():
    assert checks.values("p", 0.5, "(a share)", 0, 1) == 0.5
    np.testing.assert_array_equal(checks.values("p", [0, math.nan, 1], "s", 0, 1), [0, np.nan, 1])
    assert checks.values("p", 1 + 1e-7, "s", 0, 1) > 1  # a rounding error of single precision
    tensor = ops.convert_to_tensor([2.0])
    assert checks.values("p", tensor, "s", 0, 1) is tensor
    for bad in (1.1, [0.5, 1.1], -0.1, np.array([[-3]]), math.inf):
        with pytest.raises(ValueError, match=r"^p = .* s is outside \[0, 1\] s\. Hint: x\.$"):
            checks.values("p", bad, "s", 0, 1, "x")
    for bad in (0, 0.0, [1, 0], -math.inf):
        with pytest.raises(ValueError, match=r"^p = .* \(a share\) is outside \(0, inf\) "):
            checks.values("p", bad, "(a share)", 0, above=True)


def test_a_large_integer_stays_exact():
    assert checks.whole("seed", 2**60 + 1, 0, 2**64) == 2**60 + 1


def test_arrays_flags_texts_and_choices():
    assert checks.array("x", [[1, 2]]).tolist() == [[1.0, 2.0]]
    for bad in ([True], ["1"], [1j], [[1], [1, 2]], None):
        with pytest.raises(ValueError, match=r"^x = .* must be a list of counts\.$"):
            checks.array("x", bad, "a list of counts")
    assert checks.flag("f", np.bool_(False)) is False
    assert checks.text("t", "a") == checks.choice("t", "a", ("a", "b")) == "a"
    with pytest.raises(ValueError, match=r"f = 1 must be True or False"):
        checks.flag("f", 1)
    with pytest.raises(ValueError, match=r"t = 1 must be a text"):
        checks.text("t", 1)
    for bad in ("c", 1, None, ["a"]):
        with pytest.raises(ValueError, match=r"must be one of \['a', 'b'\]"):
            checks.choice("t", bad, ("a", "b"))


class Silent:
    def __repr__(self):
        raise RuntimeError


def test_values_are_shown_on_one_short_line_whatever_they_are():
    assert checks.shown("a") == "'a'"
    assert checks.shown(10**5000) == "an integer of 16610 bits"
    assert checks.shown(Silent()) == "a value of type Silent"
    said = checks.shown(np.arange(1000).reshape(2, -1))
    assert "\n" not in said
    assert len(checks.shown("x" * 1000)) == 200
    assert checks.shown_error(ValueError("Too\n hot.")) == "Too hot"
    assert checks.shown_error(KeyError("a")) == "KeyError 'a'"


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ('{"a": NaN}', "NaN is not allowed"),
        ("[-Infinity]", "-Infinity is not allowed"),
        ("[1e999]", "1e999 is larger than any float"),
        ("[1" + "0" * 400 + "]", "000... is larger than any float"),
        ('{"a": 1, "a": 1}', "the name 'a' occurs twice"),
        ("[" * 100_000, "nested too deeply"),
        (b"\xff", "utf-8"),
        (3, "must be str, bytes"),
        ("{", "Expecting"),
    ],
)
def test_json_is_read_strictly(content, problem):
    with pytest.raises(ValueError, match=r"^m\.json: not valid JSON \(") as caught:
        checks.from_json(content, "m.json")
    assert problem in str(caught.value)
    assert len(str(caught.value)) < 300


def test_json_of_every_value():
    assert checks.from_json(b'{"a": [1, 2.5, null, true, "b"]}', "m") == {
        "a": [1, 2.5, None, True, "b"]
    }
    low, bad = checks.from_json("[-Infinity, NaN]", "m", finite=False)
    assert low == -math.inf
    assert math.isnan(bad)


def test_objects_of_keras_are_of_the_class_that_is_asked_for():
    config = keras.saving.serialize_keras_object(keras.layers.Dense(2))
    assert checks.from_keras("layer", config, keras.layers.Dense).units == 2
    with pytest.raises(ValueError, match=r"^layer = .* describes no Flatten or Dropout\.$"):
        checks.from_keras("layer", config, keras.layers.Flatten, keras.layers.Dropout)
    with pytest.raises(ValueError, match=r"^layer = .* describes no Dense: "):
        checks.from_keras("layer", {**config, "class_name": "None"}, keras.layers.Dense)


def test_errors_in_a_block_name_the_argument():
    with pytest.raises(ValueError, match=r"^device: too hot$"), checks.errors_about("device"):
        raise ValueError("too hot")
    with pytest.raises(KeyError), checks.errors_about("device"):
        raise KeyError("a")


@checks.by_name
@dataclasses.dataclass(frozen=True)
class Setting(checks.Options):
    width: float
    count: int = 3


def test_options_are_given_by_name_and_come_back_from_their_configuration():
    setting = Setting(width=2.0)
    assert setting.replace(count=4) == Setting(width=2.0, count=4)
    assert Setting.from_config(setting.get_config()) == setting
    for call, words in (
        (lambda: Setting(2.0), r"takes its values by name, any of \['width', 'count'\]; 2\.0 was"),
        (lambda: Setting(), r"Setting lacks \['width'\]\. Fields"),
        (lambda: Setting(width=1, depth=2), r"has no field \['depth'\]"),
        (lambda: Setting(depth=2), r"lacks \['width'\] and has no field \['depth'\]"),
        (lambda: Setting.from_config([1]), r"is described by a dictionary; got \[1\]"),
        # A default would silently replace what a file has lost.
        (lambda: Setting.from_config({"width": 2.0}), r"Setting lacks \['count'\]; the file is"),
        (lambda: ChipSpread.from_config({}), r"ChipSpread lacks \['"),
    ):
        with pytest.raises(ValueError, match=words):
            call()
