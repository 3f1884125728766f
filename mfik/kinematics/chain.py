"""A serial chain: what is fixed about a robot's kinematics."""

from __future__ import annotations

import math
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
    """A serial chain in z-aligned normal form: every frame moves about or along its own z axis.

    Each of the J joints moves one of the F frames, and mimic joints move the others.

    Args:
        origins: Transform [R | p] ([m]) from frame f-1, moved, to frame f before its motion; row 0 starts at the base,
            row F ends at the tool. [F+1, 3, 4], float64; kept as a read-only copy.
        kinds: One of JOINT_KINDS per frame, length F, 1 <= F <= MAX_JOINTS.
        mimics: For each frame the number of the joint before it that it follows, and its multiplier [rad or m per rad
            or m]; None where it has a joint of its own. Empty: all have, and F = J.
    Raises:
        RobotError: A shape, kind or value above does not hold, or an origin is no rigid transform.
    """

    origins: np.ndarray
    kinds: tuple[str, ...]
    mimics: tuple[tuple[int, float] | None, ...] = ()
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
        if self.mimics and len(self.mimics) != len(self.kinds):
            raise RobotError(f"mimics: expected one for each of {len(self.kinds)} kinds, or none, got {self.mimics}")
        joints = 0
        for mimic in self.mimics:
            if mimic is None:
                joints += 1
            elif not (0 <= mimic[0] < joints and math.isfinite(mimic[1]) and mimic[1] != 0):
                raise RobotError(f"mimics: expected a joint before it and a multiplier other than 0, got {mimic}")

    def __reduce__(self) -> tuple[Any, ...]:
        """Copy and pickle what the chain is made of, not what was computed from it."""
        return Chain, (self.origins, self.kinds, self.mimics)

    @property
    def dof(self) -> int:
        """Number of joints J."""
        return len(self.kinds) - sum(mimic is not None for mimic in self.mimics)

    @property
    def joint_kinds(self) -> tuple[str, ...]:
        """Kind of each joint, length J."""
        return tuple(kind for f, kind in enumerate(self.kinds) if not self.mimics or self.mimics[f] is None)

    def check_no_mimics(self, what: str) -> None:
        """Raise RobotError where the chain has mimic joints, which `what` does not support."""
        if any(mimic is not None for mimic in self.mimics):
            raise RobotError(
                f"{what}: mimic joints are not supported, and the chain has one; they are for arrays, and for the C++ "
                "solver without network and collision (mfik.solve.Solver.from_robot)"
            )

    def transforms(self, like: Tensor | None = None) -> Tensor:
        """Return `origins` as a tensor of `like`'s dtype and device, default float64 on the CPU. Do not write to it.

        Raises:
            RobotError: The chain has mimic joints.
        """
        self.check_no_mimics("tensors")
        return keep(self.tensors, "origins", like, lambda: to_tensor(self.origins, like))

    @cached_property
    def native(self) -> Any:
        """The chain in C++ (`mfik._native.Chain`), which computes `fk` and `jacobian` of arrays.

        Raises:
            ImportError: The native extension is missing.
        """
        return load_native().Chain(self.origins, self.kinds, self.mimics)


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
