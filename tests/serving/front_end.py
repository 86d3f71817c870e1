"""A small front end for exported models, for tests. It is not TF Serving.

It implements PredictionService (Predict, GetModelMetadata), ModelService (GetModelStatus) and the
REST routes of the same as far as the tests need them, from the messages of tensorflow-serving-api,
and runs signatures through TensorFlow's C API, without TensorFlow's Python. Rules and words of
refusals follow the server's sources: json_tensor.cc, predict_util.cc, http_rest_api_util.cc,
batching_session.cc.

    front_end.py MODEL FOLDER [--label NAME=VERSION] [--batch SIZE]

serves every version in the folder, prints the two ports as JSON, and ends with its standard input.
With `--batch`, requests to one signature wait for each other and are run as one.
"""

from __future__ import annotations

import argparse
import base64
import importlib.util
import json
import re
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import grpc
import numpy as np
from google.protobuf import json_format
from google.protobuf.internal import encoder

sys.path.insert(0, str(Path(__file__).parents[1] / "export"))

import c_api

# Of TensorFlow's Python the messages alone are imported: its own __init__ is not run.
tensorflow = importlib.util.module_from_spec(importlib.util.find_spec("tensorflow"))
sys.modules["tensorflow"] = tensorflow

from tensorflow.core.framework import tensor_pb2, types_pb2  # noqa: E402
from tensorflow.core.protobuf import saved_model_pb2  # noqa: E402
from tensorflow_serving.apis import (  # noqa: E402
    get_model_metadata_pb2,
    get_model_status_pb2,
    model_service_pb2_grpc,
    predict_pb2,
    prediction_service_pb2_grpc,
)

INVALID_ARGUMENT, NOT_FOUND, FAILED_PRECONDITION = 3, 5, 9
HTTP = {INVALID_ARGUMENT: 400, 4: 504, NOT_FOUND: 404, 8: 429, FAILED_PRECONDITION: 400, 14: 503}
DTYPES = {types_pb2.DT_FLOAT: np.float32, types_pb2.DT_UINT8: np.uint8, types_pb2.DT_STRING: object}
FIELDS = {types_pb2.DT_FLOAT: "float_val", types_pb2.DT_UINT8: "int_val"}
FIELDS[types_pb2.DT_STRING] = "string_val"
UNLIMITED = [("grpc.max_send_message_length", -1), ("grpc.max_receive_message_length", -1)]
BATCH_SECONDS = 5  # to wait for a batch to fill

Refused = c_api.RunError


class Version:
    """A version of a model, loaded."""

    def __init__(self, folder, batch):
        message = saved_model_pb2.SavedModel()
        message.ParseFromString((folder / "saved_model.pb").read_bytes())
        self.signatures = message.meta_graphs[0].signature_def
        self.graph = c_api.SavedModel(folder)
        self.batches = Batches(self.graph.run, batch) if batch else None

    def run(self, signature, inputs, outputs):
        """Runs a signature on arrays by name; without outputs, all are answered."""
        signature = self.signatures[signature]
        if inputs.keys() != signature.inputs.keys():
            raise Refused(INVALID_ARGUMENT, "input size does not match signature: ...")
        strange = [name for name in outputs if name not in signature.outputs]
        if strange:
            message = f"output tensor alias not found in signature: {strange[0]}"
            raise Refused(INVALID_ARGUMENT, message)
        for name, array in inputs.items():
            expected = signature.inputs[name].dtype
            if array.dtype != DTYPES[expected]:
                raise Refused(INVALID_ARGUMENT, f"Expects arg[0] to be {expected}: {array.dtype}")
        names = list(outputs) or list(signature.outputs)
        fed = {signature.inputs[name].name: array for name, array in inputs.items()}
        fetched = [signature.outputs[name].name for name in names]
        run = self.batches.run if self.batches else self.graph.run
        return dict(zip(names, run(fed, fetched), strict=True))


