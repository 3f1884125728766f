"""Which pairs of links are worth checking, by sampled configurations."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mfik.collision.body import ALWAYS, CHECKED, NEVER, Link, LinkPair
from mfik.kinematics.chain import Chain

ALWAYS_SHARE = 0.95  # of sampled configurations: a pair in contact in so many cannot be kept apart by solving
ALWAYS_SAMPLES = 1000  # taken when a robot is loaded: the share is known to 0.7 % (one standard deviation)
FIRST_SAMPLES = 100  # of these; pairs in contact in fewer than FIRST_SHARE of them are decided
FIRST_SHARE = 0.8  # 7 standard deviations below ALWAYS_SHARE
NEVER_SAMPLES = 100_000  # at least, without contact: rare ones are real (Panda: links 5 and 7 in 6 of 20,000)
NEVER_MARGIN_M = 0.05  # clearance that a "never" pair keeps in all of them; margins asked of a solver stay below it
_CHUNK = 4096  # configurations computed at a time
_SEED = 0


def frame_transforms(chain: Chain, q: np.ndarray) -> np.ndarray:
    """Compute the moved frame of every joint.

    Args:
        chain: The chain.
        q: Joints [rad or m], [N, J].
    Returns:
        T_base_frame [R | p] ([m]): of the base (the identity), then of each joint after its motion, [N, J+1, 3, 4].
    """
    out = np.zeros((len(q), chain.dof + 1, 3, 4))
    out[:, 0, :, :3] = np.eye(3)
    rotation, point = out[:, 0, :, :3], out[:, 0, :, 3]
    for j, kind in enumerate(chain.kinds):
        origin = chain.origins[j]
        point = point + rotation @ origin[:, 3]
        rotation = rotation @ origin[:, :3]
        if kind == "prismatic":
            point = point + q[:, j, None] * rotation[..., 2]
        else:
            cos, sin = np.cos(q[:, j])[:, None], np.sin(q[:, j])[:, None]
            x, y = rotation[..., 0], rotation[..., 1]
            rotation = np.stack([cos * x + sin * y, cos * y - sin * x, rotation[..., 2]], axis=-1)
        out[:, j + 1, :, :3], out[:, j + 1, :, 3] = rotation, point
    return out


def sphere_centers(link: Link, frames: np.ndarray) -> np.ndarray:
    """Compute where a link's spheres are.

    Args:
        link: The link.
        frames: As of `frame_transforms`, [N, J+1, 3, 4].
    Returns:
        Centres in the base frame [m], [N, S, 3].
    """
    local = link.spheres[:, :3] @ link.transform[:, :3].T + link.transform[:, 3]
    frame = frames[:, link.frame]
    return local @ np.swapaxes(frame[..., :3], -1, -2) + frame[:, None, :, 3]


class Sampler:
    """Clearance of pairs of links in random configurations, drawn uniformly within the limits."""

    def __init__(self, chain: Chain, lower: np.ndarray, upper: np.ndarray, samples: int) -> None:
        self._chain, self._lower, self._upper = chain, lower, upper
        self.samples = samples

    def count(self, pairs: Sequence[tuple[Link, Link]], margin_m: float, samples: int) -> tuple[np.ndarray, np.ndarray]:
        """Count configurations.

        Args:
            pairs: Links to compare.
            margin_m: Distance that counts as near [m].
            samples: Number of configurations, the first of a sequence that is always the same.
        Returns:
            Number in contact and number nearer than the margin, of each pair, [P] each.
        """
        rng = np.random.default_rng(_SEED)
        links = {link.name: link for pair in pairs for link in pair}
        touching, near = np.zeros(len(pairs), int), np.zeros(len(pairs), int)
        for begin in range(0, samples, _CHUNK):
            rows = min(_CHUNK, samples - begin)
            q = self._lower + (self._upper - self._lower) * rng.random((rows, self._chain.dof))
            frames = frame_transforms(self._chain, q)
            centers = {name: sphere_centers(link, frames) for name, link in links.items()}
            middle = {name: 0.5 * (c.min(1) + c.max(1)) for name, c in centers.items()}
            reach = {
                name: (np.linalg.norm(c - middle[name][:, None], axis=-1) + links[name].spheres[:, 3]).max(-1)
                for name, c in centers.items()
            }
            for index, (a, b) in enumerate(pairs):
                apart = np.linalg.norm(middle[a.name] - middle[b.name], axis=-1) - reach[a.name] - reach[b.name]
                close = np.flatnonzero(apart <= margin_m)
                first, second = centers[a.name][close], centers[b.name][close]
                square = (first**2).sum(-1)[:, :, None] + (second**2).sum(-1)[:, None]
                square -= 2.0 * (first @ np.swapaxes(second, 1, 2))
                distance = np.sqrt(np.maximum(square, 0.0)) - a.spheres[:, None, 3] - b.spheres[:, 3]
                clearance = distance.min((1, 2), initial=np.inf)
                touching[index] += int((clearance <= 0).sum())
                near[index] += int((clearance <= margin_m).sum())
        return touching, near


def classify(
    links: Sequence[Link], decided: Callable[[Link, Link], LinkPair | None], sampler: Sampler
) -> tuple[LinkPair, ...]:
    """Decide for every pair of links whether it is checked.

    Args:
        links: Links that have spheres.
        decided: What is known of two links without samples, or None.
        sampler: Random configurations for the others. Of at least NEVER_SAMPLES, pairs that stay clear by
            NEVER_MARGIN_M in all are "never" in contact; fewer tell "always" only.
    """
    couples = [(first, second) for i, second in enumerate(links) for first in links[:i]]
    known = [decided(first, second) for first, second in couples]
    unknown = [couple for couple, pair in zip(couples, known, strict=True) if pair is None]
    many = sampler.samples >= NEVER_SAMPLES
    margin = NEVER_MARGIN_M if many else 0.0
    samples = np.full(len(unknown), sampler.samples)
    touching, near = np.zeros((2, len(unknown)), int)
    rest = np.ones(len(unknown), bool)
    if FIRST_SAMPLES < sampler.samples < NEVER_SAMPLES:
        touching, near = sampler.count(unknown, margin, FIRST_SAMPLES)
        rest = touching >= FIRST_SHARE * FIRST_SAMPLES
        samples[~rest] = FIRST_SAMPLES
    open_pairs = [couple for couple, more in zip(unknown, rest.tolist(), strict=True) if more]
    touching[rest], near[rest] = sampler.count(open_pairs, margin, sampler.samples)
    sampled = []
    for index, (first, second) in enumerate(unknown):
        reason = NEVER if many and near[index] == 0 else CHECKED
        if touching[index] >= ALWAYS_SHARE * samples[index]:
            reason = ALWAYS
        sampled.append(LinkPair(first.name, second.name, reason, int(touching[index]), int(samples[index])))
    remaining = iter(sampled)
    return tuple(next(remaining) if pair is None else pair for pair in known)
