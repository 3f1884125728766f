"""Solving with obstacles: what is handed out keeps the margin, by a judge of its own, and what is not says why."""

import itertools
from dataclasses import replace

import numpy as np
import pytest
from clearance_judge import clearance

from mfik.collision import Box, Capsule, Cylinder, HalfSpace, PointCloud, Sphere, World
from mfik.collision.pairs import frame_transforms, sphere_centers
from mfik.collision.poses import as_transform
from mfik.errors import ArgumentError, RobotError
from mfik.robots import load_robot

pytest.importorskip("mfik._native", reason="needs the native extension: pip install -e .", exc_type=ImportError)
from mfik.solve import Options, Solver, Status

ROUNDING = 1e-9  # [m]: the judge, too, works in float64
CLOUD_ROUNDING = 1e-6  # [m]: points of a cloud are kept in float32
TOL = 1e-5  # [m], [rad]: of the solver


def random_shapes(rng, reach=1.0, count=10):
    """Shapes around the arm, off its first links; `reach` [m] of Panda is 1."""
    shapes = []
    for i in range(count):
        angle, quat = rng.uniform(-np.pi, np.pi), rng.normal(size=4)
        place = [*(reach * rng.uniform(0.45, 0.7) * np.array([np.cos(angle), np.sin(angle)])), rng.uniform(0.0, 0.9)]
        pose, size = [*place, *(quat / np.linalg.norm(quat))], rng.uniform(0.06, 0.3, 3)
        kinds = [
            Sphere(size[0], pose, f"{i}"),
            Box(size, pose, f"{i}"),
            Cylinder(size[0], size[1], pose, f"{i}"),
            Capsule(size[0] / 2, size[1], pose, f"{i}"),
        ]
        shapes.append(kinds[i % 4])
    return [*shapes, HalfSpace([0, 0, -0.1, 1, 0, 0, 0], "floor")]


def problems(solver, rng, count, margin=0.0):
    """Shapes, a pose that free joints reach, and a reference."""
    robot = solver.robot
    while count > 0:
        shapes = random_shapes(rng, 1.6 if robot.name == "ur10" else 1.0)
        q = robot.sample(50, rng)
        free = q[solver.is_free(q, World(shapes), margin=margin + 1e-6)]
        if len(free):
            yield shapes, robot.fk(free[0]), robot.sample(1, rng)[0]
            count -= 1


def assert_solves(solver, result, pose, shapes, margin=0.0, self_collision=True):
    rows = np.atleast_2d(result.q)
    assert clearance(solver.robot, rows, shapes, self_collision, margin).min() >= margin - ROUNDING
    for q in rows:
        reached = solver.robot.fk(q)
        assert np.linalg.norm(reached[:3] - pose[:3]) <= TOL
        assert 2 * np.arccos(min(1.0, abs(reached[3:] @ pose[3:]))) <= 2e-5
        assert (q >= solver.robot.lower).all() and (q <= solver.robot.upper).all()


@pytest.mark.parametrize("margin", [0.0, 0.02])
@pytest.mark.parametrize("name", ["panda", "ur10"])
def test_solutions_keep_the_margin(name, margin, request):
    solver, rng = request.getfixturevalue(name), np.random.default_rng(1)
    avoided = 0
    for shapes, pose, q_ref in problems(solver, rng, 100, margin):
        result = solver.solve(pose, q_ref, world=World(shapes), margin=margin)
        assert result.status is Status.SOLVED, result
        assert result.pair is None
        assert_solves(solver, result, pose, shapes, margin)
        avoided += clearance(solver.robot, solver.solve(pose, q_ref).q, shapes, allowance=margin) < margin
    assert avoided > 10, "hardly any answer would have collided"


def test_nearest_is_the_nearest_free_one(panda):
    rng = np.random.default_rng(2)
    nearer = 0
    for shapes, pose, q_ref in problems(panda, rng, 30):
        world = World(shapes)
        nearest = panda.solve(pose, q_ref, nearest=True, world=world)
        assert nearest.status is Status.SOLVED
        assert_solves(panda, nearest, pose, shapes)
        others = panda.solve_all(pose, 50, q_ref, world=world, min_distance=1e-3).q
        length = np.linalg.norm(nearest.q - q_ref)
        assert np.linalg.norm(others - q_ref, axis=-1).min() >= 0.99 * length
        free_of_all = panda.solve(pose, q_ref, nearest=True)
        nearer += np.linalg.norm(free_of_all.q - q_ref) < length - 1e-3
    assert nearer > 3, "the nearest of all was always free"


def test_all_solutions_are_free_and_differ(panda):
    rng = np.random.default_rng(3)
    for shapes, pose, q_ref in problems(panda, rng, 30):
        result = panda.solve_all(pose, 20, q_ref, world=World(shapes))
        assert result.status is Status.SOLVED and 1 <= len(result.q) <= 20
        assert_solves(panda, result, pose, shapes)
        for a, b in itertools.combinations(result.q, 2):
            assert np.abs(a - b).max() > 0.1
        assert len(result.q) <= len(panda.solve_all(pose, 20, q_ref).q)


