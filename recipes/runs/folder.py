"""The folder of a training run.

config.toml        the resolved config           checkpoints/      the state to resume from
log.csv            one row per epoch, from 1     tensorboard/      the same for TensorBoard
best.weights.h5    best on the validation split  summary.json      the results
model.keras        the result: stock Keras layers, float32, RGB 0...255 in, probabilities out
labels.txt         its class names, one per line
start.keras        for fine-tuning: the model it started from
teacher.keras      for distillation: the teacher
start.json         the origin of the start model; the summary repeats it
trained_on.npz     the identities of its training images (seen.py)
.lock              the training process; locked while that process lives
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

import keras

from keras_resnet.arguments import checked
from keras_resnet.display.console import number
from keras_resnet.display.notebook import Rows
from keras_resnet.errors import UserError
from keras_resnet.export.runtimes.keras import load_keras
from keras_resnet.files import expanded, locked_folder, replacing, short_names
from keras_resnet.images.crop import SingleCrop
from keras_resnet.images.labels import Known, known, remember
from keras_resnet.layers import to_stock
from keras_resnet.recipes.configs.schema import Config, load_config, save_config, shown_name
from keras_resnet.recipes.runs import earlier, log, results
from keras_resnet.recipes.runs.scores import deciding, spoken

MODEL = "model.keras"
_LOCK = ".lock"


@dataclass(frozen=True)
class Run:
    """The paths of one run.

    Attributes:
        path: the folder that this process reads and writes.
        home: the real run folder, if `path` is the temporary folder of a worker that is not the
            chief.
    """

    path: Path
    home: Path | None = None

    def __repr__(self) -> str:
        """Return a summary in one line."""
        row = _describe_or_say_why(self)
        if row["problem"]:
            return f"Run '{self.name}': {row['state']}, {row['problem']}"
        known = {"validation": row["validation"], "test": row["test"]}
        score = row["score"]
        parts = [f"{key} {score} {value:.2%}" for key, value in known.items() if value is not None]
        done = f"{row['done']}/{row['total']} {row['unit']}"
        told = ", ".join((row["state"], done, *parts))
        return f"Run '{self.name}': {row['model']} on {shown_name(row['data'])}, {told}"

    def _repr_html_(self) -> str:
        return Runs([_describe_or_say_why(self)])._repr_html_()

    @property
    def name(self) -> Path:
        """The run folder's path for messages."""
        return self.home or self.path

    @property
    def config(self) -> Config:
        """The resolved config."""
        return load_config(self.path / "config.toml")

    @property
    def model(self) -> Path:
        """The path of the finished model, which may not exist yet."""
        return self.path / MODEL

    @property
    def start(self) -> Path:
        """The model that a fine-tuning started from."""
        return self.path / "start.keras"

    def about_start(self) -> dict[str, Any]:
        """Return the origin of the start model; an empty dictionary if there is none."""
        path = self.path / "start.json"
        return results.about_start(path) if path.is_file() else {}

    @property
    def teacher(self) -> Path:
        """The teacher's model of a distillation."""
        return self.path / "teacher.keras"

    @property
    def best(self) -> Path:
        """The weights of the best epoch."""
        return self.path / "best.weights.h5"

    @property
    def log(self) -> Path:
        """The log file, with one row per epoch."""
        return self.path / "log.csv"

    @property
    def tensorboard(self) -> Path:
        """The folder with the same rows for TensorBoard."""
        return self.path / "tensorboard"

    @property
    def checkpoints(self) -> Path:
        """The folder of the checkpoints; it does not exist before the first one is saved."""
        return self.path / "checkpoints"

    def rows(self) -> list[dict[str, str]]:
        """Return the log: a row per finished epoch, counted from 1, without missing values."""
        return log.read(self.log)

    def require_finished(self) -> None:
        """Refuse a run without a model.

        Raises:
            UserError: there is no model; the message says what to do.
        """
        if self.model.is_file():
            return
        resume = f"keras-resnet train --resume {self.name}"
        if not self._summary.is_file():
            raise UserError(f"{self.name} is not finished. Resume with: {resume}")
        kept = self.checkpoints.is_dir()  # without checkpoints, the run would start again
        mend = f"Make it again: {resume}" if kept else "Restore it, or train a new run."
        raise UserError(f"{self.name} is finished, but has no {self.model.name}. {mend}")

    @property
    def _summary(self) -> Path:
        return self.path / "summary.json"

    def summary(self) -> dict[str, Any]:
        """Return the results of the finished run, in today's form for earlier versions too.

        Raises:
            UserError: summary.json is missing or damaged.
        """
        if not self._summary.is_file():
            raise UserError(f"{self.name} has no summary.json. Restore it, or train a new run.")
        return earlier.summary(results.summary(self._summary))

    def known(self) -> Known:
        """Return the class names of the finished run, and the crop of its accuracy measurement."""
        measured = self.summary()["test"].get("protocol") or {}
        resize = measured.get("resize")
        crop = None if resize is None else SingleCrop(resize, measured["size"])
        return known(None, self.path, crop)

    def keras_model(self) -> keras.Model:
        """Load the finished model; `export` knows its class names and crop.

        Raises:
            UserError: the run is not finished.
        """
        self.require_finished()
        model: keras.Model = load_keras(self.model)
        remember(model, self.known())
        return model

    def origin(self) -> dict[str, Any]:
        """Return the finished run's entries for the model card of an export."""
        summary = self.summary()
        test = summary["test"]
        return {
            "trained on": shown_name(summary["data"]),
            **_measured(test),
            "compressed by": summary.get("technique"),
            "zeros in its kernels": _percent(summary.get("kernels", {}).get("zeros")),
            "multiply-adds before its filters were pruned, and after": _before_and_after(summary),
            "taught by": summary.get("teacher"),
        }


