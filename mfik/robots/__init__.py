"""Robots: presets, URDF files, limits."""

from __future__ import annotations

from os import PathLike, fspath
from pathlib import Path

from mfik.errors import ArgumentError, RobotError
from mfik.robots.robot import Robot

__all__ = ["PRESETS", "Robot", "load_robot"]

_PRESET_ENDS = {"panda": ("panda_link0", "panda_link8"), "ur10": ("base_link", "tool0")}
PRESETS = tuple(_PRESET_ENDS)


def load_robot(name_or_path: str | PathLike[str], base_link: str | None = None, tip_link: str | None = None) -> Robot:
    """Load a preset or a URDF file.

    Args:
        name_or_path: One of PRESETS, or the path of a .urdf or .xml file.
        base_link: First link; default panda_link0 for "panda", base_link for "ur10", a file's root link.
        tip_link: Last link; default panda_link8 for "panda", tool0 for "ur10", a file's only leaf.
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
    if name in PRESETS:
        base, tip = _PRESET_ENDS[name]
        path = Path(__file__).parent / "urdf" / f"{name}.urdf"
        return Robot.from_urdf(path, base_link or base, tip_link or tip)
    if name.lower().endswith((".urdf", ".xml")):
        return Robot.from_urdf(name, base_link, tip_link)
    raise RobotError(
        f"name_or_path: expected a preset ({', '.join(PRESETS)}) or a path ending in .urdf or .xml, got '{name}'; "
        "check the spelling"
    )
