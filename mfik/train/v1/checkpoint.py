"""Checkpoint files: tensors and plain types only, written whole or not at all."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import Any

import torch

from mfik.errors import BundleError, MfikError
from mfik.model import Network, build_network
from mfik.robots import Robot

CHECKPOINT_FORMAT = 1  # "version" of the file


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state` atomically: temporary file, fsync, rename, fsync of the folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".partial")
    try:
        with os.fdopen(handle, "wb") as file:
            torch.save({"format": "mfik-checkpoint", "version": CHECKPOINT_FORMAT, **state}, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def load_checkpoint(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    Raises:
        BundleError: the file is missing, truncated, not a checkpoint of mfik, or of another format version.
    """
    path = Path(path)
    if not path.is_file():
        raise BundleError(f"{path}: no such checkpoint; training writes them to OUTPUT_DIR/checkpoints")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise BundleError(f"{path}: not a readable checkpoint ({type(error).__name__}: {error})") from error
    kind = state.get("format") if isinstance(state, dict) else None
    if kind != "mfik-checkpoint" or state.get("version") != CHECKPOINT_FORMAT:
        raise BundleError(
            f"{path}: expected an mfik-checkpoint of format version {CHECKPOINT_FORMAT}, got {kind!r}; "
            "was it written by another program, or another version of mfik?"
        )
    return state


def load_model(path: str | os.PathLike[str]) -> tuple[Network, Robot, dict[str, Any]]:
    """Return the averaged (EMA) network of a checkpoint in evaluation mode, its robot, and the whole checkpoint."""
    state = load_checkpoint(path)
    try:
        robot = Robot.from_dict(json.loads(state["robot"]))
        model = build_network(json.loads(state["model_config"]), robot)
        model.load_state_dict(state["ema"])
    except (KeyError, RuntimeError, ValueError, MfikError) as error:
        raise BundleError(f"{path}: incomplete or inconsistent checkpoint ({error}); train again") from error
    return model.eval(), robot, state
