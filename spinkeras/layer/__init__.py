"""The Keras layer, its computation, observation of its calls, and callbacks for its training."""

from spinkeras.layer.backup import ExactBackup
from spinkeras.layer.conversion import ConversionReport, to_spin
from spinkeras.layer.knobs import DeviceRange, Driver
from spinkeras.layer.members import spin_neurons
from spinkeras.layer.neuron import SpinNeuron
from spinkeras.layer.tensorboard import SpinTensorBoard

__all__ = [
    "ConversionReport",
    "DeviceRange",
    "Driver",
    "ExactBackup",
    "SpinNeuron",
    "SpinTensorBoard",
    "spin_neurons",
    "to_spin",
]
