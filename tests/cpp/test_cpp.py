"""Builds the C++ solver as a user would, runs its tests, installs it, and links a project against the installation."""

import importlib.util
import os
import re
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


@pytest.mark.parametrize(
    ("sanitizers", "target", "tests"), [("address,undefined", "all", "."), ("thread", "mfik_thread_test", "^Threads")]
)
def test_cpp_tests_pass_under_sanitizers(tmp_path, sanitizers, target, tests):
    options = [f"-DMFIK_SANITIZE={sanitizers}", "-DCMAKE_BUILD_TYPE=None", "-DCMAKE_CXX_FLAGS=-O1"]
    configure(ROOT, tmp_path, *json_option(), *gtest_option(), *options, "-DMFIK_BUILD_EXAMPLES=OFF")
    run("cmake", "--build", tmp_path, "--target", target)
    out = run("ctest", "--test-dir", tmp_path, "--output-on-failure", "--no-tests=error", "-R", tests)
    assert "100% tests passed" in out


def test_example_solves(build):
    assert "solved after" in run(build / "csrc" / "examples" / "mfik_solve", GOLDEN)


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


def test_sources_serve_another_project(tmp_path):
    serve_another_project(tmp_path / "build", f"-DMFIK_SOURCE_DIR={ROOT}", *json_option())


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
    serve_another_project(tmp_path / "build", f"-DCMAKE_PREFIX_PATH={cmake_dir}")


def test_shared_library_exports_the_functions_of_the_c_header_only(moved_prefix):
    (library,) = moved_prefix.rglob("libmfik.so")
    exported = {line.split()[-1] for line in run("nm", "-D", "--defined-only", library).splitlines()}
    declared = set(re.findall(r"^MFIK_API .*?(mfik_\w+)\(", (ROOT / "csrc/include/mfik/mfik.h").read_text(), re.M))
    assert len(declared) > 20 and exported == declared
    assert "libmfik.so.0.1" in run("readelf", "-d", library)


def test_header_stands_alone(tmp_path):
    source = tmp_path / "header.cpp"
    source.write_text("#include <mfik/solver.hpp>\n")
    compiler = os.environ.get("CXX", "c++")
    include = ROOT / "csrc" / "include"
    run(compiler, "-std=c++17", "-Wall", "-Wextra", "-Wpedantic", "-Werror", "-fsyntax-only", "-I", include, source)
