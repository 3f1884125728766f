"""Lines between waypoints, judged by SciPy's Slerp and Pinocchio's kinematics."""

import numpy as np
import pinocchio as pin
import pytest
from scipy.spatial.transform import Rotation, Slerp

from mfik.errors import ArgumentError
from mfik.path import deviation, interpolate
from mfik.robots import load_robot
from mfik.solve import Solver, Status

HOME = np.array([0.0, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785])
AT = [0.3, 0.1, 0.4]


def rotations(poses):
    return Rotation.from_quat(poses[:, [4, 5, 6, 3]])


def random_poses(rng, n):
    quat = Rotation.random(n, rng=rng).as_quat()[:, [3, 0, 1, 2]]
    return np.concatenate([rng.uniform(-1, 1, (n, 3)), quat * rng.choice([-1, 1], (n, 1))], axis=1)


def places_of(waypoints, dense):
    """Return the row of each waypoint, which is there as it was given."""
    rows = []
    for pose in waypoints:
        start = rows[-1] + 1 if rows else 0
        rows.append(start + int((dense[start:] == pose).all(1).argmax()))
        np.testing.assert_array_equal(dense[rows[-1]], pose)
    return rows


def test_between_waypoints_it_is_the_straight_line_and_scipys_slerp(rng):
    waypoints = random_poses(rng, 30)
    dense = interpolate(waypoints, 0.05, 0.1)
    rows = places_of(waypoints, dense)
    assert rows[0] == 0 and rows[-1] == len(dense) - 1
    for i, (a, b) in enumerate(zip(rows, rows[1:], strict=False)):
        share = np.arange(b - a + 1) / (b - a)
        line = waypoints[i, :3] + share[:, None] * (waypoints[i + 1, :3] - waypoints[i, :3])
        np.testing.assert_allclose(dense[a : b + 1, :3], line, atol=1e-14)
        wanted = Slerp([0, 1], rotations(waypoints[i : i + 2]))(share)
        assert (wanted.inv() * rotations(dense[a : b + 1])).magnitude().max() < 1e-12
        length = np.linalg.norm(waypoints[i + 1, :3] - waypoints[i, :3])
        angle = (rotations(waypoints[i : i + 1]).inv() * rotations(waypoints[i + 1 : i + 2])).magnitude()[0]
        assert b - a == max(1, np.ceil(length / 0.05), np.ceil(angle / 0.1)), "as few steps as both bounds allow"
    np.testing.assert_allclose(np.linalg.norm(dense[:, 3:], axis=1), 1, atol=1e-14)


def test_the_sign_of_a_quaternion_changes_nothing(rng):
    waypoints = random_poses(rng, 20)
    turned = waypoints.copy()
    turned[::3, 3:] *= -1
    a, b = interpolate(waypoints, 0.1, 0.2), interpolate(turned, 0.1, 0.2)
    np.testing.assert_allclose(a[:, :3], b[:, :3], atol=1e-15)
    assert (rotations(a).inv() * rotations(b)).magnitude().max() < 1e-13
    same = np.array([[*AT, 0.6, 0.8, 0, 0], [*AT, -0.6, -0.8, 0, 0]])
    np.testing.assert_array_equal(interpolate(same, 0.1, 0.1), same)


def test_a_length_of_exactly_so_many_steps_gets_no_more():
    line = np.array([[0, 0, 0, 1, 0, 0, 0], [0.3, 0, 0, 1.0, 0, 0, 0]])
    assert len(interpolate(line, 0.1, 0.1)) == 4  # 0.3 / 0.1 is 2.9999999999999996 or 3.0000000000000004


def test_one_pose_repeated_poses_and_half_a_turn():
    one = np.array([[*AT, 1, 0, 0, 0.0]])
    np.testing.assert_array_equal(interpolate(one, 0.1, 0.1), one)
    thrice = np.repeat(one, 3, axis=0)
    np.testing.assert_array_equal(interpolate(thrice, 0.1, 0.1), thrice)
    half = interpolate(np.array([[*AT, 1, 0, 0, 0], [*AT, 0, 0, 0, 1.0]]), 0.1, 0.1)
    steps = (rotations(half[:-1]).inv() * rotations(half[1:])).magnitude()
    np.testing.assert_allclose(steps, np.pi / 32, atol=1e-14)


