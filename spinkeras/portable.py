"""Export of trained networks as LiteRT and ONNX files, for devices and other runtimes.

As in `spinkeras.serving`, a file is compared with the Keras model on probe inputs before it gets
its name; here every spin layer is also compared alone, over its whole curve.
"""

import contextlib
import importlib
import os
import pathlib
import tempfile
import warnings

import keras
import numpy as np

from spinkeras import core, files
from spinkeras.observation import observing
from spinkeras.tracing import (
    TOLERANCE,
    ExportReport,
    Network,
    Traced,
    first_lines,
    need_tensorflow,
    refuse,
)

SMALLEST_PROBABILITY = 1e-12
"""Down to here the LiteRT and ONNX neurons agree with Keras relatively, within `TOLERANCE`.

Further down the agreement is absolute: the logarithm of a probability has a relative rounding
error of about 1e-6 in float32, in Keras as in the file, so at 1e-30 two runtimes differ by 1e-4.
"""


def export_litert(model, path, *, input_signature=None, output_names=None, probe=None):
    """Write a network as a LiteRT (`.tflite`) file that uses built-in operations only.

    The file has one signature, `serving_default`, with the names that `export_for_serving` uses.
    It carries expected values; samples and energies need `export_for_serving`. Before the file
    gets its name, the interpreter runs it: all outputs must agree with the model within 1e-4
    (relative to `max(1, |output|)`), and every spin layer alone within 1e-4 of its probability
    over the whole curve down to 1e-12.

    Args:
        model: a built Keras model on the TensorFlow backend.
        path: file name that ends in `.tflite`; a file of that name is replaced atomically.
        input_signature, output_names, probe: as for `export_for_serving`.

    Returns:
        `ExportReport`.

    Raises:
        ValueError: if the format cannot carry the network (operations without a built-in kernel,
            random numbers, state) or the file disagrees with it. No file is left behind.

    Example:

    >>> import tempfile, keras, spinkeras
    >>> model = keras.Sequential([keras.Input((4,), name="x"), spinkeras.SpinNeuron(name="spin")])
    >>> report = spinkeras.export_litert(model, tempfile.mkdtemp() + "/spin.tflite")
    >>> report.output_error < 1e-4 and report.neuron_error < 1e-4
    True
    """
    need_tensorflow("export_litert")
    return _export_file(
        model, path, ".tflite", _convert_litert, _run_litert, input_signature, output_names, probe
    )


def export_onnx(model, path, *, input_signature=None, output_names=None, probe=None):
    """Write a network as an ONNX file.

    Names, checks, arguments and errors as `export_litert`; ONNX Runtime does the checking.

    Args:
        model: a built Keras model on the TensorFlow backend, float32.
        path: file name that ends in `.onnx`; a file of that name is replaced atomically.
        input_signature, output_names, probe: as for `export_for_serving`.

    Returns:
        `ExportReport`.

    Raises:
        ImportError: without `tf2onnx` and `onnxruntime`.
        ValueError: if the format cannot carry the network or the file disagrees with it. No file
            is left behind.

    Example:

    >>> import tempfile, keras, spinkeras
    >>> model = keras.Sequential([keras.Input((4,), name="x"), spinkeras.SpinNeuron(name="spin")])
    >>> report = spinkeras.export_onnx(model, tempfile.mkdtemp() + "/spin.onnx")
    >>> report.output_error < 1e-4 and report.neuron_error < 1e-4
    True
    """
    need_tensorflow("export_onnx")
    for package in ("tf2onnx", "onnxruntime"):
        try:
            importlib.import_module(package)
        except ImportError as error:
            raise ImportError(
                f"export_onnx needs the package {package!r}: pip install 'spinkeras[serving]' or "
                "pip install tf2onnx onnxruntime."
            ) from error
    return _export_file(
        model, path, ".onnx", _convert_onnx, _run_onnx, input_signature, output_names, probe
    )


def _export_file(model, path, suffix, convert, run, input_signature, output_names, probe):
    path = pathlib.Path(path)
    if path.suffix != suffix:
        raise ValueError(f"path = {str(path)!r} must end in {suffix!r}.")
    network = Network(model, input_signature, output_names, probe)
    for layer in network.layers:
        if layer.output_mode == "always_sampled":
            raise ValueError(
                f"Layer {layer.name!r} always samples, and a {suffix} file carries expected values "
                "only. Use export_for_serving(sample=True), or a layer with output='sampled', "
                "which samples in training."
            )
    content = convert(network)
    output_error = network.compare(run(content, network))
    neuron_error = None
    if network.layers:
        alone = _neurons_alone(network.layers)
        neuron_error = _compare_neurons(run(convert(alone), alone), alone, suffix)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, content)
    return ExportReport(
        path,
        tuple(network.input_names),
        tuple(network.output_names),
        len(network.probes[0]),
        output_error,
        neuron_error,
    )


