"""URDF reader: what it folds, and what it refuses."""

from __future__ import annotations

import json
import math
import re
import time
from pathlib import Path

import pytest
import torch

import mfik.robots
from mfik.errors import RobotError
from mfik.kinematics import quat_rotate
from mfik.robots import load_robot

LIMIT = '<limit lower="-1" upper="1"/>'


def link(*names: str) -> str:
    return "".join(f'<link name="{name}"/>' for name in names)


def joint(name: str, parent: str, child: str, inner: str = LIMIT, kind: str = "revolute") -> str:
    return f'<joint name="{name}" type="{kind}"><parent link="{parent}"/><child link="{child}"/>{inner}</joint>'


def robot(*elements: str) -> str:
    return f'<robot name="r">{"".join(elements)}</robot>'


def write(tmp_path, text: str):
    path = tmp_path / "r.urdf"
    path.write_text(text)
    return path


def load(tmp_path, text: str, base_link: str | None = None, tip_link: str | None = None):
    return load_robot(write(tmp_path, text), base_link, tip_link)


LONG = [f"l{i}" for i in range(18)]

# case: (text, base_link, tip_link, words that the message must hold)
ERRORS = {
    "malformed": ("<robot>\n<link>\n</robot>", None, None, ["malformed XML", "line 3, column", "correct"]),
    "root-element": ("<sdf/>", None, None, ["<robot>", "<sdf>", "give a URDF file"]),
    "no-link": (robot(), None, None, ["no <link>", "add"]),
    "link-name": (robot("<link/>"), None, None, ["link number 0", "no name", "add name="]),
    "joint-name": (robot(link("a"), "<joint/>"), None, None, ["joint number 0", "no name", "add name="]),
    "duplicate-link": (robot(link("a", "b", "a")), None, None, ["link 'a'", "2 times", "rename"]),
    "duplicate-joint": (
        robot(link("a", "b", "c"), joint("j", "a", "b"), joint("j", "b", "c")),
        None,
        None,
        ["joint 'j'", "2 times", "rename"],
    ),
    "unknown-parent": (
        robot(link("a", "b"), joint("j", "x", "b")),
        None,
        None,
        ["joint 'j'", "parent link 'x' does not exist", "use one of a, b"],
    ),
    "unknown-child": (
        robot(link("a", "b"), joint("j", "a", "x")),
        None,
        None,
        ["joint 'j'", "child link 'x' does not exist", "use one of a, b"],
    ),
    "no-child": (
        robot(link("a"), '<joint name="j" type="fixed"><parent link="a"/></joint>'),
        None,
        None,
        ["joint 'j'", "child link None", "use one of a"],
    ),
    "two-parents": (
        robot(link("a", "b", "c"), joint("j", "a", "c"), joint("k", "b", "c")),
        None,
        None,
        ["link 'c'", "'j'", "'k'", "remove one joint"],
    ),
    "cycle": (
        robot(link("root", "a", "b", "c"), joint("j", "a", "b"), joint("k", "b", "c"), joint("l", "c", "a")),
        "root",
        None,
        ["a -> b -> c -> a", "cycle", "remove one"],
    ),
    "self-joint": (robot(link("a"), joint("j", "a", "a")), None, None, ["a -> a", "cycle", "remove one"]),
    "two-roots": (
        robot(link("a", "b", "c"), joint("j", "a", "b")),
        None,
        None,
        ["one link without a parent", "a, c", "give base_link"],
    ),
    "unknown-type": (
        robot(link("a", "b"), joint("j", "a", "b", kind="hinge")),
        None,
        None,
        ["joint 'j'", "unknown type 'hinge'", "use one of revolute, continuous, prismatic"],
    ),
    "no-type": (
        robot(link("a", "b"), '<joint name="j"><parent link="a"/><child link="b"/></joint>'),
        None,
        None,
        ["joint 'j'", "unknown type None", "use one of"],
    ),
    "text-in-xyz": (
        robot(link("a", "b"), joint("j", "a", "b", LIMIT + '<origin xyz="0 ${h} 0"/>')),
        None,
        None,
        ["joint 'j'", "<origin xyz>", "'${h}'", "give finite numbers"],
    ),
    "infinite-rpy": (
        robot(link("a", "b"), joint("j", "a", "b", LIMIT + '<origin rpy="0 inf 0"/>')),
        None,
        None,
        ["joint 'j'", "<origin rpy>", "'inf'", "give finite numbers"],
    ),
    "two-numbers-in-rpy": (
        robot(link("a", "b"), joint("j", "a", "b", LIMIT + '<origin rpy="0 0"/>')),
        None,
        None,
        ["joint 'j'", "origin rpy", "2 values", "give three"],
    ),
    "nan-axis": (
        robot(link("a", "b"), joint("j", "a", "b", LIMIT + '<axis xyz="0 nan 1"/>')),
        None,
        None,
        ["joint 'j'", "<axis xyz>", "'nan'", "give finite numbers"],
    ),
    "four-numbers-in-axis": (
        robot(link("a", "b"), joint("j", "a", "b", LIMIT + '<axis xyz="0 0 0 1"/>')),
        None,
        None,
        ["joint 'j'", "axis xyz", "4 values", "give three"],
    ),
    "zero-axis": (
        robot(link("a", "b"), joint("j", "a", "b", LIMIT + '<axis xyz="0 0 0"/>')),
        None,
        None,
        ["joint 'j'", "axis is zero", "give the direction"],
    ),
    "no-limit": (
        robot(link("a", "b"), joint("j", "a", "b", "")),
        None,
        None,
        ["joint 'j'", "no <limit lower upper>", "add it"],
    ),
    "no-lower": (
        robot(link("a", "b"), joint("j", "a", "b", '<limit upper="1"/>', "prismatic")),
        None,
        None,
        ["joint 'j'", "no <limit lower upper>", "add it"],
    ),
    "lower-above-upper": (
        robot(link("a", "b"), joint("j", "a", "b", '<limit lower="1" upper="1"/>')),
        None,
        None,
        ["joint 'j'", "lower 1.0 >= upper 1.0", "give lower < upper"],
    ),
    "infinite-limit": (
        robot(link("a", "b"), joint("j", "a", "b", '<limit lower="-inf" upper="1"/>')),
        None,
        None,
        ["joint 'j'", "<limit lower>", "'-inf'", "give finite"],
    ),
    "text-limit": (
        robot(link("a", "b"), joint("j", "a", "b", '<limit lower="-1" upper="one"/>')),
        None,
        None,
        ["joint 'j'", "<limit upper>", "'one'", "give finite"],
    ),
    "floating-on-chain": (
        robot(link("a", "b"), joint("j", "a", "b", kind="floating")),
        None,
        None,
        ["joint 'j'", "'floating' on the chain", "choose links"],
    ),
    "planar-on-chain": (
        robot(link("a", "b"), joint("j", "a", "b", kind="planar")),
        None,
        None,
        ["joint 'j'", "'planar' on the chain", "choose links"],
    ),
    "tip-not-below-base": (
        robot(link("a", "b", "c", "d"), joint("j", "a", "b"), joint("k", "b", "c"), joint("l", "a", "d")),
        "b",
        "d",
        ["tip_link 'd' is not below base_link 'b'", "use one of", "(c)"],
    ),
    "tip-above-base": (
        robot(link("a", "b"), joint("j", "a", "b")),
        "b",
        "a",
        ["tip_link 'a' is not below base_link 'b'", "(none)", "another base_link"],
    ),
    "unknown-base": (
        robot(link("a", "b"), joint("j", "a", "b")),
        "x",
        None,
        ["base_link 'x' does not exist", "use one of a, b"],
    ),
    "unknown-tip": (
        robot(link("a", "b"), joint("j", "a", "b")),
        None,
        "x",
        ["tip_link 'x' does not exist", "use one of a, b"],
    ),
    "two-leaves": (
        robot(link("a", "b", "c"), joint("j", "a", "b"), joint("k", "a", "c")),
        None,
        None,
        ["one last link below 'a'", "b, c", "give tip_link"],
    ),
    "no-leaf": (robot(link("a")), None, None, ["one last link below 'a'", "got 0", "give tip_link"]),
    "no-moving-joint": (
        robot(link("a", "b"), joint("j", "a", "b", kind="fixed")),
        None,
        None,
        ["no moving joint from 'a' to 'b'", "choose links"],
    ),
    "same-ends": (
        robot(link("a", "b"), joint("j", "a", "b")),
        "b",
        "b",
        ["no moving joint from 'b' to 'b'", "choose links"],
    ),
    "too-many-joints": (
        robot(link(*LONG), *(joint(f"j{i}", LONG[i], LONG[i + 1]) for i in range(17))),
        None,
        None,
        ["17 moving joints from 'l0' to 'l17'", "at most 16", "choose links"],
    ),
}


