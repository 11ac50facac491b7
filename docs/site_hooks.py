"""What mkdocs adds to the pages in docs/: the READMEs of the repository, results, the command line.

A link to a file that is a page leads there; one to another file of the repository becomes its name.
"""

from __future__ import annotations

import json
import os
import posixpath
import re
import tomllib
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
READMES = {
    "README.md": "index.md",
    "recipes/README.md": "recipes.md",
    "export/README.md": "export.md",
    "CONTRIBUTING.md": "design.md",
}
_LINK = (
    r"(?P<image>!?)\[(?P<label>[^\]]*)\]"
    r"\((?P<target>(?!https?:)[^)#\s]+)(?P<anchor>#[^)]*)?\)"
)


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made."""
    made = {page: _relinked(source) for source, page in READMES.items()}
    made |= {"results.md": _results(), "api/command_line.md": _command_line()}
    for page, text in made.items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Mend the links of the pages in docs/, which lead to files of the repository."""
    if page.file.src_uri in (*READMES.values(), "results.md", "api/command_line.md"):
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
        inside = READMES.get(path) or (path.removeprefix("docs/") if path[:5] == "docs/" else None)
        if inside is None:
            return f"`{path}`" if match["image"] else label
        start = posixpath.dirname(page) or "."
        return f"{match['image']}[{label}]({posixpath.relpath(inside, start)}{anchor})"

    pattern = (
        r"(?P<image>!?)\[(?P<label>[^\]]*)\]\((?P<target>(?!https?:)[^)#\s]+)(?P<anchor>#[^)]*)?\)"
    )
    return re.sub(pattern, link, text)


def _results() -> str:
    """A row for each record of a training in benchmarks/results."""
    rows = []
    for path in sorted((ROOT / "benchmarks" / "results").glob("*/summary.json")):
        summary = json.loads(path.read_text(encoding="utf-8"))
        config = tomllib.loads((path.parent / "config.toml").read_text(encoding="utf-8"))
        test = summary["test"]
        rows.append(
            f"| `{path.parent.name}` | `{summary['model']}` | {summary['data']} "
            f"| {config['train']['epochs'] or summary['steps']} | {test['accuracy']:.2%} "
            f"| {test['n']:,} | {summary['precision']} | {summary['seconds'] / 3600:.1f} |"
        )
    return "\n".join(
        [
            "# Results",
            "",
            "Every row is one training whose config, log and summary lie in `benchmarks/results`;",
            "[Train, fine-tune, compress](recipes.md#results) has the published figures beside",
            "them, machines and dates.",
            "",
            "| run | network | data | epochs | test accuracy | images | precision | hours |",
            "|---|---|---|---|---|---|---|---|",
            *rows,
            "",
        ]
    )


def _command_line() -> str:
    """The help of every verb, as the command prints it."""
    os.environ["COLUMNS"] = "96"
    from keras_resnet import arguments

    _, verbs = arguments.parsers()
    parts = [f"## {name}\n\n```\n{verb.format_help()}```" for name, verb in verbs.items()]
    exits = (
        "Exit codes: 0 done; 1 a file failed its check; 2 something that can be mended (one line "
        "on stderr says what); 130 interrupted. Results go to stdout, progress to stderr; "
        "`--json` prints one object."
    )
    return "# keras-resnet\n\n" + exits + "\n\n" + "\n\n".join(parts) + "\n"
