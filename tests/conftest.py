import contextlib
import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
# The tests run in as many processes as there are cores; threads would only wait for each other.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "1")

import keras
import pytest

from tests.processes import Processes

keras.config.disable_traceback_filtering()

if keras.backend.backend() == "tensorflow":
    import tensorflow as tf

    # Two logical devices on one CPU, for the tests of MirroredStrategy.
    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0], [tf.config.LogicalDeviceConfiguration()] * 2
    )


@pytest.fixture(autouse=True)
def _fresh_state():
    keras.utils.clear_session(free_memory=False)  # collecting garbage takes longer than most tests
    keras.utils.set_random_seed(7)
    yield
    keras.config.set_dtype_policy("float32")


@pytest.fixture
def device():
    from spinkeras import MTJDevice

    return MTJDevice.preset("stt_reference")


@pytest.fixture
def processes(tmp_path):
    """Starts processes that do not outlive the test."""
    children = Processes(tmp_path)
    yield children
    for process in children.running.values():
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
