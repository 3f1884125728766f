"""Collision on one core: configurations checked, scenes that the solver has to keep clear of, and peers beside it.

Take the folder of the problems as --problems: its Panda has 59 spheres. A scene counts as feasible where the
configuration that its author gives is free. Answers are judged in NumPy by spheres against shapes; those of Panda with
spheres fitted to its meshes by coal on the meshes. Parts that need Pinocchio and coal (`pip install pin
example-robot-data`) say so where these are missing. VAMP is compiled from its sources: --vamp "-isystem
vamp/src/impl -isystem pdqsort -isystem /usr/include/eigen3" names checkouts of it, of pdqsort, and Eigen.
"""

from __future__ import annotations

import argparse
import gzip
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from report import report_header

from mfik.cli import HelpFormatter, run_script
from mfik.collision import Box, Cylinder, PointCloud, Sphere, World
from mfik.robots import Robot, load_robot
from mfik.solve import Solver, Status

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests"))
from clearance_judge import clearance

REFERENCES = 20  # random ones, of each scene
ROUNDS = 15  # of which the median counts
PEER_ROWS = 500  # configurations that coal is asked for, one call each
RETREAT_M = 0.1  # of the hand from its goal, where the answers are judged by the meshes
TRIES = 100  # of rejection: solves from other references, until one is free
FINGERS = {"panda_finger_joint1": 0.04, "panda_finger_joint2": 0.04}  # open, as the preset's
PARTS = ("checks", "scenes", "batch", "meshes", "rejection")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--problems", type=Path, required=True, help="folder with robots/panda_spherized.urdf")
    parser.add_argument("--rows", type=int, default=4096, help="configurations a round")
    parser.add_argument("--only", choices=PARTS, help="one part; default all")
    parser.add_argument("--vamp", metavar="FLAGS", help="time VAMP, too: the compiler's flags that find its headers")
    parser.add_argument("--output", type=Path, help="JSON to write")
    args = parser.parse_args()
    results: dict[str, Any] = {}
    files = sorted(args.problems.glob("scenes-*.json.gz"))
    parts: dict[str, Callable[[], Any]] = {
        "checks": lambda: checks(args),
        "scenes": lambda: with_summary([scenes(args.problems, path) for path in files]),
        "batch": lambda: batch(args.problems),
        "meshes": lambda: [meshes(path) for path in files],
        "rejection": lambda: [rejection(args.problems, path) for path in files],
    }
    for name in PARTS if args.only is None else (args.only,):
        try:
            results[name] = parts[name]()
        except ImportError as error:
            print(f"{name}: left out, {error}")
    if args.output is not None:
        args.output.write_text(json.dumps({**report_header("cpu"), "results": results}, indent=1))


def checks(args: argparse.Namespace) -> dict[str, float]:
    """Time checks of configurations, and the making of a cloud."""
    robot = load_robot(args.problems / "robots" / "panda_spherized.urdf", "panda_link0", "panda_hand")
    rng = np.random.default_rng(0)
    q = robot.sample(args.rows, rng)
    around = rng.uniform(-np.pi, np.pi, 10)  # off the first links, which no configuration could free
    places = np.stack([0.7 * np.cos(around), 0.7 * np.sin(around), rng.uniform(0.0, 0.9, 10)], axis=-1)
    boxes = World([Box([0.2, 0.3, 0.1], [*place, 1, 0, 0, 0]) for place in places])
    solver = Solver.from_robot(robot)
    points = rng.normal(size=(100_000, 3))
    points *= 0.8 / np.linalg.norm(points, axis=-1, keepdims=True)  # a shell: surfaces are what cameras see
    prepared = median(lambda: World([PointCloud(points, 0.005)]))
    cloud = World([PointCloud(points, 0.005)])
    rows: dict[str, float] = {
        "free, self and 10 boxes [us]": per_row(lambda: solver.is_free(q, boxes), q),
        "free, self alone [us]": per_row(lambda: solver.is_free(q), q),
        "free, 10 boxes alone [us]": per_row(lambda: solver.is_free(q, boxes, self_collision=False), q),
        "free, cloud of 100,000 points alone [us]": per_row(lambda: solver.is_free(q, cloud, self_collision=False), q),
        "cloud of 100,000 points prepared [ms]": 1e3 * prepared,
        "clearance with gradient, self and 10 boxes, from Python [us]": per_row(
            lambda: [solver.clearance(row, boxes) for row in q[:500]], q[:500]
        ),
    }
    body = robot.body
    print(f"{robot.name}: {body.num_spheres} spheres, {body.num_sphere_pairs} pairs")
    for name, value in rows.items():
        print(f"{name:62} {value:9.3f}")
    free = solver.is_free(q, boxes)
    print(f"free of collision: {free.mean():.1%}")
    try:
        rows |= time_coal(args.problems, robot, boxes.shapes, q[:PEER_ROWS], free[:PEER_ROWS])
    except ImportError as error:
        print(f"coal: left out, {error}")
    if args.vamp is not None:
        rows |= time_vamp(shlex.split(args.vamp), boxes.shapes, q, free)
    return rows


