"""Small good files for trials to use or to spoil: a run, exports, a Keras model, images."""

from __future__ import annotations

import shutil
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from PIL import Image

GOOD = Path(__file__).parents[1] / "golden" / "before_rooms"


def run_folder(folder: Path) -> Path:
    """Copy a finished run, with its exports in it."""
    run = folder / "run"
    shutil.copytree(GOOD / "run", run)
    shutil.copytree(GOOD / "exports", run / "exports")
    return run


def keras_file(folder: Path) -> Path:
    """Copy a small `.keras` file."""
    return Path(shutil.copy(GOOD / "test_resnetv2.keras", folder / "model.keras"))


def picture(path: Path, seed: int = 0, **options: Any) -> Path:
    """Write an image of noise, 32×32."""
    noise = np.random.default_rng(seed).integers(0, 256, (32, 32, 3), "uint8")
    Image.fromarray(noise).save(path, **options)
    return path


def class_folders(folder: Path, names: tuple[str, ...] = ("cat", "dog"), images: int = 12) -> Path:
    """Write a folder of images with one folder for each class."""
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for place in range(images):
            picture(folder / name / f"{place}.png", 1000 * number + place)
    return folder


# Text that a name, a value or a path may be.
HOSTILE = (
    *("", " ", "-", "--", "---", "=", "a=b=c", ",", ",,", "\n", "a\nb", "\t", "\u2028", "\x7f"),
    *("\x1b[31mred", "\x1b]0;title\x07", "\x9b2J", "\u202egnp.exe", "\udce9", "caf\udce9.jpg", "ü"),
    *("a\0b", "\0", "*", "[", "[a", "**", "**/*", "?", "{}", "{0}", "%s", "%n", "$HOME", "`id`"),
    *("nan", "inf", "-inf", "NaN", "-0", "0", "-1", "1", "2", "00", "0x10", "1e400", "1e-400", "²"),
    *("٣", "1_000", "1e3", str(2**31), str(2**63), str(10**8), str(10**23), "9" * 5000, "1" * 400),
    *("true", "false", "null", "None", "[]", "[[[", "{", '"', "'", '"""', "'''", "\\", "\\x"),
    *("/", ".", "..", "../..", "./", "//", "/dev/null", "/dev/full", "/proc/self/mem", "/etc"),
    *("~", "~root", "~nosuchuser/x", "x" * 300, "x/" * 3000, "C:\\x", "file:///etc/passwd"),
    *("http://localhost:1/x", "s3://x", "<script>alert(1)</script>", "[link](x)", "# x", "| x |"),
)


def hostile(random: Random) -> str:
    """Return a hostile text; sometimes two in one."""
    text = random.choice(HOSTILE)
    return text + random.choice(HOSTILE) if random.random() < 0.15 else text
