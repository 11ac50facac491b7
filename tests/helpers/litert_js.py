"""Small files in the place of LiteRT.js, whose 19 MB default tests do not download."""

import hashlib
from contextlib import contextmanager

import pytest

from keras_resnet.export.formats import litert_js


@contextmanager
def small_litert_js(folder):
    """Name a folder with files of a few bytes, and put their hashes in the place of the table.

    `folder` is made; the files are in its node_modules.
    """
    rows = []
    for file in litert_js.files():
        path = file.installed(folder / "node_modules")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(f"in the place of {file.name}", encoding="utf-8")
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
        rows.append(f"{file.name} {file.package} {file.path} {digest}\n")
    (folder / "SOURCES").write_text("".join(rows), encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(litert_js, "SOURCES", folder / "SOURCES")
        patch.setenv(litert_js.FOLDER, str(folder))
        yield
