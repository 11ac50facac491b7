"""A small server of a model's folder, in the shapes that TensorFlow Serving documents.

REST:  POST /v1/models/NAME:predict, {"signature_name", "instances" | "inputs"}, b64 for bytes
gRPC:  PredictionService.Predict of the package tensorflow-serving-api

It stands in for the real server, which no package registry has: what it shows is that the layout,
the signatures and the values suit such requests, not how the real server behaves.
"""

import base64
import json
from concurrent import futures
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import tensorflow as tf


class Model:
    """The newest version in `base`, loaded as the server would."""

    def __init__(self, base):
        versions = [int(path.name) for path in Path(base).iterdir() if path.name.isdecimal()]
        self.version = max(versions)
        self.loaded = tf.saved_model.load(str(Path(base) / str(self.version)))

    def run(self, signature, inputs):
        """{name: array or tensor} → {name: array}; a ValueError or OpError for a bad request."""
        function = self.loaded.signatures[signature or "serving_default"]
        _, specs = function.structured_input_signature
        if set(inputs) != set(specs):
            raise ValueError(f"input keys {sorted(inputs)}, expected {sorted(specs)}")
        tensors = {name: tf.constant(inputs[name], spec.dtype) for name, spec in specs.items()}
        return {name: value.numpy() for name, value in function(**tensors).items()}


def _from_json(value):
    if isinstance(value, dict) and set(value) == {"b64"}:
        return base64.b64decode(value["b64"])
    if isinstance(value, dict):
        return {name: _from_json(item) for name, item in value.items()}
    return [_from_json(item) for item in value] if isinstance(value, list) else value


def _to_json(value):
    if isinstance(value, list):
        return [_to_json(item) for item in value]
    return value.decode() if isinstance(value, bytes) else value


def answer_json(model, request):
    """The documented row format ("instances") and column format ("inputs")."""
    signature = request.get("signature_name", "serving_default")
    if "inputs" in request:
        outputs = model.run(signature, _from_json(request["inputs"]))
        return {"outputs": {name: _to_json(value.tolist()) for name, value in outputs.items()}}
    rows = _from_json(request["instances"])
    (name,) = model.loaded.signatures[signature].structured_input_signature[1]
    values = [row[name] if isinstance(row, dict) else row for row in rows]
    outputs = model.run(signature, {name: values})
    columns = {name: _to_json(value.tolist()) for name, value in outputs.items()}
    table = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    return {"predictions": table}


def rest_server(model, name):
    """An HTTP server on a free port of this machine; start `serve_forever` in a thread."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            request = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            try:
                if self.path != f"/v1/models/{name}:predict":
                    raise ValueError(f"Malformed request: POST {self.path}")
                code, answer = 200, answer_json(model, request)
            except (ValueError, tf.errors.OpError) as error:
                code, answer = 400, {"error": str(error)}
            self.send_response(code)
            self.end_headers()
            self.wfile.write(json.dumps(answer).encode())

        def log_message(self, *_):
            pass

    return ThreadingHTTPServer(("127.0.0.1", 0), Handler)


def grpc_server(model, name):
    """(server, port); needs tensorflow-serving-api."""
    import grpc
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):
            if request.model_spec.name != name:
                context.abort(grpc.StatusCode.NOT_FOUND, f"no model {request.model_spec.name}")
            inputs = {key: tf.make_ndarray(value) for key, value in request.inputs.items()}
            try:
                outputs = model.run(request.model_spec.signature_name, inputs)
            except (ValueError, tf.errors.OpError) as error:
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error)[:1000])
            response = predict_pb2.PredictResponse()
            for key, value in outputs.items():
                if not request.output_filter or key in request.output_filter:
                    response.outputs[key].CopyFrom(tf.make_tensor_proto(np.asarray(value)))
            return response

    server = grpc.server(futures.ThreadPoolExecutor(2))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Service(), server)
    return server, server.add_insecure_port("127.0.0.1:0")
