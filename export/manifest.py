"""`manifest.json`: the record of the exported files, their check and the versions used."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
import zlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_resnet import onednn
from keras_resnet.errors import UserError
from keras_resnet.export.formats.tflite import int4, ranges
from keras_resnet.export.runtimes import tflite_graph
from keras_resnet.files import read_json, require_fit

if TYPE_CHECKING:
    from keras_resnet.export.formats.tflite.options import Quantization

SCHEMA = 1  # manifest.schema.json says when to raise it
MANIFEST = "manifest.json"
NUMERICS, PERFORMANCE = "numerics.json", "perf.json"
_EXACT = ("format", "n", "accuracy", "agreement", "snr_db", "largest_error", "logit_error")
_FAST = ("format", "bytes", "bytes_gzipped", "latency_ms")
_PACKAGES = (
    "keras-resnet-zoo",
    "keras",
    "tensorflow",
    "ai-edge-litert",
    "ai-edge-quantizer",
    "numpy",
)
_OPTIONAL = ("onnx", "tf2onnx", "onnxruntime", "openvino")  # recorded only if installed


def sha256(path: Path) -> str:
    """Hash a file. For a folder, hash the sorted list of its files' relative paths and hashes."""
    if path.is_dir():
        parts = sorted(p for p in path.rglob("*") if p.is_file())
        listing = "".join(f"{sha256(p)}  {p.relative_to(path).as_posix()}\n" for p in parts)
        return hashlib.sha256(listing.encode()).hexdigest()
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def size(path: Path) -> int:
    """Return the bytes of a file, or of all files in a folder."""
    if path.is_dir():
        return sum(p.stat().st_size for p in path.rglob("*") if p.is_file())
    return path.stat().st_size


def gzipped(path: Path) -> int:
    """Return the bytes of a file, or of a folder's files, each compressed by gzip (level 6)."""
    if path.is_dir():
        return sum(gzipped(p) for p in path.rglob("*") if p.is_file())
    compressor, total = zlib.compressobj(6, zlib.DEFLATED, 31), 0
    with path.open("rb") as file:
        while part := file.read(2**20):
            total += len(compressor.compress(part))
    return total + len(compressor.flush())


def sizes(path: Path) -> dict[str, int]:
    """Return the bytes of a file or folder, as it is and compressed by gzip."""
    return {"bytes": size(path), "bytes_gzipped": gzipped(path)}


def environment() -> dict[str, Any]:
    """Return the versions of the packages in use, and the machine."""
    versions = {"python": platform.python_version()}
    for package in (*_PACKAGES, *_OPTIONAL):
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            if package in _PACKAGES:
                versions[package] = "not installed"
    return {"versions": versions, "machine": f"{_processor()} ({platform.system()})"}


def cost(model: Any) -> dict[str, int | None]:
    """Return the parameters and the multiply-adds per image; None if a layer cannot be counted."""
    from keras_resnet.analysis.profile import profile

    try:
        multiply_adds = profile(model).total.multiply_adds
    except UserError:
        multiply_adds = None
    return {"parameters": model.count_params(), "multiply_adds": multiply_adds}


def of_quantization(
    chosen: Quantization, paths: Mapping[str, Path], has_ranges: bool
) -> dict[str, Any]:
    """Return the choices for the manifest: layers in float32, int4 recipe, calibration method.

    Args:
        chosen: the options of the int8 file.
        paths: {format: file} of the written files.
        has_ranges: True for a quantization-aware model.
    """
    kept = {"keep_float": list(chosen.keep_float)} if chosen.keep_float else {}
    recipe = {}
    if "tflite-int4" in paths:
        graph = tflite_graph.read(paths["tflite-int4"].read_bytes())
        recipe = {"int4_recipe": int4.recipe(tflite_graph.operations(graph))}
    method = "trained" if has_ranges else ranges.full_name(chosen.method)
    return {**kept, **recipe, "calibration_method": method}


