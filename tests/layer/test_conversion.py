"""to_spin: which activations it replaces, what it keeps, and that the old model is untouched."""

import keras
import numpy as np
import pytest
from keras import layers

import spinkeras
from spinkeras import _keras
from spinkeras.layer.conversion import ConversionReport, to_spin
from tests.harness import some_slow
from tests.layer.networks import CURVE, SIGNED_CURVE, data, names, outputs, run, small

pytestmark = pytest.mark.backends


def two_uses(use, second, width, shape=(4,)):
    """A functional model of a use of width 3 and another of this width."""
    inputs = keras.Input(shape)
    flow = second(layers.Dense(width)(use(layers.Dense(3)(inputs))))
    return keras.Model(inputs, layers.Dense(2)(flow))


def in_a_row(act, width):
    parts = [layers.Dense(3), act, layers.Dense(width), act, layers.Dense(2)]
    return keras.Sequential([keras.Input((4,)), *parts])


def nested(act, width):
    blocks = [
        keras.Sequential([layers.Dense(n), act], name=f"block_{n}_{k}")
        for k, n in enumerate((3, width))
    ]
    return keras.Sequential([keras.Input((4,)), *blocks, layers.Dense(2)])


def model_in_model(act, width):
    """A functional model without weights inside another: Keras fixes its width."""
    inputs = keras.Input((3,))
    inner = keras.Model(inputs, act(inputs), name="inner")
    middle = keras.Sequential([keras.Input((3,)), inner], name="middle")
    return two_uses(middle, middle, 3)


def as_argument(act, width):
    parts = [layers.Dense(n, activation=act, name=f"dense_{k}") for k, n in enumerate((3, width))]
    return keras.Sequential([keras.Input((4,)), *parts, layers.Dense(2)])


def with_time(act, width):
    steps = layers.TimeDistributed(act, name="steps")
    return two_uses(steps, steps, width, (6, 4))


PLACES = {
    "functional": lambda act, width: two_uses(act, act, width),
    "sequential": in_a_row,
    "nested": nested,
    "argument": as_argument,
    "model": model_in_model,
    "wrapper": with_time,
    "two wrappers": lambda act, width: two_uses(
        layers.TimeDistributed(act), layers.TimeDistributed(act), width, (6, 4)
    ),
}


def source(tensor):
    """The operation that computes an output; a linear layer only gives the output its name."""
    operation = _keras.operation_of(tensor)
    return source(operation.input) if isinstance(operation, layers.Activation) else operation


