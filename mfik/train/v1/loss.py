"""The MeanFlow loss (docs/concepts.md).

For the straight flow q(s) = q0 + s (q1 - q0) with velocity v, the mean velocity u(q, r, t) of the flow that is at q at
time r obeys u = v + (t - r) D, with D = du/dr + v . grad_q u, because the end point of a trajectory does not move with
its start. D is one Jacobian-vector product with tangents (v, 1) for (q, r).
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from mfik.errors import ArgumentError
from mfik.ops import Batch
from mfik.robots import Robot
from mfik.train.v1.config import TrainConfig

_FK_SMOOTHING = 1e-6  # [m^2, rad^2]: keeps the gradient of the error's norm finite at zero error


class LossOutput(NamedTuple):
    """Loss of a batch and what is logged of it; all but `loss` are detached scalars."""

    loss: Tensor
    meanflow_residual: Tensor  # mean norm of u - (v + (t - r) D)
    velocity_norm: Tensor  # mean norm of u
    fk_loss: Tensor  # mean forward-kinematics error of the one-step solutions, 0 when off


def jvp_target(model: nn.Module, q: Tensor, target_pose: Tensor, r: Tensor, t: Tensor, v: Tensor) -> Tensor:
    """Return v + (t - r) D, what u(q, r, t) has to equal, [N, J], without gradient."""
    with torch.no_grad():
        _, derivative = total_derivative(model, q, target_pose, r, t, v)
    return v + (t - r) * derivative


def total_derivative(
    model: nn.Module, q: Tensor, target_pose: Tensor, r: Tensor, t: Tensor, v: Tensor
) -> tuple[Tensor, Tensor]:
    """Return u and D = du/dr + v . grad_q u, each [N, J]."""
    return torch.func.jvp(lambda q, r: model(q, target_pose, r, t), (q, r), (v, torch.ones_like(r)))


def meanflow_loss(model: nn.Module, batch: Batch, num_jvp: int, num_endpoint: int, config: TrainConfig, robot: Robot):
    """Return the loss of a batch drawn by `mfik.ops.sample_batch`.

    Args:
        model: u(q, target_pose, r, t) -> [B, J].
        batch: Rows; the first `num_jvp` have t > r, of which the first `num_endpoint` are at (0, 1); the others have
            t = r, where the identity reads u = v and needs no JVP.
        num_jvp: Rows that pay for the JVP.
        num_endpoint: Rows whose one-step solution enters the forward-kinematics loss.
        config: `loss_type`, `loss_weight_type`, `adaptive_weight_*`, `fk_loss_weight`.
        robot: Robot of the batch, for the forward-kinematics loss.

    Returns:
        LossOutput.
    """
    if config.loss_type == "residual":
        u, residual = total_derivative(model, batch.q, batch.target_pose, batch.r, batch.t, batch.v)
    else:
        u = model(batch.q, batch.target_pose, batch.r, batch.t).float()
        target = batch.v
        if num_jvp:
            jvp_rows = (tensor[:num_jvp] for tensor in (batch.q, batch.target_pose, batch.r, batch.t, batch.v))
            with torch.autocast(u.device.type, enabled=False):  # tangents in float32
                target = torch.cat((jvp_target(model, *jvp_rows), target[num_jvp:]))
        residual = u - target
    squared = residual.square().sum(-1, keepdim=True)
    if config.loss_weight_type == "adaptive":
        weight = batch.weight
    elif config.loss_weight_type == "error":
        weight = (squared.detach() + config.adaptive_weight_c) ** -config.adaptive_weight_p
    elif config.loss_weight_type == "uniform":
        weight = torch.ones_like(squared)
    else:
        raise ArgumentError(f"loss_weight_type: unknown {config.loss_weight_type!r}")
    loss = (weight * squared).mean()
    fk_loss = torch.zeros((), device=loss.device)
    if config.fk_loss_weight and num_endpoint:
        fk_loss = fk_error(robot, batch.q[:num_endpoint] + u[:num_endpoint], batch.target_pose[:num_endpoint])
        loss = loss + config.fk_loss_weight * fk_loss
    return LossOutput(
        loss,
        squared.detach().sqrt().mean(),
        u.detach().norm(dim=-1).mean(),
        fk_loss.detach(),
    )


def fk_error(robot: Robot, q: Tensor, target_pose: Tensor) -> Tensor:
    """Return the mean of position error [m] + rotation error [chord of the half angle, about rad] at joints q [N, J]."""
    pose = robot.fk(q)
    position = (pose[:, :3] - target_pose[:, :3]).square().sum(-1)
    cosine = (pose[:, 3:] * target_pose[:, 3:]).sum(-1)  # of the half angle
    rotation = 4 * (1 - cosine.square()).clamp_min(0)  # = 4 sin^2(angle/2), smooth for every angle
    return ((position + _FK_SMOOTHING).sqrt() + (rotation + _FK_SMOOTHING).sqrt()).mean()
