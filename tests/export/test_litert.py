"""LiteRT files alone; what they share with ONNX files is in test_portable.py."""

import numpy as np
import pytest
import tensorflow as tf

import spinkeras
from spinkeras.export import litert
from tests.export.harness import model_with, neuron, visible


def losing(layer, x):
    return tf.math.expm1(x * 1e-9) * 1e9  # LiteRT: exp(x) - 1, which is 0 here


def test_a_file_that_computes_something_else_is_refused(tmp_path):
    with pytest.raises(ValueError, match="differs from the model's"):
        spinkeras.export_litert(model_with(losing), tmp_path / "m.tflite")
    assert visible(tmp_path) == []


def test_a_neuron_whose_tail_is_lost_is_refused(tmp_path, monkeypatch):
    """Outputs agree to 1e-4, but a probability of 1e-9 comes back as zero.

    No converter is known to do so; hence the private function that runs the file is changed.
    """
    run = litert._run_litert

    def flush(content, network):
        return [np.where(value < 1e-8, 0, value) for value in run(content, network)]

    monkeypatch.setattr(litert, "_run_litert", flush)
    with pytest.raises(ValueError, match="gives 0 for a probability of"):
        spinkeras.export_litert(neuron(), tmp_path / "m.tflite")
    assert visible(tmp_path) == []
