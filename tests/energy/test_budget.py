"""EnergyBudget: the limit holds, the gradient is that of w ln E, nothing is compiled twice.

Runs on every backend.
"""

import keras
import numpy as np
import pytest

import spinkeras
from spinkeras import Driver, EnergyBudget, EnergyTracker, SpinNeuron
from tests.harness import BACKEND


def problem(samples=256, seed=0):
    """Four classes of noisy patterns that a small network learns."""
    rng = np.random.default_rng(seed)
    patterns = rng.random((4, 12))
    y = rng.integers(0, 4, samples)
    x = patterns[y] + 0.15 * rng.normal(size=(samples, 12))
    return x.astype("float32"), np.eye(4, dtype="float32")[y]


def network(rate=0.5, train=("pulse_width", "anisotropy")):
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((12,)),
            keras.layers.Dense(10),
            SpinNeuron(train=train, name="hidden"),
            keras.layers.Dense(4),
            SpinNeuron(train=train, name="out"),
        ]
    )
    model.compile(keras.optimizers.SGD(rate), "binary_crossentropy", metrics=["accuracy"])
    return model


def fit(model, callbacks, epochs=30, data=None, **options):
    x, y = data or problem()
    options = {"validation_data": problem(seed=0), "shuffle": False, "batch_size": 32} | options
    return model.fit(x, y, epochs=epochs, verbose=0, callbacks=callbacks, **options).history


def energy(model, x=None):
    x = problem()[0] if x is None else x
    return spinkeras.energy_report(model, x, print_fn=None).total_pj


@pytest.mark.slow
def test_the_budget_is_kept_at_nearly_no_cost_in_accuracy():
    free = network()
    history = fit(free, [EnergyTracker()], 15)
    spent, accuracy = energy(free), history["val_accuracy"][-1]
    assert accuracy > 0.95
    model = network()
    limit = 0.6 * spent
    budget = EnergyBudget(limit * 1e-12, rate=0.2, monitor="val_accuracy")
    history = fit(model, [budget], 15)
    assert 0.6 * limit < energy(model) <= limit  # and not further down than asked
    best = history["val_accuracy"][budget.best_epoch]
    within = np.array(history["val_energy_pj"]) <= limit
    assert best == max(np.array(history["val_accuracy"])[within])
    assert best > accuracy - 0.02


@pytest.mark.slow
def test_a_loose_budget_changes_nothing_that_matters():
    free, loose = network(), network()
    fit(free, [EnergyTracker()], epochs=3)
    history = fit(loose, [EnergyBudget(1e-9, rate=1.0)], epochs=3)
    assert history["val_loss"][-1] == min(history["val_loss"])  # the last epoch came back
    assert history["energy_weight"][-1] == pytest.approx(1e-4)
    x = problem()[0]
    np.testing.assert_allclose(loose.predict(x, verbose=0), free.predict(x, verbose=0), atol=2e-3)


class AfterAStep(keras.callbacks.Callback):
    """Lets a fit begin as if a step at these weights had gone before."""

    def __init__(self, model, x):
        super().__init__()
        self.layers = spinkeras.spin_neurons(model)
        self.rows = spinkeras.energy_report(model, x, print_fn=None).layers

    def on_train_begin(self, logs=None):
        for layer, row in zip(self.layers, self.rows):
            layer.energy_seen.assign(row["total_pj"])


