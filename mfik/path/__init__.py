"""Whole paths: lines between waypoints, timing, files (docs/how-to/paths.md). `retime` needs the extra `motion`."""

from mfik.path.files import load_joints, load_poses, save_joints, save_poses
from mfik.path.lines import Deviation, deviation, interpolate
from mfik.path.timing import Trajectory, retime

__all__ = [
    "Deviation",
    "Trajectory",
    "deviation",
    "interpolate",
    "load_joints",
    "load_poses",
    "retime",
    "save_joints",
    "save_poses",
]
