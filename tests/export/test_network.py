"""What any export asks of a network: its names, a graph without state, the answers of the model."""

import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

import spinkeras
from spinkeras import SpinNeuron
from tests.export.harness import ENVIRONMENT, counting, model_with, neuron, signature, visible


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


def in_python(layer, x):
    return tf.ensure_shape(tf.numpy_function(np.negative, [x], tf.float32), x.shape)


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
    with pytest.raises(ValueError, match="cannot be the name of an input or output"):
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
        "import keras, spinkeras\n"
        "model = keras.Sequential([keras.Input((3,)), spinkeras.SpinNeuron()])\n"
        "try: spinkeras.export_for_serving(model, 'x')\n"
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
