"""SpinNeuron as a Keras layer, on every backend.

Two private parts have no public name: the bounds of the raw weights (`_ranges`), as read-outs are
clipped to them, and the curve in float64 with which gradients are compared (`curve_at`).
"""

import dataclasses

import keras
import numpy as np
import pytest
from keras import ops

import spinkeras
from spinkeras import NeelBrown, SpinNeuron
from spinkeras.layer.knobs import KNOBS
from spinkeras.physics import laws
from tests.harness import (
    COMPILED,
    FLOAT64,
    OTHER_BACKEND,
    gradients,
    run_layer_test,
    some_slow,
    tensor_gradients,
)
from tests.layer.harness import VARIANTS

pytestmark = pytest.mark.backends


# --- the Keras contract --------------------------------------------------------------------------


@pytest.mark.parametrize(
    "variant",
    [
        pytest.param(name, marks=pytest.mark.slow if name in ("ballistic", "neel_brown") else ())
        for name in VARIANTS
    ],
)
def test_keras_layer_contract(variant):
    kwargs = VARIANTS[variant]
    train = kwargs.get("train", ("pulse_width", "anisotropy"))
    trained = 1 if isinstance(train, str) else len(train)
    run_layer_test(
        SpinNeuron,
        init_kwargs=kwargs,
        input_shape=(2, 5),
        expected_output_shape=(2, 5),
        expected_num_trainable_weights=trained,
        expected_num_non_trainable_weights=5 - trained,
        expected_num_seed_generators=0,
        expected_num_losses=1 if variant == "regularised" else 0,
        supports_masking=True,
        run_training_check=True,
    )


@pytest.mark.parametrize(
    ("shape", "shared", "knobs"),
    [
        ((4, 3), None, (3,)),
        ((4, 6, 3), None, (3,)),
        ((2, 6, 5, 3), None, (3,)),
        ((2, 3, 4, 5, 6), None, (6,)),
        ((2, 6, 5, 3), (1, 2), (1, 1, 3)),
        ((2, 3, 6, 5), (2, 3), (3, 1, 1)),
        ((2, 6, 5, 3), (1, 2, 3), (1, 1, 1)),
        ((2, 6, 3), (), (6, 3)),
        ((2, 6, 3), (-1,), (6, 1)),
    ],
)
def test_any_rank_and_sharing(shape, shared, knobs):
    layer = SpinNeuron(shared_axes=shared)
    x = np.random.default_rng(0).normal(size=shape).astype("float32")
    y = ops.convert_to_numpy(layer(x))
    assert y.shape == shape
    assert layer.pulse_width.shape == layer.gate_voltage.shape == knobs
    assert layer.bias_current.shape == layer.slope.shape == knobs
    again = SpinNeuron.from_config(layer.get_config())
    np.testing.assert_allclose(ops.convert_to_numpy(again(x)), y)


def test_unknown_axes():
    inputs = keras.Input((None, None, 3))
    assert SpinNeuron()(inputs).shape == (None, None, None, 3)
    for shape, shared in (((None,), None), ((4, None), None), ((None, 3), ())):
        with pytest.raises(ValueError, match=r"must know the size of every axis"):
            SpinNeuron(shared_axes=shared)(keras.Input(shape))
    with pytest.raises(ValueError, match=r"shared_axes = \(5,\) names axes \[5\]"):
        SpinNeuron(shared_axes=5)(keras.Input((4, 3)))
    layer = SpinNeuron()
    layer(np.zeros((2, 3), "float32"))
    with pytest.raises(ValueError, match="expected axis -1"):
        layer(np.zeros((2, 4), "float32"))


def test_mask_passes_through():
    inputs = keras.Input((5,), dtype="int32")
    x = keras.layers.Embedding(7, 3, mask_zero=True)(inputs)
    x = SpinNeuron()(x)
    assert keras.src.backend.get_keras_mask(x) is not None
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling1D()(x))
    out = ops.convert_to_numpy(model(np.array([[1, 2, 0, 0, 0], [1, 2, 3, 0, 0]])))
    assert np.isfinite(out).all()


