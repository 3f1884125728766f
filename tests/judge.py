"""Pinocchio, on the robot's URDF file, as the judge of what the solver answers."""

from pathlib import Path

import numpy as np
import pinocchio

import mfik.robots
from mfik.robots import Robot

TOLERANCE = 1e-5  # [m] and [rad]: the solver's default
ROUNDING = 1e-9  # between two programs' forward kinematics


class Judge:
    """Pinocchio's tool pose, base frame, and limits."""

    def __init__(self, robot: Robot, urdf: Path | None = None) -> None:
        """Read `urdf`, by default the preset's; joints beyond the chain of `robot` stay at their neutral position."""
        urdf = urdf or Path(mfik.robots.__file__).parent / "urdf" / f"{robot.name}.urdf"
        model = pinocchio.buildModelFromUrdf(str(urdf))
        others = [model.getJointId(name) for name in model.names[1:] if name not in robot.joint_names]
        self.model = pinocchio.buildReducedModel(model, others, pinocchio.neutral(model)) if others else model
        self.data = self.model.createData()
        self.base, self.tip = (self.model.getFrameId(link) for link in (robot.base_link, robot.tip_link))

    def tool(self, q: np.ndarray) -> pinocchio.SE3:
        configuration = pinocchio.integrate(self.model, pinocchio.neutral(self.model), q)  # continuous joints: cos, sin
        pinocchio.framesForwardKinematics(self.model, self.data, configuration)
        return self.data.oMf[self.base].actInv(self.data.oMf[self.tip])

    def error(self, q: np.ndarray, pose: np.ndarray, tool: pinocchio.SE3 | None = None) -> np.ndarray:
        """Return the displacement of the tool in the target frame: [m, rad], [6]."""
        reached = self.tool(q) if tool is None else self.tool(q) * tool
        target = se3(pose)
        rotation = pinocchio.log3(target.rotation.T @ reached.rotation)
        return np.concatenate([target.rotation.T @ (reached.translation - target.translation), rotation])

    def solves(self, q: np.ndarray, pose: np.ndarray) -> bool:
        error = self.error(q, pose)
        inside = (q >= self.model.lowerPositionLimit).all() and (q <= self.model.upperPositionLimit).all()
        return inside and norms(error).max() <= TOLERANCE + ROUNDING


def se3(pose: np.ndarray) -> pinocchio.SE3:
    x, y, z, qw, qx, qy, qz = pose
    return pinocchio.XYZQUATToSE3(np.array([x, y, z, qx, qy, qz, qw]))


def norms(error: np.ndarray) -> np.ndarray:
    return np.array([np.linalg.norm(error[:3]), np.linalg.norm(error[3:])])
