"""Pairs of joints (reference, solution) and the poses between which they solve, drawn from the robot alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

from mfik import ops
from mfik.data.dataset import IKDataset
from mfik.data.device import resolve_device
from mfik.data.free import free_check
from mfik.errors import ArgumentError
from mfik.kinematics import azimuth
from mfik.kinematics.turns import FULL_TURN, nearest_turn, turn_to_azimuth
from mfik.robots import Robot

COUPLINGS = ("local", "global", "projected", "canonical", "mixed", "seeding")
_CHUNK = 65_536  # rows drawn at once: bounds memory, and fixes the random stream of a seed
_MAX_R = 0.9  # largest r on disk: (q_target - q)/(1 - r) then keeps float32 accuracy
_PROJECTED_RETRIES = 4  # random restarts, of which the nearest solution is taken where refinement from q fails
_CANONICAL_RETRIES = 8  # the same where refinement from the home posture fails
_SEEDING_KINDS = 12  # of rows, equally many each: two are local, the others canonical; of both, half near limits
_HOME_CANDIDATES, _HOME_POSES = 96, 2000  # postures that are compared, and the poses on which they are
_HOME_REFINEMENTS = 10  # at most, in the attempt by which postures are compared
_FREE_DRAWS = 1000  # in which a target free of self-collision has to be found
_HOME_SPREAD = 0.8  # share of the range (of a full turn at most) that candidates are drawn from


def generate(
    robot: Robot,
    num_samples: int,
    *,
    coupling: str = "mixed",
    sigma: float = 0.3,
    seed: int = 0,
    device: torch.device | str = "cpu",
    collision_free: bool = False,
    progress: Callable[[int], None] | None = None,
) -> IKDataset:
    """Draw training rows: solutions uniform within the limits, references by `coupling`, times uniform.

    Args:
        robot: Robot to draw for.
        num_samples: Number of rows N.
        coupling: How the reference relates to the solution. "local": solution + N(0, sigma^2), a controller's case;
            "global": uniform and independent; "projected": uniform, and the solution is the one that refinement
            reaches from it, else the nearest of several; "mixed": one of the three for each row, at random;
            "canonical": uniform, and the solution is the same for every reference, the one that refinement reaches from
            `home_posture` turned to the target's azimuth, else the nearest to that of several; "seeding": local for a
            sixth of the rows, canonical for the others, and of both half of the poses are those of joints that are
            distributed by the arcsine law within the limits, which is densest at them: answers there are the hardest.
        sigma: Standard deviation of the local noise, [rad]; for prismatic joints a share sigma/(2 pi) of the range.
        seed: Same robot, arguments, seed and device give the same rows.
        device: Where to compute.
        collision_free: Draw solutions free of self-collision alone, by the spheres on the robot's links; on the CPU.
            References may collide.
        progress: Called with the number of rows finished since the last call.

    Returns:
        Rows in float32 on the CPU.

    Raises:
        ArgumentError: an argument is out of range.
        RobotError: Rows free of collision are asked for, and the robot has no spheres.
    """
    check_coupling(coupling, sigma)
    if num_samples < 1:
        raise ArgumentError(f"num_samples: expected at least 1, got {num_samples}")
    device = resolve_device(device)
    is_free = free_check(robot, device) if collision_free else None
    generator = torch.Generator(device=device).manual_seed(seed)
    out = {
        "q": torch.empty(num_samples, robot.dof),
        "target_pose": torch.empty(num_samples, 7),
        "q_target": torch.empty(num_samples, robot.dof),
        "r": torch.empty(num_samples, 1),
        "t": torch.empty(num_samples, 1),
    }
    for start in range(0, num_samples, _CHUNK):
        rows = slice(start, min(start + _CHUNK, num_samples))
        for name, value in draw(robot, rows.stop - rows.start, coupling, sigma, generator, is_free).items():
            out[name][rows] = value.cpu()
        if progress is not None:
            progress(rows.stop - rows.start)
    meta = {"robot": robot.to_dict(), "coupling": coupling, "sigma": sigma, "seed": seed}
    if collision_free:
        meta["collision_free"] = True
    return IKDataset(**out, meta=meta)


def nearest_equivalent(robot: Robot, q: Tensor, q_near: Tensor) -> Tensor:
    """Turn joints by full turns towards `q_near` as far as the limits allow; the pose stays.

    Args:
        robot: Robot; only joints with a range beyond a full turn (UR10: +-2 pi) or continuous ones change.
        q: Joints within the limits, [rad] or [m], [N, J].
        q_near: Joints to come near to, [N, J].

    Returns:
        Equivalent joints, [N, J].
    """
    lower, upper = robot.limits(like=q)
    free = torch.tensor([kind == "continuous" for kind in robot.kinds], device=q.device)
    linear = torch.tensor([kind == "prismatic" for kind in robot.kinds], device=q.device)
    lower, upper = lower.masked_fill(free, -math.inf), upper.masked_fill(free, math.inf)
    return torch.where(linear, q, nearest_turn(q, q_near, lower, upper))


def check_coupling(coupling: str, sigma: float) -> None:
    """Raise ArgumentError unless `generate` knows the coupling and sigma is a positive number."""
    if coupling not in COUPLINGS:
        raise ArgumentError(f"coupling: expected one of {COUPLINGS}, got {coupling!r}")
    if not (math.isfinite(sigma) and sigma > 0):
        raise ArgumentError(f"sigma: expected a positive number of radians, got {sigma}")


def draw(
    robot: Robot,
    n: int,
    coupling: str,
    sigma: float,
    generator: torch.Generator,
    is_free: Callable[[Tensor], Tensor] | None = None,
) -> dict[str, Tensor]:
    """Draw n independent rows, so that any part of them is a fair sample.

    Args:
        robot: Robot to draw for.
        n: Number of rows.
        coupling: As in `generate`.
        sigma: As in `generate`.
        generator: Random state, whose device is used.
        is_free: Which joints may be targets, see `free_check`; default all.

    Returns:
        The columns of `IKDataset`, float32.
    Raises:
        ArgumentError: No target is free.
    """
    device = generator.device
    q_target = robot.sample(n, generator)
    q = robot.sample(n, generator)
    near_limits = torch.zeros(n, dtype=torch.bool, device=device)
    if coupling == "mixed":
        kind = torch.randint(3, (n,), generator=generator, device=device)
        local, projected = kind == 0, kind == 1
    elif coupling == "seeding":
        kind = torch.randint(_SEEDING_KINDS, (n,), generator=generator, device=device)
        local, projected = kind < 2, torch.zeros_like(kind, dtype=torch.bool)
        near_limits = kind % 2 == 0
        q_target[near_limits] = _towards_limits(robot, q_target[near_limits])
    else:
        local, projected = (torch.full((n,), coupling == name, device=device) for name in ("local", "projected"))
    if is_free is not None:
        _redraw(robot, q_target, near_limits, is_free, generator)
    if coupling in ("local", "mixed", "seeding"):
        prismatic = torch.tensor([kind == "prismatic" for kind in robot.kinds])
        lower, upper = robot.limits()
        scale = torch.where(prismatic, sigma * (upper - lower) / FULL_TURN, sigma)
        near = q_target[local]
        q[local] = robot.clamp(near + torch.randn(near.shape, generator=generator, device=device) * scale.to(q))
    pose = ops.fk(robot, q_target)
    if coupling in ("projected", "mixed"):
        q_target[projected] = _project(robot, q[projected], q_target[projected], pose[projected], generator, is_free)
        pose[projected] = ops.fk(robot, q_target[projected])
    if coupling in ("canonical", "seeding"):
        q_target[~local] = _canonical(robot, q_target[~local], pose[~local], generator, is_free)
        pose[~local] = ops.fk(robot, q_target[~local])
    q_target = nearest_equivalent(robot, q_target, q)
    u = torch.rand(n, 2, generator=generator, device=device)
    r = _MAX_R * u[:, :1]
    t = r + (1 - r) * u[:, 1:]
    return {"q": q + r * (q_target - q), "target_pose": pose, "q_target": q_target, "r": r, "t": t}


def _towards_limits(robot: Robot, q: Tensor) -> Tensor:
    """Turn joints that are uniform within the limits, [N, J], into joints that follow the arcsine law there."""
    limited = torch.tensor([kind != "continuous" for kind in robot.kinds], device=q.device)
    lower, upper = (limit.to(q) for limit in robot.limits())
    midpoint, half = 0.5 * (lower + upper), 0.5 * (upper - lower)
    return torch.where(limited, midpoint + half * ((q - midpoint) / half * (0.5 * math.pi)).sin(), q)


def _redraw(
    robot: Robot,
    q: Tensor,
    near_limits: Tensor,
    is_free: Callable[[Tensor], Tensor],
    generator: torch.Generator,
) -> None:
    """Draw rows of q [N, J] that collide again, in place, those `near_limits` [N] by the arcsine law."""
    left = (~is_free(q)).nonzero().squeeze(-1)
    for _ in range(_FREE_DRAWS):
        if len(left) == 0:
            return
        drawn = robot.sample(len(left), generator)
        near = near_limits[left]
        drawn[near] = _towards_limits(robot, drawn[near])
        q[left] = drawn
        left = left[~is_free(drawn)]
    if len(left) > 0:
        raise ArgumentError(
            f"collision_free: expected joints free of self-collision among {_FREE_DRAWS:,} draws of '{robot.name}', "
            "got none; see robot.body.report() for the pairs of links, fit spheres more tightly, or name pairs in an "
            "SRDF file"
        )


def _solve(robot: Robot, q: Tensor, pose: Tensor, is_free: Callable[[Tensor], Tensor] | None) -> tuple[Tensor, Tensor]:
    """Return where refinement leads from q [N, J], and whether to a solution that may be a target, [N]."""
    found, converged, _ = ops.refine(robot, q, pose)
    return found, converged if is_free is None else converged & is_free(found)


def _project(
    robot: Robot,
    q: Tensor,
    q_known: Tensor,
    pose: Tensor,
    generator: torch.Generator,
    is_free: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Return the solution of `pose` that refinement reaches from q, else the nearest of several, [N, J]."""
    best, converged = _solve(robot, q, pose, is_free)
    failed = ~converged
    q, pose = q[failed], pose[failed]
    nearest = nearest_equivalent(robot, q_known[failed], q)
    for _ in range(_PROJECTED_RETRIES):
        candidate, found = _solve(robot, robot.sample(q.shape[0], generator), pose, is_free)
        candidate = nearest_equivalent(robot, candidate, q)
        closer = found & ((candidate - q).norm(dim=-1) < (nearest - q).norm(dim=-1))
        nearest = torch.where(closer.unsqueeze(-1), candidate, nearest)
    best[failed] = nearest.to(best)
    return best


