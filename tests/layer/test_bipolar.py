"""The signed output `2 P - 1` in all that a layer goes through: draws, energy, chips, files."""

import keras
import numpy as np
import pytest

import spinkeras
from spinkeras import ChipSpread, SpinNeuron
from tests.harness import some_slow

SCALE = 1e-5  # A per unit of input, the same with and without a sign


def network(bipolar, **neuron):
    """Two spin layers of one input; nothing between input and the first, so currents agree."""
    keras.utils.set_random_seed(1)
    model = keras.Sequential(
        [
            keras.Input((6,), name="x"),
            SpinNeuron(name="first", bipolar=bipolar, current_scale=SCALE, **neuron),
            keras.layers.Dense(4, name="dense"),
            SpinNeuron(name="second", bipolar=bipolar, current_scale=SCALE, **neuron),
        ]
    )
    for layer in spinkeras.spin_neurons(model):
        layer.pulse_width = np.geomspace(2e-9, 8e-9, layer.pulse_width.size)
    if not bipolar:  # the same inputs for the second layer, from P in place of 2 P - 1
        kernel, bias = model.get_layer("dense").get_weights()
        model.get_layer("dense").set_weights([2 * kernel, bias - kernel.sum(axis=0)])
    return model


def data(count, seed=0):
    return np.random.default_rng(seed).normal(scale=2, size=(count, 6)).astype("float32")


def outputs(model, x, **call):
    return np.asarray(model(x, **call))


@pytest.fixture
def pair():
    """The same network with the signed output and with the unsigned one."""
    return network(True), network(False)


def inside(mean, expected, draws):
    """Whether means of bits of -1 and +1 agree with their expectation, within five sigma."""
    sigma = np.sqrt(np.maximum(1 - expected**2, 1e-3) / draws)
    return np.all(np.abs(mean - expected) < 5 * sigma)


class TestDraws:
    @pytest.mark.parametrize("pulses", [1, 3, 20])
    def test_bits_have_two_signs_and_the_mean(self, pulses):
        options = {"bipolar": True, "pulses": pulses, "seed": 3}
        drawn = SpinNeuron(output="always_sampled", **options)
        x = np.tile(np.linspace(-2, 2, 5, dtype="float32"), (4000, 1))
        bits = np.asarray(drawn(x))
        levels = 2 * np.arange(pulses + 1) / pulses - 1
        np.testing.assert_allclose(np.unique(bits), levels, atol=1e-6)
        expected = np.asarray(SpinNeuron(bipolar=True)(x[:1]))[0]
        assert inside(bits.mean(axis=0), expected, len(x) * pulses)

    def test_gradient_of_a_draw_is_that_of_the_expected_value(self):
        tf = pytest.importorskip("tensorflow")
        if keras.backend.backend() != "tensorflow":
            pytest.skip("uses the tape")
        x = tf.constant(data(50))
        gradients = []
        for output in ("always_sampled", "probability"):
            layer = SpinNeuron(bipolar=True, output=output)
            with tf.GradientTape() as tape:
                tape.watch(x)
                y = layer(x)
            gradients.append(tape.gradient(y, x))
        np.testing.assert_allclose(*gradients, rtol=1e-5, atol=1e-7)

    def test_sampled_in_training_only(self):
        layer = SpinNeuron(bipolar=True, output="sampled")
        assert set(np.unique(outputs(layer, data(50), training=True))) == {-1.0, 1.0}
        assert len(np.unique(outputs(layer, data(50), training=False))) > 100


class TestEnergy:
    def test_report_does_not_depend_on_the_sign(self, pair):
        signed, unsigned = (spinkeras.energy_report(m, data(40), print_fn=None) for m in pair)
        for one, other in zip(signed.layers, unsigned.layers):
            assert one["total_pj"] > 0
            for key in ("write_pj", "gate_pj", "read_pj", "reset_pj", "pulses", "peak_voltage"):
                np.testing.assert_allclose(one[key], other[key], rtol=1e-4, err_msg=key)

    def test_tracker_agrees_with_the_report(self, pair):
        x = data(32)
        for model in pair:
            model.compile(keras.optimizers.SGD(0.0), "mse", run_eagerly=True)
            tracker = spinkeras.EnergyTracker()
            history = model.fit(x, np.zeros((32, 4)), verbose=0, callbacks=[tracker]).history
            report = spinkeras.energy_report(model, x, print_fn=None)
            np.testing.assert_allclose(history["energy_pj"][0], report.total_pj, rtol=1e-4)


