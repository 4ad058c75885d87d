"""Reports on given data against NumPy sums. Runs on every backend."""

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from keras import ops

import spinkeras
from spinkeras import EnergyAssumptions, EnergyTracker, SpinNeuron
from tests.energy.harness import model_and_data, numpy_energy

pytestmark = pytest.mark.backends


def test_report_equals_the_numpy_sum_and_prints_its_assumptions(capsys):
    model, x, _ = model_and_data()
    report = spinkeras.energy_report(model, x, batch_size=10)
    expected = numpy_energy(model.layers[0], x)
    row = report.layers[0]
    for name, value in expected.items():
        assert row[f"{name}_pj"] == pytest.approx(value, rel=1e-6)
    assert row["pulses"] == 6
    assert row["pulse_width_ns"] == pytest.approx((2.0, 20.0))
    assert row["gate_voltage"] == pytest.approx((-1.0, 1.0), abs=1e-6)
    current = model.layers[0].bias_current + model.layers[0].current_scale * x
    assert row["peak_voltage"] == pytest.approx(np.abs(current).max() * 7957.75, rel=1e-4)
    assert report.total_pj == pytest.approx(sum(r["total_pj"] for r in report.layers))
    assert report.other_layers == {"Dense": 2}
    text = capsys.readouterr().out
    for part in ("first", "second", "pJ", "R_P 7958 ohm", "not included", "2 Dense", "latency"):
        assert part in text


def test_assumptions_change_the_figure():
    model, x, _ = model_and_data()
    full = spinkeras.energy_report(model, x, print_fn=None)
    none = EnergyAssumptions(reset=False, read_voltage=0.0)
    bare = spinkeras.energy_report(model, x, print_fn=None, assumptions=none)
    assert bare.layers[0]["reset_pj"] == bare.layers[0]["read_pj"] == 0
    assert bare.layers[0]["write_pj"] == full.layers[0]["write_pj"]
    assert bare.total_pj < full.total_pj


def test_layers_of_the_same_name_stay_apart():
    model = keras.Sequential(
        [
            keras.Input((3,)),
            keras.Sequential([SpinNeuron(name="spin")], name="a"),
            keras.Sequential([SpinNeuron(name="spin")], name="b"),
        ]
    )
    report = spinkeras.energy_report(model, np.zeros((2, 3), "float32"), print_fn=None)
    assert [row["name"] for row in report.layers] == ["spin", "spin_2"]


def test_latency_needs_built_neurons():
    inner = keras.Sequential([spinkeras.SpinNeuron(pulses=3)])
    model = keras.Sequential([keras.layers.Dense(2), inner])
    with pytest.raises(ValueError, match=r"No SpinNeuron of .* is built"):
        spinkeras.latency(model)
    model.build((None, 4))
    assert spinkeras.latency(model) == pytest.approx(3 * 2e-9)
    assert spinkeras.latency(keras.Sequential([keras.layers.Dense(2)])) == 0.0


def test_report_refuses_a_sample_without_an_axis_of_samples():
    model, x, _ = model_and_data()
    with pytest.raises(ValueError, match=r"of a single one: give x\[None\]"):
        spinkeras.energy_report(model, x[0])
    one = spinkeras.energy_report(model, x[:1][0][None], print_fn=None)
    assert one.inferences == 1


class Batches(keras.utils.PyDataset):
    def __init__(self, x, endless=False):
        super().__init__()
        self.x, self.endless = x, endless

    @property
    def num_batches(self):
        return None if self.endless else 3

    def __getitem__(self, k):
        return self.x[32 * k : 32 * (k + 1)], np.zeros(32)


def data_sets(x):
    """The same samples in the forms in which a model may be given them."""
    tensors = tf.data.Dataset.from_tensor_slices
    yield ops.convert_to_tensor(x)
    yield pd.DataFrame(x)
    yield Batches(x)
    yield tensors(x).batch(40)
    yield tensors((x, x[:, :1])).batch(40)
    yield (x[k : k + 7] for k in range(0, len(x), 7))
    yield [(x[:50], x[:50, :1]), (x[50:], x[50:, :1])].__iter__()


def test_data_sets_give_the_report_of_their_arrays():
    model, x, _ = model_and_data()
    expected = spinkeras.energy_report(model, x, batch_size=31, print_fn=None)
    for data in data_sets(x):
        report = spinkeras.energy_report(model, data, print_fn=None)
        assert report.inferences == len(x)
        assert report.total_pj == pytest.approx(expected.total_pj, rel=1e-6)


