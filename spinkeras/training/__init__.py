"""What callbacks do to a fit: a hold on its steps, a backup to go on from."""

from spinkeras.training.backup import ExactBackup

__all__ = ["ExactBackup"]
