"""The model card: one HTML page about a trained network, to be kept beside its file.

The page contains all pictures, has no scripts and loads nothing. Its `Content-Security-Policy`
makes the browser refuse scripts and loads, as a second protection if a name with markup in it were
not escaped.
"""

import base64
import html
import io
import math
import pathlib
import warnings

import keras
import numpy as np

from spinkeras import _keras, cards, checks, files, histories, plot
from spinkeras._typing import PathLike
from spinkeras._version import __version__
from spinkeras.energy.report import (
    EnergyReport,
    at_limit,
    latency,
    least_stability,
    limits_in_words,
)
from spinkeras.hardware.chips import ChipReport
from spinkeras.layer.members import network_weights, spin_neurons, unique_names, weights_hash

# Effects that no number on a page covers, for any network.
NOT_DESCRIBED = (
    "Devices are macrospins or follow a given curve: the macrospin has no domain walls, no "
    "back-hopping and no self-heating.",
    "The closed form of the curve is an approximation; probabilities below 1e-3 need the exact "
    "solver (spinkeras.macrospin.fokker_planck).",
    "Energy and latency are those of the spin neurons: synapses, wires, the control circuit, and "
    "the time of reads and resets are not counted. The layers work one after the other.",
    "Accuracy and energy are expected values: the output of a neuron is its probability. "
    "evaluate_chips measures the effect of single pulses and of devices that differ.",
    "Nothing stops a network from driving a current that breaks the oxide: check the peak voltage.",
)
_STYLE = """
:root{color-scheme:light}
body{font:16px/1.5 system-ui,sans-serif;color:#222;background:#fff;margin:0 auto;padding:1em;
max-width:60em;overflow-wrap:break-word}
h1{line-height:1.2}h2{border-bottom:1px solid #ccc;margin-top:2em}
section{overflow-x:auto}table{border-collapse:collapse;margin:.5em 0}
th,td{max-width:36em;unicode-bidi:isolate;font-size:.95em}
img{display:block;width:100%;margin:1em 0}
"""
_MOST_ROWS = 100  # layers in a table
_MOST_DEVICES = 4  # devices on a page, each with a picture


class ModelCard(str):
    """The page that `model_card` returns, as a text of HTML. A notebook shows the page."""

    def save(self, path: PathLike) -> None:
        """Write the page to a file; a file of the same name is replaced.

        Args:
            path: must end in `.html`.

        Raises:
            ValueError: for a path with another ending.
        """
        if not (isinstance(path, (str, pathlib.Path)) and str(path).lower().endswith(".html")):
            raise ValueError(f"path = {checks.shown(path)} must end in '.html', as 'card.html'.")
        files.write(path, str(self))

    def __repr__(self):
        return f"{type(self).__name__}({len(self) / 1000:.0f} kB of HTML; .save('card.html'))"

    def _repr_html_(self):
        frame = "width:100%;height:40em;border:1px solid currentColor"  # its style stays inside
        return f'<iframe sandbox srcdoc="{html.escape(self)}" style="{frame}"></iframe>'


