"""A tracker keeps to bounds of velocity and acceleration, and to the limits, and follows and arrives all the same."""

import numpy as np
import pytest
from command_judge import check

from mfik.errors import ArgumentError
from mfik.robots import Robot, load_robot
from mfik.solve import Options, Solver, Status, Tracker

pytest.importorskip("mfik._native", reason="needs the native extension: pip install -e .", exc_type=ImportError)

DT = 1e-3
AT_REST = 1e-9  # [rad] or [m] a sample
READY = np.array([0, -0.8, 0, -2.4, 0, 1.6, 0.8])


@pytest.fixture(scope="module")
def panda() -> Solver:
    return Solver.from_robot(load_robot("panda"))


@pytest.fixture(scope="module", params=["panda", "ur10"])
def solver(request) -> Solver:
    return Solver.from_robot(load_robot(request.param))


def drive(tracker: Tracker, poses, options: Options | None = None) -> tuple[np.ndarray, list[Status]]:
    """Return the joints before and after each step, [N + 1, J], and the statuses."""
    joints, statuses = [tracker.q], []
    for pose in poses:
        result = tracker.step(pose, options)
        joints.append(result.q)
        statuses.append(result.status)
    return np.array(joints), statuses


def test_random_targets_break_no_bound(solver):
    robot, rng = solver.robot, np.random.default_rng(0)
    for _ in range(20):
        dt, velocity = 10 ** rng.uniform(-4, -1), 10 ** rng.uniform(-1, 1, robot.dof)
        acceleration = 10 ** rng.uniform(-1, 2, robot.dof)
        tracker = Tracker(solver, robot.sample(1, rng)[0], dt, velocity=velocity, acceleration=acceleration)
        poses = np.repeat(robot.fk(robot.sample(10, rng)), 50, 0)
        poses[:, :3] += np.repeat(rng.uniform(-1, 1, (10, 3)) * rng.integers(0, 2, (10, 1)), 50, 0)
        check(robot, drive(tracker, poses)[0], velocity, acceleration, dt)


def test_a_fixed_target_is_reached_and_held(solver):
    robot, rng, held = solver.robot, np.random.default_rng(1), 0
    for _ in range(100):
        q = robot.sample(1, rng)[0]
        pose = robot.fk(robot.clamp(q + rng.uniform(-0.5, 0.5, robot.dof)))
        velocity, acceleration = rng.uniform(0.5, 3, robot.dof), rng.uniform(5, 20, robot.dof)
        tracker = Tracker(solver, q, DT, velocity=velocity, acceleration=acceleration)
        joints, statuses = drive(tracker, [pose] * 3000)
        check(robot, joints, velocity, acceleration)
        held += statuses[-1] is Status.SOLVED and np.abs(np.diff(joints[-50:], axis=0)).max() <= AT_REST
    assert held >= 99


def test_joints_go_straight_to_a_target_and_stop_there_without_passing_it(panda):
    goal = READY + [0.4, -0.2, 0.1, 0.3, 0, -0.3, 0.2]
    tracker = Tracker(panda, READY, DT, acceleration=np.full(7, 8.0))
    joints, statuses = drive(tracker, [panda.robot.fk(goal)] * 1500)
    moves = check(panda.robot, joints, panda.robot.velocity, 8.0)
    assert statuses[0] is Status.JUMP_BOUND
    assert statuses[-1] is Status.SOLVED
    way = joints[-1] - READY
    share = (joints - READY) @ way / (way @ way)
    assert np.abs(joints - READY - share[:, None] * way).max() < 1e-3, "aside of the line, of 0.6 rad"
    assert share.max() <= 1 + 1e-6
    assert (moves[30:] * np.sign(way) >= -1e-6).all(), "turns back, once the goal is found"
    fastest = np.abs(way).max() / 8.0
    assert (np.abs(np.diff(joints, axis=0)).max(1) > AT_REST).sum() * DT < 1.1 * 2 * np.sqrt(fastest) + 0.01


@pytest.mark.parametrize("tool", [(0, 0, 0, 1, 0, 0, 0), (0, 0, 0.1, 1, 0, 0, 0)])
def test_a_path_within_the_bounds_is_followed_without_delay(panda, tool):
    pose = panda.robot.fk(READY)
    angle = np.pi * (1 - np.cos(np.linspace(0, np.pi, 3000)))
    poses = np.repeat(pose[None], len(angle), 0)
    poses[:, 1] += 0.1 * np.sin(angle)
    poses[:, 2] += 0.1 * (1 - np.cos(angle))
    options = Options(tool=tool)
    start = panda.solve(poses[0], READY, options=options).q
    tracker = Tracker(panda, start, DT, acceleration=np.full(7, 10.0))
    joints, statuses = drive(tracker, poses, options)
    assert set(statuses) == {Status.SOLVED}
    check(panda.robot, joints, panda.robot.velocity, 10.0)


