"""Simulated chips: the factors, their physics, the evaluation and its bookkeeping."""

import json

import keras
import numpy as np
import pytest
from keras import ops
from scipy import stats

import spinkeras
from spinkeras import SpinNeuron, chips
from spinkeras.variability import FACTORS, ChipLayer, ChipSpread, chip_curve
from tests.test_hardware import ALARM, inside_binomial

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
        stability=0.1, current=0.05, resistance=0.2, stuck_low=0.02, stuck_high=0.01
    )
    rng = np.random.default_rng(0)
    chip = spread.draw((200_000,), rng)
    for factor, sigma in ((chip.stability, 0.1), (chip.current, 0.05), (chip.resistance, 0.2)):
        assert stats.kstest(np.log(factor) / sigma, "norm").pvalue > ALARM
    for column, p in ((chip.stuck_low, 0.02), (chip.stuck_high, 0.01)):
        assert inside_binomial(column.sum(), 200_000, p, 2)
    assert not np.any(chip.stuck_low * chip.stuck_high)
    np.testing.assert_array_equal(chip.diffusion_time, 1)
    tensors = spread.draw_tensors((200_000,), 300.0, keras.random.SeedGenerator(1), "float32")
    assert (
        stats.kstest(np.log(ops.convert_to_numpy(tensors.stability)) / 0.1, "norm").pvalue > ALARM
    )


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


# --- the physics ---------------------------------------------------------------------------------


def unit_chip(**changes):
    factors = {name: np.ones(1) for name in FACTORS}
    factors |= {"stuck_low": np.zeros(1), "stuck_high": np.zeros(1)}
    return ChipLayer(**(factors | changes))


