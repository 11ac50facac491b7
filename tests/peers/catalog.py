"""Write the catalog of published ImageNet weights, and ImageNet's class names.

In the environment of peers.py, with Keras' sources and tensorflow-datasets' labels as files:

    python tests/peers/catalog.py .../keras/src/applications \
        .../tensorflow_datasets/datasets/imagenet2012/labels.txt

Addresses, hashes, sizes and protocols come from the packages; what no package holds (licences,
Keras' and timm's accuracies) stands in the tables below, with where it was published. Nothing is
downloaded: the hashes are the publishers'. tests/weights/test_catalog.py checks the result.
"""

from __future__ import annotations

import ast
import json
import math
import re
import sys
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import timm
import torch
import torchvision
from peers import PEERS, Peer
from timm.models import get_arch_pretrained_cfgs

PACKAGE = Path(__file__).resolve().parents[2] / "keras_resnet"

HEADER = """\
# Published ImageNet weights of the networks of this zoo, one [[weights]] table each.
#
# Written by `python tests/peers/catalog.py` from {versions};
# edit that file, not this one. The addresses, the hashes ("md5:" or the first digits of a
# "sha256:") and the accuracies (percent, ImageNet's validation images) are as their publishers
# give them; the files were never downloaded here, nor the accuracies measured. `megabytes` are of
# 2**20 bytes, about. `evaluation` is the protocol of the published figure: the shorter side is
# resized to `resize`, the central square of `size` pixels cut out.
#
# `license` is the one under which the publisher gives the weights. ImageNet's own terms, which
# allow non-commercial research and education, are about the images they were trained on.
"""


@dataclass(frozen=True)
class Row:
    """One [[weights]] table; the fields are its keys."""

    model: str
    tag: str
    source: str
    peer: str
    url: str
    hash: str
    megabytes: float
    license: str
    variant: str
    preprocessing: str
    evaluation: dict[str, int | str]
    published: dict[str, float | str] | None
    data: str = "imagenet2012"
    default: bool = False


# Forms that share a name in some library, or a file's layout; "" where there is only one.
VARIANTS = {
    **{f"resnet{depth}": "v1" for depth in (50, 101, 152)},
    **{f"resnet{depth}v1_5": "v1.5" for depth in (50, 101, 152)},
    **{f"resnet{depth}v2": "Keras v2" for depth in (50, 101, 152)},
    "resnet50c": "C",
    "resnet50s": "S",
    **{f"resnet{depth}d": "D" for depth in (18, 34, 50, 101, 152, 200)},
    **{f"vgg{depth}_bn": "BN" for depth in (11, 13, 16, 19)},
    "alexnet": "one column",
    "googlenet_bn": "BN",
    "inception_v3": "Keras",
    "inception_v3_torch": "torchvision",
}

# Keras Applications -------------------------------------------------------------------------------

