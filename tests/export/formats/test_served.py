"""The SavedModel behind servers of TensorFlow Serving's shapes, and a thousand files of all kinds.

The real server was not run: see model_server.py.
"""

import base64
import io
import json
import os
import re
import resource
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from helpers import ROOT, TESTS, model_server
from PIL import Image

from keras_resnet.cli.main import main
from keras_resnet.export import export
from keras_resnet.images.crop import SingleCrop
from keras_resnet.images.read import read_image

SIZE, CROP = 24, SingleCrop(28, 24)
COUNT = 1000


@pytest.fixture(scope="module")
def exports(tmp_path_factory):
    """A tiny network whose answers depend on the colours and where they are."""
    keras.utils.set_random_seed(1)
    inputs = keras.Input((SIZE, SIZE, 3), name="images")
    x = keras.layers.Conv2D(8, 8, strides=8)(keras.layers.Rescaling(1 / 64, -2)(inputs))
    x = keras.layers.Dense(7, activation="softmax")(keras.layers.Flatten()(x))
    model = keras.Model(inputs, x, name="tiny")
    images = np.random.default_rng(0).integers(0, 256, (8, SIZE, SIZE, 3)).astype("uint8")
    labels = ["ant", "bee", "crab", "dränsnäcka", "eel", "fox", "gnu"]
    out = tmp_path_factory.mktemp("served") / "exports"
    arguments = {"labels": labels, "crop": CROP, "check_images": images, "verbose": False}
    assert export(model, ["savedmodel"], out=out, **arguments).passed
    return out


@pytest.fixture(scope="module")
def model(exports):
    return model_server.Model(exports / "saved_model")


def _picture(seed, size=None):
    rng = np.random.default_rng(seed)
    patches = rng.integers(0, 256, (4, 5, 3)).astype("uint8")
    width, height = size or rng.integers(20, 90, 2)
    return Image.fromarray(patches).resize((width, height), Image.BICUBIC)


def _file(picture, kind="JPEG", **options):
    file = io.BytesIO()
    picture.save(file, kind, **options)
    return file.getvalue()


# Servers ------------------------------------------------------------------------------------------


@pytest.fixture
def post(model):
    """Post JSON to a server of TensorFlow Serving's REST shape: (status, answer)."""
    server = model_server.rest_server(model, "tiny")
    thread = threading.Thread(target=server.serve_forever)
    thread.start()

    def ask(content, path="/v1/models/tiny:predict"):
        url = f"http://127.0.0.1:{server.server_address[1]}{path}"
        request = urllib.request.Request(url, json.dumps(content).encode())
        try:
            with urllib.request.urlopen(request, timeout=60) as response:
                return response.status, json.load(response)
        except urllib.error.HTTPError as error:
            return error.code, json.load(error)

    yield ask
    server.shutdown()
    thread.join()
    server.server_close()


def test_rest_requests_of_files_and_of_pixels(post, model):
    files = [_file(_picture(seed), kind) for seed, kind in enumerate(("JPEG", "PNG"))]
    rows = [{"b64": base64.b64encode(file).decode()} for file in files]
    expected = model.run("image_bytes", {"image_bytes": files})
    names = [[name.decode() for name in row] for row in expected["classes"]]
    for instances in rows, [{"image_bytes": row} for row in rows]:
        request = {"signature_name": "image_bytes", "instances": instances}
        status, answer = post(request)
        assert status == 200
        assert [row["classes"] for row in answer["predictions"]] == names
        scores = [row["scores"] for row in answer["predictions"]]
        np.testing.assert_allclose(scores, expected["scores"], rtol=1e-6)  # digits of JSON
    pixels = np.asarray(_picture(1))[None]
    status, answer = post({"inputs": {"images": pixels.tolist()}})
    assert status == 200
    assert answer["outputs"]["classes"] == names[1:]
    request = {"signature_name": "features", "instances": pixels.tolist()}
    status, answer = post(request)
    assert (status, np.shape(answer["predictions"][0]["features"])) == (200, (72,))


def test_a_bad_rest_request_is_answered_with_the_reason_and_the_server_goes_on(post):
    def row(content):
        return {"b64": base64.b64encode(content).decode()}

    good, bad = row(_file(_picture(0))), row(b"GIF89a...")
    request = {"signature_name": "image_bytes", "instances": [good, bad]}
    status, answer = post(request)
    assert status == 400
    assert "image 1: it is a GIF; expected a JPEG or PNG" in answer["error"]
    assert post({**request, "instances": [good]})[0] == 200
    assert post(request, "/v1/models/other:predict")[0] == 400


