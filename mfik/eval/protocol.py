"""The accuracy protocol (docs/reference/protocol.md): what the network alone, refinement and the whole solver reach."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch

from mfik.errors import ArgumentError
from mfik.eval.evaluate import outside_limits, solve_rows, summary, time_quantiles, times_us, within
from mfik.eval.targets import Targets, make_path, make_targets, random_numbers, robot_length, uniform_joints
from mfik.kinematics.refinement import ATTEMPT_REFINEMENTS
from mfik.robots import Robot
from mfik.solve import BatchResult, Seed, Solver, Status

# Targets of make_targets by the name of their references.
SETS: dict[str, dict[str, Any]] = {
    "local 0.1": {"kind": "local", "sigma": 0.1},
    "local 0.3": {"kind": "local", "sigma": 0.3},
    "global": {"kind": "global"},
    "near limits": {"kind": "near_limits"},
    "near singular": {"kind": "near_singular"},
}
# Starts that do not depend on the reference: one table of them serves the first three sets, whose poses are the same.
STARTS_WITHOUT_REFERENCE = ("midpoint", "azimuth", "stored")
TOLERANCES = {"1e-3": 1e-3, "1e-5": 1e-5, "1e-6": 1e-6}  # [m] and [rad]
REFINEMENTS = (1, 2, 3, 5, 10, 20)  # after which an attempt is looked at
EVALUATIONS = (2, 3)  # of the network, each at the answer of the one before, after which its errors are looked at, too
STORED = 20_000  # configurations from which the start "stored" takes the one of the nearest pose

_TIMED_ROWS = 1000  # solves whose times make the quantiles
_STORED_KEY, _DIVERSITY_KEY = 1, 2  # of the random numbers beside those of the targets
_BLOCK = 1000  # rows that look through the stored configurations together
_MAX_TRACK_STEP = 0.2  # joint step that tracking may take [rad or m]; the paths take 0.05
_PATH_STEPS = 100  # of each path that is tracked
_REFERENCES = 100  # of each pose whose diversity is measured
_PROPOSALS = 4000  # starts from which the solutions of one pose are sought
_NEAR = 0.2  # joint distance [rad], as in `mmd2`, within which solutions are neighbours
_LEAST_BANDWIDTH = 0.1  # of the kernel [rad], for poses with one solution
_RANK_FLOOR = 1e-9  # singular values below it are rounding of zero


def run_protocol(
    solver: Solver,
    *,
    n: int = 10_000,
    seed: int = 0,
    diversity_poses: int | None = None,
    progress: Callable[[str], None] = lambda part: None,
) -> dict[str, Any]:
    """Measure a solver by the whole protocol.

    Args:
        solver: Loaded bundle; without a network, the rows that need one are left out.
        n: Poses of each set, and steps of all paths.
        seed: Same robot, n and seed: same poses.
        diversity_poses: Poses whose solutions are sampled, most of the time of a small network's protocol; default a
            hundredth of n, at least 5.
        progress: Called with the name of each part that begins.

    Returns:
        The JSON document of `scripts/evaluate.py --protocol --json`; docs/reference/protocol.md explains its keys.

    Raises:
        ArgumentError: n or seed is out of range.
    """
    robot = solver.robot
    stored = Stored.draw(robot, seed)
    report: dict[str, Any] = {
        "robot": robot.name,
        "parameters": solver.num_parameters,
        "n": n,
        "seed": seed,
        "one_attempt": {},
        "solve": {},
        "free": {},
        "left_out": {},
    }
    for name, arguments in SETS.items():
        try:
            targets = make_targets(robot, n, seed=seed, **arguments)
        except ArgumentError as error:
            if arguments["kind"] not in ("near_limits", "near_singular"):
                raise
            report["left_out"][name] = str(error)  # a robot without limits, or with fewer than 6 joints
            continue
        attempts = report["one_attempt"][name] = {}
        for start, q in starts(solver, targets, stored):
            if start not in STARTS_WITHOUT_REFERENCE or arguments["kind"] != "local":
                progress(f"{name}, one attempt from {start}")
                attempts[start] = measure_attempt(solver, targets, start, q)
            if start == Seed.NETWORK.value:
                progress(f"{name}, further evaluations")
                attempts[start]["evaluations"] = measure_evaluations(solver, targets, q)
        rows = dict(solves(solver))
        if solver.num_parameters > 0:
            rows["8 seeds, network first"] = {"seed": Seed.NETWORK, "max_attempts": 8}
        report["solve"][name] = {}
        for row, options in rows.items():
            progress(f"{name}, {row}")
            report["solve"][name][row] = measure_solve(solver, targets, **options)
        if name == "global" and robot.body is not None:
            progress("self-collision")
            report["free"] = measure_free(solver, targets)
    progress("diversity")
    report["diversity"] = measure_diversity(solver, stored, seed=seed, num_poses=diversity_poses or max(5, n // 100))
    progress("tracking")
    report["tracking"] = measure_tracking(solver, n, seed=seed)
    return report


class Stored(NamedTuple):
    """Configurations q [M, J] drawn uniformly within the limits, and their poses [M, 7]."""

    q: np.ndarray
    pose: np.ndarray
    length: float  # of the robot [m]

    @classmethod
    def draw(cls, robot: Robot, seed: int) -> Stored:
        """Draw STORED configurations, of which none is a target."""
        q = uniform_joints(robot, STORED, random_numbers(seed, _STORED_KEY))
        return cls(q.numpy(), robot.fk(q).numpy(), robot_length(robot))

    def nearest(self, pose: np.ndarray) -> np.ndarray:
        """Return for poses [N, 7] the stored joints [N, J] of least (2 |p - p'| / length)^2 + sin^2(angle / 2)."""
        position, quat = (torch.from_numpy(self.pose[:, part]).float() for part in (slice(0, 3), slice(3, 7)))
        rows = []
        for block in torch.from_numpy(pose).float().split(_BLOCK):
            cosine = block[:, 3:] @ quat.T  # of half the angle
            distance = torch.cdist(block[:, :3], position).mul_(2 / self.length).square_()
            rows.append(distance.sub_(cosine.square_()).argmin(-1))
        return self.q[torch.cat(rows).numpy()]


def starts(solver: Solver, targets: Targets, stored: Stored) -> Iterator[tuple[str, np.ndarray]]:
    """Yield where an attempt may start, by name, [N, J]: the network's answer, if there is one, and what needs none."""
    for seed in (Seed.NETWORK, Seed.REFERENCE, Seed.MIDPOINT, Seed.AZIMUTH):
        if seed is not Seed.NETWORK or solver.num_parameters > 0:
            yield seed.value, _solve(solver, *targets, seed=seed, max_attempts=1, max_iterations=0).q
    yield "stored", stored.nearest(targets.pose)


def measure_attempt(solver: Solver, targets: Targets, start: str, q: np.ndarray) -> dict[str, Any]:
    """Measure one attempt that starts at joints q [N, J], named `start`.

    Returns:
        Before refinement: errors "pos_mm" and "rot_deg", share "within_5mm_5deg", "limit_violations" (rows). After: the
        success rates "solved" by tolerance and refinements, and the times "us" of an attempt of at most
        ATTEMPT_REFINEMENTS to 1e-5 (the network's evaluation included, the search among stored configurations not).
    """
    one = {"seed": Seed.REFERENCE, "max_attempts": 1}
    solved = {}
    for name, tolerance in TOLERANCES.items():
        out = _solve(
            solver, targets.pose, q, max_iterations=max(REFINEMENTS), tol_pos=tolerance, tol_rot=tolerance, **one
        )
        ok = out.status == Status.SOLVED
        solved[name] = {str(k): float((ok & (out.iterations <= k)).mean()) for k in REFINEMENTS}
    seed, q_ref = (Seed.REFERENCE, q) if start == "stored" else (Seed(start), targets.q_ref)
    return {
        **_errors(solver, _solve(solver, targets.pose, q, max_iterations=0, **one)),
        "solved": solved,
        "us": _time(solver, targets.pose, q_ref, seed=seed, max_attempts=1, max_iterations=ATTEMPT_REFINEMENTS),
    }


def measure_evaluations(solver: Solver, targets: Targets, q: np.ndarray) -> dict[str, Any]:
    """Measure the network's answers q [N, J] after as many evaluations as EVALUATIONS has, without refinement.

    Returns:
        By the number of evaluations what `measure_attempt` returns of errors.
    """
    errors = {}
    for count in range(2, max(EVALUATIONS) + 1):
        out = _solve(solver, targets.pose, q, seed=Seed.NETWORK, max_attempts=1, max_iterations=0)
        q = out.q
        if count in EVALUATIONS:
            errors[str(count)] = _errors(solver, out)
    return errors


def _errors(solver: Solver, out: BatchResult) -> dict[str, Any]:
    return {
        "pos_mm": summary(1e3 * out.pos_error),
        "rot_deg": summary(np.rad2deg(out.rot_error)),
        "within_5mm_5deg": float(within(solver.robot, out, 5e-3, np.deg2rad(5)).mean()),
        "limit_violations": int(outside_limits(solver.robot, out.q).sum()),
    }


def measure_solve(solver: Solver, targets: Targets, **options: Any) -> dict[str, Any]:
    """Measure `Solver.solve` with all its seeds: success rate, attempts, how far q_ref is, time."""
    out = _solve(solver, *targets, **options)
    ok = out.status == Status.SOLVED
    distance = np.abs(out.q - targets.q_ref).max(axis=1)[ok]
    return {
        "solved": float(ok.mean()),
        "limit_violations": int(outside_limits(solver.robot, out.q).sum()),
        "attempts": float(out.attempts.mean()),
        "from_q_ref_rad": float(np.median(distance)) if ok.any() else None,
        "us": _time(solver, *targets, **options),
    }


def measure_free(solver: Solver, targets: Targets) -> dict[str, Any]:
    """Measure how many answers are free of self-collision, by the spheres on the robot's links.

    Returns:
        For each row the success rate "solved" and "free", the share of the answers that are free: of all of one step,
        of the solved ones elsewhere, None where there are none. "uniform joints" are the references, no answers.
    """
    rows: dict[str, dict[str, Any]] = {}

    def add(name: str, q: np.ndarray, solved: np.ndarray | None = None) -> None:
        q = q if solved is None else q[solved]
        free = float(solver.is_free(q).mean()) if len(q) else None
        rows[name] = {"solved": None if solved is None else float(solved.mean()), "free": free}

    add("uniform joints", targets.q_ref)
    whole: dict[str, dict[str, Any]] = {}
    if solver.num_parameters > 0:
        one: dict[str, Any] = {"seed": Seed.NETWORK, "max_attempts": 1}
        add("network, one step", _solve(solver, *targets, max_iterations=0, **one).q)
        whole["network, refined"] = {"max_iterations": ATTEMPT_REFINEMENTS, **one}
    whole |= {**dict(solves(solver)), "solve(), self_collision": {"self_collision": True}}
    for name, options in whole.items():
        out = _solve(solver, *targets, **options)
        add(name, out.q, out.status == Status.SOLVED)
    return rows


def measure_tracking(solver: Solver, n: int, *, seed: int) -> dict[str, Any]:
    """Follow paths of 1 to 3 degrees a step by `Solver.track`, n steps in all.

    Each step begins where the one before ended; after one that fails, at the joints from which the path was made.
    """
    results, moves, whole = [], [], 0
    lengths = [min(_PATH_STEPS, n - first) for first in range(0, n, _PATH_STEPS)]
    for i, length in enumerate(lengths):
        path = make_path(solver.robot, length, seed=len(lengths) * seed + i)
        q = path.q_ref[0]
        for step, pose in enumerate(path.pose):
            result = solver.track(pose, q, _MAX_TRACK_STEP)
            results.append(result)
            moves.append(np.abs(result.q - q).max())
            q = result.q if result.status == Status.SOLVED else path.q_ref[min(step + 1, length - 1)]
        whole += all(result.status == Status.SOLVED for result in results[-length:])
    joints, pos_error, rot_error, time_us = (
        np.array([getattr(result, name) for result in results]) for name in ("q", "pos_error", "rot_error", "time_us")
    )
    return {
        "paths": len(lengths),
        "steps": n,
        "solved": float(np.mean([result.status == Status.SOLVED for result in results])),
        "whole_paths": whole,
        "joint_step_deg": summary(np.rad2deg(moves)),
        "limit_violations": int(outside_limits(solver.robot, joints).sum()),
        "pos_mm": summary(1e3 * pos_error),
        "rot_deg": summary(np.rad2deg(rot_error)),
        "us": time_quantiles(time_us),
    }


def measure_diversity(
    solver: Solver,
    stored: Stored,
    *,
    seed: int,
    num_poses: int,
    num_references: int = _REFERENCES,
) -> dict[str, Any]:
    """Compare the answers to one pose from many uniform references with a true sample of its solutions.

    Returns:
        For each row the success rate "solved", and over the poses the means of "spread", the root mean square distance
        of two answers, of "reached", the share of true solutions that have an answer near by, and of "mmd2", the
        squared maximum mean discrepancy of answers and truth. "truth" is a second true sample: the best possible.
    """
    robot, rng = solver.robot, random_numbers(seed, _DIVERSITY_KEY)
    poses = robot.fk(uniform_joints(robot, num_poses, rng)).numpy()
    samples = [sample_solutions(solver, pose, 2 * num_references, rng) for pose in poses]
    kept = [i for i, sample in enumerate(samples) if len(sample) >= 4]
    truths = {i: samples[i][::2] for i in kept}
    targets = Targets(
        np.repeat(poses, num_references, axis=0), uniform_joints(robot, len(poses) * num_references, rng).numpy()
    )

    def row(q: np.ndarray, ok: np.ndarray) -> dict[str, Any]:
        answers = {
            i: q[span][ok[span]]
            for i in kept
            if ok[span := slice(i * num_references, (i + 1) * num_references)].sum() >= 2
        }
        return {"solved": float(ok.mean()), **compare_solutions(robot, answers, truths)}

    rows = {"truth": {"solved": 1.0, **compare_solutions(robot, {i: samples[i][1::2] for i in kept}, truths)}}
    for start, q in starts(solver, targets, stored):
        if start == Seed.NETWORK.value:
            rows["network, one step"] = row(q, np.ones(len(q), dtype=bool))
        out = _solve(solver, targets.pose, q, max_attempts=1, max_iterations=ATTEMPT_REFINEMENTS)
        rows[f"{start}, refined"] = row(out.q, out.status == Status.SOLVED)
    for name, options in solves(solver):
        out = _solve(solver, *targets, **options)
        rows[name] = row(out.q, out.status == Status.SOLVED)
    return {
        "poses": len(kept),
        "references": num_references,
        "true_solutions": float(np.mean([len(truths[i]) for i in kept])) if kept else 0.0,
        "rows": rows,
    }


def sample_solutions(solver: Solver, pose: np.ndarray, n: int, rng: np.random.Generator) -> np.ndarray:
    """Draw solutions of one pose [7] as joints that are uniform within the limits and happen to reach it.

    Given the pose, such joints have the density 1 / prod(s) on the set of solutions, s the singular values of the
    Jacobian that are not zero, joints weighed as in `mmd2` (co-area formula; Diaconis, Holmes and Shahshahani 2013,
    "Sampling from a manifold"). That is sampled by rejection: solutions c_i that refinement finds from uniform joints
    are moved along the null space of the Jacobian by a vector drawn uniformly from the ball of radius _NEAR and refined
    again, which makes their density proportional to the number of c_i within _NEAR; what is accepted in proportion to
    w = 1 / (prod(s) * that number) has the density wanted. The largest w stands for its bound (Caffo, Booth and Davis
    2002, "Empirical supremum rejection sampling").

    Returns:
        Up to n solutions [rad or m], [M, J]; fewer where fewer were accepted.
    """
    robot = solver.robot

    def refine(q: torch.Tensor) -> torch.Tensor:
        poses = np.broadcast_to(pose, (len(q), 7))
        out = _solve(
            solver,
            poses,
            q,
            seed=Seed.REFERENCE,
            max_attempts=1,
            max_iterations=max(REFINEMENTS),
            tol_pos=1e-6,
            tol_rot=1e-6,
        )
        return torch.from_numpy(out.q[out.status == Status.SOLVED])

    found = refine(uniform_joints(robot, _PROPOSALS, rng))
    if len(found) == 0:
        return found.numpy()
    scale = _scale(robot)
    _, values, directions = torch.linalg.svd(robot.jacobian(found) / scale)
    rank = int((values > _RANK_FLOOR).sum(-1).max())  # less than 6 where the axes are parallel
    null = directions[:, rank:]  # [M, J - rank, J]
    ball = torch.from_numpy(rng.standard_normal(null.shape[:2]))
    radius = _NEAR * torch.from_numpy(rng.random((len(found), 1))) ** (1 / max(1, null.shape[1]))
    ball = radius * torch.nn.functional.normalize(ball, dim=-1)
    moved = found + (ball[..., None] * null).sum(-2) / scale
    moved = refine(moved[robot.within_limits(moved)])
    neighbours = (_distances(robot, moved, found) < _NEAR).sum(-1)
    moved, neighbours = moved[neighbours > 0], neighbours[neighbours > 0]
    weight = 1 / (torch.linalg.svdvals(robot.jacobian(moved) / scale)[:, :rank].prod(-1) * neighbours)
    accepted = torch.from_numpy(rng.random(len(moved))) * weight.max() < weight if len(moved) else slice(0)
    return moved[accepted][:n].numpy()


def mmd2(x: np.ndarray, y: np.ndarray, robot: Robot, bandwidth: float) -> float:
    """Estimate the squared maximum mean discrepancy of two samples of joints, [M, J] and [N, J].

    Unbiased (so it may be below 0), Gretton et al. 2012, "A kernel two-sample test", equation 3, with the kernel
    exp(-d^2 / (2 bandwidth^2)) of the joint distance d: the root of the sum of (2 sin(difference / 2))^2 over turning
    joints, 2 pi difference / range over sliding ones, so that full turns do not count.
    """
    kxx, kyy, kxy = (
        torch.exp(-(_distances(robot, torch.from_numpy(a), torch.from_numpy(b)) ** 2) / (2 * bandwidth**2)).numpy()
        for a, b in ((x, x), (y, y), (x, y))
    )
    m, n = kxy.shape
    return float((kxx.sum() - m) / (m * (m - 1)) + (kyy.sum() - n) / (n * (n - 1)) - 2 * kxy.mean())


def compare_solutions(robot: Robot, answers: dict[int, np.ndarray], truths: dict[int, np.ndarray]) -> dict[str, Any]:
    """Return the measures of diversity over the poses that have answers."""
    found = []
    for i, answer in answers.items():
        truth = torch.from_numpy(truths[i])
        among, within_truth = (_distances(robot, q, q) for q in (torch.from_numpy(answer), truth))
        median = within_truth[tuple(torch.triu_indices(len(truth), len(truth), 1))].median()
        spread = (among**2).sum().item() / (len(answer) * (len(answer) - 1))
        near = _distances(robot, truth, torch.from_numpy(answer)).amin(-1) < _NEAR
        discrepancy = mmd2(answer, truths[i], robot, max(float(median), _LEAST_BANDWIDTH))
        found.append((np.sqrt(spread), float(near.double().mean()), discrepancy))
    means = np.mean(found, axis=0).tolist() if found else (None, None, None)
    return {"poses": len(found), **dict(zip(("spread", "reached", "mmd2"), means, strict=True))}


def _distances(robot: Robot, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Return the joint distances of rows [M, J] and [N, J], [M, N]; see `mmd2`."""
    sliding, scale = torch.tensor([kind == "prismatic" for kind in robot.kinds]), _scale(robot)
    first, second = (
        torch.cat([q[:, ~sliding].cos(), q[:, ~sliding].sin(), (q * scale)[:, sliding]], -1) for q in (a, b)
    )
    return torch.cdist(first, second, compute_mode="donot_use_mm_for_euclid_dist")


def _scale(robot: Robot) -> torch.Tensor:
    """Return what weighs joints as radians, [J]: 1 for those that turn, 2 pi / range for those that slide."""
    sliding = torch.tensor([kind == "prismatic" for kind in robot.kinds])
    lower, upper = robot.limits()
    return torch.where(sliding, 2 * torch.pi / (upper - lower), 1.0)


def solves(solver: Solver) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the whole solver's rows: its defaults, and the network's answer as its first seed."""
    yield "solve()", {}
    if solver.num_parameters > 0:
        yield "solve(), network first", {"seed": Seed.NETWORK}


def _solve(solver: Solver, pose: np.ndarray, q_ref: Any, **options: Any) -> BatchResult:
    return solve_rows(solver, pose, q_ref, time_each=False, **options)


def _time(solver: Solver, pose: np.ndarray, q_ref: np.ndarray, **options: Any) -> dict[str, float]:
    """Return quantiles of the time of single solves [us], of the first rows."""
    return time_quantiles(times_us(solve_rows(solver, pose[:_TIMED_ROWS], q_ref[:_TIMED_ROWS], **options)))
