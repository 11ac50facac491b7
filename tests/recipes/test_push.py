"""`push` and `from_hub`, against a server that answers as the Hugging Face Hub does."""

import json
import shutil

import numpy as np
import pytest
from helpers import run_python
from helpers.hub_server import Repository, hub_server
from PIL import Image

from keras_resnet.cli.main import main
from keras_resnet.models.load import load_keras

huggingface_hub = pytest.importorskip("huggingface_hub", reason="needs huggingface_hub")

REPO = "someone/tiny"
# Commands one after another in one process: exit code, stdout, stderr of each.
RUN_ALL = """
import contextlib, io, json, sys
from keras_resnet.cli.main import main
for words in json.loads(sys.argv[1]):
    said = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(said[0]), contextlib.redirect_stderr(said[1]):
        code = main(words)
    print(json.dumps([code, *(text.getvalue() for text in said)]))
"""
LOAD = """
import json, sys
import numpy as np
import keras_resnet
model = keras_resnet.from_hub(sys.argv[1], *sys.argv[2:3])
pixels = np.random.default_rng(0).integers(0, 256, (2, *model.input_shape[1:])).astype("float32")
print(json.dumps([np.asarray(model(pixels)).tolist(), keras_resnet.labels.classes_of(model)]))
"""


@pytest.fixture(scope="module")
def run(tiny_run, tmp_path_factory):
    folder = tmp_path_factory.mktemp("push") / "run"
    shutil.copytree(tiny_run.path, folder)
    assert main(["export", str(folder), "--formats", "tflite-float32,savedmodel"]) == 0
    return folder


