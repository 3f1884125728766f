"""Checkpoint files: tensors and plain types only, written whole or not at all."""

from __future__ import annotations

import io
import json
import os
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import torch

from mfik.errors import BundleError, MfikError
from mfik.model import Network, build_network
from mfik.robots import Robot
from mfik.train.v1.config import TrainConfig
from mfik.writing import whole_file

CHECKPOINT_FORMAT = 1  # "version" of the file

# A checkpoint is torch's ZIP archive, and its comment the CRC-32 of all bytes before the comment's length. An archive's
# own checksums leave out what lies between its parts, and torch does not check them.
_END_BYTES = 22  # of an archive's last record, which ends with the comment's length
_COMMENT = b"crc32:%08x"
_TAIL_BYTES = 2 + len(_COMMENT % 0)  # the comment and its length
_CHUNK_BYTES = 1 << 22


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state` whole or not at all.

    Raises:
        WriteError: the disk is full, the folder is read-only, or the like.
    """
    with whole_file(path) as file:
        summed = _Summed(file)
        torch.save({"format": "mfik-checkpoint", "version": CHECKPOINT_FORMAT, **state}, summed)  # type: ignore[arg-type]  # of a file it writes alone
        summed.finish()


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

    Raises:
        BundleError: the file is missing, damaged, not a checkpoint of mfik, or of another format version.
    """
    path = Path(path)
    if not path.is_file():
        others = sorted(other.name for other in path.parent.glob("*.pth"))
        there = f"there are {', '.join(others)}" if others else "training writes them to OUTPUT_DIR/checkpoints"
        raise BundleError(f"{path}: no such checkpoint; {there}")
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
    if not _has_checksum(path):
        raise BundleError(f"{path}: damaged, its checksum is wrong or missing; take another checkpoint")
    return state


class _Summed(io.RawIOBase):
    """Pass an archive on, which `finish` ends with its checksum."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._held, self._crc = file, b"", 0

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        view = memoryview(data).cast("B")
        if len(view) < _END_BYTES:
            view = memoryview(self._held + view)
        else:
            self._pass_on(self._held)
        self._pass_on(view[:-_END_BYTES])
        self._held = bytes(view[-_END_BYTES:])
        return memoryview(data).nbytes

    def finish(self) -> None:
        self._pass_on(self._held[:-2])
        comment = _COMMENT % self._crc
        self._pass_on(len(comment).to_bytes(2, "little") + comment)

    def _pass_on(self, data: bytes | memoryview) -> None:
        self._crc = zlib.crc32(data, self._crc)
        self._file.write(data)


def _has_checksum(path: Path) -> bool:
    """Tell whether a file ends with the checksum of its bytes."""
    crc, left = 0, path.stat().st_size - _TAIL_BYTES
    with open(path, "rb") as file:
        while left > 0 and (chunk := file.read(min(left, _CHUNK_BYTES))):
            crc, left = zlib.crc32(chunk, crc), left - len(chunk)
        comment = _COMMENT % crc
        return file.read() == len(comment).to_bytes(2, "little") + comment


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
