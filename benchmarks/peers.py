"""Other people's solvers and kinematics, called for comparison: each the fastest way that its documentation offers.

`solvers(robot)` prepares the inverse kinematics for `benchmarks/solve.py`. `pinocchio_fk`, `pinocchio_step` and
`pytorch_kinematics_fk` time kinematics over a batch. A package that is missing raises `NotInstalled`.
All use one thread, but TRAC-IK, which always runs two solvers side by side.
"""

from __future__ import annotations

import gc
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

import mfik.robots
from mfik.robots import Robot

TOLERANCE = 1e-5  # [m] and [rad]
HERE = Path(__file__).parent
BUILD = HERE.parent / "build" / "benchmarks"
WARMUP = 20  # solves before the timed ones
# What Pinocchio's CMake files ask of a project that uses it: room for its joint types in Boost's lists.
PINOCCHIO_FLAGS = [
    "-DBOOST_MPL_LIMIT_LIST_SIZE=30",
    "-DBOOST_MPL_LIMIT_VECTOR_SIZE=30",
    "-DBOOST_MPL_CFG_NO_PREPROCESSED_HEADERS",
    "-DBOOST_FUSION_INVOKE_MAX_ARITY=12",
]


class NotInstalled(Exception):
    """A peer's package is missing; the message says how to install it."""


class Answers(NamedTuple):
    """Joints [N, J], NaN where the solver gave none, and the time of each solve [us], [N]."""

    q: np.ndarray
    time_us: np.ndarray


class Peer(NamedTuple):
    """A solver ready for one robot.

    Attributes:
        called: From which language, and what.
        iterates: Whether q_ref is where it starts.
        solve: Of pose [N, 7] and q_ref [N, J]; `tracking` asks for the answer near q_ref, where the solver can choose.
        around: What a call from Python takes beyond the time that `solve` reports, [us], of the same arguments, [N];
            None where `solve` is called from Python and its time is the whole call, or where nothing is.
    """

    called: str
    iterates: bool
    solve: Callable[[np.ndarray, np.ndarray, bool], Answers]
    around: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None


def require(module: str, package: str) -> Any:
    """Import a peer's module."""
    if importlib.util.find_spec(module) is None:
        raise NotInstalled(f"not installed: pip install {package}")
    return import_module(module)


def urdf_path(robot: Robot) -> Path:
    """Return the URDF file of a preset."""
    return Path(mfik.robots.__file__).parent / "urdf" / f"{robot.name}.urdf"


def matrices(pose: np.ndarray) -> np.ndarray:
    """Return poses [N, 7] as homogeneous transforms [N, 4, 4]."""
    from mfik.kinematics import quat_to_matrix

    result = np.tile(np.eye(4), (len(pose), 1, 1))
    result[:, :3, :3] = quat_to_matrix(torch.from_numpy(pose[:, 3:])).numpy()
    result[:, :3, 3] = pose[:, :3]
    return result


def timed(solve: Callable[[Any, Any], Any], targets: list, q_ref: list, dof: int) -> Answers:
    """Call a Python function on every row; targets and references have the type that it takes, so only it is timed.

    Args:
        solve: Returns the joints, or None.
    """
    q = np.full((len(targets), dof), np.nan)
    time_us = np.empty(len(targets))
    for target, start in zip(targets[:WARMUP], q_ref[:WARMUP], strict=True):
        solve(target, start)
    gc.collect()
    gc.disable()  # no pause of Python's own falls into a solve
    try:
        for row, (target, start) in enumerate(zip(targets, q_ref, strict=True)):
            begin = time.perf_counter()
            answer = solve(target, start)
            time_us[row] = 1e6 * (time.perf_counter() - begin)
            if answer is not None:
                q[row] = answer
    finally:
        gc.enable()
    return Answers(q, time_us)


def roboticstoolbox(robot: Robot) -> Peer:
    """Chan's Levenberg-Marquardt in C++. Of k = 1, 0.1, 0.01 and ilimit = 20, 30 the fastest, on both robots."""
    rtb = require("roboticstoolbox", "roboticstoolbox-python")
    document = robot.to_dict()
    elements = []
    for joint in document["joints"]:
        elements.append(rtb.ET.SE3(_matrix(joint["origin"])))
        elements.append(rtb.ET.Rz(qlim=np.array([joint["lower"], joint["upper"]])))
    ets = rtb.ETS([*elements, rtb.ET.SE3(_matrix(document["tool"]))])

    def solve(target: np.ndarray, start: np.ndarray) -> np.ndarray | None:
        # tol bounds half the squared error, of position and rotation together.
        out = ets.ik_LM(target, q0=start, tol=0.5 * TOLERANCE**2, ilimit=20, k=0.1, method="chan")
        return out.q if out.success else None

    return Peer(
        "Python, ETS.ik_LM (C++ inside)",
        True,
        lambda pose, q_ref, tracking: timed(solve, list(matrices(pose)), list(q_ref), robot.dof),
    )


