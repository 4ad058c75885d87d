"""What a layer keeps in files and copies, and what is refused. Runs on every backend.

The bounds of the raw weights (`_ranges`) have no public name, as read-outs are clipped.
"""

import copy
import json
import pathlib
import pickle
import subprocess
import sys

import keras
import numpy as np
import pytest
from keras import ops

import spinkeras
from spinkeras import SpinNeuron
from spinkeras.layer import stored
from spinkeras.layer.knobs import KNOBS
from spinkeras.layer.observation import Observation, observing
from tests.harness import (
    BACKEND,
    gradients,
    some_slow,
)
from tests.layer.harness import FAST, VARIANTS

pytestmark = pytest.mark.backends


def small_model(**kwargs):
    return keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3), SpinNeuron(name="spin", **kwargs)]
    )


def test_keras_file_reloads_in_a_fresh_process(tmp_path):
    model = small_model(device=FAST, pulse_width_regularizer="l2", switching_model="macrospin")
    rng = np.random.default_rng(1)
    model.layers[-1].pulse_width = rng.uniform(0.5e-9, 2e-9, 3)
    model.layers[-1].gate_voltage = rng.uniform(-1, 1, 3)
    x = rng.normal(size=(20, 4)).astype("float32")
    model.save(tmp_path / "model.keras")
    np.savez(tmp_path / "data.npz", x=x, y=ops.convert_to_numpy(model(x)))
    script = """
import sys, numpy as np, keras, spinkeras
folder = sys.argv[1]
model = keras.saving.load_model(folder + "/model.keras")
data = np.load(folder + "/data.npz")
np.testing.assert_allclose(keras.ops.convert_to_numpy(model(data["x"])), data["y"], atol=1e-6)
expected = spinkeras.MTJDevice.preset("stt_reference").replace(pulse_width_range=(0.5e-9, 2e-9))
assert model.layers[-1].device == expected
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True, timeout=300)


def test_weights_load_by_name_across_train_and_scale(tmp_path):
    """Stored by index, a file with one trained knob would swap the two arrays silently."""
    first = small_model(train="anisotropy")
    first.layers[-1].pulse_width = [2e-9, 5e-9, 9e-9]
    first.layers[-1].gate_voltage = [-0.5, 0.0, 0.5]
    path = tmp_path / "m.weights.h5"
    first.save_weights(path)
    for kwargs in ({}, {"train": ()}, {"train": "pulse_width", "knob_scale": 10.0}):
        second = small_model(**kwargs)
        second.load_weights(path)
        np.testing.assert_allclose(second.layers[-1].pulse_width, [2e-9, 5e-9, 9e-9], rtol=1e-6)
        np.testing.assert_allclose(second.layers[-1].gate_voltage, [-0.5, 0.0, 0.5], atol=1e-5)


@pytest.mark.skipif(
    keras.version() < "3.15", reason="the file is of Keras 3.15, which older ones cannot read"
)
def test_a_file_of_version_0_1_0_keeps_its_knobs_and_gets_the_new_curve():
    """Written before the rational logit; with grids, a spread and a measured curve of that time."""
    folder = pathlib.Path(__file__).parent / "data"
    expected = json.loads((folder / "saved_by_0_1_0.json").read_text())
    model = keras.saving.load_model(folder / "saved_by_0_1_0.keras", compile=False)
    layers = spinkeras.spin_neurons(model)
    assert [layer.name for layer in layers] == ["spin", "raw", "measured", "channel"]
    for layer in layers:
        then = expected[layer.name]
        assert layer.current_scale == then["current_scale"]
        np.testing.assert_allclose(layer.pulse_width, then["pulse_width"], rtol=1e-6)
        np.testing.assert_allclose(layer.anisotropy, then["anisotropy"], rtol=1e-6)
    answer = model.predict(np.array(expected["probe"]), verbose=0)
    assert 0 < np.max(np.abs(answer - expected["answer"])) < 0.02


@pytest.mark.parametrize("recenter", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_weights_outside_the_box_drive_its_edge(recenter, training):
    """As weight averaging leaves them. The knob still has a gradient, so that it can come back."""
    layers = [SpinNeuron(recenter=recenter) for _ in range(2)]
    x = np.linspace(-2, 2, 12).reshape(4, 3).astype("float32")
    answers = []
    for layer, factor in zip(layers, (1.0, 1.5)):
        layer.build((None, 3))
        for knob, weight in zip(KNOBS, layer.knob_weights()):
            low, high = layer._ranges[knob].bounds
            weight.assign(factor * np.array([low, high, high]))
        answers.append(ops.convert_to_numpy(layer(x, training=training)))
        assert np.max(layer.pulse_width) <= layer.device.pulse_width_range[1]
    np.testing.assert_allclose(*answers, atol=1e-6)

    def total(w):
        with keras.StatelessScope([(layers[1].log_pulse_width, w)]):
            return ops.sum(layers[1](x[3:], training=training))

    (slope,) = gradients(total, layers[1].log_pulse_width)
    assert np.all(slope != 0) or not recenter  # a raw threshold saturates there


@pytest.mark.parametrize("training", [True, False])
def test_a_fixed_knob_has_no_gradient(training):
    layer = SpinNeuron(train="pulse_width")
    layer.build((None, 3))

    def total(w, k):
        with keras.StatelessScope([(layer.log_pulse_width, w), (layer.log_anisotropy, k)]):
            return ops.sum(layer(np.ones((2, 3), "float32"), training=training))

    trained, fixed = gradients(total, *layer.knob_weights())
    assert np.all(trained != 0)
    assert fixed is None or not np.any(fixed)  # JAX has zeros


def test_saving_is_exact(tmp_path):
    model = small_model()
    rng = np.random.default_rng(2)
    box = model.layers[-1]._ranges["pulse_width"]
    model.layers[-1].log_pulse_width.assign(rng.uniform(*box.bounds, 3).astype("float32"))
    before = ops.convert_to_numpy(model.layers[-1].log_pulse_width)
    model.save_weights(tmp_path / "m.weights.h5")
    model.load_weights(tmp_path / "m.weights.h5")
    np.testing.assert_array_equal(ops.convert_to_numpy(model.layers[-1].log_pulse_width), before)


def test_loading_into_a_narrower_device_is_announced(tmp_path, device):
    model = small_model()
    model.layers[-1].pulse_width = 20e-9
    model.save_weights(tmp_path / "m.weights.h5")
    narrow = small_model(device=device.replace(pulse_width_range=(2e-9, 10e-9)))
    with pytest.warns(UserWarning, match=r"3 of 3 loaded values of pulse_width are outside"):
        narrow.load_weights(tmp_path / "m.weights.h5")
    np.testing.assert_allclose(narrow.layers[-1].pulse_width, 10e-9, rtol=1e-6)


def test_bad_stores_are_refused():
    layer = SpinNeuron(name="spin")
    layer.build((None, 2))
    good = {"pulse_width": np.full(2, 3e-9), "anisotropy": np.full(2, 110e3)}
    with pytest.raises(ValueError, match="holds no 'anisotropy' for layer 'spin'"):
        layer.load_own_variables({"pulse_width": good["pulse_width"]})
    with pytest.raises(ValueError, match=r"shape \(3,\) for layer 'spin', which needs \(2,\)"):
        layer.load_own_variables({**good, "pulse_width": np.full(3, 3e-9)})
    with pytest.raises(ValueError, match="not finite and > 0"):
        layer.load_own_variables({**good, "anisotropy": np.array([np.nan, 1e5])})


def test_legacy_files_of_other_layers_load_by_name(tmp_path):
    """As pretrained ones do."""
    plain = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="dense")])
    plain.save(tmp_path / "plain.h5")
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3, name="dense"), SpinNeuron()])
    model.load_weights(tmp_path / "plain.h5", by_name=True, skip_mismatch=True)
    np.testing.assert_array_equal(model.get_weights()[0], plain.get_weights()[0])


def test_nothing_is_taken_from_a_file_that_is_refused(tmp_path):
    """Keras goes on after an error where it is asked to skip what does not fit."""
    path = tmp_path / "m.weights.h5"
    for knob in KNOBS:
        model, other = small_model(), small_model()
        model.layers[-1].pulse_width = 5e-9
        model.layers[-1].gate_voltage = 0.5
        getattr(model.layers[-1], f"log_{knob}").assign([0.1, np.nan, 0.1])
        model.save_weights(path)
        before = other.layers[-1].get_weights()
        with pytest.warns(UserWarning, match="could not be loaded"):
            other.load_weights(path, skip_mismatch=True)
        np.testing.assert_equal(other.layers[-1].get_weights(), before)


@keras.saving.register_keras_serializable(package="test_neuron")
class Subclassed(keras.Model):
    def __init__(self, neuron, **kwargs):
        super().__init__(**kwargs)
        self.dense = keras.layers.Dense(3)
        self.neuron = neuron
        self.never_called = type(neuron)()

    def build(self, input_shape):
        self.dense.build(input_shape)
        if not self.neuron.built:
            self.neuron.build((None, 3))

    def call(self, x):
        return self.neuron(self.dense(x))

    def get_config(self):
        return {"neuron": keras.saving.serialize_keras_object(self.neuron)}

    @classmethod
    def from_config(cls, config):
        return cls(keras.saving.deserialize_keras_object(config["neuron"]))


def functional(neuron):
    """Two uses of one neuron."""
    inputs = keras.Input((4,))
    return keras.Model(inputs, neuron(keras.layers.Dense(3)(neuron(keras.layers.Dense(3)(inputs)))))


MODELS = {
    "sequential": lambda neuron: keras.Sequential([keras.layers.Dense(3), neuron]),
    "with input": lambda neuron: keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(3), neuron]
    ),
    "functional": functional,
    "nested twice": lambda neuron: keras.Sequential(
        [keras.Sequential([keras.Sequential([keras.layers.Dense(3), neuron])])]
    ),
    "activation": lambda neuron: keras.Sequential([keras.layers.Dense(3, activation=neuron)]),
    "subclassed": Subclassed,
}


X = np.random.default_rng(0).normal(size=(2, 4)).astype("float32")


def built(build, neuron, x=X):
    model = build(neuron)
    model(x)
    return model


@pytest.mark.parametrize("model", some_slow(MODELS, "nested twice", "subclassed"))
def test_the_order_of_the_weights_does_not_depend_on_what_is_trained(model):
    knobs = ("pulse_width", "anisotropy")
    kinds = [{"train": train} for train in ((), *knobs, knobs)] + [{"trainable": False}]
    models = [built(MODELS[model], SpinNeuron(**kind)) for kind in kinds]
    models.append(built(MODELS[model], SpinNeuron()))
    models[-1].trainable = False
    for first in models:
        neuron = spinkeras.spin_neurons(first)[0]
        neuron.pulse_width, neuron.gate_voltage = [2e-9, 5e-9, 9e-9], [-0.5, 0.0, 0.5]
        values = first.get_weights()
        for second in models:
            second.set_weights([0 * w for w in values])
            second.set_weights(values)
            neuron = spinkeras.spin_neurons(second)[0]
            np.testing.assert_allclose(neuron.pulse_width, [2e-9, 5e-9, 9e-9], rtol=1e-6)
            np.testing.assert_allclose(neuron.gate_voltage, [-0.5, 0.0, 0.5], atol=1e-5)
    names = {"log_pulse_width", "log_anisotropy"}
    for first, kind in zip(models, [(), knobs[:1], knobs[1:], knobs, (), ()]):
        trained = {w.name for w in first.trainable_weights} & names
        assert trained == {f"log_{knob}" for knob in kind}


@pytest.mark.parametrize("model", some_slow(MODELS, "nested twice", "activation"))
def test_legacy_files_are_refused(model, tmp_path, monkeypatch):
    """Their numbers have no units. Also those that were written without the refusal."""
    first = built(MODELS[model], SpinNeuron())
    spinkeras.spin_neurons(first)[0].pulse_width = 12e-9
    with pytest.raises(ValueError, match=r"cannot be saved in a legacy `.h5` file.*`.weights.h5`"):
        first.save(tmp_path / "new.h5")
    with monkeypatch.context() as patch:
        patch.setattr(stored, "refuse_legacy_file", lambda layer: None)
        first.save(tmp_path / "old.h5")
    keras.utils.clear_session(free_memory=False)  # for the same names
    second = built(MODELS[model], SpinNeuron(knob_scale=1.0))
    for options in ({}, {"by_name": True}, {"skip_mismatch": True}):
        with pytest.raises(ValueError, match=r"cannot be saved in a legacy"):
            second.load_weights(tmp_path / "old.h5", **options)
    for neuron in spinkeras.spin_neurons(second)[:1]:
        np.testing.assert_array_equal(neuron.pulse_width, neuron.device.nominal_pulse_width)
    with pytest.raises(ValueError, match=r"cannot be saved in a legacy"):
        keras.models.load_model(tmp_path / "old.h5", {"Subclassed": Subclassed})


COPIES = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": lambda layer: pickle.loads(pickle.dumps(layer)),
}


OPTIONS = {
    "on a grid": {
        "driver": spinkeras.Driver(pulse_step=1e-9, gate_levels=8),
        "spread": spinkeras.ChipSpread(),
    },
    "measured": {
        "output": "sampled",
        "seed": 3,
        "switching_model": spinkeras.EmpiricalCurve(
            threshold=50e-6, slope=0.05e6, pulse_width=2e-9, slope_exponent=0.5
        ),
    },
    **VARIANTS,
}


def assert_independent(copied, original):
    assert not {id(w) for w in copied.weights} & {id(w) for w in original.weights}
    before = original.get_weights()
    for weight in copied.weights:
        weight.assign(np.ones(weight.shape))
    np.testing.assert_equal(original.get_weights(), before)


@pytest.mark.parametrize("options", some_slow(OPTIONS, "on a grid", "measured"))
def test_copies_of_a_layer(options):
    x = X[:, :3]
    for duplicate in COPIES.values():
        layer = SpinNeuron(**OPTIONS[options])
        assert layer.get_weights() == []
        assert duplicate(layer)(x).shape == x.shape
        layer(x)
        layer.log_pulse_width.assign([0.0, 0.05, 0.1])
        copied = duplicate(layer)
        np.testing.assert_allclose(copied.pulse_width, layer.pulse_width, rtol=1e-6)
        np.testing.assert_allclose(*map(ops.convert_to_numpy, (copied(x), layer(x))), atol=1e-6)
        assert_independent(copied, layer)


def tried(function, *args):
    try:
        return function(*args)
    except ValueError as error:
        return error


@pytest.mark.parametrize("model", some_slow(MODELS, "activation", "subclassed"))
@pytest.mark.parametrize("is_built", [False, True])
@pytest.mark.filterwarnings("ignore:You are saving a model that has not yet been built")
def test_copies_and_files_of_a_model(model, is_built, tmp_path):
    """What works with Keras' own PReLU works with a spin neuron, and nothing else."""

    def keras_file(original):
        original.save(tmp_path / "m.keras")
        return keras.models.load_model(tmp_path / "m.keras")

    def weights_file(original, fresh):
        original.save_weights(tmp_path / "m.weights.h5")
        fresh.load_weights(tmp_path / "m.weights.h5")
        return fresh

    def clone(original):
        copied = keras.models.clone_model(original)
        copied(X)
        if is_built:
            copied.set_weights(original.get_weights())
        return copied

    def into_built(original):
        return weights_file(original, built(MODELS[model], kinds[original]()))

    def into_unbuilt(original):
        return weights_file(original, MODELS[model](kinds[original]()))

    make = built if is_built else lambda build, neuron: build(neuron)
    for way in (copy.deepcopy, keras_file, clone, into_built, into_unbuilt):
        kinds = {make(MODELS[model], kind()): kind for kind in (keras.layers.PReLU, SpinNeuron)}
        _, original = kinds
        if is_built:
            spinkeras.spin_neurons(original)[0].pulse_width = [2e-9, 5e-9, 9e-9]
        expected, copied = (tried(way, one) for one in kinds)
        assert type(expected) is type(copied)
        if not isinstance(copied, ValueError):
            answer = ops.convert_to_numpy(copied(X))
            assert answer.shape == (2, 3)
            if is_built:
                expected = ops.convert_to_numpy(original(X))
                np.testing.assert_allclose(answer, expected, atol=1e-6)
                assert_independent(copied, original)


