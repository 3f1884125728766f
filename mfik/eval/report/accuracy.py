"""Parts of the report on accuracy: one step, one attempt, the workspace, joint limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from mfik.eval.evaluate import solve_rows, summary
from mfik.eval.protocol import REFINEMENTS
from mfik.eval.report.study import CURVE_POINTS, LOOKS, TOLERANCE, Study, number, shown_times
from mfik.eval.targets import Targets, make_targets
from mfik.kinematics.refinement import ATTEMPT_REFINEMENTS as ATTEMPT
from mfik.solve import BatchResult, Seed, Solver

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))
_LEAST_ROWS = 10  # of a cell of the workspace or a bin of distances that is shown


def _one_step(solver: Solver, targets: Targets) -> BatchResult:
    """Return the network's answers without refinement."""
    return solve_rows(solver, *targets, time_each=False, seed=Seed.NETWORK, max_attempts=1, max_iterations=0)


def add_errors(study: Study) -> None:
    """Errors of the network's one step: curves of all sets, and their table."""
    solver, page = study.solver, study.page
    errors: dict[str, BatchResult] = {}
    for name, targets in study.sets.items():
        errors[name] = _one_step(solver, targets)
    sets = {name: study.report["one_attempt"][name]["network"] for name in errors}

    def draw(field: str, scale: float, label: str) -> Callable[[Axes], None]:
        def into(axes: Axes) -> None:
            for i, (name, out) in enumerate(errors.items()):
                shares = np.linspace(0, 1, CURVE_POINTS)
                curve = np.quantile(scale * getattr(out, field), shares)
                axes.plot(curve, 100 * shares, color=f"C{i}", linestyle=_DASHES[i % len(_DASHES)], label=name)
            axes.set(xscale="log", xlabel=label, ylabel="share of poses with less [%]", ylim=(0, 100))
            axes.legend(title="set")

        return into

    page.heading("Error of the network's one step")
    near, far = sets["local 0.1"], sets["global"]
    page.figure(
        "Distribution of the error before any refinement: half of the answers lie within "
        f"{number(near['pos_mm']['median'])} mm and {number(near['rot_deg']['median'])} deg from references of noise "
        f"0.1 around a solution, within {number(far['pos_mm']['median'])} mm and "
        f"{number(far['rot_deg']['median'])} deg from references anywhere.",
        {
            "Position error of one step": draw("pos_error", 1e3, "position error [mm]"),
            "Rotation error of one step": draw("rot_error", 180 / np.pi, "rotation error [deg]"),
        },
    )
    page.table(
        "Error of one step; 5 mm, 5 deg: share within both and inside the joint limits; outside: answers beyond one.",
        [
            "set",
            *(f"{unit} {key}" for unit in ("mm", "deg") for key in ("mean", "median", "p95", "max")),
            "5 mm, 5 deg",
            "outside",
        ],
        [
            [
                name,
                *(number(row[field][key]) for field in ("pos_mm", "rot_deg") for key in row[field]),
                f"{row['within_5mm_5deg']:.1%}",
                f"{row['limit_violations']:,}",
            ]
            for name, row in sets.items()
        ],
    )


def add_success_rates(study: Study) -> None:
    """Success rate of one attempt against refinements, from every start."""
    page, report, network = study.page, study.report, study.has_network

    def draw(name: str) -> Callable[[Axes], None]:
        def into(axes: Axes) -> None:
            for start, looks in LOOKS.items():
                shares = [study.success_rate(name, start, k) for k in REFINEMENTS]
                if None not in shares:
                    axes.plot(REFINEMENTS, 100 * np.array(shares), label=start, **looks)
            axes.set(xscale="log", xlabel="refinements, at most", ylabel="success rate [%]", ylim=(-2, 102))
            axes.set_xticks(REFINEMENTS, map(str, REFINEMENTS))
            axes.minorticks_off()
            axes.legend(loc="upper left")

        return into

    shown = [name for name in ("local 0.1", "local 0.3", "global", "near limits") if name in study.sets]
    page.heading("One attempt: success rate against refinements")
    page.figure(
        f"Share of poses that one attempt solves to {TOLERANCE} m and rad inside the limits, without a second seed"
        + (": the network is worth its time where it is above every start that costs nothing." if network else "."),
        {f"Success rate of one attempt, {name}": draw(name) for name in shown},
    )
    page.table(
        f"One attempt of at most {ATTEMPT} refinements to {TOLERANCE}; the time of stored is without its search.",
        ["references and start", "success rate", "us p50", "us p99"],
        [
            [
                f"{name}, {start}",
                f"{study.success_rate(name, start, ATTEMPT):.1%}",
                *shown_times(row["us"], ("p50", "p99")),
            ]
            for name, rows in report["one_attempt"].items()
            for start, row in rows.items()
        ],
    )


