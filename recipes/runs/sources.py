"""What a verb of the command line takes as a model: `NAME --weights TAG|FILE | RUN | FILE`."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_resnet import registry
from keras_resnet.errors import UserError
from keras_resnet.export import manifest
from keras_resnet.export.formats import metadata
from keras_resnet.export.runtimes.base import Runtime, classifier_shape
from keras_resnet.export.runtimes.keras import KerasRuntime, load_keras
from keras_resnet.export.runtimes.locate import located
from keras_resnet.export.runtimes.open import open_file
from keras_resnet.files import expanded
from keras_resnet.images.answers import agreed, class_count, names_of, numbered
from keras_resnet.images.crop import SingleCrop
from keras_resnet.images.labels import Known, class_ids, read_labels, remember
from keras_resnet.images.preprocessing import missing_preprocessing
from keras_resnet.recipes.runs.folder import STARTED_FROM, Run, find_run, is_run
from keras_resnet.weights import catalog, loading
from keras_resnet.weights.fitting import read_note

if TYPE_CHECKING:
    from keras_resnet.recipes.data.datasets import Dataset


_EXPORTS_DEPTH = 3  # RUN/exports/saved_model/1


@dataclass(frozen=True)
class Source:
    """A model that was found.

    Attributes:
        name: for people and file names.
        path: its file or folder; None for a network built by name.
        run: the run it belongs to, if any.
        labels: its class names, if they lie beside it or belong to the weights.
        weights: of a network built by name.
        activation: what its outputs went through, where the user said it.
    """

    name: str
    path: Path | None
    run: Run | None
    labels: tuple[str, ...] | None
    weights: loading.Resolved = None
    activation: str | None = None

    @property
    def entry(self) -> loading.Entry | None:
        """The weights' entry in the catalog, if they are of it."""
        return self.weights if isinstance(self.weights, loading.Entry) else None

    @property
    def data(self) -> str | None:
        """What the weights were trained on, by tensorflow-datasets' name, if that is known."""
        return loading.about(self.weights).data

    @property
    def trained_in(self) -> Run | None:
        """The run that the model is the result of; also of a file that it was exported to."""
        if self.path is None:
            return None
        if self.run is not None:  # which keeps its start and its teacher beside its result
            return self.run if self.path == self.run.model else None
        folder = next(filter(is_run, list(self.path.resolve().parents)[:_EXPORTS_DEPTH]), None)
        return None if folder is None else Run(folder)

    def lineage(self) -> dict[str, Any]:
        """What the summary of a run says that starts from this model."""
        run = self.trained_in
        return {} if run is None else {STARTED_FROM: str(run.path.resolve())}

    def origin(self) -> dict[str, Any]:
        """What is known of where the model comes from, for an export's manifest and model card."""
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
        """How images are cut for it, as its accuracy was measured; None: to just cover its size."""
        if self.entry is not None:
            return loading.known_with(self.entry).crop
        if self.run is not None and self.run.model.is_file():
            return self.run.known().crop
        if self.path is not None and (self.path.parent / manifest.MANIFEST).is_file():
            crop = manifest.read(self.path.parent)["input"].get("crop")
            return None if crop is None else SingleCrop(**crop)
        return None

    def has_classes(self, names: tuple[str, ...]) -> bool:
        """Whether these are its classes; data sets call ImageNet's by WordNet's ids."""
        ids = () if self.data is None else class_ids(self.data)
        if self.labels and len(self.labels) == 1 and len(names) == 2:  # of one sigmoid
            return names[1:] == self.labels
        return names in (self.labels, ids)

    def warn_of_other_classes(self, data: Dataset) -> None:
        """Say on stderr if an accuracy on this data means nothing, its classes being others."""
        if self.labels and not self.has_classes(data.class_names):
            shown = self.name if self.path is None else self.path
            print(
                f"warning: the classes of '{data.name}' are not those of {shown}", file=sys.stderr
            )

    def keras_model(self, size: int | None = None) -> Any:
        """The model in Keras; a network built by name for images of `size` pixels a side.

        Raises:
            UserError: the source is an exported file, or its labels are of another model.
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
        """Refuse an exported file, and one of Keras' older format.

        Raises:
            UserError: this is one.
        """
        if self.path is not None and self.path.suffix in (".h5", ".hdf5"):
            new = self.path.with_suffix(".keras")
            raise UserError(
                f"{self.path} is of Keras' older format. Load and save it anew in Python: "
                f'import keras; keras.models.load_model("{self.path}").save("{new}")'
            )
        if self.path is not None and self.path.suffix != ".keras":
            raise UserError(
                f"{self.path} is an exported file; this takes a run folder, a .keras file, or a "
                "NAME with --weights."
            )

    def runtime(self, size: int | None = None) -> Runtime:
        """The model ready to run on RGB 0...255, whatever kind of file it is."""
        if self.path is None or self.path.suffix == ".keras":
            model = self.keras_model(size)
            if hint := missing_preprocessing(model):
                print(f"warning: {hint} Here it gets RGB 0...255.", file=sys.stderr)
            runtime: Runtime = KerasRuntime(model)
        else:
            runtime = open_file(self.path)
            self.names(runtime.outputs)
        runtime.activation = agreed(self.activation, runtime.activation)
        return runtime

    def names(self, outputs: int) -> tuple[str, ...]:
        """The names of all its classes, or "class 0", … where there are none.

        Raises:
            UserError: its labels are those of another model.
        """
        try:
            return numbered(names_of(self.labels, outputs), class_count(outputs))
        except UserError as error:
            raise UserError(
                f"The labels.txt of '{self.name}' (beside it, or inside a .tflite) does not fit: "
                f"{error} Move the model away from it, or mend it."
            ) from error


def find(reference: str, weights: str | None = None, activation: str | None = None) -> Source:
    """What `reference` names: a run folder, a file, or a network's name with `weights`.

    Args:
        reference: a path, or a name of the registry.
        weights: of a name: a tag or a file.
        activation: what its outputs went through, where its graph does not tell.

    Raises:
        UserError: nothing of that name, a folder of something else, an unfinished run, or a network
            without weights.
    """
    found = _find(reference) if weights is None else _with_weights(reference, weights)
    return replace(found, activation=activation)


def _find(reference: str) -> Source:
    path = expanded(reference)
    if is_run(path):
        run = find_run(path)
        run.require_finished()
        return Source(run.config.model, run.model, run, read_labels(path))
    if (path / manifest.MANIFEST).is_file():
        files = ", ".join(entry["file"] for entry in manifest.read(path)["files"])
        raise UserError(f"{path} is an export folder; name one of its files: {files}")
    if path.name.endswith(loading.SUFFIX) and path.is_file():
        name = read_note(path).network or "NAME"
        raise UserError(f"{path} is weights without a network; give: {name} --weights {path}")
    if path.is_dir() and located(path) == (path.suffix, path):
        raise UserError(
            f"{path} is a folder without a run (no config.toml), and no SavedModel or other model. "
            f"To see the runs in a folder: keras-resnet runs {path}"
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
        f"'{name}' alone is an untrained network, and answers at random. Give --weights "
        + (f"(one of: {tags}; or FILE.weights.h5)" if tags else "FILE.weights.h5")
        + ", a run folder or a file."
    )


def _with_weights(name: str, weights: str) -> Source:
    if len(Path(name).parts) > 1 or Path(name).suffix:
        raise UserError(
            f"{name} is a path, and has its weights inside. Leave out --weights (in [distill]: "
            "--set distill.weights=), or give a network's NAME."
        )
    name = registry.find(name).name
    found = loading.resolve(name, weights)
    if isinstance(found, Path) and loading.classes_in(found) is None:
        raise UserError(f"{found} has no classifier: it was saved without the top.")
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
    """The dataset of --data, or the one the run was trained on (with its own split).

    Images that vary in size are given out at the model's; with `whole` they stay as they are.
    `layout` is of a folder; None: the run's, or "auto".
    """
    from keras_resnet.recipes.data.datasets import canonical, configured_dataset, load_dataset

    config = source.run.config.data if source.run else None
    if config is not None and (name is None or canonical(name) == config.name):
        config = replace(config, layout=layout or config.layout)
        return configured_dataset(replace(config, image_size=0) if whole else config)
    name = name or source.data
    if name is None:
        raise UserError("Give --data, a dataset's name or a folder of images, e.g. --data cifar10.")
    dataset = load_dataset(name, layout=layout or "auto")
    if dataset.sized or whole:
        return dataset
    return dataset.at((runtime or source.runtime()).input_shape[0] or 224)
