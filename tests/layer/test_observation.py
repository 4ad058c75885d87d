"""Who watches a layer's call: threads do not see each other. Runs on every backend."""

import threading

import keras
import numpy as np
import pytest
from keras import ops

import spinkeras
from spinkeras import SpinNeuron
from tests.harness import OTHER_BACKEND

pytestmark = pytest.mark.backends
x = np.random.default_rng(0).normal(size=(12, 6)).astype("float32")


@pytest.mark.slow
def test_observers_in_other_threads_see_and_change_nothing():
    """Reports and chips of two threads and plain answers in a third, of one model."""
    model = keras.Sequential([keras.Input((6,)), SpinNeuron(), keras.layers.Dense(2), SpinNeuron()])
    big = np.random.default_rng(1).normal(size=(40, 6)).astype("float32")
    labels = np.zeros(40, int)
    spread = spinkeras.ChipSpread(stability=0.2, current=0.2)
    plain = ops.convert_to_numpy(model(big))

    def report():
        return spinkeras.energy_report(model, big, batch_size=4, print_fn=None).total_pj

    def chips():
        options = {"chips": 4, "chips_at_once": 2, "batch_size": 10, "progress": False}
        return spinkeras.evaluate_chips(model, big, labels, spread, **options).energy_pj.tolist()

    def answer():
        return float(np.abs(ops.convert_to_numpy(model(big)) - plain).max())

    jobs = [report, report, chips, answer]
    expected = [job() for job in jobs]
    found, start = [[] for _ in jobs], threading.Barrier(len(jobs))

    def run(job, results):
        start.wait()
        results.extend(job() for _ in range(10 if job is answer else 2))

    threads = [threading.Thread(target=run, args=pair) for pair in zip(jobs, found)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for results, value in zip(found, expected):
        assert results
        for result in results:
            assert result == value


@pytest.mark.skipif(OTHER_BACKEND, reason="exports are TensorFlow's")
def test_an_export_changes_nothing_in_another_thread(tmp_path):
    model = keras.Sequential([keras.Input((6,)), SpinNeuron(output="always_sampled", seed=1)])
    stop, wrong = threading.Event(), []

    def watch():
        while not stop.is_set():
            drawn = np.array(model(x))
            wrong.append(not np.isin(drawn, (0.0, 1.0)).all())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        spinkeras.export_for_serving(model, tmp_path / "served")
    finally:
        stop.set()
        thread.join()
    assert wrong
    assert not any(wrong)
