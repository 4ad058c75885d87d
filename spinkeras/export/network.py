"""Trace a network for an export, and compare the exported file with the network.

The knobs of the spin layers become constants of the traced graph. So a server computes the curve
of every neuron only once, not for every request.
"""

import dataclasses
import pathlib
import re

import keras
import numpy as np
from keras import ops

from spinkeras import _keras, _tracing
from spinkeras.energy.meter import PICO, refuse_unseen, traced_energies
from spinkeras.layer.draws import FEW_PULSES
from spinkeras.layer.members import spin_neurons, unique_names
from spinkeras.layer.observation import Expected, observing

TOLERANCE = 1e-4
"""Largest accepted difference between an exported network and its Keras model."""

_AUTOMATIC_INPUT = re.compile(r"(keras_tensor|input_layer)(_\d+)?")
_STATE_WRITE = re.compile(
    r"Assign|^ResourceApply|^ResourceScatter|^Scatter|^RngReadAndSkip|^RngSkip"
)
_PYTHON = ("PyFunc", "EagerPyFunc", "PyFuncStateless")


@dataclasses.dataclass(frozen=True)
class ExportReport:
    """Result of an export: the path, the names, and the agreement with the Keras model.

    Attributes:
        path: folder of the version (SavedModel), or file (LiteRT, ONNX).
        inputs, outputs: names that a client uses for the inputs and outputs.
        probes: number of samples on which the file was compared with the model.
        output_error: largest `|exported - keras| / max(1, |keras|)` over all outputs.
        neuron_error: for LiteRT and ONNX the largest relative error of a spin layer run alone over
            its whole curve, down to probabilities of 1e-12. `None` for a SavedModel.
        energy_error: for a SavedModel the largest relative difference between the `energy`
            endpoint and `energy_report` for single samples. `None` without that endpoint.

    Example:

    >>> import pathlib, spinkeras
    >>> path = pathlib.Path("model.onnx")
    >>> report = spinkeras.export.ExportReport(path, ("x",), ("spin",), 8, 2e-7, 3e-6)
    >>> report.output_error < 1e-4  # else an export refuses its own file
    True
    """

    path: pathlib.Path
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    probes: int
    output_error: float
    neuron_error: float | None = None
    energy_error: float | None = None


