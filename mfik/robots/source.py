"""Where a robot's description comes from: URDF, xacro and MJCF files, names of robot_descriptions; all become URDF."""

from __future__ import annotations

import importlib
import os
import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from os import PathLike, fspath
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from mfik.errors import ArgumentError, RobotError
from mfik.robots.packages import check_package_paths
from mfik.robots.urdf import parse
from mfik.robots.xacro import expand

_PRESET_ENDS = {"panda": ("panda_link0", "panda_link8"), "ur10": ("base_link", "tool0")}
PRESETS = tuple(_PRESET_ENDS)
SUFFIXES = (".urdf", ".xacro", ".xml", ".mjcf")  # of files; what ends otherwise is a name
_NAMES_END = "_description"  # of names of robot_descriptions


@dataclass(frozen=True)
class Source:
    """A robot's description as URDF, whatever it was written in.

    Attributes:
        path: The file, for messages and for paths relative to it.
        root: Its <robot> element.
        package_paths: Folders that hold packages, for `package://` paths of meshes.
        meshes: Vertices [V, 3] [m] and faces [F, 3] of meshes that are in memory, by the `filename` of their element.
        excluded: Pairs of links that the description says are not checked against each other.
        srdf: The SRDF file that comes with it.
        ends: base_link and tip_link where none are given.
        xacro_args: Values of the arguments of .xacro files, by name.
    """

    path: Path
    root: ET.Element
    package_paths: tuple[Path, ...] = ()
    meshes: Mapping[str, tuple[np.ndarray, np.ndarray]] = field(default_factory=dict)
    excluded: frozenset[frozenset[str]] = frozenset()
    srdf: Path | None = None
    ends: tuple[str | None, str | None] = (None, None)
    xacro_args: Mapping[str, Any] = field(default_factory=dict)


def read_source(
    name_or_path: str | PathLike[str],
    xacro_args: Mapping[str, Any] | None = None,
    package_paths: Iterable[str | PathLike[str]] = (),
) -> Source:
    """Read a robot's description.

    Args:
        name_or_path: One of PRESETS, the path of a .urdf, .xacro, .xml (URDF or MJCF) or .mjcf file, or a name of
            robot_descriptions.
        xacro_args: Values of a xacro file's arguments, by name.
        package_paths: Folders that hold packages, see `package_folders`.
    Raises:
        ArgumentError: xacro_args are for a file that is no xacro file, or are no mapping; or package_paths name no
            folders.
        ImportError: The package that reads this kind of file is not installed.
        RobotError: The name is unknown, the file cannot be used, or a description's files are not on this machine.
    """
    if not isinstance(name_or_path, (str, PathLike)):
        raise ArgumentError(
            f"name_or_path: expected a preset ({', '.join(PRESETS)}), the path of a robot's file or a name of "
            f"robot_descriptions, got {name_or_path!r:.60}; give text or a Path"
        )
    if xacro_args is not None and not isinstance(xacro_args, Mapping):
        raise ArgumentError(f"xacro_args: expected values by name, got {xacro_args!r:.60}; give a dictionary")
    folders, arguments, name = check_package_paths(package_paths), dict(xacro_args or {}), fspath(name_or_path)
    if name in PRESETS:
        path = Path(__file__).parent / "urdf" / f"{name}.urdf"
        return replace(_read_file(path, arguments, folders), ends=_PRESET_ENDS[name])
    if name.lower().endswith(SUFFIXES):
        return _read_file(Path(name), arguments, folders)
    if is_robot(name):
        return _read_description(name, arguments, folders)
    raise RobotError(
        f"name_or_path: expected a preset ({', '.join(PRESETS)}), a path ending in {', '.join(SUFFIXES)}, or a name of "
        f"robot_descriptions (..._description), got '{name}'; check the spelling"
    )


def is_robot(name: str) -> bool:
    """Tell whether text means a preset, a robot's file or a name of robot_descriptions, by how it ends."""
    return name in PRESETS or name.lower().endswith(SUFFIXES) or (name.endswith(_NAMES_END) and os.sep not in name)


def _read_file(
    path: Path, arguments: dict[str, Any], folders: tuple[Path, ...], packages: Mapping[str, str] | None = None
) -> Source:
    root = parse(path)
    if path.suffix.lower() == ".xacro":
        root = expand(path, arguments, folders, packages or {})
    elif arguments:
        raise ArgumentError(
            f"xacro_args: expected none, as {path} is no .xacro file, got {', '.join(map(str, arguments))}; "
            "leave them out"
        )
    elif root.tag == "mujoco" and path.suffix.lower() != ".urdf":
        from mfik.robots.mjcf import read_mjcf

        root, meshes, excluded = read_mjcf(path)
        return Source(path, root, folders, meshes, excluded)
    if root.tag != "robot":
        raise RobotError(
            f"{path}: expected root element <robot>, got <{root.tag}>; give a URDF file, or MJCF as .xml or .mjcf"
        )
    return Source(path, root, folders, xacro_args=arguments)


def _read_description(name: str, arguments: dict[str, Any], folders: tuple[Path, ...]) -> Source:
    """Read what a module of robot_descriptions names, whose files have to be on this machine already."""
    from difflib import get_close_matches
    from unittest import mock

    try:
        from robot_descriptions import DESCRIPTIONS, _cache
    except ImportError as error:
        raise ImportError(
            f"'{name}': names of robots need robot_descriptions ({error}): pip install 'mfik[descriptions]'"
        ) from None
    if name not in DESCRIPTIONS:
        near = get_close_matches(name, DESCRIPTIONS) or ["python -m robot_descriptions list"]
        raise RobotError(f"name_or_path: robot_descriptions has no '{name}'; see {', '.join(near)}")
    fetch = f"fetch them with: python -m robot_descriptions pull {name}"

    def on_disk(repo_url: str, target_dir: str, commit: str | None = None) -> Any:
        if not Path(target_dir).is_dir():
            raise RobotError(f"'{name}': expected its files in {target_dir}, found none; {fetch}")
        return SimpleNamespace(working_dir=target_dir)

    # A module of robot_descriptions clones its repository as it is imported; nothing is downloaded here.
    with mock.patch.object(_cache, "clone_to_directory", on_disk):
        module = vars(importlib.import_module(f"robot_descriptions.{name}"))
    file = module.get("URDF_PATH") or module.get("XACRO_PATH") or module.get("MJCF_PATH")
    if file is None:
        raise RobotError(f"'{name}': expected a URDF, xacro or MJCF file, robot_descriptions has none; choose another")
    if not Path(file).is_file():
        raise RobotError(f"'{name}': expected {file}, which robot_descriptions names, found no such file; {fetch}")
    if Path(file).suffix.lower() == ".xacro":
        arguments = {**module.get("XACRO_ARGS", {}), **arguments}
    source = _read_file(Path(file), arguments, folders, module.get("XACRO_PACKAGE_PATHS"))
    return replace(source, srdf=Path(module["SRDF_PATH"]) if "SRDF_PATH" in module else None)
