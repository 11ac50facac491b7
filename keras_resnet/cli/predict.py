"""The verbs that run models: predict and evaluate, and ensemble, which combines several."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from keras_resnet.cli.options import (
    Parser,
    Verb,
    add_activation,
    add_layout,
    add_model,
    add_trust,
    natural,
    naturals,
)
from keras_resnet.display.bars import progress
from keras_resnet.display.console import print_json, print_lines
from keras_resnet.errors import UserError
from keras_resnet.files import require_file_target
from keras_resnet.text import for_terminal


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
    from keras_resnet.recipes.configs.schema import shown_name
    from keras_resnet.recipes.data.protocol import Protocol, describe
    from keras_resnet.recipes.runs import seen, sources
    from keras_resnet.recipes.runs.folder import write_json

    source = sources.find(options.model, options.weights, options.activation)
    protocol = Protocol(options.crops, options.scales, _single_crop(options, source), options.flip)
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
    several = "mean_average_precision" in result
    rows = {
        "model": options.model,
        "images": f"{result['n']:,}, {options.split} split of {shown_name(dataset.name)}",
        "crop": describe(result["protocol"]),
        "accuracy": f"{result['accuracy']:.2%}" + several * ", of every label of every image",
        "mean AP": f"{result['mean_average_precision']:.2%}" if several else None,
        "top-5": f"{result['top5']:.2%}" if "top5" in result else None,
        "macro F1": f"{result['macro']['f1']:.2%}",
        "loss": f"{result['loss']:.4f}",
    }
    if result["trained_on"] is not None:
        rows["trained on"] = f"{result['trained_on']:,} of these images"
    print_lines(f"{name:<12}{value}" for name, value in rows.items() if value is not None)
    return print_lines(_class_lines(result["per_class"], dataset.class_names) if several else ())


def _class_lines(scores: dict[str, Any], names: tuple[str, ...]) -> Iterator[str]:
    """Yield a table of the scores of each class."""
    width = max(len(name) for name in names)
    yield f"\n{'label':<{width}}  precision   recall       F1   images"
    columns = (scores[key] for key in ("precision", "recall", "f1", "n"))
    for name, *shares, count in zip(names, *columns, strict=True):
        yield (
            f"{name:<{width}}   " + "".join(f"{share:>8.2%} " for share in shares) + f"{count:>8,}"
        )


def _predict(options: argparse.Namespace) -> int:
    from keras_resnet.recipes.runs import classify, sources

    source = sources.find(options.model, options.weights, options.activation)
    images = classify.find_images(options.images)  # before weights are fetched
    out = None if options.out is None else Path(options.out)
    if out is not None:
        require_file_target(out)
        classify.require_writer(out)
    classifier = classify.Classifier(source)
    results = classifier.classify(images, options.top)
    if out is not None:
        writer = classify.writer(out, classifier, options.top)
        return _write_predictions(results, writer, options, len(images))
    if options.json:
        kept = list(results)
        print_json({"model": options.model, "predictions": kept})
        return _said(kept)
    failed = 0
    for result in results:
        failed |= _said([result])
        for index, entry in enumerate(result.get("top") or _nothing(result)):
            shown = for_terminal(result["image"]) if index == 0 else ""
            bar = "█" * round(20 * entry["probability"])
            label = for_terminal(entry["label"])
            print(f"{shown:<32} {entry['probability']:>7.2%}  {label:<16} {bar}", flush=True)
    return failed


def _nothing(result: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the line for an image without a label: the most probable one, so marked."""
    if not (found := result.get("probabilities")):  # not with one class an image, or an error
        return []
    name = max(found, key=lambda label: found[label])
    return [{"label": f"no label (nearest: {name})", "probability": found[name]}]


def _write_predictions(
    results: Iterator[dict[str, Any]],
    writer: AbstractContextManager[Callable[[dict[str, Any]], None]],
    options: argparse.Namespace,
    total: int,
) -> int:
    """Write each result and keep none."""
    failed, count = 0, Counter[str]()
    with writer as write, progress("classifying", total) as advance:
        for result in results:
            write(result)
            failed |= _said([result])
            count.update(_counted(result))
            advance(1)
    if options.json:
        counted = {"file": options.out, "images": total, "labels": count}
        print_json({"model": options.model, **counted})
        return failed
    print(f"{options.out}: {total:,} images")
    print_lines(f"{number:>8,}  {for_terminal(label)}" for label, number in count.most_common())
    return failed


def _counted(result: dict[str, Any]) -> list[str]:
    """Return the labels that an image counts for: its most probable class, or all its labels."""
    labels = [entry["label"] for entry in result.get("top", ())]
    if "probabilities" not in result:
        return labels[:1]
    return labels or ["no label"]


def _said(results: Iterable[dict[str, Any]]) -> int:
    """Say on stderr what could not be read; return the exit code."""
    errors = [result["error"] for result in results if "error" in result]
    for error in errors:
        print(f"error: {error}", file=sys.stderr)
    return 2 if errors else 0


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
    add_trust(sub)
    sub.add_argument(
        "--data",
        metavar="NAME|FOLDER",
        help="dataset, folder of images, or CSV file with their labels (default: what the model "
        "was trained on)",
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
        "--flip", action="store_true", help="average over the central crop and its mirror image"
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
    add_trust(sub)
    sub.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE|FOLDER",
        help="image files, folders of images, or patterns in quotes, e.g. 'photos/*.jpg'",
    )
    sub.add_argument(
        "--top",
        type=natural,
        default=5,
        metavar="K",
        help="classes to show (default 5); a model with several labels an image shows all above "
        "50 %%",
    )
    sub.add_argument(
        "--out",
        metavar="FILE",
        help="write the results to a .csv or .jsonl file; print how many images have each class",
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
