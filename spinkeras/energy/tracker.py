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
from spinkeras.layer.neuron import spin_neurons, unique_names
from spinkeras.layer.observation import observing
from spinkeras.layer.steps import Lease


class EnergyTracker(keras.callbacks.Callback):
    """Energy per inference while a model trains, in the logs of every epoch.

    Keys: `energy_pj` (mean over the epoch's training batches, pJ per inference, all spin layers),
    `energy_pj_<layer>` (one layer), `latency_ns` (sum over the spin layers of their longest
    pulse; an upper limit where layers work side by side), `share_at_limit` (of the neurons with a
    trained knob at a limit of the device, 0 to 1), `retention_s` (mean time before a thermal
    reversal of the weakest neuron, in s; NaN if all run freely), and, when `fit` validates,
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
                f"{type(self).__name__} found no SpinNeuron in this model; add one or leave it out."
            )
        warn_of_strong_reads(layers, self.assumptions)
        for layer in layers:
            if assumptions_of(layer, self.assumptions).reset:
                reset_energy(layer.device, self.assumptions)  # solved once, outside the graph
        self._leases = {}  # those of a fit that did not end

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