def test_what_track_follows_within_the_bounds_a_tracker_follows_without_delay():
    """In the null space, too, where it goes as `track` does."""
    solver = Solver.pretrained("tiago")
    robot, rng, followed = solver.robot, np.random.default_rng(8), []
    while len(followed) < 12:
        q = robot.lower + (robot.upper - robot.lower) * rng.uniform(0.1, 0.9, robot.dof)
        poses = np.repeat(robot.fk(q)[None], 800, 0)
        time = np.linspace(0, 1, 800)
        poses[:, :3] += (time**3 * (10 - 15 * time + 6 * time**2))[:, None] * rng.uniform(-0.15, 0.15, 3)
        free = [q]
        solved = True
        for pose in poses:
            result = solver.track(pose, free[-1], 0.2)
            free.append(result.q)
            solved = solved and result.status is Status.SOLVED
        needs = [np.abs(np.diff(free, n=n, axis=0)).max(0) / DT**n for n in (1, 2)]
        if not solved or (needs[1] > 50).any():
            continue  # out of reach, or through a singularity
        velocity, acceleration = (1.1 * np.maximum(x, 0.05 * x.max()) for x in needs)
        tracker = Tracker(solver, q, DT, velocity=velocity, acceleration=acceleration)
        followed.append(set(drive(tracker, poses)[1]) == {Status.SOLVED})
    assert np.mean(followed) >= 0.9


def test_a_target_beyond_the_reach_is_approached_and_comes_to_rest(solver):
    robot, rng = solver.robot, np.random.default_rng(3)
    for _ in range(10):
        q = robot.lower + (robot.upper - robot.lower) * rng.uniform(0.2, 0.8, robot.dof)
        pose = robot.fk(q)
        pose[:3] *= 1 + 1 / np.linalg.norm(pose[:3])
        tracker = Tracker(solver, q, DT, velocity=np.full(robot.dof, 2.0), acceleration=np.full(robot.dof, 10.0))
        joints, statuses = drive(tracker, [pose] * 6000)
        check(robot, joints, 2.0, 10.0)
        assert statuses[-1] in (Status.UNREACHABLE, Status.AT_LIMITS, Status.NOT_CONVERGED)
        assert np.abs(np.diff(joints[-20:], axis=0)).max() <= AT_REST


def turns_back(joints: np.ndarray) -> np.ndarray:
    """Return how often each joint's velocity changes sign, beyond 1e-7 rad or m a sample, [J]."""
    counts = []
    for moves in np.diff(joints, axis=0).T:
        signs = np.sign(moves[np.abs(moves) > 1e-7])
        counts.append(int((signs[1:] != signs[:-1]).sum()))
    return np.array(counts)


