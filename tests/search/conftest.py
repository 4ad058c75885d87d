"""Searches in this process, whatever the environment says."""

import gc

import pytest


@pytest.fixture(autouse=True)
def _one_process(monkeypatch):
    for name in ("TUNER_ID", "ORACLE_IP", "ORACLE_PORT"):
        monkeypatch.delenv(f"KERASTUNER_{name}", raising=False)
    # keras-tuner does so twice per trial, which takes longer than these trials do.
    monkeypatch.setattr(gc, "collect", lambda *args: 0)
