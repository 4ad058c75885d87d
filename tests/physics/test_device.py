"""Devices: derived properties against the published table, validation, round trips."""

import dataclasses
import json
import pathlib

import keras
import numpy as np
import pytest
from scipy import constants

import spinkeras
from spinkeras import EmpiricalCurve, MTJDevice
from tests.objects import HOSTILE, REFERENCE
from tools import fit_spin_orbit

# preset: Delta, mu0Hk (mT), Ic0 (uA), time at which tau = 1 (ns)
TABLE = {
    "stt_reference": (40.0, 219.7, 25.17, 1.7234),
    "stt_ikeda2010": (43.0, 173.5, 49.0, 1.21),
    "stt_arm": (63.7, 223.8, 21.4, 2.54),
    "vcma_uta2022": (19.9, 63.7, 25.1, 2.97),
    "vgsot_zhang2020": (30.3, 186, 65.8, 0.61),  # Ic0 of a current through the junction
}


@pytest.mark.parametrize("name", TABLE)
def test_preset_has_the_published_figures(name):
    device = MTJDevice.preset(name)
    figures = (
        device.thermal_stability,
        device.anisotropy_field * 1e3,
        device.critical_current * 1e6,
        device.diffusion_time / device.thermal_stability * 1e9,
    )
    np.testing.assert_allclose(figures, TABLE[name], rtol=0.006)
    assert device.name == name
    assert device.source
    assert device.assumed


def test_every_preset_is_listed_and_trains():
    assert set(TABLE) == set(spinkeras.presets())
    for name in spinkeras.presets():
        layer = spinkeras.SpinNeuron(device=name)
        layer.build((None, 3))
        np.testing.assert_allclose(layer.slope, 0.25, rtol=1e-6)


def test_reference_electrics(device):
    assert device.resistance_parallel == pytest.approx(7957.7, rel=1e-4)
    assert device.resistance_antiparallel == pytest.approx(2 * 7957.7, rel=1e-4)
    assert device.gate_capacitance == pytest.approx(77.1e-18, rel=1e-3)
    assert device.attempt_time == pytest.approx(0.483e-9, rel=1e-3)
    assert device.retention_time == pytest.approx(0.483e-9 * np.exp(40.0005), rel=1e-3)
    assert device.replace(diameter=200e-9).retention_time == np.inf  # Delta = 1000
    # VCMA: 10.8 units of Delta per volt for 50 fJ/(V m) in 1.4 nm
    shift = device.thermal_stability * (1 - device.anisotropy_at(1.0) / device.anisotropy)
    assert shift == pytest.approx(10.8, rel=0.01)


def test_gate_voltage_inverts_anisotropy(device):
    voltage = np.linspace(-1, 1, 7)
    back = device.gate_voltage_for(device.anisotropy_at(voltage))
    np.testing.assert_allclose(back, voltage, atol=1e-12)
    assert device.anisotropy_range == (device.anisotropy_at(1.0), device.anisotropy_at(-1.0))
    other_sign = device.replace(vcma_coefficient=-device.vcma_coefficient)
    assert other_sign.anisotropy_at(1.0) > device.anisotropy


def test_critical_current_per_stability_does_not_depend_on_anisotropy(device):
    stronger = device.replace(anisotropy=2 * device.anisotropy)
    assert stronger.critical_current_per_stability == device.critical_current_per_stability
    assert stronger.diffusion_time == device.diffusion_time
    assert stronger.critical_current == pytest.approx(2 * device.critical_current)


@pytest.mark.parametrize("name", spinkeras.presets())
def test_json_round_trip_is_exact(name):
    device = MTJDevice.preset(name)
    again = MTJDevice.from_json(device.to_json())
    assert again == device
    assert dataclasses.asdict(again) == dataclasses.asdict(device)
    assert isinstance(again.pulse_width_range, tuple)
    revived = keras.saving.deserialize_keras_object(
        json.loads(json.dumps(keras.saving.serialize_keras_object(device)))
    )
    assert revived == device
    assert hash(revived) == hash(device)


