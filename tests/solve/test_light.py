"""Who only solves needs NumPy: no PyTorch, little time, little memory."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from cmake_project import ROOT

pytest.importorskip("mfik._native", reason="needs the native extension: pip install -e .", exc_type=ImportError)

HEAVY = {"torch", "onnx", "onnxscript", "safetensors", "scipy", "matplotlib", "tensorboard"}
MAX_IMPORT_S = 0.3
MAX_IMPORT_SHARE = 1.7  # of NumPy's
MAX_PEAK_MB = 80

EVERYTHING = """
import numpy as np
from mfik.robots import PRESETS, Robot, load_robot
from mfik.solve import Options, Solver, Status, pretrained_names

robots = [load_robot(name) for name in PRESETS] + [load_robot("examples/gantry.urdf", tip_link="flange")]
solvers = [Solver.pretrained(name) for name in pretrained_names()] + [Solver.from_robot(robot) for robot in robots]
for solver in solvers:
    robot = solver.robot
    assert Robot.from_dict(robot.to_dict()).fingerprint() == robot.fingerprint()
    q = robot.sample(20, np.random.default_rng(0))
    pose, reference = robot.fk(q), robot.clamp(q + 0.1)
    assert robot.within_limits(reference).all() and robot.jacobian(q).shape == (20, 6, robot.dof)
    seeds = ["reference", "midpoint", "azimuth"] + ["network"] * (solver.num_parameters > 0)
    for seed in seeds:
        result = solver.solve(pose[0], reference[0], seed=seed)
        assert result.status is Status.SOLVED and "solved" in solver.explain(result)
    assert solver.solve(pose[0].tolist(), reference[0].tolist(), options=Options(tol_pos=1e-4)).status is Status.SOLVED
    assert solver.track(pose[0], q[0], 0.1).status is Status.SOLVED
    assert len(solver.solve_all(pose[0], 4).q) >= 1
    assert (solver.solve_batch(pose, reference, threads=2).status == Status.SOLVED).mean() > 0.9
"""

REFUSE_TORCH = """
import importlib.abc, sys

class Refuse(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in HEAVY:
            raise ImportError(f"{name} is not installed")

sys.meta_path.insert(0, Refuse())
"""


def python(*arguments: str) -> subprocess.CompletedProcess:
    """Run Python from the repository's root, with its packages."""
    out = subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True)
    assert out.returncode == 0, out.stdout + out.stderr
    return out


def imported(log: str) -> set[str]:
    """Return the top-level packages that `-X importtime` names."""
    lines = [line for line in log.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


def test_nothing_heavy_is_imported_to_load_solve_and_compute_kinematics():
    names = imported(python("-X", "importtime", "-c", EVERYTHING).stderr)
    assert {"numpy", "mfik"} <= names, "the log was not read"
    assert not names & HEAVY


@pytest.mark.parametrize("module", ["mfik", "mfik.errors", "mfik.kinematics", "mfik.robots", "mfik.solve", "mfik.path"])
def test_modules_are_imported_without_anything_heavy(module):
    assert not imported(python("-X", "importtime", "-c", f"import {module}").stderr) & HEAVY


def test_the_import_is_cheap():
    """On a processor on which NumPy alone takes most of the time, beside that."""
    measure = """
import time
begin = time.process_time()
import numpy
numpy_alone = time.process_time() - begin
import mfik.solve
elapsed = time.process_time() - begin
with open("/proc/self/status") as file:
    peak_kb = next(int(line.split()[1]) for line in file if line.startswith("VmHWM"))
print(elapsed, numpy_alone, peak_kb / 1e3)
"""
    runs = np.array([[float(x) for x in python("-c", measure).stdout.split()] for _ in range(5)])
    seconds, numpy_alone, peak = runs.min(0)
    assert seconds <= max(MAX_IMPORT_S, MAX_IMPORT_SHARE * numpy_alone)
    assert peak <= MAX_PEAK_MB


def test_the_example_of_the_readme_works_where_pytorch_is_not_installed():
    text = (ROOT / "README.md").read_text()
    examples = [block.partition("```")[0] for block in text.split("```python\n")[1:]]
    assert any("Solver.pretrained" in example and ".solve(" in example for example in examples)
    refuse = REFUSE_TORCH.replace("HEAVY", repr(HEAVY))
    for example in examples:
        assert python("-c", refuse + example).stdout, "it prints what it found"
    python("-c", refuse + EVERYTHING)


def test_what_needs_pytorch_asks_for_it_where_it_is_not_installed():
    script = (
        REFUSE_TORCH.replace("HEAVY", repr(HEAVY))
        + """
import mfik.kinematics
from mfik.robots import load_robot

for ask in (lambda: mfik.kinematics.fk, lambda: load_robot("panda").limits()):
    try:
        ask()
    except ImportError as error:
        print(error)
"""
    )
    assert python("-c", script).stdout.splitlines() == ["torch is not installed"] * 2


def test_the_examples_of_solving_need_no_pytorch():
    for name in ("solve_pose", "solve_batch", "track_path", "all_solutions"):
        assert "torch" not in Path(ROOT / "examples" / f"{name}.py").read_text()
