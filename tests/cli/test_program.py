"""The program `mfik`: its commands, exit statuses and errors; what the command lines of scripts share."""

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest
import tomllib
from cmake_project import ROOT

from mfik import __version__
from mfik.cli import ERROR, INTERRUPTED, NOT_DONE, Parser, program_words, run_script
from mfik.cli.program import COMMANDS, main
from mfik.errors import ArgumentError


def mfik(*arguments, monkeypatch):
    """Run the program in this process, as its entry point does; return the exit status."""
    monkeypatch.setattr(sys, "argv", ["/usr/bin/mfik", *map(str, arguments)])
    try:
        main()
    except SystemExit as end:
        return end.code
    return 0


def imported(*arguments):
    """Return the top-level packages that a run of the program imports."""
    command = [sys.executable, "-X", "importtime", "-m", "mfik", *arguments]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    lines = [line for line in out.stderr.splitlines() if line.startswith("import time:")]
    assert lines, out.stderr
    return {line.rpartition("|")[2].strip().partition(".")[0] for line in lines}


def test_the_installed_program_is_the_one_tested_here():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert list(scripts) == ["mfik"]
    assert EntryPoint("mfik", scripts["mfik"], "console_scripts").load() is main


def test_help_names_every_command_and_imports_none():
    out = subprocess.run([sys.executable, "-m", "mfik", "--help"], cwd=ROOT, capture_output=True, text=True, check=True)
    for name, text in COMMANDS.items():
        assert f"    {name} " in out.stdout and text in out.stdout
    assert not imported("--help") & {"numpy", "torch"}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself(name, monkeypatch, capsys):
    assert mfik(name, "--help", monkeypatch=monkeypatch) == 0
    usage, purpose, *options = capsys.readouterr().out.split("\n\n")
    assert usage.startswith(f"usage: mfik {name} [-h]") and purpose.strip().endswith(".")
    assert len(purpose.splitlines()) <= 2 and options


def test_folders_and_version_are_printed(monkeypatch, capsys):
    assert mfik("--models-dir", "--version", monkeypatch=monkeypatch) == 0
    assert capsys.readouterr().out.split() == [__version__, str(ROOT / "mfik" / "models")]


@pytest.mark.parametrize("arguments", [(), ("solv",), ("export",), ("export", "--model", "none", "--output", "x")])
def test_what_is_wrong_is_an_error_without_a_traceback(arguments, monkeypatch, capsys):
    assert mfik(*arguments, monkeypatch=monkeypatch) == ERROR == 2
    out, err = capsys.readouterr()
    assert out == "" and "error: " in err.splitlines()[-1]


def test_ends_are_told_apart(monkeypatch, capsys):
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
