"""Measure what a controller relies on: free axes and slack, and tracking under a bound that binds.

    python benchmarks/motion.py slack track

Targets are drawn with a fixed seed, joints uniformly within the limits. Needs example-robot-data (Kinova, TIAGo,
SO-101, Allegro hand). A sample *reverses* where a joint moves against its last motion, both by more than a tenth of the
bound: a joint that turns back smoothly passes through smaller steps. At rest: no joint moves by more than 1e-9 rad.
"""

from __future__ import annotations

import argparse
import sysconfig
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mfik.robots import Robot, load_robot
from mfik.solve import Solver, Status

_DATA = Path(sysconfig.get_paths()["purelib"]) / "cmeel.prefix" / "share" / "example-robot-data" / "robots"
ARMS = {
    "panda": ("panda",),
    "ur10": ("ur10",),
    "kinova": (_DATA / "kinova_description/robots/kinova.urdf", "base", "j2s6s200_end_effector"),
    "tiago": (_DATA / "tiago_description/robots/tiago.urdf", "torso_fixed_link", "arm_tool_link"),
    "so101": (_DATA / "so_arm_description/urdf/so101.urdf", "base_link", "gripper_frame_link"),
    "finger": (_DATA / "allegro_hand_description/urdf/allegro_right_hand.urdf", "palm_link", "link_3.0_tip"),
}
SLACKS = (
    [0, 0, 0.02, 0, 0, 0.3],
    [0.01, 0.01, 0.01, 0.1, 0.1, 0.1],
    [0, 0, 0, 0, 0, 1.5],
    [0, 0, 0, 0.05, 0.05, np.inf],
)


def draw(robot: Robot, n: int, rng: np.random.Generator) -> np.ndarray:
    return rng.uniform(robot.lower, robot.upper, (n, robot.dof))


def turned(poses: np.ndarray, axis: int, angles: np.ndarray) -> np.ndarray:
    """Return the poses [N, 7] after turns about an axis of their own."""
    w, v = poses[:, 3:4], poses[:, 4:]
    turn = np.sin(angles / 2)[:, None] * np.eye(3)[axis]
    cosine = np.cos(angles / 2)[:, None]
    scalar = w * cosine - (v * turn).sum(1, keepdims=True)
    return np.hstack([poses[:, :3], scalar, w * turn + cosine * v + np.cross(v, turn)])


def success(solver: Solver, pose: np.ndarray, q_ref: np.ndarray, slack) -> np.ndarray:
    return solver.solve_batch(pose, q_ref, slack=slack).status == Status.SOLVED


def measure_slack(n: int) -> None:
    print(f"| arm | one axis free: x, y, z | the same beyond 2.5 rad | three free | {' | '.join(map(str, SLACKS))} |")
    for name, source in ARMS.items():
        robot, rng = load_robot(*source), np.random.default_rng(1)
        solver = Solver.from_robot(robot)
        pose, q_ref = robot.fk(draw(robot, n, rng)), draw(robot, n, rng)
        free, far = [], []
        for axis in range(3):
            angles = rng.uniform(-np.pi, np.pi, n)
            slack = np.where(np.arange(6) == 3 + axis, np.inf, 0)
            solved = success(solver, turned(pose, axis, angles), q_ref, slack)
            free.append(solved.mean())
            far.append(solved[np.abs(angles) > 2.5].mean())
        plain = success(solver, pose, q_ref, np.zeros(6))
        with_slack = [success(solver, pose, q_ref, slack)[plain].mean() for slack in SLACKS]
        pose[:, 3:] = rng.normal(size=(n, 4))
        pose[:, 3:] /= np.linalg.norm(pose[:, 3:], axis=1, keepdims=True)
        three = success(solver, pose, q_ref, [0, 0, 0, np.inf, np.inf, np.inf]).mean()
        cells = [", ".join(f"{100 * x:.2f}" for x in values) for values in (free, far, [three])]
        print(f"| {name} | {' | '.join(cells)} | {' | '.join(f'{100 * x:.2f}' for x in with_slack)} |", flush=True)


def follow(solver: Solver, poses: np.ndarray, q: np.ndarray, max_step: float, **options) -> tuple[np.ndarray, Status]:
    joints = [np.array(q, dtype=float)]
    result = None
    for pose in poses:
        result = solver.track(pose, joints[-1], max_step, **options)
        joints.append(result.q)
    return np.array(joints), result.status


class Tally:
    """Samples that reverse, samples that move, and paths that end at rest, solved or not."""

    def __init__(self) -> None:
        self.reversals = self.moving = self.rested = self.held = self.paths = 0

    def add(self, joints: np.ndarray, status: Status, max_step: float) -> None:
        steps = np.diff(joints, axis=0)
        large = np.abs(steps) > 0.1 * max_step
        self.reversals += int(((steps[1:] * steps[:-1] < 0) & large[1:] & large[:-1]).any(1).sum())
        self.moving += int((np.abs(steps[1:]) > 1e-9).any(1).sum())
        rest = bool(np.abs(steps[-20:]).max() <= 1e-9)
        self.rested, self.held, self.paths = self.rested + rest, self.held + (rest and status == 0), self.paths + 1

    def __str__(self) -> str:
        percent = 100 * self.reversals / max(self.moving, 1)
        return f"{percent:.2f} % | {100 * self.rested / self.paths:.0f} % | {100 * self.held / self.paths:.0f} %"


def _near(robot: Robot, q: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return robot.fk(robot.clamp(q + rng.uniform(-0.5, 0.5, robot.dof)))


def _beyond(robot: Robot, q: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    pose = robot.fk(q)
    pose[:3] *= 1 + rng.uniform(1, 2) / np.linalg.norm(pose[:3])
    return pose


def _edge(robot: Robot, q: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    pose = robot.fk(q)
    pose[:3] *= 1 + rng.uniform(0.01, 0.02) / np.linalg.norm(pose[:3])
    return pose


def measure_track(n: int) -> None:
    targets: dict[str, Callable] = {
        "within 0.5 rad of the start": _near,
        "1 to 2 cm further out": _edge,
        "1 to 2 m beyond": _beyond,
        "the start, null-space motion to the midpoint, gain 0.1": lambda robot, q, rng: robot.fk(q),
        "the same, gain 1": lambda robot, q, rng: robot.fk(q),
    }
    print("| arm | target | bound | samples that reverse | at rest in the end | at rest and solved |")
    for name in ("panda", "ur10"):
        robot = load_robot(name)
        solver = Solver.from_robot(robot)
        for target, make in targets.items():
            options = {}
            if "null-space" in target or "same" in target:
                gain = 1.0 if "same" in target else 0.1
                options = {"q_preferred": 0.5 * (robot.lower + robot.upper), "preference_gain": gain}
                if name == "ur10":
                    continue
            for max_step in (0.002, 0.02):
                rng, tally = np.random.default_rng(2), Tally()
                for _ in range(n):
                    q = robot.lower + (robot.upper - robot.lower) * rng.uniform(0.1, 0.9, robot.dof)
                    poses = np.repeat(make(robot, q, rng)[None], 3000, 0)
                    tally.add(*follow(solver, poses, q, max_step, **options), max_step)
                print(f"| {name} | {target} | {max_step} | {tally} |", flush=True)


def main() -> None:
    measures = {"slack": (measure_slack, 2000), "track": (measure_track, 40)}
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="+", choices=measures)
    parser.add_argument("--n", type=int, help="targets of each row")
    args = parser.parse_args()
    for what in args.what:
        measure, n = measures[what]
        measure(args.n or n)
        print()


if __name__ == "__main__":
    main()
