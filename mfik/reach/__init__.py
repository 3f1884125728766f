"""Reachability: which poses of a grid a robot reaches (docs/how-to/reach.md)."""

from mfik.reach.block import ReachStatus
from mfik.reach.orientations import super_fibonacci
from mfik.reach.result import ReachMap
from mfik.reach.run import map_reach
from mfik.reach.settings import ReachSettings

__all__ = ["ReachMap", "ReachSettings", "ReachStatus", "map_reach", "super_fibonacci"]
