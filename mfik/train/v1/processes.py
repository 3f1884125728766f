"""What the processes of a run agree on."""

from __future__ import annotations

import torch


def any_process(flag: bool, device: torch.device) -> bool:
    """Tell whether the flag is set in any process of the group, so that all act on it after the same step."""
    flags = torch.tensor([flag], dtype=torch.int32, device=device)
    torch.distributed.all_reduce(flags, torch.distributed.ReduceOp.MAX)
    return bool(flags.item())


def first_process(number: float, device: torch.device) -> float:
    """Return the number of the group's first process."""
    shared = torch.tensor([number], dtype=torch.float64, device=device)
    torch.distributed.broadcast(shared, 0)
    return shared.item()
