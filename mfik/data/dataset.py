"""The training file: five tensors and the description of what made them."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mfik import ops
from mfik.errors import DataError
from mfik.kinematics import position_error_m, rotation_error_rad
from mfik.robots import Robot
from mfik.writing import whole_file

DATA_FORMAT = 1  # "version" of the file
_COLUMNS = ("q", "target_pose", "q_target", "r", "t")
_QUAT_NORM_TOLERANCE = 1e-3  # of a quaternion's norm from 1; float32 rounding stays under 1e-6
_LIMIT_TOLERANCE = 1e-4  # [rad] or [m]: float32 rounding of a joint at its limit
# Rows checked at once: bounds memory, fits the cache, and stays below the size from which torch forks an operation
# into threads (32,768 values), which on busy cores takes longer than the operation.
_CHECK_ROWS = 4096
_FK_TOLERANCE = 1e-3  # [m] and [rad]: far above float32 rounding, far below any other robot's FK


@dataclass(frozen=True)
class IKDataset(torch.utils.data.Dataset):
    """Rows of training data; row i is the line through (r, q) and (1, q_target) in joint space.

    Attributes:
        q: Joints at time r, [rad] or [m], [M, J].
        target_pose: T_base_tool of `q_target`, [x, y, z, qw, qx, qy, qz], [m], [M, 7].
        q_target: Joints at time 1, [rad] or [m], [M, J].
        r: Time of `q`, 0 <= r < 1, [M, 1].
        t: Evaluation time, 0 <= t <= 1, [M, 1]; training does not use it: it draws its own times.
        meta: What made the file: robot, coupling, sigma, seed; empty for files of other origin.
        kept: The N of the M stored rows that the dataset consists of, ascending, [N] int64; None: all of them.
            Length, indexing and `rows` count kept rows only; the five columns are as stored.
    """

    q: Tensor
    target_pose: Tensor
    q_target: Tensor
    r: Tensor
    t: Tensor
    meta: dict[str, Any] = field(default_factory=dict)
    kept: Tensor | None = None

    @property
    def skipped(self) -> int:
        """Number of stored rows that are left out because they are bad."""
        return self.q.shape[0] - len(self)

    def __len__(self) -> int:
        return self.q.shape[0] if self.kept is None else self.kept.shape[0]

    def __getitem__(self, index: Any) -> dict[str, Tensor]:
        """Return the row(s) `index` as the dictionary that `MeanFlowTrainer.train_step` takes."""
        if self.kept is not None:
            index = self.kept[index]
        return {name: getattr(self, name)[index] for name in _COLUMNS}

    def rows(self, start: int, stop: int) -> IKDataset:
        """Return rows start..stop-1 as a view."""
        kept = self.kept
        if kept is not None:
            kept = kept[start:stop]
            start, stop = (int(kept[0]), int(kept[-1]) + 1) if len(kept) else (0, 0)
            kept = kept - start
        columns = {name: getattr(self, name)[start:stop] for name in _COLUMNS}
        return IKDataset(**columns, meta=self.meta, kept=kept)

    def to(self, device: torch.device | str) -> IKDataset:
        """Return the rows on `device`."""
        kept = None if self.kept is None else self.kept.to(device)
        columns = {name: getattr(self, name).to(device) for name in _COLUMNS}
        return IKDataset(**columns, meta=self.meta, kept=kept)


def save_dataset(path: str | os.PathLike[str], dataset: IKDataset, *, overwrite: bool = False) -> None:
    """Write the training file, a dictionary of five tensors and `meta` (a JSON string), whole or not at all.

    Raises:
        DataError: `path` exists and `overwrite` is false.
        WriteError: the disk is full, the folder is read-only, or the like.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise DataError(f"{path}: exists already; give another --output, or --overwrite to replace it")
    payload: dict[str, Any] = {name: value.contiguous() for name, value in dataset[:].items()}
    payload["meta"] = json.dumps({"format": "mfik-data", "version": DATA_FORMAT, **dataset.meta})
    with whole_file(path) as file:
        torch.save(payload, file)


