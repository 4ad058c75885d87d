"""DeviceRange: the box, composition and serialisation."""

import keras
import numpy as np
import pytest
from keras import ops

from spinkeras import DeviceRange

pytestmark = pytest.mark.backends


@pytest.mark.parametrize("knob", ["pulse_width", "anisotropy"])
@pytest.mark.parametrize("scale", [1.0, 3.0, 10.0])
def test_box_is_that_of_the_device(device, knob, scale):
    box = DeviceRange(device, knob, scale)
    nominal = device.nominal_pulse_width if knob == "pulse_width" else device.anisotropy
    limits = device.pulse_width_range if knob == "pulse_width" else device.anisotropy_range
    projected = ops.convert_to_numpy(box(np.array([-1e3, 0.0, 1e3], "float32")))
    np.testing.assert_allclose(
        nominal * np.exp(scale * projected.astype("float64")),
        [limits[0], max(nominal, limits[0]), limits[1]],
        rtol=1e-6,
    )
    inside = np.linspace(*box.bounds, 7)
    np.testing.assert_allclose(box.to_weight(box.to_value(inside)), inside, atol=1e-12)
    again = ops.convert_to_numpy(box(projected))
    np.testing.assert_array_equal(again, projected)


def test_nan_is_not_hidden(device):
    assert np.isnan(ops.convert_to_numpy(DeviceRange(device, "pulse_width")(np.array([np.nan]))))


def test_another_constraint_comes_first(device):
    box = DeviceRange(device, "pulse_width", first="non_neg")
    np.testing.assert_allclose(
        ops.convert_to_numpy(box(np.array([-0.5, 0.5], "float32"))), [0, 0.5]
    )
    again = keras.constraints.deserialize(keras.constraints.serialize(box))
    assert isinstance(again.first, keras.constraints.NonNeg)


def test_round_trip(device):
    box = DeviceRange(device.replace(damping=0.02), "anisotropy", 2.5)
    again = keras.constraints.get(keras.constraints.serialize(box))
    assert again.device == box.device
    assert (again.knob, again.scale, again.bounds) == (box.knob, box.scale, box.bounds)


def test_bad_input(device):
    with pytest.raises(ValueError, match="Unknown knob 'temperature'"):
        DeviceRange(device, "temperature")
    with pytest.raises(ValueError, match="scale = 0"):
        DeviceRange(device, "pulse_width", 0)
