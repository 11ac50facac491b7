"""Measure int8 files of ImageNet-size networks: operations left in float, and the signal left.

    python benchmarks/quantized_imagenet.py [NAME ...] [--size 224] [--jobs 1] [--json FILE]

No trained weights are needed. The weights are random, and batch normalisation has the statistics of
real images (by default, enlarged CIFAR-10 images). Every layer with a bias is scaled in the same
way, as if batch normalisation had been folded into it. So networks without batch normalisation keep
their signal too. The inputs of ReLUs have mean 1 and variance 1. With mean 0, ReLUs would cut off
half of the signal, and a random network of fifty layers would amplify rounding until it hides the
answer. The logits have mean 0, so that the part common to all images does not count as signal.

Each network is exported to int8, trained with quantization-aware training for 2 steps of 8 images,
and exported again. Each network runs in a separate process.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections import Counter
from multiprocessing.pool import ThreadPool
from pathlib import Path
from typing import Any

NETWORKS = (
    "resnet50v1_5",
    "resnet50v2",
    "seresnet50",
    "resnext50_32x4d",
    "densenet121",
    "vgg16",
    "googlenet",
    "googlenet_bn",
)
TRAIN, TEST, BATCH = 64, 32, 8  # images
STEPS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"networks (default {' '.join(NETWORKS)})"
    )
    parser.add_argument(
        "--data", default="cifar10", help="dataset of real images (default cifar10)"
    )
    parser.add_argument("--size", type=int, default=224, help="image side in pixels (default 224)")
    parser.add_argument("--jobs", type=int, default=1, help="networks at the same time (default 1)")
    parser.add_argument(
        "--json", metavar="FILE", type=Path, help="also write the record to this file"
    )
    parser.add_argument("--alone", metavar="FOLDER", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.alone:
        _measure(options.names[0], options.alone, options.size)
        return
    with tempfile.TemporaryDirectory() as scratch, ThreadPool(options.jobs) as pool:
        folder = write_images(options.data, options.size, Path(scratch) / "images")
        names = options.names or NETWORKS
        for row in pool.imap_unordered(lambda x: _in_a_process(x, folder, options.size), names):
            _print(row)
            if options.json:  # also of those that are done when it is interrupted
                _record(row, options)


def _record(row: dict[str, Any], options: argparse.Namespace) -> None:
    """Add the row to the record, which may have rows of other networks, also from earlier runs."""
    from keras_resnet.export import manifest

    setup = {
        "data": options.data,
        "size": options.size,
        "images": {"calibration": TRAIN, "check": TEST, "qat_batch": BATCH, "qat_steps": STEPS},
        **manifest.environment(),
    }
    before = json.loads(options.json.read_text()) if options.json.is_file() else {}
    same = {key: before.get(key) for key in setup} == setup
    others = [x for x in before["rows"] if x["network"] != row["network"]] if same else []
    row["created"] = manifest.now()
    options.json.write_text(json.dumps({**setup, "rows": [*others, row]}, indent=1) + "\n")


def _in_a_process(name: str, folder: Path, size: int) -> dict[str, Any]:
    command = [sys.executable, __file__, name, "--alone", str(folder), "--size", str(size)]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)
    row: dict[str, Any] = {"network": name}
    for line in done.stdout.splitlines():
        row |= json.loads(line)
    error = {"error": f"the process ended with code {done.returncode}"}
    return {"ptq": error, "qat": error} | row


def _print(row: dict[str, Any]) -> None:
    for kind in ("ptq", "qat"):
        found = row[kind]
        if "error" in found:
            text = f"failed: {found['error']}"
        else:
            in_float = ", ".join(found["in_float"]) or "none"
            snr = "–" if found["snr_db"] is None else f"{found['snr_db']:.1f} dB"
            text = (
                f"in float: {in_float}; {snr}, agreement {found['agreement'] or 0:.1%}, "
                f"{found['bytes']:,} bytes"
            )
        print(f"{row['network']:<16} {kind}  {text}", flush=True)


def _measure(name: str, folder: Path, size: int) -> None:
    """Print the results for a network, one line for each of its two files."""
    from keras_resnet.recipes import load_dataset

    images = load_dataset(str(folder), image_size=size, crop_fraction=1.0)
    with tempfile.TemporaryDirectory() as scratch:
        model = settled(name, images.train, len(images.class_names))
        print(json.dumps({"parameters": model.count_params()}), flush=True)
        for kind, measure in (("ptq", _exported), ("qat", _trained)):
            try:
                found = measure(model, images, Path(scratch) / kind)
            except Exception as error:  # of any library; the row says so, the others go on
                found = {"error": (str(error).strip() or repr(error)).splitlines()[0]}
            print(json.dumps({kind: found}), flush=True)


def write_images(data: str, size: int, folder: Path) -> Path:
    """Write a few images of `data` to a folder, which is used as a dataset."""
    import tensorflow as tf

    from keras_resnet.recipes import load_dataset

    dataset = load_dataset(data)
    if not dataset.sized:
        dataset = dataset.at(size)
    for name, split, count in (("train", dataset.train, TRAIN), ("val", dataset.test, TEST)):
        chosen = split.sample(count)
        for number, (image, label) in enumerate(zip(chosen.images, chosen.labels, strict=True)):
            path = folder / name / dataset.class_names[label] / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(tf.io.encode_png(image).numpy())
    return folder


def settled(name: str, split: Any, classes: int) -> Any:
    """Return the network with random weights, scaled so that every layer's outputs vary by about 1.

    It maps RGB 0...255 to logits. One pass is enough, because a layer is scaled as soon as its
    input is known.
    """
    import keras

    import keras_resnet
    from keras_resnet.keras_compat import calls_of

    keras.utils.set_random_seed(0)
    images = split.sample(TRAIN // 2).images.astype("float32")
    model = keras_resnet.create_model(
        name,
        input_shape=images.shape[1:],
        classes=classes,
        classifier_activation=None,
        include_preprocessing=True,
    )
    values = {id(model.input): keras.ops.convert_to_tensor(images)}
    operations = [x for x in model.operations if not isinstance(x, keras.layers.InputLayer)]
    readers = Counter(id(t) for x in operations for t in calls_of(x)[0].inputs)
    for operation in operations:
        call = calls_of(operation)[0]
        given = keras.tree.map_structure(lambda t: values[id(t)], call.args[0])
        _settle(operation, given)
        values[id(operation.output)] = operation(given)
        for tensor in call.inputs:  # what nothing reads any more would fill the memory
            readers[id(tensor)] -= 1
            if not readers[id(tensor)]:
                values.pop(id(tensor), None)
    return model


def _settle(layer: Any, given: Any) -> None:
    """Give the layer statistics, or a scale, so that its outputs have variance 1."""
    import keras
    import numpy as np

    def moments(values: Any) -> list[np.ndarray]:
        return [np.asarray(x) for x in keras.ops.moments(values, list(range(values.ndim - 1)))]

    if isinstance(layer, keras.layers.BatchNormalization):
        layer.moving_mean.assign(moments(given)[0])
        layer.moving_variance.assign(moments(given)[1])
        layer.beta.assign(keras.ops.ones_like(layer.beta))
    elif getattr(layer, "use_bias", False):
        activation, layer.activation = layer.activation, keras.activations.linear
        mean, variance = moments(layer(given))
        layer.activation = activation
        kernel, bias = layer.get_weights()
        scale = 1 / np.sqrt(variance + 1e-6)
        offset = 0 if layer.name == "head" else 1
        layer.set_weights([kernel * scale, (bias - mean) * scale + offset])


def _exported(model: Any, images: Any, out: Path) -> dict[str, Any]:
    """Compare the int8 file with the model, with calibrated or with trained ranges."""
    from keras_resnet.export import export
    from keras_resnet.export.formats.tflite.ranges import has_ranges
    from keras_resnet.export.runtimes.open import open_file

    calibrated = not has_ranges(model)
    report = export(
        model,
        ["tflite-int8"],
        out=out,
        calibration=images.train.sample(TRAIN).images if calibrated else None,
        check_images=images.test.sample(TEST).images,
    )
    (found,) = report.checks
    graph = open_file(out / found.file).graph
    return {
        "in_float": sorted({item.kind for item in graph if item.in_float}),
        "operations": found.operations,
        "snr_db": found.snr_db,
        "agreement": found.agreement,
        "bytes": report.manifest["files"][0]["bytes"],
        "passed": found.passed,
        "problems": list(found.problems),
    }


def _trained(model: Any, images: Any, out: Path) -> dict[str, Any]:
    """Do two steps of quantization-aware training; compare the int8 file with the result."""
    import keras

    from keras_resnet.recipes import compress, load_config

    settings = {
        "data.name": images.name,
        "data.validation": 0,
        "data.crop_fraction": 1.0,
        "augment.crop": "resized",
        "train.steps": STEPS,
        "train.batch_size": BATCH,
        "optimizer.learning_rate": 0.001,
        "compress.freeze_bn": 1.0,
    }
    run = compress.run(model, load_config(compress.QAT, settings), out)
    quantized = keras.models.load_model(run.model)
    logits = keras.Model(
        quantized.input, quantized.get_layer("predictions").input, name=quantized.name
    )
    return _exported(logits, images, out / "exports")


if __name__ == "__main__":
    main()
