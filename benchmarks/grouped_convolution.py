"""Time a training step of ResNeXt's grouped convolution: our layer against stock Keras.

    python benchmarks/grouped_convolution.py [--rounds 5] [--json FILE]

The layer is the 3×3 convolution of the first stage of ResNeXt-50 32×4d (128 channels, 32 groups,
56×56 pixels). A step is the forward pass and the gradient on a batch of 8. Both layers take turns
in one process, after a step that is not counted.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

SHAPE, GROUPS = (8, 56, 56, 128), 32


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds (default 5)")
    parser.add_argument("--json", metavar="FILE", help="also write the record to this file")
    options = parser.parse_args()
    import keras

    import keras_resnet
    from keras_resnet.export import manifest
    from keras_resnet.export.measure.turns import ratio, spread

    steps = {"ours": _step(keras_resnet.Conv2D), "stock": _step(keras.layers.Conv2D)}
    seconds: dict[str, list[float]] = {who: [] for who in steps}
    for number in range(-1, options.rounds):
        for who, step in steps.items():
            began = time.perf_counter()
            step()
            if number >= 0:
                seconds[who].append(time.perf_counter() - began)
    record: dict[str, Any] = {
        "created": manifest.now(),
        **manifest.environment(),
        "n": options.rounds,
        **{who: spread(values) for who, values in seconds.items()},
        "ratio": ratio(seconds["stock"], seconds["ours"]),
    }
    print(
        f"a step of a grouped convolution: ours {1e3 * record['ours']['median']:.0f} ms, stock "
        f"Keras {1e3 * record['stock']['median']:.0f} ms, stock/ours "
        f"{record['ratio']['median']:.0f} ({record['ratio']['least']:.0f} to "
        f"{record['ratio']['most']:.0f}, n = {options.rounds})"
    )
    if options.json:
        Path(options.json).write_text(json.dumps(record, indent=1) + "\n")


def _step(kind: type) -> Callable[[], None]:
    import numpy as np
    import tensorflow as tf

    layer = kind(SHAPE[-1], 3, padding="same", groups=GROUPS, use_bias=False)
    layer.build(SHAPE)
    images = tf.constant(np.random.default_rng(0).normal(size=SHAPE), "float32")

    @tf.function
    def gradient() -> Any:
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(layer(images) ** 2)
        return tape.gradient(loss, layer.trainable_variables[0].value)

    return lambda: gradient().numpy()


if __name__ == "__main__":
    main()