def test_a_channel_resistance_and_a_curve_are_part_of_the_device(device):
    curve = EmpiricalCurve(threshold=0.3e-3, slope=2e4, pulse_width=2e-9, ceiling=0.9)
    three = device.replace(write_resistance=776, switching_curve=curve)
    assert device.write_path_resistance == device.resistance_parallel
    assert three.write_path_resistance == three.write_resistance == 776.0
    assert three != device
    assert three != three.replace(switching_curve=curve.replace(slope=3e4))
    for again in (
        MTJDevice.from_json(three.to_json()),
        MTJDevice.from_config(three.get_config()),
        keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(three)),
    ):
        assert again == three
        assert again.switching_curve == curve
        assert hash(again) == hash(three)


def test_files_from_before_three_terminals_and_reset_laws_load(device):
    config = json.loads(device.to_json())
    for field in ("write_resistance", "switching_curve", "initial_state"):
        del config[field]
    del config["reset_efficiency"], config["reset_curve"]
    assert MTJDevice.from_json(json.dumps(config)) == device


CURVE = spinkeras.EmpiricalCurve.preset("sot_80nm")
LAWS = [
    {},
    {"reset_efficiency": 0.8, "offset_field": 2e-3},
    {"switching_curve": CURVE},
    {"switching_curve": CURVE, "reset_curve": CURVE.replace(threshold=0.9e-3)},
    {"switching_curve": CURVE, "write_resistance": 776.0, "reset_efficiency": 0.4},
]


@pytest.mark.parametrize("laws", LAWS)
def test_the_other_direction_of_the_other_direction_is_the_device(device, laws):
    device = device.replace(**laws)
    back = device.reversed()
    assert back != device
    assert back.reversed() == device
    assert (device.initial_state, back.initial_state) == ("parallel", "antiparallel")
    assert device.starting("parallel") is device
    assert device.starting("antiparallel") == back
    assert back.offset_field == -device.offset_field
    assert back.spin_torque_efficiency == laws.get(
        "reset_efficiency", device.spin_torque_efficiency
    )
    assert back.switching_curve == laws.get("reset_curve", device.switching_curve)
    for each in (device, back):
        assert MTJDevice.from_json(each.to_json()) == each
        restored = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(each))
        assert restored == each
        assert hash(restored) == hash(each)


def test_the_source_gives_the_channel_of_vgsot_zhang2020():
    device = MTJDevice.preset("vgsot_zhang2020")
    # 278 uohm cm, 60 nm long, 50 nm wide, 3 nm thick
    assert device.write_resistance == pytest.approx(278e-8 * 60e-9 / (50e-9 * 3e-9))
    # K_i / t_f less the demagnetising energy of a thin disk, N_x = pi t_f / (4 D)
    n_x = np.pi * 1.1 / (4 * 50)
    demagnetising = 4e-7 * np.pi * 0.625e6**2 / 2 * (1 - 3 * n_x)
    assert device.anisotropy == pytest.approx(0.32e-3 / 1.1e-9 - demagnetising, rel=1e-3)
    assert fit_spin_orbit.critical_current(device) == pytest.approx(117e-6, rel=0.01)


def test_equality_ignores_the_text_but_not_the_physics(device):
    assert device == device.replace(name="mine", source="lab")
    assert device != device.replace(damping=0.016)


@pytest.mark.parametrize("name", spinkeras.presets())
@pytest.mark.parametrize("sign", [1, -1])
def test_a_least_stability_bounds_whatever_goes_by_the_device(name, sign):
    device = MTJDevice.preset(name)
    low, high = device.gate_voltage_range
    device = device.replace(
        vcma_coefficient=sign * device.vcma_coefficient,
        gate_voltage_range=(low, high) if sign > 0 else (-high, -low),
    )
    weakest, strongest = (
        k * device.volume / device.thermal_energy for k in device.anisotropy_range
    )
    for share in (0.01, 0.3, 0.8, 0.99):
        floor = weakest + share * (strongest - weakest)
        bounded = device.with_least_stability(floor)
        ends = [k * device.volume / device.thermal_energy for k in bounded.anisotropy_range]
        np.testing.assert_allclose(ends, (floor, strongest), rtol=1e-12)
        assert ends[0] >= floor
        assert "gate_voltage_range" in bounded.source
        by_time = device.with_least_retention(
            bounded.replace(
                anisotropy=bounded.anisotropy_range[0], gate_voltage_range=(0, 0)
            ).retention_time
        )
        assert by_time.gate_voltage_range == pytest.approx(bounded.gate_voltage_range, abs=1e-9)
    layer = spinkeras.SpinNeuron(bounded)
    layer.build((None, 2))
    for weight in layer.knob_weights():
        weight.assign([-100.0, 100.0])  # as an optimizer may leave them
    stability = layer.anisotropy * device.volume / device.thermal_energy
    assert np.all(stability >= floor * (1 - 1e-6))
    assert np.all(np.isfinite(layer(np.zeros((1, 2)))))
    assert device.with_least_stability(weakest * 0.9) == device
    with pytest.raises(ValueError, match=r"No gate voltage of .* V gives a thermal stability of"):
        device.with_least_stability(strongest * 1.01)
    with pytest.raises(ValueError, match=r"No gate voltage of .* V gives 1e\+300 s"):
        device.with_least_retention(1e300)
    fixed = device.replace(vcma_coefficient=0.0)
    assert fixed.with_least_stability(device.thermal_stability) == fixed
    with pytest.raises(ValueError, match="Ask for less"):
        fixed.with_least_stability(device.thermal_stability * 1.001)