@pytest.mark.parametrize(
    "policy", ["float32", "float64", "float16", "mixed_float16", "mixed_bfloat16"]
)
def test_dtype_policies(policy):
    if not FLOAT64 and policy == "float64":
        pytest.skip("JAX keeps float64 off by default")
    x = np.linspace(-6, 6, 8).reshape(2, 4)
    expected = ops.convert_to_numpy(SpinNeuron(dtype="float32")(x.astype("float32")))
    layer = SpinNeuron(dtype=policy)
    y = layer(x)
    assert keras.backend.standardize_dtype(y.dtype) == layer.compute_dtype
    assert layer.log_pulse_width.dtype in ("float32", "float64")
    tolerance = {"float32": 1e-7, "float64": 1e-6}.get(policy, 1e-2)
    found = ops.convert_to_numpy(ops.cast(y, "float32"))
    np.testing.assert_allclose(found, expected, atol=tolerance)


# --- physics -------------------------------------------------------------------------------------


def test_untrained_neuron_is_a_drop_in_for_sigmoid():
    x = np.linspace(-8, 8, 401, dtype="float32")[:, None]
    for device in spinkeras.presets():
        layer = SpinNeuron(device=device)
        y = ops.convert_to_numpy(layer(x))[:, 0]
        curve = layer.device.switching_curve
        if curve is not None:  # a device that saturates below 1 has its midpoint at half of that
            assert y[200] == pytest.approx(curve.ceiling / 2, abs=1e-6)
            assert (y[201] - y[199]) / (x[201, 0] - x[199, 0]) == pytest.approx(0.25, abs=2e-4)
            assert y[-1] == pytest.approx(curve.ceiling, abs=1e-3)
            continue
        assert y[200] == pytest.approx(0.5, abs=1e-6)
        assert (y[201] - y[199]) / (x[201, 0] - x[199, 0]) == pytest.approx(0.25, abs=2e-4)
        assert np.all(np.diff(y) >= 0)
        assert np.max(np.abs(y - 1 / (1 + np.exp(-x[:, 0])))) < 0.06


@pytest.mark.parametrize("variant", ["default", "raw", "anisotropy", "neel_brown", "ballistic"])
def test_layer_equals_the_numpy_path(variant):
    """float32 layer against float64 NumPy, over the whole box of knobs."""
    layer = SpinNeuron(**VARIANTS[variant])
    layer.build((None, 40))
    rng = np.random.default_rng(5)
    device = layer.device
    layer.pulse_width = np.exp(rng.uniform(*np.log(device.pulse_width_range), 40))
    layer.anisotropy = rng.uniform(*device.anisotropy_range, 40)
    x = np.linspace(-12, 12, 301, dtype="float32")[:, None] * np.ones((1, 40), "float32")
    current = layer.bias_current + layer.current_scale * x.astype("float64")
    expected = spinkeras.switching_probability(
        current, layer.pulse_width, device, layer.anisotropy, layer.switching_model
    )
    found = ops.convert_to_numpy(layer(x))
    # recenter=False adds the rounding of a threshold of about 100 in the input's own units
    np.testing.assert_allclose(found, expected, atol=2e-6)


def test_recentred_knobs_change_the_slope_only():
    layer = SpinNeuron()
    layer.build((None, 5))
    layer.pulse_width = np.geomspace(2e-9, 20e-9, 5)
    np.testing.assert_allclose(
        ops.convert_to_numpy(layer(np.zeros((1, 5), "float32"))), 0.5, atol=1e-6
    )
    expected = spinkeras.slope_at_midpoint(layer.pulse_width, layer.device) * layer.current_scale
    np.testing.assert_allclose(layer.slope, expected, rtol=1e-6)
    assert layer.slope[-1] / layer.slope[0] == pytest.approx(4.79, abs=0.05)


