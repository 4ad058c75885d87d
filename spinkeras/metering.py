"""Measure the energy of a model's spin layers: while it trains, and on given data.

An observation (`spinkeras.observation`) sees the inputs and the probability of every call; what a
pulse costs is in `spinkeras.energy`.
"""

import dataclasses
import math

import keras
import numpy as np
from keras import ops

from spinkeras import _keras, core
from spinkeras.constraints import knob_range
from spinkeras.energy import (
    COMPONENTS,
    checked_assumptions,
    energies_beside_write,
    pulse_energies,
    reset_energy,
    write_energy_by,
    write_numbers,
)
from spinkeras.neuron import SpinNeuron, spin_neurons
from spinkeras.observation import Expected, Observation, observing
from spinkeras.steps import Lease

_PICO = 1e12


class MeteredStep(Observation):
    """One step of a model: adds up the energy of every call in the layers' `meter_sums`.

    The sums of a layer are the four `COMPONENTS` in pJ; the fifth number of the first layer counts
    the inferences, that is the samples of the step's data. Only a step that is measured is run or
    traced under this, so a graph of any other (prediction, export) holds no state write at all.

    Args:
        model: the model whose step it is.
        data: of the step, as Keras gives it.
        assumptions: `EnergyAssumptions`.
        training: whether the step trains.
    """

    def __init__(self, model, data, assumptions, training):
        super().__init__(spin_neurons(model))
        self.assumptions = assumptions
        self.training = training
        x = keras.utils.unpack_x_y_sample_weight(data)[0]
        first = next(value for value in keras.tree.flatten(x) if value is not None)
        self.samples = ops.cast(ops.shape(first)[0], "float32")
        self._model = model
        self._scope = core.tracing_scope()
        self._passes = []  # pairs of a forward pass and the layers it has used

    def see(self, layer, inputs, setting, probability, training, mask):
        refuse_uncounted(layer, inputs, mask)
        if self.training and _keras.is_rematerialized():
            raise ValueError(
                f"Layer {layer.name!r} is computed a second time for its gradient, so that its "
                "energy would be counted twice. Leave keras.remat or RematScope out around it."
            )
        self.refuse_scope(layer)
        fused = training and mask is None and layer.in_kernels(inputs)
        sums = _sums(layer, self.assumptions, inputs, setting, probability, mask, fused)
        layer.meter_sums.assign_add(ops.concatenate([sums, ops.zeros(1)]))
        first = self._is_first(layer)
        if self.training:
            self.charge(layer, ops.sum(sums) / ops.maximum(self.samples, 1.0), first)

    def charge(self, layer, energy, first):
        """Told the energy (pJ per inference, differentiable) of every call in training.

        `first` tells a layer's first call in the forward pass. Here nothing follows from it.
        """

    def refuse_scope(self, layer):
        """Refuse a call where the sums cannot be written."""
        where = core.inner_scope(self._scope, layer.meter_sums.value)
        if where not in (None, "branch", "loop"):
            raise ValueError(
                f"Layer {layer.name!r} runs in {where}, where its energy cannot be counted. Call "
                "it outside, or leave the callback out."
            )

    def _is_first(self, layer):
        """Whether this is a layer's first call in the forward pass at hand.

        A layer used several times (weight sharing, TimeDistributed) spends energy every time, but
        the pass is one inference.
        """
        here = _keras.forward_pass(layer)
        used = next((used for forward, used in self._passes if forward is here), None)
        if used is None:
            used = set()
            self._passes.append((here, used))
        first = id(layer) not in used
        used.add(id(layer))
        return first

    def updates(self):
        """What the step adds when it has run: `(variable, function of its value)` pairs."""
        whole = sum(_keras.is_whole(forward, self._model) for forward, _ in self._passes)
        inferences = self.samples * max(1, whole)  # a step may look at its data several times
        unit = np.eye(5, dtype="float32")[-1]
        leaders = [layer.meter_sums for layer in self.layers if layer.built][:1]
        return [(sums, lambda value: value + inferences * unit) for sums in leaders]


