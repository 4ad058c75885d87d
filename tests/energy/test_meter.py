"""Every neuron that fires in a measured pass counts, or its layer is refused by name.

Runs on every backend.
"""

import keras
import numpy as np
import pytest
from keras import ops

import spinkeras
from spinkeras import EnergyBudget, EnergyTracker, SpinNeuron
from tests.harness import BACKEND, some_slow

pytestmark = pytest.mark.backends

rng = np.random.default_rng(0)
x = rng.normal(size=(12, 6)).astype("float32")
y = np.zeros((12, 1), "float32")
SHORT = np.array([[1, 1, 0, 0, 0]] * 12, "int32")  # two steps of five are there
GRAPH = BACKEND == "tensorflow"


class Part(keras.layers.Layer):
    """A layer of a user's own around a neuron."""

    def __init__(self, way):
        super().__init__()
        self.way, self.neuron = way, SpinNeuron(name="inner")

    def build(self, input_shape):
        self.neuron.build(input_shape)
        self.built = True

    def call(self, inputs):
        one = lambda row: self.neuron(row[None])[0]  # noqa: E731
        ways = {
            "plain": lambda: self.neuron(inputs),
            "thrice": lambda: self.neuron(self.neuron(self.neuron(inputs))),
            "while_loop": lambda: ops.while_loop(
                lambda k, v: k < 3, lambda k, v: (k + 1, self.neuron(v)), (0, inputs)
            )[1],
            "fori_loop": lambda: ops.fori_loop(0, 3, lambda k, v: self.neuron(v), inputs),
            "cond": lambda: ops.cond(
                ops.sum(inputs) < 1e9, lambda: self.neuron(inputs), lambda: inputs
            ),
            "map": lambda: ops.map(one, inputs),
            "scan": lambda: ops.scan(lambda c, row: (c, one(row)), ops.zeros(()), inputs)[1],
            "vectorized_map": lambda: ops.vectorized_map(one, inputs),
            "remat": lambda: keras.remat(self.neuron)(inputs),
            "function": lambda: own_function(self.neuron)(inputs),
        }
        return ways[self.way]()


def own_function(function):
    if BACKEND == "jax":
        import jax

        return jax.jit(lambda value: function(value))
    import tensorflow as tf

    return tf.function(function)


def around(way):
    return keras.Sequential([keras.Input((6,)), Part(way), keras.layers.Dense(1)])


class Frozen(keras.Model):
    """As in fine-tuning: the base infers while the model trains."""

    def __init__(self):
        super().__init__()
        self.base = keras.Sequential([keras.layers.Dense(6), SpinNeuron()])
        self.head = keras.layers.Dense(1)

    def call(self, inputs, training=None):
        return self.head(self.base(inputs, training=False))


class TwoPasses(keras.Model):
    """Looks at its data twice in a step, as contrastive training does."""

    def __init__(self):
        super().__init__()
        self.neuron, self.head = SpinNeuron(), keras.layers.Dense(1)

    def call(self, inputs):
        return self.head(self.neuron(inputs))

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):
        return ops.mean((self(x) - y_pred) ** 2) + ops.mean((y - y_pred) ** 2)


class Patches(keras.Model):
    """Folds parts of a sample into the batch axis."""

    def __init__(self):
        super().__init__()
        self.neuron, self.head = SpinNeuron(), keras.layers.Dense(1)

    def call(self, inputs):
        parts = self.neuron(ops.reshape(inputs, (-1, 2)))
        return self.head(ops.reshape(parts, (-1, 6)))


def size(y_true, y_pred):
    """A metric where none is wanted."""
    return len(y_pred)


def fit(model, callback, data=x, eager=True, **options):
    model.compile(keras.optimizers.SGD(0.0), "mse", run_eagerly=eager)
    options = {"batch_size": 8, "verbose": 0} | options
    return model.fit(data, y, callbacks=[callback], **options).history


def budget():
    return EnergyBudget(1e-9, monitor="loss", mode="min")