class Batches:
    """Joins requests along their first dimension, and parts the answers."""

    def __init__(self, run, size):
        self.run_one, self.size = run, size
        self.lock, self.waiting = threading.Lock(), {}

    def run(self, inputs, outputs):
        key, future = (tuple(inputs), tuple(outputs)), Future()
        with self.lock:
            tasks = self.waiting.setdefault(key, [])
            tasks.append((inputs, future))
            is_full = sum(len(next(iter(one.values()))) for one, _ in tasks) >= self.size
            if is_full:
                self.waiting.pop(key)
            elif len(tasks) == 1:
                threading.Timer(BATCH_SECONDS, self.close, (key, tasks)).start()
        if is_full:
            self.work_off(tasks, outputs)
        return future.result()

    def close(self, key, tasks):
        with self.lock:
            is_mine = self.waiting.get(key) is tasks
            if is_mine:
                self.waiting.pop(key)
        if is_mine:
            self.work_off(tasks, list(key[1]))

    def work_off(self, tasks, outputs):
        try:
            answers = self.answers([inputs for inputs, _ in tasks], outputs)
            for (_, future), answer in zip(tasks, answers, strict=True):
                future.set_result(answer)
        except Refused as error:  # all of a batch fail together
            for _, future in tasks:
                future.set_exception(error)

    def answers(self, tasks, outputs):
        names = list(tasks[0])
        if any(one[name].shape[1:] != tasks[0][name].shape[1:] for one in tasks for name in names):
            message = "Tensors have different shapes and padding is turned off."
            raise Refused(FAILED_PRECONDITION, message)
        joined = {name: np.concatenate([one[name] for one in tasks]) for name in names}
        ends = np.cumsum([len(one[names[0]]) for one in tasks])[:-1]
        parts = [np.split(array, ends) for array in self.run_one(joined, outputs)]
        return [list(answer) for answer in zip(*parts, strict=True)]


class Models:
    """The versions of one model and their labels."""

    def __init__(self, name, folder, labels, batch):
        self.name, self.labels = name, labels
        numbers = [int(path.name) for path in folder.iterdir() if path.name.isdecimal()]
        self.versions = {number: Version(folder / str(number), batch) for number in sorted(numbers)}

    def number(self, spec):
        if spec.version_label and spec.version_label not in self.labels:
            message = f"Unrecognized servable version label: {spec.version_label}"
            raise Refused(INVALID_ARGUMENT, message)
        number = self.labels.get(spec.version_label, max(self.versions))
        number = spec.version.value if spec.HasField("version") else number
        if spec.name != self.name or number not in self.versions:
            asked = f"Specific({spec.name}, {number})"
            raise Refused(NOT_FOUND, f"Servable not found for request: {asked}")
        return number

    def predict(self, request):
        number = self.number(request.model_spec)
        version, signature = self.versions[number], request.model_spec.signature_name
        signature = signature or "serving_default"
        if signature not in version.signatures:
            message = f'Serving signature key "{signature}" not found.'
            raise Refused(FAILED_PRECONDITION, message)
        inputs = {name: array_of(tensor) for name, tensor in request.inputs.items()}
        answer = predict_pb2.PredictResponse()
        answer.model_spec.name, answer.model_spec.signature_name = self.name, signature
        answer.model_spec.version.value = number
        for name, array in version.run(signature, inputs, request.output_filter).items():
            answer.outputs[name].CopyFrom(tensor_of(array))
        return answer

    def metadata(self, request):
        number = self.number(request.model_spec)
        answer = get_model_metadata_pb2.GetModelMetadataResponse()
        answer.model_spec.name, answer.model_spec.version.value = self.name, number
        known = get_model_metadata_pb2.SignatureDefMap()
        for name, signature in self.versions[number].signatures.items():
            known.signature_def[name].CopyFrom(signature)
        answer.metadata["signature_def"].Pack(known)
        return answer

    def status(self, request):
        self.number(request.model_spec)
        answer = get_model_status_pb2.GetModelStatusResponse()
        for number in self.versions:
            answer.model_version_status.add(version=number, state=30).status.error_code = 0
        return answer