# https://keras.io/api/applications (read from a stored copy, 2026-11-22): megabytes, top-1, top-5.
KERAS: dict[str, tuple[str, float, float, float]] = {
    "resnet50": ("ResNet50", 98, 74.9, 92.1),
    "resnet101": ("ResNet101", 171, 76.4, 92.8),
    "resnet152": ("ResNet152", 232, 76.6, 93.1),
    "resnet50v2": ("ResNet50V2", 98, 76.0, 93.0),
    "resnet101v2": ("ResNet101V2", 171, 77.2, 93.8),
    "resnet152v2": ("ResNet152V2", 232, 78.0, 94.2),
    "vgg16": ("VGG16", 528, 71.3, 90.1),
    "vgg19": ("VGG19", 549, 71.3, 90.0),
    "densenet121": ("DenseNet121", 33, 75.0, 92.3),
    "densenet169": ("DenseNet169", 57, 76.2, 93.2),
    "densenet201": ("DenseNet201", 80, 77.3, 93.6),
    "inception_v3": ("InceptionV3", 92, 77.9, 93.7),
    "inception_resnet_v2": ("InceptionResNetV2", 215, 80.3, 95.3),
}
# (source file, licence, preprocessing, size, resize) by the start of our name, the longest first.
# Licences: Keras 2's documentation (docs/templates/applications.md), "License" of each network.
# Keras' pages do not say how its accuracies were measured. Who measured them (taehoonlee) wrote so
# in keras-team/keras-applications#88: the shorter side to 256, bicubic (OpenCV's), the central 224;
# and his test (tensornets, tests/all_imagenet_models.py) takes 341 and 299 for the Inceptions and
# for ResNet v2. Keras' own ResNet v2 is built for 224 pixels, where others found 70 % for
# ResNet50V2 instead of the 76.0 (calebrob6/imagenet_validation#3).
KERAS_FAMILIES: dict[str, tuple[str, str, str, int, int]] = {
    "resnet50v2": ("resnet", "BSD-3-Clause", "tf", 299, 341),
    "resnet101v2": ("resnet", "BSD-3-Clause", "tf", 299, 341),
    "resnet152v2": ("resnet", "BSD-3-Clause", "tf", 299, 341),
    "resnet": ("resnet", "MIT", "caffe", 224, 256),
    "vgg16": ("vgg16", "CC-BY-4.0", "caffe", 224, 256),
    "vgg19": ("vgg19", "CC-BY-4.0", "caffe", 224, 256),
    "densenet": ("densenet", "BSD-3-Clause", "torch", 224, 256),
    "inception_v3": ("inception_v3", "Apache-2.0", "tf", 299, 341),
    "inception_resnet_v2": ("inception_resnet_v2", "Apache-2.0", "tf", 299, 341),
}


def keras_rows(folder: Path) -> Iterator[Row]:
    """Rows of `KERAS`, with addresses and md5 from the sources in `folder`."""
    for model, (peer, megabytes, top1, top5) in KERAS.items():
        start = next(start for start in KERAS_FAMILIES if model.startswith(start))
        file, licence, preprocessing, size, resize = KERAS_FAMILIES[start]
        url, md5 = keras_file(folder / f"{file}.py", model)
        yield Row(
            model=model,
            tag="imagenet/keras",
            source="Keras Applications",
            peer=peer,
            url=url,
            hash=f"md5:{md5}",
            megabytes=float(megabytes),
            license=licence,
            variant=VARIANTS.get(model, ""),
            preprocessing=preprocessing,
            evaluation={"size": size, "resize": resize, "interpolation": "bicubic"},
            published={"top1": top1, "top5": top5, "source": "keras.io/api/applications"},
        )


def keras_file(source: Path, model: str) -> tuple[str, str]:
    """Address and md5 of the weights with the top, from a module of Keras."""
    text = source.read_text()
    known = _constants(text)
    name = f"{model}_weights_tf_dim_ordering_tf_kernels.h5"
    if "WEIGHTS_HASHES" in known:
        return f"{known['BASE_WEIGHTS_PATH']}{name}", known["WEIGHTS_HASHES"][model][0]  # type: ignore[index]
    md5 = re.search(rf'"{name}".*?file_hash="([0-9a-f]{{32}})"', text, re.DOTALL)
    addresses = [value for value in known.values() if isinstance(value, str)]
    whole = [address for address in addresses if address.endswith(f"/{name}")]
    bases = [address for address in addresses if address.endswith(f"/{model}/")]
    if md5 is None or len(whole + bases) != 1:
        raise SystemExit(f"{source} does not say where {name} is; Keras' source has changed.")
    return (whole or [f"{bases[0]}{name}"])[0], md5[1]


def _constants(text: str) -> dict[str, object]:
    """Values of a module's constants: literals, and f-strings of those before them."""
    known: dict[str, object] = {}
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            value = node.value
            if isinstance(value, ast.JoinedStr):
                parts = [
                    part.value if isinstance(part, ast.Constant) else known[part.value.id]  # type: ignore[attr-defined]
                    for part in value.values
                ]
                known[node.targets[0].id] = "".join(map(str, parts))
            elif isinstance(value, ast.Constant | ast.Dict):
                known[node.targets[0].id] = ast.literal_eval(value)
    return known