def test_a_least_stability_is_a_positive_number(device):
    for method in (device.with_least_stability, device.with_least_retention):
        for value in ("40", None, True, [40], float("nan"), float("inf"), 0, -1.0):
            with pytest.raises(ValueError, match=r"stability|seconds"):
                method(value)
    for seconds in (1e-9, 1.0, 3.2e7, 1e12):
        stability = device.stability_for_retention(seconds)
        anisotropy = device.anisotropy * stability / device.thermal_stability
        at = device.replace(anisotropy=anisotropy, gate_voltage_range=(0, 0))
        assert at.retention_time == pytest.approx(seconds, rel=1e-9) or stability == 1.5


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"diameter": 40.0}, r"diameter = 40 m is outside .* m\. .*40e-9"),
        ({"diameter": float("nan")}, "diameter = nan m is not finite"),
        ({"damping": "0.01"}, "damping = '0.01' is not a number"),
        ({"damping": True}, "damping = True is not a number"),
        ({"temperature": -3}, r"temperature = -3 K is outside \[1, 1000\] K"),
        ({"pulse_width_range": 2e-9}, "pulse_width_range = 2e-09 is not a pair"),
        ({"pulse_width_range": (20e-9, 2e-9)}, "swap them"),
        ({"pulse_width_range": (2e-9, float("inf"))}, "not finite"),
        ({"nominal_pulse_width": 1e-9}, "nominal_pulse_width = 1e-09 s is outside"),
        ({"gate_voltage_range": (-1.0, 5.0)}, "anisotropy .* must stay > 0"),
        ({"diametre": 4e-8}, "no field"),
        ({"write_resistance": 0.5}, r"write_resistance = 0\.5 ohm is outside \[1, 1e\+06\] ohm"),
        ({"reset_efficiency": 3.0}, r"reset_efficiency = 3 \(dimensionless\) is outside"),
        ({"reset_curve": CURVE}, r"reset_curve needs a switching_curve"),
        ({"switching_curve": CURVE, "reset_curve": 1.0}, r"reset_curve = 1.0 must be an Empirical"),
        ({"initial_state": "AP"}, r"initial_state = 'AP' must be one of \('parallel', 'antipara"),
        ({"write_resistance": "776"}, r"write_resistance = '776' is not a number"),
        ({"switching_curve": "sot_80nm"}, "'sot_80nm' must be an EmpiricalCurve or None"),
        ({"switching_curve": {"slope": 1e4, "t": 5}}, r"lacks .*'threshold'.*no field \['t'\]"),
    ],
)
def test_bad_fields_are_refused_with_value_unit_and_remedy(device, changes, message):
    with pytest.raises(ValueError, match=message):
        device.replace(**changes)


