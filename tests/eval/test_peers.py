"""The comparison with other solvers: its judge, its peers where installed, its report."""

import importlib.util
import json
import math
import os
import subprocess
from pathlib import Path

import numpy as np
import peers
import pytest
import solve
import torch
from programs import python

from mfik import ops
from mfik.eval import make_path, make_targets
from mfik.export import NATIVE_FILE, document, write_native
from mfik.kinematics import position_error_m, quat_to_matrix, rotation_error_rad
from mfik.model.v1 import MeanFlowNet, ModelConfig
from mfik.robots import load_robot

ROOT = Path(__file__).resolve().parents[2]
ROBOTS = ("panda", "ur10")


@pytest.mark.parametrize("name", ROBOTS)
def test_the_judge_accepts_answers_and_refuses_near_misses_and_limits(name):
    robot = load_robot(name)
    q = robot.sample(4, torch.Generator().manual_seed(1), dtype=torch.float64)
    pose, q = robot.fk(q).numpy(), q.numpy()
    solved = solve.judge(robot)
    assert solved(pose, q).all() and solved(pose * [1, 1, 1, -1, -1, -1, -1], q).all()
    shifted, turned, out, none = pose.copy(), q.copy(), q.copy(), q.copy()
    shifted[:, 0] += 1.1e-5
    turned[:, -1] += 1.1e-5
    out[:, 0] = robot.upper[0].item() + 1e-9
    none[:, 2] = np.nan
    assert not solved(shifted, q).any() and not solved(pose, turned).any()
    assert not solved(robot.fk(torch.from_numpy(out)).numpy(), out).any() and not solved(pose, none).any()


@pytest.mark.parametrize("name", [name for name in peers.SOLVERS if name != "Pinocchio loop"])
@pytest.mark.parametrize("robot_name", ROBOTS)
def test_every_installed_peer_solves_and_a_missing_one_says_how_to_install_it(robot_name, name):
    robot = load_robot(robot_name)
    try:
        peer = peers.SOLVERS[name](robot)
    except peers.NotInstalled as error:
        assert str(error).startswith("not installed: pip install ")
        return
    solved = solve.judge(robot)
    targets, path = make_targets(robot, 30), make_path(robot, 30)
    out = peer.solve(targets.pose, targets.q_ref, False)
    assert solved(targets.pose, out.q).mean() >= 0.9 and (out.time_us > 0).all()
    tracked = peer.solve(path.pose, path.q_ref, True).q
    assert solved(path.pose, tracked).mean() >= 0.9
    assert np.median(np.abs(tracked - path.q_ref).max(-1)) < math.radians(20)  # near q_ref, not any solution


def test_missing_packages_are_named(monkeypatch, panda):
    monkeypatch.setattr(importlib.util, "find_spec", lambda module: None)
    ready, missing = solve.prepare(panda, None, ["mfik", "roboticstoolbox", "optik", "TRAC-IK", "ssik"])
    assert all(name.startswith("mfik") for name in ready) and missing == {
        "mfik, network": "not measured: give --bundle (scripts/export.py)",
        "roboticstoolbox": "not installed: pip install roboticstoolbox-python",
        "optik": "not installed: pip install optik-py",
        "TRAC-IK": "not installed: pip install pytracik",
        "ssik": "not installed: pip install 'ssik[urdf]'",
    }


def test_pytorch_kinematics_computes_the_same_poses(panda):
    q = panda.sample(5, torch.Generator().manual_seed(0), dtype=torch.float64)
    try:
        out = peers.pytorch_kinematics_fk(panda, q, repeats=3)
    except peers.NotInstalled as error:
        assert str(error) == "not installed: pip install pytorch-kinematics"
        return
    np.testing.assert_allclose(out.q, peers.matrices(panda.fk(q).numpy()), atol=1e-6)  # its URDF values are float32
    assert out.time_us.shape == (3,)


@pytest.mark.slow
@pytest.mark.parametrize("name", ROBOTS)
def test_the_pinocchio_program_computes_poses_steps_and_solutions(name):
    """Compiles it where it is not: a minute."""
    robot = load_robot(name)
    targets = make_targets(robot, 100, kind="local", sigma=0.05, seed=2)
    q_ref, pose = torch.from_numpy(targets.q_ref), torch.from_numpy(targets.pose)
    fk = peers.pinocchio_fk(robot, targets.q_ref, repeats=2)
    ours = robot.fk(q_ref).numpy()
    np.testing.assert_allclose(fk.q[:, :3], ours[:, :3], atol=1e-12)
    rotations = [quat_to_matrix(torch.from_numpy(poses[:, 3:])).numpy() for poses in (fk.q, ours)]
    np.testing.assert_allclose(*rotations, atol=1e-12)
    step = peers.pinocchio_step(robot, targets.q_ref, targets.pose, repeats=3)
    expected = robot.refine(q_ref, pose, max_iterations=1, tol_pos=0.0, tol_rot=0.0).q  # the same formulas
    np.testing.assert_allclose(step.q, expected.numpy(), atol=1e-9)
    assert fk.time_us.shape == (2,) and step.time_us.shape == (3,)
    solved, peer = solve.judge(robot), peers.pinocchio_loop(robot)
    for kind in ("global", "near_limits", "near_singular"):
        targets = make_targets(robot, 300, kind=kind)
        assert solved(targets.pose, peer.solve(targets.pose, targets.q_ref, False).q).mean() >= 0.995


