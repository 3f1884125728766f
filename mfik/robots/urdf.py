"""Links and joints of a URDF file (http://wiki.ros.org/urdf/XML), whose joint graph is checked as a whole."""

from __future__ import annotations

import math
import xml.etree.ElementTree as ET
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mfik.errors import RobotError

MOVING_TYPES = ("revolute", "continuous", "prismatic")
JOINT_TYPES = (*MOVING_TYPES, "fixed", "floating", "planar")
# Of MJCF files, which become URDF (mfik/robots/mjcf.py): on a chain they are refused, beside it they do no harm.
MJCF_TYPES = ("ball", "free", "constrained")


@dataclass(frozen=True)
class Joint:
    name: str
    type: str
    parent: str
    child: str
    xyz: tuple[float, ...]
    rpy: tuple[float, ...]
    axis: tuple[float, ...]
    element: ET.Element


def parse(path: Path) -> ET.Element:
    """Return the root element of an XML file."""
    try:
        text = path.read_bytes()
    except OSError as error:
        raise RobotError(f"{path}: cannot read the file ({error.strerror}); check the path") from None
    except ValueError as error:
        raise RobotError(f"{str(path)!r}: cannot read the file ({error}); check the path") from None
    return parse_text(path, text)


def parse_text(path: Path, text: bytes) -> ET.Element:
    """Return the root element of the text of an XML file."""
    try:
        return ET.fromstring(text)
    except ET.ParseError as error:
        line, column = error.position
        raise RobotError(f"{path}: malformed XML at line {line}, column {column} ({error}); correct it there") from None
    except (ValueError, LookupError) as error:
        raise RobotError(f"{path}: malformed XML ({error}); save the file as UTF-8") from None


def read_links(path: Path, root: ET.Element) -> list[str]:
    links: list[str] = []
    for index, element in enumerate(root.findall("link")):
        name = element.get("name")
        if not name:
            raise RobotError(f'{path}: link number {index} has no name; add name="..."')
        links.append(name)
    _check_unique(path, "link", links)
    if not links:
        raise RobotError(f"{path}: no <link> found; add the robot's links (a file with macros must end in .xacro)")
    return links


def read_joints(path: Path, root: ET.Element, links: list[str]) -> dict[str, Joint]:
    """Return the joint above each link that has one, after checking that the joints form trees."""
    elements = root.findall("joint")
    for index, element in enumerate(elements):
        if not element.get("name"):
            raise RobotError(f'{path}: joint number {index} has no name; add name="..."')
    _check_unique(path, "joint", [element.attrib["name"] for element in elements])
    parent_joint: dict[str, Joint] = {}
    known = set(links)
    for element in elements:
        joint = _read_joint(path, element, known)
        if joint.child in parent_joint:
            raise RobotError(
                f"{path}: link '{joint.child}' is the child of joints '{parent_joint[joint.child].name}' and "
                f"'{joint.name}'; a link may have one parent: remove one joint"
            )
        parent_joint[joint.child] = joint
    rooted: set[str] = set()  # links from which a way up to a root is known
    for link in links:
        seen = {link: None}  # in order
        while link in parent_joint and link not in rooted:
            link = parent_joint[link].parent
            if link in seen:
                way = list(seen)
                cycle = [*way[way.index(link) :], link]
                raise RobotError(f"{path}: links {' -> '.join(cycle[::-1])} form a cycle; remove one of its joints")
            seen[link] = None
        rooted.update(seen)
    return parent_joint


