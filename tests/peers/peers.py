"""Write the golden logits of torchvision's and timm's networks: tests/golden/parity/*.npz.

In an environment of its own, which needs neither this package nor TensorFlow:

    pip install torch torchvision timm && python tests/peers/peers.py [REGISTRY_NAME ...]

Each network is built with few classes, filled with numbers that follow from its parameters' names
(filling.py) and run in inference mode. A file holds what the test of parity cannot know without
the peer: the names and shapes of the state dict, the logits, the account of the full network.
Without arguments it also writes small weight files as PyTorch does: tests/golden/torch_files/*.
Networks of `DILATED` get a second file, tests/golden/parity/dilated/*.npz: logits and maps of every
stage, with the strides of the last stages left out.
"""

from __future__ import annotations

import io
import json
import lzma
import sys
import warnings
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import timm
import torch
import torchvision
from filling import images, sample, state
from torch.utils.flop_counter import FlopCounterMode

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "parity"
CLASSES = 16
_PERIOD = 251  # numbers; a prime, so that channels differ


@dataclass(frozen=True)
class Peer:
    """A network of another library. Keys of `PEERS` are our registry names."""

    library: str
    name: str
    size: int = 72  # 36, 18, 9, 5, 3 pixels in the stages: odd ones too
    native_size: int = 224  # of the account
    # Variance of the kernels times their fan-in. With more, activations outgrow the offsets (the
    # BN normalises by numbers that are not theirs); with less, the image's part of them fades.
    gain: float = 1.0
    # Auxiliary classifiers by our name: their module, and the one whose output it takes.
    auxiliary: dict[str, tuple[str, str]] = field(default_factory=dict)
    options: dict[str, object] = field(default_factory=dict)

    def build(self, classes: int) -> torch.nn.Module:
        """Their constructor, without pretrained weights, in inference mode."""
        if self.library == "timm":
            return timm.create_model(self.name, num_classes=classes, **self.options).eval()
        create: Callable[..., torch.nn.Module] = torchvision.models.get_model
        return create(self.name, weights=None, num_classes=classes, **self.options).eval()

    def with_output_stride(self, stride: int) -> Peer:
        """The same network with an output stride of 8, 16 or 32."""
        if self.library == "timm":
            return replace(self, options={"output_stride": stride})
        left_out = [stride < total for total in (8, 16, 32)]
        return replace(self, options={"replace_stride_with_dilation": left_out})

    def stages(self, model: torch.nn.Module) -> list[str]:
        """The modules whose outputs are the feature pyramid; timm's `features_only=True` says it.

        Without the map of the stem, which ours leaves out.
        """
        if self.library == "timm":
            return [info["module"] for info in model.feature_info[1:]]
        return [f"layer{number}" for number in range(1, 5)]


def _torchvision(name: str, **fields: object) -> Peer:
    return Peer("torchvision", name, **fields)  # type: ignore[arg-type]


def _timm(name: str, **fields: object) -> Peer:
    return Peer("timm", name, **fields)  # type: ignore[arg-type]


PEERS: dict[str, Peer] = {
    "resnet18": _torchvision("resnet18"),
    "resnet34": _torchvision("resnet34"),
    "resnet50v1_5": _torchvision("resnet50"),
    "resnet101v1_5": _torchvision("resnet101"),
    "resnet152v1_5": _torchvision("resnet152", gain=0.8),
    "resnext50_32x4d": _torchvision("resnext50_32x4d"),
    "resnext101_32x4d": _timm("resnext101_32x4d"),
    "resnext101_32x8d": _torchvision("resnext101_32x8d"),
    "resnext101_64x4d": _torchvision("resnext101_64x4d"),
    "wide_resnet50_2": _torchvision("wide_resnet50_2"),
    "wide_resnet101_2": _torchvision("wide_resnet101_2"),
    "resnet50c": _timm("resnet50c"),
    "resnet50s": _timm("resnet50s"),
    **{f"resnet{depth}d": _timm(f"resnet{depth}d") for depth in (18, 34, 50, 101)},
    **{f"resnet{depth}d": _timm(f"resnet{depth}d", gain=0.8) for depth in (152, 200)},
    **{f"seresnet{depth}": _timm(f"seresnet{depth}") for depth in (18, 34, 50, 101, 152)},
    **{
        f"seresnext{form}": _timm(f"seresnext{form}")
        for form in ("50_32x4d", "101_32x4d", "101_32x8d", "101_64x4d")
    },
    **{f"resnetv2_{depth}": _timm(f"resnetv2_{depth}") for depth in (18, 34, 50, 101, 152)},
    **{
        f"vgg{depth}{bn}": _torchvision(f"vgg{depth}{bn}", size=224, gain=2.0)
        for depth in (11, 13, 16, 19)
        for bn in ("", "_bn")
    },
    "alexnet": _torchvision("alexnet", size=224, gain=2.0),
    "googlenet_bn": _torchvision(
        "googlenet",
        size=224,
        gain=1.7,
        auxiliary={"aux1": ("aux1", "inception4a"), "aux2": ("aux2", "inception4d")},
        options={"aux_logits": True, "init_weights": False},
    ),
    "inception_v3_torch": _torchvision(
        "inception_v3",
        size=299,
        gain=1.7,
        native_size=299,
        auxiliary={"aux1": ("AuxLogits", "Mixed_6e")},
        options={"aux_logits": True, "init_weights": False},
    ),
    "inception_resnet_v2": _timm("inception_resnet_v2", size=299, native_size=299, gain=1.3),
    **{
        f"densenet{depth}": _torchvision(f"densenet{depth}", gain=2.0)
        for depth in (121, 161, 169, 201)
    },
}

