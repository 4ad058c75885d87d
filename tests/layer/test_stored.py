"""Model files from strangers: what they hold, broken and tampered ones."""

import io
import json
import os
import re
import zipfile

import keras
import numpy as np
import pytest

from spinkeras import SpinNeuron


@pytest.fixture
def saved(tmp_path):
    """A model file, and a function that writes a tampered copy of it."""
    model = keras.Sequential([keras.Input((3,), name="x"), SpinNeuron(name="spin")])
    model.layers[-1].pulse_width = [2e-9, 5e-9, 20e-9]
    path = tmp_path / "model.keras"
    model.save(path)
    tampered = tmp_path / "tampered.keras"

    def tamper(change, member="config.json"):
        with zipfile.ZipFile(path) as old, zipfile.ZipFile(tampered, "w") as new:
            for name in old.namelist():
                content = old.read(name)
                new.writestr(name, change(content) if name == member else content)
        return tampered

    return model, path, tamper


def test_a_model_file_holds_data_only_and_loads_in_safe_mode(saved):
    model, path, _ = saved
    with zipfile.ZipFile(path) as file:
        assert sorted(file.namelist()) == ["config.json", "metadata.json", "model.weights.h5"]
        assert b"__lambda__" not in file.read("config.json")
    x = np.random.default_rng(0).standard_normal((3, 3)).astype("float32")
    again = keras.models.load_model(path, safe_mode=True)
    np.testing.assert_allclose(again.predict(x, verbose=0), model.predict(x, verbose=0), rtol=1e-6)


def test_a_truncated_model_file_is_refused(saved):
    _, path, _ = saved
    content = path.read_bytes()
    for part in (0.0, 0.3, 0.9, 0.999):
        path.write_bytes(content[: int(part * len(content))])
        with pytest.raises(ValueError, match=r"accessible `\.keras` zip file"):
            keras.models.load_model(path)


def test_a_model_file_with_a_flipped_bit_is_refused(saved):
    _, path, _ = saved
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(zipfile.BadZipFile, match="CRC"):
        keras.models.load_model(path)


LAMBDA = {"class_name": "__lambda__", "config": {"value": ["4wAAAAA=", None, None]}}

SYSTEM = {"module": "os", "class_name": "system", "config": {}, "registered_name": None}

TAMPERED = {
    "unit": ({"device": {"diameter": 40.0}}, "diameter = 40 m is outside"),
    "sign": ({"device": {"anisotropy": -1.0}}, "anisotropy = -1 J/m"),
    "infinite": ({"device": {"damping": float("inf")}}, "damping = inf"),
    "text": ({"device": {"thickness": "thin"}}, "thickness = 'thin' is not a number"),
    "pair": ({"device": {"pulse_width_range": [1e-9]}}, "not a pair"),
    "swapped": ({"device": {"pulse_width_range": [2e-8, 2e-9]}}, "swap them"),
    "new field": ({"device": {"evil": 1}}, "has no field"),
    "scale": ({"current_scale": -1.0}, "current_scale = -1 A"),
    "model": ({"switching_model": "magic"}, "Unknown switching_model"),
    "knob": ({"train": ["temperature"]}, "Unknown knob"),
    "keyword": ({"evil": 1}, "evil"),
    "lambda initializer": ({"pulse_width_initializer": LAMBDA}, "initializer"),
    "lambda constraint": ({"pulse_width_constraint": LAMBDA}, "constraint"),
    "lambda device": ({"device": LAMBDA}, "(?i)lambda"),
    "code as device": ({"device": SYSTEM}, "system"),
    "code as regularizer": ({"anisotropy_regularizer": SYSTEM}, "system|regularizer"),
}


def test_a_tampered_layer_in_a_model_file_is_refused(saved, monkeypatch):
    monkeypatch.setattr(os, "system", lambda *args: pytest.fail("a file ran a command"))

    def tampered(content, change):
        config = json.loads(content)
        layer = config["config"]["layers"][1]["config"]
        for key, value in change.items():
            if key == "device" and "class_name" not in value:
                layer["device"]["config"].update(value)
            else:
                layer[key] = value
        return json.dumps(config)

    for case, (change, message) in TAMPERED.items():
        path = saved[2](lambda content, change=change: tampered(content, change))
        with pytest.raises((ValueError, TypeError)) as error:
            keras.models.load_model(path)
        assert re.search(message, str(error.value)), (case, str(error.value)[-300:])


def edit_weights(change):
    import h5py

    def edited(content):
        with io.BytesIO(content) as buffer:
            with h5py.File(buffer, "a") as file:
                variables = []
                file.visititems(lambda name, item: variables.append(name))
                group = file[next(n for n in variables if n.endswith("/pulse_width"))].parent
                change(group)
            return buffer.getvalue()

    return edited


def put(name, value):
    def change(group):
        del group[name]
        if value is not None:
            group[name] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (put("pulse_width", [np.nan, 1e-9, 1e-9]), "values of pulse_width .* not finite and > 0"),
        (put("anisotropy", [-1.0, 1e5, 1e5]), "values of anisotropy .* not finite and > 0"),
        (put("pulse_width", [2e-9] * 4), r"pulse_width of shape \(4,\)"),
        (put("anisotropy", None), "holds no 'anisotropy'"),
        (
            put("energy_weight", np.float32("nan")),
            "energy_weight .* not a single finite number >= 0",
        ),
        (put("energy_weight", [1.0, 2.0]), "energy_weight .* not a single finite number >= 0"),
    ],
)
def test_tampered_weights_are_refused(saved, change, message):
    path = saved[2](edit_weights(change), "model.weights.h5")
    with pytest.raises(ValueError, match=message):
        keras.models.load_model(path)


def test_weights_beyond_the_device_are_moved_to_its_limit(saved):
    path = saved[2](edit_weights(put("pulse_width", [1e3, 2e-9, 2e-9])), "model.weights.h5")
    with pytest.warns(UserWarning, match="outside this device's range"):
        model = keras.models.load_model(path)
    np.testing.assert_allclose(model.layers[-1].pulse_width, [20e-9, 2e-9, 2e-9], rtol=1e-6)
