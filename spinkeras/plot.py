"""Pictures of a device, a layer, a training or a result with matplotlib, each with one call.

Every function takes `ax`, the matplotlib `Axes` to draw on. Without `ax` it makes a new figure with
pyplot: a notebook shows this figure once, elsewhere `plt.show()` shows it. Every function returns
its `Axes`, so that the picture can be changed or saved: `ax.figure.savefig("picture.png")`.
"""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from scipy import stats

from spinkeras import checks, histories
from spinkeras.calibration import conditions
from spinkeras.calibration.result import FitResult
from spinkeras.energy.pulse import COMPONENTS
from spinkeras.energy.report import ENDS, EnergyReport, at_limit
from spinkeras.hardware.chips import ChipReport
from spinkeras.intervals import clopper_pearson
from spinkeras.layer.knobs import KNOBS
from spinkeras.layer.members import spin_neurons, unique_names
from spinkeras.layer.neuron import SpinNeuron
from spinkeras.physics import laws, switching
from spinkeras.physics.device import DeviceLike, get_device

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = [
    "chips",
    "compare",
    "device",
    "energy",
    "fit",
    "front",
    "history",
    "knobs",
    "slope",
]

# Okabe and Ito, "Color universal design": colour-blind people can distinguish these, too.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
_GREY = "0.5"
_MOST_LINES = 12  # more curves of one kind cannot be distinguished
_NO_LIMITS = ((0.0, np.inf), (0.0, np.inf))  # of the relative pulse width and the stability
# knob: the setting by which it is shown, the factor to the unit of the picture, and the label
_SHOWN = {
    "pulse_width": ("pulse_width", 1e9, "pulse width (ns)"),
    "anisotropy": ("gate_voltage", 1e3, "gate voltage (mV)"),
}
_REACH = 1.15  # logit(0.99) / 4: distance, times 1/slope, from the midpoint to P = 0.01 or 0.99


def __dir__():
    return __all__


# --- a device --------------------------------------------------------------------------------


def device(device: DeviceLike, ax: "Sequence[Axes] | np.ndarray | None" = None) -> np.ndarray:
    """Switching curves of a device for several pulse widths (left) and gate voltages (right).

    The left curves are at a gate voltage of zero, the right ones at the nominal pulse width.
    Pulse widths and gate voltages cover the device's range.

    Args:
        device: `MTJDevice`, preset name or path of a device's file.
        ax: two `Axes`. Default `None`: a new figure.

    Returns:
        Array of the two `Axes`: probability over current in uA (or mA).

    Raises:
        ValueError: for another value of `device`, or if the device's switching law does not cover
            these pulse widths and gate voltages.
        ImportError: without matplotlib.

    Example:

    >>> import spinkeras
    >>> axes = spinkeras.plot.device("stt_reference")
    >>> [text.get_text() for text in axes[0].get_legend().get_texts()]
    ['2 ns', '3.56 ns', '6.32 ns', '11.2 ns', '20 ns']
    """
    device = get_device(device)
    left, right = axes = _axes(ax, 2, (10, 4), sharey=True)
    shortest, longest = device.pulse_width_range
    widths = np.unique(np.geomspace(shortest, longest, 5))
    nominal = np.full(1, device.nominal_pulse_width)
    lowest, highest = device.gate_voltage_range
    volts = np.unique(np.linspace(lowest, highest, 5))
    has_gate = _has_gate(device) and len(volts) > 1
    volts = volts if has_gate else volts[:1]
    zero = np.full(1, device.anisotropy)
    at_width = np.broadcast_arrays(widths, zero)
    at_gate = np.broadcast_arrays(nominal, device.anisotropy_at(volts) if has_gate else zero)
    current, scale, unit = _currents(device, *map(np.concatenate, zip(at_width, at_gate)))
    shades = _shades(5)
    for axis, settings, labels in (
        (left, at_width, [f"{width * 1e9:.3g} ns" for width in widths]),
        (right, at_gate, [f"{volt:+.3g} V" for volt in volts] if has_gate else ["no gate"]),
    ):
        for width, anisotropy, label, colour in zip(*settings, labels, shades):
            probability = switching.switching_probability(current, width, device, anisotropy)
            axis.plot(current * scale, probability, color=colour, label=label)
        axis.set_xlabel(f"current ({unit})")
        axis.set_ylim(-0.03, 1.03)
        axis.margins(x=0)
        axis.grid(alpha=0.3)
    left.set_ylabel("switching probability")
    left.legend(title="pulse width", loc="lower right")
    right.legend(title="gate voltage", loc="lower right")
    left.set_title(f"{_text(device.name) or 'device'}, gate at 0 V")
    right.set_title(f"pulses of {device.nominal_pulse_width * 1e9:.3g} ns")
    return axes


