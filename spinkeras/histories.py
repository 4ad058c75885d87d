"""Read the history of a fit as arrays by name."""

import numpy as np

from spinkeras import checks


def logs(history) -> dict[str, np.ndarray]:
    """The values of all epochs by key, without metrics that have several values per epoch.

    Another object than a history gives a `ValueError`.
    """
    found = getattr(history, "history", history)
    if not isinstance(found, dict) or not found or not all(isinstance(key, str) for key in found):
        raise ValueError(
            f"history = {checks.shown(history)} must be the result of model.fit, or its dictionary "
            "of lists, with at least one epoch."
        )
    single = {key: values for key, values in found.items() if not _has_axes(values)}
    return {key: _numbers(key, values) for key, values in (single or found).items()}


def metric(logs) -> str:
    """The key of the accuracy, or of the loss if there is no accuracy."""
    own = [key for key in logs if not key.startswith("val_")] or [key[4:] for key in logs]
    named = [key for key in own if "acc" in key] or [key for key in own if key == "loss"]
    return (named or own)[0]


def _has_axes(values):
    """Whether every value is an array, such as the accuracy of every class."""
    if not isinstance(values, list) or not values:
        return False
    return all(isinstance(v, (list, tuple)) or getattr(v, "ndim", 0) > 0 for v in values)


def _numbers(key, values):
    try:
        numbers = np.array([float(value) for value in values])
    except (TypeError, ValueError):
        numbers = np.array([])
    if not numbers.size:
        raise ValueError(
            f"history[{checks.shown(key)}] = {checks.shown(values)} must be a list of numbers, "
            "one per epoch."
        )
    return numbers
