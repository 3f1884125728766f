"""What is drawn: rigid meshes, each fixed to a frame of the chain."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from os import PathLike
from typing import Any, cast

import numpy as np
import trimesh

from mfik.collision.world import Box, Capsule, Cylinder, PointCloud, Shape, Sphere
from mfik.errors import RobotError
from mfik.robots import Robot
from mfik.robots.body import read_tree
from mfik.robots.geometry import Shape as GeometryShape
from mfik.robots.meshes import link_mesh
from mfik.robots.source import Source, read_source

_DARK = 0.72  # shade of joints
_AXIS_END = 1e-6  # [m] two frames nearer than this have no link between them


@dataclass(frozen=True)
class Body:
    """A mesh that moves with a frame.

    Attributes:
        frame: Index into `frames`: 0 the base, j the j-th joint's moved frame.
        shade: Factor on the colour, so that joints can be told from links.
        mesh: Vertices in that frame [m].
        color: Red, green and blue, 0 to 255, of a solution; None: the viewer's own.
    """

    frame: int
    shade: float
    mesh: trimesh.Trimesh
    color: tuple[int, int, int] | None = None


Part = tuple[int, float, "tuple[int, int, int] | None", trimesh.Trimesh]  # of a body: frame, shade, colour, mesh


def frames(robot: Robot, q: np.ndarray) -> np.ndarray:
    """Compute the frames of a chain.

    Args:
        robot: The robot.
        q: Joints [rad or m], [B, J].
    Returns:
        T_base_frame of the base, of every joint after its motion, of the tool, [B, J+2, 4, 4].
    """
    q = np.asarray(q, dtype=np.float64).reshape(-1, robot.dof)
    motion = np.tile(np.eye(4), (len(q), robot.dof, 1, 1))
    turns = np.array([kind != "prismatic" for kind in robot.kinds])
    cos, sin = np.cos(q), np.sin(q)
    motion[:, turns, 0, 0] = motion[:, turns, 1, 1] = cos[:, turns]
    motion[:, turns, 1, 0] = sin[:, turns]
    motion[:, turns, 0, 1] = -sin[:, turns]
    motion[:, ~turns, 2, 3] = q[:, ~turns]
    origins = _origins(robot)
    out = [np.tile(np.eye(4), (len(q), 1, 1))]
    for joint in range(robot.dof):
        out.append(out[-1] @ origins[joint] @ motion[:, joint])
    out.append(out[-1] @ origins[-1])
    return np.stack(out, axis=1)


def reach(robot: Robot) -> float:
    """Return the sum of the chain's offsets and strokes [m], at least a millimetre: the scale of a drawing."""
    stroke = sum(
        float(high - low)
        for kind, low, high in zip(robot.kinds, robot.lower, robot.upper, strict=True)
        if kind == "prismatic"
    )
    return max(float(np.linalg.norm(_origins(robot)[:, :3, 3], axis=-1).sum()) + stroke, 1e-3)


def chain_bodies(robot: Robot) -> list[Body]:
    """Draw a chain from its joints alone: cylinders about turning axes, rails along sliding ones, rods between them.

    Args:
        robot: The robot.
    """
    radius = 0.028 * reach(robot)
    origins = _origins(robot)
    parts: list[Part] = []
    for joint, (kind, origin) in enumerate(zip(robot.kinds, origins[:-1], strict=True)):
        size = radius * (1.0 - 0.5 * joint / robot.dof)  # thinner towards the tool
        parts += _rod(joint, origin[:3, 3], size)
        if kind == "prismatic":
            ends = np.array([[0.0, 0.0, float(robot.lower[joint])], [0.0, 0.0, float(robot.upper[joint])]])
            rail = trimesh.creation.cylinder(0.5 * size, segment=ends, sections=24)
            parts.append((joint, _DARK, None, rail.apply_transform(origin)))
            parts.append((joint + 1, _DARK, None, trimesh.creation.box([2.6 * size] * 3)))
        else:
            parts.append(
                (joint + 1, _DARK, None, trimesh.creation.cylinder(1.35 * size, height=3.0 * size, sections=32))
            )
    parts += _rod(robot.dof, origins[-1][:3, 3], 0.5 * radius)
    tip = trimesh.creation.icosphere(subdivisions=2, radius=0.6 * radius)
    parts.append((robot.dof, _DARK, None, tip.apply_translation(origins[-1][:3, 3])))
    parts.append((0, _DARK, None, trimesh.creation.cylinder(2.2 * radius, height=0.6 * radius, sections=48)))
    return merged(parts)


def mesh_bodies(
    robot: Robot,
    description: str | PathLike[str] | Source,
    xacro_args: Mapping[str, Any] | None = None,
    package_paths: Iterable[str | PathLike[str]] = (),
) -> list[Body]:
    """Draw a robot with the collision geometry of its description; joints outside the chain stay at 0.

    Args:
        robot: The chain, read from the same description.
        description: What `load_robot` takes, like the following two, or what `read_source` made of it.
        xacro_args: Values of the arguments of a .xacro file.
        package_paths: Folders that hold the packages of meshes.
    Raises:
        RobotError: The description has no collision geometry, or a mesh of it is not found.
    """
    source = as_source(description, xacro_args, package_paths)
    tree = read_tree(source, robot.base_link, robot.tip_link)
    parts: list[Part] = []
    for link, shapes in tree.shapes.items():
        for shape in shapes:
            mesh = sphere_mesh(shape) if shape.kind == "sphere" else link_mesh([shape], source)
            assert mesh is not None
            parts.append((tree.frames[link], 1.0, None, mesh.apply_transform(tree.transforms[link])))
    if not parts:
        raise RobotError(f"{source.path}: no <collision> geometry to draw")
    return merged(parts)


