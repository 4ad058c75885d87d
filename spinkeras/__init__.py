"""spinkeras: trainable activations with the physics of a magnetic tunnel junction, for Keras 3.

The map, in the order in which the modules build on each other:

    checks        number, whole, from_json              values checked where they enter
    files         write, new_folder                     files that appear as a whole, or not at all
    provenance    keep                                  what the source of some values covers
    devices       MTJDevice, presets                    what a junction is, in SI units
    macrospin     fokker_planck, llg                    the ground truth behind the closed form
    series        chebyshev_series                      smooth functions of two numbers
    curve         RationalLogit                         the one family of switching curves
    _tensorflow   with_gradient                         what TensorFlow offers only privately
    _keras        enclosing_calls, make_step            what Keras offers only privately
    core          response, linked                      the same for many neurons, with its gradient
    switching     switching_probability and friends     the physics, for NumPy and tensors
    empirical     EmpiricalCurve                        a measured switching curve instead
    constraints   DeviceRange                           what a device allows
    grids         PulseGrid, GateGrid                   what a driver can make
    variability   ChipSpread                            how devices differ
    observation   Observation, observing                who watches a layer's call, who answers it
    neuron        SpinNeuron, spin_neurons              the Keras layer
    energy        write_energy, EnergyAssumptions       what a pulse costs
    steps         Lease                                 a callback's hold on a model's steps
    metering      EnergyTracker, energy_report          what an inference costs
    budget        EnergyBudget                          the best accuracy for a given energy
    resume        ExactBackup                           a killed training goes on to the last bit
    chips         evaluate_chips, NewChipEachEpoch      accuracy and yield of simulated chips
    settings      device_settings, reliability          the table for the driver chip
    tracing       Network                               a network as a graph, and its check
    serving       export_for_serving                    SavedModel, for servers
    portable      export_litert, export_onnx            files for other runtimes
    tables        read_table                            measured switching counts, checked
    posterior     sample_devices                        draws of what is not known or differs
    laws          DeviceLaw, CurveLaw                   what is fitted
    likelihood    maximum_likelihood, FitResult         how it is fitted
    calibration   fit_device, fit_empirical             from lab data to a device

and, not imported here:

    conversion    to_spin                               spin neurons for an existing model
    tuning        spin_search_space, SpinHyperModel     searches with keras-tuner
    durable       durable                               searches that survive killed processes
"""

from spinkeras import calibration, chips, energy, macrospin, serving, settings
from spinkeras._version import __version__
from spinkeras.budget import EnergyBudget
from spinkeras.calibration import fit_device, fit_empirical, sample_devices
from spinkeras.chips import ChipReport, NewChipEachEpoch, chip_sensitivity, evaluate_chips
from spinkeras.constraints import DeviceRange
from spinkeras.devices import MTJDevice, presets
from spinkeras.empirical import EmpiricalCurve
from spinkeras.energy import EnergyAssumptions
from spinkeras.metering import EnergyReport, EnergyTracker, energy_report, latency
from spinkeras.neuron import SpinNeuron, spin_neurons
from spinkeras.portable import export_litert, export_onnx
from spinkeras.resume import ExactBackup
from spinkeras.serving import export_for_serving
from spinkeras.settings import apply_device_settings, device_settings, reliability
from spinkeras.switching import (
    midpoint_current,
    pulse_width_for_slope,
    slope_at_midpoint,
    switching_probability,
)
from spinkeras.variability import ChipSpread

__all__ = [
    "ChipReport",
    "ChipSpread",
    "DeviceRange",
    "EmpiricalCurve",
    "EnergyAssumptions",
    "EnergyBudget",
    "EnergyReport",
    "EnergyTracker",
    "ExactBackup",
    "MTJDevice",
    "NewChipEachEpoch",
    "SpinNeuron",
    "__version__",
    "apply_device_settings",
    "calibration",
    "chip_sensitivity",
    "chips",
    "device_settings",
    "energy",
    "energy_report",
    "evaluate_chips",
    "export_for_serving",
    "export_litert",
    "export_onnx",
    "fit_device",
    "fit_empirical",
    "latency",
    "macrospin",
    "midpoint_current",
    "presets",
    "pulse_width_for_slope",
    "reliability",
    "sample_devices",
    "serving",
    "settings",
    "slope_at_midpoint",
    "spin_neurons",
    "switching_probability",
]
