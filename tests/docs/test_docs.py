"""What the documentation shows works: every command parses and names what exists, every Python
block runs."""

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import ROOT, TESTS, cifar10_or_skip, run_python
from helpers.pages import PAGES, commands
from PIL import Image

from keras_resnet import registry
from keras_resnet.cli.options import walk
from keras_resnet.cli.parser import parse, parsers
from keras_resnet.recipes.configs.schema import list_configs

# Python that another test runs with smaller settings, or that needs what a test has not.
ELSEWHERE = {
    'quantized = qat(model, "cifar10"': "test_qat::test_the_one_liner_takes_ones_own_network",
    'export(model, ["savedmodel", "tflite-int8"], calibration=images': (
        "test_export::test_every_format_passes_its_check"
    ),
    'model = tf.saved_model.load("exports/saved_model/1")': (
        "test_served::test_the_documented_lines_name_the_best_class"
    ),
    'network = tf.saved_model.load("exports/saved_model/1")': (
        "test_serving::test_the_bare_network_is_what_converters_read"
    ),
    'labels=["cat", "dog"],': "test_heads::test_one_sigmoid_is_right_in_every_file",
    "vision.ImageClassifier.create_from_options": (
        "test_metadata::test_mediapipes_image_classifier_answers_as_litert"
    ),
    "from ai_edge_litert.aot import aot_compile": (
        "test_npu::test_litert_starts_the_compiler_of_a_phones_maker"
    ),
    'keras_resnet.from_hub("USER/NAME")': "test_push::test_what_is_pushed_comes_back",
    'weights="hf://timm/resnet50d.ra2_in1k"': (
        "test_hub::test_weights_come_with_their_preprocessing_and_crop_and_stay_in_the_cache"
    ),
}


def _blocks(kind):
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for number, body in enumerate(re.findall(rf"```{kind}\n(.*?)```", text, re.DOTALL)):
            yield pytest.param(page, body, id=f"{page.relative_to(ROOT)}-{number}")


def _check(words):
    """That `keras-resnet` takes the words after it, and what they name exists."""
    options = parse(words)
    config = getattr(options, "config", None)
    if config is not None and re.fullmatch(r"[a-z0-9]+/\w+", config):
        assert config in list_configs(), config
    name = getattr(options, "model", None)
    if name is not None and getattr(options, "weights", None):
        assert name.isupper() or name in registry.list_models(), name


@pytest.mark.parametrize(("page", "body"), _blocks("bash"))
def test_commands_parse_and_name_what_exists(page, body):
    for words in commands(body):
        if words[:3] == ["python", "-m", "keras_resnet"]:
            words[:3] = ["keras-resnet"]
        if words[0] == "keras-resnet" and "…" not in words:
            _check(words[1:])
        elif words[0] in ("python", "bash"):
            scripts = [word for word in words[1:] if re.fullmatch(r"[\w/]+\.(py|sh)", word)]
            for script in (s for s in scripts if not s.startswith("exports/")):  # an export's
                assert (ROOT / script).is_file(), script
        elif words[0] == "pytest":
            for path in (word for word in words[1:] if word.startswith("tests/")):
                assert (ROOT / path).exists(), path


PARSERS = {name: parser for name, parser in walk(parsers()[0]) if name}


@pytest.mark.parametrize("name", PARSERS)
def test_the_examples_of_the_help_parse(name):
    *_, (_, *words) = commands(PARSERS[name].epilog.removeprefix("Example: "))
    assert " ".join(words).startswith(name)
    _check(words)


@pytest.mark.parametrize("start", ELSEWHERE)
def test_what_is_run_elsewhere_is_one_block_and_a_test(start):
    assert [start in block.values[1] for block in _blocks("python")].count(True) == 1
    module, _, test = ELSEWHERE[start].partition("::")
    (path,) = TESTS.rglob(f"{module}.py")
    assert f"def {test}(" in path.read_text(encoding="utf-8")


def _prose(page):
    """The text of a page without its blocks of code."""
    return re.sub(r"```.*?```", "", page.read_text(encoding="utf-8"), flags=re.DOTALL)


def test_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#\s]+)", _prose(page)):
            if not target.startswith(("http://", "https://", "mailto:")):
                assert (page.parent / target).exists(), f"{page}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_row_of_a_table_has_the_cells_of_its_header(page):
    cells = None
    for line in _prose(page).split("\n"):
        found = len(re.findall(r"(?<!\\)\|", re.sub(r"`[^`]*`", "", line)))
        cells = (cells or found) if line.startswith("|") else None
        assert cells is None or found == cells, line


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_python_runs(page, tmp_path):
    """All blocks of a page in order, in one process; ImageNet's weights would be downloaded."""
    text = page.read_text(encoding="utf-8")
    blocks = [
        block
        for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL)
        if not any(start in block for start in ELSEWHERE)
    ]
    if not blocks:
        pytest.skip("no Python on this page that is not run elsewhere")
    pixels = np.random.default_rng(0).integers(0, 256, (48, 48, 3)).astype("uint8")
    for name in ("cat.jpg", "dog.jpg"):
        Image.fromarray(pixels).save(tmp_path / name)
    code = "\n".join(blocks)
    if 'load_dataset("cifar10")' in code:
        cifar10_or_skip()
    code = re.sub(r'weights="imagenet[^"]*"', "weights=None", code)
    run_python(code, cwd=tmp_path, timeout=1200)  # a slow machine's; a minute or two


@pytest.mark.slow
def test_the_tutorial_is_walked(tmp_path):
    """From the quickstart on, in order; the other machine is a folder, and nothing is installed."""
    text = (ROOT / "docs" / "tutorial.md").read_text(encoding="utf-8")
    _, _, text = text.partition("## 2 ")
    printed = ""
    for kind, body in re.findall(r"```(bash|python)\n(.*?)```", text, re.DOTALL):
        if kind == "python":
            run_python(body, cwd=tmp_path)
        else:
            printed = _walked(body, tmp_path)
    assert (tmp_path / "runs" / "mine" / "report.html").is_file()
    assert (tmp_path / "seen" / "sheet.png").is_file()
    first, *others = printed.splitlines()  # of classify.py
    assert re.fullmatch(r"seven\.png\t0\.\d+\tdigit_7", first)
    assert len(others) == 4


def _walked(body, folder):
    """Run a block in bash; its stdout."""
    lines = [
        re.sub(r"^scp( -r)? (\S+) pi:(\S+)", r"cp\1 \2 \3", line)
        for line in body.splitlines()
        if not re.match(r"python -m venv|pip install", line)
    ]
    scripts = Path(sys.executable).parent  # where keras-resnet lies beside python
    path = os.pathsep.join((str(scripts), os.environ["PATH"]))
    result = subprocess.run(
        ["bash", "-euc", "\n".join(lines)],
        cwd=folder,
        env={**os.environ, "PATH": path},
        capture_output=True,
        text=True,
        timeout=1800,
    )
    assert result.returncode == 0, f"{body}\n{result.stderr[-3000:]}"
    return result.stdout
