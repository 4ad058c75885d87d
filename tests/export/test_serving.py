"""Export, real servers, hostile requests and hostile files."""

import http.client
import importlib.util
import io
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
import urllib.request
import zipfile

import keras
import numpy as np
import pytest
import scipy.stats

import spinkeras
from spinkeras import EmpiricalCurve, MTJDevice, SpinNeuron
from spinkeras.export import litert, portable
from tests.processes import ROOT, environment

tf = pytest.importorskip("tensorflow")
if keras.backend.backend() != "tensorflow":
    pytest.skip("exports need the TensorFlow backend", allow_module_level=True)

HERE = pathlib.Path(__file__).resolve().parent
ENVIRONMENT = environment()


def mlp(seed=1, device="stt_reference"):
    """Two spin layers with knobs that differ from neuron to neuron."""
    keras.utils.set_random_seed(seed)
    model = keras.Sequential(
        [
            keras.Input((16,), name="pixels"),
            keras.layers.Dense(12),
            SpinNeuron(name="spin_a"),
            keras.layers.Dense(8),
            SpinNeuron(device, name="spin_b"),
            keras.layers.Dense(10, activation="softmax", name="digit"),
        ]
    )
    for layer in spinkeras.spin_neurons(model):
        low, high = layer.device.pulse_width_range
        layer.pulse_width = np.geomspace(low, high, layer.pulse_width.size)
    return model


def samples(count, size=16, seed=0):
    scale = np.geomspace(0.01, 30, count)[:, None]
    return (np.random.default_rng(seed).standard_normal((count, size)) * scale).astype("float32")


def signature(path, name):
    """A signature of a SavedModel as a function from and to NumPy arrays."""
    loaded = tf.saved_model.load(str(path))

    def run(**inputs):
        inputs = {key: tf.constant(value) for key, value in inputs.items()}
        return {key: value.numpy() for key, value in loaded.signatures[name](**inputs).items()}

    return run


