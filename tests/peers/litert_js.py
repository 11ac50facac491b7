"""Fetch a version of LiteRT.js from npm into export/web/litert and write its SOURCES.

    python tests/peers/litert_js.py 2.5.3

Needs npm. Afterwards: the version in NOTICE, and
`pytest tests/export/formats/test_web.py -m "slow or not slow"`.
"""

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "export" / "web" / "litert"
HEAD = """\
# What lies here: file, npm package with version, path in the package, sha256.
# `python tests/peers/litert_js.py VERSION` fetches another version from npm and rewrites this.
"""
# Two builds of the runtime: with relaxed SIMD, and for browsers without it, such as Safari.
FILES = {
    "core.js": ("core", "dist/index.js"),
    "wasm-utils.js": ("wasm-utils", "dist/index.js"),
    "litert_wasm_internal.js": ("core", "wasm/litert_wasm_internal.js"),
    "litert_wasm_internal.wasm": ("core", "wasm/litert_wasm_internal.wasm"),
    "litert_wasm_compat_internal.js": ("core", "wasm/litert_wasm_compat_internal.js"),
    "litert_wasm_compat_internal.wasm": ("core", "wasm/litert_wasm_compat_internal.wasm"),
}


def main(version):
    lines = []
    with tempfile.TemporaryDirectory() as scratch:
        packages = [f"@litertjs/{name}@{version}" for name in ("core", "wasm-utils")]
        command = ["npm", "install", "--ignore-scripts", "--no-save", "--prefix", scratch]
        subprocess.run([*command, *packages], check=True)
        for name, (package, path) in FILES.items():
            source = Path(scratch, "node_modules", "@litertjs", package, path)
            shutil.copyfile(source, FOLDER / name)
            digest = hashlib.sha256(source.read_bytes()).hexdigest()
            lines.append(f"{name} @litertjs/{package}@{version} {path} {digest}\n")
    (FOLDER / "SOURCES").write_text(HEAD + "".join(lines))


if __name__ == "__main__":
    main(*sys.argv[1:])
