"""Write a training file for a robot, from its description alone."""

from __future__ import annotations

import time
from pathlib import Path

from mfik.cli import ROBOT, Parser, add_robot_arguments, robot_arguments, run_script
from mfik.data import COUPLINGS, generate, save_dataset
from mfik.errors import DataError
from mfik.progress import ProgressBar
from mfik.robots import load_robot
from mfik.writing import make_folder


def main() -> None:
    parser = Parser(description=__doc__)
    parser.add_argument("--robot", required=True, help=ROBOT)
    add_robot_arguments(parser)
    parser.add_argument("--num_samples", type=int, default=1_000_000, help="number of rows")
    parser.add_argument("--output", type=Path, required=True, help="file to write, e.g. data/panda_train.pt")
    parser.add_argument("--coupling", choices=COUPLINGS, default="mixed", help="how reference and solution relate")
    parser.add_argument("--sigma", type=float, default=0.3, help="noise of the local coupling [rad]")
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument("--collision_free", action="store_true", help="solutions free of self-collision alone")
    parser.add_argument("--device", default="cpu", help="torch device to compute on")
    parser.add_argument("--overwrite", action="store_true", help="replace an existing file")
    args = parser.parse_args()

    robot = load_robot(args.robot, **robot_arguments(args))
    if args.output.exists() and not args.overwrite:
        raise DataError(f"{args.output}: exists already; give another --output, or --overwrite to replace it")
    make_folder(args.output.parent)  # before what takes long
    start = time.perf_counter()
    name = f"{robot.name} {args.coupling}"
    with ProgressBar(total=args.num_samples, unit="row", unit_scale=True, desc=name) as bar:
        dataset = generate(
            robot,
            args.num_samples,
            coupling=args.coupling,
            sigma=args.sigma,
            seed=args.seed,
            device=args.device,
            collision_free=args.collision_free,
            progress=bar.update,
        )
    save_dataset(args.output, dataset, overwrite=args.overwrite)
    print(f"{args.output}: {len(dataset):,} rows for {robot.name} in {time.perf_counter() - start:.1f} s")


if __name__ == "__main__":
    run_script(main)
