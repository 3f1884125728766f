"""scripts/solve_path.py, as a user runs it."""

import json
import subprocess
import sys

import numpy as np
import pytest
from cmake_project import ROOT

from mfik.path import deviation, load_joints, load_poses, save_poses
from mfik.robots import load_robot
from mfik.solve import Solver

HOME = np.array([0, -0.785, 0, -2.356, 0, 1.571, 0.785])


def solve(*arguments, expect=0):
    command = [sys.executable, str(ROOT / "scripts" / "solve_path.py"), *map(str, arguments)]
    out = subprocess.run(command, capture_output=True, text=True)
    assert out.returncode == expect and "Traceback" not in out.stderr, out.stdout + out.stderr
    return out.stdout + out.stderr


@pytest.fixture
def way(panda, tmp_path):
    """A file of three waypoints, 30 cm apart, and the first of them."""
    start = panda.fk(HOME)
    save_poses(
        tmp_path / "way.csv", [start, start + [0.1, 0.25, -0.12, 0, 0, 0, 0], start + [0.2, 0.25, 0, 0, 0, 0, 0]]
    )
    return tmp_path / "way.csv", start


def test_a_path_is_solved_timed_and_reported(panda, way, tmp_path):
    (tmp_path / "world.yaml").write_text("- {type: sphere, radius: 0.1, pose: [0.6, -0.2, 0.4, 1, 0, 0, 0]}\n")
    output = tmp_path / "new" / "path"
    options = ["--max_translation", 0.01, "--world", tmp_path / "world.yaml", "--acceleration", 10]
    out = solve("panda", "--poses", way[0], *options, "--output", output)
    poses, (q, _) = load_poses(output / "poses.csv"), load_joints(output / "joints.csv", panda.joint_names)
    assert f"{len(poses)} of {len(poses)} poses" in out and len(q) == len(poses) > 40
    assert np.linalg.norm(panda.fk(q)[:, :3] - poses[:, :3], axis=1).max() < 1.1e-5
    assert np.abs(np.diff(q, axis=0)).max() <= 0.12 and deviation(panda, q, poses).translation < 2e-4
    samples, t = load_joints(output / "trajectory.npz", panda.joint_names)
    rates = np.diff(samples, axis=0) / 1e-3
    assert len(t) == len(samples) and (np.abs(rates) <= panda.velocity * (1 + 1e-9)).all()
    result = json.loads((output / "result.json").read_text())
    assert result["status"] == "SOLVED" and result["samples_in_collision"] == 0 and result["clearance_mm"] > 0
    page = (output / "index.html").read_text()
    for picture in ("joints", "steps", "clearance", "bounds"):
        assert f"pictures/{picture}-light.svg" in page and (output / "pictures" / f"{picture}-dark.svg").stat().st_size


def test_ends_locks_slack_and_tool_reach_the_solver(panda, way, tmp_path):
    file, start = way
    tool = [0, 0, 0.1, 1, 0, 0, 0]
    spacing = ["--poses", file, "--max_translation", 0.01]
    solve("panda", *spacing, "--output", tmp_path / "tip")
    goal = load_joints(tmp_path / "tip" / "joints.csv", panda.joint_names)[0][-1]
    solve("panda", *spacing, "--q_goal", *(f"{x:.12f}" for x in goal), "--output", tmp_path / "back")
    q, _ = load_joints(tmp_path / "back" / "joints.csv", panda.joint_names)
    np.testing.assert_allclose(q[-1], goal, atol=1e-11)
    name = panda.joint_names[2]
    options = ["--tool", *tool, "--locked", name, "--q_ref", *(HOME + 0.05), "--slack", 0, 0, 0, 0, 0, "inf"]
    solve("panda", *spacing, *options, "--acceleration", 10, "--output", tmp_path / "tool")
    q, _ = load_joints(tmp_path / "tool" / "joints.csv", panda.joint_names)
    np.testing.assert_allclose(q[:, 2], 0.05, atol=1e-12)
    poses = load_poses(tmp_path / "tool" / "poses.csv")
    assert deviation(panda, q, poses, tool=tool).translation < 1e-3
    result = json.loads((tmp_path / "tool" / "result.json").read_text())
    assert result["deviation_mm"] < 1 and result["motion_deviation_mm"] < 5 and "deviation_deg" not in result


def test_what_cannot_be_done_says_where_and_writes_what_can(panda, way, tmp_path):
    file, start = way
    save_poses(file, [start, start + [0, 0.1, 0, 0, 0, 0, 0], start + [1.5, 0, 0, 0, 0, 0, 0]])
    out = solve("panda", "--poses", file, "--max_translation", 0.02, "--output", tmp_path / "path", expect=1)
    result = json.loads((tmp_path / "path" / "result.json").read_text())
    assert 5 < result["reached"] < result["poses"] and "has no solution" in out and "in the file" in out
    q, _ = load_joints(tmp_path / "path" / "joints.csv", panda.joint_names)
    assert len(q) == result["reached"] and result["said"] in (tmp_path / "path" / "index.html").read_text()
    reach = load_poses(tmp_path / "path" / "poses.csv")[: len(q)]
    np.testing.assert_allclose(panda.fk(q)[:, :3], reach[:, :3], atol=1.1e-5)
    save_poses(file, [start + [1.5, 0, 0, 0, 0, 0, 0]])
    out = solve("panda", "--poses", file, "--acceleration", 1, "--output", tmp_path / "none", expect=1)
    assert "0 of 1 poses (none)" in out and not (tmp_path / "none" / "joints.csv").exists()


def test_a_model_and_a_urdf_file_are_taken(way, tmp_path):
    solve("panda", "--poses", way[0], "--max_step", 1.0, "--output", tmp_path / "a", "--q_start", *HOME)
    solver = Solver.pretrained("tiago")
    save_poses(tmp_path / "t.csv", solver.robot.fk(0.5 * (solver.robot.lower + solver.robot.upper))[None])
    solve("tiago", "--poses", tmp_path / "t.csv", "--output", tmp_path / "b")
    gantry = ["--base_link", "world", "--tip_link", "flange"]
    robot = load_robot(ROOT / "examples" / "gantry.urdf", "world", "flange")
    save_poses(tmp_path / "g.csv", robot.fk(robot.clamp(np.full(robot.dof, 0.3)))[None])
    solve(ROOT / "examples" / "gantry.urdf", *gantry, "--poses", tmp_path / "g.csv", "--output", tmp_path / "c")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["pandas"], "pandas"),
        (["panda", "--poses", "none.csv"], "none.csv: cannot read the file"),
        (["panda", "--world", "none.yaml"], "none.yaml: cannot read the file"),
        (["panda", "--locked", "x"], "--locked: expected joints of panda, got 'x'; use panda_joint1"),
        (["panda", "--max_step", "-1"], "max_step: expected a finite number above 0"),
        (["panda", "--max_translation", "0"], "max_translation: expected a finite number above 0"),
        (["panda", "--max_step", "1", "--acceleration", "-1"], "acceleration: expected a finite number above 0"),
        (["tiago", "--tip_link", "x"], "--tip_link: expected none with 'tiago', as a bundle has its own"),
    ],
)
def test_what_is_wrong_is_one_line(way, tmp_path, arguments, message):
    given = [] if "--poses" in arguments else ["--poses", way[0]]
    out = solve(*arguments, *given, "--output", tmp_path / "path", expect=2)
    assert "error: " in out and message in out, out
