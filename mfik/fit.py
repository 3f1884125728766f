"""From a robot's description to a bundle: online data, training, export, evaluation, model card."""

from __future__ import annotations

import json
import math
import os
import pickle
import shlex
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any

from mfik import __version__
from mfik.data import OnlineSource
from mfik.data.generate import check_coupling
from mfik.errors import ArgumentError, MfikError
from mfik.eval import CURVE_METRICS, model_card, run_protocol
from mfik.export import NATIVE_FILE, document, export_bundle, write_native
from mfik.model import NETWORK_TYPES, make_network
from mfik.needs_torch import torch
from mfik.progress import ProgressBar
from mfik.report import cpu_name
from mfik.robots import Robot
from mfik.solve import Solver
from mfik.train.v1 import (
    MeanFlowTrainer,
    TrainConfig,
    holds_run,
    load_model,
    load_settings,
    newest_checkpoint,
    plot_run,
    read_run,
    read_validations,
    write_run,
)
from mfik.train.v1.run_folder import RUN_FILE
from mfik.train.v1.signals import ENDING, handled
from mfik.writing import make_folder, whole_file

_NETWORK = "v2"  # type that is trained
PRESETS = tuple(NETWORK_TYPES[_NETWORK].config.SIZES)

_FINAL = "final_model.pth"  # checkpoint of a finished training
_BEST = "best_model.pth"  # of the validation with the highest success rate of one attempt
_EPOCH_ROWS = 500_000  # rows between two validations
_VAL_ROWS = 10_000  # rows of a validation
# Of the recipe; docs/measurements/training.md has the measurements behind what differs from TrainConfig's defaults.
_WARMUP = 0.03  # share of the steps over which the learning rate rises
_LEARNING_RATE_BY_WIDTH = 6e-3 * 128  # learning rate times width
_FK_LOSS_WEIGHT = 2.0  # of the error of the one-step solutions beside the distance to the rows' own
_EMA_SHARE, _MAX_EMA_STEPS = 0.02, 1000.0  # steps that the averaged weights look back: share of the run, and at most
_LEAST_STEPS = 20  # however short the time: fewer leave no step for the warm-up
_TRIAL_STEPS = 8  # steps that are timed
_STEP_SHARE = 0.85  # of the time is left for steps beside validation, checkpoints and waiting for other processes


@dataclass(frozen=True)
class FitSettings:
    """What `fit` asks of its caller; docs/measurements/training.md has the measurements behind the recipe.

    Attributes:
        minutes: Time from the first step of the training to the last, [min]; evaluation comes on top.
        preset: Size of the network, one of PRESETS.
        coupling: How online references and solutions relate, see `mfik.data.generate`: "seeding" for answers to any
            pose, "local" for precise answers near by.
        sigma: Spread of local references [rad].
        collision_free: Train towards solutions free of self-collision alone, on the CPU.
        batch_size: Rows a step of each process.
        learning_rate: AdamW's base learning rate; 0: 6e-3 for a width of 128, less in proportion for wider networks.
        processes: Processes that train together, on a CPU; 0: one for each core.
        seed: Of the training.
        num: Poses of each set of the evaluation.
    """

    minutes: float = 10.0
    preset: str = "nano"
    coupling: str = "seeding"
    sigma: float = 0.3
    collision_free: bool = False
    batch_size: int = 1024
    learning_rate: float = 0.0
    processes: int = 0
    seed: int = 0
    num: int = 10_000

    def __post_init__(self) -> None:
        if not (math.isfinite(self.minutes) and self.minutes > 0):
            raise ArgumentError(f"minutes: expected a positive number, got {self.minutes}")
        if self.processes < 0:
            raise ArgumentError(f"processes: expected 0 or more, got {self.processes}")
        if not (math.isfinite(self.learning_rate) and self.learning_rate >= 0):
            raise ArgumentError(
                f"learning_rate: expected 0 (by the width) or a positive number, got {self.learning_rate}"
            )
        for name in ("batch_size", "num"):
            if getattr(self, name) < 1:
                raise ArgumentError(f"{name}: expected at least 1, got {getattr(self, name)}")
        check_coupling(self.coupling, self.sigma)


