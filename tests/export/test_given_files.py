"""Files that other people made: forged, damaged, or made to fill the memory."""

import io
import json
import shutil
import sys
import types
import zipfile

import h5py
import numpy as np
import pytest
from helpers import GOLDEN
from PIL import Image

from keras_resnet.cli.main import main
from keras_resnet.errors import UserError
from keras_resnet.export import manifest
from keras_resnet.export.reference import read_reference
from keras_resnet.export.runtimes import trial
from keras_resnet.export.runtimes.keras import load_keras
from keras_resnet.export.runtimes.open import open_file
from keras_resnet.files import MOST_TEXT, read_arrays, read_json
from keras_resnet.images.read import read_image
from keras_resnet.recipes.runs.folder import find_run
from keras_resnet.recipes.runs.sources import find
from keras_resnet.weights.foreign.torch_files import read_state_dict

OLD = GOLDEN / "before_rooms"
FLOAT = "test_resnet-float32.tflite"
MIB = 2**20


@pytest.fixture
def exports(tmp_path):
    return shutil.copytree(OLD / "exports", tmp_path / "exports")


@pytest.fixture
def picture(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (32, 32, 3), "uint8")
    Image.fromarray(pixels).save(tmp_path / "x.png")
    return str(tmp_path / "x.png")


def _swell(archive, name, mebibytes=300, head=b""):
    with archive.open(name, "w", force_zip64=True) as file:
        file.write(head)
        for _ in range(mebibytes):
            file.write(b"\n" * MIB)


def _edit(folder, change, name="manifest.json"):
    content = json.loads((folder / name).read_text(encoding="utf-8"))
    change(content)
    (folder / name).write_text(json.dumps(content), encoding="utf-8")


# Archives -----------------------------------------------------------------------------------------


def test_class_names_that_would_fill_the_memory_are_refused(exports):
    path = exports / FLOAT
    content = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        start = min(entry.header_offset for entry in archive.infolist())
    path.write_bytes(content[:start])
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        _swell(archive, "labels.txt", 20)
    (exports / "labels.txt").unlink()
    (exports / "manifest.json").unlink()
    with pytest.raises(UserError, match=r"20,971,520 bytes; at most 16,777,216"):
        find(str(path))


def _rewritten(path, change):
    with zipfile.ZipFile(OLD / "test_resnetv2.keras") as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        change(archive, content)
        for name, data in content.items():
            archive.writestr(name, data)
    return path


def test_a_keras_file_that_unpacks_to_too_much_is_refused(tmp_path):
    def swell(archive, content):
        del content["model.weights.h5"]
        _swell(archive, "model.weights.h5")

    path = _rewritten(tmp_path / "x.keras", swell)
    assert path.stat().st_size < MIB
    with pytest.raises(UserError, match="would unpack to 31"):
        load_keras(path)


def test_weights_that_declare_more_than_they_store_are_refused(tmp_path):
    def declare(archive, content):
        stream = io.BytesIO(content["model.weights.h5"])
        with h5py.File(stream, "a") as file:
            file.create_dataset("large", (2**28,), "f4", chunks=(2**16,), compression="gzip")
        content["model.weights.h5"] = stream.getvalue()

    path = _rewritten(tmp_path / "x.keras", declare)
    with pytest.raises(UserError, match="would unpack to 1,07"):
        load_keras(path)
    assert load_keras(_rewritten(tmp_path / "good.keras", lambda *_: None)).layers


def _header(shape):
    stream = io.BytesIO()
    form = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, form)
    return stream.getvalue()


def test_a_reference_that_would_fill_the_memory_is_refused(exports):
    path = exports / "reference.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        _swell(archive, "images.npy", 300, _header((300, 1024, 1024, 1)))
    with pytest.raises(UserError, match="would unpack to 31"):
        read_reference(exports)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("images.npy", _header((10**13, 1024, 1024, 1)))
    with pytest.raises(UserError, match="declares more numbers than it has"):
        read_reference(exports)


