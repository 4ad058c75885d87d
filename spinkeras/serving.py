"""Export of trained networks: TensorFlow SavedModel for servers, LiteRT and ONNX files for devices.

Every exporter follows the same three steps: trace the network, check the written file against
the Keras model on probe inputs, and only then give it its final name. A file or a version that is
visible has therefore been checked, and a crash leaves the ones before it untouched.

The knobs of the spin layers become constants of the exported graph, so that a server computes the
curve of every neuron once and not once per request. TensorFlow backend only; a `.keras` file
written under another backend can be loaded and exported with `KERAS_BACKEND=tensorflow`.
"""

import contextlib
import dataclasses
import functools
import importlib
import json
import os
import pathlib
import re
import shutil
import tempfile
import uuid
import warnings

import keras
import numpy as np
from keras import ops

from spinkeras import cloglog
from spinkeras import energy as energy_module
from spinkeras._version import __version__
from spinkeras.energy import EnergyAssumptions, energy_report
from spinkeras.neuron import spin_neurons

TOLERANCE = 1e-4
"""Largest accepted difference between an exported network and its Keras model."""

SMALLEST_PROBABILITY = 1e-12
"""Down to here the LiteRT and ONNX neurons agree with Keras relatively, within `TOLERANCE`.

Further down the agreement is absolute: the logarithm of a probability has a relative rounding
error of about 1e-6 in float32, in Keras as in the file, so at 1e-30 two runtimes differ by 1e-4.
"""

_KNOB_WEIGHTS = ("log_pulse_width", "log_anisotropy")
_AUTOMATIC_INPUT = re.compile(r"(keras_tensor|input_layer)(_\d+)?")
_STATE_WRITE = re.compile(
    r"Assign|^ResourceApply|^ResourceScatter|^Scatter|^RngReadAndSkip|^RngSkip"
)
_PYTHON = ("PyFunc", "EagerPyFunc", "PyFuncStateless")


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """What an export wrote and how well it agrees with the Keras model.

    Attributes:
        path: the version folder (SavedModel) or the file (LiteRT, ONNX).
        inputs, outputs: names by which a client addresses the network.
        probes: number of samples on which the file was compared with the model.
        output_error: largest `|exported - keras| / max(1, |keras|)` over all outputs.
        neuron_error: LiteRT and ONNX: largest relative error of a spin layer alone over its whole
            curve, down to probabilities of 1e-12. `None` for the SavedModel.
        energy_error: SavedModel: largest relative difference between the `energy` endpoint and
            `energy_report` of single samples. `None` without that endpoint.
    """

    path: pathlib.Path
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    probes: int
    output_error: float
    neuron_error: float | None = None
    energy_error: float | None = None


# --- SavedModel ----------------------------------------------------------------------------------