@pytest.mark.parametrize("case", ERRORS)
def test_each_problem_is_named_with_file_element_and_remedy(tmp_path, case):
    text, base_link, tip_link, words = ERRORS[case]
    with pytest.raises(RobotError) as caught:
        load(tmp_path, text, base_link, tip_link)
    message = str(caught.value)
    for word in ("r.urdf", *words):
        assert word in message


@pytest.mark.parametrize("name", ["missing.urdf", "missing.xml", "folder.urdf"])
def test_unreadable_file_is_a_robot_error(tmp_path, name):
    (tmp_path / "folder.urdf").mkdir()
    with pytest.raises(RobotError, match=rf"{re.escape(name)}: cannot read the file \(.+\); check the path"):
        load_robot(tmp_path / name)


def test_paths_that_lead_nowhere_are_robot_errors(tmp_path):
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(RobotError, match="cannot read the file .*symbolic links"):
        load_robot(tmp_path / "loop" / "arm.urdf")
    with pytest.raises(RobotError, match=r"'a\\x00b.urdf': cannot read the file \(embedded null byte\)"):
        load_robot("a\0b.urdf")


def test_thousands_of_links_are_read_in_linear_time(tmp_path):
    n = 3000  # 46 s in quadratic time
    links = [f"l{i}" for i in range(n)]
    joints = [joint(f"j{i}", links[i - 1], links[i], kind="revolute" if i % 500 == 0 else "fixed") for i in range(1, n)]
    begin = time.process_time()
    arm = load(tmp_path, robot(link(*links), *joints))
    assert arm.dof == 5 and arm.tip_link == links[-1]
    assert time.process_time() - begin < 5


