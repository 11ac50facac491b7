"""The folder explains itself: its card's examples run as they stand, its figures are true."""

import dataclasses
import importlib.resources
import json
import re

import jsonschema
import keras
import numpy as np
import pytest
from helpers import ROOT, run_python
from PIL import Image
from referencing import Registry
from referencing.jsonschema import DRAFT202012

import keras_resnet
from keras_resnet.export import check, export, manifest, model_card
from keras_resnet.export.formats.tflite import metadata
from keras_resnet.images.crop import SingleCrop
from keras_resnet.images.read import read_image
from keras_resnet.recipes.export import export_source
from keras_resnet.recipes.runs import sources
from keras_resnet.recipes.runs.folder import find_run

CROP = SingleCrop(37, 32, "bicubic")


@pytest.fixture(scope="module")
def folder(tiny_run, digits, tmp_path_factory):
    out = tmp_path_factory.mktemp("card") / "exports"
    formats = ("savedmodel", "tflite-float32", "tflite-int8")
    return export_source(sources.find(tiny_run.path), digits, formats, out).folder


def _examples(folder):
    return re.findall(r"```python\n(.*?)```", (folder / "README.md").read_text(), re.DOTALL)


def _answers(folder, picture):
    """What each kind of file says of a picture by its example."""
    prepare, *runs_it = _examples(folder)
    codes = [(prepare + example).replace("IMAGE", str(picture)) for example in runs_it]
    return [int(run_python(code, cwd=folder).stdout.split()[-1]) for code in codes]


def test_the_hub_reads_its_fields(folder):
    cards = pytest.importorskip("huggingface_hub", reason="needs huggingface_hub")
    found = cards.ModelCard((folder / "README.md").read_text()).data
    assert (found.library_name, found.pipeline_tag) == ("keras", "image-classification")
    assert found.tags == ["keras-resnet", "savedmodel", "tflite-float32", "tflite-int8"]
    assert found.datasets == ["digits"]
    files = manifest.read(folder)["files"]
    told = {result.metric_name: result.metric_value for result in found.eval_results}
    assert told == {file["file"]: file["accuracy"] for file in files}


@pytest.mark.parametrize(
    ("said", "fields"),
    [
        ("MIT", {"license": "mit"}),
        ("Jane's own: see\nbelow", {"license": "other", "license_name": "Jane's own: see\nbelow"}),
    ],
)
def test_a_licence_is_the_hubs_or_another(folder, said, fields):
    cards = pytest.importorskip("huggingface_hub", reason="needs huggingface_hub")
    content = manifest.read(folder)
    content["about"]["license"] = said
    found = cards.ModelCard(model_card.card(content)).data.to_dict()
    assert {key: found[key] for key in fields} == fields


def test_no_name_becomes_a_tag_or_a_link_in_its_fields(folder):
    content = manifest.read(folder)
    content["model"] = content["check"]["images"] = "<script>[link](x)`"
    fields = model_card.card(content).split("---")[1]
    assert not set("<>`") & set(fields)
    assert "](" not in fields
    cards = pytest.importorskip("huggingface_hub", reason="needs huggingface_hub")
    found = cards.ModelCard(model_card.card(content)).data
    assert (found.model_name, found.eval_results[0].dataset_name) == (content["model"],) * 2


def test_the_lines_for_phones_have_the_files_numbers_and_say_that_they_were_not_run(folder):
    text = (folder / "README.md").read_text()
    part = text.partition("## On a phone (Android, iOS): not run")[2]
    name = manifest.read(folder)["model"]
    assert f'loadMappedFile(context, "{name}-int8.tflite")' in part
    assert "ResizeWithCropOrPadOp(32, 32)" in part
    assert f'forResource: "{name}-int8"' in part
    assert "$0.offset % 4 < 3" in part
    assert not re.search(r"\$[a-z]", part)  # nothing is left to fill in


