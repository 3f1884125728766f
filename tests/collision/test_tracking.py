"""Tracking beside obstacles: slower towards them, at rest before the margin, out of it where it begins within."""

import clearance_judge
import numpy as np
import pytest
from random_spheres import random_spheres

from mfik.collision import Box, Sphere, World

pytest.importorskip("mfik._native", reason="needs the native extension: pip install -e .", exc_type=ImportError)
from mfik.solve import Status

ROUNDING = 1e-9  # [m]: the judge, too, works in float64


def clearance(robot, q, shapes, margin):
    return clearance_judge.clearance(robot, q, shapes, allowance=margin)


Q = np.array([0.0, -0.5, 0.0, -2.0, 0.0, 1.6, 0.8])


def moved(pose, offset):
    return np.concatenate([pose[:3] + offset, pose[3:]])


@pytest.mark.parametrize("max_step", [0.002, 0.02, 0.2])
@pytest.mark.parametrize("margin", [0.0, 0.03])
def test_a_wall_in_the_way_stops_the_arm_before_the_margin(panda, max_step, margin):
    pose = panda.robot.fk(Q)
    wall = Box([0.02, 2.0, 2.0], [pose[0] + 0.25, 0, 0.5, 1, 0, 0, 0], "wall")
    target, world, q = moved(pose, [0.35, 0.0, 0.0]), World([wall]), Q
    path, steps = [], []
    for _ in range(round(0.4 / max_step) + 150):
        result = panda.track(target, q, max_step, world=world, margin=margin)
        assert np.abs(result.q - q).max() <= max_step
        steps.append(result.q - q)
        q = result.q
        path.append(q)
    assert clearance(panda.robot, path, [wall], margin).min() >= margin - ROUNDING
    assert result.status is Status.IN_COLLISION and "wall" in result.pair
    assert "keep the margin" in result.reason
    assert clearance(panda.robot, q, [wall], margin) - margin < 1e-3, "it stops at the margin, not elsewhere"
    assert np.abs(steps[-1]).max() < 1e-6, "it comes to rest"
    moving = np.array([step for step in steps if np.abs(step).max() > 1e-6])
    reversals = (np.sign(moving[1:]) * np.sign(moving[:-1]) < 0) & (np.abs(moving[1:]) > 1e-6)
    assert reversals.mean() < 0.02, "it does not chatter"


@pytest.mark.parametrize("max_step", [0.3, 3.0])
def test_no_step_passes_through_what_is_thin(panda, max_step):
    """Balls of 2 mm on the way of the tool, between the places where a step's clearance is asked for."""
    robot, rng, watched = panda.robot, np.random.default_rng(1), 0
    for _ in range(400):
        q, goal = robot.sample(2, rng)
        pose = robot.fk(goal)
        unhindered = panda.track(pose, q, max_step).q
        between = q + (rng.integers(7) + 0.5) / 7 * (unhindered - q)
        world = World([Sphere(0.002, [*robot.fk(between)[:3], 1, 0, 0, 0], "ball")])
        if not panda.is_free(q[None], world)[0]:
            continue
        step = panda.track(pose, q, max_step, world=world).q - q
        watched += 1
        assert panda.is_free(q + np.linspace(0, 1, 101)[:, None] * step, world, margin=-1e-3).all()
    assert watched > 80


@pytest.mark.parametrize("max_step", [0.01, 0.1, 3.0])
def test_the_way_out_leads_deeper_nowhere(panda, max_step):
    """From within a ball, beside another one that is in the way."""
    robot, rng, watched = panda.robot, np.random.default_rng(2), 0
    for _ in range(300):
        q, goal = robot.sample(2, rng)
        place = robot.fk(q)[:3] + rng.normal(0, 0.05, 3)
        balls = [(rng.choice([0.002, 0.05]), place), (0.002, place + rng.normal(0, 0.15, 3))]
        world = World([Sphere(radius, [*at, 1, 0, 0, 0], f"{i}") for i, (radius, at) in enumerate(balls)])
        depth = panda.clearance(q, world).distance
        if depth >= 0:
            continue
        step = panda.track(robot.fk(goal), q, max_step, world=world).q - q
        watched += 1
        assert panda.is_free(q + np.linspace(0, 1, 41)[:, None] * step, world, margin=depth - 1e-3).all()
    assert watched > 150


