"""Trainings killed by SIGKILL, by real processes: training goes on where it stood."""

import csv
import random
import signal

import keras
import numpy as np
import pytest

import spinkeras
from tests.processes import run_code

TRAINING = """
import os, random, signal, sys
import keras, numpy as np, spinkeras

folder, kill_at, exact = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "exact"
keras.utils.set_random_seed(7)
if keras.backend.backend() == "tensorflow":
    import tensorflow as tf
    tf.config.experimental.enable_op_determinism()

x = np.random.default_rng(0).normal(size=(32, 5)).astype("float32")
y = (x[:, :1] > 0).astype("float32")
model = keras.Sequential([
    keras.Input((5,)),
    keras.layers.Dense(6),
    spinkeras.SpinNeuron(name="spin"),
    keras.layers.Dropout(0.3 if exact else 0.0),  # Keras' callback forgets random generators
    keras.layers.Dense(1, activation="sigmoid"),
])
model.compile(keras.optimizers.Adam(0.02), "binary_crossentropy")


class Kill(keras.callbacks.Callback):
    step = 0

    def on_train_batch_end(self, batch, logs=None):
        self.step += 1
        if self.step == kill_at:
            os.kill(os.getpid(), signal.SIGKILL)


if exact:
    from spinkeras import ExactBackup
    backup = ExactBackup(folder + "/backup")
else:
    backup = keras.callbacks.BackupAndRestore(folder + "/backup")
history = model.fit(
    x, y, validation_data=(x, y), batch_size=8, epochs=5, verbose=0,
    shuffle=False,  # the order of a shuffled epoch is not part of a backup
    callbacks=[
        spinkeras.EnergyTracker(),
        keras.callbacks.CSVLogger(folder + "/log.csv", append=True),
        backup,
        Kill(),
    ],
)
if exact:
    assert history.epoch == list(range(5))
    with open(folder + "/log.csv") as file:
        logged = [float(line.split(",")[1]) for line in file.read().splitlines()[1:]]
    key = sorted(history.history)[0]  # CSVLogger sorts its columns
    assert history.history[key] == logged, (history.history[key], logged)
    assert not os.path.exists(folder + "/backup")
spin = model.get_layer("spin")
np.savez(
    folder + "/end.npz",
    *[keras.ops.convert_to_numpy(w) for w in model.weights + model.optimizer.variables],
    pulse_width=spin.pulse_width, anisotropy=spin.anisotropy,
)
"""
STEPS = 20  # 5 epochs of 4 steps


def train(folder, kind, kill_at=0):
    folder.mkdir(exist_ok=True)
    result = run_code(TRAINING, folder, kill_at, kind)
    assert result.returncode == (-signal.SIGKILL if kill_at else 0), result.stderr[-2000:]
    if not kill_at:
        with np.load(folder / "end.npz") as end:
            return dict(end)
    return None


