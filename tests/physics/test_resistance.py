"""Voltage and current of a junction by its state. Runs on every backend."""

import numpy as np
import pytest
from keras import ops
from scipy import optimize

import spinkeras
from spinkeras.physics import current_of_voltage, voltage_of_current
from tests.harness import gradients

pytestmark = pytest.mark.backends
VOLTS = np.concatenate([-np.geomspace(1e-3, 3, 9)[::-1], [0.0], np.geomspace(1e-3, 3, 9)])


@pytest.mark.parametrize("tmr", [0.0, 0.4, 1.3, 8.0])
@pytest.mark.parametrize("half", [0.1, 0.5, 20.0])
@pytest.mark.parametrize("state", ["parallel", "antiparallel"])
def test_each_is_the_inverse_of_the_other(device, tmr, half, state):
    device = device.replace(tmr=tmr, tmr_half_voltage=half)
    current = current_of_voltage(VOLTS, device, state)
    rise = tmr / (1 + (VOLTS / half) ** 2) if state == "antiparallel" else 0.0
    np.testing.assert_allclose(current * device.resistance_parallel * (1 + rise), VOLTS)
    np.testing.assert_allclose(voltage_of_current(current, device, state), VOLTS, rtol=1e-9)
    assert np.all(np.diff(current) > 0)
    found = optimize.brentq(lambda v: current_of_voltage(v, device, state) - current[-2], 0, 9)
    assert voltage_of_current(current[-2], device, state) == pytest.approx(found, rel=1e-9)
    tensor = ops.convert_to_tensor(VOLTS, "float32")
    there = current_of_voltage(tensor, device, state)
    np.testing.assert_allclose(ops.convert_to_numpy(there), current, rtol=1e-5)
    back = ops.convert_to_numpy(voltage_of_current(there, device, state))
    np.testing.assert_allclose(back, VOLTS, rtol=1e-5)


@pytest.mark.parametrize("dtype", [None, "float32"])
@pytest.mark.parametrize(("tmr", "half"), [(1.0, 0.5), (10.0, 0.01), (0.0, 100.0)])
def test_no_current_is_too_large(device, dtype, tmr, half):
    """Far above the bias that halves the TMR the junction is ohmic; an infinite current too."""
    device = device.replace(tmr=tmr, tmr_half_voltage=half)
    current = np.array([1e3, -1e6, 1e9, 1e12, -1e20, 1e30, np.inf, -np.inf, np.nan])
    given = current if dtype is None else ops.convert_to_tensor(current, dtype)
    found = ops.convert_to_numpy(voltage_of_current(given, device, "antiparallel"))
    np.testing.assert_allclose(found, current * device.resistance_parallel, rtol=1e-6)


def test_gradients_are_those_of_the_inverse(device):
    volts = ops.convert_to_tensor([-0.7, 0.2, 0.9], "float32")
    forward = gradients(
        lambda v: ops.sum(current_of_voltage(v, device, "antiparallel")) * 1e6, volts
    )[0]
    amperes = current_of_voltage(volts, device, "antiparallel")
    back = gradients(
        lambda i: ops.sum(voltage_of_current(i, device, "antiparallel")) * 1e-6, amperes
    )[0]
    np.testing.assert_allclose(forward * back, 1.0, rtol=1e-4)


def test_the_state_is_that_of_the_device_unless_said():
    device = spinkeras.MTJDevice.preset("stt_reference")
    for each, state in ((device, "parallel"), (device.reversed(), "antiparallel")):
        for function in (current_of_voltage, voltage_of_current):
            assert function(1e-4, each) == function(1e-4, device, state)
    channel = device.replace(write_resistance=776.0)
    for state in (None, "parallel", "antiparallel"):
        assert current_of_voltage(0.776, channel, state) == pytest.approx(1e-3)
        assert voltage_of_current(1e-3, channel, state) == pytest.approx(0.776)
    for state in ("AP", 1, True):
        with pytest.raises(ValueError, match=r"state = .* must be one of \('parallel', "):
            current_of_voltage(0.1, device, state)
