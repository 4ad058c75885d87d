"""The energy of every spin layer on given data, and the settings of its neurons."""

import dataclasses
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

from spinkeras import _keras, _tracing, checks, tables
from spinkeras.energy.meter import PICO, refuse_unseen, spread_mask
from spinkeras.energy.pulse import (
    COMPONENTS,
    EnergyAssumptions,
    assumptions_of,
    checked_assumptions,
    pulse_energies,
    warn_of_strong_reads,
)
from spinkeras.layer.knobs import knob_range
from spinkeras.layer.members import spin_neurons, unique_names, weights_hash
from spinkeras.layer.neuron import SpinNeuron
from spinkeras.layer.observation import Expected, Observation, observing
from spinkeras.physics.resistance import voltage_of_current


class _Recorder(Observation):
    """Like `MeteredStep`, but in NumPy float64 and with the largest voltage."""

    def __init__(self, layers, assumptions):
        super().__init__(layers)
        self.assumptions = assumptions
        self._scope = _tracing.scope()
        self.energies = {}
        self.firings = {}
        self.voltage = {}

    def see(self, layer, inputs, setting, probability, training, mask):
        refuse_unseen(self._scope, layer, inputs, mask)
        current, probability = (
            ops.convert_to_numpy(v).astype("float64") for v in (layer.current(inputs), probability)
        )
        energies = pulse_energies(
            current,
            layer.pulse_width,
            layer.anisotropy,
            probability,
            layer.device,
            assumptions_of(layer, self.assumptions),
            layer.pulses,
        )
        fires = np.ones(current.shape)
        if mask is not None:
            fires *= spread_mask(ops.convert_to_numpy(mask), current)
        total = np.array([np.sum(energies[name] * fires) * PICO for name in COMPONENTS])
        highest = np.max(np.abs(current) * fires, initial=0.0)
        voltage = float(voltage_of_current(highest, layer.device))
        key = id(layer)
        self.energies[key] = self.energies.get(key, 0.0) + total
        self.firings[key] = self.firings.get(key, 0.0) + fires.sum() * layer.pulses
        self.voltage[key] = max(self.voltage.get(key, 0.0), voltage)


class _NominalRecorder(Expected, _Recorder):
    pass


def latency(model: keras.Model) -> float:
    """Time in s for the pulses of one inference: the sum of every layer's longest pulse.

    A layer with several pulses per inference counts all of them. Layers are taken to work one
    after the other; if branches work in parallel, the result is an upper limit. A layer that is
    used several times in a pass (a recurrent cell, shared layers) counts once. Reading and
    resetting are not included.

    Args:
        model: Keras model; without a spin neuron, the result is 0.

    Raises:
        ValueError: if no spin neuron of the model is built, because it has no pulse width yet.

    Example:

    >>> import keras
    >>> import spinkeras
    >>> model = keras.Sequential([keras.Input((4,)), spinkeras.SpinNeuron()])
    >>> round(spinkeras.latency(model) * 1e9, 3)  # ns
    2.0
    """
    layers = spin_neurons(model)
    built = [layer for layer in layers if layer.built]
    if layers and not built:
        raise ValueError(
            f"No SpinNeuron of {model.name!r} is built, so their pulse widths are not known yet; "
            "call the model once on data, or begin it with a keras.Input."
        )
    return float(sum(np.max(layer.pulse_width) * layer.pulses for layer in built))


ENDS = {
    "pulse_width": ("shortest pulse", "longest pulse"),
    "anisotropy": ("least anisotropy", "most anisotropy"),
}


def at_limit(layer) -> dict:
    """For every limit of the device: which neurons have a trained knob there, as an array."""
    found = {}
    for knob, ends in ENDS.items():
        value, limits = getattr(layer, knob), knob_range(layer.device, knob)
        for end, limit in zip(ends, limits):
            near = np.abs(value - limit) <= 1e-3 * limit
            found[end] = near & (knob in layer.trained_knobs)
    return found


def least_stability(layer) -> float:
    """Lowest thermal stability of a layer's neurons at their gate voltages."""
    return float(layer.device.stability_at(np.min(layer.anisotropy)))


def limits_in_words(row) -> str:
    """Limits of the device that neurons reach, for a row of an `EnergyReport`, in words."""
    shares = (f"{share:.0%} {end}" for end, share in row["at_limit"].items() if share)
    return ", ".join(shares) or "none"


def others_in_words(report) -> str:
    """The layers whose energy an `EnergyReport` does not include, in words."""
    others = (f"{count} {name}" for name, count in report.other_layers.items())
    return ", ".join(others) or "no other layers"