def slope(device: DeviceLike | SpinNeuron, ax: "Axes | None" = None) -> "Axes":
    """Map of the slope at the midpoint over both knobs, with a box around the device's range.

    The midpoint is the current at which a pulse switches with probability 1/2. A device without a
    gate gets a curve over the pulse width instead.

    Args:
        device: `MTJDevice`, preset name, path of a device's file, or a built `SpinNeuron`. The
            settings of a layer are drawn, too.
        ax: `Axes`. Default `None`: a new figure.

    Returns:
        The `Axes`: slope in 1/uA as colour over pulse width in ns and gate voltage in V, or as
        height over pulse width.

    Raises:
        ValueError: for another value of `device`, or a layer that is not built.
        ImportError: without matplotlib.

    Example:

    >>> import spinkeras
    >>> ax = spinkeras.plot.slope("stt_reference")
    >>> ax.get_xlabel(), ax.get_ylabel()
    ('pulse width (ns)', 'gate voltage (V)')
    """
    layer = device if isinstance(device, SpinNeuron) else None
    model = None if layer is None else layer.switching_model
    device = get_device(device if layer is None else layer.device)
    model = laws.own_model(device) if model is None else model
    settings: tuple = () if layer is None else (layer.pulse_width * 1e9, layer.gate_voltage)
    (axis,) = _axes(ax, 1, (6.5, 4.5))
    shortest, longest = device.pulse_width_range
    lowest, highest = device.gate_voltage_range
    widths = np.geomspace(shortest / 1.5, longest * 1.5, 120)
    if not _has_gate(device):
        values = _slopes(widths, device.anisotropy, device, model)
        axis.plot(widths * 1e9, values, color=COLOURS[0])
        axis.axvspan(shortest * 1e9, longest * 1e9, color="0.9", zorder=0, label="device's range")
        axis.set_ylabel("slope at the midpoint (1/uA)")
        axis.set_ylim(bottom=0)
        if layer is not None:
            own = _slopes(layer.pulse_width.ravel(), device.anisotropy, device, model)
            axis.plot(settings[0].ravel(), own, "o", color=COLOURS[1], label="neurons")
    else:
        beyond = 0.15 * (highest - lowest) or 0.1
        volts = np.linspace(lowest - beyond, highest + beyond, 121)
        anisotropy = device.anisotropy_at(volts)[:, None]
        values = _slopes(widths, anisotropy, device, model)
        mesh = axis.pcolormesh(widths * 1e9, volts, values, cmap="cividis", shading="nearest")
        mesh.set_rasterized(True)
        axis.figure.colorbar(mesh, ax=axis, label="slope at the midpoint (1/uA)")
        levels = axis.contour(widths * 1e9, volts, values, 6, colors="white", linewidths=0.7)
        axis.clabel(levels, fontsize=8)
        box = np.array([[shortest, longest, longest, shortest, shortest]]) * 1e9
        corners = [lowest, lowest, highest, highest, lowest]
        axis.plot(box[0], corners, color=COLOURS[1], linewidth=2, label="device's range")
        if settings:
            where = [values.ravel() for values in np.broadcast_arrays(*settings)]
            size = 25 if len(where[0]) <= 200 else 4
            marker = dict(color="white", edgecolor="black", linewidth=0.5, s=size, zorder=3)
            axis.scatter(*where, **marker, label="neurons")
        axis.set_ylabel("gate voltage (V)")
    _nanoseconds(axis)
    axis.set_xlim(widths[0] * 1e9, widths[-1] * 1e9)
    axis.set_xlabel("pulse width (ns)")
    axis.set_title(_text(layer.name if layer else device.name) or "device")
    axis.legend(loc="lower right")
    return axis


# --- a model ---------------------------------------------------------------------------------


