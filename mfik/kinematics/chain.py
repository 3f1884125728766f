"""A serial chain: what is fixed about a robot's kinematics."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from mfik.errors import RobotError
from mfik.kinematics.tensors import keep, to_tensor
from mfik.native import load_native

if TYPE_CHECKING:
    from torch import Tensor

JOINT_KINDS = ("revolute", "continuous", "prismatic")
MAX_JOINTS = 16
ROTATION_TOLERANCE = 1e-9  # largest entry of R^T R - I; rotations computed in float64 stay under 1e-15


@dataclass(frozen=True, eq=False)
class Chain:
    """A serial chain in z-aligned normal form: every joint moves about or along its own z axis.

    Args:
        origins: Transform [R | p] ([m]) from joint j-1's moved frame to joint j's frame before its motion; row 0 starts
            at the base, row J ends at the tool. [J+1, 3, 4], float64; kept as a read-only copy.
        kinds: One of JOINT_KINDS per joint, length J, 1 <= J <= MAX_JOINTS.
    Raises:
        RobotError: A shape, kind or value above does not hold, or an origin is no rigid transform.
    """

    origins: np.ndarray
    kinds: tuple[str, ...]
    tensors: dict[Any, Tensor] = field(init=False, repr=False, default_factory=dict)  # what `keep` keeps

    def __post_init__(self) -> None:
        if not 1 <= len(self.kinds) <= MAX_JOINTS:
            raise RobotError(f"kinds: expected 1 to {MAX_JOINTS} joints, got {len(self.kinds)}; choose other end links")
        for kind in self.kinds:
            if kind not in JOINT_KINDS:
                raise RobotError(f"kinds: expected each to be one of {JOINT_KINDS}, got {kind!r}")
        origins = read_only("origins", self.origins, (len(self.kinds) + 1, 3, 4), "one per joint and the tool")
        rotation, translation = origins[..., :3], origins[..., 3]
        defect = np.abs(np.swapaxes(rotation, -2, -1) @ rotation - np.eye(3)).max((-2, -1))
        with np.errstate(invalid="ignore"):  # NaN is refused below
            turns = np.linalg.det(rotation) > 0
        rigid = (defect <= ROTATION_TOLERANCE) & turns & np.isfinite(translation).all(-1)
        if not rigid.all():
            row = int(np.flatnonzero(~rigid)[0])
            raise RobotError(f"origins[{row}]: expected a rigid transform [R | p], got {origins[row].tolist()}")
        object.__setattr__(self, "origins", origins)

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle what the chain is made of, not what was computed from it."""
        return Chain, (self.origins, self.kinds)

    @property
    def dof(self) -> int:
        """Number of joints J."""
        return len(self.kinds)

    def transforms(self, like: Tensor | None = None) -> Tensor:
        """Return `origins` as a tensor of `like`'s dtype and device, default float64 on the CPU. Do not write to it."""
        return keep(self.tensors, "origins", like, lambda: to_tensor(self.origins, like))

    @cached_property
    def native(self) -> Any:
        """The chain in C++ (`mfik._native.Chain`), which computes `fk` and `jacobian` of arrays.

        Raises:
            ImportError: The native extension is missing.
        """
        return load_native().Chain(self.origins, self.kinds)


def read_only(name: str, value: Any, shape: tuple[int, ...], meaning: str) -> np.ndarray:
    """Return a copy of a float64 array that nobody can write to; raise RobotError for another shape or dtype."""
    array = np.array(np.asarray(value), order="C")
    if array.shape != shape or array.dtype != np.float64:
        raise RobotError(
            f"{name}: expected {list(shape)} float64 ({meaning}), got {list(array.shape)} {array.dtype}; "
            "convert with numpy.asarray(..., numpy.float64)"
        )
    array.flags.writeable = False
    return array
