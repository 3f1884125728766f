"""Measure complete training steps: samples/s, the cost of the JVP, and the gain over the plain way.

The trainers take the same steps (batch, loss, backward, clipping, AdamW, EMA), interleaved:

    plain          u and D of all rows from one differentiated `torch.func.jvp`, AdamW not fused, metrics read each step
    ours           `MeanFlowTrainer` as `fit` runs it; on CUDA, one graph
    flow_matching  ours with flow_matching_ratio = 1: no row needs D, and none is at (0, 1) for the FK loss

    jvp_overhead     = time(ours) / time(flow_matching) - 1
    speedup_vs_plain = time(plain) / time(ours)

On a machine with a GPU, everything that docs/measurements/training-step.md has to say of it:

    python benchmarks/train_step.py --device cuda --preset tiny small default --batch 256 4096 65536 --json step.json
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from report import report_header
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from mfik.cli import run_script
from mfik.data import StepRows, generate
from mfik.errors import ArgumentError
from mfik.model.v1 import MeanFlowNet, ModelConfig
from mfik.robots import Robot, load_robot
from mfik.train.v1 import MeanFlowTrainer, TrainConfig, meanflow_loss
from mfik.train.v1.loss import total_derivative

CLOCKS = {"wall": time.perf_counter, "cpu": time.process_time}
WARMUP_STEPS = {"cpu": 1, "cuda": 8}  # optimiser state and buffers; on CUDA also compilation and capture
STEPS_A_REPEAT = {"cpu": 1, "cuda": 20}  # on CUDA the device is waited for once a repeat


def plain_step(trainer: MeanFlowTrainer, rows: StepRows) -> Callable[[], None]:
    """Return the plain way's step, with the trainer's network and settings."""
    model, config = trainer.model, trainer.config
    optimizer = torch.optim.AdamW(
        model.parameters(), lr=config.learning_rate, betas=config.betas, weight_decay=config.weight_decay
    )
    average = AveragedModel(model, multi_avg_fn=get_ema_multi_avg_fn(config.ema_decay))

    def step() -> None:
        trainer._begin_step(rows.size)
        batch, _, num_endpoint = trainer._sampler.training_sample(rows, trainer._sampler.phase(0))
        with trainer._autocast():
            u, derivative = total_derivative(model, batch.q, batch.target_pose, batch.r, batch.t, batch.v)
        evaluated = SimpleNamespace(forward_with_tangent=lambda *_: (u.float(), derivative.detach().float()))
        output = meanflow_loss(evaluated, batch, len(u), num_endpoint, config, trainer.robot)
        optimizer.zero_grad(set_to_none=True)
        output.loss.backward()
        norm = nn.utils.clip_grad_norm_(model.parameters(), config.gradient_clip or math.inf)
        if math.isfinite(norm.item()) and math.isfinite(output.loss.item()):
            optimizer.step()
            average.update_parameters(model)
        trainer.global_step += 1

    return step


def our_step(trainer: MeanFlowTrainer, rows: StepRows) -> Callable[[], None]:
    """Return the step that `MeanFlowTrainer.fit` takes."""
    advance = trainer._advance if trainer._captured is None else trainer._captured

    def step() -> None:
        trainer._begin_step(rows.size)
        advance(rows, trainer._sampler.phase(0))
        trainer.global_step += 1

    return step


def steps(
    preset: str, batch: int, device: str, robot: Robot, settings: dict[str, Any]
) -> dict[str, Callable[[], None]]:
    """Return the step of each trainer, all with equal weights."""
    rows = StepRows.of(generate(robot, batch, coupling="local", seed=0).to(device)[:])

    def build(**more: Any) -> MeanFlowTrainer:
        torch.manual_seed(0)
        config = TrainConfig(device=device, batch_size=batch, max_steps=10**6, **settings, **more)
        return MeanFlowTrainer(MeanFlowNet(ModelConfig.preset(robot.dof, preset)), config, robot)

    return {
        "plain": plain_step(build(), rows),
        "ours": our_step(build(), rows),
        "flow_matching": our_step(build(flow_matching_ratio=1.0), rows),
    }


def measure(
    preset: str, batch: int, robot: Robot, repeats: int, device: str, settings: dict[str, Any], clock: str
) -> dict[str, Any]:
    """Time the trainers' steps in turn; every time ends with the device done."""
    kind = torch.device(device).type
    now, count = CLOCKS[clock], STEPS_A_REPEAT[kind]
    arms = steps(preset, batch, device, robot, settings)
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    peak_mb: dict[str, float] = {}

    def run(step: Callable[[], None], times: int) -> float:
        start = now()
        for _ in range(times):
            step()
        if kind == "cuda":
            torch.cuda.synchronize(device)
        return (now() - start) / times

    for name, step in arms.items():
        if kind == "cuda":
            torch.cuda.reset_peak_memory_stats(device)
        run(step, WARMUP_STEPS[kind])
        if kind == "cuda":
            peak_mb[name] = torch.cuda.max_memory_allocated(device) / 1e6
    for _ in range(repeats):
        for name, step in arms.items():
            seconds[name].append(run(step, count))
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
        "peak_memory_mb": peak_mb,  # of all trainers that are there by then
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
    parser.add_argument("--preset", nargs="+", choices=ModelConfig.SIZES, default=["small"], help="default: small")
    parser.add_argument("--batch", nargs="+", type=int, default=[256, 4096], help="rows a step (default: 256 4096)")
    parser.add_argument(
        "--repeats", type=int, default=20, help="times of each trainer, of 1 step or on CUDA of 20 (default: 20)"
    )
    parser.add_argument("--fk_loss_weight", type=float, default=1.0, help="0 leaves the FK loss out (default: 1)")
    parser.add_argument("--no-use_amp", dest="use_amp", action="store_false", help="float32 on CUDA too")
    parser.add_argument(
        "--no-compile", dest="compile", action="store_false", help="on CUDA, do not compile the network"
    )
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
    for name, least in (("repeats", 2), ("threads", 1)):
        if getattr(args, name) is not None and getattr(args, name) < least:
            raise ArgumentError(f"--{name}: expected {least} or more, got {getattr(args, name)}")
    if min(args.batch) < 1:
        raise ArgumentError(f"--batch: expected 1 or more rows, got {args.batch}")
    if args.clock == "cpu" and (args.device != "cpu" or args.threads != 1):
        raise ArgumentError("--clock cpu: sums over threads and leaves a GPU out; give --threads 1 --device cpu")
    if args.threads is not None:
        torch.set_num_threads(args.threads)

    robot = load_robot("panda")
    report: dict[str, Any] = {**report_header(args.device), "clock": args.clock}
    settings = {name: getattr(args, name) for name in ("fk_loss_weight", "use_amp", "compile")}
    results = [
        measure(preset, batch, robot, args.repeats, args.device, settings, args.clock)
        for preset in args.preset
        for batch in args.batch
    ]
    print(f"{report['hardware']}; {report['threads']} threads, {args.clock} time")
    print(f"torch {report['torch']}; commit {report['commit'][:12]}")
    print(f"median of {args.repeats} interleaved times ± half the interquartile range\n")
    print(table(results))
    if args.json is not None:
        single = results[0] if len(results) == 1 else {}
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps({**report, **single, "results": results}, indent=2) + "\n")


if __name__ == "__main__":
    run_script(main)
