"""Write checkpoints as people's programs do: tests/golden/torch_files/*.

In an environment of its own, which needs neither this package nor TensorFlow:

    pip install torch && python tests/peers/checkpoints.py

`test_checkpoints.py` says what is read from each, and what is refused. The values of `network`
follow from the names of its entries.
"""

from __future__ import annotations

import argparse
import datetime
import enum
import fractions
import warnings
from collections import Counter, OrderedDict, defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

FOLDER = Path(__file__).resolve().parents[1] / "golden" / "torch_files"


class Phase(enum.Enum):
    """An object of the program that wrote the file."""

    TRAINED = 1


class Settings(OrderedDict[str, Any]):
    """A dictionary of the program that wrote the file, such as a library of configs has."""


class Tagged(torch.Tensor):
    """A tensor of the program that wrote the file, as libraries have for images and boxes."""


class Network(nn.Module):
    """A convolution, BN and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 2, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(2)
        self.fc = nn.Linear(2, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of images (batch, 3, height, width)."""
        pooled: torch.Tensor = self.fc(self.bn1(self.conv1(x)).mean((2, 3)))
        return pooled


def network(offset: float = 0.0) -> Network:
    """Its numbers count from `offset` in quarters, which bfloat16 has exactly."""
    made = Network()
    for name, value in made.state_dict().items():
        if value.is_floating_point():
            numbers = torch.arange(value.numel(), dtype=torch.float32).reshape(value.shape)
            value.copy_(numbers / 4 + offset + len(name))
    return made


def prefixed(prefix: str, model: Network) -> OrderedDict[str, torch.Tensor]:
    """The state dict as a wrapper saves it."""
    kept = model.state_dict(keep_vars=True)  # parameters, and what is noted at them
    return OrderedDict((prefix + name, value) for name, value in kept.items())


def beside(model: Network) -> dict[str, Any]:
    """What people save beside the weights."""
    optimizer = torch.optim.SGD(model.parameters(), 0.1, momentum=0.9)
    model(torch.ones(2, 3, 2, 2)).sum().backward()
    optimizer.step()
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [3, 6])
    return {
        "args": argparse.Namespace(lr=0.1, data=Path("/data"), device=torch.device("cpu")),
        "settings": Settings(depth=20, phase=Phase.TRAINED),
        "best": np.float64(91.7),
        "epoch": np.int64(3),
        "curve": np.arange(3.0),
        "date": datetime.datetime(2026, 11, 30, 12, tzinfo=datetime.UTC),
        "took": datetime.timedelta(hours=1),
        "counts": Counter("aab"),
        "meters": defaultdict(list, {"loss": [1.5]}),
        "share": fractions.Fraction(1, 3),
        "seen": {1, 2},
        "rng_state": torch.zeros(8, dtype=torch.uint8),
        "dtype": torch.float32,
        "size": torch.Size([2, 3]),
        "optimizer": optimizer.state_dict(),
        "scheduler": schedule.state_dict(),
    }


def main() -> None:
    """Write all files."""
    warnings.filterwarnings("ignore")  # TorchScript is deprecated; its files are there
    plain, other = network(), network(100.0)
    extras = beside(network())
    plain.fc.weight.no_weight_decay = True
    old = {"_use_new_zipfile_serialization": False}
    torch.save({**extras, "model_state_dict": plain.state_dict()}, FOLDER / "with_objects.pt")
    torch.save({**extras, "net": plain.state_dict()}, FOLDER / "old_with_objects.pt", **old)
    deep = {"checkpoint": {"weights": Settings(state_dict=prefixed("model.", plain))}}
    torch.save(deep, FOLDER / "deep.pt")
    tagged = OrderedDict((k, v.as_subclass(Tagged)) for k, v in plain.state_dict().items())
    averaged = {"model": tagged, "model_ema": prefixed("module._orig_mod.", other)}
    torch.save(averaged, FOLDER / "averaged.pt")
    entries = plain.state_dict().items()
    halves = {k: v.bfloat16() if v.is_floating_point() else v for k, v in entries}
    torch.save(halves, FOLDER / "bfloat16.pt")
    torch.save({"epoch": 3, "model": plain}, FOLDER / "whole_model_inside.pt")
    torch.jit.script(plain).save(FOLDER / "torchscript.pt")


if __name__ == "__main__":
    main()
