"""How devices differ: the draw of a chip, given devices, and the physics of both."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import ops
from scipy import stats

import spinkeras
from spinkeras import NeelBrown, SpinNeuron
from spinkeras.hardware import chips
from spinkeras.physics.spread import FACTORS, ChipSpread, DeviceFactors, chip_curve
from tests.layer.test_draws_and_grids import ALARM, inside_binomial

VGSOT = spinkeras.MTJDevice.preset("vgsot_zhang2020")


# --- the draw ------------------------------------------------------------------------------------


def test_factors_follow_the_stated_law():
    spread = ChipSpread(
        stability=0.1, current=0.05, resistance=0.2, tmr=0.04, stuck_low=0.02, stuck_high=0.01
    )
    rng = np.random.default_rng(0)
    chip = spread.draw((200_000,), rng)
    for name in ("stability", "current", "resistance", "tmr"):
        logs = np.log(getattr(chip, name))
        assert stats.kstest(logs / getattr(spread, name), "norm").pvalue > ALARM
    assert abs(np.corrcoef(chip.resistance, chip.tmr)[0, 1]) < 5 / 200_000**0.5
    for column, p in ((chip.stuck_low, 0.02), (chip.stuck_high, 0.01)):
        assert inside_binomial(column.sum(), 200_000, p, 2)
    assert not np.any(chip.stuck_low * chip.stuck_high)
    np.testing.assert_array_equal(chip.diffusion_time, 1)
    tensors = spread.draw_tensors((200_000,), 300.0, keras.random.SeedGenerator(1), "float32")
    for name in ("stability", "tmr"):
        logs = np.log(ops.convert_to_numpy(getattr(tensors, name)))
        assert stats.kstest(logs / getattr(spread, name), "norm").pvalue > ALARM


def test_temperature_is_common_to_the_chip(device):
    spread = ChipSpread(temperature=20.0)
    drawn = [spread.draw_temperature(np.random.default_rng(k)) for k in range(400)]
    assert stats.kstest((np.array(drawn) - 300) / 20, "norm").pvalue > ALARM
    chip = spread.draw((5,), np.random.default_rng(0), chip_temperature=330.0)
    np.testing.assert_allclose(chip.diffusion_time, 1 / 1.1)
    np.testing.assert_allclose(chip.stability, 1 / 1.1)


@pytest.mark.parametrize(
    "bad",
    [{"stability": -0.1}, {"ceiling": 0.2}, {"temperature": 85}, {"stuck_low": float("nan")}],
)
def test_bad_spread(bad):
    with pytest.raises(ValueError, match=f"{next(iter(bad))} = .* is outside"):
        ChipSpread(**bad)
    with pytest.raises(ValueError, match="spread must be a ChipSpread"):
        SpinNeuron(spread=0.1)


# --- given devices -------------------------------------------------------------------------------


def three_devices(device):
    """Small, nominal and large: stability, resistance and TMR vary together."""
    return [
        device.replace(diameter=38e-9, tmr=0.9, damping=0.016),
        device,
        device.replace(diameter=42e-9, tmr=1.2),
    ]


@pytest.mark.backends
@pytest.mark.parametrize("tensors", [False, True])
def test_whole_devices_are_drawn_with_equal_chances(device, tensors):
    devices = three_devices(device)
    spread = ChipSpread.from_devices(devices, device)
    if tensors:
        chip = spread.draw_tensors((30_000,), 300.0, keras.random.SeedGenerator(3), "float32")
        chip = DeviceFactors(*(ops.convert_to_numpy(f) for f in chip))
    else:
        chip = spread.draw((30_000,), np.random.default_rng(3))
    # Which device it is follows from any of its factors, and all of them agree.
    picked = np.abs(chip.tmr[:, None] - [0.9, 1.0, 1.2]).argmin(1)
    for name, of in (
        ("stability", "thermal_stability"),
        ("current", "critical_current_per_stability"),
        ("diffusion_time", "diffusion_time"),
        ("resistance", "resistance_parallel"),
        ("tmr", "tmr"),
    ):
        expected = np.array([getattr(d, of) / getattr(device, of) for d in devices])
        np.testing.assert_allclose(getattr(chip, name), expected[picked], rtol=1e-6)
    assert np.all(inside_binomial(np.bincount(picked), 30_000, 1 / 3, 3))
    # neighbours are independent
    assert inside_binomial(np.sum(picked[1:] == picked[:-1]), 29_999, 1 / 3, 1)


IN_FIELD = {"anisotropy": 13.7e3, "gate_voltage_range": (-0.1, 0.1), "offset_field": 20e-3}


@pytest.mark.parametrize(
    ("nominal", "law", "width", "highest", "top"),
    [
        ({}, {"switching_model": "macrospin"}, 4e-9, 120e-6, 1.0),
        ({"diameter": 80e-9}, {"switching_model": "neel_brown"}, 1e-6, 240e-6, 1.0),  # Delta = 160
        ({}, {"switching_model": NeelBrown(attempt_time=1e-9)}, 1e-6, 60e-6, 1.0),
        (VGSOT.get_config() | {"diameter": 95e-9}, {}, 4e-9, 200e-6, 0.77),  # Delta = 109
        (IN_FIELD, {"switching_model": "equilibrium"}, 1e-6, 5e-6, 1.0),
        (
            IN_FIELD | {"initial_state": "antiparallel"},
            {"switching_model": "equilibrium"},
            1e-6,
            5e-6,
            1.0,
        ),
    ],
)
def test_a_given_device_answers_as_itself(device, nominal, law, width, highest, top):
    """Also with other damping, moment and temperature, against the device's own curve."""
    from spinkeras.physics import laws

    device = device.replace(**nominal)
    size = device.diameter / 40e-9
    actual = device.replace(
        diameter=43e-9 * size, thickness=1.1e-9, damping=0.02, spin_torque_efficiency=0.55,
        saturation_magnetization=0.9e6, temperature=340.0,
        resistance_area_product=1.2 * device.resistance_area_product,
    )  # fmt: skip
    current = np.linspace(highest / 12, highest, 25)
    chip = ChipSpread.from_devices([actual], device).draw((1,), np.random.default_rng(0))
    options = {"switching_model": laws.own_model(device)} | law
    found = chip_curve(
        np,
        laws.get_curve(**options, device=device),
        np.full(1, np.log(width / device.diffusion_time)),
        np.full(1, device.thermal_stability),
        current / device.critical_current_per_stability,
        chip,
        ChipSpread(),
    )
    expected = spinkeras.switching_probability(current, width, actual, **law)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert expected.min() < 0.01
    assert expected.max() > 0.99 * top
    assert chip.resistance[0] == pytest.approx(
        actual.resistance_parallel / device.resistance_parallel
    )