COUNTED = {
    "inference in training": (Frozen, None),
    "two passes": (TwoPasses, 1),
    "parts of samples": (Patches, None),
    "a layer of one's own": (lambda: around("plain"), 1),
    "three uses": (lambda: around("thrice"), None),
}
LOOPS = ("while_loop", "fori_loop", "cond")  # JAX cannot carry sums out of these


@pytest.mark.parametrize(
    ("name", "eager"),
    [
        ("inference in training", False),
        ("two passes", True),
        ("parts of samples", True),
        pytest.param("inference in training", True, marks=pytest.mark.slow),
        pytest.param("a layer of one's own", True, marks=pytest.mark.slow),
        pytest.param("three uses", True, marks=pytest.mark.slow),
    ],
)
def test_what_fires_counts_once_per_sample(name, eager):
    make, times = COUNTED[name]
    model = make()
    model(x)
    expected = spinkeras.energy_report(model, x, print_fn=None).total_pj
    if times:
        alone = keras.Sequential([keras.Input((6,)), SpinNeuron()])
        single = spinkeras.energy_report(alone, x, print_fn=None).total_pj
        assert expected == pytest.approx(times * single, rel=1e-6)
    for callback in (EnergyTracker(), budget()):
        history = fit(model, callback, eager=eager, validation_data=(x, y))
        assert history["energy_pj"] == [pytest.approx(expected, rel=2e-6)]
        assert history["val_energy_pj"] == [pytest.approx(expected, rel=2e-6)]


@pytest.mark.skipif(BACKEND == "jax", reason="refused there, see below")
@pytest.mark.parametrize("way", some_slow(LOOPS, "while_loop", "cond"))
def test_loops_and_conditions_count_every_round(way):
    model, same = around(way), around("plain" if way == "cond" else "thrice")
    expected = spinkeras.energy_report(same, x, print_fn=None).total_pj
    assert spinkeras.energy_report(model, x, print_fn=None).total_pj == pytest.approx(expected)
    assert fit(model, EnergyTracker(), eager=False)["energy_pj"] == [
        pytest.approx(expected, rel=2e-6)
    ]
    if GRAPH:
        with pytest.raises(ValueError, match=r"'inner' .* has no gradient to the loss"):
            fit(model, budget(), eager=False)
    model.fit(x, y, verbose=0)  # nothing is left of the refusal


REFUSED = {
    "map": "runs in keras.ops.map",
    "scan": "runs in keras.ops.scan",
    "vectorized_map": "vectorized map",
    "remat": "computed a second time",
    "function": "a tf.function of its own",
}
if BACKEND == "jax":
    REFUSED = dict.fromkeys((*LOOPS, "function"), "a loop, a condition or a jit") | {
        name: REFUSED[name] for name in ("map", "scan", "vectorized_map")
    }
if BACKEND == "torch":  # Keras itself fails in `vectorized_map`
    REFUSED = {name: REFUSED[name] for name in ("map", "scan", "remat")}
if GRAPH:  # Keras itself fails in `scan`
    del REFUSED["scan"]


@pytest.mark.parametrize("way", REFUSED)
def test_what_cannot_be_counted_is_refused_by_name(way):
    model = around(way)
    message = f"(?s)'inner'.*{REFUSED[way]}"
    for callback in (EnergyTracker(), budget()):
        with pytest.raises(ValueError, match=message):
            fit(model, callback, eager=False)
    if way != "remat":  # which counts once where there is no gradient
        with pytest.raises(ValueError, match=message):
            spinkeras.energy_report(model, x, print_fn=None)
        with pytest.raises(ValueError, match=message):
            spinkeras.evaluate_chips(
                model, x, y, spinkeras.ChipSpread(), chips=2, metric=size, progress=False
            )


class TracedBefore(keras.Model):
    """A model whose second neuron runs in a function that is traced once per kind of input."""

    def __init__(self, inside, **options):
        super().__init__()
        self.first, self.second = SpinNeuron(name="first"), SpinNeuron(name="inner", **options)
        block = keras.Sequential([keras.layers.Dense(6), self.second])
        self.run = own_function(block if inside else self.second)
        for layer in (self.first, block):  # before Keras traces a function that makes weights
            layer.build((None, 6))

    def call(self, inputs):
        return self.run(self.first(inputs))


