"""Poses and joints of a path in files: CSV for other programs, `.npz` for NumPy. Written whole or not at all."""

from __future__ import annotations

import csv
import io
import os
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mfik.errors import ArgumentError
from mfik.path.lines import as_waypoints
from mfik.path.timing import Trajectory
from mfik.solve.checks import as_joints, as_poses
from mfik.writing import whole_file

_POSE = ("x", "y", "z", "qw", "qx", "qy", "qz")
_TIME = "time_s"


def save_poses(file: str | os.PathLike[str], poses: ArrayLike) -> None:
    """Write poses: CSV with the header `x,y,z,qw,qx,qy,qz`, or an `.npz` file with the array `poses`.

    Args:
        file: Its name ends in .csv or .npz.
        poses: T_base_tool [x, y, z, qw, qx, qy, qz], [m], [N, 7] or [N, 4, 4].

    Raises:
        ArgumentError: The name has another ending, or a pose is invalid.
        WriteError: The disk is full, the folder is read-only, or the like.
    """
    rows = as_waypoints(poses)
    _write(file, _POSE, rows, {"poses": rows})


def load_poses(file: str | os.PathLike[str]) -> np.ndarray:
    """Read the poses that `save_poses` or another program wrote; further columns are passed over.

    Args:
        file: A CSV file with the columns x, y, z [m], qw, qx, qy, qz in any order, or an `.npz` file.

    Returns:
        T_base_tool [x, y, z, qw, qx, qy, qz], [N, 7], N >= 1.

    Raises:
        ArgumentError: The file cannot be read, or has another form; the message names file, line and expectation.
    """
    if _ending(file) == ".npz":
        return _checked(file, lambda: as_waypoints(_arrays(file, ["poses"])["poses"]))
    poses, lines = _read_csv(file, _POSE)
    for pose, line in zip(poses, lines, strict=True):
        _checked(f"{os.fspath(file)}, line {line}", lambda pose=pose: as_poses("pose", pose, (7,)))
    return poses


def save_joints(file: str | os.PathLike[str], path: ArrayLike | Trajectory, joint_names: Sequence[str]) -> None:
    """Write joints, a row for each waypoint, or for each sample of a trajectory.

    CSV has the joints' names as header; that of a trajectory `time_s` before them, and after them NAME_velocity and
    NAME_acceleration of each. An `.npz` file has the arrays `joint_names` and `q`, of a trajectory also `t`, `dq`,
    `ddq`.

    Args:
        file: Its name ends in .csv or .npz.
        path: Joints [rad or m], finite, [N, J], or a trajectory.
        joint_names: `robot.joint_names`, [J].

    Raises:
        ArgumentError: The name has another ending, a number is not finite, or the names do not fit.
        WriteError: The disk is full, the folder is read-only, or the like.
    """
    names = _names(joint_names)
    if not isinstance(path, Trajectory):
        q = as_joints("path", path, (None, len(names)))
        _write(file, names, q, {"joint_names": np.array(names), "q": q})
        return
    if path.q.shape[1] != len(names):
        raise ArgumentError(f"joint_names: expected {path.q.shape[1]} names, got {names}; give robot.joint_names")
    header = (_TIME, *names, *(f"{name}_velocity" for name in names), *(f"{name}_acceleration" for name in names))
    table = np.column_stack([path.t, path.q, path.dq, path.ddq])
    arrays = {"joint_names": np.array(names), "t": path.t, "q": path.q, "dq": path.dq, "ddq": path.ddq}
    _write(file, header, table, arrays)


def load_joints(file: str | os.PathLike[str], joint_names: Sequence[str]) -> tuple[np.ndarray, np.ndarray | None]:
    """Read the joints that `save_joints` or another program wrote; further columns are passed over.

    Args:
        file: A CSV file with a column for each joint, in any order, or an `.npz` file.
        joint_names: `robot.joint_names`, [J].

    Returns:
        Joints [rad or m], [N, J], N >= 1, and the times of the rows, increasing, [s], [N]; None without a column
        `time_s` (`.npz`: array `t`).

    Raises:
        ArgumentError: The file cannot be read, or has another form; the message names file, line and expectation.
    """
    names = _names(joint_names)
    times: np.ndarray | None = None
    if _ending(file) == ".npz":
        arrays = _arrays(file, ["joint_names", "q"])
        written = [str(name) for name in arrays["joint_names"].ravel()]
        if missing := [name for name in names if name not in written]:
            raise ArgumentError(f"{os.fspath(file)}: expected the joints {', '.join(names)}, got no {missing[0]!r}")
        q = _checked(file, lambda: as_joints("q", arrays["q"], (None, len(written))))
        q = q[:, [written.index(name) for name in names]]
        if "t" in arrays:
            times = _checked(file, lambda: as_joints("t", arrays["t"], (len(q),)))
        lines = list(range(len(q)))
    else:
        numbers, lines = _read_csv(file, names, _TIME)
        q = numbers[:, : len(names)]
        times = numbers[:, len(names)] if numbers.shape[1] > len(names) else None
    if len(q) == 0:
        raise ArgumentError(f"{os.fspath(file)}: expected at least one row of joints, got none; write it anew")
    if times is not None and (np.diff(times) <= 0).any():
        row = int((np.diff(times) <= 0).argmax()) + 1
        where = "row" if _ending(file) == ".npz" else "line"
        raise ArgumentError(
            f"{os.fspath(file)}, {where} {lines[row]}: expected a time after {times[row - 1]:g} s, got {times[row]:g} "
            "s; sort the rows by time"
        )
    return q, times