def test_correlations_survive_and_sigmas_multiply(device):
    devices = spinkeras.sample_devices(device, 500, seed=1, spread={"diameter": 0.05, "tmr": 0.04})
    spread = ChipSpread.from_devices(devices, device, current=0.03)
    chip = spread.draw((50_000,), np.random.default_rng(0))
    # area enters the stability and the resistance oppositely
    np.testing.assert_allclose(chip.stability * chip.resistance, 1, rtol=1e-12)
    np.testing.assert_allclose(chip.diffusion_time, chip.stability, rtol=1e-12)
    assert abs(np.corrcoef(chip.stability, chip.tmr)[0, 1]) < 0.2
    table = np.log([d.tmr / device.tmr for d in devices])
    assert np.log(chip.tmr).std() == pytest.approx(table.std(), rel=0.03)
    assert np.log(chip.current).std() == pytest.approx(0.03, rel=0.03)


@pytest.mark.backends
def test_devices_are_saved_with_the_layer(device, tmp_path):
    devices = spinkeras.sample_devices(device, 50, spread={"anisotropy": 0.1, "damping": 0.05})
    spread = ChipSpread.from_devices(devices, device, stuck_high=0.01)
    model = keras.Sequential(
        [keras.Input((3,)), SpinNeuron(spread=spread, seed=5), keras.layers.Dense(1)]
    )
    model.compile("adam", "mse", run_eagerly=True)
    x, y = np.random.default_rng(0).normal(size=(2, 32, 3))
    model.fit(x, y[:, :1], verbose=0)
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    assert again.layers[0].spread == spread
    assert again.layers[0].spread.devices == spread.devices
    ones = np.ones((1, 3), "float32")
    fresh = SpinNeuron.from_config(model.layers[0].get_config())
    drawn = [ops.convert_to_numpy(layer(ones, training=True)) for layer in (fresh, fresh)]
    same = SpinNeuron.from_config(model.layers[0].get_config())
    np.testing.assert_array_equal(ops.convert_to_numpy(same(ones, training=True)), drawn[0])
    assert np.any(drawn[0] != drawn[1])
    reports = [
        chips.evaluate_chips(m, x, y[:, :1] > 0, spread, chips=3, progress=False)
        for m in (model, again)
    ]
    np.testing.assert_array_equal(reports[0].accuracy, reports[1].accuracy)
    np.testing.assert_allclose(reports[0].energy_pj, reports[1].energy_pj, rtol=1e-6)


