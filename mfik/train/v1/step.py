"""One optimiser step that never waits for the host, and its replay as a CUDA graph.

`TrainingStep` is the whole arithmetic of a step. It reads the step's number and learning rate from tensors and leaves
its metrics, and the numbers of the steps that were not finite, in tensors: the host looks at them when it wants to. So
the same function runs eagerly and, by `CapturedStep`, as one CUDA graph.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mfik.data import StepRows
from mfik.ops import Batch
from mfik.train.v1.config import TrainConfig
from mfik.train.v1.loss import LossOutput

METRICS = (*(name for name in LossOutput._fields if name != "row_loss"), "grad_norm")
_WARMUP_STEPS = 3  # taken eagerly before a capture: they allocate optimiser state, workspaces and compiled code


class Sample(NamedTuple):
    """A batch, and how many of its first rows have t > r and how many of those are at (r, t) = (0, 1)."""

    batch: Batch
    num_jvp: int
    num_endpoint: int


class TrainingStep:
    """Loss, backward pass, clipping, AdamW and averaged weights, on the device alone.

    A step whose loss or gradient norm is not finite changes neither weights nor optimiser. In a process group all
    processes skip together.

    Args:
        model: Network that is trained.
        average: Network that holds the averaged weights; they start as the initial ones.
        config: Settings of the run.
        device: Of both networks.
        distributed: Whether a process group trains the model.

    Attributes:
        number: The step's number, [1] int64; set it before each step.
        learning_rate: [], float32; set it before each step.
        optimizer: AdamW.
        scaler: Loss scaling, on in float16 only. Steps that it skips, as their gradients overflow, are not bad ones.
    """

    def __init__(
        self, model: nn.Module, average: nn.Module, config: TrainConfig, device: torch.device, distributed: bool
    ) -> None:
        self.number = torch.zeros(1, dtype=torch.int64, device=device)
        self.learning_rate = torch.zeros((), device=device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=False)
        self._parameters: list[Tensor] = list(model.parameters())
        self._average: list[Tensor] = list(average.parameters())
        self._clip, self._ema_weight, self._distributed = config.gradient_clip, 1 - config.ema_decay, distributed
        self.optimizer = torch.optim.AdamW(
            self._parameters, lr=self.learning_rate, betas=config.betas, weight_decay=config.weight_decay, fused=True
        )
        self.restore_settings()
        self._last = torch.zeros(len(METRICS), device=device)
        self._sums = torch.zeros(len(METRICS) + 1, dtype=torch.float64, device=device)  # last: how many steps
        self._num_bad = torch.zeros(1, dtype=torch.int64, device=device)
        self._bad_numbers = torch.zeros(config.max_bad_steps + 1, dtype=torch.int64, device=device)

    def restore_settings(self) -> None:
        """Undo what loading another device's optimiser state does to the optimiser's settings."""
        for group in self.optimizer.param_groups:
            group.update(lr=self.learning_rate, capturable=self.learning_rate.is_cuda, fused=True)

    def __call__(self, sample: Sample, loss: Callable[[Sample], LossOutput]) -> None:
        """Take the step."""
        output = loss(sample)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(output.loss).backward()
        self.scaler.unscale_(self.optimizer)
        with torch.no_grad():
            norm = nn.utils.get_total_norm([p.grad for p in self._parameters if p.grad is not None])
            bad = ~output.loss.isfinite()
            skipped = bad | ~norm.isfinite()
            if not self.scaler.is_enabled():
                bad = skipped
            if self._distributed:
                flags = torch.stack((skipped, bad)).int()
                torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX)
                skipped, bad = flags.bool()
            # What GradScaler tells a fused optimiser: it divides gradients by one and skips the step by the other.
            self.optimizer.found_inf = skipped.float()  # type: ignore[attr-defined]
            if self._clip:
                self.optimizer.grad_scale = (norm / self._clip).clamp(min=1)  # type: ignore[attr-defined]
            self.optimizer.step()
            torch._foreach_lerp_(self._average, self._parameters, self._ema_weight)
            self.scaler.update()
            self._last.copy_(torch.stack([*(getattr(output, name) for name in METRICS[:-1]), norm]))
            counted = torch.cat((self._last, torch.ones_like(self._last[:1])))
            self._sums += torch.where(skipped, 0.0, counted)
            slot = self._num_bad.clamp(max=len(self._bad_numbers) - 1)
            number = torch.where(bad, self.number, self._bad_numbers.gather(0, slot))
            self._bad_numbers.scatter_(0, slot, number)
            self._num_bad += bad

    def last_metrics(self) -> dict[str, float]:
        """Wait for the last step and return its metrics."""
        return dict(zip(METRICS, self._last.tolist(), strict=True))

    def mean_metrics(self) -> dict[str, float]:
        """Wait, and return the metrics' means over the steps since the last call, but the skipped ones (none: NaN)."""
        *sums, steps = self._sums.tolist()
        self._sums.zero_()
        return {name: value / steps if steps else float("nan") for name, value in zip(METRICS, sums, strict=True)}

    def bad_steps(self) -> list[int]:
        """Wait, and return the numbers of the first steps since the last call whose loss or gradient was not finite.

        As many as may be skipped, plus one; the call forgets them.
        """
        count = int(self._num_bad)
        if count:
            self._num_bad.zero_()
        return self._bad_numbers[: min(count, len(self._bad_numbers))].tolist() if count else []


class CapturedStep:
    """Replay a function of a step's rows as one CUDA graph.

    The first steps with new settings run eagerly, then the next one is captured; whatever else the function reads must
    stay in the same memory. The tensors in which the rows of steps differ are copied to a place of their own.

    Args:
        run: Called as run(rows, settings); launches work on the current stream and does not wait for it.
    """

    def __init__(self, run: Callable[[StepRows, Any], None]) -> None:
        self._run = run
        self._key: Hashable = None
        self._eager_steps = 0
        self._graph: torch.cuda.CUDAGraph | None = None
        self._stream = torch.cuda.Stream()
        self._rows: StepRows | None = None

    def __call__(self, rows: StepRows, settings: Hashable) -> None:
        """Run the function, whose Python code depends on `settings`, `rows.op` and the shapes alone."""
        key = (settings, rows.op, rows.size, *((name, tuple(x.shape)) for name, x in rows.tensors.items()))
        if key != self._key or self._rows is None:
            self._key, self._eager_steps, self._graph = key, 0, None
            self._rows = rows._replace(tensors={name: x.clone() for name, x in rows.tensors.items()})
        else:
            for name, x in rows.tensors.items():
                self._rows.tensors[name].copy_(x)
        if self._graph is None and self._eager_steps < _WARMUP_STEPS:
            self._eager_steps += 1
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                self._run(self._rows, settings)
            torch.cuda.current_stream().wait_stream(self._stream)
            return
        if self._graph is None:
            self._graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self._graph, stream=self._stream):
                self._run(self._rows, settings)
        self._graph.replay()
