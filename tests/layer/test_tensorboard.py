"""What TensorBoard's own reader finds after a fit, what its server answers and its page shows."""

import copy
import json
import shutil
import subprocess
import urllib.parse
import urllib.request

import keras
import numpy as np
import pytest

import spinkeras
from tests.processes import free_port

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
SERVE = "from tensorboard.main import run_main; run_main()"

pytestmark = pytest.mark.backends


def read(folder):
    reader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = reader.EventAccumulator(str(folder), size_guidance={"tensors": 0})
    events.Reload()
    return events


def series(events, tag):
    from tensorboard.util import tensor_util

    return [tensor_util.make_ndarray(event.tensor_proto) for event in events.Tensors(tag)]


def fit(folder, epochs, **options):
    spin = {"name": "spin"}
    wrapped = keras.Sequential([spinkeras.SpinNeuron(**spin)], name="inner")
    model = keras.Sequential([keras.Input((4,)), spinkeras.SpinNeuron(**spin), wrapped])
    model.compile("sgd", "mse", run_eagerly=keras.backend.backend() != "jax")
    x = np.ones((8, 4), "float32")
    board = spinkeras.SpinTensorBoard(folder, write_graph=False, **options)
    history = model.fit(
        x,
        x,
        epochs=epochs,
        verbose=0,
        validation_data=(x, x),
        callbacks=[spinkeras.EnergyTracker(), copy.deepcopy(board)],
    )
    return model, history.history


def test_scalars_and_knobs_arrive(tmp_path):
    model, history = fit(tmp_path, epochs=3, knob_freq=2)
    found = {"train": read(tmp_path / "train"), "validation": read(tmp_path / "validation")}
    for key in ("energy_pj", "energy_pj_spin_2", "latency_ns", "share_at_limit", "val_energy_pj"):
        events = found["validation" if key.startswith("val_") else "train"]
        values = series(events, f"epoch_{key.removeprefix('val_')}")
        np.testing.assert_allclose(values, history[key], rtol=1e-6)
    knobs = read(tmp_path / "knobs")
    names = {
        f"{name}/{knob}" for name in ("spin", "spin_2") for knob in ("pulse_width_ns", "gate_mv")
    }
    assert names == set(knobs.Tags()["tensors"])
    layers = spinkeras.spin_neurons(model)
    for name, layer in zip(("spin", "spin_2"), layers):
        for tag, value in (
            ("pulse_width_ns", layer.pulse_width * 1e9),
            ("gate_mv", layer.gate_voltage * 1e3),
        ):
            buckets = series(knobs, f"{name}/{tag}")
            assert len(buckets) == 2
            assert buckets[-1][:, 2].sum() == value.size
            assert buckets[-1][0, 0] <= value.min() + 1e-6
            assert value.max() - 1e-6 <= buckets[-1][-1, 1]


def test_no_knobs_where_none_are_asked_for(tmp_path):
    board = spinkeras.SpinTensorBoard(tmp_path, knob_freq=0, write_graph=False)
    board.set_model(keras.Sequential([keras.Input((4,)), spinkeras.SpinNeuron()]))
    board.on_epoch_end(0, {})
    assert not (tmp_path / "knobs").exists()
    with pytest.raises(ValueError, match="knob_freq"):
        spinkeras.SpinTensorBoard(knob_freq=-1)
    for bad in (3, None, b"logs"):
        with pytest.raises(ValueError, match="log_dir = "):
            spinkeras.SpinTensorBoard(bad)


@pytest.fixture
def server(tmp_path, processes):
    """The address of a TensorBoard over a short training, whose curves it has read."""
    pytest.importorskip("tensorboard")
    # A name before "epoch": of the groups of curves, the page opens the first two.
    model = keras.Sequential([keras.Input((4,)), spinkeras.SpinNeuron(name="a_layer")])
    model.compile("sgd", "mse", run_eagerly=keras.backend.backend() != "jax")
    x = np.ones((8, 4), "float32")
    board = spinkeras.SpinTensorBoard(tmp_path / "logs", write_graph=False)
    callbacks = [spinkeras.EnergyTracker(), board]
    model.fit(x, x, epochs=3, verbose=0, validation_data=(x, x), callbacks=callbacks)
    port = free_port()
    options = ("--logdir", tmp_path / "logs", "--host", "127.0.0.1", "--port", port)
    processes.start("tensorboard", SERVE, *options, "--load_fast", "false")
    address = f"http://127.0.0.1:{port}"

    def has_read_all():
        try:
            return set(asked(address, "runs")) == {"knobs", "train", "validation"}
        except OSError:  # it has not started yet
            return False

    processes.until(has_read_all)
    return address, model, callbacks[0].results


def asked(address, path, **query):
    url = f"{address}/data/{path}?{urllib.parse.urlencode(query)}"
    with urllib.request.urlopen(url, timeout=60) as response:
        return json.load(response)


@pytest.mark.slow
def test_the_server_answers_with_the_curves_and_the_knobs(server):
    address, model, last = server
    for key in ("energy_pj", "energy_pj_a_layer", "latency_ns", "share_at_limit"):
        points = asked(address, "plugin/scalars/scalars", run="train", tag=f"epoch_{key}")
        assert [step for _, step, _ in points] == [0, 1, 2]
        assert points[-1][2] == pytest.approx(last[key], rel=1e-6)
    (layer,) = spinkeras.spin_neurons(model)
    for tag, value in (
        ("pulse_width_ns", layer.pulse_width * 1e9),
        ("gate_mv", layer.gate_voltage * 1e3),
    ):
        rows = asked(address, "plugin/histograms/histograms", run="knobs", tag=f"a_layer/{tag}")
        buckets = np.array(rows[-1][2])
        assert len(rows) == 3
        assert buckets[:, 2].sum() == value.size
        assert buckets[0, 0] - 1e-5 <= value.min()
        assert value.max() <= buckets[-1, 1] + 1e-5


@pytest.mark.slow
def test_a_browser_shows_the_curves_and_the_knobs(server, tmp_path, processes):
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        pytest.skip("no Chromium on this machine")
    address = server[0]
    command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run"]
    command += ["--disable-background-networking", "--disable-component-update", "--disable-sync"]
    command += [f"--user-data-dir={tmp_path / 'browser'}", "--window-size=1280,3000"]
    command += ["--virtual-time-budget=20000", "--dump-dom", f"{address}/#timeseries"]
    shown = [f"epoch_{key}" for key in ("energy_pj", "latency_ns", "share_at_limit", "loss")]
    shown += ["epoch_energy_pj_a_layer", "a_layer/pulse_width_ns", "a_layer/gate_mv"]

    def page_shows_all():
        page = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        return all(f'title="{name}"' in page.stdout for name in shown)

    processes.until(page_shows_all)
