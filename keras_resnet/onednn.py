"""oneDNN's kernels, on the CPUs where TensorFlow leaves them off although they are faster.

TensorFlow 2.21 for Linux has oneDNN built in, but uses it by default only on CPUs with AVX512-VNNI,
AVX512-BF16, AVX-VNNI or AMX and on Arm's Neoverse V1 (`DefaultOneDnnPolicy` in
tensorflow/core/util/port.cc). With AVX2 alone a training step of ResNet-20 takes half the time with
oneDNN (the table is in benchmarks/README.md).
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

VARIABLE = "TF_ENABLE_ONEDNN_OPTS"  # TensorFlow reads it once, while it is imported
_ON_BY_DEFAULT = frozenset(
    ("avx512_vnni", "avx512_bf16", "avx_vnni", "amx_tile", "amx_int8", "amx_bf16")
)


def turn_on(cpuinfo: str) -> None:
    """Set `TF_ENABLE_ONEDNN_OPTS=1` if that is faster here and the user has not set it.

    Child processes inherit the variable. It comes too late if TensorFlow was imported before: then
    a line on stderr says so.

    Args:
        cpuinfo: see `read_cpuinfo`.
    """
    if VARIABLE in os.environ or not is_left_off(cpuinfo):
        return
    if "tensorflow" in sys.modules:
        print(
            "keras_resnet: TensorFlow was imported first and runs without oneDNN, so training "
            f"takes up to twice as long on this CPU. Set {VARIABLE}=1 before Python starts, or "
            f"import keras_resnet before TensorFlow. {VARIABLE}=0 hides this line.",
            file=sys.stderr,
        )
        return
    os.environ[VARIABLE] = "1"


def is_left_off(cpuinfo: str) -> bool:
    """Return whether TensorFlow leaves oneDNN off on this CPU although it is faster.

    Args:
        cpuinfo: see `read_cpuinfo`.
    """
    lines = cpuinfo.splitlines()
    # Only x86 has such a line; Arm calls it "Features".
    flags = next((set(line.split()) for line in lines if line.startswith("flags")), set())
    return "avx2" in flags and not flags & _ON_BY_DEFAULT


def read_cpuinfo() -> str:
    """Return the text of Linux's /proc/cpuinfo; on other systems nothing.

    Windows and macOS have no such file, and nothing to decide: TensorFlow's packages for Windows
    use oneDNN on every x86 CPU, those for macOS are built without it.
    """
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
