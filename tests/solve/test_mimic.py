"""Chains with mimic joints are solved and tracked, with Pinocchio as the judge."""

import json

import numpy as np
import pinocchio
import pytest
from mimic_judge import ROBOTS, MimicJudge

from mfik.errors import BundleError
from mfik.export import document, export_bundle
from mfik.native import load_native
from mfik.robots import load_robot
from mfik.solve import Solver, Status, Tracker

pytest.importorskip("mfik._native", reason="needs the native extension: pip install -e .", exc_type=ImportError)


@pytest.fixture(scope="module", params=ROBOTS)
def judge(request, example_robots) -> MimicJudge:
    return MimicJudge(example_robots, request.param)


@pytest.fixture(scope="module")
def solver(judge) -> Solver:
    return Solver.from_robot(judge.robot)


def error(judge: MimicJudge, q: np.ndarray, target: np.ndarray) -> float:
    """Return the larger of the errors [m] and [rad] of joints against those that the target was made of."""
    difference = pinocchio.log6(judge.tool(target)[0].actInv(judge.tool(q)[0])).vector
    return max(np.linalg.norm(difference[:3]), np.linalg.norm(difference[3:]))


def test_reachable_poses_are_solved(judge, solver):
    robot, rng = judge.robot, np.random.default_rng(2)
    q, q_ref = robot.sample(500, rng), robot.sample(500, rng)
    for options in ({}, {"throughput": True}, {"nearest": True}):
        out = solver.solve_batch(robot.fk(q), q_ref, **options)
        assert (out.status == Status.SOLVED).mean() >= 0.99, options
        solved = out.status == Status.SOLVED
        limited = np.array(robot.kinds) != "continuous"
        assert ((out.q >= robot.lower) & (out.q <= robot.upper))[:, limited].all()
        assert max(error(judge, *rows) for rows in zip(out.q[solved], q[solved], strict=True)) <= 2e-5


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e3])
def test_a_slide_that_follows_a_turn_is_solved_in_any_unit_of_length(tmp_path, scale):
    def joint(name: str, parent: str, child: str, inner: str) -> str:
        return f'<joint name="{name}" {inner}<parent link="{parent}"/><child link="{child}"/></joint>'

    turn = f'type="revolute"><origin xyz="{0.4 * scale} 0 0"/><axis xyz="0 0 1"/><limit lower="-2" upper="2"/>'
    slide = (
        f'type="prismatic"><origin xyz="{0.3 * scale} 0 0"/><axis xyz="1 1 0"/>'
        f'<limit lower="{-scale}" upper="{scale}"/><mimic joint="j" multiplier="{0.2 * scale}" offset="{0.1 * scale}"/>'
    )
    urdf = tmp_path / "r.urdf"
    links = "".join(f'<link name="{name}"/>' for name in "abcd")
    joints = joint("i", "a", "b", turn) + joint("j", "b", "c", turn) + joint("k", "c", "d", slide)
    urdf.write_text(f'<robot name="r">{links}{joints}</robot>')
    robot = load_robot(urdf)
    solver, rng = Solver.from_robot(robot), np.random.default_rng(6)
    q, q_ref = robot.sample(200, rng), robot.sample(200, rng)
    out = solver.solve_batch(robot.fk(q), q_ref, tol_pos=1e-6 * scale)
    assert robot.dof == 2 and (out.status == Status.SOLVED).mean() >= 0.99
    position = np.linalg.norm(robot.fk(out.q)[:, :3] - robot.fk(q)[:, :3], axis=1)[out.status == Status.SOLVED]
    assert position.max() <= 1e-6 * scale * (1 + 1e-6)


def test_all_solutions_differ_and_solve(judge, solver):
    robot = judge.robot
    for q in robot.sample(20, np.random.default_rng(3)):
        result = solver.solve_all(robot.fk(q), 8, q)
        assert result.status is Status.SOLVED
        assert max(error(judge, solution, q) for solution in result.q) <= 2e-5


def test_paths_are_tracked(judge, solver):
    robot, rng = judge.robot, np.random.default_rng(4)
    middle = 0.5 * (robot.lower + robot.upper)
    for _ in range(10):
        start = middle + 0.3 * (robot.sample(1, rng)[0] - middle)
        goal = start + 0.05 * (robot.sample(1, rng)[0] - start)
        q = start
        tracker = Tracker(solver, start, 1e-3, velocity=np.full(robot.dof, 2.0), acceleration=np.full(robot.dof, 50.0))
        for share in np.linspace(0, 1, 50):
            pose = robot.fk(start + share * (goal - start))
            result = solver.track(pose, q, 0.05)
            assert result.status is Status.SOLVED and np.abs(result.q - q).max() <= 0.05
            q = result.q
        for _ in range(400):
            held = tracker.step(robot.fk(goal))
        assert error(judge, q, goal) <= 1e-8 and held.status is Status.SOLVED
        assert error(judge, tracker.q, goal) <= 1e-8


def test_bundles_without_a_network_hold_mimics(judge, solver, tmp_path):
    robot = judge.robot
    export_bundle(tmp_path / "bundle", None, document(None, robot))
    loaded = Solver.load(tmp_path / "bundle", robot)
    q = robot.sample(20, np.random.default_rng(5))
    for pose, q_ref in zip(robot.fk(q), q[::-1], strict=True):
        np.testing.assert_array_equal(loaded.solve(pose, q_ref).q, solver.solve(pose, q_ref).q)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mimic": {"joint": "nobody", "multiplier": 1.0}}, "mimic.joint: expected a joint before it"),
        ({"mimic": {"joint": "LHand", "multiplier": 0.0}}, "mimic.multiplier: expected a number other than 0"),
        ({"mimic": {"joint": "LHand"}}, "multiplier"),
    ],
)
def test_bundles_with_wrong_mimics_are_refused(example_robots, change, message):
    description = document(None, MimicJudge(example_robots, "romeo_finger").robot)
    description["robot"]["joints"][-1] |= change
    with pytest.raises(BundleError, match=message):
        load_native().Solver.from_description(json.dumps(description))


def test_bundles_with_a_network_or_a_body_refuse_mimics(example_robots):
    description = document(None, MimicJudge(example_robots, "romeo_finger").robot)
    for member, value in (("body", {"links": [], "pairs": []}), ("model", {"type": "v2"})):
        changed = json.loads(json.dumps(description))
        (changed["robot"] if member == "body" else changed)[member] = value
        with pytest.raises(BundleError, match="do(es)? not support mimic joints"):
            load_native().Solver.from_description(json.dumps(changed))
