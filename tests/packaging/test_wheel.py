"""The wheel as others get it: for old distributions, old processors, without a compiler, and as what programs link."""

import importlib.util
import platform
import re
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from cmake_project import GOLDEN, NEEDS_CMAKE, ROOT, configure, run, serve_another_project
from native import json_option

MACHINE = platform.machine()
MAX_WHEEL_MB = 10
pytestmark = [
    *NEEDS_CMAKE,
    pytest.mark.skipif(
        importlib.util.find_spec("auditwheel") is None, reason="needs auditwheel: pip install auditwheel"
    ),
]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory) -> Path:
    """The wheel of a release; what an editable installation has compiled is only linked anew."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", folder, ROOT]
    run(*command, CMAKE_TOOLCHAIN_FILE=str(ROOT / "cmake" / "manylinux.cmake"))
    (built,) = folder.glob("*.whl")
    tag = f"manylinux_2_28_{MACHINE}"
    run(sys.executable, "-m", "auditwheel", "repair", "--plat", tag, "-w", folder / "out", built)  # refuses newer glibc
    (wheel,) = (folder / "out").glob(f"*{tag}.whl")
    return wheel


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory) -> Path:
    """A virtual environment with mfik and NumPy, and nothing else."""
    folder = tmp_path_factory.mktemp("clean")
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-index", "--no-deps", wheel, PYTHONPATH="")
    packages = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('platlib'))").strip())
    numpy = Path(np.__file__).parent
    for part in [numpy, numpy.with_name("numpy.libs")]:
        (packages / part.name).symlink_to(part)
    return folder


def in_clean(environment: Path, *command) -> str:
    """Run a command that finds nothing but that environment: no compiler, CMake or header."""
    result = subprocess.run(
        [str(part) for part in command],
        cwd=environment,
        env={"PATH": str(environment / "bin")},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout


def example(language: str) -> str:
    """README's example in that language."""
    return re.search(rf"```{language}\n(.*?)```", (ROOT / "README.md").read_text(), re.S)[1]


ASK = """
import importlib, sys
for name in sys.argv[1:]:
    try:
        importlib.import_module(name)
    except ImportError as error:
        print(error)
"""
PRINT_ISA = "\nfrom mfik import _native\nimport sys\nprint('isa', *_native.isa().values(), 'torch' in sys.modules)"


def test_wheel_has_what_solving_needs_and_is_small(wheel):
    names = zipfile.ZipFile(wheel).namelist()
    assert {f"mfik/models/{name}/model.safetensors" for name in ("panda", "ur10", "tiago")} <= set(names)
    assert not [name for name in names if not name.startswith(("mfik/", "mfik-"))]
    assert wheel.stat().st_size < MAX_WHEEL_MB * 1e6


def test_libraries_need_nothing_that_auditwheel_cannot_see(environment):
    """It reads versions of names; a name without one would be looked up anywhere."""
    libraries = [*environment.rglob("mfik/_native*.so"), *environment.rglob("libmfik.so")]
    assert len(libraries) == 2
    for library in libraries:
        undefined = [line.split() for line in run("nm", "-D", "--undefined-only", library).splitlines()]
        bare = [name for kind, name in undefined if "@" not in name and kind != "w" and not re.match("_?Py", name)]
        assert len(undefined) > 10 and not bare, library


def test_readme_example_runs_with_numpy_alone(environment):
    out = in_clean(environment, "bin/python", "-c", example("python") + PRINT_ISA)
    assert "[" in out and out.rstrip().endswith("False")


def test_what_needs_pytorch_names_its_extra(environment):
    modules = ["data", "eval", "export", "fit", "model", "ops", "torch", "train.v1"]
    out = in_clean(environment, "bin/python", "-c", ASK, *(f"mfik.{name}" for name in modules))
    assert out.splitlines() == ["this needs PyTorch: pip install 'mfik[train]'"] * len(modules)
    in_clean(environment, "bin/mfik", "solve", "panda", "--help")
    result = run(environment / "bin" / "mfik", "evaluate", "--help", expect=2, PYTHONPATH="")
    assert result == "error: this command needs PyTorch: pip install 'mfik[train]'\n"


@pytest.fixture(scope="module")
def emulator() -> str:
    """Runs programs as another processor would."""
    if MACHINE != "x86_64":
        pytest.skip("old x86-64 processors, for an x86-64 machine")
    return shutil.which("qemu-x86_64-static") or pytest.skip("needs qemu: Debian's qemu-user-static")


