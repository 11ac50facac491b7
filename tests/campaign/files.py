"""Files from other people: damaged, forged, swollen, and SavedModels that want to do harm."""

from __future__ import annotations

import atexit
import contextlib
import functools
import io
import json
import pickle
import shutil
import sys
import tempfile
import types
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import numpy as np

from campaign import invariant, material

NAME = "files"
TRIALS, SHARE, SECONDS = 1500, 8, 300.0

_WORDS = (b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\x80", b"\0\0\0\0", b"\1\0\0\0")
_VALUES: tuple[Any, ...] = (
    *(None, True, -1, 0, 10**8, 10**23, 1e300, float("nan"), "", "x", "a" * 10**5, [], {}),
    *("../../x", "/dev/zero", "/etc/passwd", "\0", "\udce9", "\x1b[31m", ["x"], {"x": 1}, [[[]]]),
)
_HARM = "the harm of a SavedModel"


def trial(seed: int, folder: Path) -> str | None:
    """Open one bad file with a verb that reads it."""
    random = Random(seed)
    kinds = (_damaged, _damaged, _damaged, _edited, _swollen, _hostile, _not_finite, _damaged_run)
    arguments = random.choice(kinds)(random, folder)
    problem = invariant.call(arguments, cwd=folder)
    if problem is None and list(folder.rglob("harm*")):
        problem = "a file was written by the operations of a SavedModel"
    return problem and f"{problem} [{' '.join(arguments)}]"


# Model files, byte by byte ------------------------------------------------------------------------


def _damaged(random: Random, folder: Path) -> list[str]:
    """Damage a model file, and use it."""
    model, target = random.choice(MODELS)(folder)
    spoil(random, target)
    if model.suffix == ".tflite" and random.random() < 0.2:
        good = material.GOOD / "exports" / "test_resnet-float32.tflite"
        return ["layers", str(good), str(model), "--count", "2", *_images(folder)]
    return _predict(folder, model)


def _tflite(folder: Path, kind: str) -> tuple[Path, Path]:
    path = Path(shutil.copy(material.GOOD / "exports" / f"test_resnet-{kind}.tflite", folder))
    return path, path


def _keras(folder: Path) -> tuple[Path, Path]:
    path = material.keras_file(folder)
    return path, path


def _saved_model(folder: Path, name: str) -> tuple[Path, Path]:
    copy = shutil.copytree(material.GOOD / "exports" / "saved_model", folder / "saved_model")
    (target,) = copy.rglob(name)
    return copy, target


def _onnx(folder: Path) -> tuple[Path, Path]:
    path = Path(shutil.copy(_made() / "small.onnx", folder))
    return path, path


def _openvino(folder: Path, ending: str) -> tuple[Path, Path]:
    for part in (".xml", ".bin"):
        shutil.copy(_made() / f"small{part}", folder)
    return folder / "small.xml", folder / f"small{ending}"


MODELS: tuple[Callable[[Path], tuple[Path, Path]], ...] = (
    functools.partial(_tflite, kind="float32"),
    functools.partial(_tflite, kind="int8"),
    functools.partial(_tflite, kind="int8"),
    _keras,
    functools.partial(_saved_model, name="saved_model.pb"),
    functools.partial(_saved_model, name="variables.index"),
    functools.partial(_saved_model, name="variables.data-00000-of-00001"),
    _onnx,
    functools.partial(_openvino, ending=".xml"),
    functools.partial(_openvino, ending=".bin"),
)


@functools.cache
def _made() -> Path:
    """A small network in ONNX's and OpenVINO's formats: 32×32 pixels to three classes."""
    import onnx
    import openvino
    from onnx import TensorProto, helper

    folder = Path(tempfile.mkdtemp(prefix="campaign-made-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    random = np.random.default_rng(0)
    arrays = {"kernel": (4, 3, 3, 3), "dense": (4, 3), "bias": (3,)}
    weights = [
        onnx.numpy_helper.from_array(random.normal(size=shape).astype("float32"), name)
        for name, shape in arrays.items()
    ]
    nodes = [
        helper.make_node("Transpose", ["images"], ["first"], perm=[0, 3, 1, 2]),
        helper.make_node("Conv", ["first", "kernel"], ["features"], strides=[2, 2]),
        helper.make_node("Relu", ["features"], ["positive"]),
        helper.make_node("GlobalAveragePool", ["positive"], ["pooled"]),
        helper.make_node("Flatten", ["pooled"], ["flat"]),
        helper.make_node("Gemm", ["flat", "dense", "bias"], ["logits"]),
        helper.make_node("Softmax", ["logits"], ["predictions"]),
    ]
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
        for name, shape in (("images", ["batch", 32, 32, 3]), ("predictions", ["batch", 3]))
    ]
    graph = helper.make_graph(nodes, "small", ends[:1], ends[1:], weights)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save_model(model, str(folder / "small.onnx"))
    openvino.save_model(openvino.convert_model(str(folder / "small.onnx")), folder / "small.xml")
    return folder


def spoil(random: Random, path: Path) -> None:
    """Cut a file off, or change some of its bytes: anywhere, at its head, or at its end."""
    content = bytearray(path.read_bytes())
    if random.random() < 0.1:
        path.write_bytes(content[: random.randrange(len(content))])
        return
    length = len(content)
    first, last = random.choice(
        [(0, length), (0, min(4096, length)), (max(0, length - 60000), length)]
    )
    for _ in range(random.choice([1, 1, 3, 30])):
        place = random.randrange(first, last)
        if random.random() < 0.5:
            content[place] ^= 1 << random.randrange(8)
        else:
            content[place : place + 4] = random.choice(_WORDS)
    path.write_bytes(content[:length])


def _predict(folder: Path, model: Path, *more: str) -> list[str]:
    """Return the arguments; the file lies alone, so no manifest tells that it was changed."""
    (image,) = _images(folder)[1:]
    return ["predict", str(model.relative_to(folder)), f"{image}/0.png", *more]


def _images(folder: Path) -> list[str]:
    if not (folder / "images").is_dir():
        (folder / "images").mkdir()
        for place in range(2):
            material.picture(folder / "images" / f"{place}.png", place)
    return ["--images", "images"]


# What lies beside the models ----------------------------------------------------------------------


def _edited(random: Random, folder: Path) -> list[str]:
    """Change some values of a manifest or of a run's JSON files."""
    run = material.run_folder(folder)
    (run / "start.json").write_text(json.dumps({"started_from": "run", "technique": "qat"}))
    name = random.choice(
        ["exports/manifest.json", "exports/manifest.json", "summary.json", "start.json"]
    )
    content = json.loads((run / name).read_text(encoding="utf-8"))
    for _ in range(random.choice([1, 1, 2, 5])):
        _change(random, content)
    text = json.dumps(content)
    if random.random() < 0.1:
        text = random.choice(["", "null", "3", "[" * 10**5, "{" * 5000, text[:-1], "9" * 10**5])
    (run / name).write_text(text, encoding="utf-8")
    image = f"{_images(folder)[1]}/0.png"
    tflite = "run/exports/test_resnet-float32.tflite"
    if name.startswith("exports"):
        lines = [
            ["check", "run/exports"],
            ["predict", tflite, image],
            ["predict", "run/exports", image],
        ]
        return random.choice([*lines, ["layers", "run/exports", "--count", "2"]])
    return random.choice([["runs", "."], ["predict", "run", image], ["predict", tflite, image]])


def _change(random: Random, content: Any) -> None:
    """Replace, remove or add one value, at any depth."""
    while True:
        keys = list(content) if isinstance(content, dict) else list(range(len(content)))
        if not keys:
            return
        key = random.choice(keys)
        if isinstance(content[key], dict | list) and content[key] and random.random() < 0.8:
            content = content[key]
            continue
        if random.random() < 0.2:
            del content[key]
        else:
            content[key] = random.choice(_VALUES)
        return


def _damaged_run(random: Random, folder: Path) -> list[str]:
    """Damage one of the files of a run or of an export folder, and read it."""
    run = material.run_folder(folder)
    names = ["config.toml", "labels.txt", "log.csv", "summary.json", "model.keras"]
    names += ["exports/manifest.json", "exports/reference.npz", "exports/labels.txt"]
    name = random.choice(names)
    spoil(random, run / name)
    image = f"{_images(folder)[1]}/0.png"
    if name.startswith("exports"):
        return random.choice(
            [["check", "run/exports"], ["predict", "run/exports/saved_model", image]]
        )
    return random.choice([["runs", "."], ["predict", "run", image]])


# Small files that ask for much --------------------------------------------------------------------


def _swollen(random: Random, folder: Path) -> list[str]:
    """Write a small file that would fill the memory."""
    return random.choice(_BOMBS)(random, folder)


def _labels(random: Random, folder: Path) -> list[str]:
    path, _ = _tflite(folder, "float32")
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        start = min((entry.header_offset for entry in archive.infolist()), default=len(content))
    path.write_bytes(content[:start])
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        _zeros(archive, "labels.txt", random)
    return _predict(folder, path)


def _parts(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _weights(random: Random, folder: Path) -> list[str]:
    path = material.keras_file(folder)
    rest = _parts(path)
    del rest["model.weights.h5"]
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in rest.items():
            archive.writestr(name, content)
        _zeros(archive, "model.weights.h5", random)
    return _predict(folder, path)


def _numbers(random: Random, folder: Path) -> list[str]:
    import h5py

    path = material.keras_file(folder)
    rest = _parts(path)
    stream = io.BytesIO(rest["model.weights.h5"])
    with h5py.File(stream, "a") as file:
        found: list[str] = []
        file.visititems(lambda name, item: found.append(name) if hasattr(item, "shape") else None)
        name = random.choice(found)
        del file[name]
        file.create_dataset(name, (2 ** random.randrange(28, 40),), "f4", chunks=(2**20,))
    rest["model.weights.h5"] = stream.getvalue()
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in rest.items():
            archive.writestr(name, content)
    return _predict(folder, path)


def _reference(random: Random, folder: Path) -> list[str]:
    run = material.run_folder(folder)
    shape = (2 ** random.randrange(9, 40), 1024, 1024, 1)
    with zipfile.ZipFile(run / "exports" / "reference.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        header = io.BytesIO()
        form = {"descr": "|u1", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(header, form)
        _zeros(archive, "images.npy", random, header.getvalue())
    return ["check", "run/exports"]


def _views(random: Random, folder: Path) -> list[str]:
    """A state dict of thousands of views of one storage."""
    numbers, count = 2**20, random.randrange(100, 3000)
    stream = io.BytesIO()
    with _torch():
        _Views(stream, protocol=2).dump({f"layer{i}.weight": _View(numbers) for i in range(count)})
    with zipfile.ZipFile(folder / "views.pth", "w") as archive:
        archive.writestr("views/data.pkl", stream.getvalue())
        archive.writestr("views/data/0", bytes(4 * numbers))
    return ["weights", "import", "resnet18", "views.pth", "--out", "new.weights.h5"]


class _Storage:
    """Stands for `torch.FloatStorage` in a pickle."""


class _View:
    """Written as PyTorch writes a tensor that is a view of the whole storage."""

    def __init__(self, numbers: int) -> None:
        self.numbers = numbers

    def __reduce__(self) -> tuple[Any, ...]:
        size = self.numbers
        return _rebuild_tensor_v2, (_Storage(), 0, (size,), (1,), False, None)


def _rebuild_tensor_v2() -> None:
    """Stands for PyTorch's function in a pickle."""


class _Views(pickle.Pickler):
    def persistent_id(self, thing: Any) -> Any:
        return ("storage", _Storage, "0", "cpu", 2**20) if isinstance(thing, _Storage) else None


@contextlib.contextmanager
def _torch() -> Iterator[None]:
    """Let the two names stand in PyTorch's modules, which need not be installed."""
    modules = {name: types.ModuleType(name) for name in ("torch", "torch._utils")}
    for module, thing, name in (
        ("torch", _Storage, "FloatStorage"),
        ("torch._utils", _rebuild_tensor_v2, "_rebuild_tensor_v2"),
    ):
        setattr(modules[module], name, thing)
        thing.__module__, thing.__qualname__ = module, name  # type: ignore[attr-defined]
    with mock.patch.dict(sys.modules, modules):
        yield


def _zeros(archive: zipfile.ZipFile, name: str, random: Random, head: bytes = b"") -> None:
    """Write an entry of almost 300 MB in less than 1 MB; larger ones only take longer to make."""
    with archive.open(name, "w", force_zip64=True) as file:
        file.write(head)
        for _ in range(random.randrange(260, 300)):
            file.write(b"\n" * 2**20)


_BOMBS: tuple[Callable[[Random, Path], list[str]], ...] = (
    _labels,
    _weights,
    _numbers,
    _reference,
    _views,
)


# SavedModels that do more than classify -----------------------------------------------------------


def _hostile(random: Random, folder: Path) -> list[str]:
    """Put an operation that writes a file into a SavedModel, in one of many places."""
    from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

    model, program = _saved_model(folder, "saved_model.pb")
    content = SavedModel.FromString(program.read_bytes())
    graph = content.meta_graphs[0]
    harm = str(folder / "harm")
    _PLACES[random.randrange(len(_PLACES))](random, graph, harm)
    program.write_bytes(content.SerializeToString())
    return _predict(folder, model)


def _in_a_function(random: Random, graph: Any, harm: str) -> None:
    function = random.choice(list(graph.graph_def.library.function))
    names = [_constant(function.node_def, f"{_HARM} {part}", part) for part in (harm, "harm")]
    node = function.node_def.add(name="harm", op="WriteFile")
    node.input.extend(f"{name}:output:0" for name in names)
    function.control_ret["harm"] = "harm"
    function.signature.control_output.append("harm")


def _through_the_saver(random: Random, graph: Any, harm: str) -> None:
    """Call the function that saves the variables, with a place of the attacker's choice."""
    library = list(graph.graph_def.library.function)
    saver = next(f for f in library if any(node.op == "SaveV2" for node in f.node_def))
    others = [function for function in library if function is not saver]
    function = random.choice(others)
    name = _constant(function.node_def, f"{_HARM} place", harm)
    node = function.node_def.add(name="harm", op="StatefulPartitionedCall")
    node.attr["f"].func.name = saver.signature.name
    node.input.append(f"{name}:output:0")
    function.control_ret["harm"] = "harm"
    function.signature.control_output.append("harm")


def _renamed(random: Random, graph: Any, harm: str) -> None:
    """Make another operation out of one of the graph's own."""
    function = random.choice(list(graph.graph_def.library.function))
    if function.node_def:
        kinds = (
            "PrintV2",
            "PyFunc",
            "EagerPyFunc",
            "ReadFile",
            "ImmutableConst",
            "Abort",
            "Nothing",
        )
        random.choice(list(function.node_def)).op = random.choice(kinds)


def _constant(nodes: Any, name: str, text: str) -> str:
    plain = name.replace(" ", "_").replace("/", "_")
    node = nodes.add(name=plain, op="Const")
    node.attr["dtype"].type = 7  # DT_STRING
    node.attr["value"].tensor.dtype = 7
    node.attr["value"].tensor.tensor_shape.SetInParent()
    node.attr["value"].tensor.string_val.append(text.encode())
    return plain


_PLACES = (_in_a_function, _through_the_saver, _renamed)


# Numbers that are none ----------------------------------------------------------------------------


def _not_finite(random: Random, folder: Path) -> list[str]:
    """Put NaN or infinity into some weights."""
    model, target = random.choice(
        [
            functools.partial(_tflite, kind="float32"),
            _onnx,
            functools.partial(_openvino, ending=".bin"),
            functools.partial(_saved_model, name="variables.data-00000-of-00001"),
        ]
    )(folder)
    content = bytearray(target.read_bytes())
    size = len(content) // 4 * 4
    numbers = np.frombuffer(bytes(content[:size]), "<f4").copy()
    like_weights = np.flatnonzero((np.abs(numbers) > 1e-3) & (np.abs(numbers) < 2))
    chosen = [int(like_weights[random.randrange(len(like_weights))]) for _ in range(40)]
    numbers[chosen] = random.choice([np.nan, np.inf, -np.inf, 1e38])
    target.write_bytes(numbers.tobytes() + bytes(content[size:]))
    with contextlib.suppress(OSError):
        (folder / "labels.txt").unlink()
    return _predict(folder, model)
