"""The callback against NumPy sums and reports; graphs without state. Runs on every backend."""

import copy

import keras
import numpy as np
import pytest
from keras import ops

import spinkeras
from spinkeras import EnergyAssumptions, EnergyTracker, SpinNeuron
from tests.energy.harness import model_and_data, numpy_energy
from tests.harness import COMPILED, FLOAT64, OTHER_BACKEND

pytestmark = pytest.mark.backends


@pytest.mark.parametrize(
    "jit", [False, pytest.param(True, marks=[*COMPILED.marks, pytest.mark.slow])]
)
def test_logs_equal_the_numpy_sum_over_the_same_batches(jit):
    """Frozen weights, so that training and validation see one setting; uneven last batch."""
    model, x, y = model_and_data(samples=100)
    model.compile(keras.optimizers.SGD(0.0), "mse", jit_compile=jit)
    tracker = EnergyTracker()
    history = model.fit(
        x,
        y,
        batch_size=32,
        epochs=2,
        verbose=0,
        callbacks=[tracker],
        validation_data=(x[:37], y[:37]),
    ).history
    inner = keras.Model(model.inputs, model.layers[1].output)
    for prefix, data in (("", x), ("val_", x[:37])):
        first = sum(numpy_energy(model.layers[0], data).values())
        second = sum(numpy_energy(model.layers[2], inner.predict(data, verbose=0)).values())
        for epoch in range(2):
            assert history[f"{prefix}energy_pj_first"][epoch] == pytest.approx(first, rel=2e-6)
            assert history[f"{prefix}energy_pj_second"][epoch] == pytest.approx(second, rel=2e-6)
            assert history[f"{prefix}energy_pj"][epoch] == pytest.approx(first + second, rel=2e-6)
    assert history["latency_ns"][-1] == pytest.approx(20.0 + 2.0, rel=1e-6)
    assert set(history) >= {"loss", "val_loss"}


@pytest.mark.parametrize(
    ("shared_axes", "dtype"),
    [
        (None, "float32"),
        ((1,), "float32"),
        ((1, 2, 3), "float32"),
        pytest.param(None, "float64", marks=pytest.mark.slow),
    ],
)
def test_logs_of_images(shared_axes, dtype):
    """Whichever elements share a knob: per channel, per position, one for all."""
    if dtype == "float64" and not FLOAT64:
        pytest.skip("JAX has no float64 unless asked")
    rng = np.random.default_rng(0)
    x = rng.normal(size=(21, 5, 4, 3)).astype("float32")
    model = keras.Sequential(
        [keras.Input(x.shape[1:]), SpinNeuron(shared_axes=shared_axes, dtype=dtype)]
    )
    layer = model.layers[0]
    layer.pulse_width = rng.uniform(2e-9, 20e-9, layer.pulse_width.shape)
    layer.gate_voltage = rng.uniform(-1, 1, layer.anisotropy.shape)
    model.compile(keras.optimizers.SGD(0.0), "mse")
    tracker = EnergyTracker()
    history = model.fit(x, x, batch_size=21, verbose=0, callbacks=[tracker]).history
    report = spinkeras.energy_report(model, x, print_fn=None)
    assert history["energy_pj"][0] == pytest.approx(report.total_pj, rel=2e-6)


@pytest.mark.skipif(OTHER_BACKEND, reason="Keras trains no model on an empty batch elsewhere")
@pytest.mark.slow
@pytest.mark.parametrize("callback", [EnergyTracker, lambda: spinkeras.EnergyBudget(1e-11)])
def test_a_batch_may_be_empty(callback):
    """As the last one of a replica may be."""
    import tensorflow as tf

    model, x, y = model_and_data(samples=16)
    data = tf.data.Dataset.from_generator(
        lambda: ((x[k], y[k]) for k in (slice(0, 8), slice(0, 0), slice(8, 16))),
        output_signature=(tf.TensorSpec((None, 6)), tf.TensorSpec((None, 1))),
    ).apply(tf.data.experimental.assert_cardinality(3))
    model.compile(keras.optimizers.SGD(0.0), lambda t, p: ops.sum((t - p) ** 2, axis=-1))
    history = model.fit(data, verbose=0, shuffle=False, callbacks=[callback()]).history
    report = spinkeras.energy_report(model, x, print_fn=None)
    assert history["energy_pj"][0] == pytest.approx(report.total_pj, rel=1e-5)
    assert all(np.isfinite(weight).all() for weight in model.get_weights())


