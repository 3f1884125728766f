"""The protocol: its counts against stubs whose answers are known, its truth against brute force."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from mfik.errors import ArgumentError
from mfik.eval import format_protocol, make_targets, run_protocol
from mfik.eval.protocol import REFINEMENTS, SETS, Stored, measure_diversity, mmd2, sample_solutions
from mfik.eval.targets import random_numbers, uniform_joints
from mfik.export import NATIVE_FILE, document, write_native
from mfik.kinematics import Chain, position_error_m, rotation_error_rad
from mfik.model.v1 import MeanFlowNet, ModelConfig
from mfik.robots import Robot, load_robot
from mfik.solve import Seed, Solver, Status


class PerfectNetwork(Solver):
    """Answers as a network that solves every pose would."""

    @property
    def num_parameters(self):
        return 1

    def solve_batch(self, pose, q_ref, **options):
        if options.get("seed") is Seed.NETWORK:
            options = {**options, "seed": Seed.REFERENCE, "max_iterations": 30, "max_attempts": 160}
            options = {**options, "tol_pos": 1e-9, "tol_rot": 1e-9}
        return super().solve_batch(pose, q_ref, **options)


@pytest.fixture(scope="module")
def bare():
    return Solver.from_robot(load_robot("panda"))


def test_a_perfect_network_has_no_error_and_is_solved_at_once(panda):
    report = run_protocol(PerfectNetwork.from_robot(panda), n=60, diversity_poses=3)
    for rows in report["one_attempt"].values():
        row = rows["network"]
        assert max(row["pos_mm"].values()) <= 1e-6 and max(row["rot_deg"].values()) <= math.degrees(1e-9)
        assert row["within_5mm_5deg"] == 1 and row["limit_violations"] == 0
        assert list(row["evaluations"]) == ["2", "3"]
        assert all(again["within_5mm_5deg"] == 1 for again in row["evaluations"].values())
        assert all(share == 1 for shares in row["solved"].values() for share in shares.values())


class HalvingNetwork(PerfectNetwork):
    """A network that goes half of the way to a solution at each evaluation."""

    def solve_batch(self, pose, q_ref, **options):
        out = super().solve_batch(pose, q_ref, **options)
        if options.get("seed") is not Seed.NETWORK:
            return out
        plain = {**options, "seed": Seed.REFERENCE, "max_attempts": 1}
        return super().solve_batch(pose, q_ref + 0.5 * (out.q - q_ref), **plain)


def test_further_evaluations_begin_at_the_answers_before(panda):
    report = run_protocol(HalvingNetwork.from_robot(panda), n=60, diversity_poses=3)
    row = report["one_attempt"]["local 0.1"]["network"]
    errors = [row["pos_mm"]["mean"], *(again["pos_mm"]["mean"] for again in row["evaluations"].values())]
    assert errors[1] < 0.7 * errors[0] and errors[2] < 0.7 * errors[1]
    assert "\nlocal 0.1       2 times |" in format_protocol(report)


def test_a_network_that_answers_the_reference_has_the_reference_s_row(tmp_path, panda):
    model = MeanFlowNet(ModelConfig(width=16, num_blocks=1, cond_dim=8, encoding="none"))
    write_native(tmp_path / NATIVE_FILE, model, document(model, panda))
    report = run_protocol(Solver.load(tmp_path), n=60, diversity_poses=3)
    for rows in report["one_attempt"].values():
        network, reference = ({k: v for k, v in rows[name].items() if k != "us"} for name in ("network", "reference"))
        assert all(again.items() <= reference.items() for again in network.pop("evaluations").values())
        assert network == reference
    rows = report["diversity"]["rows"]
    assert rows["network, refined"] == rows["reference, refined"] and rows["network, one step"]["reached"] < 0.1


def test_solved_counts_agree_with_refinement_in_pytorch(bare):
    rows = run_protocol(bare, n=100, seed=5, diversity_poses=3)["one_attempt"]["local 0.3"]
    targets = make_targets(bare.robot, 100, kind="local", sigma=0.3, seed=5)
    q_ref, pose = torch.from_numpy(targets.q_ref), torch.from_numpy(targets.pose)
    for name, tolerance in (("1e-3", 1e-3), ("1e-6", 1e-6)):
        out = bare.robot.refine(q_ref, pose, max_iterations=max(REFINEMENTS), tol_pos=tolerance, tol_rot=tolerance)
        for k in REFINEMENTS:
            expected = (out.converged & (out.iterations <= k)).double().mean().item()
            assert rows["reference"]["solved"][name][str(k)] == pytest.approx(expected, abs=0.011)  # one row's rounding
    error_mm = 1e3 * position_error_m(bare.robot.fk(q_ref), pose).numpy()
    assert rows["reference"]["pos_mm"]["p95"] == pytest.approx(np.quantile(error_mm, 0.95))


def test_without_a_network_the_rows_that_need_none_are_there_and_add_up(bare):
    report = run_protocol(bare, n=150, diversity_poses=3)
    assert list(report["one_attempt"]) == list(report["solve"]) == list(SETS) and report["left_out"] == {}
    for name, rows in report["one_attempt"].items():
        free = [] if name.startswith("local") else ["midpoint", "azimuth", "stored"]
        assert list(rows) == ["reference", *free]
        for row in rows.values():
            for shares in row["solved"].values():
                assert list(shares) == [str(k) for k in REFINEMENTS]
                assert list(shares.values()) == sorted(shares.values())  # more steps solve no fewer
            for k in REFINEMENTS:
                assert row["solved"]["1e-3"][str(k)] >= row["solved"]["1e-5"][str(k)] >= row["solved"]["1e-6"][str(k)]
            assert 0 < row["us"]["p50"] <= row["us"]["p99"]
    glob = report["one_attempt"]["global"]
    assert glob["stored"]["pos_mm"]["mean"] < 0.3 * glob["reference"]["pos_mm"]["mean"]
    assert all(row["solve()"]["solved"] == 1 for row in report["solve"].values())
    tracking = report["tracking"]
    assert (tracking["paths"], tracking["steps"]) == (2, 150) and tracking["whole_paths"] <= 2
    assert tracking["solved"] > 0.9 and 1 < tracking["joint_step_deg"]["median"] < 3
    assert tracking["joint_step_deg"]["max"] <= math.degrees(0.2) + 1e-9
    text = format_protocol(report)
    assert all(f"\n{name:13} " in text for name in SETS) and "network" not in text.split("\n", 4)[4]


def test_same_seed_same_report_but_for_the_times(bare):
    def without_times(value):
        if isinstance(value, dict):
            return {k: without_times(v) for k, v in value.items() if k != "us"}
        return value

    first, second, other = (without_times(run_protocol(bare, n=20, seed=seed, diversity_poses=3)) for seed in (1, 1, 2))
    assert first == second and first["one_attempt"] != other["one_attempt"]


def test_a_robot_without_limits_and_with_five_joints_leaves_sets_out(bare):
    robot = bare.robot.to_dict()
    for joint in robot["joints"]:
        joint.update(kind="continuous", lower=-math.pi, upper=math.pi)
    robot["joints"], robot["body"] = robot["joints"][:5], None
    report = run_protocol(Solver.from_robot(Robot.from_dict(robot)), n=20, diversity_poses=3)
    assert set(report["left_out"]) == {"near limits", "near singular"}
    assert list(report["one_attempt"]) == ["local 0.1", "local 0.3", "global"]
    assert "left out" in format_protocol(report)


@pytest.mark.parametrize("arguments", [{"n": 0}, {"n": 5, "seed": -1}])
def test_bad_arguments_are_named(bare, arguments):
    with pytest.raises(ArgumentError, match="seed" if "seed" in arguments else "n:"):
        run_protocol(bare, **arguments)


def test_the_nearest_stored_configuration_is_the_nearest(panda):
    stored = Stored.draw(panda, 0)
    pose = make_targets(panda, 7).pose
    for target, q in zip(pose, stored.nearest(pose), strict=True):
        want = torch.from_numpy(target).expand(len(stored.q), 7)
        distance = position_error_m(torch.from_numpy(stored.pose), want) * 2 / stored.length
        angle = rotation_error_rad(torch.from_numpy(stored.pose), want)
        best = (distance**2 + (angle / 2).sin() ** 2).argmin()
        np.testing.assert_array_equal(q, stored.q[best])


def test_mmd_of_one_distribution_is_nought_and_of_a_collapsed_one_is_not(panda):
    rng = random_numbers(3)
    x, y = (uniform_joints(panda, 200, rng).numpy() for _ in range(2))
    assert abs(mmd2(x, y, panda, 2.0)) < 0.01
    assert mmd2(x, np.repeat(y[:1], 200, axis=0), panda, 2.0) > 0.3
    assert mmd2(x, x + 2 * math.pi, panda, 2.0) == pytest.approx(mmd2(x, x, panda, 2.0))  # full turns do not count
    # By hand, two points each: kernel 1 within x, k within y and between.
    a, b = np.zeros((2, 7)), np.zeros((2, 7))
    b[:, 0] = 0.4, 0.4
    k = math.exp(-((2 * math.sin(0.2)) ** 2) / (2 * 0.5**2))
    assert mmd2(a, b, panda, 0.5) == pytest.approx(2 - 2 * k)


def test_diversity_tells_collapsed_answers_from_spread_ones(bare):
    diversity = measure_diversity(bare, Stored.draw(bare.robot, 0), seed=0, num_poses=20, num_references=50)
    rows = diversity["rows"]
    assert diversity["poses"] == 20 and all(0 <= row["solved"] <= 1 and row["poses"] <= 20 for row in rows.values())
    truth, reference, midpoint = (rows[name] for name in ("truth", "reference, refined", "midpoint, refined"))
    assert abs(truth["mmd2"]) < 0.01 and truth["spread"] > 1
    assert midpoint["mmd2"] > 0.15 and midpoint["spread"] < 1e-6 and midpoint["reached"] < 0.1
    assert truth["mmd2"] < reference["mmd2"] < midpoint["mmd2"]
    assert truth["reached"] > reference["reached"] > midpoint["reached"]


def planar_arm(slides):
    """Four joints that move 3 numbers of the pose: all turn about z, or the first slides along x."""
    eye, link = torch.eye(3, 4, dtype=torch.float64), torch.eye(3, 4, dtype=torch.float64)
    link[0, 3] = 0.5
    to_x = torch.tensor([[0.0, 0, 1, 0], [0, 1, 0, 0], [-1, 0, 0, 0]], dtype=torch.float64)  # turns z to x
    back = torch.cat([to_x[:, :3].T, torch.zeros(3, 1, dtype=torch.float64)], -1)
    first = [to_x, back] if slides else [eye, link]
    limit = torch.tensor([0.5 if slides else 2.5, 2.5, 2.5, 2.5], dtype=torch.float64)
    kinds = ("prismatic" if slides else "revolute", "revolute", "revolute", "revolute")
    chain = Chain(origins=torch.stack([*first, link, link, link]), kinds=kinds)
    return Robot("planar", "base", "tip", chain, ("a", "b", "c", "d"), -limit, limit)


@pytest.mark.parametrize("slides", [False, True])
def test_true_solutions_are_distributed_as_uniform_joints_that_happen_to_reach_the_pose(slides):
    """Brute force: of 8 million uniform joints those within 40 mm and 4 degrees of the pose."""
    robot, rng, kept = planar_arm(slides), random_numbers(0), []
    known = [0.1, -2.0, 1.5, 0.5] if slides else [1.0, -2.0, -1.5, 0.5]
    solver, pose = Solver.from_robot(robot), robot.fk(torch.tensor(known, dtype=torch.float64))
    angle = sum(known[slides:])
    for _ in range(4):
        q = uniform_joints(robot, 2_000_000, rng)
        turns = q[:, slides:].cumsum(-1)  # all axes are z: angles add up
        x, y = 0.5 * turns.cos().sum(-1) + (q[:, 0] if slides else 0), 0.5 * turns.sin().sum(-1)
        place = torch.hypot(x - pose[0], y - pose[1])
        turn = torch.remainder(turns[:, -1] - angle + math.pi, 2 * math.pi) - math.pi
        kept.append(q[(place < 0.04) & (turn.abs() < math.radians(4))])
    brute = torch.cat(kept)
    assert len(brute) > 90 and position_error_m(robot.fk(brute), pose.expand(len(brute), 7)).max() < 0.0401

    drawn = sample_solutions(solver, pose.numpy(), 600, rng)
    assert len(drawn) > 300
    assert position_error_m(robot.fk(torch.from_numpy(drawn)), pose.expand(len(drawn), 7)).max() < 1e-5
    found = solver.solve_batch(  # what refinement finds from uniform joints is distributed otherwise
        np.broadcast_to(pose.numpy(), (2000, 7)), uniform_joints(robot, 2000, rng), max_attempts=1, max_iterations=20
    )
    values = [mmd2(q, brute.numpy(), robot, 0.6) for q in (drawn, found.q[found.status == Status.SOLVED])]
    assert abs(values[0]) < 0.015 and values[1] > 0.03


def test_the_share_of_free_answers_is_that_of_the_answers_themselves(ur10):
    solver = PerfectNetwork.from_robot(ur10)
    report = run_protocol(solver, n=200, diversity_poses=1)
    targets = make_targets(ur10, 200, kind="global")
    rows = report["free"]
    assert list(rows) == [
        "uniform joints", "network, one step", "network, refined", "solve()", "solve(), network first",
        "solve(), self_collision",
    ]  # fmt: skip
    assert rows["uniform joints"]["free"] == solver.is_free(targets.q_ref).mean() < 0.9
    out = solver.solve_batch(targets.pose, targets.q_ref)
    assert rows["solve()"]["free"] == solver.is_free(out.q[out.status == Status.SOLVED]).mean() < 1
    asked = rows["solve(), self_collision"]
    assert asked["free"] == 1 and asked["solved"] < rows["solve()"]["solved"]
    text = format_protocol(report)
    assert "share of the answers that are free" in text and f"{rows['solve()']['free']:.2%}" in text
    bare = run_protocol(Solver.from_robot(replace(ur10, body=None)), n=20, diversity_poses=1)
    assert bare["free"] == {} and "Self-collision" not in format_protocol(bare)