def _environment(endpoint, home, **more):
    return {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", **more}


def _said(lines, environment):
    done = run_python(RUN_ALL, json.dumps([[*map(str, line)] for line in lines]), env=environment)
    return [json.loads(line) for line in done.stdout.splitlines()]


def test_what_is_pushed_comes_back(run, tmp_path):
    image = tmp_path / "image.png"
    Image.fromarray(np.zeros((40, 40, 3), "uint8")).save(image)
    (file,) = (path.name for path in (run / "exports").glob("*.tflite"))
    lines = [
        ["push", run, f"hf://{REPO}", "--private", "--json"],
        ["push", run / "exports", f"hf://{REPO}", "--json"],
        ["predict", f"hf://{REPO}", image, "--json"],
        ["predict", f"hf://{REPO}:{file}", image, "--json"],
        ["predict", run, image, "--json"],
    ]
    (run / "exports" / "private.txt").write_text("not of the export")
    repositories = {}
    with hub_server(repositories) as (endpoint, _):
        environment = _environment(endpoint, tmp_path)
        pushed, again, keras, lite, local = _said(lines, environment)
        loaded = run_python(LOAD, REPO, env=environment).stdout
    assert [line[0] for line in (pushed, again, keras, lite, local)] == [0] * 5, pushed
    files, commit = repositories[REPO].files, repositories[REPO].commit
    # An unchanged export is no new commit.
    assert [json.loads(x[1])["address"] for x in (pushed, again)] == [f"hf://{REPO}@{commit}"] * 2
    assert {"model.keras", "manifest.json", "labels.txt", "saved_model/1/saved_model.pb"} < {*files}
    assert not {"reference.npz", "private.txt"} & {*files}  # the check's images, and other files
    assert repositories[REPO].private
    card = huggingface_hub.ModelCard(files["README.md"].decode())
    assert card.data.library_name == "keras"
    assert f'from_hub("{REPO}")' in card.text
    answers = [json.loads(x[1])["predictions"][0]["top"] for x in (keras, lite, local)]
    assert answers[0] == answers[2]
    # LiteRT adds in another order than TensorFlow: 1e-5 of a probability.
    assert answers[1][0]["probability"] == pytest.approx(answers[2][0]["probability"], abs=1e-5)
    offline = _environment("http://127.0.0.1:9", tmp_path, KERAS_RESNET_OFFLINE="1")
    assert run_python(LOAD, REPO, commit, env=offline).stdout == loaded
    outputs, classes = json.loads(loaded)
    model = load_keras(run / "model.keras")
    pixels = np.random.default_rng(0).integers(0, 256, (2, *model.input_shape[1:]))
    np.testing.assert_array_equal(outputs, model(pixels.astype("float32")))  # the same file
    assert [name for _, name in classes] == (run / "labels.txt").read_text().splitlines()


def test_each_refusal_is_a_sentence_and_nothing_is_uploaded(run, tmp_path):
    changed, broken, bare, failed, cardless = (tmp_path / name for name in "abcde")
    for folder in (changed, broken, bare, failed, cardless):
        shutil.copytree(run, folder)
    next((changed / "exports").glob("*.tflite")).write_bytes(b"other")
    card = broken / "exports" / "README.md"
    card.write_text(card.read_text().replace("library_name:", "library_name: [", 1))
    shutil.rmtree(bare / "exports")
    (cardless / "exports" / "README.md").unlink()
    listed = failed / "exports" / "manifest.json"
    listed.write_text(listed.read_text().replace('"passed": true', '"passed": false'))
    lines = {
        ("push", changed, "hf://me/new"): "not the file that was exported",
        ("push", broken, "hf://me/new"): "metadata in README.md",
        ("push", bare, "hf://me/new"): "keras-resnet export RUN",
        ("push", failed, "hf://me/new"): "nothing is uploaded",
        ("push", run, "hf://me"): "must be hf://USER/NAME",
        ("push", run, "hf://me/new:x.bin"): "address of a repository",
        ("push", run, "hf://me/private"): "hf auth login",
        ("push", run, "hf://me/full"): "507",
        ("push", cardless, "hf://me/new"): "README.md",
        ("push", run, "hf://me/public", "--private"): "exists and is public",
        ("push", run, "hf://me/new@v9"): "hf auth login",
        ("predict", "hf://me/damaged", "x.png"): "is damaged",
        ("predict", "hf://timm/other", "x.png"): "keras-resnet push did not write it",
        ("predict", "hf://me/none", "x.png"): "no model me/none",
    }
    repositories = {
        "me/private": Repository(refusal="private"),
        "me/full": Repository(refusal="full"),
        "me/public": Repository({"notes.txt": b"mine"}),
        "me/damaged": Repository({"manifest.json": b"{} "}, damaged=True),
        "timm/other": Repository({"config.json": b"{}"}),
    }
    gone = {
        "1": "KERAS_RESNET_OFFLINE is set",
        "": "cannot be used for hf://me/new",
    }
    with hub_server(repositories) as (endpoint, _):
        found = _said(lines, _environment(endpoint, tmp_path))
    for (line, words), (code, _, stderr) in zip(lines.items(), found, strict=True):
        assert (code, words in stderr) == (2, True), (line, code, stderr)
        assert len(stderr.splitlines()) <= 3, stderr
    assert not repositories.get("me/new", Repository()).files
    assert repositories["me/public"].files == {"notes.txt": b"mine"}
    for offline, words in gone.items():
        environment = _environment("http://127.0.0.1:9", tmp_path, KERAS_RESNET_OFFLINE=offline)
        ((code, _, stderr),) = _said([("push", run, "hf://me/new")], environment)
        assert (code, words in stderr) == (2, True), stderr


def test_a_push_takes_the_place_of_an_earlier_one(run, tmp_path):
    """The earlier one is of another model. Its files must not stay beside the new manifest."""
    alone = tmp_path / "alone"
    shutil.copytree(run / "exports", alone)
    repositories = {REPO: Repository({".gitattributes": b"x", "model.keras": b"of another\0"})}
    with hub_server(repositories) as (endpoint, _):
        ((code, _, stderr),) = _said(
            [("push", alone, f"hf://{REPO}")], _environment(endpoint, tmp_path)
        )
    assert code == 0, stderr
    assert "model.keras" not in repositories[REPO].files
    assert ".gitattributes" in repositories[REPO].files
