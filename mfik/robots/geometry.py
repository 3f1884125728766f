"""Geometry of a URDF file's links, for collision and to look at."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from mfik.errors import RobotError
from mfik.robots.packages import package_folders
from mfik.robots.urdf import Joint, origin_matrix, read_number, read_vector


@dataclass(frozen=True)
class Shape:
    """A collision or visual element of a link.

    Attributes:
        kind: "sphere", "box", "cylinder", "capsule" or "mesh".
        transform: T_link_shape, [4, 4].
        size: Radius; edges; radius and length (along z; of a capsule between the centres of its ends); scale [m].
        file: Of a mesh, as written in the URDF file.
        color: Of a visual element's <material>: red, green and blue, 0 to 255; None where it gives none.
    """

    kind: str
    transform: np.ndarray
    size: tuple[float, ...]
    file: str = ""
    color: tuple[int, int, int] | None = None


def read_shapes(path: Path, root: ET.Element, kind: str = "collision") -> dict[str, list[Shape]]:
    """Read the collision or visual elements of every link of a parsed URDF file, by the link's name.

    Args:
        path: The file, for messages.
        root: Its <robot> element.
        kind: "collision" or "visual".
    Raises:
        RobotError: An element is malformed, or has a size that is not above 0.
    """
    colors = {}
    if kind == "visual":
        colors = {
            name: color
            for element in root.iter("material")
            if (name := element.get("name")) and (color := _read_color(f"{path}: material '{name}'", element))
        }
    return {element.attrib["name"]: _read_link(path, element, kind, colors) for element in root.findall("link")}


def mesh_path(shape: Shape, folder: Path, package_paths: Iterable[Path] = ()) -> Path:
    """Find the file of a mesh.

    Args:
        shape: The mesh; its file may be `package://package/path`, `model://` likewise, `file://path`, or a path
            relative to the URDF file.
        folder: Of the URDF file.
        package_paths: Where packages are looked for first, see `package_folders`.
    Raises:
        RobotError: There is no such file.
    """
    name = shape.file
    if name.startswith(("package://", "model://")):
        package, _, rest = name.partition("://")[2].partition("/")
        tried = [place / rest for place in package_folders(package, folder, package_paths)]
    else:
        tried = [folder / name.removeprefix("file://")]
    for path in tried:
        if path.is_file():
            return path
    places = ", ".join(str(path) for path in tried[:4])
    raise RobotError(
        f"mesh {name!r}: no such file (tried {places}); correct it, or give the folder that holds its "
        "package in package_paths (--package_paths)"
    )


def _read_link(path: Path, link: ET.Element, kind: str, colors: Mapping[str, tuple[int, int, int]]) -> list[Shape]:
    shapes = []
    for index, element in enumerate(link.findall(kind)):
        where = f"{path}: link '{link.get('name')}': {kind} number {index}"
        geometry = element.find("geometry")
        kinds = [] if geometry is None else list(geometry)
        if len(kinds) != 1:
            raise RobotError(f"{where}: expected one shape in <geometry>, got {len(kinds)}; give one, or remove it")
        origin = Joint(
            "", "fixed", "", "", read_vector(where, element, "origin", "xyz", (0.0, 0.0, 0.0)),
            read_vector(where, element, "origin", "rpy", (0.0, 0.0, 0.0)), (), element,
        )  # fmt: skip
        transform, shape = origin_matrix(origin), kinds[0]
        if shape.tag == "sphere":
            shapes.append(Shape("sphere", transform, (_read_size(where, shape, "radius"),)))
        elif shape.tag == "box":
            size = read_vector(where, geometry, "box", "size", ())  # type: ignore[arg-type]
            if len(size) != 3 or min(size) <= 0:
                raise RobotError(f"{where}: <box size>: expected three edges > 0 [m], got {size}; correct it")
            shapes.append(Shape("box", transform, size))
        elif shape.tag in ("cylinder", "capsule"):
            size = (_read_size(where, shape, "radius"), _read_size(where, shape, "length"))
            shapes.append(Shape(shape.tag, transform, size))
        elif shape.tag == "mesh":
            file = shape.get("filename")
            if not file:
                raise RobotError(f'{where}: <mesh> has no filename; add filename="..."')
            scale = read_vector(where, geometry, "mesh", "scale", (1.0, 1.0, 1.0))  # type: ignore[arg-type]
            if 0.0 in scale:
                raise RobotError(f"{where}: <mesh scale>: expected numbers other than 0, got {scale}; correct it")
            shapes.append(Shape("mesh", transform, scale, file))
        else:
            raise RobotError(
                f"{where}: unknown shape <{shape.tag}>; use sphere, box, cylinder, capsule or mesh, or remove it"
            )
        material = element.find("material")
        if kind == "visual" and material is not None:
            color = _read_color(where, material) or colors.get(material.get("name", ""))
            shapes[-1] = replace(shapes[-1], color=color)
    return shapes


def _read_color(where: str, material: ET.Element) -> tuple[int, int, int] | None:
    """Return the colour that a <material> gives itself."""
    if material.find("color") is None:
        return None
    rgba = read_vector(where, material, "color", "rgba", (), size=4)
    red, green, blue = (round(255 * min(max(channel, 0.0), 1.0)) for channel in rgba[:3])
    return red, green, blue


def _read_size(where: str, shape: ET.Element, key: str) -> float:
    value = read_number(where, shape.tag, key, shape.get(key, ""))
    if value <= 0:
        raise RobotError(f"{where}: <{shape.tag} {key}>: expected a length > 0 [m], got {value}; correct it")
    return value
