"""EnergyBudget: train for the best accuracy that a given energy per inference allows."""

from typing import Any

import keras
import numpy as np
from keras import ops

from spinkeras import _keras, _tracing, checks
from spinkeras.energy.meter import PICO, MeteredStep
from spinkeras.energy.pulse import EnergyAssumptions
from spinkeras.energy.tracker import EnergyTracker
from spinkeras.layer.members import spin_neurons
from spinkeras.notices import warn

_LOWEST = 1e-4  # lowest weight, in units of the loss
_COSTS = ("energy_pj", "energy_weight", "latency_ns", "share_at_limit")  # keys of our own logs


class _PricedStep(MeteredStep):
    """A step that adds the gradient of `w ln E` to the loss and adjusts `w` to reach the target.

    `E` is the energy per inference. The whole model has one weight `w`, the variable
    `energy_weight` of the first spin layer. The training step itself adjusts `w`, from the energies
    of the step before, so the step does not wait for Python. `start` is the weight of a first step
    that builds the layers: no callback could give it to the variable, which is still 0.
    """

    def __init__(self, model, data, assumptions, training, steering, start):
        super().__init__(model, data, assumptions, training)
        self.target_pj, self.rate, self.highest = steering
        self.start, self.weight = start, None
        self._fired = set()

    def refuse_scope(self, layer):
        super().refuse_scope(layer)
        if self.training and _tracing.inner_scope(self._scope, layer.meter_sums.value):
            raise ValueError(
                f"Layer {layer.name!r} runs in a loop or a condition of the graph, where its "
                "energy has no gradient to the loss. Call it outside, or use an EnergyTracker."
            )

    def charge(self, layer, energy, first):
        if self.weight is None:  # one variable for the step, whichever layers it still builds
            self.weight = _leader(self.layers).energy_weight
        weight = self.weight
        if not self._fired:
            last = self._seen()  # 0 in the first step of a fit, which has no step before
            excess = ops.log(ops.where(last > 0, last, self.target_pj) / self.target_pj)
            before = ops.convert_to_tensor(weight)
            before = ops.where(before > 0, before, self.start)
            moved = before * ops.exp(self.rate * ops.clip(excess, -1.0, 1.0))
            weight.assign(ops.clip(moved, _LOWEST, self.highest))
        self._fired.add(id(layer))
        now = ops.stop_gradient(energy)
        layer.energy_seen.assign(now if first else layer.energy_seen + now)
        layer.add_loss(weight * energy / ops.maximum(self._seen(), 1e-12))

    def updates(self):
        still = [layer for layer in self.layers if layer.built and id(layer) not in self._fired]
        return [*super().updates(), *((layer.energy_seen, lambda old: 0 * old) for layer in still)]

    def _seen(self):
        """Energy of the model in pJ; layers not yet called in this step count as in the last."""
        layers = (layer for layer in self.layers if layer.built)
        return sum(ops.convert_to_tensor(layer.energy_seen) for layer in layers)


