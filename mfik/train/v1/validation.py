"""What validation measures of a network on held-out rows."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from mfik import ops
from mfik.kinematics import position_error_m, rotation_error_rad
from mfik.kinematics.refinement import ATTEMPT_REFINEMENTS
from mfik.model import SingleStep
from mfik.robots import Robot
from mfik.train.v1.loss import LossOutput
from mfik.train.v1.step import Sample

VAL_REFINEMENTS = 3  # after which a validation looks for rows within 1e-3 m and rad
_TOLERANCE = 1e-3  # [m] and [rad] of `solved_0` and `solved_3`
_TIME_BINS = 4  # of r in [0, 1], by which the loss is told apart


@torch.no_grad()
def measure(
    model: nn.Module, rows: Mapping[str, Tensor], sample: Sample, output: LossOutput, robot: Robot
) -> dict[str, float]:
    """Return the metrics that `MeanFlowTrainer.validate` lists.

    Args:
        model: Network in evaluation mode.
        rows: Columns of held-out rows, float32, [N, ...].
        sample: Of these rows.
        output: Loss of that sample.
        robot: The robot.
    """
    start, _, _ = ops.sample_batch(
        rows["q"], rows["target_pose"], rows["q_target"], rows["r"],
        seed=0, step=0, num_jvp=len(rows["q"]), num_endpoint=len(rows["q"]),
    )[:3]  # fmt: skip
    q = SingleStep(model)(start, rows["target_pose"])
    metrics = {"val_loss": output.loss.item()}
    quarter = (sample.batch.r * _TIME_BINS).long()
    for k in range(_TIME_BINS):
        if (quarter == k).any():
            metrics[f"loss_r{k}"] = output.row_loss[quarter == k].mean().item()
    pose = ops.fk(robot, q)
    pos_mm = 1e3 * position_error_m(pose, rows["target_pose"])
    rot_deg = torch.rad2deg(rotation_error_rad(pose, rows["target_pose"]))
    for name, error in (("pos_mm", pos_mm), ("rot_deg", rot_deg)):
        metrics[f"{name}_mean"] = error.mean().item()
        metrics[f"{name}_p50"] = error.quantile(0.5).item()
        metrics[f"{name}_p95"] = error.quantile(0.95).item()
    tolerance = _TOLERANCE
    solved = (pos_mm < 1e3 * tolerance) & (rot_deg < math.degrees(tolerance)) & robot.within_limits(q)
    metrics["solved_0"] = solved.float().mean().item()
    _, converged, _ = ops.refine(
        robot, q, rows["target_pose"], max_iterations=VAL_REFINEMENTS, tol_pos=tolerance, tol_rot=tolerance
    )
    metrics[f"solved_{VAL_REFINEMENTS}"] = converged.float().mean().item()
    _, converged, _ = ops.refine(robot, q, rows["target_pose"], max_iterations=ATTEMPT_REFINEMENTS)
    metrics[f"solved_{ATTEMPT_REFINEMENTS}"] = converged.float().mean().item()
    return metrics