def test_a_chip_is_another_device_driven_with_the_nominal_settings(device):
    """Factors against `switching_probability` of the device that they describe."""
    from spinkeras import switching

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
            np, switching.macrospin_curve, log_duration, stability, drive, chip, ChipSpread()
        )
        expected = spinkeras.switching_probability(current, width, actual)
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_errors_and_faults(device):
    from spinkeras import switching

    log_duration = np.full(1, np.log(4e-9 / device.diffusion_time))
    stability = np.full(1, device.thermal_stability)
    drive = np.linspace(20, 120, 9)

    def curve(chip=None, **spread):
        return chip_curve(
            np,
            switching.macrospin_curve,
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
        base = switching.macrospin_curve(np, log_duration + 0.02 * node, stability)
        mean = mean + weight * base.probability(drive - base.midpoint)
    np.testing.assert_allclose(curve(pulse_jitter=0.02), mean, atol=1e-5)


def test_threshold_and_slope_are_told_apart(device):
    from spinkeras import switching

    log_duration = np.full(1, np.log(4e-9 / device.diffusion_time))
    stability = np.full(1, device.thermal_stability)
    nominal = switching.macrospin_curve(np, log_duration, stability)
    chip = unit_chip(current=np.full(1, 1.1))
    drive = nominal.midpoint + np.array([-1e-4, 0.0, 1e-4])

    def p(cause):
        return chip_curve(
            np, switching.macrospin_curve, log_duration, stability, drive, chip, ChipSpread(), cause
        )

    slope = np.diff(p("slope")).sum() / 2e-4
    assert p("slope")[1] == pytest.approx(0.5)
    assert slope == pytest.approx(float(nominal.slope[0]) / 1.1, rel=1e-4)
    shifted = nominal.probability(drive - 1.1 * nominal.midpoint)
    np.testing.assert_allclose(p("threshold"), shifted)
    assert p("all")[1] == pytest.approx(float(p("threshold")[1]), abs=0.05)


# --- training with spread ------------------------------------------------------------------------


def test_training_sees_a_new_chip_every_step_and_inference_none():
    layer = SpinNeuron(spread=SPREAD, seed=1)
    x = np.zeros((2, 300), "float32")
    first, second = (ops.convert_to_numpy(layer(x, training=True)) for _ in range(2))
    np.testing.assert_array_equal(first[0], first[1])  # one device, two samples
    assert np.std(first[0]) > 0.1
    assert not np.allclose(first, second)
    np.testing.assert_allclose(ops.convert_to_numpy(layer(x)), 0.5, atol=1e-6)
    again = SpinNeuron.from_config(layer.get_config())
    assert again.spread == SPREAD


@pytest.mark.parametrize("jit", [False, True])
def test_a_model_with_spread_trains_and_reloads(tmp_path, jit):
    model = keras.Sequential([keras.Input((3,)), SpinNeuron(spread=SPREAD), keras.layers.Dense(1)])
    model.compile("adam", "mse", jit_compile=jit)
    x, y = np.random.default_rng(0).normal(size=(2, 32, 3))
    model.fit(x, y[:, :1], verbose=0, callbacks=[spinkeras.EnergyTracker()])
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(again.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6)


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
    assert report.chip_yield(1.1)[2] == pytest.approx(1 - 0.025 ** (1 / 30))
    assert "30 chips, expected values" in str(report)
    assert report.accuracy.mean() < report.nominal


def test_sensitivity_separates_layers_and_causes(trained):
    model, x, y = trained
    loss = chips.chip_sensitivity(model, x, y, ChipSpread(current=0.3), chips=6, progress=False)
    assert set(loss) == {(n, c) for n in ("first", "second") for c in ("all", "threshold", "slope")}
    assert max(loss.values()) > 0.02
    for name in ("first", "second"):  # the threshold dominates
        assert loss[name, "threshold"] > loss[name, "slope"]


def test_resume_repeats_nothing_and_gives_the_same(trained, tmp_path, monkeypatch):
    model, x, y = trained
    path = tmp_path / "chips.jsonl"
    options = {"pulses": 1, "chips_at_once": 2, "progress": False}
    whole = chips.evaluate_chips(model, x, y, SPREAD, chips=6, **options)
    chips.evaluate_chips(model, x, y, SPREAD, chips=4, results_file=path, **options)
    path.write_text(path.read_text() + '{"label": "cut off in mid')
    calls = []
    measure = chips._measure
    monkeypatch.setattr(chips, "_measure", lambda *a: calls.append(a[9]) or measure(*a))
    resumed = chips.evaluate_chips(model, x, y, SPREAD, chips=6, results_file=path, **options)
    assert [list(group) for group in calls] == [[4, 5]]
    np.testing.assert_array_equal(resumed.accuracy, whole.accuracy)
    assert all(json.loads(line) for line in path.read_text().splitlines())
    with pytest.raises(ValueError, match="belongs to another model, data or setting"):
        chips.evaluate_chips(model, x, y, ChipSpread(), chips=6, results_file=path, **options)
    path.write_text("nonsense\n" + path.read_text())
    with pytest.raises(ValueError, match="line 1: not a result"):
        chips.evaluate_chips(model, x, y, SPREAD, chips=6, results_file=path, **options)


def test_layers_are_left_as_they_were(trained):
    model, x, y = trained
    with pytest.raises(ZeroDivisionError):
        chips.evaluate_chips(model, x, y, SPREAD, metric=lambda *_: 1 / 0, progress=False)
    assert all(layer.chip is None for layer in spinkeras.spin_neurons(model))


def test_bad_calls(trained):
    model, x, y = trained
    for kwargs, message in (
        ({"layers": ["third"]}, "No spin layer is called"),
        ({"cause": "weather"}, "Unknown cause 'weather'"),
        ({"chips": 0}, "must be at least 1"),
    ):
        with pytest.raises(ValueError, match=message):
            chips.evaluate_chips(model, x, y, SPREAD, **kwargs)
    with pytest.raises(ValueError, match="one length > 0"):
        chips.evaluate_chips(model, x[:0], y[:0], SPREAD)
    plain = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    with pytest.raises(ValueError, match="found no SpinNeuron"):
        chips.evaluate_chips(plain, x, y, SPREAD)


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
