"""What tests of the library on other systems share."""

import os
import re
from pathlib import Path

from cmake_project import ROOT, run

PANDA = ROOT / "mfik" / "models" / "panda"
SOLVES = 50
# With little optimization in half the time, with the same vector types. Without any, GCC takes vectors that are filled
# lane by lane for uninitialized ones.
FLAGS = "-DCMAKE_CXX_FLAGS_RELEASE=-O1 -DNDEBUG -Wno-maybe-uninitialized"


def solved_here(folder: Path) -> dict[str, str]:
    """Return what share of each kind of solves succeeds by mfik-bench on this machine, which is built in a folder."""
    library = ROOT / "mfik" / "_cpp"
    options = ["-std=c++17", "-I", library / "include", "-L", library / "lib", "-lmfik_solver", "-pthread"]
    run(os.environ.get("CXX", "c++"), ROOT / "csrc" / "tools" / "bench.cpp", *options, "-o", folder / "bench")
    return solved(run(folder / "bench", PANDA, SOLVES))


def solved(report: str) -> dict[str, str]:
    """Return what share of each kind of solves succeeded, of mfik-bench's lines."""
    rows = re.findall(r"^(.{34}) +([\d.]+) % ", report, re.M)
    assert len(rows) > 10, report
    return {name.strip(): share for name, share in rows}
