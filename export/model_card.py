"""The README.md of an export folder: it describes the files and shows how to run each one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from keras_resnet.display.console import number, verdict
from keras_resnet.export.formats.table import FORMATS
from keras_resnet.export.formats.usage import Usage, answers_of
from keras_resnet.images.answers import LINEAR, numbered
from keras_resnet.images.crop import SingleCrop


def card(content: Mapping[str, Any]) -> str:
    """Return the model card of a manifest's `content`, as Markdown."""
    parts = (_title(content), _files(content), _input(content), _usage(content), _origin(content))
    return "\n\n".join(part for part in parts if part) + "\n"


def _title(content: Mapping[str, Any]) -> str:
    passed = "passed" if content["passed"] else "**did not all pass**"
    return (
        f"# {content['model']}\n\n"
        f"An image classifier with {content['classes']} classes, exported by keras_resnet on "
        f"{content['created'][:10]}. Its files {passed} the comparison with the Keras model they "
        "were made from. `manifest.json` lists every figure, hash and version."
    )


def _files(content: Mapping[str, Any]) -> str:
    check = content["check"]
    rows = [
        f"| `{item['file']}` | {item['bytes']:,} | {item['bytes_gzipped']:,} "
        f"| {number(item['accuracy'], '.2%')} | {number(item['agreement'], '.2%')} "
        f"| {number(item['latency_ms'], '.3f')} | {verdict(item)} |"
        for item in content["files"]
    ]
    lines = [
        "## Files",
        "",
        "| file | bytes | gzipped | accuracy | agreement | ms | check |",
        "|---|---|---|---|---|---|---|",
        *rows,
        "",
        f"Measured on {check['n']:,} images ({check['images']}). The Keras model's accuracy on "
        f"them is {number(check['keras_accuracy'], '.2%')}. {_agreement(content)} *ms*: the median "
        f"for one image, on one thread (TensorFlow: on all), on {content['machine']}.",
    ]
    return "\n".join(lines)


def _agreement(content: Mapping[str, Any]) -> str:
    if answers_of(content).independent:
        return (
            "*Accuracy* and *agreement* count every class of every image: *accuracy* against the "
            "labels, *agreement* against the Keras model's answer."
        )
    return "*Agreement*: how often a file names the same class as the Keras model."


def _output(content: Mapping[str, Any]) -> str:
    answers, names = answers_of(content), numbered(content["labels"], content["classes"])
    if answers.binary and answers.activation == LINEAR:
        return f"one logit. Above 0 the answer is `{names[1]}`, else `{names[0]}`."
    if answers.binary:
        return (
            f"one number, the probability of `{names[1]}`. Above 1/2 the answer is `{names[1]}`, "
            f"else `{names[0]}`."
        )
    if answers.independent:
        return (
            f"a probability for each of the {answers.classes} classes. Every class above 1/2 is in "
            "the picture: several, one or none."
        )
    return f"{content['output']['is']} of the {answers.classes} classes."


def _input(content: Mapping[str, Any]) -> str:
    taken, labels = content["input"], content["labels"]
    height, width, _ = taken["shape"]
    pixels = (
        "Give pixels as they are, 0…255: the normalisation is inside the files. "
        f"{_cut_in_words(taken)}"
        if taken["raw_pixels"]
        else f"Values lie in {taken['range'][0]:g}…{taken['range'][1]:g}: **the normalisation is "
        "not inside the files**, so prepare images as for the Keras model."
    )
    names = "`labels.txt` has the class names, one per line, in the order of the classes."
    return (
        f"## Input and output\n\n`{taken['name']}`: {height}×{width} pixels, {taken['color']}, "
        f"(batch, height, width, channels). {pixels} The manifest gives the type of a quantized "
        f"file's input.\n\n`{content['output']['name']}`: {_output(content)} "
        f"{names if labels else 'Class names were not given.'}"
    )


def _cover(taken: Mapping[str, Any]) -> tuple[int, int, str]:
    """Return the height and width that a resized picture must cover, and the filter's name."""
    height, width, _ = taken["shape"]
    if taken["crop"] is None:
        return height, width, "bilinear"
    crop = SingleCrop(**taken["crop"])
    return *crop.covers((height, width)), crop.interpolation


def _cut_in_words(taken: Mapping[str, Any]) -> str:
    height, width, interpolation = _cover(taken)
    return (
        f"A picture of another size is scaled to cover {height}×{width} ({interpolation}, "
        "antialiased), and its middle is cut out. A picture of the right size is used as it is."
    )


# How to run each file ----------------------------------------------------------------------------


def _image_lines(content: Mapping[str, Any]) -> str:
    """Return code that turns a picture into the array `pixels`, as `keras-resnet predict` does."""
    height, width, channels = content["input"]["shape"]
    high, wide, interpolation = _cover(content["input"])
    pixels = "image)[None]" if channels == 3 else 'image.convert("L"))[None, ..., None]'
    return (
        "import numpy as np\nfrom PIL import Image, ImageOps\n\n"
        'image = ImageOps.exif_transpose(Image.open("IMAGE"))\n'
        'if image.mode.startswith("I;16"):  # 16 bits a pixel\n'
        '    image = Image.fromarray((np.asarray(image) >> 8).astype("uint8"))\n'
        'image = image.convert("RGB")\n'
        "w, h = image.size\n"
        f"if (w, h) != ({width}, {height}):  # else it is already cropped\n"
        f"    w, h = max({wide}, w * {high} // h), max({high}, h * {wide} // w)\n"
        f"    left, top = round((w - {width}) / 2), round((h - {height}) / 2)\n"
        f"    image = image.resize((w, h), Image.Resampling.{interpolation.upper()})\n"
        f"    image = image.crop((left, top, left + {width}, top + {height}))\n"
        f"pixels = np.asarray({pixels}"
    )


def _usage(content: Mapping[str, Any]) -> str:
    """Return the section that runs one file of each kind; "" if pixels need normalisation."""
    if not content["input"]["raw_pixels"] or content["input"]["shape"][2] not in (1, 3):
        return ""
    files: dict[Usage, str] = {}  # the first file of each kind that passed
    for entry in content["files"]:
        if entry["passed"]:
            files.setdefault(FORMATS[entry["format"]].usage, entry["file"])
    takes_pixels = any(usage.takes_pixels for usage in files)
    parts = [_python(_image_lines(content))] if takes_pixels else []
    for usage, file in files.items():
        if usage.code is not None:
            parts.append(_python(usage.code(content, file)))
        if usage.words:
            parts.append(usage.words.format(file=file))
    return "## Run it\n\n" + "\n\n".join(parts) if files else ""


def _python(code: str) -> str:
    return f"```python\n{code}\n```"


# Where it comes from -----------------------------------------------------------------------------


def _origin(content: Mapping[str, Any]) -> str:
    origin = {name: value for name, value in content["origin"].items() if value is not None}
    about = content["about"] or {}
    given = {name: text for name, text in about.items() if text and text not in origin.values()}
    lines = [f"- {name}: {value}" for name, value in (origin | given).items()]
    if not lines:
        return ""
    if not {"licence of the weights", "license"} & set(origin | given):
        lines.append("- licence of the weights: not stated (set it: `export --about license=…`)")
    return "\n".join(["## Where it comes from", "", *lines])
