"""A tracker beside obstacles keeps its bounds and the margin, whatever the target and whatever it begins with."""

import clearance_judge
import numpy as np
import pytest
from command_judge import check
from random_spheres import random_spheres

from mfik.collision import Box, Sphere, World
from mfik.errors import ArgumentError

pytest.importorskip("mfik._native", reason="needs the native extension: pip install -e .", exc_type=ImportError)
from mfik.solve import Options, Status, Tracker

DT = 1e-3
Q = np.array([0.0, -0.5, 0.0, -2.0, 0.0, 1.6, 0.8])
ROUNDING = 1e-9  # [m]: the judge, too, works in float64


def beyond(robot, joints, shapes, margin) -> np.ndarray:
    """Return the clearances of commands above the margin."""
    return clearance_judge.clearance(robot, joints, shapes, allowance=margin) - margin


def reversals(moves: np.ndarray) -> int:
    """Return how often a joint turns back, its velocities beyond 1e-3 of a unit a second."""
    signs = np.sign(moves) * (np.abs(moves) > 1e-3)
    return int((signs[1:] * signs[:-1] < 0).sum())


def beside_spheres(solver, rng):
    """Yield shapes, a world of them, a margin, and joints that keep it and two millimetres more."""
    while True:
        shapes = random_spheres(rng, 1.4 if solver.robot.name == "ur10" else 1.0)
        world, margin = World(shapes), rng.choice([0.0, 0.02])
        joints = solver.robot.sample(200, rng)
        free = joints[solver.is_free(joints, world, margin=margin + 2e-3)]
        if len(free) > 1:
            yield shapes, world, margin, free


@pytest.mark.parametrize("acceleration", [5.0, 100.0])
@pytest.mark.parametrize("margin", [0.0, 0.03])
def test_a_wall_in_the_way_stops_the_arm_before_the_margin(panda, acceleration, margin):
    target = panda.robot.fk(Q)
    wall = Box([0.02, 2.0, 2.0], [target[0] + 0.25, 0, 0.5, 1, 0, 0, 0], "wall")
    target[0] += 0.35
    tracker = Tracker(panda, Q, DT, acceleration=np.full(7, acceleration))
    options, joints = Options(world=World([wall]), margin=margin), [Q]
    for _ in range(1500):
        result = tracker.step(target, options)
        joints.append(result.q)
    moves = check(panda.robot, np.array(joints), panda.robot.velocity, acceleration)
    room = beyond(panda.robot, np.array(joints), [wall], margin)
    assert room.min() >= 0
    assert room[-1] < 2e-3, "it stops a millimetre before the margin, not elsewhere"
    assert result.status is Status.IN_COLLISION and "wall" in result.pair and "keep the margin" in result.reason
    assert np.abs(moves[-1]).max() < 1e-6, "it comes to rest"
    assert reversals(moves) <= 3


@pytest.mark.slow
@pytest.mark.parametrize("name", ["panda", "ur10"])
def test_random_targets_break_neither_bound_nor_margin(name, request):
    """Targets that jump, free ones and others, far and near, some of them refused, at any pace, with any options."""
    solver, rng = request.getfixturevalue(name), np.random.default_rng(5)
    robot, scenes, seen = solver.robot, beside_spheres(solver, rng), set()
    asked = [
        {"locked": (2,)},
        {"slack": [0.02, 0.0, 0.01, 0.0, 0.0, np.inf]},
        {"tool": [0.05, 0.0, 0.1, 1, 0, 0, 0], "locked": (0, 4)},
        {"slack": [0.0] * 3 + [np.inf] * 3, "q_preferred": robot.sample(1, rng)[0], "preference_gain": 1.0},
    ]
    for more in [{}] * 8 + asked:
        shapes, world, margin, free = next(scenes)
        dt, options = 10 ** rng.uniform(-3.3, -1.7), Options(world=world, margin=margin, **more)
        velocity, acceleration = 10 ** rng.uniform(-0.5, 0.6, robot.dof), 10 ** rng.uniform(0, 1.8, robot.dof)
        tracker, joints = Tracker(solver, free[0], dt, velocity=velocity, acceleration=acceleration), [free[0]]
        for _ in range(3):
            kind = rng.integers(3)
            near = robot.clamp(joints[-1] + rng.uniform(-0.6, 0.6, robot.dof))
            target = robot.fk(free[rng.integers(len(free))] if kind == 0 else near)
            target[:3] += rng.uniform(-1, 1, 3) * (kind == 2)
            refused = rng.integers(150)
            for sample in range(150):
                if refused <= sample < refused + 5:
                    with pytest.raises(ArgumentError):
                        tracker.step([np.nan] * 7, options)
                else:
                    seen.add(tracker.step(target, options).status)
                joints.append(tracker.q)
        check(robot, np.array(joints), velocity, acceleration, dt)
        assert beyond(robot, np.array(joints), shapes, margin).min() >= 0
        assert all(np.ptp(np.array(joints)[:, joint]) == 0 for joint in more.get("locked", ()))
    assert seen >= {Status.SOLVED, Status.IN_COLLISION, Status.JUMP_BOUND}


