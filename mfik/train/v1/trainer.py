"""The MeanFlow trainer."""

from __future__ import annotations

import importlib.util
import json
import math
import os
import time
import warnings
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.swa_utils import AveragedModel

from mfik import ops
from mfik.data import IKDataset, Source, StepRows
from mfik.data.device import resolve_device
from mfik.errors import ArgumentError, BundleError, TrainingError
from mfik.kinematics.refinement import ATTEMPT_REFINEMENTS
from mfik.model import Network
from mfik.progress import ProgressBar
from mfik.robots import Robot, load_robot
from mfik.train.v1.checkpoint import consistent, load_checkpoint, remove_old_checkpoints, save_checkpoint
from mfik.train.v1.config import TrainConfig
from mfik.train.v1.loss import LossOutput, VelocityAndDerivative, meanflow_loss
from mfik.train.v1.processes import any_process, first_process
from mfik.train.v1.records import Records
from mfik.train.v1.run_folder import new_run_id
from mfik.train.v1.sampling import Phase, Sampler
from mfik.train.v1.schedule import learning_rate
from mfik.train.v1.signals import ending
from mfik.train.v1.step import CapturedStep, Sample, TrainingStep
from mfik.train.v1.validation import VAL_REFINEMENTS, measure
from mfik.train.v1.vector_maths import call_vector_maths_once
from mfik.writing import whole_file

_VAL_SEED = 0x7A11D  # times of the validation rows: the same in every run and epoch
# Of a run, as checkpoints hold them.
_COUNTERS = (
    "run", "global_step", "samples_seen", "elapsed_s", "best_val_loss", "best_success", "epochs_since_best"
)  # fmt: skip
_PAUSE_MARGIN = 2.0  # the end of an epoch is left out where less than this many times the last one's length remains


