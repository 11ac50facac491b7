"""Convert a foreign weights file to ours, and compare the result with the original network."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import keras
import numpy as np

from keras_resnet import registry
from keras_resnet.errors import UserError
from keras_resnet.files import expanded, replacing, require_file_target
from keras_resnet.images.labels import class_names
from keras_resnet.images.preprocessing import mode_inside, require_mode
from keras_resnet.importing.parity import TORCH_PEERS, Parity, compare, difference, patched_images
from keras_resnet.models.build import FREE_OPTIONS, with_options
from keras_resnet.models.load import load_keras
from keras_resnet.weights import catalog, hub
from keras_resnet.weights.fitting import Note, arrays_of, fit
from keras_resnet.weights.foreign.read import contents, read
from keras_resnet.weights.loading import SUFFIX

_LEAST_SIZE = 64  # pixels; small, so fast: the last map of an ImageNet network is 2×2
# Relative to the largest logit. Between two float32 networks the difference is at most 1e-5 over
# 200 layers. A stride in the wrong convolution gives more than 1e-2.
TOLERANCE = 1e-4


@dataclass(frozen=True)
class ImportReport:
    """The result of `import_file`."""

    model: str  # registry name
    source: Path
    library: str  # "PyTorch", "Keras Applications", "MLPerf Tiny" or "keras_resnet"
    path: Path  # the new file
    sha256: str  # of the new file
    classes: int
    parameters: int  # trainable or not, without auxiliary classifiers
    options: Mapping[str, Any]  # changed fields of the network
    preprocessing: str  # preprocessing used in training
    assumed: bool  # True if the preprocessing is a guess
    parity: Parity

    def to_dict(self) -> dict[str, Any]:
        """Return the content for `--json`."""
        return {**asdict(self), "source": str(self.source), "path": str(self.path)}

    def __str__(self) -> str:
        """Return the text for people. Its last line builds the network."""
        guess = " (assumed; change it with --preprocessing MODE)" if self.assumed else ""
        lines = (
            ("model", f"{self.model}, {self.classes} classes, {self.parameters:,} parameters"),
            ("from", f"{self.source} ({self.library})"),
            ("file", str(self.path)),
            ("sha256", self.sha256),
            ("pixels", f"preprocessing '{self.preprocessing}'{guess}"),
            ("parity", str(self.parity)),
        )
        call = f'"{self.model}", weights="{self.path}"'
        if self.classes != registry.architecture(self.model).network.classes:
            call += f", classes={self.classes}"
        if self.options:
            call += f", {_shown(self.options)}"
        table = "\n".join(f"{key:7} {text}" for key, text in lines)
        return f"{table}\n\nkeras_resnet.create_model({call})"


def import_file(
    path: str | Path,
    name: str,
    out: str | Path | None = None,
    parity: bool = True,
    overwrite: bool = False,
    preprocessing: str | None = None,
    data: str | None = None,
    options: Mapping[str, Any] = MappingProxyType({}),
    state_dict: str | None = None,
) -> ImportReport:
    """Convert a foreign weights file to a `.weights.h5` file for network `name`.

    Auxiliary classifiers are left out, because they are for training only. The new file fits the
    network without them.

    Args:
        path: a file as for `weights.foreign.read.read`, or an address of the Hugging Face Hub.
        name: registry name.
        out: the new file. The default is `NAME.weights.h5` in the current folder.
        parity: True runs the original network, if its library is installed, and compares.
        overwrite: True replaces an existing file.
        preprocessing: preprocessing used in training (a key of `PREPROCESSING`). The new file
            records it. The default is that of the library's published weights for this network.
        data: training data ("cifar10"), for the class names.
        options: changed fields of the network, e.g. {"depths": (6, 6, 6)} for "resnet20", for
            networks that are not registered.
        state_dict: selects one of several state dicts in a PyTorch checkpoint, e.g. "model_ema".

    Raises:
        UserError: as for `weights.foreign.read.read`; or the new file exists or has another suffix;
            or the logits differ by more than `TOLERANCE`. Nothing was written.
    """
    name = registry.find(name).name
    if str(path).startswith(hub.SCHEME):
        published = hub.fetch(str(path), name)
        path, preprocessing = published.path, preprocessing or published.note.preprocessing
        data = data or published.note.data
    path, out = expanded(path), expanded(out or f"{name}{SUFFIX}")
    found = contents(path, name, state_dict)
    likely, assumed = _preprocessing(name, found.library)
    mode, assumed = preprocessing or likely, assumed and preprocessing is None
    require_mode(mode)
    if found.classes is None:
        raise UserError(f"{path} has no classifier. Use it as weights= with include_top=False.")
    if data is not None and len(class_names(data)) != found.classes:
        raise UserError(
            f"'{data}' has {len(class_names(data))} classes, but {path} has {found.classes}."
        )
    _require_writable(out, overwrite)
    model, size = _network(name, found.classes, options)
    foreign = read(path, name, state_dict)
    fit(foreign.arrays(model), model, f"the weights in {path}")
    compared = Parity(note="not requested")
    if parity and (changed := _changed(name, options)):
        compared = Parity(note=f"no library has '{name}' with {_shown(changed)}")
    elif parity:
        compared = compare(foreign, model, name, size)
    note = Note(name, mode, data, _changed(name, options))
    return _written(model, note, path, found.library, out, compared, assumed)


def import_run(
    folder: str | Path, name: str, out: str | Path | None = None, overwrite: bool = False
) -> ImportReport:
    """Convert the model of a finished run of network `name` to a `.weights.h5` file.

    Raises:
        UserError: the run is not finished, it is of another network, or the new file exists.
    """
    name = registry.find(name).name
    folder, out = expanded(folder), expanded(out or f"{name}{SUFFIX}")
    file = folder / "model.keras"
    if not file.is_file():
        raise UserError(f"{folder} is no finished run: it has no model.keras.")
    _require_writable(out, overwrite)
    theirs = load_keras(file)
    preprocessing = mode_inside(theirs)
    if preprocessing is None:
        raise UserError(
            f"{file} normalises its input in an unknown way, which a .weights.h5 cannot record."
        )
    ours = registry.create_model(
        name,
        weights=None,
        classes=theirs.output_shape[-1],
        input_shape=theirs.input_shape[1:],
        include_preprocessing=True,
        preprocessing=preprocessing,
    )
    fit(arrays_of(theirs), ours, f"the weights of {folder}")
    images = patched_images(theirs.input_shape[1] or registry.architecture(name).network.input_size)
    answers = [_logits(model, images) for model in (theirs, ours)]
    compared = difference(f"the run's {file.name}", *answers)
    return _written(ours, Note(name, preprocessing), folder, "keras_resnet", out, compared)


def _logits(model: keras.Model, images: np.ndarray) -> np.ndarray:
    """Return the logits. A softmax would hide differences where it is close to 0 or 1."""
    head = keras.Model(model.input, model.get_layer("head").output)
    return np.asarray(head(images[..., : model.input_shape[-1]], training=False))


def _written(
    model: keras.Model,
    note: Note,
    source: Path,
    library: str,
    out: Path,
    parity: Parity,
    assumed: bool = False,
) -> ImportReport:
    """Save the weights, unless the original network gives other logits."""
    if parity.difference is not None and not parity.difference <= TOLERANCE:
        raise UserError(
            f"{source}: the logits of '{note.network}' differ from {parity.peer} by "
            f"{parity.difference:.1e} of the largest, more than {TOLERANCE:.0e}. "
            "Nothing was written."
        )
    with replacing(out) as partial:
        model.save_weights(partial)
        note.write(partial)
        sha256 = hashlib.sha256(partial.read_bytes()).hexdigest()
    return ImportReport(
        model=str(note.network),
        source=source,
        library=library,
        path=out,
        sha256=sha256,
        classes=model.output_shape[-1],
        parameters=model.count_params(),
        options=note.options,
        preprocessing=str(note.preprocessing),
        assumed=assumed,
        parity=parity,
    )


def _preprocessing(name: str, library: str) -> tuple[str, bool]:
    """Return the preprocessing of such weights, and True if it is only assumed."""
    sources = TORCH_PEERS if library == "PyTorch" else (library,)
    known = {e.preprocessing for e in catalog.of_model(name) if e.source in sources}
    if len(known) == 1:
        return known.pop(), False
    network = registry.architecture(name).network
    if library == "PyTorch" and network.preprocessing == "cifar":
        # github.com/akamaster/pytorch_resnet_cifar10 uses ImageNet's numbers; others use CIFAR's.
        return "torch", True
    return network.preprocessing, library != "MLPerf Tiny"


def _changed(name: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that make the network differ from the registered one."""
    network = registry.architecture(name).network
    fields = with_options(network, dict(options), name)
    others = options.keys() - FREE_OPTIONS
    return {k: getattr(fields, k) for k in others if getattr(fields, k) != getattr(network, k)}


def _shown(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value!r}" for key, value in options.items())


def _require_writable(out: Path, overwrite: bool) -> None:
    if not out.name.endswith(SUFFIX):
        raise UserError(f"The new file must end in {SUFFIX}; received {out}.")
    require_file_target(out)
    if out.exists() and not overwrite:
        raise UserError(f"{out} exists. Give another name (--out) or replace it (--overwrite).")


def _network(name: str, classes: int, options: Mapping[str, Any]) -> tuple[keras.Model, int]:
    """Build network `name` for the file, ending in logits. Return it and the image size."""
    arguments: dict[str, Any] = {
        **options,
        "weights": None,
        "classes": classes,
        "classifier_activation": None,
    }
    network = registry.architecture(name).network
    small = min(network.input_size, max(_LEAST_SIZE, network.min_size))
    try:
        return registry.create_model(name, input_shape=(None, None, 3), **arguments), small
    except UserError:  # dense layers on a map of one size: VGG, AlexNet
        return registry.create_model(name, **arguments), network.input_size


# Parity -------------------------------------------------------------------------------------------
