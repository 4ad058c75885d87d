"""ExactBackup: a killed training resumes with exactly the same result."""

import hashlib
import json
import os
import pathlib
import re
import shutil
from typing import Any

import keras
import numpy as np

from spinkeras import _keras, checks, files
from spinkeras._typing import PathLike
from spinkeras.layer.knobs import KNOBS
from spinkeras.layer.members import spin_neurons
from spinkeras.notices import warn

_CONTENT, _HISTORY, _VARIABLES = "content.json", "history.json", "variables.npz"


class ExactBackup(keras.callbacks.Callback):
    """Backs up a training after every epoch; after a kill, the same script resumes it.

    `keras.callbacks.BackupAndRestore` restores weights, knobs and optimizer. This callback also
    restores the state of every random generator of the model (otherwise Dropout would repeat the
    numbers of the first epoch) and the history of earlier epochs with their energies. A backup
    that a kill or a loss of power interrupts does not count; the one before it is used.

    The resumed run ends with the same weights as an uninterrupted run if the training is
    deterministic. For this call `keras.utils.set_random_seed` and on TensorFlow
    `tf.config.experimental.enable_op_determinism()`. Also use `shuffle=False` or data with a fixed
    order, because Keras does not keep the state of its shuffling. The state of other callbacks,
    such as EarlyStopping, is not backed up.

    The newest backup that fits the model is used; a warning names newer ones that do not fit.
    Other files in the folder are ignored. An epoch that ends with NaN in a variable is not backed
    up, and a warning says so.

    Args:
        backup_dir: folder used only for the backups.
        delete: whether to delete the folder when the training ends. Default `True`.

    Raises:
        ValueError: for a model that is not built, and if the folder has backups but none fits,
            because each is damaged or belongs to another model, to another device or to other
            arguments of a spin layer.

    Place it after the callbacks whose logs the history must contain.

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

    def __init__(self, backup_dir: PathLike, delete: bool = True) -> None:
        super().__init__()
        if not isinstance(backup_dir, (str, os.PathLike)):
            raise ValueError(f"backup_dir = {checks.shown(backup_dir)} must be a path.")
        self.backup_dir = os.fspath(backup_dir)
        self.delete = checks.flag("delete", delete)
        self._earlier: list[Any] = []
        self._history: list[Any] = []

    def on_train_begin(self, logs: dict[str, Any] | None = None) -> None:
        self._earlier, self._history = [], []
        _keras.begin_at(self.model, None)  # Keras would keep the value of an earlier fit
        self._remove_unfinished()
        found = self._newest_that_fits()
        if found is None:
            return
        epochs, values, self._earlier = found
        for variable, value in zip(self._variables(), values):
            variable.assign(value)
        for layer in spin_neurons(self.model):
            _move_into_box(layer)
        self._history = list(self._earlier)
        _keras.begin_at(self.model, epochs)

    def on_epoch_end(self, epoch: int, logs: dict[str, Any] | None = None) -> None:
        numbers = {key: np.asarray(value).tolist() for key, value in (logs or {}).items()}
        self._history.append([epoch, numbers])
        values = [keras.ops.convert_to_numpy(variable) for variable in self._variables()]
        # NumPy files cannot hold bfloat16; float32 holds the same values exactly.
        values = [v.astype("float32") if v.dtype.kind == "V" else v for v in values]
        if any(map(_has_nan, values)):
            warn(
                f"Epoch {epoch} ended with NaN in the model or its optimizer and is not backed up; "
                "a resumed training starts from the last backup without NaN."
            )
            return
        name = f"epoch_{epoch + 1:06d}"
        with files.new_folder(os.path.join(self.backup_dir, name)) as folder:
            np.savez(folder / _VARIABLES, *values)
            (folder / _HISTORY).write_text(json.dumps(self._history))
            content = {"neurons": self._neurons(), "digests": _digests(folder)}
            (folder / _CONTENT).write_text(json.dumps(content))
        for older in self._backups():
            if _age(older) < _age(name):
                shutil.rmtree(os.path.join(self.backup_dir, older), ignore_errors=True)

    def on_train_end(self, logs: dict[str, Any] | None = None) -> None:
        history = getattr(self.model, "history", None)
        if self._earlier and history is not None:
            history.epoch = [epoch for epoch, _ in self._earlier] + history.epoch
            earlier = [logs for _, logs in self._earlier]
            for key in dict.fromkeys(key for logs in (*earlier, history.history) for key in logs):
                values = [logs[key] for logs in earlier if key in logs]
                history.history[key] = values + history.history.get(key, [])
        _keras.begin_at(self.model, None)
        if self.delete:
            shutil.rmtree(self.backup_dir, ignore_errors=True)

    def _newest_that_fits(self):
        """`(epochs, values of the variables, history)`, or `None` if there is no backup."""
        problems = []
        for name in reversed(self._backups()):
            try:
                found = self._read(name)
            except Exception as error:  # a damaged file fails in many ways
                problems.append(f"{name}: {checks.shown_error(error)}")
                continue
            if problems:
                warn(
                    f"The training resumes from {name} in {self.backup_dir!r}. Newer backups are "
                    f"not used: {'; '.join(problems)}."
                )
            return found
        if problems:
            raise ValueError(
                f"No backup in {self.backup_dir!r} can be used ({'; '.join(problems)}). Delete the "
                "folder to start again."
            )
        return None

    def _read(self, name):
        """The content of a backup, or an error that says why it does not fit this training."""
        epochs = _age(name)
        folder = pathlib.Path(self.backup_dir, name)
        content = checks.from_json(files.read_text(folder / _CONTENT), _CONTENT)
        if not isinstance(content, dict) or not content.keys() >= {"neurons", "digests"}:
            raise ValueError(f"{_CONTENT} is damaged")
        _refuse_other_neurons(content["neurons"], spin_neurons(self.model))
        if content["digests"] != _digests(folder):
            raise ValueError("a file is damaged")
        history = json.loads((folder / _HISTORY).read_text())
        if history[-1][0] + 1 != epochs:
            raise ValueError(f"it is the backup of another epoch, number {history[-1][0] + 1}")
        with np.load(folder / _VARIABLES) as file:
            values = [file[f"arr_{k}"] for k in range(len(file.files))]
        if [value.shape for value in values] != [tuple(v.shape) for v in self._variables()]:
            raise ValueError("it belongs to a model with other variables")
        return epochs, values, history

    def _neurons(self):
        """Configurations of all spin layers, as they are read from JSON; they define the knobs."""
        return [_meaning(layer) for layer in spin_neurons(self.model)]

    def _remove_unfinished(self):
        for path in pathlib.Path(self.backup_dir).glob("*"):
            if files.is_unfinished(path.name):
                shutil.rmtree(path, ignore_errors=True)

    def _variables(self):
        """All variables that training changes: weights, random generators, optimizer."""
        if not self.model.built:
            raise ValueError("ExactBackup needs a built model; give it an Input or call it once.")
        optimizer = self.model.optimizer
        if not optimizer.built:
            optimizer.build(self.model.trainable_variables)
        return [*self.model.weights, *self._generators(), *optimizer.variables]

    def _generators(self):
        # `variables` has weights, random generators and metrics; every epoch resets the metrics.
        known = {id(v) for v in [*self.model.weights, *self.model.metrics_variables]}
        return [v for v in self.model.variables if id(v) not in known]

    def _backups(self):
        """Names of the folders that hold at least one file of a backup, oldest first."""
        if not os.path.isdir(self.backup_dir):
            return []
        found = [
            name
            for name in os.listdir(self.backup_dir)
            if re.fullmatch(r"epoch_[0-9]{6,9}", name)
            and any(
                os.path.exists(os.path.join(self.backup_dir, name, file))
                for file in (_CONTENT, _HISTORY, _VARIABLES)
            )
        ]
        return sorted(found, key=_age)


def _age(name):
    return int(name.split("_")[1])


def _has_nan(value):
    return value.dtype.kind == "f" and bool(np.any(np.isnan(value)))


def _digests(folder):
    """Hashes of the files, by which a damaged file is found."""
    return {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in (_HISTORY, _VARIABLES)
    }


def _meaning(layer):
    try:
        config = layer.get_config()
    except Exception:  # a user's own switching model may have no configuration
        config = {"device": layer.device.get_config()}
    config = {key: value for key, value in config.items() if key not in ("name", "dtype")}
    return json.loads(json.dumps(config, default=repr))


def _move_into_box(layer):
    """Move knobs outside the device's range, which a user may have assigned, to its limit."""
    for knob, weight in zip(KNOBS, layer.knob_weights()):
        low, high = weight.constraint.bounds
        value, slack = keras.ops.convert_to_numpy(weight), 1e-5 * (high - low)
        if np.any((value < low - slack) | (value > high + slack)):
            warn(
                f"The backup holds a {knob} of layer {layer.name!r} that is outside the device's "
                "range; it was moved to its limit."
            )
            weight.assign(np.clip(value, low, high))


def _written_again(config, layer):
    """Configuration of a layer in a backup, in today's form; an earlier version wrote another."""
    try:
        return _meaning(type(layer).from_config({**config, "name": layer.name}))
    except Exception:  # not a configuration of this layer; the comparison will say so
        return config if isinstance(config, dict) else {}


def _refuse_other_neurons(found, layers):
    """Refuse a backup with other spin layers than the model: its weights mean other knobs."""
    if not isinstance(found, list) or len(found) != len(layers):
        raise ValueError("it belongs to a model with other spin layers")
    for k, (before, layer) in enumerate(zip(found, layers)):
        after = _meaning(layer)
        if before == after:
            continue
        before = _written_again(before, layer)
        if before != after:
            names = [key for key in after if key not in before or before[key] != after[key]]
            raise ValueError(
                f"spin layer {k} has another {' and '.join(names) or 'configuration'} than the "
                "training that wrote it"
            )
