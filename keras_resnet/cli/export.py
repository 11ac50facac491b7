"""The verbs `keras-resnet check` and `benchmark`: what files answer, and what they cost to run."""

from __future__ import annotations

import argparse
from pathlib import Path

from keras_resnet.display.charts import require_writable
from keras_resnet.display.console import print_checks, print_json
from keras_resnet.errors import UserError
from keras_resnet.export import check as checking
from keras_resnet.export import manifest
from keras_resnet.export.measure import benchmark as timing
from keras_resnet.files import require_file_target
from keras_resnet.recipes import export as exporting
from keras_resnet.recipes.runs import sources
from keras_resnet.recipes.runs.folder import is_run, write_json


def check(options: argparse.Namespace) -> int:
    """Run the verb `check`; return the exit code."""
    folder = Path(options.exports)
    left_out = checking.left_out(folder)  # before the model, which takes seconds
    if options.data:
        source = _source(folder, options.against)
        data = Path(options.data) if Path(options.data).is_dir() else options.data
        recorded = manifest.read(folder)
        reference = exporting.reference(source, data, options.check_images, recorded)
    else:
        model = sources.find(options.against).keras_model() if options.against else None
        reference = checking.recorded_reference(folder, model)
    checks = checking.check_folder(folder, reference)
    rows = [{**manifest.sizes(folder / item.file), **item.to_dict()} for item in checks]
    keras_row = {
        "file": options.against or "Keras model",
        "bytes": None,
        "bytes_gzipped": None,
        "accuracy": reference.accuracy,
        "latency_ms": None,
    }
    passed = all(item.passed for item in checks)
    checked = {"images": reference.source, "n": len(reference.images)}
    if options.json:
        content = {"exports": options.exports, "passed": passed, "check": checked}
        content |= {"model": keras_row, "files": rows, "left_out": left_out}
        return print_json(content, passed)
    print_checks(rows, f"Checked on {checked['n']} images: {checked['images']}", keras_row)
    return 0 if passed else 1


def _source(folder: Path, against: str | None) -> sources.Source:
    """The model that files are compared with on images of one's own."""
    if against is None and not is_run(folder.resolve().parent):
        raise UserError(
            f"{folder} has the Keras model's answers to its own images only. For others give the "
            "model: --against RUN, or a .keras file."
        )
    return sources.find(against or str(folder.resolve().parent))


def benchmark(options: argparse.Namespace) -> int:
    """Run the verb `benchmark`; return the exit code."""
    files = timing.find(options.files)
    out = None if options.out is None else Path(options.out)
    if out is not None and not out.is_dir():
        require_file_target(out)
    picture = Path(options.picture) if options.picture else None
    if picture is not None:
        require_writable(picture)
    measured = timing.measure(
        files,
        options.threads,
        against=options.against,
        rounds=options.rounds,
        runs=options.runs,
        batch=options.batch,
    )
    if out is not None:
        write_json(out / timing.RECORD if out.is_dir() else out, measured.to_dict())
    if options.json:
        print_json(measured.to_dict())
    else:
        print(measured.table())
    if picture is not None:
        measured.picture(picture)
    return 0
