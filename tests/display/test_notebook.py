"""What a notebook shows: no red lines of libraries, short errors, tables and small pictures."""

import json
from dataclasses import replace

import nbclient
import nbformat
import numpy as np
import pytest
from helpers import ROOT, run_python
from IPython.core.interactiveshell import InteractiveShell
from PIL import Image

import keras_resnet
from keras_resnet.display import notebook
from keras_resnet.export.reference import Reference
from keras_resnet.recipes import compare, load_dataset
from keras_resnet.recipes.export import export_source
from keras_resnet.recipes.runs import outcomes, sources
from keras_resnet.recipes.runs.folder import Run, list_runs

FIRST_CELL = """
import os
os.environ.pop("TF_CPP_MIN_LOG_LEVEL")  # which pytest's process has set
{before}
import keras_resnet
model = keras_resnet.{network}(weights=None)
print(os.environ["TF_CPP_MIN_LOG_LEVEL"], model(model.inputs[0]).shape)
"""


@pytest.fixture
def shell():
    made = InteractiveShell()
    yield made
    made.atexit_operations()


# The first cell -----------------------------------------------------------------------------------


def test_the_first_cell_writes_no_red_line():
    """TensorFlow writes to the descriptor of stderr, which a kernel shows in red."""
    result = run_python(FIRST_CELL.format(before="", network="ResNet8"))
    assert result.stdout.split(maxsplit=1)[0] == "2"
    assert result.stderr == ""


def test_who_wants_tensorflows_lines_has_them():
    chosen = FIRST_CELL.format(before='os.environ["TF_CPP_MIN_LOG_LEVEL"] = "0"', network="ResNet8")
    result = run_python(chosen)
    assert result.stdout.split(maxsplit=1)[0] == "0"
    assert "tensorflow" in result.stderr.lower()


def test_a_process_without_stderr_imports_too():
    code = FIRST_CELL.format(before="os.close(2)", network="ResNet8")
    assert run_python(code).stdout.split(maxsplit=1)[0] == "2"


@pytest.mark.slow
def test_a_kernel_shows_no_red_line_and_short_errors(monkeypatch, tmp_path):
    monkeypatch.delenv("TF_CPP_MIN_LOG_LEVEL")  # which pytest's process has set
    cells = (
        "import keras_resnet\nm = keras_resnet.ResNet8(weights=None)\nm(m.inputs[0]).shape",
        "keras_resnet.create_model('resnet5O')",
        "from keras_resnet.recipes import load_dataset\nload_dataset('digits')",
    )
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    client = nbclient.NotebookClient(book, allow_errors=True, kernel_name="python3")
    client.execute(cwd=str(tmp_path))
    first, failed, shown = (cell.outputs for cell in book.cells)
    assert [output.output_type for output in first] == ["execute_result"]
    assert [output.output_type for output in failed] == ["error"]
    assert len(failed[0].traceback) == 2
    assert "text/html" in shown[-1].data
    assert all(output.get("name") != "stderr" for output in shown)


@pytest.mark.slow
def test_a_training_in_a_notebook_shows_a_bar_and_then_only_its_epochs(monkeypatch, tmp_path):
    cell = (
        "from keras_resnet.recipes import load_config, train\n"
        "run = train.run(load_config('debug/tiny'), 'run')"
    )
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    seen = []
    client = nbclient.NotebookClient(book, kernel_name="python3")
    update = client.process_message

    def process(message, cell, index):
        seen.append(json.dumps(message["content"], default=str))
        return update(message, cell, index)

    monkeypatch.setattr(client, "process_message", process)
    client.execute(cwd=str(tmp_path))
    assert any("<progress value=" in content and " of 18" in content for content in seen)
    kept = "".join(str(output.get("data", "")) for output in book.cells[0].outputs)
    assert "<progress" not in kept
    assert "epoch   1/2" in kept
    assert "epoch   2/2" in kept


# Errors -------------------------------------------------------------------------------------------


