"""The stochastic LLG equation against statistical physics and against Fokker-Planck."""

import json
import subprocess

import numpy as np
import pytest
from scipy import constants, integrate, special, stats

import spinkeras
from spinkeras.macrospin import fokker_planck, llg
from spinkeras.physics.device import GYROMAGNETIC_RATIO
from tests.processes import run_example

REFERENCE = spinkeras.MTJDevice.preset("stt_reference")
# Damping sets only the time scale of these checks; a large one makes them cheap.
DAMPED = REFERENCE.replace(damping=0.2)
SURE = 1 - 1e-7  # coverage of an interval that one test uses a few times
FIVE_SIGMA = 5.1  # two-sided 3.4e-7

# Delta, tau, i: three currents across every transition.
SETTINGS = [
    (delta, tau, ratio)
    for delta, tau, ratios in (
        (15, 1.5, (1.5, 2.2, 3.0)),
        (15, 6, (0.9, 1.1, 1.3)),
        (25, 0.6, (3, 5, 7)),
        (25, 3, (1.1, 1.5, 1.9)),
        (25, 30, (0.7, 0.8, 0.9)),
        (40, 0.6, (4, 5, 7)),
        (40, 3, (1.1, 1.5, 1.9)),
        (40, 30, (0.7, 0.8, 0.9)),
    )
    for ratio in ratios
]


def anisotropy_for(device, stability):
    return stability * device.thermal_energy / device.volume


def simulate(device, stability, tau, ratio, **options):
    """`simulate_switching` at dimensionless settings."""
    stability, tau, ratio = np.broadcast_arrays(stability, tau, ratio)
    return llg.simulate_switching(
        device,
        current=ratio * stability * device.critical_current_per_stability,
        pulse_width=tau / stability * device.diffusion_time,
        anisotropy=anisotropy_for(device, stability),
        **options,
    )


def boltzmann(function, stability, order=1):
    """Equilibrium mean of `function(z)` in one well (it must be even in `z`)."""
    weight = [
        integrate.quad(lambda z, k=k: function(z) ** k * np.exp(stability * (z * z - 1)), 0, 1)[0]
        for k in (0, order)
    ]
    return weight[1] / weight[0]


def assert_mean(values, mean, second_moment):
    error = np.sqrt((second_moment - mean**2) / len(values))
    assert abs(np.mean(values) - mean) < FIVE_SIGMA * error


# --- equilibrium ---------------------------------------------------------------------------------


@pytest.mark.slow
def test_boltzmann_statistics_at_zero_current():
    result = simulate(DAMPED, 3.0, 8.0, 0.0, trajectories=8192, return_trajectories=8192, seed=1)
    z = result.magnetization[:, -1, 2].astype("float64")
    mean = boltzmann(np.square, 3.0)
    assert mean == pytest.approx(1 / (2 * np.sqrt(3) * special.dawsn(np.sqrt(3))) - 1 / 6)
    assert_mean(z**2, mean, boltzmann(np.square, 3.0, order=2))


def test_variance_in_a_well_relaxes_to_equilibrium():
    # From a well that was wider before the pulse, after 12 relaxation times of the variance.
    start, end = 15.0, 40.0
    anisotropy = anisotropy_for(DAMPED, end)
    result = llg.simulate_switching(
        DAMPED,
        current=0.0,
        pulse_width=6 / end * DAMPED.diffusion_time,
        anisotropy=anisotropy,
        initial_anisotropy=anisotropy_for(DAMPED, start),
        trajectories=8192,
        return_trajectories=8192,
        seed=2,
    )
    for instant, stability in ((0, start), (-1, end)):
        m = result.magnetization[:, instant].astype("float64")
        transverse = (m[:, 0] ** 2 + m[:, 1] ** 2) / 2
        mean = boltzmann(lambda z: (1 - z * z) / 2, stability)
        assert mean == pytest.approx(1 / (2 * stability), rel=0.08)
        assert_mean(transverse, mean, boltzmann(lambda z: (1 - z * z) / 2, stability, order=2))


