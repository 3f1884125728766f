"""Files and folders that are written whole or not at all."""

from __future__ import annotations

import fcntl
import glob
import io
import os
import tempfile
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, cast

from mfik.errors import WriteError

_PARTIAL = ".mfik-partial"  # ends the names of temporary files; nobody else's end so, and what is left is removed


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file to write that appears whole or not at all: a temporary file beside it, synced, then renamed.

    It gets the mode that the umask leaves. Temporary files that killed programs left in the folder are removed: their
    locks are gone.

    Args:
        path: The file; its folder is made.

    Raises:
        WriteError: the disk is full, the folder is read-only, or the like.
    """
    partial = partial_of(path)
    writer: _Writer | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with _locked(path.parent):
            for other in path.parent.glob(f"*{_PARTIAL}"):
                _remove_if_left(other)
            file = open(partial, "xb", buffering=0)
            fcntl.flock(file, fcntl.LOCK_EX)
        try:
            with file:
                writer = _Writer(file)
                yield cast(BinaryIO, writer)
                os.fsync(file.fileno())
                os.replace(partial, path)
        except BaseException:
            partial.unlink(missing_ok=True)
            raise
        with _opened(path.parent) as folder:
            os.fsync(folder)
    except BaseException as error:  # torch.save reports a failed write as a RuntimeError of its own
        cause = writer.error if writer is not None and writer.error is not None else error
        if not isinstance(cause, OSError):
            raise
        raise WriteError(
            f"{path}: cannot be written, after {writer.written if writer else 0:,} bytes: {cause.strerror}; free space "
            "there, or give a folder that can be written"
        ) from error


def partial_of(path: Path) -> Path:
    """Return the name of a temporary file or folder beside a path, another one in each call."""
    return path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}{_PARTIAL}")


def left_partials(path: Path) -> list[Path]:
    """Return what is there under the names that `partial_of` gives for a path."""
    return list(path.parent.glob(f"{glob.escape(path.name)}.????????{_PARTIAL}"))


def make_folder(path: Path) -> None:
    """Make a folder, with those above it, and check that files can be written in it.

    Raises:
        WriteError: it is a file, or cannot be written in.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path).close()
    except OSError as error:
        why = "it is a file" if path.is_file() else error.strerror
        raise WriteError(f"{path}: expected a folder that can be written, but {why}; give another folder") from error


class _Writer(io.RawIOBase):
    """Pass bytes on to an unbuffered file; remember how many were written, and the error that ended it."""

    def __init__(self, file: io.FileIO) -> None:
        self._file = file
        self.written = 0
        self.error: OSError | None = None

    def writable(self) -> bool:
        return True

    def write(self, data: Any) -> int:
        rest = memoryview(data).cast("B")
        size = len(rest)
        try:
            while len(rest):  # a disk that fills up takes a part first
                count = self._file.write(rest) or 0
                self.written += count
                rest = rest[count:]
        except OSError as error:
            self.error = error
            raise
        return size


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    handle = os.open(folder, os.O_RDONLY)
    try:
        yield handle
    finally:
        os.close(handle)


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Let one program at a time make and remove temporary files of a folder."""
    with _opened(folder) as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def _remove_if_left(partial: Path) -> None:
    """Remove a temporary file whose program has ended; a bundle's temporary folder is not touched."""
    if partial.is_file():
        with open(partial, "rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return  # being written
            partial.unlink()
