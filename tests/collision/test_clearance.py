"""Clearance against coal on random shapes and poses, against NumPy on the robot itself, and its gradient."""

import copy
import json
import math
import pickle
import sys

import numpy as np
import pytest

from mfik.collision import Box, Capsule, Cylinder, HalfSpace, PointCloud, Sphere, World
from mfik.collision.pairs import frame_transforms, sphere_centers
from mfik.collision.poses import as_transform
from mfik.errors import ArgumentError, BundleError, RobotError
from mfik.robots import Robot, load_robot

pytest.importorskip("mfik._native", reason="needs the native extension: pip install -e .", exc_type=ImportError)
from mfik.solve import Solver

ROUNDING = 1e-9  # [m]: mfik and NumPy work in float64
COAL = 1e-5  # [m]: coal's GJK and EPA stop at 1e-6 of their own measure

# One ball that three prismatic joints put anywhere: its clearance is the shape's distance less the radius.
BALL = """<robot name="ball"><link name="base"/><link name="a"/><link name="b"/>
<link name="ball"><collision><geometry><sphere radius="{radius}"/></geometry></collision></link>
<joint name="x" type="prismatic"><parent link="base"/><child link="a"/><axis xyz="1 0 0"/>
  <limit lower="-9" upper="9"/></joint>
<joint name="y" type="prismatic"><parent link="a"/><child link="b"/><axis xyz="0 1 0"/>
  <limit lower="-9" upper="9"/></joint>
<joint name="z" type="prismatic"><parent link="b"/><child link="ball"/><axis xyz="0 0 1"/>
  <limit lower="-9" upper="9"/></joint></robot>"""


@pytest.fixture
def ball(tmp_path):
    path = tmp_path / "ball.urdf"
    path.write_text(BALL.format(radius=0.1))
    return Solver.from_robot(load_robot(path))


def random_pose(rng):
    quat = rng.normal(size=4)
    return np.concatenate([rng.uniform(-0.5, 0.5, 3), quat / np.linalg.norm(quat)])


def random_shape(kind, rng, name="it"):
    pose, sizes = random_pose(rng), rng.uniform(0.05, 0.6, 3)
    return {
        "sphere": lambda: Sphere(sizes[0], pose, name),
        "box": lambda: Box(sizes, pose, name),
        "cylinder": lambda: Cylinder(sizes[0], sizes[1], pose, name),
        "capsule": lambda: Capsule(sizes[0], sizes[1], pose, name),
        "half_space": lambda: HalfSpace(pose, name),
    }[kind]()


KINDS = ("sphere", "box", "cylinder", "capsule", "half_space")


def coal_of(coal, shape):
    geometry = {
        Sphere: lambda s: coal.Sphere(s.radius),
        Box: lambda s: coal.Box(*s.size),
        Cylinder: lambda s: coal.Cylinder(s.radius, s.length),
        Capsule: lambda s: coal.Capsule(s.radius, s.length),
        HalfSpace: lambda s: coal.Halfspace(np.array([0.0, 0.0, 1.0]), 0.0),
    }[type(shape)](shape)
    transform = as_transform("pose", shape.pose)
    return geometry, coal.Transform3s(transform[:3, :3].copy(), transform[:3, 3].copy())


