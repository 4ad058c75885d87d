"""What TensorBoard's own reader finds after a fit."""

import copy

import keras
import numpy as np
import pytest

import spinkeras

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
