"""libmfik.so keeps the binary interface that programs were linked against: tests/cpp/libmfik.abi, written by abidw.

Where an interface is added or, in a new minor version, broken, the dump is written anew:
MFIK_RENEW_ABI=1 pytest tests/cpp/test_abi.py
"""

import os
import platform
import shutil
import subprocess
from pathlib import Path

import pytest
from cmake_project import NEEDS_CMAKE, ROOT, run
from native import json_option

DUMP = Path(__file__).with_name("libmfik.abi")
BROKEN = 8  # bit of abidiff's exit status: programs must be compiled anew
pytestmark = [
    *NEEDS_CMAKE,
    pytest.mark.skipif(shutil.which("abidiff") is None, reason="needs abidiff: Debian's abigail-tools"),
    pytest.mark.skipif(platform.machine() != "x86_64", reason="the dump is that of x86-64"),
]


def build_library(folder: Path, include: Path, version_script: str) -> Path:
    """The C interface with its types, as debug information; the solver behind it is that of this installation."""
    sources = [ROOT / "csrc" / "solver" / part / "c_api.cpp" for part in ("", "collision", "path")]
    script, library = folder / "c_api.map", folder / "libmfik.so"
    script.write_text(version_script)
    json = [f"-I{option.partition('=')[2]}" for option in json_option()]
    options = [
        "-std=c++17",
        "-g",
        "-fPIC",
        "-shared",
        "-fvisibility=hidden",
        f"-ffile-prefix-map={ROOT}=.",
        '-DMFIK_VERSION="0"',
        "-pthread",
    ]
    folders = [f"-I{include}", f"-I{ROOT / 'csrc'}", *json]
    link = [ROOT / "mfik" / "_cpp" / "lib" / "libmfik_solver.a", f"-Wl,--version-script={script}"]
    run(os.environ.get("CXX", "c++"), *options, *folders, *sources, *link, "-o", library)
    return library


def dump(library: Path, include: Path) -> str:
    """Functions and types of the public headers; what is opaque to programs has no content."""
    short = ["--no-corpus-path", "--no-comp-dir-path", "--no-show-locs", "--no-elf-needed", "--type-id-style", "hash"]
    public = ["--exported-interfaces-only", "--drop-private-types", "--headers-dir", include / "mfik"]
    return run("abidw", *public, *short, library)


def difference(folder: Path, found: str) -> subprocess.CompletedProcess:
    """Of an interface from the one on record."""
    (folder / "found.abi").write_text(found)
    return subprocess.run(["abidiff", DUMP, folder / "found.abi"], capture_output=True, text=True, check=False)


def test_interface_is_the_one_on_record(tmp_path):
    include = ROOT / "csrc" / "include"
    library = build_library(tmp_path, include, (ROOT / "csrc" / "solver" / "c_api.map").read_text())
    found = dump(library, include)
    if os.environ.get("MFIK_RENEW_ABI"):
        DUMP.write_text(found)
    result = difference(tmp_path, found)
    assert result.returncode == 0, result.stdout + result.stderr


def test_removed_function_and_changed_structure_are_noticed(tmp_path):
    include = tmp_path / "include"
    shutil.copytree(ROOT / "csrc" / "include", include)
    header = include / "mfik" / "mfik.h"
    text = header.read_text()
    assert text.count("} mfik_result;") == 1
    header.write_text(text.replace("} mfik_result;", "double planted; } mfik_result;"))
    library = build_library(tmp_path, include, "{ global: mfik_[!d]*; mfik_destroy; local: *; };")  # without mfik_dof
    result = difference(tmp_path, dump(library, include))
    assert result.returncode & BROKEN, result.stdout + result.stderr
    assert "mfik_dof" in result.stdout and "planted" in result.stdout
