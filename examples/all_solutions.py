"""Find the different ways to reach one pose: a UR10's eight, and a sample of a Panda's, which are a continuum.

python examples/all_solutions.py
"""

import sys

import numpy as np

from mfik.robots import load_robot
from mfik.solve import Solver

MIN_DISTANCE = 0.1  # solutions nearer than this in every joint count as one [rad]

for name, expected in (("ur10", 8), ("panda", 16)):
    robot = load_robot(name)
    pose = robot.fk(robot.sample(1, np.random.default_rng(3)))[0]
    found = Solver.from_robot(robot).solve_all(pose, n=16, min_distance=MIN_DISTANCE, max_attempts=2000)
    print(f"{name}: {len(found.q)} solutions in {found.time_us / 1e3:.2f} ms")
    for q in found.q:
        print("  ", " ".join(f"{x:+7.3f}" for x in q))

    reached = robot.fk(found.q)
    dot = reached[:, 3:] @ pose[3:]  # of unit quaternions, 1 or -1 for the same rotation
    right = np.linalg.norm(reached[:, :3] - pose[:3], axis=1).max() < 1.1e-5 and np.abs(np.abs(dot) - 1).max() < 2e-11
    apart = [np.abs(a - b).max() for i, a in enumerate(found.q) for b in found.q[:i]]
    print(f"   the two nearest differ by {min(apart):.2f} rad in some joint")
    if not (len(found.q) == expected and right and robot.within_limits(found.q).all() and min(apart) > MIN_DISTANCE):
        sys.exit("not as expected")
