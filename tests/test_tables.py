"""Results as tables: every digit, the same columns in a data frame and in a file."""

import numpy as np
import pandas
import pytest

from spinkeras.calibration import read_table
from tests.objects import HOSTILE, OBJECTS, energy, fitted, hostile_energy


@pytest.mark.parametrize("name", ["energy", "chips", "chips, metric", "fit"])
def test_tables_hold_every_digit(name, tmp_path):
    thing = OBJECTS[name]()
    frame = thing.to_dataframe()
    thing.to_csv(tmp_path / "table.csv")
    again = pandas.read_csv(tmp_path / "table.csv", float_precision="round_trip")
    assert [*again] == [*frame] == [*thing.columns()]
    assert len(again) == len(frame)
    for column in frame:
        np.testing.assert_array_equal(frame[column], again[column])
    assert [path.name for path in tmp_path.iterdir()] == ["table.csv"]


def test_columns_are_those_of_the_report(tmp_path):
    found = energy()
    columns = found.columns()
    assert sum(columns["total_pj"]) == found.total_pj
    assert columns["shortest_pulse_ns"] == [2.0]
    assert columns["share_at_shortest_pulse"] == [1.0]
    odd = hostile_energy()
    odd.to_csv(tmp_path / "odd.csv")
    assert (tmp_path / "odd.csv").read_text().count("script") == HOSTILE.count("script")
    result = fitted()
    result.to_csv(tmp_path / "fit.csv")  # a table that can be fitted again
    for name, values in read_table(tmp_path / "fit.csv").items():
        np.testing.assert_array_equal(values, result.table[name])