class TestWhatIsConverted:
    def test_a_sigmoid_network_keeps_its_function(self):
        old = small()
        x = data(64, 4)
        spin = to_spin(old)
        assert [type(layer).__name__ for layer in spin.layers] == [
            "Dense",
            "SpinNeuron",
            "Dense",
            "SpinNeuron",
            "Dense",
        ]
        # Layer by layer: the same input gives the same value within the distance of the curves.
        hidden_old = keras.Model(old.inputs[0], old.get_layer("first").output)
        hidden_new = keras.Model(spin.inputs[0], spin.get_layer("first_spin").output)
        assert np.max(np.abs(outputs(hidden_new, x) - outputs(hidden_old, x))) < CURVE
        # The whole network: |error| of the logits grows by the weights' norm, softmax is 1/2-
        # Lipschitz in each logit.
        kernel = np.abs(old.get_layer("head").get_weights()[0]).sum(axis=0).max()
        second = np.abs(old.get_layer("second").get_weights()[0]).sum(axis=0).max()
        bound = 0.5 * kernel * (CURVE + 0.25 * second * CURVE)
        assert np.max(np.abs(outputs(spin, x) - outputs(old, x))) < bound

    def test_a_tanh_network_keeps_its_function(self):
        old = small("tanh", head="tanh")
        x = data(64, 4)
        spin = to_spin(old)
        assert names(spin.spin_conversion.converted) == ["first", "second", "head"]
        for neuron in spinkeras.spin_neurons(spin):
            assert neuron.bipolar
            np.testing.assert_allclose(neuron.slope, 1.0, rtol=1e-6)
        error = SIGNED_CURVE
        hidden_old = keras.Model(old.inputs[0], old.get_layer("first").output)
        hidden_new = keras.Model(spin.inputs[0], spin.get_layer("first_spin").output)
        difference = np.max(np.abs(outputs(hidden_new, x) - outputs(hidden_old, x)))
        assert 0.5 * SIGNED_CURVE < difference < error
        # An error grows by the weights' norm; tanh has slopes up to 1.
        for name in ("second", "head"):
            kernel = np.abs(old.get_layer(name).get_weights()[0]).sum(axis=0).max()
            error = kernel * error + SIGNED_CURVE
        assert np.max(np.abs(outputs(spin, x) - outputs(old, x))) < error

    def test_report_lists_both_sides(self):
        spin = to_spin(small())
        report = spin.spin_conversion
        assert isinstance(report, ConversionReport)
        assert names(report.converted) == ["first", "second"]
        assert names(report.left_alone) == ["head"]
        assert "element-wise" in report.left_alone[0][2]
        assert "first_spin" in str(report)
        assert "head (softmax)" in str(report)

    def test_operations_of_a_functional_graph(self):
        x = keras.Input((4,))
        hidden = keras.ops.sigmoid(layers.Dense(3)(x))
        old = keras.Model(x, layers.Dense(2)(hidden + 1.0))
        spin = to_spin(old)
        assert len(spinkeras.spin_neurons(spin)) == 1
        assert spin.spin_conversion.converted[0][1] == "sigmoid"
        assert np.max(np.abs(outputs(spin, data(32, 4)) - outputs(old, data(32, 4)))) < 0.3

    def test_convolutions(self):
        old = keras.Sequential(
            [
                keras.Input((8, 8, 1)),
                layers.Conv2D(4, 3, activation="relu", name="conv"),
                layers.SeparableConv2D(3, 3, activation="sigmoid", name="separable"),
                layers.DepthwiseConv2D(3, activation="relu", name="depthwise"),
                layers.BatchNormalization(),
                layers.GlobalAveragePooling2D(),
                layers.Dense(2),
            ]
        )
        spin = to_spin(old)
        report = spin.spin_conversion
        assert names(report.converted) == ["conv", "separable", "depthwise"]
        assert spin.get_layer("conv_spin").pulse_width.shape == (4,)
        history = run(spin, data(6, 8, 8, 1))
        assert history["energy_pj_conv_spin"][0] > 0

    def test_arguments_reach_the_neurons(self):
        spin = to_spin(small(), device="stt_arm", train="pulse_width", current_scale=2e-5)
        for neuron in spinkeras.spin_neurons(spin):
            assert neuron.device == spinkeras.MTJDevice.preset("stt_arm")
            assert neuron.trained_knobs == ("pulse_width",)
            assert neuron.current_scale == 2e-5

    def test_mixed_precision_is_kept(self):
        old = keras.Sequential(
            [
                keras.Input((4,)),
                layers.Dense(3, activation="sigmoid", dtype="mixed_bfloat16", name="first"),
                layers.Dense(2),
            ]
        )
        assert to_spin(old).get_layer("first_spin").compute_dtype == "bfloat16"


class TestOutputs:
    def test_a_sigmoid_output_is_a_probability_too(self):
        assert names(to_spin(small(head="sigmoid")).spin_conversion.converted)[-1] == "head"

    def test_a_tanh_output_has_two_signs_too(self):
        assert names(to_spin(small(head="tanh")).spin_conversion.converted)[-1] == "head"

    @pytest.mark.parametrize(
        ("head", "signed"), [("relu", ("tanh",)), ("relu", ("relu",)), ("tanh", ())]
    )
    def test_other_outputs_stay(self, head, signed):
        report = to_spin(small(head=head), signed=signed).spin_conversion
        assert names(report.left_alone) == ["head"]
        assert "range" in report.left_alone[0][2]

    def test_a_named_output_is_converted(self):
        report = to_spin(small(head="relu"), where=["head"]).spin_conversion
        assert names(report.converted) == ["head"]
        assert names(report.left_alone) == ["first", "second"]

    def test_outputs_of_a_functional_model_with_several(self):
        x = keras.Input((4,))
        hidden = layers.Dense(3, activation="relu", name="hidden")(x)
        one = layers.Dense(2, activation="relu", name="one")(hidden)
        two = layers.Dense(1, activation="sigmoid", name="two")(hidden)
        report = to_spin(keras.Model(x, {"one": one, "two": two})).spin_conversion
        assert names(report.converted) == ["hidden", "two"]
        assert names(report.left_alone) == ["one"]

    def test_the_output_of_a_nested_model_is_one_only_at_the_end(self):
        def block(name):
            return keras.Sequential(
                [keras.Input((4,)), layers.Dense(4, activation="relu", name=f"{name}_dense")],
                name=name,
            )

        x = keras.Input((4,))
        old = keras.Model(x, block("last")(block("inner")(x)))
        report = to_spin(old).spin_conversion
        assert names(report.converted) == ["inner/inner_dense"]
        assert names(report.left_alone) == ["last/last_dense"]