@pytest.mark.backends
def test_one_step_follows_the_gradient_of_w_ln_e():
    """Finite differences of the report's energy, in a bias and in both knobs."""
    x, y = problem(32)
    weight, rate = 2.0, 0.01
    variables = ("bias", "log_pulse_width", "log_anisotropy")
    steps = {}
    for priced in (True, False):
        model = network(rate)
        for layer in spinkeras.spin_neurons(model):
            layer.pulse_width = 5e-9  # away from the edge of the box
        before = model.get_weights()
        callbacks = [EnergyTracker()]
        if priced:
            callbacks = [EnergyBudget(1e-6, rate=0, start=weight)]
            callbacks.append(AfterAStep(model, x))
        fit(model, callbacks, 1, (x, y), validation_data=None)
        layers = (model.layers[0], model.layers[1], model.layers[1])
        steps[priced] = [np.array(getattr(layer, name)) for layer, name in zip(layers, variables)]
    model.set_weights(before)
    for k, name in enumerate(variables):
        found = -(steps[True][k] - steps[False][k]) / rate
        expected = np.zeros_like(found)
        variable = getattr(model.layers[0 if k == 0 else 1], name)
        start = np.array(variable)
        neurons = range(0, len(found), 3)
        for n in neurons:
            values = []
            for step in (-1e-2, 1e-2):
                moved = start.copy()
                moved[n] += step
                variable.assign(moved)
                values.append(np.log(energy(model, x)))
            variable.assign(start)
            expected[n] = weight * np.diff(values)[0] / 2e-2
        found, expected = found[neurons], expected[neurons]
        np.testing.assert_allclose(found, expected, rtol=0.01, atol=0.005 * np.abs(expected).max())


@pytest.mark.skipif(BACKEND == "torch", reason="nothing is compiled there")
def test_a_moving_weight_compiles_nothing_again():
    calls = []

    class Counted(keras.layers.Layer):
        def call(self, inputs):
            calls.append(1)
            return inputs

    x, y = problem()
    model = keras.Sequential([keras.Input((12,)), Counted(), keras.layers.Dense(4), SpinNeuron()])
    model.compile("sgd", "mse")
    budget = EnergyBudget(1e-13, rate=0.1)
    calls.clear()
    weights = []
    for epochs in (1, 5):
        with pytest.warns(UserWarning, match="No epoch stayed"):
            weights += fit(model, [budget], epochs, (x, y), validation_data=None)["energy_weight"]
        calls.append(0)
    assert sum(calls[calls.index(0) :]) == 0
    assert weights[1] > 1.5 * weights[0]


@pytest.mark.slow
def test_a_later_fit_without_a_budget_pays_no_attention_to_energy():
    """Not even where another callback brings back the price among the weights."""
    model, reference = network(), network()
    stop = keras.callbacks.EarlyStopping("loss", patience=0, restore_best_weights=True)
    with pytest.warns(UserWarning, match="lowest was"):
        fit(model, [EnergyBudget(1e-15, start=3.0), stop], 2)
    assert float(keras.ops.convert_to_numpy(model.layers[1].energy_weight)) > 0
    reference.set_weights(model.get_weights())
    fit(model, [], 1)
    fit(reference, [], 1)
    for a, b in zip(model.trainable_weights, reference.trainable_weights):
        np.testing.assert_allclose(np.array(a), np.array(b), atol=1e-6)


def test_epochs_that_do_not_validate_are_not_the_best():
    """Their loss and energy are those of training; here the validation labels are noise."""
    x, y = problem()
    noise = np.random.default_rng(1).permutation(y)
    model = keras.Sequential([keras.Input((12,)), keras.layers.Dense(4), SpinNeuron()])
    model.compile(keras.optimizers.SGD(0.5), "binary_crossentropy", run_eagerly=True)
    budget = EnergyBudget(1e-9)
    options = {"validation_data": (x, noise), "validation_freq": 3, "batch_size": 256}
    history = fit(model, [budget], 5, **options)
    assert budget.best_epoch == 2
    assert min(history["val_loss"]) > min(history["loss"])


