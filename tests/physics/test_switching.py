"""The closed form against the exact solution, its limits, domain and gradients."""

import keras
import numpy as np
import pytest
from keras import ops

import spinkeras
from spinkeras import NeelBrown
from spinkeras.macrospin import fokker_planck
from spinkeras.physics import laws
from spinkeras.physics.curve import RationalLogit

# t_p (ns): I50 (uA), slope (1/uA), default device; exact Fokker-Planck values
PULSE_TABLE = {
    0.5: (249.350, 0.00751), 1: (132.063, 0.01443), 2: (73.518, 0.02664), 3: (54.121, 0.03716),
    5: (38.788, 0.05465), 7: (32.352, 0.06888), 10: (27.649, 0.08629), 20: (22.398, 0.12665),
    50: (19.220, 0.18907), 100: (17.850, 0.23655), 1000: (15.055, 0.36993),
}  # fmt: skip
# t_p (ns): {Delta: (I50, slope)}
ANISOTROPY_TABLE = {
    1: {20: (108.46, 0.01472), 30: (121.55, 0.01459), 50: (141.22, 0.01427), 60: (149.55, 0.01412)},
    3: {20: (40.54, 0.03960), 30: (47.68, 0.03831), 50: (60.23, 0.03617), 60: (66.16, 0.03530)},
    10: {20: (16.94, 0.09889), 30: (22.29, 0.09162), 50: (33.05, 0.08219), 60: (38.51, 0.07890)},
    100: {20: (7.909, 0.30115), 30: (12.78, 0.26189), 50: (23.05, 0.21826), 60: (28.34, 0.20418)},
    1000: {20: (5.739, 0.49845), 30: (10.27, 0.41887), 50: (20.01, 0.33577), 60: (25.09, 0.31012)},
}


def test_closed_form_is_within_two_thousandths_of_the_exact_solution(device):
    """Delta 8 to 80 and 0.5 ns to 1 us at the default device's scale, whole curves."""
    worst = 0.0
    for delta in np.linspace(8**-0.5, 80**-0.5, 7) ** -2:
        for width in np.geomspace(0.5e-9, 1e-6, 12):
            log_duration = np.log(width / device.diffusion_time)
            curve = laws.macrospin_curve(np, np.array(log_duration), np.array(delta))
            tau = np.exp(log_duration) * delta
            for z in np.linspace(-1.3, 2.0, 9) / curve.slope:
                ratio = (curve.midpoint + z) / delta
                exact = fokker_planck.switching_curve(ratio, [tau], delta)[0]
                worst = max(worst, abs(curve.probability(z) - exact))
    assert worst <= 0.002


def test_midpoint_and_slope_against_the_tables(device):
    per_stability = device.thermal_energy / device.volume
    rows = [(t, device.anisotropy, *v) for t, v in PULSE_TABLE.items()]
    rows += [
        (t, delta * per_stability, *v)
        for t, row in ANISOTROPY_TABLE.items()
        for delta, v in row.items()
    ]
    width, anisotropy, midpoint, slope = np.array(rows).T
    found = spinkeras.midpoint_current(width * 1e-9, device, anisotropy)
    np.testing.assert_allclose(found, midpoint * 1e-6, rtol=0.001)
    found = spinkeras.slope_at_midpoint(width * 1e-9, device, anisotropy)
    np.testing.assert_allclose(found, slope * 1e6, rtol=0.005)
    half = spinkeras.switching_probability(
        spinkeras.midpoint_current(width * 1e-9, device, anisotropy),
        width * 1e-9,
        device,
        anisotropy,
    )
    np.testing.assert_allclose(half, 0.5, atol=1e-12)


def test_slope_is_the_derivative_at_the_midpoint(device):
    for model, width in (("macrospin", 5e-9), ("neel_brown", 1e-6), ("ballistic", 1e-9)):
        middle = spinkeras.midpoint_current(width, device, switching_model=model)
        step = 1e-4 * middle
        up, down = spinkeras.switching_probability(
            np.array([middle + step, middle - step]), width, device, switching_model=model
        )
        slope = spinkeras.slope_at_midpoint(width, device, switching_model=model)
        assert (up - down) / (2 * step) == pytest.approx(float(slope), rel=1e-6)


