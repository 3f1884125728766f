"""Ops `geometry` and `geometry_backward`: what network type v2 sees of a state and its target, and its gradient.

The PyTorch reference beside them is `mfik.model.v2.Geometry.reference`.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mfik.ops._backend import has_kernel, launch
from mfik.ops._reference import RobotLike
from mfik.ops.kinematics import kind_codes


class GeometryRobot(NamedTuple):
    """What the kernels take of a robot: contiguous float64 tensors on the CPU, and the number of features."""

    origins: Tensor
    kinds: list[int]
    lower: Tensor
    upper: Tensor
    size: int

    @classmethod
    def of(cls, robot: RobotLike, size: int) -> GeometryRobot:
        """Return the constants of a robot whose geometry has `size` features."""
        lower, upper = robot.limits()
        origins, lower, upper = (x.double().contiguous() for x in (robot.chain.transforms(), lower, upper))
        return cls(origins, kind_codes(robot), lower, upper, size)

    def addresses(self) -> tuple[int, list[int], int, int]:
        """Return the kernels' arguments."""
        return self.origins.data_ptr(), self.kinds, self.lower.data_ptr(), self.upper.data_ptr()


def has_geometry(like: Tensor) -> bool:
    """Tell whether the kernels run on a tensor's device, for its dtype."""
    return like.dtype in (torch.float32, torch.float64) and has_kernel("geometry", like.device)


def geometry(robot: GeometryRobot, q: Tensor, target_pose: Tensor) -> tuple[Tensor, Tensor]:
    """Compute features [N, size] and squared pose errors [N, 1], in float64 whatever the dtype; without gradient.

    Args:
        robot: Constants of the robot.
        q: Joints [rad or m], [N, J], float32 or float64.
        target_pose: T_base_tool [m], unit quaternion of either sign, [N, 7], of q's dtype.
    """
    q, target_pose = q.contiguous(), target_pose.contiguous()
    features, error2 = q.new_empty(len(q), robot.size), q.new_empty(len(q), 1)
    inputs, outputs = [q.data_ptr(), target_pose.data_ptr()], [features.data_ptr(), error2.data_ptr()]
    launch("geometry", q, inputs, *robot.addresses(), outputs, len(q))
    return features, error2


def geometry_backward(
    robot: GeometryRobot, q: Tensor, target_pose: Tensor, by_features: Tensor, by_error2: Tensor
) -> Tensor:
    """Return the gradient by q, [N, J], of gradients by what `geometry` returns, [N, size] and [N, 1]."""
    arrays = [x.contiguous() for x in (q, target_pose, by_features, by_error2)]
    by_q = arrays[0].new_empty(q.shape)
    launch("geometry_backward", q, [x.data_ptr() for x in arrays], *robot.addresses(), by_q.data_ptr(), len(q))
    return by_q
