"""The solution nearest to a configuration, from many starts and by descent along the null space, in NumPy.

Judge of `nearest=True`: of mfik it uses forward kinematics and Jacobian alone, which Pinocchio judges elsewhere.
"""

from __future__ import annotations

import numpy as np

from mfik.robots import Robot

ON_TARGET = 1e-6  # [m] and [rad]


def distance(q: np.ndarray, q_ref: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Return the weighted distance of joints [..., J] from q_ref."""
    return np.linalg.norm(weights * (q - q_ref), axis=-1)


def turned(robot: Robot, q: np.ndarray, q_ref: np.ndarray) -> np.ndarray:
    """Return q [N, J] with each joint on the turn within the limits that is nearest to q_ref."""
    turn = 2 * np.pi
    turns = np.clip(
        np.round((q_ref - q) / turn),
        np.ceil((robot.lower - q) / turn - 1e-12),
        np.floor((robot.upper - q) / turn + 1e-12),
    )
    turns[:, [kind == "prismatic" for kind in robot.kinds]] = 0
    return robot.clamp(q + turn * turns)


def pose_errors(robot: Robot, q: np.ndarray, pose: np.ndarray) -> np.ndarray:
    """Return what the tool has to move and turn to the pose, base frame, [N, 6]."""
    reached = robot.fk(q)
    w, v = reached[:, 3:4], -reached[:, 4:]
    quat = pose[3:]
    scalar = quat[0] * w - (quat[1:] * v).sum(1, keepdims=True)  # target * conjugate(reached)
    vector = quat[0] * v + w * quat[1:] + np.cross(quat[1:], v)
    sine = np.linalg.norm(vector, axis=1, keepdims=True)
    angle = 2 * np.arctan2(sine, np.abs(scalar))
    turn = np.sign(scalar) * vector * angle / np.maximum(sine, 1e-12)
    return np.hstack([pose[:3] - reached[:, :3], turn])


def corrected(robot: Robot, q: np.ndarray, pose: np.ndarray, steps: int) -> tuple[np.ndarray, np.ndarray]:
    """Return joints after damped steps towards the pose, clipped to the limits, and the norms of their errors."""
    for _ in range(steps):
        error, J = pose_errors(robot, q, pose), robot.jacobian(q)
        held = np.zeros(q.shape, bool)  # at a limit
        for _ in range(3):
            free = J * ~held[:, None]
            damped = free @ np.swapaxes(free, 1, 2)
            damped += (0.02 * (error**2).sum(1) + 1e-9)[:, None, None] * np.eye(6)
            dq = np.einsum("nij,ni->nj", free, np.linalg.solve(damped, error[:, :, None])[:, :, 0])
            held |= ((q + dq < robot.lower) & (q <= robot.lower)) | ((q + dq > robot.upper) & (q >= robot.upper))
        q = robot.clamp(q + dq)
    return q, np.linalg.norm(pose_errors(robot, q, pose), axis=1)


def descended(
    robot: Robot, q: np.ndarray, q_ref: np.ndarray, pose: np.ndarray, weights: np.ndarray, steps: int
) -> np.ndarray:
    """Return solutions [N, J] after steps down the distance within their null space."""
    share = np.full((len(q), 1), 0.5)
    for _ in range(steps):
        J = robot.jacobian(q) / weights  # of the weighted joints, in which the distance is Euclidean
        wanted, held = weights * (q_ref - q), np.zeros(q.shape, bool)
        for _ in range(4):
            free = J * ~held[:, None]
            normal = free @ np.swapaxes(free, 1, 2) + 1e-10 * np.eye(6)
            push = np.linalg.solve(normal, np.einsum("nij,nj->ni", free, wanted)[:, :, None])[:, :, 0]
            step = (wanted - np.einsum("nij,ni->nj", free, push)) * ~held / weights
            held |= ((q <= robot.lower) & (step < 0)) | ((q >= robot.upper) & (step > 0))
        step *= share
        step *= np.minimum(1, 0.3 / np.maximum(np.abs(step).max(1, keepdims=True), 1e-30))
        tried, error = corrected(robot, robot.clamp(q + step), pose, 3)
        tried = turned(robot, tried, q_ref)
        nearer = distance(tried, q_ref, weights) < distance(q, q_ref, weights)
        better = (nearer & (error < ON_TARGET))[:, None]
        q, share = np.where(better, tried, q), np.where(better, np.minimum(1.5 * share, 1.5), 0.4 * share)
    return q


def nearest_solution(
    robot: Robot,
    pose: np.ndarray,
    q_ref: np.ndarray,
    rng: np.random.Generator,
    weights: np.ndarray | None = None,
    starts: int = 400,
) -> np.ndarray:
    """Return the solution of a pose that is nearest to q_ref, [J]."""
    weights = np.ones(robot.dof) if weights is None else weights
    q = np.vstack([robot.clamp(q_ref), turned(robot, robot.sample(starts, rng), q_ref)])
    q, error = corrected(robot, q, pose, 12)
    q, error = corrected(robot, q[error < 0.5], pose, 15)
    q = turned(robot, q[error < ON_TARGET], q_ref)
    for keep, steps in ((80, 12), (12, 50)) if robot.dof > 6 else ():
        order = distance(q, q_ref, weights).argsort()
        q = descended(robot, q[order[:keep]], q_ref, pose, weights, steps)
    return q[distance(q, q_ref, weights).argmin()]
