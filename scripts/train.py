"""Train a MeanFlow network; every setting of mfik.train.v1.TrainConfig is a flag."""

from __future__ import annotations

import argparse
import sys
from dataclasses import fields
from pathlib import Path

import torch

from mfik.data import IKDataset, generate, load_dataset
from mfik.errors import ArgumentError, MfikError
from mfik.model.v1 import PRESETS, MeanFlowNet, ModelConfig
from mfik.robots import load_robot
from mfik.train.v1 import MeanFlowTrainer, TrainConfig

_QUICK_TEST_ROWS = 50_000


def parse_args() -> tuple[argparse.Namespace, TrainConfig]:
    """Return the script's own arguments and the training configuration."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--data_path", type=Path, help="training file of scripts/generate_data.py")
    parser.add_argument("--output_dir", type=Path, help="folder of the run; default: outputs/ROBOT")
    parser.add_argument("--preset", choices=PRESETS, default="default", help="size: 17.9M, 1M or 0.1M parameters")
    parser.add_argument("--base_link", help="base frame; default: the preset's, or the URDF's root")
    parser.add_argument("--tip_link", help="tool frame; default: the preset's, or the URDF's only leaf")
    parser.add_argument("--resume_from", type=Path, help="checkpoint to continue from")
    parser.add_argument("--quick_test", action="store_true", help="seconds-long run of a tiny network on data made here")
    parser.add_argument("--overwrite", action="store_true", help="start anew in a folder that holds a run")
    settings = parser.add_argument_group("training settings (TrainConfig)")
    base = TrainConfig.quick_test() if "--quick_test" in sys.argv else TrainConfig()
    for field in fields(TrainConfig):
        default = getattr(base, field.name)
        if isinstance(default, bool):
            kind = {"action": argparse.BooleanOptionalAction}
        elif isinstance(default, tuple):
            kind = {"type": float, "nargs": len(default)}
        else:
            kind = {"type": type(default)}
        settings.add_argument(f"--{field.name}", default=default, help="see TrainConfig", **kind)
    args = parser.parse_args()
    values = {field.name: getattr(args, field.name) for field in fields(TrainConfig)}
    return args, TrainConfig.from_dict(values)


def main() -> None:
    args, config = parse_args()
    config.validate()
    robot = load_robot(config.robot, base_link=args.base_link, tip_link=args.tip_link)
    preset = "tiny" if args.quick_test else args.preset
    output_dir = args.output_dir or Path("outputs") / ("quick_test" if args.quick_test else robot.name)
    anew = args.overwrite or (args.quick_test and args.output_dir is None)
    if (output_dir / "checkpoints").exists() and args.resume_from is None and not anew:
        raise ArgumentError(
            f"--output_dir {output_dir}: holds a run already; continue it with --resume_from, give another folder, "
            "or start anew with --overwrite"
        )
    data = load_data(args, config, robot)
    torch.manual_seed(config.seed)
    model = MeanFlowNet(ModelConfig.preset(robot.dof, preset))
    trainer = MeanFlowTrainer(model=model, config=config, robot=robot, output_dir=output_dir)
    if args.resume_from is not None:
        trainer.resume(args.resume_from)
    print(f"{robot.name}: {model.num_parameters():,} parameters, {len(data):,} rows, on {trainer.device}")
    metrics = trainer.fit(data)
    print(
        f"{output_dir}: {trainer.samples_seen:,} samples seen; one-step error mean {metrics['pos_mm_mean']:.1f} mm "
        f"{metrics['rot_deg_mean']:.1f} deg, median {metrics['pos_mm_p50']:.1f} mm {metrics['rot_deg_p50']:.1f} deg\n"
        f"export: python scripts/export.py --checkpoint {output_dir}/checkpoints/final_model.pth --output {output_dir}/bundle"
    )


def load_data(args: argparse.Namespace, config: TrainConfig, robot) -> IKDataset:
    """Return the rows of --data_path, or rows made here for --quick_test."""
    if args.data_path is not None:
        return load_dataset(args.data_path, robot)
    if not args.quick_test:
        raise ArgumentError("--data_path: expected a training file; make one with scripts/generate_data.py")
    return generate(robot, _QUICK_TEST_ROWS, coupling="local", seed=config.seed)


if __name__ == "__main__":
    try:
        main()
    except MfikError as error:
        sys.exit(f"error: {error}")
