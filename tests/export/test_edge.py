"""What runs a file where there is no TensorFlow: a script in Python, a program in C."""

import importlib.metadata
import json
import shutil
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from helpers import run_python
from helpers.environments import make_environment
from PIL import Image

import keras_resnet
import keras_resnet.export
from keras_resnet.export import export
from keras_resnet.export.runtimes.locate import read_array
from keras_resnet.export.runtimes.open import open_file
from keras_resnet.images.crop import SingleCrop
from keras_resnet.images.read import read_image

EDGE = Path(keras_resnet.export.__file__).parent / "edge"
NAMES = [f"Ziffer {index}" for index in range(10)]
CROP = SingleCrop(37, 32, "bicubic")


@pytest.fixture(scope="module")
def folder(digits, tmp_path_factory):
    """A trained ResNet-8 in float and in integers."""
    return export(
        keras_resnet.ResNet8(weights="cifar10", include_preprocessing=True),
        ["tflite-float32", "tflite-int8", "micro"],
        out=tmp_path_factory.mktemp("edge") / "out",
        calibration=digits.train.sample(64).images,
        labels=NAMES,
        crop=CROP,
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
    picture.resize((32, 24)).save(out / "exact.png")
    return sorted(out.iterdir())


def _expected(classify, path, picture):
    """The lines that it should print, from this package's own runtime."""
    pixels = classify.read_picture(str(picture), (32, 32, 3), asdict(CROP))
    (scores,) = open_file(path).predict(pixels)
    best = np.argsort(-scores, kind="stable")[:5]
    return [f"{picture}\t{scores[index]:.4f}\t{NAMES[index]}" for index in best]


@pytest.mark.parametrize("crop", [None, CROP, SingleCrop(30, 24), SingleCrop(28, 0, "bicubic")])
def test_the_script_reads_pictures_as_the_package_does(classify, pictures, crop):
    """Orientation, 16 bits, palettes, the crop."""
    cut = classify.COVER if crop is None else asdict(crop)
    for path in pictures:
        for shape in ((32, 24, 3), (24, 32, 3), (24, 24, 1)):
            found = classify.read_picture(str(path), shape, cut)[0]
            expected = read_image(path, shape[:2], shape[2], crop)
            np.testing.assert_array_equal(found, expected, err_msg=f"{path.name}, {shape}")


def test_the_script_cuts_as_the_manifest_says(classify, folder, tmp_path):
    path = folder / "resnet8-int8.tflite"
    assert classify.read_crop(path) == asdict(CROP)
    alone = Path(shutil.copy(path, tmp_path))
    assert classify.read_crop(alone) == classify.COVER
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["input"]["crop"] = None
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    assert classify.read_crop(alone) == classify.COVER


def test_the_script_refuses_a_model_without_its_normalisation(folder, pictures, tmp_path):
    path = shutil.copy(folder / "resnet8-int8.tflite", tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["input"]["raw_pixels"] = False
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    result = _run(path, pictures[0])
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr == (
        f"{path} does not take pixels 0...255: its manifest.json says that it does not "
        "normalise its input. Export it with --preprocessing.\n"
    )


def test_the_script_names_what_it_cannot_read_and_goes_on(classify, folder, pictures, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "cut.jpg").write_bytes((pictures[-1].parent / "turned.jpg").read_bytes()[:400])
    Image.new("RGB", (300, 3)).save(tmp_path / "thin.png")  # 3200 by 32, and worse in others
    bad = [tmp_path / name for name in ("missing.png", "text.png", "cut.jpg", "thin.png")]
    path = folder / "resnet8-int8.tflite"
    result = _run(path, *bad, pictures[0])
    assert result.returncode == 1
    assert result.stdout.splitlines() == _expected(classify, path, pictures[0])
    lines = [line for line in result.stderr.splitlines() if line.startswith("Cannot read ")]
    assert len(lines) == len(bad)
    for line, name in zip(lines, bad, strict=True):
        assert str(name) in line
    assert "300 by 3 pixels" in lines[-1]


def _run(*arguments):
    command = [sys.executable, EDGE / "classify.py", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=300)


def test_the_script_lies_beside_the_files_and_runs_without_tensorflow(classify, folder, pictures):
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
        lines = [x for picture in pictures for x in _expected(classify, folder / name, picture)]
        assert result.stdout.splitlines() == lines


def test_names_come_from_the_file_or_from_beside_it(classify, folder, tmp_path):
    copy = Path(shutil.copy(folder / "resnet8-int8.tflite", tmp_path))
    assert classify.read_labels(copy) == NAMES
    copy.write_bytes(copy.read_bytes()[:-100])  # the archive is gone
    assert classify.read_labels(copy) == []
    shutil.copy(folder / "labels.txt", tmp_path)
    assert classify.read_labels(copy) == NAMES


def test_the_script_says_how_it_is_called(folder):
    result = subprocess.run([sys.executable, EDGE / "classify.py"], capture_output=True, text=True)
    assert result.returncode == 1
    assert "python classify.py MODEL.tflite PICTURE" in result.stderr


@pytest.mark.slow
@pytest.mark.network
def test_the_script_needs_three_packages(classify, folder, pictures, tmp_path):
    python = make_environment(tmp_path, "ai-edge-litert", "numpy", "pillow")
    frozen = [python, "-I", "-m", "pip", "freeze"]
    installed = subprocess.run(frozen, capture_output=True, text=True, check=True).stdout.lower()
    assert "tensorflow" not in installed
    assert "keras" not in installed
    path = folder / "resnet8-int8.tflite"
    command = [python, "-I", folder / "classify.py", path, *pictures]
    result = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr[-2000:]
    lines = [line for picture in pictures for line in _expected(classify, path, picture)]
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
    runtime = open_file(path)
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
    (tmp_path / "signed.tflite").write_bytes(read_array(folder / "resnet8-micro"))
    for path, message in (
        (tmp_path / "signed.tflite", "signed.tflite takes neither float32 nor uint8"),
        (folder / "resnet8-int8.tflite", "x.rgb has 100 bytes; the model takes 3072"),
        (folder / "labels.txt", "status"),
    ):
        command = [program, path, tmp_path / "x.rgb"]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert result.returncode == 1
        assert message in result.stderr