def refuse_uncounted(layer, inputs, mask):
    """Refuse a call of a spin layer that would be counted wrongly, by name."""
    problem = None
    if core.is_mapped(inputs):
        problem = (
            "runs in a vectorized map or in TimeDistributed over an unknown number of steps, where "
            "its energy cannot be counted. Give the number of steps in keras.Input."
        )
    elif name := _keras.enclosing_map():
        problem = (
            f"runs in keras.ops.{name}, where its energy cannot be counted. Call it outside, on "
            "all elements at once."
        )
    for outer, masks in _keras.enclosing_calls():
        if outer is layer:
            continue
        name = f"{type(outer).__name__} {outer.name!r}"
        loops = isinstance(outer, keras.layers.RNN)
        if loops and not outer.unroll:
            problem = (
                f"runs in a loop of the graph in {name}, where its energy cannot be counted. Build "
                "it with unroll=True (and a known number of steps)."
            )
        elif masks and mask is None and not isinstance(outer, keras.Model):
            whole = loops or isinstance(outer, keras.layers.Wrapper)
            if whole or any(_leads(m.shape, inputs.shape) for m in masks):
                problem = (
                    f"is an activation inside {name}, whose mask it cannot see: masked steps would "
                    "be counted. Put the SpinNeuron behind it as a layer of its own."
                )
    if problem:
        raise ValueError(f"Layer {layer.name!r} {problem}")


def refuse_unseen(scope, layer, inputs, mask):
    """As `refuse_uncounted`, also where the values of a call cannot be read at once."""
    refuse_uncounted(layer, inputs, mask)
    if where := core.inner_scope(scope, layer.meter_sums.value):
        raise ValueError(
            f"Layer {layer.name!r} runs in {where}, where its energy cannot be read. Call it "
            "outside, or run functions eagerly (tf.config.run_functions_eagerly(True), "
            "jax.disable_jit())."
        )


def _leads(mask, shape):
    """Whether a mask of one shape may belong to an input of another."""
    pairs = zip(mask, shape)
    return len(mask) <= len(shape) and all(m is None or n is None or m == n for m, n in pairs)


def _sums(layer, assumptions, inputs, setting, probability, mask, fused):
    """The four energies in pJ, summed over all elements."""
    if mask is not None:
        current = layer.current(inputs)
        energies = traced_energies(layer, current, probability, mask, assumptions)
        return _in_pico(energies)
    dtype = inputs.dtype
    bias, width = layer.bias(setting, fused), layer.pulse_widths(setting)
    settings = ops.stack([ops.broadcast_to(ops.cast(v, dtype), width.shape) for v in (bias, width)])
    numbers = [layer.current_scale, *write_numbers(layer.device, assumptions.reversal_fraction)]
    numbers = ops.convert_to_tensor(numbers, dtype)
    sums = _fused_write_sums if fused else _write_sums
    write, switched = sums(inputs, probability, settings, numbers)
    # All but "write" are linear in the probability.
    count = ops.cast(ops.size(inputs), dtype) / math.prod(width.shape)
    mean = switched / ops.maximum(count, 1)  # a replica may have no sample
    anisotropy = ops.cast(layer.anisotropies(setting), dtype)
    rest = energies_beside_write(anisotropy, mean, layer.device, assumptions, layer.pulses)
    energies = {name: energy * count for name, energy in rest.items()}
    return _in_pico(energies | {"write": layer.pulses * write})


def _in_pico(energies):
    parts = ops.cast(ops.stack([energies[name] for name in COMPONENTS]), "float32")
    return _PICO * ops.sum(parts, axis=tuple(range(1, len(parts.shape))))


