"""Bodies: where links hang, spheres from URDF and YAML, pairs that are checked."""

import copy
import json
import math
import pickle

import numpy as np
import pytest

from mfik.collision import Body, Link, LinkPair, read_ignored, read_spheres, write_spheres
from mfik.collision.pairs import frame_transforms, sphere_centers
from mfik.errors import ArgumentError, RobotError
from mfik.robots import PRESETS, SPHERES, Robot, load_robot

# An arm of two joints with a camera on its base and a gripper whose finger is a joint outside the chain.
ARM = """<robot name="arm">
  <link name="world"/>
  <link name="base">{base}</link>
  <link name="camera">{ball}</link>
  <link name="upper">{ball}</link>
  <link name="lower">{ball}</link>
  <link name="tip"/>
  <link name="finger">{ball}</link>
  <joint name="stand" type="fixed"><parent link="world"/><child link="base"/><origin xyz="0 0 1"/></joint>
  <joint name="pan" type="revolute"><parent link="base"/><child link="camera"/><origin xyz="0 2 0"/>
    <axis xyz="0 0 1"/><limit lower="-1" upper="1" effort="1" velocity="1"/></joint>
  <joint name="shoulder" type="revolute"><parent link="base"/><child link="upper"/><origin xyz="0 0 1" rpy="0.3 0 0"/>
    <axis xyz="0 1 0"/><limit lower="-2" upper="2" effort="1" velocity="1"/></joint>
  <joint name="elbow" type="prismatic"><parent link="upper"/><child link="lower"/><origin xyz="1 0 0"/>
    <axis xyz="1 1 0"/><limit lower="0" upper="1" effort="1" velocity="1"/></joint>
  <joint name="flange" type="fixed"><parent link="lower"/><child link="tip"/><origin xyz="0.5 0 0"/></joint>
  <joint name="slide" type="prismatic"><parent link="tip"/><child link="finger"/><origin xyz="0 0 0.1" rpy="0 0.4 0"/>
    <axis xyz="0 0 1"/><limit lower="0" upper="0.1" effort="1" velocity="1"/></joint>
</robot>"""
BALL = """<collision><origin xyz="0.1 0.2 0.3"/><geometry><sphere radius="0.2"/></geometry></collision>"""


@pytest.fixture
def arm(tmp_path):
    path = tmp_path / "arm.urdf"
    path.write_text(ARM.format(base=BALL, ball=BALL))
    return path


def names(pairs, reason):
    return {frozenset((pair.first, pair.second)) for pair in pairs if pair.reason == reason}


def test_links_hang_where_pinocchio_puts_them(arm):
    pinocchio = pytest.importorskip("pinocchio")
    positions = {"pan": 0.7, "slide": 0.06, "stand": 3.0}
    robot = load_robot(arm, "base", "tip", joint_positions=positions)
    model = pinocchio.buildModelFromUrdf(str(arm))
    rng = np.random.default_rng(0)
    for q in robot.sample(5, rng):
        values = {**positions, **dict(zip(robot.joint_names, q, strict=True))}
        full = np.array([values[name] for name in model.names[1:]])
        data = model.createData()
        pinocchio.framesForwardKinematics(model, data, full)
        base = data.oMf[model.getFrameId("base")]
        frames = frame_transforms(robot.chain, q[None])
        for link in robot.body.links:
            placement = base.actInv(data.oMf[model.getFrameId(link.name)])
            expected = link.spheres[:, :3] @ placement.rotation.T + placement.translation
            np.testing.assert_allclose(sphere_centers(link, frames)[0], expected, atol=1e-12)


def test_frames_end_where_forward_kinematics_does():
    for name in PRESETS:
        robot = load_robot(name)
        q = robot.sample(20, np.random.default_rng(0))
        last = frame_transforms(robot.chain, q)[:, -1]
        tool = last[..., :3] @ robot.chain.origins[-1][:, 3] + last[..., 3]
        np.testing.assert_allclose(tool, robot.fk(q)[:, :3], atol=1e-12)


def test_pairs_are_named_with_their_reason(arm):
    robot = load_robot(arm, "base", "tip")
    pairs = robot.body.pairs
    assert names(pairs, "fixed") == {frozenset(p) for p in (("base", "camera"), ("lower", "finger"))}
    adjacent = (("base", "upper"), ("upper", "lower"))
    assert names(pairs, "adjacent") == {frozenset(p) for p in adjacent}
    sampled = [pair for pair in pairs if pair.reason in ("checked", "always")]
    assert all(pair.samples in (100, 1000) for pair in sampled) and len(pairs) == 10
    assert "upper, camera" in robot.body.report() or "camera, upper" in robot.body.report()


