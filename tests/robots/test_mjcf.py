"""MJCF files against MuJoCo's and Pinocchio's kinematics, and what is refused."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import mujoco
import numpy as np
import pinocchio
import pytest

from mfik.errors import RobotError
from mfik.robots import Robot, load_robot

CONFIGURATIONS = 1000
TOL = 1e-9  # m, and of rotation matrices

# Nested classes and defaults, an include, degrees and Euler angles of another sequence, axes that are not unit, joints
# off their body's origin, references, several joints in a body, a free base, orientations in all their forms.
MESSY = """
<mujoco model="messy">
  <compiler angle="degree" eulerseq="ZYX" autolimits="true"/>
  <default>
    <joint range="-100 120" axis="0 0 2"/>
    <default class="a">
      <joint axis="1 2 3"/>
      <default class="b"><joint ref="30" pos="0.1 -0.2 0.3" range="-45 80"/></default>
    </default>
    <default class="rail"><joint type="slide" range="-0.2 0.5" axis="3 0 4" ref="0.1"/></default>
  </default>
  <worldbody>
    <geom type="plane" size="1 1 0.1"/>
    <body name="crate" pos="3 0 0"><freejoint/><geom size="0.1"/></body>
    <body name="base" pos="0.3 0.2 0.1" euler="10 20 30">
      <freejoint name="root"/>
      <geom size="0.05"/>
      <site name="base" pos="0.1 0 0" euler="0 0 90"/>
      <body name="one" pos="0 0 0.3" axisangle="1 1 0 40" childclass="a">
        <joint name="j1"/>
        <geom type="capsule" fromto="0 0 0 0 0 0.2" size="0.03"/>
        <body pos="0.1 0 0.2" quat="1 2 3 4">
          <joint name="j2" class="b"/>
          <joint name="slide" class="rail"/>
          <joint name="j3" class="b" axis="0 1 0"/>
          <geom type="ellipsoid" size="0.03 0.04 0.05"/>
          <frame pos="0 0.1 0" euler="0 90 0">
            <body name="two" xyaxes="0 1 0 0 0 1">
              <joint name="endless" limited="false" axis="0 -1 0"/>
              <geom type="box" size="0.02 0.03 0.04"/>
              <body name="welded" pos="0.05 0 0" zaxis="1 1 1">
                <geom type="cylinder" size="0.02 0.03" pos="0 0 0.1"/>
                <site name="tool" pos="0 0.02 0.2" euler="-15 90 5"/>
                <site name="tip" pos="0 0 0.2"/>
              </body>
            </body>
          </frame>
        </body>
      </body>
      <include file="neck.xml"/>
    </body>
  </worldbody>
</mujoco>
"""
NECK = """
<mujocoinclude>
  <body name="neck" pos="0 0 0.5"><joint name="neck" type="ball" range="0 60"/><geom size="0.02"/>
    <body name="head" pos="0 0 0.1"><joint name="nod"/><geom size="0.04"/></body>
  </body>
</mujocoinclude>
"""


def write(folder: Path, text: str, name: str = "r.xml") -> Path:
    (folder / "neck.xml").write_text(NECK)
    (folder / name).write_text(text)
    return folder / name


def body(inner: str, before: str = "", after: str = "") -> str:
    """Return a model of an arm whose first body holds some elements, between others before and after the world."""
    return f"""<mujoco>{before}<worldbody><body name="arm"><geom size="0.1"/>{inner}
        <body name="hand" pos="0 0 0.3"><joint name="wrist" axis="1 0 0" range="-90 90"/><geom size="0.05"/></body>
    </body></worldbody>{after}</mujoco>"""


def matrix(pose: np.ndarray) -> np.ndarray:
    """Return transforms [N, 4, 4] of poses [N, 7]."""
    out = np.tile(np.eye(4), (len(pose), 1, 1))
    for row, place in zip(pose, out, strict=True):
        flat = np.zeros(9)
        mujoco.mju_quat2Mat(flat, row[3:])
        place[:3, :3], place[:3, 3] = flat.reshape(3, 3), row[:3]
    return out


def mujoco_poses(path: Path, robot: Robot, q: np.ndarray, followers: dict | None = None) -> np.ndarray:
    """Return MuJoCo's T_base_tip [N, 4, 4]; other joints stand at their reference."""
    model = mujoco.MjModel.from_xml_path(str(path))
    data = mujoco.MjData(model)

    def place(link: str) -> np.ndarray:
        if mujoco.mj_name2id(model, mujoco.mjtObj.mjOBJ_BODY, link) >= 0:
            at = data.body(link)
        else:
            at = data.site(link.removeprefix("site "))
        out = np.eye(4)
        out[:3, :3], out[:3, 3] = at.xmat.reshape(3, 3), at.xpos
        return out

    poses = []
    for row in q:
        mujoco.mj_resetData(model, data)
        values = dict(zip(robot.joint_names, row.tolist(), strict=True))
        for name, value in (values | {f: rule(values) for f, rule in (followers or {}).items()}).items():
            data.joint(name).qpos[0] = value
        mujoco.mj_kinematics(model, data)
        poses.append(np.linalg.inv(place(robot.base_link)) @ place(robot.tip_link))
    return np.array(poses)


