"""The training loop: one step under any `tf.distribute` strategy, with Keras' model and optimizer.

It replaces Keras 3's `fit`. Under a strategy, `fit` clips gradients before they are summed, looks
for float16 overflow on one replica only, and does not run on several machines.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_resnet import keras_compat
from keras_resnet.models.auxiliary import by_name, loss_weights
from keras_resnet.recipes.data.batches import evaluation_batches
from keras_resnet.recipes.data.datasets import AnySplit
from keras_resnet.recipes.data.mixing import targets
from keras_resnet.recipes.runs.scores import ACCURACY, AVERAGE_PRECISION, AveragePrecision
from keras_resnet.recipes.training import workers
from keras_resnet.recipes.training.averages import Averages
from keras_resnet.recipes.training.losses import LOSSES, LossScale
from keras_resnet.recipes.training.optimizers import ScheduleFreeAdamW
from keras_resnet.recipes.training.remat import Rematerialised
from keras_resnet.recipes.training.teacher import Teacher


class NonFiniteLossError(RuntimeError):
    """The loss became NaN or infinite; `step` is the first update with such a loss."""

    def __init__(self, step: int) -> None:
        super().__init__(f"The loss is not finite (NaN or infinity) since step {step}.")
        self.step = step


def _is_kernel(variable: Any) -> bool:
    """Return True for a kernel: Keras names it "kernel", and tf_keras "conv/kernel:0"."""
    return str(variable.name).rpartition("/")[2].partition(":")[0] == "kernel"


class Loop:
    """A loop that updates and evaluates `model`, whose outputs are logits.

    Create the model and the optimizer inside `strategy.scope()`.

    Args:
        strategy: the strategy over the devices.
        model: from uint8 images (batch, height, width, channels) to logits (batch, classes). With
            auxiliary classifiers, the output is a dictionary of logits, and their losses are added
            with the weights of `keras_resnet.loss_weights`. Accuracy and evaluation use its
            "predictions".
        optimizer: any Keras optimizer without its own gradient clipping or accumulation.
        batch_size: the global batch size, over all replicas.
        weight_decay: L2 on kernels, added to the gradient (He 2015: 1e-4). It does not apply to BN
            and biases; the paper does not say.
        label_smoothing: epsilon of arXiv:1512.00567.
        loss: a key of LOSSES.
        accumulate: number of parts of a replica's batch. They are computed one after another, each
            with its own BN statistics.
        clip_norm: the largest norm of the whole batch's gradient; 0 for no limit.
        ema: decay of the averaged weights; 0 for no averages.
        remat: compute activations again in the backward pass, to save memory; see
            `training/remat.py`.
        teacher: a teacher whose outputs are targets in addition to the labels.
        class_weights: the weight of each class in the training loss, float32 (classes,); None for
            the weight 1.
        multi_label: an image can have several classes, or none: labels are targets (n, classes),
            and a class is predicted where its logit is above 0. The accuracy is the share of right
            answers for every image and class. `evaluate` also gives the mean average precision.
    """

    def __init__(
        self,
        strategy: tf.distribute.Strategy,
        model: keras.Model,
        optimizer: keras.optimizers.Optimizer,
        *,
        batch_size: int,
        weight_decay: float = 0.0,
        label_smoothing: float = 0.0,
        loss: str = "cross_entropy",
        accumulate: int = 1,
        clip_norm: float = 0.0,
        ema: float = 0.0,
        remat: bool = False,
        teacher: Teacher | None = None,
        class_weights: np.ndarray | None = None,
        multi_label: bool = False,
    ) -> None:
        """Build the optimizer's variables and the metrics; see the class."""
        self.strategy, self.model, self.optimizer = strategy, model, optimizer
        self.loss_weights = loss_weights(model)
        self.variables = list(model.trainable_variables)  # all, even while some are frozen
        self.batch_size, self.weight_decay = batch_size, weight_decay
        self.label_smoothing, self.loss_function = label_smoothing, LOSSES[loss]
        self.accumulate, self.clip_norm = accumulate, clip_norm
        self.teacher, self.class_weights = teacher, class_weights
        watched = model if teacher is None else teacher.watched(model)
        self._watched = Rematerialised(watched) if remat else watched
        self.multi_label = multi_label
        with strategy.scope():
            self.averages = Averages(model, ema) if ema else None
            optimizer.build(self.variables)
            self.loss = keras.metrics.Mean(name="loss")
            self.accuracy = keras.metrics.Mean(name="accuracy")
            self.precision = None
            if multi_label:
                self.precision = AveragePrecision(by_name(model.output_shape)["predictions"][-1])
        keras_compat.skip_gradient_sum(optimizer)  # _replica_gradients already sums them
        self.step = tf.Variable(0, trainable=False, dtype=tf.int64)
        self.bad_step = tf.Variable(-1, trainable=False, dtype=tf.int64)
        is_float16 = model.dtype_policy.compute_dtype == "float16"
        self.loss_scale = LossScale() if is_float16 else None
        self.input_seconds = 0.0
        self._frozen: set[int] = set()
        self._evaluated: tuple[AnySplit, tf.data.Dataset] | None = None

    @property
    def checkpoint(self) -> tf.train.Checkpoint:
        """The full state, so that a resumed run continues like an uninterrupted one."""
        return tf.train.Checkpoint(
            model=self.model,
            optimizer=self.optimizer,
            step=self.step,
            metrics=[v.value for v in (*self.loss.variables, *self.accuracy.variables)],
            **({"loss_scale": self.loss_scale} if self.loss_scale else {}),
            **({"averages": self.averages} if self.averages else {}),
            **({"random": states} if (states := self._random_states()) else {}),
        )

    def _random_states(self) -> list[tf.Variable]:
        """Return the states of dropout's generators; Keras leaves them out of checkpoints."""
        weights = {id(variable) for variable in self.model.non_trainable_weights}
        variables = self.model.non_trainable_variables
        return [variable.value for variable in variables if id(variable) not in weights]

    # Training -----------------------------------------------------------------------------------

    def distribute(self, batches: tf.data.Dataset) -> Iterator[Any]:
        """Return an iterator that gives every replica its share of each global batch."""
        if workers.count(self.strategy) > 1:
            return iter(workers.distribute(self.strategy, batches))
        return iter(self.strategy.experimental_distribute_dataset(batches))

    def train_step(self, iterator: Iterator[Any]) -> None:
        """Do one update; add the time of waiting for its batch to `input_seconds`."""
        began = time.perf_counter()
        batch = next(iterator)
        self.input_seconds += time.perf_counter() - began
        self._train_step(batch, len(self._learning()))

    def train_layers(self, learns: Callable[[keras.Layer], bool]) -> None:
        """Train only the layers for which `learns` is true, from the next update on."""
        for layer in self.model.layers:
            layer.trainable = learns(layer)

    def freeze(self, variables: Iterable[Any]) -> None:
        """Freeze `variables` from the next update on, even if their layers are trained."""
        self._frozen = {id(variable) for variable in variables}

    def _learning(self) -> list[Any]:
        return [v for v in self.model.trainable_variables if id(v) not in self._frozen]

    # AutoGraph has nothing to rewrite here. It would examine every layer's call, which doubles the
    # time to the first step.
    @tf.function(autograph=False)
    def _train_step(self, batch: Any, trained: int) -> None:
        """Update once. A new number of trained variables, `trained`, causes a new trace."""
        scale = tf.constant(1.0) if self.loss_scale is None else tf.identity(self.loss_scale.scale)
        losses, gradients = self.strategy.run(self._replica_gradients, (*batch, scale))
        total = self.strategy.reduce("SUM", losses, axis=None)
        first_bad = (self.bad_step < 0) & ~tf.math.is_finite(total)
        self.bad_step.assign(tf.where(first_bad, self.step, self.bad_step))
        if self.loss_scale is None:
            self.strategy.run(self._replica_apply, (gradients,))
        else:
            # Every replica has the same sum, so checking the first one is enough.
            local = [self.strategy.experimental_local_results(g)[0] for g in gradients]
            finite = tf.reduce_all([tf.reduce_all(tf.math.is_finite(g)) for g in local])
            tf.cond(finite, lambda: self._apply(gradients), lambda: False)
            self.loss_scale.update(finite)
        self.step.assign_add(1)

    def _replica_gradients(self, images: Any, labels: Any, scale: Any) -> tuple[Any, list[Any]]:
        """Return the gradient of the mean loss over the *global* batch, equal on every replica."""
        if self.accumulate == 1:
            loss, gradients = self._part_gradients(images, labels, scale)
        else:
            loss, gradients = self._accumulated_gradients(images, labels, scale)
        replica = tf.distribute.get_replica_context()
        gradients = replica.all_reduce(tf.distribute.ReduceOp.SUM, gradients)
        gradients = [gradient / scale for gradient in gradients]
        if self.clip_norm:  # clip the sum, so the result is independent of the number of devices
            gradients, _ = tf.clip_by_global_norm(gradients, self.clip_norm)
        return loss, gradients

    def _part_gradients(self, images: Any, labels: Any, scale: Any) -> tuple[Any, list[Any]]:
        with tf.GradientTape() as tape:
            logits = by_name(self._watched(images, training=True))
            losses = tf.add_n(
                [w * self._losses(labels, logits[name]) for name, w in self.loss_weights.items()]
            )
            if self.class_weights is not None:
                losses = losses * self._weights(labels)
            if self.teacher is not None:
                losses = self.teacher.mix(losses, images, logits)
            loss = tf.reduce_sum(losses) / self.batch_size
            scaled = loss * scale
        self.loss.update_state(losses)
        self.accuracy.update_state(self._hits(labels, logits["predictions"]))
        return loss, tape.gradient(scaled, self._learning())

    def _accumulated_gradients(self, images: Any, labels: Any, scale: Any) -> tuple[Any, list[Any]]:
        """Return the same sum, computed in parts; memory holds the activations of one part."""
        size = tf.shape(images)[0] // self.accumulate

        def add_part(part: Any, loss: Any, gradients: list[Any]) -> tuple[Any, Any, list[Any]]:
            rows = slice(part * size, (part + 1) * size)
            more, new = self._part_gradients(images[rows], labels[rows], scale)
            return part + 1, loss + more, [a + b for a, b in zip(gradients, new, strict=True)]

        zeros = [tf.zeros(v.shape) for v in self._learning()]
        _, loss, gradients = tf.while_loop(
            lambda part, *_: part < self.accumulate,
            add_part,
            (tf.constant(0), tf.constant(0.0), zeros),
            parallel_iterations=1,
        )
        return loss, gradients

    def _losses(self, labels: Any, logits: Any) -> Any:
        """Return the loss per image, float32; labels are classes (n,) or targets (n, classes)."""
        classes = logits.shape[-1]
        wanted = targets(labels, classes)
        wanted = wanted * (1.0 - self.label_smoothing) + self.label_smoothing / classes
        return self.loss_function(wanted, tf.cast(logits, tf.float32))

    def _hits(self, labels: Any, logits: Any) -> Any:
        """Return the share of right answers to each image, float32 (n,)."""
        if self.multi_label:
            right = (logits > 0) == (tf.cast(labels, tf.float32) > 0.5)
            return tf.reduce_mean(tf.cast(right, tf.float32), -1)
        right = tf.argmax(labels, -1) if labels.shape.rank == 2 else tf.cast(labels, tf.int64)
        return tf.cast(tf.argmax(logits, -1) == right, tf.float32)

    def _weights(self, labels: Any) -> Any:
        """Return the weight of each image: that of its class, or of the classes mixed in it."""
        if labels.shape.rank == 2:
            return tf.linalg.matvec(labels, self.class_weights)
        return tf.gather(self.class_weights, labels)

    def _apply(self, gradients: list[Any]) -> bool:
        self.strategy.run(self._replica_apply, (gradients,))
        return True

    def _replica_apply(self, gradients: list[Any]) -> None:
        variables = self._learning()
        decayed = [
            g + self.weight_decay * tf.convert_to_tensor(v) if _is_kernel(v) else g
            for g, v in zip(gradients, variables, strict=True)
        ]
        self.optimizer.apply(decayed, variables)
        if self.averages is not None:
            self.averages.update(self.step)

    def require_finite_loss(self) -> None:
        """Check that every loss since the start was finite; this waits for the last step.

        Raises:
            NonFiniteLossError: a loss was not finite.
        """
        if int(self.bad_step) >= 0:
            raise NonFiniteLossError(int(self.bad_step))

    def metrics(self) -> dict[str, float]:
        """Return the mean loss and accuracy since the last reset."""
        return {"loss": float(self.loss.result()), "accuracy": float(self.accuracy.result())}

    def reset_metrics(self) -> None:
        """Reset the means."""
        self.loss.reset_state()
        self.accuracy.reset_state()

    # Evaluation ---------------------------------------------------------------------------------

    @contextmanager
    def evaluated_weights(self) -> Iterator[None]:
        """Put the weights to evaluate and save into the model: the averaged ones, if any."""
        self.average_statistics()
        schedule_free = isinstance(self.optimizer, ScheduleFreeAdamW)
        if self.averages is None and not schedule_free:
            yield
            return
        raw = [weight.numpy() for weight in self.model.weights]
        if self.averages is not None:
            self.averages.swap_in()
        if schedule_free:
            averages = self.optimizer.averages(self.variables)
            for variable, value in zip(self.variables, averages, strict=True):
                variable.assign(value)
        try:
            yield
        finally:
            for variable, value in zip(self.model.weights, raw, strict=True):
                variable.assign(value)

    def evaluate(self, split: AnySplit) -> dict[str, float]:
        """Return the exact mean loss and accuracy of the model over every image of `split`.

        With several labels, also "mean_average_precision"; see `AveragePrecision`.
        """
        sums = tf.zeros([3])
        if self.precision is not None:
            self.precision.reset_state()
        # Building the pipeline takes longer than evaluating a few images.
        if self._evaluated is None or self._evaluated[0] is not split:
            self._evaluated = split, evaluation_batches(split, self.batch_size)
        for batch in self.distribute(self._evaluated[1]):
            sums += self._evaluation_step(batch)
        loss, correct, count = (float(value) for value in sums)
        found = {"loss": loss / count, ACCURACY: correct / count}
        if self.precision is not None:
            found[AVERAGE_PRECISION] = float(self.precision.result())
        return found

    @tf.function(autograph=False)
    def _evaluation_step(self, batch: Any) -> Any:
        def replica(images: Any, labels: Any, weights: Any) -> Any:
            logits = by_name(self.model(images, training=False))["predictions"]
            if self.precision is not None:
                self.precision.update_state(labels, logits, weights)
            hits = self._hits(labels, logits)
            parts = (self._losses(labels, logits) * weights, hits * weights, weights)
            return tf.stack([tf.reduce_sum(part) for part in parts])

        return self.strategy.reduce("SUM", self.strategy.run(replica, batch), axis=None)

    def average_statistics(self) -> None:
        """Give all replicas the mean of their BN moving statistics; each replica has its own."""
        variables = self._statistics()
        if self.strategy.num_replicas_in_sync == 1 or not variables:
            return
        for variable, mean in zip(variables, self._mean_statistics(), strict=True):
            variable.assign(self.strategy.experimental_local_results(mean)[0])

    def _statistics(self) -> list[Any]:
        """Return the BN statistics as TensorFlow variables, without counters and random states."""
        # Not `non_trainable_weights`: those of a fine-tuning's frozen layers would be among them.
        learned = {id(variable) for variable in self.variables}
        variables = [
            variable.value if isinstance(variable, keras.Variable) else variable
            for variable in self.model.weights
            if id(variable) not in learned
        ]
        return [variable for variable in variables if variable.dtype.is_floating]

    @tf.function(autograph=False)
    def _mean_statistics(self) -> list[Any]:
        def replica() -> list[Any]:
            statistics = [tf.identity(variable) for variable in self._statistics()]
            context = tf.distribute.get_replica_context()
            return context.all_reduce(tf.distribute.ReduceOp.MEAN, statistics)

        return self.strategy.run(replica)