def time_coal(folder: Path, robot: Robot, shapes: Sequence[Any], q: np.ndarray, free: np.ndarray) -> dict[str, float]:
    """Time the same check by coal, through Pinocchio, on the same spheres and pairs."""
    from coal_scene import CoalScene

    scene = CoalScene(robot, folder / "robots" / "panda_spherized.urdf")
    scene.set_world(shapes)
    agree = np.mean([scene.collides(row) != is_free for row, is_free in zip(q, free, strict=True)])
    rows = {"coal (Pinocchio), self and 10 boxes, a call each [us]": per_row(lambda: [scene.collides(r) for r in q], q)}
    print(f"{next(iter(rows)):62} {next(iter(rows.values())):9.3f}   (agrees on {agree:.1%})")
    return rows


def time_vamp(flags: Sequence[str], shapes: Sequence[Any], q: np.ndarray, free: np.ndarray) -> dict[str, float]:
    """Time the same check by VAMP in C++, of its own Panda with the same spheres, one configuration at a time."""
    source = Path(__file__).parent / "vamp_check.cpp"
    fast = "-fno-math-errno -fno-signed-zeros -fno-trapping-math -fno-rounding-math -ffp-contract=fast"  # as VAMP does
    boxes = [[*np.asarray(shape.pose)[:3], *(0.5 * np.asarray(shape.size))] for shape in shapes]
    with tempfile.TemporaryDirectory() as folder:
        program, given, found = (str(Path(folder) / name) for name in ("vamp_check", "in", "out"))
        command = [os.environ.get("CXX") or "c++", "-std=c++17", "-O3", "-DNDEBUG", "-march=native", "-mavx2", "-w"]
        subprocess.run([*command, *fast.split(), *flags, str(source), "-o", program], check=True)
        np.concatenate([[len(q), len(boxes)], q.ravel(), np.ravel(boxes)]).tofile(given)
        subprocess.run([program, given, found], check=True)
        out = np.fromfile(found)
    rows = {"VAMP, self and 10 boxes, a check each [us]": float(out[-1])}
    agree = np.mean((out[:-1] != 0) == free)
    print(f"{next(iter(rows)):62} {next(iter(rows.values())):9.3f}   (agrees on {agree:.1%})")
    return rows


def batch(folder: Path) -> dict[str, float]:
    """Time cuRobo's own protocol: 100 poses of free configurations above a table slab, within 5 mm and 0.05 rad."""
    urdf = folder / "robots" / "panda_spherized.urdf"
    world = World([Box([5.0, 5.0, 0.2], [0.0, 0.0, -0.1, 1, 0, 0, 0], "table")])
    rows = {}
    for name, robot in (("59", load_robot(urdf, "panda_link0", "panda_hand")), ("fitted", load_robot("panda"))):
        solver, rng = Solver.from_robot(robot), np.random.default_rng(0)
        drawn = robot.sample(4000, rng)
        poses = robot.fk(drawn[solver.is_free(drawn, world)][:100])
        q_ref = robot.sample(100, rng)
        options: dict[str, Any] = {"world": world, "tol_pos": 5e-3, "tol_rot": 0.05, "threads": 1}
        out = solver.solve_batch(poses, q_ref, **options)
        spheres = f"{name} ({robot.body.num_spheres} spheres)" if name == "fitted" else "59 spheres"
        rows[spheres] = 1e3 * median(lambda: solver.solve_batch(poses, q_ref, **options))  # noqa: B023
        print(
            f"100 poses above a table, 5 mm and 0.05 rad, {spheres}: {(out.status == Status.SOLVED).mean():.1%} "
            f"solved, {int((~solver.is_free(out.q, world)).sum())} collide, {rows[spheres]:.3f} ms for the batch"
        )
    return rows