def test_an_error_of_ours_is_the_line_of_the_cell_and_the_message(shell, capsys):
    shell.run_cell("import keras_resnet\nx = 1\nkeras_resnet.create_model('resnet5O')")
    said = capsys.readouterr()
    lines = (said.out + said.err).strip().splitlines()
    assert lines[0] == "line 3: keras_resnet.create_model('resnet5O')"
    assert lines[1].startswith("UnknownNameError: Unknown model 'resnet5O'. Did you mean")
    assert len(lines) == 2


def test_other_errors_keep_their_traceback(shell, capsys):
    shell.run_cell("import keras_resnet\nkeras_resnet.preprocess(1 / 0)")
    said = capsys.readouterr()
    assert "Traceback" in said.out + said.err


# What objects show --------------------------------------------------------------------------------


def _shown(shell, value):
    """(plain text, HTML or None) as IPython displays a value."""
    formats, _ = shell.display_formatter.format(value)
    return formats["text/plain"], formats.get("text/html")


def _is_short(text):
    return len(text.splitlines()) <= 5 and max(map(len, text.splitlines())) < 200


@pytest.fixture
def folder(tmp_path):
    """Images of two sizes in a folder per class."""
    for label, colour in (("<red>", (255, 0, 0)), ("blue", (0, 0, 255))):
        (tmp_path / label).mkdir()
        for number in range(6):
            size = (20 + number, 30)
            Image.new("RGB", size, colour).save(tmp_path / label / f"{number}.png")
    return tmp_path


def test_a_dataset_is_a_table_and_a_strip_of_images(shell, digits):
    text, page = _shown(shell, digits)
    assert text == "Dataset 'digits': 10 classes\ntrain 1,257, validation 180, test 360"
    assert page.count("<img") == 10
    first = int(digits.train.labels[0])
    assert f"<figcaption>{digits.class_names[first]}</figcaption>" in page
    assert ">1,257</td>" in page
    text, page = _shown(shell, digits.test)
    assert text == "Split: 360 images, 32×32×3"
    assert page.count("<img") == 10


def test_encoded_images_are_shown_without_trying_all(shell, folder):
    data = load_dataset(str(folder))
    text, page = _shown(shell, data.train)
    assert text == f"EncodedSplit: {data.train.places} images, sizes vary"
    assert page.count("<img") == min(10, data.train.places)
    assert "tried" not in vars(data.train.source)  # of millions that takes minutes
    page = _shown(shell, data)[1]
    assert "<figcaption>&lt;red&gt;</figcaption>" in page
    assert "<red>" not in page


def test_images_that_cannot_be_decoded_are_a_sentence(shell, folder, capsys):
    for path in folder.glob("*/*.png"):
        path.write_text(f"no image: {path.parent.name} {path.name}")
    page = _shown(shell, load_dataset(str(folder)).train)[1]
    assert "images can be decoded" in page
    assert "Traceback" not in capsys.readouterr().err


def test_a_profile_and_its_counts(shell):
    profile = keras_resnet.profile("resnet20")
    text, page = _shown(shell, profile)
    assert text.startswith("Profile of resnet20 on 32x32x3: 271,098 parameters, 40.6 M multiply-ad")
    assert page.count("<tr>") == 2 + len(profile.stages)
    assert '<td style="text-align:left">stage3</td>' in page
    for count in (profile.total, profile.stages[1], profile.layers[3]):
        text, page = _shown(shell, count)
        assert f"{count.parameters:,} parameters" in text
        assert f">{count.multiply_adds:,}</td>" in page
        assert _is_short(text)


def test_an_export_is_a_table_and_says_what_failed(shell, tiny_run, digits, tmp_path):
    report = export_source(
        sources.find(tiny_run.path), digits, ("tflite-float32", "tflite-int8"), tmp_path / "out"
    )
    text, page = _shown(shell, report)
    assert text == f"ExportReport: 2 files in {tmp_path / 'out'}, all passed their check"
    assert "resnet8-int8.tflite" in page
    assert page.count("<tr>") == 3
    bad = replace(report.checks[1], problems=("agreement 12 % < 95 %",))
    failed = replace(report, checks=[report.checks[0], bad])
    text, page = _shown(shell, failed)
    assert text.splitlines()[0].endswith("1 FAILED the check")
    assert text.splitlines()[1] == "failed: resnet8-int8.tflite"
    assert "agreement 12 % &lt; 95 %" in page
    assert "agreement 12 %" in _shown(shell, bad)[0]