@pytest.mark.parametrize("kind", KINDS)
def test_distances_are_those_of_coal(kind, ball):
    coal = pytest.importorskip("coal")
    rng = np.random.default_rng(KINDS.index(kind))

    def judge(q, shape):
        geometry, placement = coal_of(coal, shape)
        here = coal.Transform3s(np.eye(3), q.copy())
        request, result = coal.DistanceRequest(True), coal.DistanceResult()
        return coal.distance(coal.Sphere(0.1), here, geometry, placement, request, result)

    inside = 0
    for _ in range(300):
        shape = random_shape(kind, rng)
        q = np.asarray(shape.pose)[:3] + rng.uniform(0.05, 0.8) * rng.uniform(-1, 1, 3)
        found = ball.clearance(q, World([shape]))
        assert (found.first, found.second) == ("ball", "it")
        if found.distance > 0:
            assert found.distance == pytest.approx(judge(q, shape), abs=COAL), (shape, q)
            continue
        # No shorter way leads out than coal knows, whose depth is that of a local search, and this one does.
        assert found.distance >= judge(q, shape) - COAL, (shape, q)
        assert judge(q - found.distance * found.gradient, shape) == pytest.approx(0.0, abs=COAL), (shape, q)
        inside += found.distance < -0.1
    assert inside > 20, "the centre was hardly ever inside"


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_finite_differences(kind, ball):
    rng = np.random.default_rng(7)
    step, seen = 1e-6, 0
    for _ in range(100):
        world, q = World([random_shape(kind, rng)]), rng.uniform(-0.8, 0.8, 3)
        gradient = ball.clearance(q, world).gradient
        shifts = step * np.eye(3)
        difference = [
            (ball.clearance(q + shift, world).distance - ball.clearance(q - shift, world).distance) / (2 * step)
            for shift in shifts
        ]
        assert np.linalg.norm(gradient) == pytest.approx(1.0, abs=1e-9)
        seen += np.allclose(gradient, difference, atol=1e-5)
    assert seen >= 97, "a kink of the distance between the two points is rare"


def test_a_cloud_is_the_nearest_of_its_points(ball):
    rng = np.random.default_rng(3)
    for count in (1, 2, 500, 20_000):
        points = rng.normal(size=(count, 3)) * [0.4, 0.3, 0.01]
        pose, radius = random_pose(rng), 0.02
        world = World([PointCloud(points, radius, "cloud", pose)])
        transform = as_transform("pose", pose)
        placed = points @ transform[:3, :3].T + transform[:3, 3]
        for _ in range(100):
            q = rng.uniform(-1.0, 1.0, 3)
            offsets = np.linalg.norm(placed - q, axis=-1)
            found = ball.clearance(q, world)
            assert found.distance == pytest.approx(offsets.min() - radius - 0.1, abs=1e-6)  # points are kept in float32
            away = (q - placed[offsets.argmin()]) / offsets.min()
            np.testing.assert_allclose(found.gradient, away, atol=1e-4)


def test_flat_and_thin_clouds_are_clouds(ball):
    line = np.zeros((1000, 3))
    line[:, 0] = np.linspace(-1, 1, 1000)
    world = World([PointCloud(line, 0.01)])
    assert ball.clearance([0.3, 0.5, 0.0], world).distance == pytest.approx(0.5 - 0.11, abs=1e-5)
    same = World([PointCloud(np.ones((50, 3)), 0.01)])
    assert ball.clearance([1.0, 1.0, 0.0], same).distance == pytest.approx(1.0 - 0.11, abs=1e-6)


def expected_self_distance(robot, q):
    """Compare all pairs of spheres by NumPy."""
    frames = frame_transforms(robot.chain, q[None])
    links = {link.name: link for link in robot.body.links}
    centers = {name: sphere_centers(link, frames)[0] for name, link in links.items()}
    best = (math.inf, None, None)
    for pair in robot.body.pairs:
        if pair.reason == "checked":
            a, b = links[pair.first], links[pair.second]
            offset = np.linalg.norm(centers[a.name][:, None] - centers[b.name], axis=-1)
            distance = (offset - a.spheres[:, None, 3] - b.spheres[:, 3]).min()
            best = min(best, (distance, a.name, b.name))
    return best


def test_self_clearance_is_the_nearest_pair_of_spheres(panda):
    for q in panda.robot.sample(100, np.random.default_rng(0)):
        distance, first, second = expected_self_distance(panda.robot, q)
        found = panda.clearance(q)
        assert found.distance == pytest.approx(distance, abs=ROUNDING)
        assert {found.first, found.second} == {first, second}


def random_world(rng, shapes=10):
    chosen = [random_shape(str(kind), rng, f"shape {i}") for i, kind in enumerate(rng.choice(KINDS[:4], shapes))]
    return World([*chosen, PointCloud(rng.uniform(-1, 1, (300, 3)), 0.01, "cloud")])


