"""Options of `keras-resnet weights`; nothing here loads TensorFlow."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from keras_resnet.cli.options import add_verb

if TYPE_CHECKING:
    from keras_resnet.cli.parser import Parser


def add_options(sub: Parser) -> None:
    """Add the actions of the verb and their options."""
    actions = sub.add_subparsers(metavar="ACTION", required=True)
    for name, (about, example, add_more) in _ACTIONS.items():
        add_verb(actions, "action", name, about, f"weights {example}", add_more)


def _matching(sub: Parser) -> None:
    sub.add_argument("pattern", nargs="?", default="*", help="shell pattern of the network's name")


def _of(sub: Parser) -> None:
    sub.add_argument("name", help="a name of 'keras-resnet weights list'")
    sub.add_argument(
        "--weights", metavar="TAG", help="e.g. imagenet/torchvision_v2; default the network's first"
    )


def _import(sub: Parser) -> None:
    sub.add_argument(
        "file", help="weights of PyTorch (.pth, .safetensors), Keras (.h5, .keras), or a run folder"
    )
    sub.add_argument("--as", dest="name", required=True, metavar="NAME", help="the network")
    sub.add_argument("--out", metavar="FILE", help="default NAME.weights.h5")
    sub.add_argument(
        "--preprocessing",
        metavar="MODE",
        help="what they were trained with (tf, caffe, torch, …); default as published",
    )
    sub.add_argument(
        "--data", metavar="NAME", help="what they were trained on, e.g. cifar10: names the classes"
    )
    sub.add_argument("--overwrite", action="store_true", help="replace the file")


# What each is for, an example, and the function that adds its options.
_ACTIONS: dict[str, tuple[str, str, Callable[[Parser], None]]] = {
    "list": (
        "trained weights: whose, how accurate, how large, under which licence",
        "list 'resnet50*'",
        _matching,
    ),
    "info": (
        "all that is known of some weights",
        "info resnet50 --weights imagenet/torchvision_v2",
        _of,
    ),
    "fetch": ("download some weights into the cache", "fetch resnet50", _of),
    "verify": ("check the hashes of the weights that are here", "verify 'resnet50*'", _matching),
    "import": (
        "turn a weights file of another library into ours",
        "import resnet50d.pth --as resnet50d",
        _import,
    ),
}