def test_a_joint_distribution_is_sampled_once():
    tfd = pytest.importorskip("tensorflow_probability").distributions
    joint = tfd.JointDistributionNamed(
        {
            "stability": tfd.LogNormal(0.0, 0.1),
            "resistance": lambda stability: tfd.LogNormal(-0.5 * (stability - 1), 0.02),
        }
    )
    spread = ChipSpread.from_factors(joint, count=2000, seed=4)
    assert spread == ChipSpread.from_factors(joint, count=2000, seed=4)
    assert spread != ChipSpread.from_factors(joint, count=2000, seed=5)
    table = np.array(spread.devices)
    assert table.shape == (2000, len(FACTORS))
    assert stats.kstest(np.log(table[:, 0]) / 0.1, "norm").pvalue > ALARM
    residual = np.log(table[:, 3]) + 0.5 * (table[:, 0] - 1)
    assert stats.kstest(residual / 0.02, "norm").pvalue > ALARM
    np.testing.assert_array_equal(table[:, [1, 2, 4, 5]], 1)


def test_bad_devices(device):
    with pytest.raises(ValueError, match=r"Device 1 has the factors .* Check that `nominal` is"):
        ChipSpread.from_devices([device, device.replace(anisotropy=2e6)], device)
    with pytest.raises(ValueError, match="2001 devices are too many"):
        ChipSpread.from_factors({"stability": np.ones(2001)})
    with pytest.raises(ValueError, match="keys among"):
        ChipSpread.from_factors({"weight": [1.0]})
    with pytest.raises(ValueError, match="one common shape"):
        ChipSpread.from_factors({"stability": [1.0], "tmr": [1.0, 1.0]})
    with pytest.raises(ValueError, match="empty"):
        ChipSpread.from_devices([], device)
    with pytest.raises(ValueError, match="tmr = 0"):
        ChipSpread.from_devices([device], device.replace(tmr=0.0))
    other = dataclasses.replace(VGSOT.switching_curve, threshold=120e-6)
    with pytest.raises(ValueError, match="another switching_curve"):
        ChipSpread.from_devices([VGSOT.replace(switching_curve=other)], VGSOT)
    with pytest.raises(ValueError, match="has the factors"):
        ChipSpread(devices=[[1.0, 1.0]])
    earlier = ChipSpread(devices=[[1.1, 1.0, 0.9, 1.0, 1.2]])  # without the moment
    assert earlier == ChipSpread(devices=[[1.1, 1.0, 0.9, 1.0, 1.2, 1.0]])


# --- the physics ---------------------------------------------------------------------------------


def unit_chip(**changes):
    factors = {name: np.ones(1) for name in FACTORS}
    factors |= {"stuck_low": np.zeros(1), "stuck_high": np.zeros(1)}
    return DeviceFactors(**(factors | changes))


