"""Trainees: the network that a run trains, its trained layers, and the resulting model.

`Trainee` is the interface. This module has training from scratch and fine-tuning. Trainees that
compress a network are in `recipes/compression`; `table.py` there chooses the trainee of a config.
"""

from __future__ import annotations

import sys
from abc import ABC, abstractmethod
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import keras

from keras_resnet import registry
from keras_resnet.errors import UserError
from keras_resnet.models.auxiliary import inference_model
from keras_resnet.models.build import with_options
from keras_resnet.models.network import Network
from keras_resnet.recipes.configs.schema import Config
from keras_resnet.recipes.data.datasets import Dataset
from keras_resnet.recipes.training import transfer
from keras_resnet.recipes.training.loop import Loop
from keras_resnet.recipes.training.transfer import Shape

if TYPE_CHECKING:
    from keras_resnet.recipes.training.job import Job


class Trainee(ABC):
    """The interface of all trainees. The methods are called in the order given here.

    Attributes:
        start: the trained network that training begins with; None if there is none.
    """

    start: keras.Model | None = None

    @abstractmethod
    def check(self, config: Config) -> None:
        """Refuse keys of `config` that do not fit, before data and devices are looked for.

        Raises:
            UserError: a key does not fit.
        """

    def completed(self, config: Config, dataset: Dataset, parts: int) -> Config:
        """Return `config` with what it leaves open and the data tells; by default as it is.

        Args:
            config: the config of the run.
            dataset: its data.
            parts: a batch must be a multiple of this.
        """
        return config

    @abstractmethod
    def require_fit(self, config: Config, dataset: Dataset) -> None:
        """Refuse data that does not fit, before all images are checked.

        Raises:
            UserError: images of a wrong size, or another number of classes.
        """

    @abstractmethod
    def build(self, job: Job, shape: Shape) -> keras.Model:
        """Return the network to train, in the current strategy and dtype policy.

        It maps RGB 0...255 (batch, *shape) to logits (batch, classes).

        Raises:
            UserError: a layer cannot be trained in this way.
        """

    def choose_layers(self, job: Job, loop: Loop, epoch: int) -> None:  # noqa: B027
        """Set the layers to train in this epoch; by default, all layers in every epoch."""

    def result(self, job: Job, trained: keras.Model) -> keras.Model:
        """Return the finished model from `trained`, the trained network of `build`.

        The model maps RGB 0...255 of the data's size to logits. By default it is the same network
        without its auxiliary classifiers.
        """
        model = self.build(job, job.dataset.input_shape)
        model.set_weights(trained.get_weights())
        return inference_model(model)

    def about(self, job: Job, result: keras.Model) -> dict[str, Any]:
        """Return extra entries about the finished model for the run's summary."""
        return {}


class FromScratch(Trainee):
    """A network of the registry, with random weights."""

    def check(self, config: Config) -> None:
        """Refuse an unknown network, unknown options, and keys that need a trained network."""
        registry.architecture(config.model)
        _check_options(config)
        if config.finetune.frozen:
            raise UserError(
                "finetune.frozen needs a trained network. Start from one with: keras-resnet "
                "finetune MODEL --data NAME|FOLDER"
            )
        if config.compress.technique:
            raise UserError(
                "compress.technique needs a trained network. Start from one with: keras-resnet "
                f"{config.compress.technique} MODEL --data NAME|FOLDER"
            )
        if config.pruning.keep < 1:
            raise UserError(
                "pruning.keep needs a trained network. Start from one with: keras-resnet "
                "prune-filters MODEL --data NAME|FOLDER"
            )

    def require_fit(self, config: Config, dataset: Dataset) -> None:
        """Refuse images that are too small for the network."""
        least, side = _network(config).min_size, min(*config.train.sizes, *dataset.input_shape[:2])
        if side < least:
            raise UserError(
                f"'{config.model}' takes images of {least}×{least} pixels or more; received {side} "
                f"from data.image_size or train.sizes. Try --set data.image_size={least}"
            )

    def build(self, job: Job, shape: Shape) -> keras.Model:
        """Return the network with its auxiliary classifiers, if it has any."""
        return registry.create_model(
            job.config.model,
            weights=None,
            input_shape=shape,
            classes=len(job.dataset.class_names),
            classifier_activation=None,
            include_preprocessing=True,
            **job.config.network,
        )


def _network(config: Config) -> Network:
    network = registry.architecture(config.model).network
    return with_options(network, config.network, config.model)


def _check_options(config: Config) -> None:
    given = {"classes", "input_size", "preprocessing"} & set(config.network)
    if given:
        raise UserError(
            f"network.{min(given)} cannot be set in a config: classes and image size come from the "
            "data, and the normalisation from the network. Remove it."
        )
    if getattr(_network(config), "auxiliary", False) and config.train.sizes:
        raise UserError(
            "network.auxiliary and train.sizes cannot be combined, because auxiliary classifiers "
            "need one image size. Remove one of them."
        )


class Trained(Trainee):
    """A trained network: the base class of all trainees that start from one.

    Args:
        start: a functional classifier from RGB 0...255; it is copied, not changed.
    """

    start: keras.Model

    def __init__(self, start: keras.Model) -> None:
        self.start = start

    def check(self, config: Config) -> None:
        """Refuse options that only apply to new networks."""
        if config.network:
            raise UserError(
                "[network] is only for networks that are built new, but this training starts from "
                "a trained network. Remove [network] from the config."
            )


class FineTuned(Trained):
    """Fine-tuning: a trained network with a new head, for other classes or the same classes."""

    def completed(self, config: Config, dataset: Dataset, parts: int) -> Config:
        """Choose the image size if none is given; a batch has no more images than there are."""
        train, batch_size = dataset.train, config.train.batch_size
        if train.places < 2 * batch_size:  # so few are looked through at once
            batch_size = max(min(batch_size, len(train)) // parts, 1) * parts
        size = config.data.image_size or self._image_size(config, dataset)
        return replace(
            config,
            data=replace(config.data, image_size=size),
            train=replace(config.train, batch_size=batch_size),
        )

    def _image_size(self, config: Config, dataset: Dataset) -> int:
        if dataset.sized and not self.start.input_shape[1]:
            return 0  # a network of free size sees images of one size as they are
        made_for = transfer.made_for(self.start)
        if config.finetune.keep_head or not dataset.train.places:
            return made_for
        side = dataset.train.shorter_side()
        size = transfer.image_size(self.start, side)
        if not size == side == made_for:
            print(
                f"the network sees {size}×{size} pixels (your images: {side}, its training: "
                f"{made_for}). To change it: --set data.image_size=N (finetune: --image-size N)",
                file=sys.stderr,
            )
        return size

    def require_fit(self, config: Config, dataset: Dataset) -> None:
        """Refuse a different number of classes if the head is kept."""
        if config.finetune.keep_head:
            transfer.require_classes(self.start, len(dataset.class_names), dataset.multi_label)

    def build(self, job: Job, shape: Shape) -> keras.Model:
        """Return the trained layers and the head; see `transfer.adapt`."""
        classes = len(job.dataset.class_names)
        return transfer.adapt(self.start, shape, classes, keep_head=job.config.finetune.keep_head)

    def choose_layers(self, job: Job, loop: Loop, epoch: int) -> None:
        """Train only the head for `finetune.frozen` of the run, then all layers."""
        choice, head = job.config.finetune, transfer.classifier(loop.model)
        head_only = epoch < round(choice.frozen * job.epochs)
        loop.train_layers(
            lambda layer: transfer.learns(
                layer, head=head, head_only=head_only, train_bn=choice.train_bn
            )
        )
