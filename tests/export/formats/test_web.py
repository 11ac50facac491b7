"""The format `web`: a folder that a browser runs. What needs the browser itself is marked slow."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
import tomllib

import numpy as np
import pytest
from helpers import ROOT, chromium, cifar10_or_skip
from helpers.litert_js import small_litert_js
from helpers.models import user_cnn
from helpers.web_page import answers, fitted, run_in, seen
from PIL import Image
from sklearn.datasets import load_sample_images

import keras_resnet
from keras_resnet.cli import main
from keras_resnet.errors import UserError
from keras_resnet.export import check, export
from keras_resnet.export.formats import litert_js, serving, web
from keras_resnet.export.runtimes.locate import PAGE
from keras_resnet.export.runtimes.open import open_file
from keras_resnet.images.answers import Answers
from keras_resnet.images.crop import SingleCrop
from keras_resnet.images.labels import class_names
from keras_resnet.images.preprocessing import read_image

NAMES = class_names("cifar10")
CROP = SingleCrop(37, 32, "bicubic")
PHOTOGRAPHS = dict(zip(("china", "flower"), load_sample_images().images, strict=True))


@pytest.fixture(scope="session")
def pieces():
    """128 views of two photographs, 32×32."""
    rng = np.random.default_rng(0)
    views = []
    for photograph in PHOTOGRAPHS.values():
        for size in rng.integers(100, 427, 64):
            top, left = rng.integers(0, 427 - size), rng.integers(0, 640 - size)
            view = Image.fromarray(photograph[top : top + size, left : left + size])
            views.append(np.asarray(view.resize((32, 32))))
    return np.stack(views)


def _export(pieces, out):
    """The export folder of our trained ResNet-8, with a crop as models of ImageNet have one."""
    return export(
        keras_resnet.ResNet8(weights="cifar10", include_preprocessing=True),
        ["web"],
        out=out,
        calibration=pieces,
        labels=NAMES,
        crop=CROP,
        input_type="int8",
        verbose=False,
    )


@pytest.fixture(scope="session")
def site(pieces, tmp_path_factory):
    """An export with small files in the place of LiteRT.js."""
    folder = tmp_path_factory.mktemp("exports")
    with small_litert_js(folder / "litert_js"):
        return _export(pieces, folder / "exports")


@pytest.fixture(scope="session")
def written(site):
    """The folder that the format writes; no browser runs this one."""
    return site.folder / "resnet8-web"


# Without a browser ------------------------------------------------------------------------------


def test_the_manifest_has_it_and_check_opens_its_model(site, written):
    (entry,) = site.manifest["files"]
    assert (entry["file"], entry["format"], entry["passed"]) == ("resnet8-web", "web", True)
    # Whatever --input-type says of the int8 file: LiteRT.js refuses int8 in and out.
    assert (entry["input_dtype"], entry["output_dtype"]) == ("uint8", "uint8")
    (again,) = check.check_folder(site.folder)
    assert again.passed
    assert (again.n, entry["n"]) == (64, 128)  # the folder keeps half of the images
    assert 0 < again.largest_error <= entry["largest_error"]


@pytest.mark.parametrize("name", ["model.tflite", "app.js", "litert/core.js"])
def test_a_changed_file_of_the_page_is_noticed(site, tmp_path, name):
    copy = shutil.copytree(site.folder, tmp_path / "copy")
    with (copy / "resnet8-web" / name).open("ab") as file:
        file.write(b" ")
    with pytest.raises(UserError, match="its sha256 differs"):
        check.check_folder(copy)


def test_the_page_is_told_of_the_model(written):
    about = json.loads((written / "model.json").read_text())
    runtime = open_file(written)
    scale, zero_point = runtime._output["quantization"]
    assert about["labels"] == list(NAMES)
    assert about["input"] == {"scale": 1.0, "zero_point": 0}  # a byte is its pixel
    assert about["output"] == {
        "scale": scale,
        "zero_point": zero_point,
        "activation": "softmax",
    }
    assert about["resize"] == {"width": 37, "height": 37, "interpolation": "bicubic"}
    assert len(about["bytes"]) == 3
    for name, size in about["bytes"].items():
        assert (written / name).stat().st_size == size


@pytest.mark.parametrize(
    ("crop", "shape", "width", "height", "interpolation"),
    [
        (None, (64, 96), 96, 64, "bilinear"),
        (SingleCrop(256, 224, "bicubic"), (64, 96), 110, 73, "bicubic"),  # 109.7, 73.1
        (SingleCrop(36), (32, 32), 36, 36, "bilinear"),
        (SingleCrop(5, 4), (2, 6), 8, 2, "bilinear"),  # 7.5 and 2.5, a half to even
    ],
)
def test_the_page_is_told_what_a_picture_is_resized_to(crop, shape, width, height, interpolation):
    expected = {"width": width, "height": height, "interpolation": interpolation}
    assert web._resize(shape, crop) == expected


def test_the_page_has_the_listed_files_of_litert_js_and_its_licence(written):
    there = {path.name for path in (written / "litert").iterdir()}
    assert there == {*(file.name for file in litert_js.files()), "SOURCES", "NOTICE", "LICENSE"}


def test_the_wheel_has_every_file_of_the_page():
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    patterns = settings["package-data"]["keras_resnet.export"]
    packed = {path for pattern in patterns for path in (ROOT / "export").glob(pattern)}
    assert {path for path in PAGE.rglob("*") if path.is_file()} <= packed


def test_the_page_loads_nothing_from_elsewhere():
    html = (PAGE / "index.html").read_text()
    loaded = re.findall(r'(?:src|href)="([^"]*)"', html)
    loaded += re.findall(r"url\(|@import", (PAGE / "style.css").read_text())
    for script in PAGE.glob("*.js"):
        text = script.read_text()
        loaded += re.findall(r'(?:from|import\(|fetched\(|download\()\s*"([^"]*)"', text)
    assert {"app.js", "boot.js", "style.css", "./litert/core.js", "model.json"} <= set(loaded)
    added = {"model.json", "model.tflite", *(f"./litert/{x.name}" for x in litert_js.files())}
    for name in set(loaded) - {"data:,"}:
        assert (PAGE / name).is_file() or name in added, name


def test_the_policy_of_the_page_knows_its_import_map():
    """Browsers run no inline script but the one of this hash; a space more and nothing loads."""
    html = (PAGE / "index.html").read_text()
    (inline,) = re.findall(r'<script type="importmap">(.*?)</script>', html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(inline.encode()).digest()).decode()
    policy = re.search(r'content="(default-src[^"]*)"', html)[1]
    assert f"'sha256-{digest}'" in policy
    assert policy.startswith("default-src 'none';")
    assert "connect-src 'self';" in policy


def test_a_model_that_takes_no_pixels_is_refused(tmp_path, small_litert_js):
    images = np.random.default_rng(0).uniform(0, 1, (32, 16, 20, 3)).astype("float32")
    with pytest.raises(UserError, match=r"takes RGB 0…255; received one that takes 0 to 1\. Put"):
        export(user_cnn(), ["web"], out=tmp_path / "out", calibration=images, verbose=False)
    assert not (tmp_path / "out").exists()


def test_classes_without_names_are_numbers(written, tmp_path, small_litert_js):
    service = serving.Service(True, None, Answers("softmax", 10))
    web.write(tmp_path / "web", (written / "model.tflite").read_bytes(), "mine", None, service)
    about = json.loads((tmp_path / "web" / "model.json").read_text())
    assert about["labels"] == [f"class {index}" for index in range(10)]
    assert about["resize"] == {"width": 32, "height": 32, "interpolation": "bilinear"}


@pytest.mark.skipif(shutil.which("node") is None, reason="needs node")
@pytest.mark.parametrize(
    ("activation", "outputs"),
    [
        ("sigmoid", [0.9]),
        ("linear", [-2.0]),
        ("sigmoid", [0.9, 0.8, 0.1]),
        ("linear", [3.0, -1.0, 0.0]),
        ("softmax", [0.7, 0.2, 0.1]),
    ],
)
def test_the_page_reads_outputs_as_python_does(tmp_path, activation, outputs):
    shutil.copy(PAGE / "answers.js", tmp_path / "answers.mjs")
    (tmp_path / "ask.mjs").write_text(
        'import { probabilitiesOf } from "./answers.mjs";\n'
        f'console.log(JSON.stringify(probabilitiesOf({outputs}, "{activation}")));\n'
    )
    asked = subprocess.run(["node", tmp_path / "ask.mjs"], capture_output=True, check=True)
    expected = Answers(activation, len(outputs)).probabilities(np.array([outputs]))
    np.testing.assert_allclose(json.loads(asked.stdout), expected[0])  # both in float64


def test_predict_runs_the_folder(written, photographs, capsys):
    assert main.main(["predict", str(written), str(photographs["china.png"]), "--json"]) == 0
    (result,) = json.loads(capsys.readouterr().out)["predictions"]
    assert result["top"][0]["label"] in NAMES


# In the browser ---------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def photographs(tmp_path_factory):
    """The same pictures in several forms: {file name: path}."""
    out = tmp_path_factory.mktemp("photographs")
    china, flower = (Image.fromarray(image) for image in PHOTOGRAPHS.values())
    china.save(out / "china.png")
    flower.save(out / "flower.jpg", quality=95)
    turned = Image.Exif()
    turned[0x0112] = 6  # the camera was held upright
    china.crop((0, 0, 639, 401)).save(out / "turned.jpg", quality=95, exif=turned)
    flower.resize((31, 47)).save(out / "small.png")
    flower.convert("L").save(out / "grey.png")
    flower.resize((32, 32)).save(out / "exact.png")
    flower.resize((5000, 4500)).save(out / "large.jpg", quality=90)
    (out / "text.txt").write_text("no picture")
    (out / "broken.jpg").write_bytes((out / "flower.jpg").read_bytes()[:300])
    return {path.name: path for path in out.iterdir()}


@pytest.fixture(scope="session")
def folder(pieces, tmp_path_factory, litert_js_or_skip):
    """The folder that the format writes, with the real LiteRT.js."""
    return _export(pieces, tmp_path_factory.mktemp("exports") / "exports").folder / "resnet8-web"


@pytest.fixture
def opened(folder, tmp_path):
    """The page, loaded. Afterwards: nothing but localhost was asked, and no error written."""
    with chromium.serving(folder) as url, chromium.page(tmp_path / "profile", *_CAMERA) as page:
        page.resize(1280, 800)
        page.goto(url)
        page.wait("#status", "Ready.")
        yield page
        foreign = [u for u in page.requests if not u.startswith((url, "data:", "blob:"))]
        assert foreign == []
        assert page.requests
        # LiteRT's own lines are "debug"; it warns that a machine without a GPU has no WebGPU.
        assert {kind for kind, _ in page.console} <= {"debug", "warning"}, page.console


_CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


@pytest.mark.slow
def test_the_same_pixels_give_pythons_probabilities(opened, folder, pieces):
    found = run_in(opened, pieces)
    runtime = open_file(folder)
    expected = runtime.probabilities(pieces)
    # Integer kernels, but XNNPACK's for WebAssembly may round a requantization the other way: one
    # step of the output, 1/256.
    np.testing.assert_allclose(found, expected, atol=runtime.output_step + 1e-7)
    assert (found.argmax(-1) == expected.argmax(-1)).mean() == 1


@pytest.mark.slow
@pytest.mark.parametrize("crop", [None, CROP, SingleCrop(256, 224, "bicubic"), SingleCrop(36, 32)])
def test_the_page_cuts_and_resizes_as_predict_does(opened, photographs, crop):
    for shape in ((32, 32, 3), (224, 224, 3), (64, 96, 3), (28, 28, 1)):
        height, width, channels = shape
        for name in ("china.png", "small.png", "grey.png", "exact.png"):
            found = fitted(opened, photographs[name], shape, crop)
            expected = read_image(photographs[name], (height, width), channels, crop)
            np.testing.assert_array_equal(found, expected, err_msg=f"{name}, {shape}")
        for name in ("flower.jpg", "turned.jpg"):  # the same libjpeg, but not the same version
            expected = read_image(photographs[name], (height, width), channels, crop).astype(int)
            found = fitted(opened, photographs[name], shape, crop)
            assert np.abs(found - expected).max() <= 2, (name, shape)


@pytest.mark.slow
def test_the_page_shows_what_the_models_crop_leaves(opened, photographs):
    for name, width, height in (
        ("china.png", 373, 370),  # 640×427 is resized to 55×37, of which 32×32 are left
        ("exact.png", 32, 32),  # it has been cut
    ):
        opened.choose(photographs[name])
        opened.wait("#status", "Most likely:")
        expected = read_image(photographs[name], (32, 32), crop=CROP)
        assert np.abs(seen(opened).astype(int) - expected).max() <= 1, (
            name
        )  # as in test_the_page_cuts_and_resizes_as_predict_does
        shown = opened.run("[document.querySelector('#shown')].map((c) => [c.width, c.height])[0]")
        assert shown == [width, height], name


@pytest.mark.slow
def test_a_very_large_picture_is_reduced_by_the_browser_first(opened, photographs):
    expected = read_image(photographs["large.jpg"], (224, 224)).astype(int)
    found = fitted(opened, photographs["large.jpg"], (224, 224, 3))
    # Two filters instead of one: a grey level on the mean, more along edges.
    assert np.abs(found - expected).mean() < 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["china.png", "flower.jpg", "turned.jpg"])
def test_a_photograph_gets_the_answer_of_keras_resnet_predict(
    opened, folder, photographs, capsys, name
):
    opened.choose(photographs[name])
    opened.wait("#status", "Most likely:")
    main.main(["predict", str(folder), str(photographs[name]), "--json"])
    (result,) = json.loads(capsys.readouterr().out)["predictions"]
    found, expected = answers(opened), result["top"]
    assert len(found) == len(expected) == 5
    assert found[0][0] == expected[0]["label"]
    if name.endswith(
        ".png"
    ):  # the same pixels, the same answers, up to which of equal ones is fifth
        least = expected[-1]["probability"]
        assert found[-1][1] == least
        assert {(n, p) for n, p in found if p > least} == {
            (e["label"], e["probability"]) for e in expected if e["probability"] > least
        }
    # Of a JPEG a pixel may be two grey levels apart, and one by one level has moved an answer by
    # six steps of 1/256; so the answers are compared on what the page saw. A step as above.
    (by_python,) = open_file(folder).probabilities(seen(opened)[None])
    for label, probability in found:
        assert abs(probability - by_python[NAMES.index(label)]) <= 1 / 256 + 1e-7
    assert re.match(
        r"\d+\.\d ms, median of \d runs, on one thread · 32 × 32", opened.text("#facts")
    )


@pytest.mark.slow
def test_cifar10_images_with_our_weights(opened, folder, tmp_path):
    test = cifar10_or_skip().test
    pixels = test.images[:200]
    runtime = open_file(folder)
    found, expected = run_in(opened, pixels), runtime.probabilities(pixels)
    np.testing.assert_allclose(found, expected, atol=runtime.output_step + 1e-7)
    assert (found.argmax(-1) == test.labels[:200]).mean() > 0.8  # of 89 %, calibrated elsewhere
    Image.fromarray(pixels[0]).save(tmp_path / "first.png")
    opened.choose(tmp_path / "first.png")
    opened.wait("#status", "Most likely:")
    assert answers(opened)[0][0] == NAMES[int(expected[0].argmax())]


@pytest.mark.slow
def test_a_float32_file_may_take_the_place_of_the_model(folder, pieces, tmp_path):
    model = keras_resnet.ResNet8(weights="cifar10", include_preprocessing=True)
    export(model, ["tflite-float32"], out=tmp_path / "float", check_images=pieces, verbose=False)
    copy = shutil.copytree(folder, tmp_path / "copy")
    shutil.copyfile(tmp_path / "float" / "resnet8-float32.tflite", copy / "model.tflite")
    with chromium.serving(copy) as url, chromium.page(tmp_path / "profile") as page:
        page.goto(url)
        page.wait("#status", "Ready.")
        found = run_in(page, pieces)
    # float32 kernels that sum in another order, through a softmax.
    expected = open_file(copy).probabilities(pieces)
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.slow
def test_browsers_without_relaxed_simd_run_the_other_build(folder, pieces, tmp_path):
    """As Safari; here its tests of short WebAssembly programs are made to fail."""
    hide = """const compile = WebAssembly.instantiate;
        WebAssembly.instantiate = (bytes, ...rest) => bytes.byteLength < 200
            ? Promise.reject(new WebAssembly.CompileError("hidden")) : compile(bytes, ...rest);"""
    with chromium.serving(folder) as url, chromium.page(tmp_path / "profile") as page:
        page.call("Page.addScriptToEvaluateOnNewDocument", source=hide)
        page.goto(url)
        page.wait("#status", "Ready.")
        assert f"{url}litert/litert_wasm_compat_internal.wasm" in page.requests
        found = run_in(page, pieces)
    runtime = open_file(folder)
    atol = runtime.output_step + 1e-7
    np.testing.assert_allclose(found, runtime.probabilities(pieces), atol=atol)


@pytest.mark.slow
def test_pictures_can_be_dropped_and_what_is_none_is_refused_by_name(opened, photographs):
    opened.drop(photographs["china.png"])
    opened.wait("#status", "Most likely:")
    for name in ("text.txt", "broken.jpg"):
        opened.drop(photographs[name])
        opened.wait("#status", f"“{name}” is not a picture that this browser can read.")
        assert answers(opened) == []
    opened.drop(photographs["flower.jpg"])  # and the page goes on
    opened.wait("#status", "Most likely:")
    assert len(answers(opened)) == 5


@pytest.mark.slow
def test_pictures_can_be_pasted(opened, photographs):
    opened.drop(photographs["china.png"])
    opened.wait("#status", "Most likely:")
    china = answers(opened)
    opened.drop(photographs["text.txt"])
    opened.wait("#status", "is not a picture")
    opened.paste(photographs["china.png"])
    opened.wait("#status", "Most likely:")
    assert answers(opened) == china  # the clipboard keeps a PNG's pixels


@pytest.mark.slow
def test_the_page_works_with_the_keyboard(opened):
    opened.press("Tab")
    assert opened.run("document.activeElement.id") == "choose"
    opened.press("Tab")
    assert opened.run("document.activeElement.id") == "camera"
    opened.press("Enter")
    opened.wait("#status", "The camera shows")
    opened.wait("#answers", "%")
    assert opened.run("document.activeElement.getAttribute('aria-pressed')") == "true"
    opened.press("Enter")
    opened.wait("#status", "The camera is off.")
    assert opened.run("document.querySelector('video').srcObject") is None


@pytest.mark.slow
def test_a_camera_that_is_denied_is_said(folder, tmp_path):
    flags = ("--use-fake-device-for-media-stream", "--deny-permission-prompts")
    with chromium.serving(folder) as url, chromium.page(tmp_path / "profile", *flags) as page:
        page.goto(url)
        page.wait("#status", "Ready.")
        page.run("document.querySelector('#camera').click()")
        page.wait("#status", "The browser does not allow the camera.")


@pytest.mark.slow
@pytest.mark.parametrize(
    ("missing", "said"),
    [
        ("model.tflite", "model.tflite is missing in the folder of this page (HTTP status 404)."),
        ("model.json", "model.json is missing in the folder of this page"),
        ("litert/litert_wasm_internal.wasm", "litert_wasm_internal.wasm is missing"),
        ("classifier.js", "A script of this page did not load."),
    ],
)
def test_what_is_missing_is_named(folder, tmp_path, missing, said):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / missing).unlink()
    with chromium.serving(copy) as url, chromium.page(tmp_path / "profile") as page:
        page.goto(url)
        page.wait("#status", said)
        assert page.run("document.querySelector('#choose').disabled")


@pytest.mark.slow
def test_a_model_that_litert_refuses_is_said(folder, tmp_path):
    copy = shutil.copytree(folder, tmp_path / "copy")
    (copy / "model.tflite").write_bytes(b"no model" * 100)
    with chromium.serving(copy) as url, chromium.page(tmp_path / "profile") as page:
        page.goto(url)
        page.wait("#status", "LiteRT.js cannot run model.tflite")


@pytest.mark.slow
def test_from_disk_and_without_webassembly_the_page_says_what_to_do(folder, tmp_path):
    with chromium.serving(folder) as url, chromium.page(tmp_path / "profile") as page:
        page.goto((folder / "index.html").as_uri())
        page.wait("#status", "run “python -m http.server”")
        script = "delete globalThis.WebAssembly"
        page.call("Page.addScriptToEvaluateOnNewDocument", source=script)
        page.goto(url)
        page.wait("#status", "The model needs WebAssembly, which is off or missing")


@pytest.mark.slow
@pytest.mark.parametrize(("width", "height", "touch"), [(390, 844, True), (1280, 800, False)])
def test_nothing_is_cut_off_at_either_width(opened, photographs, tmp_path, width, height, touch):
    """`pytest --basetemp FOLDER` keeps the pictures of it."""
    for dark in (False, True):
        opened.resize(width, height, dark=dark, touch=touch)
        opened.choose(photographs["flower.jpg"])
        opened.wait("#status", "Most likely:")
        opened.screenshot(tmp_path / f"{width}-{'dark' if dark else 'light'}.png")
    assert opened.run("document.documentElement.scrollWidth") == width
    first = opened.run("document.querySelector('#answers li').getBoundingClientRect().bottom")
    assert first < height  # the answer is seen without scrolling
    buttons = opened.run(
        "Array.from(document.querySelectorAll('button'), (b) => b.getBoundingClientRect().height)"
    )
    assert min(buttons) >= 44  # what a finger hits