class TestOutputNames:
    """Losses, metrics and targets of a model with several outputs go by the outputs' names."""

    @staticmethod
    def net(kind):
        act = layers.Activation("sigmoid", name="b")
        x = keras.Input((4,))
        hidden = layers.Dense(3, activation="tanh", name="h")(x)
        a = layers.Dense(2, activation="softmax", name="a")(hidden)
        if kind == "dense":
            b = layers.Dense(1, activation="sigmoid", name="b")(hidden)
        elif kind == "two uses":
            b = act(layers.Dense(1)(act(layers.Dense(2)(hidden))))
        elif kind == "wrapper":
            flow = layers.Reshape((1, 3))(hidden)
            b = layers.TimeDistributed(layers.Dense(1, activation="sigmoid"), name="b")(flow)
        elif kind == "operation":
            b = keras.ops.sigmoid(layers.Dense(1)(hidden))
        elif kind == "nested":
            inner = keras.Input((3,))
            end = layers.Dense(1, activation="sigmoid", name="end")(inner)
            b = keras.Model(inner, end, name="b")(hidden)
        else:  # all names that to_spin would choose are taken
            flow = layers.Dense(2, activation="tanh", name="b_linear")(hidden)
            flow = layers.Dense(2, name="b_linear_spin")(layers.Dense(2, name="h_spin")(flow))
            b = layers.Dense(1, activation="sigmoid", name="b")(flow)
        return keras.Model(x, [a, b])

    @pytest.mark.parametrize(
        "kind",
        some_slow(["dense", "two uses", "wrapper", "operation", "nested", "taken names"], "dense"),
    )
    def test_names_survive(self, kind, tmp_path):
        old = self.net(kind)
        new = to_spin(old)
        assert len(spinkeras.spin_neurons(new)) >= 2
        assert list(new.output_names) == list(old.output_names)
        assert kind == "operation" or list(new.output_names) == ["a", "b"]
        if kind == "nested":
            assert list(new.get_layer("b").output_names) == ["end"]
        new.save(tmp_path / "m.keras")
        loaded = keras.models.load_model(tmp_path / "m.keras")
        for model in (to_spin(new), to_spin(old, where="h"), loaded):
            assert list(model.output_names) == list(old.output_names)
        for got, expected in zip(loaded(data(2, 4)), new(data(2, 4))):
            np.testing.assert_allclose(*map(keras.ops.convert_to_numpy, (got, expected)))

    @pytest.mark.parametrize("structure", some_slow([list, dict], list))
    def test_training_goes_by_the_old_names(self, structure):
        old = self.net("dense")
        if structure is dict:
            old = keras.Model(old.inputs[0], dict(zip("ab", old.outputs)))
        old.compile(
            "sgd",
            {"a": "sparse_categorical_crossentropy", "b": "binary_crossentropy"},
            loss_weights={"a": 1.0, "b": 0.5},
            metrics={"a": "accuracy", "b": ["mae"]},
            weighted_metrics={"b": "mse"},
            run_eagerly=True,
        )
        x, targets = data(6, 4), {"a": np.arange(6) % 2, "b": np.ones((6, 1), "float32")}
        new = to_spin(old)
        logs = [model.test_on_batch(x, targets, return_dict=True) for model in (old, new)]
        assert logs[0].keys() == logs[1].keys() >= {"a_accuracy", "b_mae", "b_loss"}
        new.fit(x, targets if structure is dict else list(targets.values()), verbose=0)
        answers = [model.predict_on_batch(x) for model in (old, new)]
        shapes = [keras.tree.map_structure(lambda y: str(y.shape), a) for a in answers]
        assert shapes[0] == shapes[1]

    def test_report_and_where_know_the_old_name(self):
        old = self.net("dense")
        report = to_spin(old, where=["b"]).spin_conversion
        assert report.converted == (("b", "sigmoid", "b follows the layer, now named b_linear"),)

    @pytest.mark.slow
    def test_weight_files_do_not_depend_on_the_names(self, tmp_path):
        first, second = to_spin(self.net("dense")), to_spin(self.net("dense"))
        first.save_weights(tmp_path / "w.weights.h5")
        second.load_weights(tmp_path / "w.weights.h5")
        for a, b in zip(first.get_weights(), second.get_weights()):
            np.testing.assert_array_equal(a, b)