def _write_sums(inputs, probability, settings, numbers):
    """Energy of writing in J, and the probability, of every neuron, summed over the elements.

    Args:
        inputs, probability: of a layer.
        settings: bias current in A and pulse width in s of every neuron, stacked.
        numbers: A per input, and those of `energy.write_numbers`, one array.
    """
    parts = _write_and_probability(inputs, probability, settings, numbers)
    return [core.sum_to(value, settings.shape[1:]) for value in parts]


def _write_and_probability(inputs, probability, settings, numbers):
    bias, width = ops.unstack(settings, 2)
    current_scale, *device = ops.unstack(numbers, numbers.shape[0])
    current = bias + inputs * current_scale
    return write_energy_by(ops, current, width, probability, *device), probability


def _fused_write_sums(inputs, probability, settings, numbers):
    """`_write_sums` as one kernel, and its gradient as another, for all layers alike."""
    inner, knob_shape = tuple(inputs.shape[1:]), settings.shape[1:]
    row = core.row_length(inner, knob_shape)
    inputs, probability = (core.as_rows(value, row) for value in (inputs, probability))
    settings = core.along_row(settings, inner, row)
    sums = core.with_gradient_in_kernel(
        _write_sums_of_rows, (inputs, probability, settings), numbers
    )
    return [core.from_row(value, inner, knob_shape) for value in ops.unstack(sums, 2)]


def _write_sums_of_rows(*inputs):
    return ops.stack([core.sum_over_batch(v) for v in _write_and_probability(*inputs)])


def traced_energies(layer, current, probability, mask, assumptions, pulses=None, factors=()):
    """The four energies in J of every element, as tensors; masked elements cost nothing.

    Args:
        layer: `SpinNeuron`.
        current: A, tensor of the layer's input shape.
        probability: switching probability, same shape.
        mask: mask of the leading axes, or `None`.
        assumptions: `EnergyAssumptions`.
        pulses: pulses per inference. Default: those of the layer.
        factors: of the devices on `R_P` and TMR, tensors, as `pulse_energies`. Default: 1.
    """
    setting = layer.setting(probability.dtype)
    energies = pulse_energies(
        current,
        layer.pulse_widths(setting),
        layer.anisotropies(setting),
        probability,
        layer.device,
        assumptions,
        pulses or layer.pulses,
        *factors,
    )
    if mask is None:
        return energies
    fires = ops.cast(_spread_mask(mask, current), probability.dtype)
    return {name: energy * fires for name, energy in energies.items()}


class _Recorder(Observation):
    """As `MeteredStep`, in NumPy float64 for `energy_report`; also the largest voltage."""

    def __init__(self, layers, assumptions):
        super().__init__(layers)
        self.assumptions = assumptions
        self._scope = core.tracing_scope()
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
            self.assumptions,
            layer.pulses,
        )
        fires = np.ones(current.shape)
        if mask is not None:
            fires *= _spread_mask(ops.convert_to_numpy(mask), current)
        total = np.array([np.sum(energies[name] * fires) * _PICO for name in COMPONENTS])
        highest = np.max(np.abs(current) * fires, initial=0.0)
        voltage = highest * layer.device.write_path_resistance
        key = id(layer)
        self.energies[key] = self.energies.get(key, 0.0) + total
        self.firings[key] = self.firings.get(key, 0.0) + fires.sum() * layer.pulses
        self.voltage[key] = max(self.voltage.get(key, 0.0), voltage)


class _NominalRecorder(Expected, _Recorder):
    pass


def _spread_mask(mask, current):
    """A mask of the leading axes, with trailing axes of size 1 so that it broadcasts."""
    for _ in range(len(current.shape) - len(mask.shape)):
        mask = mask[..., None]
    return mask