def knobs(
    model: keras.Model | SpinNeuron, ax: "Sequence[Axes] | np.ndarray | None" = None
) -> np.ndarray:
    """Histograms of a model's pulse widths and gate voltages, with the device's limits.

    Args:
        model: built Keras model with `SpinNeuron` layers, or one such layer. More than six layers
            share one histogram.
        ax: two `Axes`. Default `None`: a new figure.

    Returns:
        Array of the two `Axes`: number of knobs over pulse width in ns and gate voltage in mV.

    Raises:
        ValueError: for a model without built spin layers.
        ImportError: without matplotlib.

    Example:

    >>> import keras, spinkeras
    >>> model = keras.Sequential([keras.Input((4,)), spinkeras.SpinNeuron(name="spin")])
    >>> widths, gates = spinkeras.plot.knobs(model)
    >>> widths.get_xlabel(), gates.get_xlabel()
    ('pulse width (ns)', 'gate voltage (mV)')
    """
    layers = _layers("plot.knobs", model)
    axes = _axes(ax, 2, (10, 4))
    groups = {name: [layer] for name, layer in zip(unique_names(layers), layers)}
    if len(groups) > len(COLOURS) - 1:
        groups = {f"{len(layers)} layers": layers}
    devices = list(dict.fromkeys(layer.device for layer in layers))
    for axis, knob in zip(axes, KNOBS):
        setting, factor, label = _SHOWN[knob]
        limits = np.array([getattr(each, f"{setting}_range") for each in devices]) * factor
        low, high = limits[:, 0].min(), limits[:, 1].max()
        gateless = knob == "anisotropy" and not any(map(_has_gate, devices))
        logarithmic = knob == "pulse_width" and high > 3 * low
        if low == high:  # one setting only
            low, high = low - 0.1 * (abs(low) or 1.0), high + 0.1 * (abs(high) or 1.0)
        spaced = np.geomspace if logarithmic else np.linspace
        edges = spaced(low, high, 32)  # an odd number of bins: one around 0 V
        for (name, members), colour in zip(groups.items(), COLOURS):
            values = np.concatenate([getattr(layer, setting).ravel() for layer in members])
            fixed = not any(knob in layer.trained_knobs for layer in members)
            named = f"{_text(name)} ({'fixed' if fixed else 'trained'})"
            style = dict(alpha=0.45) if len(groups) > 1 else {}
            values = values[~np.isnan(values)]  # of a diverged training; the title counts them
            values = np.clip(values * factor, *edges[[0, -1]])  # rounding may cross an edge
            axis.hist(values, edges, color=colour, label=named, **style)
            if style:
                axis.hist(values, edges, color=colour, histtype="step", linewidth=1.5)
        if not gateless:
            for number, limit in enumerate(np.unique(limits)):
                text = None if number else "limits of the device"
                axis.axvline(limit, color="black", linestyle="--", linewidth=1, label=text)
        axis.set_xlabel(label)
        axis.set_ylabel("number of knobs")
        axis.yaxis.get_major_locator().set_params(integer=True)
        if logarithmic:
            _nanoseconds(axis)
        else:
            axis.xaxis.get_major_locator().set_params(nbins=6)
        title = "no gate: vcma_coefficient is 0" if gateless else _at_ends(layers, knob)
        axis.set_title(title, fontsize="medium")
        axis.set_ylim(top=axis.get_ylim()[1] * (1.1 + 0.09 * (len(groups) + 1)))
        axis.legend(loc="upper center", fontsize="small")
    return axes


