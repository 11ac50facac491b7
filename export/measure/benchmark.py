"""Measure files side by side: latency, throughput, loading time, memory and bytes.

Each file and number of threads has its own process. Peak memory can only be measured per process,
and the threads of one runtime keep spinning during another's turn. The processes take turns in
rounds, and a ratio compares turns of the same round. A machine that slows down for a while
therefore slows down all files alike.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from keras_resnet import onednn
from keras_resnet.arguments import checked
from keras_resnet.display import figures
from keras_resnet.display.console import number, print_left_out, table_text
from keras_resnet.display.notebook import html_table
from keras_resnet.errors import UserError
from keras_resnet.export import manifest
from keras_resnet.export.measure.turns import Answers, Peer, ratio, spread, take_turns, workers
from keras_resnet.export.runtimes import tflite_graph
from keras_resnet.export.runtimes.litert import TFLiteRuntime
from keras_resnet.export.runtimes.locate import located
from keras_resnet.export.runtimes.missing import left_out_files, missing_engine
from keras_resnet.export.runtimes.trial import open_given
from keras_resnet.export.runtimes.trust import is_trusted
from keras_resnet.files import expanded, short_names

SCHEMA = 1
RECORD = "benchmark.json"
REFERENCE_FORMAT = "tflite-float32"
_OTHER_FLOAT = ("savedmodel", "onnx", "openvino")  # float32 for other runtimes
_WORKER = (sys.executable, "-m", "keras_resnet.export.measure.benchmark_worker")


@dataclass(frozen=True)
class File:
    """A file to time.

    Attributes:
        name: the name to display.
        path: the file or folder.
        format: a key of `FORMATS`; None without an export folder's manifest.
        shape: (height, width, channels) of the timed images; None for the file's own.
        command: a command that times the file instead of `benchmark_worker`, for files that none of
            this package's runtimes can run.
    """

    name: str
    path: Path
    format: str | None = None
    shape: tuple[int, ...] | None = None
    command: tuple[str, ...] | None = None


_HEADER = (
    *("file", "threads", "bytes", "load ms", "median ms", "p95 ms", "× reference"),
    *("images/s", "peak MiB"),
)


@dataclass(frozen=True)
class Measurement:
    """The result of a benchmark.

    Attributes:
        rows: one per file and number of threads, see `export/README.md`.
        settings: rounds, runs, the reference file for ratios, skipped files, machine, date,
            versions.
    """

    rows: list[dict[str, Any]]
    settings: dict[str, Any]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, for benchmark.json and `--json`."""
        return {"schema": SCHEMA, **self.settings, "rows": self.rows}

    def table(self) -> str:
        """Return the rows as a text table, with the processor and `advice` below."""
        table = table_text(self._title(), _HEADER, [_cells(row) for row in self.rows])
        sets = ", ".join(self.settings["instruction_sets"]) or "unknown"
        processor = f"\n{self.settings['machine']}; instruction sets: {sets}"
        return "\n".join([table, processor, *self.advice()])

    def advice(self) -> list[str]:
        """Return a sentence for each float file that was faster than a float TFLite file.

        A file is faster if it was so in every round.
        """
        formats = {row["file"]: row["format"] for row in self.rows}
        if formats.get(self.settings["reference"]) != REFERENCE_FORMAT:
            return []
        return [
            f"{row['file']} ran faster than {self.settings['reference']} on this machine, with "
            f"{row['threads']} thread{'s' * (row['threads'] > 1)}: {row['ratio']['median']:.2f} of "
            "its time. Use it where its runtime can be installed."
            for row in self.rows
            if row["format"] in _OTHER_FLOAT and row["ratio"] and row["ratio"]["most"] < 1
        ]

    def __repr__(self) -> str:
        """Return a summary in two lines."""
        return f"Measurement: {len(self.rows)} rows, {self.settings['machine']}\n{self._title()}"

    def _repr_html_(self) -> str:
        return html_table(_HEADER, map(_cells, self.rows), self._title())

    def _title(self) -> str:
        return (
            f"One image at a time; × is the time relative to {self.settings['reference']} in the "
            "same round (least to most)"
        )

    def picture(self, path: Path) -> None:
        """Draw the rows to a `.svg`, `.png` or `.pdf`.

        Raises:
            UserError: see `figures.require_writable`.
            MissingExtraError: matplotlib is not installed.
        """
        columns = [
            figures.Column("ms, median", _medians(self.rows, "latency_ms"), "{:.2f}".format),
            figures.Column("images/s", _medians(self.rows, "images_per_second"), "{:.0f}".format),
            figures.Column("bytes", [row["bytes"] for row in self.rows], figures.binary),
        ]
        memory = [row["peak_memory_mib"] for row in self.rows]
        if None not in memory:
            columns.append(figures.Column("peak MiB", memory, "{:.0f}".format))
        names = [f"{row['file']}, {row['threads']} thr." for row in self.rows]
        figures.save(figures.bars(self.settings["machine"], names, columns), path)


