"""Free-running junctions: occupancy and rates against the exact equation, limits, gradients."""

import keras
import numpy as np
import pytest
from keras import ops
from scipy import integrate, linalg, special

import spinkeras
from spinkeras import MTJDevice
from spinkeras.macrospin import fokker_planck
from spinkeras.physics import equilibrium, laws
from spinkeras.physics.curve import RationalLogit, steepest_fall

LOW = MTJDevice.preset("smtj_reference")
DRIVES = np.linspace(-8, 8, 65)
STABILITIES = np.array([0.1, 0.5, 1, 1.5, 2, 3, 4, 6, 8, 12, 16, 20])


def exact_occupancy(drive, stability):
    """The two halves of the Boltzmann integral, regular for every sign and size."""
    x, w = np.polynomial.legendre.leggauss(100)
    z = (x + 1) / 2
    well, push = np.asarray(stability)[..., None] * (z**2 - 1), 2 * np.asarray(drive)[..., None]
    halves = [np.exp(well + push * (sign * z - np.sign(push))) @ w for sign in (1, -1)]
    return halves[0] / (halves[0] + halves[1])


def test_the_exact_reference_agrees_with_what_does_not_share_its_method():
    rng = np.random.default_rng(0)
    for stability, drive in zip(rng.uniform(0.1, 20, 12), rng.uniform(-8, 8, 12)):
        found = fokker_planck.equilibrium_occupancy(drive, stability)
        assert found == pytest.approx(exact_occupancy(drive, stability), abs=1e-8)
    for stability, drive in [(2.0, 0.3), (4.0, -1.0)]:
        root, i = np.sqrt(stability), drive / stability
        erfi = [special.erfi(root * v) for v in (1 + i, i, 1 - i)]
        found = fokker_planck.equilibrium_occupancy(drive, stability)
        assert found == pytest.approx((erfi[0] - erfi[1]) / (erfi[0] + erfi[2]), abs=1e-9)
        # a long pulse's occupancy approaches it with the slowest rate
        taus = np.array([4.0, 5.0]) / fokker_planck.relaxation_rate(drive, stability) * stability
        away = found - fokker_planck.switching_curve(i, taus, stability)
        assert np.log(away[0] / away[1]) == pytest.approx(1.0, abs=1e-3)


def test_the_exact_correlation_time_is_the_integral_of_the_correlation():
    """The bit's correlation, mode by mode, from the Legendre matrix."""
    for stability, drive in [(1.0, 0.5), (4.0, 0.0), (3.0, -2.0)]:
        matrix, _, readout = fokker_planck.legendre_system(drive / stability, stability)
        x, w = np.polynomial.legendre.leggauss(len(readout) + 60)
        half, modes = (x + 1) / 2, np.arange(len(readout))
        weight = w / 2 * np.exp(stability * half**2 + 2 * drive * half)
        start = np.polynomial.legendre.legvander(-half, modes[-1]).T @ weight * np.sqrt(modes + 0.5)
        rest = np.append([np.sqrt(0.5)], linalg.solve(matrix[1:, 1:], -matrix[1:, 0] * 0.5**0.5))
        p = readout @ rest
        start = start / weight.sum() * p - p * rest
        start = np.append(0, start[1:])
        integral = readout[1:] @ linalg.solve(-matrix[1:, 1:] * stability, start[1:])
        found = fokker_planck.correlation_time(drive, stability)
        assert found == pytest.approx(integral / (p * (1 - p)), rel=1e-4)


def test_values_of_the_design_notes():
    # Delta, h: P, slowest rate, correlation time
    for stability, drive, *expected in [
        (0.5, 0.5, 0.74731, 0.91197, 0.86409),
        (2, 1, 0.93468, 0.70593, 1.1627),
        (4, 0.5, 0.83532, 0.16607, 5.8015),
        (8, 0, 0.5, 0.0073622, 135.72),
        (12, 1, 0.97841, 8.1842e-4, 1221.8),
    ]:
        exact = [
            function(drive, stability)
            for function in (
                fokker_planck.equilibrium_occupancy,
                fokker_planck.relaxation_rate,
                fokker_planck.correlation_time,
            )
        ]
        np.testing.assert_allclose(exact, expected, rtol=6e-5)
    assert fokker_planck.correlation_time(0, 0.01) == pytest.approx(4 * np.log(2) - 2, rel=0.01)
    assert fokker_planck.relaxation_rate(0, 0.01) == pytest.approx(1, rel=0.01)


