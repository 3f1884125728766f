"""A robot's own visual meshes, in their colours; what is drawn of it where there are none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from os import PathLike, fspath
from pathlib import Path
from typing import Any

import numpy as np
import trimesh

from mfik.errors import RobotError
from mfik.robots import PRESETS, Robot
from mfik.robots.body import read_tree
from mfik.robots.geometry import Shape, mesh_path, read_shapes
from mfik.robots.meshes import link_mesh
from mfik.robots.source import Source, read_source
from mfik.view.bodies import Body, Part, as_source, chain_bodies, merged, mesh_bodies, sphere_mesh

Color = tuple[int, int, int]

MAX_TRIANGLES = 50_000  # of a robot: more are simplified, as a browser without a GPU draws them slowly
_LEAST_TRIANGLES = 100  # of a mesh: fewer are left as they are
_MAX_FILE_MB = 200  # of a mesh
_MAX_COLORS = 12  # of a mesh: of a texture the others become the nearest of these
_GREY = (170, 170, 175)  # of what has no colour
# Files of example-robot-data that describe robots which ship without meshes, by the robot's name.
_EXAMPLES = {
    "panda": "panda_description/urdf/panda.urdf",
    "ur10": "ur_description/urdf/ur10_robot.urdf",
    "tiago": "tiago_description/robots/tiago.urdf",
}
_EXAMPLES_FOLDER = "cmeel.prefix/share/example-robot-data/robots"  # in the folder of the installed packages


def draw_robot(
    robot: Robot,
    name_or_path: str | PathLike[str] | None = None,
    xacro_args: Mapping[str, Any] | None = None,
    package_paths: Iterable[str | PathLike[str]] = (),
) -> tuple[list[Body], str]:
    """Draw a robot as well as its description allows: visual meshes, else collision geometry, else its joints alone.

    Args:
        robot: The chain.
        name_or_path: Its description, as of `load_robot`, like the following two. Of a preset, and of a robot without
            a description, the meshes are those of PyPI's example-robot-data, if it is installed and has the chain.
    Returns:
        The bodies, and a line that says what they are drawn from, and why not from more.
    """
    robot.chain.check_no_mimics("the viewer")
    if name_or_path is None or fspath(name_or_path) in PRESETS:
        found = _example(robot)
        if isinstance(found, str):
            return chain_bodies(robot), f"drawn from its joints: {found}"
        source = found
    else:
        source = read_source(name_or_path, xacro_args, package_paths)
    try:
        return visual_bodies(robot, source), f"drawn with the visual meshes of {source.path}"
    except RobotError as error:
        missing = str(error)
    try:
        return mesh_bodies(robot, source), f"drawn with its collision geometry: {missing}"
    except RobotError as error:
        return chain_bodies(robot), f"drawn from its joints: {missing}; {error}"


def visual_bodies(
    robot: Robot,
    description: str | PathLike[str] | Source,
    xacro_args: Mapping[str, Any] | None = None,
    package_paths: Iterable[str | PathLike[str]] = (),
    max_triangles: int = MAX_TRIANGLES,
) -> list[Body]:
    """Draw a robot with the visual elements of its description; joints outside the chain stay at 0.

    A colour is that of the mesh file, else of the element's <material>. Meshes of more triangles than wanted are
    simplified, each by the same share.

    Args:
        robot: The chain, read from the same description.
        description: As of `mesh_bodies`, like the following two.
        xacro_args: Values of the arguments of a .xacro file.
        package_paths: Folders that hold the packages of meshes.
        max_triangles: Of all bodies together, about.
    Raises:
        RobotError: The description has no visual elements, one is malformed, or a mesh cannot be read.
    """
    source = as_source(description, xacro_args, package_paths)
    tree = read_tree(source, robot.base_link, robot.tip_link)
    files: dict[tuple[str, tuple[float, ...]], list[tuple[Color | None, trimesh.Trimesh]]] = {}
    parts: list[Part] = []
    for link, shapes in read_shapes(source.path, source.root, "visual").items():
        for shape in shapes if link in tree.frames else ():
            if shape.kind == "mesh" and shape.file not in source.meshes:
                key = shape.file, shape.size
                if key not in files:
                    files[key] = _load(mesh_path(shape, source.path.parent, source.package_paths), shape)
                pieces = files[key]
                place = tree.transforms[link] @ shape.transform
            else:
                mesh = sphere_mesh(shape) if shape.kind == "sphere" else link_mesh([shape], source)
                assert mesh is not None
                pieces, place = [(None, mesh)], tree.transforms[link]
            for color, mesh in pieces:
                own = color or shape.color or _GREY
                parts.append((tree.frames[link], 1.0, own, mesh.copy().apply_transform(place)))
    if not parts:
        raise RobotError(f"{source.path}: no <visual> geometry to draw")
    return merged(_simplified(parts, max_triangles))


def _example(robot: Robot) -> Source | str:
    """Return example-robot-data's description of a robot, or why there is none."""
    if robot.name not in _EXAMPLES:
        return f"no description of '{robot.name}' is given, whose meshes could be drawn; give --robot"
    try:
        path = Path(str(distribution("example-robot-data").locate_file(_EXAMPLES_FOLDER))) / _EXAMPLES[robot.name]
    except PackageNotFoundError:
        return "its meshes are in example-robot-data: pip install example-robot-data"
    try:
        source = read_source(path)
        own = Robot.from_urdf(source, robot.base_link, robot.tip_link)
    except RobotError as error:
        return str(error)
    same = own.joint_names == robot.joint_names and np.allclose(own.chain.origins, robot.chain.origins, atol=1e-6)
    return source if same else f"{path} has another chain from {robot.base_link} to {robot.tip_link}"


