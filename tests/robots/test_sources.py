"""Robots from xacro files, by names of robot_descriptions, by groups of SRDF files; packages that files name."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pinocchio
import pytest
from cmake_project import ROOT
from programs import python

from mfik.errors import ArgumentError, MfikError, RobotError
from mfik.robots import load_robot
from mfik.robots.geometry import Shape, mesh_path
from mfik.robots.packages import package_folders
from mfik.solve import Solver

MAIN = """<robot xmlns:xacro="http://www.ros.org/wiki/xacro" name="arm">
  <xacro:arg name="length" default="0.5"/>
  <xacro:arg name="hand" default="false"/>
  <xacro:property name="length" value="$(arg length)"/>
  <xacro:include filename="$(find arm_parts)/urdf/joint.xacro"/>
  <link name="base"/>
  <xacro:turn name="one" parent="base" z="${length}" angle="${pi / 6}"/>
  <xacro:turn name="two" parent="one" z="${2 * length}" angle="${-pi / 2}"/>
  <xacro:if value="$(arg hand)"><xacro:turn name="hand" parent="two" z="0.1" angle="0"/></xacro:if>
</robot>"""
PART = """<robot xmlns:xacro="http://www.ros.org/wiki/xacro">
  <xacro:macro name="turn" params="name parent z angle">
    <link name="${name}"/>
    <joint name="to_${name}" type="revolute"><parent link="${parent}"/><child link="${name}"/>
      <origin xyz="0.1 0 ${z}" rpy="${angle} 0 0.2"/><axis xyz="0 1 0"/>
      <limit lower="-1" upper="${radians(90)}"/></joint>
  </xacro:macro>
