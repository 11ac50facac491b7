"""What mkdocs adds to the pages in docs/: the READMEs of the repository, results, the command line.

A link to a file that is a page leads there; one to another file of the repository becomes its name.
"""

from __future__ import annotations

import inspect
import json
import os
import posixpath
import re
import tomllib
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
READMES = {
    "README.md": "index.md",
    "recipes/README.md": "recipes.md",
    "export/README.md": "export.md",
    "benchmarks/README.md": "benchmarks.md",
    "CONTRIBUTING.md": "contributing.md",
}
SCHEMA = "export/manifest.schema.json"
_PAGES = {**READMES, SCHEMA: "manifest.md", "recipes/configs/schema.py": "api/config.md"}
_FIELD = re.compile(r"^    (\w+): .+?(?: = (.+?))?  # (.+)$", re.MULTILINE)
_LINK = (
    r"(?P<image>!?)\[(?P<label>[^\]]*)\]"
    r"\((?P<target>(?!https?:)[^)#\s]+)(?P<anchor>#[^)]*)?\)"
)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made."""
    made = {page: _relinked(source) for source, page in READMES.items()}
    made |= {page: make() for page, make in MADE.items()}
    for page, text in made.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Mend the links of the pages in docs/, which lead to files of the repository."""
    if page.file.src_uri in (*READMES.values(), *MADE):
        return markdown
    return _with_links(markdown, f"docs/{posixpath.dirname(page.file.src_uri)}", page.file.src_uri)


def _relinked(source: str) -> str:
    text = (ROOT / source).read_text(encoding="utf-8")
    return _with_links(text, posixpath.dirname(source), READMES[source])


def _with_links(text: str, folder: str, page: str) -> str:
    """Links relative to `folder` of the repository as links from `page` of the site."""

    def link(match: re.Match[str]) -> str:
        label, target, anchor = match["label"], match["target"], match["anchor"] or ""
        path = posixpath.normpath(posixpath.join(folder, target))
        inside = _PAGES.get(path) or (path.removeprefix("docs/") if path[:5] == "docs/" else None)
        if inside is None:
            return f"`{path}`" if match["image"] else f"{label} (`{path}`)"
        start = posixpath.dirname(page) or "."
        return f"{match['image']}[{label}]({posixpath.relpath(inside, start)}{anchor})"

    return re.sub(_LINK, link, text)


def _results() -> str:
    """A row for each record of a training in benchmarks/results."""
    from keras_resnet.recipes.runs.folder import Run

    head = "| run | network | method | data | epochs | steps | accuracy | n | precision | hours |"
    rows = []
    for path in sorted((ROOT / "benchmarks" / "results").glob("*/summary.json")):
        summary = Run(path.parent).summary()
        config = tomllib.loads((path.parent / "config.toml").read_text(encoding="utf-8"))
        test = summary["test"]
        rows.append(
            f"| `{path.parent.name}` | `{summary['model']}` | {_technique(config)} "
            f"| {summary['data']} | {config['train']['epochs'] or '–'} | {summary['steps']:,} "
            f"| {test['accuracy']:.2%} | {test['n']:,} | {summary['precision']} "
            f"| {summary['training_seconds'] / 3600:.1f} |"
        )
    return "\n".join(
        [
            "---\nhide: [toc]\n---",  # the table is wide
            "# Results",
            "",
            "Each row is one training. `benchmarks/results` has its config, log and summary. The",
            "accuracy is that of the Keras model on `n` test images.",
            "[Train, fine-tune, compress](recipes.md#results) has the published figures, the",
            "machines, the dates, and the accuracy of the exported files.",
            "",
            head,
            "|" + "---|" * (head.count("|") - 1),
            *rows,
            "",
        ]
    )


_TECHNIQUES = {"qat": "QAT", "prune": "weights pruned", "cluster": "clustered"}


