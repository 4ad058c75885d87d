"""Devices and their switching probability: pure functions for NumPy and tensors, in SI units."""

from spinkeras.physics.device import MTJDevice, get_device, presets
from spinkeras.physics.empirical import EmpiricalCurve, EquilibriumCurve
from spinkeras.physics.laws import NeelBrown
from spinkeras.physics.resistance import current_of_voltage, voltage_of_current
from spinkeras.physics.spread import ChipSpread
from spinkeras.physics.switching import (
    midpoint_current,
    pulse_width_for_slope,
    slope_at_midpoint,
    switching_probability,
)

__all__ = [
    "ChipSpread",
    "EmpiricalCurve",
    "EquilibriumCurve",
    "MTJDevice",
    "NeelBrown",
    "current_of_voltage",
    "get_device",
    "midpoint_current",
    "presets",
    "pulse_width_for_slope",
    "slope_at_midpoint",
    "switching_probability",
    "voltage_of_current",
]
