"""HTML cards: short tables with which a notebook shows a device, a layer or a result.

All names and texts are escaped. The cards have no scripts and no links, and take their colours
from the page.
"""

import html

import numpy as np

from spinkeras import checks
from spinkeras.energy.pulse import COMPONENTS
from spinkeras.energy.report import limits_in_words, others_in_words
from spinkeras.layer.knobs import knob_range
from spinkeras.physics import switching

_BOX = (
    "border:1px solid currentColor;border-radius:6px;padding:0.6em 1em;display:inline-block;"
    "max-width:min(60em,100%);box-sizing:border-box;overflow-x:auto"
)
_CELL = "text-align:left;padding:0.1em 1em 0.1em 0;vertical-align:top"
_NAME = f"{_CELL};min-width:7em"
_LONGEST = 600  # characters; longer texts are cut, but a citation with its values fits


def card(title, facts, table=None, notes=()) -> str:
    """A card with a title, a list of facts and, if given, a table and notes.

    Args:
        title: text.
        facts: texts by name.
        table: columns by name, or `None`.
        notes: lines of text.
    """
    parts = [f"<strong>{escaped(title)}</strong>", facts_table(facts) if facts else ""]
    if table is not None:
        parts.append(columns_table(table))
    if notes:
        parts.append(f"<small>{'<br>'.join(map(escaped, notes))}</small>")
    return f'<div style="{_BOX}">{"".join(parts)}</div>'


def facts_table(facts) -> str:
    """A table with one line for every name and its text."""
    names = [_cell("th", name, _NAME) for name in facts]
    return _rows([name + _cell("td", fact) for name, fact in zip(names, facts.values())])


def columns_table(columns) -> str:
    """A table of columns by name."""
    head = "".join(_cell("th", name) for name in columns)
    body = ("".join(map(_entry, row)) for row in zip(*columns.values()))
    narrowest = min(4 * len(columns), 44)  # em; a narrower page scrolls and does not break words
    return _rows([head, *body], f' style="min-width:{narrowest}em"')


def escaped(text, longest=_LONGEST) -> str:
    """A text as part of a page: escaped, shortened, and with only printable characters."""
    text = str(text)
    text = text if len(text) <= longest else text[: longest - 3] + "..."
    return html.escape("".join(c if c.isprintable() or c.isspace() else "\ufffd" for c in text))


def span(values, unit) -> str:
    """The lowest and the highest value, as text."""
    low, high = float(np.min(values)), float(np.max(values))
    text = f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"
    return f"{text} {unit}".rstrip()


def _rows(rows, style=""):
    return f"<table{style}>" + "".join(f"<tr>{row}</tr>" for row in rows) + "</table>"


def _entry(text):
    """A cell that a narrow page breaks as little as possible: never in a number."""
    text = str(text)
    style = "white-space:nowrap" if len(text) <= 11 else "min-width:10em" if len(text) > 24 else ""
    return _cell("td", text, f"{_CELL};{style}".rstrip(";"))


def _cell(kind, text, style=_CELL):
    return f'<{kind} style="{style}">{escaped(text)}</{kind}>'


def device(device) -> str:
    """Card of an `MTJDevice`: values derived from its fields."""
    lowest, highest = map(device.stability_at, device.anisotropy_range)
    facts = {
        "thermal stability Delta": f"{device.thermal_stability:.3g} (by the gate {lowest:.3g} to "
        f"{highest:.3g})",
        "critical current Ic0": f"{device.critical_current * 1e6:.3g} uA",
        "resistances": f"R_P {device.resistance_parallel:,.0f} ohm, R_AP "
        f"{device.resistance_antiparallel:,.0f} ohm",
    }
    if device.write_resistance is not None:
        facts["write channel"] = f"{device.write_resistance:,.0f} ohm"
    facts["retention"] = duration(device.retention_time)
    if device.has_free_running_curve:
        time = duration(device.switching_curve.relaxation_time)
        facts["retention"] = f"none, relaxation {time}"
    facts["pulse width"] = span(np.array(device.pulse_width_range) * 1e9, "ns")
    facts["gate voltage"] = span(device.gate_voltage_range, "V")
    facts["midpoint, slope at 0 V"] = _slopes(device)
    for name in ("source", "assumed"):
        if getattr(device, name):
            facts[name] = getattr(device, name)
    return card(f"MTJDevice {device.name}", facts)


