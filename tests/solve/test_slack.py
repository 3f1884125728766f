"""Free axes and slack are sets of poses: what is within them is solved, found from afar, and held.

Pinocchio, on the URDF file, judges; the sets are described here anew, by swing and twist of a quaternion.
"""

import numpy as np
import pinocchio
import pytest
from judge import ROUNDING, TOLERANCE, Judge, norms, se3

from mfik.robots import load_robot
from mfik.solve import Solver, Status

pytest.importorskip("mfik._native", reason="needs the native extension: pip install -e .", exc_type=ImportError)

FILES = {
    "kinova": ("kinova_description/robots/kinova.urdf", "base", "j2s6s200_end_effector"),
    "so101": ("so_arm_description/urdf/so101.urdf", "base_link", "gripper_frame_link"),
    "finger": ("allegro_hand_description/urdf/allegro_right_hand.urdf", "palm_link", "link_3.0_tip"),
}
AXES = (0, 1, 2)


class Arm:
    def __init__(self, name: str, folder) -> None:
        file, *links = FILES.get(name, (None,))
        urdf = folder / file if file else None
        self.robot = load_robot(urdf, *links) if urdf else load_robot(name)
        self.solver = Solver.from_robot(self.robot)
        self.judge = Judge(self.robot, urdf)

    def draw(self, n: int, rng: np.random.Generator) -> np.ndarray:
        return rng.uniform(self.robot.lower, self.robot.upper, (n, self.robot.dof))


@pytest.fixture(params=["panda", "ur10", "kinova", "so101"])
def arm(request, example_robots) -> Arm:
    return Arm(request.param, example_robots)


@pytest.fixture
def so101(example_robots) -> Arm:
    return Arm("so101", example_robots)


def turned(poses: np.ndarray, axis: int, angles: np.ndarray) -> np.ndarray:
    """Return the poses [N, 7] after turns about an axis of their own."""
    turns = [pinocchio.Quaternion(pinocchio.exp3(angle * np.eye(3)[axis])) for angle in angles]
    out = poses.copy()
    for pose, turn in zip(out, turns, strict=True):
        quat = pinocchio.Quaternion(*pose[3:]) * turn
        pose[3:] = quat.w, quat.x, quat.y, quat.z
    return out


def beyond(judge: Judge, q: np.ndarray, pose: np.ndarray, slack: np.ndarray) -> np.ndarray:
    """Return how far the tool is outside the set: position [m] and rotation [rad]."""
    target, reached = se3(pose), judge.tool(q)
    position = target.rotation.T @ (reached.translation - target.translation)
    D = target.rotation.T @ reached.rotation
    free = np.isinf(slack[3:])
    rotation = np.zeros(3)
    if free.sum() == 0:
        rotation = pinocchio.log3(D)
    elif free.sum() == 1:
        a = np.eye(3)[free.argmax()]
        swing = np.cross(a, D @ a)
        sine = np.linalg.norm(swing)
        rotation = swing * (np.arctan2(sine, a @ D @ a) / sine if sine > 1e-12 else 1.0)
    elif free.sum() == 2:
        quat, k = pinocchio.Quaternion(D), (~free).argmax()
        angle = 2 * np.arctan2([quat.x, quat.y, quat.z][k], quat.w)
        rotation[k] = (angle + np.pi) % (2 * np.pi) - np.pi
    error = np.concatenate([position, rotation])
    return norms(np.sign(error) * np.maximum(np.abs(error) - slack, 0.0))


def solves(arm: Arm, q: np.ndarray, pose: np.ndarray, slack: np.ndarray) -> bool:
    limited = np.array(arm.robot.kinds) != "continuous"
    inside = ((q >= arm.robot.lower) & (q <= arm.robot.upper))[limited].all()
    return inside and beyond(arm.judge, q, pose, slack).max() <= TOLERANCE + ROUNDING


@pytest.mark.parametrize("axis", AXES)
def test_a_free_axis_is_free_at_every_angle(arm, axis):
    n, rng = 1000, np.random.default_rng(axis)
    slack = np.zeros(6)
    slack[3 + axis] = np.inf
    pose = turned(arm.robot.fk(arm.draw(n, rng)), axis, np.linspace(-np.pi, np.pi, n))
    out = arm.solver.solve_batch(pose, arm.draw(n, rng), slack=slack)
    solved = np.array([solves(arm, q, target, slack) for q, target in zip(out.q, pose, strict=True)])
    assert solved.mean() >= 0.999
    assert ((out.status == Status.SOLVED) == solved).all()
    many = arm.solver.solve_batch(pose, arm.draw(n, rng), slack=slack, throughput=True)
    assert (many.status == Status.SOLVED).mean() >= 0.999