def array_of(tensor):
    shape = [axis.size for axis in tensor.tensor_shape.dim]
    if tensor.dtype == types_pb2.DT_STRING:
        array = np.empty(len(tensor.string_val), object)
        array[:] = tensor.string_val
        return array.reshape(shape)
    if tensor.dtype not in DTYPES:
        raise Refused(INVALID_ARGUMENT, f"unexpected type {tensor.dtype}")
    given = np.array(getattr(tensor, FIELDS[tensor.dtype]), DTYPES[tensor.dtype])
    read = np.frombuffer(tensor.tensor_content, DTYPES[tensor.dtype])
    return (read if tensor.tensor_content else given).reshape(shape)


def tensor_of(array):
    """As Tensor::AsProtoField: every number in the field of its type.

    Packed, float32 are their very bytes, and so are numbers below 128: they are written at once.
    """
    dtype = next(code for code, one in DTYPES.items() if one == array.dtype)
    tensor = tensor_pb2.TensorProto(dtype=dtype)
    for size in array.shape:
        tensor.tensor_shape.dim.add(size=size)
    if array.dtype == object or (array.dtype == np.uint8 and array.max(initial=0) > 127):
        getattr(tensor, FIELDS[dtype]).extend(array.ravel().tolist())
    else:
        key = 8 * tensor.DESCRIPTOR.fields_by_name[FIELDS[dtype]].number + 2
        packed = array.tobytes()
        tensor.MergeFromString(
            encoder._VarintBytes(key) + encoder._VarintBytes(len(packed)) + packed
        )
    return tensor


def guarded(answer):
    def method(_, request, context):
        try:
            return answer(request)
        except Refused as error:
            codes = {code.value[0]: code for code in grpc.StatusCode}
            return context.abort(codes[error.code], str(error))

    return method