</robot>"""


@pytest.fixture
def xacro_file(tmp_path, monkeypatch):
    """Return a file and the folder of the package that it includes a part of."""
    for name in ("ROS_PACKAGE_PATH", "AMENT_PREFIX_PATH"):
        monkeypatch.delenv(name, raising=False)
    part = tmp_path / "install" / "share" / "arm_parts" / "urdf" / "joint.xacro"
    part.parent.mkdir(parents=True)
    part.write_text(PART)
    file = tmp_path / "robots" / "arm.urdf.xacro"
    file.parent.mkdir()
    file.write_text(MAIN)
    return file, tmp_path / "install" / "share"


def test_xacro_files_are_expanded_as_the_program_xacro_does(xacro_file, tmp_path):
    file, share = xacro_file
    robot = load_robot(file, xacro_args={"length": 0.4, "hand": True}, package_paths=[share])
    assert robot.joint_names == ("to_one", "to_two", "to_hand") and robot.name == "arm"
    # The same numbers written by hand, read by Pinocchio.
    joints = [("base", "one", 0.4, np.pi / 6), ("one", "two", 0.8, -np.pi / 2), ("two", "hand", 0.1, 0.0)]
    text = "".join(
        f'<link name="{b}"/><joint name="to_{b}" type="revolute"><parent link="{a}"/><child link="{b}"/>'
        f'<origin xyz="0.1 0 {z!r}" rpy="{angle!r} 0 0.2"/><axis xyz="0 1 0"/>'
        f'<limit lower="-1" upper="1.5707963267948966" effort="1" velocity="1"/></joint>'
        for a, b, z, angle in joints
    )
    model = pinocchio.buildModelFromXML(f'<robot name="arm"><link name="base"/>{text}</robot>')
    data, hand = model.createData(), model.getFrameId("hand")
    np.testing.assert_allclose(robot.upper, model.upperPositionLimit, atol=1e-12)
    for q in robot.sample(1000, np.random.default_rng(0)):
        pinocchio.framesForwardKinematics(model, data, q)
        pose = robot.fk(q)
        np.testing.assert_allclose(pose[:3], data.oMf[hand].translation, atol=1e-9)
        quat = pinocchio.Quaternion(data.oMf[hand].rotation).coeffs()[[3, 0, 1, 2]]
        assert abs(abs(quat @ pose[3:]) - 1) < 1e-12


@pytest.mark.parametrize(
    "way", ["package_paths", "the package itself", "ROS_PACKAGE_PATH", "AMENT_PREFIX_PATH", "above"]
)
def test_packages_are_found(xacro_file, monkeypatch, way):
    file, share = xacro_file
    (share / "arm_parts" / "part.stl").write_text("")
    given = {"package_paths": [share], "the package itself": [share / "arm_parts"]}.get(way, [])
    if way == "ROS_PACKAGE_PATH":
        monkeypatch.setenv(way, os.pathsep.join(["/nowhere", str(share)]))
    elif way == "AMENT_PREFIX_PATH":
        monkeypatch.setenv(way, str(share.parent))
    elif way == "above":
        shutil.copytree(share / "arm_parts", file.parent.parent / "arm_parts")
    assert load_robot(file, package_paths=given).dof == 2
    mesh = Shape("mesh", np.eye(4), (1.0, 1.0, 1.0), "package://arm_parts/part.stl")
    assert mesh_path(mesh, file.parent, given).is_file()


def test_given_folders_come_before_those_above_and_those_before_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("ROS_PACKAGE_PATH", "/ros")
    monkeypatch.setenv("AMENT_PREFIX_PATH", "/ament")
    folders = [str(place) for place in package_folders("p", tmp_path, [Path("/given")])]
    assert folders[0] == "/given/p" and folders[-2:] == ["/ros/p", "/ament/share/p"]
    assert folders[1:3] == [str(tmp_path / "p"), str(tmp_path.parent / "p")]


# case: (what is replaced in the file, by what, keyword arguments, words that the message must hold)
XACRO_ERRORS = {
    "missing-package": ("arm_parts", "arm_pieces", {}, ["package 'arm_pieces'", "package_paths", "ROS_PACKAGE_PATH"]),
    "missing-argument": (
        '<xacro:arg name="length" default="0.5"/>',
        "",
        {},
        ["xacro cannot expand it", "length", "xacro_args"],
    ),
    "bad-expression": ("${2 * length}", "${2 * leng}", {}, ["xacro cannot expand it", "leng", "correct it"]),
    "unknown-macro": ("xacro:turn", "xacro:twist", {}, ["xacro cannot expand it", "twist"]),
    "missing-include": ("joint.xacro", "joints.xacro", {}, ["xacro cannot expand it", "joints.xacro"]),
    "malformed": ("</robot>", "", {}, ["malformed XML"]),
    "no-mapping": ("", "", {"xacro_args": ["a"]}, ["xacro_args: expected values by name", "dictionary"]),
    "no-folder": ("", "", {"package_paths": ["/nowhere"]}, ["package_paths: expected folders", "'/nowhere'"]),
    "no-list": ("", "", {"package_paths": "/tmp"}, ["package_paths: expected a list", "'/tmp'", "list"]),
}


@pytest.mark.parametrize("case", XACRO_ERRORS)
def test_what_is_wrong_with_a_xacro_file_is_named(xacro_file, capfd, case):
    old, new, options, words = XACRO_ERRORS[case]
    file, share = xacro_file
    file.write_text(MAIN.replace(old, new) if old else MAIN)
    with pytest.raises((RobotError, ArgumentError)) as caught:
        load_robot(file, **{"package_paths": [share], **options})
    for word in words:
        assert word in str(caught.value), str(caught.value)


def test_arguments_are_for_xacro_files_alone(tmp_path):
    for robot in ("panda", ROOT / "examples" / "gantry.urdf"):
        with pytest.raises(ArgumentError, match=r"xacro_args: expected none, as .* is no .xacro file, got a"):
            load_robot(robot, xacro_args={"a": 1})


@pytest.fixture
def cache(tmp_path, monkeypatch, example_robots):
    """Return the folder where robot_descriptions keeps repositories, empty."""
    pytest.importorskip("robot_descriptions")
    monkeypatch.setenv("ROBOT_DESCRIPTIONS_CACHE", str(tmp_path / "cache"))
    for name in [name for name in sys.modules if name.startswith("robot_descriptions.") and "_description" in name]:
        if not name.startswith("robot_descriptions._"):
            monkeypatch.delitem(sys.modules, name)
    yield tmp_path / "cache"
    for name in ("panda_description", "panda_mj_description", "fr3_description"):
        sys.modules.pop(f"robot_descriptions.{name}", None)


def test_robots_of_robot_descriptions_are_read_from_disk_and_never_downloaded(cache, example_robots):
    with pytest.raises(
        RobotError, match="'panda_description': expected its files in .*/cache/example-robot-data, found"
    ) as caught:
        load_robot("panda_description")
    assert "python -m robot_descriptions pull panda_description" in str(caught.value)
    assert not cache.exists()
    folder = cache / "example-robot-data" / "robots" / "panda_description"
    folder.mkdir(parents=True)
    with pytest.raises(RobotError, match=r"panda.urdf, which robot_descriptions names, found no such file; fetch"):
        load_robot("panda_description")
    for part in ("urdf", "srdf"):
        shutil.copytree(example_robots / "panda_description" / part, folder / part)
    robot = load_robot("panda_description", "panda_link0", "panda_link8")
    assert (
        robot.dof == 7
        and robot.fingerprint()
        == load_robot(folder / "urdf" / "panda.urdf", "panda_link0", "panda_link8").fingerprint()
    )
    # Its SRDF file is known, too.
    arm = load_robot("panda_description", group="arm")
    assert (arm.base_link, arm.tip_link) == ("panda_link0", "panda_link7")


def test_mjcf_of_robot_descriptions_is_read(cache):
    folder = cache / "mujoco_menagerie" / "franka_emika_panda"
    folder.mkdir(parents=True)
    (folder / "panda.xml").write_text(
        '<mujoco><worldbody><body name="a"><joint name="j" range="-1 1"/><geom size="0.1"/></body></worldbody></mujoco>'
    )
    assert load_robot("panda_mj_description").joint_names == ("j",)


def test_xacro_of_robot_descriptions_is_read_with_arguments(cache):
    folder = cache / "franka_description" / "robots" / "fr3"
    folder.mkdir(parents=True)
    (folder / "fr3.urdf.xacro").write_text(
        MAIN.replace(
            '<xacro:include filename="$(find arm_parts)/urdf/joint.xacro"/>',
            PART[PART.index("<xacro:macro") : PART.index("</robot>")],
        )
    )
    assert load_robot("fr3_description", xacro_args={"hand": "true"}).dof == 3


def test_unknown_names_say_what_is_near():
    pytest.importorskip("robot_descriptions")
    with pytest.raises(RobotError, match="robot_descriptions has no 'pandda_description'; see .*panda_description"):
        load_robot("pandda_description")


@pytest.mark.parametrize(
    "package, robot, extra",
    [
        ("xacro", "r.xacro", "xacro"),
        ("mujoco", "r.xml", "mjcf"),
        ("robot_descriptions", "panda_description", "descriptions"),
    ],
)
def test_a_missing_package_is_named_with_its_extra(tmp_path, monkeypatch, package, robot, extra):
    (tmp_path / "r.xacro").write_text(MAIN)
    (tmp_path / "r.xml").write_text("<mujoco/>")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(ImportError, match=rf"need {package} .*pip install 'mfik\[{extra}\]'"):
        load_robot(robot)


def test_nothing_optional_is_imported_for_urdf_files():
    code = "import sys, mfik.solve; from mfik.robots import load_robot; load_robot('panda')\n"
    code += "print(sorted({'xacro', 'mujoco', 'robot_descriptions', 'torch', 'trimesh', 'yaml'} & set(sys.modules)))"
    out = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert out.stdout == "[]\n", out.stdout + out.stderr


TREE = """<robot name="r"><link name="base"/><link name="l1"/><link name="l2"/><link name="l3"/><link name="tool"/>
  <link name="camera"/><link name="f1"/><link name="f2"/>
  <joint name="j1" type="revolute"><parent link="base"/><child link="l1"/><limit lower="-1" upper="1"/></joint>
  <joint name="j2" type="revolute"><parent link="l1"/><child link="l2"/><limit lower="-1" upper="1"/></joint>
  <joint name="j3" type="revolute"><parent link="l2"/><child link="l3"/><limit lower="-1" upper="1"/></joint>
  <joint name="flange" type="fixed"><parent link="l3"/><child link="tool"/></joint>
  <joint name="mount" type="fixed"><parent link="l3"/><child link="camera"/></joint>
  <joint name="left" type="prismatic"><parent link="tool"/><child link="f1"/><limit lower="0" upper="1"/></joint>
  <joint name="right" type="prismatic"><parent link="tool"/><child link="f2"/><limit lower="0" upper="1"/></joint>
