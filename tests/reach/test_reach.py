"""Maps of reach, against what is known of arms, poses and worlds from outside."""

import numpy as np
import pytest

from mfik.collision import Box, HalfSpace, World
from mfik.errors import ArgumentError, DataError, RobotError
from mfik.kinematics.chain import Chain
from mfik.reach import ReachMap, ReachSettings, ReachStatus, map_reach, super_fibonacci
from mfik.reach.block import ReachTask
from mfik.reach.bounds import distance_bounds
from mfik.robots import Robot
from mfik.solve import Solver

FREE_ROTATION = (0, 0, 0, np.inf, np.inf, np.inf)
COARSE = ReachSettings(resolution=0.2, orientations=6)


def planar(*lengths):
    """An arm in the plane z = 0 whose joints turn without limits."""
    origins = np.tile(np.eye(3, 4), (len(lengths) + 1, 1, 1))
    origins[1:, 0, 3] = lengths
    n = len(lengths)
    names = tuple(f"joint_{i}" for i in range(n))
    chain = Chain(origins, ("continuous",) * n)
    return Robot("planar", "base", "tip", chain, names, np.full(n, -np.pi), np.full(n, np.pi))


def positions_of(found):
    return np.stack(np.meshgrid(found.x, found.y, found.z, indexing="ij"), axis=-1)


def about_z(angles):
    zero = np.zeros_like(angles)
    return np.stack([np.cos(angles / 2), zero, zero, np.sin(angles / 2)], axis=1)


def test_two_links_reach_the_ring_between_their_difference_and_their_sum():
    first, second = 0.5, 0.33
    found = map_reach(planar(first, second), ReachSettings(0.05, orientations=1, slack=FREE_ROTATION))
    p = positions_of(found)
    r, status = np.linalg.norm(p, axis=-1), found.status[0]
    flat = np.abs(p[..., 2]) < 1e-9
    assert (status[flat & (r > 0.171) & (r < 0.829)] == ReachStatus.REACHED).all()
    assert (status[(r < 0.169) | (r > 0.831)] == ReachStatus.BEYOND).all()
    assert (status[~flat] < ReachStatus.COLLIDING).all()
    reached = status == ReachStatus.REACHED
    cosine = (r[reached] ** 2 - first**2 - second**2) / (2 * first * second)
    expected = first * second * np.sqrt(1 - cosine**2)
    np.testing.assert_allclose(found.manipulability_best[reached], expected, atol=1e-4)
    np.testing.assert_array_equal(found.manipulability_best, found.manipulability_mean)


def test_three_links_reach_where_their_wrist_does():
    arm, tool = planar(0.5, 0.33, 0.1), (0.0, 0.05, 0.0, *about_z(np.array([0.7]))[0])
    angles = np.arange(8) * np.pi / 4 + 0.1
    found = map_reach(arm, ReachSettings(0.05, orientations=about_z(angles), box=(-1, -1, 0, 1, 1, 0), tool=tool))
    assert found.status.shape == (8, 41, 41, 1)
    for status, angle in zip(found.status, angles, strict=True):
        hand = angle - 0.7  # of the last link, at whose end the tool is 0.05 m to the left
        offset = 0.1 * np.array([np.cos(hand), np.sin(hand)]) + 0.05 * np.array([-np.sin(hand), np.cos(hand)])
        r = np.linalg.norm(positions_of(found)[..., :2] - offset, axis=-1)
        assert (status[(r > 0.171) & (r < 0.829)] == ReachStatus.REACHED).all()
        assert (status[(r < 0.169) | (r > 0.831)] == ReachStatus.BEYOND).all()


