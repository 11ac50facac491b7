"""The pages of the documentation site that docs/pages.py writes, and the site itself."""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
import tomllib

import pytest
from helpers import ROOT, chromium

from keras_resnet.cli import parser
from keras_resnet.cli.options import walk


@pytest.fixture(scope="module")
def pages():
    """docs/pages.py as a module."""
    spec = importlib.util.spec_from_file_location("pages", ROOT / "docs" / "pages.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def written(pages, tmp_path_factory):
    """The folder with all pages."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pages, "PAGES", tmp_path_factory.mktemp("docs") / "build" / "pages")
        pages.main()
        return pages.PAGES


def test_the_results_name_the_method(pages):
    """The page reads it from the configs. The summaries have it, too."""
    named = {"qat": "QAT", "prune": "weight pruning", "cluster": "clustering"}
    found = {}
    for line in pages.MADE["results.md"]().splitlines():
        if line.startswith("| `"):
            run, _, method, *_ = line.removeprefix("| ").split(" | ")
            found[run.strip("`")] = method
    records = sorted((ROOT / "benchmarks" / "results").glob("*/summary.json"))
    assert list(found) == [path.parent.name for path in records]
    for path in records:
        summary, method = json.loads(path.read_text(encoding="utf-8")), found[path.parent.name]
        plain = ("filter pruning",) if "pruned_filters" in summary else ("training", "continued")
        assert method.startswith(named.get(summary.get("technique"), plain)), method
        config = tomllib.loads((path.parent / "config.toml").read_text(encoding="utf-8"))
        taught = method.endswith(f", teacher {summary.get('teacher')}")
        assert taught == bool(config.get("distill", {}).get("teacher")), method


def test_the_command_line_has_every_command(pages):
    page = pages.MADE["api/command_line.md"]()
    assert parser.EXIT_CODES in page
    for name, _ in walk(parser.parsers()[0]):
        if name:
            assert f"\n##{'#' * name.count(' ')} keras-resnet {name}\n" in page
    _, _, below = page.partition("### keras-resnet weights import")
    assert "--preprocessing MODE" in below.partition("\n## ")[0]


def test_the_menu_has_every_page(written):
    """All but the files of the repository to which pages link."""
    nav = tomllib.loads((ROOT / "zensical.toml").read_text(encoding="utf-8"))["project"]["nav"]
    found = {path.relative_to(written).as_posix() for path in written.rglob("*.md")}
    assert set(_targets(nav)) == {page for page in found if not page.startswith("files/")}


def _targets(entry):
    if isinstance(entry, str):
        yield entry
    else:
        for below in entry.values() if isinstance(entry, dict) else entry:
            yield from _targets(below)


@pytest.mark.parametrize(
    ("link", "expected"),
    [
        ("[Tutorial](docs/tutorial.md#two)", "[Tutorial](tutorial.md#two)"),
        ("[Recipes](recipes/README.md)", "[Recipes](recipes.md)"),
        ("![](docs/explain.png)", "![](explain.png)"),
        ("[spec](keras_resnet/models/build.py)", "[spec](files/keras_resnet/models/build.py.md)"),
        ("[notebooks/](notebooks)", "`notebooks`"),
        ("[logs](benchmarks/results/resnet8)", "logs (`benchmarks/results/resnet8`)"),
        ("[there](https://example.org)", "[there](https://example.org)"),
    ],
)
def test_links_of_the_readme_lead_to_pages(pages, link, expected):
    assert pages.with_links(link, "README.md") == expected


def test_a_linked_file_is_a_page_with_its_text(written):
    text = (ROOT / "keras_resnet/models/build.py").read_text(encoding="utf-8")
    assert text in (written / "files/keras_resnet/models/build.py.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def site(written):
    """The folder of the built site; the packages lie as an install puts them."""
    pytest.importorskip("zensical")
    folder = written.parents[1]
    package = folder / "packages" / "keras_resnet"
    for source, target in (
        ("keras_resnet", package),
        ("export", package / "export"),
        ("recipes", package / "recipes"),
    ):
        shutil.copytree(ROOT / source, target)
    shutil.copy(ROOT / "zensical.toml", folder)
    result = subprocess.run(
        [sys.executable, "-m", "zensical", "build", "--strict"],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(package.parent)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return folder / "build" / "site"


@pytest.mark.slow
def test_public_names_are_headings(site):
    text = (site / "api" / "keras_resnet" / "index.html").read_text(encoding="utf-8")
    names = re.findall(r'<h[34] id="(keras_resnet\.[^"]+)"', text)
    assert {"keras_resnet.create_model", "keras_resnet.Network.trunk"} <= set(names)
    assert [name for name in names if "._" in name] == []


# What is right of the window, and in no box that scrolls.
CUT = """[...document.querySelectorAll("article *")].filter((part) => {
    const box = part.getBoundingClientRect();
    if (box.width === 0 || box.right <= document.documentElement.clientWidth + 1) return false;
    for (let above = part; above; above = above.parentElement)
        if (["auto", "scroll"].includes(getComputedStyle(above).overflowX)) return false;
    return true;
}).map((part) => part.outerHTML.slice(0, 80))"""
LOADED = """new Promise((done) =>
    document.readyState === "complete" ? done() : addEventListener("load", () => done()))"""


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_all_of_every_page(site, tmp_path, width):
    """At the width of a phone and of a laptop; the site requests nothing from elsewhere."""
    found = sorted(path.parent.relative_to(site).as_posix() for path in site.rglob("index.html"))
    with chromium.serving(site) as url, chromium.page(tmp_path / "profile") as browser:
        browser.resize(width, 800, touch=width < 500)
        for page in found:
            browser.goto(f"{url}{page}/")
            browser.run(LOADED)
            assert browser.run(CUT) == [], page
            assert browser.run("document.documentElement.scrollWidth") <= width, page
    assert len(found) > 20
    assert [one for one in browser.requests if not one.startswith((url, "data:"))] == []
    assert browser.console == []
