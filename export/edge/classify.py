"""Classify pictures with a .tflite file. Needs ai-edge-litert, numpy and pillow, nothing else.

python classify.py MODEL.tflite PICTURE...      (for files that take RGB or grey 0...255)

The manifest.json beside the file says how a picture is cropped. Without it, the picture is scaled
to cover the model's size and its middle is cut out.
"""

import json
import sys
import zipfile
from pathlib import Path

import numpy as np
from ai_edge_litert.interpreter import Interpreter
from PIL import Image, ImageOps

KINDS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF")  # Pillow runs a program to open others
COVER = {"resize": 1, "size": 1, "interpolation": "bilinear"}  # just the model's size


def read_labels(model: Path) -> list[str]:
    """Read the class names from the labels.txt beside the file, or else from inside the file."""
    names, beside = [], model.parent / "labels.txt"
    if beside.exists():
        names = beside.read_text(encoding="utf-8").splitlines()
    elif zipfile.is_zipfile(model):
        with zipfile.ZipFile(model) as archive:
            names = archive.read("labels.txt").decode().splitlines()
    return [f"not {names[0]}", *names] if len(names) == 1 else names


def read_manifest(model: Path, part: str) -> dict:
    """Read the "input" or "output" of the manifest beside the file; {} without a manifest."""
    beside = model.parent / "manifest.json"
    return json.loads(beside.read_text(encoding="utf-8"))[part] if beside.exists() else {}


def read_crop(model: Path) -> dict:
    """Read the crop from the manifest; exit if the model does not take pixels 0...255."""
    taken = read_manifest(model, "input")
    if not taken.get("raw_pixels", True):
        reason = "its manifest.json says that it does not normalise its input"
        sys.exit(f"{model} does not take pixels 0...255: {reason}. Export it with --preprocessing.")
    return taken.get("crop") or COVER


def cut(picture: Image.Image, width: int, height: int, crop: dict) -> Image.Image:
    """Scale a picture to cover the model's size and cut out the middle, in whole pixels."""
    columns, rows = picture.size
    if (columns, rows) == (width, height):
        return picture  # it is already cropped
    if max(columns, rows) >= 100 * min(columns, rows):
        raise ValueError(
            f"it has {columns} by {rows} pixels; one side must be less than 100 times the other"
        )
    size = crop["size"] or min(width, height)
    wide, high = (round(crop["resize"] * side / size) for side in (width, height))
    columns, rows = max(wide, columns * high // rows), max(high, rows * wide // columns)
    left, top = round((columns - width) / 2), round((rows - height) / 2)
    kind = Image.Resampling[crop["interpolation"].upper()]
    picture = picture.resize((columns, picture.height), kind)  # Pillow 13 begins with the rows of
    picture = picture.resize((columns, rows), kind)  # some tall pictures; training did not
    return picture.crop((left, top, left + width, top + height))


def read_picture(path: str, shape: tuple[int, ...], crop: dict) -> np.ndarray:
    """Turn a picture upright and cut it for a model of `shape` (height, width, channels)."""
    height, width, channels = shape
    picture = ImageOps.exif_transpose(Image.open(path, formats=KINDS))
    if picture.mode in ("I", "F"):
        raise ValueError("it has 32 bits a pixel; save it with 8 or 16")
    if picture.mode.startswith("I"):  # 16 bits
        picture = Image.fromarray((np.asarray(picture) >> 8).astype("uint8"))
    picture = cut(picture.convert("RGB"), width, height, crop)
    return np.asarray(picture.convert("RGB" if channels == 3 else "L")).reshape(1, *shape)


def classify(interpreter: Interpreter, pixels: np.ndarray) -> np.ndarray:
    """Return a score for each class, from pixels 0...255 (1, height, width, channels)."""
    (image,), (scores,) = interpreter.get_input_details(), interpreter.get_output_details()
    scale, zero = image["quantization"]  # 0 in files that take floats
    steps = np.round(pixels / scale) + zero if scale else pixels
    interpreter.set_tensor(image["index"], steps.astype(image["dtype"]))
    interpreter.invoke()
    found = interpreter.get_tensor(scores["index"])[0].astype("float32")
    scale, zero = scores["quantization"]
    return (found - zero) * scale if scale else found


def probabilities(scores: np.ndarray, activation: str) -> np.ndarray:
    """Turn the file's scores into a probability for each class; one score means two classes."""
    if len(scores) == 1:
        positive = 1 / (1 + np.exp(-scores)) if activation == "linear" else scores
        return np.concatenate([1 - positive, positive])
    if activation != "linear":
        return scores
    exponentials = np.exp(scores - scores.max())
    return exponentials / exponentials.sum()


def main(model: str, *pictures: str) -> int:
    """Print the five best classes of each picture; return 1 if any picture cannot be read."""
    crop, labels = read_crop(Path(model)), read_labels(Path(model))
    activation = read_manifest(Path(model), "output").get("activation", "")
    interpreter, failed = Interpreter(model), 0
    interpreter.allocate_tensors()
    if not activation and interpreter.get_output_details()[0]["shape"][-1] == 1:
        sys.exit(
            f"{model} has one output. Put the manifest.json of its export beside it, "
            "which says what the output means."
        )
    shape = tuple(int(side) for side in interpreter.get_input_details()[0]["shape"][1:])
    for path in pictures:
        try:
            pixels = read_picture(path, shape, crop)
        except Exception as error:  # damaged files make Pillow raise many kinds of errors
            print(f"Cannot read {path}: {error}", file=sys.stderr)
            failed = 1
            continue
        scores = probabilities(classify(interpreter, pixels), activation)
        for best in np.argsort(-scores, kind="stable")[:5]:
            print(f"{path}\t{scores[best]:.4f}\t{labels[best] if labels else best}")
    return failed


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