def add_workspace(study: Study, solved: dict[str, np.ndarray]) -> None:
    """Error and success rate by the target's distance from the base's z axis and its height."""
    targets = study.sets["global"]
    start = "network" if study.has_network else max(solved, key=lambda name: solved[name].mean())
    place = np.hypot(targets.pose[:, 0], targets.pose[:, 1]), targets.pose[:, 2]
    cells = int(np.clip(np.sqrt(len(targets.pose) / 100), 2, 14))
    edges = [np.linspace(values.min(), values.max(), cells + 1) for values in place]
    rows = [np.clip(np.digitize(values, bounds) - 1, 0, cells - 1) for values, bounds in zip(place, edges, strict=True)]

    def by_cell(values: np.ndarray, statistic: Callable[[np.ndarray], float]) -> np.ndarray:
        """Return a statistic of each cell [height, radius], NaN where there are too few poses."""
        table = np.full((cells, cells), np.nan)
        for i, j in np.ndindex(table.shape):
            inside = (rows[1] == i) & (rows[0] == j)
            if inside.sum() >= _LEAST_ROWS:
                table[i, j] = statistic(values[inside])
        return table

    def draw(table: np.ndarray, label: str) -> Callable[[Axes], None]:
        def into(axes: Axes) -> None:
            mesh = axes.pcolormesh(*edges, np.ma.masked_invalid(table))
            axes.set(xlabel="distance from the base's z axis [m]", ylabel="height [m]")
            axes.grid(False)
            axes.figure.colorbar(mesh, ax=axes, label=label)

        return into

    tables = {"solved": by_cell(solved[start], np.mean)}
    pictures = {f"Success rate of one attempt from {start}, by place": draw(100 * tables["solved"], "success rate [%]")}
    rate = (
        f"success rate of one attempt of {ATTEMPT} refinements from {start} ({_range(100 * tables['solved'], '%')}) in "
        "each cell of the workspace"
    )
    said = f"The {rate}"
    if study.has_network:
        out = _one_step(study.solver, targets)
        tables["pos_mm"] = by_cell(1e3 * out.pos_error, np.median)
        title = "Median position error of one step, by place"
        pictures = {title: draw(tables["pos_mm"], "median position error [mm]"), **pictures}
        said = f"Median error of the network's one step ({_range(tables['pos_mm'], ' mm')}) and {rate}"
    study.report["workspace"] = {
        "start": start,
        "radius_m": edges[0].tolist(),
        "height_m": edges[1].tolist(),
        **{name: [[None if np.isnan(x) else x for x in row] for row in rows.tolist()] for name, rows in tables.items()},
    }
    study.page.heading("Over the workspace")
    study.page.figure(
        f"{said}, global references; cells with fewer than {_LEAST_ROWS} targets are empty.",
        pictures,
    )


def add_limits(study: Study, solved: dict[str, np.ndarray]) -> None:
    """Error and success rate by how near to a limit the joints are that the pose was made of."""
    robot, page = study.solver.robot, study.page
    limited = torch.tensor([kind != "continuous" for kind in robot.kinds])
    page.heading("Near joint limits")
    if not limited.any():
        page.paragraph("Left out: all joints turn without limit.")
        return
    targets = study.sets["global"]
    # Local references without noise are the joints themselves.
    q = torch.from_numpy(make_targets(robot, len(targets.pose), kind="local", sigma=0.0, seed=study.seed).q_ref)
    lower, upper = robot.limits()
    share = (torch.minimum(q - lower, upper - q) / (upper - lower))[:, limited]
    distance = 100 * share.min(-1).values.numpy()
    bins = int(np.clip(len(distance) // (5 * _LEAST_ROWS), 1, 12))
    edges = np.quantile(distance, np.linspace(0, 1, bins + 1))
    row = np.clip(np.searchsorted(edges, distance, side="right") - 1, 0, bins - 1)
    medians = [float(np.median(distance[row == k])) for k in range(bins)]
    found: dict[str, Any] = {
        "distance_percent": medians,
        "solved": {start: [float(ok[row == k].mean()) for k in range(bins)] for start, ok in solved.items()},
    }
    study.report["near_limits"] = found
    label = "distance of the nearest joint limit [% of its range]"

    def draw_solved(axes: Axes) -> None:
        for start, shares in found["solved"].items():
            axes.plot(medians, 100 * np.array(shares), label=start, **LOOKS[start])
        axes.set(xlabel=label, ylabel="success rate [%]", ylim=(-2, 102))
        axes.legend(loc="lower right", ncols=2)

    pictures = {"Success rate of one attempt, by distance to a limit": draw_solved}
    rate = f"success rate of one attempt of {ATTEMPT} refinements"
    said = f"The {rate}"
    if study.has_network:
        out = _one_step(study.solver, targets)
        found["pos_mm"] = [summary(1e3 * out.pos_error[row == k]) for k in range(bins)]

        def draw_error(axes: Axes) -> None:
            for key, line in (("p95", "--"), ("median", "-")):
                values = [entry[key] for entry in found["pos_mm"]]
                axes.plot(medians, values, color="C0", marker="o", linestyle=line, label=key)
            axes.set(xlabel=label, ylabel="position error of one step [mm]")
            axes.set_ylim(bottom=0)
            axes.legend()

        pictures = {"Error of one step, by distance to a limit": draw_error, **pictures}
        said = f"Error of the network's one step and {rate}"
    page.figure(
        f"{said} against how near the joints that the pose was made of come to a limit; global references, "
        "bins of equally many poses, drawn at their medians.",
        pictures,
    )


def _range(table: np.ndarray, unit: str) -> str:
    """Return the least and the largest number of a table that may have holes."""
    if np.isnan(table).all():
        return "too few targets"
    return f"{np.nanmin(table):.0f} to {np.nanmax(table):.0f}{unit}"