def meshes(path: Path) -> dict[str, Any]:
    """Solve a file's scenes with spheres fitted to Panda's meshes, and judge the answers by coal on the meshes.

    The hand stands RETREAT before the goal, where the fingers, two spheres each, do not yet reach around an object.
    """
    from coal_scene import EXAMPLE_ROBOTS, CoalScene

    urdf = EXAMPLE_ROBOTS / "panda_description" / "urdf" / "panda.urdf"
    if not urdf.is_file():
        raise ImportError("needs `pip install example-robot-data`")
    with gzip.open(path) as stream:
        file = json.load(stream)
    robot = load_robot(urdf, file["base"], file["tip"], spheres="panda", joint_positions=FINGERS)
    solver, scene, rng = Solver.from_robot(robot), CoalScene(robot, urdf, FINGERS), np.random.default_rng(0)
    solved = collide = tries = plain = 0
    for problem in file["problems"]:
        shapes = shapes_of(problem["world"])
        world = World(shapes)
        scene.set_world(shapes)
        pose = drawn_back(problem["pose"], RETREAT_M)
        for q_ref in robot.sample(REFERENCES, rng):
            result = solver.solve(pose, q_ref, world=world)
            tries += 1
            if result.status is Status.SOLVED:
                solved += 1
                collide += scene.collides(result.q)
            without = solver.solve(pose, q_ref)
            plain += without.status is Status.SOLVED and scene.collides(without.q)
    family = path.name.removeprefix("scenes-").removesuffix(".json.gz")
    print(
        f"{family:24} {robot.body.num_spheres} fitted spheres: {solved} of {tries} solved, {collide} collide on the "
        f"meshes by coal, of the answers without the world {plain}"
    )
    return {"family": family, "solved": solved, "tries": tries, "collide": collide, "plain_collide": plain}


def rejection(folder: Path, path: Path) -> dict[str, Any]:
    """Compare the solver with rejection: solve, check by coal, solve again from another reference."""
    from coal_scene import CoalScene

    file, urdf, robot = read_scenes(folder, path)
    solver, scene, rng = Solver.from_robot(robot), CoalScene(robot, urdf), np.random.default_rng(0)
    ours, theirs, failed = [], [], 0
    for problem, shapes, world in feasible_scenes(file, solver):
        references = robot.sample(REFERENCES, rng)
        ours += [solver.solve(problem["pose"], q_ref, world=world).time_us for q_ref in references]
        scene.set_world(shapes)
        for start in references:
            q_ref, total = start, 0.0
            for _ in range(TRIES):
                result = solver.solve(problem["pose"], q_ref)
                begin = time.perf_counter()
                collides = scene.collides(result.q)
                total += result.time_us + 1e6 * (time.perf_counter() - begin)
                if result.status is Status.SOLVED and not collides:
                    break
                q_ref = robot.sample(1, rng)[0]
            else:
                failed += 1
            theirs.append(total)
    family = path.name.removeprefix("scenes-").removesuffix(".json.gz")
    row: dict[str, Any] = {"family": family, "rejection_failed": failed}
    for name, of in (("p50", np.median), ("mean", np.mean)):
        row |= {f"ours_{name}_us": float(of(ours)), f"rejection_{name}_us": float(of(theirs))}
        row[f"ratio_{name}"] = row[f"rejection_{name}_us"] / row[f"ours_{name}_us"]
    print(
        f"{family:24} rejection p50 {row['rejection_p50_us']:8.1f} us, mean {row['rejection_mean_us']:8.1f}, {failed} "
        f"failed in {TRIES} tries; ours p50 {row['ours_p50_us']:6.1f}, mean {row['ours_mean_us']:6.1f}: "
        f"{row['ratio_p50']:.1f} and {row['ratio_mean']:.1f} times"
    )
    return row