def neuron(layer) -> str:
    """Card of a `SpinNeuron`: its knobs (pulse width and gate voltage) and its slopes."""
    facts = {
        "device": layer.device.name or "unnamed",
        "trained": ", ".join(layer.trained_knobs) or "nothing",
        "output": f"{layer.output_mode}, {layer.pulses} pulse(s)"
        + (", bipolar" if layer.bipolar else ""),
        "input": f"1 is {layer.current_scale * 1e6:.3g} uA",
    }
    title = f"{type(layer).__name__} {layer.name}"
    try:
        widths, gates, slopes = layer.pulse_width * 1e9, layer.gate_voltage, layer.slope
    except Exception:  # not built, or a graph is being traced, in which knobs have no values
        return card(title, facts, notes=["No knobs yet: the layer is not built."])
    allowed = np.array(knob_range(layer.device, "pulse_width")) * 1e9
    facts["knobs"] = f"{np.size(widths)} of each kind"
    facts["pulse width"] = f"{span(widths, 'ns')} (device: {span(allowed, 'ns')})"
    gate = span(layer.device.gate_voltage_range, "V")
    facts["gate voltage"] = f"{span(gates, 'V')} (device: {gate})"
    facts["slope per unit of input"] = span(slopes, "")
    return card(title, facts)


def fit(result) -> str:
    """Card of a `FitResult`: estimates, standard errors and the quality of the fit."""
    rows = result.parameters.items()
    table = {
        "parameter (SI units)": [name for name, _ in rows],
        "estimate": [f"{value:.5g}" for _, value in rows],
        "standard error": [f"{result.standard_errors[name]:.2g}" for name, _ in rows],
    }
    facts = {
        "deviance": f"{result.deviance:.1f} on {result.degrees_of_freedom} degrees of freedom "
        f"(p = {result.p_value:.2g})",
        "data": f"{result.table['trials'].sum():.0f} pulses at {len(result.residuals)} settings",
    }
    return card(type(result).__name__, facts, table)


def energy(report) -> str:
    """Card of an `EnergyReport`: its table and its assumptions."""
    rows = report.layers
    table = {"layer": [row["name"] for row in rows]}
    for name in (*COMPONENTS, "total"):
        table[f"{name} pJ"] = [f"{row[f'{name}_pj']:.4g}" for row in rows]
    table["pulse width"] = [span(row["pulse_width_ns"], "ns") for row in rows]
    table["gate voltage"] = [span(row["gate_voltage"], "V") for row in rows]
    table["peak voltage"] = [f"{row['peak_voltage']:.2f} V" for row in rows]
    table["at a limit"] = [limits_in_words(row) for row in rows]
    table["retention"] = [
        f"none, relaxation {duration(row['relaxation_s'])}"
        if "relaxation_s" in row  # it runs freely
        else duration(row["retention_s"])
        for row in rows
    ]
    facts = {
        "total": f"{report.total_pj:.4g} pJ per inference (mean over {report.inferences})",
        "latency": f"{report.latency_ns:.4g} ns",
        "not counted": others_in_words(report),
    }
    return card(type(report).__name__, facts, table, report.assumptions)


def chips(report) -> str:
    """Card of a `ChipReport`: how accuracy and energy spread over the chips."""
    percent, name = (100, "accuracy %") if report.is_fraction else (1, "metric")
    table = {"": [name, "energy pJ"]}
    both = [np.asarray(report.accuracy) * percent, np.asarray(report.energy_pj)]
    for label, share in (("worst" if percent == 100 else "least", 0), ("5 %", 5), ("median", 50)):
        table[label] = [f"{np.percentile(values, share):.4g}" for values in both]
    table["most"] = [f"{values.max():.4g}" for values in both]
    table["mean"] = [f"{values.mean():.4g}" for values in both]
    drawn = "expected values" if report.pulses is None else f"{report.pulses} pulse(s) per neuron"
    facts = {
        "chips": f"{len(report.accuracy)}, {drawn}",
        "nominal": f"{report.nominal * percent:.4g}" + (" %" if percent == 100 else ""),
        "spread": repr(report.spread),
    }
    return card(type(report).__name__, facts, table)


def duration(seconds) -> str:
    """A time as text, in the largest unit in which it is at least 1."""
    if not np.isfinite(seconds) or seconds > 1e6 * 3.156e7:
        return "over a million years"
    for unit, size in (
        ("years", 3.156e7),
        ("days", 86400),
        ("hours", 3600),
        ("minutes", 60),
        ("s", 1),
        ("ms", 1e-3),
        ("us", 1e-6),
    ):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds * 1e9:.3g} ns"


def _slopes(device):
    widths = np.unique(device.pulse_width_range)
    try:
        middle = switching.midpoint_current(widths, device) * 1e6
        steep = switching.slope_at_midpoint(widths, device) * 1e-6
    except ValueError as error:  # show the card in any case
        return checks.shown_error(error)
    return "; ".join(
        f"{current:.4g} uA, {slope:.3g} 1/uA at {width * 1e9:.3g} ns"
        for current, slope, width in zip(middle, steep, widths)
    )