def _measured(test: dict[str, Any]) -> dict[str, str]:
    key = deciding(test)
    return {f"measured {spoken(key)}": f"{test[key]:.2%} of {test['n']:,} test images"}


def _percent(share: float | None) -> str | None:
    return f"{share:.1%}" if share else None


def _before_and_after(summary: dict[str, Any]) -> str | None:
    pruned = summary.get("pruned_filters")
    return pruned and "{:,}, {:,}".format(*pruned["multiply_adds"])


def is_run(path: str | Path) -> bool:
    """Return True if `path` is a run folder."""
    return (expanded(path) / "config.toml").is_file()


def new_folder(out: str | Path | None, name: str) -> Path:
    """Return the path of a new run: `out`, or `runs/NAME-DATE-TIME`."""
    stamp = datetime.now().strftime("%Y%m%d-%H%M%S")
    return expanded(out) if out is not None else Path("runs") / f"{name.replace('/', '-')}-{stamp}"


def require_free(path: Path) -> None:
    """Refuse a path at which no run can be made.

    Raises:
        UserError: `path` is a file, a folder that is not empty, or inside another run.
    """
    if is_run(path):
        raise UserError(
            f"{path} already contains a run. Resume it with: keras-resnet train --resume {path}"
        )
    if above := next(filter(is_run, path.absolute().parents), None):
        raise UserError(f"{path} is inside the run {above}. Choose another folder: --out FOLDER")
    if path.is_file():
        raise UserError(f"{path} is a file. Give a folder: --out FOLDER")
    if path.exists() and any(path.iterdir()):
        raise UserError(f"{path} exists and is not empty. Choose another folder: --out FOLDER")


def create_run(
    path: Path,
    config: Config,
    models: Mapping[str, keras.Model | None] = MappingProxyType({}),
    about_start: dict[str, Any] | None = None,
) -> Run:
    """Make a run folder.

    Args:
        path: a folder that does not exist, or is empty.
        config: the resolved config.
        models: the "start" and the "teacher". The run keeps a copy of each, so that it can be
            resumed without the originals.
        about_start: how the first model was made; the summary repeats it.

    Raises:
        UserError: `path` exists and is not empty, or cannot be written.
    """
    require_free(path)
    try:
        path.mkdir(parents=True, exist_ok=True)
        with locked_folder(path, wait=True):
            require_free(path)  # again: another command may have made a run of it meanwhile
            _write_start(path, models, about_start)
            save_config(config, path / "config.toml")  # last, because it makes the folder a run
    except OSError as error:
        raise UserError(f"Cannot write the run folder {path}: {error.strerror}.") from error
    return Run(path)


def _write_start(
    path: Path, models: Mapping[str, keras.Model | None], about_start: dict[str, Any] | None
) -> None:
    for role, model in models.items():
        if model is not None:
            with replacing(path / f"{role}.keras") as partial:
                to_stock(model).save(partial)
    if about_start:
        write_json(path / "start.json", about_start)


@checked
def find_run(path: str | Path) -> Run:
    """Open an existing run.

    Raises:
        UserError: there is no run at `path`.
    """
    if not is_run(path):
        raise UserError(
            f"{path} is not a run folder (it has no config.toml). To see the runs: keras-resnet "
            "runs FOLDER"
        )
    return Run(expanded(path))


