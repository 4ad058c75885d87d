"""Counts of switched pulses, and their shares of the trials."""

import numpy as np
import pytest

from spinkeras import calibration
from tests.calibration.harness import write
from tests.calibration.lab import lines, read_quietly, same


@pytest.mark.parametrize(
    "share", ["{p:.2f}", "{p:.1e}", "{p:g}e2%", "{p}", "-", "nan", "inf", "1e999"]
)
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
