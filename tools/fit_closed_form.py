"""Fit the closed form of the macrospin switching curve to the exact Fokker-Planck solution.

Run it again whenever the form or its range changes:

    python -m tools.fit_closed_form            # some minutes on one core
    python -m tools.fit_closed_form --check    # only report the error

The form is a logistic function with a rational logit, increasing in the drive `h`:

    P = sigmoid(4 y (1 + a y + b y^2) / (1 + c y + d y^2)),   y = (h - h50) slope

Six Chebyshev series in `ln u` and `Delta^-1/2` give `ln(h50 / Delta)`, `ln(slope)`, `a`, `b`, `c`
and `ln(d - c^2 / 4)`; the last one keeps the denominator positive. First every exact curve
(Legendre-Galerkin) is fitted alone, which gives starting values. Then Gauss-Newton minimises the
errors of `P`, of the midpoint and of the slope: first their 2-norm, then the 4-norm, then the
8-norm. A penalty keeps the derivative of the logit positive at every drive. The report uses the
other discretisation (finite volumes) at random settings that were not used in the fit.
"""

import argparse
import json
import pathlib

import numpy as np
from scipy import interpolate, linalg, optimize, special

import spinkeras
from spinkeras.macrospin import fokker_planck
from tools import finite_volume

DURATIONS = (0.003, 60.0)
STABILITIES = (7.0, 90.0)
PER_OCTAVE = 4  # durations of the exact curves
DEGREES = {
    "log_midpoint_ratio": (18, 9),
    "log_slope": (12, 6),
    "a": (8, 5),
    "b": (8, 5),
    "c": (8, 5),
    "log_gap": (8, 5),
}
FIRST_SHAPE = (0.2, 0.41, 0.25, np.log(0.16))  # a, b, c, log_gap at u = 0.3, any stability
SLOPE_WEIGHT = 0.3  # error of P that counts as much as a relative error of 1 in the slope
SHORTFALL_WEIGHT = 0.0025  # weight of the squared shortfall below LEAST_RISE
LEAST_RISE = 0.01  # lowest wanted value of Q(y) / (1 + y^2)^2, see `_rise`
TARGET = pathlib.Path(spinkeras.physics.__file__).parent / "macrospin_fit.json"


# --- exact curves --------------------------------------------------------------------------------


def exact_curves(stabilities, durations):
    """Exact `(Delta, u, h, P)` rows over a grid of currents that covers every transition.

    `durations` must hold `PER_OCTAVE` values per octave. Then the square of the propagator of one
    duration is that of the duration `PER_OCTAVE` places later. Rows are sorted by `Delta`, `u`,
    `h`.
    """
    rows = []
    for delta in stabilities:
        highest = 4 + 1.6 * np.log(40 * delta) / (2 * durations[0] * delta)
        low = np.arange(-0.6 if delta < 20 else 0.0, 0.3, 0.04)
        high = np.geomspace(3, highest, int(np.log(highest / 3) / 0.035))
        ratios = np.concatenate([low, np.geomspace(0.3, 3, 128, endpoint=False), high])
        for ratio in ratios:
            matrix, start, readout = fokker_planck.legendre_system(ratio, delta)
            for first in range(PER_OCTAVE):
                propagator = linalg.expm(matrix * durations[first] * delta)
                for duration in durations[first::PER_OCTAVE]:
                    probability = readout @ (propagator @ start)
                    rows.append((delta, duration, ratio * delta, probability))
                    if probability > 1 - 2e-5:
                        break  # longer pulses also have P = 1
                    propagator = propagator @ propagator
        print(f"exact curves for Delta = {delta:5.1f}: {len(ratios)} currents", flush=True)
    rows = np.array(rows)
    rows = rows[(rows[:, 3] > 2e-5) & (rows[:, 3] < 1 - 2e-5)]
    return rows[np.lexsort((rows[:, 2], rows[:, 1], rows[:, 0]))]


def midpoint_and_slope(h, probability):
    """Midpoint of one exact curve and its slope there, from a spline of the logit."""
    logit = interpolate.CubicSpline(h, special.logit(probability))
    after = np.searchsorted(probability, 0.5)
    midpoint = optimize.brentq(logit, h[after - 1], h[after])
    return midpoint, logit(midpoint, 1) / 4


# --- the form ------------------------------------------------------------------------------------


