"""int8 TFLite → a folder with a static page that runs it in the browser, through LiteRT.js.

The page (`web/`) and the runtime (`litert_js`) are copied; `model.json` tells them of the model.
The file is the int8 one with bytes in and out, a quarter of the float32 one to fetch and faster;
LiteRT.js refuses int8 in and out.
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

if TYPE_CHECKING:  # it imports TensorFlow, which a process that runs a page's model does without
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
        folder: to be made.
        data: the file: batch 1, uint8 in and out.
        name: the title of the page.
        labels: the class names; numbers where there are none.
        service: how a picture is cut for the model, and how its outputs are read.

    Raises:
        UserError: the model does not take pixels 0...255, or see `litert_js.node_modules`.
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
    """What the page resizes a picture to cover before it cuts `shape` (height, width) out of it."""
    height, width = shape if crop is None else crop.covers(shape)
    interpolation = "bilinear" if crop is None else crop.interpolation
    return {"width": int(width), "height": int(height), "interpolation": interpolation}


def _steps(tensor: Any) -> dict[str, Any]:
    """value = scale × (byte - zero_point)."""
    scale, zero_point = tensor.quantization.scale, tensor.quantization.zeroPoint
    return {"scale": float(scale[0]), "zero_point": int(zero_point[0])}


def _require_pixels(scale: float, zero_point: int) -> None:
    low, high = (scale * (byte - zero_point) for byte in (0, 255))
    if low < -1 or not 254 <= high <= 256:  # as good as 0...255
        raise UserError(
            f"The page of the format web gives the model RGB 0…255; this one takes {low:.3g} to "
            f"{high:.3g}. Put its normalisation inside, e.g. preprocessing='tf' (--preprocessing "
            "tf), and give calibration images as uint8."
        )