@lru_cache(maxsize=16)
def home_posture(robot: Robot) -> Tensor:
    """Find the posture from which one attempt solves most reachable poses, turned to each target's azimuth.

    The best of the midpoint of the limits and of random postures around it, on the same random poses; always the same
    for a robot.

    Returns:
        Joints [rad or m], [J], float64.
    """
    generator = torch.Generator().manual_seed(0)
    pose = ops.fk(robot, robot.sample(_HOME_POSES, generator))
    lower, upper = robot.limits()
    midpoint = 0.5 * (lower + upper)
    reach = _HOME_SPREAD * (0.5 * (upper - lower)).clamp(max=math.pi)
    candidates = midpoint + reach * (2 * torch.rand(_HOME_CANDIDATES, robot.dof, generator=generator).double() - 1)
    candidates[0] = midpoint
    if robot.kinds[0] != "prismatic":
        candidates[:, 0] = midpoint[0]  # it is turned anyway

    def solved(home: Tensor) -> int:
        _, converged, _ = ops.refine(robot, _turned(robot, home, pose), pose, max_iterations=_HOME_REFINEMENTS)
        return int(converged.sum())

    return max(candidates, key=solved)


def _turned(robot: Robot, home: Tensor, pose: Tensor) -> Tensor:
    """Return a posture [J] with the first joint turned to the azimuth of each pose [N, 7], [N, J]."""
    q = home.to(pose).repeat(len(pose), 1)
    if robot.kinds[0] != "prismatic":
        base = robot.chain.transforms(like=pose)[0]
        turn_to_azimuth(q, azimuth(base, robot.fk(home)[:3].to(pose)), base, pose[:, :3])
    return robot.clamp(q)


def _canonical(
    robot: Robot,
    q_known: Tensor,
    pose: Tensor,
    generator: torch.Generator,
    is_free: Callable[[Tensor], Tensor] | None = None,
) -> Tensor:
    """Return one solution for each pose [N, 7], of which q_known [N, J] is another, [N, J]."""
    home = _turned(robot, home_posture(robot), pose)
    best, converged = _solve(robot, home, pose, is_free)
    failed = ~converged
    home, pose = home[failed], pose[failed]
    lower, upper = robot.limits()
    weight = 1 / (upper - lower).clamp(max=FULL_TURN).to(home)
    nearest = nearest_equivalent(robot, q_known[failed], home)
    for _ in range(_CANONICAL_RETRIES):
        candidate, found = _solve(robot, robot.sample(len(pose), generator), pose, is_free)
        candidate = nearest_equivalent(robot, candidate, home)
        closer = found & (((candidate - home) * weight).norm(dim=-1) < ((nearest - home) * weight).norm(dim=-1))
        nearest = torch.where(closer.unsqueeze(-1), candidate, nearest)
    best[failed] = nearest.to(best)
    return best