def test_the_world_is_compared_with_every_link_that_moves(panda):
    rng = np.random.default_rng(1)
    robot = panda.robot
    for q in robot.sample(50, rng):
        shape = random_shape("sphere", rng)
        found = panda.clearance(q, World([shape]), self_collision=False)
        frames = frame_transforms(robot.chain, q[None])
        distance = min(
            (np.linalg.norm(sphere_centers(link, frames)[0] - shape.pose[:3], axis=-1) - link.spheres[:, 3]).min()
            for link in robot.body.links
            if link.frame > 0
        )
        assert found.distance == pytest.approx(distance - shape.radius, abs=ROUNDING)
        assert found.first != "panda_link0" and found.second == "it"


def test_gradients_of_a_robot_are_finite_differences(panda):
    rng = np.random.default_rng(2)
    step, seen, rows = 1e-6, 0, 100
    for q in panda.robot.sample(rows, rng):
        world = random_world(rng)
        gradient = panda.clearance(q, world).gradient
        difference = [
            (panda.clearance(q + shift, world).distance - panda.clearance(q - shift, world).distance) / (2 * step)
            for shift in step * np.eye(7)
        ]
        seen += np.allclose(gradient, difference, atol=1e-4)
    assert seen >= 0.95 * rows


@pytest.mark.parametrize("rows", [0, 1, 7, 8, 65, 200])
def test_many_side_by_side_say_what_one_does(panda, rows):
    rng = np.random.default_rng(rows)
    q, world = panda.robot.sample(rows, rng), random_world(rng, 6)
    for self_collision in (True, False):
        to_world = np.array([panda.clearance(row, world, self_collision=False).distance for row in q])
        to_links = np.array([panda.clearance(row).distance for row in q]) if self_collision else np.full(rows, np.inf)
        for margin in (-0.05, 0.0, 0.02, 0.3):
            distances = np.minimum(to_world, to_links + max(margin, 0.0))
            free = panda.is_free(q, world, margin=margin, self_collision=self_collision)
            sure = np.abs(distances - margin) > ROUNDING
            np.testing.assert_array_equal(free[sure], (distances >= margin)[sure])
    assert free.dtype == bool and free.shape == (rows,)


@pytest.mark.parametrize("kind", [*KINDS, "cloud"])
def test_a_check_is_exact_however_near_the_margin_is(panda, kind):
    """Checks go by single precision until that leaves them open; then they say what the distance says."""
    rng = np.random.default_rng(4)
    rounding = 2e-6 if kind == "cloud" else ROUNDING  # [m]: a cloud's points are kept in float32
    near, far = [0.5, 0.1, 0.3, 1, 0, 0, 0], [30.5, 0.0, 0.3, 1, 0, 0, 0]
    shapes = {
        "cloud": lambda: [PointCloud(rng.normal(size=(3000, 3)) * 0.05, 0.01, "it", near)],
        "sphere": lambda: [Sphere(30, far)],
        "box": lambda: [Box([60, 60, 60], far)],
        "cylinder": lambda: [Cylinder(30, 60, far)],
        "capsule": lambda: [Capsule(30, 60, far)],
        "half_space": lambda: [HalfSpace([20.0, 29.85, 2.895, 0.99875, 0.04998, 0, 0])],
    }[kind]()
    if kind != "cloud":
        shapes += [random_shape(kind, rng), random_shape(kind, rng)]
    asked = 0
    for shape in shapes:
        world = World([shape])
        for q in panda.robot.sample(100, rng):
            distance = panda.clearance(q, world, self_collision=False).distance
            if distance < 0:
                continue
            asked += 1
            for offset in rounding * 10 ** rng.uniform(0, 4, 4):
                nearer, farther = (
                    panda.is_free(q[None], world, margin=distance + sign * offset, self_collision=False)[0]
                    for sign in (-1, 1)
                )
                assert nearer and not farther
    assert asked > 50


def test_shapes_beyond_single_precision_are_checked_all_the_same(panda):
    q = panda.robot.sample(50, np.random.default_rng(0))
    for size in (1e7, 1e20, 1e39):  # around the arm, and beside it
        around = World([Box([2 * size] * 3, [0, 0, 0, 1, 0, 0, 0])])
        beside = World([Box([size] * 3, [1.5 * size, 0, 0, 1, 0, 0, 0])])
        assert not panda.is_free(q, around, self_collision=False).any()
        assert panda.is_free(q, beside, self_collision=False).all()


