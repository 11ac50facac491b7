"""Export a finished run: calibrated on its training images, checked on its test images."""

from __future__ import annotations

from pathlib import Path

from keras_resnet.export import ExportReport, export
from keras_resnet.recipes import runs, sources
from keras_resnet.recipes.data import Dataset


def export_run(
    run: runs.Run,
    dataset: Dataset,
    formats: tuple[str, ...],
    out: Path,
    *,
    input_type: str = "uint8",
    check_count: int | None = None,
    overwrite: bool = False,
) -> ExportReport:
    """Write and check the files of a finished run; the other arguments are those of `export`.

    `check_count` limits the test images (evenly spaced); None takes all of them. They measure
    what a file does and choose nothing.
    """
    source = sources.find(str(run.path))
    checked = dataset.test if check_count is None else dataset.test.sample(check_count)
    return export(
        source.keras_model(),
        formats,
        out=out,
        calibration=dataset.train.sample(256).images,
        input_type=input_type,
        name=source.name,
        labels=source.labels,
        check_images=checked.images,
        check_labels=checked.labels,
        check_source=f"the test split of {dataset.name}",
        overwrite=overwrite,
    )
