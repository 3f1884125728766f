"""Show a robot and its solver in a browser: drag the target, the solution follows (docs/how-to/viewer.md)."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from mfik.cli import HelpFormatter
from mfik.collision import World
from mfik.errors import ArgumentError, MfikError, RobotError
from mfik.robots import PRESETS


def read_world(path: Path) -> World:
    """Read a world's shapes from a JSON file."""
    try:
        return World.from_dicts(json.loads(path.read_bytes()))
    except OSError as error:
        raise ArgumentError(f"--world: {path}: cannot read the file ({error.strerror}); check the path") from None
    except (ValueError, TypeError) as error:
        if isinstance(error, MfikError):
            raise ArgumentError(f"--world: {path}: {error}") from None
        raise ArgumentError(f"--world: {path}: expected a JSON list of shapes, got {error}; correct it") from None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=HelpFormatter)
    parser.add_argument("--robot", help=f"{', '.join(PRESETS)} or a URDF file; default: the model's robot, else panda")
    parser.add_argument("--model", help="bundle, or name of a pretrained model; default: the robot's, if there is one")
    parser.add_argument("--base_link", help="first link of the chain; default: the model's, else the URDF's root")
    parser.add_argument("--tip_link", help="last link of the chain; default: the model's, else the URDF's only leaf")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on: whoever reaches it moves the target")
    parser.add_argument("--port", type=int, default=8080, help="port to listen on, or the next free one")
    parser.add_argument("--spheres", help="file of the robot's spheres (scripts/fit_spheres.py), to look at them")
    parser.add_argument("--world", type=Path, help="JSON file of the shapes around the robot (World.from_dicts)")
    parser.add_argument("--path", type=Path, help="joints to play, .csv or .npz, as scripts/solve_path.py writes them")
    parser.add_argument("--csv", type=Path, help="let the panel write the recorded trajectory to this file")
    args = parser.parse_args()

    from mfik.path import load_joints
    from mfik.view import Playback, Session, chain_bodies, choose_solver, mesh_bodies
    from mfik.view.app import Viewer

    world = None if args.world is None else read_world(args.world)
    session = Session(choose_solver(args.robot, args.model, args.base_link, args.tip_link, args.spheres), world)
    robot, note = session.solver.robot, ""
    bodies = chain_bodies(robot)
    if args.robot is not None and args.robot not in PRESETS:
        try:
            bodies = mesh_bodies(robot, args.robot)
        except RobotError as error:
            note = f"drawn from its joints: {error}"
            print(note)
    playback = None
    if args.path is not None:
        playback = Playback(session.solver, *load_joints(args.path, robot.joint_names))
    viewer = Viewer(session, bodies, args.host, args.port, args.csv, note, playback)
    print(f"{robot.name}, {robot.base_link} -> {robot.tip_link}: open {viewer.url} (Ctrl-C ends)", flush=True)
    try:
        viewer.run()
    except KeyboardInterrupt:
        viewer.stop()


if __name__ == "__main__":
    try:
        main()
    except (MfikError, ImportError) as error:
        sys.exit(f"error: {error}")