def _read_joint(path: Path, element: ET.Element, links: set[str]) -> Joint:
    name, kind = element.attrib["name"], element.get("type")
    where = f"{path}: joint '{name}'"
    if kind not in (*JOINT_TYPES, *MJCF_TYPES):
        raise RobotError(f"{where}: unknown type {kind!r}; use one of {', '.join(JOINT_TYPES)}")
    ends = []
    for tag in ("parent", "child"):
        end = element.find(tag)
        link = None if end is None else end.get("link")
        if link not in links:
            raise RobotError(f"{where}: {tag} link {link!r} does not exist; use one of {', '.join(sorted(links))}")
        ends.append(link)
    axis = read_vector(where, element, "axis", "xyz", (1.0, 0.0, 0.0))
    if kind in MOVING_TYPES:
        norm = math.hypot(*axis)
        if norm == 0.0:
            raise RobotError(f'{where}: axis is zero; give the direction it moves along, e.g. xyz="0 0 1"')
        axis = tuple(value / norm for value in axis)
    return Joint(
        name=name,
        type=kind,
        parent=ends[0],
        child=ends[1],
        xyz=read_vector(where, element, "origin", "xyz", (0.0, 0.0, 0.0)),
        rpy=read_vector(where, element, "origin", "rpy", (0.0, 0.0, 0.0)),
        axis=axis,
        element=element,
    )


def read_vector(
    where: str, element: ET.Element, tag: str, key: str, default: tuple[float, ...], size: int = 3
) -> tuple[float, ...]:
    child = element.find(tag)
    text = None if child is None else child.get(key)
    if text is None:
        return default
    words = text.split()
    if len(words) != size:
        wanted = {3: "three", 4: "four"}[size]
        raise RobotError(f'{where}: <{tag} {key}="{text}"> has {len(words)} values; give {wanted} numbers')
    return tuple(read_number(where, tag, key, word) for word in words)


def read_number(where: str, tag: str, key: str, word: str) -> float:
    try:
        value = float(word)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise RobotError(
            f"{where}: <{tag} {key}> has '{word}'; give finite numbers (a file with macros must end in .xacro)"
        )
    return value


def _check_unique(path: Path, tag: str, names: list[str]) -> None:
    for name, times in Counter(names).items():
        if times > 1:
            raise RobotError(f"{path}: {tag} '{name}' occurs {times} times; rename all but one")


def read_limits(path: Path, joint: Joint) -> tuple[float, float]:
    """Check that a moving joint can be part of a chain, and return its limits."""
    where = f"{path}: joint '{joint.name}'"
    if joint.type not in MOVING_TYPES:
        raise RobotError(f"{where}: type '{joint.type}' on the chain; choose links on one side of it, or make it fixed")
    if joint.type == "continuous":
        return -math.pi, math.pi
    limit = joint.element.find("limit")
    words = (None, None) if limit is None else (limit.get("lower"), limit.get("upper"))
    if words[0] is None or words[1] is None:
        raise RobotError(f"{where}: no <limit lower upper> (MJCF: range); add it, or make a turning joint continuous")
    lower = read_number(where, "limit", "lower", words[0])
    upper = read_number(where, "limit", "upper", words[1])
    if lower >= upper:
        raise RobotError(f"{where}: <limit> has lower {lower} >= upper {upper}; give lower < upper")
    return lower, upper


def read_velocity(path: Path, joint: Joint) -> float:
    """Return a joint's velocity bound; infinity where it is not stated, as which 0 counts."""
    limit = joint.element.find("limit")
    word = None if limit is None else limit.get("velocity")
    velocity = 0.0 if word is None else read_number(f"{path}: joint '{joint.name}'", "limit", "velocity", word)
    return velocity if velocity > 0.0 else math.inf


def origin_matrix(joint: Joint) -> np.ndarray:
    """Return T_parent_joint, [4, 4]: R = Rz(yaw) Ry(pitch) Rx(roll)."""
    (sr, sp, sy), (cr, cp, cy) = ([f(angle) for angle in joint.rpy] for f in (math.sin, math.cos))
    x, y, z = joint.xyz
    return np.array(
        [
            [cy * cp, cy * sp * sr - sy * cr, cy * sp * cr + sy * sr, x],
            [sy * cp, sy * sp * sr + cy * cr, sy * sp * cr - cy * sr, y],
            [-sp, cp * sr, cp * cr, z],
            [0.0, 0.0, 0.0, 1.0],
        ]
    )
