"""Simulated chips: the factors, their physics, the evaluation and its bookkeeping."""

import dataclasses
import functools
import json
import math

import keras
import numpy as np
import pytest
from keras import ops
from scipy import stats

import spinkeras
from spinkeras import NeelBrown, SpinNeuron
from spinkeras.hardware import chips
from spinkeras.physics.spread import FACTORS, ChipLayer, ChipSpread, chip_curve
from tests.harness import BACKEND, COMPILED, FLOAT64
from tests.layer.test_draws_and_grids import ALARM, inside_binomial

VGSOT = spinkeras.MTJDevice.preset("vgsot_zhang2020")
SPREAD = ChipSpread(stability=0.1, current=0.05, resistance=0.07, tmr=0.1)


@pytest.fixture(scope="module")
def trained():
    """A small classifier on well separated blobs, trained with nominal devices."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(4, 6)) * 1.2
    y = rng.integers(0, 4, 1200)
    x = (centres[y] + rng.normal(size=(1200, 6))).astype("float32")
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(16),
            SpinNeuron(name="first"),
            keras.layers.Dense(8),
            SpinNeuron(name="second"),
            keras.layers.Dense(4, activation="softmax"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.02), "sparse_categorical_crossentropy")
    model.fit(x, y, epochs=30, batch_size=64, verbose=0)
    return model, x[:400], y[:400]


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
    [{"stability": -0.1}, {"ceiling": 0.2}, {"temperature": 500}, {"stuck_low": float("nan")}],
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
        chip = ChipLayer(*(ops.convert_to_numpy(f) for f in chip))
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


@pytest.mark.parametrize(
    ("nominal", "law", "width", "highest", "top"),
    [
        ({}, {"switching_model": "macrospin"}, 4e-9, 120e-6, 1.0),
        ({"diameter": 80e-9}, {"switching_model": "neel_brown"}, 1e-6, 240e-6, 1.0),  # Delta = 160
        ({}, {"switching_model": NeelBrown(attempt_time=1e-9)}, 1e-6, 60e-6, 1.0),
        (VGSOT.get_config() | {"diameter": 95e-9}, {}, 4e-9, 200e-6, 0.77),  # Delta = 109
    ],
)
def test_a_given_device_answers_as_itself(device, nominal, law, width, highest, top):
    """Also with other damping, efficiency and temperature, against the device's own curve."""
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
    model.compile("adam", "mse", jit_compile=BACKEND != "torch")  # there minutes
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
    np.testing.assert_array_equal(table[:, [1, 2, 4]], 1)


def test_bad_devices(device):
    with pytest.raises(ValueError, match=r"Device 1 has the factors .* Is `nominal` the device"):
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


# --- the physics ---------------------------------------------------------------------------------


def unit_chip(**changes):
    factors = {name: np.ones(1) for name in FACTORS}
    factors |= {"stuck_low": np.zeros(1), "stuck_high": np.zeros(1)}
    return ChipLayer(**(factors | changes))


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


# --- training with spread ------------------------------------------------------------------------


@pytest.mark.backends
def test_training_sees_a_new_chip_every_step_and_inference_none():
    layer = SpinNeuron(spread=SPREAD, seed=1)
    x = np.zeros((2, 300), "float32")
    first, second = (ops.convert_to_numpy(layer(x, training=True)) for _ in range(2))
    # One device, two samples; the last elements of an array may be rounded otherwise.
    np.testing.assert_allclose(first[0], first[1], rtol=2e-7)
    assert np.std(first[0]) > 0.1
    assert not np.allclose(first, second)
    np.testing.assert_allclose(ops.convert_to_numpy(layer(x)), 0.5, atol=1e-6)
    again = SpinNeuron.from_config(layer.get_config())
    assert again.spread == SPREAD
    if not FLOAT64:
        return
    double = SpinNeuron(spread=ChipSpread(stability=0.1, stuck_low=0.1), dtype="float64")
    assert np.all(np.isfinite(ops.convert_to_numpy(double(np.zeros((2, 3)), training=True))))