def _basis(duration, stability, degrees):
    log_low, log_high = np.log(DURATIONS)
    x = (2 * np.log(duration) - log_low - log_high) / (log_high - log_low)
    low, high = STABILITIES[1] ** -0.5, STABILITIES[0] ** -0.5
    y = (2 * stability**-0.5 - low - high) / (high - low)
    in_x = np.polynomial.chebyshev.chebvander(x, degrees[0] - 1)
    in_y = np.polynomial.chebyshev.chebvander(y, degrees[1] - 1)
    return (in_x[:, :, None] * in_y[:, None, :]).reshape(len(x), -1)


def _probability(h, stability, numbers):
    """The form in float64, and its derivatives by the six `numbers` that the series give.

    It does not use `spinkeras.physics`, so that tests can compare both.
    """
    log_ratio, log_slope, a, b, c, log_gap = numbers
    midpoint, slope, gap = stability * np.exp(log_ratio), np.exp(log_slope), np.exp(log_gap)
    d = c**2 / 4 + gap
    y = (h - midpoint) * slope
    denominator = 1 + y * (c + y * d)
    logit = 4 * y * (1 + y * (a + y * b)) / denominator
    by_y = 4 * (1 + y * (2 * a + 3 * b * y)) - logit * (c + 2 * d * y)
    by_d = -logit * y**2
    by_shape = 4 * y**2, 4 * y**3, -logit * y + by_d * c / 2, by_d * gap
    derivatives = np.stack([-by_y * slope * midpoint, by_y * y, *by_shape])
    probability = special.expit(logit)
    return probability, derivatives * (probability * (1 - probability) / denominator)


def _rise(a, b, c, d, angle):
    """`Q(y) / (1 + y^2)^2` at `y = tan(angle)`, and its derivatives by `a`, `b`, `c`, `d`.

    The logit rises if `Q = 1 + 2a y + (3b + ac - d) y^2 + 2bc y^3 + bd y^4` is positive. As a
    function of the angle this is a trigonometric polynomial of degree 4, so a few angles are enough
    to know it.
    """
    p, q = np.cos(angle), np.sin(angle)
    value = p**4 + 2 * a * p**3 * q + (3 * b + a * c - d) * (p * q) ** 2
    value = value + 2 * b * c * p * q**3 + b * d * q**4
    by_a = 2 * p**3 * q + c * (p * q) ** 2
    by_b = 3 * (p * q) ** 2 + 2 * c * p * q**3 + d * q**4
    by_c = a * (p * q) ** 2 + 2 * b * p * q**3
    return value, (by_a, by_b, by_c, b * q**4 - (p * q) ** 2)


def _shortfall(shape):
    """`_rise` minus `LEAST_RISE` if negative, angles last, and its derivatives by the shape."""
    a, b, c, log_gap = np.asarray(shape)[..., None]
    gap = np.exp(log_gap)
    angle = (np.arange(48) + 0.5) * np.pi / 48
    value, (by_a, by_b, by_c, by_d) = _rise(a, b, c, c**2 / 4 + gap, angle)
    derivatives = np.stack([by_a, by_b, by_c + by_d * c / 2, by_d * gap])
    return np.minimum(value - LEAST_RISE, 0), derivatives * (value < LEAST_RISE)


# --- the fit -------------------------------------------------------------------------------------


def _fit_shape(h, probability, stability, log_ratio, log_slope, start):
    """Shape of one curve, fitted from `start`, the shape of its neighbour.

    If the curve is nearly logistic, numerator and denominator nearly share a factor, and several
    shapes fit equally well. A weak penalty keeps the result close to `start`.
    """
    weight = np.sqrt(np.gradient(h) * np.exp(log_slope))

    def residual(shape):
        value, _ = _probability(h, stability, (log_ratio, log_slope, *shape))
        parts = weight * (value - probability), 0.1 * _shortfall(shape)[0], 3e-3 * (shape - start)
        return np.concatenate(parts)

    return optimize.least_squares(residual, start).x


def starting_values(rows):
    """Settings `(Delta, u)`, first row of each, and their six numbers, shape `(6, settings)`."""
    settings, first = np.unique(rows[:, :2], axis=0, return_index=True)
    curves = [curve[:, 2:].T for curve in np.split(rows, first[1:])]
    exact = np.array([midpoint_and_slope(h, p) for h, p in curves]).T
    numbers = np.empty((6, len(settings)))
    numbers[:2] = np.log(exact[0] / settings[:, 0]), np.log(exact[1])

    def follow(members, shape):
        for k in members:
            shape = _fit_shape(*curves[k], settings[k, 0], *numbers[:2, k], shape)
            numbers[2:, k] = shape
        return shape

    for delta in np.unique(settings[:, 0]):
        members = np.flatnonzero(settings[:, 0] == delta)
        middle = np.searchsorted(settings[members, 1], 0.3)
        shape = follow([members[middle]] * 20, np.array(FIRST_SHAPE))
        follow(members[middle + 1 :], shape)
        follow(members[:middle][::-1], shape)
    return settings, first, numbers


