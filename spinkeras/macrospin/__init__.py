"""Ground truth of the macrospin: the exact Fokker-Planck solution, and the fit made from it."""

from spinkeras.macrospin import fokker_planck

__all__ = ["fokker_planck"]
