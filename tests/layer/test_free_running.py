"""A free-running junction as a neuron: knobs, curve, gradient, correlated reads, files."""

import itertools

import keras
import numpy as np
import pytest
from keras import ops

import spinkeras
from spinkeras import EmpiricalCurve, EquilibriumCurve, MTJDevice, SpinNeuron
from spinkeras.physics import equilibrium
from tests.layer.harness import law_of

LOW = MTJDevice.preset("smtj_reference")


CURVE = EquilibriumCurve(
    threshold=-0.7e-6,
    slope=1.2e6,
    a=-0.2,
    c=-0.3,
    floor=0.02,
    ceiling=0.95,
    relaxation_time=0.8e-6,
    anisotropy_exponent=0.5,
    slope_anisotropy_exponent=0.4,
    ceiling_anisotropy_rate=0.5,
    relaxation_anisotropy_exponent=5.0,
)
MEASURED = LOW.replace(switching_curve=CURVE)
BOTH = pytest.mark.parametrize("device", [LOW, MEASURED], ids=["law", "curve"])


def neuron(device=LOW, **options):
    return SpinNeuron(device, switching_model=law_of(device), **options)


def reading_every(seconds, device=LOW):
    return device.replace(pulse_width_range=(seconds, seconds), nominal_pulse_width=seconds)


def memory(current, device, anisotropy=None):
    """Correlation time in s, the measured one from two states with activated rates."""
    if device.switching_curve is None:
        return equilibrium.correlation_time(current, device, anisotropy)
    ratio = (anisotropy or device.anisotropy) / device.anisotropy
    plain = CURVE.replace(floor=0.0, ceiling=1.0)
    share = plain.switching_probability(current, anisotropy_ratio=ratio)
    logit = np.log(share / (1 - share))
    return CURVE.relaxation_time * ratio**5 / np.cosh(logit / 2)


@pytest.mark.backends
@pytest.mark.parametrize("device", [LOW, LOW.replace(offset_field=-1.5e-3), MEASURED])
@pytest.mark.parametrize("recenter", [True, False])
def test_it_answers_with_the_occupancy_and_trains_its_slope(device, recenter):
    layer, law = neuron(device, recenter=recenter), law_of(device)
    assert layer.trained_knobs == ("anisotropy",)
    x = np.linspace(-6, 6, 25, dtype="float32")[:, None] * np.ones(2, "float32")
    layer.build(x.shape)
    np.testing.assert_allclose(layer.slope, 0.25)
    layer.anisotropy = LOW.anisotropy * np.array([0.6, 1.4])
    anisotropy = layer.anisotropy if recenter else None
    bias = spinkeras.midpoint_current(1e-6, device, anisotropy, law)
    np.testing.assert_allclose(layer.bias_current, bias)
    expected = spinkeras.switching_probability(
        bias + x.astype("float64") * layer.current_scale,
        1e-6,
        device,
        layer.anisotropy,
        law,
    )
    np.testing.assert_allclose(ops.convert_to_numpy(layer(x)), expected, atol=2e-6)
    slope = spinkeras.slope_at_midpoint(1e-6, device, layer.anisotropy, law)
    np.testing.assert_allclose(layer.slope, slope * layer.current_scale)


@pytest.mark.backends
def test_a_fit_moves_the_anisotropy_towards_the_slope_that_is_asked_for():
    keras.utils.set_random_seed(0)
    layer = neuron()
    model = keras.Sequential([keras.Input((1,)), layer])
    model.compile(keras.optimizers.Adam(0.05), "mse", run_eagerly=True)
    x = np.linspace(-4, 4, 64, dtype="float32")[:, None]
    model.fit(x, 1 / (1 + np.exp(-0.85 * x)), epochs=5, batch_size=64, verbose=0)
    low, _ = LOW.anisotropy_range
    assert low <= layer.anisotropy[0] < LOW.anisotropy  # a softer barrier, a smaller slope
    assert layer.pulse_width[0] == LOW.nominal_pulse_width


@pytest.mark.parametrize("train", [("pulse_width",), ["anisotropy", "pulse_width"], "pulse_width"])
@BOTH
def test_the_interval_between_reads_cannot_be_trained(train, device):
    with pytest.raises(ValueError, match=r"interval between reads.*cannot be trained"):
        neuron(device, train=train)


@pytest.mark.parametrize("train", [(), False, "anisotropy"])
def test_other_choices_of_knobs_stand(train):
    expected = ("anisotropy",) if train else ()
    layer = neuron(train=train)
    assert layer.trained_knobs == expected
    assert SpinNeuron.from_config(layer.get_config()).trained_knobs == expected


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("stt_reference", "thermal stability .* outside .0.1, 20.*macrospin"),
        (LOW.replace(gate_voltage_range=(-2.0, 0.3)), "outside .0.1, 20"),
        (LOW.replace(write_resistance=900.0), "two-terminal"),
    ],
)
def test_devices_without_free_running_are_refused(device, message):
    with pytest.raises(ValueError, match=message):
        neuron(device)


def chain_variance(probability, correlation, reads):
    """Of the mean of reads of a two-state process, written as a double sum."""
    lags = [abs(a - b) for a, b in itertools.product(range(reads), repeat=2)]
    return probability * (1 - probability) * np.mean(correlation ** np.array(lags))


