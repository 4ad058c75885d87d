"""What spinkeras takes from Keras's private parts is still there, and does what it did.

Each test names the part: when one fails after an update of Keras, look at that function of
`spinkeras/_keras.py`. Runs on every backend.
"""

import keras
import numpy as np
import pytest
from keras import ops

from spinkeras import SpinNeuron, _keras
from tests.harness import BACKEND

pytestmark = pytest.mark.backends

x = np.ones((4, 3), "float32")


class Spy(keras.layers.Layer):
    """Calls a function while it is called; what that returns is added to a list."""

    def __init__(self, look, seen):
        super().__init__()
        self.note = lambda layer: seen.append(look(layer))
        self.supports_masking = True

    def call(self, inputs):
        self.note(self)
        return inputs


def test_all_layers_reaches_activations():
    neuron = SpinNeuron()
    model = keras.Sequential([keras.Sequential([keras.layers.Dense(3, activation=neuron)])])
    model(x)
    assert any(layer is neuron for layer in _keras.all_layers(model))


def test_graphs_layers_and_compilation_show_their_parts():
    inputs = keras.Input((3, 2))
    masked = keras.layers.Masking()(inputs)
    outer = keras.layers.TimeDistributed(keras.layers.Dense(1, activation=keras.layers.ReLU()))
    outputs = outer(masked)
    assert _keras.operation_of(outputs) is outer
    named = {"a": keras.Input((1,), name="a"), "b": [keras.Input((2,))]}
    given = _keras.input_structure(keras.Model(named, named["a"]))
    keras.tree.assert_same_structure(given, named)
    assert given["b"][0].shape == (None, 2)
    assert _keras.input_structure(keras.Model()) is None
    (dense,) = _keras.inner_layers(outer)
    assert [type(one) for one in _keras.inner_layers(dense)] == [keras.layers.ReLU]
    assert _keras.inner_layers(keras.Operation()) == []
    assert _keras.has_mask(masked)
    assert not _keras.has_mask(inputs)
    function = keras.layers.Lambda(lambda x: x[:, :1], output_shape=(1,))
    assert _keras.output_shape_of(function) == (1,)
    model = keras.Model(inputs, outputs)
    model.compile("sgd", "mse", metrics=["mae"])
    given = _keras.compile_arguments(model)
    assert given["loss"] == "mse"
    assert given["metrics"] == ["mae"]
    x, y = np.ones((2, 3, 2)), np.ones((2, 3, 1))
    start = keras.callbacks.LambdaCallback(on_train_begin=lambda logs: _keras.begin_at(model, 2))
    assert model.fit(x, y, epochs=3, verbose=0, callbacks=[start]).epoch == [2]


def test_outermost_and_forward_pass_are_those_of_the_call():
    seen = []
    spy = Spy(lambda layer: (_keras.outermost(layer), _keras.forward_pass(layer)), seen)
    model = keras.Sequential([keras.Input((3,)), spy, keras.layers.Dense(2)])
    seen.clear()
    model(x)
    model(x)
    spy(x)
    (outer, first), (_, second), (own, third) = seen
    assert outer is model
    assert own is spy
    assert len({id(first), id(second), id(third)}) == 3
    assert _keras.is_whole(first, model) or BACKEND == "jax"
    assert not _keras.is_whole(third, model)
    if BACKEND == "jax":  # where a training step calls the model so
        seen.clear()
        values = [
            [v.value for v in variables]
            for variables in (model.trainable_variables, model.non_trainable_variables)
        ]
        model.stateless_call(*values, x)
        assert _keras.is_whole(seen[0][1], model)


def test_enclosing_calls_names_layers_and_masks():
    def look(layer):
        return [(type(outer).__name__, len(masks)) for outer, masks in _keras.enclosing_calls()]

    seen = []
    inside = Spy(look, seen)
    inputs = keras.Input((5,), dtype="int32")
    flow = keras.layers.Embedding(3, 4, mask_zero=True)(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2, activation=inside)(flow))
    seen.clear()
    model(np.array([[1, 0, 0, 0, 0]]))
    assert seen == [[("Spy", 0), ("Dense", 1), ("Functional", 0)]]


