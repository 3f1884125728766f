"""Find the different ways to reach one pose: a UR10's eight, and a sample of a Panda's, which are a continuum.

python examples/all_solutions.py
"""

import sys

import numpy as np
import torch

from mfik.kinematics import position_error_m, rotation_error_rad
from mfik.robots import load_robot
from mfik.solve import Solver

MIN_DISTANCE = 0.1  # solutions nearer than this in every joint count as one [rad]

for name, expected in (("ur10", 8), ("panda", 16)):
    robot = load_robot(name)
    pose = robot.fk(robot.sample(1, torch.Generator().manual_seed(3), torch.float64))[0]
    found = Solver.from_robot(robot).solve_all(pose, n=16, min_distance=MIN_DISTANCE, max_attempts=2000)
    print(f"{name}: {len(found.q)} solutions in {found.time_us / 1e3:.2f} ms")
    for q in found.q:
        print("  ", " ".join(f"{x:+7.3f}" for x in q))

    q = torch.from_numpy(found.q)
    reached, target = robot.fk(q), pose.expand(len(q), 7)
    apart = [np.abs(a - b).max() for i, a in enumerate(found.q) for b in found.q[:i]]
    right = position_error_m(reached, target).max() < 1.1e-5 and rotation_error_rad(reached, target).max() < 1.1e-5
    print(f"   the two nearest differ by {min(apart):.2f} rad in some joint")
    if not (len(q) == expected and right and robot.within_limits(q).all() and min(apart) > MIN_DISTANCE):
        sys.exit("not as expected")
