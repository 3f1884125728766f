"""The protocol's report as tables for people."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from mfik.eval.evaluate import digits
from mfik.eval.protocol import REFINEMENTS


def format_protocol(report: dict[str, Any]) -> str:
    """Return `run_protocol`'s report as tables for people."""
    tables = [_error_table, _attempt_table, _solve_table, _diversity_table, _tracking_table]
    if report.get("free"):
        tables.insert(3, _free_table)
    return "\n\n".join("\n".join(table(report)) for table in tables)


def _error_table(report: dict[str, Any]) -> Iterator[str]:
    yield f"{report['robot']}, {report['parameters']:,} parameters: {report['n']:,} poses a set, seed {report['seed']}"
    yield from (f"{name}: left out ({why})" for name, why in report["left_out"].items())
    yield ""
    yield "Before refinement (network: one evaluation, then further ones, each at the answer of the one before)"
    yield (
        f"{'references':13} {'start':9} | {'position error [mm]':^23} | {'rotation error [deg]':^23} | "
        f"{'5 mm and':>8} | {'outside':>7}"
    )
    names = " ".join(f"{name:>7}" for name in ("mean", "median", "p95"))
    yield _line(f"{'':23} | {names} | {names} | {'5 deg':>8} | {'limits':>7}")
    for name, rows in report["one_attempt"].items():
        for start, row in rows.items():
            yield f"{name:13} {start:9} | {_errors(row)}"
            for count, again in row.get("evaluations", {}).items():
                yield f"{name:13} {f'  {count} times':9} | {_errors(again)}"


def _errors(row: dict[str, Any]) -> str:
    errors = (
        " ".join(f"{row[error][key]:7.{digits(row[error][key])}f}" for key in ("mean", "median", "p95"))
        for error in ("pos_mm", "rot_deg")
    )
    return f"{' | '.join(errors)} | {row['within_5mm_5deg']:8.1%} | {row['limit_violations']:7}"


def _attempt_table(report: dict[str, Any]) -> Iterator[str]:
    columns = {"1e-3": REFINEMENTS[:4], "1e-6": REFINEMENTS[:4], "1e-5": REFINEMENTS[4:]}
    yield "One attempt: success rate to a tolerance [m and rad] after so many refinements"
    groups = " | ".join(f"{name:^{7 * len(steps) - 1}}" for name, steps in columns.items())
    yield f"{'references':13} {'start':9} | {groups} | {'us an attempt':^13}"
    counts = " | ".join(" ".join(f"{k:>6}" for k in steps) for steps in columns.values())
    yield _line(f"{'':23} | {counts} | {'p50':>6} {'p99':>6}")
    for name, rows in report["one_attempt"].items():
        for start, row in rows.items():
            shares = (
                " ".join(f"{row['solved'][tolerance][str(k)]:6.1%}" for k in steps)
                for tolerance, steps in columns.items()
            )
            yield f"{name:13} {start:9} | {' | '.join(shares)} | {_times(row)}"


def _solve_table(report: dict[str, Any]) -> Iterator[str]:
    yield "The whole solver, to 1e-5 m and rad"
    yield (f"{'references':13} {'':22} | success | outside | attempts | from q_ref | {'us a solve':^13}")
    yield _line(f"{'':36} | {'':7} |  limits | {'mean':>8} | {'rad':>10} | {'p50':>6} {'p99':>6}")
    for name, rows in report["solve"].items():
        for solver, row in rows.items():
            distance = "-" if row["from_q_ref_rad"] is None else f"{row['from_q_ref_rad']:.2f}"
            yield (
                f"{name:13} {solver:22} | {row['solved']:7.2%} | {row['limit_violations']:7} | "
                f"{row['attempts']:8.1f} | {distance:>10} | {_times(row)}"
            )


def _free_table(report: dict[str, Any]) -> Iterator[str]:
    yield "Self-collision, global references: share of the answers that are free"
    yield _line(f"{'answers':24} | success |    free")
    for name, row in report["free"].items():
        solved, free = ("-" if row[key] is None else f"{row[key]:.2%}" for key in ("solved", "free"))
        yield f"{name:24} | {solved:>7} | {free:>7}"


def _diversity_table(report: dict[str, Any]) -> Iterator[str]:
    diversity = report["diversity"]
    yield (
        f"Diversity: {diversity['poses']} poses, {diversity['references']} global references each, beside "
        f"{diversity['true_solutions']:.0f} true solutions on average"
    )
    yield _line(f"{'answers':22} | success |  spread | reached |   MMD^2")
    for name, row in diversity["rows"].items():
        values = ("-", "-", "-")
        if row["poses"]:
            values = f"{row['spread']:.2f}", f"{row['reached']:.1%}", f"{row['mmd2']:.4f}"
        yield f"{name:22} | {row['solved']:7.1%} | {values[0]:>7} | {values[1]:>7} | {values[2]:>7}"


def _tracking_table(report: dict[str, Any]) -> Iterator[str]:
    row = report["tracking"]
    yield f"Tracking: {row['paths']:,} paths, {row['steps']:,} steps in all, to 1e-5 m and rad"
    yield (
        f"{row['solved']:.2%} of the steps solved, {row['whole_paths']:,} paths from end to end, "
        f"{row['limit_violations']} steps outside the limits; us a step: p50 {row['us']['p50']:.1f}, "
        f"p99 {row['us']['p99']:.1f}"
    )
    for label, key in (
        ("joint step [deg]", "joint_step_deg"),
        ("position error [mm]", "pos_mm"),
        ("rotation error [deg]", "rot_deg"),
    ):
        yield f"{label}: {', '.join(f'{name} {value:.2g}' for name, value in row[key].items())}"


def _times(row: dict[str, Any]) -> str:
    return f"{row['us']['p50']:6.1f} {row['us']['p99']:6.1f}"


def _line(head: str) -> str:
    return f"{head}\n{'-' * len(head)}"
