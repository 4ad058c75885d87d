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
    """Write a network as a LiteRT (`.tflite`) file that uses only built-in operations.

    The file has one signature, `serving_default`, with the same names as `export_for_serving`. It
    computes expected values; use `export_for_serving` for samples and energies. The interpreter
    runs the file before it gets its final name. All outputs must agree with the model within 1e-4
    of `max(1, |output|)`. Every spin layer is also run alone: its probabilities must agree within
    a relative error of 1e-4 over the whole curve, down to 1e-12.

    Args:
        model: a built Keras model on the TensorFlow backend.
        path: file name that ends in `.tflite`; an existing file is replaced atomically.
        input_signature, output_names, probe: as for `export_for_serving`.

    Returns:
        `ExportReport`.

    Raises:
        ValueError: if the format cannot hold the network (operations without a built-in kernel,
            random numbers, state) or the file disagrees with it. Then no file is written.

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
        # The converter's errors have no common base class.
        with carrying("LiteRT", " with its built-in operations", "The converter says"):
            return converter.convert()


def _run_litert(content, network):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tf.lite.Interpreter warns that it will be replaced
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
