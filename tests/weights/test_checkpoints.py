"""Checkpoints as people's programs write them: the weights are found, and nothing else is run.

tests/peers/checkpoints.py wrote the files with PyTorch.
"""

import pickle
import zipfile

import numpy as np
import pytest
from helpers import GOLDEN, foreign_files
from safetensors.numpy import load_file, save_file

import keras_resnet
from keras_resnet.cli.main import main
from keras_resnet.errors import UserError
from keras_resnet.weights.foreign.read import contents
from keras_resnet.weights.foreign.torch_files import read_shapes, read_state_dict
from keras_resnet.weights.foreign.torch_weights import weights_of

FILES = GOLDEN / "torch_files"
SHAPES = {
    "conv1.weight": (2, 3, 1, 1),
    "bn1.weight": (2,),
    "bn1.bias": (2,),
    "bn1.running_mean": (2,),
    "bn1.running_var": (2,),
    "fc.weight": (3, 2),
    "fc.bias": (3,),
}
RESNET = "ResNet, ResNeXt, Wide ResNet or SE-ResNet"


def expected(name, offset=0.0):
    """The numbers of `network` in tests/peers/checkpoints.py."""
    return (np.arange(np.prod(SHAPES[name])) / 4 + offset + len(name)).reshape(SHAPES[name])


def assert_is_network(entries, offset=0.0):
    found = weights_of(entries)
    assert {name: array.shape for name, array in found.items()} == SHAPES
    for name, array in found.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, expected(name, offset))


@pytest.mark.parametrize(
    "file", ["with_objects.pt", "old_with_objects.pt", "deep.pt", "bfloat16.pt"]
)
def test_the_weights_are_found(file):
    """Whatever they are called and whatever lies beside them; bfloat16 is exact in float32."""
    assert_is_network(read_state_dict(FILES / file))
    assert weights_of(read_shapes(FILES / file)) == SHAPES


def test_several_state_dicts_are_named_and_chosen(capsys):
    path = FILES / "averaged.pt"
    with pytest.raises(UserError, match=r"several state dicts: model, model_ema\. Choose one,"):
        read_state_dict(path)
    assert_is_network(read_state_dict(path, "model"))
    assert_is_network(read_state_dict(path, "model_ema"), 100)  # under two prefixes
    with pytest.raises(UserError, match=r"state dict 'model_em'. Did you mean 'model_ema'"):
        read_shapes(path, "model_em")
    command = ["weights", "import", str(path), "--as", "resnet20"]
    assert main(command) == 2
    assert "--state-dict model_ema (in Python: state_dict='model_ema')" in capsys.readouterr().err
    assert main([*command, "--state-dict", "model_ema"]) == 2  # of no network that we have
    assert "do not fit 'stem_conv' of 'resnet20'" in capsys.readouterr().err


def test_one_state_dict_under_two_names_is_one(tmp_path):
    entries = {"conv1.weight": np.ones(1)}
    write_old(tmp_path / "same.pt", {"model": entries, "model_ema": entries})
    assert list(read_shapes(tmp_path / "same.pt")) == ["conv1.weight"]


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("whole_model.pth", r'torch\.load\("whole_model\.pth", weights_only=False\)\.state_dict'),
        (
            "whole_model_inside.pt",
            r'weights_only=False\)\["model"\]\.state_dict\(\), "weights\.pt"',
        ),
        (
            "torchscript.pt",
            r'torch\.save\(torch\.jit\.load\("torchscript\.pt"\)\.state_dict\(\), "w',
        ),
    ],
)
def test_programs_are_refused_with_the_line_that_saves_their_weights(file, message):
    for read in (read_state_dict, read_shapes):
        with pytest.raises(UserError, match=message):
            read(FILES / file)


def test_a_program_of_torch_export_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "net.pt2", "w") as archive:
        archive.writestr("net/models/model.json", "{}")  # as torch 2.14 calls it
        archive.writestr("net/data/sample_inputs/model.pt", b"")
    with pytest.raises(UserError, match=r'torch\.export\.load\("net\.pt2"\)\.state_dict, "weights'):
        read_state_dict(tmp_path / "net.pt2")


class Storage:
    """Stands for `torch.FloatStorage` in a file of the old format."""