def test_raw_threshold_moves_as_the_device_does():
    layer = SpinNeuron(recenter=False)
    layer.build((None, 3))
    start = layer.bias_current
    layer.pulse_width = [2e-9, 5e-9, 20e-9]
    np.testing.assert_array_equal(layer.bias_current, start)
    y = ops.convert_to_numpy(layer(np.zeros((1, 3), "float32")))[0]
    expected = spinkeras.switching_probability(start, layer.pulse_width, layer.device)
    np.testing.assert_allclose(y, expected, atol=2e-6)
    assert y[2] > 0.999


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize(
    "variant", some_slow(["default", "raw", "neel_brown", "ballistic"], "default", "raw")
)
def test_gradients_match_central_differences(variant, training):
    """Input and both knobs, over the box; the differences are taken in the float64 NumPy path."""
    options = VARIANTS[variant]
    layer = SpinNeuron(dtype="float32", **options)
    layer.build((None, 1))
    device = layer.device
    rng = np.random.default_rng(11)
    bounds = [layer._ranges[knob].bounds for knob in ("pulse_width", "anisotropy")]
    unit = device.critical_current_per_stability

    def numpy_path(x, w, k):
        curve = layer.curve_at(
            device.nominal_pulse_width * np.exp(layer.knob_scale * w),
            device.anisotropy * np.exp(layer.knob_scale * k),
        )
        z = x * layer.current_scale / unit
        if not layer.recenter:
            z = z + layer._nominal_midpoint() - curve.midpoint
        return curve.probability(z)

    def tensor_path(x, w, k):
        with keras.StatelessScope([(layer.log_pulse_width, w), (layer.log_anisotropy, k)]):
            return ops.sum(layer(x, training=training))

    for _ in range(20):
        point = [rng.uniform(-2.5, 2.5), *(rng.uniform(0.9 * a, 0.9 * b) for a, b in bounds)]
        if variant == "raw":  # stay in the transition, which moves
            point[1] *= 0.05
            point[2] *= 0.1
        shapes = ((1, 1), (1,), (1,))
        analytic = gradients(
            tensor_path, *(np.full(s, v, "float32") for s, v in zip(shapes, point))
        )
        size = max(abs(g.item()) for g in analytic)
        for k in range(3):
            step = np.zeros(3)
            step[k] = 1e-5
            up, down = (numpy_path(*(np.array(point) + s)) for s in (step, -step))
            central = float(up - down) / 2e-5
            assert analytic[k].item() == pytest.approx(central, rel=2e-5, abs=2e-5 * size)


@pytest.mark.parametrize("recenter", [True, False])
@pytest.mark.parametrize("training", [True, False])
def test_second_derivatives_match_central_differences(recenter, training):
    """Of the input twice, and of the input and a knob, as a gradient penalty needs them."""
    layer = SpinNeuron(recenter=recenter)
    layer.build((None, 1))
    device, unit = layer.device, layer.device.critical_current_per_stability

    def slope(x, *weights):
        def probability(x):
            with keras.StatelessScope(list(zip(layer.knob_weights(), weights))):
                return ops.sum(layer(x, training=training))

        return ops.sum(tensor_gradients(probability, x)[0])

    def numpy_slope(x, w, k):
        curve = layer.curve_at(
            device.nominal_pulse_width * np.exp(layer.knob_scale * w),
            device.anisotropy * np.exp(layer.knob_scale * k),
        )
        z = np.array([x + 1e-4, x - 1e-4]) * (layer.current_scale / unit)
        if not recenter:
            z = z + layer._nominal_midpoint() - curve.midpoint
        up, down = curve.probability(z)
        return (up - down) / 2e-4

    for x in (-4.0, -1.3, 0.2, 1.1, 3.0):
        point = [x, 0.03, 0.01]
        shapes = ((1, 1), (1,), (1,))
        found = gradients(slope, *(np.full(s, v, "float32") for s, v in zip(shapes, point)))
        for k in range(3):
            step = np.zeros(3)
            step[k] = 1e-4
            up, down = (numpy_slope(*(np.array(point) + s)) for s in (step, -step))
            assert found[k].item() == pytest.approx((up - down) / 2e-4, rel=1e-3, abs=2e-5)


@pytest.mark.skipif(OTHER_BACKEND, reason="TensorFlow's forward mode")
def test_forward_mode_is_right_and_leaves_the_gradient_right():
    """Eagerly and in a graph, whose kernels may be compiled while no tape records."""
    import tensorflow as tf

    layer = SpinNeuron()
    layer.build((None, 3))
    x = tf.reshape(tf.linspace(-2.0, 2.0, 6), (2, 3))

    def jvp():
        with tf.autodiff.ForwardAccumulator(x, tf.ones_like(x)) as forward:
            return forward.jvp(layer(x, training=True))

    slope = jvp()
    np.testing.assert_allclose(tf.function(jvp, autograph=False)(), slope, rtol=1e-5)
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = layer(x, training=True)
    np.testing.assert_allclose(slope, tape.gradient(y, x), rtol=1e-5)
    np.testing.assert_allclose(slope, gradients(lambda v: ops.sum(layer(v)), x)[0], rtol=1e-5)


