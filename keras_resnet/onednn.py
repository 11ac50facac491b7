"""Turn on oneDNN's kernels on CPUs where they are faster, but TensorFlow leaves them off.

TensorFlow 2.21 for Linux contains oneDNN. It uses it by default only on CPUs with AVX512-VNNI,
AVX512-BF16, AVX-VNNI or AMX, and on Arm's Neoverse V1 (`DefaultOneDnnPolicy` in
tensorflow/core/util/port.cc). That leaves out two kinds of x86 CPUs (figures:
benchmarks/README.md):

- With AVX512, training takes less than half the time, and a single image about the same time.
- With AVX2 only, training is up to twice as fast, but a single image takes up to 20 times as long.
  For a batch of one, TensorFlow uses a layout of the weights (hwio, in `MklConvFwdPrimitive`) for
  which oneDNN has a fast convolution only with AVX512. On these CPUs it is turned on for training
  only.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

VARIABLE = "TF_ENABLE_ONEDNN_OPTS"  # TensorFlow reads it once, during its import
# What decides the speed of convolutions, as /proc/cpuinfo writes it.
INSTRUCTIONS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx_vnni", "amx_int8", "asimd")
_ON_BY_DEFAULT = frozenset(
    ("avx512_vnni", "avx512_bf16", "avx_vnni", "amx_tile", "amx_int8", "amx_bf16")
)


def turn_on(cpuinfo: str, *, training: bool) -> None:
    """Set `TF_ENABLE_ONEDNN_OPTS=1` if that is faster here and the user has not set it.

    Child processes inherit the variable. If TensorFlow is already imported, nothing changes: this
    process could not profit, and its child processes must compute as it does.

    Args:
        cpuinfo: see `read_cpuinfo`.
        training: True if the process will train.
    """
    still_free = VARIABLE not in os.environ and "tensorflow" not in sys.modules
    if still_free and is_faster(cpuinfo, training=training):
        os.environ[VARIABLE] = "1"


def is_faster(cpuinfo: str, *, training: bool) -> bool:
    """Return True if oneDNN is faster on this CPU, but TensorFlow leaves it off.

    The arguments are those of `turn_on`.
    """
    flags = _flags(cpuinfo)
    wanted = "avx2" if training else "avx512f"
    return wanted in flags and not flags & _ON_BY_DEFAULT


def why_off(cpuinfo: str) -> str:
    """Return, in brackets, why oneDNN is off in training; nothing if that is TensorFlow's choice.

    Args:
        cpuinfo: see `read_cpuinfo`.
    """
    if VARIABLE in os.environ:
        return f" ({VARIABLE}={os.environ[VARIABLE]})"
    if not is_faster(cpuinfo, training=True):
        return ""
    return (
        " (oneDNN's would be up to twice as fast on this CPU, but TensorFlow was imported first: "
        f"set {VARIABLE}=1 before Python starts, or import keras_resnet.recipes before TensorFlow)"
    )


def instruction_sets(cpuinfo: str) -> list[str]:
    """Return the instruction sets of `INSTRUCTIONS` that the CPU has.

    Args:
        cpuinfo: see `read_cpuinfo`.
    """
    return [name for name in INSTRUCTIONS if name in _flags(cpuinfo)]


def _flags(cpuinfo: str) -> set[str]:
    """Return the words of the line `flags`, which Arm calls `Features`."""
    lines = (line for line in cpuinfo.splitlines() if line.startswith(("flags", "Features")))
    return set(next(lines, "").split())


def read_cpuinfo() -> str:
    """Return the text of Linux's /proc/cpuinfo, or nothing on other systems.

    Windows and macOS have no such file, and there is nothing to decide: TensorFlow for Windows uses
    oneDNN on every x86 CPU, and TensorFlow for macOS does not contain it.
    """
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