class _Objective:
    """The quantity that the fit minimises, and its normal equations.

    This is the squared `norm`-norm of the errors of `P`, midpoint and slope, plus the weighted
    squares of the shortfall of the rise.
    """

    def __init__(self, rows, settings, first, start):
        self.h, self.exact, self.first, self.start = rows[:, 2], rows[:, 3], first, start
        self.stability = settings[:, 0]
        self.setting = np.repeat(np.arange(len(first)), np.diff([*first, len(rows)]))
        self.bases = [_basis(settings[:, 1], settings[:, 0], d) for d in DEGREES.values()]
        # A shift of the midpoint counts as the error of P that it causes, or as its relative size.
        relative = self.stability * np.exp(start[0] + start[1])
        self.weights = np.maximum(relative, 1), np.full(len(first), SLOPE_WEIGHT)

    def errors(self, coefficients):
        """Errors of `P`, midpoint and slope; shortfall; derivatives of `P` and of shortfall."""
        numbers = np.stack([basis @ c for basis, c in zip(self.bases, coefficients)])
        probability, by_number = _probability(
            self.h, self.stability[self.setting], numbers[:, self.setting]
        )
        centre = [w * (numbers[k] - self.start[k]) for k, w in enumerate(self.weights)]
        shortfall, by_shape = _shortfall(numbers[2:])
        return [probability - self.exact, *centre], shortfall, by_number, by_shape

    def size(self, errors, norm):
        powers, shortfall = errors[:2]
        total = sum(np.mean(np.abs(error) ** norm) for error in powers) ** (2 / norm)
        return total + SHORTFALL_WEIGHT * np.sum(shortfall**2)

    def normal_equations(self, errors, norm):
        """Gauss-Newton matrix and half the gradient, by blocks of 6 x 6 for every setting."""
        powers, shortfall, by_number, by_shape = errors
        total = sum(np.mean(np.abs(error) ** norm) for error in powers) ** (2 / norm - 1)
        weights = [np.maximum(abs(e), 1e-4) ** (norm - 2) * total / len(e) for e in powers]
        gradient = np.add.reduceat(weights[0] * powers[0] * by_number, self.first, axis=1)
        products = weights[0] * by_number[:, None] * by_number
        blocks = np.add.reduceat(products, self.first, axis=2)
        for k, factor in enumerate(self.weights):
            blocks[k, k] += weights[k + 1] * factor**2
            gradient[k] += weights[k + 1] * powers[k + 1] * factor
        blocks[2:, 2:] += SHORTFALL_WEIGHT * np.einsum("isk,jsk->ijs", by_shape, by_shape)
        gradient[2:] += SHORTFALL_WEIGHT * np.einsum("isk,sk->is", by_shape, shortfall)
        matrix = [
            [(left * block[:, None]).T @ right for block, right in zip(line, self.bases)]
            for line, left in zip(blocks, self.bases)
        ]
        return np.block(matrix), np.concatenate([b.T @ g for b, g in zip(self.bases, gradient)])


def fit(rows, norms=(2, 4, 8), iterations=60):
    """Coefficient tables, fitted with the damped Gauss-Newton method."""
    settings, first, start = starting_values(rows)
    objective = _Objective(rows, settings, first, start)
    coefficients = [np.linalg.lstsq(b, t, rcond=None)[0] for b, t in zip(objective.bases, start)]
    ends = np.cumsum([len(c) for c in coefficients])[:-1]
    for norm in norms:
        errors, damping = objective.errors(coefficients), 1e-3
        for _ in range(iterations):
            best = objective.size(errors, norm)
            matrix, gradient = objective.normal_equations(errors, norm)
            diagonal = np.diag(matrix)
            for _ in range(10):
                damped = matrix + np.diag(damping * diagonal + 1e-12 * diagonal.mean())
                steps = np.split(np.linalg.solve(damped, -gradient), ends)
                trial = [c + step for c, step in zip(coefficients, steps)]
                trial_errors = objective.errors(trial)
                if objective.size(trial_errors, norm) < best:
                    break
                damping *= 5
            else:
                break
            coefficients, errors, damping = trial, trial_errors, max(damping / 4, 1e-8)
            if objective.size(errors, norm) > (1 - 1e-5) * best:
                break
        error = np.abs(errors[0][0])
        print(f"{norm}-norm: largest {error.max():.5f}, median {np.median(error):.5f}", flush=True)
    return {name: c.reshape(degree) for (name, degree), c in zip(DEGREES.items(), coefficients)}


