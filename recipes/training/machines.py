"""The machines of a run: find them in the environment, wait for them, notice a lost one.

They are listed in TensorFlow's variable `TF_CONFIG`, which Ray, Kubernetes' TFJob and most clouds
set. Under Slurm, the variables of a job step are used instead.
"""

from __future__ import annotations

import json
import os
import socket
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from keras_resnet.errors import UserError

PATIENCE_SECONDS = 30.0  # a worker that does not answer for this time is lost
_PROBE_SECONDS = 5.0


@dataclass(frozen=True)
class Cluster:
    """The HOST:PORT of every worker, the chief's first, and the index of this process."""

    addresses: tuple[str, ...]
    index: int

    @property
    def others(self) -> tuple[str, ...]:
        """The addresses of the other workers."""
        return tuple(a for index, a in enumerate(self.addresses) if index != self.index)

    def name(self, address: str) -> str:
        """Return a worker's name for messages."""
        index = self.addresses.index(address)
        return f"worker {index}{' (the chief)' if index == 0 else ''} at {address}"


def from_environment() -> Cluster | None:
    """Return the cluster of `TF_CONFIG` or of a Slurm job step; None for a single process.

    Raises:
        UserError: TF_CONFIG is malformed, or describes parameter servers.
    """
    cluster: Cluster | None
    if os.environ.get("TF_CONFIG", "").strip():
        cluster = _from_tf_config(os.environ["TF_CONFIG"])
    elif int(os.environ.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        cluster = _from_slurm()
    else:
        return None
    return cluster if cluster is not None and len(cluster.addresses) > 1 else None


def _from_tf_config(text: str) -> Cluster | None:
    try:
        table = json.loads(text)
    except json.JSONDecodeError as error:
        raise _malformed(f"it is not JSON ({error})") from error
    jobs = table.get("cluster") if isinstance(table, dict) else None
    if not jobs and isinstance(table, dict):
        return None  # launchers set {} for a single process
    if not isinstance(jobs, dict):
        raise _malformed("'cluster' must be a table of jobs, each a list of HOST:PORT")
    if unknown := sorted(set(jobs) - {"chief", "worker"}):
        raise _malformed(f"the jobs must be 'chief' or 'worker'; received '{unknown[0]}'")
    for job, addresses in jobs.items():
        if not isinstance(addresses, list) or not all(map(is_address, addresses)):
            raise _malformed(f"cluster.{job} must be a list of HOST:PORT; received {addresses!r}")
    chiefs, workers = jobs.get("chief", []), jobs.get("worker", [])
    everyone = (*chiefs, *workers)
    if len(chiefs) > 1 or len(set(everyone)) < len(everyone):
        raise _malformed("there must be at most one chief, and a different address per worker")
    kind, index = _task(table.get("task"), jobs)
    return Cluster(everyone, index + (len(chiefs) if kind == "worker" else 0))


def _task(task: Any, jobs: dict[str, list[str]]) -> tuple[str, int]:
    kind, index = (task.get("type"), task.get("index")) if isinstance(task, dict) else ("", "")
    if kind in jobs and str(index).isdecimal() and int(str(index)) < len(jobs[kind]):
        return kind, int(str(index))
    raise _malformed(
        f"'task' must have a type from {sorted(jobs)} and an index into its list; received {task!r}"
    )


def _malformed(what: str) -> UserError:
    example = (
        '{"cluster": {"worker": ["a:12345", "b:12345"]}, "task": {"type": "worker", "index": 0}}'
    )
    return UserError(f"The environment variable TF_CONFIG is wrong: {what}. Example: {example}")


def is_address(text: Any) -> bool:
    """Return True if `text` is HOST:PORT."""
    host, _, port = text.rpartition(":") if isinstance(text, str) else ("", "", "")
    return bool(host) and port.isdecimal() and 0 < int(port) < 2**16


def split_address(address: str) -> tuple[str, int]:
    """Split HOST:PORT into host and port; IPv6 hosts are in brackets."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _from_slurm() -> Cluster:
    """Return a worker for each task of the job step (`srun`), with ports from 8888 upwards."""
    try:
        # Given numbers of GPUs keep the resolver from calling nvidia-smi; Slurm binds the GPUs.
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
            gpus_per_node=int(os.environ["SLURM_STEP_NUM_TASKS"]),
            gpus_per_task=1,
            auto_set_gpu=False,
        )
        addresses = tuple(resolver.cluster_spec().as_dict()["worker"])
    except (RuntimeError, ValueError, KeyError) as error:
        raise UserError(
            f"Slurm's variables do not describe a job step: {error}. Start the workers with srun, "
            "or set TF_CONFIG."
        ) from error
    return Cluster(addresses, int(os.environ["SLURM_PROCID"]))


def of_strategy(strategy: tf.distribute.Strategy) -> Cluster | None:
    """Return the cluster of a strategy; None if it uses only this process."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return None
    resolver = strategy.cluster_resolver
    return Cluster(tuple(resolver.cluster_spec().as_dict()["worker"]), resolver.task_id)


# Connections to the other workers ---------------------------------------------------------------


def answers(address: str, seconds: float = 2.0) -> bool:
    """Return True if a process listens at HOST:PORT."""
    try:
        socket.create_connection(split_address(address), timeout=seconds).close()
    except OSError:
        return False
    return True


def wait_for(address: str, what: str, seconds: float) -> None:
    """Wait until a process listens at HOST:PORT.

    Raises:
        UserError: none did within `seconds`.
    """
    deadline, told = time.monotonic() + seconds, False
    while not answers(address):
        if time.monotonic() >= deadline:
            raise UserError(
                f"No answer from {what} within {seconds:.0f} s. Check that it is running, that the "
                "address is right, and that no firewall blocks the port. To wait longer: --set "
                "train.wait_seconds=N"
            )
        if not told:
            print(f"waiting for {what}", file=sys.stderr, flush=True)
            told = True
        time.sleep(0.5)


def meet(cluster: Cluster, seconds: float) -> None:
    """Wait until every worker answers; TensorFlow itself would wait forever, without a message.

    Raises:
        UserError: a worker did not answer within `seconds`, or this worker's port is taken.
    """
    own = cluster.addresses[cluster.index]
    _, port = split_address(own)
    try:
        # Listen at this worker's port until TensorFlow does, so that the others find it.
        listener = socket.create_server(("", port), backlog=1024)
    except OSError as error:
        raise UserError(
            f"Cannot listen at port {port} of {own}: {error.strerror}. Choose another port in "
            "TF_CONFIG."
        ) from error
    with listener:
        for address in cluster.others:
            wait_for(address, cluster.name(address), seconds)


def lost(cluster: Cluster, seconds: float = 10.0) -> list[str]:
    """Return the names of lost workers; check until one is lost, at most for `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        gone = [cluster.name(a) for a in cluster.others if not answers(a)]
        if gone or time.monotonic() >= deadline:
            return gone
        time.sleep(0.5)


@contextmanager
def watching(addresses: dict[str, str], advice: str) -> Iterator[None]:
    """End the process (code 2) if one of {HOST:PORT: its name} is lost while the body runs.

    Usually TensorFlow notices the loss and raises an error. In some places it would wait forever:
    while a cluster starts, or for a data service. There only ending the process helps.
    """
    if not addresses:
        yield
        return
    finished = threading.Event()

    def watch() -> None:
        seen = dict.fromkeys(addresses, time.monotonic())
        while not finished.wait(_PROBE_SECONDS):
            for address, name in addresses.items():
                if answers(address):
                    seen[address] = time.monotonic()
                elif time.monotonic() - seen[address] > PATIENCE_SECONDS and not finished.is_set():
                    print(
                        f"error: {name} was lost: no answer for {PATIENCE_SECONDS:.0f} s. {advice}",
                        file=sys.stderr,
                        flush=True,
                    )
                    os._exit(2)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        finished.set()