def model_card(
    model: keras.Model,
    history: keras.callbacks.History | dict[str, list] | None = None,
    chips: ChipReport | None = None,
    energy: EnergyReport | None = None,
    target: float | None = None,
    notes: str = "",
) -> ModelCard:
    """One page about a trained network: its structure, its measurements and their assumptions.

    The page shows the architecture, the devices with their sources, accuracy, energy and latency,
    knobs and limits, the yield, the assumptions, and the effects that this library does not model.
    It marks a missing argument as not measured. The page is one file without scripts that loads
    nothing. The function needs matplotlib.

    Args:
        model: built Keras model with `SpinNeuron` layers.
        history: result of `model.fit`, or its dictionary of lists. Default `None`.
        chips: `ChipReport` from `evaluate_chips`. Default `None`.
        energy: `EnergyReport` of this model in its present state, from `energy_report(model, x)`.
            Default `None`: the page shows the energy of the history, if the history has one.
        target: accuracy that a good chip needs, a fraction from 0 to 1, or any number for another
            metric. Default `None`: the page gives the yield for several targets.
        notes: text for the top of the page, up to 5000 characters, for example the data and the
            purpose of the network. Default: no text.

    Returns:
        `ModelCard`, a text with `save(path)`; a notebook shows the page.

    Raises:
        ValueError: for a model without built spin layers, for a wrong `history`, `chips` or
            `energy`, and for an energy report of other weights or knobs than the model has.
        ImportError: without matplotlib.

    Example:

    >>> import keras, numpy as np, spinkeras
    >>> model = keras.Sequential([keras.Input((4,)), spinkeras.SpinNeuron()])
    >>> report = spinkeras.energy_report(model, np.ones((8, 4)), print_fn=None)
    >>> spinkeras.model_card(model, energy=report, notes="Untrained.").save("card.html")
    """
    layers = _spin_layers(model)
    _check_report(energy, model)
    if chips is not None and not isinstance(chips, ChipReport):
        raise ValueError(
            f"chips = {checks.shown(chips)} must be a ChipReport from spinkeras.evaluate_chips."
        )
    if target is not None and chips is None:
        raise ValueError("target needs chips; give chips=spinkeras.evaluate_chips(...), too.")
    notes = checks.text("notes", notes)
    logs = None if history is None else histories.logs(history)
    parts = [
        f"<h1>{cards.escaped(model.name, 100)}</h1>",
        f"<p>{cards.escaped(notes, 5000)}</p>" if notes else "",
        _section("At a glance", cards.facts_table(_glance(model, logs, chips, energy, target))),
        _section("Architecture", *_architecture(model)),
        _section("Devices", *_devices(layers)),
        _section("Training", *_training(logs)),
        _section("Energy and latency", *_energy(energy)),
        _section("Knobs and limits", *_knobs(model, layers)),
        _section("Chips and yield", *_chips(chips, target)),
        _section("Assumptions", *_assumptions(energy)),
    ]
    policy = "default-src 'none'; style-src 'unsafe-inline'; img-src data:"
    return ModelCard(
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{policy}">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        f"<title>{cards.escaped(model.name, 100)}</title><style>{_STYLE}</style></head>\n"
        f"<body>{''.join(parts)}</body></html>\n"
    )


# --- checks of the arguments ---------------------------------------------------------------------


def _spin_layers(model):
    """The spin layers of a model by name."""
    layers = spin_neurons(model) if isinstance(model, keras.Model) else []
    if not layers or not all(layer.built for layer in layers):
        raise ValueError(
            f"model = {checks.shown(model)} must be a built Keras model with SpinNeuron layers; "
            "call the model once on data, or give it a keras.Input."
        )
    return dict(zip(unique_names(layers), layers))


def _check_report(report, model):
    """Refuse another object than an energy report, or a report of other weights."""
    if report is None:
        return
    if not isinstance(report, EnergyReport):
        raise ValueError(
            f"energy = {checks.shown(report)} must be an EnergyReport from "
            "spinkeras.energy_report(model, x)."
        )
    names = unique_names(spin_neurons(model))
    if report.weights != weights_hash(model) or names != [row["name"] for row in report.layers]:
        raise ValueError(
            "energy is a report of another model, or of this model before it was trained on; "
            "measure the model in its present state: energy=spinkeras.energy_report(model, x)."
        )


# --- sections ------------------------------------------------------------------------------------