def test_its_examples_name_the_digit(folder, tiny_run, digits):
    picture = folder.parent / "digit.png"
    model = sources.find(tiny_run.path).keras_model()
    classes = model.predict(digits.test.images, verbose=0).argmax(-1)
    place = np.flatnonzero((digits.test.labels == 3) & (classes == 3))[0]
    Image.fromarray(digits.test.images[place]).save(picture)
    assert _answers(folder, picture) == [3, 3]  # one for each kind of file


@pytest.fixture(scope="module")
def photograph(tmp_path_factory):
    """An upright one of a camera held upright, losslessly: 90 by 140, patches and noise."""
    rng = np.random.default_rng(17)  # one by which the test with the crop can fail
    patches = rng.integers(0, 255, (3, 5, 3)).astype("uint8")
    pixels = np.asarray(Image.fromarray(patches).resize((140, 90)), "int16")
    pixels = np.clip(pixels + rng.integers(-20, 21, pixels.shape), 0, 255).astype("uint8")
    turned = Image.Exif()
    turned[0x0112] = 6
    path = tmp_path_factory.mktemp("photograph") / "turned.png"
    Image.fromarray(pixels).save(path, exif=turned)
    return path


def test_its_examples_answer_as_the_model_with_its_crop(images, photograph, tmp_path):
    model = keras_resnet.ResNet8(weights="cifar10", include_preprocessing=True)
    out, kinds = tmp_path / "out", ("savedmodel", "tflite-float32")
    about = metadata.About(author="A. Uthor", license="CC0-1.0")
    export(model, kinds, out=out, check_images=images, crop=CROP, about=about, verbose=False)
    cut, covering = (read_image(photograph, (32, 32), crop=crop) for crop in (CROP, None))
    squashed = np.asarray(Image.open(photograph).convert("RGB").resize((32, 32)))
    answers = model.predict(np.stack([cut, covering, squashed]), verbose=0).argmax(-1)
    expected = answers[0]
    assert expected not in answers[1:]
    assert _answers(out, photograph) == [expected, expected]
    text = (out / "README.md").read_text()
    assert "resized to just cover 37×37 pixels (bicubic, antialiased); then the centre" in text
    assert "## Where the model comes from\n\n- author: A. Uthor\n- license: CC0-1.0\n" in text


@pytest.mark.parametrize("crop", [None, CROP, SingleCrop(30, 24), SingleCrop(256, 224, "bicubic")])
@pytest.mark.parametrize("shape", [(32, 32, 3), (24, 40, 3), (28, 28, 1)])
def test_its_example_cuts_pictures_as_predict_does(folder, photograph, shape, crop):
    content = json.loads((folder / "manifest.json").read_text())
    cut = None if crop is None else dataclasses.asdict(crop)
    text = model_card.card(content | {"input": content["input"] | {"shape": shape, "crop": cut}})
    prepare = re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]
    found = {}
    exec(prepare.replace("IMAGE", str(photograph)), found)
    expected = read_image(photograph, shape[:2], shape[2], crop)
    np.testing.assert_array_equal(found["pixels"], expected[None])


def test_its_example_reads_16_bits_as_predict_does(folder, tmp_path):
    deep = np.linspace(0, 65535, 40 * 50).astype("uint16").reshape(40, 50)
    Image.fromarray(deep).save(tmp_path / "deep.png")
    content = json.loads((folder / "manifest.json").read_text())
    text = model_card.card(content | {"input": content["input"] | {"shape": (32, 32, 3)}})
    found = {}
    exec(
        re.findall(r"```python\n(.*?)```", text, re.DOTALL)[0]
        .replace("IMAGE", "deep.png")
        .replace('"deep.png"', repr(str(tmp_path / "deep.png"))),
        found,
    )
    expected = read_image(
        tmp_path / "deep.png",
        (32, 32),
        3,
        SingleCrop(**content["input"]["crop"]) if content["input"]["crop"] else None,
    )
    assert np.abs(found["pixels"][0].astype(int) - expected).max() <= 2  # as above


