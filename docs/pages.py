"""Write the pages of the documentation site: `python docs/pages.py`, then `zensical build`.

They are the pages in docs/, the READMEs of the repository, and four pages made from code and data:
results, command line, keys of a config, manifest. A link to a file that is a page leads to the
page. A link to code or to a record leads to a page with its text. A link to anything else of the
repository becomes its path.
"""

from __future__ import annotations

import inspect
import json
import os
import posixpath
import re
import shutil
import tomllib
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = ROOT / "build" / "pages"  # docs_dir in zensical.toml
READMES = {
    "README.md": "index.md",
    "recipes/README.md": "recipes.md",
    "export/README.md": "export.md",
    "benchmarks/README.md": "benchmarks.md",
    "CONTRIBUTING.md": "contributing.md",
    "SECURITY.md": "security.md",
}
SCHEMA = "export/manifest.schema.json"
_PAGES = {**READMES, SCHEMA: "manifest.md", "recipes/configs/schema.py": "api/config.md"}
_LANGUAGES = {".py": "python", ".toml": "toml", ".json": "json", ".yaml": "yaml"}
_FIELD = re.compile(r"^    (\w+): .+?(?: = (.+?))?  # (.+)$", re.MULTILINE)
_DATE = re.compile(r"(?<=\| )\d{4}-\d\d-\d\d(?= \|)")  # a cell of a table, which is not to be split
_LINK = (
    r"(?P<image>!?)\[(?P<label>[^\]]*)\]"
    r"\((?P<target>(?!https?:)[^)#\s]+)(?P<anchor>#[^)]*)?\)"
)


def main() -> None:
    """Write all pages, and the pictures and styles beside them, into a new folder."""
    shutil.rmtree(PAGES, ignore_errors=True)
    shutil.copytree(DOCS, PAGES, ignore=shutil.ignore_patterns("*.py", "__pycache__"))
    sources = [path.relative_to(ROOT).as_posix() for path in sorted(DOCS.rglob("*.md"))]
    for source in [*sources, *READMES]:
        text = (ROOT / source).read_text(encoding="utf-8")
        _write(page_of(source), with_links(text, source))
        for path in _linked(text, source):
            if page_of(path).startswith("files/"):
                _write(page_of(path), _file(path))
    for page, make in MADE.items():
        _write(page, make())


def _write(page: str, text: str) -> None:
    (PAGES / page).parent.mkdir(parents=True, exist_ok=True)
    (PAGES / page).write_text(text, encoding="utf-8")


def page_of(path: str) -> str:
    """Return the page of the site, or the picture, for a file of the repository; "" without one."""
    if path.startswith("docs/"):
        return path.removeprefix("docs/")
    is_text = posixpath.splitext(path)[1] in _LANGUAGES and (ROOT / path).is_file()
    return _PAGES.get(path, f"files/{path}.md" if is_text else "")


def with_links(text: str, source: str) -> str:
    """Return the text of the file `source` with the links of its page."""

    def link(match: re.Match[str]) -> str:
        label, path, anchor = match["label"], _path(match, source), match["anchor"] or ""
        if not page_of(path):
            return f"`{path}`" if path.endswith(label.rstrip("/")) else f"{label} (`{path}`)"
        target = posixpath.relpath(page_of(path), posixpath.dirname(page_of(source)) or ".")
        return f"{match['image']}[{label}]({target}{anchor})"

    return _DATE.sub(r'<span class="date">\g<0></span>', re.sub(_LINK, link, text))


def _linked(text: str, source: str) -> set[str]:
    return {_path(match, source) for match in re.finditer(_LINK, text)}


