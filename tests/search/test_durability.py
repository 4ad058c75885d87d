"""Searches that lose nothing: the oracle in one process; killed ones: test_killed_searches.py."""

import json
import pathlib
import shutil

import keras
import keras_tuner as kt
import pytest

from spinkeras.search.durability import durable


class Clock:
    now = 0.0

    def __call__(self):
        return self.now


@pytest.fixture
def chief(monkeypatch, tmp_path):
    """Makes the chief's tuner, whose oracle answers as it would over the network."""
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "chief")
    monkeypatch.setenv("KERASTUNER_ORACLE_IP", "127.0.0.1")
    monkeypatch.setenv("KERASTUNER_ORACLE_PORT", "1")

    def make(kind=kt.RandomSearch, lease=10.0, **limit):
        def build(hp):
            hp.Float("x", 0.0, 1.0)
            hp.Boolean("y")
            model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
            model.compile("adam", "mse")
            return model

        tuner = durable(kind, lease=lease)(
            build,
            objective=kt.Objective("score", "max"),
            directory=tmp_path,
            project_name="search",
            **(limit or {"max_trials": 3}),
        )
        tuner.oracle.clock = Clock()
        tuner.oracle.verbose = 0
        tuner.save()
        return tuner

    return make


def beat(tuner, worker, count):
    path = f"{tuner.project_dir}/alive_{worker}.json"
    with open(path, "w") as file:
        json.dump(count, file)


def finish(oracle, trial, score=0.5):
    oracle.update_trial(trial.trial_id, {"score": score})
    trial.status = "COMPLETED"
    oracle.end_trial(trial)