def start_grpc(models):
    prediction = type(
        "Prediction",
        (prediction_service_pb2_grpc.PredictionServiceServicer,),
        {"Predict": guarded(models.predict), "GetModelMetadata": guarded(models.metadata)},
    )
    status = type(
        "Status",
        (model_service_pb2_grpc.ModelServiceServicer,),
        {"GetModelStatus": guarded(models.status)},
    )
    server = grpc.server(ThreadPoolExecutor(32), options=UNLIMITED)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(prediction(), server)
    model_service_pb2_grpc.add_ModelServiceServicer_to_server(status(), server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, port


PREDICT = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?:predict")
STATUS = re.compile(r"/v1/models/([^/:]+)(?:/versions/(\d+)|/labels/([^/:]+))?(?:/(metadata))?")


class Rest(BaseHTTPRequestHandler):
    """The REST routes."""

    models: Models

    def do_POST(self):
        content = self.rfile.read(int(self.headers["Content-Length"]))
        self.answer(PREDICT, lambda request, _: self.predicted(request, content))

    def do_GET(self):
        self.answer(STATUS, self.described)

    def answer(self, route, make):
        try:
            self.send(200, make(*self.asked(route)))
        except Refused as error:
            self.send(HTTP.get(error.code, 500), {"error": str(error)})

    def asked(self, route):
        """A request that names model and version, and the last part of the path."""
        found = route.fullmatch(self.path)
        if not found:
            raise Refused(INVALID_ARGUMENT, f"Malformed request: {self.path}")
        request, (name, version, label) = predict_pb2.PredictRequest(), found.groups()[:3]
        request.model_spec.name, request.model_spec.version_label = name, label or ""
        if version:
            request.model_spec.version.value = int(version)
        return request, found.group(route.groups)

    def send(self, status, content):
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def predicted(self, request, content):
        try:
            asked = json.loads(content)
        except ValueError as error:
            raise Refused(INVALID_ARGUMENT, f"JSON Parse error: {error}") from error
        request.model_spec.signature_name = asked.get("signature_name", "serving_default")
        signatures = self.models.versions[self.models.number(request.model_spec)].signatures
        if request.model_spec.signature_name not in signatures:
            name = request.model_spec.signature_name
            message = f'Serving signature name: "{name}" not found in signature def'
            raise Refused(INVALID_ARGUMENT, message)
        infos = signatures[request.model_spec.signature_name].inputs
        for name, values in columns(asked, infos).items():
            request.inputs[name].CopyFrom(
                tensor_of(array_of_json(values, DTYPES[infos[name].dtype]))
            )
        outputs = {
            name: listed(array_of(tensor), name)
            for name, tensor in self.models.predict(request).outputs.items()
        }
        (only, *more) = outputs
        if "instances" not in asked:
            return {"outputs": outputs if more else outputs[only]}
        rows = [dict(zip(outputs, row, strict=True)) for row in zip(*outputs.values(), strict=True)]
        return {"predictions": rows if more else outputs[only]}

    def described(self, request, metadata):
        if not metadata:
            return json_format.MessageToDict(
                self.models.status(request),
                preserving_proto_field_name=True,
                always_print_fields_with_no_presence=True,
            )
        answer, known = self.models.metadata(request), get_model_metadata_pb2.SignatureDefMap()
        answer.metadata["signature_def"].Unpack(known)
        words = json_format.MessageToDict(known, preserving_proto_field_name=True)
        spec = json_format.MessageToDict(answer.model_spec, preserving_proto_field_name=True)
        return {"model_spec": spec, "metadata": {"signature_def": words}}

    def log_message(self, *_):
        pass


def columns(asked, infos):
    """The values of each input, from either form of a request."""
    if "instances" in asked:
        rows = asked["instances"]
        if not rows:
            raise Refused(INVALID_ARGUMENT, "No values in 'instances' array")
        is_named = isinstance(rows[0], dict) and "b64" not in rows[0]
        (name, *_) = infos
        return {one: [row[one] for row in rows] for one in infos} if is_named else {name: rows}
    values = asked.get("inputs")
    if values is None:
        raise Refused(INVALID_ARGUMENT, "Missing 'inputs' or 'instances' key")
    is_named = isinstance(values, dict) and "b64" not in values
    missing = [name for name in infos if is_named and name not in values]
    if missing or (not is_named and len(infos) != 1):
        raise Refused(INVALID_ARGUMENT, f"Missing named input: {missing} in 'inputs' object.")
    (name, *_) = infos
    return {one: values[one] for one in infos} if is_named else {name: values}


def array_of_json(values, dtype):
    try:
        if dtype is not object:
            return np.array(values, dtype)
        array = np.empty(len(values), object)
        array[:] = [
            base64.b64decode(one["b64"]) if "b64" in one else one.encode() for one in values
        ]
    except (TypeError, ValueError, AttributeError) as error:
        raise Refused(INVALID_ARGUMENT, f"JSON Value not formatted correctly: {error}") from error
    return array


def listed(array, name):
    if array.dtype != object:
        return array.tolist()
    as_bytes = name.endswith("_bytes")
    return [{"b64": base64.b64encode(one).decode()} if as_bytes else one.decode() for one in array]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--label", action="append", default=[])
    parser.add_argument("--batch", type=int, default=0)
    given = parser.parse_args()
    labels = {
        name: int(version) for name, _, version in (one.partition("=") for one in given.label)
    }
    models = Models(given.model, given.folder, labels, given.batch)
    server, port = start_grpc(models)
    rest = ThreadingHTTPServer(("127.0.0.1", 0), type("Routes", (Rest,), {"models": models}))
    threading.Thread(target=rest.serve_forever, daemon=True).start()
    sys.stdout.write(json.dumps({"grpc": port, "rest": rest.server_port}) + "\n")
    sys.stdout.flush()
    sys.stdin.read()
    server.stop(0)


if __name__ == "__main__":
    main()