def test_a_broken_device_file_is_refused(device):
    text = device.to_json()
    thickness = '"thickness": 1.2e-09'
    assert thickness in text
    for broken, message in (
        (text[: len(text) // 2], "A device description: not valid JSON"),
        ("", "A device description: not valid JSON"),
        ("[1, 2]", "dictionary of fields"),
        (text.replace(thickness, '"thickness": "thin"'), "is not a number"),
        (text.replace(thickness, '"thickness": 1.2'), "thickness = 1.2 m is outside"),
        (text.replace(thickness, '"thickness": NaN'), "NaN is not allowed"),
        (text.replace(thickness, '"__class__": 1.2e-09'), "no field"),
        (text.replace(thickness + ",", ""), r"lacks \['thickness'\]"),
    ):
        with pytest.raises(ValueError, match=message):
            MTJDevice.from_json(broken)


def test_bad_descriptions_are_refused(device):
    with pytest.raises(ValueError, match=r"Unknown preset 'nonsense'.*stt_reference"):
        MTJDevice.preset("nonsense")
    with pytest.raises(ValueError, match="device description: not valid JSON"):
        MTJDevice.from_json(device.to_json()[:40])
    with pytest.raises(ValueError, match="dictionary of fields"):
        MTJDevice.from_json("[1, 2]")
    config = device.get_config()
    del config["damping"]
    with pytest.raises(ValueError, match=r"lacks \['damping'\]"):
        MTJDevice.from_config(config)
    with pytest.raises(ValueError, match="must be an MTJDevice or one of the presets"):
        spinkeras.SpinNeuron(device=3)


def test_device_is_frozen(device):
    with pytest.raises(dataclasses.FrozenInstanceError):
        device.damping = 0.1


def test_values_from_memory_and_from_simulations_say_so():
    memory, script, port = map(MTJDevice.preset, ("stt_ikeda2010", "stt_arm", "vgsot_zhang2020"))
    assert "from memory" in memory.assumed
    assert "1.7 nm" in memory.assumed
    assert "no measured device" in script.source
    assert "Example script" in script.source
    assert "original model" in port.source
    # K_i / t_f less the demagnetising energy along the axis
    along = 0.957 * 4e-7 * np.pi / 2 * script.saturation_magnetization**2
    assert script.anisotropy == pytest.approx(1e-3 / script.thickness - along, rel=5e-3)


def test_temperature_moves_the_material_along():
    """Bloch's law, power laws of the magnetization; a round trip is the identity."""
    device = MTJDevice.preset("stt_reference")
    assert device.at_temperature(300.0) == device
    for temperature in (4.0, 250.0, 310.0, 400.0):
        other = device.at_temperature(temperature)
        m = other.saturation_magnetization / device.saturation_magnetization
        bloch = (1 - (temperature / 1120) ** 1.5) / (1 - (300 / 1120) ** 1.5)
        assert m == pytest.approx(bloch, rel=1e-12)
        shape = constants.mu_0 / 2 * device.saturation_magnetization**2
        interface = (other.anisotropy + shape * m**2) / (device.anisotropy + shape)
        assert interface == pytest.approx(m**2.18, rel=1e-12)
        assert other.vcma_coefficient == pytest.approx(device.vcma_coefficient * m**2.83)
        back = other.at_temperature(300.0)
        for name in ("saturation_magnetization", "anisotropy", "vcma_coefficient"):
            assert getattr(back, name) == pytest.approx(getattr(device, name), rel=1e-9)
        whole = device.at_temperature(temperature, demagnetizing_factor=0, anisotropy_exponent=3)
        assert whole.anisotropy == pytest.approx(device.anisotropy * m**3)
    warm, fixed = device.at_temperature(310.0), device.replace(temperature=310.0)
    assert warm.thermal_stability < fixed.thermal_stability < device.thermal_stability
    assert warm.critical_current < 0.99 * device.critical_current
    assert fixed.critical_current == pytest.approx(device.critical_current)
    assert "temperature" in warm.assumed
    assert "saturation_magnetization" in warm.assumed


@pytest.mark.parametrize(
    ("change", "options", "message"),
    [
        ({}, {"temperature": 25.0 - 300}, "temperature = -275 K"),
        ({}, {"temperature": 999.0, "curie_temperature": 900.0}, r"899\.1\] K"),
        ({}, {"temperature": 900.0}, "no longer perpendicular"),
        ({}, {"temperature": 310.0, "vcma_exponent": -1}, "vcma_exponent = -1"),
        ({}, {"temperature": 310.0, "demagnetizing_factor": 4.0}, "demagnetizing_factor = 4"),
        ({"temperature": 600.0}, {"temperature": 300.0, "curie_temperature": 550.0}, "of the dev"),
        ({"relaxation_time": 1e-8}, {"temperature": 310.0}, "relaxation_time of this device holds"),
        (
            {"switching_curve": EmpiricalCurve.preset("sot_80nm")},
            {"temperature": 310.0},
            "fit another",
        ),
    ],
)
def test_temperatures_that_mean_nothing(change, options, message):
    device = MTJDevice.preset("stt_reference").replace(**change)
    with pytest.raises(ValueError, match=message):
        device.at_temperature(**options)


def test_a_junction_that_runs_freely_has_no_reset_curve():
    free = spinkeras.EquilibriumCurve(threshold=0.0, slope=1e5, relaxation_time=1e-3)
    pulsed = EmpiricalCurve(threshold=1e-4, slope=1e5, pulse_width=2e-9)
    device = MTJDevice.preset("stt_reference")
    for write, reset in ((free, pulsed), (pulsed, free), (free, free)):
        with pytest.raises(ValueError, match="never written nor reset"):
            device.replace(switching_curve=write, reset_curve=reset)


# --- devices in files ----------------------------------------------------------------------------


@pytest.mark.parametrize("name", spinkeras.presets())
def test_a_device_comes_back_from_its_file(name, tmp_path):
    device = spinkeras.MTJDevice.preset(name).replace(damping=0.02, name=HOSTILE)
    path = tmp_path / "mine.json"
    device.save(path)
    again = spinkeras.MTJDevice.load(path)
    assert again == device
    assert (again.name, again.source, again.assumed) == (HOSTILE, device.source, device.assumed)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.json"]


@pytest.mark.parametrize("kind", [str, pathlib.Path])
def test_a_path_stands_wherever_a_preset_name_does(kind, tmp_path):
    device = REFERENCE.replace(damping=0.02)
    device.save(tmp_path / "mine.JSON")
    path = kind(tmp_path / "mine.JSON")
    assert spinkeras.SpinNeuron(path).device == device
    assert spinkeras.DeviceRange(path, "pulse_width").device == device
    assert spinkeras.midpoint_current(2e-9, path) == spinkeras.midpoint_current(2e-9, device)
    energies = [spinkeras.energy.write_energy(5e-5, 2e-9, 0.5, each) for each in (path, device)]
    assert energies[0] == energies[1]
    config = spinkeras.SpinNeuron(path).get_config()
    assert str(tmp_path) not in str(config)  # a layer's file holds the device itself


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", "not valid JSON"),
        ("{", "not valid JSON"),
        ("[1]", "a dictionary of fields"),
        ("{}", "lacks"),
        ('{"diameter": NaN}', "not valid JSON"),
        ("\xff", "UTF-8"),
    ],
)
def test_wrong_contents_are_refused_with_the_file(content, message, tmp_path):
    path = tmp_path / "wrong.json"
    path.write_bytes(content.encode("latin-1"))
    with pytest.raises(ValueError, match=message) as caught:
        spinkeras.SpinNeuron(str(path))
    assert "wrong.json" in str(caught.value)


