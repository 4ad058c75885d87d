"""Exact switching probability of a collinear perpendicular macrospin (Fokker-Planck equation).

The density ``rho(z, tau)`` of ``z = cos(theta)`` obeys, in dimensionless time,

    d rho/d tau = d/dz { (1 - z^2) [ (i - z) rho + (1 / (2 Delta)) d rho/dz ] }

with ``i = I / Ic0`` (current over critical current), ``tau = alpha gamma' mu0Hk t`` and
``Delta = K_eff Vol / (kB T)``. The pulse starts from the thermal equilibrium of the well at
``z > 0``; the switching probability is the weight at ``z < 0`` when the pulse ends.

The equation is solved with the Legendre-Galerkin method in space and the matrix exponential in time
(spectral accuracy). The tests require that an independent discretisation (finite volumes) agrees to
1e-5.

Under a constant current the density approaches ``exp(Delta (z - i)^2)``. This describes a
free-running junction, whose barrier is so low that it switches without a pulse. Its functions
`equilibrium_occupancy`, `relaxation_rate` and `correlation_time` take the drive ``h = i Delta`` and
use the diffusion time as unit, so that they are regular down to ``Delta = 0``.

The tests compare other results with this solution, and the closed forms in
``spinkeras.physics.laws`` and ``spinkeras.physics.equilibrium`` are fitted to it.

References: W. F. Brown, Phys. Rev. 130, 1677 (1963); W. H. Butler et al., IEEE Trans. Magn. 48,
4684 (2012); M. Tzoufras, AIP Advances 8, 056002 (2018).
"""

import functools

import numpy as np
import threadpoolctl
from scipy import linalg

from spinkeras import checks
from spinkeras._typing import Array
from spinkeras.physics.device import DeviceLike, get_device

MAX_CURRENT_RATIO = 400.0
_CELLS, _NODES = 64, 24  # grid of `correlation_time` over half a sphere


_linear_algebra = functools.cache(threadpoolctl.ThreadpoolController)


def _on_one_thread(function):
    """Let linear algebra run on one thread: for these small matrices more threads are slower.

    On two idle cores they took 3 times as long, on two busy ones 20 times.
    """

    @functools.wraps(function)
    def limited(*args, **options):
        with _linear_algebra().limit(limits=1, user_api="blas"):
            return function(*args, **options)

    return limited


def switching_probability(
    current: Array, pulse_width: Array, device: DeviceLike, anisotropy: Array = None
) -> Array:
    """Exact probability that one pulse reverses the free layer.

    Args:
        current: A, scalar or array. Positive current favours reversal.
        pulse_width: s, > 0, scalar or array, broadcast against `current`.
        device: `MTJDevice` or preset name.
        anisotropy: J/m^3, > 0, scalar or array, broadcast against `current`. Default: the
            anisotropy of the device.

    Returns:
        NumPy float64 array of the broadcast shape, accurate to about 1e-6 (absolute).

    Raises:
        ValueError: for values that are not finite or outside the range of the solver.

    Example:

    >>> from spinkeras.macrospin import fokker_planck
    >>> p = fokker_planck.switching_probability(73.518e-6, 2e-9, "stt_reference")
    >>> round(float(p), 3)
    0.5
    """
    device = get_device(device)
    anisotropy = device.anisotropy if anisotropy is None else anisotropy
    current, pulse_width, anisotropy = np.broadcast_arrays(
        checks.array("current", current, "a number or an array of numbers in A"),
        checks.array("pulse_width", pulse_width, "a number or an array of numbers in s"),
        checks.array("anisotropy", anisotropy, "a number or an array of numbers in J/m^3"),
    )
    stability = device.stability_at(anisotropy)
    ratio = current / (device.critical_current_per_stability * stability)
    duration = pulse_width / device.diffusion_time * stability
    out = np.empty(current.shape)
    settings = np.stack([stability.ravel(), ratio.ravel()], axis=1)
    unique, inverse = np.unique(settings, axis=0, return_inverse=True)
    for index, (delta, i) in enumerate(unique):
        members = np.flatnonzero(inverse.ravel() == index)
        out.flat[members] = switching_curve(i, duration.flat[members], delta)
    return out


