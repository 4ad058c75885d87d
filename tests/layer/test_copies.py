"""The copies that `to_spin` makes: weights, compilation, configuration; the old model stays."""

import warnings

import keras
import numpy as np
import pytest
from keras import layers

import spinkeras
from spinkeras import _keras
from spinkeras.layer.conversion import to_spin
from tests.harness import some_slow
from tests.layer.networks import data, dense, outputs, run, small

pytestmark = pytest.mark.backends


class Squared(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return keras.ops.square(keras.ops.subtract(y_true, y_pred))


class Slow(keras.optimizers.SGD):
    pass


class Falling(keras.optimizers.schedules.LearningRateSchedule):
    def __call__(self, step):
        return 0.1 / (1 + keras.ops.cast(step, "float32"))

    def get_config(self):
        return {}


class Counted(keras.metrics.MeanSquaredError):
    pass


def off(y_true, y_pred):
    return keras.ops.mean(keras.ops.subtract(y_true, y_pred), -1)


FROZEN = {
    "dense": dense,
    "activation": lambda **k: layers.Activation("sigmoid", **k),
    "LSTM": lambda **k: layers.LSTM(2, **k),
    "wrapped": lambda **k: layers.TimeDistributed(dense(**k)),
    "both": lambda **k: layers.Bidirectional(layers.GRU(2, **k)),
    "nested": lambda **k: keras.Sequential([keras.Input((3, 2)), dense(**k)]),
}


PENALISED = {
    "dense": lambda p: dense(activity_regularizer=p),
    "activation": lambda p: layers.Activation("sigmoid", activity_regularizer=p),
    "LSTM": lambda p: layers.LSTM(2, activity_regularizer=p),
    "wrapper": lambda p: layers.TimeDistributed(dense(), activity_regularizer=p),
    "wrapped activation": lambda p: layers.TimeDistributed(
        layers.Activation("sigmoid"), activity_regularizer=p
    ),
    "nested": lambda p: keras.Sequential([keras.Input((3, 2)), dense(activity_regularizer=p)]),
}


KERAS_TAKES_NO_FUNCTIONS = keras.__version__.startswith("3.14.")


class Penalty(keras.regularizers.Regularizer):
    def __call__(self, w):
        return 0.0 * keras.ops.sum(w)

    def get_config(self):
        return {}


class TestOldModel:
    def test_is_never_touched(self):
        old = small()
        before, config = old.get_weights(), old.to_json()
        x = data(16, 4)
        answer = outputs(old, x)
        spin = to_spin(old)
        run(spin, x)
        assert old.to_json() == config
        for a, b in zip(before, old.get_weights()):
            np.testing.assert_array_equal(a, b)
        np.testing.assert_array_equal(outputs(old, x), answer)

    def test_state_that_is_not_trained_is_copied(self):
        old = keras.Sequential(
            [
                keras.Input((4,)),
                layers.Dense(3, activation="relu"),
                layers.BatchNormalization(name="norm"),
                layers.Dense(2),
            ]
        )
        old.compile("adam", "mse")
        old.fit(data(32, 4), np.zeros((32, 2)), verbose=0)
        new = to_spin(old).get_layer("norm").get_weights()
        for a, b in zip(old.get_layer("norm").get_weights(), new):
            np.testing.assert_array_equal(a, b)

    def test_compiled_like_the_old_one(self):
        old = small()
        old.compile(keras.optimizers.SGD(0.25), "mse", metrics=["mae"])
        spin = to_spin(old)
        assert float(spin.optimizer.learning_rate) == 0.25
        assert spin.optimizer is not old.optimizer
        assert not to_spin(small()).compiled

    @pytest.mark.parametrize("functional", [False, True])
    def test_compiled_with_objects_that_keras_does_not_know(self, functional):
        metrics = [off, Counted(), keras.metrics.MeanMetricWrapper(off, name="wrapped")]
        cases = [
            {"optimizer": Slow(0.25), "loss": [Squared()]},
            {"optimizer": keras.optimizers.SGD(Falling()), "loss": off},
            {"loss": lambda *y: off(*y), "metrics": [*metrics, lambda *y: off(*y), "mae"]},
        ]
        old = small()
        if functional:
            old = keras.Model(old.inputs[0], old.outputs[0])
        for case in cases:
            old.compile(**{"optimizer": "sgd", "run_eagerly": True} | case)
            new = to_spin(old)
            assert type(new.optimizer) is type(old.optimizer)
            assert new.optimizer is not old.optimizer
            assert old.compiled
        (_, *losses), (_, *others) = (
            model.test_on_batch(data(2, 4), np.zeros((2, 2))) for model in (new, old)
        )
        assert len(losses) == len(others) == 5
        assert not {id(v) for v in new.metrics_variables} & {id(v) for v in old.metrics_variables}

    def test_what_cannot_be_made_anew_is_named(self):
        class Bare(keras.metrics.Mean):
            def __init__(self, of, **kwargs):
                super().__init__(**kwargs)

        old = small()
        old.compile("adam", "mse", metrics=[Bare(3)])
        with pytest.warns(UserWarning, match=r"not compiled: .*metrics of 'net'.*Call `compile`"):
            assert not to_spin(old).compiled

    def test_compiled_models_inside_are_converted(self):
        inner = small()
        inner = keras.Model(inner.inputs[0], inner.outputs[0])
        inner.compile(Slow(), off)
        x = keras.Input((4,))
        new = to_spin(keras.Model(x, layers.Dense(1)(inner(x))))
        assert len(spinkeras.spin_neurons(new)) == 2
        assert inner.compiled

    @pytest.mark.parametrize("penalty", [Penalty(), lambda w: 0.0 * keras.ops.sum(w)])
    def test_layers_with_objects_that_keras_does_not_know(self, penalty):
        options = {"kernel_regularizer": penalty, "activity_regularizer": penalty}
        step = layers.TimeDistributed(layers.Dense(3, activation="relu", **options))
        parts = [keras.Input((5, 4)), step, layers.LSTM(2, kernel_regularizer=penalty)]
        if not isinstance(penalty, Penalty) and KERAS_TAKES_NO_FUNCTIONS:
            pytest.skip("Keras 3.14 takes no function as a regularizer")
        with warnings.catch_warnings():  # Keras warns of lambdas in every configuration
            warnings.simplefilter("ignore")
            spin = to_spin(keras.Sequential([*parts, layers.Dense(2, **options)]))
        assert spin.layers[-1].kernel_regularizer is penalty
        assert len(spinkeras.spin_neurons(spin)) == 3

    @pytest.mark.parametrize("mode", some_slow(["int8", "int4", "float8"], "int8"))
    @pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize` method")
    def test_quantized_layers_stay_quantized(self, mode, tmp_path):
        inner = keras.Sequential(
            [keras.Input((4,)), layers.Dense(4, activation="sigmoid"), layers.ReLU()]
        )
        parts = [layers.EinsumDense("ab,bc->ac", 4, activation="tanh"), layers.Dense(2)]
        old = keras.Sequential([keras.Input((4,)), inner, *parts])
        old.quantize(mode)
        old.save(tmp_path / "m.keras")
        x = data(8, 4)
        for model in (old, keras.models.load_model(tmp_path / "m.keras")):
            spin = to_spin(model)
            neurons = spinkeras.spin_neurons(spin)
            assert [neuron.dtype_policy.name for neuron in neurons] == 3 * ["float32"]
            for place in (lambda m: m.layers[0].layers[0], lambda m: m.layers[-1]):
                stores = {}, {}
                for layer, store in zip((place(old), place(spin)), stores):
                    assert layer.quantization_mode == mode
                    layer.save_own_variables(store)
                for before, after in zip(*(store.values() for store in stores)):
                    np.testing.assert_array_equal(*map(keras.ops.convert_to_numpy, (before, after)))
            assert spinkeras.energy_report(spin, x, print_fn=None).total_pj > 0

    def test_frozen_layers_stay_frozen(self):
        old = small()
        old.get_layer("first").trainable = False
        spin = to_spin(old)
        assert not spin.get_layer("first").trainable
        assert not spin.get_layer("first_spin").trainable
        assert spin.get_layer("second_spin").trainable
        old.trainable = False
        old.get_layer("second").trainable = True
        frozen = [layer.name for layer in to_spin(old).layers if not layer.trainable]
        assert frozen == ["first", "first_spin", "head"]
        assert not to_spin(old, trainable=False).get_layer("second_spin").trainable

    @pytest.mark.parametrize("when", some_slow(["made", "later", "inside"], "later"))
    @pytest.mark.parametrize("kind", some_slow(FROZEN, "dense", "activation"))
    def test_the_neuron_of_a_frozen_layer_is_frozen(self, kind, when):
        layer = FROZEN[kind](**({"trainable": False} if when == "made" else {}))
        old = keras.Sequential([keras.Input((3, 2)), layer])
        if when == "later":
            assert len(to_spin(old).trainable_variables) > len(old.trainable_variables)
            layer.trainable = False
        elif when == "inside":
            for inner in _keras.inner_layers(layer) or [layer]:
                inner.trainable = False
        new = to_spin(old)
        assert len(new.trainable_variables) == len(old.trainable_variables) == 0
        assert spinkeras.spin_neurons(new)

    @pytest.mark.parametrize("kind", some_slow(PENALISED, "dense", "activation"))
    def test_an_activity_regularizer_applies_to_the_neuron(self, kind):
        penalty = keras.regularizers.L2(0.1)
        x, flow = data(8, 3, 2), keras.Input((3, 2))
        flow = PENALISED[kind](penalty)(inputs := flow)
        old = keras.Model(inputs, flow)
        new = to_spin(old)
        assert spinkeras.spin_neurons(new)
        values = outputs(old, x), outputs(new, x)
        losses = [list(map(keras.ops.convert_to_numpy, model.losses)) for model in (old, new)]
        assert len(losses[0]) == len(losses[1])
        for loss, value in zip(losses, values):
            np.testing.assert_allclose(loss, 0.1 * np.sum(value**2) / 8, rtol=1e-5)

    def test_an_activity_regularizer_of_a_shared_layer_follows_the_calls(self):
        dense = layers.Dense(3, activation="sigmoid", activity_regularizer="l2", name="d")
        x = [keras.Input((5, 4)), keras.Input((4,))]
        old = keras.Model(x, [layers.TimeDistributed(dense, name="t")(x[0]), dense(x[1])])
        new = to_spin(old)
        assert list(new.output_names) == list(old.output_names) == ["t", "d"]
        values = new([data(2, 5, 4), data(2, 4)])
        (loss,) = new.losses  # inside TimeDistributed Keras takes no loss
        expected = 0.01 * np.sum(keras.ops.convert_to_numpy(values[1]) ** 2) / 2
        np.testing.assert_allclose(keras.ops.convert_to_numpy(loss), expected, rtol=1e-5)

    def test_save_and_load(self, tmp_path):
        spin = to_spin(small())
        spin.save(tmp_path / "spin.keras")
        loaded = keras.models.load_model(tmp_path / "spin.keras")
        np.testing.assert_allclose(outputs(loaded, data(8, 4)), outputs(spin, data(8, 4)))

    def test_unbuilt_model(self):
        old = keras.Sequential([layers.Dense(3, activation="sigmoid"), layers.Dense(2)])
        spin = to_spin(old)
        assert outputs(spin, data(2, 4)).shape == (2, 2)
