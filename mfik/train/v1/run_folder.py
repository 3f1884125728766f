"""The folder of a run: its record run.json, and what it takes to continue it."""

from __future__ import annotations

import json
import platform
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from mfik import __version__
from mfik.errors import BundleError, DataError
from mfik.report import cpu_name
from mfik.train.v1.checkpoint import load_checkpoint
from mfik.writing import whole_file

if TYPE_CHECKING:
    from mfik.train.v1.trainer import MeanFlowTrainer

RUN_FILE = "run.json"


def new_run_id() -> str:
    """Return a name that no other run has, which tells whose folder and whose checkpoints belong together."""
    return uuid.uuid4().hex


def holds_run(folder: Path) -> bool:
    """Tell whether a run was started in the folder."""
    return (folder / RUN_FILE).is_file() or (folder / "checkpoints").exists()


def run_id(folder: Path) -> str | None:
    """Return the identity of the run in a folder, from its record or its newest checkpoint; None where neither tells.

    Raises:
        DataError: run.json cannot be read.
        BundleError: there is no run.json, and the newest checkpoint cannot be read.
    """
    if (folder / RUN_FILE).is_file():
        return read_run(folder / RUN_FILE).get("run")
    saved = checkpoints(folder)
    return load_checkpoint(saved[-1]).get("run") if saved else None


def checkpoints(folder: Path) -> list[Path]:
    """Return the checkpoints of the run in a folder, oldest first."""
    return sorted((folder / "checkpoints").glob("*.pth"), key=lambda path: path.stat().st_mtime_ns)


def newest_checkpoint(path: Path) -> Path:
    """Return the newest checkpoint of the run in a folder; a path that is no folder is the checkpoint itself.

    Raises:
        BundleError: the folder holds no checkpoint.
    """
    if not path.is_dir():
        return path
    saved = checkpoints(path)
    if not saved:
        raise BundleError(f"{path}: no checkpoint in {path / 'checkpoints'} to continue from; give the folder of a run")
    return saved[-1]


def folder_of(checkpoint: Path) -> Path | None:
    """Return the folder of the run that wrote a checkpoint where it lies; None: it lies elsewhere."""
    folder = checkpoint.resolve().parent
    if folder.name != "checkpoints":
        return None
    return checkpoint.parent.parent if checkpoint.parent.name == "checkpoints" else folder.parent


def read_run(path: Path) -> dict[str, Any]:
    """Read a run.json.

    Raises:
        DataError: the file cannot be read, or is none.
    """
    try:
        record = json.loads(path.read_text())
        for name in ("arguments", "robot"):
            record[name]
        return record
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(
            f"{path}: not the run.json of a run ({type(error).__name__}: {error}); give that of another run"
        ) from error


def write_run(folder: Path, trainer: MeanFlowTrainer, *, command: list[str], arguments: dict[str, Any]) -> None:
    """Record what reproduces the run, and where it ran.

    Args:
        folder: Of the run.
        trainer: Its settings, network, robot and data.
        command: `sys.argv`.
        arguments: Those of the program that are no training settings.
    """
    record = {
        "run": trainer.run,
        "command": command,
        "arguments": arguments,
        "train_config": trainer.config.to_dict(),
        "model_config": trainer.model.config.to_dict(),
        "robot": trainer.robot.to_dict(),
        "data": trainer.data,
        "environment": {
            "mfik": __version__,
            "python": platform.python_version(),
            "torch": torch.__version__,
            "platform": platform.platform(),
            "device": str(trainer.device),
            "device_name": torch.cuda.get_device_name() if trainer.device.type == "cuda" else cpu_name(),
            "threads": torch.get_num_threads(),
            "processes": trainer.world_size,
        },
    }
    with whole_file(folder / RUN_FILE) as file:
        file.write((json.dumps(record, indent=2) + "\n").encode())
