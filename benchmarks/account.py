"""Compare lecture slides with `profile`: memory, parameters and FLOP of CNN architectures.

    python benchmarks/account.py [--write]

It prints Markdown; `--write` puts it into docs/account.md. The slides are those on CNN
architectures from Stanford's CS231n and Michigan's EECS 498-007. There, "FLOP" means multiply-adds.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import keras
from keras import layers

from keras_resnet.analysis.profile import Profile, profile
from keras_resnet.files import replacing

PAGE = Path(__file__).parents[1] / "docs" / "account.md"
BEGIN, END = "<!-- begin: python benchmarks/account.py -->", "<!-- end -->"

# name, filters (0: a max-pool), kernel, stride, padding
Row = tuple[str, int, int, int, int]
ALEXNET: list[Row] = [
    ("conv1", 64, 11, 4, 2),
    ("pool1", 0, 3, 2, 0),
    ("conv2", 192, 5, 1, 2),
    ("pool2", 0, 3, 2, 0),
    ("conv3", 384, 3, 1, 1),
    ("conv4", 256, 3, 1, 1),
    ("conv5", 256, 3, 1, 1),
    ("pool5", 0, 3, 2, 0),
]
GOOGLENET_STEM: list[Row] = [
    ("conv1", 64, 7, 2, 3),
    ("pool1", 0, 3, 2, 1),
    ("conv2", 64, 1, 1, 0),
    ("conv3", 192, 3, 1, 1),
    ("pool3", 0, 3, 2, 1),
]


def vgg(convs: Sequence[int]) -> list[Row]:
    """Return VGG's stages with these numbers of 3×3 convolutions, each followed by a pool."""
    rows: list[Row] = []
    for stage, (depth, width) in enumerate(zip(convs, (64, 128, 256, 512, 512), strict=False), 1):
        rows += [(f"conv{stage}-{i}", width, 3, 1, 1) for i in range(1, depth + 1)]
        rows.append((f"pool{stage}", 0, 2, 2, 0))
    return rows


# KB, thousands of parameters, millions of FLOP; no figure where the slide has none.
PRINTED_ALEXNET = {
    "conv1": (784, 23, 73),
    "pool1": (182, 0, None),
    "conv2": (547, 307, 224),
    "pool2": (127, 0, None),
    "conv3": (254, 664, 112),
    "conv4": (169, 885, 145),
    "conv5": (169, 590, 100),
    "pool5": (36, 0, None),
    "fc6": (16, 37_749, 38),
    "fc7": (16, 16_777, 17),
    "fc8": (4, 4_096, 4),
}


def network(
    rows: Sequence[Row], size: int, dense: Sequence[int] = (), channels: int = 3
) -> Profile:
    """Profile a chain of layers; the weights are zeros, because nothing is run."""
    inputs = x = layers.Input((size, size, channels), name="images")
    for name, filters, kernel, stride, padding in rows:
        if padding:
            x = layers.ZeroPadding2D(padding, name=f"{name}_pad")(x)
        if filters:
            x = layers.Conv2D(filters, kernel, stride, kernel_initializer="zeros", name=name)(x)
        else:
            x = layers.MaxPooling2D(kernel, stride, name=name)(x)
    x = layers.Flatten(name="flatten")(x) if dense else x
    for index, units in enumerate(dense, 6):
        x = layers.Dense(units, kernel_initializer="zeros", name=f"fc{index}")(x)
    return profile(keras.Model(inputs, x, name="lecture"))


def mebibytes(account: Profile, kinds: tuple[str, ...]) -> float:
    """Return the size of the outputs of layers of these types, in MiB."""
    written = (layer.activation_bytes for layer in account.layers if layer.type in kinds)
    return sum(written) / 2**20


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def alexnet() -> str:
    account = network(ALEXNET, 227, (4096, 4096, 1000))
    header = ("layer", "output", "KiB", "printed", "parameters", "printed (k)")
    rows = []
    for layer in account.layers:
        if layer.name not in PRINTED_ALEXNET:
            continue
        memory, parameters, flop = PRINTED_ALEXNET[layer.name]
        rows.append(
            [
                *(layer.name, "×".join(map(str, layer.output_shape))),
                *(f"{layer.activation_bytes / 1024:,.1f}", f"{memory:,}"),
                *(f"{layer.parameters:,}", f"{parameters:,}"),
                *(f"{layer.multiply_adds / 1e6:,.1f}", "" if flop is None else f"{flop}"),
            ]
        )
    total = account.total
    kinds = ("Conv2D", "Dense")
    rows.append(
        [
            *("total", "", f"{1024 * mebibytes(account, kinds):,.1f}", "1.9 MB"),
            *(f"{total.parameters:,}", "61 M"),
            *(f"{total.multiply_adds / 1e6:,.1f}", "0.7 G"),
        ]
    )
    return table((*header, "multiply-adds (M)", "printed (M)"), rows)