class EnergyTracker(keras.callbacks.Callback):
    """Energy per inference while a model trains, in the logs of every epoch.

    Keys: `energy_pj` (mean over the epoch's training batches, pJ per inference, all spin layers),
    `energy_pj_<layer>` (one layer), `latency_ns` (sum over the spin layers of their longest
    pulse; an upper limit where layers work side by side), `share_at_limit` (of the neurons with a
    trained knob at a limit of the device, 0 to 1), `retention_s` (mean time before a thermal
    reversal of the weakest neuron, in s), and, when `fit` validates,
    `val_energy_pj` and `val_energy_pj_<layer>`. The progress bar, `History`, keras-tuner and every
    callback that stands later in the list (CSVLogger, TensorBoard, EarlyStopping) see them.

    The training figures are measured inside the training step, on the very batches and with the
    knobs of that moment; the knobs move during the epoch, so for a figure at the final setting use
    the validation keys or `energy_report`. In `model.evaluate(..., callbacks=[tracker])` the
    result is in `tracker.results`.

    Args:
        assumptions: `EnergyAssumptions`. Default: read at 0.1 V, reset of switched devices.

    Limits: sums are kept in float32 (relative error about 1e-5 for 1e4 batches per epoch). With
    `MirroredStrategy` the figure is the mean over replicas. The samples of a step are counted
    along the first axis of its first input. Figures are NaN where no step was counted, as in a
    training loop without Keras's `train_step`. Refused by name, because its energy would be
    wrong: a neuron in a recurrent layer that is not unrolled, in `TimeDistributed` over an unknown
    number of steps, in a `tf.function` of its own, in a layer that is rematerialized, inside
    another layer whose mask it cannot see, and on JAX in any loop or condition. Not seen: a neuron
    in a `tf.function` that was traced before the neuron was built (its weights are constants there,
    as those of any Keras layer).

    Example:

    >>> import numpy as np, keras, spinkeras
    >>> model = keras.Sequential([keras.Input((4,)), spinkeras.SpinNeuron(), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> x, y = np.ones((8, 4)), np.ones((8, 1))
    >>> history = model.fit(x, y, verbose=0, callbacks=[spinkeras.EnergyTracker()])
    >>> sorted(history.history)[:2]
    ['energy_pj', 'energy_pj_spin_neuron']
    """

    def __init__(self, assumptions=None):
        super().__init__()
        self.assumptions = checked_assumptions(assumptions)
        self.results = {}
        self._leases = {}
        self._before = {}
        self._training = None
        self._validation = {}

    def set_model(self, model):
        super().set_model(model)
        layers = spin_neurons(model)
        if not layers:
            raise ValueError(
                f"{type(self).__name__} found no SpinNeuron in this model; add one or leave it out."
            )
        if self.assumptions.reset:
            for layer in layers:
                reset_energy(layer.device, self.assumptions)  # solved once, outside the graph
        self._leases = {}  # those of a fit that did not end

    def on_train_begin(self, logs=None):
        self._lease("train")

    def on_train_batch_begin(self, batch, logs=None):
        self._leases["train"].renew()

    def on_epoch_begin(self, epoch, logs=None):
        self._training, self._validation = None, {}
        self._reset()

    def on_test_begin(self, logs=None):
        if "train" in self._leases:
            self._training = self._read()
        else:
            self._reset()
        self._before = self._sums()
        self._lease("test")

    def on_test_batch_begin(self, batch, logs=None):
        self._leases["test"].renew()

    def on_test_end(self, logs=None):
        self.results = self._read()
        self._leases.pop("test").end()
        if "train" in self._leases:
            self._validation = {f"val_{key}": value for key, value in self.results.items()}

    def on_epoch_end(self, epoch, logs=None):
        training = self._read() if self._training is None else self._training
        layers = self._built()
        ends = [np.any([*at_limit(layer).values()], axis=0).ravel() for layer in layers]
        weakest = [layer.device.retention_at(least_stability(layer)) for layer in layers]
        self.results = {
            **training,
            **self._validation,
            "latency_ns": latency(self.model) * 1e9,
            "share_at_limit": float(np.mean(np.concatenate(ends))) if ends else np.nan,
            "retention_s": float(min(weakest, default=np.nan)),
        }
        if logs is not None:
            logs.update(self.results)

    def on_train_end(self, logs=None):
        self._leases.pop("train").end()
        self._reset()

    def _lease(self, phase):
        model, training = self.model, phase == "train"

        def around(step, *args):
            observed = self._observed_step(model, args[-1], training)
            with observing(observed):
                result = step(*args)
            return _keras.updated(model, result, observed.updates())

        self._leases[phase] = Lease(model, phase, around, self._key())

    def _key(self):
        """Tells apart the steps of two callbacks."""
        return type(self), self.assumptions

    def _observed_step(self, model, data, training):
        return MeteredStep(model, data, self.assumptions, training)

    def _built(self):
        return [layer for layer in spin_neurons(self.model) if layer.built]

    def _reset(self):
        self._before = {}
        for layer in self._built():
            layer.meter_sums.assign(np.zeros(layer.meter_sums.shape))

    def _sums(self):
        """Energies in pJ by component, and the number of inferences, of every built layer."""
        values = ((id(v), ops.convert_to_numpy(v.meter_sums)) for v in self._built())
        return {key: value.astype("float64") for key, value in values}

    def _read(self):
        """Mean pJ per inference since the last reset or begin: total and per layer."""
        layers, sums = self._built(), self._sums()
        sums = [sums[id(layer)] - self._before.get(id(layer), 0.0) for layer in layers]
        inferences = sum(s[-1] for s in sums)
        means = [float(s[:-1].sum() / inferences) if inferences else np.nan for s in sums]
        result = {"energy_pj": float(sum(means))}
        for name, mean in zip(unique_names(layers), means):
            result[f"energy_pj_{name}"] = mean
        return result


