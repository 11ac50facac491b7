"""The README.md of an export folder: what the files are and how to run each, for people."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from keras_resnet.console import number
from keras_resnet.export import serving


def card(content: Mapping[str, Any]) -> str:
    """Return the model card of a manifest's `content`, as Markdown."""
    parts = (_title(content), _files(content), _input(content), _usage(content), _origin(content))
    return "\n\n".join(part for part in parts if part) + "\n"


def _title(content: Mapping[str, Any]) -> str:
    passed = "passed" if content["passed"] else "**did not all pass**"
    return (
        f"# {content['model']}\n\n"
        f"An image classifier of {content['classes']} classes, exported by keras_resnet on "
        f"{content['created'][:10]}. Its files {passed} the comparison with the Keras model they "
        "were made from; `manifest.json` has every figure, hash and version."
    )


def _files(content: Mapping[str, Any]) -> str:
    check = content["check"]
    rows = [
        f"| `{item['file']}` | {item['bytes']:,} | {item['bytes_gzipped']:,} "
        f"| {number(item['accuracy'], '.2%')} | {number(item['agreement'], '.2%')} "
        f"| {number(item['latency_ms'], '.3f')} | {'passed' if item['passed'] else 'FAILED'} |"
        for item in content["files"]
    ]
    lines = [
        "## Files",
        "",
        "| file | bytes | gzipped | accuracy | agreement | ms | check |",
        "|---|---|---|---|---|---|---|",
        *rows,
        "",
        f"On {check['n']:,} images ({check['images']}), where the Keras model's accuracy is "
        f"{number(check['keras_accuracy'], '.2%')}. *Agreement*: how often a file names the same "
        "class as the Keras model. *ms*: the median for one image, on one thread (TensorFlow: on "
        f"all), on {content['machine']}.",
    ]
    return "\n".join(lines)


def _input(content: Mapping[str, Any]) -> str:
    taken, labels = content["input"], content["labels"]
    height, width, _ = taken["shape"]
    pixels = (
        "Pixels go in as they are, 0…255: the normalisation is inside the files."
        if taken["raw_pixels"]
        else f"Values lie in {taken['range'][0]:g}…{taken['range'][1]:g}: **the normalisation is "
        "not inside the files**, so prepare images as for the Keras model."
    )
    names = "`labels.txt` has the class names, one a line, in the order of the outputs."
    return (
        f"## Input and output\n\n`{taken['name']}`: {height}×{width} pixels, {taken['color']}, "
        f"(batch, height, width, channels). {pixels} A quantized file's own type is in its row of "
        f"the manifest.\n\n`{content['output']['name']}`: {content['output']['is']} of the "
        f"{content['classes']} classes. {names if labels else 'Class names were not given.'}"
    )


# How each is run ---------------------------------------------------------------------------------


def _image_lines(content: Mapping[str, Any]) -> str:
    height, width, channels = content["input"]["shape"]
    mode = "RGB" if channels == 3 else "L"
    grey = "" if channels == 3 else "[..., None]"
    return (
        "import numpy as np\nfrom PIL import Image\n\n"
        f'image = Image.open("IMAGE").convert("{mode}").resize(({width}, {height}))\n'
        f"pixels = np.asarray(image)[None]{grey}"
    )


def _saved_model(content: Mapping[str, Any], file: str) -> str:
    names = content["input"]["name"], content["output"]["name"]
    return (
        "import tensorflow as tf\n\n"
        f'model = tf.saved_model.load("{file}/{serving.VERSION}")\n'
        f'answer = model.signatures["serving_default"]({names[0]}=tf.constant(pixels))\n'
        f'print(answer["{names[1]}"].numpy().argmax())'
    )


def _tflite(content: Mapping[str, Any], file: str) -> str:
    return (
        "from ai_edge_litert.interpreter import Interpreter\n\n"
        f'model = Interpreter("{file}")\n'
        "model.allocate_tensors()\n"
        "taken, given = model.get_input_details()[0], model.get_output_details()[0]\n"
        'offset = -128 if taken["dtype"] == np.int8 else 0\n'
        'model.set_tensor(taken["index"], (pixels + np.int16(offset)).astype(taken["dtype"]))\n'
        "model.invoke()\n"
        'print(model.get_tensor(given["index"]).argmax())'
    )


def _onnx(content: Mapping[str, Any], file: str) -> str:
    taken = content["input"]["name"]
    return (
        "from onnxruntime import InferenceSession\n\n"
        f'model = InferenceSession("{file}", providers=["CPUExecutionProvider"])\n'
        f'print(model.run(None, {{"{taken}": pixels.astype("float32")}})[0].argmax())'
    )


def _openvino(content: Mapping[str, Any], file: str) -> str:
    return (
        "import openvino\n\n"
        'exact = {"INFERENCE_PRECISION_HINT": "f32"}  # its default is bfloat16\n'
        f'model = openvino.compile_model("{file}/{content["model"]}.xml", "CPU", exact)\n'
        'print(model(pixels.astype("float32"))[0].argmax())'
    )


# By how the format's name begins.
_USAGE: dict[str, Callable[[Mapping[str, Any], str], str]] = {
    "savedmodel": _saved_model,
    "tflite": _tflite,
    "onnx": _onnx,
    "openvino": _openvino,
}
_IN_WORDS = {
    "tflite": "Or, with nothing but ai-edge-litert, numpy and pillow: `python classify.py {file} "
    "IMAGE`.",
    "micro": "`{file}` is C++ for a microcontroller; its README.md says how it is built.",
    "web": "`{file}` is a page for browsers: `python -m http.server -d {file}`, then open "
    "<http://localhost:8000>.",
}


def _usage(content: Mapping[str, Any]) -> str:
    """How one file of each kind is run; only where pixels go in as they are."""
    if not content["input"]["raw_pixels"]:
        return ""
    passed = {
        x["format"].partition("-")[0]: x["file"] for x in reversed(content["files"]) if x["passed"]
    }
    parts = [_python(_image_lines(content))] if _USAGE.keys() & passed.keys() else []
    for kind, file in reversed(passed.items()):
        if kind in _USAGE:
            parts.append(_python(_USAGE[kind](content, file)))
        if kind in _IN_WORDS:
            parts.append(_IN_WORDS[kind].format(file=file))
    return "## Run it\n\n" + "\n\n".join(parts) if passed else ""


def _python(code: str) -> str:
    return f"```python\n{code}\n```"


# Where it comes from -----------------------------------------------------------------------------


def _origin(content: Mapping[str, Any]) -> str:
    origin = content["origin"]
    lines = [f"- {name}: {value}" for name, value in origin.items() if value is not None]
    if not lines:
        return ""
    return "\n".join(["## Where it comes from", "", *lines])