@pytest.mark.parametrize(
    ("variant", "dtype"),
    [
        *(
            pytest.param(v, "float32", marks=pytest.mark.slow if v == "ballistic" else ())
            for v in VARIANTS
        ),
        *([("default", "float64")] if FLOAT64 else []),
    ],
)
def test_training_and_inference_agree(variant, dtype):
    """One compiled kernel and plain operations: the result and its gradients."""
    layer = SpinNeuron(dtype=dtype, **VARIANTS[variant])
    assert_kernel_agrees(layer, (6, 5), dtype)


@pytest.mark.parametrize("shared", [None, (1,), (1, 2), (2, 3), (1, 2, 3), ()])
def test_training_and_inference_agree_for_images(shared):
    assert_kernel_agrees(SpinNeuron(shared_axes=shared), (3, 4, 2, 3), "float32")


@pytest.mark.parametrize("shape", [(19, 5), (11, 4, 2, 3)])
def test_gradients_of_a_batch_are_the_sums_over_its_samples(shape):
    layer = SpinNeuron()
    layer.build((None, *shape[1:]))
    x = (3 * np.random.default_rng(4).normal(size=shape)).astype("float32")
    weights = np.full((2, shape[-1]), 0.2, "float32")

    def total(x, w, k):
        with keras.StatelessScope([(layer.log_pulse_width, w), (layer.log_anisotropy, k)]):
            return ops.sum(layer(x, training=True) ** 2)

    found = gradients(total, x, *weights)
    parts = [gradients(total, x[k : k + 1], *weights) for k in range(len(x))]
    for k in (1, 2):
        each = np.array([part[k] for part in parts], "float64")
        size = np.abs(each).sum(0).max()
        np.testing.assert_allclose(found[k], each.sum(0), atol=2e-5 * size)


def assert_kernel_agrees(layer, shape, dtype):
    """Of both forms with plain operations in float64, where the backend has it."""
    exact = SpinNeuron.from_config({**layer.get_config(), "dtype": "float64" if FLOAT64 else dtype})
    for each in (layer, exact):
        each.build((None, *shape[1:]))
    rng = np.random.default_rng(3)
    weights = [
        rng.uniform(*np.multiply(layer._ranges[knob].bounds, 0.9), w.shape).astype(dtype)
        for knob, w in zip(("pulse_width", "anisotropy"), layer.knob_weights())
    ]
    x = (3 * rng.normal(size=shape)).astype(dtype)
    upstream = rng.normal(size=shape)

    def evaluate(layer, training):
        def total(x, *weights):
            with keras.StatelessScope(list(zip(layer.knob_weights(), weights))):
                y = layer(x, training=training)
                return ops.sum(y * ops.cast(upstream, y.dtype)), y

        inputs = [value.astype(layer.dtype) for value in (x, *weights)]
        _, y = total(*(ops.convert_to_tensor(value) for value in inputs))
        # The kernels are in a graph.
        return ops.convert_to_numpy(y), gradients(lambda *v: total(*v)[0], *inputs, graph=training)

    y, slopes = evaluate(exact, training=False)
    tolerance = 1e-12 if dtype == "float64" else 1e-6
    both = [evaluate(layer, training) for training in (False, True)]
    np.testing.assert_allclose(both[1][0], both[0][0], atol=tolerance)
    for found_y, found in both:
        np.testing.assert_allclose(found_y, y, atol=tolerance)
        for knob, a, b in zip(("x", "pulse_width", "anisotropy"), slopes, found):
            if knob == "x" or knob in layer.trained_knobs:
                np.testing.assert_allclose(b, a, atol=20 * tolerance * np.abs(a).max())