@pytest.mark.parametrize(
    "change",
    [
        {"images": np.zeros((3, 8), "uint8")},
        {"outputs": np.zeros((2, 10), "float32")},
        {"images": np.zeros((3, 32, 32, 3), "complex64")},
        {"source": np.array(7)},
        {"labels": np.array(7)},
        {"more": np.zeros(3)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_reference_with_arrays_that_do_not_belong_together_is_refused(exports, change):
    good = {
        "images": np.zeros((3, 32, 32, 3), "uint8"),
        "outputs": np.full((3, 10), 0.1, "float32"),
        "source": np.array("noise"),
    }
    np.savez(exports / "reference.npz", **good)
    assert read_reference(exports).activation == "softmax"
    np.savez(exports / "reference.npz", **{**good, **change})
    with pytest.raises(UserError, match="missing or damaged"):
        read_reference(exports)


def test_arrays_of_objects_are_not_read(tmp_path):
    np.savez(tmp_path / "x.npz", images=np.array([{"a": 1}], dtype=object))
    with pytest.raises(UserError, match="missing or damaged"):
        read_arrays(tmp_path / "x.npz")


class _Torch:
    """Writes views of one storage as PyTorch does, without PyTorch."""

    def __init__(self, monkeypatch):
        import pickle

        def _rebuild_tensor_v2():
            pass

        class FloatStorage:
            pass

        for name, thing in (("torch", FloatStorage), ("torch._utils", _rebuild_tensor_v2)):
            module = types.ModuleType(name)
            thing.__module__, thing.__qualname__ = name, thing.__name__
            setattr(module, thing.__name__, thing)
            monkeypatch.setitem(sys.modules, name, module)

        class View:
            def __init__(self, size):
                self.size = size

            def __reduce__(self):
                return _rebuild_tensor_v2, (FloatStorage(), 0, (self.size,), (1,), False, None)

        class Pickler(pickle.Pickler):
            def persistent_id(self, thing):
                is_storage = isinstance(thing, FloatStorage)
                return ("storage", FloatStorage, "0", "cpu", 2**16) if is_storage else None

        self.view, self._pickler = View, Pickler

    def save(self, path, content):
        stream = io.BytesIO()
        self._pickler(stream, protocol=2).dump(content)
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("x/data.pkl", stream.getvalue())
            archive.writestr("x/data/0", bytes(4 * 2**16))


def test_many_views_of_one_storage_are_refused(tmp_path, monkeypatch):
    torch = _Torch(monkeypatch)
    size = 2**16
    torch.save(tmp_path / "tied.pth", {"a.weight": torch.view(size), "b.weight": torch.view(size)})
    assert {x.shape for x in read_state_dict(tmp_path / "tied.pth").values()} == {(size,)}
    views = {f"layer{place}.weight": torch.view(size) for place in range(300)}
    torch.save(tmp_path / "views.pth", views)
    with pytest.raises(UserError, match=r"19,660,800 numbers in storages of 65,536"):
        read_state_dict(tmp_path / "views.pth")


# Manifests, summaries, texts ----------------------------------------------------------------------


def _first(**values):
    return lambda content: content["files"][0].update(values)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda content: content.update(files=[]), "files"),
        (lambda content: content.update(files={}), "files: .* is not of type 'array'"),
        (_first(file="../x"), "not in its folder"),
        (_first(file="/dev/zero"), "not in its folder"),
        (_first(file=".."), "not in its folder"),
        (_first(file="a\0b"), "not in its folder"),
        (_first(file="link"), "not in its folder"),
        (_first(file="blob"), "not in its folder"),  # only the Hub's cache has links to blobs/
        (_first(file=["x"]), r"files\[0\]\.file: .* is not of type 'string'"),
        (_first(sha256="x"), "sha256"),
        (lambda content: content["input"].pop("shape"), "'shape' is a required property"),
        (lambda content: content["input"].update(shape=[10**9, 1, 3]), "maximum"),
        (lambda content: content.update(input=None), "input: None is not of type 'object'"),
    ],
)
def test_a_manifest_that_does_not_fit_is_refused(exports, tmp_path, change, message):
    (exports / "link").symlink_to(tmp_path / "elsewhere")
    (exports / "blob").symlink_to(exports.resolve().parents[1] / "blobs" / "x")
    assert manifest.read(exports)
    _edit(exports, change)
    with pytest.raises(UserError, match=message):
        manifest.read(exports)


