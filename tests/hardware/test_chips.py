"""The evaluation of networks on simulated chips."""

import dataclasses
import math

import keras
import numpy as np
import pytest
from keras import ops

import spinkeras
from spinkeras import NeelBrown, SpinNeuron
from spinkeras.hardware import chips
from spinkeras.physics.spread import ChipSpread
from tests.hardware.harness import head, judged, mean_output

VGSOT = spinkeras.MTJDevice.preset("vgsot_zhang2020")
SPREAD = ChipSpread(stability=0.1, current=0.05, resistance=0.07, tmr=0.1)
CLASSES = np.random.default_rng(2).integers(0, 3, 40)


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
    assert "30 chips, expected values: accuracy" in str(report)
    assert f"metric {own.accuracy.mean():.4g} (sd" in str(own)
    assert "%" not in str(own)
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


@pytest.mark.slow
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

    # Whether a network is cut shows in the time only, so a private function is asked.
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


def test_layers_are_left_as_they_were(trained, monkeypatch):
    model, x, y = trained
    before = np.array(model(x))
    with monkeypatch.context() as patch:
        patch.setattr(SpinNeuron, "response", lambda *a, **k: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            chips.evaluate_chips(model, x, y, SPREAD, progress=False)
    np.testing.assert_array_equal(model(x), before)


@pytest.mark.backends
def test_a_metric_of_keras_starts_anew_for_every_chip(trained):
    model, x, y = trained
    spread, options = ChipSpread(current=0.4), {"chips": 5, "progress": False}
    own = keras.metrics.SparseCategoricalAccuracy()
    own.update_state(y, np.zeros((len(y), 4)))  # what it counted before does not matter
    found = chips.evaluate_chips(model, x, y, spread, metric=own, **options)
    expected = chips.evaluate_chips(model, x, y, spread, **options)
    assert np.std(expected.accuracy) > 0
    np.testing.assert_allclose(found.accuracy, expected.accuracy, rtol=1e-6)
    assert found.nominal == pytest.approx(expected.nominal)


def test_layers_of_the_same_name_vary_one_at_a_time(tmp_path):
    """The second hardly matters, as its outputs are multiplied by little."""

    def part(name):
        return keras.Sequential([keras.layers.Dense(6), SpinNeuron(name="spin")], name=name)

    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((4,)), part("a"), part("b"), keras.layers.Dense(1)])
    x = np.random.default_rng(0).normal(size=(20, 4))
    path, drawn = tmp_path / "c.jsonl", []
    options = {"metric": mean_output, "progress": False}
    spread = ChipSpread(current=0.3)
    loss = chips.chip_sensitivity(model, x, x, spread, 2, results_file=path, **options)
    names = ("spin", "spin_2")
    assert set(loss) == {(n, c) for n in names for c in ("all", "threshold", "slope", "faults")}
    for name in names:
        assert (tmp_path / f"c-{name}-slope.jsonl").exists()
        one = chips.evaluate_chips(model, x, x, spread, 2, layers=[name], **options)
        drawn.append(one.accuracy)
        assert loss[name, "all"] == pytest.approx(np.mean(one.nominal - one.accuracy))
    both = chips.evaluate_chips(model, x, x, spread, 2, **options).accuracy
    assert len({tuple(values) for values in (*drawn, both)}) == 3


@pytest.mark.parametrize("form", [list, lambda outputs: {"a": outputs[0], "b": outputs[1]}])
def test_several_inputs_and_outputs_are_refused_and_one_may_be_named(form):
    source, other = keras.Input((4,)), keras.Input((4,))
    flow = SpinNeuron()(source)
    outputs = [keras.layers.Dense(3)(flow), keras.layers.Dense(3)(flow)]
    with pytest.raises(ValueError, match="one output; this one has 2"):
        judged(keras.Model(source, form(outputs)), CLASSES)
    judged(keras.Model(source, {"a": outputs[0]}), CLASSES)
    judged(keras.Model(source, [outputs[1]]), CLASSES)
    joined = keras.Model([source, other], SpinNeuron()(keras.layers.Add()([source, other])))
    x = np.zeros((40, 4))
    for model, message in ((joined, "one input; this one has 2"), (head(), "not a list of inputs")):
        with pytest.raises(ValueError, match=message):
            chips.evaluate_chips(model, [x, x], CLASSES, SPREAD)


def test_bad_calls(trained):
    model, x, y = trained
    for kwargs, message in (
        ({"layers": ["third"]}, "No spin layer is called"),
        ({"cause": "weather"}, "Unknown cause 'weather'"),
        ({"chips": 0}, "chips = 0 must be a whole number from 1"),
        ({"layers": "first"}, "layers must be a list of names from"),
        ({"layers": ["first", 2]}, "layers must be a list of names from"),
        ({"metric": lambda t, p: p}, "it must return one number per chip"),
        ({"metric": keras.metrics.Accuracy}, "as an object"),
    ):
        with pytest.raises(ValueError, match=message):
            chips.evaluate_chips(model, x, y, SPREAD, **kwargs)
    with pytest.raises(ValueError, match="same length > 0"):
        chips.evaluate_chips(model, x[:0], y[:0], SPREAD)
    plain = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    for function in (chips.evaluate_chips, chips.chip_sensitivity):
        with pytest.raises(ValueError, match="found no SpinNeuron"):
            function(plain, x, y, SPREAD)
    for option in ({"cause": "all"}, {"layers": ["first"]}):
        with pytest.raises(ValueError, match=f"leave out {next(iter(option))}"):
            chips.chip_sensitivity(model, x, y, SPREAD, **option)


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
