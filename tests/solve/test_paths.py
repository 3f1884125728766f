"""Whole paths, judged by Pinocchio and, for collision, by spheres against shapes in NumPy."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from clearance_judge import clearance
from judge import Judge, norms

from mfik.collision import Box, Sphere, World
from mfik.errors import ArgumentError, RobotError
from mfik.robots import load_robot
from mfik.solve import Solver, Status

pytest.importorskip("mfik._native", reason="needs the native extension: pip install -e .", exc_type=ImportError)

TOLERANCE = 1e-5 + 1e-9  # [m] and [rad]: the default, and rounding between two programs
ROUNDING = 1e-9  # of a clearance [m]
STEP = 0.12  # [rad or m] from one waypoint to the next


def limits(robot):
    """Return lower and upper limits; continuous joints have none."""
    endless = np.array([kind == "continuous" for kind in robot.kinds])
    return np.where(endless, -np.inf, robot.lower), np.where(endless, np.inf, robot.upper)


def smooth_motion(robot, rng, n, amplitude=0.5, step=STEP):
    """Draw a smooth motion of the joints within their limits, no step longer than `step`, [n, J]."""
    t = np.linspace(0, 1, n)[:, None]
    scale = amplitude * np.where(np.array(robot.kinds) == "prismatic", 0.2, 1.0)
    lower, upper = limits(robot)
    while True:
        q = robot.sample(1, rng) + sum(
            rng.normal(size=robot.dof) * scale / k * np.sin(np.pi * k * t + rng.uniform(0, 2 * np.pi, robot.dof))
            for k in (1, 2, 3)
        )
        inside = (q >= lower).all() and (q <= upper).all()
        if inside and (n < 2 or (np.abs(np.diff(q, axis=0)) <= step).all()):
            return q


def assert_path(robot, judge, result, poses, max_step, shapes=None, margin=0.0, count=None):
    """Assert that what was handed out keeps to everything that a path promises."""
    q = result.q
    assert q.shape == (result.reached, robot.dof)
    assert result.reached == (len(poses) if count is None else count)
    lower, upper = limits(robot)
    assert (q >= lower).all() and (q <= upper).all()
    for row, pose in zip(q, poses, strict=False):
        assert norms(judge.error(row, pose)).max() <= TOLERANCE
    steps = np.abs(np.diff(q, axis=0))
    assert (steps <= max_step).all()
    np.testing.assert_array_equal(result.largest_step, steps.max(0) if len(steps) else np.zeros(robot.dof))
    assert result.length == pytest.approx(steps.sum(), abs=1e-9)
    if shapes is not None:
        between = [a + (b - a) * k / 8 for a, b in zip(q[:-1], q[1:], strict=True) for k in range(8)] + [q[-1]]
        assert clearance(robot, between, shapes).min() >= margin - 1e-3  # between two checks
        assert clearance(robot, q, shapes).min() >= margin - ROUNDING


@pytest.fixture(scope="module")
def arm():
    return Solver.from_robot(load_robot("panda"))


@pytest.fixture(scope="module")
def six():
    return Solver.from_robot(load_robot("ur10"))


def test_paths_of_random_smooth_motions_are_followed(any_robot, request):
    urdf = None
    if any_robot.name not in ("panda", "ur10"):
        urdf = request.getfixturevalue("example_robots") / "tiago_description" / "robots" / "tiago.urdf"
    solver, judge, rng = Solver.from_robot(any_robot), Judge(any_robot, urdf), np.random.default_rng(1)
    max_step = np.where(np.array(any_robot.kinds) == "prismatic", 0.05, STEP)
    for _ in range(15):
        motion = smooth_motion(any_robot, rng, 60, step=0.9 * max_step)
        poses = any_robot.fk(motion)
        result = solver.solve_path(poses, max_step=max_step)
        assert result.status is Status.SOLVED, result.reason
        assert_path(any_robot, judge, result, poses, max_step)
        assert result.length <= 1.3 * np.abs(np.diff(motion, axis=0)).sum()


def test_a_step_bound_of_each_joint_is_kept_and_one_number_is_the_same_for_all(arm):
    rng, judge = np.random.default_rng(2), Judge(arm.robot)
    poses = arm.robot.fk(smooth_motion(arm.robot, rng, 50, step=0.05))
    bounds = np.array([0.06, 0.09, 0.07, 0.09, 0.08, 0.09, 0.1])
    result = arm.solve_path(poses, max_step=bounds)
    assert result.status is Status.SOLVED
    assert_path(arm.robot, judge, result, poses, bounds)
    one = arm.solve_path(poses, max_step=0.1)
    np.testing.assert_array_equal(one.q, arm.solve_path(poses, max_step=[0.1] * 7).q)
    assert one.length <= 1.05 * result.length


def test_paths_among_obstacles_keep_clear_between_waypoints_too(arm):
    rng, judge = np.random.default_rng(3), Judge(arm.robot)
    solved = 0
    for _ in range(12):
        motion = smooth_motion(arm.robot, rng, 40, step=0.1)
        shapes = [
            Sphere(0.08, [*rng.uniform([0.2, -0.6, 0.1], [0.7, 0.6, 0.9]), 1, 0, 0, 0], f"s{k}") for k in range(4)
        ]
        world = World(shapes)
        if not arm.is_free(motion, world, margin=0.005).all():
            continue
        poses = arm.robot.fk(motion)
        result = arm.solve_path(poses, max_step=STEP, world=world, margin=0.005)
        assert result.status is Status.SOLVED, result.reason
        assert_path(arm.robot, judge, result, poses, STEP)
        depth = clearance(arm.robot, result.q, shapes, allowance=0.005).min()
        assert depth >= 0.005 - ROUNDING
        between = (result.q[:-1] + result.q[1:]) / 2
        assert clearance(arm.robot, between, shapes, allowance=0.005).min() >= 0.004
        solved += 1
    assert solved >= 3


def test_among_obstacles_hardly_a_seed_gives_a_longer_path_than_another(arm):
    """A path belongs to a family, which smoothing does not leave: few of many seeds may end up in a long one."""
    longer, rng = [], np.random.default_rng(4)
    while len(longer) < 10:
        poses = arm.robot.fk(smooth_motion(arm.robot, rng, 100, step=0.1))
        centres = rng.uniform([-0.7, -0.7, 0], [0.7, 0.7, 1], (12, 3))
        world = World([Sphere(0.07, [*centre, 1, 0, 0, 0]) for centre in centres])
        if arm.solve_path(poses, max_step=STEP, world=world).status is Status.SOLVED:
            results = [arm.solve_path(poses, max_step=STEP, world=world, random_seed=seed) for seed in range(8)]
            assert all(result.status is Status.SOLVED for result in results)
            lengths = np.array([result.length for result in results])
            longer.append(lengths > 1.05 * lengths.min())
    assert np.mean(longer) <= 0.12


def test_the_joints_at_both_ends_are_those_asked_for(arm, six):
    for solver in (arm, six):
        rng = np.random.default_rng(4)
        judge = Judge(solver.robot)
        for _ in range(8):
            motion = smooth_motion(solver.robot, rng, 80, step=0.08)
            poses = solver.robot.fk(motion)
            result = solver.solve_path(poses, motion[0], max_step=STEP)
            assert result.status is Status.SOLVED, result.reason
            np.testing.assert_array_equal(result.q[0], motion[0])
            assert_path(solver.robot, judge, result, poses, STEP)
            both = solver.solve_path(poses, motion[0], q_goal=motion[-1], max_step=STEP)
            assert both.status is Status.SOLVED, both.reason
            np.testing.assert_array_equal(both.q[[0, -1]], motion[[0, -1]])
            assert_path(solver.robot, judge, both, poses, STEP)


@pytest.mark.parametrize("n", [1, 2])
def test_short_paths_and_paths_that_stand_still(arm, six, n):
    for solver in (arm, six):
        q = smooth_motion(solver.robot, np.random.default_rng(5), 1)[0]
        poses = np.repeat(solver.robot.fk(q)[None], n, axis=0)
        result = solver.solve_path(poses, max_step=STEP)
        assert result.status is Status.SOLVED and result.reached == n
        assert result.length <= 1e-4
        held = solver.solve_path(np.repeat(poses, 20, axis=0), q, max_step=1e-3)
        assert held.status is Status.SOLVED and held.length <= 1e-3


def test_continuous_joints_are_not_wrapped(example_robots):
    urdf = example_robots / "kinova_description" / "robots" / "kinova.urdf"
    robot = load_robot(urdf, "base", "j2s6s200_end_effector")
    solver, judge = Solver.from_robot(robot), Judge(robot, urdf)
    motion = np.repeat(smooth_motion(robot, np.random.default_rng(6), 1), 150, axis=0)
    assert robot.kinds[-1] == "continuous"
    motion[:, -1] += np.linspace(0, 3 * 2 * np.pi, 150)  # three turns of the last joint
    poses = robot.fk(motion)
    result = solver.solve_path(poses, motion[0], max_step=0.2)
    assert result.status is Status.SOLVED, result.reason
    assert_path(robot, judge, result, poses, 0.2)
    assert result.q[-1, -1] - result.q[0, -1] == pytest.approx(6 * np.pi, abs=1e-3)


def test_a_joint_of_two_turns_begins_where_there_is_room(six):
    """The last joint turns from -5.5 to 5.5 rad: only one of the turns that it may begin with leaves room for that."""
    motion = np.repeat([[0.3, -1.2, 1.4, -0.5, 1.1, 0.0]], 140, axis=0)
    motion[:, 5] = np.linspace(-5.5, 5.5, 140)
    result = six.solve_path(six.robot.fk(motion), max_step=0.1)
    assert result.status is Status.SOLVED, result.reason
    assert_path(six.robot, Judge(six.robot), result, six.robot.fk(motion), 0.1)


def test_through_a_wrist_singularity(six):
    motion = np.repeat([[0.3, -1.2, 1.4, -0.5, 0.0, 0.4]], 81, axis=0)
    motion[:, 4] = np.linspace(-0.4, 0.4, 81)
    result = six.solve_path(six.robot.fk(motion), motion[0], max_step=0.1)
    assert result.status is Status.SOLVED, result.reason


def test_locked_joints_stay_and_too_many_leave_no_solution(arm, six):
    rng = np.random.default_rng(7)
    motion = smooth_motion(arm.robot, rng, 50, step=0.08)
    motion[:, 2] = motion[0, 2]
    poses = arm.robot.fk(motion)
    result = arm.solve_path(poses, max_step=STEP, locked=[2], q_ref=motion[0])
    assert result.status is Status.SOLVED, result.reason
    assert (result.q[:, 2] == motion[0, 2]).all()
    assert_path(arm.robot, Judge(arm.robot), result, poses, STEP)
    motion = smooth_motion(six.robot, rng, 50, step=0.08)
    failed = six.solve_path(six.robot.fk(motion), max_step=STEP, locked=[1], q_ref=motion[0] + 0.3)
    assert failed.status in (Status.UNREACHABLE, Status.AT_LIMITS) and failed.reached == 0
    assert "waypoint 0 has no solution" in failed.reason


def test_slack_frees_an_axis_and_the_tool_is_the_one_asked_for(six):
    """A path about whose tool axis nothing is asked: locked to 5 joints, the arm follows it all the same."""
    rng = np.random.default_rng(8)
    motion = smooth_motion(six.robot, rng, 60, step=0.08)
    poses = six.robot.fk(motion)
    free = [0, 0, 0, 0, 0, np.inf]
    result = six.solve_path(poses, max_step=STEP, slack=free)
    assert result.status is Status.SOLVED, result.reason
    judge = Judge(six.robot)
    for q, pose in zip(result.q, poses, strict=True):
        assert norms(judge.error(q, pose))[0] <= TOLERANCE
        assert np.abs(judge.error(q, pose)[3:5]).max() <= 1e-4  # of the rotation vector, about the other axes
    assert result.length < six.solve_path(poses, max_step=STEP).length
    tool = [0, 0, 0.1, 1, 0, 0, 0]
    carried = six.solve_path(poses, max_step=STEP, tool=tool)
    if carried.status is Status.SOLVED:
        tip = six.robot.fk(carried.q[0])
        assert np.linalg.norm(tip[:3] - poses[0, :3]) == pytest.approx(0.1, abs=1e-4)


def test_the_same_seed_gives_the_same_path_and_others_about_the_same_length(arm):
    poses = arm.robot.fk(smooth_motion(arm.robot, np.random.default_rng(9), 60, step=0.08))
    first, again = (arm.solve_path(poses, max_step=STEP, random_seed=3) for _ in range(2))
    np.testing.assert_array_equal(first.q, again.q)
    lengths = [arm.solve_path(poses, max_step=STEP, random_seed=seed).length for seed in range(8)]
    assert max(lengths) <= 1.1 * min(lengths)


def test_solutions_in_the_middle_are_met_wherever_they_turn(six):
    """At waypoint 72 one branch leads into another that ends at 108, and reaches it by other full turns than a solution
    that is looked for at 100, where the first one ends, has by itself."""
    golden = json.loads(Path(__file__).with_name("path_of_two_turns.json").read_text())
    balls = [Sphere(golden["radius"], [*place, 1, 0, 0, 0], f"ball {k}") for k, place in enumerate(golden["balls"])]
    bound = np.radians(7)
    result = six.solve_path(golden["poses"], max_step=bound, world=World(balls), self_collision=False, edge_check=bound)
    assert result.reached == 109 and "between waypoint 108 and waypoint 109 every connection" in result.reason
    assert (result.largest_step <= bound).all()


def test_an_unreachable_waypoint_is_named_and_the_path_to_it_handed_out(arm):
    rng, judge = np.random.default_rng(10), Judge(arm.robot)
    for place in (0, 1, 17, 49):
        poses = arm.robot.fk(smooth_motion(arm.robot, rng, 50, step=0.08))
        poses[place, :3] *= 1.5 / np.linalg.norm(poses[place, :3])
        result = arm.solve_path(poses, max_step=STEP)
        assert result.status is Status.UNREACHABLE
        assert f"waypoint {place} has no solution" in result.reason
        assert_path(arm.robot, judge, result, poses, STEP, count=place)


def test_a_jump_is_named_with_its_waypoints_joint_and_size(six):
    rng = np.random.default_rng(11)
    motion = smooth_motion(six.robot, rng, 40, step=0.08)
    motion[25:, 1] += 0.5
    result = six.solve_path(six.robot.fk(motion), max_step=STEP)
    assert result.status is Status.JUMP_BOUND
    assert result.reached == 25 and "between waypoint 24 and waypoint 25" in result.reason
    assert "rad more than max_step" in result.reason and any(name in result.reason for name in six.robot.joint_names)


def test_ends_in_two_branches_leave_the_last_connection_open(six):
    motion = smooth_motion(six.robot, np.random.default_rng(12), 40, step=0.05)
    poses = six.robot.fk(motion)
    others = six.solve_all(poses[-1], 64, motion[-1]).q
    far = others[np.abs(others - motion[-1]).max(-1) > 1.0][0]
    result = six.solve_path(poses, motion[0], q_goal=far, max_step=STEP)
    assert result.status is Status.JUMP_BOUND and result.reached == 39
    assert "between waypoint 38 and waypoint 39" in result.reason and "q_goal" in result.reason


def test_a_wall_is_named_where_it_stands(arm):
    motion = np.repeat([[0.0, 0.2, 0.0, -2.0, 0.0, 2.2, 0.8]], 60, axis=0)
    motion[:, 0] = np.linspace(-0.8, 0.8, 60)
    poses = arm.robot.fk(motion)
    wall = Box([0.6, 0.02, 0.6], [*poses[30, :3], 1, 0, 0, 0], "wall")
    result = arm.solve_path(poses, max_step=STEP, world=World([wall]))
    assert result.status is Status.IN_COLLISION and 10 < result.reached < 31
    assert f"waypoint {result.reached} has no solution" in result.reason and "'wall'" in result.reason
    assert_path(arm.robot, Judge(arm.robot), result, poses, STEP, shapes=[wall], count=result.reached)


def test_no_connection_leads_through_a_wall_however_many_there_are(arm):
    """Both sides are free, and thousands of connections within max_step lead from one to the other."""
    first = arm.robot.fk(np.array([0.0, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785]))
    first[0] = 0.5
    poses = np.repeat(first[None], 5, axis=0)
    poses[:, 1] = [-0.3, -0.35, -0.3, 0.3, 0.35]
    world = World([Box([1.2, 0.01, 3.0], [0.85, 0, 0, 1, 0, 0, 0], "wall")])
    result = arm.solve_path(poses, max_step=1.0, world=world)
    assert result.status is Status.IN_COLLISION and result.reached == 3
    assert "between waypoint 2 and waypoint 3" in result.reason and "'wall'" in result.reason
    for limit in (0.05, 0.5):  # nor where time is up
        stopped = arm.solve_path(poses, max_step=1.0, world=world, time_limit=limit)
        assert stopped.reached <= 3 and stopped.time_us < 1e6 * (limit + 0.5)
        for a, b in zip(stopped.q[:-1], stopped.q[1:], strict=True):
            assert arm.is_free(np.linspace(a, b, 200), world, margin=-0.002).all()


def test_q_start_in_collision_is_a_status_not_an_error(arm):
    q = np.array([0.0, 0.2, 0.0, -2.0, 0.0, 2.2, 0.8])
    poses = np.repeat(arm.robot.fk(q)[None], 3, axis=0)
    elbow = Sphere(0.3, [0.0, 0.0, 0.5, 1, 0, 0, 0], "ball")
    result = arm.solve_path(poses, q, max_step=STEP, world=World([elbow]))
    assert result.status is Status.IN_COLLISION and result.reached == 0 and result.q.shape == (0, 7)
    assert "q_start" in result.reason and "'ball'" in result.reason


def hard(six):
    """Return poses that cannot be followed, which takes long to find out."""
    motion = smooth_motion(six.robot, np.random.default_rng(13), 3000, step=0.08)
    motion[2999, 1] += 0.5
    return six.robot.fk(motion)


def test_progress_is_told_and_ends_the_search(six):
    poses, told = hard(six), []
    full = six.solve_path(poses, max_step=STEP, progress=told.append)
    assert full.status is not Status.SOLVED
    assert told == sorted(told) and all(0 <= share <= 1 for share in told)
    if full.time_us > 5e5:
        assert len(told) >= 2
        ended = six.solve_path(poses, max_step=STEP, progress=lambda share: True)
        assert ended.status is Status.NOT_CONVERGED and "progress ended" in ended.reason
        assert ended.time_us < 0.8 * full.time_us

        def fail(share):
            raise KeyError("enough")

        with pytest.raises(KeyError, match="enough"):
            six.solve_path(poses, max_step=STEP, progress=fail)


def test_ctrl_c_ends_the_search(six):
    poses = np.repeat(hard(six), 4, axis=0)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # ignored where tests run in the background
    timer = threading.Timer(0.3, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    begin = time.monotonic()
    try:
        with pytest.raises(KeyboardInterrupt):
            while time.monotonic() - begin < 30:
                six.solve_path(poses, max_step=STEP)
    finally:
        signal.signal(signal.SIGINT, before)
    assert time.monotonic() - begin < 5


def test_a_time_limit_ends_the_search(six):
    result = six.solve_path(hard(six), max_step=STEP, time_limit=1e-3)
    assert result.status is Status.NOT_CONVERGED and "time_limit" in result.reason


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"poses": np.zeros((0, 7))}, "poses: expected at least one"),
        ({"poses": np.zeros((3, 6))}, "poses: expected shape"),
        ({"poses": np.full((3, 7), np.nan)}, "poses.*expected a finite number"),
        ({"poses": np.ones((3, 7))}, "poses.0.: expected a unit quaternion"),
        ({"max_step": 0.0}, "max_step: expected a finite number above 0"),
        ({"max_step": [0.1] * 6}, "max_step: expected shape"),
        ({"max_step": [0.1] * 6 + [-1]}, "max_step.6.: expected a number above 0"),
        (
            {"q_start": [0.1, 0.2, 0.0, -2.0, 0.0, 2.2, 0.8]},
            "q_start: expected joints that solve poses.0. within the tolerances",
        ),
        ({"q_goal": np.zeros(7)}, "q_goal"),
        ({"q_start": [np.nan] * 7}, "q_start.0.: expected a finite number"),
        ({"q_start": np.full(7, 9.0)}, "q_start.0.: expected joints within their limits"),
        ({"q_ref": [0.0] * 6}, "q_ref: expected shape"),
        ({"locked": [9]}, "locked"),
        ({"edge_check": 0.0}, "edge_check: expected a finite number"),
        ({"time_limit": 0.0}, "time_limit: expected a finite number above 0"),
        ({"random_seed": -1}, "random_seed: expected an integer"),
        ({"progress": 3}, "progress: expected a callable"),
        ({"world": 3}, "world: expected"),
        ({"margin": np.nan}, "margin: expected"),
    ],
)
def test_bad_input_is_named(arm, change, message):
    q = np.array([0.0, 0.2, 0.0, -2.0, 0.0, 2.2, 0.8])
    given = {"poses": np.repeat(arm.robot.fk(q)[None], 3, axis=0), "max_step": STEP} | change
    with pytest.raises(ArgumentError, match=message):
        arm.solve_path(given.pop("poses"), **given)


def test_collision_needs_spheres():
    bare = Solver.from_robot(load_robot("examples/gantry.urdf", "world", "flange"))
    with pytest.raises(RobotError, match="expected spheres"):
        bare.solve_path(bare.robot.fk(np.zeros(6))[None], max_step=0.1, world=World())
    free = bare.solve_path(np.repeat(bare.robot.fk(np.zeros(6))[None], 2, axis=0), max_step=0.1)
    assert free.status is Status.SOLVED
