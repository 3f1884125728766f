"""A map of reach: what is known of the poses of a grid."""

from __future__ import annotations

import io
import json
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from mfik.errors import DataError
from mfik.reach.block import ReachStatus
from mfik.writing import whole_file

REACH_FORMAT = 1  # of the .npz file
_ARRAYS = ("x", "y", "z", "orientations", "status", "manipulability_best", "manipulability_mean")


@dataclass(frozen=True, eq=False)
class ReachMap:
    """Which poses of a grid a robot reaches: K orientations at each of X * Y * Z positions.

    Attributes:
        x: Coordinates of the positions in the base frame [m], [X]; so are y, [Y], and z, [Z].
        y: See x.
        z: See x.
        orientations: Unit quaternions [qw, qx, qy, qz], [K, 4].
        status: `ReachStatus` of each pose, [K, X, Y, Z] uint8.
        manipulability_best: Yoshikawa's measure (1985) of the joints found, the largest of the orientations that are
            reached, 0 where there is none, [X, Y, Z] float32. It is the product of the Jacobian's singular values, in
            metres and radians.
        manipulability_mean: The mean of them, likewise.
        document: What the map was asked with: robot, settings, world.
    """

    x: np.ndarray
    y: np.ndarray
    z: np.ndarray
    orientations: np.ndarray
    status: np.ndarray
    manipulability_best: np.ndarray
    manipulability_mean: np.ndarray
    document: dict[str, Any]

    @property
    def share(self) -> np.ndarray:
        """Share of the orientations that are reached, free of collision where that was asked for, [X, Y, Z]."""
        return (self.status == ReachStatus.REACHED).mean(axis=0)

    @property
    def share_with_collision(self) -> np.ndarray:
        """Share of the orientations that are reached by joints that collide or do not, [X, Y, Z]."""
        return (self.status >= ReachStatus.COLLIDING).mean(axis=0)

    def counts(self) -> dict[str, int]:
        """Return the number of poses of each status by its name in lower case, and of all, "poses"."""
        number = np.bincount(self.status.ravel(), minlength=len(ReachStatus))
        return {status.name.lower(): int(number[status]) for status in ReachStatus} | {"poses": self.status.size}

    def save(self, file: str | os.PathLike[str]) -> None:
        """Write the map as an `.npz` file: the arrays by their names, `share`, and `document` as JSON.

        Raises:
            WriteError: The disk is full, the folder is read-only, or the like.
        """
        arrays = {name: getattr(self, name) for name in (*_ARRAYS, "share")}
        data = io.BytesIO()
        np.savez_compressed(data, **arrays, document=np.array(json.dumps(self.document)))
        with whole_file(Path(file)) as target:
            target.write(data.getbuffer())

    @classmethod
    def load(cls, file: str | os.PathLike[str]) -> ReachMap:
        """Read a map that `save` wrote.

        Raises:
            DataError: The file is missing, or is no such map.
        """
        where = os.fspath(file)
        try:
            with np.load(where, allow_pickle=False) as data:
                document = json.loads(str(data["document"]))
                if (document["format"], document["version"]) != ("mfik-reach", REACH_FORMAT):
                    raise ValueError(f"version {document['version']} of {document['format']}")
                return cls(**{name: data[name] for name in _ARRAYS}, document=document)
        except OSError as error:
            raise DataError(f"{where}: cannot read the file ({error.strerror or error}); check the path") from error
        except (KeyError, ValueError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise DataError(f"{where}: expected the reach.npz of a map of reach, got {error}; give another") from error