@pytest.mark.parametrize("field_ratio", [0.15, -0.3])
def test_equilibrium_in_an_in_plane_field(field_ratio):
    stability = 20.0
    field = field_ratio * DAMPED.anisotropy_field * stability / DAMPED.thermal_stability
    result = llg.simulate_switching(
        DAMPED,
        current=0.0,
        pulse_width=3 / stability * DAMPED.diffusion_time,
        anisotropy=anisotropy_for(DAMPED, stability),
        in_plane_field=field,
        trajectories=4096,
        return_trajectories=4096,
        seed=3,
    )
    moments = [
        integrate.dblquad(
            lambda phi, z, k=k: (
                (np.sqrt(1 - z * z) * np.cos(phi)) ** k
                * np.exp(
                    stability * (z * z + 2 * field_ratio * np.sqrt(1 - z * z) * np.cos(phi) - 1.3)
                )
            ),
            0,
            1,
            0,
            2 * np.pi,
        )[0]
        for k in range(3)
    ]
    for instant in (0, -1):  # the sampled start, and what the dynamics makes of it
        x = result.magnetization[:, instant, 0].astype("float64")
        assert_mean(x, moments[1] / moments[0], moments[2] / moments[0])


@pytest.mark.parametrize(
    ("stability", "ratio", "times", "rate"),
    [(3.0, 0.0, (5, 15), 0.0786), (5.0, 0.0, (10, 40), 0.01354), (8.0, 0.3, (10, 50), 0.01583)],
)
def test_relaxation_rate_of_a_small_barrier(stability, ratio, times, rate):
    device = REFERENCE.replace(damping=0.5)
    result = simulate(device, stability, np.array(times), ratio, trajectories=16_384, seed=4)
    root = np.sqrt(stability)
    up, down = special.erfi(root * (1 + ratio)), special.erfi(root * (1 - ratio))
    zero = special.erfi(root * ratio)
    gap = (up - zero) / (up + down) - result.probability  # to the equilibrium with current
    sigma = np.sqrt(result.probability * (1 - result.probability) / result.trajectories) / gap
    span = times[1] - times[0]
    measured = np.log(gap[0] / gap[1]) / span
    assert abs(measured - rate) < FIVE_SIGMA * np.hypot(*sigma) / span
    assert np.hypot(*sigma) / span < 0.05 * rate  # a sharp test


# --- switching -----------------------------------------------------------------------------------


def check_against_fokker_planck(device, settings, trajectories, seed):
    stability, tau, ratio = np.array(settings, "float64").T
    exact = [
        fokker_planck.switching_curve(i, [t], delta)[0]
        for delta, t, i in zip(stability, tau, ratio)
    ]
    result = simulate(
        device, stability, tau, ratio, trajectories=trajectories, seed=seed, confidence=SURE
    )
    exact = np.array(exact)
    assert np.all((result.low <= exact) & (exact <= result.high))
    deviation = result.probability - exact
    chi_squared = np.sum(deviation**2 * trajectories / (exact * (1 - exact)))
    assert chi_squared < stats.chi2.isf(1e-6, len(settings))


@pytest.mark.parametrize("every", [4, pytest.param(1, marks=pytest.mark.slow)])
def test_agrees_with_fokker_planck_at_24_settings(every):
    assert len(SETTINGS) == 24
    check_against_fokker_planck(REFERENCE.replace(damping=0.1), SETTINGS[::every], 2000, seed=5)


@pytest.mark.slow
def test_agrees_with_fokker_planck_at_24_settings_sharply():
    check_against_fokker_planck(REFERENCE.replace(damping=0.05), SETTINGS, 40_000, seed=6)


@pytest.mark.slow
def test_agrees_with_fokker_planck_at_the_damping_of_the_reference():
    check_against_fokker_planck(REFERENCE, [s for s in SETTINGS if s[1] <= 6], 40_000, seed=7)


