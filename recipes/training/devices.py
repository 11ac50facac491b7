"""The devices of a run, the strategy over them, and the precision that suits them."""

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

    "auto" uses every visible GPU, or the CPU without GPUs. One device gets the default strategy,
    and several get a MirroredStrategy. Several machines (see `recipes/training/machines.py`) get a
    MultiWorkerMirroredStrategy over all their devices, as soon as all machines answer.

    Call it before TensorFlow's first operation (loading a model is one): later, devices cannot be
    chosen and machines cannot join. Further calls return the same strategy.

    Raises:
        UserError: unknown or absent devices, a batch that cannot be divided among them, or a
            machine that does not answer within `wait_seconds`.
    """
    return _strategy(devices, batch_size, wait_seconds, from_environment())


def claim(train: TrainConfig) -> None:
    """Create the strategy of a config early, before a model is loaded; see `strategy`."""
    strategy(train.devices, train.batch_size, train.wait_seconds)


@functools.cache
def _strategy(
    devices: str, batch_size: int, wait_seconds: float, machines: Cluster | None
) -> tf.distribute.Strategy:
    kind, colon, number = devices.partition(":")
    if kind not in ("auto", "cpu", "gpu") or (colon and (kind == "auto" or not number.isdigit())):
        raise UserError(f"devices must be auto, cpu, gpu, cpu:N or gpu:N; received '{devices}'.")
    gpus = tf.config.list_physical_devices("GPU")
    if kind == "auto":
        kind = "gpu" if gpus else "cpu"
    count = int(number) if colon else (len(gpus) if kind == "gpu" else 1)
    if kind == "gpu" and not gpus:
        raise UserError(f"devices = '{devices}', but TensorFlow sees no GPU. Use --devices auto")
    if count < 1:
        raise UserError(f"devices must ask for 1 or more; received '{devices}'.")
    if kind == "gpu" and count > len(gpus):
        raise UserError(
            f"devices = '{devices}', but TensorFlow sees only {len(gpus)} GPUs. "
            f"Use --devices gpu:{len(gpus)}"
        )
    if machines and kind == "cpu" and count > 1:
        raise UserError(
            f"devices = '{devices}' is only for a single process. With several workers, each one "
            "uses its whole CPU: take --devices cpu and start more workers instead."
        )
    replicas = count * (len(machines.addresses) if machines else 1)
    if batch_size % replicas:
        raise UserError(
            f"train.batch_size must be a multiple of {replicas}, the number of devices; received "
            f"{batch_size}. Try --set train.batch_size={-(-batch_size // replicas) * replicas}"
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
    """Split the CPU into logical devices, for trying out several devices without having them."""
    logical = [tf.config.LogicalDeviceConfiguration()] * count
    try:
        tf.config.set_visible_devices([], "GPU")
        if count > 1:
            cpu = tf.config.list_physical_devices("CPU")[0]
            tf.config.set_logical_device_configuration(cpu, logical)
    except RuntimeError as error:
        if len(tf.config.list_logical_devices("CPU")) < count:
            raise UserError(
                f"TensorFlow already runs in this process with fewer than {count} CPU devices. "
                "Choose the devices before its first operation, in a new process."
            ) from error


def precision(name: str) -> str:
    """Resolve "auto": bfloat16 if the hardware supports it, else float16 on GPUs, else float32.

    Call it after `strategy`, which hides the GPUs from a run on the CPU.

    Raises:
        UnknownNameError: an unknown precision.
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
    """Return the name of the kernels in use, e.g. "oneDNN kernels"; for Eigen with the reason."""
    if tf.config.get_visible_devices("GPU"):
        return "GPU kernels"
    if keras_compat.uses_onednn():
        return "oneDNN kernels"
    return f"Eigen kernels{onednn.why_off(onednn.read_cpuinfo())}"
