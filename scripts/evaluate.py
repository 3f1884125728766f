"""Measure a model through the C++ solver: accuracy and time after 0..K refinements."""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from pathlib import Path

from mfik.errors import ArgumentError, MfikError
from mfik.eval import REFERENCES, evaluate, format_table, load_targets, make_targets
from mfik.export import NATIVE_FILE, document, write_native
from mfik.solve import Solver
from mfik.train.v1 import load_model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument(
        "--model", type=Path, required=True, help="bundle folder of scripts/export.py, or a .pth checkpoint"
    )
    parser.add_argument("--targets", type=Path, help=".npz with pose [N,7] and q_ref [N,J]; default: drawn from --seed")
    parser.add_argument("--num", type=int, default=1000, help="poses to draw")
    parser.add_argument("--reference", choices=REFERENCES, default="global", help="references to draw")
    parser.add_argument("--sigma", type=float, default=0.3, help="spread of local references [rad]")
    parser.add_argument("--seed", type=int, default=0, help="seed of the drawn poses")
    parser.add_argument("--refine", type=int, default=10, help="largest number of refinements K")
    parser.add_argument("--json", type=Path, help="also write the report here")
    args = parser.parse_args()
    if args.refine < 0:
        raise ArgumentError(f"--refine: expected 0 or more refinements, got {args.refine}")

    solver = load_solver(args.model)
    if args.targets is not None:
        targets = load_targets(args.targets, solver.robot)
    else:
        targets = make_targets(solver.robot, args.num, reference=args.reference, sigma=args.sigma, seed=args.seed)
    report = evaluate(solver, targets, refine=args.refine)
    print(format_table(report))
    if args.json is not None:
        args.json.parent.mkdir(parents=True, exist_ok=True)
        args.json.write_text(json.dumps(report, indent=2) + "\n")


def load_solver(path: Path) -> Solver:
    """Load a bundle, or a checkpoint by way of a temporary native file."""
    if path.suffix != ".pth":
        return Solver.load(path)
    model, robot, _ = load_model(path)
    with tempfile.TemporaryDirectory() as folder:
        write_native(Path(folder) / NATIVE_FILE, model, document(model, robot))
        return Solver.load(folder)


if __name__ == "__main__":
    try:
        main()
    except MfikError as error:
        sys.exit(f"error: {error}")
