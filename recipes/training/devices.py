"""What the run computes on: devices, the strategy over them, and the precision they are good at."""

from __future__ import annotations

import functools

import tensorflow as tf

from keras_resnet import keras_compat, onednn
from keras_resnet.errors import UnknownNameError, UserError
from keras_resnet.recipes.configs.schema import TrainConfig
from keras_resnet.recipes.training import workers
from keras_resnet.recipes.training.machines import Cluster, from_environment

PRECISIONS = ("float32", "mixed_bfloat16", "mixed_float16")


def strategy(devices: str, batch_size: int, wait_seconds: float = 300.0) -> tf.distribute.Strategy:
    """Return the strategy for "auto", "cpu", "gpu", "cpu:N" (N logical devices) or "gpu:N".

    "auto" is every GPU that is visible, or else the CPU. One device gets the default strategy,
    several a MirroredStrategy, several machines (see `recipes/training/machines.py`) a
    MultiWorkerMirroredStrategy over the devices of all, once all are there.

    Ask before TensorFlow's first operation (loading a model is one), when devices can still be
    chosen and machines joined; asked again, it gives the same.

    Raises:
        UserError: unknown or absent devices, a batch that does not divide among them, or another
            machine that does not answer for `wait_seconds`.
    """
    return _strategy(devices, batch_size, wait_seconds, from_environment())


def claim(train: TrainConfig) -> None:
    """`strategy`, for the time when it can still be had: before a model is loaded."""
    strategy(train.devices, train.batch_size, train.wait_seconds)


@functools.cache
def _strategy(
    devices: str, batch_size: int, wait_seconds: float, machines: Cluster | None
) -> tf.distribute.Strategy:
    kind, colon, number = devices.partition(":")
    if kind not in ("auto", "cpu", "gpu") or (colon and (kind == "auto" or not number.isdigit())):
        raise UserError(f"devices is auto, cpu, gpu, cpu:N or gpu:N; received '{devices}'.")
    gpus = tf.config.list_physical_devices("GPU")
    if kind == "auto":
        kind = "gpu" if gpus else "cpu"
    count = int(number) if colon else (len(gpus) if kind == "gpu" else 1)
    if kind == "gpu" and not gpus:
        raise UserError("devices asks for GPUs, but TensorFlow sees none; take auto or cpu.")
    if count < 1:
        raise UserError(f"devices wants 1 or more; received '{devices}'.")
    if kind == "gpu" and count > len(gpus):
        raise UserError(f"devices = '{devices}', but {len(gpus)} GPUs are visible.")
    if machines and kind == "cpu" and count > 1:
        raise UserError(
            f"devices = '{devices}' is for a process on its own; on several machines each one "
            "computes on its CPU as a whole. Start more of them instead."
        )
    replicas = count * (len(machines.addresses) if machines else 1)
    if batch_size % replicas:
        raise UserError(
            f"The global batch of {batch_size} does not divide among {replicas} devices; "
            f"take a multiple of {replicas}."
        )
    if kind == "cpu":
        _hide_gpus_and_split_cpu(count)
    if machines:
        if kind == "gpu":
            tf.config.set_visible_devices(gpus[:count], "GPU")
        return workers.strategy(machines, count if kind == "gpu" else 0, wait_seconds)
    if count == 1:
        return tf.distribute.get_strategy()
    return tf.distribute.MirroredStrategy([f"{kind.upper()}:{index}" for index in range(count)])


def _hide_gpus_and_split_cpu(count: int) -> None:
    """Logical CPU devices exist so that several devices can be tried without having them."""
    logical = [tf.config.LogicalDeviceConfiguration()] * count
    try:
        tf.config.set_visible_devices([], "GPU")
        if count > 1:
            cpu = tf.config.list_physical_devices("CPU")[0]
            tf.config.set_logical_device_configuration(cpu, logical)
    except RuntimeError as error:
        if len(tf.config.list_logical_devices("CPU")) < count:
            raise UserError(
                f"TensorFlow already runs in this process with fewer than {count} CPU devices; "
                "choose devices before its first operation."
            ) from error


def precision(name: str) -> str:
    """Resolve "auto": bfloat16 where the hardware multiplies it, else float16 on GPUs.

    Ask after `strategy`, which hides the GPUs from a run on the CPU.

    Raises:
        UnknownNameError: no such precision.
    """
    if name in PRECISIONS:
        return name
    if name != "auto":
        raise UnknownNameError("precision", name, ("auto", *PRECISIONS), "")
    gpus = tf.config.get_visible_devices("GPU")
    if not gpus:
        return "mixed_bfloat16" if _cpu_has_bfloat16() else "float32"
    details = tf.config.experimental.get_device_details(gpus[0])
    capability = details.get("compute_capability", (0, 0))
    if capability >= (8, 0):  # Ampere
        return "mixed_bfloat16"
    return "mixed_float16" if capability >= (7, 0) else "float32"  # Volta has tensor cores


def _cpu_has_bfloat16() -> bool:
    flags = onednn.read_cpuinfo().split()
    return "avx512_bf16" in flags or "amx_bf16" in flags


def kernels() -> str:
    """Name the kernels that compute, e.g. "oneDNN kernels"; of Eigen's also why it is those."""
    if tf.config.get_visible_devices("GPU"):
        return "GPU kernels"
    if keras_compat.uses_onednn():
        return "oneDNN kernels"
    return f"Eigen kernels{onednn.why_off(onednn.read_cpuinfo())}"
