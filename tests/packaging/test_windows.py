"""The solver on Windows, cross-compiled by MinGW and run by Wine: its tests, and answers as on this machine."""

import shutil
from pathlib import Path

import pytest
from cmake_project import GOLDEN, NEEDS_CMAKE, ROOT, configure, gtest_option, run
from cross_compiled import FLAGS, PANDA, SOLVES, solved, solved_here
from native import json_option

PREFIX = "x86_64-w64-mingw32"
COMPILERS = {"C": f"{PREFIX}-gcc-posix", "CXX": f"{PREFIX}-g++-posix"}  # of std::thread
STATIC = "-static"  # with the compiler's own libraries, which Wine does not find
pytestmark = [
    *NEEDS_CMAKE,
    pytest.mark.skipif(shutil.which(COMPILERS["CXX"]) is None, reason="needs Debian's g++-mingw-w64-x86-64-posix"),
    pytest.mark.skipif(shutil.which("wine") is None, reason="needs Debian's wine64"),
]


@pytest.fixture(scope="module")
def cross(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("windows")
    system = ["-DCMAKE_SYSTEM_NAME=Windows", "-DCMAKE_CROSSCOMPILING_EMULATOR=wine"]
    system += [f"-DCMAKE_{language}_COMPILER={compiler}" for language, compiler in COMPILERS.items()]
    system += [f"-DCMAKE_{kind}_LINKER_FLAGS={STATIC}" for kind in ("EXE", "SHARED")]
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("WINEPREFIX", str(tmp_path_factory.mktemp("wine")))
        environment.setenv("WINEDEBUG", "-all")
        configure(ROOT, folder, *system, FLAGS, *gtest_option(), *json_option())
        assert "warning: " not in run("cmake", "--build", folder)
        yield folder


def test_cpp_tests_pass(cross):
    """Each program as a whole: Wine takes seconds to start."""
    programs = sorted((cross / "csrc" / "tests").glob("*.exe"))
    assert len(programs) == 5
    for program in programs:
        assert "[  PASSED  ]" in run("wine", program)


def test_bench_solves_what_it_solves_here(cross, tmp_path):
    """The same poses, references and vector lanes."""
    emulated = run("wine", cross / "csrc" / "tools" / "mfik-bench.exe", PANDA, SOLVES)
    assert solved(emulated) == solved_here(tmp_path)


@pytest.mark.parametrize(
    ("language", "options", "program", "library"),
    [("CXX", ["-std=c++17", STATIC], "main.cpp", "mfik_solver"), ("C", ["-std=c99"], "main.c", "mfik")],
)
def test_programs_link_and_call_every_function(cross, tmp_path, language, options, program, library):
    source, folder = ROOT / "csrc" / "tests" / "consumer" / program, cross / "csrc"
    folders = ["-I", ROOT / "csrc" / "include", "-L", folder]
    run(COMPILERS[language], source, *folders, f"-l{library}", *options, "-o", tmp_path / "program.exe")
    shutil.copy(folder / "libmfik.dll", tmp_path)
    assert "solved after" in run("wine", tmp_path / "program.exe", GOLDEN)