@pytest.mark.slow
@pytest.mark.parametrize("name", ["panda", "ur10"])
def test_what_track_reaches_is_reached_and_held_without_chatter(name, request):
    solver, rng = request.getfixturevalue(name), np.random.default_rng(3)
    robot, scenes = solver.robot, beside_spheres(solver, rng)
    tracked = reached = turned = moving = 0
    while tracked < 25:
        _, world, margin, free = next(scenes)
        near = robot.clamp(free[0] + rng.uniform(-0.6, 0.6, (200, robot.dof)))
        near = near[solver.is_free(near, world, margin=margin + 2e-3)]
        if not len(near):
            continue
        target, options, q = robot.fk(near[0]), Options(world=world, margin=margin), free[0]
        for _ in range(300):
            result = solver.track(target, q, 0.01, options=options)
            q = result.q
        tracker = Tracker(
            solver, free[0], 4 * DT, velocity=np.full(robot.dof, 2.0), acceleration=np.full(robot.dof, 10.0)
        )
        joints = np.array([free[0]] + [tracker.step(target, options).q for _ in range(600)])
        moves = np.diff(joints, axis=0) / (4 * DT)
        assert np.abs(moves[-1]).max() < 1e-6, "it comes to rest"
        turned += reversals(moves)
        moving += int((np.abs(moves) > 1e-3).any(1).sum())
        if result.status is Status.SOLVED:
            tracked += 1
            reached += tracker.step(target, options).status is Status.SOLVED
    assert reached >= 0.9 * tracked, f"{reached} of {tracked}"
    assert turned < 0.05 * moving, f"{turned} of {moving} samples"


def test_an_obstacle_that_comes_near_pushes_the_arm_away_within_its_bounds(panda):
    """A ball at 0.15 m/s, which the arm can give way to."""
    robot, pose = panda.robot, panda.robot.fk(Q)
    place = np.array([0.9, 0.0, pose[2], 1, 0, 0, 0])
    world = World([Sphere(0.08, place, "ball")])
    tracker, options = Tracker(panda, Q, DT, acceleration=np.full(7, 20.0)), Options(world=world, margin=0.03)
    joints, room = [Q], []
    for i in range(3000):
        world.set_pose("ball", place - [1.5e-4 * i, 0, 0, 0, 0, 0, 0])
        tracker.step(pose, options)
        joints.append(tracker.q)
        if i % 10 == 0:
            shapes = [Sphere(0.08, place - [1.5e-4 * i, 0, 0, 0, 0, 0, 0], "ball")]
            room.append(beyond(robot, tracker.q[None], shapes, 0.03)[0])
    check(robot, np.array(joints), robot.velocity, 20.0)
    assert min(room) > -0.01, "it gives way nearly as fast as the ball comes"
    assert np.abs(joints[-1] - Q).max() > 0.1