def test_unknown_encoding_is_a_robot_error(tmp_path):
    with pytest.raises(RobotError, match="malformed XML"):
        load(tmp_path, '<?xml version="1.0" encoding="utf-99"?><robot/>')
    with pytest.raises(RobotError, match="malformed XML"):
        load(tmp_path, '<?xml version="1.0" encoding="big5"?><robot/>')


def test_defaults_are_axis_x_identity_origin_root_and_leaf(tmp_path):
    arm = load(tmp_path, robot(link("a", "b"), joint("j", "a", "b")))
    assert (arm.name, arm.base_link, arm.tip_link, arm.joint_names) == ("r", "a", "b", ("j",))
    assert (arm.lower.tolist(), arm.upper.tolist()) == ([-1.0], [1.0])
    pose = arm.fk(torch.tensor([0.6], dtype=torch.float64))
    expected = [0, 0, 0, math.cos(0.3), math.sin(0.3), 0, 0]
    torch.testing.assert_close(pose, torch.tensor(expected, dtype=torch.float64), atol=1e-15, rtol=0)


def test_robot_without_a_name_is_named_after_its_file(tmp_path):
    text = robot(link("a", "b"), joint("j", "a", "b")).replace(' name="r"', "", 1)
    assert load(tmp_path, text).name == "r"


@pytest.mark.parametrize("axis", [(1, 0, 0), (0, -3, 0), (0, 0, 1), (0, 0, -1), (1, 2, -2), (1e-9, 0, -1)])
@pytest.mark.parametrize("kind", ["revolute", "continuous", "prismatic"])
def test_any_axis_is_normalised_and_folded(tmp_path, axis, kind):
    inner = f'{LIMIT}<origin xyz="1 2 3" rpy="0.1 0.2 0.3"/><axis xyz="{axis[0]} {axis[1]} {axis[2]}"/>'
    arm = load(tmp_path, robot(link("a", "b"), joint("j", "a", "b", inner, kind)))
    rest, moved = arm.fk(torch.tensor([[0.0], [0.7]], dtype=torch.float64))
    unit = torch.nn.functional.normalize(torch.tensor(axis, dtype=torch.float64), dim=0)
    axis_base = quat_rotate(rest[3:], unit)
    jac = arm.jacobian(torch.tensor([0.7], dtype=torch.float64))[:, 0]
    zero = torch.zeros(3, dtype=torch.float64)
    if kind == "prismatic":
        torch.testing.assert_close(moved[:3], rest[:3] + 0.7 * axis_base)
        torch.testing.assert_close(moved[3:], rest[3:])
        torch.testing.assert_close(jac, torch.cat([axis_base, zero]))
    else:
        torch.testing.assert_close(moved[:3], rest[:3])
        torch.testing.assert_close(jac, torch.cat([zero, axis_base]))
    assert arm.upper.tolist() == [math.pi if kind == "continuous" else 1.0]


