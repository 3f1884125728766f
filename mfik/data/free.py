"""Which joints are free of self-collision, for targets that are drawn."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mfik.errors import ArgumentError
from mfik.robots import Robot
from mfik.solve import Solver


def free_check(robot: Robot, device: torch.device | str) -> Callable[[Tensor], Tensor]:
    """Return the function that tells which joints [N, J] are free of self-collision, [N] bool, on the CPU.

    Args:
        robot: Robot with spheres on its links.
        device: Where joints are drawn.
    Raises:
        ArgumentError: The device is not the CPU, where the solver's check of many configurations runs.
        RobotError: The robot has no spheres.
    """
    if torch.device(device).type != "cpu":
        raise ArgumentError(
            f"collision_free: expected the device 'cpu', which checks for collision, got '{device}'; draw there with "
            "scripts/generate_data.py, and train on the file"
        )
    solver = Solver.from_robot(robot)
    solver.is_free([[0.0] * robot.dof])  # or an error that says how to get spheres

    def is_free(q: Tensor) -> Tensor:
        return torch.from_numpy(solver.is_free(q.double().numpy()))

    return is_free