# torchvision --------------------------------------------------------------------------------------


def torchvision_rows(left_out: list[str]) -> Iterator[Row]:
    """Rows of torchvision's networks in `PEERS`."""
    for model, peer in PEERS.items():
        if peer.library != "torchvision":
            continue
        for weights in torchvision.models.get_model_weights(peer.name):
            version = weights.name.removeprefix("IMAGENET1K_").lower()
            if not re.fullmatch(r"v\d", version):
                left_out.append(f"{model}: torchvision's {weights.name} (no classifier)")
                continue
            transforms = weights.transforms()
            metrics = weights.meta["_metrics"]["ImageNet-1K"]
            yield Row(
                model=model,
                tag=f"imagenet/torchvision_{version}",
                source="torchvision",
                peer=peer.name,
                url=weights.url,
                hash=sha256_prefix(weights.url),
                megabytes=round(weights.meta["_file_size"], 1),
                license="BSD-3-Clause",
                variant=VARIANTS.get(model, ""),
                preprocessing=_torchvision_preprocessing(peer, transforms),
                evaluation={
                    "size": transforms.crop_size[0],
                    "resize": transforms.resize_size[0],
                    "interpolation": transforms.interpolation.value,
                },
                published={
                    "top1": metrics["acc@1"],
                    "top5": metrics["acc@5"],
                    "source": "torchvision, the weights' meta",
                },
            )


def _torchvision_preprocessing(peer: Peer, transforms: torch.nn.Module) -> str:
    """Our name of the normalisation before the first convolution.

    With their weights, googlenet and inception_v3 (ported from TensorFlow) set `transform_input`,
    which turns the normalisation of `transforms` into (x - 127.5) / 127.5.
    """
    if peer.name in ("googlenet", "inception_v3"):
        return "tf"
    return preprocessing_of(transforms.mean, transforms.std) or _refuse(peer.name)


# timm ---------------------------------------------------------------------------------------------

