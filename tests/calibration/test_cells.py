"""Cells and their numbers: decimal commas, selected and grouped rows, every form of columns."""

import numpy as np
import pandas
import pytest

import spinkeras
from spinkeras import calibration
from tests.calibration.harness import small_table
from tests.calibration.lab import TABLE, lines, read_quietly, two_devices, write


@pytest.mark.parametrize(
    ("columns", "problem"),
    [
        (("60.000", "2", "0,154"), "I_uA = '60.000' may have a mark for thousands"),
        (("60,0", "2.000", "0,154"), "t_ns = '2.000' may have a mark for thousands"),
        (("60", "2", "0.154"), None),  # no decimal comma anywhere
        (("60,0", "2", "0.154"), None),  # no number has thousands of 0
    ],
)
def test_points_beside_decimal_commas(tmp_path, columns, problem):
    rows = ";".join((*columns, "1000"))
    path = write(tmp_path, f"I_uA;t_ns;P;N;note\n{rows};Smith, J. 1.5\n")
    if problem is None:
        assert read_quietly(path)["switched"] == 154
    else:
        with pytest.raises(ValueError, match=problem):
            read_quietly(path)


def test_where_and_by_read_decimal_commas(tmp_path):
    path = write(
        tmp_path,
        lines("I (uA);t_p (ns);P_sw;n_reps", "{i};2,0;{p};1000", ";", ",").replace(
            ";2,0;", ";2,5;"
        ),
    )
    assert len(read_quietly(path, where={"t_p (ns)": 2.5})["trials"]) == 6
    assert list(read_quietly(path, by="t_p (ns)")) == [2.5]


@pytest.mark.parametrize("kind", [bool, object, "boolean", str, str.upper])
def test_one_pulse_per_row_may_be_true_or_false(tmp_path, kind):
    told = pandas.Series(np.arange(6) > 2)
    told = told.astype(str).map(kind) if kind is str.upper else told.astype(kind)
    frame = pandas.DataFrame(TABLE | {"switched": told, "trials": 1})
    frame.to_csv(tmp_path / "lab.csv", index=False)
    for data in (frame, tmp_path / "lab.csv"):
        assert calibration.read_table(data)["switched"].tolist() == [0, 0, 0, 1, 1, 1]
        with pytest.raises(ValueError, match="trials = 50 must be 1, because its outcome is true"):
            calibration.read_table(data, trials=50)


def test_where_selects_and_by_groups(tmp_path):
    path = write(tmp_path, two_devices())
    by = read_quietly(path, 776.0, by=["device_id", "direction"])
    assert list(by) == [(d, way) for d in "AB" for way in ("P->AP", "AP->P")]
    for (device, direction), table in by.items():
        one = read_quietly(path, 776.0, where={"device_id": device, "direction": direction})
        for name, column in one.items():
            np.testing.assert_array_equal(column, table[name])
        assert len(table["trials"]) == 12
    assert list(read_quietly(path, 776.0, by="direction", where={"device_id": ["A"]})) == [
        "P->AP", "AP->P",
    ]  # fmt: skip
    curve = calibration.fit_empirical(by["A", "P->AP"]).curve
    assert curve.threshold * 776 == pytest.approx(0.90, abs=0.02)
    spinkeras.SpinNeuron("vgsot_zhang2020", switching_model=curve)
    for options, message in (
        ({"where": {"direction": "P-AP"}}, r"no row with direction = \['P-AP'\]; its values are"),
        ({"where": {"way": 1}}, r"has no column 'way' \(where\); it has \['device_id', "),
        ({"by": "way"}, r"has no column 'way' \(by\)"),
        ({"where": "A"}, "where = 'A' must be a dictionary"),
    ):
        with pytest.raises(ValueError, match=message):
            calibration.read_table(path, 776.0, **options)


class Columns:
    """A frame of another library: names in `columns`, and a column for each."""

    def __init__(self, table):
        self.table, self.columns = table, list(table)

    def __getitem__(self, name):
        return self.table[name]


FRAME = pandas.DataFrame(small_table())
FORMS = {
    "tuples": lambda: {name: tuple(column) for name, column in FRAME.items()},
    "series of other indices": lambda: {
        name: pandas.Series(list(column), index=np.roll(np.arange(6), k))
        for k, (name, column) in enumerate(FRAME.items())
    },
    "structured array": lambda: FRAME.to_records(index=False),
    "frame of another library": lambda: Columns(small_table()),
    "rows in another order": lambda: FRAME[::-1],
    "index of settings": lambda: FRAME.set_index(["current_a", "pulse_width_s"]),
    "index that is a column, too": lambda: FRAME.set_index("current_a", drop=False),
    "groups": lambda: FRAME.groupby(["current_a", "pulse_width_s"])[["switched", "trials"]].sum(),
    "categories": lambda: FRAME.astype("category"),
    "nullable numbers": lambda: FRAME.convert_dtypes(),
    "text": lambda: FRAME.astype("string"),
    "masked arrays without a mask": lambda: {n: np.ma.array(c) for n, c in FRAME.items()},
}


@pytest.mark.parametrize("form", FORMS)
def test_columns_in_any_form(form):
    read = calibration.read_table(FORMS[form]())
    for name, column in calibration.read_table(small_table()).items():
        np.testing.assert_allclose(read[name], column, rtol=1e-15, err_msg=name)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (pandas.concat({"A": FRAME, "B": FRAME}, axis=1), r"names of several levels.*data\['A'\]"),
        (pandas.concat([FRAME, FRAME[["trials"]]], axis=1), "the column 'trials' more than once"),
        (FRAME.to_csv(), "is the text of a table, not a path; write it to a file"),
        (small_table(trials=iter([1])), "trials of the table must be a list of numbers, one for"),
        (
            small_table(switched=np.ma.array([1] * 6, mask=[0, 0, 1, 0, 0, 0])),
            "row 2 .* = nan is not",
        ),
        (FRAME.assign(switched=[1, 2, None, 4, 5, 6]), "row 2 .*is not a finite number; leave out"),
        (FRAME.convert_dtypes().mask(FRAME["switched"] == 461), "row 2 .*is not a"),
    ],
)
def test_forms_that_are_refused_say_what_to_do(data, message):
    with pytest.raises(ValueError, match=message):
        calibration.read_table(data)


def test_numbers_may_name_the_columns():
    said = {name: k for k, name in enumerate(FRAME)}
    read = calibration.read_table(pandas.DataFrame(FRAME.to_numpy()), columns=said)
    np.testing.assert_array_equal(read["trials"], FRAME["trials"])