@pytest.mark.slow
def test_agrees_with_fokker_planck_on_another_preset():
    device = spinkeras.MTJDevice.preset("vcma_uta2022")
    check_against_fokker_planck(device, [s for s in SETTINGS if s[1] <= 6], 40_000, seed=8)


def test_step_size_bias():
    # 4 ns at twice the critical current of the reference device; the coarse values are those of
    # an independent implementation with 20000 trajectories.
    current, exact = 2 * REFERENCE.critical_current, 0.7352
    sharp = llg.simulate_switching("stt_reference", current, 4e-9, trajectories=8192, seed=9)
    assert abs(sharp.probability - exact) < FIVE_SIGMA * np.sqrt(exact * (1 - exact) / 8192)
    for step, expected in ((5e-12, 0.7732), (10e-12, 0.9167)):
        with pytest.warns(UserWarning, match=r"rad per step, more than 0\.08"):
            coarse = llg.simulate_switching(
                "stt_reference", current, 4e-9, trajectories=8192, seed=9, time_step=step
            )
        sigma = np.sqrt(expected * (1 - expected) * (1 / 8192 + 1 / 20_000))
        assert abs(coarse.probability - expected) < FIVE_SIGMA * sigma
        assert coarse.time_step == pytest.approx(step)


def test_gate_pulsed_with_the_current_starts_from_the_old_well():
    softer = REFERENCE.anisotropy_at(1.0)
    assert softer < REFERENCE.anisotropy
    current = 90e-6
    held, pulsed = (
        llg.simulate_switching(
            REFERENCE,
            current,
            1.5e-9,
            anisotropy=softer,
            initial_anisotropy=before,
            trajectories=8192,
            confidence=SURE,
        )
        for before in (softer, REFERENCE.anisotropy)
    )
    # The narrower start of the pulsed gate costs a few percent of the probability.
    assert pulsed.probability < held.probability
    exact = fokker_planck.switching_probability(current, 1.5e-9, REFERENCE, softer)
    assert held.low <= exact <= held.high


def test_spin_orbit_torque_has_the_analytic_threshold():
    # Nearly without noise. In an in-plane field h = B_x / mu0Hk (Lee et al. 2013):
    # B_so,c = mu0Hk sqrt([8 + 20 h^2 - h^4 - h (8 + h^2)^(3/2)] / 32).
    device = REFERENCE.replace(damping=0.5, temperature=5.0)
    field = device.anisotropy_field
    h = 0.1
    threshold = np.sqrt((8 + 20 * h**2 - h**4 - h * (8 + h**2) ** 1.5) / 32)
    assert threshold == pytest.approx(0.430, abs=1e-3)
    result = llg.simulate_switching(
        device,
        current=0.0,
        pulse_width=3e-9,
        spin_orbit_field=np.array([threshold - 0.04, threshold + 0.03]) * field,
        in_plane_field=np.array([[-h], [h]]) * field,
        relaxation_time=3e-9,
        trajectories=200,
    )
    # Below: none. Above: all, for one sign of the in-plane field; held up for the other.
    assert result.switched.tolist() == [[0, 200], [0, 0]]


def test_spin_orbit_pulse_without_a_field_leaves_a_coin_toss():
    device = REFERENCE.replace(damping=0.5)
    result = llg.simulate_switching(
        device,
        current=0.0,
        pulse_width=3e-9,
        spin_orbit_field=0.7 * device.anisotropy_field,
        relaxation_time=2e-9,
        trajectories=4096,
        confidence=SURE,
    )
    assert result.low < 0.5 < result.high


