"""Training on one simulated chip per epoch."""

from typing import Any

import keras
import numpy as np

from spinkeras.layer.members import spin_neurons
from spinkeras.layer.steps import Lease


class NewChipEachEpoch(keras.callbacks.Callback):
    """Trains on one simulated chip per epoch, instead of on a new chip in every step.

    Every spin layer with a `spread` keeps the same devices during an epoch. The chip of an epoch
    depends only on the layer's seed and the number of the epoch. So a run that continues with
    `fit(initial_epoch=...)` sees the same chips as an uninterrupted run. The training step is not
    compiled again.

    Raises:
        ValueError: when training starts without a spin layer that has a `spread`.

    Example:

    >>> import numpy as np, keras, spinkeras
    >>> neuron = spinkeras.SpinNeuron(spread=spinkeras.ChipSpread(stability=0.1), seed=0)
    >>> model = keras.Sequential([keras.Input((4,)), neuron, keras.layers.Dense(1)])
    >>> model.compile("adam", "mse")
    >>> x, y = np.ones((8, 4)), np.ones((8, 1))
    >>> _ = model.fit(x, y, epochs=2, callbacks=[spinkeras.NewChipEachEpoch()], verbose=0)
    """

    def _layers(self):
        return [layer for layer in spin_neurons(self.model) if layer.spread is not None]

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        if not self._layers():
            raise ValueError("NewChipEachEpoch found no SpinNeuron with a spread in this model.")

        held = [layer.held_chip.state for layer in self._layers()]
        self._lease = Lease(self.model, "train", forget=lambda: [(v, np.zeros(2)) for v in held])

    def on_epoch_begin(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        for layer in self._layers():
            layer.hold_chip(epoch)

    def on_train_batch_begin(self, batch: int, logs: dict[str, Any] | None = None) -> None:
        self._lease.renew()

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        self._lease.end()
