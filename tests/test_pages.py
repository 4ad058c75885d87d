"""The card of a network: one page that names bring nothing into, and that needs nothing else."""

import dataclasses
import html.parser
import re
import sys

import keras
import numpy as np
import pytest

import spinkeras
from spinkeras import pages
from tests.harness import some_slow

matplotlib = pytest.importorskip("matplotlib")
matplotlib.use("Agg")
from matplotlib import pyplot as plt  # noqa: E402

REFERENCE = spinkeras.MTJDevice.preset("stt_reference")
HOSTILE = {
    "script": "<script>alert(1)<",
    "quotes": "\"'><img src=x onerror='alert(1)'>`",
    "comment": "--><!-- ]]><style>*{display:none}",
    "entities": "&lt;&#60;&amp;&",
    "unicode": "\u65e5\u672c \u202e\u0000\u0007 \ud800 \U0001f9e0",
    "formula": "$x_{^$ \\frac",
    "very long": "a" * 5000,
    "empty": " ",
}
HOSTILE["all"] = "".join(HOSTILE.values())


class Elements(html.parser.HTMLParser):
    """The elements of a page with the names of their attributes, in order; and its texts."""

    def __init__(self, page):
        super().__init__()
        self.found, self.addresses, self.texts = [], [], []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, *(name for name, _ in attrs)))
        self.addresses += [value for name, value in attrs if name in ("src", "href", "srcdoc")]

    def handle_comment(self, data):
        self.found.append("comment")

    def handle_data(self, data):
        self.texts.append(data)


def network(name="net", device=REFERENCE, layer=None):
    return keras.Sequential(
        [keras.Input((3,)), spinkeras.SpinNeuron(device, name=layer or name)], name=name
    )


def everything(name, key="accuracy"):
    """A page with all its sections, where this name stands wherever a name may stand."""
    device = REFERENCE.replace(name=name, source=name, assumed=name)
    inside = name.replace("/", "").replace("\ud800", "")  # which Keras refuses in a layer's name
    model = network(inside, device)
    report = spinkeras.energy_report(model, np.ones((2, 3), "float32"), print_fn=None)
    report = dataclasses.replace(report, other_layers={name: 1}, assumptions=[name])
    chips = spinkeras.ChipReport(
        np.array([0.8, 0.9]), np.ones(2), 0.9, spinkeras.ChipSpread(current=0.1), None
    )
    history = {key: [0.5, 0.75], "val_loss": [2.0, np.nan], "energy_pj": [2.0, 1.0]}
    return pages.model_card(model, history, chips, report, target=0.85, notes=name)


@pytest.fixture(autouse=True)
def _no_figure_is_left():
    before = dict(matplotlib.rcParams)
    plt.close("all")
    yield
    assert not plt.get_fignums()
    assert dict(matplotlib.rcParams) == before


def without_pictures(patch):
    """What is quick; the drawing of the pictures, a private step, is in the slow tests."""
    patch.setattr(pages, "_picture", lambda title, *_: pages._image(title, b"", 9))


@pytest.fixture(scope="module")
def plain():
    with pytest.MonkeyPatch.context() as patch:
        without_pictures(patch)
        return everything("plain")


@pytest.mark.parametrize("draws", some_slow([False, True], False))
@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_brings_no_element(name, draws, plain, monkeypatch):
    if not draws:
        without_pictures(monkeypatch)
    page = everything(HOSTILE[name], key=HOSTILE[name])
    assert Elements(page).found == Elements(plain).found
    page.encode("utf-8")
    assert draws or len(page) < len(plain) + 50_000


def test_a_page_needs_nothing_else(plain, tmp_path):
    elements = Elements(plain)
    kinds = {element[0] for element in elements.found}
    assert not kinds & {"script", "link", "iframe", "object", "a", "base", "form"}
    assert elements.addresses
    assert all(a.startswith("data:image/svg+xml;base64,") for a in elements.addresses)
    assert "url(" not in plain
    assert "default-src 'none'" in plain
    assert "http" not in re.sub(r"http-equiv|base64,[^\"]*", "", plain)
    plain.save(tmp_path / "card.HTML")
    assert (tmp_path / "card.HTML").read_text(encoding="utf-8") == plain
    for bad in (3, None, "card.txt", b"card.html"):
        with pytest.raises(ValueError, match=r"must end in '\.html'"):
            plain.save(bad)


def test_a_notebook_shows_it_in_a_frame_of_its_own(plain):
    frame = Elements(plain._repr_html_())
    assert frame.found == [("iframe", "sandbox", "srcdoc", "style")]
    assert frame.addresses == [plain]
    assert len(repr(plain)) < 80


def test_it_says_what_was_measured_and_what_was_not(plain, monkeypatch):
    without_pictures(monkeypatch)
    text = " ".join(Elements(plain).texts)
    for fact in (
        "75.00%",  # of the history
        "40 (by the gate",
        "50% of the chips",
        "100% shortest pulse",
        *pages.NOT_DESCRIBED,
    ):
        assert fact in text, fact
    bare = " ".join(Elements(pages.model_card(network())).texts)
    for fact in ("not given (history)", "not measured (energy)", "not measured (chips)"):
        assert fact in bare
    assert "75.00%" not in bare


