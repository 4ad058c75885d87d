"""The results file: a later evaluation continues with it, and another one is refused."""

import functools
import json

import keras
import numpy as np
import pytest

import spinkeras
from spinkeras import SpinNeuron
from spinkeras.hardware import chips
from spinkeras.physics.spread import ChipSpread
from tests.hardware.harness import mean_output

SPREAD = ChipSpread(stability=0.1, current=0.05, resistance=0.07, tmr=0.1)


def test_resume_repeats_nothing_and_gives_the_same(tmp_path, monkeypatch):
    keras.utils.set_random_seed(0)
    model = keras.Sequential([keras.Input((3,)), SpinNeuron(), keras.layers.Dense(2)])
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(200, 3)).astype("float32"), rng.integers(0, 2, 200)
    path = tmp_path / "chips.jsonl"
    options = {"pulses": 1, "chips_at_once": 2, "progress": False}
    whole = chips.evaluate_chips(model, x, y, SPREAD, chips=6, **options)
    chips.evaluate_chips(model, x, y, SPREAD, chips=4, results_file=path, **options)
    path.write_text(path.read_text() + '{"label": "cut off in mid')
    calls = []
    draw = chips._draw  # private: which chips are computed again shows nowhere else
    monkeypatch.setattr(chips, "_draw", lambda *a: calls.append(a[-1]) or draw(*a))
    resumed = chips.evaluate_chips(model, x, y, SPREAD, chips=6, results_file=path, **options)
    assert [list(group) for group in calls] == [[4, 5]]
    np.testing.assert_array_equal(resumed.accuracy, whole.accuracy)
    assert all(json.loads(line) for line in path.read_text().splitlines())
    with pytest.raises(ValueError, match="belongs to another model, data or setting"):
        chips.evaluate_chips(model, x, y, ChipSpread(), chips=6, results_file=path, **options)
    path.write_text("nonsense\n" + path.read_text())
    with pytest.raises(ValueError, match="line 1: not a result"):
        chips.evaluate_chips(model, x, y, SPREAD, chips=6, results_file=path, **options)


@pytest.mark.slow
def test_a_saved_model_goes_on_with_its_file_and_another_device_does_not(tmp_path):
    x, y = np.random.default_rng(0).normal(size=(2, 24, 3))
    model = keras.Sequential([keras.Input((3,)), SpinNeuron(), keras.layers.Dense(1)])
    model.compile("adam", "mse")
    model.fit(x, y[:, :1], verbose=0, callbacks=[spinkeras.EnergyTracker()])
    model.save(tmp_path / "m.keras")
    options = {"results_file": tmp_path / "chips.jsonl", "progress": False}
    chips.evaluate_chips(model, x, y[:, :1] > 0, SPREAD, chips=2, **options)
    again = keras.saving.load_model(tmp_path / "m.keras")
    chips.evaluate_chips(again, x, y[:, :1] > 0, SPREAD, chips=2, **options)
    other = keras.Sequential(
        [keras.Input((3,)), SpinNeuron(current_scale=1e-6), keras.layers.Dense(1)]
    )
    other.set_weights(model.get_weights())
    with pytest.raises(ValueError, match="belongs to another model"):
        chips.evaluate_chips(other, x, y[:, :1] > 0, SPREAD, chips=2, **options)


def metric_of(text):
    names = {}
    exec(f"def metric(y_true, y_pred):\n    return {text}", names)
    return names["metric"]


def test_a_file_is_not_mistaken_for_that_of_another_metric_or_network(tmp_path):
    x, y = np.random.default_rng(0).normal(size=(2, 24, 3))
    options = {"results_file": tmp_path / "chips.jsonl", "progress": False}

    def evaluate(metric="float(np.mean(y_pred > 0.5))", activation="sigmoid"):
        model = keras.Sequential(
            [keras.Input((3,)), SpinNeuron(), keras.layers.Dense(1, activation=activation)]
        )
        model.layers[-1].set_weights([np.ones((3, 1)), -np.ones(1)])
        metric = metric_of(metric) if isinstance(metric, str) else metric
        metric.__globals__["np"] = np
        return chips.evaluate_chips(model, x, y, SPREAD, chips=1, metric=metric, **options)

    evaluate()
    evaluate()  # the same metric, defined anew
    for change in (
        {"metric": "float(np.mean(y_pred > 0.6))"},
        {"metric": "float(np.max(y_pred > 0.5))"},
        {"activation": "tanh"},
    ):
        with pytest.raises(ValueError, match="belongs to another model, data or setting"):
            evaluate(**change)
    model = keras.Sequential([keras.Input((3,)), SpinNeuron()])
    for metric in (lambda a, b: 0.0, functools.partial(mean_output, 0), np.array([1]).dot):
        with pytest.raises(ValueError, match=r"has no name by which .* top level"):
            chips.evaluate_chips(model, x, y, SPREAD, chips=1, metric=metric, **options)
