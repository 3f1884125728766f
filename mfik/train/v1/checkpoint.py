"""Checkpoint files: tensors and plain types only, written whole or not at all."""

from __future__ import annotations

import json
import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch

from mfik.errors import BundleError, MfikError
from mfik.model import Network, build_network
from mfik.robots import Robot
from mfik.train.v1.config import TrainConfig
from mfik.writing import whole_file

CHECKPOINT_FORMAT = 1  # "version" of the file


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state` whole or not at all.

    Raises:
        WriteError: the disk is full, the folder is read-only, or the like.
    """
    with whole_file(path) as file:
        torch.save({"format": "mfik-checkpoint", "version": CHECKPOINT_FORMAT, **state}, file)


def remove_old_checkpoints(folder: Path, keep: int, num_epochs: int) -> None:
    """Remove the numbered checkpoints of a run but the newest `keep` and those of round epochs."""
    numbered = sorted(folder.glob("checkpoint_*.pth"), key=lambda path: path.stat().st_mtime_ns)
    for path in numbered[:-keep]:
        if not is_round(path, num_epochs):
            path.unlink()


def is_round(path: Path, num_epochs: int) -> bool:
    """Tell whether a checkpoint is of an epoch that stays: every tenth, of longer runs every 20th, 50th, ..."""
    epoch = path.stem.removeprefix("checkpoint_epoch_")
    stride = next(a * 10**k for k in range(1, 20) for a in (1, 2, 5) if a * 10**k >= num_epochs / 10)
    return epoch.isdigit() and int(epoch) % stride == 0


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    The file is a ZIP archive whose every part carries a CRC-32, which torch writes and does not check; here it is.

    Raises:
        BundleError: the file is missing, damaged, not a checkpoint of mfik, or of another format version.
    """
    path = Path(path)
    if not path.is_file():
        others = sorted(other.name for other in path.parent.glob("*.pth"))
        there = f"there are {', '.join(others)}" if others else "training writes them to OUTPUT_DIR/checkpoints"
        raise BundleError(f"{path}: no such checkpoint; {there}")
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged is not None:
            raise BundleError(f"{path}: damaged, the checksum of its part {damaged} is wrong; take another checkpoint")
        state = torch.load(path, map_location="cpu", weights_only=True)
    except BundleError:
        raise
    except Exception as error:
        raise BundleError(f"{path}: not a readable checkpoint ({type(error).__name__}: {error})") from error
    kind = state.get("format") if isinstance(state, dict) else None
    if kind != "mfik-checkpoint" or state.get("version") != CHECKPOINT_FORMAT:
        raise BundleError(
            f"{path}: expected an mfik-checkpoint of format version {CHECKPOINT_FORMAT}, got {kind!r}; "
            "was it written by another program, or another version of mfik?"
        )
    return state


class CheckpointSettings(NamedTuple):
    """What a checkpoint says of its run.

    Attributes:
        train_config: Settings of the training.
        model_config: `to_dict` of the network's configuration.
        robot: The robot.
        run: Identity of the run.
    """

    train_config: TrainConfig
    model_config: dict[str, Any]
    robot: Robot
    run: str


def load_settings(path: str | os.PathLike[str]) -> CheckpointSettings:
    """Read from a checkpoint what continues its run.

    Raises:
        BundleError: the checkpoint is unreadable, or lacks a part, or has a damaged one.
    """
    state = load_checkpoint(path)
    with consistent(path):
        return CheckpointSettings(
            TrainConfig.from_dict(json.loads(state["train_config"])),
            json.loads(state["model_config"]),
            Robot.from_dict(json.loads(state["robot"])),
            state["run"],
        )


def load_model(path: str | os.PathLike[str]) -> tuple[Network, Robot, dict[str, Any]]:
    """Return the averaged (EMA) network of a checkpoint in evaluation mode, its robot, and the whole checkpoint.

    Raises:
        BundleError: the checkpoint is unreadable, or lacks a part, or has a damaged one.
    """
    state = load_checkpoint(path)
    with consistent(path):
        robot = Robot.from_dict(json.loads(state["robot"]))
        model = build_network(json.loads(state["model_config"]), robot)
        model.load_state_dict(state["ema"])
        json.loads(state["accuracy"])
        return model.eval(), robot, state


@contextmanager
def consistent(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn what goes wrong while the parts of a checkpoint are used into BundleError."""
    try:
        yield
    except KeyError as error:
        raise BundleError(f"{path}: incomplete checkpoint, expected {error} in it; take another one") from error
    except (AttributeError, IndexError, MfikError, RuntimeError, TypeError, ValueError) as error:
        raise BundleError(
            f"{path}: inconsistent checkpoint ({type(error).__name__}: {error}); take another one"
        ) from error
