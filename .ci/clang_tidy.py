"""Run clang-tidy over the sources in csrc/ but its tests: configure them in build/tidy, then one process per core.

python .ci/clang_tidy.py [FILE...]    default: every source that CMake compiles
"""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import nlohmann_json
import pybind11
import torch

ROOT = Path(__file__).resolve().parents[1]
BUILD = ROOT / "build" / "tidy"


def configure() -> list[str]:
    """Return the sources; a source that is compiled for several instruction sets is looked at once."""
    options = {
        "CMAKE_EXPORT_COMPILE_COMMANDS": "ON",
        "CMAKE_PREFIX_PATH": torch.utils.cmake_prefix_path,
        "MFIK_BUILD_PYTHON": "ON",
        "MFIK_BUILD_TESTS": "OFF",
        "MFIK_CUDA": "0",
        "MFIK_JSON_INCLUDE_DIR": Path(nlohmann_json.__file__).parent / "include",
        "MFIK_PYTHON_OUTPUT_DIR": BUILD,
        "MFIK_TORCHSCRIPT": "ON",
        "Python_EXECUTABLE": sys.executable,
        "pybind11_DIR": pybind11.get_cmake_dir(),
    }
    command = ["cmake", "-S", ROOT, "-B", BUILD, "-G", "Ninja", *(f"-D{key}={value}" for key, value in options.items())]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    database = BUILD / "compile_commands.json"
    commands = {entry["file"]: entry for entry in reversed(json.loads(database.read_text()))}
    database.write_text(json.dumps(list(commands.values())))
    return sorted(file for file in commands if Path(file).is_relative_to(ROOT / "csrc"))


def check(file: str) -> bool:
    """Return whether a source is clean; print what is not."""
    result = subprocess.run(["clang-tidy", "-p", BUILD, "--quiet", file], capture_output=True, text=True)
    if result.returncode:
        print(result.stdout, end="", flush=True)
        if "error:" not in result.stdout:
            print(f"clang-tidy {file}: exit status {result.returncode}\n{result.stderr}", flush=True)
    return result.returncode == 0


def main() -> None:
    sources = configure()
    wanted = [str(Path(name).resolve()) for name in sys.argv[1:]] or sources
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        clean = list(pool.map(check, wanted))
    sys.exit(0 if all(clean) else f"clang-tidy: {clean.count(False)} of {len(clean)} sources have findings")


if __name__ == "__main__":
    main()