def test_the_law_is_within_its_bound_everywhere():
    rng = np.random.default_rng(1)
    stability = np.concatenate([STABILITIES, rng.uniform(0.1, 20, 40)])
    exact = exact_occupancy(DRIVES, stability[:, None])
    curve = equilibrium.equilibrium_curve(np, 0.0, stability[:, None])
    found = curve.probability(DRIVES)
    assert np.max(np.abs(found - exact)) < 1.2e-4
    assert np.all(np.diff(found, axis=1) > 0)
    np.testing.assert_allclose(found + found[:, ::-1], 1, atol=1e-12)
    for one in stability:
        curve = equilibrium.equilibrium_curve(np, 0.0, np.array(one))
        assert isinstance(curve, RationalLogit)
        assert curve.d > 0
        assert steepest_fall(curve.a, curve.b, curve.c, curve.d) is None
        assert 4 * curve.b / curve.d * curve.steepness == pytest.approx(2)  # of the logit, far away
        slope = integrate.quad(lambda z, d=one: z * np.exp(d * (z * z - 1)), 0, 1)[0]
        slope /= integrate.quad(lambda z, d=one: np.exp(d * (z * z - 1)), 0, 1)[0]
        assert curve.slope == pytest.approx(slope, rel=1e-8)


def test_limits_of_the_law():
    """Without a barrier the bit is that of a moment in a field, with a high one two states."""
    free = equilibrium.equilibrium_curve(np, 0.0, np.array(0.1)).probability(DRIVES)
    np.testing.assert_allclose(free, special.expit(2 * DRIVES), atol=0.006)
    stable = equilibrium.equilibrium_curve(np, 0.0, np.array(20.0)).probability(DRIVES)
    np.testing.assert_allclose(stable, special.expit(4 * DRIVES), atol=0.01)


def test_rates_are_within_their_bound_everywhere():
    rng = np.random.default_rng(2)
    stability = np.concatenate([STABILITIES, rng.uniform(0.1, 20, 60)])
    drive = np.concatenate([rng.choice([-8, 0, 8], len(STABILITIES)), rng.uniform(-8, 8, 60)])
    for law, exact, bound in (
        (equilibrium.relaxation_rate, fokker_planck.relaxation_rate, 0.006),
        (equilibrium.bit_correlation_time, fokker_planck.correlation_time, 0.008),
    ):
        truth = [exact(h, delta) for h, delta in zip(drive, stability)]
        np.testing.assert_allclose(law(np, drive, stability), truth, rtol=bound)
        assert np.array_equal(law(np, -drive, stability), law(np, drive, stability))
        edge, beyond = (law(np, np.array(h), np.array(3.0)) for h in (8.0, 1e9))
        assert edge == beyond


@pytest.mark.backends
def test_tensors_give_the_numbers_of_numpy_and_the_right_tangents():
    stability = np.geomspace(0.1, 20, 23)
    log_duration = np.zeros_like(stability)
    curve = laws.get_curve("equilibrium", device=LOW.replace(offset_field=2e-3))
    tensors = (ops.convert_to_tensor(v.astype("float32")) for v in (log_duration, stability))
    here, by = curve.tangents(ops, *tensors, *curve.parameters)
    there, exact_by = curve.tangents(np, log_duration, stability, *curve.parameters)
    step = 1e-5
    high, low = (curve(np, log_duration, stability * np.exp(s)) for s in (step, -step))
    for name in ("midpoint", "steepness", "a", "b", "c", "d"):
        value = getattr(there, name)
        np.testing.assert_allclose(ops.convert_to_numpy(getattr(here, name)), value, rtol=2e-4)
        difference = (getattr(high, name) - getattr(low, name)) / (2 * step)
        np.testing.assert_allclose(getattr(exact_by, name)[1], difference, rtol=1e-5, atol=1e-10)
        assert not np.any(getattr(exact_by, name)[0])
        found = ops.convert_to_numpy(getattr(by, name))
        np.testing.assert_allclose(found, getattr(exact_by, name), rtol=3e-3, atol=1e-6)


@pytest.mark.backends
def test_public_functions_take_the_law():
    current = np.linspace(-3e-6, 3e-6, 7)
    options = {"device": LOW, "switching_model": "equilibrium"}
    found = spinkeras.switching_probability(current, 1e-6, **options)
    drive = current / LOW.critical_current_per_stability
    exact = exact_occupancy(drive, LOW.thermal_stability)
    np.testing.assert_allclose(found, exact, atol=1.2e-4)
    assert np.array_equal(found, spinkeras.switching_probability(current, 1e-9, **options))
    tensor = spinkeras.switching_probability(
        ops.convert_to_tensor(current.astype("float32")), 1e-6, **options
    )
    np.testing.assert_allclose(ops.convert_to_numpy(tensor), found, atol=2e-6)
    outside = ops.convert_to_tensor(np.float32(25 / LOW.thermal_stability * LOW.anisotropy))
    nan = spinkeras.switching_probability(0.0, 1e-6, anisotropy=outside, **options)
    assert np.isnan(ops.convert_to_numpy(nan))


