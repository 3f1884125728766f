"""Where ROS packages lie, for `package://` paths of meshes and `$(find package)` of xacro."""

from __future__ import annotations

import os
from collections.abc import Iterable
from os import PathLike
from pathlib import Path

from mfik.errors import ArgumentError, RobotError


def check_package_paths(package_paths: Iterable[str | PathLike[str]]) -> tuple[Path, ...]:
    """Return search paths as folders that exist.

    Raises:
        ArgumentError: They are no list of paths, or one of them is no folder.
    """
    if isinstance(package_paths, (str, PathLike)) or not isinstance(package_paths, Iterable):
        raise ArgumentError(f"package_paths: expected a list of folders, got {package_paths!r:.60}; put it in a list")
    folders = []
    for path in package_paths:
        if not isinstance(path, (str, PathLike)) or not Path(path).is_dir():
            raise ArgumentError(f"package_paths: expected folders that hold packages, got {str(path)!r}; correct it")
        folders.append(Path(path))
    return tuple(folders)


def package_folders(package: str, folder: Path, package_paths: Iterable[Path] = ()) -> list[Path]:
    """Return the folders that a package may be, in the order in which they are looked at.

    Args:
        package: Its name, which is that of its folder.
        folder: Of the file that mentions it.
        package_paths: Folders that hold packages, or are packages. Then come the folders above the file, then those of
            ROS_PACKAGE_PATH, then `share` in those of AMENT_PREFIX_PATH.
    """
    above = [folder.resolve(), *folder.resolve().parents]
    ros, ament = (
        [Path(entry) for entry in os.environ.get(name, "").split(os.pathsep) if entry]
        for name in ("ROS_PACKAGE_PATH", "AMENT_PREFIX_PATH")
    )
    searched = [*package_paths, *ros]
    named = {place: place.resolve().name == package for place in (*above, *searched)}
    return [
        *_holding(package, package_paths, named),
        *(place for place in above if named[place]),
        *(place / package for place in above),
        *_holding(package, ros, named),
        *(place / "share" / package for place in ament),
    ]


def find_package(package: str, folder: Path, package_paths: Iterable[Path] = ()) -> Path:
    """Return the folder of a package; arguments as of `package_folders`.

    Raises:
        RobotError: There is no such folder.
    """
    for place in package_folders(package, folder, package_paths):
        if place.is_dir():
            return place
    raise RobotError(
        f"package '{package}': no folder of that name in package_paths, above {folder}, in ROS_PACKAGE_PATH or in "
        "AMENT_PREFIX_PATH; give the folder that holds it in package_paths (--package_paths)"
    )


def _holding(package: str, places: Iterable[Path], named: dict[Path, bool]) -> list[Path]:
    return [place if named[place] else place / package for place in places]
