"""Pictures: what is on the axes, in which units, and that nothing is cut or left behind."""

import importlib
import sys
import types

import keras
import numpy as np
import pytest

import spinkeras
from spinkeras import plot
from spinkeras.physics.presets import DEVICES
from tests.calibration.harness import small_table
from tests.harness import some_slow

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

REFERENCE = spinkeras.MTJDevice.preset("stt_reference")
NO_GATE = REFERENCE.replace(vcma_coefficient=0.0)
ODD_DEVICES = {
    **{name: spinkeras.MTJDevice.preset(name) for name in DEVICES},
    "no gate": NO_GATE,
    "no gate range": REFERENCE.replace(gate_voltage_range=(0.0, 0.0)),
    "one pulse": REFERENCE.replace(pulse_width_range=(2e-9, 2e-9)),
    "hostile name": REFERENCE.replace(name="_$x_{^\n" * 30),
}


@pytest.fixture(autouse=True)
def _no_figure_is_left():
    before = dict(matplotlib.rcParams)
    plt.close("all")
    yield
    assert dict(matplotlib.rcParams) == before
    plt.close("all")


def layer(channels=3, widths=None, **options):
    made = spinkeras.SpinNeuron(**options)
    made.build((None, channels))
    if widths is not None:
        made.pulse_width = widths
    return made


def network(*layers):
    return keras.Sequential([keras.Input((3,)), *layers])


def report(*layers):
    model = network(*(layers or [spinkeras.SpinNeuron(train=())]))
    return spinkeras.energy_report(model, np.ones((2, 3), "float32"), print_fn=None)


def chip_report(accuracy, is_fraction=True):
    accuracy = np.asarray(accuracy, float)
    spread = spinkeras.ChipSpread(stability=0.1)
    return spinkeras.ChipReport(accuracy, accuracy + 2, 0.9, spread, None, is_fraction)


def fitted(settings=2):
    current = np.linspace(40e-6, 110e-6, 7)
    widths = np.geomspace(2e-9, 5e-9, settings)
    current, width = (v.ravel() for v in np.meshgrid(current, widths))
    probability = spinkeras.switching_probability(current, width, REFERENCE)
    table = {"current_a": current, "pulse_width_s": width, "trials": np.full(len(width), 200)}
    table["switched"] = np.round(200 * probability)
    return spinkeras.fit_device(table, REFERENCE, free=("anisotropy",))


FRONT = [
    {"energy_pj": 0.3, "metric": 0.9, "on_front": True},
    {"energy_pj": 0.5, "metric": 0.8, "on_front": False},
    {"energy_pj": 9.0, "metric": 0.97, "on_front": True},
]
HISTORY = {
    "accuracy": [0.5, 0.75],
    "val_accuracy": [0.4, 0.7],
    "energy_pj": [2.0, 1.5],
    "val_energy_pj": [2.1, 1.4],
    "loss": [1.0, 0.5],
}
# name: (function, what to draw, made when asked for)
PICTURES = {
    **{f"device, {k}": (plot.device, lambda v=v: v) for k, v in ODD_DEVICES.items()},
    **{f"slope, {k}": (plot.slope, lambda v=v: v) for k, v in ODD_DEVICES.items()},
    "slope, layer": (plot.slope, lambda: layer(widths=[2e-9, 9e-9, 20e-9])),
    "slope, law": (
        plot.slope,
        lambda: layer(switching_model=spinkeras.NeelBrown(attempt_time=1e-9)),
    ),
    "slope, layer, no gate": (plot.slope, lambda: layer(device=NO_GATE, train="pulse_width")),
    "knobs": (plot.knobs, lambda: layer(widths=[2e-9, 9e-9, 20e-9])),
    "knobs, one": (plot.knobs, lambda: layer(1, name="a_name_without_end" * 9)),
    "knobs, thousands": (plot.knobs, lambda: layer(3000, np.linspace(2e-9, 20e-9, 3000))),
    "knobs, all at a limit": (plot.knobs, lambda: layer(9, 20e-9)),
    "knobs, fixed": (plot.knobs, lambda: layer(train=())),
    "knobs, no gate": (plot.knobs, lambda: layer(device=NO_GATE, train="pulse_width")),
    "knobs, layers": (
        plot.knobs,
        lambda: network(spinkeras.SpinNeuron(), spinkeras.SpinNeuron(device="vgsot_zhang2020")),
    ),
    "knobs, many layers": (plot.knobs, lambda: network(*map(layer, [3] * 9))),
    "compare": (plot.compare, lambda: layer(widths=[2e-9, 9e-9, 20e-9])),
    "compare, thousands": (plot.compare, lambda: layer(3000, np.linspace(2e-9, 20e-9, 3000))),
    "compare, raw and signed": (
        plot.compare,
        lambda: network(layer(recenter=False, widths=9e-9), layer(bipolar=True)),
    ),
    "history": (plot.history, lambda: HISTORY),
    "history, no energy": (plot.history, lambda: {"loss": [1.0, 0.5]}),
    "history, one epoch": (plot.history, lambda: {"accuracy": [0.5], "energy_pj": [3e-3]}),
    "history, NaN": (plot.history, lambda: {"loss": [np.nan] * 2, "energy_pj": [np.nan, 1.0]}),
    "energy": (plot.energy, report),
    "energy, many layers": (plot.energy, lambda: report(*(layer(train=()) for _ in range(12)))),
    "fit": (plot.fit, fitted),
    "fit, many settings": (plot.fit, lambda: fitted(12)),
    "chips": (plot.chips, lambda: chip_report(np.linspace(0.8, 0.9, 40))),
    "chips, one": (plot.chips, lambda: chip_report([0.9])),
    "chips, all alike": (plot.chips, lambda: chip_report([0.5] * 9)),
    "chips, metric": (plot.chips, lambda: chip_report([-3.0, 12.0], False)),
    "front": (plot.front, lambda: FRONT),
    "front, one trial": (plot.front, lambda: FRONT[:1]),
}


