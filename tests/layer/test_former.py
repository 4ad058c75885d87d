"""Configurations and calls of version 0.1.0: the same layer, or an error that says what to do."""

import itertools
import json
import re
import zipfile

import keras
import numpy as np
import pytest
from keras import ops

import spinkeras
from spinkeras import ChipSpread, Driver, EmpiricalCurve, MTJDevice, NeelBrown, SpinNeuron
from spinkeras.layer import former
from tests import odd

pytestmark = pytest.mark.backends
LONG = MTJDevice.preset("stt_reference").replace(
    pulse_width_range=(1e-7, 1e-6), nominal_pulse_width=2e-7
)
LAYERS = {
    "plain": {},
    "a grid": {"driver": Driver(pulse_step=0.7e-9, gate_levels=8), "output": "sampled", "seed": 1},
    "steps": {"driver": Driver(pulse_step=20e-12), "recenter": False},
    "levels": {"driver": Driver(gate_levels=256), "train": "anisotropy", "bipolar": True},
    "textbook": {"device": LONG, "switching_model": "neel_brown"},
    "exponent": {"device": LONG, "switching_model": NeelBrown(barrier_exponent=1.5)},
    "everything": {
        "device": LONG,
        "switching_model": NeelBrown(barrier_exponent=1.2, attempt_time=1e-9),
        "driver": Driver(pulse_step=1e-8, gate_levels=5),
        "spread": ChipSpread(stability=0.1),
    },
    "a curve": {"device": "vgsot_zhang2020", "train": "pulse_width"},
}
X = np.random.default_rng(0).normal(scale=2, size=(4, 3)).astype("float32")


def old_form(config):
    """A configuration of today as version 0.1.0 wrote it, from JSON."""
    config = json.loads(json.dumps(config))
    config |= config.pop("driver")["config"]
    config |= {"barrier_exponent": 2.0, "attempt_time": None}
    model = config["switching_model"]
    if isinstance(model, dict) and model["class_name"] == "NeelBrown":
        config |= model["config"] | {"switching_model": "neel_brown"}
    return config


def in_json(layer):
    return json.loads(json.dumps(layer.get_config()))


@pytest.mark.parametrize("options", LAYERS)
def test_old_configurations_make_the_same_layer(options):
    layer = SpinNeuron(**LAYERS[options])
    old = old_form(layer.get_config())
    assert set(former.NAMES) < set(old)
    again = SpinNeuron.from_config(old)
    assert in_json(again) == in_json(layer) == in_json(SpinNeuron.from_config(in_json(layer)))
    np.testing.assert_array_equal(*(ops.convert_to_numpy(made(X)) for made in (layer, again)))
    assert set(former.NAMES) < set(old)  # not changed


class _Spiced(SpinNeuron):
    """Of the way to say what a subclass adds; its configuration is the whole one and a number."""

    def __init__(self, spice=1.0, **kwargs):
        super().__init__(**kwargs)
        self.spice = spice

    def get_config(self):
        return {**super().get_config(), "spice": self.spice}


class _Brief(SpinNeuron):
    """A configuration of its own, with little in it."""

    def get_config(self):
        return {"driver": keras.saving.serialize_keras_object(self.driver)}


class _Stepped(SpinNeuron):
    """A former name as an argument of its own, with a meaning of its own."""

    def __init__(self, pulse_step=3, **kwargs):
        super().__init__(driver=Driver(pulse_step=pulse_step / 1e10), **kwargs)
        self.pulse_step = pulse_step

    def get_config(self):
        return {"pulse_step": self.pulse_step}


@pytest.mark.parametrize(
    ("kind", "config", "driver"),
    [
        (_Spiced, old_form(SpinNeuron(**LAYERS["steps"]).get_config()) | {"spice": 2.0}, 20e-12),
        (_Brief, {"pulse_step": 1e-9}, 1e-9),
        (_Brief, _Brief(driver=Driver(pulse_step=2e-9)).get_config(), 2e-9),
        (_Brief, {"attempt_time": None}, None),
        (_Stepped, {"pulse_step": 5}, 5e-10),
        (_Stepped, _Stepped(7).get_config(), 7e-10),
    ],
)
def test_old_configurations_of_subclasses(kind, config, driver):
    layer = kind.from_config(config)
    assert type(layer) is kind
    assert layer.driver == Driver(pulse_step=driver)
    assert getattr(layer, "spice", 2.0) == 2.0


