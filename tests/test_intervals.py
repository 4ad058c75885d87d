"""The exact binomial interval, against SciPy and against its definition."""

import numpy as np
import pytest
from scipy import stats

from spinkeras.intervals import clopper_pearson


@pytest.mark.parametrize("confidence", [0.5, 0.95, 0.999])
def test_it_is_the_exact_interval_of_scipy(confidence):
    for trials in (1, 2, 17, 1000):
        successes = np.unique(np.linspace(0, trials, 7).astype(int))
        ends = np.transpose(clopper_pearson(successes, trials, confidence))
        for k, found in zip(successes, ends):
            wanted = stats.binomtest(int(k), trials).proportion_ci(confidence, method="exact")
            np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-15)


@pytest.mark.parametrize("confidence", [0.5, 0.95])
def test_it_holds_every_probability_at_least_as_often_as_it_says(confidence):
    trials, p = 12, np.linspace(0, 1, 201)[:, None]
    successes = np.arange(trials + 1)
    low, high = clopper_pearson(successes, np.full(trials + 1, trials), confidence)
    often = np.sum(stats.binom.pmf(successes, trials, p) * ((low <= p) & (p <= high)), axis=1)
    assert np.all(often >= confidence - 1e-12)


def test_ends_are_zero_and_one_where_every_pulse_agrees_and_arrays_broadcast():
    trials = np.array([[3], [1_000_000]])
    low, high = clopper_pearson(np.stack([0 * trials, trials], -1)[:, 0], trials, 0.9)
    assert low.shape == high.shape == (2, 2)
    np.testing.assert_array_equal(low[:, 0], 0.0)
    np.testing.assert_array_equal(high[:, 1], 1.0)
    np.testing.assert_allclose(high[:, 0], 1 - 0.05 ** (1 / trials[:, 0]), rtol=1e-9)
    np.testing.assert_allclose(low[:, 1], 0.05 ** (1 / trials[:, 0]), rtol=1e-9)
