"""pyproject.toml installs what is there; the editable install that tests use would not tell."""

import tomllib

from helpers import ROOT

SETTINGS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]


def _folder(package):
    """Where a package lies, by the longest entry of package-dir that it begins with."""
    for above in [package, *(package.rsplit(".", n)[0] for n in range(1, package.count(".") + 1))]:
        if above in SETTINGS["package-dir"]:
            rest = package.removeprefix(above).strip(".").replace(".", "/")
            return ROOT / SETTINGS["package-dir"][above] / rest
    raise AssertionError(package)


def test_every_package_has_its_folder():
    listed = {_folder(package) for package in SETTINGS["packages"]}
    there = {
        path.parent
        for top in ("keras_resnet", "recipes", "export")
        for path in (ROOT / top).rglob("__init__.py")
    }
    assert listed == there


def test_every_pattern_of_data_finds_files():
    for package, patterns in SETTINGS["package-data"].items():
        for pattern in patterns:
            assert any(_folder(package).glob(pattern)), (package, pattern)
