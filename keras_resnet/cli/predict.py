"""The verbs that run models: predict and evaluate, and ensemble, which combines several."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from keras_resnet.cli.options import (
    Parser,
    Verb,
    add_activation,
    add_layout,
    add_model,
    natural,
    naturals,
)
from keras_resnet.display.console import print_json
from keras_resnet.errors import UserError
from keras_resnet.files import require_file_target


def _ensemble(options: argparse.Namespace) -> int:
    from keras_resnet.recipes.runs import ensemble

    model = ensemble.write(options.models, Path(options.out))
    result = {
        "file": options.out,
        "members": options.models,
        "classes": model.output_shape[-1],
        "parameters_total": model.count_params(),
    }
    if options.json:
        return print_json(result)
    print(
        f"{options.out}: {len(options.models)} members, {result['classes']} classes, "
        f"{result['parameters_total']:,} parameters"
    )
    print(f"Next: keras-resnet evaluate {options.out} --data NAME")
    return 0


def _evaluate(options: argparse.Namespace) -> int:
    from keras_resnet.recipes import evaluate
    from keras_resnet.recipes.data.protocol import Protocol, describe
    from keras_resnet.recipes.runs import seen, sources
    from keras_resnet.recipes.runs.folder import write_json

    source = sources.find(options.model, options.weights, options.activation)
    protocol = Protocol(options.crops, options.scales, _single_crop(options, source))
    out = None if options.out is None else Path(options.out)
    if out is not None:
        require_file_target(out)
    runtime = source.runtime(protocol.single.size or None if protocol.single else None)
    dataset = sources.dataset_of(
        options.data, source, runtime, whole=protocol.whole, layout=options.layout
    )
    source.warn_of_other_classes(dataset)
    split = dataset.split(options.split)
    result = {
        "model": options.model,
        "data": dataset.name,
        "split": options.split,
        **evaluate.measure(runtime, split, protocol),
        "trained_on": seen.count(source, dataset, split),
    }
    seen.warn(result["trained_on"], result["n"])
    if out is not None:
        write_json(out, result)
    if options.json:
        return print_json(result)
    top5 = f", top-5 {result['top5']:.2%}" if "top5" in result else ""
    print(
        f"{options.model}: accuracy {result['accuracy']:.2%}{top5}, loss {result['loss']:.4f} "
        f"on {result['n']} images ({dataset.name}, {options.split}; "
        f"{describe(result['protocol'])}{_trained_on(result['trained_on'])})"
    )
    return 0


def _predict(options: argparse.Namespace) -> int:
    from keras_resnet.images.read import read_image
    from keras_resnet.recipes.runs import sources

    source = sources.find(options.model, options.weights, options.activation)
    if not any(Path(path).exists() for path in options.images):  # before weights are downloaded
        raise UserError(f"No such image: {', '.join(options.images)}")
    runtime = source.runtime()
    height, width, channels = runtime.input_shape
    size, crop = (height or 224, width or 224), source.crop
    names = source.names(runtime.outputs)
    results: list[dict[str, Any]] = []
    for path in options.images:
        try:
            image = read_image(path, size, channels or 3, crop)
        except UserError as error:  # continue with the other images
            results.append({"image": path, "error": str(error)})
            continue
        scores = runtime.probabilities(image[None])[0]
        best = scores.argsort()[::-1][: options.top]
        top = [{"label": names[index], "probability": float(scores[index])} for index in best]
        results.append({"image": path, "top": top})
    failed = [result for result in results if "error" in result]
    if options.json:
        print_json({"model": options.model, "predictions": results})
    for result in [] if options.json else results:
        for index, entry in enumerate(result.get("top", ())):
            shown = result["image"] if index == 0 else ""
            bar = "█" * round(20 * entry["probability"])
            print(f"{shown:<32} {entry['probability']:>7.2%}  {entry['label']:<16} {bar}")
    for result in failed:
        print(f"error: {result['error']}", file=sys.stderr)
    return 2 if failed else 0


def _trained_on(count: int | None) -> str:
    return "" if count is None else f"; {count:,} of them are training images"


def _single_crop(options: argparse.Namespace, source: Any) -> Any:
    """Return the crop of --resize, or the one with which the weights' accuracy was measured."""
    from keras_resnet.images.crop import SingleCrop

    if options.resize is not None:
        return SingleCrop(options.resize, interpolation=options.interpolation or "bilinear")
    if options.interpolation is not None:
        raise UserError("--interpolation needs --resize, e.g. --resize 256.")
    if source.entry is not None and options.crops == 1 and not options.scales:
        return source.crop
    return None


# Options ------------------------------------------------------------------------------------------


def _ensemble_options(sub: Parser) -> None:
    sub.add_argument("models", nargs="+", metavar="MODEL", help="run folders or .keras files")
    sub.add_argument("--out", metavar="FILE", required=True, help="the .keras file to write")


def _evaluate_options(sub: Parser) -> None:
    add_model(sub)
    add_activation(sub)
    sub.add_argument(
        "--data",
        metavar="NAME|FOLDER",
        help="dataset or folder of images (default: what the model was trained on)",
    )
    add_layout(sub)
    sub.add_argument("--split", default="test", help="train, validation or test (default)")
    sub.add_argument(
        "--crops",
        type=natural,
        default=1,
        metavar="1|10",
        help="1: the central crop (default); 10: average over four corners, the centre and their "
        "mirror images",
    )
    sub.add_argument(
        "--scales",
        type=naturals,
        default=(),
        metavar="N,N,…",
        help="average over whole images at several sizes (shorter side in pixels); He et al. 2015 "
        "use 224,256,384,480,640",
    )
    sub.add_argument(
        "--resize",
        type=natural,
        metavar="N",
        help="resize the shorter side to N pixels before the central crop, exactly as torchvision "
        "and timm do; slower than the default",
    )
    sub.add_argument("--interpolation", help="filter for --resize: bilinear (default) or bicubic")
    sub.add_argument("--out", metavar="FILE", help="also write the result as JSON")


def _predict_options(sub: Parser) -> None:
    add_model(sub)
    add_activation(sub)
    sub.add_argument("images", nargs="+", metavar="IMAGE", help="image files")
    sub.add_argument(
        "--top", type=natural, default=5, metavar="K", help="classes to show (default 5)"
    )


VERBS = {
    "ensemble": Verb(
        "combine models into one file that averages their answers",
        "ensemble RUN1 RUN2 --out ensemble.keras",
        _ensemble_options,
        _ensemble,
    ),
    "evaluate": Verb(
        "measure accuracy and loss on labelled images",
        "evaluate RUN --split test",
        _evaluate_options,
        _evaluate,
    ),
    "predict": Verb(
        "classify images with a trained model or exported file",
        "predict RUN/exports/resnet20-int8.tflite cat.jpg",
        _predict_options,
        _predict,
    ),
}