@pytest.mark.backends
@pytest.mark.parametrize(
    "jit", [False, pytest.param(True, marks=[*COMPILED.marks, pytest.mark.slow])]
)
def test_a_model_with_spread_trains_and_reloads(tmp_path, jit):
    model = keras.Sequential([keras.Input((3,)), SpinNeuron(spread=SPREAD), keras.layers.Dense(1)])
    model.compile("adam", "mse", jit_compile=jit)
    x, y = np.random.default_rng(0).normal(size=(2, 32, 3))
    model.fit(x, y[:, :1], verbose=0, callbacks=[spinkeras.EnergyTracker()])
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(again.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6)


@pytest.mark.backends
@pytest.mark.parametrize("jit", [False, COMPILED])
def test_one_chip_per_epoch(jit):
    """Two samples of zeros: what the layer answers in a step shows its chip."""
    seen, traces = [], []

    @keras.saving.register_keras_serializable(package="test")
    class Spy(keras.layers.Layer):
        def build(self, input_shape):
            self.last = self.add_weight(shape=input_shape[1:], trainable=False, name="last")

        def call(self, inputs, training=None):
            if training:
                traces.append(1)
                self.last.assign(inputs[0])
            return inputs

    class Look(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            seen.append(ops.convert_to_numpy(self.model.layers[1].last))

    def run(*callbacks, **fit):
        seen.clear()
        keras.utils.clear_session()
        spread = ChipSpread(stability=0.1, temperature=5.0, tmr=0.1, sense_noise=0.1)
        neuron = SpinNeuron(spread=spread, seed=3, train=())
        model = keras.Sequential([keras.Input((4,)), neuron, Spy(), keras.layers.Dense(1)])
        model.compile("sgd", "mse", jit_compile=jit)
        x, y = np.zeros((6, 4), "float32"), np.zeros((6, 1), "float32")
        model.fit(x, y, batch_size=2, verbose=0, callbacks=[*callbacks, Look()], **fit)
        return np.array(seen), model

    held, model = run(chips.NewChipEachEpoch(), epochs=4)
    once = len(traces)
    held = held.reshape(4, 3, 4)
    np.testing.assert_array_equal(held, held[:, :1] + 0 * held)  # one chip within an epoch
    assert len(np.unique(held[:, 0, 0])) == 4  # and another in the next
    # Afterwards the same compiled step draws a new chip every step, as if nothing had been held.
    seen.clear()
    x, y = np.zeros((6, 4), "float32"), np.zeros((6, 1), "float32")
    model.fit(x, y, batch_size=2, verbose=0, epochs=2, callbacks=[Look()])
    if jit or BACKEND == "tensorflow":  # else the layers are called again in every step
        assert len(traces) == once < 6
    steps = np.array(seen)
    assert len(np.unique(steps[:, 0])) == 6
    if jit:
        return
    np.testing.assert_array_equal(run(epochs=2)[0], steps)
    resumed, _ = run(chips.NewChipEachEpoch(), initial_epoch=2, epochs=4)
    np.testing.assert_array_equal(resumed.reshape(2, 3, 4), held[2:])


def test_bits_go_on_while_a_chip_is_held():
    x = np.zeros((1, 200), "float32")
    for output in ("probability", "sampled"):
        layer = SpinNeuron(spread=SPREAD, output=output, seed=1)
        layer.build((None, 200))
        layer.hold_chip(7)
        first, second = (ops.convert_to_numpy(layer(x, training=True)) for _ in range(2))
        assert np.all(first == second) == (output == "probability")
    with pytest.raises(ValueError, match="from 0 to"):
        layer.hold_chip(-1)
    with pytest.raises(ValueError, match="has no spread"):
        SpinNeuron().hold_chip(1)
    plain = keras.Sequential([keras.Input((2,)), SpinNeuron()])
    plain.compile("sgd", "mse")
    with pytest.raises(ValueError, match="found no SpinNeuron with a spread"):
        plain.fit(np.ones((2, 2)), np.ones((2, 2)), callbacks=[chips.NewChipEachEpoch()], verbose=0)


# --- evaluation ----------------------------------------------------------------------------------


def test_chips_equal_a_chip_by_chip_computation(trained):
    """The batched evaluation against one chip at a time, in NumPy float64."""
    model, x, y = trained
    report = chips.evaluate_chips(model, x, y, SPREAD, chips=4, chips_at_once=3, progress=False)
    weights = [
        layer.get_weights() for layer in model.layers if isinstance(layer, keras.layers.Dense)
    ]
    neurons = spinkeras.spin_neurons(model)
    for chip in range(4):
        rng = np.random.default_rng([0, chip])
        temperature = SPREAD.draw_temperature(rng)
        a, picojoule = x.astype("float64"), 0.0
        for (kernel, bias), layer in zip(weights, neurons):
            factors = SPREAD.draw(layer.pulse_width.shape, rng, chip_temperature=temperature)
            drive = a @ kernel + bias
            current = layer.bias_current + layer.current_scale * drive
            anisotropy = layer.anisotropy * factors.stability
            p = spinkeras.switching_probability(
                current / factors.current, layer.pulse_width, layer.device, anisotropy
            )
            for k, (f_r, f_t) in enumerate(zip(factors.resistance, factors.tmr)):
                actual = layer.device.replace(
                    resistance_area_product=layer.device.resistance_area_product * f_r,
                    tmr=layer.device.tmr * f_t,
                )
                parts = spinkeras.energy.pulse_energies(
                    current[:, k], layer.pulse_width[k], layer.anisotropy[k], p[:, k], actual,
                    spinkeras.EnergyAssumptions(),
                )  # fmt: skip
                picojoule += 1e12 * sum(parts.values()).sum() / len(x)
            a = p
        logits = a @ weights[-1][0] + weights[-1][1]
        right = np.mean(logits.argmax(-1) == y)
        assert report.accuracy[chip] == pytest.approx(right, abs=2.5 / len(x))
        assert report.energy_pj[chip] == pytest.approx(picojoule, rel=1e-4)


def test_no_spread_is_the_nominal_network(trained):
    model, x, y = trained
    report = chips.evaluate_chips(model, x, y, ChipSpread(), chips=3, progress=False)
    np.testing.assert_allclose(report.accuracy, report.nominal)
    energy = spinkeras.energy_report(model, x, print_fn=None).total_pj
    np.testing.assert_allclose(report.energy_pj, energy, rtol=1e-5)
    assert report.nominal > 0.85


def mean_output(y_true, y_pred):
    return float(y_pred.mean())


@pytest.mark.parametrize(
    ("changes", "law"),
    [
        (VGSOT.get_config() | {"diameter": 100e-9}, {}),
        ({"diameter": 80e-9}, {"switching_model": NeelBrown(attempt_time=1e-11)}),
    ],
)
def test_no_spread_is_the_nominal_device_of_any_law(device, changes, law):
    """At a thermal stability outside the domain of the macrospin's closed form."""
    layer = SpinNeuron(device.replace(**changes), **law)
    assert layer.device.thermal_stability > 90
    model = keras.Sequential([keras.Input((1,)), layer])
    x, options = np.linspace(-2, 1, 7).reshape(-1, 1), {"metric": mean_output, "progress": False}
    report = chips.evaluate_chips(model, x, np.zeros(7), ChipSpread(), chips=1, **options)
    assert report.accuracy[0] == pytest.approx(report.nominal, rel=1e-5)
    assert 0.01 < report.nominal < 0.99


def test_single_pulses_are_drawn_and_cost_accuracy(trained):
    model, x, y = trained
    expected = chips.evaluate_chips(model, x, y, ChipSpread(), chips=4, progress=False)
    single = chips.evaluate_chips(model, x, y, ChipSpread(), chips=4, pulses=1, progress=False)
    many = chips.evaluate_chips(model, x, y, ChipSpread(), chips=4, pulses=200, progress=False)
    assert single.accuracy.mean() < expected.accuracy.mean()
    assert abs(many.accuracy.mean() - expected.accuracy.mean()) < 0.01
    assert many.energy_pj.mean() > 150 * single.energy_pj.mean()
    again = chips.evaluate_chips(model, x, y, ChipSpread(), chips=4, pulses=1, progress=False)
    np.testing.assert_array_equal(single.accuracy, again.accuracy)


def test_a_diverged_network_does_not_pass_for_bits(trained):
    model, x, y = trained
    seen = []

    def look(y_true, y_pred):
        seen.append(np.isnan(y_pred).all())
        return 0.0

    options = {"chips": 2, "metric": look, "progress": False}
    chips.evaluate_chips(model, np.full_like(x, np.nan), y, SPREAD, pulses=1, **options)
    assert all(seen)


def test_yield_and_text(trained):
    model, x, y = trained
    spread = ChipSpread(stability=0.3, stuck_low=0.1)
    report = chips.evaluate_chips(model, x, y, spread, chips=30, progress=False)
    target = float(np.median(report.accuracy))
    share, low, high = report.chip_yield(target)
    assert low < share < high
    assert share == np.mean(report.accuracy >= target)
    assert report.chip_yield(0.0)[0] == 1.0
    assert report.chip_yield(0.0)[1] == pytest.approx(0.025 ** (1 / 30))
    assert report.accuracy.max() < 1
    assert report.chip_yield(1.0)[2] == pytest.approx(1 - 0.025 ** (1 / 30))
    for target in (90, 1.1, -0.1, math.nan, "0.9", None):
        with pytest.raises(ValueError, match=r"target = .* a fraction.* 90 % is 0\.9"):
            report.chip_yield(target)
    with pytest.raises(ValueError, match="confidence = 95"):
        report.chip_yield(0.9, confidence=95)
    own = chips.evaluate_chips(
        model, x, y, spread, chips=4, metric=lambda t, p: 100 * chips.accuracy(t, p), progress=False
    )
    assert own.chip_yield(1.5)[0] == 1.0  # per cent, and none is below
    np.testing.assert_allclose(own.accuracy, 100 * report.accuracy[:4])
    assert "30 chips, expected values" in str(report)
    assert report.accuracy.mean() < report.nominal


def test_sensitivity_separates_layers_and_causes(trained):
    model, x, y = trained
    loss = chips.chip_sensitivity(model, x, y, ChipSpread(current=0.3), chips=6, progress=False)
    assert set(loss) == {
        (n, c) for n in ("first", "second") for c in ("all", "threshold", "slope", "faults")
    }
    assert max(loss.values()) > 0.02
    for name in ("first", "second"):  # the threshold dominates
        assert loss[name, "threshold"] > loss[name, "slope"]
        assert loss[name, "faults"] == pytest.approx(0, abs=2.5 / len(x))


def test_faults_are_a_cause_of_their_own_and_stay_in_their_layer(trained, tmp_path, monkeypatch):
    model, x, y = trained
    spread = ChipSpread(read_error=0.2, stuck_low=0.1)
    options = {"chips": 4, "progress": False, "results_file": tmp_path / "chips.jsonl"}
    loss = chips.chip_sensitivity(model, x, y, spread, **options)
    assert (tmp_path / "chips-second-faults.jsonl").exists()
    with monkeypatch.context() as patch:
        patch.setattr(chips, "_draw", None)  # a second call reads its files
        assert chips.chip_sensitivity(model, x, y, spread, **options) == loss
    for name in ("first", "second"):
        assert loss[name, "faults"] == loss[name, "all"] > 0.01
        assert loss[name, "threshold"] == pytest.approx(0, abs=2.5 / len(x))
    none = chips.evaluate_chips(model, x, y, spread, chips=2, layers=(), progress=False)
    np.testing.assert_allclose(none.accuracy, none.nominal, atol=2.5 / len(x))


def test_the_compiled_evaluation_gives_the_same(trained, monkeypatch):
    model, x, y = trained
    spread = dataclasses.replace(SPREAD, sense_noise=0.1)
    options = {"chips": 6, "chips_at_once": 3, "progress": False}
    plain = chips.evaluate_chips(model, x, y, spread, **options)
    monkeypatch.setattr(chips, "_COMPILE", 0)
    monkeypatch.setattr(chips, "_KEEP", 0)  # nothing is kept between groups either
    fused = chips.evaluate_chips(model, x, y, spread, **options)
    np.testing.assert_allclose(fused.accuracy, plain.accuracy, atol=1.5 / len(x))
    np.testing.assert_allclose(fused.energy_pj, plain.energy_pj, rtol=1e-5)


def test_networks_that_cannot_be_cut_give_the_same(trained):
    """A way around the first spin layer, and a model without a graph."""
    model, x, y = trained
    chain = model.layers
    after_first = chain[2:]

    source = keras.Input((6,))
    first = chain[1](chain[0](source))
    detour = keras.layers.Lambda(lambda v: 0 * v[:, :1])(source)
    signal = keras.layers.Add()([first, detour])
    for layer in after_first:
        signal = layer(signal)
    around = keras.Model(source, signal)

    class Plain(keras.Model):
        def __init__(self):
            super().__init__()
            self.parts = list(chain)

        def call(self, inputs, training=None):
            for part in self.parts:
                inputs = part(inputs)
            return inputs

    assert chips._cut(model)[0] is not None
    assert chips._cut(around)[0] is None
    plain = Plain()
    plain(x[:1])
    expected = chips.evaluate_chips(model, x, y, SPREAD, chips=2, pulses=1, progress=False)
    for other in (around, plain):
        report = chips.evaluate_chips(other, x, y, SPREAD, chips=2, pulses=1, progress=False)
        np.testing.assert_array_equal(report.accuracy, expected.accuracy)
        np.testing.assert_allclose(report.energy_pj, expected.energy_pj, rtol=1e-5)


@pytest.mark.backends
def test_masked_steps_cost_nothing_on_chips():
    model = keras.Sequential(
        [
            keras.Input((5,), dtype="int32"),
            keras.layers.Embedding(7, 3, mask_zero=True),
            SpinNeuron(shared_axes=(1,)),
            keras.layers.GlobalAveragePooling1D(),
            keras.layers.Dense(2),
        ]
    )
    x = np.array([[1, 2, 3, 0, 0], [4, 0, 0, 0, 0]])
    report = chips.evaluate_chips(model, x, [0, 1], ChipSpread(), chips=2, progress=False)
    expected = spinkeras.energy_report(model, x, print_fn=None).total_pj
    np.testing.assert_allclose(report.energy_pj, expected, rtol=1e-5)


def test_nominal_is_the_expected_value_whatever_the_layer_draws(trained):
    model, x, y = trained
    clone = keras.models.clone_model(
        model,
        clone_function=lambda layer: layer.__class__.from_config(
            layer.get_config()
            | ({"output": "always_sampled"} if isinstance(layer, SpinNeuron) else {})
        ),
    )
    clone.set_weights(model.get_weights())
    first, second = (
        chips.evaluate_chips(m, x, y, SPREAD, chips=1, progress=False) for m in (model, clone)
    )
    assert first.nominal == second.nominal
    np.testing.assert_array_equal(first.accuracy, second.accuracy)


def test_resume_repeats_nothing_and_gives_the_same(trained, tmp_path, monkeypatch):
    model, x, y = trained
    path = tmp_path / "chips.jsonl"
    options = {"pulses": 1, "chips_at_once": 2, "progress": False}
    whole = chips.evaluate_chips(model, x, y, SPREAD, chips=6, **options)
    chips.evaluate_chips(model, x, y, SPREAD, chips=4, results_file=path, **options)
    path.write_text(path.read_text() + '{"label": "cut off in mid')
    calls = []
    draw = chips._draw
    monkeypatch.setattr(chips, "_draw", lambda *a: calls.append(a[-1]) or draw(*a))
    resumed = chips.evaluate_chips(model, x, y, SPREAD, chips=6, results_file=path, **options)
    assert [list(group) for group in calls] == [[4, 5]]
    np.testing.assert_array_equal(resumed.accuracy, whole.accuracy)
    assert all(json.loads(line) for line in path.read_text().splitlines())
    with pytest.raises(ValueError, match="belongs to another model, data or setting"):
        chips.evaluate_chips(model, x, y, ChipSpread(), chips=6, results_file=path, **options)
    path.write_text("nonsense\n" + path.read_text())
    with pytest.raises(ValueError, match="line 1: not a result"):
        chips.evaluate_chips(model, x, y, SPREAD, chips=6, results_file=path, **options)


def test_a_saved_model_goes_on_with_its_file_and_another_device_does_not(tmp_path):
    x, y = np.random.default_rng(0).normal(size=(2, 24, 3))
    model = keras.Sequential([keras.Input((3,)), SpinNeuron(), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    model.fit(x, y[:, :1], verbose=0, callbacks=[spinkeras.EnergyTracker()])
    model.save(tmp_path / "m.keras")
    options = {"results_file": tmp_path / "chips.jsonl", "progress": False}
    chips.evaluate_chips(model, x, y[:, :1] > 0, SPREAD, chips=2, **options)
    again = keras.saving.load_model(tmp_path / "m.keras")
    chips.evaluate_chips(again, x, y[:, :1] > 0, SPREAD, chips=2, **options)
    other = keras.Sequential(
        [keras.Input((3,)), SpinNeuron(current_scale=1e-6), keras.layers.Dense(1)]
    )
    other.set_weights(model.get_weights())
    with pytest.raises(ValueError, match="belongs to another model"):
        chips.evaluate_chips(other, x, y[:, :1] > 0, SPREAD, chips=2, **options)


def metric_of(text):
    names = {}
    exec(f"def metric(y_true, y_pred):\n    return {text}", names)
    return names["metric"]


def test_a_file_is_not_mistaken_for_that_of_another_metric_or_network(tmp_path):
    x, y = np.random.default_rng(0).normal(size=(2, 24, 3))
    options = {"results_file": tmp_path / "chips.jsonl", "progress": False}

    def evaluate(metric="float(np.mean(y_pred > 0.5))", activation="sigmoid"):
        model = keras.Sequential(
            [keras.Input((3,)), SpinNeuron(), keras.layers.Dense(1, activation=activation)]
        )
        model.layers[-1].set_weights([np.ones((3, 1)), -np.ones(1)])
        metric = metric_of(metric) if isinstance(metric, str) else metric
        metric.__globals__["np"] = np
        return chips.evaluate_chips(model, x, y, SPREAD, chips=1, metric=metric, **options)

    evaluate()
    evaluate()  # the same metric, defined anew
    for change in (
        {"metric": "float(np.mean(y_pred > 0.6))"},
        {"metric": "float(np.max(y_pred > 0.5))"},
        {"activation": "tanh"},
    ):
        with pytest.raises(ValueError, match="belongs to another model, data or setting"):
            evaluate(**change)
    model = keras.Sequential([keras.Input((3,)), SpinNeuron()])
    for metric in (lambda a, b: 0.0, functools.partial(mean_output, 0), np.array([1]).dot):
        with pytest.raises(ValueError, match=r"cannot be told from another one .* top level"):
            chips.evaluate_chips(model, x, y, SPREAD, chips=1, metric=metric, **options)


def test_layers_are_left_as_they_were(trained, monkeypatch):
    model, x, y = trained
    before = np.array(model(x))
    with monkeypatch.context() as patch:
        patch.setattr(SpinNeuron, "response", lambda *a, **k: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            chips.evaluate_chips(model, x, y, SPREAD, progress=False)
    np.testing.assert_array_equal(model(x), before)


def test_bad_calls(trained):
    model, x, y = trained
    for kwargs, message in (
        ({"layers": ["third"]}, "No spin layer is called"),
        ({"cause": "weather"}, "Unknown cause 'weather'"),
        ({"chips": 0}, "chips = 0 must be a whole number from 1"),
        ({"layers": "first"}, "layers is a list of any of"),
        ({"metric": lambda t, p: p}, "it must give one number per chip"),
    ):
        with pytest.raises(ValueError, match=message):
            chips.evaluate_chips(model, x, y, SPREAD, **kwargs)
    with pytest.raises(ValueError, match="one length > 0"):
        chips.evaluate_chips(model, x[:0], y[:0], SPREAD)
    plain = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    with pytest.raises(ValueError, match="found no SpinNeuron"):
        chips.evaluate_chips(plain, x, y, SPREAD)


@pytest.mark.backends
def test_convolutions_and_shared_knobs():
    """A channel's device serves every position."""
    model = keras.Sequential(
        [
            keras.Input((6, 6, 1)),
            keras.layers.Conv2D(3, 3),
            SpinNeuron(shared_axes=(1, 2)),
            keras.layers.GlobalAveragePooling2D(),
            keras.layers.Dense(2),
        ]
    )
    x = np.random.default_rng(0).normal(size=(20, 6, 6, 1)).astype("float32")
    report = chips.evaluate_chips(
        model, x, np.zeros(20, int), ChipSpread(), chips=2, progress=False
    )
    expected = spinkeras.energy_report(model, x, print_fn=None).total_pj
    np.testing.assert_allclose(report.energy_pj, expected, rtol=1e-5)


@pytest.mark.backends
@pytest.mark.parametrize("model", ["macrospin", "neel_brown"])
def test_a_read_may_reverse_a_device_that_has_not_switched(model):
    """As often as `read_disturb` says, at each neuron's setting and each device's own values."""
    from spinkeras.hardware.margins import read_disturb

    device = spinkeras.MTJDevice.preset("stt_reference")
    options = {"read_time": 2e-9, "read_voltage": 0.1}
    layer = SpinNeuron(device, spread=ChipSpread(**options), switching_model=model)
    model = keras.Sequential([keras.Input((3,)), layer])
    layer.gate_voltage = [-1.0, 0.0, 1.0]
    never = np.full((4, 3), -200.0, "float32")
    stability = layer.anisotropy * device.volume / device.thermal_energy
    expected = read_disturb(device, stability)
    assert expected[2] > 1e-3  # the gate has its price
    found = ops.convert_to_numpy(layer(never, training=True))
    np.testing.assert_allclose(found, expected[None] + 0 * found, rtol=1e-3)
    half = np.zeros((4, 3), "float32")
    plain = ops.convert_to_numpy(layer(half))  # nominal devices are not read
    np.testing.assert_allclose(plain, 0.5, atol=1e-6)
    found = ops.convert_to_numpy(layer(half, training=True))
    np.testing.assert_allclose(found, 0.5 + 0.5 * expected[None] + 0 * found, rtol=1e-5)
    # On chips, devices of another area are disturbed as devices of that area.
    wide = device.replace(resistance_area_product=0.8 * device.resistance_area_product)
    spread = ChipSpread.from_devices([wide], device, **options)
    report = chips.evaluate_chips(
        model, never, never, spread, chips=1, metric=second_power, progress=False
    )
    assert report.accuracy[0] == pytest.approx(
        np.mean(read_disturb(wide, stability) ** 2), rel=0.01
    )
    free = chips.evaluate_chips(
        model, never, never, ChipSpread(), chips=1, metric=second_power, progress=False
    )
    assert free.accuracy[0] < 1e-9


def second_power(y_true, y_pred):
    return float(np.mean(y_pred**2))