@_on_one_thread
def switching_curve(current_ratio: float, durations: Array, thermal_stability: float) -> np.ndarray:
    """Switching probability at one current for a list of pulse durations (all dimensionless).

    Args:
        current_ratio: `I / Ic0`, scalar, |i| <= 400.
        durations: `tau = alpha gamma' mu0Hk t_p`, array of shape `(n,)`, > 0.
        thermal_stability: `Delta = K_eff Vol / (kB T)`, scalar, 1 to 200.

    Returns:
        NumPy float64 array of shape `(n,)`.

    Raises:
        ValueError: for values outside these ranges.

    Example:

    >>> from spinkeras.macrospin import fokker_planck
    >>> fokker_planck.switching_curve(2.2, [1.5], 40.0).round(3)
    array([0.333])
    """
    ends, hint = (-MAX_CURRENT_RATIO, MAX_CURRENT_RATIO), "check that the current is in amperes"
    current_ratio = checks.number("current_ratio", current_ratio, "(I / Ic0)", *ends, hint)
    hint = "check the device's anisotropy (J/m^3), volume (m^3) and temperature (K)"
    thermal_stability = checks.number(
        "thermal_stability", thermal_stability, "(units of kB T)", 1.0, 200.0, hint
    )
    durations = np.atleast_1d(checks.array("durations", durations, "a list of numbers > 0"))
    if durations.ndim != 1 or not np.all(np.isfinite(durations) & (durations > 0)):
        raise ValueError(
            f"durations must be a list of finite values > 0 (dimensionless); got {durations}."
        )
    order = np.argsort(durations)
    result = np.empty_like(durations)
    result[order] = _legendre(current_ratio, durations[order], thermal_stability)
    return np.clip(result, 0.0, 1.0)


@_on_one_thread
def equilibrium_occupancy(drive: float, thermal_stability: float) -> float:
    """Probability to find a free-running junction reversed (`z < 0`): the stationary solution.

    Args:
        drive: `h = I / (Ic0 / Delta)`, scalar, |h| <= 100.
        thermal_stability: `Delta`, scalar, 0.01 to 40.

    Returns:
        float, accurate to about 1e-9.

    Raises:
        ValueError: for values outside these ranges.

    Example:

    >>> from spinkeras.macrospin import fokker_planck
    >>> round(fokker_planck.equilibrium_occupancy(0.5, 4.0), 5)
    0.83532
    """
    matrix, readout = _free_running(drive, thermal_stability)
    rest = np.linalg.solve(matrix[1:, 1:], -matrix[1:, 0] * np.sqrt(0.5))
    return float(readout[0] * np.sqrt(0.5) + readout[1:] @ rest)  # for a density of weight 1


@_on_one_thread
def relaxation_rate(drive: float, thermal_stability: float) -> float:
    """Slowest rate at which a free-running junction relaxes, in units of `1 / t_D`.

    With a high barrier it is the sum of the two switching rates. The relative error is about 1e-6
    up to `Delta = 20`.

    Args:
        drive: `h = I / (Ic0 / Delta)`, scalar, |h| <= 100.
        thermal_stability: `Delta`, scalar, 0.01 to 40.

    Raises:
        ValueError: for values outside these ranges.

    Example:

    >>> from spinkeras.macrospin import fokker_planck
    >>> round(fokker_planck.relaxation_rate(0.0, 4.0), 4)
    0.1298
    """
    matrix, _ = _free_running(drive, thermal_stability)
    # The slowest rate is the largest eigenvalue of the inverse, which rounding does not affect.
    return float(1 / np.max(linalg.eigvals(-linalg.inv(matrix[1:, 1:])).real))


