"""Builds the C++ solver as a user would, runs its tests, installs it, and links a project against the installation."""

import os
import platform
import re
import shutil
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
        "-DCMAKE_COMPILE_WARNING_AS_ERROR=ON",
        "-DMFIK_TORCHSCRIPT=ON",
        "-DMFIK_ONNX=ON",  # left out where ONNX Runtime's headers are not found; ONNXRuntime_ROOT names their folder
        torch_option(),
    )
    run("cmake", "--build", folder)
    return folder


def test_cpp_tests_pass(build, bundles):
    out = run("ctest", "--test-dir", build, "--output-on-failure", "--no-tests=error", MFIK_TEST_BUNDLES=str(bundles))
    assert "100% tests passed" in out
    assert "Skipped" not in out, out


def test_kernels_of_an_instruction_set_share_no_function(build):
    """What the linker shares between compilations may be the copy that the processor cannot run."""
    objects = [path for path in build.rglob("*_kernels.cpp.o") if "_kAvx" in str(path)]
    if platform.machine() == "x86_64":
        assert len(objects) == 2 * 3  # sets and sources
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


@pytest.mark.parametrize(
    ("sanitizers", "target", "tests", "levels"),
    [("address,undefined", "all", ".", "ON"), ("thread", "mfik_thread_test", "Threads", "OFF")],
)
def test_cpp_tests_pass_under_sanitizers(tmp_path, sanitizers, target, tests, levels):
    """Threads meet in the solver, not in its kernels, of which one compilation serves there."""
    options = [f"-DMFIK_SANITIZE={sanitizers}", f"-DMFIK_X86_LEVELS={levels}", "-DMFIK_BUILD_TOOLS=OFF"]
    options += ["-DCMAKE_BUILD_TYPE=None", "-DCMAKE_CXX_FLAGS=-O1"]
    configure(ROOT, tmp_path, *json_option(), *gtest_option(), *options)
    run("cmake", "--build", tmp_path, "--target", target)
    out = run("ctest", "--test-dir", tmp_path, "--output-on-failure", "--no-tests=error", "-R", tests)
    assert "100% tests passed" in out


def serve_another_project(folder: Path, *options: str) -> None:
    """Build the consumer project, C++ and C, and run both programs."""
    configure(ROOT / "csrc" / "tests" / "consumer", folder, *options)
    run("cmake", "--build", folder)
    for program in ("consumer", "consumer_c"):
        assert "solved after" in run(folder / program, GOLDEN)


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


def test_sources_serve_another_project(tmp_path):
    """Unoptimised, as such a project is debugged."""
    options = [f"-DMFIK_SOURCE_DIR={ROOT}", "-DCMAKE_BUILD_TYPE=Debug"]
    serve_another_project(tmp_path / "build", *options, *json_option())


def test_this_installation_serves_another_project(tmp_path):
    """From mfik as these tests import it: the sources, for an editable install."""
    where = run(sys.executable, "-m", "mfik", "--cmake-dir", "--include-dir", "--lib-dir").split()
    assert (Path(where[1]) / "mfik" / "solver.hpp").is_file() and (Path(where[2]) / "pkgconfig" / "mfik.pc").is_file()
    serve_another_project(tmp_path / "build", f"-Dmfik_DIR={where[0]}")


def test_wheel_serves_another_project(tmp_path):
    """`pip install .`, without the dependencies and into a folder of its own."""
    run(
        sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation", "--target", tmp_path / "site", ROOT
    )
    command = [sys.executable, "-m", "mfik", "--cmake-dir"]
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    cmake_dir = subprocess.check_output(command, cwd=tmp_path, env=environment, text=True).strip()
    assert cmake_dir.startswith(str(tmp_path / "site"))
    assert (tmp_path / "site" / "mfik" / "models" / "panda" / "model.safetensors").is_file()
    serve_another_project(tmp_path / "build", f"-DCMAKE_PREFIX_PATH={cmake_dir}")


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
