"""Fitted spheres against what they stand for: the meshes of a URDF file, judged by Pinocchio and coal."""

import numpy as np
import pytest

from mfik.collision import Box, Cylinder, Sphere, World
from mfik.robots import load_robot

pytest.importorskip("mfik._native", reason="needs the native extension: pip install -e .", exc_type=ImportError)
from coal_scene import CoalScene

from mfik.solve import Solver, Status

FINGERS = {"panda_finger_joint1": 0.04, "panda_finger_joint2": 0.04}
SHAPES = [
    Box([0.3, 0.8, 0.05], [0.5, 0.1, 0.3, 0.98006658, 0, 0.19866933, 0], "shelf"),
    Cylinder(0.08, 0.9, [-0.4, 0.4, 0.45, 1, 0, 0, 0], "post"),
    Sphere(0.15, [0.3, -0.5, 0.6, 1, 0, 0, 0], "ball"),
]


@pytest.fixture(scope="module")
def arm(example_robots):
    urdf = example_robots / "panda_description" / "urdf" / "panda.urdf"
    robot = load_robot(urdf, "panda_link0", "panda_hand", spheres="panda", joint_positions=FINGERS)
    return Solver.from_robot(robot), CoalScene(robot, urdf, FINGERS)


def test_what_is_free_by_the_spheres_is_free_by_the_meshes(arm):
    solver, scene = arm
    q = solver.robot.sample(1500, np.random.default_rng(0))
    scene.set_world(SHAPES)
    free = solver.is_free(q, World(SHAPES))
    collide = np.array([scene.collides(row) for row in q])
    assert 300 < free.sum() < 1200 and collide.sum() > 300
    assert not (free & collide).any()
    # Of what the spheres refuse most is refused by the meshes, too: they are no mere hull of the arm.
    assert collide[~free].mean() > 0.6


def test_answers_beside_obstacles_are_free_by_the_meshes(arm):
    solver, scene = arm
    scene.set_world(SHAPES)
    world, rng = World(SHAPES), np.random.default_rng(1)
    targets, references = solver.robot.sample(400, rng), solver.robot.sample(400, rng)
    plain = solved = 0
    for target, q_ref in zip(targets[solver.is_free(targets, world)], references, strict=False):
        pose = solver.robot.fk(target)
        result = solver.solve(pose, q_ref, world=world)
        assert result.status is not Status.SOLVED or not scene.collides(result.q)
        solved += result.status is Status.SOLVED
        plain += scene.collides(solver.solve(pose, q_ref).q)
    assert solved > 50 and plain > 10, "or the test shows nothing"
