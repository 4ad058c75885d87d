"""The exact binomial interval."""

import numpy as np
from scipy import stats

from spinkeras._typing import Array


def clopper_pearson(successes: Array, trials: Array, confidence: float) -> tuple[Array, Array]:
    """Ends of the exact (Clopper-Pearson) interval of a probability, NumPy, element by element.

    Args:
        successes, trials: counts, arrays that broadcast.
        confidence: confidence level of the interval, 0 to 1.
    """
    tail, missed = (1 - confidence) / 2, trials - successes
    low = np.where(successes > 0, stats.beta.ppf(tail, successes, missed + 1), 0.0)
    high = np.where(missed > 0, stats.beta.isf(tail, successes + 1, missed), 1.0)
    return low, high
