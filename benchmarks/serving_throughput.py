"""Compare the served throughput of a network with spin neurons to the same one with sigmoids.

    python benchmarks/serving_throughput.py              # about 10 minutes on two cores
    python benchmarks/serving_throughput.py --starts 1   # quicker; one pair of servers may differ

Both networks have the same shape and weights and are exported with `export_for_serving`. They are
called in three ways:

1. 16 clients at once send requests of 1 to 4 samples to examples/model_server.py (REST on the
   loopback interface), the load of tests/export/test_model_server.py.
2. One client sends a whole batch.
3. This process calls the loaded SavedModel, so that nothing but the network takes time.

Rounds alternate between the networks. Every pair of servers is started several times, because two
processes of the same program differ by a few per cent. The script prints two ratios, spin /
sigmoid; above 1 the spin network is faster. The first is the ratio of the rates, as median over
neighbouring rounds with quartiles. The second uses the server's processor time per call, which
other work on the machine affects less.
"""

import argparse
import concurrent.futures
import contextlib
import functools
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

sys.path.insert(0, str(pathlib.Path(__file__).parents[1]))
import spinkeras
from examples.long_work import LongWork

SIZES = {"small": (64, [32], 10), "medium": (784, [256, 256], 10), "wide": (784, [1024, 1024], 10)}
CLIENTS, REQUESTS = 16, 128
SERVER = pathlib.Path(__file__).resolve().parents[1] / "examples" / "model_server.py"


def network(size, activation):
    inputs, hidden, outputs = SIZES[size]
    layers = [keras.Input((inputs,), name="x")]
    for k, width in enumerate(hidden):
        layers.append(keras.layers.Dense(width))
        layers.append(activation(k))
    return keras.Sequential([*layers, keras.layers.Dense(outputs, name="y")])


def export(size, folder):
    """Folders of the two exports: equal weights, and pulse widths that vary as after training."""
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
        spinkeras.export_for_serving(model, paths[name], energy=False)
    return paths


@contextlib.contextmanager
def server(path):
    """The address and the process of a new server of this network."""
    command = [sys.executable, str(SERVER), "--name", "m", "--path", str(path), "--port", "0"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )
    try:
        address = next((line for line in process.stdout if line.startswith("http://")), None)
        if address is None:
            raise SystemExit("The model server did not start; is KServe installed?")
        yield address.strip().removeprefix("http://"), psutil.Process(process.pid)
    finally:
        process.terminate()
        process.communicate()


def connect(address):
    return contextlib.closing(http.client.HTTPConnection(address, timeout=60))


def send(connection, body):
    connection.request("POST", "/v1/models/m:predict", body, {"Content-Type": "application/json"})
    response = connection.getresponse()
    response.read()
    if response.status != 200:
        raise SystemExit(f"status {response.status}")


@contextlib.contextmanager
def rest(path):
    """A function that sends one request to a new server of this network, and its process."""
    with server(path) as (address, process), connect(address) as connection:
        yield lambda body: send(connection, body), process