def test_an_old_model_file_loads_wherever_its_layers_are(tmp_path):
    def neuron(options, name):
        return SpinNeuron(**LAYERS[options], name=name)

    inputs = keras.Input((2, 3))
    x = keras.layers.TimeDistributed(neuron("a grid", "wrapped"))(inputs)
    x = keras.layers.Dense(3, activation=neuron("levels", "activation"))(x)
    shared = neuron("everything", "shared")
    x = shared(keras.layers.Dense(3)(shared(x)))
    inner = keras.Sequential([keras.layers.Dense(3), neuron("exponent", "nested")], name="inner")
    model = keras.Model(inputs, keras.Sequential([inner, neuron("plain", "last")])(x))
    path, old = tmp_path / "new.keras", tmp_path / "old.keras"
    model.save(path)
    found = []

    def aged(node):
        if isinstance(node, list):
            return [aged(value) for value in node]
        if not isinstance(node, dict):
            return node
        if node.get("registered_name") == "spinkeras>SpinNeuron":
            found.append(node["config"]["name"])
            return {**node, "config": old_form(node["config"])}
        return {key: aged(value) for key, value in node.items()}

    with zipfile.ZipFile(path) as new, zipfile.ZipFile(old, "w") as file:
        for name in new.namelist():
            content = new.read(name)
            if name == "config.json":
                content = json.dumps(aged(json.loads(content)))
                assert '"driver"' not in content
                assert "NeelBrown" not in content
            file.writestr(name, content)
    assert set(found) == {"wrapped", "activation", "shared", "nested", "last"}
    again = keras.saving.load_model(old)
    data = np.random.default_rng(1).normal(size=(2, 2, 3)).astype("float32")
    np.testing.assert_array_equal(*(ops.convert_to_numpy(made(data)) for made in (model, again)))


DRIVER = keras.saving.serialize_keras_object(Driver())
LAW = keras.saving.serialize_keras_object(NeelBrown())
CURVE = keras.saving.serialize_keras_object(EmpiricalCurve.preset("sot_80nm"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"driver": DRIVER}, "holds a driver and also .*'pulse_step'"),
        ({"driver": None}, "holds a driver and also .*'pulse_step'"),
        ({"switching_model": LAW}, "holds a NeelBrown and also .*'barrier_exponent'"),
        ({"switching_model": "macrospin", "attempt_time": 1e-9}, "not to 'macrospin'"),
        ({"switching_model": "ballistic", "barrier_exponent": 1}, "not to 'ballistic'"),
        ({"switching_model": CURVE, "barrier_exponent": 1}, "not to EmpiricalCurve"),
        ({"switching_model": None, "barrier_exponent": 1}, "not to None"),
        ({"switching_model": {"evil": 1}}, "describes no NeelBrown or EmpiricalCurve"),
        ({"switching_model": "magic"}, "Unknown switching_model 'magic'"),
        ({"barrier_exponent": 7}, "barrier_exponent = 7 .* outside"),
        ({"gate_levels": 2.5}, "gate_levels = 2.5 must be a whole number"),
        ({"pulse_step": 1.0}, "has no multiple inside"),
    ],
)
def test_contradictory_old_configurations_are_refused(changes, message):
    config = old_form(SpinNeuron(**LAYERS["steps"]).get_config()) | changes
    with pytest.raises(ValueError, match=message) as error:
        SpinNeuron.from_config(config)
    assert len(str(error.value).splitlines()) == 1