def test_a_chip_is_another_device_driven_with_the_nominal_settings(device):
    """Factors against `switching_probability` of the device that they describe."""
    from spinkeras.physics import laws

    width = 4e-9
    current = np.linspace(20e-6, 80e-6, 25)
    log_duration = np.full(1, np.log(width / device.diffusion_time))
    stability = np.full(1, device.thermal_stability)
    drive = current / device.critical_current_per_stability
    cases = [
        (unit_chip(), device),
        (unit_chip(stability=np.full(1, 1.2)), device.replace(anisotropy=1.2 * device.anisotropy)),
        (
            unit_chip(current=np.full(1, 1.1)),
            device.replace(spin_torque_efficiency=device.spin_torque_efficiency / 1.1),
        ),
        (
            unit_chip(
                stability=np.full(1, 1 / 1.1),
                current=np.full(1, 1.1),
                diffusion_time=np.full(1, 1 / 1.1),
            ),
            device.replace(temperature=330.0),
        ),
    ]
    for chip, actual in cases:
        found = chip_curve(
            np, laws.macrospin_curve, log_duration, stability, drive, chip, ChipSpread()
        )
        expected = spinkeras.switching_probability(current, width, actual)
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_a_macrospin_outside_the_closed_form_is_moved_to_its_edge(device):
    from spinkeras.physics import laws

    def answer(u, stability, chip, **spread):
        settings = np.full(1, np.log(u)), np.full(1, stability)
        drive = np.linspace(0, 60, 7)
        return chip_curve(np, laws.macrospin_curve, *settings, drive, chip, ChipSpread(**spread))

    tenth = unit_chip(diffusion_time=np.full(1, 0.1))
    edge = answer(60.0, 40.0, unit_chip())
    assert edge[1] < 1e-3 < 0.999 < edge[3]
    for spread in ({}, {"pulse_jitter": 0.2}):
        np.testing.assert_allclose(answer(58.0, 40.0, tenth, **spread), edge, atol=1e-12)
    small = unit_chip(stability=np.full(1, 0.2))
    np.testing.assert_allclose(answer(1.0, 30.0, small), answer(1.0, 7.0, unit_chip()), atol=1e-12)


def test_a_measured_curve_is_spread_as_it_says():
    """Factors on threshold and anisotropy; neither `t_D` nor the temperature enter."""
    build, unit = VGSOT.switching_curve.curve(VGSOT), VGSOT.critical_current_per_stability
    current = np.linspace(60e-6, 140e-6, 9)
    chip = unit_chip(
        current=np.full(1, 1.1), stability=np.full(1, 1.2), diffusion_time=np.full(1, 3.0)
    )
    settings = np.full(1, np.log(2e-9 / VGSOT.diffusion_time)), np.full(1, VGSOT.thermal_stability)
    found = chip_curve(np, build, *settings, current / unit, chip, ChipSpread())
    expected = VGSOT.switching_curve.switching_probability(current / 1.1, 2e-9, 1.2)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    layer = SpinNeuron(VGSOT, spread=ChipSpread(temperature=10.0))
    with pytest.raises(ValueError, match=r"temperature = 10 K has no defined effect on a measured"):
        layer(np.zeros((2, 3)), training=True)


def test_errors_and_faults(device):
    from spinkeras.physics import laws

    log_duration = np.full(1, np.log(4e-9 / device.diffusion_time))
    stability = np.full(1, device.thermal_stability)
    drive = np.linspace(20, 120, 9)

    def curve(chip=None, **spread):
        return chip_curve(
            np,
            laws.macrospin_curve,
            log_duration,
            stability,
            drive,
            chip or unit_chip(),
            ChipSpread(**spread),
        )

    p = curve()
    np.testing.assert_allclose(curve(ceiling=0.9), 0.9 * p)
    np.testing.assert_allclose(curve(read_error=0.1), 0.9 * p + 0.1 * (1 - p))
    np.testing.assert_allclose(curve(unit_chip(stuck_low=np.ones(1))), 0)
    np.testing.assert_allclose(curve(unit_chip(stuck_high=np.ones(1))), 1)
    # jitter: the mean over a Gaussian of ln t_p, by brute force
    nodes, weights = np.polynomial.hermite_e.hermegauss(41)
    mean = 0
    for node, weight in zip(nodes, weights / weights.sum()):
        base = laws.macrospin_curve(np, log_duration + 0.02 * node, stability)
        mean = mean + weight * base.probability(drive - base.midpoint)
    np.testing.assert_allclose(curve(pulse_jitter=0.02), mean, atol=1e-5)


