"""Time differentiable inverse kinematics, forward and backward, on one core: `mfik.torch.ik`, optimisers that are
unrolled, and pytorch-kinematics, whose solver has no gradient.

    taskset -c 0 python benchmarks/layer.py [--robot panda] [--json layer.json]

Poses are those of joints drawn within the limits; references are drawn likewise (`any`), or 0.1 rad (standard
deviation) from those joints (`near`). A pose counts as solved when the joints are within the limits and forward
kinematics in float64 meets 1e-5 m and rad. Programs take turns; times are of a call over all rows, wall time, and of
both passes also the process' processor time, which on a busy machine says more.

`unrolled` is `Robot.refine`, damped least squares in PyTorch within limits, and autograd through its 20 steps. Theseus
(theseus-ai) is its Levenberg-Marquardt optimiser with 20 steps, with forward kinematics and Jacobian of this package,
damping that adapts from 0.1 (of 1e-3 to 0.1, constant or not, what solved most) and no limits; backward through all
steps (`unroll`) or by its implicit differentiation, which has no gradient for q_ref. pytorch-kinematics is its
`PseudoInverseIK`, ten starts a pose from within the limits; it takes no reference.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import peers
import torch
from report import report_header, write_report
from torch import Tensor

from mfik.cli import run_script
from mfik.kinematics import fk_and_jacobian, pose_error, position_error_m, quat_to_matrix, rotation_error_rad
from mfik.robots import Robot, load_robot
from mfik.solve import Solver
from mfik.torch import ik

TOLERANCE = 1e-5  # [m] and [rad]
STEPS = 20  # of an unrolled optimiser
NEAR_RAD = 0.1
SLOW_REPEATS = 3  # at most, of other programs


def theseus_layer(robot: Robot, backward_mode: str) -> Callable[[Tensor, Tensor], Tensor]:
    """Return Theseus' Levenberg-Marquardt of one robot as a function of pose and q_ref."""
    if importlib.util.find_spec("theseus") is None:
        raise peers.NotInstalled("not installed: pip install --no-build-isolation theseus-ai")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # sparse solvers that are not needed
        import theseus

    class PoseCost(theseus.CostFunction):
        """The displacement to the target, and its derivative by the joints."""

        def __init__(self, q: Any, target: Any, weight: Any, name: str | None = None) -> None:
            super().__init__(weight, name=name)
            self.q, self.target = q, target
            self.register_optim_vars(["q"])
            self.register_aux_vars(["target"])

        def error(self) -> Tensor:
            return pose_error(robot.fk(self.q.tensor), self.target.tensor)

        def jacobians(self) -> tuple[list[Tensor], Tensor]:
            pose, jac = fk_and_jacobian(robot.chain, self.q.tensor)
            return [-jac], pose_error(pose, self.target.tensor)

        def dim(self) -> int:
            return 6

        def _copy_impl(self, new_name: str | None = None) -> PoseCost:
            return PoseCost(self.q.copy(), self.target.copy(), self.weight.copy(), name=new_name)

    objective = theseus.Objective(dtype=torch.float64)
    q = theseus.Vector(robot.dof, name="q", dtype=torch.float64)
    target = theseus.Variable(torch.zeros(1, 7, dtype=torch.float64), name="target")
    weight = theseus.ScaleCostWeight(torch.ones(1, 1, dtype=torch.float64))
    objective.add(PoseCost(q, target, weight))
    optimiser = theseus.LevenbergMarquardt(
        objective, linear_solver_cls=theseus.CholeskyDenseSolver, max_iterations=STEPS
    )
    layer = theseus.TheseusLayer(optimiser)

    def solve(pose: Tensor, q_ref: Tensor) -> Tensor:
        settings = {"backward_mode": backward_mode, "damping": 0.1, "adaptive_damping": True}
        return layer.forward({"q": q_ref, "target": pose}, optimizer_kwargs=settings)[0]["q"]

    return solve


def pytorch_kinematics_layer(robot: Robot) -> Callable[[Tensor, Tensor], Tensor]:
    """Return pytorch-kinematics' solver as a function of pose; it computes no gradient."""
    module = peers.require("pytorch_kinematics", "pytorch-kinematics")
    chain = module.build_serial_chain_from_urdf(
        peers.urdf_path(robot).read_bytes(), robot.tip_link, robot.base_link
    ).to(dtype=torch.float64)
    solver = module.PseudoInverseIK(
        chain, pos_tolerance=TOLERANCE, rot_tolerance=TOLERANCE, num_retries=10, max_iterations=50,
        joint_limits=torch.stack(robot.limits(), -1), early_stopping_any_converged=True,
        early_stopping_no_improvement=None,
    )  # fmt: skip

    def solve(pose: Tensor, q_ref: Tensor) -> Tensor:
        with torch.no_grad():
            target = module.Transform3d(pos=pose[:, :3], rot=quat_to_matrix(pose[:, 3:]), dtype=pose.dtype)
            answers = solver.solve(target)
            best = answers.converged.double().argmax(1)
            return answers.solutions[torch.arange(len(pose)), best]

    return solve


