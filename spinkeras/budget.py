"""EnergyBudget: train for the best accuracy that a given energy per inference allows."""

import warnings

import numpy as np
from keras import ops

from spinkeras import checks
from spinkeras.energy import checked_assumptions
from spinkeras.metering import EnergyTracker, Meter
from spinkeras.neuron import spin_neurons

_LOWEST = 1e-4  # of the weight, in units of the loss


class _Pricer(Meter):
    """A meter that adds the gradient of `w ln E` to the loss and moves `w` until `E` is right.

    One weight `w` serves the model: `energy_weight` of the first spin layer. It is set inside the
    training step, from the energies of the step before, so nothing waits for the host.
    """

    def __init__(self, assumptions, target_pj, rate, highest, layers):
        super().__init__(assumptions)
        self.target_pj = target_pj
        self.rate = rate
        self.highest = highest
        self.layers = layers

    def charge(self, layer, energy, first):
        weight = self.layers[0].energy_weight
        if layer is self.layers[0] and first:
            excess = ops.log(ops.maximum(self._seen(), 1e-12) / self.target_pj)
            moved = weight * ops.exp(self.rate * ops.clip(excess, -1.0, 1.0))
            moved = ops.clip(moved, _LOWEST, self.highest)
            weight.assign(ops.where(weight > 0, moved, 0.0))  # 0: no fit with a budget runs
        now = ops.stop_gradient(energy)
        layer.energy_seen.assign(now if first else layer.energy_seen + now)
        layer.add_loss(weight * energy / ops.maximum(self._seen(), 1e-12))

    def _seen(self):
        """Energy of the model in pJ: of this step for the layers called so far, else the last."""
        return sum(ops.convert_to_tensor(layer.energy_seen) for layer in self.layers)