@pytest.mark.parametrize("base", ["base", "site base"])
@pytest.mark.parametrize("tip", ["tool", "welded", "two"])
def test_kinematics_are_those_of_mujoco(tmp_path, base, tip):
    path = write(tmp_path, MESSY)
    robot = load_robot(path, base, tip)
    assert robot.name == "messy" and robot.joint_names == ("j1", "j2", "slide", "j3", "endless")
    assert robot.kinds == ("revolute", "revolute", "prismatic", "revolute", "continuous")
    np.testing.assert_allclose(robot.lower[:4], [*np.radians([-100, -45]), -0.2, np.radians(-45)], atol=1e-12)
    np.testing.assert_allclose(robot.upper[:4], [*np.radians([120, 80]), 0.5, np.radians(80)], atol=1e-12)
    q = robot.sample(CONFIGURATIONS, np.random.default_rng(0))
    np.testing.assert_allclose(matrix(robot.fk(q)), mujoco_poses(path, robot, q), atol=TOL)


def test_kinematics_are_those_that_pinocchio_reads(tmp_path):
    """Without what its reader of MJCF has otherwise: references, joints beside each other, other Euler sequences."""
    text = """<mujoco><compiler angle="degree"/>
      <default><joint range="-90 120"/><default class="x"><joint axis="1 0 0"/></default></default>
      <worldbody><body name="base" pos="0.1 0 0.2" euler="0 0 30">
        <body name="one" pos="0 0.1 0.2" quat="0.8 0 0.6 0"><joint name="j1" axis="0 0 1"/>
          <body name="two" pos="0.3 0 0" axisangle="0 1 0 70"><joint name="j2" class="x"/>
            <body name="three" pos="0 0 0.2" euler="20 10 -50">
              <joint name="j3" type="slide" axis="0 1 0" range="0 0.3"/>
              <inertial pos="0 0 0" mass="1" diaginertia="1 1 1"/>
              <site name="tool" pos="0.1 0.2 0.3" quat="0.5 0.5 -0.5 0.5"/></body>
            <inertial pos="0 0 0" mass="1" diaginertia="1 1 1"/></body>
          <inertial pos="0 0 0" mass="1" diaginertia="1 1 1"/></body>
        <inertial pos="0 0 0" mass="1" diaginertia="1 1 1"/></body></worldbody></mujoco>"""
    path = write(tmp_path, text)
    robot = load_robot(path, "base", "tool")
    assert robot.joint_names == ("j1", "j2", "j3")
    model = pinocchio.buildModelFromMJCF(str(path))
    data = model.createData()
    q = robot.sample(CONFIGURATIONS, np.random.default_rng(0))
    poses = []
    for row in q:
        pinocchio.framesForwardKinematics(model, data, row)
        base, tool = (data.oMf[model.getFrameId(name)] for name in ("base", "tool"))
        poses.append(base.actInv(tool).homogeneous)
    np.testing.assert_allclose(matrix(robot.fk(q)), poses, atol=TOL)
    np.testing.assert_allclose(robot.lower[:2], model.lowerPositionLimit[:2], atol=1e-12)
    np.testing.assert_allclose(robot.upper[:2], model.upperPositionLimit[:2], atol=1e-12)
    assert (robot.lower[2], robot.upper[2]) == (0.0, 0.3)  # which Pinocchio 4.1 takes for degrees


def franka_model(folder: Path) -> Path:
    """Return franky-sim's MJCF of the FR3, with the folder that its wheel keeps the meshes in."""
    assets = Path(sysconfig.get_paths()["purelib"]) / "franky_sim" / "assets"
    if not assets.is_dir():
        pytest.skip("needs `pip install franky-sim`")
    text = (assets / "fr3.xml").read_text()
    assert 'meshdir="assets"' in text
    path = folder / "fr3.xml"
    path.write_text(text.replace('meshdir="assets"', f'meshdir="{assets / "meshes"}"'))
    return path


