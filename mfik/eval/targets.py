"""Reachable poses to solve, and the references to solve them from.

Never the poses of training: the numbers here are NumPy's PCG64, in float64. Training draws its rows, in float32, with
the generators of torch and `ops.draw_batch` (Mersenne Twister, Philox): no seed makes the two draw the same joints.
"""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from mfik.errors import ArgumentError, DataError
from mfik.robots import Robot

KINDS = ("global", "local", "near_limits", "near_singular")

_NEAR_LIMIT = (1e-3, 0.05)  # distance from the limit [rad or m]
_NEAR_LIMIT_JOINTS = 3  # at most that are near one
_NEAR_SINGULAR = 0.02  # least singular value; 18 % of the Panda's joint space is nearer, 24 % of the UR10's
_DRIFT = 0.1  # share of a new direction in each step of a path
_SINGULAR_ATTEMPTS = 100  # blocks of n rows to look through for n near-singular ones


class Targets(NamedTuple):
    """Poses [N, 7] (T_base_tool, [m]) and reference joints [N, J], float64."""

    pose: np.ndarray
    q_ref: np.ndarray


def make_targets(robot: Robot, n: int, *, kind: str = "global", sigma: float = 0.3, seed: int = 0) -> Targets:
    """Draw reachable poses, as those of joints within the limits, and a reference for each.

    Args:
        robot: Robot to draw for.
        n: Number of poses.
        kind: One of KINDS. "global": joints uniform within the limits, references uniform and independent.
            "local": the same joints, references the joints + N(0, sigma^2), clamped. "near_limits": up to 3 limited
            joints within 0.001 to 0.05 [rad or m] of a limit, the others and the references uniform. "near_singular":
            joints with `least_singular_value` below 0.02 (elbow straight, wrist axes aligned, ...), references uniform.
        sigma: Spread of the local references, [rad] or [m].
        seed: Same arguments give the same targets.

    Raises:
        ArgumentError: An argument is out of range, or the robot has no such poses (no limits, or no singularity).
    """
    if n < 1:
        raise ArgumentError(f"n: expected at least 1 pose, got {n}")
    if kind not in KINDS:
        raise ArgumentError(f"kind: expected one of {KINDS}, got {kind!r}")
    rng = random_numbers(seed)
    if kind == "near_limits":
        q = _near_limits(robot, n, rng)
    elif kind == "near_singular":
        q = _near_singular(robot, n, rng)
    else:
        q = uniform_joints(robot, n, rng)
    if kind == "local":
        q_ref = robot.clamp(q + sigma * torch.from_numpy(rng.standard_normal((n, robot.dof))))
    else:
        q_ref = uniform_joints(robot, n, rng)
    return Targets(robot.fk(q).numpy(), q_ref.numpy())


def make_path(
    robot: Robot, n: int, *, min_step: float = math.radians(1), max_step: float = math.radians(3), seed: int = 0
) -> Targets:
    """Draw a path for tracking: the poses of joints that wander within the limits, the reference one step behind.

    In each step the fastest joint moves by min_step to max_step; the direction drifts, and turns back at a limit.

    Args:
        robot: Robot to draw for.
        n: Number of steps.
        min_step: Least motion of the fastest joint a step [rad or m].
        max_step: Largest motion of a joint a step [rad or m], at most half of the narrowest joint's range.
        seed: Same arguments give the same path.
    """
    if n < 1:
        raise ArgumentError(f"n: expected at least 1 step, got {n}")
    narrowest = float((robot.upper - robot.lower).min())
    if not 0 < min_step <= max_step <= narrowest / 2:
        raise ArgumentError(
            "min_step, max_step: expected 0 < min_step <= max_step <= half of the narrowest range "
            f"({narrowest / 2:.3g}), got {min_step}, {max_step}"
        )
    rng = random_numbers(seed)
    q = uniform_joints(robot, 1, rng)[0]
    direction = torch.from_numpy(rng.standard_normal(robot.dof))
    noise = torch.from_numpy(rng.standard_normal((n, robot.dof)))
    sizes = min_step + (max_step - min_step) * torch.from_numpy(rng.random(n))
    lower, upper = robot.limits()
    path = [q]
    for step in range(n):
        direction = math.sqrt(1 - _DRIFT**2) * direction + _DRIFT * noise[step]
        move = sizes[step] * direction / direction.abs().max()
        leaves = (q + move < lower) | (q + move > upper)
        direction, move = torch.where(leaves, -direction, direction), torch.where(leaves, -move, move)
        q = q + move
        path.append(q)
    joints = torch.stack(path)
    return Targets(robot.fk(joints[1:]).numpy(), joints[:-1].numpy())


def robot_length(robot: Robot) -> float:
    """Return the sum of the joints' offsets [m] (Panda 1.32, UR10 1.88)."""
    return float(torch.linalg.vector_norm(robot.chain.transforms()[..., 3], dim=-1).sum())


