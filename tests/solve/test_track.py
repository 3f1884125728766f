"""Tracking under a bound that binds: the tool keeps its direction, no joint alternates, and all come to rest."""

import numpy as np
import pytest

from mfik.errors import ArgumentError
from mfik.path import interpolate
from mfik.robots import load_robot
from mfik.solve import Solver, Status

pytest.importorskip("mfik._native", reason="needs the native extension: pip install -e .", exc_type=ImportError)

AT_REST = 1e-9  # [rad] a sample
ALTERNATING = (
    0.1  # share of the bound beyond which steps of opposite sign follow each other only where joints alternate
)


@pytest.fixture(scope="module", params=["panda", "ur10"])
def solver(request) -> Solver:
    return Solver.from_robot(load_robot(request.param))


@pytest.fixture(scope="module")
def panda() -> Solver:
    return Solver.from_robot(load_robot("panda"))


def follow(solver: Solver, poses, q, max_step, **options) -> tuple[np.ndarray, list[Status]]:
    """Track the poses one after the other; return the joints before and after each, [N + 1, J], and the statuses."""
    joints, statuses = [np.array(q, dtype=float)], []
    for pose in poses:
        result = solver.track(pose, joints[-1], max_step, **options)
        assert (np.abs(result.q - joints[-1]) <= max_step).all()
        joints.append(result.q)
        statuses.append(result.status)
    return np.array(joints), statuses


def count(joints: np.ndarray, max_step) -> tuple[int, int]:
    """Return in how many samples a joint reverses, from a step to its opposite, and how many move at all."""
    steps = np.diff(joints, axis=0)
    large = np.abs(steps) > ALTERNATING * max_step
    reverses = (steps[1:] * steps[:-1] < 0) & large[1:] & large[:-1]
    return int(reverses.any(1).sum()), int((np.abs(steps[1:]) > AT_REST).any(1).sum())


