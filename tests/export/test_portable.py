"""What holds for all files: LiteRT and ONNX, and where it is the same, SavedModels."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import spinkeras
from spinkeras import EmpiricalCurve, EquilibriumCurve, SpinNeuron
from spinkeras.export import portable
from tests.export.harness import (
    counting,
    export_saved_model,
    mlp,
    model_with,
    neuron,
    samples,
    signature,
    visible,
)
from tests.harness import some_slow


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


@pytest.mark.parametrize("file_format", some_slow(FORMATS, "onnx"), indirect=True)
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


@pytest.mark.parametrize("file_format", some_slow(FORMATS, "onnx"), indirect=True)
def test_a_measured_curve_is_carried_with_its_ceiling(tmp_path, file_format):
    suffix, export, run = file_format
    measured = SpinNeuron(switching_model=EmpiricalCurve.preset("sot_80nm"), name="measured")
    channel = SpinNeuron("vgsot_zhang2020", name="channel")
    curve = EquilibriumCurve(
        threshold=-1e-6, slope=1e6, floor=0.03, ceiling=0.98, relaxation_time=1e-7
    )
    free = SpinNeuron("smtj_reference", train=(), switching_model=curve, current_scale=3e-7)
    model = keras.Sequential([keras.Input((3,), name="x"), free, measured, channel])
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
@pytest.mark.parametrize("suffix", some_slow([*FORMATS, "saved_model"], "onnx"))
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


def test_a_layer_that_always_samples_is_not_put_into_a_file(tmp_path, file_format):
    suffix, export, _ = file_format
    model = keras.Sequential([keras.Input((3,), name="x"), SpinNeuron(output="always_sampled")])
    with pytest.raises(ValueError, match="always samples"):
        export(model, tmp_path / f"m.{suffix}")
    assert visible(tmp_path) == []


def noisy(layer, x):
    return x + 1e-9 * tf.random.uniform(tf.shape(x))


def dropping(layer, x):
    return layer.drop(x, training=True)


def unsupported(layer, x):
    return x + tf.math.lgamma(tf.abs(x) + 1.5)


@pytest.mark.parametrize(
    ("do", "message"),
    [
        (dropping, "writes state"),
        (counting, "writes state"),
        (noisy, "draws random numbers"),
        (unsupported, "cannot hold this network"),
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


def test_a_neuron_that_gives_nan_is_refused():
    """By the private comparison alone: no file is known to give NaN."""
    alone = portable._neurons_alone(spinkeras.spin_neurons(neuron()))
    got = [np.where(value < 1e-8, np.nan, value) for value in alone.reference]
    with pytest.raises(ValueError, match="gives nan for a probability of"):
        portable._compare_neurons(got, alone, ".tflite")
