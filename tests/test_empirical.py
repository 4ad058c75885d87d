"""A measured curve as the activation of a SpinNeuron."""

import keras
import numpy as np
import pytest

import spinkeras
from spinkeras.empirical import EmpiricalCurve

DEVICE = spinkeras.MTJDevice.preset("stt_reference")
CURVE = EmpiricalCurve(
    threshold=75e-6,
    slope=3e4,
    ceiling=0.9,
    pulse_width=2e-9,
    threshold_exponent=-0.5,
    slope_exponent=0.6,
)


def test_layer_follows_the_curve():
    layer = spinkeras.SpinNeuron(DEVICE, switching_model=CURVE)
    x = np.linspace(-6, 6, 25).reshape(-1, 1).astype("float32")
    current = 75e-6 + layer.current_scale * x
    expected = CURVE.switching_probability(current, DEVICE.nominal_pulse_width)
    np.testing.assert_allclose(layer(x), expected, atol=2e-6)
    assert layer.slope == pytest.approx(0.25)
    assert layer.bias_current * 1e6 == pytest.approx(75.0)
    layer.pulse_width = 8e-9
    assert layer.bias_current * 1e6 == pytest.approx(37.5, rel=1e-5)
    assert layer.slope == pytest.approx(0.25 * 4**0.6, rel=1e-5)


def test_layer_trains_and_reloads(tmp_path):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((2,)),
            keras.layers.Dense(4),
            spinkeras.SpinNeuron(DEVICE, switching_model=CURVE),
            keras.layers.Dense(1),
        ]
    )
    model.compile(keras.optimizers.Adam(0.02), "mse")
    x = np.random.default_rng(0).normal(size=(256, 2)).astype("float32")
    y = np.tanh(2 * x[:, :1])
    before = model.evaluate(x, y, verbose=0)
    model.fit(x, y, epochs=10, verbose=0)
    assert model.evaluate(x, y, verbose=0) < before
    assert np.ptp(model.layers[1].pulse_width) > 0
    model.save(tmp_path / "model.keras")
    again = keras.saving.load_model(tmp_path / "model.keras")
    assert again.layers[1].switching_model == CURVE
    np.testing.assert_allclose(again(x), model(x), rtol=1e-5, atol=1e-6)


def test_functions_accept_a_curve():
    current = np.array([60e-6, 75e-6, 200e-6])
    actual = spinkeras.switching_probability(current, 2e-9, DEVICE, switching_model=CURVE)
    np.testing.assert_allclose(actual, CURVE.switching_probability(current, 2e-9))
    assert spinkeras.midpoint_current(2e-9, DEVICE, switching_model=CURVE) == pytest.approx(75e-6)
    slope = spinkeras.slope_at_midpoint(2e-9, DEVICE, switching_model=CURVE)
    assert slope == pytest.approx(0.9 * 3e4)
    with pytest.raises(ValueError, match="belong to switching_model='neel_brown'"):
        spinkeras.switching_probability(
            current, 2e-9, DEVICE, switching_model=CURVE, barrier_exponent=1.0
        )
