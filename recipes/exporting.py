"""Export a model with a dataset at hand: calibrated on training images, checked on test images."""

from __future__ import annotations

from pathlib import Path

from keras_resnet.export import ExportReport, export
from keras_resnet.recipes.data import Dataset
from keras_resnet.recipes.sources import Source


def export_source(
    source: Source,
    dataset: Dataset,
    formats: tuple[str, ...],
    out: Path,
    *,
    input_type: str = "uint8",
    preprocessing: str | None = None,
    check_count: int | None = None,
    overwrite: bool = False,
) -> ExportReport:
    """Write and check the files of a model; the other arguments are those of `export`.

    `check_count` limits the test images (evenly spaced); None takes all of them. They measure
    what a file does and choose nothing.
    """
    checked = dataset.test.sample(len(dataset.test) if check_count is None else check_count)
    return export(
        source.keras_model(),
        formats,
        out=out,
        calibration=dataset.train.sample(256).images,
        input_type=input_type,
        preprocessing=preprocessing,
        name=source.name,
        labels=source.labels or dataset.class_names,
        check_images=checked.images,
        check_labels=checked.labels,
        check_source=f"of the {len(dataset.test):,} test images of {dataset.name}",
        overwrite=overwrite,
    )