def _load(path: Path, shape: Shape) -> list[tuple[Color | None, trimesh.Trimesh]]:
    """Return the parts of a mesh file [m], one a colour; None where the file gives none.

    Raises:
        RobotError: It cannot be read.
    """
    if path.suffix.lower() == ".dae" and find_spec("collada") is None:
        raise RobotError(f"mesh {path}: .dae files need pycollada; pip install 'mfik[viz]'")
    if path.stat().st_size > 1e6 * _MAX_FILE_MB:
        raise RobotError(f"mesh {path}: expected at most {_MAX_FILE_MB} MB, got more; simplify it")
    try:
        loaded = trimesh.load(path)
        meshes = loaded.dump() if isinstance(loaded, trimesh.Scene) else [loaded]
        pieces = [piece for mesh in meshes if isinstance(mesh, trimesh.Trimesh) for piece in _by_color(mesh)]
    except Exception as error:  # of whichever reader takes this format
        raise RobotError(f"mesh {path}: cannot be read ({error}); convert it to STL") from error
    if not pieces or not all(np.isfinite(mesh.vertices).all() for _, mesh in pieces):
        raise RobotError(f"mesh {path}: expected triangles with finite corners, got none; export it again")
    for _, mesh in pieces:
        mesh.apply_scale(shape.size)
    return pieces


def _by_color(mesh: trimesh.Trimesh) -> list[tuple[Color | None, trimesh.Trimesh]]:
    """Divide a mesh into bare ones of one colour each."""
    visual: Any = mesh.visual
    if len(mesh.faces) == 0:
        return []
    if not visual.defined:
        return [(None, _bare(mesh.vertices, mesh.faces))]
    if isinstance(visual, trimesh.visual.TextureVisuals):
        material: Any = visual.material
        pictures = (getattr(material, name, None) for name in ("image", "baseColorTexture"))
        if visual.uv is None or all(picture is None for picture in pictures):
            return [(_color(material.main_color), _bare(mesh.vertices, mesh.faces))]
        visual = visual.to_color()
    if visual.kind == "face":
        colors = np.asarray(visual.face_colors)[:, :3].astype(int)
    else:
        colors = np.asarray(visual.vertex_colors)[mesh.faces][..., :3].mean(1).round().astype(int)
    shades, index, counts = np.unique(colors, axis=0, return_inverse=True, return_counts=True)
    kept = shades[np.argsort(-counts, kind="stable")[:_MAX_COLORS]]
    nearest = np.abs(shades[:, None] - kept).sum(-1).argmin(1)[index.reshape(-1)]
    return [(_color(color), _bare(mesh.vertices, mesh.faces[nearest == i])) for i, color in enumerate(kept)]


def _color(channels: Any) -> Color:
    red, green, blue, *_ = (int(channel) for channel in channels)
    return red, green, blue


def _bare(vertices: np.ndarray, faces: np.ndarray) -> trimesh.Trimesh:
    """Return a mesh of these faces alone, whose corners are shared by position, as simplification asks for."""
    mesh = trimesh.Trimesh(vertices, faces, process=False)
    mesh.merge_vertices(merge_tex=True, merge_norm=True)
    mesh.remove_unreferenced_vertices()
    return mesh


def _simplified(parts: list[Part], max_triangles: int) -> list[Part]:
    """Lessen the triangles of large meshes by the share that leaves about as many as wanted."""
    share = max_triangles / max(sum(len(mesh.faces) for *_, mesh in parts), 1)
    if share >= 1.0:
        return parts
    if find_spec("fast_simplification") is None:
        raise RobotError(
            f"visual meshes: expected at most {max_triangles:,} triangles, got {int(max_triangles / share):,}, which "
            "fast-simplification lessens; pip install 'mfik[viz]'"
        )
    return [(frame, shade, color, _lessened(mesh, share)) for frame, shade, color, mesh in parts]


def _lessened(mesh: trimesh.Trimesh, share: float) -> trimesh.Trimesh:
    wanted = max(int(share * len(mesh.faces)), _LEAST_TRIANGLES)
    return mesh if len(mesh.faces) <= wanted else mesh.simplify_quadric_decimation(face_count=wanted)
