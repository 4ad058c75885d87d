"""Searches killed by SIGKILL, by real processes, go on where they stood."""

import json
import signal

import pytest

from tests.processes import run_code
from tests.search.harness import NETWORK

SEARCH = (
    """
import os, signal, sys
import keras, keras_tuner as kt, numpy as np
from spinkeras.search import SpinHyperModel, durable

folder, point, which = sys.argv[1], sys.argv[2], int(sys.argv[3])


def log(event, trial_id):
    with open(folder + "/events.txt", "a") as file:
        file.write(f"{event} {trial_id}\\n")


def die(here, count):
    if here == point and count == which:
        os.kill(os.getpid(), signal.SIGKILL)

"""
    + NETWORK
    + """

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

save_trial = tuner.oracle._save_trial  # private: the place between two files has no public hook


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
)


def search(folder, point="", which=0):
    result = run_code(SEARCH, folder, point, which)
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
