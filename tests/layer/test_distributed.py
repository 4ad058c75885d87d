"""Data-parallel training on two devices, and in several processes on the loopback interface."""

import numpy as np
import pytest

from tests.processes import free_port

# Both runs see the same batches; the layer's energy figures are means over the global batch.
MODEL = """
import sys
import keras, numpy as np, spinkeras
import tensorflow as tf

x = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")
y = (x[:, :1] > 0).astype("float32")


def run(folder, name):
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(16)  # the global batch
    keras.utils.set_random_seed(5)
    model = keras.Sequential([
        keras.Input((6,)),
        keras.layers.Dense(5, kernel_initializer=keras.initializers.GlorotUniform(seed=1)),
        spinkeras.SpinNeuron(name="spin"),
        keras.layers.Dense(1, kernel_initializer=keras.initializers.GlorotUniform(seed=2)),
    ])
    model.compile(keras.optimizers.SGD(0.1), "mse")
    history = model.fit(
        data, validation_data=data, epochs=3, verbose=0,
        callbacks=[spinkeras.EnergyTracker()],
    ).history
    spin = model.get_layer("spin")
    np.savez(
        f"{folder}/{name}.npz",
        *[keras.ops.convert_to_numpy(w) for w in model.weights if "meter" not in w.path],
        pulse_width=spin.pulse_width, anisotropy=spin.anisotropy,
        **{f"history_{key}": value for key, value in history.items()},
    )
"""
MIRRORED = (
    MODEL
    + """
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
run(sys.argv[1], "one")
strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
assert strategy.num_replicas_in_sync == 2
with strategy.scope():
    run(sys.argv[1], "two")
"""
)
JAX = (
    """
import sys
import jax

folder, address, number, rank = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
if number > 1:
    jax.config.update("jax_cpu_collectives_implementation", "gloo")
import keras

if number > 1:
    keras.distribution.initialize(address, number, rank)
    assert jax.process_count() == number
    keras.distribution.set_distribution(
        keras.distribution.DataParallel(devices=keras.distribution.list_devices())
    )
"""
    + MODEL
    + """
run(folder, f"{number}_{rank}")
"""
)


def compare(one, two):
    """Weights, knobs and every figure of the history, energies included, to 1e-5."""
    with np.load(one) as a, np.load(two) as b:
        assert set(a.files) == set(b.files)
        assert {"history_energy_pj", "history_val_energy_pj_spin", "pulse_width"} <= set(a.files)
        assert np.all(a["history_energy_pj"] > 0)
        assert np.ptp(a["pulse_width"]) > 0  # trained
        for name in a.files:
            np.testing.assert_allclose(b[name], a[name], rtol=1e-5, atol=1e-7, err_msg=name)


@pytest.mark.slow
def test_mirrored_strategy_on_two_devices(processes, tmp_path):
    processes.start("mirrored", MIRRORED, tmp_path)
    processes.wait("mirrored")
    compare(tmp_path / "one.npz", tmp_path / "two.npz")


@pytest.mark.slow
def test_jax_data_parallel_in_two_processes(processes, tmp_path):
    pytest.importorskip("jax")
    address = f"127.0.0.1:{free_port()}"
    processes.start("one", JAX, tmp_path, address, 1, 0, KERAS_BACKEND="jax")
    for rank in (0, 1):
        processes.start(f"two{rank}", JAX, tmp_path, address, 2, rank, KERAS_BACKEND="jax")
    for name in ("one", "two0", "two1"):
        processes.wait(name)
    compare(tmp_path / "1_0.npz", tmp_path / "2_0.npz")
    compare(tmp_path / "2_0.npz", tmp_path / "2_1.npz")
