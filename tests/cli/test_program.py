"""The program `mfik`: its commands, exit statuses and errors; what the command lines of scripts share."""

import re
import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest
from cmake_project import ROOT

from mfik import __version__
from mfik.cli import ERROR, INTERRUPTED, NOT_DONE, Parser, program_words, run_script
from mfik.cli.program import COMMANDS, main
from mfik.errors import ArgumentError


def test_the_installed_program_is_the_one_tested_here():
    (target,) = re.findall(r'^\[project.scripts\]\nmfik = "(.*)"\n\n', (ROOT / "pyproject.toml").read_text(), re.M)
    assert EntryPoint("mfik", target, "console_scripts").load() is main


def test_help_names_every_command_and_imports_none(imported):
    out = subprocess.run([sys.executable, "-m", "mfik", "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name, text in COMMANDS.items():
        assert f"    {name} " in out.stdout and text in out.stdout
    assert not imported("--help") & {"numpy", "torch"}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name, mfik, capsys):
    assert mfik(name, "--help") == 0
    usage, purpose, *options = capsys.readouterr().out.split("\n\n")
    assert usage.startswith(f"usage: mfik {name} [-h]") and purpose.strip().endswith(".")
    assert len(purpose.splitlines()) <= 2 and options


def test_folders_and_version_are_printed(mfik, capsys):
    assert mfik("--models-dir", "--version") == 0
    assert capsys.readouterr().out.split() == [__version__, str(ROOT / "mfik" / "models")]


@pytest.mark.parametrize("arguments", [(), ("solv",), ("export",), ("export", "--model", "none", "--output", "x")])
def test_what_is_wrong_is_an_error_without_a_traceback(arguments, mfik, capsys):
    assert mfik(*arguments) == ERROR == 2
    out, err = capsys.readouterr()
    assert out == "" and "error: " in err.splitlines()[-1]


def test_ends_are_told_apart(capsys):
    def ends(what):
        def run():
            if isinstance(what, BaseException):
                raise what
            return what

        try:
            run_script(run)
        except SystemExit as end:
            return end.code
        return 0

    assert ends(None) == 0 and ends(NOT_DONE) == 1 and ends(KeyboardInterrupt()) == INTERRUPTED == 130
    assert ends(ArgumentError("pose: wrong")) == ends(ImportError("xacro")) == ERROR
    assert ends(FileNotFoundError(2, "No such file", "world.yml")) == ERROR
    assert capsys.readouterr().err.splitlines() == [
        "error: pose: wrong", "error: xacro", "error: world.yml: No such file",
    ]  # fmt: skip
    with pytest.raises(ZeroDivisionError):
        ends(ZeroDivisionError())  # a defect keeps its traceback


def test_a_reader_that_has_enough_is_no_error():
    command = f"{sys.executable} -m mfik " + "--version --models-dir " * 2000 + "| head -n 1"
    out = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True)
    assert out.stdout == f"{__version__}\n" and out.stderr == ""


def test_negative_numbers_are_no_options():
    parser = Parser()
    parser.add_argument("robot")
    parser.add_argument("--pose", type=float, nargs="+")
    parser.add_argument("--count", type=int)
    args = parser.parse_args("panda --pose -5e-05 -1E3 -.5 -inf 1 --count -3".split())
    assert args.pose == [-5e-05, -1e3, -0.5, -float("inf"), 1.0] and args.count == -3 and args.robot == "panda"
    with pytest.raises(SystemExit):
        parser.parse_args("panda --pose 1 -x".split())
    with pytest.raises(SystemExit):
        parser.parse_args("panda --pose -e5".split())


def test_commands_are_repeated_as_they_were_given(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["/usr/bin/mfik", "fit", "panda", "--minutes", "1"])
    assert program_words() == ["-m", "mfik", "fit", "panda", "--minutes", "1"]
    assert program_words(["--resume", "run"]) == ["-m", "mfik", "fit", "--resume", "run"]
    monkeypatch.setattr(sys, "argv", ["scripts/fit.py", "panda"])
    assert program_words() == ["scripts/fit.py", "panda"]
    assert program_words(["--resume", "run"]) == ["scripts/fit.py", "--resume", "run"]
