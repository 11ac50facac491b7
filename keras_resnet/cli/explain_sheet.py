"""The implementation of the verb `explain`: a sheet of images, heat maps and predictions."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_resnet.analysis import explain, maximize
from keras_resnet.display import sheets
from keras_resnet.display.bars import progress
from keras_resnet.display.console import print_json
from keras_resnet.errors import UnknownNameError, UserError, require
from keras_resnet.export.runtimes.keras import KerasRuntime
from keras_resnet.files import replacing, require_folder_target
from keras_resnet.images.answers import agreed
from keras_resnet.images.labels import class_ids, class_names
from keras_resnet.images.preprocessing import missing_preprocessing
from keras_resnet.images.read import read_image
from keras_resnet.recipes.runs import sources

_TOP = 5
_IMAGENET = "imagenet2012"
MAXIMIZATION = "maximization"  # an image of the class, not a map of an image


@dataclass(frozen=True)
class _Case:
    """An image and the class to explain in it."""

    path: str
    image: np.ndarray
    scores: np.ndarray
    number: int


def write(options: argparse.Namespace) -> int:
    """Write the sheet and the maps for the options of `explain`; return the exit code."""
    methods = _methods(options.methods)
    out = Path(options.out)
    require_folder_target(out)
    require("matplotlib", "explain")  # fail before the maps are computed
    if not any(Path(path).exists() for path in options.images):  # before weights are downloaded
        raise UserError(f"No such image: {', '.join(options.images)}")
    source = sources.find(options.model, options.weights, options.activation, keras=True)
    model = source.keras_model()
    if hint := missing_preprocessing(model):
        print(f"warning: {hint} Here it gets RGB 0...255.", file=sys.stderr)
    names = source.names(model.output_shape[-1])
    numbers = _numbers(options.classes, names, source)
    cases, errors = _cases(model, source, options.images, numbers)
    if not cases:
        raise UserError(" ".join(errors.values()))
    maps = _maps(model, cases, methods, options)
    out.mkdir(parents=True, exist_ok=True)
    heading = f"{options.model} {options.weights or ''}".rstrip()
    rows = [
        _row(case, names, {name: maps[name][i] for name in methods}) for i, case in enumerate(cases)
    ]
    sheets.save(sheets.contact_sheet(rows, heading), out / "sheet.png")
    _save_maps(out / "maps.npz", cases, maps)
    return _report(options, cases, errors, names)


def _methods(names: tuple[str, ...]) -> tuple[str, ...]:
    known = (*explain.METHODS, MAXIMIZATION)
    for name in names:
        if name not in known:
            raise UnknownNameError("method", name, known, "See: keras-resnet explain --help")
    if not names:
        raise UserError("--methods needs one or more methods, e.g. --methods gradcam.")
    return tuple(dict.fromkeys(names))


def _numbers(text: str | None, names: tuple[str, ...], source: sources.Source) -> list[int]:
    """Return class numbers from labels or numbers; none for no text."""
    numbers = []
    for part in (part.strip() for part in (text or "").split(",") if part.strip()):
        if part in names:
            numbers.append(names.index(part))
        elif part.isdecimal() and int(part) < len(names):
            numbers.append(int(part))
        else:
            raise _unknown(part, names, source)
    if text is not None and not numbers:
        raise UserError(f"--classes needs one or more classes, e.g. --classes {names[0]}.")
    return numbers


def _unknown(part: str, names: tuple[str, ...], source: sources.Source) -> UserError:
    taken = f"a number from 0 to {len(names) - 1}"
    if source.labels is None:
        return UserError(
            f"'{source.name}' has no class names (no labels.txt beside it), so --classes takes "
            f"{taken}; received '{part}'."
        )
    return UnknownNameError("class", part, names, f"You can also give {taken}.")


def _cases(
    model: Any, source: sources.Source, paths: list[str], numbers: list[int]
) -> tuple[list[_Case], dict[str, str]]:
    """Return the cases, and the errors by path for images that cannot be read."""
    runtime, crop = KerasRuntime(model), source.crop
    runtime.activation = agreed(source.activation, runtime.activation)
    height, width, channels = runtime.input_shape
    cases, errors = [], {}
    for path in paths:
        try:
            image = read_image(path, (height or 224, width or 224), channels or 3, crop)
        except UserError as error:  # continue with the other images
            errors[path] = str(error)
            continue
        scores = runtime.probabilities(image[None])[0]
        for number in numbers or [int(scores.argmax())]:
            cases.append(_Case(path, image, scores, number))
    return cases, errors


def _maps(
    model: Any, cases: list[_Case], methods: tuple[str, ...], options: argparse.Namespace
) -> dict[str, np.ndarray]:
    """Return a map of each case for each method; `maximization` gives an image."""
    images = np.stack([case.image for case in cases])
    numbers = [case.number for case in cases]
    maps = {}
    with progress("Explaining", len(methods)) as advance:
        for method in methods:
            if method == MAXIMIZATION:
                if options.layer is not None:  # not used here, but it must exist
                    explain.require_layer(model, options.layer)
                distinct = list(dict.fromkeys(numbers))
                drawn = maximize.activation_maximization(model, distinct)
                maps[method] = drawn[[distinct.index(number) for number in numbers]]
            else:
                more: Any = {"layer": options.layer, "noise": options.noise}
                found = explain.explain(model, images, method, classes=numbers, **more)
                maps[method] = found[method]
            advance(1)
    return maps


def _row(case: _Case, names: tuple[str, ...], maps: dict[str, np.ndarray]) -> sheets.Row:
    label = names[case.number]
    best = int(case.scores.argmax())
    said = sheets.title(names[best], float(case.scores[best]), _true(Path(case.path), names))
    explained = "" if case.number == best else f", explained: {label}"
    return sheets.Row(
        title=f"{said}{explained}  ({Path(case.path).name})",
        image=case.image,
        pictures={name: _picture(name, case.image, values) for name, values in maps.items()},
        answers=_answers(case, names),
        explained=label,
    )


def _true(path: Path, names: tuple[str, ...]) -> str | None:
    """Return the class that the image's folder is named after; None if there is none."""
    folder = path.resolve().parent.name
    if names == class_names(_IMAGENET):  # ImageNet's folders have WordNet ids
        folder = dict(zip(class_ids(_IMAGENET), names, strict=True)).get(folder, folder)
    return folder if folder in names else None