# --- the report ----------------------------------------------------------------------------------


def report(settings=400, seed=1):
    """Errors of the closed form in the package at random settings.

    `P` is compared with finite volumes at six drives per setting. Midpoint and slope are compared
    with Legendre-Galerkin, as relative errors.
    """
    from spinkeras.physics import laws

    rng = np.random.default_rng(seed)
    errors, midpoints, slopes = [], [], []
    for _ in range(settings):
        delta = rng.uniform(STABILITIES[1] ** -0.5, STABILITIES[0] ** -0.5) ** -2
        log_duration = rng.uniform(*np.log(DURATIONS))
        curve = laws.macrospin_curve(np, np.array(log_duration), np.array(delta))
        tau = [np.exp(log_duration) * delta]

        def exact(z, method, tau=tau, delta=delta, midpoint=curve.midpoint):
            return method.switching_curve((midpoint + z) / delta, tau, delta)[0]

        for z in rng.uniform(-1.2, 1.6, size=6) / curve.slope:
            errors.append(abs(float(curve.probability(z)) - exact(z, finite_volume)))
        near = np.linspace(-0.2, 0.2, 6) / curve.slope
        shift, slope = midpoint_and_slope(near, np.array([exact(z, fokker_planck) for z in near]))
        midpoints.append(abs(shift / (curve.midpoint + shift)))
        slopes.append(abs(curve.slope / slope - 1))
    return {
        "max": float(np.max(errors)),
        "median": float(np.median(errors)),
        "points": len(errors),
        "midpoint": float(np.max(midpoints)),
        "slope": float(np.max(slopes)),
    }


def check_shape(durations=301, stabilities=151, angles=720):
    """Ranges of the shape in the package over a grid of all settings, edges included.

    `rise` is a lower bound of `Q(y) / (1 + y^2)^2` (see `_rise`) over all drives. If it is
    positive, no curve of the grid falls anywhere. Between two angles the value can be lower than at
    both by `step^2 / 8` times its second derivative, which is at most 16 times its largest size.
    """
    from spinkeras.physics import laws

    log_u = np.linspace(*np.log(DURATIONS), durations)
    roots = np.linspace(STABILITIES[1] ** -0.5, STABILITIES[0] ** -0.5, stabilities)
    curve = laws.macrospin_curve(np, *np.meshgrid(log_u, roots**-2))
    a, b, c, d = (np.asarray(v).ravel() for v in (curve.a, curve.b, curve.c, curve.d))
    step = np.pi / angles
    lowest, largest = np.full(a.shape, np.inf), np.zeros(a.shape)
    for angle in np.arange(angles) * step:
        value, _ = _rise(a, b, c, d, angle)
        lowest, largest = np.minimum(lowest, value), np.maximum(largest, np.abs(value))
    return {
        "rise": float(np.min(lowest - 2.01 * step**2 * largest)),
        "tail": (float(np.min(4 * b / d)), float(np.max(4 * b / d))),
        "gap": float(np.min(1 - c**2 / (4 * d))),
        "b": float(b.min()),
        "size": float(max(np.abs(a).max(), np.abs(c).max())),
    }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="report the error, fit nothing")
    if not parser.parse_args().check:
        nodes = np.polynomial.chebyshev.chebpts2(14)
        low, high = STABILITIES[1] ** -0.5, STABILITIES[0] ** -0.5
        stabilities = (low + (high - low) * (nodes + 1) / 2) ** -2
        octaves = np.log2(DURATIONS[1] / DURATIONS[0])
        durations = DURATIONS[0] * 2 ** (np.arange(np.ceil(PER_OCTAVE * octaves) + 1) / PER_OCTAVE)
        tables = fit(exact_curves(stabilities, durations))
        content = {
            "form": "P = sigmoid(4 y (1 + a y + b y^2) / (1 + c y + d y^2)), y = (h - h50) slope, "
            "d = c^2 / 4 + exp(log_gap); see fit_closed_form.py",
            "domain": {"duration": DURATIONS, "stability": STABILITIES},
            "coefficients": {name: np.round(table, 8).tolist() for name, table in tables.items()},
        }
        TARGET.write_text(json.dumps(content, indent=1) + "\n")
        print(f"wrote {TARGET.name}")
    print("closed form against the exact solution:", report())
    print("shape over the domain:", check_shape())


if __name__ == "__main__":
    main()