def fit(
    robot: Robot, output: Path, settings: FitSettings, *, command: Sequence[str], resume: bool = False
) -> dict[str, Any]:
    """Train a network for a robot and write its bundle, with a model card, to `output`/bundle.

    An interruption, by SIGINT or SIGTERM to this process, saves a checkpoint and raises KeyboardInterrupt.

    Args:
        robot: The robot.
        output: Folder of the run: record, checkpoints, logs, report, bundle.
        settings: See `FitSettings`.
        command: `sys.argv`, for record and card.
        resume: Continue the run of the folder, where it stopped; see `read_fit`.

    Returns:
        The report of `run_protocol`.

    Raises:
        ArgumentError: a setting is out of range, or the folder holds a run already and `resume` is false.
        TrainingError: the training did not stay finite.
        WriteError: the folder cannot be written.
    """
    if (output / "bundle").exists() or (holds_run(output) and not resume):
        raise ArgumentError(f"output: {output} holds a run already; continue it with --resume, or give another folder")
    config = _config(robot, settings)
    make_folder(output)
    on_gpu = config.device != "cpu" and torch.cuda.is_available()
    processes = 1 if on_gpu else settings.processes or len(os.sched_getaffinity(0))
    if not resume:
        _write_start(output, robot, settings, command)
    signalled = False

    def stop(number: int, frame: Any) -> None:
        nonlocal signalled
        signalled = True
        raise KeyboardInterrupt

    def check() -> None:
        """Raise anew what Python drops where it cannot be passed on, in a destructor or a callback."""
        if signalled:
            raise KeyboardInterrupt

    with handled(ENDING, stop):
        if not (output / "checkpoints" / _FINAL).is_file():
            checkpoint = newest_checkpoint(output) if any((output / "checkpoints").glob("*.pth")) else None
            if checkpoint is None:
                config = _scheduled(config, _steps_within(robot, settings, config))
            else:
                config = load_settings(checkpoint).train_config
            check()
            arguments = (robot, output, settings, config, checkpoint)
            if processes > 1:
                _train_group(processes, arguments)
            else:
                with _one_thread():
                    interrupted = _train(*arguments)
                if interrupted:
                    raise KeyboardInterrupt
        check()
        plot_run(output)
        plural = "es" if processes > 1 else ""
        hardware = torch.cuda.get_device_name() if on_gpu else f"{processes} process{plural} on {cpu_name()}"
        return publish(output, settings, hardware=hardware, processes=processes, command=command, check=check)


def read_fit(output: Path) -> tuple[Robot, FitSettings, list[str]]:
    """Read from the record of a run of `fit` what continues it: robot, settings, command.

    Raises:
        ArgumentError: the folder holds no such run, or a finished one.
        DataError: its record is damaged.
    """
    if not (output / RUN_FILE).is_file():
        raise ArgumentError(f"--resume {output}: holds no run of scripts/fit.py (no {RUN_FILE}); start one")
    if (output / "bundle").exists():
        raise ArgumentError(f"--resume {output}: nothing is left to do, {output / 'bundle'} is complete")
    record = read_run(output / RUN_FILE)
    names = [field.name for field in fields(FitSettings)]
    try:
        settings = FitSettings(**{name: record["arguments"][name] for name in names})
        return Robot.from_dict(record["robot"]), settings, record["command"]
    except (KeyError, TypeError) as error:
        raise ArgumentError(
            f"--resume {output}: not a run of scripts/fit.py (no {error} in {RUN_FILE}); continue one of "
            "scripts/train.py with its --resume_from"
        ) from error


