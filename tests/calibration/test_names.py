"""Names of columns and their units: what is guessed, what is said, and what stays unused."""

import numpy as np
import pytest

from spinkeras import calibration
from tests.calibration.lab import CURRENT, SWITCHED, TABLE, lines, read_quietly, same, write


@pytest.mark.parametrize("name", ["switched (%)", "n_sw_%", "switches / percent"])
def test_a_count_in_percent_is_a_share(tmp_path, name):
    text = "\n".join(f"{i};2;{k / 10};1000" for i, k in zip(CURRENT, SWITCHED))
    with pytest.warns(UserWarning, match="as fraction in (%|percent)"):
        same(calibration.read_table(write(tmp_path, f"I_uA;t_ns;{name};N\n{text}\n")))


@pytest.mark.parametrize(("unit", "worth"), [("%", 1e-2), ("1", 1.0)])
def test_small_shares_are_in_the_unit_that_the_caller_states(unit, worth):
    table = {key: TABLE[key] for key in ("current_a", "pulse_width_s", "trials")}
    table["P (%)"] = [0.1, 0.2, 0.3, 0.4, 0.6, 0.8]
    read = read_quietly(table, units={"P (%)": unit})
    np.testing.assert_allclose(read["switched"], 1000 * worth * np.array(table["P (%)"]))


def test_columns_that_are_not_used_are_named_beside_what_was_guessed(tmp_path):
    path = write(tmp_path, lines("I_uA,t_ns,P,N,T,run,note", "{i},2,{p},1000,20,a,warm"))
    cases = [
        ({}, r"Not used: 'T', 'run', 'note'\."),
        ({"where": {"run": "a"}}, r"Not used: 'T', 'note'\."),
        ({"by": "run"}, r"Not used: 'T', 'note'\."),
        ({"columns": {"temperature": "T"}, "units": {"T": "degC"}}, r"Not used: 'run', 'note'\."),
    ]
    for options, message in cases:
        with pytest.warns(UserWarning, match=message):
            calibration.read_table(path, **options)


@pytest.mark.parametrize("unit", ["degC", "deg C", "\u00b0C", "\u2103", "celsius"])
@pytest.mark.parametrize("form", ["T ({})", "T [{}]", "temperature / {}", "T in {}"])
def test_degrees_in_every_spelling(form, unit):
    if " " in unit and form.endswith("{}"):
        unit = unit.replace(" ", "")
    read = read_quietly(TABLE | {form.format(unit): [26.85] * 6})
    np.testing.assert_allclose(read["temperature_k"], 300.0)


@pytest.mark.parametrize("name", ["trials.1", "current_a.2", "V_g (MV/m)", "Temp (F)"])
def test_columns_that_look_like_data_are_not_dropped_in_silence(name):
    with pytest.warns(UserWarning, match="guessed that .* does not matter. Not used: ") as caught:
        same(calibration.read_table(TABLE | {name: [1.0] * 6}))
    assert name in str(caught[0].message)
    same(calibration.read_table(TABLE | {"note.1": [1.0] * 6, "run (a)": [1] * 6}))  # silent


def test_what_is_said_is_no_guess(tmp_path):
    path = write(tmp_path, lines("x,y,z,note", "{i},{p},2,warm"))
    options = dict(
        columns={"current": "x", "fraction": "y", "pulse_width_s": "z"},
        units={"x": "uA", "pulse_width": "ns"},
        trials=1000,
    )
    same(calibration.read_table(path, **options))  # does not warn
    bare = write(tmp_path, "\n".join(f"{i}e-6\t{k}" for i, k in zip(CURRENT, SWITCHED)), "bare.txt")
    names = ["current_a", "switched"]
    same(calibration.read_table(bare, columns=names, pulse_width=2e-9, trials=1000))
    columns = {"I": CURRENT * 1e-6, "n": [1000] * 6, "k": SWITCHED}
    said = {"current_a": "I", "switched": "k", "trials": "n"}
    same(calibration.read_table(columns, columns=said, pulse_width=2e-9))