def example(name):
    """A program of `examples/` as a module, to test its parts without a server."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def visible(path):
    return sorted(p.name for p in pathlib.Path(path).iterdir() if not p.name.startswith("."))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """An exported network: (model, base folder)."""
    model = mlp()
    base = tmp_path_factory.mktemp("served") / "digits"
    spinkeras.export_for_serving(model, base, sample=True)
    return model, base


# --- SavedModel ----------------------------------------------------------------------------------


def test_serve_gives_the_models_outputs_under_their_names(exported):
    model, base = exported
    x = samples(50)
    got = signature(base / "1", "serving_default")(pixels=x)
    assert list(got) == ["digit"]
    np.testing.assert_allclose(got["digit"], model.predict(x, verbose=0), rtol=1e-5, atol=1e-7)
    assert set(tf.saved_model.load(str(base / "1")).signatures) >= {"serve", "energy", "sample"}


def test_energy_is_that_of_each_sample(exported):
    model, base = exported
    x = samples(5, seed=3)
    got = signature(base / "1", "energy")(pixels=x)
    assert set(got) == {"energy_pj", "energy_pj_spin_a", "energy_pj_spin_b"}
    for k in range(len(x)):
        report = spinkeras.energy_report(model, x[k : k + 1], print_fn=None)
        assert got["energy_pj"][k] == pytest.approx(report.total_pj, rel=1e-5)
        for row in report.layers:
            wanted = pytest.approx(row["total_pj"], rel=1e-5)
            assert got[f"energy_pj_{row['name']}"][k] == wanted
    assert np.ptp(got["energy_pj"]) > 0.1  # pJ: the samples really differ


def test_energy_takes_its_assumptions(tmp_path):
    model = mlp(device="stt_ikeda2010")
    free = spinkeras.EnergyAssumptions(reset=False, read_voltage=0.0)
    spinkeras.export_for_serving(model, tmp_path, assumptions=free)
    x = samples(1)
    wanted = spinkeras.energy_report(model, x, assumptions=free, print_fn=None).total_pj
    got = signature(tmp_path / "1", "energy")(pixels=x)["energy_pj"][0]
    assert got == pytest.approx(wanted, rel=1e-5)
    notes = json.loads((tmp_path / "1" / "assets.extra" / "spinkeras.json").read_text())
    assert any("reset none" in line for line in notes["energy_assumptions"])
    assert MTJDevice.from_config(notes["devices"][1]) == MTJDevice.preset("stt_ikeda2010")


def test_nested_shared_masked_and_named_networks(tmp_path):
    """Energy per sample with a layer used twice, inside a wrapper, and with masked steps."""
    tokens = keras.Input((3,), dtype="int32", name="tokens")
    x = keras.layers.Embedding(5, 4, mask_zero=True)(tokens)
    x = SpinNeuron(name="masked")(x)
    x = keras.layers.GlobalAveragePooling1D()(x)
    other = keras.Input((4,), name="other")
    twice = SpinNeuron(name="twice")
    x = keras.layers.Concatenate()([twice(x), twice(other)])
    steps = keras.layers.RepeatVector(2)(x)
    steps = keras.layers.TimeDistributed(SpinNeuron(name="wrapped"))(steps)
    model = keras.Model(
        {"tokens": tokens, "other": other},
        {"mean": keras.layers.GlobalAveragePooling1D()(steps), "last": x},
    )
    report = spinkeras.export_for_serving(model, tmp_path)
    assert (sorted(report.inputs), sorted(report.outputs)) == (
        ["other", "tokens"],
        ["last", "mean"],
    )
    data = {
        "tokens": np.array([[1, 2, 3], [4, 0, 0], [0, 0, 1]], "int32"),
        "other": samples(3, 4),
    }
    got = signature(tmp_path / "1", "serve")(**data)
    want = model.predict(data, verbose=0)
    for name in want:
        np.testing.assert_allclose(got[name], want[name], rtol=1e-5)
    energies = signature(tmp_path / "1", "energy")(**data)
    for k in range(3):
        one = {name: value[k : k + 1] for name, value in data.items()}
        for row in spinkeras.energy_report(model, one, print_fn=None).layers:
            got = energies[f"energy_pj_{row['name']}"][k]
            assert got == pytest.approx(row["total_pj"], rel=1e-5), row["name"]


def test_automatic_names_do_not_reach_the_client(tmp_path):
    model = keras.Sequential([keras.Input((2,)), SpinNeuron()])
    report = spinkeras.export_for_serving(model, tmp_path, energy=False)
    assert (report.inputs, report.outputs) == (("input",), ("output_0",))
    report = spinkeras.export_for_serving(model, tmp_path, energy=False, output_names=["p"])
    assert report.outputs == ("p",)
    assert list(signature(report.path, "serve")(input=np.zeros((1, 2), "float32"))) == ["p"]


def test_a_subclassed_model_needs_its_signature(tmp_path):
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.spin = SpinNeuron(name="inner")

        def call(self, inputs):
            return {"p": self.spin(inputs)}

    model = Own()
    with pytest.raises(ValueError, match="call it on data"):
        spinkeras.export_for_serving(model, tmp_path)
    model(np.zeros((1, 3), "float32"))
    with pytest.raises(ValueError, match="give `input_signature`"):
        spinkeras.export_for_serving(model, tmp_path)
    spec = keras.layers.InputSpec(shape=(None, 3), dtype="float32", name="x")
    spinkeras.export_for_serving(model, tmp_path, input_signature=spec)
    assert visible(tmp_path) == ["1"]
    np.testing.assert_allclose(
        signature(tmp_path / "1", "energy")(x=np.zeros((2, 3), "float32"))["energy_pj"],
        spinkeras.energy_report(model, np.zeros((1, 3), "float32"), print_fn=None).total_pj,
        rtol=1e-5,
    )


def test_export_in_the_middle_of_a_measured_training(tmp_path):
    """Then every layer carries a meter that writes state; the export must not, nor disturb it."""

    class Export(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            self.export()

        def on_test_end(self, logs=None):
            self.export()

        def export(self):
            layers = spinkeras.spin_neurons(self.model)
            before = [dict(layer.__dict__) for layer in layers]
            spinkeras.export_for_serving(self.model, tmp_path, energy=False)
            for layer, state in zip(layers, before):
                assert layer.__dict__.keys() == state.keys()
                assert all(layer.__dict__[key] is state[key] for key in state)

    model = neuron()
    model.compile("sgd", "mse")
    x, y = samples(8, 3), np.zeros((8, 3))
    width = model.layers[-1].pulse_width.copy()
    history = model.fit(
        x,
        y,
        epochs=2,
        validation_data=(x, y),
        verbose=0,
        callbacks=[Export(), spinkeras.EnergyTracker()],
    ).history
    assert visible(tmp_path) == ["1", "2", "3", "4"]
    assert not any("Assign" in op for op in operations(tmp_path / "1", "serve"))
    # The knobs still are variables, and learn; the meters still count.
    assert np.any(model.layers[-1].pulse_width != width)
    assert history["energy_pj"][1] == pytest.approx(history["energy_pj"][0], rel=0.1)
    # The last validation saw the final knobs, and none of the probes of the export within it.
    wanted = spinkeras.energy_report(model, x, print_fn=None).total_pj
    assert history["val_energy_pj"][1] == pytest.approx(wanted, rel=1e-5)
    got = signature(tmp_path / "4", "serve")(x=x)["spin"]
    np.testing.assert_allclose(got, model.predict(x, verbose=0), rtol=1e-5)


def operations(path, name):
    """Types of all operations of a signature, in its functions as well."""
    loaded = tf.saved_model.load(str(path))
    definition = loaded.signatures[name].graph.as_graph_def()
    nodes = [*definition.node, *(n for f in definition.library.function for n in f.node_def)]
    return {node.op for node in nodes}


@pytest.mark.parametrize("name", ["serve", "energy", "sample"])
def test_no_endpoint_writes_state_or_needs_python(exported, name):
    ops = operations(exported[1] / "1", name)
    assert not [op for op in ops if "Assign" in op or "PyFunc" in op or op.startswith("Rng")]
    assert ("RandomUniform" in ops) == (name == "sample")


# --- samples -------------------------------------------------------------------------------------


def neuron():
    model = keras.Sequential([keras.Input((3,), name="x"), SpinNeuron(name="spin")])
    model.layers[-1].pulse_width = [2e-9, 5e-9, 20e-9]
    return model


def test_sample_draws_bits_with_the_switching_probability(tmp_path):
    model = neuron()
    spinkeras.export_for_serving(model, tmp_path, sample=True)
    sample = signature(tmp_path / "1", "sample")
    count = 20_000
    x = np.array([[-2.0, 0.3, 1.0]], "float32")
    bits = sample(x=np.repeat(x, count, axis=0))["spin"]
    assert set(np.unique(bits)) == {0.0, 1.0}
    for ones, p in zip(bits.sum(axis=0), model.predict(x, verbose=0)[0]):
        assert scipy.stats.binomtest(int(ones), count, float(p)).pvalue > 1e-6
    again = sample(x=np.repeat(x, count, axis=0))["spin"]
    assert np.any(bits != again)
    # Independent from neuron to neuron: the correlation of two columns has a spread of 1/sqrt(n).
    correlation = np.corrcoef(bits.T)[np.triu_indices(3, 1)]
    assert np.all(np.abs(correlation) < 5 / np.sqrt(count))


def test_bits_feed_the_layers_that_follow(exported):
    """With hidden bits the output takes one of the values that bit patterns allow."""
    model, base = exported
    x = samples(1, seed=5)
    got = signature(base / "1", "sample")(pixels=np.repeat(x, 64, axis=0))["digit"]
    assert len(np.unique(got.round(5), axis=0)) > 10
    patterns = (np.arange(2**8)[:, None] >> np.arange(8) & 1).astype("float32")
    allowed = model.get_layer("digit")(patterns).numpy()
    distance = np.abs(got[:, None] - allowed).max(axis=-1).min(axis=-1)
    np.testing.assert_allclose(distance, 0, atol=1e-6)
    assert np.abs(allowed - model.predict(x, verbose=0)).max(axis=-1).min() > 1e-4


def test_layers_that_sample_by_themselves(tmp_path):
    """`serve` and `energy` stay those of the expected network; `sample` averages the pulses."""
    keras.utils.set_random_seed(4)
    model = keras.Sequential(
        [
            keras.Input((3,), name="x"),
            SpinNeuron(output="always_sampled", pulses=5, name="spin_a"),
            SpinNeuron(output="sampled", pulses=3, name="spin_b"),
        ]
    )
    expected = keras.Sequential([keras.Input((3,), name="x"), SpinNeuron(), SpinNeuron()])
    spinkeras.export_for_serving(model, tmp_path / "m", sample=True)
    x = samples(4, 3)
    got = signature(tmp_path / "m" / "1", "serve")(x=x)["spin_b"]
    np.testing.assert_allclose(got, expected.predict(x, verbose=0), rtol=1e-5)
    energy = signature(tmp_path / "m" / "1", "energy")(x=x)
    for k in range(4):
        rows = spinkeras.energy_report(expected, x[k : k + 1], print_fn=None).layers
        for row, name, pulses in zip(rows, ("spin_a", "spin_b"), (5, 3)):
            wanted = row["total_pj"] * pulses - row["gate_pj"] * (pulses - 1)  # one gate charge
            assert energy[f"energy_pj_{name}"][k] == pytest.approx(wanted, rel=1e-5)

    count = 3000
    sample = signature(tmp_path / "m" / "1", "sample")
    drawn = sample(x=np.repeat(x[:1], count, axis=0))["spin_b"]
    thirds = np.unique((drawn * 3).round(4))
    np.testing.assert_array_equal(thirds, [0, 1, 2, 3])
    # The first layer answers in fifths; the mean of the second is that over its binomial law.
    p = SpinNeuron()(x[:1]).numpy()[0, 0]
    fifths = np.arange(6) / 5
    second = SpinNeuron()(fifths[:, None].astype("float32")).numpy()[:, 0]
    wanted = np.sum(scipy.stats.binom.pmf(np.arange(6), 5, p) * second)
    error = np.abs(drawn[:, 0].mean() - wanted)
    assert error < 5 * drawn[:, 0].std() / np.sqrt(count)


def test_a_seed_repeats_the_samples_of_a_server_and_none_never_does(tmp_path):
    model = neuron()
    x = np.zeros((200, 3), "float32")
    keras.utils.set_random_seed(1)  # of no influence on what a server draws

    def first_requests(path):
        sample = signature(path, "sample")
        return np.stack([sample(x=x)["spin"] for _ in range(2)])

    seeded = spinkeras.export_for_serving(model, tmp_path / "a", sample=True, energy=False, seed=3)
    fresh = spinkeras.export_for_serving(model, tmp_path / "b", sample=True, energy=False)
    one, two = first_requests(seeded.path), first_requests(seeded.path)
    np.testing.assert_array_equal(one, two)
    assert np.any(one[0] != one[1])
    assert np.any(first_requests(fresh.path) != first_requests(fresh.path))


# --- versions ------------------------------------------------------------------------------------


def test_versions_count_up_and_are_never_overwritten(tmp_path):
    model = neuron()
    (tmp_path / "7").mkdir()
    (tmp_path / "notes.txt").write_text("not a version")
    assert spinkeras.export_for_serving(model, tmp_path, energy=False).path.name == "8"
    assert spinkeras.export_for_serving(model, tmp_path, energy=False, version=3).path.name == "3"
    before = (tmp_path / "8" / "saved_model.pb").read_bytes()
    with pytest.raises(ValueError, match="never overwritten"):
        spinkeras.export_for_serving(model, tmp_path, energy=False, version=8)
    assert (tmp_path / "8" / "saved_model.pb").read_bytes() == before
    assert spinkeras.export_for_serving(model, tmp_path, energy=False).path.name == "9"
    assert not list(tmp_path.glob(".*"))
    report = spinkeras.export_for_serving(model, tmp_path, energy=False, version=12.0)
    assert report.path.name == "12"  # servers skip "12.0"
    for version in (0, -1, 1.5, True, np.inf, "2", 2**63):
        with pytest.raises(ValueError, match=r"version = .* must be a whole number from 1"):
            spinkeras.export_for_serving(model, tmp_path, energy=False, version=version)


def test_two_exporters_never_share_a_number(tmp_path, monkeypatch):
    """Another exporter publishes between our look at the folder and our rename."""
    rename = os.rename
    lost = []

    def slower(source, target):
        if not lost:
            lost.append(pathlib.Path(target))
            target.mkdir()
            (target / "saved_model.pb").write_text("theirs")
        rename(source, target)

    monkeypatch.setattr(os, "rename", slower)
    report = spinkeras.export_for_serving(neuron(), tmp_path, energy=False)
    assert report.path.name == "2"
    assert (lost[0] / "saved_model.pb").read_text() == "theirs"


def start(*arguments):
    return subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=ENVIRONMENT,
        text=True,
    )


def read_until(process, word):
    lines = []
    for line in process.stdout:
        lines.append(line)
        if line.startswith(word):
            return line.strip()
    raise AssertionError(f"the process ended without {word!r}:\n{''.join(lines)}")


@pytest.mark.parametrize(
    "stage",
    [
        pytest.param("rename", marks=pytest.mark.slow),
        pytest.param("write", marks=pytest.mark.slow),
        pytest.param("check", marks=pytest.mark.slow),
    ],
)
def test_a_killed_export_leaves_no_version(tmp_path, stage):
    x = np.ones((1, 3), "float32")
    spinkeras.export_for_serving(neuron(), tmp_path, energy=False)
    want = signature(tmp_path / "1", "serve")(x=x)["spin"]
    process = start(HERE / "export_and_wait.py", tmp_path, stage)
    with process:
        read_until(process, "here")
        os.kill(process.pid, signal.SIGKILL)
    assert process.returncode == -signal.SIGKILL
    assert visible(tmp_path) == ["1"]
    assert list(tmp_path.glob(".export-*"))  # the half version exists, under a name nobody serves
    np.testing.assert_array_equal(signature(tmp_path / "1", "serve")(x=x)["spin"], want)
    assert spinkeras.export_for_serving(neuron(), tmp_path, energy=False).path.name == "2"


@pytest.mark.slow
@pytest.mark.parametrize("delay", [0.0, 0.2, 0.5, 1.0, 2.0, None])
def test_an_export_killed_at_any_time_leaves_whole_versions_only(tmp_path, delay):
    process = start(HERE / "export_and_wait.py", tmp_path, "none")
    with process:
        read_until(process, "exporting")
        if delay is None:  # once not before it is done: then the version must be there
            read_until(process, "done")
        else:
            time.sleep(delay)
        process.kill()
    assert visible(tmp_path) in ([["1"]] if delay is None else [[], ["1"]])
    for name in visible(tmp_path):
        got = signature(tmp_path / name, "serve")(x=np.zeros((1, 4), "float32"))["spin"]
        assert np.all(np.isfinite(got))


# --- refusals ------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable(package="test_serving")
class Doing(keras.layers.Layer):
    """A layer that does what a test wants in its call."""

    def __init__(self, do, **kwargs):
        super().__init__(**kwargs)
        self.do = do
        self.mean = keras.metrics.Mean()
        self.drop = keras.layers.Dropout(0.5)

    def call(self, inputs):
        return self.do(self, inputs)


def counting(layer, x):
    layer.mean.update_state(x)
    return x


def in_python(layer, x):
    return tf.ensure_shape(tf.numpy_function(np.negative, [x], tf.float32), x.shape)


def noisy(layer, x):
    return x + 1e-9 * tf.random.uniform(tf.shape(x))


def dropping(layer, x):
    return layer.drop(x, training=True)


def unsupported(layer, x):
    return x + tf.math.lgamma(tf.abs(x) + 1.5)


def losing(layer, x):
    return tf.math.expm1(x * 1e-9) * 1e9  # LiteRT: exp(x) - 1, which is 0 here


def model_with(do):
    return keras.Sequential([keras.Input((3,), name="x"), SpinNeuron(name="spin"), Doing(do)])


@pytest.mark.parametrize(
    ("do", "message"),
    [(counting, "writes state"), (in_python, "calls Python")],
)
def test_networks_that_no_server_can_run_are_refused(tmp_path, do, message):
    with pytest.raises(ValueError, match=message):
        spinkeras.export_for_serving(model_with(do), tmp_path / "m", energy=False)
    assert list((tmp_path / "m").iterdir()) == []


@pytest.mark.parametrize("factor", [1.001, np.nan])
def test_a_network_that_answers_otherwise_after_export_is_refused(tmp_path, factor):
    model = model_with(lambda layer, x: x * (1 if tf.executing_eagerly() else factor))
    message = {1.001: r"0\.001"}.get(factor, "nan")
    with pytest.raises(ValueError, match=f"differs from the model's by {message}"):
        spinkeras.export_for_serving(model, tmp_path / "m", energy=False)
    assert list((tmp_path / "m").iterdir()) == []


def test_samples_that_cannot_be_served_are_refused(tmp_path):
    """Probabilities of 1/2 pass through this layer; bits do not."""
    model = model_with(lambda layer, x: 1 / (x * (1 - x)))
    probe = np.zeros((2, 3), "float32")
    with pytest.raises(ValueError, match="'sample' gives NaN or infinite values of 'output_0'"):
        spinkeras.export_for_serving(model, tmp_path / "m", energy=False, sample=True, probe=probe)
    assert list((tmp_path / "m").iterdir()) == []


def test_energy_that_cannot_be_told_apart_is_refused(tmp_path):
    steps = keras.Sequential(
        [keras.Input((None, 3)), keras.layers.TimeDistributed(SpinNeuron(name="inner"))]
    )
    with pytest.raises(
        ValueError, match=r"(?s)'inner' runs in a vectorized map or in TimeDistributed"
    ):
        spinkeras.export_for_serving(steps, tmp_path, probe=samples(2, 9).reshape(2, 3, 3))
    turned = keras.Sequential(
        [
            keras.Input((3,)),
            keras.layers.Lambda(lambda x: tf.reverse(x, [0])),
            SpinNeuron(),
        ]
    )
    with pytest.raises(ValueError, match="cannot be told apart by sample"):
        spinkeras.export_for_serving(turned, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_graph_that_fails_where_keras_does_not_is_refused(tmp_path):
    """Keras 3.15: TimeDistributed over unknown steps fails in a graph if batch > steps."""
    steps = keras.Sequential(
        [keras.Input((None, 3)), keras.layers.TimeDistributed(keras.layers.Dense(2))]
    )
    probe = np.zeros((8, 3, 3), "float32")
    try:
        report = spinkeras.export_for_serving(steps, tmp_path, energy=False, probe=probe)
    except ValueError as error:
        assert "does not run on the probe" in str(error)  # noqa: PT017  (either is right)
        assert list(tmp_path.iterdir()) == []
    else:
        signature(report.path, "serve")(input=probe)


def test_arguments_are_checked(tmp_path):
    plain = keras.Sequential([keras.Input((3,)), keras.layers.Dense(2)])
    with pytest.raises(ValueError, match="no SpinNeuron"):
        spinkeras.export_for_serving(plain, tmp_path)
    assert spinkeras.export_for_serving(plain, tmp_path, energy=False).output_error <= 1e-6
    with pytest.raises(ValueError, match=r"needs a keras\.Model"):
        spinkeras.export_for_serving(SpinNeuron(), tmp_path)
    model = neuron()
    for seed in (-1, 1.5, "3", 2**31):
        with pytest.raises(ValueError, match=r"seed = .* must be a whole number from 0"):
            spinkeras.export_for_serving(model, tmp_path, sample=True, seed=seed)
    with pytest.raises(ValueError, match="one name for each of 1 outputs"):
        spinkeras.export_for_serving(model, tmp_path, output_names=["a", "b"])
    with pytest.raises(ValueError, match="cannot name an input or output"):
        spinkeras.export_for_serving(model, tmp_path, output_names=["a b"])
    with pytest.raises(ValueError, match="one array per input"):
        spinkeras.export_for_serving(model, tmp_path, probe=np.zeros((0, 3)))
    model.layers[-1].log_pulse_width.assign([np.nan] * 3)
    with pytest.raises(ValueError, match="NaN or infinite on the probe"):
        spinkeras.export_for_serving(model, tmp_path)
    with pytest.raises(ValueError, match=r"must end in '\.tflite'"):
        spinkeras.export_litert(neuron(), tmp_path / "m.onnx")


@pytest.mark.slow
def test_another_backend_is_told_what_to_do(tmp_path):
    pytest.importorskip("jax")
    script = (
        "import keras, spinkeras; from spinkeras import serving\n"
        "model = keras.Sequential([keras.Input((3,)), spinkeras.SpinNeuron()])\n"
        "try: serving.export_for_serving(model, 'x')\n"
        "except ValueError as error: print(error)"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        env={**ENVIRONMENT, "KERAS_BACKEND": "jax"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "export it with KERAS_BACKEND=tensorflow" in result.stdout


# --- LiteRT and ONNX -----------------------------------------------------------------------------


def run_litert(path, **inputs):
    try:
        from ai_edge_litert.interpreter import Interpreter
    except ImportError:
        pytest.skip("ai-edge-litert is not installed")
    runner = Interpreter(model_path=str(path)).get_signature_runner("serving_default")
    return runner(**inputs)


def run_onnx(path, **inputs):
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return dict(zip((o.name for o in session.get_outputs()), session.run(None, inputs)))


def run_saved_model(path, **inputs):
    return signature(path, "serve")(**inputs)


def export_saved_model(model, path):
    return spinkeras.export_for_serving(model, path, energy=False)


FORMATS = {
    "tflite": (spinkeras.export_litert, run_litert),
    "onnx": (spinkeras.export_onnx, run_onnx),
}


@pytest.fixture(params=list(FORMATS))
def file_format(request):
    if request.param == "onnx":
        pytest.importorskip("tf2onnx")
        pytest.importorskip("onnxruntime")
    return (request.param, *FORMATS[request.param])


def test_files_give_the_models_outputs(tmp_path, file_format):
    suffix, export, run = file_format
    model = mlp()
    report = export(model, tmp_path / f"m.{suffix}")
    assert report.output_error < 1e-5
    assert report.neuron_error < 1e-4
    x = samples(40, seed=9)
    for size in (1, 40):  # the batch size is free
        got = run(report.path, pixels=x[:size])["digit"]
        np.testing.assert_allclose(got, model.predict(x[:size], verbose=0), atol=1e-4)
    assert visible(tmp_path) == [f"m.{suffix}"]
    assert not list(tmp_path.glob(".*"))


def test_dictionaries_and_a_subclassed_model(tmp_path, file_format):
    suffix, export, run = file_format

    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.spin = SpinNeuron(name="inner")
            self.dense = keras.layers.Dense(3)

        def call(self, inputs):
            return {"p": self.spin(inputs["u"]), "a": self.dense(inputs["t"])}

    model = Own()
    data = {"u": samples(4, 3), "t": samples(4, 2)}
    want = model(data)
    shapes = {name: (None, value.shape[1]) for name, value in data.items()}
    spec = {n: keras.layers.InputSpec(shape=s, dtype="float32", name=n) for n, s in shapes.items()}
    report = export(model, tmp_path / f"m.{suffix}", input_signature=spec)
    assert (set(report.inputs), set(report.outputs)) == ({"u", "t"}, {"p", "a"})
    got = run(report.path, **data)
    for name in want:
        np.testing.assert_allclose(got[name], want[name], atol=1e-4)


@pytest.mark.slow
def test_convolutions_nesting_and_several_inputs(tmp_path, file_format):
    suffix, export, run = file_format
    image = keras.Input((6, 6, 1), name="image")
    extra = keras.Input((2,), name="extra")
    inner = keras.Sequential(
        [keras.Input((6, 6, 1)), keras.layers.Conv2D(3, 3), SpinNeuron(name="conv_spin")]
    )
    x = keras.layers.Flatten()(inner(image))
    x = keras.layers.Concatenate()([x, SpinNeuron(name="extra_spin", recenter=False)(extra)])
    model = keras.Model([image, extra], [keras.layers.Dense(2, name="left")(x), x])
    report = export(model, tmp_path / f"m.{suffix}")
    assert (report.inputs, report.outputs) == (("image", "extra"), ("left", "output_1"))
    data = {"image": samples(4, 36).reshape(4, 6, 6, 1), "extra": samples(4, 2)}
    got = run(report.path, **data)
    want = model.predict(list(data.values()), verbose=0)
    for name, value in zip(report.outputs, want):
        np.testing.assert_allclose(got[name], value, atol=1e-4)


def test_a_measured_curve_is_carried_with_its_ceiling(tmp_path, file_format):
    suffix, export, run = file_format
    measured = SpinNeuron(switching_model=EmpiricalCurve.preset("sot_80nm"), name="measured")
    channel = SpinNeuron("vgsot_zhang2020", name="channel")
    model = keras.Sequential([keras.Input((3,), name="x"), measured, channel])
    measured.pulse_width = [2e-9, 3e-9, 5e-9]
    channel.gate_voltage = [-0.2, 0.0, 0.2]
    x = np.linspace(-12, 12, 90, dtype="float32").reshape(-1, 3)
    want = model.predict(x, verbose=0)
    for path, runner in (
        (export(model, tmp_path / f"m.{suffix}").path, run),
        (export_saved_model(model, tmp_path / "saved").path, run_saved_model),
    ):
        np.testing.assert_allclose(runner(path, x=x)["channel"], want, atol=1e-5)


LAWS = {
    "macrospin": {},
    "neel_brown": {"switching_model": spinkeras.NeelBrown(attempt_time=1e-10)},
    "ballistic": {"switching_model": "ballistic"},
}


@pytest.mark.filterwarnings("ignore:The ballistic law is inaccurate")
@pytest.mark.parametrize("suffix", [*FORMATS, "saved_model"])
@pytest.mark.parametrize(
    "law",
    [
        "macrospin",
        *(pytest.param(law, marks=pytest.mark.slow) for law in ("neel_brown", "ballistic")),
    ],
)
def test_exports_keep_tiny_probabilities(tmp_path, suffix, law):
    """1e-4 of the probability itself down to 1e-12, 1e-3 of it down to 1e-30."""
    if suffix == "onnx":
        pytest.importorskip("tf2onnx")
    export, run = FORMATS.get(suffix, (export_saved_model, run_saved_model))
    model = keras.Sequential([keras.Input((3,), name="x"), SpinNeuron(name="spin", **LAWS[law])])
    layer = model.layers[-1]
    layer.pulse_width = [2e-9, 6e-9, 20e-9]
    report = export(model, tmp_path / f"m.{suffix}")
    x = (np.linspace(-60, 30, 600)[:, None] / (4 * layer.slope)).astype("float32")
    want = model.predict(x, verbose=0).astype("float64")
    got = run(report.path, x=x)["spin"].astype("float64")
    assert np.min(want) < 1e-15
    for floor, tolerance in ((1e-12, 1e-4), (1e-30, 1e-3)):
        seen = want > floor
        np.testing.assert_allclose(got[seen], want[seen], rtol=tolerance)
    np.testing.assert_allclose(got, want, atol=1e-6)


def test_a_served_neuron_saturates(tmp_path):
    """Far beyond the curve, where the clip of the trained form is missing."""
    report = export_saved_model(neuron(), tmp_path)
    x = np.array([[-3e38] * 3, [-1e6] * 3, [1e6] * 3, [3e38] * 3], "float32")
    got = signature(report.path, "serve")(x=x)["spin"]
    np.testing.assert_array_equal(got, np.repeat([[0], [0], [1], [1]], 3, axis=1))


def test_a_layer_that_always_samples_is_not_put_into_a_file(tmp_path, file_format):
    suffix, export, _ = file_format
    model = keras.Sequential([keras.Input((3,), name="x"), SpinNeuron(output="always_sampled")])
    with pytest.raises(ValueError, match="always samples"):
        export(model, tmp_path / f"m.{suffix}")
    assert visible(tmp_path) == []


@pytest.mark.parametrize(
    ("do", "message"),
    [
        (dropping, "writes state"),
        (counting, "writes state"),
        (noisy, "draws random numbers"),
        (unsupported, "cannot carry this network"),
    ],
)
def test_formats_refuse_what_they_cannot_carry(tmp_path, file_format, do, message):
    suffix, export, _ = file_format
    path = tmp_path / f"m.{suffix}"
    path.write_text("what was here before")
    with pytest.raises(ValueError, match=message):
        export(model_with(do), path)
    assert visible(tmp_path) == [path.name]
    assert not list(tmp_path.glob(".*"))
    assert path.read_text() == "what was here before"


def test_a_file_that_computes_something_else_is_refused(tmp_path):
    with pytest.raises(ValueError, match="differs from the model's"):
        spinkeras.export_litert(model_with(losing), tmp_path / "m.tflite")
    assert visible(tmp_path) == []


def test_a_neuron_whose_tail_is_lost_is_refused(tmp_path, monkeypatch):
    """Outputs agree to 1e-4, but a probability of 1e-9 comes back as zero."""
    run = litert._run_litert

    def flush(content, network):
        return [np.where(value < 1e-8, 0, value) for value in run(content, network)]

    monkeypatch.setattr(litert, "_run_litert", flush)
    with pytest.raises(ValueError, match="gives 0 for a probability of"):
        spinkeras.export_litert(neuron(), tmp_path / "m.tflite")
    assert visible(tmp_path) == []


def test_a_neuron_that_gives_nan_is_refused():
    alone = portable._neurons_alone(spinkeras.spin_neurons(neuron()))
    got = [np.where(value < 1e-8, np.nan, value) for value in alone.reference]
    with pytest.raises(ValueError, match="gives nan for a probability of"):
        portable._compare_neurons(got, alone, ".tflite")


@pytest.mark.parametrize("package", ["tf2onnx", "onnxruntime"])
def test_a_missing_package_is_named(tmp_path, monkeypatch, package):
    for name in ("tf2onnx", "onnxruntime"):
        if name != package:
            pytest.importorskip(name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=f"(?s){package}.*pip install"):
        spinkeras.export_onnx(neuron(), tmp_path / "m.onnx")
    assert visible(tmp_path) == []


@pytest.mark.slow
def test_the_package_imports_neither_servers_nor_converters():
    script = (
        "import json, sys, keras, keras_tuner\n"
        "before = set(sys.modules)\n"
        "import spinkeras, spinkeras.serving\n"
        "print(json.dumps(sorted(m for m in set(sys.modules) - before if '.' not in m)))"
    )
    command = [sys.executable, "-c", script]
    result = subprocess.run(command, env=ENVIRONMENT, capture_output=True, text=True, check=True)
    new = set(json.loads(result.stdout.splitlines()[-1]))
    assert "spinkeras" in new
    assert not new & {"tf2onnx", "onnx", "onnxruntime", "kserve", "ai_edge_litert", "fastapi"}


# --- a C program, without Python -----------------------------------------------------------------


@pytest.fixture(scope="module")
def c_program(tmp_path_factory):
    """The compiled program, linked against the TensorFlow that is installed."""
    compiler = shutil.which("gcc") or shutil.which("cc")
    library = pathlib.Path(tf.sysconfig.get_lib())
    names = ["libtensorflow_cc.so.2", "libtensorflow_framework.so.2"]
    if compiler is None or not all((library / name).exists() for name in names):
        pytest.skip("needs a C compiler and the TensorFlow libraries of the Linux wheel")
    program = tmp_path_factory.mktemp("c") / "run_saved_model"
    source = HERE / "run_saved_model.c"
    command = [compiler, "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-O1"]
    command += [f"-I{tf.sysconfig.get_include()}", source, "-o", program, f"-L{library}"]
    command += [*(f"-l:{name}" for name in names), f"-Wl,-rpath,{library}"]
    subprocess.run([str(word) for word in command], check=True, capture_output=True)
    return program


def tensor_names(path, name):
    """Input and output tensors of a signature: two dictionaries of graph names."""
    from tensorflow.core.protobuf import saved_model_pb2

    proto = saved_model_pb2.SavedModel()
    proto.ParseFromString((path / "saved_model.pb").read_bytes())
    definition = proto.meta_graphs[0].signature_def[name]
    return tuple(
        {key: info.name for key, info in part.items()}
        for part in (definition.inputs, definition.outputs)
    )


def request_line(path, name, output, x):
    inputs, outputs = tensor_names(path, name)
    numbers = [x.ndim, *x.shape, *(float(v).__repr__() for v in x.ravel())]
    return " ".join(map(str, [inputs["pixels"], outputs[output], *numbers])) + "\n"


def test_a_c_program_runs_every_endpoint_without_python(exported, c_program, tmp_path):
    model, base = exported
    path = base / "1"
    x = samples(6, seed=11)
    bad = x.copy()
    bad[3, 2] = np.nan
    requests = [
        request_line(path, "serving_default", "digit", x),
        request_line(path, "energy", "energy_pj", x),
        request_line(path, "sample", "digit", x),
        request_line(path, "sample", "digit", x),
        request_line(path, "serve", "digit", x[:, :15]),
        request_line(path, "serve", "digit", bad),
        request_line(path, "serve", "digit", x[:0]),
        request_line(path, "serve", "digit", x),
    ]
    result = subprocess.run(
        [str(c_program), str(path)],
        input="".join(requests),
        env={"TF_CPP_MIN_LOG_LEVEL": "3"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    *answers, python_files = result.stdout.splitlines()
    assert python_files == "python:"  # none in the process

    def values(line):
        kind, rank, *words = line.split()
        assert kind == "ok", line
        shape = tuple(map(int, words[: int(rank)]))
        return np.array(words[int(rank) :], "float64").reshape(shape)

    want = model.predict(x, verbose=0)
    for k in (0, 7):  # also after the bad requests
        np.testing.assert_allclose(values(answers[k]), want, rtol=1e-5, atol=1e-7)
    wanted = spinkeras.energy_report(model, x, print_fn=None).total_pj
    assert values(answers[1]).mean() == pytest.approx(wanted, rel=1e-5)
    assert np.any(values(answers[2]) != values(answers[3]))
    for answer, message in ((answers[4], "[6,15]"), (answers[5], "'pixels' is not finite")):
        assert answer.startswith("error 3")  # INVALID_ARGUMENT
        assert message in answer
    assert values(answers[6]).shape == (0, 10)


# --- servers -------------------------------------------------------------------------------------


class Server:
    """examples/model_server.py in a process of its own, on the loopback interface."""

    def __init__(self, base, *options):
        script = ROOT / "examples" / "model_server.py"
        arguments = ["--name", "digits", "--path", base, "--port", "0", *options]
        environment = {k: v for k, v in ENVIRONMENT.items() if k != "PYTHONPATH"}
        self.process = subprocess.Popen(
            [sys.executable, str(script), *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=base,
            env=environment,
            text=True,
        )
        self.log = []
        self.refused = 0
        self.grpc = None
        for line in self.process.stdout:
            self.log.append(line)
            if line.startswith("grpc://"):
                self.grpc = line.strip().removeprefix("grpc://")
            if line.startswith("http://"):
                self.address = line.strip().removeprefix("http://")
                break
        else:
            raise AssertionError("the server did not start:\n" + "".join(self.log))
        # Reading on keeps the pipe from filling up.
        self.reader = threading.Thread(target=self.log.extend, args=(self.process.stdout,))
        self.reader.start()

    def close(self):
        self.process.terminate()
        self.process.wait(30)
        self.reader.join()
        self.process.stdout.close()

    def request(self, method, path, body=None, headers=None, connection=None):
        """Status and parsed body of one request; `body` is bytes or becomes JSON."""
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if headers is None else headers
        own = connection is None
        connection = self.connect() if own else connection
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        text = response.read()
        self.refused += response.status >= 400
        if own:
            connection.close()
        return response.status, json.loads(text)

    def connect(self):
        return http.client.HTTPConnection(self.address, timeout=60)

    def predict(self, body, connection=None, path="/v1/models/digits:predict", **options):
        return self.request("POST", path, body, connection=connection, **options)


@pytest.fixture(scope="module")
def server(exported):
    pytest.importorskip("kserve")
    grpc = ["--grpc-port", "0"] if importlib.util.find_spec("tensorflow_serving") else []
    server = Server(exported[1], "--interval", "0.1", *grpc)
    yield server
    server.close()
    log = "".join(server.log)
    assert "Traceback" not in log
    lines = re.findall(r"^127\.0\.0\.1:\d+ '[ -~]*' 4\d\d: [ -~]+$", log, re.M)
    assert len(lines) == server.refused


def test_rest_requests_in_the_shapes_of_tensorflow_serving(exported, server):
    model, _ = exported
    x = samples(4, seed=21)
    want = model.predict(x, verbose=0)
    rows = x.tolist()
    close = {"rtol": 1e-5, "atol": 1e-6}

    status, body = server.predict({"instances": rows})
    assert (status, list(body)) == (200, ["predictions"])
    np.testing.assert_allclose(body["predictions"], want, **close)
    _, body = server.predict({"instances": [{"pixels": row} for row in rows]})
    np.testing.assert_allclose(body["predictions"], want, **close)
    for inputs in (rows, {"pixels": rows}):
        status, body = server.predict({"inputs": inputs})
        assert (status, list(body)) == (200, ["outputs"])
        np.testing.assert_allclose(body["outputs"], want, **close)
    body = json.dumps({"signature_name": "serve", "instances": rows}).encode()
    form = {"Content-Type": "application/x-www-form-urlencoded"}  # what curl -d sends
    status, body = server.predict(body, headers=form, path="/v1/models/digits/versions/1:predict")
    np.testing.assert_allclose(body["predictions"], want, **close)


def test_rest_energy_and_samples(exported, server):
    model, _ = exported
    x = samples(3, seed=22)
    request = {"signature_name": "energy", "instances": x.tolist()}
    _, body = server.predict(request)
    total = [row["energy_pj"] for row in body["predictions"]]
    wanted = spinkeras.energy_report(model, x, print_fn=None).total_pj
    assert np.mean(total) == pytest.approx(wanted, rel=1e-5)
    del request["instances"]
    _, body = server.predict({**request, "inputs": x.tolist()})
    assert body["outputs"]["energy_pj"] == pytest.approx(total, rel=1e-6)
    request = {"signature_name": "sample", "instances": x.tolist()}
    one, two = (server.predict(request)[1]["predictions"] for _ in range(2))
    assert one != two


def test_rest_status_and_metadata(server):
    status, body = server.request("GET", "/v1/models/digits")
    assert status == 200
    assert body["model_version_status"][0]["version"] == "1"
    assert body["model_version_status"][0]["state"] == "AVAILABLE"
    _, body = server.request("GET", "/v1/models/digits/metadata")
    signatures = body["metadata"]["signature_def"]["signature_def"]
    assert signatures["serving_default"]["inputs"]["pixels"]["dtype"] == "DT_FLOAT"
    assert set(signatures["energy"]["outputs"]) == {
        "energy_pj",
        "energy_pj_spin_a",
        "energy_pj_spin_b",
    }


ROW = [0.5] * 16
BAD = {
    "wrong shape": ({"instances": [[1.0, 2.0]]}, 400, r"shape \(None, 16\); got \(1, 2\)"),
    "scalar": ({"instances": [1.0]}, 400, "shape"),
    "ragged": ({"instances": [ROW, ROW[:3]]}, 400, "ragged"),
    "text": ({"instances": [["a"] * 16]}, 400, "numbers of type float32"),
    "text among numbers": ({"instances": [["a", *ROW[1:]]]}, 400, "numbers of type float32"),
    "lists among numbers": ({"instances": [[ROW, *ROW[1:]]]}, 400, "ragged"),
    "objects among numbers": ({"instances": [[{}, *ROW[1:]]]}, 400, "numbers of type float32"),
    "null": ({"instances": [[None, *ROW[1:]]]}, 400, "numbers of type float32"),
    "booleans": ({"instances": [[True] * 16]}, 400, "numbers of type float32"),
    "NaN": (b'{"instances": [[NaN' + b", 0" * 15 + b"]]}", 400, "expected a JSON value|not JSON"),
    "infinity": ({"instances": [[1e39, *ROW[1:]]]}, 400, "'pixels' is not finite"),
    "empty batch": ({"instances": []}, 400, "at least one sample"),
    "empty batch in columns": ({"inputs": []}, 400, "shape"),
    "empty rows": ({"instances": [[]]}, 400, "shape"),
    "not a list": ({"instances": "abc"}, 400, "list of at least one"),
    "unknown signature": ({"instances": [ROW], "signature_name": "x"}, 400, "Unknown signature"),
    "signature no name": ({"instances": [ROW], "signature_name": [1]}, 400, "Unknown signature"),
    "internal signature": (
        {"instances": [ROW], "signature_name": "__saved_model_init_op"},
        400,
        "Unknown signature",
    ),
    "unknown input": ({"inputs": {"pixel": [ROW]}}, 400, r"inputs \['pixels'\]"),
    "both": ({"instances": [ROW], "inputs": [ROW]}, 400, "either"),
    "neither": ({}, 400, "either"),
    "a list": ([ROW], 400, "JSON object"),
    "not JSON": (b"\xff\xfe{", 400, "JSON|format"),
    "empty body": (b"", 400, "JSON|format"),
    "deep": (b"[" * 100_000, 400, "JSON|format|recursion"),
    "10 MB": (b'{"instances": [[' + b"0.5," * 2_500_000 + b"0.5]]}", 413, "longer than"),
    "large but allowed": ({"instances": [[0.5] * 100_000]}, 400, "shape"),
}


# One test for all cases: every test here also costs the reset of the Keras session.
def test_bad_rest_requests_get_a_clear_answer_and_hurt_nobody(server):
    cloud_event = {"ce-specversion": "1.0", "ce-source": "a", "ce-type": "b", "ce-id": "c"}
    cases = {key: (*case, {}) for key, case in BAD.items()}
    cases["empty event"] = (b"", 400, "not JSON", {"headers": cloud_event})
    huge = f"/v1/models/digits/versions/{'9' * 5000}:predict"
    cases["huge version"] = ({"instances": [ROW]}, 400, "1 to 19 digits", {"path": huge})
    for change in ("unload", "load"):
        path = f"/v2/repository/models/digits/{change}"
        cases[change] = (b"", 404, "no such request", {"path": path})
    refused = server.refused
    for case, (body, status, message, options) in cases.items():
        got, answer = server.predict(body, **options)
        assert (got, list(answer)) == (status, ["error"]), (case, answer)
        assert re.search(message, answer["error"]), (case, answer)
        assert len(answer["error"]) < 500, case
        assert server.predict({"instances": [ROW]})[0] == 200, case
        assert server.process.poll() is None, case
    assert server.refused == refused + len(cases)


def test_json_numbers_are_taken_as_they_are_or_refused():
    """The network of the server has one float input; here are the other types."""
    pytest.importorskip("orjson")
    module = example("model_server")
    for value, dtype in (
        ([[1, 2.5], [-3, 2**63]], tf.float32),
        ([[-(2**31), 2**31 - 1]], tf.int32),
        ([0, 2**64 - 1], tf.uint64),
        ([True, False], tf.bool),
        (7, tf.int64),
    ):
        array = module.to_array(value, "x", dtype)
        assert array.dtype == dtype.as_numpy_dtype
        assert array.tolist() == value
    for value, dtype, message in (
        ([[4294967297]], tf.int32, "from -2147483648 to 2147483647"),
        ([-1], tf.uint8, "from 0 to 255"),
        ([-1, 2**64 - 1], tf.int64, "from -9223372036854775808 to"),
        ([1.0], tf.int32, "whole numbers of type int32"),
        ([1, 0], tf.bool, "true or false"),
        ([True, 1.0], tf.float32, "numbers of type float32"),
        ([True], tf.int32, "numbers of type int32"),
        (json.loads("[" * 100 + "1" + "]" * 100), tf.float32, "nested 100 deep"),
        (["a"], tf.string, "needs gRPC"),
    ):
        with pytest.raises(module.Refused, match=message):
            module.to_array(value, "x", dtype)
    # An array of text takes the longest text for every entry: 80 MB for 25 kB.
    tracemalloc.start()
    with pytest.raises(module.Refused, match="numbers of type float32"):
        module.to_array([["a" * 5000, *[0.0] * 4000]], "x", tf.float32)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e6


def test_versions_that_cannot_be_loaded_are_tried_again_when_they_change(tmp_path, monkeypatch):
    """As when a version is copied into the folder while the server looks."""
    pytest.importorskip("orjson")
    module = example("model_server")
    tried = []

    class Version:
        def __init__(self, folder):
            self.number, self.signatures = int(folder.name), {}
            tried.append(self.number)
            if not (folder / "complete").exists():
                raise MemoryError

    def copy(name):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")

    monkeypatch.setattr(module, "Version", Version)
    copy("1/complete")
    versions = module.Versions(tmp_path, interval=1000)
    copy("2/half")
    versions.refresh()
    versions.refresh()
    assert (versions.current.number, tried) == (1, [1, 2])
    copy("2/complete")
    versions.refresh()
    assert (versions.current.number, tried) == (2, [1, 2, 2])

    # The thread outlives whatever a look at the folder raises.
    looks = []

    def refresh():
        looks.append(None)
        if len(looks) == 2:
            versions._stop.set()
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(versions, "refresh", refresh)
    versions.interval = 0
    versions._watch()
    assert len(looks) == 2


def test_unknown_models_and_versions_are_not_found(server):
    for path in ("/v1/models/other:predict", "/v1/models/digits/versions/99:predict"):
        status, answer = server.predict({"instances": [ROW]}, path=path)
        assert (status, list(answer)) == (404, ["error"])


def test_idle_clients_and_some_that_hang_up_hurt_nobody(server):
    """The limits themselves: tests/export/test_slow_clients.py."""
    host, port = server.address.split(":")
    idle = [socket.create_connection((host, int(port))) for _ in range(300)]
    for client in idle[::3]:
        client.sendall(b"POST /v1/models/digits:predict HTTP/1.1\r\n")
    for client in idle[1::3]:
        client.sendall(b"POST /v1 HTTP/1.1\r\nHost: a\r\nContent-Length: 999\r\n\r\n{")
    assert server.predict({"instances": [ROW]})[0] == 200
    for client in idle:
        client.close()
    assert server.predict({"instances": [ROW]})[0] == 200


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--patience", "0"), "--patience = 0 s must be above 0 and at most 3600 s"),
        (("--patience", "nan"), "--patience = nan s must be above 0"),
        (("--max-connections", "0"), "--max-connections must be 1 or more"),
    ],
)
def test_limits_of_the_server_are_checked(monkeypatch, capsys, options, message):
    pytest.importorskip("orjson")
    arguments = ["model_server.py", "--name", "digits", "--path", "nowhere", *options]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit):
        example("model_server").main()
    assert message in capsys.readouterr().err


# --- load ----------------------------------------------------------------------------------------


def load(server, x, check, count, stop=None, clients=16):
    """`count` requests from each of 16 clients at once; `check(row numbers, body)` on each answer.

    Returns the number of requests; raises what the first client to fail raised.
    """
    done, failures = [0] * clients, []

    def client(k):
        random = np.random.default_rng(k)
        connection = server.connect()
        try:
            while done[k] < count and not failures and not (stop is not None and stop()):
                rows = random.integers(0, len(x), random.integers(1, 5))
                status, body = server.predict({"instances": x[rows].tolist()}, connection)
                assert status == 200, body
                check(k, rows, body)
                done[k] += 1
        except BaseException as error:
            failures.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=client, args=(k,)) for k in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return sum(done)


@pytest.mark.parametrize("count", [20, pytest.param(625, marks=pytest.mark.slow)])
def test_every_answer_under_load_is_the_models(exported, server, count):
    """16 clients at once, batches of 1 to 4; 10 000 requests in the slow test."""
    model, _ = exported
    x = samples(200, seed=31)
    want = model.predict(x, verbose=0)

    def check(k, rows, body):
        np.testing.assert_allclose(body["predictions"], want[rows], rtol=1e-4, atol=1e-6)

    assert load(server, x, check, count) == 16 * count


@pytest.mark.slow
def test_versions_change_under_load_without_a_failed_request(tmp_path):
    """A new version takes over, a broken one does not, a withdrawn one gives way to the last."""
    pytest.importorskip("kserve")
    models = [mlp(seed=41), mlp(seed=42)]
    x = samples(100, seed=43)
    want = [model.predict(x, verbose=0) for model in models]
    assert np.min(np.abs(want[0] - want[1]).max(axis=1)) > 1e-3
    base = tmp_path / "digits"
    spinkeras.export_for_serving(models[0], base, energy=False)
    server = Server(base, "--interval", "0.1")
    try:
        direction = [+1]  # of the change from model to model
        seen = [0] * 16  # which model each client was answered by last
        deadline = time.monotonic() + 240

        def check(k, rows, body):
            for which in (0, 1):
                if np.allclose(body["predictions"], want[which][rows], rtol=1e-4, atol=1e-6):
                    assert (which - seen[k]) * direction[0] >= 0  # a client never goes back
                    seen[k] = which
                    return
            raise AssertionError("an answer of neither version")

        def everyone(which):
            def reached():
                assert time.monotonic() < deadline, (seen, server.log[-5:])
                return all(value == which for value in seen)

            return reached

        def under_load(change, stop):
            changer = threading.Thread(target=change)
            changer.start()
            answered = load(server, x, check, 20_000, stop)
            changer.join()
            return answered

        new = lambda: spinkeras.export_for_serving(models[1], base, energy=False)  # noqa: E731
        assert under_load(new, everyone(1)) > 0
        assert visible(base) == ["1", "2"]

        broken = base / "3"
        broken.mkdir()
        (broken / "saved_model.pb").write_bytes((base / "2" / "saved_model.pb").read_bytes()[:999])
        refused = lambda: any("version 3 is not served" in line for line in server.log)  # noqa: E731

        def refused_in_time():
            assert time.monotonic() < deadline
            return refused()

        load(server, x, check, 20_000, refused_in_time)
        assert seen == [1] * 16

        def withdraw():
            os.rename(base / "2", base / ".withdrawn")

        direction[0] = -1
        assert under_load(withdraw, everyone(0)) > 0
    finally:
        server.close()


@pytest.mark.slow
def test_the_example_trains_exports_serves_and_asks(tmp_path, monkeypatch):
    pytest.importorskip("kserve")
    pytest.importorskip("sklearn")
    script = ROOT / "examples" / "serve.py"
    command = [sys.executable, str(script), "--path", str(tmp_path / "m"), "--epochs", "10"]
    for version in ("1", "2"):
        result = subprocess.run(
            command, env=ENVIRONMENT, capture_output=True, text=True, check=True, timeout=600
        )
        assert visible(tmp_path / "m")[-1] == version
    assert len(re.findall(r"\d\.\d{3} +\d+\.\d\d pJ", result.stdout)) == 5
    accuracy = float(re.search(r"test accuracy (\d\.\d+)", result.stdout)[1])
    assert accuracy > 0.9

    # A server that restarts accepts connections and closes them.
    module = example("serve")
    answer = b'{"model_version_status": [{"version": "2", "state": "AVAILABLE"}]}'
    replies = [
        http.client.RemoteDisconnected(),
        http.client.IncompleteRead(b""),
        io.BytesIO(answer),
    ]

    def urlopen(*args, **kwargs):
        reply = replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    module.wait_for_version("http://nowhere", 2)
    assert replies == []


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_script_for_docker_takes_a_relative_folder(tmp_path):
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\nexit 1\n")
    docker.chmod(0o755)
    script = ROOT / "examples" / "tensorflow_serving.sh"
    result = subprocess.run(
        ["bash", str(script), "models"],
        env={**ENVIRONMENT, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (tmp_path / "models").is_dir(), result.stderr


@pytest.mark.slow
def test_the_code_of_the_documentation_runs(tmp_path):
    text = (ROOT / "docs" / "serving.md").read_text()
    blocks = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    assert len(blocks) == 2
    pytest.importorskip("tf2onnx")
    subprocess.run(
        [sys.executable, "-c", "\n".join(blocks)], env=ENVIRONMENT, cwd=tmp_path, check=True
    )
    assert visible(tmp_path) == ["digits.onnx", "digits.tflite", "models"]


# --- gRPC ----------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def stub(server):
    grpc = pytest.importorskip("grpc")
    pytest.importorskip("tensorflow_serving")
    from tensorflow_serving.apis import prediction_service_pb2_grpc

    with grpc.insecure_channel(server.grpc) as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


def predict_request(x, signature_name="", name="digits", key="pixels"):
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name = name
    request.model_spec.signature_name = signature_name
    request.inputs[key].CopyFrom(tf.make_tensor_proto(x))
    return request


def test_the_official_grpc_client(exported, stub):
    from tensorflow_serving.apis import get_model_metadata_pb2

    model, _ = exported
    x = samples(5, seed=51)
    response = stub.Predict(predict_request(x), timeout=60)
    got = tf.make_ndarray(response.outputs["digit"])
    np.testing.assert_allclose(got, model.predict(x, verbose=0), rtol=1e-5, atol=1e-7)
    assert response.model_spec.version.value == 1
    response = stub.Predict(predict_request(x, "energy"), timeout=60)
    wanted = spinkeras.energy_report(model, x, print_fn=None).total_pj
    total = tf.make_ndarray(response.outputs["energy_pj"])
    assert total.mean() == pytest.approx(wanted, rel=1e-5)

    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "digits"
    metadata = stub.GetModelMetadata(request, timeout=60).metadata["signature_def"]
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert metadata.Unpack(signatures)
    assert signatures.signature_def["serving_default"].inputs["pixels"].dtype == tf.float32


def declared(rows, values, key="pixels"):
    """A request that declares `rows` samples and holds these numbers."""
    request = predict_request(samples(1), key=key)
    request.inputs[key].ClearField("tensor_content")
    request.inputs[key].float_val.extend(values)
    request.inputs[key].tensor_shape.dim[0].size = rows
    return request


def test_bad_grpc_requests_get_a_clear_answer(stub):
    import grpc

    x = samples(2)
    nan = x.copy()
    nan[1, 1] = np.nan
    wrong = [
        (predict_request(nan), "INVALID_ARGUMENT", "'pixels' is not finite"),
        (predict_request(x[:, :3]), "INVALID_ARGUMENT", "shape"),
        (predict_request(x[:0]), "INVALID_ARGUMENT", "empty batch"),
        (predict_request(x.astype("float64")), "INVALID_ARGUMENT", "type float32"),
        (predict_request(x, "none"), "INVALID_ARGUMENT", "Unknown signature"),
        (predict_request(x, key="pixel"), "INVALID_ARGUMENT", "takes inputs"),
        (predict_request(x, name="other"), "NOT_FOUND", "other"),
        (predict_request(samples(200_000)), "RESOURCE_EXHAUSTED", "larger than max"),
        (declared(2, [0.5] * 31), "INVALID_ARGUMENT", r"holds 31 values .* needs 32"),
        (declared(2, []), "INVALID_ARGUMENT", "holds 0 values"),
        (declared(-1, [0.5] * 16), "INVALID_ARGUMENT", "holds 16 values"),
        (declared(2**40, [0.5] * 2), "INVALID_ARGUMENT", "holds 2 values"),
        (declared(2**40, [0.5]), "INVALID_ARGUMENT", "at most 1048576"),
        (declared(2**40, [], key="pixel"), "INVALID_ARGUMENT", "holds 0 values"),
    ]
    for request, code, message in wrong:
        with pytest.raises(grpc.RpcError, match=message) as error:
            stub.Predict(request, timeout=60)
        assert error.value.code().name == code
    stub.Predict(predict_request(x), timeout=60)
    one_for_all = stub.Predict(declared(2, [0.5]), timeout=60)  # as the protocol allows
    assert tf.make_ndarray(one_for_all.outputs["digit"]).shape == (2, 10)


def test_no_memory_for_a_grpc_request_is_said_so():
    grpc = pytest.importorskip("grpc")
    pytest.importorskip("tensorflow_serving")
    from tensorflow_serving.apis import prediction_service_pb2_grpc

    class Full:
        number = 1

        def get(self, number):
            return self

        def signature(self, name):
            raise MemoryError

    server, port = example("model_server").grpc_server("digits", Full(), "127.0.0.1", 0)
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        with pytest.raises(grpc.RpcError, match="no memory") as error:
            stub.Predict(predict_request(samples(1)), timeout=60)
    server.stop(None).wait()
    assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


# --- files from strangers ------------------------------------------------------------------------


@pytest.fixture
def saved(tmp_path):
    """A model file, and a function that writes a tampered copy of it."""
    model = neuron()
    path = tmp_path / "model.keras"
    model.save(path)
    tampered = tmp_path / "tampered.keras"

    def tamper(change, member="config.json"):
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(tampered, "w") as new:
            for name in old.namelist():
                content = old.read(name)
                new.writestr(name, change(content) if name == member else content)
        return tampered

    return model, path, tamper


def test_a_model_file_holds_data_only_and_loads_in_safe_mode(saved):
    model, path, _ = saved
    with zipfile.ZipFile(path) as file:
        assert sorted(file.namelist()) == ["config.json", "metadata.json", "model.weights.h5"]
        assert b"__lambda__" not in file.read("config.json")
    x = samples(3, 3)
    again = keras.models.load_model(path, safe_mode=True)
    np.testing.assert_allclose(again.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-6)


def test_a_truncated_model_file_is_refused(saved):
    _, path, _ = saved
    content = path.read_bytes()
    for part in (0.0, 0.3, 0.9, 0.999):
        path.write_bytes(content[: int(part * len(content))])
        with pytest.raises(ValueError, match=r"accessible `\.keras` zip file"):
            keras.models.load_model(path)


def test_a_model_file_with_a_flipped_bit_is_refused(saved):
    _, path, _ = saved
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(zipfile.BadZipFile, match="CRC"):
        keras.models.load_model(path)


LAMBDA = {"class_name": "__lambda__", "config": {"value": ["4wAAAAA=", None, None]}}
SYSTEM = {"module": "os", "class_name": "system", "config": {}, "registered_name": None}
TAMPERED = {
    "unit": ({"device": {"diameter": 40.0}}, "diameter = 40 m is outside"),
    "sign": ({"device": {"anisotropy": -1.0}}, "anisotropy = -1 J/m"),
    "infinite": ({"device": {"damping": float("inf")}}, "damping = inf"),
    "text": ({"device": {"thickness": "thin"}}, "thickness = 'thin' is not a number"),
    "pair": ({"device": {"pulse_width_range": [1e-9]}}, "not a pair"),
    "swapped": ({"device": {"pulse_width_range": [2e-8, 2e-9]}}, "swap them"),
    "new field": ({"device": {"evil": 1}}, "has no field"),
    "scale": ({"current_scale": -1.0}, "current_scale = -1 A"),
    "model": ({"switching_model": "magic"}, "Unknown switching_model"),
    "knob": ({"train": ["temperature"]}, "Unknown knob"),
    "keyword": ({"evil": 1}, "evil"),
    "lambda initializer": ({"pulse_width_initializer": LAMBDA}, "initializer"),
    "lambda constraint": ({"pulse_width_constraint": LAMBDA}, "constraint"),
    "lambda device": ({"device": LAMBDA}, "(?i)lambda"),
    "code as device": ({"device": SYSTEM}, "system"),
    "code as regularizer": ({"anisotropy_regularizer": SYSTEM}, "system|regularizer"),
}


def test_a_tampered_layer_in_a_model_file_is_refused(saved, monkeypatch):
    monkeypatch.setattr(os, "system", lambda *args: pytest.fail("a file ran a command"))

    def tampered(content, change):
        config = json.loads(content)
        layer = config["config"]["layers"][1]["config"]
        for key, value in change.items():
            if key == "device" and "class_name" not in value:
                layer["device"]["config"].update(value)
            else:
                layer[key] = value
        return json.dumps(config)

    for case, (change, message) in TAMPERED.items():
        path = saved[2](lambda content, change=change: tampered(content, change))
        with pytest.raises((ValueError, TypeError)) as error:
            keras.models.load_model(path)
        assert re.search(message, str(error.value)), (case, str(error.value)[-300:])


def edit_weights(change):
    import h5py

    def edited(content):
        with io.BytesIO(content) as buffer:
            with h5py.File(buffer, "a") as file:
                variables = []
                file.visititems(lambda name, item: variables.append(name))
                group = file[next(n for n in variables if n.endswith("/pulse_width"))].parent
                change(group)
            return buffer.getvalue()

    return edited


def put(name, value):
    def change(group):
        del group[name]
        if value is not None:
            group[name] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("pulse_width", [np.nan, 1e-9, 1e-9]), "values of pulse_width .* not finite and > 0"),
        (put("anisotropy", [-1.0, 1e5, 1e5]), "values of anisotropy .* not finite and > 0"),
        (put("pulse_width", [2e-9] * 4), r"pulse_width of shape \(4,\)"),
        (put("anisotropy", None), "holds no 'anisotropy'"),
        (put("energy_weight", np.float32("nan")), "energy_weight .* not one finite number >= 0"),
        (put("energy_weight", [1.0, 2.0]), "energy_weight .* not one finite number >= 0"),
    ],
)
def test_tampered_weights_are_refused(saved, change, message):
    path = saved[2](edit_weights(change), "model.weights.h5")
    with pytest.raises(ValueError, match=message):
        keras.models.load_model(path)


def test_weights_beyond_the_device_are_moved_to_its_limit(saved):
    path = saved[2](edit_weights(put("pulse_width", [1e3, 2e-9, 2e-9])), "model.weights.h5")
    with pytest.warns(UserWarning, match="outside this device's range"):
        model = keras.models.load_model(path)
    np.testing.assert_allclose(model.layers[-1].pulse_width, [20e-9, 2e-9, 2e-9], rtol=1e-6)


def test_a_broken_device_file_is_refused(device):
    text = device.to_json()
    thickness = '"thickness": 1.2e-09'
    assert thickness in text
    for broken, message in (
        (text[: len(text) // 2], "A device description: not valid JSON"),
        ("", "A device description: not valid JSON"),
        ("[1, 2]", "dictionary of fields"),
        (text.replace(thickness, '"thickness": "thin"'), "is not a number"),
        (text.replace(thickness, '"thickness": 1.2'), "thickness = 1.2 m is outside"),
        (text.replace(thickness, '"thickness": NaN'), "NaN is no number"),
        (text.replace(thickness, '"__class__": 1.2e-09'), "no field"),
        (text.replace(thickness + ",", ""), r"lacks \['thickness'\]"),
    ):
        with pytest.raises(ValueError, match=message):
            MTJDevice.from_json(broken)
