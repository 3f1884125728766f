"""Checks of arguments: each returns what it was given as the solver takes it, or names what is wrong with it."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from mfik.collision import World
from mfik.errors import ArgumentError
from mfik.kinematics import is_tensor
from mfik.native import load_native

if TYPE_CHECKING:
    from numpy.typing import ArrayLike


def as_array(name: str, value: ArrayLike, shape: tuple[int | None, ...]) -> np.ndarray:
    """Return a float64 array of the given shape; None is any size."""
    if value is None:
        raise ArgumentError(f"{name}: expected numbers, got None; it has no default")
    if is_tensor(value):
        if value.device.type != "cpu":
            raise ArgumentError(f"{name}: expected a tensor on cpu, got one on {value.device}; call .cpu()")
        value = value.detach()
    try:
        given = np.asarray(value)
        if np.iscomplexobj(given):
            raise TypeError("complex numbers are none")
        array = np.asarray(given, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"{name}: expected numbers, got {type(value).__name__} ({error})") from error
    if array.ndim != len(shape) or any(want not in (None, got) for want, got in zip(shape, array.shape, strict=True)):
        expected = ", ".join("N" if size is None else str(size) for size in shape)
        remedy = "check its size"
        more = array.ndim - len(shape)
        if name in ("pose", "q_ref") and array.ndim and abs(more) == 1:
            remedy = f"Solver.{'solve_batch' if more > 0 else 'solve'} takes that many dimensions"
        if name == "pose" and array.shape[-2:] != (4, 4):
            remedy += "; a pose may also be a transform, [4, 4]"
        raise ArgumentError(f"{name}: expected shape [{expected}], got {list(array.shape)}; {remedy}")
    return array


def as_joints(name: str, value: ArrayLike, shape: tuple[int | None, ...]) -> np.ndarray:
    """Return finite joints of the given shape."""
    return _finite(as_array(name, value, shape), name)


def as_poses(name: str, value: ArrayLike, shape: tuple[int | None, ...]) -> np.ndarray:
    """Return poses of the given shape, [7] or [N, 7], after checking values and quaternion norms.

    Each may also be given as a transform, [4, 4].
    """
    try:
        transforms = np.shape(value)[-2:] == (4, 4)
    except ValueError:  # rows of different lengths, which are refused below
        transforms = False
    if transforms:
        return _poses_of_transforms(_finite(as_array(name, value, (*shape[:-1], 4, 4)), name), name)
    poses = _finite(as_array(name, value, shape), name)
    norm = np.linalg.norm(poses[..., 3:], axis=-1)
    wrong = np.abs(norm - 1.0) > load_native().QUAT_NORM_TOLERANCE
    if wrong.any():
        row = np.argwhere(wrong)[0]
        where = f"{name}[{row[0]}]" if poses.ndim == 2 else name
        quat = poses[tuple(row)][3:]
        raise ArgumentError(
            f"{where}: expected a unit quaternion (qw, qx, qy, qz) in its last four numbers, got {quat.tolist()} "
            f"of norm {norm[tuple(row)]:.6g}; divide it by its norm, and check the order [x, y, z, qw, qx, qy, qz]"
        )
    return poses


def _poses_of_transforms(transforms: np.ndarray, name: str) -> np.ndarray:
    R, p = transforms[..., :3, :3], transforms[..., :3, 3]
    tolerance = load_native().QUAT_NORM_TOLERANCE
    rigid = np.abs(R @ np.swapaxes(R, -1, -2) - np.eye(3)).max((-1, -2)) <= tolerance
    rigid &= (np.linalg.det(R) > 0) & (transforms[..., 3, :] == [0, 0, 0, 1]).all(-1)
    if not rigid.all():
        row = np.argwhere(~rigid)[0]
        where = f"{name}[{row[0]}]" if transforms.ndim == 3 else name
        raise ArgumentError(
            f"{where}: expected a transform, a rotation matrix and a position over the row [0, 0, 0, 1], got "
            f"{transforms[tuple(row)].tolist()}; check that it is row-major, and rigid to {tolerance:g}"
        )
    xx, yy, zz = (R[..., i, i] for i in range(3))
    wx, wy, wz = (R[..., k, j] - R[..., j, k] for j, k in ((1, 2), (2, 0), (0, 1)))
    xy, xz, yz = (R[..., j, k] + R[..., k, j] for j, k in ((0, 1), (0, 2), (1, 2)))
    outer = np.array(  # 4 quat quat^T, of which the row with the longest diagonal is the most accurate
        [
            [1 + xx + yy + zz, wx, wy, wz],
            [wx, 1 + xx - yy - zz, xy, xz],
            [wy, xy, 1 - xx + yy - zz, yz],
            [wz, xz, yz, 1 - xx - yy + zz],
        ]
    )
    longest = np.einsum("ii...->i...", outer).argmax(0)
    quat = np.moveaxis(np.take_along_axis(outer, longest[None, None], 0)[0], 0, -1)
    return np.concatenate([p, quat / np.linalg.norm(quat, axis=-1, keepdims=True)], -1)


def as_world(value: Any) -> World | None:
    """Return a world or None."""
    if value is not None and not isinstance(value, World):
        raise ArgumentError(
            f"world: expected a mfik.collision.World or None, got {type(value).__name__}; World.from_dicts makes one"
        )
    return value


def as_number(name: str, value: Any, low: float, high: float, default: str) -> float:
    """Return a finite number from low to high; the message names the default."""
    try:
        valid = bool(np.isfinite(value)) and low <= value <= high
    except (TypeError, ValueError):
        valid = False
    if not valid:
        expected = f" of at least {low:g}" if high == math.inf else f" of {low:g} to {high:g}"
        if low == -math.inf:
            expected = ""
        raise ArgumentError(f"{name}: expected a finite number{expected}, got {value!r}; the default is {default}")
    return float(value)


def as_positive(name: str, value: Any) -> float:
    """Return a finite number above 0."""
    try:
        valid = bool(np.isfinite(value)) and value > 0
    except (TypeError, ValueError):
        valid = False
    if not valid:
        raise ArgumentError(f"{name}: expected a finite number above 0, got {value!r}")
    return float(value)


def as_steps(name: str, value: Any, dof: int) -> float | np.ndarray:
    """Return a finite number above 0, or one for each joint, [J]."""
    if np.ndim(value) == 0:
        return as_positive(name, value)
    steps = as_joints(name, value, (dof,))
    if not (steps > 0).all():
        joint = int((steps > 0).argmin())
        raise ArgumentError(f"{name}[{joint}]: expected a number above 0, got {steps[joint]}")
    return steps


def as_integer(name: str, value: Any, low: int, high: int) -> int:
    """Return an integer from low to high."""
    integer = isinstance(value, (int, np.integer)) and not isinstance(value, bool)
    if not integer or not low <= value <= high:
        raise ArgumentError(f"{name}: expected an integer from {low} to {high}, got {value!r}")
    return int(value)


def _finite(array: np.ndarray, name: str) -> np.ndarray:
    finite = np.isfinite(array)
    if not finite.all():
        index = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise ArgumentError(
            f"{name}{list(index)}: expected a finite number, got {array[index]}; check where it comes from"
        )
    return array