def as_source(
    description: str | PathLike[str] | Source,
    xacro_args: Mapping[str, Any] | None,
    package_paths: Iterable[str | PathLike[str]],
) -> Source:
    """Return the description, read unless it is already."""
    return description if isinstance(description, Source) else read_source(description, xacro_args, package_paths)


def sphere_mesh(shape: GeometryShape) -> trimesh.Trimesh:
    """Draw a sphere of a description, in its link's frame."""
    return trimesh.creation.icosphere(subdivisions=3, radius=shape.size[0]).apply_transform(shape.transform)


def sphere_bodies(robot: Robot) -> list[Body]:
    """Draw the spheres that stand for the robot's links in collision; none where it has none.

    Args:
        robot: The robot.
    """
    parts: list[Part] = []
    for link in robot.body.links if robot.body is not None else ():
        for x, y, z, radius in link.spheres.tolist():
            ball = trimesh.creation.icosphere(subdivisions=1, radius=radius)
            centre = link.transform[:, :3] @ (x, y, z) + link.transform[:, 3]
            parts.append((link.frame, 1.0, None, ball.apply_translation(centre)))
    return merged(parts)


def shape_mesh(shape: Shape, size: float) -> trimesh.Trimesh:
    """Draw a shape of a world, in its own frame.

    Args:
        shape: The shape; of a cloud, at most 2,000 points are drawn.
        size: Edge of the square that stands for a half-space [m].
    """
    if isinstance(shape, Box):
        return trimesh.creation.box(np.asarray(shape.size, dtype=np.float64))
    if isinstance(shape, Sphere):
        return trimesh.creation.icosphere(subdivisions=3, radius=shape.radius)
    if isinstance(shape, Cylinder):
        return _sharp(trimesh.creation.cylinder(shape.radius, height=shape.length, sections=48))
    if isinstance(shape, Capsule):
        capsule = trimesh.creation.capsule(height=shape.length, radius=shape.radius)
        return capsule.apply_translation(-capsule.bounds.mean(axis=0))  # releases of trimesh place it differently
    if isinstance(shape, PointCloud):
        points = np.asarray(shape.points, dtype=np.float64)
        points = points[:: -(-len(points) // 2000)]
        ball = trimesh.creation.icosphere(subdivisions=0, radius=shape.radius)
        vertices = (points[:, None] + ball.vertices).reshape(-1, 3)
        faces = (len(ball.vertices) * np.arange(len(points))[:, None, None] + ball.faces).reshape(-1, 3)
        return trimesh.Trimesh(vertices, faces, process=False)
    return trimesh.creation.box((size, size, 1e-3 * size)).apply_translation((0.0, 0.0, -0.5e-3 * size))


def _rod(frame: int, end: np.ndarray, radius: float) -> list[Part]:
    """Return a rod from a frame's origin to a point in it, or nothing where they meet."""
    if np.linalg.norm(end) < _AXIS_END:
        return []
    return [(frame, 1.0, None, trimesh.creation.cylinder(radius, segment=np.stack([np.zeros(3), end]), sections=24))]


def merged(parts: list[Part]) -> list[Body]:
    """Join what moves together and has one colour: every mesh costs a browser time of its own."""
    groups: dict[tuple[int, float, tuple[int, int, int] | None], list[trimesh.Trimesh]] = {}
    for frame, shade, color, mesh in parts:
        groups.setdefault((frame, shade, color), []).append(mesh)
    return [
        Body(frame, shade, cast(trimesh.Trimesh, trimesh.util.concatenate([_sharp(mesh) for mesh in meshes])), color)
        for (frame, shade, color), meshes in sorted(groups.items(), key=lambda item: (item[0][:2], item[0][2] or ()))
    ]


def _sharp(mesh: trimesh.Trimesh) -> trimesh.Trimesh:
    """Return bare geometry with its vertices split at edges, which the browser would round off."""
    smooth = trimesh.graph.smooth_shade(mesh, angle=np.radians(35.0))
    return trimesh.Trimesh(smooth.vertices, smooth.faces, process=False)


def _origins(robot: Robot) -> np.ndarray:
    """Return the transforms before each joint and to the tool, [J+1, 4, 4]."""
    robot.chain.check_no_mimics("the viewer")
    origins = np.tile(np.eye(4), (robot.dof + 1, 1, 1))
    origins[:, :3] = robot.chain.origins
    return origins


def ground_grid(size: float) -> tuple[np.ndarray, np.ndarray]:
    """Return the segments [N, 2, 3] of a grid on the ground about a robot of that size, and their colours."""
    cell = 0.2 * 10.0 ** np.floor(np.log10(size))
    cells = round(0.8 * size / cell)
    at = cell * np.arange(-cells, cells + 1)
    end, zero = np.full_like(at, at[-1]), np.zeros_like(at)
    along = np.stack([np.stack([at, -end, zero], axis=-1), np.stack([at, end, zero], axis=-1)], axis=1)
    shade = np.where(np.arange(-cells, cells + 1) % 5 == 0, 170, 215).astype(np.uint8)
    return np.concatenate([along, along[..., [1, 0, 2]]]), np.tile(shade[:, None, None], (2, 2, 3))


def shrunk(body: Body) -> np.ndarray:
    """Return the vertices of a body made a little smaller, so that it hides in an equal one instead of flickering."""
    centre = body.mesh.bounds.mean(axis=0)
    return centre + 0.98 * (body.mesh.vertices - centre)
