"""Ground truth of the macrospin: the Fokker-Planck and the stochastic LLG equation."""

from spinkeras.macrospin import fokker_planck, llg

__all__ = ["fokker_planck", "llg"]
