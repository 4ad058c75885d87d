"""Device parameters from measurements: read a table, fit a law, draw random devices."""

from spinkeras.calibration.fit import fit_device, fit_empirical
from spinkeras.calibration.posterior import Posterior, sample_devices
from spinkeras.calibration.result import FitResult
from spinkeras.calibration.table import read_table

__all__ = ["FitResult", "Posterior", "fit_device", "fit_empirical", "read_table", "sample_devices"]
