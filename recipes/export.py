"""Export a model with a dataset: calibrate on training images, check on test images."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import keras
import numpy as np

from keras_resnet.errors import UserError
from keras_resnet.export import ExportReport, export, require_arguments
from keras_resnet.export.calibration import FROM_FOLDER, folder_images
from keras_resnet.export.formats.tflite import metadata, ranges
from keras_resnet.export.formats.tflite.ranges import has_ranges
from keras_resnet.export.reference import Reference
from keras_resnet.export.rewrites import prepare
from keras_resnet.export.runtimes.keras import KerasRuntime
from keras_resnet.files import expanded
from keras_resnet.images.crop import SingleCrop
from keras_resnet.images.listing import some_images, spaced
from keras_resnet.recipes.configs.schema import shown_name
from keras_resnet.recipes.data.datasets import AnySplit, Dataset, load_dataset
from keras_resnet.recipes.data.decoded import Split
from keras_resnet.recipes.runs import seen
from keras_resnet.recipes.runs.sources import Source

USUAL = ("savedmodel", "tflite-float32", "tflite-float16", "tflite-int8")


def export_source(
    source: Source,
    data: Dataset | Path | None,
    formats: tuple[str, ...],
    out: Path,
    *,
    calibration: str | None = None,
    check_count: int | None = None,
    about: metadata.About | None = metadata.UNSAID,
    **settings: Any,
) -> ExportReport:
    """Write and check the files of a model.

    Args:
        source: the model.
        data: a dataset (training images for calibration, test images for the check), or a folder
            of images for both; None to use only `calibration`.
        formats: see `export`; empty for USUAL. A quantization-aware model then gets only the
            formats of USUAL that it supports.
        out: see `export`.
        calibration: another dataset or folder to take the calibration images from.
        check_count: largest number of check images, evenly spaced; None takes all of them. They
            only measure the files; no choice depends on them.
        about: see `export`. For weights of the catalog, the author, license and version are added.
        settings: other arguments of `export`, such as `input_type` and `overwrite`.

    Raises:
        UserError: no images, or an error from `export`.
    """
    # Check the arguments first, because building the model takes seconds.
    early = settings.keys() & {"input_type", "overwrite", "calibration_method"}
    require_arguments(formats or USUAL, out, **{key: settings[key] for key in early})
    if calibration is not None and _looks_like_a_path(calibration):
        raise UserError(
            f"No such folder: {calibration}. Give a dataset or a folder of images: "
            "--calibration NAME|FOLDER"
        )
    model = source.keras_model()
    if not formats:
        trained = has_ranges(model)
        formats = tuple(x for x in USUAL if not trained or x in ranges.TRAINED_FORMATS)
    origin = source.origin()
    given = None if calibration is None else images_of(calibration, model, crop=source.crop)
    labels = source.labels
    checked = {} if data is None else _checked_on(data, model, check_count, source)
    if checked:
        origin["check images that it was trained on"] = checked.pop("trained_on")
    if isinstance(data, Dataset):
        source.warn_of_other_classes(data)
        labels = labels or data.class_names
        if given is None and data.train.places:  # ImageNet may have only its validation images
            given = _some(data.train, FROM_FOLDER).images
    elif data is not None and given is None:
        images = checked["check_images"]
        given = images[spaced(len(images), FROM_FOLDER)]
    return export(
        model,
        formats,
        out=out,
        calibration=given,
        name=source.name,
        labels=labels,
        activation=source.activation,
        origin=origin,
        crop=source.crop,
        about=about and _completed(about, source),
        **checked,
        **settings,
    )


def reference(source: Source, data: str | Path, count: int, exported: dict[str, Any]) -> Reference:
    """Return images for checking files, with the Keras model's answers.

    Args:
        source: the model.
        data: a dataset, whose test images are taken, or a folder of images.
        count: largest number of images, evenly spaced.
        exported: the manifest of the files; the model gets its image size and normalisation.

    Raises:
        UserError: no images, or no Keras model.
    """
    model = prepare.as_exported(source.keras_model(), exported)
    chosen = data if isinstance(data, Path) else _dataset(data, model)
    if isinstance(chosen, Dataset):
        labels = source.labels or tuple(exported["labels"] or ())
        replace(source, labels=labels).warn_of_other_classes(chosen)
    found = _checked_on(chosen, model, count, source)
    images = found["check_images"]
    runtime = KerasRuntime(model)
    outputs = runtime.predict(images)
    activation = exported["output"].get("activation") or runtime.answers().activation
    return Reference(images, outputs, found.get("check_labels"), found["check_source"], activation)


def images_for_check(
    source: Source, data: str | Path, shape: tuple[int | None, ...], count: int
) -> tuple[np.ndarray, np.ndarray | None, str]:
    """Return images (n, height, width, channels) for checking a file, their labels, and their name.

    Args:
        source: the model that the file is compared with.
        data: a dataset, whose test images are taken, or a folder of images.
        shape: (height, width, channels) of the file; None for a free size.
        count: largest number of images, evenly spaced.

    Raises:
        UserError: no images.
    """
    shaped = _Shaped((None, *shape))
    chosen = data if isinstance(data, Path) else _dataset(data, shaped)
    found = _checked_on(chosen, shaped, count, source)
    return found["check_images"], found.get("check_labels"), found["check_source"]


class _Shaped(NamedTuple):
    """A stand-in for a model where only its `input_shape` is used."""

    input_shape: tuple[int | None, ...]


def _checked_on(
    data: Dataset | Path, model: keras.Model | _Shaped, count: int | None, source: Source
) -> dict[str, Any]:
    """Return the `check_...` arguments of `export`, and "trained_on"."""
    if isinstance(data, Path):
        paths = some_images(data, count).images
        trained_on = seen.count_files(source, paths)
        seen.warn(trained_on, len(paths))
        return {
            "trained_on": _share(trained_on, len(paths)),
            "check_images": folder_images(data, model, count, source.crop),
            "check_source": f"the images of {data.name}",
        }
    test = _some(data.test, data.test.places if count is None else count)
    trained_on = seen.count(source, data, test)
    seen.warn(trained_on, len(test))
    return {
        "trained_on": _share(trained_on, len(test)),
        "check_images": test.images,
        "check_labels": test.labels,
        "check_source": f"from the {data.test.places:,} test images of {shown_name(data.name)}",
    }


def _share(trained_on: int | None, images: int) -> str | None:
    return None if trained_on is None else f"{trained_on:,} of {images:,}"


def _completed(about: metadata.About, source: Source) -> metadata.About:
    """Return `about` with its empty fields filled from the catalog's entry."""
    if source.entry is None:
        return about
    entry = source.entry
    known = metadata.About(author=entry.source, license=entry.license, version=entry.tag)
    return replace(known, **{name: text for name, text in asdict(about).items() if text})


def _looks_like_a_path(name: str) -> bool:
    path = expanded(name)
    return not path.is_dir() and (path.exists() or len(path.parts) > 1)


def _some(split: AnySplit, count: int) -> Split:
    """Return evenly spaced images. Only these are decoded, which matters for ImageNet."""
    return split.subset(spaced(split.places, count)).sample(count)


def images_of(
    name: str,
    model: keras.Model,
    count: int = FROM_FOLDER,
    crop: SingleCrop | None = None,
) -> np.ndarray:
    """Return up to `count` evenly spaced images from a folder or a dataset's training images.

    Only the `input_shape` of `model` is used. Images of a folder are cropped by `crop`.

    Raises:
        UserError: no such dataset, or a folder without images.
    """
    if (folder := expanded(name)).is_dir():
        return folder_images(folder, model, count, crop)
    return _some(_dataset(name, model).train, count).images


def _dataset(name: str, model: keras.Model | _Shaped) -> Dataset:
    """Load a dataset by name, with images of the model's size."""
    dataset = load_dataset(name)
    return dataset if dataset.sized else dataset.at(model.input_shape[1] or 224)