@checked
def find(paths: Sequence[str | Path]) -> list[File]:
    """Return the named files; an export folder stands for all of its files.

    Files with the same name get as many parent folders in front as needed to tell them apart.

    Raises:
        UserError: a path does not exist, a file is named twice, or a file changed after its export.
    """
    files: list[File] = []
    for path in map(expanded, paths):
        if not path.exists():
            raise UserError(f"No such file or folder: {path}")
        files += _exported(path) if (path / manifest.MANIFEST).is_file() else [_single(path)]
    places = [file.path.resolve() for file in files]
    if twice := {str(file.path) for file in files if places.count(file.path.resolve()) > 1}:
        raise UserError(f"Name each file only once; received twice: {', '.join(sorted(twice))}.")
    return _told_apart(files)


@checked
def measure(
    files: Sequence[File],
    threads: Sequence[int] = (1,),
    *,
    against: str | None = None,
    rounds: int = 10,
    runs: int = 20,
    batch: int = 32,
) -> Measurement:
    """Time the files on noise.

    A file is skipped, with a line on stderr, if its engine is not installed.

    Args:
        files: see `find`.
        threads: numbers of threads; each is measured.
        against: the name of the reference file for ratios; default the float32 .tflite file
            (preferably from an export folder), else the first file.
        rounds: turns of every file.
        runs: single images in a turn. A turn ends after two seconds, but not before three images.
        batch: largest number of images for measuring throughput; fewer if they take more than two
            seconds.

    Raises:
        UserError: no files, an unknown `against`, a file that cannot be run, or no engine for any
            of them.
    """
    absent = {x.name: None if x.command else missing_engine(x.path) for x in files}
    left_out = left_out_files(absent)
    print_left_out(left_out)
    files = [file for file in files if absent[file.name] is None]
    reference = _reference(files, against)
    keyed = {_key(file, count): (file, count) for count in threads for file in files}
    peers = [_peer(key, file, count, batch) for key, (file, count) in keyed.items()]
    load = round(os.getloadavg()[0], 2)
    if load > 0.5:
        print(
            f"warning: other programs are running (load {load:.1f}), so timings may be too high",
            file=sys.stderr,
        )
    with workers(peers) as started:
        facts = {worker.peer.name: worker.facts for worker in started}
        answers = take_turns(started, rounds, runs)
    rows = [
        _row(file, count, facts[key], answers, _key(reference, count))
        for key, (file, count) in keyed.items()
    ]
    settings = {"rounds": rounds, "runs": runs, "reference": reference.name, "load_average": load}
    told = {"created": manifest.now(), **settings, "left_out": left_out}
    processor = {"instruction_sets": onednn.instruction_sets(onednn.read_cpuinfo())}
    return Measurement(rows, {**told, **manifest.environment(), **processor})


