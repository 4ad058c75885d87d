"""A second discretisation of the Fokker-Planck equation, which checks `spinkeras.macrospin`.

It uses exponentially fitted (Scharfetter-Gummel) fluxes on cells of equal width in ``theta``, Radau
IIA(5) steps in time, and Richardson extrapolation over three meshes.
"""

import numpy as np
from scipy import linalg

from spinkeras.physics.device import get_device


def switching_probability(current, pulse_width, device):
    """Probability that a pulse switches; current in A and pulse width in s, both scalars."""
    device = get_device(device)
    ratio = current / device.critical_current
    duration = pulse_width / device.diffusion_time * device.thermal_stability
    return float(switching_curve(ratio, [duration], device.thermal_stability)[0])


def switching_curve(current_ratio, durations, thermal_stability):
    """Like `spinkeras.macrospin.fokker_planck.switching_curve`; durations must be ascending."""
    cells = 2 * int(150 + 12 * np.sqrt(thermal_stability * (1 + abs(current_ratio))))
    coarse, middle, fine = (
        _on_mesh(current_ratio, durations, thermal_stability, cells * factor)
        for factor in (1, 2, 4)
    )
    # The error is a series in even powers of the cell size: remove the second and fourth power.
    coarse, middle = (4 * middle - coarse) / 3, (4 * fine - middle) / 3
    return (16 * middle - coarse) / 15


def _on_mesh(current_ratio, durations, thermal_stability, cells, steps=24):
    """Weight at `z < 0` on one mesh: `steps` Radau IIA(5) steps up to each new duration."""
    theta = np.linspace(0, np.pi, cells + 1)
    faces = np.cos(theta)
    width = -np.diff(faces)
    centre = (faces[1:] + faces[:-1]) / 2
    inner = faces[1:-1]
    # Flux across a face, Scharfetter-Gummel: mobility * (B(-x) rho_right - B(x) rho_left).
    gap = centre[:-1] - centre[1:]
    conductance = (1 - inner**2) / (2 * thermal_stability * gap)
    peclet = 2 * thermal_stability * (current_ratio - inner) * gap
    out_left = conductance * _bernoulli(-peclet)  # leaves the cell nearer z = +1
    out_right = conductance * _bernoulli(peclet)
    main = np.zeros(cells)
    main[:-1] -= out_left
    main[1:] -= out_right
    main /= width
    upper = out_right / width[:-1]
    lower = out_left / width[1:]

    # Cell averages of the initial density, by Gauss quadrature in z inside every cell.
    x, w = np.polynomial.legendre.leggauss(4)
    points = centre[:, None] + x * width[:, None] / 2
    density = np.where(points > 0, np.exp(-thermal_stability * (1 - points**2)), 0.0) @ (w / 2)
    state = density / (density @ width)

    below = width[cells // 2 :]  # the face at theta = pi/2 is z = 0
    result, elapsed = [], 0.0
    for duration in durations:
        if duration > elapsed:
            # The first pulse starts from a sharp density, so its steps grow from small to large.
            count = 2 * steps if elapsed == 0.0 else steps
            grid = elapsed + (duration - elapsed) * np.linspace(0, 1, count + 1) ** 2
            for step in np.diff(grid):
                state = _radau_step(state, step, lower, main, upper)
            elapsed = duration
        result.append(below @ state[cells // 2 :])
    return np.array(result)


def _bernoulli(x):
    """x / (exp(x) - 1), smooth at zero."""
    x = np.clip(x, -600.0, 600.0)
    small = np.abs(x) < 1e-5
    safe = np.where(small, 1.0, x)
    return np.where(small, 1 - x / 2, safe / np.expm1(safe))


# Radau IIA(5): R(z) = (1 + 2z/5 + z^2/20) / (1 - 3z/5 + 3z^2/20 - z^3/60) in partial fractions.
_POLES = np.roots([-1 / 60, 3 / 20, -3 / 5, 1])
_REAL_POLE = float(_POLES[np.abs(_POLES.imag) < 1e-9][0].real)
_COMPLEX_POLE = complex(_POLES[_POLES.imag > 1e-9][0])


def _residue(pole):
    numerator = 1 + 2 * pole / 5 + pole**2 / 20
    return numerator / (-3 / 5 + 3 * pole / 10 - pole**2 / 20)


def _radau_step(state, step, lower, main, upper):
    """`R(step A) state` for tridiagonal `A`: one real and one complex tridiagonal solve."""
    result = np.zeros_like(state)
    for pole, factor in ((_REAL_POLE, 1.0), (_COMPLEX_POLE, 2.0)):
        gttrf, gttrs = linalg.get_lapack_funcs(("gttrf", "gttrs"), dtype=np.result_type(pole))
        factors = gttrf(step * lower, step * main - pole, step * upper)
        solution, _ = gttrs(*factors[:-1], state)
        result += factor * np.real(_residue(pole) * solution)
    return result
