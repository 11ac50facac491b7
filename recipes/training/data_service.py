"""A tf.data service that prepares the batches in other processes or on other machines.

    keras-resnet data-service --port 5050               # on a machine with idle CPUs
    keras-resnet train CONFIG --data-service grpc://HOST:5050

The service computes exactly the batches, in the same order, that the training would compute itself:
one tf.data worker runs the whole pipeline (ShardingPolicy.OFF) for each training process.
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
    """Wait for the service of `data.service`; "" means no service.

    Raises:
        UserError: not an address, or no answer from it within `wait_seconds`.
    """
    if service:
        machines.wait_for(_address(service), f"the data service {service}", wait_seconds)


def require_readable(service: str, split: AnySplit) -> None:
    """Refuse images for `service` that need Pillow, which only the training process can call.

    Raises:
        UserError: there are such images; the message has the name of the first one.
    """
    if service and (others := split.read_by_pillow):
        raise UserError(
            f"The data service {service} only reads JPEG and PNG; {others[0]} is neither (one of "
            f"{len(others):,}). Convert them, or train without data.service."
        )


def served(batches: tf.data.Dataset, service: str) -> tf.data.Dataset:
    """Return the same batches in the same order, computed by the service at grpc://HOST:PORT."""
    distributed = tf.data.experimental.service.distribute(
        processing_mode=tf.data.experimental.service.ShardingPolicy.OFF,
        service=service,
        compression=None,  # uint8 images barely shrink
    )
    # The client fills its buffer independently; operations here use the options of `batches`.
    return batches.apply(distributed).with_options(batches.options())


@contextmanager
def watched(service: str, run: Path) -> Iterator[None]:
    """End the process (code 2) if the service is lost: TensorFlow would wait for it forever."""
    names = {_address(service): f"the data service {service}"} if service else {}
    advice = f"Start it again and resume with: keras-resnet train --resume {run}"
    with machines.watching(names, advice):
        yield


def serve(port: int, host: str | None, started: Callable[[str], None]) -> None:
    """Serve at `port`, and at `port` + 1 for the batches, until Ctrl-C.

    Args:
        port: the port that training processes connect to.
        host: the name or address of this machine for them; None for its host name.
        started: a function that is called with the service's address when it is ready.

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
        raise UserError(
            f"Cannot serve at the ports {port} and {port + 1}: {error}. Choose another port: "
            "keras-resnet data-service --port PORT"
        ) from error
    started(f"{_SCHEME}{host}:{port}")
    with suppress(KeyboardInterrupt):
        threading.Event().wait()
    del worker, dispatcher


def _address(service: str) -> str:
    address = service.removeprefix(_SCHEME)
    if not service.startswith(_SCHEME) or not machines.is_address(address):
        raise UserError(
            f"data.service must be {_SCHEME}HOST:PORT; received '{service}'. "
            f"Example: --data-service {_SCHEME}localhost:5050"
        )
    return address
