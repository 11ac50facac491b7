"""Environments of their own for tests of clients that do not go together with TensorFlow."""

import subprocess
import sys

import pytest


def make_environment(folder, *packages):
    """Install `packages` (as pip takes them) in a new environment; return its Python.

    Skips the test, with pip's last line, where they cannot be had.
    """
    python = folder / "environment" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", folder / "environment"], check=True)
    command = [python, "-I", "-m", "pip", "install", "--quiet", *packages]
    result = subprocess.run(command, capture_output=True, text=True, timeout=900)
    if result.returncode:
        last = (result.stderr.strip().splitlines() or ["no message"])[-1]
        pytest.skip(f"pip cannot install {', '.join(packages)}: {last}")
    return python


def run_in(python, code, *arguments, cwd=None):
    """Run a script there, without what this process adds to the path; return what it printed."""
    result = subprocess.run(
        [python, "-I", "-c", code, *map(str, arguments)],
        capture_output=True,
        text=True,
        cwd=cwd,
        timeout=300,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    return result.stdout
