"""Fit the rates of a free-running junction to exact Fokker-Planck values, and check the law.

    python -m tools.fit_equilibrium            # half a minute on one core
    python -m tools.fit_equilibrium --check    # only report the errors

`ln(rate t_D)` and `ln(correlation time / t_D)` are Chebyshev series in `Delta` and
`(h^2 + 0.49)^1/2`, fitted by least squares to a grid of exact values. The report uses settings that
were not used in the fit. The law of the occupancy has no fitted number; the report checks it, too.
"""

import argparse
import json
import pathlib

import numpy as np
from numpy.polynomial import chebyshev

import spinkeras
from spinkeras.macrospin import fokker_planck
from spinkeras.physics import equilibrium

SIZES = {"log_rate": (9, 7), "log_correlation_time": (13, 10)}
GRID = (28, 24)
EXACT = {
    "log_rate": fokker_planck.relaxation_rate,
    "log_correlation_time": fokker_planck.correlation_time,
}
TARGET = pathlib.Path(spinkeras.physics.__file__).parent / "equilibrium_fit.json"


def fit():
    """Coefficients of both series, with rows for `Delta`."""
    x, y = (np.cos(np.pi * (np.arange(n) + 0.5) / n) for n in GRID)
    low, high = 0.7, np.hypot(equilibrium.HIGHEST_DRIVE, 0.7)
    stability = equilibrium.STABILITY_DOMAIN[1] * (x + 1) / 2
    drive = np.sqrt(np.maximum(((high - low) * y + low + high) ** 2 / 4 - 0.49, 0))
    found = {}
    for name, size in SIZES.items():
        values = np.log([[EXACT[name](h, delta) for h in drive] for delta in stability])
        matrix = chebyshev.chebvander2d(*np.meshgrid(x, y, indexing="ij"), [n - 1 for n in size])
        matrix = matrix.reshape(values.size, -1)
        series = np.linalg.lstsq(matrix, values.ravel(), rcond=None)[0]
        found[name] = series.reshape(size).round(8).tolist()
    return found


def report(count=400, seed=1):
    """Print the largest errors at random settings, many of them on the edges of the range."""
    rng = np.random.default_rng(seed)
    low, high = equilibrium.STABILITY_DOMAIN
    places = np.clip(rng.uniform(-0.15, 1.15, (count, 2)), 0, 1)
    stability = low + (high - low) * places[:, 0]
    drive = equilibrium.HIGHEST_DRIVE * (2 * places[:, 1] - 1)

    def exact(function):
        return np.array([function(h, delta) for h, delta in zip(drive, stability)])

    curve = equilibrium.equilibrium_curve(np, 0.0, stability)
    errors = np.abs(curve.probability(drive) - exact(fokker_planck.equilibrium_occupancy))
    print(f"occupancy: largest error {errors.max():.1e}")
    for name, function in (
        ("slowest rate", equilibrium.relaxation_rate),
        ("correlation time", equilibrium.bit_correlation_time),
    ):
        truth = exact(EXACT["log_rate" if "rate" in name else "log_correlation_time"])
        errors = np.abs(function(np, drive, stability) / truth - 1)
        lower = stability <= 12
        print(
            f"{name}: largest relative error {errors.max():.2%} up to Delta {high:g}, "
            f"{errors[lower].max():.2%} up to 12"
        )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="only report the errors")
    if not parser.parse_args().check:
        TARGET.write_text(json.dumps(fit()) + "\n")
        print(f"wrote {TARGET.name}; run with --check for its errors")
    else:
        report()
