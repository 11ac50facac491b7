"""`keras-resnet doctor`, and the other project that installs the same folder."""

import json
import os
import subprocess
import sys
import tomllib

import pytest
from helpers import ROOT

from keras_resnet.cli import doctor
from keras_resnet.cli.main import main


def test_the_report_has_what_an_issue_needs(capsys):
    assert main(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {"python", "tensorflow", "keras", "keras-resnet-zoo"} <= found["versions"].keys()
    assert found["devices"]["cores"] == os.cpu_count()
    assert found["problems"] == []
    assert found["extras"]["export"] == {
        "missing": [],
        "needed_by": doctor.EXTRAS["export"][1],
        "install": None,
    }
    assert main(["doctor"]) == 0
    printed = capsys.readouterr().out
    assert "instruction sets" in printed
    assert "quickstart, train, finetune" in printed


def test_every_extra_for_users_is_in_the_report():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    assert set(doctor.EXTRAS) == set(extras) - {"all", "docs", "dev"}


def test_a_missing_extra_has_its_command(monkeypatch, capsys):
    monkeypatch.setitem(doctor.EXTRAS, "micro", (("no_such_package",), "nothing"))
    assert main(["doctor", "--json"]) == 0
    micro = json.loads(capsys.readouterr().out)["extras"]["micro"]
    assert micro["missing"] == ["no_such_package"]
    assert micro["install"] == 'pip install -e ".[micro]"'


@pytest.mark.parametrize("command", [["list"], ["--help"]])
def test_the_other_project_is_noticed_before_its_files_are_used(command, tmp_path):
    """Its wheel's record, as pip leaves it beside ours."""
    info = tmp_path / "keras_resnet-0.2.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: keras-resnet\nVersion: 0.2.0\n")
    done = subprocess.run(
        [sys.executable, "-m", "keras_resnet", *command],
        env={**os.environ, "PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == (
        "error: 'keras-resnet' 0.2.0, which is another project, is installed in the same folder "
        "and overwrites files of keras-resnet-zoo. To mend it: pip uninstall --yes keras-resnet "
        "&& pip install --force-reinstall --no-deps keras-resnet-zoo\n"
    )


def test_deleted_files_are_noticed(monkeypatch):
    import keras_resnet
    from keras_resnet.cli import collision

    assert collision.problem() is None
    monkeypatch.delattr(keras_resnet, "__version__")
    assert "files of keras-resnet-zoo are missing" in collision.problem()
