"""Robots with mimic joints from example-robot-data, and Pinocchio as their judge."""

import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pinocchio

from mfik.robots import Robot, load_robot

# file, base, tip, joints, moving frames
ROBOTS = {
    "romeo_finger": ("romeo_description/urdf/romeo.urdf", "torso", "LFinger13Link", 8, 10),
    "romeo_other_finger": ("romeo_description/urdf/romeo.urdf", "torso", "LFinger23Link", 8, 10),
    "pr2_finger": ("pr2_description/urdf/pr2.urdf", "torso_lift_link", "r_gripper_l_finger_tip_link", 8, 9),
}


class MimicJudge:
    """Pinocchio's tool pose and Jacobian of one of `ROBOTS`, whose <mimic> the judge reads itself."""

    def __init__(self, folder: Path, name: str) -> None:
        file, base, tip, *_ = ROBOTS[name]
        self.robot: Robot = load_robot(folder / file, base, tip)
        self._model = pinocchio.buildModelFromUrdf(str(folder / file))
        self._data = self._model.createData()
        self._base, self._tip = (self._model.getFrameId(link) for link in (base, tip))
        self._mimics = {
            joint.get("name"): (mimic.get("joint"), float(mimic.get("multiplier", 1)), float(mimic.get("offset", 0)))
            for joint in ET.parse(folder / file).getroot().findall("joint")
            if (mimic := joint.find("mimic")) is not None and joint.get("type") != "fixed"
        }

    def _values(self, q: np.ndarray) -> dict[str, float]:
        """Return the values of all joints that move with the robot's joints, by name."""
        values = {}
        for name, value in zip(self.robot.joint_names, q, strict=True):
            leader, multiplier, offset = self._mimics.get(name, (name, 1.0, 0.0))
            values[leader] = (value - offset) / multiplier
        for name, (leader, multiplier, offset) in self._mimics.items():
            if leader in values:
                values[name] = multiplier * values[leader] + offset
        return values

    def tool(self, q: np.ndarray) -> tuple[pinocchio.SE3, np.ndarray]:
        """Return T_base_tool and the Jacobian in the base frame, [6, J]."""
        model, data, values = self._model, self._data, self._values(q)
        configuration = pinocchio.neutral(model)
        for name, value in values.items():
            joint = model.getJointId(name)
            start, two = model.idx_qs[joint], model.nqs[joint] == 2  # continuous
            configuration[start : start + (2 if two else 1)] = [np.cos(value), np.sin(value)] if two else value
        pinocchio.framesForwardKinematics(model, data, configuration)
        frame = pinocchio.ReferenceFrame.LOCAL_WORLD_ALIGNED
        J = pinocchio.computeFrameJacobian(model, data, configuration, self._tip, frame)
        columns = np.zeros((6, len(q)))
        for j, step in enumerate(np.eye(len(q))):  # the values are linear in q
            for name, value in self._values(q + step).items():
                columns[:, j] += (value - values[name]) * J[:, model.idx_vs[model.getJointId(name)]]
        R = data.oMf[self._base].rotation.T
        return data.oMf[self._base].actInv(data.oMf[self._tip]), np.vstack([R @ columns[:3], R @ columns[3:]])
