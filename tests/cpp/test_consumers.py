"""Another project's programs, C++ and C, with mfik's sources, with this installation, and with a wheel."""

import os
import subprocess
import sys
from pathlib import Path

from cmake_project import NEEDS_CMAKE, ROOT, json_option, run, serve_another_project

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
