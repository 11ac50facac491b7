"""GoogLeNet (Inception v1) as in the paper and as in torchvision, with auxiliary classifiers."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from keras import layers

from keras_resnet.errors import UserError
from keras_resnet.layers import LocalResponseNormalization
from keras_resnet.models.build import register, row
from keras_resnet.models.classic.branches import (
    Conv,
    Form,
    Module,
    Pool,
    convolution,
    inception_module,
)
from keras_resnet.models.network import Network, Tensor, Trunk

__all__ = ["GoogLeNet", "GoogLeNet_BN"]

# A row of arXiv:1409.4842, Table 1: #1×1, #3×3 reduce, #3×3, #5×5 reduce, #5×5, pool proj.
Row = tuple[int, int, int, int, int, int]

_TABLE_1: tuple[tuple[Row, ...], ...] = (
    (  # inception (3a), (3b)
        (64, 96, 128, 16, 32, 32),
        (128, 128, 192, 32, 96, 64),
    ),
    (  # inception (4a) to (4e)
        (192, 96, 208, 16, 48, 64),
        (160, 112, 224, 24, 64, 64),
        (128, 128, 256, 24, 64, 64),
        (112, 144, 288, 32, 64, 64),
        (256, 160, 320, 32, 128, 128),
    ),
    (  # inception (5a), (5b)
        (256, 160, 320, 32, 128, 128),
        (384, 192, 384, 48, 128, 128),
    ),
)


def inception(widths: Row, large: int) -> Module:
    """Return the module of arXiv:1409.4842, Fig. 2b. `large` is the kernel of the third branch."""
    one, reduce_three, three, reduce_five, five, projection = widths
    return (
        (Conv(1, one),),
        (Conv(1, reduce_three), Conv(3, three)),
        (Conv(1, reduce_five), Conv(large, five)),
        (Pool("max"), Conv(1, projection)),
    )


@dataclass(frozen=True, kw_only=True)
class GoogLeNetSpec(Network):
    """A GoogLeNet: stem, three stages of inception modules (3, 4 and 5, as the paper counts)."""

    dropout: float = 0.4  # the paper's; torchvision's is 0.2
    stem: tuple[int, int, int] = (64, 64, 192)  # filters of the 7×7, the 1×1 and the 3×3
    stages: tuple[tuple[Row, ...], ...] = _TABLE_1
    # The third branch's kernel is 5 in the paper. In torchvision it is 3, because its network was
    # converted from TensorFlow weights with kernel 3 (pytorch/vision#906).
    large: int = 5
    # The pool before stage 5 is 3×3 in the paper and 2×2 in torchvision.
    last_pool: int = 3
    lrn: bool = True  # local response normalization in the stem; torchvision uses BN instead
    form: Form = field(default_factory=Form)
    # Train with the two auxiliary classifiers, after (4a) and (4d): three outputs.
    auxiliary: bool = False
    auxiliary_after: tuple[str, str] = ("stage4_a", "stage4_d")
    auxiliary_widths: tuple[int, int] = (128, 1024)  # of the 1×1 and of the dense layer
    # The pool before their 1×1. "strided": 5×5 averages at stride 3 (the paper). "adaptive": an
    # adaptive pool to 4×4, the size that the paper's pool gives at 224 pixels. Its windows are 4×4,
    # 3 or 4 pixels apart (torchvision).
    auxiliary_pool: Literal["strided", "adaptive"] = "strided"
    auxiliary_dropout: float = 0.7  # the paper's and torchvision's

    @property
    def min_size(self) -> int:
        """Smallest image size in pixels, with one pixel in the last map and enough for the pools of
        the auxiliary classifiers."""
        if self.auxiliary:  # maps of 5 pixels, or of 2, as Keras' adaptive pool fails on 1
            return 79 if self.auxiliary_pool == "strided" else 31
        return 31 if self.last_pool == 3 else 15

    def trunk(self, x: Tensor) -> Trunk:
        """Build stem and modules. "stage1", "stage2": the stem's maps at a half and a quarter."""
        features: dict[str, Tensor] = {}
        taps: dict[str, Tensor] = {}
        first, reduce, last = self.stem
        stem = Conv(7, first, 2, "symmetric")
        x = features["stage1"] = convolution(x, stem, self.form, "stem_{}1")
        x = self._normalized(_max_pool(x, 3, "stem_pool1"), "stem_lrn1")
        x = convolution(x, Conv(1, reduce), self.form, "stem_{}2")
        x = self._normalized(convolution(x, Conv(3, last), self.form, "stem_{}3"), "stem_lrn2")
        features["stage2"] = x
        for stage, rows in enumerate(self.stages, 3):
            x = _max_pool(x, 3 if stage < 5 else self.last_pool, f"stage{stage}_pool")
            for letter, widths in zip("abcde", rows, strict=False):
                name = f"stage{stage}_{letter}"
                x = taps[name] = inception_module(x, inception(widths, self.large), self.form, name)
            features[f"stage{stage}"] = x
        auxiliary = {f"aux{n}": taps[name] for n, name in enumerate(self.auxiliary_after, 1)}
        return Trunk(x, features, auxiliary if self.auxiliary else {})

    def _normalized(self, x: Tensor, name: str) -> Tensor:
        """Build local response normalization with Caffe's constants; the paper gives none."""
        return LocalResponseNormalization(name=name)(x) if self.lrn else x

    def auxiliary_head(self, name: str, x: Tensor, classes: int) -> Tensor:
        """Build an auxiliary classifier (arXiv:1409.4842, section 5), from a map to logits.

        Raises:
            UserError: the image size is free and the pool is the paper's.
        """
        if self.auxiliary_pool == "adaptive":
            x = layers.AdaptiveAveragePooling2D(4, name=f"{name}_pool")(x)
        elif None in x.shape[1:3]:
            raise UserError(
                "GoogLeNet's auxiliary classifiers need one fixed image size. Give an input_shape "
                f"without None, or auxiliary_pool='adaptive'; received {x.shape[1:]}."
            )
        else:
            x = layers.AveragePooling2D(5, strides=3, name=f"{name}_pool")(x)
        convolved, dense = self.auxiliary_widths
        x = convolution(x, Conv(1, convolved), self.form, f"{name}_{{}}1")
        x = layers.Flatten(name=f"{name}_flatten")(x)
        x = layers.Dense(dense, activation="relu", name=f"{name}_dense")(x)
        x = layers.Dropout(self.auxiliary_dropout, name=f"{name}_dropout")(x)
        return layers.Dense(classes, dtype="float32", name=f"{name}_head")(x)


