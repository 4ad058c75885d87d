"""Type names for annotations."""

import os
from typing import Any, TypeAlias

Array: TypeAlias = Any  # a number, a NumPy array or a Keras tensor; shapes must broadcast
PathLike: TypeAlias = str | os.PathLike[str]
