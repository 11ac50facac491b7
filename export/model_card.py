"""The README.md of an export folder: the files, their check, and how to run each of them.

It begins with the fields that the Hugging Face Hub reads (huggingface.co/docs/hub/model-cards).
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

from keras_resnet.display.console import number, verdict
from keras_resnet.export import check, manifest
from keras_resnet.export.formats.phones import snippets
from keras_resnet.export.formats.table import FORMATS
from keras_resnet.export.formats.usage import Usage, answers_of
from keras_resnet.export.npu.report import in_words
from keras_resnet.images.answers import LINEAR, numbered
from keras_resnet.images.crop import SingleCrop
from keras_resnet.text import code_for_markdown, for_markdown

# The Hub's names of licences; it takes any other as "other" with a name.
_LICENSES = (
    *("apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0"),
    *("cc-by-nc-4.0", "gpl-3.0", "lgpl-3.0", "mpl-2.0", "openrail", "unlicense"),
)


def card(content: Mapping[str, Any]) -> str:
    """Return the model card of a manifest's `content`, as Markdown."""
    parts = (
        _front_matter(content),
        _title(content),
        _files(content),
        _failures(content),
        _npu(content),
        _input(content),
        _usage(content),
        _phones(content),
        _origin(content),
    )
    return "\n\n".join(part for part in parts if part) + "\n"


def _front_matter(content: Mapping[str, Any]) -> str:
    """Return the fields for the Hub, as YAML.

    A value is written as JSON, which YAML includes. Tags and links are escaped, because a program
    that does not know these fields shows them as text.
    """
    fields = {
        "library_name": "keras",
        "pipeline_tag": "image-classification",
        "tags": ["keras-resnet", *dict.fromkeys(x["format"] for x in content["files"])],
        **_license(content),
    }
    if data := _data(content):
        fields["datasets"] = [data]
    if metrics := _metrics(content):
        dataset = {"type": data or "images", "name": content["check"]["images"]}
        result = {"task": {"type": "image-classification"}, "dataset": dataset, "metrics": metrics}
        fields["model-index"] = [{"name": content["model"], "results": [result]}]
    lines = [f"{key}: {json.dumps(value)}" for key, value in fields.items()]
    shown = [re.sub("[<>&`]|(?<=])[(]", lambda x: f"\\u{ord(x[0]):04x}", line) for line in lines]
    return "\n".join(["---", *shown, "---"])


def _license(content: Mapping[str, Any]) -> dict[str, str]:
    about = content["about"] or {}
    named = about.get("license") or content["origin"].get("licence of the weights") or ""
    if not named or named.lower() in _LICENSES:
        return {"license": named.lower()} if named else {}
    return {"license": "other", "license_name": named}


def _data(content: Mapping[str, Any]) -> str:
    """Return the name of the data set that the model was trained on; "" if it is not known."""
    return str(content["origin"].get("trained on") or "")


def _metrics(content: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"type": "accuracy", "name": item["file"], "value": item["accuracy"]}
        for item in content["files"]
        if item["accuracy"] is not None
    ]


def _title(content: Mapping[str, Any]) -> str:
    passed = (
        "Every file was compared with the Keras model and passed this check."
        if content["passed"]
        else "**Not every file passed** the comparison with the Keras model."
    )
    return (
        f"# {for_markdown(content['model'])}\n\n"
        f"An image classifier with {content['classes']} classes, exported by keras_resnet on "
        f"{content['created'][:10]}. {passed} `manifest.json` has all figures, hashes and versions."
    )


def _files(content: Mapping[str, Any]) -> str:
    checked = content["check"]
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
        f"The check used {checked['n']:,} images ({for_markdown(checked['images'])}). "
        f"{_accuracy(checked)} {_agreement(content)} *ms* is the median time for one image on one "
        f"thread (TensorFlow: all threads), on {for_markdown(content['machine'])}.",
    ]
    return "\n".join(lines)


def _accuracy(checked: Mapping[str, Any]) -> str:
    if checked["keras_accuracy"] is None:
        return "They have no labels, so there is no accuracy."
    return f"The accuracy of the Keras model on them is {checked['keras_accuracy']:.2%}."


def _agreement(content: Mapping[str, Any]) -> str:
    if answers_of(content).independent:
        return (
            "*Accuracy* and *agreement* count every class of every image. *Agreement* is the share "
            "of them for which a file gives the same answer as the Keras model."
        )
    return (
        "*Agreement* is the share of images for which a file and the Keras model name the same "
        "class."
    )


def _failures(content: Mapping[str, Any]) -> str:
    """Return what is wrong with the files that failed, and what to try, as `export` prints it."""
    if content["passed"]:
        return ""
    failed = "\n".join(f"- {for_markdown(failure)}" for failure in manifest.failures(content))
    parts = ["## What failed", failed]
    if lines := check.advice(content["files"]):
        parts += [lines[0], "\n".join(lines[1:])]
    return "\n\n".join(parts)


def _npu(content: Mapping[str, Any]) -> str:
    if "npu" not in content:
        return ""
    report = content["npu"]
    told = "\n".join(f"- {for_markdown(line.strip())}" for line in in_words(report))
    if "compiled" not in report:
        return f"## Accelerator\n\n{told}"
    compiled = code_for_markdown(report["compiled"])
    return f"## Accelerator\n\n{told}\n\n{compiled} is the compiled file. No check has run it."