def test_the_approach_is_slowed_down_as_a_damper_does(panda):
    pose = panda.robot.fk(Q)
    wall = Box([0.02, 2.0, 2.0], [pose[0] + 0.2, 0, 0.5, 1, 0, 0, 0], "wall")
    path = [Q]
    for _ in range(100):
        path.append(panda.track(moved(pose, [0.4, 0, 0]), path[-1], 0.05, world=World([wall]), margin=0.01).q)
    beyond = clearance(panda.robot, path, [wall], 0.01) - 0.01
    assert (beyond[1:] >= 0.8 * np.minimum(beyond[:-1], 0.1) - ROUNDING).all()


@pytest.mark.parametrize("name", ["panda", "ur10"])
def test_no_target_leads_within_the_margin(name, request):
    solver, rng = request.getfixturevalue(name), np.random.default_rng(0)
    robot, arrived, held = solver.robot, 0, 0
    for _ in range(40):
        shapes = random_spheres(rng, 1.4 if name == "ur10" else 1.0)
        world = World(shapes)
        q = robot.sample(200, rng)
        free = q[solver.is_free(q, world, margin=0.02)]
        if not len(free):
            continue
        start = free[0]
        target = robot.fk(robot.clamp(start + rng.uniform(-0.6, 0.6, robot.dof)))
        step = rng.choice([0.005, 0.05])
        path = []
        for _ in range(round(1.0 / step)):
            result = solver.track(target, start, step, world=world, margin=0.02)
            start = result.q
            path.append(start)
        assert clearance(robot, path, shapes, 0.02).min() >= 0.02 - ROUNDING
        arrived += result.status is Status.SOLVED
        held += result.status is Status.IN_COLLISION
    assert arrived > 10 and held > 3


def test_a_start_in_collision_is_led_out_and_never_deeper(panda):
    rng = np.random.default_rng(1)
    tried = out = 0
    for _ in range(1000):
        shapes = random_spheres(rng, 1.0)
        world = World(shapes)
        q = panda.robot.sample(1, rng)[0]
        before = clearance(panda.robot, q, shapes, 0.01)
        if not -0.08 < before < 0 or clearance(panda.robot, q, [], 0.0) < 0.005:
            continue
        tried += 1
        pose = panda.robot.fk(q)
        path = [q]
        for _ in range(60):
            path.append(panda.track(pose, path[-1], 0.02, world=world, margin=0.01).q)
        clear = clearance(panda.robot, path, shapes, 0.01)
        assert (clear[1:] >= np.minimum(clear[:-1], 0.01) - ROUNDING).all()
        out += clear[-1] >= 0.01 - ROUNDING
    assert tried > 20 and out >= 0.9 * tried, f"{out} of {tried}"


def test_an_obstacle_that_comes_near_pushes_the_arm_away(panda):
    ball = Sphere(0.08, [0.9, 0.0, 0.6, 1, 0, 0, 0], "ball")
    world, pose, q = World([ball]), panda.robot.fk(Q), Q
    height = pose[2]
    nearest = np.inf
    for i in range(300):
        place = [0.9 - 0.0015 * i, 0.0, height, 1, 0, 0, 0]
        world.set_pose("ball", place)
        shapes = [Sphere(0.08, place, "ball")]
        here = clearance(panda.robot, q, shapes, 0.03)
        result = panda.track(pose, q, 0.02, world=world, margin=0.03)
        now = clearance(panda.robot, result.q, shapes, 0.03)
        assert now >= min(here, 0.03) - ROUNDING, "never deeper"
        nearest, q = min(nearest, now), result.q
    assert nearest > 0.02, "the arm gives way as fast as the ball comes"
    assert np.abs(q - Q).max() > 0.1


def test_a_world_out_of_reach_changes_nothing(panda):
    far, pose, q = World([Sphere(0.1, [9, 9, 9, 1, 0, 0, 0])]), panda.robot.fk(Q + 0.2), Q
    for _ in range(50):
        without, beside = panda.track(pose, q, 0.01), panda.track(pose, q, 0.01, world=far)
        np.testing.assert_array_equal(without.q, beside.q)
        assert without.status is beside.status
        q = without.q
