"""Malformed command lines and configs."""

from __future__ import annotations

import argparse
import os
import tomllib
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

import tomli_w

from campaign import invariant, material
from keras_resnet.cli.options import walk
from keras_resnet.cli.parser import parsers
from keras_resnet.recipes.configs.schema import CONFIGS, list_configs

NAME = "commands"
TRIALS, SHARE, SECONDS = 2500, 8, 150.0

# These wait for other machines, or train although every word of the line is right.
_NOT_ALONE = ("data-service", "quickstart")
_ALWAYS_DRY = ("train", "finetune", "distill", "qat", "prune-filters", "prune", "cluster")


def trial(seed: int, folder: Path) -> str | None:
    """Call one malformed command line, with files around that it may name."""
    random = Random(seed)
    there = _files(folder)
    config = random.random() < 0.25
    line = _config_line(random, folder) if config else _line(random, there)
    # Nothing is downloaded.
    with mock.patch.dict(os.environ, {"KERAS_RESNET_OFFLINE": "1"}):
        problem = invariant.call(line, cwd=folder)
    shown = [word if len(word) < 60 else f"{word[:60]}…" for word in line]
    return problem and f"{problem} [{' '.join(map(repr, shown))}]"


def _files(folder: Path) -> dict[str, list[str]]:
    """Write the files that a command line may name, by what they are."""
    run = material.run_folder(folder)
    classes = material.class_folders(folder / "photos", images=2)
    material.picture(folder / "cat.png")
    material.keras_file(folder)
    (folder / "empty").mkdir()
    (folder / "empty.jpg").touch()
    (folder / "notes.txt").write_text("words\n", encoding="utf-8")
    (folder / "loop").mkdir()
    (folder / "loop" / "a").mkdir()
    (folder / "loop" / "a" / "again").symlink_to(folder / "loop")
    (folder / "loop" / "b").symlink_to(folder / "loop" / "b")
    exports = run / "exports"
    return {
        "model": [
            *("run", "model.keras", "resnet8", "exports", "nothing", "run/labels.txt", "empty"),
            *(str(path.relative_to(folder)) for path in exports.glob("*.tflite")),
        ],
        "image": ["cat.png", "photos", "empty.jpg", "notes.txt", "empty", "loop", "no.png"],
        "folder": [str(classes.relative_to(folder)), "loop", "empty", "cat.png", "run", "digits"],
        "config": ["debug/tiny", "cifar10/resnet20", "run/config.toml", "notes.txt", "no.toml"],
        "out": ["new", "run", "run/new", "cat.png", "cat.png/x", "empty", "new/a/b", "x.gif"],
    }


_KINDS = {
    "config": "config",
    "images": "image",
    "out": "out",
    "picture": "out",
    "csv": "out",
    "find_lr": "out",
    "data": "folder",
    "calibration": "folder",
    "folder": "folder",
}


# Lines that are right; one option more, or one word that is another.
_RIGHT = tuple(
    line.split()
    for line in (
        "predict run cat.png",
        "predict run/exports/test_resnet-int8.tflite cat.png",
        "predict model.keras photos --out answers.csv",
        "evaluate run --data digits",
        "evaluate run --data photos",
        "explain model.keras cat.png --methods saliency",
        "train debug/tiny --set data.name=digits",
        "train debug/tiny --data photos",
        "finetune run --data photos",
        "distill debug/tiny --teacher run",
        "qat run --data digits",
        "prune run --data digits",
        "cluster run --data digits",
        "prune-filters run --data digits",
        "train --resume run",
        "export run --data photos --formats tflite-float32",
        "check run/exports",
        "benchmark run/exports --rounds 1 --runs 1",
        "layers run/exports",
        "ensemble run model.keras --out both.keras",
        "compare run model.keras",
        "runs .",
        "report run",
        "show resnet20",
        "profile resnet8",
        "weights info resnet20",
        "weights import run --as resnet8",
        "weights list",
    )
)


def _almost_right(random: Random, there: dict[str, list[str]]) -> list[str]:
    words = list(random.choice(_RIGHT))
    parser = dict(walk(parsers()[1][words[0]], words[0]))
    actions = parser.get(" ".join(words[:2]), parser[words[0]])._actions
    options = [action for action in actions if action.option_strings]
    if random.random() < 0.6:
        place = random.randrange(1, len(words))
        words[place] = material.hostile(random)
    if random.random() < 0.6:
        words += _option(random, random.choice(options), there)
    return [*words, "--dry-run"] if words[0] in _ALWAYS_DRY else words


