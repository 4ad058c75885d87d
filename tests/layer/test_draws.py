"""Drawn bits instead of probabilities."""

import keras
import numpy as np
import pytest
from keras import ops
from scipy import stats

import spinkeras
from spinkeras import SpinNeuron
from tests.harness import OTHER_BACKEND, gradients

pytestmark = pytest.mark.backends
ALARM = 1e-6  # false-alarm rate of a whole test


def inside_binomial(successes, trials, p, comparisons):
    """Exact two-sided test of every count, the rate shared out over the comparisons."""
    level = ALARM / comparisons / 2
    low = stats.binom.ppf(level, trials, p)
    high = stats.binom.isf(level, trials, p)
    return (successes >= low) & (successes <= high)


@pytest.mark.parametrize("pulses", [1, 3, 16, 17, 1000])
def test_draws_follow_the_exact_binomial_law(pulses):
    layer = SpinNeuron(output="always_sampled", pulses=pulses, seed=3)
    x = np.linspace(-4, 4, 9, dtype="float32")
    repeats = 4000
    p = ops.convert_to_numpy(SpinNeuron()(x[None]))[0].astype("float64")
    y = ops.convert_to_numpy(layer(np.tile(x, (repeats, 1)))).astype("float64")
    counts = np.rint(y * pulses)
    np.testing.assert_allclose(y * pulses, counts, atol=1e-4 * pulses)
    assert np.all(inside_binomial(counts.sum(0), repeats * pulses, p, 9))
    # Not only the mean: the frequency of every outcome of the middle neuron.
    outcomes = range(pulses + 1) if pulses <= 17 else range(430, 571, 10)
    for k in outcomes:
        hits, chance = np.sum(counts[:, 4] <= k), stats.binom.cdf(k, pulses, p[4])
        assert inside_binomial(hits, repeats, chance, 9 * len(outcomes))


def test_neurons_and_calls_are_independent():
    layer = SpinNeuron(output="always_sampled", seed=0)
    x = np.zeros((20000, 2), "float32")
    first, second = (ops.convert_to_numpy(layer(x)) for _ in range(2))
    for a, b in ((first[:, 0], first[:, 1]), (first[:, 0], second[:, 0])):
        assert inside_binomial(np.sum(a == b), len(a), 0.5, 2)


def test_seed_reproduces_and_inference_is_deterministic():
    x = np.zeros((8, 32), "float32")
    draws = []
    for seed in (1, 1, 2):
        layer = SpinNeuron(output="sampled", seed=seed)
        np.testing.assert_allclose(ops.convert_to_numpy(layer(x)), 0.5, atol=1e-6)
        draws.append(ops.convert_to_numpy(layer(x, training=True)))
    np.testing.assert_array_equal(draws[0], draws[1])
    assert np.any(draws[0] != draws[2])
    assert set(np.unique(draws[0])) == {0.0, 1.0}
    again = SpinNeuron.from_config(SpinNeuron(output="sampled", seed=1, pulses=2).get_config())
    assert (again.output_mode, again.seed, again.pulses) == ("sampled", 1, 2)


@pytest.mark.parametrize("pulses", [1, 5])
def test_gradient_of_a_draw_is_that_of_the_probability(pulses):
    x = np.linspace(-3, 3, 7, dtype="float32")[None]

    def total(layer):
        layer.build((None, 7))
        return gradients(lambda v: ops.sum(layer(v)), ops.convert_to_tensor(x))[0]

    sampled = total(SpinNeuron(output="always_sampled", pulses=pulses, seed=1))
    np.testing.assert_allclose(sampled, total(SpinNeuron()), rtol=1e-6)


def test_nan_is_not_turned_into_a_bit():
    y = ops.convert_to_numpy(
        SpinNeuron(output="always_sampled")(np.full((1, 2), np.nan, "float32"))
    )
    assert np.isnan(y).all()


@pytest.mark.slow
def test_training_with_single_pulses():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(512, 4)).astype("float32")
    y = (x[:, :1] * x[:, 1:2] > 0).astype("float32")
    model = keras.Sequential(
        [
            keras.Input((4,)),
            keras.layers.Dense(32),
            SpinNeuron(output="sampled", seed=0),
            keras.layers.Dense(1, activation="sigmoid"),
        ]
    )
    model.compile(keras.optimizers.Adam(0.03), "binary_crossentropy", metrics=["accuracy"])
    model.fit(x, y, epochs=40, verbose=0)
    assert model.evaluate(x, y, verbose=0)[1] > 0.85
    first, second = (model.predict(x, verbose=0) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.slow
@pytest.mark.skipif(OTHER_BACKEND, reason="TensorFlow's XLA")
def test_xla_with_and_without_repeated_pulses():
    x, y = np.zeros((8, 2)), np.zeros((8, 2))
    single = keras.Sequential([keras.Input((2,)), SpinNeuron(output="sampled")])
    single.compile("sgd", "mse", jit_compile=True)
    single.fit(x, y, verbose=0)
    assert SpinNeuron(output="sampled").supports_jit
    few = keras.Sequential([keras.Input((2,)), SpinNeuron(output="sampled", pulses=4)])
    few.compile("sgd", "mse", jit_compile=True)
    few.fit(x, y, verbose=0)
    assert not SpinNeuron(output="sampled", pulses=17).supports_jit
    assert SpinNeuron(pulses=17).supports_jit


@pytest.mark.skipif(OTHER_BACKEND, reason="tf.distribute")
def test_replicas_draw_the_same_numbers_as_documented():
    import tensorflow as tf

    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with strategy.scope():
        layer = SpinNeuron(output="always_sampled", seed=1)
        layer.build((None, 256))
    values = strategy.experimental_local_results(
        strategy.run(tf.function(lambda: layer(tf.zeros((1, 256)))))
    )
    np.testing.assert_array_equal(values[0], values[1])


def test_repeated_pulses_cost_energy_and_time():
    x = np.random.default_rng(0).normal(size=(16, 3)).astype("float32")
    reports = [
        spinkeras.energy_report(
            keras.Sequential([keras.Input((3,)), SpinNeuron(pulses=n)]), x, print_fn=None
        )
        for n in (1, 8)
    ]
    one, eight = (r.layers[0] for r in reports)
    for part in ("write_pj", "read_pj", "reset_pj", "pulses", "latency_ns"):
        assert eight[part] == pytest.approx(8 * one[part])
