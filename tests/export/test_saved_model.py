"""SavedModels for servers: endpoints, samples, versions, refusals."""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
import scipy.stats
import tensorflow as tf

import spinkeras
from spinkeras import MTJDevice, SpinNeuron
from tests.export.harness import (
    ENVIRONMENT,
    export_saved_model,
    mlp,
    model_with,
    neuron,
    operations,
    samples,
    signature,
    visible,
)

HERE = pathlib.Path(__file__).resolve().parent


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


@pytest.mark.slow
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


@pytest.mark.slow
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


@pytest.mark.parametrize("name", ["serve", "energy", "sample"])
def test_no_endpoint_writes_state_or_needs_python(exported, name):
    ops = operations(exported[1] / "1", name)
    assert not [op for op in ops if "Assign" in op or "PyFunc" in op or op.startswith("Rng")]
    assert ("RandomUniform" in ops) == (name == "sample")


def test_a_served_neuron_saturates(tmp_path):
    """Far beyond the curve, where the clip of the trained form is missing."""
    report = export_saved_model(neuron(), tmp_path)
    x = np.array([[-3e38] * 3, [-1e6] * 3, [1e6] * 3, [3e38] * 3], "float32")
    got = signature(report.path, "serve")(x=x)["spin"]
    np.testing.assert_array_equal(got, np.repeat([[0], [0], [1], [1]], 3, axis=1))


# --- samples -------------------------------------------------------------------------------------


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


@pytest.mark.slow
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
    with pytest.raises(ValueError, match="cannot be separated by sample"):
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
