"""Learning rate as a function of the step alone, so that a resumed run continues the same curve."""

from __future__ import annotations

import math

from mfik.train.v1.config import TrainConfig


def learning_rate(config: TrainConfig, step: float, total_steps: int | None) -> float:
    """Return the learning rate of a step: linear warm-up from 0, then cosine or linear decay to `min_lr`.

    Args:
        config: `learning_rate`, `min_lr`, `warmup_steps`, `scheduler_type`.
        step: Step number, from 0; a fraction where elapsed time, not the number of steps, tells how far a run is.
        total_steps: Steps of the whole run, of which `min_lr` is reached at the last; None holds `learning_rate`
            after the warm-up (a caller's own loop, whose length is not known).
    """
    if step < config.warmup_steps:
        return config.learning_rate * step / config.warmup_steps
    if total_steps is None:
        return config.learning_rate
    progress = min(1.0, (step - config.warmup_steps) / max(1, total_steps - 1 - config.warmup_steps))
    remaining = 0.5 * (1 + math.cos(math.pi * progress)) if config.scheduler_type == "cosine" else 1 - progress
    return config.min_lr + (config.learning_rate - config.min_lr) * remaining