class Runs(Rows):
    """The rows from `list_runs`; a notebook shows them as a table."""

    noun = "run"
    header = ("run", "model", "data", "done", "validation", "test", "minutes", "state")
    text_columns = 3

    def cells(self) -> list[Sequence[str]]:
        """Return the cells of each run."""
        return [
            (
                name,
                row["model"] or "–",
                shown_name(row["data"] or "–"),
                f"{row['done']}/{row['total']} {row['unit']}" if row["unit"] else "–",
                number(row["validation"], ".2%"),
                number(row["test"], ".2%"),
                number(row["training_seconds"] and row["training_seconds"] / 60, ".1f"),
                row["state"],
            )
            for name, row in zip(short_names([row["run"] for row in self]), self, strict=True)
        ]


@checked
def list_runs(folder: str | Path) -> Runs:
    """Describe the runs in `folder` (and in its subfolders), the latest first.

    A row has these keys:

    - "run" (its path), "model", "data", "done" and "total" ("unit": epochs or steps);
    - "validation" and "test": the accuracy, or None. With several labels for each image, the mean
      average precision; "score" has the name;
    - "training_seconds": as in the summary; for an unfinished run, until its last epoch's end;
    - "state": finished, running, interrupted, record (results without model and checkpoints), or
      unreadable;
    - "problem": the reason why a run is unreadable; all other values are then None.

    Raises:
        UserError: `folder` does not exist.
    """
    folder = expanded(folder)
    if not folder.is_dir():
        raise UserError(
            f"There are no runs yet: there is no folder '{folder}'. Train one (keras-resnet train "
            "--list), or name a folder: keras-resnet runs FOLDER"
        )
    configs = sorted(
        (*folder.glob("*/config.toml"), *folder.glob("*/*/config.toml")),
        key=lambda path: path.stat().st_mtime,
        reverse=True,
    )
    return Runs(_describe_or_say_why(Run(path.parent)) for path in configs)


def _describe_or_say_why(run: Run) -> dict[str, Any]:
    """Describe a run; a damaged run gets a row with its problem, so that the others are listed."""
    try:
        return {**_describe(run), "problem": None}
    except (OSError, ValueError, KeyError, TypeError) as error:
        unknown = dict.fromkeys(
            (
                *("model", "data", "done", "total", "unit", "validation", "test", "score"),
                "training_seconds",
            )
        )
        problem = str(error) if isinstance(error, UserError) else f"{type(error).__name__}: {error}"
        return {"run": str(run.path), **unknown, "state": "unreadable", "problem": problem}


def _describe(run: Run) -> dict[str, Any]:
    config, rows = run.config, run.rows()
    unit = "epochs" if config.train.epochs else "steps"
    done = len(rows) if config.train.epochs else max([0, *(int(float(r["step"])) for r in rows)])
    state = _state(run)
    outcome = run.summary() if state in ("finished", "record") else _so_far(rows)
    key = deciding(outcome["test"] or outcome["validation"] or {})
    return {
        "run": str(run.path),
        "model": config.model,
        "data": config.data.name,
        "done": done,
        "total": config.train.epochs or config.train.steps,
        "unit": unit,
        **{split: (outcome[split] or {}).get(key) for split in ("validation", "test")},
        "score": spoken(key),
        "training_seconds": outcome["training_seconds"],
        "state": state,
    }


def _so_far(rows: list[dict[str, str]]) -> dict[str, Any]:
    """Return the results so far of an unfinished run, in the summary's form."""
    key = deciding(rows[-1] if rows else {}, "val_")
    validation = [float(row[key]) for row in rows if key in row]
    return {
        "validation": {key.removeprefix("val_"): max(validation)} if validation else None,
        "test": None,
        "training_seconds": float(rows[-1]["training_seconds"]) if rows else 0.0,
    }


def _state(run: Run) -> str:
    if run.model.is_file():
        return "finished"
    if run._summary.is_file() and not run.checkpoints.is_dir():
        return "record"
    return "running" if _in_use(run) else "interrupted"


def _in_use(run: Run) -> bool:
    """Return True if a process trains in the run. This writes nothing, not even a lock file."""
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows
        return False
    try:
        with (run.path / _LOCK).open(encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return False
    except BlockingIOError:
        return True
    except OSError:  # there is no lock file, or it is not readable
        return False


@contextmanager
def locked(run: Run) -> Iterator[None]:
    """Keep other processes from training in the same folder.

    The operating system releases the lock when the process ends, for any reason.

    Raises:
        UserError: another process trains there; the message has its name.
    """
    try:
        import fcntl
    except ModuleNotFoundError:  # Windows
        yield
        return
    with (run.path / _LOCK).open("a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            holder = file.read().strip() or "another process"
            raise UserError(
                f"{run.path} is in use by {holder}. Wait for it, stop it, or choose another --out."
            ) from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {socket.gethostname()}\n")
        file.flush()
        yield


def write_json(path: Path, content: dict[str, Any]) -> None:
    """Write one JSON object."""
    with replacing(path) as partial:
        partial.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
