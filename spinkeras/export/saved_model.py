"""Export of trained networks as TensorFlow SavedModel, for TensorFlow Serving and similar servers.

An export traces the network and checks the written graph on probe inputs. It compares outputs and
energies with the Keras model; samples must be finite and have the right shape. Only then the export
gets its final name. So every visible version has been checked, and a crash leaves earlier versions
unchanged. An export needs the TensorFlow backend; a `.keras` file written with another backend can
be loaded and exported with `KERAS_BACKEND=tensorflow`.
"""

import dataclasses
import json
import pathlib
import re
import shutil
import uuid
from collections.abc import Sequence
from typing import Any

import keras
import numpy as np

from spinkeras import checks, files
from spinkeras._typing import PathLike
from spinkeras._version import __version__
from spinkeras.energy.pulse import EnergyAssumptions
from spinkeras.energy.report import nominal_report
from spinkeras.export.network import (
    TOLERANCE,
    Bits,
    ExportReport,
    Network,
    energy_names,
    first_lines,
    need_tensorflow,
)


def export_for_serving(
    model: keras.Model,
    path: PathLike,
    *,
    version: int | None = None,
    sample: bool = False,
    energy: bool = True,
    seed: int | None = None,
    assumptions: EnergyAssumptions | None = None,
    check_inputs: bool = True,
    input_signature: Any = None,
    output_names: Sequence[str] | None = None,
    probe: Any = None,
) -> ExportReport:
    """Write the next version of a network for TensorFlow Serving, or any SavedModel runtime.

    The export is written to a hidden folder, compared there with the model and then renamed to the
    next free number: `path/1`, `path/2` and so on. So a version appears complete or not at all. The
    graph needs neither this library nor Python, and writes no state. It has these endpoints:

    * `serve`, also called `serving_default`: the outputs of `model(x, training=False)`.
    * `energy`: pJ per inference for every sample of the request, `energy_pj` for all spin layers
      together and `energy_pj_<layer>` for each. `energy_report` prints the mean of these values.
    * `sample` (with `sample=True`): drawn outputs, new for every request. Every spin neuron gives
      the fraction of its `pulses` that switched, with one pulse a single bit. The check only
      requires that a draw is finite and has the shape of `serve`.

    In `serve` and `energy` every spin layer passes on its probabilities, even if its `output` is
    `"always_sampled"`.

    An input has the name of its `keras.Input(name=...)`, an output the name of its layer, if these
    names were given. Otherwise they are `input`, `output_0` and so on.

    Args:
        model: a built Keras model on the TensorFlow backend.
        path: base folder on a local file system; it is created if missing.
        version: number of the version, >= 1. Default: the next free number. An existing version is
            never overwritten.
        sample: whether to add the `sample` endpoint. Default `False`.
        energy: whether to add the `energy` endpoint. Default `True`.
        seed: integer >= 0; the same sequence of samples follows every start of a server. Default
            `None`: other samples on every server and after every start.
        assumptions: `EnergyAssumptions` of the `energy` endpoint.
        check_inputs: whether the graph itself refuses NaN, infinity and wrong shapes (the server
            answers INVALID_ARGUMENT, HTTP 400). Default `True`. If the server joins requests into
            batches, a refused sample also fails the other requests of its batch.
        input_signature: structure of `keras.InputSpec` or `tf.TensorSpec` as for a call of the
            model; only subclassed models need it.
        output_names: one name per output, in the order of `keras.tree.flatten(model(x))`.
        probe: inputs, as for `model.predict`, on which export and model are compared. Default:
            generated values.

    Returns:
        `ExportReport`.

    Raises:
        ValueError: for another backend, an unbuilt model, `energy` without spin layers, names
            that no client can use, or a version that exists. Also for a network that writes state
            or calls Python during inference, whose written graph disagrees with the model, or
            whose samples are not finite.

    Example:

    >>> import tempfile, keras, spinkeras
    >>> model = keras.Sequential([keras.Input((4,), name="x"), spinkeras.SpinNeuron(name="spin")])
    >>> report = spinkeras.export_for_serving(model, tempfile.mkdtemp() + "/spin")
    >>> report.path.name, report.inputs, report.outputs
    ('1', ('x',), ('spin',))
    """
    tf = need_tensorflow("export_for_serving")
    network = Network(model, input_signature, output_names, probe)
    layers = network.layers
    if (energy or sample) and not layers:
        raise ValueError(
            "This model has no SpinNeuron, so it has no energy and nothing to sample; export it "
            "with energy=False and sample=False."
        )
    version = None if version is None else checks.whole("version", version, 1, 2**63 - 1)
    seed = None if seed is None else checks.whole("seed", seed, 0, 2**31 - 1)
    assumptions = EnergyAssumptions() if assumptions is None else assumptions

    functions = {"serve": network.function(check_inputs)}
    if energy:
        functions["energy"] = network.energy_function(check_inputs, layers, assumptions)
    if sample:
        functions["sample"] = network.function(check_inputs, Bits(seed))

    base = pathlib.Path(path)
    base.mkdir(parents=True, exist_ok=True)
    if version is not None and (base / str(version)).exists():
        raise ValueError(
            f"Version {version} exists in {base}; a version is never overwritten. Leave "
            "`version` out to use the next free number."
        )
    hidden = base / f".export-{uuid.uuid4().hex}"  # servers skip names that are not numbers
    try:
        network.write(hidden, functions)
        report = _check_saved_model(tf, hidden, network, assumptions, energy, sample)
        _write_provenance(hidden, network, layers, assumptions, functions)
        final = _publish(hidden, base, version)
    except BaseException:
        shutil.rmtree(hidden, ignore_errors=True)
        raise
    return dataclasses.replace(report, path=final)


