"""Each family of kernels runs on the best instruction set that the processor has."""

import platform
from pathlib import Path

import pytest

from mfik import _native

# What kernels/cpu/dispatch.cpp asks of a processor.
AVX2 = {"avx2", "fma", "bmi2"}
AVX512 = AVX2 | {"avx512f", "avx512dq", "avx512bw", "avx512vl"}


def best_isa() -> str:
    if platform.machine() not in ("x86_64", "AMD64"):
        return "baseline"
    cpuinfo = Path("/proc/cpuinfo")
    if not cpuinfo.is_file():
        pytest.fail("this test reads the processor's features from /proc/cpuinfo; add this system's way")
    flags = next(line for line in cpuinfo.read_text().splitlines() if line.startswith("flags")).split(":")[1].split()
    return "avx512" if set(flags) >= AVX512 else "avx2" if set(flags) >= AVX2 else "baseline"


@pytest.mark.parametrize("family", ["collision", "lanes", "networks", "paths", "training"])
def test_every_family_of_kernels_runs_on_the_best_instruction_set(family):
    assert _native.isa()[family] == best_isa()  # as its compiler saw it, not as it was asked to