class Network:
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
        with observing(Expected(self.layers)):
            outputs = model(inputs, training=False)
        flat = keras.tree.flatten(outputs)
        self.output_names = _output_names(model, outputs, len(flat), output_names)
        self.reference = [ops.convert_to_numpy(value).astype("float64") for value in flat]
        for name, value in zip(self.output_names, self.reference):
            if not np.all(np.isfinite(value)):
                raise ValueError(
                    f"The model's own output {name!r} is NaN or infinite on the probe inputs, so "
                    "it cannot be exported. Check that its weights are finite. Give `probe` if the "
                    "model needs special inputs."
                )

    def pack(self, flat):
        """Flat inputs, packed in the structure that the model takes."""
        return keras.tree.pack_sequence_as(self._structure, list(flat))

    def named(self, flat):
        return dict(zip(self.input_names, flat))

    def keras_signature(self):
        """Signature of the model's single argument, or `None`: then Keras finds it itself."""
        return None if self._signature is None else [self._signature]

    def _probes(self, given):
        """Inputs on which to compare, as a flat list of NumPy arrays."""
        if given is not None:
            flat = [np.asarray(value) for value in keras.tree.flatten(given)]
            lengths = {len(value) if value.ndim else 0 for value in flat}
            if len(flat) != len(self.input_names) or len(lengths) != 1 or 0 in lengths:
                raise ValueError(
                    f"probe must hold one array per input {self.input_names}, all of the same "
                    f"length > 0; got shapes {[value.shape for value in flat]}."
                )
            return [value[:256].astype(d) for value, d in zip(flat, self.input_dtypes)]
        random = np.random.default_rng(0)
        # From zero over small signals to deep saturation on both sides.
        scales = np.repeat([0.0, 1e-3, 0.1, 1.0, 10.0, 1000.0], 8)
        flat = []
        for shape, dtype in zip(self.input_shapes, self.input_dtypes):
            shape = tuple(4 if size is None else size for size in shape[1:])
            if "float" in dtype:
                values = random.standard_normal((len(scales), *shape))
                values *= scales.reshape((-1,) + (1,) * len(shape))
            elif "int" in dtype or dtype == "bool":
                values = random.integers(0, 2, (len(scales), *shape))
                values.reshape(len(scales), -1)[:, 0] = 1  # no sample may be masked completely
            else:
                raise ValueError(f"Inputs of type {dtype} need example data; give `probe`.")
            flat.append(values.astype(dtype))
        return flat

    def report(self, path, output_error, **errors):
        """`ExportReport` of the file or folder at this path."""
        names = tuple(self.input_names), tuple(self.output_names)
        return ExportReport(path, *names, len(self.probes[0]), output_error, **errors)

    def compare(self, got):
        """Largest difference from the model's own outputs; refuses one above `TOLERANCE`."""
        worst = 0.0
        for name, new, old in zip(self.output_names, got, self.reference):
            if new.shape != old.shape:
                raise ValueError(
                    f"The exported output {name!r} has shape {new.shape}, but the model's has "
                    f"{old.shape}; the export does not compute this network."
                )
            error = np.abs(new.astype("float64") - old) / np.maximum(1.0, np.abs(old))
            if not np.all(error <= TOLERANCE):  # before `max`, which drops NaN
                raise ValueError(
                    f"The exported output {name!r} differs from the model's by {np.max(error):.3g} "
                    f"(allowed: {TOLERANCE:g} of max(1, |output|)); the export does not compute "
                    "this network."
                )
            worst = max(worst, float(np.max(error, initial=0.0)))
        return worst

    def function(self, check_inputs, bits=None):
        """A function of the flat inputs that gives the expected outputs, or with `bits` a draw."""

        def forward(*flat):
            flat = self._checked(flat) if check_inputs else flat
            with observing(Traced(self.layers, bits)):
                outputs = keras.tree.flatten(self.model(self.pack(flat), training=False))
            return dict(zip(self.output_names, outputs))

        return forward

    def energy_function(self, check_inputs, layers, assumptions):
        """A function of the flat inputs that gives pJ per sample, in total and per spin layer."""

        def energies(*flat):
            flat = self._checked(flat) if check_inputs else flat
            meter = SampleMeter(layers, assumptions)
            with observing(meter):
                self.model(self.pack(flat), training=False)
            none = ops.zeros((ops.shape(flat[0])[0],), "float32")
            each = [meter.energies.get(id(layer), none) for layer in layers]
            return dict(zip(energy_names(layers), [sum(each[1:], each[0]), *each]))

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
        """Write a SavedModel of functions of the flat inputs; the first is `serving_default`."""
        archive = keras.export.ExportArchive()  # it finds the needed variables and tables itself
        for name, function in functions.items():
            endpoint = archive.add_endpoint(name, function, self._specs())
            refuse(endpoint, deterministic)
        archive.write_out(str(folder), verbose=False)


def refuse(endpoint, deterministic):
    """Refuse a traced function that writes state or calls Python, or, if asked, draws numbers."""
    definition = endpoint.get_concrete_function().graph.as_graph_def()
    nodes = [*definition.node, *(n for f in definition.library.function for n in f.node_def)]
    for node in nodes:
        if _STATE_WRITE.search(node.op):
            raise ValueError(
                f"The network writes state during inference ({node.op} in {node.name!r}). A "
                "server runs requests in parallel, so this is not allowed. Look for a layer with "
                "a metric or a random seed in its `call`."
            )
        if node.op in _PYTHON:
            raise ValueError(
                f"The network calls Python during inference ({node.op} in {node.name!r}), which no "
                "server can do. Replace the py_function or numpy_function."
            )
        if deterministic and "Random" in node.op:
            raise ValueError(
                f"The network draws random numbers during inference ({node.op} in {node.name!r}), "
                "but this format supports only expected values. Use "
                "export_for_serving(sample=True)."
            )


