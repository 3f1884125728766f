"""Measure the kernels: time, bytes moved, share of the copy bandwidth, and the ratio to the same in plain PyTorch.

A kernel cannot be faster than a copy of as many bytes: its floor is the bytes it has to move (each input read once,
each output written once) over the bandwidth of a copy of a large array in the same run. Where its operations take
longer, at the rate of a large matrix product in the same run (in the precision that the kernel computes in), they are
the floor. The kernels write to memory that is there already, as a training step finds it; plain PyTorch runs the
reference, which allocates.

    python benchmarks/kernels.py                     # CPU, 1M rows
    python benchmarks/kernels.py --device cuda --json kernels.json
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
from report import report_header, write_report

from mfik import ops
from mfik.cli import run_script
from mfik.errors import ArgumentError
from mfik.ops import _reference
from mfik.ops._backend import has_kernel, launch
from mfik.robots import Robot, load_robot

COPY_BYTES = {"cpu": 2**28, "cuda": 2**32}  # of the array that is copied: well past the caches
REPEATS_A_TIME = {"cpu": 1, "cuda": 10}
DOF = 7
# Additions and multiplications a row of csrc/kernels/chain.hpp and refine.hpp, counted by hand for 7 revolute joints: a
# fixed transform 63, a joint's rotation 18, its sine and cosine 30, quaternion 40; a Jacobian column 12; pose error 90;
# J J^T 294, factorisation and solution 180, joints 100.
FK_OPERATIONS = 7 * (63 + 18 + 30) + 40
JACOBIAN_OPERATIONS = 7 * (63 + 18 + 30 + 12)
STEP_OPERATIONS = 7 * (63 + 18 + 30 + 12) + 90 + 294 + 180 + 100
STEPS = 4
PLAIN_ROWS = 1 << 16  # that plain PyTorch refines at a time: it takes some 10 kB a row


class Kernel(NamedTuple):
    """One line of the table: `kernel` and `plain` do the same work.

    Attributes:
        bytes_moved: 0: not bound by memory.
        operations: Floating-point operations; 0: not counted.
    """

    name: str
    bytes_moved: int
    kernel: Callable[[], Any]
    plain: Callable[[], Any]
    operations: int = 0


def addresses(*tensors: torch.Tensor) -> list[int]:
    return [x.data_ptr() for x in tensors]


def streaming_kernels(n: int, device: torch.device, robot: Robot) -> list[Kernel]:
    """Return the kernels of a training step on n rows, in float32, all of them with the JVP."""
    q, q_target, v, derivative = torch.randn(4, n, DOF, device=device)
    pose, u = torch.randn(n, 7, device=device), torch.randn(n, DOF, device=device)
    r = 0.9 * torch.rand(n, 1, device=device)
    t = r + (1 - r) * torch.rand_like(r)
    weight, gradient = torch.rand(2, n, 1, device=device)
    index = torch.randperm(n, device=device)
    step = torch.ones(1, dtype=torch.int64, device=device)
    out = [torch.empty(n, columns, device=device) for columns in (DOF, 7, DOF, 1, 1, DOF, 1)]
    num_jvp, num_endpoint, c, p = n // 4, n // 5, 1e-4, 0.5
    draw = dict(seed=1, step=step, num_jvp=num_jvp, num_endpoint=num_endpoint)
    lines = (q, pose, q_target, r)
    loss, squared, residual = (torch.empty_like(x) for x in (r, r, u))
    arrays = (u, v, derivative, r, t, weight, loss, squared, residual)
    backward = (gradient, residual, squared, weight, out[0])

    def values() -> tuple[Any, ...]:
        return n, 1, step.data_ptr(), 0, num_jvp, num_endpoint, c, p

    def sample(*index: torch.Tensor) -> Callable[[], Any]:
        def run() -> None:
            inputs = addresses(*lines, *index) + [0] * (1 - len(index))
            launch("sample_batch", q, inputs, addresses(*out), n, DOF, values())

        return run

    def plain_loss() -> None:
        _reference.weighted_residual_loss(u, v, derivative, r, t, weight)

    def plain_gradient() -> torch.Tensor:
        return 2 * weight * gradient * residual

    row = 4 * DOF
    chain = (robot.chain.origins.ctypes.data, [0] * DOF, robot.lower.ctypes.data, robot.upper.ctypes.data)
    return [
        Kernel(
            "adaptive_weight",
            n * (2 * row + 4),
            lambda: launch("adaptive_weight", q, *addresses(q, q_target, out[6]), n, DOF, c, p),
            lambda: _reference.adaptive_weight(q, q_target),
        ),
        Kernel(
            "sample_batch, rows in order",
            n * (2 * row + 28 + 4 + 3 * row + 28 + 12),
            sample(),
            lambda: _reference.sample_batch(*lines, **draw),
        ),
        Kernel(
            "sample_batch, shuffled",
            n * (2 * row + 28 + 4 + 3 * row + 28 + 12 + 8),
            sample(index),
            lambda: _reference.sample_batch(*lines, index, **draw),
        ),
        Kernel(
            "draw_batch",
            0,
            lambda: launch("draw_batch", q, *chain, addresses(*out), values()),
            lambda: _reference.draw_batch(robot, n, **draw, device=device),
        ),
        Kernel(
            "weighted_residual_loss",
            n * (4 * row + 20),
            lambda: launch("weighted_residual_loss", q, addresses(*arrays), n, DOF, n, 0.0, c, p),
            plain_loss,
        ),
        Kernel(
            "its backward pass",
            n * (2 * row + 8),
            lambda: launch("weighted_residual_loss_backward", q, addresses(*backward), n, DOF, c, p),
            plain_gradient,
        ),
    ]


def kinematics_kernels(n: int, device: torch.device, robot: Robot) -> list[Kernel]:
    """Return the kernels of kinematics on n rows, in float32; every row of `refine` takes STEPS steps."""
    q, solution = (robot.sample(n, dtype=torch.float32).to(device) for _ in range(2))
    target = ops.fk(robot, solution)
    pose, jac, q_out = torch.empty_like(target), torch.empty(n, 6, DOF, device=device), torch.empty_like(q)
    converged = torch.empty(n, dtype=torch.bool, device=device)
    iterations = torch.empty(n, dtype=torch.int32, device=device)
    chain = (robot.chain.origins.ctypes.data, [0] * DOF)
    limits = (robot.lower.ctypes.data, robot.upper.ctypes.data)
    row = 4 * DOF

    def refine() -> None:
        outputs = addresses(q_out, converged, iterations)
        launch("refine", q, addresses(q, target), *chain, *limits, outputs, n, STEPS, 0.0, 0.0)

    def plain_refine() -> None:
        for part in zip(q.split(PLAIN_ROWS), target.split(PLAIN_ROWS), strict=True):
            _reference.refine(robot, *part, max_iterations=STEPS, tol_pos=0.0, tol_rot=0.0)

    return [
        Kernel(
            "fk",
            n * (row + 28),
            lambda: launch("fk", q, q.data_ptr(), *chain, pose.data_ptr(), n),
            lambda: _reference.fk(robot, q),
            n * FK_OPERATIONS,
        ),
        Kernel(
            "jacobian",
            n * (row + 6 * row),
            lambda: launch("jacobian", q, q.data_ptr(), *chain, jac.data_ptr(), n),
            lambda: _reference.jacobian(robot, q),
            n * JACOBIAN_OPERATIONS,
        ),
        Kernel(
            f"refine, {STEPS} steps",
            n * (2 * row + 28 + 5),
            refine,
            plain_refine,
            n * (STEPS * STEP_OPERATIONS + JACOBIAN_OPERATIONS),
        ),
    ]


def seconds(function: Callable[[], Any], repeats: int, device: torch.device) -> list[float]:
    """Time `repeats` calls (on CUDA: runs of calls), after two that do not count."""
    count = REPEATS_A_TIME[device.type]
    times = []
    for repeat in range(2 + repeats):
        if device.type == "cuda":
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            for _ in range(count):
                function()
            end.record()
            end.synchronize()
            elapsed = begin.elapsed_time(end) / 1e3 / count
        else:
            start = time.perf_counter()
            function()
            elapsed = time.perf_counter() - start
        if repeat >= 2:
            times.append(elapsed)
    return times


def copy_bandwidth(repeats: int, device: torch.device) -> float:
    """Return the bytes a second, read and written, of a copy of a large array."""
    source = torch.ones(COPY_BYTES[device.type] // 4, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / statistics.median(seconds(lambda: target.copy_(source), repeats, device))


def arithmetic_rate(repeats: int, device: torch.device) -> float:
    """Return the operations a second of a large matrix product, in what the kinematics compute in.

    That is float64 on the CPU, and float32 on CUDA (without tensor cores, unless torch was told to use TF32).
    """
    n, dtype = (1024, torch.float64) if device.type == "cpu" else (8192, torch.float32)
    a, b = torch.randn(2, n, n, dtype=dtype, device=device)
    out = torch.empty_like(a)
    return 2 * n**3 / statistics.median(seconds(lambda: torch.matmul(a, b, out=out), repeats, device))


def measure(kernel: Kernel, bandwidth: float, rate: float, repeats: int, device: torch.device) -> dict[str, Any]:
    times, plain = seconds(kernel.kernel, repeats, device), seconds(kernel.plain, max(3, repeats // 4), device)
    median, quartiles = statistics.median(times), statistics.quantiles(times, n=4, method="inclusive")
    copy = kernel.bytes_moved / bandwidth
    floor = max(copy, kernel.operations / rate)
    return {
        "kernel": kernel.name,
        "seconds": median,
        "quartiles_s": [quartiles[0], quartiles[2]],
        "bytes_moved": kernel.bytes_moved,
        "operations": kernel.operations,
        "floor_s": floor,
        "share_of_floor": floor / median if floor else None,
        "share_of_copy_bandwidth": copy / median if copy else None,
        "plain_seconds": statistics.median(plain),
        "speedup_vs_plain": statistics.median(plain) / median,
    }


def table(results: list[dict[str, Any]]) -> str:
    """Format the results as a Markdown table."""
    lines = [
        "| kernel | time [ms] | moved [MB] | operations [M] | floor [ms] | share of floor | speed-up over PyTorch |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    for row in results:
        half = 50 * (row["quartiles_s"][1] - row["quartiles_s"][0]) / row["seconds"]
        cells = [row["kernel"], f"{1e3 * row['seconds']:.3g} ± {half:.0f} %"]
        if row["floor_s"]:
            cells += [f"{row['bytes_moved'] / 1e6:.0f}", f"{row['operations'] / 1e6:.0f}" if row["operations"] else "-"]
            cells += [f"{1e3 * row['floor_s']:.3g}", f"{100 * row['share_of_floor']:.0f} %"]
        else:
            cells += ["-", "-", "-", "bound by arithmetic"]
        lines.append(f"| {' | '.join(cells)} | {row['speedup_vs_plain']:.1f} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cpu", help="torch device, cpu or cuda (default: cpu)")
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows a call (default: 1000000)")
    parser.add_argument("--repeats", type=int, default=20, help="times of each kernel (default: 20)")
    parser.add_argument("--threads", type=int, help="CPU threads (default: PyTorch's)")
    parser.add_argument("--json", type=Path, help="also write the report here")
    args = parser.parse_args()
    for name in ("rows", "repeats", "threads"):
        if getattr(args, name) is not None and getattr(args, name) < (2 if name == "repeats" else 1):
            raise ArgumentError(f"--{name}: expected a larger number, got {getattr(args, name)}")
    if args.threads is not None:
        torch.set_num_threads(args.threads)
    device = torch.empty(0, device=args.device).device
    if not has_kernel("sample_batch", device):
        raise ArgumentError(f"--device {args.device}: mfik was built without kernels for it; see docs/developing.md")

    report = {**report_header(args.device), "rows": args.rows}
    report["copy_bandwidth"] = bandwidth = copy_bandwidth(args.repeats, device)
    report["arithmetic_rate"] = rate = arithmetic_rate(args.repeats, device)
    robot = load_robot("panda")
    kernels = streaming_kernels(args.rows, device, robot) + kinematics_kernels(args.rows, device, robot)
    report["results"] = [measure(kernel, bandwidth, rate, args.repeats, device) for kernel in kernels]
    print(f"{report['hardware']}; {report['threads']} threads; torch {report['torch']}; commit {report['commit'][:12]}")
    print(
        f"{args.rows:,} rows, {DOF} joints, float32; copy {bandwidth / 1e9:.1f} GB/s, read + written; "
        f"{rate / 1e9:.1f} GFLOP/s"
    )
    print(f"median of {args.repeats} times ± half the interquartile range\n")
    print(table(report["results"]))
    write_report(report, args.json)


if __name__ == "__main__":
    run_script(main)
