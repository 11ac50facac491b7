"""int8 TFLite → a folder with a static page that runs the model in the browser, with LiteRT.js.

The page (`web/`) and the runtime (`litert_js`) are copied, and `model.json` describes the model to
them. The model is the int8 file with uint8 input and output, because LiteRT.js refuses int8 there.
It is faster than the float32 file and a quarter of the download.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_resnet.errors import UserError
from keras_resnet.export.formats import litert_js
from keras_resnet.export.runtimes import tflite_graph
from keras_resnet.export.runtimes.locate import DESCRIPTION, MODEL, PAGE
from keras_resnet.images.answers import numbered

if TYPE_CHECKING:  # `serving` imports TensorFlow, which running a page's model does not need
    from keras_resnet.export.formats.serving import Service
    from keras_resnet.images.crop import SingleCrop


def write(
    folder: Path,
    data: bytes,
    name: str,
    labels: Sequence[str] | None,
    service: Service,
) -> None:
    """Write the folder of a page that classifies with a TFLite file.

    Args:
        folder: the folder to create.
        data: the TFLite file: batch 1, uint8 input and output.
        name: the title of the page.
        labels: the class names; None for "class 0", ...
        service: the crop of a picture and the rules for reading the outputs.

    Raises:
        UserError: the model does not take pixels 0...255, or LiteRT.js is not found; see
            `litert_js.node_modules`.
    """
    about = _describe(data, name, labels, service)
    shutil.copytree(PAGE, folder)
    litert_js.copy_to(folder / "litert")
    (folder / MODEL).write_bytes(data)
    heavy = [folder / MODEL, *sorted((folder / "litert").glob("*.wasm"))]
    about["bytes"] = {path.relative_to(folder).as_posix(): path.stat().st_size for path in heavy}
    text = json.dumps(about, indent=2, ensure_ascii=False)
    (folder / DESCRIPTION).write_text(text + "\n", encoding="utf-8")


def _describe(
    data: bytes, name: str, labels: Sequence[str] | None, service: Service
) -> dict[str, Any]:
    graph = tflite_graph.read(data).subgraphs[0]
    image, scores = graph.tensors[graph.inputs[0]], graph.tensors[graph.outputs[0]]
    about = {"input": _steps(image), "output": _steps(scores)}
    _require_pixels(**about["input"])
    about["output"]["activation"] = service.answers.activation
    names = list(numbered(labels, service.answers.classes))
    _, height, width, _ = image.shape
    resize = _resize((height, width), service.crop)
    return {"name": name, "labels": names, **about, "resize": resize}


def _resize(shape: tuple[int, int], crop: SingleCrop | None) -> dict[str, Any]:
    """Return the size that the page's resized picture must cover before it crops `shape` from it.

    `shape` is (height, width).
    """
    height, width = shape if crop is None else crop.covers(shape)
    interpolation = "bilinear" if crop is None else crop.interpolation
    return {"width": int(width), "height": int(height), "interpolation": interpolation}


def _steps(tensor: Any) -> dict[str, Any]:
    """Return the scale and zero point of a tensor: value = scale × (byte - zero_point)."""
    scale, zero_point = tensor.quantization.scale, tensor.quantization.zeroPoint
    return {"scale": float(scale[0]), "zero_point": int(zero_point[0])}


def _require_pixels(scale: float, zero_point: int) -> None:
    low, high = (scale * (byte - zero_point) for byte in (0, 255))
    if low < -1 or not 254 <= high <= 256:  # tolerate small deviations from 0...255
        raise UserError(
            f"The format web needs a model that takes RGB 0…255; received one that takes {low:.3g} "
            f"to {high:.3g}. Put its normalisation inside, e.g. preprocessing='tf' "
            "(--preprocessing tf), and give calibration images as uint8."
        )