class Traced(Expected):
    """Observation of spin layers during an export; their knobs become constants of the graph.

    Args:
        layers: the spin layers.
        bits: `Bits`, which draws the output of the layers. Default `None`: the probability.
    """

    def __init__(self, layers, bits=None):
        import tensorflow as tf

        super().__init__(layers)
        self.bits = bits
        with tf.init_scope():  # read the variables now, not in the graph
            self._knobs = {
                id(layer): tuple(map(ops.convert_to_numpy, layer.knob_weights()))
                for layer in self.layers
            }

    def knobs(self, layer):
        return self._knobs[id(layer)]

    def fraction(self, layer, probability, training, correlation=None):
        return probability if self.bits is None else self.bits.draw(layer, probability)


class Bits:
    """Draws the fraction of a spin layer's pulses that switched.

    The draws come from TensorFlow's stateful random operations. A Keras `SeedGenerator` keeps its
    position in a variable, which parallel requests would have to write.
    """

    def __init__(self, seed):
        self.seed = seed
        self.count = 0

    def draw(self, layer, probability):
        import tensorflow as tf

        layer.refuse_chain(layer.pulses, "in an export")
        expected, shape = tf.cast(probability, tf.float32), tf.shape(probability)
        if layer.pulses <= FEW_PULSES:
            numbers = (
                tf.raw_ops.RandomUniform(shape=shape, dtype=tf.float32, **self.seeds())
                for _ in range(layer.pulses)
            )
            count = sum(tf.cast(number < expected, tf.float32) for number in numbers)
        else:
            lowest, highest = tf.constant(0), tf.constant(2**31 - 1)
            key = tf.raw_ops.RandomUniformInt(
                shape=[2], minval=lowest, maxval=highest, **self.seeds()
            )
            count = tf.random.stateless_binomial(
                shape, key, float(layer.pulses), expected, output_dtype=tf.float32
            )
        return tf.cast(count / layer.pulses, probability.dtype)

    def seeds(self):
        """Seeds of the next operation; with zeros TensorFlow chooses a random seed."""
        self.count += 1
        seed, number = (0, 0) if self.seed is None else (self.seed, self.count)
        return {"seed": seed, "seed2": number}


class SampleMeter(Traced):
    """Collects the energy of every sample in pJ while a forward pass is traced."""

    def __init__(self, layers, assumptions):
        super().__init__(layers)
        self.assumptions = assumptions
        self.energies = {}
        self._scope = _tracing.scope()

    def see(self, layer, inputs, setting, probability, training, mask):
        refuse_unseen(self._scope, layer, inputs, mask)
        parts = traced_energies(layer, layer.current(inputs), probability, mask, self.assumptions)
        total = ops.cast(sum(parts.values()), "float32") * PICO
        total = ops.sum(total, axis=tuple(range(1, len(total.shape))))
        key = id(layer)
        self.energies[key] = self.energies[key] + total if key in self.energies else total


def need_tensorflow(name):
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
    structure = _keras.input_structure(model)
    if structure is None:
        raise ValueError(
            "A subclassed model does not describe its inputs; give `input_signature`, for example "
            "keras.InputSpec(shape=(None, 64), dtype='float32')."
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


def energy_names(layers):
    names = [f"energy_pj_{name}" for name in unique_names(layers)]
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
    """The layer's name, but not a name that Keras generated, which changes between processes."""
    plain = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "_", type(layer).__name__)
    made_up = re.fullmatch(rf"{re.escape(plain.lower())}(_\d+)?", layer.name)
    return f"output_{k}" if made_up else layer.name


def _unique(names):
    names = list(names)
    for name in names:
        if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", str(name)) or names.count(name) > 1:
            raise ValueError(
                f"{name!r} cannot be the name of an input or output in {names}. Use different "
                "names of letters, digits and underscores (keras.Input(name=...), "
                "output_names=...)."
            )
    return names


def first_lines(error):
    return " ".join(str(error).split())[:400]
