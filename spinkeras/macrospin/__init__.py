"""Ground truth of the macrospin: Fokker-Planck, stochastic LLG, and the fit of the closed form."""

from spinkeras.macrospin import fokker_planck, llg

__all__ = ["fokker_planck", "llg"]
