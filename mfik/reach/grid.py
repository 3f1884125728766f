"""The grid of poses, and how it is divided into blocks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from mfik.errors import ArgumentError
from mfik.reach.bounds import DistanceBound
from mfik.reach.settings import ReachSettings

_BLOCK_POSES = 100_000  # at most, a layer of the grid aside: some seconds of work, some 40 MB
_MAX_INDEX = 2**31  # of a layer, so that indices are exact in every type used


@dataclass(frozen=True)
class Grid:
    """Positions that are multiples of the resolution, each with K orientations.

    A block is one orientation at all positions of some layers of x.

    Attributes:
        lower: Index of the first layer along x, y and z: the position divided by the resolution.
        shape: Number of layers along x, y and z.
        orientations: K.
        resolution: [m].
    """

    lower: tuple[int, int, int]
    shape: tuple[int, int, int]
    orientations: int
    resolution: float

    @classmethod
    def of(cls, settings: ReachSettings, bound: DistanceBound, slop: float) -> Grid:
        """Return the grid of the settings.

        Args:
            settings: Resolution, orientations and region.
            bound: Of the tool's origin, around which the region lies by default.
            slop: Error that a position may have [m].
        Raises:
            ArgumentError: No position is in the region, or there are too many to count.
        """
        if settings.box is None:
            low, high = bound.base_point - bound.most - slop, bound.base_point + bound.most + slop
        else:
            low, high = np.split(np.asarray(settings.box), 2)
        h = settings.resolution
        first, last = np.ceil(low / h - 1e-9), np.floor(high / h + 1e-9)
        if not (np.abs([first, last]) < _MAX_INDEX).all():
            raise ArgumentError(f"resolution: expected a grid that can be counted, got {h:g} m; give a larger one")
        lower, shape = first.astype(int).tolist(), (last - first + 1).astype(int).tolist()
        if min(shape) < 1:
            raise ArgumentError(
                f"box: expected one that holds multiples of the resolution, {h:g} m, got {low.tolist()} to "
                f"{high.tolist()}; widen it, or give a smaller resolution"
            )
        return cls(tuple(lower), tuple(shape), len(settings.quaternions), h)

    @property
    def positions(self) -> int:
        """Number of positions."""
        return math.prod(self.shape)

    @property
    def poses(self) -> int:
        """Number of poses."""
        return self.positions * self.orientations

    @property
    def layers(self) -> int:
        """Layers of x in a block."""
        return min(self.shape[0], max(1, _BLOCK_POSES // (self.shape[1] * self.shape[2])))

    @property
    def slabs(self) -> int:
        """Blocks of an orientation."""
        return -(-self.shape[0] // self.layers)

    @property
    def blocks(self) -> int:
        """Number of blocks."""
        return self.slabs * self.orientations

    def block(self, index: int) -> tuple[int, slice]:
        """Return the orientation of a block, and its layers of x."""
        orientation, slab = divmod(index, self.slabs)
        first = slab * self.layers
        return orientation, slice(first, min(first + self.layers, self.shape[0]))

    def axes(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the coordinates of the layers along x, y and z [m]."""
        x, y, z = (
            self.resolution * np.arange(first, first + size) for first, size in zip(self.lower, self.shape, strict=True)
        )
        return x, y, z