def publish(
    output: Path,
    settings: FitSettings,
    *,
    hardware: str,
    processes: int,
    command: Sequence[str],
    check: Callable[[], None] = lambda: None,
) -> dict[str, Any]:
    """Measure a finished run's best network by the protocol, and write its bundle with the card, whole or not at all.

    The best is the network of the validation with the highest success rate of one attempt.

    The report is kept in `output`/evaluation.json: an interrupted call goes on behind it.

    Args:
        output: Folder of the run.
        settings: Of the run.
        hardware: What it ran on.
        processes: Processes that trained together.
        command: `sys.argv`, for the card.
        check: Called between the parts of the work; what it raises ends the call.

    Returns:
        The report of `run_protocol`.
    """
    model, robot, best = load_model(output / "checkpoints" / _BEST)
    _, _, state = load_model(output / "checkpoints" / _FINAL)
    training = {
        "mfik": __version__,
        "command": shlex.join(["python", *command]),
        "steps": state["global_step"],
        "best_step": best["global_step"],
        "samples_seen": state["samples_seen"],
        "minutes": round(state["elapsed_s"] / 60, 3),
        "hardware": hardware,
        "coupling": settings.coupling,
        "sigma": settings.sigma,
        "collision_free": settings.collision_free,
        "config": json.loads(state["train_config"]),
    }
    evaluation = output / "evaluation.json"
    if evaluation.is_file():
        report = json.loads(evaluation.read_text())
    else:
        with tempfile.TemporaryDirectory() as folder:
            write_native(Path(folder) / NATIVE_FILE, model, document(model, robot))
            solver = Solver.load(folder)
        with ProgressBar(desc="evaluation", bar_format="{desc}: {n} parts done, {elapsed}{postfix}") as bar:
            report = run_protocol(solver, n=settings.num, seed=0, progress=partial(_show_part, bar, check))
        with whole_file(evaluation) as file:
            file.write((json.dumps(report, indent=2) + "\n").encode())
        report = json.loads(evaluation.read_text())
    accuracy = {
        name: {key: rows["network"][key] for key in ("pos_mm", "rot_deg", "within_5mm_5deg", "solved")}
        for name, rows in report["one_attempt"].items()
    }
    check()
    curve = read_validations(output, CURVE_METRICS)
    rows_a_step = settings.batch_size * processes
    card = model_card(
        robot, model.config.to_dict(), model.num_parameters(), training, report,
        [(step * rows_a_step, values) for step, values in curve],
    )  # fmt: skip
    with ProgressBar(desc="export", bar_format="{desc}: {elapsed}{postfix}"):
        export_bundle(output / "bundle", model, document(model, robot, training=training, accuracy=accuracy), card=card)
    return report


def _show_part(bar: ProgressBar, check: Callable[[], None], part: str) -> None:
    check()
    bar.set_postfix_str(part, refresh=False)
    bar.update()


def _write_start(output: Path, robot: Robot, settings: FitSettings, command: Sequence[str]) -> None:
    """Record what continues a run that ends before its first step; the training completes the record."""
    record = {"command": list(command), "arguments": _arguments(robot, settings), "robot": robot.to_dict()}
    with whole_file(output / RUN_FILE) as file:
        file.write((json.dumps(record, indent=2) + "\n").encode())


def _arguments(robot: Robot, settings: FitSettings) -> dict[str, Any]:
    """Return what run.json holds beside the training settings: also what scripts/train.py would continue with."""
    return {
        **asdict(settings), "data_path": "online", "base_link": robot.base_link, "tip_link": robot.tip_link
    }  # fmt: skip


def _config(robot: Robot, settings: FitSettings) -> TrainConfig:
    width = NETWORK_TYPES[_NETWORK].config.preset(robot.dof, settings.preset).to_dict()["width"]
    return TrainConfig(
        robot=robot.name,
        batch_size=settings.batch_size,
        learning_rate=settings.learning_rate or _LEARNING_RATE_BY_WIDTH / width,
        loss_type="regression",
        loss_weight_type="uniform",
        flow_matching_ratio=0.0,
        endpoint_ratio=1.0,
        fk_loss_weight=_FK_LOSS_WEIGHT,
        reflow_start=1,
        collision_free=settings.collision_free,
        save_interval=0,
        best_by="success",
        seed=settings.seed,
        device="cpu" if settings.collision_free else "auto",  # what checks for collision runs there
    )


