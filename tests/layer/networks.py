"""Networks of Keras that `to_spin` converts, and what the tests of it ask of them."""

import keras
import numpy as np
from keras import layers

import spinkeras

# Largest distance of the untrained switching curve from the logistic sigmoid; measured 0.0534.
CURVE = 0.058
SIGNED_CURVE = 2 * CURVE  # of `2 P - 1` from tanh, which is `2 sigmoid(2 x) - 1`


def names(rows):
    return [row[0] for row in rows]


def data(*shape):
    return np.random.default_rng(1).normal(size=shape).astype("float32")


def outputs(model, x):
    return keras.ops.convert_to_numpy(model(x, training=False))


def run(model, x):
    """The logs of one epoch with the tracker (eager: tracing costs more than these models)."""
    model.compile("adam", "mse", run_eagerly=True)
    y = np.zeros((len(x), *model.output_shape[1:]), "float32")
    history = model.fit(x, y, epochs=1, verbose=0, callbacks=[spinkeras.EnergyTracker()])
    return history.history


def small(activation="sigmoid", head="softmax"):
    return keras.Sequential(
        [
            keras.Input((4,), name="pixels"),
            layers.Dense(5, activation=activation, name="first"),
            layers.Dense(3, activation=activation, name="second"),
            layers.Dense(2, activation=head, name="head"),
        ],
        name="net",
    )


def dense(**options):
    return layers.Dense(3, activation="sigmoid", **options)
