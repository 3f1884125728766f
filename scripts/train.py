"""Train a MeanFlow network; every setting of mfik.train.v1.TrainConfig is a flag."""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import sys
from dataclasses import fields
from pathlib import Path

import torch

from mfik.cli import Parser, add_robot_arguments, robot_arguments, run_script
from mfik.data import COUPLINGS, FileSource, IKDataset, OnlineSource, Source, generate, load_dataset
from mfik.errors import ArgumentError, DataError
from mfik.model import NETWORK_TYPES, build_network, make_network
from mfik.robots import Robot, load_robot
from mfik.train.v1 import (
    MeanFlowTrainer,
    TrainConfig,
    holds_run,
    load_settings,
    newest_checkpoint,
    plot_run,
    read_run,
    run_id,
    write_run,
)
from mfik.train.v1.records import CSV_FILE
from mfik.train.v1.run_folder import RUN_FILE, folder_of
from mfik.writing import make_folder

_QUICK_TEST_ROWS = 50_000  # that --quick_test makes
_MAX_VAL_ROWS = 10_000  # rows held out for validation, at most
_SINGLE_THREAD_PARAMETERS = 300_000  # networks below train on one thread
_RUN_FOLDERS = ("checkpoints", "logs", "plots", "report", "bad_batches")
# Recorded in run.json beside the training settings: what a run that is continued or repeated trains on.
_DATA_ARGUMENTS = ("data_path", "coupling", "sigma", "skip_bad_rows", "quick_test")


def parse_args() -> tuple[argparse.Namespace, TrainConfig]:
    """Return the script's own arguments and the training configuration: defaults or a record, then flags."""
    parser = Parser(
        usage="%(prog)s --data_path FILE [--robot ROBOT] [--output_dir DIR] [option ...]",
        description=__doc__,
    )
    data = parser.add_argument_group("data and network")
    data.add_argument(
        "--data_path", help="training file of scripts/generate_data.py, or 'online' to draw rows as training goes"
    )
    data.add_argument(
        "--coupling", choices=COUPLINGS, default="mixed", help="how online references and solutions relate"
    )
    data.add_argument("--sigma", type=float, default=0.3, help="noise of online local references [rad]")
    data.add_argument(
        "--skip_bad_rows", action="store_true", help="leave bad rows of the file out instead of refusing it"
    )
    add_robot_arguments(data)
    data.add_argument(
        "--network", choices=NETWORK_TYPES, default="v1", help="type of network; v2 is given the robot's geometry"
    )
    sizes = {name: tuple(entry.config.SIZES) for name, entry in NETWORK_TYPES.items()}
    data.add_argument(
        "--preset",
        choices=tuple(dict.fromkeys(size for names in sizes.values() for size in names)),
        help="size: 17.9M (default), 1M (small), 0.1M (tiny) parameters; "
        + "; ".join(f"of {name}: {', '.join(names)}" for name, names in sizes.items()),
    )
    run = parser.add_argument_group("run")
    run.add_argument("--output_dir", type=Path, help="folder of the run; default: outputs/ROBOT")
    run.add_argument("--overwrite", action="store_true", help="start anew in a folder that holds a run")
    run.add_argument(
        "--resume_from", type=Path, metavar="PATH",
        help="checkpoint to continue from, with its settings, in its run's folder; or that folder: its newest one",
    )  # fmt: skip
    run.add_argument("--other_data", action="store_true", help="continue on other data than the run began with")
    run.add_argument("--config", type=Path, help="run.json of an earlier run: its settings become the defaults")
    run.add_argument("--dry_run", action="store_true", help="check everything, take one step, write nothing")
    run.add_argument("--quick_test", action="store_true", help="seconds-long run of a tiny network on data made here")
    known, _ = parser.parse_known_args([arg for arg in sys.argv[1:] if arg not in ("-h", "--help")])
    base, recorded_model = (TrainConfig.quick_test() if known.quick_test else TrainConfig()), None
    if known.resume_from is not None:
        checkpoint = newest_checkpoint(known.resume_from)
        base, recorded_model, robot, run_of_checkpoint = load_settings(checkpoint)
        for folder in (folder_of(checkpoint), known.output_dir):
            if folder is not None and (folder / RUN_FILE).is_file() and run_id(folder) == run_of_checkpoint:
                recorded = read_run(folder / RUN_FILE)["arguments"]
                parser.set_defaults(**{name: recorded[name] for name in _DATA_ARGUMENTS if name in recorded})
        parser.set_defaults(checkpoint=checkpoint, recorded_robot=robot, recorded_run=run_of_checkpoint)
    elif known.config is not None:
        recorded = read_run(known.config)
        try:
            base, recorded_model = TrainConfig.from_dict(recorded["train_config"]), recorded["model_config"]
        except KeyError as error:
            raise DataError(f"--config {known.config}: has no {error}; give the run.json of a run") from error
        parser.set_defaults(**recorded["arguments"])
    parser.set_defaults(recorded_model=recorded_model)
    settings = parser.add_argument_group("training settings (mfik.train.v1.TrainConfig)")
    about = TrainConfig.field_help()
    for field in fields(TrainConfig):
        default = getattr(base, field.name)
        if field.name == "robot" and known.resume_from is not None:
            settings.add_argument("--robot", help="default: the checkpoint's; another one is refused", metavar="WORD")
            continue
        if isinstance(default, bool):
            kind = {"action": argparse.BooleanOptionalAction}
        elif isinstance(default, tuple):
            kind = {"type": float, "nargs": len(default), "metavar": "X"}
        else:
            kind = {"type": type(default), "metavar": {int: "N", float: "X", str: "WORD"}[type(default)]}
        text = about[field.name].replace("%", "%%")  # argparse's own sign
        settings.add_argument(f"--{field.name}", default=default, help=text, **kind)
    args = parser.parse_args()
    args.robot_given = args.robot is not None
    args.robot = args.robot or base.robot
    config = TrainConfig.from_dict({field.name: getattr(args, field.name) for field in fields(TrainConfig)})
    config.validate()
    return args, config


