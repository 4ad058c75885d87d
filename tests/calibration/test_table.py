"""Tables: what a row must hold, units at the door, and refusals that name the row."""

import numpy as np
import pytest
from scipy import stats

from spinkeras import calibration
from tests.calibration.harness import HEADER, MEASURED, small_table, write
from tests.calibration.lab import CURRENT, SWITCHED, TABLE, lines, read_quietly, same


def test_csv_equals_arrays(tmp_path):
    table = small_table()
    lines = ["# measured on a Tuesday", "note, " + HEADER.replace(",", " , "), ""]
    lines += [f"x,{a!r},{b!r},{c},{d}.0" for a, b, c, d in zip(*table.values())]
    path = write(tmp_path, "\ufeff" + "\r\n".join(lines))
    from_file, from_arrays = calibration.read_table(str(path)), calibration.read_table(table)
    for name, column in from_arrays.items():
        np.testing.assert_array_equal(from_file[name], column)
    assert calibration.fit_device(path, "stt_reference").deviance < stats.chi2.isf(1e-6, 4)


def test_gate_voltage_in_a_file_names_the_line(tmp_path):
    text = "gate_voltage_v," + HEADER + "\n0.5,1e-6,2e-9,3,4\n-20,1e-6,2e-9,3,4"
    with pytest.raises(ValueError, match=r"data\.csv, line 3: gate_voltage_v = -20 is not -10 to"):
        calibration.read_table(write(tmp_path, text))
    table = calibration.read_table(
        write(tmp_path, text.replace("-20", "0.5") + "\n0,1e-6,2e-9,1,9")
    )
    np.testing.assert_array_equal(table["gate_voltage_v"], [0.0, 0.5])
    np.testing.assert_array_equal(table["switched"], [1, 6])
    assert np.all(calibration.read_table(small_table())["gate_voltage_v"] == 0)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", r"data\.csv is empty; its first line must name the columns"),
        (HEADER, r"data\.csv has no rows"),
        ("current_a,switched,trials\n1e-6,1,2", r"lacks the columns \['pulse_width_s'\]"),
        (HEADER.replace("current_a", "drive"), r"either 'current_a' \(A\) or 'voltage_v' \(V\)"),
        ("voltage_v," + HEADER, r"needs one column for the drive"),
        (HEADER + ",trials\n", r"columns \['trials'\] more than once"),
        (HEADER.replace(",", ";") + "\n1;2;3", r"line 2: 3 values, but the first line names 4"),
        (HEADER + "\n1e-6,2e-9,3,4\n1e-6,2e-9,5,4", r"line 3: switched = 5 exceeds the trials"),
        (HEADER + "\n1e-6,-2e-9,3,4", r"line 2: pulse_width_s = -2e-09 is not 1e-11 to 1e-2 s"),
        (HEADER + "\n1e-6,2,3,4", r"line 2: pulse_width_s = 2 is not"),
        (HEADER + "\n\n#\n1e-6,2e-9,three,4", r"line 4: switched = 'three' is not a number"),
        (HEADER + "\n1e-6,2e-9,3,4\n1e-6,,3,4", r"line 3: pulse_width_s = '' is not a number"),
        (HEADER + "\nnan,2e-9,3,4", r"line 2: current_a = nan is not a finite number"),
        (HEADER + "\n1e-6,2e-9,inf,4", r"line 2: switched = inf is not a finite number"),
        (HEADER + "\n1e-6,2e-9,0.5,4", r"line 2: switched = 0\.5 .*give counts, not fractions"),
        (HEADER + "\n1e-6,2e-9,-1,4", r"line 2: switched = -1 is not a whole number >= 0"),
        (HEADER + "\n1e-6,2e-9,0,0", r"line 2: trials = 0 is not a whole number >= 1"),
        (HEADER + "\n1e-6,2e-9,3\n", r"line 2: 3 values, but the first line names 4 columns"),
        (HEADER + "\n" + "1e-6,2e-9,5,4\n" * 3, r"line 2: .*\(3 such rows\)"),
    ],
)
def test_malformed_file_names_the_row(tmp_path, text, message):
    with pytest.raises(ValueError, match=message):
        calibration.fit_device(write(tmp_path, text), "stt_reference")


