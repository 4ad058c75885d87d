"""Checks whether rows of one setting agree, except for chance, before their counts are added."""

import numpy as np
from scipy import stats

from spinkeras.notices import warn

_LEAST_EXPECTED = 1.0  # least expected count of each outcome in a row; chi-squared needs this
_MANY_TRIALS = 50
_CERTAIN = 1e-4  # p below which rows surely differ
_MOST_VALUES = 20  # most values of a column that may distinguish, for example, devices


def warn_if_unlike(setting, settings, switched, trials, others, where):
    """Warn if rows of one setting differ by more than chance.

    The test is a chi-squared test of the rows against the mean of their setting. It uses the
    settings at which every row is expected to have both outcomes.

    Args:
        setting: number of the setting of each row.
        settings: columns whose values together define a setting.
        switched, trials: counts of the rows.
        others: columns of cells that the table does not use.
        where: name of the data in the warning.

    Returns:
        List of guesses in words: rows with different values in another column belong to one device.
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
            f" The rows differ in {', '.join(best)}: select rows by where={{{best[0]!r}: ...}} or "
            f"make tables by={best if len(best) > 1 else best[0]!r}."
            if best
            else " Separate different devices or directions, or look for a drift."
        )
        warn(
            f"{where}: rows of one setting are not alike (chi-squared {total:.0f} on {degrees:g}), "
            f"but their counts were added; the worst setting is {place}: {counts}.{cure}"
        )
        return []
    return [
        f"one device for all values of {name!r} ({', '.join(map(str, _values(others[name])[:4]))})"
        for name in selecting
    ]


def warn_if_twice(setting, switched, trials, others, where):
    """Warn if rows of one setting have the same cells so often that they must be copies.

    The test uses rows with at least 50 trials and `P` of 0.1 to 0.9. Two such measurements have the
    same count with a probability of at most 0.1 or so. Arguments as in `warn_if_unlike`.
    """
    share = switched / trials
    rows = (trials >= _MANY_TRIALS) & (share > 0.1) & (share < 0.9)
    cells = [np.unique(np.asarray(c).astype(str), return_inverse=True)[1] for c in others.values()]
    found = np.stack([setting, switched, trials, *map(np.ravel, cells)])[:, rows]
    copies = found.shape[1] - np.unique(found, axis=1).shape[1]
    again = found.shape[1] - len(np.unique(found[0]))  # rows after the first of their setting
    if copies >= 4 and copies > again / 2:
        warn(
            f"{where}: {copies} rows have the same setting and the same counts as an earlier row. "
            "If they are copies, remove them: pulses that count twice make the standard errors "
            "too small."
        )


def _selecting(others, rows):
    """Columns with a few different values, each in several rows; the values become integers."""
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
    """Chi-squared and degrees of freedom of every setting; 0 where the counts are too small."""
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
