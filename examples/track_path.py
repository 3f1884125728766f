"""Follow a circle of 10 cm, a millisecond a step, and meet the bound on a joint's step where the path jumps.

python examples/track_path.py
"""

import sys

import numpy as np

from mfik.robots import load_robot
from mfik.solve import Solver, Status

STEPS, RADIUS = 2000, 0.1  # 2 s at 1 kHz; [m]
MAX_STEP = 2e-3  # of a joint in a millisecond [rad]: 2 rad/s

robot = load_robot("panda")
solver = Solver.from_robot(robot)
q = np.array([0.0, -0.785, 0.0, -2.356, 0.0, 1.571, 0.785])
start = robot.fk(q)

worst_mm, largest_step, times = 0.0, 0.0, []
for s in np.linspace(0, 1, STEPS + 1)[1:]:
    angle = 2 * np.pi * s**3 * (10 + s * (6 * s - 15))  # from rest to rest
    pose = start.copy()
    pose[:2] += RADIUS * (np.cos(angle) - 1), RADIUS * np.sin(angle)
    result = solver.track(pose, q, MAX_STEP)
    if result.status != Status.SOLVED:
        sys.exit(f"lost at {s:.3f}: {solver.explain(result)}")
    reached = robot.fk(result.q)
    worst_mm = max(worst_mm, 1e3 * np.linalg.norm(reached[:3] - pose[:3]))
    largest_step = max(largest_step, np.abs(result.q - q).max())
    times.append(result.time_us)
    q = result.q
print(f"{STEPS} steps: at most {worst_mm:.6f} mm off the circle, largest joint step {1e3 * largest_step:.2f} mrad")
print(f"a step takes {np.median(times):.1f} us in the median, {max(times):.1f} at most")

pose[2] += 0.1  # the path jumps by 10 cm: no joint follows by more than the bound
jump = solver.track(pose, q, MAX_STEP)
moved = np.abs(jump.q - q).max()
print(f"a jump of 10 cm: joints moved by {1e3 * moved:.2f} mrad, {solver.explain(jump)}")

if not (worst_mm < 0.011 and largest_step <= MAX_STEP and jump.status == Status.JUMP_BOUND and moved <= MAX_STEP):
    sys.exit("not as expected")
