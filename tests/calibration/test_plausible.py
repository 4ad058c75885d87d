"""Numbers that are impossible in their unit, or of the wrong sign, are refused at the door."""

import numpy as np
import pytest

from spinkeras import calibration
from tests.calibration.lab import CURRENT, SWITCHED, TABLE

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
