"""The commands that the pages show run, as they stand there.

On the first images of CIFAR-10 and, where something is trained, for one epoch. What a page calls
`RUN`, `FOLDER` or `cat.jpg` lies under this name where its commands run. What would download says
what to put where: there is no network. The tutorial is walked in test_docs.py, several machines are
in test_workers.py.
"""

import json
import re
import shlex
import shutil
from pathlib import Path

import pytest
import tensorflow as tf
import tensorflow_datasets as tfds
from helpers import ROOT, cifar10_or_skip, run_python
from helpers.pages import commands
from PIL import Image
from sklearn.datasets import load_digits, load_sample_image

PAGES = [
    "README.md",
    "recipes/README.md",
    "export/README.md",
    "docs/account.md",
    "docs/explain.md",
    "docs/weights.md",
]
IMAGES = {"train": (50_000, 700), "test": (10_000, 300)}  # all, and those of the extract
TRAINING = ("train", "finetune", "qat", "prune", "prune-filters", "cluster", "distill")
FOR_WORDS = {"CONFIG": "cifar10/resnet20_fast", "NAME": "cifar10"}
# Lines that need what a test has not.
NOT_RUN = {
    "train --list": "test_cli.py runs it",
    "weights import": "files of other people; test_importing.py runs it",
    "evaluate FILE --data imagenet2012": "needs ImageNet",
    "push": "needs the Hub; test_push.py runs it",
    "predict hf://": "needs the Hub; test_push.py runs it",
    "check FILE.": "files of other programs; test_any_file.py runs it",
    "finetune resnet20 --weights cifar10 --data FOLDER/labels.csv": "see test_several_labels.py",
    "evaluate RUN --scales": "nine minutes; test_evaluation.py runs it at small scales",
}
ALSO_CALLED = {
    "FILE": "../model.keras",
    "FLOAT.tflite": "resnet20-float32.tflite",
    "QUANTIZED.tflite": "resnet20-int8.tflite",
    "MINE.tflite": "resnet20-int8.tflite",
    "OTHER.onnx": "resnet20.onnx",
}
DOWNLOADS = (
    "weights fetch resnet50",
    "predict resnet50 --weights imagenet",
    "export resnet50 --weights imagenet",
    "evaluate resnet50v1_5 --weights imagenet",
)
# The photographs here are digits, for which a network of CIFAR-10 was not calibrated: whether the
# int8 files differ too much from it is chance.
MAY_DIFFER = "check EXPORTS --against RUN --data FOLDER"

RUN_ALL = """
import contextlib, glob, io, json, os, sys, time
from keras_resnet.cli.main import main
newest = lambda word: max(glob.glob(word.replace("…", "*")), key=os.path.getmtime)
failed = []
for words, codes in json.loads(sys.argv[1]):
    words = [newest(word) if "…" in word else word for word in words]
    if words[:2] == ["train", "--resume"]:  # what is finished is not gone on with
        for name in ("model.keras", "summary.json"):
            os.remove(os.path.join(words[2], name))
    began, said = time.monotonic(), io.StringIO()
    with contextlib.redirect_stderr(said):
        code = main(words)
    line = "keras-resnet " + " ".join(words)
    print(f"{time.monotonic() - began:4.0f} s, exit code {code}: {line}")
    if code not in codes or (codes == [2] and "https://" not in said.getvalue()):
        failed.append(f"{line}\\n{said.getvalue()[-1000:]}")
sys.exit("\\n".join(failed) or 0)
"""


def _extract(source, target):
    """The first images of a prepared CIFAR-10, as a dataset of its name."""
    target.mkdir(parents=True)
    for name in ("features.json", "label.labels.txt"):
        shutil.copyfile(source / name, target / name)
    info = (source / "dataset_info.json").read_text(encoding="utf-8")
    for split, (whole, count) in IMAGES.items():
        name = f"cifar10-{split}.tfrecord-00000-of-00001"
        with tf.io.TFRecordWriter(str(target / name)) as writer:
            for record in tf.data.TFRecordDataset(str(source / name)).take(count):
                writer.write(record.numpy())
        info = info.replace(f'"{whole}"', f'"{count}"')
    (target / "dataset_info.json").write_text(info, encoding="utf-8")


