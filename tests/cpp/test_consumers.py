"""Another project's programs, C++ and C, with mfik's sources and with this installation; tests/packaging: a wheel."""

import sys
from pathlib import Path

from cmake_project import NEEDS_CMAKE, ROOT, run, serve_another_project
from native import json_option

pytestmark = NEEDS_CMAKE


def test_sources_serve_another_project(tmp_path):
    """Unoptimised, as such a project is debugged."""
    options = [f"-DMFIK_SOURCE_DIR={ROOT}", "-DCMAKE_BUILD_TYPE=Debug"]
    serve_another_project(tmp_path / "build", *options, *json_option())


def test_this_installation_serves_another_project(tmp_path):
    """From mfik as these tests import it: the sources, for an editable install."""
    where = run(sys.executable, "-m", "mfik", "--cmake-dir", "--include-dir", "--lib-dir").split()
    assert (Path(where[1]) / "mfik" / "solver.hpp").is_file() and (Path(where[2]) / "pkgconfig" / "mfik.pc").is_file()
    serve_another_project(tmp_path / "build", f"-Dmfik_DIR={where[0]}")