def correlation_time(drive: float, thermal_stability: float) -> float:
    """Integral correlation time of the bit `z < 0` of a free-running junction, in units of `t_D`.

    It is the integral of the bit's autocorrelation over time. For a diffusion this is one integral,
    `2 int [int_-1^z (bit - p) rho]^2 / ((1 - z^2) rho) dz / (p (1 - p))`.

    Args:
        drive: `h = I / (Ic0 / Delta)`, scalar, |h| <= 100.
        thermal_stability: `Delta`, scalar, 0.01 to 40.

    Raises:
        ValueError: for values outside these ranges.

    Example:

    >>> from spinkeras.macrospin import fokker_planck
    >>> round(fokker_planck.correlation_time(0.0, 4.0), 3)
    7.5
    """
    _check_free_running(drive, thermal_stability)
    x, w = np.polynomial.legendre.leggauss(_NODES)
    half = 0.5 / _CELLS
    z = np.linspace(0, 1, _CELLS, endpoint=False)[:, None] + half * (x + 1)
    # Integrals of the Lagrange polynomials from the start of a cell to each of its nodes
    integrals = np.polynomial.legendre.legint(np.eye(_NODES), lbnd=-1)
    to_node = np.polynomial.legendre.legval(x, integrals).T
    to_node = half * to_node @ np.linalg.inv(np.polynomial.legendre.legvander(x, _NODES - 1))

    logs = [thermal_stability * z**2 + sign * 2 * drive * z for sign in (1, -1)]  # z < 0, z > 0
    densities = [np.exp(log - np.max(logs)) for log in logs]
    weights = [half * np.sum(density * w) for density in densities]
    total, result = sum(weights), 0.0
    for density, share in zip(densities, weights[::-1]):
        from_here = np.cumsum(half * (density @ w)[::-1])[::-1]
        outer = from_here[:, None] - density @ to_node.T  # integral of the density up to the pole
        result += half * np.sum(w * (outer * share / total) ** 2 / ((1 - z**2) * density))
    return float(2 * result * total / (weights[0] * weights[1]))


def _free_running(drive, thermal_stability):
    """Legendre matrix in units of `1 / t_D`, and the read-out vector."""
    _check_free_running(drive, thermal_stability)
    matrix, _, readout = legendre_system(drive / thermal_stability, thermal_stability)
    return matrix * thermal_stability, readout


def _check_free_running(drive, thermal_stability):
    checks.number("drive", drive, "(dimensionless)", -100.0, 100.0, "I / (Ic0 / Delta)")
    hint = "K_eff Vol / (kB T)"
    checks.number("thermal_stability", thermal_stability, "(dimensionless)", 0.01, 40.0, hint)


def legendre_system(
    current_ratio: float, thermal_stability: float, modes: int | None = None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Galerkin matrix, initial coefficients and read-out vector in orthonormal Legendre modes.

    Args:
        current_ratio: `I / Ic0`.
        thermal_stability: `Delta`.
        modes: number of modes. Default: enough for the sharpest feature of the density.

    Returns:
        `(matrix, start, readout)`. The coefficients begin as `start` and change by `matrix` times
        themselves per unit of `tau`; `P` is their product with `readout`.

    Example:

    >>> from scipy import linalg
    >>> from spinkeras.macrospin import fokker_planck
    >>> matrix, start, readout = fokker_planck.legendre_system(2.2, 40.0)
    >>> round(float(readout @ linalg.expm(1.5 * matrix) @ start), 3)  # as in `switching_curve`
    0.333
    """
    delta = thermal_stability
    if modes is None:
        modes = int(30 + 9 * np.sqrt(delta * (1 + abs(current_ratio)) / 2 + delta / 2))
    n = np.arange(modes + 2)
    norm = np.sqrt(n + 0.5)
    # (1 - z^2) P_m' = m (m + 1) / (2 m + 1) (P_{m-1} - P_{m+1}); rows m of G: <p_m', (1-z^2) p_n>
    weight = n * (n + 1) / (2 * n + 1) * norm
    flux = np.diag(weight[1:] / norm[:-1], -1) - np.diag(weight[:-1] / norm[1:], 1)
    hop = n[1:] / np.sqrt(4.0 * n[1:] ** 2 - 1)
    z = np.diag(hop, 1) + np.diag(hop, -1)
    matrix = -(current_ratio * flux - flux @ z) - np.diag(n * (n + 1.0)) / (2 * delta)
    matrix = matrix[:modes, :modes]

    x, w = np.polynomial.legendre.leggauss(modes + 60)
    half, half_w = (x + 1) / 2, w / 2
    density = np.exp(-delta * (1 - half**2))
    start = _orthonormal(half, modes).T @ (half_w * density)
    start /= half_w @ density
    readout = _orthonormal(-half, modes).T @ half_w
    return matrix, start, readout


def _orthonormal(z, modes):
    """Orthonormal Legendre polynomials, shape `(len(z), modes)`."""
    table = np.polynomial.legendre.legvander(z, modes - 1)
    return table * np.sqrt(np.arange(modes) + 0.5)


def _legendre(current_ratio, durations, thermal_stability):
    matrix, state, readout = legendre_system(current_ratio, thermal_stability)
    result = []
    elapsed = 0.0
    for duration in durations:
        if duration > elapsed:
            state = linalg.expm(matrix * (duration - elapsed)) @ state
            elapsed = duration
        result.append(readout @ state)
    return np.array(result)
