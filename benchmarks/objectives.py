"""Compare training objectives at equal time: MeanFlow, with reflow, regression, flow matching in several steps.

The same network (version 2), robot, optimiser and minutes on one thread; several seeds. Every answer is judged by
`mfik.eval`'s poses: one-step error, share solved by one attempt of at most ten refinements to 1e-5 m and rad, and the
diversity of answers to one pose from many references beside true solutions of it (docs/accuracy.md).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mfik import ops
from mfik.cli import HelpFormatter
from mfik.data import OnlineSource
from mfik.errors import MfikError
from mfik.eval import make_targets
from mfik.eval.protocol import compare_solutions, sample_solutions
from mfik.eval.targets import random_numbers, uniform_joints
from mfik.kinematics import position_error_m, rotation_error_rad
from mfik.model import make_network
from mfik.report import cpu_name
from mfik.robots import Robot, load_robot
from mfik.solve import Solver
from mfik.train.v1 import MeanFlowTrainer, TrainConfig

_BATCH = 1024
_TRIAL_STEPS = 10
_DIVERSITY_POSES, _DIVERSITY_REFERENCES = 50, 100
_BASE = TrainConfig(
    batch_size=_BATCH, learning_rate=6e-3, loss_weight_type="uniform", limit_loss_weight=1.0, save_interval=0
)


class Objective(NamedTuple):
    """One way to train: settings, coupling, share of the steps before reflow (1: none), and steps of an answer."""

    name: str
    settings: dict[str, Any]
    coupling: str
    reflow_after: float = 1.0
    steps: tuple[int, ...] = (1,)


_ENDPOINTS = {"flow_matching_ratio": 0.0, "endpoint_ratio": 1.0}
_NO_JVP = {**_ENDPOINTS, "jvp_clip": 1e-9}
OBJECTIVES = (
    Objective("MeanFlow", {"flow_matching_ratio": 0.5, "jvp_clip": 0.3}, "mixed"),
    Objective("MeanFlow, endpoints only", {**_ENDPOINTS, "jvp_clip": 0.3}, "mixed"),
    Objective("MeanFlow, then reflow", {**_ENDPOINTS, "jvp_clip": 0.3}, "mixed", 0.2),
    Objective("the same, seeding (scripts/fit.py)", {**_ENDPOINTS, "jvp_clip": 0.3}, "seeding", 0.2),
    Objective("regression, mixed", _NO_JVP, "mixed"),
    Objective("regression, seeding", _NO_JVP, "seeding"),
    Objective("flow matching", {"flow_matching_ratio": 1.0, "fk_loss_weight": 0.0}, "mixed", 1.0, (1, 4, 10)),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--robot", default="panda", help="preset or URDF file")
    parser.add_argument("--preset", default="tiny", help="size of the network")
    parser.add_argument("--minutes", type=float, default=1.0, help="CPU time of each training")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    args = parser.parse_args()
    torch.set_num_threads(1)
    robot = load_robot(args.robot)
    truths = true_solutions(robot)
    print(f"{robot.name}, {args.preset}, {args.minutes:g} minutes of CPU time on {cpu_name()}, {args.seeds} seeds")
    print(
        f"{'objective':38} {'steps':>5} | {'samples':>8} | mm, deg (median) | solved | local mm | spread |"
        " reached |  MMD^2"
    )
    report = []
    for objective in OBJECTIVES:
        found: dict[int, list[dict[str, float]]] = {steps: [] for steps in objective.steps}
        for seed in range(args.seeds):
            model, samples = train(robot, args.preset, objective, args.minutes, seed)
            for steps in objective.steps:
                found[steps].append({"samples": samples, **measure(robot, model, steps, truths)})
        for steps, rows in found.items():
            means = {key: statistics.mean(row[key] for row in rows) for key in rows[0]}
            halves = {key: 0.5 * (max(row[key] for row in rows) - min(row[key] for row in rows)) for key in rows[0]}
            report.append({"objective": objective.name, "steps": steps, "mean": means, "half_range": halves})
            m, h = means, halves
            print(
                f"{objective.name:38} {steps:5} | {m['samples'] / 1e6:6.1f} M | {m['mm']:6.1f}, {m['deg']:5.2f}    | "
                f"{m['solved']:5.1%} ± {h['solved']:.1%} | {m['local_mm']:6.1f} | {m['spread']:6.2f} | "
                f"{m['reached']:6.1%} | {m['mmd2']:6.3f}",
                flush=True,
            )
    if args.json is not None:
        args.json.write_text(json.dumps(report, indent=2) + "\n")


def train(robot: Robot, preset: str, objective: Objective, minutes: float, seed: int) -> tuple[nn.Module, int]:
    """Train for so many minutes of CPU time; return the averaged network and the samples that it saw."""

    def trainer(steps: int, reflow: int) -> MeanFlowTrainer:
        torch.manual_seed(seed)
        config = replace(
            _BASE, **objective.settings, robot=robot.name, seed=seed, max_steps=steps, warmup_steps=round(0.03 * steps),
            reflow_start=reflow, ema_decay=1 - 1 / max(2.0, 0.02 * steps),
        )  # fmt: skip
        return MeanFlowTrainer(make_network("v2", preset, robot), config, robot)

    source = OnlineSource(robot, _BATCH, coupling=objective.coupling, seed=seed)

    def run(trained: MeanFlowTrainer, steps: int) -> float:
        start = time.process_time()
        for _ in range(steps):
            trained.train_step(source.rows(trained.global_step)[0])
            trained.global_step += 1
        return (time.process_time() - start) / steps

    trial = trainer(1000, _TRIAL_STEPS + 2 if objective.reflow_after < 1 else 0)
    run(trial, 2)
    before = run(trial, _TRIAL_STEPS)
    after = run(trial, _TRIAL_STEPS) if objective.reflow_after < 1 else before
    a_step = objective.reflow_after * before + (1 - objective.reflow_after) * after
    steps = max(_TRIAL_STEPS, round(60 * minutes / a_step))
    trained = trainer(steps, round(objective.reflow_after * steps) if objective.reflow_after < 1 else 0)
    run(trained, steps)
    return trained.ema.module.eval(), trained.samples_seen


@torch.no_grad()
def answer(model: nn.Module, q: Tensor, pose: Tensor, steps: int) -> Tensor:
    """Return q_ref + u(q_ref, 0, 1), or for several steps Euler's integral of u(q, r, r)."""
    for k in range(steps):
        r = torch.full((len(q), 1), k / steps)
        q = q + model(q, pose, r, torch.ones_like(r) if steps == 1 else r) / steps
    return q


