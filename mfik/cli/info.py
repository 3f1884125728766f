"""Show a robot, preset or bundle in a page: joints, limits, reach, spheres, network and card."""

from __future__ import annotations

import argparse
import json
import math
import textwrap
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from mfik.cli import Parser
from mfik.cli.load import add_solver_arguments, bundle_path, load_solver
from mfik.files import CARD_FILE
from mfik.robots import Robot
from mfik.solve import Solver

_SAMPLES = 20_000  # configurations whose tool positions give the reach


def add_arguments(parser: Parser) -> None:
    """Add the command's arguments."""
    add_solver_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(args: argparse.Namespace, parser: Parser) -> None:
    """Print the page."""
    solver = load_solver(args)
    robot = solver.robot
    facts = {
        "robot": robot.name,
        "base_link": robot.base_link,
        "tip_link": robot.tip_link,
        "joints": _joints(robot),
        "reach": _reach(robot),
        "body": _body(robot),
        "model": _model(solver, bundle_path(args.robot)),
    }
    if args.json:
        print(json.dumps(facts, indent=1))
    else:
        print(_page(robot, facts))


def _joints(robot: Robot) -> list[dict[str, Any]]:
    """Return name, kind, limits [rad or m] and velocity bound [rad/s or m/s; None: none is known] of each joint."""
    rows = zip(robot.joint_names, robot.kinds, robot.lower, robot.upper, robot.velocity, strict=True)
    return [
        {"name": name, "kind": kind, "lower": float(lower), "upper": float(upper)}
        | {"velocity": float(velocity) if math.isfinite(velocity) else None}
        for name, kind, lower, upper, velocity in rows
    ]


def _reach(robot: Robot) -> dict[str, Any]:
    """Return where the tool gets to, in the base frame [m], by joints drawn within the limits."""
    tool = robot.fk(robot.sample(_SAMPLES, np.random.default_rng(0)))[:, :3]
    return {
        "samples": _SAMPLES,
        "lower": tool.min(0).tolist(),
        "upper": tool.max(0).tolist(),
        "from_first_joint": float(np.linalg.norm(tool - robot.chain.origins[0, :, 3], axis=1).max()),
    }


def _body(robot: Robot) -> dict[str, Any] | None:
    """Return the spheres of each link, and how many pairs of links are checked, or why not; None without spheres."""
    if robot.body is None:
        return None
    return {
        "spheres": {link.name: len(link.spheres) for link in robot.body.links},
        "pairs": dict(Counter(pair.reason for pair in robot.body.pairs).most_common()),
    }


def _model(solver: Solver, bundle: Path) -> dict[str, Any] | None:
    """Return what is known of the network, None without one; paths of the bundle and, if there is one, its card."""
    if not solver.num_parameters:
        return None
    card = (bundle if bundle.is_dir() else bundle.parent) / CARD_FILE
    training = solver.metadata.get("training", {})
    return {
        **solver.metadata["model"],
        "parameters": solver.num_parameters,
        "training": {name: value for name, value in training.items() if name != "config"},
        "bundle": str(bundle),
        "card": str(card) if card.is_file() else None,
    }


def _page(robot: Robot, facts: dict[str, Any]) -> str:
    """Return what was found, in words."""
    reach, body, model = facts["reach"], facts["body"], facts["model"]
    lines = [f"{robot.name}: {robot.base_link} -> {robot.tip_link}, {robot.dof} joints", ""]
    width = max(len("joint"), *map(len, robot.joint_names))
    lines.append(f"{'joint':{width}}  {'kind':10}  {'lower':>9}  {'upper':>9}        velocity")
    for joint in facts["joints"]:
        unit = "m" if joint["kind"] == "prismatic" else "rad"
        speed = " unknown" if joint["velocity"] is None else f"{joint['velocity']:8.4g} {unit}/s"
        limits = f"{joint['lower']:9.4f}  {joint['upper']:9.4f} {unit:3}"
        lines.append(f"{joint['name']:{width}}  {joint['kind']:10}  {limits}  {speed}")
    followers = sum(mimic is not None for mimic in robot.chain.mimics)
    if followers:
        lines.append(f"and {followers} that follow others (mimic)")
    box = ", ".join(
        f"{axis} {low:.3f} to {high:.3f}" for axis, low, high in zip("xyz", reach["lower"], reach["upper"], strict=True)
    )
    lines += [
        "",
        f"reach    {box} m, {reach['from_first_joint']:.3f} m from the first joint ({reach['samples']:,} samples)",
    ]
    if body is None:
        lines.append("spheres  none: collision is not checked (scripts/fit_spheres.py fits them to meshes)")
    else:
        spheres, pairs = body["spheres"], body["pairs"]
        reasons = ", ".join(f"{number} {reason}" for reason, number in pairs.items())
        lines.append(f"spheres  {sum(spheres.values())} on {len(spheres)} links; pairs of links: {reasons or 'none'}")
        lines.append(_wrapped(9 * " ", ", ".join(f"{name} {number}" for name, number in spheres.items())))
    lines.append("network  " + ("none: the solver needs none" if model is None else _network(model)))
    if model is not None:
        lines.append(f"bundle   {model['bundle']}")
        if model["card"] is not None:
            lines.append(f"card     {model['card']}")
            text = Path(model["card"]).read_text(encoding="utf-8")
            summary = text.partition("\n## ")[0].splitlines()
            lines += ["", *(_wrapped("", line) for line in summary if line.startswith("- "))]
    return "\n".join(lines)


def _wrapped(indent: str, text: str) -> str:
    return textwrap.fill(text, 100, initial_indent=indent, subsequent_indent=indent or "  ", break_on_hyphens=False)


def _network(model: dict[str, Any]) -> str:
    """Return type, size and training of a network in a line."""
    trained = model["training"]
    parts = [f"{model['type']}, {model['parameters']:,} parameters"]
    if "steps" in trained:
        parts.append(f"trained {trained['steps']:,} steps")
    if "minutes" in trained:
        parts.append(f"in {trained['minutes']:g} min on {trained['hardware']}")
    return ", ".join(parts)