@pytest.mark.backends
@pytest.mark.parametrize("reads", [2, 8])
@pytest.mark.parametrize("shift", [0.0, 0.8])
@BOTH
@pytest.mark.parametrize("recenter", [True, False])
def test_the_mean_of_correlated_reads_varies_as_that_of_the_process(reads, shift, device, recenter):
    device, gate = reading_every(0.2e-6, device), 0.9 if recenter else 1.1
    layer = neuron(
        device, train=(), pulses=reads, output="always_sampled", seed=5, recenter=recenter
    )
    x = np.full((40_000, 1), shift, "float32")
    layer.build(x.shape)
    layer.anisotropy = [gate * device.anisotropy]
    drawn = ops.convert_to_numpy(layer(x))
    current = shift * layer.current_scale + layer.bias_current[0]
    setting = 1e-6, device, layer.anisotropy[0], law_of(device)
    p = float(spinkeras.switching_probability(current, *setting))
    time = float(memory(current, device, layer.anisotropy[0]))
    expected = chain_variance(p, np.exp(-device.nominal_pulse_width / time), reads)
    assert drawn.mean() == pytest.approx(p, abs=5 * np.sqrt(expected / len(x)))
    assert drawn.var() == pytest.approx(expected, rel=0.04)
    assert expected > 1.4 * p * (1 - p) / reads  # what independent reads would give


def test_the_chain_of_the_design_notes():
    assert chain_variance(0.7, 0.6, 8) == pytest.approx(0.08080, abs=1e-5)
    drawn = SpinNeuron.draw(
        ops.full((200_000,), 0.7), 8, keras.random.SeedGenerator(3), ops.full((200_000,), 0.6)
    )
    assert ops.convert_to_numpy(drawn).var() == pytest.approx(0.08080, rel=0.02)


@BOTH
def test_reads_far_apart_are_drawn_as_independent_ones(device):
    balance = spinkeras.midpoint_current(1e-6, device, device.anisotropy_range[1], law_of(device))
    longest = float(memory(balance, device, device.anisotropy_range[1]))
    for seconds, remembered in ((5 * longest, False), (4 * longest, True)):
        layer = neuron(reading_every(seconds, device), pulses=4)
        assert layer.remembers(4) is remembered
        assert not layer.remembers(1)
    assert not SpinNeuron(pulses=4).remembers(4)
    far = neuron(reading_every(5 * longest, device), pulses=10_000, output="always_sampled", seed=0)
    assert ops.convert_to_numpy(far(np.zeros((50, 1), "float32"))).std() < 0.01


@pytest.mark.backends
@BOTH
def test_the_gradient_of_a_chain_is_that_of_the_probability(device):
    x = np.linspace(-2, 2, 9, dtype="float32")[:, None]
    gradients = []
    for output in ("always_sampled", "probability"):
        layer = neuron(reading_every(1e-6, device), pulses=3, output=output, seed=1, train=())
        model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False), layer])
        model.layers[0].set_weights([np.ones((1, 1))])
        model.compile(keras.optimizers.SGD(1.0), lambda y, p: ops.sum(p), run_eagerly=True)
        model.train_on_batch(x, x)
        gradients.append(1 - model.layers[0].get_weights()[0][0, 0])
    assert gradients[0] == pytest.approx(gradients[1], rel=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pulses": 65}, "one by one beyond 64.*begins at .* s"),
        ({"pulses": 2, "spread": spinkeras.ChipSpread(stability=0.05)}, "with a spread"),
    ],
)
@BOTH
def test_draws_that_would_be_wrong_are_refused(options, message, device):
    with pytest.raises(ValueError, match=message):
        neuron(device, output="sampled", **options)
    neuron(device, **options)  # expected values need no draw


def test_a_device_that_runs_freely_is_not_written_by_pulses():
    with pytest.raises(ValueError, match=r"'smtj_reference' runs freely by its own.*Leave switch"):
        SpinNeuron(MEASURED, switching_model="equilibrium")
    with pytest.raises(ValueError, match=r"runs freely by its own switching_curve"):
        equilibrium.correlation_time(0.0, MEASURED)
    assert "none, relaxation 800 ns" in MEASURED._repr_html_()
    for law in ("macrospin", "neel_brown", EmpiricalCurve.preset("sot_80nm")):
        with pytest.raises(ValueError, match=r"law of pulses.*runs freely.*leave switching_model"):
            SpinNeuron(MEASURED, switching_model=law)
    assert SpinNeuron(MEASURED).free_running
    assert SpinNeuron("stt_reference", switching_model=CURVE).free_running  # of any device
    assert not SpinNeuron("vgsot_zhang2020").free_running


@pytest.mark.backends
@pytest.mark.parametrize(
    "device", [LOW.replace(offset_field=1e-3, relaxation_time=2e-8), MEASURED], ids=["law", "curve"]
)
def test_it_comes_back_from_a_file(tmp_path, device):
    layer = neuron(device, bipolar=True, pulses=5, output="sampled")
    model = keras.Sequential([keras.Input((3,)), layer])
    layer.gate_voltage = np.array([-0.2, 0.0, 0.3])
    model.save(tmp_path / "spin.keras")
    again = keras.models.load_model(tmp_path / "spin.keras")
    assert again.layers[-1].device == device
    assert again.layers[-1].free_running
    assert again.layers[-1].switching_model == layer.switching_model
    x = np.linspace(-3, 3, 12, dtype="float32").reshape(4, 3)
    np.testing.assert_array_equal(*(ops.convert_to_numpy(m(x)) for m in (model, again)))


@pytest.mark.backends
@pytest.mark.parametrize(
    "device", [LOW, LOW.replace(switching_curve=CURVE.replace(floor=0.0, ceiling=1.0))]
)
def test_inputs_without_end_saturate(device):
    layer = neuron(device, output="always_sampled", pulses=2, seed=0)
    found = ops.convert_to_numpy(layer(np.array([[-np.inf], [np.inf], [-1e30]], "float32")))
    assert found[:, 0].tolist() == [0.0, 1.0, 0.0]