def test_the_fr3_of_franky_sim_is_read(tmp_path):
    path = franka_model(tmp_path)
    with pytest.raises(RobotError, match="one last link below 'world', got"):
        load_robot(path)
    robot = load_robot(path, tip_link="hand")
    assert robot.joint_names == tuple(f"fr3_joint{n}" for n in range(1, 8))
    q = robot.sample(CONFIGURATIONS, np.random.default_rng(0))
    np.testing.assert_allclose(matrix(robot.fk(q)), mujoco_poses(path, robot, q), atol=TOL)


def test_equalities_that_are_linear_are_mimics(tmp_path):
    joint = '<joint name="lift" axis="0 1 0" range="-60 60" ref="20"/>'
    rule = '<equality><joint joint1="wrist" joint2="lift" polycoef="0.1 -0.5 0 0 0"/></equality>'
    path = write(tmp_path, body(joint, after=rule))
    robot = load_robot(path)
    assert robot.joint_names == ("lift",) and robot.base_link == "world" and robot.tip_link == "hand"
    q = robot.sample(200, np.random.default_rng(0))
    followers = {"wrist": lambda values: 0.1 - 0.5 * (values["lift"] - np.radians(20))}
    np.testing.assert_allclose(matrix(robot.fk(q)), mujoco_poses(path, robot, q, followers), atol=TOL)


def test_an_equality_without_a_second_joint_holds_its_joint(tmp_path):
    joint = '<joint name="lift" axis="0 1 0" range="-60 60" ref="20" pos="0 0.1 0"/>'
    path = write(tmp_path, body(joint, after='<equality><joint joint1="lift" polycoef="0.3 0 0 0 0"/></equality>'))
    robot = load_robot(path)
    assert robot.joint_names == ("wrist",)
    q = robot.sample(200, np.random.default_rng(0))
    expected = mujoco_poses(path, robot, q, {"lift": lambda values: 0.3 + np.radians(20)})
    np.testing.assert_allclose(matrix(robot.fk(q)), expected, atol=TOL)


LIFT = '<joint name="lift" axis="0 1 0" range="-60 60"/>'
POLYNOMIAL = '<equality><joint joint1="wrist" joint2="lift" polycoef="0 1 2 0 0"/></equality>'
TWO = '<equality><joint joint1="wrist" joint2="lift"/><joint joint1="wrist" polycoef="1 0 0 0 0"/></equality>'
# case: (text, base_link, tip_link, words that the message must hold)
ERRORS = {
    "ball": (body('<joint name="shoulder" type="ball"/>'), None, None, ["joint 'shoulder'", "type 'ball' on"]),
    "free": (body('<freejoint name="root"/>'), None, None, ["joint 'root'", "'free' on the chain", "choose links"]),
    "unnamed-free": (body("<freejoint/>"), None, None, ["joint 'joint 0 of arm'", "type 'free'"]),
    "polynomial": (body(LIFT, after=POLYNOMIAL), None, None, ["joint 'wrist'", "type 'constrained' on the chain"]),
    "two-equalities": (body(LIFT, after=TWO), None, None, ["joint 'wrist'", "type 'constrained' on the chain"]),
    "slide-without-range": (
        body('<joint name="rail" type="slide"/>'), None, None, ["joint 'rail'", "MJCF: range", "add it"]),
    "same-name": (body('<joint name="wrist"/>'), None, None, ["MuJoCo cannot compile it", "wrist", "correct it"]),
    "unknown-default": (body('<joint class="no"/>'), None, None, ["MuJoCo cannot compile it", "correct it"]),
    "missing-include": (body('<include file="nowhere.xml"/>'), None, None, ["MuJoCo cannot compile it", "nowhere.xml"]),
    "unknown-base": (body(LIFT), "leg", None, ["base_link 'leg' does not exist", "use one of arm, hand"]),
    "unknown-tip": (body(LIFT), None, "leg", ["tip_link 'leg' does not exist", "use one of arm, hand"]),
    "tip-is-base": (body(LIFT), "arm", "arm", ["no moving joint from 'arm' to 'arm'", "choose links further apart"]),
    "not-mujoco": ("<sdf/>", None, None, ["<robot>", "<sdf>", "MJCF as .xml or .mjcf"]),
    "malformed": ("<mujoco>\n<worldbody>", None, None, ["malformed XML", "line 2"]),
    "height-field": (
        body('<joint name="lift" range="0 1"/>').replace("size=\"0.05\"", 'type="hfield" hfield="h"').replace(
            "<mujoco>", '<mujoco><asset><hfield name="h" nrow="2" ncol="2" size="1 1 1 1"/></asset>'),
        None, None, ["link 'hand'", "unknown shape <hfield>"]),
}  # fmt: skip