QUICK = (
    "device, hostile name",
    "slope, layer",
    "slope, no gate",
    "knobs, layers",
    "knobs, no gate",
)
QUICK += ("compare, raw and signed", "history, NaN", "energy", "fit", "chips, one", "front")


@pytest.mark.parametrize("name", some_slow(PICTURES, *QUICK))
def test_every_picture_is_whole(name):
    """Labelled, inside its frame, and shown by one figure; no figure where axes are given."""
    function, make = PICTURES[name]
    thing = make()
    found = np.ravel(function(thing))
    figure = found[0].figure
    assert plt.get_fignums() == [figure.number]  # which a notebook shows once
    figure.set_dpi(50)
    figure.canvas.draw()
    pixels = np.asarray(figure.canvas.buffer_rgba())
    frame = figure.bbox.padded(1)
    for axis in found:
        assert axis.get_ylabel() or axis is not found[0]
        assert axis.get_xlabel() or axis is not found[-1]
        box = axis.get_window_extent().frozen()
        inner = pixels[int(-box.y1) : int(-box.y0) or None, int(box.x0) : int(box.x1)]
        assert len(np.unique(inner.reshape(-1, 4), axis=0)) > 3  # not blank
        texts = [axis.title, axis.xaxis.label, axis.yaxis.label, *axis.texts]
        texts += [t for a in (axis.xaxis, axis.yaxis) for t in a.get_ticklabels()]
        texts += axis.get_legend().get_texts() if axis.get_legend() else []
        for text in texts:
            if text.get_visible() and text.get_text() and _in_view(text, axis):
                extent = text.get_window_extent()
                assert frame.x0 <= extent.x0, text
                assert extent.x1 <= frame.x1, text
                assert frame.y0 <= extent.y0, text
                assert extent.y1 <= frame.y1, text
    plt.close("all")

    own = matplotlib.figure.Figure(layout="constrained")
    given = np.ravel([own.add_subplot(1, len(found), k + 1) for k in range(len(found))])
    returned = np.ravel(function(thing, ax=given if len(given) > 1 else given[0]))
    assert [*returned] == [*given]
    assert not plt.get_fignums()
    with pytest.raises(ValueError, match=f"must be {len(found)} matplotlib Axes"):
        function(thing, ax=[*given, given[0]])


def _in_view(text, axis):
    """Whether a tick label is drawn: matplotlib keeps some beyond the ends."""
    ticks = [*axis.xaxis.get_ticklabels(), *axis.yaxis.get_ticklabels()]
    if text not in ticks:
        return True
    low, high = axis.get_xlim() if text in axis.xaxis.get_ticklabels() else axis.get_ylim()
    place = text.get_position()[text not in axis.xaxis.get_ticklabels()]
    return min(low, high) <= place <= max(low, high)


def labels(axis):
    return [text.get_text() for text in axis.get_legend().get_texts()]


