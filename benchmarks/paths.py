"""Whole paths on one core: the four published ones under their own rule, paths of random motions, paths that cannot be
done, and peers beside them.

Take the folder of the problems as --problems. Valid means, judged from outside by Pinocchio and, for collision, in
NumPy by spheres against shapes: every pose within 0.1 mm and 0.1 deg, joints within limits, at most 7 deg and 2 cm a
joint from one waypoint to the next, no collision at a waypoint. Needs Pinocchio; the part `random` example-robot-data
for TIAGo, the part `peers` ssik for UR10.
"""

from __future__ import annotations

import argparse
import gzip
import importlib.util
import json
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from report import report_header

from mfik.cli import HelpFormatter, run_script
from mfik.collision import Box, Cylinder, Sphere, World
from mfik.collision.poses import as_transform
from mfik.robots import Robot, load_robot
from mfik.solve import Solver, Status

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from clearance_judge import clearance
from judge import Judge, norms

TOL_POS, TOL_ROT = 1e-4, np.radians(0.1)  # of the published rule [m], [rad]
STEP_TURN, STEP_SLIDE = np.radians(7.0), 0.02  # of the published rule, [rad] and [m] a waypoint
SEEDS = 20
WAYPOINTS = 200  # of a random path
STARTS = 50  # solutions from which `track` begins
CELL = 40  # solutions of each waypoint of the graph in NumPy
BROKEN = 100  # paths of each kind
WORLDS = 100  # of random balls, until one breaks a path
# Shares of max_step and margins [m] between which the place must not change, as poses have a tolerance, by which joints
# may change by much where they are nearly singular; and the margin between them that paths are asked for.
NEARLY, MARGIN = ((0.8, 0.004), (1.25, 0.0)), 0.002
GRAPHS = 50  # random paths beside peers
REFERENCES = 16  # beginnings of each
PARTS = ("published", "random", "broken", "peers", "network")
KINDS = {"box": Box, "cylinder": Cylinder, "sphere": Sphere}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--problems", type=Path, required=True, help="folder with paths.json.gz and robots/")
    parser.add_argument("--only", choices=PARTS, help="one part; default all")
    parser.add_argument("--paths", type=int, default=1000, help="random paths of all three robots together")
    parser.add_argument("--best", type=float, default=60.0, help="time to look for the shortest of each path [s]")
    parser.add_argument("--output", type=Path, help="JSON to write")
    args = parser.parse_args()
    parts: dict[str, Callable[[], Any]] = {
        "published": lambda: [published(problem, args.best) for problem in problems(args.problems)],
        "random": lambda: [
            random_paths(name, args.paths // 3 + (name == "panda")) for name in ("panda", "ur10", "tiago")
        ],
        "broken": broken,
        "peers": lambda: peers(args.problems),
        "network": network,
    }
    results: dict[str, Any] = {}
    for name in PARTS if args.only is None else (args.only,):
        try:
            results[name] = parts[name]()
        except ImportError as error:
            print(f"{name}: left out, {error}")
    if args.output is not None:
        args.output.write_text(json.dumps({**report_header("cpu"), "results": results}, indent=1))


class Problem:
    """A published path, its robot, and the options that its rule asks for."""

    def __init__(self, folder: Path, entry: dict[str, Any]) -> None:
        self.name = entry["id"]
        self.urdf = folder / "robots" / entry["urdf"]
        self.robot = load_robot(self.urdf, entry["base"], entry["tip"])
        self.solver = Solver.from_robot(self.robot)
        self.poses = np.array(entry["poses"])
        self.shapes = [KINDS[shape.pop("type")](**shape) for shape in entry["world"]]
        names = self.robot.joint_names
        self.locked = [names.index(name) for name in entry["locked"]]
        self.q_ref = 0.5 * (self.robot.lower + self.robot.upper)
        self.q_ref[self.locked] = list(entry["locked"].values())
        self.max_step = step_bounds(self.robot)
        self.options: dict[str, Any] = {
            "world": World(self.shapes), "locked": self.locked, "tol_pos": TOL_POS, "tol_rot": TOL_ROT,
        }  # fmt: skip

    def solve(self, random_seed: int = 0) -> Any:
        return self.solver.solve_path(
            self.poses, q_ref=self.q_ref, max_step=self.max_step, random_seed=random_seed, **self.options
        )

    def is_valid(self, q: np.ndarray) -> bool:
        """Judge joints [N, J] from outside."""
        return len(q) == len(self.poses) and is_valid(self.robot, self.urdf, self.poses, q, self.shapes)


def problems(folder: Path) -> Iterator[Problem]:
    """Return the published paths."""
    with gzip.open(folder / "paths.json.gz") as stream:
        yield from (Problem(folder, entry) for entry in json.load(stream)["problems"])


def step_bounds(robot: Robot) -> np.ndarray:
    """Return the published bound of each joint's step [rad or m], [J]."""
    return np.where(np.array(robot.kinds) == "prismatic", STEP_SLIDE, STEP_TURN)


def joint_limits(robot: Robot) -> tuple[np.ndarray, np.ndarray]:
    """Return lower and upper limits; continuous joints have none."""
    endless = np.array(robot.kinds) == "continuous"
    return np.where(endless, -np.inf, robot.lower), np.where(endless, np.inf, robot.upper)


def is_valid(robot: Robot, urdf: Path | None, poses: np.ndarray, q: np.ndarray, shapes: list[Any] | None) -> bool:
    """Judge a whole path by the published rule; collision where shapes are given."""
    judge, (lower, upper) = Judge(robot, urdf), joint_limits(robot)
    errors = np.array([norms(judge.error(row, pose)) for row, pose in zip(q, poses, strict=True)])
    valid = bool((errors <= [TOL_POS + 1e-9, TOL_ROT + 1e-9]).all())
    valid &= bool(((q >= lower) & (q <= upper)).all())
    valid &= bool((np.abs(np.diff(q, axis=0)) <= step_bounds(robot) + 1e-12).all())
    return valid and (shapes is None or clearance(robot, q, shapes).min() >= -1e-9)


def published(problem: Problem, seconds: float) -> dict[str, Any]:
    """Solve a published path with every seed, and look for the shortest as long as there is time."""
    problem.solve()  # warm
    results = [problem.solve(seed) for seed in range(SEEDS)]
    valid = sum(result.status == Status.SOLVED and problem.is_valid(result.q) for result in results)
    lengths = np.array([result.length for result in results if result.status == Status.SOLVED])
    times = np.array([result.time_us for result in results]) / 1e3
    best, end, seed = min(lengths, default=np.inf), time.monotonic() + seconds, SEEDS
    while time.monotonic() < end:
        more = problem.solve(seed)
        seed += 1
        if more.status == Status.SOLVED:
            best = min(best, more.length)
    excess = lengths / best - 1
    row = {
        "path": problem.name, "waypoints": len(problem.poses), "valid": valid, "seeds": SEEDS,
        "p50_ms": float(np.median(times)), "max_ms": float(times.max()), "length": float(np.median(lengths)),
        "best": float(best), "searches_for_the_best": seed, "excess_p50": float(np.median(excess)),
        "excess_max": float(excess.max()),
    }  # fmt: skip
    print(
        f"{problem.name:20} {row['waypoints']} waypoints: {valid} of {SEEDS} valid, p50 {row['p50_ms']:.1f} ms, "
        f"max {row['max_ms']:.1f} ms; length {row['length']:.2f}, best of {seconds:g} s {best:.2f}: "
        f"{row['excess_p50']:.1%} longer in the median, {row['excess_max']:.1%} at most"
    )
    return row


def robot_of(name: str) -> tuple[Robot, Path | None]:
    """Return a robot, and its URDF file where it is no preset."""
    if name != "tiago":
        return load_robot(name), None
    data = Path(sysconfig.get_paths()["purelib"]) / "cmeel.prefix" / "share" / "example-robot-data" / "robots"
    urdf = data / "tiago_description" / "robots" / "tiago.urdf"
    if not urdf.is_file():
        raise ImportError("needs `pip install example-robot-data`")
    return load_robot(urdf, "torso_fixed_link", "arm_tool_link"), urdf


def random_motion(robot: Robot, rng: np.random.Generator, n: int = WAYPOINTS) -> np.ndarray:
    """Draw a smooth motion within the limits, whose steps are 0.9 of the published bound at most, [n, J]."""
    t, bound = np.linspace(0, 1, n)[:, None], 0.9 * step_bounds(robot)
    scale = 0.5 * np.where(np.array(robot.kinds) == "prismatic", 0.2, 1.0)
    lower, upper = joint_limits(robot)
    while True:
        q = robot.sample(1, rng) + sum(
            rng.normal(size=robot.dof) * scale / k * np.sin(np.pi * k * t + rng.uniform(0, 2 * np.pi, robot.dof))
            for k in (1, 2, 3)
        )
        if ((q >= lower) & (q <= upper)).all() and (np.abs(np.diff(q, axis=0)) <= bound).all():
            return q


def random_paths(name: str, count: int) -> dict[str, Any]:
    """Solve paths that random motions make, so that one exists, from any solution, without a world."""
    robot, urdf = robot_of(name)
    solver, rng, bound = Solver.from_robot(robot), np.random.default_rng(0), step_bounds(robot)
    valid, times, ratios = 0, [], []
    for _ in range(count):
        motion = random_motion(robot, rng)
        poses = robot.fk(motion)
        result = solver.solve_path(poses, max_step=bound)
        times.append(result.time_us / 1e3)
        valid += result.status == Status.SOLVED and is_valid(robot, urdf, poses, result.q, None)
        ratios.append(result.length / np.abs(np.diff(motion, axis=0)).sum())
    p50, p99 = np.percentile(times, [50, 99])
    print(
        f"{name:8} {count} random paths of {WAYPOINTS} waypoints: {valid / count:.2%} found and valid, "
        f"p50 {p50:.1f} ms, p99 {p99:.1f} ms; length against the motion's, median {np.median(ratios):.2f}"
    )
    return {
        "robot": name, "paths": count, "valid": valid, "p50_ms": p50, "p99_ms": p99, "ratio": float(np.median(ratios)),
    }  # fmt: skip


def broken() -> dict[str, int]:
    """Break 100 paths of each kind, and look whether the reason names the place: a waypoint moved out of reach; and, on
    UR10 among balls, each of which some branches hit, paths that need two branches, by the graph of all solutions.
    """
    rng, named = np.random.default_rng(0), {"unreachable": 0, "branches": 0}
    robot = load_robot("panda")
    solver = Solver.from_robot(robot)
    for _ in range(BROKEN):
        place = int(rng.integers(WAYPOINTS))
        poses = robot.fk(random_motion(robot, rng))
        poses[place, :3] *= rng.uniform(1.3, 2.0) / np.linalg.norm(poses[place, :3])
        result = solver.solve_path(poses, max_step=step_bounds(robot))
        words = f"waypoint {place} has no solution"
        named["unreachable"] += bool(result.status and words in result.reason and result.reached == place)
    robot = load_robot("ur10")
    solver, all_solutions = Solver.from_robot(robot), closed_form(robot)
    for poses, world, place in two_branches(robot, solver, all_solutions, rng):
        options = {"world": world, "self_collision": False, "margin": MARGIN, "edge_check": STEP_TURN}
        result = solver.solve_path(poses, max_step=step_bounds(robot), **options)
        words = f"between waypoint {place - 1} and waypoint {place} "
        named["branches"] += bool(result.status and words in result.reason and result.reached == place)
    print(f"the reason names the right place, of {BROKEN} paths each: {named}")
    return named


def two_branches(
    robot: Robot, solver: Solver, all_solutions: Callable[[np.ndarray], np.ndarray], rng: np.random.Generator
) -> Iterator[tuple[np.ndarray, World, int]]:
    """Yield paths of UR10 whose waypoints all have free solutions, but no chain of them, and where every chain ends."""
    for _ in range(BROKEN):
        place = 0
        while place == 0:
            poses = robot.fk(random_motion(robot, rng))
            layers = [all_solutions(pose) for pose in poses]
            for _ in range(WORLDS):
                places = rng.uniform([-0.8, -0.8, -0.2], [0.8, 0.8, 1.2], (12, 3))
                world = World([Sphere(0.06, [*place, 1, 0, 0, 0], f"ball {k}") for k, place in enumerate(places)])
                ends = {end_of_chains(robot, solver, layers, world, *nearly) for nearly in NEARLY}
                place = ends.pop() if len(ends) == 1 else 0
                if place > 0:
                    break
        yield poses, world, place


def end_of_chains(
    robot: Robot, solver: Solver, layers: list[np.ndarray], world: World, share: float, margin: float
) -> int:
    """Return the first waypoint that no chain of free solutions reaches, full turns aside; 0 where there is none, or
    where a waypoint has no free solution.
    """
    ends = np.cumsum([len(layer) for layer in layers])[:-1]
    free = np.split(solver.is_free(np.concatenate(layers), world, self_collision=False, margin=margin), ends)
    if not all(kept.any() for kept in free):
        return 0
    reached = free[0]
    for place in range(1, len(layers)):
        change = layers[place][:, None] - layers[place - 1][None]
        change -= 2 * np.pi * np.round(change / (2 * np.pi))
        connected = (np.abs(change) <= share * step_bounds(robot)).all(-1)
        reached = (connected & reached).any(1) & free[place]
        if not reached.any():
            return place
    return 0


def peers(folder: Path) -> list[dict[str, Any]]:
    """Follow the published paths by `track` from each of STARTS solutions, and by a graph of all solutions in NumPy."""
    rows = []
    for problem in problems(folder):
        begin = time.perf_counter()
        starts = problem.solver.solve_all(problem.poses[0], STARTS, problem.q_ref, **problem.options).q
        ways = [tracked(problem, start) for start in starts]
        lengths = [np.abs(np.diff(q, axis=0)).sum() for q in ways if len(q)]
        track_ms = 1e3 * (time.perf_counter() - begin)
        begin = time.perf_counter()
        graph = graph_in_numpy(problem)
        graph_ms = 1e3 * (time.perf_counter() - begin)
        ours = problem.solve()
        row = {
            "path": problem.name, "ours_ms": ours.time_us / 1e3, "ours_length": ours.length,
            "track_ms": track_ms, "track_found": len(lengths), "track_length": float(min(lengths, default=np.nan)),
            "graph_ms": graph_ms, "graph_found": graph is not None,
            "graph_length": float("nan") if graph is None else float(np.abs(np.diff(graph, axis=0)).sum()),
        }  # fmt: skip
        rows.append(row)
        print(
            f"{problem.name:20} ours {row['ours_ms']:.0f} ms, {row['ours_length']:.2f}; track from {len(starts)} "
            f"solutions {track_ms:.0f} ms, {len(lengths)} get through, shortest {row['track_length']:.2f}; graph of up "
            f"to {CELL} solutions a waypoint {graph_ms:.0f} ms, length {row['graph_length']:.2f}"
        )
    return [*rows, closed_form_graph()]


def tracked(problem: Problem, q: np.ndarray) -> np.ndarray:
    """Return the joints that `track` follows the path with, [N, J]; empty where it fails."""
    joints = [q]
    for pose in problem.poses[1:]:
        result = problem.solver.track(pose, joints[-1], problem.max_step, **problem.options)
        if result.status != Status.SOLVED:
            return np.empty((0, len(q)))
        joints.append(result.q)
    return np.array(joints)


def graph_in_numpy(problem: Problem) -> np.ndarray | None:
    """Return the shortest path through a graph as Descartes builds it: solutions of each waypoint, edges within the
    bound, dynamic programming; None where it breaks.
    """
    layers = [
        problem.solver.solve_all(pose, CELL, problem.q_ref, min_distance=0.02, **problem.options).q
        for pose in problem.poses
    ]
    return shortest(layers, problem.max_step)


def shortest(layers: list[np.ndarray], max_step: np.ndarray, turns: bool = False) -> np.ndarray | None:
    """Return the shortest way through layers [M, J], [N, J], or None; with `turns`, full ones count nothing."""
    cost, before = np.zeros(len(layers[0])), []
    for a, b in zip(layers[:-1], layers[1:], strict=True):
        if not (len(a) and len(b)):
            return None
        change = b[:, None] - a[None]
        change = np.abs(change - 2 * np.pi * np.round(change / (2 * np.pi)) if turns else change)
        total = np.where((change <= max_step).all(-1), change.sum(-1) + cost, np.inf)
        before.append(total.argmin(1))
        cost = total.min(1)
    if not np.isfinite(cost).any():
        return None
    way = [int(cost.argmin())]
    for parents in reversed(before):
        way.append(int(parents[way[-1]]))
    return np.array([layer[node] for layer, node in zip(layers, reversed(way), strict=True)])


def closed_form(robot: Robot) -> Callable[[np.ndarray], np.ndarray]:
    """Return what finds all solutions of a pose in closed form, full turns aside, [M, J], by ssik."""
    import peers

    path = peers.BUILD / f"{robot.name}_ik.py"
    if not path.is_file():
        peers.ssik(robot)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)

    def solve(pose: np.ndarray) -> np.ndarray:
        found = np.array([solution.q for solution in module.solve(as_transform("pose", pose))]).reshape(-1, robot.dof)
        wrapped = found - 2 * np.pi * np.round(found / (2 * np.pi))
        return wrapped[np.unique(np.round(wrapped, 6), axis=0, return_index=True)[1]]

    return solve


