"""The report: one page that shows what `run_protocol` and some more measurements of a solver found."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch import nn

from mfik.errors import ArgumentError
from mfik.eval.evaluate import digits, summary
from mfik.eval.protocol import REFINEMENTS, SETS, Stored, format_protocol, run_protocol, solves, starts
from mfik.eval.targets import Targets, make_targets
from mfik.eval.uncertainty import LEVELS, ErrorCalibration, draw_reliability, reliability
from mfik.kinematics import position_error_m
from mfik.kinematics.refinement import ATTEMPT_REFINEMENTS as ATTEMPT
from mfik.report import Page, cpu_name, has_matplotlib
from mfik.solve import BatchResult, Seed, Solver, Status

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_TOLERANCE = "1e-5"
_ATTEMPTS = (1, 2, 4, 8, 16, 32, 64, 160)
_CALIBRATION_ROWS = 20_000
_LEAST_ROWS = 10  # of a cell of the workspace or a bin of distances that is shown
_CURVE_POINTS = 200
# Colours and marks of the starts, the same in every picture.
_LOOKS = {
    name: {"color": f"C{i}", "marker": marker}
    for i, (name, marker) in enumerate(
        {"network": "o", "reference": "s", "midpoint": "^", "azimuth": "v", "nearest": "D"}.items()
    )
}
# The same for the protocol's rows of the whole solver.
_SOLVER_LOOKS = {
    "solve()": {"color": "C1", "marker": "s", "linestyle": "--"},
    "solve(), network first": {"color": "C0", "marker": "o", "linestyle": "-"},
}
_DASHES = ("-", "--", "-.", ":", (0, (5, 1, 1, 1, 1, 1)))


class _Study(NamedTuple):
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

    def solved(self, name: str, start: str, refinements: int) -> float | None:
        """Return the share of a set that one attempt solves, None without such a row."""
        rows = self.report["one_attempt"]
        # Starts that do not see the reference have the same row in the three sets of the same poses.
        row = rows[name].get(start) or (rows["global"].get(start) if SETS[name]["kind"] == "local" else None)
        return None if row is None else row["solved"][_TOLERANCE][str(refinements)]

    def rows(self) -> dict[str, np.ndarray]:
        """Return which `global` poses one attempt from each start solves in ATTEMPT refinements, [N] each."""
        targets = self.sets["global"]
        solved = {}
        for start, q in starts(self.solver, targets, Stored.draw(self.solver.robot, self.seed)):
            options = {"max_attempts": 1, "max_iterations": ATTEMPT}
            out = self.solver.solve_batch(targets.pose, q, time_each=False, **options)
            solved[start] = out.status == Status.SOLVED
        return solved


def write_report(
    folder: str | os.PathLike[str],
    solver: Solver,
    *,
    network: nn.Module | None = None,
    n: int = 10_000,
    seed: int = 0,
    command: str = "mfik.eval.write_report(...)",
    diversity_poses: int | None = None,
) -> dict[str, Any]:
    """Measure a solver by `run_protocol` and more, and write FOLDER/index.html with its pictures.

    Args:
        folder: Where to write; made if it is missing.
        solver: Loaded bundle; without a network, the parts that need one are left out and the page says so.
        network: The bundle's network, for the reliability of its error estimate; None leaves that part out.
        n: Poses of each set.
        seed: Same robot, n and seed: same poses.
        command: What repeats the measurement, for the page.
        diversity_poses: See `run_protocol`.

    Returns:
        `run_protocol`'s document and the other numbers of the page; its keys are explained in docs/accuracy.md.

    Raises:
        ArgumentError: n or seed is out of range, or matplotlib is not installed.
    """
    if not has_matplotlib():
        raise ArgumentError(
            'report: expected matplotlib, which draws its pictures, to be installed; pip install "mfik[viz]"'
        )
    report = run_protocol(solver, n=n, seed=seed, diversity_poses=diversity_poses)
    robot = solver.robot
    page = Page(
        f"{robot.name}: inverse kinematics measured",
        f"{robot.dof} joints from {robot.base_link} to {robot.tip_link}. Every number comes from the C++ solver on "
        "reachable poses that no network was trained on; errors are those of forward kinematics in float64.",
        measured=f"{n:,} poses a set, seed {seed}; {cpu_name()}, {solver.lanes} attempts side by side, one thread",
        command=command,
    )
    sets = {name: make_targets(robot, n, seed=seed, **SETS[name]) for name in report["one_attempt"]}
    study = _Study(solver, network, report, sets, page)
    latency = _measure_latency(study)
    _add_key_numbers(study)
    if study.has_network:
        _add_errors(study)
    _add_solved_shares(study)
    solved = study.rows()
    _add_workspace(study, solved)
    _add_limits(study, solved)
    _add_latency(study, latency)
    _add_restarts(study, latency)
    if study.has_network:
        _add_reliability(study)
    page.heading("All tables")
    page.details("The accuracy protocol (docs/accuracy.md)", format_protocol(report))
    page.write(folder)
    return report


def _add_key_numbers(study: _Study) -> None:
    solver, report, page = study.solver, study.report, study.page
    model = solver.metadata["model"]
    tiles = {"Network": f"{model['type']}, {solver.num_parameters:,} parameters" if study.has_network else "none"}
    if study.has_network:
        for name in ("local 0.1", "global"):
            row = report["one_attempt"][name]["network"]
            tiles[f"One step, {name} references, median"] = (
                f"{_number(row['pos_mm']['median'])} mm, {_number(row['rot_deg']['median'])} deg"
            )
    shares = {start: study.solved("global", start, ATTEMPT) for start in report["one_attempt"]["global"]}
    best = max((start for start in shares if start != "network"), key=shares.get)
    tiles[f"One attempt, global, {ATTEMPT} refinements"] = ", ".join(
        f"{start} {share:.1%}" for start, share in shares.items() if start in (best, "network")
    )
    for name, row in report["latency"].items():
        tiles[f"{name}, global"] = (
            f"{report['solve']['global'][name]['solved']:.2%} solved, {row['p50']:.1f} us p50, {row['p99']:.1f} us p99"
        )
    page.tiles(tiles)
    if not study.has_network:
        page.paragraph(
            "This bundle has no network: its one-step errors, its rows beside the free starts and the reliability of "
            "its error estimate are left out."
        )
    for name, why in report["left_out"].items():
        page.paragraph(f"Set {name}: left out ({why}).")


def _add_errors(study: _Study) -> None:
    """Errors of the network's one step: curves of all sets, and their table."""
    solver, page = study.solver, study.page
    errors: dict[str, BatchResult] = {}
    for name, targets in study.sets.items():
        one = {"seed": Seed.NETWORK, "max_attempts": 1, "max_iterations": 0}
        errors[name] = solver.solve_batch(*targets, time_each=False, **one)
    sets = {name: study.report["one_attempt"][name]["network"] for name in errors}

    def draw(field: str, scale: float, label: str) -> Callable[[Axes], None]:
        def into(axes: Axes) -> None:
            for i, (name, out) in enumerate(errors.items()):
                shares = np.linspace(0, 1, _CURVE_POINTS)
                curve = np.quantile(scale * getattr(out, field), shares)
                axes.plot(curve, 100 * shares, color=f"C{i}", linestyle=_DASHES[i % len(_DASHES)], label=name)
            axes.set(xscale="log", xlabel=label, ylabel="share of poses with less [%]", ylim=(0, 100))
            axes.legend(title="set")

        return into

    page.heading("Error of the network's one step")
    near, far = sets["local 0.1"], sets["global"]
    page.figure(
        "Distribution of the error before any refinement: half of the answers lie within "
        f"{_number(near['pos_mm']['median'])} mm and {_number(near['rot_deg']['median'])} deg from references of noise "
        f"0.1 around a solution, within {_number(far['pos_mm']['median'])} mm and "
        f"{_number(far['rot_deg']['median'])} deg from references anywhere.",
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
                *(_number(row[field][key]) for field in ("pos_mm", "rot_deg") for key in row[field]),
                f"{row['within_5mm_5deg']:.1%}",
                f"{row['limit_violations']:,}",
            ]
            for name, row in sets.items()
        ],
    )


