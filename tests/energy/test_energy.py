"""Energy: the published figures, the callback against NumPy sums, reports, graphs without state.

Runs on every backend.
"""

import copy

import keras
import numpy as np
import pytest
from keras import ops
from scipy import optimize

import spinkeras
from spinkeras import EnergyAssumptions, EnergyTracker, SpinNeuron, energy
from spinkeras.macrospin import fokker_planck
from tests.harness import COMPILED, FLOAT64, OTHER_BACKEND, gradients
from tools import finite_volume

pytestmark = pytest.mark.backends


def numpy_energy(layer, x):
    """Mean pJ per inference of a layer on its own inputs, written out from the formulas."""
    device, assumptions = layer.device, EnergyAssumptions()
    current = layer.bias_current + layer.current_scale * x.astype("float64")
    width, anisotropy = layer.pulse_width, layer.anisotropy
    p = spinkeras.switching_probability(current, width, device, anisotropy)
    parallel = device.resistance_parallel

    def high(current):
        # V = I R_P (1 + TMR / (1 + (V/V_h)^2)) by bracketing
        def excess(v):
            return v - abs(current) * parallel * (
                1 + device.tmr / (1 + (v / device.tmr_half_voltage) ** 2)
            )

        top = abs(current) * parallel * (1 + device.tmr)
        v = optimize.brentq(excess, 0, top + 1e-12, xtol=1e-15, rtol=1e-14)
        return v / abs(current)

    antiparallel = np.vectorize(high)(current)
    f = assumptions.reversal_fraction
    resistance = parallel * (1 - p) + (f * parallel + (1 - f) * antiparallel) * p
    write = current**2 * width * resistance
    gate = device.gate_capacitance * layer.gate_voltage**2 + 0 * x
    fall = 1 + (assumptions.read_voltage / device.tmr_half_voltage) ** 2
    conductance = (1 - p) / parallel + p / (parallel * (1 + device.tmr / fall))
    read = assumptions.read_voltage**2 * assumptions.read_time * conductance
    reset = energy.reset_energy(device, assumptions) * p
    return {
        name: 1e12 * np.sum(value) / len(x)
        for name, value in (("write", write), ("gate", gate), ("read", read), ("reset", reset))
    }


# --- joules --------------------------------------------------------------------------------------


def test_write_energy_at_the_midpoint_with_the_parallel_resistance(device):
    """247 / 139 / 86 / 70 / 60 / 58 / 61 / 80 / 147 / 254 fJ: flat from 3 to 12 ns."""
    table = {0.5: 247, 1: 139, 2: 86, 3: 70, 5: 60, 7: 58, 10: 61, 20: 80, 50: 147, 100: 254}
    for width, expected in table.items():
        current = spinkeras.midpoint_current(width * 1e-9, device)
        found = energy.write_energy(current, width * 1e-9, 0.5, device.replace(tmr=0.0))
        assert found * 1e15 == pytest.approx(expected, rel=0.012)


def test_a_reversed_device_costs_more(device):
    current = float(spinkeras.midpoint_current(5e-9, device))
    never, always = (float(energy.write_energy(current, 5e-9, p, device)) for p in (0.0, 1.0))
    ratio = float(energy.antiparallel_resistance(current, device)) / device.resistance_parallel
    assert always / never == pytest.approx(1 + 0.25 * (ratio - 1), rel=1e-12)
    assert float(energy.write_energy(-current, 5e-9, 0.0, device)) == pytest.approx(never)


def test_antiparallel_resistance_solves_its_equation(device):
    for tmr in (0.0, 1.0, 5.0):
        device = device.replace(tmr=tmr)
        current = np.geomspace(1e-9, 1e-2, 60)
        resistance = energy.antiparallel_resistance(current, device)
        voltage = current * resistance
        expected = device.resistance_parallel * (
            1 + tmr / (1 + (voltage / device.tmr_half_voltage) ** 2)
        )
        np.testing.assert_allclose(resistance, expected, rtol=1e-6)
        tensor = energy.antiparallel_resistance(ops.convert_to_tensor(current, "float32"), device)
        np.testing.assert_allclose(ops.convert_to_numpy(tensor), resistance, rtol=1e-5)


