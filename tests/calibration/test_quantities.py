"""Columns as numbers in SI units, and refusals that name a row."""

import numpy as np
import pytest

from spinkeras.calibration.cells import of_columns
from spinkeras.calibration.names import Column
from spinkeras.calibration.quantities import Quantities

COLUMNS = {
    "current_a": Column("I_uA", 1e-6, "uA", True),
    "temperature_k": Column("T (degC)", 1.0, "degC", True, 273.15),
}


def table(current=(50.0, 60.0, 70.0), celsius=(25.0, 25.0, 85.0)):
    return Quantities(of_columns({"I_uA": list(current), "T (degC)": list(celsius)}), COLUMNS)


def test_values_are_in_si_units():
    read = table()
    np.testing.assert_allclose(read.values["current_a"], [50e-6, 60e-6, 70e-6])
    np.testing.assert_allclose(read.values["temperature_k"], [298.15, 298.15, 358.15])
    read.fill("trials", 20)
    np.testing.assert_array_equal(read.values["trials"], [20, 20, 20])


def test_refusals_name_the_first_row_and_its_number_as_it_was_given():
    read = table()
    read.refuse(read.values["current_a"] > 1, "current_a", "is not refused")
    with pytest.raises(ValueError, match=r"row 1 \(counted from 0\): I_uA = 60 is large \(2 such"):
        read.refuse(read.values["current_a"] > 55e-6, "current_a", "is large")
    read.fill("trials", 20)
    with pytest.raises(ValueError, match=r"row 0 .*: trials = 20 is small \(3 such rows\)\.$"):
        read.refuse(read.values["trials"] < 50, "trials", "is small")
    with pytest.raises(ValueError, match=r"row 2 .*: T \(degC\) = nan is not a finite number"):
        table(celsius=(25.0, 25.0, np.nan))
    with pytest.raises(ValueError, match="has no rows"):
        table((), ())
