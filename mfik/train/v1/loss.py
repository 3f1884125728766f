"""The MeanFlow loss (docs/concepts.md).

For the straight flow q(s) = q0 + s (q1 - q0) with velocity v, the mean velocity u(q, r, t) of the flow that is at q at
time r obeys u = v + (t - r) D, with D = du/dr + v . grad_q u, because the end point of a trajectory does not move with
its start. D is one Jacobian-vector product with tangents (v, 1) for (q, r).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from mfik import ops
from mfik.errors import ArgumentError
from mfik.ops import Batch
from mfik.robots import Robot
from mfik.train.v1.config import TrainConfig

_FK_SMOOTHING = 1e-6  # [m^2, rad^2]: keeps the gradient of the error's norm finite at zero error


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
    return torch.func.jvp(lambda q, r: model(q, target_pose, r, t), (q, r), (v, torch.ones_like(r)))


def velocity_and_derivative(model: nn.Module, batch: Batch, tangent: Tensor) -> tuple[Tensor, Tensor]:
    """Return u of all rows [B, J], with gradient, and D along `tangent` [n, J] of the first n rows [n, J], without.

    One pass where the model has `forward_with_tangent`, else a second one by `torch.func.jvp`. Under autocast the
    tangents stay in float32, in a pass of their own beside the one that is trained (with its own dropout mask).
    """
    if isinstance(model, DistributedDataParallel):  # of VelocityAndDerivative
        return model(batch, tangent)
    state = (batch.q, batch.target_pose, batch.r, batch.t)
    device = batch.q.device.type
    num_jvp = len(tangent)
    one_pass = hasattr(model, "forward_with_tangent")
    if num_jvp and one_pass and not torch.is_autocast_enabled(device):
        return model.forward_with_tangent(*state, tangent)
    u = model(*state).float()
    if num_jvp == 0:
        return u, tangent
    rows = [*(tensor[:num_jvp] for tensor in state), tangent]
    with torch.no_grad(), torch.autocast(device, enabled=False):
        _, derivative = model.forward_with_tangent(*rows) if one_pass else total_derivative(model, *rows)
    return u, derivative


class VelocityAndDerivative(nn.Module):
    """`velocity_and_derivative` of a model as a module.

    What `DistributedDataParallel` has to wrap: it averages the gradients of a forward pass through itself only, and
    `torch.func.jvp` through it fails.
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
        model: u(q, target_pose, r, t) -> [B, J], or a `DistributedDataParallel` of its `VelocityAndDerivative`.
        batch: Rows; the first `num_jvp` have t > r, of which the first `num_endpoint` are at (0, 1); the others have
            t = r, where the identity reads u = v and needs no JVP.
        num_jvp: Rows that pay for the JVP.
        num_endpoint: Rows whose one-step solution enters the forward-kinematics loss.
        config: `loss_type`, `loss_weight_type`, `adaptive_weight_*`, `fk_loss_weight`, `jvp_*`, `hard_ratio`.
        robot: Robot of the batch, for the forward-kinematics loss.

    Returns:
        LossOutput.
    """
    if config.loss_type == "residual":
        u, residual = total_derivative(model, batch.q, batch.target_pose, batch.r, batch.t, batch.v)
        derivative = residual
    else:
        tangent = batch.v[:num_jvp]
        if config.jvp_tangent == "predicted" and num_jvp:
            with torch.no_grad():
                network = model.module.model if isinstance(model, DistributedDataParallel) else model
                r = batch.r[:num_jvp]
                tangent = network(batch.q[:num_jvp], batch.target_pose[:num_jvp], r, r).float()
        u, derivative = velocity_and_derivative(model, batch, tangent)
        target = batch.v
        if num_jvp:
            correction = (batch.t - batch.r)[:num_jvp] * derivative
            if config.jvp_clip:
                largest = config.jvp_clip * target[:num_jvp].norm(dim=-1, keepdim=True)
                correction = correction * (largest / correction.norm(dim=-1, keepdim=True)).clamp(max=1)
            target = torch.cat((target[:num_jvp] + correction, target[num_jvp:]))
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
    row_loss = weight * squared
    hardest = row_loss.flatten().topk(math.ceil(config.hard_ratio * len(row_loss))).values
    loss = (hardest if config.hard_ratio < 1 else row_loss).mean()
    fk_loss = torch.zeros((), device=loss.device)
    if config.fk_loss_weight and num_endpoint:
        fk_loss = fk_error(robot, batch.q[:num_endpoint] + u[:num_endpoint], batch.target_pose[:num_endpoint])
        loss = loss + config.fk_loss_weight * fk_loss
    return LossOutput(
        loss,
        squared.detach().sqrt().mean(),
        u.detach().norm(dim=-1).mean(),
        fk_loss.detach(),
        derivative.detach().norm(dim=-1).sum() / max(1, len(derivative)),
        row_loss.detach(),
    )


def fk_error(robot: Robot, q: Tensor, target_pose: Tensor) -> Tensor:
    """Return the mean of position error [m] + rotation error [chord of the half angle, about rad].

    Its gradient with respect to q is exact and needs no backward pass through the chain: in the angle a of a turning
    joint both squared errors are c0 + c1 cos a + c2 sin a, so their slope is half their difference between a + pi/2 and
    a - pi/2; in a sliding joint they are quadratic, so their central difference is the slope. One call of `ops.fk`
    evaluates all 2J + 1 points. There is no second derivative.

    Args:
        robot: Robot of the joints.
        q: Joints [rad or m], [N, J].
        target_pose: T_base_tool [x, y, z, qw, qx, qy, qz], [m], unit quaternion of either sign, [N, 7].

    Returns:
        The error, a scalar.
    """
    n, dof = q.shape
    shift = 0.5 * math.pi
    with torch.no_grad():
        centre = q.double().unsqueeze(1)
        step = shift * torch.eye(dof, dtype=centre.dtype, device=q.device)
        span = [2 * shift if kind == "prismatic" else 2.0 for kind in robot.kinds]
        points = torch.cat((centre, centre + step, centre - step), dim=1)  # [N, 2J + 1, J]
        pose = ops.fk(robot, points.flatten(0, 1)).view(n, 2 * dof + 1, 7)
        target = target_pose.double().unsqueeze(1)
        position = (pose[..., :3] - target[..., :3]).square().sum(-1)
        cosine = (pose[..., 3:] * target[..., 3:]).sum(-1)  # of the half angle
        rotation = 4 * (1 - cosine.square()).clamp_min(0)  # = 4 sin^2(angle/2), smooth for every angle
        squared, ahead, behind = torch.stack((position, rotation)).split([1, dof, dof], dim=-1)
        error = (squared + _FK_SMOOTHING).sqrt()  # [2, N, 1]
        gradient = ((ahead - behind) / (2 * centre.new_tensor(span) * error)).sum(0) / n
        value = error.sum(0).mean()
    return value.to(q.dtype) + (gradient.to(q.dtype) * (q - q.detach())).sum()
