"""The accuracy of a network's outputs, as the labels and the compiled loss tell it."""

import keras
import numpy as np

from spinkeras import checks


def accuracy(y_true, y_pred):
    """Fraction of samples with the correct class, as `evaluate_chips` judges it by default."""
    return fraction_right(np.asarray(y_pred), *classes(np.asarray(y_true), np.asarray(y_pred)))


def classes(y, answer, loss=None):
    """Class of every sample, and the threshold of a single output; `None` for several outputs.

    Args:
        y: labels.
        answer: outputs of the nominal network.
        loss: the loss with which the model was compiled. It tells what an output means.
    """
    single = answer.ndim == 1 or answer.shape[-1] == 1
    shape = answer.shape if single else answer.shape[:-1]
    if y.dtype.kind in "biuf":
        if _without_ones(y.shape) == _without_ones(shape):
            if single and (np.isin(y, (0, 1)).all() or np.isin(y, (-1, 1)).all()):
                return y > 0, _threshold(y, answer, loss)
            if not single and np.all((y >= 0) & (y < answer.shape[-1]) & (y == np.floor(y))):
                return y.astype(int), None
        elif not single and y.shape == answer.shape:
            one, low = y == 1, min(y.min(), 0)
            if low in (0, -1) and np.all(one | (y == low)) and np.all(one.sum(-1) == 1):
                return one.argmax(-1), None
    raise ValueError(
        f"The accuracy of labels y of shape {y.shape} ({checks.shown(y)}) and outputs of shape "
        f"{answer.shape} is not known: labels must be class numbers from 0, one-hot rows, or for "
        "one output 0 and 1 or -1 and 1. For other tasks give metric=, a function "
        "(y_true, y_pred) -> float."
    )


def _threshold(y, answer, loss):
    """The output between the two classes: 0 for logits and labels of -1 and 1, otherwise 0.5."""
    arguments = getattr(loss, "keywords", {})  # of a functools.partial
    signs = (keras.losses.Hinge, keras.losses.SquaredHinge)
    centred = isinstance(loss, signs) or loss in (keras.losses.hinge, keras.losses.squared_hinge)
    if centred or getattr(loss, "from_logits", arguments.get("from_logits")) or y.min() < 0:
        return 0.0
    known = (getattr(loss, "__module__", None) or "").startswith("keras.")
    if (np.any(answer < 0) or np.any(answer > 1)) and not (known and y.min() == 0):
        raise ValueError(
            "The accuracy is not known: the output leaves 0 to 1, and neither the labels nor the "
            "compiled loss tell whether 0 or 0.5 divides the classes. Give metric=, a function "
            "(y_true, y_pred) -> float."
        )
    return 0.5


def loss_of(model):
    """The one loss of a compiled model, as an object or a function; otherwise `None`."""
    losses = [*keras.tree.flatten(getattr(model, "loss", None))]
    if len(losses) != 1:
        return None
    return keras.losses.get(losses[0]) if isinstance(losses[0], str) else losses[0]


def fraction_right(answer, wanted, threshold):
    """Fraction of outputs with the correct class; `wanted` and `threshold` as from `classes`."""
    found = answer.argmax(-1) if threshold is None else answer.reshape(wanted.shape) > threshold
    return float(np.mean(found.reshape(wanted.shape) == wanted))


def _without_ones(shape):
    """A shape without axes of size 1 after the axis of samples."""
    return (*shape[:1], *(size for size in shape[1:] if size != 1))