def scenes(folder: Path, path: Path) -> dict[str, Any]:
    """Solve every scene of a file from random references."""
    file, _, robot = read_scenes(folder, path)
    solver = Solver.from_robot(robot)
    rng = np.random.default_rng(0)
    feasible = solved = collide = missed = 0
    times: list[float] = []
    plain: list[float] = []
    attempts: list[int] = []
    for problem, shapes, world in feasible_scenes(file, solver):
        feasible += 1
        references = robot.sample(REFERENCES, rng)
        # The judge comes last: it would take the caches from the solver.
        results = [solver.solve(problem["pose"], q_ref, world=world) for q_ref in references]
        plain += [solver.solve(problem["pose"], q_ref).time_us for q_ref in references]
        times += [result.time_us for result in results]
        attempts += [result.attempts for result in results]
        found = [result.q for result in results if result.status is Status.SOLVED]
        solved += len(found)
        missed += len(results) - len(found)
        collide += sum(bool(clearance(robot, q, shapes) < -1e-9) for q in found)
    p50, p99, p999 = np.percentile(times, [50, 99, 99.9])
    row = {
        "family": path.name.removeprefix("scenes-").removesuffix(".json.gz"),
        "feasible": feasible,
        "solved": solved,
        "missed": missed,
        "collide": collide,
        "p50_us": p50,
        "p99_us": p99,
        "p999_us": p999,
        "plain_p50_us": float(np.median(plain)),
        "attempts": float(np.mean(attempts)),
        "times": times,
    }
    report(row)
    return row


def report(row: dict[str, Any]) -> None:
    """Print a family's row."""
    tries = row["solved"] + row["missed"]
    print(
        f"{row['family']:24} {row['feasible']:4} feasible, {row['solved'] / max(tries, 1):8.3%} of {tries} solved, "
        f"{row['collide']} collide, p50 {row['p50_us']:6.1f} p99 {row['p99_us']:6.1f} p99.9 {row['p999_us']:6.1f} us, "
        f"without the world p50 {row['plain_p50_us']:5.1f} us, {row['attempts']:5.1f} attempts"
    )


def with_summary(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the families' rows and one of all their scenes, without the single times."""
    times = np.concatenate([row.pop("times") for row in rows])
    p50, p99, p999 = np.percentile(times, [50, 99, 99.9])
    total = {key: sum(row[key] for row in rows) for key in ("feasible", "solved", "missed", "collide")}
    means = {key: float(np.mean([row[key] for row in rows])) for key in ("plain_p50_us", "attempts")}
    row = {"family": "all", **total, "p50_us": p50, "p99_us": p99, "p999_us": p999, **means}
    report(row)
    return [*rows, row]


def read_scenes(folder: Path, path: Path) -> tuple[dict[str, Any], Path, Robot]:
    """Return a file of scenes, and the URDF file and the robot that it names."""
    with gzip.open(path) as stream:
        file = json.load(stream)
    urdf = folder / "robots" / file["urdf"]
    return file, urdf, load_robot(urdf, file["base"], file["tip"])


def feasible_scenes(file: dict[str, Any], solver: Solver) -> Iterator[tuple[dict[str, Any], list[Any], World]]:
    """Return the problems whose own goal is free, each with its shapes and its world."""
    for problem in file["problems"]:
        shapes = shapes_of(problem["world"])
        world = World(shapes)
        goal = np.array([problem["q_goal"][name] for name in solver.robot.joint_names])
        if solver.is_free(goal[None], world)[0]:
            yield problem, shapes, world


def shapes_of(dicts: list[dict[str, Any]]) -> list[Any]:
    """Return a scene's shapes, for the judge too."""
    kinds = {"box": Box, "cylinder": Cylinder, "sphere": Sphere}
    return [kinds[entry["type"]](**{k: v for k, v in entry.items() if k != "type"}) for entry in dicts]


def drawn_back(pose: list[float], distance: float) -> list[float]:
    """Return a pose moved back along its own z axis [m]."""
    x, y, z, qw, qx, qy, qz = pose
    axis = (2 * (qx * qz + qw * qy), 2 * (qy * qz - qw * qx), 1 - 2 * (qx * qx + qy * qy))
    return [*(p - distance * a for p, a in zip((x, y, z), axis, strict=True)), qw, qx, qy, qz]


def median(call: Callable[[], object]) -> float:
    """Return the median time of a call [s]."""
    times = []
    for _ in range(ROUNDS):
        begin = time.perf_counter()
        call()
        times.append(time.perf_counter() - begin)
    return float(np.median(times))


def per_row(call: Callable[[], object], q: np.ndarray) -> float:
    """Return the median time of a call for each row of q [us]."""
    return 1e6 * median(call) / len(q)


if __name__ == "__main__":
    run_script(main)
