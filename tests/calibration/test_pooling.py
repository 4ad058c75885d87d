"""Rows of one setting are added up."""

import numpy as np

from spinkeras import calibration
from tests.calibration.harness import small_table


def test_rows_of_one_setting_are_pooled():
    table = calibration.read_table(
        small_table(current_a=[2e-6, 1e-6, 2e-6, 1e-6, 2e-6, 3e-6], switched=[1, 2, 3, 4, 5, 6])
    )
    np.testing.assert_array_equal(table["current_a"], [1e-6, 2e-6, 3e-6])
    np.testing.assert_array_equal(table["switched"], [6, 9, 6])
    np.testing.assert_array_equal(table["trials"], [2000, 3000, 1000])