def optik(robot: Robot) -> Peer:
    """SLSQP on SE(3) with random restarts, in Rust, on one thread."""
    module = require("optik", "optik-py")
    native = module.Robot.from_urdf_file(str(urdf_path(robot)), robot.base_link, robot.tip_link)
    native.set_parallelism(1)
    # tol_f bounds the squared error, of position and rotation together; the other criteria would stop short of it.
    config = module.SolverConfig(
        solution_mode="speed", max_time=0.1, max_restarts=1_000_000, tol_f=TOLERANCE**2, tol_df=-1.0, tol_dx=-1.0
    )

    def solve(target: list, start: list) -> list | None:
        out = native.ik(config, target, start)
        return None if out is None else out[0]

    return Peer(
        "Python, Robot.ik (Rust inside)",
        True,
        lambda pose, q_ref, tracking: timed(solve, list(matrices(pose)), list(q_ref), robot.dof),
    )


def trac_ik(robot: Robot) -> Peer:
    """TRAC-IK, "Speed", 50 ms, two threads inside.

    Its limits are float32 and it ends up on them, so they are drawn in by 1e-6 rad, or 12 % of its answers lie outside.
    It compares each component of the error with epsilon.
    """
    module = require("pytracik", "pytracik")
    native = module.TRAC_IK(
        robot.base_link,
        robot.tip_link,
        urdf_path(robot).read_text(),
        0.05,
        TOLERANCE / np.sqrt(3.0),
        module.SolveType.Speed,
    )
    module.set_joint_limits(native, (robot.lower + 1e-6).tolist(), (robot.upper - 1e-6).tolist())

    def solve(target: tuple, start: np.ndarray) -> Any:
        out = module.ik(native, start, *target)
        return out[1:] if out[0] >= 0 else None

    def run(pose: np.ndarray, q_ref: np.ndarray, tracking: bool) -> Answers:
        return timed(solve, [tuple(p) for p in pose[:, [0, 1, 2, 4, 5, 6, 3]].tolist()], list(q_ref), robot.dof)

    return Peer("Python, pytracik.ik (C++ inside)", True, run)


