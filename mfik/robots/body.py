"""The body of a robot from its URDF file: where links hang, collision geometry, pairs that are worth checking."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np

from mfik.collision.body import ADJACENT, DISABLED, FIXED, Body, Link, LinkPair
from mfik.collision.pairs import ALWAYS_SAMPLES, Sampler, classify
from mfik.collision.spheres import as_spheres, read_ignored
from mfik.errors import ArgumentError
from mfik.kinematics.chain import Chain
from mfik.robots.geometry import Shape, read_shapes
from mfik.robots.serial_chain import align_z, find_path
from mfik.robots.source import Source
from mfik.robots.srdf import read_disabled
from mfik.robots.urdf import MOVING_TYPES, Joint, origin_matrix, read_joints, read_links


@dataclass(frozen=True)
class Tree:
    """All links of a URDF file that hang together with a chain.

    Attributes:
        frames: The frame of the chain that each link moves with, see `mfik.collision.Link`, by name.
        transforms: T_frame_link [4, 4], by name.
        bodies: Name of the body of each link: links that fixed joints join.
        adjacent: Pairs of bodies that one moving joint joins.
        shapes: Collision elements of each link, by name.
    """

    frames: dict[str, int]
    transforms: dict[str, np.ndarray]
    bodies: dict[str, str]
    adjacent: set[frozenset[str]]
    shapes: dict[str, list[Shape]]


def read_tree(
    source: Source, base_link: str, tip_link: str, joint_positions: Mapping[str, float] | None = None
) -> Tree:
    """Read where all links of a description hang on the chain between two of them.

    Args:
        source: The description.
        base_link: First link of the chain.
        tip_link: Its last link.
        joint_positions: Values [rad or m] of joints outside the chain, by name; the others stand at 0. A fixed joint's
            has no effect. Limits are not looked at, and `<mimic>` has no meaning.
    Raises:
        ArgumentError: joint_positions names an unknown joint or one of the chain, or has a value that is not finite.
        RobotError: The file cannot be used.
    """
    path, root = source.path, source.root
    names = read_links(path, root)
    parent_joint = read_joints(path, root, names)
    up, down = find_path(path, parent_joint, base_link, tip_link)
    chain = [joint.name for joint in down if joint.type != "fixed"]
    positions = _check_positions(joint_positions or {}, list(parent_joint.values()), chain)

    joints_at: dict[str, list[Joint]] = {name: [] for name in names}
    for joint in parent_joint.values():
        joints_at[joint.parent].append(joint)
        joints_at[joint.child].append(joint)
    frames, transforms, bodies = {base_link: 0}, {base_link: np.eye(4)}, {base_link: base_link}
    adjacent: set[frozenset[str]] = set()
    links = [base_link]
    for link in links:  # which grows
        for joint in joints_at[link]:
            down_it = joint.parent == link
            other = joint.child if down_it else joint.parent
            if other in frames or joint.type == "free":  # an object, or the world of a robot that is not fixed to it
                continue
            links.append(other)
            frames[other] = frames[link]
            if joint.name in chain:
                # The joint's frame has its axis along z; see `_fold` in mfik/robots/serial_chain.py.
                frames[other] = chain.index(joint.name) + 1
                transforms[other] = align_z(joint.axis).T
            else:
                move = origin_matrix(joint) @ _motion(joint, positions.get(joint.name, 0.0))
                transforms[other] = transforms[link] @ (move if down_it else np.linalg.inv(move))
            bodies[other] = bodies[link] if joint.type == "fixed" else other
            if joint.type != "fixed":
                adjacent.add(frozenset((bodies[link], other)))
    shapes = {link: found for link, found in read_shapes(path, root).items() if link in frames}
    return Tree(frames, transforms, bodies, adjacent, shapes)


def read_body(
    source: Source,
    chain: Chain,
    limits: tuple[np.ndarray, np.ndarray],
    ends: tuple[str, str],
    joint_positions: Mapping[str, float] | None = None,
    spheres: Any = None,
    srdf: str | PathLike[str] | None = None,
) -> Body | None:
    """Read the body of a robot.

    Args:
        source: The description.
        chain: The chain that was read from it.
        limits: Lower and upper limits, [J] each.
        ends: base_link and tip_link.
        joint_positions: As of `read_tree`.
        spheres: Spheres [S, 4] by link, or the path of a YAML file with them; default the file's own.
        srdf: SRDF file whose disabled pairs are not checked.
    Returns:
        The body; None where the file has no collision geometry, or other shapes than spheres and no spheres are given.
    Raises:
        ArgumentError: An argument names what does not exist, or cannot be read.
        RobotError: The file cannot be used.
    """
    tree = read_tree(source, *ends, joint_positions)
    disabled = set(source.excluded) | (set() if srdf is None else read_disabled(source, srdf, tree.frames))
    if spheres is not None:
        by_link = as_spheres(spheres)
        if not by_link:
            raise ArgumentError(
                "spheres: expected at least one link with a sphere whose radius is above 0, got none; fit them with "
                "scripts/fit_spheres.py"
            )
        for name in sorted(by_link.keys() - tree.frames.keys()):
            raise ArgumentError(
                f"spheres: link '{name}' does not exist in {source.path}; use links of {', '.join(sorted(tree.frames))}"
            )
        if isinstance(spheres, (str, PathLike)):
            disabled |= read_ignored(spheres, tree.frames)
    else:
        shapes = [shape for shapes in tree.shapes.values() for shape in shapes]
        if any(shape.kind != "sphere" for shape in shapes):
            return None
        by_link = {
            name: np.array([[*shape.transform[:3, 3], *shape.size] for shape in shapes])
            for name, shapes in tree.shapes.items()
            if shapes
        }
    if not by_link:
        return None
    links = [
        Link(name, tree.frames[name], tree.transforms[name][:3].copy(), by_link[name])
        for name in tree.frames
        if name in by_link
    ]

    def decided(first: Link, second: Link) -> LinkPair | None:
        bodies = tree.bodies[first.name], tree.bodies[second.name]
        if first.frame == second.frame or bodies[0] == bodies[1]:
            return LinkPair(first.name, second.name, FIXED)
        if frozenset(bodies) in tree.adjacent:
            return LinkPair(first.name, second.name, ADJACENT)
        if frozenset((first.name, second.name)) in disabled:
            return LinkPair(first.name, second.name, DISABLED)
        return None

    return Body(tuple(links), classify(links, decided, Sampler(chain, *limits, ALWAYS_SAMPLES)))


def _check_positions(positions: Mapping[str, float], joints: list[Joint], chain: list[str]) -> dict[str, float]:
    if not isinstance(positions, Mapping):
        raise ArgumentError(
            f"joint_positions: expected values by the joints' names, got {type(positions).__name__}; give a dictionary"
        )
    known = {joint.name: joint for joint in joints}
    checked = {}
    for name, value in positions.items():
        if name not in known:
            raise ArgumentError(
                f"joint_positions: joint {name!r} does not exist; use joints of {', '.join(sorted(known))}"
            )
        if name in chain:
            raise ArgumentError(
                f"joint_positions: joint '{name}' is part of the chain, whose joints are arguments of every call; "
                "leave it out"
            )
        if isinstance(value, bool) or not isinstance(value, (int, float, np.floating, np.integer)):
            raise ArgumentError(f"joint_positions['{name}']: expected a number [rad or m], got {value!r:.60}")
        if not math.isfinite(value):
            raise ArgumentError(f"joint_positions['{name}']: expected a finite number [rad or m], got {value}")
        if known[name].type not in (*MOVING_TYPES, "fixed"):
            raise ArgumentError(
                f"joint_positions: joint '{name}' is {known[name].type}, which one number does not place; leave it out"
            )
        checked[name] = float(value)
    return checked


def _motion(joint: Joint, value: float) -> np.ndarray:
    """Return the motion [4, 4] of a joint at a value, about or along its axis (Rodrigues)."""
    move = np.eye(4)
    if joint.type == "prismatic":
        move[:3, 3] = value * np.array(joint.axis)
    elif joint.type in ("revolute", "continuous"):
        x, y, z = joint.axis
        cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
        move[:3, :3] += math.sin(value) * cross + (1.0 - math.cos(value)) * (cross @ cross)
    return move
