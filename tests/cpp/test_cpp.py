"""Builds the C++ solver as a user would, runs its tests, installs it, and links a project against the installation."""

import os
import platform
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch
from cmake_project import GOLDEN, NEEDS_CMAKE, ROOT, configure, gtest_option, run, serve_another_project
from native import json_option

from mfik.export import export_bundle, load_bundle

pytestmark = NEEDS_CMAKE


def torch_option() -> str:
    return f"-DCMAKE_PREFIX_PATH={torch.utils.cmake_prefix_path}"


@pytest.fixture(scope="session")
def bundles(tmp_path_factory) -> Path:
    """The golden networks v1 and v2, exported for every engine."""
    folder = tmp_path_factory.mktemp("bundles")
    for version in ("v1", "v2"):
        model, _, description = load_bundle(GOLDEN.with_stem(version))
        export_bundle(folder / version, model, description)
    return folder


@pytest.fixture(scope="session")
def build(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("cpp") / "build"
    configure(
        ROOT,
        folder,
        *json_option(),
        *gtest_option(),
        "-DMFIK_TORCHSCRIPT=ON",
        "-DMFIK_ONNX=ON",  # left out where ONNX Runtime's headers are not found; ONNXRuntime_ROOT names their folder
        torch_option(),
    )
    # With the flags of an installation, whose objects a compiler cache has, and its warnings.
    assert "warning: " not in run("cmake", "--build", folder)
    return folder


def test_cpp_tests_pass(build, bundles):
    out = run("ctest", "--test-dir", build, "--output-on-failure", "--no-tests=error", MFIK_TEST_BUNDLES=str(bundles))
    assert "100% tests passed" in out
    assert "Skipped" not in out, out


def test_kernels_of_an_instruction_set_share_no_function(build):
    """What the linker shares between compilations may be the copy that the processor cannot run."""
    objects = [path for path in build.rglob("*_kernels.cpp.o") if "_kAvx" in str(path)]
    if platform.machine() == "x86_64":
        assert len(objects) == 2 * len(list((ROOT / "csrc").rglob("*_kernels.cpp")))  # two sets beyond the baseline
    for path in objects:
        symbols = [line.split(maxsplit=2) for line in run("nm", "-C", "--defined-only", path).splitlines()]
        shared = [name for _, kind, name in symbols if kind.isupper() or kind in "uvw"]
        assert len(shared) == 1 and "compiled_kernels<" in shared[0], shared


def test_every_engine_is_tested(build, bundles):
    out = run(build / "csrc" / "tests" / "mfik_engine_test", "--gtest_list_tests", MFIK_TEST_BUNDLES=str(bundles))
    built = [engine for engine in ("torchscript", "onnx") if (build / "csrc" / f"libmfik_{engine}.a").is_file()]
    assert "torchscript" in built
    for engine in ["native", *built]:
        assert f"AgreesWithGolden/{engine}_v1" in out and f"AgreesWithGolden/{engine}_v2" in out


@pytest.fixture(scope="session")
def moved_prefix(build, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("prefix")
    run("cmake", "--install", build, "--prefix", folder / "first")
    return (folder / "first").rename(folder / "moved")


def test_moved_installation_serves_another_project(build, moved_prefix, tmp_path):
    serve_another_project(tmp_path / "consumer", f"-DCMAKE_PREFIX_PATH={moved_prefix}")
    for path in [*moved_prefix.rglob("*.cmake"), *moved_prefix.rglob("*.pc")]:
        text = path.read_text()
        assert str(build) not in text and str(ROOT) not in text and "/first" not in text, path
    assert (moved_prefix / "bin" / "mfik-bench").is_file()


@pytest.mark.skipif(shutil.which("pkg-config") is None, reason="needs pkg-config")
def test_pkg_config_serves_a_plain_compiler(moved_prefix, tmp_path):
    (pc_path,) = {str(path.parent) for path in moved_prefix.rglob("*.pc")}
    consumer = ROOT / "csrc" / "tests" / "consumer"

    def flags(package: str) -> list[str]:
        return run("pkg-config", "--cflags", "--libs", package, PKG_CONFIG_PATH=pc_path).split()

    cxx, cc = os.environ.get("CXX", "c++"), os.environ.get("CC", "cc")
    run(cxx, "-std=c++17", consumer / "main.cpp", *flags("mfik"), "-o", tmp_path / "cpp")
    run(cc, "-std=c99", consumer / "main.c", *flags("mfik-c"), "-o", tmp_path / "c")
    assert "solved after" in run(tmp_path / "cpp", GOLDEN)
    assert "solved after" in run(tmp_path / "c", GOLDEN, LD_LIBRARY_PATH=str(Path(pc_path).parent))


def test_installed_engines_serve_another_project(build, bundles, tmp_path):
    run("cmake", "--install", build, "--prefix", tmp_path / "first")
    prefix = (tmp_path / "first").rename(tmp_path / "moved")
    find = f"-DCMAKE_PREFIX_PATH={prefix};{torch.utils.cmake_prefix_path}"
    installed = sorted(p.name for p in prefix.rglob("mfik-*Targets.cmake"))
    assert "mfik-torchscriptTargets.cmake" in installed
    for engine in (name.removeprefix("mfik-").removesuffix("Targets.cmake") for name in installed):
        configure(ROOT / "csrc" / "tests" / "consumer", tmp_path / engine, find, f"-DMFIK_COMPONENTS={engine}")
        run("cmake", "--build", tmp_path / engine)
        for version in ("v1", "v2"):
            assert "solved after" in run(tmp_path / engine / "consumer", bundles / version)
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


def test_shared_library_exports_the_functions_of_the_c_header_only(moved_prefix):
    (library,) = moved_prefix.rglob("libmfik.so")
    exported = {line.split()[-1] for line in run("nm", "-D", "--defined-only", library).splitlines()}
    declared = set(re.findall(r"^MFIK_API .*?(mfik_\w+)\(", (ROOT / "csrc/include/mfik/mfik.h").read_text(), re.M))
    assert len(declared) > 20 and exported == declared
    assert "libmfik.so.0.1" in run("readelf", "-d", library)


@pytest.mark.parametrize("header", ["solver", "torchscript", "onnx"])
def test_header_stands_alone(tmp_path, header):
    source = tmp_path / "header.cpp"
    source.write_text(f"#include <mfik/{header}.hpp>\n")
    compiler = os.environ.get("CXX", "c++")
    include = ROOT / "csrc" / "include"
    run(compiler, "-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only", "-I", include, source)
