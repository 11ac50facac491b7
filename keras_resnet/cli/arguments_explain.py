"""Options of `keras-resnet explain`; nothing here loads TensorFlow."""

from __future__ import annotations

import argparse

from keras_resnet.cli.options import names

METHODS = "saliency, smoothgrad, guided, gradcam, gradcam++, layercam, scorecam, maximization"


def add_options(sub: argparse.ArgumentParser) -> None:
    """Add what comes after the model."""
    sub.add_argument("images", nargs="+", metavar="IMAGE")
    sub.add_argument(
        "--methods",
        type=names,
        default="gradcam,smoothgrad",
        metavar="NAME,…",
        help=f"of: {METHODS} (an image made for the class); default %(default)s",
    )
    sub.add_argument(
        "--classes",
        metavar="NAME,…",
        help="explain these, by label or number; default each image's most likely",
    )
    sub.add_argument(
        "--layer",
        metavar="NAME",
        help="whose maps the CAMs weigh (see 'keras-resnet profile'); default the last before the "
        "classifier",
    )
    sub.add_argument(
        "--noise",
        type=_part,
        default=0.1,
        metavar="PART",
        help="of smoothgrad, of the image's range (default 0.1; for 32 pixels 0.05)",
    )
    sub.add_argument(
        "--out",
        metavar="FOLDER",
        default="explanations",
        help="gets sheet.png and the maps as maps.npz (default ./explanations)",
    )


def _part(text: str) -> float:
    try:
        part = float(text)
    except ValueError:
        part = -1.0
    if not 0 <= part <= 1:
        raise argparse.ArgumentTypeError(f"wants a number from 0 to 1; received '{text}'")
    return part
