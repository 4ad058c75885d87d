"""A small model server for exported networks: KServe's HTTP server, TensorFlow Serving's requests.

    python examples/model_server.py --name digits --path /models/digits

This server is for local use and tests. In production use the official TensorFlow Serving image,
which answers the same requests (docs/serving.md). The server needs TensorFlow and KServe
(pip install ".[serving]"); it does not import spinkeras.

HTTP: POST /v1/models/NAME[/versions/N]:predict with "instances" (one entry per sample) or
"inputs" (one entry per input) and optionally "signature_name"; GET /v1/models/NAME and
/v1/models/NAME/metadata. gRPC, with --grpc-port: Predict, GetModelMetadata and GetModelStatus of
the tensorflow-serving-api package.

The newest version in the folder is served. A newer version is loaded in the background and replaces
it between two requests. If the newer version cannot be loaded, or disappears, the earlier one is
served on. `slow_clients.py` beside this file limits slow, broken and too many clients.
"""

import argparse
import asyncio
import concurrent.futures
import itertools
import logging
import math
import pathlib
import re
import socket
import sys
import threading

import numpy as np
import orjson
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.protobuf import saved_model_pb2

MAX_BODY = 4 * 2**20  # bytes; the default of gRPC, also used for HTTP
PATIENCE = 30.0  # s
MAX_CONNECTIONS = 1000
MAX_REPEATED = 2**20  # most elements of a tensor that is sent as one repeated number


class Refused(ValueError):
    """Error for a wrong request of a client; status 404 with `not_found`, otherwise 400."""

    def __init__(self, message, not_found=False):
        super().__init__(message)
        self.not_found = not_found


# --- versions ------------------------------------------------------------------------------------


class Version:
    """One loaded version: its signatures and their description."""

    def __init__(self, folder):
        self.number = int(folder.name)
        description = saved_model_pb2.SavedModel()
        description.ParseFromString((folder / "saved_model.pb").read_bytes())
        self.signature_defs = dict(description.meta_graphs[0].signature_def)
        self.loaded = tf.saved_model.load(str(folder))
        self.signatures = {}
        for name, function in self.loaded.signatures.items():
            specs = function.structured_input_signature[1]
            self.signatures[name] = (function, {key: specs[key] for key in sorted(specs)})

    def signature(self, name):
        if not isinstance(name, str) or name not in self.signatures:
            raise Refused(
                f"Unknown signature_name {name!r}; this model has {sorted(self.signatures)}."
            )
        return self.signatures[name]

    def run(self, name, arrays):
        """Outputs of a signature as NumPy arrays; the given arrays are checked first."""
        function, specs = self.signature(name)
        if set(arrays) != set(specs):
            raise Refused(f"Signature {name!r} takes inputs {list(specs)}; got {list(arrays)}.")
        lengths = set()
        for key, array in arrays.items():
            spec = specs[key]
            if not spec.shape.is_compatible_with(array.shape):
                raise Refused(
                    f"Input {key!r} must have shape {spec.shape}; got {tuple(array.shape)}."
                )
            if array.shape[:1] == (0,):
                raise Refused(f"Input {key!r} is an empty batch; send at least one sample.")
            lengths.update(array.shape[:1])
        if len(lengths) > 1:
            raise Refused(f"The inputs hold different numbers of samples: {sorted(lengths)}.")
        try:
            outputs = function(
                **{key: tf.constant(a, specs[key].dtype) for key, a in arrays.items()}
            )
        except tf.errors.InvalidArgumentError as error:
            raise Refused(reason(error)) from error
        return {key: value.numpy() for key, value in outputs.items()}


def reason(error):
    """The message of a failed operation, without its place in the graph."""
    lines = [line.strip() for line in error.message.splitlines()]
    places = ("Graph execution error", "Detected at node", "<stack traces", "[[", "File ")
    return next(line for line in reversed(lines) if line and not line.startswith(places))


def fingerprint(folder):
    """Names, sizes and times of the files in a folder, which change while it is being copied."""
    try:
        stats = [(str(path), path.stat()) for path in sorted(folder.rglob("*"))]
    except OSError:  # a file has disappeared; the next fingerprint will differ from this one
        return None
    return [(name, stat.st_size, stat.st_mtime_ns) for name, stat in stats]


