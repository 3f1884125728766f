"""The panel's numbers as HTML, and the colours that they share with the scene."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np

from mfik.solve import Clearance, Status
from mfik.view.session import Mode, Session, State

SOLUTION, UNSOLVED, ONE_STEP, GHOST = (58, 110, 190), (205, 70, 60), (245, 150, 25), (140, 205, 180)
COLLIDING_GHOST = (225, 130, 120)
_STATUS_COLOR = {
    Status.SOLVED: "#2b8a3e",
    Status.NOT_CONVERGED: "#d9480f",
    Status.UNREACHABLE: "#c92a2a",
    Status.AT_LIMITS: "#d9480f",
    Status.JUMP_BOUND: "#d9480f",
    Status.IN_COLLISION: "#c92a2a",
}


def numbers_html(
    session: Session,
    state: State,
    units: np.ndarray,
    unit_names: Sequence[str],
    rate_hz: float,
    note: str,
    own_colors: bool,
) -> str:
    """Return what the panel says of an update.

    Args:
        session: What is shown.
        state: The update.
        units: Of each joint on the panel for one of `state.q`, [J].
        unit_names: Their names, [J].
        rate_hz: Updates a second.
        note: A last line.
        own_colors: Whether a solution is drawn in the robot's own colours.
    """
    result = state.result
    robot = session.solver.robot
    name, _, reason = state.explanation.partition(": ")
    step = state.one_step
    if step is not None:
        one_step = f"{1e3 * step.pos_error:.1f} mm, {np.degrees(step.rot_error):.1f} deg"
    else:
        one_step = "off" if session.has_network else "no network: give --model"
    rows = [
        ("position error", f"{1e3 * result.pos_error:.3g} mm"),
        ("rotation error", f"{np.degrees(result.rot_error):.3g} deg"),
        ("one step, unrefined", one_step),
        ("time of a solve", f"{result.time_us:.1f} us"),
        ("largest joint step", f"{state.step:.3g} of {session.max_step:.3g}" if session.mode is Mode.TRACK else ""),
        ("clearance", _clearance_text(state.clearance)),
        ("clearance of links", _clearance_text(state.self_clearance)),
        ("manipulability", f"{state.manipulability:.4f}"),
        ("other solutions", str(len(state.ghosts))),
        ("updates a second", f"{rate_hz:.0f}"),
    ]
    table = "".join(
        f"<tr><td style='color:#868e96;padding-right:1em'>{label}</td><td>{value}</td></tr>"
        for label, value in rows
        if value
    )
    colors = (*(() if own_colors else (("solution", SOLUTION),)), ("unsolved", UNSOLVED), ("one step", ONE_STEP))
    legend = "".join(f"<span style='color:rgb{color}'>&#9632;</span>&nbsp;{text}&ensp;" for text, color in colors)
    legend += f"<span style='color:rgb{GHOST}'>&#9632;</span>&nbsp;others"
    if state.collide[1:].any():
        legend += f"&ensp;<span style='color:rgb{COLLIDING_GHOST}'>&#9632;</span>&nbsp;that collide"
    low, high = robot.lower, robot.upper
    shares = (state.q - low) / (high - low)
    bars = "".join(
        _bar(joint, share, value, unit)
        for joint, share, value, unit in zip(robot.joint_names, shares, state.q * units, unit_names, strict=True)
    )
    last = f"<div style='color:#868e96;margin-top:.4em'>{html.escape(note)}</div>" if note else ""
    return (
        "<div style='font-size:.8em;line-height:1.45;padding:0 .9em .4em'>"
        f"<div style='font-weight:600;font-size:1.15em;color:{_STATUS_COLOR[result.status]}'>{name}</div>"
        f"<div style='min-height:4.4em'>{html.escape(reason)}</div>"
        f"<table style='font-variant-numeric:tabular-nums'>{table}</table>"
        f"<div style='margin:.4em 0'>{legend}</div>{bars}{last}</div>"
    )


def _clearance_text(clearance: Clearance | None) -> str:
    """Return a clearance with the names of the nearest two, escaped; nothing where there is nothing to compare."""
    if clearance is None or clearance.first is None:
        return ""
    return html.escape(f"{1e3 * clearance.distance:.1f} mm, {clearance.first} and {clearance.second}")


def _bar(name: str, share: float, value: float, unit: str) -> str:
    """Return a joint's place between its limits as a bar, red within 3 % of one."""
    color = "#c92a2a" if min(share, 1.0 - share) < 0.03 else "#4070b4"
    return (
        "<div style='display:flex;align-items:center;gap:.6em'>"
        "<span style='width:9.5em;overflow:hidden;text-overflow:ellipsis;white-space:nowrap'>"
        f"{html.escape(name)}</span>"
        "<span style='flex:1;height:.5em;border-radius:.25em;background:#e9ecef;position:relative'>"
        f"<span style='position:absolute;left:{100 * share:.1f}%;top:-.15em;width:.35em;height:.8em;"
        f"margin-left:-.17em;border-radius:.17em;background:{color}'></span></span>"
        f"<span style='width:5.5em;text-align:right'>{value:.1f} {unit}</span></div>"
    )
