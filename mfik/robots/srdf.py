"""SRDF files (http://wiki.ros.org/srdf): the chains that groups mean, and pairs of links that are not checked."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable
from os import PathLike, fspath
from pathlib import Path

from mfik.errors import ArgumentError, RobotError
from mfik.robots.serial_chain import find_path, joints_above
from mfik.robots.source import Source
from mfik.robots.urdf import Joint, read_joints, read_links
from mfik.robots.xacro import expand


def read_disabled(source: Source, srdf: str | PathLike[str], links: Iterable[str]) -> set[frozenset[str]]:
    """Read the pairs of links that an SRDF file disables (`<disable_collisions link1 link2>`).

    Args:
        source: The robot's description.
        srdf: SRDF file, or .xacro file of one.
        links: Names that it may mention.
    Raises:
        ArgumentError: It cannot be read, or names an unknown link.
    """
    known, pairs = set(links), set()
    for element in _parse(source, srdf).findall("disable_collisions"):
        names = [element.get("link1"), element.get("link2")]
        for name in names:
            if name not in known:
                raise ArgumentError(
                    f"srdf: {fspath(srdf)}: <disable_collisions>: link {name!r} does not exist; "
                    f"use one of {', '.join(sorted(known))}"
                )
        pairs.add(frozenset(str(name) for name in names))
    return pairs


def group_ends(source: Source, srdf: str | PathLike[str], group: str) -> tuple[str, str]:
    """Return the first and the last link of a planning group.

    Those of its `<chain>`; or of the path that its joints form, where it lists joints, links, which stand for the
    joints above them, or other groups.

    Args:
        source: The robot's description.
        srdf: SRDF file, or .xacro file of one.
        group: The group's name.
    Raises:
        ArgumentError: The file cannot be read, has no such group, or the group is no chain of the robot.
    """
    root = _parse(source, srdf)
    groups = {element.get("name"): element for element in root.findall("group")}
    if group not in groups:
        names = ", ".join(sorted(str(name) for name in groups)) or "none: it has no <group>"
        raise ArgumentError(f"group: expected a group of {srdf}, got '{group}'; use one of {names}")
    links = read_links(source.path, source.root)
    members = _Members(Path(srdf), source.path, links, read_joints(source.path, source.root, links))
    chains = groups[group].findall("chain")
    if len(chains) == 1 and len(groups[group]) == 1:
        return members.chain_ends(group, chains[0])
    return members.ends(group, members.joints_of(group, groups, ()))


def _parse(source: Source, srdf: str | PathLike[str]) -> ET.Element:
    """Return the root element of an SRDF file; a .xacro file takes the arguments and packages of the robot's."""
    path = Path(srdf)
    try:
        root = ET.fromstring(path.read_bytes())
        if path.suffix.lower() == ".xacro":
            root = expand(path, source.xacro_args, source.package_paths, {})
    except OSError as error:
        raise ArgumentError(f"srdf: {path}: cannot read the file ({error.strerror}); check the path") from None
    except RobotError as error:  # a ValueError, too
        raise ArgumentError(f"srdf: {error}") from None
    except (ET.ParseError, ValueError, LookupError) as error:
        raise ArgumentError(f"srdf: {path}: malformed XML ({error}); correct it there") from None
    if root.tag != "robot":
        raise ArgumentError(f"srdf: {path}: expected root element <robot>, got <{root.tag}>; give an SRDF file")
    return root


class _Members:
    """The joints of groups, as links and joints of a robot."""

    def __init__(self, srdf: Path, file: Path, links: list[str], parent_joint: dict[str, Joint]) -> None:
        self._srdf, self._file, self._links, self._parent_joint = srdf, file, links, parent_joint
        self._joints = {joint.name: joint for joint in parent_joint.values()}

    def chain_ends(self, group: str, chain: ET.Element) -> tuple[str, str]:
        base, tip = (self._known(group, chain, key, self._links) for key in ("base_link", "tip_link"))
        return base, tip

    def joints_of(self, group: str, groups: dict[str | None, ET.Element], seen: tuple[str, ...]) -> list[Joint]:
        """Return the joints of a group and of the groups in it."""
        if group in seen:
            raise self._error(group, f"groups {' -> '.join([*seen, group])} contain each other; remove one")
        joints: list[Joint] = []
        for element in groups[group]:
            if element.tag == "chain":
                joints += find_path(self._file, self._parent_joint, *self.chain_ends(group, element))[1]
            elif element.tag == "joint":
                joints.append(self._joints[self._known(group, element, "name", list(self._joints))])
            elif element.tag == "link":
                link = self._known(group, element, "name", self._links)
                joints += [self._parent_joint[link]] if link in self._parent_joint else []
            elif element.tag == "group":
                names = [str(name) for name in groups]
                joints += self.joints_of(self._known(group, element, "name", names), groups, (*seen, group))
        return joints

    def ends(self, group: str, joints: list[Joint]) -> tuple[str, str]:
        """Return the ends of the path that joints form."""
        members = {joint.name for joint in joints}
        moving = [joint for joint in joints if joint.type != "fixed"]
        if not moving:
            raise self._error(group, "none of its joints moves; give another group")
        last = max(moving, key=lambda joint: len(joints_above(self._parent_joint, joint.child)))
        path = joints_above(self._parent_joint, last.child)
        for joint in moving:
            if joint not in path:
                raise self._error(
                    group, f"joints '{joint.name}' and '{last.name}' are on different branches, so it is no chain"
                )
        first = max(index for index, joint in enumerate(path) if joint.name in members)
        for joint in path[:first]:
            if joint.type != "fixed" and joint.name not in members:
                raise self._error(group, f"joint '{joint.name}' moves between its joints, but is none of them")
        tip = last.child
        while True:
            below = [joint.child for joint in joints if joint.type == "fixed" and joint.parent == tip]
            if len(set(below)) > 1:
                raise self._error(group, f"it ends in several links, {', '.join(sorted(set(below)))}")
            if not below:
                return path[first].parent, tip
            tip = below[0]

    def _known(self, group: str, element: ET.Element, key: str, names: list[str]) -> str:
        name = element.get(key)
        if name not in names:
            raise self._error(
                group, f"<{element.tag} {key}>: expected one of {', '.join(sorted(names))}, got {name!r}; correct it"
            )
        return name

    def _error(self, group: str, text: str) -> ArgumentError:
        return ArgumentError(f"group: '{group}' of {self._srdf}: {text} (or give base_link and tip_link, and no group)")
