"""Mimic joints: read from URDF files, and forward kinematics that Pinocchio agrees with."""

import copy
import json
import pickle

import numpy as np
import pinocchio
import pytest
import torch
from mimic_judge import ROBOTS, MimicJudge

from mfik.collision import Body, Link
from mfik.errors import RobotError
from mfik.kinematics import Chain
from mfik.robots import Robot, load_robot

pytest.importorskip("mfik._native", reason="needs the native extension: pip install -e .", exc_type=ImportError)

LINKS = "".join(f'<link name="{name}"/>' for name in "abcdef")


def joint(name: str, parent: str, child: str, inner: str = "", kind: str = "revolute", low=-1.0, high=1.0) -> str:
    return (
        f'<joint name="{name}" type="{kind}"><parent link="{parent}"/><child link="{child}"/>'
        f'<origin xyz="0.1 0.2 0.3" rpy="0.3 0.2 0.1"/><axis xyz="1 2 3"/>'
        f'<limit lower="{low}" upper="{high}" velocity="2"/>{inner}</joint>'
    )


def load(tmp_path, *joints: str, tip: str = "c", **options) -> Robot:
    path = tmp_path / "r.urdf"
    path.write_text(f'<robot name="r">{LINKS}{"".join(joints)}</robot>')
    return load_robot(path, "a", tip, **options)


@pytest.mark.parametrize("name", ROBOTS)
def test_kinematics_agree_with_pinocchio(example_robots, name):
    judge = MimicJudge(example_robots, name)
    robot = judge.robot
    assert (robot.dof, len(robot.chain.kinds)) == ROBOTS[name][3:5]
    assert len(robot.kinds) == len(robot.joint_names) == robot.dof
    for q in robot.sample(50, np.random.default_rng(0)):
        tool, J = judge.tool(q)
        x, y, z, qx, qy, qz, qw = pinocchio.SE3ToXYZQUAT(tool)
        pose = robot.fk(q)
        np.testing.assert_allclose(pose[:3], [x, y, z], atol=1e-12)
        assert abs(abs(pose[3:] @ [qw, qx, qy, qz]) - 1) < 1e-12
        np.testing.assert_allclose(robot.jacobian(q), J, atol=1e-12)


@pytest.mark.parametrize("kind", ["revolute", "prismatic"])
def test_a_mimic_joint_moves_by_multiplier_times_its_joint_plus_offset(tmp_path, kind):
    mimic = '<mimic joint="j" multiplier="-0.5" offset="0.2"/>'
    plain = load(tmp_path, joint("j", "a", "b"), joint("k", "b", "c", kind=kind))
    robot = load(tmp_path, joint("j", "a", "b"), joint("k", "b", "c", mimic, kind=kind))
    assert robot.joint_names == ("j",) and plain.joint_names == ("j", "k")
    q = np.linspace(-1, 1, 7)[:, None]
    both = np.hstack([q, 0.2 - 0.5 * q])
    np.testing.assert_allclose(robot.fk(q), plain.fk(both), atol=1e-14)
    J = plain.jacobian(both)
    np.testing.assert_allclose(robot.jacobian(q)[:, :, 0], J[:, :, 0] - 0.5 * J[:, :, 1], atol=1e-14)


def test_limits_and_velocities_of_mimic_joints_bound_their_joint(tmp_path):
    mimic = '<mimic joint="j" multiplier="-4" offset="0.2"/>'
    robot = load(tmp_path, joint("j", "a", "b"), joint("k", "b", "c", mimic))
    np.testing.assert_allclose([robot.lower[0], robot.upper[0]], [-0.2, 0.3])  # (1 - 0.2) / -4, (-1 - 0.2) / -4
    assert robot.velocity[0] == 0.5


def test_the_first_that_follows_a_joint_off_the_chain_is_a_joint_of_the_chain(tmp_path):
    first = '<mimic joint="j" multiplier="2" offset="0.1"/>'
    second = '<mimic joint="j" multiplier="-1"/>'
    robot = load(tmp_path, joint("j", "a", "f"), joint("k", "a", "b", first), joint("l", "b", "c", second), tip="c")
    plain = load(tmp_path, joint("j", "a", "f"), joint("k", "a", "b"), joint("l", "b", "c"), tip="c")
    assert robot.joint_names == ("k",)
    np.testing.assert_allclose([robot.lower[0], robot.upper[0]], [-1, 1])
    j = np.linspace(-0.5, 0.4, 5)[:, None]
    np.testing.assert_allclose(robot.fk(2 * j + 0.1), plain.fk(np.hstack([2 * j + 0.1, -j])), atol=1e-14)


