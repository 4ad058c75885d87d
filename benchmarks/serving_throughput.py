"""Served throughput of a network with spin neurons, relative to the same network with sigmoids.

    python benchmarks/serving_throughput.py                 # about 3 minutes on two cores
    python benchmarks/serving_throughput.py --rounds 5      # quicker, wider spread

Both networks have the same shape and weights and are exported by `export_for_serving`. Two ways
to call them: requests per second through examples/model_server.py (REST on the loopback
interface, one client), and calls of the loaded SavedModel inside this process, where nothing
hides the activation. Rounds alternate between the networks. Two ratios, spin / sigmoid (above 1
the spin network is the faster one): the median over neighbouring rounds of the rates, with the
quartiles, and that of the processor time per call, which other work on the machine disturbs less.
"""

import argparse
import contextlib
import http.client
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import tempfile
import time

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import psutil
import tensorflow as tf

import spinkeras
from spinkeras import serving

SIZES = {"small": (64, [32], 10), "medium": (784, [256, 256], 10), "wide": (784, [1024, 1024], 10)}
SERVER = pathlib.Path(__file__).resolve().parents[1] / "examples" / "model_server.py"


def network(size, activation):
    inputs, hidden, outputs = SIZES[size]
    layers = [keras.Input((inputs,), name="x")]
    for k, width in enumerate(hidden):
        layers.append(keras.layers.Dense(width))
        layers.append(activation(k))
    return keras.Sequential([*layers, keras.layers.Dense(outputs, name="y")])


def export(size, folder):
    """Folders of the two networks; equal weights, and pulse widths that vary as after training."""
    spin = network(size, lambda k: spinkeras.SpinNeuron(name=f"spin_{k}"))
    sigmoid = network(size, lambda k: keras.layers.Activation("sigmoid"))
    random = np.random.default_rng(0)
    for layer in spinkeras.spin_neurons(spin):
        low, high = layer.device.pulse_width_range
        layer.pulse_width = np.exp(
            random.uniform(np.log(low), np.log(high), layer.pulse_width.shape)
        )
    dense = [
        [m for m in model.layers if isinstance(m, keras.layers.Dense)] for model in (spin, sigmoid)
    ]
    for a, b in zip(*dense):
        b.set_weights(a.get_weights())
    paths = {}
    for name, model in (("spin", spin), ("sigmoid", sigmoid)):
        paths[name] = folder / size / name
        serving.export_for_serving(model, paths[name], energy=False)
    return paths


@contextlib.contextmanager
def rest(path, body):
    """A function that sends one request to a server of this network, and the server's process."""
    command = [sys.executable, str(SERVER), "--name", "m", "--path", str(path), "--port", "0"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        address = next((line for line in process.stdout if line.startswith("http://")), None)
        if address is None:
            raise SystemExit("The model server did not start; is KServe installed?")
        connection = http.client.HTTPConnection(address.strip().removeprefix("http://"), timeout=60)

        def call():
            connection.request(
                "POST", "/v1/models/m:predict", body, {"Content-Type": "application/json"}
            )
            response = connection.getresponse()
            response.read()
            if response.status != 200:
                raise SystemExit(f"status {response.status}")

        yield call, psutil.Process(process.pid)
        connection.close()
    finally:
        process.terminate()
        process.communicate()


@contextlib.contextmanager
def inside(path, x):
    """A function that calls the loaded SavedModel once, and this process."""
    loaded = tf.saved_model.load(str(path / "1"))
    function, x = loaded.signatures["serve"], tf.constant(x)
    yield lambda: function(x=x), psutil.Process()


def compare(calls, rounds, seconds):
    """Ratios spin / sigmoid of calls per second, that of processor time, calls per second."""
    counts = {}
    for name, (call, _) in calls.items():  # warm up, and find out how many calls fill a round
        call()
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            call()
            count += 1
        counts[name] = max(1, count)
    rates = {name: [] for name in calls}
    used = dict.fromkeys(calls, 0.0)
    for k in range(rounds):
        for name in list(calls) if k % 2 == 0 else list(calls)[::-1]:
            call, process = calls[name]
            before, start = sum(process.cpu_times()[:2]), time.perf_counter()
            for _ in range(counts[name]):
                call()
            rates[name].append(counts[name] / (time.perf_counter() - start))
            used[name] += (sum(process.cpu_times()[:2]) - before) / counts[name]
    ratios = [a / b for a, b in zip(rates["spin"], rates["sigmoid"])]
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return ratios, used["sigmoid"] / used["spin"], medians


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=21)
    parser.add_argument("--seconds", type=float, default=0.3, help="length of one round")
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES))
    parser.add_argument("--json", help="file for the results")
    options = parser.parse_args()

    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    print(
        f"{machine}; tensorflow {tf.__version__}, keras {keras.__version__}, {time.strftime('%F')}"
    )
    print("network  called   batch  spin /s  sigmoid /s  ratio (quartiles)        of CPU time")
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        for size in options.sizes:
            paths = export(size, pathlib.Path(folder))
            for way in ("REST", "inside"):
                for batch in (1, 32) if way == "REST" else (1, 32, 1024):
                    random = np.random.default_rng(1)
                    x = random.standard_normal((batch, SIZES[size][0])).astype("float32")
                    with contextlib.ExitStack() as stack:
                        if way == "REST":
                            body = json.dumps({"instances": x.round(4).tolist()}).encode()
                            contexts = {name: rest(path, body) for name, path in paths.items()}
                        else:
                            contexts = {name: inside(path, x) for name, path in paths.items()}
                        calls = {n: stack.enter_context(c) for n, c in contexts.items()}
                        ratios, cpu, rates = compare(calls, options.rounds, options.seconds)
                    low, median, high = np.quantile(ratios, [0.25, 0.5, 0.75])
                    print(
                        f"{size:7s}  {way:6s}  {batch:6d}  {rates['spin']:7.0f}  "
                        f"{rates['sigmoid']:10.0f}  {median:.3f} "
                        f"({low:.3f} to {high:.3f})  {cpu:.3f}",
                        flush=True,
                    )
                    row = {"network": size, "called": way, "batch": batch, "cpu_ratio": cpu}
                    rows.append({**row, "ratios": ratios, **rates})
    if options.json:
        pathlib.Path(options.json).write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
