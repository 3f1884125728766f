"""Expect times on GPUs from bytes and operations that are counted on the CPU: what a first measurement is judged by.

Bytes are those of the tensors that a kernel is given and returns, each read or written once. Operations are counted by
running the kernels' own source on a number that counts (operations.cpp). Of a training step every operator that it
launches is counted, with the bytes of its tensors and the operations of its matrix products.

    expected = launches * 2 us + sum over launches of max(bytes / bandwidth, operations / rate)

    python benchmarks/roofline.py                          # the tables of docs/measurements/gpu-roofline.md
    python benchmarks/roofline.py --measured FOLDER        # beside what scripts/gpu_checks.sh measured
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import torch
from report import report_header, write_report
from torch import Tensor
from torch.utils import _pytree as pytree
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils.flop_counter import flop_registry

from mfik import ops
from mfik.cli import run_script
from mfik.data import StepRows, generate
from mfik.errors import ArgumentError
from mfik.model import make_network
from mfik.model.v2 import features, network
from mfik.robots import Robot, load_robot
from mfik.train.v1 import MeanFlowTrainer, TrainConfig

ROOT = Path(__file__).resolve().parents[1]
LAUNCH_S = 2e-6  # of a kernel that does nothing, in a graph, with the gap to the next; assumed, not measured
DOF = 7
REFINE_STEPS = 4
SOLVE_ITERATIONS, SOLVE_TOLERANCE = 12, 1e-4  # as benchmarks/solve_gpu.py asks
PRESETS = ("tiny", "small", "default", "nano")
SAMPLE = 1000  # rows that are counted, and poses that are solved to count attempts


class Gpu(NamedTuple):
    """Data-sheet numbers, dense, at boost clock.

    Attributes:
        bandwidth: Of its memory, [B/s].
        rates: Operations a second in "float32", "float64" (both without tensor cores) and "bfloat16" (tensor cores).
    """

    bandwidth: float
    rates: dict[str, float]


GPUS = {
    # NVIDIA H100 and H200 data sheets, SXM (bfloat16: half of what they state with sparsity).
    "H100": Gpu(3.35e12, {"float32": 67e12, "float64": 34e12, "bfloat16": 989e12}),
    "H200": Gpu(4.8e12, {"float32": 67e12, "float64": 34e12, "bfloat16": 989e12}),
    # NVIDIA Ada GPU architecture whitepaper, GeForce RTX 4090 (float64: a 64th of float32).
    "RTX 4090": Gpu(1.008e12, {"float32": 82.6e12, "float64": 1.29e12, "bfloat16": 165.2e12}),
}


class Launch(NamedTuple):
    """One kernel.

    Attributes:
        bytes_moved: Read and written.
        operations: By the arithmetic that they are done in.
    """

    bytes_moved: float
    operations: dict[str, float]

    def seconds(self, gpu: Gpu) -> float:
        """Return the time that it takes at least, but for its launch."""
        return max(self.bytes_moved / gpu.bandwidth, sum(n / gpu.rates[kind] for kind, n in self.operations.items()))


class Kernel(NamedTuple):
    """A kernel of `mfik._native`, on one row."""

    name: str
    launches: int
    row: Launch

    def seconds(self, gpu: Gpu, rows: int) -> float:
        """Return the expected time of so many rows."""
        return self.launches * LAUNCH_S + rows * self.row.seconds(gpu)


def count_operations() -> dict[str, int]:
    """Return the operations of a row of each kernel for DOF joints, by compiling and running operations.cpp."""
    with tempfile.TemporaryDirectory() as folder:
        program = Path(folder) / "operations"
        source = Path(__file__).with_name("operations.cpp")
        command = [os.environ.get("CXX", "c++"), "-std=c++17", f"-I{ROOT / 'csrc'}", str(source), "-o", str(program)]
        subprocess.run(command, check=True)
        lines = subprocess.run([program], check=True, capture_output=True, text=True).stdout.split("\n")
    rows = (line.split() for line in lines if line)
    return {name: int(count) for name, dof, count in rows if int(dof) == DOF}


def nbytes(*values: Any) -> int:
    """Return the bytes of all tensors in nested tuples."""
    return sum(x.nbytes for x in pytree.tree_leaves(values) if isinstance(x, Tensor))


def kernels(robot: Robot, operations: dict[str, int], attempts: float, steps: float) -> list[Kernel]:
    """Return the kernels that CUDA has, with bytes of the tensors that ops take and return, in float32.

    Args:
        robot: With DOF joints.
        operations: Of `count_operations`.
        attempts: Starts that a solved pose takes.
        steps: Steps that it takes in all.
    """
    n = SAMPLE
    q, q_ref, v, derivative, u = torch.randn(5, n, DOF)
    pose, r, t, weight = torch.randn(n, 7), 0.5 * torch.rand(n, 1), torch.rand(n, 1), torch.rand(n, 1)
    index, step, seeds = torch.randperm(n), torch.ones(1, dtype=torch.int64), torch.randn(63, DOF)
    draw: dict[str, Any] = dict(seed=0, step=step, num_jvp=n, num_endpoint=n // 2)
    lines = (q, pose, q_ref, r)
    loss = torch.ops.mfik.weighted_residual_loss(u, v, derivative, r, t, weight, 0.0, 1e-4, 0.5)
    by_loss = (weight, loss[2], weight)  # the squared residual is read where there is no weight
    count = operations
    look, finish = count["look"], count["look"] + 30  # of the error in double, with normalisation and rounding
    refined = REFINE_STEPS * count["step"] + count["look"]

    def kernel(name: str, launches: int, moved: int, **counts: float) -> Kernel:
        return Kernel(name, launches, Launch(moved / n, counts))

    batch = ops.sample_batch(*lines, **draw)
    drawn = ops.draw_batch(robot, n, **draw)
    solved = ops.solve(robot, q, pose, seeds, max_iterations=0)
    return [
        kernel("adaptive_weight", 1, nbytes(q, q_ref, weight), float32=count["adaptive_weight"]),
        kernel("sample_batch, rows in order", 1, nbytes(lines, batch), float32=count["sample_batch"]),
        kernel("sample_batch, shuffled", 1, nbytes(lines, index, batch), float32=count["sample_batch"]),
        kernel("draw_batch", 1, nbytes(drawn), float32=count["sample_batch"], float64=count["fk"]),
        kernel(
            "weighted_residual_loss",
            1,
            nbytes(u, v, derivative, r, t, weight, loss),
            float32=count["weighted_residual_loss"],
        ),
        kernel("its backward pass", 1, nbytes(by_loss, u), float32=count["weighted_residual_loss_backward"]),
        kernel("fk_error", 1, nbytes(q, pose, weight, u), float64=count["fk_error"]),
        kernel("fk", 1, nbytes(q, ops.fk(robot, q)), float32=count["fk"]),
        kernel("jacobian", 1, nbytes(q, ops.jacobian(robot, q)), float32=count["jacobian"]),
        kernel(
            f"refine, {REFINE_STEPS} steps",
            2,
            nbytes(q, pose, ops.refine(robot, q, pose, max_iterations=0)),
            float32=refined,
            float64=finish,
        ),
        kernel(
            "solve, random references",
            2,
            nbytes(q, pose, solved),
            float32=steps * count["step"] + attempts * look,
            float64=finish,
        ),
    ]


def solve_effort(robot: Robot) -> tuple[float, float]:
    """Return mean attempts and steps of a pose from random references; attempts given up count with all their steps."""
    generator = torch.Generator().manual_seed(0)
    solution, q = (robot.sample(SAMPLE, generator) for _ in range(2))
    seeds = robot.sample(63, generator)
    settings: dict[str, Any] = dict(tol_pos=SOLVE_TOLERANCE, tol_rot=SOLVE_TOLERANCE, max_iterations=SOLVE_ITERATIONS)
    rows = ops.solve(robot, q, ops.fk(robot, solution), seeds, **settings)
    steps = (rows.attempts - 1) * SOLVE_ITERATIONS + rows.iterations
    return rows.attempts.double().mean().item(), steps.double().mean().item()


class Operators(TorchDispatchMode):
    """Write down what is launched: every operator that computes, with its tensors' bytes and products' operations."""

    def __init__(self) -> None:
        super().__init__()
        self.launches: list[tuple[str, Launch]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        returns, name = func._schema.returns, func.overloadpacket.__name__
        is_view = bool(returns) and all(x.alias_info is not None and not x.alias_info.is_write for x in returns)
        if is_view or "empty" in name:
            return out
        count = flop_registry.get(func.overloadpacket)
        tensors = [x for x in pytree.tree_leaves((args, kwargs)) if isinstance(x, Tensor)]
        moved = sum(x.nbytes for x in tensors) + nbytes(out)
        operations: dict[str, float] = {}
        if count is not None:
            operations[str(tensors[0].dtype).removeprefix("torch.")] = count(*args, **(kwargs or {}), out_val=out)
        self.launches.append((name, Launch(moved, operations)))
        return out


@contextmanager
def as_on_cuda() -> Iterator[None]:
    """Let networks of type v2 take the way that they take on CUDA: the reference of its geometry, all looks."""
    modules = (features, network)
    before = [module.is_traced for module in modules]
    for module in modules:
        module.is_traced = lambda: True
    try:
        yield
    finally:
        for module, function in zip(modules, before, strict=True):
            module.is_traced = function


def step_launches(kind: str, preset: str, batch: int, robot: Robot, **settings: Any) -> list[tuple[str, Launch]]:
    """Return what a training step launches on CUDA, in bfloat16, by taking it on the CPU; `fk_error` is one of them."""
    torch.manual_seed(0)
    config = TrainConfig(device="cpu", batch_size=batch, max_steps=10, warmup_steps=1, **settings)
    trainer = MeanFlowTrainer(make_network(kind, preset, robot), config, robot)
    trainer._use_amp(torch.bfloat16)
    rows = StepRows.of(generate(robot, batch, coupling="local", seed=0)[:])
    phase = trainer._sampler.phase(1)
    with as_on_cuda():
        trainer._begin_step(batch)
        trainer._advance(rows, phase)  # allocates
        with Operators() as counted:
            trainer._begin_step(batch)
            trainer._advance(rows, phase)
    return counted.launches


class Step(NamedTuple):
    """A training step of any batch: launch by launch what it moves and computes beside what grows with the rows."""

    name: str
    launches: list[tuple[str, Launch, Launch]]  # operator, fixed, of each row

    def products(self) -> float:
        """Return the operations of its matrix products a row."""
        return sum(sum(row.operations.values()) for _, _, row in self.launches)

    def bytes_moved(self, rows: int) -> float:
        """Return the bytes that its operators move."""
        return sum(fixed.bytes_moved + rows * row.bytes_moved for _, fixed, row in self.launches)

    def seconds(self, gpu: Gpu, rows: int, *, fused: bool) -> float:
        """Return the expected time.

        Args:
            gpu: The GPU.
            rows: Batch size.
            fused: Whether all but matrix products, the optimiser and mfik's kernels costs nothing, the least that a
                compiler can reach; else each operator is a launch.
        """
        total = 0.0
        for name, fixed, row in self.launches:
            launch = Launch(
                fixed.bytes_moved + rows * row.bytes_moved,
                {kind: fixed.operations.get(kind, 0) + rows * n for kind, n in row.operations.items()},
            )
            if not fused or launch.operations or name.startswith(("_fused", "_foreach", "weighted", "sample")):
                total += LAUNCH_S + launch.seconds(gpu)
        return total


def count_step(name: str, kind: str, preset: str, robot: Robot, **settings: Any) -> Step:
    """Count a step at two batch sizes and draw the line between them."""
    sizes = (32, 64)
    small, large = (step_launches(kind, preset, batch, robot, **settings) for batch in sizes)
    if [name for name, _ in small] != [name for name, _ in large]:
        raise ArgumentError(f"{name}: its launches depend on the batch")
    lines = []
    for (operator, a), (_, b) in zip(small, large, strict=True):
        moved = (b.bytes_moved - a.bytes_moved) / (sizes[1] - sizes[0])
        products = {key: (b.operations[key] - a.operations[key]) / (sizes[1] - sizes[0]) for key in a.operations}
        fixed = Launch(
            a.bytes_moved - sizes[0] * moved, {key: n - sizes[0] * products[key] for key, n in a.operations.items()}
        )
        lines.append((operator, fixed, Launch(moved, products)))
    return Step(name, lines)


def steps(robot: Robot, presets: list[str]) -> list[Step]:
    """Return the steps of `scripts/train.py` with networks v1 of these sizes; "nano" is v2, as `fit` trains it."""
    fit: dict[str, Any] = dict(
        loss_weight_type="uniform", flow_matching_ratio=0.0, endpoint_ratio=1.0, fk_loss_weight=2.0, reflow_start=1
    )
    return [
        count_step("v2 nano, in fit", "v2", preset, robot, **fit)
        if preset == "nano"
        else count_step(f"v1 {preset}", "v1", preset, robot)
        for preset in presets
    ]


def table(heading: list[str], rows: list[list[str]]) -> str:
    """Format a Markdown table whose first column is text."""
    lines = [heading, ["---", *["---:"] * (len(heading) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def kernel_table(counted: list[Kernel], rows: int) -> str:
    heading = ["kernel", "bytes a row", "float32 operations", "float64", *(f"{name} [ms]" for name in GPUS)]
    cells = [
        [
            kernel.name,
            f"{kernel.row.bytes_moved:.0f}",
            f"{kernel.row.operations.get('float32', 0):,.0f}",
            f"{kernel.row.operations.get('float64', 0):,.0f}",
            *(f"{1e3 * kernel.seconds(gpu, rows):.3g}" for gpu in GPUS.values()),
        ]
        for kernel in counted
    ]
    return table(heading, cells)


def step_table(counted: list[Step], batches: list[int]) -> str:
    heading = ["step", "batch", "launches", "MFLOP a row", "MB"]
    heading += [f"{name} [ms], fused to launched" for name in GPUS]
    cells = [
        [
            step.name,
            f"{batch}",
            f"{len(step.launches):,}",
            f"{step.products() / 1e6:.2f}",
            f"{step.bytes_moved(batch) / 1e6:,.0f}",
            *(
                " to ".join(f"{1e3 * step.seconds(gpu, batch, fused=fused):.3g}" for fused in (True, False))
                for gpu in GPUS.values()
            ),
        ]
        for step in counted
        for batch in batches
    ]
    return table(heading, cells)


def measured_table(folder: Path, counted: list[Kernel], counted_steps: list[Step]) -> str:
    """Compare with the reports that scripts/gpu_checks.sh wrote, where they are of a GPU that is known here.

    Raises:
        ArgumentError: a report is missing.
    """
    reports = {}
    for name in ("kernels", "train_step", "solve_gpu"):
        path = folder / f"{name}.json"
        if not path.is_file():
            raise ArgumentError(
                f"--measured {folder}: expected {path.name} of scripts/gpu_checks.sh, which is not there"
            )
        reports[name] = json.loads(path.read_text())
    hardware = reports["kernels"]["hardware"]
    known = [name for name in GPUS if name in hardware]
    if not known:
        return f"{hardware}: not one of {', '.join(GPUS)}, so nothing is expected of it."
    gpu, by_name, rows = GPUS[known[0]], {kernel.name: kernel for kernel in counted}, []

    def add(what: str, size: int, expected: list[float], seconds: float) -> None:
        within = " to ".join(f"{1e3 * x:.3g}" for x in expected)
        rows.append([what, f"{size}", within, f"{1e3 * seconds:.3g}", f"{seconds / expected[-1]:.2f}"])

    for row in reports["kernels"]["results"]:
        if row["kernel"] in by_name:
            size = reports["kernels"]["rows"]
            add(row["kernel"], size, [by_name[row["kernel"]].seconds(gpu, size)], row["seconds"])
    by_step = {step.name: step for step in counted_steps}
    for row in reports["train_step"]["results"]:
        if (step := by_step.get(f"v1 {row['preset']}")) is not None:
            expected = [step.seconds(gpu, row["batch"], fused=fused) for fused in (True, False)]
            add(step.name, row["batch"], expected, row["batch"] / row["samples_per_s"])
    for row in reports["solve_gpu"]["results"]:
        if row["seed"] == "reference":
            kernel = by_name["solve, random references"]
            add(kernel.name, row["rows"], [kernel.seconds(gpu, row["rows"])], row["seconds"])
    return table([known[0], "rows", "expected [ms]", "measured [ms]", "measured / expected"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000, help="rows a kernel (default: 1000000)")
    parser.add_argument("--batch", type=int, nargs="+", default=[256, 4096, 65536], help="default: 256 4096 65536")
    parser.add_argument(
        "--preset", nargs="+", choices=PRESETS, default=list(PRESETS), help="networks v1; nano: v2, as in fit; all"
    )
    parser.add_argument("--measured", type=Path, metavar="FOLDER", help="output folder of scripts/gpu_checks.sh")
    parser.add_argument("--json", type=Path, help="also write the counts here")
    args = parser.parse_args()
    if min([args.rows, *args.batch]) < 1:
        raise ArgumentError(f"--rows, --batch: expected 1 or more, got {args.rows}, {args.batch}")
    robot = load_robot("panda")
    attempts, taken = solve_effort(robot)
    counted = kernels(robot, count_operations(), attempts, taken)
    counted_steps = steps(robot, args.preset)
    print(
        f"{args.rows:,} rows, {DOF} joints, float32; a solved pose takes {attempts:.2f} attempts, {taken:.1f} steps\n"
    )
    print(kernel_table(counted, args.rows))
    print(f"\n{step_table(counted_steps, args.batch)}")
    if args.measured is not None:
        print(f"\n{measured_table(args.measured, counted, counted_steps)}")
    report = {**report_header("cpu"), "launch_s": LAUNCH_S, "gpus": {name: gpu._asdict() for name, gpu in GPUS.items()}}
    report["kernels"] = [{"name": k.name, "launches": k.launches, **k.row._asdict()} for k in counted]
    report["steps"] = [
        {"name": s.name, "launches": len(s.launches), "flop_a_row": s.products(), "bytes": s.bytes_moved(0)}
        for s in counted_steps
    ]
    write_report(report, args.json)


if __name__ == "__main__":
    run_script(main)