def _picture(method: str, image: np.ndarray, values: np.ndarray) -> np.ndarray:
    if method == MAXIMIZATION:
        return sheets.stretched(values)
    if method in explain.PIXEL_METHODS:
        return sheets.pixel_map(values)
    return sheets.overlay(image, values)


def _answers(case: _Case, names: tuple[str, ...]) -> list[tuple[str, float]]:
    """Return the most likely classes, including the explained one."""
    best = [int(i) for i in case.scores.argsort()[::-1][:_TOP]]
    shown = best if case.number in best else [*best[: _TOP - 1], case.number]
    return [(names[i], float(case.scores[i])) for i in shown]


def _save_maps(path: Path, cases: list[_Case], maps: dict[str, np.ndarray]) -> None:
    arrays: dict[str, Any] = {
        "images": np.stack([case.image for case in cases]),
        "classes": np.array([case.number for case in cases]),
        **maps,
    }
    with replacing(path) as partial:
        np.savez_compressed(partial, **arrays)


def _report(
    options: argparse.Namespace,
    cases: list[_Case],
    errors: dict[str, str],
    names: tuple[str, ...],
) -> int:
    """Print the explained images and the errors; return the exit code, as `predict` does."""
    out = Path(options.out)
    rows: list[dict[str, Any]] = [
        {
            "image": case.path,
            "explained": names[case.number],
            "probability": float(case.scores[case.number]),
        }
        for case in cases
    ]
    if options.json:
        files = {"sheet": str(out / "sheet.png"), "maps": str(out / "maps.npz")}
        failed = [{"image": path, "error": error} for path, error in errors.items()]
        print_json({"model": options.model, **files, "rows": rows + failed})
    else:
        for row in rows:
            print(f"{row['image']:<32} {row['probability']:>7.2%}  {row['explained']}")
        print(f"\n{out / 'sheet.png'}")
    for error in errors.values():
        print(f"error: {error}", file=sys.stderr)
    return 2 if errors else 0