class Versions:
    """The newest version of a folder that can be loaded, kept up to date by a thread."""

    def __init__(self, path, interval=1.0):
        self.path = pathlib.Path(path)
        self.interval = interval
        self.broken = {}  # number: (fingerprint when loading failed, reason)
        self.current = None
        self._stop = threading.Event()
        self.refresh()
        if self.current is None:
            broken = {number: why for number, (_, why) in self.broken.items()}
            raise SystemExit(f"No version that can be loaded in {self.path} ({broken}).")
        threading.Thread(target=self._watch, daemon=True).start()

    def refresh(self):
        numbers = sorted(
            (int(p.name) for p in self.path.iterdir() if p.name.isdecimal() and p.is_dir()),
            reverse=True,
        )
        self.broken = {n: failure for n, failure in self.broken.items() if n in numbers}
        for number in numbers:
            if self.current is not None and number == self.current.number:
                return
            folder = self.path / str(number)
            mark = fingerprint(folder)  # taken before loading, so that a later change is noticed
            if number in self.broken and self.broken[number][0] == mark:
                continue
            try:
                version = Version(folder)
                for function, _ in version.signatures.values():
                    function.graph  # noqa: B018  (restore it now, not in the first request)
                self.current = version
            except Exception as error:
                why = f"{type(error).__name__}: {error}".splitlines()[0]
                self.broken[number] = (mark, why)
                print(f"version {number} is not served: {why}", flush=True)
                continue
            print(f"serving version {number}", flush=True)
            return

    def get(self, number=None):
        current = self.current
        if number is not None and number != current.number:
            raise Refused(f"Version {number} is not served; {current.number} is.", not_found=True)
        return current

    def _watch(self):
        while not self._stop.wait(self.interval):
            try:
                self.refresh()
            except Exception as error:  # such as one of a network file system; try again later
                print(f"cannot read {self.path}: {type(error).__name__}: {error}", flush=True)


# --- HTTP ----------------------------------------------------------------------------------------


def types_of(entries):
    types = list(map(type, entries))
    # Usually all have the same type; counting this type is twice as fast as a set of all types.
    return {types[0]} if types and types.count(types[0]) == len(types) else set(types)


def to_array(value, key, dtype):
    """Array of a signature's type from a JSON value; refuses text, null, true and false."""
    if dtype.is_bool:
        allowed, wanted = {bool}, "true or false"
    elif dtype.is_integer:
        allowed, wanted = {int}, f"whole numbers of type {dtype.name}"
    elif dtype.is_floating:
        allowed, wanted = {int, float}, f"numbers of type {dtype.name}"
    else:
        raise Refused(f"Input {key!r} is of type {dtype.name}, for which this server needs gRPC.")
    # Check types before NumPy, which would give every entry the memory of the longest text.
    entries, shape = [value], []
    while list in (types := types_of(entries)):
        lengths = set(map(len, entries)) if types == {list} else ()
        if len(lengths) != 1:
            raise Refused(f"Input {key!r} is ragged: lists of different lengths, or beside others.")
        shape.extend(lengths)
        entries = list(itertools.chain.from_iterable(entries))
    if types - allowed:
        raise Refused(f"Input {key!r} must hold {wanted}, and nothing else.")
    if dtype.is_integer and entries:
        low, high = min(entries), max(entries)
        if low < dtype.min or high > dtype.max:
            raise Refused(
                f"Input {key!r} must hold whole numbers from {dtype.min} to {dtype.max} "
                f"({dtype.name}); got {low if low < dtype.min else high}."
            )
    try:
        with np.errstate(over="ignore"):
            return np.asarray(entries, dtype.as_numpy_dtype).reshape(shape)
    except ValueError as error:  # NumPy limits the number of dimensions
        raise Refused(f"Input {key!r} is nested {len(shape)} deep: {error}.") from error


def answer(version, payload):
    """The response to the parsed body of a predict request."""
    if not isinstance(payload, dict):
        raise Refused('The body must be a JSON object with "instances" or "inputs".')
    unknown = set(payload) - {"instances", "inputs", "signature_name"}
    if unknown or ("instances" in payload) == ("inputs" in payload):
        raise Refused(
            'The body must hold either "instances" or "inputs", and may hold "signature_name"; '
            f"got {sorted(payload)}."
        )
    name = payload.get("signature_name", "serving_default")
    _, specs = version.signature(name)
    rows = "instances" in payload
    value = payload["instances"] if rows else payload["inputs"]
    if rows:
        if not isinstance(value, list) or not value:
            raise Refused('"instances" must be a list of at least one sample.')
        if all(isinstance(sample, dict) for sample in value):
            if any(set(sample) != set(value[0]) for sample in value):
                raise Refused('Every entry of "instances" must name the same inputs.')
            value = {key: [sample[key] for sample in value] for key in value[0]}
    if not isinstance(value, dict):
        if len(specs) != 1:
            raise Refused(f"Name the inputs {list(specs)}, as there is more than one.")
        value = {next(iter(specs)): value}
    if set(value) != set(specs):
        raise Refused(f"Signature {name!r} takes inputs {list(specs)}; got {list(value)}.")
    arrays = {key: to_array(entry, key, specs[key].dtype) for key, entry in value.items()}
    outputs = version.run(name, arrays)
    if len(outputs) == 1:
        return {"predictions" if rows else "outputs": next(iter(outputs.values()))}
    lists = {key: array.tolist() for key, array in outputs.items()}
    if rows:
        return {"predictions": [dict(zip(lists, row)) for row in zip(*lists.values())]}
    return {"outputs": lists}


