"""spinkeras: trainable activations with the physics of a magnetic tunnel junction, for Keras 3.

The map, in the order in which the modules build on each other:

    devices       MTJDevice, presets                    what a junction is, in SI units
    switching     switching_probability and friends     the physics, for NumPy and tensors
    constraints   DeviceRange                           what a device allows
    neuron        SpinNeuron, spin_neurons              the Keras layer
    energy        EnergyTracker, energy_report          what an inference costs
    macrospin     fokker_planck, fit_closed_form        the ground truth behind the closed form
"""

from spinkeras import energy, macrospin
from spinkeras._version import __version__
from spinkeras.constraints import DeviceRange
from spinkeras.devices import MTJDevice, presets
from spinkeras.energy import EnergyAssumptions, EnergyReport, EnergyTracker, energy_report, latency
from spinkeras.neuron import SpinNeuron, spin_neurons
from spinkeras.switching import (
    midpoint_current,
    pulse_width_for_slope,
    slope_at_midpoint,
    switching_probability,
)

__all__ = [
    "DeviceRange",
    "EnergyAssumptions",
    "EnergyReport",
    "EnergyTracker",
    "MTJDevice",
    "SpinNeuron",
    "__version__",
    "energy",
    "energy_report",
    "latency",
    "macrospin",
    "midpoint_current",
    "presets",
    "pulse_width_for_slope",
    "slope_at_midpoint",
    "spin_neurons",
    "switching_probability",
]
