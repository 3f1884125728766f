"""Frames and meshes against other people's kinematics."""

import numpy as np
import pinocchio as pin
import pytest
import torch

from mfik.collision import Box, Capsule, Cylinder, HalfSpace, PointCloud, Sphere, World
from mfik.errors import RobotError
from mfik.robots import load_robot
from mfik.solve import Solver
from mfik.view import chain_bodies, frames, mesh_bodies, shape_mesh, sphere_bodies


@pytest.fixture(scope="module")
def tiago(example_robots):
    """A chain that begins with a sliding joint, below wheels, head and gripper that are no part of it."""
    path = example_robots / "tiago_description" / "robots" / "tiago_no_hand.urdf"
    return path, load_robot(path, "base_link", "arm_tool_link")


def test_frames_agree_with_forward_kinematics(panda, tiago, rng):
    for robot in (panda, load_robot("ur10"), tiago[1]):
        q = robot.sample(5, rng, torch.float64)
        found = frames(robot, q.numpy())
        assert found.shape == (5, robot.dof + 2, 4, 4)
        np.testing.assert_allclose(found[:, -1, :3, 3], robot.fk(q)[:, :3], atol=1e-12)
        np.testing.assert_array_equal(found[:, 0], np.tile(np.eye(4), (5, 1, 1)))
        determinants = np.linalg.det(found[..., :3, :3])
        np.testing.assert_allclose(determinants, np.ones_like(determinants), atol=1e-12)


@pytest.mark.parametrize("name", ["panda", "tiago"])
def test_meshes_stand_where_pinocchio_has_them(name, panda, tiago, example_robots, rng):
    path, robot = tiago if name == "tiago" else (example_robots / "panda_description" / "urdf" / "panda.urdf", panda)
    model = pin.buildModelFromUrdf(str(path))
    share = str(example_robots.parents[1])
    geometry = pin.buildGeomFromUrdf(model, str(path), pin.GeometryType.COLLISION, package_dirs=[share])
    q = robot.sample(1, rng, torch.float64)[0].numpy()
    full = pin.neutral(model)
    for joint, value in zip(robot.joint_names, q, strict=True):
        full[model.joints[model.getJointId(joint)].idx_q] = value
    data, placed = model.createData(), geometry.createData()
    pin.updateGeometryPlacements(model, data, geometry, placed, full)
    pin.updateFramePlacements(model, data)
    base = data.oMf[model.getFrameId(robot.base_link)].inverse()

    ours = {body.frame: [body.mesh.vertices] for body in mesh_bodies(robot, path)}
    poses = frames(robot, q)[0]
    theirs: dict[int, list[np.ndarray]] = {}
    primitives = set()  # frames with boxes or cylinders, of which Pinocchio has no vertices
    for item, placement in zip(geometry.geometryObjects, placed.oMg, strict=True):
        joint = model.names[item.parentJoint]
        while joint not in robot.joint_names and joint != "universe":
            joint = model.names[model.parents[model.getJointId(joint)]]
        frame = 0 if joint == "universe" else robot.joint_names.index(joint) + 1
        if not hasattr(item.geometry, "vertices"):
            primitives.add(frame)
            continue
        vertices = np.asarray(item.geometry.vertices())
        world = (base * placement).homogeneous
        theirs.setdefault(frame, []).append(vertices @ world[:3, :3].T + world[:3, 3])
    whole = set(theirs) - primitives
    assert len(whole) >= robot.dof - 1
    for frame in whole:
        own = np.concatenate(ours[frame]) @ poses[frame, :3, :3].T + poses[frame, :3, 3]
        np.testing.assert_allclose(own.min(0), np.concatenate(theirs[frame]).min(0), atol=1e-5)
        np.testing.assert_allclose(own.max(0), np.concatenate(theirs[frame]).max(0), atol=1e-5)


def test_a_missing_mesh_is_named(panda, example_robots, tmp_path):
    text = (example_robots / "panda_description" / "urdf" / "panda.urdf").read_text()
    (tmp_path / "panda.urdf").write_text(text)
    with pytest.raises(RobotError, match=r"mesh 'package://.*link0.stl': no such file"):
        mesh_bodies(panda, tmp_path / "panda.urdf")


