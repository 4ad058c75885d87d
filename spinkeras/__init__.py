"""spinkeras: trainable activations with the physics of a magnetic tunnel junction, for Keras 3.

The map, in the order in which the rooms build on each other:

    _typing           type names for annotations
    checks, files     checks of values where they enter; writing a file as a whole or not at all
    versions          show_versions: which packages are installed
    notices           warnings that point at the user's line
    intervals         the exact binomial interval
    tables            results as data frames and CSV files
    histories         the history of a fit as arrays by name
    _keras            all use of Keras's private API
    _tensorflow       all use of TensorFlow's private API
    _tracing          what a backend is tracing: maps, loops, conditions

    physics           what a junction is and when it switches: pure functions, NumPy and tensors
      provenance        source texts of devices, kept true when values change
      presets           published devices and curves
      device            MTJDevice
      series, curve     smooth functions of two numbers; the family of all switching curves
      equilibrium       junctions with a low barrier, which switch freely without a pulse
      laws              the curves of the macrospin and of two textbook laws: NeelBrown
      resistance        the current that a voltage drives, and back
      switching         switching_probability and friends
      empirical         EmpiricalCurve, EquilibriumCurve: measured curves instead
      spread            ChipSpread: how devices differ
      chip_curve        the output of a neuron whose device differs
    macrospin         exact solvers, to which the closed form is fitted: fokker_planck, llg

    layer             the Keras layer and callbacks for its training
      core              the curve of many neurons at once, with its gradient
      knobs             the settings that device and driver allow: DeviceRange, Driver
      stored            what a file of weights holds for a SpinNeuron
      former            configurations of earlier versions
      arguments         what the arguments of SpinNeuron may be
      draws             drawn bits, also of reads that remember earlier ones
      observation       watching a layer's call, or answering it in the layer's place
      neuron            SpinNeuron
      members           the spin neurons of a model
      activations       which activations a layer of Keras applies
      copies            copies of layers, of weights and of how a model was compiled
      conversion        to_spin: spin neurons for an existing model
      steps             wrapping a model's training step for the time of one fit
      tensorboard       SpinTensorBoard: Keras's TensorBoard, with the knobs in ns and mV
      backup            ExactBackup: a killed training resumes with exactly the same result

    energy            the energy of an inference
      pulse             EnergyAssumptions: the energy of a pulse
      meter             the energy of a model's calls
      report, tracker   energy_report on given data, EnergyTracker while training
      budget            EnergyBudget: the best accuracy for a given energy
    hardware          chips and their drivers
      accuracy          the accuracy of outputs, as labels and loss tell it
      results_file      the file with which a later evaluation continues
      chips             evaluate_chips: accuracy and yield of simulated chips
      training          NewChipEachEpoch: training on one simulated chip per epoch
      margins           reliability: how long bits last, how often pulses fail
      driver_table      device_settings: the table for the driver chip
    calibration       from lab data to a device
      conditions        settings beside current and pulse width: gate, temperature, direction
      names             quantity and unit of every column
      cells, files      cells of a table in columns, and their numbers; reading them from a file
      quantities        numbers of a table in SI units, and refusals that name a row
      plausible         whether numbers are possible in their unit
      counts            how many pulses of a row switched
      pooling           adding up rows of one setting
      likeness          whether such rows are alike
      signs             whether positive current favours the reversal
      ramps             ramps of the current as trials of pulses
      table             read_table: measured switching counts, checked
      posterior         draws of unknown or varying parameters of a device
      diagnosis         warnings from the residuals of a fit
      result            FitResult
      scales            the scales on which parameters are fitted
      device_law        the law of a device, as a function of the fitted fields
      curve_law         the same for an empirical curve
      likelihood        the likelihood of the data
      selection         the shape of a curve, and errors that include its choice
      fit               fit_device, fit_empirical
    export            trained networks as files
      network           a network as a graph, and its check
      saved_model       for servers: export_for_serving
      portable          the steps that export_litert and export_onnx share
      litert, onnx      for other runtimes: export_litert, export_onnx
    search            searches with keras-tuner; imported at its first use
      space             spin_search_space
      objective         EnergyObjective
      hypermodel        SpinHyperModel
      _keras_tuner      all use of keras-tuner's private API
      durability        durable: searches that survive killed processes
    cards             HTML cards that show a device, a layer or a result in a notebook
    plot              pictures of them, with matplotlib; imported at its first use
    pages             model_card: one page about a trained network
"""

import importlib

from spinkeras import calibration, energy, export, hardware, layer, macrospin, physics
from spinkeras._version import __version__
from spinkeras.calibration import fit_device, fit_empirical, sample_devices
from spinkeras.energy import (
    EnergyAssumptions,
    EnergyBudget,
    EnergyReport,
    EnergyTracker,
    energy_report,
    latency,
)
from spinkeras.export import export_for_serving, export_litert, export_onnx
from spinkeras.hardware import (
    ChipReport,
    NewChipEachEpoch,
    apply_device_settings,
    chip_sensitivity,
    device_settings,
    evaluate_chips,
    reliability,
)
from spinkeras.layer import (
    DeviceRange,
    Driver,
    ExactBackup,
    SpinNeuron,
    SpinTensorBoard,
    spin_neurons,
    to_spin,
)
from spinkeras.physics import (
    ChipSpread,
    EmpiricalCurve,
    EquilibriumCurve,
    MTJDevice,
    NeelBrown,
    midpoint_current,
    presets,
    pulse_width_for_slope,
    slope_at_midpoint,
    switching_probability,
)
from spinkeras.versions import show_versions

__all__ = [
    "ChipReport",
    "ChipSpread",
    "DeviceRange",
    "Driver",
    "EmpiricalCurve",
    "EnergyAssumptions",
    "EnergyBudget",
    "EnergyReport",
    "EnergyTracker",
    "EquilibriumCurve",
    "ExactBackup",
    "MTJDevice",
    "NeelBrown",
    "NewChipEachEpoch",
    "SpinNeuron",
    "SpinTensorBoard",
    "__version__",
    "apply_device_settings",
    "calibration",
    "chip_sensitivity",
    "device_settings",
    "energy",
    "energy_report",
    "evaluate_chips",
    "export",
    "export_for_serving",
    "export_litert",
    "export_onnx",
    "fit_device",
    "fit_empirical",
    "hardware",
    "latency",
    "layer",
    "macrospin",
    "midpoint_current",
    "model_card",
    "physics",
    "plot",
    "presets",
    "pulse_width_for_slope",
    "reliability",
    "sample_devices",
    "search",
    "show_versions",
    "slope_at_midpoint",
    "spin_neurons",
    "switching_probability",
    "to_spin",
]


def __getattr__(name):
    if name in ("cards", "plot", "search"):  # keras-tuner takes longer to import than all the rest
        return importlib.import_module(f"spinkeras.{name}")
    if name == "model_card":
        return importlib.import_module("spinkeras.pages").model_card
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__():
    return __all__
