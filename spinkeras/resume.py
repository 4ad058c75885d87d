"""ExactBackup: a training that was killed resumes to the last bit."""

import json
import os
import shutil

import keras
import numpy as np


class ExactBackup(keras.callbacks.Callback):
    """Backs up a training after every epoch; the same script resumes it after a kill.

    Like `keras.callbacks.BackupAndRestore`, which is enough for weights, knobs and optimizer, but
    also restores the position of every random generator of the model (without it, Dropout repeats
    the numbers of the first epoch) and the history of earlier epochs, energies included; and a
    backup counts as a whole or not at all, also if the kill comes while it is written.

    The resumed run ends with the weights of a run never killed if the training is deterministic:
    `keras.utils.set_random_seed`, on TensorFlow `tf.config.experimental.enable_op_determinism()`,
    and `shuffle=False` or data in an order of its own, because Keras does not keep the state of
    its shuffling. The state of other callbacks (EarlyStopping) is not part of it.

    Args:
        backup_dir: folder of its own for the backups. It is deleted when the training ends.
        delete: whether to delete it then. Default `True`.

    Raises:
        ValueError: for a model that is not built, and for a backup of another model.

    Place it behind the callbacks whose logs its history shall hold.

    Example:

    >>> import tempfile, numpy as np, keras, spinkeras
    >>> model = keras.Sequential([keras.Input((4,)), spinkeras.SpinNeuron(), keras.layers.Dense(1)])
    >>> model.compile("sgd", "mse")
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     callbacks = [spinkeras.EnergyTracker(), spinkeras.ExactBackup(folder + "/backup")]
    ...     fit = model.fit(np.ones((8, 4)), np.ones(8), callbacks=callbacks, verbose=0)
    >>> len(fit.history["energy_pj"])
    1
    """

    def __init__(self, backup_dir, delete=True):
        super().__init__()
        self.backup_dir = os.fspath(backup_dir)
        self.delete = delete
        self._earlier = []
        self._history = []

    def on_train_begin(self, logs=None):
        self._earlier, self._history = [], []
        self.model._initial_epoch = None  # Keras keeps that of an earlier fit
        backups = self._backups()
        if not backups:
            return
        variables = self._variables()
        folder = os.path.join(self.backup_dir, backups[-1])
        with np.load(os.path.join(folder, "variables.npz")) as file:
            values = [file[f"arr_{k}"] for k in range(len(file.files))]
        if [value.shape for value in values] != [tuple(v.shape) for v in variables]:
            raise ValueError(
                f"The backup in {self.backup_dir!r} belongs to a model with other variables; "
                "delete the folder to start anew."
            )
        for variable, value in zip(variables, values):
            variable.assign(value)
        with open(os.path.join(folder, "history.json")) as file:
            self._earlier = json.load(file)
        self._history = list(self._earlier)
        # Where Keras' own BackupAndRestore puts it; `fit` reads it after this call.
        self.model._initial_epoch = int(backups[-1].split("_")[1])

    def on_epoch_end(self, epoch, logs=None):
        numbers = {key: np.asarray(value).tolist() for key, value in (logs or {}).items()}
        self._history.append([epoch, numbers])
        name = f"epoch_{epoch + 1:06d}"
        temporary = os.path.join(self.backup_dir, f"unfinished_{os.getpid()}")
        shutil.rmtree(temporary, ignore_errors=True)
        os.makedirs(temporary)
        values = [keras.ops.convert_to_numpy(variable) for variable in self._variables()]
        # NumPy files do not know bfloat16; float32 holds it exactly.
        values = [v.astype("float32") if v.dtype.kind == "V" else v for v in values]
        np.savez(os.path.join(temporary, "variables.npz"), *values)
        with open(os.path.join(temporary, "history.json"), "w") as file:
            json.dump(self._history, file)
        old = self._backups()
        shutil.rmtree(os.path.join(self.backup_dir, name), ignore_errors=True)
        os.rename(temporary, os.path.join(self.backup_dir, name))
        for folder in old:
            if folder != name:
                shutil.rmtree(os.path.join(self.backup_dir, folder), ignore_errors=True)

    def on_train_end(self, logs=None):
        history = getattr(self.model, "history", None)
        if self._earlier and history is not None:
            history.epoch = [epoch for epoch, _ in self._earlier] + history.epoch
            earlier = [logs for _, logs in self._earlier]
            for key in dict.fromkeys(key for logs in (*earlier, history.history) for key in logs):
                values = [logs[key] for logs in earlier if key in logs]
                history.history[key] = values + history.history.get(key, [])
        self.model._initial_epoch = None
        if self.delete:
            shutil.rmtree(self.backup_dir, ignore_errors=True)

    def _variables(self):
        """Everything that changes in training: weights, random generators, optimizer."""
        if not self.model.built:
            raise ValueError("ExactBackup needs a built model; give it an Input or call it once.")
        optimizer = self.model.optimizer
        if not optimizer.built:
            optimizer.build(self.model.trainable_variables)
        return [*self.model.weights, *self._generators(), *optimizer.variables]

    def _generators(self):
        # `variables` holds weights, random generators and metrics; metrics start anew per epoch.
        known = {id(v) for v in [*self.model.weights, *self.model.metrics_variables]}
        return [v for v in self.model.variables if id(v) not in known]

    def _backups(self):
        if not os.path.isdir(self.backup_dir):
            return []
        return sorted(name for name in os.listdir(self.backup_dir) if name.startswith("epoch_"))
