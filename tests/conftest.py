"""Fixtures shared by all tests, and CI's rule about skips."""

import os
import sysconfig
from pathlib import Path

import pytest
import torch

from mfik.robots import load_robot

# The tests' networks are tiny: on busy cores, waiting for a second thread takes longer than its share of the work.
torch.set_num_threads(1)
_skipped: list[str] = []
# Files that take minutes. A worker takes files in this order, then the others: whoever began one of these last would
# work on alone.
_LONGEST = (
    "cpp/test_sanitizers.py",
    "cpp/test_cpp.py",
    "test_docs.py",
    "test_fit.py",
    "export/test_bundle.py",
    "cpp/test_consumers.py",
    "cpp/test_cuda_emulation.py",
    "scripts/test_scripts.py",
    "collision/test_tracking.py",
    "examples/test_graphs.py",
    "export/test_graphs.py",
    "eval/test_peers.py",
    "packaging/test_aarch64.py",
    "packaging/test_windows.py",
    "test_fake_cuda.py",
    "train/test_loss.py",
    "test_site.py",
    "test_typing.py",
    "test_cluster.py",
)


@pytest.fixture(scope="session")
def panda():
    return load_robot("panda")


@pytest.fixture(scope="session")
def ur10():
    return load_robot("ur10")


@pytest.fixture(scope="session")
def example_robots() -> Path:
    """Return the folder of example-robot-data's robots; skip visibly without the package."""
    folder = Path(sysconfig.get_paths()["purelib"]) / "cmeel.prefix" / "share" / "example-robot-data" / "robots"
    if not folder.is_dir():
        pytest.skip("needs `pip install example-robot-data`")
    return folder


@pytest.fixture(params=["panda", "ur10", "tiago"])
def any_robot(request):
    """Return seven joints, six, and eight of which the first is prismatic."""
    if request.param != "tiago":
        return load_robot(request.param)
    urdf = request.getfixturevalue("example_robots") / "tiago_description" / "robots" / "tiago.urdf"
    return load_robot(urdf, "torso_fixed_link", "arm_tool_link")


@pytest.fixture
def rng():
    return torch.Generator().manual_seed(0)


def pytest_collection_modifyitems(items):
    folder = Path(__file__).parent
    rank = {folder / name: i for i, name in enumerate(_LONGEST)}
    assert all(path.is_file() for path in rank), "tests/conftest.py names a file that is gone"
    items.sort(key=lambda item: rank.get(item.path, len(rank)))


def pytest_runtest_logreport(report):
    if report.skipped and "CUDA" not in str(report.longrepr):
        _skipped.append(f"{report.nodeid}: {report.longrepr}")


def pytest_sessionfinish(session, exitstatus):
    """In CI (CI=true), fail when anything was skipped that could have run: only a missing GPU excuses a skip."""
    if os.environ.get("CI") == "true" and _skipped and exitstatus == 0:
        print("\nskipped in CI:", *_skipped, sep="\n  ")
        session.exitstatus = 1
