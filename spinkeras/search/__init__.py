"""Searches with keras-tuner over devices and networks, for accuracy and energy at once.

Write `import spinkeras.search` to use it; `import spinkeras` alone does not load keras-tuner. Each
part can be used alone:

    spin_search_space   declares the choices of a spin neuron inside a user's own build(hp)
    EnergyObjective     combines accuracy and energy into one score, at a given exchange rate
    SpinHyperModel      keras-tuner hypermodel that uses both
    dense_classifier    a network for it
    energy_front        the trials of a search that no other trial beats in both
    durable             makes a search survive killed processes
"""

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