# results/results-imagenet.csv of huggingface/pytorch-image-models at 0173a139: top-1, top-5, the
# image size and the part of the image (crop_pct) they were measured with.
TIMM: dict[str, tuple[float, float, int, float]] = {
    "resnet18.a1_in1k": (73.158, 91.026, 288, 1.0),
    "resnet18.a2_in1k": (72.372, 90.596, 288, 1.0),
    "resnet18.a3_in1k": (68.254, 88.176, 224, 0.95),
    "resnet18.gluon_in1k": (70.838, 89.754, 224, 0.875),
    "resnet34.a1_in1k": (77.918, 93.766, 288, 1.0),
    "resnet34.a2_in1k": (77.158, 93.274, 288, 1.0),
    "resnet34.a3_in1k": (72.970, 91.108, 224, 0.95),
    "resnet34.bt_in1k": (76.480, 93.354, 288, 0.95),
    "resnet34.gluon_in1k": (74.578, 91.984, 224, 0.875),
    "resnet50.a1_in1k": (81.214, 95.102, 288, 1.0),
    "resnet50.a1h_in1k": (80.676, 95.306, 224, 1.0),
    "resnet50.a2_in1k": (80.772, 94.988, 288, 1.0),
    "resnet50.a3_in1k": (78.048, 93.780, 224, 0.95),
    "resnet50.b1k_in1k": (80.706, 95.432, 288, 1.0),
    "resnet50.b2k_in1k": (80.454, 95.318, 288, 1.0),
    "resnet50.c1_in1k": (80.912, 95.552, 288, 1.0),
    "resnet50.c2_in1k": (80.870, 95.534, 288, 1.0),
    "resnet50.d_in1k": (80.972, 95.430, 288, 1.0),
    "resnet50.ram_in1k": (79.976, 95.052, 288, 0.95),
    "resnet50.am_in1k": (78.998, 94.396, 224, 0.875),
    "resnet50.ra_in1k": (79.836, 94.966, 288, 0.95),
    "resnet50.bt_in1k": (79.640, 94.892, 288, 0.95),
    "resnet50.gluon_in1k": (77.580, 93.718, 224, 0.875),
    "resnet101.a1h_in1k": (82.778, 96.310, 288, 1.0),
    "resnet101.a1_in1k": (82.322, 95.632, 288, 1.0),
    "resnet101.a2_in1k": (82.236, 95.730, 288, 1.0),
    "resnet101.a3_in1k": (79.814, 94.606, 224, 0.95),
    "resnet101.gluon_in1k": (79.310, 94.522, 224, 0.875),
    "resnet152.a1h_in1k": (83.450, 96.538, 288, 1.0),
    "resnet152.a1_in1k": (82.732, 95.720, 288, 1.0),
    "resnet152.a2_in1k": (82.608, 95.752, 288, 1.0),
    "resnet152.a3_in1k": (80.546, 95.000, 224, 0.95),
    "resnet152.gluon_in1k": (79.694, 94.736, 224, 0.875),
    "resnext50_32x4d.a1h_in1k": (82.014, 95.934, 288, 1.0),
    "resnext50_32x4d.a1_in1k": (81.466, 95.174, 288, 1.0),
    "resnext50_32x4d.a2_in1k": (81.304, 95.096, 288, 1.0),
    "resnext50_32x4d.a3_in1k": (79.268, 94.306, 224, 0.95),
    "resnext50_32x4d.ra_in1k": (80.698, 95.390, 288, 0.95),
    "resnext50_32x4d.gluon_in1k": (79.360, 94.430, 224, 0.875),
    "resnext101_32x4d.gluon_in1k": (80.340, 94.930, 224, 0.875),
    "resnext101_64x4d.c1_in1k": (83.156, 96.374, 288, 1.0),
    "resnext101_64x4d.gluon_in1k": (80.600, 94.992, 224, 0.875),
    "wide_resnet50_2.racm_in1k": (82.280, 96.064, 288, 0.95),
    "resnet50c.gluon_in1k": (78.012, 93.988, 224, 0.875),
    "resnet50s.gluon_in1k": (78.718, 94.242, 224, 0.875),
    "resnet18d.ra2_in1k": (73.794, 91.838, 288, 0.95),
    "resnet34d.ra2_in1k": (78.436, 94.344, 288, 0.95),
    "resnet50d.ra2_in1k": (81.356, 95.738, 288, 0.95),
    "resnet50d.a1_in1k": (81.450, 95.218, 288, 1.0),
    "resnet50d.a2_in1k": (81.164, 95.084, 288, 1.0),
    "resnet50d.a3_in1k": (78.722, 94.236, 224, 0.95),
    "resnet50d.gluon_in1k": (79.078, 94.468, 224, 0.875),
    "resnet101d.ra2_in1k": (83.016, 96.452, 320, 1.0),
    "resnet101d.gluon_in1k": (80.426, 95.024, 224, 0.875),
    "resnet152d.ra2_in1k": (83.684, 96.740, 320, 1.0),
    "resnet152d.gluon_in1k": (80.476, 95.202, 224, 0.875),
    "resnet200d.ra2_in1k": (83.964, 96.824, 320, 1.0),
    "seresnet50.a1_in1k": (81.102, 95.120, 288, 1.0),
    "seresnet50.a2_in1k": (81.106, 95.222, 288, 1.0),
    "seresnet50.a3_in1k": (77.028, 93.074, 224, 0.95),
    "seresnet50.ra2_in1k": (81.284, 95.652, 288, 0.95),
    "seresnext50_32x4d.racm_in1k": (82.196, 96.148, 288, 0.95),
    "seresnext50_32x4d.gluon_in1k": (79.910, 94.824, 224, 0.875),
    "seresnext101_32x4d.gluon_in1k": (80.892, 95.296, 224, 0.875),
    "seresnext101_32x8d.ah_in1k": (84.186, 96.874, 288, 1.0),
    "seresnext101_64x4d.gluon_in1k": (80.896, 95.296, 224, 0.875),
}
LICENSES = {"apache-2.0": "Apache-2.0", "bsd-3-clause": "BSD-3-Clause"}