@pytest.mark.skipif(not GRAPH, reason="tf.function")
@pytest.mark.parametrize(
    ("inside", "options", "eager"),
    [
        (False, {}, True),
        (True, {"train": ()}, True),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                (False, {}, False),
                (True, {"train": ()}, False),
                (True, {"trainable": False}, False),
                (True, {"trainable": False}, True),
            )
        ),
    ],
)
def test_a_function_traced_before_is_refused_by_name(inside, options, eager):
    model = TracedBefore(inside, **options)
    model(x)
    model.compile("sgd", "mse", run_eagerly=eager)
    data = np.zeros((12, 6), "float32")
    message = "'inner' runs in a tf.function"
    for callback in (EnergyTracker(), budget()):
        with pytest.raises(ValueError, match=message):
            model.fit(x, data, batch_size=12, verbose=0, callbacks=[callback])
        with pytest.raises(ValueError, match=message):
            model.evaluate(x, data, batch_size=12, verbose=0, callbacks=[callback])
    with pytest.raises(ValueError, match=message):
        spinkeras.energy_report(model, x, print_fn=None)
    with pytest.raises(ValueError, match=message):
        spinkeras.evaluate_chips(
            model, x, data, spinkeras.ChipSpread(), chips=2, metric=size, progress=False
        )
    model.fit(x, data, batch_size=12, verbose=0)


def behind_a_mask(way):
    inputs = keras.Input((5,), dtype="int32")
    flow = keras.layers.Embedding(3, 4, mask_zero=True)(inputs)
    pool = keras.layers.GlobalAveragePooling1D()
    neuron = SpinNeuron(name="inner")
    rnn = {"activation": neuron, "unroll": True}
    ways = {
        "layer": lambda: pool(neuron(keras.layers.Dense(4)(flow))),
        "nested": lambda: pool(keras.Sequential([keras.layers.Dense(4), neuron])(flow)),
        "TimeDistributed neuron": lambda: pool(keras.layers.TimeDistributed(neuron)(flow)),
        "pooled": lambda: neuron(pool(flow)),
        "Dense": lambda: pool(keras.layers.Dense(4, activation=neuron)(flow)),
        "nested Dense": lambda: pool(
            keras.Sequential([keras.layers.Dense(4, activation=neuron)])(flow)
        ),
        "Conv1D": lambda: pool(keras.layers.Conv1D(4, 3, padding="same", activation=neuron)(flow)),
        "EinsumDense": lambda: pool(
            keras.layers.EinsumDense("abc,cd->abd", (None, 4), activation=neuron)(flow)
        ),
        "TimeDistributed": lambda: pool(
            keras.layers.TimeDistributed(keras.layers.Dense(4, activation=neuron))(flow)
        ),
        "SimpleRNN": lambda: keras.layers.SimpleRNN(3, **rnn)(flow),
        "Bidirectional": lambda: keras.layers.Bidirectional(keras.layers.SimpleRNN(3, **rnn))(flow),
    }
    return keras.Model(inputs, keras.layers.Dense(1)(ways[way]()))


DESTROYED = pytest.mark.filterwarnings("ignore:(?s).*destroy the mask")


@DESTROYED
@pytest.mark.parametrize(
    ("way", "pulses"), [("layer", 8), ("nested", 8), ("TimeDistributed neuron", 8), ("pooled", 4)]
)
def test_masked_steps_do_not_count(way, pulses):
    model = behind_a_mask(way)
    report = spinkeras.energy_report(model, SHORT, print_fn=None)
    assert report.layers[0]["pulses"] == pulses
    expected = report.total_pj
    history = fit(model, EnergyTracker(), SHORT)
    assert history["energy_pj"] == [pytest.approx(expected, rel=2e-6)]
    chips = spinkeras.evaluate_chips(
        model, SHORT, y, spinkeras.ChipSpread(), chips=2, metric=size, progress=False
    )
    np.testing.assert_allclose(chips.energy_pj, expected, rtol=1e-5)


