"""What stands for the interpreter in other tests (tests/programs.py) runs a script as the interpreter does."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from programs import SIGNAL_GROUP, python

from mfik import __version__

SCRIPT = """
import os, sys
print(__name__, sys.argv, os.getcwd(), os.environ.get("WORD"), sys.path[0], sys.stdin.read())
print("to stderr", file=sys.stderr)
{end}
"""
SLEEP = """
import subprocess, sys, time
child = subprocess.Popen(["sleep", "60"])
try:
    print("ready", flush=True)
    while True:
        time.sleep(0.1)  # short: a signal just before the call is seen only behind it
except KeyboardInterrupt:
    print("interrupted", child.poll() if len(sys.argv) > 1 else child.wait(5))
    child.kill()
    raise
"""


@pytest.mark.parametrize(
    "end", ["", "sys.exit(3)", "sys.exit('error: no')", "raise ValueError('no')", "os.kill(os.getpid(), 9)"]
)
def test_a_script_ends_as_it_does_in_the_interpreter(tmp_path, end):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT.format(end=end))
    outcomes = []
    for interpreter in (sys.executable, python()):
        out = subprocess.run(
            [interpreter, "script.py", "a b", "--c"], cwd=tmp_path, capture_output=True, text=True, input="word\n",
            env={**os.environ, "WORD": "1"},
        )  # fmt: skip
        lines = out.stderr.splitlines()
        outcomes.append((out.returncode, out.stdout, lines[:2], lines[-1:]))
    assert outcomes[0] == outcomes[1]


def test_the_program_mfik_is_there_as_if_it_was_installed(tmp_path):
    mfik = str(Path(python()).with_name("mfik"))
    out = subprocess.run([mfik, "--version"], cwd=tmp_path, capture_output=True, text=True)
    assert (out.returncode, out.stdout, out.stderr) == (0, f"{__version__}\n", "")
    out = subprocess.run([mfik, "solve", "panda", "--pose", "3", "-5e-05", "0"], capture_output=True, text=True)
    assert out.returncode == 1 and "panda_joint7" in out.stdout


@pytest.mark.parametrize("group", [True, False])
def test_signals_reach_the_script_or_all_its_processes(tmp_path, group):
    script = tmp_path / "script.py"
    script.write_text(SLEEP)
    process = subprocess.Popen(
        [python(), script, *([] if group else ["alone"])], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, SIGNAL_GROUP: "1" if group else ""},
    )  # fmt: skip
    assert process.stdout.readline() == "ready\n"
    process.send_signal(signal.SIGINT)
    out, errors = process.communicate(timeout=60)
    assert out.startswith("interrupted " + ("-2" if group else "None")) and errors.endswith("KeyboardInterrupt\n")
    assert process.returncode == -signal.SIGINT
