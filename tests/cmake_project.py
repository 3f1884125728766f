"""Run programs and CMake for the tests that build C++."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
GOLDEN = ROOT / "tests" / "golden" / "v1.safetensors"
NEEDS_CMAKE = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("cmake") is None, reason="needs cmake: pip install cmake"),
    pytest.mark.skipif(shutil.which("ninja") is None, reason="needs ninja: pip install ninja"),
]


def run(*command, expect: int = 0, **environment: str) -> str:
    """Return what a program prints; fail the test unless it ends with the exit status `expect`."""
    result = subprocess.run(
        [str(part) for part in command],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if result.returncode != expect:
        command = " ".join(map(str, command))
        pytest.fail(f"{command}\nexit status {result.returncode}, expected {expect}\n{result.stdout}", pytrace=False)
    return result.stdout


def configure(source: Path, build: Path, *options: str) -> None:
    run("cmake", "-S", source, "-B", build, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", *options)


def gtest_option() -> list[str]:
    """Point CMake to the GoogleTest sources of PyPI, where they are installed."""
    sources = Path(sys.prefix) / "src" / "gtest_vendor"
    return [f"-DMFIK_GTEST_SOURCE_DIR={sources}"] if sources.is_dir() else []


def serve_another_project(folder: Path, *options: str) -> None:
    """Build the consumer project, C++ and C, and run both programs."""
    configure(ROOT / "csrc" / "tests" / "consumer", folder, *options)
    run("cmake", "--build", folder)
    for program in ("consumer", "consumer_c"):
        assert "solved after" in run(folder / program, GOLDEN)
