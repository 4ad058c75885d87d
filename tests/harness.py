"""What the tests share: gradients on every backend, and Keras's own layer contract.

The contract is from the private test tools of Keras's wheel; hence in one place.
"""

import warnings

import keras
import pytest
from keras import ops

BACKEND = keras.backend.backend()
OTHER_BACKEND = BACKEND != "tensorflow"  # where to skip what is TensorFlow's alone
FLOAT64 = BACKEND != "jax"  # which has it only if asked, for the whole process
COMPILED = pytest.param(
    True, marks=pytest.mark.skipif(BACKEND == "torch", reason="torch.compile takes minutes")
)


def some_slow(names, *fast):
    """Parameters of a test, of which all but a few are in the slow set."""
    return [pytest.param(name, marks=() if name in fast else pytest.mark.slow) for name in names]


def gradients(function, *values, graph=False):
    """Gradients of a scalar function of arrays, at these values.

    Args:
        function: takes tensors, one for each value, and returns a scalar tensor.
        values: arrays, tensors or Keras variables.
        graph: whether to trace a graph on TensorFlow.

    Returns:
        List of NumPy arrays; `None` (on JAX zeros) for a value that the function does not use.
    """
    tensors = [ops.convert_to_tensor(ops.convert_to_numpy(value)) for value in values]
    if graph and BACKEND == "tensorflow":
        import tensorflow as tf

        found = tf.function(lambda *t: tensor_gradients(function, *t), autograph=False)(*tensors)
    else:
        found = tensor_gradients(function, *tensors)
    return [None if g is None else ops.convert_to_numpy(g) for g in found]


def tensor_gradients(function, *tensors):
    """As `gradients`, from tensors to tensors that can be differentiated again."""
    if BACKEND == "jax":
        import jax

        return jax.grad(function, range(len(tensors)))(*tensors)
    if BACKEND == "torch":
        import torch

        watched = [t if t.requires_grad else t.detach().requires_grad_() for t in tensors]
        return torch.autograd.grad(
            function(*watched), watched, create_graph=True, allow_unused=True
        )
    import tensorflow as tf

    with tf.GradientTape() as tape:
        tape.watch(tensors)
        out = function(*tensors)
    return tape.gradient(out, tensors)


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