class EnergyBudget(EnergyTracker):
    """Trains for the best accuracy while the energy per inference stays within a limit.

    It is an `EnergyTracker` that also reduces the energy; use it instead of an `EnergyTracker`.
    With the mean energy per inference `E` of the batch, over all spin layers, every step follows
    the gradient of

        loss + w ln E

    through drive currents, probabilities and knobs. The step then adjusts the weight `w` (in units
    of the loss): up if `E` is above the target, down if `E` is below:

        w <- w * exp(rate * ln(E / E_target)),    E_target = (1 - margin) * limit,

    with the logarithm clipped to [-1, 1] and `w` to [1e-4, highest]. A limit above the energy that
    the model needs hardly changes the training. `w` is a variable of the model (`energy_weight` of
    its first spin layer) and is saved with it. A change of `w` compiles nothing again.

    At the end the model gets back the weights of its best epoch: the one with the best `monitor`
    among all epochs whose `val_energy_pj` is within the limit. With `validation_freq`, epochs
    without validation do not count. Without validation data, `energy_pj` (mean over the epoch) and
    `monitor` without its `val_` are used instead. If no epoch is within the limit, the model keeps
    its last weights and a warning gives the lowest energy.

    Args:
        limit: energy in J per inference of all spin layers together, 1e-18 to 1e-3.
        rate: how fast `w` changes per step, 0 to 1. Default 0.05. 0 keeps `w` at `start`.
        start: first `w` in units of the loss, 1e-4 to `highest`. Default 1e-3.
        highest: largest `w` in units of the loss, up to 1e6. Default 3. A larger value reaches
            lower energies, but the training is less stable.
        margin: fraction of the limit kept as reserve, 0 to 0.5. Default 0.02.
        monitor: key of the logs by which epochs are compared. Default `"val_loss"`; validation
            losses contain no energy.
        mode: `"min"`, `"max"` or `"auto"` (default). `"auto"` asks the compiled metric, as
            `keras.callbacks.EarlyStopping` does; losses and energies are `"min"`.
        assumptions: `EnergyAssumptions`, as for `EnergyTracker`.

    Logs: the keys of `EnergyTracker`, and `energy_weight`. The energy adds about `w` to the
    training `loss`.

    Limits: place a callback that restores weights itself (`keras.callbacks.EarlyStopping` with
    `restore_best_weights`) before this one. Otherwise the model ends with the weights of that
    callback, whatever their energy. The best weights are kept in memory only: a run that was killed
    and resumed knows the best weights since it resumed.

    Attributes:
        best_epoch: number (from 0) of the epoch whose weights were restored, or `None`.

    Raises:
        ValueError: for arguments outside their range. At the end of the first epoch for a monitor
            that is not in the logs, and for one whose better direction `"auto"` cannot tell.

    Example:

    >>> import numpy as np, keras, spinkeras
    >>> model = keras.Sequential([keras.Input((4,)), spinkeras.SpinNeuron(), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> x, y = np.ones((8, 4)), np.ones((8, 1))
    >>> budget = spinkeras.EnergyBudget(2e-12, monitor="loss")
    >>> history = model.fit(x, y, verbose=0, callbacks=[budget])
    >>> budget.best_epoch
    0

    Theory: `w` is the Lagrange multiplier of the constraint `E <= limit`, found by ascent on its
    logarithm (S. Boyd, L. Vandenberghe, Convex Optimization, 2004, ch. 5).
    """

    def __init__(
        self,
        limit: float,
        rate: float = 0.05,
        start: float = 1e-3,
        highest: float = 3.0,
        margin: float = 0.02,
        monitor: str = "val_loss",
        mode: str = "auto",
        assumptions: EnergyAssumptions | None = None,
    ) -> None:
        super().__init__(assumptions)
        of_loss = "(units of the loss)"
        self.limit = checks.number("limit", limit, "J", 1e-18, 1e-3, "2 pJ is 2e-12")
        self.rate = checks.number("rate", rate, "per step", 0.0, 1.0)
        self.highest = checks.number("highest", highest, of_loss, _LOWEST, 1e6)
        hint = "`highest` is the upper end"
        self._weight = checks.number("start", start, of_loss, _LOWEST, self.highest, hint)
        self.margin = checks.number("margin", margin, "(a fraction)", 0.0, 0.5, "2 % is 0.02")
        self.monitor = checks.text("monitor", monitor, "a key of the logs")
        self.mode = checks.choice("mode", mode, ("auto", "min", "max"))
        self.best_epoch: int | None = None

    def set_model(self, model: keras.Model) -> None:
        super().set_model(model)
        # Forget the weight of an interrupted fit, but continue with one loaded from a file. Other
        # callbacks may also restore one when the training begins.
        leader = self._leader()
        if leader is not None:
            loaded, leader.loaded_energy_weight = leader.loaded_energy_weight, None
            leader.energy_weight.assign(loaded or 0.0)
        for layer in self._built():
            layer.energy_seen.assign(0.0)
        self._started = False

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        super().on_train_begin(logs)
        self._validates = False
        self._forget()

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_train_batch_begin(batch, logs)
        leader = self._leader()
        if not self._started and leader is not None:
            self._started = True
            leader.loaded_energy_weight = None
            if not _value(leader.energy_weight):
                leader.energy_weight.assign(self._weight)

    def _forget(self):
        self.best_epoch = None
        self._best = np.inf
        self._lowest = np.inf
        self._weights = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        logs = {} if logs is None else logs
        leader = self._leader()
        if leader is not None:
            self._weight = _value(leader.energy_weight)
        logs["energy_weight"] = self._weight
        validated = "val_energy_pj" in self.results
        if self._validates and not validated:  # validation_freq > 1
            return
        if validated and not self._validates:  # values of training epochs are not comparable
            self._validates = True
            self._forget()
        monitor = self.monitor if validated else self.monitor.removeprefix("val_")
        if monitor not in logs:
            raise ValueError(
                f"EnergyBudget monitors {monitor!r}, which is not in the logs {sorted(logs)}; "
                "give one of these keys, compile the metric, or place EnergyBudget after the "
                "callback that writes it."
            )
        energy = self.results["val_energy_pj" if validated else "energy_pj"]
        self._lowest = min(self._lowest, energy)
        cost = logs[monitor] if self._direction(monitor) == "min" else -logs[monitor]
        if energy <= self.limit * PICO and cost < self._best:
            self._best, self.best_epoch = cost, epoch
            self._weights = self.model.get_weights()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        super().on_train_end(logs)
        if self._weights is not None:
            self.model.set_weights(self._weights)
            self._weights = None
        elif self._lowest < np.inf:
            warn(
                f"No epoch stayed within the budget of {self.limit * PICO:g} pJ per inference; the "
                f"lowest was {self._lowest:.4g} pJ. Train longer, or raise `highest` or the limit."
            )
        for layer in self._built():
            layer.energy_weight.assign(0.0)
            layer.energy_seen.assign(0.0)

    def _direction(self, monitor):
        """`"min"` or `"max"`; only after the first step, in which Keras builds the metrics."""
        if self.mode != "auto":
            return self.mode
        key = monitor.removeprefix("val_")
        direction = _keras.metric_direction(self.model, key)
        if direction is not None:
            return {"up": "max", "down": "min"}[direction]
        if f"_{key}".endswith("_loss") or key.startswith(_COSTS):
            return "min"
        raise ValueError(
            f"EnergyBudget cannot tell whether a high or a low {monitor!r} is better; give "
            "mode='max' or mode='min'."
        )

    def _leader(self):
        return _leader(spin_neurons(self.model))

    def _key(self):
        return *super()._key(), self._steering

    def _observed_step(self, model, data, training):
        steering, start = self._steering, self._weight
        return _PricedStep(model, data, self.assumptions, training, steering, start)

    @property
    def _steering(self):
        return self.limit * (1 - self.margin) * PICO, self.rate, self.highest


def _leader(layers):
    """The layer whose variable holds the weight: the first one that is built, or `None`."""
    return next((layer for layer in layers if layer.built), None)


def _value(variable) -> float:
    return float(ops.convert_to_numpy(variable))
