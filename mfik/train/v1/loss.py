"""The MeanFlow loss (docs/explanation/concepts.md).

For the straight flow q(s) = q0 + s (q1 - q0) with velocity v, the mean velocity u(q, r, t) of the flow that is at q at
time r obeys u = v + (t - r) D, with D = du/dr + v . grad_q u, because the end point of a trajectory does not move with
its start. D is one Jacobian-vector product with tangents (v, 1) for (q, r).
"""

from __future__ import annotations

import math
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mfik import ops
from mfik.errors import ArgumentError
from mfik.ops import Batch
from mfik.robots import Robot
from mfik.train.v1.config import WEIGHT_TYPES, TrainConfig


class LossOutput(NamedTuple):
    """Loss of a batch and what is logged of it; all but `loss` are detached."""

    loss: Tensor
    meanflow_residual: Tensor  # mean norm of u - (v + (t - r) D)
    velocity_norm: Tensor  # mean norm of u
    fk_loss: Tensor  # mean forward-kinematics error of the one-step solutions, 0 when off
    jvp_norm: Tensor  # mean norm of D on the rows that need it, 0 when none does
    row_loss: Tensor  # weighted squared residual of each row, [B, 1]


def jvp_target(model: nn.Module, q: Tensor, target_pose: Tensor, r: Tensor, t: Tensor, v: Tensor) -> Tensor:
    """Return v + (t - r) D, what u(q, r, t) has to equal, [N, J], without gradient."""
    with torch.no_grad():
        _, derivative = total_derivative(model, q, target_pose, r, t, v)
    return v + (t - r) * derivative


def total_derivative(
    model: nn.Module, q: Tensor, target_pose: Tensor, r: Tensor, t: Tensor, v: Tensor
) -> tuple[Tensor, Tensor]:
    """Return u and D = du/dr + v . grad_q u, each [N, J]."""
    pair = torch.func.jvp(lambda q, r: model(q, target_pose, r, t), (q, r), (v, torch.ones_like(r)))
    return cast(tuple[Tensor, Tensor], pair)


def velocity_and_derivative(model: nn.Module, batch: Batch, tangent: Tensor) -> tuple[Tensor, Tensor]:
    """Return u of all rows [B, J], with gradient, and D along `tangent` [n, J] of the first n rows [n, J], without.

    One pass where the model has `forward_with_tangent`, under autocast in its precision; else a second pass by
    `torch.func.jvp`, in float32.
    """
    if isinstance(model, (VelocityAndDerivative, DistributedDataParallel)):
        return model(batch, tangent)
    state = (batch.q, batch.target_pose, batch.r, batch.t)
    num_jvp = len(tangent)
    with_tangent = getattr(model, "forward_with_tangent", None)
    if num_jvp and with_tangent is not None:
        u, derivative = with_tangent(*state, tangent)
        return u.to(tangent.dtype), derivative.to(tangent.dtype)
    u = model(*state).to(tangent.dtype)
    if num_jvp == 0:
        return u, tangent
    with torch.no_grad(), torch.autocast(batch.q.device.type, enabled=False):
        q, target_pose, r, t = (tensor[:num_jvp] for tensor in state)
        _, derivative = total_derivative(model, q, target_pose, r, t, tangent)
    return u, derivative


class VelocityAndDerivative(nn.Module):
    """`velocity_and_derivative` of a model as a module.

    What `DistributedDataParallel` has to wrap, as it averages the gradients of a forward pass through itself only, and
    what is compiled: `torch.func.jvp` goes through neither.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, batch: Batch, tangent: Tensor) -> tuple[Tensor, Tensor]:
        """Return `velocity_and_derivative(self.model, batch, tangent)`."""
        return velocity_and_derivative(self.model, batch, tangent)


def meanflow_loss(
    model: nn.Module, batch: Batch, num_jvp: int, num_endpoint: int, config: TrainConfig, robot: Robot
) -> LossOutput:
    """Return the loss of a batch drawn by `mfik.ops.sample_batch`.

    Args:
        model: u(q, target_pose, r, t) -> [B, J], or its `VelocityAndDerivative`, or that in `DistributedDataParallel`.
        batch: Rows; the first `num_jvp` have t > r, of which the first `num_endpoint` are at (0, 1); the others have
            t = r, where the identity reads u = v and needs no JVP.
        num_jvp: Rows that pay for the JVP.
        num_endpoint: Rows whose one-step solution enters the forward-kinematics loss.
        config: `loss_type`, `loss_weight_type`, `adaptive_weight_*`, `fk_loss_weight`,
            `limit_loss_weight`, `jvp_*`, `hard_ratio`.
        robot: Robot of the batch, for the forward-kinematics loss.

    Returns:
        LossOutput.
    """
    network = model.module if isinstance(model, DistributedDataParallel) else model
    network = network.model if isinstance(network, VelocityAndDerivative) else network
    v, r, t = batch.v, batch.r, batch.t
    if config.loss_type == "residual":
        pair = total_derivative(network, batch.q, batch.target_pose, r, t, v)
        u, derivative = (x.to(v.dtype) for x in pair)  # under autocast they are rounded
        residual_of = (derivative, torch.zeros_like(v), v[:0])
    else:
        if config.loss_type == "regression":
            num_jvp = 0
        tangent = v[:num_jvp]
        if config.jvp_tangent == "predicted" and num_jvp:
            with torch.no_grad():
                tangent = network(batch.q[:num_jvp], batch.target_pose[:num_jvp], r[:num_jvp], r[:num_jvp]).to(v.dtype)
        u, derivative = velocity_and_derivative(model, batch, tangent)
        residual_of = (u, v, derivative)
    row_loss, squared = ops.weighted_residual_loss(
        *residual_of,
        r,
        t,
        row_weight(config, batch),
        clip=config.jvp_clip,
        c=config.adaptive_weight_c,
        p=config.adaptive_weight_p,
    )
    hardest = row_loss.flatten().topk(math.ceil(config.hard_ratio * len(row_loss))).values
    loss = (hardest if config.hard_ratio < 1 else row_loss).mean()
    fk_loss = torch.zeros((), device=loss.device)
    if config.fk_loss_weight and num_endpoint:
        fk_loss = ops.fk_error(robot, batch.q + u, batch.target_pose, num_endpoint)
        loss = loss + config.fk_loss_weight * fk_loss
    if config.limit_loss_weight and num_endpoint:
        q = batch.q[:num_endpoint] + u[:num_endpoint]
        beyond = q - robot.clamp(q)
        loss = loss + config.limit_loss_weight * beyond.square().sum(-1).mean()
    return LossOutput(
        loss,
        squared.sqrt().mean(),
        u.detach().norm(dim=-1).mean(),
        fk_loss.detach(),
        derivative.detach().norm(dim=-1).sum() / max(1, len(derivative)),
        row_loss.detach(),
    )


def row_weight(config: TrainConfig, batch: Batch) -> Tensor | None:
    """Return the weight of each row's squared residual, [B, 1], by `config.loss_weight_type`.

    None stands for the weight by the residual itself, (||u - (v + (t - r) D)||^2 + c)^-p, which the loss computes in
    the pass that computes the residual.
    """
    if config.loss_weight_type == "adaptive":  # (||q_target - q||^2 + c)^-p
        return batch.weight
    if config.loss_weight_type == "uniform":
        return torch.ones_like(batch.weight)
    if config.loss_weight_type == "error":
        return None
    raise ArgumentError(f"loss_weight_type: expected one of {WEIGHT_TYPES}, got {config.loss_weight_type!r}")
