"""What the solver promises beyond one pose: every seed, paths, all solutions, tools, slack, locks, postures, turns.

Pinocchio, on the URDF file, judges poses and limits.
"""

from pathlib import Path

import numpy as np
import pinocchio
import pytest
import torch
from judge import ROUNDING, TOLERANCE, Judge, norms, se3

import mfik.robots
from mfik.errors import ArgumentError
from mfik.eval import make_path, make_targets
from mfik.robots import load_robot
from mfik.solve import Solver, Status, model_path

pytest.importorskip("mfik._native", reason="needs the native extension: pip install -e .", exc_type=ImportError)

ROBOTS = ("panda", "ur10")


@pytest.fixture(scope="module", params=ROBOTS)
def solver(request) -> Solver:
    return Solver.from_robot(load_robot(request.param))


@pytest.fixture(scope="module")
def panda() -> Solver:
    return Solver.from_robot(load_robot("panda"))


@pytest.fixture(scope="module")
def ur10() -> Solver:
    return Solver.from_robot(load_robot("ur10"))


@pytest.mark.parametrize("kind", ["global", "local", "near_limits", "near_singular"])
def test_reachable_poses_are_solved_from_any_reference(solver, kind):
    targets = make_targets(solver.robot, 3000, kind=kind, seed=11)
    out = solver.solve_batch(targets.pose, targets.q_ref)
    judge = Judge(solver.robot)
    solved = np.array([judge.solves(q, pose) for q, pose in zip(out.q, targets.pose, strict=True)])
    assert solved.mean() >= 0.999  # all 10,000 seen
    assert ((out.status == Status.SOLVED) == solved).all()
    steps = (160 // solver.lanes + 4) * 13
    assert out.attempts.max() <= 160 and out.iterations.max() <= steps


def test_tight_tolerance_is_kept(solver):
    targets = make_targets(solver.robot, 500, seed=12)
    out = solver.solve_batch(targets.pose, targets.q_ref, tol_pos=1e-9, tol_rot=1e-9)
    assert (out.status == Status.SOLVED).mean() >= 0.998
    judge = Judge(solver.robot)
    errors = [norms(judge.error(q, pose)).max() for q, pose in zip(out.q, targets.pose, strict=True)]
    assert np.array(errors)[out.status == Status.SOLVED].max() < 1e-9 + ROUNDING


def test_a_path_is_followed_within_the_bound(solver):
    path = make_path(solver.robot, 2000, seed=13)
    judge, steps, lost = Judge(solver.robot), [], 0
    q = path.q_ref[0]
    for pose, q_true in zip(path.pose, path.q_ref, strict=True):
        result = solver.track(pose, q, max_step=0.15)
        steps.append(np.abs(result.q - q).max())
        assert steps[-1] <= 0.15
        if result.status is Status.SOLVED:
            assert judge.solves(result.q, pose)
            q = result.q
        else:
            lost, q = lost + 1, q_true
    assert lost <= 20  # of 2,000: at singularities and limits


def test_a_slow_path_is_smooth(solver):
    """Steps far below the tolerance: standing still until it is exceeded would be within tolerance, too."""
    robot = solver.robot
    begin = robot.sample(1, torch.Generator().manual_seed(23), torch.float64)[0].numpy()
    q, steps = begin.copy(), []
    for k in range(200):
        pose = robot.fk(begin + 1e-6 * (k + 1))
        result = solver.track(pose, q, 0.01)
        assert result.status is Status.SOLVED
        steps.append(result.q - q)
        q = result.q
    assert np.abs(np.diff(steps, axis=0)).max() < 1e-7


@pytest.mark.parametrize("max_step", [1e-3, 0.05])
def test_no_joint_jumps_whatever_the_target(solver, max_step):
    generator = torch.Generator().manual_seed(14)
    q_prev = solver.robot.sample(300, generator, torch.float64).numpy()
    pose = solver.robot.fk(solver.robot.sample(300, generator, torch.float64)).numpy()
    pose[::3, :3] *= 3.0  # out of reach
    seen = set()
    for i in range(300):
        result = solver.track(pose[i], q_prev[i], max_step)
        assert np.abs(result.q - q_prev[i]).max() <= max_step  # exactly
        assert solver.robot.within_limits(result.q)
        assert result.iterations <= 12
        seen.add(result.status)
    assert Status.JUMP_BOUND in seen and Status.SOLVED not in seen


@pytest.mark.parametrize("direction", [(2.0, 0.0, 0.0), (0.0, -3.0, 0.5)])
def test_tracking_a_target_out_of_reach_comes_to_rest(solver, direction):
    q = 0.5 * (solver.robot.lower + solver.robot.upper) + 0.3
    q = solver.robot.clamp(q)
    pose = solver.robot.fk(q)
    pose[:3] += direction
    errors, moves = [], []
    for _ in range(300):
        result = solver.track(pose, q, 0.05)
        assert result.status != Status.SOLVED
        errors.append(result.pos_error**2 + result.rot_error**2)
        moves.append(np.abs(result.q - q).max())
        q = result.q
    assert (np.diff(errors) <= 1e-9).all(), "no step leads away from the target"
    assert max(moves[-20:]) < 1e-3, "the arm does not shake"


def test_tracking_comes_back_from_beyond_the_limits_without_a_jump(panda):
    robot = panda.robot
    q = 0.5 * (robot.lower + robot.upper)
    pose = robot.fk(q)
    q[1] = robot.upper[1] + 0.3
    for _ in range(2):
        result = panda.track(pose, q, 0.1)
        assert result.status is Status.AT_LIMITS and "limit" in result.reason
        assert np.abs(result.q - q).max() <= 0.1 and result.q[1] <= q[1] - 0.1 + ROUNDING
        q = result.q
    for _ in range(60):
        q = panda.track(pose, q, 0.1).q
    assert panda.track(pose, q, 0.1).status is Status.SOLVED


def test_all_solutions_of_a_six_joint_arm_are_found(ur10):
    """A UR arm has at most eight solutions up to full turns; a generic pose has all of them or the half."""
    generator = torch.Generator().manual_seed(15)
    q_true = ur10.robot.sample(200, generator, torch.float64).numpy()
    judge, found_true, counts = Judge(ur10.robot), 0, []
    for q in q_true:
        pose = ur10.robot.fk(q)
        result = ur10.solve_all(pose, 16, max_attempts=1000)
        assert result.status is Status.SOLVED
        assert all(judge.solves(solution, pose) for solution in result.q)
        gaps = [np.abs(np.remainder(a - b + np.pi, 2 * np.pi) - np.pi).max() for a in result.q for b in result.q]
        assert sum(gap <= 0.1 for gap in gaps) == len(result.q)  # each is near itself alone
        counts.append(len(result.q))
        found_true += min(np.abs(np.remainder(s - q + np.pi, 2 * np.pi) - np.pi).max() for s in result.q) < 0.1
    assert found_true >= 196  # 98 %
    assert max(counts) <= 8 and np.median(counts) == 8


def test_solutions_of_a_redundant_arm_spread_and_begin_nearest(panda):
    robot = panda.robot
    generator = torch.Generator().manual_seed(16)
    for q in robot.sample(30, generator, torch.float64):
        pose, q_ref = robot.fk(q).numpy(), q.numpy() + 0.2
        result = panda.solve_all(pose, 8, q_ref, min_distance=0.3)
        assert 1 <= len(result.q) <= 8
        for i, solution in enumerate(result.q):
            others = np.delete(result.q, i, axis=0)
            assert len(others) == 0 or np.abs(others - solution).max(axis=1).min() > 0.3
        distances = np.linalg.norm(result.q - q_ref, axis=1)
        assert distances[0] <= distances.min() + ROUNDING
        if len(result.q) >= 3:  # the second is the farthest from the first
            gaps = np.abs(result.q[1:] - result.q[0]).max(axis=1)
            assert gaps[0] == gaps.max()
        fewer = panda.solve_all(pose, 2, q_ref, min_distance=0.3)
        np.testing.assert_array_equal(fewer.q, result.q[:2])


def test_turns_are_those_nearest_to_the_reference(ur10):
    targets = make_targets(ur10.robot, 500, seed=17)
    out = ur10.solve_batch(targets.pose, targets.q_ref)
    lower, upper = ur10.robot.lower, ur10.robot.upper
    for turn in (-2 * np.pi, 2 * np.pi):
        other = out.q + turn
        inside = (other >= lower) & (other <= upper)
        assert (np.abs(out.q - targets.q_ref) <= np.abs(other - targets.q_ref) + ROUNDING)[inside].all()
    assert (np.abs(out.q) > np.pi).any()


def test_tool_is_brought_to_the_target(solver):
    tool = np.array([0.02, -0.05, 0.15, *np.array([0.9, 0.1, -0.3, 0.2]) / np.linalg.norm([0.9, 0.1, -0.3, 0.2])])
    judge = Judge(solver.robot)
    generator = torch.Generator().manual_seed(19)
    for q in solver.robot.sample(50, generator, torch.float64).numpy():
        target = judge.tool(q) * se3(tool)
        quat = pinocchio.Quaternion(target.rotation)
        pose = np.array([*target.translation, quat.w, quat.x, quat.y, quat.z])
        result = solver.solve(pose, np.zeros(solver.dof), tool=tool)
        assert result.status is Status.SOLVED
        assert norms(judge.error(result.q, pose, se3(tool))).max() <= TOLERANCE + ROUNDING
        near = solver.track(pose, np.clip(q + 0.01, *limits(solver)), 0.1, tool=tool, tol_pos=1e-8, tol_rot=1e-8)
        if near.status is Status.SOLVED:
            assert norms(judge.error(near.q, pose, se3(tool))).max() <= 1e-8 + ROUNDING


def limits(solver: Solver) -> tuple[np.ndarray, np.ndarray]:
    return solver.robot.lower, solver.robot.upper


def test_slack_is_used_and_kept(solver):
    """Poses that are out of reach by less than the slack along one axis, and rotations about a freed one."""
    judge = Judge(solver.robot)
    generator = torch.Generator().manual_seed(20)
    slack = np.array([0.0, 0.0, 0.02, 0.0, 0.0, np.inf])
    plain = freed = 0
    for q in solver.robot.sample(100, generator, torch.float64).numpy():
        target = judge.tool(q)
        turned = target * pinocchio.SE3(pinocchio.exp3(np.array([0, 0, 2.0])), np.array([0, 0, 0.015]))
        quat = pinocchio.Quaternion(turned.rotation)
        pose = np.array([*turned.translation, quat.w, quat.x, quat.y, quat.z])
        result = solver.solve(pose, q, slack=slack)
        assert result.status is Status.SOLVED
        error = judge.error(result.q, pose)
        assert (np.abs(error[:5]) <= slack[:5] + TOLERANCE + ROUNDING).all()
        freed += abs(error[5]) > 0.1
        plain += norms(error).max() > 1e-3
    assert freed > 50 and plain > 50  # it is no pose that exact solving would have given


def test_locked_joints_stay(panda):
    robot = panda.robot
    generator = torch.Generator().manual_seed(21)
    solved = 0
    for q in robot.sample(100, generator, torch.float64):
        pose = robot.fk(q).numpy()
        q_ref = robot.clamp(q + 0.5 * torch.randn(7, generator=generator, dtype=torch.float64)).numpy()
        q_ref[[2, 5]] = q[[2, 5]]
        result = panda.solve(pose, q_ref, locked=[2, 5])
        assert (result.q[[2, 5]] == q_ref[[2, 5]]).all()
        solved += result.status is Status.SOLVED
        step = panda.track(pose, q_ref, 0.05, locked=[2, 5])
        assert (step.q[[2, 5]] == q_ref[[2, 5]]).all()
    assert solved == 100
    outside = robot.upper + 1.0
    for call, arguments in ((panda.solve, (pose, outside)), (panda.solve_batch, ([pose, pose], [q_ref, outside]))):
        row = "1, " if call == panda.solve_batch else ""
        message = (
            rf"q_ref\[{row}0\]: expected locked joints within their limits, got 3.89.* for 'panda_joint1', limited"
        )
        with pytest.raises(ArgumentError, match=message):
            call(*arguments, locked=[0])


def test_locked_joints_that_block_a_target_are_no_joint_limits(panda):
    midpoint = 0.5 * sum(limits(panda))
    pose = panda.robot.fk(midpoint + 0.3)
    blocked = panda.solve(pose, midpoint, locked=list(range(6)))
    assert blocked.status is Status.UNREACHABLE and "limits" not in blocked.reason


def test_a_redundant_arm_is_led_to_its_null_space_posture(panda):
    targets = make_targets(panda.robot, 100, seed=22)
    midpoint = 0.5 * sum(limits(panda))
    judge, closer = Judge(panda.robot), 0
    for pose, q_ref in zip(targets.pose, targets.q_ref, strict=True):
        plain, led = panda.solve(pose, q_ref), panda.solve(pose, q_ref, q_preferred=midpoint)
        assert judge.solves(led.q, pose)
        distance = [np.linalg.norm(result.q - midpoint) for result in (plain, led)]
        closer += distance[1] < distance[0] - 1e-3
    assert closer >= 90
    # On a path it moves there without leaving the path.
    q = panda.solve(targets.pose[0], targets.q_ref[0]).q
    begin = np.linalg.norm(q - midpoint)
    for _ in range(100):
        result = panda.track(targets.pose[0], q, 0.1, q_preferred=midpoint)
        assert result.status is Status.SOLVED
        q = result.q
    assert np.linalg.norm(q - midpoint) < begin - 0.05


def test_status_says_why(panda):
    robot = panda.robot
    midpoint = 0.5 * sum(limits(panda))
    far = panda.solve([2.0, 0.0, 0.5, 1.0, 0.0, 0.0, 0.0], midpoint)
    assert far.status is Status.UNREACHABLE and "farther" in far.reason and far.attempts == 1
    # Within the sum of the links' lengths, yet beyond the arm.
    close = panda.solve([0.85, 0.0, 0.6, 1.0, 0.0, 0.0, 0.0], midpoint)
    assert close.status in (Status.UNREACHABLE, Status.AT_LIMITS) and close.attempts == 160
    assert close.pos_error > 1e-2
    # Reached only by violating limits: what is nearest within them holds joint 6 at its own.
    beyond = midpoint.copy()
    beyond[3] = 0.6
    beyond[5] = -1.0
    pose = robot.fk(beyond)
    assert panda.track(pose, robot.clamp(beyond), 2.0).status is Status.NOT_CONVERGED, "it needs more steps"
    at_limits = panda.track(pose, robot.clamp(beyond), 2.0, max_iterations=40)
    assert at_limits.status is Status.AT_LIMITS
    text = panda.explain(at_limits)
    assert text.startswith("at limits: ") and "mm" in text and "deg" in text and "panda_joint6 lower limit" in text
    few = panda.solve(robot.fk(midpoint + 0.3), midpoint, max_iterations=1, max_attempts=1)
    assert few.status is Status.NOT_CONVERGED


def test_continuous_joints_turn_the_short_way(tmp_path):
    urdf = (Path(mfik.robots.__file__).parent / "urdf" / "ur10.urdf").read_text()
    head, tail = urdf.split('<joint name="wrist_3_joint" type="revolute">')
    tail = tail.replace("<limit", '<limit effort="1" velocity="1"/><unused', 1)
    (tmp_path / "arm.urdf").write_text(head + '<joint name="wrist_3_joint" type="continuous">' + tail)
    robot = load_robot(tmp_path / "arm.urdf", "base_link", "tool0")
    assert robot.kinds[-1] == "continuous"
    solver = Solver.from_robot(robot)
    q = np.array([0.3, -1.2, 1.5, -0.7, 0.9, 3.1])
    pose = robot.fk(q)
    ahead = q + np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.08])  # past pi
    result = solver.track(pose, ahead, 0.1)
    assert result.status is Status.SOLVED and abs(result.q[5] - 3.1) < 1e-3
    for turns in (-3, 0, 5):
        result = solver.solve(pose, q + np.array([0, 0, 0, 0, 0, 2 * np.pi * turns]))
        assert result.status is Status.SOLVED
        assert abs(result.q[5] - (3.1 + 2 * np.pi * turns)) <= np.pi + 1e-6


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"max_attempts": 0}, "max_attempts: expected an integer from 1 to 10000, got 0"),
        ({"seed": "home"}, "seed: expected one of .*'reference'.* got 'home'"),
        ({"seed": "network"}, "made without a network"),
        ({"slack": [0, 0, -1, 0, 0, 0]}, "slack: expected 6 numbers of at least 0"),
        ({"slack": [0, 0, float("nan"), 0, 0, 0]}, "slack"),
        ({"tool": [0, 0, 0, 1, 1, 0, 0]}, "tool: expected a unit quaternion"),
        ({"tool": [1e200, 0, 0, 1, 0, 0, 0]}, r"tool: expected coordinates of up to 1e\+09 m, got \[1e\+200"),
        ({"nearest": "no"}, "nearest: expected True or False, got 'no'"),
        ({"locked": None}, "locked: expected indices of joints, such as .*, got None"),
        ({"q_preferred": [1j] * 7}, "q_preferred: expected numbers, got list .*complex"),
        ({"locked": [7]}, "locked: expected an integer from 0 to 6, got 7"),
        ({"locked": 2}, r"locked: expected indices of joints, such as \[2\], got 2"),
        ({"q_preferred": [0.0] * 6}, r"q_preferred: expected shape \[7\]"),
        ({"joint_weights": [1.0] * 6}, r"joint_weights: expected shape \[7\]"),
        ({"joint_weights": [1.0] * 6 + [0.0]}, "joint_weights: expected numbers above 0"),
        ({"joint_weights": [1.0] * 6 + [float("inf")]}, r"joint_weights\[6\]: expected a finite number"),
        ({"preference_gain": 1.5}, "preference_gain: expected a finite number of 0 to 1"),
    ],
)
def test_bad_options(panda, arguments, message):
    with pytest.raises(ArgumentError, match=message):
        panda.solve([0.5, 0.0, 0.5, 1.0, 0.0, 0.0, 0.0], np.zeros(7), **arguments)


