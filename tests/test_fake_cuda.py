"""What runs on CUDA, on a device that is not there: tests/fake_cuda, in a process that finds it there."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils import cpp_extension

FOLDER = Path(__file__).parent / "fake_cuda"


@pytest.fixture(scope="module")
def runtime(tmp_path_factory):
    """Build what PyTorch asks of a CUDA runtime; return the library."""
    if torch.version.cuda:
        pytest.skip("PyTorch was built for CUDA and has a runtime of its own: run the tests of CUDA on a GPU")
    pytest.importorskip("mfik._native", reason="needs the native extension: pip install -e .", exc_type=ImportError)
    compiler = os.environ.get("CXX") or shutil.which("c++")
    if compiler is None:
        pytest.skip("no C++ compiler")
    library = tmp_path_factory.mktemp("fake_cuda") / "runtime.so"
    include = [f"-isystem{path}" for path in cpp_extension.include_paths()]
    [lib] = cpp_extension.library_paths()
    command = [compiler, "-std=c++20", "-O0", "-shared", "-fPIC", *include, str(FOLDER / "runtime.cpp"), "-o"]
    subprocess.run([*command, str(library), f"-L{lib}", "-lc10", "-ltorch_cpu", f"-Wl,-rpath,{lib}"], check=True)
    return library


@pytest.mark.slow
def test_python_side_on_a_device_that_is_not_there(runtime):
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-n", "0", "--durations=5"]
    run = subprocess.run(
        [*command, "-o", "python_files=as_cuda_*.py", str(FOLDER)],
        env={**os.environ, "LD_PRELOAD": str(runtime), "PYTHONPATH": f"{FOLDER.parents[1]}:{FOLDER}"},
        cwd=FOLDER.parents[1],
        capture_output=True,
        text=True,
    )
    print(run.stdout)
    assert run.returncode == 0, run.stdout[-10_000:] + run.stderr[-2000:]
    assert " passed" in run.stdout and "skipped" not in run.stdout and "deselected" not in run.stdout
