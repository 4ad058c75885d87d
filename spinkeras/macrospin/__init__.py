"""Exact solvers for a macrospin: the Fokker-Planck and the stochastic LLG equation.

A macrospin is a free layer with uniform magnetisation, described by one unit vector. The closed
form in `spinkeras.physics.laws` is fitted to these solvers.
"""

from spinkeras.macrospin import fokker_planck, llg

__all__ = ["fokker_planck", "llg"]
