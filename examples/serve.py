"""Train a network on handwritten digits, export it, serve it, and request outputs and energies.

    python examples/serve.py                  # trains, exports to a temporary folder, serves, asks
    python examples/serve.py --path FOLDER    # keeps the export; every run adds a version
    python examples/serve.py --path FOLDER --url http://127.0.0.1:8501
                                              # asks a server that already serves FOLDER

The server is examples/model_server.py (pip install ".[serving]"). It answers the requests of
TensorFlow Serving, so the last command also works with the official image (docs/serving.md).
"""

import argparse
import contextlib
import http.client
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import urllib.request

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import spinkeras
from spinkeras.export.network import TOLERANCE


def train(epochs):
    """A small network trained on 8 x 8 digits, and its test data."""
    images, labels = load_digits(return_X_y=True)
    images = (images / 16).astype("float32")
    x, x_test, y, y_test = train_test_split(images, labels, test_size=0.25, random_state=0)
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [
            keras.Input((64,), name="pixels"),
            keras.layers.Dense(32),
            spinkeras.SpinNeuron(name="spin"),
            keras.layers.Dense(10, activation="softmax", name="digit"),
        ]
    )
    model.compile(
        keras.optimizers.Adam(0.01), "sparse_categorical_crossentropy", metrics=["accuracy"]
    )
    print(f"training for {epochs} epochs ...", flush=True)
    model.fit(x, y, epochs=epochs, batch_size=64, verbose=0)
    accuracy = model.evaluate(x_test, y_test, verbose=0)[1]
    print(f"trained {epochs} epochs, test accuracy {accuracy:.3f}")
    return model, x_test, y_test


@contextlib.contextmanager
def server(path):
    """Context that starts a model server, yields its address and stops it at the end."""
    script = pathlib.Path(__file__).with_name("model_server.py")
    command = [sys.executable, str(script), "--name", "digits", "--path", str(path), "--port", "0"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, encoding="utf-8"
    )
    try:
        log = []
        for line in process.stdout:
            log.append(line)
            if line.startswith("http://"):
                break
        else:
            raise SystemExit("The model server did not start:\n" + "".join(log))
        yield log[-1].strip()
    finally:
        process.terminate()
        process.communicate()


def wait_for_version(url, number, seconds=60):
    """Wait until a running server has loaded the version that was just exported."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError, http.client.HTTPException):  # it may be restarting
            with urllib.request.urlopen(f"{url}/v1/models/digits", timeout=10) as response:
                versions = json.load(response)["model_version_status"]
            if any(v["version"] == str(number) and v["state"] == "AVAILABLE" for v in versions):
                return
        time.sleep(0.2)
    raise SystemExit(f"{url} does not serve version {number} of 'digits' after {seconds} s.")


def predict(url, images, signature):
    """Send one REST request and return the result."""
    body = json.dumps({"signature_name": signature, "instances": images.tolist()}).encode()
    request = urllib.request.Request(
        f"{url}/v1/models/digits:predict", body, {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        return json.load(response)["predictions"]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--path", help="folder for the versions; default a temporary one")
    parser.add_argument("--url", help="address of a server that serves --path already")
    parser.add_argument("--epochs", type=int, default=30)
    options = parser.parse_args()
    if options.url and not options.path:
        parser.error("--url needs --path, the folder that this server serves")

    model, x_test, y_test = train(options.epochs)
    with contextlib.ExitStack() as stack:
        path = options.path or stack.enter_context(tempfile.TemporaryDirectory())
        print("export, and a check of what was exported ...", flush=True)
        report = spinkeras.export_for_serving(model, path, sample=True, probe=x_test)
        print(f"exported {report.path}: largest difference to Keras {report.output_error:.1e}")
        print("starting a model server ...", flush=True)
        url = options.url or stack.enter_context(server(path))
        wait_for_version(url, report.path.name)
        print(f"asking {url}/v1/models/digits:predict")
        images = x_test[:5]
        answers = np.array(predict(url, images, "serve"))
        energies = predict(url, images, "energy")
        draws = np.array(predict(url, np.repeat(images, 100, axis=0), "sample"))
        votes = draws.argmax(axis=1).reshape(5, 100)
        print("digit  answer  probability  energy      one pulse per neuron, 100 times")
        for k in range(5):
            best = answers[k].argmax()
            print(
                f"{y_test[k]:5d}  {best:6d}  {answers[k, best]:11.3f}  "
                f"{energies[k]['energy_pj']:5.2f} pJ    {np.mean(votes[k] == best):.0%} same answer"
            )
        difference = np.abs(answers - model.predict(images, verbose=0)).max()
        print(f"largest difference between server and Keras: {difference:.1e}")
        if not difference <= TOLERANCE:
            raise SystemExit("The server does not serve this network.")


if __name__ == "__main__":
    main()
