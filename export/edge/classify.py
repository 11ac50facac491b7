"""Classify pictures with a .tflite file. Needs ai-edge-litert, numpy and pillow, nothing else.

python classify.py MODEL.tflite PICTURE...      (files that take RGB or grey 0...255)
"""

import sys
import zipfile
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image, ImageOps


def read_labels(model: Path) -> list[str]:
    """Read the class names inside the file; else those in the labels.txt beside it, if any."""
    if zipfile.is_zipfile(model):
        with zipfile.ZipFile(model) as archive:
            return archive.read("labels.txt").decode().splitlines()
    beside = model.parent / "labels.txt"
    return beside.read_text(encoding="utf-8").splitlines() if beside.exists() else []


def read_picture(path: str, height: int, width: int, channels: int) -> np.ndarray:
    """Turn a picture upright, fit it to the model's size and cut out the middle."""
    picture = ImageOps.exif_transpose(Image.open(path))
    if picture.mode.startswith("I"):  # 16 bits
        picture = Image.fromarray((np.asarray(picture) >> 8).astype("uint8"))
    picture = picture.convert("RGB" if channels == 3 else "L")
    fitted = ImageOps.fit(picture, (width, height), method=Image.Resampling.BILINEAR)
    return np.asarray(fitted).reshape(1, height, width, channels)


def classify(interpreter: Interpreter, pixels: np.ndarray) -> np.ndarray:
    """Pixels 0...255 (1, height, width, channels) -> a score for each class."""
    (image,), (scores,) = interpreter.get_input_details(), interpreter.get_output_details()
    scale, zero = image["quantization"]  # 0 in files that take floats
    steps = np.round(pixels / scale) + zero if scale else pixels
    interpreter.set_tensor(image["index"], steps.astype(image["dtype"]))
    interpreter.invoke()
    found = interpreter.get_tensor(scores["index"])[0].astype("float32")
    scale, zero = scores["quantization"]
    return (found - zero) * scale if scale else found


def main(model: str, *pictures: str) -> None:
    """Print the five best classes of each picture."""
    interpreter, labels = Interpreter(model), read_labels(Path(model))
    interpreter.allocate_tensors()
    for path in pictures:
        pixels = read_picture(path, *interpreter.get_input_details()[0]["shape"][1:])
        scores = classify(interpreter, pixels)
        for best in np.argsort(-scores, kind="stable")[:5]:
            print(f"{path}\t{scores[best]:.4f}\t{labels[best] if labels else best}")


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(*sys.argv[1:])
