"""The C++ solver from Python: one network evaluation, bounded refinement, check by forward kinematics."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from enum import IntEnum
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike

from mfik.errors import ArgumentError, BundleError, RobotError
from mfik.robots import Robot


class Status(IntEnum):
    """Outcome of a solve."""

    SOLVED = 0  # both errors within tolerance, every joint within its limits
    NOT_CONVERGED = 1  # an error exceeds its tolerance: unreachable pose, or too few iterations
    OUTSIDE_LIMITS = 2  # only with max_iterations=0: refinement stays within the limits
    INVALID_INPUT = 3  # C++ only: here invalid input raises ArgumentError


@dataclass(frozen=True)
class Result:
    """Outcome of `Solver.solve`.

    Attributes:
        q: Best joints found [rad or m], continuous joints in [-pi, pi], [J], float64. Check `status` before moving.
        status: Whether q solves the pose.
        pos_error: Distance between the target and FK(q), [m].
        rot_error: Angle between the target and FK(q), [rad].
        iterations: Refinement steps taken.
    """

    q: np.ndarray
    status: Status
    pos_error: float
    rot_error: float
    iterations: int


@dataclass(frozen=True)
class BatchResult:
    """Outcome of `Solver.solve_batch`: `Result` by rows.

    Attributes:
        q: Best joints found [rad or m], [N, J], float64.
        status: `Status` values, [N], int64.
        pos_error: Distance between the target and FK(q), [m], [N].
        rot_error: Angle between the target and FK(q), [rad], [N].
        iterations: Refinement steps taken, [N], int64.
        time_us: Wall time of each solve, measured in C++, [us], [N]; None unless asked for.
    """

    q: np.ndarray
    status: np.ndarray
    pos_error: np.ndarray
    rot_error: np.ndarray
    iterations: np.ndarray
    time_us: np.ndarray | None


class Solver:
    """Inverse kinematics of one robot with one exported network; make it with `Solver.load`.

    Attributes:
        robot: The robot that the network was trained for.
        metadata: The bundle's JSON document: format, robot, model, training, accuracy.
    """

    def __init__(self, native: Any, robot: Robot, metadata: dict[str, Any]) -> None:
        self._native = native
        self.robot = robot
        self.metadata = metadata

    @classmethod
    def load(cls, path: str | os.PathLike[str], robot: Robot | None = None) -> Solver:
        """Read a bundle: its folder, or the `model.safetensors` in it.

        Args:
            path: The bundle.
            robot: The robot that will be driven, to make sure that the bundle is for it; default any.

        Raises:
            BundleError: The bundle is missing, malformed, foreign, of another version, or for another robot.
            ImportError: The native extension is missing.
        """
        native = _import_native().Solver.load(os.fsencode(path))
        metadata = json.loads(native.metadata_json)
        try:
            own = Robot.from_dict(metadata["robot"])
        except RobotError as error:
            raise BundleError(f"{os.fspath(path)}: {error}") from error
        if robot is not None and robot.fingerprint() != own.fingerprint():
            raise BundleError(
                f"{os.fspath(path)}: expected a bundle for robot '{robot.name}' ({robot.base_link} -> "
                f"{robot.tip_link}, {robot.dof} joints), got one for '{own.name}' ({own.base_link} -> {own.tip_link}, "
                f"{own.dof} joints) with other joints, limits or transforms; train and export for this robot"
            )
        return cls(native, own, metadata)

    @property
    def dof(self) -> int:
        """Number of joints J."""
        return self._native.dof

    def num_parameters(self) -> int:
        """Return the number of trained scalars of the network."""
        return self._native.num_parameters

    def solve(
        self,
        pose: ArrayLike,
        q_ref: ArrayLike,
        *,
        tol_pos: float = 1e-5,
        tol_rot: float = 1e-5,
        max_iterations: int = 20,
    ) -> Result:
        """Find joints that bring the tool to a pose.

        Args:
            pose: T_base_tool [x, y, z, qw, qx, qy, qz], [m], unit quaternion of either sign, [7].
            q_ref: Joints to start from [rad or m], finite, may lie outside the limits, [J].
            tol_pos: Largest accepted position error [m].
            tol_rot: Largest accepted rotation error [rad].
            max_iterations: Refinement steps; 0 returns the network's answer as it is.

        Raises:
            ArgumentError: An argument has the wrong shape or value.
        """
        pose = _poses(_array("pose", pose, (7,)))
        q_ref = _finite("q_ref", _array("q_ref", q_ref, (self.dof,)))
        q, status, *rest = self._native.solve(pose, q_ref, *_options(tol_pos, tol_rot, max_iterations))
        return Result(q, Status(status), *rest)

    def solve_batch(
        self,
        pose: ArrayLike,
        q_ref: ArrayLike,
        *,
        tol_pos: float = 1e-5,
        tol_rot: float = 1e-5,
        max_iterations: int = 20,
        time_each: bool = False,
        threads: int = 1,
    ) -> BatchResult:
        """Solve N poses, each exactly as `solve` would; other Python threads run meanwhile.

        Args:
            pose: T_base_tool, see `solve`, [N, 7].
            q_ref: Joints to start from [rad or m], [N, J].
            tol_pos: Largest accepted position error [m].
            tol_rot: Largest accepted rotation error [rad].
            max_iterations: Refinement steps; 0 returns the network's answers as they are.
            time_each: Measure the time of each solve.
            threads: Threads to use; the results do not depend on it.

        Raises:
            ArgumentError: An argument has the wrong shape or value.
        """
        pose = _poses(_array("pose", pose, (None, 7)))
        q_ref = _finite("q_ref", _array("q_ref", q_ref, (len(pose), self.dof)))
        if not _is_integer(threads) or threads < 1:
            raise ArgumentError(f"threads: expected an integer of at least 1, got {threads!r}; 1 uses this thread only")
        threads = min(int(threads), 1024)
        options = _options(tol_pos, tol_rot, max_iterations)
        return BatchResult(*self._native.solve_batch(pose, q_ref, *options, bool(time_each), threads))


def _import_native() -> ModuleType:
    try:
        from mfik import _native
    except ImportError as error:
        raise ImportError(
            f"mfik._native, which holds the C++ solver, cannot be imported ({error}); "
            "build it with: pip install -e . (needs a C++17 compiler)"
        ) from error
    return _native


def _array(name: str, value: ArrayLike, shape: tuple[int | None, ...]) -> np.ndarray:
    """Return a float64 array of the given shape; None is any size."""
    if isinstance(value, torch.Tensor):
        if value.device.type != "cpu":
            raise ArgumentError(f"{name}: expected a tensor on cpu, got one on {value.device}; call .cpu()")
        value = value.detach()
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"{name}: expected numbers, got {type(value).__name__} ({error})") from error
    if array.ndim != len(shape) or any(want not in (None, got) for want, got in zip(shape, array.shape, strict=True)):
        expected = ", ".join("N" if size is None else str(size) for size in shape)
        other = "solve_batch" if array.ndim == 2 else "solve"
        remedy = f"Solver.{other} takes that many dimensions" if array.ndim != len(shape) else "check its size"
        raise ArgumentError(f"{name}: expected shape [{expected}], got {list(array.shape)}; {remedy}")
    return array


def _finite(name: str, array: np.ndarray) -> np.ndarray:
    finite = np.isfinite(array)
    if not finite.all():
        index = tuple(int(i) for i in np.argwhere(~finite)[0])
        raise ArgumentError(
            f"{name}{list(index)}: expected a finite number, got {array[index]}; check where it comes from"
        )
    return array


def _poses(poses: np.ndarray) -> np.ndarray:
    """Return poses [..., 7] after checking values and quaternion norms."""
    _finite("pose", poses)
    norm = np.linalg.norm(poses[..., 3:], axis=-1)
    wrong = np.abs(norm - 1.0) > _import_native().QUAT_NORM_TOLERANCE
    if wrong.any():
        row = np.argwhere(wrong)[0]
        where = f"pose[{row[0]}]" if poses.ndim == 2 else "pose"
        quat = poses[tuple(row)][3:]
        raise ArgumentError(
            f"{where}: expected a unit quaternion (qw, qx, qy, qz) in its last four numbers, got {quat.tolist()} "
            f"of norm {norm[tuple(row)]:.6g}; divide it by its norm, and check the order [x, y, z, qw, qx, qy, qz]"
        )
    return poses


def _options(tol_pos: float, tol_rot: float, max_iterations: int) -> tuple[float, float, int]:
    for name, value in (("tol_pos", tol_pos), ("tol_rot", tol_rot)):
        try:
            valid = np.isfinite(value) and value >= 0
        except (TypeError, ValueError):
            valid = False
        if not valid:
            raise ArgumentError(f"{name}: expected a finite number of at least 0, got {value!r}; the default is 1e-5")
    limit = _import_native().MAX_ITERATIONS
    if not _is_integer(max_iterations) or not 0 <= max_iterations <= limit:
        raise ArgumentError(
            f"max_iterations: expected an integer from 0 to {limit}, got {max_iterations!r}; the default is 20"
        )
    return float(tol_pos), float(tol_rot), int(max_iterations)


def _is_integer(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)
