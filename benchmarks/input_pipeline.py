"""Measure the JPEG input pipeline in images per CPU-second, in turns with other pipelines.

    python benchmarks/input_pipeline.py [--images FOLDER] [--rounds 9] [--json FILE]

ours      the training pipeline: random resized crop to 224 on the compressed bytes, mirrored, uint8
keras     tf.io.decode_jpeg, then keras.layers.Resizing, RandomCrop, RandomFlip and Rescaling
decode    only tf.io.decode_jpeg of the whole image
turbo     the same with simplejpeg (libjpeg-turbo) in a plain loop, if it is installed

All but the last are endless tf.data pipelines over the same files. CPU time is the time of all
threads of the process, from full buffers until they are full again. Our pipeline leaves the
normalisation to the device. The Keras pipeline returns float32 0...1, as in Keras' guides.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from keras_resnet.export import manifest
from keras_resnet.recipes.configs.schema import AugmentConfig
from keras_resnet.recipes.data.batches import training_batches
from keras_resnet.recipes.data.decoded import PARALLEL, options
from keras_resnet.recipes.data.encoded import EncodedSplit
from keras_resnet.recipes.data.folders import Files

WIDTH, HEIGHT, SIDE, BATCH = 500, 375, 224, 64
BARS = {"keras": 1.4, "turbo": 0.7, "decode": 0.7}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--images", type=Path, help="folder of photographs (default: generated images)"
    )
    parser.add_argument(
        "--count", type=int, default=512, help="images per round, a multiple of 64 (default 512)"
    )
    parser.add_argument("--rounds", type=int, default=9, help="number of rounds (default 9)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = _write_images(arguments.images, Path(folder))
        pipelines = _pipelines(paths, arguments.count)
        rates = _measure(pipelines, arguments.count, arguments.rounds)
        sizes = [path.stat().st_size for path in paths]
    content = {
        "images": str(arguments.images.name) if arguments.images else "generated",
        "distinct_images": len(paths),
        "mean_bytes": round(statistics.mean(sizes)),
        "count": arguments.count,
        "rounds": arguments.rounds,
        "images_per_cpu_second": {name: _spread(values) for name, values in rates.items()},
        "ours_over": {
            name: _spread([a / b for a, b in zip(rates["ours"], values, strict=True)])
            for name, values in rates.items()
            if name != "ours"
        },
        "bars": {name: bar for name, bar in BARS.items() if name in rates},
        "created": manifest.now(),
        **manifest.environment(),
    }
    _print(content)
    if arguments.json:
        arguments.json.write_text(json.dumps(content, indent=2) + "\n")


def _write_images(source: Path | None, folder: Path) -> list[Path]:
    """JPEGs of 500×375, quality 90: photographs, or scenes with a photograph's statistics."""
    if source is None:
        scenes = [_scene(seed) for seed in range(16)]
    else:
        found = sorted(p for p in source.rglob("*") if p.suffix.lower() in (".jpg", ".jpeg"))[:64]
        scenes = [Image.open(path).convert("RGB").resize((WIDTH, HEIGHT)) for path in found]
    paths = [folder / f"{index:03}.jpg" for index in range(len(scenes))]
    for scene, path in zip(scenes, paths, strict=True):
        scene.save(path, quality=90)
    return paths


def fill(folder: Path, count: int) -> list[str]:
    """Fill a new folder with links to a few generated JPEG files; return their paths."""
    scenes = folder.with_name(f"{folder.name}-scenes")
    for path in (folder, scenes):
        path.mkdir()
    files = _write_images(None, scenes)
    paths = [str(folder / f"{index:06}.jpg") for index in range(count)]
    for index, path in enumerate(paths):
        os.link(files[index % len(files)], path)
    return paths


