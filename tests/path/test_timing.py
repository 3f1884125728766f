"""Timing of paths: the bounds are judged numerically, between the samples too."""

import dataclasses
import re
import subprocess
import sys

import numpy as np
import pytest
from cmake_project import ROOT

from mfik.errors import ArgumentError
from mfik.path import Trajectory, deviation, interpolate, retime
from mfik.robots import load_robot
from mfik.solve import Solver, Status

HOME = np.array([0.0, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785])


def check(found: Trajectory, velocity, acceleration, dt):
    """Check bounds and rest, of what is said and of what the samples do; return how nearly the bounds are met."""
    assert found.t[0] == 0 and np.diff(found.t) == pytest.approx(dt)
    np.testing.assert_array_equal(found.dq[[0, -1]], 0)
    fast, hard = np.abs(found.dq) / velocity, np.abs(found.ddq) / acceleration
    assert fast.max(initial=0) <= 1 and hard.max(initial=0) <= 1
    first = np.diff(found.q, axis=0) / dt  # what a controller that is sent q sees
    second = np.diff(first, axis=0) / dt
    rounding = 1e-15 / dt / np.min(velocity), 4e-15 / dt**2 / np.min(acceleration)
    assert (np.abs(first) / velocity).max(initial=0) <= 1 + rounding[0]
    assert (np.abs(second) / acceleration).max(initial=0) <= 1 + rounding[1]
    if len(found.t) > 10:  # q, dq and ddq belong together: the mean of two velocities is the difference of positions
        np.testing.assert_allclose(first, 0.5 * (found.dq[:-1] + found.dq[1:]), atol=0.51 * dt * np.max(acceleration))
    return max(fast.max(initial=0), hard.max(initial=0))


def circle(robot, n):
    """A circle of 10 cm as poses and joints."""
    start, q = robot.fk(HOME), [HOME]
    poses = np.repeat(start[None], n + 1, axis=0)
    angle = 2 * np.pi * np.arange(n + 1) / n
    poses[:, 0] += 0.1 * (np.cos(angle) - 1)
    poses[:, 1] += 0.1 * np.sin(angle)
    solver = Solver.from_robot(robot)
    for pose in poses[1:]:
        result = solver.track(pose, q[-1], 0.5)
        assert result.status is Status.SOLVED
        q.append(result.q)
    return poses, np.array(q)


@pytest.mark.parametrize("name", ["panda", "ur10"])
@pytest.mark.parametrize("acceleration", [1.0, 10.0])
def test_bounds_hold_and_are_used(name, acceleration, rng):
    robot = load_robot(name)
    ends = robot.sample(6, rng)
    q = np.concatenate([a + np.linspace(0, 1, 30)[:, None] * (b - a) for a, b in zip(ends, ends[1:], strict=False)])
    found = retime(q, acceleration=acceleration, robot=robot, dt=1e-3)
    assert check(found, robot.velocity, acceleration, 1e-3) > 0.97
    assert robot.within_limits(found.q).all()
    np.testing.assert_array_equal(found.q[[0, -1]], q[[0, -1]])


def test_bounds_hold_between_samples_for_any_path(rng):
    """Corners, reversals, repeated waypoints, one joint to seven, bounds that differ by a factor of 1,000."""
    nearness = []
    for case in range(60):
        q = rng.uniform(-2, 2, (rng.integers(2, 25), rng.integers(1, 8))) * 10.0 ** rng.uniform(-3, 0)
        if case % 3 == 0:
            q = np.repeat(q, 2, axis=0)
        if case % 5 == 0:
            q = np.concatenate([q, q[::-1]])
        velocity, acceleration = 10.0 ** rng.uniform(-1, 1, q.shape[1]), 10.0 ** rng.uniform(-1, 2, q.shape[1])
        found = retime(q, velocity, acceleration, dt=1e-3)
        nearness.append(check(found, velocity, acceleration, 1e-3))
        # Waypoints are passed: within half a sample's motion of one.
        away = np.array([np.abs(found.q - row).max(1).min() for row in q])
        assert away.max() <= 0.5 * 1e-3 * velocity.max() + 1e-5
    print(f"the bound nearest to being broken is met to {np.min(nearness):.3f} at least, {np.median(nearness):.4f} p50")
    assert np.median(nearness) > 0.98


def test_a_straight_move_takes_the_time_that_the_textbook_says():
    """One joint by 2 rad at 1 rad/s and 2 rad/s^2: 2 / 1 + 1 / 2 s."""
    found = retime([[0.0], [2.0]], 1.0, 2.0, dt=1e-4)
    assert found.t[-1] == pytest.approx(2.5, rel=0.01) and found.t[-1] >= 2.5
    check(found, 1.0, 2.0, 1e-4)
    assert found.departure == pytest.approx(0, abs=1e-12)
    np.testing.assert_allclose(found.waypoint, found.q[:, 0] / 2, atol=1e-12)


@pytest.mark.parametrize("repeats", [1, 5])
def test_one_waypoint_is_a_trajectory_at_rest(repeats):
    found = retime(np.tile([0.1, 0.2], (repeats, 1)), 1.0, 1.0)
    np.testing.assert_array_equal(found.q, [[0.1, 0.2]])
    np.testing.assert_array_equal(found.t, [0.0])
    np.testing.assert_array_equal([found.dq, found.ddq], np.zeros((2, 1, 2)))