class EnergyBudget(EnergyTracker):
    """Train to the best accuracy with an energy per inference not above a limit.

    An `EnergyTracker` (use it instead of one, not beside one) that also pulls the energy down. With
    `E` the mean energy per inference of the batch, all spin layers, every step follows the gradient
    of

        loss + w ln E

    through drive currents, probabilities and knobs, and then moves the weight `w` (in units of the
    loss) up where `E` is above the target and down where it is below:

        w <- w * exp(rate * ln(E / E_target)),    E_target = (1 - margin) * limit,

    the logarithm clipped to [-1, 1] and `w` to [1e-4, highest]. A loose limit leaves the training
    as it was. `w` is a variable of the model (`energy_weight` of its first spin layer, saved with
    it); nothing is compiled again when it moves.

    At the end the weights of the best epoch within the limit come back: of those epochs whose
    `val_energy_pj` is at most the limit, the one with the best `monitor`; epochs that do not
    validate (`validation_freq`) are not among them. Without validation data
    `energy_pj` (mean over the epoch) and `monitor` without its `val_` decide. If no epoch is within
    the limit, the last weights stay and a warning gives the lowest energy.

    Args:
        limit: J per inference, > 0, all spin layers together.
        rate: how fast `w` moves per step, 0 to 1. Default 0.05. 0 keeps `w` at `start`.
        start: first `w` in units of the loss, 1e-4 to `highest`. Default 1e-3.
        highest: largest `w` in units of the loss, up to 1e6. Default 3. A larger one reaches lower
            energies and trains less steadily.
        margin: part of the limit left free, 0 to 0.5. Default 0.02.
        monitor: key of the logs that tells the best epoch. Default `"val_loss"`; validation losses
            contain no energy.
        mode: `"min"`, `"max"` or `"auto"` (default: `"max"` for accuracies and AUC).
        assumptions: `EnergyAssumptions`, as for `EnergyTracker`.

    Logs: those of `EnergyTracker`, and `energy_weight`. The training `loss` contains about `w`.

    Limits: a callback that brings weights back itself (`keras.callbacks.EarlyStopping` with
    `restore_best_weights`) must stand before this one, or its weights, of any energy, are the last.
    The best weights are held in memory, as there; a run that was killed and resumed remembers those
    of its last part only. After a fit that an exception ended, compile the model before a fit
    without a budget.

    Attributes:
        best_epoch: number (from 0) of the epoch whose weights came back, or `None`.

    Raises:
        ValueError: for arguments outside their range, for a monitor that is not in the logs.

    Example:

    >>> import numpy as np, keras, spinkeras
    >>> model = keras.Sequential([keras.Input((4,)), spinkeras.SpinNeuron(), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> x, y = np.ones((8, 4)), np.ones((8, 1))
    >>> budget = spinkeras.EnergyBudget(2e-12, monitor="loss")
    >>> history = model.fit(x, y, verbose=0, callbacks=[budget])
    >>> budget.best_epoch
    0

    The weight is the multiplier of the constraint `E <= limit`, found by ascent on its logarithm
    (S. Boyd, L. Vandenberghe, Convex Optimization, 2004, ch. 5).
    """

    def __init__(
        self,
        limit,
        rate=0.05,
        start=1e-3,
        highest=3.0,
        margin=0.02,
        monitor="val_loss",
        mode="auto",
        assumptions=None,
    ):
        super().__init__(checked_assumptions(assumptions))
        of_loss = "(units of the loss)"
        self.limit = checks.number("limit", limit, "J", 1e-18, 1e-3, "2 pJ is 2e-12")
        self.rate = checks.number("rate", rate, "per step", 0.0, 1.0)
        self.highest = checks.number("highest", highest, of_loss, _LOWEST, 1e6)
        hint = "`highest` is the upper end"
        self._weight = checks.number("start", start, of_loss, _LOWEST, self.highest, hint)
        self.margin = checks.number("margin", margin, "(a fraction)", 0.0, 0.5, "2 % is 0.02")
        self.monitor = checks.text("monitor", monitor, "a key of the logs")
        if checks.choice("mode", mode, ("auto", "min", "max")) == "auto":
            mode = "max" if any(word in monitor for word in ("acc", "auc")) else "min"
        self.mode = mode
        self.best_epoch = None

    def on_train_begin(self, logs=None):
        super().on_train_begin(logs)
        leader = self._leader()
        if not _value(leader.energy_weight):  # else: a restored model
            leader.energy_weight.assign(self._weight)
        self._validates = False
        self._forget()

    def _forget(self):
        self.best_epoch = None
        self._best = np.inf if self.mode == "min" else -np.inf
        self._lowest = np.inf
        self._weights = None

    def on_epoch_end(self, epoch, logs=None):
        super().on_epoch_end(epoch, logs)
        logs = {} if logs is None else logs
        self._weight = _value(self._leader().energy_weight)
        logs["energy_weight"] = self._weight
        validated = "val_energy_pj" in self.results
        if self._validates and not validated:  # validation_freq > 1
            return
        if validated and not self._validates:  # what was measured in training does not compare
            self._validates = True
            self._forget()
        monitor = self.monitor if validated else self.monitor.removeprefix("val_")
        if monitor not in logs:
            raise ValueError(
                f"EnergyBudget monitors {monitor!r}, which is not in the logs {sorted(logs)}; "
                "name one of them, compile the metric, or put EnergyBudget behind what writes it."
            )
        energy = self.results["val_energy_pj" if validated else "energy_pj"]
        self._lowest = min(self._lowest, energy)
        better = logs[monitor] < self._best if self.mode == "min" else logs[monitor] > self._best
        if energy <= self.limit * 1e12 and better:
            self._best, self.best_epoch = logs[monitor], epoch
            self._weights = self.model.get_weights()

    def on_train_end(self, logs=None):
        super().on_train_end(logs)
        if self._weights is not None:
            self.model.set_weights(self._weights)
            self._weights = None
        elif self._lowest < np.inf:
            warnings.warn(
                f"No epoch stayed within the budget of {self.limit * 1e12:g} pJ per inference; the "
                f"lowest was {self._lowest:.4g} pJ. Train longer, or raise `highest` or the limit.",
                stacklevel=2,
            )
        self._leader().energy_weight.assign(0.0)  # a later fit with a budget starts anew

    def _leader(self):
        return spin_neurons(self.model)[0]

    def _accepts(self, meter):
        return (
            super()._accepts(meter)
            and isinstance(meter, _Pricer)
            and (meter.target_pj, meter.rate, meter.highest) == self._steering
        )

    def _new_meter(self, layers):
        return _Pricer(self.assumptions, *self._steering, layers)

    @property
    def _steering(self):
        return self.limit * (1 - self.margin) * 1e12, self.rate, self.highest


def _value(variable) -> float:
    return float(ops.convert_to_numpy(variable))
