"""The part of the report on the reliability of the error estimate."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from mfik.eval.report.study import Study
from mfik.eval.targets import make_targets
from mfik.eval.uncertainty import CALIBRATION_ROWS, LEVELS, ErrorCalibration, draw_reliability, reliability
from mfik.kinematics import position_error_m

if TYPE_CHECKING:
    from matplotlib.axes import Axes


def add_reliability(study: Study) -> None:
    """Promised against observed coverage of the error estimate."""
    network, robot, page = study.network, study.solver.robot, study.page
    page.heading("Reliability of the error estimate")
    if network is None:
        page.paragraph("Left out: it takes the network in PyTorch.")
        return
    others = make_targets(robot, CALIBRATION_ROWS, seed=study.seed + 1)
    targets = study.sets["global"]
    seen, asked = ([torch.from_numpy(array).float() for array in (t.q_ref, t.pose)] for t in (others, targets))
    estimate = ErrorCalibration.fit(network, robot, *seen).estimate(network, *asked)
    result = reliability(estimate, robot, asked[1])
    study.report["uncertainty"] = {"levels": LEVELS, **result._asdict()}
    error_mm = 1e3 * position_error_m(robot.fk(estimate.q_solution), asked[1])
    bound_mm = 1e3 * estimate.pos_error_m[:, 0]
    bounds = bound_mm.unique()
    quartiles = torch.stack([error_mm[bound_mm == b].quantile(torch.tensor([0.25, 0.5, 0.75])) for b in bounds]).T

    def draw_error(axes: Axes) -> None:
        axes.fill_between(bounds, quartiles[0], quartiles[2], color="C0", alpha=0.25, label="middle half of the errors")
        axes.plot(bounds, quartiles[1], color="C0", marker="o", label="median error")
        axes.plot(bounds, bounds, color="gray", linestyle="--", label="perfect")
        axes.set(xlabel="estimated median [mm]", ylabel="true position error [mm]")
        axes.legend()

    at = LEVELS.index(0.9)
    page.figure(
        "How well bounds of the one-step error, estimated by the network alone, keep their promise: of bounds promised "
        f"for 90% of the poses {result.coverage_pos[at]:.1%} hold (rotation {result.coverage_rot[at]:.1%}), and the "
        f"estimated median follows the true error with a rank correlation of {result.rank_correlation_pos:.2f} "
        f"(rotation {result.rank_correlation_rot:.2f}); calibrated on {CALIBRATION_ROWS:,} global poses of seed "
        f"{study.seed + 1}.",
        {
            "Coverage promised and observed": lambda axes: draw_reliability(axes, result),
            "True error by its estimate": draw_error,
        },
    )