@pytest.mark.parametrize("field", [-2e-3, 0.5e-3])
@pytest.mark.parametrize("anisotropy", [0.5, 1.5])
def test_a_stray_field_moves_the_midpoint_and_nothing_else(field, anisotropy):
    """The signed midpoint is where spin torque and field cancel, at any anisotropy."""
    device = LOW.replace(offset_field=field)
    settings = (1e-6, device, anisotropy * device.anisotropy, "equilibrium")
    midpoint = spinkeras.midpoint_current(*settings)
    energy = device.saturation_magnetization * device.volume * field
    shift = device.critical_current_per_stability * energy / (2 * device.thermal_energy)
    assert midpoint == pytest.approx(shift, rel=1e-12)
    assert spinkeras.switching_probability(midpoint, *settings) == pytest.approx(0.5)
    plain = (1e-6, LOW, anisotropy * device.anisotropy, "equilibrium")
    moved = spinkeras.switching_probability(midpoint + 1e-6, *settings)
    assert moved == pytest.approx(spinkeras.switching_probability(1e-6, *plain), rel=1e-9)
    # the law of Boltzmann: the field's energy is +- Ms V B, without any current
    z = np.linspace(-1, 1, 20001)
    barrier = device.stability_at(anisotropy * device.anisotropy)
    weight = np.exp(barrier * z**2 + energy / device.thermal_energy * z)
    found = spinkeras.switching_probability(0.0, *settings)
    assert found == pytest.approx(weight[z < 0].sum() / weight.sum(), abs=3e-4)


def test_times_in_seconds():
    for anisotropy in LOW.anisotropy_range:
        stability = LOW.stability_at(anisotropy)
        rate = fokker_planck.relaxation_rate(1.0, stability)
        current = LOW.critical_current_per_stability
        found = equilibrium.relaxation_time(current, LOW, anisotropy)
        assert found == pytest.approx(LOW.diffusion_time / rate, rel=0.006)
        up, down = equilibrium.dwell_times(current, LOW, anisotropy)
        assert 1 / up + 1 / down == pytest.approx(1 / found)
        assert down / up == pytest.approx(
            spinkeras.switching_probability(current, 1e-6, LOW, anisotropy, "equilibrium")
            / spinkeras.switching_probability(-current, 1e-6, LOW, anisotropy, "equilibrium")
        )
    measured = LOW.replace(relaxation_time=5e-9, offset_field=1e-3)
    balance = spinkeras.midpoint_current(1e-6, measured, switching_model="equilibrium")
    assert equilibrium.relaxation_time(balance, measured) == pytest.approx(5e-9)
    ratio = equilibrium.correlation_time(1e-6, LOW) / equilibrium.correlation_time(
        1e-6 + balance, measured
    )
    assert ratio == pytest.approx(equilibrium.relaxation_time(0.0, LOW) / 5e-9)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"anisotropy": 2.0e5}, "outside .0.1, 20.*J/m.3.*macrospin"),
        ({"anisotropy": 100.0, "gate_voltage_range": (0.0, 0.0)}, "outside .0.1, 20"),
        ({"write_resistance": 800.0}, "write_resistance = 800 ohm.*two-terminal"),
    ],
)
def test_devices_that_do_not_run_freely_are_refused(change, message):
    device = LOW.replace(**change)
    for function in (
        lambda: spinkeras.midpoint_current(1e-6, device, switching_model="equilibrium"),
        lambda: equilibrium.relaxation_time(0.0, device),
    ):
        with pytest.raises(ValueError, match=message):
            function()


def test_questions_without_an_answer_are_refused():
    with pytest.raises(ValueError, match="the pulse width does not change the slope"):
        spinkeras.pulse_width_for_slope(1e6, LOW, switching_model="equilibrium")
    with pytest.raises(ValueError, match=r"free-running junction .*equilibrium"):
        spinkeras.midpoint_current(1e-6, LOW)
    with pytest.raises(ValueError, match="current = nan A must be finite"):
        equilibrium.correlation_time(np.nan, LOW)
    for field, value in (("offset_field", 0.2), ("relaxation_time", 0.0)):
        with pytest.raises(ValueError, match=field):
            LOW.replace(**{field: value})
    assert keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(LOW)) == LOW
    assert spinkeras.presets(free_running=True) == ["smtj_reference", "smtj_schnitzspan2023"]
    assert "Synthetic" in LOW.source


def test_a_table_of_pulses_is_not_fitted_by_it():
    columns = {
        "current": [1e-6, 2e-6],
        "pulse_width": [1e-9, 1e-9],
        "trials": [100, 100],
        "switched": [40, 60],
    }
    with pytest.raises(ValueError, match=r"free-running junction .* not fitted"):
        spinkeras.fit_device(columns, LOW, switching_model="equilibrium")
