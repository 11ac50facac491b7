"""Run the TFLite files of exports on an emulated ARM processor, and compare with this machine.

    keras-resnet export resnet8 --weights cifar10 \
        --formats tflite-float32,tflite-dynamic,tflite-int8,tflite-int4
    python benchmarks/aarch64.py resnet8-exports --data cifar10 [--json FILE]

It needs Debian 12 with qemu-user-static, and the internet at the first start: it puts
Debian's Python for arm64 and LiteRT's aarch64 wheel into a folder, without installing anything. It
tells whether the answers are right, and nothing about speed. Exit code 1: an answer differs.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from keras_resnet.display.console import print_table
from keras_resnet.export import manifest
from keras_resnet.recipes.export import images_for_check
from keras_resnet.recipes.runs import sources
from keras_resnet.recipes.runs.folder import write_json
from keras_resnet.weights.download import cache_home

QEMU = "qemu-aarch64-static"
DEBIAN = (
    *("python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib", "libc6", "libgcc-s1"),
    *("libstdc++6", "zlib1g", "libexpat1", "libssl3", "libffi8", "libbz2-1.0", "liblzma5"),
)
LITERT = version("ai-edge-litert")  # the version that wrote the check of the export
WHEELS = ("numpy", "pillow", f"ai-edge-litert=={LITERT}")
PLATFORMS = [f"--platform=manylinux_2_{x}_aarch64" for x in (17, 26, 27, 28, 31, 34)]
# LiteRT reads /proc/cpuinfo, where QEMU would show it the lines of an x86 processor, on which
# LiteRT 2.3.0 ends with a segmentation fault. QEMU looks into its root first.
CPUINFO = """processor\t: {number}
BogoMIPS\t: 108.00
Features\t: {features}
CPU implementer\t: 0x41
CPU architecture: 8
CPU variant\t: 0x0
CPU part\t: {part}
CPU revision\t: 3

"""
CORES = {  # name for QEMU: (part number, features)
    "cortex-a72": ("0xd08", "fp asimd evtstrm aes pmull sha1 sha2 crc32 cpuid"),
    "cortex-a76": (
        "0xd0b",
        "fp asimd evtstrm aes pmull sha1 sha2 crc32 atomics fphp asimdhp cpuid asimdrdm lrcpc "
        "dcpop asimddp",
    ),
}
RUN = Path(__file__).parent / "peers" / "run_tflite.py"
# Largest difference of an output: a step for integers. In float, the sums have another order, and
# probabilities of float32 differ by some 1e-6. `dynamic` rounds the inputs of every layer to 8 bits
# while it runs, so a sum that differs in its last bit can round to the next step.
BOUNDS = {
    "tflite-float32": 1e-5,
    "tflite-float16": 1e-5,
    "tflite-dynamic": 0.02,
    "tflite-int4": 0.02,
}
STEP = 1.0


@dataclass(frozen=True)
class Machine:
    """A way to run Python with LiteRT: the words before the script's name, and the environment."""

    name: str
    command: tuple[str, ...]
    environment: dict[str, str]

    def run(self, script: Path, *arguments: Any) -> str:
        """Run a script; return what it prints."""
        done = subprocess.run(
            [*self.command, str(script), *map(str, arguments)],
            env=os.environ | self.environment,
            capture_output=True,
            text=True,
        )
        if done.returncode:
            raise SystemExit(f"{self.name}: {script.name} ends with\n{done.stderr[-2000:]}")
        return done.stdout


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("exports", nargs="+", type=Path, help="export folders")
    parser.add_argument("--data", required=True, help="test images: a dataset or a folder")
    parser.add_argument("--cpu", nargs="+", choices=CORES, default=[*CORES], help="default: all")
    parser.add_argument("--images", type=int, default=100, help="number of images")
    parser.add_argument("--root", type=Path, default=cache_home() / "aarch64", help="for Debian")
    parser.add_argument("--json", type=Path, help="also write the record to this file")
    options = parser.parse_args()
    qemu = qemu_version()
    root = prepare(options.root)
    machines = [emulated(core, root) for core in options.cpu]
    rows = []
    for exports in options.exports:
        rows += compare(exports, _images(exports, options.data, options.images), machines)
    print_table(
        f"LiteRT {LITERT} on aarch64 under {qemu}, against this machine (x86)",
        ("file", "processor", "images", "largest difference", "same class", "classify.py", ""),
        [
            [
                row["file"],
                row["cpu"],
                str(row["n"]),
                f"{row['difference']:.2g} {row['unit']}",
                f"{row['same_class']:.2%}",
                "same" if row["classify"] else "DIFFERS",
                "passed" if row["passed"] else "FAILED",
            ]
            for row in rows
        ],
        text_columns=2,
    )
    if options.json:
        record = {"date": manifest.now(), "qemu": qemu, "host": platform.machine()}
        write_json(options.json, record | manifest.environment() | {"rows": rows})
    sys.exit(0 if all(row["passed"] for row in rows) else 1)


def _images(exports: Path, data: str, count: int) -> np.ndarray:
    """Return test images in the size of an export's files, evenly spaced."""
    content = manifest.read(exports)
    source = sources.find(str(exports / content["files"][0]["file"]))
    given = Path(data) if Path(data).is_dir() else data
    images, *_ = images_for_check(source, given, content["input"]["shape"], count)
    return images


