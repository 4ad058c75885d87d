"""Directions, temperatures and states in tables: read, told, or refused in one sentence."""

import numpy as np
import pytest

import spinkeras
from spinkeras import calibration
from spinkeras.calibration.conditions import direction_of
from spinkeras.physics import current_of_voltage
from tests.calibration.harness import MEASURED, REFERENCE, WAY, read, small_table


@pytest.mark.parametrize(
    ("cells", "direction"),
    [
        (("P->AP", "p-ap", "P to AP", "PtoAP", "P2AP", "P→AP", "p => ap", "P/AP"), "P->AP"),
        (
            (
                "AP->P",
                "ap_p",
                "AP TO P",
                "(AP-P)",
                "AP\u2013P",
                "AP\u2212P",
                "antiparallel -> parallel",
            ),
            "AP->P",
        ),
        (("P", "AP", "P->P", "AP->AP", "up", "", "1", 0, None, "PAPP", "SET"), None),
    ],
)
def test_spellings_of_a_direction(cells, direction):
    assert {direction_of(cell) for cell in cells} == {direction}


@pytest.mark.parametrize("name", ["direction", "dir", "Transition", "switching direction"])
def test_rows_of_both_directions_stay_apart(name):
    same = small_table(current_a=[70e-6] * 6, switched=[1, 2, 3, 40, 50, 60])
    table, said = read({**same, name: WAY})
    assert sorted(zip(table["direction"], table["switched"])) == [("AP->P", 150), ("P->AP", 6)]
    assert (name == "direction") == (not said)
    again, said = read(table)  # a table is read like any other
    assert not said
    assert all(np.all(again[key] == table[key]) for key in table)
    said_by, _ = read({**same, "x": WAY}, columns={"direction": "x"})
    assert np.all(said_by["direction"] == table["direction"])
    stated, _ = read(same, direction="AP-P")
    assert list(stated["direction"]) == ["AP->P"]
    one, _ = read({**same, name: WAY}, where={name: "AP->P"})
    assert list(one["direction"]) == ["AP->P"]
    parts, _ = read({**same, name: WAY}, by=name)
    assert [part["switched"].item() for part in parts.values()] == [6, 150]


def test_a_direction_in_a_file_without_names(tmp_path):
    path = tmp_path / "data.csv"
    path.write_text("7e-5,P->AP,3,9\n-6e-5,AP->P,4,9\n")
    names = ["current_a", "direction", "switched", "trials"]
    table, said = read(path, columns=names, pulse_width=2e-9)
    assert list(zip(table["direction"], table["switched"])) == [("AP->P", 4), ("P->AP", 3)]
    assert "that negative drive favours AP->P" in said
    with pytest.raises(ValueError, match="has no line of names: its first line is '7e-5, P->AP"):
        calibration.read_table(path, pulse_width=2e-9)


def test_a_column_that_is_about_another_direction_is_left_alone():
    for cells in (["up"] * 3 + ["down"] * 3, [1, 1, 1, 0, 0, 0]):
        table, said = read({**small_table(), "direction": cells})
        assert "direction" not in table
        assert "as direction" not in said
        with pytest.raises(ValueError, match=r"direction = .* is neither P->AP nor AP->P"):
            read({**small_table(), "direction": cells}, columns={"direction": "direction"})


@pytest.mark.parametrize("channel", [None, 776.0])
@pytest.mark.parametrize("resistance", [None, 3000.0])
def test_voltages_become_currents_in_the_state_in_which_pulses_start(channel, resistance):
    device = REFERENCE.replace(tmr=1.4, write_resistance=channel)
    volts = np.linspace(0.2, 0.7, 6)
    table = small_table(current_a=None, voltage_v=volts)
    options = {"device": device} if resistance is None else {"resistance": resistance}
    for way, state in (("P->AP", "parallel"), ("AP->P", "antiparallel")):
        expected = current_of_voltage(volts, device, state)
        expected = expected if resistance is None else volts / resistance
        for stated in (dict(data=table, direction=way), dict(data={**table, "dir": [way] * 6})):
            found, said = read(stated.pop("data"), **options, **stated)
            np.testing.assert_allclose(found["current_a"], np.sort(expected), rtol=1e-12)
            assert "start" not in said
        ramp, _ = read(
            {"switching_voltage_v": np.linspace(0.2, 0.7, 40)},
            ramp={"step": 0.05, "dwell": 1e-3},
            direction=way,
            **options,
        )
        middle = 0.2 + 0.05 * np.arange(11)
        middle = middle / resistance if resistance else current_of_voltage(middle, device, state)
        np.testing.assert_allclose(ramp["current_a"][-11:], middle, rtol=1e-9)
    both, _ = read({**table, "direction": WAY}, **options)
    mixed = np.where(
        np.array(WAY) == "P->AP",
        current_of_voltage(volts, device, "parallel"),
        current_of_voltage(volts, device, "antiparallel"),
    )
    expected = mixed if resistance is None else volts / resistance
    np.testing.assert_allclose(np.sort(both["current_a"]), np.sort(expected), rtol=1e-12)