def load_run_robot(args: argparse.Namespace, config: TrainConfig) -> Robot:
    """Return the robot to train for: of a run that is continued, its own, unless the command line names one."""
    given = robot_arguments(args)
    if args.resume_from is not None and not (args.robot_given or any(given.values())):
        return args.recorded_robot
    return load_robot(config.robot, **given)


def choose_folder(args: argparse.Namespace, robot: Robot) -> Path:
    """Return the folder to write, which holds no run but the one that is continued.

    Raises:
        ArgumentError: it holds another run, or there is no telling which folder is meant.
    """
    if args.resume_from is None:
        folder = args.output_dir or Path("outputs") / ("quick_test" if args.quick_test else robot.name)
        anew = args.overwrite or args.dry_run or (args.quick_test and args.output_dir is None)
        if holds_run(folder) and not anew:
            raise ArgumentError(
                f"--output_dir {folder}: holds a run already; continue it with --resume_from, give another folder, "
                "or start anew with --overwrite"
            )
        return folder
    if args.overwrite:
        raise ArgumentError("--overwrite: expected none with --resume_from, which continues a run; leave one out")
    folder = args.output_dir or folder_of(args.checkpoint)
    if folder is None:
        raise ArgumentError(
            f"--output_dir: expected a folder, as {args.checkpoint} does not lie in the checkpoints/ of a run; give one"
        )
    if holds_run(folder) and run_id(folder) != args.recorded_run:
        raise ArgumentError(
            f"--output_dir {folder}: holds another run than {args.checkpoint}; leave --output_dir out to continue in "
            "the checkpoint's own folder, or give a new one"
        )
    return folder