def _stem_row(name: str, account: Profile) -> list[str]:
    convolutions = mebibytes(account, ("Conv2D",))
    return [
        name,
        f"{convolutions:.1f}",
        f"{mebibytes(account, ('Conv2D', 'Dense', 'MaxPooling2D')):.1f}",
        f"{account.total.parameters:,}",
        f"{account.total.multiply_adds / 1e6:,.1f}",
    ]


_STEM_HEADER = (
    "",
    "MiB, convolutions",
    "MiB, with pools and dense",
    "parameters",
    "multiply-adds (M)",
)


def stems() -> str:
    rows = [
        ["GoogLeNet's stem, printed", "", "7.5", "124 K", "418"],
        _stem_row("GoogLeNet's stem, counted", network(GOOGLENET_STEM, 224)),
        ["VGG-16's first stages, printed", "42.9", "", "1.1 M", "7485"],
        _stem_row(
            "the same with two convolutions in stage 3, counted", network(vgg((2, 2, 2)), 224)
        ),
        _stem_row("VGG-16's first stages, counted", network(vgg((2, 2, 3)), 224)),
    ]
    return table(_STEM_HEADER, rows)


def whole_vgg() -> str:
    dense = (4096, 4096, 1000)
    rows = [
        ["VGG-16, printed", "48.6", "", "138 M", "13.6 G"],
        _stem_row(
            "the same with two convolutions in stage 3, counted",
            network(vgg((2, 2, 2, 3, 3)), 224, dense),
        ),
        _stem_row("VGG-16, counted", network(vgg((2, 2, 3, 3, 3)), 224, dense)),
    ]
    return table(_STEM_HEADER, rows)


def small_kernels(channels: int = 64, size: int = 56) -> str:
    def chain(kernel: int, count: int) -> list[str]:
        convs = [(f"conv{i}", channels, kernel, 1, kernel // 2) for i in range(count)]
        account = network(convs, size, channels=channels)
        field = account.layers[-1].receptive_field
        assert field is not None
        cost = count * kernel**2
        return [
            f"{count} of {kernel}×{kernel}",
            *(f"{field[0]}×{field[1]}", f"{cost} C²", f"{account.total.parameters:,}"),
            *(f"{cost} C²·H·W", f"{account.total.multiply_adds / 1e6:,.1f}"),
        ]

    header = ("", "field", "weights", "with biases", "multiply-adds", "in millions")
    return table(header, [chain(5, 1), chain(3, 2), chain(7, 1), chain(3, 3)])


def report() -> str:
    """Return all tables as Markdown."""
    return f"""\
### AlexNet, layer by layer

The lecture's AlexNet takes 227×227 pixels and has one column of filters (torchvision's widths).

{alexnet()}

All printed figures agree with our counts, with two exceptions. `conv4` has 256·13²·384·3² = 149.5
million multiply-adds, not 145. The printed parameters of `fc6` to `fc8` do not include the biases,
while those of the convolutions do. The printed and the counted total of memory leave out the pools.

### To 28×28: GoogLeNet's stem against VGG-16

{stems()}

The printed figures for VGG-16 are those of a network with two convolutions in stage 3. VGG-16 has
three. The printed memory of VGG-16 leaves out the pools, but GoogLeNet's includes them. GoogLeNet's
layers sum to 477.7 million multiply-adds, not 418.

### All of VGG-16

{whole_vgg()}

The same convolution is missing here: 13.6 G printed, 15.5 G counted.

### One 5×5 against two 3×3

The input is 56×56×64; each convolution has C channels in and out. Two 3×3 convolutions have the
receptive field of one 5×5 with 18/25 of the weights and multiply-adds. Three have the field of one
7×7 with 27/49.

{small_kernels()}
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--write", action="store_true", help="write the tables into docs/account.md"
    )
    text = report()
    if not parser.parse_args().write:
        print(text)
        return
    page = PAGE.read_text(encoding="utf-8")
    before, after = page.split(BEGIN)[0], page.split(END)[1]
    with replacing(PAGE) as partial:
        partial.write_text(f"{before}{BEGIN}\n\n{text}\n{END}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