@pytest.mark.parametrize(
    ("dtype", "training"),  # a kernel computes in float32 whatever the dtype
    [("float32", True), *((dtype, False) for dtype in ("float32", "bfloat16", "float16"))],
)
@pytest.mark.parametrize("variant", VARIANTS)
def test_everything_is_finite_for_huge_inputs(variant, dtype, training):
    layer = SpinNeuron(dtype=dtype, **VARIANTS[variant])
    values = np.array([[-1e6, -1e3, -30, -1, 0, 1, 30, 1e3, 1e6]], "float64").T
    layer.build((None, 1))

    def total(x, w, k):
        variables = [(layer.log_pulse_width, w), (layer.log_anisotropy, k)]
        with keras.StatelessScope(variables):
            return ops.sum(ops.cast(layer(x, training=training), "float32"))

    with np.errstate(over="ignore"):  # 1e6 is infinity in float16
        x = ops.cast(ops.convert_to_tensor(values.astype("float32")), dtype)
    y = ops.convert_to_numpy(ops.cast(layer(x, training=training), "float32"))
    assert np.isfinite(y).all()
    assert y[0] < 1e-3
    zeros = [np.zeros(1, "float32")] * 2
    names = ("x", "pulse_width", "anisotropy")
    for name, gradient in zip(names, gradients(lambda *a: total(*a), x, *zeros)):
        if name == "x" or name in layer.trained_knobs:
            assert np.isfinite(np.asarray(gradient, "float32")).all()


@pytest.mark.parametrize("training", [False, True])
@pytest.mark.parametrize("ends", [(0.0, 1.0), (0.05, 0.9)])
def test_a_saturated_input_has_no_gradient(ends, training):
    curve = spinkeras.EmpiricalCurve(
        threshold=50e-6,
        slope=0.05e6,
        pulse_width=2e-9,
        slope_exponent=0.5,
        c=0.3,
        c_rate=0.1,
        floor=ends[0],
        ceiling=ends[1],
    )
    for layer in (SpinNeuron(), SpinNeuron(switching_model=curve)):
        layer.build((None, 2))

        def total(x, w, k, layer=layer):
            with keras.StatelessScope([(layer.log_pulse_width, w), (layer.log_anisotropy, k)]):
                return ops.sum(layer(x, training=training))

        x = np.array([[np.inf, -np.inf], [1e9, -1e9], [1e4, -1e4]], "float32")
        zeros = np.zeros(2, "float32")
        for gradient in gradients(total, x, zeros, zeros):
            np.testing.assert_allclose(gradient, 0, atol=1e-6)  # P may be rounded


@pytest.mark.parametrize("training", [False, True])
def test_nan_is_not_hidden(training):
    y = SpinNeuron()(np.array([[np.nan, 0.0]], "float32"), training=training)
    y = ops.convert_to_numpy(y)
    assert np.isnan(y[0, 0])
    assert not np.isnan(y[0, 1])


@pytest.mark.backends
@pytest.mark.parametrize("options", [{"jit_compile": False}, COMPILED, {"run_eagerly": True}])
def test_nan_is_not_hidden_in_a_fit(options):
    """TensorFlow before 2.21 loses it in compiled code, where maximum and minimum are finite."""
    options = {"jit_compile": True} if options is True else options
    model = keras.Sequential([keras.Input((2,)), SpinNeuron()])
    model.compile("sgd", "mse", **options)
    x = np.array([[np.nan, 0.0], [0.1, 0.2]], "float32")
    history = model.fit(x, np.zeros((2, 2)), verbose=0).history
    assert np.isnan(history["loss"][-1])


# --- knobs ---------------------------------------------------------------------------------------


UNITS = {"pulse_width": "s", "gate_voltage": "V", "anisotropy": r"J/m\^3"}