@pytest.mark.parametrize(("state", "law"), [("parallel", "R"), ("antiparallel", "R_AP(V)")])
def test_the_state_that_was_assumed_is_said(state, law):
    device = REFERENCE.starting(state)
    table = small_table(current_a=None, voltage_v=np.linspace(0.3, 0.7, 6))
    found, said = read(table, device=device)
    assert said.count(f"that pulses start {state}, so V = I {law} with R_P = 7958 ohm") == 1
    expected = current_of_voltage(np.linspace(0.3, 0.7, 6), device, state)
    np.testing.assert_allclose(found["current_a"], expected, rtol=1e-12)
    assert not read(table, device=device.replace(write_resistance=776.0))[1]
    assert not read(small_table(), device=device)[1]


@pytest.mark.parametrize(
    ("name", "values", "units", "kelvin"),
    [
        ("temperature_k", [25.0, 300.0], None, [25.0, 300.0]),
        ("T (K)", [4.2, 300], None, [4.2, 300]),
        ("T_K", [77, 300], None, [77, 300]),
        ("T (degC)", [-40, 85], None, [233.15, 358.15]),
        ("temp_C", [25, 85], None, [298.15, 358.15]),
        ("Temperature [°C]", [25, 85], None, [298.15, 358.15]),
        ("temperature", [298, 358], None, [298, 358]),
        ("temperature", [25, 85], "degC", [298.15, 358.15]),
        ("temperature", [25, 85], "K", [25, 85]),
    ],
)
def test_names_and_units_of_a_temperature(name, values, units, kelvin):
    table = small_table(current_a=[1e-5, 2e-5, 3e-5] * 2)
    table[name] = np.repeat(np.array(values, "float64"), 3)
    found, said = read(table, units=units and {name: units})
    np.testing.assert_allclose(found["temperature_k"], np.repeat(kelvin, 3))
    assert len(found["trials"]) == 6
    assert ("as temperature in" in said) == (name != "temperature_k")


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"temperature": [25, 25, 25, 85, 85, 85]}, r"25 to 85 may be K or degC; state units="),
        ({"temp": [25, 25, 85, 85, 150, 150]}, r"25 to 150 may be K or degC; state units="),
        ({"temperature_k": [0, 1, 2, 3, 4, 5]}, r"row 0 .*temperature_k = 0 is not 1 to 1000 K"),
        ({"T (K)": [300, 300, -40, 85, 85, 85]}, r"row 2 .*T \(K\) = -40 is not 1 to .*degC"),
        ({"T (degC)": [300] * 5 + [900]}, r"row 5 .*T \(degC\) = 900 is not 1 to 1000 K, taken in"),
        ({"T (degC)": [-300] * 6}, r"T \(degC\) = -300 is not 1 to 1000 K.*\(6 such rows\)"),
        ({"temperature_k": [300, "warm", 300, 300, 300, 300]}, r"row 1 .*'warm' is not a number"),
        ({"temperature_k": [300, None, 300, 300, 300, 300]}, r"row 1 .*nan is not a finite number"),
        ({"T (K)": [300] * 6, "temp": [300] * 6}, r"may all be temperature_k\. Choose one"),
        ({"direction": ["P->AP", "", *WAY[:4]]}, r"row 1 .*direction = '' is neither P->AP nor"),
        ({"dir": ["P->AP", "P->P", *WAY[:4]]}, r"row 1 .*dir = 'P->P' is neither P->AP nor AP->P"),
        ({"dir": WAY, "transition": WAY}, r"may all be direction\. Choose one"),
        (
            {"direction": WAY, "current_a": [-1e-5, 2e-5, 3e-5, 1e-5, 2e-5, 3e-5]},
            r"table \(P->AP\) has currents of both signs",
        ),
        (
            {"direction": WAY, "current_a": [-1e-5, -2e-5, -3e-5] * 2},
            r"Every current of the table \(.*P.*\) is <= 0",
        ),
    ],
)
def test_malformed_conditions_get_one_sentence(columns, message):
    table = {**small_table(), "switched": [900, 500, 100, 10, 400, 800], **columns}
    for reader in (
        calibration.read_table,
        lambda table: spinkeras.fit_device(table, REFERENCE),
        spinkeras.fit_empirical,
    ):
        with pytest.raises(ValueError, match=message):
            reader(table)


def test_other_arguments_are_refused():
    for direction in ("up", 1, "P->P", ["P->AP"]):
        with pytest.raises(ValueError, match=r"direction = .* must be one of \['P->AP', 'AP->P'\]"):
            calibration.read_table(small_table(), direction=direction)
    with pytest.raises(ValueError, match=r"give the `resistance` .*, or the `device`"):
        calibration.read_table(MEASURED)
    with pytest.raises(ValueError, match="Unknown preset 'nothing'"):
        calibration.read_table(MEASURED, device="nothing")
