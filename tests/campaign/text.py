"""Names that are not what one hopes: of images, folders, classes, models and data sets."""

from __future__ import annotations

import html.parser
import json
import os
import re
from pathlib import Path
from random import Random
from typing import Any

from campaign import invariant, material
from keras_resnet import text
from keras_resnet.errors import UserError
from keras_resnet.export import manifest, model_card
from keras_resnet.images.labels import LABELS, read_labels, require_class_names

NAME = "text"
TRIALS, SHARE, SECONDS = 600, 6, 150.0

_PARTS = (
    *("a", "é", "\u3000", "ß", "猫", "🐈", "👩‍🔬", "x.y", "%s", "$x$", "$\\frac$", "'", '"', "<b>"),
    *("<script>alert(1)</script>", "&amp;", "`", "|", "[a](b)", "![](x)", "{0}", "\\", "#", "~"),
    *("\x1b[31m", "\x1b]8;;http://x\x07", "\x9b2J", "\u202e", "\u2028", "\u2029", "\x85", "\x0b"),
    *("\n", "\r", "\t", "\x7f", "\u200b", "\ufeff", "\udce9", "\udcff\udcfe", "\x01", " ", "-x"),
)


def trial(seed: int, folder: Path) -> str | None:
    """Show odd names, or give them to a verb."""
    random = Random(seed)
    return random.choice((_shown, _shown, _card, _labels, _images, _classes))(random, folder)


def _name(random: Random) -> str:
    joined = "".join(random.choice(_PARTS) for _ in range(random.randint(1, 4)))
    return joined.replace("/", "_")


def _shown(random: Random, folder: Path) -> str | None:
    """Return what the functions that make text safe leave in."""
    found = "".join(random.choice((*_PARTS, "/", chr(random.randrange(0x110000)))) for _ in "12345")
    line = text.for_terminal(found)
    if len(line.splitlines()) > 1 or re.search("[\x00-\x1f\x7f-\x9f\ud800-\udfff\u202e]", line):
        return f"for_terminal leaves {line!r}"
    if text.for_terminal(line) != line:
        return f"for_terminal changes its own {line!r}"
    for encoding in "ascii", "latin-1", "utf-8":
        written = text.json_for({"x": found}, encoding)
        if not written.encode(encoding).decode(encoding).replace("\n", "").isprintable():
            return f"json_for leaves {written!r}"
        if json.loads(written) != json.loads(json.dumps({"x": found})):
            return f"json_for loses {found!r}"
    if _tags(text.for_html(found)) or _tags(text.for_markdown(found)):
        return f"for_html leaves a tag of {found!r}"
    return None


def _tags(page: str) -> list[str]:
    found: list[str] = []

    class Reader(html.parser.HTMLParser):
        def handle_starttag(self, tag: str, attrs: Any) -> None:
            found.append(tag)

    Reader().feed(page)
    return found


def _card(random: Random, folder: Path) -> str | None:
    """Return a tag, a link or a line that a name adds to the model card."""
    content = manifest.read(material.run_folder(folder) / "exports")
    # Cards are made of new manifests; this one is from before it had these.
    content["output"] |= {"activation": "softmax", "size": content["classes"]}
    plain = model_card.card(content)
    content["check"]["images"] = content["model"] = _name(random)
    content["labels"] = [_name(random) for _ in content["labels"]]
    content["origin"] = {"trained on": _name(random)}
    content["about"] = {"author": _name(random)}
    card = model_card.card(content)
    outside = re.sub(r"(?s)```.*?```|`[^`\n]*`", "", card)
    more = card.count("\n") - plain.count("\n")
    if tags := _tags(outside):
        return f"the model card has the tag {tags[0]}"
    if "](" in outside or more > 4:
        return f"the model card has a link or {more} lines more"
    return None


def _labels(random: Random, folder: Path) -> str | None:
    """Return how a labels.txt of odd names is read back as others."""
    names = tuple(_name(random) for _ in range(3))
    try:
        require_class_names(names)
    except UserError:
        run = material.run_folder(folder)
        raw = "\n".join(names).encode("utf-8", "surrogateescape") + b"\xff" * (
            random.random() < 0.3
        )
        (run / LABELS).write_bytes(raw)
        material.picture(folder / "cat.png")
        return invariant.call(["predict", "run", "cat.png"], cwd=folder)
    (folder / LABELS).write_text("\n".join(names) + "\n", encoding="utf-8")
    read = read_labels(folder)
    return None if read == names else f"labels.txt gives {read!r} for {names!r}"


def _images(random: Random, folder: Path) -> str | None:
    """Classify images with odd names."""
    material.run_folder(folder)
    (folder / "photos").mkdir()
    for number in range(random.randint(1, 3)):
        path = os.fsencode(folder / "photos" / f"{number}{_name(random)}.png")
        material.picture(Path(os.fsdecode(path)), number, format="PNG")
    if random.random() < 0.4:  # one that cannot be read, too
        Path(os.fsdecode(os.fsencode(folder / "photos" / f"{_name(random)}.jpg"))).touch()
    more = random.choice(([], ["--json"], ["--out", "a.csv"], ["--out", "a.jsonl", "--json"]))
    return invariant.call(["predict", "run", "photos", *more], cwd=folder)


def _classes(random: Random, folder: Path) -> str | None:
    """Plan a training of classes with odd names, in a folder with an odd name."""
    data = folder / (_name(random) if random.random() < 0.5 else "data")
    names = [f"{number}{_name(random)}" for number in range(2)]
    try:
        material.class_folders(data, (names[0], names[1]), images=10)
    except OSError:  # a name that this system does not take
        return None
    given = f"./{data.name}"
    line = random.choice(
        (
            ["train", "debug/tiny", "--data", given, "--dry-run"],
            ["train", "debug/tiny", "--data", given, "--dry-run", "--json"],
            ["evaluate", "run", "--data", given],
        )
    )
    material.run_folder(folder)
    return invariant.call(line, cwd=folder)