# One of each form of residual network. torchvision's BasicBlock refuses dilation, timm's does not.
DILATED: dict[str, Peer] = {
    "resnet18": _timm("resnet18"),
    **{
        name: PEERS[name]
        for name in (
            *("resnet50v1_5", "resnext50_32x4d", "wide_resnet50_2", "resnet50c", "resnet50s"),
            *("resnet18d", "resnet50d", "seresnet18", "seresnet50", "seresnext50_32x4d"),
            *("resnetv2_18", "resnetv2_50"),
        )
    },
}


def outputs(peer: Peer, model: torch.nn.Module, dtype: torch.dtype) -> dict[str, np.ndarray]:
    """Logits of every classifier in inference mode; their own `forward` leaves auxiliary ones out.

    Returns:
        "predictions" and the auxiliary classifiers' by our name, each (2, CLASSES) in float64.
    """
    model = model.to(dtype)
    result: dict[str, torch.Tensor] = {}
    for name, (head, branch) in peer.auxiliary.items():
        model.get_submodule(branch).register_forward_hook(
            lambda _module, _inputs, output, name=name, head=head: result.update(
                {name: model.get_submodule(head)(output)}
            )
        )
    with torch.inference_mode():
        inputs = torch.from_numpy(images(peer.size).transpose(0, 3, 1, 2).copy()).to(dtype)
        result["predictions"] = model(inputs)
    return {name: logits.double().numpy() for name, logits in result.items()}


def filled(model: torch.nn.Module, gain: float) -> dict[str, tuple[int, ...]]:
    """Fill a network with the numbers of its names, in place; return the shapes of its entries."""
    shapes = {
        key: tuple(value.shape)
        for key, value in model.state_dict().items()
        if not key.endswith("num_batches_tracked")
    }
    weights = {key: torch.from_numpy(value) for key, value in state(shapes, gain).items()}
    model.load_state_dict(weights, strict=False)
    return shapes