def test_attached_objects_and_the_world_are_named(panda):
    robot = panda.robot.attach("tool", [[0, 0, 0.3, 0.05]])
    q = [0.0, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785]
    tip = robot.fk(q)[:3]
    world = World([Box([0.1, 0.1, 0.1], [*(tip - [0, 0, 0.45]), 1, 0, 0, 0], "crate")])
    solver = Solver.from_robot(robot)
    found = solver.clearance(q, world, self_collision=False)
    assert (found.first, found.second) == ("tool", "crate") and found.distance == pytest.approx(0.05, abs=2e-3)
    world.set_pose("crate", [*(tip - [0, 0, 0.55]), 1, 0, 0, 0])
    moved = solver.clearance(q, world, self_collision=False)
    assert moved.distance == pytest.approx(found.distance + 0.1, abs=1e-3)


def test_nothing_to_compare_is_infinitely_far(ball):
    found = ball.clearance([0, 0, 0])
    assert (found.distance, found.first, found.second) == (math.inf, None, None)
    assert ball.clearance([0, 0, 0], World()).distance == math.inf
    assert ball.is_free(np.zeros((3, 3))).all()


def test_a_bundle_carries_the_body(panda, tmp_path):
    export = pytest.importorskip("mfik.export")
    export.export_bundle(tmp_path / "panda", None, export.document(None, panda.robot))
    loaded = Solver.load(tmp_path / "panda", panda.robot)
    assert loaded.robot.to_dict() == panda.robot.to_dict()
    q = panda.robot.sample(1, np.random.default_rng(5))[0]
    assert loaded.clearance(q).distance == panda.clearance(q).distance


def test_a_robot_without_spheres_says_how_to_get_them():
    bare = Solver.from_robot(load_robot("examples/gantry.urdf", "world", "flange"))
    for call in (bare.clearance, bare.is_free):
        with pytest.raises(RobotError, match="'gantry': expected spheres.*scripts/fit_spheres.py.*spheres="):
            call(np.zeros(6), World())


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda s: s.clearance([0.0] * 6), r"q: expected shape \[7\], got \[6\]"),
        (lambda s: s.clearance([math.nan] * 7), "q"),
        (lambda s: s.clearance([0.0] * 7, [Box([1, 1, 1])]), "world: expected a mfik.collision.World"),
        (lambda s: s.is_free([0.0] * 7), "q: expected"),
        (lambda s: s.is_free([[0.0] * 7], margin=math.inf), "margin: expected a finite number"),
    ],
)
def test_bad_input_is_named(panda, call, message):
    with pytest.raises(ArgumentError, match=message):
        call(panda)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: World([Box([1, 1], name="b")]), r"shape 'b': size: expected \[3\], got \[2\]"),
        (lambda: World([Box([1, -1, 1])]), "shape 'box_0': size: expected a finite length above 0"),
        (lambda: World([Sphere(math.inf)]), "shape 'sphere_0': radius"),
        (lambda: World([Cylinder(1, 0)]), "shape 'cylinder_0': length"),
        (lambda: World([Sphere(1, [0] * 7)]), "shape 'sphere_0': pose: expected a unit quaternion, got norm 0"),
        (lambda: World([Sphere(1, name="a"), Sphere(1, name="a")]), "shape 'a': name: expected text that no other"),
        (lambda: World([PointCloud([[0, 0, math.nan]], 1)]), "points: expected finite points"),
        (lambda: World([PointCloud(np.zeros((0, 3)), 1)]), "points: expected finite points"),
        (lambda: World(3), "shapes: expected a list of shapes, got int"),
        (lambda: World.from_dicts({"type": "box"}), "shapes: expected a list of shapes, got dict"),
        (lambda: World.from_dicts("box"), "shapes: expected a list of shapes, got str"),
        (lambda: World([{"type": "box"}]), r"shapes\[0\]: expected one of Sphere, Box"),
        (lambda: World.from_dicts([{"type": "cone"}]), r"shapes\[0\]: expected a type of sphere, box"),
        (lambda: World.from_dicts([{"type": "sphere"}]), "got no radius"),
        (lambda: World.from_dicts([{"type": "sphere", "radius": 1, "size": 2}]), "got also 'size'"),
        (lambda: World().set_pose("a", [0, 0, 0, 1, 0, 0, 0]), "name: shape 'a' does not exist; use one of none"),
        (lambda: World([Sphere(1)]).set_pose("sphere_0", [0, 0, 0]), "pose: expected seven finite numbers"),
    ],
)
def test_worlds_are_checked(make, message):
    with pytest.raises(ArgumentError, match=message):
        make()