def test_file_that_is_not_text(tmp_path):
    with pytest.raises(ValueError, match=r"data\.csv is not text in UTF-8"):
        calibration.read_table(write(tmp_path, HEADER + "\nµ,1,1,1", "latin-1"))
    with pytest.raises(FileNotFoundError):
        calibration.read_table(tmp_path / "nothing.csv")


@pytest.mark.filterwarnings("ignore:data.csv. guessed")
def test_damaged_files_are_refused_or_read_whole(tmp_path):
    rng = np.random.default_rng(13)
    rows = [f"{k}e-6,2e-9,{k},50" for k in range(1, 20)]
    intact = "\n".join([HEADER, *rows]).encode()
    path = tmp_path / "data.csv"
    read, messages = 0, []
    for _ in range(300):
        text = bytearray(intact)
        for _ in range(rng.integers(1, 4)):
            place = rng.integers(len(text))
            if rng.uniform() < 0.5:
                text[place] = rng.integers(256)
            else:
                text[place : place + rng.integers(3)] = rng.choice(list(b'0,"\n\0.-e')).tobytes()[
                    :1
                ]
        path.write_bytes(bytes(text))
        try:
            table = calibration.read_table(path)
        except ValueError as error:
            messages.append(str(error))
        else:
            read += 1
            assert all(np.all(np.isfinite(column)) for column in table.values())
            assert np.all(table["switched"] <= table["trials"])
    assert read > 0
    assert len(messages) == 300 - read > 0
    assert all("data.csv" in message for message in messages)


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        (
            dict(switched=[0, 0, 0, 0, 0, 1001]),
            r"row 5 \(counted from 0\): switched = 1001 exceeds",
        ),
        (dict(trials=None), r"lacks the columns \['trials'\]"),
        (dict(trials=[1000] * 5), r"differ in length"),
        (dict(switched=[0, 0, "many", 0, 0, 0]), r"row 2 .*switched = 'many' is not a number"),
        (dict(switched=[0, 0, None, 0, 0, 0]), r"row 2 .*switched = nan is not a finite number"),
        (dict(current_a=[1j] * 6), r"column current_a of the table must be a list"),
        (dict(current_a=np.zeros((6, 1))), r"column current_a of the table must be a list"),
        (dict(current_a=None, voltage_v=[1.0] * 6), r"gives voltages; give the `resistance`"),
    ],
)
def test_malformed_arrays_name_the_row(columns, message):
    with pytest.raises(ValueError, match=message):
        calibration.read_table(small_table(**columns))


def test_other_input():
    with pytest.raises(ValueError, match="path of a CSV file or a dictionary of columns"):
        calibration.read_table([1, 2, 3])
    with pytest.raises(ValueError, match=r"resistance = -5 ohm is outside \[0\.001, "):
        calibration.fit_device(MEASURED, "stt_reference", resistance=-5.0)


@pytest.mark.parametrize("share", ["{p:.2f}", "{p:.1e}", "{p:g}e2%", "{p}", "-"])
def test_a_share_that_agrees_with_the_count_is_silent(tmp_path, share):
    same(
        read_quietly(
            path := write(tmp_path, lines("I_uA,t_ns,n_sw,N,P", f"{{i}},2,{{k}},1000,{share}"))
        )
    )
    with pytest.warns(UserWarning, match="guessed") as caught:
        calibration.read_table(path)
    assert "share" not in str(caught[0].message)


