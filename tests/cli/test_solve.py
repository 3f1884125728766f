"""`mfik solve`, as a user runs it."""

import json
import signal
import subprocess
import sys

import numpy as np
import pytest
from cmake_project import ROOT

from mfik.cli import INTERRUPTED
from mfik.collision import World
from mfik.path import load_joints, save_poses
from mfik.progress import ProgressBar
from mfik.solve import Solver, Status

HOME = np.array([0, -0.785, 0, -2.356, 0, 1.571, 0.785])


@pytest.fixture
def solve(mfik, capsys):
    """Run the command; return exit status, standard output and the last line of standard error."""

    def run(*arguments):
        status = mfik("solve", *arguments)
        out, err = capsys.readouterr()
        return status, out, err.strip().rpartition("\n")[2]

    return run


def test_a_pose_is_solved_in_a_process_of_its_own_without_pytorch(panda, imported):
    pose = panda.fk([5e-05, -0.8, 0, -2.4, 0, 1.6, 0.8])
    words = [f"{number:.9g}" for number in (*pose[:3], *-pose[3:])]
    assert any("e-" in word for word in words), "what argparse takes for an option"
    command = ["solve", "panda", "--pose", *words, "--json"]
    out = subprocess.run([sys.executable, "-m", "mfik", *command], cwd=ROOT, capture_output=True, text=True, check=True)
    answer = json.loads(out.stdout)
    assert answer["status"] == "SOLVED" and answer["joint_names"] == list(panda.joint_names)
    np.testing.assert_allclose(np.abs(panda.fk(answer["q"])), np.abs(pose), atol=2e-5)  # -quat is the same rotation
    assert not imported(*command) & {"torch", "scipy", "tqdm", "onnx"}


def test_joints_are_printed_with_their_units(solve):
    status, out, _ = solve("tiago", "--pose", 0.6, 0, 1, "--q_ref", *[0.1] * 8)
    lines = out.splitlines()
    assert status == 0 and lines[0].startswith("solved") and len(lines) == 9
    name, metres, unit, millimetres, small = lines[1].split()
    assert (name, unit, small) == ("torso_lift_joint", "m", "mm")
    assert float(millimetres) == pytest.approx(1e3 * float(metres), abs=1e-3)
    name, radians, unit, degrees, small = lines[2].split()
    assert (name, unit, small) == ("arm_1_joint", "rad", "deg")
    assert float(degrees) == pytest.approx(np.degrees(float(radians)), abs=1e-3)


def test_a_position_alone_is_reached_with_any_rotation(panda, solve):
    status, out, _ = solve("panda", "--pose", 0.4, 0.2, 0.5, "--json")
    q = np.array(json.loads(out)["q"])
    assert status == 0 and np.linalg.norm(panda.fk(q)[:3] - [0.4, 0.2, 0.5]) < 1e-5
    assert "--slack" in solve("panda", "--pose", 0.4, 0.2, 0.5, "--slack", *[0.1] * 6)[2]


def test_the_options_are_the_solvers(panda, solve, tmp_path):
    pose = panda.fk(HOME)
    (tmp_path / "world.json").write_text('[{"type": "sphere", "radius": 0.1, "pose": [0.3, 0, 1.2, 1, 0, 0, 0]}]')
    tool, slack = [0, 0, 0.1, 1, 0, 0, 0], [0, 0, 0, 0, 0, np.inf]
    arguments = ["--pose", *pose, "--q_ref", *(HOME + 0.2), "--tool", *tool, "--slack", *slack, "--nearest"]
    arguments += ["--locked", "panda_joint1", "--world", tmp_path / "world.json", "--margin", 0.02, "--tol_pos", 1e-7]
    status, out, _ = solve("panda", *arguments, "--json")
    expected = Solver.pretrained("panda").solve(
        pose, HOME + 0.2, tool=tool, slack=slack, nearest=True, locked=[0], margin=0.02, tol_pos=1e-7,
        world=World.from_file(tmp_path / "world.json"),
    )  # fmt: skip
    assert status == 0 and json.loads(out)["q"] == expected.q.tolist()


def test_several_solutions_are_columns(panda, solve):
    status, out, _ = solve("ur10", "--pose", 0.5, 0.2, 0.6, 0, 0.70711, 0.70711, 0, "--all", 8, "--json")
    rows = np.array(json.loads(out)["q"])
    assert status == 0 and rows.shape == (8, 6)
    _, out, _ = solve("ur10", "--pose", 0.5, 0.2, 0.6, 0, 0.70711, 0.70711, 0, "--all", 8)
    first = np.array([line.split()[1:-1] for line in out.splitlines()[1:]], float).T
    assert out.startswith("8 solutions") and np.abs(first - rows).max() < 1e-6


def test_what_is_not_solved_has_its_reason_and_status(solve):
    status, out, err = solve("panda", "--pose", 3, 0, 0.5, 1, 0, 0, 0)
    assert status == 1 and "arm reaches" in out and "which do not solve the pose" in out and err == ""
    status, out, _ = solve("panda", "--pose", 3, 0, 0.5, 1, 0, 0, 0, "--json")
    assert status == 1 and json.loads(out)["status"] == "UNREACHABLE"