def test_readme_example_runs_without_avx(environment, emulator):
    """On a Nehalem of 2008, the oldest that NumPy runs on."""
    out = in_clean(environment, emulator, "-cpu", "Nehalem", "bin/python", "-c", example("python") + PRINT_ISA)
    assert "[" in out and out.rstrip().endswith("isa " + "baseline " * 5 + "False")


@pytest.fixture(scope="module")
def cmake_dir(environment) -> str:
    return in_clean(environment, "bin/python", "-m", "mfik", "--cmake-dir").strip()


def test_wheel_serves_another_project(cmake_dir, tmp_path):
    serve_another_project(tmp_path, f"-DCMAKE_PREFIX_PATH={cmake_dir}")


def test_wheel_serves_clang_and_the_oldest_processor(cmake_dir, emulator, tmp_path):
    """On a Core 2 of 2006, which has SSE3 alone."""
    compilers = ["-DCMAKE_C_COMPILER=clang", "-DCMAKE_CXX_COMPILER=clang++"]
    serve_another_project(tmp_path, f"-Dmfik_DIR={cmake_dir}", *compilers)
    for program in ("consumer", "consumer_c"):
        assert "solved after" in run(emulator, "-cpu", "core2duo", tmp_path / program, GOLDEN)


@pytest.mark.parametrize("compiler", ["g++", "clang++"])
def test_readme_program_links(cmake_dir, environment, tmp_path, compiler):
    (tmp_path / "move.cpp").write_text(example("cpp"))
    (tmp_path / "CMakeLists.txt").write_text(
        "cmake_minimum_required(VERSION 3.24)\nproject(move LANGUAGES CXX)\nfind_package(mfik REQUIRED)\n"
        "add_executable(move move.cpp)\ntarget_link_libraries(move PRIVATE mfik::solver)\n"
    )
    configure(tmp_path, tmp_path / "build", f"-Dmfik_DIR={cmake_dir}", f"-DCMAKE_CXX_COMPILER={compiler}")
    run("cmake", "--build", tmp_path / "build")
    assert "solved" in run(tmp_path / "build" / "move", Path(cmake_dir).parents[2].with_name("models") / "panda")


def test_source_distribution_has_all_that_the_build_reads(wheel, tmp_path):
    """What the build that was just made has read, as Ninja notes it, and what CMake reads to configure."""
    run(sys.executable, "-m", "build", "--sdist", "--no-isolation", "--outdir", tmp_path, ROOT)
    (archive,) = tmp_path.glob("mfik-*.tar.gz")
    with tarfile.open(archive) as sources:
        sources.extractall(tmp_path, filter="data")
    unpacked = tmp_path / archive.name.removesuffix(".tar.gz")
    build = ROOT / "build" / f"python-{sys.version_info.major}.{sys.version_info.minor}"
    inputs = run("ninja", "-C", build, "-t", "inputs", "mfik_python", "mfik_c") + run(
        "ninja", "-C", build, "-t", "deps"
    )
    paths = {(build / line.strip()).resolve() for line in inputs.splitlines()}
    read = {path.relative_to(ROOT) for path in paths if path.is_file() and path.is_relative_to(ROOT)}
    read = {path for path in read if path.parts[0] not in ("build", ".venv")}
    assert len(read) > 100 and not [path for path in read if not (unpacked / path).is_file()]
    for path in (path.relative_to(ROOT) for path in (ROOT / "mfik").rglob("*") if path.is_file()):
        generated = path.parts[1] == "_cpp" or path.suffix in (".so", ".pyc")
        assert generated or (unpacked / path).is_file(), path
    configure(unpacked, tmp_path / "configured", "-DMFIK_BUILD_TESTS=OFF", *json_option())


def test_a_release_is_built_for_every_python_and_system():
    for platform_name, machine in (("linux", "x86_64"), ("linux", "aarch64"), ("macos", "arm64"), ("windows", "AMD64")):
        asked = ["--platform", platform_name, "--archs", machine, "--print-build-identifiers", ROOT]
        identifiers = run(sys.executable, "-m", "cibuildwheel", *asked).split()
        assert {identifier.partition("-")[0] for identifier in identifiers} == {f"cp31{minor}" for minor in range(5)}