def load_dataset(path: str | os.PathLike[str], robot: Robot, *, skip_bad_rows: bool = False) -> IKDataset:
    """Read a training file and check every row.

    The file is memory-mapped and checked in pieces, so it may be larger than memory. A row is good when all values are
    finite, the quaternion has length 1, `q_target` is within the limits, 0 <= r < 1, 0 <= t <= 1 and `target_pose` is
    the forward kinematics of `q_target`.

    Args:
        path: File written by `scripts/generate_data.py`, or any `torch.save` of a dictionary of the five
            tensors (float32 or float64).
        robot: Robot to train for.
        skip_bad_rows: Leave bad rows out (`skipped` counts them) instead of refusing the file.

    Returns:
        The rows, on the CPU.

    Raises:
        DataError: the file cannot be read, lacks a tensor, is of another robot, has a bad row and `skip_bad_rows` is
            false, or has no good one.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file; make it with scripts/generate_data.py --output {path}")
    try:
        payload = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except Exception as error:
        raise DataError(
            f"{path}: not a file of tensors ({type(error).__name__}: {error}); generate it again"
        ) from error
    if not isinstance(payload, dict):
        raise DataError(f"{path}: expected a dictionary with {_COLUMNS}, got {type(payload).__name__}")
    missing = [name for name in _COLUMNS if not isinstance(payload.get(name), Tensor)]
    if missing:
        raise DataError(f"{path}: expected tensors {_COLUMNS}, missing {missing}; it has {sorted(map(str, payload))}")
    meta = _read_meta(path, payload.get("meta"))
    made_for = meta.get("robot")
    if made_for is not None and Robot.from_dict(made_for).fingerprint() != robot.fingerprint():
        raise DataError(
            f"{path}: made for robot {made_for.get('name')!r} ({made_for.get('base_link')} -> "
            f"{made_for.get('tip_link')}), expected {robot.name!r} ({robot.base_link} -> {robot.tip_link}); "
            "pass the matching --robot or generate data for this one"
        )
    columns = {name: payload[name].detach() for name in _COLUMNS}
    _check_shapes(path, columns, robot)
    # No copy, unless a column was saved as a strided view: every batch would copy it, as kernels take whole rows.
    columns = {name: value.contiguous() for name, value in columns.items()}
    good = _good_rows(columns, robot)
    num_bad = int((~good).sum())
    if num_bad and not (skip_bad_rows and good.any()):
        row = int((~good).nonzero()[0, 0])
        remedy = "correct them or leave them out with --skip_bad_rows" if good.any() else "no row is left to train on"
        raise DataError(
            f"{path}: row {row}: {_describe({name: value[row : row + 1] for name, value in columns.items()}, robot)}; "
            f"{num_bad:,} of {len(good):,} rows are bad: {remedy}"
        )
    return IKDataset(**columns, meta=meta, kept=good.nonzero()[:, 0] if num_bad else None)


def _read_meta(path: Path, text: Any) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        meta = json.loads(text)
        kind, version = meta.pop("format"), meta.pop("version")
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise DataError(f"{path}: 'meta' is not mfik's description of the data ({error}); generate it again") from error
    if kind != "mfik-data" or version != DATA_FORMAT:
        raise DataError(
            f"{path}: expected mfik-data of format version {DATA_FORMAT}, got {kind!r:.60} of "
            f"format version {version!r:.60}; generate it again"
        )
    return meta


def _check_shapes(path: Path, columns: dict[str, Tensor], robot: Robot) -> None:
    """Raise DataError for a column that does not go with the robot or with the other columns."""
    n, dtype = len(columns["q"]) if columns["q"].ndim else 0, columns["q"].dtype
    widths = {"q": robot.dof, "target_pose": 7, "q_target": robot.dof, "r": 1, "t": 1}
    for name, value in columns.items():
        if tuple(value.shape) != (n, widths[name]) or value.dtype not in (torch.float32, torch.float64):
            raise DataError(
                f"{path}: {name}: expected [{n}, {widths[name]}] float32 or float64 for robot {robot.name!r}, "
                f"got {list(value.shape)} {value.dtype}"
            )
        if value.dtype != dtype:
            raise DataError(f"{path}: {name}: expected {dtype} like q, got {value.dtype}; save all in one dtype")
    if n == 0:
        raise DataError(f"{path}: holds no rows; generate at least one batch")


def _good_rows(columns: dict[str, Tensor], robot: Robot) -> Tensor:
    """Tell which rows pass every check, [N] bool."""
    good = torch.ones(len(columns["q"]), dtype=torch.bool)
    for start in range(0, len(good), _CHECK_ROWS):
        rows = slice(start, start + _CHECK_ROWS)
        for _, bad, _ in _faults({name: value[rows] for name, value in columns.items()}, robot):
            good[rows] &= ~bad
    return good


def _describe(row: dict[str, Tensor], robot: Robot) -> str:
    """Say what is wrong with one bad row: field, expected, found."""
    name, _, expected = next(fault for fault in _faults(row, robot) if fault[1])
    return f"{name}: expected {expected}, got {_rounded(row[name])}"


def _faults(rows: dict[str, Tensor], robot: Robot) -> Iterator[tuple[str, Tensor, str]]:
    """Yield every check of some rows: the field, which rows fail [N] bool, and what row 0 should have been."""
    for name, value in rows.items():
        yield name, ~value.isfinite().all(-1), "finite values"
    q, pose, r, t = rows["q_target"], rows["target_pose"], rows["r"][:, 0], rows["t"][:, 0]
    off = torch.linalg.vector_norm(pose[:, 3:], dim=-1) - 1
    yield "target_pose", off.abs() > _QUAT_NORM_TOLERANCE, f"a unit quaternion (to {_QUAT_NORM_TOLERANCE})"
    limited = torch.tensor([kind != "continuous" for kind in robot.kinds])
    lower, upper = robot.limits()
    outside = ((q < lower - _LIMIT_TOLERANCE) | (q > upper + _LIMIT_TOLERANCE)) & limited
    limits = f"{_rounded(lower)} to {_rounded(upper)}"
    yield "q_target", outside.any(-1), f"joints within the limits of {robot.name!r}, {limits}"
    yield "r", (r < 0) | (r >= 1), "0 <= r < 1"
    yield "t", (t < 0) | (t > 1), "0 <= t <= 1"
    fk = ops.fk(robot, q)
    off = (position_error_m(fk, pose) > _FK_TOLERANCE) | (rotation_error_rad(fk, pose) > _FK_TOLERANCE)
    yield (
        "target_pose",
        off,
        f"{_rounded(fk[0])}, the forward kinematics of q_target for robot {robot.name!r} ({robot.base_link} -> "
        f"{robot.tip_link}; if few rows agree, the file is for another robot or tool frame)",
    )


def _rounded(values: Tensor) -> list[float]:
    return [round(value, 6) for value in values.flatten().tolist()]
