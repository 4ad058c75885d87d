"""Searches that take a moment."""

import keras
import keras_tuner as kt
import numpy as np


def data(n=48):
    rng = np.random.default_rng(3)
    x = rng.normal(size=(n, 6)).astype("float32")
    return x, (x[:, 0] > 0).astype("int32")


def tiny(hp, spin):
    """A network that trains in a moment; eager, because tracing would take longer."""
    model = keras.Sequential(
        [
            keras.Input((6,)),
            keras.layers.Dense(hp.Int("hidden", 2, 4)),
            spin(),
            keras.layers.Dense(2, activation="softmax"),
        ]
    )
    model.compile(
        keras.optimizers.SGD(0.1),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        run_eagerly=True,
    )
    return model


def search(tuner, epochs=2):
    x, y = data()
    kwargs = {} if isinstance(tuner, kt.Hyperband) else {"epochs": epochs}
    tuner.search(x, y, validation_data=(x, y), batch_size=len(x), verbose=0, **kwargs)
    return tuner


# Of the searches that run as processes of their own.
NETWORK = """
def network(hp, spin):
    model = keras.Sequential([
        keras.Input((4,)), keras.layers.Dense(3), spin(), keras.layers.Dense(2, "softmax")
    ])
    model.compile(
        "sgd", "sparse_categorical_crossentropy", metrics=["accuracy"], run_eagerly=True
    )
    return model
"""
