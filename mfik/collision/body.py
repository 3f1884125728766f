"""A robot's body: spheres on its links, and the pairs of links that are checked against each other."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mfik.errors import ArgumentError, RobotError
from mfik.kinematics.chain import read_only

CHECKED = "checked"
# Why a pair of links is not checked.
FIXED = "fixed"  # they do not move against each other: joined by fixed joints, or by joints held outside the chain
ADJACENT = "adjacent"  # the bodies that they belong to are joined by one moving joint
ALWAYS = "always"  # in contact in at least ALWAYS_SHARE of sampled configurations
NEVER = "never"  # clear of each other by a margin in all of many sampled configurations: an optimisation
DISABLED = "disabled"  # an SRDF file, the file of the spheres, or whoever attached the object, says so
REASONS = (CHECKED, FIXED, ADJACENT, ALWAYS, NEVER, DISABLED)

MAX_LINKS = 128  # of a body
MAX_SPHERES = 2048  # of a body


@dataclass(frozen=True, eq=False)
class Link:
    """Spheres that move together.

    Args:
        name: The link's name, or an attached object's.
        frame: What it moves with: 0 the base, j the j-th joint of the chain (from 1).
        transform: T_frame_link [R | p] ([m]) from the link to that frame, the joint's moved one, in the chain's normal
            form (`Chain`); [3, 4], float64.
        spheres: Centre in the link's frame and radius of each [m], [S, 4], float64, S >= 1.
    Raises:
        RobotError: A value is not finite, or a radius is not above 0.
    """

    name: str
    frame: int
    transform: np.ndarray
    spheres: np.ndarray

    def __post_init__(self) -> None:
        where = f"link '{self.name}'"
        transform = read_only(f"{where}: transform", self.transform, (3, 4), "[R | p]")
        rotation = transform[:, :3]
        defect = np.abs(rotation.T @ rotation - np.eye(3)).max()
        if not (defect <= 1e-9 and np.linalg.det(rotation) > 0 and np.isfinite(transform).all()):
            raise RobotError(f"{where}: transform: expected a rigid transform [R | p], got {transform.tolist()}")
        object.__setattr__(self, "transform", transform)
        object.__setattr__(self, "spheres", check_spheres(where, self.spheres))


@dataclass(frozen=True)
class LinkPair:
    """Two links, and whether they are checked against each other.

    Attributes:
        first: Name of a link.
        second: Name of another.
        reason: "checked", or why not: "fixed", "adjacent", "always", "never" or "disabled".
        contacts: Sampled configurations in which their spheres touch; 0 where none were sampled.
        samples: Number of sampled configurations.
    """

    first: str
    second: str
    reason: str
    contacts: int = 0
    samples: int = 0

    def __str__(self) -> str:
        seen = f" (in contact in {self.contacts:,} of {self.samples:,} samples)" if self.samples else ""
        return f"{self.first}, {self.second}: {self.reason}{seen}"


@dataclass(frozen=True, eq=False)
class Body:
    """Spheres on a robot's links, and the pairs of links with what became of them.

    Args:
        links: Links that have spheres, each name once.
        pairs: Every pair of them once.
    Raises:
        RobotError: A name occurs twice, a pair is missing, or there are too many spheres.
    """

    links: tuple[Link, ...]
    pairs: tuple[LinkPair, ...]

    def __post_init__(self) -> None:
        names = [link.name for link in self.links]
        if not names or len(set(names)) != len(names):
            raise RobotError(f"links: expected at least one, each name once, got {names}; rename all but one")
        if len(names) > MAX_LINKS:
            raise RobotError(f"links: expected at most {MAX_LINKS} with spheres, got {len(names)}; leave some out")
        if self.num_spheres > MAX_SPHERES:
            raise RobotError(
                f"links: expected at most {MAX_SPHERES} spheres, got {self.num_spheres}; fit fewer (--excess)"
            )
        wanted = {frozenset((a, b)) for i, a in enumerate(names) for b in names[:i]}
        given = [frozenset((pair.first, pair.second)) for pair in self.pairs]
        if len(given) != len(set(given)) or set(given) != wanted:
            odd = sorted(sorted(pair) for pair in wanted.symmetric_difference(given))
            raise RobotError(f"pairs: expected every pair of the links once, got others: {odd or 'a pair twice'}")
        for pair in self.pairs:
            if pair.reason not in REASONS:
                raise RobotError(f"pairs: expected a reason of {REASONS}, got {pair.reason!r}")

    @property
    def num_spheres(self) -> int:
        """Number of spheres."""
        return sum(len(link.spheres) for link in self.links)

    @property
    def num_sphere_pairs(self) -> int:
        """Number of pairs of spheres that belong to pairs of links that are checked."""
        count = {link.name: len(link.spheres) for link in self.links}
        return sum(count[pair.first] * count[pair.second] for pair in self.pairs if pair.reason == CHECKED)

    def report(self) -> str:
        """Return one line for each pair of links, grouped by what became of it."""
        lines = [f"{len(self.links)} links, {self.num_spheres} spheres, {self.num_sphere_pairs} pairs of them checked"]
        for reason in REASONS:
            lines += [f"  {pair}" for pair in self.pairs if pair.reason == reason]
        return "\n".join(lines)

    def to_dict(self) -> dict[str, Any]:
        """Return the document that a bundle carries; exact through JSON."""
        return {
            "links": [
                {
                    "name": link.name,
                    "frame": link.frame,
                    "transform": link.transform.reshape(-1).tolist(),
                    "spheres": link.spheres.tolist(),
                }
                for link in self.links
            ],
            "pairs": [[pair.first, pair.second, pair.reason, pair.contacts, pair.samples] for pair in self.pairs],
        }

    @classmethod
    def from_dict(cls, document: Mapping[str, Any]) -> Body:
        """Rebuild the body that `to_dict` described.

        Raises:
            RobotError: A key is missing, or a value has the wrong type, size or range.
        """
        try:
            links = []
            for entry in document["links"]:
                _expect_types([entry["name"]], str)
                _expect_types([entry["frame"]], int)
                _expect_types(entry["transform"], int, float)
                for row in entry["spheres"]:
                    _expect_types(row, int, float)
                transform = np.array(entry["transform"], dtype=np.float64)
                spheres = np.array(entry["spheres"], dtype=np.float64)
                if transform.shape != (12,):
                    raise RobotError(f"body: link '{entry['name']}': expected 12 numbers of transform")
                links.append(Link(entry["name"], entry["frame"], transform.reshape(3, 4), spheres))
            pairs = []
            for row in document["pairs"]:
                first, second, reason, contacts, samples = row
                _expect_types([first, second, reason], str)
                _expect_types([contacts, samples], int)
                pairs.append(LinkPair(first, second, reason, contacts, samples))
        except KeyError as error:
            raise RobotError(f"body: expected key {error}, found none; write it with Body.to_dict") from None
        except (TypeError, ValueError, OverflowError) as error:
            if isinstance(error, RobotError):
                raise
            raise RobotError(f"body: expected the types of Body.to_dict, got {error}; write it anew") from None
        return cls(tuple(links), tuple(pairs))


def check_spheres(where: str, spheres: ArrayLike) -> np.ndarray:
    """Return spheres as a read-only float64 array [S, 4]; raise RobotError for anything else."""
    try:
        array = np.array(spheres, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise RobotError(f"{where}: spheres: expected numbers [S, 4] (centre, radius), got {error}") from None
    if array.ndim != 2 or array.shape[1] != 4 or len(array) == 0:
        raise RobotError(f"{where}: spheres: expected [S, 4] (centre, radius), S >= 1, got {list(array.shape)}")
    bad = np.flatnonzero(~(np.isfinite(array).all(-1) & (array[:, 3] > 0)))
    if len(bad):
        raise RobotError(
            f"{where}: spheres[{bad[0]}]: expected a finite centre and radius > 0 [m], got {array[bad[0]].tolist()}; "
            "correct or remove it"
        )
    array.flags.writeable = False
    return array


def names_of(argument: str, names: Iterable[str], known: Iterable[str]) -> set[str]:
    """Return names after checking that they are known links; raise ArgumentError for any other."""
    listed = [names] if isinstance(names, str) else list(names)
    for name in listed:
        if not isinstance(name, str):
            raise ArgumentError(
                f"{argument}: expected names of links, got {name!r:.60}; use {', '.join(sorted(known))}"
            )
    given = set(listed)
    for name in sorted(given - set(known)):
        raise ArgumentError(f"{argument}: link '{name}' does not exist; use one of {', '.join(sorted(known))}")
    return given


def _expect_types(values: Iterable[Any], *types: type) -> None:
    """Refuse what NumPy would take for a number though it is none, such as True and "1"."""
    for value in values:
        if type(value) not in types:
            raise RobotError(
                f"body: expected {' or '.join(kind.__name__ for kind in types)}, got {value!r:.60}; write it anew"
            )