def test_the_lines_that_cut_pictures_for_mediapipe_cut_as_predict_does(photograph):
    """In export/README.md; a card has those of `test_its_example_cuts_pictures_as_predict_does`."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "export/README.md").read_text(), re.DOTALL)
    (lines,) = [block for block in blocks if "exif_transpose" in block]
    found = {}
    exec(lines.replace("cat.jpg", str(photograph)), found)
    cut, expected = np.asarray(found["image"], int), read_image(photograph, (32, 32))
    assert np.abs(cut - expected).max() <= 2  # as there
    squashed = Image.open(photograph).convert("RGB").resize((32, 32), Image.Resampling.BILINEAR)
    assert np.abs(np.asarray(squashed, int) - expected).max() > 20


def test_the_card_tells_how_mediapipe_is_given_a_picture(folder):
    text = (folder / "README.md").read_text()
    prepare = _examples(folder)[0]
    given = re.search(r"`mp\.Image\(.* data=(.*)\)`", text)[1]
    assert "MediaPipe's `ImageClassifier` squashes an image" in text
    digit = folder.parent / "wide.png"
    Image.fromarray(np.full((9, 30, 3), 77, "uint8")).save(digit)
    found = {}
    exec(prepare.replace("IMAGE", str(digit)), found)
    # An array of the input's size, which MediaPipe takes as it is.
    pixels = eval(given, found)
    assert (pixels.shape, pixels.dtype) == ((32, 32, 3), np.uint8)


def test_the_card_says_what_about_adds_to_the_origin(folder):
    content = json.loads((folder / "manifest.json").read_text())
    origin = {"licence of the weights": "MIT", "form of the network": None}
    about = {"description": "", "author": "", "license": "MIT", "version": "3"}
    text = model_card.card(content | {"origin": origin, "about": about})
    assert text.endswith("comes from\n\n- licence of the weights: MIT\n- version: 3\n")
    nothing = model_card.card(content | {"origin": {}, "about": None})
    assert "comes from" not in nothing


def test_the_card_of_a_failed_export_lists_what_failed_and_what_to_try(images, tmp_path):
    """Dark calibration images clip the ranges of the int8 file; the SavedModel has none."""
    model = keras_resnet.ResNet8(weights="cifar10", include_preprocessing=True)
    arguments = {"calibration": images // 64, "check_images": images, "verbose": False}
    report = export(model, ["savedmodel", "tflite-int8"], out=tmp_path / "out", **arguments)
    assert [item.passed for item in report.checks] == [True, False]
    text = (tmp_path / "out" / "README.md").read_text()
    assert "**Not every file passed**" in text
    (failure,) = manifest.failures(report.manifest)
    advice = check.advice(report.manifest["files"])
    places = [text.index(f"\n{line}\n") for line in (f"- {failure}", *advice)]
    assert len(places) == 7
    assert places == sorted(places)
    assert text.index("\n## What failed\n") < places[0]
    assert places[-1] < text.index("\n## Input and output\n")


def test_the_card_of_an_export_that_passed_has_no_list_of_failures(folder):
    text = (folder / "README.md").read_text()
    assert "Every file was compared with the Keras model and passed this check." in text
    assert "What failed" not in text


@pytest.mark.parametrize("input_type", ["int8", "uint8", "float32"])
def test_the_example_takes_every_type_of_input(resnet20, images, tmp_path, input_type):
    out = tmp_path / "exports"
    export(resnet20, ["tflite-int8"], out=out, calibration=images, input_type=input_type)
    picture = tmp_path / "picture.png"
    Image.fromarray(images[0]).save(picture)
    code = "".join(_examples(out)).replace("IMAGE", str(picture))
    answer = run_python(code.replace("```python", ""), cwd=out).stdout.split()[-1]
    assert int(answer) == resnet20.predict(images[:1], verbose=0).argmax()


def _schema():
    file = importlib.resources.files("keras_resnet.export").joinpath("manifest.schema.json")
    schema = json.loads(file.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    return schema


@pytest.mark.parametrize("part", ["numerics", "perf"])
def test_its_figures_are_what_the_schema_says(folder, part):
    content = json.loads((folder / f"{part}.json").read_text())
    whole = {"$id": "keras_resnet:manifest", **_schema()}
    registry = Registry().with_resource(whole["$id"], DRAFT202012.create_resource(whole))
    validator = jsonschema.Draft202012Validator(
        {"$ref": f"{whole['$id']}#/$defs/{part}"}, registry=registry
    )
    validator.validate(content)
    assert not validator.is_valid(content | {"files": {"a.tflite": {"format": "tflite-int8"}}})


def test_the_manifest_is_what_its_schema_says(folder):
    content = json.loads((folder / "manifest.json").read_text())
    validator = jsonschema.Draft202012Validator(_schema())
    validator.validate(content)
    assert content["schema"] == manifest.SCHEMA
    for damage in ({"schema": 2}, {"created": None}, {"unheard_of": 1}, {"files": [{}]}):
        assert not validator.is_valid(content | damage)


def test_a_manifest_without_rewrites_is_what_its_schema_says(tmp_path):
    """The SavedModel is written from the model as it is."""
    model = keras_resnet.create_model("test_resnet", include_preprocessing=True)
    out = export(model, ["savedmodel"], out=tmp_path / "out", verbose=False).folder
    content = json.loads((out / "manifest.json").read_text())
    jsonschema.Draft202012Validator(_schema()).validate(content)
    assert content["rewrites"]["batch_norm_to_depthwise"] == []


def test_the_card_tells_of_what_is_no_python(folder):
    content = json.loads((folder / "manifest.json").read_text())
    (tflite, *_) = [x for x in content["files"] if x["format"] == "tflite-float32"]
    assert f"`python classify.py {tflite['file']} IMAGE`" in (folder / "README.md").read_text()
    for kind in ("micro", "web"):
        only = {**content, "files": [{**tflite, "file": f"a-{kind}", "format": kind}]}
        text = model_card.card(only)
        assert "```python" not in text
        assert f"`a-{kind}` is" in text


def test_the_card_says_where_the_model_comes_from(folder, tiny_run):
    text, test = (folder / "README.md").read_text(), find_run(tiny_run.path).summary()["test"]
    assert "## Where the model comes from" in text
    assert f"measured accuracy: {test['accuracy']:.2%} of 360 test images" in text
    assert "trained on: digits" in text
    assert "licence of the weights: not stated" in text
    origin = sources.find("resnet20", "cifar10").origin()
    assert origin["licence of the weights"] == "Apache-2.0"
    assert origin["measured accuracy"].startswith("92.77 %")
    assert sources.find("resnet50", "imagenet").origin()["published accuracy"].startswith("7")


def test_numerics_and_performance_are_the_manifests(folder):
    content, numerics, performance = (
        json.loads((folder / name).read_text())
        for name in ("manifest.json", "numerics.json", "perf.json")
    )
    for item in content["files"]:
        assert numerics["files"][item["file"]]["agreement"] == item["agreement"]
        assert performance["files"][item["file"]]["latency_ms"] == item["latency_ms"]
        assert 0 < item["bytes_gzipped"] < item["bytes"]
    assert performance["machine"] == content["machine"]
    assert numerics["n"] == content["check"]["n"] == 360


def test_a_model_without_its_normalisation_has_no_example(images, tmp_path):
    keras.utils.set_random_seed(0)
    model = keras_resnet.create_model("resnet20")
    calibration = images.astype("float32") / 128 - 1
    export(model, ["tflite-int8"], out=tmp_path / "exports", calibration=calibration)
    text = (tmp_path / "exports" / "README.md").read_text()
    assert "**the normalisation is not inside the files**" in text
    assert "```python" not in text
