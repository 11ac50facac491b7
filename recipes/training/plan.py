"""A training that can begin: its config, data and folder are checked, and nothing is written yet.

`train.plan`, `finetune.plan` and the two of `compress` make a `Plan`; `train.carry_out` trains it,
and `--dry-run` prints it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import keras

from keras_resnet.recipes.configs.schema import to_toml
from keras_resnet.recipes.runs.folder import Run, create_run
from keras_resnet.recipes.training.job import Job


@dataclass(frozen=True)
class Plan:
    """A training that has not begun.

    Attributes:
        job: the resolved config with its data, devices and steps.
        folder: the run's folder.
        models: the "start" and the "teacher"; the run keeps a copy of each.
        about_start: how the first model was made; the summary repeats it.
    """

    job: Job
    folder: Path
    models: Mapping[str, keras.Model | None] = field(default_factory=dict)
    about_start: dict[str, Any] | None = None

    def create(self) -> Run:
        """Make the run's folder.

        Raises:
            UserError: the folder is not empty, or cannot be written.
        """
        return create_run(self.folder, self.job.config, self.models, self.about_start)

    def to_dict(self) -> dict[str, Any]:
        """Return the facts of `--dry-run --json`: folder, images, steps and the resolved config."""
        job, dataset = self.job, self.job.dataset
        splits = {name: len(getattr(dataset, name)) for name in ("train", "validation", "test")}
        return {
            "dry_run": True,
            "run": str(self.folder),
            "images": splits,
            "classes": len(dataset.class_names),
            "image_shape": list(dataset.input_shape),
            "steps": job.total_steps,
            "steps_per_epoch": job.steps_per_epoch,
            "epochs": job.epochs,
            "devices": job.strategy.num_replicas_in_sync,
            "config": asdict(job.config),
        }

    def __str__(self) -> str:
        """Return the text of `--dry-run`: the config as TOML, then the same facts as comments."""
        facts = self.to_dict()
        images = ", ".join(f"{count:,} {name}" for name, count in facts["images"].items())
        shape = "×".join(str(side) for side in facts["image_shape"])
        devices = facts["devices"]
        lines = (
            "Dry run: nothing was trained or written. The config is above.",
            f"run      {self.folder}",
            f"images   {images}; {shape}, {facts['classes']:,} classes",
            f"steps    {facts['steps']:,}: {facts['epochs']:,} epochs of "
            f"{facts['steps_per_epoch']:,} steps",
            f"device   {'1 device' if devices == 1 else f'{devices} devices'}, "
            f"{self.job.precision}",
        )
        return f"{to_toml(self.job.config)}\n" + "\n".join(f"# {line}" for line in lines)
