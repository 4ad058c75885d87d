"""The energy of a model while it trains."""

from typing import Any

import keras
import numpy as np
from keras import ops

from spinkeras import _keras
from spinkeras.energy.meter import MeteredStep
from spinkeras.energy.pulse import (
    EnergyAssumptions,
    assumptions_of,
    checked_assumptions,
    reset_energy,
    warn_of_strong_reads,
)
from spinkeras.energy.report import at_limit, latency, least_stability
from spinkeras.layer.members import spin_neurons, unique_names
from spinkeras.layer.observation import observing
from spinkeras.layer.steps import Lease


class EnergyTracker(keras.callbacks.Callback):
    """Adds the energy per inference to the logs of every epoch while a model trains.

    These keys are added to the logs:

    - `energy_pj`: pJ per inference of all spin layers, mean over the epoch's training batches;
      `energy_pj_<layer>` for one layer.
    - `val_energy_pj`, `val_energy_pj_<layer>`: the same for the validation data of `fit`.
    - `latency_ns`: sum over the spin layers of their longest pulse. If layers work in parallel, it
      is an upper limit.
    - `share_at_limit`: fraction, 0 to 1, of the neurons with a trained knob at a limit of the
      device.
    - `retention_s`: mean time in s before the weakest neuron loses its bit by a thermal reversal;
      NaN if all neurons are free-running.

    The progress bar, `History`, keras-tuner and every later callback in the list (CSVLogger,
    TensorBoard, EarlyStopping) see these keys.

    The energies of training are measured inside the training step, on the same batches and with
    the knobs as they are at that step. The knobs change during the epoch; for energies at their
    final setting use the validation keys or `energy_report`. After
    `model.evaluate(..., callbacks=[tracker])` the result is in `tracker.results`.

    Args:
        assumptions: `EnergyAssumptions`. Default: read at 0.1 V, reset of switched devices.

    Limits: the sums are kept in float32 (relative error about 1e-5 for 1e4 batches per epoch).
    With `MirroredStrategy` the energy is the mean over replicas. The samples of a step are counted
    along the first axis of its first input. The energies are NaN if no step was measured, as in a
    training loop without Keras's `train_step`.

    An error names a neuron whose energy would be wrong. This concerns a neuron in a recurrent layer
    that is not unrolled, in `TimeDistributed` over an unknown number of steps, in a separate
    `tf.function`, in a rematerialized layer, in another layer whose mask it cannot see, and on JAX
    in any loop or condition. One case is not found: a neuron in a `tf.function` that was traced
    before the neuron was built. Its weights, like those of any Keras layer, are constants there.

    Raises:
        ValueError: for other assumptions, a model without a `SpinNeuron`, and a neuron whose energy
            would be wrong.

    Example:

    >>> import numpy as np, keras, spinkeras
    >>> model = keras.Sequential([keras.Input((4,)), spinkeras.SpinNeuron(), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> x, y = np.ones((8, 4)), np.ones((8, 1))
    >>> history = model.fit(x, y, verbose=0, callbacks=[spinkeras.EnergyTracker()])
    >>> sorted(history.history)[:2]
    ['energy_pj', 'energy_pj_spin_neuron']
    """

    def __init__(self, assumptions: EnergyAssumptions | None = None) -> None:
        super().__init__()
        self.assumptions = checked_assumptions(assumptions)
        self.results: dict[str, float] = {}
        self._leases: dict[str, Lease] = {}
        self._before: dict[int, Any] = {}
        self._training: dict[str, float] | None = None
        self._validation: dict[str, float] = {}

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        layers = spin_neurons(model)
        if not layers:
            raise ValueError(
                f"{type(self).__name__} found no SpinNeuron in this model; add a SpinNeuron or "
                "remove this callback."
            )
        warn_of_strong_reads(layers, self.assumptions)
        for layer in layers:
            if assumptions_of(layer, self.assumptions).reset:
                reset_energy(layer.device, self.assumptions)  # solve and cache it outside the graph
        self._leases = {}  # drop leases of an earlier fit that was interrupted

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._lease("train")

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._leases["train"].renew()

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        self._training, self._validation = None, {}
        self._reset()

    def on_test_begin(self, logs: dict[str, Any] | None = None) -> None:
        if "train" in self._leases:
            self._training = self._read()
        else:
            self._reset()
        self._before = self._sums()
        self._lease("test")

    def on_test_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._leases["test"].renew()

    def on_test_end(self, logs: dict[str, Any] | None = None) -> None:
        self.results = self._read()
        self._leases.pop("test").end()
        if "train" in self._leases:
            self._validation = {f"val_{key}": value for key, value in self.results.items()}

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        training = self._read() if self._training is None else self._training
        layers = self._built()
        ends = [np.any([*at_limit(layer).values()], axis=0).ravel() for layer in layers]
        kept = [layer for layer in layers if not layer.free_running]
        weakest = [layer.device.retention_at(least_stability(layer)) for layer in kept]
        self.results = {
            **training,
            **self._validation,
            "latency_ns": latency(self.model) * 1e9,
            "share_at_limit": float(np.mean(np.concatenate(ends))) if ends else np.nan,
            "retention_s": float(min(weakest, default=np.nan)),
        }
        if logs is not None:
            logs.update(self.results)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._leases.pop("train").end()
        self._reset()

    def _lease(self, phase):
        model, training = self.model, phase == "train"

        def around(step, *args):
            observed = self._observed_step(model, args[-1], training)
            with observing(observed):
                result = step(*args)
            return _keras.result_with(model, result, observed.updates())

        self._leases[phase] = Lease(model, phase, around, self._key())

    def _key(self):
        """Key that is equal for callbacks that can share a compiled step."""
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
        """Energies in pJ by component and the number of inferences, for every built layer."""
        values = ((id(v), ops.convert_to_numpy(v.meter_sums)) for v in self._built())
        return {key: value.astype("float64") for key, value in values}

    def _read(self):
        """Mean pJ per inference since the last reset or start: total and per layer."""
        layers, sums = self._built(), self._sums()
        sums = [sums[id(layer)] - self._before.get(id(layer), 0.0) for layer in layers]
        inferences = sum(s[-1] for s in sums)
        means = [float(s[:-1].sum() / inferences) if inferences else np.nan for s in sums]
        result = {"energy_pj": float(sum(means))}
        for name, mean in zip(unique_names(layers), means):
            result[f"energy_pj_{name}"] = mean
        return result
