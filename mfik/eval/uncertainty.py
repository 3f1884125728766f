"""A calibrated estimate of the pose error of a one-step solution, from the network alone.

A mean velocity that obeys its identity reaches the same end in one step over [0, 1] as in two half steps. How far the
two ends lie apart tells how far the network is from that, and so from the pose. `ErrorCalibration` turns that distance
into quantiles of the position and rotation error, read off rows that the network has not seen.

Use it when running the exported graph without kinematics. With forward kinematics at hand, as in the solver, the error
itself is cheaper than this estimate (docs/measurements/training.md).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn

from mfik.errors import ArgumentError
from mfik.kinematics import position_error_m, rotation_error_rad
from mfik.robots import Robot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9, 0.95)  # of the quantiles that bounds are
CALIBRATION_ROWS = 20_000  # that evaluation and report calibrate on, ten times the least number
_BINS = 20  # of the distance between one step and two, with equally many rows each
_ROWS_A_BIN = 100  # enough for the 0.95 quantile of a bin


class ErrorEstimate(NamedTuple):
    """One-step solutions and bounds of their errors; a bound of level p is kept with probability p."""

    q_solution: Tensor  # [rad] or [m], [N, J]
    pos_error_m: Tensor  # [N, len(LEVELS)]
    rot_error_rad: Tensor  # [N, len(LEVELS)]


@torch.no_grad()
def one_and_two_steps(model: nn.Module, q_ref: Tensor, target_pose: Tensor) -> tuple[Tensor, Tensor]:
    """Return the solutions q_ref [N, J] -> [N, J] of one step over [0, 1] and of two half steps."""

    def advance(q: Tensor, start: float, end: float) -> Tensor:
        r, t = q.new_full((len(q), 1), start), q.new_full((len(q), 1), end)
        return q + (end - start) * model(q, target_pose, r, t)

    return advance(q_ref, 0.0, 1.0), advance(advance(q_ref, 0.0, 0.5), 0.5, 1.0)


@dataclass(frozen=True)
class ErrorCalibration:
    """Quantiles of the pose error by how far one step and two half steps lie apart.

    Attributes:
        edges: Bounds between the bins of that distance, [rad], [bins - 1].
        pos_m: Position error quantiles of each bin, [bins, len(LEVELS)].
        rot_rad: Rotation error quantiles of each bin, [bins, len(LEVELS)].
    """

    edges: Tensor
    pos_m: Tensor
    rot_rad: Tensor

    @classmethod
    def fit(cls, model: nn.Module, robot: Robot, q_ref: Tensor, target_pose: Tensor) -> ErrorCalibration:
        """Read the quantiles off rows that were not trained on.

        Args:
            model: Network in evaluation mode.
            robot: Its robot.
            q_ref: References, [N, J], N at least 2,000, distributed as those that will be asked about.
            target_pose: Poses, [N, 7].

        Raises:
            ArgumentError: there are too few rows.
        """
        if len(q_ref) < _BINS * _ROWS_A_BIN:
            raise ArgumentError(f"q_ref: expected at least {_BINS * _ROWS_A_BIN} rows, got {len(q_ref)}")
        q, q_two = one_and_two_steps(model, q_ref, target_pose)
        distance = (q_two - q).norm(dim=-1)
        edges = distance.quantile(torch.linspace(0, 1, _BINS + 1, device=q.device)[1:-1])
        bins = torch.bucketize(distance, edges)
        pose = robot.fk(q)
        levels = torch.tensor(LEVELS, device=q.device)
        errors = (position_error_m(pose, target_pose), rotation_error_rad(pose, target_pose))
        pos, rot = (torch.stack([error[bins == k].quantile(levels) for k in range(_BINS)]) for error in errors)
        return cls(edges, pos, rot)

    def estimate(self, model: nn.Module, q_ref: Tensor, target_pose: Tensor) -> ErrorEstimate:
        """Solve in one step and bound the errors; three evaluations of the network, no kinematics."""
        q, q_two = one_and_two_steps(model, q_ref, target_pose)
        bins = torch.bucketize((q_two - q).norm(dim=-1), self.edges)
        return ErrorEstimate(q, self.pos_m[bins], self.rot_rad[bins])


class Reliability(NamedTuple):
    """How well an estimate keeps its promise on other rows."""

    coverage_pos: list[float]  # share of rows whose position error is within the bound of each of LEVELS
    coverage_rot: list[float]  # the same of the rotation error
    rank_correlation_pos: float  # Spearman's, of the median estimate with the true position error
    rank_correlation_rot: float


def reliability(estimate: ErrorEstimate, robot: Robot, target_pose: Tensor) -> Reliability:
    """Compare an estimate for poses [N, 7] with the errors that forward kinematics finds."""
    pose = robot.fk(estimate.q_solution)
    pairs = (
        (estimate.pos_error_m, position_error_m(pose, target_pose)),
        (estimate.rot_error_rad, rotation_error_rad(pose, target_pose)),
    )
    coverage = [(error.unsqueeze(-1) <= bound).float().mean(0).tolist() for bound, error in pairs]
    correlation = []
    for bound, error in pairs:
        ranks = torch.stack([bound[:, 0].argsort().argsort(), error.argsort().argsort()]).double()
        correlation.append(torch.corrcoef(ranks)[0, 1].item())
    (pos, rot), (rank_pos, rank_rot) = coverage, correlation
    return Reliability(pos, rot, rank_pos, rank_rot)


def plot_reliability(path: Path, result: Reliability) -> None:
    """Draw promised against observed coverage as PNG (needs matplotlib, extra `viz`)."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5, 5), layout="constrained")
    draw_reliability(figure.add_subplot(), result)
    figure.savefig(path, dpi=120)


def draw_reliability(axes: Axes, result: Reliability) -> None:
    """Draw promised against observed coverage into a picture."""
    axes.set(xlabel="promised coverage", ylabel="observed coverage", aspect="equal")
    axes.plot([0.4, 1], [0.4, 1], color="gray", linestyle="--", label="perfect")
    axes.plot(LEVELS, result.coverage_pos, marker="o", label="position")
    axes.plot(LEVELS, result.coverage_rot, marker="s", label="rotation")
    axes.grid(alpha=0.3)
    axes.legend()
