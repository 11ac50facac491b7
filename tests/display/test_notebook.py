"""What a notebook shows: no red lines of libraries, short errors."""

import pytest
from helpers import run_python
from IPython.core.interactiveshell import InteractiveShell

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
