"""The CUDA kernels on the CPU (csrc/tests/cuda_emulation): their sources, their launches, PyTorch's answers."""

import math
import os
import shutil
import struct
import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import NamedTuple

import pytest
import torch
from cmake_project import ROOT
from random_robot import mixed_robot, random_robot

from mfik import kinematics, ops
from mfik.ops import MIN_REMAINING, _reference
from mfik.ops.kinematics import KIND_CODES
from mfik.robots import load_robot

EMULATION = ROOT / "csrc" / "tests" / "cuda_emulation"
KERNELS = ROOT / "csrc" / "kernels" / "cuda"
SANITIZERS = {"none": [], "address": ["address,alignment,bounds"], "thread": ["thread"]}
# AddressSanitizer takes three times as long to compile with -O1; `__restrict__` shows what it does with -O2.
LEVELS = {"none": "-O2", "address": "-O0", "thread": "-O1"}
DTYPES = (torch.float32, torch.float64)
SIZES = (0, 1, 127, 128, 129, 255, 256, 257)  # around tiles of 128 rows and blocks of 256 threads
SEED, STEP, RANK = 2**62 + 12345, 2**40 + 7, 3
C, P = 1e-3, 0.6

pytestmark = pytest.mark.slow


class Call(NamedTuple):
    """A call of a kernel, and the check of what it wrote: tensors in the order of `out` (shape and dtype)."""

    name: str
    dtype: torch.dtype
    integers: list
    reals: list
    arrays: list
    out: list
    check: object
    repeats: int = 1

    def __str__(self):
        return f"{self.name} {self.dtype} {self.integers}"

    def packed(self, shifted):
        """Return what the program reads; shifted arrays begin an element past the alignment of an allocation."""

        def values(kind, items):
            return struct.pack(f"<q{len(items)}{kind}", len(items), *items)

        arrays = [array.contiguous().numpy().tobytes() for array in self.arrays]
        return b"".join(
            [b"+", struct.pack("<q", len(self.name)), self.name.encode()]
            + [struct.pack("<qq", self.dtype == torch.float64, self.repeats)]
            + [values("q", self.integers), values("d", self.reals)]
            + [values("q", [array.dtype.itemsize * shifted for array in self.arrays])]
            + [struct.pack("<q", len(array)) + array for array in arrays]
            + [values("q", [dtype.itemsize * shifted for _, dtype in self.out])]
            + [struct.pack("<q", math.prod(shape) * dtype.itemsize) for shape, dtype in self.out]
        )


@cache
def robot_of(name):
    """Return six joints, seven, three, or eight of every kind: two are compiled with their number, two are not."""
    if name == "mixed":
        return mixed_robot()
    return random_robot("revolute", "prismatic", "continuous") if name == "short" else load_robot(name)


def numbers(*shape, seed=0, dtype):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def joints(robot, rows, seed, dtype):
    return torch.as_tensor(robot.sample(rows, torch.Generator().manual_seed(seed))).to(dtype)


def close(value, expected, *, dtype, single=1e-5, double=1e-12):
    tolerance = single if dtype == torch.float32 else double
    torch.testing.assert_close(value.double(), expected.double(), rtol=tolerance, atol=tolerance, equal_nan=True)


def adaptive_weight_call(rows, dof, dtype, repeats=1):
    q, q_target = numbers(2, rows, dof, dtype=dtype)

    def check(weight):
        close(weight, _reference.adaptive_weight(q, q_target, C, P), dtype=dtype)

    return Call(
        "adaptive_weight", dtype, [rows, dof], [C, P], [q, q_target], [((rows, 1), dtype)], check, repeats=repeats
    )