def test_a_manifest_of_a_later_version_may_have_more_fields(exports):
    _edit(exports, lambda content: content.update(later={"x": 1}))
    _edit(exports, _first(later=1))
    assert manifest.read(exports)["later"] == {"x": 1}


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[" * 10**5, "nested too deeply"),
        ("{", "not valid JSON"),
        (b"\xff\xfe", "not a text file in UTF-8"),
        ("9" * 10**5, "not valid JSON"),
        (" " * (MOST_TEXT + 1), "at most 16,777,216 are read"),
    ],
    ids=["deep", "cut", "bytes", "digits", "large"],
)
def test_json_that_is_none_is_a_message(tmp_path, text, message):
    (tmp_path / "x.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UserError, match=message):
        read_json(tmp_path / "x.json")


@pytest.mark.parametrize(
    "change",
    [
        lambda content: content.pop("test"),
        lambda content: content.update(test=3),
        lambda content: content["test"].update(accuracy="high"),
        lambda content: content["test"].update(protocol={"resize": 10**12, "size": 1}),
        lambda content: content.update(data=None),
        lambda content: content.update(kernels=[1]),
    ],
)
def test_a_summary_that_does_not_fit_is_refused(tmp_path, change):
    folder = shutil.copytree(OLD / "run", tmp_path / "run")
    assert find_run(folder).origin()
    _edit(folder, change, "summary.json")
    with pytest.raises(UserError, match=r"summary\.json is not valid"):
        find_run(folder).origin()


# Changed and damaged files ------------------------------------------------------------------------


def test_predict_says_that_an_exported_file_was_changed(exports, picture, capsys):
    path = exports / FLOAT
    assert main(["predict", str(path), picture]) == 0
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 64
    path.write_bytes(content)
    assert main(["predict", str(path), picture]) == 2
    assert "is not the file that was exported" in capsys.readouterr().err
    (exports / "manifest.json").unlink()  # then nothing tells
    assert main(["predict", str(path), picture]) in (0, 2)


def test_weights_that_are_not_finite_are_a_message(exports, picture, capsys):
    path = exports / FLOAT
    content = bytearray(path.read_bytes())
    size = len(content) // 4 * 4
    numbers = np.frombuffer(bytes(content[:size]), "<f4").copy()
    kernels = np.flatnonzero((np.abs(numbers) > 1e-3) & (np.abs(numbers) < 2))
    numbers[kernels[1000:4000]] = np.nan
    path.write_bytes(numbers.tobytes() + bytes(content[size:]))
    (exports / "manifest.json").unlink()
    assert main(["predict", str(path), picture]) == 2
    error = capsys.readouterr().err
    assert "not finite" in error or "cannot" in error.lower()
    assert error.count("\n") <= 3


def test_a_name_that_is_no_text_is_a_message(exports):
    path = exports / FLOAT
    content = path.read_bytes()
    assert b"stem_conv" in content
    path.write_bytes(content.replace(b"stem_conv", b"stem\xff\xfe\xfd\xfc\xfb"))
    with pytest.raises(UserError, match="Cannot open"):
        open_file(path)


def test_a_file_that_crashes_its_engine_is_a_message(tmp_path, monkeypatch):
    """The other process ends as it does after a fault in C++."""
    (tmp_path / "x.tflite").write_bytes((OLD / "exports" / FLOAT).read_bytes())
    (tmp_path / "good.tflite").write_bytes((OLD / "exports" / FLOAT).read_bytes())
    trial.require_survived([tmp_path / "x.tflite"])
    (tmp_path / "ai_edge_litert").mkdir()
    (tmp_path / "ai_edge_litert" / "__init__.py").write_text("import os; os.abort()")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    trial.require_survived([tmp_path / "x.tflite"])  # it is known
    with pytest.raises(UserError, match=r"good\.tflite crashes its engine \(SIGABRT\)"):
        trial.require_survived([tmp_path / "x.tflite", tmp_path / "good.tflite"])


# Images -------------------------------------------------------------------------------------------


def test_pillow_starts_no_program(tmp_path, monkeypatch):
    """An EPS makes Pillow start `gs`, whatever the file is called."""
    mark = tmp_path / "mark"
    (tmp_path / "gs").write_text(f"#!/bin/sh\ntouch {mark}\n")
    (tmp_path / "gs").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    eps = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\nshowpage\n"
    (tmp_path / "x.jpg").write_bytes(eps)
    assert Image.open(tmp_path / "x.jpg").format == "EPS"  # Pillow itself takes it
    with pytest.raises(UserError, match="not an image of a known kind"):
        read_image(tmp_path / "x.jpg", (8, 8))
    assert not mark.exists()