def _line(random: Random, there: dict[str, list[str]]) -> list[str]:
    if random.random() < 0.5:
        return _almost_right(random, there)
    verb = random.choice([name for name in parsers()[1] if name not in _NOT_ALONE])
    name, parser = random.choice(list(walk(parsers()[1][verb], verb)))
    words = [] if random.random() < 0.03 else name.split()
    options = [action for action in parser._actions if action.option_strings]
    options = [action for action in options if not isinstance(action, argparse._HelpAction)]
    given = [action for action in parser._actions if not action.option_strings]
    chosen = random.sample(options, random.randint(0, min(4, len(options))))
    chosen += [action for action in options if action.required and random.random() < 0.9]
    for action in given if random.random() < 0.95 else ():
        many = random.randint(1, 3) if action.nargs in ("+", "*") else 1
        words += [_value(random, action, there) for _ in range(many)]
    for action in chosen:
        words += _option(random, action, there)
    if verb in _ALWAYS_DRY:
        words.append("--dry-run")
    if random.random() < 0.1:
        words.insert(random.randint(0, len(words)), material.hostile(random))
    return words


def _option(random: Random, action: argparse.Action, there: dict[str, list[str]]) -> list[str]:
    flag = random.choice(action.option_strings)
    if action.nargs == 0:
        return [flag]
    value = _value(random, action, there)
    return [f"{flag}={value}"] if random.random() < 0.5 else [flag, value]


def _value(random: Random, action: argparse.Action, there: dict[str, list[str]]) -> str:
    if action.dest == "set":
        return f"{random.choice(_KEYS)}={material.hostile(random)}"
    likely = there[_KINDS.get(action.dest, "model")]
    if action.type is not None and random.random() < 0.5:
        likely = ["1", "2", "3", "0.5", "-1", "10", str(10**8)]
    if action.choices and random.random() < 0.5:
        likely = [str(choice) for choice in action.choices]
    return random.choice(likely) if random.random() < 0.6 else material.hostile(random)


# Configs ------------------------------------------------------------------------------------------

_KEYS = [
    "data",
    "network.depths",
    "model",
    "x.y",
    "network.x",
    *(
        f"{section}.{key}"
        for section, table in tomllib.loads(
            (CONFIGS / "debug" / "tiny.toml").read_text(encoding="utf-8")
        ).items()
        if isinstance(table, dict)
        for key in table
    ),
    *("schedule.warmup", "schedule.boundaries", "train.sizes", "train.size_boundaries"),
    *("train.epochs", "train.steps", "data.image_size", "augment.mixup", "optimizer.name"),
    *("compress.technique", "compress.ramp", "distill.teacher", "train.callbacks", "data.service"),
]


def _config_line(random: Random, folder: Path) -> list[str]:
    path = folder / "mine.toml"
    path.write_bytes(_spoilt_text(random) if random.random() < 0.3 else _spoilt(random))
    return ["train", "mine.toml", "--dry-run"]


def _spoilt(random: Random) -> bytes:
    """Return a config of which one to three values are others."""
    name = random.choice(list_configs())
    table = tomllib.loads((CONFIGS / f"{name}.toml").read_text(encoding="utf-8"))
    table.setdefault("data", {})["name"] = "digits"
    for _ in range(random.randint(1, 3)):
        section, _, key = random.choice(_KEYS).partition(".")
        if key and isinstance(table.setdefault(section, {}), dict):
            table[section][key] = _thing(random)
        else:
            table[section] = _thing(random)
    try:
        return tomli_w.dumps(table).encode("utf-8", "surrogateescape")
    except (UnicodeEncodeError, ValueError):
        return b"model = 'resnet8'\ntrain.epochs = 1\ndata.name = '\xff'\n"


def _thing(random: Random, depth: int = 0) -> Any:
    plain = (
        *(0, 1, -1, 2, 10**8, 10**18, 2**63 - 1, 0.5, -0.5, 1e308, 1e-308, float("nan")),
        *(float("inf"), float("-inf"), True, False, [], {}, [[]], [0], [0.5], [1, 2, 3], ["x"]),
    )
    if depth < 2 and random.random() < 0.15:
        return [_thing(random, depth + 1) for _ in range(random.randint(0, 4))]
    return random.choice(plain) if random.random() < 0.6 else material.hostile(random)


def _spoilt_text(random: Random) -> bytes:
    """Return TOML that is damaged as text."""
    good = (CONFIGS / "debug" / "tiny.toml").read_bytes()
    place = random.randrange(len(good))
    return random.choice(
        (
            good[:place],
            good[:place] + bytes([random.randrange(256)]) + good[place + 1 :],
            good + b"\nx = " + b"[" * random.choice((10, 500, 5000)),
            good + b"\nx = " + b"[" * 3000 + b"]" * 3000,
            good + b"\nx = " + b"{a=" * 2000 + b"1" + b"}" * 2000,
            good + b"\n[" + b"a." * random.choice((50, 2000)) + b"b]\n",
            good + b"\ntrain.epochs = " + b"9" * random.choice((20, 5000)),
            b"\xef\xbb\xbf" + good,
            good.decode().encode("utf-16"),
            b"",
            b"\0" * 100,
            good * 2,
            good.replace(b"\n", b"\r"),
            good.replace(b"=", b":"),
        )
    )
