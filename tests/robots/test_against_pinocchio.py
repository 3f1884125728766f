"""Forward kinematics and Jacobians against Pinocchio, an independent implementation and URDF parser."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from mfik.kinematics import position_error_m, quat_from_matrix, rotation_error_rad
from mfik.robots import load_robot

pinocchio = pytest.importorskip("pinocchio")

CONFIGURATIONS = 1000
TOL = 1e-9  # m and rad; example-robot-data writes pi with 12 digits

# file, (base, tip), what our side loads (None: the same file), joints
CASES = {
    "panda-file": ("panda_description/urdf/panda.urdf", ("panda_link0", "panda_link8"), None, 7),
    "panda-preset": ("panda_description/urdf/panda.urdf", ("panda_link0", "panda_link8"), "panda", 7),
    "ur10-file": ("ur_description/urdf/ur10_robot.urdf", ("base_link", "tool0"), None, 6),
    "ur10-preset": ("ur_description/urdf/ur10_robot.urdf", ("base_link", "tool0"), "ur10", 6),
    "ur10-file-base": ("ur_description/urdf/ur10_robot.urdf", ("base", "tool0"), None, 6),
    "ur10-preset-base": ("ur_description/urdf/ur10_robot.urdf", ("base", "tool0"), "ur10", 6),
    "tiago-file": ("tiago_description/robots/tiago.urdf", ("base_link", "arm_tool_link"), None, 8),
}


@pytest.mark.parametrize("case", CASES)
def test_fk_and_jacobian_agree_with_pinocchio(example_robots, case):
    file, (base, tip), preset, dof = CASES[case]
    path = str(example_robots / file)
    robot = load_robot(preset or path, base, tip)
    assert robot.dof == dof
    q = robot.sample(CONFIGURATIONS, torch.Generator().manual_seed(0), torch.float64)

    model = pinocchio.buildModelFromUrdf(path)
    data = model.createData()
    base_id, tip_id = model.getFrameId(base), model.getFrameId(tip)
    ids = [model.getJointId(name) for name in robot.joint_names]
    columns = [model.idx_vs[i] for i in ids]
    rotations, positions, jacobians = [], [], []
    for row in q.numpy():
        q_model = pinocchio.neutral(model)
        for i, value in zip(ids, row, strict=True):
            start = model.idx_qs[i]
            q_model[start : start + model.nqs[i]] = [math.cos(value), math.sin(value)] if model.nqs[i] == 2 else value
        pinocchio.framesForwardKinematics(model, data, q_model)
        base_pose = data.oMf[base_id].copy()
        tool_pose = base_pose.actInv(data.oMf[tip_id])
        frame = pinocchio.ReferenceFrame.LOCAL_WORLD_ALIGNED
        jac = pinocchio.computeFrameJacobian(model, data, q_model, tip_id, frame)[:, columns]
        rotations.append(tool_pose.rotation)
        positions.append(tool_pose.translation)
        jacobians.append(np.concatenate([base_pose.rotation.T @ jac[:3], base_pose.rotation.T @ jac[3:]]))

    quat = quat_from_matrix(torch.from_numpy(np.stack(rotations)))
    expected = torch.cat([torch.from_numpy(np.stack(positions)), quat], dim=-1)
    pose = robot.fk(q)
    assert position_error_m(pose, expected).max() < TOL
    assert rotation_error_rad(pose, expected).max() < TOL
    assert (robot.jacobian(q) - torch.from_numpy(np.stack(jacobians))).abs().max() < TOL


@pytest.mark.parametrize(
    "case", [case for case in CASES if case.endswith(("-preset", "-file")) and not case.startswith("tiago")]
)
def test_limits_agree_with_pinocchio(example_robots, case):
    file, ends, preset, _ = CASES[case]
    robot = load_robot(preset or example_robots / file, *ends)
    model = pinocchio.buildModelFromUrdf(str(example_robots / file))
    rows = [model.idx_qs[model.getJointId(name)] for name in robot.joint_names]
    np.testing.assert_allclose(robot.lower, model.lowerPositionLimit[rows], atol=1e-10)
    np.testing.assert_allclose(robot.upper, model.upperPositionLimit[rows], atol=1e-10)
