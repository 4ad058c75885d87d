"""DeviceRange: the box, composition and serialisation; knobs on the grid of a Driver."""

import keras
import numpy as np
import pytest
from keras import ops

import spinkeras
from spinkeras import DeviceRange, Driver, SpinNeuron
from tests.harness import gradients

pytestmark = pytest.mark.backends


@pytest.mark.parametrize("knob", ["pulse_width", "anisotropy"])
@pytest.mark.parametrize("scale", [1.0, 3.0, 10.0])
def test_box_is_that_of_the_device(device, knob, scale):
    box = DeviceRange(device, knob, scale)
    nominal = device.nominal_pulse_width if knob == "pulse_width" else device.anisotropy
    limits = device.pulse_width_range if knob == "pulse_width" else device.anisotropy_range
    projected = ops.convert_to_numpy(box(np.array([-1e3, 0.0, 1e3], "float32")))
    np.testing.assert_allclose(
        nominal * np.exp(scale * projected.astype("float64")),
        [limits[0], max(nominal, limits[0]), limits[1]],
        rtol=1e-6,
    )
    inside = np.linspace(*box.bounds, 7)
    np.testing.assert_allclose(box.to_weight(box.to_value(inside)), inside, atol=1e-12)
    again = ops.convert_to_numpy(box(projected))
    np.testing.assert_array_equal(again, projected)


def test_nan_is_not_hidden(device):
    assert np.isnan(ops.convert_to_numpy(DeviceRange(device, "pulse_width")(np.array([np.nan]))))


def test_another_constraint_comes_first(device):
    box = DeviceRange(device, "pulse_width", first="non_neg")
    np.testing.assert_allclose(
        ops.convert_to_numpy(box(np.array([-0.5, 0.5], "float32"))), [0, 0.5]
    )
    again = keras.constraints.deserialize(keras.constraints.serialize(box))
    assert isinstance(again.first, keras.constraints.NonNeg)


def test_round_trip(device):
    box = DeviceRange(device.replace(damping=0.02), "anisotropy", 2.5)
    again = keras.constraints.get(keras.constraints.serialize(box))
    assert again.device == box.device
    assert (again.knob, again.scale, again.bounds) == (box.knob, box.scale, box.bounds)


def test_bad_input(device):
    with pytest.raises(ValueError, match="Unknown knob 'temperature'"):
        DeviceRange(device, "temperature")
    with pytest.raises(ValueError, match="scale = 0"):
        DeviceRange(device, "pulse_width", 0)


# --- knobs on the grid of a driver ---------------------------------------------------------------


def test_pulse_widths_are_multiples_of_the_generator_step():
    step = 0.3e-9
    layer = SpinNeuron(driver=Driver(pulse_step=step))
    layer.build((None, 50))
    layer.pulse_width = np.geomspace(2e-9, 20e-9, 50)
    count = layer.pulse_width / step
    np.testing.assert_allclose(count, np.rint(count), atol=1e-9)
    assert layer.pulse_width.min() >= 2e-9
    assert layer.pulse_width.max() <= 20e-9
    assert np.max(np.abs(layer.pulse_width - np.geomspace(2e-9, 20e-9, 50))) <= step


def test_gate_voltages_are_levels_of_the_converter():
    layer = SpinNeuron(driver=Driver(gate_levels=5))
    layer.build((None, 41))
    layer.gate_voltage = np.linspace(-1, 1, 41)
    np.testing.assert_allclose(np.unique(layer.gate_voltage.round(9)), [-1, -0.5, 0, 0.5, 1])


@pytest.mark.parametrize(
    "driver",
    [Driver(gate_levels=n) for n in (2, 4, 8, 64, 4096)]
    + [Driver(pulse_step=0.8e-9), Driver(pulse_step=0.7e-9, gate_levels=8)],
)
def test_the_untrained_setting_is_the_one_that_is_driven(driver):
    """With an even number of levels it is a tie, which rounding errors must not decide."""
    layer = SpinNeuron(train="pulse_width", recenter=False, driver=driver)
    layer.build((None, 1))
    zero = np.zeros((1, 1), "float32")
    network = ops.convert_to_numpy(layer(zero))
    told = spinkeras.switching_probability(
        layer.bias_current, layer.pulse_width, layer.device, layer.anisotropy
    )
    np.testing.assert_allclose(network[0], told, atol=1e-6)
    np.testing.assert_allclose(told, 0.5, atol=1e-6)
    np.testing.assert_allclose(layer.slope, 0.25, rtol=1e-6)


def test_the_forward_pass_uses_the_grid_and_the_gradient_passes_through():
    smooth, coarse = SpinNeuron(), SpinNeuron(driver=Driver(pulse_step=1e-9, gate_levels=3))
    x = np.linspace(-3, 3, 5, dtype="float32")[:, None]
    for layer in (smooth, coarse):
        layer.build((None, 1))
    coarse.pulse_width = 5.4e-9
    coarse.gate_voltage = 0.7
    smooth.pulse_width = 5e-9
    smooth.gate_voltage = 1.0
    assert coarse.pulse_width[0] == pytest.approx(5e-9)
    assert coarse.gate_voltage[0] == pytest.approx(1.0)
    np.testing.assert_allclose(
        ops.convert_to_numpy(coarse(x)), ops.convert_to_numpy(smooth(x)), atol=2e-6
    )

    def knob_gradient(layer):
        start = [ops.convert_to_tensor(v) for v in (layer.log_pulse_width, layer.log_anisotropy)]

        def total(w, k):
            variables = [(layer.log_pulse_width, w), (layer.log_anisotropy, k)]
            with keras.StatelessScope(variables):
                return ops.sum(layer(x) ** 2)

        return gradients(total, *start)

    for a, b in zip(knob_gradient(coarse), knob_gradient(smooth)):
        np.testing.assert_allclose(a, b, rtol=1e-3)


def test_training_through_a_grid_moves_in_steps_and_saves_what_lies_between(tmp_path):
    model = keras.Sequential(
        [keras.Input((3,)), SpinNeuron(driver=Driver(pulse_step=1e-9)), keras.layers.Dense(1)]
    )
    layer = model.layers[0]
    layer.pulse_width = [3.4e-9, 7.2e-9, 11.3e-9]
    model.save_weights(tmp_path / "w.weights.h5")
    latent = ops.convert_to_numpy(layer.log_pulse_width)
    model.load_weights(tmp_path / "w.weights.h5")
    np.testing.assert_array_equal(ops.convert_to_numpy(layer.log_pulse_width), latent)
    model.compile(keras.optimizers.SGD(0.5), "mse")
    rng = np.random.default_rng(0)
    model.fit(rng.normal(size=(64, 3)), rng.normal(size=(64, 1)), epochs=3, verbose=0)
    assert np.any(ops.convert_to_numpy(layer.log_pulse_width) != latent)
    np.testing.assert_allclose(layer.pulse_width * 1e9, np.rint(layer.pulse_width * 1e9))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"pulse_step": -1e-9}, "pulse_step = -1e-09 s is outside"),
        ({"pulse_step": 1.0}, "has no multiple inside"),
        ({"pulse_step": 20.0}, "has no multiple inside"),  # the e-12 forgotten
        ({"gate_levels": 1}, "gate_levels = 1 must be a whole number from 2"),
    ],
)
def test_bad_drivers(settings, message):
    with pytest.raises(ValueError, match=message):
        SpinNeuron(driver=Driver(**settings))
