"""Runs killed by SIGKILL, by real processes: training and searches go on where they stood."""

import csv
import json
import random
import signal
import subprocess
import sys

import keras
import numpy as np
import pytest

import spinkeras
from tests.processes import environment

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

SEARCH = """
import os, signal, sys
import keras, keras_tuner as kt, numpy as np
from spinkeras.durable import durable
from spinkeras.tuning import SpinHyperModel

folder, point, which = sys.argv[1], sys.argv[2], int(sys.argv[3])


def log(event, trial_id):
    with open(folder + "/events.txt", "a") as file:
        file.write(f"{event} {trial_id}\\n")


def die(here, count):
    if here == point and count == which:
        os.kill(os.getpid(), signal.SIGKILL)


def network(hp, spin):
    model = keras.Sequential([
        keras.Input((4,)), keras.layers.Dense(3), spin(), keras.layers.Dense(2, "softmax")
    ])
    model.compile(
        "sgd", "sparse_categorical_crossentropy", metrics=["accuracy"], run_eagerly=True
    )
    return model


class Epochs(keras.callbacks.Callback):
    def on_epoch_end(self, epoch, logs=None):
        if epoch == 1:
            die("in_training", len(tuner.oracle.start_order))


class Tuner(durable(kt.RandomSearch)):
    def on_trial_begin(self, trial):
        log("begin", trial.trial_id)
        super().on_trial_begin(trial)

    def on_trial_end(self, trial):
        die("before_end", len(self.oracle.end_order) + 1)
        self.oracle.end_trial(trial)
        log("end", trial.trial_id)
        die("after_end", len(self.oracle.end_order))
        self.save()
        die("after_save", len(self.oracle.end_order))


hypermodel = SpinHyperModel(network)
tuner = Tuner(
    hypermodel, objective=hypermodel.objective.objective, max_trials=3, seed=1,
    directory=folder, project_name="search",
)

save_trial = tuner.oracle._save_trial


def save(trial):
    save_trial(trial)
    if trial.status == "COMPLETED":
        die("between_files", len(tuner.oracle.end_order))


tuner.oracle._save_trial = save
x = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
y = (x[:, 0] > 0).astype("int32")
tuner.search(x, y, validation_data=(x, y), epochs=2, verbose=0, callbacks=[Epochs()])
model = tuner.get_best_models(1)[0]
"""


def start(code, *arguments, **variables):
    env = environment(**variables)
    for name in ("TUNER_ID", "ORACLE_IP", "ORACLE_PORT"):
        env.pop(f"KERASTUNER_{name}", None)
    command = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(
        command, env=env, capture_output=True, text=True, timeout=300, check=False
    )


def train(folder, kind, kill_at=0):
    folder.mkdir(exist_ok=True)
    result = start(TRAINING, folder, kill_at, kind)
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


def search(folder, point="", which=0):
    result = start(SEARCH, folder, point, which)
    assert result.returncode == (-signal.SIGKILL if point else 0), result.stderr[-2000:]
    return [line.split() for line in (folder / "events.txt").read_text().splitlines()]


def trial_files(folder):
    files = sorted(folder.glob("search/trial_*/trial.json"))
    return {path.parent.name[6:]: json.loads(path.read_text()) for path in files}


@pytest.mark.slow
@pytest.mark.parametrize(
    ("point", "which", "repeated"),
    [
        ("in_training", 1, {"0"}),  # before the first trial has ended
        ("in_training", 2, {"1"}),
        ("before_end", 2, {"1"}),  # trained and reported, not yet ended
        ("between_files", 2, set()),  # the trial's file says completed, the search's does not
        ("after_end", 2, set()),
        ("after_save", 3, set()),  # nothing left to do
    ],
)
def test_killed_search_loses_and_repeats_nothing_that_ended(point, which, repeated, tmp_path):
    search(tmp_path, point, which)
    before = trial_files(tmp_path)
    completed = {key: t for key, t in before.items() if t["status"] == "COMPLETED"}
    events = search(tmp_path)
    after = trial_files(tmp_path)
    assert sorted(after) == ["0", "1", "2"]
    assert {trial["status"] for trial in after.values()} == {"COMPLETED"}
    for key, trial in completed.items():
        assert after[key] == trial
    for key, trial in before.items():  # also an unfinished trial keeps its hyperparameters
        assert after[key]["hyperparameters"]["values"] == trial["hyperparameters"]["values"]
        for metric in after[key]["metrics"]["metrics"].values():
            assert len(metric["observations"][0]["value"]) == 1  # of one run, not of two
    begun = [key for event, key in events if event == "begin"]
    assert {key for key in begun if begun.count(key) > 1} == repeated
    assert set(begun) == {"0", "1", "2"}


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