class TestSigned:
    def test_relu_is_signed_only_when_asked(self):
        old = small("relu")
        assert not any(neuron.bipolar for neuron in spinkeras.spin_neurons(to_spin(old)))
        for signed in ("relu", ["tanh", "relu"]):
            neurons = spinkeras.spin_neurons(to_spin(old, signed=signed))
            assert [neuron.bipolar for neuron in neurons] == [True, True]

    @pytest.mark.parametrize("act", [layers.ReLU, lambda **k: layers.Activation("relu", **k)])
    def test_layers_and_operations(self, act):
        x = keras.Input((4,))
        hidden = act(name="act")(layers.Dense(3)(x))
        old = keras.Model(x, layers.Dense(2)(keras.ops.tanh(hidden)))
        neurons = spinkeras.spin_neurons(to_spin(old, signed=("relu",)))
        assert [neuron.bipolar for neuron in neurons] == [True, False]
        assert [neuron.bipolar for neuron in spinkeras.spin_neurons(to_spin(old))] == [False, True]

    def test_a_given_current_scale_holds_for_all(self):
        old = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="tanh")])
        (neuron,) = spinkeras.spin_neurons(to_spin(old, current_scale=2e-5))
        assert neuron.bipolar
        assert neuron.current_scale == 2e-5

    def test_what_cannot_be_signed(self):
        with pytest.raises(ValueError, match=r"\['softmax'\].*element-wise"):
            to_spin(small(), signed=("tanh", "softmax"))
        with pytest.raises(ValueError, match="sigmoid gives a probability"):
            to_spin(small(), signed=("sigmoid",))
        with pytest.raises(ValueError, match="`signed`"):
            to_spin(small(), bipolar=True)


class TestWhere:
    def test_function_of_the_layer(self):
        spin = to_spin(small(), where=lambda layer: layer.name == "second")
        assert names(spin.spin_conversion.converted) == ["second"]
        assert ("first", "sigmoid", "not chosen by `where`") in spin.spin_conversion.left_alone

    def test_one_name(self):
        assert names(to_spin(small(), where="first").spin_conversion.converted) == ["first"]

    def test_unknown_name_lists_the_layers(self):
        with pytest.raises(ValueError, match=r"no layer \['frist'\].*first"):
            to_spin(small(), where=["frist"])

    def test_a_named_softmax_is_refused(self):
        with pytest.raises(ValueError, match=r"'head'.*element-wise"):
            to_spin(small(), where=["head"])

    @pytest.mark.parametrize("name", ["inner", "inner/td", "lin", "norm", "cell.gates"])
    def test_a_name_that_converts_nothing_is_refused(self, name):
        td = layers.TimeDistributed(layers.Dense(2, activation="sigmoid", name="step"), name="td")
        inner = keras.Sequential([keras.Input((3, 2)), td], name="inner")
        stack = [keras.Input((3, 2)), inner, layers.Dense(2, name="lin")]
        stack += [layers.BatchNormalization(name="norm"), layers.LSTM(2, name="cell")]
        old = keras.Sequential(stack)
        with pytest.raises(ValueError, match=rf"\['{name}'\].*inner/td/step \(sigmoid\).*cell.act"):
            to_spin(old, where=name)

    def test_an_operation_has_a_name_too(self):
        x = keras.Input((4,))
        old = keras.Model(x, keras.ops.relu(layers.Dense(3)(x)))
        ((name, _, reason),) = to_spin(old).spin_conversion.left_alone
        assert "list it in `where`" in reason
        assert names(to_spin(old, where=name).spin_conversion.converted) == [name]

    def test_unknown_function_needs_its_name(self):
        def cube(x):
            return x**3

        old = small(cube)
        assert names(to_spin(old).spin_conversion.left_alone) == ["first", "second", "head"]
        assert names(to_spin(old, where="first").spin_conversion.converted) == ["first"]