def _glance(model, logs, chips, energy, target):
    layers = spin_neurons(model)
    facts = {
        "network": f"{_weights(model):,} weights, {_counted(layers)} with "
        f"{sum(layer.pulse_width.size for layer in layers):,} knobs of each kind",
        "device": ", ".join(dict.fromkeys(layer.device.name or "unnamed" for layer in layers)),
    }
    own = histories.metric(logs) if logs else None
    for key in (key for key in (own, f"val_{own}") if logs and key in logs):
        facts[f"{key:.40}, last epoch"] = _number(key, logs[key][-1])
    if own is None:
        facts["accuracy"] = "not given (history)"
    facts["energy"] = _energy_in_words(logs, energy)
    facts["latency"] = f"{latency(model) * 1e9:.4g} ns, the longest pulse of every layer"
    if chips is not None:
        facts["chips"] = _number("accuracy" if chips.is_fraction else "", np.mean(chips.accuracy))
        facts["chips"] += f" on average of {len(chips.accuracy)}"
        if target is not None:
            facts["yield"] = _yield_in_words(chips, target)
    else:
        facts["yield"] = "not measured (chips)"
    facts["made with"] = (
        f"spinkeras {__version__}, Keras {keras.__version__}, {keras.backend.backend()}"
    )
    return facts


def _weights(layer):
    """Number of weights of the network, without those that only measure energy."""
    return sum(math.prod(weight.shape) for weight in network_weights(layer))


def _counted(layers):
    return f"{len(layers)} spin layer" + ("s" if len(layers) > 1 else "")


def _energy_in_words(logs, energy):
    if energy is not None:
        return f"{energy.total_pj:.4g} pJ per inference (mean over {energy.inferences})"
    for key in ("val_energy_pj", "energy_pj"):
        if logs and key in logs:
            return f"{logs[key][-1]:.4g} pJ per inference ({key}, last epoch)"
    return "not measured (energy)"


def _architecture(model):
    spin = {id(layer): layer.device.name or "unnamed" for layer in spin_neurons(model)}
    layers = [layer for layer in _keras.all_layers(model) if layer is not model]
    shown = layers[:_MOST_ROWS]
    columns = {
        "layer": [layer.name for layer in shown],
        "class": [type(layer).__name__ for layer in shown],
        "output": [_shape(layer) for layer in shown],
        "weights": [f"{_weights(layer):,}" if layer.built else "-" for layer in shown],
        "device": [spin.get(id(layer), "") for layer in shown],
    }
    return cards.columns_table(columns), _left_out(len(layers), len(shown), "layers")


def _shape(layer):
    try:
        shapes = [tuple(tensor.shape) for tensor in keras.tree.flatten(layer.output)]
    except Exception:  # a layer of a subclassed model, or a layer that is used several times
        return "-"
    return ", ".join(map(str, shapes))


def _devices(layers):
    devices = list(dict.fromkeys(layer.device for layer in layers.values()))
    for device in devices[:_MOST_DEVICES]:
        yield cards.device(device)
        yield _picture(f"Switching curves of {device.name}", plot.device, device)
    yield _left_out(len(devices), _MOST_DEVICES, "devices")


def _training(logs):
    if logs is None:
        yield _missing("No history was given: history=model.fit(...).")
        return
    yield _picture("Accuracy and energy by epoch", plot.history, logs)
    yield cards.columns_table(
        {
            "by epoch": [*logs],
            "last": [_number(key, values[-1]) for key, values in logs.items()],
            "lowest": [_extreme(key, values, np.nanargmin) for key, values in logs.items()],
            "highest": [_extreme(key, values, np.nanargmax) for key, values in logs.items()],
        }
    )
    yield _missing(
        "If a callback restores the weights of an earlier epoch (EnergyBudget, EarlyStopping), the "
        "network has the numbers of this epoch, not of the last."
    )


def _extreme(key, values, argument):
    if np.all(np.isnan(values)):
        return "no number"
    place = argument(values)
    return f"{_number(key, values[place])} (epoch {place + 1})"


def _number(key, value):
    if "acc" in key and 0 <= value <= 1:
        return f"{value:.2%}"
    return f"{value:.4g}"


def _energy(energy):
    if energy is None:
        yield _missing("No report was given: energy=spinkeras.energy_report(model, x).")
        return
    yield _picture("Energy by layer and component", plot.energy, energy)
    yield cards.energy(energy)


