"""Highway networks for CIFAR (arXiv:1507.06228): gates mix a layer's input and its transformation.

The paper gives these facts (sections 2.1 and 3.3, Table 2):

- The depth and the number of parameters of both networks.
- The first network is "based on" FitNet 4 (arXiv:1412.6550, appendix).
- The second network is thinner and alternates 3×3 and 1×1.
- H is a convolution and a ReLU. The gate has the same kernel size.
- A plain layer changes the width. A fully connected layer comes before the softmax.
- The biases of the gates start between -1 and -10.

We chose the rest: a bias of -2, 500 ReLU units in the fully connected layer (FitNet 4 has 500
maxout units) and no dropout. In the second network we also chose ten layers per stage, and widths
that give its 1.25 M parameters.
"""

from __future__ import annotations

from dataclasses import dataclass

from keras import layers

from keras_resnet.models.build import register, row
from keras_resnet.models.network import Network, Trunk, classifier
from keras_resnet.models.resnet.blocks import (
    POST_ACTIVATION,
    Conv,
    Style,
    Tensor,
    Unit,
    convolution,
    operations,
)
from keras_resnet.models.resnet.shortcuts import exclusive_gating

__all__ = ["Highway19", "Highway32"]


@dataclass(frozen=True, kw_only=True)
class HighwaySpec(Network):
    """A highway network: stages of convolutions. Those that keep the width are highway layers."""

    widths: tuple[tuple[int, ...], ...]  # filters of every convolution, per stage
    kernels: tuple[int, ...] = (3,)  # used in turn, over all stages
    gate_bias: float = -2.0  # below zero, the layers at first pass their input on
    dense_units: int = 500
    preprocessing: str = "cifar"
    input_size: int = 32
    classes: int = 10

    @property
    def min_size(self) -> int:
        """Smallest image size in pixels. Every stage except the last ends in a pool."""
        return 2 ** (len(self.widths) - 1)

    def trunk(self, x: Tensor) -> Trunk:
        """Build the stages. A stage's feature is its last map before the pool."""
        features: dict[str, Tensor] = {}
        number = 0
        for stage, widths in enumerate(self.widths, start=1):
            if stage > 1:
                x = layers.MaxPooling2D(2, name=f"stage{stage}_pool")(x)
            for block, width in enumerate(widths, start=1):
                conv = Conv(self.kernels[number % len(self.kernels)], width)
                x = self._layer(x, conv, f"stage{stage}_block{block}")
                number += 1
            features[f"stage{stage}"] = x
        return Trunk(x, features)

    def head(self, x: Tensor, classes: int) -> Tensor:
        """Build the maximum of every map (FitNet 4's 8×8 pool), the dense layer and the logits."""
        x = layers.GlobalMaxPooling2D(dtype="float32", name="head_pool")(x)
        x = layers.Dense(
            self.dense_units,
            "relu",
            kernel_initializer="he_normal",
            dtype="float32",
            name="head_fc",
        )(x)
        return classifier(x, classes, self.dropout)

    def _layer(self, x: Tensor, conv: Conv, name: str) -> Tensor:
        """Build `y = T(x) · H(x) + (1 - T(x)) · x` (eq. 3), or H(x) if the width changes."""
        style = Style(conv_bias="all")
        h = convolution(x, conv, style, f"{name}_conv", followed_by_bn=False)
        h = operations(h, ("relu",), style, f"{name}_{{}}")
        if x.shape[-1] != conv.filters:
            return h
        unit = Unit(name, style, POST_ACTIVATION, 1, conv.filters, conv.filters)
        return exclusive_gating(self.gate_bias, conv.kernel)(x, h, unit)


_TABLE_2 = "arXiv:1507.06228, Table 2"

Highway19 = row(
    "Highway19",
    HighwaySpec(widths=((32, 32, 32, 48, 48), (80,) * 6, (128,) * 6)),  # FitNet 4's
    "Highway B for CIFAR, 19 layers",
    _TABLE_2,
)
Highway32 = row(
    "Highway32",
    HighwaySpec(widths=((30,) * 10, (60,) * 10, (96,) * 10), kernels=(3, 1)),
    "Highway C for CIFAR, 32 layers; its widths are ours",
    _TABLE_2,
)
register(
    "test_highway",
    HighwaySpec(widths=((8, 8), (16, 16)), kernels=(3, 1), dense_units=16),
    "Tiny highway network for tests",
    "of this project",
)
