"""Find the model that a command names: `NAME --weights TAG|FILE | RUN | FILE | hf://USER/NAME`."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_resnet import registry
from keras_resnet.arguments import checked
from keras_resnet.errors import UserError
from keras_resnet.export import manifest
from keras_resnet.export.formats.tflite import metadata
from keras_resnet.export.runtimes.base import Runtime, classifier_shape
from keras_resnet.export.runtimes.keras import KerasRuntime, load_keras
from keras_resnet.export.runtimes.locate import located
from keras_resnet.export.runtimes.trial import open_given
from keras_resnet.files import expanded
from keras_resnet.images.answers import agreed, class_count, names_of, numbered
from keras_resnet.images.crop import SingleCrop
from keras_resnet.images.labels import Known, class_ids, read_labels, remember
from keras_resnet.images.listing import READ
from keras_resnet.images.preprocessing import missing_preprocessing
from keras_resnet.recipes.runs import published
from keras_resnet.recipes.runs.folder import Run, find_run, is_run
from keras_resnet.recipes.runs.results import STARTED_FROM
from keras_resnet.weights import catalog, loading
from keras_resnet.weights.fitting import read_note
from keras_resnet.weights.hub import SCHEME, Address

if TYPE_CHECKING:
    from keras_resnet.recipes.data.datasets import Dataset


_EXPORTS_DEPTH = 3  # RUN/exports/saved_model/1
_KERAS_ONLY = (
    "This command reads Keras models: give a run folder, a .keras file, or a network's NAME."
)


@dataclass(frozen=True)
class Source:
    """A model that was found.

    Attributes:
        name: the name for messages and file names.
        path: its file or folder; None for a network built by name.
        run: the run that it belongs to, if any.
        labels: its class names, from a file beside it or from the weights; None if unknown.
        weights: the weights of a network built by name.
        activation: the activation of its outputs, if the user gave it.
    """

    name: str
    path: Path | None
    run: Run | None
    labels: tuple[str, ...] | None
    weights: loading.Resolved = None
    activation: str | None = None

    @property
    def entry(self) -> loading.Entry | None:
        """The weights' entry in the catalog; None for other weights."""
        return self.weights if isinstance(self.weights, loading.Entry) else None

    @property
    def data(self) -> str | None:
        """The dataset of the weights, by its name in tensorflow-datasets; None if unknown."""
        return loading.about(self.weights).data

    @property
    def trained_in(self) -> Run | None:
        """The run that made the model, also for an exported file; None if there is none."""
        if self.path is None:
            return None
        if self.run is not None:  # a run folder also has the start and the teacher
            return self.run if self.path == self.run.model else None
        folder = next(filter(is_run, list(self.path.resolve().parents)[:_EXPORTS_DEPTH]), None)
        return None if folder is None else Run(folder)

    def lineage(self) -> dict[str, Any]:
        """Return the summary entries for a run that starts from this model."""
        run = self.trained_in
        return {} if run is None else {STARTED_FROM: str(run.path.resolve())}

    def origin(self) -> dict[str, Any]:
        """Return the known origin of the model, for an export's manifest and model card."""
        known: dict[str, Any] = {}
        if self.name in registry.list_models():
            architecture = registry.architecture(self.name)
            known = {"network": architecture.summary, "paper": architecture.source}
        if (entry := self.entry) is not None:
            published = entry.published
            kind, where = "measured", f"on the test images of {entry.data}"
            if entry.url and published:
                kind, where = "published", published.source
            known |= {
                "weights": f"{entry.tag} of {entry.source}",
                "address": entry.url or None,
                "licence of the weights": entry.license,
                "form of the network": entry.variant or None,
                "trained on": entry.data,
                f"{kind} accuracy": published and f"{published.top1} % ({where})",
            }
        if self.run is not None and self.path == self.run.model:
            known |= self.run.origin()
        return known

    @property
    def crop(self) -> SingleCrop | None:
        """The crop of its accuracy measurement; None scales images to cover the model's size."""
        if self.entry is not None:
            return loading.known_with(self.entry).crop
        if self.run is not None and self.run.model.is_file():
            return self.run.known().crop
        if self.path is not None and (self.path.parent / manifest.MANIFEST).is_file():
            crop = manifest.read(self.path.parent)["input"].get("crop")
            sides = crop and (crop["resize"], crop["size"], crop["interpolation"])
            return SingleCrop(*sides) if sides else None
        return None

    def has_classes(self, names: tuple[str, ...]) -> bool:
        """Return True if `names` are its classes; datasets use WordNet's ids for ImageNet."""
        ids = () if self.data is None else class_ids(self.data)
        if self.labels and len(self.labels) == 1 and len(names) == 2:  # a single sigmoid
            return names[1:] == self.labels
        return names in (self.labels, ids)

    def warn_of_other_classes(self, data: Dataset) -> None:
        """Warn on stderr if the data has other classes, so that an accuracy has no meaning."""
        if self.labels and not self.has_classes(data.class_names):
            shown = self.name if self.path is None else self.path
            print(f"warning: '{data.name}' has other classes than {shown}", file=sys.stderr)

    def keras_model(self, size: int | None = None) -> Any:
        """Return the Keras model; a network built by name gets images of `size` × `size`.

        Raises:
            UserError: the source is an exported file, or its labels belong to another model.
        """
        if self.path is None:
            shape = None if size is None else (size, size, 3)
            model = registry.create_model(
                self.name,
                weights=self.weights,
                input_shape=shape,
                include_preprocessing=True,
                **loading.about(self.weights).options,
            )
            self.names(classifier_shape(model)[1])
            return model
        self.require_keras()
        model = load_keras(self.path)
        outputs = classifier_shape(model)[1]
        self.names(outputs)
        labels = names_of(self.labels, outputs)
        remember(model, Known(labels, labels, self.crop))
        return model

    def require_keras(self) -> None:
        """Refuse an exported file and a file of Keras' older format.

        Raises:
            UserError: the source is such a file.
        """
        if self.path is not None and self.path.suffix in (".h5", ".hdf5"):
            new = self.path.with_suffix(".keras")
            raise UserError(
                f"{self.path} has Keras' older format. Convert it in Python: "
                f'import keras; keras.models.load_model("{self.path}").save("{new}")'
            )
        if self.path is not None and self.path.suffix != ".keras":
            raise UserError(f"{self.path} is an exported file. {_KERAS_ONLY}")

    def runtime(self, size: int | None = None) -> Runtime:
        """Return the model, from any kind of file, ready to run on RGB 0...255."""
        if self.path is None or self.path.suffix == ".keras":
            model = self.keras_model(size)
            if hint := missing_preprocessing(model):
                print(f"warning: {hint} Here it gets RGB 0...255.", file=sys.stderr)
            runtime: Runtime = KerasRuntime(model)
        else:
            manifest.require_unchanged(self.path)
            runtime = open_given(self.path)
            self.names(runtime.outputs)
        runtime.activation = agreed(self.activation, runtime.activation)
        return runtime

    def names(self, outputs: int) -> tuple[str, ...]:
        """Return the names of all its classes; "class 0", … if they are unknown.

        Raises:
            UserError: its labels belong to another model.
        """
        try:
            return numbered(names_of(self.labels, outputs), class_count(outputs))
        except UserError as error:
            raise UserError(
                f"The labels.txt of '{self.name}' (beside it, or inside a .tflite) does not fit: "
                f"{error} Correct labels.txt, or move the model to another folder."
            ) from error


