"""The machines of a run, from the environment: who they are, waiting for them, missing one.

`TF_CONFIG` is TensorFlow's variable for it, which Ray, Kubernetes' TFJob and most clouds set;
under Slurm the variables of a job step stand in for it.
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

PATIENCE_SECONDS = 30.0  # a worker that cannot be connected to for so long is lost
_PROBE_SECONDS = 5.0


@dataclass(frozen=True)
class Cluster:
    """Every worker's HOST:PORT, the chief's first, and which of them this process is."""

    addresses: tuple[str, ...]
    index: int

    @property
    def others(self) -> tuple[str, ...]:
        """The addresses of the other workers."""
        return tuple(a for index, a in enumerate(self.addresses) if index != self.index)

    def name(self, address: str) -> str:
        """A worker as people know it."""
        index = self.addresses.index(address)
        return f"worker {index}{' (the chief)' if index == 0 else ''} at {address}"


def from_environment() -> Cluster | None:
    """The cluster that `TF_CONFIG` or a Slurm job step describes; None for a process on its own.

    Raises:
        UserError: TF_CONFIG is malformed, or of parameter servers.
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
        return None  # launchers set {} for a process on its own
    if not isinstance(jobs, dict):
        raise _malformed("'cluster' is a table of jobs, each a list of HOST:PORT")
    if unknown := sorted(set(jobs) - {"chief", "worker"}):
        raise _malformed(f"the jobs are 'chief' and 'worker'; received '{unknown[0]}'")
    for job, addresses in jobs.items():
        if not isinstance(addresses, list) or not all(map(is_address, addresses)):
            raise _malformed(f"cluster.{job} is a list of HOST:PORT; received {addresses!r}")
    chiefs, workers = jobs.get("chief", []), jobs.get("worker", [])
    everyone = (*chiefs, *workers)
    if len(chiefs) > 1 or len(set(everyone)) < len(everyone):
        raise _malformed("there is one chief at most, and each worker has an address of its own")
    kind, index = _task(table.get("task"), jobs)
    return Cluster(everyone, index + (len(chiefs) if kind == "worker" else 0))


def _task(task: Any, jobs: dict[str, list[str]]) -> tuple[str, int]:
    kind, index = (task.get("type"), task.get("index")) if isinstance(task, dict) else ("", "")
    if kind in jobs and str(index).isdecimal() and int(str(index)) < len(jobs[kind]):
        return kind, int(str(index))
    raise _malformed(
        f"'task' has a type of {sorted(jobs)} and an index into its list; received {task!r}"
    )


def _malformed(what: str) -> UserError:
    example = (
        '{"cluster": {"worker": ["a:12345", "b:12345"]}, "task": {"type": "worker", "index": 0}}'
    )
    return UserError(f"The environment variable TF_CONFIG: {what}. It looks like {example}.")


def is_address(text: Any) -> bool:
    """Whether this is HOST:PORT."""
    host, _, port = text.rpartition(":") if isinstance(text, str) else ("", "", "")
    return bool(host) and port.isdecimal() and 0 < int(port) < 2**16


def split_address(address: str) -> tuple[str, int]:
    """HOST:PORT in two; IPv6 hosts are in brackets."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


def _from_slurm() -> Cluster:
    """One worker per task of the job step (`srun`); the ports are 8888 and up."""
    try:
        # The numbers of GPUs keep it from asking nvidia-smi; Slurm itself binds GPUs to tasks.
        resolver = tf.distribute.cluster_resolver.SlurmClusterResolver(
            gpus_per_node=int(os.environ["SLURM_STEP_NUM_TASKS"]),
            gpus_per_task=1,
            auto_set_gpu=False,
        )
        addresses = tuple(resolver.cluster_spec().as_dict()["worker"])
    except (RuntimeError, ValueError, KeyError) as error:
        raise UserError(f"Slurm's variables do not describe a job step: {error}") from error
    return Cluster(addresses, int(os.environ["SLURM_PROCID"]))


def of_strategy(strategy: tf.distribute.Strategy) -> Cluster | None:
    """The cluster a strategy computes on; None if that is this process alone."""
    if not isinstance(strategy, tf.distribute.MultiWorkerMirroredStrategy):
        return None
    resolver = strategy.cluster_resolver
    return Cluster(tuple(resolver.cluster_spec().as_dict()["worker"]), resolver.task_id)


# Reaching the others ----------------------------------------------------------------------------


def answers(address: str, seconds: float = 2.0) -> bool:
    """Whether somebody listens at HOST:PORT."""
    try:
        socket.create_connection(split_address(address), timeout=seconds).close()
    except OSError:
        return False
    return True


def wait_for(address: str, what: str, seconds: float) -> None:
    """Return when somebody listens at HOST:PORT.

    Raises:
        UserError: nobody did for `seconds`.
    """
    deadline, told = time.monotonic() + seconds, False
    while not answers(address):
        if time.monotonic() >= deadline:
            raise UserError(
                f"No answer from {what} within {seconds:.0f} s. Is it running, is the address "
                "right, does a firewall let the port through? (train.wait_seconds is how long "
                "to wait.)"
            )
        if not told:
            print(f"waiting for {what}", file=sys.stderr, flush=True)
            told = True
        time.sleep(0.5)


def meet(cluster: Cluster, seconds: float) -> None:
    """Wait until every worker is there; TensorFlow itself would wait forever and say nothing.

    Raises:
        UserError: one was not there for `seconds`, or this worker's port is taken.
    """
    own = cluster.addresses[cluster.index]
    _, port = split_address(own)
    try:
        # Until TensorFlow listens at this worker's port we do, so that the others find it.
        listener = socket.create_server(("", port), backlog=1024)
    except OSError as error:
        raise UserError(f"Cannot listen at port {port} of {own}: {error.strerror}.") from error
    with listener:
        for address in cluster.others:
            wait_for(address, cluster.name(address), seconds)


def lost(cluster: Cluster, seconds: float = 10.0) -> list[str]:
    """The names of the workers that are gone; looks until one is, or for `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        gone = [cluster.name(a) for a in cluster.others if not answers(a)]
        if gone or time.monotonic() >= deadline:
            return gone
        time.sleep(0.5)


@contextmanager
def watching(addresses: dict[str, str], advice: str) -> Iterator[None]:
    """End the process (code 2) when one of {HOST:PORT: its name} is gone while the body runs.

    TensorFlow raises an error when it notices; where it would wait forever (while a cluster
    starts, or for a data service) nothing but the end of the process helps.
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