def _add_solved_shares(study: _Study) -> None:
    """Share solved by one attempt against refinements, from every start."""
    page, report, network = study.page, study.report, study.has_network

    def draw(name: str) -> Callable[[Axes], None]:
        def into(axes: Axes) -> None:
            for start, looks in _LOOKS.items():
                shares = [study.solved(name, start, k) for k in REFINEMENTS]
                if None not in shares:
                    axes.plot(REFINEMENTS, 100 * np.array(shares), label=start, **looks)
            axes.set(xscale="log", xlabel="refinements, at most", ylabel="share solved [%]", ylim=(-2, 102))
            axes.set_xticks(REFINEMENTS, REFINEMENTS)
            axes.minorticks_off()
            axes.legend(loc="upper left")

        return into

    shown = [name for name in ("local 0.1", "local 0.3", "global", "near limits") if name in study.sets]
    page.heading("One attempt: share solved against refinements")
    page.figure(
        f"Share of poses that refinement from one start solves to {_TOLERANCE} m and rad inside the limits, without a "
        "second seed"
        + (": the network is worth its time where it is above every start that costs nothing." if network else "."),
        {f"Solved by one attempt, {name}": draw(name) for name in shown},
    )
    page.table(
        f"One attempt of at most {ATTEMPT} refinements to {_TOLERANCE}; the time of nearest is without its search.",
        ["references and start", "solved", "us p50", "us p99"],
        [
            [f"{name}, {start}", f"{study.solved(name, start, ATTEMPT):.1%}", *_times(row["us"], ("p50", "p99"))]
            for name, rows in report["one_attempt"].items()
            for start, row in rows.items()
        ],
    )


