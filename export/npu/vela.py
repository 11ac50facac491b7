"""Arm's compiler Vela, which turns an int8 TFLite file into one for an Ethos-U.

`pip install "keras-resnet-zoo[npu]"` installs it. It is a program; this module starts it.
"""

from __future__ import annotations

import csv
import importlib.metadata
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from keras_resnet.errors import UserError, require

ACCELERATORS = (
    *("ethos-u55-32", "ethos-u55-64", "ethos-u55-128", "ethos-u55-256"),
    *("ethos-u65-256", "ethos-u65-512"),
    *("ethos-u85-128", "ethos-u85-256", "ethos-u85-512", "ethos-u85-1024", "ethos-u85-2048"),
)
OPERATION = "ethos-u"  # the custom operation that holds the commands for the NPU
_SECONDS = 600.0
_KIB, _MILLI = 1024, 1e3
# Columns of Vela's summary: our name with the unit, and the factor. It gives memory in KiB.
_ESTIMATES = {
    "sram_memory_used": ("SRAM KiB", 1.0),
    "off_chip_flash_memory_used": ("flash KiB", 1.0),
    "dram_memory_used": ("DRAM KiB", 1.0),
    "cycles_total": ("cycles", 1.0),
    "inference_time": ("ms", _MILLI),
}


@dataclass(frozen=True)
class Compiled:
    """A compiled file.

    Attributes:
        data: the TFLite file with the commands for the NPU.
        how: the compiler with its version and the system that it assumed.
        estimates: the compiler's estimates, by name with unit.
    """

    data: bytes
    how: str
    estimates: dict[str, float]


def compile_file(data: bytes, accelerator: str) -> Compiled:
    """Compile a TFLite file for an Ethos-U with Vela's default system and memory mode.

    Args:
        data: an int8 TFLite file.
        accelerator: a name of `ACCELERATORS`.

    Raises:
        MissingExtraError: Vela is not installed.
        UserError: Vela cannot compile the file.
    """
    require("ethosu.vela", "npu")
    with tempfile.TemporaryDirectory(prefix="keras-resnet-") as scratch:
        source, out = Path(scratch) / "model.tflite", Path(scratch) / "out"
        source.write_bytes(data)
        command = [sys.executable, "-c", "from ethosu.vela.vela import main; main()", str(source)]
        command += ["--accelerator-config", accelerator, "--output-dir", str(out)]
        try:
            done = subprocess.run(
                command, capture_output=True, text=True, errors="replace", timeout=_SECONDS
            )
        except subprocess.TimeoutExpired as error:
            raise UserError(f"Vela does not finish within {_SECONDS:g} seconds.") from error
        compiled = out / "model_vela.tflite"
        if done.returncode or not compiled.is_file():
            said = [line for line in (done.stderr or done.stdout).splitlines() if line.strip()]
            raise UserError(
                f"Vela cannot compile the file for {accelerator}: {(said or ['?'])[-1]}"
            )
        (summary,) = out.glob("model_summary_*.csv")
        with summary.open(encoding="utf-8", newline="") as file:
            (row,) = csv.DictReader(file)
        version = importlib.metadata.version("ethos-u-vela")
        how = (
            f"compiled by Vela {version} for {row['system_config']}, {row['memory_mode']}; not run"
        )
        estimates = {
            name: round(float(row[column]) * factor, 3)
            for column, (name, factor) in _ESTIMATES.items()
            if float(row[column])
        }
        return Compiled(compiled.read_bytes(), how, estimates)
