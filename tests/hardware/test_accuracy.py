"""What counts as a correct answer, by the labels and the compiled loss."""

import functools

import keras
import numpy as np
import pytest
from keras import ops

from tests.hardware.harness import head, judged, mean_output

BITS = np.random.default_rng(1).integers(0, 2, 40)
CLASSES = np.random.default_rng(2).integers(0, 3, 40)
LOGITS = keras.losses.BinaryCrossentropy(from_logits=True)


@pytest.mark.parametrize(
    ("loss", "y", "threshold"),
    [
        ("mse", BITS, 0.5),
        ("bce", BITS[:, None] > 0, 0.5),
        ("mse", 2.0 * BITS - 1, 0.0),
        ("mse", 2 * BITS[:, None] - 1, 0.0),
        ("hinge", BITS, 0.0),
        (keras.losses.SquaredHinge(), BITS, 0.0),
        (LOGITS, BITS, 0.0),
        ([LOGITS], np.ones(40), 0.0),
        (functools.partial(keras.losses.binary_crossentropy, from_logits=True), BITS, 0.0),
        (keras.losses.BinaryFocalCrossentropy(from_logits=True), BITS, 0.0),
    ],
)
def test_one_output_is_divided_where_its_labels_and_loss_say(loss, y, threshold):
    model = head(keras.layers.Dense(1), loss=loss)
    model.layers[-1].set_weights([4.0 * np.array([[1], [-1], [1], [-1], [0]]), np.array([0.25])])
    found, outputs = judged(model, y)
    assert outputs.min() < 0 < 0.5 < outputs.max()
    assert found == np.mean((outputs.ravel() > threshold) == (np.ravel(y) > 0))


@pytest.mark.parametrize("steps", [(), (3,), pytest.param((2, 4), marks=pytest.mark.slow)])
def test_class_numbers_and_one_hot_rows_of_any_shape(steps):
    """Also where the number of steps is that of the classes."""
    y = np.random.default_rng(2).integers(0, 3, (40, *steps))
    model = head(keras.layers.Dense(3), inputs=(*steps, 4))
    for given in (y.astype("float32"), y[..., None], np.eye(3)[y], 2 * np.eye(3)[y] - 1):
        found, outputs = judged(model, given, (*steps, 4))
        assert found == pytest.approx(np.mean(outputs.argmax(-1) == y))
    mask = y > 0  # of one channel
    model = head(keras.layers.Dense(1, "sigmoid"), inputs=(*steps, 4))
    for one in (mask, mask[..., None]):
        found, outputs = judged(model, one, (*steps, 4))
        assert found == pytest.approx(np.mean((outputs[..., 0] > 0.5) == mask))


@pytest.mark.parametrize(
    ("outputs", "y"),
    [
        (1, np.linspace(-1, 1, 40)),
        (1, BITS + 1),
        (1, CLASSES),
        (1, CLASSES - 1),
        (1, np.where(BITS, np.nan, 0.0)),
        (1, np.array(["no", "yes"])[BITS]),
        (1, np.zeros((40, 2))),
        (2, np.random.default_rng(0).normal(size=(40, 2))),
        (2, 2 * BITS - 1),
        (3, CLASSES + 1),
        (3, CLASSES + 0.5),
        (3, 1 - np.eye(3)[CLASSES]),
        (3, 0.9 * np.eye(3)[CLASSES]),
        (3, np.zeros((40, 3))),
        (3, np.array(["a", "b", "c"])[CLASSES]),
        (3, np.zeros((40, 5), int)),
        (3, np.zeros((40, 2, 2), int)),
    ],
)
def test_labels_without_a_known_accuracy_ask_for_a_metric(outputs, y):
    with pytest.raises(ValueError, match="For other tasks give metric="):
        judged(head(keras.layers.Dense(outputs)), y)
    assert judged(head(keras.layers.Dense(outputs)), y, metric=mean_output)[0] != 0


@pytest.mark.parametrize(
    ("loss", "y"), [(None, BITS), (lambda t, p: ops.mean(p), BITS), ("mse", np.ones(40))]
)
def test_an_output_of_unknown_meaning_asks_for_a_metric(loss, y):
    model = head(keras.layers.Dense(1), loss=loss)
    with pytest.raises(ValueError, match=r"whether 0 or 0\.5 divides .* Give metric="):
        judged(model, y)
    found, outputs = judged(head(keras.layers.Dense(1, "sigmoid"), loss=loss), y)
    assert found == np.mean((outputs.ravel() > 0.5) == y)
