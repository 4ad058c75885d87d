"""What spinkeras takes from keras-tuner's private parts is still there, and does what it did.

Each test names the part: when one fails after an update of keras-tuner, look at that function of
`spinkeras/search/_keras_tuner.py`.
"""

import json
import pathlib

import keras
import keras_tuner as kt
import pytest

from spinkeras.search import _keras_tuner
from tests.search.harness import search


def network(hp):
    hp.Int("width", 1, 9)
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(2, activation="softmax")])
    model.compile("sgd", "sparse_categorical_crossentropy", metrics=["accuracy"], run_eagerly=True)
    return model


def tuner(folder, kind=kt.RandomSearch):
    return kind(
        network, objective="val_accuracy", max_trials=2, directory=folder, project_name="search"
    )


def test_the_files_of_a_search_are_where_keras_tuner_puts_them(tmp_path):
    found = search(tuner(tmp_path), epochs=1)
    assert pathlib.Path(_keras_tuner.search_folder(found.oracle)) == tmp_path / "search"
    state = json.loads(pathlib.Path(_keras_tuner.oracle_file(found.oracle)).read_text())
    assert len(state["start_order"]) == 2
    assert isinstance(json.loads(pathlib.Path(_keras_tuner.tuner_file(found)).read_text()), dict)
    for trial_id in state["start_order"]:
        folder = pathlib.Path(_keras_tuner.trial_folder(found.oracle, trial_id))
        assert folder == tmp_path / "search" / f"trial_{trial_id}"
        assert json.loads((folder / "trial.json").read_text())["trial_id"] == trial_id


@pytest.mark.parametrize("name", [None, "chief", "worker-0"])
def test_a_worker_is_known_by_its_environment(tmp_path, monkeypatch, name):
    made = tuner(tmp_path)
    if name is not None:
        monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
        monkeypatch.setenv("KERASTUNER_ORACLE_PORT", "1")
        monkeypatch.setenv("KERASTUNER_TUNER_ID", name)
    assert _keras_tuner.is_worker(made) == (name == "worker-0")


def test_a_trial_that_waits_comes_next(tmp_path):
    oracle = tuner(tmp_path).oracle
    first = oracle.create_trial("a")
    oracle.ongoing_trials.pop("a")
    assert _keras_tuner.waiting(oracle) == []
    _keras_tuner.set_waiting(oracle, [first.trial_id])
    assert oracle.create_trial("b").trial_id == first.trial_id
    assert _keras_tuner.waiting(oracle) == []


def test_a_grid_search_goes_on_from_its_place(tmp_path):
    def next_value(oracle):
        trial = oracle.create_trial("a")
        trial.status = "COMPLETED"
        oracle.update_trial(trial.trial_id, {"val_accuracy": 0.5})
        oracle.end_trial(trial)
        return trial.hyperparameters.get("width")

    first, second = (tuner(tmp_path / name, kt.GridSearch).oracle for name in "ab")
    assert _keras_tuner.is_grid(first)
    assert not _keras_tuner.is_grid(tuner(tmp_path / "c").oracle)
    assert [next_value(first), next_value(second)] == [1, 1]
    place = _keras_tuner.place_in_grid(first)
    assert place["order"] == list(first.trials)
    second.trials = dict(first.trials)
    _keras_tuner.set_place_in_grid(second, json.loads(json.dumps(place)))
    assert _keras_tuner.place_in_grid(second) == place
    assert next_value(second) == next_value(first) == 2


def test_the_methods_that_are_replaced_are_called(tmp_path, monkeypatch):
    called = []
    for kind, name in ((kt.Oracle, "_save_trial"), (kt.Tuner, "_populate_initial_space")):
        was = getattr(kind, name)

        def call(self, *args, was=was, name=name):
            called.append(name)
            return was(self, *args)

        monkeypatch.setattr(kind, name, call)
    search(tuner(tmp_path), epochs=1)
    assert set(called) == {"_save_trial", "_populate_initial_space"}