def _scene(seed: int) -> Image.Image:
    """Noise whose amplitude falls with the frequency, as in photographs, in weak colours."""
    rng = np.random.default_rng(seed)
    down, across = np.fft.fftfreq(HEIGHT)[:, None], np.fft.rfftfreq(WIDTH)[None]
    amplitude = 1 / np.maximum(np.hypot(down, across), 1 / WIDTH) ** 1.2

    def field() -> np.ndarray:
        phases = np.exp(2j * np.pi * rng.random(amplitude.shape))
        values = np.fft.irfft2(amplitude * phases, (HEIGHT, WIDTH))
        return values / values.std()

    luma = field()[..., None] + 0.3 * np.stack([field() for _ in range(3)], axis=-1)
    return Image.fromarray(np.clip(128 + 50 * luma, 0, 255).astype("uint8"))


def _pipelines(paths: list[Path], count: int) -> dict[str, Callable[[], None]]:
    """Each runs over `count` images when it is called."""
    names = [str(paths[index % len(paths)]) for index in range(count)]
    split = EncodedSplit(Files(names, np.zeros(count, "int32")), SIDE)
    ours = training_batches(split, BATCH, 0, AugmentConfig(crop="resized"))
    files = (
        tf.data.Dataset.from_tensor_slices(names)
        .repeat()
        .map(tf.io.read_file, num_parallel_calls=PARALLEL)
    )
    decoded = files.map(
        lambda encoded: tf.io.decode_jpeg(encoded, channels=3), num_parallel_calls=PARALLEL
    )
    layers = keras.Sequential(
        [
            keras.layers.Resizing(256, 256, crop_to_aspect_ratio=True),
            keras.layers.RandomCrop(SIDE, SIDE),
            keras.layers.RandomFlip("horizontal"),
            keras.layers.Rescaling(1 / 255),
        ]
    )
    varied = decoded.map(
        lambda image: layers(image[None], training=True)[0], num_parallel_calls=PARALLEL
    )
    pipelines = {
        "ours": _runner(ours, count // BATCH),
        "keras": _runner(varied.batch(BATCH).prefetch(4), count // BATCH),
        "decode": _runner(decoded, count),
    }
    try:
        simplejpeg = importlib.import_module("simplejpeg")
    except ImportError:
        return pipelines

    def turbo() -> None:
        for name in names:
            simplejpeg.decode_jpeg(Path(name).read_bytes())

    return pipelines | {"turbo": turbo}


def _runner(dataset: tf.data.Dataset, elements: int) -> Callable[[], None]:
    iterator = iter(dataset.with_options(options()))

    def run() -> None:
        for _ in range(elements):
            next(iterator)
        before, now = -1.0, time.process_time()
        while now - before > 0.005:  # the buffers are being filled again
            time.sleep(0.1)
            before, now = now, time.process_time()

    return run


def _measure(
    pipelines: dict[str, Callable[[], None]], count: int, rounds: int
) -> dict[str, list[float]]:
    """Images per CPU-second, a value per round; every round runs all, one after another."""
    rates: dict[str, list[float]] = {name: [] for name in pipelines}
    for number in range(rounds + 1):
        for name, run in pipelines.items():
            began = time.process_time()
            run()
            if number:  # the first round warms up
                rates[name].append(count / (time.process_time() - began))
    return rates


def _spread(values: list[float]) -> dict[str, float]:
    """Median, least and greatest of the rounds."""
    figures = {"median": statistics.median(values), "least": min(values), "greatest": max(values)}
    return {name: float(f"{value:.4g}") for name, value in figures.items()}


def _print(content: dict) -> None:
    for name, rate in content["images_per_cpu_second"].items():
        print(f"{name:<8} {rate['median']:>7.0f} images per CPU-second", end="")
        print(f" ({rate['least']:.0f} to {rate['greatest']:.0f})")
    for name, ratio in content["ours_over"].items():
        bar = content["bars"][name]
        print(f"ours / {name:<7} {ratio['median']:.2f} ({ratio['least']:.2f} to ", end="")
        print(
            f"{ratio['greatest']:.2f}); bar {bar}: {'met' if ratio['median'] >= bar else 'MISSED'}"
        )


if __name__ == "__main__":
    main()