def test_links_that_fixed_joints_join_are_one_body(tmp_path):
    path = tmp_path / "arm.urdf"
    text = ARM.format(base=BALL, ball=BALL).replace('<link name="tip"/>', f'<link name="tip">{BALL}</link>')
    path.write_text(text)
    pairs = load_robot(path, "base", "tip").body.pairs
    assert frozenset(("lower", "tip")) in names(pairs, "fixed")
    assert frozenset(("upper", "tip")) in names(pairs, "adjacent"), "its body is the lower link's"


def test_a_pair_that_is_always_in_contact_is_excluded_with_its_count(tmp_path):
    path = tmp_path / "arm.urdf"
    huge = BALL.replace('"0.2"', '"5"')
    path.write_text(ARM.format(base=huge, ball=BALL))
    pair = next(p for p in load_robot(path, "base", "tip").body.pairs if {p.first, p.second} == {"base", "lower"})
    assert (pair.reason, pair.contacts, pair.samples) == ("always", 1000, 1000)


def test_never_needs_a_hundred_thousand_samples_without_contact(arm):
    robot = load_robot(arm, "base", "tip")
    assert not names(robot.sample_pairs(99_999).body.pairs, "never")
    pairs = robot.sample_pairs(100_000).body.pairs
    never = names(pairs, "never")
    assert frozenset(("base", "lower")) in never
    assert all(pair.contacts == 0 for pair in pairs if pair.reason == "never")
    assert not names(pairs, "never") & names(robot.body.pairs, "fixed")


def test_srdf_disables_pairs(arm, tmp_path):
    srdf = tmp_path / "arm.srdf"
    srdf.write_text('<robot name="arm"><disable_collisions link1="lower" link2="camera" reason="Never"/></robot>')
    robot = load_robot(arm, "base", "tip", srdf=srdf)
    assert names(robot.body.pairs, "disabled") == {frozenset(("lower", "camera"))}
    srdf.write_text('<robot name="arm"><disable_collisions link1="lower" link2="kamera"/></robot>')
    with pytest.raises(ArgumentError, match="srdf: .*'kamera' does not exist; use one of base, camera"):
        load_robot(arm, "base", "tip", srdf=srdf)
    with pytest.raises(ArgumentError, match="srdf: .*cannot read"):
        load_robot(arm, "base", "tip", srdf=tmp_path / "none.srdf")


@pytest.mark.parametrize(
    ("positions", "message"),
    [
        ({"pam": 0.1}, "joint 'pam' does not exist; use joints of elbow, flange, pan"),
        ({"elbow": 0.1}, "'elbow' is part of the chain"),
        ({"pan": math.nan}, r"joint_positions\['pan'\]: expected a finite number"),
        ({"pan": "1"}, "expected a number"),
        (["pan"], "expected values by the joints' names, got list"),
    ],
)
def test_joint_positions_are_checked(arm, positions, message):
    with pytest.raises(ArgumentError, match=message):
        load_robot(arm, "base", "tip", joint_positions=positions)


def test_other_shapes_than_spheres_make_no_body_until_spheres_are_given(arm):
    box = '<collision><geometry><box size="1 1 1"/></geometry></collision>'
    arm.write_text(ARM.format(base=box, ball=BALL))
    assert load_robot(arm, "base", "tip").body is None
    robot = load_robot(arm, "base", "tip", spheres={"lower": [[0, 0, 0, 0.1]], "base": [[0, 0, 0, 0.9]]})
    assert [link.name for link in robot.body.links] == ["base", "lower"]
    with pytest.raises(ArgumentError, match="spheres: link 'lover' does not exist"):
        load_robot(arm, "base", "tip", spheres={"lover": [[0, 0, 0, 0.1]]})


@pytest.mark.parametrize(
    ("geometry", "message"),
    [
        ('<sphere radius="-1"/>', "<sphere radius>: expected a length > 0"),
        ('<sphere radius="nan"/>', "finite numbers"),
        ('<box size="1 0 1"/>', "<box size>: expected three edges > 0"),
        ('<cylinder radius="1"/>', "<cylinder length>"),
        ('<cone radius="1"/>', "unknown shape <cone>"),
        ("<mesh/>", "no filename"),
        ("", "expected one shape"),
    ],
)
def test_malformed_geometry_is_named(arm, geometry, message):
    arm.write_text(ARM.format(base=f"<collision><geometry>{geometry}</geometry></collision>", ball=BALL))
    with pytest.raises(RobotError, match=message) as caught:
        load_robot(arm, "base", "tip")
    assert "link 'base'" in str(caught.value)


