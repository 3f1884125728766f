"""The CUDA kernels on the CPU (csrc/tests/cuda_emulation): their sources, their launches, PyTorch's answers."""

import math
import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from functools import cache

import pytest
import torch
from cmake_project import ROOT
from cuda_calls import adaptive_weight_call, all_calls, robot_of, solve_call

EMULATION = ROOT / "csrc" / "tests" / "cuda_emulation"
KERNELS = ROOT / "csrc" / "kernels" / "cuda"
SANITIZERS = {"none": [], "address": ["address,alignment,bounds"], "thread": ["thread"]}
# AddressSanitizer takes three times as long to compile with -O1; `__restrict__` shows what it does with -O2.
LEVELS = {"none": "-O2", "address": "-O0", "thread": "-O1"}
SIZES = (0, 1, 127, 128, 129, 255, 256, 257)  # around tiles of 128 rows and blocks of 256 threads

pytestmark = pytest.mark.slow


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
