"""The history of a fit as arrays, and the metric that a picture shows."""

import types

import numpy as np
import pytest

from spinkeras import histories


@pytest.mark.parametrize("wrap", [dict, lambda found: types.SimpleNamespace(history=found)])
def test_values_are_arrays_without_those_of_several_values_per_epoch(wrap):
    found = histories.logs(
        wrap({"loss": [1, np.float32(0.5)], "f1_of_classes": [np.ones(3), np.ones(3)]})
    )
    assert list(found) == ["loss"]
    np.testing.assert_array_equal(found["loss"], [1.0, 0.5])
    assert found["loss"].dtype == np.float64


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (None, r"history = None must be the result of model\.fit"),
        ({}, "at least one epoch"),
        ({1: [0.5]}, "must be the result of"),
        ({"loss": []}, r"history\['loss'\] = \[\] must be a list of numbers, one per epoch"),
        ({"loss": ["low"]}, r"\['low'\] must be a list of numbers"),
        ({"loss": 3}, "= 3 must be a list of numbers"),
        ({"f1": [[0.5, 0.7]]}, r"history\['f1'\] = .* must be a list of numbers"),
    ],
)
def test_what_is_no_history_is_refused(found, words):
    with pytest.raises(ValueError, match=words):
        histories.logs(found)


@pytest.mark.parametrize(
    ("keys", "metric"),
    [
        (["loss", "mse", "accuracy", "val_accuracy"], "accuracy"),
        (["energy_pj", "loss", "sparse_categorical_accuracy"], "sparse_categorical_accuracy"),
        (["mse", "loss", "val_loss"], "loss"),
        (["mse", "val_accuracy"], "mse"),  # a metric of training, where there is one
        (["val_accuracy", "val_loss"], "accuracy"),
    ],
)
def test_the_metric_is_the_accuracy_or_else_the_loss(keys, metric):
    assert histories.metric({key: [0.5] for key in keys}) == metric
