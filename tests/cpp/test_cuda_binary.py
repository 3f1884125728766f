"""The CUDA kernels in `mfik._native`: what ptxas made of them, and machines that cannot run them."""

import contextlib
import csv
import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
import torch
from cmake_project import run

from mfik import ops
from mfik.ops import _backend

native = _backend.native
pytestmark = pytest.mark.skipif(native is None or not native.has_cuda, reason="mfik._native is built without CUDA")

TABLE = Path(__file__).with_name("cuda_resources.csv")
BUILT = ("sm_80", "sm_90")
JUST_IN_TIME = ("sm_100", "sm_120")  # what a driver compiles the embedded PTX of sm_90 for
SLACK = 8  # registers that another version of ptxas may take: the unit in which they are handed out
MAX_SHARED = 48 * 1024
RESERVED_SHARED = {"sm_80": 0, "sm_90": 1024}  # of kernels that have any; counted by cuobjdump, not by ptxas


def cuobjdump(*arguments, **settings):
    """Run NVIDIA's reader of CUDA binaries (PyPI nvidia-cuda-cuobjdump) on the extension."""
    programs = sorted(Path(sysconfig.get_paths()["purelib"]).glob("nvidia/cu*/bin/cuobjdump"))
    program = shutil.which("cuobjdump") or (programs[-1] if programs else pytest.skip("needs nvidia-cuda-cuobjdump"))
    return subprocess.run(
        [program, *arguments, native.__file__], check=True, capture_output=True, text=True, **settings
    )


def kernel_names(mangled):
    """Return the names of kernels as C++ has them, without namespaces and arguments."""
    names = subprocess.run(["c++filt"], input="\n".join(mangled), capture_output=True, text=True, check=True).stdout
    names = re.sub(r"mfik::cuda::|mfik::|\(anonymous namespace\)::|^void ", "", names, flags=re.M)
    return [name.partition("(")[0].replace("> >", ">>") for name in names.splitlines()]


def built_resources():
    """Yield (kernel, architecture, registers, stack [B], shared [B]) of the machine code in the extension."""
    for part in cuobjdump("--dump-resource-usage").stdout.split("Fatbin elf code:")[1:]:
        architecture = re.search(r"^arch = (sm_\d+)", part, re.M)[1]
        found = re.findall(r"Function (\S+):\n\s+REG:(\d+) STACK:(\d+) SHARED:(\d+)", part)
        for name, row in zip(kernel_names([row[0] for row in found]), found, strict=True):
            registers, stack, shared = map(int, row[1:])
            yield name, architecture, registers, stack, shared - (RESERVED_SHARED[architecture] if shared else 0)


def compiled_resources(folder):
    """Yield the same of the embedded PTX as ptxas compiles it for newer devices, with the bytes it spills."""
    cuobjdump("--extract-ptx", "all", cwd=folder)
    sources = sorted(folder.glob("*.ptx"))
    assert sources
    for source in sources:
        for architecture in JUST_IN_TIME:
            text = run("ptxas", f"-arch={architecture}", "-v", source, "-o", folder / "cubin")
            found = re.findall(
                r"Compiling entry function '(\S+)' for.*\n.*\n\s+(\d+) bytes stack frame, (\d+) bytes spill stores, "
                r"\d+ bytes spill loads\nptxas info\s+: Used (\d+) registers(?:.* (\d+) bytes smem)?",
                text,
            )
            for name, (_, stack, spilled, registers, shared) in zip(
                kernel_names([row[0] for row in found]), found, strict=True
            ):
                yield name, architecture, int(registers), int(stack), int(shared or 0), int(spilled)
        assert all(
            ".maxntid 64" in text for text in re.findall(r"\.entry \S*6search\S*\(.*?\{", source.read_text(), re.S)
        )


@pytest.fixture(scope="module")
def resources(tmp_path_factory):
    if shutil.which("ptxas") is None:
        pytest.skip("needs ptxas, which comes with nvcc")
    rows = [(*row, None) for row in built_resources()] + list(compiled_resources(tmp_path_factory.mktemp("ptx")))
    return {row[:2]: row[2:] for row in rows}


def test_machine_code_of_two_architectures_and_ptx_for_newer_ones_are_embedded():
    code = set(re.findall(r"\.(sm_\d+)\.cubin", cuobjdump("--list-elf").stdout))
    assert code == set(BUILT)
    assert set(re.findall(r"\.(sm_\d+)\.ptx", cuobjdump("--list-ptx").stdout)) == {"sm_90"}