@checked
def find(
    reference: str | Path,
    weights: str | None = None,
    activation: str | None = None,
    keras: bool = False,
) -> Source:
    """Find the model of `reference`: a run folder, a file, or a network's name with `weights`.

    Args:
        reference: a path, a name in the registry, or `hf://USER/NAME` for a model that `push`
            uploaded.
        weights: the weights for a name: a tag or a file.
        activation: the activation of the outputs, if the graph does not tell it.
        keras: refuse exported files, because the Keras model is needed.

    Raises:
        UserError: no such model, a folder without a model, an unfinished run, or a network without
            weights.
    """
    name = str(reference)
    found = _find(name, keras) if weights is None else _with_weights(name, weights)
    if keras:
        found.require_keras()
    return replace(found, activation=activation)


def _find(reference: str, keras: bool) -> Source:
    if reference.startswith(SCHEME):
        place = Address.parse(reference)
        path, name = published.fetch(place), place.repo.partition("/")[2]
        return Source(name, path, None, read_labels(path.parent) or _labels_inside(path))
    path = expanded(reference)
    if is_run(path):
        run = find_run(path)
        run.require_finished()
        return Source(run.config.model, run.model, run, read_labels(path))
    if (path / manifest.MANIFEST).is_file():
        files = ", ".join(entry["file"] for entry in manifest.read(path)["files"])
        wanted = _KERAS_ONLY if keras else f"Name one of its files: {files}"
        raise UserError(f"{path} is an export folder. {wanted}")
    if path.suffix.lower() in READ and not path.is_dir():
        raise UserError(
            f"{path} is an image, not a model. The model comes first: keras-resnet predict MODEL "
            "IMAGE"
        )
    if path.name.endswith(loading.SUFFIX) and path.is_file():
        name = read_note(path).network or "NAME"
        raise UserError(f"{path} has weights but no network. Give: {name} --weights {path}")
    if path.is_dir() and located(path) == (path.suffix, path):
        raise UserError(
            f"{path} is not a run folder (it has no config.toml), and it has no SavedModel or "
            f"other model. To see the runs in a folder: keras-resnet runs {path}"
        )
    if path.exists():
        parent = path.parent
        beside = find_run(parent) if is_run(parent) else None
        return Source(path.stem, path, beside, read_labels(parent) or _labels_inside(path))
    if path.suffix or len(path.parts) > 1:
        raise UserError(f"No such file or folder: {path}")
    name = registry.find(reference).name
    tags = ", ".join(entry.tag for entry in catalog.of_model(name))
    raise UserError(
        f"'{name}' alone is an untrained network, so its answers are random. Give --weights "
        + (f"(one of: {tags}; or FILE.weights.h5)" if tags else "FILE.weights.h5")
        + ", a run folder or a file."
    )


