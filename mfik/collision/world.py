"""The world around a robot: shapes in its base frame."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields, replace
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from mfik.collision.poses import as_pose
from mfik.collision.spheres import parse
from mfik.errors import ArgumentError
from mfik.native import load_native

_IDENTITY = (0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Sphere:
    """A ball about the origin of its frame.

    Args:
        radius: [m], > 0.
        pose: T_base_shape [x, y, z, qw, qx, qy, qz], [m], unit quaternion, [7].
        name: For messages and `World.set_pose`; default its place in the world, such as "sphere_0".
    """

    radius: float
    pose: ArrayLike = _IDENTITY
    name: str = ""


@dataclass(frozen=True)
class Box:
    """A box with edges along the axes of its frame, about the origin.

    Args:
        size: Lengths of the edges along x, y and z [m], > 0, [3].
        pose: As of `Sphere`.
        name: As of `Sphere`.
    """

    size: ArrayLike
    pose: ArrayLike = _IDENTITY
    name: str = ""


@dataclass(frozen=True)
class Cylinder:
    """A cylinder about the z axis of its frame, from -length / 2 to length / 2.

    Args:
        radius: [m], > 0.
        length: [m], > 0.
        pose: As of `Sphere`.
        name: As of `Sphere`.
    """

    radius: float
    length: float
    pose: ArrayLike = _IDENTITY
    name: str = ""


@dataclass(frozen=True)
class Capsule:
    """A capsule about the z axis of its frame.

    Args:
        radius: [m], > 0.
        length: Distance between the centres of its ends [m], > 0.
        pose: As of `Sphere`.
        name: As of `Sphere`.
    """

    radius: float
    length: float
    pose: ArrayLike = _IDENTITY
    name: str = ""


@dataclass(frozen=True)
class HalfSpace:
    """All below the plane z = 0 of its frame: a floor, a wall.

    Args:
        pose: As of `Sphere`.
        name: As of `Sphere`.
    """

    pose: ArrayLike = _IDENTITY
    name: str = ""


@dataclass(frozen=True)
class PointCloud:
    """Balls of one radius about points, as a depth camera gives them.

    Args:
        points: Points of its frame [m], finite, [N, 3], N >= 1.
        radius: Of the balls [m], > 0; half the distance between neighbours closes the surface.
        name: As of `Sphere`.
        pose: As of `Sphere`.
    """

    points: ArrayLike
    radius: float
    name: str = ""
    pose: ArrayLike = _IDENTITY


Shape = Sphere | Box | Cylinder | Capsule | HalfSpace | PointCloud
_TYPES: dict[str, type[Shape]] = {
    "sphere": Sphere,
    "box": Box,
    "cylinder": Cylinder,
    "capsule": Capsule,
    "half_space": HalfSpace,
    "point_cloud": PointCloud,
}
_NAMES = {kind: name for name, kind in _TYPES.items()}


class World:
    """Shapes in the robot's base frame, for `Solver.clearance`.

    Args:
        shapes: Shapes, each name once.

    Raises:
        ArgumentError: A size is not finite or not above 0, a pose is invalid, or a name is taken.
        ImportError: The native extension is missing.
    """

    def __init__(self, shapes: Iterable[Shape] = ()) -> None:
        self._native = load_native().World()
        self._index: dict[str, int] = {}
        self._shapes: list[Shape] = []
        for index, shape in enumerate(_listed(shapes)):
            if type(shape) not in _NAMES:
                raise ArgumentError(
                    f"shapes[{index}]: expected one of {', '.join(kind.__name__ for kind in _NAMES)}, "
                    f"got {type(shape).__name__}; World.from_dicts takes dictionaries"
                )
            self._add(shape, shape.name or f"{_NAMES[type(shape)]}_{index}")

    @classmethod
    def from_dicts(cls, shapes: Iterable[Mapping[str, Any]]) -> World:
        """Make a world of dictionaries, such as parsed JSON.

        Args:
            shapes: Each with `type` ("box", "sphere", "cylinder", "capsule", "half_space" or "point_cloud") and the
                arguments of that shape: `size`, `radius`, `length`, `points`, `pose`, `name`.
        Raises:
            ArgumentError: A key is missing or unknown, or a value is invalid.
        """
        made = []
        for index, entry in enumerate(_listed(shapes)):
            if not isinstance(entry, Mapping) or entry.get("type") not in _TYPES:
                got = entry.get("type") if isinstance(entry, Mapping) else entry
                raise ArgumentError(f"shapes[{index}]: expected a type of {', '.join(_TYPES)}, got {got!r:.60}")
            kind = _TYPES[entry["type"]]
            known = {field.name: field for field in fields(kind)}
            given = {key: value for key, value in entry.items() if key != "type"}
            unknown = sorted(given.keys() - known.keys())
            missing = [name for name, field in known.items() if name not in given and name in _REQUIRED]
            if unknown or missing:
                raise ArgumentError(
                    f"shapes[{index}]: expected the keys {', '.join(known)} of a {entry['type']}, got "
                    f"{'no ' + missing[0] if missing else 'also ' + repr(unknown[0])}; correct it"
                )
            made.append(kind(**given))
        return cls(made)

    @classmethod
    def from_file(cls, path: str | PathLike[str]) -> World:
        """Read a list of shapes, as of `from_dicts`, from a file of JSON or YAML.

        Args:
            path: The file.
        Raises:
            ArgumentError: The file cannot be read, or is no list of valid shapes; the message names the file.
            ImportError: The file is YAML but not JSON, and PyYAML is not installed (extra `collision`).
        """
        where = fspath(path)
        try:
            return cls.from_dicts(parse(Path(path).read_text()))
        except OSError as error:
            raise ArgumentError(f"{where}: cannot read the file ({error.strerror}); check the path") from None
        except ArgumentError as error:
            raise ArgumentError(f"{where}: {error}") from None
        except ValueError as error:
            raise ArgumentError(
                f"{where}: expected a list of shapes in JSON or YAML, got {error}; correct it"
            ) from None

    def to_dicts(self) -> list[dict[str, Any]]:
        """Return the shapes, where they are now, as `from_dicts` takes them; exact through JSON."""
        entries = []
        for shape in self._shapes:
            entry: dict[str, Any] = {"type": _NAMES[type(shape)]}
            for field in fields(shape):
                value = getattr(shape, field.name)
                entry[field.name] = value if field.name == "name" else np.asarray(value, dtype=np.float64).tolist()
            entries.append(entry)
        return entries

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle the shapes; the world in C++ is made of them again."""
        return World, (self.shapes,)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the shapes, in order."""
        return tuple(self._index)

    @property
    def shapes(self) -> tuple[Shape, ...]:
        """The shapes with their names, where they are now."""
        return tuple(self._shapes)

    @property
    def native(self) -> Any:
        """The world in C++ (`mfik._native.World`)."""
        return self._native

    def set_pose(self, name: str, pose: ArrayLike) -> None:
        """Move a shape, without taking memory in C++.

        Args:
            name: Of the shape.
            pose: T_base_shape [x, y, z, qw, qx, qy, qz], [m], unit quaternion, [7].
        Raises:
            ArgumentError: There is no such shape, or the pose is invalid; nothing is moved.
        """
        index = self._index.get(name)
        if index is None:
            raise ArgumentError(
                f"name: shape {name!r:.60} does not exist; use one of {', '.join(self._index) or 'none'}"
            )
        pose = as_pose("pose", pose)
        self._native.set_pose(index, pose.tolist())
        self._shapes[index] = replace(self._shapes[index], pose=pose)

    def __len__(self) -> int:
        return len(self._index)

    def _add(self, shape: Shape, name: str) -> None:
        where = f"shape '{name}'"
        if not isinstance(name, str) or name in self._index:
            raise ArgumentError(f"{where}: name: expected text that no other shape has; choose another name")
        placed = as_pose(f"{where}: pose", shape.pose)
        pose = placed.tolist()
        kind = _NAMES[type(shape)]
        add = getattr(self._native, f"add_{kind}")
        if isinstance(shape, Box):
            size = _numbers(f"{where}: size", shape.size, (3,))
            self._index[name] = add(name, [_length(f"{where}: size", value) for value in size.tolist()], pose)
        elif isinstance(shape, HalfSpace):
            self._index[name] = add(name, pose)
        elif isinstance(shape, PointCloud):
            points = _numbers(f"{where}: points", shape.points, (None, 3))
            if len(points) == 0 or not np.isfinite(points).all():
                raise ArgumentError(f"{where}: points: expected finite points [N, 3], N >= 1; leave out what is not")
            self._index[name] = add(name, points, _length(f"{where}: radius", shape.radius), pose)
        elif isinstance(shape, Sphere):
            self._index[name] = add(name, _length(f"{where}: radius", shape.radius), pose)
        else:
            lengths = [_length(f"{where}: {key}", getattr(shape, key)) for key in ("radius", "length")]
            self._index[name] = add(name, *lengths, pose)
        self._shapes.append(replace(shape, pose=placed, name=name))


_REQUIRED = ("size", "radius", "length", "points")  # arguments without a default


def _listed(shapes: Iterable[Any]) -> Iterable[Any]:
    if isinstance(shapes, (str, Mapping)) or not isinstance(shapes, Iterable):
        raise ArgumentError(f"shapes: expected a list of shapes, got {type(shapes).__name__}; put them into one")
    return shapes


def _numbers(argument: str, value: ArrayLike, shape: tuple[int | None, ...]) -> np.ndarray:
    try:
        array = np.asarray(value, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ArgumentError(f"{argument}: expected numbers, got {error}") from None
    if len(array.shape) != len(shape) or any(n not in (None, m) for n, m in zip(shape, array.shape, strict=True)):
        want = ["N" if n is None else n for n in shape]
        raise ArgumentError(f"{argument}: expected {want}, got {list(array.shape)}; put the coordinates last")
    return array


def _length(argument: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError):
        raise ArgumentError(f"{argument}: expected a length [m], got {value!r:.60}") from None
    if not (math.isfinite(number) and number > 0):
        raise ArgumentError(f"{argument}: expected a finite length above 0 [m], got {number}; correct it")
    return number