@pytest.mark.parametrize("throughput", [False, True])
def test_a_batch_answers_as_its_rows_do(panda, throughput):
    rng = np.random.default_rng(4)
    shapes = random_shapes(rng)
    world, q_ref = World(shapes), panda.robot.sample(40, rng)
    pose = panda.robot.fk(panda.robot.sample(40, rng))
    batch = panda.solve_batch(pose, q_ref, world=world, margin=0.01, threads=2, throughput=throughput)
    assert set(batch.status) == {Status.SOLVED, Status.IN_COLLISION}
    for row in range(40):
        one = panda.solve(pose[row], q_ref[row], world=world, margin=0.01)
        assert batch.status[row] == one.status
        np.testing.assert_array_equal(batch.q[row], one.q)


def test_one_attempt_is_pushed_out_along_the_null_space(panda):
    """From joints that reach the pose and touch a ball with the elbow, the arm swivels away from it."""
    robot, rng = panda.robot, np.random.default_rng(5)
    solved = tried = 0
    for q in robot.sample(300, rng):
        elbow = robot.body.links[[link.name for link in robot.body.links].index("panda_link4")]
        center = sphere_centers(elbow, frame_transforms(robot.chain, q[None]))[0][0]
        aside = rng.normal(size=3)
        place = center + 0.14 * aside / np.linalg.norm(aside)
        shapes = [Sphere(0.05, [*place, 1, 0, 0, 0], "ball")]
        depth = clearance(robot, q, shapes)
        if not -0.08 < depth < 0 or clearance(robot, q) < 0.005:
            continue
        tried += 1
        pose = robot.fk(q)
        once = panda.solve(pose, q, max_attempts=1, max_iterations=30, world=World(shapes))
        if once.status is Status.SOLVED:
            assert_solves(panda, once, pose, shapes)
            solved += 1
    assert tried > 50
    assert solved > 0.5 * tried, f"{solved} of {tried}"


def test_a_target_in_an_obstacle_names_what_collides(panda):
    q = np.array([0.0, -0.5, 0.0, -2.0, 0.0, 1.6, 0.8])
    pose = panda.robot.fk(q)
    world = World(
        [Sphere(0.5, [-1.5, 0, 0.5, 1, 0, 0, 0], "far"), Box([0.1, 0.1, 0.1], [*pose[:3], 1, 0, 0, 0], "crate")]
    )
    result = panda.solve(pose, q, world=world)
    assert result.status is Status.IN_COLLISION and result.pair[1] == "crate"
    assert result.pair == (panda.clearance(result.q, world).first, panda.clearance(result.q, world).second)
    assert "whatever the joints" in result.reason and result.pos_error <= TOL
    assert f"'{result.pair[0]}' and 'crate'" in panda.explain(result)
    assert panda.solve_all(pose, 5, q, world=world).q.shape == (0, 7)
    assert panda.solve_all(pose, 5, q, world=world).status is Status.IN_COLLISION
    assert panda.solve(pose, q, nearest=True, world=world).status is Status.IN_COLLISION


def test_every_answer_collides_where_the_arm_has_no_room(ur10):
    """A wall between base and target: the tool is free, the arm is not."""
    q = np.array([0.2, -0.6, 0.9, -0.3, 1.4, 0.1])
    pose = ur10.robot.fk(q)
    middle = 0.5 * pose[:3]
    wall = Box([0.05, 3.0, 3.0], [middle[0], middle[1], 0.5, 1, 0, 0, 0], "wall")
    result = ur10.solve(pose, q, world=World([wall]))
    assert result.status is Status.IN_COLLISION and "wall" in result.pair and "every answer" in result.reason


def test_self_collision_is_asked_for_or_comes_with_a_world(panda):
    rng = np.random.default_rng(6)
    poses, refs = panda.robot.fk(panda.robot.sample(3000, rng)), panda.robot.sample(3000, rng)
    colliding = {"by itself": 0, "asked for": 0, "with a world": 0, "left out": 0}
    far = World([Sphere(0.1, [9, 9, 9, 1, 0, 0, 0])])
    for name, options in {
        "by itself": Options(),
        "asked for": Options(self_collision=True),
        "with a world": Options(world=far),
        "left out": Options(world=far, self_collision=False),
    }.items():
        result = panda.solve_batch(poses, refs, options=options)
        colliding[name] = int((~panda.is_free(result.q[result.status == Status.SOLVED])).sum())
    assert colliding["by itself"] == colliding["left out"] > 10
    assert colliding["asked for"] == colliding["with a world"] == 0


def test_a_world_out_of_reach_changes_nothing(panda):
    rng = np.random.default_rng(7)
    far = World([Sphere(0.1, [9, 9, 9, 1, 0, 0, 0])])
    for pose, q_ref in zip(panda.robot.fk(panda.robot.sample(50, rng)), panda.robot.sample(50, rng), strict=True):
        without, beside = panda.solve(pose, q_ref), panda.solve(pose, q_ref, world=far, self_collision=False)
        np.testing.assert_array_equal(without.q, beside.q)
        assert without.status is beside.status


