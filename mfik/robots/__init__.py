"""Robots: presets, URDF files, limits."""

from __future__ import annotations

from collections.abc import Mapping
from os import PathLike, fspath
from pathlib import Path
from typing import Any

from numpy.typing import ArrayLike

from mfik.errors import ArgumentError, RobotError
from mfik.robots.robot import Robot

__all__ = ["PRESETS", "SPHERES", "Robot", "load_robot"]

_PRESET_ENDS = {"panda": ("panda_link0", "panda_link8"), "ur10": ("base_link", "tool0")}
PRESETS = tuple(_PRESET_ENDS)
SPHERES = ("panda", "tiago", "ur10")  # robots whose spheres ship, in mfik/robots/spheres


def load_robot(
    name_or_path: str | PathLike[str],
    base_link: str | None = None,
    tip_link: str | None = None,
    *,
    joint_positions: Mapping[str, float] | None = None,
    spheres: str | PathLike[str] | Mapping[str, ArrayLike] | None = None,
    srdf: str | PathLike[str] | None = None,
) -> Robot:
    """Load a preset or a URDF file.

    Args:
        name_or_path: One of PRESETS, or the path of a .urdf or .xml file.
        base_link: First link; default panda_link0 for "panda", base_link for "ur10", a file's root link.
        tip_link: Last link; default panda_link8 for "panda", tool0 for "ur10", a file's only leaf.
        joint_positions: Values [rad or m] of joints outside the chain, at which what hangs from it is held: a
            gripper's fingers, the TIAGo's head. This and the following as of `Robot.from_urdf`.
        spheres: Spheres on the links, the path of a YAML file with them, or one of SPHERES; default a preset's own, or
            a file's collision geometry.
        srdf: SRDF file with pairs of links that are not checked against each other.
    Returns:
        The robot.
    Raises:
        ArgumentError: `name_or_path` is neither text nor a path.
        RobotError: The name is unknown, or the file cannot be used.
    """
    if not isinstance(name_or_path, (str, PathLike)):
        raise ArgumentError(
            f"name_or_path: expected a preset ({', '.join(PRESETS)}) or the path of a URDF file, got "
            f"{name_or_path!r:.60}; give text or a Path"
        )
    name = fspath(name_or_path)
    if spheres is None and name in PRESETS:
        spheres = name
    if isinstance(spheres, str) and spheres in SPHERES:
        spheres = Path(__file__).parent / "spheres" / f"{spheres}.yml"
    body: Any = {"joint_positions": joint_positions, "spheres": spheres, "srdf": srdf}
    if name in PRESETS:
        base, tip = _PRESET_ENDS[name]
        path = Path(__file__).parent / "urdf" / f"{name}.urdf"
        return Robot.from_urdf(path, base_link or base, tip_link or tip, **body)
    if name.lower().endswith((".urdf", ".xml")):
        return Robot.from_urdf(name, base_link, tip_link, **body)
    raise RobotError(
        f"name_or_path: expected a preset ({', '.join(PRESETS)}) or a path ending in .urdf or .xml, got '{name}'; "
        "check the spelling"
    )
