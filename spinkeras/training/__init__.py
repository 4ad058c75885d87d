"""What callbacks do to a fit: a hold on its steps, a backup to go on from, a view of its knobs."""

from spinkeras.training.backup import ExactBackup
from spinkeras.training.tensorboard import SpinTensorBoard

__all__ = ["ExactBackup", "SpinTensorBoard"]
