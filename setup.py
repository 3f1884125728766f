"""Build the native extension: CMakeLists.txt is the single source of truth, this file only drives it.

Environment: MFIK_CUDA=auto|0|1 (default auto: CUDA kernels are compiled where a CUDA compiler is found).
"""

import filecmp
import os
import shutil
import subprocess
import sys
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent
BUILD = ROOT / "build" / f"python-{sys.version_info.major}.{sys.version_info.minor}"


def kept(package: Path) -> Path:
    """Copy a package beside what is built and return the copy; files that did not change keep their time.

    An isolated build has its packages in another folder each time. Commands that name it would compile everything anew.
    """
    copy = BUILD / "packages" / package.name
    for source in package.rglob("*"):
        target = copy / source.relative_to(package)
        if source.is_file() and not (target.is_file() and filecmp.cmp(source, target, shallow=False)):
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
    return copy


class CMakeBuild(build_ext):
    """Build `mfik/_native`, and `mfik/_cpp` with the C++ library for other projects, by CMake and Ninja."""

    def run(self) -> None:
        super().run()
        # Beside the extension: in the sources for an editable install, else in the folder that becomes the wheel.
        prefix = Path(self.get_ext_fullpath("mfik._native")).resolve().parent / "_cpp"
        shutil.rmtree(prefix, ignore_errors=True)
        subprocess.run([shutil.which("cmake"), "--install", str(BUILD), "--prefix", str(prefix)], check=True)

    def build_extension(self, ext: Extension) -> None:
        import nlohmann_json
        import pybind11

        cmake, ninja = shutil.which("cmake"), shutil.which("ninja")
        if cmake is None or ninja is None:
            raise RuntimeError("mfik needs cmake and ninja to build; install them with: pip install cmake ninja")
        cuda = os.environ.get("MFIK_CUDA", "auto")
        if cuda not in ("auto", "0", "1"):
            raise RuntimeError(f"MFIK_CUDA: expected auto, 0 or 1, got {cuda!r}")
        output = Path(self.get_ext_fullpath(ext.name)).resolve().parent
        BUILD.mkdir(parents=True, exist_ok=True)
        # The isolated environment that an earlier configuration points to is gone: drop its cache.
        (BUILD / "CMakeCache.txt").unlink(missing_ok=True)
        configure = [
            cmake, "-S", str(ROOT), "-B", str(BUILD), "-G", "Ninja",
            f"-DCMAKE_MAKE_PROGRAM={ninja}",
            "-DCMAKE_BUILD_TYPE=Release",
            "-DMFIK_BUILD_PYTHON=ON",
            "-DMFIK_BUILD_TESTS=OFF",
            "-DMFIK_BUILD_TOOLS=OFF",
            "-DCMAKE_INSTALL_LIBDIR=lib",
            f"-DMFIK_CUDA={cuda}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-Dpybind11_DIR={kept(Path(pybind11.__file__).parent) / 'share' / 'cmake' / 'pybind11'}",
            f"-DMFIK_JSON_INCLUDE_DIR={kept(Path(nlohmann_json.__file__).parent) / 'include'}",
            f"-DMFIK_PYTHON_OUTPUT_DIR={output}",
        ]  # fmt: skip
        subprocess.run(configure, check=True)
        subprocess.run([cmake, "--build", str(BUILD), "--target", "mfik_python", "mfik_c"], check=True)


setup(ext_modules=[Extension("mfik._native", sources=[])], cmdclass={"build_ext": CMakeBuild})