def ssik(robot: Robot) -> Peer:
    """Closed form, specialised by `ssik build` for this URDF; q_ref only chooses, in tracking, the nearest answer."""
    require("ssik", "'ssik[urdf]'")
    require("urchin", "'ssik[urdf]'")
    name = f"{robot.name}_ik"
    BUILD.mkdir(parents=True, exist_ok=True)
    ends = ["--base", robot.base_link, "--ee", robot.tip_link]
    build = "import sys; from ssik.cli import main; sys.exit(main())"
    _run([sys.executable, "-c", build, "build", str(urdf_path(robot)), *ends, "--out", f"{BUILD / name}.py"])
    spec = importlib.util.spec_from_file_location(name, BUILD / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def solve(target: np.ndarray, start: np.ndarray) -> np.ndarray | None:
        out = module.solve(target, max_solutions=1)
        return out[0].q if out else None

    def solve_near(target: np.ndarray, start: np.ndarray) -> np.ndarray | None:
        out = module.solve(target, max_solutions=1, q_seed=start)
        return out[0].q if out else None

    def run(pose: np.ndarray, q_ref: np.ndarray, tracking: bool) -> Answers:
        return timed(solve_near if tracking else solve, list(matrices(pose)), list(q_ref), robot.dof)

    return Peer("Python, solve() of `ssik build` (C++ inside)", False, run)


def pinocchio_loop(robot: Robot) -> Peer:
    """Damped least squares with restarts on Pinocchio: benchmarks/pinocchio_loop.cpp."""
    _pinocchio_program()

    def run(pose: np.ndarray, q_ref: np.ndarray, tracking: bool) -> Answers:
        out = _pinocchio(robot, "solve", q_ref, pose)
        q, time_us = out[: q_ref.size].reshape(q_ref.shape), out[q_ref.size :]
        return Answers(q, time_us)

    return Peer("C++, benchmarks/pinocchio_loop.cpp", True, run)


SOLVERS: dict[str, Callable[[Robot], Peer]] = {
    "Pinocchio loop": pinocchio_loop,
    "roboticstoolbox": roboticstoolbox,
    "optik": optik,
    "TRAC-IK": trac_ik,
    "ssik": ssik,
}
PACKAGES = ("pin", "roboticstoolbox-python", "optik-py", "pytracik", "ssik", "numpy", "torch")


def pinocchio_fk(robot: Robot, q: np.ndarray, repeats: int) -> Answers:
    """Compute the poses [N, 7] of q [N, J] with Pinocchio's C++ `repeats` times, in a loop over the rows on one thread.

    Returns:
        Poses, quaternions of either sign, and the time of each repeat [us], [repeats].
    """
    out = _pinocchio(robot, "fk", q, np.zeros((len(q), 7)), str(repeats))
    return Answers(out[: 7 * len(q)].reshape(-1, 7), out[7 * len(q) :])


def pinocchio_step(robot: Robot, q: np.ndarray, pose: np.ndarray, repeats: int) -> Answers:
    """Take one step of damped least squares from q [N, J] to pose [N, 7] with Pinocchio's C++, as `pinocchio_fk`.

    Returns:
        Next joints [N, J] and the time of each repeat [us], [repeats].
    """
    out = _pinocchio(robot, "step", q, pose, str(repeats))
    return Answers(out[: q.size].reshape(q.shape), out[q.size :])


def pytorch_kinematics_fk(
    robot: Robot, q: torch.Tensor, repeats: int, synchronize: Callable[[], None] = lambda: None
) -> Answers:
    """Compute the transforms [N, 4, 4] of q [N, J] with pytorch-kinematics, in q's dtype on its device.

    Args:
        synchronize: Waits for the device; `torch.cuda.synchronize` on a GPU.

    Returns:
        Transforms, and the time of each repeat [us], [repeats].
    """
    module = require("pytorch_kinematics", "pytorch-kinematics")
    chain = module.build_serial_chain_from_urdf(urdf_path(robot).read_bytes(), robot.tip_link, robot.base_link)
    chain = chain.to(dtype=q.dtype, device=q.device)
    matrix = chain.forward_kinematics(q).get_matrix()  # warms up
    time_us = np.empty(repeats)
    for repeat in range(repeats):
        synchronize()
        begin = time.perf_counter()
        matrix = chain.forward_kinematics(q).get_matrix()
        synchronize()
        time_us[repeat] = 1e6 * (time.perf_counter() - begin)
    return Answers(matrix.cpu().numpy(), time_us)


def _pinocchio(robot: Robot, mode: str, q: np.ndarray, pose: np.ndarray, *arguments: str) -> np.ndarray:
    return run_program(_pinocchio_program(), robot, mode, q, pose, *arguments)


def run_program(program: Path, robot: Robot, mode: str, q: np.ndarray, pose: np.ndarray, *arguments: str) -> np.ndarray:
    """Run a C++ program on files in the format of benchmarks/exchange.hpp; return the numbers it wrote."""
    document = robot.to_dict()
    limited = np.array([kind != "continuous" for kind in robot.kinds])
    parts = [
        [robot.dof, len(q)],
        [kind == "prismatic" for kind in robot.kinds],
        np.where(limited, robot.lower, -np.inf),
        np.where(limited, robot.upper, np.inf),
        *(joint["origin"] for joint in document["joints"]),
        document["tool"],
        pose.ravel(),
        q.ravel(),
    ]
    with tempfile.TemporaryDirectory() as folder:
        source, result = Path(folder) / "in", Path(folder) / "out"
        np.concatenate([np.asarray(part, dtype=np.float64) for part in parts]).tofile(source)
        _run([str(program), mode, str(source), str(result), *arguments])
        return np.fromfile(result)


@cache
def _pinocchio_program() -> Path:
    """Compile pinocchio_loop.cpp for this machine against the headers of the PyPI packages, where that is not done."""
    pinocchio = require("pinocchio", "pin")
    include = Path(pinocchio.__file__).parents[4] / "include"
    eigen = next((path for path in (include / "eigen3", Path("/usr/include/eigen3")) if path.is_dir()), None)
    if not include.is_dir() or eigen is None:
        raise NotInstalled("not installed: pip install pin cmeel-eigen")
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise NotInstalled("not installed: a C++ compiler; set CXX")
    program, sources = BUILD / "pinocchio_loop", [HERE / "pinocchio_loop.cpp", HERE / "exchange.hpp"]
    if not program.exists() or program.stat().st_mtime < max(source.stat().st_mtime for source in sources):
        BUILD.mkdir(parents=True, exist_ok=True)
        flags = ["-std=c++17", "-O3", "-DNDEBUG", "-march=native", "-w", *PINOCCHIO_FLAGS]
        headers = ["-isystem", str(include), "-isystem", str(eigen)]
        _run([compiler, *flags, *headers, str(sources[0]), "-o", str(program)])
    return program


def _run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: exit status {done.returncode}\n{done.stdout}{done.stderr}")


def _matrix(origin: list[float]) -> np.ndarray:
    """Return a [3, 4] transform, row by row, as [4, 4]."""
    return np.vstack([np.reshape(origin, (3, 4)), [0.0, 0.0, 0.0, 1.0]])
