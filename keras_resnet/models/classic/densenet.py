"""DenseNets (arXiv:1608.06993): every layer reads the feature maps of all layers before it.

A row is a function, a registry name and a `DenseNetSpec`. The layer names follow torchvision's:
`stage1_block6_conv2` is `features.denseblock1.denselayer6.conv2`, `stage1_transition_bn` is
`features.transition1.norm`, `stem_conv` is `features.conv0`, `head_bn` is `features.norm5`.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from keras import layers

from keras_resnet.errors import UnknownNameError
from keras_resnet.models.build import Row, register, row
from keras_resnet.models.network import Network, Trunk, allow_recursion, check_rate
from keras_resnet.models.resnet import stems
from keras_resnet.models.resnet.blocks import (
    POST_ACTIVATION,
    PRE_ACTIVATION,
    Conv,
    Order,
    Stem,
    Style,
    Tensor,
    convolution,
    operations,
)

__all__ = [
    "DenseNet40_12",
    "DenseNet100_12",
    "DenseNet100_24",
    "DenseNet121",
    "DenseNet161",
    "DenseNet169",
    "DenseNet201",
    "DenseNet_BC100_12",
    "DenseNet_BC190_40",
    "DenseNet_BC250_24",
]

# ImageNet: convolution, BN, ReLU and pool (Table 1). CIFAR: a convolution alone, because the next
# layer begins with BN (section 3, implementation details).
_STEMS: dict[str, tuple[Stem, Order]] = {
    "imagenet": (stems.imagenet_stem, POST_ACTIVATION),
    "cifar": (stems.cifar_stem, PRE_ACTIVATION),
}


@dataclass(frozen=True, kw_only=True)
class DenseNetSpec(Network):
    """A DenseNet. The letters in the comments are the paper's (section 3)."""

    depths: tuple[int, ...]  # dense layers per block
    growth_rate: int  # k, the number of maps that a layer adds
    stem: str  # "imagenet" or "cifar"
    stem_width: int
    bottleneck: bool = True  # "B": a 1×1 convolution to 4k maps before the 3×3
    compression: float = 0.5  # theta, "C": the share of the maps that a transition keeps
    # Dropout after every convolution except the first. The paper uses 0.2 for images without
    # augmentation (section 4.2). torchvision's `drop_rate` acts only on the maps that a layer adds.
    drop_rate: float = 0.0
    style: Style = field(default_factory=Style)

    def __post_init__(self) -> None:
        """Check the fields, which would otherwise fail deep inside Keras.

        Raises:
            UserError: the stem is unknown or a rate is out of range.
        """
        super().__post_init__()
        check_rate("drop_rate", self.drop_rate)
        if self.stem not in _STEMS:
            raise UnknownNameError("stem", self.stem, _STEMS, "")

    @property
    def min_size(self) -> int:
        """Smallest image size in pixels. The stem halves twice, rounding up. Each transition halves
        once, rounding down."""
        before = 2 ** (len(self.depths) - 1)
        return before if self.stem == "cifar" else 4 * before - 3

    def trunk(self, x: Tensor) -> Trunk:
        """Build stem, dense blocks and transitions. A stage's feature is its block's output."""
        allow_recursion(sum(self.depths))
        features: dict[str, Tensor] = {}
        stem, order = _STEMS[self.stem]
        x = stem(x, self.stem_width, order, self.style)
        for stage, depth in enumerate(self.depths, start=1):
            for block in range(1, depth + 1):
                x = self._layer(x, f"stage{stage}_block{block}")
            if stage < len(self.depths):
                features[f"stage{stage}"] = x
                x = self._transition(x, f"stage{stage}_transition")
        x = operations(x, ("bn", "relu"), self.style, "head_{}")
        return Trunk(x, {**features, f"stage{len(self.depths)}": x})

    def _layer(self, x: Tensor, name: str) -> Tensor:
        """Build `[x, H(x)]` (eq. 2)."""
        convs = [Conv(3, self.growth_rate)]
        if self.bottleneck:
            convs.insert(0, Conv(1, 4 * self.growth_rate))
        h = x
        for number, conv in enumerate(convs, start=1):
            h = self._convolution(h, conv, f"{name}_{{}}{number}")
        return layers.Concatenate(name=f"{name}_concat")([x, h])

    def _transition(self, x: Tensor, name: str) -> Tensor:
        """Build a 1×1 convolution and an average pool: half the resolution, fewer maps."""
        filters = int(self.compression * x.shape[-1])
        x = self._convolution(x, Conv(1, filters), f"{name}_{{}}")
        return layers.AveragePooling2D(2, name=f"{name}_pool")(x)

    def _convolution(self, x: Tensor, conv: Conv, name: str) -> Tensor:
        """Build BN, ReLU, convolution and dropout. `name` has a `{}` for the kind."""
        x = operations(x, ("bn", "relu"), self.style, name)
        x = convolution(x, conv, self.style, name.format("conv"), followed_by_bn=True)
        if self.drop_rate:
            x = layers.Dropout(self.drop_rate, name=name.format("drop"))(x)
        return x


