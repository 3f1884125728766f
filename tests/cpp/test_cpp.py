"""Builds the C++ solver as a user would, runs its tests, installs it, and links a project against the installation."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from cmake_project import NEEDS_CMAKE, ROOT, configure, json_option, run

from mfik.export import export_bundle, load_bundle

GOLDEN = ROOT / "tests" / "golden" / "v1.safetensors"

pytestmark = NEEDS_CMAKE


def gtest_option() -> list[str]:
    sources = Path(sys.prefix) / "src" / "gtest_vendor"
    return [f"-DMFIK_GTEST_SOURCE_DIR={sources}"] if sources.is_dir() else []


def torch_option() -> str:
    return f"-DCMAKE_PREFIX_PATH={torch.utils.cmake_prefix_path}"


@pytest.fixture(scope="session")
def bundle(tmp_path_factory) -> Path:
    """The golden network, exported for every engine."""
    model, _, description = load_bundle(GOLDEN)
    folder = tmp_path_factory.mktemp("cpp") / "bundle"
    export_bundle(folder, model, description)
    return folder


@pytest.fixture(scope="session")
def build(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cpp") / "build"
    configure(
        ROOT,
        folder,
        *json_option(),
        *gtest_option(),
        "-DCMAKE_COMPILE_WARNING_AS_ERROR=ON",
        "-DMFIK_TORCHSCRIPT=ON",
        "-DMFIK_ONNX=ON",  # left out where ONNX Runtime's headers are not found; ONNXRuntime_ROOT names their folder
        torch_option(),
    )
    run("cmake", "--build", folder)
    return folder


def test_cpp_tests_pass(build, bundle):
    out = run("ctest", "--test-dir", build, "--output-on-failure", "--no-tests=error", MFIK_TEST_BUNDLE=str(bundle))
    assert "100% tests passed" in out
    assert "Skipped" not in out, out


def test_every_engine_is_tested(build, bundle):
    out = run(build / "csrc" / "tests" / "mfik_engine_test", "--gtest_list_tests", MFIK_TEST_BUNDLE=str(bundle))
    built = [engine for engine in ("torchscript", "onnx") if (build / "csrc" / f"libmfik_{engine}.a").is_file()]
    assert "torchscript" in built
    for engine in ["native", *built]:
        assert f"AgreesWithGolden/{engine}" in out


def test_example_solves(build):
    assert "solved after" in run(build / "csrc" / "examples" / "mfik_solve", GOLDEN)


def test_example_tracks(build):
    out = run(build / "csrc" / "examples" / "mfik_track", GOLDEN, *"0 -0.8 0 -2.4 0 1.6 0.8".split())
    assert out.startswith("4000 steps tracked")


def test_moved_installation_serves_another_project(build, tmp_path):
    run("cmake", "--install", build, "--prefix", tmp_path / "first")
    prefix = (tmp_path / "first").rename(tmp_path / "moved")
    configure(ROOT / "csrc" / "tests" / "consumer", tmp_path / "consumer", f"-DCMAKE_PREFIX_PATH={prefix}")
    run("cmake", "--build", tmp_path / "consumer")
    assert "solved after" in run(tmp_path / "consumer" / "consumer", GOLDEN)
    installed = "\n".join(p.read_text() for p in prefix.rglob("*.cmake"))
    assert str(build) not in installed and str(ROOT) not in installed


def test_installed_engines_serve_another_project(build, bundle, tmp_path):
    run("cmake", "--install", build, "--prefix", tmp_path / "first")
    prefix = (tmp_path / "first").rename(tmp_path / "moved")
    find = f"-DCMAKE_PREFIX_PATH={prefix};{torch.utils.cmake_prefix_path}"
    installed = sorted(p.name for p in prefix.rglob("mfik-*Targets.cmake"))
    assert "mfik-torchscriptTargets.cmake" in installed
    for engine in (name.removeprefix("mfik-").removesuffix("Targets.cmake") for name in installed):
        configure(ROOT / "csrc" / "tests" / "consumer", tmp_path / engine, find, f"-DMFIK_COMPONENTS={engine}")
        run("cmake", "--build", tmp_path / engine)
        assert "solved after" in run(tmp_path / engine / "consumer", bundle)
    configured = "\n".join(p.read_text() for p in prefix.rglob("*.cmake"))
    assert str(Path(torch.utils.cmake_prefix_path)) not in configured, "torch is found anew where it is installed"


def test_component_that_is_not_installed_is_named(build, tmp_path):
    run("cmake", "--install", build, "--prefix", tmp_path / "prefix")
    source = ROOT / "csrc" / "tests" / "consumer"
    command = ["cmake", "-S", source, "-B", tmp_path / "build", "-G", "Ninja", "-DMFIK_COMPONENTS=tensorrt"]
    result = subprocess.run(
        [*command, f"-DCMAKE_PREFIX_PATH={tmp_path / 'prefix'}"], text=True, capture_output=True, check=False
    )
    assert result.returncode != 0
    assert "component 'tensorrt' is not in this installation" in " ".join(result.stderr.split())


def test_engines_whose_runtime_is_absent_are_left_out(tmp_path):
    absent = [f"-DCMAKE_DISABLE_FIND_PACKAGE_{name}=ON" for name in ("Torch", "ONNXRuntime")]
    command = ["cmake", "-S", ROOT, "-B", tmp_path, "-G", "Ninja", "-DMFIK_TORCHSCRIPT=ON", "-DMFIK_ONNX=ON"]
    options = ["-DMFIK_BUILD_TESTS=OFF", *json_option(), *absent]
    result = subprocess.run([*command, *options], text=True, capture_output=True, check=False)
    assert result.returncode == 0, result.stderr
    messages = " ".join(result.stderr.split())
    assert "mfik::torchscript is left out. Install it (pip install torch)" in messages
    assert "mfik::onnx is left out. Install Debian's libonnxruntime-dev" in messages


def test_sources_serve_another_project(tmp_path):
    consumer = ROOT / "csrc" / "tests" / "consumer"
    configure(consumer, tmp_path / "build", f"-DMFIK_SOURCE_DIR={ROOT}", *json_option())
    run("cmake", "--build", tmp_path / "build")
    assert "solved after" in run(tmp_path / "build" / "consumer", GOLDEN)


@pytest.mark.parametrize("header", ["solver", "torchscript", "onnx"])
def test_header_stands_alone(tmp_path, header):
    source = tmp_path / "header.cpp"
    source.write_text(f"#include <mfik/{header}.hpp>\n")
    compiler = os.environ.get("CXX", "c++")
    include = ROOT / "csrc" / "include"
    run(compiler, "-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only", "-I", include, source)
