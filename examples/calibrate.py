"""Calibrate a tool and joint offsets: learn from measured poses of the tool where it sits and where the encoders lie.

A UR10 reports its joints at 500 poses, of which a tracker in the base frame measures the tool: 0.2 mm and 0.5 mrad of
noise. The last joint's offset is a turn of the tool, so it stays at zero. What is learned makes the joints that reach
the measured poses those that the encoders report.

python examples/calibrate.py
"""

import sys
import time

import torch

from mfik.kinematics import normalize_pose, quat_conjugate, quat_multiply, quat_rotate
from mfik.robots import load_robot
from mfik.solve import Solver, Status
from mfik.torch import ik

POSES, STEPS = 500, 200
NOISE_M, NOISE_RAD = 2e-4, 5e-4  # of each coordinate

robot = load_robot("ur10")
solver = Solver.from_robot(robot)
generator = torch.Generator().manual_seed(0)


def normal(*shape):
    return torch.randn(*shape, generator=generator, dtype=torch.float64)


def rotated(quat, turn):
    """Turn by a small rotation vector in front of the rotation."""
    return quat_multiply(torch.cat([torch.ones_like(turn[..., :1]), turn / 2], -1), quat)


def compose(left, right):
    """Return T_a_c of T_a_b and T_b_c."""
    position = left[..., :3] + quat_rotate(left[..., 3:], right[..., :3])
    return normalize_pose(torch.cat([position, quat_multiply(left[..., 3:], right[..., 3:])], -1))


def inverse(pose):
    quat = quat_conjugate(pose[..., 3:])
    return torch.cat([-quat_rotate(quat, pose[..., :3]), quat], -1)


# The true robot, which nobody knows.
true_tool = normalize_pose(torch.tensor([0.02, -0.01, 0.15, 0.9, 0.1, -0.2, 0.3], dtype=torch.float64))
true_offset = torch.tensor([0.010, -0.020, 0.015, -0.012, 0.008, 0.0], dtype=torch.float64)

# What is measured: encoders, and poses of the tool with noise.
candidates = robot.sample(4 * POSES, generator, torch.float64) / 2
singular = torch.linalg.svdvals(robot.jacobian(candidates))[:, -1]
encoders = candidates[singular.argsort(descending=True)[:POSES]]  # where a pose tells most about the joints
measured = compose(robot.fk(encoders + true_offset), true_tool)
position = measured[:, :3] + NOISE_M * normal(POSES, 3)
measured = torch.cat([position, rotated(measured[:, 3:], NOISE_RAD * normal(POSES, 3))], -1)
measured = normalize_pose(measured)

# What is learned, from drawings: the tool is off by centimetres and 0.1 rad, the offsets are taken to be zero.
start = normalize_pose(torch.tensor([0.0, 0.0, 0.12, 0.9, 0.15, -0.15, 0.25], dtype=torch.float64))
tool = start.clone().requires_grad_()
offset = torch.zeros(5, dtype=torch.float64, requires_grad=True)
optimiser = torch.optim.Adam([tool, offset], lr=1e-2)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, STEPS)


def errors():
    """Return what the estimate is off by: mm and degrees of the tool, mrad of the worst joint."""
    gap = compose(inverse(true_tool), normalize_pose(tool.detach()))
    tool_deg = torch.rad2deg(2 * torch.linalg.vector_norm(gap[4:])).item()
    return 1e3 * gap[:3].norm().item(), tool_deg, 1e3 * (offset.detach() - true_offset[:5]).abs().max().item()


print("at the start: tool off by {:.2f} mm and {:.3f} deg, joints by up to {:.2f} mrad".format(*errors()))
begin = time.perf_counter()
for step in range(STEPS):
    flange = compose(measured, inverse(normalize_pose(tool)))  # where the flange must have been
    reported = encoders + torch.cat([offset, offset.new_zeros(1)])
    q, status = ik(solver, flange, encoders, return_status=True, throughput=True, tol_pos=1e-8, tol_rot=1e-8)
    solved = status == Status.SOLVED
    loss = torch.nn.functional.huber_loss(q[solved], reported[solved], delta=0.1)
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
    schedule.step()
    if (step + 1) % 50 == 0:
        rms = 1e3 * (q - reported)[solved].detach().square().mean().sqrt().item()
        print(f"step {step + 1}: {int(solved.sum())} poses solved, joints differ by {rms:.3f} mrad (root mean square)")
print(f"{STEPS} steps of {POSES} poses took {time.perf_counter() - begin:.1f} s")

mm, deg, mrad = errors()
print(f"calibrated: tool off by {mm:.3f} mm and {deg:.4f} deg, joints by up to {mrad:.3f} mrad")
if not (mm < 0.1 and deg < 0.01 and mrad < 0.15 and solved.all()):
    sys.exit("not as expected")