def test_repeated_waypoints_are_no_stop():
    q = np.linspace([0.0, 1.0], [1.0, 0.0], 11)
    once, thrice = retime(q, 1.0, 2.0), retime(np.repeat(q, 3, axis=0), 1.0, 2.0)
    np.testing.assert_allclose(thrice.q, once.q, atol=1e-12)
    assert thrice.waypoint[-1] == 32 and (np.diff(thrice.waypoint) > 0).all()
    noisy = q.repeat(2, axis=0) + 1e-7 * np.random.default_rng(0).standard_normal((22, 2))
    assert retime(noisy, 1.0, 2.0).t[-1] == pytest.approx(once.t[-1], rel=0.01)


def test_the_spline_keeps_to_the_limits_and_says_how_far_it_departs(panda):
    """Waypoints that run into a limit, along it and back: a spline through them overshoots."""
    q = np.repeat(HOME[None], 13, axis=0)
    q[:, 0] = np.linspace(0, 1, 13)
    q[:, 5] = np.minimum(panda.upper[5], panda.upper[5] - 0.2 + 0.1 * np.minimum(np.arange(13), np.arange(13)[::-1]))
    bounds = {"velocity": panda.velocity, "acceleration": 5.0}
    free, kept = retime(q, **bounds), retime(q, **bounds, robot=panda)
    assert free.q[:, 5].max() > panda.upper[5] + 1e-3, "or the test shows nothing"
    assert panda.within_limits(kept.q).all()
    check(kept, panda.velocity, 5.0, 1e-3)
    line = np.array([np.interp(kept.waypoint, np.arange(13), column) for column in q.T]).T
    departure = np.abs(kept.q - line).max()
    assert 1e-3 < departure <= kept.departure < 0.05 and kept.departure == pytest.approx(departure, rel=0.05)


@pytest.mark.parametrize("spacing", [0.1, 0.05, 0.02, 0.01])
def test_the_tool_stays_nearer_to_its_line_than_by_linear_joints(panda, spacing):
    """Prints the deviations that docs/how-to/paths.md states."""
    start = panda.fk(HOME)
    poses = interpolate([start, start + [0.1, 0.25, -0.12, 0, 0, 0, 0]], spacing, 1.0)
    solver, q = Solver.from_robot(panda), [HOME]
    for pose in poses[1:]:
        q.append(solver.track(pose, q[-1], 0.5).q)
    found = retime(q, acceleration=10.0, robot=panda)
    away, line = deviation(panda, found.q, poses, at=found.waypoint), deviation(panda, q, poses)
    for name, x in (("linear", line), ("spline", away)):
        print(f"{1e3 * spacing:.0f} mm, {name}: {1e3 * x.translation:.3f} mm, {np.degrees(x.rotation):.3f} deg")
    assert away.translation < line.translation and away.rotation < line.rotation


def test_endless_joints_have_no_limits():
    robot = load_robot(ROOT / "examples" / "gantry.urdf", "world", "flange")
    endless = robot.kinds.index("continuous")
    q = np.repeat(robot.clamp(np.zeros(robot.dof))[None], 9, axis=0)
    q[:, endless] = np.linspace(-9, 9, 9)
    found = retime(q, 1.0, 1.0, robot=robot)
    assert found.q[-1, endless] == pytest.approx(9)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"acceleration": None}, "acceleration: expected a bound for each joint, got None; it has no default"),
        ({"acceleration": -1.0}, "acceleration: expected a finite number above 0, got -1.0"),
        ({"acceleration": [1.0, np.nan]}, r"acceleration\[1\]: expected a finite number"),
        ({"acceleration": [1.0, 0.0]}, r"acceleration\[1\]: expected a number above 0"),
        ({"acceleration": [1.0, 1.0, 1.0]}, r"acceleration: expected shape \[2\]"),
        ({"velocity": None}, "velocity: expected a bound for each joint, got None and no robot"),
        ({"velocity": np.inf}, "velocity: expected a finite number above 0"),
        ({"q": [[0.0, np.nan]]}, r"q\[0, 1\]: expected a finite number"),
        ({"q": [0.0, 1.0]}, r"q: expected shape"),
        ({"q": np.zeros((0, 2))}, "q: expected at least one waypoint"),
        ({"dt": 0.0}, "dt: expected a finite number above 0"),
        ({"dt": 1e-9}, "dt: expected at most 10,000,000 samples"),
        ({"robot": 3}, "robot: expected a Robot or None"),
    ],
)
def test_what_is_wrong_is_named(arguments, message):
    given = {"q": [[0.0, 0.0], [1.0, 1.0]], "velocity": 1.0, "acceleration": 1.0} | arguments
    with pytest.raises(ArgumentError, match=message):
        retime(given.pop("q"), **given)


def test_what_does_not_suit_the_robot_is_named(panda):
    q = np.stack([HOME, HOME + 0.1])
    q[1, 3] = 0.5
    with pytest.raises(ArgumentError, match=r"q\[1, 3\]: expected 'panda_joint4' within \[.*got 0.5; clamp"):
        retime(q, acceleration=1.0, robot=panda)
    with pytest.raises(ArgumentError, match=r"q: expected shape \[N, 7\]"):
        retime(q[:, :6], acceleration=1.0, robot=panda)
    unknown = dataclasses.replace(panda, velocity=None)
    with pytest.raises(ArgumentError, match="velocity: expected bounds, as 'panda' has none for joint 'panda_joint1'"):
        retime(HOME[None], acceleration=1.0, robot=unknown)


@pytest.mark.parametrize("missing", ["toppra", "scipy"])
def test_a_missing_package_names_the_extra(missing):
    code = f"""
import sys
sys.modules[{missing!r}] = None
from mfik.path import interpolate, retime
try:
    retime([[0.0], [1.0]], 1.0, 1.0)
except ImportError as error:
    print(error)
"""
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert re.search(rf"needs toppra and SciPy \(.*{missing}.*\): pip install 'mfik\[motion\]'", out), out
