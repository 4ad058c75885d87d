"""Searches with keras-tuner: what is searched, for what, and without loss when killed."""

from spinkeras.search.durability import durable
from spinkeras.search.hypermodel import SpinHyperModel, dense_classifier
from spinkeras.search.objective import EnergyObjective, energy_front
from spinkeras.search.space import spin_search_space

__all__ = [
    "EnergyObjective",
    "SpinHyperModel",
    "dense_classifier",
    "durable",
    "energy_front",
    "spin_search_space",
]
