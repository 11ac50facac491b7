"""Several processes, one per machine, that train one network together.

Each process runs the same program on the same config. `share`, `gather` and `Votes` send
information from one process to the others, for example the chief's checkpoint, or that Ctrl-C was
pressed. All processes must call them at the same place. In a single process these functions return
their input.
"""

from __future__ import annotations

import functools
import json
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from keras_resnet.errors import UserError
from keras_resnet.recipes.runs.folder import Run, locked
from keras_resnet.recipes.training import machines as clusters
from keras_resnet.recipes.training.machines import Cluster

_CHUNK_BYTES = 2**24
_ERRORS_OF_A_LOSS = (
    tf.errors.UnavailableError,
    tf.errors.AbortedError,
    tf.errors.CancelledError,
    tf.errors.DeadlineExceededError,
    tf.errors.InternalError,
    tf.errors.FailedPreconditionError,
)


@functools.cache  # TensorFlow starts its server once in a process
def strategy(cluster: Cluster, gpus: int, wait_seconds: float) -> tf.distribute.Strategy:
    """Wait for the other workers and return the strategy over all of them.

    Args:
        cluster: the workers.
        gpus: number of GPUs of this process; 0 for the CPU.
        wait_seconds: longest time for the others to start.

    Raises:
        UserError: a worker does not answer or is lost, or this worker's port is taken.
    """
    clusters.meet(cluster, wait_seconds)
    resolver = tf.distribute.cluster_resolver.SimpleClusterResolver(
        tf.train.ClusterSpec({"worker": list(cluster.addresses)}),
        task_type="worker",
        task_id=cluster.index,
        num_accelerators={"GPU": gpus},
        rpc_layer="grpc",
    )
    advice = "Start all workers again."
    try:
        with clusters.watching(_watched(cluster), advice):
            return tf.distribute.MultiWorkerMirroredStrategy(resolver)
    except tf.errors.OpError as error:  # e.g. a worker still belongs to an earlier start
        first_line = error.message.strip().splitlines()[0][:200]
        raise UserError(f"The workers cannot connect ({first_line}). {advice}") from error


def count(strategy: tf.distribute.Strategy) -> int:
    """Return the number of processes."""
    cluster = clusters.of_strategy(strategy)
    return 1 if cluster is None else len(cluster.addresses)


def index(strategy: tf.distribute.Strategy) -> int:
    """Return the index of this process; the chief, which writes the run folder, is 0."""
    cluster = clusters.of_strategy(strategy)
    return 0 if cluster is None else cluster.index


def _watched(cluster: Cluster) -> dict[str, str]:
    """Return the workers to watch: all for the chief, the chief for the others.

    The chief ends if a worker is lost, and then the others end too.
    """
    addresses = cluster.others if cluster.index == 0 else cluster.addresses[:1]
    return {address: cluster.name(address) for address in addresses}


@contextmanager
def together(strategy: tf.distribute.Strategy, run: Path) -> Iterator[None]:
    """Train in the body; if a worker is lost, the training ends on all the others.

    Raises:
        UserError: a worker was lost.
    """
    cluster = clusters.of_strategy(strategy)
    if cluster is None:
        yield
        return
    advice = (
        "Its own output has the reason. The run can resume from its last checkpoint, also with "
        f"another number of workers: keras-resnet train --resume {run}"
    )
    try:
        with clusters.watching(_watched(cluster), advice):
            yield
    except _ERRORS_OF_A_LOSS as error:
        gone = clusters.lost(cluster)
        if not gone:
            raise
        raise UserError(f"A worker was lost: {', '.join(gone)}. {advice}") from error


# Functions that all workers call at the same place ----------------------------------------------


def _sum(strategy: tf.distribute.Strategy, values: Any) -> np.ndarray:
    """Sum int32 vectors of one length over the workers."""
    total: np.ndarray = strategy.reduce("SUM", tf.constant(values, tf.int32), axis=None).numpy()
    return total


def share(strategy: tf.distribute.Strategy, payload: bytes = b"") -> bytes:
    """Return the chief's payload on every worker."""
    if count(strategy) == 1:
        return payload
    mine = payload if index(strategy) == 0 else b""
    length = int(_sum(strategy, [len(mine)])[0])
    chunks = []
    for start in range(0, length, _CHUNK_BYTES):
        buffer = np.zeros(min(_CHUNK_BYTES, length - start), np.int32)
        if mine:
            buffer[:] = np.frombuffer(mine[start : start + _CHUNK_BYTES], np.uint8)
        chunks.append(_sum(strategy, buffer).astype(np.uint8).tobytes())
    return b"".join(chunks)