def test_symbolic_tensors_are_refused(device):
    width = keras.Input((3,)) * 1e-9
    for function in (spinkeras.midpoint_current, spinkeras.slope_at_midpoint):
        with pytest.raises(ValueError, match=r"KerasTensor .* has none"):
            function(width, device)
    with pytest.raises(ValueError, match="KerasTensor"):
        spinkeras.switching_probability(width, 2e-9, device)


def test_monotone_in_current(device):
    current = np.linspace(-300e-6, 600e-6, 4001)
    for width in np.geomspace(0.5e-9, 1e-6, 15):
        p = spinkeras.switching_probability(current, width, device)
        assert np.all(np.diff(p) >= 0)
        inside = (p > 1e-12) & (p < 1 - 1e-12)
        assert np.all(np.diff(p[inside]) > 0)


@pytest.mark.parametrize("delta", [8, 12, 20, 40, 60, 80])
def test_monotone_in_pulse_width(device, delta):
    """At fixed current above 0.3 Ic0 a longer pulse switches more often.

    The fit bounds the error of P, not of its tail, where the logit is a straight line: the largest
    decrease, 4e-7, sits at P = 3e-5.
    """
    widths = np.geomspace(0.5e-9, 1e-6, 300)[:, None]
    ratios = np.geomspace(0.3, 40, 200)
    current = ratios * device.critical_current_per_stability * delta
    anisotropy = delta * device.thermal_energy / device.volume
    p = spinkeras.switching_probability(current, widths, device, anisotropy)
    change = np.diff(p, axis=0)
    assert np.min(change) >= -5e-7
    assert np.all(change[p[1:] > 1e-3] >= -1e-15)


def test_only_three_numbers_matter(device):
    """Two devices with the same h, u and Delta switch alike."""
    other = device.replace(damping=0.03, thickness=2.0e-9, saturation_magnetization=0.7e6)
    anisotropy = device.thermal_stability * other.thermal_energy / other.volume
    width = 4e-9
    current = np.linspace(10e-6, 80e-6, 9)
    first = spinkeras.switching_probability(current, width, device)
    scale = other.critical_current_per_stability / device.critical_current_per_stability
    stretch = other.diffusion_time / device.diffusion_time
    second = spinkeras.switching_probability(current * scale, width * stretch, other, anisotropy)
    np.testing.assert_allclose(first, second, rtol=1e-9)


def test_skew_follows_the_exact_curve(device):
    """Skewed to the right for ballistic pulses, to the left for thermally activated ones."""

    def skew(width, law):
        middle = spinkeras.midpoint_current(width, device)
        slope = spinkeras.slope_at_midpoint(width, device)
        low, high = law(middle + np.array([-1.0, 1.0]) / slope, width, device)
        return (1 - high) - low

    for width, sign in ((0.5e-9, 1), (2e-9, 1), (20e-9, 1), (1e-6, -1)):
        found = skew(width, spinkeras.switching_probability)
        exact = skew(width, fokker_planck.switching_probability)
        assert found == pytest.approx(exact, abs=0.003)
        assert np.sign(found) == np.sign(exact) == sign


@pytest.mark.parametrize("name", spinkeras.presets())
def test_pulse_width_for_slope_reaches_the_ends_of_the_range(name):
    device = spinkeras.MTJDevice.preset(name)
    for ends in (device.pulse_width_range, (device.nominal_pulse_width,) * 2):
        narrow = device.replace(pulse_width_range=ends)
        slope = spinkeras.slope_at_midpoint(np.array(ends), narrow)
        found = spinkeras.pulse_width_for_slope(slope, narrow)
        np.testing.assert_allclose(found, ends, rtol=1e-9)


@pytest.mark.parametrize("model", ["macrospin", "neel_brown"])
def test_pulse_width_for_slope_inverts_the_slope(device, model):
    device = device.replace(pulse_width_range=(2e-9, 1e-6))
    widths = np.geomspace(2.1e-9, 0.9e-6, 9)
    slopes = spinkeras.slope_at_midpoint(widths, device, switching_model=model)
    found = spinkeras.pulse_width_for_slope(slopes, device, switching_model=model)
    np.testing.assert_allclose(found, widths, rtol=1e-9)
    with pytest.raises(ValueError, match=r"slope = 1e\+09 1/A cannot be reached"):
        spinkeras.pulse_width_for_slope(1e9, device, switching_model=model)


