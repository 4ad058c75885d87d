"""The forms of the curve in single precision, against algebra in float64."""

import functools

import keras
import numpy as np
import pytest

import spinkeras
from spinkeras import cloglog, fusion, kernels, switching
from spinkeras.constraints import KNOBS, knob_range

pytestmark = pytest.mark.skipif(
    keras.backend.backend() != "tensorflow", reason="the forms for compiled kernels are TensorFlow"
)
LOG_SKEWS = (0.0, 0.5, 1.5, cloglog.LEAST_LOG_SKEW, 4.0, 8.0, 12.0, switching.MAX_LOG_SKEW)
FORMS = {
    "plain": (cloglog.plain, LOG_SKEWS),
    "skewed": (cloglog.skewed, LOG_SKEWS[3:]),
    "powers": (kernels.fast, LOG_SKEWS),
    "polynomials": (
        functools.partial(kernels.fast, log_skews=(3.5, switching.MAX_LOG_SKEW)),
        (3.5, 3.7, *LOG_SKEWS[4:]),
    ),
    "polynomials, one curve": (functools.partial(kernels.fast, log_skews=(6.0, 6.0)), (6.0,)),
}


@pytest.mark.parametrize(
    ("form", "log_skew"), [(form, s) for form, (_, skews) in FORMS.items() for s in skews]
)
def test_forms_in_single_precision(form, log_skew):
    """Value and derivative against float64 algebra, from the Weibull to the Gumbel shape."""
    skew = np.exp(log_skew)
    scale = -np.log(-np.expm1(-np.log(2) / skew))
    z = np.linspace(-70, 3.5, 4001).astype("float32") - np.float32(np.log(scale))
    y = scale * np.exp(z.astype("float64"))
    log_base = np.where(y < 0.5, np.log(-np.expm1(-y)), np.log1p(-np.exp(-np.maximum(y, 0.5))))
    exact = np.exp(skew * log_base)
    by_z = skew * exact * y / np.expm1(y)

    constants = [np.full(1, v, "float32") for v in (1.0, scale, skew)]
    found, gradients = value_and_gradients(FORMS[form][0], z[:, None], *constants)
    np.testing.assert_allclose(found[:, 0], exact, atol=1e-6)
    np.testing.assert_allclose(gradients[0][:, 0], by_z, atol=3e-6 * by_z.max())
    # Where y is large its rounding alone, 6e-8 y, is multiplied by C exp(-y) = 69 at 1e-30.
    tail = 2e-5 if log_skew <= 4 else 2e-4
    if form.startswith("polynomials"):
        tail = 3e-5
    keep = exact > 1e-30
    np.testing.assert_allclose(found[keep, 0], exact[keep], rtol=tail)
    keep &= exact < 0.99
    np.testing.assert_allclose(gradients[0][keep, 0], by_z[keep], rtol=tail)

    size = np.abs(by_z * z).sum()  # the three sums, relative to the largest possible one
    assert gradients[1][0] == pytest.approx((by_z * z).sum(), abs=1e-5 * size)
    assert gradients[2][0] == pytest.approx(by_z.sum() / scale, rel=1e-5)
    assert gradients[3][0] == pytest.approx((exact * log_base).sum(), rel=1e-4)


def value_and_gradients(function, *arrays):
    import tensorflow as tf

    @tf.function(jit_compile=True)
    def both(*tensors):
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            value = function(*tensors)
        return value, tape.gradient(value, tensors)

    value, gradients = both(*(tf.constant(a) for a in arrays))
    return value.numpy(), [g.numpy() for g in gradients]


@pytest.mark.parametrize("preset", spinkeras.presets())
def test_layers_know_their_extreme_skews(preset):
    """A layer chooses its forms by a few settings; those between them must not surprise it."""
    layer = spinkeras.SpinNeuron(preset, train=(), switching_model="macrospin")
    axes = [np.geomspace(*knob_range(layer.device, knob), 41) for knob in KNOBS]
    log_skew = layer._numpy_curve(*np.meshgrid(*axes)).log_skew
    least, greatest = layer.log_skews
    assert least - 0.02 <= log_skew.min()
    assert log_skew.max() <= greatest + 0.02


