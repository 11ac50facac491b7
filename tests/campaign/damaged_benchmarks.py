"""`benchmark` on damaged files: each file is measured in a process of its own."""

from __future__ import annotations

import random
from pathlib import Path

from campaign import files, invariant

NAME = "benchmarks"
TRIALS, SHARE, SECONDS = 60, 0, 300.0  # two processes each, which import an engine


def trial(seed: int, folder: Path) -> str | None:
    """Damage a file, and measure it."""
    chance = random.Random(seed)
    model, target = chance.choice(files.MODELS)(folder)
    files.spoil(chance, target)
    command = ["benchmark", str(model.relative_to(folder)), "--rounds", "1", "--runs", "1"]
    problem = invariant.run([*command, "--batch", "1"], cwd=folder)
    return problem and f"{model.name}: {problem}"
