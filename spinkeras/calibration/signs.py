"""Whether positive current favours the reversal, as the table promises."""

import math

import numpy as np

from spinkeras.calibration.pooling import in_settings
from spinkeras.notices import warn


def towards_reversal(drive, way, cells):
    """The drive; its sign is reversed for a direction in which all drives are negative or 0."""
    drive = drive.copy()
    kinds = np.unique(way)
    negative = [kind for kind in kinds if np.max(drive[way == kind]) <= 0]
    if len(negative) == 1 and np.any(drive[way == negative[0]] < 0):
        drive[way == negative[0]] *= -1
        cells.notes.append(f"that negative drive favours {negative[0]}")
    return drive


def refuse_wrong_sign(settings, switched, trials, where, signed):
    """Refuse a table in which positive current does not favour the reversal."""
    current = settings["current_a"]
    if signed:
        if _trend(current, switched, trials) < -4:
            raise ValueError(
                f"The probability of {where} falls with the current; positive current favours "
                "reversal, so reverse the sign of the column."
            )
        return
    if np.max(current) <= 0:
        raise ValueError(
            f"Every current of {where} is <= 0; positive current favours reversal, so reverse the "
            "sign of the column, state direction=, or allow a threshold that is not positive "
            "(signed=True of read_table, bounds of `free` or relaxation_time= of fit_empirical)."
        )
    negative = current < 0
    if not np.any(negative):
        return
    small = current <= np.median(current[current >= 0])
    below, above = negative, ~negative & small
    first, second = (np.sum(switched[rows]) / np.sum(trials[rows]) for rows in (below, above))
    share = np.sum(switched[below | above]) / np.sum(trials[below | above])
    noise = math.sqrt(share * (1 - share) * (1 / trials[below].sum() + 1 / trials[above].sum()))
    trend = _trend(current[negative], switched[negative], trials[negative])
    if trend < -4 or first - second > 4 * noise:
        raise ValueError(
            f"{where} has currents of both signs, and the pulses of negative current reverse "
            f"the device too ({first:.0%} of them), but positive current favours the reversal in "
            "one direction and in the other. Keep the rows of one sign, and reverse the sign of "
            "negative currents; a column `direction` with P->AP or AP->P tells them apart."
        )


def warn_if_falling(pooled, where):
    """Warn of counts that fall with the current in rows that are equal in all else."""
    counts = ("current_a", "switched", "trials")
    current, k, n = (pooled[name] for name in counts)
    group = in_settings({name: held for name, held in pooled.items() if name not in counts})[1]
    pulses = np.bincount(group, n)
    away = current - (np.bincount(group, n * current) / pulses)[group]
    share = (np.bincount(group, k) / pulses)[group]
    fall = np.sum(away * (share * n - k))
    order = np.lexsort([current, group])
    k, n, same = k[order], n[order], np.diff(group[order]) == 0
    both = (k[1:] + k[:-1]) / (n[1:] + n[:-1])
    noise = np.sqrt(both * (1 - both) * (1 / n[1:] + 1 / n[:-1]))
    rises = np.any(same & (np.diff(k / n) > 3 * noise))
    if not rises and fall > 4 * math.sqrt(np.sum(share * (1 - share) * pooled["trials"] * away**2)):
        warn(
            f"{where}: the share of switched pulses falls with the current, but no fitted curve "
            "falls. If the column counts the pulses that did not reverse the device, give trials "
            "minus this count."
        )


def _trend(current, switched, trials):
    """The rise of the counts with the current, in standard deviations; negative for a fall."""
    away = current - np.average(current, weights=trials)
    mean = np.sum(switched) / trials.sum()
    spread = math.sqrt(max(mean * (1 - mean) * np.sum(trials * away**2), 1e-300))
    return np.sum(away * (switched - mean * trials)) / spread