def test_no_configuration_is_beyond_the_bounds(any_robot):
    robot = any_robot
    q = robot.sample(20_000, np.random.default_rng(0))
    q[:2000] = np.where(np.random.default_rng(1).random((2000, robot.dof)) < 0.5, robot.lower, robot.upper)
    poses = robot.fk(q)
    w, x, y, z = poses[:, 3:].T
    R = np.array([
        [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
        [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
        [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]).transpose(2, 0, 1)  # fmt: skip
    tool = np.array([[0.0, -1.0, 0.0, 0.1], [1.0, 0.0, 0.0, -0.2], [0.0, 0.0, 1.0, 0.05], [0.0, 0.0, 0.0, 1.0]])
    for T_tip_tool in (np.eye(4), tool):
        bounds = distance_bounds(robot, T_tip_tool)
        at = poses[:, :3] + R @ T_tip_tool[:3, 3]
        assert all(bound.allows(at, R @ T_tip_tool[:3, :3], 1e-9).all() for bound in bounds)
        farthest = np.linalg.norm(at - bounds[0].base_point, axis=1).max()
        assert farthest > 0.8 * bounds[0].most, "a bound that says something"


def test_what_is_reached_is_reached_and_what_is_not_was_looked_for(panda):
    robot = panda
    task = ReachTask(robot, ReachSettings(resolution=0.1, orientations=5, tol_pos=1e-4, tol_rot=1e-3))
    solver, rng, reached, missed = Solver.from_robot(robot), np.random.default_rng(0), 0, 0.0
    for index in (0, 3):
        (status, manipulability), q = task.solve(index)
        p = positions_of_axes(task)
        quat = task.settings.quaternions[index]
        poses = np.concatenate([p, np.broadcast_to(quat, (*p.shape[:-1], 4))], axis=-1)
        there = status == ReachStatus.REACHED
        fk, q_there = robot.fk(q[there]), q[there]
        assert np.linalg.norm(fk[:, :3] - p[there], axis=1).max() < 1e-4
        assert 2 * np.arccos(np.abs(fk[:, 3:] @ quat).clip(max=1)).max() < 1e-3
        assert robot.within_limits(q_there).all() and solver.is_free(q_there).all()
        J = robot.jacobian(q_there)
        np.testing.assert_allclose(
            manipulability[there], np.linalg.svd(J, compute_uv=False).prod(axis=1), rtol=1e-4, atol=1e-7
        )
        midpoint = np.tile(0.5 * (robot.lower + robot.upper), (400, 1))
        for kind in (ReachStatus.BEYOND, ReachStatus.NOT_FOUND):
            rows = rng.choice(poses[status == kind], 400)
            solved = solver.solve_batch(rows, midpoint, throughput=True).status == 0
            assert kind != ReachStatus.BEYOND or not solved.any()
            missed += solved.mean() * (status == kind).sum()
        reached += there.sum()
    assert reached > 3000 and missed < 0.01 * reached


def positions_of_axes(task):
    return np.stack(np.meshgrid(*task.grid.axes(), indexing="ij"), axis=-1)


def test_a_half_space_is_kept_clear_of(ur10):
    robot = ur10
    wall = HalfSpace((0.5, 0, 0, *np.array([1, 0, -1, 0]) / np.sqrt(2)))  # all of x > 0.5
    world = World([wall, Box((0.3, 0.3, 0.3), (0, 0.7, 0.5, 1, 0, 0, 0), "box")])
    settings = ReachSettings(resolution=0.15, orientations=4, margin=0.03)
    task, free = ReachTask(robot, settings, world), map_reach(robot, settings)
    solver = Solver.from_robot(robot)
    found = map_reach(robot, settings, world=world)
    reached = found.status == ReachStatus.REACHED
    assert reached.sum() > 500 and not reached[:, found.x > 0.5].any()
    in_box = np.abs(positions_of(found) - [0, 0.7, 0.5]).max(axis=-1) < 0.15
    assert in_box.any() and not reached[:, in_box].any()
    np.testing.assert_array_equal(found.share_with_collision, free.share_with_collision)
    assert (reached <= (free.status >= ReachStatus.COLLIDING)).all()
    for index in range(task.grid.blocks):
        block, q = task.solve(index)
        for row in q[block.status == ReachStatus.REACHED][::50]:
            assert solver.clearance(row, world, self_collision=False).distance >= 0.03 - 1e-9
            assert solver.clearance(row).distance >= -1e-9
    with pytest.raises(RobotError, match="expected spheres on its links"):
        map_reach(planar(1, 1, 1), settings, world=world)


def test_a_joint_that_turns_all_the_way_makes_the_map_turn_with_it(ur10):
    """UR10's first joint turns about the base's z axis, and these orientations by a quarter turn into each other."""
    one, turn = super_fibonacci(3), about_z(np.array([np.pi / 2]))[0]
    quats = [one]
    for _ in range(3):
        w, x, y, z = quats[-1].T
        c, s = turn[0], turn[3]
        quats.append(np.stack([c * w - s * z, c * x - s * y, c * y + s * x, c * z + s * w], axis=1))
    found = map_reach(ur10, ReachSettings(resolution=0.15, orientations=np.concatenate(quats)))
    assert len(found.x) == len(found.y) and found.x[0] == -found.x[-1]
    share, turned = found.share, np.rot90(found.share, axes=(0, 1))
    assert (share > 0).mean() > 0.2 and (np.abs(share - turned) > 1e-9).mean() < 0.01


def test_orientations_are_spread_evenly():
    quats = super_fibonacci(500)
    np.testing.assert_allclose(np.linalg.norm(quats, axis=1), 1.0, rtol=1e-12)
    assert (quats[:, 0] >= 0).all()
    np.testing.assert_allclose(quats.T @ quats / 500, np.eye(4) / 4, atol=0.01)  # as of all rotations
    along = np.abs(quats @ quats.T)
    np.fill_diagonal(along, 0.0)
    nearest = np.degrees(2 * np.arccos(along.max(axis=1)))
    assert nearest.min() > 0.4 * nearest.max(), "random ones come as near as 1 degree"
    drawn = np.random.default_rng(0).normal(size=(5000, 4))
    drawn /= np.linalg.norm(drawn, axis=1, keepdims=True)
    gap = np.degrees(2 * np.arccos(np.abs(drawn @ quats.T).max(axis=1).clip(max=1)))
    assert gap.max() < 35, "random ones leave gaps of 45 degrees and more"


def test_locked_joints_stay_at_their_midpoint(panda):
    task = ReachTask(panda, ReachSettings(resolution=0.1, orientations=3, locked=(2,)))
    block, q = task.solve(1)
    reached = block.status == ReachStatus.REACHED
    assert reached.sum() > 100
    np.testing.assert_allclose(q[reached][:, 2], 0.5 * (panda.lower[2] + panda.upper[2]), atol=1e-12)
    J = np.delete(panda.jacobian(q[reached]), 2, axis=2)
    np.testing.assert_allclose(block.manipulability[reached], np.abs(np.linalg.det(J)), rtol=1e-4, atol=1e-7)


@pytest.fixture(scope="module")
def coarse(panda):
    return map_reach(panda, COARSE)


def test_a_map_is_kept_whole(coarse, tmp_path):
    coarse.save(tmp_path / "reach.npz")
    read = ReachMap.load(tmp_path / "reach.npz")
    for name in ("x", "y", "z", "orientations", "status", "manipulability_best", "manipulability_mean", "share"):
        np.testing.assert_array_equal(getattr(read, name), getattr(coarse, name))
    assert read.document == coarse.document and read.document["robot"]["name"] == "panda"
    counts = read.counts()
    assert counts["poses"] == coarse.status.size == sum(counts.values()) - counts["poses"]
    assert counts["reached"] == (coarse.status == ReachStatus.REACHED).sum() > 500
    with np.load(tmp_path / "reach.npz") as arrays:  # as another program reads it
        np.testing.assert_array_equal(arrays["share"], coarse.share)
    (tmp_path / "other.npz").write_bytes(b"no map")
    for name in ("other.npz", "missing.npz"):
        with pytest.raises(DataError, match=name):
            ReachMap.load(tmp_path / name)


def test_what_is_done_stays_and_is_not_done_again(panda, coarse, tmp_path):
    seen: list[int] = []

    def stop(done, blocks):
        seen.append(done)
        if done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        map_reach(panda, COARSE, output=tmp_path, threads=2, progress=stop)
    assert seen == [0, 1, 2, 3] and len(list((tmp_path / "blocks").iterdir())) == 3
    with pytest.raises(ArgumentError, match="holds another map"):
        map_reach(panda, ReachSettings(resolution=0.2, orientations=7), output=tmp_path)
    seen = []
    found = map_reach(panda, COARSE, output=tmp_path, threads=1, progress=lambda done, _: seen.append(done))
    assert seen == [3, 4, 5, 6] and not (tmp_path / "blocks").exists()
    for name in ("status", "manipulability_best", "manipulability_mean"):
        np.testing.assert_array_equal(getattr(found, name), getattr(coarse, name))
    np.testing.assert_array_equal(ReachMap.load(tmp_path / "reach.npz").status, coarse.status)
    with pytest.raises(ArgumentError, match="or a whole one"):
        map_reach(panda, COARSE, output=tmp_path)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"resolution": 0}, "resolution: expected a finite number above 0, got 0"),
        ({"resolution": -0.05}, "resolution: expected a finite number above 0"),
        ({"resolution": 1e-5}, r"resolution: expected a grid that fits .* 1e-05 m: [\d,]+ poses at [\d,]+ positions"),
        ({"resolution": 1e-12}, "resolution: expected a grid that can be counted"),
        ({"orientations": 0}, "orientations: expected an integer from 1 to"),
        ({"orientations": [[1, 1, 0, 0]]}, r"orientations\[0\]: expected a unit quaternion"),
        ({"box": (0, 0, 0, 1, -1, 1)}, "box: expected the lower and then the upper corner"),
        ({"box": (0.01, 0.01, 0.01, 0.02, 0.02, 0.02)}, "box: expected one that holds multiples of the resolution"),
        ({"slack": (np.inf, 0, 0, 0, 0, 0)}, "slack: expected finite lengths for x, y and z"),
        ({"attempts": 0}, "max_attempts: expected an integer from 1 to"),
        ({"locked": (7,)}, "locked: expected an integer from 0 to 6"),
    ],
)
def test_what_is_wrong_is_named(settings, message, panda):
    with pytest.raises(ArgumentError, match=message):
        map_reach(panda, ReachSettings(**settings))
