"""Run folders with damaged, odd and missing files, and the verbs that read them."""

from __future__ import annotations

import atexit
import functools
import json
import os
import random
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import keras

from campaign import invariant

NAME = "run folders"
TRIALS, SHARE, SECONDS = 600, 0, 900.0  # its base runs take too long for the default tests

_ODD: list[Any] = [
    None, True, "", "x", "\x1b[31m", "../../x", "é" * 300, -1, 0, 1.5, 10**30, 1e308, float("nan"),
    float("inf"), [], {}, [[]], ["x"], {"x": 1}, "9" * 5000,
]  # fmt: skip
_FILES = [
    "config.toml", "config.toml", "config.toml", "summary.json", "summary.json", "log.csv",
    "log.csv", "labels.txt", "trained_on.npz", "best.weights.h5", "model.keras", ".lock",
    "checkpoints/checkpoint", "checkpoints/*.index", "checkpoints/*.data*", "tensorboard/*",
]  # fmt: skip


def trial(seed: int, folder: Path) -> str | None:
    """Damage a run's folder and call one verb on it; return what went wrong."""
    chance = random.Random(seed)
    finished = chance.random() < 0.6
    run = folder / "run"
    shutil.copytree(_runs() / ("finished" if finished else "interrupted"), run)
    damages = [_damage(chance, run) for _ in range(chance.choice([1, 1, 2]))]
    verbs = [
        ["train", "--resume", "run"],
        ["report", "run"],
        ["compare", "run", str(_runs() / "finished")],
        ["compare", "run", "--json"],
        ["evaluate", "run"],
        ["runs", "."],
        ["runs", ".", "--json"],
    ]
    verb = chance.choice(verbs if finished else [*verbs, verbs[0], verbs[0]])
    problem = invariant.call(verb, cwd=folder)
    where = "finished" if finished else "interrupted"
    return problem and f"{' '.join(verb[:2])}, {where}, {'; '.join(damages)}: {problem}"


@functools.cache
def _runs() -> Path:
    """Train the runs that are copied; return their folder."""
    from keras_resnet.recipes import load_config, train

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: dict[str, float] | None = None) -> None:
            if batch == 13:  # of 20, in the second epoch
                raise KeyboardInterrupt

    folder = Path(tempfile.mkdtemp(prefix="campaign-runs-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    config = load_config("debug/tiny", {"train.epochs": 2})
    train.run(config, folder / "finished")
    try:
        train.run(config, folder / "interrupted", callbacks=[Stop()])
    except KeyboardInterrupt:
        return folder
    raise AssertionError("the run was not interrupted")


# Damages ------------------------------------------------------------------------------------------


def _damage(chance: random.Random, run: Path) -> str:
    """Damage one file; return how."""
    found = sorted(path for path in run.glob(chance.choice(_FILES)) if path.is_file())
    if not found:
        return "nothing"
    path = chance.choice(found)
    kinds = [_text_damage(path)] * 6 + [_bytes, _bytes, _cut, _cut, _gone, _gone, _other]
    kind = chance.choice(kinds)
    try:
        return f"{path.name} {kind(chance, path)}"
    except (ValueError, IndexError):  # it was damaged before
        return f"{path.name} {_bytes(chance, path)}"


def _text_damage(path: Path) -> Callable[[random.Random, Path], str]:
    return {".json": _json, ".toml": _toml, ".csv": _csv}.get(path.suffix, _bytes)


def _bytes(chance: random.Random, path: Path) -> str:
    content = bytearray(path.read_bytes())
    for _ in range(chance.choice([1, 5, 50])):
        if content:
            content[chance.randrange(len(content))] = chance.randrange(256)
    path.write_bytes(content)
    return "with other bytes"


def _cut(chance: random.Random, path: Path) -> str:
    size = path.stat().st_size
    os.truncate(path, chance.choice([0, size // 2, max(size - 1, 0), chance.randrange(size + 1)]))
    return f"cut to {path.stat().st_size} of {size} bytes"


def _gone(chance: random.Random, path: Path) -> str:
    path.unlink()
    return "gone"


def _other(chance: random.Random, path: Path) -> str:
    """Put something else in the file's place."""
    path.unlink()
    kind = chance.choice(["folder", "loop", "noise", "zeros", "FIFO", "link to a device", "deep"])
    if kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "FIFO":
        os.mkfifo(path)
    elif kind == "link to a device":
        path.symlink_to("/dev/zero")
    elif kind == "deep":
        path.write_text("[" * 100_000)
    else:
        path.write_bytes(chance.randbytes(1000) if kind == "noise" else bytes(1000))
    return f"is a {kind}"


def _json(chance: random.Random, path: Path) -> str:
    content = json.loads(path.read_text())
    places = [(content, key) for key in content]
    places += [(part, key) for part in content.values() if isinstance(part, dict) for key in part]
    part, key = chance.choice(places)
    if chance.random() < 0.3:
        del part[key]
        told = f"without {key}"
    else:
        part[key] = chance.choice(_ODD)
        told = f"with {key} = {part[key]!r:.50}"
    path.write_text(json.dumps(chance.choice([content, content, content, part, [content]])))
    return told


def _toml(chance: random.Random, path: Path) -> str:
    lines = path.read_text().splitlines()
    index = chance.choice([i for i, line in enumerate(lines) if " = " in line])
    key = lines[index].partition(" = ")[0]
    values = [
        "nan", "-inf", "1e400", str(10**30), "-1", "0", "true", '""', '"x"', '"\\u001b[2J"', "[]",
        "{}", '["x"]', "[" * 5000, '"../.."', "1979-05-27", '"\\u0000"', '"' + "x" * 5000 + '"',
        "0.5", "3", "100000000",
    ]  # fmt: skip
    new = chance.choice([f"{key} = {chance.choice(values)}"] * 8 + ["", f"x{key} = 1", "[[x]]"])
    lines[index] = new
    path.write_text("\n".join(lines) + "\n")
    return f"with {new[:50]!r} for {key}"


def _csv(chance: random.Random, path: Path) -> str:
    cells = re.split("([,\n])", path.read_text())
    index = chance.randrange(0, len(cells), 2)
    cells[index] = chance.choice(
        ["", "x", "nan", "-1", "1e400", '"', "\0", "9" * 5000, "0", "²", "é", "1.5", "x" * 200_000]
    )
    path.write_text("".join(cells))
    return f"with {cells[index][:20]!r} in cell {index // 2}"
