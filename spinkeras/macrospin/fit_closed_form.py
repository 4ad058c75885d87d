"""Fit the closed form of the macrospin switching curve to the exact Fokker-Planck solution.

Run once, offline, and again whenever the form or its domain changes:

    python -m spinkeras.macrospin.fit_closed_form            # some minutes on two cores
    python -m spinkeras.macrospin.fit_closed_form --check    # only report the error

The form is `P = (1 - exp(-E exp(b (h - h50))))^C`. Three Chebyshev series in `ln u` and
`Delta^-1/2` give `ln(h50 / Delta)`, `ln(slope)` and the skew (`ln C` through a logistic that
keeps it below `max_log_skew`). Their coefficients minimise the 6-norm of the error in `P` over
exact curves (Legendre-Galerkin), which is close to the smallest maximum error. The report uses
the other discretisation (finite volumes) at random settings that the fit has not seen.
"""

import argparse
import json
import pathlib

import numpy as np
from scipy import linalg, optimize

from spinkeras.macrospin import fokker_planck

DURATIONS = (0.003, 60.0)
STABILITIES = (7.0, 90.0)
MAX_LOG_SKEW = 17.0
DEGREES = {"log_midpoint_ratio": (12, 6), "log_slope": (9, 5), "skew": (8, 4)}
TARGET = pathlib.Path(__file__).parents[1] / "macrospin_fit.json"


def exact_curves(stabilities, durations, spacing=0.035):
    """Exact `(Delta, u, h, P)` rows over a grid of currents that covers every transition.

    `durations` must hold three values per octave, so that squaring the propagator three apart
    doubles the time.
    """
    rows = []
    for delta in stabilities:
        highest = 4 + 1.6 * np.log(40 * delta) / (2 * durations[0] * delta)
        ratios = np.geomspace(0.3, highest, int(np.log(highest / 0.3) / spacing))
        if delta < 20:
            ratios = np.concatenate([np.linspace(-0.6, 0.3, 13)[:-1], ratios])
        for ratio in ratios:
            matrix, start, readout = fokker_planck.legendre_system(ratio, delta)
            for first in range(3):
                propagator = linalg.expm(matrix * durations[first] * delta)
                for duration in durations[first::3]:
                    rows.append((delta, duration, ratio * delta, readout @ propagator @ start))
                    propagator = propagator @ propagator
        print(f"exact curves for Delta = {delta:5.1f}: {len(ratios)} currents", flush=True)
    rows = np.array(rows)
    probability = rows[:, 3]
    return rows[(probability > 2e-5) & (probability < 1 - 2e-5)]


def _coordinates(duration, stability):
    log_low, log_high = np.log(DURATIONS)
    x = (2 * np.log(duration) - log_low - log_high) / (log_high - log_low)
    low, high = STABILITIES[1] ** -0.5, STABILITIES[0] ** -0.5
    y = (2 * stability**-0.5 - low - high) / (high - low)
    return x, y


def _basis(duration, stability, degrees):
    x, y = _coordinates(duration, stability)
    in_x = np.polynomial.chebyshev.chebvander(x, degrees[0] - 1)
    in_y = np.polynomial.chebyshev.chebvander(y, degrees[1] - 1)
    return (in_x[:, :, None] * in_y[:, None, :]).reshape(len(x), -1)


def _probability(z, log_slope, log_skew):
    """The form itself, in float64; independent of `spinkeras.switching`, which tests compare."""
    skew = np.exp(log_skew)
    rest = -np.expm1(-np.log(2) / skew)
    scale = -np.log(rest)
    rate = 2 * np.exp(log_slope) * (1 - rest) / (skew * scale * rest)
    y = scale * np.exp(np.clip(rate * z, -300, 7))
    log_base = np.where(y < 0.5, np.log(-np.expm1(-y)), np.log1p(-np.exp(-y)))
    return np.exp(skew * log_base)


def _starting_values(rows):
    """One three-parameter fit per curve: `(Delta, u, h50, slope, ln C)`."""
    result = []
    for delta, duration in np.unique(rows[:, :2], axis=0):
        curve = rows[(rows[:, 0] == delta) & (rows[:, 1] == duration)]
        curve = curve[np.argsort(curve[:, 2])]
        h, p = curve[:, 2], curve[:, 3]
        if len(h) < 6 or not p[0] < 0.5 < p[-1]:
            continue
        k = np.searchsorted(p, 0.5)
        h50 = np.interp(0.5, p[k - 1 : k + 1], h[k - 1 : k + 1])
        slope = (p[k] - p[k - 1]) / (h[k] - h[k - 1])

        def residual(q, h=h, p=p, h50=h50, slope=slope):
            return _probability(h - h50 * np.exp(q[0]), np.log(slope) + q[1], q[2]) - p

        fits = [
            optimize.least_squares(
                residual, [0, 0, skew], bounds=([-1, -1, 0.05], [1, 1, 0.97 * MAX_LOG_SKEW])
            )
            for skew in (0.3, 2.0, 6.0, 12.0)
        ]
        best = min(fits, key=lambda fit: fit.cost).x
        result.append((delta, duration, h50 * np.exp(best[0]), slope * np.exp(best[1]), best[2]))
    return np.array(result)