def least_singular_value(robot: Robot, q: Tensor) -> Tensor:
    """Compute the least singular value of the Jacobian with lengths in units of the robot's, so without dimension.

    Dividing the position rows by the robot's length weighs a metre at full reach like a radian.

    Args:
        robot: The robot, of at least 6 joints.
        q: Joints [rad or m], [..., J].
    Returns:
        Least of the 6 singular values, [...].
    """
    scale = torch.ones(6, 1, dtype=q.dtype)
    scale[:3] /= robot_length(robot)
    return torch.linalg.svdvals(scale * robot.jacobian(q))[..., -1]


def random_numbers(seed: int, *key: int) -> np.random.Generator:
    """Return the random numbers of an evaluation, which training never draws; every key has its own.

    Raises:
        ArgumentError: seed is negative.
    """
    if seed < 0:
        raise ArgumentError(f"seed: expected an integer of at least 0, got {seed}")
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence(seed, spawn_key=key)))


def uniform_joints(robot: Robot, n: int, rng: np.random.Generator) -> Tensor:
    """Draw joints uniformly within the limits [rad or m], [n, J], float64."""
    share = torch.from_numpy(rng.random((n, robot.dof)))
    lower, upper = robot.limits()
    return robot.clamp(lower + (upper - lower) * share)


def _near_limits(robot: Robot, n: int, rng: np.random.Generator) -> Tensor:
    """Return joints [n, J] of which up to _NEAR_LIMIT_JOINTS are near a limit."""
    limited = torch.tensor([kind != "continuous" for kind in robot.kinds])
    if not limited.any():
        raise ArgumentError(f"kind: robot {robot.name!r} has no joint limits to be near to; choose another kind")
    q = uniform_joints(robot, n, rng)
    order = torch.from_numpy(rng.random((n, robot.dof))).masked_fill(~limited, 2.0).argsort(-1).argsort(-1)
    near = limited & (order < _NEAR_LIMIT_JOINTS)
    share = torch.from_numpy(rng.random((n, robot.dof)))
    lower, upper = robot.limits()
    distance = torch.minimum(_NEAR_LIMIT[0] + (_NEAR_LIMIT[1] - _NEAR_LIMIT[0]) * share, upper - lower)
    low = torch.from_numpy(rng.random((n, robot.dof))) < 0.5
    return torch.where(near, torch.where(low, lower + distance, upper - distance), q)


def _near_singular(robot: Robot, n: int, rng: np.random.Generator) -> Tensor:
    """Return the first n joints [n, J] of uniform ones that are near a singularity."""
    if robot.dof < 6:
        raise ArgumentError(
            f"kind: robot {robot.name!r} has {robot.dof} joints; with fewer than 6 all poses are singular"
        )
    found = torch.empty(0, robot.dof, dtype=torch.float64)
    for _ in range(_SINGULAR_ATTEMPTS):
        q = uniform_joints(robot, n, rng)
        found = torch.cat([found, q[least_singular_value(robot, q) < _NEAR_SINGULAR]])
        if len(found) >= n:
            return found[:n]
    raise ArgumentError(
        f"kind: found {len(found)} of {n} near-singular poses of robot {robot.name!r}; choose another kind"
    )


def load_targets(path: str | os.PathLike[str], robot: Robot) -> Targets:
    """Read `pose` [N, 7] and `q_ref` [N, J] from an .npz file; other arrays are ignored.

    Raises:
        DataError: the file is unreadable, or an array is missing, of the wrong shape or not finite.
    """
    path = Path(path)
    try:
        with np.load(path, allow_pickle=False) as file:
            arrays = {name: np.asarray(file[name], dtype=np.float64) for name in ("pose", "q_ref") if name in file}
            found = sorted(file)
    except (OSError, ValueError, TypeError, AttributeError, EOFError) as error:
        raise DataError(f"{path}: not a readable .npz file ({error}); write it with numpy.savez") from error
    missing = sorted({"pose", "q_ref"} - set(arrays))
    if missing:
        raise DataError(f"{path}: expected arrays pose and q_ref, missing {missing}; it has {found}")
    n = arrays["pose"].shape[0] if arrays["pose"].ndim else 0
    for name, width in (("pose", 7), ("q_ref", robot.dof)):
        array = arrays[name]
        if array.shape != (n, width) or n == 0:
            raise DataError(f"{path}: {name}: expected [N, {width}] for robot {robot.name!r}, got {list(array.shape)}")
        if not np.isfinite(array).all():
            row = int(np.argwhere(~np.isfinite(array))[0, 0])
            raise DataError(f"{path}: row {row}: {name}: expected finite values, got {array[row].tolist()}")
    return Targets(arrays["pose"], arrays["q_ref"])
