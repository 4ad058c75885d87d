"""The Keras layer, what it computes, and who may watch it."""

from spinkeras.layer.conversion import ConversionReport, to_spin
from spinkeras.layer.knobs import DeviceRange, Driver
from spinkeras.layer.neuron import SpinNeuron, spin_neurons

__all__ = ["ConversionReport", "DeviceRange", "Driver", "SpinNeuron", "spin_neurons", "to_spin"]