def test_masked_steps_cost_nothing():
    inputs = keras.Input((5,), dtype="int32")
    x = keras.layers.Embedding(9, 3, mask_zero=True)(inputs)
    x = SpinNeuron(name="spin")(x)
    model = keras.Model(inputs, keras.layers.Dense(1)(keras.layers.GlobalAveragePooling1D()(x)))
    short = np.array([[1, 2, 0, 0, 0]] * 4)
    report = spinkeras.energy_report(model, short, print_fn=None)
    assert report.layers[0]["pulses"] == 2 * 3
    model.compile("sgd", "mse")
    model.optimizer.learning_rate = 0.0
    history = model.fit(short, np.zeros((4, 1)), verbose=0, callbacks=[EnergyTracker()]).history
    assert history["energy_pj"][0] == pytest.approx(report.total_pj, rel=1e-5)


def test_nested_shared_and_time_distributed_layers():
    """Every use of a layer costs energy, one forward pass is one inference."""
    shared = SpinNeuron(name="shared")
    inputs = keras.Input((5, 4))
    x = keras.layers.TimeDistributed(
        keras.Sequential([keras.layers.Dense(3), SpinNeuron(name="inner")])
    )(inputs)
    x = shared(keras.layers.Dense(3)(shared(x)))
    x = keras.layers.Dense(2, activation=SpinNeuron(name="activation"))(x)
    model = keras.Model(inputs, x)
    data = np.random.default_rng(0).normal(size=(16, 5, 4)).astype("float32")
    model(data)  # Dense builds the layer given as its activation at the first call
    report = spinkeras.energy_report(model, data, print_fn=None)
    pulses = {row["name"]: row["pulses"] for row in report.layers}
    assert pulses == {"inner": 15, "shared": 30, "activation": 10}
    model.compile(keras.optimizers.SGD(0.0), "mse")
    history = model.fit(
        data, np.zeros((16, 5, 2)), batch_size=8, verbose=0, callbacks=[EnergyTracker()]
    ).history
    for row in report.layers:
        assert history[f"energy_pj_{row['name']}"][0] == pytest.approx(row["total_pj"], rel=1e-5)


@pytest.mark.skipif(OTHER_BACKEND, reason="Keras runs such a layer otherwise elsewhere")
def test_an_unknown_number_of_steps_is_refused():
    """`tf.vectorized_map` would count one step only."""
    import tensorflow as tf

    model = keras.Sequential([keras.Input((None, 2)), keras.layers.TimeDistributed(SpinNeuron())])
    model.compile("sgd", "mse")
    x = np.zeros((4, 4, 2), "float32")
    unknown = tf.TensorSpec((None, None, 2))
    data = tf.data.Dataset.from_generator(lambda: [(x, x)], output_signature=(unknown, unknown))
    with pytest.raises(ValueError, match=r"Give the number of steps in keras\.Input"):
        model.fit(data, verbose=0, shuffle=False, callbacks=[EnergyTracker()])


def test_other_callbacks_see_the_energy(tmp_path):
    model, x, y = model_and_data()
    model.compile("sgd", "mse")
    stop = keras.callbacks.EarlyStopping("val_energy_pj", patience=0, min_delta=1e9, mode="min")
    callbacks = [EnergyTracker(), keras.callbacks.CSVLogger(tmp_path / "log.csv"), stop]
    history = model.fit(
        x, y, epochs=5, verbose=0, callbacks=callbacks, validation_split=0.25
    ).history
    assert len(history["energy_pj"]) == 2  # stopped on the energy
    assert "val_energy_pj" in (tmp_path / "log.csv").read_text().splitlines()[0]


def test_progress_bar_shows_the_energy(capsys):
    model, x, y = model_and_data()
    model.compile("sgd", "mse")
    model.fit(x, y, verbose=2, callbacks=[EnergyTracker()])
    assert "energy_pj: " in capsys.readouterr().out


