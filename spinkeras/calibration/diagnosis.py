"""Describes in words what the residuals of a fit have in common."""

import numpy as np
from scipy import stats

from spinkeras.calibration.conditions import CONDITIONS

_CLEAR = 3.0  # standard deviations from which a deviation is reported


def pattern(table, probability, residuals):
    """Sentences about what the residuals have in common; empty if they look random.

    If the law holds, the residuals are independent and nearly standard normal. Then the mean of `m`
    of them has the standard deviation `1 / sqrt(m)`. The function reports a mean that differs from
    0 by more than 3 standard deviations: the mean at one pulse width, gate voltage or temperature,
    in one direction, or at the foot, the middle or the shoulder of the curve. It also reports too
    few runs of residuals of one sign along the current (test of Wald and Wolfowitz), and the
    largest residual if it exceeds 4.

    Args:
        table: pooled counts.
        probability: fitted probability of every row.
        residuals: signed residual of every row.
    """
    part = np.digitize(probability, (0.2, 0.8))
    names = np.array(["at the foot (P < 0.2)", "in the middle (P 0.2 to 0.8)",
                      "at the shoulder (P > 0.8)"])  # fmt: skip
    widths = np.array([f"at {1e9 * width:.4g} ns" for width in table["pulse_width_s"]])
    found = [*_shifts(widths, residuals)]
    for name, words in CONDITIONS.items():
        labels = np.array([f"at {words(value)}" for value in table.get(name, ())])
        found += _shifts(labels, residuals) if name in table else ()
    found += _shifts(names[part], residuals)
    runs = _runs(table, residuals)
    if runs:
        found.append(runs)
    worst = int(np.argmax(np.abs(residuals)))
    if abs(residuals[worst]) > 4:
        trials = table["trials"][worst]
        found.append(
            f"the worst row is {table['current_a'][worst]:.4g} A, {widths[worst][3:]}: "
            f"{table['switched'][worst]:g} of {trials:g} switched, where the fit expects "
            f"{trials * probability[worst]:.4g}"
        )
    return found


def _shifts(labels, residuals):
    kinds = np.unique(labels)
    for kind in kinds if len(kinds) > 1 else ():
        own = residuals[labels == kind]
        if abs(np.mean(own)) * np.sqrt(len(own)) > _CLEAR:
            side = "above" if np.mean(own) > 0 else "below"
            yield f"the data lie {side} the fit {kind} (mean residual {np.mean(own):+.1f})"


def _runs(table, residuals):
    """A sentence if residuals of one sign follow each other along the current, else `None`."""
    keys = ["current_a", "pulse_width_s", *(name for name in CONDITIONS if name in table)]
    order = np.lexsort([np.unique(table[key], return_inverse=True)[1] for key in keys])
    above = residuals[order] > 0
    count, up = len(above), int(np.sum(above))
    down = count - up
    if min(up, down) < 4:
        return None
    runs = 1 + int(np.sum(above[1:] != above[:-1]))
    expected = 1 + 2 * up * down / count
    variance = (expected - 1) * (expected - 2) / (count - 1)
    if (expected - runs) < _CLEAR * np.sqrt(variance):
        return None
    return (
        f"residuals of one sign follow each other along the current ({runs} runs; random "
        f"residuals give {expected:.0f}): the curve has another shape"
    )


def extrapolation(probability, curve):
    """A list with a sentence if a table shows less than half of a curve's height, else empty."""
    least, most = np.min(probability), np.max(probability)
    if most - least >= 0.5 * (curve.ceiling - curve.floor):
        return []
    return [
        f"the table shows the curve from P = {least:.2g} to {most:.2g} only; the rest, which a "
        "network uses too, is an extrapolation, and the errors assume its shape"
    ]


def poor(fit):
    """Why an `Estimate` does not describe its table: a list of texts, empty if `p >= 0.01`.

    The deviance and Pearson's chi-squared must both be too large. With few pulses at a setting,
    one of them may exceed its degrees of freedom although the law holds.
    """
    freedom = fit.degrees_of_freedom
    p_value = stats.chi2.sf(fit.deviance, freedom) if freedom else 1.0
    if p_value >= 0.01:
        return []
    trials, p = fit.table["trials"], fit.probability
    pearson = np.sum((fit.table["switched"] - trials * p) ** 2 / (trials * p * (1 - p)))
    if stats.chi2.sf(pearson, freedom) >= 0.01:
        return []
    said = pattern(fit.table, p, fit.residuals) or ["the residuals have no pattern"]
    return [
        f"The fit does not describe the table: deviance {fit.deviance:.1f} on "
        f"{freedom} degrees of freedom (p = {p_value:.2g}). Look at these findings: "
        f"{'; '.join(said)}. The standard errors are too small, by a "
        f"factor of {np.sqrt(fit.deviance / freedom):.2g} if the scatter is extra noise; scaled() "
        "gives larger ones. If the residuals have a pattern, try another law or more free "
        "parameters, or check the table (drift, two devices or directions in one table)."
    ]
