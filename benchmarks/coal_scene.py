"""A robot among shapes as Pinocchio and coal see it: the geometry of its URDF file, checked by their own means."""

from __future__ import annotations

import sysconfig
from collections.abc import Iterable, Mapping
from pathlib import Path

import coal
import numpy as np
import pinocchio as pin

from mfik.collision import Box, Cylinder, Sphere
from mfik.collision.world import Shape
from mfik.robots import Robot

EXAMPLE_ROBOTS = Path(sysconfig.get_paths()["purelib"]) / "cmeel.prefix" / "share" / "example-robot-data" / "robots"


class CoalScene:
    """Collision of the pairs that a robot's body checks, on the geometry of a URDF file instead of its spheres.

    Args:
        robot: The robot, whose base is the root of the file.
        urdf: The file; `package://` is looked for beside example-robot-data.
        joint_positions: Of joints outside the chain.
    """

    def __init__(self, robot: Robot, urdf: Path, joint_positions: Mapping[str, float] | None = None) -> None:
        self.model = pin.buildModelFromUrdf(str(urdf))
        packages = [str(EXAMPLE_ROBOTS.parents[1])]
        self.robot_geometry = pin.buildGeomFromUrdf(
            self.model, str(urdf), pin.GeometryType.COLLISION, package_dirs=packages
        )
        self.data = self.model.createData()
        self.full = pin.neutral(self.model)
        for name, value in (joint_positions or {}).items():
            self.full[self.model.joints[self.model.getJointId(name)].idx_q] = value
        self.places = [self.model.joints[self.model.getJointId(name)].idx_q for name in robot.joint_names]
        self.moving = {link.name for link in robot.body.links if link.frame > 0}
        self.pairs = [(pair.first, pair.second) for pair in robot.body.pairs if pair.reason == "checked"]
        self.set_world(())

    def set_world(self, shapes: Iterable[Shape], self_collision: bool = True) -> None:
        """Put the robot among other shapes.

        Args:
            shapes: Boxes, cylinders and spheres.
            self_collision: Compare the robot's links with each other, too.
        """
        self.geometry = pin.GeometryModel(self.robot_geometry)
        of_link: dict[str, list[int]] = {}
        for index, geometry in enumerate(self.geometry.geometryObjects):
            of_link.setdefault(self.model.frames[geometry.parentFrame].name, []).append(index)
        for first, second in self.pairs if self_collision else ():
            for a in of_link.get(first, ()):
                for b in of_link.get(second, ()):
                    self.geometry.addCollisionPair(pin.CollisionPair(a, b))
        for number, shape in enumerate(shapes):
            x, y, z, qw, qx, qy, qz = np.asarray(shape.pose, dtype=np.float64)
            placement = pin.SE3(pin.Quaternion(qw, qx, qy, qz), np.array([x, y, z]))
            index = self.geometry.addGeometryObject(
                pin.GeometryObject(f"shape_{number}", 0, 0, placement, geometry_of(shape))
            )
            for link in self.moving:
                for a in of_link.get(link, ()):
                    self.geometry.addCollisionPair(pin.CollisionPair(a, index))
        self.geometry_data = pin.GeometryData(self.geometry)

    def collides(self, q: np.ndarray) -> bool:
        """Tell whether joints collide: one call of Pinocchio, which stops at the first pair in contact."""
        self.full[self.places] = q
        return bool(pin.computeCollisions(self.model, self.data, self.geometry, self.geometry_data, self.full, True))


def geometry_of(shape: Shape) -> coal.ShapeBase:
    """Return coal's geometry of a shape."""
    if isinstance(shape, Box):
        return coal.Box(*map(float, shape.size))
    if isinstance(shape, Cylinder):
        return coal.Cylinder(shape.radius, shape.length)
    if isinstance(shape, Sphere):
        return coal.Sphere(shape.radius)
    raise TypeError(f"shape: expected a box, cylinder or sphere, got {type(shape).__name__}")
