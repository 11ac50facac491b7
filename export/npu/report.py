"""The part of a TFLite file that an accelerator (NPU) can run; the NPU is not needed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from keras_resnet.arguments import checked
from keras_resnet.errors import UnknownNameError, UserError, require
from keras_resnet.export import manifest
from keras_resnet.export.npu import edge_tpu, vela
from keras_resnet.export.runtimes import tflite_graph
from keras_resnet.export.runtimes.locate import located, read_array
from keras_resnet.export.runtimes.trial import open_given
from keras_resnet.files import expanded

EDGE_TPU = "edge-tpu"
NPUS = (EDGE_TPU, *vela.ACCELERATORS)
FORMATS = ("tflite-int8", "tflite-int16x8")  # an export has the second if a budget chose it


@dataclass(frozen=True)
class OnCpu:
    """Operations of one kind that stay on the CPU.

    Attributes:
        kind: the name in TFLite's schema, such as "SOFTMAX".
        count: how many they are.
        why: the reason.
    """

    kind: str
    count: int
    why: str


@dataclass(frozen=True)
class NpuReport:
    """The part of a file that an NPU can run. Nothing was run on the NPU.

    Attributes:
        file: the file's name.
        npu: a name of `NPUS`.
        how: where the answer comes from: the documented rules, or the maker's compiler.
        operations: number of operations in the file.
        on_cpu: the operations that stay on the CPU.
        estimates: the compiler's estimates, by name with unit; empty without a compiler.
    """

    file: str
    npu: str
    how: str
    operations: int
    on_cpu: tuple[OnCpu, ...]
    estimates: Mapping[str, float] = field(default_factory=dict)

    @property
    def ready(self) -> bool:
        """True if the NPU can run all operations."""
        return not self.on_cpu

    def to_dict(self) -> dict[str, Any]:
        """Return the fields as plain values, for the manifest and `--json`."""
        left = {"on_cpu": [asdict(item) for item in self.on_cpu]}
        return {**asdict(self), **left, "estimates": dict(self.estimates), "ready": self.ready}

    def __repr__(self) -> str:
        """Return one line, and one for every kind of operation that stays on the CPU."""
        return "\n".join(in_words(self.to_dict()))


def in_words(report: Mapping[str, Any]) -> list[str]:
    """Return a report, as `to_dict` gives it, in words."""
    left = sum(item["count"] for item in report["on_cpu"])
    which = f"{report['operations'] - left} of {report['operations']} operations run on it"
    found = [f"{report['file']} on {report['npu']}: {which} ({report['how']})."]
    found += [f"  on the CPU: {x['count']} {x['kind']}: {x['why']}" for x in report["on_cpu"]]
    if report["estimates"]:
        told = ", ".join(f"{name} {_figure(value)}" for name, value in report["estimates"].items())
        found.append(f"  estimated by the compiler: {told}")
    return found


def _require_known(npu: str) -> None:
    if npu not in NPUS:
        raise UnknownNameError("NPU", npu, NPUS, "")


def _figure(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.3g}"


@checked
def npu_report(
    file: str | Path, npu: str = EDGE_TPU, compiled: str | Path | None = None
) -> NpuReport:
    """Tell which operations of an int8 TFLite file an NPU can run. The NPU is not needed.

    For the Edge TPU the file is compared with Coral's documented rules; its compiler may decide
    otherwise in cases that the rules leave open. For an Ethos-U, Arm's compiler Vela compiles the
    file (`pip install "keras-resnet-zoo[npu]"`).

    Args:
        file: a `.tflite` file, or a folder of the format micro.
        npu: "edge-tpu", or an Ethos-U with its number of multipliers, such as "ethos-u55-128".
        compiled: the path for the file that Vela compiles; not for the Edge TPU.

    Returns:
        The report.

    Raises:
        UnknownNameError: an unknown NPU.
        UserError: `file` is not a readable TFLite file, Vela cannot compile it, or `compiled` is
            given for the Edge TPU.
        MissingExtraError: Vela is not installed.
    """
    _require_known(npu)
    if compiled is not None and npu == EDGE_TPU:
        raise UserError(
            "Only edgetpu_compiler compiles for the Edge TPU; see coral.ai/docs/edgetpu/compiler. "
            "Remove compiled."
        )
    path = expanded(file)
    data = _read(path)
    model = tflite_graph.read(data)
    found = tflite_graph.operations(model)
    if npu == EDGE_TPU:
        left = edge_tpu.left_on_cpu(model, found)
        return NpuReport(path.name, npu, edge_tpu.HOW, len(found), _counted(left))
    result = vela.compile_file(data, npu)
    if compiled is not None:
        expanded(compiled).write_bytes(result.data)
    after = tflite_graph.operations(tflite_graph.read(result.data))
    left = [(item.kind, "Vela leaves it there") for item in after if item.kind != vela.OPERATION]
    return NpuReport(path.name, npu, result.how, len(found), _counted(left), result.estimates)


def require_npu(npu: str, formats: Sequence[str]) -> None:
    """Check an export's option before a model is built.

    Raises:
        UnknownNameError: an unknown NPU.
        UserError: no int8 file is among the formats.
        MissingExtraError: Vela is not installed.
    """
    _require_known(npu)
    if not set(formats) & set(FORMATS):
        raise UserError(
            f"{npu} takes an int8 file, which is not among the formats. Add --formats tflite-int8."
        )
    if npu != EDGE_TPU:
        require("ethosu.vela", "npu")


def for_manifest(paths: Mapping[str, Path], npu: str) -> dict[str, Any]:
    """Write the compiled file beside an export's int8 file; return the manifest's entry.

    Args:
        paths: the files of the export by format.
        npu: a name of `NPUS`. Nothing is compiled for the Edge TPU.
    """
    file = next(paths[kind] for kind in FORMATS if kind in paths)
    compiled = None if npu == EDGE_TPU else file.with_name(f"{file.stem}-{npu}.tflite")
    entry = npu_report(file, npu, compiled).to_dict()
    if compiled is None:
        return entry
    return {**entry, "compiled": compiled.name, "sha256": manifest.sha256(compiled)}


def _counted(left: list[tuple[str, str]]) -> tuple[OnCpu, ...]:
    return tuple(OnCpu(kind, count, why) for (kind, why), count in Counter(left).items())


def _read(path: Path) -> bytes:
    """Return the TFLite file at `path`.

    Raises:
        UserError: there is none, or it is damaged.
    """
    kind, inside = located(path)
    if kind != ".tflite" or not inside.exists():
        raise UserError(
            f"{path} is no .tflite file. NPUs take int8 TFLite files: keras-resnet export MODEL "
            "--formats tflite-int8"
        )
    open_given(path)  # refuses a damaged file
    return read_array(inside) if inside.is_dir() else inside.read_bytes()
