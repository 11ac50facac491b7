"""Every notebook runs from top to bottom, with the small settings of its cell of parameters."""

import os
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="needs nbformat, of the extra dev")
nbclient = pytest.importorskip("nbclient", reason="needs nbclient, of the extra dev")

FOLDER = Path(__file__).parents[1] / "notebooks"
SMALL = {
    "1_quickstart": "epochs = 1",
    "2_plain_residual_preactivation": "epochs, depths = 1, (20,)",
    "3_quantize_and_ship": "epochs, qat_epochs = 2, 1",
    "4_explain": "count = 1",
}


def test_every_notebook_is_tested():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(SMALL)


@pytest.mark.parametrize("name", SMALL)
def test_parameters_are_those_of_the_notebook(name):
    """What the tests make smaller is what the notebook calls so."""
    book = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    cells = [c for c in book.cells if "parameters" in c.metadata.get("tags", ())]
    assert len(cells) == 1
    assert cells[0].source.partition(" = ")[0] == SMALL[name].partition(" = ")[0]


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_it_runs(name, tmp_path):
    book = nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)
    for cell in book.cells:
        if "parameters" in cell.metadata.get("tags", ()):
            cell.source = SMALL[name]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    client = nbclient.NotebookClient(
        book, timeout=600, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}
    )
    client.execute(env=environment)  # raises with the cell and its error
