"""Weights of the Hugging Face Hub, downloaded by its own library from a server that answers so."""

import json

import numpy as np
import pytest
from helpers import foreign_files, run_python
from helpers.hub_server import Repository, hub_server

import keras_resnet
from keras_resnet.errors import UserError
from keras_resnet.weights import hub
from keras_resnet.weights.fitting import fit
from keras_resnet.weights.foreign.read import read

pytest.importorskip("huggingface_hub", reason="needs huggingface_hub")

NAME, REPO = "resnet18d", "timm/resnet18d.ra2_in1k"
CONFIG = {
    "architecture": NAME,
    "num_classes": 16,
    "pretrained_cfg": {
        "input_size": [3, 224, 224],
        "test_input_size": [3, 288, 288],
        "test_crop_pct": 0.95,
        "interpolation": "bicubic",
        "mean": [0.5, 0.5, 0.5],
        "std": [0.5, 0.5, 0.5],
    },
}
# Build the network with the weights of each address; tell what came of it.
BUILD = """
import json, sys
import numpy as np
import keras_resnet
from keras_resnet.weights import hub
given = {"include_preprocessing": True, "input_shape": (64, 64, 3)}
pixels = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3)).astype("float32")
found = []
for address in json.loads(sys.argv[1]):
    try:
        model = keras_resnet.create_model("resnet18d", weights=address, **given)
        crop = hub.fetch(address, "resnet18d").crop  # from the cache
        found.append({"answer": model(pixels).numpy().tolist(), "crop": [crop.resize, crop.size]})
    except keras_resnet.UserError as error:
        found.append({"error": str(error)})
if len(sys.argv) > 2:
    from keras_resnet.importing.files import import_file
    report = import_file(address, "resnet18d", sys.argv[2], parity=False)
    found.append({"imported": [report.preprocessing, report.classes, report.assumed]})
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """A file as timm writes it, with true names and shapes."""
    return foreign_files.peer_file(tmp_path_factory.mktemp("peer") / "model.safetensors", NAME)


def _built(addresses, endpoint, home, *out, **more):
    environment = {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1", **more}
    done = run_python(BUILD, json.dumps(addresses), *out, env=environment)
    return json.loads(done.stdout.splitlines()[-1])


def _expected(weights):
    """The answer of the same file, read from disk, with the preprocessing of CONFIG."""
    given = {"include_preprocessing": True, "preprocessing": "tf", "input_shape": (64, 64, 3)}
    model = keras_resnet.create_model(NAME, weights=None, classes=16, **given)
    fit(read(weights, NAME).arrays(model), model, "the file")
    pixels = np.random.default_rng(0).integers(0, 256, (1, 64, 64, 3)).astype("float32")
    return model(pixels).numpy()


def test_weights_come_with_their_preprocessing_and_crop_and_stay_in_the_cache(weights, tmp_path):
    files = {"model.safetensors": weights.read_bytes(), "config.json": json.dumps(CONFIG).encode()}
    pinned = f"hf://{REPO}@{'1' * 40}"
    with hub_server({REPO: Repository(files)}) as (endpoint, asked):
        newest, at_commit = _built([f"hf://{REPO}", pinned], endpoint, tmp_path)
        downloads = [line for line in asked if line.startswith("GET") and "safetensors" in line]
    # The same arrays in the same network: no rounding between the two.
    np.testing.assert_array_equal(newest["answer"], _expected(weights))
    assert newest == at_commit
    assert newest["crop"] == [303, 288]
    assert len(downloads) == 1
    file = tmp_path / "out.weights.h5"
    offline, report = _built([pinned], endpoint, tmp_path, file, KERAS_RESNET_OFFLINE="1")
    assert offline == newest
    assert report == {"imported": ["tf", 16, False]}
    assert file.is_file()


def test_each_refusal_is_a_sentence(weights, tmp_path):
    right = json.dumps(CONFIG).encode()
    odd = json.dumps({"pretrained_cfg": {"mean": [0.1], "std": "x"}}).encode()
    data = weights.read_bytes()
    repositories = {
        "timm/damaged": Repository({"model.safetensors": data, "config.json": right}, damaged=True),
        "timm/gated": Repository(refusal="gated"),
        "timm/good": Repository({"model.safetensors": data, "config.json": right}),
        "other/library": Repository({"model.safetensors": data}),
        "timm/odd": Repository({"model.safetensors": data, "config.json": odd}),
        "timm/empty": Repository({"config.json": right}),
    }
    expected = {
        "hf://timm/damaged": "is damaged",
        "hf://timm/gated": "accept its terms",
        "hf://timm/none": "no model timm/none, or it is private",
        "hf://timm/good@v9": "no revision v9",
        "hf://timm/good:x.bin": "no file x.bin",
        "hf://other/library": "no model of timm",
        "hf://timm/odd": "normalises by mean",
        "hf://timm/empty": "no file pytorch_model.bin",
        "hf://timm": "must be hf://USER/NAME",
    }
    with hub_server(repositories) as (endpoint, _):
        found = _built(list(expected), endpoint, tmp_path)
    for (address, words), said in zip(expected.items(), found, strict=True):
        assert words in said["error"], (address, said)
    # Offline, as huggingface_hub would try for half a minute to reach a server that is gone.
    (said,) = _built(["hf://timm/never"], endpoint, tmp_path, KERAS_RESNET_OFFLINE="1")
    assert "cannot be reached" in said["error"]


@pytest.mark.parametrize("address", ["hf://", "hf://x", "hf://a/b/c", "hf://a/b@", "hf://a/../b"])
def test_an_address_of_another_form_is_refused(address):
    with pytest.raises(UserError, match="must be hf://USER/NAME"):
        hub.Address.parse(address)


def test_an_address_reads_as_it_is_written():
    for text in ("hf://a/b", "hf://a/b@main", "hf://a/b:x/y.bin", "hf://a/b@refs/pr/1:x.bin"):
        assert str(hub.Address.parse(text)) == text