def test_the_documented_lines_name_the_best_class(exports, model, monkeypatch, capsys):
    page = (ROOT / "export" / "README.md").read_text(encoding="utf-8")
    (lines,) = re.findall(r"```python\n(import tensorflow.*?)```", page, re.DOTALL)
    monkeypatch.chdir(exports.parent)
    Path("cat.jpg").write_bytes(_file(_picture(0)))
    exec(lines, {})
    expected = model.run("image_bytes", {"image_bytes": [_file(_picture(0))]})
    assert capsys.readouterr().out.split()[0] == expected["classes"][0, 0].decode()


@pytest.mark.slow
@pytest.mark.network
def test_official_grpc_stubs_get_answers(exports, model, tmp_path):
    """The package alone, without what it asks for: it wants a TensorFlow of its own version."""
    install = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--target"]
    command = [*install, str(tmp_path / "stubs"), "tensorflow-serving-api"]
    installed = subprocess.run(command, capture_output=True, text=True, timeout=300)
    if installed.returncode:
        pytest.skip(f"tensorflow-serving-api cannot be installed: {installed.stderr[-300:]}")
    pytest.importorskip("grpc")
    good = _file(_picture(0))
    (tmp_path / "good.jpg").write_bytes(good)
    (tmp_path / "bad.jpg").write_bytes(good[:300])
    paths = [tmp_path / "stubs", TESTS, os.environ.get("PYTHONPATH", "")]
    result = subprocess.run(
        [
            *(sys.executable, str(TESTS / "helpers" / "grpc_client.py")),
            *(str(exports / "saved_model"), "tiny"),
            *(str(tmp_path / "good.jpg"), str(tmp_path / "bad.jpg")),
        ],
        capture_output=True,
        text=True,
        timeout=300,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))},
    )
    assert result.returncode == 0, result.stderr[-3000:]
    answer = json.loads(result.stdout.splitlines()[-1])
    expected = model.run("image_bytes", {"image_bytes": [good, good]})
    assert answer["classes"] == [[name.decode() for name in row] for row in expected["classes"]]
    np.testing.assert_allclose(answer["scores"], expected["scores"], rtol=1e-5)
    outputs = sorted(expected)
    assert answer["warm_up"] == [
        ["serving_default", outputs],
        ["image_bytes", outputs],
        ["network", ["predictions"]],
        ["features", ["features"]],
    ]
    assert answer["refused"]["code"] == "INVALID_ARGUMENT"
    assert "Invalid JPEG data" in answer["refused"]["details"]
    assert answer["after"] == ["scores"]


# A thousand files ---------------------------------------------------------------------------------


def _turned(seed):
    exif = Image.Exif()
    exif[0x0112] = 1 + seed % 8
    return _file(_picture(seed), exif=exif)


def _deep(seed):
    image = np.random.default_rng(seed).integers(0, 2**16, (30, 40, 1 + 2 * (seed % 2)))
    return tf.io.encode_png(image.astype("uint16")).numpy()


def _moving(seed, kind):
    frames = [_picture(seed + more, (40, 30)) for more in range(3)]
    return _file(frames[0], kind, save_all=True, append_images=frames[1:])