def account(peer: Peer) -> dict[str, int]:
    """Trainable parameters and multiply-adds (convolutions, matrix products) for 1000 classes.

    Auxiliary classifiers do not count.
    """
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        model = peer.build(1000)
        model(torch.empty(1, 3, peer.native_size, peer.native_size))
    auxiliary = tuple(f"{head}." for head, _ in peer.auxiliary.values())
    counted = [p.numel() for name, p in model.named_parameters() if not name.startswith(auxiliary)]
    return {"parameters": sum(counted), "multiply_adds": counter.get_total_flops() // 2}


def write(name: str, peer: Peer) -> None:
    """Write one golden file and print what tells whether it can find a mistake."""
    model = peer.build(CLASSES)
    shapes = filled(model, peer.gain)
    single = outputs(peer, model, torch.float32)
    double = outputs(peer, model, torch.float64)
    largest = {head: float(np.abs(logits).max()) for head, logits in double.items()}
    rounding = max(np.abs(single[head] - double[head]).max() / largest[head] for head in double)
    norms = [m for m in model.modules() if isinstance(m, torch.nn.modules.batchnorm._BatchNorm)]
    about = {
        "library": f"{peer.library} {sys.modules[peer.library].__version__}",
        "torch": torch.__version__.partition("+")[0],
        "name": peer.name,
        "size": peer.size,
        "classes": CLASSES,
        "gain": peer.gain,
        "bn_epsilon": sorted({norm.eps for norm in norms}),
        "native_size": peer.native_size,
        **account(peer),
        "shapes": shapes,
    }
    path = GOLDEN / f"{name}.npz"
    encoded = np.frombuffer(json.dumps(about).encode(), np.uint8)
    np.savez_compressed(path, about=encoded, **double)
    spread = min(
        np.abs(logits[0] - logits[1]).max() / largest[head] for head, logits in double.items()
    )
    print(
        f"{name:20} {path.stat().st_size:6} bytes, logits to {largest}, images differ by "
        f"{spread:.2f}, float32 rounding {rounding:.1e}, {about['parameters']:,} parameters, "
        f"{about['multiply_adds']:,} multiply-adds",
        flush=True,
    )


def write_dilated(name: str, peer: Peer) -> None:
    """Write logits and maps (samples of them) for the output strides 8, 16 and 32."""
    arrays = {}
    for stride in (8, 16, 32):
        arrays |= _logits_and_maps(peer.with_output_stride(stride), stride)
    about = {
        "library": f"{peer.library} {sys.modules[peer.library].__version__}",
        "torch": torch.__version__.partition("+")[0],
        "name": peer.name,
    }
    path = GOLDEN / "dilated" / f"{name}.npz"
    path.parent.mkdir(exist_ok=True)
    encoded = np.frombuffer(json.dumps(about).encode(), np.uint8)
    np.savez_compressed(path, about=encoded, **arrays)
    print(f"{name:20} {path.stat().st_size:6} bytes, output strides 8, 16 and 32", flush=True)


def _logits_and_maps(peer: Peer, stride: int) -> dict[str, np.ndarray]:
    """By name: "8 logits", "8 stage1", ..."""
    model = peer.build(CLASSES)
    filled(model, peer.gain)
    found: dict[str, np.ndarray] = {}
    for number, module in enumerate(peer.stages(model), 1):
        model.get_submodule(module).register_forward_hook(
            lambda _module, _inputs, output, key=f"{stride} stage{number}": found.update(
                {key: sample(output.permute(0, 2, 3, 1).numpy())}
            )
        )
    logits = outputs(peer, model, torch.float64)["predictions"]
    return {f"{stride} logits": logits, **found}


def write_torch_files(folder: Path) -> None:
    """Write a state dict in the format of today, and one in a checkpoint in that before 1.6.

    The tensors are what such files hold: a parameter, a view that shares its storage, other dtypes.
    """
    folder.mkdir(exist_ok=True)
    matrix = torch.arange(6, dtype=torch.float32).reshape(2, 3)
    state_dict = OrderedDict(
        weight=torch.nn.Parameter(matrix),
        transposed=matrix.T[1:],
        half=torch.tensor([0.5, -2.0]).half(),
        double=torch.tensor(0.1, dtype=torch.float64),
        num_batches_tracked=torch.tensor(7),
    )
    torch.save(state_dict, folder / "state_dict.pth")
    checkpoint = {"best_prec1": 91.7, "state_dict": state_dict}
    torch.save(checkpoint, folder / "old_checkpoint.th", _use_new_zipfile_serialization=False)
    torch.save(torch.nn.Linear(1, 1), folder / "whole_model.pth")  # needs code, so is refused


def write_checkpoint(folder: Path) -> None:
    """Write a whole torchvision ResNet-18 of 1000 classes as published ones are, and its logits.

    Every entry is a short pattern again and again, and the file compressed, to be kept in git.
    """
    model = torchvision.models.resnet18(weights=None).eval()
    state_dict = OrderedDict(
        (name, value if name.endswith("num_batches_tracked") else _pattern(name, value))
        for name, value in model.state_dict().items()
    )
    model.load_state_dict(state_dict)
    checkpoint = io.BytesIO()
    torch.save(state_dict, checkpoint)
    path = folder / "resnet18.pth.xz"
    path.write_bytes(lzma.compress(checkpoint.getvalue(), preset=9))
    peer = Peer("torchvision", "resnet18")
    logits = outputs(peer, model, torch.float64)["predictions"]
    np.savez_compressed(folder / "resnet18_logits.npz", size=peer.size, logits=logits)
    spread = np.abs(logits[0] - logits[1]).max() / np.abs(logits).max()
    print(f"{path}: {path.stat().st_size} bytes, images differ by {spread:.2f}")


def _pattern(name: str, value: torch.Tensor) -> torch.Tensor:
    """The first numbers that `fill` would give, repeated."""
    shape = tuple(value.shape)
    short = state({name: (_PERIOD, *shape[1:])}, 1.0)[name].ravel()[:_PERIOD]
    return torch.from_numpy(np.resize(short, shape).copy())


def main() -> None:
    """Write the files of the registry names given, or all."""
    warnings.filterwarnings("ignore")
    GOLDEN.mkdir(parents=True, exist_ok=True)
    if len(sys.argv) == 1:
        write_torch_files(GOLDEN.parent / "torch_files")
        write_checkpoint(GOLDEN.parent / "torch_files")
    for name in sys.argv[1:] or PEERS:
        write(name, PEERS[name])
        if name in DILATED:
            write_dilated(name, DILATED[name])


if __name__ == "__main__":
    main()