@pytest.mark.backends
@pytest.mark.slow
def test_the_weight_is_saved_and_continues(tmp_path):
    model = network()
    seen = []

    class Saver(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            model.save_weights(tmp_path / "w.weights.h5")
            seen.append(logs["energy_weight"])

    with pytest.warns(UserWarning, match="lowest was"):
        fit(model, [EnergyBudget(1e-13), Saver()], 3)
    other = network()
    other.load_weights(tmp_path / "w.weights.h5")
    restored = float(keras.ops.convert_to_numpy(other.layers[1].energy_weight))
    assert restored == pytest.approx(seen[-1])
    with pytest.warns(UserWarning, match="lowest was"):
        history = fit(other, [EnergyBudget(1e-13, rate=0)], 1)
    assert history["energy_weight"] == [pytest.approx(seen[-1])]


class Backwards(keras.Model):
    """Calls its layers in another order than it holds them, and one of them never."""

    def __init__(self):
        super().__init__()
        self.unused = SpinNeuron(name="unused")
        self.late, self.early = SpinNeuron(name="late"), SpinNeuron(name="early")
        self.first, self.last = keras.layers.Dense(5), keras.layers.Dense(4, activation="sigmoid")

    def call(self, inputs):
        return self.last(self.late(self.early(self.first(inputs))))


def in_a_row():
    return keras.Sequential(
        [keras.layers.Dense(5), SpinNeuron(), keras.layers.Dense(4), SpinNeuron()]
    )


@pytest.mark.backends
@pytest.mark.filterwarnings("ignore:`build..` was called on layer")
@pytest.mark.parametrize("eager", [True, pytest.param(False, marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "make",
    [
        pytest.param(in_a_row, marks=pytest.mark.slow),
        pytest.param(lambda: keras.Sequential([in_a_row()]), marks=pytest.mark.slow),
        Backwards,
    ],
)
def test_a_model_that_the_first_step_builds_starts_at_the_same_weight(make, eager):
    """Its weights after two steps are those of a model that was built before the fit."""
    x, y = problem(8)
    ends = []
    for early in (True, False):
        keras.utils.set_random_seed(1)
        model = make()
        model.compile(keras.optimizers.SGD(0.5), "binary_crossentropy", run_eagerly=eager)
        if early:
            model(x)
        budget = EnergyBudget(1e-6, rate=0, start=2.0, monitor="loss")
        log = model.fit(x, y, batch_size=4, verbose=0, shuffle=False, callbacks=[budget]).history
        assert log["energy_weight"] == [2.0]
        prices = [layer.energy_weight for layer in spinkeras.spin_neurons(model) if layer.built]
        assert not any(float(keras.ops.convert_to_numpy(v)) for v in prices)
        ends.append(model.get_weights())
    for expected, found in zip(*ends, strict=True):
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_a_weight_loaded_while_the_first_step_is_awaited_is_kept():
    class Loads(keras.callbacks.Callback):
        def on_train_begin(self, logs=None):
            self.model.build((None, 12))
            self.model.layers[1].energy_weight.assign(0.5)

    model = in_a_row()
    model.compile("sgd", "binary_crossentropy", run_eagerly=True)
    budget = EnergyBudget(1e-6, rate=0, start=2.0, monitor="loss")
    log = model.fit(*problem(8), verbose=0, callbacks=[budget, Loads()]).history
    assert log["energy_weight"] == [0.5]


def mean_output(y_true, y_pred):
    return keras.ops.mean(y_pred)


@pytest.mark.backends
def test_auto_asks_the_metric_which_direction_is_better():
    """One fit, in which every metric is also asked by its key of the logs."""
    metrics = keras.metrics
    up = [
        metrics.TopKCategoricalAccuracy(2, name="top2"),
        *(metrics.Precision(), metrics.Recall(name="found"), metrics.AUC(name="area")),
        *(metrics.F1Score(average="micro"), metrics.R2Score(), "accuracy"),
    ]
    down = ["mse", metrics.KLDivergence(name="accuracy_of_the_law")]
    unknown = [metrics.FalsePositives(name="auc_errors"), mean_output]
    model = network()
    model.compile("sgd", "binary_crossentropy", metrics=[*up, *down, *unknown], run_eagerly=True)
    budget = EnergyBudget(1e-6)
    log = fit(model, [budget], 1, problem(8), batch_size=8, validation_data=problem(8))

    def direction(key):  # private: a budget shows the direction of its own metric only
        try:
            return budget._direction(key)
        except ValueError:
            return "asks"

    found = {key: direction(key) for key in log}
    high = {"top2", "precision", "found", "area", "f1_score", "r2_score", "accuracy"}
    low = {"loss", "mse", "accuracy_of_the_law", "energy_pj", "energy_pj_hidden", "energy_pj_out"}
    asks = {"auc_errors", "mean_output"}
    for names, expected in ((high, "max"), (low, "min"), (asks, "asks")):
        keys = [prefix + name for name in names for prefix in ("", "val_")]
        assert [found.pop(key) for key in keys] == [expected] * len(keys)
    only = {"latency_ns": "min", "share_at_limit": "min", "energy_weight": "min"}
    assert found == {**only, "retention_s": "asks"}


@pytest.mark.slow
def test_auto_knows_the_outputs_of_a_model_and_restores_the_best_epoch():
    source = keras.Input((12,))
    flow = SpinNeuron()(keras.layers.Dense(4)(source))
    outputs = [keras.layers.Dense(4, "sigmoid", name=name)(flow) for name in ("a", "b")]
    model = keras.Model(source, outputs)
    x, y = problem(16)
    kinds = [[keras.metrics.Recall()], ["mse"]]
    model.compile(keras.optimizers.SGD(0.5), ["mse", "mse"], metrics=kinds, run_eagerly=True)
    for monitor, best in (
        ("val_a_recall", np.argmax),
        ("val_b_mse", np.argmin),
        ("val_a_loss", np.argmin),
    ):
        budget = EnergyBudget(1e-6, monitor=monitor)
        log = fit(model, [budget], 2, (x, [y, y]), validation_data=(x, [y, y]))
        assert budget.best_epoch == best(log[monitor])
    asks = EnergyBudget(1e-6, monitor="val_score")

    class Scores(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            logs["val_score"] = 1.0

    with pytest.raises(
        ValueError, match=r"whether a high or a low 'val_score' is better; give mode"
    ):
        fit(model, [Scores(), asks], 1, (x, [y, y]), validation_data=(x, [y, y]))


def test_limits_and_monitor_are_checked():
    for options, word in (
        ({"limit": 2.0}, r"limit = 2 J is outside .* J\. Hint: 2 pJ is 2e-12"),
        ({"limit": 0.0}, "limit"),
        ({"limit": 1e-12, "rate": -1}, "rate"),
        ({"limit": 1e-12, "start": 5.0}, "start"),
        ({"limit": 1e-12, "margin": 0.9}, "margin"),
        ({"limit": 1e-12, "highest": 0}, "highest"),
    ):
        with pytest.raises(ValueError, match=word):
            EnergyBudget(**options)
    with pytest.raises(ValueError, match="mode = 'best'"):
        EnergyBudget(1e-12, mode="best")
    with pytest.raises(ValueError, match="monitors 'val_f1'"):
        fit(network(), [EnergyBudget(1e-12, monitor="val_f1")], 1)


@pytest.mark.backends
def test_evaluation_holds_no_price():
    model = network()
    x, y = problem()
    plain = model.evaluate(x, y, verbose=0, return_dict=True)["loss"]
    budget = EnergyBudget(1e-12)
    for layer in spinkeras.spin_neurons(model):
        layer.energy_weight.assign(2.0)
    priced = model.evaluate(x, y, verbose=0, return_dict=True, callbacks=[budget])["loss"]
    assert priced == pytest.approx(plain, rel=1e-6)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param({"shared_axes": (1, 2), "train": "anisotropy"}, marks=pytest.mark.slow),
        {"pulses": 3, "driver": Driver(pulse_step=1e-9, gate_levels=5), "recenter": False},
    ],
)
def test_the_compiled_meter_and_its_gradient_are_those_of_plain_operations(options):
    class Plain(SpinNeuron):  # subclasses are not compiled
        pass

    x = np.random.default_rng(0).normal(size=(8, 3, 4, 2)).astype("float32")
    ends = []
    for kind in (SpinNeuron, Plain):
        layer = kind(knob_scale=1.0, **options)
        model = keras.Sequential([keras.Input((3, 4, 2)), layer])
        model.compile(keras.optimizers.SGD(0.1), "mse")
        layer.pulse_width, layer.gate_voltage = 3.4e-9, 0.3
        budget = EnergyBudget(1e-6, rate=0, start=2.0, monitor="loss", mode="min")
        fit = {"epochs": 3, "verbose": 0, "shuffle": False, "callbacks": [budget]}
        history = model.fit(x, x, **fit).history
        ends.append([history["energy_pj"], *map(np.array, model.trainable_weights)])
    for fused, plain in zip(*ends):
        np.testing.assert_allclose(fused, plain, rtol=2e-5, atol=2e-6)
