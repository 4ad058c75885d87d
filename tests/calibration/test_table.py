"""Tables: what a row must hold, and refusals that name the row."""

import numpy as np
import pytest
from scipy import stats

from spinkeras import calibration
from tests.calibration.harness import HEADER, MEASURED, small_table, write


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