def test_dictionaries_make_the_same_world(ball):
    text = """[{"name": "can", "type": "cylinder", "length": 0.14, "radius": 0.03, "pose": [0.5, 0, 0, 1, 0, 0, 0]},
      {"type": "box", "size": [0.1, 0.2, 0.3], "pose": [0, 0.5, 0, 1, 0, 0, 0]},
      {"type": "half_space", "pose": [0, 0, -5, 1, 0, 0, 0]},
      {"type": "sphere", "radius": 0.2}, {"type": "point_cloud", "points": [[0, 0, 9]], "radius": 0.1}]"""
    world = World.from_dicts(json.loads(text))
    assert world.names == ("can", "box_1", "half_space_2", "sphere_3", "point_cloud_4") and len(world) == 5
    assert ball.clearance([0.5, 0, 0.3], world, self_collision=False).second == "can"
    world.set_pose("can", [0.5, 0, 0.1, 1, 0, 0, 0])
    for same in (World.from_dicts(json.loads(json.dumps(world.to_dicts()))), pickle.loads(pickle.dumps(world))):
        assert same.names == world.names and same.to_dicts() == world.to_dicts()
        for q in ([0.5, 0, 0.3], [0, 0.5, 1.0], [0, 0, 8.0]):
            assert ball.clearance(q, same).distance == ball.clearance(q, world).distance


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda body: body.pop("pairs"), "robot.body.pairs: expected a value"),
        (lambda body: body.update(links=[]), "robot.body.links: expected 1 to 128 links"),
        (
            lambda body: body["links"][0].update(frame=8),
            r"links\[0\].frame: expected an integer from 0 to 7",
        ),
        (lambda body: body["links"][0].update(transform=[0] * 12), r"links\[0\].transform: expected a rotation matrix"),
        (lambda body: body["links"][0].update(spheres=[]), r"links\[0\].spheres: expected 1 to 2048 spheres"),
        (lambda body: body["links"][0].update(spheres=[[0, 0, 0, 0]]), r"spheres\[0\]\[3\]: expected a radius above 0"),
        (lambda body: body["links"][1].update(name="panda_link0"), r"links\[1\].name: expected a name of its own"),
        (lambda body: body["pairs"][0].__setitem__(0, "x"), r"pairs\[0\]\[0\]: expected a link of the body"),
        (lambda body: body["pairs"][0].__setitem__(2, "x"), r"pairs\[0\]\[2\]: expected a reason"),
        (lambda body: body["pairs"].__setitem__(1, body["pairs"][0]), r"pairs\[1\]: expected every pair"),
    ],
)
def test_the_reader_in_cpp_refuses_malformed_bodies(panda, change, message):
    document = copy.deepcopy(panda.metadata)
    change(document["robot"]["body"])
    from mfik.native import load_native

    with pytest.raises(BundleError, match=message):
        load_native().Solver.from_description(json.dumps(document))


def test_documents_without_a_body_solve_as_before(panda):
    document = copy.deepcopy(panda.metadata)
    del document["robot"]["body"]
    from mfik.native import load_native

    assert not load_native().Solver.from_description(json.dumps(document)).has_body
    assert Robot.from_dict(document["robot"]).body is None


def test_shapes_in_yaml_without_pyyaml_name_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "yaml", None)
    file = tmp_path / "world"
    shape = {"type": "sphere", "radius": 0.1, "pose": [1, 0, 0, 1, 0, 0, 0], "name": "ball"}
    file.write_text(json.dumps([shape]))
    assert len(World.from_file(file)) == 1  # JSON needs nothing
    file.write_text("- type: sphere\n")
    with pytest.raises(ImportError, match=r"pip install 'mfik\[collision\]', or write JSON"):
        World.from_file(file)