def times(rows):
    return dict(seed=SEED, step=STEP, rank=RANK, num_jvp=2 * rows // 3, num_endpoint=rows // 3, c=C, p=P)


def batch_integers(rows, dof):
    return [rows, dof, SEED, RANK, 2 * rows // 3, rows // 3]


def batch_shapes(rows, dof, dtype):
    return [((rows, width), dtype) for width in (dof, 7, dof, 1, 1, dof, 1)]


def sample_batch_call(rows, dof, dtype, *, indexed):
    lines = 57 if indexed else rows
    q, q_target = numbers(2, lines, dof, dtype=dtype)
    pose = numbers(lines, 7, seed=1, dtype=dtype)
    r = numbers(lines, 1, seed=2, dtype=dtype).sigmoid() * (1 - MIN_REMAINING)
    index = torch.arange(rows if indexed else 0).flip(0) * 23 % lines
    bad = torch.arange(rows) % 10 == 3 if indexed else torch.zeros(rows, dtype=torch.bool)

    def check(*batch):
        expected = _reference.sample_batch(q, pose, q_target, r, index if indexed else None, **times(rows))
        for name, value, reference in zip(ops.Batch._fields, batch, expected, strict=True):
            if name in ("r", "t"):
                assert torch.equal(value, reference)
            else:  # times 100 where a velocity was divided by MIN_REMAINING
                close(value[~bad], reference[~bad], dtype=dtype, single=1e-4)
                assert value[bad].isnan().all()

    given = index.masked_fill(bad, lines) if indexed else index
    arrays = [torch.tensor([STEP]), q, pose, q_target, r, given]
    integers = [*batch_integers(rows, dof), lines]
    return Call("sample_batch", dtype, integers, [C, P], arrays, batch_shapes(rows, dof, dtype), check)


def losses(rows, dof, dtype):
    u, v = numbers(2, rows, dof, dtype=dtype)
    r, t, weight = numbers(3, rows, 1, seed=2, dtype=dtype).sigmoid()
    return u, v, numbers(rows // 3, dof, seed=1, dtype=dtype), 0.5 * r, 0.5 + 0.5 * t, weight


def loss_call(rows, dof, dtype, *, weighted, clip):
    u, v, derivative, r, t, weight = losses(rows, dof, dtype)

    def check(loss, squared, residual):
        lines = (u.clone().requires_grad_(), v, derivative, r, t)
        expected = _reference.weighted_residual_loss(*lines, weight if weighted else None, clip=clip, c=C, p=P)
        close(loss, expected[0].detach(), dtype=dtype)
        close(squared, expected[1], dtype=dtype)
        plain, _ = _reference.weighted_residual_loss(*lines, torch.ones_like(r), clip=clip)
        (gradient,) = torch.autograd.grad(plain.sum(), lines[0])
        close(residual, gradient / 2, dtype=dtype)

    arrays = [u, v, derivative, r, t, weight if weighted else weight[:0]]
    shapes = [((rows, 1), dtype), ((rows, 1), dtype), ((rows, dof), dtype)]
    integers = [rows, dof, len(derivative)]
    return Call("weighted_residual_loss", dtype, integers, [clip, C, P], arrays, shapes, check)


def loss_backward_call(rows, dof, dtype, *, weighted):
    u, v, derivative, r, t, weight = losses(rows, dof, dtype)
    own = weight if weighted else None
    lines = (u.clone().requires_grad_(), v, derivative, r, t)
    loss, squared = _reference.weighted_residual_loss(*lines, own, c=C, p=P)
    plain, _ = _reference.weighted_residual_loss(*lines, torch.ones_like(r))
    (twice,) = torch.autograd.grad(plain.sum(), lines[0])
    cotangent = numbers(rows, 1, seed=3, dtype=dtype)

    def check(gradient):
        (expected,) = torch.autograd.grad(loss, lines[0], cotangent)
        close(gradient, expected, dtype=dtype)

    arrays = [cotangent, twice / 2, squared, weight if weighted else weight[:0]]
    return Call("weighted_residual_loss_backward", dtype, [rows, dof], [C, P], arrays, [((rows, dof), dtype)], check)


def robot_call(name, robot, dtype, integers, reals, arrays, out, check):
    chain = [*robot.lower, *robot.upper, *robot.chain.transforms().flatten().tolist()]
    kinds = [KIND_CODES[kind] for kind in robot.chain.kinds]
    return Call(name, dtype, [*integers, *kinds], [*chain, *reals], arrays, out, check)


def fk_call(rows, robot, dtype):
    q = joints(robot, rows, 0, dtype)

    def check(pose):
        close(pose, _reference.fk(robot, q.double()), dtype=dtype)

    return robot_call("fk", robot, dtype, [rows, robot.dof], [], [q], [((rows, 7), dtype)], check)


def jacobian_call(rows, robot, dtype):
    q = joints(robot, rows, 0, dtype)

    def check(jacobian):
        close(jacobian, _reference.jacobian(robot, q.double()), dtype=dtype)

    out = [((rows, 6, robot.dof), dtype)]
    return robot_call("jacobian", robot, dtype, [rows, robot.dof], [], [q], out, check)


def fk_error_call(rows, robot, dtype):
    q = joints(robot, rows, 0, dtype)
    pose = _reference.fk(robot, joints(robot, rows, 1, torch.float64)).to(dtype)

    def check(error, gradient):
        of = q.double().requires_grad_()
        mean = _reference.fk_error(robot, of, pose, rows)
        close(error.double().mean(), mean.detach(), dtype=dtype)
        (expected,) = torch.autograd.grad(mean, of)
        close(gradient, rows * expected, dtype=dtype)
        for i in {0, rows // 2, rows - 1}:
            close(error[i], _reference.fk_error(robot, q[i : i + 1].double(), pose[i : i + 1], 1), dtype=dtype)

    out = [((rows,), dtype), ((rows, robot.dof), dtype)]
    return robot_call(
        "fk_error", robot, dtype, [rows, robot.dof], [], [q, pose], out, check if rows else lambda *_: None
    )


def draw_batch_call(rows, robot, dtype):
    def check(*batch):
        expected = _reference.draw_batch(robot, rows, dtype=dtype, **times(rows))
        for name, value, reference in zip(ops.Batch._fields, batch, expected, strict=True):
            if name in ("q_target", "r", "t"):
                assert torch.equal(value, reference), name
            elif name == "target_pose":  # at qw = 0 the sign is a matter of rounding
                sign = (value[:, 3:] * reference[:, 3:]).sum(-1, keepdim=True).sign()
                close(value[:, :3], reference[:, :3], dtype=dtype)
                close(value[:, 3:], sign * reference[:, 3:], dtype=dtype)
            else:
                close(value, reference, dtype=dtype)

    out = batch_shapes(rows, robot.dof, dtype)
    integers = batch_integers(rows, robot.dof)
    return robot_call("draw_batch", robot, dtype, integers, [C, P], [torch.tensor([STEP])], out, check)


def problems(rows, robot, dtype, noise):
    """Starts and poses that can be reached; every tenth row cannot be used."""
    solution = joints(robot, rows, 1, torch.float64)
    q = solution + noise * numbers(rows, robot.dof, dtype=torch.float64)
    pose = _reference.fk(robot, solution)
    pose[:, 3:] *= -2.0
    bad = torch.arange(rows) % 10 == 9
    q[bad, 0] = torch.nan
    return q.to(dtype), pose.to(dtype), bad


def check_solved(robot, q, pose, bad, converged, tolerance, share):
    """Joints reach their poses as far as `converged` says, judged in float64."""
    assert q[bad].isnan().all() and not converged[bad].any()
    q, pose, converged = q[~bad].double(), pose[~bad].double(), converged[~bad]
    assert robot.within_limits(q).all()
    error = kinematics.pose_error(_reference.fk(robot, q), kinematics.normalize_pose(pose))
    position, rotation = error[:, :3].norm(dim=-1), error[:, 3:].norm(dim=-1)
    reached = (position <= tolerance * (1 - 1e-3)) & (rotation <= tolerance * (1 - 1e-3))
    near = (position <= tolerance * (1 + 1e-3)) & (rotation <= tolerance * (1 + 1e-3))
    assert (converged | ~reached).all() and (near | ~converged).all()
    assert converged.sum() >= share * len(q)
    return position, rotation


def refine_call(rows, robot, dtype):
    tolerance = 1e-5 if dtype == torch.float32 else 1e-9
    q, pose, bad = problems(rows, robot, dtype, noise=0.1)

    def check(got, converged, iterations):
        check_solved(robot, got, pose, bad, converged, tolerance, 0.9)
        expected = _reference.refine(robot, q, pose, max_iterations=20, tol_pos=tolerance, tol_rot=tolerance)
        assert (converged.sum() - expected.converged.sum()).abs() <= 0.05 * rows
        assert not iterations[bad].any() and (iterations <= 20).all()

    out = [((rows, robot.dof), dtype), ((rows,), torch.bool), ((rows,), torch.int32)]
    integers, reals = [rows, robot.dof, 20], [tolerance, tolerance]
    return robot_call("refine", robot, dtype, integers, reals, [q, pose], out, check)


def solve_call(rows, robot, dtype, num_seeds=12):
    q, pose, bad = problems(rows, robot, dtype, noise=1.0)
    seeds = joints(robot, num_seeds, 2, dtype)

    def check(got, position, rotation, converged, iterations, attempts):
        exact = check_solved(robot, got, pose, bad, converged, 1e-4, 0.9)
        for reported, judged in zip((position, rotation), exact, strict=True):
            assert reported[bad].isnan().all()
            close(reported[~bad], judged, dtype=dtype, single=1e-6, double=1e-9)
        assert not attempts[bad].any() and not iterations[bad].any()
        assert (attempts[~bad] >= 1).all() and (attempts[~bad & ~converged] == num_seeds + 1).all()
        # The CPU takes the same steps but for rounding; an attempt that hangs on that is rare.
        expected = ops.solve(robot, q, pose, seeds, max_iterations=12, tol_pos=1e-4, tol_rot=1e-4)
        assert (attempts != expected.attempts).sum() <= max(1, 0.03 * rows)

    out = [((rows, robot.dof), dtype), ((rows,), dtype), ((rows,), dtype), ((rows,), torch.bool)]
    out += [((rows,), torch.int32)] * 2
    integers, reals = [rows, robot.dof, 12, num_seeds], [1e-4, 1e-4]
    return robot_call("solve", robot, dtype, integers, reals, [q, pose, seeds], out, check)


def all_calls(sizes):
    """Every kernel in both types, for 6, 7, fewer and more joints, at every size."""
    for dtype in DTYPES:
        for rows in sizes:
            for name in ("ur10", "panda", "short", "mixed"):
                robot = robot_of(name)
                dof = robot.dof
                yield adaptive_weight_call(rows, dof, dtype)
                for indexed in (False, True):
                    yield sample_batch_call(rows, dof, dtype, indexed=indexed)
                for weighted in (False, True):
                    yield loss_call(rows, dof, dtype, weighted=weighted, clip=0.4 * weighted)
                    yield loss_backward_call(rows, dof, dtype, weighted=weighted)
                for call in (fk_call, jacobian_call, fk_error_call, draw_batch_call, refine_call, solve_call):
                    yield call(rows, robot, dtype)


def compiler(sanitizer):
    """Return the command that compiles a source, or links, under a sanitizer."""
    launcher = os.environ.get("CMAKE_CXX_COMPILER_LAUNCHER")
    flags = [f"-fsanitize={name}" for name in SANITIZERS[sanitizer]]
    if flags:
        flags += ["-fno-sanitize-recover=all", "-fno-omit-frame-pointer", "-g1", "-D__restrict__="]
    return [*([launcher] if launcher else []), os.environ.get("CXX", "c++"), "-std=c++17", LEVELS[sanitizer], *flags]


def include():
    return [f"-I{folder}" for folder in (EMULATION, ROOT / "csrc", ROOT / "csrc" / "include")]


def finish(command):
    result = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    assert result.returncode == 0 and not result.stderr, result.stderr[-5000:]


def compile_kernels(source, object_file, sanitizer, *options):
    warnings = ["-Wall", "-Wextra", "-Wno-maybe-uninitialized"]
    command = [*compiler(sanitizer), *warnings, *options, *include(), "-include", "cuda_runtime.h", "-x", "c++"]
    finish([*command, "-c", source, "-o", object_file])


class Program:
    """What runs calls of the kernels, built under one sanitizer."""

    def __init__(self, folder, sanitizer):
        self.folder, self.sanitizer = folder, sanitizer
        sources = [*sorted(KERNELS.glob("*.cu")), EMULATION / "emulated.cpp"]
        self.objects = {source.name: folder / f"{source.stem}.o" for source in sources}
        emulation = folder / "emulation.o"
        define = [] if sanitizer == "none" else [f"-DMFIK_{sanitizer.upper()}_SANITIZER"]
        plain = [*compiler("none"), "-Wall", "-Wextra", "-Wpedantic", "-Wshadow", *include(), *define]
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            jobs = [pool.submit(finish, [*plain, "-c", EMULATION / "emulation.cpp", "-o", emulation])]
            jobs += [pool.submit(compile_kernels, source, self.objects[source.name], sanitizer) for source in sources]
            for job in jobs:
                job.result()
        self.objects["emulation.cpp"] = emulation
        self.path = self.link(folder / "emulated", self.objects.values())

    def link(self, path, objects):
        finish([*compiler(self.sanitizer), "-pthread", *objects, "-o", path])
        return path

    def planted(self, folder, source, changes, level=None):
        """Return a program with one source from a changed copy of the kernels: changes = {file: [(text, other)]}."""
        copy = folder / "kernels" / "cuda"
        shutil.copytree(KERNELS, copy)
        for name, replacements in changes.items():
            for text, other in replacements:
                before = (copy / name).read_text()
                assert before.count(text) == 1, f"{name}: {text}"
                (copy / name).write_text(before.replace(text, other))
        level = level or ("-O0" if self.sanitizer == "none" else LEVELS[self.sanitizer])
        compile_kernels(copy / source, folder / "planted.o", self.sanitizer, level, f"-I{folder}")
        return self.link(folder / "emulated", (self.objects | {source: folder / "planted.o"}).values())


@pytest.fixture(scope="module")
def program(tmp_path_factory):
    """Return a function of a sanitizer's name: the program, built once."""

    @cache
    def build(sanitizer):
        return Program(tmp_path_factory.mktemp(sanitizer), sanitizer)

    return build


def run(path, calls):
    """Return the ended process that ran calls; arrays begin past an alignment in every second one."""
    packed = b"".join(call.packed(k % 2) for k, call in enumerate(calls))
    environment = os.environ | {
        "ASAN_OPTIONS": "detect_leaks=0"
    }  # leaks are looked for by ptrace, which may be forbidden
    return subprocess.run([path], input=packed, capture_output=True, env=environment)


def check(result, calls):
    assert result.returncode == 0, result.stderr.decode()[-5000:]
    at, written = 0, bytearray(result.stdout)
    for call in calls:
        values = []
        for shape, dtype in call.out:
            size = math.prod(shape) * dtype.itemsize
            values.append(
                torch.frombuffer(written, dtype=torch.uint8)[at : at + size].clone().view(dtype).reshape(shape)
            )
            at += size
        try:
            call.check(*values)
        except AssertionError as error:
            raise AssertionError(str(call)) from error
    assert at == len(result.stdout)


@pytest.mark.parametrize(
    ("sanitizer", "sizes"),
    [("none", SIZES), ("address", (1, 129, 257)), ("thread", (257,))],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_kernels_are_their_references(program, sanitizer, sizes):
    calls = list(all_calls(sizes))
    check(run(program(sanitizer).path, calls), calls)


def test_rows_past_the_largest_grid_are_done(program):
    """Grids have 65,536 blocks at most: of tiles of 128 rows and blocks of 256 threads, these calls need one more."""
    calls = [adaptive_weight_call(131, 6, torch.float32, 64_036), adaptive_weight_call(131, 1, torch.float32, 128_071)]
    check(run(program("none").path, calls), calls)


def test_no_array_is_read_after_what_overlaps_it_is_written(program):
    """Sanitizers' programs know nothing of `__restrict__`, which lets the other reorder: the bits are the same."""
    calls = list(all_calls((129,)))
    plain, without = (run(program(sanitizer).path, calls) for sanitizer in ("none", "address"))
    assert plain.returncode == without.returncode == 0 and plain.stdout == without.stdout


# Weights are written where the kernel reads joints, which it was promised not to be the same.
OVERLAP = {
    "adaptive_weight.cu": [
        (
            "if (args.dof == 6) return launch_tiles<AdaptiveWeightTile<6>>(kName, args, args.n, stream);",
            "AdaptiveWeightArgs<T> overlapping = args;\noverlapping.q = args.weight;\n"
            "if (args.dof == 6) return launch_tiles<AdaptiveWeightTile<6>>(kName, overlapping, args.n, stream);",
        ),
        (
            "__shared__ T q[kTile * kDof]",
            "const std::int64_t row = first + threadIdx.x;\nif (static_cast<int>(threadIdx.x) >= rows) return;\n"
            "args.weight[row] = T(3);\nconst T seen = args.q[row];\nargs.weight[row] = seen;\nreturn;\n"
            "__shared__ T q[kTile * kDof]",
        ),
    ]
}


def test_a_planted_overlap_changes_the_bits(program, tmp_path):
    """So that the test before would see one."""
    calls = [adaptive_weight_call(129, 6, torch.float32)]
    ended = [
        run(program(sanitizer).planted(tmp_path / sanitizer, "adaptive_weight.cu", OVERLAP, level), calls)
        for sanitizer, level in (("none", "-O2"), ("address", "-O0"))
    ]
    assert [process.returncode for process in ended] == [0, 0], [process.stderr.decode() for process in ended]
    assert ended[0].stdout != ended[1].stdout


NEXT_TILE = "__syncthreads();  // before the next tile overwrites what is staged"
ONE_BLOCK = ("kMaxGrid = 65536", "kMaxGrid = 1")  # which takes tile after tile


def test_tiles_that_a_block_takes_in_turn_do_not_meet(program, tmp_path):
    calls = [adaptive_weight_call(257, 6, torch.float32)]
    path = program("thread").planted(tmp_path, "adaptive_weight.cu", {"launch.cuh": [ONE_BLOCK]})
    check(run(path, calls), calls)


@pytest.mark.parametrize(
    ("sanitizer", "source", "changes", "message"),
    [
        ("thread", "adaptive_weight.cu", {"adaptive_weight.cu": [("__syncthreads();", "")]}, "data race"),
        ("thread", "adaptive_weight.cu", {"launch.cuh": [ONE_BLOCK, (NEXT_TILE, "")]}, "data race"),
        # All blocks do all tiles: right answers, from blocks that write the same rows.
        (
            "thread",
            "adaptive_weight.cu",
            {"launch.cuh": [("first = static_cast<std::int64_t>(blockIdx.x) * kTile;", "first = 0;")]},
            "data race",
        ),
        ("address", "adaptive_weight.cu", {"launch.cuh": [("k < count;", "k <= count;")]}, "heap-buffer-overflow"),
        (
            "address",
            "adaptive_weight.cu",
            {"adaptive_weight.cu": [("T q[kTile * kDof],", "T q[kTile * kDof - 1],")]},
            "global-buffer-overflow",
        ),
        (
            "address",
            "adaptive_weight.cu",
            {"launch.cuh": [("to[k] = from[k];", "to[k] = (void(*(const volatile double*)(from + k)), from[k]);")]},
            "misaligned address",
        ),
        (
            "none",
            "adaptive_weight.cu",
            {"adaptive_weight.cu": [("copy_tile(q, ", "if (int(threadIdx.x) >= rows) return;\ncopy_tile(q, ")]},
            "threads of a block wait at two barriers",
        ),
        (
            "none",
            "adaptive_weight.cu",
            {"launch.cuh": [("kTile = 128;", "kTile = 2048;")]},
            "adaptive_weight: invalid configuration argument",
        ),
        (
            "none",
            "kinematics.cu",
            {"kinematics.cu": [("grid, kSearchBlock, stream", "grid, 2 * kSearchBlock, stream")]},
            "solve: invalid argument",
        ),
    ],
    ids="barrier,barrier_between_tiles,blocks_overlap,array,shared_array,alignment,divergence,block,bound".split(","),
)
def test_a_planted_defect_is_found(program, tmp_path, sanitizer, source, changes, message):
    path = program(sanitizer).planted(tmp_path, source, changes)
    if source == "kinematics.cu":
        calls = [solve_call(129, robot_of("panda"), torch.float32)]
    else:
        calls = [adaptive_weight_call(rows, 6, torch.float32) for rows in (1, 129, 257)]
    result = run(path, calls)
    assert result.returncode != 0 and message in result.stderr.decode()