def test_runs_and_compared_files_are_tables_with_short_names(shell, tiny_run):
    text, page = _shown(shell, tiny_run)
    assert text.startswith(f"Run '{tiny_run.path}': resnet8 on digits, finished, 8/8 epochs, valid")
    assert '<td style="text-align:left">resnet8</td>' in page
    for rows in (list_runs(tiny_run.path.parent), compare.rows([tiny_run.path])):
        text, page = _shown(shell, rows)
        assert len(text.splitlines()) == 2
        assert str(tiny_run.path) not in text
        assert page.count("<tr>") == 2
    assert _is_short(_shown(shell, compare.rows([tiny_run.path])[0])[0])
    assert len(repr(list_runs(ROOT / "benchmarks" / "results")).splitlines()) == 5
    assert list_runs(ROOT / "docs") == []
    assert repr(list_runs(ROOT / "docs")) == "0 runs"


def test_a_run_that_cannot_be_read_says_why(shell, tmp_path):
    (tmp_path / "config.toml").write_text("modle = 'resnet8'")
    text, page = _shown(shell, Run(tmp_path))
    assert "unreadable" in text
    assert "unreadable" in page


def test_explanations_are_pictures_and_never_numbers(shell, digits):
    model = keras_resnet.ResNet8(weights="cifar10", include_preprocessing=True)
    maps = keras_resnet.explain(model, digits.test.images[:2], ("gradcam", "saliency"))
    text, page = _shown(shell, maps)
    assert text == "{'gradcam': float32 (2, 32, 32), 'saliency': float32 (2, 32, 32)}"
    assert page.count("<img") == 2 * 3
    assert isinstance(maps, dict)
    row = keras_resnet.Row("<a>", digits.test.images[0], {"map": maps["gradcam"][0][..., None]})
    text, page = _shown(shell, row)
    assert "image=uint8 (32, 32, 3), pictures={'map': float32 (32, 32, 1)}" in text
    assert "<figcaption>&lt;a&gt;</figcaption>" in page


def test_arrays_in_dataclasses_are_types_and_shapes(shell):
    answers = outcomes.Outcomes(np.zeros(900, int), np.zeros(900, int), np.ones(900), 2)
    assert repr(answers) == (
        "Outcomes(labels=int64 (900,), guesses=int64 (900,), confidences=float64 (900,), classes=2)"
    )
    reference = Reference(np.zeros((1, 2, 2, 3)), np.zeros((1, 4)), None, "noise", "softmax")
    assert "images=float64 (1, 2, 2, 3)" in repr(reference)


def test_a_long_table_is_cut(shell):
    class Numbers(notebook.Rows):
        noun, header = "number", ("number",)

        def cells(self):
            return [[str(number)] for number in self]

    text, page = _shown(shell, Numbers(range(150)))
    assert text.splitlines()[-1] == "… 147 more numbers"
    assert page.count("<tr>") == 101
    assert "… 50 more numbers" in page


def test_a_large_picture_becomes_small():
    picture = np.random.default_rng(0).integers(0, 256, (960, 1280, 3))
    assert len(notebook.thumbnails([("noise", picture)])) < 60_000  # 96×128×3 bytes, in base64


def test_it_works_without_ipython():
    code = (
        "import sys; sys.modules['IPython'] = None\n"
        "from keras_resnet.recipes import load_dataset\n"
        "data = load_dataset('digits')\n"
        "print(data, len(data._repr_html_()) > 0)"
    )
    assert "Dataset 'digits': 10 classes" in run_python(code).stdout
