"""Parts of the report on time: latencies, and restarts beside the network."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from mfik.eval.evaluate import solve_rows, times_us
from mfik.eval.protocol import solves
from mfik.eval.report.study import CURVE_POINTS, LOOKS, SOLVER_LOOKS, TOLERANCE, Study, percent, shown_times
from mfik.kinematics.refinement import ATTEMPT_REFINEMENTS as ATTEMPT
from mfik.solve import BatchResult, Seed, Status

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_ATTEMPTS = (1, 2, 4, 8, 16, 32, 64, 160)  # that are allowed, up to the solver's default


def measure_latency(study: Study) -> dict[str, dict[str, BatchResult]]:
    """Time every solve of the whole solver, each set's results by row name; add quantiles to the report."""
    results: dict[str, dict[str, BatchResult]] = {}
    for name in study.hard:
        targets = study.sets[name]
        for label, options in solves(study.solver):
            solve_rows(study.solver, targets.pose[:100], targets.q_ref[:100], **options)  # warms caches
            results.setdefault(name, {})[label] = solve_rows(study.solver, *targets, **options)
    study.report["latency"] = {
        label: {
            **{f"p{100 * p:g}": float(np.quantile(times_us(out), p)) for p in (0.5, 0.99, 0.999)},
            "max": float(times_us(out).max()),
        }
        for label, out in results["global"].items()
    }
    return results


def add_latency(study: Study, results: dict[str, dict[str, BatchResult]]) -> None:
    """Survival curves of the time of a solve, and their quantiles."""
    page, latency = study.page, study.report["latency"]

    def draw(name: str) -> Callable[[Axes], None]:
        def into(axes: Axes) -> None:
            for label, out in results[name].items():
                times = np.sort(times_us(out))[::-1]
                rank = np.unique(np.geomspace(1, len(times), CURVE_POINTS).round().astype(int))
                looks = {**SOLVER_LOOKS[label], "marker": ""}
                axes.plot(times[rank - 1], rank / len(times), label=label, **looks)
            axes.set(xscale="log", xlabel="time of a solve [us]", yscale="log", ylabel="share that takes longer")
            percent(axes)
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
        [[label, *shown_times(row, keys)] for label, row in latency.items()],
    )
    page.table(
        f"The whole solver, to {TOLERANCE} m and rad.",
        ["references and solver", "success rate", "attempts, mean", "from q_ref [rad]", "outside limits"],
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


def add_restarts(study: Study, results: dict[str, dict[str, BatchResult]]) -> None:
    """What is not solved, by time and by attempts: restarts from stored configurations beside the network."""
    solver, page, report = study.solver, study.page, study.report
    free = max(
        (start.value for start in Seed if start is not Seed.NETWORK),
        key=lambda start: study.success_rate("global", start, ATTEMPT) or 0.0,
    )
    singles = ["network", free] if study.has_network else [free]
    found: dict[str, dict[str, list[float]]] = {}
    curves: dict[str, list[tuple[str, np.ndarray, dict[str, Any]]]] = {}
    for name in study.hard:
        targets = study.sets[name]
        curves[name] = [(label, _solved_times(out), SOLVER_LOOKS[label]) for label, out in results[name].items()]
        for start in singles:
            out = solve_rows(solver, *targets, seed=start, max_attempts=1)
            looks = {"color": LOOKS[start]["color"], "linestyle": ":"}
            curves[name].append((f"{start}, one attempt", _solved_times(out), looks))
        found[name] = {}
        for label, options in solves(solver):
            outs = [solve_rows(solver, *targets, time_each=False, max_attempts=k, **options) for k in _ATTEMPTS]
            found[name][label] = [float((out.status == Status.SOLVED).mean()) for out in outs]
    report["attempts_allowed"] = {"attempts": _ATTEMPTS, "solved": found}
    floor = 0.5 / report["n"]

    def draw_time(name: str) -> Callable[[Axes], None]:
        def into(axes: Axes) -> None:
            for label, times, looks in curves[name]:
                if len(times) == 0:
                    continue
                last = np.geomspace(1, len(times), CURVE_POINTS).round().astype(int)
                count = np.unique(len(times) + 1 - last)  # solves done, densest at the end
                unsolved = np.maximum(1 - count / report["n"], floor)
                axes.plot(times[count - 1], unsolved, label=label, **{**looks, "marker": ""})
            axes.set(xscale="log", xlabel="time spent [us]", yscale="log", ylabel="share not solved by then")
            percent(axes)
            axes.legend()

        return into

    def draw_attempts(name: str) -> Callable[[Axes], None]:
        def into(axes: Axes) -> None:
            for label, shares in found[name].items():
                axes.plot(_ATTEMPTS, np.maximum(1 - np.array(shares), floor), label=label, **SOLVER_LOOKS[label])
            axes.set(xscale="log", xlabel="attempts, at most", yscale="log", ylabel="share not solved")
            axes.set_xticks(_ATTEMPTS, map(str, _ATTEMPTS))
            axes.minorticks_off()
            percent(axes)
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
    return np.sort(times_us(out)[out.status == Status.SOLVED])
