"""Collision: the robot's body of spheres, and the pairs that are checked. Fitting needs the extra `collision`."""

from mfik.collision.body import Body, Link, LinkPair
from mfik.collision.spheres import read_spheres, write_spheres

__all__ = ["Body", "Link", "LinkPair", "read_spheres", "write_spheres"]