def test_misreadings_are_those_of_a_noisy_comparison(device):
    """Read currents with noise, compared with the halfway reference, one by one."""
    from spinkeras.physics.spread import misreadings

    noise, count = 0.25, 200_000
    rng = np.random.default_rng(0)
    parallel, antiparallel = 1 / device.resistance_parallel, 1 / device.resistance_antiparallel
    reference, window = (parallel + antiparallel) / 2, parallel - antiparallel
    for f_r, f_t in ((1.0, 1.0), (1.1, 1.0), (1.0, 0.7), (0.95, 1.3)):
        chip = unit_chip(resistance=np.full(1, f_r), tmr=np.full(1, f_t))
        false_high, missed = misreadings(np, chip, noise, device.tmr)
        actual = device.replace(
            resistance_area_product=f_r * device.resistance_area_product, tmr=f_t * device.tmr
        )
        for resistance, p, below in (
            (actual.resistance_parallel, false_high, True),
            (actual.resistance_antiparallel, missed, False),
        ):
            current = 1 / resistance + noise * window * rng.normal(size=count)
            wrong = np.sum((current < reference) == below)
            assert inside_binomial(wrong, count, p[0], 8)
    nominal = misreadings(np, unit_chip(), noise, device.tmr)
    np.testing.assert_allclose(nominal, stats.norm.sf(1 / (2 * noise)))
    with pytest.raises(ValueError, match="tmr = 0"):
        misreadings(np, unit_chip(), noise, 0.0)


def test_a_low_tmr_is_misread_in_the_layer():
    layer = SpinNeuron(spread=ChipSpread(tmr=0.3, sense_noise=0.2), seed=0)
    x = np.full((1, 2000), -8.0, "float32")  # never switches, but is read as if
    wrong = ops.convert_to_numpy(layer(x, training=True))[0]
    np.testing.assert_allclose(wrong, stats.norm.sf(2.5), rtol=1e-4)  # parallel: TMR is unseen
    missed = 1 - ops.convert_to_numpy(layer(-4 * x, training=True))[0]
    assert missed.min() < 0.3 * stats.norm.sf(2.5)
    assert missed.max() > 3 * stats.norm.sf(2.5)
    assert np.median(missed) == pytest.approx(stats.norm.sf(2.5), rel=0.2)


def test_a_device_of_the_other_direction_is_misread_the_other_way(device):
    """A higher TMR moves what an antiparallel device reads, whichever state that is."""
    spread = ChipSpread(tmr=0.3, sense_noise=0.2)
    x = np.repeat([[-32.0], [32.0]], 500, axis=1).astype("float32")  # never, always
    wrong = []
    for each in (device, device.reversed()):
        layer = SpinNeuron(each, spread=spread, seed=0)
        read = ops.convert_to_numpy(layer(x, training=True))
        wrong.append(np.array([read[0], 1 - read[1]]))
    np.testing.assert_allclose(wrong[0], wrong[1][::-1], atol=1e-6)
    assert np.ptp(wrong[0][1]) > 0.01 > np.ptp(wrong[0][0])


def test_threshold_and_slope_are_told_apart(device):
    from spinkeras.physics import laws

    log_duration = np.full(1, np.log(4e-9 / device.diffusion_time))
    stability = np.full(1, device.thermal_stability)
    nominal = laws.macrospin_curve(np, log_duration, stability)
    chip = unit_chip(current=np.full(1, 1.1))
    drive = nominal.midpoint + np.array([-1e-4, 0.0, 1e-4])

    def p(cause):
        return chip_curve(
            np, laws.macrospin_curve, log_duration, stability, drive, chip, ChipSpread(), cause
        )

    slope = np.diff(p("slope")).sum() / 2e-4
    assert p("slope")[1] == pytest.approx(0.5)
    assert slope == pytest.approx(float(nominal.slope[0]) / 1.1, rel=1e-4)
    shifted = nominal.probability(drive - 1.1 * nominal.midpoint)
    np.testing.assert_allclose(p("threshold"), shifted)
    assert p("all")[1] == pytest.approx(float(p("threshold")[1]), abs=0.05)
