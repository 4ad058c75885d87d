"""Training with a spread: a new chip in every step, or one for a whole epoch."""

import keras
import numpy as np
import pytest
from keras import ops

import spinkeras
from spinkeras import NewChipEachEpoch, SpinNeuron
from spinkeras.physics.spread import ChipSpread
from tests.harness import BACKEND, COMPILED, FLOAT64

SPREAD = ChipSpread(stability=0.1, current=0.05, resistance=0.07, tmr=0.1)


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
@pytest.mark.parametrize(
    "jit", [False, pytest.param(True, marks=[*COMPILED.marks, pytest.mark.slow])]
)
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

    held, model = run(NewChipEachEpoch(), epochs=4)
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
    resumed, _ = run(NewChipEachEpoch(), initial_epoch=2, epochs=4)
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
    with pytest.raises(ValueError, match="has no chip to hold"):
        SpinNeuron().hold_chip(1)
    plain = keras.Sequential([keras.Input((2,)), SpinNeuron()])
    plain.compile("sgd", "mse")
    with pytest.raises(ValueError, match="found no SpinNeuron with a spread"):
        plain.fit(np.ones((2, 2)), np.ones((2, 2)), callbacks=[NewChipEachEpoch()], verbose=0)
