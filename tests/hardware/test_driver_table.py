"""The driver's table: lossless round trip, refusals that name the row."""

import csv
import json

import keras
import numpy as np
import pytest
from keras import ops

from spinkeras import Driver, SpinNeuron
from spinkeras.hardware import driver_table
from spinkeras.hardware.margins import reliability
from tests.hardware.harness import make_model

pytestmark = pytest.mark.backends


@pytest.mark.parametrize("suffix", ["csv", "json"])
@pytest.mark.parametrize("kwargs", [{}, {"driver": Driver(pulse_step=0.05e-9, gate_levels=17)}])
def test_round_trip_is_lossless(tmp_path, suffix, kwargs):
    model, other = make_model(**kwargs), make_model(seed=1, **kwargs)
    other.set_weights(
        [w if w.ndim == 2 else o for w, o in zip(model.get_weights(), other.get_weights())]
    )
    path = tmp_path / f"chip.{suffix}"
    rows = driver_table.device_settings(model, path)
    assert len(rows) == 7
    assert list(rows[0]) == list(driver_table.COLUMNS)
    driver_table.apply_device_settings(other, path)
    x = np.random.default_rng(2).normal(size=(30, 4)).astype("float32")
    np.testing.assert_array_equal(*(ops.convert_to_numpy(m(x)) for m in (model, other)))
    assert driver_table.device_settings(other) == rows
    assert list(tmp_path.iterdir()) == [path]


def test_columns_are_those_of_the_layer():
    model = make_model()
    layer = model.layers[0]
    rows = [row for row in driver_table.device_settings(model) if row["layer"] == "first"]
    for key, values in (
        ("pulse_width_s", layer.pulse_width),
        ("gate_voltage_v", layer.gate_voltage),
        ("bias_current_a", layer.bias_current),
    ):
        np.testing.assert_array_equal([row[key] for row in rows], values)
    device = layer.device.replace(anisotropy=float(layer.anisotropy[0]))
    assert rows[0]["thermal_stability"] == pytest.approx(device.thermal_stability)
    assert rows[0]["retention_s"] == pytest.approx(device.retention_time)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows.pop(), r"no row for neurons \[2\] of layer 'second'"),
        (lambda rows: rows.append(rows[0]), "row 8: neuron 0 of layer 'first' has two rows"),
        (lambda rows: rows[2].update(layer="third"), "row 3: the model has no spin layer 'third'"),
        (lambda rows: rows[1].update(neuron=17), "row 2: neuron = 17 of layer 'first' must be"),
        (lambda rows: rows[1].update(neuron=0.5), "row 2: neuron = 0.5"),
        (lambda rows: rows[3].pop("pulse_width_s"), r"row 4: no value for \['pulse_width_s'\]"),
        (lambda rows: rows[0].update(pulse_width_s="wide"), "row 1: pulse_width_s = 'wide' is not"),
        (lambda rows: rows[0].update(pulse_width_s=float("nan")), "row 1: pulse_width_s = nan"),
        (lambda rows: rows[0].update(pulse_width_s=1.0), "row 1: pulse_width_s = 1 s is outside"),
        (lambda rows: rows[4].update(gate_voltage_v=3), "row 5: gate_voltage_v = 3 V is outside"),
        (lambda rows: rows[5].update(bias_current_a=1e-6), "row 6: bias_current_a = 1e-06 A, but"),
        (lambda rows: rows[5].update(current_scale_a=1.0), "row 6: current_scale_a = 1 A, but"),
        (lambda rows: rows.insert(0, "text"), "row 1: must be a dictionary"),
    ],
)
def test_a_bad_table_is_refused_and_changes_nothing(change, message):
    rows = driver_table.device_settings(make_model(seed=5, driver=Driver(pulse_step=1e-12)))
    change(rows)
    model = make_model(driver=Driver(pulse_step=1e-12))
    before = model.get_weights()  # finer than the grid
    with pytest.raises(ValueError, match=message):
        driver_table.apply_device_settings(model, rows)
    for a, b in zip(model.get_weights(), before):
        np.testing.assert_array_equal(a, b)


def test_bad_files(tmp_path):
    model = make_model()
    with pytest.raises(ValueError, match=r"to a \.csv or a \.json file"):
        driver_table.device_settings(model, tmp_path / "chip.xml")
    (tmp_path / "cut.json").write_text(json.dumps(driver_table.device_settings(model))[:200])
    with pytest.raises(ValueError, match=r"cut.json: not valid JSON"):
        driver_table.apply_device_settings(model, tmp_path / "cut.json")
    (tmp_path / "object.json").write_text("{}")
    with pytest.raises(ValueError, match="expected a list of rows"):
        driver_table.apply_device_settings(model, tmp_path / "object.json")
    driver_table.device_settings(model, tmp_path / "chip.csv")
    lines = (tmp_path / "chip.csv").read_text().splitlines()
    for k, decimal in enumerate(".,"):  # as spreadsheets write it in many countries
        text = "\n".join(lines).replace(",", ";").replace(".", decimal)
        (tmp_path / f"foreign{k}.csv").write_text(text)
        with pytest.raises(ValueError, match=rf"foreign{k}.csv has ';' .*commas.*points"):
            driver_table.apply_device_settings(model, tmp_path / f"foreign{k}.csv")
    (tmp_path / "cut.csv").write_text("\n".join(lines[:3]))
    with pytest.raises(ValueError, match="no row for neurons"):
        driver_table.apply_device_settings(model, tmp_path / "cut.csv")
    assert len(next(csv.reader([lines[0]]))) == len(driver_table.COLUMNS)


@pytest.mark.parametrize("depth", [0, 1, 2])
def test_an_unbuilt_model_is_told_to_be_built(depth):
    model = SpinNeuron(name="spin")
    for _ in range(1 + depth):
        model = keras.Sequential([model])
    for call in (
        driver_table.device_settings,
        reliability,
        lambda model: driver_table.apply_device_settings(model, []),
    ):
        with pytest.raises(ValueError, match=r"'spin' is not built.*call the model.*keras\.Input"):
            call(model)


def test_models_without_a_table():
    with pytest.raises(ValueError, match="no SpinNeuron"):
        driver_table.device_settings(keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)]))
    twin = keras.Sequential(
        [
            keras.Input((2,)),
            keras.Sequential([SpinNeuron(name="a")], name="b"),
            keras.Sequential([SpinNeuron(name="a")], name="c"),
        ]
    )
    with pytest.raises(ValueError, match="have the same name"):
        driver_table.device_settings(twin)