def test_problems_off_the_chain_that_do_not_matter_are_accepted(tmp_path):
    text = robot(
        link("world", "a", "b", "c", "d", "e"),
        joint("w", "world", "a", kind="floating"),
        joint("j", "a", "b"),
        joint("k", "b", "c", "", "revolute"),  # no limits
        joint("l", "b", "d", LIMIT + '<mimic joint="j"/>', "prismatic"),
        joint("m", "b", "e", '<axis xyz="0 0 0"/>', "fixed"),
        '<transmission name="t"><joint name="j"><hardwareInterface/></joint></transmission>',
    )
    assert load(tmp_path, text, "a", "e").joint_names == ("j",)


def test_base_may_hang_off_the_chain_by_fixed_joints(tmp_path):
    text = robot(
        link("root", "mount", "base", "a"),
        joint("f", "root", "mount", '<origin xyz="1 0 0" rpy="0 0 1.5707963267948966"/>', "fixed"),
        joint("g", "mount", "base", '<origin xyz="0 0 1"/>', "fixed"),
        joint("j", "root", "a", LIMIT + '<axis xyz="0 0 1"/>'),
    )
    pose = load(tmp_path, text, "base", "a").fk(torch.zeros(1, dtype=torch.float64))
    half = math.sqrt(0.5)
    torch.testing.assert_close(pose, torch.tensor([0, 1, -1, half, 0, 0, -half], dtype=torch.float64))


# As PyTorch computed them, when it still read the files; fingerprints tell bundles and data files of other robots.
FINGERPRINTS = {
    ("panda", None, None): "99ce836d50a622d4076de91362d22f935ba75307a0457a941fd24cc2db1cb1b7",
    ("ur10", None, None): "48caaccad3c5db235f8407dc112e1b9a763f0cf8e5e32e059b481d7afc819417",
    ("ur10", "base", None): "9c0dee5157a3e7d1aeaa030ba09d4a7265b17e03bf04ab1553b0610e676a3672",
    ("kinova_description/robots/kinova.urdf", None, "j2s6s200_end_effector"): (
        "dd6d9ef4b5d7eb9fd859fe33707fefe8e2b02ea8e5d7723d7f5ca7539a82c4e5"
    ),
    ("panda_description/urdf/panda.urdf", None, "panda_hand_tcp"): (
        "546bc17fe857515b9d8fd99341a265ae2d0c44e9c6bde32ede3abfbcc5802808"
    ),
    ("tiago_description/robots/tiago.urdf", None, "xtion_optical_frame"): (
        "ec2e814d50260cbecbfcf886b935d1bad349f62dad7bcf386dbe7d2ebdfc1f86"
    ),
    ("ur_description/urdf/ur5_robot.urdf", None, "tool0"): (
        "985baa48465545351fb23e24f4c554e6811d161915c7d2611769501a8c5c17e4"
    ),
    ("xarm_description/urdf/xarm7.urdf", None, "link_eef"): (
        "1928a572af4f2b156553dc91e175693d7138139797b70722ce2c3a8fa3da0b65"
    ),
    ("z1_description/urdf/z1.urdf", None, "gripperMover"): (
        "a62916db7af73c74820c623df7c12f3ca424b07499a3166ba1d7d47f96603601"
    ),
}


@pytest.mark.parametrize("case", FINGERPRINTS, ids=lambda case: case[0].rpartition("/")[2])
def test_fingerprints_never_change(example_robots, case):
    name, base_link, tip_link = case
    path = example_robots / name if "/" in name else name
    assert load_robot(path, base_link, tip_link).fingerprint() == FINGERPRINTS[case]


@pytest.mark.parametrize("name", ["panda", "ur10"])
def test_documents_are_those_in_the_bundles_that_ship(name):
    content = (Path(mfik.robots.__file__).parents[1] / "models" / name / "model.safetensors").read_bytes()
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    shipped, read = json.loads(header["__metadata__"]["mfik"])["robot"], load_robot(name).to_dict()
    assert read["tool"] == pytest.approx(shipped["tool"], rel=0, abs=1e-15)  # another libm may change the last bit
    for one, other in zip(read["joints"], shipped["joints"], strict=True):
        assert one["origin"] == pytest.approx(other["origin"], rel=0, abs=1e-15)
        assert {**one, "origin": None} == {**other, "origin": None}
    ends = ("name", "base_link", "tip_link")
    assert list(read) == list(shipped)
    for document in (read, shipped):  # exact through JSON (tests/collision/test_body.py), but for another libm
        document["body"] = [(link["name"], link["spheres"]) for link in document["body"]["links"]]
    assert read["body"] == shipped["body"]
    assert [read[key] for key in ends] == [shipped[key] for key in ends]
