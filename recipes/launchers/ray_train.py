"""Train on a Ray cluster: Ray Train starts the workers and sets TF_CONFIG for them.

    pip install "ray[train]"
    python -m keras_resnet.recipes.launchers.ray_train debug/tiny --workers 2 --out /shared/run

OUT must be on a permanent disk of the machine of worker 0 (the chief). After losing a worker, run
the same command again, also with another number of workers: if OUT contains a run, it is resumed.
"""

from __future__ import annotations

import argparse
from typing import Any

from ray.train import ScalingConfig
from ray.train.tensorflow import TensorflowTrainer

from keras_resnet.files import expanded
from keras_resnet.recipes.configs.schema import load_config, parse_override


def train_worker(options: dict[str, Any]) -> None:
    """Run or resume the training on one Ray worker; TF_CONFIG is set."""
    from keras_resnet.recipes import train
    from keras_resnet.recipes.runs.folder import is_run

    if is_run(options["out"]):
        train.resume(options["out"])
    else:
        train.run(load_config(options["config"], options["overrides"]), options["out"])


def main() -> None:
    """Parse the command line and run the trainer."""
    parser = argparse.ArgumentParser(description="Train a config on a Ray cluster.")
    parser.add_argument("config", help="a shipped config or a .toml file")
    parser.add_argument("--out", required=True, metavar="FOLDER", help="the run folder")
    parser.add_argument("--workers", type=int, default=2, metavar="N")
    parser.add_argument("--gpus", type=int, default=0, metavar="N", help="GPUs per worker")
    parser.add_argument("--cpus", type=int, default=1, metavar="N", help="CPUs per worker")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE")
    options = parser.parse_args()
    trainer = TensorflowTrainer(
        train_worker,
        train_loop_config={
            "config": options.config,
            "overrides": dict(parse_override(text) for text in options.set),
            # Ray's workers run in their own folder.
            "out": str(expanded(options.out).absolute()),
        },
        scaling_config=ScalingConfig(
            num_workers=options.workers,
            use_gpu=options.gpus > 0,
            resources_per_worker={"CPU": options.cpus}
            | ({"GPU": options.gpus} if options.gpus else {}),
        ),
    )
    trainer.fit()
    print(f"Next: keras-resnet export {options.out}")


if __name__ == "__main__":
    main()