def gather(strategy: tf.distribute.Strategy, payload: bytes) -> list[bytes]:
    """Return every worker's (short) payload on every worker."""
    if count(strategy) == 1:
        return [payload]
    here = index(strategy)
    lengths = np.zeros(count(strategy), np.int32)
    lengths[here] = len(payload)
    lengths = _sum(strategy, lengths)
    table = np.zeros((len(lengths), lengths.max()), np.int32)
    table[here, : len(payload)] = np.frombuffer(payload, np.uint8)
    total = _sum(strategy, table.ravel()).reshape(table.shape).astype(np.uint8)
    return [row[:length].tobytes() for row, length in zip(total, lengths, strict=True)]


def require_same(strategy: tf.distribute.Strategy, facts: dict[str, Any]) -> None:
    """Refuse to train together on different configs or data.

    Raises:
        UserError: a worker's facts differ from the chief's; the message has the first difference.
    """
    chief, *others = map(json.loads, gather(strategy, json.dumps(facts).encode()))
    for number, theirs in enumerate(others, start=1):
        for key in sorted(chief.keys() | theirs.keys()):
            if theirs.get(key) != chief.get(key):
                raise UserError(
                    f"The workers differ: {key} is {chief.get(key)!r} for the chief and "
                    f"{theirs.get(key)!r} for worker {number}. Give the same command, config and "
                    "data on every machine."
                )


@contextmanager
def shared_run(strategy: tf.distribute.Strategy, open_run: Callable[[], Run]) -> Iterator[Run]:
    """Open the run and lock it. Only the chief uses the run folder.

    The other workers get a temporary folder.

    Raises:
        UserError: the chief cannot open the run; every worker raises the error.
    """
    with ExitStack() as stack:
        if index(strategy) == 0:
            try:
                run = open_run()
                stack.enter_context(locked(run))
            except UserError as error:
                share(strategy, f"error {error}".encode())
                raise
            share(strategy, f"run {run.path}".encode())
        else:
            kind, _, text = share(strategy).decode().partition(" ")
            if kind == "error":
                raise UserError(f"The chief: {text}")
            scratch = stack.enter_context(tempfile.TemporaryDirectory(prefix="keras-resnet-"))
            run = Run(Path(scratch), home=Path(text))
        yield run


class Votes:
    """Votes among the workers: if any worker wishes something, all do it at the same step.

    Attributes:
        interrupted: True if Ctrl-C was pressed here; the next vote tells the others.
    """

    def __init__(self, strategy: tf.distribute.Strategy) -> None:
        self.strategy, self.alone = strategy, count(strategy) == 1
        self.interrupted = False
        self.steps_left, self.steps, self.began = 1, 1, time.monotonic()

    def any(self, wish: bool) -> bool:
        """Return True if any worker wishes it.

        Raises:
            KeyboardInterrupt: a worker was interrupted.
        """
        if self.alone:
            return wish
        wishes, interrupts = _sum(self.strategy, [int(wish), int(self.interrupted)])
        if interrupts:
            raise KeyboardInterrupt
        return bool(wishes)

    def any_in_a_while(self, wish: bool) -> bool:
        """Return the same as `any`, but vote only about once a second, since a vote takes time.

        Call it at every step.
        """
        if self.alone:
            return wish
        self.steps_left -= 1
        if self.steps_left:
            return False
        seconds = (time.monotonic() - self.began) / self.steps
        mine = int(min(50, max(1, 1 / max(seconds, 1e-3)))) if index(self.strategy) == 0 else 0
        self.steps = self.steps_left = int(_sum(self.strategy, [mine])[0])
        self.began = time.monotonic()
        return self.any(wish)

    @contextmanager
    def on_interrupt(self) -> Iterator[None]:
        """Make Ctrl-C wait for the next vote; a second Ctrl-C acts at once."""
        if self.alone or threading.current_thread() is not threading.main_thread():
            yield
            return

        def remember(*_: Any) -> None:
            self.interrupted = True
            signal.signal(signal.SIGINT, before)

        before = signal.signal(signal.SIGINT, remember)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, before)


def distribute(
    strategy: tf.distribute.Strategy, batches: tf.data.Dataset
) -> tf.distribute.DistributedDataset:
    """Give every replica its rows of each global batch.

    `experimental_distribute_dataset` cannot be used: it shards by files or elements. With sharding
    off, each worker would get the first part of batch t at step 2t and the second part at step
    2t + 1.
    """
    replicas = strategy.num_replicas_in_sync

    def rows_of_worker(context: tf.distribute.InputContext) -> tf.data.Dataset:
        local = replicas // context.num_input_pipelines
        first = context.input_pipeline_id * local

        def parts(*batch: Any) -> tf.data.Dataset:
            size = tf.shape(batch[0])[0] // replicas
            rows = [tensor[first * size : (first + local) * size] for tensor in batch]
            return tf.data.Dataset.from_tensor_slices(
                tuple(tf.stack(tf.split(tensor, local)) for tensor in rows)
            )

        return batches.flat_map(parts).prefetch(2 * local)

    return strategy.distribute_datasets_from_function(rows_of_worker)