@dataclasses.dataclass(frozen=True)
class EnergyReport(tables.Table):
    """Result of `energy_report`.

    `print(report)` shows a table; a notebook shows a card. `to_dataframe()` and `to_csv(path)`
    give one row per spin layer.

    Attributes:
        layers: one dictionary per spin layer, with these keys. `name`; `pulses` per inference;
            `write_pj`, `gate_pj`, `read_pj`, `reset_pj` and `total_pj` in pJ per inference;
            `pulse_width_ns` and `gate_voltage`, each as (lowest, highest); `latency_ns`;
            `peak_voltage` in V over the channel, or over the junction in its initial state;
            `at_limit`, the share of the neurons with a trained knob at a limit of the device, by
            `"shortest pulse"`, `"longest pulse"`, `"least anisotropy"` and `"most anisotropy"`;
            `thermal_stability` and `retention_s`, the lowest values of all neurons at their gate
            voltages. A free-running layer has no retention (NaN). It has `relaxation_s` instead,
            the longest relaxation time of its neurons when both states are equally probable. Its
            `write_pj` is the energy of the held current, and its pulses are reads.
        total_pj: pJ per inference of all spin layers.
        latency_ns: sum of the layers' longest pulses in ns.
        inferences: number of samples measured.
        other_layers: number of all other layers, by class; their energy is not included.
        assumptions: lines of text.
        printed: whether `energy_report` has printed the table; then a notebook shows one line
            instead of the card.
        weights: hash of the network's weights at the measurement, see `weights_hash`.

    Example:

    >>> import numpy as np, keras, spinkeras
    >>> model = keras.Sequential([keras.Input((4,)), spinkeras.SpinNeuron(name="spin")])
    >>> report = spinkeras.energy_report(model, np.zeros((3, 4), "float32"), print_fn=None)
    >>> row = report.layers[0]
    >>> [round(row[f"{part}_pj"], 2) for part in ("write", "gate", "read", "reset", "total")]
    [0.36, 0.0, 0.01, 0.47, 0.84]
    """

    layers: list[dict]
    total_pj: float
    latency_ns: float
    inferences: int
    other_layers: dict[str, int]
    assumptions: list[str]
    printed: bool = dataclasses.field(default=False, compare=False)
    weights: str = dataclasses.field(default="", compare=False, repr=False)

    def columns(self) -> dict:
        """One row per spin layer: the numbers of `layers`, by name and unit.

        Returns:
            Dictionary from the name of a column to its values, one per spin layer.

        Example:

        >>> import numpy as np, keras, spinkeras
        >>> model = keras.Sequential([keras.Input((4,)), spinkeras.SpinNeuron(name="spin")])
        >>> report = spinkeras.energy_report(model, np.zeros((3, 4), "float32"), print_fn=None)
        >>> columns = report.columns()
        >>> columns["layer"], [round(ns, 3) for ns in columns["latency_ns"]]
        (['spin'], [2.0])
        """
        pairs = {
            ("shortest_pulse_ns", "longest_pulse_ns"): "pulse_width_ns",
            ("lowest_gate_v", "highest_gate_v"): "gate_voltage",
        }
        plain = ("pulses", *(f"{name}_pj" for name in COMPONENTS), "total_pj", "latency_ns")
        columns = {"layer": [row["name"] for row in self.layers]}
        columns |= {name: [row[name] for row in self.layers] for name in plain}
        for names, key in pairs.items():
            columns |= {n: [row[key][k] for row in self.layers] for k, n in enumerate(names)}
        columns["peak_voltage_v"] = [row["peak_voltage"] for row in self.layers]
        for end in (end for ends in ENDS.values() for end in ends):
            name = f"share_at_{end.replace(' ', '_')}"
            columns[name] = [row["at_limit"][end] for row in self.layers]
        for name in ("thermal_stability", "retention_s", "relaxation_s"):
            columns[name] = [row.get(name, np.nan) for row in self.layers]
        return columns

    def __repr__(self):
        return (
            f"{type(self).__name__}({self.total_pj:.4g} pJ per inference, latency "
            f"{self.latency_ns:.4g} ns, {len(self.layers)} spin layer(s), "
            f"{self.inferences} inference(s), {len(self.other_layers)} kind(s) of layers not "
            "counted)"
        )

    def _repr_html_(self):
        import spinkeras

        return None if self.printed else spinkeras.cards.energy(self)

    def __str__(self):
        head = ("layer", "pulses", "write pJ", "gate pJ", "read pJ", "reset pJ", "total pJ")
        head += ("pulse ns", "gate V", "peak V")
        rows = [head]
        for row in self.layers:
            energies = [f"{row[f'{name}_pj']:.4g}" for name in (*COMPONENTS, "total")]
            rows.append(
                (
                    row["name"],
                    f"{row['pulses']:g}",
                    *energies,
                    "{:.2f}-{:.2f}".format(*row["pulse_width_ns"]),
                    "{:+.2f}..{:+.2f}".format(*row["gate_voltage"]),
                    f"{row['peak_voltage']:.2f}",
                )
            )
        widths = [max(len(row[k]) for row in rows) for k in range(len(head))]
        lines = [
            "  ".join(
                cell.ljust(w) if k == 0 else cell.rjust(w)
                for k, (cell, w) in enumerate(zip(row, widths))
            )
            for row in rows
        ]
        lines.insert(1, "-" * len(lines[0]))
        lines.append(
            f"total {self.total_pj:.4g} pJ per inference, latency {self.latency_ns:.2f} ns "
            f"(mean over {self.inferences} inferences)"
        )
        for row in self.layers:
            kept = f"retention {row['retention_s']:.3g} s"
            if "relaxation_s" in row:
                kept = f"free-running, relaxation up to {row['relaxation_s']:.3g} s"
            lines.append(
                f"  {row['name']}: at a limit {limits_in_words(row)}; least thermal "
                f"stability {row['thermal_stability']:.3g}, {kept}"
            )
        lines += [f"  {line}" for line in self.assumptions]
        lines.append(f"  not counted: {others_in_words(self)}")
        return "\n".join(lines)