def closed_form_graph() -> dict[str, Any]:
    """Compare with the graph of all solutions in closed form, turns aside, on random paths of UR10."""
    robot = load_robot("ur10")
    solver, all_solutions, rng = Solver.from_robot(robot), closed_form(robot), np.random.default_rng(1)
    ours, theirs, found, ratios = [], [], {"ours": 0, "graph": 0}, []
    for _ in range(GRAPHS):
        poses = robot.fk(random_motion(robot, rng))
        result = solver.solve_path(poses, max_step=step_bounds(robot))
        begin = time.perf_counter()
        way = shortest([all_solutions(pose) for pose in poses], step_bounds(robot), turns=True)
        theirs.append(1e3 * (time.perf_counter() - begin))
        ours.append(result.time_us / 1e3)
        found["ours"] += result.status == Status.SOLVED
        found["graph"] += way is not None
        if way is not None and result.status == Status.SOLVED:
            ratios.append(result.length / np.abs(np.diff(np.unwrap(way, axis=0), axis=0)).sum())
    row = {
        "paths": GRAPHS, **found, "ours_ms": float(np.median(ours)), "graph_ms": float(np.median(theirs)),
        "length_ratio": float(np.median(ratios)), "length_ratio_max": float(np.max(ratios)),
    }  # fmt: skip
    print(
        f"ur10, {GRAPHS} random paths: ours found {found['ours']}, {row['ours_ms']:.1f} ms; ssik's graph "
        f"{found['graph']}, {row['graph_ms']:.1f} ms; our length against its, median {row['length_ratio']:.3f}, "
        f"at most {row['length_ratio_max']:.3f}"
    )
    return row