def test_spheres_travel_through_yaml(tmp_path, arm):
    pytest.importorskip("yaml")
    spheres = {"base": np.array([[0.1, -1e-9, 3.0, 0.25]]), "lower": np.array([[1 / 3, 0, 0, 1e-3], [0, 0, 0, 2.0]])}
    path = tmp_path / "spheres.yml"
    write_spheres(path, spheres, "a test")
    import yaml

    document = yaml.safe_load(path.read_text())
    assert document["collision_spheres"]["lower"][1] == {"center": [0.0, 0.0, 0.0], "radius": 2.0}
    for link, rows in read_spheres(path).items():
        np.testing.assert_array_equal(rows, spheres[link])
    base = "      base:\n      - center: [0, 0, 0.1]\n        radius: 0.2\n"
    lower = "      lower:\n      - {center: [0, 0, 0], radius: -10}\n"
    path.write_text("robot_cfg:\n  kinematics:\n    collision_spheres:\n" + base + lower)
    robot = load_robot(arm, "base", "tip", spheres=path)
    assert [link.name for link in robot.body.links] == ["base"], "a radius below 0 is cuRobo's placeholder"
    np.testing.assert_array_equal(robot.body.links[0].spheres, [[0, 0, 0.1, 0.2]])
    path.write_text("collision_spheres:\n  lower:\n  - {center: [0, 0, 0], radius: -10}\n")
    with pytest.raises(ArgumentError, match="at least one link with a sphere whose radius is above 0, got none"):
        load_robot(arm, "base", "tip", spheres=path)


def test_pairs_that_a_file_of_spheres_ignores_are_not_checked(arm, tmp_path):
    path, ball = tmp_path / "arm.yml", [[0, 0, 0, 0.1]]
    spheres = {"base": ball, "lower": ball, "camera": ball}
    write_spheres(path, spheres, ignored=[("lower", "camera")])
    assert read_ignored(path, ()) == {frozenset(("lower", "camera"))}
    robot = load_robot(arm, "base", "tip", spheres=path)
    assert names(robot.body.pairs, "disabled") == {frozenset(("lower", "camera"))}
    write_spheres(path, spheres)
    assert not names(load_robot(arm, "base", "tip", spheres=path).body.pairs, "disabled")
    rows = "collision_spheres: {base: [{center: [0, 0, 0], radius: 1}]}\n"
    held = "extra_collision_spheres: {held: 4}\nself_collision_ignore: {base: [lower, held]}\n"
    path.write_text(rows + held)
    assert load_robot(arm, "base", "tip", spheres=path).body.num_spheres == 1, (
        "of what cuRobo will hold, nothing is known"
    )
    for text, message in (
        (
            "self_collision_ignore: {base: [hand]}",
            "self_collision_ignore: link 'hand' does not exist; use links of base",
        ),
        ("self_collision_ignore: {base: lower}", r"self_collision_ignore: expected '\{link: \[links\]\}'"),
        ("self_collision_ignore: 3", r"self_collision_ignore: expected '\{link: \[links\]\}'"),
    ):
        path.write_text(rows + text)
        with pytest.raises(ArgumentError, match=message):
            load_robot(arm, "base", "tip", spheres=path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "malformed YAML"),
        ("a: 1", "expected 'collision_spheres"),
        (
            "collision_spheres: {base: [{center: [0, 0], radius: 1}]}",
            "base: expected a list of {center",
        ),
        ("collision_spheres: {base: [{center: [0, 0, 0]}]}", "expected a list of {center"),
        ("collision_spheres: {base: [{center: [0, 0, .nan], radius: 1}]}", "expected a finite centre"),
    ],
)
def test_malformed_spheres_are_named(tmp_path, text, message):
    pytest.importorskip("yaml")
    path = tmp_path / "spheres.yml"
    path.write_text(text)
    with pytest.raises(ArgumentError, match=message) as caught:
        read_spheres(path)
    assert str(path) in str(caught.value)