def energy_report(
    model: keras.Model,
    x: Any,
    batch_size: int = 256,
    assumptions: EnergyAssumptions | None = None,
    print_fn: Callable[[str], object] | None = print,
) -> EnergyReport:
    """Measure and print the energy of every spin layer on data, with the current knobs.

    Args:
        model: a built Keras model with `SpinNeuron` layers, also nested ones.
        x: input data: an array, or a list or dictionary of arrays, one per input. Or an iterable
            of batches, such as a `tf.data.Dataset`, a `keras.utils.PyDataset` or a generator: each
            batch is such inputs alone, or a tuple `(x, y)` or `(x, y, sample_weight)`.
        batch_size: samples per step, 1 to 1e9. Default 256. Batches of an iterable stay as they
            are.
        assumptions: `EnergyAssumptions`. Default `None`: `EnergyAssumptions()`.
        print_fn: function that receives the table, or `None` to print nothing. Default `print`,
            after which a notebook shows the returned report as one line, otherwise as a card.

    Returns:
        `EnergyReport`, computed in float64.

    Raises:
        ValueError: for a model without spin layers, for empty or endless data and data of another
            kind, and for arguments outside their range.

    Example:

    >>> import numpy as np, keras, spinkeras
    >>> model = keras.Sequential([keras.Input((4,)), spinkeras.SpinNeuron(train=())])
    >>> report = spinkeras.energy_report(model, np.zeros((3, 4), "float32"), print_fn=None)
    >>> round(report.layers[0]["write_pj"], 3)  # four neurons at their midpoint
    0.357
    """
    recorder = _Recorder(spin_neurons(model), checked_assumptions(assumptions))
    batch_size = checks.whole("batch_size", batch_size, 1, 10**9)
    if print_fn is not None and not callable(print_fn):
        raise ValueError(f"print_fn = {checks.shown(print_fn)} must be a function or None.")
    report = _report(model, x, batch_size, recorder)
    if print_fn is not None:
        print_fn(str(report))
    return dataclasses.replace(report, printed=print_fn is print, weights=weights_hash(model))


def nominal_report(model, x, assumptions):
    """`energy_report` with nominal devices and probabilities, for every setting of `output`."""
    recorder = _NominalRecorder(spin_neurons(model), assumptions)
    return _report(model, x, len(keras.tree.flatten(x)[0]), recorder)


