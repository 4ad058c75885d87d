"""The meter: it measures the energy of a model's calls while a step is traced or run.

The meter is an observation (`spinkeras.layer.observation`), which sees the inputs and the
probabilities of every call of a spin layer. `spinkeras.energy.pulse` gives the energy of a pulse.
"""

import math

import keras
import numpy as np
from keras import ops

from spinkeras import _keras, _tracing
from spinkeras.energy.pulse import (
    COMPONENTS,
    assumptions_of,
    energies_beside_write,
    pulse_energies,
    write_energy_by,
    write_numbers,
)
from spinkeras.layer import core
from spinkeras.layer.members import spin_neurons
from spinkeras.layer.observation import Observation

PICO = 1e12
"""Picojoule in a joule."""


class MeteredStep(Observation):
    """Meter of one step of a model: adds the energy of every call to the layers' `meter_sums`.

    `meter_sums` of a layer holds the four `COMPONENTS` of the energy in pJ. A fifth number, used
    in the first layer only, counts the inferences, that is the samples of the step's data. Only
    measured steps run or are traced with a meter; other graphs (prediction, export) do not write
    to these variables.

    Args:
        model: the model that the step belongs to.
        data: data of the step, as Keras passes it.
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
        self._scope = _tracing.scope()
        self._passes = []  # pairs of a forward pass and the ids of the layers called in it

    def see(self, layer, inputs, setting, probability, training, mask):
        refuse_uncounted(layer, inputs, mask)
        if self.training and _keras.is_rematerialized():
            raise ValueError(
                f"Layer {layer.name!r} is computed a second time for its gradient, so its energy "
                "would be counted twice. Remove keras.remat or RematScope around it."
            )
        self.refuse_scope(layer)
        fused = training and mask is None and layer.in_kernels(inputs)
        sums = _sums(layer, self.assumptions, inputs, setting, probability, mask, fused)
        layer.meter_sums.assign_add(ops.concatenate([sums, ops.zeros(1)]))
        first = self._is_first(layer)
        if self.training:
            self.charge(layer, ops.sum(sums) / ops.maximum(self.samples, 1.0), first)

    def charge(self, layer, energy, first):
        """Receives the energy of every call of a layer in a training step.

        It does nothing here; `EnergyBudget` overrides it and adds the energy to the loss.

        Args:
            layer: `SpinNeuron`.
            energy: pJ per inference, a differentiable tensor.
            first: whether this is the layer's first call in the forward pass.
        """

    def refuse_scope(self, layer):
        """Refuse a call from which the sums cannot be updated."""
        where = _tracing.inner_scope(self._scope, layer.meter_sums.value)
        if where not in (None, "branch", "loop"):
            raise ValueError(
                f"Layer {layer.name!r} runs in {where}, where its energy cannot be counted. Call "
                "it outside, or remove the callback."
            )

    def _is_first(self, layer):
        """Whether this is a layer's first call in the current forward pass.

        A layer that is used several times (weight sharing, TimeDistributed) spends energy every
        time, but the whole pass is one inference.
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
        """`(variable, function of its value)` pairs that update variables after the step."""
        whole = sum(_keras.is_whole(forward, self._model) for forward, _ in self._passes)
        inferences = self.samples * max(1, whole)  # a step may run the model several times
        unit = np.eye(5, dtype="float32")[-1]
        leaders = [layer.meter_sums for layer in self.layers if layer.built][:1]
        return [(sums, lambda value: value + inferences * unit) for sums in leaders]


def refuse_uncounted(layer, inputs, mask):
    """Refuse a call of a spin layer whose energy would be wrong; the error names the layer."""
    problem = None
    if _tracing.is_mapped(inputs):
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
                    f"is an activation inside {name} and cannot see its mask, so the energy of "
                    "masked steps would be counted. Use the SpinNeuron as a separate layer after "
                    "it."
                )
    if problem:
        raise ValueError(f"Layer {layer.name!r} {problem}")