def network() -> dict[str, Any]:
    """Compare the shipped network's answers with one reference held along the path, each refined once, with `track`
    from as many solutions of the first waypoint, on random paths of the Panda.
    """
    solver, rng = Solver.pretrained("panda"), np.random.default_rng(2)
    robot, bound = solver.robot, step_bounds(solver.robot)
    row: dict[str, Any] = {"paths": GRAPHS, "references": REFERENCES}
    whole: dict[str, list[int]] = {"network": [], "track": []}
    times: dict[str, list[float]] = {"network": [], "track": []}
    for _ in range(GRAPHS):
        poses = robot.fk(random_motion(robot, rng))
        begin = time.perf_counter()
        count = 0
        for q_ref in robot.sample(REFERENCES, rng):
            answers = solver.solve_batch(
                poses, np.tile(q_ref, (len(poses), 1)), time_each=False, seed="network", max_attempts=1
            )
            steps = np.abs(np.diff(answers.q, axis=0))
            count += bool((answers.status == Status.SOLVED).all() and (steps <= bound).all())
        times["network"].append(1e3 * (time.perf_counter() - begin))
        whole["network"].append(count)
        begin = time.perf_counter()
        starts = solver.solve_all(poses[0], REFERENCES).q
        count = 0
        for start in starts:
            q = start
            for pose in poses[1:]:
                result = solver.track(pose, q, bound)
                q = result.q
                if result.status != Status.SOLVED:
                    break
            else:
                count += 1
        times["track"].append(1e3 * (time.perf_counter() - begin))
        whole["track"].append(count)
    for name, counts in whole.items():
        row |= {
            f"{name}_ms": float(np.median(times[name])), f"{name}_share": float(np.mean(counts)) / REFERENCES,
            f"{name}_paths": float(np.mean(np.array(counts) > 0)),
        }  # fmt: skip
        print(
            f"panda, {GRAPHS} random paths, {REFERENCES} beginnings each by {name}: {row[f'{name}_share']:.1%} give a "
            f"whole path, {row[f'{name}_paths']:.0%} of the paths have one, {row[f'{name}_ms']:.0f} ms a path"
        )
    return row


if __name__ == "__main__":
    run_script(main)