def _add_workspace(study: _Study, solved: dict[str, np.ndarray]) -> None:
    """Error and share solved by the target's distance from the base's z axis and its height."""
    targets = study.sets["global"]
    start = max(solved, key=lambda name: ("network" == name, solved[name].mean()))
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
    pictures = {f"Solved by one attempt from {start}, by place": draw(100 * tables["solved"], "share solved [%]")}
    said = f"Share of the targets in each cell of the workspace that one attempt from {start} solves in {ATTEMPT} "
    said += f"refinements ({_range(100 * tables['solved'], '%')})"
    if study.has_network:
        out = study.solver.solve_batch(*targets, time_each=False, seed=Seed.NETWORK, max_attempts=1, max_iterations=0)
        tables["pos_mm"] = by_cell(1e3 * out.pos_error, np.median)
        title = "Median position error of one step, by place"
        pictures = {title: draw(tables["pos_mm"], "median position error [mm]"), **pictures}
        said = said[0].lower() + said[1:]
        said = f"Median error of the network's one step ({_range(tables['pos_mm'], ' mm')}) and {said}"
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


def _add_limits(study: _Study, solved: dict[str, np.ndarray]) -> None:
    """Error and share solved by how near to a limit the joints are that the pose was made of."""
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
    middle = [float(np.median(distance[row == k])) for k in range(bins)]
    found: dict[str, Any] = {
        "distance_percent": middle,
        "solved": {start: [float(ok[row == k].mean()) for k in range(bins)] for start, ok in solved.items()},
    }
    study.report["near_limits"] = found
    label = "distance of the nearest joint limit [% of its range]"

    def draw_solved(axes: Axes) -> None:
        for start, shares in found["solved"].items():
            axes.plot(middle, 100 * np.array(shares), label=start, **_LOOKS[start])
        axes.set(xlabel=label, ylabel="share solved [%]", ylim=(-2, 102))
        axes.legend(loc="lower right", ncols=2)

    pictures = {"Solved by one attempt, by distance to a limit": draw_solved}
    said = f"Share that one attempt solves in {ATTEMPT} refinements"
    if study.has_network:
        out = study.solver.solve_batch(*targets, time_each=False, seed=Seed.NETWORK, max_attempts=1, max_iterations=0)
        found["pos_mm"] = [summary(1e3 * out.pos_error[row == k]) for k in range(bins)]

        def draw_error(axes: Axes) -> None:
            for key, line in (("p95", "--"), ("median", "-")):
                values = [entry[key] for entry in found["pos_mm"]]
                axes.plot(middle, values, color="C0", marker="o", linestyle=line, label=key)
            axes.set(xlabel=label, ylabel="position error of one step [mm]")
            axes.set_ylim(bottom=0)
            axes.legend()

        pictures = {"Error of one step, by distance to a limit": draw_error, **pictures}
        said = "Error of the network's one step and s" + said[1:]
    page.figure(
        f"{said} against how near the joints that the pose was made of come to a limit; global references, "
        f"bins of equally many poses, drawn at their medians.",
        pictures,
    )


