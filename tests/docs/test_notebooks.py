"""Every notebook runs from top to bottom, with the small settings of its cell of parameters, and
shows what its code gave."""

import pytest

nbformat = pytest.importorskip("nbformat", reason="needs nbformat, of the extra dev")
pytest.importorskip("nbclient", reason="needs nbclient, of the extra dev")

from helpers.notebooks import FOLDER, RAN, code_hash, is_parameters, run  # noqa: E402

SMALL = {
    "1_quickstart": "epochs = 1",
    "2_plain_residual_preactivation": "epochs, depths = 1, (20,)",
    "3_quantize_and_ship": "epochs, qat_epochs = 2, 1",
    "4_explain": "count = 1",
    "5_coming_from_keras": "size = 64",
}


def _read(name):
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def test_every_notebook_is_tested():
    assert {path.stem for path in FOLDER.glob("*.ipynb")} == set(SMALL)


@pytest.mark.parametrize("name", SMALL)
def test_parameters_are_those_of_the_notebook(name):
    """What the tests make smaller is what the notebook calls so."""
    cells = [cell for cell in _read(name).cells if is_parameters(cell)]
    assert len(cells) == 1
    assert cells[0].source.partition(" = ")[0] == SMALL[name].partition(" = ")[0]


@pytest.mark.parametrize("name", SMALL)
def test_what_it_shows_is_of_its_code(name):
    """Run again by `python tests/helpers/notebooks.py`."""
    book = _read(name)
    assert book.metadata.get(RAN) == code_hash(book)
    assert any(cell.get("outputs") for cell in book.cells)


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_it_runs(name, tmp_path):
    book = _read(name)
    for cell in book.cells:
        if is_parameters(cell):
            cell.source = SMALL[name]
    run(book, tmp_path)
