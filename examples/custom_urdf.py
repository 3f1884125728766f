"""Solve for a robot of one's own, read from its URDF, with a tool on its flange.

python examples/custom_urdf.py
"""

import math
import sys
from pathlib import Path

import torch

from mfik.kinematics import position_error_m, quat_multiply, quat_rotate, rotation_error_rad
from mfik.robots import load_robot
from mfik.solve import Solver, Status


def compose(T_a_b: torch.Tensor, T_b_c: torch.Tensor) -> torch.Tensor:
    """Return T_a_c of poses [x, y, z, qw, qx, qy, qz], [N, 7]."""
    position = T_a_b[:, :3] + quat_rotate(T_a_b[:, 3:], T_b_c[:, :3])
    return torch.cat([position, quat_multiply(T_a_b[:, 3:], T_b_c[:, 3:])], dim=1)


# The file ends in two links, flange and camera: say which one is meant.
robot = load_robot(Path(__file__).with_name("gantry.urdf"), base_link="world", tip_link="flange")
solver = Solver.from_robot(robot)
print(f"{robot.name}: {robot.base_link} -> {robot.tip_link}")
for joint, kind, lower, upper in zip(
    robot.joint_names, robot.kinds, robot.lower.tolist(), robot.upper.tolist(), strict=True
):
    print(f"  {joint:6} {kind:10} {lower:+.2f} to {upper:+.2f} {'m' if kind == 'prismatic' else 'rad'}")

# A gripper 12 cm long, mounted a quarter turn about z: T_flange_grip, a pose like any other.
T_flange_grip = torch.tensor([[0.0, 0.0, 0.12, math.sqrt(0.5), 0.0, 0.0, math.sqrt(0.5)]], dtype=torch.float64)
rng = torch.Generator().manual_seed(0)
T_world_flange = robot.fk(robot.sample(200, rng, torch.float64))
T_world_grip = compose(T_world_flange, T_flange_grip)  # where the gripper shall be
q_ref = robot.sample(200, rng, torch.float64)

result = solver.solve_batch(T_world_grip, q_ref, tool=T_flange_grip[0])
reached = compose(robot.fk(torch.from_numpy(result.q)), T_flange_grip)
solved = result.status == Status.SOLVED
pos_mm = 1e3 * position_error_m(reached, T_world_grip)[solved].max()
rot_deg = torch.rad2deg(rotation_error_rad(reached, T_world_grip)[solved].max())
print(f"{solved.sum()} of 200 grips solved, at most {pos_mm:.5f} mm and {rot_deg:.5f} deg off")

if not (solved.all() and pos_mm < 0.011 and rot_deg < 0.001):
    sys.exit("not as expected")