def export_for_serving(
    model,
    path,
    *,
    version=None,
    sample=False,
    energy=True,
    seed=None,
    assumptions=None,
    check_inputs=True,
    input_signature=None,
    output_names=None,
    probe=None,
):
    """Write the next version of a network for TensorFlow Serving, or any SavedModel runtime.

    The version lands in `path/1`, `path/2`, ... (the next free number), complete or not at all:
    it is written to a hidden sibling, checked there against the model and renamed. The graph
    needs neither this library nor Python, and writes no state. Endpoints:

    * `serve`, also called `serving_default`: the outputs of `model(x, training=False)`.
    * `energy`: pJ per inference for every sample of the request, `energy_pj` for all spin layers
      and `energy_pj_<layer>` for each; the quantity that `energy_report` prints as a mean.
    * `sample` (on request): the outputs when every spin neuron answers with the fraction of its
      `pulses` that switched (by default one bit), drawn anew for every request.

    `serve` and `energy` belong to the expected network: probabilities travel from layer to layer,
    also where a layer's `output` is sampled.

    Inputs are called as their `keras.Input(name=...)`, outputs as the last layers if these were
    given names; otherwise `input`, `output_0` and so on.

    Args:
        model: a built Keras model on the TensorFlow backend.
        path: base folder on a local file system; created if missing.
        version: number of the version, >= 1. Default the next free one. Never overwritten.
        sample: whether to add the `sample` endpoint. Default `False`.
        energy: whether to add the `energy` endpoint. Default `True`.
        seed: integer >= 0 that makes the sequence of samples reproducible from the start of a
            server on. Default `None`: different on every server and after every start.
        assumptions: `EnergyAssumptions` of the `energy` endpoint.
        check_inputs: whether the graph itself refuses NaN, infinity and wrong shapes (the server
            answers INVALID_ARGUMENT, HTTP 400). Default `True`. With request batching on the
            server, a refused sample fails the requests that share its batch.
        input_signature: structure of `keras.InputSpec` or `tf.TensorSpec` as for calling the
            model; needed for subclassed models only.
        output_names: one name per output, in the order of `keras.tree.flatten(model(x))`.
        probe: inputs as for `model.predict` on which to compare. Default: generated values.

    Returns:
        `ExportReport`.

    Raises:
        ValueError: for another backend, an unbuilt model, `energy` without spin layers, names
            that no client could use, a version that exists, a network that writes state or calls
            Python while it infers, or one whose written graph disagrees with the model.

    Example:

    >>> import tempfile, keras, spinkeras
    >>> from spinkeras import serving
    >>> model = keras.Sequential([keras.Input((4,), name="x"), spinkeras.SpinNeuron(name="spin")])
    >>> report = serving.export_for_serving(model, tempfile.mkdtemp() + "/spin")
    >>> report.path.name, report.inputs, report.outputs
    ('1', ('x',), ('spin',))
    """
    tf = _tensorflow("export_for_serving")
    network = _Network(model, input_signature, output_names, probe)
    layers = network.layers
    if (energy or sample) and not layers:
        raise ValueError(
            "This model has no SpinNeuron, so it has no energy and nothing to sample; export it "
            "with energy=False and sample=False."
        )
    if version is not None and (
        isinstance(version, bool) or int(version) != version or version < 1
    ):
        raise ValueError(f"version = {version!r} must be a whole number >= 1.")
    if seed is not None and not 0 <= seed < 2**31:
        raise ValueError(f"seed = {seed!r} must be a whole number from 0 to 2^31 - 1.")
    assumptions = EnergyAssumptions() if assumptions is None else assumptions

    functions = {"serve": network.function(check_inputs)}
    if energy:
        functions["energy"] = network.energy_function(check_inputs, layers, assumptions)
    if sample:
        functions["sample"] = network.function(check_inputs, _Bits(seed))

    base = pathlib.Path(path)
    base.mkdir(parents=True, exist_ok=True)
    if version is not None and (base / str(version)).exists():
        raise ValueError(
            f"Version {version} exists in {base}; a served version is never overwritten. Leave "
            "`version` out for the next free number."
        )
    hidden = base / f".export-{uuid.uuid4().hex}"  # servers skip names that are not numbers
    try:
        network.write(hidden, functions)
        report = _check_saved_model(tf, hidden, network, assumptions, energy)
        _write_provenance(hidden, network, layers, assumptions, functions)
        _sync(hidden)
        final = _publish(hidden, base, version)
    except BaseException:
        shutil.rmtree(hidden, ignore_errors=True)
        raise
    return dataclasses.replace(report, path=final)