def _processor() -> str:
    for line in onednn.read_cpuinfo().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def now() -> str:
    """Return the time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def write(folder: Path, content: dict[str, Any]) -> None:
    """Write the manifest, `numerics.json` (accuracy figures) and `perf.json` (size and speed)."""
    shared = {"schema": SCHEMA, "model": content["model"], "created": content["created"]}
    check = content["check"]
    exact = {key: check[key] for key in ("images", "n", "keras_accuracy")}
    fast = {"machine": content["machine"], "keras_latency_ms": check["keras_latency_ms"]}
    _write_json(folder / MANIFEST, {"schema": SCHEMA, **content})
    _write_json(folder / NUMERICS, {**shared, **exact, "files": _by_file(content, _EXACT)})
    _write_json(folder / PERFORMANCE, {**shared, **fast, "files": _by_file(content, _FAST)})


def _by_file(content: dict[str, Any], keys: Sequence[str]) -> dict[str, Any]:
    return {item["file"]: {key: item[key] for key in keys} for item in content["files"]}


def _write_json(path: Path, content: dict[str, Any]) -> None:
    text = json.dumps(content, indent=2, ensure_ascii=False)
    path.write_text(text + "\n", encoding="utf-8")


def read(folder: Path) -> dict[str, Any]:
    """Read the manifest of an export `folder`; manifest.schema.json describes its fields.

    Raises:
        UserError: the folder has no manifest, or one that does not fit the schema.
    """
    path = folder / MANIFEST
    if not path.is_file():
        raise UserError(
            f"{folder} is not an export folder (it has no {MANIFEST}). "
            "Make one with: keras-resnet export RUN"
        )
    again = "Export again: keras-resnet export RUN"
    try:
        content: dict[str, Any] = read_json(path)
        schema = content.get("schema") if isinstance(content, dict) else None
        if schema != SCHEMA:
            raise UserError(
                f"{path} must be a manifest of schema {SCHEMA}; received schema {schema!r:.60}."
            )
        require_fit(path, content, _schema())
    except UserError as error:
        raise UserError(f"{error} {again}") from error
    for name in hashes(content):
        _require_inside(folder, name)
    return content


def find(path: Path) -> dict[str, Any] | None:
    """Return the entry of an exported file in the manifest beside it; None if there is none.

    Raises:
        UserError: the manifest is damaged.
    """
    if not (path.parent / MANIFEST).is_file():
        return None
    entries = read(path.parent)["files"]
    return next((entry for entry in entries if entry["file"] == path.name), None)


def require_unchanged(path: Path) -> None:
    """Compare a file with its hash in the manifest beside it, if there is one.

    Raises:
        UserError: the file was changed or damaged after its export.
    """
    entry = find(path)
    if entry is not None and sha256(path) != entry["sha256"]:
        raise UserError(_changed(path))


def _changed(path: Path) -> str:
    return f"{path} is not the file that was exported (its sha256 differs). Export again."


@cache
def _schema() -> dict[str, Any]:
    content: dict[str, Any] = read_json(Path(__file__).with_name("manifest.schema.json"))
    return content


def hashes(content: Mapping[str, Any]) -> dict[str, str]:
    """Return {file name: hash} of all files that a manifest lists."""
    npu = content.get("npu", {})
    compiled = {npu["compiled"]: npu["sha256"]} if "compiled" in npu else {}
    return {entry["file"]: entry["sha256"] for entry in content["files"]} | compiled


def _require_inside(folder: Path, name: str) -> None:
    """Refuse a file's name that leads out of its folder.

    Raises:
        UserError: the name is a path, or a link to a place outside.
    """
    plain = name not in ("", ".", "..") and not set(name) & {"/", "\\", "\0"}
    home = folder.resolve()
    places = [home]
    if home.parent.name == "snapshots":  # the Hub's cache, where files are links into its blobs
        places.append(home.parents[1] / "blobs")
    if not plain or (folder / name).resolve().parent not in places:
        raise UserError(
            f"{folder / MANIFEST} lists the file {name!r:.100}, which is not in its folder. Use "
            "manifests of 'keras-resnet export' only."
        )


def failures(content: Mapping[str, Any]) -> list[str]:
    """Return a sentence for each file that failed its check."""
    return [
        f"{item['file']} FAILED its check: {'; '.join(item['problems'])}"
        for item in content["files"]
        if not item["passed"]
    ]


def verify_hashes(folder: Path, content: dict[str, Any]) -> None:
    """Compare every file of `folder` with its hash in `content`, before anything opens it.

    Raises:
        UserError: a file is missing or was changed.
    """
    for name, expected in hashes(content).items():
        path = folder / name
        if not path.exists():
            raise UserError(f"{path} is listed in the manifest but missing. Export again.")
        if sha256(path) != expected:
            raise UserError(_changed(path))