def test_kernels_take_what_the_table_says(resources):
    """Registers bound how many threads a multiprocessor holds; a stack is memory outside it."""
    with TABLE.open(newline="") as file:
        table = {row["kernel"]: row for row in csv.DictReader(file)}
    assert set(table) == {name for name, _ in resources}, "a kernel came or went: write its row"
    assert len(resources) == len(table) * len(BUILT + JUST_IN_TIME)
    for (name, architecture), (registers, stack, shared, spilled) in resources.items():
        row, what = table[name], f"{name} on {architecture}"
        assert registers <= int(row[architecture]) + SLACK, f"{what}: {registers} registers"
        assert stack <= int(row["stack"]), f"{what}: {stack} bytes of stack"
        assert shared == int(row["shared"]) <= MAX_SHARED, f"{what}: {shared} bytes of shared memory"
        assert spilled is None or spilled <= int(row["spilled"]), f"{what}: {spilled} bytes spilled"


def test_only_arrays_and_sines_are_on_the_stack():
    """Kernels of 6 and 7 joints spill nothing, and have a stack for the sine of doubles past 1e5 alone: 40 bytes."""
    with TABLE.open(newline="") as file:
        for row in csv.DictReader(file):
            any_chain = re.search(r"<0,|Draw|Finish", row["kernel"])  # joints of any number: arrays that are indexed
            assert any_chain or int(row["stack"]) in (0, 40 * ("double" in row["kernel"])), row
            assert int(row["spilled"]) == 0 or row["kernel"].startswith("search<0,"), row


DRIVERS = {
    "none": ("", "CUDA driver version is insufficient"),
    "old": (
        "int cuInit(unsigned f) { return f; } int cuDriverGetVersion(int* v) { return *v = 11040, 0; }",
        "insufficient",
    ),
    "without_device": (
        "int cuInit(unsigned f) { return 100 + f; } int cuDriverGetVersion(int* v) { return *v = 13000, 0; }",
        "no CUDA-capable device",
    ),
}
PROGRAM = """
import numpy as np
from mfik import _native
from mfik.robots import load_robot
from mfik.solve import Solver

print("problem:", _native.cuda_problem())
try:
    _native.adaptive_weight_cuda(False, 0, 0, 0, 1, 7, 1e-4, 0.5, 0)
except RuntimeError as error:
    print("launch:", error)
robot = load_robot("panda")
q = 0.5 * (robot.lower + robot.upper)
assert Solver.from_robot(robot).solve(robot.fk(q), q).status == 0
"""


@pytest.mark.parametrize("driver", DRIVERS)
def test_the_extension_serves_the_cpu_whatever_the_driver(tmp_path, driver):
    """A driver is a library that CUDA's runtime looks for when a kernel is first asked for."""
    source, message = DRIVERS[driver]
    folder = os.environ.get("LD_LIBRARY_PATH", "")
    if source:
        (tmp_path / "driver.c").write_text(source)
        run(os.environ.get("CC", "cc"), "-shared", "-fPIC", tmp_path / "driver.c", "-o", tmp_path / "libcuda.so.1")
        folder = f"{tmp_path}:{folder}"
    elif torch.cuda.is_available():
        pytest.skip("there is a CUDA driver")
    out = run(sys.executable, "-c", PROGRAM, LD_LIBRARY_PATH=folder)
    assert re.search(f"^problem: .*{message}", out, re.M), out
    assert re.search(f"^launch: adaptive_weight: .*{message}", out, re.M), out


def test_the_extension_needs_no_library_of_cuda():
    assert not re.search(r"NEEDED.*(cuda|cudart|nvrtc)", run("readelf", "-d", native.__file__))


def test_pytorch_takes_over_where_the_driver_refuses_the_kernels(monkeypatch):
    """The device is the CPU under another name: what matters is who is asked."""
    monkeypatch.setattr(torch.cuda, "device", lambda device: contextlib.nullcontext())
    monkeypatch.setattr(_backend, "_cuda_runs_on", _backend._cuda_runs_on.__wrapped__)
    problem = native.cuda_problem()
    if not problem:
        pytest.skip("CUDA runs here")
    with pytest.warns(RuntimeWarning, match=rf"cuda:0: {problem}.*PyTorch's operators.*update the NVIDIA driver"):
        assert not ops.has_kernel("fk", torch.device("cuda:0"))
    assert ops.has_kernel("fk", torch.device("cpu")) and not ops.has_kernel("geometry", torch.device("cuda:0"))