</robot>"""
# group: its elements, and the ends or the words of the message
GROUPS = {
    "chain": ('<chain base_link="l1" tip_link="tool"/>', ("l1", "tool")),
    "joints": ('<joint name="j3"/><joint name="j1"/><joint name="j2"/>', ("base", "l3")),
    "joints-fixed": ('<joint name="j2"/><joint name="j3"/><joint name="flange"/>', ("l1", "tool")),
    "links": ('<link name="base"/><link name="l1"/><link name="l2"/>', ("base", "l2")),
    "nested": ('<group name="chain"/><joint name="j1"/>', ("base", "l3")),
    "two-chains": ('<chain base_link="base" tip_link="l1"/><chain base_link="l1" tip_link="l3"/>', ("base", "l3")),
    "fingers": ('<joint name="left"/><joint name="right"/>', "on different branches, so it is no chain"),
    "gap": ('<joint name="j1"/><joint name="j3"/>', "joint 'j2' moves between its joints, but is none of them"),
    "ends": ('<joint name="j3"/><joint name="flange"/><joint name="mount"/>', "ends in several links, camera, tool"),
    "still": ('<joint name="flange"/>', "none of its joints moves"),
    "empty": ("", "none of its joints moves"),
    "unknown-joint": ('<joint name="j9"/>', "<joint name>: expected one of flange, j1"),
    "unknown-link": ('<chain base_link="base" tip_link="hand"/>', "<chain tip_link>: expected one of base, camera"),
    "unknown-group": ('<group name="no"/>', "<group name>: expected one of chain"),
    "circle": ('<group name="circle"/>', "groups circle -> circle contain each other"),
}  # fmt: skip


@pytest.fixture
def grouped(tmp_path):
    urdf, srdf = tmp_path / "r.urdf", tmp_path / "r.srdf"
    urdf.write_text(TREE)
    groups = "".join(f'<group name="{name}">{inner}</group>' for name, (inner, _) in GROUPS.items())
    srdf.write_text(f'<robot name="r">{groups}</robot>')
    return urdf, srdf


@pytest.mark.parametrize("group", GROUPS)
def test_groups_are_chains_or_are_refused(grouped, group):
    urdf, srdf = grouped
    expected = GROUPS[group][1]
    if isinstance(expected, tuple):
        robot = load_robot(urdf, group=group, srdf=srdf)
        found = (robot.base_link, robot.tip_link)
        # A chain in a group adds its moving joints and its fixed ones.
        assert found == (("base", "tool") if group == "nested" else expected)
    else:
        with pytest.raises(ArgumentError, match=re.escape(expected)) as caught:
            load_robot(urdf, group=group, srdf=srdf)
        assert str(caught.value).startswith(f"group: '{group}' of {srdf}")


def test_groups_that_are_not_there_are_named(grouped):
    urdf, srdf = grouped
    with pytest.raises(
        ArgumentError, match=r"group: expected a group of .*r.srdf, got 'arm'; use one of chain, circle"
    ):
        load_robot(urdf, group="arm", srdf=srdf)
    with pytest.raises(ArgumentError, match=r"group: expected an SRDF file with group 'arm', got none; give srdf"):
        load_robot(urdf, group="arm")
    srdf.write_text("<robot/>")
    with pytest.raises(ArgumentError, match="use one of none: it has no <group>"):
        load_robot(urdf, group="arm", srdf=srdf)


def test_links_given_beside_a_group_come_first(grouped):
    urdf, srdf = grouped
    robot = load_robot(urdf, group="joints", srdf=srdf, tip_link="tool")
    assert (robot.base_link, robot.tip_link) == ("base", "tool")


def test_groups_of_a_real_robot(example_robots):
    folder = example_robots / "panda_description"
    robot = load_robot(folder / "urdf" / "panda.urdf", group="arm", srdf=folder / "srdf" / "panda.srdf")
    assert robot.dof == 7 and robot.base_link == "panda_link0"


def test_srdf_is_expanded_with_the_arguments_of_the_robot(grouped):
    urdf, srdf = grouped
    macro = srdf.with_name("r.srdf.xacro")
    macro.write_text(
        '<robot name="r" xmlns:xacro="http://www.ros.org/wiki/xacro"><xacro:arg name="tip" default="hand"/>'
        '<xacro:property name="tip" value="$(arg tip)"/>'
        '<group name="arm"><chain base_link="base" tip_link="${tip}"/></group>'
        '<xacro:if value="true"><disable_collisions link1="base" link2="${tip}"/></xacro:if></robot>'
    )
    described = urdf.with_name("r.urdf.xacro")
    described.write_text(TREE)
    robot = load_robot(
        described, group="arm", srdf=macro, xacro_args={"tip": "tool"},
        spheres={name: [[0, 0, 0, 0.01]] for name in ("base", "tool")},
    )  # fmt: skip
    assert robot.tip_link == "tool"
    (pair,) = robot.body.pairs
    assert {pair.first, pair.second} == {"base", "tool"} and pair.reason == "disabled"
    with pytest.raises(ArgumentError, match=r"<chain tip_link>: expected one of .*, got 'hand'"):
        load_robot(described, group="arm", srdf=macro)
    macro.write_text(macro.read_text().replace('value="$(arg tip)"', 'value="${nothing}"'))
    with pytest.raises(ArgumentError, match=r"^srdf: \S*r.srdf.xacro: xacro cannot expand it .*nothing"):
        load_robot(described, group="arm", srdf=macro)


def test_a_group_may_have_mimic_joints(tmp_path):
    (tmp_path / "r.urdf").write_text(
        '<robot name="r"><link name="a"/><link name="b"/><link name="c"/>'
        '<joint name="j" type="revolute"><parent link="a"/><child link="b"/><limit lower="-1" upper="1"/></joint>'
        '<joint name="k" type="revolute"><parent link="b"/><child link="c"/><origin xyz="1 0 0"/><mimic joint="j"/>'
        '<limit lower="-1" upper="1"/></joint></robot>'
    )
    (tmp_path / "r.srdf").write_text(
        '<robot name="r"><group name="finger"><joint name="j"/><joint name="k"/></group>'
        '<disable_collisions link1="a" link2="b"/></robot>'
    )
    robot = load_robot(tmp_path / "r.urdf", group="finger", srdf=tmp_path / "r.srdf")
    assert robot.dof == 1 and (robot.base_link, robot.tip_link) == ("a", "c")
    with pytest.raises(ArgumentError, match=r"^srdf: \S*none.srdf: cannot read the file"):
        load_robot(tmp_path / "r.urdf", srdf=tmp_path / "none.srdf")


def test_scripts_take_groups_arguments_packages_and_spheres(grouped, xacro_file, tmp_path):
    urdf, srdf = grouped

    def export(*arguments):
        command = [python(), ROOT / "scripts" / "export.py", *arguments]
        return subprocess.run(command, capture_output=True, text=True)

    out = export("--robot", urdf, "--group", "joints", "--srdf", srdf, "--output", tmp_path / "a")
    assert out.returncode == 0 and "r, 3 joints" in out.stdout, out.stderr
    spheres = tmp_path / "spheres.yml"
    spheres.write_text("collision_spheres: {tool: [{center: [0, 0, 0], radius: 0.1}]}")
    out = export("--robot", urdf, "--tip_link", "tool", "--spheres", spheres, "--output", tmp_path / "with_spheres")
    assert out.returncode == 0, out.stderr
    assert [link.name for link in Solver.load(tmp_path / "with_spheres").robot.body.links] == ["tool"]
    file, share = xacro_file
    arm = ["--robot", file, "--output", tmp_path / "b", "--package_paths", share]
    out = export(*arm, "--xacro_args", "hand:=true", "length:=0.3")
    assert out.returncode == 0 and "arm, 3 joints" in out.stdout, out.stderr
    for arguments, words in (
        (["--xacro_args", "hand"], "--xacro_args: expected NAME:=VALUE, got 'hand'; write it so"),
        (["--group", "arm"], "group: expected an SRDF file with group 'arm', got none"),
    ):
        out = export(*arm, "--overwrite", *arguments)
        assert out.returncode == 2 and words in out.stderr and len(out.stderr.splitlines()) == 1, out.stderr


def test_every_problem_is_an_error_of_mfik():
    for name in ("arm_description/", "no/such_description", "", "."):
        with pytest.raises(MfikError):
            load_robot(name)
