"""Where the C++ library of this installation lies: python -m mfik --help."""

import argparse
import sys
from pathlib import Path

import mfik

PREFIX = Path(__file__).resolve().parent / "_cpp"  # filled by setup.py with cmake --install


def main() -> None:
    """Print the paths that the command line asks for, a line each."""
    parser = argparse.ArgumentParser(
        prog="python -m mfik",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Print where the C++ library of this installation lies, for builds of your own.",
        epilog="""\
CMake, find_package(mfik REQUIRED), link mfik::solver (C++) or mfik::c (C):
  cmake -S . -B build -Dmfik_DIR=$(python -m mfik --cmake-dir)
pkg-config, mfik (C++) or mfik-c (C):
  PKG_CONFIG_PATH=$(python -m mfik --lib-dir)/pkgconfig pkg-config --cflags --libs mfik
Other languages load libmfik.so, the C API, from --lib-dir.""",
    )
    parser.add_argument("--version", action="version", version=mfik.__version__, help="print the version")
    for flag, folder, text in (
        ("--cmake-dir", "lib/cmake/mfik", "mfikConfig.cmake, for mfik_DIR or CMAKE_PREFIX_PATH"),
        ("--include-dir", "include", "the headers, mfik/solver.hpp and mfik/mfik.h"),
        ("--lib-dir", "lib", "libmfik_solver.a (C++), libmfik.so (C) and pkgconfig"),
    ):
        parser.add_argument(flag, dest="folders", action="append_const", const=folder, help=f"folder of {text}")
    folders = parser.parse_args().folders
    if folders is None:
        parser.error("expected one of --cmake-dir, --include-dir and --lib-dir")
    for folder in folders:
        if not (PREFIX / folder).is_dir():
            sys.exit(f"{PREFIX / folder}: not there, this mfik was not built; install it with: pip install .")
        print(PREFIX / folder)


if __name__ == "__main__":
    main()