def test_transforms_are_taken(rng):
    waypoints = random_poses(rng, 3)
    transforms = np.tile(np.eye(4), (3, 1, 1))
    transforms[:, :3, :3], transforms[:, :3, 3] = rotations(waypoints).as_matrix(), waypoints[:, :3]
    a, b = interpolate(transforms, 0.1, 0.1), interpolate(waypoints, 0.1, 0.1)
    np.testing.assert_allclose(a[:, :3], b[:, :3], atol=1e-14)
    assert (rotations(a).inv() * rotations(b)).magnitude().max() < 1e-13


@pytest.mark.parametrize(
    ("poses", "bounds", "message"),
    [
        ([[0, 0, 0, 1, 0, 0, np.nan]], (0.1, 0.1), r"poses\[0, 6\]: expected a finite number"),
        ([[0, 0, 0, 1, 0, 0, 0], [0, 0, 0, 2, 0, 0, 0]], (0.1, 0.1), r"poses\[1\]: expected a unit quaternion"),
        ([0, 0, 0, 1, 0, 0, 0], (0.1, 0.1), r"poses: expected shape \[N, 7\], got \[7\]"),
        (np.zeros((0, 7)), (0.1, 0.1), "poses: expected at least one pose"),
        (None, (0.1, 0.1), "poses: expected numbers"),
        ([[0, 0, 0, 1, 0, 0, 0]], (-0.1, 0.1), "max_translation: expected a finite number above 0, got -0.1"),
        ([[0, 0, 0, 1, 0, 0, 0]], (0.1, 0), "max_rotation: expected a finite number above 0, got 0"),
        ([[0, 0, 0, 1, 0, 0, 0]], (np.nan, 0.1), "max_translation: expected"),
        ([[0, 0, 0, 1, 0, 0, 0], [1, 0, 0, 1, 0, 0, 0]], (1e-9, 1), "max_translation: .*10,000,000 poses.*unit"),
        ([[0, 0, 0, 1, 0, 0, 0], [0, 0, 0, 0, 1, 0, 0]], (1, 1e-9), "max_rotation: .*10,000,000 poses.*unit"),
    ],
)
def test_what_is_wrong_is_named(poses, bounds, message):
    with pytest.raises(ArgumentError, match=message):
        interpolate(poses, *bounds)


def tracked(robot, poses, q):
    """Follow poses, a row of joints for each, the first of which q reaches."""
    solver, rows = Solver.from_robot(robot), [q]
    for pose in poses[1:]:
        result = solver.track(pose, rows[-1], 0.5)
        assert result.status is Status.SOLVED
        rows.append(result.q)
    return np.array(rows)


def stroke(robot, spacing):
    """A straight line of 30 cm during which the tool turns by 0.6 rad, as poses and joints."""
    start = robot.fk(HOME)
    end = start.copy()
    end[:3] += [0.1, 0.25, -0.12]
    turned = Rotation.from_rotvec([0.4, -0.3, 0.33]) * Rotation.from_quat(start[[4, 5, 6, 3]])
    end[3:] = turned.as_quat()[[3, 0, 1, 2]]
    poses = interpolate([start, end], spacing, 1.0)
    return poses, tracked(robot, poses, HOME)


def test_the_deviation_is_the_one_that_pinocchio_sees(panda, example_robots):
    poses, q = stroke(panda, 0.05)
    tool = np.array([0.02, -0.01, 0.1, *Rotation.from_rotvec([0.2, 0.5, -0.3]).as_quat()[[3, 0, 1, 2]]])
    model = pin.buildModelFromUrdf(str(example_robots / "panda_description" / "urdf" / "panda.urdf"))
    data, frame = model.createData(), model.getFrameId("panda_link8")
    T_tip_tool = pin.XYZQUATToSE3(tool[[0, 1, 2, 4, 5, 6, 3]])
    waypoints = [pin.XYZQUATToSE3(pose[[0, 1, 2, 4, 5, 6, 3]]) * T_tip_tool for pose in poses]
    ends = Rotation.from_matrix([T.rotation for T in waypoints])
    away, turned = [], []
    for i in range(len(poses) - 1):
        for share in np.linspace(0, 1, 17):
            full = pin.neutral(model)
            full[:7] = (1 - share) * q[i] + share * q[i + 1]
            pin.framesForwardKinematics(model, data, full)
            T = data.oMf[frame] * T_tip_tool
            line = (1 - share) * waypoints[i].translation + share * waypoints[i + 1].translation
            away.append(np.linalg.norm(T.translation - line))
            wanted = Slerp([0, 1], ends[i : i + 2])(share)
            turned.append((Rotation.from_matrix(T.rotation).inv() * wanted).magnitude())
    tool_poses = np.array([[*T.translation, *pin.SE3ToXYZQUAT(T)[[6, 3, 4, 5]]] for T in waypoints])
    found = deviation(panda, q, tool_poses, tool=tool)
    assert max(away) > 1e-4 and found.translation == pytest.approx(max(away), abs=1e-9)
    assert found.rotation == pytest.approx(max(turned), abs=1e-9)
    places = [i + share for i in range(len(poses) - 1) for share in np.linspace(0, 1, 17)]
    assert found.translation_at == pytest.approx(places[int(np.argmax(away))], abs=0.07)
    assert 0 < found.rotation_at < len(poses) - 1


