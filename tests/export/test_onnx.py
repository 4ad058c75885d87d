"""ONNX files alone; what they share with LiteRT files is in test_portable.py."""

import sys

import pytest

import spinkeras
from tests.export.harness import neuron, visible


@pytest.mark.parametrize("package", ["tf2onnx", "onnxruntime"])
def test_a_missing_package_is_named(tmp_path, monkeypatch, package):
    for name in ("tf2onnx", "onnxruntime"):
        if name != package:
            pytest.importorskip(name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=f"(?s){package}.*pip install"):
        spinkeras.export_onnx(neuron(), tmp_path / "m.onnx")
    assert visible(tmp_path) == []
