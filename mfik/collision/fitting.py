"""Spheres that contain a link: greedy set cover of small pieces of its surface.

Conservative by construction. The surface is cut into patches; each patch is a set of triangles, and lies in a ball as
soon as the triangles' corners do, because a ball is convex. Every patch lies whole in one of the spheres, so the
surface does: no gap between samples can be missed. Little excess by construction, too: a sphere is centred inside the
link (or on its surface) at a depth d, and is at most d + e large, so that it sticks out by at most e.

Needs trimesh and SciPy (extra `collision`).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import trimesh
from scipy import ndimage
from scipy.spatial import cKDTree
from scipy.spatial.distance import cdist

from mfik.errors import ArgumentError

DEFAULT_EXCESS_M = 0.02
MAX_PATCHES = 16_000  # of one link: what a cover is sought for; more make it slower, not much tighter
CANDIDATES = 3000  # centres tried inside, about, and as many on the surface
SEARCH_TOLERANCE = 0.05  # of the excess that a number of spheres allows
ROUNDING_M = 1e-9  # added to radii: what float64 loses in the distances
_SAMPLES = 50_000  # of the space around spheres
_DIRECTIONS = 500  # from each sphere's centre to its surface


@dataclass(frozen=True)
class Fit:
    """Spheres that contain a link, and how tightly.

    Attributes:
        spheres: Centre [m] and radius [m] of each, in the link's frame, [S, 4].
        overshoot_m: How far the spheres stick out of the link at most, measured on points all over them [m].
        excess_volume: Volume of the spheres outside the link, as a share of the link's.
        outside: Number of `samples` random points of the surface outside every sphere: 0.
        samples: Number of those points.
    """

    spheres: np.ndarray
    overshoot_m: float
    excess_volume: float
    outside: int
    samples: int


def fit_spheres(
    mesh: trimesh.Trimesh,
    *,
    excess_m: float = DEFAULT_EXCESS_M,
    max_spheres: int | None = None,
    samples: int = 100_000,
) -> Fit:
    """Contain a surface in spheres.

    Args:
        mesh: The surface, in the link's frame [m]; need not be closed, may consist of several bodies.
        excess_m: How far spheres may stick out [m], > 0; it decides on their number.
        max_spheres: Largest number of spheres instead, >= 1: the least excess that it allows is sought.
        samples: Random points of the surface that are looked up afterwards.
    Raises:
        ArgumentError: An argument is out of range, or the mesh has no surface.
    """
    if not (np.isfinite(excess_m) and excess_m > 0):
        raise ArgumentError(f"excess: expected a length [m] > 0, got {excess_m}; 0.02 suits a robot's arm")
    if max_spheres is not None and max_spheres < 1:
        raise ArgumentError(f"max_spheres: expected at least 1, got {max_spheres}; a link needs one")
    if len(mesh.faces) == 0 or not np.isfinite(mesh.vertices).all() or not mesh.area > 0:
        raise ArgumentError("mesh: expected triangles with finite corners and an area, got none; check the file")
    if max_spheres is None:
        spheres = _cover(mesh, excess_m)
    else:
        # The bounding ball is one sphere. Between it and nothing, the excess is halved towards what still suffices.
        low, high = 0.0, float(np.linalg.norm(mesh.extents))
        spheres = _bounding_ball(mesh.vertices)[None]
        while high - low > SEARCH_TOLERANCE * high:
            middle = 0.5 * (low + high)
            tried = _cover(mesh, middle, max_spheres)
            if tried is None:
                low = middle
            else:
                spheres, high = tried, middle
    assert spheres is not None  # without a limit on their number
    return _judge(mesh, spheres, samples)


def _bounding_ball(points: np.ndarray) -> np.ndarray:
    """Return centre and radius of a ball around points, within 1 % of the smallest (Badoiu and Clarkson 2003)."""
    center = points.mean(0)
    for step in range(1, 200):
        far = points[np.argmax(((points - center) ** 2).sum(-1))]
        center = center + (far - center) / (step + 1)
    return np.append(center, np.sqrt(((points - center) ** 2).sum(-1).max()) + ROUNDING_M)


class _Solid:
    """What a surface encloses, though it may have holes below the size of a voxel, and walls inside."""

    def __init__(self, points: np.ndarray, spacing: float) -> None:
        """Flood a grid of voxels, of which those with points are closed, from outside.

        Args:
            points: Of the surface, close enough to each other that no voxel on it is left out [m], [N, 3]; different
                ones, as a tree of many equal points is slow.
            spacing: Edge of a voxel [m].
        """
        self.spacing = spacing
        self.low = points.min(0) - 2.5 * spacing
        shape = np.ceil((points.max(0) - self.low) / spacing).astype(int) + 3
        place = ((points - self.low) / spacing).astype(int)
        closed = np.zeros(shape, bool)
        closed[tuple(place.T)] = True
        label, _ = ndimage.label(~closed)
        outside = label == label[0, 0, 0]
        skin = closed & ndimage.binary_dilation(outside, np.ones((3, 3, 3), bool))
        self.inside = ~outside & ~skin
        self.filled = ~outside
        # Distances are those to the outermost surface.
        self.tree = cKDTree(points[skin[tuple(place.T)]], balanced_tree=False)

    def deepest(self, block: float) -> np.ndarray:
        """Return the middle of the deepest voxel inside of each block of space of a size [m], [N, 3]."""
        voxels = np.argwhere(self.inside)
        depth = ndimage.distance_transform_edt(self.inside)[self.inside]
        order = np.argsort(-depth, kind="stable")
        blocks = (voxels[order] * self.spacing // block).astype(int)
        _, first = np.unique(np.ravel_multi_index(blocks.T, blocks.max(0, initial=0) + 1), return_index=True)
        return self.low + self.spacing * (voxels[order[first]] + 0.5)

    def lookup(self, voxels: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Return the entry of `inside` or `filled` where each point lies, [N] bool."""
        place = ((points - self.low) / self.spacing).astype(int)
        held = ((place >= 0) & (place < voxels.shape)).all(-1)
        found = np.zeros(len(points), bool)
        found[held] = voxels[tuple(place[held].T)]
        return found

    def depth(self, points: np.ndarray) -> np.ndarray:
        """Return how deep points lie inside [m], [N]; 0 outside and within a voxel of the surface."""
        inside = self.lookup(self.inside, points)
        depth = np.zeros(len(points))
        depth[inside] = self.tree.query(points[inside])[0]
        return depth


