"""The arguments of `SpinNeuron`: what is refused, and what is read in several forms."""

import keras
import pytest

import spinkeras
from spinkeras import Driver, SpinNeuron


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"train": ("pulse_with",)}, "Unknown knob 'pulse_with'"),
        ({"train": 7}, "train = 7 must be a list of knobs"),
        ({"shared_axes": {"a": 1}}, "shared_axes = .* must be a list of integers"),
        ({"switching_model": {"attempt_time": 1e-9}}, "describes no NeelBrown or EmpiricalCurve"),
        ({"driver": 3}, "driver must be a Driver or None; got 3"),
        ({"driver": 20e-12}, "driver must be a Driver or None; got 2e-11"),
        ({"driver": Driver}, "driver must be a Driver or None; got <class"),
        ({"driver": {"pulse_step": 1e-9}}, "driver = .* describes no Driver"),
        ({"output": "bits"}, "output = 'bits' must be one of"),
        ({"pulses": 0}, "pulses = 0 must be a whole number from 1"),
        ({"pulses": 2.5}, "pulses = 2.5 must be"),
        ({"spread": {"stability": 0.1}}, "describes no ChipSpread"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        SpinNeuron(**kwargs)


@pytest.mark.parametrize(
    ("train", "knobs"),
    [
        (True, ("pulse_width", "anisotropy")),
        (False, ()),
        ("anisotropy", ("anisotropy",)),
        (["anisotropy", "anisotropy"], ("anisotropy",)),
    ],
)
def test_knobs_may_be_one_a_list_or_all(train, knobs):
    assert SpinNeuron(train=train).trained_knobs == knobs


def test_an_object_may_be_its_description():
    driver = spinkeras.Driver(gate_levels=16)
    described = keras.saving.serialize_keras_object(driver)
    assert SpinNeuron(driver=described).driver == driver
    law = spinkeras.NeelBrown(attempt_time=2e-9)
    slow = spinkeras.MTJDevice.preset("stt_reference").replace(
        pulse_width_range=(1e-7, 1e-6), nominal_pulse_width=2e-7
    )
    described = keras.saving.serialize_keras_object(law)
    assert SpinNeuron(slow, switching_model=described).switching_model == law


@pytest.mark.parametrize("name", ["pulse_width", "gate_voltage"])
def test_a_setting_is_no_argument(name):
    with pytest.raises(ValueError, match=rf"no argument {name}: .*replace\({name}_range="):
        SpinNeuron(**{name: 1e-9})
