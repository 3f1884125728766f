"""Files are written whole, progress in lines where nobody watches."""

import errno
import io
import os
import subprocess
import sys
import time

import pytest

from mfik.errors import WriteError
from mfik.progress import ProgressBar
from mfik.writing import make_folder, whole_file


@pytest.fixture
def umask():
    before = os.umask(0o027)
    yield 0o027
    os.umask(before)


def test_a_file_has_the_umasks_mode_and_appears_when_it_is_whole(tmp_path, umask):
    path = tmp_path / "new" / "file"
    with whole_file(path) as file:
        file.write(b"whole")
        assert not path.exists()
    assert path.read_bytes() == b"whole" and path.stat().st_mode & 0o777 == 0o666 & ~umask
    with pytest.raises(ZeroDivisionError), whole_file(path) as file:
        file.write(b"half")
        raise ZeroDivisionError
    assert path.read_bytes() == b"whole" and list(path.parent.iterdir()) == [path]


KILLED = """
import os, sys
from pathlib import Path
from mfik.writing import whole_file
with whole_file(Path(sys.argv[1])) as file:
    file.write(b"half")
    os.kill(os.getpid(), 9)
"""


def test_what_a_killed_program_left_goes_with_the_next_save_and_nothing_else_does(tmp_path):
    subprocess.run([sys.executable, "-c", KILLED, str(tmp_path / "first")], check=False)
    assert [path.suffix for path in tmp_path.iterdir()] == [".mfik-partial"]
    others = tmp_path / "film.01234567.partial"  # of another program's download
    others.touch()
    with whole_file(tmp_path / "second") as file:
        (one,) = tmp_path.glob("*.mfik-partial")
        assert one.name.startswith("second"), "the killed program's is gone"
        with whole_file(tmp_path / "third"):  # another program that writes at the same time
            pass
        assert one.exists()
        file.write(b"whole")
    assert {path.name for path in tmp_path.iterdir()} == {"second", "third", others.name}


def test_a_full_disk_is_named_with_the_file_and_the_bytes(tmp_path, monkeypatch):
    class Full(io.FileIO):
        def write(self, data):
            if self.tell() >= 100:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return super().write(memoryview(data)[:60])  # a part, as a disk does that fills up

    path = tmp_path / "file"
    monkeypatch.setattr("builtins.open", lambda name, mode, buffering: Full(name, "xb"))
    with pytest.raises(WriteError, match=rf"{path}: cannot be written, after 120 bytes: No space left on device"):
        with whole_file(path) as file:
            file.write(bytes(500))
    assert not list(tmp_path.iterdir())


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "file").write_text("here")
    with pytest.raises(WriteError, match=r"file: expected a folder that can be written, but it is a file"):
        make_folder(tmp_path / "file")
    with pytest.raises(WriteError, match="Not a directory"):
        make_folder(tmp_path / "file" / "below")
    with pytest.raises(WriteError, match="/proc/none"):  # a folder that nobody can write, root neither
        make_folder(tmp_path.__class__("/proc/none"))


def test_progress_in_a_file_is_a_line_every_few_seconds(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: clock[0])
    monkeypatch.setattr("tqdm.std.time", lambda: clock[0])
    out = io.StringIO()
    with ProgressBar(total=3000, file=out) as bar:
        for _ in range(3000):
            clock[0] += 0.01
            bar.update()
    lines = out.getvalue().splitlines()
    assert 4 <= len(lines) <= 8 and "\r" not in out.getvalue(), lines
    assert lines[-1].startswith("100% 3000/3000")