def outwards(robot: Robot, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Return joints and a path of the tool from there, 0.7 m straight out of the reach and 0.3 s there."""
    q = robot.lower + (robot.upper - robot.lower) * rng.uniform(0.1, 0.9, robot.dof)
    time = np.linspace(0, 1, 1200)
    poses = np.repeat(robot.fk(q)[None], 1500, 0)
    out = poses[0, :3] / np.linalg.norm(poses[0, :3])
    poses[:1200, :3] += 0.7 * (time**3 * (10 - 15 * time + 6 * time**2))[:, None] * out
    poses[1200:, :3] += 0.7 * out
    return q, poses


@pytest.mark.parametrize("share", [0.1, 1.0])
def test_joints_with_bounds_turn_back_at_most_twice_as_often_as_without(solver, share):
    rng = np.random.default_rng(7)
    worse = []
    for _ in range(5):
        q, poses = outwards(solver.robot, rng)
        free = [q]
        for pose in poses:
            free.append(solver.track(pose, free[-1], 0.2).q)
        needs = [np.abs(np.diff(free, n=n, axis=0)).max(0) / DT**n for n in (1, 2)]
        velocity, acceleration = (share * np.clip(x, 0.05 * m, m) for x, m in zip(needs, (10, 100), strict=True))
        tracker = Tracker(solver, q, DT, velocity=velocity, acceleration=acceleration)
        joints, _ = drive(tracker, poses)
        check(solver.robot, joints, velocity, acceleration)
        worse.extend(turns_back(joints) > 2 * turns_back(np.array(free)) + 2)
    assert np.mean(worse) <= 0.01


def test_null_space_motion_hardly_moves_the_tool_and_comes_to_rest(panda):
    robot, rng = panda.robot, np.random.default_rng(4)
    midpoint, errors = 0.5 * (robot.lower + robot.upper), []
    for _ in range(10):
        q = robot.lower + (robot.upper - robot.lower) * rng.uniform(0.1, 0.9, robot.dof)
        pose = robot.fk(q)
        tracker = Tracker(panda, q, DT, acceleration=np.full(7, 10.0))
        joints, _ = drive(tracker, [pose] * 8000, Options(q_preferred=midpoint))
        check(robot, joints, robot.velocity, 10.0)
        errors.append(np.linalg.norm(robot.fk(joints)[:, :3] - pose[:3], axis=1).max())
        assert np.abs(np.diff(joints[-20:], axis=0)).max() <= AT_REST
        assert np.linalg.norm(joints[-1] - midpoint) <= np.linalg.norm(q - midpoint)
    assert np.median(errors) < 1e-5
    assert np.max(errors) < 2e-3, "a joint that meets its limit stops at once, which the others cannot"


def test_velocity_bounds_come_from_the_urdf_and_travel_with_the_robot(panda, tmp_path):
    np.testing.assert_array_equal(panda.robot.velocity, [2.175] * 4 + [2.61] * 3)
    np.testing.assert_array_equal(Robot.from_dict(panda.robot.to_dict()).velocity, panda.robot.velocity)
    document = panda.robot.to_dict()
    for joint in document["joints"]:
        del joint["velocity"]
    unknown = Robot.from_dict(document)
    assert np.isinf(unknown.velocity).all()
    assert unknown.fingerprint() == panda.robot.fingerprint()
    with pytest.raises(ArgumentError, match=r"velocity\[0\]: expected a bound of joint 'panda_joint1'"):
        Tracker(Solver.from_robot(unknown), READY, DT, acceleration=np.full(7, 10.0))


@pytest.mark.parametrize("name", ["panda", "ur10"])
def test_shipped_models_have_the_velocity_bounds_of_their_robots(name):
    np.testing.assert_array_equal(Solver.pretrained(name).robot.velocity, load_robot(name).velocity)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"q": np.full(7, 4.0)}, r"q\[0\]: expected -2.8973 to 2.8973, the limits of joint 'panda_joint1', got 4"),
        ({"q": np.zeros(6)}, r"q: expected shape \[7\], got \[6\]"),
        ({"dt": 0}, "dt: expected a finite number above 0, got 0"),
        ({"velocity": np.full(7, -1.0)}, r"velocity\[0\]: expected a finite number above 0 of joint 'panda_joint1'"),
        ({"acceleration": np.full(7, np.nan)}, r"acceleration\[0\]: expected a finite number"),
        ({"acceleration": 10.0}, r"acceleration: expected shape \[7\]"),
        ({"acceleration": np.full(7, 1e-11)}, r"acceleration\[0\]: expected .* told from rounding, got 1e-11"),
        ({"solver": None}, "solver: expected a Solver, got None"),
    ],
)
def test_arguments_that_make_no_sense_are_refused_by_name(panda, arguments, message):
    given = {"solver": panda, "q": READY, "dt": DT, "acceleration": np.full(7, 10.0)} | arguments
    with pytest.raises(ArgumentError, match=message):
        Tracker(**given)


def test_after_a_refused_pose_the_joints_go_on_to_the_last_one(panda):
    tracker = Tracker(panda, READY, DT, acceleration=np.full(7, 10.0))
    pose, joints = panda.robot.fk(READY + 0.2), [READY]
    for _ in range(50):
        joints.append(tracker.step(pose).q)
    refusals = [
        ([np.nan] * 7, r"pose\[0\]: expected a finite number"),
        ([1, 2, 3], r"pose: expected shape \[7\]"),
        (None, "pose: expected"),
    ]
    for bad, message in refusals * 300:
        with pytest.raises(ArgumentError, match=message):
            tracker.step(bad)
        joints.append(tracker.q)
    check(panda.robot, np.array(joints), panda.robot.velocity, 10.0)
    assert not tracker.dq.any()
    assert tracker.step(pose).status is Status.SOLVED
    with pytest.raises(ArgumentError, match="options: expected Options"):
        tracker.step(pose, options={})
