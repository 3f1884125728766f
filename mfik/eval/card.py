"""The model card: what a bundle was trained on, and every number of the protocol (docs/reference/models.md)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mfik.eval.tables import format_protocol
from mfik.kinematics.refinement import ATTEMPT_REFINEMENTS
from mfik.robots import Robot

# Metrics of each validation that the learning curve shows, see `MeanFlowTrainer.validate`.
CURVE_METRICS = ("pos_mm_mean", "rot_deg_mean", f"solved_{ATTEMPT_REFINEMENTS}")
_CURVE_ROWS = 12  # of the learning curve's table, at most


def model_card(
    robot: Robot,
    network: dict[str, Any],
    num_parameters: int,
    training: dict[str, Any],
    report: dict[str, Any],
    curve: Sequence[tuple[int, dict[str, float]]],
) -> str:
    """Return the text of a bundle's README.md.

    Args:
        robot: The robot.
        network: `to_dict` of the network's configuration.
        num_parameters: Trained scalars of the network.
        training: The bundle's record of its training, see `mfik.fit.fit`.
        report: Of `run_protocol`.
        curve: Samples seen and CURVE_METRICS of each validation.
    """
    shape = ", ".join(f"{name} {value}" for name, value in network.items() if name not in ("type", "dof"))
    references = f"{training['coupling']} (sigma {training['sigma']:g} rad)"
    if training.get("collision_free"):
        references += ", solutions free of self-collision"
    lines = [
        f"# {robot.name}",
        "",
        *_advice(robot, report),
        "",
        "## Network",
        "",
        f"{robot.base_link} to {robot.tip_link}, {robot.dof} joints: {', '.join(robot.joint_names)}.",
        f"Network type {network['type']}, {num_parameters:,} parameters ({shape}).",
        "",
        "## Training",
        "",
        "| | |",
        "|---|---|",
        f"| Data | drawn online from the robot alone, references {references}; no row comes twice |",
        f"| Samples seen | {training['samples_seen']:,} in {training['steps']:,} steps |",
        f"| Hardware | {training['hardware']} |",
        f"| Time | {training['minutes']:.3g} minutes from the first step to the last |",
        f"| Version | mfik {training['mfik']} |",
        "",
        "```text",
        training["command"],
        "```",
        "",
        "Learning curve of the averaged network, references as trained on: error of one step, and success rate to",
        f"1e-5 m and rad within {ATTEMPT_REFINEMENTS} refinements.",
        "",
        "| Samples | mean mm | mean deg | success rate |",
        "|---:|---:|---:|---:|",
    ]
    stride = max(1, -(-len(curve) // _CURVE_ROWS))
    for samples, values in [*curve[:-1:stride], curve[-1]] if curve else ():
        mm, deg, success = (values[name] for name in CURVE_METRICS)
        lines.append(f"| {samples / 1e6:.1f}M | {mm:.2f} | {deg:.2f} | {success:.2%} |")
    lines += [
        "",
        "## Accuracy",
        "",
        "The accuracy protocol (docs/reference/protocol.md explains every row), by the C++ solver:",
        "",
        "```text",
        format_protocol(report),
        "```",
        "",
        "## Where it fails",
        "",
        *_failures(report),
    ]
    return "\n".join(lines) + "\n"


def _advice(robot: Robot, report: dict[str, Any]) -> list[str]:
    """Return the five lines that tell how to use the network: loading, seed, single attempts, one step, weakest set."""
    sets, solve = report["one_attempt"], report["solve"]
    plain, first = solve["global"]["solve()"], solve["global"]["solve(), network first"]
    told = [f"{row['solved']:.2%} of global poses at {row['us']['p50']:.1f} us" for row in (plain, first)]
    if (round(first["solved"], 4), -first["us"]["p50"]) > (round(plain["solved"], 4), -plain["us"]["p50"]):
        seed = f'give `seed="network"`: `solve()` then solves {told[1]} (median), and {told[0]} without'
    else:
        seed = f'leave `seed` as it is: `solve()` solves {told[0]} (median), and {told[1]} with `seed="network"`'
    attempt = {start: _solved(row) for start, row in sets["global"].items()}
    others = {start: share for start, share in attempt.items() if start != "network"}
    other = max(others, key=lambda start: others[start])
    best = "network" if attempt["network"] >= others[other] else other
    near, far = (sets[name]["network"] for name in ("local 0.1", "global"))
    weakest = min(sets, key=lambda name: _solved(sets[name]["network"]))
    return [
        f'- **Load**: `Solver.load("bundle").solve(pose, q_ref)`; a pose is of `{robot.tip_link}` in '
        f"`{robot.base_link}`, [m] and unit quaternion, a tool is `tool=`.",
        f"- **Seed**: {seed}.",
        f"- **One attempt** (`max_attempts=1`): take `{best}`; `network` solves {attempt['network']:.2%} of global "
        f"poses, `{other}`, which needs no network, {others[other]:.2%}.",
        f"- **One evaluation without refinement**: off by {_off(near)} from references at 0.1 rad, by {_off(far)} from "
        f"any (means); {far['within_5mm_5deg']:.1%} of the latter within 5 mm and 5 deg, {far['limit_violations']:,} "
        "outside the limits.",
        f"- **Weakest**: {weakest}, where one attempt from the network fails for "
        f"{1 - _solved(sets[weakest]['network']):.2%} and `solve()` for {1 - solve[weakest]['solve()']['solved']:.2%}; "
        "move on `Status.SOLVED` only.",
    ]


def _solved(row: dict[str, Any]) -> float:
    """Return the success rate of one attempt to 1e-5 m and rad."""
    return row["solved"]["1e-5"][str(ATTEMPT_REFINEMENTS)]


def _off(row: dict[str, Any]) -> str:
    return f"{row['pos_mm']['mean']:.3g} mm and {row['rot_deg']['mean']:.3g} deg"


def _failures(report: dict[str, Any]) -> list[str]:
    """Return what the protocol says against the network."""
    sets = report["one_attempt"]
    lines = []
    for name, rows in sets.items():
        solved = {start: _solved(row) for start, row in rows.items()}
        share = solved.pop("network")
        best = max(solved, key=lambda start: solved[start])
        other = solved[best]
        verdict = "better without the network" if other > share else "the network is the better start"
        if f"{share:.2%}" == f"{other:.2%}":
            verdict = "no difference"
        lines.append(
            f"- {name}: one attempt of {ATTEMPT_REFINEMENTS} refinements fails for {1 - share:.2%} of the poses; from "
            f"`{best}`, which needs no network, for {1 - other:.2%}: {verdict}. One step is outside the limits for "
            f"{rows['network']['limit_violations'] / report['n']:.1%}."
        )
    eight = report["solve"]["global"]["8 seeds, network first"]
    lines.append(f"- Eight seeds, the network's answer first, solve {eight['solved']:.2%} of the global poses.")
    best = min(sets["global"], key=lambda start: sets["global"][start]["us"]["p50"])
    lines.append(
        f"- `solve()` without the network solves {report['solve']['global']['solve()']['solved']:.2%} of the global "
        f"poses at {report['solve']['global']['solve()']['us']['p50']:.1f} us, with the network first "
        f"{report['solve']['global']['solve(), network first']['solved']:.2%} at "
        f"{report['solve']['global']['solve(), network first']['us']['p50']:.1f} us (medians; fastest single attempt: "
        f"`{best}`)."
    )
    return lines
