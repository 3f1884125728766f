"""Surfaces of links' collision geometry. Needs trimesh (extra `collision`); imported by who fits spheres alone."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import numpy as np
import trimesh

from mfik.errors import RobotError
from mfik.robots.geometry import Shape, mesh_path
from mfik.robots.source import Source

SECTIONS = 48  # of a circle; a polygon around it is 0.2 % larger


def link_mesh(shapes: Sequence[Shape], source: Source) -> trimesh.Trimesh | None:
    """Return one surface of all boxes, cylinders, capsules and meshes among a link's shapes.

    Those of cylinders and capsules lie around the true ones: what contains the surface contains the shape.

    Args:
        shapes: Collision elements of a link; spheres are left out.
        source: The description that they are from, which has or names their meshes.
    Returns:
        The surface in the link's frame [m]; None where there are only spheres.
    Raises:
        RobotError: A mesh is missing or cannot be read.
    """
    meshes = [_mesh(shape, source) for shape in shapes if shape.kind != "sphere"]
    return cast(trimesh.Trimesh, trimesh.util.concatenate(meshes)) if meshes else None


def _mesh(shape: Shape, source: Source) -> trimesh.Trimesh:
    around = 1.0 / math.cos(math.pi / SECTIONS)  # a polygon whose edges touch the circle
    if shape.kind == "box":
        mesh = trimesh.creation.box(shape.size)
    elif shape.kind == "cylinder":
        mesh = trimesh.creation.cylinder(shape.size[0] * around, shape.size[1], sections=SECTIONS)
    elif shape.kind == "capsule":
        radius, length = shape.size
        mesh = _capsule(radius, length, around)
    elif shape.file in source.meshes:
        mesh = trimesh.Trimesh(*source.meshes[shape.file])
    else:
        path = mesh_path(shape, source.path.parent, source.package_paths)
        try:
            mesh = cast(trimesh.Trimesh, trimesh.load(path, force="mesh", process=True))
        except Exception as error:  # of whichever reader takes this format
            raise RobotError(f"mesh {path}: cannot be read ({error}); convert it to STL") from error
        if len(mesh.faces) == 0 or not np.isfinite(mesh.vertices).all():
            raise RobotError(f"mesh {path}: expected triangles with finite corners, got none; export it again")
        mesh.apply_scale(shape.size)
    mesh.apply_transform(shape.transform)
    return mesh


def _capsule(radius: float, length: float, around: float) -> trimesh.Trimesh:
    """Return a polyhedron around a capsule: rings of polygons about the axis, their corners outside both ways."""
    latitude = np.linspace(-0.5 * math.pi, 0.5 * math.pi, SECTIONS // 2 + 1)
    large = radius * around * around
    rings = np.stack([large * np.cos(latitude), large * np.sin(latitude)], axis=-1)
    lower, upper = rings[: SECTIONS // 4 + 1].copy(), rings[SECTIONS // 4 :].copy()
    lower[:, 1] -= 0.5 * length
    upper[:, 1] += 0.5 * length
    profile = np.concatenate([lower, upper])
    profile[[0, -1], 0] = 0.0
    return trimesh.creation.revolve(profile, sections=SECTIONS)
