"""Every example runs, prints what it shows, and passes the check that it ends with."""

import dataclasses
import re
import sys

import numpy as np
import pytest
import torch
from cmake_project import NEEDS_CMAKE, ROOT, configure, run

from mfik.export import document, write_native
from mfik.kinematics import quat_to_matrix
from mfik.robots import load_robot

EXAMPLES = ROOT / "examples"
GOLDEN = ROOT / "tests" / "golden" / "v1.safetensors"
SHOWN = {
    "solve_pose": r"ten metres further: unreachable",
    "solve_batch": r"row 7 solved alone: the same bits",
    "track_path": r"a jump of 10 cm: .* jump bound",
    "follow_path": r"tool at most 0\.\d+ mm off the plan, 0 contacts",
    "all_solutions": r"ur10: 8 solutions",
    "custom_urdf": r"200 of 200 grips solved",
    "calibrate": r"calibrated: tool off by 0\.0\d+ mm",
}


def test_every_example_stands_here():
    assert {path.stem for path in EXAMPLES.glob("*.py")} == set(SHOWN)


@pytest.mark.parametrize("name", SHOWN)
def test_example_runs_and_checks_itself(name, tmp_path):
    out = run("env", "-C", tmp_path, sys.executable, EXAMPLES / f"{name}.py", PYTHONPATH=str(ROOT))
    assert re.search(SHOWN[name], out), out
    assert not list(tmp_path.iterdir()), "an example leaves nothing behind"


def test_example_takes_a_bundle_and_a_wrong_answer_fails_it(tmp_path):
    assert "ten metres" in run(sys.executable, EXAMPLES / "solve_pose.py", GOLDEN, PYTHONPATH=str(ROOT))
    text = (EXAMPLES / "solve_pose.py").read_text()
    broken = tmp_path / "broken.py"
    broken.write_text(text.replace("reached = robot.fk(", "reached = robot.fk(0.01 + "))
    assert "not as expected" in run(sys.executable, broken, expect=1, PYTHONPATH=str(ROOT))


def test_the_followed_path_would_feel_a_ball_in_its_way(tmp_path):
    text = (EXAMPLES / "follow_path.py").read_text()
    broken = tmp_path / "broken.py"
    broken.write_text(text.replace("pos=BALL", "pos=[0.5, 0.15, 0.4]"))
    out = run(sys.executable, broken, expect=1, PYTHONPATH=str(ROOT))
    assert re.search(r"[1-9]\d* contacts", out) and "not as expected" in out, out


def test_the_custom_robot_is_what_pinocchio_reads():
    pinocchio = pytest.importorskip("pinocchio", reason="needs Pinocchio: pip install pin")
    model = pinocchio.buildModelFromUrdf(str(EXAMPLES / "gantry.urdf"))
    data, robot = model.createData(), load_robot(EXAMPLES / "gantry.urdf", "world", "flange")
    for q in robot.sample(50):
        full = [*q[:5].tolist(), np.cos(q[5]), np.sin(q[5])]  # an endless joint is (cos, sin) there
        pinocchio.framesForwardKinematics(model, data, np.array(full))
        reached, expected = robot.fk(q), data.oMf[model.getFrameId("flange")]
        assert reached[:3].tolist() == pytest.approx(expected.translation, abs=1e-12)
        assert quat_to_matrix(torch.from_numpy(reached[3:])).tolist() == pytest.approx(expected.rotation, abs=1e-12)


@pytest.fixture(scope="module")
def controller(tmp_path_factory):
    """The controller's project, against the mfik that these tests import."""
    folder = tmp_path_factory.mktemp("controller")
    mfik = run(sys.executable, "-m", "mfik", "--cmake-dir").strip()
    configure(EXAMPLES / "controller", folder, f"-Dmfik_DIR={mfik}", "-DCMAKE_COMPILE_WARNING_AS_ERROR=ON")
    run("cmake", "--build", folder)
    return folder / "controller"


class TestController:
    pytestmark = NEEDS_CMAKE

    def test_it_follows_its_circle(self, controller):
        out = run(controller, GOLDEN, *"0 -0.8 0 -2.4 0 1.6 0.8".split())
        assert "panda: 2000 steps tracked" in out and re.search(r"latency p50 .* max \d", out), out

    def test_it_stops_where_the_circle_leaves_the_reach(self, controller):
        assert re.search(r"step \d+: ", run(controller, GOLDEN, *"0 1.5 0 -0.1 0 1.6 0".split(), expect=1))

    def test_it_refuses_joints_of_another_robot(self, controller):
        assert "expected 7 joints, got 6" in run(controller, GOLDEN, *"0 0 0 0 0 0".split(), expect=2)

    def test_its_neighbour_gives_way_to_what_moves_and_comes_back(self, controller, panda, tmp_path):
        write_native(tmp_path / "panda", None, document(None, panda))
        obstacle, start = controller.with_name("obstacle"), "0 -0.8 0 -2.4 0 1.6 0.8".split()
        out = run(obstacle, tmp_path / "panda", *start)
        assert re.search(r"3000 steps, \d{3,4} of them held back", out), out
        away, clearance = map(float, re.search(r"gave way by (\d+) mm, clearance at least ([\d.-]+) mm", out).groups())
        assert away > 50 and clearance > 5, out

    def test_its_neighbour_refuses_a_robot_without_spheres(self, controller, panda, tmp_path):
        bare = dataclasses.replace(panda, body=None)
        write_native(tmp_path / "bare", None, document(None, bare))
        out = run(controller.with_name("obstacle"), tmp_path / "bare", *"0 -0.8 0 -2.4 0 1.6 0.8".split(), expect=2)
        assert "expected a robot with spheres" in out
