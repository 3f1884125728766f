"""Solve 10,000 poses on all cores, and find each row as `solve` alone would have it.

python examples/solve_batch.py [BUNDLE]
"""

import os
import sys
import time

import numpy as np

from mfik.robots import load_robot
from mfik.solve import Solver, Status

solver = Solver.load(sys.argv[1]) if len(sys.argv) > 1 else Solver.from_robot(load_robot("panda"))
robot, rng = solver.robot, np.random.default_rng(0)
pose = robot.fk(robot.sample(10_000, rng))  # [N, 7], reachable
q_ref = robot.sample(10_000, rng)  # [N, J], any references

start = time.perf_counter()
result = solver.solve_batch(pose, q_ref, threads=os.cpu_count() or 1)
seconds = time.perf_counter() - start
solved = result.status == Status.SOLVED
print(f"{robot.name}: {solved.sum():,} of {len(pose):,} poses solved in {1e3 * seconds:.0f} ms")
print(f"a solve takes {np.median(result.time_us):.1f} us in the median, {np.quantile(result.time_us, 0.99):.1f} at p99")

reached, target = robot.fk(result.q[solved]), pose[solved]
pos_mm = 1e3 * np.linalg.norm(reached[:, :3] - target[:, :3], axis=1).max()
distance = np.linalg.norm(
    reached[:, 3:] - target[:, 3:] * np.sign((reached * target)[:, 3:].sum(1, keepdims=True)), axis=1
)
rot_deg = np.rad2deg(4 * np.arcsin(distance / 2)).max()  # of unit quaternions of the same sign
print(f"largest error of the solved: {pos_mm:.5f} mm and {rot_deg:.5f} deg")
alone = solver.solve(pose[7], q_ref[7])
same = np.array_equal(alone.q, result.q[7])
print(f"row 7 solved alone: {'the same bits' if same else 'other joints'}")

right = pos_mm < 0.011 and rot_deg < 0.001 and robot.within_limits(result.q[solved]).all()
if not (solved.mean() > 0.999 and right and same):
    sys.exit("not as expected")