def main() -> None:
    args, config = parse_args()
    robot = load_run_robot(args, config)
    output_dir = choose_folder(args, robot)
    held_run = holds_run(output_dir)
    if not args.dry_run:
        make_folder(output_dir)  # before what takes long
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:  # started by torchrun
        if torch.cuda.is_available():
            torch.cuda.set_device(int(os.environ["LOCAL_RANK"]))
        torch.distributed.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    torch.manual_seed(config.seed)
    if args.preset is None and args.recorded_model is not None:
        model = build_network(args.recorded_model, robot)
    else:
        model = make_network(args.network, args.preset or ("tiny" if args.quick_test else "default"), robot)
    if model.num_parameters() < _SINGLE_THREAD_PARAMETERS and "OMP_NUM_THREADS" not in os.environ:
        # A second thread gains a tiny network a fifth on idle cores, and costs it a multiple on busy ones.
        torch.set_num_threads(1)
    trainer = MeanFlowTrainer(model, config, robot=robot, output_dir=None if args.dry_run else output_dir)
    source, val, trainer.data = open_data(args, trainer)
    if args.resume_from is not None:
        identity = trainer.run
        trainer.resume(args.checkpoint, other_data=args.other_data)
        if not held_run:
            trainer.run = identity  # a branch of the run, in a folder of its own
    main_process = trainer.rank == 0
    if main_process:
        print(f"{robot.name}: {model.num_parameters():,} parameters, {trainer.data['rows']} rows, on {trainer.device}")
    if args.dry_run:
        steps = config.max_steps or config.num_epochs * source.steps_per_epoch
        metrics = trainer.train_step(source.batch(0))
        if main_process:
            print(
                f"dry run: {steps:,} steps of {config.batch_size} rows would follow; first loss {metrics['loss']:.3f}"
            )
        return
    if main_process and held_run and args.resume_from is None:  # --overwrite: only what a run wrote
        for name in _RUN_FOLDERS:
            shutil.rmtree(output_dir / name, ignore_errors=True)
        (output_dir / CSV_FILE).unlink(missing_ok=True)
    if main_process and not (args.resume_from and (output_dir / RUN_FILE).is_file()):  # the record it began with stays
        arguments = {name: getattr(args, name) for name in _DATA_ARGUMENTS}
        arguments |= {"base_link": robot.base_link, "tip_link": robot.tip_link}
        arguments |= {name: getattr(args, name) for name in ("srdf", "xacro_args", "package_paths")}
        write_run(output_dir, trainer, command=sys.argv, arguments=arguments)
    metrics = trainer.fit(source, val)
    if not main_process:
        return
    plots = plot_run(output_dir)
    if trainer.interrupted:
        print(
            f"interrupted after step {trainer.global_step:,}; continue with --resume_from "
            f"{output_dir}/checkpoints/checkpoint_step_{trainer.global_step}.pth"
        )
        return
    print(
        f"{output_dir}: {trainer.samples_seen:,} samples seen; one-step error mean {metrics['pos_mm_mean']:.1f} mm "
        f"{metrics['rot_deg_mean']:.1f} deg, median {metrics['pos_mm_p50']:.1f} mm {metrics['rot_deg_p50']:.1f} deg; "
        f"report: {plots[-1] if plots else 'none (pip install mfik[viz])'}\n"
        f"export: python scripts/export.py --checkpoint {output_dir}/checkpoints/final_model.pth "
        f"--output {output_dir}/bundle"
    )


def sha256_of(path: str) -> str:
    """Return the hash of a file, read in pieces."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while piece := file.read(1 << 20):
            digest.update(piece)
    return digest.hexdigest()


def open_data(args: argparse.Namespace, trainer: MeanFlowTrainer) -> tuple[Source, IKDataset, dict]:
    """Return where rows come from, the rows to validate on, and what is recorded of both."""
    config, robot = trainer.config, trainer.robot
    processes = {"rank": trainer.rank, "world_size": trainer.world_size, "device": trainer.device}
    if args.data_path == "online":
        source = OnlineSource(
            robot, config.batch_size, coupling=args.coupling, sigma=args.sigma, seed=config.seed,
            collision_free=config.collision_free, **processes,
        )  # fmt: skip
        data = {"rows": "online", "coupling": args.coupling, "sigma": args.sigma}
        return source, source.validation_rows(_MAX_VAL_ROWS), data
    if args.data_path is not None:
        data = load_dataset(args.data_path, robot, skip_bad_rows=args.skip_bad_rows)
        if data.skipped and trainer.rank == 0:
            print(f"{args.data_path}: {data.skipped:,} bad rows left out")
    elif args.quick_test:
        data = generate(robot, _QUICK_TEST_ROWS, coupling="local", seed=config.seed)
    else:
        raise ArgumentError("--data_path: expected a training file or 'online'; make one with scripts/generate_data.py")
    num_train = len(data) - min(max(1, round(config.val_fraction * len(data))), _MAX_VAL_ROWS)
    source = FileSource(data.rows(0, num_train), config.batch_size, seed=config.seed, **processes)
    meta = {key: value for key, value in data.meta.items() if key != "robot"}
    record = {"rows": len(data), "skipped": data.skipped, **meta}
    if args.data_path is not None:
        record["sha256"] = sha256_of(args.data_path)
    return source, data.rows(num_train, len(data)), record


if __name__ == "__main__":
    try:
        run_script(main)
    finally:
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
