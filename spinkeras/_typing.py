"""Names for kinds of values, for annotations."""

import os
from typing import Any, TypeAlias

Array: TypeAlias = Any  # a number, a NumPy array or a tensor of Keras, whose shapes broadcast
PathLike: TypeAlias = str | os.PathLike[str]