class TestGraphs:
    def test_shared_layers_stay_shared(self):
        a, b = keras.Input((4,)), keras.Input((4,))
        shared = layers.Dense(3, activation="sigmoid", name="shared")
        old = keras.Model([a, b], layers.Dense(1)(layers.add([shared(a), shared(b)])))
        spin = to_spin(old)
        assert len(spinkeras.spin_neurons(spin)) == 1
        assert len(spin.weights) == len(old.weights) + 5
        x = [data(8, 4), data(8, 4) + 1]
        assert np.max(np.abs(outputs(spin, x) - outputs(old, x))) < 2 * 3 * CURVE * 2

    def test_an_activation_layer_used_at_several_places_is_one_neuron_for_each(self):
        relu, shared = layers.ReLU(name="relu"), layers.PReLU(name="shared")
        first = {"data_format": "channels_first", "padding": "same"}
        x = keras.Input((4, 6))
        flow = relu(layers.Conv1D(5, 3, **first)(x))
        flow = shared(shared(relu(layers.Conv1D(3, 3, **first)(flow))))
        inner = keras.Sequential([keras.Input((2,)), relu, layers.Dense(7)])
        flow = relu(inner(layers.Dense(2)(layers.Flatten()(flow))))
        old = keras.Model(x, layers.Dense(1)(flow))
        spin = to_spin(old)
        neurons = {n.name: n.pulse_width.shape for n in spinkeras.spin_neurons(spin)}
        assert sorted(neurons) == ["relu", *(f"relu_use_{k}" for k in (2, 3, 4)), "shared"]
        del neurons["shared"]
        assert sorted(neurons.values()) == [(2,), (3, 1), (5, 1), (7,)]
        assert run(spin, data(8, 4, 6))["energy_pj"][0] > 0
        assert len(spin.spin_conversion.converted) == 5

    @pytest.mark.parametrize("width", [3, 5])
    @pytest.mark.parametrize("place", some_slow(PLACES, "functional", "sequential"))
    def test_what_has_no_weights_is_one_neuron_for_each_use(self, place, width, tmp_path):
        old = PLACES[place](layers.ReLU(name="act"), width)
        spin = to_spin(old)
        neurons = spinkeras.spin_neurons(spin)
        assert len({id(neuron) for neuron in neurons}) == 2
        x = data(4, *spin.input_shape[1:])
        spin(x)
        width = 3 if place == "model" else width
        assert sorted(neuron.pulse_width.size for neuron in neurons) == sorted((3, width))
        report = spin.spin_conversion
        assert len(report.converted) == 2
        assert sum("at use 2" in note for _, _, note in report.converted) == (place != "argument")
        neurons[0].pulse_width = 5e-9
        np.testing.assert_allclose(neurons[1].pulse_width, 2e-9, rtol=1e-6)
        spin.save(tmp_path / "m.keras")
        loaded = keras.models.load_model(tmp_path / "m.keras")
        np.testing.assert_allclose(outputs(loaded, x), outputs(spin, x), atol=1e-6)

    @pytest.mark.parametrize("kind", ["dense", "model", "deep model", "PReLU"])
    def test_what_has_weights_is_one_neuron_and_the_report_says_so(self, kind):
        inner = layers.Dense(4, activation="relu", name="shared")
        if kind == "PReLU":
            inner = layers.PReLU(name="shared")
        elif kind != "dense":
            parts = [keras.Input((4,)), layers.Dense(4), layers.ReLU(name="act")]
            inner = keras.Sequential(parts, name="block")
            if kind == "deep model":
                inner = keras.Sequential([keras.Input((4,)), inner], name="shared")
        x = keras.Input((4,))
        spin = to_spin(keras.Model(x, layers.Dense(2)(inner(layers.Dense(4)(inner(x))))))
        assert len(spinkeras.spin_neurons(spin)) == 1
        ((_, _, note),) = spin.spin_conversion.converted
        assert f"one neuron, like the weights, for all 2 uses of {inner.name}" in note

    def test_nested_models_and_skip_connections(self):
        inner_in = keras.Input((6,))
        inner = keras.Model(
            inner_in, layers.Dense(6, activation="sigmoid", name="d")(inner_in), name="inner"
        )
        tail = keras.Sequential(
            [keras.Input((6,)), layers.Dense(4, activation="relu", name="r"), layers.Dense(2)],
            name="tail",
        )
        x = keras.Input((6,))
        old = keras.Model(x, tail(layers.add([x, inner(x)])))
        spin = to_spin(old)
        assert names(spin.spin_conversion.converted) == ["inner/d", "tail/r"]
        assert len(spinkeras.spin_neurons(spin)) == 2
        assert run(spin, data(8, 6))["energy_pj"][0] > 0

    def test_time_distributed(self):
        old = keras.Sequential(
            [
                keras.Input((5, 4)),
                layers.TimeDistributed(layers.Dense(3, activation="sigmoid", name="step")),
                layers.GlobalAveragePooling1D(),
                layers.Dense(1),
            ]
        )
        spin = to_spin(old)
        assert len(spinkeras.spin_neurons(spin)) == 1
        x = data(8, 5, 4)
        head = np.abs(old.layers[-1].get_weights()[0]).sum()
        assert np.max(np.abs(outputs(spin, x) - outputs(old, x))) < CURVE * head

    @pytest.mark.parametrize("shared_axes", [None, (1,)])
    def test_layers_shared_by_time_distributed(self, shared_axes):
        def net(*kinds):
            dense = layers.Dense(3, activation="sigmoid", name="d")
            inputs = [keras.Input((5, 4) if kind == "td" else (4,)) for kind in kinds]
            calls = [layers.TimeDistributed(dense) if kind == "td" else dense for kind in kinds]
            return keras.Model(inputs, [call(x) for call, x in zip(calls, inputs)])

        spin = to_spin(net("td", "td"), shared_axes=shared_axes)
        (neuron,) = spinkeras.spin_neurons(spin)
        assert neuron.pulse_width.size == (1 if shared_axes else 3)
        assert [source(output) for output in spin.outputs] == 2 * [neuron]
        for kinds in (("td", "direct"), ("direct", "td")):
            if shared_axes:
                with pytest.raises(ValueError, match="both inside TimeDistributed and outside"):
                    to_spin(net(*kinds), shared_axes=shared_axes)
            else:
                spin = to_spin(net(*kinds))
                assert len({source(output) for output in spin.outputs}) == 1
                assert len(spinkeras.spin_neurons(spin)) == 1

    def test_time_distributed_model(self):
        inner = keras.Sequential([keras.Input((4,)), layers.Dense(3, activation="relu", name="d")])
        old = keras.Sequential(
            [keras.Input((5, 4)), layers.TimeDistributed(inner), layers.Flatten(), layers.Dense(1)]
        )
        spin = to_spin(old)
        assert len(spinkeras.spin_neurons(spin)) == 1
        assert run(spin, data(4, 5, 4))["energy_pj"][0] > 0

    def test_spin_neurons_already_there_are_copied(self):
        old = keras.Sequential(
            [keras.Input((4,)), layers.Dense(3), spinkeras.SpinNeuron("stt_arm", name="spin")]
        )
        old.layers[-1].pulse_width = 5e-9
        spin = to_spin(old)
        assert spin.spin_conversion == ConversionReport((), ())
        np.testing.assert_allclose(spin.layers[-1].pulse_width, 5e-9, rtol=1e-6)

    def test_activations_inside_kept_layers_keep_their_weights(self):
        @keras.saving.register_keras_serializable(package="test_conversion")
        class Holder(layers.Layer):
            def __init__(self, **kwargs):
                super().__init__(**kwargs)
                self.act = layers.PReLU()

            def call(self, x):
                return self.act(x)

        slopes = layers.PReLU()
        old = keras.Sequential(
            [
                keras.Input((4,)),
                layers.Dense(3, activation=spinkeras.SpinNeuron("stt_arm"), name="spin"),
                layers.Dense(3, activation=slopes, name="kept"),
                layers.Dense(3, activation=slopes, name="gone"),
                Holder(name="holder"),
            ]
        )
        old(data(1, 4))
        spinkeras.spin_neurons(old)[0].pulse_width = 5e-9
        slopes.alpha.assign([1.0, 2.0, 3.0])
        old.get_layer("holder").act.alpha.assign([4.0, 5.0, 6.0])
        new = to_spin(old, where="gone").get_layer
        np.testing.assert_allclose(new("spin").activation.pulse_width, 5e-9, rtol=1e-6)
        np.testing.assert_array_equal(new("kept").activation.alpha, [1.0, 2.0, 3.0])
        np.testing.assert_array_equal(new("holder").act.alpha, [4.0, 5.0, 6.0])

    def test_lambda_layers_are_copied(self):
        def double(x):  # a function that Keras could not find by its name
            return 2 * x

        stack = [keras.Input((4,)), layers.Dense(3), layers.Lambda(double)]
        old = keras.Sequential([*stack, layers.Lambda(lambda x: keras.ops.square(x), (3,))])
        np.testing.assert_array_equal(outputs(to_spin(old), data(2, 4)), outputs(old, data(2, 4)))

    def test_subclassed_model_is_refused(self):
        class Net(keras.Model):
            def call(self, x):
                return x

        with pytest.raises(ValueError, match="subclassed"):
            to_spin(Net())

    def test_layer_of_an_unknown_class_is_copied_and_named(self):
        @keras.saving.register_keras_serializable(package="test_conversion")
        class Wide(layers.Dense):
            def call(self, x):
                return 2 * super().call(x)

        old = keras.Sequential([keras.Input((4,)), Wide(3, activation="relu", name="w")])
        spin = to_spin(old)
        assert "to_spin does not know the class Wide" in spin.spin_conversion.left_alone[0][2]
        np.testing.assert_array_equal(outputs(spin, data(4, 4)), outputs(old, data(4, 4)))