def test_a_file_with_weights_for_an_unbuilt_neuron_is_refused(tmp_path):
    model = built(MODELS["activation"], SpinNeuron(name="spin"))
    model.save_weights(tmp_path / "m.weights.h5")
    inner = keras.layers.Dense(3, activation=SpinNeuron(name="spin"))
    fresh = keras.Sequential([keras.Input((4,)), inner])
    with pytest.raises(ValueError, match="'spin', but the layer is not built"):
        fresh.load_weights(tmp_path / "m.weights.h5")
    fresh(X)
    fresh.load_weights(tmp_path / "m.weights.h5")


@pytest.mark.parametrize("options", some_slow(["on a grid", "raw"], "on a grid"))
def test_averaged_weights_are_read_as_they_drive(options, tmp_path):
    """Keras averages what is not yet projected, so the weights themselves leave the box."""
    model, tabled = small_model(**OPTIONS[options]), small_model(**OPTIONS[options])
    layer = model.layers[-1]
    x = X.repeat(8, axis=0)
    optimizer = keras.optimizers.SGD(20.0, use_ema=True, ema_momentum=0.9)
    model.compile(optimizer, "mse", run_eagerly=BACKEND != "jax")
    average = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    model.fit(x, x[:, :3] < 0, epochs=3, verbose=0, callbacks=[average])
    bounds = [layer._ranges[knob].bounds for knob in KNOBS]
    raw = [ops.convert_to_numpy(weight) for weight in layer.knob_weights()]
    outside = [(w < low - 1e-3) | (w > high + 1e-3) for w, (low, high) in zip(raw, bounds)]
    assert np.any(outside)
    # The answer is that of the read-outs in NumPy.
    drive = ops.convert_to_numpy(model.layers[0](x)).astype("float64")
    current = layer.bias_current + layer.current_scale * drive
    answer = ops.convert_to_numpy(model(x))
    expected = spinkeras.switching_probability(
        current, layer.pulse_width, layer.device, layer.anisotropy
    )
    np.testing.assert_allclose(answer, expected, atol=2e-6)

    # The same holds for the constant knobs of an export, for a file and for the driver's table.
    class Constant(Observation):
        def knobs(self, layer):
            return raw

    with observing(Constant([layer])):
        np.testing.assert_allclose(ops.convert_to_numpy(model(x)), answer, atol=2e-6)
    model.save(tmp_path / "m.keras")
    loaded = keras.models.load_model(tmp_path / "m.keras")
    tabled.layers[0].set_weights(model.layers[0].get_weights())
    spinkeras.apply_device_settings(tabled, spinkeras.device_settings(model))
    energy = spinkeras.energy_report(model, x, print_fn=None).total_pj
    for other in (loaded, tabled):
        np.testing.assert_allclose(ops.convert_to_numpy(other(x)), answer, atol=2e-6)
        found = spinkeras.energy_report(other, x, print_fn=None).total_pj
        assert found == pytest.approx(energy, rel=1e-6)