def _measure_latency(study: _Study) -> dict[str, dict[str, BatchResult]]:
    """Time every solve of the whole solver, each set's results by row name; add quantiles to the report."""
    results: dict[str, dict[str, BatchResult]] = {}
    for name in study.hard:
        targets = study.sets[name]
        for label, options in solves(study.solver):
            study.solver.solve_batch(targets.pose[:100], targets.q_ref[:100], **options)  # warms caches
            results.setdefault(name, {})[label] = study.solver.solve_batch(*targets, **options)
    study.report["latency"] = {
        label: {
            **{f"p{100 * p:g}": float(np.quantile(out.time_us, p)) for p in (0.5, 0.99, 0.999)},
            "max": float(np.max(out.time_us)),
        }
        for label, out in results["global"].items()
    }
    return results


def _add_latency(study: _Study, results: dict[str, dict[str, BatchResult]]) -> None:
    """Survival curves of the time of a solve, and their quantiles."""
    page, latency = study.page, study.report["latency"]

    def draw(name: str) -> Callable[[Axes], None]:
        def into(axes: Axes) -> None:
            for label, out in results[name].items():
                times = np.sort(out.time_us)[::-1]
                rank = np.unique(np.geomspace(1, len(times), _CURVE_POINTS).round().astype(int))
                looks = {**_SOLVER_LOOKS[label], "marker": ""}
                axes.plot(times[rank - 1], rank / len(times), label=label, **looks)
            axes.set(xscale="log", xlabel="time of a solve [us]", yscale="log", ylabel="share that takes longer")
            _percent(axes)
            axes.legend()

        return into

    page.heading("Latency")
    row = latency["solve()"]
    page.figure(
        f"Share of the solves that take longer than a time: with default options half take {row['p50']:.1f} us, one in "
        f"a hundred over {row['p99']:,.1f}, one in a thousand over {row['p99.9']:,.1f}, the slowest {row['max']:,.1f}; "
        "each solve timed by itself in C++, interruptions by the operating system included, failed solves too.",
        {f"Time of a solve, {name}": draw(name) for name in results},
    )
    keys = ("p50", "p99", "p99.9", "max")
    page.table(
        "Time of a solve [us], global references.",
        ["solver", *keys],
        [[label, *_times(row, keys)] for label, row in latency.items()],
    )
    page.table(
        f"The whole solver, to {_TOLERANCE} m and rad.",
        ["references and solver", "solved", "attempts, mean", "from q_ref [rad]", "outside limits"],
        [
            [
                f"{name}, {label}",
                f"{row['solved']:.2%}",
                f"{row['attempts']:.1f}",
                "-" if row["from_q_ref_rad"] is None else f"{row['from_q_ref_rad']:.2f}",
                f"{row['limit_violations']:,}",
            ]
            for name, rows in study.report["solve"].items()
            for label, row in rows.items()
        ],
    )