def test_three_free_axes_ask_for_the_position_alone(example_robots):
    arm = Arm("finger", example_robots)
    n, rng = 1000, np.random.default_rng(1)
    slack = np.array([0, 0, 0, np.inf, np.inf, np.inf])
    pose = arm.robot.fk(arm.draw(n, rng))
    pose[:, 3:] = rng.normal(size=(n, 4))
    pose[:, 3:] /= np.linalg.norm(pose[:, 3:], axis=1, keepdims=True)
    out = arm.solver.solve_batch(pose, arm.draw(n, rng), slack=slack)
    assert np.mean([solves(arm, q, target, slack) for q, target in zip(out.q, pose, strict=True)]) >= 0.999


@pytest.mark.parametrize("axis", AXES)
def test_two_free_axes_bound_the_twist_about_the_third(arm, axis):
    """Targets whose axis points elsewhere, out of any reach of a small slack, but with the tool's twist."""
    n, rng = 500, np.random.default_rng(20 + axis)
    slack = np.array([0, 0, 0, np.inf, np.inf, np.inf])
    slack[3 + axis] = 0.05
    pose = arm.robot.fk(arm.draw(n, rng))
    swing = rng.normal(size=(n, 3))
    swing[:, axis] = 0.0
    for target, turn in zip(pose, swing, strict=True):
        quat = pinocchio.Quaternion(*target[3:]) * pinocchio.Quaternion(pinocchio.exp3(turn))
        target[3:] = quat.w, quat.x, quat.y, quat.z
    out = arm.solver.solve_batch(pose, arm.draw(n, rng), slack=slack)
    solved = np.array([solves(arm, q, target, slack) for q, target in zip(out.q, pose, strict=True)])
    assert solved.mean() >= 0.999
    assert ((out.status == Status.SOLVED) == solved).all()


def test_what_is_solved_without_slack_is_solved_with_it(arm):
    n, rng = 1000, np.random.default_rng(2)
    pose, q_ref = arm.robot.fk(arm.draw(n, rng)), arm.draw(n, rng)
    plain = arm.solver.solve_batch(pose, q_ref, throughput=True).status == Status.SOLVED
    slacks = [np.array([0, 0, 0.02, 0, 0, 0.3]), np.array([0.01, 0.01, 0.01, 0.1, 0.1, 0.1])]
    for _ in range(20):
        sizes = np.stack([np.zeros(6), rng.uniform(0, 0.05, 6), rng.uniform(0, 2, 6), np.full(6, np.inf)])
        slacks.append(sizes[rng.integers(0, 4, 6), np.arange(6)])
    for slack in slacks:
        out = arm.solver.solve_batch(pose, q_ref, slack=slack, throughput=True)
        assert not (plain & (out.status != Status.SOLVED)).any(), slack
        for q, target in list(zip(out.q, pose, strict=True))[:50]:
            assert solves(arm, q, target, slack)


@pytest.mark.parametrize("axis", AXES)
def test_a_static_target_turned_about_its_free_axis_is_held(arm, axis):
    slack, rng = np.zeros(6), np.random.default_rng(3)
    slack[3 + axis] = np.inf
    starts = arm.draw(50, rng)
    for q, pose in zip(starts, turned(arm.robot.fk(starts), axis, np.full(50, 2.0)), strict=True):
        for _ in range(100):
            result = arm.solver.track(pose, q, 0.1, slack=slack)
            assert result.status is Status.SOLVED
            assert np.abs(result.q - q).max() < 1e-9, "the tool is on the set already"
            q = result.q


@pytest.mark.parametrize("axis", AXES)
def test_a_path_with_a_free_axis_is_held_for_10000_samples(so101, axis):
    """The target turns about its free axis three times on the way."""
    n, robot = 10_000, so101.robot
    slack, rng = np.zeros(6), np.random.default_rng(4)
    slack[3 + axis] = np.inf
    phase, time = rng.uniform(0, 2 * np.pi, robot.dof), 2 * np.pi * np.arange(n)[:, None] / n
    midpoint, half = 0.5 * (robot.lower + robot.upper), 0.5 * (robot.upper - robot.lower)
    path = midpoint + np.minimum(0.8 * half, 1.2) * np.sin(time + phase)
    pose, q = turned(robot.fk(path), axis, 3 * time[:, 0]), path[0]
    for sample, target in enumerate(pose):
        result = so101.solver.track(target, q, 0.02, slack=slack)
        assert result.status is Status.SOLVED, sample
        q = result.q
        if sample % 100 == 0:
            assert solves(so101, q, target, slack)
