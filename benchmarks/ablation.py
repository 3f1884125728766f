"""Compare training objectives, what the network is told of the geometry, or how often it looks, at equal time.

The same robot, optimiser and minutes on one thread; several seeds. Every answer is judged by `mfik.eval`'s poses: error
of one evaluation and share within 5 mm and 5 deg inside the limits, success rate of one attempt of at most ten
refinements to 1e-5 m and rad, and the diversity of answers to one pose from many references beside true solutions of it
(docs/reference/protocol.md).
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mfik import ops
from mfik.cli import HelpFormatter, run_script
from mfik.data import OnlineSource
from mfik.eval import make_targets
from mfik.eval.protocol import compare_solutions, sample_solutions
from mfik.eval.targets import random_numbers, uniform_joints
from mfik.kinematics import position_error_m, rotation_error_rad
from mfik.model import make_network, v2
from mfik.report import cpu_name
from mfik.robots import Robot, load_robot
from mfik.solve import Solver
from mfik.train.v1 import MeanFlowTrainer, TrainConfig

_BATCH = 1024
_TRIAL_STEPS = 10
_DIVERSITY_POSES, _DIVERSITY_REFERENCES = 50, 100
_BASE = TrainConfig(
    batch_size=_BATCH, loss_weight_type="uniform", fk_loss_weight=2.0, limit_loss_weight=1.0, save_interval=0
)
_LEARNING_RATE_BY_WIDTH = 6e-3 * 128


class Trial(NamedTuple):
    """One way to train.

    Attributes:
        name: For the table.
        settings: Of the training.
        coupling: Of the online rows.
        reflow_after: Share of the steps before reflow; 0: from the second step on, 1: none.
        steps: Of an answer, each a row of the table.
        network: Its type.
        preset: Its size, where it is not the one that is asked for.
        hidden: Parts of `FEATURES` that the network does not see; without the step it takes none either.
        looks: `training_passes` and `passes` of type v2; none: the preset's.
    """

    name: str
    settings: dict[str, Any]
    coupling: str
    reflow_after: float = 1.0
    steps: tuple[int, ...] = (1,)
    network: str = "v2"
    preset: str | None = None
    hidden: tuple[str, ...] = ()
    looks: tuple[int, int] | None = None


_ENDPOINTS = {"flow_matching_ratio": 0.0, "endpoint_ratio": 1.0}
_RECIPE = {**_ENDPOINTS, "jvp_clip": 0.3}
_REGRESSION = {**_ENDPOINTS, "loss_type": "regression"}
FEATURES = ("angles", "wanted frame", "own frame", "difference", "step")
TABLES = {
    "objectives": (
        Trial("MeanFlow", {"flow_matching_ratio": 0.5, "jvp_clip": 0.3}, "mixed"),
        Trial("MeanFlow, endpoints only", _RECIPE, "mixed"),
        Trial("MeanFlow, then reflow", _RECIPE, "mixed", 0.2),
        Trial("MeanFlow, then reflow, seeding", _RECIPE, "seeding", 0.1),
        Trial("regression, mixed", _REGRESSION, "mixed"),
        Trial("regression, seeding", _REGRESSION, "seeding"),
        Trial("regression, then reflow", _REGRESSION, "seeding", 0.5),
        Trial("reflow at once, mixed", _REGRESSION, "mixed", 0.0),
        Trial("reflow at once (fit.py)", _REGRESSION, "seeding", 0.0),
        Trial("flow matching", {"flow_matching_ratio": 1.0, "fk_loss_weight": 0.0}, "mixed", 1.0, (1, 4, 10)),
    ),
    "features": (
        Trial("all", _REGRESSION, "seeding", 0.0),
        Trial("no step", _REGRESSION, "seeding", 0.0, hidden=FEATURES[4:]),
        Trial("no step, no difference", _REGRESSION, "seeding", 0.0, hidden=FEATURES[3:]),
        Trial("target and angles only", _REGRESSION, "seeding", 0.0, hidden=FEATURES[2:]),
        Trial("network v1, tiny", _REGRESSION, "seeding", 0.0, network="v1", preset="tiny"),
    ),
    "looks": tuple(
        Trial(f"{trained} in training, {evaluated} after", _REGRESSION, "seeding", 0.0, looks=(trained, evaluated))
        for trained, evaluated in ((1, 1), (1, 12), (2, 12), (4, 4), (4, 8), (4, 12), (4, 24), (8, 12))
    ),
}


class PartialGeometry(v2.Geometry):
    """`Geometry` with parts set to zero."""

    def __init__(self, robot: Robot, hidden: tuple[str, ...]) -> None:
        super().__init__(robot)
        after_angles = (12, 12, 6, robot.dof)
        sizes = (self.size - sum(after_angles), *after_angles)
        self.mask = torch.cat([torch.full((n,), float(f not in hidden)) for n, f in zip(sizes, FEATURES, strict=True)])

    def forward(self, q: Tensor, target: Tensor | v2.Target) -> tuple[Tensor, Tensor]:
        """Compute the features, see `Geometry`."""
        features, error2 = super().forward(q, target)
        return features * self.mask, error2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--table", choices=tuple(TABLES), default="objectives", help="what is compared")
    parser.add_argument("--only", default="", help="rows of the table whose name contains this")
    parser.add_argument("--robot", default="panda", help="preset or URDF file")
    parser.add_argument("--preset", default="nano", help="size of the network")
    parser.add_argument("--minutes", type=float, default=1.0, help="CPU time of each training")
    parser.add_argument("--seeds", type=int, default=3, help="number of seeds")
    parser.add_argument("--num", type=int, default=10_000, help="poses of each set that is measured")
    parser.add_argument("--json", type=Path, help="also write the numbers here")
    args = parser.parse_args()
    torch.set_num_threads(1)
    robot = load_robot(args.robot)
    truths = true_solutions(robot, min(_DIVERSITY_POSES, args.num))
    print(f"{robot.name}, {args.preset}, {args.minutes:g} minutes of CPU time on {cpu_name()}, {args.seeds} seeds")
    print(
        f"{args.table:38} {'steps':>5} | {'samples':>8} | mm, deg (mean)   | 5 mm, 5 deg   | one attempt   |"
        " local mm | within | spread | reached |  MMD^2"
    )
    report = []
    for trial in (trial for trial in TABLES[args.table] if args.only in trial.name):
        found: dict[int, list[dict[str, float]]] = {steps: [] for steps in trial.steps}
        for seed in range(args.seeds):
            model, samples = train(robot, args.preset, trial, args.minutes, seed)
            for steps in trial.steps:
                found[steps].append({"samples": samples, **measure(robot, model, steps, truths, args.num)})
        for steps, rows in found.items():
            means = {key: statistics.mean(row[key] for row in rows) for key in rows[0]}
            halves = {key: 0.5 * (max(row[key] for row in rows) - min(row[key] for row in rows)) for key in rows[0]}
            report.append({"name": trial.name, "steps": steps, "mean": means, "half_range": halves})
            m, h = means, halves
            print(
                f"{trial.name:38} {steps:5} | {m['samples'] / 1e6:6.1f} M | {m['mm']:6.1f}, {m['deg']:5.2f}    | "
                f"{m['within']:5.1%} ± {h['within']:5.1%} | {m['solved']:5.1%} ± {h['solved']:5.1%} | "
                f"{m['local_mm']:8.2f} | {m['local_within']:5.1%} | {m['spread']:6.2f} | {m['reached']:6.1%} | "
                f"{m['mmd2']:6.3f}",
                flush=True,
            )
    if args.json is not None:
        args.json.write_text(json.dumps(report, indent=2) + "\n")


def train(robot: Robot, preset: str, trial: Trial, minutes: float, seed: int) -> tuple[nn.Module, int]:
    """Train for so many minutes of CPU time; return the averaged network and the samples that it saw."""

    def trainer(steps: int, reflow: int) -> MeanFlowTrainer:
        torch.manual_seed(seed)
        network = make_network(trial.network, trial.preset or preset, robot)
        config = replace(
            _BASE, **trial.settings, robot=robot.name, seed=seed, max_steps=steps, warmup_steps=round(0.03 * steps),
            reflow_start=reflow, ema_decay=1 - 1 / max(2.0, 0.02 * steps),
            learning_rate=_LEARNING_RATE_BY_WIDTH / network.config.width,
        )  # fmt: skip
        if trial.looks is not None:
            network.config.training_passes, network.config.passes = trial.looks
        if trial.hidden:
            network.geometry = PartialGeometry(robot, trial.hidden)
        return MeanFlowTrainer(network, config, robot)

    source = OnlineSource(robot, _BATCH, coupling=trial.coupling, seed=seed)

    def run(trained: MeanFlowTrainer, steps: int) -> float:
        start = time.process_time()
        for _ in range(steps):
            trained.train_step(source.batch(trained.global_step))
            trained.global_step += 1
        return (time.process_time() - start) / steps

    timed = trainer(1000, _TRIAL_STEPS + 2 if trial.reflow_after < 1 else 0)
    run(timed, 2)
    before = run(timed, _TRIAL_STEPS)
    after = run(timed, _TRIAL_STEPS) if trial.reflow_after < 1 else before
    a_step = trial.reflow_after * before + (1 - trial.reflow_after) * after
    steps = max(_TRIAL_STEPS, round(60 * minutes / a_step))
    trained = trainer(steps, max(1, round(trial.reflow_after * steps)) if trial.reflow_after < 1 else 0)
    run(trained, steps)
    return trained.ema.module.eval(), trained.samples_seen


@torch.no_grad()
def answer(model: nn.Module, q: Tensor, pose: Tensor, steps: int) -> Tensor:
    """Return q_ref + u(q_ref, 0, 1), or for several steps Euler's integral of u(q, r, r)."""
    for k in range(steps):
        r = torch.full((len(q), 1), k / steps)
        q = q + model(q, pose, r, torch.ones_like(r) if steps == 1 else r) / steps
    return q


