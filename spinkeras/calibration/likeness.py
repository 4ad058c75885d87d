"""Whether rows of one setting may be added up: are they alike but for chance?"""

import numpy as np
from scipy import stats

from spinkeras.notices import warn

_LEAST_EXPECTED = 1.0  # of either outcome in a row, for chi-squared to hold
_CERTAIN = 1e-4
_MOST_VALUES = 20  # of a column that may select


def warn_if_unlike(setting, settings, switched, trials, others, where):
    """Warn of rows of one setting that differ by more than chance.

    Chi-squared of the rows about the mean of their setting, over the settings at which both
    outcomes are expected in every row.

    Args:
        setting: number of the setting of each row.
        settings: columns that make a setting.
        switched, trials: counts of the rows.
        others: columns of the table that are not used, of cells.
        where: what the warning calls the data.

    Returns:
        What was guessed, in words: that rows of different values of another column are one device.
    """
    selecting = dict(_selecting(others, len(setting)))
    chi, freedom = _chi_squared(setting, switched, trials)
    total, degrees = np.sum(chi), np.sum(freedom)
    if degrees and stats.chi2.sf(total, degrees) < _CERTAIN:
        worst = int(np.argmin(stats.chi2.logsf(chi, np.maximum(freedom, 1))))
        rows = np.flatnonzero(setting == worst)
        counts = ", ".join(f"{switched[k]:g} of {trials[k]:g}" for k in rows[:6])
        first = {name: column[rows[0]] for name, column in settings.items()}
        place = ", ".join(
            f"{name} = {value}" if isinstance(value, str) else f"{name} = {value:.4g}"
            for name, value in first.items()
        )
        left = {}
        for name, codes in selecting.items():
            finer = np.unique(np.stack([setting, codes]), axis=1, return_inverse=True)[1].ravel()
            parts, kept = _chi_squared(finer, switched, trials)
            left[name] = np.sum(parts) - np.sum(kept)
        best = sorted(left, key=left.get)[:3]
        cure = (
            f" The rows differ in {', '.join(best)}: select by where={{{best[0]!r}: ...}} or make "
            f"tables by={best if len(best) > 1 else best[0]!r}."
            if best
            else " Tell different devices or directions apart, or look for a drift."
        )
        warn(
            f"{where}: rows of one setting are not alike (chi-squared {total:.0f} on {degrees:g}), "
            f"but were added up; the worst is {place}: {counts}.{cure}"
        )
        return []
    return [
        f"one device for all values of {name!r} ({', '.join(map(str, _values(others[name])[:4]))})"
        for name in selecting
    ]


def _selecting(others, rows):
    """Columns with a few values, each in several rows, as numbers."""
    for name, cells in others.items():
        values = np.asarray([str(cell).strip() for cell in cells[:1000]])
        if len(np.unique(values)) in range(2, _MOST_VALUES + 1):
            values = np.asarray([str(cell).strip() for cell in cells])
            kinds, codes = np.unique(values, return_inverse=True)
            if len(kinds) <= min(_MOST_VALUES, rows // 3):
                yield name, codes.ravel()


def _values(cells):
    return sorted({str(cell).strip() for cell in cells})


def _chi_squared(setting, switched, trials):
    """Per setting, where it can be judged, and its degrees of freedom."""
    rows = np.bincount(setting)
    share = np.bincount(setting, switched) / np.bincount(setting, trials)
    expected = trials * share[setting]
    smallest = np.minimum(expected, trials - expected)
    judged = np.full(len(rows), np.inf)
    np.minimum.at(judged, setting, smallest)
    judged = (judged >= _LEAST_EXPECTED) & (rows > 1)
    variance = np.where(judged[setting], expected * (1 - share[setting]), 1.0)
    chi = np.bincount(setting, (switched - expected) ** 2 / variance)
    return np.where(judged, chi, 0.0), np.where(judged, rows - 1, 0)