class Old(pickle.Pickler):
    """Arrays as PyTorch before 1.6 wrote tensors, with the storages behind the pickle."""

    def __init__(self, file):
        super().__init__(file, protocol=2)
        self.arrays = {}
        self.has_source = False

    def persistent_id(self, each):
        if isinstance(each, Key):
            return ("storage", Storage, each.key, "cpu", 1, None)
        if each is Program and not self.has_source:
            self.has_source = True
            return ("module", Program, "program.py", "import os")
        return None

    def reducer_override(self, each):
        if not isinstance(each, np.ndarray):
            return NotImplemented
        key = str(len(self.arrays))
        self.arrays[key] = each.astype("float32")
        return rebuild, (Key(key), 0, each.shape, tuple(s // each.itemsize for s in each.strides))


class Key:
    """Of a storage."""

    def __init__(self, key):
        self.key = key


def rebuild(*arguments):
    """Stands for `torch._utils._rebuild_tensor_v2`."""
    pytest.fail("was run")


class Program:
    """Stands for a module of the program that wrote the file."""

    def __init__(self):
        self._modules = {}


def write_old(path, content):
    """Write `content` as PyTorch before 1.6; only here it is done without PyTorch."""
    with path.open("wb") as file:
        for head in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True}):
            pickle.dump(head, file, protocol=2)
        pickler = Old(file)
        pickler.dump(content)
        pickle.dump(list(pickler.arrays), file, protocol=2)
        for array in pickler.arrays.values():
            file.write(array.size.to_bytes(8, "little") + array.tobytes())
    names = {
        f"{__name__}\nStorage": "torch\nFloatStorage",
        f"{__name__}\nrebuild": "torch._utils\n_rebuild_tensor_v2",
    }
    data = path.read_bytes()
    for ours, theirs in names.items():
        data = data.replace(ours.encode(), theirs.encode())
    path.write_bytes(data)


def test_a_whole_module_of_the_old_format_is_refused(tmp_path):
    write_old(tmp_path / "old.pt", {"net": Program()})
    with pytest.raises(UserError, match=r'module \(.*Program\).*weights_only=False\)\["net"\]'):
        read_state_dict(tmp_path / "old.pt")


class Attack:
    """An object that runs a program when it is read as a pickle."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("name", ["system", "eval", "exec", "getattr", "import_module"])
def test_nothing_is_run(name, tmp_path, monkeypatch):
    """Also where the weights are all right."""
    import builtins
    import importlib
    import os

    monkeypatch.chdir(tmp_path)
    owner = {"system": os, "import_module": importlib}.get(name, builtins)
    attack = Attack(getattr(owner, name), "open('evil', 'w')")
    write_old(tmp_path / "evil.pt", {"net": {"conv1.weight": np.ones(1)}, "args": attack})
    with pytest.raises(UserError, match=rf"it holds '\w+\.{name}', which is not part"):
        read_state_dict(tmp_path / "evil.pt")
    assert [path.name for path in tmp_path.iterdir()] == ["evil.pt"]


def run_by_a_package(*arguments):
    """A function of another package, which a file names."""
    pytest.fail("was run")


def test_objects_of_other_packages_are_not_imported(tmp_path):
    beside = Attack(run_by_a_package, 1)
    path = tmp_path / "file.pt"
    write_old(path, {"net": {"conv1.weight": np.ones(1)}, "args": beside, "again": [beside]})
    path.write_bytes(path.read_bytes().replace(__name__.encode(), b"no_such_package.at_all"))
    np.testing.assert_array_equal(read_state_dict(path)["conv1.weight"], np.ones(1))


def test_prefixes_common_to_all_entries_are_left_out(tmp_path):
    """And stay where only some have them, as in a network with a `model` and a loss."""
    for prefix in ("module.", "_orig_mod.", "model.", "backbone.", "module._orig_mod.model."):
        assert list(weights_of({f"{prefix}conv1.weight": 0, f"{prefix}fc.bias": 0})) == [
            "conv1.weight",
            "fc.bias",
        ]
    some = ["model.conv1.weight", "fc.bias"]
    assert list(weights_of(dict.fromkeys(some))) == some
    assert weights_of({}) == {}
    model = keras_resnet.create_model("test_resnet")
    entries = foreign_files.like_peer(model, "resnet18", RESNET)
    save_file({f"backbone.{name}": x for name, x in entries.items()}, tmp_path / "net.safetensors")
    assert contents(tmp_path / "net.safetensors", "test_resnet").classes == 10


def test_bfloat16_in_safetensors(tmp_path):
    import ml_dtypes

    model = keras_resnet.create_model("test_resnet")
    entries = foreign_files.like_peer(model, "resnet18", RESNET)
    halves = {name: array.astype(ml_dtypes.bfloat16) for name, array in entries.items()}
    save_file(halves, tmp_path / "net.safetensors")
    assert load_file(tmp_path / "net.safetensors")["fc.bias"].dtype == ml_dtypes.bfloat16
    from keras_resnet.weights.foreign.read import read

    found = read(tmp_path / "net.safetensors", "test_resnet").weights
    assert {array.dtype for array in found.values()} == {np.dtype("float32")}
    np.testing.assert_array_equal(found["fc.bias"], halves["fc.bias"].astype("float32"))
    with pytest.raises(UserError, match=r"no state dict 'ema' to choose\. Remove --state-dict"):
        contents(tmp_path / "net.safetensors", "test_resnet", "ema")
