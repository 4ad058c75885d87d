"""Warnings point at the line of the user, however deep the library meets their cause."""

import warnings

import keras
import numpy as np
import pytest

import spinkeras
from spinkeras import EnergyBudget, SpinNeuron, calibration
from tests.calibration.harness import small_table


def _volts(**columns):
    amperes = np.array(small_table()["current_a"])
    return small_table(current_a=None, voltage_v=amperes * 7957.7, **columns)


UNLIKE = {name: [*values, *values] for name, values in small_table().items()}
UNLIKE["switched"] = [154, 298, 461, 614, 738, 830, 254, 198, 561, 514, 838, 730]
POOR = small_table(switched=[154, 338, 421, 654, 698, 860])

CAUSES = {
    "a guess while reading": lambda: calibration.read_table({"I": [1e-5], **_rest()}),
    "a guess while fitting": lambda: spinkeras.fit_device(_volts(), "stt_reference"),
    "a guess about a curve": lambda: spinkeras.fit_empirical(_volts(), device="stt_reference"),
    "rows that differ": lambda: calibration.read_table(UNLIKE),
    "a fit of rows that differ": lambda: spinkeras.fit_device(UNLIKE, "stt_reference"),
    "a poor fit": lambda: spinkeras.fit_device(POOR, "stt_reference"),
    "a poor curve": lambda: spinkeras.fit_empirical(POOR, ["threshold", "slope"]),
    "a bound": lambda: spinkeras.fit_empirical(
        small_table(), {"threshold": (1e-6, 72e-6), "slope": (1e2, 1e6)}
    ),
    "loaded knobs": lambda: _built(pulse_width_range=(2e-9, 3e-9)).load_own_variables(_store()),
    "a budget that no epoch keeps": lambda: _fit(
        EnergyBudget(1e-18, monitor="loss", mode="min", rate=0)
    ),
}


def _built(**limits):
    layer = SpinNeuron(spinkeras.MTJDevice.preset("stt_reference").replace(**limits))
    layer.build((None, 2))
    return layer


def _store():
    wide, store = _built(), {}
    wide.pulse_width = 15e-9
    wide.save_own_variables(store)
    return store


def _fit(callback):
    model = keras.Sequential([keras.Input((2,)), SpinNeuron(), keras.layers.Dense(1)])
    model.compile("sgd", "mse", run_eagerly=True)
    model.fit(np.ones((4, 2)), np.ones((4, 1)), verbose=0, callbacks=[callback])


def _rest():
    return {"pulse_width_s": [2e-9], "switched": [3], "trials": [9]}


@pytest.mark.parametrize("cause", CAUSES)
def test_warnings_name_this_file(cause):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        CAUSES[cause]()
    own = [warning for warning in caught if issubclass(warning.category, UserWarning)]
    assert own
    assert {warning.filename for warning in own} == {__file__}
