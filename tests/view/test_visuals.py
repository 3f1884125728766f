"""Visual meshes and their colours: against Pinocchio, from files of several kinds, and what stands for missing ones."""

import importlib.metadata

import numpy as np
import pinocchio as pin
import pytest
import trimesh
from cmake_project import ROOT

import mfik.view.visuals
from mfik.errors import RobotError
from mfik.robots import load_robot
from mfik.solve import Solver
from mfik.view import draw_robot, frames, visual_bodies
from mfik.view.visuals import MAX_TRIANGLES

URDF = {"panda": "panda_description/urdf/panda.urdf", "ur10": "ur_description/urdf/ur10_robot.urdf"}
ARM = """
<robot name="arm">
  <material name="olive"><color rgba="0.5 0.5 0 1"/></material>
  <link name="base">
    <visual><geometry><box size="0.2 0.2 0.1"/></geometry><material name="olive"/></visual>
    <collision><geometry><box size="0.2 0.2 0.1"/></geometry></collision>
  </link>
  <link name="upper">
    <visual>
      <origin xyz="0.2 0 0"/><geometry><mesh filename="{file}" scale="0.1 0.1 0.1"/></geometry>
      <material name="teal"><color rgba="0 0.5 0.5 1"/></material>
    </visual>
    <visual><geometry><sphere radius="0.05"/></geometry></visual>
  </link>
  <joint name="turn" type="continuous"><parent link="base"/><child link="upper"/><axis xyz="0 1 0"/></joint>
</robot>
"""
OLIVE, TEAL = (128, 128, 0), (0, 128, 128)


@pytest.fixture
def arm(tmp_path):
    """Write an arm whose upper link has a mesh; return its file."""

    def write(file, text=ARM):
        (tmp_path / "arm.urdf").write_text(text.format(file=file))
        return tmp_path / "arm.urdf"

    return write


def colors_of(path):
    """Return the colours of the upper link, whose sphere has none of its own."""
    return {body.color for body in visual_bodies(load_robot(path), path) if body.frame == 1} - {mfik.view.visuals._GREY}


def without(package, monkeypatch):
    find = mfik.view.visuals.find_spec
    monkeypatch.setattr("mfik.view.visuals.find_spec", lambda name: None if name == package else find(name))


@pytest.fixture(scope="module")
def whole(example_robots):
    """Bodies of the robots with all their triangles."""
    return {name: visual_bodies(load_robot(name), example_robots / URDF[name], max_triangles=10**9) for name in URDF}


@pytest.mark.parametrize("name", URDF)
def test_visual_meshes_stand_where_pinocchio_has_them(name, example_robots, whole):
    path, robot = example_robots / URDF[name], load_robot(name)
    model = pin.buildModelFromUrdf(str(path))
    share = str(example_robots.parents[1])
    geometry = pin.buildGeomFromUrdf(model, str(path), pin.GeometryType.VISUAL, package_dirs=[share])
    (q,) = robot.sample(1, np.random.default_rng(0))
    full = pin.neutral(model)
    full[: robot.dof] = q
    data, placed = model.createData(), geometry.createData()
    pin.updateGeometryPlacements(model, data, geometry, placed, full)
    pin.updateFramePlacements(model, data)
    base, theirs = data.oMf[model.getFrameId(robot.base_link)].inverse(), {}
    for item, placement in zip(geometry.geometryObjects, placed.oMg, strict=True):
        vertices = np.asarray(item.geometry.vertices()) * item.meshScale
        world, frame = (base * placement).homogeneous, min(item.parentJoint, robot.dof)  # fingers move with the last
        theirs.setdefault(frame, []).append(vertices @ world[:3, :3].T + world[:3, 3])
    poses, ours = frames(robot, q)[0], {}
    for body in whole[name]:
        T = poses[body.frame]
        ours.setdefault(body.frame, []).append(body.mesh.vertices @ T[:3, :3].T + T[:3, 3])
    assert set(ours) == set(theirs) and len(ours) == robot.dof + 1
    for frame, vertices in ours.items():
        own, their = np.concatenate(vertices), np.concatenate(theirs[frame])
        np.testing.assert_allclose(own.min(0), their.min(0), atol=1e-5)
        np.testing.assert_allclose(own.max(0), their.max(0), atol=1e-5)


def test_presets_are_drawn_with_the_meshes_of_example_robot_data(example_robots, whole):
    """What a browser gets is bounded, and looks the same: no corner of a link moves by more than 5 mm."""
    robot = Solver.pretrained("panda").robot
    bodies, note = draw_robot(robot, "panda")
    assert note == f"drawn with the visual meshes of {example_robots / URDF['panda']}"
    assert {(255, 255, 255), (64, 64, 64)} <= {body.color for body in bodies}, "white links, dark joints"
    triangles = sum(len(body.mesh.faces) for body in bodies)
    assert 0.9 * MAX_TRIANGLES < triangles < 1.1 * MAX_TRIANGLES
    for few, all_of_them in zip(bodies, whole["panda"], strict=True):
        assert (few.frame, few.color) == (all_of_them.frame, all_of_them.color)
        np.testing.assert_allclose(few.mesh.bounds, all_of_them.mesh.bounds, atol=5e-3)