class TestDurableOracle:
    def test_silent_worker_loses_its_trial_to_another(self, chief):
        tuner = chief()
        oracle = tuner.oracle
        lost = oracle.create_trial("tuner0")
        oracle.update_trial(lost.trial_id, {"score": 0.9})  # killed between report and end
        kept = oracle.create_trial("tuner1")
        for count in range(4):
            beat(tuner, "tuner1", count)
            oracle.clock.now += 5.0
            oracle.reap()
        assert "tuner0" not in oracle.ongoing_trials
        assert oracle.ongoing_trials["tuner1"] is kept
        finish(oracle, kept)
        again = oracle.create_trial("tuner1")
        assert again.trial_id == lost.trial_id
        assert again.hyperparameters.values == lost.hyperparameters.values
        assert not again.metrics.exists("score")  # the killed run's result does not count
        finish(oracle, again, 0.1)
        assert oracle.get_trial(lost.trial_id).score == 0.1

    def test_worker_that_beats_keeps_its_trial_for_ever(self, chief):
        tuner = chief()
        trial = tuner.oracle.create_trial("tuner0")
        for count in range(100):
            beat(tuner, "tuner0", count)
            tuner.oracle.clock.now += 9.0
            tuner.oracle.reap()
        assert tuner.oracle.ongoing_trials["tuner0"] is trial

    def test_restarted_worker_gets_its_trial_back(self, chief):
        oracle = chief().oracle
        trial = oracle.create_trial("tuner0")
        oracle.update_trial(trial.trial_id, {"score": 0.9})
        again = oracle.create_trial("tuner0")
        assert again.trial_id == trial.trial_id
        assert not again.metrics.exists("score")

    def test_nobody_leaves_while_a_trial_may_come_back(self, chief):
        oracle = chief(max_trials=1).oracle
        trial = oracle.create_trial("tuner0")
        assert oracle.create_trial("tuner1").status == "IDLE"
        assert "tuner1" in oracle.tuner_ids
        finish(oracle, trial)
        assert oracle.create_trial("tuner1").status == "STOPPED"
        assert oracle.create_trial("tuner0").status == "STOPPED"
        assert oracle.tuner_ids == set()

    def test_second_end_of_a_trial_is_ignored(self, chief):
        tuner = chief()
        oracle = tuner.oracle
        trial = oracle.create_trial("tuner0")
        oracle.reap()
        oracle.clock.now += 11.0
        oracle.reap()  # suspended, not dead
        again = oracle.create_trial("tuner1")
        assert again.trial_id == trial.trial_id
        finish(oracle, again, 0.3)
        again.status = "COMPLETED"
        oracle.end_trial(trial)
        assert oracle.end_order == [trial.trial_id]
        assert oracle.get_trial(trial.trial_id).score == 0.3

    def test_restarted_chief_keeps_living_workers(self, chief):
        first = chief()
        done = first.oracle.create_trial("tuner0")
        finish(first.oracle, done)
        alive = first.oracle.create_trial("tuner0")
        dead = first.oracle.create_trial("tuner1")

        second = chief()
        oracle = second.oracle
        assert {k: t.trial_id for k, t in oracle.ongoing_trials.items()} == {
            "tuner0": alive.trial_id,
            "tuner1": dead.trial_id,
        }
        for count in range(4):
            beat(second, "tuner0", count)
            oracle.reap()
            oracle.clock.now += 5.0
        finish(oracle, oracle.get_trial(alive.trial_id))
        assert oracle.create_trial("tuner0").trial_id == dead.trial_id
        assert oracle.get_trial(done.trial_id).score == 0.5

    def test_finished_trial_is_not_queued_again(self, chief):
        # What keras-tuner does: a trial that ended stays "ongoing" in the file until the next.
        first = chief()
        trial = first.oracle.create_trial("tuner0")
        finish(first.oracle, trial)
        state = json.loads((path := tuner_file(first)).read_text())
        state["ongoing_trials"] = {"tuner0": trial.trial_id}
        path.write_text(json.dumps(state))
        oracle = chief().oracle
        assert oracle.ongoing_trials == {}
        assert oracle._retry_queue == []  # keras-tuner shows it nowhere else
        assert oracle.create_trial("tuner0").trial_id != trial.trial_id

    def test_trial_written_but_unknown_to_the_search(self, chief):
        first = chief()
        finish(first.oracle, first.oracle.create_trial("tuner0"))
        before = tuner_file(first).read_text()
        orphan = first.oracle.create_trial("tuner0")
        tuner_file(first).write_text(before)  # killed between the two files
        oracle = chief().oracle
        trial = oracle.create_trial("tuner0")
        assert trial.trial_id == orphan.trial_id
        assert len(oracle.trials) == 2

    def test_hyperband_goes_on_after_a_loss(self, chief):
        tuner = chief(kt.Hyperband, max_epochs=2, factor=2)
        oracle = tuner.oracle
        lost = oracle.create_trial("dead")
        runs = []
        for count in range(200):
            beat(tuner, "tuner0", count)
            oracle.clock.now += 2.0
            trial = oracle.create_trial("tuner0")
            if trial.status == "STOPPED":
                break
            if trial.status == "RUNNING":
                runs.append(trial.trial_id)
                finish(oracle, trial, score=float(len(runs)))
        assert trial.status == "STOPPED"
        assert lost.trial_id in runs
        assert len(runs) == len(set(runs)) == len(oracle.trials)

    def test_grid_search_goes_on_where_it_was(self, chief):
        def run(restart):
            oracle, points = chief(kt.GridSearch, max_trials=7).oracle, []
            while True:
                trial = oracle.create_trial("tuner0")
                if trial.status == "STOPPED":
                    return points
                if restart:  # in mid-trial; the chief then takes the worker for alive
                    oracle = chief(kt.GridSearch, max_trials=7).oracle
                points.append(trial.hyperparameters.values)
                finish(oracle, oracle.get_trial(trial.trial_id))
                if restart:
                    oracle = chief(kt.GridSearch, max_trials=7).oracle

        killed = run(restart=True)
        shutil.rmtree(chief(kt.GridSearch).project_dir)
        assert killed == run(restart=False)
        assert len({str(point) for point in killed}) == 7

    @pytest.mark.parametrize("bad", [kt.Oracle, 3])
    def test_refuses_what_is_no_tuner(self, bad):
        with pytest.raises(ValueError, match="subclass"):
            durable(bad)

    def test_refuses_a_lease(self):
        with pytest.raises(ValueError, match="lease"):
            durable(kt.RandomSearch, lease=0)


def tuner_file(tuner):
    return pathlib.Path(tuner.project_dir) / "oracle.json"