def _add_restarts(study: _Study, results: dict[str, dict[str, BatchResult]]) -> None:
    """What is not solved, by time and by attempts: restarts from stored configurations beside the network."""
    solver, page, report = study.solver, study.page, study.report
    free = max(
        (start.value for start in Seed if start is not Seed.NETWORK),
        key=lambda start: study.solved("global", start, ATTEMPT),
    )
    singles = ["network", free] if study.has_network else [free]
    found: dict[str, dict[str, list[float]]] = {}
    curves: dict[str, list[tuple[str, np.ndarray, dict[str, Any]]]] = {}
    for name in study.hard:
        targets = study.sets[name]
        curves[name] = [(label, _solved_times(out), _SOLVER_LOOKS[label]) for label, out in results[name].items()]
        for start in singles:
            out = solver.solve_batch(*targets, seed=start, max_attempts=1)
            looks = {"color": _LOOKS[start]["color"], "linestyle": ":"}
            curves[name].append((f"{start}, one attempt", _solved_times(out), looks))
        found[name] = {}
        for label, options in solves(solver):
            outs = [solver.solve_batch(*targets, time_each=False, max_attempts=k, **options) for k in _ATTEMPTS]
            found[name][label] = [float((out.status == Status.SOLVED).mean()) for out in outs]
    report["attempts_allowed"] = {"attempts": _ATTEMPTS, "solved": found}
    floor = 0.5 / report["n"]

    def draw_time(name: str) -> Callable[[Axes], None]:
        def into(axes: Axes) -> None:
            for label, times, looks in curves[name]:
                if len(times) == 0:
                    continue
                last = np.geomspace(1, len(times), _CURVE_POINTS).round().astype(int)
                count = np.unique(len(times) + 1 - last)  # solves done, densest at the end
                unsolved = np.maximum(1 - count / report["n"], floor)
                axes.plot(times[count - 1], unsolved, label=label, **{**looks, "marker": ""})
            axes.set(xscale="log", xlabel="time spent [us]", yscale="log", ylabel="share not solved by then")
            _percent(axes)
            axes.legend()

        return into

    def draw_attempts(name: str) -> Callable[[Axes], None]:
        def into(axes: Axes) -> None:
            for label, shares in found[name].items():
                axes.plot(_ATTEMPTS, np.maximum(1 - np.array(shares), floor), label=label, **_SOLVER_LOOKS[label])
            axes.set(xscale="log", xlabel="attempts, at most", yscale="log", ylabel="share not solved")
            axes.set_xticks(_ATTEMPTS, _ATTEMPTS)
            axes.minorticks_off()
            _percent(axes)
            axes.legend()

        return into

    page.heading("Restarts without the network")
    eight = [f"{1 - shares[_ATTEMPTS.index(8)]:.2%} ({label})" for label, shares in found["global"].items()]
    page.figure(
        "Share of poses not yet solved after a time, and with so many attempts allowed, for the solver's restarts from "
        "stored configurations"
        + (", the same with the network's answer first, and single attempts" if study.has_network else "")
        + f"; with 8 attempts {' and '.join(eight)} of the global poses stay unsolved; where none is left, the curve "
        "stands at half a pose.",
        {
            title: draw
            for name in study.hard
            for title, draw in (
                (f"Not solved after a time, {name}", draw_time(name)),
                (f"Not solved with so many attempts, {name}", draw_attempts(name)),
            )
        },
    )


def _solved_times(out: BatchResult) -> np.ndarray:
    """Return the times of the solves that ended solved, sorted [us]."""
    return np.sort(out.time_us[out.status == Status.SOLVED])


def _add_reliability(study: _Study) -> None:
    """Promised against observed coverage of the error estimate."""
    network, robot, page = study.network, study.solver.robot, study.page
    page.heading("Reliability of the error estimate")
    if network is None:
        page.paragraph("Left out: it takes the network in PyTorch.")
        return
    others = make_targets(robot, _CALIBRATION_ROWS, seed=study.seed + 1)
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
        f"(rotation {result.rank_correlation_rot:.2f}); calibrated on {_CALIBRATION_ROWS:,} global poses of seed "
        f"{study.seed + 1}.",
        {
            "Coverage promised and observed": lambda axes: draw_reliability(axes, result),
            "True error by its estimate": draw_error,
        },
    )


def _percent(axes: Axes) -> None:
    """Label shares on the y axis in percent."""
    axes.yaxis.set_major_formatter(lambda share, _: f"{100 * share:g}%")
    axes.yaxis.set_minor_formatter(lambda *_: "")


def _number(value: float) -> str:
    return f"{value:.{digits(value)}f}"


def _times(row: dict[str, float], keys: tuple[str, ...]) -> list[str]:
    return [f"{row[key]:,.1f}" for key in keys]


def _range(table: np.ndarray, unit: str) -> str:
    """Return the least and the largest number of a table that may have holes."""
    if np.isnan(table).all():
        return "too few targets"
    return f"{np.nanmin(table):.0f} to {np.nanmax(table):.0f}{unit}"