def programs(robot: Robot) -> dict[str, Callable[[Tensor, Tensor], Tensor]]:
    """Return functions of pose [N, 7] and q_ref [N, J] to q [N, J]; those that are not installed are named."""
    solver = Solver.from_robot(robot)
    refine = partial(robot.refine, max_iterations=STEPS, tol_pos=0.0, tol_rot=0.0)
    found: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
        "mfik.torch.ik, throughput": lambda pose, q_ref: ik(solver, pose, q_ref, throughput=True),
        "mfik.torch.ik": lambda pose, q_ref: ik(solver, pose, q_ref),
        f"unrolled, {STEPS} steps": lambda pose, q_ref: refine(q_ref, pose).q,
    }
    others = {f"Theseus, {mode}": partial(theseus_layer, robot, mode) for mode in ("unroll", "implicit")}
    others["pytorch-kinematics"] = partial(pytorch_kinematics_layer, robot)
    for name, prepare in others.items():
        try:
            found[name] = prepare()
        except peers.NotInstalled as error:
            print(f"{name}: {error}", file=sys.stderr)
    return found


def solved_share(robot: Robot, pose: Tensor, q: Tensor) -> float:
    reached = robot.fk(q)
    close = (position_error_m(reached, pose) <= TOLERANCE) & (rotation_error_rad(reached, pose) <= TOLERANCE)
    return (close & robot.within_limits(q)).double().mean().item()


def measure(robot: Robot, rows: int, repeats: int) -> list[dict[str, Any]]:
    """Time every program on both sets of references."""
    generator = torch.Generator().manual_seed(0)
    q = robot.sample(rows, generator, torch.float64)
    pose, anywhere = robot.fk(q), robot.sample(rows, generator, torch.float64)
    near = robot.clamp(q + NEAR_RAD * torch.randn(q.shape, generator=generator, dtype=q.dtype))
    gradient = torch.randn(q.shape, generator=generator, dtype=q.dtype)
    solve_of = programs(robot)
    times: dict[tuple[str, str], dict[str, Any]] = {}
    for repeat in range(repeats + 1):  # the first one warms up
        for references, start in (("any", anywhere), ("near", near)):
            for name, solve in solve_of.items():
                if not name.startswith("mfik") and repeat > SLOW_REPEATS:
                    continue
                if name == "pytorch-kinematics" and references == "near":
                    continue
                target, q_ref = pose.clone().requires_grad_(), start.clone().requires_grad_()
                begin, begin_cpu = time.perf_counter(), time.process_time()
                found = solve(target, q_ref)
                between = time.perf_counter()
                if found.requires_grad:
                    torch.autograd.grad(found, (target, q_ref), gradient, allow_unused=True)  # implicit: no q_ref
                end, end_cpu = time.perf_counter(), time.process_time()
                row = times.setdefault((name, references), {key: [] for key in ("forward", "backward", "both", "cpu")})
                row["solved"], row["has_gradient"] = solved_share(robot, pose, found.detach()), found.requires_grad
                if repeat > 0:
                    spans = (between - begin, end - between, end - begin, end_cpu - begin_cpu)
                    for key, seconds in zip(row, spans, strict=False):
                        row[key].append(1e3 * seconds)
    return [
        {
            "program": name,
            "references": references,
            "solved": row["solved"],
            "has_gradient": row["has_gradient"],
            **{f"{key}_ms": statistics.median(row[key]) for key in ("forward", "backward", "both", "cpu")},
            **{f"{key}_min_ms": min(row[key]) for key in ("forward", "backward", "both", "cpu")},
        }
        for (name, references), row in times.items()
    ]


def table(results: list[dict[str, Any]]) -> str:
    """Format the results as a Markdown table."""
    columns = ("forward", "backward", "both", "both_min", "cpu", "cpu_min")
    lines = ["| program | q_ref | solved | forward | backward | both | least | processor | least |"]
    lines.append("|---|---|" + "---:|" * (1 + len(columns)))
    for row in results:
        cells = [
            "-" if column == "backward" and not row["has_gradient"] else f"{row[f'{column}_ms']:,.1f}"
            for column in columns
        ]
        solved = f"{100 * row['solved']:.1f} %"
        lines.append(f"| {row['program']} | {row['references']} | {solved} | {' | '.join(cells)} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--robot", default="panda", help="preset (default: panda)")
    parser.add_argument("--rows", type=int, default=2000, help="poses of a call (default: 2000)")
    parser.add_argument("--repeats", type=int, default=50, help=f"calls, of other programs at most {SLOW_REPEATS}")
    parser.add_argument("--json", type=Path, help="also write the report here")
    args = parser.parse_args()
    torch.set_num_threads(1)
    robot = load_robot(args.robot)
    report = {**report_header("cpu"), "robot": robot.name, "rows": args.rows}
    report["results"] = measure(robot, args.rows, args.repeats)
    print(f"{report['hardware']}; 1 thread; torch {report['torch']}; commit {report['commit'][:12]}")
    print(f"{robot.name}, {args.rows} poses a call, float64; median times in ms\n\n{table(report['results'])}")
    write_report(report, args.json)


if __name__ == "__main__":
    run_script(main)