@pytest.mark.parametrize("name", UNITS)
@pytest.mark.parametrize(("axes", "knobs"), [(None, (3,)), ((1,), (1, 3)), ((1, 2), (1, 1))])
def test_a_setter_speaks_of_what_it_was_given(name, axes, knobs):
    layer = SpinNeuron(shared_axes=axes)
    built = "is not built, so it has no knobs yet: call the model once on data"
    for ask in (lambda: getattr(layer, name), lambda: setattr(layer, name, 1.0)):
        with pytest.raises(ValueError, match=built):
            ask()
    layer.build((None, 2, 3))
    low, high = getattr(layer.device, f"{name}_range")
    middle = (low + 2 * high) / 3
    for value in (middle, np.full(knobs, middle), np.full(knobs, middle).tolist()):
        setattr(layer, name, value)
        np.testing.assert_allclose(getattr(layer, name), np.full(knobs, middle), rtol=1e-5)
    for value in (low, high, [low], [high]):  # the ends belong to the range
        setattr(layer, name, value)
    setattr(layer, name, middle)
    before = layer.get_weights()
    for shape in ((2,), (0,), (2, 3), (1, 1, 3)):
        with pytest.raises(
            ValueError, match=rf"^{name} has values of the shape .* in {UNITS[name]}"
        ):
            setattr(layer, name, np.full(shape, middle))
    for value in (high + 3 * (high - low), low - 3 * (high - low), np.nan, np.inf):
        for given in (value, np.where(np.arange(knobs[-1]), middle, value)):
            with pytest.raises(ValueError, match=rf"^{name} = .* {UNITS[name]} .*\({name}_range\)"):
                setattr(layer, name, given)
    for a, b in zip(layer.get_weights(), before):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("built", [False, True])
def test_an_input_is_one_tensor_of_real_numbers(built):
    x = np.ones((2, 3), "float32")
    given = [x.astype("complex64"), [x], {"a": x}, [x, x], (x, x)]
    for value in given[: 3 if built else None]:  # Keras itself counts the inputs of a built layer
        layer = SpinNeuron()
        if built:
            layer.build((None, 3))
        with pytest.raises(ValueError, match=r"needs one tensor of real numbers as input; got"):
            layer(value)
    assert SpinNeuron()(x.astype("int32")).shape == (2, 3)


@pytest.mark.parametrize("scale", [0.3, 1, 10.0, 500])
def test_a_current_scale_in_microampere_is_refused(scale, device):
    for name in spinkeras.presets():
        with pytest.raises(ValueError, match=rf"current_scale = {scale:g} A .* 10 uA is 10e-6"):
            SpinNeuron(name, train=(), current_scale=scale)
    # A device that needs huge currents has huge scales, also after it was saved.
    odd = device.replace(damping=1.0, spin_torque_efficiency=1e-3)
    layer = SpinNeuron(odd, current_scale=scale / 2)
    assert SpinNeuron.from_config(layer.get_config()).current_scale == scale / 2


@pytest.mark.parametrize("first", KNOBS)
def test_a_knob_is_trained_once(first):
    other = next(knob for knob in KNOBS if knob != first)
    assert SpinNeuron(train=[first, first]).trained_knobs == (first,)
    assert SpinNeuron(train=(first, other, first)).trained_knobs == (first, other)


def test_setters_and_readouts():
    layer = SpinNeuron()
    layer.build((None, 2))
    layer.pulse_width = 5e-9
    np.testing.assert_allclose(layer.pulse_width, 5e-9, rtol=1e-6)
    layer.gate_voltage = [-1.0, 0.5]
    np.testing.assert_allclose(layer.gate_voltage, [-1.0, 0.5], atol=1e-5)
    np.testing.assert_allclose(
        layer.anisotropy, layer.device.anisotropy_at(np.array([-1.0, 0.5])), rtol=1e-6
    )
    middle = spinkeras.midpoint_current(layer.pulse_width, layer.device, layer.anisotropy)
    np.testing.assert_allclose(layer.bias_current, middle, rtol=1e-9)
    for bad in (1e-9, 21e-9, -1.0, np.nan, 0.0):
        with pytest.raises(ValueError, match=r"pulse_width = .* s is outside the range"):
            layer.pulse_width = bad
    with pytest.raises(ValueError, match=r"gate_voltage = 2 V is outside .* \[-1, 1\] V"):
        layer.gate_voltage = 2.0
    bare = SpinNeuron(layer.device.replace(vcma_coefficient=0.0), train="pulse_width")
    bare.build((None, 3))
    bare.gate_voltage = 0.0
    with pytest.raises(ValueError, match=r"gate_voltage = 0.1 V: this device has no gate"):
        bare.gate_voltage = [0.0, 0.1, 0.0]
    np.testing.assert_allclose(layer.pulse_width, 5e-9, rtol=1e-6)


