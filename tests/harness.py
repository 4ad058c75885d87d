"""Keras's own layer contract, from the private test tools of its wheel; hence one file."""

import warnings

import pytest


def run_layer_test(*args, **kwargs):
    testing = pytest.importorskip("keras.src.testing")

    class Case(testing.TestCase):
        def runTest(self):
            pass

    case = Case()
    case.setUp()
    try:
        with warnings.catch_warnings():  # of the tool itself, and of train=()
            warnings.filterwarnings("ignore", message=".*shuffle=True|.*any trainable weights")
            case.run_layer_test(*args, **kwargs)
    finally:
        case.tearDown()
        case.doCleanups()