def _photographs(folder):
    for names, sample in (
        (("cat.jpg", "photo.jpg"), "china.jpg"),
        (("dog.jpg", "dog.png"), "flower.jpg"),
    ):
        for name in names:
            Image.fromarray(load_sample_image(sample)).save(folder / name)
    digits = load_digits()
    for number, (image, label) in enumerate(zip(digits.images, digits.target, strict=True)):
        path = folder / "FOLDER" / f"digit_{label}" / f"{number:04d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray((image * 15.9).astype("uint8")).resize((32, 32)).convert("RGB").save(path)


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """(folder with all that the pages name, environment)"""
    cifar10_or_skip()
    folder = tmp_path_factory.mktemp("place")
    source = Path(tfds.builder("cifar10").data_path)
    _extract(source, folder / "datasets" / "cifar10" / source.name)
    _photographs(folder)
    environment = {"TFDS_DATA_DIR": str(folder / "datasets"), "KERAS_RESNET_OFFLINE": "1"}
    made = [
        "finetune resnet20 --weights cifar10 --data cifar10 --epochs 1 --out RUN",
        "export RUN --formats savedmodel,tflite-float32,tflite-int8,onnx,onnx-int8",
    ]
    _run(map(shlex.split, made), folder, environment)
    exports = folder / "RUN" / "exports"
    for name in ("RUN1", "RUN2", "run", "runs/finetune-resnet20-earlier"):
        shutil.copytree(folder / "RUN", folder / name)
    shutil.copytree(exports, folder / "EXPORTS")
    for name, file in ALSO_CALLED.items():
        shutil.copyfile(exports / file, folder / name)
    return folder, environment


def _run(lines, folder, environment):
    """Run command lines in one process, as a shell would one after another."""
    code = json.dumps([(words, _exit_codes(words)) for words in lines])
    print(run_python(RUN_ALL, code, cwd=folder, env=environment, timeout=1800).stdout)


def _exit_codes(words):
    line = " ".join(words)
    if line == MAY_DIFFER:
        return [0, 1]
    return [2] if line.startswith(DOWNLOADS) else [0]


def _sections():
    """(page, heading, text) of every section with commands to run; each is a test of its own."""
    for page in PAGES:
        first, *others = (ROOT / page).read_text(encoding="utf-8").split("\n## ")
        for section in (f"\n{first}", *others):
            heading, _, text = section.partition("\n")
            if any(_lines(text)):
                yield pytest.param(text, id=f"{page}-{heading or 'beginning'}")


def _lines(text):
    """The words after every `keras-resnet` of a page's part, ready to run."""
    for body in re.findall(r"```bash\n(.*?)```", text, re.DOTALL):
        for program, *words in commands(body):
            line = " ".join(words)
            if program == "keras-resnet" and not line.startswith(tuple(NOT_RUN)):
                yield [*map(_meant, words), *_added(words)]


def _meant(word):
    return FOR_WORDS.get(word, word.replace("NAME-", "resnet20-"))


def _added(words):
    """So that it takes seconds, and several pages may write to the same folder."""
    if words[0] == "export":
        return ["--out", "exported", "--overwrite"]
    if words[0] not in TRAINING or "--resume" in words:
        return []
    # finetune holds out a share, the others 5,000 images
    validation = [] if words[0] == "finetune" else ["--set", "data.validation=100"]
    return ["--epochs", "1", *validation]


@pytest.mark.slow
@pytest.mark.parametrize("text", _sections())
def test_the_commands_run(text, place, request):
    folder, environment = place
    if any("web" in words for words in _lines(text)):  # into the cache, where it is found offline
        request.getfixturevalue("litert_js_or_skip")
    _run(list(_lines(text)), folder, environment)
