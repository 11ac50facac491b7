"""Run the notebooks and keep what they print and draw; then look at it.

python tests/helpers/notebooks.py [NAME ...]    # all: minutes on a CPU, with nothing else running
"""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from pathlib import Path

import nbclient
import nbformat

FOLDER = Path(__file__).parents[2] / "notebooks"
RAN = "ran"  # in the notebook's metadata: the hash of the code that gave the outputs


def is_parameters(cell) -> bool:
    """Whether it is the cell that the tests make smaller."""
    return "parameters" in cell.metadata.get("tags", ())


def code_hash(book) -> str:
    code = "\0".join(cell.source for cell in book.cells if cell.cell_type == "code")
    return hashlib.sha256(code.encode()).hexdigest()


def run(book, folder) -> None:
    """Execute `book` in `folder`; raises with the cell and its error."""
    client = nbclient.NotebookClient(
        book, timeout=1800, kernel_name="python3", resources={"metadata": {"path": str(folder)}}
    )
    client.execute(env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"})


def _is_noise(output) -> bool:
    """Tell whether an output is TensorFlow's log or what a progress bar left when it ended."""
    return output.get("name") == "stderr" or output.get("data", {}).get("text/html") == ""


def main() -> None:
    for name in sys.argv[1:] or sorted(path.stem for path in FOLDER.glob("*.ipynb")):
        path = FOLDER / f"{name}.ipynb"
        book = nbformat.read(path, as_version=4)
        with tempfile.TemporaryDirectory() as folder:
            run(book, folder)
        for cell in book.cells:
            cell.metadata.pop("execution", None)  # when each began and ended
            if cell.cell_type == "code":
                cell.outputs = [output for output in cell.outputs if not _is_noise(output)]
        book.metadata[RAN] = code_hash(book)
        nbformat.write(book, path)
        print(path)


if __name__ == "__main__":
    main()
