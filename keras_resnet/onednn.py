"""oneDNN's kernels, on CPUs where TensorFlow leaves them off although they are faster.

TensorFlow 2.21 for Linux has oneDNN built in, but uses it by default only on CPUs with AVX512-VNNI,
AVX512-BF16, AVX-VNNI or AMX and on Arm's Neoverse V1 (`DefaultOneDnnPolicy` in
tensorflow/core/util/port.cc). Two kinds of x86 CPUs are left out (figures: benchmarks/README.md):

- With AVX512, training takes less than half the time and one image about as long as before.
- With AVX2 alone, training is up to twice as fast. But one image by itself takes up to 20 times as
  long: for a batch of one TensorFlow fixes a layout of the weights (hwio, in `MklConvFwdPrimitive`)
  in which oneDNN has a fast convolution for AVX512 only. There it is turned on for training.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

VARIABLE = "TF_ENABLE_ONEDNN_OPTS"  # TensorFlow reads it once, while it is imported
_ON_BY_DEFAULT = frozenset(
    ("avx512_vnni", "avx512_bf16", "avx_vnni", "amx_tile", "amx_int8", "amx_bf16")
)


def turn_on(cpuinfo: str, *, training: bool) -> None:
    """Set `TF_ENABLE_ONEDNN_OPTS=1` if that is faster here and the user has not set it.

    Child processes inherit the variable. Once TensorFlow is imported nothing is changed: this
    process could not profit, and its children shall compute as it does.

    Args:
        cpuinfo: see `read_cpuinfo`.
        training: whether the process is known to train.
    """
    still_free = VARIABLE not in os.environ and "tensorflow" not in sys.modules
    if still_free and is_faster(cpuinfo, training=training):
        os.environ[VARIABLE] = "1"


def is_faster(cpuinfo: str, *, training: bool) -> bool:
    """Return whether TensorFlow leaves oneDNN off on this CPU although it is faster.

    The arguments are those of `turn_on`.
    """
    lines = cpuinfo.splitlines()
    # Only x86 has such a line; Arm calls it "Features".
    flags = next((set(line.split()) for line in lines if line.startswith("flags")), set())
    wanted = "avx2" if training else "avx512f"
    return wanted in flags and not flags & _ON_BY_DEFAULT


def why_off(cpuinfo: str) -> str:
    """Return, in brackets, what keeps oneDNN off in a training, or nothing if that is TensorFlow.

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


def read_cpuinfo() -> str:
    """Return the text of Linux's /proc/cpuinfo; on other systems nothing.

    Windows and macOS have no such file, and nothing to decide: TensorFlow's packages for Windows
    use oneDNN on every x86 CPU, those for macOS are built without it.
    """
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
