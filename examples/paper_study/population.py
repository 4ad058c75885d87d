"""Train many small networks side by side: one Keras model, one pass over the data.

The networks of a population have layers of the same sizes and see the same batches. Every network
has its own weights, knobs, learning rate, weight bound and pulse width. The loss is the sum of the
networks' losses, each multiplied by its learning rate. So plain gradient descent trains every
network as if it were alone (`tests/test_paper_study.py` tests this).
"""

import itertools

import keras
import numpy as np
from keras import ops

import spinkeras


class Bound(keras.constraints.Constraint):
    """Clips weights to `+-limit`, an array that broadcasts to the weights; inf means no bound."""

    def __init__(self, limit):
        self.limit = np.asarray(limit, "float32")

    def __call__(self, weight):
        return ops.clip(weight, -self.limit, self.limit)


class Population:
    """Networks of one structure, trained as one model.

    Args:
        sizes: neurons per layer, inputs first, such as `(784, 25, 10)`.
        count: number of networks.
        learning_rates, weight_bounds: one value per network (`inf`: no bound).
        batch_norm: whether a BatchNormalization comes before every spin neuron.
        **neuron: arguments of `SpinNeuron`, the same for all networks.
    """

    def __init__(self, sizes, count, learning_rates, weight_bounds, batch_norm=False, **neuron):
        self.count = count
        self.rates = np.asarray(learning_rates, "float32")
        bounds = np.asarray(weight_bounds, "float32")
        self.template = single(sizes, batch_norm, **neuron)
        flow = inputs = keras.Input((sizes[0],))
        for k, width in enumerate(sizes[1:]):
            if k == 0:
                limit = Bound(np.repeat(bounds, width))
                flow = keras.layers.Dense(count * width, kernel_constraint=limit)(flow)
            else:
                flow = keras.layers.Reshape((count, sizes[k]))(flow)
                flow = keras.layers.EinsumDense(
                    "bmi,mio->bmo",
                    (count, width),
                    bias_axes="mo",
                    kernel_constraint=Bound(bounds[:, None, None]),
                )(flow)
                flow = keras.layers.Reshape((count * width,))(flow)
            if batch_norm:
                flow = keras.layers.BatchNormalization()(flow)
            flow = spinkeras.SpinNeuron(**_of_layer(k, sizes, neuron))(flow)
        self.model = keras.Model(inputs, flow)

    def compile(self, jit_compile="auto"):
        metrics = ["categorical_accuracy"] if self.count == 1 else []
        optimizer = keras.optimizers.SGD(float(self.rates.max()))
        self.model.compile(optimizer, self.loss, metrics=metrics, jit_compile=jit_compile)

    def loss(self, y_true, y_pred):
        """Sum of the networks' binary cross-entropies, each multiplied by its learning rate."""
        y_pred = ops.reshape(y_pred, (-1, self.count, y_true.shape[-1]))
        y_true = ops.broadcast_to(y_true[:, None], ops.shape(y_pred))
        each = ops.sum(ops.binary_crossentropy(y_true, y_pred), axis=-1)
        return ops.sum(each * (self.rates / self.rates.max()), axis=-1)

    def load(self, k, network):
        """Copy a model of `single` into network `k` and clip its weights to the bound."""
        self._copy(k, network, inward=True)
        for layer in self.model.layers:
            if isinstance(layer, (keras.layers.Dense, keras.layers.EinsumDense)):
                layer.kernel.assign(layer.kernel_constraint(layer.kernel))

    def network(self, k):
        """Network `k` as an ordinary model; every call returns the same object."""
        self._copy(k, self.template, inward=False)
        return self.template

    def _copy(self, k, network, inward):
        kinds = (
            keras.layers.Dense,
            keras.layers.EinsumDense,
            keras.layers.BatchNormalization,
            spinkeras.SpinNeuron,
        )
        all_layers = [layer for layer in self.model.layers if isinstance(layer, kinds)]
        own_layers = [layer for layer in network.layers if isinstance(layer, kinds)]
        for many, one in zip(all_layers, own_layers, strict=True):
            for big, small in zip(_weights(many), _weights(one), strict=True):
                width = small.shape[-1]
                if isinstance(many, keras.layers.EinsumDense):
                    part = np.s_[k]
                else:
                    part = np.s_[..., k * width : (k + 1) * width]
                if inward:
                    value = np.array(big)
                    value[part] = ops.convert_to_numpy(small)
                    big.assign(value)
                else:
                    small.assign(ops.convert_to_numpy(big)[part])


def _weights(layer):
    if isinstance(layer, spinkeras.SpinNeuron):
        return [layer.log_pulse_width, layer.log_anisotropy]
    return layer.weights


def single(sizes, batch_norm=False, seed=0, **neuron):
    """One network; weights and biases are uniform in `+-sqrt(6 / (n_in + n_out))`."""
    model = keras.Sequential([keras.Input((sizes[0],))])
    for k, (before, width) in enumerate(itertools.pairwise(sizes)):
        limit = (6 / (before + width)) ** 0.5
        kernel, bias = (
            keras.initializers.RandomUniform(-limit, limit, seed=1000 * seed + 2 * k + j)
            for j in (0, 1)
        )
        model.add(keras.layers.Dense(width, kernel_initializer=kernel, bias_initializer=bias))
        if batch_norm:
            model.add(keras.layers.BatchNormalization())
        model.add(spinkeras.SpinNeuron(**_of_layer(k, sizes, neuron)))
    return model


def _of_layer(k, sizes, neuron):
    """Arguments of layer `k`; the last one trains on probabilities, as bits give no gradient."""
    if k == len(sizes) - 2 and neuron.get("output") == "sampled":
        return {**neuron, "output": "probability"}
    return neuron