def test_a_reference_in_collision_is_none_of_the_answer(panda):
    q_ref = np.array([0.0, -0.5, 0.0, -2.0, 0.0, 1.6, 0.8])
    shapes = [Sphere(0.1, [*panda.robot.fk(q_ref)[:3], 1, 0, 0, 0], "ball")]
    assert clearance(panda.robot, q_ref, shapes) < 0
    pose = panda.robot.fk([1.2, -0.5, 0.0, -2.0, 0.0, 1.6, 0.8])
    result = panda.solve(pose, q_ref, world=World(shapes))
    assert result.status is Status.SOLVED
    assert_solves(panda, result, pose, shapes)


def test_clouds_are_kept_clear_of(panda):
    rng = np.random.default_rng(8)
    points = rng.normal(size=(500, 3))
    points = points / np.linalg.norm(points, axis=-1, keepdims=True) * 0.12 + [0.45, 0.1, 0.6]
    shapes = [PointCloud(points, 0.01, "cloud")]
    free = panda.robot.sample(400, rng)
    free = free[panda.is_free(free, World(shapes), margin=0.01)][:60]
    for q, q_ref in zip(free, panda.robot.sample(60, rng), strict=True):
        result = panda.solve(panda.robot.fk(q), q_ref, world=World(shapes))
        assert result.status is Status.SOLVED
        assert clearance(panda.robot, result.q, shapes) >= -CLOUD_ROUNDING


def test_the_posture_gives_way_to_the_margin(panda):
    rng = np.random.default_rng(9)
    nearer = 0
    for shapes, pose, q_ref in problems(panda, rng, 40):
        posture = panda.robot.sample(1, rng)[0]
        plain = panda.solve(pose, q_ref, world=World(shapes))
        led = panda.solve(pose, q_ref, world=World(shapes), q_preferred=posture)
        assert led.status is Status.SOLVED
        assert_solves(panda, led, pose, shapes)
        nearer += np.linalg.norm(led.q - posture) < np.linalg.norm(plain.q - posture) - 1e-3
    assert nearer > 5, "the posture never led anywhere"


def test_slack_tool_and_locked_joints_go_with_obstacles(panda):
    rng = np.random.default_rng(10)
    options = Options(slack=[0, 0, 0, 0, 0, np.inf], tool=[0, 0, 0.1, 1, 0, 0, 0], locked=[2])
    solved = 0
    for shapes, _, q_ref in problems(panda, rng, 40):
        world = World(shapes)
        q = panda.robot.sample(30, rng)
        q[:, 2] = q_ref[2]
        free = q[panda.is_free(q, world, margin=1e-6)]
        if not len(free):
            continue
        carried = np.eye(4)
        carried[2, 3] = 0.1
        pose = as_transform("pose", panda.robot.fk(free[0])) @ carried
        result = panda.solve(pose, q_ref, options=replace(options, world=world))
        assert result.status is Status.SOLVED
        assert result.q[2] == q_ref[2] and clearance(panda.robot, result.q, shapes) >= -ROUNDING
        solved += 1
    assert solved > 20


def test_a_robot_without_spheres_says_how_to_get_them():
    bare = Solver.from_robot(load_robot("examples/gantry.urdf", "world", "flange"))
    pose, q = bare.robot.fk(np.zeros(6)), np.zeros(6)
    for options in ({"world": World()}, {"self_collision": True}):
        with pytest.raises(RobotError, match="'gantry': expected spheres.*scripts/fit_spheres.py"):
            bare.solve(pose, q, **options)
        with pytest.raises(RobotError, match="'gantry': expected spheres"):
            bare.solve_batch(pose[None], q[None], **options)
    assert bare.solve(pose, q, self_collision=False).status is Status.SOLVED


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"world": [Sphere(1)]}, "world: expected a mfik.collision.World or None, got list"),
        ({"world": 3}, "world: expected"),
        ({"margin": np.nan}, "margin: expected a finite number, got nan; the default is 0.0"),
        ({"margin": "wide"}, "margin: expected a finite number"),
        ({"self_collision": 2}, "self_collision: expected True or False"),
    ],
)
def test_bad_input_is_named(panda, options, message):
    pose = panda.robot.fk(np.zeros(7))
    with pytest.raises(ArgumentError, match=message):
        panda.solve(pose, np.zeros(7), **options)
    with pytest.raises(ArgumentError, match=message):
        Options(**options)


@pytest.mark.parametrize("options", [{"world": World()}, {"self_collision": True}, {"margin": 0.1}])
def test_cuda_refuses_collision_by_name(panda, options):
    torch = pytest.importorskip("torch")
    pose = torch.zeros(1, 7)
    (name,) = options
    with pytest.raises(ArgumentError, match=f"{name}: solving on CUDA takes .* only"):
        panda._solve_tensors(pose, pose, Options(**options))