@pytest.mark.parametrize(("head", "share"), [("P", ".7"), ("P", "70%"), ("P (%)", "7e1")])
def test_a_share_that_contradicts_the_count_is_told(tmp_path, head, share):
    text = lines(f"I_uA,t_ns,n_sw,N,{head}", "{i},2,{k},1000," + share)
    path = write(tmp_path, text)
    with pytest.warns(UserWarning, match=r"although 'P.* differs \(line 2: 154 of 1000, but"):
        same(calibration.read_table(path))
    columns = {"switched": "n_sw"}  # what is said is no guess
    with pytest.warns(UserWarning, match="guessed") as caught:
        calibration.read_table(path, columns=columns)
    assert "although" not in str(caught[0].message)


def test_suspicious_numbers_of_trials(tmp_path):
    p = np.arange(2, 50, 2) / 50  # multiples of 0.04: 25 trials, not 1000
    text = "current_a,pulse_width_s,fraction,trials\n"
    text += "\n".join(f"{50 + k}e-6,2e-9,{share},1000" for k, share in enumerate(p))
    with pytest.warns(
        UserWarning, match="1000 trials a row, although every count is a multiple of"
    ):
        calibration.read_table(write(tmp_path, text))
    read = calibration.read_table(write(tmp_path, text), trials=25)  # said, so no guess
    np.testing.assert_allclose(read["switched"], 25 * p)


FITS = (
    lambda table, **o: calibration.fit_device(table, "stt_reference", resistance=2500.0),
    lambda table, **o: calibration.fit_empirical(table, resistance=2500.0),
)


WRONG = {
    "uA in A": ({"current_a": CURRENT}, r"current_a = 60 A is not a current of a junction; the"
                r" numbers are likely uA: units=\{'current_a': 'uA'\} \(6 such rows\)"),
    "nA in A": ({"current_a": CURRENT * 1e3}, r"likely nA|likely uA"),
    "A in uA": ({"current_a": None, "I_uA": CURRENT * 1e-6}, r"I_uA = 6e-05 .* likely A: units="),
    "mV in V": ({"current_a": None, "voltage_v": CURRENT * 10}, "likely mV"),
    "ns in s": ({"pulse_width_s": [2] * 6}, r"pulse_width_s = 2 is not 1e-11 to 1e-2 s; the numbers"
                r" are likely ns: units=\{'pulse_width_s': 'ns'\}"),
    "s in ns": ({"pulse_width_s": None, "t_p (ns)": [2e-9] * 6}, "may be in SI units already"),
    "percent": ({"switched": None, "P": SWITCHED / 10}, r"P = 15.4 .* likely percent: units="),
    "shares in %": ({"switched": None, "P (%)": SWITCHED / 1e5}, "State units="),
    "mV of a gate": ({"gate_voltage_v": [500] * 6}, "not -10 to 10 V; the numbers are likely mV"),
    "all negative": ({"current_a": -CURRENT * 1e-6}, "Every current of the table is <= 0.*reverse"),
    "all negative, sorted": ({"current_a": -CURRENT[::-1] * 1e-6}, "Every current of the table"),
    "both signs": ({"current_a": np.array([-90, -84, -66, 66, 84, 90]) * 1e-6,
                    "switched": [830, 738, 298, 298, 738, 830]}, "currents of both signs.*one dir"),
}  # fmt: skip


@pytest.mark.filterwarnings("ignore:the table. guessed")
@pytest.mark.parametrize("fit", FITS)
@pytest.mark.parametrize("name", WRONG)
def test_units_and_signs_are_checked_at_the_door(fit, name):
    changes, message = WRONG[name]
    table = {n: column for n, column in (TABLE | changes).items() if column is not None}
    with pytest.raises(ValueError, match=message):
        fit(table)


def test_resistance_in_kiloohm():
    table = {n: c for n, c in TABLE.items() if n != "current_a"} | {"voltage_v": CURRENT / 100}
    with pytest.raises(
        ValueError, match=r"resistance = 2.5 ohm give 0.36 A, .*resistance is likely in kohm"
    ):
        calibration.fit_empirical(table, resistance=2.5)
