"""mfik is typed: a type checker finds it where it is installed, and accepts what programs write."""

import sys
from pathlib import Path

import pytest
from cmake_project import ROOT, run

CONSUMER = ROOT / "tests" / "typed_consumer.py"


def mypy(file: Path) -> str:
    return run(sys.executable, "-m", "mypy", "--strict", "--config-file=", f"--cache-dir={ROOT / '.mypy_cache'}", file)


@pytest.mark.slow
def test_mypy_finds_mfik_and_accepts_what_programs_write(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # mypy looks into the working folder, where a user has no mfik
    mypy(CONSUMER)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("joints: int = solver.dof", "joints: str = solver.dof", "Incompatible types"),
        ("load_robot(urdf, base_link=", "load_robot(urdf, base=", "Unexpected keyword"),
        ("config.learning_rate = 3e-3", "config.learning_rates = 3e-3", "has no attribute"),
    ],
)
def test_mypy_refuses_a_wrong_use(tmp_path, monkeypatch, right, wrong, message):
    monkeypatch.chdir(tmp_path)
    text = CONSUMER.read_text()
    assert right in text
    (tmp_path / "wrong.py").write_text(text.replace(right, wrong))
    with pytest.raises(pytest.fail.Exception, match=message):
        mypy(tmp_path / "wrong.py")
