"""The solver on aarch64, cross-compiled and emulated: the C++ tests, and the same answers as on this machine."""

import re
import shutil
import subprocess
from pathlib import Path

import pytest
from cmake_project import GOLDEN, NEEDS_CMAKE, ROOT, configure, gtest_option, run
from cross_compiled import FLAGS, PANDA, SOLVES, solved, solved_here
from native import json_option

PREFIX = "aarch64-linux-gnu"
EMULATOR = ["qemu-aarch64-static", "-L", f"/usr/{PREFIX}"]
SYSTEM = [
    "-DCMAKE_SYSTEM_NAME=Linux",
    "-DCMAKE_SYSTEM_PROCESSOR=aarch64",
    f"-DCMAKE_C_COMPILER={PREFIX}-gcc",
    f"-DCMAKE_CXX_COMPILER={PREFIX}-g++",
]
pytestmark = [
    *NEEDS_CMAKE,
    pytest.mark.skipif(shutil.which(f"{PREFIX}-g++") is None, reason=f"needs Debian's g++-{PREFIX}"),
    pytest.mark.skipif(shutil.which(EMULATOR[0]) is None, reason="needs Debian's qemu-user-static"),
]


@pytest.fixture(scope="module")
def cross(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("aarch64")
    emulator = f"-DCMAKE_CROSSCOMPILING_EMULATOR={';'.join(EMULATOR)}"
    configure(ROOT, folder, *SYSTEM, FLAGS, emulator, *gtest_option(), *json_option())
    assert "warning: " not in run("cmake", "--build", folder)
    return folder


def test_cpp_tests_pass(cross):
    out = run("ctest", "--test-dir", cross, "--output-on-failure", "--no-tests=error")
    assert "100% tests passed" in out


def test_bench_solves_what_it_solves_here(cross, tmp_path):
    """The same poses and references; two lanes there, as NEON has."""
    emulated = run(*EMULATOR, cross / "csrc" / "tools" / "mfik-bench", PANDA, SOLVES)
    assert ", 2 lanes," in emulated.splitlines()[0]
    assert solved(emulated) == solved_here(tmp_path)


@pytest.mark.parametrize(
    ("compiler", "program", "library"),
    [(f"{PREFIX}-g++ -std=c++17", "main.cpp", "mfik_solver"), (f"{PREFIX}-gcc -std=c99", "main.c", "mfik")],
)
def test_programs_link_and_call_every_function(cross, tmp_path, compiler, program, library):
    source = ROOT / "csrc" / "tests" / "consumer" / program
    folders = ["-I", ROOT / "csrc" / "include", "-L", cross / "csrc", f"-Wl,-rpath,{cross / 'csrc'}"]
    run(*compiler.split(), source, *folders, f"-l{library}", "-lm", "-pthread", "-o", tmp_path / "program")
    assert "solved after" in run(*EMULATOR, tmp_path / "program", GOLDEN)


def test_the_c_library_exports_what_it_exports_here(cross):
    def exported(library: Path) -> set[str]:
        return {line.split()[-1] for line in run("nm", "-D", "--defined-only", library).splitlines()}

    assert exported(cross / "csrc" / "libmfik.so") == exported(ROOT / "mfik" / "_cpp" / "lib" / "libmfik.so")
    machine = subprocess.check_output(["readelf", "-h", cross / "csrc" / "libmfik.so"], text=True)
    assert "AArch64" in machine


@pytest.mark.skipif(shutil.which("dpkg-deb") is None, reason="needs dpkg-deb")
def test_debian_packages_serve_another_project(cross, tmp_path):
    run("cpack", "--config", cross / "CPackConfig.cmake", "-G", "DEB", "-B", tmp_path)
    fields = {}
    for package in tmp_path.glob("*.deb"):
        run("dpkg-deb", "-x", package, tmp_path / "root")
        fields[package.name.partition("_")[0]] = run("dpkg-deb", "-f", package)
    assert set(fields) == {"libmfik", "libmfik-dev"}
    assert all("Architecture: arm64" in text for text in fields.values())
    assert re.search(r"Depends: .*libstdc\+\+6", fields["libmfik"])
    assert re.search(r"Depends: libmfik \(= [\d.]+\)", fields["libmfik-dev"])
    prefix = tmp_path / "root" / "usr"
    consumer = tmp_path / "consumer"
    configure(
        ROOT / "csrc" / "tests" / "consumer", consumer, *SYSTEM, f"-Dmfik_DIR={prefix / 'lib' / 'cmake' / 'mfik'}"
    )
    run("cmake", "--build", consumer)
    for program in ("consumer", "consumer_c"):
        assert "solved after" in run(*EMULATOR, consumer / program, GOLDEN)
