"""The verb `explain`: heat maps of the pixels that decide the class."""

from __future__ import annotations

import argparse

from keras_resnet.cli.options import Parser, Verb, add_activation, add_model, names, real

METHODS = "saliency, smoothgrad, guided, gradcam, gradcam++, layercam, scorecam, maximization"


def _explain(options: argparse.Namespace) -> int:
    from keras_resnet.cli import explain_sheet

    return explain_sheet.write(options)


def _explain_options(sub: Parser) -> None:
    add_model(sub, "a run folder or a .keras file")
    add_activation(sub)
    sub.add_argument("images", nargs="+", metavar="IMAGE", help="image files")
    sub.add_argument(
        "--methods",
        type=names,
        default="gradcam,smoothgrad",
        metavar="NAME,…",
        help=f"comma-separated, from: {METHODS}; default %(default)s",
    )
    sub.add_argument(
        "--classes",
        metavar="NAME,…",
        help="classes to explain, by label or number (default: each image's most likely class)",
    )
    sub.add_argument(
        "--layer",
        metavar="NAME",
        help="layer for the CAM methods (see 'keras-resnet profile'); default: the last layer "
        "before the classifier",
    )
    sub.add_argument(
        "--noise",
        type=_part,
        default=0.1,
        metavar="SHARE",
        help="smoothgrad's noise, as a share of the image's range (default 0.1; use 0.05 for 32×32 "
        "images)",
    )
    sub.add_argument(
        "--out",
        metavar="FOLDER",
        default="explanations",
        help="folder for sheet.png and maps.npz (default ./explanations)",
    )


def _part(text: str) -> float:
    if not 0 <= (part := real(text)) <= 1:
        raise argparse.ArgumentTypeError(f"must be a number from 0 to 1; received '{text}'")
    return part


VERBS = {
    "explain": Verb(
        "draw heat maps of the pixels that decide the class",
        "explain resnet20 --weights cifar10 cat.jpg --methods gradcam,smoothgrad",
        _explain_options,
        _explain,
    ),
}
