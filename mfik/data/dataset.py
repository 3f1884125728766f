"""The training file: five tensors of the document's format and the description of what made them."""

from __future__ import annotations

import json
import os
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mfik.errors import DataError
from mfik.kinematics import position_error_m, rotation_error_rad
from mfik.robots import Robot

FORMAT_VERSION = 1
_COLUMNS = ("q", "target_pose", "q_target", "r", "t")
_QUAT_NORM_TOLERANCE = 1e-3
_LIMIT_TOLERANCE = 1e-4  # [rad] or [m]: float32 rounding of a joint at its limit
_FK_CHECK_ROWS = 1000
_FK_TOLERANCE = 1e-3  # [m] and [rad]: far above float32 rounding, far below any other robot's FK


@dataclass(frozen=True)
class IKDataset(torch.utils.data.Dataset):
    """Rows of training data; row i is the line through (r, q) and (1, q_target) in joint space.

    Attributes:
        q: Joints at time r, [rad] or [m], [N, J].
        target_pose: T_base_tool of `q_target`, [x, y, z, qw, qx, qy, qz], [m], [N, 7].
        q_target: Joints at time 1, [rad] or [m], [N, J].
        r: Time of `q`, 0 <= r < 1, [N, 1].
        t: Evaluation time, r <= t <= 1, [N, 1].
        meta: What made the file: robot, coupling, sigma, seed; empty for files of other origin.
    """

    q: Tensor
    target_pose: Tensor
    q_target: Tensor
    r: Tensor
    t: Tensor
    meta: dict[str, Any] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.q.shape[0]

    def __getitem__(self, index: Any) -> dict[str, Tensor]:
        """Return the row(s) `index` as the dictionary that `MeanFlowTrainer.train_step` takes."""
        return {name: getattr(self, name)[index] for name in _COLUMNS}

    def rows(self, start: int, stop: int) -> IKDataset:
        """Return rows start..stop-1 as a view."""
        return IKDataset(*(getattr(self, name)[start:stop] for name in _COLUMNS), meta=self.meta)

    def to(self, device: torch.device | str) -> IKDataset:
        """Return the rows on `device`."""
        return IKDataset(*(getattr(self, name).to(device) for name in _COLUMNS), meta=self.meta)


def save_dataset(path: str | os.PathLike[str], dataset: IKDataset, *, overwrite: bool = False) -> None:
    """Write the document's dictionary of tensors, plus `meta` (a JSON string), whole or not at all.

    Raises:
        DataError: `path` exists and `overwrite` is false.
    """
    path = Path(path)
    if path.exists() and not overwrite:
        raise DataError(f"{path}: exists already; give another --output, or --overwrite to replace it")
    path.parent.mkdir(parents=True, exist_ok=True)
    payload: dict[str, Any] = {name: getattr(dataset, name).contiguous() for name in _COLUMNS}
    payload["meta"] = json.dumps({"format": "mfik-data", "version": FORMAT_VERSION, **dataset.meta})
    handle, partial = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".partial")
    os.close(handle)
    try:
        torch.save(payload, partial)
        os.replace(partial, path)
    except BaseException:
        Path(partial).unlink(missing_ok=True)
        raise


def load_dataset(path: str | os.PathLike[str], robot: Robot) -> IKDataset:
    """Read a training file (memory-mapped) and check every row.

    Args:
        path: File written by `scripts/generate_data.py`, or any `torch.save` of the document's dictionary.
        robot: Robot to train for.

    Raises:
        DataError: the file cannot be read, lacks a tensor, has a bad row (named by index), or is of another robot.
    """
    path = Path(path)
    if not path.is_file():
        raise DataError(f"{path}: no such file; make it with scripts/generate_data.py --output {path}")
    try:
        payload = torch.load(path, map_location="cpu", mmap=True, weights_only=True)
    except Exception as error:
        raise DataError(f"{path}: not a file of tensors ({type(error).__name__}: {error}); generate it again") from error
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
    dataset = IKDataset(*(payload[name] for name in _COLUMNS), meta=meta)
    _check_rows(path, dataset, robot)
    return dataset


def _read_meta(path: Path, text: Any) -> dict[str, Any]:
    if text is None:
        return {}
    try:
        meta = json.loads(text)
        kind, version = meta.pop("format"), meta.pop("version")
    except (TypeError, ValueError, AttributeError, KeyError) as error:
        raise DataError(f"{path}: 'meta' is not mfik's description of the data ({error}); generate it again") from error
    if kind != "mfik-data" or version != FORMAT_VERSION:
        raise DataError(f"{path}: expected format mfik-data version {FORMAT_VERSION}, got {kind} version {version}")
    return meta


def _check_rows(path: Path, dataset: IKDataset, robot: Robot) -> None:
    """Raise DataError for the first row that breaks the format."""
    n = len(dataset)
    widths = {"q": robot.dof, "target_pose": 7, "q_target": robot.dof, "r": 1, "t": 1}
    for name, width in widths.items():
        tensor = getattr(dataset, name)
        if tuple(tensor.shape) != (n, width) or tensor.dtype not in (torch.float32, torch.float64):
            raise DataError(
                f"{path}: {name}: expected [{n}, {width}] float32 or float64 for robot {robot.name!r}, "
                f"got {list(tensor.shape)} {tensor.dtype}"
            )
    if n == 0:
        raise DataError(f"{path}: holds no rows; generate at least one batch")
    lower, upper = robot.lower - _LIMIT_TOLERANCE, robot.upper + _LIMIT_TOLERANCE
    limited = torch.tensor([kind != "continuous" for kind in robot.kinds])
    for name in widths:
        _refuse(path, name, ~getattr(dataset, name).isfinite().all(-1), dataset, "expected finite values")
    norm = dataset.target_pose[:, 3:].norm(dim=-1)
    _refuse(path, "target_pose", (norm - 1).abs() > _QUAT_NORM_TOLERANCE, dataset, "expected a unit quaternion")
    outside = ((dataset.q_target < lower) | (dataset.q_target > upper)) & limited
    _refuse(path, "q_target", outside.any(-1), dataset, f"expected joints within the limits of {robot.name!r}")
    r, t = dataset.r[:, 0], dataset.t[:, 0]
    _refuse(path, "r", (r < 0) | (r >= 1), dataset, "expected 0 <= r < 1")
    _refuse(path, "t", (t < r) | (t > 1), dataset, "expected r <= t <= 1")
    rows = torch.linspace(0, n - 1, min(n, _FK_CHECK_ROWS)).long()
    pose = robot.fk(dataset.q_target[rows].double())
    target = dataset.target_pose[rows].double()
    off = (position_error_m(pose, target) > _FK_TOLERANCE) | (rotation_error_rad(pose, target) > _FK_TOLERANCE)
    if off.any():
        row = int(rows[off][0])
        raise DataError(
            f"{path}: row {row}: target_pose is not the forward kinematics of q_target for robot {robot.name!r} "
            f"({robot.base_link} -> {robot.tip_link}); was the file made for another robot or tool frame?"
        )


def _refuse(path: Path, name: str, bad: Tensor, dataset: IKDataset, expected: str) -> None:
    if bad.any():
        row = int(bad.nonzero()[0, 0])
        values = [round(x, 6) for x in getattr(dataset, name)[row].tolist()]
        raise DataError(f"{path}: row {row}: {name}: {expected}, got {values} ({int(bad.sum())} such rows)")
