"""Solve poses with a bundle's ONNX graph: NumPy and ONNX Runtime, no mfik.

python scripts/export.py --model panda --refine 10 --errors --output panda
python examples/graphs/solve.py panda/model.onnx
"""

import json
import sys

import numpy as np
import onnxruntime


def forward_kinematics(robot: dict, q: np.ndarray) -> np.ndarray:
    """Return T_base_tool [3, 4] of joints q [rad or m]."""
    T = np.eye(4)
    for joint, value in zip(robot["joints"], q, strict=True):
        motion, c, s = np.eye(4), np.cos(value), np.sin(value)
        if joint["kind"] == "prismatic":
            motion[2, 3] = value
        else:
            motion[:2, :2] = [[c, -s], [s, c]]
        T = T @ np.vstack((np.reshape(joint["origin"], (3, 4)), [0, 0, 0, 1])) @ motion
    return (T @ np.vstack((np.reshape(robot["tool"], (3, 4)), [0, 0, 0, 1])))[:3]


def pose_of(T: np.ndarray) -> np.ndarray:
    """Return [x, y, z, qw, qx, qy, qz] of a transform; the quaternion has any length, as the graph scales it."""
    (a, b, c), (d, e, f), (g, h, i) = T[:, :3]
    multiples = np.array(  # 4 quat quat^T: each row is a multiple of the quaternion
        [
            [1 + a + e + i, h - f, c - g, d - b],
            [h - f, 1 + a - e - i, b + d, c + g],
            [c - g, b + d, 1 - a + e - i, f + h],
            [d - b, c + g, f + h, 1 - a - e + i],
        ]
    )
    return np.concatenate((T[:, 3], multiples[multiples.diagonal().argmax()]))


def off_by(reached: np.ndarray, wanted: np.ndarray) -> tuple[float, float]:
    """Return the distance [m] and the angle [rad] between two transforms."""
    R = wanted[:, :3].T @ reached[:, :3]
    sine = np.linalg.norm([R[2, 1] - R[1, 2], R[0, 2] - R[2, 0], R[1, 0] - R[0, 1]]) / 2
    return float(np.linalg.norm(reached[:, 3] - wanted[:, 3])), float(np.arctan2(sine, (np.trace(R) - 1) / 2))


session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
robot = json.loads(session.get_modelmeta().custom_metadata_map["mfik"])["robot"]
print(f"{robot['name']}: poses of {robot['tip_link']} in {robot['base_link']}")

# Two references and two poses of the tool, one that the robot reaches and one 50 m above; any number of rows will do.
lower, upper = (np.array([joint[name] for joint in robot["joints"]]) for name in ("lower", "upper"))
wanted = np.stack([forward_kinematics(robot, 0.35 * lower + 0.65 * upper)] * 2)
wanted[1, 2, 3] += 50
q_ref = np.stack([(lower + upper) / 2] * 2).astype(np.float32)
target_pose = np.stack([pose_of(T) for T in wanted]).astype(np.float32)
q, pos_error, rot_error, inside = session.run(None, {"q_ref": q_ref, "target_pose": target_pose})

for i in range(2):
    metres, radians = off_by(forward_kinematics(robot, q[i].astype(float)), wanted[i])
    if abs(pos_error[i] - metres) > 1e-5 or abs(rot_error[i] - radians) > 1e-5:
        sys.exit(f"not as expected: off by {metres} m, {radians} rad; the graph says {pos_error[i]}, {rot_error[i]}")
    solved = metres < 1e-5 and radians < 1e-5 and inside[i]
    print("solved" if solved else f"off by {metres:.3g} m and {radians:.3g} rad:", q[i].round(3).tolist())