@pytest.mark.parametrize("ratio", [0.0, 0.83, -2.0])
def test_without_noise_every_torque_follows_the_equation(ratio):
    # Both torques, the field-like one and the in-plane field, against SciPy on the vector form.
    device = REFERENCE.replace(damping=0.1, temperature=1.0)
    hk = device.anisotropy_field
    orbit, in_plane, current, width = 0.35 * hk, -0.2 * hk, 150e-6, 0.4e-9
    moment = device.saturation_magnetization * device.volume
    transfer = constants.hbar * device.spin_torque_efficiency * current / (2 * constants.e * moment)
    torque = np.array([0.0, orbit, -transfer])

    def motion(_, m):
        field = np.array([in_plane, ratio * orbit, hk * m[2]])
        effective = np.cross(m, field - device.damping * torque)
        damped = np.cross(m, np.cross(m, device.damping * field + torque))
        return -GYROMAGNETIC_RATIO / (1 + device.damping**2) * (effective + damped)

    result = llg.simulate_switching(
        device,
        current,
        width,
        spin_orbit_field=orbit,
        field_like_ratio=ratio,
        in_plane_field=in_plane,
        trajectories=100,
        return_trajectories=100,
    )
    start = np.array([-0.2, 0.0, np.sqrt(1 - 0.2**2)])  # the well in the in-plane field
    exact = integrate.solve_ivp(motion, (0, width), start, rtol=1e-9, t_eval=result.time)
    assert np.ptp(exact.y[2]) > 0.1
    np.testing.assert_allclose(result.magnetization.mean(0), exact.y.T, atol=0.01)


def test_relaxation_after_the_pulse_hardly_changes_the_outcome():
    pair = [
        llg.simulate_switching(
            REFERENCE.replace(damping=0.1), 500e-6, 0.3e-9, relaxation_time=wait, trajectories=8192
        )
        for wait in (0.0, 2e-9)
    ]
    exact = fokker_planck.switching_probability(500e-6, 0.3e-9, REFERENCE.replace(damping=0.1))
    for result in pair:
        sigma = np.sqrt(exact * (1 - exact) / 8192)
        assert abs(result.probability - exact) < 0.002 + FIVE_SIGMA * sigma


# --- the result ----------------------------------------------------------------------------------


def small(**options):
    settings = dict(current=73.5e-6, pulse_width=2e-9, trajectories=300)
    settings.update(options)
    return llg.simulate_switching("stt_reference", **settings)


def test_seed_reproduces_and_another_seed_differs():
    first, again, other = (small(trajectories=3000, seed=seed) for seed in (11, 11, 12))
    assert first.switched == again.switched
    assert first.switched != other.switched


def test_keeping_trajectories_does_not_change_the_outcome():
    plain, kept = small(), small(return_trajectories=20)
    assert plain.switched == kept.switched
    assert plain.time is None
    assert plain.magnetization is None
    assert kept.time.shape == (201,)
    assert kept.time[[0, -1]] == pytest.approx([0.0, 2e-9])
    assert kept.magnetization.shape == (20, 201, 3)
    np.testing.assert_allclose(np.linalg.norm(kept.magnetization, axis=-1), 1.0, atol=1e-6)
    assert np.all(kept.magnetization[:, 0, 2] > 0)


def test_settings_broadcast_and_keep_their_order():
    current, width = np.array([0.0, 200e-6]), np.array([[2e-9], [1e-9], [2e-9]])
    result = small(current=current, pulse_width=width, return_trajectories=300)
    assert result.probability.shape == result.low.shape == (3, 2)
    assert np.all(result.probability[:, 0] == 0.0)
    assert np.all(result.probability[:, 1] > 0.9)
    np.testing.assert_allclose(result.time[:, :, -1], np.broadcast_to(width, (3, 2)))
    reversed_ = np.sum(result.magnetization[..., -1, 2] < 0, axis=-1)
    np.testing.assert_array_equal(reversed_, result.switched)
    assert small(current=np.zeros(0)).probability.shape == (0,)


def test_interval_is_exact():
    none, every = small(current=0.0, confidence=0.9), small(current=1e-3, confidence=0.9)
    assert none.switched == 0
    assert (none.low, every.high) == (0.0, 1.0)
    assert none.high == pytest.approx(1 - 0.05 ** (1 / 300))
    assert every.low == pytest.approx(0.05 ** (1 / 300))
    half = small()
    tail = stats.binom.sf(half.switched - 1, 300, half.low)
    assert tail == pytest.approx(0.025)
    assert stats.binom.cdf(half.switched, 300, half.high) == pytest.approx(0.025)