def http_server(name, versions, port, patience, connections, body):
    """KServe's REST server with one model, not started; the last three arguments as in `guard`."""
    sys.argv = sys.argv[:1]  # KServe parses the command line of the program that imports it
    import kserve
    from fastapi import Request
    from fastapi.responses import ORJSONResponse
    from kserve.errors import InvalidInput, ModelNotFound
    from kserve.model_server import app
    from kserve.protocol.dataplane import DataPlane
    from kserve.protocol.model_repository_extension import ModelRepositoryExtension
    from kserve.protocol.rest.server import RESTServer
    from slow_clients import guard

    pool = concurrent.futures.ThreadPoolExecutor(4)

    def not_found(message):
        error = ModelNotFound()
        error.reason = message
        return error

    class SavedModel(kserve.Model):
        def __init__(self):
            super().__init__(name)
            self.ready = True

        def validate(self, payload):
            return payload  # `answer` checks it, with better messages

        async def predict(self, body, headers=None, number=None):
            try:
                payload = orjson.loads(body)  # ignore the declared type: curl -d declares "form"
                version = versions.get(number)
                loop = asyncio.get_running_loop()
                return await loop.run_in_executor(pool, answer, version, payload)
            except orjson.JSONDecodeError as error:
                raise InvalidInput(f"The body is not JSON: {error}") from error
            except Refused as error:
                if error.not_found:
                    raise not_found(str(error)) from error
                raise InvalidInput(str(error)) from error

    class PlainDataPlane(DataPlane):
        # Pass bodies on unchanged. TensorFlow Serving does not use CloudEvents, and KServe's
        # decoder of CloudEvents fails on some bodies, such as an empty one.
        def decode(self, body, headers, *args, **kwargs):
            return body, {}

        def encode(self, model_name, response, headers, req_attributes):
            return response, {}

    model = SavedModel()

    # Routes that TensorFlow Serving has in addition to KServe's; the first matching route is used.
    @app.get("/v1/models/{model_name}")
    def status(model_name: str):
        check(model_name)
        state = {"error_code": "OK", "error_message": ""}
        version = {"version": str(versions.get().number), "state": "AVAILABLE", "status": state}
        return ORJSONResponse({"model_version_status": [version]})

    @app.get("/v1/models/{model_name}/metadata")
    def metadata(model_name: str):
        check(model_name)
        version = versions.get()
        signatures = {k: json_format.MessageToDict(v) for k, v in version.signature_defs.items()}
        return ORJSONResponse(
            {
                "model_spec": {"name": name, "version": str(version.number)},
                "metadata": {"signature_def": {"signature_def": signatures}},
            }
        )

    @app.post("/v1/models/{model_name}/versions/{number}:predict")
    async def predict_version(model_name: str, number: str, request: Request):
        check(model_name)
        if not re.fullmatch("[0-9]{1,19}", number):
            raise InvalidInput(f"A version is a number of 1 to 19 digits; got {number[:30]!r}.")
        return ORJSONResponse(await model.predict(await request.body(), number=int(number)))

    @app.post("/v2/{rest:path}")
    def no_v2(rest: str):
        # KServe's own V2 routes would let any client unload the model.
        raise not_found("There is no such request; POST to /v1/models/NAME:predict.")

    def check(model_name):
        if model_name != name:
            raise ModelNotFound(model_name)

    repository = kserve.ModelRepository()
    repository.update(model)
    extension = ModelRepositoryExtension(repository)
    server = RESTServer("kserve.model_server:app", PlainDataPlane(repository), extension, port)
    guard(server.config, patience, connections, body)
    logging.getLogger("kserve").setLevel(logging.CRITICAL)  # no traceback for every bad request
    return server


# --- gRPC ----------------------------------------------------------------------------------------


