"""`mfik reach`, as a user runs it."""

import json
import signal

import matplotlib.image
import numpy as np
import pytest

from mfik.cli import ERROR, INTERRUPTED
from mfik.progress import ProgressBar
from mfik.reach import ReachMap, ReachSettings, map_reach

COARSE = ("--resolution", 0.2, "--orientations", 6)
WALL = '[{"type": "half_space", "pose": [0.5, 0, 0, 0.7071067811865476, 0, -0.7071067811865476, 0]}]'


@pytest.fixture
def reach(mfik, capsys):
    """Run the command; return exit status, standard output and standard error."""

    def run(*arguments):
        status = mfik("reach", *arguments)
        return status, *capsys.readouterr()

    return run


def test_a_map_is_computed_drawn_and_described(reach, panda, tmp_path):
    status, out, err = reach("panda", *COARSE, "--output", tmp_path / "map")
    found = ReachMap.load(tmp_path / "map" / "reach.npz")
    np.testing.assert_array_equal(found.status, map_reach(panda, ReachSettings(0.2, orientations=6)).status)
    counts = found.counts()
    assert status == 0 and out.startswith(f"{counts['reached']:,} of {counts['poses']:,} poses are reached")
    assert f"{counts['poses']:,} poses, " in err and " MB" in err, "before it begins"
    image = matplotlib.image.imread(tmp_path / "map" / "reach.png")
    assert image.shape[0] > 500 and len(np.unique(image.reshape(-1, image.shape[2]), axis=0)) > 100
    page = (tmp_path / "map" / "index.html").read_text()
    assert f"{counts['reached']:,}" in page and "python -m mfik reach panda --resolution 0.2" in page


def test_what_is_asked_reaches_the_map(reach, tmp_path, monkeypatch):
    monkeypatch.setattr("mfik.cli.reach.has_matplotlib", lambda: False)  # without the extra viz there are no pictures
    (tmp_path / "world.json").write_text(WALL)
    asked = ("--world", tmp_path / "world.json", "--margin", 0.05, "--box", 0, -0.2, 0.2, 0.7, 0.2, 0.6)
    more = ("--locked", "panda_joint3", "--tool", 0, 0, 0.1, 1, 0, 0, 0, "--attempts", 4, "--threads", 1)
    status, out, _ = reach("panda", *COARSE, *asked, *more, "--output", tmp_path / "map", "--json")
    answer, found = json.loads(out), ReachMap.load(tmp_path / "map" / "reach.npz")
    assert status == 0 and answer["poses"] == 6 * 4 * 3 * 3 and answer["reached"] == found.counts()["reached"] > 0
    settings = found.document["settings"]
    assert settings["locked"] == [2] and settings["margin"] == 0.05 and settings["attempts"] == 4
    assert settings["tool"][2] == 0.1 and found.document["world"][0]["type"] == "half_space"
    assert found.share[found.x > 0.45].sum() == 0 < found.share_with_collision[found.x > 0.45].sum()
    loose = ("--position_only", "--ignore_self_collision", "--box", 0, 0, 0, 0.6, 0, 0.6)
    status, out, _ = reach("panda", "--resolution", 0.2, *loose, "--output", tmp_path / "map", "--overwrite")
    assert status == 0 and "no picture (pip install 'mfik[viz]')" in out
    found = ReachMap.load(tmp_path / "map" / "reach.npz")
    assert found.status.shape == (1, 4, 1, 4) and found.document["settings"]["self_collision"] is False


def test_what_ctrl_c_ends_is_continued_as_the_message_says(reach, panda, tmp_path, monkeypatch):
    update, folder = ProgressBar.update, tmp_path / "map"

    def interrupt(bar, n=1):
        update(bar, n)
        if bar.n == 2:
            signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(ProgressBar, "update", interrupt)
    status, _, err = reach("panda", *COARSE, "--output", folder)
    assert status == INTERRUPTED
    assert err.splitlines()[-1] == f"interrupted; continue with: python -m mfik reach --resume {folder}"
    assert len(list((folder / "blocks").iterdir())) == 2 and not (folder / "reach.npz").exists()
    monkeypatch.setattr(ProgressBar, "update", update)
    status, _, err = reach("panda", *COARSE, "--output", folder)
    assert status == ERROR and f"continue it with --resume {folder}" in err
    assert reach("--resume", folder, "--threads", 1)[0] == 0
    np.testing.assert_array_equal(
        ReachMap.load(folder / "reach.npz").status, map_reach(panda, ReachSettings(0.2, orientations=6)).status
    )
    assert "python -m mfik reach panda --resolution 0.2" in (folder / "index.html").read_text()
    assert "nothing is left to do" in reach("--resume", folder)[2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("panda",), "expected ROBOT and --output DIR, or --resume DIR"),
        (("pandas", "--output", "{}"), "expected a preset (panda, ur10)"),
        (("panda", "--output", "{}", "--world", "none.yml"), "none.yml: cannot read the file"),
        (("panda", "--output", "{}", "--resolution", 0), "resolution: expected a finite number above 0"),
        (("panda", "--output", "{}", "--resolution", 1e-4), "323,337,366,443,456 poses at 5,052,146,350,679 positions"),
        (("panda", "--output", "{}", "--locked", "elbow"), "--locked: expected joints of panda, got 'elbow'"),
        (
            ("panda", "--output", "{}", "--threads", 0),
            "--threads: expected at least 1, got 0; leave it out for all cores",
        ),
        (("--resume", "{}"), "holds no map of reach (no reach.json)"),
        (("--resume", "{}", "--margin", 0.1), "--resume: expected none but --threads, --ray, --json beside it"),
    ],
)
def test_what_is_wrong_is_one_line(arguments, message, reach, tmp_path):
    folder = tmp_path / "map"
    status, out, err = reach(*(str(argument).replace("{}", str(folder)) for argument in arguments))
    assert status == ERROR and out == "" and not folder.exists()
    assert message in err.splitlines()[-1] and "Traceback" not in err