@pytest.mark.parametrize("name", ["map", "vectorized_map"])
def test_enclosing_map_names_the_operation(name):
    seen = []

    def function(row):
        seen.append(_keras.enclosing_map())
        return row

    getattr(ops, name)(function, ops.convert_to_tensor(x))
    assert set(seen) == {name}
    assert _keras.enclosing_map() is None


@pytest.mark.skipif(BACKEND == "jax", reason="known there by what is traced")
def test_rematerialization_is_seen():
    seen = []
    spy = Spy(lambda layer: _keras.is_rematerialized(), seen)
    spy(x)
    keras.remat(spy)(ops.convert_to_tensor(x))
    assert seen == [False, True]


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5")
def test_legacy_files_are_seen(tmp_path):
    seen = []

    class Watched(keras.layers.Dense):
        @property
        def weights(self):
            seen.append(_keras.is_legacy_file())
            return super().weights

    model = keras.Sequential([keras.Input((3,)), Watched(2)])
    model.save(tmp_path / "m.keras")
    assert not any(seen)
    model.save(tmp_path / "m.h5")
    assert any(seen)


def test_a_running_fit_is_seen():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
    seen = []
    look = keras.callbacks.LambdaCallback(
        on_epoch_end=lambda epoch, logs: seen.append(_keras.is_fitting())
    )
    model.fit(x, x[:, :1], verbose=0, callbacks=[look])
    assert [*seen, _keras.is_fitting()] == [True, False]


def test_metric_direction_is_that_of_the_metric():
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    metrics = [keras.metrics.R2Score(name="fit"), "mse", keras.metrics.FalsePositives()]
    model.compile("sgd", "mse", metrics=metrics, run_eagerly=True)
    assert _keras.metric_direction(model, "fit") is None  # before Keras builds the metrics
    model.fit(x, x[:, :1], verbose=0)
    keys = ("fit", "mse", "false_positives", "loss", "other")
    assert [_keras.metric_direction(model, k) for k in keys] == ["up", "down", None, None, None]


@pytest.mark.parametrize("phase", ["train", "test"])
def test_make_step_leaves_the_model_alone(phase):
    class Own(keras.Sequential):
        """Its own `make_*_function` calls that of its parent, as a user's may."""

        def make_train_function(self, force=False):
            return super().make_train_function(force)

    model = Own([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=True)
    before, calls = dict(vars(model)), []

    def around(step, *args):
        calls.append(len(args))
        return step(*args)

    step = _keras.make_step(model, phase, around)
    name = f"{phase}_function"
    assert getattr(model, name) is before[name] is None
    setattr(model, name, step)
    getattr(model, {"train": "fit", "test": "evaluate"}[phase])(x, x[:, :1], verbose=0)
    assert calls == [2 if BACKEND == "jax" else 1]


def test_updated_reaches_the_model():
    """A variable that is not trained gets another value inside a step."""
    neuron = SpinNeuron()
    model = keras.Sequential([keras.Input((3,)), neuron, keras.layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=BACKEND != "jax")

    def around(step, *args):
        update = (neuron.meter_sums, lambda sums: sums + 2.0)
        return _keras.result_with(model, step(*args), [update])

    model.train_function = _keras.make_step(model, "train", around)
    model.fit(x, x[:, :1], batch_size=2, verbose=0)
    np.testing.assert_array_equal(ops.convert_to_numpy(neuron.meter_sums), np.full(5, 4.0))
    model.train_function = None
    model.fit(x, x[:, :1], batch_size=2, verbose=0)
    np.testing.assert_array_equal(ops.convert_to_numpy(neuron.meter_sums), np.full(5, 4.0))