def test_reversal_fraction_is_that_of_the_exact_solution(device):
    """x = 1 - (1/t_p) integral of P(t) dt / P(t_p), at the midpoint of 2 to 20 ns."""
    nodes, weights = np.polynomial.legendre.leggauss(24)
    for width, expected in ((2e-9, 0.83), (5e-9, 0.80), (10e-9, 0.74), (20e-9, 0.67)):
        ratio = float(spinkeras.midpoint_current(width, device)) / device.critical_current
        tau = width / device.diffusion_time * device.thermal_stability
        during = fokker_planck.switching_curve(
            ratio, tau * (nodes + 1) / 2, device.thermal_stability
        )
        final = fokker_planck.switching_curve(ratio, [tau], device.thermal_stability)[0]
        assert 1 - weights @ during / 2 / final == pytest.approx(expected, abs=0.01)
        assert EnergyAssumptions().reversal_fraction == pytest.approx(expected, abs=0.09)


def test_reset_reaches_the_error_it_promises(device):
    for width, error, current in ((5e-9, 1e-3, 73e-6), (10e-9, 1e-3, 47e-6)):
        assumptions = EnergyAssumptions(reset_pulse_width=width, reset_error=error)
        found = energy.reset_current(device, assumptions)
        assert found == pytest.approx(current, rel=0.01)  # design notes: 73 uA at 5 ns
        left = 1 - finite_volume.switching_probability(found, width, device)
        assert left == pytest.approx(error, rel=1e-3)
    with pytest.raises(ValueError, match="No current up to"):
        energy.reset_current(
            device.replace(damping=1e-4), EnergyAssumptions(reset_pulse_width=1e-10)
        )


def test_read_and_gate_energy(device):
    assert energy.gate_energy(1.0, device) * 1e15 == pytest.approx(0.0771, rel=1e-3)
    low, high = (float(energy.read_energy(p, device)) for p in (0.0, 1.0))
    assert low == pytest.approx(0.1**2 * 2e-9 / device.resistance_parallel)
    assert low / high == pytest.approx(1 + 1 / 1.04)


@pytest.mark.parametrize(
    "bad",
    [
        {"read_voltage": -1},
        {"reset_error": 0.0},
        {"reversal_fraction": 2},
        {"read_time": float("nan")},
    ],
)
def test_bad_assumptions(bad):
    with pytest.raises(ValueError, match=f"{next(iter(bad))} = .* is outside"):
        EnergyAssumptions(**bad)
    with pytest.raises(ValueError, match="must be EnergyAssumptions"):
        EnergyTracker(assumptions=bad)


# --- the callback --------------------------------------------------------------------------------


def model_and_data(samples=96, seed=0, **kwargs):
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(samples, 6)).astype("float32")
    y = rng.normal(size=(samples, 1)).astype("float32")
    model = keras.Sequential(
        [
            keras.Input((6,)),
            SpinNeuron(name="first", **kwargs),
            keras.layers.Dense(4),
            SpinNeuron(name="second", recenter=False, **kwargs),
            keras.layers.Dense(1),
        ]
    )
    layer = model.layers[0]
    layer.pulse_width = np.geomspace(2e-9, 20e-9, 6)
    layer.gate_voltage = np.linspace(-1, 1, 6)
    return model, x, y


@pytest.mark.parametrize("jit", [False, COMPILED])
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
    [(None, "float32"), ((1,), "float32"), ((1, 2, 3), "float32"), (None, "float64")],
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
@pytest.mark.parametrize(
    "callback",
    [
        EnergyTracker,
        pytest.param(lambda: spinkeras.EnergyBudget(1e-11), marks=pytest.mark.slow),
    ],
)
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


