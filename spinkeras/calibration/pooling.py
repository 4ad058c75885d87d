"""Adds up the counts of rows with one setting: equal current, pulse width and conditions."""

import numpy as np


def in_settings(settings):
    """Order of the rows by setting, and the number of each row's setting.

    Values that are equal to 12 digits count as equal.
    """
    rounded = [
        _rounded(column) if column.dtype.kind == "f" else np.unique(column, return_inverse=True)[1]
        for column in settings.values()
    ]
    order = np.lexsort(rounded)
    new = np.any([np.diff(column[order]) != 0 for column in rounded], axis=0)
    number = np.empty(len(order), int)
    number[order] = np.concatenate([[0], np.cumsum(new)])
    return order, number


def _rounded(values):
    size = 10.0 ** np.floor(np.log10(np.where(values == 0, 1.0, np.abs(values))))
    return np.round(values / size, 11) * size


def pool(settings, switched, trials):
    """The table with the counts of equal settings added up."""
    order, number = in_settings(settings)
    first = np.flatnonzero(np.diff(number[order], prepend=-1))
    table = {name: column[order][first] for name, column in settings.items()}
    for name, counts in (("switched", switched), ("trials", trials)):
        table[name] = np.add.reduceat(counts[order], first)
    return table
