"""Solve one pose and read the answer, then one that no arm could reach.

python examples/solve_pose.py [BUNDLE]
"""

import sys

import torch

from mfik.kinematics import position_error_m, rotation_error_rad
from mfik.robots import load_robot
from mfik.solve import Solver, Status

solver = Solver.load(sys.argv[1]) if len(sys.argv) > 1 else Solver.from_robot(load_robot("panda"))
robot = solver.robot
q_now = robot.clamp(torch.zeros(robot.dof, dtype=torch.float64))  # where the arm stands [rad]
pose = robot.fk(robot.sample(1, torch.Generator().manual_seed(1), torch.float64))[0]  # [x, y, z, qw, qx, qy, qz], [m]

result = solver.solve(pose, q_now)
print(f"{robot.name}: {robot.base_link} -> {robot.tip_link}, {robot.dof} joints")
print(f"target {[round(x, 3) for x in pose.tolist()]}")
print(f"joints {[round(x, 3) for x in result.q.tolist()]}")
print(solver.explain(result))
print(f"{solver.solve(pose, q_now).time_us:.1f} us, once a first call has warmed the caches")

# The solver has checked this already; here it is checked again from outside.
reached = robot.fk(torch.from_numpy(result.q))
pos_mm, rot_deg = 1e3 * position_error_m(reached, pose), torch.rad2deg(rotation_error_rad(reached, pose))
print(f"forward kinematics of the joints: {pos_mm:.5f} mm and {rot_deg:.5f} deg from the target")
solved = result.status == Status.SOLVED and pos_mm < 0.011 and rot_deg < 0.001

pose[0] += 10.0  # ten metres away
far = solver.solve(pose, q_now)
print(f"ten metres further: {solver.explain(far)}")

if not (solved and robot.within_limits(torch.from_numpy(result.q)) and far.status == Status.UNREACHABLE):
    sys.exit("not as expected")
