"""Warnings that point at the line of the user's code that caused them."""

import sys
import warnings

_INSIDE = ("spinkeras", "keras")


def warn(message):
    """Give a `UserWarning` at the innermost line outside this library and Keras."""
    frame, level = sys._getframe(1), 2
    while frame.f_back is not None and _package(frame) in _INSIDE:
        frame, level = frame.f_back, level + 1
    warnings.warn(message, UserWarning, stacklevel=level)


def _package(frame):
    return str(frame.f_globals.get("__name__")).partition(".")[0]