def test_tensors_in_tensors_out_and_equal_to_numpy(device):
    current = np.linspace(20e-6, 200e-6, 50)
    for model, width in (("macrospin", 2e-9), ("neel_brown", 1e-6), ("ballistic", 1e-9)):
        expected = spinkeras.switching_probability(current, width, device, switching_model=model)
        assert expected.dtype == np.float64
        tensor = ops.convert_to_tensor(current, "float32")
        found = spinkeras.switching_probability(tensor, width, device, switching_model=model)
        assert ops.is_tensor(found)
        np.testing.assert_allclose(ops.convert_to_numpy(found), expected, atol=3e-6)


def test_tensor_outside_the_domain_is_nan_not_a_number(device):
    widths = ops.convert_to_tensor(np.array([1e-12, 5e-9, 1.0]), "float32")
    found = ops.convert_to_numpy(spinkeras.switching_probability(40e-6, widths, device))
    assert np.isnan(found[[0, 2]]).all()
    assert np.isfinite(found[1])


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        ((1e-5, -1e-9), {}, r"pulse_width = -1e-09 s must be finite and > 0"),
        ((1e-5, float("nan")), {}, "pulse_width = nan s must be finite"),
        ((1e-5, 1.0), {}, r"pulse_width = 1 s is outside \[.*\] s"),
        ((1e-5, 1e-9), {"anisotropy": 1e9}, r"anisotropy = 1e\+09 J/m\^3 is outside"),
        ((1e-5, 1e-9), {"anisotropy": 0.0}, "anisotropy = 0.0 J/m"),
        ((float("nan"), 1e-9), {}, "current is NaN"),
        ((1e-5, 1e-9), {"switching_model": "magic"}, "Unknown switching_model 'magic'"),
        ((1e-5, 1e-9), {"switching_model": NeelBrown}, "Unknown switching_model <class"),
    ],
)
def test_bad_input(device, arguments, options, message):
    with pytest.raises(ValueError, match=message):
        spinkeras.switching_probability(*arguments, device, **options)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="uses GradientTape")
@pytest.mark.parametrize(
    ("model", "width"), [("macrospin", 3e-9), ("neel_brown", 1e-6), ("ballistic", 1e-9)]
)
def test_gradients_with_respect_to_si_inputs(device, model, width):
    import tensorflow as tf

    current = float(spinkeras.midpoint_current(width, device, switching_model=model)) * 1.05
    values = np.array([current, width, device.anisotropy])

    def p(v):
        return float(spinkeras.switching_probability(*v[:2], device, v[2], switching_model=model))

    tensors = [tf.constant(v, tf.float64) for v in values]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        out = spinkeras.switching_probability(
            tensors[0], tensors[1], device, tensors[2], switching_model=model
        )
    for k, gradient in enumerate(tape.gradient(out, tensors)):
        step = np.zeros(3)
        step[k] = 1e-5 * values[k]
        central = (p(values + step) - p(values - step)) / (2 * step[k])
        assert float(gradient) == pytest.approx(central, rel=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="uses GradientTape")
@pytest.mark.parametrize("position", range(4))
@pytest.mark.parametrize("shape", [(3,), (2, 3), (2, 1), (1, 3)])
def test_gradients_of_arguments_that_broadcast(position, shape):
    """Every argument may be the smaller or the larger one; central differences in float64."""
    import tensorflow as tf

    rng = np.random.default_rng(4)
    shapes = [(3,)] * 4
    shapes[position] = shape
    shapes[(position + 1) % 4] = (2, 3)
    values = [0.3 + rng.random(s) for s in shapes]
    weights = rng.random((2, 3))

    def total(arguments):
        midpoint, s, a, z = arguments
        curve = RationalLogit(midpoint, s, a - 0.5, 0.4, 0.1, 0.3)
        return tf.reduce_sum(weights * curve.probability(z - curve.midpoint))

    tensors = [tf.constant(value) for value in values]
    with tf.GradientTape() as tape:
        tape.watch(tensors)
        out = total(tensors)
    found = tape.gradient(out, tensors)
    for k, value in enumerate(values):
        expected = np.zeros_like(value)
        for index in np.ndindex(value.shape):
            ends = []
            for step in (-1e-6, 1e-6):
                moved = [v.copy() for v in values]
                moved[k][index] += step
                ends.append(float(total([tf.constant(v) for v in moved])))
            expected[index] = (ends[1] - ends[0]) / 2e-6
        np.testing.assert_allclose(found[k], expected, rtol=1e-6, atol=1e-9)
