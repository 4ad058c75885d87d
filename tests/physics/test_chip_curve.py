"""The output of devices that differ from the nominal one, and are read with errors."""

import numpy as np
import pytest
from keras import ops
from scipy import stats

import spinkeras
from spinkeras import SpinNeuron
from spinkeras.physics import laws
from spinkeras.physics.chip_curve import chip_curve, misreadings
from spinkeras.physics.spread import FACTORS, ChipSpread, DeviceFactors
from tests.layer.test_draws import inside_binomial

VGSOT = spinkeras.MTJDevice.preset("vgsot_zhang2020")


def unit_chip(**changes):
    factors = {name: np.ones(1) for name in FACTORS}
    factors |= {"stuck_low": np.zeros(1), "stuck_high": np.zeros(1)}
    return DeviceFactors(**(factors | changes))


def test_a_chip_is_another_device_driven_with_the_nominal_settings(device):
    """Factors against `switching_probability` of the device that they describe."""
    width = 4e-9
    current = np.linspace(20e-6, 80e-6, 25)
    log_duration = np.full(1, np.log(width / device.diffusion_time))
    stability = np.full(1, device.thermal_stability)
    drive = current / device.critical_current_per_stability
    cases = [
        (unit_chip(), device),
        (unit_chip(stability=np.full(1, 1.2)), device.replace(anisotropy=1.2 * device.anisotropy)),
        (
            unit_chip(current=np.full(1, 1.1)),
            device.replace(spin_torque_efficiency=device.spin_torque_efficiency / 1.1),
        ),
        (
            unit_chip(
                stability=np.full(1, 1 / 1.1),
                current=np.full(1, 1.1),
                diffusion_time=np.full(1, 1 / 1.1),
            ),
            device.replace(temperature=330.0),
        ),
    ]
    for chip, actual in cases:
        found = chip_curve(
            np, laws.macrospin_curve, log_duration, stability, drive, chip, ChipSpread()
        )
        expected = spinkeras.switching_probability(current, width, actual)
        np.testing.assert_allclose(found, expected, atol=1e-12)


def test_a_macrospin_outside_the_closed_form_is_moved_to_its_edge(device):
    def answer(u, stability, chip, **spread):
        settings = np.full(1, np.log(u)), np.full(1, stability)
        drive = np.linspace(0, 60, 7)
        return chip_curve(np, laws.macrospin_curve, *settings, drive, chip, ChipSpread(**spread))

    tenth = unit_chip(diffusion_time=np.full(1, 0.1))
    edge = answer(60.0, 40.0, unit_chip())
    assert edge[1] < 1e-3 < 0.999 < edge[3]
    for spread in ({}, {"pulse_jitter": 0.2}):
        np.testing.assert_allclose(answer(58.0, 40.0, tenth, **spread), edge, atol=1e-12)
    small = unit_chip(stability=np.full(1, 0.2))
    np.testing.assert_allclose(answer(1.0, 30.0, small), answer(1.0, 7.0, unit_chip()), atol=1e-12)


def test_a_measured_curve_is_spread_as_it_says():
    """Factors on threshold and anisotropy; neither `t_D` nor the temperature enter."""
    build, unit = VGSOT.switching_curve.curve(VGSOT), VGSOT.critical_current_per_stability
    current = np.linspace(60e-6, 140e-6, 9)
    chip = unit_chip(
        current=np.full(1, 1.1), stability=np.full(1, 1.2), diffusion_time=np.full(1, 3.0)
    )
    settings = np.full(1, np.log(2e-9 / VGSOT.diffusion_time)), np.full(1, VGSOT.thermal_stability)
    found = chip_curve(np, build, *settings, current / unit, chip, ChipSpread())
    expected = VGSOT.switching_curve.switching_probability(current / 1.1, 2e-9, 1.2)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    layer = SpinNeuron(VGSOT, spread=ChipSpread(temperature=10.0))
    with pytest.raises(ValueError, match=r"temperature = 10 K has no defined effect on a measured"):
        layer(np.zeros((2, 3)), training=True)