class MeanFlowTrainer:
    """Train a network of any type, from `fit` or from the caller's own loop over `train_step`.

    Args:
        model: Network to train; moved to `config.device`. Of a `torch.nn.DataParallel` its network is trained, with a
            warning: several devices take several processes.
        config: Settings of the run.
        robot: Robot to train for; default: the one that `config.robot` names.
        output_dir: Folder for `checkpoints/` and TensorBoard's `logs/`; None writes nothing.

    In a process group (`torchrun`, `torch.distributed.init_process_group`) every process trains on its own rows, with
    gradients averaged over all; only rank 0 validates and writes.

    Attributes:
        global_step: Steps done. `train_step` reads it (learning rate, random times); whoever calls `train_step`
            increments it.
        ema: Averaged weights; `ema.module` is the network to evaluate and export.
        run: Identity of the run, which its checkpoints carry: continuing one takes it over.
        stop_requested: A signal came while the last `fit` ran, be it too late to end it (`interrupted` then is false).
        data: What the run trains on, in plain types, which its checkpoints carry: `resume` refuses other data. Empty:
            not known.

    Raises:
        ArgumentError: a field of the configuration is out of range, or model and robot differ in joints.
    """

    def __init__(
        self,
        model: Network | nn.DataParallel,
        config: TrainConfig,
        robot: Robot | None = None,
        output_dir: str | Path | None = None,
    ) -> None:
        config.validate()
        self.config = config
        if isinstance(model, nn.DataParallel):
            warnings.warn(
                "model: torch.nn.DataParallel is taken off, as torch.func.jvp does not go through it: the network "
                "trains on one device. For several, start a process for each: torchrun --nproc_per_node=N",
                RuntimeWarning,
                stacklevel=2,
            )
            model = cast(Network, model.module)
        self.robot = load_robot(config.robot) if robot is None else robot
        if model.config.dof != self.robot.dof:
            raise ArgumentError(
                f"model: expected {self.robot.dof} joints for robot {self.robot.name!r}, got {model.config.dof}; "
                f"use ModelConfig.preset({self.robot.dof})"
            )
        if config.wandb and importlib.util.find_spec("wandb") is None:
            raise ArgumentError("wandb: expected the package wandb, which is not installed; pip install 'mfik[wandb]'")
        self.device = resolve_device(config.device)
        if config.deterministic:
            os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS does not repeat itself
            torch.use_deterministic_algorithms(True)
        call_vector_maths_once()
        self.model = model.to(self.device)
        self.distributed = torch.distributed.is_available() and torch.distributed.is_initialized()
        self.rank = torch.distributed.get_rank() if self.distributed else 0
        self.world_size = torch.distributed.get_world_size() if self.distributed else 1
        on_gpu = self.device.type == "cuda"
        self._trained: nn.Module = VelocityAndDerivative(self.model)
        if on_gpu and config.compile:
            self._trained.compile(dynamic=False)  # in place
        if self.distributed:
            if config.loss_type == "residual":
                raise ArgumentError("loss_type: 'residual' is for ablation in one process; use 'meanflow'")
            self._trained = DistributedDataParallel(self._trained, broadcast_buffers=False)  # constants
        self.ema = AveragedModel(self.model)  # holds the copy; TrainingStep averages
        self.model.train()
        self.ema.module.eval()  # as it is validated and exported, reflow begins at its answers
        self._step = TrainingStep(self.model, self.ema.module, config, self.device, self.distributed)
        self.optimizer = self._step.optimizer
        self._mined_share = torch.zeros((), device=self.device)
        self._position = torch.zeros(1, device=self.device)  # where the schedules stand, in steps
        average = cast(Network, self.ema.module)
        self._sampler = Sampler(
            config, self.robot, average, self._step.number, self._position, self._autocast, self.rank
        )
        # The references copy constants from the host, which a graph cannot hold.
        needed = ("sample_batch", "weighted_residual_loss", "fk_error")
        kernels = all(ops.has_kernel(name, self.device) for name in needed)
        self._captured = CapturedStep(self._advance) if on_gpu and kernels and not self.distributed else None
        self._amp_dtype: torch.dtype | None = None
        if config.use_amp and on_gpu:
            self._use_amp(torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16)
        self.output_dir = None if output_dir is None else Path(output_dir)
        self.run = new_run_id()
        self.data: dict[str, Any] = {}
        self.global_step = 0
        self.samples_seen = 0
        self.elapsed_s = 0.0  # that `fit` took, from the first step to the last
        self.bad_steps = 0  # skipped for a loss or gradient that was not finite
        self.best_val_loss = math.inf
        self.best_success = -math.inf  # largest success rate of one attempt
        self.epochs_since_best = 0  # by `config.best_by`
        self.total_steps: int | None = config.max_steps or None
        self.accuracy: dict[str, float] = {}  # last validation
        self._seconds: float | None = None  # that `fit` was given
        self.interrupted = False  # the last `fit` was ended by a signal
        self.stop_requested = False

    def _use_amp(self, dtype: torch.dtype) -> None:
        self._amp_dtype = dtype
        self._step.scaler = torch.amp.GradScaler(self.device.type, enabled=dtype == torch.float16)

    def _autocast(self) -> torch.autocast:
        return torch.autocast(self.device.type, dtype=self._amp_dtype, enabled=self._amp_dtype is not None)

    # -- one step ------------------------------------------------------------------------------------------------------

    def train_step(self, batch: Mapping[str, Tensor] | StepRows) -> dict[str, float]:
        """Take one optimiser step, and wait for its metrics.

        The rows' lines are what counts; times are drawn afresh on them by (seed, global_step).

        Args:
            batch: "q" [B, J], "target_pose" [B, 7], "q_target" [B, J], "r" [B, 1] of the training file's format, "t" is
                not used; or the `batch(step)` of a source.

        Returns:
            loss, meanflow_residual, velocity_norm, fk_loss, jvp_norm, grad_norm, lr.

        Raises:
            ArgumentError: the batch lacks a column, or one has the wrong shape.
            TrainingError: more than `config.max_bad_steps` steps had a loss or gradient that was not finite.
        """
        rows = batch if isinstance(batch, StepRows) else self._checked(batch)
        if not self.model.training:
            self.model.train()
        lr = self._begin_step(rows.size)
        self._advance(rows, self._sampler.phase(self.global_step))
        self._report_bad_steps(lambda _: rows)
        return {**self._step.last_metrics(), "lr": lr}

    def _checked(self, batch: Mapping[str, Tensor]) -> StepRows:
        """Check a caller's batch and move it to the device."""
        missing = [name for name in ("q", "target_pose", "q_target", "r") if name not in batch]
        if missing:
            raise ArgumentError(f"batch: expected q, target_pose, q_target, r; missing {missing}, got {sorted(batch)}")
        rows = {name: batch[name].to(self.device) for name in ("q", "target_pose", "q_target", "r")}
        if rows["q"].ndim != 2 or rows["q"].shape[1] != self.robot.dof or len(rows["q"]) == 0:
            raise ArgumentError(
                f"batch['q']: expected [B, {self.robot.dof}] with at least one row, got {list(rows['q'].shape)}"
            )
        return StepRows.of(rows)

    def _begin_step(self, size: int, position: float | None = None) -> float:
        """Tell the device which step comes next, where the schedules stand (None: there); return its learning rate."""
        position = self.global_step if position is None else position
        lr = learning_rate(self.config, position, self.total_steps)
        self._step.learning_rate.fill_(lr)
        self._position.fill_(position)
        self._step.number.fill_(self.global_step)
        self.samples_seen += size * self.world_size
        return lr

    def _advance(self, rows: StepRows, phase: Phase) -> None:
        """Take the step on the device, without waiting for it."""
        sample = self._sampler.training_sample(rows, phase)
        self._step(sample, self._training_loss)

    def _training_loss(self, sample: Sample) -> LossOutput:
        output = self._loss(self._trained, sample)
        if self.config.hard_ratio < 1:
            count = math.ceil(self.config.hard_ratio * len(output.row_loss))
            mined = output.row_loss.flatten().topk(count).values
            self._mined_share.copy_(mined.sum() / output.row_loss.sum())
        return output

    def _phase_metrics(self, phase: Phase) -> dict[str, float]:
        """Return what says how far the run's phases are, of the last step."""
        metrics = {}
        if self.config.curriculum_steps:
            metrics["curriculum_reach"] = min(1.0, (self._position.item() + 1) / self.config.curriculum_steps)
        if self.config.reflow_start:
            metrics["reflow_accepted"] = self._sampler.accepted.item() if phase.reflow else 0.0
        if self.config.hard_ratio < 1:
            metrics["mined_share"] = self._mined_share.item()
        return metrics

    def _loss(self, model: nn.Module, sample: Sample) -> LossOutput:
        with self._autocast():
            return meanflow_loss(model, *sample, self.config, self.robot)

    def _report_bad_steps(self, rows_of: Callable[[int], StepRows]) -> None:
        """Keep the batches of non-finite steps for inspection; raise after `max_bad_steps` of them.

        Args:
            rows_of: Gives a step's rows again; the batch follows from them and the step's number.
        """
        for number in self._step.bad_steps():
            self.bad_steps += 1
            where = "nowhere (no output_dir)"
            if self.output_dir is not None:
                path = self.output_dir / "bad_batches" / f"step_{number}_rank_{self.rank}.pt"
                self._step.number.fill_(number)
                if self._seconds is None:  # by the clock, the position of the step itself is not known any more
                    self._position.fill_(number)
                phase = self._sampler.phase(self._position.item())
                sample = self._sampler.training_sample(rows_of(number), phase)
                with whole_file(path) as file:
                    torch.save({name: value.cpu() for name, value in sample.batch._asdict().items()}, file)
                where = str(path)
            text = (
                f"step {number}: the loss or its gradient was not finite: step skipped ({self.bad_steps} so far), its "
                f"batch saved to {where}"
            )
            if self.bad_steps > self.config.max_bad_steps:
                raise TrainingError(
                    f"{text}; stopped after more than max_bad_steps = {self.config.max_bad_steps}. Lower "
                    "--learning_rate, set --gradient_clip, lengthen --warmup_steps or try --no-use_amp, from an "
                    "earlier checkpoint"
                )
            warnings.warn(text, RuntimeWarning, stacklevel=3)

    # -- validation ----------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def validate(self, data: IKDataset | Iterable[Mapping[str, Tensor]]) -> dict[str, float]:
        """Measure the averaged network on held-out rows.

        Args:
            data: The rows, or batches of them as a `DataLoader` hands out.

        Returns:
            val_loss, with the same times at every call, and its means over the rows with r in each quarter of [0, 1],
            loss_r0 to loss_r3; pos_mm and rot_deg (mean, p50, p95), the errors of the one-step solution from the start
            of each row's line; solved_0 and solved_3, the success rates to 1e-3 m and rad inside the limits after so
            many refinements; solved_10, the success rate to 1e-5 after at most ten.
        """
        model = self.ema.module
        if isinstance(data, IKDataset):
            rows = data.to(self.device)[:]
        else:
            batches = [self._checked(batch).tensors for batch in data]
            if not batches:
                raise ArgumentError("data: expected at least one batch of rows to validate on, got none")
            rows = {name: torch.cat([batch[name] for batch in batches]) for name in batches[0]}
        rows = {name: column.float() for name, column in rows.items()}
        sample = self._sampler.sample(StepRows.of(rows), _VAL_SEED, 0)
        return measure(model, rows, sample, self._loss(model, sample), self.robot)

    # -- the whole run -------------------------------------------------------------------------------------------------

    def fit(self, source: Source, val: IKDataset, *, seconds: float | None = None) -> dict[str, float]:
        """Train to the end of the schedule, from wherever `global_step` stands.

        Rows and times are functions of the seed and the step, so an interrupted run that is resumed takes the same
        steps. SIGINT and SIGTERM end the run with a checkpoint (`interrupted` is then true): after the current step, in
        a process group after the next one that is logged.

        On CUDA the host only queues steps, each the replay of one CUDA graph (in a process group, and where mfik was
        built without its CUDA kernels: launch by launch); it waits for them where metrics are logged, an epoch begins
        or ends, a block of online rows is drawn or a checkpoint is saved. Logged are the metrics' means since the last
        record.

        Args:
            source: Where rows come from.
            val: Rows that are validated after each epoch; not to be trained on.
            seconds: Time from the first step to the last, what earlier calls took of it included. All schedules then
                follow the share of it that has elapsed, as if `config.max_steps` steps were spread over it evenly, and
                the run takes as many steps as there is time for. None: the number of steps decides, which repeats a
                run exactly.

        Returns:
            The last validation's metrics.

        Raises:
            ArgumentError: `seconds` is given and `config.max_steps` is not.
            TrainingError: more than `config.max_bad_steps` steps had a loss or gradient that was not finite.
        """
        config, self._seconds = self.config, seconds
        self.total_steps = config.num_epochs * source.steps_per_epoch
        if config.max_steps:
            self.total_steps = config.max_steps if seconds else min(self.total_steps, config.max_steps)
        elif seconds:
            raise ArgumentError("max_steps: expected the steps in which schedules are written, to spread over the time")
        records = None
        if self.output_dir is not None and self.rank == 0:
            records = Records(self.output_dir, self.global_step, self.run, config.to_dict() if config.wandb else None)
        advance = self._advance if self._captured is None else self._captured
        pause_s = 0.0  # that the end of an epoch takes; known before the clock runs, so that none begins too late
        self.interrupted = self.stop_requested = False
        with ending(self._request_stop), self._bar(seconds) as bar:
            if seconds and self.rank == 0:
                start = time.perf_counter()
                self.validate(val)
                pause_s = time.perf_counter() - start
            self.model.train()
            clock, clock_step = time.perf_counter(), self.global_step
            start = clock - self.elapsed_s
            position = self._schedule_position(self.elapsed_s, seconds)
            stale = 0 < config.patience <= self.epochs_since_best
            while position < self.total_steps and not self.interrupted and not stale:
                step_start = time.perf_counter()
                rows = source.batch(self.global_step)
                lr = self._begin_step(rows.size, position)
                phase = self._sampler.phase(position)
                advance(rows, phase)
                self.global_step += 1
                now = time.perf_counter()
                # By the clock, the middle of the next step counts, if that takes as long as this one.
                before, position = position, self._schedule_position(now - start + 0.5 * (now - step_start), seconds)
                bar.update(min(now - start, seconds) - bar.n if seconds else 1)
                # The host waits for the device here and nowhere else.
                ends = position >= self.total_steps
                logs = position // config.log_interval > before // config.log_interval
                epoch_ends = self.global_step % source.steps_per_epoch == 0 or ends
                saves = config.save_interval and self.global_step % config.save_interval == 0
                if logs or epoch_ends or not self.distributed:
                    self.interrupted = self._any_process(self.stop_requested)
                if logs or epoch_ends or saves or self.interrupted:
                    self._report_bad_steps(source.batch)
                now = time.perf_counter()
                self.elapsed_s = now - start
                if logs:
                    metrics = {**self._step.mean_metrics(), **self._phase_metrics(phase)}
                    rate = (self.global_step - clock_step) * config.batch_size * self.world_size / (now - clock)
                    clock, clock_step = now, self.global_step
                    bar.set_postfix(self._progress(rate), refresh=False)
                    self._record(records, "train", {**metrics, "lr": lr, "samples_per_s": rate})
                fits = ends or not seconds or self.elapsed_s + _PAUSE_MARGIN * pause_s < seconds
                if epoch_ends and fits and self.rank == 0:
                    self._end_epoch(val, records, bar, -(-self.global_step // source.steps_per_epoch))
                    pause_s = time.perf_counter() - now
                if epoch_ends and config.patience:
                    stale = self._any_process(self.epochs_since_best >= config.patience)
                if self.interrupted or saves:
                    self._save(f"checkpoint_step_{self.global_step}.pth")
        if not self.interrupted:
            self._save("final_model.pth")
        if records is not None:
            records.close()
        return self.accuracy

    def _bar(self, seconds: float | None) -> ProgressBar:
        """Return the bar of the whole run, in steps or in seconds."""
        if not seconds:
            return ProgressBar(
                total=self.total_steps,
                initial=self.global_step,
                unit="step",
                dynamic_ncols=True,
                disable=self.rank > 0,
            )
        return ProgressBar(
            total=seconds,
            initial=min(self.elapsed_s, seconds),
            bar_format="{l_bar}{bar}| {n:.0f}/{total:.0f} s{postfix}",
            dynamic_ncols=True,
            disable=self.rank > 0,
        )

    def _schedule_position(self, elapsed_s: float, seconds: float | None) -> float:
        """Return where the schedules stand, in steps of `total_steps`; the same in every process."""
        if not seconds:
            return self.global_step
        assert self.total_steps is not None  # `fit` has set them
        position = elapsed_s / seconds * self.total_steps
        return first_process(position, self.device) if self.distributed else position

    def _request_stop(self) -> None:
        self.stop_requested = True

    def _any_process(self, flag: bool) -> bool:
        return any_process(flag, self.device) if self.distributed else flag

    def _end_epoch(self, val: IKDataset, records: Records | None, bar: ProgressBar, epoch: int) -> None:
        self.accuracy = self.validate(val)
        self._record(records, "val", self.accuracy)
        m, k = self.accuracy, VAL_REFINEMENTS
        bar.say(
            f"epoch {epoch}: val_loss {m['val_loss']:.4f}, one-step mean {m['pos_mm_mean']:.2f} mm "
            f"{m['rot_deg_mean']:.2f} deg, success rate after {k} refinements {m[f'solved_{k}']:.1%}"
        )
        loss, success = m["val_loss"], m[f"solved_{ATTEMPT_REFINEMENTS}"]
        better = loss < self.best_val_loss if self.config.best_by == "loss" else success > self.best_success
        self.best_val_loss, self.best_success = min(loss, self.best_val_loss), max(success, self.best_success)
        self.epochs_since_best = 0 if better else self.epochs_since_best + 1
        if better:
            self._save("best_model.pth")
        if 0 < self.config.patience <= self.epochs_since_best:
            bar.say(f"stopped: no better network, by {self.config.best_by}, for {self.epochs_since_best} epochs")
        self._save(f"checkpoint_epoch_{epoch}.pth")

    def _progress(self, samples_per_s: float) -> dict[str, str]:
        shown = {"samples/s": f"{samples_per_s:,.0f}"}
        if self.accuracy:
            shown["val"] = f"{self.accuracy['pos_mm_mean']:.2f} mm {self.accuracy['rot_deg_mean']:.2f} deg"
            shown["success"] = f"{self.accuracy[f'solved_{ATTEMPT_REFINEMENTS}']:.1%}"
        return shown

    def _record(self, records: Records | None, group: str, metrics: Mapping[str, float]) -> None:
        if records is not None:
            records.add(group, metrics, self.global_step, self.elapsed_s)

    # -- checkpoints ---------------------------------------------------------------------------------------------------

    def save(self, name: str | None = None) -> None:
        """Write a checkpoint into OUTPUT_DIR/checkpoints; in a process group only rank 0 does.

        Of the numbered ones the newest `config.keep_checkpoints` stay, and those of about ten round epochs.

        Args:
            name: Of the file; None: `checkpoint_step_{n}.pth`.

        Raises:
            ArgumentError: the trainer has no output folder.
            WriteError: the disk is full, the folder is read-only, or the like.
        """
        if self.output_dir is None:
            raise ArgumentError("output_dir: expected a folder to save checkpoints in; give one to MeanFlowTrainer")
        if self.rank:
            return
        folder = self.output_dir / "checkpoints"
        save_checkpoint(folder / (name or f"checkpoint_step_{self.global_step}.pth"), self.state_dict())
        if self.config.keep_checkpoints:
            remove_old_checkpoints(folder, self.config.keep_checkpoints, self.config.num_epochs)

    def _save(self, name: str) -> None:
        """`save`, if there is where to."""
        if self.output_dir is not None:
            self.save(name)

    def state_dict(self) -> dict[str, Any]:
        """Return all that a resumed run needs, in tensors and plain types."""
        return {
            "model": self.model.state_dict(),
            "ema": self.ema.module.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scaler": self._step.scaler.state_dict(),
            **{name: getattr(self, name) for name in _COUNTERS},
            "rng": torch.get_rng_state(),
            "model_config": json.dumps(self.model.config.to_dict()),
            "train_config": json.dumps(self.config.to_dict()),
            "robot": json.dumps(self.robot.to_dict()),
            "accuracy": json.dumps(self.accuracy),
            "data": json.dumps(self.data),
        }

    def resume(self, path: str | Path, *, other_data: bool = False) -> None:
        """Continue from a checkpoint.

        Args:
            path: The checkpoint.
            other_data: Continue on `data` that differ from the checkpoint's.

        Raises:
            BundleError: the checkpoint is unreadable, or of another robot, network or data.
        """
        state = load_checkpoint(path)
        with consistent(path):
            robot = Robot.from_dict(json.loads(state["robot"]))
            model_config, data, accuracy = (json.loads(state[name]) for name in ("model_config", "data", "accuracy"))
            numbers = {name: state[name] for name in _COUNTERS}
            parts = {name: state[name] for name in ("model", "ema", "optimizer", "scaler", "rng")}
        if robot.fingerprint() != self.robot.fingerprint():
            raise BundleError(f"{path}: trained for robot {robot.name!r}, expected {self.robot.name!r}")
        if model_config != self.model.config.to_dict():
            raise BundleError(f"{path}: network {model_config}, expected {self.model.config.to_dict()}; match --preset")
        if self.data and data and data != self.data and not other_data:
            differ = sorted(key for key in data.keys() | self.data.keys() if data.get(key) != self.data.get(key))
            said = "; ".join(f"{key} {self.data.get(key)!r}, expected {data.get(key)!r}" for key in differ)
            raise BundleError(f"{path}: trained on other data: {said}; give the same data, or --other_data to change")
        with consistent(path):
            self.model.load_state_dict(parts["model"])
            self.ema.module.load_state_dict(parts["ema"])
            self.optimizer.load_state_dict(parts["optimizer"])
            self._step.restore_settings()
            self._step.scaler.load_state_dict(parts["scaler"])
            torch.set_rng_state(parts["rng"])
        for name, value in numbers.items():
            setattr(self, name, value)
        self.accuracy = accuracy