def test_what_does_not_belong_to_the_model_is_refused():
    model, x = network(), np.ones((2, 3), "float32")
    report = spinkeras.energy_report(model, x, print_fn=None)
    for name, value in (
        ("model", "net"),
        ("model", keras.Sequential([keras.layers.Dense(2)])),
        ("model", keras.Sequential([spinkeras.SpinNeuron()])),
    ):
        with pytest.raises(ValueError, match=name):
            pages.model_card(value)
    for name, value in (
        ("history", {}),
        ("history", {"loss": []}),
        ("history", 3),
        ("chips", report),
        ("energy", x),
        ("notes", 3),
        ("target", 0.9),
    ):
        with pytest.raises(ValueError, match=name):
            pages.model_card(model, **{name: value})
    with pytest.raises(ValueError, match="another model"):
        pages.model_card(network("other"), energy=report)
    model.layers[0].pulse_width = 9e-9
    with pytest.raises(ValueError, match="measure the model in its present state"):
        pages.model_card(model, energy=report)


@pytest.mark.parametrize("kind", ["plain", "nested", "shared", "subclass", "activation", "spread"])
def test_only_weights_of_the_network_count(kind, monkeypatch):
    """3 x 2 weights and two knobs for each of 2 neurons, in networks of every build."""
    without_pictures(monkeypatch)
    spread = spinkeras.ChipSpread(current=0.1) if kind == "spread" else None
    spin, dense = spinkeras.SpinNeuron(spread=spread), keras.layers.Dense(2, use_bias=False)
    if kind == "subclass":

        class Own(keras.layers.Layer):
            def __init__(self):
                super().__init__()
                self.inside = spin

            def call(self, x):
                return self.inside(x)

        body = [dense, Own()]
    elif kind == "activation":
        body = [keras.layers.Dense(2, use_bias=False, activation=spin)]
    else:
        body = [dense, keras.Sequential([spin]) if kind == "nested" else spin]
    model = keras.Sequential([keras.Input((3,)), *body, *([spin] if kind == "shared" else [])])
    model(np.ones((2, 3), "float32"))  # builds the activation, too
    assert model.count_params() == 10 + 7  # as Keras counts
    page = pages.model_card(model)
    assert "10 weights, " in page
    rows = re.findall(r">(\d+)</td><td[^>]*>[^<]*</td></tr>", page.split("Architecture")[1])
    assert "17" not in rows
    assert "11" not in rows


@pytest.mark.parametrize("change", ["kernel", "knob", "norm", "fit"])
def test_a_report_of_earlier_weights_is_refused(change, monkeypatch):
    without_pictures(monkeypatch)
    layers = [keras.layers.Dense(2), keras.layers.BatchNormalization()]
    model = keras.Sequential(
        [keras.Input((3,)), *layers, spinkeras.SpinNeuron(train=(), spread=spinkeras.ChipSpread())]
    )
    x = np.random.default_rng(0).normal(size=(8, 3)).astype("float32")
    report = spinkeras.energy_report(model, x, print_fn=None)
    model.compile("sgd", "mse", run_eagerly=True)
    model.evaluate(x, x[:, :2], verbose=0)  # which changes no weight
    assert pages.model_card(model, energy=report)
    if change == "fit":
        model.fit(x, x[:, :2], verbose=0)
    elif change == "knob":
        model.layers[-1].pulse_width = [2e-9, 3e-9]
    else:
        weight = {"kernel": layers[0].kernel, "norm": layers[1].moving_mean}[change]
        weight.assign(weight + 1)
    with pytest.raises(ValueError, match="measure the model in its present state"):
        pages.model_card(model, energy=report)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["free", "nan", "many", "subclass", "curve"])
def test_odd_networks_have_a_page(name):
    options = {}
    if name == "free":
        device = spinkeras.MTJDevice.preset("smtj_reference")
        model = keras.Sequential(
            [keras.Input((3,)), spinkeras.SpinNeuron(device, switching_model="equilibrium")]
        )
    elif name == "nan":
        model = network()
        model.layers[0].set_weights(
            [np.full(w.shape, np.nan) for w in model.layers[0].get_weights()]
        )
        options["energy"] = spinkeras.energy_report(model, np.ones((2, 3)), print_fn=None)
    elif name == "many":
        layers = [spinkeras.SpinNeuron(name=f"spin_{k}", train=()) for k in range(120)]
        model = keras.Sequential([keras.Input((3,)), *layers])
    elif name == "subclass":

        class Own(keras.Model):
            def __init__(self):
                super().__init__()
                self.spin = spinkeras.SpinNeuron()

            def call(self, x):
                return self.spin(x)

        model = Own()
        model(np.ones((2, 3), "float32"))
    else:
        model = network(device=spinkeras.MTJDevice.preset("vgsot_zhang2020"))
    page = pages.model_card(model, **options)
    assert page == pages.model_card(model, **options)  # no date, no chance
    assert ("no picture" in page) == (name in ("free", "nan"))  # which have no curve
    if name == "many":
        assert "more layers" in page
        assert "And 20 more spin layers" in page


def test_it_needs_matplotlib(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    with pytest.raises(ImportError, match="matplotlib"):
        pages.model_card(network())
