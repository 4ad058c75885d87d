"""The network that tests of several modules read, exported once in each process."""

import pytest

import spinkeras


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """An exported network: (model, base folder)."""
    from tests.export.harness import mlp  # which needs TensorFlow, as test_slow_clients.py does not

    model = mlp()
    base = tmp_path_factory.mktemp("served") / "digits"
    spinkeras.export_for_serving(model, base, sample=True)
    return model, base
