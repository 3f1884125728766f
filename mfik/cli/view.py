"""Show a robot and its solver in a browser: drag the target, the solution follows (docs/how-to/viewer.md)."""

from __future__ import annotations

import argparse
from pathlib import Path

from mfik.cli import ROBOT, Parser, add_robot_arguments, robot_arguments
from mfik.collision import World


def add_arguments(parser: Parser) -> None:
    """Add the command's arguments."""
    parser.add_argument("--robot", help=f"{ROBOT}; default: the model's robot, else panda")
    parser.add_argument("--model", help="bundle, or name of a pretrained model; default: the robot's, if there is one")
    add_robot_arguments(parser)  # ends: by default the model's
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on: whoever reaches it moves the target")
    parser.add_argument("--port", type=int, default=8080, help="port to listen on, or the next free one")
    parser.add_argument(
        "--world", type=Path, help="file of the shapes around the robot: JSON or YAML list (World.from_dicts)"
    )
    parser.add_argument("--path", type=Path, help="joints to play, .csv or .npz, as scripts/solve_path.py writes them")
    parser.add_argument("--reach", type=Path, metavar="FILE", help="map of reach to show, reach.npz of mfik reach")
    parser.add_argument("--csv", type=Path, help="let the panel write the recorded trajectory to this file")


def run(args: argparse.Namespace, parser: Parser) -> None:
    """Show the viewer until Ctrl-C."""
    from mfik.path import load_joints
    from mfik.reach import ReachMap
    from mfik.view import Playback, Session, choose_solver, draw_robot
    from mfik.view.app import Viewer

    world = None if args.world is None else World.from_file(args.world)
    description = robot_arguments(args)
    session = Session(choose_solver(args.robot, args.model, **description), world)
    robot = session.solver.robot
    bodies, note = draw_robot(robot, args.robot, description["xacro_args"], description["package_paths"])
    print(note)
    playback = None
    if args.path is not None:
        playback = Playback(session.solver, *load_joints(args.path, robot.joint_names))
    found = None if args.reach is None else ReachMap.load(args.reach)
    viewer = Viewer(session, bodies, args.host, args.port, args.csv, note, playback, found)
    print(f"{robot.name}, {robot.base_link} -> {robot.tip_link}: open {viewer.url} (Ctrl-C ends)", flush=True)
    try:
        viewer.run()
    except KeyboardInterrupt:
        viewer.stop()