def test_a_start_in_collision_is_led_out_and_hardly_deeper(panda):
    robot, rng = panda.robot, np.random.default_rng(1)
    tried = out = 0
    while tried < 8:
        shapes, q = random_spheres(rng, 1.0), robot.sample(1, rng)[0]
        depth = beyond(robot, q[None], shapes, 0.01)[0]
        if not -0.05 < depth < 0 or beyond(robot, q[None], [], 0.0)[0] < 5e-3:
            continue
        tried += 1
        tracker, pose = Tracker(panda, q, DT, acceleration=np.full(7, 20.0)), robot.fk(q)
        options = Options(world=World(shapes), margin=0.01)
        joints = np.array([q] + [tracker.step(pose, options).q for _ in range(500)])
        check(robot, joints, robot.velocity, 20.0)
        room = beyond(robot, joints, shapes, 0.01)
        assert room.min() >= depth - 1e-3 - ROUNDING
        out += room[-1] >= -1e-4
    assert out >= 0.9 * tried, f"{out} of {tried}"


@pytest.mark.parametrize("room", [2e-4, 0.0, 7e-4])
def test_a_start_close_to_the_margin_stays_there_and_leaves_it(panda, room):
    """Nearer to a ball than the millimetre that a tracker keeps, where a pose is held and left as any other."""
    pose = panda.robot.fk(Q)
    place = np.array([*pose[:3] + [0.3, 0.0, 0.05], 1, 0, 0, 0])
    margin = panda.clearance(Q, World([Sphere(0.05, place, "ball")]), self_collision=False).distance - room
    tracker = Tracker(panda, Q, DT, acceleration=np.full(7, 20.0))
    options = Options(world=World([Sphere(0.05, place, "ball")]), margin=margin)
    for _ in range(20):
        assert tracker.step(pose, options).status is Status.SOLVED and np.abs(tracker.q - Q).max() < 1e-6
    pose[0] -= 0.1
    joints = np.array([Q] + [tracker.step(pose, options).q for _ in range(1500)])
    assert tracker.step(pose, options).status is Status.SOLVED
    assert beyond(panda.robot, joints, [Sphere(0.05, place, "ball")], margin).min() > -1e-4 - ROUNDING


def test_beside_obstacles_a_refused_pose_brings_the_joints_to_rest_before_them(panda):
    target = panda.robot.fk(Q)
    wall = Box([0.02, 2.0, 2.0], [target[0] + 0.1, 0, 0.5, 1, 0, 0, 0], "wall")
    target[0] += 0.3
    tracker = Tracker(panda, Q, DT, acceleration=np.full(7, 5.0))
    options, joints = Options(world=World([wall])), [Q]
    for _ in range(150):
        joints.append(tracker.step(target, options).q)
    assert np.abs(tracker.dq).max() > 0.1
    for _ in range(1000):
        with pytest.raises(ArgumentError, match="pose"):
            tracker.step(None, options)
        joints.append(tracker.q)
    check(panda.robot, np.array(joints), panda.robot.velocity, 5.0)
    assert beyond(panda.robot, np.array(joints), [wall], 0.0).min() >= 0
    assert not tracker.dq.any()


@pytest.mark.parametrize(
    "options", [Options(self_collision=True), Options(world=World([Sphere(0.1, [9, 9, 9, 1, 0, 0, 0])]))]
)
def test_where_nothing_is_in_the_way_the_target_is_reached(panda, options):
    tracker = Tracker(panda, Q, DT, acceleration=np.full(7, 20.0))
    pose = panda.robot.fk(Q + 0.2)
    for _ in range(1000):
        result = tracker.step(pose, options)
    assert result.status is Status.SOLVED and result.pair is None and not tracker.dq.any()


def test_links_keep_clear_of_each_other(panda):
    """Folded onto itself, the arm stops before its links touch."""
    folded = np.array([0.0, 1.7, 0.0, -3.0, 0.0, 0.1, 0.8])
    assert not panda.is_free(folded[None])[0], "not what this test is about"
    tracker = Tracker(panda, Q, DT, acceleration=np.full(7, 20.0))
    joints = [Q]
    for _ in range(1500):
        result = tracker.step(panda.robot.fk(folded), Options(self_collision=True))
        joints.append(result.q)
    assert beyond(panda.robot, np.array(joints), [], 0.0).min() >= 0