def latency(model) -> float:
    """Sum in s over the spin layers of the longest pulse of each, times its repeats.

    The time the pulses of one inference take where the layers work one after the other; where
    branches work side by side it is an upper limit. A layer that is used several times in a pass
    (a recurrent cell, shared layers) counts once. Reading and resetting are not included.
    """
    layers = [layer for layer in spin_neurons(model) if layer.built]
    return float(sum(np.max(layer.pulse_width) * layer.pulses for layer in layers))


ENDS = {
    "pulse_width": ("shortest pulse", "longest pulse"),
    "anisotropy": ("least anisotropy", "most anisotropy"),
}


def at_limit(layer) -> dict:
    """Which of a layer's neurons have a trained knob at a limit of the device: arrays by limit."""
    found = {}
    for knob, ends in ENDS.items():
        value, limits = getattr(layer, knob), knob_range(layer.device, knob)
        for end, limit in zip(ends, limits):
            near = np.abs(value - limit) <= 1e-3 * limit
            found[end] = near & (knob in layer.trained_knobs)
    return found


def least_stability(layer) -> float:
    """Least thermal stability of a layer's neurons, with the gate at its setting."""
    return float(layer.device.stability_at(np.min(layer.anisotropy)))


@dataclasses.dataclass(frozen=True)
class EnergyReport:
    """Result of `energy_report`.

    Attributes:
        layers: one dictionary per spin layer: `name`, `pulses` (per inference), `write_pj`,
            `gate_pj`, `read_pj`, `reset_pj`, `total_pj` (pJ per inference), `pulse_width_ns` and
            `gate_voltage` (lowest, highest), `latency_ns`, `peak_voltage` (V, over the channel,
            or over the junction in its parallel state), `at_limit` (share of the neurons whose
            trained knob ends at a limit of the device, by `"shortest pulse"`, `"longest pulse"`,
            `"least anisotropy"` and `"most anisotropy"`), `thermal_stability` and `retention_s`
            (least of all neurons, with the gate at its setting).
        total_pj: pJ per inference, all spin layers.
        latency_ns: sum of the layers' longest pulses in ns.
        inferences: number of samples measured.
        other_layers: layers with weights or functions whose energy is not counted, by class.
        assumptions: lines of text.
    """

    layers: list[dict]
    total_pj: float
    latency_ns: float
    inferences: int
    other_layers: dict[str, int]
    assumptions: list[str]

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
            shares = [f"{share:.0%} {end}" for end, share in row["at_limit"].items() if share]
            lines.append(
                f"  {row['name']}: at a limit {', '.join(shares) or 'none'}; least thermal "
                f"stability {row['thermal_stability']:.3g}, retention {row['retention_s']:.3g} s"
            )
        lines += [f"  {line}" for line in self.assumptions]
        others = ", ".join(f"{count} {name}" for name, count in self.other_layers.items())
        lines.append(f"  not counted: {others or 'no other layers'}")
        return "\n".join(lines)