@pytest.mark.parametrize("case", ERRORS)
def test_each_problem_is_named_with_file_element_and_remedy(tmp_path, case):
    text, base, tip, words = ERRORS[case]
    path = write(tmp_path, text)
    with pytest.raises(RobotError) as caught:
        load_robot(path, base, tip)
    message = str(caught.value)
    assert message.startswith(str(path)) and "\n" not in message
    for word in words:
        assert word in message, message


def test_a_chain_below_a_free_base_or_a_ball_joint_is_fine(tmp_path):
    path = write(tmp_path, MESSY)
    assert load_robot(path, "neck", "head").joint_names == ("nod",)
    with pytest.raises(RobotError, match=r"joint 'neck': type 'ball' on the chain"):
        load_robot(path, "base", "head")
    with pytest.raises(RobotError, match=r"joint 'root': type 'free' on the chain"):
        load_robot(path, "world", "tool")
    with pytest.raises(RobotError, match="tip_link 'tool' is not below base_link 'crate'"):
        load_robot(path, "crate", "tool")


def test_spheres_are_the_body_and_excluded_pairs_are_not_checked(tmp_path):
    text = """<mujoco><worldbody>
      <geom type="box" size="1 1 1" pos="0 0 -2"/>
      <body name="crate" pos="5 0 0"><freejoint/><geom size="0.1"/></body>
      <body name="a"><geom size="0.1"/><geom size="9" contype="0" conaffinity="0"/>
        <body name="b" pos="1 0 0"><joint name="j1" range="-90 90" axis="0 1 0"/><joint name="j2" range="-90 90"/>
          <geom size="0.2" pos="0.1 0 0"/>
          <body name="c" pos="1 0 0"><joint name="j3" range="-90 90"/><geom size="0.3"/>
            <body name="d" pos="1 0 0"><joint name="j4" range="-90 90"/><geom size="0.4"/></body></body></body></body>
    </worldbody><contact><exclude body1="a" body2="d"/></contact></mujoco>"""
    robot = load_robot(write(tmp_path, text), "a", "d")
    assert {link.name: link.spheres.tolist() for link in robot.body.links} == {
        "a": [[0, 0, 0, 0.1]], "b": [[0.1, 0, 0, 0.2]], "c": [[0, 0, 0, 0.3]], "d": [[0, 0, 0, 0.4]]
    }  # fmt: skip
    reasons = {"".join(sorted((pair.first, pair.second))): pair.reason for pair in robot.body.pairs}
    assert reasons == {
        "ab": "disabled", "bc": "adjacent", "cd": "adjacent", "ad": "disabled", "ac": "checked", "bd": "checked"
    }  # fmt: skip


def test_other_geoms_are_for_fitting(tmp_path):
    trimesh = pytest.importorskip("trimesh")
    from mfik.robots.geometry import read_shapes
    from mfik.robots.meshes import link_mesh
    from mfik.robots.source import read_source

    trimesh.creation.box((0.2, 0.4, 0.6)).apply_translation((1, 2, 3)).export(tmp_path / "part.stl")
    text = body(
        '<joint name="lift" range="0 1"/><geom type="mesh" mesh="part" pos="0 0 1" euler="0 0 90"/>'
        '<geom type="mesh" mesh="part" contype="0" conaffinity="0"/>',
        before='<asset><mesh name="part" file="part.stl" scale="1 1 2"/></asset>',
    )
    path = write(tmp_path, text)
    assert load_robot(path).body is None
    source = read_source(path)
    shapes = read_shapes(path, source.root)
    assert [shape.kind for shape in shapes["arm"]] == ["sphere", "mesh"]
    # The part lies about (1, 2, 6) with its edges doubled along z; the geom turns it by a right angle about z.
    mesh = link_mesh(shapes["arm"], source)
    np.testing.assert_allclose(mesh.bounds, [[-2.2, 0.9, 6.4], [-1.8, 1.1, 7.6]], atol=1e-6)
    shapes = read_shapes(path, read_source(write(tmp_path, MESSY)).root)
    kinds = {link: [(shape.kind, *shape.size) for shape in found] for link, found in shapes.items() if found}
    assert kinds["one"] == [("capsule", 0.03, pytest.approx(0.2))]
    assert kinds["two"] == [("box", 0.04, 0.06, 0.08)]
    assert kinds["welded"] == [("cylinder", 0.02, 0.06)]
    unnamed = next(link for link in kinds if link.startswith("body "))
    assert kinds[unnamed] == [("box", 0.06, 0.08, 0.1)]
    assert "world" not in kinds
