"""Reachable poses to solve, and the references to solve them from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from mfik.errors import ArgumentError, DataError
from mfik.robots import Robot

REFERENCES = ("global", "local")


class Targets(NamedTuple):
    """Poses [N, 7] (T_base_tool, [m]) and reference joints [N, J], float64."""

    pose: np.ndarray
    q_ref: np.ndarray


def make_targets(robot: Robot, n: int, *, reference: str = "global", sigma: float = 0.3, seed: int = 0) -> Targets:
    """Draw poses of joints uniform within the limits, so each is reachable, and a reference for each.

    Args:
        robot: Robot to draw for.
        n: Number of poses.
        reference: "global" (uniform within the limits, independent) or "local" (the joints + N(0, sigma^2), clamped).
        sigma: Spread of the local references, [rad] or [m].
        seed: Same arguments give the same targets.
    """
    if n < 1:
        raise ArgumentError(f"n: expected at least 1 pose, got {n}")
    if reference not in REFERENCES:
        raise ArgumentError(f"reference: expected one of {REFERENCES}, got {reference!r}")
    generator = torch.Generator().manual_seed(seed)
    q = robot.sample(n, generator, dtype=torch.float64)
    if reference == "local":
        noise = torch.randn(n, robot.dof, generator=generator, dtype=torch.float64)
        q_ref = robot.clamp(q + sigma * noise)
    else:
        q_ref = robot.sample(n, generator, dtype=torch.float64)
    return Targets(robot.fk(q).numpy(), q_ref.numpy())


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
