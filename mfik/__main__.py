"""Where the C++ library and the models of this installation lie: python -m mfik --help."""

import argparse
import sys
from pathlib import Path

import mfik

PACKAGE = Path(__file__).resolve().parent
PREFIX = PACKAGE / "_cpp"  # filled by setup.py with cmake --install


def main() -> None:
    """Print the paths that the command line asks for, a line each."""
    parser = argparse.ArgumentParser(
        prog="python -m mfik",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Print where the C++ library and the models of this installation lie.",
        epilog="""\
CMake, find_package(mfik REQUIRED), link mfik::solver (C++) or mfik::c (C):
  cmake -S . -B build -Dmfik_DIR=$(python -m mfik --cmake-dir)
pkg-config, mfik (C++) or mfik-c (C):
  PKG_CONFIG_PATH=$(python -m mfik --lib-dir)/pkgconfig pkg-config --cflags --libs mfik
Other languages load libmfik.so, the C API, from --lib-dir. Solver::load reads a pretrained model:
  $(python -m mfik --models-dir)/panda""",
    )
    parser.add_argument("--version", action="version", version=mfik.__version__, help="print the version")
    for flag, folder, text in (
        ("--cmake-dir", PREFIX / "lib/cmake/mfik", "mfikConfig.cmake, for mfik_DIR or CMAKE_PREFIX_PATH"),
        ("--include-dir", PREFIX / "include", "the headers, mfik/solver.hpp and mfik/mfik.h"),
        ("--lib-dir", PREFIX / "lib", "libmfik_solver.a (C++), libmfik.so (C) and pkgconfig"),
        ("--models-dir", PACKAGE / "models", "the pretrained models, for Solver::load(folder/NAME)"),
    ):
        parser.add_argument(flag, dest="folders", action="append_const", const=folder, help=f"folder of {text}")
    folders = parser.parse_args().folders
    if folders is None:
        parser.error("expected one of --cmake-dir, --include-dir, --lib-dir and --models-dir")
    for folder in folders:
        if not folder.is_dir():
            sys.exit(f"{folder}: not there, this mfik was not built; install it with: pip install .")
        print(folder)


if __name__ == "__main__":
    main()