def test_polynomials_follow_from_the_curves_of_a_layer():
    """The fewer kinds of curves, the lower the degree; none where the coefficients cancel."""
    degrees = [
        len(kernels._polynomials(skews)[0]) - 3
        for skews in ((3.5, 17.0), (6.0, 17.0), (12.0, 17.0))
    ]
    assert degrees == sorted(degrees, reverse=True)
    assert degrees[0] <= 18
    assert kernels._polynomials((3.4, 17.0)) is None
    assert kernels._polynomials(None) is None


@pytest.mark.parametrize("inner", [(5,), (600,), (4, 3), (28, 28, 16), (31, 31, 32), (7, 1)])
def test_rows_hold_whole_groups_of_channels(inner):
    row = kernels.row_length(inner, np.ones(inner[-1:]))
    assert np.prod(inner) % row == 0
    assert row % inner[-1] == 0
    constants = np.arange(2 * inner[-1], dtype="float32").reshape(2, -1)
    rows = keras.ops.convert_to_numpy(kernels.along_row(constants, inner, row))
    rows = np.broadcast_to(rows, (2, row))
    np.testing.assert_array_equal(rows, np.tile(constants, (1, row // inner[-1])))


def test_elementwise_form_takes_constants_of_any_shape():
    """As of chips, whose axis leads; down to the tails, for every skew."""
    random = np.random.default_rng(0)
    shape = (3, 1, 5)
    log_skew = random.uniform(0, switching.MAX_LOG_SKEW, shape)
    skew, rate = np.exp(log_skew), random.uniform(0.5, 2, shape)
    scale = -np.log(-np.expm1(-np.log(2) / skew))
    arrays = random.uniform(-6, 6, (3, 70, 5)) / rate, rate, scale, skew
    exact = cloglog.plain(*map(keras.ops.convert_to_tensor, arrays))
    exact = keras.ops.convert_to_numpy(exact)
    arrays = (value.astype("float32") for value in arrays)
    found, _ = value_and_gradients(kernels.elementwise, *arrays)
    np.testing.assert_allclose(found, exact, atol=2e-6)
    keep = exact > 1e-25
    np.testing.assert_allclose(found[keep], exact[keep], rtol=4e-4)  # z itself is rounded


@pytest.mark.parametrize("inner", [(3,), (2, 5)])
@pytest.mark.parametrize("batch", [0, 1, 7, 8, 29])
def test_sums_over_the_batch(batch, inner):
    """Also where the batch is no multiple of the blocks, or unknown while the graph is traced."""
    import tensorflow as tf

    values = np.random.default_rng(batch).normal(size=(batch, *inner)).astype("float32")

    @tf.function(jit_compile=True, input_signature=[tf.TensorSpec((None, *inner))])
    def both(values):
        with tf.GradientTape(persistent=True) as outer:
            outer.watch(values)
            with tf.GradientTape() as tape:
                tape.watch(values)
                total = fusion.sum_over_batch(values**2)
                squares = tf.reduce_sum(total**2)
            gradient = tape.gradient(squares, values)
        return total, gradient, outer.gradient(gradient, values)

    total, gradient, second = both(values)
    values = values.astype("float64")
    exact = np.sum(values**2, 0)
    np.testing.assert_allclose(total, exact, rtol=1e-6)
    np.testing.assert_allclose(gradient, 4 * values * exact, rtol=2e-6)
    # the gradient of the sum of all gradients
    exact = 4 * exact + 8 * values * np.sum(values, 0)
    np.testing.assert_allclose(second, exact, rtol=1e-5, atol=1e-4)


def test_logarithm_of_normal_numbers():
    x = np.concatenate([np.geomspace(1e-37, 1e37, 20001), 1 + np.linspace(-0.3, 0.4, 20001)])
    x = np.append(x, [1, 0.5, 2]).astype("float32")
    found, (gradient,) = value_and_gradients(kernels._log2, x)
    np.testing.assert_allclose(found, np.log2(x.astype("float64")), rtol=2e-7)
    np.testing.assert_allclose(gradient, 1 / (np.log(2) * x.astype("float64")), rtol=2e-7)
