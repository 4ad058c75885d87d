"""How many pulses of a row switched: from a column of counts, or of their share of the trials."""

import decimal
import math

import numpy as np

from spinkeras.calibration import conditions
from spinkeras.calibration.cells import is_boolean, is_number


def switched(table, share=None):
    """The number of switched pulses of every row, after a check of trials and counts.

    Args:
        table: `Quantities` with `trials`, and with `switched` or `fraction`.
        share: `Column` of fractions beside the counts, or `None`.
    """
    trials = table.values["trials"]
    bad = ~((trials >= 1) & (trials == np.round(trials)))
    table.refuse(bad, "trials", "is not a whole number >= 1")
    if "switched" not in table.values:
        return _of_fractions(table)
    count = table.values["switched"]
    if is_boolean(table.cells.columns[table.columns["switched"].name]):
        table.refuse(trials != 1, "trials", "must be 1, because its outcome is true or false")
    table.refuse(
        (count < 0) | (count != np.round(count)),
        "switched",
        "is not a whole number >= 0; give counts, not fractions (a column `fraction`)",
    )
    table.refuse(count > trials, "switched", "exceeds the trials of its row")
    if share is not None:
        _compare_shares(share, count, trials, table.cells)
    return count


def _of_fractions(table):
    """Numbers of switched pulses, from fractions."""
    column, cells = table.columns["fraction"], table.cells
    fraction, trials = table.values["fraction"], table.values["trials"]
    percent = f"; the numbers are likely percent: units={{{column.name!r}: '%'}}"
    likely = percent if np.max(fraction) <= 100 and column.factor == 1.0 else ""
    table.refuse(
        (fraction < 0) | (fraction > 1), "fraction", f"is not a probability, 0 to 1{likely}"
    )
    if column.factor != 1.0 and not column.told and 0 < np.max(fraction) <= 0.01:
        raise ValueError(
            f"{cells.where}: no value of {column.name} exceeds 1, though its unit is percent. "
            f"State units={{{column.name!r}: '1'}} for fractions, or '%' for percent."
        )
    exact = fraction * trials
    switched = np.round(exact)
    digits = max(len(f"{v:.12g}".partition(".")[2]) for v in np.unique(fraction)[:1000])
    digits = min(digits, 12) if np.all(np.abs(fraction) < 1e12) else 12
    off = np.abs(exact - switched) > 1e-6 * trials + np.minimum(0.5 * 10.0**-digits, 1) * trials
    table.refuse(
        off,
        "fraction",
        f"times its trials is not a whole number of pulses (trials {trials[0]:g})",
    )
    common = int(np.gcd.reduce(np.append(switched, trials).astype(np.int64)))
    inside = int(np.sum((switched > 0) & (switched < trials)))
    if common > 1 and inside * math.log10(common) > 6:
        cells.notes.append(
            f"{trials[0]:g} trials a row, although every count is a multiple of {common} (is it "
            f"{trials[0] / common:g} trials, or rounded fractions?)"
        )
    return switched


def _compare_shares(column, switched, trials, cells):
    """Note fractions in a further column that differ from the counts by more than rounding."""
    texts = [
        str(cell).translate(conditions.MINUS).strip().replace(",", ".")
        for cell in cells.columns[column.name]
    ]
    if not all(map(is_number, texts)):
        return
    numbers = [decimal.Decimal(text.rstrip("%")) for text in texts]
    worth = [column.factor * (0.01 if text.endswith("%") else 1.0) for text in texts]
    share = np.array(numbers, float) * worth
    if not np.all(np.isfinite(share)):
        return
    digit = np.array([10.0 ** number.as_tuple().exponent for number in numbers]) * worth
    off = np.abs(share - switched / trials) > digit + 1e-6
    if np.any(off):
        k = int(np.argmax(off))
        cells.notes.append(
            f"the share from the counts, although {column.name!r} differs ({cells.row(k)}: "
            f"{switched[k]:g} of {trials[k]:g}, but {texts[k]})"
        )