@pytest.mark.parametrize("value", [-50.0, 50.0])
def test_box_holds_from_the_start(value):
    layer = SpinNeuron(
        pulse_width_initializer=keras.initializers.Constant(value),
        anisotropy_initializer=keras.initializers.Constant(value),
    )
    layer.build((None, 3))
    for knob, weight in zip(KNOBS, layer.knob_weights()):  # the read-outs would clip
        end = layer._ranges[knob].bounds[0 if value < 0 else 1]
        np.testing.assert_allclose(ops.convert_to_numpy(weight), end, rtol=1e-6)
    end = layer.device.pulse_width_range[0 if value < 0 else 1]
    np.testing.assert_allclose(layer.pulse_width, end, rtol=1e-6)
    np.testing.assert_allclose(layer.gate_voltage, 1.0 if value < 0 else -1.0, atol=1e-5)


@pytest.mark.parametrize("jit", [False, COMPILED])
def test_box_holds_under_an_absurd_learning_rate(jit):
    model = keras.Sequential([keras.Input((6,)), SpinNeuron(), keras.layers.Dense(1)])
    model.compile(keras.optimizers.SGD(1e4), "mse", jit_compile=jit)
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, 6)), rng.normal(size=(64, 1))
    layer = model.layers[0]
    for _ in range(3):
        model.train_on_batch(x, y)
        for knob, weight in zip(KNOBS, layer.knob_weights()):  # the read-outs would clip
            low, high = layer._ranges[knob].bounds
            raw = ops.convert_to_numpy(weight)
            assert np.all((raw >= low - 1e-6) & (raw <= high + 1e-6))
    assert len(np.unique(layer.pulse_width)) > 1


@pytest.mark.slow
def test_a_knob_comes_back_from_the_wall():
    """Projection, unlike clipping in the forward pass, keeps the gradient alive."""
    layer = SpinNeuron(train="pulse_width")
    model = keras.Sequential([keras.Input((1,)), layer])
    layer.pulse_width = 20e-9
    model.compile(keras.optimizers.Adam(0.05), "mse")
    x = np.linspace(-2, 2, 64)[:, None]
    target = ops.convert_to_numpy(SpinNeuron()(x.astype("float32")))  # a 2 ns neuron
    model.fit(x, target, epochs=60, batch_size=64, verbose=0)
    assert layer.pulse_width[0] < 4e-9


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"device": "nonsense"}, "Unknown preset 'nonsense'"),
        ({"switching_model": "magic"}, "Unknown switching_model"),
        ({"current_scale": -1.0}, "current_scale = -1 A per unit input is outside"),
        ({"current_scale": float("nan")}, "current_scale = nan .* is not finite"),
        ({"knob_scale": 0.0}, r"knob_scale = 0 \(dimensionless\) is outside"),
        ({"switching_model": NeelBrown}, "Unknown switching_model <class"),
        ({"switching_model": NeelBrown(attempt_time=1e-7)}, "never reaches 1/2"),
        ({"learning_rate": 1}, "Unrecognized keyword"),
    ],
)
def test_bad_arguments(kwargs, message):
    with pytest.raises(ValueError, match=message):
        SpinNeuron(**kwargs)


def test_device_without_room_for_a_knob(device):
    stiff = device.replace(vcma_coefficient=0.0)
    with pytest.raises(ValueError, match=r"cannot change its anisotropy.*leave 'anisotropy' out"):
        SpinNeuron(stiff)
    layer = SpinNeuron(stiff, train="pulse_width")
    layer.build((None, 2))
    np.testing.assert_array_equal(layer.gate_voltage, 0)
    wide = device.replace(pulse_width_range=(2e-9, 1e-3))
    with pytest.raises(ValueError, match="domain of the macrospin closed form"):
        SpinNeuron(wide)


def test_ballistic_warns_for_a_box_it_cannot_describe():
    with pytest.warns(UserWarning, match="ballistic law is inaccurate"):
        SpinNeuron(switching_model="ballistic")


# --- in models of every build --------------------------------------------------------------------


# --- training ------------------------------------------------------------------------------------


