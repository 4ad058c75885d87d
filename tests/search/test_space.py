"""Search spaces: what is searched, and that every sample is a neuron."""

import keras
import keras_tuner as kt
import numpy as np
import pytest

import spinkeras
from spinkeras.search.space import spin_search_space


class TestSearchSpace:
    def test_declares_what_has_several_values(self):
        hp = kt.HyperParameters()
        spin_search_space(hp, recenter=(True, False))
        assert {p.name for p in hp.space} == {
            "spin_device",
            "spin_shortest_pulse_ns",
            "spin_window",
            "spin_gain",
            "spin_train",
            "spin_sharing",
            "spin_recenter",
        }
        ranges = {p.name: p.sampling for p in hp.space if hasattr(p, "sampling")}
        assert set(ranges.values()) == {"log"}  # physical ranges span factors, not differences
        assert len(ranges) == 3

    def test_single_values_take_no_dimension(self):
        hp = kt.HyperParameters()
        settings = spin_search_space(
            hp,
            device="stt_arm",
            shortest_pulse=4e-9,
            window=2.0,
            train="pulse_width",
            sharing="channel",
            gain=2.0,
        )
        assert hp.space == []
        device = settings["device"]
        assert device.pulse_width_range == pytest.approx((4e-9, 8e-9))
        assert device.nominal_pulse_width == pytest.approx(4e-9)
        neuron = spinkeras.SpinNeuron(**settings)
        neuron.build((None, 3))
        np.testing.assert_allclose(neuron.slope, 2.0 * 0.25, rtol=1e-6)
        assert neuron.trained_knobs == ("pulse_width",)

    def test_window_ends_where_the_device_does(self):
        settings = spin_search_space(
            kt.HyperParameters(), device="stt_arm", shortest_pulse=10e-9, window=10.0
        )
        assert settings["device"].pulse_width_range == pytest.approx((10e-9, 20e-9))

    def test_every_sample_is_a_neuron_inside_its_device(self):
        oracle = kt.oracles.RandomSearchOracle(
            objective=kt.Objective("x", "max"), max_trials=50, seed=5
        )
        hp = kt.HyperParameters()
        spin_search_space(hp)
        oracle.update_space(hp)
        seen = set()
        for _ in range(40):
            hp = oracle.get_space()
            hp.values = oracle._random_values()  # what its trials get; no public name draws alone
            settings = spin_search_space(hp)
            neuron = spinkeras.SpinNeuron(**settings)
            neuron.build((None, 5))
            low, high = settings["device"].pulse_width_range
            assert 2e-9 * (1 - 1e-9) <= low < high <= 20e-9 * (1 + 1e-9)
            assert neuron.pulse_width.size == (1 if settings["shared_axes"] else 5)
            np.testing.assert_allclose(neuron.slope, 0.25 * hp.get("spin_gain"), rtol=1e-5)
            seen.add((hp.get("spin_device"), settings["train"]))
        assert len(seen) > 6

    def test_layer_sharing_of_images(self):
        settings = spin_search_space(kt.HyperParameters(), sharing="layer", rank=4)
        neuron = spinkeras.SpinNeuron(**settings)
        neuron.build((None, 4, 4, 3))
        assert neuron.pulse_width.shape == (1, 1, 1)

    def test_pulses_are_drawn_and_paid_for(self):
        hp = kt.HyperParameters()
        arguments = spin_search_space(hp, device="stt_reference", pulses=(1, 4, 16))
        assert hp.values["spin_pulses"] == 1
        hp.values["spin_pulses"] = 16
        arguments = spin_search_space(hp, device="stt_reference", pulses=(1, 4, 16))
        neuron = spinkeras.SpinNeuron(**arguments, seed=1)
        bits = 16 * np.array(neuron(np.zeros((50, 2), "float32")))
        np.testing.assert_array_equal(bits, np.round(bits))
        energies = []
        for count in (1, 16):
            neuron = spinkeras.SpinNeuron(**{**arguments, "pulses": count})
            model = keras.Sequential([keras.Input((2,)), neuron])
            report = spinkeras.energy_report(model, np.zeros((1, 2), "float32"), print_fn=None)
            energies.append(report.total_pj)
        assert energies[1] == pytest.approx(16 * energies[0], rel=1e-6)
        with pytest.raises(ValueError, match="pulses = 0"):
            spin_search_space(hp, device="stt_reference", pulses=(0, 4))

    def test_prefixes_keep_groups_apart(self):
        hp = kt.HyperParameters()
        spin_search_space(hp, prefix="first")
        spin_search_space(hp, prefix="second")
        assert "first_gain" in hp.values
        assert "second_gain" in hp.values

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"device": "stt_arm", "shortest_pulse": 1e-9}, r"pulse range of stt_arm.*2e-09"),
            ({"shortest_pulse": (5e-9, 20e-9)}, "inside the pulse range"),
            ({"shortest_pulse": (5e-9, 2e-9)}, "pair"),
            ({"window": 1.0}, "> 1"),
            ({"gain": 0.0}, "gain"),
            ({"gain": (1.0, 1e5)}, r"gain = 100000 .* \[1e-09, 10000\]"),
            ({"train": ("pulse",)}, "pulse_width"),
            ({"sharing": "all"}, "channel"),
            ({"train": ()}, "nothing"),
            ({"device": "nosuch"}, "Available presets"),
        ],
    )
    def test_errors_teach(self, arguments, message):
        with pytest.raises(ValueError, match=message):
            spin_search_space(kt.HyperParameters(), **arguments)

    @pytest.mark.parametrize("stability", [2.0, 5.0])
    def test_a_device_without_a_law_there_is_told_what_this_function_takes(self, stability):
        device = spinkeras.MTJDevice.preset("smtj_reference")
        device = device.replace(
            anisotropy=device.anisotropy * stability / 5, gate_voltage_range=(-0.1, 0.1)
        )
        given = {"shortest_pulse": 2e-5, "window": 2.0, "train": "anisotropy"}
        with pytest.raises(ValueError, match=r"device.replace\(switching_curve") as error:
            spin_search_space(kt.HyperParameters(), device=device, **given)
        assert "switching_model" not in str(error.value)
        curve = spinkeras.EquilibriumCurve(threshold=0.0, slope=0.4e6, relaxation_time=1e-7)
        own = device.replace(switching_curve=curve)  # the advice
        settings = spin_search_space(kt.HyperParameters(), device=own, **given)
        assert spinkeras.SpinNeuron(**settings).free_running

    @pytest.mark.parametrize("gain", [1e-9, 1e4])
    def test_every_gain_makes_a_neuron(self, gain):
        for name in spinkeras.presets():
            settings = spin_search_space(kt.HyperParameters(), device=name, gain=gain, window=2.0)
            assert spinkeras.SpinNeuron(**settings).current_scale == settings["current_scale"]

    def test_several_devices_have_to_be_names(self):
        devices = [spinkeras.MTJDevice.preset(name) for name in ("stt_arm", "stt_reference")]
        with pytest.raises(ValueError, match="names of presets"):
            spin_search_space(kt.HyperParameters(), device=devices)
