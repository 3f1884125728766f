"""The report: one page that shows what `run_protocol` and some more measurements of a solver found."""

from __future__ import annotations

import os
from typing import Any

from torch import nn

from mfik.errors import ArgumentError
from mfik.eval.protocol import SETS, run_protocol
from mfik.eval.report.accuracy import add_errors, add_limits, add_success_rates, add_workspace
from mfik.eval.report.latency import add_latency, add_restarts, measure_latency
from mfik.eval.report.reliability import add_reliability
from mfik.eval.report.study import Study, number
from mfik.eval.tables import format_protocol
from mfik.eval.targets import make_targets
from mfik.kinematics.refinement import ATTEMPT_REFINEMENTS as ATTEMPT
from mfik.report import Page, cpu_name, has_matplotlib
from mfik.solve import Solver


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
        `run_protocol`'s document and the other numbers of the page; docs/reference/protocol.md explains its keys.

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
    study = Study(solver, network, report, sets, page)
    latency = measure_latency(study)
    _add_key_numbers(study)
    if study.has_network:
        add_errors(study)
    add_success_rates(study)
    solved = study.rows()
    add_workspace(study, solved)
    add_limits(study, solved)
    add_latency(study, latency)
    add_restarts(study, latency)
    if study.has_network:
        add_reliability(study)
    page.heading("All tables")
    page.details("The accuracy protocol (docs/reference/protocol.md)", format_protocol(report))
    page.write(folder)
    return report


def _add_key_numbers(study: Study) -> None:
    solver, report, page = study.solver, study.report, study.page
    model = solver.metadata["model"]
    tiles = {"Network": f"{model['type']}, {solver.num_parameters:,} parameters" if study.has_network else "none"}
    if study.has_network:
        for name in ("local 0.1", "global"):
            row = report["one_attempt"][name]["network"]
            tiles[f"One step, {name} references, median"] = (
                f"{number(row['pos_mm']['median'])} mm, {number(row['rot_deg']['median'])} deg"
            )
    shares = {start: study.success_rate("global", start, ATTEMPT) for start in report["one_attempt"]["global"]}
    best = max((start for start in shares if start != "network"), key=lambda start: shares[start] or 0.0)
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
            "This bundle has no network: its one-step errors, its rows beside the starts that need none, and the "
            "reliability of its error estimate are left out."
        )
    for name, why in report["left_out"].items():
        page.paragraph(f"Set {name}: left out ({why}).")
