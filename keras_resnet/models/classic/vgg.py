"""VGG: a row is a public function, a registry name and a chain of 3×3 convolutions."""

from __future__ import annotations

from dataclasses import replace

from keras_resnet.models.build import register, row
from keras_resnet.models.classic.chain import ChainSpec, Conv, Pool

__all__ = [
    "VGG11",
    "VGG11_BN",
    "VGG13",
    "VGG13_BN",
    "VGG16",
    "VGG16_BN",
    "VGG19",
    "VGG19_BN",
]

_VGG = "arXiv:1409.1556, Table 1"


def _stages(depths: tuple[int, ...], widths: tuple[int, ...]) -> tuple[Conv | Pool, ...]:
    """Return the layers of a VGG: per stage, 3×3 convolutions and a 2×2 pool."""
    layers: list[Conv | Pool] = []
    for depth, width in zip(depths, widths, strict=True):
        layers += [*(Conv(3, width, pad=1) for _ in range(depth)), Pool(2)]
    return tuple(layers)


# Convolutions per stage in the paper's columns A, B, D, E. Initial weights are Glorot's (section
# 3.1 and Keras Applications; torchvision uses He's).
_DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
# VGG-16 and -19 take images as in Keras Applications and in the original Caffe weights: the mean
# subtracted. VGG-11 and -13, which only torchvision has, take torchvision's images. Use "torch"
# with torchvision's VGG-16 and -19 weights too.
_PREPROCESSING = {11: "torch", 13: "torch", 16: "caffe", 19: "caffe"}


def _vgg(depth: int) -> ChainSpec:
    chain = _stages(_DEPTHS[depth], (64, 128, 256, 512, 512))
    return ChainSpec(chain=chain, preprocessing=_PREPROCESSING[depth])


def _with_bn(depth: int) -> ChainSpec:
    return replace(_vgg(depth), batch_norm=True, preprocessing="torch")


_TORCH = f"{_VGG}; torchvision's form"

VGG11 = row("VGG11", _vgg(11), "VGG-11", _VGG)
VGG11_BN = row("VGG11_BN", _with_bn(11), "VGG-11 with BN", _TORCH)
VGG13 = row("VGG13", _vgg(13), "VGG-13", _VGG)
VGG13_BN = row("VGG13_BN", _with_bn(13), "VGG-13 with BN", _TORCH)
VGG16 = row("VGG16", _vgg(16), "VGG-16", _VGG)
VGG16_BN = row("VGG16_BN", _with_bn(16), "VGG-16 with BN", _TORCH)
VGG19 = row("VGG19", _vgg(19), "VGG-19", _VGG)
VGG19_BN = row("VGG19_BN", _with_bn(19), "VGG-19 with BN", _TORCH)

# Tiny network for tests ---------------------------------------------------------------------------

register(
    "test_vgg",
    ChainSpec(
        chain=_stages((1, 2), (8, 16)),
        hidden=(32, 16),
        batch_norm=True,
        preprocessing="cifar",
        input_size=32,
        classes=10,
    ),
    "Tiny VGG with BN for tests",
    "of this project",
)
