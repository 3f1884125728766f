"""What the parts of the report share: the measurements, colours and marks, the form of numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from torch import nn

from mfik.eval.evaluate import digits, solve_rows
from mfik.eval.protocol import SETS, Stored, starts
from mfik.eval.targets import Targets
from mfik.kinematics.refinement import ATTEMPT_REFINEMENTS as ATTEMPT
from mfik.report import Page
from mfik.solve import Solver, Status

if TYPE_CHECKING:
    from matplotlib.axes import Axes

TOLERANCE = "1e-5"  # [m] and [rad], the solver's default, by its name in the protocol
CURVE_POINTS = 200  # of a drawn distribution
# Colours and marks of the starts, the same in every picture.
LOOKS: dict[str, dict[str, Any]] = {
    name: {"color": f"C{i}", "marker": marker}
    for i, (name, marker) in enumerate(
        {"network": "o", "reference": "s", "midpoint": "^", "azimuth": "v", "stored": "D"}.items()
    )
}
# The same for the protocol's rows of the whole solver.
SOLVER_LOOKS: dict[str, dict[str, Any]] = {
    "solve()": {"color": "C1", "marker": "s", "linestyle": "--"},
    "solve(), network first": {"color": "C0", "marker": "o", "linestyle": "-"},
}


class Study(NamedTuple):
    """What the parts of the report share; each adds its numbers to `report` and its pictures to `page`."""

    solver: Solver
    network: nn.Module | None
    report: dict[str, Any]
    sets: dict[str, Targets]
    page: Page

    @property
    def has_network(self) -> bool:
        return self.solver.num_parameters > 0

    @property
    def seed(self) -> int:
        return self.report["seed"]

    @property
    def hard(self) -> list[str]:
        """Names of the sets that pictures of the whole solver show."""
        return [name for name in ("global", "near limits") if name in self.sets]

    def success_rate(self, name: str, start: str, refinements: int) -> float | None:
        """Return the success rate of one attempt on a set, None without such a row."""
        rows = self.report["one_attempt"]
        # Starts that do not see the reference have the same row in the three sets of the same poses.
        row = rows[name].get(start) or (rows["global"].get(start) if SETS[name]["kind"] == "local" else None)
        return None if row is None else row["solved"][TOLERANCE][str(refinements)]

    def rows(self) -> dict[str, np.ndarray]:
        """Return which `global` poses one attempt from each start solves in ATTEMPT refinements, [N] each."""
        targets = self.sets["global"]
        solved = {}
        for start, q in starts(self.solver, targets, Stored.draw(self.solver.robot, self.seed)):
            out = solve_rows(self.solver, targets.pose, q, time_each=False, max_attempts=1, max_iterations=ATTEMPT)
            solved[start] = out.status == Status.SOLVED
        return solved


def percent(axes: Axes) -> None:
    """Label shares on the y axis in percent."""
    axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g}%")
    axes.yaxis.set_minor_formatter(lambda *_: "")


def number(value: float) -> str:
    return f"{value:.{digits(value)}f}"


def shown_times(row: dict[str, float], keys: tuple[str, ...]) -> list[str]:
    return [f"{row[key]:,.1f}" for key in keys]