def _exported(folder: Path) -> Iterator[File]:
    content = manifest.read(folder)
    manifest.verify_hashes(folder, content)
    shape = tuple(content["input"]["shape"])
    for entry in content["files"]:
        yield File(entry["file"], folder / entry["file"], entry["format"], shape)


def _single(path: Path) -> File:
    return File(str(path), path)


def _told_apart(files: list[File]) -> list[File]:
    names = [file.name for file in files]
    ends = short_names([str(file.path.resolve()) for file in files])
    return [
        replace(file, name=end) if names.count(file.name) > 1 else file
        for file, end in zip(files, ends, strict=True)
    ]


def _reference(files: Sequence[File], against: str | None) -> File:
    if not files:
        raise UserError(
            "No files to time. Give files or an export folder: keras-resnet benchmark EXPORTS"
        )
    if against is None:
        exported = (file for file in files if file.format == REFERENCE_FORMAT)
        return next(exported, None) or next(filter(_is_float32, files), files[0])
    for file in files:
        if against in (file.name, str(file.path), file.format):
            return file
    names = ", ".join(file.name for file in files)
    raise UserError(f"--against must be one of the files; received '{against}'. Files: {names}.")


def _is_float32(file: File) -> bool:
    """Return True for a float32 .tflite file whose format no manifest records.

    Raises:
        UserError: LiteRT cannot load the file.
    """
    if file.format or file.command or located(file.path)[0] != ".tflite":
        return False
    runtime = open_given(file.path)
    return isinstance(runtime, TFLiteRuntime) and tflite_graph.in_float32(runtime.graph)


def _key(file: File, threads: int) -> str:
    return f"{file.name}, {threads} thread{'s' if threads > 1 else ''}"


def _peer(key: str, file: File, threads: int, batch: int) -> Peer:
    options = {"path": str(file.path), "threads": threads, "shape": file.shape, "batch": batch}
    options["trust"] = is_trusted()
    return Peer(key, file.command or _WORKER, options)


def _row(
    file: File, threads: int, facts: dict[str, Any], answers: Answers, reference: str
) -> dict[str, Any]:
    turns = answers[_key(file, threads)]
    samples = [ms for turn in turns for ms in turn["ms"]]
    medians, theirs = (
        [turn["median_ms"] for turn in answers[key]] for key in (_key(file, threads), reference)
    )
    same = reference == _key(file, threads)
    return {
        "file": file.name,
        "format": file.format,
        "threads": threads,
        "bytes": _bytes(file.path),
        "latency_ms": {
            **spread(samples),
            "p95": round(float(np.percentile(samples, 95)), 3),
            "n": len(samples),
        },
        "ratio": None if same else ratio(medians, theirs),
        "rounds_ms": [round(ms, 3) for ms in medians],
        "images_per_second": spread([turn["images_per_second"] for turn in turns]),
        "peak_memory_mib": turns[-1]["peak_memory_mib"],
        **facts,
    }


def _bytes(path: Path) -> int:
    """Return the size of a file; an OpenVINO .xml includes the .bin file beside it."""
    beside = path.with_suffix(".bin")
    more = manifest.size(beside) if path.suffix == ".xml" and beside.is_file() else 0
    return manifest.size(path) + more


def _cells(row: dict[str, Any]) -> list[str]:
    latency, against = row["latency_ms"], row["ratio"]
    against = against and "{median:.2f} ({least:.2f} to {most:.2f})".format(**against)
    return [
        row["file"],
        str(row["threads"]),
        f"{row['bytes']:,}",
        f"{row['load_ms']:.0f}",
        f"{latency['median']:.3f}",
        f"{latency['p95']:.3f}",
        against or "–",
        f"{row['images_per_second']['median']:.1f}",
        number(row["peak_memory_mib"], ".0f"),
    ]


def _medians(rows: list[dict[str, Any]], key: str) -> list[float]:
    return [row[key]["median"] for row in rows]
