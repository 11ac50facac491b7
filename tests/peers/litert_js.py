"""Write another version of LiteRT.js into export/web/litert/SOURCES, with the hashes of its files.

    python tests/peers/litert_js.py 2.5.3

Needs npm and the network. Afterwards change the version in NOTICE and export/README.md, and run
`pytest tests/export/formats -k "litert_js or web" -m "slow or not slow"`.
"""

import hashlib
import shutil
import sys
import tempfile
from pathlib import Path

from keras_resnet.export.formats import litert_js

HEAD = """\
# File of the page, npm package with version, path in the package, sha256.
# `python tests/peers/litert_js.py VERSION` rewrites this for another version.
"""


def main(version):
    names = {file.package: file.package.rpartition("@")[0] for file in litert_js.files()}
    lines = []
    with tempfile.TemporaryDirectory() as scratch:
        packages = [f"{name}@{version}" for name in names.values()]
        litert_js.install(shutil.which("npm"), packages, Path(scratch))
        for file in litert_js.files():
            content = file.installed(Path(scratch, "node_modules")).read_bytes()
            package, digest = names[file.package], hashlib.sha256(content).hexdigest()
            lines.append(f"{file.name} {package}@{version} {file.path} {digest}\n")
    litert_js.SOURCES.write_text(HEAD + "".join(lines), encoding="utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