def _check_saved_model(tf, folder, network, assumptions, energy, sample):
    """Load the written SavedModel and compare it with the model."""
    loaded = tf.saved_model.load(str(folder))

    def run(endpoint, probes):
        try:
            return loaded.signatures[endpoint](**network.named(probes))
        except tf.errors.OpError as error:
            raise ValueError(
                f"The written endpoint {endpoint!r} does not run on the probe inputs: "
                f"{first_lines(error)}"
            ) from error

    got = run("serve", network.probes)
    output_error = network.compare([got[name].numpy() for name in network.output_names])
    few = [value[:: max(1, len(value) // 4)] for value in network.probes]
    if sample:
        _check_sample(run("sample", few), run("serve", few))
    energy_error = None
    if energy:
        got = run("energy", few)
        energy_error = _compare_energy(got, network, few, assumptions)
    return network.report(folder, output_error, energy_error=energy_error)


def _check_sample(got, expected):
    """Check the shape of a draw and that it is finite; its values cannot be compared."""
    for name, value in got.items():
        if value.shape != expected[name].shape or not np.all(np.isfinite(value.numpy())):
            raise ValueError(
                f"The endpoint 'sample' gives NaN or infinite values of {name!r}, or another shape "
                f"than 'serve' (got {value.shape}, 'serve' gives {expected[name].shape}). A layer "
                "may work on probabilities but fail on bits (a division, a logarithm). Export with "
                "sample=False."
            )


def _compare_energy(got, network, probes, assumptions):
    names = energy_names(network.layers)
    count = len(probes[0])
    worst = 0.0
    for k in range(count):
        one = network.pack([value[k : k + 1] for value in probes])
        report = nominal_report(network.model, one, assumptions)
        wanted = [report.total_pj, *(row["total_pj"] for row in report.layers)]
        for name, want in zip(names, wanted):
            value = got[name].numpy()
            if value.shape != (count,) or not abs(value[k] - want) <= TOLERANCE * abs(want):
                raise ValueError(
                    f"The endpoint 'energy' gives {name} = {value} pJ, but energy_report gives "
                    f"{want:.6g} pJ for sample {k}. The energy of this network cannot be separated "
                    "by sample: a layer mixes the batch axis with others, or the result of a "
                    "sample depends on its batch. Export with energy=False."
                )
            worst = max(worst, abs(value[k] - want) / abs(want) if want else 0.0)
    return float(worst)


def _write_provenance(folder, network, layers, assumptions, functions):
    """Write devices, assumptions and names beside the graph; servers ignore `assets.extra`."""
    devices = list(dict.fromkeys((layer.device, layer.telegraph) for layer in layers))
    text = json.dumps(
        {
            "written_by": f"spinkeras {__version__}",
            "endpoints": list(functions),
            "inputs": network.input_names,
            "outputs": network.output_names,
            "energy_unit": "pJ per inference",
            "energy_assumptions": [line for d in devices for line in assumptions.lines(*d)],
            "devices": [device.get_config() for device, _ in devices],
        },
        indent=2,
    )
    extra = folder / "assets.extra"
    extra.mkdir()
    (extra / "spinkeras.json").write_text(text + "\n")


def _publish(hidden, base, version):
    """Rename the hidden folder to its number, or to the next if another export has taken it."""
    while True:
        number = version
        if number is None:
            taken = [int(p.name) for p in base.iterdir() if re.fullmatch(r"[0-9]+", p.name)]
            number = max(taken, default=0) + 1
        final = base / str(number)
        try:
            files.publish(hidden, final)
        except OSError:
            if version is None and final.exists():
                continue
            raise
        return final
