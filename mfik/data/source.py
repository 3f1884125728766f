"""Where training draws its rows from: a file, or the robot itself. Each step's rows depend on (seed, step, rank) only.

A source hands out `StepRows`, from which the batch is drawn on the device: only times are missing. Nothing depends on
what was drawn before, so a run that is resumed sees the rows that it would have seen.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from mfik import ops
from mfik.data.dataset import IKDataset
from mfik.data.free import free_check
from mfik.data.generate import check_coupling, draw
from mfik.errors import ArgumentError
from mfik.robots import Robot

_COLUMNS = ("q", "target_pose", "q_target", "r")
# Online rows drawn at once, rounded down to whole batches. CPU: as many as torch handles without forking threads,
# which on busy cores takes longer than the work. GPU: many, as a draw is thousands of launches whatever its size.
_CPU_BLOCK_ROWS = 4096
_GPU_BLOCK_ROWS = 65_536
_MASK32 = 2**32 - 1
_VALIDATION_STREAM = _MASK32


class StepRows(NamedTuple):
    """Rows of one step of training, on which times are still to be drawn.

    Attributes:
        size: Number of rows.
        tensors: What differs between steps, by the argument of `op` that takes it; in every step the same shapes.
        op: `ops.sample_batch` or `ops.draw_batch` with what all steps share; in every step the same object, so that a
            captured step can be replayed with other tensors.
    """

    size: int
    tensors: dict[str, Tensor]
    op: Callable[..., ops.Batch]

    @classmethod
    def of(cls, columns: Mapping[str, Tensor]) -> StepRows:
        """Return all rows of the columns "q", "target_pose", "q_target" and "r"."""
        return cls(len(columns["q"]), {name: columns[name] for name in _COLUMNS}, ops.sample_batch)

    def draw(self, **times: Any) -> ops.Batch:
        """Draw the batch.

        Args:
            times: `seed`, `step`, `rank`, `num_jvp`, `num_endpoint`, `c` and `p`, see `ops.sample_batch`.
        """
        return self.op(**self.tensors, **times)


class Source(Protocol):
    """Where rows come from.

    Attributes:
        steps_per_epoch: Number of steps that make an epoch.
    """

    steps_per_epoch: int

    def batch(self, step: int) -> StepRows:
        """Return the rows of a step, counted from 0 over all epochs; on the trainer's device."""
        ...


class FileSource:
    """Rows of a dataset in a fresh order each epoch; every row at most once an epoch, over all processes.

    Epoch e takes the rows in the order `torch.randperm(N)` of a generator seeded with seed + e. Step k of it takes the
    k-th run of batch_size * world_size rows, of which process `rank` has the rank-th part; the N modulo batch_size *
    world_size rows at the end sit out this epoch.

    Args:
        dataset: Rows to train on; on the CPU they are used where they are (in the file, when memory-mapped).
        batch_size: Rows of a step of one process.
        seed: Of the training run, in [0, 2^63).
        rank: Of this process, in [0, world_size).
        world_size: Number of processes.
        device: Where the columns are moved to, once, and each epoch's order.

    Attributes:
        steps_per_epoch: Number of steps that take every row once.

    Raises:
        ArgumentError: an argument is out of range, or the dataset has too few rows for one step.
    """

    def __init__(
        self,
        dataset: IKDataset,
        batch_size: int,
        *,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str = "cpu",
    ) -> None:
        self.steps_per_epoch = _steps_per_epoch("dataset", len(dataset), batch_size, seed, rank, world_size)
        self._op = partial(ops.sample_batch, **{name: getattr(dataset, name).to(device) for name in _COLUMNS})
        self._device = torch.device(device)
        self._kept = None if dataset.kept is None else dataset.kept.to(device)
        self._num_rows = len(dataset)
        self._batch_size, self._seed, self._rank, self._world_size = batch_size, seed, rank, world_size
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.int64)

    def batch(self, step: int) -> StepRows:
        """Return the rows of a step: the indices of its rows, [batch_size] int64, in the columns of all rows.

        Args:
            step: Of the training run, counted from 0 over all epochs.

        Raises:
            ArgumentError: step is negative.
        """
        _check_step(step)
        epoch, step_of_epoch = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            order = torch.randperm(self._num_rows, generator=torch.Generator().manual_seed(self._seed + epoch))
            self._order = order.to(self._device)
            self._epoch = epoch
        start = (step_of_epoch * self._world_size + self._rank) * self._batch_size
        index = self._order[start : start + self._batch_size]
        if self._kept is not None:
            index = self._kept[index]
        return StepRows(self._batch_size, {"index": index}, self._op)