def test_bad_arguments_of_track_and_solve_all(panda):
    pose, q = [0.5, 0.0, 0.5, 1.0, 0.0, 0.0, 0.0], np.zeros(7)
    for max_step in (0.0, -1.0, float("nan"), "far"):
        with pytest.raises(ArgumentError, match="max_step"):
            panda.track(pose, q, max_step)
    with pytest.raises(ArgumentError, match=r"q_prev\[0\]"):
        panda.track(pose, [float("nan"), *q[1:]], 0.1)
    with pytest.raises(ArgumentError, match="n: expected an integer from 1"):
        panda.solve_all(pose, 0)
    with pytest.raises(ArgumentError, match="min_distance"):
        panda.solve_all(pose, 4, min_distance=0.0)
    with pytest.raises(ArgumentError, match="max_iterations"):
        panda.solve_all(pose, 4, max_iterations=0)


def test_a_pose_may_be_a_transform(panda):
    rng = np.random.default_rng(31)
    q = rng.uniform(*limits(panda), (200, 7))
    poses, transforms = panda.robot.fk(q), np.array([Judge(panda.robot).tool(row).homogeneous for row in q])
    for pose, transform, q_ref in zip(poses[:20], transforms, q + 0.01, strict=False):
        np.testing.assert_allclose(panda.solve(transform, q_ref).q, panda.solve(pose, q_ref).q, atol=1e-9)
        np.testing.assert_allclose(panda.track(transform, q_ref, 0.1).q, panda.track(pose, q_ref, 0.1).q, atol=1e-9)
    out = panda.solve_batch(transforms, q)
    assert (out.status == Status.SOLVED).all() and out.iterations.max() == 0
    sheared = transforms[0] + 0.1 * np.eye(4)
    with pytest.raises(ArgumentError, match="pose: expected a transform, a rotation matrix"):
        panda.solve(sheared, q[0])
    with pytest.raises(ArgumentError, match=r"pose\[3\]: expected a transform"):
        panda.solve_batch(np.where(np.arange(200)[:, None, None] == 3, sheared, transforms), q)
    with pytest.raises(ArgumentError, match=r"pose: expected shape \[N, 4, 4\], got \[4, 4\]; Solver.solve takes"):
        panda.solve_batch(transforms[0], q[:1])
    with pytest.raises(ArgumentError, match=r"expected shape \[4, 4\], got \[200, 4, 4\]; Solver.solve_batch takes"):
        panda.solve(transforms, q[0])


