"""Robot files of the example-robot-data package."""

from __future__ import annotations

import sysconfig
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def example_robots() -> Path:
    """Return the folder of example-robot-data's robots; skip visibly without the package."""
    folder = Path(sysconfig.get_paths()["purelib"]) / "cmeel.prefix" / "share" / "example-robot-data" / "robots"
    if not folder.is_dir():
        pytest.skip("needs `pip install example-robot-data`")
    return folder
