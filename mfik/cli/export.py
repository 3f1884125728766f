"""Export a checkpoint, or a robot without a network, as a bundle for the solver, TorchScript and ONNX Runtime."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from mfik import __version__
from mfik.cli import ROBOT, Parser, add_robot_arguments, robot_arguments
from mfik.errors import ArgumentError
from mfik.export import document, export_bundle, load_bundle
from mfik.robots import load_robot
from mfik.solve import model_path
from mfik.train.v1 import load_model


def add_arguments(parser: Parser) -> None:
    """Add the command's arguments."""
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument("--checkpoint", type=Path, help="checkpoint of scripts/train.py")
    source.add_argument("--model", help="bundle, or name of a pretrained model: the same network in all formats")
    source.add_argument("--robot", help=f"{ROBOT}: a bundle without a network, for the C++ solver")
    add_robot_arguments(parser)
    parser.add_argument("--output", type=Path, required=True, help="bundle folder to write")
    parser.add_argument(
        "--refine", type=int, default=0, metavar="K", help="TorchScript and ONNX refine their answer by up to K steps"
    )
    parser.add_argument(
        "--errors", action="store_true", help="TorchScript and ONNX also return pos_error [m], rot_error [rad], inside"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing bundle")


def run(args: argparse.Namespace, parser: Parser) -> None:
    """Write the bundle."""
    options = {"refine": args.refine, "errors": args.errors, "overwrite": args.overwrite}
    if args.robot is not None:
        robot = load_robot(args.robot, **robot_arguments(args))
        export_bundle(args.output, None, document(None, robot), **options)
        print(f"{args.output}: {robot.name}, {robot.dof} joints, no network")
        return
    given = [name for name, value in robot_arguments(args).items() if value]
    if given:
        source = "--model" if args.model is not None else "--checkpoint"
        raise ArgumentError(f"--{given[0]}: expected none with {source}, which has its own robot; leave it out")
    if args.model is not None:
        model, robot, description = load_bundle(model_path(args.model))
        export_bundle(args.output, model, description, **options)
        print(f"{args.output}: {robot.name}, {model.num_parameters():,} parameters")
        return
    model, robot, state = load_model(args.checkpoint)
    training = {
        "mfik": __version__,
        "checkpoint": args.checkpoint.name,
        "steps": state["global_step"],
        "samples_seen": state["samples_seen"],
        "config": json.loads(state["train_config"]),
    }
    export_bundle(
        args.output,
        model,
        document(model, robot, training=training, accuracy=json.loads(state["accuracy"])),
        **options,
    )
    print(f"{args.output}: {robot.name}, {model.num_parameters():,} parameters, {state['samples_seen']:,} samples seen")
