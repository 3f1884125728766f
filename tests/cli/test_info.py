"""`mfik info` and `mfik completion`, as a user runs them."""

import json
import subprocess

import numpy as np
import pytest
from cmake_project import ROOT

from mfik.cli.program import COMMANDS
from mfik.robots import load_robot

GANTRY = ROOT / "examples" / "gantry.urdf"
XACRO = '<robot name="arm" xmlns:xacro="http://www.ros.org/wiki/xacro"><xacro:include filename="{path}"/></robot>'


@pytest.fixture
def info(mfik, capsys):
    """Run the command, which succeeds; return what it prints."""

    def run(*arguments):
        status = mfik("info", *arguments)
        out, err = capsys.readouterr()
        assert status == 0 and err == "", err
        return out

    return run


def test_a_pretrained_model_is_a_page(panda, info):
    text = info("panda")
    lines = text.splitlines()
    assert lines[0] == "panda: panda_link0 -> panda_link8, 7 joints" and len(lines) < 50
    for name, row in zip(panda.joint_names, lines[3:10], strict=True):
        joint = panda.joint_names.index(name)
        kind, lower, upper, unit, velocity, speed = row.removeprefix(name).split()
        assert (kind, unit, speed) == ("revolute", "rad", "rad/s")
        given = [float(lower), float(upper), float(velocity)]
        assert given == pytest.approx([panda.lower[joint], panda.upper[joint], panda.velocity[joint]], abs=1e-4)
    assert "221 on 11 links" in text and "v2, 29,191 parameters" in text and "- **Seed**" in text
    card = ROOT / "mfik" / "models" / "panda" / "README.md"
    assert f"card     {card}" in lines


def test_a_machine_reads_the_same(panda, info, rng):
    facts = json.loads(info("panda", "--json"))
    assert [joint["name"] for joint in facts["joints"]] == list(panda.joint_names)
    assert sum(facts["body"]["spheres"].values()) == panda.body.num_spheres
    assert sum(facts["body"]["pairs"].values()) == len(panda.body.pairs)
    assert facts["model"]["parameters"] == 29191 and facts["model"]["training"]["steps"] > 0
    tool = panda.fk(panda.sample(500, np.random.default_rng(3)))[:, :3]
    low, high = np.array(facts["reach"]["lower"]), np.array(facts["reach"]["upper"])
    assert (tool > low - 0.05).all() and (tool < high + 0.05).all() and (high - low < 2.0).all()
    assert 0.8 < facts["reach"]["from_first_joint"] < 0.9  # FR3 and Panda: 0.855 m


def test_files_of_robots_are_shown(info, tmp_path):
    text = info(GANTRY, "--base_link", "world", "--tip_link", "flange")
    assert "rail   prismatic" in text and "1 m/s" in text and "roll   continuous" in text and " unknown" in text
    assert "spheres  none" in text and "network  none" in text
    (tmp_path / "arm.urdf.xacro").write_text(XACRO.format(path=GANTRY))
    again = info(tmp_path / "arm.urdf.xacro", "--base_link", "world", "--tip_link", "flange")
    assert again.partition("\n")[2] == text.partition("\n")[2]
    (tmp_path / "arm.mjcf").write_text(
        '<mujoco model="slide"><worldbody><body name="cart"><joint name="x" type="slide" axis="1 0 0" range="0 2"/>'
        '<geom size="0.1"/></body></worldbody></mujoco>'
    )
    facts = json.loads(info(tmp_path / "arm.mjcf", "--tip_link", "cart", "--json"))
    (joint,) = facts["joints"]
    assert joint == {"name": "x", "kind": "prismatic", "lower": 0.0, "upper": 2.0, "velocity": None}
    assert facts["reach"]["upper"][0] == pytest.approx(2.0, abs=1e-3) and facts["model"] is None


def test_a_mimic_joint_is_counted(info, tmp_path):
    (tmp_path / "lift.urdf").write_text(
        '<robot name="lift"><link name="a"/><link name="b"/><link name="c"/>'
        '<joint name="one" type="prismatic"><parent link="a"/><child link="b"/><axis xyz="0 0 1"/>'
        '<limit lower="0" upper="0.4" velocity="1" effort="1"/></joint>'
        '<joint name="two" type="prismatic"><parent link="b"/><child link="c"/><axis xyz="0 0 1"/>'
        '<limit lower="0" upper="0.4" velocity="1" effort="1"/><mimic joint="one"/></joint></robot>'
    )
    text = info(tmp_path / "lift.urdf")
    assert "lift: a -> c, 1 joints" in text and "1 that follow others (mimic)" in text and "z 0.000 to 0.800" in text


def test_a_bundle_is_shown_with_its_files(info, tmp_path):
    from shutil import copytree

    copytree(ROOT / "mfik" / "models" / "ur10", tmp_path / "mine")
    (tmp_path / "mine" / "README.md").unlink()
    facts = json.loads(info(tmp_path / "mine", "--json"))
    assert facts["robot"] == load_robot("ur10").name and facts["model"]["bundle"] == str(tmp_path / "mine")
    assert facts["model"]["card"] is None and "card" not in info(tmp_path / "mine")


def test_a_shell_completes_commands_options_and_files(mfik, capsys, tmp_path):
    assert mfik("completion", "bash") == 0
    script = tmp_path / "mfik.bash"
    script.write_text(capsys.readouterr().out)

    def complete(*words):
        line = " ".join(f"'{word}'" for word in words)
        code = f"source {script}; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; _shtab_mfik"
        code += '; printf "%s\\n" "${COMPREPLY[@]}"'
        return subprocess.run(["bash", "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split()

    assert set(COMMANDS) <= set(complete("mfik", ""))
    assert complete("mfik", "solve", "panda", "--to") == ["--tool", "--tol_pos", "--tol_rot"]
    assert complete("mfik", "solve", "READ") == ["README.md"]
    assert "nano" in complete("mfik", "fit", "panda", "--preset", "")
    for shell in ("zsh", "tcsh"):
        assert mfik("completion", shell) == 0 and "solve" in capsys.readouterr().out