def measure(
    robot: Robot, model: nn.Module, steps: int, truths: dict[int, tuple[np.ndarray, np.ndarray]], num: int
) -> dict:
    """Return errors, success rate and diversity of a network's answers."""
    row: dict[str, float] = {}
    for kind, prefix in (("global", ""), ("local", "local_")):
        targets = make_targets(robot, num, kind=kind, sigma=0.1)
        pose, q_ref = torch.from_numpy(targets.pose), torch.from_numpy(targets.q_ref)
        q = answer(model, q_ref.float(), pose.float(), steps).double()
        reached = robot.fk(q)
        mm, deg = 1e3 * position_error_m(reached, pose), torch.rad2deg(rotation_error_rad(reached, pose))
        row[f"{prefix}mm"], row[f"{prefix}deg"] = mm.mean().item(), deg.mean().item()
        row[f"{prefix}within"] = ((mm <= 5) & (deg <= 5) & robot.within_limits(q)).double().mean().item()
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


def true_solutions(robot: Robot, num: int) -> dict[int, tuple[np.ndarray, np.ndarray]]:
    """Return up to `num` poses by number, with true solutions of each."""
    rng, solver = random_numbers(0, 2), Solver.from_robot(robot)
    poses = robot.fk(uniform_joints(robot, num, rng)).numpy()
    samples = [(pose, sample_solutions(solver, pose, _DIVERSITY_REFERENCES, rng)) for pose in poses]
    return {i: sample for i, sample in enumerate(samples) if len(sample[1]) >= 4}


if __name__ == "__main__":
    run_script(main)
