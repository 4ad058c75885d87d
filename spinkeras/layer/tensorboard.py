"""The knobs of a model in TensorBoard, in ns and mV."""

import os
from typing import Any

import keras
import numpy as np

from spinkeras import checks
from spinkeras._typing import PathLike
from spinkeras.layer.members import spin_neurons, unique_names


class SpinTensorBoard(keras.callbacks.TensorBoard):
    """Keras's TensorBoard callback, which also writes the knobs as histograms in ns and mV.

    Keras's own histograms show the weights, which are logarithms of the knobs. This callback
    writes histograms of the knobs themselves to the run `knobs` in `log_dir`, under the names
    `<layer>/pulse_width_ns` and `<layer>/gate_mv` for every built spin layer.

    If an `EnergyTracker` comes earlier in the list of callbacks, the runs `train` and `validation`
    also show energy, latency and the share of neurons at a limit, as `epoch_energy_pj`,
    `epoch_latency_ns`, `epoch_share_at_limit` and so on. Keras's own callback shows these, too.

    Args:
        log_dir: folder. Default `"logs"`; `tensorboard --logdir logs` shows it.
        knob_freq: epochs from one histogram to the next, >= 0; 0 writes none. Default 1.
        **options: further arguments of `keras.callbacks.TensorBoard`.

    Raises:
        ValueError: for a `log_dir` that is not a path, and for a `knob_freq` that is not a whole
            number >= 0.

    Example:

    >>> import numpy as np, keras, spinkeras
    >>> model = keras.Sequential([keras.Input((4,)), spinkeras.SpinNeuron()])
    >>> model.compile("sgd", "mse")
    >>> both = [spinkeras.EnergyTracker(), spinkeras.SpinTensorBoard("logs")]
    >>> history = model.fit(np.ones((8, 4)), np.ones((8, 4)), verbose=0, callbacks=both)
    """

    def __init__(self, log_dir: PathLike = "logs", knob_freq: int = 1, **options: Any) -> None:
        if not isinstance(log_dir, (str, os.PathLike)):
            raise ValueError(f"log_dir = {checks.shown(log_dir)} must be the path of a folder.")
        super().__init__(log_dir, **options)
        self.knob_freq = checks.whole("knob_freq", knob_freq, 0, 10**9)
        self._knobs = None

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        super().on_epoch_end(epoch, logs)
        if self.knob_freq and epoch % self.knob_freq == 0:
            self._write_knobs(epoch)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        super().on_train_end(logs)
        if self._knobs is not None:
            self._knobs.close()
            self._knobs = None

    def _write_knobs(self, epoch):
        from tensorflow import summary  # Keras also uses it on every backend

        layers = [layer for layer in spin_neurons(self.model) if layer.built]
        if not layers:
            return
        if self._knobs is None:  # not earlier: keras-tuner copies callbacks and changes log_dir
            self._knobs = summary.create_file_writer(os.path.join(self.log_dir, "knobs"))
        with self._knobs.as_default(), summary.record_if(True):
            for name, layer in zip(unique_names(layers), layers):
                gate = np.asarray(layer.gate_voltage) * 1e3
                summary.histogram(f"{name}/pulse_width_ns", layer.pulse_width * 1e9, step=epoch)
                summary.histogram(f"{name}/gate_mv", gate, step=epoch)
        self._knobs.flush()  # an interrupted fit does not call on_train_end