def _report(model, x, batch_size, recorder):
    layers, assumptions = recorder.layers, recorder.assumptions
    warn_of_strong_reads(layers, assumptions)
    if not layers:
        raise ValueError("energy_report found no SpinNeuron in this model.")
    samples = 0
    with observing(recorder):
        for batch in _batches(model, x, batch_size):
            samples += _samples(batch)
            model(batch, training=False)
    if samples == 0:
        raise ValueError("energy_report needs data of length > 0; got no samples.")

    rows = []
    for layer, name in zip(layers, unique_names(layers)):
        energy = recorder.energies.get(id(layer), np.zeros(len(COMPONENTS))) / samples
        row = {"name": name, "pulses": recorder.firings.get(id(layer), 0.0) / samples}
        row.update({f"{part}_pj": float(e) for part, e in zip(COMPONENTS, energy)})
        row["total_pj"] = float(energy.sum())
        for key, value in (
            ("pulse_width_ns", layer.pulse_width * 1e9),
            ("gate_voltage", layer.gate_voltage),
        ):
            row[key] = (float(np.min(value)), float(np.max(value)))
        row["latency_ns"] = row["pulse_width_ns"][1] * layer.pulses
        row["peak_voltage"] = float(recorder.voltage.get(id(layer), 0.0))
        row["at_limit"] = {end: float(np.mean(near)) for end, near in at_limit(layer).items()}
        row["thermal_stability"] = least_stability(layer)
        if layer.free_running:
            stability = layer.device.stability_at(layer.anisotropy)
            row["relaxation_s"] = float(np.max(layer.telegraph.relaxation_time(stability)))
            row["retention_s"] = np.nan
        else:
            row["retention_s"] = float(layer.device.retention_at(row["thermal_stability"]))
        rows.append(row)
    others = {}
    for layer in _keras.all_layers(model):
        if not isinstance(layer, (SpinNeuron, keras.layers.InputLayer, keras.Model)):
            others[type(layer).__name__] = others.get(type(layer).__name__, 0) + 1
    devices = list(dict.fromkeys((layer.device, layer.telegraph) for layer in layers))
    return EnergyReport(
        layers=rows,
        total_pj=sum(row["total_pj"] for row in rows),
        latency_ns=latency(model) * 1e9,
        inferences=samples,
        other_layers=others,
        assumptions=[line for device in devices for line in assumptions.lines(*device)],
    )


def _batches(model, x, batch_size):
    """The inputs of every step, from arrays or from an iterable of batches."""
    if isinstance(x, keras.utils.PyDataset):
        x = None if x.num_batches is None else map(x.__getitem__, range(x.num_batches))
    elif callable(cardinality := getattr(x, "cardinality", None)) and cardinality() == -1:
        x = None
    if x is None:
        raise ValueError(
            "energy_report needs arrays or a finite iterable of batches; got None or an endless "
            "data set. Take a part of an endless one, such as dataset.take(10)."
        )
    single = isinstance(x, (list, tuple, dict, str, bytes)) or hasattr(x, "shape")
    if single or not hasattr(type(x), "__iter__"):
        samples = _samples(x)
        _refuse_single(model, x)
        for start in range(0, samples, batch_size):
            part = slice(start, start + batch_size)
            yield keras.tree.map_structure(lambda a, s=part: None if a is None else _here(a[s]), x)
    else:
        for batch in x:
            inputs = keras.utils.unpack_x_y_sample_weight(batch)[0]
            _samples(inputs)  # refuses other kinds of batches
            _refuse_single(model, inputs)
            yield keras.tree.map_structure(lambda a: None if a is None else _here(a), inputs)


def _here(value):
    """A value that this backend's models take: data sets may give tensors of another library."""
    return value if ops.is_tensor(value) else np.asarray(value)


def _samples(x):
    """Number of samples of an array or a structure of arrays; `None` is an input left out."""
    arrays = [value for value in keras.tree.flatten(x) if value is not None]
    shapes = [getattr(value, "shape", None) for value in arrays]
    if not all(shape is not None and len(shape) and isinstance(shape[0], int) for shape in shapes):
        raise ValueError(
            f"energy_report cannot take x = {checks.shown(x)}; give an array with the samples "
            "along its first axis, such as np.array(x), a list or dictionary of arrays, or a "
            "data set of batches."
        )
    lengths = [shape[0] for shape in shapes]
    if len(set(lengths)) != 1:
        raise ValueError(f"energy_report needs arrays of equal length > 0; got lengths {lengths}.")
    return lengths[0]


def _refuse_single(model, x):
    """Refuse one sample without the axis of samples; a subclassed model does not show its shape."""
    symbols = keras.tree.flatten(getattr(model, "inputs", None) or [])
    for value, symbol in zip(keras.tree.flatten(x), symbols):
        shape = None if value is None else tuple(value.shape)
        if shape == symbol.shape[1:] != (1,):  # to (1,) Keras itself adds the axis of samples
            raise ValueError(
                f"energy_report needs samples, but x has the shape {shape} of a single one: give "
                "x[None] for a single sample, or dataset.batch(...) for a data set of samples."
            )