def _half(content):
    return content[: len(content) // 2]


def _bomb(_):
    """20,000 × 20,000 pixels in 49 kB."""
    return _file(Image.new("1", (20_000, 20_000)), "PNG", compress_level=9)


def _claims_much(seed):
    """A JPEG whose header speaks of 60,000 × 50,000 pixels."""
    whole = _file(_picture(seed))
    at = whole.index(b"\xff\xc0") + 5
    return whole[:at] + (60_000).to_bytes(2) + (50_000).to_bytes(2) + whole[at + 4 :]


REASONS = ("image 0: it ", "Invalid JPEG data", "Invalid PNG data")
BOTH, PYTHON, NEITHER = "answered", "answered by predict alone", "refused"
KINDS = {
    "photo.jpg": (BOTH, lambda seed: _file(_picture(seed), quality=50 + seed % 50)),
    "progressive.jpg": (BOTH, lambda seed: _file(_picture(seed), progressive=True)),
    "turned.jpg": (BOTH, _turned),
    "grey.jpg": (BOTH, lambda seed: _file(_picture(seed).convert("L"))),
    "cmyk.jpg": (BOTH, lambda seed: _file(_picture(seed).convert("CMYK"))),
    "large.jpg": (BOTH, lambda seed: _file(_picture(seed, (800, 600 + seed % 99)))),
    "photo.png": (BOTH, lambda seed: _file(_picture(seed), "PNG")),
    "alpha.png": (BOTH, lambda seed: _file(_picture(seed).convert("RGBA"), "PNG")),
    "palette.png": (BOTH, lambda seed: _file(_picture(seed).quantize(16), "PNG")),
    "deep.png": (BOTH, _deep),
    "moving.png": (BOTH, lambda seed: _moving(seed, "PNG")),
    "png_called.jpg": (BOTH, lambda seed: _file(_picture(seed), "PNG")),
    "moving.gif": (PYTHON, lambda seed: _moving(seed, "GIF")),
    "moving.webp": (PYTHON, lambda seed: _moving(seed, "WEBP")),
    "photo.bmp": (PYTHON, lambda seed: _file(_picture(seed), "BMP")),
    "empty.jpg": (NEITHER, lambda seed: b""),
    "text.png": (NEITHER, lambda seed: b"nothing to see" * (seed % 9 + 1)),
    "cut.jpg": (NEITHER, lambda seed: _half(_file(_picture(seed)))),
    "cut.png": (NEITHER, lambda seed: _half(_file(_picture(seed), "PNG"))),
    "cut.gif": (NEITHER, lambda seed: _moving(seed, "GIF")[:90]),
    "huge.png": (NEITHER, _bomb),
    "huge.jpg": (NEITHER, _claims_much),
    "thin.png": (NEITHER, lambda seed: _file(_picture(seed, (2000, 3)), "PNG")),
}


@pytest.fixture(scope="module")
def thousand(tmp_path_factory):
    """{path: what becomes of it}; 40 variations of a kind, in no order of kinds."""
    folder, made = tmp_path_factory.mktemp("thousand"), {}
    files = {}
    for index in range(COUNT):
        name = list(KINDS)[index % len(KINDS)]
        fate, make = KINDS[name]
        varies = name != "huge.png"  # is 50 MB before it is written
        key = (name, index if varies else 0)
        files[key] = files[key] if key in files else make(index)
        path = folder / f"{index:04}_{name}"
        path.write_bytes(files[key])
        made[str(path)] = fate
    return made


def test_a_thousand_files_are_answered_or_refused_by_name(thousand, exports, model, capsys):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    folder = str(exports / "saved_model")
    assert main(["predict", folder, *thousand, "--json", "--top", "1"]) == 2
    captured = capsys.readouterr()
    answers = json.loads(captured.out)["predictions"]
    assert [answer["image"] for answer in answers] == list(thousand)
    for answer, (path, fate) in zip(answers, thousand.items(), strict=True):
        assert ("top" in answer) == (fate != NEITHER), answer
        assert "top" in answer or Path(path).name in answer["error"]
    refused = [answer for answer in answers if "error" in answer]
    assert len(refused) > 300
    assert captured.err.count("error: ") == len(refused)  # one line each, and nothing else
    assert len(captured.err.splitlines()) == len(refused)
    for answer, fate in zip(answers, thousand.values(), strict=True):
        assert _by_bytes(model, answer) == (fate == BOTH)
    # A huge one would take 1.2 GB decoded; a graph keeps what it freed.
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown < 400 * 1024


def _by_bytes(model, answer):
    """Whether the bytes signature answers, then as predict did; False: it refuses and says why.

    A refusal for another reason is raised: it is none of an image's.
    """
    content = Path(answer["image"]).read_bytes()
    try:
        found = model.run("image_bytes", {"image_bytes": [content]})
    except tf.errors.InvalidArgumentError as error:
        if not any(reason in str(error) for reason in REASONS):
            raise
        return False
    assert found["classes"][0, 0].decode() == answer["top"][0]["label"]
    # Pillow and TensorFlow may round a resized value at a half to different grey levels.
    assert found["scores"][0, 0] == pytest.approx(answer["top"][0]["probability"], abs=5e-3)
    return True


def test_predict_reads_at_the_size_of_the_file_and_not_of_what_was_before(thousand):
    """The same reader serves every file: none leaves anything for the next."""
    sound = [path for path, fate in thousand.items() if fate != NEITHER][:60]
    first = [read_image(path, (SIZE, SIZE), crop=CROP) for path in sound]
    for path, image in reversed(list(zip(sound, first, strict=True))):
        np.testing.assert_array_equal(read_image(path, (SIZE, SIZE), crop=CROP), image)
