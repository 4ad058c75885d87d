"""Objects that show themselves, with ordinary texts and with hostile ones."""

import dataclasses

import keras
import numpy as np

import spinkeras

HOSTILE = "<script>alert('&\\n')</script>" * 50
REFERENCE = spinkeras.MTJDevice.preset("stt_reference")


def model(**options):
    return keras.Sequential([keras.Input((3,)), spinkeras.SpinNeuron(**options)])


def energy(**options):
    data = np.ones((2, 3), "float32")
    return spinkeras.energy_report(model(), data, **{"print_fn": None, **options})


def chips(is_fraction=True):
    values = np.array([0.1, 1 / 3])
    return spinkeras.ChipReport(
        values, np.float32([1.5, 2]), 0.3, spinkeras.ChipSpread(current=0.1), None, is_fraction
    )


def fitted():
    table = {
        "current_a": [6e-5, 7e-5, 8e-5],
        "pulse_width_s": [2e-9] * 3,
        "switched": [15, 40, 65],
        "trials": [100] * 3,
    }
    return spinkeras.fit_device(table, REFERENCE, free=("anisotropy",))


def hostile_energy():
    found = energy()
    rows = [{**found.layers[0], "name": HOSTILE}]
    return dataclasses.replace(found, layers=rows, other_layers={HOSTILE: 1}, assumptions=[HOSTILE])


OBJECTS = {
    "device": lambda: REFERENCE,
    "channel": lambda: spinkeras.MTJDevice.preset("vgsot_zhang2020"),
    "hostile device": lambda: REFERENCE.replace(name=HOSTILE, source=HOSTILE, assumed=HOSTILE),
    "eternal device": lambda: REFERENCE.replace(diameter=500e-9),
    "layer": lambda: model().layers[0],
    "hostile layer": lambda: spinkeras.SpinNeuron(REFERENCE.replace(name="<script>"), name="<b>"),
    "energy": energy,
    "hostile energy": hostile_energy,
    "chips": chips,
    "chips, metric": lambda: chips(False),
    "fit": fitted,
}
PLAIN = {
    "curve": lambda: spinkeras.EmpiricalCurve.preset("sot_80nm").replace(name=HOSTILE),
    "free curve": lambda: spinkeras.MTJDevice.preset("smtj_schnitzspan2023").switching_curve,
    "spread": lambda: spinkeras.ChipSpread(stability=0.1, stuck_low=0.01),
}
