"""Show where the time of a training step goes, by kind of operation.

    python benchmarks/step_profile.py [--model resnet18] [--stock] [--precision float32] [--json F]

It profiles some steps of `Loop` (or of Keras' stock layers in it, `--stock`) on one thread, so that
the times of the operations add up to the step.
"""

from __future__ import annotations

import argparse
import json
import re
import sys
import tempfile
from collections import Counter
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent / "peers"))

from training import WORKLOADS

from keras_resnet import onednn

# The first pattern that fits the operation's kind names the group.
GROUPS = {
    "convolutions, forward": r"Conv2D$",
    "convolutions, backward": r"Conv2DBackprop",
    "batch normalisation": r"BatchNorm|Rsqrt|SquaredDifference|Mean|Moments",
    "ReLU, addition": r"Relu|Add",
    "pooling, padding": r"Pool|Pad|Slice",
    "update of the weights": r"Assign|Resource|ReadVariable",
}
_PS_PER_MS = 1e9


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", choices=WORKLOADS, default="resnet18", help="the network")
    parser.add_argument("--precision", default="float32", help="float32 or mixed_bfloat16")
    parser.add_argument("--stock", action="store_true", help="Keras' own layers")
    parser.add_argument("--steps", type=int, default=5, help="number of steps (default 5)")
    parser.add_argument("--json", type=Path, help="also write the figures to this file")
    options = parser.parse_args()
    kinds = _milliseconds(options)
    total = sum(kinds.values())
    grouped: Counter[str] = Counter()
    for kind, value in kinds.items():
        grouped[_group(kind)] += value
    for name, value in grouped.most_common():
        print(f"{name:<26} {value:8.1f} ms  {value / total:6.1%}")
    print(f"{'a step, on one thread':<26} {total:8.1f} ms")
    print("  ".join(f"{kind} {value:.1f}" for kind, value in kinds.most_common(12)))
    if options.json:
        from keras_resnet.export import manifest

        shares = {name: value / total for name, value in grouped.most_common()}
        about = {key: getattr(options, key) for key in ("model", "precision", "stock", "steps")}
        content = {**about, "ms": total, "shares": shares, "created": manifest.now()}
        options.json.write_text(json.dumps({**content, **manifest.environment()}, indent=2) + "\n")


def _group(kind: str) -> str:
    found = (name for name, pattern in GROUPS.items() if re.search(pattern, kind))
    return next(found, "other")


def _milliseconds(options: argparse.Namespace) -> Counter[str]:
    """Return the milliseconds of a step that operations of each kind take."""
    onednn.turn_on(onednn.read_cpuinfo(), training=True)  # as `keras-resnet train` does
    import keras
    import tensorflow as tf
    from keras_fit import stock
    from keras_shared import LEARNING_RATE, MOMENTUM, WEIGHT_DECAY, network, one_batch_repeated

    from keras_resnet.recipes.training.loop import Loop

    tf.config.threading.set_inter_op_parallelism_threads(1)
    tf.config.threading.set_intra_op_parallelism_threads(1)
    work = vars(WORKLOADS[options.model]) | {"precision": options.precision}
    model = network(work)
    loop = Loop(
        tf.distribute.get_strategy(),
        stock(model) if options.stock else model,
        keras.optimizers.SGD(LEARNING_RATE, momentum=MOMENTUM),
        batch_size=work["batch_size"],
        weight_decay=WEIGHT_DECAY,
    )
    batches = loop.distribute(one_batch_repeated(work))
    for _ in range(2):
        loop.train_step(batches)
    with tempfile.TemporaryDirectory() as folder:
        tf.profiler.experimental.start(folder)
        for _ in range(options.steps):
            loop.train_step(batches)
        loop.metrics()  # waits for the last step
        tf.profiler.experimental.stop()
        (file,) = Path(folder).rglob("*.xplane.pb")
        return _by_kind(file.read_bytes(), options.steps)


def _by_kind(profile: bytes, steps: int) -> Counter[str]:
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space: Any = xplane_pb2.XSpace.FromString(profile)
    found: Counter[str] = Counter()
    for plane in space.planes:
        for line in plane.lines:
            for event in line.events:
                name = plane.event_metadata[event.metadata_id].name
                # Operations are named "name:kind"; the rest is the runtime's.
                if match := re.fullmatch(r"[\w/.\-]+:(_?[A-Z]\w+)", name):
                    found[match[1]] += event.duration_ps / _PS_PER_MS / steps
    return found


if __name__ == "__main__":
    main()