@pytest.mark.parametrize("ragged", [[[1, 2], [3]], [[[1, 2], [3]]]])
def test_a_pose_whose_rows_differ_in_length_is_refused_by_name(panda, ragged):
    for call, q_ref in ((panda.solve, np.zeros(7)), (panda.solve_batch, np.zeros((1, 7)))):
        with pytest.raises(ArgumentError, match="pose: expected numbers"):
            call(ragged, q_ref)


def test_what_is_no_pose_robot_or_result_is_refused_by_name(panda):
    with pytest.raises(ArgumentError, match=r"pose: expected .*; a pose may also be a transform, \[4, 4\]"):
        panda.solve(np.eye(3), np.zeros(7))
    with pytest.raises(ArgumentError, match="pose: expected numbers, got None"):
        panda.solve(None, np.zeros(7))
    with pytest.raises(ArgumentError, match="q_ref: expected numbers, got None"):
        panda.solve([0.5, 0, 0.5, 1, 0, 0, 0], None)
    with pytest.raises(ArgumentError, match="q_ref: expected numbers, got ndarray .*complex"):
        panda.solve([0.5, 0, 0.5, 1, 0, 0, 0], np.zeros(7, dtype=complex))
    for method in (panda.robot.fk, panda.robot.jacobian, panda.robot.clamp, panda.robot.within_limits):
        with pytest.raises(ArgumentError, match="q: expected numbers .* got ndarray .*complex"):
            method(np.zeros(7, dtype=complex))
    with pytest.raises(ArgumentError, match="robot: expected a Robot or None, got 'panda'; load it"):
        Solver.load(model_path("panda"), robot="panda")
    with pytest.raises(ArgumentError, match="robot: expected a Robot, got 'panda'; load it"):
        Solver.from_robot("panda")
    with pytest.raises(ArgumentError, match="name_or_path: expected a preset .* got None"):
        load_robot(None)
    batch = panda.solve_batch([[0.5, 0, 0.5, 1, 0, 0, 0]], np.zeros((1, 7)))
    with pytest.raises(ArgumentError, match="result: expected the Result of solve or track, got BatchResult"):
        panda.explain(batch)
