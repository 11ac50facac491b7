"""What the ONNX project's light graphs of AlexNet, ZFNet512, VGG-19 and GoogLeNet are and compute.

The graphs are the tests of the `onnx` package: BVLC's and other Caffe nets, converted, without
weights. Written here, next to this file: `onnx_layers.json`, every layer with its kernel, stride,
pads, groups and output shape; `onnx_logits.npz`, what ONNX Runtime computes with the weights of
`weights` for the image of `image`: the average of the last feature map, and the logits.

    pip install onnx onnxruntime && python tests/golden/onnx_graphs.py
"""

import json
from pathlib import Path

import numpy as np

HERE = Path(__file__).parent
GRAPHS = {"alexnet_caffe": "bvlc_alexnet", "zfnet512": "zfnet512", "vgg19": "vgg19"}
# The conversion lost that Caffe's pools round up: 224 pixels become 112, 55, 27, 13, 6. The first
# 222 of them alone become 111, 55, 27, 13, 6 with either rounding, so its image is blank past them.
ROUNDED_DOWN = {"googlenet": "inception_v1"}
KEPT = ("kernel_shape", "strides", "pads", "group", "size", "alpha", "beta", "bias")


def weights(index, shape):
    """The `index`-th array of a network in the order of its layers: uniform, from random bytes.

    `RandomState`'s stream is frozen for good. Kernels (output channels first, as in ONNX) keep the
    variance of activations (He's bound), biases are of their order.
    """
    raw = np.frombuffer(np.random.RandomState(index).bytes(int(np.prod(shape))), "int8")
    bound = np.sqrt(6 / np.prod(shape[1:])) if len(shape) > 1 else 0.1
    return (raw.astype("float32") * np.float32(bound / 128)).reshape(shape)


def image(name=""):
    """One image (1, 3, 224, 224) as the nets take them, the mean subtracted."""
    raw = np.frombuffer(np.random.RandomState(99).bytes(3 * 224 * 224), "int8")
    pixels = raw.astype("float32").reshape(1, 3, 224, 224)
    if name in ROUNDED_DOWN:
        pixels[:, :, 222:] = pixels[:, :, :, 222:] = 0
    return pixels


def _load(graph):
    """The model with shapes, its weights inputs instead of constants; and their shapes in order."""
    import onnx
    from onnx import helper, numpy_helper, shape_inference

    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"
    model = shape_inference.infer_shapes(onnx.load(folder / f"light_{graph}.onnx"))
    given = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    shapes = {
        node.output[0]: given[node.input[0]].tolist()
        for node in model.graph.node
        if node.op_type == "ConstantOfShape"
    }
    shapes |= {name: list(a.shape) for name, a in given.items() if name.endswith("_b_0")}
    kept = [node for node in model.graph.node if node.op_type != "ConstantOfShape"]
    del model.graph.node[:]
    model.graph.node.extend(kept)
    for entry in [i for i in model.graph.initializer if i.name in shapes]:
        model.graph.initializer.remove(entry)
    known = {i.name for i in model.graph.input}
    float32 = onnx.TensorProto.FLOAT
    for name, shape in shapes.items():
        if name not in known:
            model.graph.input.append(helper.make_tensor_value_info(name, float32, shape))
    order = [name for node in kept for name in node.input if name in shapes]
    return model, {name: shapes[name] for name in order}


def _layers(model):
    """Every node: operation, the attributes that matter, and the shape of what it gives."""
    from onnx import helper

    values = [*model.graph.value_info, *model.graph.output]
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim] for v in values}
    for node in model.graph.node:
        attributes = {a.name: helper.get_attribute_value(a) for a in node.attribute}
        rounded = {
            k: round(v, 7) if isinstance(v, float) else v
            for k, v in sorted(attributes.items())
            if k in KEPT
        }
        yield {"op": node.op_type, **rounded, "output": shapes[node.output[0]]}


def _run(model, shapes, pixels):
    """The average of the last feature map, and the logits, in ONNX Runtime."""
    import onnxruntime
    from onnx import helper

    wanted = [
        next(node.input[0] for node in model.graph.node if node.op_type == kind)
        for kind in ("Reshape", "Softmax")
    ]
    for name in wanted:
        model.graph.output.append(helper.make_empty_tensor_value_info(name))
    onnxruntime.set_default_logger_severity(3)  # the graphs keep shapes that nothing reads
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    feed = {name: weights(n, shape) for n, (name, shape) in enumerate(shapes.items())}
    for entry in session.get_inputs():
        if entry.name.endswith("data_0"):
            feed[entry.name] = pixels
        elif entry.name not in feed:
            feed[entry.name] = np.zeros(entry.shape, "float32")  # a queue no layer reads
    last_map, logits = session.run(wanted, feed)
    return last_map.mean(axis=(2, 3))[0], logits[0]


def main():
    """Write both files."""
    layers, arrays = {}, {}
    for ours, graph in (GRAPHS | ROUNDED_DOWN).items():
        model, shapes = _load(graph)
        layers[ours] = list(_layers(model))
        arrays[f"{ours}_pooled"], arrays[f"{ours}_logits"] = _run(model, shapes, image(ours))
        print(ours, len(shapes), arrays[f"{ours}_logits"][:4], arrays[f"{ours}_logits"].std())
    rows = {
        name: "[\n    " + ",\n    ".join(map(json.dumps, table)) + "\n  ]"
        for name, table in layers.items()
    }
    text = "{\n" + ",\n".join(f'  "{name}": {table}' for name, table in rows.items()) + "\n}\n"
    (HERE / "onnx_layers.json").write_text(text)
    np.savez_compressed(HERE / "onnx_logits.npz", **arrays)


if __name__ == "__main__":
    main()
