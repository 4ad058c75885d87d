"""The versions in a bug report."""

import platform
import sys
from importlib import metadata

import keras

import spinkeras


def report():
    lines = []
    spinkeras.show_versions(lines.append)
    (text,) = lines  # one text
    return text.splitlines()


def test_versions_are_those_of_what_runs(capsys):
    first, second, third, *packages = report()
    assert first == f"spinkeras {spinkeras.__version__}"
    assert second == f"Keras {keras.__version__}, backend {keras.backend.backend()}"
    assert third.startswith(f"Python {platform.python_version()}, ")
    assert f"numpy {metadata.version('numpy')}" in packages
    assert not capsys.readouterr().out
    spinkeras.show_versions()
    assert capsys.readouterr().out.splitlines() == report()


def test_a_package_that_is_not_installed_is_named_and_none_is_imported(monkeypatch):
    def version(name):
        if name == "jax":
            raise metadata.PackageNotFoundError(name)
        return "9.9"

    monkeypatch.setattr(metadata, "version", version)
    before = set(sys.modules)
    lines = report()
    assert "jax not installed" in lines
    assert "torch 9.9" in lines
    assert not {name.split(".")[0] for name in set(sys.modules) - before} & {"jax", "torch"}