def test_packages_are_found_by_their_folder(panda, example_robots, tmp_path):
    folder = tmp_path / "arm_description"
    (folder / "urdf").mkdir(parents=True)
    robots = example_robots / "panda_description"
    (folder / "meshes").symlink_to(robots / "meshes")
    text = (robots / "urdf" / "panda.urdf").read_text()
    text = text.replace("package://example-robot-data/robots/panda_description", "package://arm_description")
    (folder / "urdf" / "panda.urdf").write_text(text)
    assert len(mesh_bodies(panda, folder / "urdf" / "panda.urdf")) == panda.dof + 1


def test_no_collision_geometry_is_said(panda, tmp_path):
    from pathlib import Path

    import mfik.robots

    preset = Path(mfik.robots.__file__).parent / "urdf" / "panda.urdf"
    with pytest.raises(RobotError, match="no <collision> geometry"):
        mesh_bodies(panda, preset)


def test_a_drawn_chain_is_connected(panda, tiago):
    for robot in (panda, load_robot("ur10"), tiago[1]):
        bodies = chain_bodies(robot)
        at = frames(robot, np.zeros((1, robot.dof)))[0]
        for frame in range(robot.dof):  # a link's meshes reach from its own origin to the next one
            low, high = np.full(3, np.inf), np.full(3, -np.inf)
            for body in bodies:
                if body.frame == frame:
                    low, high = np.minimum(low, body.mesh.bounds[0]), np.maximum(high, body.mesh.bounds[1])
            following = np.linalg.inv(at[frame]) @ at[frame + 1]
            if np.linalg.norm(following[:3, 3]) > 1e-6:
                assert (low <= following[:3, 3] + 1e-9).all() and (following[:3, 3] - 1e-9 <= high).all()


def test_spheres_are_drawn_where_the_solver_has_them(panda, rng):
    solver, (q,) = Solver.from_robot(panda), panda.sample(1, rng)
    T = frames(panda, q)[0]
    bodies = [body for body in sphere_bodies(panda) if body.frame > 0]
    assert {body.frame for body in bodies} == {link.frame for link in panda.body.links} - {0}
    drawn = [body.mesh.vertices @ T[body.frame, :3, :3].T + T[body.frame, :3, 3] for body in bodies]
    for vertices in drawn:
        for vertex in vertices[:: len(vertices) // 40]:
            point = World([Sphere(1e-6, [*vertex, 1, 0, 0, 0])])
            assert solver.clearance(q, point, self_collision=False).distance < 1e-5, "a vertex is on no sphere"
    low = np.min([vertices.min(0) for vertices in drawn], axis=0)
    for axis in range(3):
        below, size = [*low, 1, 0, 0, 0], [4.0, 4.0, 4.0]
        below[axis] -= 0.5
        size[axis] = 1.0
        beyond = solver.clearance(q, World([Box(size, below)]), self_collision=False).distance
        assert -0.01 < beyond < 1e-6, "spheres reach beyond what is drawn by no more than its facets"


@pytest.mark.parametrize(
    "shape",
    [
        Sphere(0.1),
        Box([0.1, 0.2, 0.3]),
        Cylinder(0.1, 0.3),
        Capsule(0.1, 0.3),
        HalfSpace(),
        PointCloud([[0, 0, 0], [0.3, 0, 0.1]], 0.02),
    ],
    ids=lambda shape: type(shape).__name__,
)
def test_shapes_are_drawn_as_large_as_they_are(shape):
    bounds = {
        "Sphere": [[-0.1] * 3, [0.1] * 3],
        "Box": [[-0.05, -0.1, -0.15], [0.05, 0.1, 0.15]],
        "Cylinder": [[-0.1, -0.1, -0.15], [0.1, 0.1, 0.15]],
        "Capsule": [[-0.1, -0.1, -0.25], [0.1, 0.1, 0.25]],
        "HalfSpace": [[-1.0, -1.0, -0.002], [1.0, 1.0, 0.0]],
        "PointCloud": [[-0.02] * 3, [0.32, 0.02, 0.12]],
    }
    np.testing.assert_allclose(shape_mesh(shape, 2.0).bounds, bounds[type(shape).__name__], atol=4e-3)
