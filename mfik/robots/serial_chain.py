"""Serial chains from URDF files: the joints between two links, folded into those that move."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mfik.errors import RobotError
from mfik.kinematics.chain import MAX_JOINTS
from mfik.robots.source import Source
from mfik.robots.urdf import (
    MOVING_TYPES,
    Joint,
    origin_matrix,
    read_joints,
    read_limits,
    read_links,
    read_number,
    read_velocity,
)


@dataclass(frozen=True)
class Description:
    """A serial chain as a URDF file describes it; see `Robot` and `Chain` for the meaning of the fields.

    Attributes:
        origins: [F+1, 3, 4].
        limits: Lower and upper, [J, 2].
        velocity: Bounds, infinite where the file has none, [J].
    """

    name: str
    base_link: str
    tip_link: str
    joint_names: tuple[str, ...]
    kinds: tuple[str, ...]
    mimics: tuple[tuple[int, float] | None, ...]
    origins: np.ndarray
    limits: np.ndarray
    velocity: np.ndarray


def read_chain(source: Source, base_link: str | None = None, tip_link: str | None = None) -> Description:
    """Read the serial chain between two links of a robot's description.

    Arguments and errors are those of `Robot.from_urdf`.
    """
    path, root = source.path, source.root
    links = read_links(path, root)
    parent_joint = read_joints(path, root, links)
    base_link = _find_base(path, links, parent_joint, base_link)
    tip_link = _find_tip(path, links, parent_joint, base_link, tip_link)
    up, down = find_path(path, parent_joint, base_link, tip_link)
    name = root.get("name") or path.stem
    joints = {joint.name: joint for joint in parent_joint.values()}
    return _fold(path, name, base_link, tip_link, up, down, joints)


def _find_base(path: Path, links: list[str], parent_joint: dict[str, Joint], base_link: str | None) -> str:
    if base_link is not None:
        _check_link(path, "base_link", links, base_link)
        return base_link
    roots = [link for link in links if link not in parent_joint]
    if len(roots) != 1:
        raise RobotError(
            f"{path}: expected one link without a parent, got {len(roots)}: {', '.join(roots)}; "
            "join them or give base_link"
        )
    return roots[0]


def _find_tip(
    path: Path, links: list[str], parent_joint: dict[str, Joint], base_link: str, tip_link: str | None
) -> str:
    if tip_link is not None:
        _check_link(path, "tip_link", links, tip_link)
        return tip_link
    parents = {joint.parent for joint in parent_joint.values()}
    leaves = [link for link in _links_below(parent_joint, base_link) if link not in parents]
    if len(leaves) != 1:
        raise RobotError(
            f"{path}: expected one last link below '{base_link}', got {len(leaves)}: {', '.join(leaves)}; give tip_link"
        )
    return leaves[0]


def _check_link(path: Path, argument: str, links: list[str], link: str) -> None:
    if link not in links:
        raise RobotError(f"{path}: {argument} '{link}' does not exist; use one of {', '.join(sorted(links))}")


def _links_below(parent_joint: dict[str, Joint], base_link: str) -> list[str]:
    children: dict[str, list[str]] = {}
    for link, joint in parent_joint.items():
        children.setdefault(joint.parent, []).append(link)
    below = list(children.get(base_link, ()))
    for link in below:  # which grows
        below += children.get(link, ())
    return sorted(below)


def joints_above(parent_joint: dict[str, Joint], link: str) -> list[Joint]:
    """Return the joints from a link up to its root, nearest first."""
    joints = []
    while link in parent_joint:
        joints.append(parent_joint[link])
        link = parent_joint[link].parent
    return joints


def find_path(
    path: Path, parent_joint: dict[str, Joint], base_link: str, tip_link: str
) -> tuple[list[Joint], list[Joint]]:
    """Return the fixed joints to climb from the base, and those to descend to the tip, in order of travel."""
    above_tip = joints_above(parent_joint, tip_link)
    meeting_links = {link: place for place, link in enumerate([tip_link, *(joint.parent for joint in above_tip)])}
    up: list[Joint] = []
    link = base_link
    while link not in meeting_links:
        joint = parent_joint.get(link)
        if joint is None or joint.type != "fixed":
            below = ", ".join(_links_below(parent_joint, base_link)) or "none"
            raise RobotError(
                f"{path}: tip_link '{tip_link}' is not below base_link '{base_link}'; "
                f"use one of the links below it ({below}), or another base_link"
            )
        up.append(joint)
        link = joint.parent
    return up, above_tip[: meeting_links[link]][::-1]


def _fold(
    path: Path,
    name: str,
    base_link: str,
    tip_link: str,
    up: list[Joint],
    down: list[Joint],
    joints: dict[str, Joint],
) -> Description:
    """Fold axes, fixed joints and the offsets of mimic joints into z-aligned origins.

    With A_j any rotation that takes z to the axis, R(axis_j, q) = A_j R(z, q) A_j^T: A_j joins the origin before
    joint j, A_j^T the one after it. A translation along the axis folds in the same way, and so does an offset, as
    R(z, m q + o) = R(z, o) R(z, m q).
    """
    origins: list[np.ndarray] = []
    kinds: list[str] = []
    chain = _ChainJoints(path)
    pending = np.eye(4)
    for joint in up:
        pending = pending @ np.linalg.inv(origin_matrix(joint))
    for joint in down:
        pending = pending @ origin_matrix(joint)
        if joint.type == "fixed":
            continue
        offset = chain.add(joint, joints)
        kinds.append(joint.type)
        align = align_z(joint.axis)
        origins.append((pending @ align @ _motion_z(joint.type, offset))[:3])
        pending = align.T
    if not kinds:
        raise RobotError(f"{path}: no moving joint from '{base_link}' to '{tip_link}'; choose links further apart")
    if len(kinds) > MAX_JOINTS:
        raise RobotError(
            f"{path}: {len(kinds)} moving joints from '{base_link}' to '{tip_link}', at most {MAX_JOINTS} are "
            "supported; choose links closer together"
        )
    return Description(
        name,
        base_link,
        tip_link,
        tuple(chain.names),
        tuple(kinds),
        tuple(chain.mimics) if any(chain.mimics) else (),
        np.stack([*origins, pending[:3]]),
        np.array(chain.limits),
        np.array(chain.velocity),
    )


class _ChainJoints:
    """The joints of a chain, and the mimic joints that follow them.

    A mimic joint may follow a joint that is not on the chain. The first of those that follow it then is a joint of the
    chain, within the limits of both, and the others follow that one.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.names: list[str] = []
        self.limits: list[tuple[float, float]] = []
        self.velocity: list[float] = []
        self.mimics: list[tuple[int, float] | None] = []
        self._leaders: dict[str, tuple[int, float, float]] = {}  # joint, and what its value is of the leader's
        self._endless: set[int] = set()

    def add(self, joint: Joint, joints: dict[str, Joint]) -> float:
        """Take the next moving joint of the chain; return the offset of its motion from multiplier times its joint."""
        leader, multiplier, offset = _follow_mimics(self._path, joint, joints)
        limits, velocity = read_limits(self._path, joint), read_velocity(self._path, joint)
        if leader.name not in self._leaders:
            if leader is not joint:
                own = sorted(multiplier * limit + offset for limit in read_limits(self._path, leader))
                limits = self._common(joint, limits, (own[0], own[1]), {joint.type, leader.type})
                velocity = min(velocity, abs(multiplier) * read_velocity(self._path, leader))
            number = len(self.names)
            self._leaders[leader.name] = (number, multiplier, offset)
            if joint.type == "continuous":
                self._endless.add(number)
            self.names.append(joint.name)
            self.limits.append(limits)
            self.velocity.append(velocity)
            self.mimics.append(None)
            return 0.0
        # q = m leader + o, and the joint of the chain q_0 = m_0 leader + o_0: q = m / m_0 (q_0 - o_0) + o.
        number, first_multiplier, first_offset = self._leaders[leader.name]
        ratio = multiplier / first_multiplier
        offset -= ratio * first_offset
        if number in self._endless:
            raise RobotError(
                f"{self._path}: joint '{joint.name}': <mimic> of '{self.names[number]}', which is continuous; give "
                "that joint limits, as its turns are not all the same posture"
            )
        if joint.type != "continuous":
            own = sorted((limit - offset) / ratio for limit in limits)
            self.limits[number] = self._common(joint, self.limits[number], (own[0], own[1]), set())
        self.velocity[number] = min(self.velocity[number], velocity / abs(ratio))
        self.mimics.append((number, ratio))
        return offset

    def _common(
        self, joint: Joint, limits: tuple[float, float], others: tuple[float, float], kinds: set[str]
    ) -> tuple[float, float]:
        """Return the limits within two ranges; those of continuous joints say nothing."""
        if "continuous" in kinds:
            raise RobotError(
                f"{self._path}: joint '{joint.name}': <mimic> of or by a continuous joint; give both joints limits"
            )
        lower, upper = max(limits[0], others[0]), min(limits[1], others[1])
        if lower >= upper:
            raise RobotError(
                f"{self._path}: joint '{joint.name}': <mimic> leaves no motion within the limits of both joints, "
                f"[{limits[0]:g}, {limits[1]:g}] and [{others[0]:g}, {others[1]:g}]; correct multiplier, offset or "
                "limits"
            )
        return lower, upper


