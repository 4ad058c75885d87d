"""How devices differ: the draw of a chip, and given devices."""

import dataclasses

import keras
import numpy as np
import pytest
from keras import ops
from scipy import stats

import spinkeras
from spinkeras import NeelBrown, SpinNeuron
from spinkeras.hardware import chips
from spinkeras.physics.chip_curve import chip_curve
from spinkeras.physics.spread import FACTORS, ChipSpread, DeviceFactors
from tests.layer.test_draws import ALARM, inside_binomial

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
    for rng in (0, None, np.random):
        with pytest.raises(ValueError, match=r"rng = .* must be a numpy\.random\.Generator"):
            ChipSpread().draw((2,), rng)


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
    with pytest.raises(ValueError, match=r"another offset_field .*; give ChipSpread\(offset_field"):
        ChipSpread.from_devices([device.replace(offset_field=1e-3)], device)
    with pytest.raises(ValueError, match="has the factors"):
        ChipSpread(devices=[[1.0, 1.0]])
    earlier = ChipSpread(devices=[[1.1, 1.0, 0.9, 1.0, 1.2]])  # without the moment
    assert earlier == ChipSpread(devices=[[1.1, 1.0, 0.9, 1.0, 1.2, 1.0]])