class OnlineSource:
    """Fresh rows at every step, drawn from the robot as `generate` does: no file, no row that comes again.

    `global` rows that may collide are drawn together with their times by `ops.draw_batch`, in the step itself. All
    others are drawn in blocks of whole batches. Block b of process k has its own random stream, number
    b * world_size + k, so no two share one. A stream's generator is seeded with

        fmix32(number + 1 mod 2^32) xor fmix32(fmix32(seed / 2^32) xor seed mod 2^32)

    fmix32, the finaliser of MurmurHash3, is a bijection of 32-bit numbers: in one run no two streams have the same
    seed. (32 bits, because a CPU generator of torch ignores the upper half of its seed.) Streams of other runs
    may coincide, by chance.

    Args:
        robot: Robot to draw for.
        batch_size: Rows of a step of one process.
        coupling: As in `generate`.
        sigma: As in `generate`.
        collision_free: As in `generate`.
        seed: Of the training run, in [0, 2^63).
        rank: Of this process, in [0, world_size).
        world_size: Number of processes.
        device: Where to draw; the CPU and a GPU give different rows.
        epoch_rows: Rows that count as an epoch, over all processes.

    Attributes:
        steps_per_epoch: Number of steps that make an epoch.

    Raises:
        ArgumentError: an argument is out of range, or an epoch has too few rows for one step.
        RobotError: Rows free of collision are asked for, and the robot has no spheres.
    """

    def __init__(
        self,
        robot: Robot,
        batch_size: int,
        *,
        coupling: str = "mixed",
        sigma: float = 0.3,
        collision_free: bool = False,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        device: torch.device | str = "cpu",
        epoch_rows: int = 1_000_000,
    ) -> None:
        check_coupling(coupling, sigma)
        self.steps_per_epoch = _steps_per_epoch("epoch_rows", epoch_rows, batch_size, seed, rank, world_size)
        in_step = coupling == "global" and not collision_free
        self._global = partial(ops.draw_batch, robot, batch_size, device=device) if in_step else None
        self._is_free = free_check(robot, device) if collision_free else None
        self._robot, self._coupling, self._sigma, self._device = robot, coupling, sigma, torch.device(device)
        self._batch_size, self._seed, self._rank, self._world_size = batch_size, seed, rank, world_size
        block_rows = _CPU_BLOCK_ROWS if self._device.type == "cpu" else _GPU_BLOCK_ROWS
        self._steps_per_block = max(1, block_rows // batch_size)
        self._block, self._columns = -1, dict[str, Tensor]()

    def batch(self, step: int) -> StepRows:
        """Return the rows of a step: columns of batch_size rows, float32, not to be written to; none of `global` ones.

        Args:
            step: Of the training run, counted from 0.

        Raises:
            ArgumentError: step is negative, or so large that the random streams run out.
        """
        _check_step(step)
        if self._global is not None:
            return StepRows(self._batch_size, {}, self._global)
        block, step_of_block = divmod(step, self._steps_per_block)
        if block != self._block:
            stream = block * self._world_size + self._rank
            if stream >= _VALIDATION_STREAM:
                raise ArgumentError(
                    f"step: expected less than {_VALIDATION_STREAM // self._world_size * self._steps_per_block}, "
                    f"got {step}; the random streams of a seed end there"
                )
            self._columns = self._draw(stream, self._steps_per_block * self._batch_size)
            self._block = block
        start = step_of_block * self._batch_size
        return StepRows.of({name: self._columns[name][start : start + self._batch_size] for name in _COLUMNS})

    def validation_rows(self, num_samples: int) -> IKDataset:
        """Draw rows to validate on, from the last random stream of the seed, which training never reaches.

        Args:
            num_samples: Number of rows, all drawn at once.

        Returns:
            Rows on the device, the same in every process and at every call.

        Raises:
            ArgumentError: num_samples is below 1.
        """
        if num_samples < 1:
            raise ArgumentError(f"num_samples: expected at least 1, got {num_samples}")
        columns: dict[str, Any] = self._draw(_VALIDATION_STREAM, num_samples)
        return IKDataset(**columns)

    def _draw(self, stream: int, num_rows: int) -> dict[str, Tensor]:
        generator = stream_generator(self._seed, stream, self._device)
        return draw(self._robot, num_rows, self._coupling, self._sigma, generator, self._is_free)


def stream_generator(seed: int, stream: int, device: torch.device) -> torch.Generator:
    """Return the generator of one of a seed's 2^32 random streams, each with a seed of its own.

    Args:
        seed: Of the training run, in [0, 2^63).
        stream: Number of the stream, in [0, 2^32).
        device: Of the generator.
    """
    mixed = _fmix32((stream + 1) & _MASK32) ^ _fmix32(_fmix32(seed >> 32) ^ (seed & _MASK32))
    return torch.Generator(device=device).manual_seed(mixed)


def _fmix32(value: int) -> int:
    """Mix the bits of a 32-bit number, one to one (MurmurHash3's finaliser, Appleby 2011)."""
    value = (value ^ value >> 16) * 0x85EBCA6B & _MASK32
    value = (value ^ value >> 13) * 0xC2B2AE35 & _MASK32
    return value ^ value >> 16


def _check_step(step: int) -> None:
    if step < 0:
        raise ArgumentError(f"step: expected at least 0, got {step}; count from 0")


def _steps_per_epoch(name: str, num_rows: int, batch_size: int, seed: int, rank: int, world_size: int) -> int:
    """Check what both sources take and return the number of whole steps that the rows make."""
    if batch_size < 1:
        raise ArgumentError(f"batch_size: expected at least 1, got {batch_size}")
    if not 0 <= rank < world_size:
        raise ArgumentError(f"rank: expected 0 <= rank < world_size, got {rank} of {world_size}; count from 0")
    if not 0 <= seed < 2**63:
        raise ArgumentError(f"seed: expected an integer in [0, 2^63), got {seed}; take it modulo 2^63")
    steps = num_rows // (batch_size * world_size)
    if steps == 0:
        raise ArgumentError(
            f"{name}: {num_rows} rows to train on are fewer than one step takes, batch_size = {batch_size} times "
            f"world_size = {world_size}; take more rows or lower --batch_size"
        )
    return steps
