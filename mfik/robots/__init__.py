"""Robots: presets, files of URDF, xacro and MJCF, limits."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from mfik.errors import ArgumentError
from mfik.robots.robot import Robot
from mfik.robots.source import PRESETS, read_source
from mfik.robots.srdf import group_ends

__all__ = ["PRESETS", "SPHERES", "Robot", "load_robot"]

SPHERES = ("panda", "tiago", "ur10")  # robots whose spheres ship, in mfik/robots/spheres


def load_robot(
    name_or_path: str | PathLike[str],
    base_link: str | None = None,
    tip_link: str | None = None,
    *,
    group: str | None = None,
    joint_positions: Mapping[str, float] | None = None,
    spheres: str | PathLike[str] | Mapping[str, ArrayLike] | None = None,
    srdf: str | PathLike[str] | None = None,
    xacro_args: Mapping[str, Any] | None = None,
    package_paths: Iterable[str | PathLike[str]] = (),
) -> Robot:
    """Load a preset, a file, or a robot of robot_descriptions.

    Args:
        name_or_path: One of PRESETS; the path of a .urdf, .xacro, .xml (URDF or MJCF) or .mjcf file; or a name of the
            PyPI package robot_descriptions, such as "ur5e_mj_description", whose files are on this machine.
        base_link: First link, of MJCF a body or site; default the group's, panda_link0 for "panda", base_link for
            "ur10", a file's root link, which is "world" in MJCF.
        tip_link: Last link, likewise; default the group's, panda_link8 for "panda", tool0 for "ur10", a file's only
            leaf.
        group: Planning group of the SRDF file, whose chain is taken.
        joint_positions: Values [rad or m] of joints outside the chain, at which what hangs from it is held: a
            gripper's fingers, the TIAGo's head. This and the following as of `Robot.from_urdf`.
        spheres: Spheres on the links, the path of a YAML file with them, or one of SPHERES; default a preset's own, or
            a file's collision geometry.
        srdf: SRDF file, or .xacro file of one, with groups, and pairs of links that are not checked against each other;
            default for groups that of robot_descriptions.
        xacro_args: Values of the arguments of .xacro files, by name.
        package_paths: Folders that hold the packages of `$(find package)` in .xacro files; then the folders above the
            file are searched, those of ROS_PACKAGE_PATH, and `share` in those of AMENT_PREFIX_PATH.
    Returns:
        The robot.
    Raises:
        ArgumentError: `name_or_path` is neither text nor a path, or another argument does not fit the file.
        ImportError: xacro (extra `xacro`), mujoco (extra `mjcf`) or robot_descriptions (extra `descriptions`) is
            needed, and not installed.
        RobotError: The name is unknown, its files are not on this machine, or the file cannot be used.
    """
    source = read_source(name_or_path, xacro_args, package_paths)
    if spheres is None and fspath(name_or_path) in PRESETS:
        spheres = fspath(name_or_path)
    if isinstance(spheres, str) and spheres in SPHERES:
        spheres = Path(__file__).parent / "spheres" / f"{spheres}.yml"
    if group is not None:
        groups = srdf or source.srdf
        if groups is None:
            raise ArgumentError(f"group: expected an SRDF file with group '{group}', got none; give srdf (--srdf)")
        base, tip = group_ends(source, groups, group)
        base_link, tip_link = base_link or base, tip_link or tip
    return Robot.from_urdf(source, base_link, tip_link, joint_positions=joint_positions, spheres=spheres, srdf=srdf)
