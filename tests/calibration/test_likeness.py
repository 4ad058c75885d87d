"""Rows of one setting: copies and rows that differ are told, and chance is not."""

import warnings

import numpy as np
import pytest

from spinkeras import calibration
from tests.calibration.lab import SWITCHED, TABLE, two_devices, write


def test_a_file_that_was_pasted_twice_is_told():
    twice = {name: np.tile(column, 2) for name, column in TABLE.items()}
    with pytest.warns(UserWarning, match="6 rows have the same setting and the same counts"):
        calibration.read_table(twice)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        calibration.read_table(twice | {"switched": np.concatenate([SWITCHED, SWITCHED + 3])})


@pytest.mark.filterwarnings("ignore:The fit does not describe")
def test_rows_that_are_not_alike_are_named(tmp_path):
    path = write(tmp_path, two_devices())
    alike = r"lab.csv: rows of one setting are not alike \(chi-squared \d+ on \d+\).*current_a = "
    with (
        pytest.warns(UserWarning, match=alike + r".*differ in .*device_id.*by="),
        pytest.warns(UserWarning, match="guessed"),
    ):
        calibration.read_table(path, 776.0)
    both = {name: np.tile(column, 2) for name, column in TABLE.items()}
    both["switched"] = np.concatenate([SWITCHED, SWITCHED // 2])
    with pytest.warns(UserWarning, match="rows of one setting are not alike.*830 of 1000, 415 of"):
        calibration.fit_device(both, "stt_reference")
    # A run number whose rows are alike is one device, and that is said.
    both |= {"switched": np.tile(SWITCHED, 2), "run": np.repeat([1, 2], 6)}
    with pytest.warns(UserWarning, match="guessed one device for all values of 'run'"):
        calibration.read_table(both)


def test_alike_rows_rarely_seem_unlike():
    rng = np.random.default_rng(1)
    for trials in (1, 5, 50, 2000):
        for _ in range(50):
            p = np.tile(np.sort(rng.uniform(size=8)), 6)
            table = {
                "current_a": np.tile(np.arange(1, 9) * 1e-6, 6),
                "pulse_width_s": np.full(48, 1e-9),
                "switched": rng.binomial(trials, p),
                "trials": np.full(48, trials),
            }
            calibration.read_table(table)  # does not warn
