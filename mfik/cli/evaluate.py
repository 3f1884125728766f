"""Measure a model through the C++ solver: accuracy and time after 0..K refinements, or the whole accuracy protocol."""

from __future__ import annotations

import argparse
import contextlib
import json
import shlex
import sys
import tempfile
from pathlib import Path

import torch

from mfik.cli import Parser, program_words
from mfik.errors import ArgumentError
from mfik.eval import (
    CALIBRATION_ROWS,
    KINDS,
    LEVELS,
    ErrorCalibration,
    Targets,
    evaluate,
    format_protocol,
    format_table,
    load_targets,
    make_targets,
    plot_reliability,
    reliability,
    run_protocol,
    write_report,
)
from mfik.export import NATIVE_FILE, document, load_bundle, write_native
from mfik.model import Network
from mfik.robots import Robot
from mfik.solve import Solver, model_path
from mfik.train.v1 import load_model

_STDOUT = Path("-")  # of --json without a file


def add_arguments(parser: Parser) -> None:
    """Add the command's arguments."""
    parser.add_argument(
        "--model", type=Path, required=True, help="bundle folder, name of a pretrained model, or .pth checkpoint"
    )
    parser.add_argument("--targets", type=Path, help=".npz with pose [N,7] and q_ref [N,J]; default: drawn from --seed")
    mode = parser.add_mutually_exclusive_group()
    mode.add_argument(
        "--protocol",
        action="store_true",
        help="the whole accuracy protocol (docs/reference/protocol.md); takes --num and --seed",
    )
    mode.add_argument(
        "--report",
        type=Path,
        metavar="DIR",
        help="the protocol and more as a page with pictures, DIR/index.html; takes --num and --seed",
    )
    parser.add_argument("--num", type=int, help="poses to draw; default: 1000, for --protocol and --report 10000")
    parser.add_argument("--kind", choices=KINDS, default="global", help="poses and references to draw")
    parser.add_argument("--sigma", type=float, default=0.3, help="spread of local references [rad]")
    parser.add_argument("--seed", type=int, default=0, help="seed of the drawn poses")
    parser.add_argument("--refine", type=int, default=10, help="largest number of refinements K")
    parser.add_argument("--reliability", type=Path, help="calibrate the one-step error estimate; draw this PNG")
    parser.add_argument(
        "--json", type=Path, nargs="?", const=_STDOUT, metavar="FILE", help="print JSON, or also write it to FILE"
    )


def run(args: argparse.Namespace, parser: Parser) -> None:
    """Measure, and report."""
    # Beside the JSON nothing is printed to standard output.
    with contextlib.redirect_stdout(sys.stderr if args.json == _STDOUT else sys.stdout):
        report = _report(args, parser)
    if args.json == _STDOUT:
        print(json.dumps(report, indent=1))
    elif args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(report, indent=2) + "\n")


def _report(args: argparse.Namespace, parser: Parser) -> dict:
    """Measure, and print what was found."""
    if args.protocol or args.report:
        flag = "--protocol" if args.protocol else "--report"
        for name in ("targets", "kind", "sigma", "refine", "reliability"):
            if getattr(args, name) != parser.get_default(name):
                raise ArgumentError(f"--{name}: expected none with {flag}, which sets it itself; leave it out")
    if args.refine < 0:
        raise ArgumentError(f"--refine: expected 0 or more refinements, got {args.refine}")

    solver = _load_solver(args.model)
    num = 10_000 if args.num is None else args.num
    if args.protocol:
        report = run_protocol(solver, n=num, seed=args.seed)
        print(format_protocol(report))
    elif args.report:
        network = _load_network(args.model)[0] if solver.num_parameters else None
        command = shlex.join(["python", *program_words()])
        report = write_report(args.report, solver, network=network, n=num, seed=args.seed, command=command)
        print(f"{args.report / 'index.html'}: {num:,} poses a set, seed {args.seed}; open it in a browser")
    else:
        report = _measure(args, solver)
    return report


def _measure(args: argparse.Namespace, solver: Solver) -> dict:
    """Measure 0..K refinements on one set of targets, print the table."""
    if args.targets is not None:
        targets = load_targets(args.targets, solver.robot)
    else:
        num = 1000 if args.num is None else args.num
        targets = make_targets(solver.robot, num, kind=args.kind, sigma=args.sigma, seed=args.seed)
    report = evaluate(solver, targets, refine=args.refine)
    print(format_table(report))
    if args.reliability is not None:
        report["uncertainty"] = _check_uncertainty(args, targets)
    return report


def _check_uncertainty(args: argparse.Namespace, targets: Targets) -> dict:
    """Calibrate the error estimate on poses of another seed, judge it on the targets, print and draw the outcome."""
    model, robot = _load_network(args.model)
    others = make_targets(robot, CALIBRATION_ROWS, kind=args.kind, sigma=args.sigma, seed=args.seed + 1)
    seen, asked = ([torch.from_numpy(array).float() for array in (t.q_ref, t.pose)] for t in (others, targets))
    estimate = ErrorCalibration.fit(model, robot, *seen).estimate(model, *asked)
    result = reliability(estimate, robot, asked[1])
    print("one-step error estimate, share of poses within its bounds:")
    for level, pos, rot in zip(LEVELS, result.coverage_pos, result.coverage_rot, strict=True):
        print(f"  promised {level:.0%}: position {pos:.1%}, rotation {rot:.1%}")
    print(f"  rank correlation: position {result.rank_correlation_pos:.2f}, rotation {result.rank_correlation_rot:.2f}")
    args.reliability.parent.mkdir(parents=True, exist_ok=True)
    plot_reliability(args.reliability, result)
    return {"levels": LEVELS, **result._asdict()}


def _load_solver(path: Path) -> Solver:
    """Load a bundle, a pretrained model by its name, or a checkpoint by way of a temporary native file."""
    if path.suffix != ".pth":
        return Solver.load(model_path(path))
    model, robot, _ = load_model(path)
    with tempfile.TemporaryDirectory() as folder:
        write_native(Path(folder) / NATIVE_FILE, model, document(model, robot))
        return Solver.load(folder)


def _load_network(path: Path) -> tuple[Network, Robot]:
    """Load the network of what `load_solver` takes into PyTorch, and its robot."""
    return (load_model(path) if path.suffix == ".pth" else load_bundle(model_path(path)))[:2]