@contextlib.contextmanager
def clients(path):
    """A function that sends `REQUESTS` requests of 16 clients at once, and the server's process."""
    with server(path) as (address, process), contextlib.ExitStack() as stack:
        pool = stack.enter_context(concurrent.futures.ThreadPoolExecutor(CLIENTS))
        connections = [stack.enter_context(connect(address)) for _ in range(CLIENTS)]

        def client(connection, bodies):
            for k in range(REQUESTS // CLIENTS):
                send(connection, bodies[k % len(bodies)])

        yield lambda bodies: list(pool.map(client, connections, [bodies] * CLIENTS)), process


@contextlib.contextmanager
def inside(path):
    """A function that calls the loaded SavedModel once, and this process."""
    loaded = tf.saved_model.load(str(path / "1"))
    function = loaded.signatures["serve"]
    yield lambda x: function(x=x), psutil.Process()


def instances(x):
    return json.dumps({"instances": x.round(4).tolist()}).encode()


def up_to(x):
    """Requests of 1 sample, of 2, and so on."""
    return [instances(x[: k + 1]) for k in range(len(x))]


# Every way to call: function, its inputs, numbers of samples, and requests per function call.
WAYS = {
    "clients": (clients, up_to, (4,), REQUESTS),
    "REST": (rest, instances, (1, 32, 256), 1),
    "inside": (inside, tf.constant, (1, 32, 1024), 1),
}


def compare(calls, x, rounds, seconds):
    """Calls per second in every round and processor time per call, of both networks."""
    counts = {}
    for name, (call, _) in calls.items():  # warm up, and find the number of calls per round
        call(x)
        start, count = time.perf_counter(), 0
        while time.perf_counter() - start < seconds:
            call(x)
            count += 1
        counts[name] = max(1, count)
    rates = {name: [] for name in calls}
    used = dict.fromkeys(calls, 0.0)
    for k in range(rounds):
        for name in list(calls) if k % 2 == 0 else list(calls)[::-1]:
            call, process = calls[name]
            before, start = sum(process.cpu_times()[:2]), time.perf_counter()
            for _ in range(counts[name]):
                call(x)
            rates[name].append(counts[name] / (time.perf_counter() - start))
            used[name] += (sum(process.cpu_times()[:2]) - before) / counts[name]
    return rates, {name: seconds / rounds for name, seconds in used.items()}


def measure(way, paths, inputs, starts, rounds, seconds):
    """Rows of results, one for every number of samples."""
    enter, form, batches, calls_at_once = WAYS[way]
    rates = {batch: {name: [] for name in paths} for batch in batches}
    used = {batch: dict.fromkeys(paths, 0.0) for batch in batches}
    random = np.random.default_rng(1)
    for _ in range(starts):
        with contextlib.ExitStack() as stack:
            calls = {name: stack.enter_context(enter(path)) for name, path in paths.items()}
            for batch in batches:
                x = form(random.standard_normal((batch, inputs)).astype("float32"))
                more, time_used = compare(calls, x, rounds, seconds)
                for name in paths:
                    rates[batch][name] += more[name]
                    used[batch][name] += time_used[name]
    for batch in batches:
        yield {
            "called": way,
            "batch": batch,
            "ratios": [a / b for a, b in zip(rates[batch]["spin"], rates[batch]["sigmoid"])],
            "cpu_ratio": used[batch]["sigmoid"] / used[batch]["spin"],
            **{
                name: statistics.median(values) * calls_at_once
                for name, values in rates[batch].items()
            },
        }


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--starts", type=int, default=4, help="pairs of servers, one by one")
    parser.add_argument("--rounds", type=int, default=5, help="of every pair")
    parser.add_argument("--seconds", type=float, default=0.3, help="length of one round")
    parser.add_argument("--sizes", nargs="+", default=list(SIZES), choices=list(SIZES))
    options = parser.parse_args()

    machine = f"{platform.machine()}, {os.cpu_count()} cores"
    print(
        f"{machine}; tensorflow {tf.__version__}, keras {keras.__version__}, {time.strftime('%F')}"
    )
    how = options.starts, options.rounds, options.seconds

    def rows_of(size, way):
        with tempfile.TemporaryDirectory() as folder:
            return list(measure(way, export(size, pathlib.Path(folder)), SIZES[size][0], *how))

    pieces = {
        f"{size} network, {way}": functools.partial(rows_of, size, way)
        for size in options.sizes
        for way in WAYS
    }
    work = LongWork("results/serving_throughput.part.json", how, keep=False)
    print("batch  spin /s  sigmoid /s  ratio (quartiles)        of CPU time")
    for _, rows in work.each(pieces):
        for row in rows:
            low, median, high = np.quantile(row["ratios"], [0.25, 0.5, 0.75])
            print(
                f"{row['batch']:5d}  {row['spin']:7.0f}  {row['sigmoid']:10.0f}  "
                f"{median:.3f} ({low:.3f} to {high:.3f})  {row['cpu_ratio']:.3f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
