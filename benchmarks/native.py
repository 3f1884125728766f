"""Compile the benchmarks that are C++ programs."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def json_option() -> list[str]:
    """Point CMake to PyPI's nlohmann_json where it is installed, else leave it to find the system's.

    To the copy beside the extension's build, if there is one: a compiler cache then has what that build compiled.
    """
    kept = ROOT / "build" / f"python-{sys.version_info.major}.{sys.version_info.minor}" / "packages" / "nlohmann_json"
    if not kept.is_dir():
        spec = importlib.util.find_spec("nlohmann_json")
        if spec is None or spec.origin is None:
            return []
        kept = Path(spec.origin).parent
    return [f"-DMFIK_JSON_INCLUDE_DIR={kept / 'include'}"]


def build(target: str, folder: Path, *options: str) -> Path:
    """Compile a program of csrc/CMakeLists.txt in a folder, as the Python extension is compiled; return it."""
    configure = [
        "cmake", "-S", ROOT, "-B", folder, "-G", "Ninja", "-DCMAKE_BUILD_TYPE=Release", "-DMFIK_BUILD_BENCHMARKS=ON",
        "-DMFIK_BUILD_TESTS=OFF", "-DMFIK_BUILD_TOOLS=OFF", *json_option(), *options,
    ]  # fmt: skip
    for command in (configure, ["cmake", "--build", folder, "--target", target]):
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return folder / "csrc" / target
