"""Simulated chips, the table of settings for the driver, and the reliability of the bits."""

from spinkeras.hardware.chips import ChipReport, chip_sensitivity, evaluate_chips
from spinkeras.hardware.driver_table import apply_device_settings, device_settings
from spinkeras.hardware.margins import read_disturb, reliability
from spinkeras.hardware.training import NewChipEachEpoch

__all__ = [
    "ChipReport",
    "NewChipEachEpoch",
    "apply_device_settings",
    "chip_sensitivity",
    "device_settings",
    "evaluate_chips",
    "read_disturb",
    "reliability",
]
