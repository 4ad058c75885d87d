"""The results file of `evaluate_chips`, with which a later call continues.

Every line holds one chip and a label, the hash of all that determines the results.
"""

import hashlib
import inspect
import json
import math
import pathlib

import numpy as np

from spinkeras import checks, files
from spinkeras.layer.members import spin_neurons, weights_hash


def identity(metric):
    """Key that distinguishes a metric from others, also in another process."""
    named = inspect.isfunction(metric) or inspect.isclass(metric)
    if not named or "<" in metric.__qualname__:  # <lambda>, or in the <locals> of a function
        raise ValueError(
            f"metric = {metric!r} has no name by which a results_file can recognise it. Use a "
            "function or class at the top level of a module (def, not lambda, partial or a "
            "method), or no results_file."
        )
    code = getattr(metric, "__code__", None)
    if code is None:
        return metric.__qualname__
    constants = [repr(value) for value in code.co_consts if not inspect.iscode(value)]
    return metric.__qualname__, code.co_code.hex(), code.co_names, constants


def fingerprint(model, x, y, spread, metric, answer, options):
    """Short hash of all that determines the results, to recognise the file of another network.

    The layers without spin neurons enter through the nominal output of the network, to three
    digits.
    """
    size = [f"{value:.2e}" for value in (np.mean(answer), np.sqrt(np.mean(np.square(answer))))]
    text = [options, spread.get_config(), metric, size, weights_hash(model)]
    for layer in spin_neurons(model):
        config = layer.get_config()
        text.append({key: config[key] for key in sorted(config) if key != "name"})
    digest = hashlib.sha256(json.dumps(text, default=repr).encode())
    for array in (x, y):
        digest.update(np.ascontiguousarray(array).tobytes())
    return digest.hexdigest()[:16]


def append_results(results_file, label, values):
    rows = [
        {"label": label, "chip": chip, "values": pair}
        for chip, pair in values.items()
        if all(map(math.isfinite, pair))
    ]
    files.append(results_file, [json.dumps(row, allow_nan=False) for row in rows])


def read_results(results_file, label, is_fraction):
    """`{chip: [metric, pJ]}` from the complete lines of a file; an incomplete one is removed."""
    path = pathlib.Path(results_file)
    if not path.exists():
        return {}
    content = path.read_bytes()
    whole, cut = content[: content.rfind(b"\n") + 1], content[content.rfind(b"\n") + 1 :]
    done = {}
    for number, line in enumerate(whole.split(b"\n")[:-1], 1):
        where = f"{path.name}, line {number}"
        if not line.strip():
            continue
        chip, values = _result(line, where, label, is_fraction)
        if not np.allclose(done.setdefault(chip, values), values, rtol=1e-4, atol=0):
            raise ValueError(
                f"{where}: chip {chip} has the values {values}, but {done[chip]} in an earlier "
                "line; delete the wrong line."
            )
    if cut:
        files.write(path, whole)
    return done


def _result(line, where, label, is_fraction):
    """Chip and values of one line."""
    remedy = "delete this line; its chip is then evaluated again"
    try:
        row = checks.from_json(line, where)
    except ValueError as error:
        raise ValueError(f"{where}: not a result; {remedy}. {error}") from None
    if not isinstance(row, dict) or set(row) != {"label", "chip", "values"}:
        raise ValueError(f"{where}: a result must have label, chip and values; {remedy}.")
    if row["label"] != label:
        raise ValueError(
            f"{where} belongs to another model, data or setting; use a new results_file."
        )
    values = row["values"]
    if not isinstance(values, list) or len(values) != 2:
        raise ValueError(
            f"{where}: values = {checks.shown(values)} must be the metric and the energy; {remedy}."
        )
    chip = checks.whole(f"{where}: chip", row["chip"], 0, 10**7 - 1)
    limits = ("(a fraction)", 0.0, 1.0) if is_fraction else ("(units of the metric)",)
    score = checks.number(f"{where}: the metric", values[0], *limits)
    return chip, [score, checks.number(f"{where}: the energy", values[1], "pJ", 0.0)]