def test_what_is_missing_in_a_configuration_is_named():
    """Any part of what version 0.1.0 wrote, and of what is written today."""
    layer = SpinNeuron(**LAYERS["a grid"])
    old, new = old_form(layer.get_config()), in_json(layer)
    for count in range(1, 5):
        for names in itertools.combinations(former.NAMES, count):
            half = {key: value for key, value in old.items() if key not in names}
            missing = list(names) if count < 4 else ["driver"]
            with pytest.raises(ValueError, match=re.escape(f"lacks {missing}; the file")):
                SpinNeuron.from_config(half)
    for name in ("driver", "train", "spread"):
        with pytest.raises(ValueError, match=rf"SpinNeuron lacks \['{name}'\]"):
            SpinNeuron.from_config({key: value for key, value in new.items() if key != name})
    for kind in ("driver", "switching_model"):
        half = in_json(SpinNeuron(**LAYERS["everything"]))
        half[kind]["config"].popitem()
        with pytest.raises(ValueError, match=rf"{kind} = .* lacks \["):
            SpinNeuron.from_config(half)


def test_odd_values_in_old_configurations():
    """What was taken is what was given."""
    rng, kinds = np.random.default_rng(0), []
    configs = [
        old_form(SpinNeuron(**LAYERS[name]).get_config()) for name in LAYERS if name != "a curve"
    ]
    names = (*former.NAMES, "switching_model")
    for k in range(160):
        config = configs[k % len(configs)]
        text, path = odd.changed_json({name: config[name] for name in names}, rng)
        try:
            changed = json.loads(text)
        except (RecursionError, ValueError):  # no program reads it
            continue
        given = {key: value for key, value in config.items() if key not in names} | changed
        kind, made = odd.outcome(lambda: SpinNeuron.from_config(given))  # noqa: B023
        kinds.append(kind)
        assert kind != "raw", (path, made)
        if kind == "taken" and changed["switching_model"] is not None:
            held = old_form(made.get_config())
            assert {name: held[name] for name in names} == changed
    assert {"taken", "refused"} <= set(kinds)


GIVEN = {"pulse_step": 1e-9, "gate_levels": 64, "barrier_exponent": 1.5, "attempt_time": 1e-9}


@pytest.mark.parametrize(
    "make",
    [
        lambda **given: SpinNeuron(LONG, **given),
        lambda **given: _Spiced(device=LONG, **given),
        lambda **given: spinkeras.spin_neurons(
            spinkeras.to_spin(
                keras.Sequential([keras.Input((2,)), keras.layers.Dense(2, "sigmoid")]),
                LONG,
                **given,
            )
        )[0],
    ],
)
def test_the_error_for_a_former_argument_says_what_to_write(make):
    for count in range(1, 5):
        for names in itertools.combinations(GIVEN, count):
            with pytest.raises(
                ValueError, match=f"no argument {' and no '.join(names)} of"
            ) as error:
                make(**{name: GIVEN[name] for name in names})
            written = re.fullmatch(r".*; write (.*)\.", str(error.value))[1]
            layer = make(**eval(f"dict({written})"))
            for name in names:
                holder = layer.driver if hasattr(layer.driver, name) else layer.switching_model
                assert getattr(holder, name) == GIVEN[name]


@pytest.mark.parametrize("driver", [Driver(gate_levels=8), Driver()])
def test_an_old_backup_goes_on_with_the_same_layer_only(driver, tmp_path):
    def backup(driver):
        model = keras.Sequential([keras.Input((2,)), SpinNeuron(driver=driver)])
        model.compile("sgd", "mse")
        callback = spinkeras.ExactBackup(tmp_path)
        callback.set_model(model)
        return callback

    backup(driver).on_epoch_end(0, {"loss": 1.0})
    (path,) = tmp_path.glob("*/content.json")
    content = json.loads(path.read_text())
    content["neurons"] = [old_form(config) for config in content["neurons"]]
    path.write_text(json.dumps(content))
    backup(driver).on_train_begin()
    with pytest.raises(ValueError, match=r"spin layer 0 has another .*driver than"):
        backup(Driver(gate_levels=9)).on_train_begin()
