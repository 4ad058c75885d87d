"""The model server of the examples, by REST and gRPC."""

import http.client
import importlib.util
import io
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
import urllib.request

import numpy as np
import pytest
import tensorflow as tf

import spinkeras
from tests.export.harness import ENVIRONMENT, mlp, samples, visible
from tests.processes import ROOT


def example(name):
    """A program of `examples/` as a module, to test its parts without a server."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "examples" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Server:
    """examples/model_server.py in a process of its own, on the loopback interface."""

    def __init__(self, base, *options):
        script = ROOT / "examples" / "model_server.py"
        arguments = ["--name", "digits", "--path", base, "--port", "0", *options]
        environment = {k: v for k, v in ENVIRONMENT.items() if k != "PYTHONPATH"}
        self.process = subprocess.Popen(
            [sys.executable, str(script), *map(str, arguments)],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            cwd=base,
            env=environment,
            text=True,
        )
        self.log = []
        self.refused = 0
        self.grpc = None
        for line in self.process.stdout:
            self.log.append(line)
            if line.startswith("grpc://"):
                self.grpc = line.strip().removeprefix("grpc://")
            if line.startswith("http://"):
                self.address = line.strip().removeprefix("http://")
                break
        else:
            raise AssertionError("the server did not start:\n" + "".join(self.log))
        # Reading on keeps the pipe from filling up.
        self.reader = threading.Thread(target=self.log.extend, args=(self.process.stdout,))
        self.reader.start()

    def close(self):
        self.process.terminate()
        self.process.wait(30)
        self.reader.join()
        self.process.stdout.close()

    def request(self, method, path, body=None, headers=None, connection=None):
        """Status and parsed body of one request; `body` is bytes or becomes JSON."""
        if body is not None and not isinstance(body, bytes):
            body = json.dumps(body).encode()
        headers = {"Content-Type": "application/json"} if headers is None else headers
        own = connection is None
        connection = self.connect() if own else connection
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        text = response.read()
        self.refused += response.status >= 400
        if own:
            connection.close()
        return response.status, json.loads(text)

    def connect(self):
        return http.client.HTTPConnection(self.address, timeout=60)

    def predict(self, body, connection=None, path="/v1/models/digits:predict", **options):
        return self.request("POST", path, body, connection=connection, **options)


@pytest.fixture(scope="session")
def server(exported):
    pytest.importorskip("kserve")
    grpc = ["--grpc-port", "0"] if importlib.util.find_spec("tensorflow_serving") else []
    server = Server(exported[1], "--interval", "0.1", *grpc)
    yield server
    server.close()
    log = "".join(server.log)
    assert "Traceback" not in log
    lines = re.findall(r"^127\.0\.0\.1:\d+ '[ -~]*' 4\d\d: [ -~]+$", log, re.M)
    assert len(lines) == server.refused


# --- requests by REST -----------------------------------------------------------------------------


def test_rest_requests_in_the_shapes_of_tensorflow_serving(exported, server):
    model, _ = exported
    x = samples(4, seed=21)
    want = model.predict(x, verbose=0)
    rows = x.tolist()
    close = {"rtol": 1e-5, "atol": 1e-6}

    status, body = server.predict({"instances": rows})
    assert (status, list(body)) == (200, ["predictions"])
    np.testing.assert_allclose(body["predictions"], want, **close)
    _, body = server.predict({"instances": [{"pixels": row} for row in rows]})
    np.testing.assert_allclose(body["predictions"], want, **close)
    for inputs in (rows, {"pixels": rows}):
        status, body = server.predict({"inputs": inputs})
        assert (status, list(body)) == (200, ["outputs"])
        np.testing.assert_allclose(body["outputs"], want, **close)
    body = json.dumps({"signature_name": "serve", "instances": rows}).encode()
    form = {"Content-Type": "application/x-www-form-urlencoded"}  # what curl -d sends
    status, body = server.predict(body, headers=form, path="/v1/models/digits/versions/1:predict")
    np.testing.assert_allclose(body["predictions"], want, **close)


def test_rest_energy_and_samples(exported, server):
    model, _ = exported
    x = samples(3, seed=22)
    request = {"signature_name": "energy", "instances": x.tolist()}
    _, body = server.predict(request)
    total = [row["energy_pj"] for row in body["predictions"]]
    wanted = spinkeras.energy_report(model, x, print_fn=None).total_pj
    assert np.mean(total) == pytest.approx(wanted, rel=1e-5)
    del request["instances"]
    _, body = server.predict({**request, "inputs": x.tolist()})
    assert body["outputs"]["energy_pj"] == pytest.approx(total, rel=1e-6)
    request = {"signature_name": "sample", "instances": x.tolist()}
    one, two = (server.predict(request)[1]["predictions"] for _ in range(2))
    assert one != two


def test_rest_status_and_metadata(server):
    status, body = server.request("GET", "/v1/models/digits")
    assert status == 200
    assert body["model_version_status"][0]["version"] == "1"
    assert body["model_version_status"][0]["state"] == "AVAILABLE"
    _, body = server.request("GET", "/v1/models/digits/metadata")
    signatures = body["metadata"]["signature_def"]["signature_def"]
    assert signatures["serving_default"]["inputs"]["pixels"]["dtype"] == "DT_FLOAT"
    assert set(signatures["energy"]["outputs"]) == {
        "energy_pj",
        "energy_pj_spin_a",
        "energy_pj_spin_b",
    }


ROW = [0.5] * 16

BAD = {
    "wrong shape": ({"instances": [[1.0, 2.0]]}, 400, r"shape \(None, 16\); got \(1, 2\)"),
    "scalar": ({"instances": [1.0]}, 400, "shape"),
    "ragged": ({"instances": [ROW, ROW[:3]]}, 400, "ragged"),
    "text": ({"instances": [["a"] * 16]}, 400, "numbers of type float32"),
    "text among numbers": ({"instances": [["a", *ROW[1:]]]}, 400, "numbers of type float32"),
    "lists among numbers": ({"instances": [[ROW, *ROW[1:]]]}, 400, "ragged"),
    "objects among numbers": ({"instances": [[{}, *ROW[1:]]]}, 400, "numbers of type float32"),
    "null": ({"instances": [[None, *ROW[1:]]]}, 400, "numbers of type float32"),
    "booleans": ({"instances": [[True] * 16]}, 400, "numbers of type float32"),
    "NaN": (b'{"instances": [[NaN' + b", 0" * 15 + b"]]}", 400, "expected a JSON value|not JSON"),
    "infinity": ({"instances": [[1e39, *ROW[1:]]]}, 400, "'pixels' is not finite"),
    "empty batch": ({"instances": []}, 400, "at least one sample"),
    "empty batch in columns": ({"inputs": []}, 400, "shape"),
    "empty rows": ({"instances": [[]]}, 400, "shape"),
    "not a list": ({"instances": "abc"}, 400, "list of at least one"),
    "unknown signature": ({"instances": [ROW], "signature_name": "x"}, 400, "Unknown signature"),
    "signature no name": ({"instances": [ROW], "signature_name": [1]}, 400, "Unknown signature"),
    "internal signature": (
        {"instances": [ROW], "signature_name": "__saved_model_init_op"},
        400,
        "Unknown signature",
    ),
    "unknown input": ({"inputs": {"pixel": [ROW]}}, 400, r"inputs \['pixels'\]"),
    "both": ({"instances": [ROW], "inputs": [ROW]}, 400, "either"),
    "neither": ({}, 400, "either"),
    "a list": ([ROW], 400, "JSON object"),
    "not JSON": (b"\xff\xfe{", 400, "JSON|format"),
    "empty body": (b"", 400, "JSON|format"),
    "deep": (b"[" * 100_000, 400, "JSON|format|recursion"),
    "10 MB": (b'{"instances": [[' + b"0.5," * 2_500_000 + b"0.5]]}", 413, "longer than"),
    "large but allowed": ({"instances": [[0.5] * 100_000]}, 400, "shape"),
}


# One test for all cases: every test here also costs the reset of the Keras session.
def test_bad_rest_requests_get_a_clear_answer_and_hurt_nobody(server):
    cloud_event = {"ce-specversion": "1.0", "ce-source": "a", "ce-type": "b", "ce-id": "c"}
    cases = {key: (*case, {}) for key, case in BAD.items()}
    cases["empty event"] = (b"", 400, "not JSON", {"headers": cloud_event})
    huge = f"/v1/models/digits/versions/{'9' * 5000}:predict"
    cases["huge version"] = ({"instances": [ROW]}, 400, "1 to 19 digits", {"path": huge})
    for change in ("unload", "load"):
        path = f"/v2/repository/models/digits/{change}"
        cases[change] = (b"", 404, "no such request", {"path": path})
    refused = server.refused
    for case, (body, status, message, options) in cases.items():
        got, answer = server.predict(body, **options)
        assert (got, list(answer)) == (status, ["error"]), (case, answer)
        assert re.search(message, answer["error"]), (case, answer)
        assert len(answer["error"]) < 500, case
        assert server.predict({"instances": [ROW]})[0] == 200, case
        assert server.process.poll() is None, case
    assert server.refused == refused + len(cases)


def test_json_numbers_are_taken_as_they_are_or_refused():
    """The network of the server has one float input; here are the other types."""
    pytest.importorskip("orjson")
    module = example("model_server")
    for value, dtype in (
        ([[1, 2.5], [-3, 2**63]], tf.float32),
        ([[-(2**31), 2**31 - 1]], tf.int32),
        ([0, 2**64 - 1], tf.uint64),
        ([True, False], tf.bool),
        (7, tf.int64),
    ):
        array = module.to_array(value, "x", dtype)
        assert array.dtype == dtype.as_numpy_dtype
        assert array.tolist() == value
    for value, dtype, message in (
        ([[4294967297]], tf.int32, "from -2147483648 to 2147483647"),
        ([-1], tf.uint8, "from 0 to 255"),
        ([-1, 2**64 - 1], tf.int64, "from -9223372036854775808 to"),
        ([1.0], tf.int32, "whole numbers of type int32"),
        ([1, 0], tf.bool, "true or false"),
        ([True, 1.0], tf.float32, "numbers of type float32"),
        ([True], tf.int32, "numbers of type int32"),
        (json.loads("[" * 100 + "1" + "]" * 100), tf.float32, "nested 100 deep"),
        (["a"], tf.string, "needs gRPC"),
    ):
        with pytest.raises(module.Refused, match=message):
            module.to_array(value, "x", dtype)
    # An array of text takes the longest text for every entry: 80 MB for 25 kB.
    tracemalloc.start()
    with pytest.raises(module.Refused, match="numbers of type float32"):
        module.to_array([["a" * 5000, *[0.0] * 4000]], "x", tf.float32)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1e6


def test_versions_that_cannot_be_loaded_are_tried_again_when_they_change(tmp_path, monkeypatch):
    """As when a version is copied into the folder while the server looks."""
    pytest.importorskip("orjson")
    module = example("model_server")
    tried = []

    class Version:
        def __init__(self, folder):
            self.number, self.signatures = int(folder.name), {}
            tried.append(self.number)
            if not (folder / "complete").exists():
                raise MemoryError

    def copy(name):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text("")

    monkeypatch.setattr(module, "Version", Version)
    copy("1/complete")
    versions = module.Versions(tmp_path, interval=1000)
    copy("2/half")
    versions.refresh()
    versions.refresh()
    assert (versions.current.number, tried) == (1, [1, 2])
    copy("2/complete")
    versions.refresh()
    assert (versions.current.number, tried) == (2, [1, 2, 2])

    # The thread outlives whatever a look at the folder raises; its private loop is run here.
    looks = []

    def refresh():
        looks.append(None)
        if len(looks) == 2:
            versions._stop.set()
        raise RuntimeError("unforeseen")

    monkeypatch.setattr(versions, "refresh", refresh)
    versions.interval = 0
    versions._watch()
    assert len(looks) == 2


def test_unknown_models_and_versions_are_not_found(server):
    for path in ("/v1/models/other:predict", "/v1/models/digits/versions/99:predict"):
        status, answer = server.predict({"instances": [ROW]}, path=path)
        assert (status, list(answer)) == (404, ["error"])


def test_idle_clients_and_some_that_hang_up_hurt_nobody(server):
    """The limits themselves: tests/export/test_slow_clients.py."""
    host, port = server.address.split(":")
    idle = [socket.create_connection((host, int(port))) for _ in range(300)]
    for client in idle[::3]:
        client.sendall(b"POST /v1/models/digits:predict HTTP/1.1\r\n")
    for client in idle[1::3]:
        client.sendall(b"POST /v1 HTTP/1.1\r\nHost: a\r\nContent-Length: 999\r\n\r\n{")
    assert server.predict({"instances": [ROW]})[0] == 200
    for client in idle:
        client.close()
    assert server.predict({"instances": [ROW]})[0] == 200


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--patience", "0"), "--patience = 0 s must be above 0 and at most 3600 s"),
        (("--patience", "nan"), "--patience = nan s must be above 0"),
        (("--max-connections", "0"), "--max-connections must be 1 or more"),
    ],
)
def test_limits_of_the_server_are_checked(monkeypatch, capsys, options, message):
    pytest.importorskip("orjson")
    arguments = ["model_server.py", "--name", "digits", "--path", "nowhere", *options]
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit):
        example("model_server").main()
    assert message in capsys.readouterr().err


# --- requests by gRPC -----------------------------------------------------------------------------


@pytest.fixture(scope="session")
def stub(server):
    grpc = pytest.importorskip("grpc")
    pytest.importorskip("tensorflow_serving")
    from tensorflow_serving.apis import prediction_service_pb2_grpc

    with grpc.insecure_channel(server.grpc) as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)


def predict_request(x, signature_name="", name="digits", key="pixels"):
    from tensorflow_serving.apis import predict_pb2

    request = predict_pb2.PredictRequest()
    request.model_spec.name = name
    request.model_spec.signature_name = signature_name
    request.inputs[key].CopyFrom(tf.make_tensor_proto(x))
    return request


def test_the_official_grpc_client(exported, stub):
    from tensorflow_serving.apis import get_model_metadata_pb2

    model, _ = exported
    x = samples(5, seed=51)
    response = stub.Predict(predict_request(x), timeout=60)
    got = tf.make_ndarray(response.outputs["digit"])
    np.testing.assert_allclose(got, model.predict(x, verbose=0), rtol=1e-5, atol=1e-7)
    assert response.model_spec.version.value == 1
    response = stub.Predict(predict_request(x, "energy"), timeout=60)
    wanted = spinkeras.energy_report(model, x, print_fn=None).total_pj
    total = tf.make_ndarray(response.outputs["energy_pj"])
    assert total.mean() == pytest.approx(wanted, rel=1e-5)

    request = get_model_metadata_pb2.GetModelMetadataRequest(metadata_field=["signature_def"])
    request.model_spec.name = "digits"
    metadata = stub.GetModelMetadata(request, timeout=60).metadata["signature_def"]
    signatures = get_model_metadata_pb2.SignatureDefMap()
    assert metadata.Unpack(signatures)
    assert signatures.signature_def["serving_default"].inputs["pixels"].dtype == tf.float32


def declared(rows, values, key="pixels"):
    """A request that declares `rows` samples and holds these numbers."""
    request = predict_request(samples(1), key=key)
    request.inputs[key].ClearField("tensor_content")
    request.inputs[key].float_val.extend(values)
    request.inputs[key].tensor_shape.dim[0].size = rows
    return request


def test_bad_grpc_requests_get_a_clear_answer(stub):
    import grpc

    x = samples(2)
    nan = x.copy()
    nan[1, 1] = np.nan
    wrong = [
        (predict_request(nan), "INVALID_ARGUMENT", "'pixels' is not finite"),
        (predict_request(x[:, :3]), "INVALID_ARGUMENT", "shape"),
        (predict_request(x[:0]), "INVALID_ARGUMENT", "empty batch"),
        (predict_request(x.astype("float64")), "INVALID_ARGUMENT", "type float32"),
        (predict_request(x, "none"), "INVALID_ARGUMENT", "Unknown signature"),
        (predict_request(x, key="pixel"), "INVALID_ARGUMENT", "takes inputs"),
        (predict_request(x, name="other"), "NOT_FOUND", "other"),
        (predict_request(samples(200_000)), "RESOURCE_EXHAUSTED", "larger than max"),
        (declared(2, [0.5] * 31), "INVALID_ARGUMENT", r"holds 31 values .* needs 32"),
        (declared(2, []), "INVALID_ARGUMENT", "holds 0 values"),
        (declared(-1, [0.5] * 16), "INVALID_ARGUMENT", "holds 16 values"),
        (declared(2**40, [0.5] * 2), "INVALID_ARGUMENT", "holds 2 values"),
        (declared(2**40, [0.5]), "INVALID_ARGUMENT", "at most 1048576"),
        (declared(2**40, [], key="pixel"), "INVALID_ARGUMENT", "holds 0 values"),
    ]
    for request, code, message in wrong:
        with pytest.raises(grpc.RpcError, match=message) as error:
            stub.Predict(request, timeout=60)
        assert error.value.code().name == code
    stub.Predict(predict_request(x), timeout=60)
    one_for_all = stub.Predict(declared(2, [0.5]), timeout=60)  # as the protocol allows
    assert tf.make_ndarray(one_for_all.outputs["digit"]).shape == (2, 10)


def test_no_memory_for_a_grpc_request_is_said_so():
    grpc = pytest.importorskip("grpc")
    pytest.importorskip("tensorflow_serving")
    from tensorflow_serving.apis import prediction_service_pb2_grpc

    class Full:
        number = 1

        def get(self, number):
            return self

        def signature(self, name):
            raise MemoryError

    server, port = example("model_server").grpc_server("digits", Full(), "127.0.0.1", 0)
    server.start()
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        with pytest.raises(grpc.RpcError, match="no memory") as error:
            stub.Predict(predict_request(samples(1)), timeout=60)
    server.stop(None).wait()
    assert error.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED


# --- load ----------------------------------------------------------------------------------------


def load(server, x, check, count, stop=None, clients=16):
    """`count` requests from each of 16 clients at once; `check(row numbers, body)` on each answer.

    Returns the number of requests; raises what the first client to fail raised.
    """
    done, failures = [0] * clients, []

    def client(k):
        random = np.random.default_rng(k)
        connection = server.connect()
        try:
            while done[k] < count and not failures and not (stop is not None and stop()):
                rows = random.integers(0, len(x), random.integers(1, 5))
                status, body = server.predict({"instances": x[rows].tolist()}, connection)
                assert status == 200, body
                check(k, rows, body)
                done[k] += 1
        except BaseException as error:
            failures.append(error)
        finally:
            connection.close()

    threads = [threading.Thread(target=client, args=(k,)) for k in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        raise failures[0]
    return sum(done)


@pytest.mark.parametrize("count", [20, pytest.param(625, marks=pytest.mark.slow)])
def test_every_answer_under_load_is_the_models(exported, server, count):
    """16 clients at once, batches of 1 to 4; 10 000 requests in the slow test."""
    model, _ = exported
    x = samples(200, seed=31)
    want = model.predict(x, verbose=0)

    def check(k, rows, body):
        np.testing.assert_allclose(body["predictions"], want[rows], rtol=1e-4, atol=1e-6)

    assert load(server, x, check, count) == 16 * count


@pytest.mark.slow
def test_versions_change_under_load_without_a_failed_request(tmp_path):
    """A new version takes over, a broken one does not, a withdrawn one gives way to the last."""
    pytest.importorskip("kserve")
    models = [mlp(seed=41), mlp(seed=42)]
    x = samples(100, seed=43)
    want = [model.predict(x, verbose=0) for model in models]
    assert np.min(np.abs(want[0] - want[1]).max(axis=1)) > 1e-3
    base = tmp_path / "digits"
    spinkeras.export_for_serving(models[0], base, energy=False)
    server = Server(base, "--interval", "0.1")
    try:
        direction = [+1]  # of the change from model to model
        seen = [0] * 16  # which model each client was answered by last
        deadline = time.monotonic() + 240

        def check(k, rows, body):
            for which in (0, 1):
                if np.allclose(body["predictions"], want[which][rows], rtol=1e-4, atol=1e-6):
                    assert (which - seen[k]) * direction[0] >= 0  # a client never goes back
                    seen[k] = which
                    return
            raise AssertionError("an answer of neither version")

        def everyone(which):
            def reached():
                assert time.monotonic() < deadline, (seen, server.log[-5:])
                return all(value == which for value in seen)

            return reached

        def under_load(change, stop):
            changer = threading.Thread(target=change)
            changer.start()
            answered = load(server, x, check, 20_000, stop)
            changer.join()
            return answered

        new = lambda: spinkeras.export_for_serving(models[1], base, energy=False)  # noqa: E731
        assert under_load(new, everyone(1)) > 0
        assert visible(base) == ["1", "2"]

        broken = base / "3"
        broken.mkdir()
        (broken / "saved_model.pb").write_bytes((base / "2" / "saved_model.pb").read_bytes()[:999])
        refused = lambda: any("version 3 is not served" in line for line in server.log)  # noqa: E731

        def refused_in_time():
            assert time.monotonic() < deadline
            return refused()

        load(server, x, check, 20_000, refused_in_time)
        assert seen == [1] * 16

        def withdraw():
            os.rename(base / "2", base / ".withdrawn")

        direction[0] = -1
        assert under_load(withdraw, everyone(0)) > 0
    finally:
        server.close()


# --- examples and documentation ------------------------------------------------------------------


@pytest.mark.slow
def test_the_example_trains_exports_serves_and_asks(tmp_path, monkeypatch):
    pytest.importorskip("kserve")
    pytest.importorskip("sklearn")
    script = ROOT / "examples" / "serve.py"
    command = [sys.executable, str(script), "--path", str(tmp_path / "m"), "--epochs", "10"]
    for version in ("1", "2"):
        result = subprocess.run(
            command, env=ENVIRONMENT, capture_output=True, text=True, check=True, timeout=600
        )
        assert visible(tmp_path / "m")[-1] == version
    assert len(re.findall(r"\d\.\d{3} +\d+\.\d\d pJ", result.stdout)) == 5
    accuracy = float(re.search(r"test accuracy (\d\.\d+)", result.stdout)[1])
    assert accuracy > 0.9

    # A server that restarts accepts connections and closes them.
    module = example("serve")
    answer = b'{"model_version_status": [{"version": "2", "state": "AVAILABLE"}]}'
    replies = [
        http.client.RemoteDisconnected(),
        http.client.IncompleteRead(b""),
        io.BytesIO(answer),
    ]

    def urlopen(*args, **kwargs):
        reply = replies.pop(0)
        if isinstance(reply, Exception):
            raise reply
        return reply

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    module.wait_for_version("http://nowhere", 2)
    assert replies == []


@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
def test_the_script_for_docker_takes_a_relative_folder(tmp_path):
    docker = tmp_path / "docker"
    docker.write_text("#!/bin/sh\nexit 1\n")
    docker.chmod(0o755)
    script = ROOT / "examples" / "tensorflow_serving.sh"
    result = subprocess.run(
        ["bash", str(script), "models"],
        env={**ENVIRONMENT, "PATH": f"{tmp_path}:{os.environ['PATH']}"},
        cwd=tmp_path,
        capture_output=True,
        text=True,
    )
    assert (tmp_path / "models").is_dir(), result.stderr