def _output(content: Mapping[str, Any]) -> str:
    answers = answers_of(content)
    names = [*map(code_for_markdown, numbered(content["labels"], content["classes"]))]
    if answers.binary and answers.activation == LINEAR:
        return f"one logit. Above 0 the answer is {names[1]}, otherwise {names[0]}."
    if answers.binary:
        return (
            f"one number, the probability of {names[1]}. Above 1/2 the answer is "
            f"{names[1]}, otherwise {names[0]}."
        )
    if answers.independent:
        return (
            f"a probability for each of the {answers.classes} classes. The answer is every class "
            "above 1/2: several, one or none."
        )
    return f"{content['output']['is']} of the {answers.classes} classes."


def _input(content: Mapping[str, Any]) -> str:
    taken, labels = content["input"], content["labels"]
    height, width, _ = taken["shape"]
    pixels = (
        f"Give pixels from 0 to 255: the normalisation is inside the files. {_cut_in_words(taken)}"
        if taken["raw_pixels"]
        else f"Values range from {taken['range'][0]:g} to {taken['range'][1]:g}: **the "
        "normalisation is not inside the files**. Prepare images as for the Keras model."
    )
    names = "`labels.txt` has the class names, one per line, in the order of the classes."
    return (
        f"## Input and output\n\n`{taken['name']}`: {height}×{width} pixels, {taken['color']}, "
        f"with the axes (batch, height, width, channels). {pixels} `manifest.json` has the data "
        f"type of each file's input.\n\n`{content['output']['name']}`: {_output(content)} "
        f"{names if labels else 'The export was given no class names.'}"
    )


def _cover(taken: Mapping[str, Any]) -> tuple[int, int, str]:
    """Return the height and width that an image is resized to cover, and the filter."""
    height, width, _ = taken["shape"]
    if taken["crop"] is None:
        return height, width, "bilinear"
    crop = SingleCrop(**taken["crop"])
    return *crop.covers((height, width)), crop.interpolation


def _cut_in_words(taken: Mapping[str, Any]) -> str:
    high, wide, interpolation = _cover(taken)
    height, width, _ = taken["shape"]
    return (
        f"Images of another size are resized to just cover {high}×{wide} pixels "
        f"({interpolation}, antialiased); then the centre is cut out. Images of exactly "
        f"{height}×{width} pixels are not changed."
    )


# How to run each file ----------------------------------------------------------------------------


def _image_lines(content: Mapping[str, Any]) -> str:
    """Return code that makes the array `pixels` of an image, as `keras-resnet predict` does."""
    height, width, channels = content["input"]["shape"]
    high, wide, interpolation = _cover(content["input"])
    pixels = "image)[None]" if channels == 3 else 'image.convert("L"))[None, ..., None]'
    return (
        "import numpy as np\nfrom PIL import Image, ImageOps\n\n"
        'image = ImageOps.exif_transpose(Image.open("IMAGE"))\n'
        'if image.mode.startswith("I;16"):  # 16 bits per pixel\n'
        '    image = Image.fromarray((np.asarray(image) >> 8).astype("uint8"))\n'
        'image = image.convert("RGB")\n'
        "w, h = image.size\n"
        f"if (w, h) != ({width}, {height}):  # an image of this size is not changed\n"
        f"    w, h = max({wide}, w * {high} // h), max({high}, h * {wide} // w)\n"
        f"    left, top = round((w - {width}) / 2), round((h - {height}) / 2)\n"
        f"    kind = Image.Resampling.{interpolation.upper()}\n"
        "    image = image.resize((w, image.height), kind).resize((w, h), kind)\n"
        f"    image = image.crop((left, top, left + {width}, top + {height}))\n"
        f"pixels = np.asarray({pixels}"
    )


def _usage(content: Mapping[str, Any]) -> str:
    """Return how to run one file of each kind, if the files take pixels from 0 to 255."""
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
    return "## How to run the files\n\n" + "\n\n".join(parts) if files else ""


def _phones(content: Mapping[str, Any]) -> str:
    """Return the lines for phones, for the first TFLite file that they can run."""
    taken, answers = content["input"], answers_of(content)
    one_of_several = not (answers.binary or answers.independent)
    if not (
        taken["raw_pixels"] and taken["shape"][2] == 3 and content["labels"] and one_of_several
    ):
        return ""
    files = [x for x in content["files"] if x["passed"] and x["file"].endswith(".tflite")]
    file = next((x for x in reversed(files) if x["input_dtype"] in ("uint8", "float32")), None)
    if file is None:
        return ""
    height, width, _ = taken["shape"]
    codes = snippets(file, (height, width), _cover(taken)[:2])
    parts = (f"```{language}\n{code}\n```" for language, code in codes.items())
    return "\n\n".join(["## On a phone (Android, iOS): not run", *parts])


def _python(code: str) -> str:
    return f"```python\n{code}\n```"


# Where the model comes from ----------------------------------------------------------------------


def _origin(content: Mapping[str, Any]) -> str:
    origin = {name: value for name, value in content["origin"].items() if value is not None}
    about = content["about"] or {}
    given = {name: text for name, text in about.items() if text and text not in origin.values()}
    lines = [
        f"- {for_markdown(name)}: {for_markdown(value)}" for name, value in (origin | given).items()
    ]
    if not lines:
        return ""
    if not {"licence of the weights", "license"} & set(origin | given):
        lines.append(
            "- licence of the weights: not stated (to state it: `export --about license=…`)"
        )
    return "\n".join(["## Where the model comes from", "", *lines])
