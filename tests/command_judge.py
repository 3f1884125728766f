"""What a tracker commands, judged without the solver."""

import numpy as np

from mfik.robots import Robot


def check(robot: Robot, joints: np.ndarray, velocity, acceleration, dt: float = 1e-3) -> np.ndarray:
    """Assert that commands [N, J], the first at rest, keep to bounds and limits; return their velocities."""
    moves = np.diff(joints, axis=0) / dt
    assert (np.abs(moves) <= velocity).all()
    assert (np.abs(np.diff(moves, axis=0, prepend=0 * moves[:1]) / dt) <= acceleration).all()
    limited = np.array(robot.kinds) != "continuous"
    assert ((joints >= robot.lower) & (joints <= robot.upper))[:, limited].all()
    return moves
