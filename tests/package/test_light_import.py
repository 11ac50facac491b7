"""`import keras_resnet` loads neither Keras nor TensorFlow, and nobody notices."""

import shutil
import subprocess
import sys

import pytest
from helpers import ROOT, first_by_default, run_python

import keras_resnet
from keras_resnet import _public

LIGHT = """
import sys
import keras_resnet
{code}
loaded = {{"keras", "tensorflow"}} & set(sys.modules)
assert not loaded, loaded
"""


@pytest.mark.parametrize(
    "code",
    [
        "",
        "from keras_resnet import errors, files, onednn",
        "import keras_resnet.export.runtimes",
        "keras_resnet.__version__, hasattr(keras_resnet, '__wrapped__')",
        "from keras_resnet.export.measure import benchmark_worker",
    ],
)
def test_nothing_heavy_is_loaded(code):
    run_python(LIGHT.format(code=code))


def test_the_command_answers_without_tensorflow():
    """Nor is it loaded for a mistyped option or for what needs no network."""
    for words in ["--help"], ["list", "--jsn"], ["weights", "list"]:
        code = (
            f"from keras_resnet.cli.main import main\ntry: main({words})\nexcept SystemExit: pass"
        )
        run_python(f"import sys\n{code}\nassert not {{'keras', 'tensorflow'}} & set(sys.modules)")


def test_every_public_name_is_there_at_first_mention():
    names = {*_public.__all__, "applications", "export", "insight", "labels", "recipes"}
    assert set(dir(keras_resnet)) == names
    assert keras_resnet.__all__ == _public.__all__
    for name in names:
        assert getattr(keras_resnet, name) is not None
    run_python(
        "from keras_resnet import *\n"
        "assert ResNet50.__name__ == 'ResNet50' and 'import_module' not in globals()"
    )
    with pytest.raises(AttributeError, match="'keras_resnet' has no attribute 'ResNet51'"):
        _ = keras_resnet.ResNet51


@pytest.mark.parametrize(
    "imports",
    first_by_default(
        [
            "import keras_resnet, keras",
            "import keras, keras_resnet",
            "import keras_resnet, tensorflow as tf\nkeras = tf.keras",
            "from keras_resnet.layers import Conv2D\nimport keras",  # which itself imports Keras
        ]
    ),
)
def test_a_saved_model_loads_after_a_plain_import(imports, tmp_path):
    keras_resnet.ResNet8().save(tmp_path / "m.keras")
    output = run_python(
        f"import sys\n{imports}\nprint(keras.models.load_model(sys.argv[1]).count_params())",
        tmp_path / "m.keras",
    ).stdout
    assert int(output) == keras_resnet.ResNet8().count_params()


@pytest.mark.parametrize(
    "code",
    [
        "import keras_resnet",
        "import keras_resnet.export",
        "from keras_resnet.export import export",
        "import runpy; runpy.run_module('keras_resnet', run_name='__main__')",
    ],
)
def test_a_checkout_that_is_not_installed_says_what_to_do(code, tmp_path):
    for folder in ("keras_resnet", "export", "recipes"):
        ignored = shutil.ignore_patterns("__pycache__", "trained", "web")
        shutil.copytree(ROOT / folder, tmp_path / folder, ignore=ignored)
    # -S: without any installed package, as in the Python that somebody has just cloned this with.
    result = subprocess.run(
        [sys.executable, "-S", "-c", code], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 1
    last = result.stderr.splitlines()[-1]
    assert last.startswith("ImportError: ")
    assert "Run `pip install -e .`" in last
    assert str(tmp_path / "keras_resnet") in last