def _with_weights(name: str, weights: str) -> Source:
    if len(Path(name).parts) > 1 or Path(name).suffix:
        raise UserError(
            f"{name} is a path to a model that contains its weights. Leave out --weights (in "
            "[distill]: --set distill.weights=), or give a network's NAME."
        )
    name = registry.find(name).name
    found = loading.resolve(name, weights)
    if isinstance(found, Path) and loading.classes_in(found) is None:
        raise UserError(
            f"{found} has no classifier: it was saved with include_top=False. Give weights with a "
            "classifier."
        )
    return Source(name, None, None, loading.known_with(found).labels, found)


def _labels_inside(path: Path) -> tuple[str, ...] | None:
    return metadata.labels(path) if path.suffix == ".tflite" else None


def dataset_of(
    name: str | None,
    source: Source,
    runtime: Runtime | None = None,
    whole: bool = False,
    layout: str | None = None,
) -> Dataset:
    """Return the dataset of --data, or the dataset of the run with the run's own split.

    Images of different sizes get the model's size; with `whole` they stay unchanged. `layout` is
    the layout of a folder; None for the run's layout or "auto".
    """
    from keras_resnet.recipes.data.datasets import canonical, configured_dataset, load_dataset

    config = source.run.config.data if source.run else None
    if config is not None and (name is None or canonical(name) == config.name):
        config = replace(config, layout=layout or config.layout)
        return configured_dataset(replace(config, image_size=0) if whole else config)
    name = name or source.data
    if name is None:
        raise UserError(
            "There is no data to use. Give a dataset's name or a folder of images: "
            "--data NAME|FOLDER, e.g. --data cifar10"
        )
    dataset = load_dataset(name, layout=layout or "auto")
    if dataset.sized or whole:
        return dataset
    return dataset.at((runtime or source.runtime()).input_shape[0] or 224)