def fit(rows, norm=6, iterations=80):
    """Coefficient tables by damped Gauss-Newton on the `norm`-norm of the error in `P`."""
    start = _starting_values(rows)
    targets = (
        np.log(start[:, 2] / start[:, 0]),
        np.log(start[:, 3]),
        np.log(start[:, 4] / (MAX_LOG_SKEW - start[:, 4])),
    )
    degrees = list(DEGREES.values())
    coefficients = [
        np.linalg.lstsq(_basis(start[:, 1], start[:, 0], d), t, rcond=None)[0]
        for d, t in zip(degrees, targets)
    ]
    delta, duration, h, exact = rows.T
    bases = [_basis(duration, delta, d) for d in degrees]
    ends = np.cumsum([len(c) for c in coefficients])[:-1]

    def evaluate(c):
        skew = MAX_LOG_SKEW / (1 + np.exp(-bases[2] @ c[2]))
        z = h - delta * np.exp(bases[0] @ c[0])
        return z, bases[1] @ c[1], skew

    def error(state):
        return _probability(*state) - exact

    def size(r):
        return np.mean(np.abs(r) ** norm) ** (1 / norm)

    state = evaluate(coefficients)
    residual = error(state)
    best, damping, eps = size(residual), 1e-3, 1e-5
    for _ in range(iterations):
        z, slope, skew = state
        by_z = (_probability(z + eps, slope, skew) - _probability(z - eps, slope, skew)) / (2 * eps)
        by_slope = _probability(z, slope + eps, skew) - _probability(z, slope - eps, skew)
        by_skew = _probability(z, slope, skew + eps) - _probability(z, slope, skew - eps)
        by_skew *= skew * (1 - skew / MAX_LOG_SKEW)
        factors = (by_z * (z - h), by_slope / (2 * eps), by_skew / (2 * eps))
        weight = np.maximum(np.abs(residual), 2e-4) ** ((norm - 2) / 2)
        weight /= weight.mean()
        jacobian = np.concatenate([f[:, None] * b for f, b in zip(factors, bases)], axis=1)
        jacobian *= weight[:, None]
        gradient = jacobian.T @ (weight * residual)
        hessian = jacobian.T @ jacobian
        ridge = 1e-9 * np.trace(hessian) / len(hessian) * np.eye(len(hessian))
        for _ in range(8):
            damped = hessian + damping * np.diag(np.diag(hessian)) + ridge
            steps = np.split(np.linalg.solve(damped, -gradient), ends)
            trial = [c + step for c, step in zip(coefficients, steps)]
            trial_state = evaluate(trial)
            trial_residual = error(trial_state)
            if size(trial_residual) < best:
                break
            damping *= 4
        else:
            break
        gain = best - size(trial_residual)
        coefficients, state, residual = trial, trial_state, trial_residual
        best, damping = best - gain, max(damping / 3, 1e-9)
        print(f"6-norm {best:.5f}, largest error {np.abs(residual).max():.5f}", flush=True)
        if gain < 1e-7:
            break
    return {name: c.reshape(degree) for (name, degree), c in zip(DEGREES.items(), coefficients)}


def report(settings=400, seed=1):
    """Largest and typical `|P - exact|` of the shipped closed form at random settings."""
    from spinkeras import switching

    rng = np.random.default_rng(seed)
    errors = []
    for _ in range(settings):
        delta = rng.uniform(STABILITIES[1] ** -0.5, STABILITIES[0] ** -0.5) ** -2
        log_duration = rng.uniform(*np.log(DURATIONS))
        curve = switching.macrospin_curve(np, np.array(log_duration), np.array(delta))
        z = rng.uniform(-1.2, 1.6, size=6) / curve.slope
        tau = np.exp(log_duration) * delta
        for value in z:
            ratio = (curve.midpoint + value) / delta
            exact = fokker_planck.switching_curve(ratio, [tau], delta, method="finite_volume")
            errors.append(abs(float(curve.probability(value)) - exact[0]))
    return {
        "max": float(np.max(errors)),
        "median": float(np.median(errors)),
        "points": len(errors),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="report the error, fit nothing")
    if not parser.parse_args().check:
        nodes = np.polynomial.chebyshev.chebpts2(12)
        low, high = STABILITIES[1] ** -0.5, STABILITIES[0] ** -0.5
        stabilities = (low + (high - low) * (nodes + 1) / 2) ** -2
        octaves = np.log2(DURATIONS[1] / DURATIONS[0])
        durations = DURATIONS[0] * 2 ** (np.arange(np.ceil(3 * octaves) + 1) / 3)
        tables = fit(exact_curves(stabilities, durations))
        content = {
            "form": "P = (1 - exp(-E exp(b (h - h50))))^C; see fit_closed_form.py",
            "domain": {"duration": DURATIONS, "stability": STABILITIES},
            "max_log_skew": MAX_LOG_SKEW,
            "coefficients": {name: np.round(table, 8).tolist() for name, table in tables.items()},
        }
        TARGET.write_text(json.dumps(content, indent=1) + "\n")
        print(f"wrote {TARGET.name}")
    print("closed form against finite volumes:", report())


if __name__ == "__main__":
    main()