def _cut(mesh: trimesh.Trimesh, size: float) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Cut a surface into patches of about a size.

    Returns:
        Corners of the triangles [T, 3, 3] sorted by patch, the first triangle of each patch [P], the patches' middles
        [P, 3], and different points of the surface, the corners and middles of all triangles [N, 3].
    """
    vertices, faces = trimesh.remesh.subdivide_to_size(mesh.vertices, mesh.faces, max_edge=size, max_iter=30)
    triangles = vertices[faces]
    middles = triangles.mean(1)
    voxel = np.floor((middles - middles.min(0)) / size).astype(np.int64)
    key = np.ravel_multi_index(voxel.T, voxel.max(0) + 1)
    order = np.argsort(key, kind="stable")
    triangles = triangles[order]
    first = np.flatnonzero(np.diff(key[order], prepend=-1))
    low = np.minimum.reduceat(triangles.min(1), first)
    high = np.maximum.reduceat(triangles.max(1), first)
    return triangles, first, 0.5 * (low + high), np.concatenate([np.unique(vertices, axis=0), middles])


def _cover(mesh: trimesh.Trimesh, excess: float, max_spheres: int | None = None) -> np.ndarray | None:
    """Contain a surface in spheres that stick out by at most `excess` [m]; None where that takes too many."""
    # Patches well under the excess, or a sphere could not hold one; but no more of them than can be worked on.
    finest = float(np.sqrt(mesh.area / MAX_PATCHES))
    if 0.5 * excess < finest:
        if max_spheres is not None:
            return None
        raise ArgumentError(
            f"excess: expected at least {2 * finest:.2g} m for a surface of {mesh.area:.2g} m^2, got {excess}; "
            "a smaller one takes thousands of spheres"
        )
    size = max(0.25 * excess, finest)
    triangles, first, centers, points = _cut(mesh, size)
    counts = np.diff(first, append=len(triangles))
    corners = triangles.reshape(-1, 3)
    spread = np.sqrt(((corners - np.repeat(centers, 3 * counts, axis=0)) ** 2).sum(-1))
    radius = np.maximum.reduceat(spread, 3 * first)  # a ball around each patch

    solid = _Solid(points, size)
    # The deepest voxel of each block reaches farthest; on the surface, for what is thin.
    inside = solid.deepest(excess)
    candidates = np.concatenate([inside[:: len(inside) // CANDIDATES + 1], centers[:: len(centers) // CANDIDATES + 1]])
    depth = solid.depth(candidates)
    large = depth + excess

    reached = np.zeros((len(candidates), len(centers)), bool)
    for begin in range(0, len(candidates), 256):
        rows = slice(begin, begin + 256)
        reached[rows] = cdist(candidates[rows], centers) <= large[rows, None] - radius
    missed = np.asarray(~reached.any(0))
    if missed.any():  # between two candidates: such a patch's own centre, where it suffices by itself
        reached = np.concatenate([reached, _own(centers, radius, missed, excess)])
        candidates = np.concatenate([candidates, centers[missed]])
        large = np.concatenate([large, np.maximum(excess, radius[missed])])

    chosen: list[int] = []
    left = np.ones(len(centers), bool)
    gain = reached.sum(1)
    while left.any():
        best = int(gain.argmax())
        fresh = reached[best] & left
        left &= ~fresh
        chosen.append(best)
        if max_spheres is not None and len(chosen) > max_spheres:
            return None
        if left.sum() < fresh.sum():
            gain = reached[:, left].sum(1)
        else:
            gain -= reached[:, fresh].sum(1)
    return _tighten(candidates[chosen], reached[chosen], triangles, first)


def _own(centers: np.ndarray, radius: np.ndarray, missed: np.ndarray, excess: float) -> np.ndarray:
    return cdist(centers[missed], centers) <= np.maximum(excess, radius[missed])[:, None] - radius


def _tighten(centers: np.ndarray, reached: np.ndarray, triangles: np.ndarray, first: np.ndarray) -> np.ndarray:
    """Leave out spheres whose patches others hold, and shrink the rest about their centres, the largest first."""
    held = reached.sum(0)
    keep = np.ones(len(centers), bool)
    for index in np.argsort(reached.sum(1), kind="stable"):
        if (held[reached[index]] > 1).all():
            keep[index] = False
            held[reached[index]] -= 1
    centers, reached = centers[keep], reached[keep]
    corners = triangles.reshape(-1, 3)
    farthest = np.stack(
        [np.maximum.reduceat(np.sqrt(((corners - center) ** 2).sum(-1)), 3 * first) for center in centers]
    )  # corner of each patch from each centre, [S, P]
    for index in np.argsort(-farthest.max(1, where=reached, initial=0.0), kind="stable"):
        shared = reached[index] & (held > 1)
        # The farthest patches go to others, down to the farthest that is held here alone.
        alone = farthest[index].max(where=reached[index] & ~shared, initial=0.0)
        given = shared & (farthest[index] > alone)
        held[given] -= 1
        reached[index, given] = False
    radii = farthest.max(1, where=reached, initial=0.0)
    return np.concatenate([centers, radii[:, None] + ROUNDING_M], axis=1)


def _judge(mesh: trimesh.Trimesh, spheres: np.ndarray, samples: int) -> Fit:
    """Measure spheres by points: of the surface, all over the spheres, in the space around both."""
    rng = np.random.default_rng(0)
    points, _ = trimesh.sample.sample_surface(mesh, samples, seed=0)
    points = np.asarray(points)
    outside = int((~_held(points, spheres)).sum())

    spacing = float(min(np.sqrt(mesh.area / 5_000), 0.05 * np.linalg.norm(mesh.extents)))
    solid = _Solid(_cut(mesh, spacing)[-1], spacing)
    directions = rng.normal(size=(_DIRECTIONS, 3))
    directions /= np.linalg.norm(directions, axis=-1, keepdims=True)
    shell = (spheres[:, None, :3] + spheres[:, None, 3:] * directions).reshape(-1, 3)
    shell = shell[~solid.lookup(solid.inside, shell)]
    overshoot = float(solid.tree.query(shell)[0].max(initial=0.0))

    low = (spheres[:, :3] - spheres[:, 3:]).min(0)
    high = (spheres[:, :3] + spheres[:, 3:]).max(0)
    space = low + (high - low) * rng.random((_SAMPLES, 3))
    filled = solid.lookup(solid.filled, space)
    held = _held(space, spheres)
    excess = float((held & ~filled).sum() / max(int(filled.sum()), 1))
    return Fit(spheres, overshoot, excess, outside, samples)


def _held(points: np.ndarray, spheres: np.ndarray) -> np.ndarray:
    """Tell which points lie in a sphere, [N] bool."""
    held = np.zeros(len(points), bool)
    for x, y, z, radius in spheres:
        held |= ((points - (x, y, z)) ** 2).sum(-1) <= radius**2
    return held