def test_the_report_is_written_and_counts_as_pytorch_does(tmp_path, panda):
    """An untrained network answers q_ref, so its row is that of the reference."""
    model = MeanFlowNet(ModelConfig(width=16, num_blocks=1, cond_dim=8, encoding="none"))
    write_native(tmp_path / NATIVE_FILE, model, document(model, panda))
    files = ["--json", str(tmp_path / "report.json"), "--plot", str(tmp_path / "report.png")]
    command = ["--num", "200", "--solvers", "mfik", "--bundle", str(tmp_path), *files]
    out = subprocess.run(
        [python(), str(ROOT / "benchmarks" / "solve.py"), *command],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert out.returncode == 0, out.stdout + out.stderr
    report = json.loads((tmp_path / "report.json").read_text())
    assert {"command", "commit", "hardware", "versions", "robot", "n", "missing", "solvers", "sets"} == set(report)
    assert list(report["sets"]) == ["any q_ref", "near limits", "near singular", "tracking"]
    costs = report["solvers"]["mfik"]
    assert 0 < costs["python_us"] < 1000 and 0 < costs["call_us"] and "Cost of a call" in out.stdout
    rows = report["sets"]["any q_ref"]
    row = rows["mfik, one attempt: reference"]
    assert rows["mfik"]["success"] == 1.0 and rows["mfik, one attempt: network"]["success"] == row["success"]
    assert 0 < row["p50"] <= row["p99"] <= row["p99.9"] <= row["max"] and row["mean"] > 0
    targets = make_targets(panda, 200)
    refined = panda.refine(torch.from_numpy(targets.q_ref), torch.from_numpy(targets.pose), max_iterations=12)
    pose = panda.fk(refined.q)
    close = (position_error_m(pose, torch.from_numpy(targets.pose)) < 1e-5) & (
        rotation_error_rad(pose, torch.from_numpy(targets.pose)) < 1e-5
    )
    assert row["success"] == pytest.approx(close.double().mean().item(), abs=0.005)
    assert report["sets"]["tracking"]["mfik"]["success"] > 0.95 and "largest step" in out.stdout
    assert (tmp_path / "report.png").stat().st_size > 10_000


def run_benchmark(name, *command):
    out = subprocess.run(
        [python(), str(ROOT / "benchmarks" / name), *command],
        cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert out.returncode == 0, out.stdout + out.stderr
    return out.stdout


def test_the_benchmark_of_the_layer_counts_what_it_solved(tmp_path):
    table = run_benchmark("layer.py", "--rows", "100", "--repeats", "2", "--json", str(tmp_path / "report.json"))
    rows = {
        (row["program"], row["references"]): row
        for row in json.loads((tmp_path / "report.json").read_text())["results"]
    }
    for references in ("any", "near"):
        for program in ("mfik.torch.ik", "mfik.torch.ik, throughput", "unrolled, 20 steps"):
            row = rows[program, references]
            assert f"| {program} | {references} | {100 * row['solved']:.1f} % |" in table
            assert row["solved"] >= (0.99 if program.startswith("mfik") else 0.3) and row["has_gradient"]
            assert 0 < row["forward_min_ms"] <= row["forward_ms"] and 0 < row["backward_min_ms"] <= row["backward_ms"]
    assert rows["unrolled, 20 steps", "near"]["solved"] > 0.9


def test_the_benchmark_of_solving_on_a_device_counts_what_it_solved(tmp_path):
    files = ["--json", str(tmp_path / "report.json")]
    table = run_benchmark(
        "solve_gpu.py", "--device", "cpu", "--rows", "1", "300", "--repeats", "2", "--preset", "tiny", *files
    )
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["network_parameters"] > 50_000 and len(report["results"]) == 8
    for row in report["results"]:
        assert f"| {row['rows']} | {row['seed']} |" in table
        assert row["solved"] >= 0.99 and abs(row["solved"] - row["reported_solved"]) <= 1 / 300
        assert row["checked_solves_per_s"] == pytest.approx(row["solved"] * row["rows"] / row["seconds"])
        assert 1 <= row["attempts_mean"] <= row["attempts_max"] <= 64
    assert "67,000" in table and "10,000,000" in table


@pytest.mark.slow
def test_kinematics_are_compared_in_one_run_and_agree(tmp_path, panda):
    """Compiles both programs where they are not: a minute or two."""
    table = run_benchmark("kinematics.py", "--batch", "1", "64", "--json", str(tmp_path / "report.json"))
    report = json.loads((tmp_path / "report.json").read_text())
    assert [(row["task"], row["batch"]) for row in report["results"]] == [
        (task, batch) for batch in (1, 64) for task in ("fk", "jacobian", "step")
    ]
    for row in report["results"]:
        us = row["us_a_row"]
        assert {"mfik", "ops"} <= set(us) and all(value > 0 for value in us.values())
        if row["task"] != "jacobian":
            fastest = min(value for name, value in us.items() if name not in ("mfik", "ops"))
            assert row["ahead_of_fastest_peer"] == pytest.approx(fastest / us["mfik"])
            assert f"| {row['task']} | {row['batch']} |" in table
    # The program that is timed computes what the ops compute.
    q, target = (panda.sample(20, torch.Generator().manual_seed(seed), torch.float64) for seed in (1, 2))
    program = ROOT / "build" / "benchmarks" / "kinematics" / "csrc" / "mfik_bench_kinematics"
    pose = panda.fk(target)
    expected = {
        "fk": ops.fk(panda, q),
        "jacobian": ops.jacobian(panda, q),
        "step": ops.refine(panda, q, pose, max_iterations=1, tol_pos=0.0, tol_rot=0.0).q,
    }
    for mode, values in expected.items():
        out = peers.run_program(program, panda, mode, q.numpy(), pose.numpy(), "2")
        np.testing.assert_allclose(out[: values.numel()], values.flatten().numpy(), rtol=0, atol=1e-12)
        assert out.size == values.numel() + 2