def _follow_mimics(path: Path, joint: Joint, joints: dict[str, Joint]) -> tuple[Joint, float, float]:
    """Return the joint that a joint follows in the end, itself if none, with the multiplier and the offset."""
    multiplier, offset, seen = 1.0, 0.0, [joint.name]
    while (mimic := joint.element.find("mimic")) is not None:
        where = f"{path}: joint '{joint.name}'"
        name = mimic.get("joint")
        if name not in joints:
            raise RobotError(f"{where}: <mimic> of joint {name!r}, which does not exist; correct its name")
        m = read_number(where, "mimic", "multiplier", mimic.get("multiplier") or "1")
        o = read_number(where, "mimic", "offset", mimic.get("offset") or "0")
        if m == 0.0:
            raise RobotError(f"{where}: <mimic> has multiplier 0; make the joint fixed, or give another")
        if joints[name].type not in MOVING_TYPES:
            raise RobotError(
                f"{where}: <mimic> of joint '{name}', whose type is '{joints[name].type}'; name a joint that moves"
            )
        multiplier, offset, joint = multiplier * m, offset + multiplier * o, joints[name]
        if name in seen:
            raise RobotError(f"{where}: joints {' -> '.join([*seen, name])} follow each other; remove one <mimic>")
        seen.append(name)
    return joint, multiplier, offset


def _motion_z(kind: str, q: float) -> np.ndarray:
    """Return the motion of a joint about or along z, [4, 4]."""
    motion = np.eye(4)
    if kind == "prismatic":
        motion[2, 3] = q
    else:
        motion[:2, :2] = [[math.cos(q), -math.sin(q)], [math.sin(q), math.cos(q)]]
    return motion


def align_z(axis: tuple[float, ...]) -> np.ndarray:
    """Return a rotation [4, 4] that takes z to a unit axis; the identity for z itself."""
    z = np.array(axis)
    helper = np.zeros(3)
    helper[np.abs(z).argmin()] = 1.0
    y = np.cross(z, helper)
    y = y / np.linalg.norm(y)
    matrix = np.eye(4)
    matrix[:3, :3] = np.stack([np.cross(y, z), y, z], axis=-1)
    return matrix