def test_a_file_of_poses_is_solved_row_by_row(panda, solve, tmp_path, rng):
    q = panda.sample(50, np.random.default_rng(0))
    poses = panda.fk(q)
    poses[7, 0] = 5.0
    save_poses(tmp_path / "poses.csv", poses)
    output = tmp_path / "new" / "out.npz"
    status, out, _ = solve(
        "panda", "--poses", tmp_path / "poses.csv", "--output", tmp_path / "new" / "out.npz", "--json"
    )
    summary = json.loads(out)
    assert status == 1 and summary["status"] == {"SOLVED": 49, "UNREACHABLE": 1} and summary["poses"] == 50
    found = np.load(output)
    solved = found["status"] == Status.SOLVED
    assert solved.sum() == 49 and not solved[7]
    assert np.linalg.norm(panda.fk(found["q"])[solved, :3] - poses[solved, :3], axis=1).max() < 1e-5
    assert np.array_equal(found["poses"], poses) and len(
        load_joints(tmp_path / "new" / "out.npz", panda.joint_names)[0]
    )

    np.savez(tmp_path / "poses.npz", poses=poses[:7], q_ref=q[:7])
    status, out, _ = solve("panda", "--poses", tmp_path / "poses.npz", "--output", tmp_path / "out.npz")
    assert status == 0 and "7 of 7 poses solved" in out
    np.testing.assert_allclose(np.load(tmp_path / "out.npz")["q"], q[:7], atol=1e-4), "it starts at the solution"


def test_what_ctrl_c_ends_goes_on_with_the_same_command(panda, solve, tmp_path, monkeypatch):
    q = panda.sample(100, np.random.default_rng(0))
    save_poses(tmp_path / "poses.npz", panda.fk(q))
    command = ("panda", "--poses", tmp_path / "poses.npz", "--output", tmp_path / "out.npz")
    assert solve(*command)[0] == 0
    whole = dict(np.load(tmp_path / "out.npz"))
    (tmp_path / "out.npz").unlink()
    update, solve_batch, solved = ProgressBar.update, Solver.solve_batch, []

    def interrupt(bar, n=1):
        update(bar, n)
        if bar.n == 60:
            signal.raise_signal(signal.SIGINT)

    def count(solver, poses, q_ref, **options):
        solved.append(len(poses))
        return solve_batch(solver, poses, q_ref, **options)

    monkeypatch.setattr("mfik.cli.solve._CHUNK", 30)
    monkeypatch.setattr(ProgressBar, "update", interrupt)
    status, _, err = solve(*command)
    (kept,) = tmp_path.glob("out.npz.*.blocks")
    assert status == INTERRUPTED and len(list(kept.iterdir())) == 2 and not (tmp_path / "out.npz").exists()
    assert err.startswith(f"interrupted; {kept} keeps what is done; continue with: python -m mfik solve panda --poses")
    monkeypatch.setattr(ProgressBar, "update", update)
    monkeypatch.setattr(Solver, "solve_batch", count)
    status, out, _ = solve(*command)
    assert status == 0 and "100 of 100 poses solved" in out and sorted(solved) == [10, 30] and not kept.exists()
    found = np.load(tmp_path / "out.npz")
    assert set(found) == set(whole) and all(np.array_equal(found[name], whole[name]) for name in whole)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["pandas", "--pose", 0, 0, 0], "ROBOT: expected a preset (panda, ur10)"),
        (["panda", "--pose", 0, 0, 0, 1], "--pose: expected x y z qw qx qy qz, or x y z alone, got 4 numbers"),
        (["panda", "--pose", 0, 0, 0, 1, 1, 0, 0], "unit quaternion"),
        (["panda", "--pose", 0, 0, "x"], "invalid float value"),
        (["panda"], "--pose --poses is required"),
        (["panda", "--pose", 0, 0, 0, "--q_ref", 1, 2], "q_ref: expected shape [7], got [2]"),
        (["panda", "--pose", 0, 0, 0, "--locked", "elbow"], "--locked: expected joints of panda, got 'elbow'"),
        (["panda", "--pose", 0, 0, 0, "--world", "none.yml"], "none.yml"),
        (["panda", "--pose", 0, 0, 0, "--output", "x.npz"], "--output: expected it with --poses alone"),
        (["panda", "--pose", 0, 0, 0, "--ray", "auto"], "--ray: expected it with --poses alone"),
        (["panda", "--poses", "none.csv", "--output", "x.npz"], "none.csv"),
        (["panda", "--poses", "none.csv", "--threads", 0], "--threads: expected at least 1, got 0; leave it out"),
        (["panda", "--poses", "none.csv"], "--output: expected an .npz file"),
        (["panda", "--poses", "none.csv", "--output", "x.npz", "--all", 3], "--all: expected --pose"),
        (["tiago", "--pose", 0, 0, 0, "--tip_link", "arm_7_link"], "--tip_link: expected none"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(solve, arguments, words):
    status, out, err = solve(*arguments)
    assert status == 2 and words in err and out == ""
