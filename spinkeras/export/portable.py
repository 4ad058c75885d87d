"""The steps of an export that LiteRT and ONNX share.

As in `spinkeras.export.saved_model`, a file is compared with the Keras model on probe inputs before
it gets its final name. Here every spin layer is also compared alone, over its whole curve.
"""

import contextlib
import pathlib

import keras
import numpy as np

from spinkeras import files
from spinkeras.export.network import TOLERANCE, Network, first_lines

SMALLEST_PROBABILITY = 1e-12
"""Lowest probability at which LiteRT and ONNX must agree with Keras to a relative `TOLERANCE`.

For lower probabilities only the absolute error is compared. The logarithm of a probability has a
relative rounding error of about 1e-6 in float32, in Keras and in the file, so at a probability of
1e-30 two runtimes differ by 1e-4.
"""


def export_file(model, path, suffix, convert, run, input_signature, output_names, probe):
    path = pathlib.Path(path)
    if path.suffix != suffix:
        raise ValueError(f"path = {str(path)!r} must end in {suffix!r}.")
    network = Network(model, input_signature, output_names, probe)
    for layer in network.layers:
        if layer.output_mode == "always_sampled":
            raise ValueError(
                f"Layer {layer.name!r} always samples, but a {suffix} file supports only expected "
                "values. Use export_for_serving(sample=True), or a layer with output='sampled', "
                "which samples only in training."
            )
    content = convert(network)
    output_error = network.compare(run(content, network))
    neuron_error = None
    if network.layers:
        alone = _neurons_alone(network.layers)
        neuron_error = _compare_neurons(run(convert(alone), alone), alone, suffix)
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write(path, content)
    return network.report(path, output_error, neuron_error=neuron_error)


@contextlib.contextmanager
def carrying(name, failure, speaker="It says", errors=(Exception,)):
    """Turn errors of a converter or a runtime into a `ValueError` that says what to do."""
    try:
        yield
    except errors as error:
        raise ValueError(
            f"{name} cannot hold this network{failure}; use export_for_serving. "
            f"{speaker}: {first_lines(error)}"
        ) from error


def _neurons_alone(layers):
    """A network in which a copy of every spin layer has its own input, with ramps as probes.

    In the whole network, rounding before a neuron hides errors in the tail of its curve. Here the
    ramps drive every neuron over its whole curve.
    """
    inputs, outputs, ramps, names = [], [], [], []
    for k, layer in enumerate(layers):
        config = {**layer.get_config(), "name": f"spin_{k}", "dtype": "float32"}
        # From `2 P - 1` near -1 a small P could not be computed.
        config.update(output="probability", bipolar=False)
        copy = type(layer).from_config(config)
        shape = tuple(layer.log_pulse_width.shape)
        source = keras.Input(shape, name=f"ramp_{k}")
        outputs.append(copy(source))
        for own, trained in zip(copy.knob_weights(), layer.knob_weights()):
            own.assign(trained)
        inputs.append(source)
        names.append(copy.name)
        steps = np.linspace(-80.0, 40.0, 241).reshape((-1,) + (1,) * len(shape))
        ramps.append((steps / (4 * copy.slope)).astype("float32"))
    return Network(keras.Model(inputs, outputs), None, names, ramps)


def _compare_neurons(got, alone, suffix):
    worst = 0.0
    for name, new, old in zip(alone.output_names, got, alone.reference):
        floor = np.maximum(np.abs(old), SMALLEST_PROBABILITY)
        error = np.abs(new.astype("float64") - old) / floor
        where = np.unravel_index(np.argmax(error), error.shape)  # the first NaN if there is one
        if not error[where] <= TOLERANCE:
            raise ValueError(
                f"The {suffix} file gives {new[where]:.6g} for a probability of {old[where]:.6g} "
                f"(spin layer number {name.removeprefix('spin_')}), an error above {TOLERANCE:g}: "
                "the arithmetic of this format is too inexact for this switching model. Use "
                "export_for_serving."
            )
        worst = max(worst, float(error[where]))
    return worst
