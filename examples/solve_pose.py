"""Solve one pose and read the answer, then one that no arm could reach.

python examples/solve_pose.py [BUNDLE]
"""

import sys

import numpy as np

from mfik.robots import load_robot
from mfik.solve import Solver, Status

solver = Solver.load(sys.argv[1]) if len(sys.argv) > 1 else Solver.from_robot(load_robot("panda"))
robot = solver.robot
q_now = robot.clamp(np.zeros(robot.dof))  # where the arm stands [rad]
pose = robot.fk(robot.sample(1, np.random.default_rng(1)))[0]  # [x, y, z, qw, qx, qy, qz], [m]

result = solver.solve(pose, q_now)
print(f"{robot.name}: {robot.base_link} -> {robot.tip_link}, {robot.dof} joints")
print(f"target {pose.round(3).tolist()}")
print(f"joints {result.q.round(3).tolist()}")
print(solver.explain(result))
print(f"{solver.solve(pose, q_now).time_us:.1f} us, once a first call has warmed the caches")

# The solver has checked this already; here it is checked again from outside. A quaternion and its negative are the same
# rotation, and two unit quaternions at a distance d are 4 asin(d / 2) apart.
reached = robot.fk(result.q)
pos_mm = 1e3 * np.linalg.norm(reached[:3] - pose[:3])
distance = min(np.linalg.norm(reached[3:] - sign * pose[3:]) for sign in (1, -1))
rot_deg = np.rad2deg(4 * np.arcsin(distance / 2))
print(f"forward kinematics of the joints: {pos_mm:.5f} mm and {rot_deg:.5f} deg from the target")
solved = result.status == Status.SOLVED and pos_mm < 0.011 and rot_deg < 0.001

pose[0] += 10.0  # ten metres away
far = solver.solve(pose, q_now)
print(f"ten metres further: {solver.explain(far)}")

if not (solved and robot.within_limits(result.q) and far.status == Status.UNREACHABLE):
    sys.exit("not as expected")
