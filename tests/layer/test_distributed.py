"""Several processes on the loopback interface: one search, and data-parallel training."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time

import numpy as np
import pytest

from tests.processes import ROOT, environment

DEADLINE = 280  # s, for anything that has to happen at all

SEARCH = """
import os, sys, time
import keras, keras_tuner as kt, numpy as np
from spinkeras.durable import durable
from spinkeras.tuning import SpinHyperModel

folder, kind, victim = sys.argv[1:4]
me = os.environ["KERASTUNER_TUNER_ID"]


def network(hp, spin):
    model = keras.Sequential([
        keras.Input((4,)), keras.layers.Dense(3), spin(), keras.layers.Dense(2, "softmax")
    ])
    model.compile(
        "sgd", "sparse_categorical_crossentropy", metrics=["accuracy"], run_eagerly=True
    )
    return model


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


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return str(probe.getsockname()[1])


class Processes:
    """Children with their output in files; whatever is left is killed at the end."""

    def __init__(self, folder):
        self.folder = folder
        self.running = {}

    def start(self, name, code, *arguments, **extra):
        with open(self.folder / f"{name}.log", "ab") as output:
            self.running[name] = subprocess.Popen(
                [sys.executable, "-c", code, *map(str, arguments)],
                env=environment(**extra),
                stdout=output,
                stderr=subprocess.STDOUT,
            )

    def wait(self, name):
        code = self.running[name].wait(timeout=DEADLINE)
        assert code == 0, f"{name}:\n" + (self.folder / f"{name}.log").read_text()[-3000:]

    def until(self, what):
        """Poll for a condition; a child that fails, or the deadline, ends the wait."""
        end = time.monotonic() + DEADLINE
        while not what():
            for name, process in self.running.items():
                assert process.poll() in (None, 0), (self.folder / f"{name}.log").read_text()[
                    -3000:
                ]
            assert time.monotonic() < end, "deadline passed"
            time.sleep(0.05)


@pytest.fixture
def processes(tmp_path):
    children = Processes(tmp_path)
    yield children
    for process in children.running.values():
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()


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


# --- data-parallel training ----------------------------------------------------------------------

# Both runs see the same batches; the layer's energy figures are means over the global batch.
MODEL = """
import sys
import keras, numpy as np, spinkeras
import tensorflow as tf

x = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")
y = (x[:, :1] > 0).astype("float32")


def run(folder, name):
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(16)  # the global batch
    keras.utils.set_random_seed(5)
    model = keras.Sequential([
        keras.Input((6,)),
        keras.layers.Dense(5, kernel_initializer=keras.initializers.GlorotUniform(seed=1)),
        spinkeras.SpinNeuron(name="spin"),
        keras.layers.Dense(1, kernel_initializer=keras.initializers.GlorotUniform(seed=2)),
    ])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    history = model.fit(
        data, validation_data=data, epochs=3, verbose=0,
        callbacks=[spinkeras.EnergyTracker()],
    ).history
    spin = model.get_layer("spin")
    np.savez(
        f"{folder}/{name}.npz",
        *[keras.ops.convert_to_numpy(w) for w in model.weights if "meter" not in w.path],
        pulse_width=spin.pulse_width, anisotropy=spin.anisotropy,
        **{f"history_{key}": value for key, value in history.items()},
    )
"""
MIRRORED = (
    MODEL
    + """
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
run(sys.argv[1], "one")
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert strategy.num_replicas_in_sync == 2
with strategy.scope():
    run(sys.argv[1], "two")
"""
)
JAX = (
    """
import sys
import jax

folder, address, number, rank = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
if number > 1:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
import keras

if number > 1:
    keras.distribution.initialize(address, number, rank)
    assert jax.process_count() == number
    keras.distribution.set_distribution(
        keras.distribution.DataParallel(devices=keras.distribution.list_devices())
    )
"""
    + MODEL
    + """
run(folder, f"{number}_{rank}")
"""
)


def compare(one, two):
    """Weights, knobs and every figure of the history, energies included, to 1e-5."""
    with np.load(one) as a, np.load(two) as b:
        assert set(a.files) == set(b.files)
        assert {"history_energy_pj", "history_val_energy_pj_spin", "pulse_width"} <= set(a.files)
        assert np.all(a["history_energy_pj"] > 0)
        assert np.ptp(a["pulse_width"]) > 0  # trained
        for name in a.files:
            np.testing.assert_allclose(b[name], a[name], rtol=1e-5, atol=1e-7, err_msg=name)


@pytest.mark.slow
def test_mirrored_strategy_on_two_devices(processes, tmp_path):
    processes.start("mirrored", MIRRORED, tmp_path)
    processes.wait("mirrored")
    compare(tmp_path / "one.npz", tmp_path / "two.npz")


@pytest.mark.slow
def test_jax_data_parallel_in_two_processes(processes, tmp_path):
    pytest.importorskip("jax")
    address = f"127.0.0.1:{free_port()}"
    processes.start("one", JAX, tmp_path, address, 1, 0, KERAS_BACKEND="jax")
    for rank in (0, 1):
        processes.start(f"two{rank}", JAX, tmp_path, address, 2, rank, KERAS_BACKEND="jax")
    for name in ("one", "two0", "two1"):
        processes.wait(name)
    compare(tmp_path / "1_0.npz", tmp_path / "2_0.npz")
    compare(tmp_path / "2_0.npz", tmp_path / "2_1.npz")
