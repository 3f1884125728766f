"""Full turns of joints, which leave the pose as it is, and turning a chain about its first joint."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mfik.kinematics.se3 import azimuth

FULL_TURN = 2.0 * math.pi  # [rad]


def wrap(angle: Tensor) -> Tensor:
    """Take full turns off an angle [rad] so that it lies in [-pi, pi]."""
    return angle - FULL_TURN * torch.round(angle / FULL_TURN)


def nearest_turn(q: Tensor, q_near: Tensor, lower: Tensor | float, upper: Tensor | float) -> Tensor:
    """Turn joints by full turns towards others as far as the limits allow.

    Args:
        q: Angles within the limits [rad], [...].
        q_near: Angles to come near to [rad], [...].
        lower: Lower limits [rad]; -inf where there is none.
        upper: Upper limits [rad]; inf where there is none.

    Returns:
        Angles [rad], [...].
    """
    turns = ((q_near - q) / FULL_TURN).round()
    return q + FULL_TURN * turns.clamp(((lower - q) / FULL_TURN).ceil(), ((upper - q) / FULL_TURN).floor())


def turn_to_azimuth(q: Tensor, direction: Tensor, base: Tensor, position: Tensor) -> None:
    """Turn the first joint, in place and by half a turn at most, until the tool is at the azimuth of a target.

    Args:
        q: Joints of a chain whose first joint turns [rad or m], [N, J].
        direction: Azimuth of the tool at q [rad], [] or [N].
        base: Frame of the first joint before its motion [R | p] ([m]), [3, 4].
        position: Targets [m], [N, 3].
    """
    q[:, 0] += wrap(azimuth(base, position) - direction)