@pytest.mark.parametrize("jit", [False, pytest.param(True, marks=pytest.mark.slow)])
def test_training_finds_the_slope_of_the_data(jit):
    """A student recovers the pulse widths of a teacher."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(512, 4)).astype("float32") * 3
    teacher = SpinNeuron()
    teacher.build((None, 4))
    teacher.pulse_width = [2.5e-9, 5e-9, 9e-9, 15e-9]
    y = ops.convert_to_numpy(teacher(x))
    model = keras.Sequential([keras.Input((4,)), SpinNeuron(train="pulse_width")])
    model.compile(keras.optimizers.Adam(0.02), "mse", jit_compile=jit)
    model.fit(x, y, epochs=60, batch_size=64, verbose=0)
    np.testing.assert_allclose(model.layers[0].pulse_width, teacher.pulse_width, rtol=0.02)


def test_only_the_trained_knobs_move():
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, 3)), rng.normal(size=(64, 1))
    for train in ((), ("pulse_width",), ("anisotropy",), ("pulse_width", "anisotropy")):
        model = keras.Sequential(
            [keras.Input((3,)), SpinNeuron(train=train), keras.layers.Dense(1)]
        )
        model.compile(keras.optimizers.SGD(1.0), "mse")
        model.fit(x, y, epochs=2, verbose=0)
        layer = model.layers[0]
        assert np.any(np.abs(layer.pulse_width / 2e-9 - 1) > 1e-5) == ("pulse_width" in train)
        assert np.any(np.abs(layer.gate_voltage) > 1e-4) == ("anisotropy" in train)


def test_a_subclass_with_a_constructor_of_its_own_trains_as_the_class():
    class Arm(SpinNeuron):
        def __init__(self, factor, **kwargs):
            super().__init__(device="stt_arm", **kwargs)
            self.factor = factor

        def response(self, inputs, *args, **kwargs):
            return self.factor * super().response(inputs, *args, **kwargs)

    x = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
    losses = []
    for layer in (Arm(1.0), SpinNeuron("stt_arm"), Arm(0.5)):
        model = keras.Sequential([keras.Input((3,)), layer])
        model.compile("sgd", "mse")
        tracker = spinkeras.EnergyTracker()
        history = model.fit(x, x, epochs=2, verbose=0, shuffle=False, callbacks=[tracker]).history
        losses.append([history["loss"][-1], history["energy_pj"][-1]])
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-5)
    assert abs(losses[2][0] - losses[1][0]) > 0.01


def test_a_switching_model_of_ones_own_that_has_no_hash_trains():
    @dataclasses.dataclass
    class Model:
        def curve(self, device):
            return laws.macrospin_curve

    x = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
    losses = []
    for options in ({"switching_model": Model()}, {}):
        model = keras.Sequential([keras.Input((3,)), SpinNeuron(**options)])
        model.compile("sgd", "mse")
        losses.append(model.fit(x, x, epochs=2, verbose=0, shuffle=False).history["loss"])
    np.testing.assert_allclose(*losses, rtol=1e-5)


@pytest.mark.skipif(OTHER_BACKEND, reason="Keras asks for the number of steps there")
@pytest.mark.parametrize("options", some_slow([{}, {"spread": spinkeras.ChipSpread()}], {}))
def test_time_distributed_over_an_unknown_number_of_steps_has_gradients(options):
    """`tf.vectorized_map`, which Keras then uses, drops gradients that are written by hand."""
    import tensorflow as tf

    # Keras 3.15 takes as many steps as there are samples.
    x = np.random.default_rng(0).normal(scale=2, size=(5, 5, 3)).astype("float32")
    x[0, 0] = -1e6, 1e6, 0
    results = []
    for steps in (5, None):
        layer = SpinNeuron(**options)
        whole = keras.layers.TimeDistributed(layer)
        whole.build((None, steps, 3))

        @tf.function(input_signature=[tf.TensorSpec((None, steps, 3))])
        def both(x, whole=whole, layer=layer):
            with tf.GradientTape() as tape:
                tape.watch(x)
                value = whole(x, training=True)
            weights = [v.value for v in layer.trainable_variables]
            return value, tape.gradient(value, [x, *weights])

        results.append(tf.nest.flatten(both(x)))
    for known, unknown in zip(*results):
        assert np.any(known != 0)
        np.testing.assert_allclose(known, unknown, rtol=1e-4, atol=1e-6)