def test_the_body_travels_in_the_document_and_leaves_the_fingerprint_alone(arm):
    robot = load_robot(arm, "base", "tip").attach("box", [[0, 0, 0, 0.1]], pose=[0, 0, 0.2, 1, 0, 0, 0])
    document = json.loads(json.dumps(robot.to_dict()))
    again = Robot.from_dict(document)
    assert again.to_dict() == document
    without = {key: value for key, value in document.items() if key != "body"}
    assert Robot.from_dict(without).body is None
    assert Robot.from_dict(without).fingerprint() == again.fingerprint() == robot.fingerprint()
    for copied in (copy.deepcopy(robot), pickle.loads(pickle.dumps(robot))):
        assert copied.to_dict() == document


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda body: body.pop("links"), "expected key 'links'"),
        (lambda body: body["links"][0].update(frame=True), "expected int, got True"),
        (lambda body: body["links"][0].update(frame=3), "expected a frame from 0 to 2, got 3"),
        (lambda body: body["links"][0].update(transform=[1.0] * 12), "rigid transform"),
        (lambda body: body["links"][0]["spheres"][0].__setitem__(3, -1.0), "radius > 0"),
        (lambda body: body["links"][0]["spheres"][0].__setitem__(0, "1"), "expected int or float, got '1'"),
        (lambda body: body["links"].pop(), "expected every pair of the links once"),
        (lambda body: body["pairs"].pop(), "expected every pair of the links once"),
        (lambda body: body["pairs"][0].__setitem__(2, "maybe"), "expected a reason"),
    ],
)
def test_malformed_documents_are_refused(arm, change, message):
    document = json.loads(json.dumps(load_robot(arm, "base", "tip").to_dict()))
    change(document["body"])
    with pytest.raises(RobotError, match=message):
        Robot.from_dict(document)


def test_attached_objects_move_with_their_link(arm):
    robot = load_robot(arm, "base", "tip")
    pose = [0.1, 0.2, 0.3, math.sqrt(0.5), 0.0, math.sqrt(0.5), 0.0]
    held = robot.attach("box", [[0.0, 0.0, 1.0, 0.2]], pose=pose, touching=["camera"])
    q = robot.sample(3, np.random.default_rng(1))
    where = sphere_centers(held.body.links[-1], frame_transforms(held.chain, q))[:, 0]
    turned = robot.jacobian(q)  # the tool's frame, by finite motion of the tool point
    assert turned.shape == (3, 6, 2)
    from mfik.collision.poses import as_transform

    tool = np.array([as_transform("pose", p) for p in robot.fk(q)])
    expected = (tool @ as_transform("pose", pose) @ [0, 0, 1, 1])[:, :3]
    np.testing.assert_allclose(where, expected, atol=1e-12)
    assert frozenset(("camera", "box")) in names(held.body.pairs, "disabled")
    assert names(held.body.pairs, "fixed") >= {frozenset(("lower", "box")), frozenset(("finger", "box"))}
    assert held.detach("box").to_dict() == robot.to_dict()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda r: r.attach("base", [[0, 0, 0, 1]]), "name: expected a name that no link"),
        (lambda r: r.attach("box", [[0, 0, 0, 1]], link="hand"), "link: link 'hand' does not exist"),
        (lambda r: r.attach("box", [[0, 0, 0, 1]], touching=["hand"]), "touching: link 'hand' does not exist"),
        (lambda r: r.attach("box", [[0, 0, 0, 0]]), "spheres: object 'box': .*radius > 0"),
        (lambda r: r.attach("box", [[0, 0, 0, 1]], pose=[0, 0, 0, 2, 0, 0, 0]), "pose: expected a unit quaternion"),
        (lambda r: r.detach("box"), "name: link 'box' does not exist"),
        (lambda r: r.detach(["box"]), r"name: expected names of links, got \['box'\]"),
        (lambda r: r.sample_pairs(0), "samples: expected an integer"),
    ],
)
def test_what_cannot_be_attached_is_named(arm, call, message):
    with pytest.raises(ArgumentError, match=message):
        call(load_robot(arm, "base", "tip"))


def test_a_body_names_its_links_once():
    link = Link("a", 0, np.eye(4)[:3].copy(), np.array([[0, 0, 0, 1.0]]))
    with pytest.raises(RobotError, match="each name once"):
        Body((link, link), ())
    assert str(LinkPair("a", "b", "always", 99, 100)) == "a, b: always (in contact in 99 of 100 samples)"


def test_spheres_that_ship_belong_to_their_robots(example_robots):
    for name in PRESETS:
        assert load_robot(name).body.num_spheres > 20
    tiago = example_robots / "tiago_description" / "robots" / "tiago.urdf"
    body = load_robot(tiago, "torso_fixed_link", "arm_tool_link", spheres="tiago").body
    assert {link.frame for link in body.links} == set(range(9))
    assert SPHERES == ("panda", "tiago", "ur10")
    # Spheres of these meet though the meshes never do: checking them would leave a quarter of the configurations.
    disabled = {frozenset(("base_link", "upper_arm_link")), frozenset(("wrist_1_link", "wrist_3_link"))}
    assert names(load_robot("ur10").body.pairs, "disabled") == disabled
    assert len(names(body.pairs, "disabled")) == 4
