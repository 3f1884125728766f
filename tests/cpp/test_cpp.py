"""Builds the C++ solver as a user would, runs its tests, installs it, and links a project against the installation."""

import importlib.util
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from mfik.export import TORCHSCRIPT_FILE, export_bundle, load_bundle

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests" / "golden" / "v1.safetensors"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("cmake") is None, reason="needs cmake: pip install cmake"),
    pytest.mark.skipif(shutil.which("ninja") is None, reason="needs ninja: pip install ninja"),
]


def run(*command, **environment: str) -> str:
    result = subprocess.run(
        [str(part) for part in command],
        env=os.environ | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if result.returncode != 0:
        pytest.fail(f"{' '.join(map(str, command))}\n{result.stdout}", pytrace=False)
    return result.stdout


def configure(source: Path, build: Path, *options: str) -> None:
    run("cmake", "-S", source, "-B", build, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", *options)


def json_option() -> list[str]:
    """Point CMake to PyPI's nlohmann_json where it is installed, else leave it to find the system's."""
    spec = importlib.util.find_spec("nlohmann_json")
    return [] if spec is None else [f"-DMFIK_JSON_INCLUDE_DIR={Path(spec.origin).parent / 'include'}"]


def gtest_option() -> list[str]:
    sources = Path(sys.prefix) / "src" / "gtest_vendor"
    return [f"-DMFIK_GTEST_SOURCE_DIR={sources}"] if sources.is_dir() else []


@pytest.fixture(scope="session")
def build(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cpp") / "build"
    configure(
        ROOT,
        folder,
        *json_option(),
        *gtest_option(),
        "-DCMAKE_COMPILE_WARNING_AS_ERROR=ON",
        "-DMFIK_BUILD_TORCH_TEST=ON",
        f"-DCMAKE_PREFIX_PATH={torch.utils.cmake_prefix_path}",
    )
    run("cmake", "--build", folder)
    return folder


def test_cpp_tests_pass(build, tmp_path):
    model, _, description = load_bundle(GOLDEN)
    export_bundle(tmp_path / "bundle", model, description)
    torchscript = str(tmp_path / "bundle" / TORCHSCRIPT_FILE)
    out = run("ctest", "--test-dir", build, "--output-on-failure", "--no-tests=error", MFIK_TEST_TS=torchscript)
    assert "100% tests passed" in out
    assert "Skipped" not in out, out


def test_example_solves(build):
    assert "solved after" in run(build / "csrc" / "examples" / "mfik_solve", GOLDEN)


def test_moved_installation_serves_another_project(build, tmp_path):
    run("cmake", "--install", build, "--prefix", tmp_path / "first")
    prefix = (tmp_path / "first").rename(tmp_path / "moved")
    configure(ROOT / "csrc" / "tests" / "consumer", tmp_path / "consumer", f"-DCMAKE_PREFIX_PATH={prefix}")
    run("cmake", "--build", tmp_path / "consumer")
    assert "solved after" in run(tmp_path / "consumer" / "consumer", GOLDEN)
    installed = "\n".join(p.read_text() for p in prefix.rglob("*.cmake"))
    assert str(build) not in installed and str(ROOT) not in installed


def test_sources_serve_another_project(tmp_path):
    consumer = ROOT / "csrc" / "tests" / "consumer"
    configure(consumer, tmp_path / "build", f"-DMFIK_SOURCE_DIR={ROOT}", *json_option())
    run("cmake", "--build", tmp_path / "build")
    assert "solved after" in run(tmp_path / "build" / "consumer", GOLDEN)


def test_header_stands_alone(tmp_path):
    source = tmp_path / "header.cpp"
    source.write_text("#include <mfik/solver.hpp>\n")
    compiler = os.environ.get("CXX", "c++")
    include = ROOT / "csrc" / "include"
    run(compiler, "-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only", "-I", include, source)