def compare(
    model: keras.Model | SpinNeuron,
    before: keras.Model | SpinNeuron | None = None,
    ax: "Axes | Sequence[Axes] | np.ndarray | None" = None,
) -> "Axes | np.ndarray":
    """Curves of every spin layer before and after training, over the input.

    A layer with up to twelve different curves shows each one; with more it shows their median and
    middle 90 %.

    Args:
        model: built Keras model with `SpinNeuron` layers, or one such layer.
        before: the same model or layer before training (`keras.models.clone_model` makes a copy,
            without the weights). Default `None`: neurons at the nominal setting of their device.
        ax: `Axes`, one per spin layer. Default `None`: a new figure.

    Returns:
        The `Axes`, output over input; an array of them if there are several layers.

    Raises:
        ValueError: for a model without built spin layers, with more than twelve, or with a
            number of spin layers that differs from that of `before`.
        ImportError: without matplotlib.

    Example:

    >>> import keras, spinkeras
    >>> model = keras.Sequential([keras.Input((4,)), spinkeras.SpinNeuron(name="spin")])
    >>> ax = spinkeras.plot.compare(model)
    >>> ax.get_xlabel()  # the current per unit of input
    'input (1 is 9.38 uA)'
    """
    after = _layers("plot.compare", model)
    first = [None] * len(after) if before is None else _layers("plot.compare", before)
    if len(first) != len(after):
        raise ValueError(
            f"before has {len(first)} spin layers and model {len(after)}; give the same network "
            "before its training, or None."
        )
    if len(after) > 12:
        raise ValueError(
            f"plot.compare draws one picture for each of at most 12 spin layers; model has "
            f"{len(after)}. Give one layer, such as spinkeras.spin_neurons(model)[0]."
        )
    columns = min(3, len(after))
    size = (max(6, 4 * columns), 4 * -(-len(after) // columns))
    axes = _axes(ax, len(after), size, columns=columns)
    for axis, layer, old, name in zip(axes, after, first, unique_names(after)):
        start = _responses(old or layer, nominal=old is None)
        end = _responses(layer)
        reach = max(np.max(np.abs(middle) + 1.5 * width) for middle, width, _ in (start, end))
        x = np.linspace(-reach, reach, 401)
        untrained = "untrained" if old is None else "before"
        for (_, _, respond), colour, label, style in (
            (start, COLOURS[1], untrained, dict(linestyle="--", zorder=3)),  # drawn on top
            (end, COLOURS[0], "after training", {}),
        ):
            y = respond(x[:, None])
            y = np.unique(y, axis=1) if y.shape[1] > 1 else y
            if y.shape[1] <= _MOST_LINES:
                lines = axis.plot(x, y, color=colour, alpha=0.6 if y.shape[1] > 1 else 1, **style)
                lines[0].set_label(label)
            else:
                low, middle, high = np.quantile(y, [0.05, 0.5, 0.95], axis=1)
                axis.plot(x, middle, color=colour, label=f"{label}: median, middle 90 %", **style)
                axis.fill_between(x, low, high, color=colour, alpha=0.25, linewidth=0)
        current, unit = _scaled(layer.current_scale)
        axis.set_xlabel(f"input (1 is {current:.3g} {unit})")
        axis.set_ylabel("output, 2 P - 1" if layer.bipolar else "switching probability")
        axis.set_title(_text(name))
        axis.margins(x=0)
        axis.grid(alpha=0.3)
        axis.legend(loc="lower right", fontsize="small")
    return axes if len(axes) > 1 else axes[0]


# --- a training ------------------------------------------------------------------------------


def history(
    history: keras.callbacks.History | dict[str, list],
    metric: str | None = None,
    ax: "Axes | Sequence[Axes] | np.ndarray | None" = None,
) -> np.ndarray:
    """A metric and the energy per inference over the epochs.

    Args:
        history: result of `fit`, or its dictionary of lists. Metrics with several values per epoch
            have no curve.
        metric: key of the metric. Default `None`: the accuracy, or the loss if there is none.
        ax: two `Axes`; one for a history without energy (`fit` had no `EnergyTracker`).
            Default `None`: a new figure.

    Returns:
        Array of the `Axes`: metric over epochs and, below, energy in pJ (or fJ).

    Raises:
        ValueError: for another value of `history`, an empty history or an unknown metric.
        ImportError: without matplotlib.

    Example:

    >>> import spinkeras
    >>> logs = {"accuracy": [0.7, 0.9], "energy_pj": [2.0, 1.8]}  # or the result of model.fit
    >>> [ax.get_ylabel() for ax in spinkeras.plot.history(logs)]
    ['accuracy (%)', 'energy (pJ per inference)']
    """
    logs = histories.logs(history)
    metric = (
        histories.metric(logs) if metric is None else checks.choice("metric", metric, tuple(logs))
    )
    shown = [("metric", metric)]
    if any(f"{pre}energy_pj" in logs for pre in ("", "val_")):
        shown.append(("energy", "energy_pj"))
    axes = _axes(ax, len(shown), (6.5, 3 * len(shown)), columns=1, sharex=True)
    for axis, (kind, key) in zip(axes, shown):
        pair = {"training": logs.get(key), "validation": logs.get(f"val_{key}")}
        curves = {name: values for name, values in pair.items() if values is not None}
        everything = np.concatenate(list(curves.values()))
        finite = everything[np.isfinite(everything)]
        factor, unit = 1.0, ""
        if kind == "energy":
            factor, unit = _energy_unit(np.max(np.abs(finite), initial=0.0))
            axis.set_ylabel(f"energy ({unit} per inference)")
        elif "acc" in key and finite.size and finite.min() >= 0 and finite.max() <= 1:
            factor = 100.0
            axis.set_ylabel(f"{_text(key.replace('_', ' '))} (%)")
        else:
            axis.set_ylabel(_text(key.replace("_", " ")))
        for (name, values), colour, mark in zip(curves.items(), COLOURS, "os"):
            epochs = 1 + np.arange(len(values))
            dots = mark if len(values) <= 30 else None
            axis.plot(epochs, values * factor, marker=dots, ms=4, color=colour, label=name)
        if not finite.size:
            _say(axis, "no finite value")
        axis.grid(alpha=0.3)
        axis.legend()
    axes[-1].set_xlabel("epoch")
    axes[-1].xaxis.get_major_locator().set_params(integer=True)
    return axes


def energy(report: EnergyReport, ax: "Axes | None" = None) -> "Axes":
    """Energy per inference of every spin layer, by component.

    Args:
        report: `EnergyReport`, the result of `energy_report`.
        ax: `Axes`. Default `None`: a new figure.

    Returns:
        The `Axes`: one bar per layer, in pJ or fJ.

    Raises:
        ValueError: if `report` is something else.
        ImportError: without matplotlib.

    Example:

    >>> import keras, numpy as np, spinkeras
    >>> model = keras.Sequential([keras.Input((4,)), spinkeras.SpinNeuron(name="spin")])
    >>> report = spinkeras.energy_report(model, np.zeros((3, 4), "float32"), print_fn=None)
    >>> spinkeras.plot.energy(report).get_title()
    '0.8373 pJ per inference, latency 2 ns'
    """
    _needs("report", report, ("layers", "total_pj"), "an EnergyReport, of energy_report(model, x)")
    rows = report.layers
    (axis,) = _axes(ax, 1, (7, min(2 + 0.4 * len(rows), 30)))
    places = np.arange(len(rows))
    totals = np.array([row["total_pj"] for row in rows])
    factor, unit = _energy_unit(totals.max())
    start = np.zeros(len(rows))
    for name, colour in zip(COMPONENTS, COLOURS):
        values = np.array([row[f"{name}_pj"] for row in rows]) * factor
        axis.barh(places, values, left=start, color=colour, label=name, height=0.7)
        start += values
    for place, total in zip(places, start):
        axis.annotate(
            f"{total:.3g}", (total, place), (3, 0), textcoords="offset points", va="center"
        )
    axis.set_yticks(places, [_text(row["name"], 24) for row in rows])
    axis.set_ylabel("spin layer")
    axis.invert_yaxis()
    axis.set_xlim(0, 1.2 * start.max() or 1)
    axis.set_xlabel(f"energy ({unit} per inference)")
    axis.set_title(
        f"{report.total_pj * factor:.4g} {unit} per inference, latency {report.latency_ns:.3g} ns",
        fontsize="medium",
    )
    axis.legend(loc="center left", bbox_to_anchor=(1, 0.5), title="component")
    return axis


# --- measurements and chips ------------------------------------------------------------------


def fit(result: FitResult, ax: "Sequence[Axes] | np.ndarray | None" = None) -> np.ndarray:
    """Measured fractions with the fitted curves, and the residuals below.

    A bar is the 68 % interval of the probability at one setting, from the counts there. At most
    ten combinations of pulse width, gate voltage, temperature and direction are drawn.

    Args:
        result: `FitResult` of `calibration.fit_device` or `fit_empirical`.
        ax: two `Axes`. Default `None`: a new figure.

    Returns:
        Array of the two `Axes`: probability and deviance residual over current in uA (or mA).

    Raises:
        ValueError: if `result` is something else.
        ImportError: without matplotlib.

    Example:

    >>> import spinkeras
    >>> counts = dict(switched=[154, 461, 830], trials=[1000] * 3)
    >>> table = dict(current_a=[60e-6, 72e-6, 90e-6], pulse_width_s=[2e-9] * 3, **counts)
    >>> fit = spinkeras.fit_device(table, "stt_reference", free=["anisotropy"])
    >>> top, bottom = spinkeras.plot.fit(fit)
    >>> bottom.get_xlabel()
    'current (uA)'
    """
    _needs("result", result, ("table", "residuals"), "a FitResult, of calibration.fit_device")
    ratios = dict(height_ratios=(2.5, 1))
    top, bottom = axes = _axes(ax, 2, (7, 6), columns=1, sharex=True, gridspec_kw=ratios)
    current = result.table["current_a"]
    switched, trials = result.table["switched"], result.table["trials"]
    fraction = switched / trials
    ends = [stats.beta.ppf(tail, switched + 0.5, trials - switched + 0.5) for tail in (0.16, 0.84)]
    bars = np.maximum([fraction - ends[0], ends[1] - fraction], 0)
    scale, unit = _current_unit(current)
    groups = [
        (width, held, rows & (result.table["pulse_width_s"] == width))
        for held, rows in conditions.groups(result.table)
        for width in np.unique(result.table["pulse_width_s"][rows])
    ]
    gated = np.any(result.table["gate_voltage_v"])
    shown = [groups[k] for k in np.unique(np.linspace(0, len(groups) - 1, 10).astype(int))]
    for (width, held, rows), colour in zip(shown, _shades(len(shown))):
        gate, way, kelvin = (held.get(n) for n in ("gate_voltage_v", "direction", "temperature_k"))
        x = current[rows] * scale
        margin = 0.1 * np.ptp(current[rows]) or 0.1 * abs(current[rows][0]) or 1e-9
        fine = np.linspace(current[rows].min() - margin, current[rows].max() + margin, 300)
        fitted = result.predict(fine, width, gate, direction=way, temperature=kelvin)
        top.plot(fine * scale, fitted, color=colour)
        label = f"{width * 1e9:.3g} ns" + (f", {gate:+.2g} V" if gated else "")
        label += (f", {kelvin:.4g} K" if kelvin else "") + (f", {way}" if way else "")
        style = dict(fmt="o", ms=4, color=colour, elinewidth=1)
        top.errorbar(x, fraction[rows], bars[:, rows], label=label, **style)
        bottom.plot(x, result.residuals[rows], "o", ms=4, color=colour)
    top.set_ylabel("switching probability")
    top.set_ylim(-0.03, 1.03)
    few = len(shown) < len(groups)
    title = "pulse width" + (", gate" if gated else "")
    top.legend(
        title=title + (f"\n({len(shown)} of {len(groups)})" if few else ""), fontsize="small"
    )
    bottom.axhspan(-2, 2, color="0.92", zorder=0)
    bottom.axhline(0, color=_GREY, linewidth=1)
    bottom.set_ylabel("deviance\nresidual")
    bottom.set_xlabel(f"current ({unit})")
    top.set_title(
        f"deviance {result.deviance:.1f} on {result.degrees_of_freedom} degrees of freedom "
        f"(p = {result.p_value:.2g})",
        fontsize="medium",
    )
    return axes


def chips(
    report: ChipReport, target: float | None = None, ax: "Sequence[Axes] | np.ndarray | None" = None
) -> np.ndarray:
    """Histogram of the chips' accuracy, and the yield over the accuracy that a good chip needs.

    Args:
        report: `ChipReport` of `evaluate_chips`.
        target: accuracy that a good chip needs, a fraction from 0 to 1 (any number for another
            metric); it is drawn with its yield. Default `None`: no target.
        ax: two `Axes`. Default `None`: a new figure.

    Returns:
        Array of the two `Axes`: number of chips, and yield in % with its 95 % interval, both over
        the accuracy in % (or the metric).

    Raises:
        ValueError: if `report` is something else, or for a target outside its range.
        ImportError: without matplotlib.

    Example:

    >>> import numpy as np, spinkeras
    >>> values = np.array([0.91, 0.88]), np.array([2.0, 2.1])
    >>> report = spinkeras.ChipReport(*values, 0.92, spinkeras.ChipSpread(stability=0.1), None)
    >>> histogram, passed = spinkeras.plot.chips(report, target=0.9)
    >>> passed.get_legend().get_texts()[-1].get_text()
    'target: yield 50% (1% to 99%)'
    """
    _needs("report", report, ("accuracy", "chip_yield"), "a ChipReport, of evaluate_chips")
    good = None if target is None else report.chip_yield(target)
    left, right = axes = _axes(ax, 2, (10, 4))
    factor, label = (100.0, "accuracy (%)") if report.is_fraction else (1.0, "metric")
    values = np.asarray(report.accuracy) * factor
    count = len(values)
    shown = [*values, report.nominal * factor, *([] if target is None else [target * factor])]
    low, high = min(shown), max(shown)
    room = 0.05 * (high - low) or 0.01 * abs(high) or 1.0
    low, high = low - room, high + room
    spread = np.ptp(values)
    bins = np.linspace(values.min(), values.max(), int(np.clip(np.sqrt(count) + 1, 2, 40)) + 1)
    bins = bins if spread else values[0] + room * np.array([-0.5, 0.5])
    left.hist(values, bins, color=COLOURS[0], edgecolor="white", label=f"{count} chip(s)")
    left.axvline(report.nominal * factor, color="black", linestyle="--", label="nominal devices")
    left.set_ylabel("number of chips")
    left.yaxis.get_major_locator().set_params(integer=True)
    ordered = np.sort(values)
    goals = np.concatenate([[low], ordered, [high]])
    passing = count - np.searchsorted(ordered, goals, side="left")
    bounds = clopper_pearson(passing, count, 0.95)
    right.step(goals, 100 * passing / count, where="pre", color=COLOURS[0], label="yield")
    band = dict(step="pre", color=COLOURS[0], alpha=0.2, linewidth=0, label="95 % interval")
    right.fill_between(goals, *(100 * bound for bound in bounds), **band)
    right.set_ylabel("yield (% of chips at or above)")
    right.set_ylim(-3, 103)
    if target is not None and good is not None:
        text = f"target: yield {good[0]:.0%} ({good[1]:.0%} to {good[2]:.0%})"
        left.axvline(target * factor, color=COLOURS[1], linestyle=":", label="target")
        right.axvline(target * factor, color=COLOURS[1], linestyle=":", label=text)
    for axis in axes:
        axis.set_xlim(low, high)
        axis.set_xlabel(label)
        axis.grid(alpha=0.3)
    left.set_ylim(top=left.get_ylim()[1] * 1.35)
    left.legend(loc="upper center", ncols=3, fontsize="small")
    right.legend(loc="lower left", fontsize="small")
    return axes


def front(rows: Sequence[Mapping[str, Any]], ax: "Axes | None" = None) -> "Axes":
    """Trials of a search by energy and metric, and their front.

    The front holds the trials that no other trial beats in both energy and metric.

    Args:
        rows: result of `search.energy_front`.
        ax: `Axes`. Default `None`: a new figure.

    Returns:
        The `Axes`: metric over energy in pJ or fJ, logarithmic if it spans more than a factor 10.

    Raises:
        ValueError: if `rows` is something else, or an energy or metric is not a number.
        ImportError: without matplotlib.

    Example:

    >>> import spinkeras
    >>> rows = [  # as spinkeras.search.energy_front(tuner) gives them
    ...     {"energy_pj": 2.0, "metric": 0.9, "on_front": True},
    ...     {"energy_pj": 3.0, "metric": 0.8, "on_front": False},
    ... ]
    >>> spinkeras.plot.front(rows).get_xlabel()
    'energy (pJ per inference)'
    """
    keys = ("energy_pj", "metric", "on_front")
    good = isinstance(rows, (list, tuple)) and rows
    if not (good and all(isinstance(row, dict) and {*keys} <= {*row} for row in rows)):
        raise ValueError(
            f"rows = {checks.shown(rows)} must be the result of "
            "spinkeras.search.energy_front(tuner), with one trial or more."
        )
    (axis,) = _axes(ax, 1, (6.5, 4.5))
    picojoule, metric = (checks.array(key, [row[key] for row in rows]) for key in keys[:2])
    ahead = np.array([bool(row["on_front"]) for row in rows])
    factor, unit = _energy_unit(picojoule.max())
    energies = picojoule * factor
    if np.any(~ahead):
        axis.plot(energies[~ahead], metric[~ahead], "o", color="0.6", label="other trials")
    order = np.argsort(energies[ahead])
    x, y = energies[ahead][order], metric[ahead][order]
    axis.plot(x, y, "o", color=COLOURS[0], drawstyle="steps-post", linestyle="-", label="front")
    positive = energies[energies > 0]
    if len(positive) == len(energies) and positive.max() > 10 * positive.min():
        axis.set_xscale("log")
        _plain_ticks(axis)
    axis.set_xlabel(f"energy ({unit} per inference)")
    axis.set_ylabel("metric")
    axis.grid(alpha=0.3)
    axis.legend()
    return axis


# --- inside ----------------------------------------------------------------------------------


def _axes(ax, count, size, columns=None, **options):
    """Array of `count` `Axes`: the given ones, or those of a new figure of this size in inches."""
    try:
        from matplotlib.axes import Axes
    except ImportError as error:
        raise ImportError("spinkeras.plot needs matplotlib: pip install matplotlib.") from error
    if ax is not None:
        given = [ax] if isinstance(ax, Axes) else ax
        given = np.ravel(np.array(given, dtype=object))
        if len(given) != count or not all(isinstance(each, Axes) for each in given):
            raise ValueError(
                f"ax = {checks.shown(ax)} must be {count} matplotlib Axes for this picture, such "
                f"as those of plt.subplots(1, {count}), or None for a new figure."
            )
        return given
    from matplotlib import pyplot

    columns = count if columns is None else columns
    grid = (-(-count // columns), columns)
    options |= dict(figsize=size, layout="constrained", squeeze=False)
    axes = pyplot.subplots(*grid, **options)[1]
    axes = axes.ravel()
    for spare in axes[count:]:
        spare.remove()
    return axes[:count]


def _text(name, longest=40):
    """A name that matplotlib draws on one line, not as a formula, shortened, also in a legend."""
    name = " ".join(str(name).split())
    name = "".join(c if c.isprintable() else "?" for c in name)  # a lone surrogate has no glyph
    name = name if len(name) <= longest else name[: longest - 3] + "..."
    name = name.replace("$", r"\$")
    return f" {name}" if name.startswith("_") else name  # matplotlib leaves out such labels


def _say(axis, text):
    axis.text(0.5, 0.5, text, ha="center", va="center", transform=axis.transAxes, color=_GREY)


def _shades(count):
    from matplotlib import colormaps

    return colormaps["viridis"](np.linspace(0, 0.85, count))


def _nanoseconds(axis):
    axis.set_xscale("log")
    _plain_ticks(axis)


def _plain_ticks(axis):
    """Label a logarithmic axis with numbers such as 2, 5 and 20, also below one decade."""
    from matplotlib import ticker

    axis.xaxis.set_major_locator(ticker.LogLocator(subs=(1, 2, 5)))
    axis.xaxis.set_major_formatter(ticker.FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(ticker.NullFormatter())


def _current_unit(current):
    return (1e6, "uA") if np.max(np.abs(current)) < 1e-3 else (1e3, "mA")


def _scaled(current):
    """A current with its unit."""
    units = {1e3: "mA", 1e6: "uA", 1e9: "nA"}
    scale = next((scale for scale in units if current * scale >= 1), 1e9)
    return current * scale, units[scale]


def _energy_unit(picojoule):
    """Factor from pJ to the unit in which a value is not too small to read, and that unit."""
    return (1.0, "pJ") if picojoule >= 0.1 or picojoule == 0 else (1e3, "fJ")


def _currents(device, widths, anisotropies):
    """Currents in A that show all these curves of a device; factor and name of a unit for them."""
    middle = switching.midpoint_current(widths, device, anisotropies)
    steep = switching.slope_at_midpoint(widths, device, anisotropies)
    ends = np.min(middle - _REACH / steep), np.max(middle + 1.5 * _REACH / steep)
    current = np.linspace(*ends, 500)
    return current, *_current_unit(current)


def _has_gate(device):
    return device.vcma_coefficient != 0


def _slopes(widths, anisotropy, device, model):
    """Slopes at the midpoint in 1/uA; NaN outside the range of the switching law."""
    law = laws.get_curve(model, device)
    duration = widths / device.diffusion_time
    known = (anisotropy > 0) & (duration > 0)
    stability = device.stability_at(np.where(anisotropy > 0, anisotropy, device.anisotropy))
    inside = []
    for value, (low, high) in zip((duration, stability), getattr(law, "domain", _NO_LIMITS)):
        known = known & (value >= low * (1 - 1e-9)) & (value <= high * (1 + 1e-9))
        inside.append(np.clip(value, low, high))
    steep = law(np, *np.broadcast_arrays(np.log(inside[0]), inside[1])).slope
    return np.where(known, steep / device.critical_current_per_stability * 1e-6, np.nan)


def _layers(owner, model):
    """The built spin layers of a model, or of one layer."""
    try:
        layers = [layer for layer in spin_neurons(model) if layer.built]
    except Exception:
        layers = []
    if not layers:
        raise ValueError(
            f"{owner} found no built SpinNeuron in {checks.shown(model)}; give a Keras model or "
            "layer that has one and that is built (give it an Input or call it once)."
        )
    return layers


def _at_ends(layers, knob):
    """Which share of the knobs is at a limit, in words; `at_limit` counts them."""
    setting = f"{_SHOWN[knob][0]}_range"
    layers = [layer for layer in layers if np.ptp(getattr(layer.device, setting))]
    if not layers:
        return "one setting only"
    count = sum(getattr(layer, knob).size for layer in layers)
    lost = sum(np.sum(np.isnan(getattr(layer, knob))) for layer in layers)
    trained = [layer for layer in layers if knob in layer.trained_knobs]
    if not trained:
        return "not trained"
    ends = np.zeros(2)
    for layer in trained:
        found = at_limit(layer)
        shares = [np.sum(found[end]) for end in ENDS[knob]]
        falls = knob == "anisotropy" and layer.device.vcma_coefficient > 0
        ends += shares[::-1] if falls else shares  # anisotropy falls with voltage
    names = ("shortest", "longest") if knob == "pulse_width" else ("lowest", "highest")
    words = [f"{share / count:.0%} at the {name}" for share, name in zip(ends, names)]
    return ", ".join(words + [f"{lost / count:.0%} no number"] * bool(lost))


def _responses(layer, nominal=False):
    """Midpoints and widths of a layer's curves in units of its input, and the curves."""
    settings = layer.nominal_knobs() if nominal else (layer.pulse_width, layer.anisotropy)
    curve = layer.curve_at(*(np.ravel(value).astype(float) for value in settings))
    unit = layer.device.critical_current_per_stability
    gain = layer.current_scale / unit
    bias = curve.midpoint if layer.recenter else layer.curve_at(*layer.nominal_knobs()).midpoint
    middle = (curve.midpoint - bias) / gain

    def respond(x):
        probability = curve.probability(gain * (x - middle))
        return 2 * probability - 1 if layer.bipolar else probability

    return middle, 1 / (curve.slope * gain), respond


def _needs(name, value, attributes, what):
    if not all(hasattr(value, attribute) for attribute in attributes):
        raise ValueError(f"{name} = {checks.shown(value)} must be {what}.")