def test_mimic_joints_may_follow_mimic_joints(tmp_path):
    robot = load(
        tmp_path,
        joint("j", "a", "b"),
        joint("k", "b", "c", '<mimic joint="j" multiplier="0.5" offset="0.1"/>'),
        joint("l", "c", "d", '<mimic joint="k" multiplier="-1" offset="0.3"/>'),
        tip="d",
    )
    plain = load(tmp_path, joint("j", "a", "b"), joint("k", "b", "c"), joint("l", "c", "d"), tip="d")
    q = np.linspace(-1, 1, 5)[:, None]
    k = 0.5 * q + 0.1
    np.testing.assert_allclose(robot.fk(q), plain.fk(np.hstack([q, k, 0.3 - k])), atol=1e-14)


def test_a_mimic_of_a_fixed_joint_is_ignored(tmp_path):
    mimic = '<mimic joint="j" multiplier="2" offset="1"/>'
    with_mimic = load(tmp_path, joint("j", "a", "b"), joint("k", "b", "c", mimic, kind="fixed"))
    without = load(tmp_path, joint("j", "a", "b"), joint("k", "b", "c", kind="fixed"))
    assert with_mimic.joint_names == ("j",) and with_mimic.fingerprint() == without.fingerprint()


@pytest.mark.parametrize(
    ("inner", "first", "words"),
    [
        ('<mimic joint="x"/>', {}, "joint 'k': <mimic> of joint 'x', which does not exist"),
        ('<mimic joint="j" multiplier="0"/>', {}, "joint 'k': <mimic> has multiplier 0; make the joint fixed"),
        ('<mimic joint="j" multiplier="fast"/>', {}, "joint 'k': <mimic multiplier> has 'fast'"),
        ('<mimic joint="k"/>', {}, "joint 'k': joints k -> k follow each other"),
        ('<mimic joint="j" offset="5"/>', {}, "joint 'k': <mimic> leaves no motion within the limits"),
        ('<mimic joint="j"/>', {"kind": "continuous"}, "joint 'k': <mimic> of 'j', which is continuous"),
        ('<mimic joint="g"/>', {}, "joint 'k': <mimic> of joint 'g', whose type is 'fixed'"),
    ],
)
def test_mimics_that_make_no_sense_are_named(tmp_path, inner, first, words):
    with pytest.raises(RobotError, match=words):
        load(tmp_path, joint("j", "a", "b", **first), joint("k", "b", "c", inner), joint("g", "a", "f", kind="fixed"))


def test_documents_copies_and_fingerprints_know_mimics(example_robots):
    robot = MimicJudge(example_robots, "romeo_finger").robot
    q = robot.sample(5, np.random.default_rng(1))
    for other in (
        Robot.from_dict(json.loads(json.dumps(robot.to_dict()))),
        copy.deepcopy(robot),
        pickle.loads(pickle.dumps(robot)),
    ):
        np.testing.assert_array_equal(other.fk(q), robot.fk(q))
        assert other.fingerprint() == robot.fingerprint()
    document = robot.to_dict()
    document["joints"][-1]["mimic"]["multiplier"] = 0.5
    assert Robot.from_dict(document).fingerprint() != robot.fingerprint()
    for multiplier in (0.0, True, "1"):
        document["joints"][-1]["mimic"]["multiplier"] = multiplier
        with pytest.raises(RobotError):
            Robot.from_dict(document)
    document["joints"][-1]["mimic"] = {"joint": "nobody", "multiplier": 1.0}
    with pytest.raises(RobotError, match="expected mimic joints of"):
        Robot.from_dict(document)


def test_what_does_not_support_mimics_says_so(example_robots, tmp_path):
    robot = MimicJudge(example_robots, "romeo_finger").robot
    with pytest.raises(RobotError, match="tensors: mimic joints are not supported"):
        robot.fk(torch.zeros(1, robot.dof))
    with pytest.raises(RobotError, match="tensors: mimic joints are not supported"):
        robot.jacobian(torch.zeros(1, robot.dof))
    with pytest.raises(RobotError, match="body: mimic joints are not supported"):
        Robot(
            robot.name, robot.base_link, robot.tip_link, robot.chain, robot.joint_names, robot.lower, robot.upper,
            body=Body((Link("hand", 1, np.eye(4)[:3], np.array([[0, 0, 0, 0.1]])),), ()),
        )  # fmt: skip
    with pytest.raises(RobotError, match="joint_positions and spheres: mimic joints are not supported"):
        load(tmp_path, joint("j", "a", "b"), joint("k", "b", "c", '<mimic joint="j"/>'), spheres={"b": [[0, 0, 0, 1]]})
    with pytest.raises(RobotError, match="mimics: expected a joint before it"):
        Chain(robot.chain.origins, robot.chain.kinds, (None,) * 9 + ((20, 1.0),))
