"""Collision: the robot's body of spheres, and the world. Needs NumPy; fitting spheres the extra `collision`."""

from mfik.collision.body import Body, Link, LinkPair
from mfik.collision.spheres import read_ignored, read_spheres, write_spheres
from mfik.collision.world import Box, Capsule, Cylinder, HalfSpace, PointCloud, Sphere, World

__all__ = [
    "Body",
    "Box",
    "Capsule",
    "Cylinder",
    "HalfSpace",
    "Link",
    "LinkPair",
    "PointCloud",
    "Sphere",
    "World",
    "read_ignored",
    "read_spheres",
    "write_spheres",
]
