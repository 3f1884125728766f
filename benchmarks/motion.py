"""Measure what a controller relies on: free axes and slack, tracking under a bound that binds, paths at 1 kHz, long
paths, the nearest solution.

    python benchmarks/motion.py slack track paths long nearest

Targets are drawn with a fixed seed, joints uniformly within the limits. Needs example-robot-data (Kinova, TIAGo,
SO-101, Allegro hand). A sample *reverses* where a joint moves against its last motion, both by more than a tenth of the
bound: a joint that turns back smoothly passes through smaller steps. At rest: no joint moves by more than 1e-9 rad.

`paths` follows straight lines and circles with a `Tracker`. Bounds of velocity and acceleration are 0.1 to 10 times
what each joint needs for the path: the largest of its own inverse kinematics, `track` without a bound, but at most
10 rad/s and 100 rad/s^2 (or m), which singular paths exceed. NumPy takes the differences of the commands. A joint turns
back where its velocity changes sign, both beyond 1e-7 rad a sample.

`long` tracks lines between two reachable poses in samples of at most 2 mm and 4 mrad, of which every twentieth has a
solution, with and without motion away from the limits. Two judges say whether a continuous path from that start exists:
`solve` from the last joints, no joint further than 0.1 rad a sample; and whether any null-space posture of 24 leads to
the end, which knows what is to come.

`nearest` compares the answers of `nearest=True` with the nearest of hundreds of starts after descent along the null
space in NumPy (tests/nearest_judge.py), or with the answers themselves where those are nearer.
"""

from __future__ import annotations

import argparse
import sys
import sysconfig
from collections.abc import Callable
from pathlib import Path

import numpy as np

from mfik.path import interpolate
from mfik.robots import Robot, load_robot
from mfik.solve import Solver, Status, Tracker

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from nearest_judge import distance, nearest_solution

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


DT = 1e-3  # [s]
MOST_NEEDED = (10.0, 100.0)  # [rad/s] and [rad/s^2], or m


def make_poses(robot: Robot, q: np.ndarray, shape: str, kind: str, rng: np.random.Generator) -> np.ndarray:
    """Return poses at 1 kHz, from rest at FK(q) to rest, and half a second there."""
    time = np.linspace(0, 1, int(rng.integers(800, 2500)))
    eased = time**3 * (10 - 15 * time + 6 * time**2)
    poses = np.repeat(robot.fk(q)[None], len(time), 0)
    along, aside = np.linalg.qr(rng.normal(size=(3, 2)))[0].T
    if kind == "beyond reach":
        along = poses[0, :3] / np.linalg.norm(poses[0, :3])
        aside = np.cross(along, aside) / np.linalg.norm(np.cross(along, aside))
    size = rng.uniform(0.5, 1.0) if kind == "beyond reach" else rng.uniform(0.05, 0.2)
    if shape == "line":
        poses[:, :3] += size * eased[:, None] * along
    else:
        angle = 2 * np.pi * eased[:, None]
        poses[:, :3] += size * (np.sin(angle) * aside + (1 - np.cos(angle)) * along)
    return np.vstack([poses, np.repeat(poses[-1:], 500, 0)])


def singular_start(robot: Robot, rng: np.random.Generator) -> np.ndarray:
    """Return the joints closest to a singularity of many."""
    draws = robot.lower + (robot.upper - robot.lower) * rng.uniform(0.1, 0.9, (200, robot.dof))
    return draws[np.linalg.svd(robot.jacobian(draws), compute_uv=False)[:, -1].argmin()]


def turns_back(moves: np.ndarray) -> np.ndarray:
    """Return how often each joint's velocity changes sign, [J]."""
    counts = []
    for joint in moves.T:
        signs = np.sign(joint[np.abs(joint) > 1e-7])
        counts.append(int((signs[1:] != signs[:-1]).sum()))
    return np.array(counts)


def past_end(tool: np.ndarray, start: np.ndarray, end: np.ndarray) -> float:
    """Return how far positions [n, 3] lead past the end of a line, in shares of it."""
    way = end - start
    return max(0.0, float(((tool - end) @ way).max() / (way @ way)))