class TestChips:
    def test_same_chips_same_figures(self, pair):
        x = data(60)
        y = (outputs(pair[1], x) > 0.5).astype("float32")
        spread = ChipSpread(stability=0.1, current=0.05, stuck_low=0.02, ceiling=0.98)

        def error(y_true, y_pred):  # of the probabilities
            y_pred = y_pred if y_pred.min() >= 0 else (1 + y_pred) / 2
            return float(np.abs(y_true - y_pred).mean())

        reports = [
            spinkeras.evaluate_chips(m, x, y, spread, 4, metric=error, progress=False) for m in pair
        ]
        for field in ("accuracy", "energy_pj", "nominal"):
            one, other = (getattr(report, field) for report in reports)
            np.testing.assert_allclose(one, other, rtol=1e-4, err_msg=field)
        assert np.ptp(reports[0].accuracy) > 0

    def test_pulses_are_drawn_with_two_signs(self):
        model = keras.Sequential([keras.Input((6,)), SpinNeuron(bipolar=True)])
        seen = []

        def levels(y_true, y_pred):
            seen.append(np.unique(y_pred))
            return 0.0

        spread = ChipSpread(stability=0.1)
        spinkeras.evaluate_chips(
            model, data(30), np.zeros(30), spread, 2, pulses=2, metric=levels, progress=False
        )
        assert len(seen[0]) > 20  # nominal: expected values
        for bits in seen[1:]:
            np.testing.assert_array_equal(bits, [-1, 0, 1])

    def test_spread_in_training(self):
        spread = ChipSpread(stuck_low=0.5, stuck_high=0.5)
        layer = SpinNeuron(bipolar=True, spread=spread, seed=1)
        np.testing.assert_allclose(np.abs(outputs(layer, data(20), training=True)), 1.0)
        layer = SpinNeuron(bipolar=True, spread=ChipSpread(current=0.02), seed=1)
        values = [outputs(layer, data(20), training=True) for _ in range(2)]
        nominal = outputs(layer, data(20), training=False)
        assert np.max(np.abs(values[0] - values[1])) > 0.01
        for value in values:
            assert value.min() < -0.9
            assert 0 < np.max(np.abs(value - nominal)) < 1


class TestFiles:
    def test_config(self):
        layer = SpinNeuron(bipolar=True, device="stt_arm")
        config = layer.get_config()
        assert config["bipolar"] is True
        copy = SpinNeuron.from_config(config)
        assert copy.bipolar
        np.testing.assert_array_equal(outputs(copy, data(5)), outputs(layer, data(5)))
        # A file from before there was the option.
        del config["bipolar"]
        assert not SpinNeuron.from_config(config).bipolar

    def test_reload(self, tmp_path, pair):
        model = pair[0]
        model.save(tmp_path / "signed.keras")
        loaded = keras.models.load_model(tmp_path / "signed.keras")
        assert all(layer.bipolar for layer in spinkeras.spin_neurons(loaded))
        np.testing.assert_allclose(outputs(loaded, data(9)), outputs(model, data(9)), atol=1e-6)

    @pytest.mark.parametrize("dtype", ["mixed_bfloat16", "float64"])
    def test_dtypes(self, dtype):
        layer = SpinNeuron(bipolar=True, dtype=dtype)
        exact = outputs(SpinNeuron(bipolar=True), data(20))
        got = np.asarray(keras.ops.cast(layer(data(20)), "float32"))
        np.testing.assert_allclose(got, exact, atol=0.01 if "bfloat" in dtype else 1e-6)


needs_tensorflow = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="exports need the TensorFlow backend"
)


@needs_tensorflow
class TestExports:
    @pytest.mark.parametrize("pulses", [1, 20])
    def test_serving(self, tmp_path, pulses):
        import tensorflow as tf

        model = keras.Sequential([keras.Input((6,), name="x"), SpinNeuron(bipolar=True, name="y")])
        model.layers[-1].pulses = pulses
        model.layers[-1].pulse_width = np.geomspace(2e-9, 8e-9, 6)
        report = spinkeras.export_for_serving(model, tmp_path, sample=True, seed=5)
        assert report.output_error < 1e-5
        served = tf.saved_model.load(str(report.path)).signatures
        x = data(10)
        expected = outputs(model, x)
        np.testing.assert_allclose(served["serve"](x=x)["y"], expected, rtol=1e-5, atol=1e-6)
        got = served["energy"](x=x)["energy_pj"].numpy().mean()
        total = spinkeras.energy_report(model, x, print_fn=None).total_pj
        np.testing.assert_allclose(got, total, rtol=1e-5)
        bits = served["sample"](x=np.tile(x, (400, 1)))["y"].numpy()
        levels = 2 * np.arange(pulses + 1) / pulses - 1
        np.testing.assert_allclose(np.unique(bits), levels, atol=1e-6)
        assert inside(bits.reshape(400, 10, 6).mean(axis=0), expected, 400 * pulses)
        assert model.layers[-1].bipolar

    @pytest.mark.parametrize("suffix", some_slow(["tflite", "onnx"], "onnx"))
    def test_portable_files(self, tmp_path, suffix, pair):
        export = spinkeras.export_litert
        if suffix == "onnx":
            pytest.importorskip("tf2onnx")
            pytest.importorskip("onnxruntime")
            export = spinkeras.export_onnx
        model = pair[0]
        before = outputs(model, data(5))
        report = export(model, tmp_path / f"m.{suffix}")
        assert report.output_error < 1e-5
        # Relative to P down to 1e-12, which of 2 P - 1 in float32 could not be told.
        assert 0 < report.neuron_error < 1e-4
        np.testing.assert_array_equal(outputs(model, data(5)), before)

    def test_the_tail_is_checked_without_the_sign(self, pair):
        from spinkeras.export.portable import _neurons_alone  # whose probes no report shows

        signed, unsigned = (_neurons_alone(spinkeras.spin_neurons(model)) for model in pair)
        for one, other in zip(signed.reference, unsigned.reference):
            assert 0 <= one.min() < 1e-12
            np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-17)
        for one, other in zip(signed.probes, unsigned.probes):
            np.testing.assert_allclose(one, other, rtol=1e-6)