def test_progress_bar(capsys):
    small(progress=True)
    assert "1/1" in capsys.readouterr().out
    small()
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pulse_width": -1e-9}, r"pulse_width = -1e-09 s must be finite and > 0"),
        ({"current": np.array([0, np.nan])}, r"current = nan A must be finite"),
        ({"anisotropy": 0.0}, r"anisotropy = 0\.0 J/m\^3 must be finite and > 0"),
        ({"in_plane_field": 0.3}, r"in_plane_field = 0\.3 T is not below mu0Hk = 0\.22 T"),
        ({"field_like_ratio": np.nan}, r"field_like_ratio = nan"),
        ({"trajectories": 0}, r"trajectories = 0 must be a whole number from 1"),
        ({"return_trajectories": 301}, r"return_trajectories = 301 .* to 300"),
        ({"seed": -1}, r"seed = -1 must be a whole number"),
        ({"confidence": 95}, r"confidence = 95 is outside \(0, 1\); 95 % is 0\.95"),
        ({"time_step": 0.0}, r"time_step = 0\.0 s must be finite and > 0"),
        ({"relaxation_time": -1e-9}, r"relaxation_time = -1e-09 s must be finite and >= 0"),
        ({"trajectories": "many"}, r"trajectories = 'many' must be a whole number"),
        ({"time_step": "1 ps"}, r"time_step = '1 ps' is not a number"),
        ({"current": "1 mA"}, r"must be numbers or arrays in SI units"),
        ({"pulse_width": 1.0}, r"more than 2e9\. Use fokker_planck"),
        ({"current": np.ones(2), "pulse_width": np.ones(3)}, r"broadcast"),
    ],
)
def test_refuses_and_says_why(options, message):
    with pytest.raises(ValueError, match=message):
        small(**options)


def test_spin_orbit_field():
    # hbar theta J / (2 e Ms t) = 6.582e-16 V s / 2 * 0.3 * 1e12 A/m^2 / (1e6 A/m * 1.2 nm)
    field = llg.spin_orbit_field(1e12, 0.3, "stt_reference")
    assert field == pytest.approx(6.582119569e-16 / 2 * 0.3 * 1e12 / 1.2e-3, rel=1e-9)
    with pytest.raises(ValueError, match=r"30 % is 0\.3"):
        llg.spin_orbit_field(1e12, 30, "stt_reference")


@pytest.mark.slow
def test_example_switching_curves(tmp_path):
    pytest.importorskip("matplotlib")
    device = spinkeras.MTJDevice.preset("stt_arm").replace(name="$x_$")  # no formula
    device.save(tmp_path / "my.arm.json")
    arguments = ["--trajectories", "2000", "--device", "my.arm.json"]
    run_example("switching_curves.py", *arguments, cwd=tmp_path)
    results = tmp_path / "results"
    data = json.loads((results / "switching_curves_my.arm.json").read_text())
    sigmas = np.array([row["sigmas"] for row in data["curves"]])
    assert sigmas.shape == (6, 7)
    assert np.sum(sigmas**2) < stats.chi2.isf(1e-6, sigmas.size)
    for row in data["curves"]:
        assert np.max(np.abs(np.subtract(row["exact"], row["closed_form"]))) < 0.01
    for name in ("switching_curves_my.arm.png", "slope_map_my.arm.png"):
        assert (results / name).read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    assert data["device"] == device.get_config()
    for name, reason in (
        ("none.json", "There is no file"),
        ("vgsot_zhang2020", "a switching curve of its own"),
        ("smtj_reference", ""),
    ):
        with pytest.raises(subprocess.CalledProcessError) as caught:
            run_example("switching_curves.py", "--device", name, cwd=tmp_path)
        assert reason in caught.value.stderr
        assert "Traceback" not in caught.value.stderr