def _max_pool(x: Tensor, size: int, name: str) -> Tensor:
    """Build a max-pool of stride 2 that rounds up, like `ceil_mode` in Caffe and torchvision.

    One pixel of padding on the right and at the bottom does the same for every size: after a ReLU
    no value is below its zeros. A 2×2 pool needs the padding on odd sizes only, as with "same".
    """
    if size == 2:
        return layers.MaxPooling2D(2, strides=2, padding="same", name=name)(x)
    x = layers.ZeroPadding2D(((0, 1), (0, 1)), name=f"{name}_pad")(x)
    return layers.MaxPooling2D(size, strides=2, name=name)(x)


_PAPER = "arXiv:1409.4842, Table 1"

# The paper does not give the initial weights. BVLC's (Xavier's, biases of 0.2) halve the variance
# at every ReLU, and over 22 layers no BN restores it. He's keep it. The preprocessing is BVLC's.
GoogLeNet = row(
    "GoogLeNet",
    GoogLeNetSpec(form=Form(bn=False, kernel_initializer="he_normal"), preprocessing="caffe"),
    "GoogLeNet (Inception v1) as in the paper: 5×5 branches, LRN, no BN; with auxiliary=True its "
    "two auxiliary classifiers",
    _PAPER,
)
_BN = GoogLeNetSpec(
    dropout=0.2,
    large=3,
    last_pool=2,
    lrn=False,
    auxiliary_pool="adaptive",
    # torchvision's pretrained network itself turns mean/std-normalised pixels back into [-1, 1]
    # (`transform_input`), so its layers see this range.
    preprocessing="tf",
)
GoogLeNet_BN = row(
    "GoogLeNet_BN",
    _BN,
    "GoogLeNet with BN, what torchvision and timm call googlenet (3×3 for 5×5, no LRN)",
    f"{_PAPER}; torchvision's form",
)
register(
    "test_googlenet",
    GoogLeNetSpec(
        stem=(8, 8, 16),
        stages=(
            ((4, 4, 8, 4, 8, 4),),
            ((8, 4, 8, 4, 8, 8), (8, 4, 8, 4, 8, 8)),
            ((8, 8, 16, 4, 8, 8),),
        ),
        large=3,
        last_pool=2,
        lrn=False,
        auxiliary_after=("stage4_a", "stage4_b"),
        auxiliary_widths=(8, 32),
        auxiliary_pool="adaptive",
        preprocessing="cifar",
        input_size=32,
        classes=10,
    ),
    "Tiny GoogLeNet with BN for tests",
    "of this project",
)
