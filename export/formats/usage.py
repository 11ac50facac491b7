"""The code and the sentences of the model card that show how to run each kind of file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from keras_resnet.export.formats.serving import BYTES, VERSION
from keras_resnet.images.answers import LINEAR, Answers


@dataclass(frozen=True)
class Usage:
    """The instructions for running the files of a format.

    Attributes:
        code: a function from a manifest's content and the file's name to Python code that runs the
            file; None if Python does not run it.
        takes_pixels: True if that code reads the array `pixels` of a picture.
        words: instructions in words, with `{file}` for the file's name.
    """

    code: Callable[[Mapping[str, Any], str], str] | None = None
    takes_pixels: bool = False
    words: str = ""


def answers_of(content: Mapping[str, Any]) -> Answers:
    """Return the rules for reading the outputs that a manifest's `content` describes."""
    return Answers(content["output"]["activation"], content["output"]["size"])


def _printed(content: Mapping[str, Any], scores: str, *to_numbers: str) -> str:
    """Return the lines of code that print the answer.

    `scores` is an expression for the file's output for one image. `to_numbers` are the lines that
    turn a quantized output into probabilities or logits; the highest class does not need them.
    """
    answers = answers_of(content)
    if answers.binary:
        threshold = 0 if answers.activation == LINEAR else 0.5
        answer = f"print(int(scores[0, 0] > {threshold}))  # the class: 0 or 1"
    elif answers.independent:
        answer = "print((scores[0] > 0.5).nonzero()[0])  # all classes in the image"
    else:
        return f"print({scores}.argmax())"
    return "\n".join([f"scores = {scores}", *to_numbers, answer])


def _saved_model(content: Mapping[str, Any], file: str) -> str:
    return (
        "import tensorflow as tf\n\n"
        f'model = tf.saved_model.load("{file}/{VERSION}")\n'
        'image = tf.constant([open("IMAGE", "rb").read()])  # JPEG or PNG; the model crops it\n'
        f'answer = model.signatures["{BYTES}"]({BYTES}=image)\n'
        + _printed(content, f'answer["{content["output"]["name"]}"].numpy()')
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
        + _printed(
            content,
            'model.get_tensor(given["index"])',
            'scale, zero = given["quantization"]',
            "scores = (scores - float(zero)) * scale if scale else scores",
        )
    )


def _onnx(content: Mapping[str, Any], file: str) -> str:
    taken = content["input"]["name"]
    return (
        "from onnxruntime import InferenceSession\n\n"
        f'model = InferenceSession("{file}", providers=["CPUExecutionProvider"])\n'
        + _printed(content, f'model.run(None, {{"{taken}": pixels.astype("float32")}})[0]')
    )


def _openvino(content: Mapping[str, Any], file: str) -> str:
    return (
        "import openvino\n\n"
        'exact = {"INFERENCE_PRECISION_HINT": "f32"}  # the default may be bfloat16\n'
        f'model = openvino.compile_model("{file}/{content["model"]}.xml", "CPU", exact)\n'
        + _printed(content, 'model(pixels.astype("float32"))[0]')
    )


SAVED_MODEL = Usage(_saved_model)
TFLITE = Usage(
    _tflite,
    takes_pixels=True,
    words="A command does the same with ai-edge-litert, numpy and pillow only: `python classify.py "
    "{file} IMAGE`.\n\nMediaPipe's `ImageClassifier` squashes an image to the input size, so it "
    "may name another class. Crop the image first with the lines above, then give `image` to "
    "MediaPipe: `mp.Image(image_format=mp.ImageFormat.SRGB, data=np.asarray(image))`.",
)
ONNX = Usage(_onnx, takes_pixels=True)
OPENVINO = Usage(_openvino, takes_pixels=True)
MICRO = Usage(words="`{file}` is C++ for a microcontroller. Its README.md shows how to build it.")
WEB = Usage(
    words="`{file}` is a web page. Run `python -m http.server -d {file}`, then open "
    "<http://localhost:8000>."
)
