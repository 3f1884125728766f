"""scripts/view.py, as a user runs it without what it needs."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WITHOUT_VISER = """
import importlib.util, runpy, sys
find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "viser" else find(name, package)
sys.argv = ["view.py"]
runpy.run_path("scripts/view.py", run_name="__main__")
"""


@pytest.mark.parametrize(
    ("command", "message"),
    [
        (["scripts/view.py", "--robot", "pandas"], "expected a preset (panda, ur10)"),
        (["scripts/view.py", "--model", "nowhere"], "nowhere"),
        (["-c", WITHOUT_VISER], "the viewer needs viser; install what it needs with: pip install 'mfik[viz]'"),
    ],
    ids=["robot", "model", "viser"],
)
def test_what_is_missing_is_named(command, message):
    out = subprocess.run([sys.executable, *command], cwd=ROOT, capture_output=True, text=True)
    assert out.returncode != 0 and "error: " in out.stderr and message in out.stderr, out.stderr
    assert "Traceback" not in out.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "{file}: cannot read the file (No such file or directory)"),
        ("[{", "{file}: expected a list of shapes in JSON or YAML"),
        ("3", "{file}: shapes: expected a list of shapes, got int"),
        ('[{"type": "box", "size": [0.1, 0.1, -1]}]', "shape 'box_0': size: expected a finite length above 0"),
    ],
    ids=["missing", "malformed", "no list", "bad size"],
)
def test_a_world_that_cannot_be_read_is_named(text, message, tmp_path):
    file = tmp_path / "world.json"
    if text is not None:
        file.write_text(text)
    command = [sys.executable, "scripts/view.py", "--robot", "panda", "--world", str(file)]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert out.returncode != 0 and message.format(file=file) in out.stderr, out.stderr
    assert "Traceback" not in out.stderr


def test_a_chain_with_mimic_joints_is_refused_by_name(tmp_path):
    file = tmp_path / "finger.urdf"
    file.write_text(
        '<robot name="finger"><link name="a"/><link name="b"/><link name="c"/>'
        '<joint name="j" type="revolute"><parent link="a"/><child link="b"/><limit lower="-1" upper="1"/></joint>'
        '<joint name="k" type="revolute"><parent link="b"/><child link="c"/><origin xyz="1 0 0"/><mimic joint="j"/>'
        '<limit lower="-1" upper="1"/></joint></robot>'
    )
    command = [sys.executable, "scripts/view.py", "--robot", str(file)]
    out = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert out.returncode != 0 and "mimic joints are not supported" in out.stderr, out.stderr
    assert "Traceback" not in out.stderr