def test_a_mesh_without_colours_has_that_of_its_material(arm, tmp_path):
    cube = trimesh.creation.box((1, 1, 1))
    cube.export(tmp_path / "cube.stl")
    path = arm("cube.stl")
    bodies = visual_bodies(load_robot(path), path)
    assert {body.color for body in bodies} == {OLIVE, TEAL, mfik.view.visuals._GREY}
    (mesh,) = (body.mesh for body in bodies if body.color == TEAL)
    at = frames(load_robot(path), [0.0])[0, 1]
    np.testing.assert_allclose(trimesh.transform_points(mesh.bounds, at)[[0, 1]].mean(0), [0.2, 0, 0], atol=1e-9)
    assert mesh.extents == pytest.approx([0.1, 0.1, 0.1])


@pytest.mark.parametrize("kind", ["dae", "obj", "glb", "ply"])
def test_the_colours_of_a_mesh_file_go_first(kind, arm, tmp_path):
    cubes = [trimesh.creation.box((1, 1, 1)) for _ in range(2)]
    for cube, color in zip(cubes, ([200, 30, 40, 255], [20, 60, 220, 255]), strict=True):
        if kind == "ply":
            cube.visual.vertex_colors = color
        else:
            material = trimesh.visual.material.PBRMaterial(baseColorFactor=color)
            cube.visual = trimesh.visual.TextureVisuals(uv=np.zeros((len(cube.vertices), 2)), material=material)
    cubes[1].apply_translation([2, 0, 0])
    if kind == "dae":
        (tmp_path / "cubes.dae").write_bytes(trimesh.exchange.dae.export_collada(cubes))
    else:
        scene = trimesh.util.concatenate(cubes) if kind == "ply" else trimesh.Scene(cubes)
        scene.export(tmp_path / f"cubes.{kind}")
    found = np.array(sorted(colors_of(arm(f"cubes.{kind}"))))
    np.testing.assert_allclose(found, [[20, 60, 220], [200, 30, 40]], atol=2)


def test_a_texture_becomes_few_colours(arm, tmp_path):
    image = pytest.importorskip("PIL.Image")
    pixels = np.random.default_rng(0).integers(0, 80, (8, 8, 3), dtype=np.uint8)
    pixels[..., 0] += 150
    ball = trimesh.creation.icosphere(subdivisions=3)
    uv = np.random.default_rng(1).random((len(ball.vertices), 2))
    ball.visual = trimesh.visual.TextureVisuals(uv=uv, image=image.fromarray(pixels))
    ball.export(tmp_path / "ball.glb")
    found = colors_of(arm("ball.glb"))
    assert 2 < len(found) <= 12 and all(red > 140 for red, _, _ in found)


def test_what_is_missing_is_said_and_solids_stand_for_it(arm, tmp_path, monkeypatch):
    path = arm("gone.stl")
    bodies, note = draw_robot(load_robot(path), path)
    assert note.startswith("drawn with its collision geometry: mesh 'gone.stl': no such file")
    assert [body.color for body in bodies] == [None] and bodies[0].mesh.extents == pytest.approx([0.2, 0.2, 0.1])
    path = arm("gone.stl", ARM.replace("collision", "inertial"))
    bodies, note = draw_robot(load_robot(path), path)
    assert note.startswith("drawn from its joints: mesh 'gone.stl'") and "no <collision> geometry" in note and bodies
    (tmp_path / "broken.stl").write_text("solid")
    assert "broken.stl: " in draw_robot(load_robot(path), arm("broken.stl"))[1]
    path = arm("gone.stl", ARM.replace("0 0.5 0.5 1", "0 0.5 1"))
    assert "<color rgba" in draw_robot(load_robot(path), path)[1]

    trimesh.creation.box((1, 1, 1)).export(tmp_path / "cube.dae")
    path = arm("cube.dae")
    with monkeypatch.context() as patch:
        without("collada", patch)
        assert "cube.dae: .dae files need pycollada; pip install 'mfik[viz]'" in draw_robot(load_robot(path), path)[1]
    assert draw_robot(load_robot(path), path)[1].startswith("drawn with the visual meshes")


def test_large_meshes_are_refused_or_simplified(arm, tmp_path, monkeypatch):
    trimesh.creation.icosphere(subdivisions=5).export(tmp_path / "ball.stl")
    path = arm("ball.stl")
    robot = load_robot(path)
    bodies = visual_bodies(robot, path, max_triangles=3000)
    (ball,) = (body.mesh for body in bodies if body.color == TEAL)
    assert 2000 < len(ball.faces) < 3100 and ball.extents == pytest.approx([0.2, 0.2, 0.2], rel=0.02)
    with monkeypatch.context() as patch:
        without("fast_simplification", patch)
        with pytest.raises(RobotError, match="at most 3,000 triangles, got 21,772, which fast-simplification lessens"):
            visual_bodies(robot, path, max_triangles=3000)
    monkeypatch.setattr("mfik.view.visuals._MAX_FILE_MB", 0.5)
    with pytest.raises(RobotError, match="ball.stl: expected at most 0.5 MB"):
        visual_bodies(robot, path)


def test_presets_without_example_robot_data_are_drawn_from_their_joints(monkeypatch, panda, example_robots):
    def missing(name):
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr("mfik.view.visuals.distribution", missing)
    bodies, note = draw_robot(panda)
    assert "pip install example-robot-data" in note and {body.color for body in bodies} == {None}
    monkeypatch.undo()
    longer = load_robot("panda")
    object.__setattr__(longer, "joint_names", tuple(f"j{joint}" for joint in range(7)))
    assert "has another chain" in draw_robot(longer)[1]
    gantry = load_robot(ROOT / "examples" / "gantry.urdf", "world", "flange")
    assert "no description of 'gantry' is given" in draw_robot(gantry)[1]