# ImageNet -----------------------------------------------------------------------------------------

_IMAGENET = DenseNetSpec(
    depths=(6, 12, 24, 16),
    growth_rate=32,
    stem="imagenet",
    stem_width=64,
    style=Style(bn_epsilon=1.001e-5),  # as in Keras Applications
)
_TABLE_1 = "arXiv:1608.06993, Table 1"


def _imagenet(depth: int, network: DenseNetSpec) -> Row:
    summary = f"DenseNet-{depth}, growth rate {network.growth_rate}"
    return f"DenseNet{depth}", network, summary, _TABLE_1


DenseNet121 = row(*_imagenet(121, _IMAGENET))
DenseNet169 = row(*_imagenet(169, replace(_IMAGENET, depths=(6, 12, 32, 32))))
DenseNet201 = row(*_imagenet(201, replace(_IMAGENET, depths=(6, 12, 48, 32))))
DenseNet161 = row(
    *_imagenet(
        161,
        replace(  # torchvision has this network, Keras Applications does not
            _IMAGENET, depths=(6, 12, 36, 24), growth_rate=48, stem_width=96, style=Style()
        ),
    )
)

# CIFAR: L weight layers in three blocks, growth rate k --------------------------------------------

_CIFAR = DenseNetSpec(
    depths=(12, 12, 12),
    growth_rate=12,
    stem="cifar",
    stem_width=16,
    bottleneck=False,
    compression=1.0,
    preprocessing="cifar",
    input_size=32,
    classes=10,
)
_TABLE_2 = "arXiv:1608.06993, section 4.2 and Table 2"


def _cifar(depth: int, k: int) -> Row:
    """Return the row for L = `depth`: stem, 3n convolutions, two transitions, classifier."""
    network = replace(_CIFAR, depths=((depth - 4) // 3,) * 3, growth_rate=k)
    return f"DenseNet{depth}_{k}", network, f"CIFAR DenseNet, L = {depth}, k = {k}", _TABLE_2


def _cifar_bc(depth: int, k: int) -> Row:
    """Return the row for L = `depth` with two convolutions per layer. The stem has 2k maps."""
    network = replace(
        _CIFAR,
        depths=((depth - 4) // 6,) * 3,
        growth_rate=k,
        stem_width=2 * k,
        bottleneck=True,
        compression=0.5,
    )
    summary = f"CIFAR DenseNet-BC, L = {depth}, k = {k}"
    return f"DenseNet_BC{depth}_{k}", network, summary, _TABLE_2


DenseNet40_12 = row(*_cifar(40, 12))
DenseNet100_12 = row(*_cifar(100, 12))
DenseNet100_24 = row(*_cifar(100, 24))
DenseNet_BC100_12 = row(*_cifar_bc(100, 12))
DenseNet_BC250_24 = row(*_cifar_bc(250, 24))
DenseNet_BC190_40 = row(*_cifar_bc(190, 40))

# Tiny network for tests ---------------------------------------------------------------------------

register(
    "test_densenet",
    replace(_CIFAR, depths=(2, 3), growth_rate=4, stem_width=8, bottleneck=True, compression=0.5),
    "Tiny DenseNet-BC for tests",
    "of this project",
)