def timm_rows(left_out: list[str]) -> Iterator[Row]:
    """Rows of timm's own weights for the networks in `PEERS`, trained on ImageNet-1k alone."""
    for model, peer in PEERS.items():
        megabytes = None
        for name, config in get_arch_pretrained_cfgs(peer.name).items():
            tag = name.partition(".")[2]
            reason = timm_reason(tag, config)
            if reason:
                left_out.append(f"{model}: timm's {name} ({reason})")
                continue
            megabytes = megabytes or _megabytes(replace(peer, library="timm", options={}))
            top1, top5, size, part = TIMM.get(name, (None, None, *_test_size(config)))
            if (size, part) != _test_size(config):
                raise SystemExit(f"{name}: measured at {size} ({part}), timm {_test_size(config)}")
            published = {"top1": top1, "top5": top5, "source": "timm, results-imagenet.csv"}
            yield Row(
                model=model,
                tag=f"imagenet/timm_{tag.removesuffix('_in1k')}",
                source="timm",
                peer=name,
                url=config.url,
                hash=sha256_prefix(config.url),
                megabytes=megabytes,
                license=LICENSES[config.license],
                variant=VARIANTS.get(model, ""),
                preprocessing=preprocessing_of(config.mean, config.std) or "",
                evaluation={
                    "size": size,
                    "resize": math.floor(size / part),
                    "interpolation": config.interpolation,
                },
                published=None if top1 is None else published,  # type: ignore[arg-type]
            )


def timm_reason(tag: str, config: timm.models.PretrainedCfg) -> str:
    """Why an entry of timm is not in the catalog, or ""."""
    if not tag.endswith("_in1k"):
        return "no ImageNet-1k weights"
    if "_ft_" in tag:
        return "trained on more than ImageNet-1k"
    if re.match(r"tv\d?_", tag):
        return "torchvision's"
    if not config.url:
        return "on Hugging Face only, without a published hash"
    if not re.search(r"-[0-9a-f]{8,}\.pth$", config.url):
        return "no hash in the file's name"
    if preprocessing_of(config.mean, config.std) is None:
        return f"another normalisation, {config.mean}, {config.std}"
    return ""


def _test_size(config: timm.models.PretrainedCfg) -> tuple[int, float]:
    size = (config.test_input_size or config.input_size)[-1]
    return size, config.test_crop_pct or config.crop_pct


def _megabytes(peer: Peer) -> float:
    """Four bytes a parameter and moving statistic; timm publishes no file sizes."""
    with torch.device("meta"):
        state = peer.build(1000).state_dict()
    return round(sum(tensor.numel() for tensor in state.values()) * 4 / 2**20, 1)


# All ----------------------------------------------------------------------------------------------

NORMALISATIONS: dict[tuple[tuple[float, ...], tuple[float, ...]], str] = {
    ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)): "torch",
    ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5)): "tf",
}


def preprocessing_of(mean: Iterable[float], std: Iterable[float]) -> str | None:
    """Our key of a normalisation of RGB 0...1, None if we have none."""
    return NORMALISATIONS.get((tuple(mean), tuple(std)))


def sha256_prefix(url: str) -> str:
    """The hash in a file's name, as torch.hub checks it."""
    found = re.search(r"-([0-9a-f]{8,})\.pth$", url)
    return f"sha256:{found[1]}" if found else _refuse(url)


def _refuse(what: str) -> str:
    raise SystemExit(f"{what} is not as this script knows it.")