def starts(solver: Solver, n: int, seed: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Return random joints, and others within 0.5 rad of them."""
    robot, rng = solver.robot, np.random.default_rng(seed)
    drawn = rng.uniform(robot.lower, robot.upper, (n, robot.dof))
    return [(q, robot.clamp(q + rng.uniform(-0.5, 0.5, robot.dof))) for q in drawn]


@pytest.mark.parametrize("max_step", [0.002, 0.02])
def test_a_fixed_target_is_reached_without_reversals_and_held(solver, max_step):
    reversals = moving = held = 0
    for q, goal in starts(solver, 100, 1):
        joints, statuses = follow(solver, [solver.robot.fk(goal)] * (1200 if max_step < 0.01 else 200), q, max_step)
        counts = count(joints, max_step)
        reversals, moving = reversals + counts[0], moving + counts[1]
        held += statuses[-1] is Status.SOLVED and np.abs(np.diff(joints[-50:], axis=0)).max() <= AT_REST
    assert reversals <= 0.02 * moving
    assert held >= 99


def test_a_target_aside_is_approached_on_a_straight_line(panda):
    q = [0, -0.8, 0, -2.4, 0, 1.6, 0.8]
    begin = panda.robot.fk(q)
    pose = begin + [0, 0.1, 0, 0, 0, 0, 0]
    joints, statuses = follow(panda, [pose] * 200, q, 0.002)
    assert statuses[-1] is Status.SOLVED
    assert count(joints, 0.002)[0] == 0
    tool = panda.robot.fk(joints)[:, :3] - begin[:3]
    assert np.abs(tool[:, [0, 2]]).max() < 2e-3, "aside of the line, of 100 mm"
    assert (np.diff(tool[:, 1]) > -1e-9).all()


@pytest.mark.parametrize("max_step", [0.01, 0.0025, 0.002])
def test_a_circle_faster_than_the_bound_is_cut_without_reversals(panda, max_step):
    q = [0, -0.8, 0, -2.4, 0, 1.6, 0.8]
    angle = 2 * np.pi * np.arange(1000) / 500
    poses = np.repeat(panda.robot.fk(q)[None], len(angle), 0)
    poses[:, 1] += 0.1 * np.sin(angle)
    poses[:, 2] += 0.1 * (1 - np.cos(angle))
    reversals, moving = count(follow(panda, poses, q, max_step)[0], max_step)
    assert reversals <= 0.01 * moving


@pytest.mark.parametrize("beyond", [0.01, 1.0])
def test_a_target_at_or_beyond_the_edge_of_the_reach_is_approached_and_comes_to_rest(solver, beyond):
    robot, rng = solver.robot, np.random.default_rng(3)
    reversals = moving = rested = 0
    for _ in range(20):
        q = robot.lower + (robot.upper - robot.lower) * rng.uniform(0.1, 0.9, robot.dof)
        pose = robot.fk(q)
        pose[:3] *= 1 + beyond * rng.uniform(1, 2) / np.linalg.norm(pose[:3])
        joints, _ = follow(solver, [pose] * 1500, q, 0.02)
        counts = count(joints, 0.02)
        reversals, moving = reversals + counts[0], moving + counts[1]
        distance = np.linalg.norm(robot.fk(joints[[0, -1]])[:, :3] - pose[:3], axis=1)
        assert distance[1] <= distance[0] + 1e-9 or beyond < 0.1, "rotation errors count, too"
        rested += np.abs(np.diff(joints[-20:], axis=0)).max() <= AT_REST
    assert reversals <= 0.01 * moving
    assert rested == 20


def test_a_target_that_leaves_the_reach_is_followed_without_hunting(solver):
    robot, rng = solver.robot, np.random.default_rng(5)
    time = np.linspace(0, 1, 1000)[:, None]
    turns = []
    for _ in range(20):
        q = robot.lower + (robot.upper - robot.lower) * rng.uniform(0.1, 0.9, robot.dof)
        poses = np.repeat(robot.fk(q)[None], 1000, 0)
        poses[:, :3] += 0.7 * time**3 * (10 - 15 * time + 6 * time**2) * poses[0, :3] / np.linalg.norm(poses[0, :3])
        moves = np.diff(follow(solver, poses, q, 0.2)[0], axis=0)
        signs = np.sign(np.where(np.abs(moves) > 1e-7, moves, 0))
        turns.append((signs[1:] * signs[:-1] < 0).sum() / robot.dof)
    assert np.mean(turns) <= 5, "a joint turns back so often that it hunts for the least error"


@pytest.mark.parametrize("max_step", [1e-10, 1e-6])
def test_a_bound_of_any_size_is_used_up(solver, max_step):
    """Steps that a bound shortens below what counts as rest are no rest."""
    robot, rng = solver.robot, np.random.default_rng(6)
    for _ in range(20):
        q = robot.lower + (robot.upper - robot.lower) * rng.uniform(0.2, 0.8, robot.dof)
        result = solver.track(robot.fk(q + rng.uniform(-0.1, 0.1, robot.dof)), q, max_step)
        assert result.status is Status.JUMP_BOUND
        assert np.abs(result.q - q).max() == pytest.approx(max_step, rel=1e-3)


@pytest.mark.parametrize("gain", [0.1, 1.0])
def test_null_space_motion_comes_to_rest_at_the_nearest_posture(panda, gain):
    robot, rng = panda.robot, np.random.default_rng(4)
    midpoint = 0.5 * (robot.lower + robot.upper)
    reversals = moving = 0
    for _ in range(30):
        q = robot.lower + (robot.upper - robot.lower) * rng.uniform(0.1, 0.9, robot.dof)
        joints, statuses = follow(panda, [robot.fk(q)] * 400, q, 0.1, q_preferred=midpoint, preference_gain=gain)
        assert all(status is Status.SOLVED for status in statuses)
        counts = count(joints, 0.1)
        reversals, moving = reversals + counts[0], moving + counts[1]
        assert np.abs(np.diff(joints[-20:], axis=0)).max() <= AT_REST
        distance = np.linalg.norm(joints - midpoint, axis=1)
        assert (np.diff(distance) <= 1e-9).all()
    assert reversals <= 0.01 * moving


def test_long_paths_are_led_away_from_limits_and_to_rest(panda):
    robot, rng = panda.robot, np.random.default_rng(10)
    arrived = {0.0: [], 0.1: []}
    for _ in range(60):
        q, goal = robot.lower + (robot.upper - robot.lower) * rng.uniform(0.1, 0.9, (2, robot.dof))
        poses = interpolate(robot.fk(np.array([q, goal])), 4e-3, 8e-3)
        if not (panda.solve_batch(poses[::20], np.tile(q, (len(poses[::20]), 1))).status == Status.SOLVED).all():
            continue
        for gain, done in arrived.items():
            joints, statuses = follow(panda, [*poses, poses[-1], poses[-1]], q, 0.1, preference_gain=gain)
            done.append(all(status is Status.SOLVED for status in statuses))
            if done[-1]:
                assert (joints[-1] == joints[-2]).all(), "the target rests, and so do the joints"
    plain, led = np.array(arrived[0.0]), np.array(arrived[0.1])
    assert plain.sum() >= 15
    assert led.sum() >= 1.05 * plain.sum()
    assert (led & plain).sum() >= 0.9 * plain.sum()


def test_only_redundant_joints_are_led_away_from_limits(solver):
    robot = solver.robot
    moved = 0
    for q, goal in starts(solver, 20, 11):
        poses = interpolate(robot.fk(np.array([q, goal])), 0.02, 0.05)
        plain, led = follow(solver, poses, q, 0.2, preference_gain=0.0)[0], follow(solver, poses, q, 0.2)[0]
        moved += (plain != led).any()
        if robot.dof == 7:  # nor does one with a joint that is locked
            assert (
                follow(solver, poses, q, 0.2, locked=[2])[0]
                == follow(solver, poses, q, 0.2, locked=[2], preference_gain=0.0)[0]
            ).all()
    assert moved == 0 if robot.dof == 6 else moved >= 10


def test_each_joint_has_its_own_bound(solver):
    robot, rng = solver.robot, np.random.default_rng(5)
    for q, goal in starts(solver, 50, 6):
        bounds = rng.uniform(0.001, 0.05, robot.dof)
        joints, statuses = follow(solver, [robot.fk(goal)] * 40, q, bounds)
        assert Status.JUMP_BOUND in statuses or statuses[0] is Status.SOLVED
        same = solver.track(robot.fk(goal), q, np.full(robot.dof, 0.01)).q
        np.testing.assert_array_equal(same, solver.track(robot.fk(goal), q, 0.01).q)
    lists = solver.track(robot.fk(goal), list(q), list(bounds))
    np.testing.assert_array_equal(lists.q, solver.track(robot.fk(goal), q, bounds).q)


@pytest.mark.parametrize(
    ("max_step", "message"),
    [
        (-1, r"max_step: expected a finite number above 0, got -1"),
        (np.inf, r"max_step: expected a finite number above 0, got inf"),
        ([0.1] * 6, r"max_step: expected shape \[7\], got \[6\]"),
        ([0.1] * 6 + [0.0], r"max_step\[6\]: expected a number above 0, got 0.0"),
        ([0.1] * 6 + [np.nan], r"max_step\[6\]: expected a finite number"),
        ("far", "max_step: expected a finite number above 0, got 'far'"),
    ],
)
def test_bounds_that_make_no_sense_are_refused_by_name(panda, max_step, message):
    with pytest.raises(ArgumentError, match=message):
        panda.track([0.5, 0, 0.5, 1, 0, 0, 0], np.zeros(7), max_step)