def measure_paths(n: int) -> None:
    print(
        "| arm | shape | target | paths | bounds broken | limits passed | turns back, own | more than twice that + 2 | "
        "followed where the bounds suffice | at rest in the end | past the end by over 1 %, at most | "
        "largest jerk [2 a / dt] |"
    )
    for name in ("panda", "ur10", "tiago"):
        robot = load_robot(*ARMS[name])
        solver = Solver.from_robot(robot)
        for shape in ("line", "circle"):
            for kind in ("within reach", "beyond reach", "through singularities"):
                rng, row = np.random.default_rng(5), PathTally(shape == "line")
                for _ in range(n // 3 + (kind == "within reach") * (n % 3)):
                    q = robot.lower + (robot.upper - robot.lower) * rng.uniform(0.1, 0.9, robot.dof)
                    if kind == "through singularities":
                        q = singular_start(robot, rng)
                    row.add(solver, q, make_poses(robot, q, shape, kind, rng), rng)
                print(f"| {name} | {shape} | {kind} | {row} |", flush=True)


class PathTally:
    """What became of paths, which are straight lines or none of them is."""

    def __init__(self, straight: bool) -> None:
        self.straight = straight
        self.paths = self.broken = self.passed = self.back = self.own_back = self.worse = self.rested = 0
        self.sufficient = self.followed = 0
        self.past: list[float] = []
        self.jerk = 0.0

    def add(self, solver: Solver, q: np.ndarray, poses: np.ndarray, rng: np.random.Generator) -> None:
        robot = solver.robot
        own, solved = [q], True
        for pose in poses:
            result = solver.track(pose, own[-1], 0.2)
            own.append(result.q)
            solved = solved and result.status is Status.SOLVED
        own_moves = np.diff(own, axis=0)
        needs = []
        for order, most in zip((1, 2), MOST_NEEDED, strict=True):
            need = np.abs(np.diff(own, n=order, axis=0)).max(0) / DT**order
            needs.append(np.clip(need, max(1e-3, 0.05 * min(need.max(), most)), most))
        factors = 10 ** rng.uniform(-1, 1, 2)
        velocity, acceleration = factors[0] * needs[0], factors[1] * needs[1]
        tracker = Tracker(solver, q, DT, velocity=velocity, acceleration=acceleration)
        joints, arrived = [q], True
        for pose in poses:
            result = tracker.step(pose)
            joints.append(result.q)
            arrived = arrived and result.status is Status.SOLVED
        moves = np.diff(joints, axis=0)
        speeds = moves / DT
        rates = np.diff(speeds, axis=0, prepend=np.zeros((1, robot.dof))) / DT
        self.paths += 1
        self.broken += bool((np.abs(speeds) > velocity).any() or (np.abs(rates) > acceleration).any())
        self.passed += not robot.within_limits(np.array(joints))[:].all()
        back, own_back = turns_back(moves), turns_back(own_moves)
        self.back, self.own_back = self.back + back.sum(), self.own_back + own_back.sum()
        self.worse += int((back > 2 * own_back + 2).sum())
        needed = [np.abs(np.diff(own, n=order, axis=0)).max(0) / DT**order for order in (1, 2)]
        if solved and (needed[0] <= 0.999 * velocity).all() and (needed[1] <= 0.99 * acceleration).all():
            self.sufficient += 1
            self.followed += arrived
        self.rested += bool(np.abs(moves[-20:]).max() <= 1e-9)
        if self.straight:
            self.past.append(past_end(robot.fk(np.array(joints))[:, :3], *robot.fk(np.array([q, own[-1]]))[:, :3]))
        self.jerk = max(self.jerk, float((np.abs(np.diff(rates, axis=0)) / (2 * acceleration)).max()))

    def __str__(self) -> str:
        past = f"{(np.array(self.past) > 0.01).sum()}, {100 * max(self.past):.0f} %" if self.straight else ""
        return (
            f"{self.paths} | {self.broken} | {self.passed} | {self.back}, {self.own_back} | {self.worse} joints | "
            f"{self.followed} of {self.sufficient} | {self.rested} | "
            f"{past} | {self.jerk:.2f}"
        )


def tracked(solver: Solver, poses: np.ndarray, q: np.ndarray, times: list[float], **options) -> bool:
    for pose in poses:
        result = solver.track(pose, q, 0.1, **options)
        times.append(result.time_us)
        if result.status is not Status.SOLVED:
            return False
        q = result.q
    return True


def solved_along(solver: Solver, poses: np.ndarray, q: np.ndarray) -> bool:
    for pose in poses:
        result = solver.solve(pose, q)
        if result.status is not Status.SOLVED or np.abs(result.q - q).max() > 0.1:
            return False
        q = result.q
    return True


def measure_long(n: int) -> None:
    print(
        "| arm | to the end without, with | of those that `solve` follows | of those with a posture that leads there | "
        "p50 a sample without, with [us] |"
    )
    for name in ("panda", "tiago"):
        robot, rng = load_robot(*ARMS[name]), np.random.default_rng(6)
        solver = Solver.from_robot(robot)
        rows, times = [], ([], [])
        postures = draw(robot, 24, rng)
        while len(rows) < n:
            q = robot.lower + (robot.upper - robot.lower) * rng.uniform(0.1, 0.9, (2, robot.dof))
            poses = interpolate(robot.fk(q), 2e-3, 4e-3)
            if not success(solver, poses[::20], np.tile(q[0], (len(poses[::20]), 1)), np.zeros(6)).all():
                continue
            plain = tracked(solver, poses, q[0], times[0], preference_gain=0.0)
            led = tracked(solver, poses, q[0], times[1])
            some = (
                plain
                or led
                or any(
                    tracked(solver, poses, q[0], [], q_preferred=posture, preference_gain=0.05) for posture in postures
                )
            )
            rows.append((plain, led, solved_along(solver, poses, q[0]), some))
        plain, led, followed, some = np.array(rows).T
        print(
            f"| {name} | {plain.sum()}, {led.sum()} of {n} | {(led & followed).sum()} of {followed.sum()} | "
            f"{(led & some).sum()} of {some.sum()} | {np.median(times[0]):.2f}, {np.median(times[1]):.2f} |",
            flush=True,
        )


def measure_nearest(n: int) -> None:
    print("| arm | weights | farther than the nearest: mean, p95, largest | by more than 1 % | p50, p99 [us] |")
    for name in ("panda", "ur10"):
        robot, rng = load_robot(name), np.random.default_rng(77)
        solver = Solver.from_robot(robot)
        q, q_ref = draw(robot, n, rng), draw(robot, n, rng)
        poses = robot.fk(q)
        for label, weights in (("1", np.ones(robot.dof)), ("4 ... 0.25", np.geomspace(4, 0.25, robot.dof))):
            runs = [solver.solve_batch(poses, q_ref, nearest=True, joint_weights=weights) for _ in range(6)]
            length = distance(runs[0].q, q_ref, weights)
            starts = 400 if robot.dof > 6 else 1200
            true = [nearest_solution(robot, *row, rng, weights, starts) for row in zip(poses, q_ref, strict=True)]
            above = 100 * (length / np.minimum(distance(np.array(true), q_ref, weights), length) - 1)
            time = np.quantile(np.min([run.time_us for run in runs], axis=0), [0.5, 0.99])
            print(
                f"| {name} | {label} | {above.mean():.2f} %, {np.quantile(above, 0.95):.2f} %, {above.max():.1f} % | "
                f"{100 * (above > 1).mean():.1f} % | {time[0]:.0f}, {time[1]:.0f} |",
                flush=True,
            )


def main() -> None:
    measures = {
        "slack": (measure_slack, 2000),
        "track": (measure_track, 40),
        "paths": (measure_paths, 1000),
        "long": (measure_long, 100),
        "nearest": (measure_nearest, 300),
    }
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