def refuse_unseen(scope, layer, inputs, mask):
    """Like `refuse_uncounted`; also refuse a call whose values cannot be read immediately."""
    refuse_uncounted(layer, inputs, mask)
    if where := _tracing.inner_scope(scope, layer.meter_sums.value):
        raise ValueError(
            f"Layer {layer.name!r} runs in {where}, where its energy cannot be read. Call it "
            "outside, or run functions eagerly (tf.config.run_functions_eagerly(True), "
            "jax.disable_jit())."
        )


def _leads(mask, shape):
    """Whether a mask of this shape may belong to an input of the other shape."""
    pairs = zip(mask, shape)
    return len(mask) <= len(shape) and all(m is None or n is None or m == n for m, n in pairs)


def _sums(layer, assumptions, inputs, setting, probability, mask, fused):
    """The four energies in pJ, summed over all elements."""
    if mask is not None:
        current = layer.current(inputs)
        return _in_pico(traced_energies(layer, current, probability, mask, assumptions))
    assumptions, dtype = assumptions_of(layer, assumptions), inputs.dtype
    bias, width = layer.bias(setting, fused), layer.pulse_widths(setting)
    settings = ops.stack([ops.broadcast_to(ops.cast(v, dtype), width.shape) for v in (bias, width)])
    numbers = [layer.current_scale, *write_numbers(layer.device, assumptions.reversal_fraction)]
    numbers = ops.convert_to_tensor(numbers, dtype)
    sums = _fused_write_sums if fused else _write_sums
    write, switched = sums(inputs, probability, settings, numbers)
    # All components but "write" are linear in the probability, so its mean is enough.
    count = ops.cast(ops.size(inputs), dtype) / math.prod(width.shape)
    mean = switched / ops.maximum(count, 1)  # a replica may have no sample
    anisotropy = ops.cast(layer.anisotropies(setting), dtype)
    rest = energies_beside_write(anisotropy, mean, layer.device, assumptions, layer.pulses)
    energies = {name: energy * count for name, energy in rest.items()}
    return _in_pico(energies | {"write": layer.pulses * write})


def _in_pico(energies):
    parts = ops.cast(ops.stack([energies[name] for name in COMPONENTS]), "float32")
    return PICO * ops.sum(parts, axis=tuple(range(1, len(parts.shape))))


def _write_sums(inputs, probability, settings, numbers):
    """Write energy in J and probability of every neuron, each summed over the elements.

    Args:
        inputs, probability: inputs and probabilities of a layer.
        settings: bias current in A and pulse width in s of every neuron, stacked.
        numbers: one array: current in A per unit of input, then the result of
            `energy.pulse.write_numbers`.
    """
    parts = _write_and_probability(inputs, probability, settings, numbers)
    return [core.sum_to(value, settings.shape[1:]) for value in parts]


def _write_and_probability(inputs, probability, settings, numbers):
    bias, width = ops.unstack(settings, 2)
    current_scale, *device = ops.unstack(numbers, numbers.shape[0])
    current = bias + inputs * current_scale
    return write_energy_by(ops, current, width, probability, *device), probability


def _fused_write_sums(inputs, probability, settings, numbers):
    """`_write_sums` in one kernel and its gradient in another; all layers share both."""
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
        pulses: pulses per inference. Default: the layer's own number.
        factors: two tensors, factors of the devices on `R_P` and TMR as in `pulse_energies`.
            Default: 1.
    """
    setting = layer.setting(probability.dtype)
    assumptions = assumptions_of(layer, assumptions)
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
    fires = ops.cast(spread_mask(mask, current), probability.dtype)
    return {name: energy * fires for name, energy in energies.items()}


def spread_mask(mask, current):
    """A mask of the leading axes, with trailing axes of size 1 so that it broadcasts."""
    for _ in range(len(current.shape) - len(mask.shape)):
        mask = mask[..., None]
    return mask