def energy_report(model, x, batch_size=256, assumptions=None, print_fn=print) -> EnergyReport:
    """Measure and print the energy of every spin layer on data, at the present knobs.

    Args:
        model: a built Keras model with `SpinNeuron` layers, however nested.
        x: input data as for `model.predict`: an array, or a list or dictionary of arrays.
        batch_size: samples per step, > 0. Default 256.
        assumptions: `EnergyAssumptions`.
        print_fn: function that receives the table, or `None` to print nothing.

    Returns:
        `EnergyReport`; sums are taken in float64.

    Raises:
        ValueError: for a model without spin layers or empty data.

    Example:

    >>> import numpy as np, keras, spinkeras
    >>> model = keras.Sequential([keras.Input((4,)), spinkeras.SpinNeuron(train=())])
    >>> report = spinkeras.energy_report(model, np.zeros((3, 4), "float32"), print_fn=None)
    >>> round(report.layers[0]["write_pj"], 3)  # four neurons at their midpoint
    0.357
    """
    recorder = _Recorder(spin_neurons(model), checked_assumptions(assumptions))
    report = _report(model, x, batch_size, recorder)
    if print_fn is not None:
        print_fn(str(report))
    return report


def nominal_report(model, x, assumptions):
    """`energy_report` of nominal devices that give their probability, whatever their output."""
    recorder = _NominalRecorder(spin_neurons(model), assumptions)
    return _report(model, x, len(keras.tree.flatten(x)[0]), recorder)


def _report(model, x, batch_size, recorder):
    layers, assumptions = recorder.layers, recorder.assumptions
    if not layers:
        raise ValueError("energy_report found no SpinNeuron in this model.")
    arrays = keras.tree.flatten(x)
    samples = len(arrays[0]) if arrays else 0
    if samples == 0 or any(len(a) != samples for a in arrays):
        raise ValueError(
            f"energy_report needs data of one length > 0; got lengths {[len(a) for a in arrays]}."
        )
    with observing(recorder):
        for start in range(0, samples, batch_size):
            part = slice(start, start + batch_size)
            model(keras.tree.map_structure(lambda a, s=part: a[s], x), training=False)

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
        row["retention_s"] = float(layer.device.retention_at(row["thermal_stability"]))
        rows.append(row)
    others = {}
    for layer in _keras.all_layers(model):
        if not isinstance(layer, (SpinNeuron, keras.layers.InputLayer, keras.Model)):
            others[type(layer).__name__] = others.get(type(layer).__name__, 0) + 1
    devices = list(dict.fromkeys(layer.device for layer in layers))
    return EnergyReport(
        layers=rows,
        total_pj=sum(row["total_pj"] for row in rows),
        latency_ns=latency(model) * 1e9,
        inferences=samples,
        other_layers=others,
        assumptions=[line for device in devices for line in assumptions.lines(device)],
    )


def unique_names(layers):
    """Layer names, numbered where two nested layers share one."""
    names = []
    for layer in layers:
        name, count = layer.name, 1
        while name in names:
            count += 1
            name = f"{layer.name}_{count}"
        names.append(name)
    return names
