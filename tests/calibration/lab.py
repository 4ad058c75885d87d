"""A table as a laboratory writes it: six currents of one pulse width, and what reads it back."""

import warnings

import numpy as np

from spinkeras import calibration

CURRENT = np.array([60.0, 66.0, 72.0, 78.0, 84.0, 90.0])  # uA
SWITCHED = np.array([154, 298, 461, 614, 738, 830])  # of 1000, 2 ns
TABLE = {
    "current_a": CURRENT * 1e-6,
    "pulse_width_s": [2e-9] * 6,
    "switched": SWITCHED,
    "trials": [1000] * 6,
}
PLAIN = calibration.read_table(TABLE)


def write(folder, text, name="lab.csv", encoding="utf-8"):
    path = folder / name
    path.write_bytes(text.encode(encoding))
    return path


def lines(head, row, mark=",", decimal="."):
    """A file of the six settings; `row` formats `i` (uA), `k` (switched) and `p` (their share)."""
    text = [head, *(row.format(i=i, k=k, p=k / 1000) for i, k in zip(CURRENT, SWITCHED))]
    return "\n".join(text).replace(".", decimal).replace("|", mark) + "\n"


def same(table, rtol=1e-12):
    for name, column in PLAIN.items():
        np.testing.assert_allclose(table[name], column, rtol=rtol, err_msg=name)


def read_quietly(*args, **options):
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", ".*guessed")
        return calibration.read_table(*args, **options)


# --- devices and directions in one file -----------------------------------------------------------


def two_devices():
    """Two devices, two directions, 12 voltages of 50 pulses, as fractions: of the usual shape."""
    rows = []
    rng = np.random.default_rng(3)
    for device, shift in (("A", 0.0), ("B", 0.03)):
        for direction, more in (("P->AP", 0.0), ("AP->P", 0.02)):
            for volts in np.arange(0.80, 1.03, 0.02):
                p = 1 / (1 + np.exp(-36 * (volts - 0.9 - shift - more)))
                rows.append(
                    f"{device},{direction},{volts:.2f},7.5e-10,{rng.binomial(50, p) / 50},50"
                )
    return "device_id,direction,V,t_p,P_sw,n_reps\n" + "\n".join(rows) + "\n"