def _path(match: re.Match[str], source: str) -> str:
    """Return what a link in the file `source` names, from the root of the repository."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(source), match["target"]))


def _file(path: str) -> str:
    """Return a page with the text of a file; the search leaves it out."""
    text = (ROOT / path).read_text(encoding="utf-8").strip("\n")
    fence = "``````"  # longer than those in docstrings
    head = "---\nhide: [toc]\nsearch:\n  exclude: true\n---"
    language = _LANGUAGES[posixpath.splitext(path)[1]]
    return f"{head}\n# {path}\n\n{fence}{language}\n{text}\n{fence}\n"


def _results() -> str:
    """Return a table of the trainings recorded in benchmarks/results."""
    from keras_resnet.recipes.runs.folder import Run

    head = "| run | network | method | data | epochs | steps | accuracy | n | precision | hours |"
    rows = []
    for path in sorted((ROOT / "benchmarks" / "results").glob("*/summary.json")):
        summary = Run(path.parent).summary()
        config = tomllib.loads((path.parent / "config.toml").read_text(encoding="utf-8"))
        test = summary["test"]
        rows.append(
            f"| `{path.parent.name}` | `{summary['model']}` | {_technique(config, summary)} "
            f"| {summary['data']} | {config['train']['epochs'] or '–'} | {summary['steps']:,} "
            f"| {test['accuracy']:.2%} | {test['n']:,} | {summary['precision']} "
            f"| {summary['training_seconds'] / 3600:.1f} |"
        )
    return "\n".join(
        [
            "---\nhide: [toc]\n---",  # the table is wide
            "# Results",
            "",
            "Each row is one training. Its config, log and summary are in `benchmarks/results`.",
            "The accuracy is that of the Keras model on `n` test images. QAT is",
            "quantization-aware training.",
            "",
            "[Train, fine-tune, compress](recipes.md#results) compares these figures with the",
            "published ones. It also has the machines, the dates and the accuracy of the exported",
            "files.",
            "",
            head,
            "|" + "---|" * (head.count("|") - 1),
            *rows,
            "",
        ]
    )


_TECHNIQUES = {"qat": "QAT", "prune": "weight pruning", "cluster": "clustering"}


def _technique(config: dict[str, Any], summary: dict[str, Any]) -> str:
    """Return the training method of a resolved config. Old configs lack the newer sections.

    The teacher is in the summary by its name; in the config it can be the folder of a run.

    A config does not say that a training started from trained weights with a new head. There is no
    record of such a training.
    """
    compress, pruning = config.get("compress", {}), config.get("pruning", {})
    finetune = config.get("finetune", {})
    if technique := compress.get("technique"):
        method = _TECHNIQUES[technique]
        method += f", {compress['sparsity']:.0%} zeros" if technique == "prune" else ""
    elif pruning.get("keep", 1) < 1:
        method = f"filter pruning ({pruning['ranking']}), {pruning['keep']:.0%} of multiply-adds"
    else:
        method = "continued training" if finetune.get("keep_head") else "training"
    return method + (f", teacher {summary['teacher']}" if "teacher" in summary else "")


def _stacked(table: list[str]) -> str:
    """Return a table that a phone shows with the cells of a row below each other."""
    return "\n".join(['<div class="stacked" markdown>', "", *table, "", "</div>"])


def _config() -> str:
    """Return a table of the keys of a config: type, limits, default and comment."""
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
        title = f"[{section}]" if section else "Keys without a section"
        head = ["| key | type | default | meaning |", "|---|---|---|---|"]
        parts += [f"## {title}", "", kind.__doc__, "", _stacked([*head, *rows]), ""]
    intro = "Set a key in a config file, or with `--set KEY=VALUE` when you start a training."
    return "\n".join(["# Keys of a config", "", intro, "", *parts])


def _allowed(hint: Any) -> str:
    """Return the type of a key and its limits, e.g. "int, at least 0"."""
    limits = getattr(hint, "__metadata__", ())
    kind = inspect.formatannotation(hint.__origin__ if limits else hint)
    return ", ".join([kind, *map(str, limits)])


def _manifest() -> str:
    """Return a table of the fields of a manifest, from its JSON Schema."""
    schema = json.loads((ROOT / SCHEMA).read_text(encoding="utf-8"))
    rows = [f"| `{path}` | {kind} | {text} |" for path, kind, text in _fields(schema, "")]
    intro = (
        f"{schema['description']} The JSON Schema is `keras_resnet/{SCHEMA}` in the package; "
        "`numerics.json` and `perf.json` repeat parts of it, file by file. An *optional* field may "
        "be missing. All other fields are always there."
    )
    table = _stacked(["| field | type | meaning |", "|---|---|---|", *rows])
    return "\n".join([f"# {schema['title']}", "", intro, "", table, ""])


def _fields(schema: dict[str, Any], above: str) -> Iterator[tuple[str, str, str]]:
    """Yield (path, type, description) for each field in an object, depth first."""
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
    """Return the help of every command, as the terminal shows it."""
    os.environ["COLUMNS"] = "96"
    from keras_resnet.cli.options import walk
    from keras_resnet.cli.parser import EXIT_CODES, parsers

    whole, _ = parsers()
    parts = [
        f"##{'#' * name.count(' ')} keras-resnet {name}\n\n```\n{parser.format_help()}```"
        for name, parser in walk(whole)
        if name
    ]
    streams = "Results go to stdout, progress goes to stderr. `--json` prints one object."
    return "\n\n".join(["# keras-resnet", f"{EXIT_CODES} {streams}", *parts]) + "\n"


MADE = {
    "results.md": _results,
    "api/config.md": _config,
    "api/command_line.md": _command_line,
    _PAGES[SCHEMA]: _manifest,
}

if __name__ == "__main__":
    main()
