"""AlexNet and ZFNet: a row is a public function, a registry name and a chain of layers."""

from __future__ import annotations

from dataclasses import replace

from keras_resnet.models.build import register, row
from keras_resnet.models.classic.chain import GAUSSIAN, PYTORCH, ChainSpec, Conv, Norm, Pool

__all__ = ["AlexNet", "AlexNet_Caffe", "ZFNet", "ZFNet512"]

KRIZHEVSKY_2012 = "Krizhevsky et al., NIPS 2012"
ONE_WEIRD_TRICK = "arXiv:1404.5997"
ZEILER_FERGUS = "arXiv:1311.2901"

# AlexNet ------------------------------------------------------------------------------------------

_ONE_COLUMN = ChainSpec(
    chain=(
        *(Conv(11, 64, stride=4, pad=2), Pool(3)),
        *(Conv(5, 192, pad=2), Pool(3)),
        *(Conv(3, 384, pad=1), Conv(3, 256, pad=1), Conv(3, 256, pad=1), Pool(3)),
    ),
    drop="before",
    initializer=PYTORCH,
)
AlexNet = row(
    "AlexNet",
    _ONE_COLUMN,
    "AlexNet in one column, as torchvision has it",
    f"{ONE_WEIRD_TRICK}, section 5",
)

_LRN_CAFFE = Norm()
_LRN_2012 = Norm(alpha=5e-4, bias=2.0)  # the paper does not divide its 1e-4 by the window of 5

# Two columns, one per GPU in the paper. They meet in the third convolution and the dense layers.
# At 227 pixels every window is full and `ceil` changes nothing. (The paper writes 224, which cannot
# give 55×55 maps.) At 224 pixels only the last pool rounds up, as in ONNX's light graph of BVLC's
# net. Biases are the paper's (section 5); BVLC starts them at 0.1 instead of 1.
_TWO_COLUMNS = ChainSpec(
    chain=(
        *(Conv(11, 96, stride=4), _LRN_CAFFE, Pool(3)),
        *(Conv(5, 256, pad=2, groups=2, bias=1.0), _LRN_CAFFE, Pool(3)),
        Conv(3, 384, pad=1),
        Conv(3, 384, pad=1, groups=2, bias=1.0),
        *(Conv(3, 256, pad=1, groups=2, bias=1.0), Pool(3, ceil=True)),
    ),
    hidden_bias=1.0,
    initializer=GAUSSIAN,
    preprocessing="caffe",
    input_size=227,
)
AlexNet_Caffe = row(
    "AlexNet_Caffe",
    _TWO_COLUMNS,
    "AlexNet in two columns with local response normalization, as BVLC Caffe has it",
    f"{KRIZHEVSKY_2012}, section 3.5",
)

# ZFNet --------------------------------------------------------------------------------------------

# 224 → 110 → 55 → 26 → 13 → 6: the sizes of Fig. 3 need a pad of 1 and pools that round up. The
# paper gives no constants for its contrast normalization, so we use AlexNet's.
_ZFNET = ChainSpec(
    chain=(
        *(Conv(7, 96, stride=2, pad=1), Pool(3, ceil=True), _LRN_2012),
        *(Conv(5, 256, stride=2), Pool(3, ceil=True), _LRN_2012),
        *(Conv(3, 384, pad=1), Conv(3, 384, pad=1), Conv(3, 256, pad=1), Pool(3, ceil=True)),
    ),
    initializer=GAUSSIAN,
    preprocessing="caffe",
)
ZFNet = row("ZFNet", _ZFNET, "ZFNet, AlexNet with a finer start", f"{ZEILER_FERGUS}, Fig. 3")

# The paper's larger model (Table 2) has 512-1024-512 maps. The network with this name in ONNX's
# model zoo has 512-512-512, a hidden layer of 1024, and the norms before the pools.
ZFNet512 = row(
    "ZFNet512",
    replace(
        _ZFNET,
        chain=(
            *(Conv(7, 96, stride=2), _LRN_2012, Pool(3)),
            *(Conv(5, 256, stride=2), _LRN_2012, Pool(3)),
            *(Conv(3, 512, pad=1), Conv(3, 512, pad=1), Conv(3, 512, pad=1), Pool(2)),
        ),
        hidden=(4096, 1024),
    ),
    "ZFNet of 512 maps, as ONNX's model zoo has it",
    "ONNX model zoo, zfnet512",
)

# Tiny network for tests ---------------------------------------------------------------------------

register(
    "test_alexnet",
    replace(
        _TWO_COLUMNS,
        chain=(
            *(Conv(7, 8, stride=2, pad=1), _LRN_2012, Pool(3)),
            *(Conv(3, 16, pad=1, groups=2), Pool(3, ceil=True)),
        ),
        hidden=(32,),
        initializer=PYTORCH,
        preprocessing="cifar",
        input_size=32,
        classes=10,
    ),
    "Tiny AlexNet for tests",
    "of this project",
)
