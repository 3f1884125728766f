"""How a step's batch comes about: times on the rows' lines, reflow, augmentation, curriculum."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple

import torch
from torch import Tensor

from mfik import ops
from mfik.data import StepRows, free_check
from mfik.model import Network, SingleStep
from mfik.robots import Robot
from mfik.train.v1.config import TrainConfig
from mfik.train.v1.step import Sample

_NOISE_SALT = 0x5EED_0F_A06  # separates the augmentation's random streams from the online rows'
_REFLOW_REFINEMENTS = 10  # at most, from the network's answer to the solution that becomes the target
_REFLOW_TOLERANCE = 1e-4  # [m] and [rad]: far below what a network tells apart


class Phase(NamedTuple):
    """What a step does to its rows' lines besides drawing times; a captured step is replayed within one phase."""

    curriculum: bool
    reflow: bool


class Sampler:
    """Draw the batches of a run: a function of its rows, (seed, step, rank) and the averaged network.

    Args:
        config: Settings of the run.
        robot: Robot that is trained for.
        average: Network that holds the averaged weights, from which rows are coupled anew.
        number: The step's number on the networks' device, [1] int64, which is read when a batch is drawn.
        position: Where the schedules stand, in steps, on the same device, [1].
        autocast: Returns the context in which networks are evaluated.
        rank: Of this process.

    Attributes:
        accepted: Share of the last batch's rows whose line got a new target by reflow, [], float32 on the device.
    """

    def __init__(
        self,
        config: TrainConfig,
        robot: Robot,
        average: Network,
        number: Tensor,
        position: Tensor,
        autocast: Callable[[], AbstractContextManager],
        rank: int,
    ) -> None:
        self._config, self._robot, self._teacher = config, robot, SingleStep(average.without_restarts())
        self.accepted = torch.zeros((), device=number.device)
        self._number, self._position, self._autocast, self._rank = number, position, autocast, rank
        self._is_free = free_check(robot, number.device) if config.collision_free else None

    def phase(self, position: float) -> Phase:
        """Return the phase that a position of the schedules, in steps, belongs to."""
        config = self._config
        return Phase(position + 1 < config.curriculum_steps, 0 < config.reflow_start <= position)

    def sample(self, rows: StepRows, seed: int, step: int | Tensor) -> Sample:
        """Draw times on the rows' lines."""
        config = self._config
        num_jvp = round((1 - config.flow_matching_ratio) * rows.size)
        num_endpoint = round(config.endpoint_ratio * num_jvp)
        batch = rows.draw(
            seed=seed, step=step, rank=self._rank, num_jvp=num_jvp, num_endpoint=num_endpoint,
            c=config.adaptive_weight_c, p=config.adaptive_weight_p,
        )  # fmt: skip
        return Sample(ops.Batch(*(tensor.float() for tensor in batch)), num_jvp, num_endpoint)

    def training_sample(self, rows: StepRows, phase: Phase) -> Sample:
        """`sample` of the device's step, with what its phase and the augmentation change of the rows' lines."""
        config, step = self._config, self._number
        sample = self.sample(rows, config.seed, step)
        if not any(phase) and not config.reference_noise:
            return sample
        batch, num_jvp, num_endpoint = sample
        v, t, q_target = batch.v, batch.t, batch.q_target
        if phase.reflow:
            start = q_target - v
            q_target = self._reflow(start, batch.target_pose, q_target)
            v = q_target - start
            num_jvp = 0  # one solution to each start: lines do not cross, so u = v and D = 0 on all of them
        if config.reference_noise:  # a function of (seed, step, rank), as the rows and times are
            v = v - config.reference_noise * ops.draw_normal(
                (v.shape[0], v.shape[1]), config.seed ^ _NOISE_SALT, step, self._rank
            )
        if phase.curriculum:
            reach = (self._position + 1) / config.curriculum_steps
            v = reach * v  # nearer references: the line shrinks towards its end
            t = batch.r + reach * (t - batch.r)
            num_endpoint = 0  # a shorter interval does not end at the solution
        q = q_target - (1 - batch.r) * v
        weight = ops.adaptive_weight(q, q_target, config.adaptive_weight_c, config.adaptive_weight_p)
        batch = batch._replace(q=q, q_target=q_target, v=v, t=t, weight=weight)
        return Sample(batch, num_jvp, num_endpoint)

    @torch.no_grad()
    def _reflow(self, q_ref: Tensor, target_pose: Tensor, q_own: Tensor) -> Tensor:
        """Return the solution that each row shall lead to, [B, J]: that which refinement reaches from the averaged
        network's answer, where it reaches one. It does not begin anew elsewhere: what it led to from there would be
        another place's answer (docs/measurements/training.md)."""
        with self._autocast():
            q = self._teacher(q_ref, target_pose).float()
        q = torch.where(q.isfinite(), q, q_ref)
        q, converged, _ = ops.refine(
            self._robot,
            q,
            target_pose,
            max_iterations=_REFLOW_REFINEMENTS,
            tol_pos=_REFLOW_TOLERANCE,
            tol_rot=_REFLOW_TOLERANCE,
        )
        if self._is_free is not None:
            converged = converged & self._is_free(q)
        self.accepted.copy_(converged.float().mean())
        return torch.where(converged.unsqueeze(-1), q, q_own)