@DESTROYED
@pytest.mark.parametrize(
    "way",
    [
        *("Dense", "nested Dense", "Conv1D", "EinsumDense", "TimeDistributed"),
        "SimpleRNN",
        pytest.param(
            "Bidirectional",
            marks=pytest.mark.skipif(BACKEND == "torch", reason="Keras fails with a mask there"),
        ),
    ],
)
def test_a_mask_that_cannot_be_seen_is_refused(way):
    model = behind_a_mask(way)
    message = "(?s)'inner'.*cannot see its mask"
    with pytest.raises(ValueError, match=message):
        spinkeras.energy_report(model, SHORT, print_fn=None)
    with pytest.raises(ValueError, match=message):
        fit(model, EnergyTracker(), SHORT)
    with pytest.raises(ValueError, match=message):
        spinkeras.evaluate_chips(
            model, SHORT, y, spinkeras.ChipSpread(), chips=2, metric=size, progress=False
        )


@pytest.mark.parametrize("kind", ["SimpleRNN", pytest.param("LSTM", marks=pytest.mark.slow)])
def test_unrolled_cells_count_and_rolled_ones_are_refused(kind):
    """In its loop TensorFlow runs one step too many and JAX cannot keep the sums."""
    steps = np.random.default_rng(0).normal(size=(12, 5, 2)).astype("float32")
    gates = {"SimpleRNN": 1, "LSTM": 2}[kind]
    for unroll in (True, False):
        cell = getattr(keras.layers, kind)(4, activation=SpinNeuron(name="inner"), unroll=unroll)
        model = keras.Sequential([keras.Input((5, 2)), cell, keras.layers.Dense(1)])
        model(steps)
        chips = {"spread": spinkeras.ChipSpread(), "chips": 2, "metric": size, "progress": False}
        if unroll:
            report = spinkeras.energy_report(model, steps, print_fn=None)
            assert report.layers[0]["pulses"] == 4 * 5 * gates
            history = fit(model, EnergyTracker(), steps)
            assert history["energy_pj"] == [pytest.approx(report.total_pj, rel=2e-6)]
            found = spinkeras.evaluate_chips(model, steps, y, **chips).energy_pj
            np.testing.assert_allclose(found, report.total_pj, rtol=1e-5)
        else:
            message = "Build it with unroll=True"
            with pytest.raises(ValueError, match=message):
                spinkeras.energy_report(model, steps, print_fn=None)
            with pytest.raises(ValueError, match=message):
                fit(model, EnergyTracker(), steps, eager=False)
            with pytest.raises(ValueError, match=message):
                spinkeras.evaluate_chips(model, steps, y, **chips)


class SometimesSkipped(keras.layers.Layer):
    """A block that runs for every other batch, as in stochastic depth."""

    def __init__(self):
        super().__init__()
        self.neuron, self.calls = SpinNeuron(), 0

    def build(self, input_shape):
        self.neuron.build(input_shape)
        self.built = True

    def call(self, inputs, training=None):
        self.calls += bool(training)
        return self.neuron(inputs) if self.calls % 2 == 0 else inputs


@pytest.mark.filterwarnings("ignore:Gradients do not exist")
def test_a_block_that_is_skipped_costs_nothing_then():
    block = SometimesSkipped()
    model = keras.Sequential([keras.Input((6,)), block, keras.layers.Dense(1)])
    block.calls = 0
    expected = spinkeras.energy_report(model, x, print_fn=None).total_pj
    for callback in (EnergyTracker(), budget()):
        block.calls = 0
        history = fit(model, callback, np.tile(x[:1], (12, 1)), batch_size=6)
        one = spinkeras.energy_report(model, x[:1], print_fn=None).total_pj
        assert history["energy_pj"] == [pytest.approx(one / 2, rel=2e-6)]
    assert expected > 0