@pytest.mark.parametrize("spacing", [0.1, 0.05, 0.02, 0.01])
def test_spacing_bounds_the_deviation(panda, spacing):
    """docs/how-to/paths.md: L d^2 / 8 and d^2 / 8, d the sum of the joints' steps, L the reach of the arm."""
    poses, q = stroke(panda, spacing)
    found = deviation(panda, q, poses)
    print(f"{1e3 * spacing:.0f} mm: {1e3 * found.translation:.4f} mm, {np.degrees(found.rotation):.5f} deg")
    step = np.abs(np.diff(q, axis=0)).sum(1).max()
    reach = np.linalg.norm(panda.chain.origins[1:, :, 3], axis=1).sum()
    assert found.translation < reach * step**2 / 8 + 1e-5 and found.rotation < step**2 / 8 + 1e-5
    if spacing == 0.1:
        halved = deviation(panda, *stroke(panda, 0.05)[::-1])
        assert found.translation / halved.translation == pytest.approx(4, rel=0.2), "half the spacing, a quarter of it"


def test_places_say_where_rows_are(panda):
    poses, q = stroke(panda, 0.05)
    share = np.linspace(0, len(q) - 1, 16 * (len(q) - 1) + 1)
    rows = np.array([np.interp(share, np.arange(len(q)), column) for column in q.T]).T
    assert deviation(panda, rows, poses, at=share)[:2] == pytest.approx(deviation(panda, q, poses)[:2], abs=1e-12)


def test_one_waypoint_deviates_by_its_error(panda):
    pose = panda.fk(HOME)
    assert deviation(panda, HOME[None], pose[None])[:2] == pytest.approx((0, 0), abs=1e-12)
    pose[0] += 0.01
    assert deviation(panda, HOME[None], pose[None]).translation == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": np.zeros((3, 7))}, r"q: expected a row for each of the 2 poses, got 3"),
        ({"q": np.zeros((2, 6))}, r"q: expected shape \[N, 7\], got \[2, 6\]"),
        ({"q": np.full((2, 7), np.inf)}, r"q\[0, 0\]: expected a finite number"),
        ({"at": [0.0, 1.5]}, "at: expected places from 0 to 1"),
        ({"at": [0.0]}, r"at: expected shape \[2\]"),
        ({"robot": "panda"}, "robot: expected a Robot"),
        ({"tool": [0, 0, 0, 2, 0, 0, 0]}, "tool: expected a unit quaternion"),
    ],
)
def test_wrong_arguments_of_the_deviation_are_named(panda, change, message):
    given = {"robot": panda, "q": np.zeros((2, 7)), "poses": np.repeat(panda.fk(np.zeros(7))[None], 2, axis=0)}
    given |= change
    with pytest.raises(ArgumentError, match=message):
        deviation(given.pop("robot"), given.pop("q"), given.pop("poses"), **given)


def test_a_robot_of_sliding_joints_only_deviates_nowhere(rng):
    robot = load_robot("examples/gantry.urdf", "world", "flange")
    slides = [i for i, kind in enumerate(robot.kinds) if kind == "prismatic"]
    q = np.repeat(robot.clamp(np.zeros(robot.dof))[None], 5, axis=0)
    q[:, slides] = robot.sample(5, rng)[:, slides]
    assert deviation(robot, q, robot.fk(q))[:2] == pytest.approx((0, 0), abs=1e-12)