def grpc_server(name, versions, host, port, patience=PATIENCE):
    """TensorFlow Serving's PredictionService and ModelService; returns the server and its port."""
    import grpc
    from tensorflow_serving.apis import (
        get_model_metadata_pb2,
        get_model_status_pb2,
        model_service_pb2_grpc,
        predict_pb2,
        prediction_service_pb2_grpc,
    )

    def find(spec, context):
        if spec.name != name:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Model with name {spec.name} does not exist.")
        try:
            return versions.get(spec.version.value if spec.HasField("version") else None)
        except Refused as error:
            context.abort(grpc.StatusCode.NOT_FOUND, str(error))

    def from_proto(proto, key):
        # A few bytes may declare a huge shape, for which all memory would be allocated.
        count = math.prod(dim.size for dim in proto.tensor_shape.dim)
        if proto.tensor_content:
            given = len(proto.tensor_content) / tf.as_dtype(proto.dtype).size
        else:
            given = sum(len(v) for field, v in proto.ListFields() if field.name.endswith("_val"))
        if given != count and not (given == 1 and 1 < count <= MAX_REPEATED):
            raise Refused(
                f"Input {key!r} holds {given:g} values where its declared shape needs {count}; "
                f"send all of them, or one for at most {MAX_REPEATED} equal ones."
            )
        return tf.make_ndarray(proto)

    def describe(response, version):
        response.model_spec.name = name
        response.model_spec.version.value = version.number

    class Prediction(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):
            version = find(request.model_spec, context)
            signature = request.model_spec.signature_name or "serving_default"
            try:
                _, specs = version.signature(signature)
                arrays = {}
                for key, proto in request.inputs.items():
                    if key in specs and proto.dtype != specs[key].dtype.as_datatype_enum:
                        raise Refused(f"Input {key!r} must be of type {specs[key].dtype.name}.")
                    arrays[key] = from_proto(proto, key)
                outputs = version.run(signature, arrays)
            except (ValueError, TypeError) as error:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            except MemoryError:
                text = "The server has no memory for this request; send fewer samples."
                context.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, text)
            response = predict_pb2.PredictResponse()
            describe(response, version)
            response.model_spec.signature_name = signature
            for key, value in outputs.items():
                response.outputs[key].CopyFrom(tf.make_tensor_proto(value))
            return response

        def GetModelMetadata(self, request, context):
            version = find(request.model_spec, context)
            response = get_model_metadata_pb2.GetModelMetadataResponse()
            describe(response, version)
            signatures = get_model_metadata_pb2.SignatureDefMap()
            for key, definition in version.signature_defs.items():
                signatures.signature_def[key].CopyFrom(definition)
            response.metadata["signature_def"].Pack(signatures)
            return response

    class Status(model_service_pb2_grpc.ModelServiceServicer):
        def GetModelStatus(self, request, context):
            version = find(request.model_spec, context)
            response = get_model_status_pb2.GetModelStatusResponse()
            available = get_model_status_pb2.ModelVersionStatus.AVAILABLE
            response.model_version_status.add(version=version.number, state=available)
            return response

    limit = round(1000 * patience)  # ms, for the handshake and for a connection without a call
    options = [("grpc.server_handshake_timeout_ms", limit), ("grpc.max_connection_idle_ms", limit)]
    server = grpc.server(concurrent.futures.ThreadPoolExecutor(4), options=options)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Prediction(), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(Status(), server)
    return server, server.add_insecure_port(f"{host}:{port}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--name", required=True, help="name of the model in the address")
    parser.add_argument("--path", required=True, help="folder with the versions 1, 2, ...")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on")
    parser.add_argument("--port", type=int, default=8501, help="HTTP port; 0 takes a free one")
    parser.add_argument("--grpc-port", type=int, help="gRPC port; 0 takes a free one")
    parser.add_argument("--interval", type=float, default=1.0, help="s between looks for versions")
    parser.add_argument("--max-body", type=int, default=MAX_BODY, help="longest HTTP body in bytes")
    parser.add_argument(
        "--patience",
        type=float,
        default=PATIENCE,
        help="s that a client has for the head of a request, its body, taking the answer and "
        "sending the next request, each",
    )
    parser.add_argument(
        "--max-connections",
        type=int,
        default=MAX_CONNECTIONS,
        help="open HTTP connections; one more, and the one that waited longest is closed",
    )
    options = parser.parse_args()
    if not 0 < options.patience <= 3600:
        parser.error(f"--patience = {options.patience:g} s must be above 0 and at most 3600 s")
    if not (options.max_connections >= 1 and options.max_body >= 0):
        parser.error("--max-connections must be 1 or more, --max-body 0 or more")

    versions = Versions(options.path, options.interval)
    limits = (options.patience, options.max_connections, options.max_body)
    http = http_server(options.name, versions, options.port, *limits)
    if options.grpc_port is not None:
        server, port = grpc_server(
            options.name, versions, options.host, options.grpc_port, options.patience
        )
        server.start()
        print(f"grpc://{options.host}:{port}", flush=True)
    # KServe listens on every interface, so give it a socket that is bound to the wanted one.
    with socket.create_server((options.host, options.port)) as listener:
        print(f"http://{options.host}:{listener.getsockname()[1]}", flush=True)
        http.run(sockets=[listener])


if __name__ == "__main__":
    main()