def test_errors_and_faults(device):
    log_duration = np.full(1, np.log(4e-9 / device.diffusion_time))
    stability = np.full(1, device.thermal_stability)
    drive = np.linspace(20, 120, 9)

    def curve(chip=None, **spread):
        return chip_curve(
            np,
            laws.macrospin_curve,
            log_duration,
            stability,
            drive,
            chip or unit_chip(),
            ChipSpread(**spread),
        )

    p = curve()
    np.testing.assert_allclose(curve(ceiling=0.9), 0.9 * p)
    np.testing.assert_allclose(curve(read_error=0.1), 0.9 * p + 0.1 * (1 - p))
    np.testing.assert_allclose(curve(unit_chip(stuck_low=np.ones(1))), 0)
    np.testing.assert_allclose(curve(unit_chip(stuck_high=np.ones(1))), 1)
    # jitter: the mean over a Gaussian of ln t_p, by brute force
    nodes, weights = np.polynomial.hermite_e.hermegauss(41)
    mean = 0
    for node, weight in zip(nodes, weights / weights.sum()):
        base = laws.macrospin_curve(np, log_duration + 0.02 * node, stability)
        mean = mean + weight * base.probability(drive - base.midpoint)
    np.testing.assert_allclose(curve(pulse_jitter=0.02), mean, atol=1e-5)


def test_misreadings_are_those_of_a_noisy_comparison(device):
    """Read currents with noise, compared with the halfway reference, one by one."""
    noise, count = 0.25, 200_000
    rng = np.random.default_rng(0)
    parallel, antiparallel = 1 / device.resistance_parallel, 1 / device.resistance_antiparallel
    reference, window = (parallel + antiparallel) / 2, parallel - antiparallel
    for f_r, f_t in ((1.0, 1.0), (1.1, 1.0), (1.0, 0.7), (0.95, 1.3)):
        chip = unit_chip(resistance=np.full(1, f_r), tmr=np.full(1, f_t))
        false_high, missed = misreadings(np, chip, noise, device.tmr)
        actual = device.replace(
            resistance_area_product=f_r * device.resistance_area_product, tmr=f_t * device.tmr
        )
        for resistance, p, below in (
            (actual.resistance_parallel, false_high, True),
            (actual.resistance_antiparallel, missed, False),
        ):
            current = 1 / resistance + noise * window * rng.normal(size=count)
            wrong = np.sum((current < reference) == below)
            assert inside_binomial(wrong, count, p[0], 8)
    nominal = misreadings(np, unit_chip(), noise, device.tmr)
    np.testing.assert_allclose(nominal, stats.norm.sf(1 / (2 * noise)))
    with pytest.raises(ValueError, match="tmr = 0"):
        misreadings(np, unit_chip(), noise, 0.0)


def test_a_low_tmr_is_misread_in_the_layer():
    layer = SpinNeuron(spread=ChipSpread(tmr=0.3, sense_noise=0.2), seed=0)
    x = np.full((1, 2000), -8.0, "float32")  # never switches, but is read as if
    wrong = ops.convert_to_numpy(layer(x, training=True))[0]
    np.testing.assert_allclose(wrong, stats.norm.sf(2.5), rtol=1e-4)  # parallel: TMR is unseen
    missed = 1 - ops.convert_to_numpy(layer(-4 * x, training=True))[0]
    assert missed.min() < 0.3 * stats.norm.sf(2.5)
    assert missed.max() > 3 * stats.norm.sf(2.5)
    assert np.median(missed) == pytest.approx(stats.norm.sf(2.5), rel=0.2)


def test_a_device_of_the_other_direction_is_misread_the_other_way(device):
    """A higher TMR moves what an antiparallel device reads, whichever state that is."""
    spread = ChipSpread(tmr=0.3, sense_noise=0.2)
    x = np.repeat([[-32.0], [32.0]], 500, axis=1).astype("float32")  # never, always
    wrong = []
    for each in (device, device.reversed()):
        layer = SpinNeuron(each, spread=spread, seed=0)
        read = ops.convert_to_numpy(layer(x, training=True))
        wrong.append(np.array([read[0], 1 - read[1]]))
    np.testing.assert_allclose(wrong[0], wrong[1][::-1], atol=1e-6)
    assert np.ptp(wrong[0][1]) > 0.01 > np.ptp(wrong[0][0])


def test_threshold_and_slope_are_told_apart(device):
    log_duration = np.full(1, np.log(4e-9 / device.diffusion_time))
    stability = np.full(1, device.thermal_stability)
    nominal = laws.macrospin_curve(np, log_duration, stability)
    chip = unit_chip(current=np.full(1, 1.1))
    drive = nominal.midpoint + np.array([-1e-4, 0.0, 1e-4])

    def p(cause):
        return chip_curve(
            np, laws.macrospin_curve, log_duration, stability, drive, chip, ChipSpread(), cause
        )

    slope = np.diff(p("slope")).sum() / 2e-4
    assert p("slope")[1] == pytest.approx(0.5)
    assert slope == pytest.approx(float(nominal.slope[0]) / 1.1, rel=1e-4)
    shifted = nominal.probability(drive - 1.1 * nominal.midpoint)
    np.testing.assert_allclose(p("threshold"), shifted)
    assert p("all")[1] == pytest.approx(float(p("threshold")[1]), abs=0.05)
