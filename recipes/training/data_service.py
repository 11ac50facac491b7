"""A tf.data service that prepares the batches, in processes or on machines beside the training.

    keras-resnet data-service --port 5050               # on the machine with CPUs to spare
    keras-resnet train CONFIG --data-service grpc://HOST:5050

The service computes the very batches, in the very order, that the training would have computed:
one tf.data worker runs the whole pipeline (ShardingPolicy.OFF) for each process that trains.
"""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import tensorflow as tf

from keras_resnet.errors import UserError
from keras_resnet.recipes.data.datasets import AnySplit
from keras_resnet.recipes.training import machines

_SCHEME = "grpc://"


def require(service: str, wait_seconds: float) -> None:
    """Wait for the service of `data.service`; "" is none.

    Raises:
        UserError: not an address, or nothing answers there for `wait_seconds`.
    """
    if service:
        machines.wait_for(_address(service), f"the data service {service}", wait_seconds)


def require_readable(service: str, split: AnySplit) -> None:
    """Refuse images for `service` that Pillow reads, which is called in the process that trains.

    Raises:
        UserError: the name of the first one.
    """
    if service and (others := split.read_by_pillow):
        raise UserError(
            f"The data service {service} reads JPEG and PNG only; {others[0]} is neither (one of "
            f"{len(others):,}). Convert them, or train without data.service."
        )


def served(batches: tf.data.Dataset, service: str) -> tf.data.Dataset:
    """The same batches in the same order, computed by the service at grpc://HOST:PORT."""
    distributed = tf.data.experimental.service.distribute(
        processing_mode=tf.data.experimental.service.ShardingPolicy.OFF,
        service=service,
        compression=None,  # uint8 images barely shrink
    )
    # The client's buffer fills at its own pace; what runs here has the options of `batches`.
    return batches.apply(distributed).with_options(batches.options())


@contextmanager
def watched(service: str, run: Path) -> Iterator[None]:
    """End the process (code 2) when the service is gone: TensorFlow would wait for it forever."""
    names = {_address(service): f"the data service {service}"} if service else {}
    advice = f"Start it again and go on with: keras-resnet train --resume {run}"
    with machines.watching(names, advice):
        yield


def serve(port: int, host: str | None, started: Callable[[str], None]) -> None:
    """Serve at `port` (and `port` + 1, where the batches come from) until Ctrl-C.

    Args:
        port: where the training processes ask.
        host: the name or address under which they reach this machine; None for its host name.
        started: called with the service's address once it serves.

    Raises:
        UserError: a port is taken.
    """
    host = host or socket.gethostname()
    service = tf.data.experimental.service
    try:
        dispatcher = service.DispatchServer(service.DispatcherConfig(port=port))
        worker = service.WorkerServer(
            service.WorkerConfig(
                dispatcher_address=f"localhost:{port}",
                worker_address=f"{host}:{port + 1}",
                port=port + 1,
            )
        )
    except (tf.errors.OpError, RuntimeError) as error:
        raise UserError(f"Cannot serve at the ports {port} and {port + 1}: {error}") from error
    started(f"{_SCHEME}{host}:{port}")
    with suppress(KeyboardInterrupt):
        threading.Event().wait()
    del worker, dispatcher


def _address(service: str) -> str:
    address = service.removeprefix(_SCHEME)
    if not service.startswith(_SCHEME) or not machines.is_address(address):
        raise UserError(f"A data service is {_SCHEME}HOST:PORT; received '{service}'.")
    return address