def measure(robot: Robot, model: nn.Module, steps: int, truths: dict[int, tuple[np.ndarray, np.ndarray]]) -> dict:
    """Return errors, share solved and diversity of a network's answers."""
    row: dict[str, float] = {}
    for kind, prefix in (("global", ""), ("local", "local_")):
        targets = make_targets(robot, 10_000, kind=kind, sigma=0.1)
        pose, q_ref = torch.from_numpy(targets.pose), torch.from_numpy(targets.q_ref)
        q = answer(model, q_ref.float(), pose.float(), steps).double()
        reached = robot.fk(q)
        row[f"{prefix}mm"] = 1e3 * position_error_m(reached, pose).median().item()
        row[f"{prefix}deg"] = torch.rad2deg(rotation_error_rad(reached, pose)).median().item()
        _, solved, _ = ops.refine(robot, q, pose, max_iterations=10)
        row[f"{prefix}solved"] = solved.double().mean().item()
    answers = {}
    rng = random_numbers(1)
    for i, (pose, _) in truths.items():
        q_ref = uniform_joints(robot, _DIVERSITY_REFERENCES, rng).float()
        poses = torch.from_numpy(pose).repeat(len(q_ref), 1)
        q, solved, _ = ops.refine(robot, answer(model, q_ref, poses.float(), steps).double(), poses, max_iterations=10)
        if int(solved.sum()) >= 2:
            answers[i] = q[solved].numpy()
    compared = compare_solutions(robot, answers, {i: truth for i, (_, truth) in truths.items()})
    return {**row, **{key: compared[key] for key in ("spread", "reached", "mmd2")}}


def true_solutions(robot: Robot) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Return poses by number, with true solutions of each."""
    rng, solver = random_numbers(0, 2), Solver.from_robot(robot)
    poses = robot.fk(uniform_joints(robot, _DIVERSITY_POSES, rng)).numpy()
    samples = [(pose, sample_solutions(solver, pose, _DIVERSITY_REFERENCES, rng)) for pose in poses]
    return {i: sample for i, sample in enumerate(samples) if len(sample[1]) >= 4}


if __name__ == "__main__":
    try:
        main()
    except MfikError as error:
        sys.exit(f"error: {error}")
