"""Whether positive current favours the reversal: falling counts, baselines, turned directions."""

import numpy as np
import pytest

from spinkeras import calibration
from tests.calibration.harness import WAY, read, small_table
from tests.calibration.lab import CURRENT, SWITCHED, TABLE


@pytest.mark.parametrize("widths", [1, 3])
@pytest.mark.parametrize("way", [None, "P->AP"])
def test_counts_that_fall_with_the_current_are_told(widths, way):
    """Pulses that did not reverse the device; longer pulses need less current."""
    current = np.concatenate([CURRENT * 1e-6 / (k + 1) for k in range(widths)])
    table = {
        "current_a": current,
        "pulse_width_s": np.repeat(2e-9 * 4.0 ** np.arange(widths), len(CURRENT)),
        "switched": 1000 - np.tile(SWITCHED, widths),
        "trials": [1000] * len(current),
    }
    with pytest.warns(UserWarning, match="falls with the current.*trials minus this count"):
        calibration.read_table(table, direction=way)
    table["switched"] = 1000 - table["switched"]
    calibration.read_table(table, direction=way)  # does not warn
    twice = {name: np.tile(column, 2) for name, column in table.items()}
    twice["direction"] = np.repeat(["P->AP", "AP->P"], len(current))
    twice["switched"][len(current) :] = 1000 - table["switched"]  # the state, not the reversal
    with pytest.warns(UserWarning, match=r"\(AP->P\): the share of switched pulses falls"):
        calibration.read_table(twice)


def test_a_baseline_of_negative_current_is_allowed():
    table = {n: np.asarray(c) for n, c in TABLE.items()}
    more = {"current_a": [-20e-6, 0], "pulse_width_s": [2e-9] * 2, "switched": [3, 2],
            "trials": [1000] * 2}  # fmt: skip
    read = calibration.read_table({n: np.concatenate([more[n], c]) for n, c in table.items()})
    assert len(read["trials"]) == 8


@pytest.mark.parametrize("turned", ["P->AP", "AP->P"])
def test_currents_of_a_direction_may_all_be_negative(turned):
    sign = np.where(np.array(WAY) == turned, -1, 1)
    table, said = read({**small_table(), "direction": WAY})
    signed = {**small_table(current_a=sign * small_table()["current_a"]), "direction": WAY}
    found, told = read(signed)
    assert not said
    assert f"guessed that negative drive favours {turned}." in told
    assert all(np.all(found[key] == table[key]) for key in table)
