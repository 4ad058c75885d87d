import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import pytest

keras.config.disable_traceback_filtering()


@pytest.fixture(autouse=True)
def _fresh_state():
    keras.utils.clear_session()
    keras.utils.set_random_seed(7)
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture
def device():
    from spinkeras import MTJDevice

    return MTJDevice.preset("stt_reference")
