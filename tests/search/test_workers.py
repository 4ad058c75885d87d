"""Searches by several processes on the loopback interface, of which some are killed."""

import contextlib
import json
import os
import signal
import subprocess
import sys

import pytest

from tests.processes import DEADLINE, ROOT, environment, free_port
from tests.search.harness import NETWORK

SEARCH = (
    """
import os, sys, time
import keras, keras_tuner as kt, numpy as np
from spinkeras.search import SpinHyperModel, durable

folder, kind, victim = sys.argv[1:4]
me = os.environ["KERASTUNER_TUNER_ID"]

"""
    + NETWORK
    + """

def log(event, trial):
    with open(os.path.join(folder, "events.txt"), "a") as file:
        file.write(f"{event} {trial.trial_id} {me} {os.getpid()}\\n")


class Stuck(keras.callbacks.Callback):
    '''In the middle of a trial the victim waits to be killed, once.'''

    def on_epoch_end(self, epoch, logs=None):
        mark = os.path.join(folder, "stuck.txt")
        if me == victim and epoch == 0 and not os.path.exists(mark):
            with open(mark, "w") as file:
                file.write(str(os.getpid()))
            time.sleep(3600)


class Tuner(durable(getattr(kt, kind), lease=3.0)):
    def on_trial_begin(self, trial):
        log("begin", trial)
        super().on_trial_begin(trial)

    def on_trial_end(self, trial):
        super().on_trial_end(trial)
        log("end", trial)


hypermodel = SpinHyperModel(network)
limit = dict(max_epochs=2, factor=2) if kind == "Hyperband" else dict(max_trials=5)
tuner = Tuner(
    hypermodel, objective=hypermodel.objective.objective, seed=1, directory=folder,
    project_name="search", **limit,
)
x = np.random.default_rng(0).normal(size=(16, 4)).astype("float32")
y = (x[:, 0] > 0).astype("int32")
fit = {} if kind == "Hyperband" else {"epochs": 2}
tuner.search(x, y, validation_data=(x, y), verbose=0, callbacks=[Stuck()], **fit)
"""
)


@pytest.fixture
def cluster(processes, tmp_path):
    """Starts the chief or a worker of a search: `start("tuner0")`."""
    port = free_port()

    def start(tuner_id, kind="RandomSearch", victim=""):
        processes.start(
            tuner_id,
            SEARCH,
            tmp_path,
            kind,
            victim,
            KERASTUNER_TUNER_ID=tuner_id,
            KERASTUNER_ORACLE_IP="127.0.0.1",
            KERASTUNER_ORACLE_PORT=port,
        )

    return start


def events(folder):
    with contextlib.suppress(FileNotFoundError):
        return [line.split() for line in (folder / "events.txt").read_text().splitlines()]
    return []


def check_search(folder, lost):
    """Every trial completed once; only the lost one was begun twice."""
    trials = [
        json.loads(path.read_text()) for path in sorted(folder.glob("search/trial_*/trial.json"))
    ]
    assert {trial["status"] for trial in trials} == {"COMPLETED"}
    ended = [trial for event, trial, *_ in events(folder) if event == "end"]
    assert sorted(ended) == sorted(trial["trial_id"] for trial in trials)
    begun = [trial for event, trial, *_ in events(folder) if event == "begin"]
    assert {trial for trial in begun if begun.count(trial) > 1} == {lost}
    state = json.loads((folder / "search" / "oracle.json").read_text())
    assert state["ongoing_trials"] == {}
    assert state["retry_queue"] == []
    return trials


def kill_stuck(processes, folder, victim):
    """SIGKILL the victim in the middle of a trial; returns the trial's number."""
    mark = folder / "stuck.txt"
    processes.until(lambda: mark.exists() and mark.read_text())
    (lost,) = {
        trial for event, trial, who, _ in events(folder) if who == victim and event == "begin"
    } - {trial for event, trial, who, _ in events(folder) if who == victim and event == "end"}
    victim_process = processes.running.pop(victim)
    os.kill(victim_process.pid, signal.SIGKILL)
    assert victim_process.wait(timeout=DEADLINE) == -signal.SIGKILL
    return lost


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["RandomSearch", "Hyperband"])
def test_trial_of_a_killed_worker_is_run_by_another(kind, cluster, processes, tmp_path):
    for name in ("chief", "tuner0", "tuner1"):
        cluster(name, kind, victim="tuner1")
    lost = kill_stuck(processes, tmp_path, "tuner1")
    for name in ("tuner0", "chief"):
        processes.wait(name)
    trials = check_search(tmp_path, lost)
    if kind == "RandomSearch":
        assert len(trials) == 5
    who = [w for event, trial, w, _ in events(tmp_path) if (event, trial) == ("end", lost)]
    assert who == ["tuner0"]


@pytest.mark.slow
def test_killed_worker_that_comes_back_gets_its_trial(cluster, processes, tmp_path):
    for name in ("chief", "tuner0"):
        cluster(name, victim="tuner0")
    lost = kill_stuck(processes, tmp_path, "tuner0")
    cluster("tuner0", victim="tuner0")
    for name in ("tuner0", "chief"):
        processes.wait(name)
    assert len(check_search(tmp_path, lost)) == 5


@pytest.mark.slow
def test_launcher_keeps_a_search_going(processes, tmp_path):
    example = ROOT / "examples" / "distributed_search"
    command = [sys.executable, str(example / "search.py"), "--directory", str(tmp_path)]
    command += ["--trials", "4", "--epochs", "2", "--lease", "20"]
    options = ["--workers", "2", "--logs", str(tmp_path / "logs")]
    with open(tmp_path / "launch.log", "wb") as output:
        launcher = subprocess.Popen(
            [sys.executable, str(example / "launch.py"), *options, "--", *command],
            env=environment(PYTHONUNBUFFERED="1"),
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    processes.running["launch"] = launcher

    def lines(word):
        return [line for line in (tmp_path / "launch.log").read_text().splitlines() if word in line]

    processes.until(lambda: list(tmp_path.glob("search/trial_*/trial.json")))
    worker = lines("-1: process")[0]
    os.kill(int(worker.split()[-1]), signal.SIGKILL)
    processes.until(lambda: lines("died with code -9, started again"))
    processes.wait("launch")
    trials = list(tmp_path.glob("search/trial_*/trial.json"))
    assert len(trials) == 4
    assert all(json.loads(path.read_text())["status"] == "COMPLETED" for path in trials)
    assert "energy pJ  accuracy" in (tmp_path / "logs" / "chief.log").read_text()
