"""Load MNIST for the examples from a folder with mnist.npz, or download it with Keras."""

import os
import pathlib

import keras
import numpy as np


def load_mnist(folder=None):
    """`(x, y), (x_test, y_test)` as stored: uint8 images (n, 28, 28) and labels.

    Args:
        folder: folder with `mnist.npz`. Default: that in the environment variable
            `SPINKERAS_DATA`; without it Keras downloads the file.
    """
    folder = folder or os.environ.get("SPINKERAS_DATA")
    if not folder:
        return keras.datasets.mnist.load_data()
    with np.load(pathlib.Path(folder) / "mnist.npz") as data:
        x, y, x_test, y_test = (data[k] for k in ("x_train", "y_train", "x_test", "y_test"))
    return (x, y), (x_test, y_test)