def _technique(config: dict[str, Any]) -> str:
    """What a resolved config trains by; an old one lacks the newer sections.

    No config says that a training started from trained weights but kept no head; none is recorded.
    """
    compress, pruning = config.get("compress", {}), config.get("pruning", {})
    finetune, distill = config.get("finetune", {}), config.get("distill", {})
    if technique := compress.get("technique"):
        by = _TECHNIQUES[technique]
        by += f", {compress['sparsity']:.0%} zeros" if technique == "prune" else ""
    elif pruning.get("keep", 1) < 1:
        by = f"filters pruned ({pruning['ranking']}), {pruning['keep']:.0%} of the multiply-adds"
    else:
        by = "trained further" if finetune.get("keep_head") else "train"
    return by + (f", teacher: {distill['teacher']}" if distill.get("teacher") else "")


def _config() -> str:
    """Every key of a config: its type and limits, default and the comment beside it."""
    from keras_resnet.recipes.configs import schema

    kinds = [kind for name, kind in vars(schema).items() if name.endswith("Config")]
    sections = {kind: kind.__name__.removesuffix("Config").lower() for kind in kinds}
    parts = []
    for kind, section in sections.items():
        hints = typing.get_type_hints(kind, include_extras=True)
        rows = [
            f"| `{section}{'.' * bool(section)}{key}` | {_cell(_allowed(hints[key]))} "
            f"| {f'`{default}`' if default and 'field(' not in default else ''} | {_cell(text)} |"
            for key, default, text in _FIELD.findall(inspect.getsource(kind))
        ]
        parts += [f"## [{section}]" if section else "## Without a section", "", kind.__doc__, ""]
        parts += ["| key | type | default | meaning |", "|---|---|---|---|", *rows, ""]
    intro = "Set a key in a config file, or with `--set KEY=VALUE` in every command that trains."
    return "\n".join(["# Keys of a config", "", intro, "", *parts])


def _allowed(hint: Any) -> str:
    """The type of a key and its limits, e.g. "int, at least 0"."""
    limits = getattr(hint, "__metadata__", ())
    kind = inspect.formatannotation(hint.__origin__ if limits else hint)
    return ", ".join([kind, *map(str, limits)])


def _manifest() -> str:
    """Every field of an export's manifest, from its JSON Schema."""
    schema = json.loads((ROOT / SCHEMA).read_text(encoding="utf-8"))
    rows = [f"| `{path}` | {kind} | {text} |" for path, kind, text in _fields(schema, "")]
    intro = (
        f"{schema['description']} The JSON Schema is `keras_resnet/{SCHEMA}` in the package; "
        "`numerics.json` and `perf.json` repeat parts of it by file. Only *optional* fields may be "
        "missing."
    )
    head = "| field | type | meaning |\n|---|---|---|"
    return "\n".join([f"# {schema['title']}", "", intro, "", head, *rows, ""])


def _fields(schema: dict[str, Any], above: str) -> Iterator[tuple[str, str, str]]:
    """(path, type, description) of what lies in an object, depth first."""
    for name, field in schema.get("properties", {}).items():
        path = above + name
        kinds = field.get("type", [])
        kind = " or ".join([kinds] if isinstance(kinds, str) else kinds)
        optional = "" if name in schema["required"] else "*optional* "
        choices = field.get("enum") or [field["const"]] if {"enum", "const"} & set(field) else []
        said = ", ".join(f"`{json.dumps(choice)}`" for choice in choices)
        yield path, optional + (kind or said), _cell(field["description"])
        yield from _fields(field, f"{path}.")
        yield from _fields(field.get("items", {}), f"{path}[].")


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _command_line() -> str:
    """The help of every verb and of what is below it, as the command prints it."""
    os.environ["COLUMNS"] = "96"
    from keras_resnet.cli.options import walk
    from keras_resnet.cli.parser import EXIT_CODES, parsers

    whole, _ = parsers()
    parts = [
        f"##{'#' * name.count(' ')} {name}\n\n```\n{parser.format_help()}```"
        for name, parser in walk(whole)
        if name
    ]
    streams = "Results go to stdout, progress to stderr; `--json` prints one object."
    return "\n\n".join(["# keras-resnet", f"{EXIT_CODES} {streams}", *parts]) + "\n"


MADE = {
    "results.md": _results,
    "api/config.md": _config,
    "api/command_line.md": _command_line,
    _PAGES[SCHEMA]: _manifest,
}