@pytest.mark.slow
def test_evaluate_and_repeated_fits_with_and_without_the_tracker():
    model, x, y = model_and_data()
    model.compile(keras.optimizers.SGD(0.0), "mse")
    expected = spinkeras.energy_report(model, x, print_fn=None).total_pj
    model.fit(x, y, verbose=0)  # compiled without a meter first
    model.evaluate(x, y, verbose=0)
    tracker = EnergyTracker()
    for _ in range(2):
        history = model.fit(x, y, verbose=0, callbacks=[tracker]).history
        assert history["energy_pj"][0] == pytest.approx(expected, rel=1e-5)
    model.evaluate(x, y, verbose=0, callbacks=[tracker])
    assert tracker.results["energy_pj"] == pytest.approx(expected, rel=1e-5)
    assert "energy_pj" not in model.fit(x, y, verbose=0).history
    model.evaluate(x, y, verbose=0)  # no step of these two may serve a tracked run, nor
    model.compile(keras.optimizers.SGD(0.0), "mae")  # one from before this
    options = {"verbose": 0, "validation_data": (x, y), "callbacks": [tracker]}
    history = model.fit(x, y, **options).history
    for prefix in ("", "val_"):
        assert history[f"{prefix}energy_pj"][0] == pytest.approx(expected, rel=1e-5)
        assert history[f"{prefix}loss"][0] == pytest.approx(model.evaluate(x, y, verbose=0))
    cheaper = EnergyTracker(EnergyAssumptions(reset=False))
    history = model.fit(x, y, verbose=0, callbacks=[cheaper]).history
    assert history["energy_pj"][0] < 0.8 * expected


def test_prediction_in_mid_epoch_does_not_count():
    model, x, y = model_and_data()
    model.compile(keras.optimizers.SGD(0.0), "mse")
    expected = spinkeras.energy_report(model, x, print_fn=None).total_pj

    class Predict(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.predict(10 * x[:8], verbose=0)

    history = model.fit(x, y, verbose=0, callbacks=[EnergyTracker(), Predict()]).history
    assert history["energy_pj"][0] == pytest.approx(expected, rel=1e-5)


def test_tracker_can_be_copied_and_needs_a_spin_layer():
    assert copy.deepcopy(EnergyTracker()).assumptions == EnergyAssumptions()
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    with pytest.raises(ValueError, match="found no SpinNeuron"):
        model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0, callbacks=[EnergyTracker()])
    with pytest.raises(ValueError, match="found no SpinNeuron"):
        spinkeras.energy_report(model, np.ones((4, 2)))


@pytest.mark.slow
def test_a_model_trained_with_the_tracker_saves_and_reloads(tmp_path):
    model, x, y = model_and_data()
    model.compile("adam", "mse")
    model.fit(x, y, verbose=0, callbacks=[EnergyTracker()])
    model.save(tmp_path / "m.keras")
    again = keras.saving.load_model(tmp_path / "m.keras")
    np.testing.assert_allclose(again.predict(x, verbose=0), model.predict(x, verbose=0), atol=1e-6)


@pytest.mark.skipif(OTHER_BACKEND, reason="reads a TensorFlow graph")
def test_exported_graph_writes_no_state(tmp_path):
    import tensorflow as tf

    model, x, y = model_and_data()
    model.compile("adam", "mse")
    model.fit(x, y, verbose=0, callbacks=[EnergyTracker()], validation_data=(x, y))
    model.export(tmp_path / "served", verbose=False)
    served = tf.saved_model.load(tmp_path / "served")
    function = served.signatures["serving_default"]
    graphs = [
        function.graph,
        # TensorFlow's private list of the graphs inside the graph
        *(f.graph for f in function.graph._functions.values() if hasattr(f, "graph")),
    ]
    kinds = {op.type for graph in graphs for op in graph.get_operations()}
    definition = function.graph.as_graph_def()
    kinds |= {node.op for f in definition.library.function for node in f.node_def}
    assert not {kind for kind in kinds if "Assign" in kind}
    assert kinds  # something was looked at


@pytest.mark.slow
@pytest.mark.skipif(OTHER_BACKEND, reason="tf.distribute")
def test_mirrored_strategy_gives_the_same_figure():
    import tensorflow as tf

    assert len(tf.config.list_logical_devices("CPU")) == 2  # see conftest.py
    with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
        model, x, y = model_and_data(samples=128)
        model.compile(keras.optimizers.SGD(0.0), "mse")
    expected = spinkeras.energy_report(model, x, print_fn=None).total_pj
    history = model.fit(
        x, y, batch_size=32, verbose=0, callbacks=[EnergyTracker()], validation_data=(x, y)
    ).history
    assert history["energy_pj"][0] == pytest.approx(expected, rel=1e-5)
    assert history["val_energy_pj"][0] == pytest.approx(expected, rel=1e-5)