def _check_saved_model(tf, folder, network, assumptions, energy):
    """Load what was written and compare it with the model."""
    loaded = tf.saved_model.load(str(folder))

    def run(endpoint, probes):
        try:
            return loaded.signatures[endpoint](**network.named(probes))
        except tf.errors.OpError as error:
            raise ValueError(
                f"The written endpoint {endpoint!r} does not run on the probe inputs: "
                f"{_first_lines(error)}"
            ) from error

    got = run("serve", network.probes)
    output_error = network.compare([got[name].numpy() for name in network.output_names])
    energy_error = None
    if energy:
        few = [value[:: max(1, len(value) // 4)] for value in network.probes]
        got = run("energy", few)
        energy_error = _compare_energy(got, network, few, assumptions)
    return ExportReport(
        folder,
        tuple(network.input_names),
        tuple(network.output_names),
        len(network.probes[0]),
        output_error,
        energy_error=energy_error,
    )


def _compare_energy(got, network, probes, assumptions):
    names = _energy_names(network.layers)
    count = len(probes[0])
    worst = 0.0
    for k in range(count):
        one = network.pack([value[k : k + 1] for value in probes])
        with _expected(network.layers):
            report = energy_report(network.model, one, assumptions=assumptions, print_fn=None)
        wanted = [report.total_pj, *(row["total_pj"] for row in report.layers)]
        for name, want in zip(names, wanted):
            value = got[name].numpy()
            if value.shape != (count,) or not abs(value[k] - want) <= TOLERANCE * abs(want):
                raise ValueError(
                    f"The endpoint 'energy' gives {name} = {value} pJ where energy_report gives "
                    f"{want:.6g} pJ for sample {k}: the energy of this network cannot be told "
                    "apart by sample (a layer mixes the batch axis with others, or the batch "
                    "itself changes the result). Export it with energy=False."
                )
            worst = max(worst, abs(value[k] - want) / abs(want) if want else 0.0)
    return float(worst)


def _write_provenance(folder, network, layers, assumptions, functions):
    """What the numbers rest on, beside the graph; servers ignore `assets.extra`."""
    devices = list(dict.fromkeys(layer.device for layer in layers))
    text = json.dumps(
        {
            "written_by": f"spinkeras {__version__}",
            "endpoints": list(functions),
            "inputs": network.input_names,
            "outputs": network.output_names,
            "energy_unit": "pJ per inference",
            "energy_assumptions": [line for d in devices for line in assumptions.lines(d)],
            "devices": [device.get_config() for device in devices],
        },
        indent=2,
    )
    extra = folder / "assets.extra"
    extra.mkdir()
    (extra / "spinkeras.json").write_text(text + "\n")


def _sync(folder):
    """Bring every file to the disk before the folder gets a name that servers look for."""
    for parent, _, files in os.walk(folder):
        for name in (*files, "."):
            handle = os.open(os.path.join(parent, name), os.O_RDONLY)
            try:
                os.fsync(handle)
            finally:
                os.close(handle)


def _publish(hidden, base, version):
    """Rename the hidden folder to its number; another exporter may take that number meanwhile."""
    while True:
        number = version
        if number is None:
            taken = [int(p.name) for p in base.iterdir() if re.fullmatch(r"[0-9]+", p.name)]
            number = max(taken, default=0) + 1
        final = base / str(number)
        try:
            os.rename(hidden, final)
        except OSError:
            if version is None and final.exists():
                continue
            raise
        return final


# --- LiteRT and ONNX -----------------------------------------------------------------------------


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
    >>> from spinkeras import serving
    >>> model = keras.Sequential([keras.Input((4,), name="x"), spinkeras.SpinNeuron(name="spin")])
    >>> report = serving.export_litert(model, tempfile.mkdtemp() + "/spin.tflite")
    >>> report.output_error < 1e-4 and report.neuron_error < 1e-4
    True
    """
    _tensorflow("export_litert")
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
    >>> from spinkeras import serving
    >>> model = keras.Sequential([keras.Input((4,), name="x"), spinkeras.SpinNeuron(name="spin")])
    >>> report = serving.export_onnx(model, tempfile.mkdtemp() + "/spin.onnx")
    >>> report.output_error < 1e-4 and report.neuron_error < 1e-4
    True
    """
    _tensorflow("export_onnx")
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
    network = _Network(model, input_signature, output_names, probe)
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
    hidden = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        hidden.write_bytes(content)
        os.replace(hidden, path)
    finally:
        hidden.unlink(missing_ok=True)
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
        with _kernel(network.layers, cloglog.without_log_near_1):
            network.write(folder, {"serve": network.function(False)}, deterministic=True)
        converter = tf.lite.TFLiteConverter.from_saved_model(
            folder, signature_keys=["serving_default"]
        )
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS]
        try:
            return converter.convert()
        except Exception as error:  # the converter has no common base class for its failures
            raise ValueError(
                "LiteRT cannot carry this network with its built-in operations; use "
                f"export_for_serving. The converter says: {_first_lines(error)}"
            ) from error


def _run_litert(content, network):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # tf.lite.Interpreter announces its successor
        try:
            from ai_edge_litert.interpreter import Interpreter
        except ImportError:
            import tensorflow as tf

            Interpreter = tf.lite.Interpreter
        try:
            runner = Interpreter(model_content=content).get_signature_runner("serving_default")
            got = runner(**network.named(network.probes))
        except (RuntimeError, ValueError) as error:
            raise ValueError(
                "LiteRT cannot carry this network (its interpreter fails on the converted file); "
                f"use export_for_serving. It says: {_first_lines(error)}"
            ) from error
    return [got[name] for name in network.output_names]


def _convert_onnx(network):
    import onnx

    model = network.model
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # tf2onnx asks NumPy for old names
        file = os.path.join(folder, "model.onnx")
        # Keras' own exporter knows how to run tf2onnx beside NumPy 2; it does not name outputs.
        with _tracing(network.layers):
            _refuse(network.trace(network.function(False)), deterministic=True)
            try:
                model.export(
                    file, format="onnx", verbose=False, input_signature=network.keras_signature()
                )
                proto = onnx.load(file)
            except Exception as error:  # tf2onnx raises whatever its converters run into
                raise ValueError(
                    "ONNX cannot carry this network; use export_for_serving. The converter says: "
                    f"{_first_lines(error)}"
                ) from error
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

    try:
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions live in a private module
        raise ValueError(
            "ONNX cannot carry this network (ONNX Runtime does not load the converted file); use "
            f"export_for_serving. It says: {_first_lines(error)}"
        ) from error
    try:
        return session.run(network.output_names, network.named(network.probes))
    except Exception as error:
        raise ValueError(
            "ONNX cannot carry this network (ONNX Runtime fails on the converted file); use "
            f"export_for_serving. It says: {_first_lines(error)}"
        ) from error


def _first_lines(error):
    return " ".join(str(error).split())[:400]


# --- spin layers alone ---------------------------------------------------------------------------


def _neurons_alone(layers):
    """A network of copies of the spin layers, each on an input of its own, and ramps for them.

    Within a network, rounding before a neuron hides what happens in its tail. Alone, every knob
    is driven over its whole curve.
    """
    inputs, outputs, ramps, names = [], [], [], []
    for k, layer in enumerate(layers):
        config = {**layer.get_config(), "name": f"spin_{k}", "dtype": "float32"}
        config["output"] = "probability"
        copy = type(layer).from_config(config)
        shape = tuple(layer.log_pulse_width.shape)
        source = keras.Input(shape, name=f"ramp_{k}")
        outputs.append(copy(source))
        for knob in _KNOB_WEIGHTS:
            getattr(copy, knob).assign(getattr(layer, knob))
        inputs.append(source)
        names.append(copy.name)
        steps = np.linspace(-80.0, 40.0, 241).reshape((-1,) + (1,) * len(shape))
        ramps.append((steps / (4 * layer.slope)).astype("float32"))
    return _Network(keras.Model(inputs, outputs), None, names, ramps)


def _compare_neurons(got, alone, suffix):
    worst = 0.0
    for name, new, old in zip(alone.output_names, got, alone.reference):
        floor = np.maximum(np.abs(old), SMALLEST_PROBABILITY)
        error = np.abs(new.astype("float64") - old) / floor
        where = np.unravel_index(np.argmax(error), error.shape)
        worst = max(worst, float(error[where]))
        if not worst <= TOLERANCE:
            raise ValueError(
                f"The {suffix} file gives {new[where]:.6g} for a probability of {old[where]:.6g} "
                f"(spin layer number {name.removeprefix('spin_')}), which is off by more than "
                f"{TOLERANCE:g}: this format's arithmetic does not carry its switching model. Use "
                "export_for_serving."
            )
    return worst


# --- tracing -------------------------------------------------------------------------------------


class _Network:
    """A model with flat, named inputs and outputs, ready to be traced and compared."""

    def __init__(self, model, input_signature, output_names, probe):
        if not isinstance(model, keras.Model):
            raise ValueError(f"An export needs a keras.Model; got {type(model).__name__}.")
        if not model.built:
            raise ValueError(
                "This model has no weights yet; call it on data or give it a keras.Input first."
            )
        self.model = model
        self.layers = [layer for layer in spin_neurons(model) if layer.built]
        self._signature = input_signature
        structure = _input_structure(model) if input_signature is None else input_signature
        flat = keras.tree.flatten(structure)
        self._structure = structure
        self.input_names = _unique(_input_name(s, k, len(flat)) for k, s in enumerate(flat))
        self.input_shapes = [(None, *tuple(spec.shape)[1:]) for spec in flat]
        self.input_dtypes = [keras.backend.standardize_dtype(_dtype(spec)) for spec in flat]
        self.probes = self._probes(probe)
        inputs = self.pack([ops.convert_to_tensor(value) for value in self.probes])
        with _expected(self.layers):
            outputs = model(inputs, training=False)
        flat = keras.tree.flatten(outputs)
        self.output_names = _output_names(model, outputs, len(flat), output_names)
        self.reference = [ops.convert_to_numpy(value).astype("float64") for value in flat]
        for name, value in zip(self.output_names, self.reference):
            if not np.all(np.isfinite(value)):
                raise ValueError(
                    f"The model's own output {name!r} is NaN or infinite on the probe inputs; "
                    "there is nothing to serve. Was its training finite? Give `probe` if the "
                    "model needs inputs of a special kind."
                )

    def pack(self, flat):
        """Flat inputs in the structure in which the model takes them."""
        return keras.tree.pack_sequence_as(self._structure, list(flat))

    def named(self, flat):
        return dict(zip(self.input_names, flat))

    def keras_signature(self):
        """The signature of the one argument of the model's call, or `None` to let Keras find it."""
        return None if self._signature is None else [self._signature]

    def _probes(self, given):
        """Inputs on which to compare, as a flat list of NumPy arrays."""
        if given is not None:
            flat = [np.asarray(value) for value in keras.tree.flatten(given)]
            lengths = {len(value) if value.ndim else 0 for value in flat}
            if len(flat) != len(self.input_names) or len(lengths) != 1 or 0 in lengths:
                raise ValueError(
                    f"probe must hold one array per input {self.input_names}, all of one length "
                    f"> 0; got shapes {[value.shape for value in flat]}."
                )
            return [value[:256].astype(d) for value, d in zip(flat, self.input_dtypes)]
        random = np.random.default_rng(0)
        # From nothing to deep saturation on both sides, small signals in between.
        scales = np.repeat([0.0, 1e-3, 0.1, 1.0, 10.0, 1000.0], 8)
        flat = []
        for shape, dtype in zip(self.input_shapes, self.input_dtypes):
            shape = tuple(4 if size is None else size for size in shape[1:])
            if "float" in dtype:
                values = random.standard_normal((len(scales), *shape))
                values *= scales.reshape((-1,) + (1,) * len(shape))
            elif "int" in dtype or dtype == "bool":
                values = random.integers(0, 2, (len(scales), *shape))
                values.reshape(len(scales), -1)[:, 0] = 1  # no sample that is masked altogether
            else:
                raise ValueError(f"Inputs of type {dtype} need example data: give `probe`.")
            flat.append(values.astype(dtype))
        return flat

    def compare(self, got):
        """Largest difference to the model's own outputs; refuses what is not the same network."""
        worst = 0.0
        for name, new, old in zip(self.output_names, got, self.reference):
            if new.shape != old.shape:
                raise ValueError(
                    f"The exported output {name!r} has shape {new.shape} where the model gives "
                    f"{old.shape}; the export is not this network."
                )
            error = np.abs(new.astype("float64") - old) / np.maximum(1.0, np.abs(old))
            worst = max(worst, float(np.max(error, initial=0.0)))
            if not worst <= TOLERANCE:
                raise ValueError(
                    f"The exported output {name!r} differs from the model's by {np.max(error):.3g} "
                    f"(allowed: {TOLERANCE:g} of max(1, |output|)); the export is not this network."
                )
        return worst

    def function(self, check_inputs, bits=None):
        """The expected outputs of the model, or one draw, as a function of the flat inputs."""

        def forward(*flat):
            flat = self._checked(flat) if check_inputs else flat
            with _tracing(self.layers, bits=bits):
                outputs = keras.tree.flatten(self.model(self.pack(flat), training=False))
            return dict(zip(self.output_names, outputs))

        return forward

    def energy_function(self, check_inputs, layers, assumptions):
        """pJ per sample, in total and for each spin layer, as a function of the flat inputs."""

        def energies(*flat):
            flat = self._checked(flat) if check_inputs else flat
            meter = _SampleMeter(assumptions)
            with _tracing(layers, meter=meter):
                self.model(self.pack(flat), training=False)
            none = ops.zeros((ops.shape(flat[0])[0],), "float32")
            each = [meter.energies.get(id(layer), none) for layer in layers]
            return dict(zip(_energy_names(layers), [sum(each[1:], each[0]), *each]))

        return energies

    def _checked(self, flat):
        import tensorflow as tf

        checked = []
        for name, shape, value in zip(self.input_names, self.input_shapes, flat):
            value = tf.ensure_shape(value, shape)
            if value.dtype.is_floating:
                value = tf.debugging.check_numerics(value, f"input {name!r} is not finite")
            checked.append(value)
        return checked

    def trace(self, function):
        import tensorflow as tf

        return tf.function(function, input_signature=self._specs(), autograph=False)

    def _specs(self):
        import tensorflow as tf

        parts = zip(self.input_names, self.input_shapes, self.input_dtypes)
        return [tf.TensorSpec(shape, dtype, name=name) for name, shape, dtype in parts]

    def write(self, folder, functions, deterministic=False):
        """A SavedModel of some functions of the flat inputs; the first is `serving_default`."""
        archive = keras.export.ExportArchive()  # finds the variables and tables it needs itself
        for name, function in functions.items():
            endpoint = archive.add_endpoint(name, function, self._specs())
            _refuse(endpoint, deterministic)
        archive.write_out(str(folder), verbose=False)


def _refuse(endpoint, deterministic):
    """Refuse a traced function that writes state or calls Python; or, where asked, any draw."""
    definition = endpoint.get_concrete_function().graph.as_graph_def()
    nodes = [*definition.node, *(n for f in definition.library.function for n in f.node_def)]
    for node in nodes:
        if _STATE_WRITE.search(node.op):
            raise ValueError(
                f"The network writes state while it infers ({node.op} in {node.name!r}); a server "
                "runs requests side by side and must not. Look for a layer with a metric or a "
                "random seed in its `call`."
            )
        if node.op in _PYTHON:
            raise ValueError(
                f"The network calls Python while it infers ({node.op} in {node.name!r}), which no "
                "server can. Replace the py_function or numpy_function."
            )
        if deterministic and "Random" in node.op:
            raise ValueError(
                f"The network draws random numbers while it infers ({node.op} in {node.name!r}); "
                "this format carries expected values only. Use export_for_serving(sample=True)."
            )


@contextlib.contextmanager
def _tracing(layers, meter=None, bits=None):
    """While the spin layers are traced: knobs as constants, this meter and no other, draws."""
    import tensorflow as tf

    with contextlib.ExitStack() as stack:
        stack.enter_context(_expected(layers))
        for layer in layers:
            with tf.init_scope():  # read the variables now, not in the graph
                values = {k: ops.convert_to_numpy(getattr(layer, k)) for k in _KNOB_WEIGHTS}
            if bits is not None:
                values["call"] = bits.wrap(layer)
            stack.enter_context(_replaced(layer, meter=meter, **values))
        yield


@contextlib.contextmanager
def _expected(layers):
    """While spin layers give the probability of a nominal device, whatever they are set to."""
    with contextlib.ExitStack() as stack:
        for layer in layers:
            stack.enter_context(_replaced(layer, output_mode="probability", chip=None))
        yield


@contextlib.contextmanager
def _kernel(layers, kernel):
    """While the curves are traced by a given kernel of `spinkeras.cloglog`."""
    with contextlib.ExitStack() as stack:
        for layer in layers:
            response = functools.partial(layer.response, kernel=kernel)
            stack.enter_context(_replaced(layer, response=response))
        yield


@contextlib.contextmanager
def _replaced(layer, **attributes):
    """Other attributes for a layer, out of sight of Keras' bookkeeping."""
    state = vars(layer)
    before = {name: state[name] for name in attributes if name in state}
    state.update(attributes)
    try:
        yield
    finally:
        for name in attributes:
            del state[name]
        state.update(before)


class _Bits:
    """Replaces the output of a spin layer by the fraction of its pulses that switched.

    The draws come from a stateful kernel and not from a Keras `SeedGenerator`: the latter keeps
    its position in a variable, which concurrent requests would have to write.
    """

    def __init__(self, seed):
        self.seed = seed
        self.count = 0

    def wrap(self, layer):
        call, pulses = layer.call, layer.pulses

        def draw(*args, **kwargs):
            import tensorflow as tf

            probability = tf.convert_to_tensor(call(*args, **kwargs))
            expected = tf.cast(probability, tf.float32)
            self.count += 1  # seeds (0, 0) mean: from the system's entropy
            seeds = (0, 0) if self.seed is None else (self.seed, self.count)
            seeds = {"seed": seeds[0], "seed2": seeds[1]}
            shape = tf.shape(probability)
            if pulses == 1:
                fraction = (
                    tf.raw_ops.RandomUniform(shape=shape, dtype=tf.float32, **seeds) < expected
                )
            else:
                lowest, highest = tf.constant(0), tf.constant(2**31 - 1)
                key = tf.raw_ops.RandomUniformInt(shape=[2], minval=lowest, maxval=highest, **seeds)
                count = tf.random.stateless_binomial(
                    shape, key, float(pulses), expected, output_dtype=tf.float32
                )
                fraction = count / pulses
            return tf.cast(fraction, probability.dtype)

        return draw


class _SampleMeter:
    """Collects the energy of every sample in pJ while a forward pass is traced."""

    def __init__(self, assumptions):
        import tensorflow as tf

        self.assumptions = assumptions
        self.energies = {}
        self.graph = tf.compat.v1.get_default_graph()

    def __call__(self, layer, inputs, probability, training, mask):
        # `while_loop` traces into a graph of its own, `vectorized_map` into a name scope.
        if probability.graph is not self.graph or "/loop_body/" in probability.name:
            raise ValueError(
                f"Layer {layer.name!r} runs inside a loop of the graph (TimeDistributed over an "
                "unknown number of steps, or a recurrent layer), where its energy cannot be "
                "read. Give the number of steps in keras.Input, or export with energy=False."
            )
        parts = energy_module.traced_energies(
            layer, layer.current(inputs), probability, mask, self.assumptions
        )
        total = ops.cast(sum(parts.values()), "float32") * 1e12
        total = ops.sum(total, axis=tuple(range(1, len(total.shape))))
        key = id(layer)
        self.energies[key] = self.energies[key] + total if key in self.energies else total


# --- names ---------------------------------------------------------------------------------------


def _tensorflow(name):
    if keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"{name} needs the TensorFlow backend; this process runs {keras.backend.backend()!r}. "
            "Save the model as a .keras file and export it with KERAS_BACKEND=tensorflow."
        )
    import tensorflow as tf

    return tf


def _input_structure(model):
    if isinstance(model, keras.Sequential):
        return model.inputs[0]
    structure = getattr(model, "_inputs_struct", None)  # Keras has no public name for it
    if structure is None:
        raise ValueError(
            "A subclassed model does not say what its inputs are: give `input_signature`, for "
            "example keras.InputSpec(shape=(None, 64), dtype='float32')."
        )
    return structure


def _dtype(spec):
    dtype = spec.dtype
    return dtype.name if hasattr(dtype, "as_numpy_dtype") else dtype


def _input_name(spec, k, count):
    name = getattr(spec, "name", None)
    if not name or _AUTOMATIC_INPUT.fullmatch(name):
        return "input" if count == 1 else f"input_{k}"
    return name


def _energy_names(layers):
    names = [f"energy_pj_{name}" for name in energy_module._unique_names(layers)]
    return ["energy_pj", *names]


def _output_names(model, outputs, count, wanted):
    if wanted is None:
        if isinstance(outputs, dict) and len(outputs) == count:
            wanted = keras.tree.flatten({key: key for key in outputs})
        elif isinstance(model, keras.Sequential):
            wanted = [_layer_name(model.layers[-1], 0)]
        else:
            names = getattr(model, "output_names", [])
            wanted = [f"output_{k}" for k in range(count)]
            if len(names) == count:
                wanted = [_layer_name(model.get_layer(n), k) for k, n in enumerate(names)]
    if len(wanted) != count:
        raise ValueError(f"output_names = {wanted} must hold one name for each of {count} outputs.")
    return _unique(wanted)


def _layer_name(layer, k):
    """The layer's name, unless Keras made it up: those change from process to process."""
    plain = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", type(layer).__name__)
    made_up = re.fullmatch(rf"{re.escape(plain.lower())}(_\d+)?", layer.name)
    return f"output_{k}" if made_up else layer.name


def _unique(names):
    names = list(names)
    for name in names:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", str(name)) or names.count(name) > 1:
            raise ValueError(
                f"{name!r} cannot name an input or output in {names}: use different names of "
                "letters, digits and underscores (keras.Input(name=...), output_names=...)."
            )
    return names
