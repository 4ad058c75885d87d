"""ONNX files, for ONNX Runtime and other runtimes."""

import importlib
import os
import tempfile
import warnings
from collections.abc import Sequence
from typing import Any

import keras

from spinkeras._typing import PathLike
from spinkeras.export.network import ExportReport, Traced, need_tensorflow, refuse
from spinkeras.export.portable import carrying, export_file
from spinkeras.layer import core
from spinkeras.layer.observation import observing


def export_onnx(
    model: keras.Model,
    path: PathLike,
    *,
    input_signature: Any = None,
    output_names: Sequence[str] | None = None,
    probe: Any = None,
) -> ExportReport:
    """Write a network as an ONNX file.

    Names, checks, arguments and errors are those of `export_litert`. ONNX Runtime runs the file
    for the checks.

    Args:
        model: a built Keras model on the TensorFlow backend, float32.
        path: file name that ends in `.onnx`; an existing file is replaced atomically.
        input_signature, output_names, probe: as for `export_for_serving`.

    Returns:
        `ExportReport`.

    Raises:
        ImportError: without `tf2onnx` and `onnxruntime`.
        ValueError: if the format cannot hold the network or the file disagrees with it. Then no
            file is written.

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
                f"export_onnx needs the package {package!r}: pip install tf2onnx onnxruntime."
            ) from error
    return export_file(
        model, path, ".onnx", _convert_onnx, _run_onnx, input_signature, output_names, probe
    )


class _ByParts(Traced):
    logistic = staticmethod(core.logistic_by_parts)


def _convert_onnx(network):
    import onnx

    model = network.model
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # tf2onnx asks NumPy for old names
        file = os.path.join(folder, "model.onnx")
        # Keras's exporter makes tf2onnx work with NumPy 2, but it does not name the outputs.
        with observing(_ByParts(network.layers)):
            refuse(network.trace(network.function(False)), deterministic=True)
            # The converters of tf2onnx raise errors of many classes.
            with carrying("ONNX", "", "The converter says"):
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

    # The exception classes of ONNX Runtime are private.
    with carrying("ONNX", " (ONNX Runtime does not load the converted file)"):
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    with carrying("ONNX", " (ONNX Runtime fails on the converted file)"):
        return session.run(network.output_names, network.named(network.probes))
