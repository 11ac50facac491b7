"""The benchmark's networks in PyTorch, part by part: resnet20, resnet18 and resnet50."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn


@dataclass(frozen=True)
class Spec:
    """The differences between the networks."""

    depths: tuple[int, ...]
    widths: tuple[int, ...]
    bottleneck: bool
    photographs: bool  # the stem of ImageNet, and projections as shortcuts (option B)
    classes: int
    bn_epsilon: float
    mean: tuple[float, float, float]  # RGB 0...255
    std: tuple[float, float, float]


SPECS = {
    "resnet20": Spec(
        (3, 3, 3),
        (16, 32, 64),
        bottleneck=False,
        photographs=False,
        classes=10,
        bn_epsilon=1e-5,
        mean=(125.307, 122.961, 113.8575),
        std=(62.985, 62.0925, 66.7080),
    ),
    "resnet18": Spec(
        (2, 2, 2, 2),
        (64, 128, 256, 512),
        bottleneck=False,
        photographs=True,
        classes=1000,
        bn_epsilon=1e-5,
        mean=(123.675, 116.28, 103.53),
        std=(58.395, 57.12, 57.375),
    ),
    "resnet50": Spec(
        (3, 4, 6, 3),
        (64, 128, 256, 512),
        bottleneck=True,
        photographs=True,
        classes=1000,
        bn_epsilon=1.001e-5,
        mean=(123.68, 116.779, 103.939),
        std=(1.0, 1.0, 1.0),
    ),
}


class ConvolutionBN(nn.Sequential):
    """A convolution without bias, BN, and a ReLU unless the addition comes next."""

    def __init__(self, spec: Spec, inputs: int, filters: int, kernel: int, stride: int, relu: bool):
        conv = nn.Conv2d(inputs, filters, kernel, stride, kernel // 2, bias=False)
        nn.init.kaiming_normal_(conv.weight, nonlinearity="relu")
        bn = nn.BatchNorm2d(filters, eps=spec.bn_epsilon)
        super().__init__(conv, bn, *([nn.ReLU(inplace=True)] if relu else []))


class OptionA(nn.Module):
    """A shortcut: every other pixel, and zeros as new channels (arXiv:1512.03385, section 3.3)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        new = outputs - inputs
        self.channels = (0, 0, 0, 0, new // 2, new - new // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return `h(x)`."""
        return nn.functional.pad(x[:, :, ::2, ::2], self.channels)


class Unit(nn.Module):
    """A unit `relu(h(x) + F(x))`, with the stride in the first convolution."""

    def __init__(self, spec: Spec, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = 4 * width if spec.bottleneck else width
        if spec.bottleneck:
            self.transform = nn.Sequential(
                ConvolutionBN(spec, inputs, width, 1, stride, relu=True),
                ConvolutionBN(spec, width, width, 3, 1, relu=True),
                ConvolutionBN(spec, width, outputs, 1, 1, relu=False),
            )
        else:
            self.transform = nn.Sequential(
                ConvolutionBN(spec, inputs, width, 3, stride, relu=True),
                ConvolutionBN(spec, width, width, 3, 1, relu=False),
            )
        self.shortcut: nn.Module = nn.Identity()
        if inputs != outputs and spec.photographs:
            self.shortcut = ConvolutionBN(spec, inputs, outputs, 1, stride, relu=False)
        elif inputs != outputs:
            self.shortcut = OptionA(inputs, outputs)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the unit's output."""
        return self.relu(self.transform(x) + self.shortcut(x))


class ResNet(nn.Module):
    """The network, from uint8 pixels (batch, 3, height, width) to logits (batch, classes)."""

    def __init__(self, spec: Spec) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(spec.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(spec.std).view(1, 3, 1, 1))
        channels = spec.widths[0]
        if spec.photographs:
            stem = ConvolutionBN(spec, 3, channels, 7, 2, relu=True)
            body: list[nn.Module] = [stem, nn.MaxPool2d(3, 2, 1)]
        else:
            body = [ConvolutionBN(spec, 3, channels, 3, 1, relu=True)]
        for stage, (depth, width) in enumerate(zip(spec.depths, spec.widths, strict=True)):
            for block in range(depth):
                body.append(Unit(spec, channels, width, 2 if stage and not block else 1))
                channels = 4 * width if spec.bottleneck else width
        self.body = nn.Sequential(*body)
        self.head = nn.Linear(channels, spec.classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Return the logits."""
        x = self.body((images.float() - self.mean) / self.std)
        return self.head(x.mean((2, 3)))
