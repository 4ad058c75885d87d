"""The oracle: two discretisations, published reference values, analytic limits."""

import numpy as np
import pytest
import threadpoolctl
from scipy import integrate, special

from spinkeras.macrospin import fokker_planck
from tools import finite_volume

# (Delta, tau): pairs of (i, P), exact reference values of the design notes
REFERENCE = {
    (15, 1.5): [(1.5, 0.17435), (2.2, 0.66750), (3.0, 0.94508)],
    (15, 6): [(0.9, 0.54929), (1.1, 0.83485), (1.3, 0.95883)],
    (25, 0.6): [(3, 0.02872), (5, 0.62008), (7, 0.94982)],
    (25, 3): [(1.1, 0.15204), (1.5, 0.64327), (1.9, 0.92702)],
    (25, 30): [(0.7, 0.60662), (0.8, 0.90530), (0.9, 0.99024)],
    (40, 0.6): [(3, 0.00329), (5, 0.46460), (7, 0.92071)],
    (40, 1.5): [(1.5, 0.00832), (2.2, 0.33269), (3.0, 0.85880)],
    (40, 3): [(1.1, 0.04523), (1.5, 0.48405), (1.9, 0.88332)],
    (40, 6): [(0.9, 0.13438), (1.1, 0.53435), (1.3, 0.86251)],
    (40, 30): [(0.7, 0.23324), (0.8, 0.68333), (0.9, 0.95167)],
    (40, 600): [(0.5, 0.03194), (0.6, 0.52950), (0.7, 0.99896)],
    (60, 1.5): [(1.5, 0.00073), (2.2, 0.19080), (3.0, 0.79553)],
    (60, 30): [(0.7, 0.04992), (0.8, 0.39319), (0.9, 0.85998)],
    (60, 600): [(0.5, 0.00028), (0.6, 0.03928), (0.7, 0.76447)],
}


@pytest.mark.parametrize("method", [fokker_planck, finite_volume])
def test_reference_values(method):
    for (delta, tau), pairs in REFERENCE.items():
        for ratio, expected in pairs:
            found = method.switching_curve(ratio, [tau], delta)[0]
            # The table is off by up to 4e-4 at short pulses; both methods agree to 1e-6.
            assert found == pytest.approx(expected, abs=4e-4 if tau < 2 else 6e-5)


@pytest.mark.parametrize("settings", [10, pytest.param(40, marks=pytest.mark.slow)])
def test_two_discretisations_agree_over_the_domain(settings):
    rng = np.random.default_rng(3)
    for _ in range(settings):
        delta = rng.uniform(8, 90)
        tau = np.exp(rng.uniform(np.log(0.06), np.log(1200)))
        ratio = rng.uniform(0.4, 1.7) * (1 + np.log(delta) / tau)
        durations = [tau, 2 * tau, 5 * tau]
        legendre = fokker_planck.switching_curve(ratio, durations, delta)
        volumes = finite_volume.switching_curve(ratio, durations, delta)
        np.testing.assert_allclose(legendre, volumes, atol=1e-5)


def test_long_pulses_reach_the_equilibrium_with_current():
    """rho_eq ~ exp(Delta (z - i)^2), so P is a ratio of integrals."""
    for delta, ratio in [(3.0, 0.0), (3.0, 0.4), (5.0, -0.3), (4.0, 0.2)]:
        weight = lambda z, d=delta, i=ratio: np.exp(d * (z - i) ** 2)  # noqa: E731
        below, above = integrate.quad(weight, -1, 0)[0], integrate.quad(weight, 0, 1)[0]
        found = fokker_planck.switching_curve(ratio, [3000.0], delta)[0]
        assert found == pytest.approx(below / (below + above), abs=1e-6)
    s = np.sqrt(3.0)
    erfi = (special.erfi(s * 1.4) - special.erfi(s * 0.4)) / (
        special.erfi(s * 1.4) + special.erfi(s * 0.6)
    )
    found = fokker_planck.switching_curve(0.4, [3000.0], 3.0)[0]
    assert found == pytest.approx(erfi, abs=1e-6)


@pytest.mark.parametrize(
    ("delta", "ratio", "rate"), [(3, 0, 0.0786), (5, 0, 0.01354), (8, 0.3, 0.01583)]
)
def test_lowest_relaxation_rate(delta, ratio, rate):
    matrix, _, _ = fokker_planck.legendre_system(ratio, delta)
    eigenvalues = np.sort(-np.linalg.eigvals(matrix).real)
    assert eigenvalues[0] == pytest.approx(0, abs=1e-9)  # probability is conserved
    assert eigenvalues[1] == pytest.approx(rate, rel=2e-3)


def test_device_interface_broadcasts_and_is_unit_consistent(device):
    current = np.array([60e-6, 73.5e-6])
    widths = np.array([[2e-9], [3e-9]])
    found = fokker_planck.switching_probability(current, widths, device)
    assert found.shape == (2, 2)
    tau = 2e-9 / device.diffusion_time * device.thermal_stability
    ratio = current[1] / device.critical_current
    expected = fokker_planck.switching_curve(ratio, [tau], device.thermal_stability)[0]
    assert found[0, 1] == pytest.approx(expected, rel=1e-12)
    assert np.all(np.diff(found, axis=0) > 0)
    assert np.all(np.diff(found, axis=1) > 0)


def test_linear_algebra_of_the_solver_runs_on_one_thread(monkeypatch):
    """With more threads it takes several times as long; afterwards the setting is as before."""

    def threads():
        pools = threadpoolctl.threadpool_info()
        return [pool["num_threads"] for pool in pools if pool["user_api"] == "blas"]

    seen, solve, before = [], fokker_planck._legendre, threads()
    monkeypatch.setattr(
        fokker_planck, "_legendre", lambda *args: (seen.extend(threads()), solve(*args))[1]
    )
    fokker_planck.switching_probability([70e-6, 75e-6], 2e-9, "stt_reference")
    assert seen
    assert set(seen) == {1}
    assert threads() == before


def test_unsorted_and_repeated_durations():
    found = fokker_planck.switching_curve(1.5, [3.0, 1.5, 3.0], 40.0)
    assert found[0] == found[2]
    assert found[1] < found[0]
    single = fokker_planck.switching_curve(1.5, [3.0], 40.0)[0]
    assert found[0] == pytest.approx(single, abs=1e-9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1e6, [1.0], 40.0), r"current_ratio = 1e\+06 .* is outside"),
        ((float("nan"), [1.0], 40.0), "current_ratio = nan"),
        ((1.0, [1.0], 1e4), "thermal_stability = 10000 .* is outside"),
        ((1.0, [-1.0], 40.0), "durations must be"),
    ],
)
def test_bad_input(arguments, message):
    with pytest.raises(ValueError, match=message):
        fokker_planck.switching_curve(*arguments)