def _convert_litert(network):
    import tensorflow as tf

    with tempfile.TemporaryDirectory() as folder:
        network.write(folder, {"serve": network.function(False)}, deterministic=True)
        converter = tf.lite.TFLiteConverter.from_saved_model(
            folder, signature_keys=["serving_default"]
        )
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        # The converter has no common base class for its failures.
        with _carrying("LiteRT", " with its built-in operations", "The converter says"):
            return converter.convert()


def _run_litert(content, network):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tf.lite.Interpreter announces its successor
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError:
            import tensorflow as tf

            Interpreter = tf.lite.Interpreter
        failure = " (its interpreter fails on the converted file)"
        with _carrying("LiteRT", failure, errors=(RuntimeError, ValueError)):
            runner = Interpreter(model_content=content).get_signature_runner("serving_default")
            got = runner(**network.named(network.probes))
    return [got[name] for name in network.output_names]


class _ByParts(Traced):
    logistic = staticmethod(core.logistic_by_parts)


def _convert_onnx(network):
    import onnx

    model = network.model
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # tf2onnx asks NumPy for old names
        file = os.path.join(folder, "model.onnx")
        # Keras' own exporter knows how to run tf2onnx beside NumPy 2; it does not name outputs.
        with observing(_ByParts(network.layers)):
            refuse(network.trace(network.function(False)), deterministic=True)
            # tf2onnx raises whatever its converters run into.
            with _carrying("ONNX", "", "The converter says"):
                model.export(
                    file, format="onnx", verbose=False, input_signature=network.keras_signature()
                )
                proto = onnx.load(file)
    renamed = dict(zip((o.name for o in proto.graph.output), network.output_names))
    renamed.update(zip((i.name for i in proto.graph.input), network.input_names))
    _rename(proto.graph, renamed)
    return proto.SerializeToString()


def _rename(graph, names):
    """Give tensors of an ONNX graph other names, everywhere they occur."""
    for value in (*graph.input, *graph.output, *graph.value_info):
        value.name = names.get(value.name, value.name)
    for node in graph.node:
        for field in (node.input, node.output):
            for k, name in enumerate(field):
                field[k] = names.get(name, name)


def _run_onnx(content, network):
    import onnxruntime

    # Its exceptions live in a private module.
    with _carrying("ONNX", " (ONNX Runtime does not load the converted file)"):
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    with _carrying("ONNX", " (ONNX Runtime fails on the converted file)"):
        return session.run(network.output_names, network.named(network.probes))


@contextlib.contextmanager
def _carrying(name, failure, speaker="It says", errors=(Exception,)):
    """Errors of a converter or a runtime as one `ValueError` that says what to do."""
    try:
        yield
    except errors as error:
        raise ValueError(
            f"{name} cannot carry this network{failure}; use export_for_serving. "
            f"{speaker}: {first_lines(error)}"
        ) from error


def _neurons_alone(layers):
    """A network of copies of the spin layers, each on an input of its own, and ramps for them.

    Within a network, rounding before a neuron hides what happens in its tail. Alone, every knob
    is driven over its whole curve.
    """
    inputs, outputs, ramps, names = [], [], [], []
    for k, layer in enumerate(layers):
        config = {**layer.get_config(), "name": f"spin_{k}", "dtype": "float32"}
        # Of `2 P - 1` near -1 nothing could be said about a small P.
        config.update(output="probability", bipolar=False)
        copy = type(layer).from_config(config)
        shape = tuple(layer.log_pulse_width.shape)
        source = keras.Input(shape, name=f"ramp_{k}")
        outputs.append(copy(source))
        for own, trained in zip(copy.knob_weights(), layer.knob_weights()):
            own.assign(trained)
        inputs.append(source)
        names.append(copy.name)
        steps = np.linspace(-80.0, 40.0, 241).reshape((-1,) + (1,) * len(shape))
        ramps.append((steps / (4 * copy.slope)).astype("float32"))
    return Network(keras.Model(inputs, outputs), None, names, ramps)


def _compare_neurons(got, alone, suffix):
    worst = 0.0
    for name, new, old in zip(alone.output_names, got, alone.reference):
        floor = np.maximum(np.abs(old), SMALLEST_PROBABILITY)
        error = np.abs(new.astype("float64") - old) / floor
        where = np.unravel_index(np.argmax(error), error.shape)  # the first NaN if there is one
        if not error[where] <= TOLERANCE:
            raise ValueError(
                f"The {suffix} file gives {new[where]:.6g} for a probability of {old[where]:.6g} "
                f"(spin layer number {name.removeprefix('spin_')}), which is off by more than "
                f"{TOLERANCE:g}: this format's arithmetic does not carry its switching model. Use "
                "export_for_serving."
            )
        worst = max(worst, float(error[where]))
    return worst