def test_device_shows_its_own_curves():
    left, right = plot.device("stt_reference")
    assert left.get_xlabel() == right.get_xlabel() == "current (uA)"
    assert labels(left)[0] == "2 ns"
    assert labels(right) == ["-1 V", "-0.5 V", "+0 V", "+0.5 V", "+1 V"]
    for line, width in zip(left.lines, np.geomspace(2e-9, 20e-9, 5)):
        x, y = line.get_data()
        np.testing.assert_allclose(
            y, spinkeras.switching_probability(x * 1e-6, width, REFERENCE), atol=1e-12
        )
        assert y[0] < 0.1
        assert y[-1] > 0.95


def test_slope_is_that_of_the_device_inside_its_box():
    axis = plot.slope(layer(widths=[2e-9, 9e-9, 20e-9]))
    (mesh,) = (c for c in axis.collections if hasattr(c, "get_coordinates"))
    x, y = (a.ravel() for a in np.moveaxis(mesh.get_coordinates(), -1, 0))
    assert x.min() < 2 < 20 < x.max()
    assert y.min() < -1 < 1 < y.max()
    expected = spinkeras.slope_at_midpoint(np.array([2e-9, 20e-9]), REFERENCE) * 1e-6
    assert mesh.get_array().min() < expected[0]
    assert mesh.get_array().max() > expected[1]
    neurons = next(c for c in axis.collections if c.get_label() == "neurons")
    np.testing.assert_allclose(neurons.get_offsets()[:, 0], [2, 9, 20], rtol=1e-6)
    (curve,) = plot.slope(NO_GATE).lines
    np.testing.assert_allclose(
        curve.get_ydata(),
        spinkeras.slope_at_midpoint(curve.get_xdata() * 1e-9, NO_GATE) * 1e-6,
    )


def test_knobs_counts_every_knob_once_also_at_the_limits():
    left, right = plot.knobs(layer(4, [2e-9, 2e-9, 9e-9, 20e-9]))
    assert sum(bar.get_height() for bar in left.patches) == 4
    assert sum(bar.get_height() for bar in right.patches) == 4
    assert left.get_xlabel() == "pulse width (ns)"
    assert right.get_xlabel() == "gate voltage (mV)"
    assert left.get_title() == "50% at the shortest, 25% at the longest"
    limits = [line.get_xdata()[0] for line in left.lines]
    np.testing.assert_allclose(limits, [2, 20])


@pytest.mark.parametrize("sign", [1, -1])
def test_knobs_counts_limits_as_the_energy_report_does(sign):
    """At distances around what still counts as the limit, of trained knobs alone."""
    device = REFERENCE.replace(vcma_coefficient=sign * REFERENCE.vcma_coefficient)
    for distance in (5e-4, 1.5e-3, 5e-3):
        made = network(*(spinkeras.SpinNeuron(device, train=t) for t in (plot.KNOBS, "anisotropy")))
        for each in made.layers:
            each.pulse_width = np.array([2e-9, 20e-9, 20e-9]) * (
                1 + distance * np.array([1, -1, 0])
            )
            each.gate_voltage = np.array([1, 1, -1]) - distance * np.array([1, 0, -1])
        found = spinkeras.energy_report(made, np.ones((2, 3), "float32"), print_fn=None)
        shares = {
            end: np.mean([row["at_limit"][end] for row in found.layers])
            for end in found.layers[0]["at_limit"]
        }
        low, high = ("most anisotropy", "least anisotropy")[::sign]
        left, right = (axis.get_title() for axis in plot.knobs(made))
        assert left == (
            f"{shares['shortest pulse']:.0%} at the shortest, "
            f"{shares['longest pulse']:.0%} at the longest"
        )
        assert right == f"{shares[low]:.0%} at the lowest, {shares[high]:.0%} at the highest"
        plt.close("all")
    assert plot.knobs(layer(train=()))[0].get_title() == "not trained"
    made = layer(2, train="pulse_width")
    made.trainable_variables[0].assign([0.0, np.nan])
    title = plot.knobs(made)[0].get_title()
    assert title == "50% at the shortest, 0% at the longest, 50% no number"


@pytest.mark.parametrize("options", [{}, {"recenter": False}, {"bipolar": True}])
def test_compare_draws_what_the_layer_answers(options):
    made = layer(1, 9e-9, **options)
    start, end = plot.compare(made).lines
    for line, each in ((start, layer(1, **options)), (end, made)):
        x, y = line.get_data()
        each.current_scale = made.current_scale
        answer = keras.ops.convert_to_numpy(each(x[:, None].astype("float32")))[:, 0]
        np.testing.assert_allclose(y, answer, atol=1e-4)
    before = layer(1, 5e-9, **options)
    first, _ = plot.compare(made, before).lines
    assert not np.allclose(first.get_ydata(), start.get_ydata()[: len(first.get_ydata())])