@pytest.fixture(scope="module", params=["keras", "exact"])
def never_killed(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    return request.param, folder, train(folder, request.param)


@pytest.mark.slow
@pytest.mark.parametrize("kill_at", [1, 4, "random"])
def test_killed_training_ends_with_the_same_weights(kill_at, never_killed, tmp_path):
    kind, whole_folder, whole = never_killed
    if kill_at == "random":
        kill_at = random.randrange(5, STEPS)
        print(f"killed at step {kill_at}")
    train(tmp_path, kind, kill_at)
    assert not (tmp_path / "end.npz").exists()
    resumed = train(tmp_path, kind)
    assert resumed.keys() == whole.keys()
    for name, value in whole.items():  # weights, optimizer state and knobs, to the last bit
        np.testing.assert_array_equal(resumed[name], value, err_msg=name)
    # The knobs have moved, so equality means they were restored.
    assert np.ptp(whole["pulse_width"]) > 0
    # The energy history has every epoch once, with the figures of the run never killed.
    rows, whole_rows = (
        list(csv.reader((folder / "log.csv").read_text().splitlines()))
        for folder in (tmp_path, whole_folder)
    )
    assert rows == whole_rows
    assert [row[0] for row in rows[1:]] == list("01234")
    assert "val_energy_pj_spin" in rows[0]


# --- the mechanics of ExactBackup, in this process -----------------------------------------------


class Interrupted(Exception):
    pass


class InterruptAt(keras.callbacks.Callback):
    def __init__(self, epoch):
        super().__init__()
        self.epoch = epoch

    def on_epoch_end(self, epoch, logs=None):
        if epoch == self.epoch:
            raise Interrupted


def fit(folder, epochs=3, interrupt=None, units=4, seed=0, more=False, **options):
    from spinkeras import ExactBackup

    keras.utils.set_random_seed(3)
    x = np.random.default_rng(seed).normal(size=(16, 5)).astype("float32")
    model = keras.Sequential(
        [
            keras.Input((5,)),
            keras.layers.Dense(units),
            spinkeras.SpinNeuron(name="spin"),
            keras.layers.Dropout(0.5, seed=1),
            keras.layers.Dense(1),
        ]
    )
    metrics = [keras.metrics.F1Score(threshold=0.5)] if more else None  # one number per class
    model.compile(keras.optimizers.Adam(0.02), "mse", metrics=metrics, run_eagerly=True)
    callbacks = [spinkeras.EnergyTracker()]
    if interrupt is not None:
        callbacks.append(InterruptAt(interrupt))
    callbacks.append(ExactBackup(folder, **options))
    data = {"x": x, "y": x[:, :1], "batch_size": 8, "shuffle": False}
    if more:
        data |= {"validation_data": (x, x[:, :1]), "validation_freq": 2}
    history = model.fit(**data, epochs=epochs, verbose=0, callbacks=callbacks)
    return model, history


@pytest.mark.slow
def test_interrupted_training_resumes_with_its_history(tmp_path):
    whole, history = fit(tmp_path / "whole")
    with pytest.raises(Interrupted):
        fit(tmp_path / "part", interrupt=1)
    (tmp_path / "part" / "unfinished_1").mkdir()  # as a kill while writing leaves it
    resumed, resumed_history = fit(tmp_path / "part")
    for a, b in zip(whole.variables, resumed.variables):
        np.testing.assert_array_equal(a, b)
    assert resumed_history.epoch == [0, 1, 2]
    assert resumed_history.history == history.history
    assert not (tmp_path / "part").exists()


def test_backup_is_kept_on_request_and_then_nothing_is_left_to_train(tmp_path):
    model, history = fit(tmp_path / "kept", delete=False)
    assert [path.name for path in (tmp_path / "kept").iterdir()] == ["epoch_000003"]
    again, told = fit(tmp_path / "kept", delete=False, seed=1)  # other data: nothing learnt from it
    for a, b in zip(model.weights, again.weights):
        np.testing.assert_array_equal(a, b)
    assert told.epoch == [0, 1, 2]
    assert told.history == history.history
    x = np.zeros((8, 5), "float32")
    assert again.fit(x, x[:, :1], epochs=2, verbose=0).epoch == [0, 1]  # a fit of its own


@pytest.mark.slow
def test_history_holds_what_a_run_never_killed_holds(tmp_path):
    """A metric of several numbers, and a validation in some epochs only."""
    _, whole = fit(tmp_path / "whole", epochs=4, more=True)
    assert len(whole.history["val_loss"]) == 2
    with pytest.raises(Interrupted):
        fit(tmp_path / "part", epochs=4, interrupt=3, more=True)
    _, resumed = fit(tmp_path / "part", epochs=4, more=True)
    assert whole.history.keys() == resumed.history.keys()
    for key, values in whole.history.items():
        np.testing.assert_array_equal(resumed.history[key], values)


def test_backup_of_another_model_is_refused(tmp_path):
    fit(tmp_path / "kept", epochs=1, delete=False)
    with pytest.raises(ValueError, match="other variables"):
        fit(tmp_path / "kept", units=3)
