"""The versions of the installed packages, for a bug report."""

import platform
from collections.abc import Callable
from importlib import metadata

import keras

from spinkeras import checks
from spinkeras._version import __version__

_PACKAGES = (
    *("tensorflow", "jax", "torch", "numpy", "scipy", "pandas"),
    *("keras-tuner", "tensorflow-probability", "ai-edge-litert", "onnxruntime"),
)


def show_versions(print_fn: Callable[[str], object] = print) -> None:
    """Print the versions that a bug report needs, without importing the packages.

    Args:
        print_fn: function that receives the lines as one text. Default `print`.

    Raises:
        ValueError: for a `print_fn` that is not a function.

    Example:

    >>> import spinkeras
    >>> spinkeras.show_versions(lambda text: print(text.splitlines()[0]))
    spinkeras 0.1.0
    """
    if not callable(print_fn):
        raise ValueError(f"print_fn = {checks.shown(print_fn)} must be a function of one text.")
    lines = [
        f"spinkeras {__version__}",
        f"Keras {keras.__version__}, backend {keras.backend.backend()}",
        f"Python {platform.python_version()}, {platform.platform()}",
    ]
    for name in _PACKAGES:
        try:
            lines.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            lines.append(f"{name} not installed")
    print_fn("\n".join(lines))