def _scheduled(config: TrainConfig, steps: int) -> TrainConfig:
    """Fit warm-up and averaging to the number of steps."""
    return replace(
        config,
        max_steps=steps,
        num_epochs=steps,
        warmup_steps=round(_WARMUP * steps),
        ema_decay=1 - 1 / max(2.0, min(_MAX_EMA_STEPS, _EMA_SHARE * steps)),
        log_interval=max(1, min(50, steps // 10)),
    )


def _steps_within(robot: Robot, settings: FitSettings, config: TrainConfig) -> int:
    """Time a few steps and tell how many fit into the minutes."""
    torch.manual_seed(settings.seed)
    with _one_thread():
        trainer = MeanFlowTrainer(make_network(_NETWORK, settings.preset, robot), config, robot)
        source = _source(robot, settings, trainer)
        for step in range(_TRIAL_STEPS + 2):
            if step == 2:  # the first one begins without reflow, and both allocate
                start = time.perf_counter()
            trainer.train_step(source.batch(trainer.global_step))
            trainer.global_step += 1
        seconds = (time.perf_counter() - start) / _TRIAL_STEPS
    return max(_LEAST_STEPS, round(_STEP_SHARE * 60 * settings.minutes / seconds))


@contextmanager
def _one_thread() -> Iterator[None]:
    """Compute on one thread: with networks this small a second one waits more than it works."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _source(robot: Robot, settings: FitSettings, trainer: MeanFlowTrainer) -> OnlineSource:
    return OnlineSource(
        robot,
        settings.batch_size,
        coupling=settings.coupling,
        sigma=settings.sigma,
        collision_free=settings.collision_free,
        seed=settings.seed,
        rank=trainer.rank,
        world_size=trainer.world_size,
        device=trainer.device,
        epoch_rows=max(_EPOCH_ROWS, settings.batch_size * trainer.world_size),
    )


def _train(robot: Robot, output: Path, settings: FitSettings, config: TrainConfig, checkpoint: Path | None) -> bool:
    """Train to the end of the time, or to an interruption, which leaves a checkpoint; tell whether there was one."""
    torch.manual_seed(settings.seed)
    trainer = MeanFlowTrainer(make_network(_NETWORK, settings.preset, robot), config, robot, output)
    trainer.data = {"rows": "online", "coupling": settings.coupling, "sigma": settings.sigma}
    source = _source(robot, settings, trainer)
    command = read_run(output / RUN_FILE)["command"]
    if checkpoint is not None:
        trainer.resume(checkpoint)
    if trainer.rank == 0:
        write_run(output, trainer, command=command, arguments=_arguments(robot, settings))
    trainer.fit(source, source.validation_rows(_VAL_ROWS), seconds=60 * settings.minutes)
    return trainer.stop_requested


def _train_group(processes: int, arguments: tuple[Any, ...]) -> None:
    """Train in several processes. SIGINT and SIGTERM end the run with a checkpoint, a second one ends it at once.

    A terminal sends SIGINT to all processes: the started ones begin with it ignored, and this one passes the first
    signal on as SIGTERM.

    Raises:
        MfikError: what one of the processes raised.
        KeyboardInterrupt: there was a signal.
    """
    stopped = False
    with tempfile.TemporaryDirectory() as folder:
        with handled((signal.SIGINT,), signal.SIG_IGN):
            group = torch.multiprocessing.spawn(
                _train_process, (processes, Path(folder), *arguments), nprocs=processes, join=False
            )

        def stop(number: int, frame: Any) -> None:
            nonlocal stopped
            for process in group.processes:
                process.kill() if stopped else process.terminate()
            if stopped:
                raise KeyboardInterrupt
            stopped = True

        with handled(ENDING, stop):
            try:
                while not group.join():
                    pass
            except (torch.multiprocessing.ProcessExitedException, torch.multiprocessing.ProcessRaisedException):
                error = Path(folder) / "error"
                if error.is_file():
                    raise pickle.loads(error.read_bytes()) from None
                if not stopped:  # else a process ended before the training took over the signal, or behind it
                    raise
    if stopped:
        raise KeyboardInterrupt


def _train_process(
    rank: int,
    processes: int,
    folder: Path,
    robot: Robot,
    output: Path,
    settings: FitSettings,
    config: TrainConfig,
    checkpoint: Path | None,
) -> None:
    """Train as one process of a group; leave an error that a user can act on in the folder."""
    torch.set_num_threads(1)
    rendezvous = (folder / "rendezvous").as_uri()
    torch.distributed.init_process_group("gloo", init_method=rendezvous, rank=rank, world_size=processes)
    try:
        _train(robot, output, settings, config, checkpoint)
    except MfikError as error:
        (folder / "error").write_bytes(pickle.dumps(error))
        raise
    finally:
        torch.distributed.destroy_process_group()
