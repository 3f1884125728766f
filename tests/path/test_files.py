"""Files of poses and joints: what is written is read back, and what is wrong is named with file and line."""

import csv

import numpy as np
import pytest

from mfik.errors import ArgumentError, WriteError
from mfik.path import load_joints, load_poses, retime, save_joints, save_poses

NAMES = ("a", "b, with a comma")


@pytest.fixture
def poses(rng):
    quat = rng.standard_normal((20, 4))
    return np.concatenate([rng.uniform(-1, 1, (20, 3)), quat / np.linalg.norm(quat, axis=1, keepdims=True)], axis=1)


@pytest.mark.parametrize("ending", ["csv", "npz"])
def test_poses_come_back_to_the_last_bit(poses, tmp_path, ending):
    file = tmp_path / "new folder" / f"poses.{ending}"
    save_poses(file, poses)
    np.testing.assert_array_equal(load_poses(file), poses)
    assert [path.name for path in file.parent.iterdir()] == [file.name]


@pytest.mark.parametrize("ending", ["csv", "npz"])
def test_joints_come_back_in_the_order_asked_for(rng, tmp_path, ending):
    q, file = rng.standard_normal((9, 2)), str(tmp_path / f"q.{ending}")
    save_joints(file, q, NAMES)
    read, times = load_joints(file, NAMES)
    np.testing.assert_array_equal(read, q)
    assert times is None
    np.testing.assert_array_equal(load_joints(file, NAMES[::-1])[0], q[:, ::-1])


@pytest.mark.parametrize("ending", ["csv", "npz"])
def test_a_trajectory_comes_back_with_its_times(tmp_path, ending):
    file, found = tmp_path / f"t.{ending}", retime([[0.0, 0.0], [1.0, 0.5], [1.0, 1.0]], 1.0, 3.0, dt=0.01)
    save_joints(file, found, NAMES)
    q, t = load_joints(file, NAMES)
    np.testing.assert_array_equal(q, found.q)
    np.testing.assert_array_equal(t, found.t)
    if ending == "csv":
        header, *rows = csv.reader(file.read_text().splitlines())
        speeds = [f"{name}_{kind}" for kind in ("velocity", "acceleration") for name in NAMES]
        assert header == ["time_s", *NAMES, *speeds]
        np.testing.assert_array_equal(np.array(rows, float)[:, 3:5], found.dq)
        np.testing.assert_array_equal(np.array(rows, float)[:, 5:], found.ddq)
    else:
        with np.load(file) as arrays:
            np.testing.assert_array_equal(arrays["ddq"], found.ddq)


def test_what_other_programs_write_is_read(tmp_path):
    file = tmp_path / "poses.csv"
    file.write_bytes("\ufeffid, qw,qx,qy,qz ,x,y,z\r\n\r\nfirst,-1,0,0,0,1e-1,.2,3\r\n".encode())
    np.testing.assert_array_equal(load_poses(file), [[0.1, 0.2, 3, -1, 0, 0, 0]])


HEAD = "x,y,z,qw,qx,qy,qz\n"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (HEAD + "0,0,0,1,0,0,0\n0,0,nan,1,0,0,0\n", ", line 3: expected a finite number for 'z', got 'nan'"),
        (HEAD + "0,0,0,1,0,0,0\n\n0,0,zero,1,0,0,0\n", ", line 4: expected a finite number for 'z', got 'zero'"),
        (HEAD + "0,0,0,1,0,0\n", ", line 2: expected 7 values as in the header, got 6"),
        (HEAD + "0,0,0,1,0,0,0\n0,0,0,3,0,0,0\n", ", line 3: pose: .*unit quaternion"),
        ("0,0,0,1,0,0,0\n", ", line 1: expected a header with the columns x,y,z,qw,qx,qy,qz.*first line"),
        ("x,y,z,qx,qy,qz,qx\n", ", line 1: expected a header .*'qw' 0 times"),
        (HEAD, ": expected a header and at least one line of numbers, got none"),
        ("", ": expected a header and at least one line of numbers, got none"),
        (b"\xff\xfe\x00", ": expected CSV text"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, text, message):
    file = tmp_path / "poses.csv"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ArgumentError, match=rf"poses\.csv{message}"):
        load_poses(file)


def test_wrong_joints_are_named(tmp_path):
    file = tmp_path / "q.csv"
    file.write_text("time_s,a,b\n0,1,2\n0.5,1,2\n0.5,1,2\n")
    with pytest.raises(ArgumentError, match=r"q.csv, line 4: expected a time after 0.5 s, got 0.5 s"):
        load_joints(file, ["a", "b"])
    with pytest.raises(ArgumentError, match=r"q.csv, line 1: expected a header with the columns a,c"):
        load_joints(file, ["a", "c"])
    np.savez(tmp_path / "q.npz", q=np.zeros((3, 2)), joint_names=["a", "b"], t=[0, 2, 1])
    with pytest.raises(ArgumentError, match=r"q.npz, row 2: expected a time after 2 s"):
        load_joints(tmp_path / "q.npz", ["a"])
    with pytest.raises(ArgumentError, match=r"q.npz: expected the joints c, got no 'c'"):
        load_joints(tmp_path / "q.npz", ["c"])
    with pytest.raises(ArgumentError, match="q.npz: expected the arrays poses, got .*no poses"):
        load_poses(tmp_path / "q.npz")
    (tmp_path / "q.npz").write_text("no archive")
    with pytest.raises(ArgumentError, match="q.npz: expected an .npz file"):
        load_joints(tmp_path / "q.npz", ["a"])
    np.savez(tmp_path / "q.npz", q=np.zeros((0, 1)), joint_names=["a"])
    with pytest.raises(ArgumentError, match="q.npz: expected at least one row"):
        load_joints(tmp_path / "q.npz", ["a"])
    np.savez(tmp_path / "q.npz", poses=np.array([[object()] * 7]))
    with pytest.raises(ArgumentError, match="q.npz: expected an .npz file"):
        load_poses(tmp_path / "q.npz")


def test_paths_names_and_numbers_are_checked(poses, tmp_path):
    for call in (lambda name: save_poses(name, poses), load_poses, lambda name: load_joints(name, ["a"])):
        with pytest.raises(ArgumentError, match="file: expected a name that ends in .csv or .npz, got 'poses.txt'"):
            call("poses.txt")
        with pytest.raises(ArgumentError, match="file: expected a path"):
            call(3)
    for name in ("none.csv", "none.npz"):
        with pytest.raises(ArgumentError, match=rf"{name}: cannot read the file \(No such file or directory\)"):
            load_poses(tmp_path / name)
    for names in ("ab", ["a", "a"], [], [1, 2]):
        with pytest.raises(ArgumentError, match="joint_names: expected different names"):
            save_joints(tmp_path / "q.csv", np.zeros((1, 2)), names)
    with pytest.raises(ArgumentError, match=r"path\[0, 1\]: expected a finite number"):
        save_joints(tmp_path / "q.csv", [[0, np.nan]], NAMES)
    with pytest.raises(ArgumentError, match=r"joint_names: expected 1 names"):
        save_joints(tmp_path / "q.csv", retime([[0.0]], 1.0, 1.0), NAMES)
    assert list(tmp_path.iterdir()) == [], "nothing is written of what is wrong"
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="cannot be written"):
        save_poses(tmp_path / "file" / "poses.csv", poses)