def test_history_energy_chips_and_front_have_units_and_numbers():
    top, bottom = plot.history(types.SimpleNamespace(history=HISTORY))
    assert (top.get_ylabel(), bottom.get_ylabel()) == ("accuracy (%)", "energy (pJ per inference)")
    assert labels(top) == ["training", "validation"]
    assert [*top.lines[1].get_ydata()] == pytest.approx([40, 70])
    (only,) = plot.history({"val_loss": [1.0, 2.0]})
    assert labels(only) == ["validation"]
    assert plot.history(HISTORY, metric="loss")[0].get_ylabel() == "loss"
    of_classes = {"acc_of_classes": [np.array([0.5, 0.7])], "accuracy_of_two": [[0.1, 0.2]]}
    assert plot.history(of_classes | {"loss": [2.0]})[0].get_ylabel() == "loss"

    found = report()
    axis = plot.energy(found)
    assert axis.get_xlabel() == "energy (pJ per inference)"
    parts = [axis.containers[k][0].get_width() for k in range(4)]
    assert sum(parts) == pytest.approx(found.total_pj)
    assert parts[0] == pytest.approx(found.layers[0]["write_pj"])

    left, right = plot.chips(chip_report([0.8, 0.85, 0.9, 0.95]), target=0.9)
    assert sum(bar.get_height() for bar in left.patches) == 4
    assert left.get_xlabel() == "accuracy (%)"
    assert "target: yield 50%" in labels(right)[-1]
    step = right.lines[0]
    assert step.get_ydata()[0] == 100
    assert step.get_ydata()[-1] == 0

    axis = plot.front(FRONT)
    assert [*axis.lines[-1].get_xdata()] == [0.3, 9.0]
    assert axis.get_xscale() == "log"


def test_fit_shows_the_data_and_the_residuals():
    result = fitted()
    top, bottom = result.plot()
    assert bottom.get_xlabel() == "current (uA)"
    residuals = np.concatenate([line.get_ydata() for line in bottom.lines[:-1]])
    assert sorted(residuals) == pytest.approx(sorted(result.residuals))
    assert labels(top) == ["2 ns", "5 ns"]


def test_a_fit_of_both_directions_shows_a_curve_of_each():
    table = {name: [*values, *values] for name, values in small_table().items()}
    table |= {"direction": ["P->AP"] * 6 + ["AP->P"] * 6, "temperature_k": [300.0] * 12}
    table["current_a"][6:] = [0.8 * current for current in table["current_a"][6:]]
    for fit in (spinkeras.fit_device(table, "stt_reference"), spinkeras.fit_empirical(table)):
        top, bottom = fit.plot()
        assert labels(top) == ["2 ns, 300 K, AP->P", "2 ns, 300 K, P->AP"]
        for line, way in zip(top.lines[::2], ("AP->P", "P->AP")):
            middle = np.interp(0.5, line.get_ydata(), line.get_xdata()) * 1e-6
            assert fit.predict(middle, 2e-9, direction=way) == pytest.approx(0.5, abs=1e-3)
        residuals = np.concatenate([line.get_ydata() for line in bottom.lines[:-1]])
        assert sorted(residuals) == pytest.approx(sorted(fit.residuals))


@pytest.mark.parametrize(
    ("function", "value"),
    [
        (plot.device, "stt_refrence"),
        (plot.device, 3),
        (plot.slope, None),
        (plot.slope, keras.layers.Dense(1)),
        (plot.knobs, spinkeras.SpinNeuron()),
        (plot.knobs, "model"),
        (plot.compare, None),
        (plot.history, {}),
        (plot.history, {"loss": "no"}),
        (plot.history, [1.0]),
        (plot.history, {"accuracy": [[0.5, 0.7]]}),
        (plot.energy, {}),
        (plot.fit, "data.csv"),
        (plot.chips, None),
        (plot.front, []),
        (plot.front, [{"energy_pj": 1.0}]),
    ],
)
def test_what_cannot_be_drawn_is_refused_in_one_sentence(function, value):
    with pytest.raises(ValueError, match=r"device|SpinNeuron|must be") as caught:
        function(value)
    assert len(str(caught.value)) < 500
    assert not plt.get_fignums()


def test_without_matplotlib_the_error_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.axes", None)
    with pytest.raises(ImportError, match="pip install matplotlib"):
        importlib.reload(plot).device("stt_reference")