class TestRecurrent:
    @pytest.mark.parametrize(
        ("cell", "gates", "states"),
        [pytest.param(layers.LSTM, 3, 2, marks=pytest.mark.slow), (layers.GRU, 2, 1)],
    )
    def test_sigmoid_and_tanh(self, cell, gates, states):
        old = keras.Sequential([keras.Input((3, 2)), cell(2, name="cell"), layers.Dense(1)])
        spin = to_spin(old)
        report = spin.spin_conversion
        assert names(report.converted) == ["cell.recurrent_activation", "cell.activation"]
        assert report.left_alone == ()
        neurons = {neuron.name: neuron for neuron in spinkeras.spin_neurons(spin)}
        assert not neurons["cell_spin"].bipolar
        assert neurons["cell_state_spin"].bipolar
        x = data(16, 3, 2)
        # Both functions are within the distance of the curves wherever the cell takes them.
        z = np.linspace(-6, 6, 121, dtype="float32")[:, None] * np.ones(2, "float32")
        gate, state = (
            keras.ops.convert_to_numpy(neurons[name](z))
            for name in ("cell_spin", "cell_state_spin")
        )
        assert np.max(np.abs(gate - 1 / (1 + np.exp(-z)))) < CURVE
        assert np.max(np.abs(state - np.tanh(z))) < SIGNED_CURVE
        assert np.max(np.abs(outputs(spin, x) - outputs(old, x))) < 0.3
        # Every function of every unit fires in every step: the energy must count exactly that.
        rows = spinkeras.energy_report(spin, x, print_fn=None).layers
        pulses = {row["name"]: row["pulses"] for row in rows}
        assert pulses == {"cell_spin": gates * 2 * 3, "cell_state_spin": states * 2 * 3}
        assert run(spin, x)["energy_pj"][0] > 0

    def test_one_step_of_lstm_is_within_a_bound(self):
        # h = s(o) tanh(s(i) tanh(g)): from a zero state, with every factor at most 1 and every
        # slope at most 1, the errors of the four functions add up.
        old = keras.Sequential([keras.Input((1, 2)), layers.LSTM(4)])
        x = 3 * data(64, 1, 2)
        bound = CURVE + SIGNED_CURVE + (CURVE + SIGNED_CURVE)
        assert np.max(np.abs(outputs(to_spin(old), x) - outputs(old, x))) < bound

    def test_the_state_stays_where_tanh_is_not_signed(self):
        old = keras.Sequential([keras.Input((3, 2)), layers.LSTM(2, name="cell"), layers.Dense(1)])
        report = to_spin(old, signed=("relu",)).spin_conversion
        assert names(report.converted) == ["cell.recurrent_activation"]
        assert names(report.left_alone) == ["cell.activation"]
        report = to_spin(old, where=["cell.activation"]).spin_conversion
        assert names(report.converted) == ["cell.activation"]

    def test_converted_twice(self):
        old = to_spin(keras.Sequential([keras.Input((3, 2)), layers.GRU(2), layers.Dense(1)]))
        for number, neuron in enumerate(spinkeras.spin_neurons(old)):
            neuron.pulse_width = (5 + number) * 1e-9
        new = to_spin(old)
        for number, neuron in enumerate(spinkeras.spin_neurons(new)):
            np.testing.assert_allclose(neuron.pulse_width, (5 + number) * 1e-9, rtol=1e-6)
        assert new.spin_conversion == ConversionReport((), ())

    def test_saved_and_loaded(self, tmp_path):
        spin = to_spin(keras.Sequential([keras.Input((3, 2)), layers.GRU(2), layers.Dense(1)]))
        x = data(8, 3, 2)
        run(spin, x)
        spin.save(tmp_path / "gru.keras")
        loaded = keras.models.load_model(tmp_path / "gru.keras")
        np.testing.assert_allclose(outputs(loaded, x), outputs(spin, x), atol=1e-6)

    @pytest.mark.slow
    def test_compiled_training_counts_the_energy_of_every_step(self):
        spin = to_spin(keras.Sequential([keras.Input((3, 2)), layers.LSTM(2), layers.Dense(1)]))
        spin.compile(keras.optimizers.SGD(0.0), "mse")  # the energy at one setting
        x = data(16, 3, 2)
        tracker = spinkeras.EnergyTracker()
        history = spin.fit(x, np.zeros((16, 1)), verbose=0, callbacks=[tracker])
        energy = history.history["energy_pj"][0]
        report = spinkeras.energy_report(spin, x, print_fn=None)
        np.testing.assert_allclose(energy, report.total_pj, rtol=1e-5)

    def test_unknown_number_of_steps(self):
        old = keras.Sequential([keras.Input((None, 3)), layers.LSTM(4, name="cell")])
        spin = to_spin(old)
        assert spin.spin_conversion.converted == ()
        assert "number of steps" in spin.spin_conversion.left_alone[0][2]
        np.testing.assert_array_equal(outputs(spin, data(2, 6, 3)), outputs(old, data(2, 6, 3)))

    def test_simple_rnn(self):
        def net(activation):
            return keras.Sequential(
                [keras.Input((3, 2)), layers.SimpleRNN(4, activation=activation, name="cell")]
            )

        for activation in ("sigmoid", "tanh"):
            spin = to_spin(net(activation))
            assert names(spin.spin_conversion.converted) == ["cell.activation"]
            (neuron,) = spinkeras.spin_neurons(spin)
            assert neuron.bipolar == (activation == "tanh")
        assert names(to_spin(net("relu"), signed="relu").spin_conversion.left_alone) == [
            "cell.activation"
        ]

    def test_bidirectional(self):
        old = keras.Sequential(
            [keras.Input((3, 2)), layers.Bidirectional(layers.GRU(2), name="both")]
        )
        spin = to_spin(old)
        assert len({id(neuron) for neuron in spinkeras.spin_neurons(spin)}) == 4
        x = data(16, 3, 2)
        assert np.max(np.abs(outputs(spin, x) - outputs(old, x))) < 0.2
        assert run(spin, x)["energy_pj"][0] > 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ({"model": "m"}, "not 'm'"),
        ({"model": None}, "not None"),
        ({"model": layers.Dense(2, name="d")}, r"'d' is a layer of class Dense.*Put it into"),
        ({"signed": None}, r"signed must be a list .* is None\."),
        ({"signed": [3]}, r"signed must be a list .* is \[3\]\."),
        ({"where": 5}, r"where must be None, a function .* is 5\."),
        ({"where": layers.Dense(2)}, "where must be None, a function .* is <Dense"),
        ({"where": [layers.Dense(2)]}, r"where must be None, a function .* is \[<Dense"),
    ],
)
def test_what_is_given_must_make_sense(arguments, said):
    with pytest.raises(ValueError, match=said):
        to_spin(**{"model": small()} | arguments)


def test_arguments_set_by_to_spin_are_refused():
    with pytest.raises(ValueError, match=r"\['name'\]"):
        to_spin(small(), name="x")
