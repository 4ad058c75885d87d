"""LiteRT files, for phones and microcontrollers."""

import tempfile
import warnings
from collections.abc import Sequence
from typing import Any

import keras

from spinkeras._typing import PathLike
from spinkeras.export.network import ExportReport, need_tensorflow
from spinkeras.export.portable import carrying, export_file


def export_litert(
    model: keras.Model,
    path: PathLike,
    *,
    input_signature: Any = None,
    output_names: Sequence[str] | None = None,
    probe: Any = None,
) -> ExportReport:
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
    return export_file(
        model, path, ".tflite", _convert_litert, _run_litert, input_signature, output_names, probe
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
        with carrying("LiteRT", " with its built-in operations", "The converter says"):
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
        with carrying("LiteRT", failure, errors=(RuntimeError, ValueError)):
            runner = Interpreter(model_content=content).get_signature_runner("serving_default")
            got = runner(**network.named(network.probes))
    return [got[name] for name in network.output_names]
