"""What the tests of the command line share."""

import subprocess
import sys

import pytest
from cmake_project import ROOT

from mfik.cli.program import main


@pytest.fixture
def mfik(monkeypatch):
    """Run the program in this process, as its entry point does; return the exit status."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["/usr/bin/mfik", *map(str, arguments)])
        try:
            main()
        except SystemExit as end:
            return end.code
        return 0

    return run


@pytest.fixture(scope="session")
def imported():
    """Run the program by itself; return the top-level packages that it imports."""

    def run(*arguments):
        command = [sys.executable, "-X", "importtime", "-m", "mfik", *arguments]
        out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        lines = [line for line in out.stderr.splitlines() if line.startswith("import time:")]
        assert lines, out.stderr
        return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}

    return run
