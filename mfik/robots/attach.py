"""What is done to a robot's body: objects attached and detached, pairs of links sampled."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import ArrayLike

from mfik.collision.body import ADJACENT, DISABLED, FIXED, Body, Link, LinkPair, check_spheres, names_of
from mfik.collision.pairs import ALWAYS_SAMPLES, Sampler, classify
from mfik.collision.poses import as_transform
from mfik.errors import ArgumentError, RobotError

if TYPE_CHECKING:
    from mfik.robots.robot import Robot

MAX_SAMPLES = 10_000_000


def attached(robot: Robot, name: str, spheres: ArrayLike, link: str, pose: ArrayLike, touching: Sequence[str]) -> Body:
    """Return the body of a robot with an object on a link; see `Robot.attach`."""
    body = robot.body
    known = {} if body is None else {held.name: held for held in body.links}
    if not isinstance(name, str) or not name or name in known:
        raise ArgumentError(f"name: expected a name that no link of the body has, got {name!r:.60}; choose another")
    places = {robot.base_link: (0, np.eye(4)), robot.tip_link: (robot.dof, _square(robot.chain.origins[-1]))}
    places |= {held.name: (held.frame, _square(held.transform)) for held in known.values()}
    names_of("link", [link], places)
    allowed = names_of("touching", touching, known)
    frame, transform = places[link]
    try:
        held = check_spheres(f"object '{name}'", spheres)
    except RobotError as error:
        raise ArgumentError(f"spheres: {error}") from None
    new = Link(name, frame, (transform @ as_transform("pose", pose))[:3], held)
    old = {} if body is None else {frozenset((pair.first, pair.second)): pair for pair in body.pairs}

    def decided(first: Link, second: Link) -> LinkPair | None:
        if second is not new:
            return old[frozenset((first.name, second.name))]
        if first.frame == frame:
            return LinkPair(first.name, name, FIXED)
        return LinkPair(first.name, name, DISABLED) if first.name in allowed else None

    links = (*known.values(), new)
    return Body(links, classify(links, decided, Sampler(robot.chain, robot.lower, robot.upper, ALWAYS_SAMPLES)))


def detached(body: Body | None, name: str) -> Body | None:
    """Return a body without a link's spheres or an object's; see `Robot.detach`."""
    names_of("name", [name], [] if body is None else [link.name for link in body.links])
    assert body is not None
    links = tuple(link for link in body.links if link.name != name)
    return Body(links, tuple(pair for pair in body.pairs if name not in (pair.first, pair.second))) if links else None


def resampled(robot: Robot, samples: int) -> Body:
    """Return the body of a robot with its pairs decided anew; see `Robot.sample_pairs`."""
    if robot.body is None:
        raise ArgumentError(
            f"robot: '{robot.name}' has no spheres; fit them with scripts/fit_spheres.py and load it with spheres=..."
        )
    if isinstance(samples, bool) or not isinstance(samples, int) or not 1 <= samples <= MAX_SAMPLES:
        raise ArgumentError(f"samples: expected an integer from 1 to {MAX_SAMPLES:,}, got {samples!r:.60}")
    old = {frozenset((pair.first, pair.second)): pair for pair in robot.body.pairs}

    def decided(first: Link, second: Link) -> LinkPair | None:
        pair = old[frozenset((first.name, second.name))]
        return pair if pair.reason in (FIXED, ADJACENT, DISABLED) else None

    links = robot.body.links
    return Body(links, classify(links, decided, Sampler(robot.chain, robot.lower, robot.upper, samples)))


def _square(transform: np.ndarray) -> np.ndarray:
    return np.vstack([transform, [0.0, 0.0, 0.0, 1.0]])
