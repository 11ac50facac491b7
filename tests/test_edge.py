"""What runs a file where there is no TensorFlow: a script in Python, a program in C."""

import importlib.metadata
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import run_python
from environments import make_environment
from PIL import Image

import keras_resnet
import keras_resnet.export
from keras_resnet.export import export, micro, runtimes
from keras_resnet.pictures import read_image

EDGE = Path(keras_resnet.export.__file__).parent / "edge"
NAMES = [f"Ziffer {index}" for index in range(10)]


@pytest.fixture(scope="module")
def folder(digits, tmp_path_factory):
    """A trained ResNet-8 in float and in integers."""
    return export(
        keras_resnet.ResNet8(weights="cifar10", include_preprocessing=True),
        ["tflite-float32", "tflite-int8", "micro"],
        out=tmp_path_factory.mktemp("edge") / "out",
        calibration=digits.train.sample(64).images,
        labels=NAMES,
        verbose=False,
    ).folder


@pytest.fixture(scope="module")
def pictures(digits, tmp_path_factory):
    """The kinds of pictures that people have."""
    out = tmp_path_factory.mktemp("pictures")
    pixels = np.kron(digits.test.images[0], np.ones((5, 3, 1), "uint8"))  # 160 by 96
    rng = np.random.default_rng(0)
    picture = Image.fromarray((pixels // 2 + rng.integers(0, 128, pixels.shape)).astype("uint8"))
    picture.save(out / "plain.png")
    turned = Image.Exif()
    turned[0x0112] = 6  # held upright
    whole = {"quality": 95, "subsampling": 0}  # colours at full size; decoders enlarge each its way
    picture.save(out / "turned.jpg", exif=turned, **whole)
    picture.convert("CMYK").save(out / "cmyk.jpg", **whole)
    picture.convert("P").save(out / "palette.gif")
    picture.convert("RGBA").save(out / "alpha.png")
    grey = np.asarray(picture.convert("L")).astype("uint16") * 257
    Image.fromarray(grey).save(out / "sixteen_bits.png")
    return sorted(out.iterdir())


@pytest.fixture(scope="module")
def script():
    """The script as a module."""
    spec = importlib.util.spec_from_file_location("classify", EDGE / "classify.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _expected(script, path, picture):
    """The lines that it should print, from this package's own runtime."""
    pixels = script.read_picture(str(picture), 32, 32, 3)
    (scores,) = runtimes.open_file(path).predict(pixels)
    best = np.argsort(-scores, kind="stable")[:5]
    return [f"{picture}\t{scores[index]:.4f}\t{NAMES[index]}" for index in best]


def test_the_script_reads_pictures_as_the_package_does(script, pictures):
    """Orientation, 16 bits, palettes. Pillow and TensorFlow round each in its way."""
    for path in pictures:
        for channels in (3, 1):
            found = script.read_picture(str(path), 32, 24, channels)[0].astype("float32")
            difference = np.abs(found - read_image(path, (32, 24), channels))
            # Grey levels. Of a shape other than the model's the package cuts whole pixels, Pillow
            # parts of them: up to half a pixel of this noisy picture. Another orientation gives 30.
            assert difference.mean() < (8 if path.name == "turned.jpg" else 1)


def test_the_script_lies_beside_the_files_and_runs_without_tensorflow(script, folder, pictures):
    assert (folder / "classify.py").read_bytes() == (EDGE / "classify.py").read_bytes()
    for name in ("resnet8-float32.tflite", "resnet8-int8.tflite"):
        result = run_python(
            "import runpy, sys\n"
            "sys.modules |= dict.fromkeys(['tensorflow', 'keras', 'keras_resnet'])\n"
            "sys.argv = sys.argv[1:]\n"
            "runpy.run_path(sys.argv[0], run_name='__main__')",
            folder / "classify.py",
            folder / name,
            *pictures,
        )
        lines = [line for picture in pictures for line in _expected(script, folder / name, picture)]
        assert result.stdout.splitlines() == lines


def test_names_come_from_the_file_or_from_beside_it(script, folder, tmp_path):
    copy = Path(shutil.copy(folder / "resnet8-int8.tflite", tmp_path))
    assert script.read_labels(copy) == NAMES
    copy.write_bytes(copy.read_bytes()[:-100])  # the archive is gone
    assert script.read_labels(copy) == []
    shutil.copy(folder / "labels.txt", tmp_path)
    assert script.read_labels(copy) == NAMES


def test_the_script_says_how_it_is_called(folder):
    result = subprocess.run([sys.executable, EDGE / "classify.py"], capture_output=True, text=True)
    assert result.returncode == 1
    assert "python classify.py MODEL.tflite PICTURE" in result.stderr


@pytest.mark.slow
@pytest.mark.network
def test_the_script_needs_three_packages(script, folder, pictures, tmp_path):
    python = make_environment(tmp_path, "ai-edge-litert", "numpy", "pillow")
    frozen = [python, "-I", "-m", "pip", "freeze"]
    installed = subprocess.run(frozen, capture_output=True, text=True, check=True).stdout.lower()
    assert "tensorflow" not in installed
    assert "keras" not in installed
    path = folder / "resnet8-int8.tflite"
    command = [python, "-I", folder / "classify.py", path, *pictures]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr[-2000:]
    lines = [line for picture in pictures for line in _expected(script, path, picture)]
    assert result.stdout.splitlines() == lines


# C ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """classify.c on the library of the wheel."""
    if shutil.which("gcc") is None:
        pytest.skip("no gcc here")
    version = importlib.metadata.version("ai-edge-litert")
    if version != "2.3.0":
        pytest.skip(f"classify.c declares the functions of ai-edge-litert 2.3.0, not of {version}")
    import ai_edge_litert

    libraries = Path(ai_edge_litert.__path__[0])
    out = tmp_path_factory.mktemp("c") / "classify"
    strict = ["-std=c11", "-O2", "-Wall", "-Wextra", "-Werror"]
    library = [libraries / "libLiteRt.so", f"-Wl,-rpath,{libraries}"]
    subprocess.run(["gcc", *strict, EDGE / "classify.c", "-o", out, *library], check=True)
    return out


@pytest.mark.parametrize("file", ["float32", "int8"])
def test_the_c_program_answers_as_python(program, folder, digits, tmp_path, file):
    path = folder / f"resnet8-{file}.tflite"
    runtime = runtimes.open_file(path)
    for image in digits.test.images[:5]:
        (tmp_path / "x.rgb").write_bytes(image.tobytes())
        command = [program, path, tmp_path / "x.rgb"]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert result.returncode == 0, result.stderr[-2000:]
        scores = np.array([float(line) for line in result.stdout.split()], "float32")
        expected = runtime.predict(image[None])[0]
        # The same library and kernels; nine digits say a float32 exactly.
        np.testing.assert_array_equal(scores * (runtime.output_step or 1), expected)


def test_the_c_program_refuses_what_does_not_fit(program, folder, tmp_path):
    (tmp_path / "x.rgb").write_bytes(bytes(100))
    (tmp_path / "signed.tflite").write_bytes(micro.read(folder / "resnet8-micro"))
    for path, message in (
        (tmp_path / "signed.tflite", "signed.tflite takes neither float32 nor uint8"),
        (folder / "resnet8-int8.tflite", "x.rgb has 100 bytes; the model takes 3072"),
        (folder / "labels.txt", "status"),
    ):
        command = [program, path, tmp_path / "x.rgb"]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert result.returncode == 1
        assert message in result.stderr