def test_report_refuses_what_is_no_data_and_what_is_no_option():
    model, x, _ = model_and_data()
    tensors = tf.data.Dataset.from_tensor_slices
    for data, message in (
        (x[:0], "length > 0"),
        ([], "got lengths"),
        ({}, "got lengths"),
        ([None], "got lengths"),
        (iter([]), "got no samples"),
        ([x, x[:3]], r"equal length > 0; got lengths \[96, 3\]"),
        (tensors(x), "dataset.batch"),
        (tensors(x).batch(8).repeat(), "endless"),
        (Batches(x, endless=True), "endless"),
        (None, "got None"),
        *(
            (odd, "cannot take x = ")
            for odd in (x.tolist(), [1.0, [2.0]], 3.0, "abc", object(), list)
        ),
        (iter("abc"), "cannot take x = 'a'"),
        (keras.Input((6,)), "cannot take x = "),
    ):
        with pytest.raises(ValueError, match=message):
            spinkeras.energy_report(model, data, print_fn=None)
    for size in (-1, 0, 2.5, None, True, "8", np.inf):
        with pytest.raises(ValueError, match=r"batch_size = .* must be a whole number from 1"):
            spinkeras.energy_report(model, x, batch_size=size)
    for function in (False, True, "print", 0):
        with pytest.raises(ValueError, match=r"print_fn = .* must be a function or None"):
            spinkeras.energy_report(model, x, print_fn=function)


def test_report_and_logs_say_where_the_knobs_end():
    model, x, y = model_and_data()
    first, second = spinkeras.spin_neurons(model)
    first.pulse_width = [2e-9, 20e-9, 20e-9, 5e-9, 5e-9, 5e-9]
    first.gate_voltage = [1.0, 0.0, 1.0, 0.0, -1.0, 0.5]
    second.pulse_width, second.gate_voltage = 5e-9, 0.5
    report = spinkeras.energy_report(model, x, print_fn=None)
    shares = {"shortest pulse": 1, "longest pulse": 2, "least anisotropy": 2, "most anisotropy": 1}
    row = report.layers[0]
    assert row["at_limit"] == pytest.approx({end: n / 6 for end, n in shares.items()})
    table = spinkeras.device_settings(model)
    own = [r for r in table if r["layer"] == "first"]
    assert row["retention_s"] == pytest.approx(min(r["retention_s"] for r in own))
    assert row["thermal_stability"] == pytest.approx(min(r["thermal_stability"] for r in own))
    assert "first: at a limit 17% shortest pulse, 33% longest pulse, 33% least" in str(report)
    assert "second: at a limit none" in str(report)
    model.compile(keras.optimizers.SGD(0.0), "mse", run_eagerly=True)
    history = model.fit(x, y, verbose=0, batch_size=96, callbacks=[EnergyTracker()]).history
    assert history["share_at_limit"] == [pytest.approx(4 / 10)]
    assert history["retention_s"] == [pytest.approx(row["retention_s"])]
    fixed, x, _ = model_and_data(train=())  # which stands at 2 ns by its device, not by training
    report = spinkeras.energy_report(fixed, x, print_fn=None)
    assert set(report.layers[0]["at_limit"].values()) == {0.0}


def test_a_layer_of_the_other_direction_is_metered_like_its_report(device):
    device = device.replace(reset_efficiency=0.8).reversed()
    layer = SpinNeuron(device)
    model = keras.Sequential([keras.Input((3,)), layer])
    model.compile("sgd", "mse", run_eagerly=True)
    x = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
    tracker = EnergyTracker()
    model.evaluate(x, x, callbacks=[tracker], verbose=0)
    report = spinkeras.energy_report(model, x, print_fn=None)
    assert tracker.results["energy_pj"] == pytest.approx(report.total_pj, rel=1e-5)
    assert any("write starts antiparallel" in line for line in report.assumptions)
    current = layer.bias_current + layer.current_scale * x.astype("float64")
    probability = ops.convert_to_numpy(model(x))
    expected = spinkeras.energy.write_energy(current, layer.pulse_width, probability, device)
    assert report.layers[0]["write_pj"] == pytest.approx(1e12 * np.sum(expected) / 8, rel=1e-5)
    highest = np.max(np.abs(current))
    volts = highest * spinkeras.energy.antiparallel_resistance(highest, device)
    assert report.layers[0]["peak_voltage"] == pytest.approx(float(volts), rel=1e-6)
