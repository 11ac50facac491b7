"""Ask a model's folder over gRPC with TensorFlow Serving's official stubs.

    python tests/helpers/grpc_client.py FOLDER NAME IMAGE BAD

It prints one JSON object. It runs in a process of its own, with tensorflow-serving-api on the path;
tests do not import it.
"""

import json
import sys
from pathlib import Path

import grpc
import model_server
import tensorflow as tf
from tensorflow_serving.apis import (
    predict_pb2,
    prediction_log_pb2,
    prediction_service_pb2_grpc,
)

folder, name, image, bad = sys.argv[1:]
model = model_server.Model(folder)
server, port = model_server.grpc_server(model, name)
server.start()
stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(f"127.0.0.1:{port}"))


def ask(paths, outputs):
    request = predict_pb2.PredictRequest()
    request.model_spec.name = name
    request.model_spec.signature_name = "image_bytes"
    files = [Path(path).read_bytes() for path in paths]
    request.inputs["image_bytes"].CopyFrom(tf.make_tensor_proto(files))
    request.output_filter.extend(outputs)
    response = stub.Predict(request, timeout=60)
    return {key: tf.make_ndarray(value) for key, value in response.outputs.items()}


def refused(paths):
    try:
        ask(paths, ["scores"])
    except grpc.RpcError as error:
        return {"code": error.code().name, "details": error.details()}
    return None


def warm_up():
    path = f"{folder}/{model.version}/assets.extra/tf_serving_warmup_requests"
    done = []
    for record in tf.data.TFRecordDataset(path):
        log = prediction_log_pb2.PredictionLog.FromString(record.numpy())
        request = log.predict_log.request
        response = stub.Predict(request, timeout=60)
        done.append([request.model_spec.signature_name, sorted(response.outputs)])
    return done


answers = ask([image, image], ["classes", "scores"])
print(
    json.dumps(
        {
            "warm_up": warm_up(),
            "classes": [[item.decode() for item in row] for row in answers["classes"]],
            "scores": answers["scores"].tolist(),
            "refused": refused([image, bad]),
            "after": sorted(ask([image], ["scores"])),
        }
    )
)
server.stop(0)
