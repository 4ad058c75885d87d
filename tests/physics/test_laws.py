"""The textbook laws, NeelBrown and ballistic, and the names by which a law is chosen."""

import numpy as np
import pytest

import spinkeras
from spinkeras import NeelBrown
from spinkeras.macrospin import fokker_planck


def test_neel_brown_is_the_textbook_law(device):
    width, tau0 = 1e-7, 1e-9
    current = np.linspace(0, 0.99, 34) * device.critical_current
    for b in (1.0, 1.5, 2.0):
        found = spinkeras.switching_probability(
            current,
            width,
            device,
            switching_model=NeelBrown(barrier_exponent=b, attempt_time=tau0),
        )
        barrier = device.thermal_stability * (1 - current / device.critical_current) ** b
        np.testing.assert_allclose(found, -np.expm1(-width / tau0 * np.exp(-barrier)), rtol=1e-9)


def test_neel_brown_with_unit_exponent_has_no_slope_knob(device):
    """b = 1: neither pulse width nor anisotropy changes dP/dI (design notes, sec. 2.2)."""
    law = NeelBrown(barrier_exponent=1.0, attempt_time=1e-9)
    slopes = [
        spinkeras.slope_at_midpoint(width, device, anisotropy, law)
        for width in (1e-8, 1e-6)
        for anisotropy in (90e3, 130e3)
    ]
    expected = np.log(2) / 2 / device.critical_current_per_stability
    np.testing.assert_allclose(slopes, expected, rtol=1e-12)


def test_neel_brown_needs_long_pulses_and_a_fitted_attempt_time(device):
    """The limits that the documentation states for the textbook law with b = 2."""

    def error(width, attempt_time=None):
        current = np.linspace(0.3, 1.2, 37) * device.critical_current
        found = spinkeras.switching_probability(
            current, width, device, switching_model=NeelBrown(attempt_time=attempt_time)
        )
        return np.max(np.abs(found - fokker_planck.switching_probability(current, width, device)))

    assert error(1e-6, 2.24e-9) < 0.06
    assert error(1e-7, 5.62e-9) < 0.09
    assert 0.4 < error(1e-6) < 0.5  # Kramers value at zero current: threshold misplaced
    assert error(1e-8) > 0.9  # not a law for nanosecond pulses


def test_ballistic_is_good_where_it_says_so(device):
    for width in (0.5e-9, 1e-9, 2e-9):
        middle = float(spinkeras.midpoint_current(width, device, switching_model="ballistic"))
        current = np.linspace(2.0 * device.critical_current, 2 * middle, 25)
        found = spinkeras.switching_probability(current, width, device, switching_model="ballistic")
        exact = fokker_planck.switching_probability(current, width, device)
        assert np.max(np.abs(found - exact)) < 0.02


def test_ballistic_is_monotone_and_finite_everywhere(device):
    current = np.concatenate([[-np.inf], np.linspace(-1e-3, 1e-2, 20001), [np.inf]])
    p = spinkeras.switching_probability(current, 1e-9, device, switching_model="ballistic")
    assert np.all(np.diff(p) >= 0)
    assert p[0] < 1e-12
    assert p[-1] == 1


def test_ballistic_warns_outside_its_domain(device):
    with pytest.warns(UserWarning, match="ballistic law is inaccurate"):
        spinkeras.midpoint_current(20e-9, device, switching_model="ballistic")


def test_neel_brown_without_midpoint_is_refused(device):
    law = NeelBrown(attempt_time=1e-9)
    with pytest.raises(ValueError, match="never reaches 1/2"):
        spinkeras.midpoint_current(1e-10, device, switching_model=law)
    probability = spinkeras.switching_probability(1.0, 1e-10, device, switching_model=law)
    assert probability == pytest.approx(-np.expm1(-0.1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"barrier_exponent": 7}, r"barrier_exponent = 7 .* outside \[1, 3\]"),
        ({"barrier_exponent": None}, "barrier_exponent = None is not a number"),
        ({"attempt_time": 1.0}, "attempt_time = 1 s is outside"),
        ({"temperature": 300.0}, "NeelBrown has no field"),
    ],
)
def test_bad_options_of_neel_brown(options, message):
    with pytest.raises(ValueError, match=message):
        NeelBrown(**options)
    with pytest.raises(ValueError, match=message):
        NeelBrown().replace(**options)


def test_the_name_neel_brown_means_the_law_with_its_defaults(device):
    current = np.linspace(1e-6, 40e-6, 9)
    named, law = (
        spinkeras.switching_probability(current, 1e-6, device, switching_model=model)
        for model in ("neel_brown", NeelBrown())
    )
    np.testing.assert_array_equal(named, law)
