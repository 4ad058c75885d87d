"""Energy of a pulse and of an inference, and training for the best accuracy at a given energy."""

from spinkeras.energy.budget import EnergyBudget
from spinkeras.energy.pulse import (
    EnergyAssumptions,
    antiparallel_resistance,
    gate_energy,
    pulse_energies,
    read_energy,
    reset_current,
    reset_energy,
    reset_failure,
    reset_pulses,
    write_energy,
)
from spinkeras.energy.report import EnergyReport, energy_report, latency
from spinkeras.energy.tracker import EnergyTracker

__all__ = [
    "EnergyAssumptions",
    "EnergyBudget",
    "EnergyReport",
    "EnergyTracker",
    "antiparallel_resistance",
    "energy_report",
    "gate_energy",
    "latency",
    "pulse_energies",
    "read_energy",
    "reset_current",
    "reset_energy",
    "reset_failure",
    "reset_pulses",
    "write_energy",
]