def test_report_equals_the_numpy_sum_and_prints_its_assumptions(capsys):
    model, x, _ = model_and_data()
    report = spinkeras.energy_report(model, x, batch_size=10)
    expected = numpy_energy(model.layers[0], x)
    row = report.layers[0]
    for name, value in expected.items():
        assert row[f"{name}_pj"] == pytest.approx(value, rel=1e-6)
    assert row["pulses"] == 6
    assert row["pulse_width_ns"] == pytest.approx((2.0, 20.0))
    assert row["gate_voltage"] == pytest.approx((-1.0, 1.0), abs=1e-6)
    current = model.layers[0].bias_current + model.layers[0].current_scale * x
    assert row["peak_voltage"] == pytest.approx(np.abs(current).max() * 7957.75, rel=1e-4)
    assert report.total_pj == pytest.approx(sum(r["total_pj"] for r in report.layers))
    assert report.other_layers == {"Dense": 2}
    text = capsys.readouterr().out
    for part in ("first", "second", "pJ", "R_P 7958 ohm", "not included", "2 Dense", "latency"):
        assert part in text


def test_assumptions_change_the_figure():
    model, x, _ = model_and_data()
    full = spinkeras.energy_report(model, x, print_fn=None)
    none = EnergyAssumptions(reset=False, read_voltage=0.0)
    bare = spinkeras.energy_report(model, x, print_fn=None, assumptions=none)
    assert bare.layers[0]["reset_pj"] == bare.layers[0]["read_pj"] == 0
    assert bare.layers[0]["write_pj"] == full.layers[0]["write_pj"]
    assert bare.total_pj < full.total_pj


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


def test_layers_of_the_same_name_stay_apart():
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.Sequential([SpinNeuron(name="spin")], name="a"),
            keras.Sequential([SpinNeuron(name="spin")], name="b"),
        ]
    )
    report = spinkeras.energy_report(model, np.zeros((2, 3), "float32"), print_fn=None)
    assert [row["name"] for row in report.layers] == ["spin", "spin_2"]


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


def test_report_refuses_empty_data():
    model, x, _ = model_and_data()
    with pytest.raises(ValueError, match="needs data of one length > 0"):
        spinkeras.energy_report(model, x[:0])


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


def test_gradient_of_the_write_energy(device):
    """The energy is differentiable: d(write)/d(current) against central differences."""
    current = np.array([20e-6, 73e-6, 200e-6])

    def total(i):
        return ops.sum(energy.write_energy(i, 3e-9, 0.4, device)) * 1e12

    found = gradients(total, ops.convert_to_tensor(current, "float32"))[0]
    step = 1e-5 * current
    up, down = (1e12 * energy.write_energy(current + s, 3e-9, 0.4, device) for s in (step, -step))
    np.testing.assert_allclose(found, (up - down) / (2 * step), rtol=1e-4)


def test_report_and_logs_say_where_the_knobs_end():
    model, x, y = model_and_data()
    first, second = spinkeras.spin_neurons(model)
    first.pulse_width = [2e-9, 20e-9, 20e-9, 5e-9, 5e-9, 5e-9]
    first.gate_voltage = [1.0, 0.0, 1.0, 0.0, -1.0, 0.5]
    second.pulse_width, second.gate_voltage = 5e-9, 0.5
    report = spinkeras.energy_report(model, x, print_fn=None)
    shares = {"shortest pulse": 1, "longest pulse": 2, "least anisotropy": 2, "most anisotropy": 1}
    row = report.layers[0]
    assert row["at_limit"] == pytest.approx({end: n / 6 for end, n in shares.items()})
    table = spinkeras.device_settings(model)
    own = [r for r in table if r["layer"] == "first"]
    assert row["retention_s"] == pytest.approx(min(r["retention_s"] for r in own))
    assert row["thermal_stability"] == pytest.approx(min(r["thermal_stability"] for r in own))
    assert "first: at a limit 17% shortest pulse, 33% longest pulse, 33% least" in str(report)
    assert "second: at a limit none" in str(report)
    model.compile(keras.optimizers.SGD(0.0), "mse", run_eagerly=True)
    history = model.fit(x, y, verbose=0, batch_size=96, callbacks=[EnergyTracker()]).history
    assert history["share_at_limit"] == [pytest.approx(4 / 10)]
    assert history["retention_s"] == [pytest.approx(row["retention_s"])]
    fixed, x, _ = model_and_data(train=())  # which stands at 2 ns by its device, not by training
    report = spinkeras.energy_report(fixed, x, print_fn=None)
    assert set(report.layers[0]["at_limit"].values()) == {0.0}