def compare(exports: Path, images: np.ndarray, machines: list[Machine]) -> list[dict[str, Any]]:
    """Run every .tflite file of an export here and on the machines; return a row for each pair."""
    here = Machine("this machine", (sys.executable,), {})
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        np.save(folder / "images.npy", images)
        picture = folder / "picture.png"
        Image.fromarray(images[0].squeeze().astype("uint8")).save(picture)
        for entry in manifest.read(exports)["files"]:
            file = exports / entry["file"]
            if file.suffix != ".tflite":
                continue
            expected, said = _answers(here, file, folder, picture)
            for machine in machines:
                print(f"{file.name} on {machine.name} …", file=sys.stderr)
                found, also_said = _answers(machine, file, folder, picture)
                row = {"file": file.name, "format": entry["format"], "cpu": machine.name}
                row |= difference(entry["format"], expected, found)
                row["classify"] = _classes(said) == _classes(also_said)
                row["passed"] &= row["classify"]
                rows.append(row)
    return rows


def _answers(machine: Machine, file: Path, folder: Path, picture: Path) -> tuple[np.ndarray, str]:
    outputs = folder / "outputs.npy"
    machine.run(RUN, file.resolve(), folder / "images.npy", outputs)
    said = machine.run(file.resolve().with_name("classify.py"), file.resolve(), picture)
    return np.load(outputs), said


def _classes(said: str) -> list[str]:
    """Return the class names that classify.py printed, without the last digits of the shares."""
    return [line.split()[-1] for line in said.splitlines() if line.strip()]


def difference(kind: str, expected: np.ndarray, found: np.ndarray) -> dict[str, Any]:
    integers = np.issubdtype(expected.dtype, np.integer)
    largest = float(np.abs(expected.astype("float64") - found.astype("float64")).max())
    same = float((expected.argmax(-1) == found.argmax(-1)).mean())
    bound = STEP if integers else BOUNDS[kind]
    return {
        "n": len(expected),
        "difference": largest,
        "unit": "steps of the output" if integers else "of a probability",
        "bound": bound,
        "same_class": same,
        "passed": largest <= bound and same == 1.0,
    }


# The emulated machine ----------------------------------------------------------------------------


def emulated(core: str, root: Path) -> Machine:
    """Return a processor with the files of `root`. It has a /proc/cpuinfo of its own."""
    home = root / core
    (home / "proc").mkdir(parents=True, exist_ok=True)
    for shared in ("usr", "lib"):
        if not (home / shared).exists():
            (home / shared).symlink_to(root / shared)
    part, features = CORES[core]
    lines = [
        CPUINFO.format(number=x, part=part, features=features) for x in range(os.cpu_count() or 1)
    ]
    (home / "proc" / "cpuinfo").write_text("".join(lines))
    command = (QEMU, "-cpu", core, "-L", str(home), str(root / "usr" / "bin" / "python3.11"))
    paths = {"PYTHONHOME": str(root / "usr"), "PYTHONPATH": str(root / "site")}
    return Machine(core, command, paths)


def prepare(folder: Path) -> Path:
    """Unpack Debian's Python and the wheels for aarch64, if they are not there; return the root."""
    root = folder.resolve() / f"litert-{LITERT}"
    if (root / "done").exists():
        return root
    print(f"Unpacking Debian's Python and LiteRT for aarch64 into {root}", file=sys.stderr)
    for part in ("debs", "wheels", "site", "apt/lists/partial", "apt/archives/partial"):
        (root / part).mkdir(parents=True, exist_ok=True)
    _unpack_debian(root)
    _unpack_wheels(root)
    (root / "done").touch()
    return root


def _unpack_debian(root: Path) -> None:
    places = {
        "APT::Architecture": "arm64",
        "APT::Architectures": "arm64",
        "APT::Sandbox::User": "",
        "Dir::State": root / "apt",
        "Dir::State::status": os.devnull,
        "Dir::Cache": root / "apt",
        "Debug::NoLocking": "1",
    }
    apt = ["apt-get", "-qq", *(f"-o{key}={value}" for key, value in places.items())]
    _call([*apt, "update"], root)
    _call([*apt, "download", *DEBIAN], root / "debs")
    for package in (root / "debs").glob("*.deb"):
        _call(["dpkg", "-x", package, root], root)


def _unpack_wheels(root: Path) -> None:
    wheels = root / "wheels"
    chosen = ["--python-version=3.11", "--only-binary=:all:", *PLATFORMS]
    _call([sys.executable, "-m", "pip", "download", "-qd", wheels, *chosen, *WHEELS], root)
    for wheel in wheels.glob("*.whl"):
        with zipfile.ZipFile(wheel) as archive:
            archive.extractall(root / "site")


def _call(words: list[Any], folder: Path) -> None:
    done = subprocess.run([*map(str, words)], cwd=folder, capture_output=True, text=True)
    if done.returncode:
        command = " ".join(map(str, words[:4]))
        raise SystemExit(f"{command} … ends with\n{done.stderr[-2000:]}")


def qemu_version() -> str:
    """Return QEMU's version; exit if it is not installed."""
    try:
        said = subprocess.run([QEMU, "--version"], capture_output=True, text=True).stdout
    except FileNotFoundError:
        raise SystemExit(
            f"{QEMU} is not installed. Run: apt-get install qemu-user-static"
        ) from None
    return "QEMU " + said.split()[2]


if __name__ == "__main__":
    main()
