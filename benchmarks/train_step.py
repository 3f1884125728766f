"""Measure complete training steps: samples/s, the cost of the JVP, and the gain over the plain way.

Three trainers take the same steps (sample_batch, loss, backward, clipping, AdamW, EMA), interleaved:

    plain          u and D of all rows from one differentiated `torch.func.jvp`; AdamW not fused
    ours           `MeanFlowTrainer` as it is
    flow_matching  ours with flow_matching_ratio = 1: no row needs D, and none is at (0, 1) for the FK loss

    jvp_overhead     = time(ours) / time(flow_matching) - 1
    speedup_vs_plain = time(plain) / time(ours)
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from report import commit, hardware

from mfik.data import generate
from mfik.errors import ArgumentError, MfikError
from mfik.model.v1 import PRESETS, MeanFlowNet, ModelConfig
from mfik.robots import Robot, load_robot
from mfik.train.v1 import MeanFlowTrainer, TrainConfig, meanflow_loss
from mfik.train.v1.loss import LossOutput, total_derivative

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
WARMUP_STEPS = 1  # allocates optimiser state and buffers


class PlainTrainer(MeanFlowTrainer):
    """The plain way: one differentiated `torch.func.jvp` over the whole batch, and AdamW not fused."""

    def __init__(self, model: MeanFlowNet, config: TrainConfig, robot: Robot) -> None:
        super().__init__(model, config, robot)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay
        )

    def _loss(self, model: MeanFlowNet, sample: tuple) -> LossOutput:
        batch, _, num_endpoint = sample
        with torch.autocast(self.device.type, dtype=self._amp_dtype, enabled=self._amp_dtype is not None):
            u, derivative = total_derivative(model, batch.q, batch.target_pose, batch.r, batch.t, batch.v)
        evaluated = SimpleNamespace(forward_with_tangent=lambda *_: (u.float(), derivative.detach().float()))
        return meanflow_loss(evaluated, batch, len(u), num_endpoint, self.config, self.robot)


def trainers(preset: str, device: str, robot: Robot, fk_loss_weight: float) -> dict[str, MeanFlowTrainer]:
    """Return the three trainers, with equal weights."""

    def build(kind: type[MeanFlowTrainer], **settings: Any) -> MeanFlowTrainer:
        torch.manual_seed(0)
        config = TrainConfig(device=device, fk_loss_weight=fk_loss_weight, max_steps=10**6, **settings)
        return kind(MeanFlowNet(ModelConfig.preset(robot.dof, preset)), config, robot)

    return {
        "plain": build(PlainTrainer),
        "ours": build(MeanFlowTrainer),
        "flow_matching": build(MeanFlowTrainer, flow_matching_ratio=1.0),
    }


def measure(
    preset: str, batch: int, robot: Robot, repeats: int, device: str, fk_loss_weight: float, clock: str
) -> dict[str, Any]:
    """Time `repeats` steps of each trainer in turn; each step ends with its metrics read, so the device is done."""
    rows = generate(robot, batch, coupling="local", seed=0).to(device)[:]
    now = CLOCKS[clock]
    arms = trainers(preset, device, robot, fk_loss_weight)
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for repeat in range(WARMUP_STEPS + repeats):
        for name, trainer in arms.items():
            start = now()
            trainer.train_step(rows)
            elapsed = now() - start
            trainer.global_step += 1
            if repeat >= WARMUP_STEPS:
                seconds[name].append(elapsed)
    median = {name: statistics.median(times) for name, times in seconds.items()}
    quartiles = {name: statistics.quantiles(times, n=4, method="inclusive") for name, times in seconds.items()}
    return {
        "preset": preset,
        "batch": batch,
        "samples_per_s": batch / median["ours"],
        "plain_samples_per_s": batch / median["plain"],
        "flow_matching_samples_per_s": batch / median["flow_matching"],
        "quartiles_samples_per_s": {name: [batch / q[2], batch / q[0]] for name, q in quartiles.items()},
        "jvp_overhead": median["ours"] / median["flow_matching"] - 1,
        "speedup_vs_plain": median["plain"] / median["ours"],
    }


def table(results: list[dict[str, Any]]) -> str:
    """Format the results as a Markdown table: medians, and half the interquartile range in percent of them."""
    lines = [
        "| preset | batch | plain [1/s] | ours [1/s] | flow matching [1/s] | JVP overhead | speed-up over plain |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in results:
        medians = (row["plain_samples_per_s"], row["samples_per_s"], row["flow_matching_samples_per_s"])
        cells = [
            f"{median:,.0f} ± {50 * (high - low) / median:.0f} %"
            for median, (low, high) in zip(medians, row["quartiles_samples_per_s"].values(), strict=True)
        ]
        lines.append(
            f"| {row['preset']} | {row['batch']} | {' | '.join(cells)} | {100 * row['jvp_overhead']:.1f} % "
            f"| {row['speedup_vs_plain']:.2f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="torch device, cpu or cuda (default: cpu)")
    parser.add_argument("--preset", nargs="+", choices=PRESETS, default=["small"], help="sizes (default: small)")
    parser.add_argument("--batch", nargs="+", type=int, default=[256, 4096], help="rows a step (default: 256 4096)")
    parser.add_argument("--repeats", type=int, default=20, help="timed steps of each trainer (default: 20)")
    parser.add_argument("--fk_loss_weight", type=float, default=1.0, help="0 leaves the FK loss out (default: 1)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: PyTorch's)")
    parser.add_argument(
        "--clock",
        choices=CLOCKS,
        default="wall",
        help="cpu: the process's CPU time, which with --threads 1 --device cpu is the wall time of an idle machine "
        "also where others use it (default: wall)",
    )
    parser.add_argument("--json", type=Path, help="also write the report here")
    args = parser.parse_args()
    for name in ("repeats", "threads"):
        if getattr(args, name) is not None and getattr(args, name) < 1:
            raise ArgumentError(f"--{name}: expected 1 or more, got {getattr(args, name)}")
    if min(args.batch) < 1:
        raise ArgumentError(f"--batch: expected 1 or more rows, got {args.batch}")
    if args.clock == "cpu" and (args.device != "cpu" or args.threads != 1):
        raise ArgumentError("--clock cpu: sums over threads and leaves a GPU out; give --threads 1 --device cpu")
    if args.threads is not None:
        torch.set_num_threads(args.threads)

    robot = load_robot("panda")
    report: dict[str, Any] = {
        "command": " ".join(["python", *sys.argv]),
        "commit": commit(),
        "hardware": hardware(args.device),
        "threads": torch.get_num_threads(),
        "clock": args.clock,
        "torch": torch.__version__,
    }
    results = [
        measure(preset, batch, robot, args.repeats, args.device, args.fk_loss_weight, args.clock)
        for preset in args.preset
        for batch in args.batch
    ]
    print(f"{report['hardware']}; {report['threads']} threads, {args.clock} time")
    print(f"torch {report['torch']}; commit {report['commit'][:12]}")
    print(f"median of {args.repeats} interleaved steps ± half the interquartile range\n")
    print(table(results))
    if args.json is not None:
        single = results[0] if len(results) == 1 else {}
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({**report, **single, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    try:
        main()
    except MfikError as error:
        sys.exit(f"error: {error}")