def _knobs(model, layers):
    yield _picture("Histograms of the knobs", plot.knobs, model)
    rows = list(layers.items())[:_MOST_ROWS]
    limits = [{"at_limit": {e: np.mean(v) for e, v in at_limit(o).items()}} for _, o in rows]
    yield cards.columns_table(
        {
            "layer": [name for name, _ in rows],
            "trained": [", ".join(layer.trained_knobs) or "nothing" for _, layer in rows],
            "pulse width": [cards.span(layer.pulse_width * 1e9, "ns") for _, layer in rows],
            "gate voltage": [cards.span(layer.gate_voltage, "V") for _, layer in rows],
            "at a limit": map(limits_in_words, limits),
            "least Delta": [f"{least_stability(layer):.3g}" for _, layer in rows],
            "retention": [_retention(layer) for _, layer in rows],
            "driver": [_driver(layer.driver) for _, layer in rows],
        }
    )
    yield _left_out(len(layers), len(rows), "spin layers")
    if len(layers) <= 12:
        yield _picture("Curves before and after training", plot.compare, model)


def _retention(layer):
    if layer.free_running:
        return "none, it runs freely"
    return cards.duration(layer.device.retention_at(least_stability(layer)))


def _driver(driver):
    if driver is None:
        return "continuous"
    step, levels = driver.pulse_step, driver.gate_levels
    pulses = "pulses of any width" if step is None else f"steps of {step * 1e12:g} ps"
    gate = "any gate voltage" if levels is None else f"{levels} gate levels"
    return f"{pulses}, {gate}"


def _chips(report, target):
    if report is None:
        yield _missing("No chips were simulated: chips=spinkeras.evaluate_chips(model, x, y, ...).")
        return
    yield _picture("Accuracy of the chips, and yield", plot.chips, report, target)
    yield cards.chips(report)
    goals = [target]
    if target is None:
        goals = [np.quantile(report.accuracy, share) for share in (0.0, 0.05, 0.5)]
        goals += [report.nominal - 0.01] if report.is_fraction and report.nominal >= 0.01 else []
    yield cards.facts_table({_goal(report, goal): _yield_in_words(report, goal) for goal in goals})


def _goal(report, goal):
    return f"at least {_number('accuracy' if report.is_fraction else '', goal)}"


def _yield_in_words(report, target):
    share, low, high = report.chip_yield(target)
    return f"{share:.0%} of the chips (95 % interval {low:.0%} to {high:.0%})"


def _assumptions(energy):
    lines = [*(energy.assumptions if energy is not None else ()), *NOT_DESCRIBED]
    yield f"<ul>{''.join(f'<li>{cards.escaped(line)}</li>' for line in lines)}</ul>"


# --- HTML ----------------------------------------------------------------------------------------


def _section(title: str, *parts: str) -> str:
    return f"<section><h2>{title}</h2>{''.join(parts)}</section>\n"


def _missing(text):
    return f"<p>{cards.escaped(text)}</p>"


def _left_out(count, shown, what):
    return _missing(f"And {count - shown} more {what}.") if count > shown else ""


def _picture(title, function, *arguments):
    """The picture of a function of `spinkeras.plot` as HTML, or the reason why there is none."""
    from matplotlib import pyplot, rc_context

    before = set(pyplot.get_fignums())
    content = io.BytesIO()
    try:
        with warnings.catch_warnings(), pyplot.ioff(), rc_context({"svg.hashsalt": "spinkeras"}):
            warnings.filterwarnings("ignore", "Glyph")  # the font may lack characters of a name
            figure = np.ravel(function(*arguments))[0].figure
            figure.savefig(content, format="svg", metadata={"Date": None})
    except ValueError as error:  # the law has no curve there; the page must not fail for this
        return _missing(f"{title}: no picture. {checks.shown_error(error)}.")
    finally:
        for number in set(pyplot.get_fignums()) - before:
            pyplot.close(number)
    return _image(title, content.getvalue(), figure.get_figwidth())


def _image(title, content, inches):
    style = f"max-width:{inches:g}in;min-width:{inches / 2:g}in"  # narrower text is too small
    source = f"data:image/svg+xml;base64,{base64.b64encode(content).decode()}"
    return f'<img alt="{cards.escaped(title)}" style="{style}" src="{source}">'