def test_a_field_outside_its_range_is_refused_with_the_file(tmp_path):
    path = tmp_path / "wrong.json"
    path.write_text(REFERENCE.to_json().replace('"damping": 0.015', '"damping": 15'))
    with pytest.raises(ValueError, match=r"wrong.json.*damping = 15"):
        spinkeras.MTJDevice.load(path)


def test_what_is_no_device_of_a_name_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"no file .*none.json.*MTJDevice.save"):
        spinkeras.SpinNeuron("none.json")
    with pytest.raises(FileNotFoundError, match="no file"):
        spinkeras.MTJDevice.load(tmp_path)
    with pytest.raises(ValueError, match="Did you mean 'stt_reference'"):
        spinkeras.SpinNeuron("stt_refrence")
    with pytest.raises(ValueError, match=r"MTJDevice\.load"):
        spinkeras.MTJDevice.preset("mine.json")
    for bad in (3, None, b"mine.json", ["mine.json"]):
        with pytest.raises(ValueError, match="path = "):
            spinkeras.MTJDevice.load(bad)
        with pytest.raises(ValueError, match=r"must end in '\.json'"):
            REFERENCE.save(bad)
    with pytest.raises(ValueError, match=r"must end in '\.json'"):
        REFERENCE.save(tmp_path / "mine.txt")
    with pytest.raises(FileNotFoundError, match="does not exist"):
        REFERENCE.save(tmp_path / "no" / "mine.json")


@pytest.mark.parametrize("state", [np.zeros(2), np.array(["parallel"] * 2), ["parallel"], None, 1])
def test_a_state_is_one_of_two_names(state):
    device = spinkeras.MTJDevice.preset("stt_reference")
    with pytest.raises(ValueError, match=r"initial_state = .* must be one of"):
        device.replace(initial_state=state)
    with pytest.raises(ValueError, match=r"state = .* must be one of"):
        device.starting(state)