def _ending(file: str | os.PathLike[str]) -> str:
    try:
        ending = Path(file).suffix.lower()
    except TypeError:
        raise ArgumentError(f"file: expected a path, got {file!r:.60}; give text or a Path") from None
    if ending not in (".csv", ".npz"):
        raise ArgumentError(f"file: expected a name that ends in .csv or .npz, got '{os.fspath(file)}'; rename it")
    return ending


def _names(joint_names: Sequence[str]) -> tuple[str, ...]:
    names = () if isinstance(joint_names, str) else tuple(joint_names)
    if not names or not all(isinstance(name, str) for name in names) or len(set(names)) != len(names):
        raise ArgumentError(f"joint_names: expected different names, got {joint_names!r:.80}; give robot.joint_names")
    return names


def _write(file: str | os.PathLike[str], header: Sequence[str], rows: np.ndarray, arrays: dict[str, Any]) -> None:
    if _ending(file) == ".npz":
        data = io.BytesIO()
        np.savez(data, **arrays)
        content = data.getvalue()
    else:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows.tolist())  # Python's shortest text that reads back as the same number
        content = text.getvalue().encode()
    with whole_file(Path(file)) as out:
        out.write(content)


def _arrays(file: str | os.PathLike[str], wanted: Sequence[str]) -> dict[str, np.ndarray]:
    try:
        with np.load(file, allow_pickle=False) as data:
            arrays = {name: data[name] for name in data.files}
    except OSError as error:
        raise _unreadable(file, error) from None
    except (ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        where = os.fspath(file)
        raise ArgumentError(f"{where}: expected an .npz file of numbers, got {error}; write it anew") from None
    if missing := [name for name in wanted if name not in arrays]:
        raise ArgumentError(
            f"{os.fspath(file)}: expected the arrays {', '.join(wanted)}, got {', '.join(arrays) or 'none'} and no "
            f"{missing[0]}; write it anew"
        )
    return arrays


def _read_csv(file: str | os.PathLike[str], columns: Sequence[str], extra: str = "") -> tuple[np.ndarray, list[int]]:
    """Return the columns of those names, and after them that of the extra one if there is one, and each row's line."""
    where = os.fspath(file)
    _ending(file)
    try:
        text = Path(file).read_text(encoding="utf-8-sig")
    except OSError as error:
        raise _unreadable(file, error) from None
    except UnicodeDecodeError:
        raise ArgumentError(f"{where}: expected CSV text, got bytes that are no UTF-8; write it anew") from None
    reader = csv.reader(io.StringIO(text, newline=""))
    rows: list[list[float]] = []
    lines: list[int] = []
    header: list[str] | None = None
    try:
        for cells in reader:
            if not any(cell.strip() for cell in cells):
                continue
            if header is None:
                header = [cell.strip() for cell in cells]
                if missing := [name for name in columns if header.count(name) != 1]:
                    times = f"'{missing[0]}' {header.count(missing[0])} times"
                    raise ArgumentError(
                        f"{where}, line {reader.line_num}: expected a header with the columns {','.join(columns)}, "
                        f"each once, got {','.join(header)!s:.120} ({times}); put the names into the first line"
                    )
                index = [header.index(name) for name in (*columns, *([extra] if extra in header else []))]
                continue
            if len(cells) != len(header):
                raise ArgumentError(
                    f"{where}, line {reader.line_num}: expected {len(header)} values as in the header, got "
                    f"{len(cells)}; correct the line"
                )
            rows.append([_number(where, reader.line_num, header[i], cells[i]) for i in index])
            lines.append(reader.line_num)
    except csv.Error as error:
        raise ArgumentError(f"{where}, line {reader.line_num}: expected CSV, got {error}; write it anew") from None
    if not rows:
        raise ArgumentError(f"{where}: expected a header and at least one line of numbers, got none; write it anew")
    return np.array(rows), lines


def _number(where: str, line: int, column: str, cell: str) -> float:
    try:
        value = float(cell)
    except ValueError:
        value = np.nan
    if not np.isfinite(value):
        raise ArgumentError(
            f"{where}, line {line}: expected a finite number for '{column}', got {cell!r:.40}; correct it"
        )
    return value


def _unreadable(file: str | os.PathLike[str], error: OSError) -> ArgumentError:
    return ArgumentError(f"{os.fspath(file)}: cannot read the file ({error.strerror or error}); check the path")


def _checked(where: str | os.PathLike[str], check: Any) -> np.ndarray:
    """Return what a check returns; its error names where the value stands."""
    try:
        return check()
    except ArgumentError as error:
        raise ArgumentError(f"{os.fspath(where)}: {error}") from None