def with_defaults(rows: list[Row]) -> list[Row]:
    """Mark one row of each model as default.

    It is Keras Applications' where that has the network (its form and preprocessing are then the
    network's own); else torchvision's V2, whose figure is at the network's own size (timm's are
    mostly at 288 or 320 pixels); else the highest published top-1.
    """

    def rank(row: Row) -> tuple[bool, bool, float]:
        top1 = row.published["top1"] if row.published else 0.0
        return row.source == "Keras Applications", row.tag.endswith("torchvision_v2"), float(top1)

    best = {model: max((r for r in rows if r.model == model), key=rank) for model in _models(rows)}
    return [replace(row, default=row is best[row.model]) for row in rows]


def _models(rows: list[Row]) -> list[str]:
    return list(dict.fromkeys(row.model for row in rows))


KEYS = (
    *("model", "tag", "default", "source", "peer", "url", "hash", "megabytes", "license"),
    *("variant", "preprocessing", "data", "evaluation", "published"),
)


def table(row: Row) -> str:
    """One [[weights]] table in TOML."""
    lines = [f"{key} = {_toml(getattr(row, key))}" for key in KEYS if getattr(row, key) is not None]
    return "\n".join(["[[weights]]", *lines]) + "\n"


def _toml(value: object) -> str:
    if isinstance(value, dict):
        return "{ " + ", ".join(f"{key} = {_toml(item)}" for key, item in value.items()) + " }"
    return json.dumps(value)  # ASCII strings, numbers and booleans are the same in both


# ImageNet's names ---------------------------------------------------------------------------------


def write_names(labels: Path) -> int:
    """Write images/class_names/imagenet2012.txt: WordNet ids in order, and torchvision's names.

    Returns:
        How many of the names WordNet (timm's copy of its lemmas) does not give for the id.
    """
    ids = labels.read_text().split()
    names = torchvision.models.ResNet50_Weights.IMAGENET1K_V1.meta["categories"]
    lines = [f"{wnid}\t{name}\n" for wnid, name in zip(ids, names, strict=True)]
    (PACKAGE / "images" / "class_names" / "imagenet2012.txt").write_text("".join(lines))
    info = Path(timm.__file__).parent / "data" / "_info" / "imagenet_synset_to_lemma.txt"
    lemmas = dict(line.split("\t") for line in info.read_text().splitlines())
    others = [
        f"{wnid} {name}: {lemmas[wnid]}"
        for wnid, name in zip(ids, names, strict=True)
        if name.lower() not in lemmas[wnid].lower().split(", ")
    ]
    print(*others, sep="\n")
    return len(others)


def main() -> None:
    """Write both files, and say what is in the catalog and what is not."""
    warnings.filterwarnings("ignore")
    if len(sys.argv) != 3:
        raise SystemExit(__doc__)
    left_out: list[str] = []
    rows = [*keras_rows(Path(sys.argv[1])), *torchvision_rows(left_out), *timm_rows(left_out)]
    order = list(dict.fromkeys([*KERAS, *PEERS]))
    rows = with_defaults(sorted(rows, key=lambda row: order.index(row.model)))
    versions = f"torchvision {torchvision.__version__.partition('+')[0]}, timm {timm.__version__}"
    header = HEADER.format(versions=f"Keras' sources, {versions}")
    text = "\n".join([header, *map(table, rows)])
    (PACKAGE / "weights" / "catalog.toml").write_text(text)
    names = write_names(Path(sys.argv[2]))
    print(*left_out, sep="\n")
    print("left out:", Counter(re.search(r"\((.*)\)$", line)[1] for line in left_out))  # type: ignore[index]
    print("default:", {row.model: row.tag for row in rows if row.default})
    print("without accuracy:", [row.peer for row in rows if row.published is None])
    print(f"{names} names are not literally WordNet's")
    print(f"{len(rows)} rows, {len(_models(rows))} models:", Counter(row.source for row in rows))


if __name__ == "__main__":
    main()
